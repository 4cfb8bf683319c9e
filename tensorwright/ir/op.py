"""`OpDef`: what the compiler knows of an operator, one record an operator.

Primitives have `lower` (their definition as a loop nest); composites have `expand` (their
definition as a graph of other operators) and inherit everything else from it. A composite may also
have `lower`, for a definition that its expansion cannot reach (one pass instead of three).
Calling an OpDef builds a node: `add(x, y)`, `reduce_sum(x, axes=(1,), keepdims=True)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

from tensorwright.ir.dtype import DType


@dataclass(frozen=True, eq=False)
class OpDef:
    """name: lower_snake_case. params: operand names; a last one starting with `*` is variadic, one
    ending in `?` may be None.

    infer(*types, **attrs) -> Type: the type rule and the only place where shapes are checked; it
        raises CompileError. Optional operands that are absent come as None.
    reference(*arrays, **attrs) -> array or tuple: NumPy oracle; symbolic attributes arrive as ints.
    lower(out, *ins, **attrs) -> Stmt: `out` is a Buffer (a tuple of them for a tuple type), `ins`
        Buffers; the simplest correct loop nest, which schedules make fast.
    expand(*nodes, **attrs) -> Node: the definition by other operators.
    gradient(g, y, *args, **attrs) -> tuple of cotangents (None where not differentiable); `g` is
        the cotangent of the result y (a tuple of them for several).
    dtypes: what the first operand's element type may be. onnx/torch: one-to-one names.
    once: whether an element costs so much (a hundred operations, the page of a cache it is in) that
        no kernel may compute it more than once.
    samples: strings "f32[3,4] f32[4,5] axis=1", read by the tests; `n=1,5` gives symbol values.
    """

    name: str
    params: tuple[str, ...]
    infer: Callable
    reference: Callable | None = None
    lower: Callable | None = None
    expand: Callable | None = None
    gradient: Callable | None = None
    dtypes: tuple[DType, ...] = ()
    onnx: str = ""
    torch: tuple[str, ...] = ()
    once: bool = False
    samples: tuple[str, ...] = ()
    doc: str = ""
    defaults: dict = field(default_factory=dict)

    @property
    def is_composite(self) -> bool:
        return self.expand is not None

    @property
    def is_variadic(self) -> bool:
        return bool(self.params) and self.params[-1].startswith("*")

    def __call__(self, *args, **attrs):
        return BUILD(self, args, attrs)

    def __repr__(self) -> str:
        return self.name


def _unset_build(op, args, attrs):
    raise RuntimeError("import tensorwright.ir.build before building nodes")


BUILD: Callable = _unset_build  # set by ir/build.py, which sits above the graph


def attribute_defaults(infer: Callable) -> dict:
    """Keyword defaults of a type rule: an attribute left out of a call gets its value from here."""
    parameters = inspect.signature(infer).parameters.values()
    return {
        p.name: p.default
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and p.default is not p.empty
    }
