import numpy as np
import pytest

from tensorwright.base import config
from tensorwright.driver import kernels
from tensorwright.driver.compile import compile
from tensorwright.driver.kernels import KnownKernels, Record, ScheduledLater
from tensorwright.driver.objects import ObjectCache
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir.compare import difference
from tensorwright.ir.loop import Pack
from tensorwright.ir.printer import to_text
from tensorwright.target.host import find
from tests.tools.modules import mlp

X = np.linspace(-1, 1, 5 * 64, dtype=np.float32).reshape(5, 64)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TW_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def scheduled(monkeypatch):
    """The names of kernels that are scheduled from now on."""
    names, real = [], kernels.schedule

    def schedule(k, target):
        names.append(k.name)
        return real(k, target)

    monkeypatch.setattr(kernels, "schedule", schedule)
    return names


def test_known_kernels_are_not_scheduled_again(scheduled):
    first = compile(mlp())
    assert scheduled
    scheduled.clear()
    again = compile(mlp())
    assert scheduled == []
    assert again._objects == first._objects and again.manifest == first.manifest
    assert all(np.array_equal(a, b) for a, b in zip(first(X), again(X)))


def test_a_known_kernel_is_scheduled_when_somebody_looks(scheduled):
    compile(mlp())
    found = compile(mlp()).lowered
    assert all(isinstance(k, ScheduledLater) for k in found.kernels.values())
    scheduled.clear()
    wanted = run_pipeline(mlp(), find("host"))
    for k, other in zip(found.kernels.values(), wanted.kernels.values()):
        assert difference(k, other) == ""
    assert to_text(found) == to_text(wanted)
    assert sorted(scheduled) == sorted(found.kernels)


def test_another_compiler_takes_nothing(scheduled, monkeypatch):
    compile(mlp())
    scheduled.clear()
    monkeypatch.setattr(kernels, "sources_digest", lambda *_: "changed")
    compile(mlp())
    assert scheduled


def test_without_sources_nothing_is_known(scheduled, monkeypatch):
    monkeypatch.setattr(kernels, "sources_digest", lambda *_: None)
    compile(mlp())
    scheduled.clear()
    compile(mlp())
    assert scheduled


def test_decisions_that_somebody_reads_are_made(scheduled):
    compile(mlp())
    scheduled.clear()
    with config.options(log=("schedule",)):
        compile(mlp())
    assert scheduled


@pytest.mark.parametrize("damage", [b"", b"?" * 200, None])
def test_damaged_files_are_made_again(folder, scheduled, damage):
    first = compile(mlp())
    for path in folder.glob("objects/*/*"):
        if damage is None:
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2] + b"?" + data[len(data) // 2 + 1 :])
        else:
            path.write_bytes(damage)
    scheduled.clear()
    assert compile(mlp())._objects == first._objects
    assert scheduled


def test_a_lost_object_is_compiled_again(folder, scheduled):
    first = compile(mlp())
    for path in folder.glob("objects/*/*"):
        if path.stat().st_size > 1000:  # objects, not records
            path.unlink()
    assert compile(mlp())._objects == first._objects


def test_records_survive_writing():
    pack = Pack(1, 0, 16, (), (1, 2))
    r = Record((pack,), (2,), ("tile i",), "kabc", "ff", {"message": 3})
    assert Record.from_bytes(r.to_bytes()) == r


def test_what_is_no_record_is_unknown(tmp_path):
    cache = ObjectCache(tmp_path)
    cache.write("ab" * 32, b'{"packs": 1}')
    assert KnownKernels(cache, find("host")).read("ab" * 32) is None
