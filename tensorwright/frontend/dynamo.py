"""The back end of torch.compile: `torch.compile(module, backend="tensorwright")`.

Dynamo gives a graph, aot_autograd makes it functional (writes and aliases become results that it
copies back), and each graph is imported and compiled for inference. Parameters and buffers of the
module become constants, so that their layout can be chosen once; a call after one of them was
written compiles again. Sizes that Dynamo made symbolic stay symbolic. Nothing falls back to torch:
what cannot be imported or compiled raises.

    fast = torch.compile(model.eval(), backend="tensorwright", options={"threads": 4})
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tensorwright.base.errors import FrontendError
from tensorwright.frontend.torch_graph import Importer
from tensorwright.frontend.torch_ops import dtype_of
from tensorwright.frontend.torch_symbols import Sizes, size_scalar, sympy_of
from tensorwright.frontend.torch_table import TABLE
from tensorwright.ir.dtype import i64
from tensorwright.ir.expr import Expr
from tensorwright.ir.graph import Node, graph, param
from tensorwright.ir.interp import limit_depth
from tensorwright.ir.module import Module
from tensorwright.ir.type import TensorType
from tensorwright.ops import index as ix

# Python calls that the reference may nest once Dynamo's hook runs each of them: it takes some 330
# bytes of the C stack, whose usual 8 MiB end the process.
DEPTH = 15_000

# Compiles a Module; tests put an interpreter here. None: tensorwright.compile.
COMPILE: Callable | None = None


def backend(gm, example_inputs: Sequence, **options) -> Callable:
    """What torch.compile calls with a captured graph."""
    import torch
    from torch._dynamo.backends.common import aot_autograd

    limit_depth(DEPTH)
    options = dict(options.get("options") or options)
    held = held_tensors(gm, example_inputs)
    if torch.is_grad_enabled() and any(getattr(x, "requires_grad", False) for x in example_inputs):
        raise no_gradients()

    def compile_inference(functional, inputs):
        return Compiled(functional, inputs, frozen(inputs, held, len(example_inputs)), options)

    def refuse(functional, inputs):
        raise no_gradients()

    make = aot_autograd(
        fw_compiler=refuse, bw_compiler=refuse, inference_compiler=compile_inference,
        decompositions=tables(),
    )  # fmt: skip
    return make(gm, example_inputs)


def no_gradients() -> FrontendError:
    return FrontendError(
        "gradients of modules compiled by torch.compile are not supported yet",
        help="call the module under torch.no_grad() or torch.inference_mode(), or turn off "
        "requires_grad on its parameters: module.requires_grad_(False)",
    )


def tables() -> dict:
    """aot_autograd's decompositions: torch's own, without what is imported whole."""
    import torch

    table = dict(torch._decomp.core_aten_decompositions().items())
    return {op: f for op, f in table.items() if str(op).removeprefix("aten.") not in TABLE}


def held_tensors(gm, example_inputs: Sequence) -> dict[int, object]:
    """Parameters and buffers of the user's module among the inputs, by position."""
    import torch

    found = {}
    places = [n for n in gm.graph.nodes if n.op == "placeholder"]
    for k, (n, x) in enumerate(zip(places, example_inputs)):
        static = (n.meta.get("tensor_dict") or {}).get("_dynamo_static_input_type")
        if isinstance(x, torch.nn.Parameter) or (static and isinstance(x, torch.Tensor)):
            found[k] = x
    return found


def frozen(inputs: Sequence, held: dict[int, object], count: int) -> dict[int, object]:
    """The held tensors by position among the inputs of the functional graph. aot_autograd keeps the
    order unless it merges aliases; then nothing is taken for a constant."""
    import torch

    if len(inputs) != count:
        return {}
    context = torch._guards.TracingContext.try_get()
    written = getattr(getattr(context, "fw_metadata", None), "mutated_inp_runtime_indices", ())
    kept = {k: t for k, t in held.items() if k not in written}
    same = all(tuple(inputs[k].shape) == tuple(t.shape) for k, t in kept.items())
    return kept if same else {}


