"""Objects in host functions: values of sum types on the heap, and who holds them.

    t = construct(l, r)      ->      new(t, 64, tag, 2); view(t, 16)[()] = l; view(t, 24)[()] = r

A value is a reference, a word. Every reference that a node makes is owned by the block it is made
in: it moves on with its last use (into another object, to a function or body that takes it over, or
out as a result) or is released after it. Parameters are borrowed, except those that a function or
body takes over because it may then change the object in place (`Takers`): a match on an object that
nobody else holds takes the references out of it, and a constructor of the same size then uses its
memory again (after Reinking et al. 2021, "Perceus", and Ullrich and de Moura 2019).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tensorwright.ir.dtype import i16, i64, index
from tensorwright.ir.expr import Buffer, Expr, Symbol, as_dim, as_expr, cast, compare, const, load
from tensorwright.ir.graph import Graph, Node
from tensorwright.ir.loop import Alloc, Copy, Count, If, Let, New, Seq, Stmt, View, store
from tensorwright.ir.type import Case, DataType, TensorType, leaves, product
from tensorwright.passes.takers import Takers, is_object
from tensorwright.runtime.layout import COUNT, HEADER, TAG, place

ALIASES = ("item", "make_tuple")  # nodes whose results are their operands
VIEWS = (*ALIASES, "reshape", "bind_size")  # and those whose results may lie in their operands


def reference(name: str) -> Buffer:
    return Buffer(name, i64, (), "reference")


@dataclass
class Layout:
    """Where the fields of a case lie: `refs`, `tensors` by position of the field, `sizes` by the
    declaration's symbol."""

    case: Case
    dims: dict[Symbol, Expr]  # the declaration's symbols -> sizes here
    refs: dict[int, int] = field(default_factory=dict)
    sizes: dict[Symbol, int] = field(default_factory=dict)
    tensors: dict[int, Expr] = field(default_factory=dict)
    size: Expr | None = None

    def __post_init__(self) -> None:
        types = self.case.types
        self.refs = {k: HEADER + 8 * n for n, k in enumerate(
            k for k, t in enumerate(types) if is_object(t))}  # fmt: skip
        start = HEADER + 8 * len(self.refs)
        self.sizes = {s: start + 8 * n for n, s in enumerate(size_symbols(self.case))}
        if len(self.dims) < len(self.sizes):
            return  # only references and sizes are known
        rows = []
        for t in types:
            if isinstance(t, TensorType):
                size = product(self.shape(t)) * t.dtype.bytes
                rows.append((size, not t.is_static))
        offsets, total = place(len(self.refs), len(self.sizes), rows)
        numbers = [k for k, t in enumerate(types) if isinstance(t, TensorType)]
        self.tensors = dict(zip(numbers, map(as_expr, offsets)))
        self.size = as_expr(total)

    def shape(self, t: TensorType) -> tuple:
        return tuple(d if isinstance(d, int) else as_dim(self.dims[d.value]) for d in t.shape)


def size_symbols(case: Case) -> list[Symbol]:
    """The symbols that a case's declaration has for sizes, in order of appearance."""
    return list(dict.fromkeys(
        d.value for t in case.types if isinstance(t, TensorType)
        for d in t.shape if isinstance(d, Expr)))  # fmt: skip


@dataclass
class Shell:
    """An object that the block may use again: nobody else may hold it, and what was taken out of it
    has been replaced by 0."""

    holder: Buffer
    layout: Layout
    params: tuple[Node, ...]  # of the arm: its fields
    left: tuple[int, ...]  # references that are still in it


