"""The No-U-Turn sampler, written recursively for one chain, on many chains at once by `tw.batch`.

    python -m benchmarks.nuts --lanes 1,8,32,128 --threads 1,2
    python -m benchmarks.nuts --markdown docs/benchmarks_dynamic.md

The sampler is algorithm 3 of Hoffman and Gelman (2014), "The No-U-Turn sampler". A chain doubles
its trajectory until it turns back, so that chains take trees of different depth. The same
algorithm in NumPy, one chain, is what the speed is compared with.
"""

import argparse
from functools import partial

import numpy as np

import tensorwright as tw
from benchmarks.page import Table, measured_on, numbers, options, publish, thread_option
from benchmarks.turns import clock_of, in_turns

xp = tw.numpy
MAX_ENERGY = 1000.0  # a trajectory that loses more has diverged
MAX_DOUBLINGS = 8


# ---- targets: the logarithm of a density and its gradient --------------------------------------


def gaussian(d: int):
    """Independent normals of scales from 0.5 to 2, and their (mean, variance)."""
    scales = np.linspace(0.5, 2.0, d).astype(np.float32)

    def target(lib, x):
        z = x / scales
        return -0.5 * lib.sum(z * z), -z / scales

    return target, (np.zeros(d), scales**2)


def logistic(rows: int, d: int):
    """The posterior of a logistic regression with a standard normal prior, on made-up data."""
    random = np.random.default_rng(1)
    features = random.standard_normal((rows, d)).astype(np.float32)
    truth = random.standard_normal(d)
    chance = 1 / (1 + np.exp(-features @ truth))
    signs = np.where(random.random(rows) < chance, 1.0, -1.0).astype(np.float32)
    signed = features * signs[:, None]
    turned = np.ascontiguousarray(signed.T)

    def target(lib, x):
        margin = signed @ x if lib is np else xp.matmul(signed, x)
        weight = 1 / (1 + lib.exp(margin))
        # log sigmoid(m) = -log(1 + exp(-m)), without overflow
        fit = lib.sum(lib.minimum(margin, 0.0) - lib.log1p(lib.exp(-lib.abs(margin))))
        slope = turned @ weight if lib is np else xp.matmul(turned, weight)
        return fit - 0.5 * lib.sum(x * x), slope - x

    return target, signed


# ---- the sampler for one chain -----------------------------------------------------------------


