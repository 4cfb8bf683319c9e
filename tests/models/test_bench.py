"""The benchmark harness: real worker processes, honest failures, tables that lose nothing."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import bench, overhead, results, worker, zoo
from benchmarks.agreement import relative_error
from benchmarks.peer import Call, Case, Peer
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
    process = bench.Worker("ort", threads=1)
    try:
        assert "error" in process.ask("run", seconds=0.0, at_least=1)
        loaded = process.ask("load", model="lstm2", threads=1, small=True)
        assert loaded["cold_s"] > 0 and loaded["peak"] >= 0
        assert len(process.ask("run", seconds=0.0, at_least=4)["times"]) == 4
        assert process.answers()[0].shape == (1, 5)
    finally:
        process.close()


class Keeper(Peer):
    """Keeps a file for the next load."""

    def version(self) -> str:
        return "1"

    def compile(self, case: Case) -> Call:
        made = case.folder / "made"
        text = made.read_text() if made.exists() else "new"
        made.write_text("old")
        return lambda: text


@pytest.fixture
def keeper(tmp_path, monkeypatch) -> Keeper:
    """A peer with a folder for what it keeps, and a model `net`."""
    artifact = zoo.Artifact(tmp_path / "net.onnx", {}, (), {})
    row = SimpleNamespace(artifact=lambda small: artifact)
    monkeypatch.setattr(worker.zoo, "find", lambda name: row)
    monkeypatch.setitem(worker.peers.PEERS, "keeper", peer := Keeper())
    monkeypatch.setenv("TW_BENCH_FOLDER", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    return peer


def test_what_a_peer_keeps_has_no_cold_time(keeper) -> None:
    first, second = worker.Session("keeper"), worker.Session("keeper")
    assert first.load("net", 1)["cold_s"] >= 0 and first.call() == "old"
    assert second.load("net", 1)["cold_s"] is None and second.call() == "old"
    assert second.load("net", 2)["cold_s"] is None
    keeper.compiles_for_threads = True
    assert worker.Session("keeper").load("net", 2)["cold_s"] >= 0


def test_what_a_killed_process_left_is_not_kept(keeper, tmp_path) -> None:
    worker.Session("keeper").load("net", 1)
    (made,) = tmp_path.glob("keeper-*/made")
    (made.parent / "unfinished").touch()
    assert worker.Session("keeper").load("net", 1)["cold_s"] >= 0
    assert [p.name for p in made.parent.iterdir()] == ["made"]


def test_new_rows_take_the_place_of_old_ones(tmp_path) -> None:
    make = lambda model, threads, peer="ort": Result(model, model, threads, peer)
    earlier = [make("a", 1), make("a", 2), make("b", 1)]
    group = [make("a", 2, "ort"), make("a", 2, "mnn")]
    found = results.joined(earlier, group)
    assert [(r.model, r.threads, r.peer) for r in found] == [
        ("a", 1, "ort"), ("a", 2, "ort"), ("a", 2, "mnn"), ("b", 1, "ort"),
    ]  # fmt: skip
    assert results.joined(found, [make("c", 1)])[-1].model == "c"
    (path := tmp_path / "rows.json").write_text(json.dumps([r.record() for r in found]))
    assert results.read(path) == found and results.read(tmp_path / "none.json") == []


def test_a_dead_worker_is_an_error_not_a_hang() -> None:
    process = bench.Worker("ort", threads=1)
    process.process.kill()
    process.process.wait()
    assert "ended" in process.ask("run", seconds=0.0, at_least=1)["error"]
    process.close()


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
