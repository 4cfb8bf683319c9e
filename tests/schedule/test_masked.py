"""Attention that skips keys behind the causal limit: where it does, and that it is right."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.driver.compile import compile
from tensorwright.ir import loop as ir
from tensorwright.ir.expr import var
from tensorwright.ir.graph import constant, graph, param
from tensorwright.ir.interp import run_graph, run_module
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.attention import attention
from tests.schedule.test_attention import arrays, model


def skips(m: Module) -> int:
    """Kernels that end loops at the last key which a tile looks at."""
    return sum(any(isinstance(s, ir.Let) and s.var.name == "seen" for s in ir.statements(k.body))
               for k in m.kernels.values())  # fmt: skip


def check(g, inputs, interpret=True, kernels=1, precision="model", tol=1e-5):
    program = compile(Module({"main": g}), threads=2, precision=precision)
    assert skips(program.lowered) == kernels
    (expected,) = run_graph(g, inputs)
    found = [np.asarray(program(*inputs))]
    if interpret:
        found += run_module(program.lowered, inputs)
    for y in found:
        np.testing.assert_allclose(y, expected, tol, tol)


@pytest.mark.parametrize("length, keys, start", [(20, 20, 0), (7, 20, 13), (50, 70, 3), (33, 9, 2)])
def test_fixed_lengths(length, keys, start):
    g = model((1, 2, length, 8), (1, 2, keys, 8), (1, 2, keys, 8), causal=True, start=start)
    check(g, arrays(g))


@pytest.mark.parametrize("length, keys", [(1, 1), (2, 90), (50, 50), (97, 200), (120, 64)])
def test_symbolic_lengths(length, keys):
    """Rows that see nothing among them, where there are fewer keys than rows."""
    n, s = var("n", min=1, max=200), var("s", min=1, max=200)
    g = model((1, 2, n, 8), (1, 2, s, 8), (1, 2, s, 16), causal=True, start=s - n)
    check(g, arrays(g, {"n": length, "s": keys}), interpret=length < 10)


@pytest.mark.parametrize("past, length", [(0, 40), (30, 5), (100, 28)])
def test_behind_a_cache(past, length):
    p, n = var("p", min=0, max=128), var("n", min=1, max=64)
    keys = (1, 2, p + n, 8)
    g = model((1, 4, n, 8), keys, keys, causal=True, start=p)
    rng = np.random.default_rng(0)
    shapes = [(1, 4, length, 8), (1, 2, past + length, 8), (1, 2, past + length, 8)]
    check(g, [rng.standard_normal(s).astype("f4") for s in shapes], interpret=False)


@pytest.mark.parametrize("kind", [(), (2,)], ids=["one", "each"])
@pytest.mark.parametrize("with_valid", [False, True])
@pytest.mark.parametrize("place", [(0, 3), (40, 17), (-25, 90)], ids=str)
def test_offsets_as_data(kind, with_valid, place):
    """As caches have them, also such that rows see nothing or everything."""
    shapes = [(2, 2, 20, 8), (2, 2, 60, 8), (2, 2, 60, 8)]
    p = [param(n, tensor("f32", *s)) for n, s in zip("qkv", shapes)]
    counts = [param("offset", tensor("i64", *kind)), param("valid", tensor("i64", 2))]
    counts = counts if with_valid else counts[:1]
    offset, *valid = counts
    g = graph("main", [*p, *counts], [attention(*p, None, offset, *valid, causal=True)])
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(s).astype("f4") for s in shapes]
    inputs += [np.array(place[: len(kind) + 1] if kind else place[0]), np.array([50, 60])]
    check(g, inputs[: len(g.params)])


@pytest.mark.parametrize("guard", ["empty", "nan", "none"])
def test_special_scores(guard):
    """Rows of NaN, and of -inf where they look, stay what they are."""
    g = model((1, 2, 30, 8), (1, 2, 30, 8), (1, 2, 30, 8), causal=True, guard=guard)
    inputs = arrays(g)
    inputs[0][0, 0, 5] = np.nan
    inputs[0][0, 1, 7] = 0
    inputs[1][0, 1, :9] = np.inf  # scores of row 7: 0 * inf
    check(g, inputs)


def test_hidden_values_do_not_matter():
    g = model((1, 1, 40, 8), (1, 1, 200, 8), (1, 1, 200, 8), causal=True)
    inputs = arrays(g)
    expected = np.asarray(compile(Module({"main": g}))(*inputs))
    for x in inputs[1:]:
        x[:, :, 64:] = 1e30
    np.testing.assert_array_equal(np.asarray(compile(Module({"main": g}))(*inputs)), expected)


def test_several_layers_on_one_mask():
    """The mask is compared in the kernel, although both calls of it share one."""
    q, k, v = (param(n, tensor("f32", 1, 2, 40, 8)) for n in "qkv")
    g = graph("main", [q, k, v], [attention(attention(q, k, v, causal=True), k, v, causal=True)])
    check(g, arrays(g), interpret=False)


def test_half_products():
    g = model((1, 2, 70, 16), (1, 2, 70, 16), (1, 2, 70, 16), causal=True)
    check(g, arrays(g), precision="bf16", tol=3e-2)


@pytest.mark.parametrize("attrs", [{"window": (3, 2)}, {}], ids=str)
def test_other_masks_are_not_taken_for_it(attrs):
    g = model((1, 2, 20, 8), (1, 2, 20, 8), (1, 2, 20, 8), **attrs)
    check(g, arrays(g), kernels=0)


def test_a_triangle_that_is_turned_is_another_mask():
    p = [param(n, tensor("f32", 1, 2, 20, 8)) for n in "qkv"]
    keep = np.triu(np.ones((20, 20), bool))
    g = graph("main", p, [attention(*p, constant(keep))])
    check(g, arrays(g), kernels=0)
