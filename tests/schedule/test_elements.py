"""Products by one element of a vector: what is held means the same, and which loops have it."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Buffer, fma
from tensorwright.ir.interp import run_kernel
from tensorwright.ir.loop import For, Store, loops
from tensorwright.schedule import primitives as p
from tensorwright.schedule.elements import hold
from tensorwright.schedule.legal import ScheduleError
from tensorwright.schedule.rules import schedule
from tensorwright.schedule.space import Choices, Samples
from tensorwright.target.host import TARGETS, find
from tests.schedule.nests import assert_same, kernel, loop_of, operands, product_kernel
from tests.schedule.test_space import run

ARM = find("aarch64")
numbers = st.integers(1, 12)
checked = settings(max_examples=30, deadline=None, derandomize=True, database=None)


@checked
@given(numbers, numbers, numbers, st.integers(1, 5))
def test_what_is_held(m, n, blocks, factor):
    """Of a product of which the sums lie in memory: x[i, r] for some r before they are used."""
    depth = blocks * factor
    x, w, z = Buffer("x", f32, (m, depth)), Buffer("w", f32, (depth, n)), Buffer("z", f32, (m, n))
    step = lambda r, i, j: Store(z, (i, j), fma(x[i, r], w[r, j], z[i, j]))
    clear = loops("ij", (m, n), lambda i, j: Store(z, (i, j), x[0, 0] * 0.0))
    k = kernel("sums", [x, w], z, ir.seq(clear, loops("rij", (depth, m, n), step)))
    body, _, v = p.split(k.body, loop_of(k, "r"), factor)
    body = p.set_kind(body, v, "unroll")
    body = hold(body, v, p.find(body, v).body.body.body.value.args[0])
    (held,) = (b for b in ir.buffers(body) if b.name == "held")
    assert held.shape == (m, factor)
    assert_same(k, body)


def test_what_changes_is_not_held():
    x = Buffer("x", f32, (8,))
    loop = ir.loop("i", 4, lambda i: Store(x, (i,), x[i + 1] * 2.0), "unroll")
    with pytest.raises(ScheduleError, match="stores to x"):
        hold(loop, loop.var, loop.body.value.args[0])


@pytest.mark.parametrize("m, n, depth", [
    (7, 12, 64), (1, 40, 33), (13, 29, 37), (128, 16, 16), (5, 64, 3), (9, 5, 101),
])  # fmt: skip
def test_products(m, n, depth):
    k = product_kernel(m, n, depth)
    arrays = operands(k, 0)
    expected = run_kernel(k, arrays)[0]
    made = [schedule(k, ARM), *(schedule(k, ARM, Samples(Random(seed))) for seed in range(4))]
    for one in made:
        np.testing.assert_array_equal(run(one, arrays), expected)
    assert ("held" in {b.name for b in ir.buffers(made[0].body)}) == (depth >= 4)


@pytest.mark.parametrize("sizes", [("n", 24, 32), (6, 24, "n"), ("n", 24, "n")])
def test_sizes_known_when_running(sizes):
    k = product_kernel(*sizes)
    made = schedule(k, ARM)
    assert "held" in {b.name for b in ir.buffers(made.body)}
    if sizes[2] != "n":
        k = product_kernel(7, *sizes[1:])
        arrays = operands(k, 0)
        np.testing.assert_array_equal(run(schedule(k, ARM), arrays), run_kernel(k, arrays)[0])


@pytest.mark.parametrize("steps", [1, 4, 8, 16])
def test_steps_are_a_choice(steps):
    choices = Choices({"steps": steps})
    made = schedule(product_kernel(7, 24, 80), ARM, choices)
    loops = [s for s in ir.statements(made.body) if isinstance(s, For) and s.kind == "serial"]
    assert [s.extent.value for s in loops if s.extent.value > 2] == [80 // steps]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_only_where_the_target_has_it(target):
    choices = Choices()
    made = schedule(product_kernel(7, 24, 80), target, choices)
    assert ("held" in {b.name for b in ir.buffers(made.body)}) == target.by_element
