"""Text to tokens and back, and how a model wants a conversation written.

    text = Text.of(folder);  ids = text.encode("Once upon");  text.decode(ids)

Needs the extra `llm`: the packages `tokenizers`, and `jinja2` for models with a chat template.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tensorwright.base.errors import ArtifactError
from tensorwright.nn.weights import read_json

BROKEN = "\ufffd"  # what a tokenizer gives for the beginning of a character


def needed(package: str, what: str):
    """A package of the extra, or an error that says how to get it."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ArtifactError(f"{what} needs the package '{package}'",
                            help="pip install 'tensorwright[llm]'") from None  # fmt: skip


@dataclass(frozen=True)
class Text:
    """template: the model's chat template ("" if it has none). begin: the token that texts begin
    with, None if the tokenizer puts it there or there is none. stop: tokens that end a text."""

    tokenizer: object
    template: str
    special: dict
    begin: int | None
    stop: tuple[int, ...]

    @staticmethod
    def of(folder: str | Path) -> Text:
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ArtifactError(f"there is no tokenizer.json in {folder}",
                                help="save the model's tokenizer in its fast form")  # fmt: skip
        tokenizers = needed("tokenizers", "a tokenizer")
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as e:  # the package raises plain exceptions
            raise ArtifactError(f"{path} is not understood: {e}") from None
        settings = [read_json(p) for n in ("config.json", "generation_config.json",
                    "tokenizer_config.json") if (p := folder / n).is_file()]  # fmt: skip
        merged = {k: v for s in settings for k, v in s.items() if v is not None}
        template = merged.get("chat_template", "")
        if not template and (folder / "chat_template.jinja").is_file():
            template = (folder / "chat_template.jinja").read_text()
        special = {k: _content(merged.get(k)) for k in ("bos_token", "eos_token", "pad_token")}
        stop = merged.get("eos_token_id")
        stop = [stop] if isinstance(stop, int) else list(stop or [])
        named = tokenizer.token_to_id(special["eos_token"]) if special["eos_token"] else None
        begin = merged.get("bos_token_id") if merged.get("add_bos_token", True) else None
        if begin in tokenizer.encode("a").ids:
            begin = None
        return Text(tokenizer, template if isinstance(template, str) else "", special, begin,
                    tuple({*stop, *([named] if named is not None else [])}))  # fmt: skip

    def encode(self, text: str) -> list[int]:
        """A text from its beginning."""
        ids = self.tokenizer.encode(text).ids
        return ids if self.begin is None else [self.begin, *ids]

    def decode(self, ids: Iterable[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def turn(self, messages: list[dict]) -> list[int]:
        """A conversation, written out as the model wants it, up to where its answer begins."""
        jinja2 = needed("jinja2", "this model's chat template")
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def fail(message: str):
            raise ArtifactError(f"the model's chat template says: {message}")

        world = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        world.globals["raise_exception"] = fail
        try:
            text = world.from_string(self.template).render(
                messages=messages, add_generation_prompt=True, **self.special
            )
        except jinja2.TemplateError as e:
            raise ArtifactError(f"the model's chat template cannot be used: {e}") from None
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def pieces(self, before: list[int], tokens: Iterable[int]) -> Iterator[str]:
        """The text that each token adds, held back until its characters are whole."""
        ids, shown = list(before), self.decode(before)
        for token in tokens:
            ids.append(token)
            text = self.decode(ids)
            if not text.endswith(BROKEN):
                yield text[len(shown) :]
                shown = text
        yield self.decode(ids)[len(shown) :]


def _content(token) -> str:
    return token.get("content", "") if isinstance(token, dict) else token or ""
