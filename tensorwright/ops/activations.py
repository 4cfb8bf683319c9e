"""Activations: composites of elementwise operators that stay whole until something expands them.

The simplest ones are primitives. In f16 and bf16 a composite is computed in f32 and rounded once.

    silu(x)  ->  x * sigmoid(x)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tensorwright.ir.dtype import FLOATS, NUMERIC
from tensorwright.ir.expr import Expr, binary, compare, const
from tensorwright.ir.expr import select as select_expr
from tensorwright.ir.graph import Node
from tensorwright.ir.op import OpDef, attribute_defaults
from tensorwright.ir.type import TensorType, dim_text
from tensorwright.ops import reference as ref
from tensorwright.ops.define import (
    check_dtype,
    define,
    elementwise,
    require,
    same_dtype,
    scalar_like,
)  # fmt: skip
from tensorwright.ops.elementwise import (
    abs,
    add,
    div,
    erf,
    exp,
    expm1,
    greater,
    log1p,
    maximum,
    minimum,
    mul,
    neg,
    select,
    sigmoid,
    sub,
    tanh,
)  # fmt: skip
from tensorwright.ops.widen import to_dtype, widened

SAMPLES = ("f32[3,4]", "f64[n,5] n=1,3", "f32[0,3]", "f64[]", "f16[17]", "bf16[17]")
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def activation(name: str, formula: Callable[..., Node], reference: Callable, **columns) -> OpDef:
    """A composite row of one operand: `formula` of nodes, with its attributes keyword-only."""

    def infer(x: TensorType, **attrs) -> TensorType:
        check_dtype(name, x, FLOATS)
        return x

    def expand(x: Node, **attrs) -> Node:
        return to_dtype(formula(widened(x), **attrs), x.dtype)

    columns.setdefault("samples", SAMPLES)
    op = define(name, "x", infer=infer, expand=expand, reference=ref.oracle(reference),
                dtypes=FLOATS, **columns)  # fmt: skip
    op.defaults.update(attribute_defaults(formula))
    return op


def with_attrs(*variants: str) -> tuple[str, ...]:
    """The usual samples, and one for each choice of attributes."""
    return (*SAMPLES, *(f"f64[3,5] {v}" for v in variants))


def _zero_like(x: Node) -> Node:
    return scalar_like(x, 0)


# ---- piecewise linear --------------------------------------------------------------------------

relu = elementwise(
    "relu", lambda x: binary("max", x, const(0, x.dtype)), dtypes=NUMERIC,
    reference=lambda x: np.maximum(x, np.zeros((), x.dtype)),
    gradient=lambda g, y, x: (select(greater(x, _zero_like(x)), g, _zero_like(g)),), onnx="Relu",
    torch="relu.default", samples=(*SAMPLES, "i32[7]"), doc="max(x, 0).",
)  # fmt: skip


def _leaky_scalar(x: Expr, *, alpha: float = 0.01) -> Expr:
    negative = compare("lt", x, const(0, x.dtype))
    return select_expr(negative, binary("mul", x, const(alpha, x.dtype)), x)


def _leaky_gradient(g, y, x, *, alpha):
    return (select(greater(x, _zero_like(x)), g, mul(g, alpha)),)


leaky_relu = elementwise(
    "leaky_relu", _leaky_scalar, dtypes=FLOATS, gradient=_leaky_gradient, onnx="LeakyRelu",
    reference=ref.oracle(lambda x, alpha=0.01: np.where(x < 0, alpha * x, x)),
    torch="leaky_relu.default", samples=with_attrs("alpha=0.3"),
    doc="x, with negative values scaled by alpha.",
)  # fmt: skip


def _clamp_scalar(x: Expr, *, low=None, high=None) -> Expr:
    if low is not None:
        x = binary("max", x, const(low, x.dtype))
    return x if high is None else binary("min", x, const(high, x.dtype))


def _clamp_reference(x, low=None, high=None):
    x = x if low is None else np.maximum(x, np.asarray(low, x.dtype))
    return x if high is None else np.minimum(x, np.asarray(high, x.dtype))


def _clamp_gradient(g, y, x, *, low, high):
    """What the limits cut off passes nothing on."""
    for limit, inside in ((low, greater), (high, lambda a, b: greater(b, a))):
        if limit is not None:
            g = select(inside(x, scalar_like(x, limit)), g, _zero_like(g))
    return (g,)


clamp = elementwise(
    "clamp", _clamp_scalar, reference=_clamp_reference, dtypes=NUMERIC, gradient=_clamp_gradient,
    torch="clamp.default",
    samples=("f32[3,4] low=0 high=6", "f64[n] low=-1.0 n=1,5", "f64[3,4] high=0.5", "i32[9] low=-3 "
             "high=40", "f16[9] low=-0.1 high=0.1", "f32[0] low=0"),
    doc="x limited to [low, high]; a limit that is None does not limit; high wins over low.",
)  # fmt: skip
hard_sigmoid = activation(
    "hard_sigmoid",
    lambda x, *, alpha=0.2, beta=0.5: clamp(add(mul(x, alpha), beta), low=0.0, high=1.0),
    lambda x, alpha=0.2, beta=0.5: np.clip(alpha * x + beta, 0, 1), onnx="HardSigmoid",
    samples=with_attrs("alpha=0.1666 beta=0.4"), doc="alpha * x + beta limited to [0, 1].",
)  # fmt: skip
hard_swish = activation(
    "hard_swish", lambda x: mul(x, hard_sigmoid(x, alpha=1 / 6, beta=0.5)),
    lambda x: x * np.clip(x / 6 + 0.5, 0, 1), onnx="HardSwish", torch="hardswish.default",
    doc="x * hard_sigmoid(x) with alpha = 1/6, beta = 1/2.",
)  # fmt: skip
thresholded_relu = activation(
    "thresholded_relu",
    lambda x, *, alpha=1.0: select(greater(x, scalar_like(x, alpha)), x, _zero_like(x)),
    lambda x, alpha=1.0: np.where(x > alpha, x, 0), onnx="ThresholdedRelu",
    samples=with_attrs("alpha=-0.5"), doc="x where it exceeds alpha, else 0.",
)  # fmt: skip


def _shrink(x: Node, *, bias: float = 0.0, lambd: float = 0.5) -> Node:
    above = select(greater(x, scalar_like(x, lambd)), sub(x, bias), _zero_like(x))
    return select(greater(scalar_like(x, -lambd), x), add(x, bias), above)


shrink = activation(
    "shrink", _shrink,
    lambda x, bias=0.0, lambd=0.5: np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0)),
    onnx="Shrink", samples=with_attrs("bias=0.5", "lambd=1.25", "lambd=-1 bias=1.5"),
    doc="x moved to 0 by bias, and 0 within lambd of it.",
)  # fmt: skip

# ---- exponential -------------------------------------------------------------------------------


def _elu_reference(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _negative_part(x: Node) -> Node:
    """min(x, 0): keeps the branch that is not taken from overflowing."""
    return minimum(x, 0.0)


elu = activation(
    "elu", lambda x, *, alpha=1.0: select(
        greater(x, _zero_like(x)), x, mul(expm1(_negative_part(x)), alpha)),
    _elu_reference, onnx="Elu", torch="elu.default", samples=with_attrs("alpha=0.5"),
    doc="x where positive, else alpha * (exp(x) - 1).",
)  # fmt: skip
selu = activation(
    "selu", lambda x, *, alpha=SELU_ALPHA, gamma=SELU_SCALE: mul(elu(x, alpha=alpha), gamma),
    lambda x, alpha=SELU_ALPHA, gamma=SELU_SCALE: gamma * _elu_reference(x, alpha), onnx="Selu",
    samples=with_attrs("alpha=2.0 gamma=3.0"), doc="gamma * elu(x, alpha), self-normalizing.",
)  # fmt: skip
celu = activation(
    "celu", lambda x, *, alpha=1.0: select(
        greater(x, _zero_like(x)), x, mul(expm1(_negative_part(div(x, alpha))), alpha)),
    lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(np.minimum(x / alpha, 0))),
    onnx="Celu", torch="celu.default", samples=with_attrs("alpha=0.5"),
    doc="x where positive, else alpha * (exp(x / alpha) - 1).",
)  # fmt: skip


def _softplus(x: Node) -> Node:
    """max(x, 0) + log(1 + exp(-|x|)), which never overflows."""
    return add(maximum(x, 0.0), log1p(exp(neg(abs(x)))))


def _softplus_gradient(g, y, x):
    return (mul(g, sigmoid(x)),)


softplus = activation(
    "softplus", _softplus, lambda x: np.logaddexp(x, 0), gradient=_softplus_gradient,
    onnx="Softplus", doc="log(1 + exp(x)).",
)  # fmt: skip
softsign = activation(
    "softsign", lambda x: div(x, add(abs(x), 1.0)), lambda x: x / (1 + np.abs(x)), onnx="Softsign",
    doc="x / (1 + |x|).",
)  # fmt: skip
silu = activation(
    "silu", lambda x: mul(x, sigmoid(x)), lambda x: x * ref.sigmoid(x), torch="silu.default",
    doc="x * sigmoid(x).",
)  # fmt: skip
swish = activation(
    "swish", lambda x, *, alpha=1.0: mul(x, sigmoid(mul(x, alpha))),
    lambda x, alpha=1.0: x * ref.sigmoid(alpha * x), onnx="Swish",
    samples=with_attrs("alpha=1.702"), doc="x * sigmoid(alpha * x).",
)  # fmt: skip
quick_gelu = activation(
    "quick_gelu", lambda x: swish(x, alpha=1.702), lambda x: x * ref.sigmoid(1.702 * x),
    doc="x * sigmoid(1.702 * x).",
)  # fmt: skip
mish = activation(
    "mish", lambda x: mul(x, tanh(softplus(x))), lambda x: x * np.tanh(np.logaddexp(x, 0)),
    onnx="Mish", torch="mish.default", doc="x * tanh(softplus(x)).",
)  # fmt: skip


def _gelu(x: Node, *, approximate: str = "none") -> Node:
    require(approximate in ("none", "tanh"), f"gelu: approximate is {approximate!r}",
            'it is "none" or "tanh"')  # fmt: skip
    if approximate == "tanh":
        twice = 2 * math.sqrt(2 / math.pi)  # (1 + tanh(a)) / 2 = sigmoid(2 a)
        return mul(x, sigmoid(mul(x, add(mul(mul(x, x), 0.044715 * twice), twice))))
    inner = erf(mul(x, math.sqrt(0.5)))
    return mul(mul(x, 0.5), add(inner, 1.0))


def _gelu_reference(x, approximate="none"):
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + ref.erf(x * math.sqrt(0.5)))


gelu = activation(
    "gelu", _gelu, _gelu_reference, onnx="Gelu", torch="gelu.default",
    samples=(*with_attrs("approximate=tanh"), "f16[9] approximate=tanh"),
    doc="x times the chance that a normal variable is below x, or its approximation by tanh.",
)  # fmt: skip
square = elementwise(
    "square", lambda x: binary("mul", x, x), dtypes=NUMERIC, reference=lambda x: x * x,
    gradient=lambda g, y, x: (mul(mul(g, x), 2.0),), samples=(*SAMPLES, "i32[7]"), doc="x * x.",
)  # fmt: skip

# ---- with a learned slope ----------------------------------------------------------------------


def _infer_prelu(x: TensorType, slope: TensorType) -> TensorType:
    check_dtype("prelu", x, NUMERIC)
    same_dtype("prelu", x, slope)
    tail = x.shape[x.rank - slope.rank :] if slope.rank <= x.rank else None
    fits = tail is not None and all(a in (1, b) for a, b in zip(slope.shape, tail))
    require(fits, f"prelu: the slope {_text(slope)} does not broadcast to x, which is {_text(x)}",
            "a slope per channel needs dimensions of size 1 behind the channel")  # fmt: skip
    return x


def _text(t: TensorType) -> str:
    return f"({', '.join(map(dim_text, t.shape))})"


prelu = define(
    "prelu", "x, slope", infer=_infer_prelu, dtypes=NUMERIC, onnx="PRelu",
    expand=lambda x, slope: select(greater(x, _zero_like(x)), x, mul(x, slope)),
    reference=lambda x, slope: np.where(x > 0, x, x * slope),
    samples=("f32[3,4] f32[4]", "f64[2,n,3] f64[n,1] n=1,4", "f64[3] f64[]", "f32[0,2] f32[2]",
             "i32[5] i32[1]", "f16[5] f16[5]"),
    doc="x, with negative values scaled by a slope that broadcasts to it.",
)  # fmt: skip
