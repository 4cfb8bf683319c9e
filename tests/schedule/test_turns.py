"""Weights that every step of a loop reads: from the other end in every second one, results as
before, and where each thread keeps a part of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tensorwright as tw
from tensorwright import numpy as tnp
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.frontend.function import trace
from tensorwright.ir.compare import difference
from tensorwright.ir.expr import Symbol, is_const, sym
from tensorwright.ir.facts import evaluate
from tensorwright.ir.interp import run_module
from tensorwright.ir.loop import For, Kernel, Let, loop, seq, statements
from tensorwright.ir.parser import parse
from tensorwright.ir.printer import to_text
from tensorwright.ir.verify import verify
from tensorwright.schedule.turns import alternating
from tensorwright.target.host import find
from tests.ops.rows import all_rows

OPS = {op.name: op for op in all_rows()}
RNG = np.random.default_rng(0)
TARGET = find("x86-64-avx512")
SMALL, WIDE = 128, 640  # of weights 640 x 640 leave half of an L2 cache of 1 MB


def recurrent(size: int, reverse: bool = False, rows: int = 1):
    """A cell whose state meets the same matrix in each of any number of steps."""
    w = RNG.standard_normal((size, size)).astype(np.float32) / size**0.5

    @tw.function
    def f(h: tw.f32[rows, size], xs: tw.f32["n", rows, size]):
        def step(h, x):
            h = tnp.tanh(h @ w + x)
            return h, h

        return tw.scan(step, h, xs, reverse=reverse)

    return f


def arguments(size: int, steps: int, rows: int = 1):
    draw = lambda *shape: RNG.standard_normal(shape).astype(np.float32)
    return draw(rows, size), draw(steps, rows, size)


def in_turns(f, target=TARGET) -> list[Kernel]:
    m = run_pipeline(trace(f), target, verify=True)
    return [k for k in m.kernels.values() if k.turn is not None]


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("rows", [1, 5])
def test_results_are_those_of_the_interpreter(steps, reverse, rows):
    f = recurrent(WIDE, reverse, rows)
    given = arguments(WIDE, steps, rows)
    wanted = run_module(trace(f), given)
    for threads in (1, 2, 3):
        program = tw.compile(f, target="x86-64-avx2", threads=threads)
        (k,) = (k for k in program.lowered.kernels.values() if k.turn is not None)
        assert "alternating turns" in k.schedule
        for a, b in zip(program(*given), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_lowered_program_means_the_same():
    m = trace(recurrent(WIDE))
    lowered = run_pipeline(m, TARGET.with_cores(2), verify=True)
    given = arguments(WIDE, 3)
    for a, b in zip(run_module(lowered, given), run_module(m, given), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_weights_that_stay_in_the_cache_are_read_as_ever():
    assert not in_turns(recurrent(SMALL))
    assert len(in_turns(recurrent(WIDE), TARGET.with_cores(1))) == 1
    assert not in_turns(recurrent(WIDE), TARGET.with_cores(4))  # a quarter each


def test_weights_that_are_read_once_are_not():
    w = RNG.standard_normal((WIDE, 1024)).astype(np.float32)

    @tw.function
    def f(x: tw.f32[1, WIDE]):
        return x @ w

    assert not in_turns(f)


def test_what_each_step_is_given_is_not():
    @tw.function
    def f(h: tw.f32[1, WIDE], ws: tw.f32["n", WIDE, WIDE]):
        return tw.scan(lambda h, w: (h @ w, h), h, ws)[0]

    assert not in_turns(f)


def test_a_kernel_that_a_loop_shares_with_others_stays_theirs():
    w = RNG.standard_normal((WIDE, WIDE)).astype(np.float32) / WIDE**0.5

    @tw.function
    def f(h: tw.f32[1, WIDE], xs: tw.f32["n"]):
        h = tw.scan(lambda h, x: (h @ w, x), h, xs)[0]
        return h @ w

    m = run_pipeline(trace(f), TARGET, verify=True)
    products = [k for k in m.kernels.values() if k.packs]
    assert [k.turn is not None for k in sorted(products, key=lambda k: k.name)] == [False, True]
    h, xs = arguments(WIDE, 4)[0], np.zeros(4, np.float32)
    np.testing.assert_allclose(tw.compile(f)(h, xs), run_module(trace(f), (h, xs))[0],
                               rtol=1e-4, atol=1e-3)  # fmt: skip


def places(s: For, turn: int, t: Symbol) -> list[int]:
    """What the symbol bound in the loop is, iteration after iteration."""
    let = next(part for part in statements(s) if isinstance(part, Let))
    return [evaluate(let.value, {s.var: k, t: turn}) for k in range(evaluate(s.extent, {}))]


@pytest.mark.parametrize("extent", [1, 2, 5, 8, 9])
@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_every_part_keeps_its_iterations(extent, parts):
    t = Symbol("turn", min=0)
    s = alternating(loop("i", extent, lambda i: seq()), sym(t), parts)
    forward, backward = places(s, 4, t), places(s, 5, t)
    assert forward == list(range(extent))
    size = -(-extent // parts)
    halves = [forward[k : k + size] for k in range(0, extent, size)]
    assert backward == [k for half in halves for k in half[::-1]]


def test_the_turn_is_part_of_the_text():
    m = run_pipeline(trace(recurrent(WIDE)), TARGET)
    verify(m)
    text = to_text(m)
    again = parse(text, OPS, m.constants())
    assert difference(m, again) == "" and to_text(again) == text
    assert "turn=turn" in text


def test_a_schedule_that_reads_forward_is_replayed(tmp_path):
    f = recurrent(WIDE)
    program = tw.compile(f, target="x86-64-avx512")
    rows = tmp_path / "schedules.json"
    text = program.schedules().to_json()
    assert '"turns": "alternating"' in text
    rows.write_text(text.replace('"turns": "alternating"', '"turns": "forward"'))
    again = tw.compile(f, target="x86-64-avx512", schedules=rows)
    (k,) = (k for k in again.lowered.kernels.values() if k.turn is not None)
    assert not any(isinstance(s, Let) for s in statements(k.body))


@pytest.mark.parametrize(("size", "memory"), [(1024, False), (3072, True)])
def test_what_a_loop_reads_again_comes_from_a_cache_that_holds_it(size, memory):
    """Reductions go in blocks where weights come from memory."""
    target = replace(TARGET, caches=(48 << 10, 1 << 20, 32 << 20)).with_cores(1)
    (k,) = in_turns(recurrent(size, rows=16), target)
    blocks = [s for s in statements(k.body) if isinstance(s, For) and s.kind == "serial"]
    assert any(is_const(s.extent, size) for s in blocks) != memory
