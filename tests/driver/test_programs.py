"""Whole programs that were compiled before: found when nothing changed, and only then."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tensorwright.base import config
from tensorwright.base.errors import CompileError
from tensorwright.driver import compile as driver
from tensorwright.driver import kernels
from tensorwright.driver import programs as driver_programs
from tensorwright.driver.compile import compile
from tensorwright.driver.programs import KnownProgram, KnownPrograms, written
from tensorwright.runtime.program import Program
from tensorwright.target.host import TARGETS, find
from tests.tools.modules import DIGITS

X = np.random.default_rng(0).normal(size=(3, 1, 8, 8)).astype(np.float32)


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TW_CACHE_PROGRAMS", "64")
    return Path(shutil.copy(DIGITS, tmp_path / "digits.onnx"))


@pytest.fixture
def passes(monkeypatch) -> list[str]:
    """A word for each time that passes run."""
    ran: list[str] = []

    def run(*arguments, real=driver.run_pipeline):
        ran.append("ran")
        return real(*arguments)

    monkeypatch.setattr(driver, "run_pipeline", run)
    return ran


def files(model: Path) -> list[Path]:
    return sorted((model.parent / "cache" / "programs").rglob("*.tw"))


def test_a_known_program_runs_no_pass(model, passes):
    cold, warm = compile(model, threads=2), compile(str(model), threads=2)
    assert passes == ["ran"] and len(files(model)) == 1
    assert isinstance(warm, KnownProgram) and not isinstance(cold, KnownProgram)
    assert (cold(X) == warm(X)).all()
    assert (warm.name, warm.threads, warm.target) == (cold.name, 2, cold.target)
    assert compile(model).manifest.threads == 0


def test_loops_are_split_for_the_threads(model, passes):
    one, two = compile(model, threads=1), compile(model, threads=2)
    again = compile(model, threads=1)
    assert passes == ["ran", "ran"] and isinstance(again, KnownProgram)
    assert [(p.threads, p.target.cores) for p in (one, two, again)] == [(1, 1), (2, 2), (1, 1)]
    with config.options(threads=1):
        asked = compile(model)
    assert isinstance(asked, KnownProgram) and (asked.threads, asked.target.cores) == (1, 1)
    assert (asked(X) == two(X)).all()


def test_a_target_by_name_does_not_depend_on_this_machine(model):
    with config.options(cache="off"):
        named = [
            compile(model, target=t.name, threads=n) for t in TARGETS if runs(t) for n in (None, 3)
        ]
    assert {p.target.cores for p in named} == {2, 3}


def test_it_is_saved_as_the_compiled_one_is(model, tmp_path):
    for name in ("cold", "warm"):
        compile(model).save(tmp_path / name)
    assert (tmp_path / "cold").read_bytes() == (tmp_path / "warm").read_bytes()


def test_its_insides_are_made_when_asked_for(model, passes):
    cold, warm = compile(model), compile(model)
    assert passes == ["ran"]
    assert list(warm.lowered.kernels) == list(cold.lowered.kernels)
    assert passes == ["ran", "ran"]
    assert warm.module.entry == cold.module.entry and warm.built.host
    assert passes == ["ran", "ran"]
    with pytest.raises(AttributeError):
        _ = warm.nonsense


def test_insides_of_a_changed_file_are_an_error(model):
    compile(model)
    warm = compile(model)
    model.write_bytes(model.read_bytes() + b"\0")
    with pytest.raises(CompileError, match=r"digits.onnx is no longer what"):
        _ = warm.lowered


def runs(target) -> bool:
    same = target.triple == find("host").triple
    return same and set(target.required) <= set(find("host").required)


def rename(model: Path) -> Path:
    return model.rename(model.with_name("other.onnx"))


def change(model: Path) -> Path:
    import onnx

    m = onnx.load(model)
    m.doc_string = "changed"
    onnx.save(m, model)
    return model


@pytest.mark.parametrize("alter", [rename, change])
def test_other_files_are_other_programs(model, passes, alter):
    compile(model)
    compile(alter(model))
    assert passes == ["ran", "ran"]


def test_shapes_targets_and_sources_are_part_of_the_key(model, passes, monkeypatch):
    compile(model)
    compile(model, shapes={"image": "n[1..64], 1, 8, 8"})
    host = find("host")
    compile(model, target=next(t for t in TARGETS if t.name != host.name and runs(t)))
    monkeypatch.setattr(kernels, "sources_digest", lambda *floors: "changed")
    compile(model)
    assert passes == ["ran"] * 4


@pytest.mark.parametrize(
    "options", [{"cache": "off"}, {"cache_programs": 0}, {"log": ("fuse",)}, {"verify": 1}]
)
def test_where_nothing_is_kept(model, passes, options):
    with config.options(**options):
        compile(model)
        compile(model)
    assert passes == ["ran", "ran"] and not files(model)


def test_who_watches_sees_every_pass(model, passes):
    compile(model)
    seen = []
    compile(model, observe=lambda name, m: seen.append(name))
    compile(model, verify=True)
    assert passes == ["ran"] * 3 and "fuse" in seen


def test_a_damaged_program_is_compiled_again(model, passes):
    want = compile(model)(X)
    (path,) = files(model)
    for damage in (lambda d: d[:-9], lambda d: d[:4000] + b"x" + d[4001:], lambda d: b""):
        path.write_bytes(damage(path.read_bytes()))
        assert (compile(model)(X) == want).all()
        assert isinstance(compile(model), KnownProgram)
    assert len(passes) == 4


def test_a_model_with_files_of_weights_is_not_kept(model, passes, tmp_path):
    import onnx

    data = onnx.load(model)
    beside = tmp_path / "beside.onnx"
    onnx.save(data, beside, save_as_external_data=True, location="w.bin", size_threshold=0)
    compile(beside)
    compile(beside)
    assert passes == ["ran", "ran"] and not files(model)


def test_the_least_recently_used_goes_first(model, monkeypatch):
    compile(model)
    (first,) = files(model)
    size = first.stat().st_size
    one = KnownPrograms.of(model, find("host"))
    one.cache.limit = int(2.5 * size)
    now = time.time()
    for k, name in enumerate(("b", "c")):
        other = first.with_name(f"{name}.tw")
        shutil.copy(first, other)
        os.utime(other, (now - 100 + k, now - 100 + k))
    one.keep(compile(model))
    assert {p.stem for p in files(model)} == {first.stem, "c"}
    one.cache.limit = 100  # less than the weights
    program = compile(model)
    first.unlink()
    one.keep(program)
    assert first not in files(model)


def test_many_weights_are_written_aside(model, passes, monkeypatch):
    monkeypatch.setattr(driver_programs, "ASIDE", 0)
    going, save = threading.Event(), Program.save

    def late(program, *arguments, **options):
        going.wait(10)
        save(program, *arguments, **options)

    monkeypatch.setattr(Program, "save", late)
    want = compile(model)(X)  # while the file is still being written
    assert not files(model)
    threading.Timer(0.1, going.set).start()
    assert (compile(model)(X) == want).all()
    assert passes == ["ran"] and len(files(model)) == 1


def test_a_process_that_ends_has_written_its_programs(model):
    source = "from tensorwright.driver import compile, programs; programs.ASIDE = 0\n"
    source += "from tensorwright.runtime import checksum; checksum.ALONE = 0\n"
    source += f"compile.compile({str(model)!r})"
    subprocess.run([sys.executable, "-c", source], check=True, timeout=100)
    assert len(files(model)) == 1
    assert isinstance(compile(model), KnownProgram)


def test_a_folder_that_cannot_be_written_costs_nothing(model, passes):
    (model.parent / "cache").mkdir()
    (model.parent / "cache" / "programs").write_text("in the way")
    assert compile(model)(X).shape[0] == 3
    assert compile(model)(X).shape[0] == 3 and passes == ["ran", "ran"]


def test_only_shapes_that_can_be_written_down():
    assert written(None) == "None"
    assert written({"x": (1, "n")}) == "[['x', [1, 'n']]]"
    assert written({"x": object()}) is None
