"""The models that benchmarks and tests run: one row each.

A row yields a torch module with seeded weights (`row.net()`) and an ONNX file with inputs and
PyTorch's outputs beside it (`row.artifact()`), exported once and kept under `.bench/`; `small=True`
gives the same architecture at test size. Rows of trained models (`benchmarks/trained.py`) have an
ONNX file only. Nothing is downloaded, ever.

    for row in zoo.rows(): print(row.name, row.artifact().meta["flops"])

    python -m benchmarks.zoo resnet50 lstm2 [--small]       # export these now
"""

import argparse
import hashlib
import importlib
import json
import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from benchmarks import trained

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("TW_BENCH_CACHE", ROOT / ".bench"))
OPSET = 20
# Changed by hand when the exported files of an unchanged model must be made again.
FORMAT = "1"


@dataclass(frozen=True)
class Artifact:
    """An ONNX file, what to feed it, what PyTorch answered, and what it costs."""

    onnx: Path
    inputs: dict[str, np.ndarray]
    torch_outputs: tuple[np.ndarray, ...]
    meta: dict


@dataclass(frozen=True)
class Row:
    """A model: `module` is a file of `benchmarks/nets`, whose function `name` builds it."""

    name: str
    module: str
    title: str

    @property
    def has_torch(self) -> bool:
        return self.module != "trained"

    def net(self, small: bool = False):
        """The torch module with example inputs (imports torch)."""
        if not self.has_torch:
            raise LookupError(f"{self.name} exists as ONNX only")
        module = importlib.import_module(f"benchmarks.nets.{self.module}")
        return getattr(module, self.name)(small=small)

    def artifact(self, small: bool = False) -> Artifact:
        """The exported file and its data; exports on first use."""
        if not self.has_torch:
            return self._trained_artifact()
        stem = CACHE / f"{self.name}{'-small' if small else ''}"
        key = self._key()
        if not _fresh(stem, key):
            from benchmarks.export import export

            export(self.net(small), stem, key, OPSET)
        data = np.load(stem.with_suffix(".npz"))
        inputs = {n[4:]: data[n] for n in data.files if n.startswith("in__")}
        outputs = tuple(data[n] for n in data.files if n.startswith("out__"))
        meta = json.loads(stem.with_suffix(".json").read_text())
        return Artifact(stem.with_suffix(".onnx"), inputs, outputs, meta)

    def _trained_artifact(self) -> Artifact:
        from benchmarks.export import describe_once

        path, inputs = trained.model(self.name)
        return Artifact(path, inputs, (), describe_once(path, inputs, CACHE / f"{self.name}.json"))

    def _key(self) -> str:
        """Changes with the sources that define the model and the versions that export it."""
        folder = ROOT / "benchmarks"
        names = [f"nets/{self.module}.py", "nets/seeding.py", "nets/text.py"]
        names += ["nets/single.py"] if self.module in SINGLE.values() else []
        digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in names))
        digest.update(FORMAT.encode())
        for package in ("torch", "transformers", "onnxscript"):
            digest.update(_version(package).encode())
        return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _fresh(stem: Path, key: str) -> bool:
    memo = stem.with_suffix(".json")
    if not memo.exists():
        return False
    kept = json.loads(memo.read_text())["key"]
    # A machine that cannot export again (no torch) may still use what is there.
    return kept == key or _version("torch") == "absent"


BUILT = (
    Row("resnet50", "vision", "ResNet-50"),
    Row("mobilenet_v2", "vision", "MobileNetV2"),
    Row("resnext50_32x4d", "vision", "ResNeXt-50 32x4d"),
    Row("densenet121", "vision", "DenseNet-121"),
    Row("regnet_y_800mf", "vision", "RegNetY-800MF"),
    Row("vit_b16", "image_transformers", "ViT-B/16"),
    Row("deit_tiny", "image_transformers", "DeiT-Tiny"),
    Row("beit_base", "image_transformers", "BEiT-base"),
    Row("mobilevit_small", "image_transformers", "MobileViT-S"),
    Row("clip_vision", "image_transformers", "CLIP ViT-B/32, vision"),
    Row("clip_text", "text", "CLIP ViT-B/32, text"),
    Row("bert_base", "text", "BERT-base, 128 tokens"),
    Row("albert_base", "text", "ALBERT-base, 128 tokens"),
    Row("bart_encoder", "text", "BART-base encoder, 128 tokens"),
    Row("bart_decoder", "text", "BART-base decoder, 64 tokens"),
    Row("gpt2_prefill", "text", "GPT-2 small, prefill 128"),
    Row("gpt2_decode", "text", "GPT-2 small, decode at 128"),
    Row("minilm", "text", "MiniLM-L6, trained, 2x32 tokens"),
    Row("llama_prefill", "sequence", "Llama-style 120M, prefill 64"),
    Row("llama_decode", "sequence", "Llama-style 120M, decode at 128"),
    Row("lstm2", "sequence", "LSTM x2, 128 steps"),
    Row("wav2vec2_base", "sequence", "Wav2Vec2-base, 1 s"),
)


# The models that most peers publish numbers for; tables also give their mean alone.
HEADLINE = (
    "resnet50", "mobilenet_v2", "bert_base", "vit_b16", "gpt2_prefill", "gpt2_decode",
    "llama_prefill", "llama_decode", "lstm2", "resnext50_32x4d", "densenet121", "deit_tiny",
    "wav2vec2_base", "minilm", "mobilenet_v2_1.0_224_f32",
)  # fmt: skip

# Single operators, by the first word of their names; `python -m benchmarks.kernels` and
# `benchmarks.unusual` run them.
KERNEL_FAMILIES = (
    "conv", "depthwise", "matmul", "attention", "rows", "map", "reduce", "move", "pool", "resize",
    "recurrent",
)  # fmt: skip
SINGLE = {**dict.fromkeys(KERNEL_FAMILIES, "kernels"), "unusual": "unusual"}  # file of `nets`

# Sizes that vary from call to call; `python -m benchmarks.dynamic` runs them.
DYNAMIC = (
    Row("bert_any", "dynamic", "BERT-base width, 4 layers"),
    Row("vit_any", "dynamic", "ViT-B/16 width, 4 layers"),
    Row("wav2vec2_any", "dynamic", "Wav2Vec2-base, 4 layers"),
    Row("llama_prefill_any", "dynamic", "Llama-style, 4 layers, prefill"),
    Row("llama_decode_any", "dynamic", "Llama-style, 4 layers, decode"),
    Row("detector_any", "dynamic", "SSD-like detector with NMS"),
)


def rows() -> tuple[Row, ...]:
    """Built models, then the trained ones if their folder exists."""
    return BUILT + tuple(Row(name, "trained", title) for name, title in trained.titles())


def find(name: str) -> Row:
    known = {row.name: row for row in (*rows(), *DYNAMIC)}
    if name not in known:
        family = name.partition("_")[0]
        if family in SINGLE:
            return Row(name, SINGLE[family], name)
        raise KeyError(f"no model {name!r}; known: {', '.join(known)}")
    return known[name]


def main() -> None:
    """Export the named models, one at a time; all of them without a name."""
    parser = argparse.ArgumentParser(description="Export models into the cache.")
    parser.add_argument("models", nargs="*", default=[row.name for row in rows()])
    parser.add_argument("--small", action="store_true", help="test-size configurations")
    args = parser.parse_args()
    for name in args.models:
        meta = find(name).artifact(args.small).meta
        print(f"{name}: {meta['flops'] / 1e9:.3f} GFLOP, {meta['weight_bytes'] / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
