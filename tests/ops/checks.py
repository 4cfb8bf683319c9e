"""What every row of the operator table is held to, given one of its samples (`samples.py`)."""

from __future__ import annotations

import numpy as np
import pytest
import samples

import tensorwright.ir.build  # noqa: F401  (makes operators callable)
from tensorwright.ir import facts
from tensorwright.ir.dtype import dtype, f32, f64
from tensorwright.ir.expr import Buffer
from tensorwright.ir.graph import graph, param
from tensorwright.ir.interp import evaluate_attr, run_graph, run_kernel
from tensorwright.ir.loop import Kernel, free_symbols
from tensorwright.ir.op import OpDef
from tensorwright.ir.type import TupleType, leaves

TOLERANCE = {"f64": 1e-11, "f32": 2e-5, "f16": 4e-3, "bf16": 3e-2}


class Case:
    """One operator on one sample with one choice of sizes, static or symbolic."""

    def __init__(self, sample: samples.Case):
        self.op, self.values = sample.op, dict(sample.values)
        self.full_attrs = sample.attrs
        self.what = f"{sample.name}{' symbolic' if sample.values else ''}"
        self.arrays = list(sample.arrays())
        self.params = list(sample.params())
        self.node = self.op(*self.params, **self.full_attrs)

    @property
    def present(self):
        return [a for a in self.arrays if a is not None]

    @property
    def numbers(self):
        """The attributes with their symbols evaluated."""
        return {k: evaluate_attr(v, self.values) for k, v in self.full_attrs.items()}

    def expected(self, precise=False):
        """What the reference gives, in the node's types, as a list."""
        padded = self.arrays + [None] * (len(self.op.params) - len(self.arrays))
        arrays = [wide(a) for a in padded] if precise else padded
        while arrays and arrays[-1] is None:
            arrays.pop()
        with np.errstate(all="ignore"):
            result = self.op.reference(*arrays, **self.numbers)
        return list(result) if isinstance(self.node.type, TupleType) else [result]

    def shapes(self):
        return [
            tuple(facts.evaluate(d, self.values) for d in t.shape)
            for t in leaves(self.node.type)
        ]

    def lowered(self):
        types = leaves(self.node.type)
        outs = tuple(Buffer(f"y{k}", t.dtype, t.shape) for k, t in enumerate(types))
        ins = [None if p is None else Buffer(p.name, p.dtype, p.shape) for p in self.params]
        ins += [None] * (len(self.op.params) - len(ins))
        out = outs if isinstance(self.node.type, TupleType) else outs[0]
        body = self.op.lower(out, *ins, **self.full_attrs)
        present = tuple(b for b in ins if b is not None)
        symbols = tuple(free_symbols(body))
        kernel = Kernel(self.op.name, (*present, *outs), len(outs), body, symbols)
        return run_kernel(kernel, self.present, self.values)

    def expanded(self, precise=False):
        args = self.params + [None] * (len(self.op.params) - len(self.params))
        result = self.op.expand(*args, **self.full_attrs)
        results = result if isinstance(result, tuple) else (result,)
        types = [r.type for r in results]
        expected = [self.node.type] if len(results) == 1 else list(self.node.type.items)
        assert types == expected, f"expands to {types}, inferred {expected}"
        g = graph(self.op.name, [p for p in self.params if p is not None], results)
        found = run_graph(g, self.present, precise=precise)
        return [v for r in found for v in (r if isinstance(r, tuple) else (r,))]


def wide(a):
    if a is None or not dtype(a.dtype).is_float:
        return a
    return a.astype(np.float64)


def assert_close(found, expected, what: str, factor=1.0):
    assert len(found) == len(expected), what
    for f, e in zip(found, expected):
        f, e = np.asarray(f), np.asarray(e)
        assert f.shape == e.shape, f"{what}: shape {f.shape}, expected {e.shape}"
        d = dtype(f.dtype)
        if not d.is_float:
            np.testing.assert_array_equal(f, e, err_msg=what)
            continue
        tol = TOLERANCE.get(d.name, 0.2) * factor
        np.testing.assert_allclose(
            f.astype(np.float64), e.astype(np.float64), rtol=tol, atol=tol, err_msg=what
        )


