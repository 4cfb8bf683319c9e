"""The native support code every compiled program carries, as LLVM IR text.

Thread pool with fork/join, contexts with a frame stack, aligned memory, the first error, profile
marks. It needs only a C library, so that exported programs are self-contained. Interface:

    ptr  tw_pool_create(i32 threads)                  void tw_pool_destroy(ptr pool)
    ptr  tw_context_create(ptr pool, ptr weights)     void tw_context_destroy(ptr ctx)
    void tw_context_reset(ptr ctx)
    void tw_parallel(ptr ctx, ptr fn, ptr env, i64 n)
         fn(ptr ctx, ptr env, i64 begin, i64 end) over a partition of [0, n)
    ptr  tw_frame_push(ptr ctx, i64 bytes)            void tw_frame_pop(ptr ctx)
    ptr  tw_alloc(i64 bytes)                          void tw_free(ptr)
    void tw_fail(ptr ctx, i32 code, i64, i64, i64)    void tw_profile_mark(ptr ctx, i32 id)

A context begins `i32 error code, i64[6] error arguments (at 8), weights (56), pool (64), profile
buffer (72)`. Codes are positive; -1 is "out of memory". After an error the program returns the
code at once, frames and all: whoever called it resets the context. A body that fails under
tw_parallel cannot stop the others; the code is there to see when tw_parallel returns.
"""

import hashlib

from tensorwright.base.errors import CompileError
from tensorwright.codegen.support_objects import OBJECTS
from tensorwright.codegen.support_pool import PARALLEL, POOL, WORKER

# Per architecture: the futex system call's number, and "wait a little" inside a spin loop.
_MACHINES = {
    "x86_64": (202, "void @llvm.x86.sse2.pause()", ""),
    "aarch64": (98, "void @llvm.aarch64.isb(i32 15)", "i32"),
}


def support_ir(triple: str) -> str:
    """The support code for one Linux target, as a module of its own."""
    machine = triple.split("-")[0]
    if machine not in _MACHINES:
        raise CompileError(
            f"no native support code for '{triple}'",
            notes=(f"there is for {', '.join(_MACHINES)}",),
        )
    futex, pause, argument = _MACHINES[machine]
    body = "\n".join((_TYPES, _MEMORY, _CONTEXT, _FRAMES, OBJECTS, POOL, WORKER, PARALLEL, _ERRORS))
    body = body.replace("FUTEX", str(futex)).replace("PAUSE", f"call {pause}")
    body += f"declare {pause.split('(')[0]}({argument})\n"
    # Pools are shared among programs of one process: only where the layout is the same.
    layout = int.from_bytes(hashlib.sha256(body.encode()).digest()[:7], "little")
    return f'target triple = "{triple}"\n{body}\n@tw_support_layout = constant i64 {layout}\n'


