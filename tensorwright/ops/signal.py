"""Fourier transforms, windows of them, and the mel scale.

A transform is a contraction with a matrix of cosines and sines; a length with a divisor is split in
two steps with a twist between them (Cooley and Tukey), so that n = a b costs n (a + b). Complex
tensors have a last dimension of 2: real and imaginary part. Angles are reduced in integers first.
"""

from __future__ import annotations

import math

import numpy as np

from tensorwright.ir.dtype import FLOATS, f32, f64, i64
from tensorwright.ir.dtype import dtype as dtype_of
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Node, constant
from tensorwright.ir.type import Dim, TensorType, dim_text
from tensorwright.ops.define import (
    check_dtype,
    composite,
    define,
    normalize_axis,
    require,
    same_dtype,
    scalar_like,
)  # fmt: skip
from tensorwright.ops.elementwise import add, cast, cos, div, equal, mul, neg, select, sin, sub
from tensorwright.ops.elementwise import mod as modulo
from tensorwright.ops.index import full, gather, iota
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import (
    concat,
    pad,
    reshape,
    slice_axis,
    squeeze,
    swap_axes,
    transpose,
)  # fmt: skip
from tensorwright.ops.widen import to_dtype, widened

DIRECT_LENGTH = 32  # up to here one matrix is as good as two

Complex = tuple[Node, Node | None]  # real and imaginary part; None for zero


# ---- complex arithmetic ------------------------------------------------------------------------


def _angles(rows: Dim, columns: Dim, n: Dim) -> Node:
    """2 pi (j k mod n) / n in f64: [rows, columns]."""
    j = iota(shape=(rows, 1), axis=0, dtype=i64)
    k = iota(shape=(1, columns), axis=1, dtype=i64)
    size = full(shape=(), value=n, dtype=i64)
    turns = div(cast(modulo(mul(j, k), size), dtype=f64), cast(size, dtype=f64))
    return mul(turns, 2 * math.pi)


def _roots(rows: Dim, columns: Dim, n: Dim, sign: int, dtype) -> tuple[Node, Node]:
    """The powers exp(sign 2 pi i j k / n), as real and imaginary part."""
    angles = _angles(rows, columns, n)
    real, imaginary = cos(angles), sin(angles)
    return to_dtype(real, dtype), to_dtype(imaginary if sign > 0 else neg(imaginary), dtype)


def _times(x: Complex, w: tuple[Node, Node], product) -> Complex:
    """x times w, where `product` multiplies real parts."""
    (a, b), (c, d) = x, w
    if b is None:
        return product(a, c), product(a, d)
    return sub(product(a, c), product(b, d)), add(product(a, d), product(b, c))


def _divisor(n: Dim) -> int:
    """The largest divisor of n up to its root; 1 if n is symbolic."""
    if not isinstance(n, int):
        return 1
    return max(d for d in range(1, math.isqrt(n) + 1) if n % d == 0)


def transform(x: Complex, sign: int, kept: Dim | None = None) -> Complex:
    """Sums over j of x[..., j] exp(sign 2 pi i j k / n), along the last axis, for k < kept."""
    n = x[0].shape[-1]
    kept = n if kept is None else kept
    a = _divisor(n)
    if not isinstance(n, int) or n <= DIRECT_LENGTH or a == 1:
        roots = _roots(n, kept, n, sign, x[0].dtype)
        last = x[0].rank - 1
        return _times(x, roots, lambda p, q: dot_general(p, q, contract=((last,), (0,))))
    b = n // a
    lead = x[0].shape[:-1]
    both = lambda f, v: tuple(None if p is None else f(p) for p in v)
    # j = b j1 + j2 and k = k1 + a k2: over j1, the twist of j2 k1, over j2
    rows = both(lambda p: swap_axes(reshape(p, shape=(*lead, a, b))), x)
    y = transform(rows, sign)
    y = _times(y, _roots(b, a, n, sign, x[0].dtype), mul)
    y = transform(both(swap_axes, y), sign)
    y = both(lambda p: reshape(swap_axes(p), shape=(*lead, n)), y)
    return y if kept == n else both(lambda p: _first(p, kept), y)


def _first(x: Node, count: Dim) -> Node:
    """The first elements along the last axis."""
    return slice_axis(x, x.rank - 1, 0, count)


def _resized(x: Node, n: Dim) -> Node:
    """x cut or padded with zeros at the end of its last axis."""
    if x.shape[-1] == n:
        return x
    low = (0,) * x.rank
    return pad(x, low=low, high=(*low[1:], as_dim(as_expr(n) - x.shape[-1])))


# ---- dft ---------------------------------------------------------------------------------------


def _check_dft(x, *, axis=-2, length=None, inverse=False, onesided=False) -> None:
    check_dtype("dft", x, FLOATS)
    require(x.rank >= 2 and x.shape[-1] in (1, 2),
            f"dft: the last dimension of x {x} must be 1 (real) or 2 (complex)")  # fmt: skip
    axis = normalize_axis("dft", axis, x.rank)
    require(axis != x.rank - 1, "dft: the last axis holds real and imaginary parts")
    require(not onesided or inverse or x.shape[-1] == 1,
            "dft: only a real signal has a one-sided transform")  # fmt: skip


