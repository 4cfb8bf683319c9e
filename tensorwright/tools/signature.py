"""Inputs and sizes of a program or a module, in the words of the manifest."""

from __future__ import annotations

from tensorwright.base.errors import FrontendError
from tensorwright.driver.build import make_symbols, tensor_info
from tensorwright.driver.compile import calling_convention, import_model, loaded
from tensorwright.ir.module import Module
from tensorwright.runtime.manifest import SymbolInfo, TensorInfo
from tensorwright.runtime.program import Program


def signature(what: Program | Module) -> tuple[tuple[TensorInfo, ...], dict[str, SymbolInfo]]:
    """(inputs, symbols)."""
    if isinstance(what, Program):
        return what.manifest.inputs, dict(what.manifest.symbols)
    g = what.main
    return tuple(tensor_info(p.name, p) for p in g.params), make_symbols(g)


def module_of(program: Program) -> Module:
    """The module that a program was compiled from."""
    m = getattr(program, "module", None)
    if m is None:
        raise FrontendError(
            f"{program.name} was loaded from a file, which does not hold the model",
            help="compile the model to look inside",
        )
    return m


def import_any(model, example_inputs=None, shapes=None) -> Module:
    """The module of whatever `compile` takes, not compiled."""
    model = loaded(model)
    convention = calling_convention(model, example_inputs, shapes)
    return import_model(model, shapes)[0] if convention is None else convention.module
