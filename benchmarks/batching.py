"""Batching of structured examples: a Tree-LSTM over many trees at once beside one at a time.

    python -m benchmarks.batching --batch 1,16,64,256 --threads 1,2
    python -m benchmarks.batching --markdown docs/benchmarks_dynamic.md

The trees are random binary parses of sentences with lengths as in the Stanford treebank (seeded).
The model is the binary Tree-LSTM of Tai et al. (2015). What is timed begins with Python values:
turning trees into rows and steps counts, as does giving one tree after another to the program.
One thread by CPU time, more by the clock on the wall; the peers take turns.
"""

import argparse
import math
import statistics
import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np

import tensorwright as tw
from benchmarks.limits import measured_machine
from benchmarks.page import Table, measured_on, numbers, options, publish, thread_option
from benchmarks.turns import clock_of, in_turns, rest_of
from tensorwright.batching import generations

xp = tw.numpy
WORDS, HIDDEN = 300, 150
PLACE = "benchmarks.batching"


def tree_lstm(words: int = WORDS, hidden: int = HIDDEN):
    """(the type of trees, the recursive function, its weights)."""

    @tw.data
    class Tree:
        class Leaf:
            word: tw.f32[words]

        class Node:
            left: "Tree"
            right: "Tree"

    random = np.random.default_rng(0)
    scale = lambda *shape: (random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
    leaf_w, node_w = scale(words, 3 * hidden), scale(2 * hidden, 5 * hidden)
    leaf_b, node_b = np.zeros(3 * hidden, np.float32), np.zeros(5 * hidden, np.float32)

    def parts(gates, count):
        return [gates[k * hidden : (k + 1) * hidden] for k in range(count)]

    @tw.function
    def encode(t: Tree):
        def leaf(x):
            i, o, u = parts(x @ leaf_w + leaf_b, 3)
            c = sigmoid(xp, i) * xp.tanh(u)
            return sigmoid(xp, o) * xp.tanh(c), c

        def node(left, right):
            (h0, c0), (h1, c1) = encode(left), encode(right)
            i, f0, f1, o, u = parts(xp.concat([h0, h1]) @ node_w + node_b, 5)
            c = sigmoid(xp, i) * xp.tanh(u) + sigmoid(xp, f0) * c0 + sigmoid(xp, f1) * c1
            return sigmoid(xp, o) * xp.tanh(c), c

        return tw.match(t, Leaf=leaf, Node=node)

    return Tree, encode, (leaf_w, leaf_b, node_w, node_b)


def torch_encoder(weights, threads: int = 1):
    """The same model as one writes it in PyTorch: a recursive function of eager operators."""
    import torch

    leaf_w, leaf_b, node_w, node_b = map(torch.from_numpy, weights)

    def encode(t):
        if t.case == "Leaf":
            i, o, u = torch.addmv(leaf_b, leaf_w.T, torch.from_numpy(t.word)).chunk(3)
            c = torch.sigmoid(i) * torch.tanh(u)
            return torch.sigmoid(o) * torch.tanh(c), c
        (h0, c0), (h1, c1) = encode(t.left), encode(t.right)
        i, f0, f1, o, u = torch.addmv(node_b, node_w.T, torch.cat([h0, h1])).chunk(5)
        c = torch.sigmoid(i) * torch.tanh(u) + torch.sigmoid(f0) * c0 + torch.sigmoid(f1) * c1
        return torch.sigmoid(o) * torch.tanh(c), c

    def run(trees):
        with torch.no_grad():
            return [encode(t) for t in trees]

    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    return run


def sigmoid(lib, x):
    return 1 / (1 + lib.exp(-x))


def random_trees(tree, count: int, words: int = WORDS, seed: int = 1) -> list:
    """Random parses of sentences of 3 to 45 words, 19 on average."""
    random = np.random.default_rng(seed)
    table = random.standard_normal((1000, words)).astype(np.float32)

    def grow(size: int):
        if size == 1:
            return tree.Leaf(table[random.integers(len(table))])
        k = int(random.integers(1, size))
        return tree.Node(grow(k), grow(size - k))

    lengths = np.clip(random.gamma(4.0, 4.8, count), 3, 45).astype(int)
    return [grow(int(n)) for n in lengths]


def recursive(encode, threads: int):
    """The function as it stands, which reads its weights again for every part of a tree."""
    share, generations.SHARE = generations.SHARE, math.inf
    try:
        return tw.compile(encode, threads=threads)
    finally:
        generations.SHARE = share


def least_milliseconds(trees, words: int, hidden: int, peak: float) -> float:
    """What the products of some trees take at a machine's peak, in GFLOP/s."""
    leaves = sum(map(leaves_of, trees))
    work = leaves * words * 3 * hidden + (leaves - len(trees)) * 2 * hidden * 5 * hidden
    return 2 * work / peak / 1e6


def leaves_of(t) -> int:
    return 1 if t.case == "Leaf" else leaves_of(t.left) + leaves_of(t.right)


# ---- the table ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """Seconds of all rounds for a batch, by who runs it; `share` of the products' peak;
    `apart`: the largest difference between results."""

    batch: int
    threads: int
    times: dict[str, list[float]]
    share: float
    apart: float

    def rate(self, who: str) -> str:
        """Trees a second, best and median."""
        best, middle = min(self.times[who]), statistics.median(self.times[who])
        return f"{self.batch / best:.0f} ({self.batch / middle:.0f})"

    def gain(self, over: str) -> str:
        return f"{min(self.times[over]) / min(self.times[TOGETHER]):.2f}x"


EAGER, RECURSIVE, ALONE, TOGETHER = "PyTorch eager", "recursive", "one by one", "`tw.batch`"
WHO = (EAGER, RECURSIVE, ALONE, TOGETHER)


def measure(args: argparse.Namespace, threads: int) -> list[Row]:
    peak = args.peak * threads if args.peak else measured_machine(threads).gflops
    tree, encode, weights = tree_lstm(hidden=args.hidden)
    plain, alone = recursive(encode, threads), tw.compile(encode, threads=threads)
    together, eager = tw.compile(tw.batch(encode), threads=threads), torch_encoder(weights, threads)
    rows = []
    for batch in args.batch:
        trees = random_trees(tree, batch)
        each = np.stack([h.numpy() for h, _ in eager(trees)])
        apart = max(float(np.abs(each - np.asarray(h)).max()) for h in (
            together(trees)[0], *(np.stack([f(t)[0] for t in trees]) for f in (alone, plain))
        ))  # fmt: skip
        one_by_one = lambda f, trees=trees: [f(t) for t in trees]
        calls = {EAGER: partial(eager, trees), RECURSIVE: partial(one_by_one, plain),
                 ALONE: partial(one_by_one, alone), TOGETHER: partial(together, trees)}  # fmt: skip
        times = in_turns(calls, clock_of(threads), args.rounds, rest=rest_of(threads))
        least = least_milliseconds(trees, WORDS, args.hidden, peak) / 1e3
        rows.append(Row(batch, threads, times, least / min(times[TOGETHER]), apart))
    return rows


def table(rows: list[Row]) -> Table:
    header = ["batch", "threads", *WHO, "of the products' peak", *(f"over {w}" for w in WHO[:-1]),
              "largest difference"]  # fmt: skip
    lines = [[str(r.batch), str(r.threads), *map(r.rate, WHO), f"{r.share:.0%}",
              *map(r.gain, WHO[:-1]), f"{r.apart:.0e}"]
             for r in sorted(rows, key=lambda r: r.batch)]  # fmt: skip
    return Table(PLACE, 0, header, lines, measured_on(["eager"]))


def main(argv: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching", description=__doc__)
    parser.add_argument("--batch", type=numbers, default=[1, 16, 64, 256])
    parser.add_argument("--hidden", type=int, default=HIDDEN)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--peak", type=float, help="GFLOP/s of a core in f32; else measured")
    thread_option(parser)
    options(parser, PLACE)
    args = parser.parse_args(argv)
    rows = [row for threads in args.threads for row in measure(args, threads)]
    publish([table(rows)], args.markdown, args.drop)
    return rows


if __name__ == "__main__":
    main()
