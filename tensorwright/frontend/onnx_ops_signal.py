"""ONNX signal processing: Fourier transforms as products with tables of sines, and filter banks.

The angle of entry (k, n) of a table is 2 pi (k n mod N) / N: the product is reduced in integers
first, so that a long table loses nothing to a large angle.
"""

from __future__ import annotations

import math

import numpy as np

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import Call, converter
from tensorwright.frontend.onnx_ops_elementwise import tensor_dtype
from tensorwright.frontend.onnx_ops_movement import axis_of
from tensorwright.frontend.onnx_ops_recurrent import part
from tensorwright.ir.dtype import DType, f64
from tensorwright.ir.expr import as_dim, as_expr, compare, is_const, maximum, minimum
from tensorwright.ir.graph import Node, constant
from tensorwright.ir.type import Dim


def tables(rows: Dim, columns: Dim, n: Dim, dtype: DType, c: Call) -> tuple[Node, Node]:
    """cos and sin of 2 pi k j / n for k < rows, j < columns."""
    if all(isinstance(d, int) for d in (rows, columns, n)):
        turns = np.outer(np.arange(rows), np.arange(columns)) % max(n, 1) / max(n, 1)
        angle = 2 * math.pi * turns
        return tuple(constant(f(angle).astype(dtype.numpy)) for f in (np.cos, np.sin))
    shape = (rows, columns)
    product = ops.mul(
        ops.iota(shape=shape, axis=0, dtype="i64"), ops.iota(shape=shape, axis=1, dtype="i64")
    )
    whole = ops.reshape(c.sizes((n,)), shape=())
    turns = ops.div(ops.cast(ops.mod(product, whole), dtype=f64), ops.cast(whole, dtype=f64))
    angle = ops.mul(turns, 2 * math.pi)
    return tuple(ops.cast(f(angle), dtype=dtype) for f in (ops.cos, ops.sin))


def fitted(x: Node, axis: int, n: Dim) -> Node:
    """x with `n` elements along the axis: cut, or padded with zeros."""
    d = x.shape[axis]
    if d == n:
        return x
    kept = as_dim(minimum(as_expr(d), as_expr(n)))
    x = x if kept == d else part(x, axis, 0, kept)
    high = [0] * x.rank
    high[axis] = as_dim(as_expr(n) - as_expr(kept))
    return x if high[axis] == 0 else ops.pad(x, low=(0,) * x.rank, high=tuple(high))


def transformed(c: Call, x: Node, n: Dim, inverse: bool, rows: Dim) -> list[Node]:
    """Real and imaginary parts of the first `rows` coefficients of x[..., n, 1 or 2], with the
    transformed dimension last."""
    lead = x.rank - 2
    pieces = [ops.reshape(part(x, x.rank - 1, k, k + 1), shape=x.shape[:-1])
              for k in range(x.shape[-1])]  # fmt: skip
    cos, sin = tables(rows, n, n, x.dtype, c)
    dot = lambda v, t: ops.dot_general(v, t, contract=((lead,), (1,)))
    real, imaginary = dot(pieces[0], cos), dot(pieces[0], sin)
    sign = 1.0 if inverse else -1.0
    if len(pieces) == 1:
        result = [real, ops.mul(imaginary, sign)]
    else:
        more, cross = dot(pieces[1], sin), dot(pieces[1], cos)
        result = [ops.sub(real, ops.mul(more, sign)), ops.add(ops.mul(imaginary, sign), cross)]
    if inverse:
        whole = ops.cast(ops.reshape(c.sizes((n,)), shape=()), dtype=x.dtype)
        result = [ops.div(v, whole) for v in result]
    return result