class Uses:
    """Where a graph's objects are used last: `last[key]` is the number of a node, or `END`. A key
    is (node, position among the leaves of its type)."""

    END = 1 << 60

    def __init__(self, g: Graph) -> None:
        self.keys: dict[Node, tuple] = {}
        self.last: dict[tuple, int] = {}
        for number, n in enumerate(g.nodes()):
            self.keys[n] = self._keys(n)
            if n.op.name not in ALIASES:
                self.touch(n.args, number)
        self.touch(g.results, self.END)

    def _keys(self, n: Node) -> tuple:
        if n.op.name == "make_tuple":
            return tuple(k for a in n.args for k in self.keys[a])
        if n.op.name == "item":
            before = sum(len(leaves(t)) for t in n.args[0].type.items[: n.attrs["index"]])
            return self.keys[n.args[0]][before : before + len(leaves(n.type))]
        return tuple((n, k) for k in range(len(leaves(n.type))))

    def touch(self, nodes, number: int) -> None:
        for a in nodes:
            for key in self.keys[a] if a is not None else ():
                self.last[key] = number

    def of(self, nodes) -> list[tuple]:
        """Keys of the objects that nodes hand on, once for each time."""
        return [key for a in nodes if a is not None
                for key, t in zip(self.keys[a], leaves(a.type)) if is_object(t)]  # fmt: skip


def flat_buffers(value) -> list[Buffer]:
    if isinstance(value, tuple):
        return [b for v in value for b in flat_buffers(v)]
    return [value]


