import numpy as np
import pytest

from tensorwright.base.errors import ArtifactError, FrontendError, TensorwrightError
from tensorwright.driver.compile import compile
from tensorwright.driver.pipeline import stages
from tensorwright.driver.textfile import read_arrays, read_text, write_text
from tensorwright.ir.printer import to_text
from tensorwright.target.host import host
from tests.tools.modules import mlp


def test_every_stage_comes_back(tmp_path):
    m = mlp()
    for name, after in [("import", m), *stages(m, host())]:
        path = tmp_path / f"{name}.py"
        write_text(after, path, "a comment\nof two lines", {"more": np.arange(3)})
        assert path.read_text().startswith("# a comment\n# of two lines\n")
        assert to_text(read_text(path)) == to_text(after)
        assert read_arrays(path)["more"].tolist() == [0, 1, 2]


def test_a_text_file_compiles(tmp_path):
    m, x = mlp(), np.ones((3, 64), np.float32)
    write_text(m, tmp_path / "mlp.py")
    assert np.array_equal(compile(str(tmp_path / "mlp.py"))(x), compile(m)(x))


def test_errors(tmp_path):
    with pytest.raises(FrontendError):
        read_text(tmp_path / "none.py")
    with pytest.raises(ArtifactError):
        write_text(mlp(), tmp_path / "no" / "folder.py")
    (tmp_path / "bad.py").write_text("x = 1\n")
    with pytest.raises(TensorwrightError):
        read_text(tmp_path / "bad.py")