_TYPES = """
%tw_tensor = type { ptr, ptr }
; code, error arguments, weights, pool, profile | chunk, top, frame, first chunk
; and behind it, the stack's limit (at 112) and the heap of objects (from 128, see support_objects);
; last what the program reads next (at 704) and how far apart its threads begin there (at 712)
%tw_context = type { i32, [6 x i64], ptr, ptr, ptr, ptr, ptr, ptr, ptr }
%tw_chunk = type { ptr, ptr, ptr }      ; previous, next, end
%tw_frame = type { ptr, ptr, ptr }      ; chunk, top, frame before this one
; One cache line each: the ticket | what workers report | the job | what rarely changes.
%tw_pool = type {
  i64, [7 x i64],                       ; 0 ticket
  i32, i32, [7 x i64],                  ; 2 done, 3 caller sleeps
  ptr, ptr, ptr, i64, i64, i32, [5 x i32], ; 5 fn, 6 env, 7 ctx, 8 n, 9 chunks, 10 lock
  ; 12 sleepers, 13 stop, 14 threads, 15 caller's CPU, 16 spins, 17 ids
  i32, i32, i32, i32, i64, ptr, [4 x i64] }

declare ptr @aligned_alloc(i64, i64) #0
declare void @free(ptr) #0
declare i32 @madvise(ptr, i64, i32) #0
declare i64 @syscall(i64, ...) #0
declare i32 @clock_gettime(i32, ptr) #0
declare i32 @pthread_create(ptr, ptr, ptr, ptr) #0
declare i32 @pthread_join(i64, ptr) #0
declare i64 @pthread_self() #0
declare i32 @pthread_getattr_np(i64, ptr) #0
declare i32 @pthread_attr_getstack(ptr, ptr, ptr) #0
declare i32 @pthread_attr_destroy(ptr) #0
declare i32 @pthread_sigmask(i32, ptr, ptr) #0
declare i32 @sigfillset(ptr) #0
declare i32 @sched_getcpu() #0
declare i32 @sched_getaffinity(i32, i64, ptr) #0
declare i32 @sched_setaffinity(i32, i64, ptr) #0
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare i64 @llvm.umin.i64(i64, i64)
declare i64 @llvm.umax.i64(i64, i64)
attributes #0 = { nounwind }
attributes #1 = { nounwind noinline }
"""

_MEMORY = """
; 64-byte aligned; from 2 MiB on, aligned to and backed by huge pages. Null when out of memory.
; The C library's free releases it, so that callers need not keep this code for that.
define ptr @tw_alloc(i64 %bytes) #1 {
  %huge = icmp uge i64 %bytes, 2097152
  br i1 %huge, label %big, label %small
small:
  %atleast = call i64 @llvm.umax.i64(i64 %bytes, i64 1)
  %s0 = add i64 %atleast, 63
  %s1 = and i64 %s0, -64
  %p = call ptr @aligned_alloc(i64 64, i64 %s1)
  ret ptr %p
big:
  %b0 = add i64 %bytes, 2097151
  %b1 = and i64 %b0, -2097152
  %q = call ptr @aligned_alloc(i64 2097152, i64 %b1)
  %null = icmp eq ptr %q, null
  br i1 %null, label %out, label %advise
advise:
  %ignored = call i32 @madvise(ptr %q, i64 %b1, i32 14)
  br label %out
out:
  ret ptr %q
}

define void @tw_free(ptr %p) #0 {
  call void @free(ptr %p)
  ret void
}
"""

_CONTEXT = """
define ptr @tw_context_create(ptr %pool, ptr %weights) #1 {
  %ctx = call ptr @tw_alloc(i64 720)
  %null = icmp eq ptr %ctx, null
  br i1 %null, label %out, label %fill
fill:
  call void @llvm.memset.p0.i64(ptr align 64 %ctx, i8 0, i64 720, i1 false)
  %announced = getelementptr i8, ptr %ctx, i64 704
  store ptr %ctx, ptr %announced
  %w = getelementptr %tw_context, ptr %ctx, i32 0, i32 2
  store ptr %weights, ptr %w
  %p = getelementptr %tw_context, ptr %ctx, i32 0, i32 3
  store ptr %pool, ptr %p
  br label %out
out:
  ret ptr %ctx
}

; After a failed run: no error, no frames, whose memory is kept; no objects.
define void @tw_context_reset(ptr %ctx) #1 {
  call void @llvm.memset.p0.i64(ptr align 8 %ctx, i8 0, i64 56, i1 false)
  %stack = getelementptr %tw_context, ptr %ctx, i32 0, i32 5
  call void @llvm.memset.p0.i64(ptr align 8 %stack, i8 0, i64 24, i1 false)
  call void @tw_heap_clear(ptr %ctx)
  ret void
}

define void @tw_context_destroy(ptr %ctx) #1 {
  %slot = getelementptr %tw_context, ptr %ctx, i32 0, i32 8
  %first = load ptr, ptr %slot
  call void @tw_free_chunks(ptr %first)
  call void @tw_heap_clear(ptr %ctx)
  call void @free(ptr %ctx)
  ret void
}

define internal void @tw_free_chunks(ptr %first) #1 {
  br label %loop
loop:
  %chunk = phi ptr [ %first, %0 ], [ %next, %more ]
  %done = icmp eq ptr %chunk, null
  br i1 %done, label %out, label %more
more:
  %slot = getelementptr %tw_chunk, ptr %chunk, i32 0, i32 1
  %next = load ptr, ptr %slot
  call void @free(ptr %chunk)
  br label %loop
out:
  ret void
}
"""

