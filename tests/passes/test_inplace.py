"""Updates change memory that nobody looks at any more, and only that."""

from __future__ import annotations

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base.errors import FrontendError, RunError
from tensorwright.frontend.array_control import scan
from tensorwright.ir.compare import difference
from tensorwright.ir.interp import run_module
from tensorwright.ir.parser import parse
from tensorwright.ir.printer import to_text
from tensorwright.ops.table import BY_NAME

tn = tw.numpy


@tw.function(state=("cache",))
def write(x: tw.f32[4], cache: tw.f32[8, 4], at: tw.i64[()]):
    cache = cache.at[at].set(x)
    total = tn.sum(cache, axis=0)
    return total, cache.at[at].add(total)


@tw.function(state=("cache",))
def fill(x: tw.f32["n", 4], cache: tw.f32[8, 4]):
    return tn.sum(x), cache.at[tn.arange(x.shape[0])].set(x)


def written(x, cache, at):
    cache = cache.copy()
    cache[at] = x
    total = cache.sum(axis=0)
    cache[at] += total
    return total, cache


def in_place(program) -> list[bool]:
    """Of every update of a program, whether it is in place."""
    nodes = [n for g in program.lowered.all_graphs() for n in g.nodes()]
    return [n.attrs["inplace"] >= 0 for n in nodes
            if n.op.name == "call_kernel" and "scatter" in n.attrs["callee"]]  # fmt: skip


def arrays():
    rng = np.random.default_rng(0)
    return rng.standard_normal(4, "f"), rng.standard_normal((8, 4)).astype("f")


def test_state_is_the_array_that_was_given():
    program = tw.compile(write, verify=True)
    x, cache = arrays()
    total, wanted = written(x, cache, 5)
    found, new = program(x, cache, 5)
    assert new is cache
    np.testing.assert_allclose(found, total, rtol=1e-6)
    np.testing.assert_allclose(cache, wanted, rtol=1e-6)
    assert in_place(program) == [True, True]


def test_interpreter_leaves_its_inputs_as_they_are():
    program = tw.compile(write)
    x, cache = arrays()
    before = cache.copy()
    wanted = written(x, cache, 2)[1]
    for m in (program.module, program.lowered):
        found = run_module(m, [x, cache, np.asarray(2)])
        np.testing.assert_allclose(found[1], wanted, rtol=1e-6)
        np.testing.assert_array_equal(cache, before)


def test_entries_share_a_program(tmp_path):
    program = tw.compile({"fill": fill, "write": write}, verify=True)
    program.save(tmp_path / "p.tw")
    for p in (program, tw.load(tmp_path / "p.tw")):
        assert list(p.entries) == ["fill", "write"]
        x, cache = arrays()
        rows = np.ones((3, 4), "f")
        total, new = p.fill(rows, cache)
        assert new is cache and total == 12 and (cache[:3] == 1).all()
        np.testing.assert_allclose(p.write(x, cache, 7)[0], written(x, cache, 7)[0], rtol=1e-5)
        with pytest.raises(AttributeError, match="its entries are fill, write"):
            p.rewind()
        with pytest.raises(RunError, match="one entry of a program"):
            p.write.save(tmp_path / "q.tw")


def test_text_form_of_entries_and_states():
    module = tw.compile({"fill": fill, "write": write}).module
    text = to_text(module)
    assert "entries = ('fill', 'write')" in text and "state=((1, 1),)" in text
    again = parse(text, BY_NAME, module.constants())
    assert not difference(module, again)
    assert to_text(again) == text


def test_a_value_that_is_read_later_is_kept():
    @tw.function(state=("cache",))
    def both(x: tw.f32[4], cache: tw.f32[8, 4], at: tw.i64[()]):
        new = cache.at[at].set(x)
        return tn.sum(cache), new  # the old value is read behind the update

    program = tw.compile(both)
    x, cache = arrays()
    total = cache.sum()
    wanted = written(x, cache, 1)
    found, new = program(x, cache, 1)
    np.testing.assert_allclose(found, total, rtol=1e-5)
    np.testing.assert_array_equal(new[1], x)
    np.testing.assert_array_equal(new[2:], wanted[1][2:])


def test_inputs_that_are_no_states_are_kept():
    @tw.function
    def plain(x: tw.f32[4], cache: tw.f32[8, 4], at: tw.i64[()]):
        return cache.at[at].set(x)

    program = tw.compile(plain)
    x, cache = arrays()
    before = cache.copy()
    new = program(x, cache, 3)
    assert new is not cache and in_place(program) == [False]
    np.testing.assert_array_equal(cache, before)
    np.testing.assert_array_equal(new[3], x)