def sampler(target, d: int, step: float):
    """chain(x: f32[d], seed, draws) -> (sum of the draws, sum of their squares, steps of the
    trajectories); the sums leave out the first fifth."""
    vector, real, count = tw.f32[d], tw.f32[()], tw.i64[()]
    edge = (vector, vector, vector)  # position, momentum, gradient

    @tw.function
    def tree(x: vector, r: vector, g: vector, level: real, sign: real, depth: count, seed: count,
             place: count) -> (vector, vector, *edge, vector, real, real):  # fmt: skip
        """2**depth steps on from (x, r, g): the first state, the last, a draw from those above
        `level`, how many these are, and 1.0 if the trajectory may go on."""

        def leaf():
            half = r + 0.5 * step * sign * g
            there = x + step * sign * half
            density, slope = target(xp, there)
            moved = half + 0.5 * step * sign * slope
            energy = density - 0.5 * xp.sum(moved * moved)
            number = xp.where(level <= energy, 1.0, 0.0)
            good = xp.where(level < energy + MAX_ENERGY, 1.0, 0.0)
            return there, moved, there, moved, slope, there, number, good

        def double():
            first = tree(x, r, g, level, sign, depth - 1, seed, place * 2)
            x0, r0, x1, r1, g1, draw, number, good = first

            def other():
                *_, x2, r2, g2, draw2, number2, good2 = tree(
                    x1, r1, g1, level, sign, depth - 1, seed, place * 2 + 1)  # fmt: skip
                total = xp.maximum(number + number2, 1.0)
                chance = tw.random.uniform(tw.random.key(seed, place))
                chosen = xp.where(chance * total < number2, draw2, draw)
                going = good2 * straight(x0, r0, x2, r2, sign)
                return x0, r0, x2, r2, g2, chosen, number + number2, going

            return tw.cond(good > 0, other, lambda: first)

        return tw.cond(depth == 0, leaf, double)

    def straight(x0, r0, x1, r1, sign):
        """1.0 while the ends of a trajectory move apart."""
        apart = (x1 - x0) * sign
        return xp.where((xp.sum(apart * r0) >= 0) & (xp.sum(apart * r1) >= 0), 1.0, 0.0)

    def draw_one(x, seed, k):
        """The next state of a chain, and how many steps its trajectory was doubled to."""
        base = (k + 1) * (1 << (MAX_DOUBLINGS + 4))
        density, slope = target(xp, x)
        r = tw.random.normal(tw.random.key(seed, base), (d,))
        u = tw.random.uniform(tw.random.key(seed, base + 1))
        level = density - 0.5 * xp.sum(r * r) + xp.log(1.0 - u)

        def extend(s):
            low, high, x, depth, number, _, steps = s
            place = base + (1 << (MAX_DOUBLINGS + 2)) + 4 * depth
            forward = tw.random.uniform(tw.random.key(seed, place)) < 0.5
            sign = xp.where(forward, 1.0, -1.0)
            start = [xp.where(forward, b, a) for a, b in zip(low, high)]
            first = (base << 20) + (xp.asarray(1, dtype="i64") << 12) * (depth + 1) + 1
            found = tree(*start, level, sign, depth, seed, first)
            _, _, *last, draw, number2, good = found
            low = tuple(xp.where(forward, a, b) for a, b in zip(low, last))
            high = tuple(xp.where(forward, b, a) for a, b in zip(high, last))
            chance = tw.random.uniform(tw.random.key(seed, place + 1))
            taken = (good > 0) & (chance * number < number2)
            going = good * straight(low[0], low[1], high[0], high[1], 1.0)
            return (low, high, xp.where(taken, draw, x), depth + 1, number + number2, going,
                    steps + (xp.asarray(1, dtype="i64") << depth))  # fmt: skip

        ends = (x, r, slope)
        zero = k * 0
        init = (ends, ends, x, zero, density * 0 + 1, density * 0 + 1, zero)
        done = tw.while_loop(lambda s: (s[5] > 0) & (s[3] < MAX_DOUBLINGS), extend, init)
        return done[2], done[6]

    def chain(x, seed, draws):
        def step_(s):
            k, x, total, squares, steps = s
            x, more = draw_one(x, seed, k)
            kept = xp.where(k * 5 >= draws, 1.0, 0.0)
            return k + 1, x, total + kept * x, squares + kept * x * x, steps + more

        zero = seed * 0
        init = (zero, x, x * 0, x * 0, zero)
        _, _, total, squares, steps = tw.while_loop(lambda s: s[0] < draws, step_, init)
        return total, squares, steps

    return chain


def compiled(target, d: int, step: float, lanes: int, draws: int, threads: int = 1):
    """A program of `lanes` chains: (starts, seeds, draws) -> their sums and counts."""
    f = tw.batch(sampler(target, d, step), in_axes=(0, 0, None), depth=MAX_DOUBLINGS + 2)
    examples = (np.zeros((lanes, d), np.float32), np.zeros(lanes, np.int64), np.array(draws))
    return tw.compile(f, examples, threads=threads)


# ---- one chain in NumPy ------------------------------------------------------------------------


