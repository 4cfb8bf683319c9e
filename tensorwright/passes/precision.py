"""Compute an f32 model in bf16 where that is fast and safe: products in bf16, sums in f32.

    y: f32[n,8] = relu(dot_general(x, w)); z = dot_general(y, v)
    ->  y = cast(relu(dot_general(cast(x, dtype=bf16), w', dtype=f32)), dtype=bf16)
        z = dot_general(y, v', dtype=f32)                         # w', v': constants in bf16

What a contraction multiplies becomes bf16, and its sums stay f32. A tensor that a contraction wants
in bf16 is stored so, and what else reads it reads that, widened; unless one of its readers is
sensitive, or it leaves the graph, or so much is multiplied with it that storing it in f32 as well
costs nothing (the sums that run past the layers of a transformer). All other arithmetic is f32 in
registers. Inputs and results keep their types. `RULES` says for every operator how it is treated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

from tensorwright.base import trace
from tensorwright.ir.build import build, location
from tensorwright.ir.dtype import bf16, f32
from tensorwright.ir.expr import as_expr, bounds
from tensorwright.ir.graph import (
    CONST,
    Graph,
    Node,
    array_of,
    constant,
    rebuild,
    subgraphs,
    users,
    with_args,
)  # fmt: skip
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ir.type import TensorType
from tensorwright.ops.elementwise import cast
from tensorwright.passes.convolutions import Windows
from tensorwright.passes.pointwise import NAMES as POINTWISE
from tensorwright.target.target import Target

PRECISIONS = ("model", "bf16")
SHORTEST = 4  # fewer products a sum are not worth two conversions
MANY = 512  # products of each element beside which storing it a second time, in f32, costs nothing


@dataclass(frozen=True)
class Rule:
    """How operators are treated: `multiplied` in bf16 and summed in f32; `moved` in whichever type
    the reader wants; `stored` in bf16 for them, which compute in f32; `carried`: they take what is
    stored in bf16 anyway and compute in f32; `exact`: nothing is rounded for them."""

    ops: tuple[str, ...]
    how: str
    why: str


SENSITIVE = (
    "exp", "exp2", "expm1", "log", "log2", "log1p", "pow", "div", "reciprocal", "sqrt", "rsqrt",
    "mod", "rem", "floor_div", "trunc_div", "sin", "cos", "tan", "sinh", "cosh", "asin", "acos",
    "acosh", "atanh", "erfc", "lgamma", "digamma", "floor", "ceil", "round", "trunc", "sign",
    "equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "is_nan", "is_inf",
    "is_finite", "bitcast", "cast",
)  # fmt: skip
RULES: tuple[Rule, ...] = (
    Rule(("dot_general", "conv_general"), "multiplied",
         "products of bf16 are exact in f32, where they are summed"),
    Rule(("reshape", "transpose", "slice", "pad", "concat", "broadcast_to", "flip"), "moved",
         "moves elements without computing"),
    Rule(("reduce_window",), "stored", "reads every element more than once"),
    Rule(("winograd", "strassen"), "exact", "its transforms magnify differences"),
    Rule(tuple(sorted(POINTWISE - set(SENSITIVE))), "carried",
         "an element differs by its rounding"),
    Rule(SENSITIVE, "exact", "magnifies differences or jumps"),
    Rule(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin", "cumsum",
          "cumprod", "cummax", "cummin", "argsort", "top_k", "det"), "exact",
         "statistics and order of many elements"),
    Rule(("scan_", "while_", "if_", "call"), "exact", "state that is carried keeps its type"),
)  # fmt: skip
OTHERS = Rule((), "exact", "no rule says otherwise")
RULE_OF: dict[str, Rule] = {op: r for r in RULES for op in r.ops}


def compute_in(m: Module, target: Target) -> Module:
    """`m` with its f32 arithmetic as the target is asked to do it."""
    if target.precision == "model":
        return m
    if "bf16" not in target.dots:
        trace.decision("precision", target.name, "converted", "no products of bf16: they are "
                       "stored in bf16 and multiplied in f32")  # fmt: skip
    return map_graphs(m, lambda g: Narrowing(g).run())


def how(node: Node) -> str:
    """The treatment of a node by `RULES`, its shapes considered."""
    found = RULE_OF.get(node.op.name, OTHERS).how
    return found if found != "multiplied" else contraction(node)[0]


def contraction(node: Node) -> tuple[str, str]:
    """(treatment, reason) of a product or a convolution."""
    x, w = node.args
    if x.dtype is not f32 or node.dtype is not f32:
        return "exact", f"is in {x.dtype} already"
    if node.op.name == "conv_general":
        if w.shape[-2 if node.attrs["layout"] == "NLAST" else 1] == 1:
            return "stored", "each channel by itself: reading is what it costs"
        return "multiplied", RULE_OF["conv_general"].why
    axes = node.attrs["contract"][0]
    if upper([x.shape[a] for a in axes]) < SHORTEST:
        return "exact", "sums of few products"
    rows = [d for a, d in enumerate(x.shape) if a not in (*axes, *node.attrs["batch"][0])]
    if not is_weight(w) and upper(rows) == 1:
        return "exact", "reads each element of both operands once"
    return "multiplied", RULE_OF["dot_general"].why


def uses_of_element(node: Node) -> float:
    """How many products an element of the left operand of a contraction goes into."""
    w = node.args[1]
    if node.op.name == "dot_general":
        (_, shared), (_, summed) = node.attrs["batch"], node.attrs["contract"]
        return upper([d for a, d in enumerate(w.shape) if a not in (*shared, *summed)])
    window = Windows(node)
    outputs = w.shape[-1] if node.attrs["layout"] == "NLAST" else w.shape[0]
    return upper([outputs, *window.sizes]) / prod(window.strides)


def upper(dims) -> float:
    """The largest product of the dimensions; infinite where nothing bounds it."""
    total = 1.0
    for d in dims:
        high = bounds(as_expr(d))[1]
        total *= float("inf") if high is None else high
    return total


def is_weight(x: Node) -> bool:
    """Whether a tensor is a constant, moved or not."""
    while how(x) == "moved" and len(x.args) == 1:
        x = x.args[0]
    return x.op is CONST


class Narrowing:
    """One graph; `wanted`: its tensors that something wants in bf16."""

    def __init__(self, g: Graph):
        self.graph, self.users = g, users(g)
        self.nodes = g.nodes()
        self.how = {n: how(n) for n in self.nodes}
        self.wanted: dict[Node, None] = {}
        self.exact: dict[Node, bool] = {}
        self.narrow_of: dict[Node, Node] = {}

    def run(self) -> Graph:
        for n in reversed(self.nodes):
            if any(self.wants(n, a) for a in n.args if a is not None):
                self.wanted.update((a, None) for a in n.args if self.wants(n, a))
            if n.op.name in ("dot_general", "conv_general"):
                self.explain(n)
        if not self.wanted and not any(map(subgraphs, self.nodes)):
            return self.graph
        return rebuild(self.graph, self.visit)

    def explain(self, n: Node) -> None:
        treated, why = contraction(n)
        verdict = {"multiplied": "bf16", "stored": "f32 of what is stored in bf16"}
        trace.decision("precision", n, verdict.get(treated, "as it is"), why)

    def wants(self, n: Node, a: Node | None) -> bool:
        """Whether the node wants this operand in bf16."""
        if a is None or not isinstance(a.type, TensorType) or a.dtype is not f32:
            return False
        match self.how[n]:
            case "multiplied":
                return True
            case "stored":
                return a is n.args[0] and a.op is not CONST
            case "moved":
                return n in self.wanted and n.dtype is f32
        return False

    def needed_exact(self, n: Node) -> bool:
        """Whether something reads the tensor that must see it unrounded, or may as well."""
        if n not in self.exact:
            self.exact[n] = (
                n in self.graph.results
                or n in self.graph.binders
                or any(self.reads_exactly(u, n) for u in self.users[n])
                or self.products(n) >= MANY
            )
        return self.exact[n]

    def products(self, n: Node) -> float:
        """How many products each element of the tensor goes into."""
        total = 0.0
        for u in self.users[n]:
            if self.how[u] == "multiplied" and n is u.args[0]:
                total += uses_of_element(u)
            elif self.how[u] == "moved":
                total += self.products(u)
        return total

    def reads_exactly(self, u: Node, n: Node) -> bool:
        if self.wants(u, n):
            return u in self.wanted and self.how[u] == "moved" and self.needed_exact(u)
        treated = self.how[u]
        return treated == "exact" or (treated == "moved" and self.needed_exact(u))

    # ---- rewriting -----------------------------------------------------------------------------

    def visit(self, node: Node, args: tuple) -> Node:
        if subgraphs(node):
            attrs = {k: Narrowing(v).run() if isinstance(v, Graph) else v
                     for k, v in node.attrs.items()}  # fmt: skip
            return replace(with_args(node, args), attrs=attrs)
        treated = self.how[node]
        if treated == "multiplied":
            new = [self.narrow(a, b) for a, b in zip(node.args, args)]
            return self.named(node, lambda: build(node.op, new, {**node.attrs, "dtype": f32}))
        new = [self.widened(node, a, b) for a, b in zip(node.args, args)]
        return with_args(node, tuple(new))

    def widened(self, node: Node, old: Node | None, new: Node | None) -> Node | None:
        """What a node that computes in f32 reads: the stored tensor, converted where it is read."""
        if old is None or old not in self.wanted or self.needed_exact(old) or old.op is CONST:
            return new
        if self.how[node] not in ("stored", "carried", "moved"):
            return new
        return cast(self.narrow(old, new), dtype=f32)

    def narrow(self, old: Node, new: Node) -> Node:
        """The tensor in bf16, converted where its elements are computed."""
        if old not in self.narrow_of:
            self.narrow_of[old] = self.named(old, lambda: self.narrowed(old, new))
        return self.narrow_of[old]

    def narrowed(self, old: Node, new: Node) -> Node:
        if new.op is CONST:
            return constant(array_of(new).astype(bf16.numpy), new.name)
        if new.op is cast and new.args[0].dtype is bf16:
            return new.args[0]
        if self.how.get(old) == "moved" and old.dtype is f32:
            args = [self.narrow(a, b) if b.dtype is f32 else b
                    for a, b in zip(old.args, new.args)]  # fmt: skip
            return build(old.op, tuple(args), old.attrs)
        return cast(new, dtype=bf16, flush=True)

    def named(self, node: Node, make: Callable[[], Node]) -> Node:
        """What `make` builds in the place of a node."""
        with location(*node.loc):
            return make()
