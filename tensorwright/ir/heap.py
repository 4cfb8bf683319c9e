"""The heap of objects as plain Python has it, in the layout of compiled programs.

An object is an array of bytes that starts with `i64 count, i16 tag, i16 references, i32 size / 64`
and its references. What compiled code would not notice is an error here: to look at an object after
it was freed, or to free one twice. Objects from outside (arguments) are memory by their address.
"""

from __future__ import annotations

import ctypes
import math

import numpy as np

from tensorwright.base.errors import InternalError

HEADER = 16  # bytes
LINE = 64


class Heap:
    def __init__(self) -> None:
        self.objects: dict[int, np.ndarray] = {}
        self.freed: list[np.ndarray] = []  # kept, so that no address comes back

    def new(self, target: np.ndarray, size: int, tag: int, refs: int) -> None:
        memory = np.full(max(size, LINE) + LINE, 0xCD, np.uint8)
        skip = -memory.ctypes.data % LINE
        memory = memory[skip : skip + max(size, LINE)]
        memory[:8].view(np.int64)[0] = 1
        memory[8:12].view(np.int16)[:] = tag, refs
        memory[12:16].view(np.int32)[0] = len(memory) // LINE
        address = memory.ctypes.data
        self.objects[address] = memory
        target[()] = address

    def view(self, reference: np.ndarray, start: int, shape: tuple, d: np.dtype) -> np.ndarray:
        size = math.prod(shape) * d.itemsize
        address = int(reference[()])
        memory = self.objects.get(address)
        if memory is None:
            if address == 0 or any(address == m.ctypes.data for m in self.freed):
                raise InternalError(f"an object is used that was freed ({address:#x})")
            raw = (ctypes.c_uint8 * max(start + size, 1)).from_address(address)
            memory = np.frombuffer(raw, np.uint8)
        if start + size > len(memory):
            raise InternalError(f"{start + size} bytes of an object of {len(memory)} are used")
        return memory[start : start + size].view(d).reshape(shape)

    def count(self, reference: np.ndarray, by: int) -> None:
        todo = [int(reference[()])]
        if by > 0:
            self._counter(todo[0])[()] += 1
            return
        while todo:
            address = todo.pop()
            if address == 0:
                continue
            counter = self._counter(address)
            counter[()] -= 1
            if counter[()] == 0:
                memory = self.objects.pop(address)
                self.freed.append(memory)
                refs = int(memory[10:12].view(np.int16)[0])
                todo += memory[HEADER : HEADER + 8 * refs].view(np.int64).tolist()

    def _counter(self, address: int) -> np.ndarray:
        return self.view(np.array(address), 0, (), np.dtype(np.int64))


HEAP = Heap()
