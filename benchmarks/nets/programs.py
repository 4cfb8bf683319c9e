"""Models that are programs: recursion over trees, loops of unknown length, choices. Each is written
twice, in Tensorwright and in PyTorch, over the same seeded weights.

    case = binary_tree_lstm(300, 150);  case.ours(*case.inputs[0]);  case.eager(*case.torch[0])

Trees follow a seeded grammar with the sizes of parsed English sentences (the Stanford Sentiment
Treebank: 19 words on average).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

import tensorwright as tw
from tensorwright import numpy as tnp

WORDS = 19  # of a sentence on average
ANY = "n"  # a size that is known at run time


@dataclass
class Program:
    """One model: a traced function with example inputs, and the same in PyTorch."""

    name: str
    ours: object
    inputs: list[tuple]
    eager: Callable
    torch: list[tuple]
    module: nn.Module | None = None  # what torch.compile and ONNX Runtime can take
    unit: str = ""
    work: list[int] = field(default_factory=list)  # words, steps ... of each input


def lengths(count: int, seed: int = 0) -> list[int]:
    rng = np.random.default_rng(seed)
    return [int(n) for n in np.clip(rng.gamma(4, WORDS / 4, count), 2, 60)]


def weight(rng, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + tnp.exp(-x))


# ---- trees -------------------------------------------------------------------------------------


class Tree:
    """A parse for PyTorch: a word's vector or two parts, or a word with any number of children."""

    def __init__(self, x=None, children=()):
        self.x, self.children = x, children


def binary(rng, words: int, dim: int, leaf, node):
    """A random binary parse; iterative in the longer half is not needed at these sizes."""
    if words == 1:
        return leaf(rng.standard_normal(dim).astype(np.float32))
    k = int(rng.integers(1, words))
    return node(binary(rng, k, dim, leaf, node), binary(rng, words - k, dim, leaf, node))


def binary_tree_lstm(dim: int, hidden: int, count: int = 16) -> Program:
    """Tai et al. 2015, constituency: words at the leaves, two children."""
    rng = np.random.default_rng(1)
    w_leaf, w_node = weight(rng, dim, 3 * hidden), weight(rng, 2 * hidden, 5 * hidden)
    w_leaf[:, hidden : 2 * hidden] *= 0.5

    @tw.data
    class Parse:
        class Leaf:
            x: tw.f32[dim]

        class Node:
            left: Parse
            right: Parse

    def part(g, k):
        return g[k * hidden : (k + 1) * hidden]

    @tw.function
    def tree_lstm(t: Parse):
        def leaf(x):
            g = x @ w_leaf
            c = sigmoid(part(g, 0)) * tnp.tanh(part(g, 2))
            return sigmoid(part(g, 1)) * tnp.tanh(c), c

        def node(left, right):
            hl, cl = tree_lstm(left)
            hr, cr = tree_lstm(right)
            g = tnp.concat([hl, hr]) @ w_node
            c = sigmoid(part(g, 0)) * tnp.tanh(part(g, 4))
            c = c + sigmoid(part(g, 1)) * cl + sigmoid(part(g, 2)) * cr
            return sigmoid(part(g, 3)) * tnp.tanh(c), c

        return tw.match(t, Leaf=leaf, Node=node)

    t_leaf, t_node = torch.tensor(w_leaf), torch.tensor(w_node)

    def eager(t: Tree):
        if not t.children:
            i, o, u = (t.x @ t_leaf).chunk(3)
            c = torch.sigmoid(i) * torch.tanh(u)
            return torch.sigmoid(o) * torch.tanh(c), c
        (hl, cl), (hr, cr) = map(eager, t.children)
        i, fl, fr, o, u = (torch.cat([hl, hr]) @ t_node).chunk(5)
        c = torch.sigmoid(i) * torch.tanh(u) + torch.sigmoid(fl) * cl + torch.sigmoid(fr) * cr
        return torch.sigmoid(o) * torch.tanh(c), c

    sizes = lengths(count)
    ours = [(binary(np.random.default_rng(k), n, dim, Parse.Leaf, Parse.Node),)
            for k, n in enumerate(sizes)]  # fmt: skip
    theirs = [(binary(np.random.default_rng(k), n, dim, lambda x: Tree(torch.tensor(x)),
                      lambda a, b: Tree(children=(a, b))),)
              for k, n in enumerate(sizes)]  # fmt: skip
    name = f"Tree-LSTM, binary, {dim} -> {hidden}"
    return Program(name, tree_lstm, ours, eager, theirs, unit="word", work=sizes)