_FRAMES = """
; A frame is 64 bytes of links and then the caller's bytes. Frames belong to the thread that runs
; the program: parallel bodies must not push. Null (and error -1) when out of memory.
define ptr @tw_frame_push(ptr %ctx, i64 %bytes) #0 {
  %s0 = add i64 %bytes, 127
  %size = and i64 %s0, -64
  %chunkslot = getelementptr %tw_context, ptr %ctx, i32 0, i32 5
  %chunk = load ptr, ptr %chunkslot
  %topslot = getelementptr %tw_context, ptr %ctx, i32 0, i32 6
  %top = load ptr, ptr %topslot
  %frameslot = getelementptr %tw_context, ptr %ctx, i32 0, i32 7
  %frame = load ptr, ptr %frameslot
  %none = icmp eq ptr %chunk, null
  br i1 %none, label %grow, label %try
try:
  %endslot = getelementptr %tw_chunk, ptr %chunk, i32 0, i32 2
  %end = load ptr, ptr %endslot
  %e = ptrtoint ptr %end to i64
  %t = ptrtoint ptr %top to i64
  %room = sub i64 %e, %t
  %fits = icmp ule i64 %size, %room
  br i1 %fits, label %place, label %grow
grow:
  %new = call ptr @tw_next_chunk(ptr %ctx, ptr %chunk, i64 %size)
  %failed = icmp eq ptr %new, null
  br i1 %failed, label %fail, label %enter
enter:
  store ptr %new, ptr %chunkslot
  %begin = getelementptr i8, ptr %new, i64 64
  br label %place
place:
  %base = phi ptr [ %top, %try ], [ %begin, %enter ]
  store ptr %chunk, ptr %base
  %link1 = getelementptr %tw_frame, ptr %base, i32 0, i32 1
  store ptr %top, ptr %link1
  %link2 = getelementptr %tw_frame, ptr %base, i32 0, i32 2
  store ptr %frame, ptr %link2
  store ptr %base, ptr %frameslot
  %newtop = getelementptr i8, ptr %base, i64 %size
  store ptr %newtop, ptr %topslot
  %data = getelementptr i8, ptr %base, i64 64
  ret ptr %data
fail:
  call void @tw_fail(ptr %ctx, i32 -1, i64 %bytes, i64 0, i64 0)
  ret ptr null
}

define void @tw_frame_pop(ptr %ctx) #0 {
  %chunkslot = getelementptr %tw_context, ptr %ctx, i32 0, i32 5
  %topslot = getelementptr %tw_context, ptr %ctx, i32 0, i32 6
  %frameslot = getelementptr %tw_context, ptr %ctx, i32 0, i32 7
  %base = load ptr, ptr %frameslot
  %chunk = load ptr, ptr %base
  %link1 = getelementptr %tw_frame, ptr %base, i32 0, i32 1
  %top = load ptr, ptr %link1
  %link2 = getelementptr %tw_frame, ptr %base, i32 0, i32 2
  %frame = load ptr, ptr %link2
  store ptr %chunk, ptr %chunkslot
  store ptr %top, ptr %topslot
  store ptr %frame, ptr %frameslot
  ret void
}

; The chunk after `chunk` (the first, after null), replaced by a larger one if it is too small.
define internal ptr @tw_next_chunk(ptr %ctx, ptr %chunk, i64 %size) #1 {
  %need = add i64 %size, 64
  %none = icmp eq ptr %chunk, null
  %firstslot = getelementptr %tw_context, ptr %ctx, i32 0, i32 8
  %nextslot = getelementptr %tw_chunk, ptr %chunk, i32 0, i32 1
  %slot = select i1 %none, ptr %firstslot, ptr %nextslot
  %old = load ptr, ptr %slot
  %absent = icmp eq ptr %old, null
  br i1 %absent, label %make, label %check
check:
  %endslot = getelementptr %tw_chunk, ptr %old, i32 0, i32 2
  %end = load ptr, ptr %endslot
  %e = ptrtoint ptr %end to i64
  %o = ptrtoint ptr %old to i64
  %length = sub i64 %e, %o
  %fits = icmp uge i64 %length, %need
  br i1 %fits, label %keep, label %drop
keep:
  ret ptr %old
drop:
  call void @tw_free_chunks(ptr %old)
  store ptr null, ptr %slot
  br label %make
make:
  %was = phi i64 [ 32768, %0 ], [ %length, %drop ]
  %double = shl i64 %was, 1
  %wish = call i64 @llvm.umax.i64(i64 %need, i64 %double)
  %large = icmp uge i64 %wish, 2097152
  %round = select i1 %large, i64 2097151, i64 63
  %r0 = add i64 %wish, %round
  %mask = xor i64 %round, -1
  %capacity = and i64 %r0, %mask
  %new = call ptr @tw_alloc(i64 %capacity)
  %failed = icmp eq ptr %new, null
  br i1 %failed, label %out, label %link
link:
  store ptr %chunk, ptr %new
  %n1 = getelementptr %tw_chunk, ptr %new, i32 0, i32 1
  store ptr null, ptr %n1
  %n2 = getelementptr %tw_chunk, ptr %new, i32 0, i32 2
  %newend = getelementptr i8, ptr %new, i64 %capacity
  store ptr %newend, ptr %n2
  store ptr %new, ptr %slot
  br label %out
out:
  ret ptr %new
}
"""

