import numpy as np
import pytest

from tensorwright.base.errors import RunError
from tensorwright.runtime.manifest import SymbolInfo, TensorInfo
from tensorwright.tools.inputs import default_size, make_inputs, parse_spec, parse_specs

X = TensorInfo("x", "f32", ("n", 3, "2*n"))
IDS = TensorInfo("ids", "i64", ("n",))
SYMBOLS = {"n": SymbolInfo(1, 64)}


def test_random_inputs_obey_the_shapes():
    made = make_inputs([X, IDS], SYMBOLS, sizes={"n": 5}, limits={"ids": 3})
    assert made["x"].shape == (5, 3, 10) and made["x"].dtype == np.float32
    assert made["ids"].shape == (5,) and made["ids"].max() < 3


def test_a_given_shape_decides_the_symbols():
    made = make_inputs([X, IDS], SYMBOLS, parse_specs(["ids=4:i64:arange"]))
    assert made["x"].shape == (4, 3, 8)
    assert made["ids"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "text, shape, dtype, fill",
    [
        ("1x3x8", (1, 3, 8), "", ""),
        ("2x4:f16:ones", (2, 4), "f16", "ones"),
        ("zeros", None, "", "zeros"),
        ("0.5", None, "", 0.5),
        ("7", None, "", 7.0),
        ("7:rand", (7,), "", "rand"),
        ("scalar:3", (), "", 3.0),
    ],
)
def test_specs(text, shape, dtype, fill):
    spec = parse_spec("x", text)
    assert (spec.shape, spec.dtype, spec.fill) == (shape, dtype, fill)


def test_literals_and_files(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 2), np.float32))
    np.savez(tmp_path / "b.npz", x=np.zeros(3), y=np.ones(3))
    assert parse_spec("x", "[[1, 2]]").array.tolist() == [[1, 2]]
    assert parse_spec("x", f"@{tmp_path}/a.npy").array.shape == (2, 2)
    assert parse_spec("y", f"@{tmp_path}/b.npz").array.sum() == 3
    with pytest.raises(RunError, match="no array 'z'"):
        parse_spec("z", f"@{tmp_path}/b.npz")


@pytest.mark.parametrize(
    "specs, sizes, message",
    [
        (["x"], {}, "is not NAME=WHAT"),
        (["y=zeros"], {}, "there is no input 'y'"),
        (["x=2x2:frob"], {}, "what is 'frob'"),
        (["x=[1,"], {}, "is not an array literal"),
        (["x=@none.npy"], {}, "cannot read none.npy"),
        ([], {"k": 3}, "there is no size 'k'"),
    ],
)
def test_mistakes_are_explained(specs, sizes, message):
    with pytest.raises(RunError, match=message):
        make_inputs([X], SYMBOLS, parse_specs(specs), sizes)


@pytest.mark.parametrize(
    "name, info, size",
    [
        ("batch", SymbolInfo(1), 1),
        ("sequence", SymbolInfo(1, 20), 20),
        ("height", SymbolInfo(1, None, 32), 224),
        ("k", SymbolInfo(0, None, 16), 0),
        ("k", SymbolInfo(1, None, 16), 16),
        ("h", SymbolInfo(224, 448, 1, (224, 448)), 224),
        ("n", SymbolInfo(-(2**63)), 1),
    ],
)
def test_default_sizes_are_allowed(name, info, size):
    assert default_size(name, info) == size


def test_the_same_seed_gives_the_same():
    a, b, c = (make_inputs([X], SYMBOLS, seed=s)["x"] for s in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
