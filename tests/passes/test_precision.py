"""f32 models in bf16: what is narrowed, what is not, and how far results move."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.base import trace
from tensorwright.base.errors import CompileError
from tensorwright.driver.compile import asked, compile
from tensorwright.driver.pipeline import stages
from tensorwright.ir.dtype import bf16, f32
from tensorwright.ir.expr import Symbol, sym
from tensorwright.ir.graph import CONST, PARAM, Node, constant
from tensorwright.ir.interp import run_module
from tensorwright.ir.module import Module
from tensorwright.ops import table
from tensorwright.passes.precision import MANY, RULE_OF, RULES, compute_in
from tensorwright.runtime.artifact import load
from tensorwright.target.host import TARGETS, find
from tests.passes.equivalence import module, x_of

OP = table.BY_NAME
RANDOM = np.random.default_rng(0)
BF16 = asked(find("x86-64-avx512-bf16"), "bf16")


def weight(*shape: int) -> Node:
    return constant(RANDOM.standard_normal(shape).astype(np.float32))


def dense(x: Node, outputs: int) -> Node:
    return OP["dot_general"](x, weight(x.shape[-1], outputs), contract=((x.rank - 1,), (0,)))


def narrowed(m: Module) -> Module:
    return compute_in(m, BF16)


def casts(m: Module) -> list[str]:
    return [f"{n.args[0].dtype}>{n.dtype}" for n in m.main.nodes() if n.op.name == "cast"]


def contractions(m: Module) -> list[Node]:
    return [n for n in m.main.nodes() if n.op.name in ("dot_general", "conv_general")]


def check(m: Module, *arrays, tolerance: float = 0.02) -> None:
    """Both sides interpreted; types of inputs and results kept."""
    new = narrowed(m)
    assert [p.type for p in new.main.params] == [p.type for p in m.main.params]
    assert [r.type for r in new.main.results] == [r.type for r in m.main.results]
    for a, b in zip(run_module(m, arrays), run_module(new, arrays)):
        assert np.abs(a - b).max() <= tolerance * np.abs(a).max()


def array(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def test_models_are_not_changed_unasked():
    m = module(dense(x_of(3, 8), 8), x_of(3, 8))
    assert compute_in(m, find("x86-64-avx512-bf16")) is m


def test_chain_of_products():
    x = x_of(3, 8)
    m = module(dense(OP["relu"](dense(x, 16)), 8), x)
    new = narrowed(m)
    assert casts(new) == ["f32>bf16"] * 2
    for n in contractions(new):
        assert [a.dtype for a in n.args] == [bf16, bf16] and n.dtype is f32
        assert n.args[1].op is CONST
    check(m, array(3, 8))


def test_weights_that_are_moved_stay_constants():
    x, w = x_of(3, 8), OP["transpose"](weight(16, 8), perm=(1, 0))
    new = narrowed(module(OP["dot_general"](x, w, contract=((1,), (0,))), x))
    (n,) = contractions(new)
    assert n.args[1].op.name == "transpose" and n.args[1].args[0].op is CONST
    assert n.args[1].args[0].dtype is bf16


def test_what_is_stored_in_bf16_is_read_so():
    """A residual sum reads what the next product has in bf16, where storing both would cost."""
    x = x_of(3, 8)
    y = OP["relu"](dense(x, 16))
    m = module(OP["add"](dense(y, 16), y), x)
    assert sorted(casts(narrowed(m))) == ["bf16>f32", "f32>bf16", "f32>bf16"]
    check(m, array(3, 8))


def test_sums_beside_large_products_stay_exact():
    x = x_of(3, 8)
    y = OP["relu"](dense(x, 16))
    m = module(OP["add"](dense(dense(y, MANY), 16), y), x)
    assert "bf16>f32" not in casts(narrowed(m))


def test_sensitive_readers_see_f32():
    x = x_of(3, 8)
    y = dense(x, 16)
    for reader in (OP["exp"](y), OP["reduce_sum"](y, axes=(1,)), OP["div"](y, 3.0)):
        assert "bf16>f32" not in casts(narrowed(module([dense(y, 4), reader], x)))


def test_results_keep_their_digits():
    x = x_of(3, 8)
    y = dense(x, 16)
    new = narrowed(module([dense(y, 4), y], x))
    assert new.main.results[1].op.name == "dot_general"


def test_moves_happen_in_the_type_of_the_reader():
    x = x_of(1, 4, 6, 6)
    y = OP["pad"](OP["relu"](OP["conv_general"](x, weight(8, 4, 1, 1))), low=(0, 0, 1, 1),
                  high=(0, 0, 1, 1))  # fmt: skip
    m = module(OP["conv_general"](y, weight(8, 8, 3, 3)), x)
    assert [n.dtype for n in narrowed(m).main.nodes() if n.op.name == "pad"] == [bf16]
    check(m, array(1, 4, 6, 6))


def test_depthwise_windows_compute_in_f32():
    x = x_of(1, 4, 6, 6)
    y = OP["relu"](OP["conv_general"](x, weight(8, 4, 1, 1)))
    m = module(OP["conv_general"](y, weight(8, 1, 3, 3), groups=8), x)
    last = narrowed(m).main.results[0]
    assert last.args[0].op.name == "cast" and last.args[0].args[0].dtype is bf16
    assert last.args[1].dtype is f32
    check(m, array(1, 4, 6, 6))


def test_windows_in_groups_multiply_in_bf16():
    x = x_of(1, 8, 6, 6)
    m = module(OP["conv_general"](x, weight(8, 2, 3, 3), groups=4), x)
    assert all(a.dtype is bf16 for a in narrowed(m).main.results[0].args)
    check(m, array(1, 8, 6, 6))


@pytest.mark.parametrize("rows, narrow", [(1, False), (5, True)])
def test_products_of_activations(rows, narrow):
    q, k = x_of(2, rows, 8, name="q"), x_of(2, 7, 8, name="k")
    y = OP["dot_general"](q, k, batch=((0,), (0,)), contract=((2,), (2,)))
    (n,) = contractions(narrowed(module(y, q, k)))
    assert (n.args[0].dtype is bf16) is narrow


def test_products_in_the_bodies_of_loops():
    x, w, r = x_of(5, 2, 8), weight(16, 8), weight(16, 4)
    h = constant(np.zeros((2, 4), np.float32))
    m = module(OP["item"](OP["lstm"](x, w, r, None, h, h), index=0), x)
    after = dict(stages(m, BF16))["precision"]
    (scan,) = [n for n in after.main.nodes() if n.op.name == "scan_"]
    inside = [n for n in scan.attrs["body"].nodes() if n.op.name == "dot_general"]
    assert inside and all(a.dtype is bf16 for n in inside for a in n.args)
    state = [p for p in scan.attrs["body"].params if p.op is PARAM and p.shape == (2, 4)]
    assert state and all(p.dtype is f32 for p in state)


def test_reasons_are_told():
    q, k = x_of(2, 1, 8, name="q"), x_of(2, 7, 8, name="k")
    y = OP["dot_general"](q, k, batch=((0,), (0,)), contract=((2,), (2,)))
    with trace.recording() as t:
        narrowed(module([y, dense(q, 4)], q, k))
    told = {d.verdict: d.reason for d in t.decisions if d.kind == "precision"}
    assert "once" in told["as it is"] and "exact" in told["bf16"]


def test_no_operator_has_two_rules():
    assert sum(len(r.ops) for r in RULES) == len(RULE_OF)
    assert all(op in OP for op in RULE_OF), sorted(set(RULE_OF) - set(OP))


# ---- whole programs ----------------------------------------------------------------------------


def network() -> Module:
    x = x_of(sym(Symbol("n", 1)), 3, 8, 8)
    y = OP["relu"](OP["conv"](x, weight(8, 3, 3, 3), weight(8), padding=((1, 1), (1, 1))))
    z = OP["relu"](OP["conv"](y, weight(8, 8, 3, 3), weight(8), padding=((1, 1), (1, 1))))
    pooled = OP["reduce_mean"](OP["add"](y, z), axes=(2, 3))
    return module(OP["log_softmax"](dense(pooled, 5), axis=1), x)


@pytest.mark.parametrize("target", [t.name for t in TARGETS if t.name.startswith("x86")])
def test_every_processor(target, machine_runs):
    machine_runs(target)
    x, m = array(2, 3, 8, 8), network()
    wanted = run_module(m, [x])[0]
    found = compile(m, target=target, threads=1, precision="bf16")(x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.02 * np.abs(wanted).max())


@pytest.fixture
def machine_runs():
    from tensorwright.runtime.cpu import missing

    def check(name: str) -> None:
        if missing(find(name).required):
            pytest.skip(f"this machine is no {name}")

    return check


def test_saved_and_loaded(tmp_path):
    x = array(2, 3, 8, 8)
    program = compile(network(), threads=1, precision="bf16")
    program.save(tmp_path / "model.tw")
    np.testing.assert_array_equal(load(tmp_path / "model.tw")(x), program(x))


def test_other_precisions_are_refused():
    with pytest.raises(CompileError, match="'f16' is not supported"):
        compile(network(), precision="f16")


def test_modules_in_bf16_use_the_same_kernels(machine_runs):
    """Weights and activations that are bf16 already need no option."""
    machine_runs("x86-64-avx512-bf16")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 16))
    low = net.to(torch.bfloat16).eval()
    x = torch.randn(8, 32, dtype=torch.bfloat16)
    program = compile(low, (x,), target="x86-64-avx512-bf16", threads=1)
    schedules = " ".join(t for k in program.lowered.kernels.values() for t in k.schedule)
    assert schedules.count("pairs of bf16") == 2
    with torch.no_grad():
        wanted = low(x).float().numpy()
    found = program(x)
    np.testing.assert_allclose(found.float().numpy(), wanted, rtol=0, atol=0.02)
