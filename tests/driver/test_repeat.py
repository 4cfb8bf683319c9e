"""Compiling again and again: the same bytes, and no memory kept."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tensorwright.base import config
from tensorwright.driver.compile import compile
from tensorwright.ir import expr
from tests.tools.modules import DIGITS, mlp

SAVE = """
import sys
import tensorwright as tw
from tests.tools.modules import mlp
tw.compile(mlp()).save(sys.argv[1] + ".mlp.tw")
tw.compile(sys.argv[2]).save(sys.argv[1] + ".digits.tw")
"""
PAGES = Path("/proc/self/statm")


def resident() -> int:
    return int(PAGES.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_two_processes_make_the_same_files(tmp_path):
    for seed in ("1", "77"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "TW_CACHE": "off"}
        path = str(tmp_path / seed)
        subprocess.run([sys.executable, "-c", SAVE, path, str(DIGITS)], env=env, check=True)
    for name in ("mlp.tw", "digits.tw"):
        a, b = ((tmp_path / f"{seed}.{name}").read_bytes() for seed in ("1", "77"))
        assert a == b


def test_known_kernels_make_the_same_file(tmp_path):
    with config.options(cache=str(tmp_path / "cache")):
        for name in ("cold", "warm"):
            compile(mlp()).save(tmp_path / name)
    assert (tmp_path / "cold").read_bytes() == (tmp_path / "warm").read_bytes()


def compile_and_run():
    compile(mlp())(np.ones((3, 64), np.float32))


def test_compilations_leave_nothing_behind():
    with config.options(cache="off"):
        compile_and_run()
        gc.collect()
        kept = len(expr._INTERNED), len(gc.get_objects())
        for _ in range(3):
            compile_and_run()
        gc.collect()
    assert len(expr._INTERNED) == kept[0]
    assert len(gc.get_objects()) <= kept[1] + 200


def test_memory_does_not_grow(tmp_path):
    with config.options(cache=str(tmp_path)):
        for _ in range(15):
            compile_and_run()
        gc.collect()
        before = resident()
        for _ in range(40):
            compile_and_run()
        gc.collect()
    assert resident() - before < 4 << 20  # 0.1 MiB a compilation; allocators are not exact
