"""How much arithmetic a lowered module does on given inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorwright.base.errors import TensorwrightError
from tensorwright.ir import facts
from tensorwright.ir.expr import symbols_of
from tensorwright.ir.interp import bind_types
from tensorwright.ir.loop import Kernel
from tensorwright.ir.module import Module
from tensorwright.passes.cost import kernel_cost


def input_sizes(m: Module, inputs: Sequence[np.ndarray]) -> dict:
    """Values of the symbols in the shapes of the entry's parameters."""
    params = m.main.params
    return bind_types([p.type for p in params], inputs, [p.name for p in params], {})


def total_flops(m: Module, inputs: Sequence[np.ndarray]) -> float:
    """Operations of all kernels, each called once; infinite where a size is not known before."""
    try:
        values = input_sizes(m, inputs)
        return sum(_flops(k, values) for k in m.kernels.values())
    except (TensorwrightError, KeyError):
        return float("inf")


def _flops(k: Kernel, values: dict) -> int:
    flops, moved = k.work or kernel_cost(k)
    if not symbols_of(flops, moved) <= set(values):
        raise KeyError(k.name)
    return max(facts.evaluate(flops, values), facts.evaluate(moved, values))
