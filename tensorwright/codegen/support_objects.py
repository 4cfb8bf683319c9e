"""The heap of a context, for values of sum types: part of the native support code, as LLVM IR.

    ptr  tw_object_new(ptr ctx, i64 units)     64 * units bytes where no object of the size is free;
                                               null when out of memory
    void tw_object_free(ptr ctx, ptr object)   of an object whose count came down to 0
    void tw_object_release(ptr ctx, ptr object)
    void tw_stack_limit(ptr ctx)                   how deep recursion may go, at 112 of the context

An object begins as `runtime/layout.py` says. Up to 63 lines of 64 bytes it comes from a list of
free objects of its size, refilled from chunks that grow and stay until the context goes; larger
ones are allocated one by one and linked, so that a failed run can be cleaned up. Freeing walks what
an object refers to with a list threaded through the counts, so that no depth of nesting needs a
stack. The counts are plain integers: objects belong to the one thread that runs the program.

At 128 of a context: i64 objects alive, first free byte, end of the chunk, chunks, large objects;
at 192: the free lists by size.
"""

from tensorwright.runtime.layout import OUTSIDE

ALIVE, BUMP, END, CHUNKS, LARGE, FREE = 128, 136, 144, 152, 160, 192
ANNOUNCED = FREE + 64 * 8  # of a context: the address that the program reads from next,
STRIDE = ANNOUNCED + 8  # and how far from each other threads begin there
CONTEXT_BYTES = STRIDE + 8
STACK_LIMIT = 112  # of a context: the address below which a function must not go

# What host functions inline: the paths that are nearly always taken.
INLINE = """
declare ptr @tw_object_new(ptr, i64)
declare void @tw_object_free(ptr, ptr)

define internal ptr @tw_new(ptr %ctx, i64 %units, i64 %head) alwaysinline {
  %small = icmp ult i64 %units, 64
  br i1 %small, label %look, label %slow
look:
  %lists = getelementptr i8, ptr %ctx, i64 192
  %list = getelementptr ptr, ptr %lists, i64 %units
  %first = load ptr, ptr %list
  %none = icmp eq ptr %first, null
  br i1 %none, label %slow, label %fast
fast:
  %next = load ptr, ptr %first
  store ptr %next, ptr %list
  %alive = getelementptr i8, ptr %ctx, i64 128
  %n = load i64, ptr %alive
  %n1 = add i64 %n, 1
  store i64 %n1, ptr %alive
  br label %out
slow:
  %made = call ptr @tw_object_new(ptr %ctx, i64 %units)
  %failed = icmp eq ptr %made, null
  br i1 %failed, label %end, label %out
out:
  %object = phi ptr [ %first, %fast ], [ %made, %slow ]
  store i64 1, ptr %object
  %headslot = getelementptr i64, ptr %object, i64 1
  %high = shl i64 %units, 32
  %word = or i64 %high, %head
  store i64 %word, ptr %headslot
  br label %end
end:
  %result = phi ptr [ %object, %out ], [ null, %slow ]
  ret ptr %result
}

define internal void @tw_drop(ptr %ctx, ptr %object) alwaysinline {
  %nothing = icmp eq ptr %object, null
  br i1 %nothing, label %out, label %count
count:
  %n = load i64, ptr %object
  %less = add i64 %n, -1
  store i64 %less, ptr %object
  %dead = icmp eq i64 %less, 0
  br i1 %dead, label %free, label %out
free:
  call void @tw_object_free(ptr %ctx, ptr %object)
  br label %out
out:
  ret void
}
"""


def inline_text(tags: int) -> str:
    """The above, and the objects without contents, one for each tag; nobody can free them."""
    row = "{ i64, i16, i16, i32 }"
    rows = ", ".join(f"{row} {{ i64 {OUTSIDE}, i16 {t}, i16 0, i32 0 }}" for t in range(tags))
    return f"@tw_nothing = internal global [{tags} x {row}] [{rows}], align 16\n{INLINE}"