def dft(c: Call, x: Node, n: Dim | None, axis: int, inverse: bool, onesided: bool) -> Node:
    if x.rank < 2 or x.shape[-1] not in (1, 2) or not x.dtype.is_float:
        raise c.fail(f"the input is {x.type}; its last dimension is 1 (real) or 2 (complex)")
    axis = axis_of(c, axis, x.rank)
    if axis == x.rank - 1:
        raise c.fail("axis is the dimension of real and imaginary parts")
    d = x.shape[axis]
    if n is None:
        n = as_dim((as_expr(d) - 1) * 2) if inverse and onesided else d
    perm = (*(k for k in range(x.rank - 1) if k != axis), axis, x.rank - 1)
    x = ops.transpose(x, perm=perm)
    half = as_dim(as_expr(n) // 2 + 1)
    if inverse and onesided:
        y = inverse_of_half(c, fitted(x, x.rank - 2, half), n)
        y = ops.reshape(y, shape=(*y.shape, 1))
    else:
        rows = half if onesided else n
        pair = transformed(c, fitted(x, x.rank - 2, n), n, inverse, rows)
        y = ops.concat(*(ops.reshape(v, shape=(*v.shape, 1)) for v in pair), axis=x.rank - 1)
    back = [perm.index(k) for k in range(x.rank)]
    return ops.transpose(y, perm=tuple(back))


def inverse_of_half(c: Call, x: Node, n: Dim) -> Node:
    """The real signal of n samples whose non-negative frequencies are x[..., n // 2 + 1, 2]: each
    but the first (and the middle one of an even n) stands for two."""
    lead = x.rank - 2
    half = x.shape[-2]
    cos, sin = tables(n, half, n, x.dtype, c)
    at = ops.iota(shape=(half,), axis=0, dtype="i64")
    whole = ops.reshape(c.sizes((n,)), shape=())
    alone = ops.logical_or(ops.equal(at, 0), ops.equal(ops.mul(at, 2), whole))
    weight = ops.sub(2.0 * np.ones((), x.dtype.numpy), ops.cast(alone, dtype=x.dtype))
    real, imaginary = (
        ops.mul(ops.reshape(part(x, x.rank - 1, k, k + 1), shape=x.shape[:-1]), weight)
        for k in range(2)
    )
    dot = lambda v, t: ops.dot_general(v, t, contract=((lead,), (1,)))
    total = ops.sub(dot(real, cos), dot(imaginary, sin))
    return ops.div(total, ops.cast(whole, dtype=x.dtype))


@converter("DFT", since=17)
def dft_17(
    c: Call, x: Node, length: Node | None = None, *, axis: int = 1, inverse: int = 0,
    onesided: int = 0,
) -> Node:  # fmt: skip
    n = None if length is None else c.dim(length)
    return dft(c, x, n, axis, bool(inverse), bool(onesided))


@converter("DFT", since=20)
def dft_20(
    c: Call, x: Node, length: Node | None = None, axis: Node | None = None, *, inverse: int = 0,
    onesided: int = 0,
) -> Node:  # fmt: skip
    n = None if length is None else c.dim(length)
    at = int(c.number(axis, "axis", -2))
    return dft(c, x, n, at, bool(inverse), bool(onesided))


@converter("STFT", since=17)
def stft(
    c: Call, signal: Node, frame_step: Node, window: Node | None = None,
    frame_length: Node | None = None, *, onesided: int = 1,
) -> Node:  # fmt: skip
    if signal.rank == 2:
        signal = ops.reshape(signal, shape=(*signal.shape, 1))
    if signal.rank != 3 or signal.shape[-1] not in (1, 2) or not signal.dtype.is_float:
        raise c.fail(f"the signal is {signal.type}, not [batch, length, 1 or 2]")
    if window is not None and window.rank != 1:
        raise c.fail(f"the window is {window.type}, not a vector")
    step = c.dim(frame_step, low=1)
    if frame_length is not None:
        n = c.dim(frame_length)
    else:
        n = signal.shape[1] if window is None else window.shape[0]
    total = signal.shape[1]
    if is_const(compare("lt", as_expr(total), as_expr(n)), True):
        raise c.fail(f"a frame has {n} samples, the signal {total}")
    count = as_dim(maximum((as_expr(total) - as_expr(n)) // as_expr(step) + 1, as_expr(0)))
    starts = ops.mul(
        ops.iota(shape=(count, n), axis=0, dtype="i64"), ops.reshape(c.sizes((step,)), shape=())
    )
    at = ops.add(starts, ops.iota(shape=(count, n), axis=1, dtype="i64"))
    frames = ops.gather(signal, at, axis=1)
    if window is not None:
        frames = ops.mul(frames, ops.reshape(ops.cast(window, dtype=signal.dtype), shape=(n, 1)))
    rows = as_dim(as_expr(n) // 2 + 1) if onesided else n
    pair = transformed(c, frames, n, False, rows)
    return ops.concat(*(ops.reshape(v, shape=(*v.shape, 1)) for v in pair), axis=3)


@converter("MelWeightMatrix", since=17)
def mel_weight_matrix(
    c: Call, bins: Node, dft_length: Node, sample_rate: Node, low: Node, high: Node, *,
    output_datatype: int = 1,
) -> Node:  # fmt: skip
    """Triangles between neighbouring points of the mel scale, from spectrum to mel bins."""
    count = int(c.number(bins, "num_mel_bins"))
    n = int(c.number(dft_length, "dft_length"))
    rate = int(c.number(sample_rate, "sample_rate"))
    edges = [float(c.number(v, what)) for v, what in
             ((low, "lower_edge_hertz"), (high, "upper_edge_hertz"))]  # fmt: skip
    if not 0 < count <= 1 << 16 or not 0 < n <= 1 << 24 or rate <= 0 or min(edges) < 0:
        raise c.fail(f"{count} mel bins of {n} samples at {rate} Hz between {edges} Hz")
    mel_low, mel_high = (2595 * math.log10(1 + f / 700) for f in edges)
    mels = np.arange(count + 2) * ((mel_high - mel_low) / (count + 2)) + mel_low
    points = np.floor((n + 1) * 700 * (10 ** (mels / 2595) - 1) / rate).astype(np.int64)
    rows = np.arange(n // 2 + 1)[:, None]
    left, middle, right = points[:-2], points[1:-1], points[2:]
    rising = (rows - left) / np.maximum(middle - left, 1)
    falling = (right - rows) / np.maximum(right - middle, 1)
    weights = np.where((rows >= left) & (rows <= middle) & (middle > left), rising, 0.0)
    weights = np.where((rows == middle) & (middle == left), 1.0, weights)
    weights = np.where((rows >= middle) & (rows < right), falling, weights)
    return constant(weights.astype(tensor_dtype(c, output_datatype).numpy))
