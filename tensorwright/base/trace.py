"""What the compiler did and why: passes with times, rules fired, decisions with reasons, dumps.

    with trace.recording() as t:
        with trace.running("fuse"):
            trace.decision("fuse", node, "no", "reduction consumed twice")
    print(t.report())

Without a recording, events cost one look at a context variable and are dropped.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from tensorwright.base import config


@dataclass(frozen=True)
class Fired:
    """A rule was applied to a node in a pass."""

    pass_: str
    rule: str
    node: object


@dataclass(frozen=True)
class Decision:
    """What was decided about a subject, and why."""

    pass_: str
    kind: str
    subject: object
    verdict: str
    reason: str


@dataclass
class Timing:
    """One pass or stage; `inner` are those that ran inside it."""

    name: str
    seconds: float = 0.0
    changed: bool = True
    inner: list[Timing] = field(default_factory=list)


@dataclass
class Trace:
    """Everything recorded, in order."""

    root: Timing = field(default_factory=lambda: Timing(""))
    fired: list[Fired] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    open: list[Timing] = field(default_factory=list)
    dumps: int = 0
    last_dump: str = ""

    def __post_init__(self) -> None:
        self.open.append(self.root)

    @property
    def pass_(self) -> str:
        return self.open[-1].name

    def counts(self) -> Counter[tuple[str, str]]:
        """(pass, rule) -> how often it fired."""
        return Counter((f.pass_, f.rule) for f in self.fired)

    def report(self) -> str:
        """The timing tree, rule counts and decisions as text."""
        lines = [*_tree(self.root.inner, 0)]
        lines += [f"{p}: {r} fired {n} times" for (p, r), n in self.counts().most_common()]
        lines += [f"{d.kind}: {d.subject}: {d.verdict}: {d.reason}" for d in self.decisions]
        return "\n".join(lines)


def _tree(timings: list[Timing], depth: int) -> Iterator[str]:
    for t in timings:
        mark = "" if t.changed else "  (no change)"
        yield f"{t.seconds * 1e3:10.2f} ms  {'  ' * depth}{t.name}{mark}"
        yield from _tree(t.inner, depth + 1)


_CURRENT: ContextVar[Trace | None] = ContextVar("trace", default=None)
_BURNT: ContextVar[list[int] | None] = ContextVar("burnt", default=None)


@contextmanager
def recording() -> Iterator[Trace]:
    """Record what happens inside."""
    t = Trace()
    token, burnt = _CURRENT.set(t), _BURNT.set([0])
    start = time.perf_counter()
    try:
        yield t
    finally:
        t.root.seconds = time.perf_counter() - start
        _CURRENT.reset(token)
        _BURNT.reset(burnt)


def current() -> Trace | None:
    return _CURRENT.get()


@contextmanager
def running(name: str) -> Iterator[Timing]:
    """A pass or stage runs inside; its timing is recorded, and printed under TW_TIME."""
    t = _CURRENT.get()
    timing = Timing(name)
    if t is not None:
        t.open[-1].inner.append(timing)
        t.open.append(timing)
    start = time.perf_counter()
    try:
        yield timing
    finally:
        timing.seconds = time.perf_counter() - start
        if t is not None:
            t.open.pop()
        if config.get("time"):
            depth = 0 if t is None else len(t.open) - 1
            print(*_tree([Timing(name, timing.seconds, timing.changed)], depth), file=sys.stderr)


def fired(rule: str, node: object) -> None:
    """Record that a rule was applied to a node."""
    t = _CURRENT.get()
    if t is not None:
        t.fired.append(Fired(t.pass_, rule, node))


def decision(kind: str, subject: object, verdict: str, reason: str = "") -> None:
    """Record a decision; printed at once if TW_LOG names its kind."""
    t = _CURRENT.get()
    if t is not None:
        t.decisions.append(Decision(t.pass_, kind, subject, verdict, reason))
    if kind in config.get("log"):
        print(f"{kind}: {subject}: {verdict}{': ' + reason if reason else ''}", file=sys.stderr)


def burn() -> bool:
    """Take one unit of TW_FUEL; False if there is none left and rewriting must stop."""
    limit = config.get("fuel")
    if limit < 0:
        return True
    burnt = _BURNT.get()
    if burnt is None:
        burnt = [0]
        _BURNT.set(burnt)
    if burnt[0] >= limit:
        return False
    burnt[0] += 1
    return True


def dump(name: str, text: str, suffix: str = ".py") -> Path | None:
    """Write an artefact to the TW_DUMP folder under the next number, unless it is the same as the
    one before."""
    folder = config.get("dump")
    t = _CURRENT.get()
    if not folder or (t is not None and t.last_dump == text):
        return None
    number = len(list(Path(folder).glob("[0-9]*"))) if t is None else t.dumps
    if t is not None:
        t.dumps, t.last_dump = t.dumps + 1, text
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder, f"{number:03d}_{name}{suffix}")
    path.write_text(text)
    return path
