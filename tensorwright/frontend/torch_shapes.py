"""What the user says of the dimensions of a torch module's inputs, told to torch.export and back.

    shapes="x: n[1..64], 3, h, w"      shapes={"x": {0: torch.export.Dim("n")}}

In our shape language every named dimension is exported as Dim.DYNAMIC, and the symbol that torch
makes for it becomes the user's. torch's own `dynamic_shapes` go through as they are; their names
are kept. Ranges are those of the user cut by what the model itself demands.
"""

from __future__ import annotations

import inspect

from tensorwright.base.errors import FrontendError
from tensorwright.frontend.shapes import Shapes
from tensorwright.frontend.torch_symbols import Sizes, sympy_of
from tensorwright.ir.expr import Expr, Symbol, as_expr, substitute, sym, symbols_of


class Wishes:
    """The dimensions of one export: `args`, `kwargs` are the example inputs."""

    def __init__(self, model, args: tuple, kwargs: dict, shapes) -> None:
        from torch.utils import _pytree

        self.tree = _pytree
        self.args, self.given = args, shapes
        self.by_name = arguments(model, args, kwargs)
        self.kwargs = {k: kwargs[k] for k in self.by_name if k in kwargs}
        leaves, self.spec = _pytree.tree_flatten_with_path(self.by_name)
        self.names = [leaf_name(path) for path, _ in leaves]
        self.leaves = [leaf for _, leaf in leaves]
        self.is_torch = shapes is not None and holds_dims(shapes)
        self.wanted: list = [None] * len(leaves)
        if shapes is not None and not self.is_torch:
            self.wanted = self._read(shapes)

    def _read(self, shapes) -> list:
        """Our shape of every input, None where it is no tensor."""
        tensors = [n for n, leaf in zip(self.names, self.leaves) if hasattr(leaf, "shape")]
        if isinstance(shapes, (tuple, list)):
            shapes = dict(zip(tensors, shapes))
        language = Shapes(shapes, tensors)
        return [
            language.shape_of(n, list(leaf.shape)) if hasattr(leaf, "shape") else None
            for n, leaf in zip(self.names, self.leaves)
        ]

    def examples(self) -> tuple[tuple, dict]:
        """The example inputs, with sizes that torch can keep symbolic (0 and 1 are facts to it)."""
        values = self._sizes_of_symbols()
        changed = [self._resized(leaf, s, values) for leaf, s in zip(self.leaves, self.wanted)]
        if all(a is b for a, b in zip(changed, self.leaves)):
            return self.args, self.kwargs
        swap = {id(a): b for a, b in zip(self.leaves, changed)}
        return self.tree.tree_map(lambda v: swap.get(id(v), v), (self.args, self.kwargs))

    def _sizes_of_symbols(self) -> dict[Expr, Expr]:
        """An example size of every symbol: the user's where it is at least 2."""
        found: dict[Expr, int] = {}
        for leaf, shape in zip(self.leaves, self.wanted):
            for own, d in zip(getattr(leaf, "shape", ()), shape or ()):
                if isinstance(d, Expr) and d.op == "sym" and int(own) >= 2:
                    found.setdefault(d, int(own))
                for s in symbols_of(d) if isinstance(d, Expr) else ():
                    found.setdefault(sym(s), 0)
        return {e: as_expr(v or example_size(e.value)) for e, v in found.items()}

    @staticmethod
    def _resized(leaf, shape, values):
        if shape is None:
            return leaf
        size = [d if isinstance(d, int) else substitute(d, values).value for d in shape]
        return leaf if list(leaf.shape) == size else leaf.new_zeros(size)

    def dynamic_shapes(self):
        """torch.export's argument of that name."""
        from torch.export import Dim

        if self.given is None or self.is_torch:
            return self.given
        made: dict = {}
        marks = [
            None if s is None else {k: _mark(Dim, d, made) for k, d in enumerate(s)
                                    if isinstance(d, Expr)}
            for s in self.wanted
        ]  # fmt: skip
        return self.tree.tree_unflatten(marks, self.spec)

    def declare(self, sizes: Sizes, fakes) -> None:
        """Make torch's symbols the user's; `fakes` are torch's descriptions of the inputs."""
        if self.is_torch:
            self._keep_names(sizes, fakes)
        tightened: dict[Expr, Expr] = {}
        for shape, fake in zip(self.wanted, fakes):
            for wanted, d in zip(shape or (), getattr(fake, "shape", ())):
                if isinstance(wanted, Expr) and not isinstance(d, int):
                    self._declare(sizes, wanted, sympy_of(d), tightened)

    @staticmethod
    def _declare(sizes: Sizes, wanted: Expr, theirs, tightened: dict) -> None:
        step = 1
        if theirs.is_Mul and theirs.args[0].is_Integer and len(theirs.args) == 2:
            step, theirs = int(theirs.args[0]), theirs.args[1]  # a multiple, as `_mark` asked for
        if not theirs.is_Symbol or theirs in sizes.known:
            return
        low, high = sizes._range(theirs)
        for s in symbols_of(wanted):
            own = sym(s)
            if own in tightened:
                continue
            tightened[own] = tighter(s, low, high) if own is wanted and step == 1 else own
        sizes.known[theirs] = substitute(wanted, tightened) // step

    def _keep_names(self, sizes: Sizes, fakes) -> None:
        """Names of torch.export.Dim objects, found by walking `dynamic_shapes` with the inputs."""
        given = self.given
        if isinstance(given, (tuple, list)):
            given = dict(zip(self.by_name, given))
        flat = {n: f for n, f in zip(self.names, fakes)}
        for name, dims in given.items():
            fake = flat.get(name)
            if fake is None or dims is None or not hasattr(fake, "shape"):
                continue
            pairs = dims.items() if isinstance(dims, dict) else enumerate(dims)
            for axis, d in pairs:
                named = getattr(getattr(d, "root", d), "__name__", None)  # of 8*h that is h
                if named and axis < len(fake.shape) and not isinstance(fake.shape[axis], int):
                    symbols = sympy_of(fake.shape[axis]).free_symbols
                    for s in symbols if len(symbols) == 1 else ():
                        sizes.names.setdefault(s, named)


