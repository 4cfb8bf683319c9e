"""PyTorch modules in: torch.export, then aten operators one by one.

    program = load(model, (x,), shapes={"x": "b, 3, 224, 224"})
    program.module            # params are the user's tensors, results the flattened outputs

Parameters and buffers become constants named by their path. A buffer that the model writes becomes
a parameter and a result after the user's own (`Program.state`); an input that it writes, a result
(`Program.writes`). The decomposition table is torch's default one without the operators for which
there is a row here, so softmax, linear, attention, lstm ... arrive whole.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass

from tensorwright.base.errors import FrontendError, RunError
from tensorwright.frontend.torch_graph import Importer, array_of
from tensorwright.frontend.torch_ops import dtype_of
from tensorwright.frontend.torch_ops_complex import refuse_outside
from tensorwright.frontend.torch_ops_recurrent import whole_layers
from tensorwright.frontend.torch_shapes import Wishes
from tensorwright.frontend.torch_symbols import Sizes, size_scalar, sympy_of
from tensorwright.frontend.torch_table import TABLE
from tensorwright.ir.dtype import i64
from tensorwright.ir.expr import Expr
from tensorwright.ir.graph import Node, graph, param
from tensorwright.ir.module import Module, unique
from tensorwright.ir.type import TensorType
from tensorwright.ops import index as ix


@dataclass(frozen=True)
class State:
    """A buffer that the model writes: its parameter, the result with its next value, its start."""

    param: str
    result: int
    initial: object  # numpy array


@dataclass(frozen=True)
class Program:
    """An imported model: its module and how a Python call maps onto it."""

    module: Module
    inputs: tuple[str, ...]  # parameters that the user's tensors go to, in order
    flatten: Callable  # (args, kwargs) -> the user's tensors for `inputs`
    rebuild: Callable  # results of the module -> what the torch model returns
    state: tuple[State, ...] = ()
    writes: tuple[tuple[str, int], ...] = ()  # (input, result that replaces its contents)


def import_torch(model, example_inputs=None, shapes=None) -> Module:
    """The module of an nn.Module (with example inputs) or of an ExportedProgram."""
    return load(model, example_inputs, shapes).module


def load(model, example_inputs=None, shapes=None) -> Program:
    """`import_torch` together with the calling convention of the torch model."""
    import torch

    exported, wishes = model, None
    if not isinstance(model, torch.export.ExportedProgram):
        exported, wishes = export(model, example_inputs, shapes)
    elif shapes is not None:
        raise FrontendError(
            "an ExportedProgram has its dynamic shapes already",
            help="give dynamic_shapes to torch.export.export, or pass the module itself",
        )
    exported = exported.run_decompositions(decompositions(torch))
    return _Reader(exported, wishes).program()


def decompositions(torch) -> dict:
    """torch's default decompositions without the operators that have a converter here."""
    table = torch.export.default_decompositions()
    for op in list(table):
        if str(op).removeprefix("aten.") in TABLE:
            del table[op]
    return table


# ---- export ------------------------------------------------------------------------------------


def export(model, example_inputs, shapes):
    """(ExportedProgram, what the user says of its dimensions) of a module."""
    import torch

    if not isinstance(model, torch.nn.Module):
        model = _wrapped(torch, model)
    if example_inputs is None:
        raise FrontendError(
            "a torch module needs example inputs",
            help="pass the tensors of one call: tw.compile(model, (x,))",
        )
    kinds = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.modules.dropout._DropoutNd)
    if any(m.training for m in model.modules() if isinstance(m, kinds)):
        raise FrontendError(
            "the module is in training mode", help="call model.eval() before compiling it"
        )
    args, kwargs = split_inputs(example_inputs)
    wishes = Wishes(model, args, kwargs, shapes)
    args, kwargs = wishes.examples()
    try:
        with torch.no_grad(), whole_layers(torch):
            exported = torch.export.export(
                model, args, kwargs, dynamic_shapes=wishes.dynamic_shapes()
            )
    except Exception as e:
        raise FrontendError(
            f"torch.export cannot trace the module: {_first_lines(e)}",
            help="the torch error above says why; torch.export.draft_export(model, args) says more",
        ) from e
    return exported, wishes


