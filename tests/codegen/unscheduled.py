"""Native code of a model as it is defined: every operator its own kernel, no loop moved."""

from __future__ import annotations

from tensorwright.base.config import options
from tensorwright.driver.compile import build_native
from tensorwright.ir.module import Module
from tensorwright.passes.expand import expand_composites
from tensorwright.passes.lower import lower
from tensorwright.runtime.program import Program
from tensorwright.target.host import find


def compile_as_defined(m: Module, target: str = "host") -> Program:
    with options(cache="off"):
        return build_native(lower(expand_composites(m)), find(target), "plain", 1)
