"""Nothing stays behind after many calls: objects, results whose size data tells, failed calls."""

import gc
from pathlib import Path

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base.errors import RunError
from tests.values import objects

CALLS = 100_000
Rows = tw.List[tw.f32["n"]]


@tw.function
def joined(xs: Rows, done: tw.f32[()]) -> tw.f32[()]:
    return tw.match(xs, Nil=lambda: done, Cons=lambda h, t: joined(t, done + tw.numpy.sum(h)))


@tw.function
def doubled(xs: Rows) -> Rows:
    return tw.match(
        xs, Nil=Rows.Nil, Cons=lambda h, t: Rows.Cons(tw.numpy.concat([h, h]), doubled(t))
    )


@tw.function
def everything(x: tw.f32["n"], xs: Rows, k: tw.i64):
    """Sizes from data, a branch, a loop over a list that grows, a size that is checked."""
    xp = tw.numpy
    chosen = xp.take(x, xp.nonzero(x > 0)[0])
    step = lambda s: (s[0] + 1, Rows.Cons(x * 2, s[1]))
    _, grown = tw.while_loop(lambda s: s[0] < k, step, (xp.asarray(0), xs))
    total = tw.cond(k > 1, lambda: joined(doubled(grown), 0.0), lambda: xp.sum(x))
    return chosen, total, xp.ones(xp.size_from(k), dtype=tw.f32)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_calls_leave_nothing_behind():
    program = tw.compile(everything, threads=1)
    random = np.random.default_rng(0)
    inputs = [(random.standard_normal(n, dtype=np.float32),
               Rows.of([np.ones(m, np.float32) for m in (n, 1)]), np.array(k))
              for n, k in ((3, 1), (1, 0), (40, 3))]  # fmt: skip
    bad = (*inputs[0][:2], np.array(-1))

    def calls(count: int) -> None:
        for i in range(count):
            if i % 100 == 0:
                with pytest.raises(RunError, match="least value is 0"):
                    program(*bad)
            program(*inputs[i % 3])

    calls(2000)
    gc.collect()
    before = resident()
    calls(CALLS)
    gc.collect()
    assert resident() - before < 4 << 20
    assert objects(program) == 0


def test_what_is_not_released_is_seen():
    """The counts that the test above relies on do move."""
    program = tw.compile(doubled, threads=1)
    program._let_go = lambda *_: None
    program(Rows.of([np.ones(2, np.float32)]))
    assert objects(program) > 0
