"""What every row of the operator table is held to, given one of its samples.

A sample "f32[n,4] f32[4]@0.1:2 _ axis=1 n=1,5" lists operands (`@low:high`: range of the values,
`@special`: infinities, NaN and extremes too; `_`: absent), attributes, and values of symbols.
"""

from __future__ import annotations

import ast
import itertools
import re
import zlib

import numpy as np

import tensorwright.ir.build  # noqa: F401  (makes operators callable)
from tensorwright.ir import facts
from tensorwright.ir.dtype import dtype, f64
from tensorwright.ir.expr import Buffer, var
from tensorwright.ir.graph import graph, param
from tensorwright.ir.interp import run_graph, run_kernel
from tensorwright.ir.loop import Kernel, free_symbols
from tensorwright.ir.type import TensorType, TupleType, leaves

TYPE = re.compile(r"^(\w+)\[([^\]]*)\](?:@(.*))?$")
TOLERANCE = {"f64": 1e-11, "f32": 2e-5, "f16": 4e-3, "bf16": 3e-2}


def parse(sample: str):
    """Operand specs (dtype, dims, range) or None, attributes, and lists of symbol values."""
    operands, attrs, values = [], {}, {}
    tokens = sample.split()
    names = {d for t in tokens if (m := TYPE.match(t)) for d in re.findall(r"[a-z]\w*", m[2])}
    for t in tokens:
        if t == "_":
            operands.append(None)
        elif m := TYPE.match(t):
            dims = [d.strip() for d in m[2].split(",") if d.strip()]
            operands.append((dtype(m[1]), dims, m[3]))
        else:
            key, _, text = t.partition("=")
            if key in names:
                values[key] = [int(v) for v in text.split(",")]
            else:
                attrs[key] = _literal(text)
    return operands, attrs, values


def _literal(text: str):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return dtype(text) if re.fullmatch(r"(bf|[fiu])\d\w*|bool", text) else text


def bindings(values):
    """Every combination of symbol values."""
    keys = list(values)
    return [dict(zip(keys, v)) for v in itertools.product(*values.values())]


def data(rng, spec, sizes):
    """Random values for one operand."""
    if spec is None:
        return None
    d, dims, limits = spec
    shape = [eval(t, {}, dict(sizes)) for t in dims]
    if d.kind == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if limits == "special":
        pool = [0.0, -0.0, 1.5, -2.5, np.inf, -np.inf, np.nan, 1e30, -1e30, 300, -300]
        return rng.choice(np.asarray(pool), shape).astype(d.numpy)
    if d.is_float:
        low, high = map(float, limits.split(":")) if limits else (-2, 2)
        return rng.uniform(low, high, shape).astype(d.numpy)
    low, high = (int(v) for v in limits.split(":")) if limits else (max(d.min, -9), min(d.max, 9))
    return rng.integers(low, high, shape, endpoint=True).astype(d.numpy)


class Case:
    """One operator on one sample with one choice of sizes, static or symbolic."""

    def __init__(self, op, sample: str, sizes=None, symbolic=False):
        self.op = op
        self.specs, self.attrs, values = parse(sample)
        self.sizes = sizes if sizes is not None else (bindings(values)[0])
        self.symbols = {k: var(k, min=0) for k in self.sizes} if symbolic else {}
        rng = np.random.default_rng(zlib.crc32(f"{op.name} {sample}".encode()))
        self.arrays = [data(rng, s, self.sizes) for s in self.specs]
        names = [p.strip("*?") for p in op.params]
        self.params = [
            None if s is None else param(
                names[k] if k < len(op.params) - op.is_variadic else f"{names[-1]}{k}",
                TensorType(s[0], tuple(self.dim(d) for d in s[1])))
            for k, s in enumerate(self.specs)
        ]  # fmt: skip
        self.node = op(*self.params, **self.attrs)

    def dim(self, text: str):
        from tensorwright.ir.expr import as_dim

        return as_dim(eval(text, {}, self.symbols or self.sizes))

    @property
    def present(self):
        return [a for a in self.arrays if a is not None]

    @property
    def full_attrs(self):
        return {**self.op.defaults, **self.attrs}

    def type_values(self):
        return {s.value: self.sizes[k] for k, s in self.symbols.items()}

    def expected(self, precise=False):
        """What the reference gives, in the node's types, as a list."""
        padded = self.arrays + [None] * (len(self.op.params) - len(self.arrays))
        arrays = [wide(a) for a in padded] if precise else padded
        while arrays and arrays[-1] is None:
            arrays.pop()
        with np.errstate(all="ignore"):
            result = self.op.reference(*arrays, **self.full_attrs)
        return list(result) if isinstance(self.node.type, TupleType) else [result]

    def shapes(self):
        return [
            tuple(facts.evaluate(d, self.type_values()) for d in t.shape)
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
        return run_kernel(kernel, self.present, self.type_values())

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


def check_forward(op, sample: str) -> None:
    """infer, reference, lower and expand agree, statically and symbolically."""
    values = parse(sample)[2]
    for sizes in bindings(values):
        for symbolic in (False, True) if sizes else (False,):
            case = Case(op, sample, sizes, symbolic)
            what = f"{op.name}: {sample} {sizes} symbolic={symbolic}"
            expected = [
                np.asarray(e).astype(t.dtype.numpy)
                for e, t in zip(case.expected(), leaves(case.node.type), strict=True)
            ]
            assert [e.shape for e in expected] == case.shapes(), what
            if op.lower is not None:
                assert_close(case.lowered(), expected, f"{what} (lower)")
            if op.expand is not None:
                assert_close(case.expanded(), expected, f"{what} (expand)")


def check_gradient(op, sample: str) -> None:
    """The gradient rule against a central difference of the reference in a random direction."""
    values = parse(sample)[2]
    case = Case(op, sample, bindings(values)[0], symbolic=bool(values))
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
    assert abs(total - expected) <= 2e-3 * scale, f"{op.name}: {sample}: {total} for {expected}"


def rows(module):
    """(op, sample) pairs of a module of operators, with readable test ids."""
    from tensorwright.ir.op import OpDef

    import pytest

    own = {id(v): v for v in vars(module).values() if isinstance(v, OpDef)}
    return [
        pytest.param(op, s, id=f"{op.name}-{s.replace(' ', '_')}")
        for op in own.values() for s in op.samples
        if getattr(module, op.name, None) is op or True
    ]


def difference_sample(sample: str) -> bool:
    """Whether the gradient of a row is worth a finite difference on this sample."""
    specs = parse(sample)[0]
    return any(s is not None and s[0] in (f64, dtype("f32")) and s[2] != "special" for s in specs)
