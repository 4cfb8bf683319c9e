"""The benchmark harness: real worker processes, honest failures, tables that lose nothing."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import bench, kernels, overhead, results, worker, zoo
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


def squeezed(found: list[Result]) -> str:
    """What the page says, without the alignment of its columns."""
    return re.sub(" +", " ", results.section("place", found).text())


def test_losing_and_failing_rows_stay() -> None:
    text = squeezed(example_results())
    assert "| 2 / 3 / 4 | 1 / 2 / 3 | 3 / 3 / 3 WRONG 5e-01 | ONNX only | failed |" in text
    assert "0.67x vs ort" in text and "- `net` 0.67x vs ort: " in text
    assert "- Net, 1 thread(s), inductor: TypeError: no | such" in text
    assert "- Net, 1 thread(s), openvino: 5.0e-01" in text and "cores" in text


def test_who_is_wrong_is_not_the_best() -> None:
    make = lambda peer, s, error=0.0: Result("net", "Net", 1, peer, times=[s], error=error)
    group = {r.peer: r for r in (make("tensorwright", 2.0), make("ort", 3.0), make("mnn", 1.0, 1))}
    assert results.ratio(group) == kernels.ratio(group) == ("ort", 1.5)
    assert results.ratio({p: group[p] for p in ("tensorwright", "mnn")}) is None
    assert results.ratio(group | {"tensorwright": make("tensorwright", 2.0, 1)}) is None
    assert "WRONG" in group["mnn"].cell() and kernels.cell(group["mnn"]) == "1e+03 WRONG"


def test_two_threads_stand_beside_one() -> None:
    make = lambda peer, threads, s: Result("net", "Net", threads, peer, times=[s, 2 * s])
    times = {1: 0.006, 2: 0.004}
    found = [make("tensorwright", n, s) for n, s in times.items()] + [make("ort", 1, 0.1)]
    text = squeezed(found)
    assert f"## {results.SCALING}" in text and "| Net | 1.50 | |" in text
    assert results.SCALING not in squeezed(found[:1])


def test_compile_times_are_of_the_most_threads() -> None:
    make = lambda model, n: Result(model, model, n, "ort", cold_s=float(n), warm_s=0.5)
    found = [make("b", 2), make("a", 1), make("b", 1)]
    assert results.compile_rows(found) == [["a", "1.00 / 0.50"], ["b", "2.00 / 0.50"]]


def test_overheads_are_measured(capsys) -> None:
    overhead.main(["--only", "calls"])
    printed = capsys.readouterr().out
    assert "call of a tiny model from C" in printed
    assert "| call of a tiny model from Python " in printed and "Measured on " in printed
    cost = {row.what: float(row.ours.split()[0]) for row in overhead.pool_rows()}
    assert cost["CPU time of an idle pool"] < 100  # ms a second: workers sleep
