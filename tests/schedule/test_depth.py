"""Reductions in blocks: where they are chosen, what is asked for ahead, and that sums are right."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

import tensorwright as tw
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir.dtype import f32
from tensorwright.ir.graph import constant, graph
from tensorwright.ir.interp import run_module
from tensorwright.ir.loop import Alloc, For, Kernel, statements
from tensorwright.ir.module import Module
from tensorwright.schedule import primitives as p
from tensorwright.schedule.legal import ScheduleError
from tensorwright.schedule.primitives_nests import carry
from tensorwright.target.host import find
from tests.schedule.assembly import assembly
from tests.schedule.nests import assert_same, loop_of, product_kernel
from tests.schedule.test_ahead import asked
from tests.schedule.test_native import OP, RANDOM, weight, x_of

WIDE = find("x86-64-avx512-wide")
TINY = replace(WIDE, caches=(24 << 10, 32 << 10, 1 << 20), cores=1)  # blocks of 32 steps


def layer(rows: int, depth: int, columns: int) -> Module:
    x = x_of(rows, depth)
    y = OP["relu"](OP["add"](OP["matmul"](x, weight(depth, columns)), weight(columns)))
    return Module({"main": graph("main", [x], [y])})


def kernel_of(m: Module, target=WIDE) -> Kernel:
    kernels = run_pipeline(m, target).kernels.values()
    return next(k for k in kernels if any("tile" in s for s in k.schedule))


def blocks_of(k: Kernel) -> list[For]:
    """The loops over blocks: around another loop of the same reduction."""
    return [f for f in statements(k.body) if isinstance(f, For) and f.var.name.endswith("o")
            and any(isinstance(g, For) and g.var.name == f.var.name[:-1] + "i" and
                    g.kind == "serial" for g in statements(f.body))]  # fmt: skip


@pytest.mark.parametrize("rows, depth, columns, target, wanted", [
    (8, 1024, 2048, WIDE, True),
    (16, 1024, 1024, WIDE, True),
    (48, 1024, 1024, WIDE, False),
    (16, 256, 256, WIDE, False),
    (16, 2048, 128, WIDE, False),  # few tasks
    (1, 1024, 2048, WIDE, False),
    (2, 1024, 2048, WIDE, False),
    (16, 1024, 1024, find("aarch64"), False),
])  # fmt: skip
def test_few_rows_by_many_weights(rows, depth, columns, target, wanted):
    assert bool(blocks_of(kernel_of(layer(rows, depth, columns), target))) == wanted


def test_winograd_reads_weights_again():
    x = x_of(1, 16, 16, 256)
    y = OP["conv_general"](x, weight(3, 3, 256, 256), layout="NLAST")
    k = kernel_of(Module({"main": graph("main", [x], [y])}))
    assert "transformed" in k.schedule[0] and not blocks_of(k)


def test_sums_are_kept_between_blocks_where_tiles_share_them():
    kept = {rows: [b.shape for s in statements(kernel_of(layer(rows, 1024, 1024)).body)
                   if isinstance(s, Alloc) and (b := s.buffer).shape[0] == rows]
            for rows in (7, 16)}  # fmt: skip
    assert not kept[7] and len(kept[16]) == 1


@pytest.mark.parametrize("rows", [7, 16])
def test_every_line_of_the_next_block_is_asked_for(rows):
    k = kernel_of(layer(rows, 256, 1024), replace(WIDE, caches=(48 << 10, 1 << 20, 2 << 20)))
    panels, depth, width = k.inputs[1].shape
    (steps,) = {depth // f.extent.value for f in blocks_of(k)}
    lines = {(j, r, c) for j in range(panels) for r in range(depth) for c in range(0, width, 16)}
    first = {(0, r, c) for r in range(steps) for c in range(0, width, 16)}
    first |= {(panels // 2, r, c) for r in range(steps) for c in range(0, width, 16)}
    places = {place for place in asked(k.body, {}) if len(place) == 3}
    assert lines - first <= places <= lines


@pytest.mark.parametrize("rows", [7, 8, 13, 16])
@pytest.mark.parametrize("columns", [384, 400])
def test_sums_are_right(rows, columns):
    m = layer(rows, 192, columns)
    x = RANDOM.integers(-3, 4, (rows, 192)).astype(np.float32)
    lowered = run_pipeline(m, TINY)
    assert any(map(blocks_of, lowered.kernels.values()))
    (y,), (wanted,) = run_module(lowered, [x]), run_module(m, [x])
    np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("rows", [7, 16])
def test_pairs_of_bf16(rows):
    x, w = x_of(rows, 256, d="bf16"), weight(256, 320)
    narrow = constant(w.attrs["value"].astype(ml_dtypes.bfloat16))
    y = OP["dot_general"](x, narrow, contract=((1,), (0,)), dtype=f32)
    m = Module({"main": graph("main", [x], [y])})
    value = RANDOM.integers(-3, 4, (rows, 256)).astype(ml_dtypes.bfloat16)
    lowered = run_pipeline(m, TINY)
    assert any(map(blocks_of, lowered.kernels.values()))
    np.testing.assert_array_equal(run_module(lowered, [value])[0], value @ w.attrs["value"])


@pytest.mark.parametrize("rows", [8, 16, 21])
def test_native_results(rows):
    m = layer(rows, 640, 1030)
    x = RANDOM.integers(-3, 4, (rows, 640)).astype(np.float32)
    np.testing.assert_array_equal(tw.compile(m, threads=2)(x), run_module(m, [x])[0])


@pytest.mark.parametrize("sizes", [(3, 4, 5), ("n", 2, 7)])
def test_carry(sizes):
    k = product_kernel(*sizes)
    assert_same(k, carry(k.body, loop_of(k, "r")), 6)


def test_carry_refuses_what_moves():
    k = product_kernel(3, 4, 5)
    with pytest.raises(ScheduleError, match="more than one element of z"):
        carry(p.fission(k.body, loop_of(k, "j")), loop_of(k, "r"))


def test_what_follows_the_sums_may_use_them_more_than_once():
    x = x_of(16, 192)
    y = OP["gelu"](OP["matmul"](x, weight(192, 384)))
    m = Module({"main": graph("main", [x], [y])})
    lowered, values = run_pipeline(m, TINY), RANDOM.standard_normal((16, 192), np.float32)
    (k,) = filter(blocks_of, lowered.kernels.values())
    assert "vfmadd" in assembly(k, TINY)
    (y,), (wanted,) = run_module(lowered, [values]), run_module(m, [values])
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-4)


def test_images_that_share_a_panel_are_rows_enough():
    x = x_of(14, 14, 384)
    y = OP["gelu"](OP["matmul"](x, weight(384, 1536)))
    assert not blocks_of(kernel_of(Module({"main": graph("main", [x], [y])})))
