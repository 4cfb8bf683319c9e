"""Lower graph functions to host functions: allocation, shape arithmetic, branches, kernel calls.

    y = call_kernel(x, w, callee="dense")      ->      y = alloc(f32[n, 32]);  dense(x, w, y, n)

The result is a loop-level function like any kernel. Graph values become buffers of scope "arena",
which the memory planner places; reshapes become views; the bodies of control flow are written in
line. Symbols are bound first from the shapes of the inputs, and what the model promises about them
is checked there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tensorwright.base.errors import CompileError
from tensorwright.ir.dtype import boolean, i64, index
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    Symbol,
    any_of,
    as_dim,
    as_expr,
    cast,
    compare,
    const,
    is_const,
    load,
    opaque,
    substitute,
    sym,
    symbols_of,
)  # fmt: skip
from tensorwright.ir.facts import solve
from tensorwright.ir.graph import PARAM, Graph, Node, bound_symbols
from tensorwright.ir.loop import (
    Alloc,
    Assert,
    Call,
    Copy,
    For,
    If,
    Kernel,
    Let,
    Seq,
    Stmt,
    View,
    While,
    loop_symbol,
)  # fmt: skip
from tensorwright.ir.module import Module
from tensorwright.ir.type import TupleType, product
from tensorwright.passes.bodies import number_of_steps
from tensorwright.passes.host_forest import Forests
from tensorwright.passes.host_objects import Objects, Shell, flat_buffers, reference
from tensorwright.passes.host_results import Results
from tensorwright.passes.host_sized import Sized
from tensorwright.passes.host_tail import Round, Tails
from tensorwright.passes.specialize import applies
from tensorwright.passes.tail_calls import circle
from tensorwright.passes.takers import Takers, is_object
from tensorwright.runtime.manifest import entry_symbol

Value = Buffer | tuple["Value", ...]


@dataclass
class Host(Objects, Results, Sized, Tails, Forests):
    """State of lowering one function: statements so far, buffers by node, constants by position."""

    outermost = True

    module: Module
    constants: dict[Node, int] = field(default_factory=dict)
    body: list[Stmt] = field(default_factory=list)
    values: dict[Node, Value] = field(default_factory=dict)
    targets: dict[Node, Buffer] = field(default_factory=dict)
    const_buffers: dict[Node, Buffer] = field(default_factory=dict)
    known: set[Symbol] = field(default_factory=set)
    env: dict[Expr, Expr] = field(default_factory=dict)  # symbols of bodies -> what they are here
    homes: dict[Buffer, Buffer] = field(default_factory=dict)  # views -> the buffer they lie in
    takers: Takers | None = None
    placed: set[Node] = field(default_factory=set)  # operands that lie in a result already
    owned: set[Buffer] = field(default_factory=set)  # references that this block has to let go of
    held: set[Buffer] = field(default_factory=set)  # those of them that it needs to its end
    shell: Shell | None = None
    round: Round | None = None  # the loop of the functions that jump to each other
    branch_to: list[Buffer] | None = None  # where the branches of the present node are to write

    # ---- symbols -------------------------------------------------------------------------------

    def dim(self, d) -> Expr:
        """A dimension in terms of the symbols of the host function."""
        return substitute(as_expr(d), self.env)

    def shape(self, dims) -> tuple:
        return tuple(as_dim(self.dim(d)) for d in dims)

    def fresh(self, s: Symbol) -> Symbol:
        """A symbol of its own for each time that a body is written out, so that loops may bind it
        anew; on the outermost level the symbol itself."""
        if self.outermost:
            return s
        new = Symbol(s.name, s.min, s.max, s.multiple_of, s.upper, s.values)
        self.env[sym(s)] = sym(new)
        return new

    def match(self, g: Graph, arguments: list[Value]) -> None:
        """Symbols that only the parameters of a body know, from the shapes of its arguments."""
        pairs = [(as_expr(d), self.dim(n)) for p, a in zip(g.params, arguments)
                 if isinstance(a, Buffer) for d, n in zip(p.shape, a.shape)]  # fmt: skip
        pairs = [(d, n) for d, n in pairs if self.dim(d) is not n]
        for step in solve([d for d, _ in pairs]).steps:
            value = (pairs[step.source][1] - self.dim(step.rest)) // self.dim(step.scale)
            self.env[sym(step.symbol)] = value

    # ---- graphs --------------------------------------------------------------------------------

    def run(self, g: Graph, arguments: list[Value], last: Node | None = None) -> None:
        """Emit every node of `g`, but for `last` and what is taken out of it, with its parameters
        bound to buffers."""
        self.values.update(zip(g.params, arguments))
        if not self.outermost:
            self.match(g, arguments)
        self.graph = g
        self.begin(g)
        for number, node in enumerate(g.nodes()):
            if node not in self.values and node is not last and last not in node.args:
                self.before_node(number, node)
                self.values[node] = self.node(node)
                self.after_node(number, node)
        if last is None:
            self.settle_results(g)

    def results_into(self, g: Graph, arguments: list[Value], outputs: list[Buffer]) -> None:
        """Emit `g`, its results computed in `outputs` directly where that is possible. A state's
        output is the memory of its parameter, written last unless its value lies there already."""
        last = self.ends_with(g)
        if last is not None:
            self.run(g, arguments, last)
            self.finish_round(g, g.nodes().index(last), last, outputs)
            self.finish()
            return
        copies = self.claim(g, outputs)
        self.run(g, arguments)
        state = {r: outputs[r] for _, r in g.state}
        held = {self.home(b) for b in state.values()}
        late = [k for k in state
                if self.home(self.buffer(g.results[k])) is not self.home(state[k])]  # fmt: skip
        for k in copies:
            if k not in state:
                self.body.append(Copy(outputs[k], self.buffer(g.results[k])))
        sources = {k: self.buffer(g.results[k]) for k in late}
        for k, source in sources.items():
            if self.home(source) in held:  # another state's memory, written here too
                own = Buffer(f"{source.name}_old", source.dtype, source.shape, "arena", 64)
                self.body += [Alloc(own), Copy(own, source)]
                sources[k] = own
        self.body += [Copy(state[k], source) for k, source in sources.items()]
        self.finish()

    def home(self, b: Buffer) -> Buffer:
        """The buffer that a view lies in."""
        return self.homes.get(b, b)

    def view(self, own: Buffer, base: Buffer) -> Buffer:
        """Emit `own` as another name for the memory of `base`."""
        self.homes[own] = self.home(base)
        self.body.append(View(own, base, const(0)))
        return own

    def over(self, base: Buffer, name: str) -> Buffer:
        """A new value in the memory of one that nobody needs any more."""
        return self.view(Buffer(name, base.dtype, base.shape, "arena", 64), base)

    def block(self) -> Host:
        """A nested place for statements that sees the values so far."""
        inner = Host(self.module, self.constants, [], dict(self.values), {}, self.const_buffers,
                     set(self.known), dict(self.env), self.homes, self.takers)  # fmt: skip
        inner.outermost = False
        return inner

    def buffer(self, node: Node) -> Buffer:
        return self.values[node]

    # ---- nodes ---------------------------------------------------------------------------------

    def node(self, node: Node) -> Value:
        handler = getattr(self, f"emit_{node.op.name}", None)
        if handler is None:
            raise CompileError(f"{node.op.name} cannot be lowered to the host program")
        if node.op is PARAM:
            raise CompileError(f"parameter {node.name} is used outside its graph")
        return handler(node)

    def emit_const(self, node: Node) -> Buffer:
        if node not in self.const_buffers:
            position = self.constants.setdefault(node, len(self.constants))
            self.const_buffers[node] = Buffer(node.name or f"c{position}", node.dtype,
                                              node.shape, "const", 64)  # fmt: skip
        return self.const_buffers[node]

    def allocate(self, node: Node, type_, name: str) -> Buffer:
        """The buffer that a node's result goes to: its target, or a new one in the arena."""
        target = self.targets.get(node)
        if is_object(type_):
            own = reference(name)
            self.body.append(Alloc(own))
            return own
        own = Buffer(name, type_.dtype, self.shape(type_.shape), "arena", 64)
        if target is None:
            self.body.append(Alloc(own))
        else:
            self.body.append(View(own, target, const(0)))
        return own

    def emit_call_kernel(self, node: Node) -> Value:
        name = node.name or node.attrs["callee"]
        ins = [self.buffer(a) for a in node.args]
        scalars = tuple(self.dim(s) for s in node.attrs["scalars"])
        if node.attrs["inplace"] >= 0:
            base = ins.pop(node.attrs["inplace"])
            own = self.view(Buffer(name, node.dtype, self.shape(node.shape), "arena", 64), base)
            self.body.append(Call(node.attrs["callee"], (*ins, own), scalars))
            return own
        outs = self.allocate_results(node, name)
        self.body.append(Call(node.attrs["callee"], (*ins, *outs), scalars))
        return outs if isinstance(node.type, TupleType) else outs[0]

    def allocate_results(self, node: Node, name: str) -> tuple[Buffer, ...]:
        """Buffers for all results of a call: their targets, or new ones."""
        if not isinstance(node.type, TupleType):
            return (self.allocate(node, node.type, name),)
        items = {n.attrs["index"]: n for n in self.targets if n.op.name == "item"
                 and n.args[0] is node}  # fmt: skip
        return tuple(
            self.allocate(items.get(k, node), t, f"{name}_{k}")
            for k, t in enumerate(node.type.items)
        )

    def emit_call_extern(self, node: Node) -> Value:
        types = node.type.items if isinstance(node.type, TupleType) else (node.type,)
        symbol = node.attrs["symbol"]
        outs = tuple(self.allocate(node, t, f"{symbol}_{k}") for k, t in enumerate(types))
        ins = tuple(self.buffer(a) for a in node.args)
        scalars = tuple(self.dim(s) for s in node.attrs["scalars"])
        self.body.append(Call(symbol, (*ins, *outs), scalars, extern=True))
        return outs if isinstance(node.type, TupleType) else outs[0]

    def emit_item(self, node: Node) -> Value:
        return self.values[node.args[0]][node.attrs["index"]]

    def emit_make_tuple(self, node: Node) -> Value:
        return tuple(self.values[a] for a in node.args)

    def emit_reshape(self, node: Node) -> Buffer:
        own = Buffer(node.name or "view", node.dtype, self.shape(node.shape), "arena", 64)
        return self.view(own, self.buffer(node.args[0]))

    def emit_bind_size(self, node: Node) -> Buffer:
        source, sizes = self.buffer(node.args[0]), []
        for k, s in enumerate(bound_symbols(node)):
            where = () if source.rank == 0 else (const(k),)
            sizes.append(self.fresh(s))
            self.body.append(Let(sizes[-1], cast(load(source, where), index)))
        at = ", ".join(node.loc)
        for holds, says, values in node.attrs.get("checks", ()):
            said = f"{says} (at {at})" if at else says
            cond = substitute(as_expr(holds, boolean), self.env)
            self.body.append(Assert(cond, said, tuple(map(self.dim, values))))
        self.body += [check for s in sizes for check in promises(s, at)]
        return source

    def emit_if_(self, node: Node) -> Value:
        cond, *captures = node.args
        arguments = [self.values[c] for c in captures]
        given = self.hand_over(flat_buffers(tuple(arguments)))

        def prepare(arm: Host) -> list[Value]:
            arm.owned = set(given)
            return arguments

        test = load(self.buffer(cond), ())
        return self.choose(node, [(test, node.attrs["then"], prepare),
                                  (test, node.attrs["orelse"], prepare)])  # fmt: skip

    def choose(self, node: Node, arms: list[tuple[Expr, Graph, Callable]]) -> Value:
        """The first arm whose condition holds runs, the last one if none of the others does. An arm
        is (condition, body, a function of its block that gives the arguments)."""
        types = node.type.items if isinstance(node.type, TupleType) else (node.type,)
        name = node.name or node.op.name.rstrip("_")
        sized = bool(bound_symbols(node))  # sizes differ: results on the heap, sizes in variables
        make = self.box if sized else lambda t, name: self.allocate(node, t, name)
        outs, ends = self.branch_to, self.branch_to is not None
        if not ends:
            given = {r: self.buffer(node.args[p + 1]) for p, r in arms[0][1].state}
            outs = [self.over(given[k], f"{name}_{k}") if k in given else make(t, f"{name}_{k}")
                    for k, t in enumerate(types)]  # fmt: skip
        done: list[tuple[Expr, Stmt]] = []
        for cond, g, prepare in arms:
            arm = self.block()
            arm.round = self.round if ends else None
            if sized:
                arm.run(g, prepare(arm))
                for box, r in zip(outs, g.results):
                    arm.put(box, arm.buffer(r))
                arm.finish()
            else:
                arm.results_into(g, prepare(arm), outs)
            done.append((cond, Seq(tuple(arm.body))))
        chosen = done.pop()[1]
        for cond, body in reversed(done):
            chosen = If(cond, body, chosen)
        self.body.append(chosen)
        if sized:
            return self.unbox(node, types, outs)
        return tuple(outs) if isinstance(node.type, TupleType) else outs[0]

    def steps(self, node: Node) -> tuple[Symbol, Expr, Expr]:
        """(loop variable, position in the sequence, number of steps) of a scan."""
        length = self.dim(number_of_steps(node))
        v = loop_symbol("t", const(0), length)
        reverse = node.attrs.get("reverse", False)
        return v, length - 1 - sym(v) if reverse else sym(v), length

    def emit_while_(self, node: Node) -> Value:
        count = node.attrs["carried"]
        if bound_symbols(node):
            return self.sized_while(node)
        state = self.carried(node.args[:count], node.name or "state")
        arguments = [*state, *(self.values[a] for a in node.args[count:])]
        go = Buffer("go", boolean, (), "arena", 64)
        self.body.append(Alloc(go))
        first, again = self.block(), self.block()
        first.results_into(node.attrs["cond"], arguments, [go])
        self.body += first.body
        again.step(node.attrs["body"], arguments, state)
        fresh = self.block()
        fresh.results_into(node.attrs["cond"], arguments, [go])
        self.body.append(While(load(go, ()), Seq((*again.body, *fresh.body))))
        return tuple(state) if isinstance(node.type, TupleType) else state[0]

    def carried(self, inits, name: str) -> list[Buffer]:
        """Buffers for loop state, holding the initial values, if there are any."""
        state = []
        for k, a in enumerate(inits):
            s = Buffer(f"{name}_{k}", a.dtype, self.shape(a.shape), "arena", 64)
            if is_object(a.type):
                s = reference(f"{name}_{k}")
                self.acquire(self.buffer(a))
            self.body.append(Alloc(s))
            if a.op.name != "room":
                self.body.append(Copy(s, self.buffer(a)))
            state.append(s)
        return state

    def step(self, g: Graph, arguments: list[Value], state: list[Buffer],
             extra: list[Buffer] = ()) -> None:  # fmt: skip
        """One iteration: results that are not `extra` go back into `state` once all are known."""
        count = len(state)
        kept = [k < count and g.results[k] is g.params[k] for k in range(len(g.results))]
        held = {r for _, r in g.state}
        fresh: dict[int, Buffer] = {}
        for k, s in enumerate(state):
            if kept[k] or k in held:
                continue
            fresh[k] = Buffer(f"{s.name}_next", s.dtype, s.shape, "arena", 64)
            if s.scope == "reference":
                fresh[k] = reference(fresh[k].name)
                self.owned |= {s}
        self.body += [Alloc(t) for t in fresh.values()]
        wanted = [k for k in range(len(g.results)) if not kept[k]]
        places = [*(fresh.get(k, s) for k, s in enumerate(state)), *extra]
        pairs = tuple((p, wanted.index(r)) for p, r in g.state if r in wanted)
        part = Graph(g.name, g.params, tuple(g.results[k] for k in wanted), g.binders, (), pairs)
        self.results_into(part, arguments, [places[k] for k in wanted])
        self.body += [Copy(state[k], t) for k, t in fresh.items()]

    def emit_scan_(self, node: Node) -> Value:
        """Slices of the scanned inputs and outputs are views, so that nothing is copied per
        step."""
        if bound_symbols(node):
            return self.sized_scan(node)
        carried, scanned = node.attrs["carried"], node.attrs["scanned"]
        inits, xs = node.args[:carried], node.args[carried : carried + scanned]
        rest = [self.values[a] for a in node.args[carried + scanned :]]
        state = self.carried(inits, node.name or "state")
        types = node.type.items if isinstance(node.type, TupleType) else (node.type,)
        stacked = []
        for k, t in enumerate(types[carried:]):
            own = Buffer(f"{node.name or 'scan'}_{k}", t.dtype, self.shape(t.shape), "arena", 64)
            self.body.append(Alloc(own))
            stacked.append(own)
        v, t, length = self.steps(node)
        inner = self.block()
        slices = [inner.slice(self.buffer(x), t) for x in xs]
        outs = [inner.slice(y, t) for y in stacked]
        inner.step(node.attrs["body"], [*state, *slices, *rest], state, outs)
        self.body.append(For(v, const(0), length, Seq(tuple(inner.body))))
        out = (*state, *stacked)
        return out if isinstance(node.type, TupleType) else out[0]

    def slice(self, b: Buffer, t: Expr) -> Buffer:
        """The view of b[t]."""
        part = Buffer(f"{b.name}_t", b.dtype, b.shape[1:], "arena")
        self.body.append(View(part, b, t * as_expr(product(b.shape[1:]))))
        return part

    def emit_call(self, node: Node) -> Value:
        g = self.module.graphs[node.attrs["callee"]]
        outs = self.allocate_results(node, g.name)
        ins = [self.buffer(a) for a in node.args]
        for k, (a, b) in enumerate(zip(node.args, ins)):
            if is_object(a.type) and self.takers.takes(g.name, k):
                self.acquire(b)
        scalars = call_scalars(g, ins)
        made: Stmt = Call(host_name(g.name), (*ins, *outs), scalars)
        for name in reversed(node.attrs["hot"]):
            h = self.module.graphs[name]
            own = Call(host_name(name), (*ins, *outs), call_scalars(h, ins))
            made = If(applies(h, [b.shape for b in ins]), own, made)
        self.body.append(made)
        return outs if isinstance(node.type, TupleType) else outs[0]


