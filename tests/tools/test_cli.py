import json
import resource
import subprocess
import sys

import numpy as np
import pytest

from tensorwright.tools import engines
from tensorwright.tools.cli import COMMANDS, EXIT_CODES, run
from tensorwright.tools.commands import bench
from tests.tools.modules import DIGITS

MODEL = str(DIGITS)


def tw(*arguments):
    return run([str(a) for a in arguments])


def as_json(capsys, *arguments):
    code = tw(*arguments, "--json")
    return code, json.loads(capsys.readouterr().out)


def test_help_lists_every_command_and_exit_code(capsys):
    assert tw("--help") == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert all(str(code) in text for code, _ in EXIT_CODES)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_teaches_by_example(name, capsys):
    assert tw(name, "--help") == 0
    text = capsys.readouterr().out
    assert f"tw {name}" in text


def test_help_is_quick():
    """In CPU time, so that other work on the machine does not count."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(3):
        start = used()
        subprocess.run([sys.executable, "-m", "tensorwright", "--help"],
                       capture_output=True, check=True)  # fmt: skip
        times.append(used() - start)
    assert min(times) < 0.3


def test_run(capsys):
    code, found = as_json(capsys, "run", MODEL, "--size", "batch=3")
    assert code == 0 and found["outputs"]["logits"]["shape"] == [3, 10]
    assert np.isfinite(found["outputs"]["logits"]["values"]).all()
    assert tw("run", MODEL, "--quiet") == 0
    shown = capsys.readouterr()
    assert "logits" in shown.out and not shown.err


def test_compile_then_run_the_file(capsys, tmp_path):
    path = tmp_path / "digits.tw"
    code, found = as_json(capsys, "compile", MODEL, "-o", path)
    assert code == 0 and found["kernels"] > 0 and path.exists()
    result = tmp_path / "result.npz"
    assert tw("run", path, "-i", "image=2x1x8x8:zeros", "-o", result) == 0
    assert np.load(result)["logits"].shape == (2, 10)


def test_compare(capsys):
    code, found = as_json(capsys, "compare", MODEL, "--against", "reference", "--layers")
    assert code == 0 and found["ok"] and found["layers"]
    assert tw("compare", MODEL, "--against", "reference", "--tolerance", "0", "-q") == 1


def test_bisect(capsys):
    code, found = as_json(capsys, "bisect", MODEL)
    assert code == 0 and found["ok"]


def test_show(capsys):
    assert tw("show", MODEL, "--after", "import") == 0
    assert capsys.readouterr().out.startswith("batch = sym()")
    assert tw("show", MODEL, "--after", "fuse", "--diff") == 0
    assert "+++ after fuse" in capsys.readouterr().out


def test_explain(capsys):
    code, found = as_json(capsys, "explain", MODEL)
    assert code == 0 and found["kernels"]
    assert tw("explain", MODEL, "-q") == 0


def test_bench(capsys):
    code, found = as_json(capsys, "bench", MODEL, "--seconds", "0.1")
    assert code == 0 and found["results"][0]["latency"]["p50"] > 0
    assert tw("bench", MODEL, "--seconds", "0.1", "--markdown", "-q") == 0
    assert capsys.readouterr().out.startswith("| engine |")


def test_bench_against_a_list(capsys):
    pytest.importorskip("onnxruntime")
    code, found = as_json(
        capsys, "bench", MODEL, "--seconds", "0.1", "--against", "ort,onnxruntime"
    )
    assert code == 0 and [r["engine"] for r in found["results"]] == ["tensorwright", "onnxruntime"]
    assert tw("bench", MODEL, "--against", "ort,nothing") == 2
    assert "'nothing' is not one of" in capsys.readouterr().err


def test_bench_says_how_to_get_an_absent_engine(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # importing it fails
    monkeypatch.setitem(sys.modules, "openvino", None)
    found, absent = bench.opened(MODEL, ("onnxruntime", "openvino"), 1, {})
    assert found == {} and "(pip install openvino)" in absent["openvino"]


@pytest.mark.parametrize("when", ["loading", "running"])
def test_bench_goes_on_without_an_engine_that_fails(capsys, monkeypatch, when):
    pytest.importorskip("onnxruntime")

    def broken(*_):
        raise RuntimeError("Check 'rank'\n    failed")

    engine = broken if when == "loading" else lambda *_: broken
    monkeypatch.setattr(engines, "openvino_engine", engine)
    assert tw("bench", MODEL, "--seconds", "0.1", "--against", "ort,openvino") == 0
    out = capsys.readouterr()
    assert "onnxruntime" in out.out
    why = "openvino is left out: openvino cannot run this model: RuntimeError: Check 'rank'"
    assert why in " ".join((out.out + out.err).split())
    assert tw("bench", MODEL, "--against", "openvino") == 4
    assert "openvino cannot run this model" in capsys.readouterr().err


def test_profile(capsys, tmp_path):
    trace = tmp_path / "trace.json"
    code, found = as_json(capsys, "profile", MODEL, "--trace", trace)
    assert code == 0 and found["kernels"] and json.loads(trace.read_text())["traceEvents"]
    assert tw("profile", MODEL, "-q") == 0


def test_targets_and_doctor(capsys):
    code, found = as_json(capsys, "targets")
    assert code == 0 and sum(t["host"] for t in found) == 1
    code, found = as_json(capsys, "doctor")
    assert code == 0 and found["ok"]
    assert {"versions", "machine", "test"} <= {c["group"] for c in found["checks"]}


def test_cache(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("TW_CACHE", str(tmp_path))
    tw("run", MODEL, "-q")
    capsys.readouterr()
    code, found = as_json(capsys, "cache", "info")
    assert code == 0 and found["entries"] > 0
    entry = next(tmp_path.glob("objects/*/*.o"))
    entry.write_bytes(b"damaged")
    code, found = as_json(capsys, "cache", "verify")
    assert code == 1 and len(found["damaged"]) == 1
    assert tw("cache", "verify", "--repair") == 0 and not entry.exists()
    assert tw("cache", "ls") == 0 and tw("cache", "clear") == 0
    capsys.readouterr()
    assert as_json(capsys, "cache", "info")[1]["entries"] == 0


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["rum"], 2, "did you mean 'run'"),
        (["xyz"], 2, "No such command"),
        (["run", MODEL, "--frob"], 2, "frob"),
        (["run", MODEL, "--size", "n"], 2, "not NAME=N"),
        (["run", "none.onnx"], 6, "there is no file none.onnx"),
        (["run", MODEL, "--target", "z80"], 4, "there is no target 'z80'"),
        (["run", MODEL, "-i", "image=1x1x8x9"], 5, "dimension 3 is 9, expected 8"),
        (["show", MODEL, "--after", "fus"], 4, "did you mean fuse"),
        (["run", __file__], 3, "expected"),
    ],
)
def test_exit_codes_and_messages(arguments, code, message, capsys):
    assert tw(*arguments) == code
    assert message in capsys.readouterr().err


def test_errors_as_json(capsys):
    code, found = as_json(capsys, "run", "none.onnx")
    assert code == found["exit_code"] == 6 and found["error"]["kind"] == "ArtifactError"


def test_a_bug_leaves_a_reproducer(capsys, monkeypatch, tmp_path):
    from tensorwright.tools import options

    def broken(*_, **__):
        raise KeyError("oops")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "compile", broken)
    assert tw("run", MODEL) == 70
    assert "the program is in digits.repro.py" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert tw("run", "digits.repro.py") == 0


def test_a_bug_of_ours_is_an_internal_error(capsys, monkeypatch):
    from tensorwright.tools.options import Request

    def broken(self, output):
        raise KeyError("oops")

    monkeypatch.setattr(Request, "program", broken)
    assert tw("run", MODEL) == 70
    assert "internal error: KeyError: 'oops'" in capsys.readouterr().err
    assert tw("run", MODEL, "--debug") == 70
    assert "Traceback" in capsys.readouterr().err
