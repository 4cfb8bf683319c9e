"""ONNX operators that work element by element: arithmetic, logic, casts, activations.

Up to opset 6 the second operand of binary operators is broadcast along an `axis`; since opset 7 by
NumPy's rules. ONNX divides integers rounding to zero, and `Mod` is floored unless `fmod` is set.
"""

from __future__ import annotations

import numpy as np

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import Array, Call, converter
from tensorwright.frontend.onnx_tensor import element_type
from tensorwright.frontend.size_checks import equal_sizes
from tensorwright.ir.dtype import SUBBYTE, DType, boolean, f8e8m0, f32, i32, promote, u8
from tensorwright.ir.graph import Node, array_of, constant
from tensorwright.ir.op import OpDef
from tensorwright.ir.type import Dim

UNARY = {
    "Abs": ops.abs, "Acos": ops.acos, "Acosh": ops.acosh, "Asin": ops.asin, "Asinh": ops.asinh,
    "Atan": ops.atan, "Atanh": ops.atanh, "BitwiseNot": ops.bitwise_not, "Ceil": ops.ceil,
    "Cos": ops.cos, "Cosh": ops.cosh, "Erf": ops.erf, "Exp": ops.exp, "Floor": ops.floor,
    "IsNaN": ops.is_nan, "Log": ops.log, "Neg": ops.neg, "Not": ops.logical_not,
    "Reciprocal": ops.reciprocal, "Round": ops.round, "Sigmoid": ops.sigmoid, "Sign": ops.sign,
    "Sin": ops.sin, "Sinh": ops.sinh, "Sqrt": ops.sqrt, "Tan": ops.tan, "Tanh": ops.tanh,
    "Relu": ops.relu, "HardSwish": ops.hard_swish, "Mish": ops.mish,
    "Softplus": ops.softplus, "Softsign": ops.softsign,
}  # fmt: skip
BINARY = {
    "Add": ops.add, "Sub": ops.sub, "Mul": ops.mul, "And": ops.logical_and, "Or": ops.logical_or,
    "Xor": ops.logical_xor, "Equal": ops.equal, "Greater": ops.greater, "Less": ops.less,
    "GreaterOrEqual": ops.greater_equal, "LessOrEqual": ops.less_equal,
    "BitwiseAnd": ops.bitwise_and, "BitwiseOr": ops.bitwise_or, "BitwiseXor": ops.bitwise_xor,
}  # fmt: skip


def _unary(op: OpDef):
    def convert(c: Call, x: Node, *, consumed_inputs: object = None) -> Node:
        return op(x)

    return convert


def _binary(op: OpDef):
    def convert(
        c: Call, x: Node, y: Node, *, broadcast: int = 0, axis: int = -1,
        consumed_inputs: object = None,
    ) -> Node:  # fmt: skip
        return op(*fitted(x, aligned(c, x, y, axis)))

    return convert


def fitted(x: Node, y: Node) -> tuple[Node, Node]:
    """Both operands, where one has a size that only its data tells, as with the elements of a
    sequence: taken to be that of the other, which the program checks."""
    rank = min(x.rank, y.rank)
    for k in range(-rank, 0):
        a, b = x.shape[k], y.shape[k]
        if a == b or 1 in (a, b):
            continue
        if _of_data(b):
            y = _resized(y, k, a)
        elif _of_data(a):
            x = _resized(x, k, b)
    return x, y


def _of_data(d: Dim) -> bool:
    return not isinstance(d, int) and d.op == "sym" and d.value.origin is not None


def _resized(x: Node, axis: int, size: Dim) -> Node:
    shape, starts = list(x.shape), [constant(np.array([0]))] * x.rank
    same = equal_sizes(shape[axis], size, f"dimension {axis} of an operand")
    starts[axis] = ops.size(dims=(same,))
    shape[axis] = size
    return ops.dynamic_slice(x, ops.concat(*starts, axis=0), sizes=tuple(shape))