_ERRORS = """
; The first failure wins; its arguments are for the message.
define void @tw_fail(ptr %ctx, i32 %code, i64 %a0, i64 %a1, i64 %a2) #1 {
  %pair = cmpxchg ptr %ctx, i32 0, i32 %code acq_rel monotonic, align 4
  %first = extractvalue { i32, i1 } %pair, 1
  br i1 %first, label %store, label %out
store:
  %s0 = getelementptr i8, ptr %ctx, i64 8
  store i64 %a0, ptr %s0
  %s1 = getelementptr i8, ptr %ctx, i64 16
  store i64 %a1, ptr %s1
  %s2 = getelementptr i8, ptr %ctx, i64 24
  store i64 %a2, ptr %s2
  br label %out
out:
  ret void
}

; The profile buffer: capacity, count, then (id, nanoseconds) pairs; full ones only count.
define void @tw_profile_mark(ptr %ctx, i32 %id) #0 {
  %slot = getelementptr %tw_context, ptr %ctx, i32 0, i32 4
  %buffer = load ptr, ptr %slot
  %off = icmp eq ptr %buffer, null
  br i1 %off, label %out, label %on
on:
  %now = call i64 @tw_now()
  %capacity = load i64, ptr %buffer
  %countslot = getelementptr i64, ptr %buffer, i64 1
  %count = atomicrmw add ptr %countslot, i64 1 monotonic
  %fits = icmp ult i64 %count, %capacity
  br i1 %fits, label %store, label %out
store:
  %twice = shl i64 %count, 1
  %at = add i64 %twice, 2
  %entry = getelementptr i64, ptr %buffer, i64 %at
  %wide = sext i32 %id to i64
  store i64 %wide, ptr %entry
  %entry1 = getelementptr i64, ptr %entry, i64 1
  store i64 %now, ptr %entry1
  br label %out
out:
  ret void
}
"""