def rose(rng, words: int, dim: int, node):
    """A random dependency parse: a head word and the parses of its dependents."""
    x = rng.standard_normal(dim).astype(np.float32)
    rest, children = words - 1, []
    while rest:
        k = int(rng.integers(1, rest + 1))
        children.append(rose(rng, k, dim, node))
        rest -= k
    return node(x, children)


def child_sum_tree_lstm(dim: int, hidden: int, count: int = 16) -> Program:
    """Tai et al. 2015, dependency: a word at every node, any number of children."""
    rng = np.random.default_rng(2)
    w_x, w_h = weight(rng, dim, 4 * hidden), weight(rng, hidden, 3 * hidden)
    u_f = weight(rng, hidden, hidden)

    @tw.data
    class Parse:
        class Word:
            x: tw.f32[dim]
            children: Parses

    @tw.data
    class Parses:
        class Nil:
            pass

        class Cons:
            head: Parse
            tail: Parses

    @tw.function
    def child_sum(t: Parse):
        def word(x, children):
            g = x @ w_x
            h, fc = summed(children, g[3 * hidden :])
            g = g[: 3 * hidden] + h @ w_h
            i, o, u = g[:hidden], g[hidden : 2 * hidden], g[2 * hidden :]
            c = sigmoid(i) * tnp.tanh(u) + fc
            return sigmoid(o) * tnp.tanh(c), c

        return tw.match(t, Word=word)

    @tw.function
    def summed(ts: Parses, x: tw.f32[hidden]) -> (tw.f32[hidden], tw.f32[hidden]):
        def cons(head, tail):
            h, c = child_sum(head)
            hs, fcs = summed(tail, x)
            return h + hs, fcs + sigmoid(x + h @ u_f) * c

        return tw.match(ts, Nil=lambda: (tnp.zeros(hidden), tnp.zeros(hidden)), Cons=cons)

    tx, th, tf = torch.tensor(w_x), torch.tensor(w_h), torch.tensor(u_f)

    def eager(t: Tree):
        g = t.x @ tx
        gx = g[3 * hidden :]
        h, fc = torch.zeros(hidden), torch.zeros(hidden)
        for child in t.children:
            hk, ck = eager(child)
            h, fc = h + hk, fc + torch.sigmoid(gx + hk @ tf) * ck
        i, o, u = (g[: 3 * hidden] + h @ th).chunk(3)
        c = torch.sigmoid(i) * torch.tanh(u) + fc
        return torch.sigmoid(o) * torch.tanh(c), c

    def made(x, children):
        found = Parses.Nil()
        for c in reversed(children):
            found = Parses.Cons(c, found)
        return Parse.Word(x, found)

    sizes = lengths(count)
    ours = [(rose(np.random.default_rng(k), n, dim, made),) for k, n in enumerate(sizes)]
    tree = lambda x, c: Tree(torch.tensor(x), c)
    theirs = [(rose(np.random.default_rng(k), n, dim, tree),) for k, n in enumerate(sizes)]
    name = f"Tree-LSTM, child-sum, {dim} -> {hidden}"
    return Program(name, child_sum, ours, eager, theirs, unit="word", work=sizes)


def decision_tree(depth: int = 12, features: int = 16, count: int = 64) -> Program:
    """A tree that is itself an argument; each call walks one path of it."""

    @tw.data
    class Rule:
        class Answer:
            value: tw.f32

        class Split:
            feature: tw.i64
            limit: tw.f32
            below: Rule
            above: Rule

    @tw.function
    def decide(rule: Rule, x: tw.f32[features]) -> tw.f32:
        return tw.match(
            rule,
            Answer=lambda value: value,
            Split=lambda k, limit, below, above: tw.cond(
                tnp.take(x, tnp.reshape(k, (1,)))[0] < limit,
                lambda: decide(below, x),
                lambda: decide(above, x),
            ),
        )

    @tw.function
    def forest(rule: Rule, xs: tw.f32[ANY, features]):
        _, ys = tw.scan(lambda s, x: (s, decide(rule, x)), tnp.asarray(0), xs)
        return ys

    def grow(rng, d: int):
        if d == 0:
            return Rule.Answer(np.float32(rng.standard_normal()))
        return Rule.Split(np.int64(rng.integers(features)), np.float32(rng.standard_normal()),
                          grow(rng, d - 1), grow(rng, d - 1))  # fmt: skip

    rule = grow(np.random.default_rng(3), depth)

    def eager(rule, xs):
        found = []
        for x in xs:
            r = rule
            while r.case == "Split":
                r = r.below if x[int(r.feature)] < float(r.limit) else r.above
            found.append(float(r.value))
        return torch.tensor(found)

    xs = np.random.default_rng(4).standard_normal((count, features)).astype(np.float32)
    name = f"decision tree of depth {depth}, {count} rows"
    return Program(name, forest, [(rule, xs)], eager, [(rule, torch.tensor(xs))],
                   unit="decision", work=[count * depth])  # fmt: skip


