"""Models whose sizes vary from call to call: which sizes, and what a call is fed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import zoo
from tensorwright.runtime import dims

Sizes = dict[str, int]
Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Range:
    """What varies in a model: `points` are the sizes at which it is compared with static programs;
    `low` and `high` bound the sizes of a sequence."""

    points: tuple[Sizes, ...]
    low: Sizes
    high: Sizes

    def sequence(self, count: int, seed: int = 1) -> list[Sizes]:
        """`count` distinct sizes in random order."""
        random, found = np.random.default_rng(seed), {}
        while len(found) < count:
            draw = tuple(int(random.integers(self.low[n], self.high[n] + 1)) for n in self.low)
            found[draw] = dict(zip(self.low, draw))
        return list(found.values())


def _one(name: str, points: Sequence[int], low: int, high: int) -> Range:
    return Range(tuple({name: p} for p in points), {name: low}, {name: high})


def _two(points: Sequence[tuple[int, int]], low: int, high: int) -> Range:
    named = tuple({"h": h, "w": w} for h, w in points)
    return Range(named, {"h": low, "w": low}, {"h": high, "w": high})


RANGES: Mapping[str, Range] = {
    "bert_any": _one("s", (16, 57, 128, 384), 1, 256),
    "vit_any": _two(((14, 14), (10, 17), (24, 24)), 6, 16),
    "wav2vec2_any": _one("samples", (8000, 16_000, 37_123), 4000, 32_000),
    "llama_prefill_any": _one("s", (16, 64, 200), 1, 256),
    "llama_decode_any": _one("past", (16, 128, 1000), 1, 512),
    "detector_any": _two(((10, 10), (7, 12), (16, 16)), 4, 12),
}


# ---- models and what they are fed --------------------------------------------------------------


class Model:
    """A zoo row with the symbolic shapes of its inputs."""

    def __init__(self, name: str, small: bool):
        import onnx

        self.row, self.small = zoo.find(name), small
        self.artifact = self.row.artifact(small)
        inputs = onnx.load(self.artifact.onnx).graph.input
        self.shapes = {
            i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim]
            for i in inputs
        }

    def shape(self, name: str, sizes: Sizes) -> tuple[int, ...]:
        return tuple(dims.evaluate(d, sizes) for d in self.shapes[name])

    def static(self, sizes: Sizes) -> dict[str, tuple[int, ...]]:
        return {n: self.shape(n, sizes) for n in self.shapes}

    def feeds(self, sizes: Sizes, seed: int = 0) -> Feeds:
        """Random inputs of these sizes; integers within the range of the example's."""
        random = np.random.default_rng(seed)
        found = {}
        for name in self.shapes:
            example, shape = self.artifact.inputs[name], self.shape(name, sizes)
            if example.dtype.kind == "i":
                x = random.integers(example.min(), example.max() + 1, shape)
            else:
                x = 0.5 * random.standard_normal(shape)
            found[name] = x.astype(example.dtype)
        return found
