"""aten operators that normalize: softmax, layer, group, batch and instance norms.

Forms with statistics among their results (native_layer_norm ...) compute these apart; nothing is
spent on the ones that nobody reads.
"""

from __future__ import annotations

import math

from tensorwright.frontend.torch_ops import Call, Rows, axis_of, lift, to, wide
from tensorwright.frontend.torch_ops_reduce import moments
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Node
from tensorwright.ir.type import product
from tensorwright.ops import elementwise as ew
from tensorwright.ops import index as ix
from tensorwright.ops import movement as mv
from tensorwright.ops import norm as nm
from tensorwright.ops import reduce as rd

NORM = Rows()


@NORM.row("softmax.int", "_softmax.default")
def _softmax(c, x, axis, half_to_float=False, *, dtype=None):
    x = to(x, c.dtype)
    return ew.div(x, x) if x.rank == 0 else nm.softmax(x, axis=axis_of(axis, x.rank))


@NORM.row("log_softmax.int", "_log_softmax.default")
def _log_softmax(c, x, axis, half_to_float=False, *, dtype=None):
    x = to(x, c.dtype)
    return ew.sub(x, x) if x.rank == 0 else nm.log_softmax(x, axis=axis_of(axis, x.rank))


@NORM.row("_safe_softmax.default")
def _safe_softmax(c, x, axis, dtype=None):
    x = to(x, c.dtype)
    axis = axis_of(axis, x.rank)
    empty = ew.equal(rd.reduce_max(x, axes=(axis,), keepdims=True), -math.inf)
    return ew.select(empty, lift(0.0, x.dtype), nm.softmax(x, axis=axis))


@NORM.row("layer_norm.default")
def _layer_norm(c, x, shape, weight=None, bias=None, epsilon=1e-5):
    axes = tuple(range(x.rank - len(shape), x.rank))
    return nm.layer_norm(x, weight, bias, axes=axes, epsilon=float(epsilon))


@NORM.row("native_layer_norm.default")
def _native_layer_norm(c, x, shape, weight, bias, epsilon):
    axes = tuple(range(x.rank - len(shape), x.rank))
    y = nm.layer_norm(x, weight, bias, axes=axes, epsilon=float(epsilon))
    return [y, *_statistics(c, x, axes, epsilon, True)]


def _statistics(c: Call, x: Node, axes, epsilon: float, keep: bool) -> list[Node]:
    """[mean, 1 / standard deviation] in the types that torch gives them."""
    var, mean = moments(x, axes, 0, keep)
    return [to(v, d) for v, d in zip((mean, ew.rsqrt(ew.add(var, float(epsilon)))), c.dtypes()[1:])]


@NORM.row("rms_norm.default")
def _rms_norm(c, x, shape, weight=None, epsilon=None):
    axes = tuple(range(x.rank - len(shape), x.rank))
    if epsilon is None:
        epsilon = 2.0 ** -(52 if x.dtype.bits == 64 else 23)
    return nm.rms_norm(x, weight, axes=axes, epsilon=float(epsilon))


@NORM.row("_fused_rms_norm.default")
def _fused_rms_norm(c, x, shape, weight, epsilon):
    axes = tuple(range(x.rank - len(shape), x.rank))
    wider = to(x, wide(x.dtype))
    square = rd.reduce_sum(ew.mul(wider, wider), axes=axes, keepdims=True)
    epsilon = 2.0 ** -(52 if x.dtype.bits == 64 else 23) if epsilon is None else float(epsilon)
    mean = ew.div(square, lift(product(x.shape[a] for a in axes), square.dtype))
    return [_rms_norm(c, x, shape, weight, epsilon),
            to(ew.rsqrt(ew.add(mean, epsilon)), c.dtypes()[1])]  # fmt: skip


@NORM.row("group_norm.default")
def _group_norm(c, x, groups, weight=None, bias=None, epsilon=1e-5):
    return nm.group_norm(x, weight, bias, groups=groups, epsilon=float(epsilon))


@NORM.row("native_group_norm.default")
def _native_group_norm(c, x, weight, bias, n, channels, size, groups, epsilon):
    y = nm.group_norm(x, weight, bias, groups=groups, epsilon=float(epsilon))
    each = as_dim(as_expr(product(x.shape[1:])) // groups)
    parts = mv.reshape(x, shape=(x.shape[0], groups, each))
    return [y, *_statistics(c, parts, (2,), epsilon, False)]


@NORM.row("instance_norm.default")
def _instance_norm(c, x, weight, bias, mean, var, use_input, momentum, epsilon):
    if not use_input:
        return nm.batch_norm(x, weight, bias, mean, var, epsilon=float(epsilon), axis=1)
    return nm.instance_norm(x, weight, bias, epsilon=float(epsilon))


@NORM.row("_native_batch_norm_legit_no_training.default")
def _batch_norm(c, x, weight, bias, mean, var, momentum, epsilon):
    y = nm.batch_norm(x, weight, bias, mean, var, epsilon=float(epsilon), axis=1)
    return [y, *(ix.full(shape=(0,), value=0, dtype=d) for d in c.dtypes()[1:])]


@NORM.row("_native_batch_norm_legit.no_stats")
def _batch_norm_no_stats(c, x, weight, bias, training, momentum, epsilon):
    return _batch_norm_training(c, x, weight, bias, epsilon)[0]


def _batch_norm_training(c: Call, x: Node, weight, bias, epsilon: float):
    """([y, mean, 1 / deviation], unbiased variance) with the statistics of the batch itself."""
    axes = tuple(k for k in range(x.rank) if k != 1)
    var, mean = moments(x, axes, 0, False)
    parameters = [None if v is None else to(v, wide(x.dtype)) for v in (weight, bias)]
    y = nm.batch_norm(to(x, wide(x.dtype)), *parameters, mean, var, epsilon=float(epsilon), axis=1)
    inverse = ew.rsqrt(ew.add(var, float(epsilon)))
    kept = [to(v, d) for v, d in zip((y, mean, inverse), c.dtypes())]
    return kept, moments(x, axes, 1, False)[0], mean


@NORM.row("_native_batch_norm_legit.default", "_native_batch_norm_legit_functional.default")
def _batch_norm_stats(c, x, weight, bias, mean, var, training, momentum, epsilon):
    if not training:
        y = nm.batch_norm(x, weight, bias, mean, var, epsilon=float(epsilon), axis=1)
        empty = [ix.full(shape=(0,), value=0, dtype=d) for d in c.dtypes()[1:3]]
        return [y, *empty, mean, var][: len(c.fakes)]
    kept, unbiased, batch = _batch_norm_training(c, x, weight, bias, epsilon)
    if len(c.fakes) == 3:
        return kept
    rate = float(momentum)
    new = [
        ew.add(ew.mul(to(old, f32), 1 - rate), ew.mul(to(v, f32), rate))
        for old, v in ((mean, batch), (var, unbiased))
    ]
    return [*kept, *(to(v, old.dtype) for v, old in zip(new, (mean, var)))]
