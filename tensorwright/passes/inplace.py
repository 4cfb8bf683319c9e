"""Let updates change the tensor that they are given, where nobody looks at the old one afterwards.

    y = call_kernel(cache, rows, callee="scatter")    # y = cache; y[...] = rows
->  y = call_kernel(cache, rows, callee="scatter_inplace", inplace=0)    # y is cache's memory

Which kernels are updates is read off their loops: the first nest copies an operand to the result as
it is, and nothing else reads that operand. Its memory may be taken if it is a state's parameter or
was made by a node, and if all who read it, under whatever shape, come before the update.

The state of a loop is updated where it lies: its body's results take the memory of its parameters.
So does a result of a branch that is an update of a captured tensor, or that tensor itself, in one
of the arms; then the other arm need not copy what it does not change.

A map, whose every element depends on one element of an operand alone, is computed where that
operand lies, if it was made in the same body.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tensorwright.base import trace
from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, as_expr, sym
from tensorwright.ir.graph import (
    Graph,
    Node,
    bound_symbols,
    rebuild,
    subgraphs,
    users,
    with_args,
)  # fmt: skip
from tensorwright.ir.loop import For, Kernel, Seq, Stmt, Store
from tensorwright.ir.module import Module, unique
from tensorwright.ir.type import TensorType
from tensorwright.ops.kernel import call_kernel
from tensorwright.passes.cost import kernel_cost
from tensorwright.passes.lower import without_uncalled
from tensorwright.schedule.nest import stages

VIEWS = ("reshape", "bind_size")  # operators whose result is their operand's memory
# operators whose results have memory of their own
MAKERS = ("call_kernel", "if_", "while_", "scan_")
# operators that keep nothing of what they read
READERS = (*VIEWS, *MAKERS)


def update_in_place(m: Module) -> Module:
    """`m` with in-place updates; the kernels that copied first are left out."""
    found = {name: copied_operand(k) for name, k in m.kernels.items()}
    updates = {name: at for name, at in found.items() if at is not None}
    maps = {name: mapped_operands(k) for name, k in m.kernels.items() if name not in updates}
    kernels = dict(m.kernels)
    names: dict[tuple[str, int], str] = {}

    def in_place(node: Node, at: int) -> Node:
        callee = node.attrs["callee"]
        if (callee, at) not in names:
            name = names[callee, at] = unique(f"{callee}_inplace", kernels)
            make = without_copy if callee in updates else over_operand
            kernels[name] = make(kernels[callee], at, name)
        return replace(node, attrs={**node.attrs, "callee": names[callee, at], "inplace": at})

    def visit_graph(g: Graph) -> Graph:
        taking = {n: updates[n.attrs["callee"]] for n in g.nodes() if n.op is call_kernel
                  and n.attrs["callee"] in updates
                  and may_take(g, n, updates[n.attrs["callee"]])}  # fmt: skip
        for n in g.nodes():
            for at in maps.get(n.attrs["callee"], ()) if n.op is call_kernel else ():
                if n not in taking and may_map(g, n, at, taking):
                    taking[n] = at

        def visit(node: Node, args: tuple) -> Node:
            new = with_args(node, args)
            if node in taking:
                trace.decision("inplace", node, "yes", "nobody reads the old value afterwards")
                return in_place(new, taking[node])
            if not subgraphs(new):
                return new
            state = body_states(g, node, updates)
            attrs = {k: visit_graph(replace(v, state=state.get(k, v.state)))
                     if isinstance(v, Graph) else v for k, v in new.attrs.items()}  # fmt: skip
            return replace(new, attrs=attrs)

        return rebuild(g, visit)

    graphs = {name: visit_graph(g) for name, g in m.graphs.items()}
    if all(graphs[name] is g for name, g in m.graphs.items()):
        return m
    return without_uncalled(replace(m, graphs=graphs, kernels=kernels), {k for k, _ in names})


# ---- kernels -----------------------------------------------------------------------------------


def parts(body: Stmt) -> list[Stmt]:
    """The statements of a kernel's definition, a loop that runs once being none."""
    while isinstance(body, For) and ir.is_unit(body) and isinstance(body.body, Seq):
        body = body.body
    return list(body.body) if isinstance(body, Seq) else [body]


def copied_operand(k: Kernel) -> int | None:
    """The position of the operand that the one result starts as a copy of; None for a kernel that
    is no update."""
    if len(k.results) != 1:
        return None
    first, *rest = parts(k.body)
    source = copied(first, k.results[0])
    if source is None or source not in k.inputs or not rest:
        return None
    if any(source in ir.buffers(s) for s in rest):
        return None
    return k.inputs.index(source)


def copied(s: Stmt, out: Buffer) -> Buffer | None:
    """The buffer that the nest `s` copies to the whole of `out`."""
    variables, extents = [], []
    while isinstance(s, For):
        variables.append(sym(s.var))
        extents.append(s.extent)
        s = s.body
    if not isinstance(s, Store) or s.buffer is not out or s.value.op != "load":
        return None
    whole = list(s.indices) == variables and extents == [as_expr(d) for d in out.shape]
    source = s.value.value
    same = s.value.args == s.indices and source.shape == out.shape and source.dtype is out.dtype
    return source if whole and same else None


def without_copy(k: Kernel, at: int, name: str) -> Kernel:
    """The kernel that expects its result to hold the operand's contents."""
    rest = parts(k.body)[1:]
    params = tuple(b for p, b in enumerate(k.params) if p != at)
    new = replace(k, name=name, params=params, body=ir.seq(*rest))
    return replace(new, work=kernel_cost(new))