class Objects:
    """The part of `Host` that lowers objects; the rest of it is in `host.py`."""

    takers: Takers
    body: list[Stmt]

    # ---- ownership -----------------------------------------------------------------------------

    def begin(self, g: Graph) -> None:
        """Before the nodes of `g`: what this block owns but never uses goes."""
        self.uses = uses = Uses(g) if any(is_object(t) for n in g.nodes()
                                          for t in leaves(n.type)) else None  # fmt: skip
        if uses is not None:
            self.drop_unused(uses, g.params)

    def drop_unused(self, uses: Uses, nodes) -> None:
        for n in nodes:
            found = zip(uses.keys[n], leaves(n.type), flat_buffers(self.values[n]))
            for key, t, b in found:
                if is_object(t) and b in self.owned and key not in uses.last:
                    self.let_go(b)

    def let_go(self, b: Buffer) -> None:
        if b in self.owned and b not in self.held:
            self.owned.discard(b)
            self.body.append(Count(b, -1))

    def before_node(self, number: int, node: Node) -> None:
        """Find the operands that may move into what the node makes."""
        self.movable: set[Buffer] = set()
        self.number = number
        if self.uses is None or node.op.name in ALIASES:
            return
        keys = self.uses.of(node.args)
        for a in dict.fromkeys(a for a in node.args if a is not None):
            for key, b in zip(self.uses.keys[a], flat_buffers(self.values[a])):
                once = keys.count(key) == 1
                if b in self.owned and b not in self.held and (
                        once and self.uses.last[key] == number):  # fmt: skip
                    self.movable.add(b)

    def after_node(self, number: int, node: Node) -> None:
        """Own what the node made, release what it used last."""
        uses = self.uses
        if uses is None or node.op.name in ALIASES:
            return
        for a in dict.fromkeys(a for a in node.args if a is not None):
            for key, b in zip(uses.keys[a], flat_buffers(self.values[a])):
                if uses.last.get(key) == number:
                    self.let_go(b)
        for t, b in zip(leaves(node.type), flat_buffers(self.values[node])):
            if is_object(t):
                self.owned.add(b)
        self.drop_unused(uses, [node])

    def settle_results(self, g: Graph) -> None:
        """Make the results owned by whoever asked for them."""
        for r in g.results if self.uses is not None else ():
            for t, b in zip(leaves(r.type), flat_buffers(self.values[r])):
                if is_object(t):
                    self.take(b, b in self.owned and b not in self.held)

    def take(self, b: Buffer, moves: bool) -> None:
        """Get a reference of one's own: the block's, or one more."""
        if moves:
            self.owned.discard(b)
        else:
            self.body.append(Count(b, 1))

    def acquire(self, b: Buffer) -> None:
        """A reference of one's own to an operand of the present node."""
        moves = b in self.movable
        self.movable.discard(b)
        self.take(b, moves)

    def finish(self) -> None:
        """At the end of a block: release what it still owns."""
        self.held = set()
        for b in list(self.owned):
            self.let_go(b)

    def hand_over(self, wanted: list[Buffer]) -> set[Buffer]:
        """Operands that move into bodies: each body of the node owns them."""
        given = {b for b in wanted if b in self.movable}
        self.owned -= given
        self.movable -= given
        return given

    def references(self, g: Graph, inputs: list[Buffer]) -> list[Buffer]:
        """The parameters, with references in variables of their own."""
        found = []
        for p, b in zip(g.params, inputs):
            if is_object(p.type):
                own = reference(b.name)
                self.body += [Alloc(own), store(own, (), load(b, ()))]
                b = own
            found.append(b)
        return found

    # ---- constructors --------------------------------------------------------------------------

    def part(self, of: Buffer, at, type_: TensorType, name: str = "part") -> Buffer:
        """A view of an object's contents."""
        b = Buffer(name, type_.dtype, type_.shape)
        self.body.append(View(b, of, as_expr(at)))
        return b

    def word(self, of: Buffer, at: int) -> Expr:
        """A word of an object."""
        return load(self.part(of, at, TensorType(i64, ())), ())

    def emit_construct(self, node: Node) -> Buffer:
        data: DataType = node.type
        case = data.case(node.attrs["case"])
        values = [self.buffer(a) for a in node.args]
        dims: dict[Symbol, Expr] = {}
        for t, b in zip(case.types, values):
            if isinstance(t, TensorType):
                dims |= {d.value: as_expr(n) for d, n in zip(t.shape, b.shape)
                         if isinstance(d, Expr)}  # fmt: skip
        layout = Layout(case, dims)
        for k in layout.refs:
            self.acquire(values[k])
        made = reference(node.name or case.name)
        self.body.append(Alloc(made))
        fresh = New(made, layout.size, data.tag(case.name), len(layout.refs))
        shell = self.shell if self.shell is not None and self.fits(node, layout) else None
        if shell is None:
            self.body.append(fresh)
            self.fill_tensors(made, layout, values, range(len(values)))
        else:
            self.use_again(shell, made, fresh, layout, values, node)
        for s, at in layout.sizes.items():
            self.body.append(store(self.part(made, at, TensorType(i64, ())), (),
                                   cast(dims[s], i64)))  # fmt: skip
        for k, at in layout.refs.items():
            slot = self.part(made, at, TensorType(i64, ()))
            self.body.append(store(slot, (), load(values[k], ())))
        return made

    def fill_tensors(self, made: Buffer, layout: Layout, values: list[Buffer], fields) -> None:
        for k in fields:
            if k in layout.tensors:
                t = layout.case.types[k]
                own = TensorType(t.dtype, layout.shape(t))
                slot = self.part(made, layout.tensors[k], own, layout.case.fields[k][0])
                self.body.append(Copy(slot, values[k]))

    # ---- in place ------------------------------------------------------------------------------

    def fits(self, node: Node, layout: Layout) -> bool:
        """Whether a constructor may use the memory of the block's shell: of the same size, its
        tensors are needed afterwards no more, and none of them would be moved within it."""
        shell, g = self.shell, self.graph
        if shell.layout.size is not layout.size or shell.holder not in self.owned:
            return False
        inside = {p for p in shell.params if isinstance(p.type, TensorType)}
        order = g.nodes()
        for n in order:
            if n.op.name in VIEWS and inside.intersection(n.args):
                inside.add(n)
        if inside.intersection(g.results):
            return False
        later = order[self.number + 1 :]
        if any(inside.intersection(a for a in n.args if a is not None) for n in later):
            return False
        return all(a not in inside or self.stays(k, a, layout) for k, a in enumerate(node.args))

    def stays(self, k: int, a: Node, layout: Layout) -> bool:
        """Whether field `k` of a new object is the same field of the shell, at the same place."""
        params, offsets = self.shell.params, self.shell.layout.tensors
        return a in params and k in offsets and params[k] is a and (
            offsets[k] is layout.tensors[k])  # fmt: skip

    def use_again(
        self, shell: Shell, made: Buffer, fresh: New, layout: Layout, values: list, node: Node
    ) -> None:
        """If nobody else holds the shell, the new object takes its place in memory."""
        holder = shell.holder
        count = self.word(holder, COUNT)
        alone, other = self.block(), self.block()
        for at in shell.left:
            child = reference("left")
            slot = alone.part(holder, at, TensorType(i64, ()))
            alone.body += [Alloc(child), store(child, (), load(slot, ())), Count(child, -1)]
        alone.body.append(store(made, (), load(holder, ())))
        tag = alone.part(made, TAG, TensorType(i16, ()))
        alone.body.append(store(tag, (), const(fresh.tag, i16)))
        refs = alone.part(made, TAG + 2, TensorType(i16, ()))
        alone.body.append(store(refs, (), const(fresh.refs, i16)))
        rest = [k for k, a in enumerate(node.args) if not self.stays(k, a, layout)]
        alone.fill_tensors(made, layout, values, rest)
        other.body.append(fresh)
        other.fill_tensors(made, layout, values, range(len(values)))
        other.body.append(Count(holder, -1))
        self.body.append(If(compare("eq", count, const(1, i64)), Seq(tuple(alone.body)),
                            Seq(tuple(other.body))))  # fmt: skip
        self.owned.discard(holder)
        self.held.discard(holder)
        self.shell = None

    # ---- match ---------------------------------------------------------------------------------

    def emit_match(self, node: Node):
        data: DataType = node.args[0].type
        value, *captures = (self.values[a] for a in node.args)
        given = self.hand_over(flat_buffers(tuple([value, *captures])))
        arms = []
        for case in data.cases:
            g = node.attrs.get(case.name)
            arms.append((g or node.attrs["orelse"], case if g is not None else None))
        tag = cast(load(self.part(value, TAG, TensorType(i16, ())), ()), index)

        def prepare(arm, g: Graph, case: Case | None) -> list:
            arm.owned = set(given)
            if case is None:
                return captures
            return [*arm.open_object(value, case, g), *captures]

        return self.choose(node, [
            (compare("eq", tag, const(k)), g, lambda arm, g=g, case=case: prepare(arm, g, case))
            for k, (g, case) in enumerate(arms)])  # fmt: skip

    def open_object(self, value: Buffer, case: Case, g: Graph) -> list:
        """The fields of an object of a case, as the parameters of an arm."""
        params = g.params[: len(case.fields)]
        read = {a for n in g.nodes() for a in n.args} | set(g.results)
        layout = Layout(case, {})
        dims: dict[Symbol, Expr] = {}
        for p, t in zip(params, case.types):
            for own, d in zip(p.shape, t.shape) if isinstance(t, TensorType) else ():
                if isinstance(d, Expr) and d.value not in dims:
                    s = self.fresh(own.value)
                    self.body.append(Let(s, cast(self.word(value, layout.sizes[d.value]), index)))
                    dims[d.value] = self.dim(own)
        layout = Layout(case, dims)
        found: list = []
        taken: dict[int, Buffer] = {}
        for k, (p, t) in enumerate(zip(params, case.types)):
            if isinstance(t, TensorType):
                own = TensorType(t.dtype, layout.shape(t))
                found.append(self.part(value, layout.tensors[k], own, p.name or "field"))
            else:
                b = reference(p.name or "field")
                if p in read:
                    self.body += [Alloc(b), store(b, (), self.word(value, layout.refs[k]))]
                    taken[k] = b
                found.append(b)
        if value in self.owned:
            self.take_out(value, layout, taken)
            self.held = {value}
            left = tuple(at for k, at in layout.refs.items() if k not in taken)
            self.shell = Shell(value, layout, params, left)
        return found

    def take_out(self, value: Buffer, layout: Layout, taken: dict[int, Buffer]) -> None:
        """Own what an owned object refers to: it loses them if nobody else holds it."""
        if not taken:
            return
        count = self.word(value, COUNT)
        alone = self.block()
        for k in taken:
            slot = alone.part(value, layout.refs[k], TensorType(i64, ()))
            alone.body.append(store(slot, (), const(0, i64)))
        shared = Seq(tuple(Count(b, 1) for b in taken.values()))
        self.body.append(If(compare("eq", count, const(1, i64)), Seq(tuple(alone.body)), shared))
        self.owned |= set(taken.values())
