"""Models from a folder as the `transformers` library keeps them, and from its live modules.

    model = load_folder("SmolLM-135M", max_length=2048)      # config.json, *.safetensors
    model = from_transformers(LlamaForCausalLM(config))

Files of f32 are mapped and used where they lie; narrower floats are widened once, which is exact.
"""

from __future__ import annotations

import json
import mmap
import struct
from pathlib import Path

import numpy as np

from tensorwright.base.errors import ArtifactError, FrontendError
from tensorwright.ir.dtype import f32
from tensorwright.nn.llama import Llama, LlamaConfig
from tensorwright.runtime.buffer import numpy_dtype

_TYPES = {
    "F64": "f64", "F32": "f32", "F16": "f16", "BF16": "bf16", "I64": "i64", "I32": "i32",
    "I16": "i16", "I8": "i8", "U8": "u8", "BOOL": "bool",
}  # fmt: skip
_MOST_HEADER = 100 << 20  # bytes, as the format says

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name, as read-only views of the mapped file: a length of 8 bytes, a
    JSON object of types, shapes and offsets, then the data."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as e:
        raise ArtifactError(f"cannot read {path}: {e}") from None
    try:
        (length,) = struct.unpack_from("<Q", view)
        if length > min(_MOST_HEADER, len(view) - 8):
            raise ValueError("the header is longer than the file")
        header = json.loads(bytes(view[8 : 8 + length]))
        header.pop("__metadata__", None)
        return {name: _view(view[8 + length :], row) for name, row in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as e:
        raise ArtifactError(f"{path} is no safetensors file, or damaged: {e}") from None


def _view(data: memoryview, row: dict) -> np.ndarray:
    if row["dtype"] not in _TYPES:
        raise ArtifactError(f"weights of type {row['dtype']} are not supported")
    start, end = row["data_offsets"]
    if not 0 <= start <= end <= len(data):
        raise ValueError("a tensor lies outside the file")
    return np.frombuffer(data[start:end], numpy_dtype(_TYPES[row["dtype"]])).reshape(row["shape"])


def read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except OSError as e:
        raise ArtifactError(f"cannot read {path}: {e.strerror}") from None
    except ValueError as e:
        raise ArtifactError(f"{path} is damaged: {e}") from None


def llama_config(c: dict) -> LlamaConfig:
    """The configuration of a model from its config.json, FrontendError for another architecture."""
    kind = (c.get("architectures") or [""])[0]
    if kind not in ARCHITECTURES:
        raise FrontendError(f"the architecture {kind or 'of this model'} is not known here",
                            help=f"{', '.join(ARCHITECTURES)} are")  # fmt: skip
    if c.get("hidden_act", "silu") != "silu":
        raise FrontendError(f"{kind} with the activation {c['hidden_act']} is not known here")
    rope = {**(c.get("rope_scaling") or {}), **(c.get("rope_parameters") or {})}
    bias = bool(c.get("attention_bias", False))
    heads = c["num_attention_heads"]
    return LlamaConfig(
        vocab=c["vocab_size"], width=c["hidden_size"], inner=c["intermediate_size"],
        layers=c["num_hidden_layers"], heads=heads, shared=c.get("num_key_value_heads") or heads,
        depth=c.get("head_dim") or 0, epsilon=c.get("rms_norm_eps", 1e-6),
        theta=rope.pop("rope_theta", None) or c.get("rope_theta", 10000.0), scaling=rope,
        qkv_bias=bias or kind == "Qwen2ForCausalLM", out_bias=bias,
        mlp_bias=bool(c.get("mlp_bias", False)), tied=bool(c.get("tie_word_embeddings", False)),
        windows=windows(kind, c),
    )  # fmt: skip


def windows(kind: str, c: dict) -> tuple[int, ...]:
    """How far each layer sees back; () for all of the past in all of them."""
    width = c.get("sliding_window") or 0
    if kind == "LlamaForCausalLM" or (kind == "Qwen2ForCausalLM" and not c.get(
            "use_sliding_window")):  # fmt: skip
        return ()
    layers = c["num_hidden_layers"]
    types = c.get("layer_types") or ["sliding_attention"] * layers
    if kind == "Qwen2ForCausalLM" and not c.get("layer_types"):
        types = ["full_attention"] * min(c.get("max_window_layers", layers), layers)
        types += ["sliding_attention"] * (layers - len(types))
    return tuple(width if t == "sliding_attention" else 0 for t in types) if width else ()


def with_weights(config: dict, arrays: dict[str, np.ndarray], **options) -> Llama:
    """The model of a configuration with these arrays, named as `transformers` names them."""
    model = Llama(llama_config(config), **options)
    mine = model.named()
    found = {name.removeprefix("model."): a for name, a in arrays.items()}
    if model.lm_head is None:
        found.pop("lm_head.weight", None)
    found = {n: a for n, a in found.items() if n in mine or not n.endswith("rotary_emb.inv_freq")}
    model.load({n: a if a.dtype == np.float32 else a.astype(f32.numpy) for n, a in found.items()})
    return model


def load_folder(folder: str | Path, **options) -> Llama:
    """The model of a folder with config.json and *.safetensors. options: those of `Llama`;
    max_length is no more than the model was made for."""
    folder = Path(folder)
    config = read_json(folder / "config.json")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ArtifactError(f"there are no *.safetensors in {folder}")
    arrays: dict[str, np.ndarray] = {}
    for file in files:
        arrays |= read_safetensors(file)
    most = config.get("max_position_embeddings") or options.get("max_length", 2048)
    options["max_length"] = min(options.get("max_length", 2048), most)
    return with_weights(config, arrays, **options)


def from_transformers(module, **options) -> Llama:
    """The model of a module of the `transformers` library, over the same memory."""
    config = {**module.config.to_dict(), "architectures": [type(module).__name__]}
    arrays = {name: t.detach().numpy() if t.dtype.itemsize > 2 else t.detach().float().numpy()
              for name, t in module.state_dict().items()}  # fmt: skip
    return with_weights(config, arrays, **options)
