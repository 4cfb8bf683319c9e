import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tensorwright.base.errors import ArtifactError
from tensorwright.runtime import archive
from tensorwright.runtime.artifact import load, save
from tensorwright.runtime.buffer import address
from tests.runtime.native import INCREMENT, assemble, manifest, program, support
from tests.runtime.test_program import STATIC

REPOSITORY = Path(__file__).parents[2]
X = np.arange(6, dtype=np.float32).reshape(2, 3)
W = np.array([10, 20, 30], np.float32)
SUM = [10, 21, 32]


@pytest.fixture
def saved(tmp_path) -> Path:
    big = np.arange(100_000, dtype=np.int16)
    bf16 = np.ones((3, 5), ml_dtypes.bfloat16)
    p = program(STATIC, "x: f32[2, 3]", "y: f32[3], s: i64[]", weights=[W, big, bf16, b"", b"abc"])
    p.save(tmp_path / "p.tw")
    return tmp_path / "p.tw"


def fails(path, **options) -> str:
    with pytest.raises(ArtifactError) as caught:
        load(path, **options)
    return str(caught.value)


def rebuild(path: Path, change=lambda members: None, **options) -> Path:
    """The same zip with its members changed: name -> bytes."""
    with zipfile.ZipFile(path) as old:
        members = {i.filename: old.read(i) for i in old.infolist()}
    change(members)
    with zipfile.ZipFile(path, "w", **options) as new:
        for name, data in members.items():
            new.writestr(name, data)
    return path


def edit(path: Path, change) -> Path:
    def on_members(members: dict) -> None:
        document = json.loads(members["manifest.json"])
        change(document)
        members["manifest.json"] = json.dumps(document).encode()

    return rebuild(path, on_members)


def test_there_and_back(saved):
    p = load(saved)
    y, s = p(X)
    assert y.tolist() == SUM and s == 77
    assert [o.name for o in p.outputs] == ["y", "s"]
    assert load(saved, threads=3).threads == 3


def test_a_loaded_program_can_be_saved_again(saved, tmp_path):
    again = tmp_path / "again.tw"
    load(saved).save(again)
    assert again.read_bytes() == saved.read_bytes()


@pytest.mark.parametrize("mapped", [False, True])
def test_small_weights_stay_in_the_mapped_file(saved, mapped):
    p = load(saved, mapped=mapped)
    maps = [
        [int(x, 16) for x in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(saved))
    ]
    assert maps
    for weight in p._weights:
        start = address(weight)
        assert start % 64 == 0
        assert weight.size == 0 or any(a <= start < b for a, b in maps)
    assert address(p._weights[1]) % 4096 == 0


def test_the_archive_is_an_ordinary_zip(saved):
    with zipfile.ZipFile(saved) as file:
        assert file.testzip() is None
        names = file.namelist()
        assert names == ["objects/0.o", "objects/1.o", "weights.bin", "manifest.json"]
        assert all(i.compress_type == zipfile.ZIP_STORED for i in file.infolist())
        info = file.getinfo("weights.bin")
        assert (info.header_offset + len(info.FileHeader(False))) % 4096 == 0


def test_loading_imports_nothing_of_the_compiler(saved):
    text = (
        "import sys\nfrom tensorwright.runtime.artifact import load\nimport numpy as np\n"
        f"p = load({str(saved)!r})\n"
        "assert p(np.zeros((2, 3), np.float32))[0].tolist() == [10, 20, 30]\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('llvmlite', 'onnx', 'torch')]\n"
        "bad += [m for m in sys.modules if m.startswith('tensorwright.')\n"
        "        and m.split('.')[1] not in ('runtime', 'base')]\n"
        "print(bad)"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.stdout == "[]\n", done.stderr


def test_every_flipped_byte_of_content_is_noticed(saved):
    good = saved.read_bytes()
    random.seed(1)
    with zipfile.ZipFile(saved) as file:
        spans = [(good.index(file.read(n)), len(file.read(n)), n) for n in file.namelist()]
    for inside, size, name in spans:
        for _ in range(10):
            data = bytearray(good)
            data[inside + random.randrange(size)] ^= 1 << random.randrange(8)
            saved.write_bytes(data)
            if name == "manifest.json":
                with pytest.raises(ArtifactError):
                    load(saved)
            else:
                assert f"checksum of {name} differs" in fails(saved)
    saved.write_bytes(good)
    assert load(saved)(X)[0].tolist() == SUM


def test_arbitrary_damage_never_crashes(saved):
    good = saved.read_bytes()
    random.seed(2)
    tail = len(good) - 4000
    for _ in range(300):
        data = bytearray(good)
        for _ in range(random.choice((1, 2, 8))):
            at = random.choice((random.randrange(len(data)), random.randrange(tail, len(data))))
            data[at] = random.randrange(256)
        saved.write_bytes(data)
        with contextlib.suppress(ArtifactError):
            archive.read(saved)


@pytest.mark.parametrize("keep", [0, 1, 22, 1000, 0.5, 0.9, 0.999])
def test_truncated_files(saved, keep):
    data = saved.read_bytes()
    saved.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    assert f"error: {saved}: " in fails(saved)


def test_no_file_or_a_folder(tmp_path):
    assert "cannot read" in fails(tmp_path / "none.tw")
    assert "cannot read" in fails(tmp_path)


def test_other_zips(tmp_path):
    path = tmp_path / "other.tw"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("hello", "world")
    assert "no manifest.json inside" in fails(path)


def test_other_versions(saved):
    text = fails(edit(saved, lambda d: d.update(format_version=99)))
    assert "format version 99" in text and "help: compile the model again" in text


def test_missing_features(saved):
    text = fails(edit(saved, lambda d: d["target"].update(features=["sse2", "avx9000"])))
    assert "needs processor features this machine lacks: avx9000" in text


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "objects/7.o", "objects/../0.o"])
def test_foreign_members(saved, name):
    rebuild(saved, lambda m: m.update({name: b"x"}))
    assert "its members are not those its manifest lists" in fails(saved)
    edit(saved, lambda d: d["members"].update({name: "0"}))
    assert "members which no Tensorwright artifact has" in fails(saved)
    assert not (saved.parent.parent / "evil").exists()