def numpy_chain(target, x, step: float, draws: int, seed: int = 0):
    """The same algorithm, as one writes it in NumPy."""
    random = np.random.default_rng(seed)
    step = np.float32(step)

    def straight(x0, r0, x1, r1, sign):
        apart = (x1 - x0) * sign
        return apart @ r0 >= 0 and apart @ r1 >= 0

    def tree(x, r, g, level, sign, depth):
        if depth == 0:
            half = r + 0.5 * step * sign * g
            there = x + step * sign * half
            density, slope = target(np, there)
            moved = half + 0.5 * step * sign * slope
            energy = density - 0.5 * moved @ moved
            good = level < energy + MAX_ENERGY
            return there, moved, there, moved, slope, there, int(level <= energy), good
        first = tree(x, r, g, level, sign, depth - 1)
        x0, r0, x1, r1, g1, draw, number, good = first
        if not good:
            return first
        _, _, x2, r2, g2, draw2, number2, good2 = tree(x1, r1, g1, level, sign, depth - 1)
        if random.random() * max(number + number2, 1) < number2:
            draw = draw2
        good = good2 and straight(x0, r0, x2, r2, sign)
        return x0, r0, x2, r2, g2, draw, number + number2, good

    total, squares, steps = np.zeros_like(x), np.zeros_like(x), 0
    for k in range(draws):
        density, slope = target(np, x)
        r = random.standard_normal(len(x)).astype(np.float32)
        level = density - 0.5 * r @ r + np.log(1 - random.random())
        low = high = (x, r, slope)
        number, depth, good = 1, 0, True
        while good and depth < MAX_DOUBLINGS:
            sign = np.float32(1 if random.random() < 0.5 else -1)
            start = high if sign > 0 else low
            _, _, *last, draw, number2, good = tree(*start, level, sign, depth)
            low, high = (low, tuple(last)) if sign > 0 else (tuple(last), high)
            if good and random.random() * number < number2:
                x = draw
            good = good and straight(low[0], low[1], high[0], high[1], 1)
            number, steps, depth = number + number2, steps + (1 << depth), depth + 1
        if k * 5 >= draws:
            total, squares = total + x, squares + x * x
    return total, squares, steps


# ---- the table ---------------------------------------------------------------------------------


PLACE = "benchmarks.nuts"
ROUNDS, SECONDS = 8, 0.1
TARGETS = {
    "Gaussian, 10 dimensions": (gaussian(10)[0], 10, 0.4),
    "logistic regression, 100 rows, 8 dimensions": (logistic(100, 8)[0], 8, 0.2),
}


def rate(run, draws: int, threads: int) -> float:
    """Draws a second: the best round of run(), which makes so many."""
    return draws / min(in_turns({"run": run}, clock_of(threads), ROUNDS, SECONDS)["run"])


def row(name: str, threads: int, lanes: list[int], draws: int) -> list[str]:
    """Draws a second of a chain in NumPy, then of as many chains as there are lanes."""
    target, d, step = TARGETS[name]
    start = np.zeros(d, np.float32)
    alone = rate(partial(numpy_chain, target, start, step, draws), draws, threads)
    found = []
    for count in lanes:
        program = compiled(target, d, step, count, draws, threads)
        given = (np.tile(start, (count, 1)), np.arange(count), np.array(draws))
        found.append(rate(partial(program, *given), count * draws, threads))
    gain = f"{max(found) / alone:.0f}x"
    return [name, str(threads), *(f"{speed:.0f}" for speed in (alone, *found)), gain]


def table(rows: list[list[str]], lanes: list[int]) -> Table:
    each = [f"{n} lane{'s' * (n > 1)}" for n in lanes]
    header = ["target", "threads", "NumPy", *each, "best over NumPy"]
    return Table(PLACE, 1, header, rows, measured_on(()))


def main(argv: list[str] | None = None) -> list[list[str]]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nuts", description=__doc__)
    parser.add_argument("--lanes", type=numbers, default=[1, 2, 4, 8, 16, 32, 64, 128])
    parser.add_argument("--draws", type=int, default=20)
    thread_option(parser)
    options(parser, PLACE)
    args = parser.parse_args(argv)
    rows = [row(name, n, args.lanes, args.draws) for name in TARGETS for n in args.threads]
    publish([table(rows, args.lanes)], args.markdown, args.drop)
    return rows


if __name__ == "__main__":
    main()
