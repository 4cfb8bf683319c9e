import pytest

from tensorwright.runtime.manifest import KernelInfo
from tensorwright.runtime.profile import Profile, Run
from tensorwright.target.host import host
from tensorwright.tools import machine as tool
from tensorwright.tools.machine import Machine, measured
from tensorwright.tools.roofline import points
from tests.runtime.test_profile import run as marks

LIMITS = Machine("cpu", "t", 1, 100.0, {"L1": 400.0, "L2": 100.0, "L3": 50.0, "memory": 10.0})


def test_measured_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TW_CACHE", str(tmp_path))
    monkeypatch.setattr(tool, "ROUNDS", 1)
    monkeypatch.setattr(tool, "MEMORY_BYTES", 1 << 20)
    first = measured(host(), 1)
    assert first.gflops > 0.1 and all(v > 0 for v in first.gbytes.values())
    monkeypatch.setattr(tool, "measure", lambda *_: pytest.fail("measured again"))
    assert measured(host(), 1) == first


def test_attainable():
    assert LIMITS.ridge == 10 and LIMITS.attainable(1) == 10 and LIMITS.attainable(50) == 100


def test_points():
    kernels = (
        KernelInfo("dense", 1000, 100),
        KernelInfo("copy", 0, 1 << 30),
        KernelInfo("sized", "8*n", 1),
    )
    profile = Profile("p", kernels, [marks(0, 100, (0, 0), (1, 20), (2, 60), (-1, 90))], {"n": 4})
    found = {p.kernel: p for p in points(profile, LIMITS, host())}
    assert found["dense"].bound == "arithmetic" and found["dense"].of_limit == pytest.approx(0.5)
    assert found["copy"].bound == "memory" and found["copy"].gbytes == pytest.approx((1 << 30) / 40)
    assert found["sized"].flops == 32
    assert found["(host program)"].bound == "" and isinstance(profile.runs[0], Run)