@dataclass
class Compiled:
    """One functional graph as a callable on torch tensors and ints."""

    functional: object
    examples: Sequence
    held: dict[int, object]
    options: dict
    program: Callable | None = None
    taken: tuple[int, ...] = ()
    slots: list = field(default_factory=list)
    versions: tuple = ()
    _boxed_call: bool = True  # aot_autograd hands over a list that may be emptied

    def __post_init__(self) -> None:
        self.build()

    def build(self) -> None:
        """Import and compile with the present values of the held tensors."""
        from torch._subclasses.fake_tensor import unset_fake_temporarily

        with unset_fake_temporarily():  # the held tensors are real ones
            module, self.taken, self.slots = import_functional(
                self.functional, self.examples, self.held
            )
            self.versions = self.stamp()
            self.program = None
            if module is not None:
                compiler = COMPILE or sys.modules["tensorwright"].compile
                self.program = compiler(module, **self.options)

    def stamp(self) -> tuple:
        """Changes when a held tensor is written or moved."""
        return tuple((t._version, t.data_ptr()) for t in self.held.values())

    def __call__(self, inputs: list) -> list:
        import torch

        if self.stamp() != self.versions:
            self.build()
        given = [inputs[k] for k in self.taken]
        inputs.clear()
        given = [x.detach() if isinstance(x, torch.Tensor) else torch.tensor(x) for x in given]
        results = self.program(*given) if self.program is not None else ()
        results = results if isinstance(results, (tuple, list)) else (results,)
        made = [torch.as_tensor(r) for r in results]
        return [_output(kind, what, made) for kind, what in self.slots]


def _output(kind: str, what, results: list):
    if kind == "constant":
        return what
    return int(results[what]) if kind == "number" else results[what]


def import_functional(functional, examples: Sequence, held: dict[int, object]):
    """(module or None if nothing is computed, positions of the inputs it takes, how each output is
    made)."""
    places = [n for n in functional.graph.nodes if n.op == "placeholder"]
    fakes = [n.meta.get("val", x) for n, x in zip(places, examples)]
    sizes = Sizes(_ranges(fakes))
    importer = Importer(TABLE, sizes)
    own = [k for k in range(len(places)) if k not in held]
    sizes.declare_shapes([places[k].name for k in own], [fakes[k] for k in own])
    params, taken, inputs = [], [], []
    for k, (n, fake) in enumerate(zip(places, fakes)):
        if k in held:
            inputs.append(importer.constant(held[k].detach(), n.name))
        elif hasattr(fake, "shape"):
            params.append(param(n.name, TensorType(dtype_of(fake.dtype), sizes.shape(fake.shape))))
            taken.append(k)
            inputs.append(params[-1])
        elif type(fake).__name__ == "SymInt":
            _take_size(n.name, fake, sizes, params, taken, k)
            inputs.append(sizes.dim(fake))
        else:
            inputs.append(fake)
    values = importer.run(functional, inputs)
    importer.problems.check("the graph that torch.compile captured")
    results, slots = [], []
    for v in values:
        if isinstance(v, (Node, Expr)):
            slots.append(("tensor" if isinstance(v, Node) else "number", len(results)))
            results.append(v if isinstance(v, Node) else size_scalar(v))
        else:
            slots.append(("constant", v))
    module = Module({"main": graph("main", params, results)}) if results else None
    return module, tuple(taken), slots


def _take_size(name: str, fake, sizes: Sizes, params: list, taken: list, k: int) -> None:
    """A size among the inputs: known from a shape, or a parameter that tells it."""
    symbol = sympy_of(fake)
    if not symbol.is_Symbol or symbol in sizes.known:
        return
    params.append(param(name, TensorType(i64, ())))
    taken.append(k)
    ix.bind_size(params[-1], symbols=(sizes.fresh(symbol),))


def _ranges(fakes) -> dict:
    """torch's ranges of the symbols in these values."""
    for fake in fakes:
        for d in (fake, *getattr(fake, "shape", ())):
            environment = getattr(getattr(d, "node", None), "shape_env", None)
            if environment is not None:
                return dict(environment.var_to_range)
    return {}
