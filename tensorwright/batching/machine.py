"""A program of blocks for many examples: one loop over a program counter for each lane.

    while any(pc != end):
        most = max over blocks of count(pc == b)
        for each block b: if count(pc == b) >= most: run b, keep its results where pc == b

Every lane has a program counter, a stack pointer and a stack; a variable is a register for all
lanes, and has a stack if it is live across a call that may enter its function again. Lanes at the
same block run together, whatever the depth of their recursion (Radul et al. 2020, section 3). In
each round the fullest block runs, and those behind it that become as full: running every block that
any lane is at would leave most of the lanes idle most of the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tensorwright.batching.blocks import Block, Emit, Program
from tensorwright.batching.control import choose
from tensorwright.batching.flow import Flow, analyse
from tensorwright.batching.lanes import Lanes
from tensorwright.ir.dtype import DType, i64
from tensorwright.ir.expr import Symbol, as_dim, as_expr, sym
from tensorwright.ir.graph import CONST, Graph, Node, graph, param
from tensorwright.ir.type import Dim, TensorType
from tensorwright.ops.control import if_, items, while_
from tensorwright.ops.elementwise import (
    add,
    cast,
    equal,
    greater_equal,
    less,
    maximum,
    minimum,
    not_equal,
    select,
    sub,
)
from tensorwright.ops.index import gather, scatter_axis
from tensorwright.ops.movement import broadcast_to, reshape
from tensorwright.ops.positions import bind_size, full, iota
from tensorwright.ops.reduce import reduce_any, reduce_max, reduce_sum

DEPTH = 64  # frames of a lane's stack, if the caller does not say

# What the loop carries besides variables and their stacks (a key of those is ("stack", variable)).
PC, POINTER, DEEPEST, RETURN = "pc", "pointer", "deepest", "return"
Key = object


def number(value: Dim, dtype: DType = i64) -> Node:
    return full(shape=(), value=value, dtype=dtype)


@dataclass
class Machine:
    """The loop of a program over `lanes.size` lanes, each with a stack of `depth` frames."""

    program: Program
    flow: Flow
    lanes: Lanes
    depth: int
    shared: dict[Node, Node] = field(default_factory=dict)  # what lanes share, outside of the loop

    @property
    def size(self) -> Dim:
        return self.lanes.size

    @property
    def end(self) -> int:
        """The program counter of a lane that is done."""
        return len(self.program.blocks)

    # ---- state ---------------------------------------------------------------------------------

    def registers(self) -> list[Node]:
        """Variables that some block leaves for another."""
        blocks = self.program.order
        kept = set().union(*(self.flow.kept(b) for b in blocks))
        return [v for v in self.program.variables if v in kept]

    def stacked(self) -> list[Node]:
        return list(dict.fromkeys(v for vs in self.flow.saved.values() for v in vs))

    def frames(self) -> Dim:
        """Rows of a stack for all lanes; the last one of each lane is never read."""
        return as_dim(as_expr(self.size) * (self.depth + 1))

    def zeros(self, t: TensorType, first: Dim) -> Node:
        return full(shape=(first, *t.shape), value=0, dtype=t.dtype)

    def start(self, given: dict[Node, Node]) -> dict[Key, Node]:
        """The state before the first step; `given`: values of the root's parameters."""
        lane = TensorType(i64, ())
        state: dict[Key, Node] = {k: self.zeros(lane, self.size) for k in (PC, POINTER, DEEPEST)}
        if self.flow.saved or any(b.after[0] == "call" for b in self.program.order):
            state[RETURN] = self.zeros(lane, self.frames())
        for v in [*self.registers(), *given]:
            state[v] = given[v] if v in given else self.zeros(v.type, self.size)
        for v in self.stacked():
            state[("stack", v)] = self.zeros(v.type, self.frames())
        return state

    # ---- blocks --------------------------------------------------------------------------------

    def reads(self, b: Block) -> set[Key]:
        wanted = self.flow.wanted(b)
        saving = self.flow.saved.get(b.number, [])
        begin = self.flow.needs(b, [*wanted, *saving])[0] | (self.flow.kept(b) & self.defined(b))
        taken = self.popped(b)
        sources = dict(b.entry)
        found: set[Key] = {PC, *(sources.get(v, v) for v in begin if v not in taken)}
        found |= {("stack", v) for v in taken if v in begin}
        return found | {POINTER, RETURN} if b.after[0] in ("call", "return") or taken else found

    def popped(self, b: Block) -> list[Node]:
        """The variables that a block takes from the stack: it stands behind a call."""
        return self.flow.restored.get(b.number, [])

    def defined(self, b: Block) -> set[Node]:
        return {v for v, _ in b.moves} | {v for v, _ in b.entry} | set(self.popped(b))

    def writes(self, b: Block) -> list[Key]:
        keys: list[Key] = [PC, *(v for v in self.registers()
                                 if v in self.flow.kept(b) & self.defined(b))]  # fmt: skip
        if b.after[0] == "return":
            keys.append(POINTER)
        if b.after[0] == "call":
            saving = self.flow.saved.get(b.number, [])
            keys += [POINTER, DEEPEST, RETURN, *(("stack", v) for v in saving)]
        return keys

    def run(self, b: Block, state: dict[Key, Node], shared: dict[Node, Node]) -> dict[Key, Node]:
        """The state after a block, for the lanes that are at it."""
        mask = equal(state[PC], number(b.number))
        lanes = self.lanes.block()
        constants = {p: (x, False) for p, x in self.flow.shared.items() if x.op is CONST}
        lanes.values = constants | {n: (x, False) for n, x in shared.items()}
        row = self.row(state[POINTER], self.depth) if self.popped(b) else None
        taken = {v: gather(state[("stack", v)], row) for v in self.popped(b)
                 if ("stack", v) in state}  # fmt: skip
        home = self.program.home
        begin = {k: x for k, x in state.items()
                 if isinstance(k, Node) and home.get(k) != b.number}  # fmt: skip
        begin |= taken
        begin |= {v: begin[source] for v, source in b.entry if source in begin}
        lanes.values |= {v: (x, True) for v, x in begin.items()}
        value = lambda n: lanes.with_lanes(lanes.of(n))
        return self.finish(b, state, mask, begin, value)

    def finish(self, b: Block, state, mask: Node, begin, value) -> dict[Key, Node]:
        moves = dict(b.moves)
        new: dict[Key, Node] = {}
        for key in self.writes(b):
            if isinstance(key, Node):
                found = self.moved(moves[key], key, begin, value) if key in moves else begin[key]
                new[key] = choose(mask, found, state[key]) if key in state else found
        next_pc, more = getattr(self, f"after_{b.after[0]}")(b, state, mask, begin, value)
        new[PC] = choose(mask, next_pc, state[PC])
        return {**new, **more}

    def moved(self, source: Node, key: Node, begin, value) -> Node:
        return begin[source] if source is not key and source in begin else value(source)

    def shared_in(self, b: Block) -> list[Node]:
        """What the block uses that all lanes share, but for constants."""
        saving = self.flow.saved.get(b.number, [])
        todo, found, seen = [*self.flow.wanted(b), *saving], [], set()
        while todo:
            n = todo.pop()
            if n in seen or n.op is CONST or self.flow.shared.get(n, n).op is CONST:
                continue
            seen.add(n)
            if not self.flow.is_shared(n):
                here = self.program.home.get(n) == b.number
                todo += [a for a in n.args if a is not None] if here else []
            elif n in self.flow.shared or n.args:
                found.append(n)
        return found

    # ---- where lanes go next -------------------------------------------------------------------

    def goto(self, target: int) -> Node:
        return broadcast_to(number(target), shape=(self.size,))

    def after_jump(self, b: Block, state, mask, begin, value):
        return self.goto(b.after[1]), {}

    def after_branch(self, b: Block, state, mask, begin, value):
        _, cond, then, orelse = b.after
        return select(value(cond), self.goto(then), self.goto(orelse)), {}

    def after_halt(self, b: Block, state, mask, begin, value):
        return self.goto(self.end), {}

    def after_return(self, b: Block, state, mask, begin, value):
        below = sub(state[POINTER], number(1))
        target = gather(state[RETURN], self.row(below, self.depth))
        return target, {POINTER: choose(mask, below, state[POINTER])}

    def after_call(self, b: Block, state, mask, begin, value):
        """Save what is live, and where to come back to. A lane whose stack is full stops."""
        entry = self.program.functions[b.after[1]].entry
        pointer = state[POINTER]
        fits = less(pointer, number(self.depth))
        row = self.row(select(mask, pointer, number(self.depth)), self.depth)
        push = lambda key, x: scatter_axis(state[key], row, x, axis=0, mode="set")
        above = add(pointer, number(1))
        more: dict[Key, Node] = {
            RETURN: push(RETURN, self.goto(b.after[2])),
            POINTER: choose(mask, above, pointer),
            DEEPEST: choose(mask, maximum(above, state[DEEPEST]), state[DEEPEST]),
        }
        for v in self.flow.saved.get(b.number, []):
            more[("stack", v)] = push(("stack", v), begin[v] if v in begin else value(v))
        return select(fits, self.goto(entry), self.goto(self.end)), more

    def row(self, pointer: Node, depth: int) -> Node:
        """The row of each lane's frame in a stack."""
        first = iota(shape=(self.size,), step=depth + 1)
        return add(first, minimum(maximum(pointer, number(0)), number(depth)))

    # ---- the loop ------------------------------------------------------------------------------

    def loop(self, given: dict[Node, Node]) -> list[Node]:
        """The results of the root for all lanes."""
        state = self.start(given)
        keys, rest = list(state), list(self.shared)
        params = {k: param(f"s{j}", x.type) for j, (k, x) in enumerate(state.items())}
        known = {n: param(f"c{j}", self.shared[n].type) for j, n in enumerate(rest)}
        now = dict(params)
        most = self.fullest(now[PC])
        for b in self.program.order:
            now = self.guarded(b, now, known, most)
        order = [*params.values(), *known.values()]
        body = graph("step", order, [now[k] for k in keys])
        tested = [param(p.name, p.type) for p in order]
        going = reduce_any(not_equal(tested[keys.index(PC)], number(self.end)))
        cond = graph("going", tested, [going])
        y = while_(*state.values(), *self.shared.values(), cond=cond, body=body, carried=len(keys))
        found = dict(zip(keys, items(y)))
        results = [found[v] for v in self.program.functions[""].returned]
        return self.checked(results, found[DEEPEST]) if RETURN in found else results

    def fullest(self, pc: Node) -> Node:
        """How many lanes are at the block that most are at; lanes that are done are at none."""
        numbers = iota(shape=(1, self.end), axis=1)
        there = equal(broadcast_to(reshape(pc, shape=(self.size, 1)), shape=(self.size, self.end)),
                      numbers)  # fmt: skip
        return reduce_max(reduce_sum(cast(there, dtype=i64), axes=(0,)))

    def guarded(
        self, b: Block, now: dict[Key, Node], known: dict[Node, Node], most: Node
    ) -> dict[Key, Node]:
        """The state after a block, if enough lanes are at it."""
        writes = self.writes(b)
        used = [k for k in now if k in self.reads(b) or k in writes]
        needed = self.shared_in(b)
        outside = [now[k] for k in used] + [known[n] for n in needed]
        count = reduce_sum(cast(equal(now[PC], number(b.number)), dtype=i64))
        cond = greater_equal(count, most)
        arms = []
        for taken in (True, False):
            inner = [param(x.name, x.type) for x in outside]
            state = dict(zip(used, inner))
            shared = dict(zip(needed, inner[len(used) :]))
            found = self.run(b, state, shared) if taken else state
            arms.append(graph(f"block_{b.number}", inner, [found[k] for k in writes]))
        y = if_(cond, *outside, then=arms[0], orelse=arms[1])
        return {**now, **dict(zip(writes, items(y)))}

    def checked(self, results: list[Node], deepest: Node) -> list[Node]:
        """The results, which only exist if no stack was too small."""
        most = maximum(reduce_max(deepest, axes=(0,)), number(0))
        depth = sym(Symbol("stack_depth", min=-1, max=self.depth))
        bind_size(most, symbols=(depth,))
        bad = less(number(depth), number(0))  # never, but known at run time only
        return [choose(broadcast_to(bad, shape=(self.size,)), self.zeros(
            TensorType(r.dtype, r.shape[1:]), self.size), r) for r in results]  # fmt: skip


def batch_program(
    g: Graph, on: list[bool], args: list[Node], lanes: Lanes, depth: int = DEPTH
) -> list[Node]:
    """The results of `g` over lanes: `args` are its operands, with a leading dimension for the
    lanes where `on`. `lanes.graphs` holds the functions that it calls."""
    program = Emit(g, lanes.graphs).program
    captured = {p: p for p, one in zip(g.params, on) if not one}
    flow = analyse(program, captured)
    outer = dict(zip(g.params, args))
    m = Machine(program, flow, lanes, depth)
    m.shared = shared_values(m, {p: outer[p] for p in captured})
    given = {p: outer[p] for p, one in zip(g.params, on) if one}
    return m.loop(given)


def shared_values(m: Machine, outer: dict[Node, Node]) -> dict[Node, Node]:
    """What blocks use that all lanes share, computed before the loop."""
    lanes = m.lanes.block()
    lanes.values = {p: (x, False) for p, x in outer.items()}
    for p, target in m.flow.shared.items():
        lanes.values[p] = (outer.get(target, target), False)
    return {n: lanes.of(n)[0] for b in m.program.order for n in m.shared_in(b)}
