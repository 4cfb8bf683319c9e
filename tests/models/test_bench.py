"""The benchmark harness: real worker processes, honest failures, tables that lose nothing."""

import json

import numpy as np
import pytest

from benchmarks import bench, overhead, results, zoo
from benchmarks.agreement import relative_error
from benchmarks.results import ONNX_ONLY, Result


def test_relative_error() -> None:
    one = np.array([1.0, -4.0])
    assert relative_error([one], [one]) == 0
    assert relative_error([one + 0.04], [one]) == pytest.approx(0.01)
    assert relative_error([one[:1]], [one]) == float("inf")
    assert relative_error([np.array([np.nan, -4.0])], [one]) == float("inf")
    assert relative_error([np.array([np.nan])], [np.array([np.nan])]) == 0


def test_a_worker_loads_answers_and_times() -> None:
    for package in ("onnxruntime", "torch", "onnxscript"):
        pytest.importorskip(package, exc_type=ImportError)
    zoo.find("lstm2").artifact(small=True)
    worker = bench.Worker("ort", threads=1)
    try:
        assert "error" in worker.ask("run", seconds=0.0, at_least=1)
        loaded = worker.ask("load", model="lstm2", threads=1, small=True)
        assert loaded["cold_s"] > 0 and loaded["peak"] >= 0
        assert len(worker.ask("run", seconds=0.0, at_least=4)["times"]) == 4
        assert worker.answers()[0].shape == (1, 5)
    finally:
        worker.close()


def test_a_dead_worker_is_an_error_not_a_hang() -> None:
    worker = bench.Worker("ort", threads=1)
    worker.process.kill()
    worker.process.wait()
    assert "ended" in worker.ask("run", seconds=0.0, at_least=1)["error"]
    worker.close()


def example_results() -> list[Result]:
    make = lambda peer, **more: Result("net", "Net", 1, peer, flops=2_000_000_000, **more)
    return [
        make("tensorwright", times=[0.002, 0.004], error=0.0, version="1"),
        make("ort", times=[0.001, 0.002, 0.003], version="2"),
        make("openvino", times=[0.003], error=0.5, version="3"),
        make("torch", failure=ONNX_ONLY),
        make("inductor", failure="TypeError: no | such"),
    ]


def test_losing_and_failing_rows_stay(tmp_path) -> None:
    path = tmp_path / "out.md"
    results.write_markdown(path, example_results(), "two rounds")
    text = path.read_text()
    assert "| 2 / 3 / 4 | 1 / 2 / 3 | 3 / 3 / 3 WRONG 5e-01 | ONNX only | failed |" in text
    assert "0.67x vs ort" in text
    assert "TypeError: no \\| such" in text
    assert "two rounds" in text and "cores" in text


def test_two_threads_stand_beside_one(tmp_path) -> None:
    make = lambda peer, threads, s: Result("net", "Net", threads, peer, times=[s, 2 * s])
    path, times = tmp_path / "out.md", {1: 0.006, 2: 0.004}
    found = [make("tensorwright", n, s) for n, s in times.items()] + [make("ort", 1, 0.1)]
    results.write_markdown(path, found, "")
    assert f"## {results.SCALING}" in path.read_text() and "| Net | 1.50 |  |" in path.read_text()
    results.write_markdown(path, found[:1], "")
    assert results.SCALING not in path.read_text()


def test_records_are_json() -> None:
    records = json.loads(json.dumps([r.record() for r in example_results()]))
    assert records[1]["times"] == [0.001, 0.002, 0.003]


def test_overheads_are_measured_and_written_down(tmp_path, capsys) -> None:
    note = tmp_path / "note.md"
    note.write_text("# Kept\n")
    overhead.main(["--only", "calls", "--markdown", str(note)])
    assert "call of a tiny model from C" in capsys.readouterr().out
    text = note.read_text()
    assert text.startswith("# Kept\n") and "| call of a tiny model from Python |" in text
    cost = {row.what: float(row.ours.split()[0]) for row in overhead.pool_rows()}
    assert cost["CPU time of an idle pool"] < 100  # ms a second: workers sleep
