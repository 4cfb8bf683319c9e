import hashlib

import numpy as np
import pytest

from tensorwright.runtime import checksum as module
from tensorwright.runtime.checksum import PIECE, checksum, file_checksum


def plain(data: bytes) -> str:
    pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
    return hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in pieces)).hexdigest()


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 3])
@pytest.mark.parametrize("threads", [1, 3])
def test_checksums_do_not_depend_on_threads(size, threads, monkeypatch, tmp_path):
    monkeypatch.setattr(module.cpu, "default_threads", lambda: threads)
    data = np.random.default_rng(size).bytes(size)
    assert checksum(data) == checksum(memoryview(data)) == plain(data)
    (tmp_path / "f").write_bytes(b"abc" + data + b"abc")
    with open(tmp_path / "f", "rb") as f:
        assert file_checksum(f.fileno(), 3, size) == plain(data)


def test_every_byte_counts():
    data = bytearray(5 * PIECE)
    first = checksum(data)
    for at in (0, PIECE, 5 * PIECE - 1):
        data[at] = 1
        assert checksum(data) != first
        data[at] = 0
    assert checksum(data) == first
