"""Elementwise operators: arithmetic, comparison, logic, mathematical functions, casts.

Operands broadcast by NumPy's rules and must have one element type.
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dtype import FLOATS, NUMERIC
from tensorwright.ir.expr import binary, compare, const, unary
from tensorwright.ops.define import (
    elementwise,
    predicate,
)  # fmt: skip

UNARY_SAMPLES = ("f32[3,4]", "f32[n,5] n=1,7", "f32[0,3]", "f64[2,3]", "f16[9]", "bf16[9]")
BINARY_SAMPLES = (
    "f32[3,4] f32[3,4]", "f32[n,4] f32[4] n=1,5", "f32[2,1,3] f32[4,1]", "f32[0,2] f32[2]",
    "f32[] f32[5]", "f64[3] f64[3]", "f16[9] f16[9]", "bf16[9] bf16[9]", "i32[7] i32[7]",
)  # fmt: skip

add = elementwise(
    "add", lambda x, y: x + y, "x, y", reference=np.add, dtypes=NUMERIC,
    gradient=lambda g, z, x, y: (g, g), onnx="Add", torch="add.Tensor", samples=BINARY_SAMPLES,
)  # fmt: skip
sub = elementwise(
    "sub", lambda x, y: binary("sub", x, y), "x, y", reference=np.subtract, dtypes=NUMERIC,
    gradient=lambda g, z, x, y: (g, neg(g)), onnx="Sub", samples=BINARY_SAMPLES,
)  # fmt: skip
mul = elementwise(
    "mul", lambda x, y: x * y, "x, y", reference=np.multiply, dtypes=NUMERIC,
    gradient=lambda g, z, x, y: (mul(g, y), mul(g, x)), onnx="Mul", torch="mul.Tensor",
    samples=BINARY_SAMPLES,
)  # fmt: skip
neg = elementwise(
    "neg", lambda x: unary("neg", x), reference=np.negative, dtypes=NUMERIC,
    gradient=lambda g, y, x: (neg(g),), onnx="Neg", torch="neg.default", samples=UNARY_SAMPLES,
)  # fmt: skip
exp = elementwise(
    "exp", lambda x: unary("exp", x), reference=np.exp, dtypes=FLOATS,
    gradient=lambda g, y, x: (mul(g, y),), onnx="Exp", torch="exp.default", samples=UNARY_SAMPLES,
)  # fmt: skip
less = predicate(
    "less", lambda x, y: compare("lt", x, y), "x, y", reference=np.less, onnx="Less",
    samples=BINARY_SAMPLES,
)  # fmt: skip
maximum = elementwise(
    "maximum", lambda x, y: binary("max", x, y), "x, y", reference=np.maximum, dtypes=NUMERIC,
    samples=BINARY_SAMPLES,
)  # fmt: skip
relu = elementwise(
    "relu", lambda x: binary("max", x, const(0, x.dtype)), reference=lambda x: np.maximum(x, 0),
    onnx="Relu", torch="relu.default", samples=UNARY_SAMPLES,
)  # fmt: skip
