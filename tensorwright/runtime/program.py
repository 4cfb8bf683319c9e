"""A compiled program as a Python callable.

Arrays go in and out without copies; Python checks what is static (number of inputs, types, ranks,
fixed dimensions), the native code checks relations among symbolic dimensions. Any number of
threads may call at once: each call takes a context from a free list or makes a new one.

    y = program(x)      y = program(x, mask=m)      a, b = program(input_ids=ids)
    logits, cache = program.decode(token, cache)        an entry by name, where there are several

An output that is the new value of a state takes the memory of its input: the array that was given
is changed, and returned.
"""

import ctypes
import math
import os
import re
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tensorwright.base import config
from tensorwright.base.errors import ArtifactError, InternalError, RunError
from tensorwright.runtime import archive, cpu, dims, pool
from tensorwright.runtime.buffer import (
    address,
    aligned_bytes,
    dtype_name,
    is_torch,
    native_array,
    numpy_dtype,
    release,
    to_array,
    to_torch,
)
from tensorwright.runtime.loader import load_objects
from tensorwright.runtime.manifest import Manifest, TensorInfo, entry_symbol
from tensorwright.runtime.pages import constants
from tensorwright.runtime.profile import MarkBuffer, Profile, Run, set_marks
from tensorwright.runtime.results import result_empty
from tensorwright.runtime.values import Codec

_POINTER = ctypes.c_void_p
OUT_OF_MEMORY = -1
MOST_THREADS = 4096

_programs: weakref.WeakSet["Program"] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class _Port:
    """An input or output, prepared for fast checks; `start` is where its dimensions lie."""

    info: TensorInfo
    what: str  # how errors call it
    dtype: np.dtype
    rank: int
    start: int
    shape: tuple[int, ...] | None  # if fully static
    fixed: tuple[tuple[int, int], ...]  # (axis, size) of static dimensions
    nbytes: int
    state: int = -1  # of an output: the input whose memory it takes; of an input: 1 if one does
    data: str = ""  # the data type, if it is no tensor


class _Slot:
    """What one call at a time needs: a native context and the argument tables."""

    __slots__ = ("blocks", "context", "in_dims", "in_shapes", "in_table", "inputs",
                 "offered", "out_dims", "out_shapes", "out_table", "outputs")  # fmt: skip

    def __init__(self, context: int, inputs: list[_Port], outputs: list[_Port]) -> None:
        self.context = context
        self.blocks: list[np.ndarray] = []  # values among the inputs of the present call
        self.inputs, self.in_dims = _tables(inputs)
        self.outputs, self.out_dims = _tables(outputs)
        self.in_table = ctypes.addressof(self.inputs)
        self.out_table = ctypes.addressof(self.outputs)
        # shapes that were checked, and those of the results that they led to; None: not known
        self.in_shapes = [port.shape for port in inputs]
        self.out_shapes = [port.shape for port in outputs]
        self.offered = [0] * len(outputs)  # where the memory given for results begins


