"""The numbers of a program beside those of another engine.

    print(tw.compare(program, "onnxruntime", x))
    print(program.compare("reference", layers=True))

With `layers` every value that has a name in the model and that a kernel leaves in memory is
compared as well, in the order of computation; `layers="all"` keeps all named values, which undoes
fusion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tensorwright.base.errors import FrontendError
from tensorwright.base.value import Value
from tensorwright.driver.compile import build_native
from tensorwright.driver.pipeline import stages
from tensorwright.ir.graph import CONST, PARAM, Graph, Node
from tensorwright.ir.interp import run_module
from tensorwright.ir.module import Module
from tensorwright.ir.type import TensorType
from tensorwright.runtime.buffer import dtype_name
from tensorwright.runtime.program import Program
from tensorwright.tools.engines import onnx_values, open_engine
from tensorwright.tools.inputs import make_inputs
from tensorwright.tools.limits import index_limits
from tensorwright.tools.numbers import Difference, difference, incomparable, tolerance_of
from tensorwright.tools.signature import signature

FUSED = "fuse"  # the pass after which values that have no name left are inside kernels


@dataclass(frozen=True)
class Comparison:
    """The result: print it, or look at `outputs` and `layers`."""

    name: str
    against: str
    outputs: tuple[Difference, ...]
    layers: tuple[Difference, ...] = ()

    @property
    def ok(self) -> bool:
        return all(d.ok for d in self.outputs)

    @property
    def first_bad_layer(self) -> Difference | None:
        return next((d for d in self.layers if not d.ok), None)

    def __str__(self) -> str:
        lines = [
            f"{self.name} against {self.against}: {'within' if self.ok else 'OUTSIDE'} tolerance"
        ]
        for d in (*self.layers, *self.outputs):
            mark = " " if d.ok else "!"
            lines.append(
                f"{mark} {d.name}: error {d.error:.1e}, absolute {d.max_abs:.1e}, "
                f"relative {d.max_rel:.1e}, cosine {d.cosine:.6f} {d.note}".rstrip()
            )
        return "\n".join(lines)


def compare(
    program: Program, against: str = "reference", *inputs, layers: bool | str = False,
    tolerance: float | None = None, seed: int = 0, **named,
) -> Comparison:  # fmt: skip
    """Run the program and `against` (onnxruntime, openvino, torch or reference) on the same inputs,
    random ones where none are given, and measure how far the outputs are apart."""
    feeds = complete_feeds(program, inputs, named, seed)
    module, source = getattr(program, "module", None), getattr(program, "source", None)
    theirs = open_engine(against, source, module, program.threads)(
        their_feeds(program, feeds, against)
    )
    names = [o.name for o in program.outputs]
    ours = tensors(names, as_list(run_flat(program, feeds)))
    theirs = tensors(names, theirs)
    found = tuple(
        compared(program, n, ours.get(n), theirs.get(n), tolerance)
        for n in dict.fromkeys((*ours, *theirs))
    )
    inner = compare_layers(program, against, feeds, layers == "all", tolerance) if layers else ()
    return Comparison(program.name, against, found, inner)


def compared(
    program: Program, name: str, ours: np.ndarray | None, theirs: np.ndarray | None,
    tolerance: float | None,
) -> Difference:  # fmt: skip
    """One row. None stands for a tensor that one side does not have, as where lists differ in
    length."""
    known = theirs if ours is None else ours
    allowed = accepted(program, known) if tolerance is None else tolerance
    if ours is None or theirs is None:
        note = f"only in {'the other' if ours is None else 'ours'}"
        return incomparable(name, dtype_name(known.dtype), known.shape, allowed, note)
    return difference(name, ours, theirs, dtype_name(ours.dtype), allowed)


def accepted(program: Program, result: np.ndarray) -> float:
    """The error that a result may have: of bf16 for f32 that was asked for in bf16."""
    name, machine = dtype_name(result.dtype), getattr(program, "target", None)
    asked = "model" if machine is None else machine.precision
    return tolerance_of(asked if name == "f32" and asked != "model" else name)


def tensors(names: Sequence[str], results: Sequence) -> dict[str, np.ndarray]:
    """Every tensor in the results, by its place: `y`, `list[2]`, `tree.Node.0`."""
    found: dict[str, np.ndarray] = {}
    stack = list(zip(names, results))[::-1]
    while stack:
        name, x = stack.pop()
        if isinstance(x, list):
            stack += [(f"{name}[{k}]", part) for k, part in enumerate(x)][::-1]
        elif isinstance(x, Value):
            stack += [(f"{name}.{x.case}.{k}", part) for k, part in enumerate(x.fields)][::-1]
        elif x is not None:
            found[name] = np.asarray(x)
    return found


def as_list(results) -> list[np.ndarray]:
    return list(results) if isinstance(results, tuple) else [results]


def run_flat(program: Program, feeds: Mapping):
    """The flat outputs for inputs by name, also of programs that take a model's own arguments."""
    return Program.__call__(program, **feeds)


