"""Cleaning until nothing changes."""

import numpy as np

from tensorwright.ir.graph import constant
from tensorwright.ops.elementwise import add, mul, pow
from tensorwright.ops.movement import broadcast_to, transpose
from tensorwright.ops.norm import rms_norm
from tensorwright.passes.expand import expand_composites
from tensorwright.passes.simplify import clean, repeated, simplify
from tests.passes.equivalence import check_pass, module, x_of

W = np.arange(12, dtype=np.float32).reshape(3, 4) + 1


def test_one_pass_makes_work_for_another():
    x = x_of(4, 3)
    w = transpose(broadcast_to(constant(W), shape=(3, 4)), perm=(1, 0))
    y = add(mul(x, w), mul(x, constant(np.ascontiguousarray(W.T))))
    after = check_pass(clean, module(y, x), ["mul", "add"], tol=0)
    assert len([n for n in after.main.nodes() if n.op.name == "const"]) == 1


def test_arithmetic_then_cleaning():
    x = x_of(4, 3)
    m = expand_composites(module(rms_norm(mul(pow(x, 1.0), 1.0), constant(W[:, 0].copy())), x))
    check_pass(simplify, m, ["mul", "reduce_sum", "mul", "add", "rsqrt", "mul", "mul"], tol=1e-6)


def test_repetition_is_bounded():
    calls = []

    def endless(m):
        calls.append(m)
        return module(x_of(1), x_of(1, name="y"))

    x = x_of(1)
    repeated(module(x, x), endless)
    assert len(calls) == 8
