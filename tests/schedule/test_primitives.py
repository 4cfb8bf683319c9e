"""Each primitive keeps the meaning of random nests, and refuses where it would not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Buffer, as_expr, const, sym
from tensorwright.ir.loop import Alloc, For, If, Store, loops, seq
from tensorwright.schedule import primitives as p
from tensorwright.schedule.legal import ScheduleError
from tensorwright.schedule.nest import inverse, stages
from tests.schedule.nests import (
    N,
    assert_same,
    chain_kernel,
    kernel,
    loop_of,
    map_kernel,
    product_kernel,
    sum_kernel,
    sum_of_two_kernel,
)  # fmt: skip

sizes = st.integers(1, 9) | st.just("n")
numbers = st.integers(1, 9)
checked = settings(max_examples=40, deadline=None, derandomize=True, database=None)


@checked
@given(sizes, sizes, st.sampled_from("ij"), st.integers(1, 11), st.integers(1, 12))
def test_split(a, b, name, factor, size):
    k = map_kernel(a, b)
    body, outer, inner = p.split(k.body, loop_of(k, name), factor)
    assert p.find(body, outer).body is p.find(body, inner)
    assert_same(k, body, size)


@checked
@given(sizes, sizes, st.integers(1, 11), st.integers(1, 12), st.sampled_from(["repeated", "short"]))
def test_split_with_another_last_loop(a, b, factor, size, last):
    k = map_kernel(a, b)
    assert_same(k, p.split(k.body, loop_of(k, "j"), factor, last=last)[0], size)


@checked
@given(sizes, sizes, numbers, st.integers(1, 11), st.integers(1, 12))
def test_split_guards_the_store_alone(m, n, depth, factor, size):
    """What accumulates beyond the end is dropped; its operands are read within bounds here."""
    k = product_kernel(m, n, depth)
    body = p.cache_write(k.body, stages(k.body)[0].init)

    def guard(s, condition):
        return seq(*(If(condition, x) if isinstance(x, (Store, For)) else x for x in s.body))

    assert_same(k, p.split(body, loop_of(k, "j"), factor, guard=guard)[0], size)


@checked
@given(sizes, sizes, sizes, st.booleans(), st.integers(1, 12))
def test_fuse(a, b, c, inner, size):
    k = map_kernel(a, b, c)
    first, second = ("j", "k") if inner else ("i", "j")
    assert_same(k, p.fuse(k.body, loop_of(k, first), loop_of(k, second))[0], size)


@checked
@given(sizes, sizes, sizes, st.permutations("ijk"), st.integers(1, 7))
def test_reorder(a, b, c, order, size):
    k = map_kernel(a, b, c)
    body = p.reorder(k.body, [loop_of(k, n) for n in order])
    assert [s.var.name for s in ir.statements(body) if isinstance(s, For)] == list(order)
    assert_same(k, body, size)


@checked
@given(numbers, sizes, sizes, st.integers(1, 7))
def test_fission(m, n, depth, size):
    k = product_kernel(m, n, depth)
    body = p.reorder(
        p.cache_write(k.body, stages(k.body)[0].init), [loop_of(k, "j"), loop_of(k, "i")]
    )
    body = p.fission(p.set_kind(body, loop_of(k, "i"), "unroll"), loop_of(k, "i"))
    assert_same(k, body, size)


@checked
@given(sizes, sizes, st.integers(0, 3), st.integers(3, 12))
def test_partition_and_join(a, b, at, size):
    k = map_kernel(a, b)
    extent = p.find(k.body, loop_of(k, "i")).extent
    at = min(at, extent.value) if extent.op == "const" else at
    cut, first, second = p.partition(k.body, loop_of(k, "i"), at)
    assert_same(k, cut, size)
    joined, _ = p.join(cut, first, second)
    assert_same(k, joined, size)


@checked
@given(sizes, sizes, sizes, st.integers(1, 7))
def test_cache_write_and_stage_result(m, n, depth, size):
    k = product_kernel(m, n, depth)
    body = p.cache_write(k.body, stages(k.body)[0].init)
    assert any(isinstance(s, Alloc) for s in ir.statements(body))
    assert_same(k, body, size)
    assert_same(k, p.roll(p.stage_result(body, k.results[0]), k.results[0]), size)


def with_epilogue(m, n, depth):
    """y[j, i] = 3 z[i, j] - b[j] behind a product."""
    k = product_kernel(m, n, depth)
    z = Buffer("z", f32, k.results[0].shape, "temp")
    b, y = Buffer("b", f32, (z.shape[1],)), Buffer("y", f32, z.shape[::-1])
    body = ir.replace_buffers(k.body, {k.results[0]: z})
    epilogue = loops("ab", y.shape, lambda i, j: Store(y, (i, j), z[j, i] * 3.0 - b[(i,)]))
    return kernel("epilogue", [*k.inputs, b], y, seq(Alloc(z), body, epilogue))


@checked
@given(sizes, sizes, sizes, st.integers(1, 7))
def test_fuse_epilogue(m, n, depth, size):
    k = with_epilogue(m, n, depth)
    body = p.cache_write(k.body, stages(k.body)[0].init)
    producer, consumer = stages(body)
    solved = inverse(producer, consumer)
    assert solved is not None
    after = p.fuse_epilogue(body, producer, consumer, solved)
    assert len(ir.stored_buffers(after)) == 2  # the accumulator and the result
    assert_same(k, after, size)


@checked
@given(sizes, sizes, st.integers(1, 7))
def test_inline(m, n, size):
    k = chain_kernel(m, n)
    first = stages(k.body)[0]
    body = p.inline(k.body, first.final, first.variables)
    assert len(stages(body)) == 1
    assert_same(k, body, size)


@checked
@given(numbers, numbers)
def test_relayout(a, b):
    k = map_kernel(a, b)
    x = k.inputs[0]
    turned = Buffer("xt", f32, x.shape[::-1])
    body = p.relayout(k.body, x, turned, lambda i: (i[1], i[0]))
    from dataclasses import replace

    from tensorwright.ir.interp import run_kernel
    from tests.schedule.nests import operands

    (given_x,) = operands(k, 1)
    after = replace(k, body=body, params=(turned, k.results[0]))
    (expected,), (found,) = run_kernel(k, [given_x]), run_kernel(after, [given_x.T.copy()])
    assert (expected == found).all()


@checked
@given(sizes, sizes, st.sampled_from(["add", "mul", "max", "min"]), st.sampled_from([2, 4, 8]),
       st.integers(1, 20))  # fmt: skip
def test_rfactor(m, depth, op, lanes, size):
    k = sum_kernel(m, depth, op)
    if op == "mul":
        size = min(size, 6)  # exact
    assert_same(k, p.rfactor(k.body, loop_of(k, "r"), lanes)[0], size)


@checked
@given(sizes, sizes, sizes, st.sampled_from([2, 4, 8]), st.integers(1, 6))
def test_rfactor_of_a_nest(m, outer, depth, lanes, size):
    """Partial results live through all loops of the reduction."""
    k = sum_of_two_kernel(m, outer, depth)
    after = p.rfactor(k.body, loop_of(k, "r"), lanes, loop_of(k, "q"))[0]
    (nest,) = (s for s in ir.statements(after) if isinstance(s, ir.For) and s.var.name == "q")
    assert not any(isinstance(s, ir.Alloc) for s in ir.statements(nest))
    assert_same(k, after, size)


@checked
@given(sizes, sizes, st.sampled_from([2, 4, 8, 16]), st.integers(1, 20))
def test_vectorize(a, b, lanes, size):
    k = map_kernel(a, b)
    assert_same(k, p.vectorize(k.body, loop_of(k, "j"), lanes)[0], size)


@pytest.mark.parametrize("kind", ["parallel", "vector", "unroll"])
def test_set_kind(kind):
    k = map_kernel(3, 4)
    body = p.set_kind(k.body, loop_of(k, "j"), kind)
    assert p.find(body, loop_of(k, "j")).kind == kind
    assert_same(k, body)


# ---- what is refused ---------------------------------------------------------------------------


def prefix_sums():
    x, y = Buffer("x", f32, (8,)), Buffer("y", f32, (9,))
    return kernel(
        "prefix", [x], y, loops("i", (8,), lambda i: Store(y, (i + 1,), y[(i,)] + x[(i,)]))
    )


def all_into_one():
    x, y = Buffer("x", f32, (8,)), Buffer("y", f32, (1,))
    return kernel("one", [x], y, loops("i", (8,), lambda i: Store(y, (const(0),), x[(i,)])))


def overlapping():
    x, y = Buffer("x", f32, (4, 4)), Buffer("y", f32, (8,))
    return kernel(
        "diagonals", [x], y, loops("ij", (4, 4), lambda i, j: Store(y, (i + j,), x[i, j]))
    )


def pairs_of(first: int):
    """Elements 2 i and 2 i + first of a padded image of rows of 7, 4 of them."""
    x, y = Buffer("x", f32, (14,)), Buffer("y", f32, (6, 9))

    def pair(i):
        at = (2 * i, 2 * i + first)
        return seq(*(Store(y, (n // 7 + 1, n % 7 + 1), x[(i,)]) for n in at))

    return kernel("pairs", [x], y, loops("i", (14,), pair))


def test_places_are_counted_out():
    """No difference of subscripts shows that pairs of elements lie apart."""
    k = pairs_of(1)
    made = p.set_kind(k.body, loop_of(k, "i"), "parallel")
    assert p.find(made, loop_of(k, "i")).kind == "parallel"


@pytest.mark.parametrize("make", [prefix_sums, all_into_one, overlapping, lambda: pairs_of(2)])
def test_dependent_iterations_do_not_run_in_parallel(make):
    k = make()
    with pytest.raises(ScheduleError, match="not independent"):
        p.set_kind(k.body, loop_of(k, "i"), "parallel")


@pytest.mark.parametrize("kind", ["vector", "unroll"])
def test_symbolic_loops_do_not_unroll(kind):
    k = map_kernel("n")
    with pytest.raises(ScheduleError, match="symbolic extent"):
        p.set_kind(k.body, loop_of(k, "i"), kind)
    with pytest.raises(ScheduleError, match="symbolic extent"):
        p.fission(k.body, loop_of(k, "i"))


def triangle():
    x, y = Buffer("x", f32, (5, 5)), Buffer("y", f32, (5, 5))

    def row(i):
        return ir.loop("j", i + 1, lambda j: Store(y, (i, j), x[i, j]))

    return kernel("triangle", [x], y, ir.loop("i", 5, row))


def test_triangles_neither_fuse_nor_reorder():
    k = triangle()
    i, j = loop_of(k, "i"), loop_of(k, "j")
    with pytest.raises(ScheduleError, match="depends"):
        p.fuse(k.body, i, j)
    with pytest.raises(ScheduleError, match="depends"):
        p.reorder(k.body, [j, i])


def test_what_is_not_a_perfect_nest():
    k = product_kernel(3, 4, 5)
    with pytest.raises(ScheduleError, match="not directly inside"):
        p.fuse(k.body, loop_of(k, "j"), loop_of(k, "r"))
    with pytest.raises(ScheduleError, match="not one perfect nest"):
        p.reorder(k.body, [loop_of(k, "r"), loop_of(k, "i")])


def test_rfactor_needs_a_reduction():
    k = map_kernel(3, 8)
    with pytest.raises(ScheduleError, match="not a single reduction"):
        p.rfactor(k.body, loop_of(k, "j"), 4)
    x, y = Buffer("x", f32, (8,)), Buffer("y", f32, (8,))
    moving = kernel("moving", [x], y, loops("i", (8,), lambda i: Store(y, (i,), y[(i,)] + x[(i,)])))
    with pytest.raises(ScheduleError, match="moves the element"):
        p.rfactor(moving.body, loop_of(moving, "i"), 4)


def test_join_needs_one_kind_of_loop():
    k = map_kernel(8)
    body, first, second = p.partition(k.body, loop_of(k, "i"), 4)
    with pytest.raises(ScheduleError, match="parallel and loop"):
        p.join(p.set_kind(body, first, "parallel"), first, second)


def test_no_such_loop():
    k, other = map_kernel(8), map_kernel(8)
    with pytest.raises(ScheduleError, match="no loop over"):
        p.split(k.body, loop_of(other, "i"), 4)


def test_independence_survives_other_writings():
    """Flattened, blocked and shifted subscripts are still one element an iteration."""
    x, y = Buffer("x", f32, (40,)), Buffer("y", f32, (10, 4))
    blocked = kernel("blocked", [x], y, loops(
        "ab", (10, 4), lambda a, b: Store(y, (a, b), x[(a * 4 + b,)])))  # fmt: skip
    p.set_kind(blocked.body, loop_of(blocked, "a"), "parallel")
    flat = kernel("flat", [x], y, loops(
        "i", (40,), lambda i: Store(y, (i // 4, i % 4), x[(i,)])))  # fmt: skip
    p.set_kind(flat.body, loop_of(flat, "i"), "parallel")
    z = Buffer("z", f32, (sym(N) * 4 + 3,))
    shifted = kernel("shifted", [x], z, loops(
        "ab", (sym(N), 4), lambda a, b: Store(z, (a * 4 + b + 3,), x[(as_expr(b),)])))  # fmt: skip
    p.set_kind(shifted.body, loop_of(shifted, "a"), "parallel")
