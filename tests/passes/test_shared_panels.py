"""Entries that read the same weights find them in one place."""

from __future__ import annotations

import numpy as np
import pytest

import tensorwright as tw


def entries(inner: int, outputs: int):
    w = np.random.default_rng(0).standard_normal((inner, outputs)).astype("f")

    def many(x):
        return x @ w

    def one(x):
        return tw.numpy.tanh(x @ w)

    return {"many": many, "one": one}, w


def weights(program) -> list[np.ndarray]:
    return [a for a in program.lowered.constants().values() if a.size > 64]


@pytest.mark.parametrize("inner, outputs", [(64, 512), (33, 200), (16, 24), (70, 130), (8, 2048)])
@pytest.mark.parametrize("precision", ["model", "bf16"])
def test_weights_are_stored_once(inner, outputs, precision):
    functions, w = entries(inner, outputs)
    x = np.random.default_rng(1).standard_normal((37, inner)).astype("f")
    program = tw.compile(functions, {"many": (x,), "one": (x[:1],)}, precision=precision,
                         shapes={"many": {"x": f"s[1..64], {inner}"}})  # fmt: skip
    tolerance = 1e-5 if precision == "model" else 2e-2
    for n in (1, 2, 37):
        np.testing.assert_allclose(program.many(x[:n]), x[:n] @ w, rtol=tolerance,
                                   atol=tolerance * np.abs(x @ w).max())  # fmt: skip
    np.testing.assert_allclose(program.one(x[:1]), np.tanh(x[:1] @ w), atol=2 * tolerance)
    assert len(weights(program)) == 1


def test_equal_constants_of_entries_are_one():
    make = lambda: np.arange(200, dtype="f")
    program = tw.compile({"a": tw.function(lambda x: x + make()),
                          "b": tw.function(lambda x: x * make())},
                         {"a": (make(),), "b": (make(),)})  # fmt: skip
    assert len(weights(program)) == 1
    np.testing.assert_array_equal(program.b(make()), make() ** 2)
