"""`tw chat`: text in, text out, errors in words."""

import io
import json
import shutil

import pytest

from tensorwright.tools.cli import run
from tensorwright.tools.text import Text
from tests.nn import small

TEMPLATE = ("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.role == 'assistant' %}"
            "{{ eos_token }}{% endif %}{% endfor %}[assistant]")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("chat")
    small.save(path, template=TEMPLATE)
    return path


def chat(folder, *arguments):
    return run(["chat", str(folder), "--temperature", "0", "--max-tokens", "6", *arguments])


def expected(folder, ids, count=6) -> str:
    tokens = small.greedy("llama", ids, count)
    tokens = tokens[: tokens.index(2)] if 2 in tokens else tokens
    return Text.of(folder).decode(tokens)


def test_one_prompt(folder, capsys):
    assert chat(folder, "--raw", "--prompt", "Once upon") == 0
    captured = capsys.readouterr()
    text = Text.of(folder)
    assert captured.out == "Once upon" + expected(folder, text.encode("Once upon")) + "\n"
    assert "tokens/s" in captured.err and "cut at --max-tokens" in captured.err


def test_piped_lines_are_a_conversation(folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("hi\n\nwho?\n"))
    assert chat(folder, "-q") == 0
    first, second = capsys.readouterr().out.splitlines()
    text = Text.of(folder)
    said = [{"role": "user", "content": "hi"}]
    assert first == expected(folder, text.turn(said))
    said += [{"role": "assistant", "content": first}, {"role": "user", "content": "who?"}]
    assert second == expected(folder, text.turn(said))


def test_json(folder, capsys):
    assert chat(folder, "--json", "--prompt", "a") == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert answer["prompt"] == "a" and answer["tokens"] <= 6 and answer["text"]
    assert answer["finish"] in ("tokens", "stop")


def test_samples_follow_the_seed(folder, capsys):
    def said(seed: int) -> str:
        assert chat(folder, "--json", "-p", "a", "--temperature", "2", "--seed", str(seed)) == 0
        return json.loads(capsys.readouterr().out)["answers"][0]["text"]

    assert said(1) == said(1) != said(2)


@pytest.mark.parametrize("change, message, code", [
    (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json", 6),
    (lambda f: (f / "tokenizer.json").write_text("{}"), "is not understood", 6),
    (lambda f: (f / "model.safetensors").unlink(), "no *.safetensors", 6),
    (lambda f: (f / "config.json").write_text('{"architectures": ["Gpt9"]}'), "Gpt9 is not", 3),
    (lambda f: (f / "config.json").write_text("{"), "config.json is damaged", 6),
    (lambda f: shutil.rmtree(f), "there is no folder", 6),
])  # fmt: skip
def test_errors(folder, tmp_path, capsys, change, message, code):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    change(copy)
    assert chat(copy, "-p", "a") == code
    assert message in capsys.readouterr().err


def test_a_missing_package_is_named(folder, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    assert chat(folder, "-p", "a") == 6
    error = capsys.readouterr().err
    assert "needs the package 'tokenizers'" in error and "tensorwright[llm]" in error


def test_a_prompt_that_is_too_long(folder, capsys):
    assert chat(folder, "--raw", "-p", "a" * 200) == 5
    assert "a prompt of 201 tokens" in capsys.readouterr().err