def host_name(graph: str) -> str:
    return f"graph_{graph}"


def function_symbols(g: Graph) -> tuple[Symbol, ...]:
    """Index arguments of the host function of a called graph: the symbols of its parameters."""
    dims = [d for p in g.params for d in p.shape]
    return tuple(step.symbol for step in solve(dims).steps)


def call_scalars(g: Graph, ins: list[Buffer]) -> tuple[Expr, ...]:
    """The values of the callee's symbols, from the shapes of the arguments."""
    dims = [d for p in g.params for d in p.shape]
    actual = [as_expr(d) for b in ins for d in b.shape]
    known: dict[Expr, Expr] = {}
    for step in solve(dims).steps:
        rest, scale = substitute(step.rest, known), substitute(step.scale, known)
        known[sym(step.symbol)] = (actual[step.source] - rest) // scale
    return tuple(known.values())


def promises(s: Symbol, where: str = "") -> list[Stmt]:
    """Checks at run time of what is known of a symbol."""
    value, at = opaque(sym(s)), f" (at {where})" if where else ""
    checks: list[Stmt] = []

    def check(cond: Expr, what: str, why: str = "") -> None:
        by = f"; {why} needs it" if why else ""
        checks.append(Assert(cond, f"{s.name} is {{0}}, {what}{at}{by}", (value,)))

    if s.min is not None:
        check(compare("ge", value, const(s.min)), f"its least value is {s.min}", s.why[0])
    if s.max is not None:
        check(compare("le", value, const(s.max)), f"its largest value is {s.max}", s.why[1])
    if s.multiple_of > 1:
        check(compare("eq", value % s.multiple_of, const(0)), f"not a multiple of {s.multiple_of}")
    if s.values:
        allowed = ", ".join(map(str, s.values))
        check(any_of(compare("eq", value, const(v)) for v in s.values), f"not one of {allowed}")
    return checks


