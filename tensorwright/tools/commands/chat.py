"""`tw chat`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import rich_click as click

from tensorwright.base.errors import ArtifactError
from tensorwright.driver.compile import compile
from tensorwright.nn.serve import Engine, Generation, Sampling
from tensorwright.nn.weights import load_folder
from tensorwright.tools.options import command
from tensorwright.tools.output import Output
from tensorwright.tools.text import Text

PROMPT = "> "
CUT = {"tokens": "; cut at --max-tokens", "length": "; --context holds no more"}


@command()
@click.argument("model", metavar="MODEL_DIR")
@click.option("--prompt", "-p", help="Answer this and end; else read lines from stdin.")
@click.option("--temperature", default=0.7, show_default=True, type=click.FloatRange(0),
              help="0 takes the most likely token.")  # fmt: skip
@click.option("--top-k", default=0, type=click.IntRange(0), help="Among so many tokens; 0: all.")
@click.option("--top-p", default=0.95, show_default=True, type=click.FloatRange(0, 1),
              help="Among the most likely tokens of this probability.")  # fmt: skip
@click.option("--max-tokens", default=512, show_default=True, type=click.IntRange(1))
@click.option("--context", default=2048, show_default=True, type=click.IntRange(2),
              help="Tokens of a conversation, at most.")  # fmt: skip
@click.option("--seed", default=0, show_default=True)
@click.option("--raw", is_flag=True, help="Go on with texts even if the model has a chat template.")
@click.option("--precision", default="model", show_default=True, help="model or bf16.")
@click.option("--threads", type=click.IntRange(1), help="Default: all usable CPUs.")
def command(
    model: str, prompt: str | None, temperature: float, top_k: int, top_p: float, max_tokens: int,
    context: int, seed: int, raw: bool, precision: str, threads: int | None, output: Output,
) -> None:  # fmt: skip
    """Talk with a language model, or let it go on with a text.

    MODEL_DIR has config.json, *.safetensors and tokenizer.json, as the `transformers` library
    saves them. A model without a chat template goes on with each line as with the beginning of a
    text.

    \b
        tw chat SmolLM2-135M-Instruct
        tw chat stories --prompt "Once upon a time" --temperature 0
        cat questions.txt | tw chat SmolLM2-135M-Instruct --max-tokens 100
    """
    if not Path(model).is_dir():
        raise ArtifactError(f"there is no folder {model}")
    text = Text.of(model)
    with output.progress(Path(model).name) as progress:
        llama = load_folder(model, max_length=context)
        program = compile(llama, precision=precision, threads=threads, observe=progress)
    engine = Engine(program, seed=seed)
    sampling = Sampling(temperature, top_k, top_p)
    talk = Talk(text, engine, sampling, max_tokens, bool(text.template) and not raw)
    answers = []
    for line in [prompt] if prompt is not None else lines(output):
        answer = talk.answer(line, output)
        answers.append({"prompt": line, **answer})
        output.remark(
            f"{answer['tokens']} tokens, {answer['tokens_per_second']:.1f} tokens/s; first after "
            f"{answer['first_seconds'] * 1e3:.0f} ms{CUT.get(answer['finish'], '')}"
        )
    if output.as_json:
        output.json({"answers": answers})


def lines(output: Output) -> Iterator[str]:
    """What is typed or piped in, line by line; empty lines are passed over."""
    while True:
        if sys.stdin.isatty() and not output.quiet:
            sys.stderr.write(PROMPT)
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.rstrip("\n")


class Talk:
    """A conversation, or texts one after another."""

    def __init__(self, text: Text, engine: Engine, sampling: Sampling, limit: int, chats: bool):
        self.text, self.engine, self.sampling, self.limit = text, engine, sampling, limit
        self.chats, self.messages = chats, []
        self.last: Generation | None = None

    def answer(self, line: str, output: Output) -> dict:
        """Write what the model says to a line as it comes; what it said, and how fast."""
        start = time.perf_counter()
        s = self.begin(line)
        times, said = [], ""
        if not self.chats and not output.as_json:  # a text is shown from its beginning
            sys.stdout.write(self.text.decode(s.tokens))

        def timed() -> Iterator[int]:
            for token in self.engine.stream(s):
                times.append(time.perf_counter())
                if token not in s.stop:
                    yield token

        for piece in self.text.pieces(s.tokens, timed()):
            said += piece
            if not output.as_json:
                sys.stdout.write(piece)
                sys.stdout.flush()
        if not output.as_json:
            sys.stdout.write("\n")
            sys.stdout.flush()
        if self.chats:
            self.messages.append({"role": "assistant", "content": said})
        took = times[-1] - times[0]
        return {"text": said, "tokens": len(times), "finish": s.finish,
                "first_seconds": times[0] - start,
                "tokens_per_second": (len(times) - 1) / took if took else 0.0}  # fmt: skip

    def begin(self, line: str) -> Generation:
        """The generation for a line; that of a conversation goes on from line to line."""
        if self.chats:
            self.messages.append({"role": "user", "content": line})
            tokens = self.text.turn(self.messages)
        else:
            tokens = self.text.encode(line)
        if self.last is None:
            self.last = self.engine.submit(tokens, self.limit, self.sampling, self.text.stop, True)
        else:
            self.engine.resume(self.last, tokens, self.limit)
        return self.last
