"""What must hold of a program at each level; run after every pass in checked mode.

Graphs: types are what the operators infer, operands belong to the graph, symbols are bound before
they are used. Raises InternalError with the program's text around the offence:

        y: f32[n, 32] = relu(x)
        ^^^ the type is f32[n, 32], the operator gives f32[n, 64]
"""

from __future__ import annotations

from tensorwright.base.errors import InternalError, TensorwrightError
from tensorwright.ir.build import check_tensors
from tensorwright.ir.expr import Symbol
from tensorwright.ir.facts import solve
from tensorwright.ir.graph import CONST, PARAM, Graph, Node, bound_symbols, node_symbols, subgraphs
from tensorwright.ir.loop import Kernel
from tensorwright.ir.module import Module
from tensorwright.ir.printer import excerpt
from tensorwright.ir.type import TensorType, Type, leaves, tensor, type_symbols
from tensorwright.ir.verify_kernel import Offence, check_kernel

_CALLS = {"call": "graphs", "call_kernel": "kernels"}


def verify(m: Module | Graph | Kernel) -> None:
    """Raise InternalError unless all invariants hold."""
    try:
        if isinstance(m, Graph):
            check_graph(m, set())
        elif isinstance(m, Kernel):
            check_kernel(m)
        else:
            check_module(m)
    except Offence as e:
        raise InternalError(f"the program is not valid\n{excerpt(m, e.at, e.message)}") from None


def check_module(m: Module) -> None:
    if m.graphs and m.entry not in m.graphs:
        raise Offence(m, f"the entry {m.entry!r} is not in the module")
    missing = [e for e in m.entries if e not in m.graphs]
    if missing or (m.entries and m.entries[0] != m.entry):
        raise Offence(m, f"the entries {m.entries} do not begin with {m.entry!r}, or are not here")
    for name, g in m.graphs.items():
        if g.name != name:
            raise Offence(g, f"the graph {g.name!r} is called {name!r} in its module")
        check_graph(g, set(), m)
    for k in m.kernels.values():
        check_kernel(k, m.kernels)


def check_graph(g: Graph, outer: set[Symbol], m: Module | None = None) -> None:
    """`outer` are symbols bound around the graph: bodies of control flow may mention them."""
    names = [p.name for p in g.params]
    for p in g.params:
        if names.count(p.name) > 1:
            raise Offence(g, f"two parameters are named {p.name!r}")
    dims = [d for p in g.params for t in leaves(p.type) for d in getattr(t, "shape", ())]
    unsolved = [s.name for s in solve(dims, outer).unsolved] if not outer else []
    if unsolved:
        raise Offence(g, f"{', '.join(unsolved)} cannot be found from the parameters' shapes")
    bound = outer | type_symbols(*(p.type for p in g.params))
    params = set(g.params)
    known: dict[int, bool] = {}
    for n in g.nodes():
        if n in params:
            continue
        if n.op is PARAM:
            raise Offence(n, f"{n.name!r} is a parameter of another graph")
        _check_symbols(n, bound, known)
        _check_node(n, m)
        for body in subgraphs(n):
            check_graph(body, bound | set(bound_symbols(n)), m)
    if g.result_names and len(g.result_names) != len(g.results):
        raise Offence(g, f"{len(g.result_names)} names for {len(g.results)} results")
    for p, r in g.state:
        if g.params[p].type != g.results[r].type:
            raise Offence(g, f"the state {g.params[p].name!r} is {g.params[p].type} before and "
                          f"{g.results[r].type} after")  # fmt: skip


def _check_symbols(n: Node, bound: set[Symbol], known: dict[int, bool]) -> None:
    own = bound_symbols(n)
    for s in own:
        if s in bound:
            raise Offence(n, f"the symbol {s.name} is bound twice")
    bound.update(own)
    key = id(n.type)
    if not own and len(n.attrs) == 0 and known.get(key):
        return
    for s in node_symbols(n):
        if s not in bound:
            raise Offence(n, f"the symbol {s.name} is not bound here")
    known[key] = True


def _check_node(n: Node, m: Module | None) -> None:
    if n.op is CONST:
        array = n.attrs["value"]
        _same_type(n, tensor(array.dtype, *array.shape))
        return
    count, least = len(n.args), len(n.op.params) - n.op.is_variadic
    if count < least or (count > least and not n.op.is_variadic):
        raise Offence(n, f"{count} operands for {n.op.name}({', '.join(n.op.params)})")
    for name, a in zip(n.op.params, n.args):
        if a is None and not name.endswith("?"):
            raise Offence(n, f"the operand {name} is missing")
    if m is not None and n.op.name in _CALLS:
        table = getattr(m, _CALLS[n.op.name])
        if n.attrs["callee"] not in table:
            raise Offence(n, f"{n.attrs['callee']!r} is not in the module")
    try:
        check_tensors(n.op, n.args)
        _same_type(n, n.op.infer(*(None if a is None else a.type for a in n.args), **n.attrs))
    except TensorwrightError as e:
        raise Offence(n, e.message) from None


def _same_type(n: Node, inferred: Type) -> None:
    if inferred != n.type:
        raise Offence(n, f"the type is {n.type}, the operator gives {inferred}")
    for t in leaves(n.type):
        if isinstance(t, TensorType) and t.dtype.kind == "index":
            raise Offence(n, "a tensor of indices")


__all__ = ["verify"]