# ---- sequences ---------------------------------------------------------------------------------


class LanguageModel(nn.Module):
    """Scores of the next word after each word of one sentence."""

    def __init__(self, kind: str, words: int, hidden: int):
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(words, hidden)
        self.cells = (nn.LSTM if kind == "lstm" else nn.GRU)(hidden, hidden)
        self.scores = nn.Linear(hidden, words)

    def forward(self, tokens):
        return self.scores(self.cells(self.words(tokens))[0])


def arrays(m: nn.Module) -> dict[str, np.ndarray]:
    return {k: v.detach().numpy() for k, v in m.state_dict().items()}


def step_of(kind: str, w: dict[str, np.ndarray], hidden: int) -> tuple[Callable, tuple]:
    """(state, x -> state, h) of one cell over PyTorch's weights; the state at the start."""
    wi, wh = w["cells.weight_ih_l0"].T.copy(), w["cells.weight_hh_l0"].T.copy()
    bi, bh = w["cells.bias_ih_l0"], w["cells.bias_hh_l0"]

    def part(g, k):
        return g[k * hidden : (k + 1) * hidden]

    def lstm(state, x):
        h, c = state
        g = x @ wi + h @ wh + (bi + bh)
        c = sigmoid(part(g, 1)) * c + sigmoid(part(g, 0)) * tnp.tanh(part(g, 2))
        h = sigmoid(part(g, 3)) * tnp.tanh(c)
        return (h, c), h

    def gru(state, x):
        (h,) = state
        a, b = x @ wi + bi, h @ wh + bh
        r, z = sigmoid(part(a, 0) + part(b, 0)), sigmoid(part(a, 1) + part(b, 1))
        n = tnp.tanh(part(a, 2) + r * part(b, 2))
        h = (1 - z) * n + z * h
        return (h,), h

    zero = np.zeros(hidden, np.float32)
    return (lstm, (zero, zero)) if kind == "lstm" else (gru, (zero,))


def language_model(kind: str, words: int = 2000, hidden: int = 256, count: int = 16) -> Program:
    """One sentence at a time, of any length."""
    module = LanguageModel(kind, words, hidden).eval()
    w = arrays(module)
    step, start = step_of(kind, w, hidden)

    @tw.function
    def model(tokens: tw.i64[ANY]):
        x = tnp.take(w["words.weight"], tokens, axis=0)
        _, hs = tw.scan(step, start, x)
        return hs @ w["scores.weight"].T.copy() + w["scores.bias"]

    sizes = lengths(count)
    rng = np.random.default_rng(5)
    tokens = [rng.integers(0, words, n) for n in sizes]
    return Program(f"{kind.upper()} language model, {hidden}", model, [(t,) for t in tokens],
                   module, [(torch.tensor(t),) for t in tokens], module, "word", sizes)  # fmt: skip


def greedy(kind: str = "gru", words: int = 2000, hidden: int = 256, most: int = 60) -> Program:
    """The likeliest next word again and again, until the end or `most` words: one loop."""
    module = LanguageModel(kind, words, hidden).eval()
    w = arrays(module)
    step, start = step_of(kind, w, hidden)
    scores = w["scores.weight"].T.copy()

    @tw.function
    def decode(first: tw.i64):
        def body(s):
            k, token, state, out = s
            state, h = step(state, tnp.take(w["words.weight"], token, axis=0))
            token = tnp.argmax(h @ scores + w["scores.bias"])
            return k + 1, token, state, out.at[k].set(token)

        init = (tnp.asarray(0), first, start, tnp.zeros(most, dtype=tw.i64))
        return tw.while_loop(lambda s: (s[0] < most) & (s[1] != 0), body, init)[3]

    def eager(first):
        token, state = first.reshape(1), None
        out = torch.zeros(most, dtype=torch.int64)
        for k in range(most):
            if int(token) == 0:
                break
            h, state = module.cells(module.words(token), state)
            token = module.scores(h).argmax(-1)
            out[k] = token[0]
        return out

    firsts = [np.int64(k) for k in (3, 14, 159)]
    return Program(f"greedy decode, {kind.upper()} {hidden}, {most} words", decode,
                   [(f,) for f in firsts], eager, [(torch.tensor(f),) for f in firsts],
                   unit="word", work=[most] * 3)  # fmt: skip