# ---- entry -------------------------------------------------------------------------------------


def bind_inputs(g: Graph) -> tuple[list[Stmt], list[Buffer]]:
    """Statements that find the symbols in the shapes of the inputs and check the shapes."""
    body: list[Stmt] = []
    buffers, dims, wanted, places = [], [], [], []
    for k, p in enumerate(g.params):
        if is_object(p.type):
            buffers.append(Buffer(p.name, p.dtype, (), "input", 8))
            body.append(Alloc(buffers[-1], const(k)))
            continue
        shape = Buffer(f"{p.name}_shape", i64, (p.rank,), "input_shape")
        data = Buffer(p.name, p.dtype, p.shape, "input", p.dtype.bytes)
        body += [Alloc(shape, const(k)), Alloc(data, const(k))]
        buffers.append(data)
        for axis, d in enumerate(p.shape):
            wanted.append(as_expr(d))
            dims.append(cast(load(shape, (axis,)), index))
            places.append(f"dimension {axis} of input '{p.name}'")
    plan = solve(wanted)
    if plan.unsolved:
        names = ", ".join(s.name for s in plan.unsolved)
        raise CompileError(f"the size {names} cannot be found from the shapes of the inputs",
                           help="give a dimension that name alone")  # fmt: skip
    for step in plan.steps:
        dim, rest, scale = dims[step.source], step.rest, step.scale
        body.append(Let(step.symbol, (dim - rest) // scale))
        if not is_const(scale, 1):
            text = f"{places[step.source]} is {{0}}, which is not {wanted[step.source]}"
            body.append(Assert(compare("eq", opaque(dim - rest) % scale, const(0)), text, (dim,)))
        body += promises(step.symbol, places[step.source])
    for k in plan.checks:
        if not is_const(wanted[k]):
            text = f"{places[k]} is {{0}}, expected {wanted[k]} = {{1}}"
            body.append(Assert(compare("eq", opaque(dims[k]), opaque(wanted[k])), text,
                               (dims[k], wanted[k])))  # fmt: skip
    return body, buffers


def lower_entry(m: Module, constants: dict[Node, int], entry: str = "") -> Kernel:
    """An entry of the program (the main one if none is named) as a host function; `constants`
    collects constants by position."""
    g = m.graphs[entry or m.entry]
    host = Host(m, constants, takers=Takers(m))
    prologue, inputs = bind_inputs(g)
    host.body += prologue
    outputs = [Buffer(r.name or f"out{k}", r.dtype, r.shape, "output", 64)
               for k, r in enumerate(g.results)]  # fmt: skip
    given = {r: inputs[p] for p, r in g.state}
    targets = [given.get(k, b) for k, b in enumerate(outputs)]
    host.results_into(g, host.references(g, inputs), targets)
    allocs = [Alloc(b, const(k)) for k, b in enumerate(outputs) if k not in given]
    outputs = [b for k, b in enumerate(outputs) if k not in given]
    body = place_when_known(host.body, allocs)
    weights = [Alloc(b, const(constants[n])) for n, b in host.const_buffers.items()]
    symbol = entry_symbol("" if g.name == m.entry else g.name)
    return Kernel(symbol, (*inputs, *outputs), len(outputs), Seq((*weights, *body)))


def called_graphs(m: Module) -> list[Graph]:
    """The graphs that other graphs of the module call."""
    calls = [n for g in m.all_graphs() for n in g.nodes() if n.op.name == "call"]
    names = {name for n in calls for name in (n.attrs["callee"], *n.attrs["hot"])}
    return [g for name, g in m.graphs.items() if name in names or name not in m.offered]


def lower_function(m: Module, g: Graph, constants: dict[Node, int]) -> Kernel:
    """A called graph as a host function `graph_NAME(ctx, inputs, outputs, symbols)`."""
    host = Host(m, constants, takers=Takers(m))
    inputs = [Buffer(p.name, p.dtype, p.shape) for p in g.params]
    outputs = [Buffer(f"out{k}", r.dtype, r.shape) for k, r in enumerate(g.results)]
    own = host.references(g, inputs)
    host.owned = {b for k, (p, b) in enumerate(zip(g.params, own))
                  if is_object(p.type) and host.takers.takes(g.name, k)}  # fmt: skip
    names = circle(m, g)
    if names:
        host.run_circle(names, own, outputs)
    else:
        host.results_into(g, own, outputs)
    loads_ = [Alloc(b, const(host.constants[n])) for n, b in host.const_buffers.items()]
    return Kernel(host_name(g.name), (*inputs, *outputs), len(outputs),
                  Seq((*loads_, *host.body)), function_symbols(g))  # fmt: skip


def place_when_known(body: list[Stmt], allocs: list[Alloc]) -> list[Stmt]:
    """Insert each allocation as soon as the symbols of its shape are bound and checked."""
    bound: set[Symbol] = set()
    result: list[Stmt] = []
    pending = list(allocs)
    lets = {s.var for s in body if isinstance(s, Let)}

    def flush(final: bool = False) -> None:
        for a in list(pending):
            needed = symbols_of(*(d for d in a.buffer.shape if isinstance(d, Expr))) & lets
            if final or needed <= bound:
                result.append(a)
                pending.remove(a)

    started = False
    for s in body:
        if not started and not isinstance(s, (Let, Assert)) and not _is_input(s):
            started = True
        if started and not isinstance(s, Assert):
            flush()
        result.append(s)
        if isinstance(s, Let):
            bound.add(s.var)
    flush(final=True)
    return result


def _is_input(s: Stmt) -> bool:
    return isinstance(s, Alloc) and s.buffer.scope in ("input", "input_shape")