class Program:
    """The callable users get; see the module's text."""

    def __init__(
        self,
        manifest: Manifest,
        objects: Sequence[bytes],
        weights: Sequence[Any] = (),
        threads: int | None = None,
        mapped: bool = False,
    ) -> None:
        """mapped: leave weights where they are, rather than on large pages (see pages.py)."""
        check_machine(manifest)
        self.manifest = manifest
        self.threads = thread_count(threads or manifest.threads)
        self._objects = tuple(objects)
        self._weights = tuple(map(aligned_bytes, weights)) if mapped else constants(weights)
        table = (ctypes.c_void_p * max(len(self._weights), 1))(*map(address, self._weights))
        self._weight_table = table
        self._image = image = load_objects(self._objects)
        self._create = image.function("tw_context_create", _POINTER, _POINTER, _POINTER)
        self._reset = image.function("tw_context_reset", None, _POINTER)
        self._destroy = image.function("tw_context_destroy", None, _POINTER)
        self._let_go = image.function("tw_object_release", None, _POINTER, _POINTER)
        self._codec = Codec(manifest.data) if manifest.data else None
        self._become(manifest, "")
        self._others = {name: self._entry(name) for name in list(manifest.entries)[1:]}

    def _become(self, manifest: Manifest, entry: str) -> None:
        """Be the program that one entry of the code is."""
        self.manifest, self._part, self._others = manifest, entry, {}
        self._ins, self._outs = _ports(manifest, "input"), _ports(manifest, "output")
        self._arity = len(self._ins)
        self._names = tuple(port.info.name for port in self._ins)
        self._name_set = frozenset(self._names)
        symbol = entry_symbol(entry)
        self._main = self._image.function(symbol, ctypes.c_int32, _POINTER, _POINTER, _POINTER)
        self._slots: deque[_Slot] = deque()
        # the image is an argument: it is unmapped after the contexts of all entries are gone
        closing = weakref.finalize(self, _close, self._slots, self._destroy, self._image)
        closing.atexit = False
        _programs.add(self)

    def _entry(self, name: str) -> "Program":
        """Another entry as a program that shares code and weights with this one."""
        info = self.manifest.entries[name]
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        manifest = replace(
            self.manifest, name=f"{self.name}.{name}", inputs=info.inputs, outputs=info.outputs,
            symbols=info.symbols, state=info.state, entries={},
        )  # fmt: skip
        other._become(manifest, name)
        return other

    @property
    def entries(self) -> dict[str, "Program"]:
        """The entries that have names, each as a program; this program is the first of them."""
        names = list(self.manifest.entries)
        return {**dict.fromkeys(names[:1], self), **self._others}

    def __getattr__(self, name: str) -> "Program":
        entries = self.entries if "manifest" in self.__dict__ else {}
        if name not in entries:
            known = f"; its entries are {', '.join(entries)}" if entries else ""
            raise AttributeError(f"a {type(self).__name__} has no attribute '{name}'{known}")
        return entries[name]

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return self.manifest.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return self.manifest.outputs

    @property
    def weight_bytes(self) -> int:
        """What its constants take, in the layouts that its kernels want."""
        return sum(w.nbytes for w in self._weights)

    def __repr__(self) -> str:
        plural = "thread" if self.threads == 1 else "threads"
        return f"<Program {self._signature()}, {self.threads} {plural}>"

    def __reduce__(self) -> tuple:
        self._whole("pickled")
        objects = tuple(bytes(o) for o in self._objects)
        return Program, (self.manifest, objects, self._weights, self.threads)

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Run the program: inputs in the model's order, or by name."""
        if named or len(args) != self._arity:
            args = self._bind(args, named)
        slot = self._take()
        try:
            alive, as_torch = self._enter(slot, args)
            results = self._offer(slot, alive)
            code = self._main(slot.context, slot.in_table, slot.out_table)
            if code:
                raise self._failure(slot, code, alive)
            return self._leave(slot, results, as_torch)
        finally:
            self._slots.append(slot)

    def save(self, path: str | os.PathLike, sync: bool = True) -> None:
        """Write the program to a `.tw` file, for `tensorwright.load`. sync: wait for the disk, on
        all cores until then."""
        self._whole("saved")
        archive.write(path, self.manifest, self._objects, self._weights, sync)

    def _whole(self, what: str) -> None:
        if self._part:
            raise RunError(f"{self.name} is one entry of a program, which is {what} as a whole")

    def profile(self, *args: Any, repeat: int = 10, **named: Any) -> Profile:
        """Run `repeat` times (and once to warm up) and tell where the time goes."""
        args = self._bind(args, named)
        slot, buffer, runs = self._take(), MarkBuffer(1 << 12), []
        try:
            while len(runs) <= repeat:
                set_marks(slot.context, buffer)
                run = self._timed(slot, args, buffer)
                if buffer.count > buffer.capacity:
                    buffer = MarkBuffer(2 * buffer.count)
                    continue
                runs.append(Run(*run, buffer.take()))
        finally:
            set_marks(slot.context, None)
            self._slots.append(slot)
        return Profile(self.name, self.manifest.kernels, runs[1:], self._sizes(args))

    def _sizes(self, args: tuple) -> dict[str, int]:
        """Values of the symbols that stand alone in the shape of an input."""
        tensors = [(p, to_array(v, p.dtype, p.what)) for v, p in zip(args, self._ins) if not p.data]
        return dims.bind(pair for p, a in tensors for pair in zip(p.info.shape, a.shape))

    def _timed(self, slot: _Slot, args: tuple, buffer: MarkBuffer) -> tuple[int, int]:
        alive, _ = self._enter(slot, args)
        results = self._offer(slot, alive)
        begin = time.monotonic_ns()
        code = self._main(slot.context, slot.in_table, slot.out_table)
        end = time.monotonic_ns()
        if code:
            raise self._failure(slot, code, alive)
        self._leave(slot, results, False)
        return begin, end

    def _take(self) -> _Slot:
        try:
            return self._slots.pop()
        except IndexError:
            shared = pool.shared_pool(self._image, self.threads)
            context = self._create(shared, ctypes.addressof(self._weight_table))
            if not context:
                raise RunError("out of memory") from None
            return _Slot(context, self._ins, self._outs)

    def _enter(self, slot: _Slot, args: tuple) -> tuple[list[np.ndarray], bool]:
        """Check the inputs and put them into the slot's table."""
        alive, as_torch, table = [], False, slot.inputs
        slot.blocks = blocks = []
        for i, port in enumerate(self._ins):
            value = args[i]
            if port.data:
                block, start = self._codec.encode(value, port.data, port.what)
                word = np.array(start)
                table[2 * i] = address(word)
                alive.append(word)
                blocks.append(block)
                continue
            if type(value) is np.ndarray and value.flags.carray:
                array = value  # what `to_array` would find
            else:
                as_torch = as_torch or is_torch(value)
                array = to_array(value, port.dtype, port.what)
            dtype, shape = array.dtype, array.shape
            if dtype is not port.dtype and dtype != port.dtype:
                raise self._wrong_type(port, value, array)
            if shape != slot.in_shapes[i]:
                self._resize(slot, i, shape)
            if port.state >= 0 and not (array.flags.writeable and _shares(array, value)):
                raise self._not_writable(port)
            table[2 * i] = address(array)
            alive.append(array)
        return alive, as_torch

    def _resize(self, slot: _Slot, i: int, shape: tuple[int, ...]) -> None:
        """Check the shape of an input that is not that of the call before."""
        port = self._ins[i]
        if len(shape) != port.rank or any(shape[a] != n for a, n in port.fixed):
            raise self._wrong_shape(port, shape)
        slot.in_dims[port.start : port.start + port.rank] = shape
        slot.in_shapes[i] = shape
        slot.out_shapes = [p.shape for p in self._outs]

    def _offer(self, slot: _Slot, given: list[np.ndarray]) -> list[np.ndarray | None]:
        """Give the native code memory for the outputs whose size is known, or is that of the call
        before if shapes alone tell it. Those that are the new value of a state are there
        already."""
        results: list[np.ndarray | None] = []
        for i, port in enumerate(self._outs):
            shape, start, array = slot.out_shapes[i], 0, None
            if port.state >= 0:
                results.append(given[port.state])
                continue
            if shape is not None:
                nbytes = port.nbytes or math.prod(shape) * port.dtype.itemsize
                array, start = result_empty(shape, port.dtype, nbytes)
            slot.outputs[2 * i] = slot.offered[i] = start
            results.append(array)
        return results

    def _leave(self, slot: _Slot, results: list[np.ndarray | None], as_torch: bool) -> Any:
        for i, port in enumerate(self._outs):
            if port.data:
                results[i] = self._value(slot, int(results[i]), port)
            elif results[i] is None or slot.outputs[2 * i] != slot.offered[i]:
                results[i] = self._adopt(slot, i, port)
        if as_torch:
            results = [to_torch(r) if isinstance(r, np.ndarray) else r for r in results]
        return results[0] if len(results) == 1 else tuple(results)

    def _value(self, slot: _Slot, start: int, port: _Port) -> Any:
        """A value that native code made, which is let go of there."""
        try:
            return self._codec.decode(start, port.data)
        finally:
            self._let_go(slot.context, start)

    def _adopt(self, slot: _Slot, i: int, port: _Port) -> np.ndarray:
        """Take over an output that native code allocated."""
        shape = tuple(slot.out_dims[port.start : port.start + port.rank])
        slot.out_shapes[i] = shape
        start, slot.outputs[2 * i] = slot.outputs[2 * i], 0
        if start:
            return native_array(start, shape, port.dtype)
        if 0 in shape:
            return np.empty(shape, port.dtype)
        raise InternalError(f"compiled code left output '{port.info.name}' without data")

    def _bind(self, args: tuple, named: dict[str, Any]) -> tuple:
        """Sort positional and named inputs into the model's order."""
        names = self._names
        if not args and named.keys() == self._name_set:
            return tuple([named[name] for name in names])
        if len(args) > len(names):
            raise self._misuse(f"{len(args)} inputs given, {len(names)} expected")
        values = dict(zip(names, args))
        for name, value in named.items():
            if name not in names:
                raise self._misuse(f"there is no input '{name}'")
            if name in values:
                raise self._misuse(f"input '{name}' is given twice")
            values[name] = value
        absent = [name for name in names if name not in values]
        if absent:
            raise self._misuse(f"missing input{'s'[: len(absent) - 1]}: {', '.join(absent)}")
        return tuple(values[name] for name in names)

    def _signature(self) -> str:
        ins, outs = (", ".join(i.brief for i in infos) for infos in (self.inputs, self.outputs))
        return f"{self.name}({ins}) -> ({outs})"

    def _misuse(self, message: str) -> RunError:
        return RunError(
            f"{self.name}: {message}", notes=tuple(f"input {info}" for info in self.inputs)
        )

    def _not_writable(self, port: _Port) -> RunError:
        return RunError(
            f"{port.what} is a state, changed in place: it must be a writable, contiguous array",
            help="give one made by np.zeros or np.ascontiguousarray, and keep what is returned",
        )

    def _wrong_type(self, port: _Port, value: Any, array: np.ndarray) -> RunError:
        wanted = port.dtype.name
        library = "np" if hasattr(np, wanted) or wanted == "bool" else "ml_dtypes"
        fix = f"x.to(torch.{wanted})" if is_torch(value) else f"x.astype({library}.{wanted})"
        return RunError(
            f"{port.what} is {dtype_name(array.dtype)}, expected {port.info.type}",
            help=f"convert it: {fix}",
        )

    def _wrong_shape(self, port: _Port, shape: tuple[int, ...]) -> RunError:
        given = f"[{', '.join(map(str, shape))}]"
        if len(shape) != port.rank:
            what = f"has {len(shape)} dimensions {given}, expected {port.rank}"
            return RunError(f"{port.what} {what}: {port.info.type}")
        axis, size = next((a, n) for a, n in port.fixed if shape[a] != n)
        return RunError(
            f"{port.what}: dimension {axis} is {shape[axis]}, expected {size}",
            notes=(f"given {given}, expected {port.info.type}",),
        )

    def _failure(self, slot: _Slot, code: int, arrays: list[np.ndarray]) -> RunError:
        """The error native code reported; the slot is made fit for the next call."""
        values = tuple((ctypes.c_int64 * 6).from_address(slot.context + 8))
        self._reset(slot.context)
        for i, port in enumerate(self._outs):
            if port.state < 0 and slot.outputs[2 * i] not in (0, slot.offered[i]):
                release(slot.outputs[2 * i])
        if code == OUT_OF_MEMORY:
            return RunError(f"{self.name}: out of memory (for {values[0]} bytes)")
        if not 0 < code <= len(self.manifest.errors):
            return InternalError(f"{self.name}: unknown error code {code} from compiled code")
        given = ", ".join(
            f"{p.info.name}: {p.data or dtype_name(a.dtype)}"
            + (f"[{', '.join(map(str, a.shape))}]" if not p.data else "")
            for p, a in zip(self._ins, arrays)
        )
        symbols = tuple(f"{name}: {info}" for name, info in self.manifest.symbols.items())
        template = self.manifest.errors[code - 1]
        # Only {0} to {5} are ours; names in the text may hold braces of their own.
        message = re.sub(r"\{([0-5])\}", lambda m: str(values[int(m[1])]), template)
        return RunError(
            message, notes=(f"called with {given}", *symbols), location=self._signature()
        )


