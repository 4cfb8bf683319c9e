"""What host functions announce to kernels: which weights, and where threads begin with them."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir.expr import Symbol, sym
from tensorwright.ir.graph import graph
from tensorwright.ir.loop import Announce, Call, Kernel, Stmt, statements
from tensorwright.ir.module import Module
from tensorwright.memory.plan import plan_memory
from tensorwright.passes.announce import announce, distance
from tensorwright.passes.host import lower_entry
from tensorwright.target.host import find
from tests.schedule.test_native import OP, weight, x_of

TARGET = replace(find("x86-64-avx512-wide"), fast_math=0)


def announced(y, x, target=TARGET) -> tuple[list[Stmt], dict[str, Kernel]]:
    """The announcements and calls of a program, and its kernels."""
    m = run_pipeline(Module({"main": graph("main", [x], [y])}), target)
    host = announce(plan_memory(lower_entry(m, {}, "main")), m.kernels, target)
    return [s for s in statements(host.body) if isinstance(s, (Announce, Call))], m.kernels


def layers(rows, *sizes: int):
    x = y = x_of(rows, sizes[0])
    for depth, columns in pairwise(sizes):
        y = OP["relu"](OP["matmul"](y, weight(depth, columns)))
    return y, x


def test_each_product_is_told_of_the_weights_of_the_next_and_the_last_of_the_first():
    found, _ = announced(*layers(64, 384, 256, 512, 384))
    said, calls = found[::2], found[1::2]
    assert all(isinstance(s, Announce) for s in said) and len(calls) == 3
    weights = [next(b for b in c.buffers if b.scope == "const") for c in calls]
    assert [s.buffer for s in said] == [*weights[1:], weights[0]]


@pytest.mark.parametrize("rows", [64, sym(Symbol("n", min=1))])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_second_thread_begins_in_the_middle(rows, threads):
    found, _ = announced(*layers(rows, 384, 512, 384), TARGET.with_cores(threads))
    for said in (s for s in found if isinstance(s, Announce)):
        size = said.buffer.shape[0] * said.buffer.shape[1] * said.buffer.shape[2] * 4
        assert said.stride == size // 2 if threads == 2 else said.stride in (0, size)


@pytest.mark.parametrize("threads", [1, 2])
def test_columns_at_all_points_are_announced(threads):
    """Products of quarters read weights once, each thread its own columns."""
    found, kernels = announced(*layers(128, 768, 1536, 768),
                               replace(TARGET, fast_math=1).with_cores(threads))  # fmt: skip
    assert all("columns by" in k.schedule[0] for k in kernels.values())
    said = [s for s in found if isinstance(s, Announce)]
    for s in said:
        size = math.prod(s.buffer.shape) * 4
        assert s.buffer.shape[1] == 7
        assert s.stride == size // 2 if threads == 2 else s.stride in (0, size)
    assert len(said) == 2


def test_threads_that_read_all_weights_begin_at_the_same():
    """Tiles of Winograd's transformed images are shared out, each of which reads all weights."""
    x = x_of(1, 28, 28, 64)
    y = OP["conv_general"](x, weight(3, 3, 64, 64), layout="NLAST")
    target = replace(TARGET, fast_math=1)
    kernels = run_pipeline(Module({"main": graph("main", [x], [y])}), target).kernels
    k = next(k for k in kernels.values() if "transformed" in str(k.schedule))
    assert distance(k, 1, 2) == 0


def test_small_weights_are_not_announced():
    found, _ = announced(*layers(64, 64, 64, 64))
    assert not any(isinstance(s, Announce) for s in found)


def test_kernels_that_ask_for_nothing_are_told_nothing():
    found, _ = announced(*layers(1, 768, 768, 768))
    assert not any(isinstance(s, Announce) for s in found)
    found, _ = announced(*layers(64, 768, 768, 768), replace(find("aarch64"), cores=2))
    assert not any(isinstance(s, Announce) for s in found)
