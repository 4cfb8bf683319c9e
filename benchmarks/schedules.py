"""Spaces of schedules: what the cost model says of them and what the clock says.

    python -m benchmarks.schedules --samples 24 --markdown docs/schedules.md
    python -m benchmarks.schedules --families rows,maps --json all.json --join   # only these anew

Of every kernel the default schedule and random ones are compiled and run in turn on one thread;
every result is compared with the default's. Each schedule is compiled into several programs, as one
and the same takes up to 10% longer where its memory lies otherwise: the median of their least CPU
times counts, so that none is the fastest by luck. Spearman's rho compares the order by estimated
cycles with the order by time: 1 is the same order, 0 none.
What one kernel on one thread cannot show (threads, stores past the caches) stays as it is.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import numpy as np

from benchmarks import runs
from benchmarks.limits import machine_line
from benchmarks.page import Section, aligned, comma, options, publish
from benchmarks.runs import Measured, sources
from benchmarks.scatter import scatter

PLACE = "benchmarks.schedules"
TOLERANCE = 2e-4
LEAST_SECONDS = 2e-3  # of calls that are timed together
# choices of which one thread, and a result that nothing reads, show nothing
UNSEEN = ("threads", "shared", "stores")
COPIES = 3  # programs of each schedule, whose memory lies in different places
KEPT = 0.7  # how often a choice stays that of the default where few are to change
MODEL_BOUND = 0.1  # how far the default may be from the best before it is marked
SIZES = {
    "matmul": ((128, 768, 768), (128, 768, 3072), (512, 768, 768), (197, 192, 768)),
    "thin matmul": ((1, 1024, 4096), (4, 1024, 2816), (16, 1024, 1024)),
    # rows and columns, channels, outputs, window, stride
    "direct convolution": ((56, 64, 64, 3, 1), (28, 128, 128, 3, 2), (14, 256, 1024, 1, 1)),
    "winograd": ((56, 64, 64), (28, 128, 128), (14, 256, 256)),
    "depthwise": ((56, 144, 3, 1), (28, 192, 3, 2), (14, 384, 5, 1)),
    "rows": (("softmax", 512, 768), ("layer_norm", 512, 768), ("softmax", 128, 4096)),
    "columns": ((1000, 768), (196, 2048), (400, 40000)),
    "windows": ((112, 64, 3, 2), (56, 96, 2, 2)),
    "maps": (("gelu", 512, 3072), ("concat", 512, 700), ("exp", 333, 75)),
    "transposes": ((768, 3072), (3136, 64), (128, 1024), (512, 768), (197, 768)),
    "attention": ((12, 128, 64), (12, 512, 64), (8, 1024, 128)),
}


@dataclass
class Sample:
    """One schedule: its choices, estimated cycles, least seconds of one call."""

    choices: dict
    cost: float
    seconds: float = float("inf")


@dataclass
class Kernel(Measured):
    """The first of the samples is the default."""

    family: str
    name: str
    samples: list[Sample] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str]:
        return self.family, self.name

    @classmethod
    def of_record(cls, record: dict) -> Kernel:
        return cls(**record | {"samples": [Sample(**s) for s in record["samples"]]})

    @property
    def times(self) -> np.ndarray:
        return np.array([s.seconds for s in self.samples])

    @property
    def rho(self) -> float:
        return spearman([s.cost for s in self.samples], self.times)

    @property
    def rank(self) -> int:
        return 1 + int((self.times < self.times[0]).sum())

    @property
    def ratio(self) -> float:
        """The default's time over the least."""
        return self.times[0] / self.times.min()


def ranks(values) -> np.ndarray:
    """Ranks from 0; equal values share the mean of theirs."""
    values = np.asarray(values, float)
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts + 1) / 2)[group]


def spearman(a, b) -> float:
    """Spearman's rank correlation; nan where all of one are equal."""
    a, b = ranks(a), ranks(b)
    return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else float("nan")


# ---- kernels -----------------------------------------------------------------------------------


