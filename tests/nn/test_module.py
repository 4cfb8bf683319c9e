"""Modules against NumPy and PyTorch."""

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base.errors import FrontendError
from tensorwright.nn import layers
from tensorwright.nn.module import Module, Parameter, functional

tn = tw.numpy


def values(module) -> dict[str, np.ndarray]:
    """Random values for all parameters."""
    rng = np.random.default_rng(1)
    for p in module.named().values():
        p.value = rng.standard_normal(p.shape).astype("f")
    return {n: p.value for n, p in module.named().items()}


def inputs(*shape):
    return np.random.default_rng(2).standard_normal(shape).astype("f")


def test_layers_against_torch():
    torch = pytest.importorskip("torch")
    f, t = torch.nn.functional, torch.from_numpy
    x = inputs(3, 5, 8)
    cases = {
        "linear": (layers.Linear(8, 6, bias=True), lambda w: f.linear(
            t(x), t(w["weight"]), t(w["bias"]))),
        "layer_norm": (layers.LayerNorm(8), lambda w: f.layer_norm(
            t(x), (8,), t(w["weight"]), t(w["bias"]))),
        "rms_norm": (layers.RMSNorm(8), lambda w: f.rms_norm(t(x), (8,), t(w["weight"]), 1e-6)),
        "swiglu": (layers.SwiGLU(8, 12), lambda w: f.linear(
            f.silu(f.linear(t(x), t(w["gate_proj.weight"]))) *
            f.linear(t(x), t(w["up_proj.weight"])), t(w["down_proj.weight"]))),
    }  # fmt: skip
    for name, (module, wanted) in cases.items():
        weights = values(module)
        found = tw.compile(module, (x,))(x)
        np.testing.assert_allclose(found, wanted(weights), rtol=1e-5, atol=1e-5, err_msg=name)


def test_embedding():
    module = layers.Embedding(10, 4)
    table = values(module)["weight"]
    tokens = np.array([[1, 9], [0, 1]])
    np.testing.assert_array_equal(tw.compile(module, (tokens,))(tokens), table[tokens])


class Twice(Module):
    def __init__(self):
        self.inner = [layers.Linear(4, 4), layers.Linear(4, 4)]
        self.inner[1].weight = self.inner[0].weight
        self.scale = Parameter((), init=2.0)

    def forward(self, x):
        return self.inner[1](self.inner[0](x)) * self.scale


def test_names_and_sharing():
    module = Twice()
    assert list(module.named()) == ["inner.0.weight", "inner.1.weight", "scale"]
    w = values(module)["inner.0.weight"]
    program = tw.compile(module, (x := inputs(2, 4),))
    np.testing.assert_allclose(program(x), x @ w.T @ w.T * module.scale.value, rtol=1e-4)
    names = list(program.module.constants())
    assert sorted(names) == ["inner.0.weight", "scale"]  # shared by name, and once


def test_parameters_as_inputs():
    module = Twice()
    values(module)
    given = {"scale": np.float32(3), "inner.0.weight": inputs(4, 4)}
    x = inputs(2, 4)
    program = tw.compile(functional(module), (given, x))
    w = given["inner.0.weight"]
    wanted = x @ w.T @ w.T * 3
    np.testing.assert_allclose(program(given, x), wanted, rtol=1e-4)
    with pytest.raises(FrontendError, match="no parameters weight"):
        tw.compile(functional(module), ({"weight": w}, x))


def test_initial_values_are_seeded():
    a, b = (layers.SwiGLU(4, 8).initialize(s).named() for s in (0, 0))
    for name in a:
        np.testing.assert_array_equal(a[name].value, b[name].value)
    other = layers.SwiGLU(4, 8).initialize(1).named()
    assert not np.array_equal(a["up_proj.weight"].value, other["up_proj.weight"].value)
    assert not np.array_equal(a["up_proj.weight"].value, a["gate_proj.weight"].value)


def test_a_module_does_not_run_by_itself():
    with pytest.raises(FrontendError, match="compile it first"):
        layers.Linear(4, 4)(inputs(1, 4))
