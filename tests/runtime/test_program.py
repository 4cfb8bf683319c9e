import gc
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tensorwright.base.errors import ArtifactError, InternalError, RunError
from tensorwright.runtime.artifact import KernelInfo, Manifest, Program, SymbolInfo, TargetInfo
from tests.runtime.native import INCREMENT, manifest, program, support

# y = x[0] of f32[2, 3] through weights: y[i] = x[0, i] + w0[i]; two static outputs, y and a scalar.
STATIC = """
define i32 @tw_main(ptr %ctx, ptr %in, ptr %out) {
  %ws = getelementptr i8, ptr %ctx, i64 56
  %w = load ptr, ptr %ws
  %w0 = load ptr, ptr %w
  %x = load ptr, ptr %in
  %y = load ptr, ptr %out
  %sp = getelementptr ptr, ptr %out, i64 2
  %s = load ptr, ptr %sp
  %a = load <3 x float>, ptr %x, align 4
  %b = load <3 x float>, ptr %w0, align 4
  %c = fadd <3 x float> %a, %b
  store <3 x float> %c, ptr %y, align 4
  store i64 77, ptr %s
  ret i32 0
}
"""

# Fails with code 1 if the two inputs' first dimensions differ (after allocating output and frame).
CHECKED = """
define i32 @tw_main(ptr %ctx, ptr %in, ptr %out) {
  %d0p = getelementptr ptr, ptr %in, i64 1
  %d0 = load ptr, ptr %d0p
  %n = load i64, ptr %d0
  %d1p = getelementptr ptr, ptr %in, i64 3
  %d1 = load ptr, ptr %d1p
  %m = load i64, ptr %d1
  %f = call ptr @tw_frame_push(ptr %ctx, i64 100000)
  %bytes = shl i64 %n, 2
  %y = call ptr @tw_alloc(i64 %bytes)
  store ptr %y, ptr %out
  %odp = getelementptr ptr, ptr %out, i64 1
  %od = load ptr, ptr %odp
  store i64 %n, ptr %od
  store float 1.0, ptr %y
  %same = icmp eq i64 %n, %m
  br i1 %same, label %ok, label %bad
ok:
  call void @tw_frame_pop(ptr %ctx)
  ret i32 0
bad:
  call void @tw_fail(ptr %ctx, i32 1, i64 %n, i64 %m, i64 0)
  ret i32 1
}
"""
ERRORS = ("add {a}{}: x.shape[0] is {0}, but y.shape[0] is {1}",)
RETURN = "define i32 @tw_main(ptr %ctx, ptr %in, ptr %out) {{ ret i32 {} }}"


@pytest.fixture(scope="module")
def increment() -> Program:
    return program(INCREMENT, "x: f32[n]", "y: f32[n]")


@pytest.fixture(scope="module")
def static() -> Program:
    w = np.array([10, 20, 30], np.float32)
    return program(STATIC, "x: f32[2, 3]", "y: f32[3], s: i64[]", weights=[w])


@pytest.fixture(scope="module")
def checked() -> Program:
    text = "x: f32[n], y: f32[n, 2]"
    return program(CHECKED, text, "z: f32[n]", errors=ERRORS, symbols={"n": SymbolInfo(1, 64, 2)})


def f32(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


def fails(call, kind=RunError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 1000, 1_000_003])
def test_dynamic_output(increment, n):
    x = f32(n)
    y = increment(x)
    np.testing.assert_array_equal(y, x + 1)
    assert y.dtype == np.float32 and y.flags.writeable
    assert n == 0 or y.__array_interface__["data"][0] % 64 == 0


def test_static_outputs_and_weights(static):
    x = f32(2, 3)
    y, s = static(x)
    np.testing.assert_array_equal(y, [10, 21, 32])
    assert s.shape == () and s.dtype == np.int64 and s == 77 and isinstance(s, np.ndarray)
    assert y.__array_interface__["data"][0] % 64 == 0
    y2, _ = static(x + 1)
    np.testing.assert_array_equal(y, [10, 21, 32])
    np.testing.assert_array_equal(y2, [11, 22, 33])


def test_inputs_by_order_or_name(checked):
    x, y = f32(4), f32(4, 2)
    for z in (checked(x, y), checked(x, y=y), checked(y=y, x=x)):
        assert z.shape == (4,)


