"""Schedules as records: which choices every kernel was scheduled with; written, read, replayed.

    {"format": "tensorwright schedules", "version": 1, "schedules": [
      {"kernel": "3f2a...", "target": "x86-64-avx2", "name": "dense",
       "choices": {"tile": [6, 2, 8]}, "does": ["contraction: 6 x 2 x 8 register tile"]}]}

A record belongs to the kernels of one structure (`identity`) on the target of that name; `name` and
`does` are for people. What is decided before there are kernels is a record too, under the name of
the decision: how a graph is laid out, by the structure of the graph as it enters
("layout:5d1c..."), and the algorithm of a convolution, by the kernel that it would be on its own
("algorithm:90ab..."). Records of other versions, and values that no candidate of the space is, are
errors. A target that carries records (`Schedules.on`) makes `schedule`, and those passes, follow
them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tensorwright.base import trace
from tensorwright.base.errors import ArtifactError, CompileError
from tensorwright.ir.graph import Graph
from tensorwright.ir.loop import Kernel
from tensorwright.ir.module import digest
from tensorwright.ir.printer import to_text
from tensorwright.schedule.space import Choices, Value
from tensorwright.target.target import Target

FORMAT, VERSION = "tensorwright schedules", 1
# what is decided for operators, before there are kernels: convolutions, and matrix products
ALGORITHM, PRODUCT = "algorithm", "product"


def identity(k: Kernel, kind: str = "") -> str:
    """Of what a kernel computes and how it was defined; its name and its origin do not matter.
    kind: what is decided for the operator that it defines, before anything is fused with it."""
    return key_of(kind, to_text(replace(k, name="k", sources=(), work=None)))


def key_of(kind: str, text: str) -> str:
    return f"{kind}{kind and ':'}{digest(text)}"


def graph_identity(kind: str, g: Graph) -> str:
    """The key of what the pass `kind` decides about a graph."""
    return key_of(kind, to_text(g))


def recorded_for_graphs(kind: str, target: Target) -> Callable[[Graph], Choices]:
    """The choices of a pass for each graph: by the target's record for it, if there is one."""
    known = {key: row for key, row in target.schedules if key.startswith(f"{kind}:")}
    return lambda g: Choices(dict(known.get(graph_identity(kind, g), ())) if known else {})


@dataclass(frozen=True)
class Record:
    """The choices of one kernel on one target. does: what the rule then did, in words."""

    kernel: str
    target: str
    name: str
    choices: dict[str, Value]
    does: tuple[str, ...] = ()

    @staticmethod
    def of_graph(
        kind: str, g: Graph, target: Target, choices: Choices, does: tuple[str, ...] = ()
    ) -> Record:
        """What a pass decided about a graph, given as it entered."""
        return Record(graph_identity(kind, g), target.name, g.name, choices.values(), does)

    @staticmethod
    def of(k: Kernel, made: Kernel, target: Target, choices: Choices) -> Record:
        return Record(identity(k), target.name, k.name, choices.values(), made.schedule)

    @staticmethod
    def of_algorithm(
        k: Kernel, target: Target, choices: Choices, kind: str, does: str
    ) -> Record:  # fmt: skip
        """The algorithm for an operator, which defines `k` on its own."""
        return Record(identity(k, kind), target.name, k.name, choices.values(), (does,))

    def __str__(self) -> str:
        kind, _, key = self.kernel.rpartition(":")
        head = f"{self.name}  {kind}{kind and ' '}{key[:12]}  {self.target}"
        choices = (f"{n} = {v}" for n, v in self.choices.items())
        return "\n    ".join((head, *self.does, *choices))


@dataclass(frozen=True)
class Schedules:
    """Records, in order. Print them, write them, compile with them."""

    records: tuple[Record, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.records))

    def to_json(self) -> str:
        rows = [vars(r) for r in self.records]
        head = {"format": FORMAT, "version": VERSION}
        return json.dumps({**head, "schedules": rows}, indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> Schedules:
        """Raises ValueError that says what is wrong."""
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError("it holds no schedules")
        if data.get("version") != VERSION:
            raise ValueError(f"its version is {data.get('version')}, not {VERSION}")
        try:
            return Schedules(tuple(
                Record(**{**row, "choices": {n: frozen(v) for n, v in row["choices"].items()},
                          "does": tuple(row.get("does", ()))})
                for row in data["schedules"]
            ))  # fmt: skip
        except (TypeError, KeyError, AttributeError) as e:
            raise ValueError(f"a record is not as it should be: {e}") from e

    def write(self, path: str | os.PathLike) -> None:
        Path(path).write_text(self.to_json())

    @staticmethod
    def read(path: str | os.PathLike) -> Schedules:
        """Raises ArtifactError for a file that cannot be read or is of another kind."""
        try:
            return Schedules.from_json(Path(path).read_text())
        except (OSError, ValueError) as e:
            raise ArtifactError(f"the schedules in {path} cannot be read: {e}") from e

    def on(self, target: Target) -> Target:
        """The target, asked to schedule by the records for it."""
        own = [r for r in self.records if r.target == target.name]
        if self.records and not own:
            others = ", ".join(sorted({r.target for r in self.records}))
            raise CompileError(f"the schedules are for {others}, not for {target.name}",
                               help="name the target, or write schedules for this one")  # fmt: skip
        rows = {r.kernel: tuple(r.choices.items()) for r in own}
        return replace(target, schedules=tuple(rows.items()))


def frozen(value) -> Value:
    """What JSON gave, with tuples for lists."""
    return tuple(map(frozen, value)) if isinstance(value, list) else value


def recorded(k: Kernel, target: Target, kind: str = "") -> dict[str, Value]:
    """The choices that the target's records have for a kernel, or for the operator it defines."""
    if not target.schedules:
        return {}
    return dict(dict(target.schedules).get(identity(k, kind), ()))


def report_unused(found: Iterable[str], target: Target, kind: str = "") -> None:
    """Tell of the target's records for kernels, or for decisions of this kind, that are for none of
    the keys found; raises CompileError if all are."""
    asked = [key for key, _ in target.schedules if key.rpartition(":")[0] == kind]
    known = set(found)
    unused = [key for key in asked if key not in known]
    what = {"": "kernel", ALGORITHM: "convolution", PRODUCT: "matrix product"}.get(kind, "graph")
    for key in unused:
        reason = f"no {what} of this program has the structure that it is for"
        trace.decision("schedules", f"record {key.rpartition(':')[2][:12]}", "not used", reason)
    if asked and len(unused) == len(asked):
        raise CompileError(
            f"none of the {len(unused)} schedules is for a {what} of this program",
            help="write them anew: the structure of kernels and graphs follows from the model, its"
            " sizes and types, the target and the version of the compiler",
        )
