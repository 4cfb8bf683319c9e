"""Mutates ONNX models: importing one must succeed or raise a typed error, and never hang.

    python -m tests.fuzz.fuzz_onnx --seconds 60 --seed 1 --run --keep found

With `--run`, what can be imported is also compiled, run, and compared with the interpreter.
Whatever else happens (another exception, an InternalError, a dead process, 20 seconds until the
program is compiled, a result that differs) is a finding and is written to the folder `--keep`.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import multiprocessing
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import TensorProto, helper

LIMIT_S = 20
LONG_S, LONG = 5, "runs for long"
MEMORY = 6 << 30
NUMBERS = (0, 1, -1, 2, 3, 7, 64, -(1 << 31), (1 << 31) - 1, (1 << 63) - 1, -(1 << 63), 1 << 40)


# ---- models to start from -----------------------------------------------------------------------


def seeds() -> list[onnx.ModelProto]:
    """Small models that between them use most operators: the backend's node cases."""
    from tests.conformance.cases import load_cases

    found: dict[str, onnx.ModelProto] = {}
    for case in load_cases(["node", "simple"]):
        if case.model.ByteSize() < 20_000:
            found.setdefault(case.op + str(len(case.model.graph.node) > 1), case.model)
    return [*found.values(), network()]


def network() -> onnx.ModelProto:
    """A small network with weights, symbolic dimensions and shape arithmetic."""
    text = """<ir_version: 8, opset_import: ["" : 18]>
    net (float[n, 3, h, h] x) => (float[n, 4] y)
    <float[4, 3, 3, 3] w = {%s}, int64[1] minus = {-1}, int64[1] zero = {0}, int64[1] one = {1}>
    {
      c = Conv <pads = [1, 1, 1, 1]> (x, w)
      r = Relu (c)
      p = GlobalAveragePool (r)
      s = Shape (p)
      n = Slice (s, zero, one)
      t = Concat <axis = 0> (n, minus)
      f = Reshape (p, t)
      k = Cast <to = 1> (n)
      b = Constant <value_float = 2.0> ()
      g = Greater (k, b)
      q = Squeeze (g)
      y = If (q) <then_branch = a () => (float[n, 4] ya) { ya = Softmax (f) },
                  else_branch = e () => (float[n, 4] ye) { ye = Tanh (f) }>
    }"""
    return onnx.parser.parse_model(text % ", ".join("0.5" for _ in range(108)))


# ---- mutations ----------------------------------------------------------------------------------


def all_graphs(g) -> list:
    found = [g]
    for n in g.node:
        for a in n.attribute:
            if a.HasField("g"):
                found += all_graphs(a.g)
    return found


def some_node(m, rng):
    nodes = [n for g in all_graphs(m.graph) for n in g.node]
    return rng.choice(nodes) if nodes else None


def some_name(m, rng) -> str:
    names = [o for g in all_graphs(m.graph) for n in g.node for o in (*n.input, *n.output)]
    return rng.choice([*names, "", "nothing"])


def change_attribute(m, rng) -> None:
    node = some_node(m, rng)
    if node is None or not node.attribute:
        return
    a = rng.choice(node.attribute)
    choice = rng.randrange(5)
    if choice == 0:
        a.i = rng.choice(NUMBERS)
    elif choice == 1 and len(a.ints):
        a.ints[rng.randrange(len(a.ints))] = rng.choice(NUMBERS)
    elif choice == 2:
        a.type = rng.randrange(15)
    elif choice == 3:
        a.ints.extend([rng.choice(NUMBERS)] * rng.randrange(1, 4))
    else:
        a.f = rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
        a.s = rng.choice((b"", b"\xff\xfe", b"reflect", b"SAME_UPPER", b"i,j->k"))


def add_attribute(m, rng) -> None:
    node = some_node(m, rng)
    if node is not None:
        name = rng.choice(("axis", "axes", "pads", "strides", "to", "perm", "mode", "body", "x"))
        value = rng.choice((rng.choice(NUMBERS), [1, 0], [-1.5], "nearest", 0.5))
        node.attribute.append(helper.make_attribute(name, value))


def drop_attribute(m, rng) -> None:
    node = some_node(m, rng)
    if node is not None and node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]


def rewire(m, rng) -> None:
    node = some_node(m, rng)
    if node is not None and node.input:
        node.input[rng.randrange(len(node.input))] = some_name(m, rng)