def _mark(dim_class, d: Expr, made: dict):
    """torch's mark for one of our dimensions: a multiple where a divisor is known."""
    if d.op != "sym" or d.value.multiple_of == 1:
        return dim_class.DYNAMIC
    s, step = d.value, d.value.multiple_of
    if d not in made:
        most = None if s.max is None else s.max // step
        made[d] = dim_class(f"_{s.name}", min=max(-(-(s.min or 0) // step), 1), max=most)
    return step * made[d]


def tighter(s: Symbol, low, high) -> Expr:
    """The symbol with its bounds cut by what the model demands (torch's 0 and 2 are no demands)."""
    least = s.min if low is None or low <= 2 else max(s.min or 0, low)
    highs = [h for h in (s.max, high) if h is not None]
    most = min(highs, default=None)
    if most is not None and least is not None and least > most:
        raise FrontendError(
            f"shapes: no size of dimension {s.name!r} suits the model: it needs {low} to {high}"
        )
    if (least, most) == (s.min, s.max):
        return sym(s)
    return sym(Symbol(s.name, least, most, s.multiple_of, values=s.values))


def example_size(s: Symbol) -> int:
    """A size that satisfies what is known of the symbol, at least 2 if one does."""
    if s.values:
        return next((v for v in s.values if v >= 2), s.values[0])
    step = s.multiple_of
    size = max(3, s.min or 0)
    size = -(-size // step) * step
    return size if s.max is None or size <= s.max else s.max // step * step


def arguments(model, args: tuple, kwargs: dict) -> dict:
    """The example inputs by the name of the parameter of `forward` they go to."""
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError as e:
        raise FrontendError(f"the example inputs do not fit the module: {e}") from None
    found = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        found.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
    return found


def leaf_name(path) -> str:
    """`inputs_0_mask` for inputs[0]["mask"]."""
    parts = []
    for key in path:
        for field in ("key", "idx", "name"):
            if hasattr(key, field):
                parts.append(str(getattr(key, field)))
                break
    return "_".join(parts)


def holds_dims(shapes) -> bool:
    """Whether `shapes` is written with torch.export.Dim objects."""
    if isinstance(shapes, dict):
        return any(holds_dims(v) for v in shapes.values())
    if isinstance(shapes, (tuple, list)):
        return any(holds_dims(v) for v in shapes)
    return type(shapes).__module__.startswith("torch")