def check_forward(sample: samples.Case) -> None:
    """infer, reference, lower and expand agree, statically and symbolically."""
    for form in (sample.static(), sample) if sample.values else (sample,):
        case = Case(form)
        expected = [
            np.asarray(e).astype(t.dtype.numpy)
            for e, t in zip(case.expected(), leaves(case.node.type), strict=True)
        ]
        assert [e.shape for e in expected] == case.shapes(), case.what
        if case.op.lower is not None:
            assert_close(case.lowered(), expected, f"{case.what} (lower)")
        if case.op.expand is not None:
            assert_close(case.expanded(), expected, f"{case.what} (expand)")


def check_gradient(sample: samples.Case) -> None:
    """The gradient rule against a central difference of the reference in a random direction."""
    case, op = Case(sample), sample.op
    types = leaves(case.node.type)
    if not any(t.dtype.is_float for t in types) or 0 in [n for a in case.present for n in a.shape]:
        return
    rng = np.random.default_rng(1)
    y0 = case.expected(precise=True)
    weights = [rng.uniform(0.5, 1.5, np.shape(y)) for y in y0]
    seeds = [param(f"g{k}", t) for k, t in enumerate(types)]
    node_args = case.params + [None] * (len(op.params) - len(case.params))
    g = tuple(seeds) if isinstance(case.node.type, TupleType) else seeds[0]
    rules = op.gradient(g, case.node, *node_args, **case.full_attrs)
    assert len(rules) == len(node_args), f"{op.name}: {len(rules)} cotangents"
    wanted = [
        (k, r) for k, r in enumerate(rules) if r is not None and case.params[k] is not None
    ]
    assert wanted, f"{op.name}: no gradient"
    params = [p for p in case.params if p is not None]
    graph_ = graph("gradient", [*params, *seeds], [r for _, r in wanted])
    inputs = [a for a in case.present] + [
        w.astype(t.dtype.numpy) if t.dtype.is_float else np.zeros_like(y)
        for w, t, y in zip(weights, types, y0)
    ]
    found = run_graph(graph_, inputs, precise=True)
    eps, total, expected = 1e-5, 0.0, 0.0
    moved = [wide(a) for a in case.arrays]
    directions = {}
    for (k, rule), value in zip(wanted, found):
        assert rule.type == case.params[k].type, f"{op.name}: {rule.type} for {case.params[k]}"
        directions[k] = rng.uniform(-1, 1, case.arrays[k].shape)
        total += float((value * directions[k]).sum())

    def loss(sign):
        case.arrays = [
            a if k not in directions else a + sign * eps * directions[k] for k, a in enumerate(moved)
        ]
        y = case.expected(precise=True)
        return sum(float((w * v).sum()) for w, v, t in zip(weights, y, types) if t.dtype.is_float)

    saved = case.arrays
    expected = (loss(1) - loss(-1)) / (2 * eps)
    case.arrays = saved
    scale = max(1.0, abs(expected))
    assert abs(total - expected) <= 2e-3 * scale, f"{case.what}: {total} for {expected}"


def rows(module):
    """Every sample of the rows of a module, as test parameters."""
    own = {v.name: v for v in vars(module).values() if isinstance(v, OpDef)}
    return [pytest.param(c, id=c.name.replace(" ", "_"))
            for op in own.values() if op.infer.__module__ for c in samples.cases(op)]  # fmt: skip


def differentiable(sample: samples.Case) -> bool:
    """Whether a finite difference on this sample says something."""
    return sample.op.gradient is not None and any(
        o is not None and o.type.dtype in (f32, f64) and o.domain != "special"
        for o in sample.operands
    )
