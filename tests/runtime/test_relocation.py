"""AArch64 code is checked on any machine: against the encodings of the architecture, and where the
tools are installed, against the GNU linker and by running it in an emulator."""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tensorwright.base.errors import InternalError
from tensorwright.runtime import elf
from tensorwright.runtime.loader import fill_image, plan_image
from tensorwright.runtime.relocation import RULES, Patches, apply
from tests.runtime.native import AARCH64, assemble, support

LD = shutil.which("aarch64-linux-gnu-ld")
QEMU = shutil.which("qemu-aarch64")
LIBC = Path("/usr/aarch64-linux-gnu/lib/libc.so.6")
BASE = 0x400000


def patch(machine: int, number: int, word: int, s: int, a: int, p: int, g: int = 0) -> int:
    """The 64-bit word at P, which held `word`, after one relocation."""
    memory = np.frombuffer(bytearray(struct.pack("<Q", word)), np.uint8)
    columns = (np.array([x], np.int64) for x in (0, s, a, p, g))
    apply(RULES[machine][number], Patches(memory, *columns), lambda i: "symbol")
    return struct.unpack("<Q", memory)[0]


# (type, instruction, S, A, P, G) -> the word an assembler would have written for the same target
ARM_CASES = {
    "abs64": ((257, 0, 0x123456789A, 6, 0, 0), 0x12345678A0),
    "abs32": ((258, 0, 0xFFFFFFFF, 0, 0, 0), 0xFFFFFFFF),
    "prel32 back": ((261, 0, 0x1000, 0, 0x1010, 0), 0xFFFFFFF0),
    "prel64": ((260, 0, 0x1000, 0, 0x1010, 0), 0xFFFFFFFFFFFFFFF0),
    "ldr literal +8": ((273, 0x58000000, 0x1008, 0, 0x1000, 0), 0x58000040),
    "adr +1": ((274, 0x10000000, 0x1001, 0, 0x1000, 0), 0x30000000),
    "adr -4": ((274, 0x10000000, 0xFFC, 0, 0x1000, 0), 0x10FFFFE0),
    "adrp +1 page": ((275, 0x90000000, 0x2FFF, 0, 0x1FFF, 0), 0xB0000000),
    "adrp -1 page": ((275, 0x90000000, 0xFFF, 0, 0x1000, 0), 0xF0FFFFE0),
    "add #0x234": ((277, 0x91000000, 0x1234, 0, 0, 0), 0x9108D000),
    "ldrb #0x234": ((278, 0x39400000, 0x1234, 0, 0, 0), 0x3948D000),
    "ldrh #0x234": ((284, 0x79400000, 0x1234, 0, 0, 0), 0x79446800),
    "ldr w #0x234": ((285, 0xB9400000, 0x1234, 0, 0, 0), 0xB9423400),
    "ldr x #0x238": ((286, 0xF9400000, 0x1238, 0, 0, 0), 0xF9411C00),
    "ldr q #0x230": ((299, 0x3DC00000, 0x1230, 0, 0, 0), 0x3DC08C00),
    "tbz +8": ((279, 0x36000000, 0x1008, 0, 0x1000, 0), 0x36000040),
    "cbz -4": ((280, 0xB4000000, 0xFFC, 0, 0x1000, 0), 0xB4FFFFE0),
    "b +16": ((282, 0x14000000, 0x1010, 0, 0x1000, 0), 0x14000004),
    "bl -4": ((283, 0x94000000, 0xFFC, 0, 0x1000, 0), 0x97FFFFFF),
    "got page": ((311, 0x90000000, 0, 0, 0x1000, 0x3008), 0xD0000000),
    "got low": ((312, 0xF9400000, 0, 0, 0x1000, 0x3008), 0xF9400400),
}

X86_CASES = {
    "64": ((1, 0, 0x123456789A, -2, 0, 0), 0x1234567898),
    "pc32": ((2, 0, 0x2000, -4, 0x1000, 0), 0xFFC),
    "plt32 back": ((4, 0, 0x1000, -4, 0x2000, 0), 0xFFFFEFFC),
    "32": ((10, 0, 0xFFFFFFFF, 0, 0, 0), 0xFFFFFFFF),
    "32s": ((11, 0, -1, 0, 0, 0), 0xFFFFFFFF),
    "pc64": ((24, 0, 0x1000, 0, 0x2000, 0), 0xFFFFFFFFFFFFF000),
    "gotpcrel": ((9, 0, 0, -4, 0x1000, 0x3000), 0x1FFC),
    "rex_gotpcrelx": ((42, 0, 0, -4, 0x1000, 0x3000), 0x1FFC),
}


@pytest.mark.parametrize("name", ARM_CASES)
def test_aarch64_encodings(name):
    case, expected = ARM_CASES[name]
    assert f"{patch(elf.AARCH64, *case):x}" == f"{expected:x}"


@pytest.mark.parametrize("name", X86_CASES)
def test_x86_encodings(name):
    case, expected = X86_CASES[name]
    assert f"{patch(elf.X86_64, *case):x}" == f"{expected:x}"


