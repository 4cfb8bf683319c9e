"""`import tensorwright` takes at most 0.3 s beyond Python and NumPy, and loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
import time

LIMIT = 0.3
TRIES = 5


def seconds(statement: str) -> float:
    """The best time of a fresh interpreter running the statement."""
    best = float("inf")
    for _ in range(TRIES):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        best = min(best, time.perf_counter() - start)
    return best


def test_import_time():
    taken = seconds("import tensorwright") - seconds("import numpy")
    assert taken <= LIMIT, f"import tensorwright takes {taken:.2f} s beyond NumPy"


def test_nothing_heavy():
    code = (
        "import sys, tensorwright\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'transformers', 'sklearn', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
