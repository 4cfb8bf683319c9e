"""ONNX softmaxes and normalizations."""

from __future__ import annotations

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import Call, Ints, converter
from tensorwright.frontend.onnx_ops_movement import axis_of
from tensorwright.frontend.onnx_tensor import element_type
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Node
from tensorwright.ir.type import product


def _coerced(op):
    """Up to opset 12: the dimensions from `axis` on are taken together."""

    def convert(c: Call, x: Node, *, axis: int = 1) -> Node:
        axis = x.rank if axis == x.rank else axis_of(c, axis, x.rank)
        rows, columns = product(x.shape[:axis]), product(x.shape[axis:])
        if axis == x.rank - 1:
            return op(c, x, -1)
        return ops.reshape(op(c, ops.reshape(x, shape=(rows, columns)), 1), shape=x.shape)

    return convert


def _softmax(c: Call, x: Node, axis: int) -> Node:
    return ops.softmax(x, axis=axis)


def _log_softmax(c: Call, x: Node, axis: int) -> Node:
    return ops.log_softmax(x, axis=axis)


def _hardmax(c: Call, x: Node, axis: int) -> Node:
    """1 at the first maximum along the axis, 0 elsewhere."""
    axis = axis_of(c, axis, x.rank)
    first = ops.argmax(x, axis=axis, keepdims=True)
    at = ops.iota(shape=x.shape, axis=axis, dtype="i64")
    return ops.cast(ops.equal(at, first), dtype=x.dtype)


def _since_13(op):
    def convert(c: Call, x: Node, *, axis: int = -1) -> Node:
        return op(c, x, axis_of(c, axis, x.rank))

    return convert


for _name, _op in (("Softmax", _softmax), ("LogSoftmax", _log_softmax), ("Hardmax", _hardmax)):
    converter(_name)(_coerced(_op))
    converter(_name, since=13)(_since_13(_op))


@converter("BatchNormalization")
def batch_normalization(
    c: Call, x: Node, scale: Node, bias: Node, mean: Node, var: Node, *, epsilon: float = 1e-5,
    momentum: float = 0.9, spatial: int = 1, is_test: int = 0, training_mode: int = 0,
    consumed_inputs: object = None,
) -> object:  # fmt: skip
    if not spatial:
        raise c.fail("spatial=0 is not supported")
    if training_mode:
        return _trained(c, x, scale, bias, mean, var, epsilon, momentum)
    return ops.batch_norm(x, *_stashed(x, scale, bias, mean, var), epsilon=epsilon, axis=1)


def _stashed(x: Node, *vectors: Node) -> list[Node]:
    return [v if v.dtype is x.dtype else ops.cast(v, dtype=x.dtype) for v in vectors]


def _trained(c: Call, x, scale, bias, mean, var, epsilon, momentum) -> tuple:
    """Normalized by the batch's own statistics, which also update the running ones."""
    axes = tuple(a for a in range(x.rank) if a != 1)
    current = ops.reduce_mean(x, axes=axes)
    centered = ops.sub(x, ops.reduce_mean(x, axes=axes, keepdims=True))
    spread = ops.reduce_mean(ops.mul(centered, centered), axes=axes)
    y = ops.batch_norm(x, *_stashed(x, scale, bias, current, spread), epsilon=epsilon, axis=1)

    def running(old: Node, new: Node) -> Node:
        new = ops.cast(new, dtype=old.dtype)
        return ops.add(ops.mul(old, momentum), ops.mul(new, 1.0 - momentum))

    return y, running(mean, current), running(var, spread)


@converter("InstanceNormalization")
def instance_normalization(
    c: Call, x: Node, scale: Node, bias: Node, *, epsilon: float = 1e-5,
    consumed_inputs: object = None,
) -> Node:  # fmt: skip
    return ops.instance_norm(x, scale, bias, epsilon=epsilon)


def _stash(c: Call, number: int, x: Node) -> DType:
    """The type in which statistics are computed."""
    found = element_type(number)
    if found == "string" or not found.is_float:
        raise c.fail(f"stash_type {number} is no float type")
    return found if found.bits > x.dtype.bits else x.dtype


@converter("LayerNormalization")
def layer_normalization(
    c: Call, x: Node, scale: Node, bias: Node | None = None, *, axis: int = -1,
    epsilon: float = 1e-5, stash_type: int = 1,
) -> object:  # fmt: skip
    axes = tuple(range(axis_of(c, axis, x.rank), x.rank))
    wide = _stash(c, stash_type, x)
    y = ops.layer_norm(x, scale, bias, axes=axes, epsilon=epsilon)
    if not c.wants(1) and not c.wants(2):
        return y
    x = ops.cast(x, dtype=wide)
    mean = ops.reduce_mean(x, axes=axes, keepdims=True)
    centered = ops.sub(x, mean)
    var = ops.reduce_mean(ops.mul(centered, centered), axes=axes, keepdims=True)
    return y, mean, ops.rsqrt(ops.add(var, epsilon))


@converter("RMSNormalization")
def rms_normalization(
    c: Call, x: Node, scale: Node, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Node:
    axes = tuple(range(axis_of(c, axis, x.rank), x.rank))
    return ops.cast(ops.rms_norm(x, scale, axes=axes, epsilon=epsilon), dtype=scale.dtype)


@converter("GroupNormalization", since=18)
def group_normalization_by_group(
    c: Call, x: Node, scale: Node, bias: Node, *, num_groups: int, epsilon: float = 1e-5
) -> Node:
    """Opset 18: scale and bias have one element a group."""
    per = x.shape[1]
    if not isinstance(per, int) or num_groups < 1 or per % num_groups:
        raise c.fail(f"{per} channels do not divide into {num_groups} groups")
    each = per // num_groups
    groups = (num_groups, each)
    wide = [
        ops.reshape(ops.broadcast_to(ops.reshape(v, shape=(num_groups, 1)), shape=groups),
                    shape=(per,))
        for v in (scale, bias)
    ]  # fmt: skip
    return ops.group_norm(x, *wide, groups=num_groups, epsilon=epsilon)


@converter("GroupNormalization", since=21)
def group_normalization(
    c: Call, x: Node, scale: Node, bias: Node, *, num_groups: int, epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Node:  # fmt: skip
    return ops.group_norm(x, scale, bias, groups=num_groups, epsilon=epsilon)


@converter("LRN")
def lrn(
    c: Call, x: Node, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Node:
    return ops.lrn(x, size=size, alpha=alpha, beta=beta, bias=bias)


@converter("LpNormalization")
def lp_normalization(c: Call, x: Node, *, axis: int = -1, p: int = 2) -> Node:
    if p not in (1, 2):
        raise c.fail(f"p is {p}, not 1 or 2")
    return ops.lp_norm(x, axis=axis_of(c, axis, x.rank), p=p)


@converter("MeanVarianceNormalization")
def mean_variance_normalization(c: Call, x: Node, *, axes: Ints = (0, 2, 3)) -> Node:
    mean = ops.reduce_mean(x, axes=axes, keepdims=True)
    square = ops.reduce_mean(ops.mul(x, x), axes=axes, keepdims=True)
    deviation = ops.sqrt(ops.sub(square, ops.mul(mean, mean)))
    return ops.div(ops.sub(x, mean), ops.add(deviation, 1e-9))
