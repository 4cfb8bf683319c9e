"""Many sequences through one program: continuous batching over a cache in pages.

    engine = Engine(tw.compile(Llama(config, max_batch=8)))
    r = engine.submit([1, 15, 7], max_tokens=20);    engine.run();    r.output

Each step takes the prompt of one sequence that waits, if there is room for it, else one new token
of every sequence that runs; sequences come and go between steps (Yu et al. 2022, "Orca"). A
sequence takes pages as it grows; when none is left the youngest gives its own back and starts over
later. Nothing is allocated per step but the arrays that the program returns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tensorwright.base.errors import RunError
from tensorwright.runtime.buffer import numpy_dtype
from tensorwright.runtime.program import Program


@dataclass(eq=False)
class Sampling:
    """temperature 0 takes the most likely token; top_k 0 and top_p 1 are no limits."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(eq=False)
class Generation:
    """A text in the making. tokens: all of it; held: how many of them are in the cache. finish: why
    it ended, "" while it goes on: "stop" (a stop token), "tokens" (as many as wanted), "length"
    (the cache holds no more)."""

    tokens: list[int]
    prompt: int
    max_tokens: int
    sampling: Sampling
    stop: frozenset[int]
    keep: bool = False
    held: int = 0
    pages: list[int] = field(default_factory=list)
    made: int = 0
    finish: str = ""

    @property
    def output(self) -> list[int]:
        return self.tokens[self.prompt :]

    @property
    def pending(self) -> list[int]:
        return self.tokens[self.held :]


class Engine:
    """pages: of the cache; default: enough for all sequences at their longest."""

    def __init__(self, program: Program, pages: int | None = None, seed: int = 0) -> None:
        self.prefill, self.decode = program.prefill, program.decode
        inputs = {i.name: i for i in self.decode.inputs}
        (batch,) = inputs["past"].shape
        self.batch = batch if isinstance(batch, int) else self.decode.manifest.symbols[batch].max
        self.width = inputs["table"].shape[1]  # pages of a sequence
        self.page = inputs["keys"].shape[4]
        self.longest = self.width * self.page
        count = pages or self.batch * self.width
        self.keys, self.values = (
            np.zeros([count if isinstance(d, str) else d for d in inputs[n].shape],
                     numpy_dtype(inputs[n].dtype)) for n in ("keys", "values")
        )  # fmt: skip
        self.free = list(range(count))[::-1]
        self.waiting: deque[Generation] = deque()
        self.running: list[Generation] = []
        self.key = np.array([seed, 0], np.uint64)
        self._rows = {
            name: np.zeros((self.batch, *i.shape[1:]), numpy_dtype(i.dtype))
            for name, i in inputs.items() if name not in ("keys", "values", "key")
        }  # fmt: skip

    def submit(
        self, tokens: Sequence[int], max_tokens: int = 256, sampling: Sampling | None = None,
        stop: Sequence[int] = (), keep: bool = False,
    ) -> Generation:  # fmt: skip
        """A new sequence behind a prompt. keep: hold its cache when it ends, for `resume`."""
        new = Generation(list(map(int, tokens)), len(tokens), max_tokens, sampling or Sampling(),
                        frozenset(stop), keep)  # fmt: skip
        self._queue(new)
        return new

    def resume(self, s: Generation, tokens: Sequence[int], max_tokens: int = 256) -> None:
        """Go on with a sequence that ended, and was kept, as if its text was `tokens`: what they
        have in common is not read again."""
        tokens = list(map(int, tokens))
        pairs = enumerate(zip(s.tokens[: s.held], tokens))
        same = next((k for k, (a, b) in pairs if a != b), min(s.held, len(tokens)))
        s.tokens, s.held = tokens, min(same, len(tokens) - 1)
        s.prompt, s.max_tokens, s.made, s.finish = len(tokens), max_tokens, 0, ""
        self._queue(s)

    def _queue(self, s: Generation) -> None:
        if not s.pending:
            raise RunError("a sequence begins with at least one token")
        if len(s.tokens) >= self.longest or self._needed(s) > self.keys.shape[1]:
            raise RunError(
                f"a prompt of {len(s.tokens)} tokens: the cache holds {self.longest} of a sequence",
                help="compile the model for a larger max_length",
            )
        self.waiting.append(s)

    def release(self, s: Generation) -> None:
        """Give back the pages of a sequence; it may be resumed still, but is then read anew."""
        self.free += reversed(s.pages)
        s.pages, s.held = [], 0

    def run(self) -> None:
        """Step until nothing is left to do."""
        while self.waiting or self.running:
            self.step()

    def stream(self, s: Generation) -> Iterator[int]:
        """The tokens of one sequence as they come."""
        while not s.finish:
            yield from (token for who, token in self.step() if who is s)

    def step(self) -> list[tuple[Generation, int]]:
        """One call of the program; the new token of each sequence that took part."""
        s = self._admitted()
        if s is not None:
            batch, result = [s], self._call(self.prefill, [s], np.array([s.pending], np.int64))
        else:
            batch = self._grown()
            if not batch:
                return []
            result = self._call(self.decode, batch, None)
        found = [(who, int(token)) for who, token in zip(batch, result[0])]
        for who, token in found:
            self._advance(who, token)
        return found

    # ---- sequences -----------------------------------------------------------------------------

    def _needed(self, s: Generation) -> int:
        """Pages that it lacks for the tokens that it has."""
        return -(-len(s.tokens) // self.page) - len(s.pages)

    def _admitted(self) -> Generation | None:
        """The next sequence that waits, with its pages, if it can run now."""
        if not self.waiting or len(self.running) == self.batch:
            return None
        s = self.waiting[0]
        if self._needed(s) > len(self.free):
            if not self.running:
                raise RunError("the cache is full of sequences that are kept",
                               help="release them, or give the engine more pages")  # fmt: skip
            return None
        self.waiting.popleft()
        self._take(s)
        self.running.append(s)
        return s

    def _take(self, s: Generation) -> None:
        s.pages += [self.free.pop() for _ in range(self._needed(s))]

    def _grown(self) -> list[Generation]:
        """All that run, each with a page for its new token; the youngest wait if there is none."""
        for s in list(self.running):
            while s in self.running and self._needed(s) > len(self.free):
                youngest = self.running.pop()
                self.release(youngest)
                self.waiting.appendleft(youngest)
            if s in self.running:
                self._take(s)
        return self.running

    def _advance(self, s: Generation, token: int) -> None:
        s.held = len(s.tokens)
        s.tokens.append(token)
        s.made += 1
        if token in s.stop:
            s.finish = "stop"
        elif s.made >= s.max_tokens:
            s.finish = "tokens"
        elif len(s.tokens) > self.longest:
            s.finish = "length"
        if s.finish:
            self.running.remove(s)
            if not s.keep:
                self.release(s)

    # ---- calls ---------------------------------------------------------------------------------

    def _call(self, entry: Program, batch: list[Generation], tokens: np.ndarray | None):
        n, rows = len(batch), self._rows
        for k, s in enumerate(batch):
            rows["tokens"][k] = s.tokens[-1]
            rows["past"][k] = s.held
            rows["table"][k, : len(s.pages)] = s.pages
            rows["temperature"][k] = s.sampling.temperature
            rows["top_k"][k], rows["top_p"][k] = s.sampling.top_k, s.sampling.top_p
        self.key[1] += np.uint64(1)
        part = {name: a[:n] for name, a in rows.items()}
        if tokens is not None:
            part["tokens"] = tokens
        return entry(**part, keys=self.keys, values=self.values, key=self.key)
