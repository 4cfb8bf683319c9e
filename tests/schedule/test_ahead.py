"""Weights asked for ahead: which lines, where that pays, and that results stay the same."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Symbol, sym
from tensorwright.ir.facts import evaluate
from tensorwright.ir.graph import graph
from tensorwright.ir.loop import For, If, Kernel, Prefetch, Seq, Stmt, statements
from tensorwright.ir.module import Module
from tensorwright.ir.parser import parse
from tensorwright.ir.printer import to_text
from tensorwright.schedule.nest import flat_index
from tensorwright.target.host import find
from tests.ops.rows import all_rows
from tests.schedule.assembly import assembly
from tests.schedule.test_native import OP, weight, x_of

TARGET = find("x86-64-avx512")
OPS = {op.name: op for op in all_rows()}


def module(y, x) -> Module:
    return Module({"main": graph("main", [x], [y])})


def kernel_of(y, x, target=TARGET) -> Kernel:
    lowered = run_pipeline(module(y, x), target)
    return next(k for k in lowered.kernels.values() if any("tile" in s for s in k.schedule))


def product(rows, depth: int, columns: int):
    x = x_of(rows, depth)
    return OP["matmul"](x, weight(depth, columns)), x


def asks(k: Kernel) -> list[Prefetch]:
    return [s for s in statements(k.body) if isinstance(s, Prefetch)]


def asked(s: Stmt, values: dict[Symbol, int]) -> set[tuple[int, ...]]:
    """The places that a statement asks for; a thread and bytes for those beyond its parts."""
    if not any(isinstance(part, Prefetch) for part in statements(s)):
        return set()
    match s:
        case Prefetch(place=place, offset=offset, beyond=beyond):
            if beyond is not None and evaluate(beyond[0], values):
                here = evaluate(offset, values) * place.value.dtype.bytes
                return {(evaluate(beyond[1], values), evaluate(beyond[2], values) + here)}
            first = evaluate(flat_index(place.value, place.args), values)
            return {np.unravel_index(first + evaluate(offset, values), place.value.shape)}
        case For():
            first, count = evaluate(s.begin, values), evaluate(s.extent, values)
            rounds = range(first, first + count)
            return set().union(*(asked(s.body, {**values, s.var: k}) for k in rounds))
        case If():
            arm = s.then if evaluate(s.cond, values) else s.orelse
            return set() if arm is None else asked(arm, values)
        case Seq():
            return set().union(*(asked(part, values) for part in s.body))
    return set()


@pytest.mark.parametrize("rows", [12, 13, 30, 50])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_every_line_of_the_next_panel_is_asked_for(rows, threads):
    """Of two tiles of rows each asks for two vectors of four. In its last panel each thread asks
    for as much beyond, for more where several tiles have asked for all of it."""
    y, x = product(rows, 128, 1024)
    k = kernel_of(y, x, replace(TARGET, cores=threads))
    panels, depth, width = k.inputs[1].shape
    assert panels > 2 and panels % threads == 0
    own = [p for p in range(panels) if p % (panels // threads)]
    wanted = {(p, r, c) for p in own for r in range(depth) for c in range(0, width, 16)}
    found = asked(k.body, {})
    assert {place for place in found if len(place) == 3} == wanted
    for thread in range(threads):
        lines = {at // 64 for t, at in found - wanted if t == thread}
        assert lines >= set(range(depth * width // 16))


def test_the_last_panel_of_a_point_asks_for_the_first_of_the_next():
    x = x_of(1, 16, 16, 256)
    w = weight(3, 3, 256, 256)
    k = kernel_of(OP["conv_general"](x, w, layout="NLAST"), x, find("x86-64-avx512-wide"))
    assert "transformed" in k.schedule[0]
    points, panels, depth, width = k.inputs[1].shape
    wanted = {(p, j, r, c) for p in range(points) for j in range(panels) for r in range(depth)
              for c in range(0, width, 16)} - {(0, 0, r, c) for r in range(depth)
                                               for c in range(0, width, 16)}  # fmt: skip
    assert asked(k.body, {}) >= wanted


@pytest.mark.parametrize(("rows", "threads"), [(64, 1), (64, 2), (128, 2)])
def test_columns_ask_for_the_next_one_at_all_points(rows, threads):
    """Tiles of few rows share a vector, each in one half of the steps."""
    x = x_of(rows, 32)
    y = OP["strassen"](x, weight(32, 1024), half=512)
    k = kernel_of(y, x, find("x86-64-avx512-wide").with_cores(threads))
    assert "columns by" in k.schedule[0]
    columns, points, depth, width = k.inputs[1].shape
    assert columns % threads == 0 and depth % 2 == 0
    own = columns // threads * points
    wanted = {(n // points, n % points, r, c) for n in range(columns * points) if n % own
              for r in range(depth) for c in range(0, width, 16)}  # fmt: skip
    found = asked(k.body, {})
    assert {place for place in found if len(place) == 4} == wanted
    assert {place[0] for place in found - wanted} == set(range(threads))


@pytest.mark.parametrize("why, rows, depth, columns, target", [
    ("a row reads weights once, and does nothing else", 1, 768, 768, TARGET),
    ("one tile of rows, weights that lie near", 6, 256, 256, TARGET),
    ("one panel", 64, 64, 48, TARGET),
    ("many rows read few weights", 4096, 64, 256, TARGET),
    ("elements of vectors are multiplied", 64, 512, 512, find("aarch64")),
])  # fmt: skip
def test_where_nothing_is_asked_for(why, rows, depth, columns, target):
    assert not asks(kernel_of(*product(rows, depth, columns), target)), why


def test_rows_of_unknown_number():
    n = Symbol("n", min=1)
    assert asks(kernel_of(*product(sym(n), 768, 768)))


def test_a_schedule_says_whether(tmp_path):
    y, x = product(40, 256, 512)
    m, file = module(y, x), tmp_path / "schedules.json"
    program = tw.compile(m, target=TARGET.name, threads=1)
    program.schedules().write(file)
    document = json.loads(file.read_text())
    (record,) = (r for r in document["schedules"] if "ahead" in r["choices"])
    assert record["choices"]["ahead"] == "panel"
    record["choices"]["ahead"] = "none"
    file.write_text(json.dumps(document))
    other = tw.compile(m, target=TARGET.name, threads=1, schedules=file)
    found = [any(map(asks, p.lowered.kernels.values())) for p in (program, other)]
    assert found == [True, False]


def test_the_text_form_says_it():
    lowered = run_pipeline(module(*product(40, 256, 512)), TARGET)
    text = to_text(lowered)
    assert "prefetch(" in text and to_text(parse(text, OPS, lowered.constants())) == text


@pytest.mark.parametrize("rows, depth, columns", [(13, 96, 200), (50, 70, 129), (97, 33, 640)])
def test_results_stay_the_same(rows, depth, columns):
    y, x = product(rows, depth, columns)
    m = module(y, x)
    value = np.random.default_rng(0).integers(-4, 5, (rows, depth)).astype(np.float32)
    w = next(n.attrs["value"] for n in m.main.nodes() if n.op.name == "const")
    np.testing.assert_array_equal(tw.compile(m, threads=2)(value), value @ w)


@pytest.mark.parametrize("name", ["x86-64-avx512", "x86-64-avx2"])
@pytest.mark.parametrize("d", ["f16", "bf16", "f64"])
def test_weights_of_other_types(d, name):
    x, w = x_of(40, 256, d=d), x_of(256, 512, d=d)
    m = Module({"main": graph("main", [x, w], [OP["matmul"](x, w)])})
    kernels = run_pipeline(m, find(name)).kernels.values()
    (k,) = (k for k in kernels if any("tile" in s for s in k.schedule))
    assert asks(k) and "prefetch" in assembly(k, find(name))


def test_machines_that_wait_more_ask_for_more():
    """Weights that come from far are asked for by more tiles of rows than near ones."""
    y, x = product(2000, 256, 256)
    near, far = (replace(TARGET, l3_rate=r) for r in (64, 4))
    assert not asks(kernel_of(y, x, near)) and asks(kernel_of(y, x, far))
    near, far = (replace(TARGET, l3_rate=r) for r in (64, 4))
    assert not asks(kernel_of(y, x, near)) and asks(kernel_of(y, x, far))


@pytest.mark.parametrize("name", ["x86-64-avx512-bf16", "x86-64-avx512-wide"])
def test_pairs_ask_too(name):
    x, w = x_of(64, 512, d="bf16"), x_of(512, 1024, d="bf16")
    m = Module({"main": graph("main", [x, w], [OP["matmul"](x, w)])})
    kernels = run_pipeline(m, find(name)).kernels.values()
    (k,) = (k for k in kernels if any("pairs" in s for s in k.schedule))
    assert asks(k)


def added(rows: int, columns: int):
    x, r = x_of(rows, 64), x_of(rows, columns)
    y = OP["add"](OP["matmul"](x, weight(64, columns)), r)
    return Module({"main": graph("main", [x, r], [y])})


def asks_for_residual(rows: int, columns: int, name: str) -> set[tuple[int, ...]]:
    (k,) = run_pipeline(added(rows, columns), find(name)).kernels.values()
    r = k.inputs[-1]
    alone = ir.rewrite(
        k.body, lambda s: Seq(()) if isinstance(s, Prefetch) and s.place.value is not r else None
    )
    return asked(alone, {})


@pytest.mark.parametrize("name", ["x86-64-avx512", "x86-64-avx512-wide"])
def test_tiles_ask_for_each_line_of_what_is_added(name):
    wanted = {(i, c) for i in range(1000) for c in range(0, 256, 16)}
    assert asks_for_residual(1000, 256, name) == wanted


@pytest.mark.parametrize("rows, name", [(400, "x86-64-avx512"), (1000, "x86-64-avx2")])
def test_what_is_added_is_near_or_vectors_are_parts_of_lines(rows, name):
    assert not asks_for_residual(rows, 256, name)


def test_sums_with_what_is_added_stay_the_same():
    m = added(1000, 256)
    x, r = (np.random.default_rng(0).integers(-4, 5, (1000, n)).astype(np.float32)
            for n in (64, 256))  # fmt: skip
    w = next(n.attrs["value"] for n in m.main.nodes() if n.op.name == "const")
    np.testing.assert_array_equal(tw.compile(m, threads=2)(x, r), x @ w + r)
