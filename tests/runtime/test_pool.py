import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tensorwright.runtime import pool
from tests.runtime.native import INCREMENT, program

REPOSITORY = Path(__file__).parents[2]
X = np.arange(1000, dtype=np.float32)


def increment(threads: int = 2):
    return program(INCREMENT, "x: f32[n]", "y: f32[n]", threads=threads)


def right(p) -> bool:
    return bool((p(X) == X + 1).all())


def test_programs_share_a_pool_per_thread_count():
    a, b, c = increment(2), increment(2), increment(3)
    assert right(a) and right(b) and right(c)
    two = pool.shared_pool(a._image, 2)
    assert two == pool.shared_pool(b._image, 2) != pool.shared_pool(c._image, 3)
    assert pool.shared_pool(a._image, 1) == 0


def test_the_first_programs_code_stays_for_the_workers():
    first = increment(5)
    assert right(first)
    second = increment(5)
    del first
    assert right(second)


def in_child(action) -> bool:
    """Whether `action()` is true in a forked child."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if action() else 1)
        finally:
            os._exit(2)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_forked_child_makes_its_own_pool(threads):
    p = increment(threads)
    assert right(p)
    for _ in range(10):
        assert in_child(lambda: right(p) and right(increment(threads)))
        assert right(p)


def sleeps(thread: int) -> bool:
    return Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def leaves_its_caller() -> bool:
    tasks = lambda: set(map(int, os.listdir("/proc/self/task")))
    before = tasks()
    allowed = os.sched_getaffinity(0)  # the worker's own set is smaller once it has met its caller
    p = increment(2)
    right(p)
    (worker,) = tasks() - before
    end = time.monotonic() + 60  # other processes may hold both CPUs for long
    while not sleeps(worker) and time.monotonic() < end:
        time.sleep(1e-3)  # it asks for the CPUs it is allowed before it first sleeps
    for cpu in sorted(allowed)[:2]:
        os.sched_setaffinity(0, {cpu})
        os.sched_setaffinity(worker, {cpu})
        while os.sched_getaffinity(worker) != allowed - {cpu}:
            if time.monotonic() > end:
                return False
            right(p)
            time.sleep(1e-3)  # the worker sleeps, too
    return right(p)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_a_worker_leaves_the_cpu_of_its_caller():
    assert in_child(leaves_its_caller)


def test_grandchildren():
    p = increment()
    assert right(p)
    assert in_child(lambda: right(p) and in_child(lambda: right(p)))


def test_forking_while_other_threads_call():
    p = increment(3)
    stop = threading.Event()
    results = []

    def caller() -> None:
        while not stop.is_set():
            results.append(right(p))

    threads = [threading.Thread(target=caller) for _ in range(3)]
    for t in threads:
        t.start()
    try:
        assert all(in_child(lambda: right(p)) for _ in range(20))
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert all(results)


def child_main(p, queue) -> None:
    queue.put(right(p))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(method):
    p = increment()
    assert right(p)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=child_main, args=(p, queue))
    child.start()
    assert queue.get(timeout=60)
    child.join()


def test_a_process_with_workers_ends_quietly():
    text = (
        "from tests.runtime.test_pool import increment, right\n"
        "p = increment(4); assert right(p); q = increment(2); assert right(q); del q; print('done')"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, cwd=REPOSITORY, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_signals_stay_with_the_host_process():
    text = (
        "import signal, time\n"
        "from tests.runtime.test_pool import increment, right\n"
        "p = increment(4); assert right(p); time.sleep(0.01)\n"
        "signal.signal(signal.SIGALRM, lambda *a: (_ for _ in ()).throw(KeyError()))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.1)\n"
        "t = time.monotonic()\n"
        "try: time.sleep(20)\n"
        "except KeyError: print(time.monotonic() - t < 5)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, cwd=REPOSITORY, timeout=60
    )
    assert done.stdout == "True\n"
