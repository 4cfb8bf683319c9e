"""A Llama-style model with seeded weights: tokens a second, beside peers and beside a plain read.

    python -m benchmarks.llm --threads 1,2 --peers torch,inductor,openvino,llamacpp
    python -m benchmarks.llm --width 2048 --inner 5632 --layers 22 --precision bf16
    python -m benchmarks.llm --markdown docs/benchmarks_dynamic.md

*prefill* reads a prompt of `--prompt` tokens, *decode* makes one token after another behind it.
`limit` reads as many bytes as the weights that a decoded token needs, once. Every round measures
every engine once, and the best round counts: what else runs on the machine slows single rounds.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.page import TITLES, Table, comma, measured_on, options, publish, thread_option
from tensorwright.base.errors import TensorwrightError


@dataclass(frozen=True)
class Round:
    """The prompt's token and those decoded behind it (none: there is nothing to compare), seconds
    of the prompt, and seconds of a decoded token."""

    tokens: list[int]
    prefill: float
    decode: float


Runner = Callable[[int], Round]  # number of tokens to decode -> what came and how long it took


def runner(prefill: Callable[[], int | None], decode: Callable[[], int | None]) -> Runner:
    """prefill(): the whole prompt, from an empty cache. decode(): one more token. Both give it."""

    def play(steps: int) -> Round:
        first, prompt = timed(prefill)
        later = [timed(decode) for _ in range(steps)]
        tokens = [t for t in (first, *(t for t, _ in later)) if t is not None]
        return Round(tokens, prompt, min(s for _, s in later))

    return play


def timed(call: Callable):
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


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

    return runner(prefill, lambda: engine.step()[0][1])


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
    return runner(lambda: None, lambda: (read(x), None)[1])


def torch_eager(case: Case, model) -> Runner:
    return _torch(case, model, model)


def _torch(case: Case, model, call) -> Runner:
    import torch
    from transformers import DynamicCache

    model = in_precision(case, model)
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

    return runner(prefill, lambda: step(state["next"]))


def torch_compiled(case: Case, model) -> Runner:
    """Prefill and decode compiled apart, over a cache of fixed size."""
    import torch
    from transformers import StaticCache

    model, length = in_precision(case, model), case.prompt + 512
    cache = StaticCache(config=model.config, max_cache_len=length)
    call = torch.compile(model.forward, dynamic=False)
    state = {}

    def step(ids) -> int:
        first = state["held"]
        state["held"] += ids.shape[1]
        at = torch.arange(first, state["held"])
        with torch.inference_mode():
            out = call(input_ids=ids, past_key_values=cache, position_ids=at[None],
                       cache_position=at, logits_to_keep=1)  # fmt: skip
        token = int(out.logits[0, -1].argmax())
        state["next"] = torch.tensor([[token]])
        return token

    def prefill() -> int:
        with torch.inference_mode():
            cache.reset()
        state["held"] = 0
        return step(torch.from_numpy(case.tokens[None]))

    return runner(prefill, lambda: step(state["next"]))


def in_precision(case: Case, model):
    import torch

    return model.to(torch.bfloat16) if case.precision == "bf16" else model


def openvino(case: Case, model) -> Runner:
    """The model with its cache as state, which OpenVINO updates in place."""
    import openvino
    import torch
    from openvino._offline_transformations import apply_make_stateful_transformation
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    class Step(torch.nn.Module):
        """(ids, positions, mask, past keys and values) -> logits, keys and values with the new."""

        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, ids, positions, mask, *past):
            cache = DynamicCache()
            for keys, values in zip(past[::2], past[1::2]):
                layer = DynamicLayer()
                layer.lazy_initialization(keys, values)
                layer.keys, layer.values = keys, values
                cache.layers.append(layer)
            out = self.inner(input_ids=ids, position_ids=positions, attention_mask=mask,
                             past_key_values=cache, use_cache=True, logits_to_keep=1)  # fmt: skip
            made = [t for layer in cache.layers for t in (layer.keys, layer.values)]
            return out.logits, *made

    s = case.sizes
    heads, depth = s["num_key_value_heads"], s["hidden_size"] // s["num_attention_heads"]
    count = 2 * s["num_hidden_layers"]
    example = (torch.zeros(1, 2, dtype=torch.long), torch.tensor([[3, 4]]), torch.zeros(1, 1, 2, 5),
               *[torch.zeros(1, heads, 3, depth) for _ in range(count)])  # fmt: skip
    shapes = [[1, -1], [1, -1], [1, 1, -1, -1], *[[1, heads, -1, depth]] * count]
    with torch.no_grad():
        found = openvino.convert_model(Step().eval(), example_input=example, input=shapes)
    for k in range(count):
        found.inputs[3 + k].tensor.set_names({f"past_{k}"})
        found.outputs[1 + k].tensor.set_names({f"present_{k}"})
    apply_make_stateful_transformation(found, {f"past_{k}": f"present_{k}" for k in range(count)})
    settings = {"INFERENCE_NUM_THREADS": case.threads, "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "bf16" if case.precision == "bf16" else "f32",
                "KV_CACHE_PRECISION": "bf16" if case.precision == "bf16" else "f32"}  # fmt: skip
    request = openvino.Core().compile_model(found, "CPU", settings).create_infer_request()
    state = {}

    def step(ids: np.ndarray) -> int:
        n, held = ids.shape[1], state["held"]
        mask = np.triu(np.full((n, held + n), -np.inf, np.float32), held + 1)
        at = np.arange(held, held + n, dtype=np.int64)[None]
        result = request.infer([ids, at, mask[None, None]], share_inputs=True)
        state["held"] = held + n
        return int(result[0][0, -1].argmax())

    def prefill() -> int:
        request.reset_state()
        state["held"] = 0
        state["next"] = step(case.tokens[None])
        return state["next"]

    def decode() -> int:
        state["next"] = step(np.array([[state["next"]]], np.int64))
        return state["next"]

    return runner(prefill, decode)


def llama_cpp(case: Case, model) -> Runner:
    """llama.cpp through `xllamacpp`, by the clock of its server: a generated token is counted from
    the end of the prompt, the first one is that of the prompt."""
    import xllamacpp as x

    p = x.CommonParams()
    p.model.path = str(write_gguf(case, model))
    p.n_ctx, p.n_parallel, p.warmup, p.verbosity = case.prompt + 512, 1, True, -1
    p.n_batch = p.n_ubatch = max(case.prompt, 512)
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = case.threads
    sys.stderr.write(x.get_system_info() + "\n")
    server = x.Server(p)

    def play(steps: int) -> Round:
        request = {"prompt": case.tokens.tolist(), "n_predict": steps + 1, "temperature": 0.0,
                   "top_k": 1, "ignore_eos": True, "cache_prompt": False}  # fmt: skip
        answer = server.handle_completions(request)
        answer = json.loads(answer) if isinstance(answer, str) else answer
        if "timings" not in answer:
            raise RuntimeError(f"llama.cpp: {answer}")
        t = answer["timings"]
        if t["prompt_n"] != case.prompt or t["predicted_n"] != steps + 1:
            raise RuntimeError(f"llama.cpp processed other tokens: {t}")
        tokens = [int(k) for k in re.findall(r"<(\d+)>", answer["choices"][0]["text"])]
        return Round(tokens, t["prompt_ms"] / 1e3, t["predicted_ms"] / 1e3 / steps)

    return play


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
    w.add_tokenizer_model("llama")  # tokens that no text is made of: a server wants some
    w.add_token_list([f"<{k}>" for k in range(s["vocab_size"])])
    w.add_token_scores([0.0] * s["vocab_size"])
    w.add_token_types([gguf.TokenType.NORMAL] * s["vocab_size"])
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
           "inductor": torch_compiled, "openvino": openvino, "llamacpp": llama_cpp}  # fmt: skip


# ---- measuring ---------------------------------------------------------------------------------


def prepare(case: Case, names: list[str], steps: int) -> tuple[dict[str, Runner], list[dict]]:
    """The engines that work, after a round each, and their rows. Why others do not is told."""
    model = case.reference()
    runners, rows = {}, []
    for name in names:
        start = time.perf_counter()
        try:
            play = ENGINES[name](case, copy.deepcopy(model))
            first = play(steps)
        except (ImportError, RuntimeError, ValueError, TensorwrightError) as e:
            sys.stderr.write(f"{name}: {type(e).__name__}: {e}\n")
            continue
        ready = time.perf_counter() - start
        runners[name] = play
        rows.append({"engine": name, "threads": case.threads, "precision": case.precision,
                     "ready": ready, "tokens": first.tokens,
                     "prefill": np.inf, "decode": np.inf})  # fmt: skip
        sys.stderr.write(f"{name} ready after {ready:.0f} s\n")
    return runners, rows


def measure(runners: dict[str, Runner], rows: list[dict], rounds: int, steps: int) -> list[dict]:
    """Every engine's best seconds of a prompt and of a token, engines taking turns."""
    for _ in range(rounds):
        for row in rows:
            found = runners[row["engine"]](steps)
            row["prefill"] = min(row["prefill"], found.prefill)
            row["decode"] = min(row["decode"], found.decode)
    return rows


