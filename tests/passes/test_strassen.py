"""Strassen's algorithm: where it is chosen, that it computes the product, and how exactly."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base import trace
from tensorwright.base.errors import CompileError
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir.expr import var
from tensorwright.ir.graph import constant
from tensorwright.ir.interp import packed, run_module
from tensorwright.ir.loop import Pack
from tensorwright.ir.parser import parse
from tensorwright.ir.printer import to_text
from tensorwright.ir.quarters import POINTS, WEIGHTS, sums_of_quarters
from tensorwright.ops.activations import gelu, relu
from tensorwright.ops.conv import conv_general
from tensorwright.ops.elementwise import add
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import pad, reshape
from tensorwright.ops.strassen import BACK, INTO, strassen
from tensorwright.ops.table import BY_NAME
from tensorwright.passes.schedule_kernels import pack_constant, quarters_added
from tensorwright.passes.simplify import clean
from tensorwright.passes.strassen import choose_products
from tensorwright.target.host import find
from tests.passes.equivalence import check_pass, module, op_names, x_of

RNG = np.random.default_rng(5)
TARGET = find("x86-64-avx512-wide")


def weight(*shape):
    return constant((RNG.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32), "w")


def product(x, w):
    return dot_general(x, w, contract=((x.rank - 1,), (0,)))


def choose(m, target=TARGET):
    return clean(choose_products(m, target))


def reasons(y, *params, target=TARGET):
    with trace.recording() as t:
        choose_products(module(y, *params), target)
    return [(d.verdict, d.reason) for d in t.decisions if d.kind == "strassen"]


def test_seven_products_are_a_product():
    """Of the quarters a and b, sum_p BACK[q, p] (INTO[p] a) (WEIGHTS[p] b) is each of c."""
    for i, j, k, n in np.ndindex(2, 2, 2, 2):
        a, b = np.zeros((2, 2)), np.zeros((2, 2))
        a[i, j], b[k, n] = 1, 1
        products = (np.array(INTO) @ a.ravel()) * (np.array(WEIGHTS) @ b.ravel())
        assert np.array_equal(np.array(BACK) @ products, (a @ b).ravel())


@pytest.mark.parametrize("rows", [(128,), (1, 128), (2, 49), (3, 7, 11)])
@pytest.mark.parametrize("columns", [768, 1000, 1523])
def test_products_by_constants_are_rewritten(rows, columns):
    x = x_of(*rows, 256)
    check_pass(choose, module(product(x, weight(256, columns)), x), ["strassen"], tol=1e-4)


def test_columns_of_the_weights_may_be_first():
    x = x_of(1, 64, 256)
    y = dot_general(x, weight(512, 256), contract=((2,), (1,)))
    check_pass(choose, module(y, x), ["strassen"], tol=1e-4)


@pytest.mark.parametrize(("why", "made"), [
    ("the number of rows is not known", lambda: (x_of(var("n"), 768), weight(768, 768))),
    ("weights are read for fewer than 32 rows", lambda: (x_of(31, 768), weight(768, 768))),
    ("an odd number of products", lambda: (x_of(64, 767), weight(767, 768))),
    ("cycles, of those of the direct form", lambda: (x_of(64, 64), weight(64, 64))),
    ("cycles, of those of the direct form", lambda: (x_of(36, 3072), weight(3072, 3072))),
])  # fmt: skip
def test_where_it_is_not_chosen(why, made):
    x, w = made()
    ((verdict, reason),) = reasons(product(x, w), x)
    assert verdict == "no" and why in reason, reason


def test_what_options_forbid():
    x = x_of(128, 768)
    y = product(x, weight(768, 768))
    assert reasons(y, x)[0][0] == "yes"
    assert reasons(y, x, target=replace(TARGET, fast_math=0)) == [("no", "fast_math is 0")]
    ((verdict, reason),) = reasons(y, x, target=replace(TARGET, precision="bf16"))
    assert verdict == "no" and "bf16" in reason


def test_weights_are_not_stored_twice():
    """Many tokens and a single one, by the same weights."""
    x, one, w = x_of(128, 768), x_of(1, 768, name="one"), weight(768, 768)
    assert op_names(choose(module([product(x, w), product(one, w)], x, one))) == ["dot_general"] * 2
    other = x_of(64, 768, name="other")
    assert (
        op_names(choose(module([product(x, w), product(other, w)], x, other))) == ["strassen"] * 2
    )


def test_weights_that_are_computed_stay():
    x, w = x_of(128, 768), x_of(768, 768)
    assert op_names(choose(module(product(x, w), x, w))) == ["dot_general"]


# ---- compiled ----------------------------------------------------------------------------------


def error(found, exact):
    return np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2))


def kernels_of(program):
    return {n: k for n, k in program.lowered.kernels.items() if n.startswith("strassen")}


@pytest.mark.parametrize("rows, depth, columns", [
    (128, 768, 768), (64, 256, 1024), (197, 192, 768), (49, 512, 1024), (128, 256, 5001),
    (99, 510, 500), (784, 256, 256),
])  # fmt: skip
@pytest.mark.parametrize("threads", [1, 2])
def test_the_error_is_about_that_of_a_plain_product(rows, depth, columns, threads):
    x, w = x_of(rows, depth), weight(depth, columns)
    value = RNG.standard_normal((rows, depth)).astype(np.float32)
    exact = value.astype(np.float64) @ w.attrs["value"].astype(np.float64)
    m = module(product(x, w), x)
    program = tw.compile(m, threads=threads)
    assert kernels_of(program)
    found, plain = (np.asarray(p(value)) for p in (program, tw.compile(m, fast_math=0)))
    assert error(found, exact) < 2 * error(plain, exact) < 4e-6


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [128, 57])
def test_what_follows_is_computed_at_the_stores(rows, threads):
    x, w, b = x_of(1, rows, 256), weight(256, 768), weight(768)
    side = x_of(1, rows, 768, name="side")
    y = add(gelu(add(product(x, w), b)), side)
    values = [RNG.standard_normal(n.shape).astype(np.float32) for n in (x, side)]
    m = module(y, x, side)
    program = tw.compile(m, threads=threads)
    (k,) = program.lowered.kernels.values()
    assert "transformed" in k.schedule[0]
    assert (
        error(np.asarray(program(*values)), np.asarray(tw.compile(m, fast_math=0)(*values))) < 2e-6
    )


@pytest.mark.parametrize(
    "size, channels, outputs", [(14, 512, 512), (28, 256, 512), (15, 512, 500)]
)
def test_images_padded_for_what_follows(size, channels, outputs):
    """Pairs of rows lie in a padded image, where one of each may begin the next line."""
    x = x_of(1, size, size, channels)
    y = relu(conv_general(x, reshape(weight(channels, outputs), shape=(1, 1, channels, outputs)),
                          layout="NLAST"))  # fmt: skip
    y = pad(y, low=(0, 1, 1, 0), high=(0, 1, 1, 0))
    value = RNG.standard_normal(x.shape).astype(np.float32)
    program = tw.compile(module(y, x))
    assert kernels_of(program)
    schedules = [s for k in program.lowered.kernels.values() for s in k.schedule]
    assert all("as defined" not in s for s in schedules), schedules
    plain = np.asarray(tw.compile(module(y, x), fast_math=0)(value))
    assert error(np.asarray(program(value)), plain) < 2e-6


@pytest.mark.parametrize("name", ["x86-64-avx512-wide", "x86-64-avx2", "x86-64-sse4.2", "aarch64"])
@pytest.mark.parametrize("rows", [64, 63])
def test_scheduled_kernels_mean_the_same(name, rows):
    """Interpreted with their weights in panels, at every order and width that targets choose."""
    x = x_of(rows, 40)
    m = module(relu(strassen(x, weight(40, 100), half=64)), x)
    value = RNG.standard_normal((rows, 40)).astype(np.float32)
    (expected,) = run_module(m, [value])
    (found,) = run_module(run_pipeline(m, find(name)), [value])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_columns_of_many_rows_do_not_go_on_the_stack():
    x = x_of(40000, 32)
    m = run_pipeline(module(strassen(x, weight(32, 256), half=128), x), TARGET)
    (k,) = m.kernels.values()
    assert "transformed" in k.schedule[0] and "columns" not in k.schedule[0]


def test_weights_that_are_given_when_running_are_added_up_then():
    x, w = x_of(48, 64), x_of(64, 200, name="w")
    values = [RNG.standard_normal(n.shape).astype(np.float32) for n in (x, w)]
    program = tw.compile(module(strassen(x, w, half=112), x, w))
    exact = values[0].astype(np.float64) @ values[1]
    assert error(np.asarray(program(*values)), exact) < 2e-6


# ---- weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("columns, half", [(96, 48), (90, 48), (49, 48), (101, 64)])
@pytest.mark.parametrize(
    "width, lead, rest", [(16, (), (0, 1)), (48, (0,), (1,)), (20, (0,), (1,))]
)
def test_sums_are_laid_in_panels(columns, half, width, lead, rest):
    w = RNG.standard_normal((10, columns)).astype(np.float32)
    whole = np.pad(w, ((0, 0), (0, 2 * half - columns))).reshape(2, 5, 2, half)
    sums = np.einsum("pij,icjo->pco", np.reshape(WEIGHTS, (POINTS, 2, 2)), whole)
    np.testing.assert_allclose(sums_of_quarters(w, half), sums, rtol=1e-6, atol=1e-6)
    pack = Pack(1, 2, width, lead, rest, half=half)
    found = pack_constant(w, pack, [])
    np.testing.assert_array_equal(found, packed(w, pack))
    x = x_of(10, columns)
    (nodes,) = run_module(module(quarters_added(x, half), x), [w])
    np.testing.assert_allclose(nodes, sums, rtol=1e-6, atol=1e-6)


def test_kernels_are_printed_with_their_halves():
    x = x_of(64, 64)
    m = run_pipeline(module(strassen(x, weight(64, 128), half=64), x), TARGET)
    assert any(p.half == 64 for k in m.kernels.values() for p in k.packs)
    again = parse(to_text(m), BY_NAME, m.constants())
    assert to_text(again) == to_text(m)


# ---- the algorithm as a choice -----------------------------------------------------------------


def test_the_algorithm_is_written_and_replayed(tmp_path):
    x = x_of(128, 512)
    m, file = module(relu(product(x, weight(512, 512))), x), tmp_path / "s.json"
    first = tw.compile(m)
    first.schedules().write(file)
    again = tw.compile(m, schedules=file)
    assert again.schedules() == first.schedules() and kernels_of(again)
    document = json.loads(file.read_text())
    rows = [r for r in document["schedules"] if "algorithm" in r["choices"]]
    assert [r["choices"] for r in rows] == [{"algorithm": "strassen"}]
    rows[0]["choices"]["algorithm"] = "direct"
    file.write_text(json.dumps({**document, "schedules": rows}))
    assert not kernels_of(tw.compile(m, schedules=file))


def test_records_for_other_products_are_errors(tmp_path):
    x, other = x_of(128, 512), x_of(128, 256)
    tw.compile(module(product(x, weight(512, 512)), x)).schedules().write(tmp_path / "s.json")
    document = json.loads((tmp_path / "s.json").read_text())
    rows = [r for r in document["schedules"] if "algorithm" in r["choices"]]
    (tmp_path / "s.json").write_text(json.dumps({**document, "schedules": rows}))
    with pytest.raises(CompileError, match="for a matrix product of this program"):
        tw.compile(module(product(other, weight(256, 512)), other), schedules=tmp_path / "s.json")


def test_it_is_told():
    x = x_of(128, 512)
    m = module(product(x, weight(512, 512)), x)
    assert "strassen" in str(tw.compile(m).explain())
    assert "fast_math is 0" in str(tw.compile(m, fast_math=0).explain())
