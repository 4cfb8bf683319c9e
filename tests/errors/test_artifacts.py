"""Files: damaged artifacts, disks that are full, caches that cannot be used."""

from __future__ import annotations

import json
import random
import resource
import signal
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base.errors import ArtifactError, TensorwrightError
from tests.errors.models import network

X = np.random.default_rng(0).random((128, 48), np.float32)


@pytest.fixture(scope="module")
def program():
    return tw.compile(network(48))


@pytest.fixture
def saved(program, tmp_path):
    program.save(tmp_path / "a.tw")
    return tmp_path / "a.tw"


def refused(path, word: str | None = None) -> None:
    with pytest.raises(ArtifactError, match=word):
        tw.load(path)


def test_truncated(saved):
    assert np.allclose(tw.load(saved)(X), X, atol=1e-4)
    raw = saved.read_bytes()
    for end in [*range(0, len(raw), len(raw) // 30), len(raw) - 1]:
        saved.write_bytes(raw[:end])
        refused(saved)


def test_flipped_bits(saved):
    raw, rng = saved.read_bytes(), random.Random(0)
    directory = raw.rindex(b"manifest.json") - 46  # of this member in the zip's directory
    for _ in range(100):
        changed = bytearray(raw)
        changed[rng.randrange(directory)] ^= 1 << rng.randrange(8)
        saved.write_bytes(changed)
        try:
            loaded = tw.load(saved)
        except TensorwrightError as e:
            assert isinstance(e, ArtifactError)
        else:  # a bit that means nothing: padding, dates
            assert np.allclose(loaded(X), X, atol=1e-4)


def rewritten(saved, change, extra: str = ""):
    """A copy of the artifact with another manifest and another member."""
    other = saved.with_name("other.tw")
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(other, "w") as out:
        for name in source.namelist():
            data = source.read(name)
            if name == "manifest.json":
                document = json.loads(data)
                change(document)
                data = json.dumps(document).encode()
            out.writestr(name, data)
        if extra:
            out.writestr(extra, "x")
    return other


@pytest.mark.parametrize("change, word", [
    ({"format_version": 99}, "version 99"), ({"format_version": "x"}, "format version"),
    ({"inputs": 3}, "damaged"), ({"weights": [[0, 2**70]]}, "weights"),
    ({"members": {}}, "members"),
    ({"inputs": [{"name": "x", "dtype": "zzz", "shape": []}]}, "zzz"),
    ({"inputs": [{"name": "x", "dtype": "f32", "shape": [-1]}]}, "damaged"),
    ({"target": {"triple": "riscv64-x", "features": [], "description": ""}}, "riscv64"),
])  # fmt: skip
def test_wrong_manifests(saved, change, word):
    refused(rewritten(saved, lambda m: m.update(change)), word)


def test_processor_features(saved):
    refused(rewritten(saved, lambda m: m["target"].update(features=["zzz9"])), "zzz9")


@pytest.mark.parametrize("extra", ["../../evil", "/evil", "objects/9.o"])
def test_members_that_do_not_belong(saved, extra):
    refused(rewritten(saved, lambda m: None, extra), "members")


@pytest.mark.parametrize("path", ["", "a\0", None, 3, ".", "/proc/nothing.tw", "a" * 300])
def test_paths_that_cannot_be(program, path):
    refused(path)
    with pytest.raises(ArtifactError):
        program.save(path)


def test_what_is_no_artifact(tmp_path):
    (tmp_path / "text.tw").write_text("hello")
    zipfile.ZipFile(tmp_path / "empty.tw", "w").close()
    refused(tmp_path / "text.tw", "not a readable artifact")
    refused(tmp_path / "empty.tw", "no manifest")
    refused(tmp_path, "directory")


@contextmanager
def disk_of(size: int):
    """Files cannot grow beyond `size`."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [0, 5000])
def test_full_disk(program, saved, size):
    before = saved.read_bytes()
    with disk_of(size), pytest.raises(ArtifactError, match="cannot write"):
        program.save(saved)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["a.tw"]


def compiles(monkeypatch, cache) -> None:
    monkeypatch.setenv("TW_CACHE", str(cache))
    assert np.allclose(tw.compile(network(48))(X), X, atol=1e-4)


def test_cache_on_a_full_disk(monkeypatch, tmp_path):
    with disk_of(100):
        compiles(monkeypatch, tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_cache_that_is_no_folder(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    compiles(monkeypatch, tmp_path / "file")
    compiles(monkeypatch, "/proc/nothing")


def test_damaged_cache(monkeypatch, tmp_path):
    compiles(monkeypatch, tmp_path)
    entries = [p for p in tmp_path.rglob("*") if p.is_file()]
    for k, p in enumerate(entries):
        p.write_bytes((b"", p.read_bytes()[:-70], b"x" * 200, p.read_bytes()[1:])[k % 4])
    compiles(monkeypatch, tmp_path)
    for p in [p for p in tmp_path.rglob("*") if p.is_file()]:
        p.unlink()
        p.mkdir()
    compiles(monkeypatch, tmp_path)
