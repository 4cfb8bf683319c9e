"""ONNX models -> graph functions.

    import_onnx("mlp.onnx", shapes={"x": "n[1..64], 784"})  ->  Module(main(x: f32[n, 784]) -> ...)

Parameters, results and constants keep the model's names; every node says which model node it comes
from. Integer tensors that compute shapes become index expressions (`onnx_symbolic`), functions are
inlined, and everything that cannot be imported is reported at once.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from tensorwright.base.errors import CompileError, FrontendError, InternalError, TensorwrightError
from tensorwright.frontend import (  # noqa: F401  (each fills the converter table)
    onnx_contrib,
    onnx_contrib_attention,
    onnx_contrib_quantized,
    onnx_ops_attention,
    onnx_ops_control,
    onnx_ops_elementwise,
    onnx_ops_index,
    onnx_ops_ml,
    onnx_ops_movement,
    onnx_ops_nn,
    onnx_ops_norm,
    onnx_ops_quantize,
    onnx_ops_random,
    onnx_ops_recurrent,
    onnx_ops_reduce,
    onnx_ops_sequence,
    onnx_ops_signal,
    onnx_ops_slice,
    onnx_ops_text,
    onnx_ops_vision,
)
from tensorwright.frontend.demands import Demands
from tensorwright.frontend.onnx_fold import fold
from tensorwright.frontend.onnx_function import function_of
from tensorwright.frontend.onnx_model import (
    AttributeReference,
    FunctionRecord,
    GraphRecord,
    ModelRecord,
    NodeRecord,
    ValueRecord,
    read_model,
)  # fmt: skip
from tensorwright.frontend.onnx_ops import (
    Call,
    OptionalValue,
    SequenceValue,
    StringValue,
    bind,
    find_converter,
    value_kind,
)  # fmt: skip
from tensorwright.frontend.onnx_ops_sequence import declared, is_tensor, native
from tensorwright.frontend.onnx_scope import POISON, Scope, live_nodes
from tensorwright.frontend.onnx_sequences import pattern_of
from tensorwright.frontend.onnx_symbolic import Symbolic
from tensorwright.frontend.shapes import Shapes
from tensorwright.ir.build import current_location, location
from tensorwright.ir.dtype import dtype
from tensorwright.ir.expr import Symbol, as_expr, symbols_of
from tensorwright.ir.facts import evaluate
from tensorwright.ir.graph import CONST, PARAM, Graph, Node, constant, graph, param
from tensorwright.ir.module import Module
from tensorwright.ir.type import DataType, TensorType

MAX_CALLS = 24  # functions calling functions
MAX_REPORTED = 40
MAX_WIDENED = 4  # sizes of which it is tried whether they may be 0, an import each
MAX_RETRIES = 32  # layers after layers may each say more of the sizes that they take


def import_onnx(
    model, shapes: str | Mapping | None = None, constants: Mapping[str, object] | None = None
) -> Module:
    """The module of an ONNX model, given as a path, bytes or a ModelProto.

    shapes: dimensions of inputs, in the language of `frontend.shapes`. constants: values of inputs
    that are to be fixed, by name. Raises FrontendError.
    """
    record = read_model(model)
    fixed = constants or {}
    # Sizes may be 0 if everything stays as simple as if they were at least 1: all, or some.
    plain = settled(record, fixed, shapes, least=0)
    if isinstance(plain, Importer) and not plain.undecided:
        return plain.module
    first = settled(record, fixed, shapes, least=1)
    if isinstance(first, Importer):
        return widened(first, record, fixed, shapes).module
    if not first.undecided:
        raise first.error
    # Shapes that do not fit together may fit if slices do not reach beyond what they slice.
    last = settled(record, fixed, shapes, least=1, strict=True)
    if isinstance(last, Importer):
        return last.module
    raise first.error


@dataclass
class Failure:
    error: TensorwrightError
    undecided: int


def widened(found: Importer, record: ModelRecord, fixed, shapes) -> Importer:
    """The import with 0 among those sizes that nothing becomes more complicated by, one after the
    other: of those alone with which no result is empty, as a cache of the past that begins so."""
    empty: tuple[str, ...] = ()
    for s in optional_sizes(found.module.main)[:MAX_WIDENED]:
        again = settled(record, fixed, shapes, least=1, empty=(*empty, s.name))
        if isinstance(again, Importer) and again.undecided <= found.undecided:
            found, empty = again, (*empty, s.name)
    return found


def optional_sizes(g: Graph) -> list[Symbol]:
    """Sizes of inputs, at least 1, that lengthen results without which none would be empty."""
    types = [p.type for p in g.params if isinstance(p.type, TensorType)]
    dims = [as_expr(d) for t in types for d in t.shape]
    own = {s: 1 for d in dims for s in sorted(symbols_of(d), key=lambda s: s.name) if s.min == 1}
    sizes = [as_expr(d) for r in g.results if isinstance(r.type, TensorType) for d in r.shape]
    of = {s: [d for d in sizes if s in symbols_of(d) <= own.keys()] for s in own}
    return [s for s in own if of[s] and all(evaluate(d, {**own, s: 0}) > 0 for d in of[s])]


def settled(
    record: ModelRecord, fixed, shapes, least: int, strict=False, empty: Collection[str] = ()
) -> Importer | Failure:
    """A finished import whose sizes are bounded by all that the model demands of them."""
    demands, failure = Demands(), None
    for _ in range(MAX_RETRIES):
        again = Importer(record, fixed, strict, demands, least, empty)
        try:
            again.module = Module({"main": again.main(shapes)})
        except (CompileError, FrontendError) as e:
            failure = failure or Failure(e, again.undecided)
            again.module = None
        if again.demands == demands:
            return again if again.module is not None else failure
        demands = again.demands
    return again if again.module is not None else failure


class Importer:
    """One import: the model's records, the symbols, and the problems found so far.

    A slice up to a symbolic size is clamped to what is sliced, as ONNX says, which makes shapes
    that no other shape equals. `strict` takes such sizes as they are: the program checks them, or
    the dimension of an input gets an upper bound, noted in `demands`. `least`: the lower bound of
    sizes of which nothing is said, but 0 for those that `empty` names.
    """

    def __init__(
        self, model: ModelRecord, constants: Mapping[str, object], strict: bool = False,
        demands: Demands | None = None, least: int = 1, empty: Collection[str] = (),
    ):  # fmt: skip
        self.strict, self.undecided, self.least, self.empty = strict, 0, least, empty
        self.demands = copy.deepcopy(demands or Demands())
        self.module: Module | None = None
        self.model = model
        self.constants = {name: np.asarray(value) for name, value in constants.items()}
        self.symbolic = Symbolic()
        self.problems: list[TensorwrightError] = []

    def main(self, shapes) -> Graph:
        g = self.model.graph
        scope = Scope(opsets=self.model.opsets, mirrors=self.symbolic.mirrors)
        self.bind_initializers(g, scope)
        params = self.parameters(g, shapes, scope)
        self.run_nodes(g, scope)
        if self.problems:
            raise self.report()
        results, names = [], []
        for v in g.outputs:
            value = native(scope.find(v.name))
            if not isinstance(value, Node):
                raise FrontendError(
                    f"output {v.name!r} is {value_kind(value)}",
                    help="only tensors, sequences and optionals of tensors can be results",
                )
            results.append(value)
            names.append(v.name)
        return graph("main", params, results, names)

    def parameters(self, g: GraphRecord, shapes, scope: Scope) -> list[Node]:
        """The parameters of the main graph, bound in `scope`."""
        inputs = [v for v in g.inputs if v.name not in g.initializers]
        unknown = set(self.constants) - {v.name for v in inputs}
        if unknown:
            raise FrontendError(f"constants names {sorted(unknown)}, no inputs of the model")
        wishes = Shapes(shapes, [v.name for v in inputs], self.demands, self.least, self.empty)
        for v in inputs:
            wishes.learn(v.name, v.shape)
        params = []
        for v in inputs:
            if v.name in self.constants:
                scope.bind(v.name, self.given_constant(v))
                continue
            node = param(v.name, self.type_of_input(v, wishes))
            params.append(node)
            scope.bind(v.name, node)
        return params

    def type_of_input(self, v: ValueRecord, wishes: Shapes) -> TensorType | DataType:
        if v.kind == "tensor":
            return TensorType(v.dtype, wishes.shape_of(v.name, v.shape))
        given = wishes.shape_of(v.name, None) if v.name in wishes.given else None
        kind = declared(v, None if given is None else pattern_of(given))
        if kind is None:
            what = {
                "string": "strings", "unknown": "no tensor of known type",
                "optional": "an optional of something else",
                "sequence": "a sequence of something else",
            }  # fmt: skip
            raise FrontendError(
                f"input {v.name!r} is {what.get(v.kind, f'a {v.kind} value')}",
                help="only tensors, sequences and optionals of tensors can be inputs",
            )
        return kind.type

    def given_constant(self, v) -> Node:
        array = self.constants[v.name]
        if v.dtype is not None and dtype(array.dtype) is not v.dtype:
            raise FrontendError(
                f"the constant for input {v.name!r} has type {array.dtype}, not {v.dtype}"
            )
        return constant(array, v.name)

    def report(self) -> TensorwrightError:
        """All problems as one error."""
        if len(self.problems) == 1:
            return self.problems[0]
        notes = [
            f"{e.location.splitlines()[0]}: {e.message}" if e.location else e.message
            for e in self.problems
        ]
        if len(notes) > MAX_REPORTED:
            notes[MAX_REPORTED:] = [f"and {len(notes) - MAX_REPORTED} more"]
        return FrontendError(
            f"{len(self.problems)} nodes of {self.model.file} cannot be imported", tuple(notes),
            self.problems[0].help,
        )  # fmt: skip

    # ---- graphs ---------------------------------------------------------------------------------

    def bind_initializers(self, g: GraphRecord, scope: Scope) -> None:
        for name, array in g.initializers.items():
            scope.bind(name, self.value_of(array, name))

    def value_of(self, array: np.ndarray, name: str = ""):
        return StringValue(array) if array.dtype == object else constant(array, name)

    def run_nodes(self, g: GraphRecord | FunctionRecord, scope: Scope) -> None:
        """Convert the nodes that the outputs need."""
        outputs = [v if isinstance(v, str) else v.name for v in g.outputs]
        for record in live_nodes(g.nodes, outputs):
            self.run_node(record, scope)

    def run_node(self, record: NodeRecord, scope: Scope) -> None:
        label = record.name or next((o for o in record.outputs if o), "")
        where = f'{self.model.file} node "{label}" ({record.op})'
        with location(*scope.where, where):
            try:
                results = self.convert(record, scope)
            except (FrontendError, CompileError) as e:
                self.problems.append(e.located((*scope.where, where)))
                results = [POISON] * len(record.outputs)
            except TensorwrightError:
                raise
            except RecursionError:
                deep = FrontendError(f"{record.op}: the sizes it computes are nested too deeply")
                self.problems.append(deep.located((*scope.where, where)))
                results = [POISON] * len(record.outputs)
            except Exception as e:  # a converter that is not prepared for what the file says
                message = f"{record.op}: {type(e).__name__}: {e}"
                raise InternalError(message).located((*scope.where, where)) from e
        for k, name in enumerate(record.outputs):
            if not name:
                continue
            value = results[k] if k < len(results) else None
            if value is None:
                error = FrontendError(f"{record.op}: output {k} is not supported")
                self.problems.append(error.located((*scope.where, where)))
                value = POISON
            scope.bind(name, named(value, name))

    def convert(self, record: NodeRecord, scope: Scope) -> list:
        """The values of a node's outputs."""
        opset = scope.opsets.get(record.domain, 1 if record.domain else 0)
        row = find_converter(record.domain, record.op, opset or 1)
        attrs = self.resolve(record.attrs, scope)
        own = self.model.functions.get((record.domain, record.op, record.overload))
        if row is None and own is None and not self.has_body(record, opset):
            raise unsupported(record, opset)
        args = [scope.find(name) if name else None for name in record.inputs]
        if any(a is POISON for a in args) or scope.poisoned(record):
            return [POISON] * len(record.outputs)
        while args and args[-1] is None:
            args.pop()
        if own is not None or row is None:
            body = own or self.schema_body(record, attrs, opset, args)
            return self.call(body, args, attrs, scope)
        if record.domain == "" and opset == 0:
            raise FrontendError("the model imports no version of the default operator set")
        call = Call(record, opset, self, scope, attrs)
        return self.apply(row, call, args)

    def apply(self, row, call: Call, args: list) -> list:
        """The results of a converter, as shape expressions or constants where they are known."""
        args, attrs = bind(row, call.record, args, call.attrs)
        name = call.record.op if call.record.domain == "" else ""
        tensors = all(a is None or is_tensor(a) for a in args)
        results: list = []

        def run():
            if not results:
                out = row.function(call, *args, **attrs)
                results.extend(out if isinstance(out, (tuple, list)) else [out])

        def dtype_of_result():
            run()
            return results[0].dtype

        if name == "CastLike" and tensors:  # to a type that is known by now
            name, shown = "Cast", (args[:1], {"to": args[1].dtype.onnx})
        else:
            shown = args, attrs
        if tensors and call.outputs == 1 and name:
            mirrored = self.symbolic.apply(name, *shown, dtype_of_result)
            if mirrored is not None:
                return [mirrored]
        run()
        if row.pure and tensors and all(a is None or a.op is CONST for a in args):
            results = [fold(r) if isinstance(r, Node) else r for r in results]
        if tensors and len(results) == 1 and isinstance(results[0], Node) and name:
            self.symbolic.learn(name, results[0], *shown)
        if name == "Split" and tensors and args[0].rank == 1:
            self.symbolic.learn_pieces(results, args[0])
        return results

    def resolve(self, attrs: Mapping, scope: Scope) -> dict:
        """Attributes with references to the enclosing function's attributes replaced."""
        found = {}
        for name, value in attrs.items():
            if isinstance(value, AttributeReference):
                if value.name not in scope.attrs:
                    continue
                value = scope.attrs[value.name]
            found[name] = value
        return found

    # ---- functions and bodies -------------------------------------------------------------------

    def has_body(self, record: NodeRecord, opset: int) -> bool:
        return function_of(record, {}, opset or 1, None, probe=True) is not None

    def schema_body(self, record, attrs, opset, args) -> FunctionRecord:
        types = [a.type if isinstance(a, Node) else None for a in args]
        found = function_of(record, attrs, opset, types)
        if found is None:
            raise unsupported(record, opset)
        return found

    def call(self, f: FunctionRecord, args: list, attrs: dict, scope: Scope) -> list:
        """The results of a function, inlined."""
        if len(scope.calls) >= MAX_CALLS or f in scope.calls:
            raise FrontendError(f"function {f.name!r} calls itself or is nested too deeply")
        if len(args) > len(f.inputs):
            raise FrontendError(f"function {f.name!r} takes {len(f.inputs)} inputs")
        inner = Scope(
            opsets=f.opsets, attrs={**f.defaults, **attrs}, calls=(*scope.calls, f),
            mirrors=self.symbolic.mirrors,
            where=current_location(),
        )  # fmt: skip
        for name, value in zip(f.inputs, [*args, *[None] * (len(f.inputs) - len(args))]):
            inner.bind(name, value)
        self.run_nodes(f, inner)
        return [inner.find(name) for name in f.outputs]

    def body(self, g: GraphRecord, scope: Scope, params: list[Node]) -> tuple[list, Scope]:
        """The results of a body whose inputs are `params`, and its scope, which knows what it
        captured."""
        if len(params) != len(g.inputs):
            raise FrontendError(f"body {g.name!r} has {len(g.inputs)} inputs, not {len(params)}")
        inner = Scope(parent=scope)
        self.bind_initializers(g, inner)
        for v, node in zip(g.inputs, params):
            inner.bind(v.name, node)
        self.run_nodes(g, inner)
        return [inner.find(v.name) for v in g.outputs], inner

    def inline(self, g: GraphRecord, scope: Scope, args: list) -> list:
        """The results of a body in the place of its node."""
        inner = Scope(parent=scope, captures=False)
        self.bind_initializers(g, inner)
        for v, value in zip(g.inputs, args):
            inner.bind(v.name, value)
        self.run_nodes(g, inner)
        return [inner.find(v.name) for v in g.outputs]


def unsupported(record: NodeRecord, opset: int) -> FrontendError:
    domain = record.domain or "ai.onnx"
    return FrontendError(
        f"operator {record.op} of domain {domain}, opset {opset}, is not supported",
        help="export the model with other operators, or write it as a function of supported ones",
    )


def named(value, name: str):
    """The same value; a node that was just made takes the name of the model's value. (It has no
    users yet that could tell; a copy would lose what is known of the node.)"""
    if isinstance(value, Node) and not value.name and value.op not in (PARAM, CONST):
        object.__setattr__(value, "name", name)
    return value


__all__ = ["Importer", "OptionalValue", "SequenceValue", "import_onnx"]