def mapped_operands(k: Kernel) -> tuple[int, ...]:
    """The positions of operands in whose memory the one result may be computed: every nest is a
    map, and reads the operand at the element that it stores. What is not read at plain loop
    variables may be computed in an order that runs an iteration twice."""
    found = stages(k.body) if len(k.results) == 1 else None
    if not found or not all(s.is_map for s in found):
        return ()
    out, fixed = k.results[0], set()
    for s in found:
        for e in ir.loads(s.root):
            if not all(i in s.variables or i.op == "const" for i in e.args):
                return ()
            same = e.value.shape == s.out.shape == out.shape and all(
                i is j or d == 1 for i, j, d in zip(e.args, s.final.indices, out.shape)
            )
            if not same:
                fixed.add(e.value)
    return tuple(p for p, b in enumerate(k.inputs)
                 if b not in fixed and b.dtype is out.dtype and b.shape == out.shape)  # fmt: skip


def over_operand(k: Kernel, at: int, name: str) -> Kernel:
    """The kernel that reads an operand from where it stores the result."""
    params = tuple(b for p, b in enumerate(k.params) if p != at)
    body = ir.replace_buffers(k.body, {k.params[at]: k.results[0]})
    return replace(k, name=name, params=params, body=body)


# ---- memory ------------------------------------------------------------------------------------


def may_take(g: Graph, node: Node, at: int) -> bool:
    """Whether a node may write to the memory of one of its operands."""
    root = root_of(node.args[at])
    state = {g.params[p] for p, _ in g.state}
    if root not in state and not is_made(root):
        return False
    aliases = same_memory(g, root)
    if aliases & set(g.results) or sum(a in aliases for a in node.args) != 1:
        return False
    nodes = g.nodes()  # the order in which they run
    later = nodes[nodes.index(node) + 1 :]
    return not any(aliases.intersection(u.args) for u in later if u not in aliases)


def may_map(g: Graph, node: Node, at: int, taking: dict[Node, int]) -> bool:
    """Whether a map may be computed in the memory of one of its operands: a kernel of this body
    made it, and only kernels and bodies read it."""
    root = root_of(node.args[at])
    first = root
    while first in taking:
        first = root_of(first.args[taking[first]])
    if first.op is not call_kernel or not may_take(g, node, at):
        return False
    uses = users(g)
    read = {u.op for n in same_memory(g, root) for u in uses[n]}
    joined = {u.op.name for n in views(g, node) for u in uses[n]}
    return all(op.name in READERS for op in read) and "concat" not in joined


def root_of(node: Node) -> Node:
    """The node whose memory this one is under another type."""
    while node.op.name in VIEWS:
        node = node.args[0]
    return node


def is_made(root: Node) -> bool:
    """Whether a node's memory was made for it."""
    if root.op.name == "item":
        root = root.args[0]
        return root.op.name in MAKERS
    return root.op.name in MAKERS and isinstance(root.type, TensorType)


def same_memory(g: Graph, root: Node) -> set[Node]:
    """All nodes that are the memory of `root`; a tuple that is not only taken apart is one."""
    found = set(views(g, root))
    if root.op.name != "item":
        return found
    whole = root.args[0]
    for u in users(g)[whole]:
        if u.op.name != "item":
            found.add(whole)
        elif u.attrs["index"] == root.attrs["index"]:
            found |= set(views(g, u))
    return found | ({whole} & set(g.results))


def views(g: Graph, root: Node) -> Iterator[Node]:
    """`root` and everything that is its memory under another type."""
    uses, todo = users(g), [root]
    while todo:
        n = todo.pop()
        yield n
        todo += [u for u in uses[n] if u.op.name in VIEWS and u.args[0] is n]


# ---- bodies ------------------------------------------------------------------------------------


def body_states(g: Graph, node: Node, updates: dict[str, int | None]) -> dict[str, tuple]:
    """body -> the (parameter, result) pairs of which the result takes the parameter's memory."""
    if bound_symbols(node):
        return {}
    if node.op.name in ("while_", "scan_"):
        kept = node.attrs["body"].params[: node.attrs["carried"]]
        return {"body": tuple((k, k) for k, p in enumerate(kept) if isinstance(p.type, TensorType))}
    if node.op.name != "if_":
        return {}
    bodies = [node.attrs["then"], node.attrs["orelse"]]
    pairs: dict[int, int] = {}
    for k, results in enumerate(zip(*(b.results for b in bodies))):
        for body, r in zip(bodies, results):
            p = updated(body, r, updates)
            tensor = p is not None and isinstance(r.type, TensorType)
            free = tensor and k not in pairs and p not in pairs.values()
            if free and body.params[p].type == r.type and may_take(g, node, p + 1):
                pairs[k] = p
    state = tuple((p, r) for r, p in pairs.items())
    return {"then": state, "orelse": state}


def updated(body: Graph, node: Node, updates: dict[str, int | None]) -> int | None:
    """The position of the parameter that a result is, or is made from by updates."""
    while node not in body.params:
        if node.op.name in VIEWS:
            node = node.args[0]
        elif node.op is call_kernel and updates.get(node.attrs["callee"]) is not None:
            node = node.args[updates[node.attrs["callee"]]]
        else:
            return None
    return body.params.index(node)