def change_arity(m, rng) -> None:
    node = some_node(m, rng)
    if node is None:
        return
    names = rng.choice((node.input, node.output))
    if names and rng.random() < 0.5:
        del names[rng.randrange(len(names))]
    else:
        names.append(some_name(m, rng))


def change_operator(m, rng) -> None:
    node = some_node(m, rng)
    if node is not None:
        node.op_type = rng.choice(OPERATORS)
        if rng.random() < 0.1:
            node.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "nowhere"))


def change_type(m, rng) -> None:
    g = rng.choice(all_graphs(m.graph))
    values = [*g.input, *g.output]
    if not values:
        return
    t = rng.choice(values).type.tensor_type
    if rng.random() < 0.4:
        t.elem_type = rng.randrange(30)
    elif len(t.shape.dim):
        d = rng.choice(t.shape.dim)
        d.dim_value = rng.choice(NUMBERS)
        if rng.random() < 0.3:
            d.dim_param = rng.choice(("n", "m", "", "n + 1"))
    else:
        t.shape.dim.add().dim_value = 2


def change_constant(m, rng) -> None:
    tensors = [t for g in all_graphs(m.graph) for t in g.initializer]
    tensors += [a.t for g in all_graphs(m.graph) for n in g.node for a in n.attribute
                if a.HasField("t")]  # fmt: skip
    if not tensors:
        return
    t = rng.choice(tensors)
    choice = rng.randrange(5)
    if choice == 0:
        t.data_type = rng.randrange(30)
    elif choice == 1:
        t.dims.append(rng.choice(NUMBERS))
    elif choice == 2 and len(t.dims):
        t.dims[rng.randrange(len(t.dims))] = rng.choice(NUMBERS)
    elif choice == 3:
        t.data_location = TensorProto.EXTERNAL
        t.external_data.add(key="location", value=rng.choice(("../x", "/etc/passwd", "w", "a/b")))
    elif len(t.int64_data):
        t.int64_data[rng.randrange(len(t.int64_data))] = rng.choice(NUMBERS)


def give_constant(m, rng) -> None:
    """An input becomes a constant, often a strange one."""
    inputs = [v for v in m.graph.input if v.type.tensor_type.elem_type in (1, 6, 7)]
    if not inputs:
        return
    v = rng.choice(inputs)
    dims = [d.dim_value for d in v.type.tensor_type.shape.dim]
    if any(not 0 <= d <= 64 for d in dims):
        return
    count = 1
    for d in dims:
        count *= d
    if count > 4096:
        return
    kind = v.type.tensor_type.elem_type
    values = [rng.choice(NUMBERS) if rng.random() < 0.2 else rng.randrange(-2, 4)
              for _ in range(count)]  # fmt: skip
    if kind == 6:
        values = [max(min(n, (1 << 31) - 1), -(1 << 31)) for n in values]
    m.graph.initializer.append(helper.make_tensor(v.name, kind, dims, values))


def copy_node(m, rng) -> None:
    g = rng.choice(all_graphs(m.graph))
    if g.node:
        g.node.insert(rng.randrange(len(g.node) + 1), copy.deepcopy(rng.choice(g.node)))


def drop_node(m, rng) -> None:
    g = rng.choice(all_graphs(m.graph))
    if g.node:
        del g.node[rng.randrange(len(g.node))]


def nest(m, rng) -> None:
    """The whole graph inside a body, several times."""
    for _ in range(rng.choice((1, 3, 40))):
        inner = copy.deepcopy(m.graph)
        del m.graph.node[:]
        m.graph.node.append(helper.make_node("If", [some_name(m, rng)], ["out"], then_branch=inner,
                                             else_branch=inner))  # fmt: skip
        if m.ByteSize() > 1 << 18:
            return


def add_function(m, rng) -> None:
    name = rng.choice(OPERATORS)
    body = [helper.make_node(rng.choice((name, "Relu", "Add")), ["a"], ["b"])]
    m.functions.append(helper.make_function("", name, ["a"], ["b"], body, list(m.opset_import)))


def change_opset(m, rng) -> None:
    if m.opset_import:
        rng.choice(m.opset_import).version = rng.choice((*range(1, 30), 0, -5, 1 << 40))


MUTATIONS = (
    change_attribute, change_attribute, add_attribute, drop_attribute, rewire, rewire,
    change_arity, change_operator, change_type, change_type, change_constant, change_constant,
    give_constant, give_constant, copy_node, drop_node, nest, add_function, change_opset,
)  # fmt: skip
OPERATORS: list[str] = []


