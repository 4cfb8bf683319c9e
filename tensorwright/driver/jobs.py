"""LLVM texts to object code while more texts are being written.

    with Jobs(cache, target, threads=2) as jobs:
        key = jobs.add(text)            # starts, unless the cache has it or it was added before
        code = jobs.result(key)

The threads spend their time inside LLVM, where Python's lock is free, so that a second core
compiles what the first one writes. Between calls of LLVM they wait for that lock, some 20 times for
each text, and how long a thread may keep it, 5 ms by default, would decide how busy the second core
is: texts of 28 ms took 77 ms (ResNet-50). Meanwhile it is `PROMPT`.

An exception inside the `with`, an interruption too, drops what has not started; what has started is
finished and thrown away.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from tensorwright.codegen.engine import compile_object
from tensorwright.driver.objects import ObjectCache, object_key
from tensorwright.target.target import Target

PROMPT = 1e-3  # seconds that a thread keeps Python's lock while another one wants it


class Jobs:
    """threads: 0 compiles where it is asked for; None takes the CPUs this process may use."""

    def __init__(self, cache: ObjectCache, target: Target, threads: int | None = None):
        self.cache, self.target = cache, target
        self.threads = usable_threads() if threads is None else threads
        self.pool: ThreadPoolExecutor | None = None
        self.found: dict[str, Future] = {}
        self.open = ExitStack()

    def __enter__(self) -> Jobs:
        return self

    def __exit__(self, kind, error, where) -> None:
        with self.open:
            if self.pool is not None:
                self.pool.shutdown(wait=kind is None, cancel_futures=True)

    def add(self, text: str) -> str:
        """Start on a text; the key of its object."""
        key = object_key(text, self.target)
        if key not in self.found:
            code = self.cache.object(key)
            self.found[key] = finished(code) if code is not None else self.start(key, text)
        return key

    def keep(self, key: str, code: bytes) -> None:
        """Take an object that was found elsewhere."""
        self.found.setdefault(key, finished(code))

    def start(self, key: str, text: str) -> Future:
        if self.threads == 0:
            return finished(self.compile(key, text))
        if self.pool is None:
            self.pool = ThreadPoolExecutor(self.threads, "tensorwright-compile")
            self.open.enter_context(prompt())
        return self.pool.submit(self.compile, key, text)

    def compile(self, key: str, text: str) -> bytes:
        code = compile_object(text, self.target)
        self.cache.write(key, code)
        return code

    def result(self, key: str) -> bytes:
        return self.found[key].result()

    @property
    def done(self) -> int:
        return sum(f.done() for f in self.found.values())


_prompt: list[float] = []  # the usual interval, once for each compilation that wants a short one
_changing = threading.Lock()


@contextmanager
def prompt() -> Iterator[None]:
    """Threads get Python's lock soon after they asked for it."""
    with _changing:
        _prompt.append(_prompt[0] if _prompt else sys.getswitchinterval())
        sys.setswitchinterval(PROMPT)
    try:
        yield
    finally:
        with _changing:
            usual = _prompt.pop()
            if not _prompt:
                sys.setswitchinterval(usual)


def finished(code: bytes) -> Future:
    future: Future = Future()
    future.set_result(code)
    return future


def usable_threads() -> int:
    """Threads worth having beside the one that writes texts: none on one core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 0 if (cores or 1) < 2 else min(cores, 16)
