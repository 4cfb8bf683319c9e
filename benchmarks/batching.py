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


def torch_encoder(weights):
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

    torch.set_num_threads(1)
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
    parser.add_argument("--hidden", type=int, default=HIDDEN)
    args = parser.parse_args()
    tree, encode, weights = tree_lstm(hidden=args.hidden)
    alone, together = tw.compile(encode, threads=1), tw.compile(tw.batch(encode), threads=1)
    eager = torch_encoder(weights)
    print(f"{args.hidden} hidden units; trees a second of CPU time, one thread")
    print(f"{'batch':>6} {'PyTorch':>9} {'one by one':>11} {'together':>9} {'rows only':>10}"
          f" {'over PyTorch':>13} {'over one by one':>16} {'difference':>11}")  # fmt: skip
    for batch in map(int, args.batch.split(",")):
        trees = random_trees(tree, batch)
        times = [seconds(run) for run in (
            lambda ts=trees: eager(ts), lambda ts=trees: [alone(t) for t in ts],
            lambda ts=trees: together(ts),
            lambda ts=trees: together.convention.flatten((ts,), {}))]  # fmt: skip
        each = np.stack([h.numpy() for h, _ in eager(trees)])
        apart = float(np.abs(each - np.asarray(together(trees)[0])).max())
        rates = [batch / t for t in times]
        print(f"{batch:6} {rates[0]:9.0f} {rates[1]:11.0f} {rates[2]:9.0f} "
              f"{times[3] * 1e3:7.2f} ms {times[0] / times[2]:12.2f}x "
              f"{times[1] / times[2]:15.2f}x {apart:11.1e}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
