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
PEAK = """
import resource, sys
import tensorwright as tw
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
tw.compile(sys.argv[1])
before = peak()
program = tw.compile(sys.argv[2])
print(peak() - before, program.weight_bytes)
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


def test_a_compilation_takes_twice_the_weights(tmp_path):
    from onnx import TensorProto, helper, numpy_helper, save

    random, n, layers = np.random.default_rng(0), 2048, 8
    weights = [random.normal(size=(n, n)).astype(np.float32) / n for _ in range(layers)]
    nodes = [helper.make_node("MatMul", [f"x{k}", f"w{k}"], [f"x{k + 1}"]) for k in range(layers)]
    port = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, n])
    stored = [numpy_helper.from_array(w, f"w{k}") for k, w in enumerate(weights)]
    g = helper.make_graph(nodes, "g", [port("x0")], [port(f"x{layers}")], stored)
    save(helper.make_model(g, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
         tmp_path / "m.onnx")  # fmt: skip
    env = {**os.environ, "TW_CACHE": str(tmp_path / "cache"), "TW_CACHE_PROGRAMS": "1000"}
    for _ in ("cold", "warm"):
        run = [sys.executable, "-c", PEAK, str(DIGITS), str(tmp_path / "m.onnx")]
        done = subprocess.run(run, env=env, check=True, capture_output=True)
        used, kept = map(int, done.stdout.split())
        assert kept >= layers * n * n * 4
        assert used <= 2 * kept + (100 << 20)


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
