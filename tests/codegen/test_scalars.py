"""Scalar operations and casts of all types, in scalar and vector code, against `ir/scalar.py`."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.runtime import cpu
from tensorwright.target.host import find
from tests.codegen.rows import MEMORY, undefined
from tests.codegen.scalars import Library, cast_cases, inputs, kernel, operation_cases, same

TARGETS = ("host", "x86-64-avx2", "x86-64-sse4.2")
PARTS = 6


def expected(case, arrays) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.array([case.oracle(*v) for v in zip(*arrays)], case.to.numpy)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("make", [operation_cases, cast_cases], ids=["operations", "casts"])
def test_scalars(make, target: str, part: int):
    if not find(target).triple.startswith("x86") or cpu.missing(find(target).required):
        pytest.skip(f"this machine does not run {target}")
    chosen = make()[part::PARTS]
    made = {c: [kernel(c, len(inputs(c)[0]), lanes) for lanes in (1, 16)] for c in chosen}
    library = Library([k for ks in made.values() for k in ks], target)
    assert undefined([library.code, library.code]) <= MEMORY
    wrong = []
    for case, kernels in made.items():
        arrays = inputs(case)
        wanted = expected(case, arrays)
        for k in kernels:
            found = library.run(k, arrays)
            ok = same(found, wanted)
            if not ok.all():
                at = np.nonzero(~ok)[0][:3]
                wrong.append(f"{k.name}: {len(ok) - ok.sum()} of {len(ok)} wrong, of "
                             f"{[tuple(a[n] for a in arrays) for n in at]}: {found[at]}, expected "
                             f"{wanted[at]}")  # fmt: skip
    assert not wrong, "\n".join(wrong)