@pytest.mark.parametrize(
    ("machine", "number", "s", "p"),
    [
        (elf.AARCH64, 283, 1 << 27, 0),  # a call over 128 MiB
        (elf.AARCH64, 283, 2, 0),  # to half an instruction
        (elf.AARCH64, 280, 1 << 20, 0),
        (elf.AARCH64, 275, 1 << 32, 0),
        (elf.AARCH64, 286, 0x1234, 0),  # an unaligned load
        (elf.X86_64, 2, 1 << 31, 0),
        (elf.X86_64, 4, 0, (1 << 31) + 1),
        (elf.X86_64, 10, 1 << 32, 0),
        (elf.X86_64, 11, 1 << 31, 0),
    ],
)
def test_what_does_not_fit_is_an_error(machine, number, s, p):
    name = RULES[machine][number].name
    with pytest.raises(InternalError, match=f"{name} against 'symbol' overflows"):
        patch(machine, number, 0, s, 0, p)


PART_A = """
@numbers = internal constant [5 x i64] [i64 3, i64 1, i64 4, i64 1, i64 5]
@bytes = internal constant [7 x i8] c"abcdefg"
@vector = internal constant <4 x i32> <i32 1, i32 2, i32 3, i32 4>
@state = hidden global i32 7, align 4
@pointers = internal constant [2 x ptr] [ptr @state, ptr @numbers]
declare hidden i64 @mix(i64, i64)
declare i64 @outside(i64)
@far = external global i64
define hidden i64 @compute(i64 %x) {
  %i = urem i64 %x, 5
  %np = getelementptr [5 x i64], ptr @numbers, i64 0, i64 %i
  %n = load i64, ptr %np
  %bp = getelementptr [7 x i8], ptr @bytes, i64 0, i64 %n
  %b = load i8, ptr %bp
  %bw = zext i8 %b to i64
  %s = load i32, ptr @state
  %s1 = add i32 %s, 1
  store i32 %s1, ptr @state
  %sw = zext i32 %s to i64
  %v = load volatile <4 x i32>, ptr @vector
  %e = extractelement <4 x i32> %v, i64 2
  %ew = zext i32 %e to i64
  %pp = getelementptr [2 x ptr], ptr @pointers, i64 0, i64 0
  %p = load volatile ptr, ptr %pp
  %ps = load i32, ptr %p
  %pw = zext i32 %ps to i64
  %m0 = call i64 @mix(i64 %bw, i64 %sw)
  %m1 = call i64 @mix(i64 %m0, i64 %ew)
  %m2 = call i64 @mix(i64 %m1, i64 %pw)
  ret i64 %m2
}
"""
PART_B = (
    "define hidden i64 @mix(i64 %a, i64 %b) { %c = mul i64 %a, 31 %d = xor i64 %c, %b ret i64 %d }"
)

OUTSIDE = """
define hidden i64 @through_tables(i64 %x) {
  %a = call i64 @outside(i64 %x)
  %b = load i64, ptr @far
  %c = add i64 %a, %b
  ret i64 %c
}
"""


def link(objects: list[bytes], external=lambda name: None):
    plan = plan_image([elf.parse(o) for o in objects])
    memory = np.zeros(plan.size, np.uint8)
    return plan, memory, fill_image(plan, memory, BASE, external)


@pytest.mark.skipif(not LD, reason="no AArch64 linker installed")
def test_aarch64_image_equals_the_linkers(tmp_path):
    objects = [assemble(PART_A, AARCH64), assemble(PART_B, AARCH64)]
    files = [tmp_path / f"{i}.o" for i in range(len(objects))]
    for file, data in zip(files, objects):
        file.write_bytes(data)
    plan, memory, _ = link(objects)
    # Every section of every object stays apart, at the address our plan chose for it.
    lines, expected = [], {}
    names = section_names(files)
    for number, obj in enumerate(plan.objects):
        for section in obj.sections:
            if section.size:
                at = plan.places[number][section.index]
                label = f".part{number}.{section.index}"
                source = f"{files[number].name}({names[number][section.index]})"
                lines.append(f"{label} {BASE + at:#x} : SUBALIGN(1) {{ *{source} }}")
                expected[label] = memory[at : at + section.size].tobytes()
    script = tmp_path / "script.ld"
    script.write_text(
        "SECTIONS {\n" + "\n".join(lines) + "\n/DISCARD/ : { *(.comment .eh_frame) }\n}"
    )
    out = tmp_path / "linked"
    command = [LD, "--no-relax", "-T", script, "-o", out, "--entry=0", *files]
    subprocess.run(command, check=True, capture_output=True)
    contents = output_sections(out.read_bytes())
    assert len(expected) >= 4
    for label, data in expected.items():
        assert contents[label] == data, label


def section_names(files) -> list[list[str]]:
    return [list(raw_sections(f.read_bytes())) for f in files]


def output_sections(data: bytes) -> dict[str, bytes]:
    return {name: data[start : start + size] for name, (start, size) in raw_sections(data).items()}