def _wrapped(torch, function):
    """A module whose forward is a plain function. torch records the lines of functions that are
    called `forward` only, so the function goes by that name while it is traced."""
    if isinstance(function, types.FunctionType):
        code = function.__code__.replace(co_name="forward")
        parts = (function.__globals__, "forward", function.__defaults__, function.__closure__)
        renamed = types.FunctionType(code, *parts)
        renamed.__kwdefaults__ = function.__kwdefaults__
        function = renamed
    return type("Function", (torch.nn.Module,), {"forward": staticmethod(function)})().eval()


def _first_lines(e: Exception, count: int = 3) -> str:
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return " ".join(lines[:count]) or type(e).__name__


def split_inputs(example_inputs) -> tuple[tuple, dict]:
    """(args, kwargs): a dict is keyword arguments, a lone tensor one argument."""
    if isinstance(example_inputs, dict):
        return (), dict(example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        args = tuple(example_inputs)
        if len(args) == 2 and isinstance(args[0], tuple) and isinstance(args[1], dict):
            return args
        return args, {}
    return (example_inputs,), {}


# Outputs that are Python numbers in torch.
CONVERSIONS = {"SymIntArgument": int, "SymFloatArgument": float, "SymBoolArgument": bool}


# ---- reading an ExportedProgram ----------------------------------------------------------------


class _Reader:
    """Takes one ExportedProgram apart."""

    def __init__(self, exported, wishes) -> None:
        self.exported, self.signature = exported, exported.graph_signature
        self.sizes = Sizes(exported.range_constraints)
        self.importer = Importer(TABLE, self.sizes)
        self.params: list[Node] = []
        self.states: list[tuple[str, Node]] = []  # buffers that the model writes
        self.wishes = wishes

    def program(self) -> Program:
        inputs = self.inputs()
        values = self.importer.run(self.exported.graph_module, inputs)
        self.importer.problems.check("the model")
        results, names, state, writes, rebuild = self.outputs(values)
        taken = tuple(p.name for p in self.params)
        params = (*self.params, *(p for _, p in self.states))
        main = graph("main", params, results, names)
        return Program(Module({"main": main}), taken, self.flatten(), rebuild, state, writes)

    # -- inputs

    def inputs(self) -> list:
        """A value for every placeholder, in order."""
        places = {n.name: n for n in self.exported.graph.nodes if n.op == "placeholder"}
        specs = self.signature.input_specs
        names = [s.arg.name for s in specs if s.kind.name == "USER_INPUT"]
        users = [places[name].meta.get("val") for name in names]
        if self.wishes is not None:
            self.wishes.declare(self.sizes, users)
        self.sizes.declare_shapes(names, users)
        return [self.input(s, places[s.arg.name].meta.get("val")) for s in specs]

    def input(self, spec, fake):
        if spec.kind.name == "USER_INPUT":
            return self.user_input(spec.arg.name, fake)
        if spec.kind.name in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR"):
            tensor = self.tensor(spec)
            if spec.target in self.signature.buffers_to_mutate.values():
                name = unique(spec.target, {p.name for p in self.params})
                node = param(name, self.type_of(tensor))
                self.states.append((spec.target, node))
                return node
            return self.importer.constant(tensor, spec.target)
        raise FrontendError(f"inputs of kind {spec.kind.name} ({spec.arg.name}) are not supported")

    def tensor(self, spec):
        """The value of a parameter, buffer or constant."""
        held = self.exported.state_dict
        return held[spec.target] if spec.target in held else self.exported.constants[spec.target]

    def type_of(self, tensor) -> TensorType:
        return TensorType(dtype_of(tensor.dtype), self.sizes.shape(tensor.shape))

    def user_input(self, name: str, fake):
        """A parameter for a tensor or a dynamic int; the value itself for anything else."""
        if hasattr(fake, "shape"):
            node = param(name, self.type_of(fake))
        elif type(fake).__name__ == "SymInt":
            node = param(name, TensorType(i64, ()))
            self.bind_input(node, fake)
        else:
            return fake
        self.params.append(node)
        return node if hasattr(fake, "shape") else self.sizes.dim(fake)

    def bind_input(self, node: Node, fake) -> None:
        """Let an int that the user passes be a size, unless a shape tells it already."""
        symbol = sympy_of(fake)
        if symbol.is_Symbol and symbol not in self.sizes.known:
            ix.bind_size(node, symbols=(self.sizes.fresh(symbol),))

    # -- outputs

    def outputs(self, values: list):
        """(results, names, state, writes, rebuild) from what the graph returns."""
        for spec, value in zip(self.signature.output_specs, values):
            refuse_outside(value, f"the result {getattr(spec.arg, 'name', '')!r}")
        results, names, state, writes, user = [], [], [], [], []
        fresh = dict(self.states)
        for spec, value in zip(self.signature.output_specs, values):
            kind = spec.kind.name
            if kind == "USER_OUTPUT":
                user.append((spec, value))
            elif kind == "BUFFER_MUTATION":
                state.append((spec.target, value))
            elif kind == "USER_INPUT_MUTATION":
                writes.append((spec.target, value))
            else:
                raise FrontendError(f"results of kind {kind} are not supported")
        slots = []
        for k, (spec, value) in enumerate(user):
            slots.append(self.slot(spec, value, len(results)))
            if slots[-1][0] != "constant":
                results.append(value if isinstance(value, Node) else size_scalar(value))
                names.append(unique(getattr(spec.arg, "name", None) or f"output_{k}", names))
        first_state = len(results)
        for target, value in state:
            results.append(value)
            names.append(unique(target, names))
        first_write = len(results)
        for target, value in writes:
            results.append(value)
            names.append(unique(target, names))
        kept = tuple(
            State(fresh[target].name, first_state + k, array_of(self.buffer(target)).copy())
            for k, (target, _) in enumerate(state)
        )
        written = tuple((target, first_write + k) for k, (target, _) in enumerate(writes))
        return results, names, kept, written, self.rebuild(slots)

    def buffer(self, target: str):
        held = self.exported.state_dict
        return held[target] if target in held else self.exported.constants[target]

    @staticmethod
    def slot(spec, value, position: int) -> tuple[str, object]:
        """How an output is made: from which result, or which constant it is."""
        kind = type(spec.arg).__name__
        if isinstance(value, (Node, Expr)):
            return (kind if kind in CONVERSIONS else "tensor"), position
        return "constant", value

    def rebuild(self, slots) -> Callable:
        """results -> the Python value that the model returns."""
        spec = self.exported.call_spec.out_spec

        def rebuild(results):
            leaves = []
            for kind, what in slots:
                value = what if kind == "constant" else results[what]
                leaves.append(CONVERSIONS.get(kind, lambda v: v)(value))
            return spec.unflatten(leaves) if spec is not None else tuple(leaves)

        return rebuild

    def flatten(self) -> Callable:
        """(args, kwargs) -> the tensors for the parameters; other values must be the example's."""
        from torch.utils import _pytree

        spec = self.exported.call_spec.in_spec
        fixed = [
            None if self.is_param(s) else (s.arg.name, getattr(s.arg, "value", None))
            for s in self.signature.input_specs
            if s.kind.name == "USER_INPUT"
        ]

        def flatten(args: tuple, kwargs: dict) -> list:
            order = list(spec.child(1).context or ()) if spec is not None else list(kwargs)
            kwargs = {k: kwargs[k] for k in (*order, *kwargs) if k in kwargs}
            leaves, given = _pytree.tree_flatten((tuple(args), kwargs))
            if spec is not None and given != spec:
                raise RunError("the arguments do not have the structure of the example inputs")
            taken = []
            for leaf, constant_ in zip(leaves, fixed):
                if constant_ is None:
                    taken.append(leaf)
                elif leaf != constant_[1]:
                    raise RunError(
                        f"{constant_[0]} is {leaf!r}, but the model was compiled for "
                        f"{constant_[1]!r}",
                        help="pass a tensor for a value that changes",
                    )
            return taken

        return flatten

    def is_param(self, spec) -> bool:
        return type(spec.arg).__name__ in ("TensorArgument", "SymIntArgument")
