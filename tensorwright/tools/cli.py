"""`tw`, the command line: names of the commands, errors and exit codes.

A command's module is imported when it is run; the list that `tw --help` shows is here, so that
help is quick. Whatever goes wrong ends in one rendered error and a documented exit code.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback

import rich_click as click

from tensorwright import __version__
from tensorwright.base.errors import (
    ArtifactError,
    CompileError,
    FrontendError,
    InternalError,
    RunError,
    TensorwrightError,
    unexpected,
)

COMMANDS = {
    "compile": "Compile a model to a .tw file.",
    "run": "Run a model on given or random inputs.",
    "bench": "Measure latency, alone or beside other engines.",
    "compare": "Compare the numbers with another engine, layer by layer.",
    "show": "Print the program, before or after any pass.",
    "explain": "Tell what the compiler decided, and why.",
    "bisect": "Find the pass and the kernel where numbers go wrong.",
    "profile": "Tell where the time goes, and how near the machine's limit.",
    "report": "Write one HTML page about a program.",
    "chat": "Talk with a language model, or let it go on with a text.",
    "targets": "List the machines that can be compiled for.",
    "doctor": "Check this installation, and say how to repair it.",
    "cache": "Look after the compiled kernels on disk.",
}
EXIT_CODES = (
    (0, "it worked"),
    (1, "it ran, and the answer is no: outside the tolerance, a check failed"),
    (2, "the command line is not understood"),
    (3, "the model is not understood"),
    (4, "the model cannot be compiled so"),
    (5, "running failed: wrong inputs, a check in the program"),
    (6, "a file cannot be read, written or used on this machine"),
    (70, "a bug of ours"),
    (130, "interrupted"),
)
_CODE_OF = {FrontendError: 3, CompileError: 4, RunError: 5, ArtifactError: 6, InternalError: 70}


class Commands(click.RichGroup):
    """Commands by name, each in a module of its own."""

    listing = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, 1)
            if near:
                ctx.fail(f"No such command '{name}'; did you mean '{near[0]}'?")
            return None
        if self.listing:
            return click.RichCommand(name, short_help=COMMANDS[name], help=COMMANDS[name])
        return importlib.import_module(f"tensorwright.tools.commands.{name}").command

    def format_help(self, ctx: click.Context, formatter) -> None:
        self.listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self.listing = False


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes:\n\n" + "\n\n".join(f"{code}: {text}" for code, text in EXIT_CODES),
)
@click.version_option(__version__, prog_name="tw")
def cli() -> None:
    """Compile machine-learning models into small, fast native programs.

    \b
        tw run model.onnx                       compile, run on random inputs
        tw compile model.onnx -o model.tw       a file for `tensorwright.load`
        tw bench model.onnx --against onnxruntime
    """


def exit_code(error: TensorwrightError) -> int:
    return next((code for kind, code in _CODE_OF.items() if isinstance(error, kind)), 70)


def run(arguments: list[str]) -> int:
    """Run a command line; the exit code."""
    try:
        result = cli.main(arguments, prog_name="tw", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as e:
        e.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        return silenced()
    except SystemExit as e:  # what click makes of a broken pipe, among others
        if isinstance(e.__context__, BrokenPipeError):
            return silenced()
        raise
    except TensorwrightError as e:
        return fail(e, arguments)
    except Exception as e:
        if "--debug" in arguments:
            traceback.print_exc()
            return 70
        return fail(unexpected(e), arguments)


def silenced() -> int:
    """What read our output is gone, which is no failure; nothing more can be written there."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def fail(error: TensorwrightError, arguments: list[str]) -> int:
    """Show an error; the exit code for it."""
    from tensorwright.tools.output import Output

    if "--debug" in arguments:
        traceback.print_exc()
    code = exit_code(error)
    Output("--json" in arguments).error(error, code)
    return code


def main() -> None:
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        silenced()
    sys.exit(code)