OBJECTS = """
define ptr @tw_object_new(ptr %ctx, i64 %units) #1 {
  %bytes = shl i64 %units, 6
  %alive = getelementptr i8, ptr %ctx, i64 128
  %n = load i64, ptr %alive
  %n1 = add i64 %n, 1
  store i64 %n1, ptr %alive
  %small = icmp ult i64 %units, 64
  br i1 %small, label %bump, label %large
bump:
  %bumpslot = getelementptr i8, ptr %ctx, i64 136
  %endslot = getelementptr i8, ptr %ctx, i64 144
  %top = load i64, ptr %bumpslot
  %end = load i64, ptr %endslot
  %after = add i64 %top, %bytes
  %fits = icmp ule i64 %after, %end
  br i1 %fits, label %cut, label %grow
cut:
  store i64 %after, ptr %bumpslot
  %here = inttoptr i64 %top to ptr
  ret ptr %here
grow:
  ; a chunk: the one before it and its size in its first line; each is twice as large
  %chunkslot = getelementptr i8, ptr %ctx, i64 152
  %old = load ptr, ptr %chunkslot
  %first_one = icmp eq ptr %old, null
  br i1 %first_one, label %make, label %ask
ask:
  %oldsize = getelementptr i64, ptr %old, i64 1
  %was = load i64, ptr %oldsize
  br label %make
make:
  %last = phi i64 [ 32768, %grow ], [ %was, %ask ]
  %double = shl i64 %last, 1
  %size = call i64 @llvm.umin.i64(i64 %double, i64 8388608)
  %chunk = call ptr @tw_alloc(i64 %size)
  %failed = icmp eq ptr %chunk, null
  br i1 %failed, label %out, label %link
link:
  store ptr %old, ptr %chunk
  %sizeslot = getelementptr i64, ptr %chunk, i64 1
  store i64 %size, ptr %sizeslot
  store ptr %chunk, ptr %chunkslot
  %base = ptrtoint ptr %chunk to i64
  %begin = add i64 %base, 64
  %newend = add i64 %base, %size
  %newtop = add i64 %begin, %bytes
  store i64 %newtop, ptr %bumpslot
  store i64 %newend, ptr %endslot
  %p = inttoptr i64 %begin to ptr
  ret ptr %p
large:
  ; one line before it: the next and the previous of the large objects
  %whole = add i64 %bytes, 64
  %block = call ptr @tw_alloc(i64 %whole)
  %lost = icmp eq ptr %block, null
  br i1 %lost, label %out, label %enter
enter:
  %largeslot = getelementptr i8, ptr %ctx, i64 160
  %head = load ptr, ptr %largeslot
  store ptr %head, ptr %block
  %back = getelementptr ptr, ptr %block, i64 1
  store ptr null, ptr %back
  store ptr %block, ptr %largeslot
  %alone = icmp eq ptr %head, null
  br i1 %alone, label %done, label %before
before:
  %headback = getelementptr ptr, ptr %head, i64 1
  store ptr %block, ptr %headback
  br label %done
done:
  %object = getelementptr i8, ptr %block, i64 64
  ret ptr %object
out:
  call void @tw_fail(ptr %ctx, i32 -1, i64 %bytes, i64 0, i64 0)
  ret ptr null
}

define void @tw_object_release(ptr %ctx, ptr %object) #1 {
  %n = load i64, ptr %object
  %less = add i64 %n, -1
  store i64 %less, ptr %object
  %dead = icmp eq i64 %less, 0
  br i1 %dead, label %free, label %out
free:
  call void @tw_object_free(ptr %ctx, ptr %object)
  br label %out
out:
  ret void
}

define void @tw_object_free(ptr %ctx, ptr %object) #1 {
  store ptr null, ptr %object
  br label %next
next:
  ; `todo` is the list of objects to free, linked through their counts
  %todo = phi ptr [ %object, %0 ], [ %rest, %freed ]
  %done = icmp eq ptr %todo, null
  br i1 %done, label %out, label %open
open:
  %tail = load ptr, ptr %todo
  %refslot = getelementptr i8, ptr %todo, i64 10
  %refs16 = load i16, ptr %refslot
  %refs = zext i16 %refs16 to i64
  %children = getelementptr i8, ptr %todo, i64 16
  br label %loop
loop:
  %k = phi i64 [ 0, %open ], [ %k1, %step ]
  %list = phi ptr [ %tail, %open ], [ %longer, %step ]
  %more = icmp ult i64 %k, %refs
  br i1 %more, label %child, label %close
child:
  %slot = getelementptr ptr, ptr %children, i64 %k
  %c = load ptr, ptr %slot
  %null = icmp eq ptr %c, null
  br i1 %null, label %step, label %count
count:
  %n = load i64, ptr %c
  %less = add i64 %n, -1
  store i64 %less, ptr %c
  %dead = icmp eq i64 %less, 0
  br i1 %dead, label %push, label %step
push:
  store ptr %list, ptr %c
  br label %step
step:
  %longer = phi ptr [ %list, %child ], [ %list, %count ], [ %c, %push ]
  %k1 = add i64 %k, 1
  br label %loop
close:
  %alive = getelementptr i8, ptr %ctx, i64 128
  %a = load i64, ptr %alive
  %a1 = add i64 %a, -1
  store i64 %a1, ptr %alive
  %unitslot = getelementptr i8, ptr %todo, i64 12
  %units32 = load i32, ptr %unitslot
  %units = zext i32 %units32 to i64
  %small = icmp ult i64 %units, 64
  br i1 %small, label %keep, label %unlink
keep:
  %lists = getelementptr i8, ptr %ctx, i64 192
  %place = getelementptr ptr, ptr %lists, i64 %units
  %first = load ptr, ptr %place
  store ptr %first, ptr %todo
  store ptr %todo, ptr %place
  br label %freed
unlink:
  %block = getelementptr i8, ptr %todo, i64 -64
  %fore = load ptr, ptr %block
  %backslot = getelementptr ptr, ptr %block, i64 1
  %back = load ptr, ptr %backslot
  %largeslot = getelementptr i8, ptr %ctx, i64 160
  %is_first = icmp eq ptr %back, null
  %from = select i1 %is_first, ptr %largeslot, ptr %back
  store ptr %fore, ptr %from
  %is_last = icmp eq ptr %fore, null
  br i1 %is_last, label %drop, label %relink
relink:
  %foreback = getelementptr ptr, ptr %fore, i64 1
  store ptr %back, ptr %foreback
  br label %drop
drop:
  call void @free(ptr %block)
  br label %freed
freed:
  %rest = phi ptr [ %list, %keep ], [ %list, %drop ]
  br label %next
out:
  ret void
}

; The lowest address that recursion may reach on the stack of this thread: at least a quarter of the
; stack, up to 1 MiB, is left for what is called there. Found anew when another thread calls.
define void @tw_stack_limit(ptr %ctx) #1 {
  %attr = alloca [16 x i64], align 8
  %low = alloca ptr, align 8
  %size = alloca i64, align 8
  %self = call i64 @pthread_self()
  %limitslot = getelementptr i8, ptr %ctx, i64 112
  %threadslot = getelementptr i8, ptr %ctx, i64 120
  %known = load i64, ptr %threadslot
  %same = icmp eq i64 %known, %self
  br i1 %same, label %out, label %ask
ask:
  store ptr null, ptr %limitslot
  %code = call i32 @pthread_getattr_np(i64 %self, ptr %attr)
  %bad = icmp ne i32 %code, 0
  br i1 %bad, label %out, label %read
read:
  %ignored = call i32 @pthread_attr_getstack(ptr %attr, ptr %low, ptr %size)
  %ignored1 = call i32 @pthread_attr_destroy(ptr %attr)
  %bytes = load i64, ptr %size
  %quarter = lshr i64 %bytes, 2
  %margin = call i64 @llvm.umin.i64(i64 %quarter, i64 1048576)
  %bottom = load ptr, ptr %low
  %limit = getelementptr i8, ptr %bottom, i64 %margin
  store ptr %limit, ptr %limitslot
  store i64 %self, ptr %threadslot
  br label %out
out:
  ret void
}

; All objects at once: after a failed run, and when the context goes.
define internal void @tw_heap_clear(ptr %ctx) #1 {
  %chunkslot = getelementptr i8, ptr %ctx, i64 152
  %chunks = load ptr, ptr %chunkslot
  call void @tw_free_list(ptr %chunks)
  %largeslot = getelementptr i8, ptr %ctx, i64 160
  %large = load ptr, ptr %largeslot
  call void @tw_free_list(ptr %large)
  %heap = getelementptr i8, ptr %ctx, i64 128
  call void @llvm.memset.p0.i64(ptr align 64 %heap, i8 0, i64 576, i1 false)
  ret void
}

define internal void @tw_free_list(ptr %first) #1 {
  br label %loop
loop:
  %p = phi ptr [ %first, %0 ], [ %next, %more ]
  %done = icmp eq ptr %p, null
  br i1 %done, label %out, label %more
more:
  %next = load ptr, ptr %p
  call void @free(ptr %p)
  br label %loop
out:
  ret void
}
"""
