"""The native support code every compiled program carries, as LLVM IR text.

Thread pool with fork/join, contexts with a frame stack, aligned memory, the first error, profile
marks. It needs only a C library, so that exported programs are self-contained. Interface:

    tw_parallel(ctx, fn, env, n)   ->   fn(ctx, env, begin, end) over a partition of [0, n)

A pool's job is one 64-bit ticket (generation << 24 | low << 12 | high): chunks [low, high) are
unclaimed, the caller takes from the low end, workers from the high end, by compare-exchange.
A ticket of an older generation can never be claimed, and only claimed chunks are waited for.
"""

import hashlib

from tensorwright.base.errors import CompileError

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
    body = "\n".join((_TYPES, _MEMORY, _CONTEXT, _FRAMES, _POOL, _WORKER, _PARALLEL, _ERRORS))
    body = body.replace("FUTEX", str(futex)).replace("PAUSE", f"call {pause}")
    body += f"declare {pause.split('(')[0]}({argument})\n"
    # Pools are shared among programs of one process: only where the layout is the same.
    layout = int.from_bytes(hashlib.sha256(body.encode()).digest()[:7], "little")
    return f'target triple = "{triple}"\n{body}\n@tw_support_layout = constant i64 {layout}\n'


_TYPES = """
%tw_tensor = type { ptr, ptr }
; code, error arguments, weights, pool, profile | chunk, top, frame, first chunk
%tw_context = type { i32, [6 x i64], ptr, ptr, ptr, ptr, ptr, ptr, ptr }
%tw_chunk = type { ptr, ptr, ptr }      ; previous, next, end
%tw_frame = type { ptr, ptr, ptr }      ; chunk, top, frame before this one
; One cache line each: the ticket | what workers report | the job | what rarely changes.
%tw_pool = type {
  i64, [7 x i64],                       ; 0 ticket
  i32, i32, [7 x i64],                  ; 2 done, 3 caller sleeps
  ptr, ptr, ptr, i64, i64, i32, [5 x i32], ; 5 fn, 6 env, 7 ctx, 8 quotient, 9 rest, 10 lock
  i32, i32, i32, i32, i64, ptr, [4 x i64] } ; 12 sleepers, 13 stop, 14 threads, 16 spins, 17 ids

declare ptr @aligned_alloc(i64, i64) #0
declare void @free(ptr) #0
declare i32 @madvise(ptr, i64, i32) #0
declare i64 @syscall(i64, ...) #0
declare i32 @clock_gettime(i32, ptr) #0
declare i32 @pthread_create(ptr, ptr, ptr, ptr) #0
declare i32 @pthread_join(i64, ptr) #0
declare i32 @pthread_sigmask(i32, ptr, ptr) #0
declare i32 @sigfillset(ptr) #0
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
  %ctx = call ptr @tw_alloc(i64 128)
  %null = icmp eq ptr %ctx, null
  br i1 %null, label %out, label %fill
fill:
  call void @llvm.memset.p0.i64(ptr align 64 %ctx, i8 0, i64 128, i1 false)
  %w = getelementptr %tw_context, ptr %ctx, i32 0, i32 2
  store ptr %weights, ptr %w
  %p = getelementptr %tw_context, ptr %ctx, i32 0, i32 3
  store ptr %pool, ptr %p
  br label %out
out:
  ret ptr %ctx
}

define void @tw_context_destroy(ptr %ctx) #1 {
  %slot = getelementptr %tw_context, ptr %ctx, i32 0, i32 8
  %first = load ptr, ptr %slot
  call void @tw_free_chunks(ptr %first)
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

_POOL = """
; A pool of `threads` threads counts its caller: it starts threads - 1 workers, or as many as the
; system allows. Signals stay with the threads of the host process.
define ptr @tw_pool_create(i32 %threads) #1 {
  %mask = alloca [16 x i64], align 8
  %before = alloca [16 x i64], align 8
  %capped = call i32 @llvm.umin.i32(i32 %threads, i32 1023)
  %wide = zext i32 %capped to i64
  %idbytes = shl i64 %wide, 3
  %bytes = add i64 %idbytes, 256
  %pool = call ptr @tw_alloc(i64 %bytes)
  %null = icmp eq ptr %pool, null
  br i1 %null, label %out, label %fill
fill:
  call void @llvm.memset.p0.i64(ptr align 64 %pool, i8 0, i64 256, i1 false)
  %ids = getelementptr i8, ptr %pool, i64 256
  %idslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 17
  store ptr %ids, ptr %idslot
  %spins = call i64 @tw_spins()
  %spinslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 16
  store i64 %spins, ptr %spinslot
  %threadslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 14
  call i32 @sigfillset(ptr %mask)
  call i32 @pthread_sigmask(i32 2, ptr %mask, ptr %before)
  br label %loop
