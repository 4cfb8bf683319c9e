"""ONNX operators that work element by element: arithmetic, logic, casts, activations.

Up to opset 6 the second operand of binary operators is broadcast along an `axis`; since opset 7 by
NumPy's rules. ONNX divides integers rounding to zero, and `Mod` is floored unless `fmod` is set.
"""

from __future__ import annotations

import numpy as np

from tensorwright.frontend.onnx_ops import Array, Call, TypeOf, converter
from tensorwright.frontend.onnx_tensor import element_type
from tensorwright.ir.dtype import DType, boolean, f32, f8e8m0, promote, u8
from tensorwright.ir.graph import Node, array_of, constant
from tensorwright.ops import activations as act
from tensorwright.ops import elementwise as ew
from tensorwright.ops import movement as mv

UNARY = {
    "Abs": ew.abs, "Acos": ew.acos, "Acosh": ew.acosh, "Asin": ew.asin, "Asinh": ew.asinh,
    "Atan": ew.atan, "Atanh": ew.atanh, "BitwiseNot": ew.bitwise_not, "Ceil": ew.ceil,
    "Cos": ew.cos, "Cosh": ew.cosh, "Erf": ew.erf, "Exp": ew.exp, "Floor": ew.floor,
    "IsNaN": ew.is_nan, "Log": ew.log, "Neg": ew.neg, "Not": ew.logical_not,
    "Reciprocal": ew.reciprocal, "Round": ew.round, "Sigmoid": ew.sigmoid, "Sign": ew.sign,
    "Sin": ew.sin, "Sinh": ew.sinh, "Sqrt": ew.sqrt, "Tan": ew.tan, "Tanh": ew.tanh,
    "Relu": act.relu, "HardSwish": act.hard_swish, "Mish": act.mish,
    "Softplus": act.softplus, "Softsign": act.softsign,
}  # fmt: skip
BINARY = {
    "Add": ew.add, "Sub": ew.sub, "Mul": ew.mul, "And": ew.logical_and, "Or": ew.logical_or,
    "Xor": ew.logical_xor, "Equal": ew.equal, "Greater": ew.greater, "Less": ew.less,
    "GreaterOrEqual": ew.greater_equal, "LessOrEqual": ew.less_equal,
    "BitwiseAnd": ew.bitwise_and, "BitwiseOr": ew.bitwise_or, "BitwiseXor": ew.bitwise_xor,
}  # fmt: skip


def _unary(op):
    def convert(c: Call, x: Node, *, consumed_inputs: object = None) -> Node:
        return op(x)

    return convert


def _binary(op):
    def convert(
        c: Call, x: Node, y: Node, *, broadcast: int = 0, axis: int = -1,
        consumed_inputs: object = None,
    ) -> Node:  # fmt: skip
        return op(x, aligned(c, x, y, axis))

    return convert


def aligned(c: Call, x: Node, y: Node, axis: int) -> Node:
    """The second operand as opsets below 7 broadcast it: its dimensions start at `axis` of x."""
    if c.opset >= 7 or axis < 0 or y.rank == 0 or axis + y.rank >= x.rank:
        return y
    return mv.reshape(y, shape=(*y.shape, *(1,) * (x.rank - axis - y.rank)))


for _name, _op in UNARY.items():
    converter(_name)(_unary(_op))
for _name, _op in BINARY.items():
    converter(_name)(_binary(_op))


@converter("Div")
def div(c: Call, x: Node, y: Node, *, broadcast: int = 0, axis: int = -1,
        consumed_inputs: object = None) -> Node:  # fmt: skip
    y = aligned(c, x, y, axis)
    return ew.div(x, y) if x.dtype.is_float else ew.trunc_div(x, y)


@converter("Mod")
def mod(c: Call, x: Node, y: Node, *, fmod: int = 0) -> Node:
    return ew.rem(x, y) if fmod else ew.mod(x, y)


