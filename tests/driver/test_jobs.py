import os
import signal
import subprocess
import sys
import time

import pytest

from tensorwright.base.errors import InternalError
from tensorwright.codegen.engine import compile_object
from tensorwright.driver.jobs import PROMPT, Jobs
from tensorwright.driver.objects import ObjectCache
from tensorwright.target.host import find

TEXT = "define i64 @f{0}(i64 %x) {{\n  %y = mul i64 %x, {0}\n  ret i64 %y\n}}\n"
TEXTS = [TEXT.format(k) for k in range(2, 20)]


def test_threads_make_the_same_objects():
    target = find("host")
    wanted = [compile_object(t, target) for t in TEXTS]
    for threads in (0, 1, 4):
        with Jobs(ObjectCache(None), target, threads) as jobs:
            keys = [jobs.add(t) for t in TEXTS]
            assert [jobs.result(k) for k in keys] == wanted


def test_a_text_is_compiled_once(tmp_path):
    cache = ObjectCache(tmp_path)
    for misses in (1, 0):
        cache.misses = 0
        with Jobs(cache, find("host"), 2) as jobs:
            keys = {jobs.add(TEXTS[0]) for _ in range(5)}
            assert len(keys) == 1 and jobs.result(keys.pop())
        assert cache.misses == misses


@pytest.mark.parametrize("threads", [0, 2])
def test_errors_arrive(threads):
    wrong = pytest.raises(InternalError, match="LLVM does not accept")
    with wrong, Jobs(ObjectCache(None), find("host"), threads) as jobs:
        jobs.result(jobs.add("define nonsense"))


def test_an_exception_drops_what_has_not_started():
    with pytest.raises(KeyboardInterrupt), Jobs(ObjectCache(None), find("host"), 1) as jobs:
        keys = [jobs.add(t) for t in TEXTS]
        raise KeyboardInterrupt
    assert jobs.found[keys[-1]].cancelled()


COMPILE = """
import tensorwright as tw
from tests.tools.modules import mlp
print("go", flush=True)
while True:
    tw.compile(mlp())
    import shutil; shutil.rmtree({folder!r} + "/objects")
"""


def test_an_interruption_ends_at_once_and_leaves_no_half_files(tmp_path):
    env = {**os.environ, "TW_CACHE": str(tmp_path)}
    code = COMPILE.format(folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as run:  # fmt: skip
        try:
            assert run.stdout.readline() == b"go\n"
            time.sleep(0.3)
            run.send_signal(signal.SIGINT)
            assert run.wait(20) != 0
        finally:
            run.kill()  # it would go on for ever
    assert not list(tmp_path.glob("objects/*/*.tmp"))


def test_processes_share_a_folder(tmp_path):
    env = {**os.environ, "TW_CACHE": str(tmp_path)}
    code = "import tensorwright as tw\nfrom tests.tools.modules import mlp\ntw.compile(mlp())"
    runs = [subprocess.Popen([sys.executable, "-c", code], env=env) for _ in range(3)]
    assert [r.wait(120) for r in runs] == [0, 0, 0]
    cache = ObjectCache(tmp_path)
    assert all(cache.read(p.stem) is not None for p, _ in cache.entries())


def test_threads_are_served_soon_while_they_work():
    usual = sys.getswitchinterval()
    with Jobs(ObjectCache(None), find("host"), 2) as outer:
        with Jobs(ObjectCache(None), find("host"), 2) as inner:
            for jobs in (outer, inner):
                jobs.add(TEXTS[0])
            assert sys.getswitchinterval() == pytest.approx(PROMPT)
        assert sys.getswitchinterval() == pytest.approx(PROMPT)
    assert sys.getswitchinterval() == usual