def thread_count(wanted: int) -> int:
    """How many threads to run with; 0 stands for TW_THREADS, else all that this process may use."""
    wanted = wanted or config.get("threads")
    if not isinstance(wanted, int) or not 0 <= wanted <= MOST_THREADS:
        raise RunError(f"threads is {wanted!r}, not a number up to {MOST_THREADS}")
    return wanted or cpu.default_threads()


def check_machine(manifest: Manifest) -> None:
    """Refuse a program for another processor, naming what is missing."""
    target = manifest.target
    wanted = target.triple.split("-")[0]
    if wanted != cpu.machine():
        raise ArtifactError(
            f"{manifest.name} is compiled for {target.triple}, this machine is {cpu.machine()}",
            help="compile the model for this machine, or run it on the one it is for",
        )
    lacking = cpu.missing(target.features)
    if lacking:
        raise ArtifactError(
            f"{manifest.name} needs processor features this machine lacks: {', '.join(lacking)}",
            notes=(f"compiled for {target.description or target.triple}",),
            help="compile the model on this machine, or for an older processor",
        )
    if any(name.startswith("amx") for name in target.features) and not cpu.enable_tiles():
        raise ArtifactError(f"{manifest.name} needs AMX, which the system does not permit")


def _ports(manifest: Manifest, kind: str) -> list[_Port]:
    ports, start = [], 0
    state = {p: 1 for p, _ in manifest.state} if kind == "input" else {
        r: p for p, r in manifest.state}  # fmt: skip
    for info in manifest.inputs if kind == "input" else manifest.outputs:
        what = f"{manifest.name}: {kind} '{info.name}'"
        data = info.dtype if info.dtype in manifest.data else ""
        dtype, rank = numpy_dtype("i64" if data else info.dtype), len(info.shape)
        fixed = tuple((a, n) for a, n in enumerate(info.shape) if isinstance(n, int))
        shape = tuple(info.shape) if info.is_static else None
        nbytes = math.prod(shape) * dtype.itemsize if shape is not None else 0
        at = state.get(len(ports), -1)
        ports.append(_Port(info, what, dtype, rank, start, shape, fixed, nbytes, at, data))
        start += rank
    return ports


def _tables(ports: list[_Port]) -> tuple[ctypes.Array, ctypes.Array]:
    """The tw_tensor array (data, shape pointers) and the dimensions the latter point to."""
    dims = (ctypes.c_int64 * max(sum(p.rank for p in ports), 1))()
    table = (ctypes.c_uint64 * max(2 * len(ports), 1))()
    for i, port in enumerate(ports):
        table[2 * i + 1] = ctypes.addressof(dims) + 8 * port.start
        for axis, size in port.fixed:
            dims[port.start + axis] = size
    return table, dims


def _shares(array: np.ndarray, value: Any) -> bool:
    """Whether an array made of `value` is not a copy of it."""
    return array is value or (hasattr(value, "__dlpack__") and array.base is not None)


def _close(slots: deque[_Slot], destroy: Callable, image: Any) -> None:
    while slots:
        destroy(slots.pop().context)


def _forget_contexts() -> None:
    for program in list(_programs):
        while program._slots:
            program._destroy(program._slots.pop().context)


pool.call_after_fork(_forget_contexts)