PLACE = "benchmarks.llm"


def table(rows: Sequence[dict], case: Case) -> Table:
    """Tokens a second, and decode's share of the plain read of the same rounds."""
    header = ["precision", "engine", "threads", "prefill, tokens/s", "decode, tokens/s", "GB/s",
              "of the read"]  # fmt: skip
    groups: dict[tuple[str, int], list[dict]] = {}
    for r in rows:
        groups.setdefault((r["precision"], r["threads"]), []).append(r)
    lines = []
    for (precision, threads), group in groups.items():
        least = min((r["decode"] for r in group if r["engine"] == "limit"), default=np.nan)
        wanted = next((r["tokens"] for r in group if r["engine"] == "torch"), None)
        size = read_bytes(replace(case, precision=precision))
        for r in group:
            plain = r["engine"] == "limit"
            note = "" if plain or wanted in (None, r["tokens"]) else " (other tokens)"
            prefill = "" if plain else f"{case.prompt / r['prefill']:.0f}"
            lines.append([TITLE_OF[precision], TITLES[r["engine"]] + note, str(threads), prefill,
                          f"{1 / r['decode']:.1f}", f"{size / r['decode'] / 1e9:.1f}",
                          f"{least / r['decode']:.0%}"])  # fmt: skip
    return Table(PLACE, 2, header, lines, measured_on([r["engine"] for r in rows]))


