"""Every operator of the table, and the functions beside the rows, under one name each.

    from tensorwright.frontend import onnx_rows as ops
    ops.reshape(x, shape=(n, 4))
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import tensorwright.ops as package
from tensorwright.ir.op import OpDef

FUNCTIONS = ("nonzero", "unique", "items", "attention_parts", "max_pool_with_indices", "conditional", "loop_while", "scan")


@cache
def _modules() -> tuple:
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__))
    found = []
    for n in names:
        try:
            found.append(importlib.import_module(f"tensorwright.ops.{n}"))
        except ModuleNotFoundError as e:
            print("skipped", n, e)
    return tuple(found)


def __getattr__(name: str):
    if name.startswith("__"):
        raise AttributeError(name)
    for wanted in (True, False):
        for m in _modules():
            found = vars(m).get(name)
            if isinstance(found, OpDef) if wanted else (callable(found) and name in FUNCTIONS):
                return found
    raise AttributeError(f"no operator {name}")
