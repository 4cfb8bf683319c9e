"""What everything but arithmetic costs: fork and join, calls, waking up, pages, a busy machine.

    python -m benchmarks.overhead --only calls,pages

Native costs are timed by native loops, so that no timer and no Python is in them. Each number is
the best of many rounds except where the row says otherwise; ONNX Runtime stands beside ours where
it has the same thing, if it is installed.
"""

import argparse
import contextlib
import ctypes
import importlib.util
import mmap
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

import tensorwright as tw
from benchmarks.page import TITLES, Table, comma, measured_on, options, publish
from tensorwright.codegen.engine import compile_object
from tensorwright.codegen.support import support_ir
from tensorwright.ir.dtype import f32
from tensorwright.runtime import pages, pool
from tensorwright.runtime.loader import NativeImage, load_objects
from tensorwright.runtime.program import Program
from tensorwright.target.host import find
from tensorwright.tools import machine

PLACE = "benchmarks.overhead"
POINTER, I64 = ctypes.c_void_p, ctypes.c_int64
BIG = 256 << 20  # bytes read for bandwidth
IDLE = 0.05  # seconds without work before a pool is woken
ROUNDS = 15
SHORT = 2000  # rounds of what is over before anything else can disturb it

LOOPS = """
declare void @tw_parallel(ptr, ptr, ptr, i64)
; Some 2 microseconds for each index.
define internal void @work(ptr %ctx, ptr %env, i64 %begin, i64 %end) {
  %n = sub i64 %end, %begin
  %steps = mul i64 %n, 8000
  br label %loop
loop:
  %k = phi i64 [ 0, %0 ], [ %k1, %loop ]
  call void asm sideeffect "", ""()
  %k1 = add i64 %k, 1
  %more = icmp ult i64 %k1, %steps
  br i1 %more, label %loop, label %out
out:
  ret void
}
define void @forks(ptr %ctx, i64 %times, i64 %n) {
  br label %loop
loop:
  %k = phi i64 [ 0, %0 ], [ %k1, %loop ]
  call void @tw_parallel(ptr %ctx, ptr @work, ptr null, i64 %n)
  %k1 = add i64 %k, 1
  %more = icmp ult i64 %k1, %times
  br i1 %more, label %loop, label %out
out:
  ret void
}
define void @calls(ptr %main, ptr %ctx, ptr %inputs, ptr %outputs, i64 %times) {
  br label %loop
loop:
  %k = phi i64 [ 0, %0 ], [ %k1, %loop ]
  %code = call i32 %main(ptr %ctx, ptr %inputs, ptr %outputs)
  %k1 = add i64 %k, 1
  %more = icmp ult i64 %k1, %times
  br i1 %more, label %loop, label %out
out:
  ret void
}
"""


@dataclass(frozen=True)
class Row:
    what: str
    ours: str
    peer: str = ""


def loops() -> NativeImage:
    """The native loops with support code of their own."""
    target = find("host")
    return load_objects(
        [compile_object(LOOPS, target), compile_object(support_ir(target.triple), target)]
    )


