"""What a compiled program says about itself: names, types, target, messages, kernels.

The manifest is data only, made by the compiler, kept in the artifact as JSON, and all that the
runtime knows of a program: `from_json(to_json(m)) == m`.

    TensorInfo("input_ids", "i64", ("n", 128))   prints as   input_ids: i64[n, 128]
"""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from tensorwright.base.errors import ArtifactError

FORMAT_VERSION = 3
LONGEST = 32  # characters of a dimension that messages show

Dim = int | str


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output; symbolic dimensions are texts such as "n" or "4*n+1"."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.type}"

    @property
    def type(self) -> str:
        if self.is_data:
            return self.dtype
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    @property
    def brief(self) -> str:
        """As printed, with dots for dimensions that are long expressions."""
        short = tuple(d if len(str(d)) <= LONGEST else "..." for d in self.shape)
        return str(replace(self, shape=short))

    @property
    def is_data(self) -> bool:
        """Whether `dtype` is the name of a data type."""
        return self.dtype[:1].isupper()

    @property
    def is_static(self) -> bool:
        return all(isinstance(d, int) for d in self.shape)


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """A row of the profile: the work of one call, which may depend on sizes ("4096*n"), and the
    model's operators it stands for. refused: why it runs on plain loops although a rule of the
    compiler is meant to make it fast; "" where it does not."""

    name: str
    flops: Dim = 0
    bytes: Dim = 0
    sources: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True, slots=True)
class SymbolInfo:
    """What was promised about a symbolic dimension."""

    min: int = 0
    max: int | None = None
    multiple_of: int = 1
    values: tuple[int, ...] = ()  # the only ones, if any are given

    def __str__(self) -> str:
        if self.values:
            return f"one of {', '.join(map(str, self.values))}"
        text = f"{self.min}..{'' if self.max is None else self.max}"
        return text if self.multiple_of == 1 else f"{text}, a multiple of {self.multiple_of}"


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """The machine the code is for; features are named as in /proc/cpuinfo."""

    triple: str
    features: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True)
class EntryInfo:
    """How a function of the program is called. state: (input, output) positions of outputs that
    take the memory of an input."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    symbols: dict[str, SymbolInfo] = field(default_factory=dict)
    state: tuple[tuple[int, int], ...] = ()


def entry_symbol(name: str = "") -> str:
    """What the native code calls an entry; the main one has no name."""
    return f"tw_main_{name}" if name else "tw_main"


@dataclass(frozen=True, slots=True)
class Manifest:
    """See the fields; `threads` 0 means one per core of the machine that runs the program.
    `inputs`, `outputs`, `symbols` and `state` are those of the main entry; `entries` has all, the
    main one first, if they have names."""

    name: str
    target: TargetInfo
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    symbols: dict[str, SymbolInfo] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    kernels: tuple[KernelInfo, ...] = ()
    threads: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    state: tuple[tuple[int, int], ...] = ()
    entries: dict[str, EntryInfo] = field(default_factory=dict)
    # data type -> its cases: [name, [[field, element type or data type, shape], ...]]
    data: dict[str, list] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION


def to_json(manifest: Manifest) -> dict[str, Any]:
    """A manifest as plain lists, dicts, numbers and texts."""
    return asdict(manifest)


def from_json(data: Any) -> Manifest:
    """The manifest in parsed JSON; ArtifactError where something is missing or of a wrong kind."""
    if not isinstance(data, dict) or not isinstance(data.get("format_version"), int):
        raise ArtifactError("the manifest has no format version: not a Tensorwright artifact")
    if data["format_version"] != FORMAT_VERSION:
        raise ArtifactError(
            f"artifact has format version {data['format_version']}, "
            f"this runtime reads version {FORMAT_VERSION}",
            help="compile the model again with this version of Tensorwright",
        )
    try:
        return _manifest(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"the manifest is damaged: {type(error).__name__}: {error}") from error


def _manifest(data: dict[str, Any]) -> Manifest:
    known = {f.name for f in fields(Manifest)}
    target = data["target"]
    return Manifest(
        **{
            **{k: v for k, v in data.items() if k in known},
            "name": _text(data["name"]),
            "threads": _count(data["threads"]),
            "target": TargetInfo(
                _text(target["triple"]), _texts(target["features"]), _text(target["description"])
            ),
            **_entry(data),
            "entries": {_text(k): EntryInfo(**_entry(e))
                        for k, e in data.get("entries", {}).items()},
            "errors": _texts(data["errors"]),
            "kernels": tuple(_kernel(k) for k in data["kernels"]),
        }
    )  # fmt: skip


def _entry(data: dict[str, Any]) -> dict[str, Any]:
    """What a program and each of its entries say of their call."""
    return {
        "inputs": tuple(_tensor(t) for t in data["inputs"]),
        "outputs": tuple(_tensor(t) for t in data["outputs"]),
        "symbols": {_text(k): _symbol(v) for k, v in data["symbols"].items()},
        "state": tuple((_count(p), _count(r)) for p, r in data.get("state", ())),
    }


def _tensor(data: dict[str, Any]) -> TensorInfo:
    shape = tuple(_dim(d) for d in data["shape"])
    return TensorInfo(_text(data["name"]), _text(data["dtype"]), shape)


def _dim(value: Any) -> Dim:
    return value if isinstance(value, str) else _count(value)


def _symbol(data: dict[str, Any]) -> SymbolInfo:
    return SymbolInfo(**{**data, "values": tuple(data.get("values", ()))})


def _kernel(data: dict[str, Any]) -> KernelInfo:
    return KernelInfo(
        _text(data["name"]), _dim(data["flops"]), _dim(data["bytes"]), _texts(data["sources"]),
        _text(data.get("refused", "")),
    )  # fmt: skip


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(_text(v) for v in values)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a natural number")
    return value


def dumps(data: Any) -> bytes:
    """JSON as bytes, the same for equal data."""
    return json.dumps(data, ensure_ascii=False, indent=1).encode()
