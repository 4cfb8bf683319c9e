import contextlib
import ctypes
import time
from pathlib import Path

import pytest

from tensorwright.base.errors import InternalError
from tensorwright.runtime.loader import load_objects
from tests.runtime.native import AARCH64, assemble

MAIN = """
@table = external global [4 x i64]
@counter = global i64 5
@zeros = internal global [1000 x i64] zeroinitializer, align 64
@names = internal constant [2 x ptr] [ptr @table, ptr @counter]
declare i64 @twice(i64)
declare i64 @llabs(i64)
declare double @cbrt(double)
define i64 @main_value(i64 %x) {
  %a = call i64 @twice(i64 %x)
  %b = call i64 @llabs(i64 %a)
  %p = getelementptr [4 x i64], ptr @table, i64 0, i64 2
  %c = load i64, ptr %p
  %d = load i64, ptr @counter
  store i64 %b, ptr @counter
  %q = getelementptr [2 x ptr], ptr @names, i64 0, i64 %c
  %r = load ptr, ptr %q
  %e = load i64, ptr %r
  %z = load i64, ptr @zeros
  %s0 = add i64 %b, %d
  %s1 = add i64 %s0, %e
  %s2 = add i64 %s1, %z
  ret i64 %s2
}
define double @root(double %x) {
  %y = call double @cbrt(double %x)
  ret double %y
}
define ptr @libc_pointer() { ret ptr @llabs }
define i32 @choose(i32 %x) {
  switch i32 %x, label %z [ i32 0, label %a
    i32 1, label %b
    i32 2, label %c
    i32 3, label %d
    i32 4, label %e ]
a: call void asm sideeffect "", ""()
  ret i32 17
b: call i64 @twice(i64 1)
  ret i32 4
c: store i64 1, ptr @zeros
  ret i32 99
d: ret i32 2
e: call i64 @twice(i64 2)
  ret i32 -5
z: ret i32 0
}
"""

OTHER = """
@table = global [4 x i64] [i64 10, i64 11, i64 1, i64 13]
define i64 @twice(i64 %x) { %y = shl i64 %x, 1
  ret i64 %y }
"""

TRIVIAL = "define i32 @f() { ret i32 1 }"


def test_objects_see_each_other_and_the_c_library():
    image = load_objects([assemble(MAIN), assemble(OTHER)])
    value = image.function("main_value", ctypes.c_int64, ctypes.c_int64)
    # |2 * -7| + counter (5) + the counter again, now 14, reached through a table of pointers
    assert value(-7) == 14 + 5 + 14
    assert value(3) == 6 + 14 + 6
    assert image.function("root", ctypes.c_double, ctypes.c_double)(27.0) == pytest.approx(3)
    absolute = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
    assert absolute(image.function("libc_pointer", ctypes.c_void_p)())(-3) == 3
    choose = image.function("choose", ctypes.c_int32, ctypes.c_int32)
    assert [choose(i) for i in range(6)] == [17, 4, 99, 2, -5, 0]


def test_pages_are_never_writable_and_executable():
    image = load_objects([assemble(MAIN), assemble(OTHER)])
    seen = set()
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, mode, *_ = line.split()
        start, end = (int(x, 16) for x in span.split("-"))
        if start < image.address + image.size and end > image.address:
            seen.add(mode[:3])
    assert {"r-x", "r--", "rw-"} == seen


def test_first_of_several_weak_definitions_wins():
    call = "{ %r = call i32 @g() ret i32 %r }"
    first = "define linkonce_odr i32 @g() noinline { ret i32 1 } define i32 @a() " + call
    second = first.replace("ret i32 1", "ret i32 2").replace("@a", "@b")
    image = load_objects([assemble(first), assemble(second)])
    assert image.function("a", ctypes.c_int32)() == image.function("b", ctypes.c_int32)() == 1


def test_a_strong_definition_beats_a_weak_one():
    weak = "define weak i32 @g() { ret i32 1 } define i32 @a() { %r = call i32 @g() ret i32 %r }"
    image = load_objects([assemble(weak), assemble("define i32 @g() { ret i32 2 }")])
    assert image.function("a", ctypes.c_int32)() == 2


def test_an_absent_weak_symbol_is_null():
    text = """declare extern_weak i32 @nowhere()
    define i1 @there() { %c = icmp ne ptr @nowhere, null ret i1 %c }"""
    assert not load_objects([assemble(text)]).function("there", ctypes.c_bool)()


def test_common_symbols_get_zeroed_memory():
    text = "@shared = common global i64 0, align 32 define ptr @where() { ret ptr @shared }"
    image = load_objects([assemble(text), assemble(text.replace("@where", "@there"))])
    a = image.function("where", ctypes.c_void_p)()
    assert a == image.function("there", ctypes.c_void_p)() and a % 32 == 0
    assert ctypes.c_int64.from_address(a).value == 0


def message(*objects: bytes) -> str:
    with pytest.raises(InternalError) as caught:
        load_objects(objects)
    return str(caught.value)


def test_errors_name_the_culprit():
    missing = assemble(
        "declare void @no_such_function()"
        "define void @f() { call void @no_such_function() ret void }"
    )
    assert "unresolved symbol 'no_such_function'" in message(missing)
    assert "symbol 'f' is defined twice" in message(assemble(TRIVIAL), assemble(TRIVIAL))
    assert "objects for 2 machines" in message(assemble(TRIVIAL), assemble(TRIVIAL, AARCH64))
    local = assemble("@t = thread_local global i32 0")
    assert "thread" in message(local)


def test_unknown_relocations_are_named():
    data = bytearray(assemble(MAIN))
    at = data.find((4).to_bytes(4, "little"), data.find(b"\x7fELF") + 64)
    from tensorwright.runtime.elf import parse

    records = parse(bytes(data)).relocations[0][1]
    at = bytes(data).find(records.tobytes())
    data[at + 8 : at + 12] = (200).to_bytes(4, "little")
    assert "unknown x86_64 relocation 200" in message(bytes(data), assemble(OTHER))


@pytest.mark.parametrize("length", [0, 10, 63, 64, 200, 900])
def test_truncated_objects_are_refused(length):
    assert "internal error" in message(assemble(MAIN)[:length])


def test_random_damage_never_crashes_the_loader():
    import random

    random.seed(0)
    good = assemble(MAIN)
    for _ in range(300):
        data = bytearray(good)
        for _ in range(3):
            data[random.randrange(len(data))] = random.randrange(256)
        with contextlib.suppress(InternalError):
            load_objects([bytes(data), assemble(OTHER)])


def test_missing_symbol():
    with pytest.raises(InternalError, match="has no symbol 'g'"):
        load_objects([assemble(TRIVIAL)]).symbol("g")


def test_close_unmaps_unless_pinned():
    image = load_objects([assemble(TRIVIAL)])
    start = f"{image.address:x}-"
    assert start in Path("/proc/self/maps").read_text()
    image.pin()
    image.close()
    assert start in Path("/proc/self/maps").read_text()
    image._pinned = False
    image.close()
    assert start not in Path("/proc/self/maps").read_text()


def test_loading_many_objects_is_quick():
    kernel = MAIN.replace("@counter", "@counter_K").replace("@main_value", "@main_K")
    kernel = (
        kernel.replace("@root", "@root_K")
        .replace("@libc_p", "@libc_K")
        .replace("@choose", "@choose_K")
    )
    objects = [assemble(kernel.replace("_K", f"_{i}")) for i in range(99)] + [assemble(OTHER)]
    start = time.process_time()
    load_objects(objects).close()
    assert time.process_time() - start < 1  # about 10 ms; what grows with the square takes seconds
