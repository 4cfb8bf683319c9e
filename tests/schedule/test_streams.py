"""Results as large as the last cache are stored past the caches, wherever their memory begins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.ir import loop as ir
from tensorwright.ir.compare import difference
from tensorwright.ir.parser import parse
from tensorwright.ir.printer import to_text
from tensorwright.ops.table import BY_NAME
from tensorwright.runtime import program as runtime
from tensorwright.runtime.buffer import aligned_empty
from tensorwright.schedule.records import Schedules
from tensorwright.target.x86 import X86_AVX2, X86_AVX512
from tests.schedule.assembly import assembly

M, N = 640, 528  # 1.3 MB: more than an L2 cache, less than a last one


@tw.function
def double(x: tw.f32[M, N]):
    return x + x


@tw.function
def power(x: tw.f32[M, N]):
    return tw.numpy.exp(x)


@tw.function
def normal(x: tw.f32[M, N]):
    return x / tw.numpy.sum(x * x, axis=1, keepdims=True)


@tw.function
def turned(x: tw.f32[M, N]):
    return tw.numpy.permute_dims(x, (1, 0))


@tw.function
def odd(x: tw.f32[M, N + 1]):
    return x / tw.numpy.sum(x, axis=1, keepdims=True)


def with_stores(f, how: str, **options):
    """The program with that choice for all its results."""
    found = tw.compile(f, **options).schedules()
    rows = (replace(r, choices={**r.choices, "stores": how}) if "stores" in r.choices else r
            for r in found.records)  # fmt: skip
    return tw.compile(f, schedules=Schedules(tuple(rows)), **options)


def kernel_of(program):
    (k,) = program.lowered.kernels.values()
    return k


@pytest.fixture
def unaligned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results begin 4 bytes behind a line."""

    def result(shape, dtype, nbytes):
        flat, start = aligned_empty((nbytes + 64,), np.dtype(np.uint8), nbytes + 64)
        return flat[4 : 4 + nbytes].view(dtype).reshape(shape), start + 4

    monkeypatch.setattr(runtime, "result_empty", result)


CASES = {
    "double": (double, (M, N), lambda x: x + x),
    "power": (power, (M, N), np.exp),
    "normal": (normal, (M, N), lambda x: x / (x * x).sum(1, keepdims=True)),
    "turned": (turned, (M, N), lambda x: x.T),
    "odd": (odd, (M, N + 1), lambda x: x / x.sum(1, keepdims=True)),
}


def check(case: str, threads: int) -> None:
    f, shape, wanted = CASES[case]
    program = with_stores(f, "past", threads=threads)
    k = kernel_of(program)
    assert k.streams == (len(k.params) - 1,)
    x = np.random.default_rng(1).uniform(0.5, 1, shape).astype(np.float32)
    np.testing.assert_allclose(program(x), wanted(x), rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_results_are_the_same(case: str, threads: int):
    check(case, threads)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("unaligned")
def test_memory_need_not_begin_with_a_line(case: str):
    check(case, 2)


@pytest.mark.parametrize("f", [double, power])  # power: several vectors at a time
@pytest.mark.parametrize("target", [X86_AVX2, X86_AVX512])
def test_each_task_ends_with_a_fence(target, f):
    k = kernel_of(with_stores(f, "past", target=target.name))
    text = assembly(k, target)
    assert "vmovntps" in text
    assert text.count("sfence") == 1
    assert "vmovups" in text  # for memory that begins elsewhere
    plain = assembly(kernel_of(with_stores(f, "cached", target=target.name)), target)
    assert "vmovnt" not in plain
    assert "sfence" not in plain


def test_rows_that_cross_lines_are_stored_as_usual():
    assert "vmovnt" not in assembly(
        kernel_of(with_stores(odd, "past", target=X86_AVX512.name)), X86_AVX512
    )


def test_what_a_cache_holds_stays_there():
    large = X86_AVX512.caches[-1] // 4 // 1024

    @tw.function
    def copy(x: tw.f32[large, 1024]):
        return -x

    @tw.function
    def smaller(x: tw.f32[large - 1, 1024]):
        return -x

    assert kernel_of(tw.compile(copy, target=X86_AVX512.name)).streams == (1,)
    assert kernel_of(tw.compile(smaller, target=X86_AVX512.name)).streams == ()


def test_a_result_that_is_read_again_stays_in_the_caches():
    @tw.function
    def softmax(x: tw.f32[8192, 1024]):
        e = tw.numpy.exp(x)
        return e / tw.numpy.sum(e, axis=1, keepdims=True)

    k = kernel_of(tw.compile(softmax, target=X86_AVX512.name))
    assert k.results[0] in {e.value for e in ir.loads(k.body)}
    assert k.streams == ()


def test_text_form():
    m = with_stores(double, "past").lowered
    text = to_text(m)
    assert "streams=(2,)" in text
    assert not difference(parse(text, BY_NAME), m)