loop:
  %n = phi i32 [ 1, %fill ], [ %n1, %started ]
  store i32 %n, ptr %threadslot
  %enough = icmp sge i32 %n, %capped
  br i1 %enough, label %finish, label %start
start:
  %at = sext i32 %n to i64
  %id = getelementptr i64, ptr %ids, i64 %at
  %error = call i32 @pthread_create(ptr %id, ptr null, ptr @tw_worker, ptr %pool)
  %ok = icmp eq i32 %error, 0
  br i1 %ok, label %started, label %finish
started:
  %n1 = add i32 %n, 1
  br label %loop
finish:
  call i32 @pthread_sigmask(i32 2, ptr %before, ptr null)
  br label %out
out:
  ret ptr %pool
}

; How many pauses take about 60 microseconds: they last 5 to 50 ns, depending on the machine.
define internal i64 @tw_spins() #1 {
  br label %trial
trial:
  %k = phi i64 [ 0, %0 ], [ %k1, %timed ]
  %best = phi i64 [ 1000000, %0 ], [ %best1, %timed ]
  %t0 = call i64 @tw_now()
  br label %loop
loop:
  %i = phi i64 [ 0, %trial ], [ %i1, %loop ]
  PAUSE
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, 256
  br i1 %more, label %loop, label %timed
timed:
  %t1 = call i64 @tw_now()
  %d0 = sub i64 %t1, %t0
  %d1 = call i64 @llvm.umax.i64(i64 %d0, i64 256)
  %best1 = call i64 @llvm.umin.i64(i64 %best, i64 %d1)
  %k1 = add i64 %k, 1
  %again = icmp ult i64 %k1, 4
  br i1 %again, label %trial, label %out
out:
  %spins = udiv i64 15360000, %best1
  ret i64 %spins
}

define internal i64 @tw_now() #0 {
  %spec = alloca { i64, i64 }
  %ignored = call i32 @clock_gettime(i32 1, ptr %spec)
  %s = load i64, ptr %spec
  %rest = getelementptr { i64, i64 }, ptr %spec, i32 0, i32 1
  %ns = load i64, ptr %rest
  %scaled = mul i64 %s, 1000000000
  %now = add i64 %scaled, %ns
  ret i64 %now
}

; The caller must have no job running on it.
define void @tw_pool_destroy(ptr %pool) #1 {
  %null = icmp eq ptr %pool, null
  br i1 %null, label %out, label %stop
stop:
  %stopslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 13
  store atomic i32 1, ptr %stopslot seq_cst, align 4
  ; An exhausted ticket of a new generation: sleepers and those about to sleep notice it.
  %ignored = atomicrmw add ptr %pool, i64 16777216 seq_cst
  %woken = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %pool, i32 129, i32 2147483647)
  %threadslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 14
  %threads = load i32, ptr %threadslot
  br label %loop
loop:
  %n = phi i32 [ 1, %stop ], [ %n1, %join ]
  %done = icmp sge i32 %n, %threads
  br i1 %done, label %end, label %join
join:
  %at = sext i32 %n to i64
  %ids = getelementptr i8, ptr %pool, i64 256
  %idslot = getelementptr i64, ptr %ids, i64 %at
  %id = load i64, ptr %idslot
  %error = call i32 @pthread_join(i64 %id, ptr null)
  %n1 = add i32 %n, 1
  br label %loop
end:
  call void @free(ptr %pool)
  br label %out
out:
  ret void
}
declare i32 @llvm.umin.i32(i32, i32)
"""

_WORKER = """
define internal i1 @tw_open(i64 %ticket) alwaysinline nounwind {
  %shifted = lshr i64 %ticket, 12
  %both = xor i64 %ticket, %shifted
  %differ = and i64 %both, 4095
  %open = icmp ne i64 %differ, 0
  ret i1 %open
}

; Run chunk number `chunk`: the first `rest` chunks are one longer than the others.
define internal void @tw_run_chunk(ptr %pool, i64 %chunk) #0 {
  %fns = getelementptr %tw_pool, ptr %pool, i32 0, i32 5
  %fn = load ptr, ptr %fns
  %envs = getelementptr %tw_pool, ptr %pool, i32 0, i32 6
  %env = load ptr, ptr %envs
  %ctxs = getelementptr %tw_pool, ptr %pool, i32 0, i32 7
  %ctx = load ptr, ptr %ctxs
  %qs = getelementptr %tw_pool, ptr %pool, i32 0, i32 8
  %q = load i64, ptr %qs
  %rs = getelementptr %tw_pool, ptr %pool, i32 0, i32 9
  %r = load i64, ptr %rs
  %whole = mul i64 %chunk, %q
  %extra = call i64 @llvm.umin.i64(i64 %chunk, i64 %r)
  %begin = add i64 %whole, %extra
  %longer = icmp ult i64 %chunk, %r
  %one = zext i1 %longer to i64
  %length = add i64 %q, %one
  %end = add i64 %begin, %length
  call void %fn(ptr %ctx, ptr %env, i64 %begin, i64 %end)
  ret void
}

