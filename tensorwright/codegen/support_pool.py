"""The thread pool part of the native support code: LLVM IR text, no Python.

A pool runs one job at a time. The job's state is one 64-bit ticket, `generation << 24 | low << 12
| high`: chunks [low, high) are unclaimed. The caller claims from the low end and workers from the
high end, by compare-exchange, so that the same thread tends to see the same data in job after job.

Why it is safe: the job's fields change only while the ticket is exhausted and every claimed chunk
has been reported; a claim on a ticket of an older generation fails; so a worker reads the fields
only between its successful claim and its report. Why it is fast: the caller waits for claimed
chunks only, and workers watch the ticket for some 60 microseconds before they sleep on it.

A worker that finds itself on the caller's CPU leaves it, until it meets the caller elsewhere:
a guest system takes a CPU that its host lets rest for a busy one, so that it wakes a worker beside
its caller and moves it only after milliseconds. (Half of the jobs of 0.7 ms took 1.5, measured.)
"""

POOL = """
; A pool of `threads` threads counts its caller: it starts threads - 1 workers, or as many as the
; system allows. Signals stay with the threads of the host process.
define ptr @tw_pool_create(i32 %threads) #1 {
  %mask = alloca [16 x i64], align 8
  %before = alloca [16 x i64], align 8
  %capped = call i32 @llvm.umin.i32(i32 %threads, i32 819)
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

WORKER = """
define internal i1 @tw_open(i64 %ticket) alwaysinline nounwind {
  %shifted = lshr i64 %ticket, 12
  %both = xor i64 %ticket, %shifted
  %differ = and i64 %both, 4095
  %open = icmp ne i64 %differ, 0
  ret i1 %open
}

; Run the chunk that is claimed as `id`. Each thread has a range of the iterations, of which it
; claims first a half, then eighths: the caller's from the low end of the ids, those of the workers,
; in turns, from the high end. So a thread goes upwards, where kernels ask for memory ahead, and who
; is early takes what is last, and short, of another's range. (Beside a CPU of half the speed two
; threads take 1.375 times as long so; with halves of what is left, or quarters, 1.5.)
define internal void @tw_run_chunk(ptr %pool, i64 %id) #0 {
  %fns = getelementptr %tw_pool, ptr %pool, i32 0, i32 5
  %fn = load ptr, ptr %fns
  %envs = getelementptr %tw_pool, ptr %pool, i32 0, i32 6
  %env = load ptr, ptr %envs
  %ctxs = getelementptr %tw_pool, ptr %pool, i32 0, i32 7
  %ctx = load ptr, ptr %ctxs
  %ns = getelementptr %tw_pool, ptr %pool, i32 0, i32 8
  %n = load i64, ptr %ns
  %chunkss = getelementptr %tw_pool, ptr %pool, i32 0, i32 9
  %chunks = load i64, ptr %chunkss
  %threadslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 14
  %count = load i32, ptr %threadslot
  %threads = zext i32 %count to i64
  %each = udiv i64 %chunks, %threads
  %workers = sub i64 %threads, 1
  %last = sub i64 %chunks, 1
  %turn = sub i64 %last, %id
  %worker = urem i64 %turn, %workers
  %theirs = add i64 %worker, 1
  %round = udiv i64 %turn, %workers
  %own = icmp ult i64 %id, %each
  %range = select i1 %own, i64 0, i64 %theirs
  %place = select i1 %own, i64 %id, i64 %round
  %following = add i64 %range, 1
  %first = call i64 @tw_range_begin(i64 %range, i64 %n, i64 %threads)
  %end = call i64 @tw_range_begin(i64 %following, i64 %n, i64 %threads)
  %size = sub i64 %end, %first
  %next = add i64 %place, 1
  %final = icmp eq i64 %next, %each
  %before = call i64 @tw_unclaimed(i64 %size, i64 %place)
  %behind = call i64 @tw_unclaimed(i64 %size, i64 %next)
  %left = select i1 %final, i64 0, i64 %behind
  %from = sub i64 %end, %before
  %to = sub i64 %end, %left
  %some = icmp ult i64 %from, %to
  br i1 %some, label %call, label %out
