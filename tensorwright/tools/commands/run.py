"""`tw run`."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import rich_click as click

from tensorwright.base.errors import ArtifactError
from tensorwright.runtime.buffer import dtype_name
from tensorwright.tools.options import Request, command, input_options, model_options
from tensorwright.tools.output import Column, Output, duration

SMALL = 64  # elements that --json prints in full


@command()
@model_options
@input_options
@click.option("--output", "-o", "path", metavar="FILE.npz", help="Write the results to this file.")
def command(request: Request, output: Output, path: str | None) -> None:
    """Run a model on given or random inputs.

    \b
        tw run model.onnx
        tw run model.onnx --input x=8x3x224x224 --size n=4 --threads 2
        tw run model.tw --input ids=@ids.npy --output result.npz
    """
    program = request.program(output)
    feeds = request.feeds(program)
    start = time.perf_counter()
    found = program(**feeds)
    seconds = time.perf_counter() - start
    names = [o.name for o in program.outputs]
    results = dict(zip(names, found if isinstance(found, tuple) else (found,)))
    if path:
        save(path, results)
    if output.as_json:
        described = {n: {**describe(a), **contents(a)} for n, a in results.items()}
        output.json({"inputs": {n: describe(a) for n, a in feeds.items()},
                     "outputs": described, "seconds": seconds})  # fmt: skip
        return
    show_arrays(output, {**{f"→ {n}": a for n, a in feeds.items()}, **results})
    output.remark(f"first call: {duration(seconds)}")


def save(path: str, arrays: dict[str, np.ndarray]) -> None:
    try:
        with Path(path).open("wb") as f:
            np.savez(f, **arrays)
    except OSError as e:
        raise ArtifactError(f"cannot write {path}: {e.strerror}") from None


def describe(a: np.ndarray) -> dict:
    """Type and statistics of an array."""
    wide = a.astype(np.float64) if a.size else np.zeros(1)
    finite = wide[np.isfinite(wide)]
    odd = int(wide.size - finite.size)
    low, mean, high = (
        f(finite) if finite.size else float("nan") for f in (np.min, np.mean, np.max)
    )
    return {
        "dtype": dtype_name(a.dtype), "shape": list(a.shape), "min": float(low),
        "mean": float(mean), "max": float(high), "not_finite": odd,
    }  # fmt: skip


def contents(a: np.ndarray) -> dict:
    return {"values": a} if a.size <= SMALL else {}


def show_arrays(output: Output, arrays: dict[str, np.ndarray]) -> None:
    columns = (Column("", style="bold"), Column("type"), Column("min", True), Column("mean", True),
               Column("max", True), Column("first values"))  # fmt: skip
    rows = []
    for name, a in arrays.items():
        d = describe(a)
        values = "  ".join(f"{v:.4g}" for v in a.reshape(-1)[:4].astype(np.float64))
        odd = f"  ({d['not_finite']} not finite)" if d["not_finite"] else ""
        rows.append((
            name, f"{d['dtype']}[{', '.join(map(str, a.shape))}]",
            *(f"{d[k]:.4g}" for k in ("min", "mean", "max")), values + odd,
        ))  # fmt: skip
    output.table(columns, rows)
