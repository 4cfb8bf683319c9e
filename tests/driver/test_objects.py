import os

import pytest

from tensorwright.base import config
from tensorwright.driver.compile import compile
from tensorwright.driver.objects import ObjectCache, cache_folder
from tests.tools.modules import mlp


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TW_CACHE", str(tmp_path))
    return tmp_path


def files(folder):
    return sorted(folder.glob("objects/*/*.o"))


def test_a_second_compilation_adds_nothing(folder):
    compile(mlp())
    first = files(folder)
    compile(mlp())
    assert first and files(folder) == first


def test_off(monkeypatch):
    monkeypatch.setenv("TW_CACHE", "off")
    assert cache_folder() is None
    compile(mlp())


def test_the_default_is_the_users_folder(monkeypatch):
    monkeypatch.delenv("TW_CACHE", raising=False)
    assert cache_folder().name == "tensorwright"


def test_damaged_entries_are_compiled_again(folder):
    x = compile(mlp())
    for path in files(folder):
        path.write_bytes(path.read_bytes()[:-80] + b"?" * 80)
    again = compile(mlp())
    assert again._objects == x._objects


def test_the_least_recently_used_goes_first(tmp_path):
    cache = ObjectCache(tmp_path, limit=300)
    for k, age in enumerate((30, 10, 20)):
        cache.write(f"{k}" * 64, bytes(40))
        os.utime(cache.path(f"{k}" * 64), (age, age))
    assert cache.trim() == 1
    assert sorted(p.stem[0] for p, _ in cache.entries()) == ["0", "2"]
    assert cache.trim(0) == 2


def test_a_folder_that_cannot_be_made_costs_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with config.options(cache=str(tmp_path / "file" / "cache")):
        compile(mlp())


def test_a_full_cache_loses_its_older_half(tmp_path):
    cache = ObjectCache(tmp_path, limit=256 * 2000)
    for k in range(256):
        for age in (10, 20, 30):
            key = f"{k:02x}{age:02d}".ljust(64, "0")
            cache.write(key, bytes(1000))
            os.utime(cache.path(key), (age, age))
    cache.settle()
    left = [int(p.stem[2:4]) for p, _ in cache.entries()]
    assert 200 < len(left) <= 256 and set(left) == {30}
    cache.write("ab" * 32, bytes(10))
    cache.settle()
    assert len(list(cache.entries())) == len(left) + 1