def test_misuse_lists_what_is_expected(checked):
    x, y = f32(4), f32(4, 2)
    notes = "\n  note: input x: f32[n]\n  note: input y: f32[n, 2]"
    assert fails(lambda: checked(x)) == "error: test: missing input: y" + notes
    assert fails(lambda: checked()) == "error: test: missing inputs: x, y" + notes
    assert fails(lambda: checked(x, y, x)) == "error: test: 3 inputs given, 2 expected" + notes
    assert fails(lambda: checked(x, z=y)) == "error: test: there is no input 'z'" + notes
    assert fails(lambda: checked(x, x=y)) == "error: test: input 'x' is given twice" + notes


def test_wrong_types_say_how_to_convert(increment):
    assert fails(lambda: increment(f32(3).astype(np.float64))) == (
        "error: test: input 'x' is f64, expected f32[n]\n  help: convert it: x.astype(np.float32)"
    )
    assert "x.to(torch.float32)" in fails(lambda: increment(torch.ones(3, dtype=torch.float64)))
    assert "x is" not in fails(lambda: increment(np.zeros(3, ">f4")))


def test_wrong_shapes_name_the_dimension(checked, static):
    assert fails(lambda: checked(f32(4), f32(4, 3))) == (
        "error: test: input 'y': dimension 1 is 3, expected 2\n"
        "  note: given [4, 3], expected f32[n, 2]"
    )
    assert fails(lambda: checked(f32(4), f32(4))) == (
        "error: test: input 'y' has 1 dimensions [4], expected 2: f32[n, 2]"
    )
    assert "dimension 0 is 3, expected 2" in fails(lambda: static(f32(3, 3)))


def test_native_checks_become_errors(checked):
    assert fails(lambda: checked(f32(4), f32(6, 2))) == (
        "error: add {a}{}: x.shape[0] is 4, but y.shape[0] is 6\n"
        "  at test(x: f32[n], y: f32[n, 2]) -> (z: f32[n])\n"
        "  note: called with x: f32[4], y: f32[6, 2]\n"
        "  note: n: 1..64, a multiple of 2"
    )
    assert checked(f32(4), f32(4, 2)).shape == (4,)


def test_codes_without_a_message_are_our_bug():
    p = program(RETURN.format(9), "x: f32[1]", "y: f32[1]")
    assert "unknown error code 9" in fails(lambda: p(f32(1)), InternalError)


def test_an_output_left_empty_is_our_bug():
    p = program(RETURN.format(0), "x: f32[n]", "y: f32[n]")
    with pytest.raises(InternalError, match="left output 'y' without data"):
        p._slots.append(p._take())
        p._slots[0].out_dims[0] = 3
        p(f32(1))


def test_running_out_of_memory_is_an_error():
    text = """define i32 @tw_main(ptr %ctx, ptr %in, ptr %out) {
      %f = call ptr @tw_frame_push(ptr %ctx, i64 1152921504606846976)
      %code = load i32, ptr %ctx
      ret i32 %code
    }"""
    p = program(text, "x: f32[1]", "y: f32[1]")
    assert "out of memory (for 1152921504606846976 bytes)" in fails(lambda: p(f32(1)))


def test_strided_inputs_are_copied(increment):
    x = f32(20)[::-2]
    np.testing.assert_array_equal(increment(x), x + 1)


def test_python_lists(increment):
    np.testing.assert_array_equal(increment([1, 2.5]), [2, 3.5])


def test_torch_in_torch_out(increment, static):
    t = torch.arange(5, dtype=torch.float32)
    y = increment(t)
    assert isinstance(y, torch.Tensor) and torch.equal(y, t + 1)
    kept = y[2:]
    del y
    gc.collect()
    assert kept.tolist() == [3, 4, 5]
    a, b = static(torch.zeros(2, 3))
    assert a.tolist() == [10, 20, 30] and b.item() == 77 and b.dtype == torch.int64


def test_results_outlive_the_program():
    p = program(INCREMENT, "x: f32[n]", "y: f32[n]")
    y = p(f32(100_000))
    view = y[99_000:]
    del p, y
    gc.collect()
    assert view[999] == 100_000