def mutated(m: onnx.ModelProto, rng: random.Random) -> bytes:
    m = copy.deepcopy(m)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        try:
            rng.choice(MUTATIONS)(m, rng)
        except (ValueError, TypeError, AttributeError):
            continue  # protobuf itself refuses the value
    raw = bytearray(m.SerializeToString())
    if raw and rng.random() < 0.25:
        for _ in range(rng.randrange(1, 8)):
            k = rng.randrange(len(raw))
            action = rng.randrange(3)
            if action == 0:
                raw[k] = rng.randrange(256)
            elif action == 1:
                del raw[k : k + rng.randrange(1, 9)]
            else:
                raw[k:k] = rng.randbytes(rng.randrange(1, 9))
            if not raw:
                break
    if rng.random() < 0.05:
        del raw[rng.randrange(len(raw) + 1) :]
    return bytes(raw)


# ---- trying -------------------------------------------------------------------------------------


def outcome(raw: bytes, act: Callable[[bytes], str]) -> str:
    """What `act` says of a model, the kind of typed error it raises, or "FOUND ..."."""
    from tensorwright.base.errors import InternalError, TensorwrightError

    try:
        return act(raw)
    except InternalError as e:
        return f"FOUND {e.message}"
    except TensorwrightError as e:
        return type(e).__name__
    except BaseException as e:
        return f"FOUND {type(e).__name__}: {e}"


def import_only(raw: bytes) -> str:
    from tensorwright.frontend.onnx import import_onnx

    import_onnx(raw)
    return "ok"


def compile_only(raw: bytes) -> str:
    import tensorwright as tw

    global PROGRAM
    PROGRAM = tw.compile(raw, threads=1)
    return RUNNING


def run_compiled(raw: bytes) -> str:
    """Inputs that a model refuses at run time are its right; anything else must agree."""
    try:
        found = PROGRAM.compare("reference", tolerance=1e-3)
    except (OverflowError, MemoryError):
        return "too large to interpret"
    if found.ok:
        return "ok"
    operators = ", ".join(sorted({n.op_type for n in onnx.load_model_from_string(raw).graph.node}))
    return f"FOUND a result that differs from the interpreter's: {operators}"


RUNNING = "running"
PROGRAM = None


def _serve(pipe, run: bool) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    while (raw := pipe.recv()) is not None:
        result = outcome(raw, compile_only if run else import_only)
        pipe.send(result)
        if result == RUNNING:
            pipe.send(outcome(raw, run_compiled))


class Tester:
    """A process that may die."""

    def __init__(self, run: bool = False):
        context = multiprocessing.get_context("fork")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, run), daemon=True)
        self.process.start()
        other.close()

    def try_(self, raw: bytes) -> str:
        try:
            self.pipe.send(raw)
            if self.pipe.poll(LIMIT_S):
                result = self.pipe.recv()
                if result != RUNNING:
                    return result
                if self.pipe.poll(LONG_S):
                    return self.pipe.recv()
                return LONG  # a loop of 2^40 turns is what the model says
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.process.join()
            return f"FOUND the process died ({self.process.exitcode})"
        return f"FOUND no outcome after {LIMIT_S} s"

    def stop(self) -> None:
        self.process.kill()
        self.process.join()


def fuzz(
    seconds: float, seed: int, keep: Path | None = None, run: bool = False
) -> tuple[Counter, dict[str, bytes]]:
    """(outcomes, findings by what went wrong)."""
    OPERATORS[:] = sorted({s.name for s in onnx.defs.get_all_schemas()})
    rng, models, counts = random.Random(seed), seeds(), Counter()
    findings: dict[str, bytes] = {}
    tester, end = Tester(run), time.monotonic() + seconds
    while time.monotonic() < end:
        raw = mutated(rng.choice(models), rng)
        result = tester.try_(raw)
        if "died" in result or "no outcome" in result or result == LONG:
            tester.stop()
            tester = Tester(run)
        if not result.startswith("FOUND"):
            counts[result] += 1
            continue
        counts["found"] += 1
        if result not in findings:
            findings[result] = raw
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{hashlib.sha1(raw).hexdigest()[:12]}.onnx").write_bytes(raw)
    tester.stop()
    return counts, findings


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz_onnx", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--run", action="store_true", help="compile, run and compare, too")
    args = parser.parse_args()
    counts, findings = fuzz(args.seconds, args.seed, args.keep, args.run)
    print(dict(counts))
    for what in findings:
        print(what)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
