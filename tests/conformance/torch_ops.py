"""How much of torch's Core ATen operator set is imported, measured operator by operator.

Sample calls are recorded from torch's own operator tests (`op_db`): every core operator that runs
while a sample is computed becomes a graph of one call, is imported, run, and compared with what
torch gave. `coverage()` gives the rows, `markdown()` the section of docs/conformance.md.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

import tensorwright as tw
from tensorwright.base.errors import TensorwrightError
from tensorwright.frontend.torch_graph import Importer, array_of
from tensorwright.frontend.torch_ops import dtype_of
from tensorwright.frontend.torch_symbols import Sizes
from tensorwright.frontend.torch_table import TABLE
from tensorwright.ir.graph import Node, graph, param
from tensorwright.ir.interp import run_module
from tensorwright.ir.module import Module
from tensorwright.ir.type import TensorType

SAMPLES = 6  # calls compared for each operator
# Random draws have no expected values: only shape and type are compared, and the range.
RANDOM = {"rand.default", "randn.default", "randperm.default", "native_dropout.default",
          "empty.memory_format", "empty_strided.default"}  # fmt: skip
# Sizes of a tensor: they never become nodes, so they are exercised by every dynamic model.
SIZES = {"sym_size.int", "sym_numel.default", "sym_stride.int", "sym_storage_offset.default"}
TOLERANCE = {torch.float16: 2e-2, torch.bfloat16: 4e-2, torch.float64: 1e-6}


@dataclass
class Row:
    """One operator: how many sample calls agree, and the first thing that went wrong."""

    name: str
    passed: int = 0
    failed: int = 0
    problem: str = ""
    calls: list = field(default_factory=list, repr=False)

    @property
    def is_supported(self) -> bool:
        return self.passed > 0 and self.failed == 0


def core_operators() -> dict[str, object]:
    """`add.Tensor` -> the overload, for every operator that torch tags as core."""
    found = {}
    for name in dir(torch.ops.aten):
        packet = getattr(torch.ops.aten, name)
        for overload in packet.overloads() if hasattr(packet, "overloads") else ():
            op = getattr(packet, overload)
            if torch.Tag.core in op.tags:
                found[str(op).removeprefix("aten.")] = op
    return found


# ---- samples -----------------------------------------------------------------------------------


class _Recorder(TorchDispatchMode):
    """Keeps the calls of core operators that run inside it."""

    def __init__(self, rows: dict[str, Row]) -> None:
        super().__init__()
        self.rows = rows

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        row = self.rows.get(str(func).removeprefix("aten."))
        if row is not None and len(row.calls) < SAMPLES and is_plain((args, kwargs)):
            row.calls.append((func, _copied(args), _copied(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _copied(tree):
    return _pytree.tree_map_only(torch.Tensor, lambda t: t.detach().clone(), tree)


def is_plain(tree) -> bool:
    """Whether all tensors are dense, small and real."""
    return all(
        t.layout is torch.strided and t.numel() <= 4096 and not t.is_complex()
        for t in _pytree.tree_leaves(tree)
        if isinstance(t, torch.Tensor)
    )


def record(rows: dict[str, Row]) -> None:
    """Fill `calls` of the rows from op_db, then from the calls written here."""
    from torch.testing._internal.common_methods_invocations import op_db

    wanted = {n.split(".")[0].strip("_") for n in rows}
    for info in op_db:
        names = {info.name.split(".")[-1], info.aten_name or "", *(a.name for a in info.aliases)}
        if wanted & {n.strip("_") for n in names} or _is_related(info.name):
            _record_info(rows, info)
    for name in EXTRA:
        if name in rows and not rows[name].calls:
            rows[name].calls += EXTRA[name](name)


def _is_related(name: str) -> bool:
    parts = ("norm", "pool", "conv", "interpolate", "embedding", "pad", "dist", "softmax",
             "grid_sample", "fold", "dropout", "std", "var", "split", "linear", "fill", "new_full",
             "full", "zeros", "empty", "arange")  # fmt: skip
    return any(p in name for p in parts)


def _record_info(rows: dict[str, Row], info) -> None:
    for dtype in (torch.float32, torch.int64, torch.bool):
        if dtype not in info.dtypes:
            continue
        torch.manual_seed(0)
        try:
            samples = list(info.sample_inputs("cpu", dtype, requires_grad=False))[:12]
        except Exception:
            continue
        for s in samples:
            try:
                with warnings.catch_warnings(), _Recorder(rows), torch.no_grad():
                    warnings.simplefilter("ignore")
                    info(s.input, *s.args, **s.kwargs)
            except Exception:  # a sample that torch itself rejects
                continue


# ---- one call ----------------------------------------------------------------------------------


def single_call(func, args, kwargs) -> tuple[Module, list, object]:
    """(module of one call, its inputs, what torch gives)."""
    g = torch.fx.Graph()
    tensors: list[torch.Tensor] = []

    def place(t):
        node = g.placeholder(f"x{len(tensors)}")
        node.meta["val"] = t
        tensors.append(t)
        return node

    fx_args, fx_kwargs = _pytree.tree_map_only(torch.Tensor, place, (args, kwargs))
    expected = func(*_copied(args), **_copied(kwargs))
    call = g.call_function(func, tuple(fx_args), dict(fx_kwargs))
    call.meta["val"] = list(expected) if isinstance(expected, (tuple, list)) else expected
    outputs = [call]
    if isinstance(expected, (tuple, list)):
        import operator

        outputs = [g.call_function(operator.getitem, (call, k)) for k in range(len(expected))]
        for node, value in zip(outputs, expected):
            node.meta["val"] = value
    g.output(tuple(outputs))
    importer = Importer(TABLE, Sizes())
    params = [param(f"x{k}", TensorType(dtype_of(t.dtype), tuple(t.shape)))
              for k, t in enumerate(tensors)]  # fmt: skip
    results = importer.run(torch.fx.GraphModule({}, g), params)
    importer.problems.check("the call")
    nodes = [r for r in results if isinstance(r, Node)]
    return Module({"main": graph("main", params, nodes)}), [array_of(t) for t in tensors], expected


def run_reference(module: Module, inputs: list) -> list:
    return run_module(module, inputs)


def check_call(name: str, func, args, kwargs, run: Callable) -> None:
    """AssertionError or a tensorwright error unless the call agrees with torch."""
    module, inputs, expected = single_call(func, args, kwargs)
    got = run(module, inputs)
    wanted = expected if isinstance(expected, (tuple, list)) else [expected]
    wanted = [w for w in wanted if isinstance(w, torch.Tensor)]
    assert len(got) == len(wanted), f"{len(got)} results, torch gives {len(wanted)}"
    for k, (ours, theirs) in enumerate(zip(got, wanted)):
        assert ours.shape == tuple(theirs.shape), f"result {k}: {ours.shape}, not {theirs.shape}"
        if name not in RANDOM:
            compare(ours, theirs, k)


def compare(ours: np.ndarray, theirs: torch.Tensor, k: int) -> None:
    tolerance = TOLERANCE.get(theirs.dtype, 1e-4)
    expected = array_of(theirs)
    if theirs.is_floating_point():
        a, b = ours.astype(np.float64), expected.astype(np.float64)
        assert np.allclose(a, b, tolerance, tolerance, equal_nan=True), f"result {k} differs"
    else:
        assert np.array_equal(ours, expected), f"result {k} differs"


def coverage(run: Callable = run_reference, names=None) -> list[Row]:
    """One row for each core operator."""
    rows = {n: Row(n) for n in core_operators() if names is None or n in names}
    record(rows)
    for row in rows.values():
        if row.name in SIZES:
            row.passed = 1
        for func, args, kwargs in row.calls:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    check_call(row.name, func, args, kwargs, run)
                row.passed += 1
            except Exception as e:
                row.failed += 1
                row.problem = row.problem or _text(e)
        if not row.calls and row.name not in SIZES:
            row.problem = "no sample" if row.name in TABLE else "not supported"
    return list(rows.values())


def _text(e: Exception) -> str:
    if isinstance(e, TensorwrightError):
        return " ".join(n.split(": ", 1)[-1] for n in e.notes[:1]) or e.message
    lines = str(e).strip().splitlines()
    return f"{type(e).__name__}: {lines[0] if lines else ''}"


def markdown(rows: list[Row]) -> str:
    """The section of docs/conformance.md about torch."""
    good = [r for r in rows if r.is_supported]
    lines = [
        "## PyTorch (Core ATen)",
        "",
        f"torch {torch.__version__.split('+')[0]} tags {len(rows)} operator overloads as core; "
        f"{len(good)} of them ({100 * len(good) / len(rows):.1f} %) agree with PyTorch on every "
        "sample call. Composite operators for which there is a row (linear, layer_norm, "
        "scaled_dot_product_attention, lstm ...) are imported whole; the others are decomposed.",
        "",
        "| operator | sample calls | state |",
        "|---|---|---|",
    ]
    for r in sorted(rows, key=lambda r: (r.is_supported, r.name)):
        state = "agrees" if r.is_supported else (r.problem or "differs").replace("|", "\\|")
        lines.append(f"| `{r.name}` | {r.passed}/{r.passed + r.failed} | {state} |")
    return "\n".join(lines) + "\n"


# ---- calls that op_db does not lead to ---------------------------------------------------------


def _t(*shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _i(*values) -> torch.Tensor:
    return torch.tensor(values)


def _gradients(function: Callable, *inputs: torch.Tensor) -> Callable[[], list]:
    """The calls of core operators in the gradient of a function."""

    def calls(name: str) -> list:
        leaves = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
        rows = {name: Row(name)}
        with _Recorder(rows), torch.enable_grad():
            y = function(*leaves)
            y.backward(_t(*y.shape, seed=9))
        return rows[name].calls

    return calls


def _direct(*calls) -> Callable[[str], list]:
    """Calls written out: each is (args, kwargs) or args alone."""

    def make(name: str) -> list:
        op = core_operators()[name]
        return [(op, *(c if len(c) == 2 and isinstance(c[1], dict) else (c, {}))) for c in calls]

    return make


_F = torch.nn.functional
_INT, _BOOL = torch.arange(6).reshape(2, 3), torch.arange(6).reshape(2, 3) % 2 == 0
_X = _t(4, 5, 6)
_COMPARED = _direct((_t(2, 3), 0.1), (_INT, 2), (_INT, 2.5))
_BITS = _direct((_INT, 3), (_BOOL, True))


EXTRA: dict[str, Callable[[str], list]] = {
    "_adaptive_avg_pool2d_backward.default": _direct((_t(1, 2, 2, 3), _t(1, 2, 5, 6))),
    "_embedding_bag.default": _direct(
        (_t(7, 3), _i(1, 2, 4, 5, 4), _i(0, 2)), (_t(7, 3), _i(1, 2, 4), _i(0, 1), False, 1),
        (_t(7, 3), _i(1, 2, 4, 5), _i(0, 1, 1), False, 2)),
    "_native_batch_norm_legit_no_training.default": _direct(
        (_t(2, 3, 4), _t(3), _t(3, seed=1), _t(3, seed=2), _t(3).exp(), 0.1, 1e-5),
        (_t(2, 3, 4, 4), None, None, _t(3, seed=2), _t(3).exp(), 0.1, 1e-3)),
    "atan2.out": _direct(((_t(3), _t(3, seed=1)), {"out": torch.empty(3)})),
    "avg_pool2d_backward.default": _gradients(lambda x: _F.avg_pool2d(x, 2), _t(1, 2, 6, 6)),
    "bitwise_and.Scalar": _BITS, "bitwise_or.Scalar": _BITS, "bitwise_xor.Scalar": _BITS,
    "clamp.default": _direct((_t(3, 4), -0.5, 0.5), (_t(3), None, 0.1), (_INT, 1, 4)),
    "col2im.default": _gradients(lambda x: _F.unfold(x, (2, 3), dilation=1, padding=1, stride=2),
                                 _t(1, 2, 5, 6)),
    "convolution_backward.default": _gradients(
        lambda x, w, b: _F.conv2d(x, w, b, stride=2, padding=1, groups=2),
        _t(2, 4, 6, 6), _t(6, 2, 3, 3), _t(6)),
    "copy.default": _direct((_t(3, 4), _t(4)), (_INT, _t(2, 3))),
    "div.Scalar_mode": _direct(((_t(5) * 9, 2.0), {"rounding_mode": "floor"}),
                               ((_t(5) * 9, 2.0), {"rounding_mode": "trunc"}),
                               ((_INT - 3, 2), {"rounding_mode": "floor"})),
    "embedding_dense_backward.default": _direct((_t(2, 3, 4), _INT, 7, 2, False)),
    "fmod.Scalar": _direct((_t(5) * 9, 2.5), (_INT - 3, 2)),
    "ge.Scalar": _COMPARED, "gt.Scalar": _COMPARED, "le.Scalar": _COMPARED, "lt.Scalar": _COMPARED,
    "index.Tensor": _direct(
        (_X, [_i(1, -1)]), (_X, [None, _i(0, 2), _i(1, 3)]), (_X, [_i(0, 2), None, _i(1, 3)]),
        (_X, [None, None, _INT]), (_X, [_X[:, :, 0] > 0]), (_X, [None, _i(1, 2)[:, None], _INT[0]]),
        (_X, [_i(1, 2), torch.arange(6) % 2 == 0][:1])),
    "mul.Scalar": _direct((_t(2, 3), 2.5), (_INT, 2)),
    "native_dropout.default": _direct((_t(4, 5), 0.5, False), (_t(4, 5), 0.5, True)),
    "native_group_norm_backward.default": _gradients(
        lambda x, w, b: _F.group_norm(x, 2, w, b), _t(2, 4, 3, 3), _t(4), _t(4, seed=1)),
    "native_layer_norm_backward.default": _gradients(
        lambda x, w, b: _F.layer_norm(x, (4, 5), w, b), _t(3, 4, 5), _t(4, 5), _t(4, 5, seed=1)),
    "pow.Scalar": _direct((2.0, _t(3, 4)), (3, _INT)),
    "randperm.default": _direct((7,)),
    "remainder.Scalar": _direct((_t(5) * 9, 2.5), (_INT - 3, 2)),
    "scatter.value": _direct((_t(3, 4), 1, _i([0, 2], [1, 3]), 2.5), (_t(3, 4), 0, _i([0, 2]), 1)),
    "slice_scatter.default": _direct((_t(4, 5), _t(2, 5), 0, 1, 3), (_t(4, 5), _t(4, 2), -1, -2),
                                     (_t(4, 6), _t(4, 3), 1, 0, 6, 2)),
    "upsample_bilinear2d.vec": _direct((_t(1, 2, 4, 5), [8, 7], False, None),
                                       (_t(1, 2, 4, 5), None, False, [2.0, 2.0]),
                                       (_t(1, 2, 4, 5), [7, 9], True, None)),
    "upsample_nearest2d.vec": _direct((_t(1, 2, 4, 5), [8, 7], None),
                                      (_t(1, 2, 4, 5), None, [2.0, 3.0])),
    "var.dim": _direct((_t(3, 4), [0]), (_t(3, 4), [1], False, True)),
}  # fmt: skip


def run_native(module: Module, inputs: list) -> list:
    """The results of the compiled module."""
    results = tw.compile(module, threads=1)(*inputs)
    return list(results) if isinstance(results, tuple) else [results]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="torch_ops", description=__doc__)
    parser.add_argument("--via", choices=("reference", "native"), default="reference")
    parser.add_argument("--append", type=Path, help="put the section at the end of this page")
    args = parser.parse_args(arguments)
    text = markdown(coverage(run_native if args.via == "native" else run_reference))
    if args.append:
        page = args.append.read_text() if args.append.exists() else ""
        head = page.split("## PyTorch (Core ATen)")[0].rstrip()
        args.append.write_text(f"{head}\n\n{text}")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