def their_feeds(program: Program, feeds: Mapping, against: str) -> Mapping:
    """What another engine is given: a torch module has its buffers itself."""
    state = getattr(program, "state", {}) if against == "torch" else {}
    return {n: v for n, v in feeds.items() if n not in state}


def complete_feeds(program: Program, inputs: Sequence, named: Mapping, seed: int) -> dict:
    """Inputs by name, random where they are not given."""
    infos, symbols = signature(program)
    state = dict(getattr(program, "state", {}))  # what a torch module keeps from call to call
    free = [i for i in infos if i.name not in state]
    given = {**dict(zip((i.name for i in free), inputs)), **named}
    if given:
        given = {**given, **state}
        program._bind((), given)  # complains of what is missing or unknown
        return {i.name: given[i.name] if i.is_data else np.asarray(given[i.name]) for i in infos}
    m = getattr(program, "module", None)
    limits = {} if m is None else index_limits(m)
    return {**make_inputs(infos, symbols, seed=seed, limits=limits), **state}


# ---- layers ------------------------------------------------------------------------------------


def compare_layers(
    program: Program, against: str, feeds: Mapping, everything: bool, tolerance: float | None
) -> tuple[Difference, ...]:
    """One row for each named value, in order of computation."""
    module = getattr(program, "module", None)
    if module is None:
        raise FrontendError("layers are compared by compiling the model again: give the model")
    values = named_values(module.main)
    if not everything:
        fused = next(m for name, m in stages(module, program.target) if name == FUSED)
        kept = named_values(fused.main)
        values = {n: v for n, v in values.items() if n in kept}
    if against in ("onnxruntime", "ort", "openvino"):
        known = onnx_values(program.source)
        values = {n: v for n, v in values.items() if n in known}
    if not values:
        return ()
    ours = run_layers(program, values, feeds)
    theirs = their_layers(program, against, values, feeds)
    return tuple(compared(program, n, ours[n], theirs[n], tolerance) for n in values)


def named_values(g: Graph) -> dict[str, Node]:
    """Tensors of a graph by their name in the model, in order of computation."""
    found = {}
    for n in g.nodes():
        if n.name and n.op not in (PARAM, CONST) and isinstance(n.type, TensorType):
            found.setdefault(n.name, n)
    return found


def with_results(m: Module, nodes: Mapping[str, Node]) -> Module:
    """`m` with other results of its entry."""
    g = replace(m.main, results=tuple(nodes.values()), result_names=tuple(nodes),
                state=())  # fmt: skip
    return replace(m, graphs={**m.graphs, m.entry: g})


def run_layers(program: Program, values: Mapping[str, Node], feeds) -> dict:
    """The named values of the imported module, run natively. They are results of the module that is
    compiled, so that each has the order of dimensions which the model gives it, whatever order the
    passes choose inside."""
    *_, (_, made) = stages(with_results(program.module, values), program.target)
    native = build_native(made, program.target, program.name, program.threads)
    return dict(zip(values, as_list(native(**feeds))))


def their_layers(program: Program, against: str, values: Mapping[str, Node], feeds) -> dict:
    if against == "reference":
        m = with_results(program.module, values)
        return dict(zip(values, run_module(m, [feeds[p.name] for p in m.main.params])))
    engine = open_engine(against, program.source, program.module, program.threads, list(values))
    return dict(zip(values, map(np.asarray, engine(feeds))))
