"""A compiled program beside ONNX Runtime: same inputs, same cores, same rounds.

`compare` reports the largest difference of any output and both latencies, measured in interleaved
rounds with a pause between them (a thread pool that spins would otherwise slow its neighbour).
`random_feeds` makes inputs for a model about which nothing is known but its signature.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
Feeds = dict[str, np.ndarray]
ROUNDS, ROUND_SECONDS, PAUSE = 5, 0.1, 0.2


@dataclass(frozen=True)
class Comparison:
    """Differences and milliseconds: minimum and median of each side."""

    absolute: float
    relative: float
    ours: tuple[float, float]
    theirs: tuple[float, float]
    outputs: tuple[np.ndarray, ...]


def reference_session(model: bytes, threads: int):
    """ONNX Runtime on the same number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def compare(program, session, feeds: Feeds) -> Comparison:
    """Answers first, then time both."""
    ours, theirs = program(**feeds), session.run(None, feeds)
    outputs = ours if isinstance(ours, tuple) else (ours,)
    absolute, relative = difference(outputs, theirs)
    times = interleaved([lambda: program(**feeds), lambda: session.run(None, feeds)])
    return Comparison(absolute, relative, times[0], times[1], outputs)


def difference(ours: tuple[np.ndarray, ...], theirs: list[np.ndarray]) -> tuple[float, float]:
    """Largest absolute difference, and the largest relative to the reference's magnitude."""
    absolute = relative = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            raise ValueError(f"output shapes differ: {a.shape} and {b.shape}")
        if not b.size:
            continue
        gap = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
        scale = float(np.abs(b.astype(np.float64)).max())
        absolute, relative = max(absolute, gap), max(relative, gap / scale if scale else gap)
    return absolute, relative


def interleaved(calls: list[Callable[[], object]]) -> list[tuple[float, float]]:
    """(minimum, median) milliseconds of every call, rounds taken in turn."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(ROUNDS):
        for which in range(len(calls)):
            index = (which + turn) % len(calls)
            time.sleep(PAUSE)
            times[index] += timed(calls[index])
    return [(1e3 * min(t), 1e3 * statistics.median(t)) for t in times]


def timed(call: Callable[[], object]) -> list[float]:
    call()
    found, end = [], time.perf_counter() + ROUND_SECONDS
    while not found or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return found


def random_feeds(model: onnx.ModelProto, seed: int = 0) -> Feeds:
    """Inputs that obey the declared types and shapes; equal symbols get equal extents."""
    rng = np.random.default_rng(seed)
    given = {tensor.name for tensor in model.graph.initializer}
    extents: dict[str, int] = {}
    feeds = {}
    for value in model.graph.input:
        if value.name not in given:
            feeds[value.name] = random_array(rng, value, extents)
    return feeds


def random_array(rng, value: onnx.ValueInfoProto, extents: dict[str, int]) -> np.ndarray:
    if not value.type.HasField("tensor_type"):
        raise ValueError(f"input {value.name} is not a tensor")
    declared = value.type.tensor_type
    dims = declared.shape.dim
    shape = [_extent(dim, axis, len(dims), extents) for axis, dim in enumerate(dims)]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(declared.elem_type)
    if "mask" in value.name.lower():
        return np.ones(shape, dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        return rng.integers(0, 8, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def _extent(dim, axis: int, rank: int, extents: dict[str, int]) -> int:
    if dim.HasField("dim_value"):
        return dim.dim_value
    # A leading unknown is a batch, an unknown of a picture is its side, any other a length.
    default = 1 if axis == 0 else 224 if rank == 4 and axis >= 2 else 16
    return extents.setdefault(dim.dim_param, default) if dim.dim_param else default