def test_intermediate_values_are_updated_where_they_are():
    @tw.function
    def chain(x: tw.f32[8, 4], at: tw.i64[()]):
        y = tn.exp(x)
        return y.at[at].set(0.0).at[0].add(1.0)

    program = tw.compile(chain)
    x = arrays()[1]
    wanted = np.exp(x)
    wanted[4] = 0
    wanted[0] += 1
    np.testing.assert_allclose(program(x, 4), wanted, rtol=1e-6)
    assert in_place(program) == [True, True]


def test_states_that_change_places():
    @tw.function(state=("a", "b"))
    def swap(a: tw.f32[4], b: tw.f32[4]):
        return tn.sum(a), b, a * 2

    x, y = np.arange(4, dtype="f"), np.full(4, 7, "f")
    total, a, b = tw.compile(swap, verify=True)(x, y)
    assert a is x and b is y and total == 6
    np.testing.assert_array_equal(a, np.full(4, 7))
    np.testing.assert_array_equal(b, 2 * np.arange(4))


@pytest.mark.parametrize("spoilt", [
    lambda c: c[:, ::-1], lambda c: np.broadcast_to(c[:1], (8, 4)), lambda c: c.tolist(),
])  # fmt: skip
def test_a_state_must_be_writable(spoilt):
    x, cache = arrays()
    with pytest.raises(RunError, match="'cache' is a state"):
        tw.compile(write)(x, spoilt(cache), 1)


def test_new_values_must_be_returned():
    @tw.function(state=("cache",))
    def lost(x: tw.f32[4], cache: tw.f32[8, 4]):
        return tn.sum(cache, axis=0) + x

    with pytest.raises(FrontendError, match="the state cache"):
        tw.compile(lost)


# ---- maps --------------------------------------------------------------------------------------


def overwriting(program) -> list[str]:
    """The kernels of a program that are computed in the memory of an operand."""
    nodes = [n for g in program.lowered.all_graphs() for n in g.nodes()]
    return [n.attrs["callee"] for n in nodes if n.op.name == "call_kernel"
            and n.attrs["inplace"] >= 0]  # fmt: skip


def scaled(x, limit):
    """A map of a tensor that a loop has read."""
    below = limit[:, None] - x
    return below, tn.exp(-below) * counted(below, limit)[:, None]


def counted(x, start):
    step = lambda s, k: (s + tn.sum(tn.where(x > s[:, None], 1.0, 0.0), axis=1), None)
    return scan(step, start, tn.arange(3))[0]


@pytest.mark.parametrize("size", [33, 64, 1000, 1023])
@pytest.mark.parametrize("rows", [2, "b"])
def test_a_map_is_computed_where_its_operand_lies(size, rows):
    @tw.function
    def f(x: tw.f32[rows, size], limit: tw.f32[rows]):
        weights = scaled(x, limit)[1]
        return counted(weights, limit)

    program = tw.compile(f, verify=True)
    assert len(overwriting(program)) == 1
    x, limit = np.random.default_rng(0).random((2, size), "f"), np.array([1, 2], "f")
    (wanted,) = run_module(program.module, [x, limit])
    np.testing.assert_allclose(program(x, limit), wanted, rtol=1e-5)
    (lowered,) = run_module(program.lowered, [x, limit])
    np.testing.assert_allclose(lowered, wanted, rtol=1e-5)


def test_a_map_keeps_an_operand_that_is_read_later():
    @tw.function
    def f(x: tw.f32[2, 40], limit: tw.f32[2]):
        below, weights = scaled(x, limit)
        return counted(below, counted(weights, limit))

    program = tw.compile(f)
    assert not overwriting(program)
    x, limit = np.random.default_rng(1).random((2, 40), "f"), np.array([1, 2], "f")
    (wanted,) = run_module(program.module, [x, limit])
    np.testing.assert_allclose(program(x, limit), wanted, rtol=1e-5)


def test_a_map_of_other_elements_has_memory_of_its_own():
    @tw.function
    def f(x: tw.f32[2, 40], limit: tw.f32[2]):
        return tn.sum(tn.roll(scaled(x, limit)[0], 1, axis=1) ** 2, axis=1)

    program = tw.compile(f)
    x, limit = np.random.default_rng(2).random((2, 40), "f"), np.array([1, 2], "f")
    assert not overwriting(program)
    np.testing.assert_allclose(program(x, limit), run_module(program.module, [x, limit])[0],
                               rtol=1e-5)  # fmt: skip
