"""`tw.numpy`: the functions of the Python array API standard over traced tensors.

    np = tw.numpy
    y = np.sum(np.exp(x), axis=-1, keepdims=True)

Types promote by the standard's table; Python numbers take the type of the tensor they meet (a float
with an integer tensor gives f32). Tensors have the same functions as methods and operators, and
`x.__array_namespace__()` is this module. Functions of the standard that need complex numbers or
shapes that depend on data in ways the compiler cannot express are left out.
"""

from __future__ import annotations

import builtins
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace

from numpy import finfo as numpy_finfo

from tensorwright.frontend import array_math, array_reduce, array_shape
from tensorwright.frontend.array_define import cast, function
from tensorwright.frontend.array_index import at_of, get_item
from tensorwright.frontend.tracer import Tensor, node_of, result_dtype, typed
from tensorwright.ir.dtype import (
    DType,
    bf16,
    boolean,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    promote,
    u8,
    u16,
    u32,
    u64,
)  # fmt: skip
from tensorwright.ir.dtype import dtype as dtype_of

e, pi, inf, nan, newaxis = math.e, math.pi, math.inf, math.nan, None
float16, float32, float64, bfloat16 = f16, f32, f64, bf16
int8, int16, int32, int64 = i8, i16, i32, i64
uint8, uint16, uint32, uint64 = u8, u16, u32, u64
bool = boolean

__array_api_version__ = "2024.12"


def _public(module) -> dict:
    """The functions that a file of the namespace defines."""
    return {
        n: f
        for n, f in vars(module).items()
        if not n.startswith("_") and inspect.isfunction(f) and f.__module__ == module.__name__
    }


for _part in (array_math, array_shape, array_reduce):
    globals().update(_public(_part))

# ---- types -------------------------------------------------------------------------------------


@function
def astype(x, dtype, /, *, copy=True, device=None):
    return cast(node_of(x), dtype)


def can_cast(from_, to, /) -> builtins.bool:
    d = from_ if isinstance(from_, DType) else typed(from_)
    try:
        return promote(d, dtype_of(to)) is dtype_of(to)
    except TypeError:
        return False


def finfo(type, /):
    d = type if isinstance(type, DType) else dtype_of(type) if not hasattr(type, "dtype") else (
        type.dtype)  # fmt: skip
    found = numpy_finfo(d.numpy)
    return SimpleNamespace(bits=d.bits, eps=float(found.eps), max=d.max, min=d.min, dtype=d,
                           smallest_normal=float(found.smallest_normal))  # fmt: skip


def iinfo(type, /):
    d = type if isinstance(type, DType) else dtype_of(type) if not hasattr(type, "dtype") else (
        type.dtype)  # fmt: skip
    return SimpleNamespace(bits=d.bits, max=d.max, min=d.min, dtype=d)


_KINDS = {"bool": ("bool",), "signed integer": ("int",), "unsigned integer": ("uint",),
          "integral": ("int", "uint"), "real floating": ("float",), "complex floating": (),
          "numeric": ("int", "uint", "float")}  # fmt: skip


def isdtype(dtype, kind) -> builtins.bool:
    if isinstance(kind, tuple):
        return builtins.any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, str) and kind in _KINDS:
        return dtype_of(dtype).kind in _KINDS[kind]
    return dtype_of(dtype) is dtype_of(kind)


def result_type(*arrays_and_dtypes) -> DType:
    return result_dtype(*arrays_and_dtypes)


# ---- methods of Tensor -------------------------------------------------------------------------


_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "pow", "matmul": "matmul",
    "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift", "rshift": "bitwise_right_shift",
}  # fmt: skip
_RELATIONS = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater",
              "ge": "greater_equal"}  # fmt: skip
_METHODS = (
    "sum", "prod", "mean", "var", "std", "max", "min", "any", "all", "argmax", "argmin", "clip",
    "astype", "squeeze", "take", "repeat", "round", "nonzero", "sort", "argsort",
)  # fmt: skip


def _install() -> None:
    g = globals()
    for name, f in _OPERATORS.items():
        setattr(Tensor, f"__{name}__", lambda self, o, f=g[f]: f(self, o))
        setattr(Tensor, f"__r{name}__", lambda self, o, f=g[f]: f(o, self))
    for name, f in _RELATIONS.items():
        setattr(Tensor, f"__{name}__", lambda self, o, f=g[f]: f(self, o))
    Tensor.__neg__ = lambda self: g["negative"](self)
    Tensor.__pos__ = lambda self: self
    Tensor.__abs__ = lambda self: g["abs"](self)
    Tensor.__invert__ = lambda self: g["bitwise_invert"](self)
    for name in _METHODS:
        setattr(Tensor, name, _method(g[name]))
    Tensor.reshape = lambda self, *shape: g["reshape"](self, _one_or_many(shape))
    Tensor.transpose = _transpose
    Tensor.T = property(lambda self: _transpose(self))
    Tensor.mT = property(lambda self: g["matrix_transpose"](self))
    Tensor.at = property(at_of)
    Tensor.__getitem__ = function(lambda self, key: get_item(node_of(self), key))
    Tensor.__iter__ = lambda self: iter(g["unstack"](self))
    Tensor.__array_namespace__ = _namespace


def _method(f: Callable) -> Callable:
    """A function as a method; positional arguments after the tensor are its keywords in order."""
    names = [p.name for p in inspect.signature(f).parameters.values()][1:]

    def method(self, *args, **kwargs):
        if f.__name__ in _POSITIONAL:
            return f(self, *args, **kwargs)
        return f(self, **dict(zip(names, args)), **kwargs)

    method.__name__ = f.__name__
    return method


_POSITIONAL = ("astype", "take", "repeat", "clip", "squeeze")


def _one_or_many(shape: Sequence):
    return shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape


def _transpose(self, *axes):
    axes = _one_or_many(axes) if axes else tuple(range(self.ndim))[::-1]
    return array_shape.permute_dims(self, axes)


def _namespace(self, *, api_version=None):
    return sys.modules[__name__]


_install()