call:
  call void %fn(ptr %ctx, ptr %env, i64 %from, i64 %to)
  br label %out
out:
  ret void
}

; How many of so many iterations are left after so many chunks: 16, 8, 6, 4, 2, 0 sixteenths.
define internal i64 @tw_unclaimed(i64 %size, i64 %chunks) #0 {
  %bits = shl i64 %chunks, 3
  %shifted = lshr i64 8657438736, %bits
  %sixteenths = and i64 %shifted, 255
  %times = mul i64 %size, %sixteenths
  %left = lshr i64 %times, 4
  ret i64 %left
}

; A thread's part of n iterations; the caller's, who begins first, is one of the longer ones.
define internal i64 @tw_range_begin(i64 %range, i64 %n, i64 %threads) #0 {
  %share = mul i64 %range, %n
  %rounded = add i64 %share, %threads
  %up = sub i64 %rounded, 1
  %begin = udiv i64 %up, %threads
  ret i64 %begin
}

; Off the CPU from which the last job was given, to any other of those `allowed` (a bit each,
; 1024 in all). Where there is no other the system refuses, and nothing changes.
define internal void @tw_leave_caller(ptr %pool, ptr %allowed) #1 {
  %others = alloca [16 x i64], align 8
  %cpuslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 15
  %callers = load atomic i32, ptr %cpuslot monotonic, align 4
  %own = call i32 @sched_getcpu()
  %together = icmp eq i32 %own, %callers
  %known = icmp ult i32 %own, 1024
  %meets = and i1 %together, %known
  br i1 %meets, label %leave, label %out
leave:
  call void @llvm.memcpy.p0.p0.i64(ptr align 8 %others, ptr align 8 %allowed, i64 128, i1 false)
  %word = lshr i32 %own, 6
  %slot = getelementptr i64, ptr %others, i32 %word
  %bits = load i64, ptr %slot
  %within = and i32 %own, 63
  %place = zext i32 %within to i64
  %bit = shl i64 1, %place
  %unset = xor i64 %bit, -1
  %rest = and i64 %bits, %unset
  store i64 %rest, ptr %slot
  %error = call i32 @sched_setaffinity(i32 0, i64 128, ptr %others)
  br label %out
out:
  ret void
}

define internal ptr @tw_worker(ptr %pool) #1 {
  %doneslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 2
  %waitslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 3
  %sleepslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 12
  %stopslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 13
  %spinslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 16
  %budget = load i64, ptr %spinslot
  %allowed = alloca [16 x i64], align 8
  call void @llvm.memset.p0.i64(ptr align 8 %allowed, i8 0, i64 128, i1 false)
  %known = call i32 @sched_getaffinity(i32 0, i64 128, ptr %allowed)
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
  call void @tw_leave_caller(ptr %pool, ptr %allowed)
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
  call void @tw_leave_caller(ptr %pool, ptr %allowed)
  br i1 %asleep, label %wake, label %watch
wake:
  %w = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %doneslot, i32 129, i32 1)
  br label %watch
out:
  ret ptr null
}
"""

PARALLEL = """
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
  %rounded = add i64 %n, %wide
  %above = sub i64 %rounded, 1
  %most = udiv i64 %above, %wide
  %each = call i64 @llvm.umin.i64(i64 %most, i64 5)
  %chunks = mul i64 %wide, %each
  %ns = getelementptr %tw_pool, ptr %pool, i32 0, i32 8
  store i64 %n, ptr %ns
  %chunkss = getelementptr %tw_pool, ptr %pool, i32 0, i32 9
  store i64 %chunks, ptr %chunkss
  %cpu = call i32 @sched_getcpu()
  %cpuslot = getelementptr %tw_pool, ptr %pool, i32 0, i32 15
  store atomic i32 %cpu, ptr %cpuslot monotonic, align 4
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
  %useful = call i64 @llvm.umin.i64(i64 %wide, i64 %n)
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
