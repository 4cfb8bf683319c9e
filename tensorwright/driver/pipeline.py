"""The stages of a compilation, as data."""

from __future__ import annotations

from tensorwright.ir.module import Module
from tensorwright.passes.expand import expand_composites
from tensorwright.passes.fuse import fuse
from tensorwright.passes.lower import lower
from tensorwright.schedule.rules import schedule
from tensorwright.target.target import Target


def run_pipeline(m: Module, target: Target, verify: bool = False) -> Module:
    """`m` lowered to kernels for `target`."""
    m = expand_composites(m)
    m = fuse(m)
    return lower(m, lambda k: schedule(k, target))
