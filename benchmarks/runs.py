"""What runs of a command measured, in files that later runs add to.

    --json all.json                      write the rows of this run
    --json all.json --join               in the place of the same rows that all.json has
    --join a.json b.json                 beside the rows of these files, of which later ones win
    --threads "" --join a.json b.json    measure nothing, only join

What was measured together is joined together: all peers on one model at one number of threads.
Every row says of what run it is, and a table of several runs says it too (`sources`).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path


@dataclass(kw_only=True)
class Measured:
    """`run`: when a run began and how it measured; `load` of the machine, 0 if not known."""

    run: str = ""
    load: float = 0.0

    @property
    def key(self) -> tuple:
        """The name of the row, and what else tells it from others."""
        raise NotImplementedError

    @classmethod
    def of_record(cls, record: dict):
        return cls(**record)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep what was measured")
    parser.add_argument("--join", type=Path, nargs="*", metavar="FILE",
                        help="add to the rows of these files; none: of --json")  # fmt: skip


class Rows:
    """What a command measures, one list for each kind of rows, beside what earlier runs did; `how`
    this run measures. The file is written anew with everything that is added."""

    def __init__(self, args: argparse.Namespace, how: str, **kinds: type[Measured]):
        self.path, self.run = args.json, f"{datetime.now():%Y-%m-%d %H:%M}, {how}"
        self.found: dict[str, list] = {name: [] for name in kinds}
        for path in earlier_files(args):
            for name, rows in read(path, kinds).items():
                self.found[name] = joined(self.found[name], rows)

    def add(self, kind: str, group: Sequence[Measured]) -> None:
        for row in group:
            row.run, row.load = self.run, round(os.getloadavg()[1], 1)
        self.found[kind] = joined(self.found[kind], group)
        if self.path:
            records = {name: [asdict(r) for r in rows] for name, rows in self.found.items()}
            draft = self.path.with_name(f"{self.path.name}.draft")
            draft.write_text(json.dumps(records))
            draft.replace(self.path)  # a run that is stopped here leaves what there was

    def ordered(self, kind: str, names: Sequence[str]) -> list:
        """In the order of these names, all others behind them."""
        place = {name: k for k, name in enumerate(names)}
        return sorted(self.found[kind], key=lambda r: place.get(r.key[0], len(place)))


def earlier_files(args: argparse.Namespace) -> list[Path]:
    if args.join is None:
        return []
    if not args.join and args.json is None:
        raise SystemExit("--join needs names of files, or --json")
    missing = [str(p) for p in args.join if not p.exists()]
    if missing:
        raise SystemExit(f"--join: there is no {', '.join(missing)}")
    return args.join or [args.json] * args.json.exists()


def read(path: Path, kinds: dict[str, type[Measured]]) -> dict[str, list]:
    """The rows of a file. One that does not say of what runs they are was written by one run."""
    known = json.loads(path.read_text())
    if isinstance(known, list):  # as files of one kind were written once
        known = {next(iter(kinds)): known}
    rows = {name: [make.of_record(r) for r in known.get(name, ())] for name, make in kinds.items()}
    ended = datetime.fromtimestamp(path.stat().st_mtime)
    for row in (r for group in rows.values() for r in group if not r.run):
        row.run = f"until {ended:%Y-%m-%d %H:%M}"
    return rows


def joined(earlier: Sequence[Measured], later: Sequence[Measured]) -> list:
    """With what was measured later in the place of the same."""
    groups = by_key(earlier) | by_key(later)
    return [row for group in groups.values() for row in group]


def by_key(rows: Sequence[Measured]) -> dict[tuple, list]:
    groups: dict[tuple, list] = {}
    for row in rows:
        groups.setdefault(row.key, []).append(row)
    return groups


def sources(rows: Sequence[Measured]) -> str:
    """A sentence: of what runs the rows are; of the largest the names are not told."""
    runs: dict[str, list[Measured]] = {}
    for row in rows:
        runs.setdefault(row.run, []).append(row)
    first, *rest = sorted(runs.values(), key=len, reverse=True) or [[]]
    if not rest:
        return f"One run: {told(first)}." if first else ""
    names = lambda group: ", ".join(dict.fromkeys(str(r.key[0]) for r in group))
    parts = [f"{names(group)}: {told(group)}" for group in rest]
    return f"Rows of {len(runs)} runs. {'. '.join(parts)}. All others: {told(first)}."


def told(group: Sequence[Measured]) -> str:
    load = max(row.load for row in group)
    return group[0].run + (f", load up to {load:.1f}" if load else "")
