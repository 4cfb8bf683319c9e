"""An fx graph of aten operators as a graph of ours.

Only what the results need is imported: after functionalization nothing else has an effect. Every
call that cannot be imported is noted with the user's line and stands in as a parameter, so that one
error names them all (`Problems`).

    %relu : f32[n, 4] = aten.relu.default(%x)    ->    relu(x)  # model.py:12, block.act: ReLU
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tensorwright.base.errors import CompileError, FrontendError
from tensorwright.frontend import torch_ops_complex as complex_ops
from tensorwright.frontend.torch_ops import Call, Converter, dtype_of, invoke
from tensorwright.frontend.torch_symbols import Sizes, symbol_of
from tensorwright.ir.build import location
from tensorwright.ir.dtype import DTYPES
from tensorwright.ir.graph import Node, constant, param
from tensorwright.ir.type import TensorType, TupleType

# Runtime assertions on sizes: the facts they state are in the ranges of the symbols already.
ASSERTIONS = {"_assert_scalar.default", "_assert_async.msg", "_assert_async.default",
              "_functional_assert_async.msg", "_assert_tensor_metadata.default",
              "sym_constrain_range.default", "sym_constrain_range_for_size.default",
              "_functional_assert_scalar.default"}  # fmt: skip
# Calls between symbolic numbers that torch keeps as values of their own.
OUTSIDE_SCHEMA = ("operator", "math", "_operator", "builtins")


@dataclass
class Problems:
    """What could not be imported: (operator, reason, place)."""

    found: list[tuple[str, str, str]] = field(default_factory=list)
    help: str = ""

    def note(self, target: str, reason: str, place: tuple[str, ...], help: str = "") -> None:
        entry = (target, reason, ", ".join(place))
        if entry not in self.found:
            self.found.append(entry)
        self.help = self.help or help

    def check(self, what: str) -> None:
        """Raise one FrontendError for everything noted."""
        if not self.found:
            return
        notes = tuple(
            f"{target} at {place or 'an unknown place'}" + (f": {reason}" if reason else "")
            for target, reason, place in self.found
        )
        count = len({t for t, _, _ in self.found})
        raise FrontendError(
            f"{what} uses {count} operator{'s' if count > 1 else ''} that cannot be imported",
            notes,
            self.help
            or "rewrite these lines with other operators, or compile the part of the "
            "model that does not contain them",
        )


@dataclass
class Importer:
    """Imports the graphs of one program; they share sizes, constants and problems."""

    table: dict[str, Converter]
    sizes: Sizes
    problems: Problems = field(default_factory=Problems)
    constants: dict[tuple, Node] = field(default_factory=dict)

    def run(self, gm, inputs: Sequence) -> list:
        """The values that the graph module returns for these inputs, flattened."""
        values: dict = {}
        places = [n for n in gm.graph.nodes if n.op == "placeholder"]
        if len(places) != len(inputs):
            raise FrontendError(f"the graph takes {len(places)} inputs, not {len(inputs)}")
        values.update(zip(places, inputs))
        for n in live_nodes(gm.graph):
            if n.op == "get_attr":
                values[n] = self.attribute(gm, n)
            elif n.op == "call_function":
                with location(*place_of(n)):
                    values[n] = self.call(n, values)
        result = next(n for n in gm.graph.nodes if n.op == "output").args[0]
        result = result if isinstance(result, (list, tuple)) else [result]
        return [self.value(r, values) for r in result]

    def attribute(self, gm, n):
        """A tensor or a graph held by the module."""
        held = gm
        for part in n.target.split("."):
            held = getattr(held, part)
        if hasattr(held, "graph"):
            return held
        return self.constant(held, n.target)

    def constant(self, tensor, name: str) -> Node | complex_ops.Pair:
        """A const node on the tensor's own memory; tensors that share it share the node."""
        if complex_ops.is_complex(tensor):
            tensor = tensor.resolve_conj()
            parts = (self.constant(part, f"{name}.{which}") for which, part in
                     (("real", tensor.real), ("imag", tensor.imag)))  # fmt: skip
            return complex_ops.Pair(*parts)
        key = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), str(tensor.dtype))
        if key not in self.constants or tensor.numel() == 0:
            self.constants[key] = constant(array_of(tensor), name)
        return self.constants[key]

    def value(self, a, values):
        """An argument of an fx node in our terms."""
        if a in values if hasattr(a, "op") and hasattr(a, "users") else False:
            v = values[a]
            return v() if isinstance(v, Deferred) else v
        if isinstance(a, (list, tuple)):
            return [self.value(x, values) for x in a]
        if type(a).__name__ in ("SymInt", "SymFloat", "SymBool"):
            return self.symbolic(a)
        return a

    def symbolic(self, value):
        """A SymInt as a dimension, a SymFloat or SymBool as a tensor of rank 0."""
        if type(value).__name__ == "SymInt":
            return self.sizes.dim(value)
        return self.sizes.scalar(value)

    def call(self, n, values):
        """The result of one call_function node: a node, a size, a number or a list of these."""
        fake = n.meta.get("val")
        name = target_name(n.target)
        if name == "getitem":
            return self.value(n.args[0], values)[n.args[1]]
        if name not in self.table and name not in complex_ops.COMPLEX.table:
            if type(fake).__name__ in ("SymInt", "SymFloat", "SymBool", "int", "float", "bool"):
                known = isinstance(fake, (int, float))
                return fake if known else Deferred(self, fake)
            if name in ASSERTIONS:
                return None
            self.problems.note(full_name(n.target), "", place_of(n))
            return self.stand_in(fake)
        try:
            return self.convert(n, name, fake, values)
        except (FrontendError, CompileError) as e:
            reason = e.message.removeprefix(f"{full_name(n.target)}: ")
            self.problems.note(full_name(n.target), reason, place_of(n), e.help)
            return self.stand_in(fake)

    def convert(self, n, name: str, fake, values):
        fakes = tuple(fake) if isinstance(fake, (list, tuple)) else (fake,)
        c = Call(full_name(n.target), self.sizes, fakes, fakes_of(n.args), self.body)
        args = [self.value(a, values) for a in n.args]
        kwargs = {k: self.value(v, values) for k, v in n.kwargs.items()}
        schema = getattr(n.target, "_schema", None)
        if complex_ops.is_complex(fake) or complex_ops.holds_pair([args, *kwargs.values()]):
            arguments = getattr(schema, "arguments", ())
            result = complex_ops.convert(c, name, self.table, arguments, args, kwargs)
        elif schema is None:  # a higher-order operator
            result = self.table[name].function(c, *args, **kwargs)
        else:
            result = invoke(self.table[name], c, schema.arguments, args, kwargs)
        return self.checked(n, result, fake)

    def body(self, gm, inputs: Sequence) -> list:
        """Import a graph held by a control-flow operator on the parameters of its own body."""
        return self.run(gm, inputs)

    def checked(self, n, result, fake):
        """The result, after comparison with the type that torch worked out."""
        if isinstance(result, Node) and isinstance(result.type, TupleType):
            raise AssertionError(f"{n.target} gives a tuple node")
        pairs = [(result, fake)]
        if isinstance(fake, (list, tuple)):
            pairs = list(zip(result, fake))
        for ours, theirs in pairs:
            if isinstance(ours, complex_ops.Pair):
                part = complex_ops.part_of(theirs)
                self.checked(n, [ours.real, ours.imag], [part, part])
            if not isinstance(ours, Node) or not hasattr(theirs, "dtype"):
                continue
            self.sizes.adopt(theirs.shape, ours.shape)
            expected = TensorType(dtype_of(theirs.dtype), self.sizes.shape(theirs.shape))
            if not same_type(ours.type, expected):
                raise FrontendError(
                    f"gives {ours.type} where torch gives {expected}",
                    help="this is a fault of the importer; please report it with the model",
                )
        return result

    def stand_in(self, fake):
        """Something of the right type for what could not be imported."""
        if isinstance(fake, (list, tuple)):
            return [self.stand_in(f) for f in fake]
        if not hasattr(fake, "dtype"):
            return None
        if complex_ops.is_complex(fake):
            part = complex_ops.part_of(fake)
            return complex_ops.Pair(self.stand_in(part), self.stand_in(part))
        shape = []
        for d in fake.shape:
            s = symbol_of(d)
            if s is not None and s not in self.sizes.known:
                self.sizes.fresh(s)
            try:
                shape.append(self.sizes.dim(d))
            except FrontendError:
                shape.append(1)
        name = str(fake.dtype).removeprefix("torch.")
        known = any(d.torch == name for d in DTYPES)
        return param("missing", TensorType(dtype_of(fake.dtype), tuple(shape))) if known else None


