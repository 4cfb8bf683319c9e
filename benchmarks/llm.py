"""A Llama-style model with seeded weights: tokens a second, beside peers and beside a plain read.

    python -m benchmarks.llm --threads 1,2 --peers torch,inductor,llamacpp
    python -m benchmarks.llm --width 2048 --inner 5632 --layers 22 --precision bf16

*prefill* reads a prompt of `--prompt` tokens, *decode* makes one token after another behind it.
`limit` reads as many bytes as the weights that a decoded token needs, once. Every round measures
every engine once, and the best round counts: what else runs on the machine slows single rounds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tensorwright.base.errors import TensorwrightError


@dataclass(frozen=True)
class Runner:
    """prefill(): the whole prompt, from an empty cache. decode(): one more token, which it gives
    (None: there is nothing to compare)."""

    prefill: Callable[[], int | None]
    decode: Callable[[], int | None]


@dataclass(frozen=True)
class Case:
    sizes: dict[str, int]
    prompt: int
    threads: int
    precision: str

    @property
    def tokens(self) -> np.ndarray:
        return np.random.default_rng(0).integers(3, self.sizes["vocab_size"], self.prompt)

    def reference(self):
        """The model in PyTorch, the same for every engine."""
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        torch.set_num_threads(self.threads)
        length = self.prompt + 512
        return LlamaForCausalLM(LlamaConfig(**self.sizes, max_position_embeddings=length)).eval()


def read_bytes(case: Case) -> int:
    """Bytes of the weights that one decoded token reads: all but the rows of the embedding."""
    s = case.sizes
    width, inner, shared = s["hidden_size"], s["intermediate_size"], s["num_key_value_heads"]
    depth = width // s["num_attention_heads"]
    layer = 2 * width * width + 2 * width * shared * depth + 3 * width * inner
    count = s["num_hidden_layers"] * layer + s["vocab_size"] * width
    return count * (2 if case.precision == "bf16" else 4)


# ---- engines -----------------------------------------------------------------------------------


def tensorwright(case: Case, model) -> Runner:
    import tensorwright as tw
    from tensorwright.nn.serve import Engine
    from tensorwright.nn.weights import from_transformers

    ours = from_transformers(model, max_length=case.prompt + 512)
    engine = Engine(tw.compile(ours, threads=case.threads, precision=case.precision))
    now = []

    def prefill() -> int:
        if now:
            engine.running.remove(now[0])
            engine.release(now.pop())
        now.append(engine.submit(case.tokens, max_tokens=1 << 30))
        return engine.step()[0][1]

    return Runner(prefill, lambda: engine.step()[0][1])


def limit(case: Case, model) -> Runner:
    from tensorwright.ir.dtype import f32
    from tensorwright.target.host import host
    from tensorwright.tools.machine import READ, program

    lanes = host().lanes(f32)
    count = read_bytes(case) // (4 * 8 * lanes * case.threads)
    read = program(READ, host(), case.threads, lanes=lanes, parts=case.threads, count=count,
                   repeats=1)  # fmt: skip
    from tensorwright.runtime.pages import constant_empty

    x = constant_empty((case.threads, count, 8, lanes), np.dtype("f"))
    x[...] = 1
    return Runner(lambda: None, lambda: (read(x), None)[1])


def torch_eager(case: Case, model) -> Runner:
    return _torch(case, model, model)


def torch_compiled(case: Case, model) -> Runner:
    import torch

    return _torch(case, model, torch.compile(model, dynamic=True))


def _torch(case: Case, model, call) -> Runner:
    import torch
    from transformers import DynamicCache

    model = model.to(torch.bfloat16) if case.precision == "bf16" else model
    state = {}

    def step(ids) -> int:
        with torch.inference_mode():
            out = call(input_ids=ids, past_key_values=state["cache"], logits_to_keep=1)
        token = int(out.logits[0, -1].argmax())
        state["next"] = torch.tensor([[token]])
        return token

    def prefill() -> int:
        state["cache"] = DynamicCache()
        return step(torch.from_numpy(case.tokens[None]))

    return Runner(prefill, lambda: step(state["next"]))


def llama_cpp(case: Case, model) -> Runner:
    from llama_cpp import Llama

    path = write_gguf(case, model)
    found = Llama(str(path), n_ctx=case.prompt + 512, n_threads=case.threads, logits_all=False,
                  n_threads_batch=case.threads, verbose=False)  # fmt: skip

    def step(tokens) -> int:
        found.eval(tokens)
        return int(np.argmax(found._scores[-1] if len(found._scores) else found.scores[0]))

    last = []

    def prefill() -> int:
        found.reset()
        last[:] = [step(case.tokens.tolist())]
        return last[0]

    def decode() -> int:
        last[:] = [step(last)]
        return last[0]

    return Runner(prefill, decode)


def write_gguf(case: Case, model) -> Path:
    """The model as llama.cpp wants it; its rows of q and k are turned in neighbouring pairs."""
    import gguf

    path = Path(".bench") / f"llama-{abs(hash(tuple(case.sizes.values())))}-{case.precision}.gguf"
    path.parent.mkdir(exist_ok=True)
    s, w = case.sizes, gguf.GGUFWriter(str(path), "llama")
    heads, shared = s["num_attention_heads"], s["num_key_value_heads"]
    w.add_context_length(case.prompt + 512)
    w.add_embedding_length(s["hidden_size"])
    w.add_block_count(s["num_hidden_layers"])
    w.add_feed_forward_length(s["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(shared)
    w.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    w.add_rope_dimension_count(s["hidden_size"] // heads)
    w.add_rope_freq_base(10000.0)
    w.add_vocab_size(s["vocab_size"])
    w.add_tokenizer_model("no_vocab")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, s["num_hidden_layers"])
    for name, tensor in model.state_dict().items():
        a = tensor.float().numpy()
        for part, n in (("q_proj", heads), ("k_proj", shared)):
            if part in name:
                a = a.reshape(n, 2, -1, a.shape[1]).swapaxes(1, 2).reshape(a.shape)
        to = names.get_name(name.removesuffix(".weight")) + ".weight"
        if case.precision == "bf16" and a.ndim == 2:
            kind = gguf.GGMLQuantizationType.BF16
            w.add_tensor(to, gguf.quantize(a, kind), raw_dtype=kind)
        else:
            w.add_tensor(to, np.ascontiguousarray(a))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


ENGINES = {"tensorwright": tensorwright, "limit": limit, "torch": torch_eager,
           "inductor": torch_compiled, "llamacpp": llama_cpp}  # fmt: skip


# ---- measuring ---------------------------------------------------------------------------------


def measure(case: Case, names: list[str], rounds: int, steps: int) -> list[dict]:
    """Every engine's best seconds of a prompt and of a token, engines taking turns."""
    model = case.reference()
    runners, rows = {}, {}
    for name in names:
        start = time.perf_counter()
        try:
            runners[name] = ENGINES[name](case, model)
            first = [runners[name].prefill(), *(runners[name].decode() for _ in range(steps))]
            ready = time.perf_counter() - start
            rows[name] = {"engine": name, "threads": case.threads, "ready": ready,
                          "tokens": first, "prefill": np.inf, "decode": np.inf}  # fmt: skip
        except (ImportError, RuntimeError, ValueError, TensorwrightError) as e:
            sys.stderr.write(f"{name}: {type(e).__name__}: {e}\n")
            runners.pop(name, None)
    for _ in range(rounds):
        for name, r in runners.items():
            row = rows[name]
            row["prefill"] = min(row["prefill"], *seconds(r.prefill, 1))
            row["decode"] = min(row["decode"], *seconds(r.decode, steps))
    return list(rows.values())


