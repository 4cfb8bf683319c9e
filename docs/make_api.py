"""Write docs/api.md and the file lists of docs/floors from docstrings.

python docs/make_api.py            writes them
python docs/make_api.py --check    only says whether they are up to date (exit code 1 if not)
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path

import tensorwright as tw
from tensorwright.base.config import OPTIONS
from tensorwright.tools.cli import COMMANDS, EXIT_CODES

DOCS = Path(__file__).resolve().parent
PACKAGE = DOCS.parent / "tensorwright"
NAMES = (
    "compile",
    "load",
    "function",
    "cond",
    "while_loop",
    "scan",
    "vmap",
    "batch",
    "compare",
    "show",
    "reference",
)
CLASSES = {
    "Program": "tensorwright.runtime.program",
    "Profile": "tensorwright.runtime.profile",
    "Comparison": "tensorwright.tools.compare",
    "Explanation": "tensorwright.tools.explain",
}
METHODS = {
    "Program": ("__call__", "save", "profile", "text", "explain", "compare", "report"),
    "Profile": ("to_chrome_trace",),
}
ERRORS = ("TensorwrightError", "FrontendError", "CompileError", "RunError", "ArtifactError",
          "InternalError")  # fmt: skip
TYPES = '`tw.f32` and its like stand for element types in annotations, as in `tw.f32["n", 64]`.'
FILES = re.compile(r"(<!-- files: (.*?) -->\n).*?(<!-- /files -->)", re.S)


def signature(name: str, f) -> str:
    """The signature without types of results and without `self`."""
    found = inspect.signature(f)
    parameters = [
        p.replace(annotation=p.empty) for n, p in found.parameters.items() if n not in ("self",)
    ]
    if parameters and parameters[0].name == "program" and name.startswith("program."):
        parameters = parameters[1:]
    return f"{name}{found.replace(parameters=parameters, return_annotation=found.empty)}"


def entry(title: str, f) -> str:
    doc = inspect.getdoc(f) or ""
    return f"### `{signature(title, f)}`\n\n{markdown(doc)}\n"


def markdown(doc: str) -> str:
    """A docstring as Markdown: fields such as `model: ...` become list items."""
    lines, inside = [], False
    for line in doc.splitlines():
        field = re.match(r"(\w+(?:, \w+)*): (.*)", line)
        if field:
            lines.append(("" if inside else "\n") + f"- `{field[1]}`: {field[2]}")
            inside = True
        elif inside and line.startswith("    "):
            lines.append("  " + line.strip())
        else:
            lines.append(("\n" if inside and line.strip() else "") + line)
            inside = False
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def api() -> str:
    parts = [
        "# API",
        "Written by `docs/make_api.py` from docstrings.",
        "## `import tensorwright as tw`",
    ]
    parts += [entry(f"tw.{name}", getattr(tw, name)) for name in NAMES]
    parts.append("### `tw.numpy`\n\n" + markdown(inspect.getdoc(tw.numpy)))
    parts.append("### Element types\n\n" + TYPES)
    for name, place in CLASSES.items():
        cls = getattr(importlib.import_module(place), name)
        parts.append(f"## {name}\n\n{markdown(class_doc(cls))}")
        for method in METHODS.get(name, ()):
            title = "program" if method == "__call__" else f"{name.lower()}.{method}"
            parts.append(entry(title, getattr(cls, method)))
    parts.append("## Errors\n")
    parts += [f"- `tw.errors.{n}`: {first_line(getattr(tw.errors, n))}" for n in ERRORS]
    parts.append("\n## Options\n\n| variable | default | does |\n|---|---|---|")
    parts[-1] += "".join(f"\n| `{o.variable}` | `{o.default!r}` | {o.doc} |" for o in OPTIONS)
    parts.append("## Command line\n\n| command | does |\n|---|---|")
    parts[-1] += "".join(f"\n| `tw {name}` | {text} |" for name, text in COMMANDS.items())
    parts.append("Exit codes: " + "; ".join(f"{code} {text}" for code, text in EXIT_CODES) + ".")
    text = "\n\n".join(parts)
    return re.sub(r"\n{3,}", "\n\n", text).replace("\n\n- `tw.errors", "\n- `tw.errors") + "\n"


def class_doc(cls) -> str:
    doc = inspect.getdoc(cls) or ""
    return inspect.getdoc(sys.modules[cls.__module__]) if "module's text" in doc else doc


def first_line(x) -> str:
    return (inspect.getdoc(x) or "").splitlines()[0]


def sentence(path: Path) -> str:
    """The first sentence of a file's docstring."""
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    first = doc.split("\n\n")[0].replace("\n", " ")
    return first.replace("|", "\\|")


def floor(path: Path) -> str:
    """A floor's page with its list of files: the named ones in reading order, then the others."""
    folder = PACKAGE / path.stem

    def listed(match: re.Match) -> str:
        named = [n for n in match[2].split() if (folder / n).exists()]
        files = [p for p in folder.rglob("*.py") if p.name != "__init__.py"]
        rest = sorted({str(p.relative_to(folder)) for p in files} - set(named))
        rows = "".join(f"| `{name}` | {sentence(folder / name)} |\n" for name in [*named, *rest])
        head = "## Files, in reading order\n\n| file | what |\n|---|---|"
        return f"{match[1]}\n{head}\n{rows}\n{match[3]}"

    return FILES.sub(listed, path.read_text())


def pages() -> dict[Path, str]:
    """Every generated page with what it should say."""
    return {DOCS / "api.md": api(), **{p: floor(p) for p in sorted(DOCS.glob("floors/*.md"))}}


def main() -> int:
    stale = [p for p, text in pages().items() if not p.exists() or p.read_text() != text]
    if "--check" in sys.argv:
        print(*(f"out of date: {p}" for p in stale), sep="\n")
        return 1 if stale else 0
    for p in stale:
        p.write_text(pages()[p])
    return 0


if __name__ == "__main__":
    sys.exit(main())
