"""The same models on older x86-64 processors, run here, and on 64-bit Arm in an emulator."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from benchmarks import aarch64
from tensorwright.base.config import options
from tensorwright.driver.compile import compile
from tensorwright.frontend.onnx import import_onnx
from tensorwright.ir.dtype import f32
from tensorwright.ir.graph import constant, graph, param
from tensorwright.ir.interp import run_module
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.linalg import matmul
from tensorwright.ops.norm import layer_norm, softmax
from tensorwright.runtime import cpu
from tensorwright.schedule.space import Choices
from tensorwright.schedule.tiles import Product, choose_tile
from tensorwright.target import host as machines
from tensorwright.target.host import TARGETS
from tensorwright.target.x86 import BF16
from tests.codegen.rows import MEMORY, batch, chosen_cases, undefined

PARTS = 12
X86 = [t for t in TARGETS if t.triple.startswith("x86_64")]
RUNNABLE = [t for t in X86 if not cpu.missing(t.required)]


@pytest.fixture(autouse=True)
def no_cache():
    with options(cache="off"):
        yield


def part(k: int, count: int):
    return chosen_cases(count)[k::PARTS]


@pytest.mark.parametrize("k", range(PARTS))
@pytest.mark.parametrize("target", ["x86-64-sse4.2", "x86-64-avx2"])
def test_rows_on_older_processors(target: str, k: int):
    if target not in {t.name for t in RUNNABLE}:
        pytest.skip(f"this machine is older than {target}")
    many = batch(part(k, 2))
    program = compile(many.module, target=target, threads=1)
    assert undefined(program._objects) <= MEMORY
    many.check(program(*many.arrays))


@pytest.mark.skipif(aarch64.IS_MISSING, reason=aarch64.NEEDED)
@pytest.mark.parametrize("k", range(PARTS))
def test_rows_on_arm(k: int, tmp_path):
    many = batch(part(k, 1))
    many.check(aarch64.run(many.module, many.arrays, tmp_path))


# ---- whole models ------------------------------------------------------------------------------

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
OLDER = ["x86-64-sse4.2", "x86-64-avx2"]


def digits() -> np.ndarray:
    return (np.load(DIGITS / "digits_test.npz")["image"][:6] / 16).astype(np.float32)


def layers() -> tuple[Module, np.ndarray]:
    """Products, a normalization and a softmax over sizes that no tile divides."""
    random = np.random.default_rng(0)
    weight = lambda *shape: constant((random.normal(size=shape) / 8).astype(np.float32))
    x = param("x", tensor("f32", 37, 67))
    h = layer_norm(matmul(x, weight(67, 131)), axes=(1,))
    m = Module({"main": graph("main", [x], [softmax(matmul(h, weight(131, 29)), axis=1)])})
    return m, random.normal(size=(37, 67)).astype(np.float32)


@pytest.mark.parametrize("target", OLDER)
def test_models_on_older_processors(target: str):
    if target not in {t.name for t in RUNNABLE}:
        pytest.skip(f"this machine is older than {target}")
    here, there = (compile(DIGITS / "digits.onnx", target=t, threads=1) for t in ("host", target))
    np.testing.assert_allclose(there(digits()), here(digits()), 1e-4, 1e-4)
    m, x = layers()
    np.testing.assert_allclose(compile(m, target=target)(x), run_module(m, [x])[0], 1e-4, 1e-6)


@pytest.mark.skipif(aarch64.IS_MISSING, reason=aarch64.NEEDED)
@pytest.mark.parametrize("threads", [1, 2])
def test_models_on_arm(threads: int, tmp_path):
    m, x = layers()
    (found,) = aarch64.run(m, [x], tmp_path, threads)
    np.testing.assert_allclose(found, run_module(m, [x])[0], 1e-4, 1e-6)
    trained, image = import_onnx(DIGITS / "digits.onnx", {"image": "6, 1, 8, 8"}), digits()
    here = compile(DIGITS / "digits.onnx", threads=1)
    (found,) = aarch64.run(trained, [image], tmp_path, threads)
    np.testing.assert_allclose(found, here(image), 1e-4, 1e-4)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_tiles_fit_the_registers(target):
    """Accumulators, one row of the streamed operand and one broadcast value at a time."""
    lanes = target.lanes(f32)
    for m, n in product((1, 2, 3, 5, 6, 7, 12, 100), (1, 3, 8, 16, 17, 48, 64, 1000)):
        for broadcast in (True, False):
            tile = choose_tile(Product(m, n, broadcast=broadcast), target, lanes, Choices())
            assert tile.lanes <= lanes
            assert tile.rows * tile.vectors + tile.vectors + 1 <= target.vector_registers


@pytest.mark.parametrize(("more", "name"), [
    ((), "x86-64-avx512-bf16"), (("avx_vnni",), "x86-64-avx512-wide"),
])  # fmt: skip
def test_signs_tell_machines_apart_that_run_the_same_code(more, name, monkeypatch):
    monkeypatch.setattr(machines, "flags", lambda: frozenset((*BF16, *more)))
    monkeypatch.setattr(machines.platform, "machine", lambda: "x86_64")
    found = machines.host.__wrapped__()
    assert (found.name, found.required) == (name, BF16)