def half(n: Dim) -> Dim:
    """How many frequencies a real signal of length n has."""
    return as_dim(as_expr(n) // 2 + 1)


def _expand_dft(x, *, axis=-2, length=None, inverse=False, onesided=False):
    axis = normalize_axis("dft", axis, x.rank)
    rest = tuple(a for a in range(x.rank - 1) if a != axis)
    order = (x.rank - 1, *rest, axis)  # [parts, ..., n]
    moved = widened(transpose(x, perm=order))
    n = _length(moved.shape[-1], length, inverse and onesided)
    part = lambda k: squeeze(slice_axis(moved, 0, k, k + 1), (0,))
    signal = (part(0), part(1) if x.shape[-1] == 2 else None)
    if inverse and onesided:
        parts = [_real_inverse(signal, n)]
    else:
        signal = tuple(None if p is None else _resized(p, n) for p in signal)
        parts = list(transform(signal, 1 if inverse else -1, half(n) if onesided else None))
    if inverse:
        count = full(shape=(), value=n, dtype=parts[0].dtype)
        parts = [div(p, count) for p in parts]
    stacked = concat(*(reshape(p, shape=(1, *p.shape)) for p in parts), axis=0)
    back = tuple(order.index(a) for a in range(x.rank))
    return to_dtype(transpose(stacked, perm=back), x.dtype)


def _length(size: Dim, length: Dim | None, halved: bool) -> Dim:
    if length is not None:
        return length
    return as_dim((as_expr(size) - 1) * 2) if halved else size


def _real_inverse(x: Complex, n: Dim) -> Node:
    """n times the real signal of which the first half of the transform is given. Every frequency
    but the first, and the last one of an even length, stands for two."""
    count = half(n)
    real, imaginary = (_resized(p, count) if p is not None else None for p in x)
    k = iota(shape=(count,), axis=0, dtype=i64)
    size = full(shape=(), value=n, dtype=i64)
    single = equal(modulo(mul(k, 2), size), 0)
    weight = select(single, scalar_like(real, 1), scalar_like(real, 2))
    roots = _roots(count, n, n, 1, real.dtype)
    contract = ((real.rank - 1,), (0,))
    y = dot_general(mul(real, weight), roots[0], contract=contract)
    if imaginary is None:
        return y
    return sub(y, dot_general(mul(imaginary, weight), roots[1], contract=contract))


def _reference_dft(x, axis=-2, length=None, inverse=False, onesided=False):
    axis = axis % x.ndim
    wide = x.astype(np.float64)
    signal = wide[..., 0] + (1j * wide[..., 1] if x.shape[-1] == 2 else 0)
    n = _length(x.shape[axis], length, inverse and onesided)
    if inverse and onesided:
        return np.fft.irfft(signal, n, axis)[..., None].astype(x.dtype)
    y = (np.fft.ifft if inverse else np.fft.fft)(signal, n, axis)
    if onesided:
        y = np.take(y, np.arange(n // 2 + 1), axis)
    return np.stack([y.real, y.imag], -1).astype(x.dtype)


dft = composite(
    "dft", "x", _expand_dft, _check_dft, reference=_reference_dft, dtypes=FLOATS,
    samples=("f32[2,10,1]", "f32[2,10,2] inverse=True", "f32[2,9,1] onesided=True",
             "f32[10,3,2] axis=0", "f32[2,n,1] length=8 n=5,8,9", "f32[2,60,2]",
             "f32[1,64,1] onesided=True", "f32[2,6,2] inverse=True onesided=True",
             "f32[2,6,2] inverse=True onesided=True length=9", "f32[1,n,2] n=4,7", "f32[1,97,2]",
             "f64[360,1]"),
    doc="The discrete Fourier transform along an axis of real (1) or complex (2) numbers.",
)  # fmt: skip


# ---- stft --------------------------------------------------------------------------------------


def _check_stft(x, window=None, *, step=1, length=None, onesided=True) -> None:
    same_dtype("stft", x, window)
    check_dtype("stft", x, FLOATS)
    require(x.rank == 3 and x.shape[2] in (1, 2),
            f"stft: x is {x}; it must be [batch, length, 1 or 2]")  # fmt: skip
    require(window is not None or length is not None,
            "stft: neither a window nor a length is given")  # fmt: skip
    require(window is None or length is None or window.shape == (length,),
            f"stft: the window {window} does not have {length} elements")  # fmt: skip
    require(not onesided or x.shape[2] == 1, "stft: only a real signal has a one-sided transform")


def frames(x: Node, length: Dim, step: Dim) -> Node:
    """Overlapping stretches of axis 1: [batch, frames, length, ...]."""
    count = as_dim((as_expr(x.shape[1]) - length) // as_expr(step) + 1)
    start = iota(shape=(count, 1), axis=0, dtype=i64, step=step)
    at = add(start, iota(shape=(1, length), axis=1, dtype=i64))
    return gather(x, at, axis=1)


def _expand_stft(x, window=None, *, step=1, length=None, onesided=True):
    length = window.shape[0] if length is None else length
    cut = frames(x, length, step)
    if window is not None:
        cut = mul(cut, reshape(window, shape=(length, 1)))
    return dft(cut, axis=2, onesided=onesided)


def _reference_stft(x, window=None, step=1, length=None, onesided=True):
    length = len(window) if length is None else length
    count = (x.shape[1] - length) // step + 1
    cut = np.stack([x[:, k * step : k * step + length] for k in range(count)], 1)
    cut = cut.astype(np.float64) * (1 if window is None else window.astype(np.float64)[:, None])
    return _reference_dft(cut, 2, None, False, onesided).astype(x.dtype)


stft = composite(
    "stft", "x, window?", _expand_stft, _check_stft, reference=_reference_stft, dtypes=FLOATS,
    samples=("f32[1,20,1] f32[8] step=3", "f32[2,16,2] f32[4] step=4 onesided=False",
             "f32[b,n,1] - length=6 step=2 b=1 n=6,15"),
    doc="Fourier transforms of overlapping stretches of a signal, each times a window.",
)  # fmt: skip


# ---- windows -----------------------------------------------------------------------------------


def _window(name: str, terms: tuple[float, ...], doc: str):
    """A sum of terms[k] cos(2 pi k i / n), where n is size, or size - 1 unless periodic."""

    def expand(*, size=1, periodic=True, dtype=f32):
        i = iota(shape=(size,), axis=0, dtype=f64)
        n = full(shape=(), value=size if periodic else as_dim(as_expr(size) - 1), dtype=f64)
        turn = mul(div(i, n), 2 * math.pi)
        total = full(shape=(size,), value=terms[0], dtype=f64)
        for k, factor in enumerate(terms[1:], 1):
            total = add(total, mul(cos(mul(turn, float(k))), factor))
        return to_dtype(total, dtype_of(dtype))

    def reference(size=1, periodic=True, dtype=f32):
        with np.errstate(all="ignore"):
            turn = 2 * np.pi * np.arange(size) / (size if periodic else size - 1)
        y = sum(f * np.cos(k * turn) for k, f in enumerate(terms))
        return np.asarray(y).astype(dtype_of(dtype).numpy)

    return composite(
        name, "", expand, reference=reference, doc=doc,
        samples=("size=10", "size=9 periodic=False", "size=n n=2,7", "size=8 dtype=f64"),
    )  # fmt: skip


hann_window = _window("hann_window", (0.5, -0.5), "A raised cosine over `size` points.")
hamming_window = _window(
    "hamming_window", (25 / 46, -21 / 46), "A raised cosine that does not reach zero."
)
blackman_window = _window(
    "blackman_window", (0.42, -0.5, 0.08), "Three cosine terms over `size` points."
)


# ---- mel ---------------------------------------------------------------------------------------


def _mel_matrix(bins=8, length=16, rate=16000, low=0.0, high=8000.0, dtype=f32):
    """Triangles evenly spaced on the mel scale, in the columns of [length // 2 + 1, bins]."""
    to_mel = lambda hertz: 2595 * math.log10(1 + hertz / 700)
    step = (to_mel(high) - to_mel(low)) / (bins + 2)
    mels = np.arange(bins + 2) * step + to_mel(low)
    hertz = 700 * (10 ** (mels / 2595) - 1)
    edges = ((length + 1) * hertz // rate).astype(np.int64)
    y = np.zeros((length // 2 + 1, bins))
    for k, (left, centre, right) in enumerate(zip(edges, edges[1:], edges[2:])):
        if left == centre:
            y[centre, k] = 1
        else:
            y[left : centre + 1, k] = np.arange(centre + 1 - left) / (centre - left)
        if right > centre:
            y[centre:right, k] = (right - np.arange(centre, right)) / (right - centre)
    return y.astype(dtype_of(dtype).numpy)


def _infer_mel(*, bins=8, length=16, rate=16000, low=0.0, high=8000.0, dtype=f32) -> TensorType:
    for name, v in (("bins", bins), ("length", length), ("rate", rate)):
        require(
            isinstance(v, int) and v > 0,
            f"mel_weights: {name} is {dim_text(v)}, it must be a known number",
        )
    return TensorType(dtype_of(dtype), (length // 2 + 1, bins))


mel_weights = define(
    "mel_weights", "", infer=_infer_mel, reference=_mel_matrix,
    expand=lambda **attrs: constant(_mel_matrix(**attrs)),
    samples=("", "bins=4 length=64 rate=8192 high=4096.0"),
    doc="The matrix that sums the power at frequencies into bands of the mel scale.",
)  # fmt: skip