@dataclass
class Deferred:
    """A symbolic number, translated when something needs it as a value."""

    importer: Importer
    fake: object

    def __call__(self):
        return self.importer.symbolic(self.fake)


def same_type(ours: TensorType, theirs: TensorType) -> bool:
    """Whether the types agree where both are known: symbolic sizes may be written differently."""
    if ours.dtype is not theirs.dtype or ours.rank != theirs.rank:
        return False
    return all(a == b or not (isinstance(a, int) and isinstance(b, int))
               for a, b in zip(ours.shape, theirs.shape))  # fmt: skip


def live_nodes(graph) -> list:
    """The nodes that the output needs, in order."""
    needed, nodes = set(), list(graph.nodes)
    for n in reversed(nodes):
        if n.op == "output" or n in needed:
            needed.update(n.all_input_nodes)
    return [n for n in nodes if n in needed]


def fakes_of(args) -> tuple:
    return tuple(a.meta.get("val") if hasattr(a, "meta") else None for a in args)


def target_name(target) -> str:
    """`add.Tensor` for an aten operator, `getitem` or `cond` for anything else."""
    text = str(target)
    if hasattr(target, "_schema"):
        return text.removeprefix("aten.")
    return getattr(target, "__name__", text)


def full_name(target) -> str:
    """`aten.add.Tensor`."""
    return str(target) if hasattr(target, "_schema") else getattr(target, "__name__", str(target))


