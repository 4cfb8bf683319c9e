"""Lower operators and fused groups to kernels.

    y = fused(x, w, body=...)   ->   y = call_kernel(x, w, callee="matmul_add_relu", scalars=(n,))

A kernel's first form is the concatenation of the loop nests that define its operators
(`OpDef.lower`), intermediate values in temporary buffers; scheduling then makes it fast. Operators
that only the host executes (control flow, views, sizes bound at run time) stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from types import MappingProxyType

from tensorwright.base.errors import CompileError
from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, as_expr, is_const, sym, symbols_of, walk
from tensorwright.ir.graph import (
    CONST,
    PARAM,
    Graph,
    Node,
    param,
    rebuild,
    structure,
    subgraphs,
    users,
    with_args,
)
from tensorwright.ir.loop import Alloc, Kernel, seq
from tensorwright.ir.module import Module, unique
from tensorwright.ir.type import TensorType, TupleType
from tensorwright.ops.kernel import call_kernel, fused
from tensorwright.passes.cost import kernel_cost
from tensorwright.passes.share import Shared, shared_bodies

HOST_OPS = frozenset((
    "param", "const", "item", "make_tuple", "reshape", "bind_size", "if_", "while_", "scan_",
    "call", "call_kernel", "call_extern", "construct", "match", "closure", "apply",
    "census", "plant", "read_rows", "room",
))  # fmt: skip
KERNELS = frozenset(("call_kernel", "fused"))


def joined_results(g: Graph) -> set[Node]:
    """Results that are tensors one behind the other in memory, each of which something else needs
    as well: they are computed there, and no kernel copies them."""
    if g.state:
        return set()
    used = users(g)
    told = symbols_of(*(as_expr(d) for p in g.params if isinstance(p.type, TensorType)
                        for d in p.shape))  # fmt: skip

    def lies_there(a: Node) -> bool:
        found = [a]
        while found[-1].op.name == "reshape":
            found.append(found[-1].args[0])
        made = found[-1].op not in (PARAM, CONST) and found[-1].op.name not in HOST_OPS - KERNELS
        return made and any(len(set(used[n])) > 1 for n in found)

    return {
        r for r in g.results
        if r.op.name == "concat" and len(set(r.args)) == len(r.args) > 1
        and all(is_const(as_expr(d), 1) for d in r.shape[: r.attrs["axis"]])
        and symbols_of(*map(as_expr, r.shape)) <= told and all(map(lies_there, r.args))
    }  # fmt: skip


def define_kernel(name: str, g: Graph) -> Kernel:
    """The unscheduled kernel of a group: its parameters, results and one nest after another."""
    inputs = [Buffer(p.name or f"x{k}", p.dtype, p.shape) for k, p in enumerate(g.params)]
    values: dict[Node, object] = dict(zip(g.params, inputs))
    outputs: list[Buffer] = []
    body: list[ir.Stmt] = []
    results = {r: k for k, r in reversed(list(enumerate(g.results)))}
    for k, node in enumerate(g.nodes()):
        if node in values:
            continue
        if node.op.name == "item":
            values[node] = values[node.args[0]][node.attrs["index"]]
            continue
        is_result = node in results
        made = _buffers(node, f"{node.op.name}{k}", "param" if is_result else "temp")
        values[node] = made
        flat = made if isinstance(made, tuple) else (made,)
        if not is_result:
            body += [Alloc(b) for b in flat]
        nest = define_node(node, made, [values.get(a) for a in node.args])
        # a nest without loops stays one statement
        body.append(ir.loop("once", 1, lambda _, s=nest: s) if isinstance(nest, ir.Seq) else nest)
    for r in g.results:
        made = values[r]
        outputs += made if isinstance(made, tuple) else (made,)
    params = (*inputs, *outputs)
    root = seq(*body)
    symbols = free_symbols(params, root)
    sources = tuple(dict.fromkeys(place for n in g.nodes() for place in n.loc))
    return Kernel(name, params, len(outputs), root, symbols, sources)


def _buffers(node: Node, name: str, scope: str):
    if isinstance(node.type, TupleType):
        return tuple(Buffer(f"{name}_{k}", t.dtype, t.shape, scope)
                     for k, t in enumerate(node.type.items))  # fmt: skip
    return Buffer(name, node.dtype, node.shape, scope)


def define_node(node: Node, out, ins: list) -> ir.Stmt:
    """The loop nest of one operator."""
    if node.op is CONST:
        value = node.attrs["value"]
        return ir.store(out, (), as_expr(value.item(), out.dtype))
    if node.op.lower is None:
        raise CompileError(f"{node.op.name} has no kernel").located(node.loc)
    return node.op.lower(out, *ins, **node.attrs)


def free_symbols(params, root: ir.Stmt) -> tuple:
    """Symbols of the shapes and of the body, in a stable order."""
    found = dict.fromkeys(ir.free_symbols(root))
    for b in params:
        for d in b.shape:
            if not isinstance(d, int):
                found.update(dict.fromkeys(e.value for e in walk(d) if e.op == "sym"))
    return tuple(found)


def lower(m: Module) -> Module:
    """`m` with every group and operator as a call of a kernel; equal groups share one, and those
    that differ in an extent which does not matter to it (`share.py`)."""
    kernels = dict(m.kernels)
    known: dict[tuple, str] = {}
    groups = [n.attrs["body"] for g in m.all_graphs() for n in g.nodes() if n.op is fused]
    shared = shared_bodies(groups)

    def lower_graph(g: Graph) -> Graph:
        joined = joined_results(g)
        return rebuild(g, lambda node, args: with_args(node, args) if node in joined
                       else lower_node(with_args(node, args)))  # fmt: skip

    def lower_bodies(node: Node) -> Node:
        attrs = {k: lower_graph(v) if isinstance(v, Graph) else v for k, v in node.attrs.items()}
        return replace(node, attrs=attrs)

    def lower_node(node: Node) -> Node:
        if node.op.name in HOST_OPS:
            return lower_bodies(node) if subgraphs(node) else node
        return lower_to_kernel(node, kernels, known, shared)

    graphs = {name: lower_graph(g) for name, g in m.graphs.items()}
    return replace(m, graphs=graphs, kernels=kernels)


def lower_to_kernel(
    node: Node, kernels: dict[str, Kernel], known: dict[tuple, str],
    shared: Mapping[tuple, Shared] = MappingProxyType({}),
) -> Node:  # fmt: skip
    """The call of the kernel that computes a group or an operator. A new one is added to `kernels`,
    unless one of the same structure is `known`."""
    body = node.attrs["body"] if node.op is fused else single(node)
    places = [place for n in body.nodes() for place in n.loc]
    key, values = structure(body), {}
    several = shared.get(key)
    if several is not None:
        body, values = several.body, several.values
        key = structure(body)
    name = known.get(key)
    if name is None:
        name = known[key] = unique(kernel_name(body), kernels)
        k = define_kernel(name, body)
        work = kernel_cost(k)
        kernels[name] = replace(k, work=work if several is None else several.mean(work))
    else:
        more = (*kernels[name].sources, *places)
        kernels[name] = replace(kernels[name], sources=tuple(dict.fromkeys(more)))
    scalars = tuple(values.get(s, sym(s)) for s in kernels[name].symbols)
    made = call_kernel(*(a for a in node.args if a is not None), callee=name, type=node.type,
                       scalars=scalars)  # fmt: skip
    return replace(made, name=node.name, loc=node.loc)


def without_uncalled(m: Module, replaced: Set[str]) -> Module:
    """`m` without those kernels of `replaced` that no graph calls any more."""
    used = {n.attrs["callee"] for g in m.all_graphs() for n in g.nodes() if n.op is call_kernel}
    kernels = {name: k for name, k in m.kernels.items() if name in used or name not in replaced}
    return replace(m, kernels=kernels)


def single(node: Node) -> Graph:
    """A group of one node."""
    params = [None if a is None else param(a.name if a.op is PARAM else "", a.type)
              for a in node.args]  # fmt: skip
    alone = replace(node, args=tuple(params))
    return Graph(node.op.name, tuple(p for p in params if p is not None), (alone,))


def kernel_name(g: Graph) -> str:
    """A name from the operators of a group, at most four of them."""
    names = [n.op.name for n in g.nodes() if n.op not in (PARAM, CONST) and n.op.name != "reshape"]
    if len(names) > 4:
        names = [*names[:2], "etc", names[-1]]
    return "_".join(names) or "copy"
