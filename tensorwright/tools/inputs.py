"""Inputs for a program: what the command line asks for, and random ones for the rest.

    --input x=1x3x224x224:f32:randn   --input ids=@tokens.npy   --input mask=ones   --input t=0.5

Sizes that nothing fixes get a value that obeys what the model promises of them; indices stay inside
the tables that they index.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tensorwright.base.errors import RunError
from tensorwright.ir.dtype import DTYPES
from tensorwright.runtime import dims
from tensorwright.runtime.buffer import numpy_dtype
from tensorwright.runtime.manifest import SymbolInfo, TensorInfo

DTYPE_NAMES = frozenset(d.name for d in DTYPES)
FILLS = ("rand", "randn", "zeros", "ones", "arange")
HELP = "x=1x3x224x224:f32:randn, x=2x8, x=zeros, x=@file.npy or x=[[1, 2]]"
_SHAPE = re.compile(r"(\d+(x\d+)*|scalar)\Z")
_SIZES = (  # what a dimension of that name usually is
    (re.compile(r"batch|(b|n|bs)\Z", re.I), 1),
    (re.compile(r"height|width|(h|w)\Z", re.I), 224),
    (re.compile(r"seq|len|time|token|frame|(s|t|l)\Z", re.I), 32),
)


@dataclass(frozen=True)
class Spec:
    """One `--input`: an array, or any of shape, dtype and fill."""

    array: np.ndarray | None = None
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    fill: str | float = ""


def parse_specs(texts: Iterable[str]) -> dict[str, Spec]:
    """The `--input` options by name."""
    found = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name or not value:
            raise RunError(f"--input {text!r} is not NAME=WHAT", help=HELP)
        found[name.strip()] = parse_spec(name, value.strip())
    return found


def parse_spec(name: str, text: str) -> Spec:
    """What follows `NAME=`."""
    if text.startswith("@"):
        return Spec(array=read_array(Path(text[1:]), name))
    if text[0] in "[(":
        return Spec(array=_literal(text))
    shape, dtype, fill = None, "", ""
    for part in text.split(":"):
        is_shape = _SHAPE.match(part) and (not part.isdigit() or ":" in text)
        if is_shape and shape is None:
            shape = () if part == "scalar" else tuple(map(int, part.split("x")))
        elif part in FILLS:
            fill = part
        elif _is_number(part):
            fill = float(part)
        elif part in DTYPE_NAMES:
            dtype = part
        else:
            raise RunError(f"--input {name}={text}: what is {part!r}?", help=HELP)
    return Spec(shape=shape, dtype=dtype, fill=fill)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _literal(text: str) -> np.ndarray:
    try:
        return np.asarray(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        raise RunError(f"{text!r} is not an array literal", help=HELP) from None


def read_array(path: Path, name: str) -> np.ndarray:
    """A `.npy` file, or the array of that name (or the only one) in an `.npz` file."""
    try:
        loaded = np.load(path)
    except (OSError, ValueError) as e:
        raise RunError(f"input '{name}': cannot read {path}: {e}") from None
    if isinstance(loaded, np.ndarray):
        return loaded
    key = name if name in loaded.files else loaded.files[0] if len(loaded.files) == 1 else ""
    if not key:
        raise RunError(
            f"{path} has no array '{name}'", help=f"it has {', '.join(loaded.files) or 'nothing'}"
        )
    return loaded[key]


def make_inputs(
    infos: Sequence[TensorInfo], symbols: Mapping[str, SymbolInfo], specs: Mapping[str, Spec] = {},
    sizes: Mapping[str, int] = {}, seed: int = 0, limits: Mapping[str, int] = {},
) -> dict[str, np.ndarray]:  # fmt: skip
    """An array for every input. `sizes` are values of symbols, `limits` how far the integers of
    an input may go."""
    unknown = [n for n in specs if n not in {i.name for i in infos}]
    if unknown:
        raise RunError(
            f"there is no input {', '.join(map(repr, unknown))}",
            notes=tuple(f"input {i}" for i in infos),
        )
    values = choose_sizes(infos, symbols, specs, sizes)
    rng = np.random.default_rng(seed)
    return {
        i.name: _make(i, specs.get(i.name, Spec()), values, rng, limits.get(i.name)) for i in infos
    }


def choose_sizes(infos, symbols, specs, sizes) -> dict[str, int]:
    """A value for every symbol of the inputs."""
    unknown = [n for n in sizes if n not in symbols]
    if unknown:
        raise RunError(
            f"there is no size {', '.join(map(repr, unknown))}",
            notes=(f"sizes of this model: {', '.join(symbols) or 'none'}",),
        )
    values = dict(sizes)
    for info in infos:
        spec = specs.get(info.name, Spec())
        shape = spec.shape if spec.array is None else spec.array.shape
        if shape is not None and len(shape) == len(info.shape):
            values = {**dims.bind(zip(info.shape, shape)), **values}
    for name, info in symbols.items():
        values.setdefault(name, default_size(name, info))
    return values


def default_size(name: str, info: SymbolInfo) -> int:
    """A usual size for a dimension of that name that the model allows."""
    wanted = next((size for pattern, size in _SIZES if pattern.search(name)), 8)
    if info.values:
        return min(info.values, key=lambda v: abs(v - wanted))
    low = max(info.min, 0)
    wanted = max(wanted, low)
    if info.max is not None:
        wanted = min(wanted, info.max)
    step = info.multiple_of
    rounded = wanted // step * step
    return rounded if rounded >= low else -(-low // step) * step


def _make(info: TensorInfo, spec: Spec, values, rng, limit: int | None) -> np.ndarray:
    if info.is_data:
        raise RunError(
            f"input '{info.name}' is a {info.type}, of which no value is made up",
            help="give it from Python: program(...), program.compare(engine, ...)",
        )
    dtype = numpy_dtype(spec.dtype or info.dtype)
    if spec.array is not None:
        return _fitting(info, spec.array, dtype)
    shape = spec.shape
    if shape is None:
        shape = tuple(dims.evaluate(d, values) for d in info.shape)
        if None in shape:
            lacking = [n for d in info.shape for n in dims.names(d) if n not in values]
            raise RunError(
                f"the size {', '.join(lacking) or info.type} of input '{info.name}' is not known",
                help=f"give its shape: --input {info.name}=2x3",
            )
    try:
        return fill(shape, dtype, spec.fill or usual_fill(info.name, dtype), rng, limit)
    except (MemoryError, ValueError, OverflowError):
        raise RunError(
            f"there is no memory for input '{info.name}' of shape {list(shape)}",
            help=f"choose smaller sizes: --input {info.name}=2x3 or --size NAME=N",
        ) from None


def _fitting(info: TensorInfo, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A literal in the input's type; a file's array only if nothing is lost."""
    if array.dtype == dtype or not np.can_cast(array.dtype, dtype, "same_kind"):
        return array
    return array.astype(dtype)


def usual_fill(name: str, dtype: np.dtype) -> str:
    if dtype.kind in "iub" and "mask" in name.lower():
        return "ones"
    if dtype.kind in "iu" and "position" in name.lower():
        return "arange"
    return "randn" if dtype.kind not in "iub" else "rand"


def fill(shape, dtype: np.dtype, how: str | float, rng, limit: int | None = None) -> np.ndarray:
    """An array by the name of a fill, or of one number."""
    if not isinstance(how, str):
        return np.full(shape, how).astype(dtype)
    if how in ("zeros", "ones"):
        return getattr(np, how)(shape, dtype)
    if how == "arange":
        last = shape[-1] if shape else 1
        return np.broadcast_to(np.arange(last), shape).astype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind in "iu":
        return rng.integers(0, max(limit or 10, 1), shape).astype(dtype)
    draw = rng.standard_normal if how == "randn" else rng.random
    return np.asarray(draw(shape)).astype(dtype)