def model(family: str, size: tuple):
    """(module, operands, level of fast_math)"""
    from tensorwright.ir.graph import constant, graph, param
    from tensorwright.ir.module import Module
    from tensorwright.ir.type import tensor
    from tensorwright.ops.table import BY_NAME as op

    random = np.random.default_rng(0)
    arrays: list[np.ndarray] = []
    params: list = []

    def x(*shape: int):
        arrays.append(random.normal(size=shape).astype(np.float32))
        params.append(param(f"x{len(params)}", tensor("f32", *shape)))
        return params[-1]

    def w(*shape: int):
        return constant((random.normal(size=shape) / 8).astype(np.float32), "w")

    def conv(rows, channels, outputs, window, stride=1):
        reach = (rows - 1) * stride + window
        y = op["conv_general"](x(1, reach, reach, channels), w(window, window, channels, outputs),
                               strides=(stride, stride), layout="NLAST")  # fmt: skip
        return op["relu"](op["add"](y, w(outputs)))

    def depthwise(rows, channels, window, stride):
        reach = (rows - 1) * stride + window
        operands = x(1, reach, reach, channels), w(window, window, 1, channels)
        y = op["conv_general"](*operands, strides=(stride, stride), groups=channels, layout="NLAST")
        return op["relu"](op["add"](y, w(channels)))

    def product(m, k, n):
        return op["relu"](op["add"](op["matmul"](x(m, k), w(k, n)), w(n)))

    def row(name, n, m):
        if name == "softmax":
            return op["softmax"](x(n, m), axis=1)
        return op["layer_norm"](x(n, m), w(m), w(m), axes=(1,))

    def window(rows, channels, size, stride):
        reach = (rows - 1) * stride + size
        return op["max_pool"](x(1, channels, reach, reach), window=(size, size),
                              strides=(stride, stride))  # fmt: skip

    def each(name, n, m):
        if name == "concat":
            return op["relu"](op["concat"](x(n, m), x(n, m // 3), axis=1))
        return op[name](x(n, m))

    make: dict[str, Callable] = {
        "matmul": product, "thin matmul": product, "direct convolution": conv,
        "winograd": lambda rows, *channels: conv(rows, *channels, 3), "depthwise": depthwise,
        "rows": row, "columns": lambda n, m: op["reduce_sum"](x(n, m), axes=(0,)),
        "windows": window, "maps": each,
        "transposes": lambda n, m: op["transpose"](x(n, m), perm=(1, 0)),
        "attention": lambda h, n, d: op["attention"](x(1, h, n, d), x(1, h, n, d), x(1, h, n, d)),
    }  # fmt: skip
    result = make[family](*size)
    m = Module({"main": graph("main", params, [result])})
    return m, arrays, int(family == "winograd")


class Space:
    """A model of one kernel that matters, lowered up to its schedule."""

    def __init__(self, family: str, size: tuple, target):
        from tensorwright.driver.compile import asked
        from tensorwright.driver.pipeline import run_pipeline
        from tensorwright.schedule.records import identity

        module, self.arrays, level = model(family, size)
        self.target = asked(target, "model", level)
        self.lowered = run_pipeline(module, self.target, instead={"schedule": lambda m, t: m})
        work = lambda k: 0 if k.work is None else sum(int(w.value) for w in k.work)
        self.key = identity(max(self.lowered.kernels.values(), key=work))

    def programs(self, choices) -> list:
        """Programs with the kernel that matters scheduled by these choices."""
        from tensorwright.driver.compile import build_native
        from tensorwright.passes.schedule_kernels import schedule_kernels
        from tensorwright.schedule.records import identity
        from tensorwright.schedule.rules import schedule

        def scheduled(k, target):
            return schedule(k, target, choices if identity(k) == self.key else None)

        made = schedule_kernels(self.lowered, self.target, scheduled)
        return [build_native(made, self.target, "sample", threads=1) for _ in range(COPIES)]


def sampled(space: Space, kernel: Kernel, count: int, seed: int) -> list[list]:
    """Programs of the default schedule and of `count` others, or of as many as there are; what
    would not be seen is left as it is. Half of the others differ from the default in few choices,
    so that each choice is seen on its own too."""
    from tensorwright.schedule.space import Choices, Samples

    default = Choices()
    programs = [space.programs(default)]
    expected = programs[0][0](*space.arrays)
    kernel.samples = [Sample(default.values(), seen_cost(default))]
    given = default.values()
    fixed = {n: v for n, v in given.items() if n.split(".")[-1] in UNSEEN}
    random = Random(seed)
    for _ in range(4 * count):
        if len(programs) > count:
            break
        kept = (
            fixed
            if random.random() < 0.5
            else fixed | {n: v for n, v in given.items() if random.random() < KEPT}
        )
        choices = chosen(space, Samples(random, kept))
        if choices is None:
            continue
        if choices.values() in [s.choices for s in kernel.samples]:
            continue
        copies = space.programs(Choices(choices.values()))
        error = np.abs(copies[0](*space.arrays) - expected).max() / np.abs(expected).max()
        if not error < TOLERANCE:
            raise SystemExit(f"{kernel.name}: {choices.values()} is wrong by {error:.1e}")
        kernel.samples.append(Sample(choices.values(), seen_cost(choices)))
        programs.append(copies)
    return programs


def seen_cost(choices) -> float:
    """Estimated cycles, without what one thread does not show: waiting for the longest task."""
    return sum(d.cost for n, d in choices.made.items() if n.split(".")[-1] not in UNSEEN)


def chosen(space: Space, choices):
    """The choices, asked for by the rule; None where some that were kept do not go with others."""
    from tensorwright.schedule.records import identity
    from tensorwright.schedule.rules import schedule
    from tensorwright.schedule.space import ChoiceError

    (k,) = (k for k in space.lowered.kernels.values() if identity(k) == space.key)
    try:
        schedule(k, space.target, choices)
    except ChoiceError:
        return None
    return choices


def time_all(programs: list, kernel: Kernel, arrays: list[np.ndarray], rounds: int) -> None:
    """The CPU time of one call of each schedule: the median of its programs' least, in turn."""
    calls = [max(1, int(LEAST_SECONDS / max(once(p[0], arrays, 1), 1e-7))) for p in programs]
    least = np.full((len(programs), COPIES), np.inf)
    for _ in range(rounds):
        for copy in range(COPIES):
            for k, n in enumerate(calls):
                least[k, copy] = min(least[k, copy], once(programs[k][copy], arrays, n))
    for s, seconds in zip(kernel.samples, np.median(least, axis=1)):
        s.seconds = float(seconds)


def once(program, arrays: list[np.ndarray], calls: int) -> float:
    program(*arrays)
    start = time.process_time()
    for _ in range(calls):
        program(*arrays)
    return (time.process_time() - start) / calls


# ---- tables ------------------------------------------------------------------------------------

HEADER = ["family", "kernel", "schedules", "rho", "default ms", "least ms", "default / least",
          "rank", "most / least"]  # fmt: skip


def line(k: Kernel) -> list[str]:
    mark = " (!)" if k.ratio > 1 + MODEL_BOUND else ""
    return [k.family, k.name, str(len(k.samples)), f"{k.rho:.2f}", f"{1e3 * k.times[0]:.3g}",
            f"{1e3 * k.times.min():.3g}", f"{k.ratio:.2f}{mark}", str(k.rank),
            f"{k.times.max() / k.times.min():.1f}"]  # fmt: skip


def mean_lines(kernels: list[Kernel]) -> list[list[str]]:
    """Of each family: the mean rho, the geometric mean of the ratios."""
    found = []
    for family in dict.fromkeys(k.family for k in kernels):
        own = [k for k in kernels if k.family == family]
        rho = np.nanmean([k.rho for k in own])
        ratio = np.exp(np.mean([np.log(k.ratio) for k in own]))
        count = sum(len(k.samples) for k in own)
        found.append([family, str(len(own)), str(count), f"{rho:.2f}", f"{ratio:.2f}"])
    return found


def section(kernels: list[Kernel]) -> Section:
    families = aligned(["family", "kernels", "schedules", "mean rho", "default / least"],
                       mean_lines(kernels))  # fmt: skip
    return Section(PLACE, [f"Measured on {machine_line()}. {sources(kernels)}",
                           "## Families", families, "## Kernels",
                           aligned(HEADER, [line(k) for k in kernels], words=2)])  # fmt: skip


def kernel_name(size: tuple) -> str:
    return "x".join(map(str, size))


def main(argv: list[str] | None = None) -> list[Kernel]:
    from tensorwright.target.host import find

    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedules", description=__doc__)
    parser.add_argument("--families", type=comma, default=list(SIZES))
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", default="host")
    runs.options(parser)
    options(parser, PLACE)
    args = parser.parse_args(argv)
    how = f"{args.samples} schedules beside the default, {args.rounds} rounds"
    kept = runs.Rows(args, how, kernels=Kernel)
    for family in args.families:
        for size in SIZES[family]:
            space = Space(family, size, find(args.target).with_cores(1))
            kernel = Kernel(family, kernel_name(size))
            programs = sampled(space, kernel, args.samples, args.seed)
            time_all(programs, kernel, space.arrays, args.rounds)
            kept.add("kernels", [kernel])
            print("  ".join(line(kernel)), file=sys.stderr, flush=True)
    kernels = kept.ordered("kernels", list(SIZES))
    publish([section(kernels)], args.markdown, args.drop)
    if args.markdown is not None:
        args.markdown.with_suffix(".svg").write_text(scatter(kernels))
    return kernels


if __name__ == "__main__":
    main()