def beam(words: int = 2000, hidden: int = 256, width: int = 4, most: int = 40) -> Program:
    """Beam search with a GRU: the best `width` sentences of `most` words, in one loop."""
    module = LanguageModel("gru", words, hidden).eval()
    w = arrays(module)
    wi, wh = w["cells.weight_ih_l0"].T.copy(), w["cells.weight_hh_l0"].T.copy()
    bi, bh = w["cells.bias_ih_l0"], w["cells.bias_hh_l0"]
    scores = w["scores.weight"].T.copy()
    begin = np.zeros(width, np.float32)
    begin[1:] = -1e9  # at first all beams are the same

    def cell(h, x):
        a, b = x @ wi + bi, h @ wh + bh
        r = sigmoid(a[:, :hidden] + b[:, :hidden])
        z = sigmoid(a[:, hidden : 2 * hidden] + b[:, hidden : 2 * hidden])
        n = tnp.tanh(a[:, 2 * hidden :] + r * b[:, 2 * hidden :])
        return (1 - z) * n + z * h

    def largest(x, count):
        values, places = [], []
        for _ in range(count):
            places.append(tnp.argmax(x))
            values.append(tnp.take(x, places[-1], axis=0))
            x = x.at[places[-1]].set(-1e30)
        return tnp.stack(values), tnp.stack(places)

    @tw.function
    def search(first: tw.i64):
        def body(s):
            k, tokens, logp, h, out = s
            h = cell(h, tnp.take(w["words.weight"], tokens, axis=0))
            y = h @ scores + w["scores.bias"]
            y = y - tnp.max(y, axis=1, keepdims=True)
            y = y - tnp.log(tnp.sum(tnp.exp(y), axis=1, keepdims=True))
            total = tnp.reshape(logp[:, None] + y, (width * words,))
            logp, at = largest(total, width)
            source, tokens = at // words, at % words
            out = tnp.take(out, source, axis=0).at[:, k].set(tokens)
            return k + 1, tokens, logp, tnp.take(h, source, axis=0), out

        init = (tnp.asarray(0), tnp.broadcast_to(first, (width,)), tnp.asarray(begin),
                tnp.zeros((width, hidden)), tnp.zeros((width, most), dtype=tw.i64))  # fmt: skip
        found = tw.while_loop(lambda s: s[0] < most, body, init)
        return found[4], found[2]

    def eager(first):
        tokens, logp = first.expand(width), torch.tensor(begin)
        h, out = torch.zeros(1, width, hidden), torch.zeros(width, most, dtype=torch.int64)
        for k in range(most):
            y, h = module.cells(module.words(tokens)[None], h)
            total = (logp[:, None] + torch.log_softmax(module.scores(y[0]), -1)).reshape(-1)
            logp, at = total.topk(width)
            source, tokens = at // words, at % words
            h, out = h[:, source], out[source]
            out[:, k] = tokens
        return out, logp

    firsts = [np.int64(k) for k in (3, 14)]
    return Program(f"beam search of {width}, GRU {hidden}, {most} words", search,
                   [(f,) for f in firsts], eager, [(torch.tensor(f),) for f in firsts],
                   unit="word", work=[most] * 2)  # fmt: skip


PROGRAMS: dict[str, Callable[[], Program]] = {
    "tree": lambda: binary_tree_lstm(300, 150),
    "tree_small": lambda: binary_tree_lstm(64, 64),
    "child_sum": lambda: child_sum_tree_lstm(300, 168),
    "child_sum_small": lambda: child_sum_tree_lstm(64, 64),
    "decision": decision_tree,
    "lstm": lambda: language_model("lstm"),
    "gru": lambda: language_model("gru"),
    "greedy": greedy,
    "beam": beam,
}
