"""The same models on older x86-64 processors, run here, and on 64-bit Arm in an emulator."""

from __future__ import annotations

import pytest

from tensorwright.base.config import options
from tensorwright.driver.compile import compile
from tensorwright.runtime import cpu
from tensorwright.target.host import TARGETS
from tests.codegen import aarch64
from tests.codegen.rows import MEMORY, batch, chosen_cases, undefined

PARTS = 12
X86 = [t for t in TARGETS if t.triple.startswith("x86_64")]
RUNNABLE = [t for t in X86 if not cpu.missing(t.required)]


@pytest.fixture(autouse=True)
def no_cache():
    with options(cache="off"):
        yield


def part(k: int, count: int):
    return chosen_cases(count)[k::PARTS]


@pytest.mark.parametrize("k", range(PARTS))
@pytest.mark.parametrize("target", ["x86-64-sse4.2", "x86-64-avx2"])
def test_rows_on_older_processors(target: str, k: int):
    if target not in {t.name for t in RUNNABLE}:
        pytest.skip(f"this machine is older than {target}")
    many = batch(part(k, 2))
    program = compile(many.module, target=target, threads=1)
    assert undefined(program._objects) <= MEMORY
    many.check(program(*many.arrays))


@pytest.mark.skipif(aarch64.IS_MISSING, reason=aarch64.NEEDED)
@pytest.mark.parametrize("k", range(PARTS))
def test_rows_on_arm(k: int, tmp_path):
    many = batch(part(k, 1))
    many.check(aarch64.run(many.module, many.arrays, tmp_path))
