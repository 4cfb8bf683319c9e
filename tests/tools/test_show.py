import pytest

import tensorwright as tw
from tensorwright.base.errors import CompileError
from tensorwright.target.host import host
from tensorwright.tools.show import PASSES, STAGES, diff_text, text_after
from tests.tools.modules import DIGITS, mlp


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_a_text(stage):
    assert len(text_after(mlp(), stage, host())) > 100


def test_passes_are_in_order():
    assert STAGES[0] == "import" and STAGES[1 : 1 + len(PASSES)] == PASSES


def test_one_kernel():
    text = text_after(mlp(), PASSES[-1], host())
    name = next(line.split("(")[0][4:] for line in text.splitlines() if "dot_general" in line
                and line.startswith("def "))  # fmt: skip
    alone = text_after(mlp(), PASSES[-1], host(), name)
    assert f"def {name}(" in alone and len(alone) < len(text)
    for stage in ("llvm", "asm"):
        assert name in text_after(mlp(), stage, host(), name)


def test_diff():
    text = diff_text(mlp(), "fuse", host())
    assert "+++ after fuse" in text and "fused(" in text


@pytest.mark.parametrize(
    "stage, kernel, message",
    [("fus", "", "did you mean fuse"), (PASSES[-1], "dott", "no kernel or graph 'dott'")],
)
def test_mistakes_are_explained(stage, kernel, message):
    with pytest.raises(CompileError, match=message):
        text_after(mlp(), stage, host(), kernel)


def test_show_prints(capsys):
    tw.show(str(DIGITS), after="import")
    assert "def main(image" in capsys.readouterr().out


def test_program_text():
    program = tw.compile(mlp())
    assert program.text(after="import") == text_after(mlp(), "import", host())
