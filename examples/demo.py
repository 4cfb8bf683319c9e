"""Tensorwright in one minute: `make demo`, or `make demo MODEL=path.onnx` for a model of yours.

Compiles a sentence encoder (MiniLM, real weights), a digit classifier and optionally any ONNX
file, and shows for each what it answers, how far that is from ONNX Runtime, and how long both take
on the same cores in the same interleaved run. Ends with report.html about the last program.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import onnx
from compare import Comparison, compare, random_feeds, reference_session
from google.protobuf.message import DecodeError
from rich.console import Console
from rich.table import Table

import tensorwright as tw
from tensorwright.tools.report import write_report

HERE = Path(__file__).resolve().parent
SENTENCES = [
    "A man is playing a guitar on stage.",
    "Someone performs music in front of an audience.",
    "The compiler turns a model into machine code.",
    "Machine learning models become native programs.",
    "It will rain in the mountains tomorrow.",
]
console = Console()


def run_model(title: str, model: onnx.ModelProto, feeds: dict, threads: int):
    """Compile, compare, print one line; returns the program and the comparison."""
    start = time.perf_counter()
    program = tw.compile(model, threads=threads)
    compiled = time.perf_counter() - start
    session = reference_session(model.SerializeToString(), threads)
    found = compare(program, session, feeds)
    print_comparison(title, compiled, threads, found)
    return program, found


def print_comparison(title: str, compiled: float, threads: int, found: Comparison) -> None:
    table = Table(title=f"{title}: compiled in {compiled:.2f} s, {threads} thread(s)")
    for column in ("", "min ms", "median ms", "largest difference (absolute, relative)"):
        table.add_column(column)
    gap = f"{found.absolute:.1e}, {found.relative:.1e}"
    for name, times, note in (
        ("Tensorwright", found.ours, gap),
        ("ONNX Runtime", found.theirs, ""),
    ):
        table.add_row(name, f"{times[0]:.3f}", f"{times[1]:.3f}", note)
    console.print(table)


def sentences(threads: int):
    """Embeddings of a few sentences and how alike they are."""
    import minilm

    feeds = minilm.tokenize(SENTENCES)
    program, found = run_model("MiniLM sentence embeddings", minilm.build(), feeds, threads)
    embedding = found.outputs[0]
    table = Table("sentence", *(str(i + 1) for i in range(len(SENTENCES))), title="similarity")
    for i, (text, row) in enumerate(zip(SENTENCES, embedding @ embedding.T)):
        table.add_row(f"{i + 1} {text}", *(f"{value:.2f}" for value in row))
    console.print(table)
    return program


def digits(threads: int):
    """Accuracy of the digit classifier on its held-out images."""
    held_out = np.load(HERE / "digits" / "digits_test.npz")
    feeds = {"image": (held_out["image"] / 16).astype(np.float32)}
    model = onnx.load(HERE / "digits" / "digits.onnx")
    program, found = run_model(f"Digits, batch {len(feeds['image'])}", model, feeds, threads)
    right = found.outputs[0].argmax(1) == held_out["label"]
    console.print(f"accuracy {right.mean():.2%} on {len(right)} held-out images\n")
    return program


def any_model(path: Path, threads: int):
    """A model of the user's, on random inputs."""
    model = onnx.load(path)
    feeds = random_feeds(model)
    for name, value in feeds.items():
        console.print(f"input {name}: {value.dtype}{list(value.shape)}", markup=False)
    program, _ = run_model(path.name, model, feeds, threads)
    return program


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile and compare with ONNX Runtime.")
    parser.add_argument("model", nargs="?", type=Path, help="an ONNX file; otherwise the examples")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.model and not args.model.is_file():
        parser.error(f"there is no file {args.model}")
    if args.model:
        try:
            program = any_model(args.model, args.threads)
        except (tw.errors.TensorwrightError, DecodeError) as e:
            sys.exit(f"{args.model}: {e}")
    else:
        digits(args.threads)
        program = sentences(args.threads)
    write_report(program, "report.html")
    console.print("wrote report.html")


if __name__ == "__main__":
    main()
