"""Attention as one kernel: that it forms, where it must not, and that it is right."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.driver.compile import compile
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir.expr import as_expr, bounds, symbols_of, var
from tensorwright.ir.facts import evaluate
from tensorwright.ir.graph import Graph, constant, graph, param
from tensorwright.ir.interp import run_graph, run_module
from tensorwright.ir.loop import Alloc, For, Kernel, Store, statements
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.activations import relu
from tensorwright.ops.attention import attention
from tensorwright.ops.elementwise import add, is_nan, select
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import reshape, transpose
from tensorwright.ops.norm import softmax
from tensorwright.target.host import find


def model(q, k, v, mask=None, dtype="f32", **attrs) -> Graph:
    """Attention over the given shapes."""
    shapes = {"q": q, "k": k, "v": v}
    params = [param(n, tensor(dtype, *s)) for n, s in shapes.items()]
    if mask is not None:
        params.append(param("mask", tensor(*mask)))
    return graph("main", params, [attention(*params, **attrs)])


def arrays(g: Graph, sizes: dict | None = None, seed=0) -> list[np.ndarray]:
    rng, found = np.random.default_rng(seed), []
    for p in g.params:
        shape = [d if isinstance(d, int) else sizes[str(d)] for d in p.shape]
        x = rng.standard_normal(shape)
        found.append(x > 0 if p.dtype.kind == "bool" else x.astype(p.dtype.numpy))
    return found


def forms(m: Module) -> list[str]:
    """The form by which each kernel was scheduled."""
    return [k.schedule[-1].split(":")[0] for k in m.kernels.values() if k.schedule]


def check(g: Graph, inputs, fused: bool = True, interpret: bool = True, tol=1e-5) -> None:
    """Native and interpreted results are those of the graph."""
    program = compile(Module({"main": g}), threads=2)
    assert ("attention" in forms(program.lowered)) is fused
    (expected,) = run_graph(g, inputs)
    found = [np.asarray(program(*inputs))]
    if interpret:
        found += run_module(program.lowered, inputs)
    for y in found:
        np.testing.assert_allclose(y.astype(float), expected.astype(float), tol, tol)


SMALL = [(1, 2, 7, 8), (1, 2, 20, 8), (1, 2, 20, 8)]


@pytest.mark.parametrize("attrs", [
    {}, {"causal": True}, {"causal": True, "start": 5}, {"window": (3, 2)}, {"softcap": 2.0},
    {"scale": 0.3},
], ids=str)  # fmt: skip
def test_small(attrs):
    g = model(*SMALL, **attrs)
    check(g, arrays(g))


@pytest.mark.parametrize("shape", [(7, 20), (1, 2, 7, 20), (2, 1, 20), (1, 1, 1, 20)], ids=str)
@pytest.mark.parametrize("kind", ["bool", "f32"])
def test_masks(kind, shape):
    g = model(*SMALL, mask=(kind, *shape))
    check(g, arrays(g))


def test_rows_that_see_nothing():
    g = model(*SMALL, mask=("bool", 7, 20))
    inputs = arrays(g)
    inputs[3][2] = False
    check(g, inputs)
    assert not np.asarray(compile(Module({"main": g}))(*inputs))[0, :, 2].any()


def test_rows_of_minus_infinity():
    g = model(*SMALL, mask=("f32", 7, 20))
    inputs = arrays(g)
    inputs[3][2] = -np.inf
    check(g, inputs)


def test_shared_heads():
    g = model((2, 4, 9, 8), (2, 2, 13, 8), (2, 2, 13, 5), causal=True, start=4)
    check(g, arrays(g))


def test_half_precision():
    g = model(*SMALL, dtype="f16")
    check(g, arrays(g), tol=2e-3)


@pytest.mark.parametrize("length, keys", [(1, 1), (3, 64), (50, 33), (97, 70)])
def test_symbolic_lengths(length, keys):
    n, s = var("n", min=1, max=200), var("s", min=1, max=100)
    g = model((1, 2, n, 8), (1, 2, s, 8), (1, 2, s, 16), mask=("f32", n, s))
    check(g, arrays(g, {"n": length, "s": keys}), interpret=length < 10)


@pytest.mark.parametrize("width", [1, 40])
def test_values_of_unbounded_width(width):
    g = model((1, 2, 5, 8), (1, 2, 20, 8), (1, 2, 20, var("d", min=1)))
    check(g, arrays(g, {"d": width}))


@pytest.mark.parametrize("length", [1, 3, 50, 197])
@pytest.mark.parametrize("causal", [False, True])
def test_lengths_without_bounds(length, causal):
    """The scores of a tile lie in memory of the kernel, a part for each run of tiles."""
    n = var("n", min=1)
    g = model((1, 2, n, 8), (1, 2, n, 8), (1, 2, n, 16), causal=causal, mask=("f32", n, n))
    check(g, arrays(g, {"n": length}), interpret=length < 10)


@pytest.mark.parametrize("length, keys", [(1, 700), (3, 64), (7, 1), (24, 9), (50, 33), (97, 700)])
@pytest.mark.parametrize("causal", [False, True])
def test_rows_and_keys_without_bounds(length, keys, causal):
    """A tile has the rows that there are."""
    n, s = var("n", min=1), var("s", min=1)
    g = model((1, 2, n, 8), (1, 2, s, 8), (1, 2, s, 16), causal=causal, mask=("f32", n, s))
    check(g, arrays(g, {"n": length, "s": keys}), interpret=length < 10)


@pytest.mark.parametrize("rows, keys", [(2, 1), (3, 64), (50, 33), (97, 700)])
def test_keys_without_bounds(rows, keys):
    s = var("s", min=1)
    g = model((1, 2, rows, 8), (1, 2, s, 8), (1, 2, s, 16), mask=("f32", rows, s))
    check(g, arrays(g, {"s": keys}), interpret=rows < 10)


def test_large():
    g = model((1, 3, 131, 64), (1, 3, 197, 64), (1, 3, 197, 64), causal=True, start=66)
    check(g, arrays(g), interpret=False)


@pytest.mark.parametrize("causal", [False, True])
def test_scores_of_a_tile_too_large_for_the_stack(causal):
    g = model((1, 2, 31, 8), (1, 2, 3001, 8), (1, 2, 3001, 16), causal=causal, start=2970)
    check(g, arrays(g), interpret=False)


def test_heads_side_by_side():
    """As exporters write it: heads split from and merged into one axis."""
    params = [param(n, tensor("f32", 1, 12, 16)) for n in "qkv"]
    q, k, v = (transpose(reshape(p, shape=(1, 12, 2, 8)), perm=(0, 2, 1, 3)) for p in params)
    s = softmax(dot_general(q, k, batch=((0, 1), (0, 1)), contract=((3,), (3,))), axis=-1)
    y = dot_general(s, v, batch=((0, 1), (0, 1)), contract=((3,), (2,)))
    y = reshape(transpose(y, perm=(0, 2, 1, 3)), shape=(1, 12, 16))
    g = graph("main", params, [y])
    check(g, arrays(g))


# ---- tiles -------------------------------------------------------------------------------------


def tiled(g: Graph, target) -> Kernel:
    (k,) = (k for k in run_pipeline(Module({"main": g}), target).kernels.values()
            if k.schedule[-1].startswith("attention"))  # fmt: skip
    return k


@pytest.mark.parametrize("cores, height", [(1, 40), (2, 33)])
def test_all_cores_have_as_many_tiles(cores, height):
    """Of 3 heads of 198 rows, 5 tiles each are 15, which two cores do not share evenly."""
    g = model(*[(1, 3, 198, 64)] * 3)
    k = tiled(g, find("x86-64-avx512-wide").with_cores(cores))
    assert k.schedule[-1].startswith(f"attention: tiles of {height} rows")


@pytest.mark.parametrize("keys, group", [(128, 43), (700, 8)])
def test_rows_of_a_group_fit_half_of_the_cache(keys, group):
    g = model((1, 12, 128, 64), (1, 12, keys, 64), (1, 12, keys, 64))
    k = tiled(g, find("x86-64-avx512-wide").with_cores(1))
    powers = [s for s in statements(k.body) if isinstance(s, Store) and s.value.op == "exp"]
    loops = [s for s in statements(k.body) if isinstance(s, For) and powers[0] in statements(s)]
    assert bounds(loops[-3].extent)[1] == group


@pytest.mark.parametrize("heads, keys, panels", [(12, 49, 1), (12, 128, 2), (16, 49, 2)])
def test_values_that_stay_in_the_cache_are_read_as_they_lie(heads, keys, panels):
    """But where a row is 4 KiB from the next: these fall into one set of the cache."""
    params = [param(n, tensor("f32", 1, keys, heads * 64)) for n in "qkv"]
    q, k, v = (transpose(reshape(p, shape=(1, keys, heads, 64)), perm=(0, 2, 1, 3)) for p in params)
    g = graph("main", params, [attention(q, k, v)])
    assert len(tiled(g, find("x86-64-avx512-wide")).packs) == panels
    check(g, arrays(g), interpret=False)


# ---- where it must not form --------------------------------------------------------------------


def test_many_keys_stay_separate():
    m = run_pipeline(Module({"main": model((1, 1, 8, 8), (1, 1, 16384, 8), (1, 1, 16384, 8))}),
                     find("host"))  # fmt: skip
    assert "attention" not in forms(m)


def test_scores_are_as_many_as_there_are_rows():
    """A step of a decoder keeps the scores of its one row, in as many runs as there are heads."""
    n, keys = var("n", min=1), var("s", min=1)
    g = model((1, 2, n, 8), (1, 2, keys, 8), (1, 2, keys, 16))
    m = run_pipeline(Module({"main": g}), find("host"))
    (k,) = (k for k in m.kernels.values() if k.schedule[-1].startswith("attention"))
    made = [s.buffer for s in statements(k.body) if isinstance(s, Alloc)]
    (scores,) = (b for b in made if b.scope == "temp")
    size = {"n": 1, "s": 1000}
    at = {s: size[s.name] for d in scores.shape for s in symbols_of(as_expr(d))}
    assert [evaluate(as_expr(d), at) for d in scores.shape] == [2, 1, 1000]


def test_scores_that_are_a_result_stay():
    q, k, v = (param(n, tensor("f32", 6, 8)) for n in "qkv")
    p = softmax(dot_general(q, k, contract=((1,), (1,))), axis=-1)
    g = graph("main", [q, k, v], [p, dot_general(p, v)])
    m = run_pipeline(Module({"main": g}), find("host"))
    assert "attention" not in forms(m)


def test_perceptron_stays_separate():
    x, a, b = (param(n, tensor("f32", 8, 8)) for n in "xab")
    y = dot_general(relu(dot_general(x, a, contract=((1,), (0,)))), b, contract=((1,), (0,)))
    m = run_pipeline(Module({"main": graph("main", [x, a, b], [y])}), find("host"))
    assert "attention" not in forms(m)


# ---- softmax alone -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 12, 128, 128), (1, 1, 1, 40), (2, 3, 40)], ids=str)
def test_guarded_softmax_is_one_kernel(shape):
    """As exporters write it: rows of NaN give zeros. Unit dimensions must not be in the way."""
    x = param("x", tensor("f32", *shape))
    mask = param("mask", tensor("f32", *(1,) * (len(shape) - 1), shape[-1]))
    p = softmax(add(x, mask), axis=-1)
    g = graph("main", [x, mask], [select(is_nan(p), constant(np.float32(0)), p)])
    program = compile(Module({"main": g}), threads=1)
    assert forms(program.lowered) == ["rows"]
    inputs = arrays(g)
    inputs[0][..., 0, :] = np.nan
    (expected,) = run_graph(g, inputs)
    np.testing.assert_allclose(np.asarray(program(*inputs)), expected, 1e-5, 1e-6)
    assert not np.isnan(expected).any()