def aligned(c: Call, x: Node, y: Node, axis: int) -> Node:
    """The second operand as opsets below 7 broadcast it: its dimensions start at `axis` of x."""
    if c.opset >= 7 or axis < 0 or y.rank == 0 or axis + y.rank >= x.rank:
        return y
    return ops.reshape(y, shape=(*y.shape, *(1,) * (x.rank - axis - y.rank)))


for _name, _op in UNARY.items():
    converter(_name)(_unary(_op))
for _name, _op in BINARY.items():
    converter(_name)(_binary(_op))


@converter("Div")
def div(c: Call, x: Node, y: Node, *, broadcast: int = 0, axis: int = -1,
        consumed_inputs: object = None) -> Node:  # fmt: skip
    x, y = fitted(x, aligned(c, x, y, axis))
    return ops.div(x, y) if x.dtype.is_float else ops.trunc_div(x, y)


@converter("Mod")
def mod(c: Call, x: Node, y: Node, *, fmod: int = 0) -> Node:
    return ops.rem(x, y) if fmod else ops.mod(x, y)


@converter("Pow")
def power(c: Call, x: Node, y: Node, *, broadcast: int = 0, axis: int = -1) -> Node:
    y = aligned(c, x, y, axis)
    if x.dtype is y.dtype:
        return ops.pow(x, y)
    wide = x.dtype if x.dtype.is_float else promote(x.dtype, y.dtype)
    result = ops.pow(ops.cast(x, dtype=wide), ops.cast(y, dtype=wide))
    return ops.cast(result, dtype=x.dtype)


@converter("BitShift")
def bit_shift(c: Call, x: Node, y: Node, *, direction: str) -> Node:
    if direction not in ("LEFT", "RIGHT"):
        raise c.fail(f"direction is {direction!r}, not LEFT or RIGHT")
    return ops.shift_left(x, y) if direction == "LEFT" else ops.shift_right(x, y)


@converter("IsInf")
def is_inf(c: Call, x: Node, *, detect_negative: int = 1, detect_positive: int = 1) -> Node:
    return ops.is_inf(
        x, detect_positive=bool(detect_positive), detect_negative=bool(detect_negative)
    )


@converter("Where")
def where(c: Call, condition: Node, x: Node, y: Node) -> Node:
    return ops.select(condition, x, y)


def _fold(op: OpDef):
    def convert(c: Call, *xs: Node, consumed_inputs: object = None) -> Node:
        if not xs:
            raise c.fail("it has no inputs")
        result = xs[0]
        for x in xs[1:]:
            result = op(*fitted(result, x))
        return result

    return convert


converter("Sum")(_fold(ops.add))
converter("Max")(_fold(ops.maximum))
converter("Min")(_fold(ops.minimum))


@converter("Mean")
def mean(c: Call, *xs: Node, consumed_inputs: object = None) -> Node:
    return ops.div(_fold(ops.add)(c, *xs), float(len(xs)))


# ---- types -------------------------------------------------------------------------------------

LEGACY_TYPES = {
    "FLOAT": 1, "UINT8": 2, "INT8": 3, "UINT16": 4, "INT16": 5, "INT32": 6, "INT64": 7, "BOOL": 9,
    "FLOAT16": 10, "DOUBLE": 11, "UINT32": 12, "UINT64": 13,
}  # fmt: skip


def tensor_dtype(c: Call, number: int) -> DType:
    """The element type that an attribute names."""
    found = element_type(number)
    if found == "string":
        raise c.fail("strings are not supported")
    return found


@converter("Cast")
def cast_by_name(c: Call, x: Node, *, to: str) -> Node:
    if to not in LEGACY_TYPES:
        raise c.fail(f"element type {to!r} is not supported")
    return ops.cast(x, dtype=element_type(LEGACY_TYPES[to]))


