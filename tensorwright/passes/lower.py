"""Lower operators and fused groups to kernels.

    y = fused(x, w, body=...)   ->   y = call_kernel(x, w, callee="matmul_add_relu", scalars=(n,))

A kernel's first form is the concatenation of the loop nests that define its operators (`OpDef.lower`),
intermediate values in temporary buffers; `schedule` then makes it fast. Operators that only the host
executes (control flow, views, sizes bound at run time) stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tensorwright.base.errors import CompileError
from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, as_dim, as_expr, ceildiv, sym, walk
from tensorwright.ir.graph import CONST, PARAM, Graph, Node, constant, param, rebuild, subgraphs, with_args
from tensorwright.ir.loop import Alloc, Kernel, Pack, seq
from tensorwright.ir.module import Module, unique
from tensorwright.ir.type import TupleType
from tensorwright.ops.kernel import call_kernel, fused
from tensorwright.ops.movement import pad, reshape, transpose

HOST_OPS = frozenset((
    "param", "const", "item", "make_tuple", "reshape", "bind_size", "if_", "while_", "scan_", "call",
    "call_kernel",
))  # fmt: skip


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


def lower(m: Module, schedule: Callable[[Kernel], Kernel]) -> Module:
    """`m` with every group and operator as a call of a scheduled kernel."""
    kernels = dict(m.kernels)

    def lower_graph(g: Graph) -> Graph:
        return rebuild(g, lambda node, args: lower_node(with_args(node, args)))

    def lower_bodies(node: Node) -> Node:
        attrs = {k: lower_graph(v) if isinstance(v, Graph) else v for k, v in node.attrs.items()}
        return replace(node, attrs=attrs)

    def lower_node(node: Node) -> Node:
        if node.op.name in HOST_OPS:
            return lower_bodies(node) if subgraphs(node) else node
        body = node.attrs["body"] if node.op is fused else single(node)
        name = unique(kernel_name(body), kernels)
        kernels[name] = schedule(define_kernel(name, body))
        operands = [a for a in node.args if a is not None]
        for pack in kernels[name].packs:
            operands[pack.param] = pack_operand(operands[pack.param], pack, lower_node)
        made = call_kernel(*operands, callee=name, type=node.type,
                           scalars=tuple(sym(s) for s in kernels[name].symbols))  # fmt: skip
        return replace(made, name=node.name, loc=node.loc)

    graphs = {name: lower_graph(g) for name, g in m.graphs.items()}
    return replace(m, graphs=graphs, kernels=kernels)


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





def pack_operand(x: Node, pack: Pack, lower_node: Callable[[Node], Node]) -> Node:
    """`x` in the layout that a kernel wants: at compile time for a constant, by a kernel otherwise."""
    if x.op is CONST:
        done = packed(param("w", x.type), pack)
        return constant(evaluate(done, x), f"{x.name}.packed" if x.name else "")
    inner = param("x", x.type)
    return lower_node(fused(x, body=Graph("pack", (inner,), (packed(inner, pack),))))


def packed(x: Node, pack: Pack) -> Node:
    """The nodes of the transformation: pad, reshape, transpose."""
    axis, width = pack.axis, pack.width
    size = as_expr(x.shape[axis])
    panels = ceildiv(size, width)
    high = [0] * x.rank
    high[axis] = as_dim(panels * width - size)
    if high[axis] != 0:
        x = pad(x, low=(0,) * x.rank, high=tuple(high))
    shape = [*x.shape[:axis], as_dim(panels), width, *x.shape[axis + 1 :]]
    x = reshape(x, shape=tuple(shape))
    place = lambda a: a + (a > axis)
    perm = [*map(place, pack.lead), axis, *map(place, pack.rest), axis + 1]
    return x if perm == list(range(x.rank)) else transpose(x, perm=tuple(perm))


def evaluate(result: Node, source: Node) -> np.ndarray:
    """The value of a chain of unary operators on a constant."""
    chain = []
    while result.op is not PARAM:
        chain.append(result)
        result = result.args[0]
    value = source.attrs["value"]
    for node in reversed(chain):
        value = node.op.reference(value, **node.attrs)
    return np.ascontiguousarray(value)
