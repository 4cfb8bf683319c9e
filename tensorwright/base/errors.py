"""The exceptions that reach users, and their one renderer.

Every error says what is wrong in one line, then where, then what is known, then the way out:

    error: matmul: inner dimensions differ: x.shape[1] is 16, w.shape[0] is 8
      at mlp.onnx, node "/fc1/MatMul"
      note: n: 1..4096
      help: w.shape[1] is 16; if w is stored as [out, in], transpose it
"""

import traceback


class TensorwrightError(Exception):
    """Base of all errors raised on purpose; catch this one to catch them all."""

    def __init__(
        self, message: str, notes: tuple[str, ...] = (), help: str = "", location: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.notes = tuple(notes)
        self.help = help
        self.location = location

    def __str__(self) -> str:
        return render(self)

    def located(self, where: tuple[str, ...], operands: str = "") -> "TensorwrightError":
        """The same error placed at the user's node and operands, unless it has a place already."""
        place = "   ".join(part for part in (", ".join(where), operands) if part)
        return type(self)(self.message, self.notes, self.help, self.location or place)

    def __reduce__(self) -> tuple:
        # Errors cross process borders (multiprocessing, test workers) with all their parts.
        return type(self), (self.message, self.notes, self.help, self.location)


class FrontendError(TensorwrightError):
    """The model is not understood."""


class CompileError(TensorwrightError):
    """The model is understood but cannot be compiled so."""


class RunError(TensorwrightError):
    """A call failed: wrong input, or a check of the program did not hold."""


class ArtifactError(TensorwrightError):
    """A file cannot be read, written or used on this machine."""


class InternalError(TensorwrightError):
    """Our bug, never the user's."""


def unexpected(e: Exception) -> InternalError:
    """An exception that should not have come so far, in the form of ours."""
    if isinstance(e, TensorwrightError):
        return InternalError(e.message, e.notes, e.help, e.location)
    last = traceback.extract_tb(e.__traceback__)[-1]
    where = f"{last.filename.rpartition('tensorwright/')[2]}:{last.lineno} in {last.name}"
    return InternalError(
        f"{type(e).__name__}: {e}", location=where,
        help="run it again with --debug for the traceback, and please report it",
    )  # fmt: skip


def render(error: TensorwrightError) -> str:
    """Lay an error out as text; continuation lines keep the indentation of their part."""
    kind = "internal error" if isinstance(error, InternalError) else "error"
    lines = [_part(f"{kind}: ", error.message, "")]
    if error.location:
        lines.append(_part("at ", error.location, "  "))
    lines += [_part("note: ", note, "  ") for note in error.notes]
    if error.help:
        lines.append(_part("help: ", error.help, "  "))
    return "\n".join(lines)


def _part(label: str, text: str, indent: str) -> str:
    continuation = "\n" + indent + " " * len(label)
    return indent + label + continuation.join(text.splitlines())
