"""Every scalar operation on every type at the values where implementations go wrong.

`compile_operations(target)` makes one library of kernels `out[k] = op(x[k], y[k])`, twice each: a
plain loop, and vectors with a masked tail.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from itertools import product

import numpy as np

from tensorwright.codegen.engine import compile_object
from tensorwright.codegen.llvm import ModuleText, emit_kernel
from tensorwright.ir import scalar
from tensorwright.ir.dtype import (
    DTYPES,
    FLOATS,
    FLOATS8,
    INTEGERS,
    SUBBYTE,
    DType,
    boolean,
    f4e2m1,
    f8e8m0,
    index,
)  # fmt: skip
from tensorwright.ir.expr import (
    COMPARISONS,
    PREDICATES,
    Buffer,
    binary,
    bitcast,
    cast,
    compare,
    unary,
)
from tensorwright.ir.loop import Kernel, Store, loops
from tensorwright.runtime.loader import load_objects
from tensorwright.schedule import primitives as p
from tensorwright.target.host import find

SMALL_FLOATS = (*FLOATS8, f8e8m0, f4e2m1)
NIBBLES = tuple(t for t in SUBBYTE if t is not f4e2m1)
INTEGER_BINARY = ("add", "sub", "mul", "floordiv", "mod", "truncdiv", "rem", "pow", "min", "max",
                  "and", "or", "xor", "shl", "shr")  # fmt: skip
FLOAT_BINARY = ("add", "sub", "mul", "div", "min", "max", "rem")
INTEGER_UNARY = ("neg", "abs", "sign", "not", "popcount")
FLOAT_UNARY = ("neg", "abs", "sign", "floor", "ceil", "trunc", "round", "sqrt")
PAIRS = 401
BOOL_BINARY = ("and", "or", "xor", "add", "mul", "min", "max")


@dataclass(frozen=True)
class Case:
    name: str
    source: DType
    to: DType
    operands: int
    make: object  # of expressions
    oracle: object  # of scalars


def has_infinity(d: DType) -> bool:
    """Where sums beyond the largest number have one meaning."""
    with np.errstate(all="ignore"):
        return bool(np.isinf(np.array(np.inf).astype(d.numpy).astype(np.float64)))


def operation_cases() -> list[Case]:
    found: list[Case] = []

    def add(op: str, d: DType, count: int, make, to: DType | None = None) -> None:
        found.append(Case(f"{op}_{d}", d, to or d, count, make, scalar.function(op, d)))

    for d in (*INTEGERS, *NIBBLES):
        for op in INTEGER_BINARY:
            add(op, d, 2, lambda a, b, op=op: binary(op, a, b))
        for op in INTEGER_UNARY:
            if op != "abs" or d.is_signed:
                add(op, d, 1, lambda a, op=op: unary(op, a))
    for d in (*FLOATS, *SMALL_FLOATS):
        for op in FLOAT_BINARY if has_infinity(d) else ("min", "max"):
            add(op, d, 2, lambda a, b, op=op: binary(op, a, b))
        for op in FLOAT_UNARY:
            add(op, d, 1, lambda a, op=op: unary(op, a))
        for op in PREDICATES:
            add(op, d, 1, lambda a, op=op: unary(op, a), boolean)
    for op in BOOL_BINARY:
        add(op, boolean, 2, lambda a, b, op=op: binary(op, a, b))
    add("not", boolean, 1, lambda a: unary("not", a))
    for d, op in product([d for d in DTYPES if d is not index], COMPARISONS):
        add(op, d, 2, lambda a, b, op=op: compare(op, a, b), boolean)
    return found


def cast_cases() -> list[Case]:
    types = [d for d in DTYPES if d is not index]
    found = []
    for a, b in product(types, types):
        if a is not b:
            found.append(Case(f"cast_{a}_{b}", a, b, 1, lambda x, b=b: cast(x, b),
                              lambda v, a=a, b=b: scalar.cast(v, a, b)))  # fmt: skip
        if a is not b and a.bits == b.bits and boolean not in (a, b):
            found.append(Case(f"bitcast_{a}_{b}", a, b, 1, lambda x, b=b: bitcast(x, b),
                              lambda v, a=a, b=b: scalar.bitcast(v, a, b)))  # fmt: skip
    return found


def edges(d: DType) -> np.ndarray:
    """Values at the ends and corners of a type; all values of a small one."""
    if d is boolean:
        return np.array([False, True])
    if d.bits == 4 or d.bits == 2:
        return np.arange(1 << d.bits, dtype=np.uint8).view(d.numpy)
    if d.is_integer:
        low, high, bits = d.min, d.max, d.bits
        near = [low, low + 1, high, high - 1, high // 2, high // 3, 0, 1, 2, 3, 5, 7, 8, 15, 16, 17,
                31, 32, 33, 63, 64, 65, bits, bits - 1, bits + 1, 100, 127]  # fmt: skip
        near += [-v for v in near] if d.is_signed else []
        return np.array(sorted({v for v in near if low <= v <= high}), d.numpy)
    tiny, big = 2.0**-24, d.max
    near = [
        0.0, 1.0, 0.5, 1.5, 2.5, 3.0, 7.0, 0.1, 100.7, 127.5, 255.9, 448.0, 464.0, 465.0,
        65504.0, 65520.0, 2.0**31, 2.0**32, 2.0**63, 1e30, big, big / 2, tiny, tiny * 1.5,
        2.0**-14, 2.0**-126, 1.1754942e-38, 2049.0, 16777217.0, 1.0009766, 1.00390625,
        1.0078125, float("inf"), float("nan"),
    ]  # fmt: skip
    with np.errstate(all="ignore"):
        return np.array([*near, *(-v for v in near)]).astype(d.numpy)


def inputs(case: Case) -> list[np.ndarray]:
    """All edges, or as many pairs of them."""
    values = edges(case.source)
    if case.operands == 1:
        return [values]
    count = len(values)
    pairs = [np.repeat(values, count), np.tile(values, count)]
    if count**2 > PAIRS:
        some = np.random.default_rng(0).choice(count**2, PAIRS, replace=False)
        pairs = [a[some] for a in pairs]
    return pairs


def kernel(case: Case, count: int, lanes: int) -> Kernel:
    ins = [Buffer(f"x{k}", case.source, (count,)) for k in range(case.operands)]
    out = Buffer("out", case.to, (count,))
    body = loops("i", (count,), lambda i: Store(out, (i,), case.make(*(b[(i,)] for b in ins))))
    if lanes > 1:
        body, _ = p.vectorize(body, body.var, lanes)
    return Kernel(f"{case.name}_{lanes}", (*ins, out), 1, body)


class Library:
    """Kernels by name, in one image."""

    def __init__(self, kernels: list[Kernel], target: str):
        machine, module = find(target), ModuleText()
        for k in kernels:
            emit_kernel(k, module, machine)
        self.code = compile_object(module.text(machine.triple), machine)
        self.image = load_objects([self.code])

    def run(self, k: Kernel, arrays: list[np.ndarray]) -> np.ndarray:
        out = np.zeros(k.results[0].shape, k.results[0].dtype.numpy)
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*arrays, out)]
        call = self.image.function(k.name, None, *[ctypes.c_void_p] * (1 + len(pointers)))
        call(None, *pointers)
        return out


def same(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Where two arrays of one type agree: the same bits, or both NaN, or zeros of either sign."""
    with np.errstate(all="ignore"):
        a, b = found.astype(np.float64), expected.astype(np.float64)
        bits = found.view(np.uint8).reshape(len(found), -1) == expected.view(np.uint8).reshape(
            len(found), -1
        )
    is_float = found.dtype.kind in "fV"
    return bits.all(1) | (is_float & ((np.isnan(a) & np.isnan(b)) | ((a == 0) & (b == 0))))
