"""Schedule a kernel for a target: the rules that choose and apply primitives.

`schedule(kernel, target)` is total: a kernel that no rule improves runs as its definition says.
"""

from __future__ import annotations

from tensorwright.ir.loop import Kernel
from tensorwright.schedule.contraction import schedule_contraction
from tensorwright.schedule.nest import stages
from tensorwright.target.target import Target


def schedule(k: Kernel, target: Target) -> Kernel:
    """The kernel in the form that the rules for its stages give it."""
    found = stages(k.body)
    if found is None:
        return k
    if len(found) == 1 and found[0].is_contraction:
        return schedule_contraction(k, found[0], target) or k
    return k
