"""The options, one row each, and the only reader of the environment.

    TW_VERIFY=1 python run.py          with config.options(verify=1): ...

An option set by `options` in this context wins over the environment, which wins over the default.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType

from tensorwright.base.errors import CompileError


def _flag(text: str) -> bool:
    return text.strip().lower() not in ("", "0", "no", "off", "false")


def _words(text: str) -> tuple[str, ...]:
    return tuple(w.strip() for w in text.split(",") if w.strip())


@dataclass(frozen=True)
class Option:
    name: str
    variable: str  # environment variable
    read: Callable[[str], object]
    default: object
    doc: str


OPTIONS = (
    Option("dump", "TW_DUMP", str, "", "folder for the program after each pass that changed it"),
    Option("log", "TW_LOG", _words, (), "decisions to print as they are made: fuse,tune,..."),
    Option("verify", "TW_VERIFY", int, 0, "after each pass: 1 checks invariants, 2 interprets"),
    Option("guard", "TW_GUARD", _flag, False, "a poisoned block between guard pages per buffer"),
    Option("poison", "TW_POISON", _flag, False, "NaN in planned memory until it is written"),
    Option("stop_after", "TW_STOP_AFTER", str, "", "the pass after which to stop compiling"),
    Option("fuel", "TW_FUEL", int, -1, "stop rewriting after this many rules fired; -1 never"),
    Option("override", "TW_OVERRIDE", str, "", "folder with edited dumps to use instead"),
    Option("time", "TW_TIME", _flag, False, "print what each pass took"),
    Option("cache", "TW_CACHE", str, "", "folder of compiled kernels; `off` for none"),
    Option("cache_programs", "TW_CACHE_PROGRAMS", int, 2048, "MiB of whole programs kept; 0: none"),
    Option("threads", "TW_THREADS", int, 0, "threads of compiled programs; 0 for all cores"),
    Option("seed", "TW_SEED", int, 0, "seed of everything random in the compiler"),
    Option("target", "TW_TARGET", str, "", "the machine to compile for; this one if empty"),
    Option("fast_math", "TW_FAST_MATH", int, 1, "rounding errors accepted for speed: 0, 1 or 2"),
    Option("no_color", "NO_COLOR", _flag, False, "plain text on terminals"),
)
_BY_NAME = {o.name: o for o in OPTIONS}
_NONE: Mapping[str, object] = MappingProxyType({})
_SET: ContextVar[Mapping[str, object]] = ContextVar("options", default=_NONE)


def get(name: str):
    """The value of an option here and now."""
    option = _BY_NAME[name]
    chosen = _SET.get()
    if name in chosen:
        return chosen[name]
    text = os.environ.get(option.variable)
    if text is None:
        return option.default
    try:
        return option.read(text)
    except ValueError:
        raise CompileError(
            f"{option.variable} is {text!r}, which is not {option.read.__name__}", help=option.doc
        ) from None


@contextmanager
def options(**values) -> Iterator[None]:
    """Set options for what runs inside."""
    unknown = set(values) - set(_BY_NAME)
    if unknown:
        raise TypeError(f"no option is named {', '.join(sorted(unknown))}")
    token = _SET.set({**_SET.get(), **values})
    try:
        yield
    finally:
        _SET.reset(token)


def environment(prefix: str = "TW_") -> dict[str, str]:
    """The variables that differ from the defaults, for reports."""
    return {k: v for k, v in os.environ.items() if k.startswith(prefix)}
