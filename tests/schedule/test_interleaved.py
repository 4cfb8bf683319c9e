"""Maps whose operands take turns along a row, and lie the other way."""

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.codegen.llvm import ModuleText, emit_kernel
from tensorwright.ir import loop as ir
from tensorwright.ir.interp import run_graph, run_kernel
from tensorwright.ops.elementwise import mul
from tensorwright.ops.movement import concat, reshape, transpose
from tensorwright.schedule.rules import schedule
from tensorwright.schedule.space import Choices
from tensorwright.target.host import find
from tests.passes.equivalence import module, x_of
from tests.schedule.test_space import kernel_of

RNG = np.random.default_rng(5)


def joined(*xs):
    """[channels, parts * n] of which each operand [n, channels] is every parts-th column."""
    n, channels = xs[0].shape
    cells = concat(*(reshape(x, shape=(n, 1, channels)) for x in xs), axis=1)
    return transpose(reshape(cells, shape=(n * len(xs), channels)), perm=(1, 0))


def compiled(y, *params, **options):
    m = module(y, *params)
    program = tw.compile(m, **options)
    (kernel,) = program.lowered.kernels.values()
    return m, program, kernel


@pytest.mark.parametrize(("parts", "n", "channels"), [(2, 28, 64), (2, 14, 24), (3, 20, 12),
                                                      (4, 3, 16), (2, 5, 32)])  # fmt: skip
def test_blocks_of_operands_that_take_turns(parts, n, channels):
    xs = [x_of(n, channels, name=f"x{k}") for k in range(parts)]
    scale = x_of(channels, 1, name="scale")
    m, program, kernel = compiled(mul(joined(*xs), scale), *xs, scale)
    assert any("take turns" in s for s in kernel.schedule), kernel.schedule
    values = [RNG.standard_normal(p.shape).astype(np.float32) for p in (*xs, scale)]
    (expected,) = run_graph(m.main, values)
    np.testing.assert_array_equal(program(*values), expected)


@pytest.mark.parametrize(("n", "channels"), [(7, 13), (1, 16)])
def test_what_no_block_divides_stays_as_it_was(n, channels):
    """Vectors of channels need whole vectors, blocks whole turns."""
    xs = [x_of(n, channels, name=f"x{k}") for k in range(2)]
    m, program, kernel = compiled(joined(*xs), *xs)
    assert not any("take turns" in s for s in kernel.schedule), kernel.schedule
    values = [RNG.standard_normal(p.shape).astype(np.float32) for p in xs]
    (expected,) = run_graph(m.main, values)
    np.testing.assert_array_equal(program(*values), expected)


def test_no_element_is_fetched_by_itself():
    xs = [x_of(28, 64, name=f"x{k}") for k in range(2)]
    _, program, kernel = compiled(joined(*xs), *xs, target="x86-64-avx512")
    text = ModuleText()
    emit_kernel(kernel, text, program.target)
    assert "shufflevector" in text.text() and "masked.gather" not in text.text()


@pytest.mark.parametrize("block", [4, 8, 14])
def test_blocks_are_a_choice(block):
    xs = [x_of(28, 64, name=f"x{k}") for k in range(2)]
    k = kernel_of(joined(*xs), *xs)
    made = schedule(k, find("x86-64-avx512"), Choices({"block": block}))
    loops = {s.kind: s.extent.value for s in ir.statements(made.body) if isinstance(s, ir.For)}
    assert loops["unroll"] == block and loops["vector"] == 16
    values = [RNG.standard_normal(p.shape).astype(np.float32) for p in xs]
    np.testing.assert_array_equal(run_kernel(made, values)[0], run_kernel(k, values)[0])
