"""Choices: defaults by cost, given ones, random ones; every point of a space keeps the meaning."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from tensorwright.ir.graph import graph, param
from tensorwright.ir.interp import run_kernel
from tensorwright.ir.loop import Kernel
from tensorwright.ir.module import Module
from tensorwright.ir.printer import to_text
from tensorwright.ir.type import tensor
from tensorwright.passes.expand import expand_composites
from tensorwright.passes.fuse import fuse
from tensorwright.passes.lower import lower
from tensorwright.passes.schedule_kernels import evaluate, packed
from tensorwright.schedule.rules import schedule
from tensorwright.schedule.space import ChoiceError, Choices, Samples, least
from tensorwright.target.host import find
from tests.schedule import test_native as groups

TARGET = find("x86-64-avx512")
OP = groups.OP
SHAPES = {"x": (13, 20), "w": (20, 70), "b": (70,)}


HOST = find("host")


def kernel_of(result, *params) -> Kernel:
    m = Module({"main": graph("main", list(params), [result])})
    m = lower(fuse(expand_composites(m), HOST))
    (kernel,) = m.kernels.values()
    return kernel


def product() -> Kernel:
    x, w, b = (param(n, tensor("f32", *d)) for n, d in SHAPES.items())
    return kernel_of(OP["relu"](OP["add"](OP["matmul"](x, w), b)), x, w, b)


def softmax() -> Kernel:
    x = groups.x_of(7, 200)
    return kernel_of(OP["softmax"](x, axis=1), x)


def turned() -> Kernel:
    x = groups.x_of(48, 40)
    return kernel_of(OP["transpose"](x, perm=(1, 0)), x)


def pooled() -> Kernel:
    x = groups.x_of(2, 9, 30)
    return kernel_of(OP["reduce_max"](x, axes=(1,)), x)


def put() -> Kernel:
    """Rows put into a copy: a kernel without a form, of which the copy has choices."""
    x, at, e = (param(n, tensor(t, *d)) for n, t, d in (
        ("x", "f32", (50, 33)), ("at", "i64", (7, 1)), ("e", "f32", (7, 33))))  # fmt: skip
    return kernel_of(OP["scatter_nd"](x, at, e), x, at, e)


KERNELS = {f.__name__: f for f in (product, softmax, turned, pooled, put)}


def run(k: Kernel, arrays: list[np.ndarray]) -> np.ndarray:
    """A kernel on operands in the layouts that it wants."""
    arrays = list(arrays)
    for spec in k.packs:
        x = arrays[spec.param]
        laid = evaluate(packed(param("x", tensor(x.dtype, *x.shape)), spec), x)
        arrays[spec.param] = np.ascontiguousarray(laid)
    return run_kernel(k, arrays)[0]


@pytest.mark.parametrize("name", KERNELS)
def test_every_point_means_the_same(name: str):
    k, random = KERNELS[name](), np.random.default_rng(0)
    arrays = [random.normal(size=b.shape).astype(b.dtype.numpy) for b in k.inputs]
    expected = run_kernel(k, arrays)[0]
    texts = set()
    for seed in range(8):
        choices = Samples(Random(seed))
        made = schedule(k, TARGET, choices)
        np.testing.assert_allclose(run(made, arrays), expected, 1e-4, 1e-5)
        again = schedule(k, TARGET, Choices(choices.values()))
        assert to_text(again) == to_text(made)
        texts.add(to_text(made))
    assert len(texts) > 1


def test_the_default_costs_least():
    k, default = product(), Choices()
    made = schedule(k, TARGET, default)
    assert to_text(made) == to_text(schedule(k, TARGET, Choices(default.values())))
    for seed in range(20):
        sample = Samples(Random(seed))
        schedule(k, TARGET, sample)
        assert sample.cost >= default.cost * 0.999


def test_a_given_choice_is_taken():
    made = schedule(product(), TARGET, Choices({"tile": (2, 3, 16)}))
    assert made.schedule == ("contraction: 2 x 3 x 16 register tile",)


def test_choices_that_do_not_fit():
    with pytest.raises(ChoiceError, match=r"tile = \(9, 9, 16\) is not in the space"):
        schedule(product(), TARGET, Choices({"tile": (9, 9, 16)}))
    with pytest.raises(ChoiceError, match="block = 16 is not a choice of this kernel"):
        schedule(product(), TARGET, Choices({"block": 16}))
    with pytest.raises(ChoiceError, match="lanes = 8 is not a choice of this kernel"):
        schedule(put(), TARGET, Choices({"lanes": 8}))


def test_what_has_no_form_takes_choices():
    made = [to_text(schedule(put(), TARGET, Choices({"nest0.lanes": n}))) for n in (4, 8, 16)]
    assert len(set(made)) == 3 and all("as defined" in text for text in made)


def test_parts_have_names_of_their_own():
    choices = Choices({"a.x": 2})
    assert choices.within("a").pick("x", (1, 2), float) == 2
    assert choices.within("b").pick("x", (1, 2), float) == 1
    assert choices.values() == {"a.x": 2, "b.x": 1}
    assert choices.cost == 3


def test_equal_costs_keep_the_order():
    assert least((3, 1, 2), lambda v: 1.0) == 3
    assert least((3, 1, 2), lambda v: -0.0 + v) == 1