@converter("Cast", since=6)
def cast(c: Call, x: Node, *, to: int, saturate: int = 1, round_mode: str = "up") -> Node:
    return converted(c, x, tensor_dtype(c, to), bool(saturate), round_mode)


@converter("CastLike")
def cast_like(c: Call, x: Node, like: Node, *, saturate: int = 1, round_mode: str = "up") -> Node:
    return converted(c, x, like.dtype, bool(saturate), round_mode)


def converted(c: Call, x: Node, to: DType, saturate: bool, round_mode: str) -> Node:
    """A cast with ONNX's choices: saturation, and the rounding of powers of two."""
    if to is f8e8m0 and x.dtype is not to:
        return power_of_two(c, x, saturate, round_mode)
    if to in SUBBYTE and not to.is_float and x.dtype.is_float:
        x = ops.cast(x, dtype=i32)  # what does not fit wraps around, as between integers
    return ops.cast(x, dtype=to, saturate=saturate)


def power_of_two(c: Call, x: Node, saturate: bool, round_mode: str) -> Node:
    """x as the 8-bit exponent type: the exponent bits of f32, rounded up, down or to nearest."""
    if round_mode not in ("up", "down", "nearest"):
        raise c.fail(f"round_mode is {round_mode!r}")
    bits = ops.bitcast(ops.abs(ops.cast(x, dtype=f32)), dtype="u32")
    exponent = ops.shift_right(bits, 23)
    fraction = ops.bitwise_and(bits, 0x7FFFFF)
    if round_mode == "up":
        step = ops.greater(fraction, 0)
    elif round_mode == "nearest":
        step = ops.greater_equal(fraction, 0x400000)
    else:
        step = ops.greater(fraction, 0x7FFFFF)
    raised = ops.add(exponent, ops.cast(step, dtype="u32"))
    limit = 254 if saturate else 255
    finite = ops.minimum(raised, limit)
    result = ops.select(ops.equal(exponent, 255), exponent, finite)
    return ops.bitcast(ops.cast(result, dtype=u8), dtype=f8e8m0)


@converter("BitCast")
def bit_cast(c: Call, x: Node, *, to: int) -> Node:
    to = tensor_dtype(c, to)
    if boolean in (x.dtype, to):  # a truth value is a byte of 0 or 1
        if to.bits != x.dtype.bits:
            raise c.fail(f"{x.dtype} and {to} have different widths")
        x = ops.cast(x, dtype="u8") if x.dtype is boolean else ops.bitcast(x, dtype="u8")
        return ops.cast(x, dtype=to) if to is boolean else ops.bitcast(x, dtype=to)
    return ops.bitcast(x, dtype=to)


@converter("Identity", values=True)
def identity(c: Call, x: object, *, consumed_inputs: object = None) -> object:
    return x


@converter("Constant", values=True)
def constant_value(
    c: Call, *, value: Array | None = None, sparse_value: Array | None = None,
    value_float: float | None = None, value_floats: tuple = (), value_int: int | None = None,
    value_ints: tuple = (), value_string: str | None = None, value_strings: tuple = (),
) -> object:  # fmt: skip
    if len(c.attrs) != 1:
        raise c.fail(f"it has {len(c.attrs)} values, not one")
    ((name, given),) = c.attrs.items()
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64,
             "value_ints": np.int64}  # fmt: skip
    if name in kinds:
        array = np.array(given, dtype=kinds[name])
    elif name in ("value_string", "value_strings"):
        array = np.array(given, dtype=object)
    elif isinstance(given, np.ndarray):
        array = given
    else:
        raise c.fail(f"its attribute {name!r} is not a tensor")
    return c.importer.value_of(array, c.record.outputs[0] if c.record.outputs else "")


# ---- activations --------------------------------------------------------------------------------


@converter("LeakyRelu")
def leaky_relu(c: Call, x: Node, *, alpha: float = 0.01, consumed_inputs: object = None) -> Node:
    return ops.leaky_relu(x, alpha=alpha)