TITLE_OF = {"model": "f32", "bf16": "bf16"}


def parse(arguments: list[str]) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="python -m benchmarks.llm", description=__doc__)
    for name, size in (("vocab", 32000), ("width", 1024), ("inner", 2816), ("layers", 16),
                       ("heads", 16), ("shared", 4), ("prompt", 128), ("rounds", 5),
                       ("steps", 16)):  # fmt: skip
        p.add_argument(f"--{name}", type=int, default=size)
    p.add_argument("--precision", type=comma, default=list(TITLE_OF), help="of model, bf16")
    p.add_argument("--peers", type=comma, default=["torch", "openvino", "llamacpp"],
                   help=f"of {', '.join(list(ENGINES)[2:])}")  # fmt: skip
    p.add_argument("--json", action="store_true", help="one case in this process, rows as JSON")
    thread_option(p)
    options(p, PLACE)
    return p.parse_args(arguments)


def main(arguments: list[str] | None = None) -> list[dict]:
    given = sys.argv[1:] if arguments is None else arguments
    a = parse(given)
    sizes = {"vocab_size": a.vocab, "hidden_size": a.width, "intermediate_size": a.inner,
             "num_hidden_layers": a.layers, "num_attention_heads": a.heads,
             "num_key_value_heads": a.shared}  # fmt: skip
    case = Case(sizes, a.prompt, a.threads[0], a.precision[0])
    if a.json:
        names = ["limit", "tensorwright", *a.peers]
        rows = measure(*prepare(case, names, a.steps), a.rounds, a.steps)
        print(json.dumps(rows))
        return rows
    rows = []
    for precision in a.precision:
        for threads in a.threads:  # a process each: thread pools are made once
            one = ["--threads", str(threads), "--precision", precision, "--json"]
            command = [sys.executable, "-m", "benchmarks.llm", *given, *one]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            rows += json.loads(done.stdout)
    publish([table(rows, case)], a.markdown, a.drop)
    return rows


if __name__ == "__main__":
    main()
