"""Thread pools of compiled code, shared by all programs of the process.

There is one pool per thread count and layout of the native support code. Workers run in the image
of the program that came first, so that image stays mapped for good. A forked child has none of
its parent's threads: it forgets the pools and makes new ones when it needs them.
"""

import ctypes
import os
import threading
from collections.abc import Callable

from tensorwright.runtime.loader import NativeImage

_pools: dict[tuple[int, int], int] = {}
_lock = threading.Lock()
_after_fork: list[Callable[[], None]] = []


def shared_pool(image: NativeImage, threads: int) -> int:
    """The address of the pool with that many threads; 0 (no pool) for a single one."""
    if threads <= 1:
        return 0
    layout = ctypes.c_int64.from_address(image.symbol("tw_support_layout")).value
    with _lock:
        if (threads, layout) not in _pools:
            create = image.function("tw_pool_create", ctypes.c_void_p, ctypes.c_int32)
            image.pin()
            _pools[threads, layout] = create(threads) or 0
        return _pools[threads, layout]


def call_after_fork(action: Callable[[], None]) -> None:
    """Have an action run in every forked child, after the pools are forgotten."""
    _after_fork.append(action)


def _forget() -> None:
    global _lock
    _lock = threading.Lock()  # the parent may have been holding it
    _pools.clear()
    for action in _after_fork:
        action()


os.register_at_fork(after_in_child=_forget)
