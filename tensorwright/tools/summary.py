"""What a program is, in a few lines: for `tw compile`, `tw explain` and the report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tensorwright.runtime.program import Program
from tensorwright.tools.memory import frame_sizes
from tensorwright.tools.output import size

_ONNX_NODE = re.compile(r'.*? node "(?P<name>.*)" \((?P<op>\w+)\)\Z')


@dataclass(frozen=True)
class Summary:
    """Sizes in bytes; `arena` is None for loaded programs, a text where it is symbolic."""

    name: str
    target: str
    threads: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    symbols: dict[str, str]
    kernels: int
    code: int
    weights: int
    arena: int | str | None
    slow: tuple[str, ...] = ()  # kernels that are known to be slower than they should be, and why

    def rows(self) -> list[tuple[str, str]]:
        """(name, value) as people read them."""
        arena = size(self.arena) if isinstance(self.arena, int) else self.arena
        rows = [
            ("program", self.name),
            *(("input" if k == 0 else "", t) for k, t in enumerate(self.inputs)),
            *(("output" if k == 0 else "", t) for k, t in enumerate(self.outputs)),
            *(("size", f"{n}: {t}") for n, t in self.symbols.items()),
            ("target", f"{self.target}, {self.threads} thread{'s'[: self.threads - 1]}"),
            ("kernels", str(self.kernels)),
            ("weights", size(self.weights)),
            ("code", size(self.code)),
        ]
        rows += [] if arena is None else [("arena", arena)]
        return [*rows, *(("slow" if k == 0 else "", t) for k, t in enumerate(self.slow))]


def summarize(program: Program) -> Summary:
    """The summary of a compiled or loaded program."""
    m = program.manifest
    return Summary(
        name=m.name,
        target=m.target.description or m.target.triple,
        threads=program.threads,
        inputs=tuple(map(str, m.inputs)),
        outputs=tuple(map(str, m.outputs)),
        symbols={n: str(s) for n, s in m.symbols.items()},
        kernels=len(m.kernels),
        code=sum(map(len, program._objects)),
        weights=sum(w.nbytes for w in program._weights),
        arena=frame_sizes(program),
        slow=tuple(slow_kernels(program)),
    )


def slow_kernels(program: Program) -> Iterator[str]:
    """What to tell of kernels that the rules of the compiler could not schedule as they should."""
    for k in program.manifest.kernels:
        if k.refused:
            source = f" of {short_source(k.sources[0])}" if k.sources else ""
            yield (f"{k.name}{source} is right but runs on plain loops: {k.refused}; please report "
                   "it with the model")  # fmt: skip


def short_source(text: str) -> str:
    """`/fc1/MatMul (MatMul)` for a place in an ONNX file; other places as they are."""
    found = _ONNX_NODE.match(text)
    return f"{found['name']} ({found['op']})" if found else text
