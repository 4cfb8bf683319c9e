"""Operands in the layout that scheduled kernels want: packed now, or by a kernel."""

import numpy as np

from tensorwright.ir.expr import var
from tensorwright.ir.graph import CONST, constant, graph, param
from tensorwright.ir.interp import run_module
from tensorwright.ir.loop import Pack
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.linalg import dot_general, matmul
from tensorwright.passes.expand import expand_composites
from tensorwright.passes.fuse import fuse
from tensorwright.passes.lower import lower
from tensorwright.passes.schedule_kernels import evaluate, pack_constant, packed, schedule_kernels
from tensorwright.runtime.copies import copy_all
from tensorwright.target.host import find
from tests.passes.equivalence import module, x_of

TARGET = find("x86-64-avx512")


HOST = find("host")


def scheduled(results, *params) -> tuple[Module, Module]:
    """A module of fused kernels, and the same scheduled."""
    before = lower(fuse(expand_composites(module(results, *params)), HOST))
    return before, schedule_kernels(before, TARGET)


def agree(before: Module, after: Module, *inputs) -> None:
    for a, b in zip(run_module(before, list(inputs)), run_module(after, list(inputs)), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def test_constants_are_packed_at_compile_time():
    x = x_of(12, 40)
    w = constant(random(40, 72), "w")
    before, after = scheduled(matmul(x, w), x)
    (call,) = after.main.results
    weights = call.args[1]
    assert weights.op is CONST and weights.name == "w.packed" and weights.rank == 3
    assert len(after.kernels) == len(before.kernels)
    agree(before, after, random(12, 40))


def test_inputs_are_packed_by_a_kernel():
    x, w = x_of(12, 40), x_of(40, 72, name="w")
    before, after = scheduled(matmul(x, w), x, w)
    assert len(after.kernels) == len(before.kernels) + 1
    agree(before, after, random(12, 40), random(40, 72))


def test_an_operand_is_packed_once_for_all_its_users():
    x, y, w = x_of(12, 40), x_of(12, 40, name="y"), x_of(40, 72, name="w")
    before, after = scheduled((matmul(x, w), matmul(y, w)), x, y, w)
    first, second = (r.args[1] for r in after.main.results)
    assert first is second
    agree(before, after, random(12, 40), random(12, 40), random(40, 72))


def test_symbolic_columns_are_padded_to_whole_panels():
    n = var("n", min=1, max=100)
    x = x_of(8, 16)
    w = param("w", tensor("f32", 16, n))
    before, after = scheduled(matmul(x, w), x, w)
    for size in (1, 63, 64, 65):
        agree(before, after, random(8, 16), random(16, size))


def test_every_kernel_says_how_it_was_scheduled():
    x, w = x_of(4, 8), constant(random(8, 16), "w")
    _, after = scheduled(matmul(x, w), x)
    assert all(k.schedule for k in after.kernels.values())


def test_bodies_of_control_flow_are_packed_too():
    from tensorwright.ops.control import if_

    c, x = param("c", tensor("bool")), x_of(8, 16)
    w = constant(random(16, 44), "w")
    p, q = x_of(8, 16, name="p"), x_of(8, 16, name="q")
    then = graph("then", [p], [matmul(p, w)])
    other = graph("other", [q], [matmul(q, constant(random(16, 44) + 1, "v"))])
    before, after = scheduled(if_(c, x, then=then, orelse=other), c, x)
    branch = after.main.results[0].attrs["then"]
    assert branch.results[0].args[1].rank == 3
    for flag in (True, False):
        agree(before, after, np.array(flag), random(8, 16))


def test_packed_is_a_layout():
    """Panels of `width` columns: element [k, j] lands at [j // width, k, j % width]."""
    w = random(3, 10)
    p = param("w", tensor("f32", 3, 10))
    spec = Pack(param=0, axis=1, width=4, lead=(), rest=(0,))
    found = evaluate(packed(p, spec), w)
    expected = np.zeros((3, 12), np.float32)
    expected[:, :10] = w
    expected = expected.reshape(3, 3, 4).transpose(1, 0, 2)
    np.testing.assert_array_equal(found, expected)
    copies = []
    made = pack_constant(w, spec, copies)  # full panels are views, the last one is copied already
    assert [target.shape for target, _ in copies] == [(2, 3, 4)]
    copy_all(copies)
    np.testing.assert_array_equal(made, expected)


def test_batches_of_products():
    x, w = x_of(2, 6, 8), constant(random(2, 8, 20), "w")
    y = dot_general(x, w, contract=((2,), (1,)), batch=((0,), (0,)))
    before, after = scheduled(y, x)
    agree(before, after, random(2, 6, 8))
