"""Batching of structured examples: a Tree-LSTM over many trees at once beside one at a time.

    python -m benchmarks.batching --batch 1,16,64,256

The trees are random binary parses of sentences with lengths as in the Stanford treebank (seeded).
The model is the binary Tree-LSTM of Tai et al. (2015). What is timed begins with Python values:
turning trees into rows and levels counts, as does giving one tree after another to the program.
"""

import argparse
import time

import numpy as np

import tensorwright as tw

xp = tw.numpy
WORDS, HIDDEN = 300, 150


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


def seconds(run, repeats: int = 5) -> float:
    """The least CPU time of run()."""
    run()
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", default="1,4,16,64,256")
    args = parser.parse_args()
    tree, encode, _ = tree_lstm()
    alone, together = tw.compile(encode, threads=1), tw.compile(tw.batch(encode), threads=1)
    print(f"{'batch':>6} {'one by one':>14} {'together':>14} {'rows only':>12} {'faster':>8}"
          f" {'difference':>12}")  # fmt: skip
    for batch in map(int, args.batch.split(",")):
        trees = random_trees(tree, batch)
        first = seconds(lambda ts=trees: [alone(t) for t in ts])
        second = seconds(lambda ts=trees: together(ts))
        rows = seconds(lambda ts=trees: together.convention.flatten((ts,), {}))
        each = np.stack([np.asarray(alone(t)[0]) for t in trees])
        apart = float(np.abs(each - np.asarray(together(trees)[0])).max())
        print(f"{batch:6} {batch / first:10.0f} t/s {batch / second:10.0f} t/s"
              f" {rows * 1e3:9.1f} ms {first / second:7.2f}x {apart:12.1e}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
