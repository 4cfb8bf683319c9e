import json

import numpy as np
import pytest

from tensorwright.base.errors import ArtifactError
from tensorwright.runtime.manifest import KernelInfo
from tensorwright.runtime.profile import HOST, Profile, Run
from tests.runtime.native import program

KERNELS = (
    KernelInfo(
        "matmul_relu", flops=1000, bytes=200, sources=("mlp.py:12 Linear", "mlp.py:13 relu")
    ),
    KernelInfo("softmax"),
)


def run(begin, end, *marks):
    return Run(begin, end, np.array(marks, np.int64).reshape(-1, 2))


def test_time_goes_to_the_kernel_marked_last():
    profile = Profile("mlp", KERNELS, [run(5, 100, (0, 10), (1, 40), (-1, 90))])
    assert {r.kernel: r.time_ns for r in profile.rows} == {
        "matmul_relu": 30,
        "softmax": 50,
        HOST: 15,
    }
    assert sum(r.share for r in profile.rows) == pytest.approx(1)
    matmul = next(r for r in profile.rows if r.kernel == "matmul_relu")
    assert matmul.calls == 1 and matmul.gflops == pytest.approx(1000 / 30)
    assert matmul.gbytes == pytest.approx(200 / 30)


def test_runs_add_up_and_rows_are_sorted():
    runs = [run(0, 100, (1, 0), (0, 40)), run(1000, 1100, (1, 1000), (0, 1050))]
    rows = Profile("mlp", KERNELS, runs).rows
    assert [(r.kernel, r.calls, r.time_ns) for r in rows[:2]] == [
        ("matmul_relu", 2, 110),
        ("softmax", 2, 90),
    ]


def test_table():
    text = str(Profile("mlp", KERNELS, [run(0, 2_000_000, (0, 0), (1, 1_500_000))]))
    assert text.splitlines()[:4] == [
        "mlp: 1 runs, 2.00 ms each",
        "kernel          calls       time   share  GFLOP/s  GB/s  from",
        "matmul_relu         1    1.50 ms  75.0 %      0.0   0.0  mlp.py:12 Linear, mlp.py:13 relu",
        "softmax             1  500.00 us  25.0 %        -     -",
    ]


def test_empty():
    assert "0 runs" in str(Profile("mlp", (), []))


def test_chrome_trace(tmp_path):
    path = tmp_path / "trace.json"
    Profile("mlp", KERNELS, [run(1000, 9000, (0, 2000), (-1, 5000))]).to_chrome_trace(path)
    events = json.loads(path.read_text())["traceEvents"]
    assert [(e["name"], e["ts"], e["dur"]) for e in events] == [
        ("mlp run 0", 1, 8),
        ("matmul_relu", 2, 3),
    ]
    with pytest.raises(ArtifactError, match="cannot write the trace"):
        Profile("mlp", (), []).to_chrome_trace(tmp_path / "no/such/folder")


MARKED = """
define i32 @tw_main(ptr %ctx, ptr %in, ptr %out) {
  br label %loop
loop:
  %i = phi i64 [ 0, %0 ], [ %i1, %loop ]
  call void @tw_profile_mark(ptr %ctx, i32 0)
  call void @tw_profile_mark(ptr %ctx, i32 1)
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, 5000
  br i1 %more, label %loop, label %end
end:
  call void @tw_profile_mark(ptr %ctx, i32 -1)
  ret i32 0
}
"""


def test_a_program_profiles_itself_with_a_buffer_that_grows():
    p = program(MARKED, "x: f32[1]", "y: f32[1]", kernels=KERNELS)
    profile = p.profile(np.ones(1, np.float32), repeat=3)
    rows = {r.kernel: r for r in profile.rows}
    assert rows["matmul_relu"].calls == rows["softmax"].calls == 15000
    assert len(profile.runs) == 3
    p(np.ones(1, np.float32))  # marks are off again
