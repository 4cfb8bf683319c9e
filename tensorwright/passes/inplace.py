"""Let updates change the tensor that they are given, where nobody looks at the old one afterwards.

    y = call_kernel(cache, rows, callee="scatter")    # y = cache; y[...] = rows
->  y = call_kernel(cache, rows, callee="scatter_inplace", inplace=0)    # y is cache's memory

Which kernels are updates is read off their loops: the first nest copies an operand to the result as
it is, and nothing else reads that operand. Its memory may be taken if it is a state's parameter or
a kernel's result, and if all who read it, under whatever shape, come before the update.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tensorwright.base import trace
from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, as_expr, sym
from tensorwright.ir.graph import Graph, Node, rebuild, subgraphs, users, with_args
from tensorwright.ir.loop import For, Kernel, Seq, Stmt, Store
from tensorwright.ir.module import Module, unique
from tensorwright.ir.type import TensorType
from tensorwright.ops.kernel import call_kernel
from tensorwright.passes.cost import kernel_cost

VIEWS = ("reshape", "bind_size")  # operators whose result is their operand's memory


def update_in_place(m: Module) -> Module:
    """`m` with in-place updates; the kernels that copied first are left out."""
    found = {name: copied_operand(k) for name, k in m.kernels.items()}
    updates = {name: at for name, at in found.items() if at is not None}
    if not updates:
        return m
    kernels = dict(m.kernels)
    names: dict[str, str] = {}

    def in_place(node: Node) -> Node:
        callee, at = node.attrs["callee"], updates[node.attrs["callee"]]
        if callee not in names:
            names[callee] = unique(f"{callee}_inplace", kernels)
            kernels[names[callee]] = without_copy(kernels[callee], at, names[callee])
        return replace(node, attrs={**node.attrs, "callee": names[callee], "inplace": at})

    def visit_graph(g: Graph) -> Graph:
        taking = {n for n in g.nodes() if n.op is call_kernel and n.attrs["callee"] in updates
                  and may_take(g, n, updates[n.attrs["callee"]])}  # fmt: skip

        def visit(node: Node, args: tuple) -> Node:
            new = with_args(node, args)
            if node in taking:
                trace.decision("inplace", node, "yes", "nobody reads the old value afterwards")
                return in_place(new)
            if not subgraphs(new):
                return new
            attrs = {k: visit_graph(v) if isinstance(v, Graph) else v for k, v in new.attrs.items()}
            same = all(attrs[k] is v for k, v in new.attrs.items())
            return new if same else replace(new, attrs=attrs)

        return rebuild(g, visit)

    graphs = {name: visit_graph(g) for name, g in m.graphs.items()}
    if not names:
        return m
    used = {n.attrs["callee"] for g in Module(graphs).all_graphs() for n in g.nodes()
            if n.op is call_kernel}  # fmt: skip
    kernels = {name: k for name, k in kernels.items() if name in used or name not in names}
    return replace(m, graphs=graphs, kernels=kernels)


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


# ---- memory ------------------------------------------------------------------------------------


def may_take(g: Graph, node: Node, at: int) -> bool:
    """Whether an update may write to the memory of its operand."""
    root = node.args[at]
    while root.op.name in VIEWS:
        root = root.args[0]
    state = {g.params[p] for p, _ in g.state}
    made = root.op is call_kernel and isinstance(root.type, TensorType)
    if not made and root not in state:
        return False
    aliases = set(views(g, root))
    if aliases & set(g.results):
        return False
    earlier = ancestors(node)
    readers = {u for u, operands in reads(g).items() if operands & aliases}
    return all(u is node or u in aliases or u in earlier for u in readers)


def reads(g: Graph) -> dict[Node, set[Node]]:
    return {n: {a for a in n.args if a is not None} for n in g.nodes()}


def views(g: Graph, root: Node) -> Iterator[Node]:
    """`root` and everything that is its memory under another type."""
    uses, todo = users(g), [root]
    while todo:
        n = todo.pop()
        yield n
        todo += [u for u in uses[n] if u.op.name in VIEWS and u.args[0] is n]


def ancestors(node: Node) -> set[Node]:
    """Everything that a node needs, and so runs after."""
    found: set[Node] = set()
    todo = [a for a in node.args if a is not None]
    while todo:
        n = todo.pop()
        if n not in found:
            found.add(n)
            todo += [a for a in n.args if a is not None]
    return found
