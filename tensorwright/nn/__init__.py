"""`tw.nn`: the names of `namespace`, which is loaded when one of them is first asked for."""

import importlib


def __getattr__(name: str):
    if name.startswith("_"):
        raise AttributeError(name)
    return getattr(importlib.import_module("tensorwright.nn.namespace"), name)