define internal ptr @tw_worker(ptr %pool) #1 {
  %doneslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 2
  %waitslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 3
  %sleepslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 12
  %stopslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 13
  %spinslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 16
  %budget = load i64, ptr %spinslot
  br label %watch
watch:
  %left = phi i64 [ %budget, %0 ], [ %left1, %spin ], [ %budget, %sleep ],
                  [ %budget, %finish ], [ %budget, %wake ]
  %t = load atomic i64, ptr %pool acquire, align 8
  %open = call i1 @tw_open(i64 %t)
  br i1 %open, label %claim, label %quiet
quiet:
  %stop = load atomic i32, ptr %stopslot acquire, align 4
  %stopping = icmp ne i32 %stop, 0
  br i1 %stopping, label %out, label %tired
tired:
  %left1 = sub i64 %left, 1
  %empty = icmp eq i64 %left, 0
  br i1 %empty, label %sleep, label %spin
spin:
  PAUSE
  br label %watch
sleep:
  ; No open ticket has the same low half as a closed one: sleeping on the low half misses none.
  %s0 = atomicrmw add ptr %sleepslot, i32 1 seq_cst
  %low = trunc i64 %t to i32
  %slept = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %pool, i32 128, i32 %low, ptr null)
  %s1 = atomicrmw sub ptr %sleepslot, i32 1 seq_cst
  br label %watch
claim:
  %ticket = phi i64 [ %t, %watch ], [ %seen, %again ], [ %now, %run ]
  %count = phi i32 [ 0, %watch ], [ %count, %again ], [ %count1, %run ]
  %taken = sub i64 %ticket, 1
  %pair = cmpxchg ptr %pool, i64 %ticket, i64 %taken acq_rel acquire, align 8
  %ok = extractvalue { i64, i1 } %pair, 1
  br i1 %ok, label %run, label %again
again:
  %seen = extractvalue { i64, i1 } %pair, 0
  %stillopen = call i1 @tw_open(i64 %seen)
  br i1 %stillopen, label %claim, label %finish
run:
  %chunk = and i64 %taken, 4095
  call void @tw_run_chunk(ptr %pool, i64 %chunk)
  %count1 = add i32 %count, 1
  %now = load atomic i64, ptr %pool acquire, align 8
  %moreopen = call i1 @tw_open(i64 %now)
  br i1 %moreopen, label %claim, label %finish
finish:
  ; Reported at once for all chunks: the job cannot end before that.
  %total = phi i32 [ %count, %again ], [ %count1, %run ]
  %d = atomicrmw add ptr %doneslot, i32 %total seq_cst
  %waiting = load atomic i32, ptr %waitslot seq_cst, align 4
  %asleep = icmp ne i32 %waiting, 0
  br i1 %asleep, label %wake, label %watch
wake:
  %w = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %doneslot, i32 129, i32 1)
  br label %watch
out:
  ret ptr null
}
"""

_PARALLEL = """
; A pool serves one job at a time; nested and concurrent ones run in their caller.
define void @tw_parallel(ptr %ctx, ptr %fn, ptr %env, i64 %n) #0 {
  %poolslot = getelementptr %tw_context, ptr %ctx, i32 0, i32 3
  %pool = load ptr, ptr %poolslot
  %single = icmp slt i64 %n, 2
  %alone = icmp eq ptr %pool, null
  %inline = or i1 %single, %alone
  br i1 %inline, label %serial, label %size
size:
  %threadslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 14
  %threads = load i32, ptr %threadslot
  %lockslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 10
  %held = load atomic i32, ptr %lockslot monotonic, align 4
  %one = icmp eq i32 %threads, 1
  %busy = icmp ne i32 %held, 0
  %give = or i1 %one, %busy
  br i1 %give, label %serial, label %lock
lock:
  %pair = cmpxchg ptr %lockslot, i32 0, i32 1 acquire monotonic, align 4
  %got = extractvalue { i32, i1 } %pair, 1
  br i1 %got, label %fork, label %serial
fork:
  call void @tw_fork_join(ptr %pool, ptr %ctx, ptr %fn, ptr %env, i64 %n, i32 %threads)
  store atomic i32 0, ptr %lockslot release, align 4
  ret void