def raw_sections(data: bytes) -> dict[str, tuple[int, int]]:
    start = struct.unpack_from("<Q", data, 40)[0]
    count, strings = struct.unpack_from("<HH", data, 60)
    rows = [struct.unpack_from("<IIQQQQ", data, start + 64 * i) for i in range(count)]
    table = rows[strings][4]
    end = lambda at: data.index(b"\0", at)
    return {data[table + r[0] : end(table + r[0])].decode(): (r[4], r[5]) for r in rows}


@pytest.mark.skipif(not QEMU, reason="no AArch64 emulator installed")
def test_aarch64_image_runs(tmp_path):
    start = """
    declare hidden i64 @compute(i64)
    declare hidden i64 @through_tables(i64)
    @here = hidden global i64 1000
    define i64 @callee(i64 %x) { %y = add i64 %x, 5 ret i64 %y }
    define hidden i64 @answer() {
      %a = call i64 @compute(i64 2)
      %b = call i64 @compute(i64 9)
      %c = call i64 @through_tables(i64 7)
      %d = mul i64 %a, 3
      %e = add i64 %d, %b
      %f = add i64 %e, %c
      ret i64 %f
    }
    """
    part = PART_A + OUTSIDE
    objects = [assemble(text, AARCH64) for text in (part, PART_B, start)]
    plan = plan_image([elf.parse(o) for o in objects])
    entry = plan.size  # the exit sequence goes behind the image: bl answer; and the system call
    probe = np.zeros(plan.size, np.uint8)
    symbols = fill_image(plan, probe, BASE, lambda name: BASE)
    external = {"outside": symbols["callee"], "far": symbols["here"]}
    memory = np.zeros(plan.size, np.uint8)
    fill_image(plan, memory, BASE, external.get)
    branch = 0x94000000 | (symbols["answer"] - BASE - entry >> 2 & 0x3FFFFFF)
    tail = struct.pack("<3I", branch, 0xD2800BA8, 0xD4000001)  # bl; mov x8, #93 (exit); svc 0
    path = tmp_path / "program"
    path.write_bytes(executable(memory.tobytes() + tail, entry))
    path.chmod(0o755)
    code = subprocess.run([QEMU, path], timeout=60).returncode
    assert code == expected_answer() & 0xFF


def expected_answer() -> int:
    def compute(x: int, state: int) -> int:
        b = b"abcdefg"[(3, 1, 4, 1, 5)[x % 5]]
        out = b * 31 ^ state
        out = out * 31 ^ 3
        return out * 31 ^ (state + 1)

    return compute(2, 7) * 3 + compute(9, 8) + (7 + 5 + 1000)


def executable(content: bytes, entry: int) -> bytes:
    """A static program of one segment, mapped at BASE (headers on the page before it)."""
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, BASE + entry, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 4096, BASE, BASE, len(content), len(content), 4096)
    return (ident + head + segment).ljust(4096, b"\0") + content


@pytest.mark.skipif(not (LD and QEMU and LIBC.exists()), reason="no AArch64 system installed")
def test_aarch64_support_code_runs_threads(tmp_path):
    main = """
    declare ptr @tw_pool_create(i32)
    declare void @tw_pool_destroy(ptr)
    declare ptr @tw_context_create(ptr, ptr)
    declare void @tw_context_destroy(ptr)
    declare void @tw_parallel(ptr, ptr, ptr, i64)
    declare ptr @tw_frame_push(ptr, i64)
    declare void @tw_frame_pop(ptr)
    declare void @exit(i32)
    define internal void @body(ptr %ctx, ptr %env, i64 %begin, i64 %end) {
      %n = sub i64 %end, %begin
      %old = atomicrmw add ptr %env, i64 %n seq_cst
      ret void
    }
    define void @_start() {
      %pool = call ptr @tw_pool_create(i32 4)
      %ctx = call ptr @tw_context_create(ptr %pool, ptr null)
      %env = call ptr @tw_frame_push(ptr %ctx, i64 3000000)
      store i64 0, ptr %env
      br label %loop
    loop:
      %i = phi i64 [ 0, %0 ], [ %i1, %loop ]
      call void @tw_parallel(ptr %ctx, ptr @body, ptr %env, i64 101)
      %i1 = add i64 %i, 1
      %more = icmp ult i64 %i1, 2000
      br i1 %more, label %loop, label %out
    out:
      %sum = load atomic i64, ptr %env seq_cst, align 8
      %right = icmp eq i64 %sum, 202000
      %code = select i1 %right, i32 42, i32 1
      call void @tw_frame_pop(ptr %ctx)
      call void @tw_context_destroy(ptr %ctx)
      call void @tw_pool_destroy(ptr %pool)
      call void @exit(i32 %code)
      unreachable
    }
    """
    files = [tmp_path / "main.o", tmp_path / "support.o"]
    files[0].write_bytes(assemble(main, AARCH64))
    files[1].write_bytes(support(AARCH64))
    out = tmp_path / "threads"
    loader = LIBC.parent / "ld-linux-aarch64.so.1"
    command = [LD, "-o", out, *files, LIBC, f"--dynamic-linker={loader}", f"-rpath={LIBC.parent}"]
    subprocess.run(command, check=True, capture_output=True)
    assert subprocess.run([QEMU, out], timeout=60).returncode == 42