def _libraries() -> tuple[str, ...]:
    """Where the lines lie that are not the user's."""
    torch = os.path.dirname(getattr(sys.modules.get("torch"), "__file__", None) or "torch/")
    return torch + os.sep, "torch/", PACKAGE


PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in')


def place_of(n) -> tuple[str, ...]:
    """Where a node comes from: the user's line and the path of the module."""
    place = []
    frames = _FRAME.findall(n.meta.get("stack_trace") or "")
    own = [f for f in frames if not f[0].startswith(_libraries())]
    if own or frames:
        file, line = (own or frames)[-1]
        place.append(f"{file.rsplit('/', 1)[-1]}:{line}")
    path = module_path(n)
    return (*place, path) if path else tuple(place)


def module_path(n) -> str:
    """`encoder.layers.0: Linear` for the innermost module around the node."""
    for path, kind in reversed(list((n.meta.get("nn_module_stack") or {}).values())):
        kind = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
        path = re.sub(r"^L\['self'\]\.?|^L\[.fn.\]\.?", "", path).replace("._modules", "")
        path = re.sub(r"\['?([\w]+)'?\]", r".\1", path).strip(".")
        if path and "_empty_nn_module_stack" not in path:
            return f"{path}: {kind.rsplit('.', 1)[-1]}"
    return ""


def array_of(tensor) -> np.ndarray:
    """The memory of a torch tensor as an array; types that NumPy lacks go through its bits."""
    tensor = tensor.detach()
    if tensor.device.type != "cpu":
        tensor = tensor.cpu()
    ours = dtype_of(tensor.dtype)
    if ours.name.startswith(("bf16", "f8")):
        import torch

        bits = torch.int16 if ours.bits == 16 else torch.uint8
        return tensor.contiguous().view(bits).numpy().view(ours.numpy)
    return tensor.resolve_conj().resolve_neg().numpy()
