import json

import pytest

from tensorwright.base.errors import ArtifactError
from tensorwright.runtime.manifest import (
    KernelInfo,
    Manifest,
    SymbolInfo,
    TargetInfo,
    TensorInfo,
    dumps,
    from_json,
    to_json,
)

FULL = Manifest(
    name="mlp",
    target=TargetInfo("x86_64-unknown-linux-gnu", ("avx512f", "fma"), "Sapphire Rapids"),
    inputs=(TensorInfo("x", "f32", ("n", 64)), TensorInfo("s", "i64", ())),
    outputs=(TensorInfo("y", "bf16", ("4*n+1", 0)),),
    symbols={"n": SymbolInfo(1, 4096, 8), "m": SymbolInfo()},
    errors=("x.shape[0] is {0}",),
    kernels=(KernelInfo("matmul", 12, 34, ("mlp.py:12", "größer")),),
    threads=3,
    extra={"ir": {"lower": "text\n"}, "numbers": [1, 2.5, None]},
)


def damaged(change) -> dict:
    data = json.loads(dumps(to_json(FULL)))
    change(data)
    return data


def test_there_and_back():
    assert from_json(json.loads(dumps(to_json(FULL)))) == FULL


def test_texts():
    assert str(FULL.inputs[0]) == "x: f32[n, 64]" and str(FULL.inputs[1]) == "s: i64[]"
    assert not FULL.inputs[0].is_static and FULL.inputs[1].is_static
    assert [str(s) for s in FULL.symbols.values()] == ["1..4096, a multiple of 8", "0.."]


def test_unknown_fields_are_ignored():
    assert from_json(damaged(lambda d: d.update(members={}, later=1))) == FULL


def test_other_versions_are_refused():
    with pytest.raises(ArtifactError, match="format version 1, this runtime reads version 3"):
        from_json(damaged(lambda d: d.update(format_version=1)))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("name"),
        lambda d: d.update(name=3),
        lambda d: d.update(threads="many"),
        lambda d: d.update(threads=-1),
        lambda d: d.update(target=None),
        lambda d: d["target"].update(features=[1]),
        lambda d: d["inputs"].append(5),
        lambda d: d["inputs"][0].update(shape=[-1]),
        lambda d: d["inputs"][0].update(shape=[1.5]),
        lambda d: d["inputs"][0].update(shape=None),
        lambda d: d["symbols"].update(n={"minimum": 1}),
        lambda d: d["symbols"].update(n=[]),
        lambda d: d.update(symbols=[]),
        lambda d: d["kernels"][0].pop("flops"),
        lambda d: d["kernels"][0].update(bytes=True),
        lambda d: d.update(errors=7),
    ],
)
def test_damage_is_an_artifact_error(change):
    with pytest.raises(ArtifactError, match="the manifest is damaged"):
        from_json(damaged(change))


@pytest.mark.parametrize("data", [None, [], {}, {"format_version": "1"}, "text"])
def test_not_a_manifest_at_all(data):
    with pytest.raises(ArtifactError, match="not a Tensorwright artifact"):
        from_json(data)


def test_dimensions_that_are_long_expressions_are_dots():
    long = "6 // (n * m) if n == 0 else n * m * 2"
    info = TensorInfo("y", "f32", ("n", long, 4))
    assert info.brief == "y: f32[n, ..., 4]"
    assert str(info) == f"y: f32[n, {long}, 4]"
