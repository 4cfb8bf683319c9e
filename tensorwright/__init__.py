"""Tensorwright: a deep-learning compiler in plain Python over LLVM.

    import tensorwright as tw
    program = tw.compile("model.onnx");  y = program(x);  program.save("model.tw")

Names are loaded on first use, so that importing the package costs nothing and `tw.load` brings in
the runtime only.
"""

import importlib

__version__ = "0.1.0"

# name -> where it is; a place that has no attribute of that name is what the name stands for
_PLACES = {
    "compile": "tensorwright.tools.program",
    "load": "tensorwright.runtime.artifact",
    "function": "tensorwright.frontend.function",
    "numpy": "tensorwright.frontend.array_api",
    "nn": "tensorwright.nn.namespace",
    "random": "tensorwright.frontend.random",
    "cond": "tensorwright.frontend.array_control",
    "while_loop": "tensorwright.frontend.array_control",
    "scan": "tensorwright.frontend.array_control",
    "vmap": "tensorwright.batching.vmap",
    "batch": "tensorwright.batching.batch",
    "data": "tensorwright.frontend.data",
    "match": "tensorwright.frontend.data",
    "List": "tensorwright.frontend.data",
    "Option": "tensorwright.frontend.data",
    "compare": "tensorwright.tools.compare",
    "show": "tensorwright.tools.show",
    "reference": "tensorwright.tools.reference",
    "errors": "tensorwright.base.errors",
}
# element types, for annotations: tw.f32["n", 64]
_TYPES = ("f16", "bf16", "f32", "f64", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64")

__all__ = ["__version__", *_PLACES]


def __getattr__(name: str):
    if name not in _PLACES and name not in _TYPES:
        raise AttributeError(f"module 'tensorwright' has no attribute '{name}'")
    place = importlib.import_module(_PLACES.get(name, "tensorwright.ir.dtype"))
    value = getattr(place, name, place)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_TYPES})
