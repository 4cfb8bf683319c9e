"""Each family of kernels: any point of its space is right, and is written, read and replayed."""

from __future__ import annotations

import functools
import zlib
from pathlib import Path
from random import Random

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.driver.compile import asked
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir.graph import constant, graph, param
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.table import BY_NAME as OP
from tensorwright.runtime import cpu
from tensorwright.schedule.records import Record, Schedules, identity
from tensorwright.schedule.rules import schedule
from tensorwright.schedule.space import ChoiceError, Choices, Samples
from tensorwright.target.host import find

SAMPLES = 3


def x(*shape: int, dtype: str = "f32"):
    return param("x", tensor(dtype, *shape))


def w(*shape: int):
    random = np.random.default_rng(1)
    return constant((random.normal(size=shape) / 8).astype(np.float32), "w")


def product():
    a = x(24, 96)
    return [a], OP["relu"](OP["add"](OP["matmul"](a, w(96, 128)), w(128)))


def conv():
    a = x(1, 5, 10, 10)
    return [a], OP["relu"](OP["conv_general"](a, w(16, 5, 3, 2)))


def winograd():
    a = x(1, 16, 10, 10)
    return [a], OP["relu"](OP["conv_general"](a, w(32, 16, 3, 3)))


def depthwise():
    a = x(1, 32, 11, 11)
    return [a], OP["conv_general"](a, w(32, 1, 3, 3), groups=32)


def softmax():
    a = x(30, 200)
    return [a], OP["softmax"](a, axis=1)


def columns():
    a = x(400, 5000)  # more than the L2 cache holds
    return [a], OP["reduce_sum"](a, axes=(0,))


def pooling():
    a = x(1, 4, 40, 40)
    return [a], OP["max_pool"](a, window=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


def transposed():
    a = x(70, 130)
    return [a], OP["transpose"](a, perm=(1, 0))


def joined():
    a, b = x(300, 33), param("y", tensor("f32", 300, 20))
    return [a, b], OP["relu"](OP["concat"](a, b, axis=1))


def causal():
    q, k, v = (param(n, tensor("f32", 1, 2, 70, 16)) for n in "qkv")
    return [q, k, v], OP["attention"](q, k, v, causal=True)


FAMILIES = {f.__name__: f for f in (product, conv, winograd, depthwise, softmax, columns, pooling,
                                    transposed, joined, causal)}  # fmt: skip
NEW = {  # what each is there to vary
    "product": {"weights", "blocks", "unroll", "shared", "tile", "threads"},
    "conv": {"order", "panels"}, "winograd": {"block", "tile"}, "depthwise": {"window", "order"},
    "softmax": {"stage0.accumulators", "stage1.lanes"}, "columns": {"sums", "strip", "rows"},
    "pooling": {"lanes", "parts"}, "transposed": {"block"}, "joined": {"parts", "lanes"},
    "causal": {"masked", "height", "scores.tile", "values.tile"},
}  # fmt: skip
TARGET = "x86-64-avx2" if cpu.missing(find("x86-64-avx512").required) else "x86-64-avx512"


@functools.cache
def model(family: str) -> tuple[Module, list[np.ndarray]]:
    params, result = FAMILIES[family]()
    random = np.random.default_rng(zlib.crc32(family.encode()))
    arrays = [random.normal(size=p.shape).astype(np.float32) for p in params]
    return Module({"main": graph("main", params, [result])}), arrays


def sampled(family: str, seed: int) -> Schedules:
    """Records of all kernels of a model, with choices at random."""
    target, found = asked(find(TARGET).with_cores(1), "model"), []

    def keep(m: Module, _) -> Module:
        for k in m.kernels.values():
            choices = Samples(Random(seed))
            found.append(Record.of(k, schedule(k, target, choices), target, choices))
        return m

    run_pipeline(model(family)[0], target, instead={"schedule": keep})
    return Schedules(tuple(found))


def saved(program, path: Path) -> bytes:
    program.save(path)
    return path.read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_point_is_right_and_replays(family: str, tmp_path: Path):
    m, arrays = model(family)
    first = tw.compile(m, target=TARGET, threads=1)
    names = {n for r in first.schedules().records for n in r.choices}
    assert names >= NEW[family]
    expected = first(*arrays)
    taken = set()
    for seed in range(SAMPLES):
        given = sampled(family, seed)
        made = tw.compile(m, target=TARGET, threads=1, schedules=given)
        np.testing.assert_allclose(made(*arrays), expected, 1e-4, 2e-4)
        given.write(tmp_path / "s.json")
        again = tw.compile(m, target=TARGET, threads=1, schedules=tmp_path / "s.json")
        assert saved(made, tmp_path / "a") == saved(again, tmp_path / "b")
        known = {r.kernel: r for r in made.schedules().records}
        assert all(known[r.kernel] == r for r in given.records)
        taken |= {str(r.choices) for r in given.records}
    assert len(taken) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_replays(family: str, tmp_path: Path):
    m, _ = model(family)
    first = tw.compile(m, target=TARGET, threads=1)
    first.schedules().write(tmp_path / "s.json")
    again = tw.compile(m, target=TARGET, threads=1, schedules=tmp_path / "s.json")
    assert saved(first, tmp_path / "a") == saved(again, tmp_path / "b")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_no_candidate_is_is_refused(family: str):
    """Each choice alone, replayed with a value that the kernel cannot have."""
    target = asked(find(TARGET), "model")
    kernels = []
    run_pipeline(
        model(family)[0],
        target,
        instead={"schedule": lambda m, t: kernels.extend(m.kernels.values()) or m},
    )
    for k in kernels:
        default = Choices()
        schedule(k, target, default)
        for name in default.values():
            with pytest.raises(ChoiceError, match=rf"{name} = 12345 is not in the space"):
                schedule(k, target, Choices({name: 12345}))
    assert len({identity(k) for k in kernels}) == len(kernels)
