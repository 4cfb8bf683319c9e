"""Tensorwright: a deep-learning compiler in plain Python over LLVM.

    import tensorwright as tw
    program = tw.compile("model.onnx");  y = program(x);  program.save("model.tw")

Names are loaded on first use, so that importing the package costs nothing and `tw.load` brings in
the runtime only.
"""

import importlib

__version__ = "0.1.0"

_PLACES = {
    "compile": "tensorwright.tools.program",
    "load": "tensorwright.runtime.artifact",
    "function": "tensorwright.frontend.function",
    "cond": "tensorwright.frontend.function",
    "while_loop": "tensorwright.frontend.function",
    "scan": "tensorwright.frontend.function",
    "numpy": "tensorwright.frontend.array_api",
    "compare": "tensorwright.tools.compare",
    "show": "tensorwright.tools.show",
    "reference": "tensorwright.tools.reference",
    "errors": "tensorwright.base.errors",
}

__all__ = ["__version__", *_PLACES]


def __getattr__(name: str):
    if name not in _PLACES:
        raise AttributeError(f"module 'tensorwright' has no attribute '{name}'")
    place = importlib.import_module(_PLACES[name])
    value = getattr(place, name, place)  # `errors` is a module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