def seconds(call: Callable, times: int) -> Iterator[float]:
    for _ in range(times):
        start = time.perf_counter()
        call()
        yield time.perf_counter() - start


def table(rows: list[dict], case: Case) -> str:
    """Markdown: tokens a second, and decode's share of the plain read of the same rounds."""
    lines = ["| engine | threads | prefill, tokens/s | decode, tokens/s | GB/s | of the read |",
             "| --- | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for threads in sorted({r["threads"] for r in rows}):
        own = [r for r in rows if r["threads"] == threads]
        least = min((r["decode"] for r in own if r["engine"] == "limit"), default=np.nan)
        wanted = next((r["tokens"] for r in own if r["engine"] == "torch"), None)
        for r in own:
            plain = r["engine"] == "limit"
            note = "" if plain or wanted in (None, r["tokens"]) else " (other tokens)"
            prefill = "" if plain else f"{case.prompt / r['prefill']:.0f}"
            speed = read_bytes(case) / r["decode"] / 1e9
            lines.append(f"| {r['engine']}{note} | {threads} | {prefill} | {1 / r['decode']:.1f} | "
                         f"{speed:.1f} | {least / r['decode']:.0%} |")  # fmt: skip
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, size in (("vocab", 32000), ("width", 1024), ("inner", 2816), ("layers", 16),
                       ("heads", 16), ("shared", 4), ("prompt", 128), ("rounds", 5),
                       ("steps", 16)):  # fmt: skip
        p.add_argument(f"--{name}", type=int, default=size)
    p.add_argument("--threads", default="1,2")
    p.add_argument("--precision", default="model", choices=("model", "bf16"))
    p.add_argument("--peers", default="torch", help=f"of {', '.join(list(ENGINES)[2:])}")
    p.add_argument("--json", action="store_true", help="one thread count, rows as JSON")
    a = p.parse_args(arguments)
    sizes = {"vocab_size": a.vocab, "hidden_size": a.width, "intermediate_size": a.inner,
             "num_hidden_layers": a.layers, "num_attention_heads": a.heads,
             "num_key_value_heads": a.shared}  # fmt: skip
    counts = [int(n) for n in a.threads.split(",")]
    case = Case(sizes, a.prompt, counts[0], a.precision)
    names = ["limit", "tensorwright", *(n for n in a.peers.split(",") if n)]
    if a.json:
        print(json.dumps(measure(case, names, a.rounds, a.steps)))
        return
    rows = []
    for n in counts:  # a process each: thread pools are made once
        given = (arguments or sys.argv[1:]) + ["--threads", str(n), "--json"]
        command = [sys.executable, "-m", "benchmarks.llm", *given]
        rows += json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    size = f"{read_bytes(case) / 1e6:.0f} MB of weights a token"
    print(f"{size}, precision {a.precision}, prompt of {a.prompt} tokens\n")
    print(table(rows, case))


if __name__ == "__main__":
    main()