def test_missing_members(saved):
    rebuild(saved, lambda m: m.pop("objects/1.o"))
    assert "its members are not those its manifest lists" in fails(saved)


def test_compressed_members(saved):
    rebuild(saved, compression=zipfile.ZIP_DEFLATED)
    assert "is compressed or encrypted" in fails(saved)


def test_doubled_members(saved):
    with pytest.warns(UserWarning), zipfile.ZipFile(saved, "a") as file:
        file.writestr("objects/0.o", b"again")
    assert "'objects/0.o' occurs twice" in fails(saved)


@pytest.mark.parametrize(
    "weights", [[[0, 1 << 40]], [[-1, 4]], [[1 << 60, 1]], [[0]], "text", None, [["a", "b"]]]
)
def test_weights_outside_the_file(saved, weights):
    assert "table of weights is damaged" in fails(edit(saved, lambda d: d.update(weights=weights)))


def test_sizes_beyond_the_file(saved):
    data = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as file:
        directory = file.start_dir
    at = data.index(b"PK\x01\x02", directory)
    data[at + 20 : at + 28] = (1 << 30).to_bytes(4, "little") * 2  # both sizes of the first member
    saved.write_bytes(data)
    assert "lies beyond the file's end" in fails(saved)


def test_verify_can_be_left_out(saved):
    data = bytearray(saved.read_bytes())
    at = data.index(W.tobytes())
    data[at : at + 4] = np.float32(11).tobytes()
    saved.write_bytes(data)
    assert "checksum of weights.bin differs" in fails(saved)
    assert load(saved, verify=False)(X)[0].tolist() == [11, 21, 32]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(saved):
    before = saved.read_bytes()
    p = load(saved)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, old[1]))  # as if the disk were full
        with pytest.raises(ArtifactError, match=r"cannot write .*p\.tw: File too large"):
            p.save(saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == ["p.tw"]


def test_a_folder_that_is_not_there(tmp_path):
    p = program(INCREMENT, "x: f32[n]", "y: f32[n]")
    with pytest.raises(ArtifactError, match="No such file or directory"):
        p.save(tmp_path / "no" / "p.tw")


def test_saving_over_a_loaded_file_is_safe(saved):
    p = load(saved)
    program(INCREMENT, "x: f32[n]", "y: f32[n]").save(saved)
    assert p(X)[0].tolist() == SUM
    assert load(saved)(W).tolist() == [11, 21, 31]


def test_programs_for_other_machines_can_be_saved(tmp_path):
    m = manifest("x: f32[n]", "y: f32[n]")
    other = replace(m, target=replace(m.target, features=("avx9000",)))
    path = tmp_path / "other.tw"
    save(path, other, [assemble("define void @f() { ret void }"), support()], [W])
    assert "avx9000" in fails(path)
    assert archive.read(path)[0] == other


def test_big_weights_use_zip64_headers(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    path = tmp_path / "big.tw"
    p = program(STATIC, "x: f32[2, 3]", "y: f32[3], s: i64[]", weights=[W, np.ones(5000)])
    p.save(path)
    monkeypatch.undo()
    loaded = load(path)
    assert loaded(X)[0].tolist() == SUM
    assert address(loaded._weights[0]) % 4096 == 0
