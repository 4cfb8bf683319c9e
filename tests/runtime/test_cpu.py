import os

import pytest

from tensorwright.runtime import cpu


def test_this_machine_has_features():
    assert len(cpu.features()) > 5
    assert cpu.missing(tuple(sorted(cpu.features()))) == ()
    assert cpu.missing(("no_such_feature",)) == ("no_such_feature",)


@pytest.mark.parametrize("key", ["flags", "Features"])
def test_features_of_either_architecture(tmp_path, key):
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\n{key}\t\t: fma asimd avx512f\n\nprocessor : 1\n")
    assert cpu.features(str(path)) == {"fma", "asimd", "avx512f"}


def test_no_cpuinfo_means_no_features(tmp_path):
    assert cpu.features(str(tmp_path / "none")) == frozenset()


def groups(root, line, files):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(line + "\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/", {"cpu.max": "max 100000\n"}, float("inf")),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "150000 100000"}, 0.5),
        ("0::/host/path", {"cpu.max": "300000 100000"}, 3.0),
        ("2:cpu,cpuacct:/x", {"cpu,cpuacct/x/cpu.cfs_quota_us": "-1",
                              "cpu,cpuacct/x/cpu.cfs_period_us": "100000"}, float("inf")),
        ("2:cpu:/x", {"cpu/x/cpu.cfs_quota_us": "200000",
                      "cpu/x/cpu.cfs_period_us": "100000"}, 2.0),
        ("3:memory:/x", {}, float("inf")),
        ("garbage", {}, float("inf")),
    ],
)  # fmt: skip
def test_quotas(tmp_path, line, files, expected):
    assert cpu.quota(groups(tmp_path, line, files)) == expected


def test_threads_follow_the_quota(tmp_path):
    root = groups(tmp_path, "0::/", {"cpu.max": "100 100000"})
    assert cpu.usable_cpus(root) == cpu.default_threads(root) == 1


def test_two_threads_of_a_core_count_once(tmp_path):
    for number in os.sched_getaffinity(0):
        path = tmp_path / f"sys/devices/system/cpu/cpu{number}/topology"
        path.mkdir(parents=True)
        (path / "thread_siblings_list").write_text("0-7\n")
    assert cpu.default_threads(str(tmp_path)) == 1


def test_affinity_limits_threads(tmp_path):
    assert 1 <= cpu.default_threads() <= cpu.usable_cpus() <= os.cpu_count()
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cpu.usable_cpus(str(tmp_path)) == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("llvm", "kernel"),
    [("avx512bf16", "avx512_bf16"), ("amx-tile", "amx_tile"), ("fma", "fma"), ("neon", "asimd")],
)
def test_names_of_llvm(llvm, kernel):
    assert cpu.kernel_name(llvm) == kernel


def test_llvms_features_of_this_machine_are_the_kernels():
    import llvmlite.binding as llvm

    here = {name for name, on in llvm.get_host_cpu_features().items() if on}
    vectors = {
        n
        for n in here
        if n.startswith(("avx512", "avx2", "amx", "sse", "bmi", "fma", "neon", "sve"))
    }
    assert cpu.missing(tuple(cpu.kernel_name(n) for n in vectors)) == ()


@pytest.mark.skipif("amx_tile" not in cpu.features(), reason="no AMX here")
def test_tiles_are_permitted():
    assert cpu.enable_tiles()
