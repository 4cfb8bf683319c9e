"""Modules: objects that hold parameters, and are traced into graphs like any function.

    class Scale(Module):
        def __init__(self, n): self.weight = Parameter((n,), init=1.0)
        def forward(self, x): return x * self.weight

    program = tw.compile(Scale(4), (x,))

A parameter is a constant of the program, one for all entries and all places that use it. For what
wants parameters as inputs (training, a server that changes them), `functional` makes a function of
them: `functional(module)(values, x)`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from tensorwright.base.errors import FrontendError
from tensorwright.frontend.function import Function
from tensorwright.frontend.tracer import Tensor, current_trace
from tensorwright.ir.dtype import DType, f32
from tensorwright.ir.dtype import dtype as dtype_of
from tensorwright.ir.graph import Node, constant


class Parameter:
    """An array of a module. `init`: a number to fill it with, or None for normal numbers of
    standard deviation 0.02 (seeded by its name), made when they are first asked for."""

    def __init__(self, shape, dtype: DType = f32, init: float | None = None) -> None:
        self.shape, self.dtype, self.init = tuple(shape), dtype_of(dtype), init
        self.name, self.bound = "", None
        self._value: np.ndarray | None = None
        self._node: Node | None = None

    def __repr__(self) -> str:
        return f"Parameter({self.name or '?'}: {self.dtype}{list(self.shape)})"

    @property
    def value(self) -> np.ndarray:
        if self._value is None:
            self._value = self.initial()
        return self._value

    @value.setter
    def value(self, array: np.ndarray) -> None:
        """Take an array as it is, without a copy."""
        found = f"{dtype_of(array.dtype)}{list(array.shape)}"
        if array.shape != self.shape:
            raise FrontendError(f"{self.name or 'a parameter'} is {self.dtype}{list(self.shape)}, "
                                f"the array given {found}")  # fmt: skip
        self._value, self._node, self.dtype = array, None, dtype_of(array.dtype)

    def initial(self, seed: int = 0) -> np.ndarray:
        if self.init is not None:
            return np.full(self.shape, self.init, self.dtype.numpy)
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        return (0.02 * rng.standard_normal(self.shape, "f")).astype(self.dtype.numpy)

    def __tensor__(self) -> Node | Tensor:
        """What traced code computes with: the tensor bound to it, else a constant."""
        if self.bound is not None:
            return self.bound
        if self._node is None:
            self._node = constant(self.value, self.name)
        return self._node


class Module:
    """Base class. Attributes that are parameters, modules or lists of modules belong to it; their
    names are the path of attributes, as in `layers.0.mlp.up_proj.weight`."""

    def forward(self, *args, **kwargs):
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args, **kwargs):
        if current_trace() is None:
            raise FrontendError(
                f"{type(self).__name__} is a module and does not run by itself",
                help="compile it first: program = tw.compile(module, (example inputs,))",
            )
        return self.forward(*args, **kwargs)

    def tw_entries(self) -> dict[str, Callable]:
        """The functions that a program of this module offers, by name."""
        return {"forward": Function(self.forward)} if self.named() is not None else {}

    def named(self) -> dict[str, Parameter]:
        """All parameters by name; each is told its own."""
        found = dict(self._walk(""))
        for name, p in found.items():
            p.name = p.name or name
        return found

    def _walk(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield f"{prefix}{name}", value
            elif isinstance(value, Module):
                yield from value._walk(f"{prefix}{name}.")
            elif isinstance(value, (list, tuple)):
                for k, item in enumerate(value):
                    if isinstance(item, Module):
                        yield from item._walk(f"{prefix}{name}.{k}.")

    def initialize(self, seed: int = 0) -> Module:
        """Seeded values for all parameters."""
        for p in self.named().values():
            p.value = p.initial(seed)
        return self

    def load(self, arrays: Mapping[str, np.ndarray]) -> Module:
        """Take the arrays of these names as parameters, without copies."""
        mine = self.named()
        absent, unknown = [n for n in mine if n not in arrays], [n for n in arrays if n not in mine]
        if absent or unknown:
            what = f"lacks {_some(absent)}" if absent else f"has {_some(unknown)}, unknown here"
            raise FrontendError(f"these weights are not those of {type(self).__name__}: it {what}")
        for name, p in mine.items():
            p.value = arrays[name]
        return self


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@contextmanager
def bound(module: Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the module's parameters of these names are tensors of the caller's."""
    mine = module.named()
    unknown = [n for n in values if n not in mine]
    if unknown:
        raise FrontendError(f"{type(module).__name__} has no parameters {_some(unknown)}")
    for name, value in values.items():
        mine[name].bound = value
    try:
        yield
    finally:
        for name in values:
            mine[name].bound = None


def functional(module: Module, method: str = "forward") -> Callable:
    """`f(values, *args)`: a method of the module as a function of its parameters, a dict by name
    (those left out stay constants)."""

    def f(values, *args):
        with bound(module, values):
            return getattr(module, method)(*args)

    f.__name__ = method
    return f


def entry(f: Callable, types: Mapping[str, object], state: tuple[str, ...] = ()) -> Function:
    """A method as a function whose argument types are only known to the object."""
    made = Function(f, state=state)
    made.annotations = dict(types)
    return made