@converter("Pow")
def power(c: Call, x: Node, y: Node, *, broadcast: int = 0, axis: int = -1) -> Node:
    y = aligned(c, x, y, axis)
    if x.dtype is y.dtype:
        return ew.pow(x, y)
    wide = x.dtype if x.dtype.is_float else promote(x.dtype, y.dtype)
    result = ew.pow(ew.cast(x, dtype=wide), ew.cast(y, dtype=wide))
    return ew.cast(result, dtype=x.dtype)


@converter("BitShift")
def bit_shift(c: Call, x: Node, y: Node, *, direction: str) -> Node:
    if direction not in ("LEFT", "RIGHT"):
        raise c.fail(f"direction is {direction!r}, not LEFT or RIGHT")
    return ew.shift_left(x, y) if direction == "LEFT" else ew.shift_right(x, y)


@converter("IsInf")
def is_inf(c: Call, x: Node, *, detect_negative: int = 1, detect_positive: int = 1) -> Node:
    return ew.is_inf(
        x, detect_positive=bool(detect_positive), detect_negative=bool(detect_negative)
    )


@converter("Where")
def where(c: Call, condition: Node, x: Node, y: Node) -> Node:
    return ew.select(condition, x, y)


def _fold(op):
    def convert(c: Call, *xs: Node, consumed_inputs: object = None) -> Node:
        if not xs:
            raise c.fail("it has no inputs")
        result = xs[0]
        for x in xs[1:]:
            result = op(result, x)
        return result

    return convert


converter("Sum")(_fold(ew.add))
converter("Max")(_fold(ew.maximum))
converter("Min")(_fold(ew.minimum))


@converter("Mean")
def mean(c: Call, *xs: Node, consumed_inputs: object = None) -> Node:
    return ew.div(_fold(ew.add)(c, *xs), float(len(xs)))


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
    return ew.cast(x, dtype=element_type(LEGACY_TYPES[to]))


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
    return ew.cast(x, dtype=to, saturate=saturate)


def power_of_two(c: Call, x: Node, saturate: bool, round_mode: str) -> Node:
    """x as the 8-bit exponent type: the exponent bits of f32, rounded up, down or to nearest."""
    if round_mode not in ("up", "down", "nearest"):
        raise c.fail(f"round_mode is {round_mode!r}")
    bits = ew.bitcast(ew.abs(ew.cast(x, dtype=f32)), dtype="u32")
    exponent = ew.shift_right(bits, 23)
    fraction = ew.bitwise_and(bits, 0x7FFFFF)
    if round_mode == "up":
        step = ew.greater(fraction, 0)
    elif round_mode == "nearest":
        step = ew.greater_equal(fraction, 0x400000)
    else:
        step = ew.greater(fraction, 0x7FFFFF)
    raised = ew.add(exponent, ew.cast(step, dtype="u32"))
    limit = 254 if saturate else 255
    finite = ew.minimum(raised, limit)
    result = ew.select(ew.equal(exponent, 255), exponent, finite)
    return ew.bitcast(ew.cast(result, dtype=u8), dtype=f8e8m0)


@converter("BitCast")
def bit_cast(c: Call, x: Node, *, to: int) -> Node:
    return ew.bitcast(x, dtype=tensor_dtype(c, to))


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
    return act.leaky_relu(x, alpha=alpha)


@converter("ThresholdedRelu")
def thresholded_relu(c: Call, x: Node, *, alpha: float = 1.0) -> Node:
    return act.thresholded_relu(x, alpha=alpha)


@converter("Elu")
def elu(c: Call, x: Node, *, alpha: float = 1.0, consumed_inputs: object = None) -> Node:
    return act.elu(x, alpha=alpha)


@converter("Selu")
def selu_early(
    c: Call, x: Node, *, alpha: float = 1.6732, gamma: float = 1.0507,
    consumed_inputs: object = None,
) -> Node:  # fmt: skip
    return act.selu(x, alpha=alpha, gamma=gamma)


