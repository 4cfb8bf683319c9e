"""`tw doctor`."""

from __future__ import annotations

from rich.text import Text

from tensorwright.tools.doctor import ADVICE, OK, PROBLEM, Check, examine
from tensorwright.tools.options import command
from tensorwright.tools.output import Column, Output

MARKS = {OK: ("✓", "green"), ADVICE: ("•", "yellow"), PROBLEM: ("✗", "red")}


@command()
def command(output: Output) -> int:
    """Check this installation, and say how to repair it.

    \b
        tw doctor
        tw doctor --json

    Exit code 1 says that something does not work.
    """
    checks = examine()
    broken = [c for c in checks if c.state == PROBLEM]
    if output.as_json:
        output.json({"ok": not broken, "checks": checks})
    else:
        columns = (Column(""), Column("", style="bold"), Column("found"), Column("what to do"))
        for group in dict.fromkeys(c.group for c in checks):
            output.table(columns, [row(c) for c in checks if c.group == group], group)
        verdict = f"{len(broken)} problems" if broken else "everything works"
        output.print(verdict, "red" if broken else "green")
    return 1 if broken else 0


def row(c: Check) -> tuple:
    mark, style = MARKS[c.state]
    return Text(mark, style=style), c.name, c.found, c.fix
