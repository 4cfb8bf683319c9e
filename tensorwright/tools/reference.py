"""`reference`: a model's results by the interpreter, to check compiled programs with."""

from __future__ import annotations

import numpy as np

from tensorwright.base.errors import RunError
from tensorwright.ir.interp import run_module
from tensorwright.runtime.program import Program
from tensorwright.tools.signature import import_any, module_of


def reference(model, *inputs, precise: bool = False, shapes=None):
    """The results of a model on arrays, slowly and plainly; `precise` computes in float64.

    model: whatever `compile` takes, or a compiled program."""
    m = module_of(model) if isinstance(model, Program) else import_any(model, inputs, shapes)
    if len(inputs) != len(m.main.params):
        wanted = ", ".join(f"{p.name}: {p.type}" for p in m.main.params)
        raise RunError(f"{len(inputs)} inputs given, expected {wanted}")
    found = run_module(m, list(map(np.asarray, inputs)), precise)
    return found[0] if len(found) == 1 else tuple(found)
