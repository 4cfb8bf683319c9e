"""`tw` with wrong arguments: one rendered error and the documented exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import onnx
import pytest

from tensorwright.tools.cli import run
from tests.errors.models import chain, unary


@pytest.fixture
def folder(tmp_path, monkeypatch):
    onnx.save(unary(shape=["n", 3]), tmp_path / "m.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "folder.onnx").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line, code, words", [
    (["run", "nothing.onnx"], 6, ["nothing.onnx"]),
    (["run", "folder.onnx"], 6, ["folder.onnx is a folder"]),
    (["run", "text.onnx"], 3, ["text.onnx is not an ONNX model"]),
    (["show", "nothing"], 6, ["nothing"]),
    (["run", "m.onnx", "--shape", "x: n[1..,3"], 3, ["'n[1..'", "n[1..64]"]),
    (["run", "m.onnx", "--shape", "q: 3,3"], 3, ["'q'", "inputs: x"]),
    (["run", "m.onnx", "-i", "x"], 5, ["NAME=WHAT", "x=@file.npy"]),
    (["run", "m.onnx", "-i", "x=2xq"], 5, ["'2xq'", "x=2x8"]),
    (["run", "m.onnx", "-i", "x=[[1,2,"], 5, ["array literal"]),
    (["run", "m.onnx", "-i", "x=@no.npy"], 5, ["no.npy"]),
    (["run", "m.onnx", "-i", "x=5x4"], 5, ["dimension 1 is 4, expected 3"]),
    (["run", "m.onnx", "-i", "x=99999999x99999999"], 5, ["memory", "'x'"]),
    (["run", "m.onnx", "-i", "x=99999999999999999999x3"], 5, ["memory", "'x'"]),
    (["run", "m.onnx", "--size", "q=3"], 5, ["'q'", "n"]),
    (["run", "m.onnx", "--size", "n"], 2, ["NAME=N"]),
    (["run", "m.onnx", "--threads", "99999999"], 4, ["threads"]),
    (["run", "m.onnx", "--target", "zzz"], 4, ["'zzz'", "x86-64-avx2"]),
    (["run", "m.onnx", "--zzz"], 2, ["--zzz"]),
    (["zzz"], 2, ["zzz"]),
    (["compile", "m.onnx", "-o", "/proc/x.tw"], 6, ["cannot write /proc/x.tw"]),
    (["compile", "m.onnx", "-o", "nothing/x.tw"], 6, ["cannot write nothing/x.tw"]),
    (["report", "m.onnx", "-o", "/proc/x.html"], 6, ["/proc/x.html"]),
    (["show", "m.onnx", "--after", "zzz"], 4, ["'zzz'", "fuse"]),
    (["show", "m.onnx", "--kernel", "zzz"], 4, ["'zzz'"]),
])  # fmt: skip
def test_refused(folder, capsys, line, code, words):
    assert run(line) == code
    told = capsys.readouterr()
    text = " ".join((told.out + told.err).split())
    for word in words:
        assert word in text
    assert "Traceback" not in text


def started(folder, *line: str) -> subprocess.Popen:
    environment = {**os.environ, "TW_CACHE": "off"}
    return subprocess.Popen([sys.executable, "-m", "tensorwright", *line],
                            env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


@pytest.mark.parametrize("line", [["--help"], ["show", "big.onnx", "--after", "import"],
                                  ["run", "m.onnx"], ["run", "m.onnx", "--json"]])  # fmt: skip
def test_reader_that_goes_away(folder, line):
    onnx.save(chain("Sin", 3000), folder / "big.onnx")
    p = started(folder, *line)
    p.stdout.close()
    errors = p.stderr.read()
    assert p.wait(100) == 0
    assert b"Error" not in errors and b"Broken" not in errors


@pytest.mark.parametrize("delay", [0.7, 2])
def test_interrupted(folder, delay):
    onnx.save(chain("Sin", 20000), folder / "big.onnx")
    p = started(folder, "run", "big.onnx")
    time.sleep(delay)
    p.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, errors = p.communicate(timeout=60)
    assert p.returncode in (130, -signal.SIGINT)
    assert time.monotonic() - start < 5
    assert b"internal error" not in errors