def seconds(call: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """What each of some calls took, after one to warm up."""
    call()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return found


def tiny() -> tuple[Program, bytes]:
    """A small dense layer, as a program and as ONNX."""
    from onnx import TensorProto, helper, numpy_helper

    weight = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    port = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8])
    g = helper.make_graph(
        nodes, "tiny", [port("x")], [port("y")], [numpy_helper.from_array(weight, "w")]
    )
    model = helper.make_model(g, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    data = model.SerializeToString()
    return tw.compile(data, threads=2), data


def has_peer() -> bool:
    return importlib.util.find_spec("onnxruntime") is not None


def session(data: bytes | str, threads: int):
    """ONNX Runtime's session without spinning, None where it is not installed."""
    if not has_peer():
        return None
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def pool_rows() -> Iterator[Row]:
    image = loops()
    forks = image.function("forks", None, POINTER, I64, I64)
    create = image.function("tw_context_create", POINTER, POINTER, POINTER)
    context = create(pool.shared_pool(image, 2), None)
    alone = min(seconds(lambda: forks(context, 20, 1), SHORT)) / 20
    both = min(seconds(lambda: forks(context, 20, 2), SHORT)) / 20
    yield Row(f"fork and join of two tasks of {alone * 1e6:.1f} us, less one of them",
              f"{(both - alone) * 1e6:.2f} us")  # fmt: skip
    woken = []
    for _ in range(ROUNDS):
        time.sleep(IDLE)
        start = time.perf_counter()
        forks(context, 1, 2)
        woken.append(time.perf_counter() - start)
    yield Row(f"the same after {IDLE * 1e3:.0f} ms idle, median",
              f"{(statistics.median(woken) - alone) * 1e6:.0f} us")  # fmt: skip
    time.sleep(IDLE)
    begin = time.process_time()
    time.sleep(1.0)
    used = time.process_time() - begin
    yield Row("CPU time of an idle pool", f"{used * 1e3:.2f} ms/s")


def call_rows() -> Iterator[Row]:
    program, data = tiny()
    x = np.ones((1, 8), np.float32)
    image = loops()
    native = image.function("calls", None, *[POINTER] * 4, I64)
    y = program(x)
    slot = program._slots[0]
    slot.inputs[0], slot.outputs[0] = x.ctypes.data, y.ctypes.data
    entry = program._image.symbol("tw_main")
    run = lambda: native(entry, slot.context, slot.in_table, slot.out_table, 10_000)
    yield Row("call of a tiny model from C", f"{min(seconds(run)) / 1e4 * 1e6:.2f} us")
    repeat = lambda call: min(seconds(lambda: [call() for _ in range(2000)])) / 2000 * 1e6
    peer, theirs = session(data, 2), ""
    if peer is not None:
        theirs = f"{repeat(lambda: peer.run(None, {'x': x})):.2f} us"
    yield Row("call of a tiny model from Python", f"{repeat(lambda: program(x)):.2f} us", theirs)
    named = repeat(lambda: program(x=x))
    yield Row("the same, input given by name", f"{named:.2f} us")


def page_rows() -> Iterator[Row]:
    target = find("host")
    lanes = target.lanes(f32)
    for threads in (1, 2):
        count = BIG // threads // (8 * lanes * 4)
        run = machine.program(
            machine.READ, target, threads, lanes=lanes, parts=threads, count=count, repeats=1
        )
        for name, advice in (("4 KiB", "MADV_NOHUGEPAGE"), ("2 MiB", "MADV_HUGEPAGE")):
            x = advised(BIG, advice).view(np.float32).reshape(threads, count, 8, lanes)
            x[...] = 1
            speed = BIG / min(seconds(lambda x=x, run=run: run(x))) / 1e9
            plural = "thread" if threads == 1 else "threads"
            yield Row(f"read from {name} pages, {threads} {plural}", f"{speed:.1f} GB/s")


def advised(nbytes: int, advice: str) -> np.ndarray:
    mapped = mmap.mmap(-1, nbytes + pages.PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    flat = np.frombuffer(mapped, np.uint8)
    start = -flat.ctypes.data % pages.PAGE
    if hasattr(mmap, advice):
        mapped.madvise(getattr(mmap, advice), start, nbytes)
    return flat[start : start + nbytes]


def burn() -> None:
    while True:
        pass


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """A process that only computes on every core."""
    context = multiprocessing.get_context("spawn")
    burners = [context.Process(target=burn, daemon=True) for _ in os.sched_getaffinity(0)]
    for b in burners:
        b.start()
    time.sleep(2)  # until they have started Python
    try:
        yield
    finally:
        for b in burners:
            b.terminate()
            b.join()


def layers() -> bytes:
    """Forty small products one after another: each is a fork, a join and some 30 us of work."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for k in range(40):
        w = (random.normal(size=(256, 256)) / 16).astype(np.float32)
        weights.append(numpy_helper.from_array(w, f"w{k}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{k}"], [f"h{k}"]))
        nodes.append(helper.make_node("Tanh", [f"h{k}"], [f"t{k}"]))
        last = f"t{k}"
    port = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [32, 256])
    g = helper.make_graph(nodes, "layers", [port("x")], [port(last)], weights)
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(g, opset_imports=opsets, ir_version=10).SerializeToString()


def busy_rows() -> Iterator[Row]:
    data, x = layers(), np.ones((32, 256), np.float32)
    program, peer = tw.compile(data, threads=2), session(data, 2)

    def both(what: str, rounds: int) -> Row:
        ours, theirs = [], []
        for _ in range(rounds):
            ours += seconds(lambda: program(x), 10)
            if peer is not None:
                theirs += seconds(lambda: peer.run(None, {"x": x}), 10)
        show = lambda t: f"{statistics.median(t) * 1e3:.2f} / {max(t) * 1e3:.1f} ms" if t else ""
        return Row(f"40 small layers, 2 threads, {what}: median / worst", show(ours), show(theirs))

    yield both("quiet", 10)
    with busy():
        yield both("a busy process on each core", 10)


PARTS = {"pool": pool_rows, "calls": call_rows, "pages": page_rows, "busy": busy_rows}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--only", type=comma, default=list(PARTS), help="of %(default)s")
    options(parser, PLACE)
    args = parser.parse_args(arguments)
    rows = [[r.what, r.ours, r.peer] for part in args.only for r in PARTS[part]()]
    header = ["cost", TITLES["tensorwright"], TITLES["ort"]]
    note = measured_on(["ort"] * has_peer())
    publish([Table(PLACE, 1, header, rows, note)], args.markdown, args.drop)


if __name__ == "__main__":
    main()
