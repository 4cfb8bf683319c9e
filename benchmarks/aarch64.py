"""Run compiled programs for 64-bit Arm in an emulator, without Python on that side.

    results = run(Module({"main": g}), arrays)

The objects are linked with Debian's cross binutils and libc to a program whose `_start`, written
here in LLVM IR, reads one block of bytes (weights, inputs, dimensions, room for the outputs) from
its standard input, calls `tw_main` and writes the outputs to its standard output.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tensorwright.base.config import options
from tensorwright.codegen.engine import compile_object
from tensorwright.driver.compile import build_native
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir.module import Module
from tensorwright.runtime.buffer import numpy_dtype
from tensorwright.runtime.manifest import Manifest
from tensorwright.target.host import find
from tensorwright.target.target import Target

LD = shutil.which("aarch64-linux-gnu-ld")
QEMU = shutil.which("qemu-aarch64")
LIBC = Path("/usr/aarch64-linux-gnu/lib/libc.so.6")
IS_MISSING = not (LD and QEMU and LIBC.exists())
NEEDED = "needs the Debian packages binutils-aarch64-linux-gnu, libc6-arm64-cross and qemu-user"

START = """\
declare ptr @aligned_alloc(i64, i64)
declare i64 @read(i32, ptr, i64)
declare i64 @write(i32, ptr, i64)
declare void @exit(i32)
declare ptr @tw_pool_create(i32)
declare ptr @tw_context_create(ptr, ptr)
declare i32 @tw_main(ptr, ptr, ptr)
define void @_start() {{
  %base = call ptr @aligned_alloc(i64 64, i64 {size})
  br label %read
read:
  %got = phi i64 [ 0, %0 ], [ %sum, %more ]
  %left = sub i64 {size}, %got
  %done = icmp eq i64 %left, 0
  br i1 %done, label %run, label %more
more:
  %to = getelementptr i8, ptr %base, i64 %got
  %n = call i64 @read(i32 0, ptr %to, i64 %left)
  %sum = add i64 %got, %n
  %bad = icmp sle i64 %n, 0
  br i1 %bad, label %short, label %read
short:
  call void @exit(i32 99)
  unreachable
run:
  {tables}
  %pool = call ptr @tw_pool_create(i32 {threads})
  %ctx = call ptr @tw_context_create(ptr %pool, ptr %weights)
  %code = call i32 @tw_main(ptr %ctx, ptr %inputs, ptr %outputs)
  %failed = icmp ne i32 %code, 0
  br i1 %failed, label %fail, label %write
fail:
  call void @exit(i32 98)
  unreachable
write:
  %put = phi i64 [ 0, %run ], [ %put2, %write ]
  %at = add i64 %put, {first}
  %from = getelementptr i8, ptr %base, i64 %at
  %rest = sub i64 {length}, %put
  %w = call i64 @write(i32 1, ptr %from, i64 %rest)
  %put2 = add i64 %put, %w
  %all = icmp sge i64 %put2, {length}
  br i1 %all, label %end, label %write
end:
  call void @exit(i32 0)
  unreachable
}}
"""


@dataclass
class Objects:
    """What building leaves in place of a Program."""

    manifest: Manifest
    objects: list[bytes]
    weights: list[np.ndarray]


@dataclass
class Block:
    """The bytes that go in, each piece on a line of its own."""

    data: bytearray = field(default_factory=bytearray)

    def add(self, piece: bytes) -> int:
        self.data += bytes(-len(self.data) % 64)
        at = len(self.data)
        self.data += piece or b"\0"
        return at


def build(m: Module, target: str | Target = "aarch64", threads: int = 1) -> Objects:
    """The objects of a module for a target that this machine may not be."""
    machine = find(target)
    with options(cache="off"):
        return build_native(run_pipeline(m, machine), machine, m.entry, threads, make=Objects)


def run(
    m: Module, arrays, folder: Path, threads: int = 1, target: str | Target = "aarch64",
    flags: Sequence = (),
) -> list[np.ndarray]:  # fmt: skip
    """The results of a module of static shapes on an emulated machine; the program stays in the
    folder. flags: of the emulator."""
    built = build(m, target, threads)
    block = Block()
    weights = [(block.add(np.ascontiguousarray(w).tobytes()), 0) for w in built.weights]
    dims = lambda shape: block.add(np.asarray(shape, np.int64).tobytes())
    inputs = [(block.add(np.ascontiguousarray(a).tobytes()), dims(a.shape)) for a in arrays]
    outs = [(numpy_dtype(o.dtype), tuple(o.shape)) for o in built.manifest.outputs]
    shapes = [dims(shape) for _, shape in outs]
    first = block.add(b"")
    places = [block.add(bytes(int(np.prod(s)) * d.itemsize)) for d, s in outs]
    start = START.format(
        size=len(block.data), first=first, length=len(block.data) - first, threads=threads,
        tables="\n  ".join([*_table("weights", [w for w, _ in weights]),
                            *_table("inputs", [p for pair in inputs for p in pair]),
                            *_table("outputs", [p for pair in zip(places, shapes) for p in pair])]),
    )  # fmt: skip
    program = link([*built.objects, compile_object(start, find("aarch64"))], folder)
    found = subprocess.run(
        [QEMU, *flags, program], input=bytes(block.data), capture_output=True, timeout=300
    )
    assert found.returncode == 0, f"exit code {found.returncode} {found.stderr[-300:]!r}"
    return [np.frombuffer(found.stdout, d, int(np.prod(s)), at - first).reshape(s)
            for at, (d, s) in zip(places, outs)]  # fmt: skip


def _table(name: str, offsets: list[int]):
    """An array of pointers into the block, on the stack."""
    yield f"%{name} = alloca [{max(len(offsets), 1)} x ptr], align 8"
    for k, at in enumerate(offsets):
        yield f"%{name}.p{k} = getelementptr i8, ptr %base, i64 {at}"
        yield f"%{name}.s{k} = getelementptr ptr, ptr %{name}, i64 {k}"
        yield f"store ptr %{name}.p{k}, ptr %{name}.s{k}"


def link(objects: list[bytes], folder: Path) -> Path:
    """An executable of the objects and the C library."""
    files = []
    for k, data in enumerate(objects):
        files.append(folder / f"part{k}.o")
        files[-1].write_bytes(data)
    out = folder / "program"
    loader = LIBC.parent / "ld-linux-aarch64.so.1"
    subprocess.run([LD, "-o", out, *files, LIBC, f"--dynamic-linker={loader}",
                    f"-rpath={LIBC.parent}"], check=True, capture_output=True)  # fmt: skip
    return out