serial:
  %any = icmp sgt i64 %n, 0
  br i1 %any, label %call, label %out
call:
  call void %fn(ptr %ctx, ptr %env, i64 0, i64 %n)
  br label %out
out:
  ret void
}

define internal void @tw_fork_join(ptr %pool, ptr %ctx, ptr %fn, ptr %env, i64 %n,
                                   i32 %threads) #1 {
fork:
  %fns = getelementptr %tw_pool, ptr %pool, i32 0, i32 5
  store ptr %fn, ptr %fns
  %envs = getelementptr %tw_pool, ptr %pool, i32 0, i32 6
  store ptr %env, ptr %envs
  %ctxs = getelementptr %tw_pool, ptr %pool, i32 0, i32 7
  store ptr %ctx, ptr %ctxs
  %wide = zext i32 %threads to i64
  %four = shl i64 %wide, 2
  %chunks = call i64 @llvm.umin.i64(i64 %four, i64 %n)
  %q = udiv i64 %n, %chunks
  %r = urem i64 %n, %chunks
  %qs = getelementptr %tw_pool, ptr %pool, i32 0, i32 8
  store i64 %q, ptr %qs
  %rs = getelementptr %tw_pool, ptr %pool, i32 0, i32 9
  store i64 %r, ptr %rs
  %doneslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 2
  store atomic i32 0, ptr %doneslot monotonic, align 4
  %old = load atomic i64, ptr %pool monotonic, align 8
  %age = lshr i64 %old, 24
  %next = add i64 %age, 1
  %generation = shl i64 %next, 24
  %ticket = or i64 %generation, %chunks
  store atomic i64 %ticket, ptr %pool seq_cst, align 8
  %sleepslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 12
  %sleepers = load atomic i32, ptr %sleepslot seq_cst, align 4
  %asleep = icmp ne i32 %sleepers, 0
  br i1 %asleep, label %wake, label %claim
wake:
  %useful = call i64 @llvm.umin.i64(i64 %wide, i64 %chunks)
  %helpers = sub i64 %useful, 1
  %count = trunc i64 %helpers to i32
  %woken = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %pool, i32 129, i32 %count)
  br label %claim
claim:
  %t = phi i64 [ %ticket, %fork ], [ %ticket, %wake ], [ %seen, %again ], [ %now, %run ]
  %own = phi i64 [ 0, %fork ], [ 0, %wake ], [ %own, %again ], [ %own1, %run ]
  %taken = add i64 %t, 4096
  %pair = cmpxchg ptr %pool, i64 %t, i64 %taken acq_rel acquire, align 8
  %ok = extractvalue { i64, i1 } %pair, 1
  br i1 %ok, label %run, label %again
again:
  %seen = extractvalue { i64, i1 } %pair, 0
  %stillopen = call i1 @tw_open(i64 %seen)
  br i1 %stillopen, label %claim, label %join
run:
  %shifted = lshr i64 %t, 12
  %chunk = and i64 %shifted, 4095
  call void @tw_run_chunk(ptr %pool, i64 %chunk)
  %own1 = add i64 %own, 1
  %now = load atomic i64, ptr %pool acquire, align 8
  %moreopen = call i1 @tw_open(i64 %now)
  br i1 %moreopen, label %claim, label %join
join:
  %mine = phi i64 [ %own, %again ], [ %own1, %run ]
  %rest = sub i64 %chunks, %mine
  %theirs = trunc i64 %rest to i32
  call void @tw_join(ptr %pool, i32 %theirs)
  ret void
}

; Wait until workers have reported `target` chunks: spin, then sleep.
define internal void @tw_join(ptr %pool, i32 %target) #1 {
  %doneslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 2
  %waitslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 3
  %spinslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 16
  %budget = load i64, ptr %spinslot
  br label %watch
watch:
  %left = phi i64 [ %budget, %0 ], [ %left1, %spin ]
  %d = load atomic i32, ptr %doneslot acquire, align 4
  %all = icmp eq i32 %d, %target
  br i1 %all, label %out, label %tired
tired:
  %left1 = sub i64 %left, 1
  %empty = icmp eq i64 %left, 0
  br i1 %empty, label %announce, label %spin
spin:
  PAUSE
  br label %watch
announce:
  store atomic i32 1, ptr %waitslot seq_cst, align 4
  br label %check
check:
  %d2 = load atomic i32, ptr %doneslot seq_cst, align 4
  %all2 = icmp eq i32 %d2, %target
  br i1 %all2, label %rested, label %sleep
sleep:
  %slept = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %doneslot, i32 128, i32 %d2, ptr null)
  br label %check
rested:
  store atomic i32 0, ptr %waitslot seq_cst, align 4
  br label %out
out:
  ret void
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
