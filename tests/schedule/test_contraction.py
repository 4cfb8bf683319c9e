"""Contractions keep their tile in registers: the machine code of the inner loop is counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import tensorwright as tw
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir.expr import Symbol, sym, symbols_of
from tensorwright.ir.graph import constant, graph, param
from tensorwright.ir.loop import For, If, Kernel, Store, statements
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.conv import conv_general
from tensorwright.ops.movement import pad
from tensorwright.target.host import find
from tensorwright.target.target import Target
from tests.schedule import test_native as groups
from tests.schedule.assembly import FMA, assembly, inner_loops

TARGETS = ("x86-64-avx512", "x86-64-avx2")


def product(rows, columns: int, depth: int, target: Target) -> Kernel:
    """The kernel of relu(x w + b), by plain products."""
    op, target = groups.OP, replace(target, fast_math=0)
    x = groups.x_of(rows, depth)
    made = op["matmul"](x, groups.weight(depth, columns))
    y = op["relu"](op["add"](made, groups.weight(columns)))
    lowered = run_pipeline(Module({"main": graph("main", [x], [y])}), target)
    (kernel,) = (k for k in lowered.kernels.values() if k.schedule[0].startswith("contraction"))
    return kernel


@pytest.mark.parametrize("columns", [768, 1000, 257])
@pytest.mark.parametrize("rows", [1, 6, 128, sym(Symbol("n", min=1))], ids=str)
@pytest.mark.parametrize("name", TARGETS)
def test_tiles_live_in_registers(name: str, rows, columns: int):
    target = find(name)
    found = inner_loops(assembly(product(rows, columns, 768, target), target))
    assert found
    for body in found:
        assert not [x for x in body if x.startswith("v") and "(%rsp" in x], "\n".join(body)
        fmas = sum(x.startswith(FMA) for x in body)
        few = rows == 1  # reading is what takes the time
        assert fmas >= (0.2 if few else 0.25) * len(body), "\n".join(body)


def test_one_row_reads_weights_in_narrow_panels():
    """Eight vectors at a time stay a tenth behind a plain read."""
    found = product(1, 2816, 1024, find("x86-64-avx512")).schedule[0]
    assert found.startswith("contraction: 1 x 2 x 16 ")


@pytest.mark.parametrize("name, lanes", [("x86-64-avx512", 16), ("x86-64-avx2", 8)])
@pytest.mark.parametrize("depth, rows", [(96, 14), (1000, 14), (1024, 8), (2048, 8)])
def test_rows_that_fall_into_one_cache_set_are_few(name: str, lanes: int, depth: int, rows: int):
    made = product(12544, lanes, depth, find(name)).schedule[0]
    assert made.startswith(f"contraction: {rows} x 1 x {lanes} ")


def test_few_columns_of_one_row_are_read_as_they_lie():
    """The values that a step of a decoder sums are operands: turning them into narrow panels takes
    longer than the product."""
    weights, values = groups.x_of(12, 1, 1024), param("values", tensor("f32", 12, 1024, 64))
    y = groups.OP["matmul"](weights, values)
    m = Module({"main": graph("main", [weights, values], [y])})
    assert len(run_pipeline(m, find("x86-64-avx512")).kernels) == 1


def test_blocks_of_rows_stay_parallel():
    """And the border of a padded result is told apart from the rows that leave no whole tile."""
    x, w = param("x", tensor("f32", 1, 56, 56, 256)), constant(np.ones((1, 1, 256, 128), "f4"), "w")
    y = pad(conv_general(x, w, layout="NLAST"), low=(0, 1, 1, 0), high=(0, 1, 1, 0))
    m = run_pipeline(Module({"main": graph("main", (x,), (y,))}), find("x86-64-avx512"))
    (kernel,) = m.kernels.values()
    nests = [s for s in kernel.body.body if isinstance(s, For)]
    product = [s for s in nests if isinstance(s.body, If) and not isinstance(s.body.then, Store)]
    assert [s.kind for s in product] == ["parallel"] and len(nests) > 1, kernel.schedule


@tw.function
def over_steps(x: tw.f32["steps", "batch", 40], w: tw.f32[40, 33]):  # noqa: F821
    return tw.numpy.tanh(tw.numpy.matmul(x, w))


@tw.function
def turned(x: tw.f32["batch", "steps", 40], w: tw.f32[40, 33]):  # noqa: F821
    return tw.numpy.matmul(tw.numpy.permute_dims(x, (1, 0, 2)), w)


@pytest.mark.parametrize("shape", [(1, 1), (37, 1), (1, 37), (6, 7), (5, 2)])
@pytest.mark.parametrize("f", [over_steps, turned], ids=["over_steps", "turned"])
def test_rows_of_unknown_number_fill_tiles(f, shape):
    """Rows that follow each other are those of one loop; else those that are near are a tile's."""
    program = tw.compile(f)
    (k,) = (k for k in program.lowered.kernels.values() if "contraction" in k.schedule[0])
    rows = {s.name for s in symbols_of(*(e for s in statements(k.body) if isinstance(s, If)
                                         for e in (s.cond,)))}  # fmt: skip
    assert "steps" in rows
    x = np.random.default_rng(0).standard_normal((*shape, 40)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((40, 33)).astype(np.float32)
    wanted = np.tanh(x @ w) if f is over_steps else x.transpose(1, 0, 2) @ w
    np.testing.assert_allclose(program(x, w), wanted, rtol=1e-4, atol=1e-5)


def grouped(channels: int, groups_: int, stride: int, target: Target) -> Kernel:
    """The kernel of a 3x3 convolution in groups."""
    size = 12 * stride + 2
    x = groups.x_of(1, size, size, channels * groups_)
    w = groups.weight(3, 3, channels, channels * groups_)
    y = groups.OP["conv_general"](x, w, strides=(stride,) * 2, groups=groups_, layout="NLAST")
    lowered = run_pipeline(Module({"main": graph("main", [x], [y])}), target)
    (kernel,) = lowered.kernels.values()
    return kernel


@pytest.mark.parametrize(
    ("channels", "stride", "share"), [(4, 1, 0.45), (8, 2, 0.34), (8, 3, 0.35)]
)
def test_groups_narrower_than_a_vector(channels: int, stride: int, share: float):
    """What a window slides over is loaded and permuted once for all that see it; where it does not
    slide, vectors are as narrow as groups and multiply single elements."""
    target = replace(find("x86-64-avx512"), fast_math=0)
    found = inner_loops(assembly(grouped(channels, 8, stride, target), target))
    assert found
    for body in found:
        assert not [x for x in body if x.startswith("v") and "(%rsp" in x], "\n".join(body)
        assert sum(x.startswith(FMA) for x in body) >= share * len(body), "\n".join(body)


@pytest.mark.parametrize("target", ["x86-64-avx512", "x86-64-avx2", "x86-64-sse4.2"])
@pytest.mark.parametrize(("channels", "outputs"), [(4, 4), (8, 8), (16, 32), (8, 12)])
@pytest.mark.parametrize("stride", [1, 2])
def test_groups_are_right(channels: int, outputs: int, stride: int, target: str):
    rng = np.random.default_rng(1)
    x, w = (rng.standard_normal(s).astype(np.float32)
            for s in ((2, 6 * channels, 15, 13), (6 * outputs, channels, 3, 3)))  # fmt: skip
    node = groups.x_of(*x.shape)
    y = groups.OP["conv_general"](
        node, constant(w, "w"), strides=(stride,) * 2, groups=6, padding=((1, 1), (1, 1))
    )
    m = Module({"main": graph("main", [node], [y])})
    found = np.asarray(tw.compile(m, target=target, fast_math=0)(x))
    exact = torch.nn.functional.conv2d(
        torch.tensor(x), torch.tensor(w), stride=stride, padding=1, groups=6
    )
    np.testing.assert_allclose(found, exact.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("width", "order"), [(7, "around"), (16, "inside")])
def test_turned_rows_that_share_lines_follow_each_other(width: int, order: str):
    """A thread stores all rows of its channels, not some rows of all of them."""
    x = groups.x_of(1, width, width, 64)  # nothing slides down, which would be another reason
    y = groups.OP["conv_general"](x, groups.weight(1, 1, 1, 64), groups=64, layout="NLAST")
    turned = groups.OP["transpose"](y, perm=(0, 3, 1, 2))
    m = Module({"main": graph("main", [x], [turned])})
    made = tw.compile(m, target="x86-64-avx512").schedules().records[-1]
    assert made.choices["panels"] == order, made
