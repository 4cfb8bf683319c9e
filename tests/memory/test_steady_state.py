"""Calls allocate nothing once a program has run: counted at the C library's door."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from tensorwright.driver.compile import compile
from tensorwright.ir.expr import var
from tensorwright.ir.graph import constant, graph, param
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.memory.overlap import check_plan
from tensorwright.ops.index import gather
from tensorwright.ops.linalg import matmul
from tensorwright.ops.movement import reshape
from tensorwright.ops.norm import layer_norm, softmax
from tensorwright.ops.vision import non_max_suppression
from tensorwright.runtime import loader

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits.onnx"
ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)


@pytest.fixture
def allocations(monkeypatch):
    """Sizes of what compiled programs allocate, in order."""
    sizes: list[int] = []
    libc = ctypes.CDLL(None)
    libc.aligned_alloc.restype = ctypes.c_void_p
    libc.aligned_alloc.argtypes = (ctypes.c_size_t, ctypes.c_size_t)

    @ALLOCATE
    def allocate(align: int, size: int):
        sizes.append(size)
        return libc.aligned_alloc(align, size)

    def find(name: str, others=loader.process_symbol):
        if name in ("malloc", "calloc", "realloc", "posix_memalign"):
            raise AssertionError(f"{name} is not counted")
        return (
            ctypes.cast(allocate, ctypes.c_void_p).value
            if name == "aligned_alloc"
            else others(name)
        )

    monkeypatch.setattr(loader, "process_symbol", find)
    yield sizes
    assert allocate  # what the code calls lives as long as the code


def layers(n) -> Module:
    """Two layers with a normalization between: temporaries in every kernel and between them."""
    random = np.random.default_rng(0)
    weight = lambda *shape: constant(random.normal(size=shape).astype(np.float32))
    x = param("x", tensor("f32", n, 300))
    h = layer_norm(matmul(x, weight(300, 500)), axes=(1,))
    return Module({"main": graph("main", [x], [softmax(matmul(h, weight(500, 77)), axis=1), h])})


@pytest.mark.parametrize("threads", [1, 2])
def test_static_models_allocate_nothing(allocations, threads: int):
    program = compile(layers(40), threads=threads)
    x = np.random.default_rng(1).normal(size=(40, 300)).astype(np.float32)
    first = program(x)
    seen = len(allocations)
    assert seen > 0
    for _ in range(20):
        for a, b in zip(program(x), first):
            np.testing.assert_array_equal(a, b)
    assert allocations[seen:] == []


def test_dynamic_models_allocate_their_results(allocations):
    program = compile(layers(var("n", min=1)), threads=1)
    random = np.random.default_rng(1)
    sizes = (64, 3, 17, 64, 1)
    inputs = [random.normal(size=(n, 300)).astype(np.float32) for n in sizes]
    program(inputs[0])
    seen = len(allocations)
    program(inputs[0])
    assert allocations[seen:] == []  # what was the size of results is offered
    for x in inputs[1:]:
        program(x)
    assert len(allocations) - seen == 2 * (len(sizes) - 1)  # the results, which are the caller's


def test_sizes_from_data_allocate_results_only(allocations):
    """Kernels with temporaries in their loops, and tensors whose size is known in the middle."""
    n = var("n", min=1)
    boxes, scores = param("boxes", tensor("f32", 1, n, 4)), param("scores", tensor("f32", 1, 3, n))
    numbers = [constant(np.array(v, d)) for v, d in ((9, "i8"), (0.4, "f4"), (0.3, "f4"))]
    kept = non_max_suppression(boxes, scores, *numbers)
    rows = gather(kept, constant(np.array(2)), axis=1)
    found = gather(reshape(boxes, shape=(n, 4)), rows, axis=0)
    program = compile(Module({"main": graph("main", [boxes, scores], [found])}), threads=1)
    random = np.random.default_rng(1)
    inputs = [
        (np.sort(random.random((1, n, 4), np.float32)), random.random((1, 3, n), np.float32))
        for n in (60, 7, 1, 33)
    ]
    program(*inputs[-1])
    seen = len(allocations)
    for x in inputs * 25:
        program(*x)
    assert len(allocations) - seen == 100  # the result, which is the caller's


def test_a_trained_model_allocates_nothing(allocations):
    program = compile(DIGITS, shapes={"image": "8, 1, 8, 8"})
    image = np.zeros([d for d in program.inputs[0].shape], np.float32)
    program(image)
    seen = len(allocations)
    program(image)
    assert allocations[seen:] == []
    assert [p for f in program.built.host for p in check_plan(f)] == []