def test_many_user_threads(increment, checked):
    wrong = []

    def caller(seed: int) -> None:
        for i in range(400):
            n = 1 + (seed * 37 + i * 13) % 300
            x = np.full(n, seed, np.float32)
            if not (increment(x) == seed + 1).all():
                wrong.append((seed, i))
            if i % 50 == 0:
                try:
                    checked(f32(2 + seed), f32(99, 2))
                    wrong.append(("unchecked", seed))
                except RunError as error:
                    if f"x.shape[0] is {2 + seed}," not in str(error):
                        wrong.append((seed, str(error)))

    threads = [threading.Thread(target=caller, args=(s,)) for s in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert len(increment._slots) <= 8


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_calls_do_not_leak(increment, checked):
    x, y, bad = f32(64), f32(64, 2), f32(66, 2)

    def calls(count: int) -> None:
        for i in range(count):
            increment(x)
            checked(x, y)
            if i % 10 == 0:
                with pytest.raises(RunError):
                    checked(x, bad)

    calls(2000)
    gc.collect()
    before = resident()
    calls(50_000)
    gc.collect()
    assert resident() - before < 4 << 20


def test_programs_do_not_leak():
    for _ in range(20):
        program(INCREMENT, "x: f32[n]", "y: f32[n]")(f32(10))
    gc.collect()
    before = resident()
    for _ in range(300):
        program(INCREMENT, "x: f32[n]", "y: f32[n]")(f32(10))
    gc.collect()
    assert resident() - before < 4 << 20


def test_pickled_programs_work(increment):
    copy = pickle.loads(pickle.dumps(increment))
    np.testing.assert_array_equal(copy(f32(4)), [1, 2, 3, 4])


def test_repr(increment, static):
    assert repr(increment) == "<Program test(x: f32[n]) -> (y: f32[n]), 2 threads>"
    assert repr(static) == "<Program test(x: f32[2, 3]) -> (y: f32[3], s: i64[]), 2 threads>"
    assert [str(i) for i in static.inputs] == ["x: f32[2, 3]"]
    assert [o.type for o in static.outputs] == ["f32[3]", "i64[]"]


def test_other_machines_are_refused():
    def make(target: TargetInfo) -> Program:
        return Program(Manifest("m", target, (), ()), [support()])

    triple = manifest("", "").target.triple
    text = fails(lambda: make(TargetInfo(triple, ("avx9000",), "CPUs of 2040")), ArtifactError)
    assert text == (
        "error: m needs processor features this machine lacks: avx9000\n"
        "  note: compiled for CPUs of 2040\n"
        "  help: compile the model on this machine, or for an older processor"
    )
    text = fails(lambda: make(TargetInfo("pdp11-unknown-linux-gnu")), ArtifactError)
    assert "m is compiled for pdp11-unknown-linux-gnu, this machine is" in text


def test_no_inputs_and_no_outputs():
    p = program(RETURN.format(0), "", "", kernels=(KernelInfo("k"),))
    assert p() == ()
    assert "1 inputs given, 0 expected" in fails(lambda: p(1))


def test_bf16_and_f8_arrays():
    import ml_dtypes

    text = """define i32 @tw_main(ptr %ctx, ptr %in, ptr %out) {
      %x = load ptr, ptr %in
      %y = load ptr, ptr %out
      %v = load i16, ptr %x
      store i16 %v, ptr %y
      ret i32 0
    }"""
    p = program(text, "x: bf16[1]", "y: bf16[1]")
    assert p(np.array([1.5], ml_dtypes.bfloat16)).astype(float) == [1.5]
    got = p(torch.tensor([2.5], dtype=torch.bfloat16))
    assert got.dtype == torch.bfloat16 and got.item() == 2.5
    assert p([3.5]).dtype == ml_dtypes.bfloat16


def test_weights_without_alignment_are_aligned():
    text = """define i32 @tw_main(ptr %ctx, ptr %in, ptr %out) {
      %ws = getelementptr i8, ptr %ctx, i64 56
      %w = load ptr, ptr %ws
      %w0 = load ptr, ptr %w
      %y = load ptr, ptr %out
      %a = ptrtoint ptr %w0 to i64
      store i64 %a, ptr %y
      ret i32 0
    }"""
    odd = np.zeros(1000, np.uint8)[1:]
    p = program(text, "", "y: u64[]", weights=[odd])
    assert int(p()) % 64 == 0