@converter("Selu", since=6)
def selu(
    c: Call, x: Node, *, alpha: float = 1.6732631921768188, gamma: float = 1.0507010221481323
) -> Node:
    return act.selu(x, alpha=alpha, gamma=gamma)


@converter("Celu")
def celu(c: Call, x: Node, *, alpha: float = 1.0) -> Node:
    return act.celu(x, alpha=alpha)


@converter("Gelu")
def gelu(c: Call, x: Node, *, approximate: str = "none") -> Node:
    if approximate not in ("none", "tanh"):
        raise c.fail(f"approximate is {approximate!r}, not none or tanh")
    return act.gelu(x, approximate=approximate)


@converter("HardSigmoid")
def hard_sigmoid(
    c: Call, x: Node, *, alpha: float = 0.2, beta: float = 0.5, consumed_inputs: object = None
) -> Node:
    return act.hard_sigmoid(x, alpha=alpha, beta=beta)


@converter("Swish")
def swish(c: Call, x: Node, *, alpha: float = 1.0) -> Node:
    return act.silu(x) if alpha == 1.0 else act.swish(x, alpha=alpha)


@converter("SwiGLU")
def swiglu(c: Call, a: Node, b: Node, *, alpha: float = 1.0) -> Node:
    return ew.mul(swish(c, a, alpha=alpha), b)


@converter("Shrink")
def shrink(c: Call, x: Node, *, bias: float = 0.0, lambd: float = 0.5) -> Node:
    return act.shrink(x, bias=bias, lambd=lambd)


@converter("PRelu")
def prelu(c: Call, x: Node, slope: Node, *, consumed_inputs: object = None) -> Node:
    if c.opset < 7 and slope.rank == 1 and slope.shape[0] != 1 and x.rank > 2:
        slope = mv.reshape(slope, shape=(*slope.shape, *(1,) * (x.rank - 2)))
    return act.prelu(x, slope)


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
    fixed = [None if v is None else array_of(v) for v in (low, high)]
    if all(f is not None or v is None for f, v in zip(fixed, (low, high))):
        numbers = [None if f is None else f.reshape(-1)[0].item() for f in fixed if f is None or f.size == 1]
        if len(numbers) == 2:
            return clamp(x, *numbers)
    if low is not None:
        x = ew.maximum(x, scalar(c, low))
    return x if high is None else ew.minimum(x, scalar(c, high))


def clamp(x: Node, low, high) -> Node:
    if low is not None and high is not None and x.dtype.is_float and low <= high:
        return act.clamp(x, low=low, high=high)
    if low is not None:
        x = ew.maximum(x, low)
    return x if high is None else ew.minimum(x, high)


def scalar(c: Call, x: Node) -> Node:
    """An operand of one element as a tensor of rank 0."""
    return x if x.rank == 0 else mv.reshape(x, shape=())


@converter("Dropout", values=False)
def dropout_legacy(
    c: Call, x: Node, *, ratio: float = 0.5, is_test: int = 0, consumed_inputs: object = None
) -> tuple:
    return dropped(x)


@converter("Dropout", since=12)
def dropout(
    c: Call, x: Node, ratio: Node | None = None, training_mode: Node | None = None, *,
    seed: int | None = None,
) -> tuple:  # fmt: skip
    """Identity: of the training mode only what drops nothing is a function of the inputs."""
    if training_mode is not None and c.number(training_mode, "training_mode"):
        if ratio is None or c.number(ratio, "ratio") != 0:
            raise c.fail("dropout in training mode is random", help="export in inference mode")
    return dropped(x)


def dropped(x: Node) -> tuple:
    from_ones = ew.equal(x, x) if x.dtype is boolean else None
    del from_ones
    return x, mv.broadcast_to(constant(np.array(True)), shape=x.shape)


TYPE_HINT = TypeOf