@converter("ThresholdedRelu")
def thresholded_relu(c: Call, x: Node, *, alpha: float = 1.0) -> Node:
    return ops.thresholded_relu(x, alpha=alpha)


@converter("Elu")
def elu(c: Call, x: Node, *, alpha: float = 1.0, consumed_inputs: object = None) -> Node:
    return ops.elu(x, alpha=alpha)


@converter("Selu")
def selu_early(
    c: Call, x: Node, *, alpha: float = 1.6732, gamma: float = 1.0507,
    consumed_inputs: object = None,
) -> Node:  # fmt: skip
    return ops.selu(x, alpha=alpha, gamma=gamma)


@converter("Selu", since=6)
def selu(
    c: Call, x: Node, *, alpha: float = 1.6732631921768188, gamma: float = 1.0507010221481323
) -> Node:
    return ops.selu(x, alpha=alpha, gamma=gamma)


@converter("Celu")
def celu(c: Call, x: Node, *, alpha: float = 1.0) -> Node:
    return ops.celu(x, alpha=alpha)


@converter("Gelu")
def gelu(c: Call, x: Node, *, approximate: str = "none") -> Node:
    if approximate not in ("none", "tanh"):
        raise c.fail(f"approximate is {approximate!r}, not none or tanh")
    return ops.gelu(x, approximate=approximate)


@converter("HardSigmoid")
def hard_sigmoid(
    c: Call, x: Node, *, alpha: float = 0.2, beta: float = 0.5, consumed_inputs: object = None
) -> Node:
    return ops.hard_sigmoid(x, alpha=alpha, beta=beta)


@converter("Swish")
def swish(c: Call, x: Node, *, alpha: float = 1.0) -> Node:
    return ops.silu(x) if alpha == 1.0 else ops.swish(x, alpha=alpha)


@converter("SwiGLU")
def swiglu(c: Call, a: Node, b: Node, *, alpha: float = 1.0) -> Node:
    return ops.mul(swish(c, a, alpha=alpha), b)


@converter("Shrink")
def shrink(c: Call, x: Node, *, bias: float = 0.0, lambd: float = 0.5) -> Node:
    return ops.shrink(x, bias=bias, lambd=lambd)


@converter("PRelu")
def prelu(c: Call, x: Node, slope: Node, *, consumed_inputs: object = None) -> Node:
    if c.opset < 7 and slope.rank == 1 and slope.shape[0] != 1 and x.rank > 2:
        slope = ops.reshape(slope, shape=(*slope.shape, *(1,) * (x.rank - 2)))
    return ops.prelu(x, slope)


@converter("Clip")
def clip_by_attributes(
    c: Call, x: Node, *, min: float = -3.402823e38, max: float = 3.402823e38,
    consumed_inputs: object = None,
) -> Node:  # fmt: skip
    low = min if "min" in c.attrs else None
    high = max if "max" in c.attrs else None
    return clamp(x, low, high)


@converter("Clip", since=11)
def clip(c: Call, x: Node, low: Node | None = None, high: Node | None = None) -> Node:
    if all(v is None or array_of(v) is not None for v in (low, high)):
        return clamp(x, c.number(low, "min"), c.number(high, "max"))
    if low is not None:
        x = ops.maximum(x, scalar(c, low))
    return x if high is None else ops.minimum(x, scalar(c, high))


def clamp(x: Node, low, high) -> Node:
    if low is not None and high is not None and x.dtype.is_float and low <= high:
        return ops.clamp(x, low=low, high=high)
    if low is not None:
        x = ops.maximum(x, low)
    return x if high is None else ops.minimum(x, high)


def scalar(c: Call, x: Node) -> Node:
    """An operand of one element as a tensor of rank 0."""
    return x if x.rank == 0 else ops.reshape(x, shape=())
