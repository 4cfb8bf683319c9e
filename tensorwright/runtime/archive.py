"""The `.tw` file: an uncompressed zip of manifest, object code and weights.

    manifest.json   the manifest, a checksum of every other member, and where each weight lies
    objects/N.o     relocatable object code
    weights.bin     all weights, starting on a page of the file, so that they can be mapped

Files appear whole or not at all. Reading extracts nothing and trusts nothing: members are views
of the mapped file, and whatever is not exactly as written here is an ArtifactError.
"""

import contextlib
import io
import json
import mmap
import os
import secrets
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tensorwright.base.errors import ArtifactError
from tensorwright.runtime import manifest as manifests
from tensorwright.runtime.buffer import byte_view, known_dtype
from tensorwright.runtime.checksum import checksum, file_checksum
from tensorwright.runtime.manifest import Manifest

PAGE = 4096
_MANIFEST, _WEIGHTS = "manifest.json", "weights.bin"
_EXTRA = 0x5754  # id of the padding in a member's header
_LOCAL = struct.Struct("<4s5H3I2H")


def write(
    path: str | os.PathLike, manifest: Manifest, objects: Sequence[Any], weights: Sequence[Any],
    sync: bool = True,
) -> None:  # fmt: skip
    """Write an artifact next to `path`, then move it there. sync: False leaves it to the system
    when it reaches the disk, so that a power failure may damage it, and takes no second core."""
    target = _path(path)
    temporary = target.parent / f".{target.name[:64]}.{secrets.token_hex(6)}.tmp"
    try:
        try:
            with open(temporary, "x+b") as file:
                threads = None if sync else 1
                _write(file, manifest, objects, [byte_view(w) for w in weights], threads)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(f"cannot write {target}: {error.strerror or error}") from error


def _path(path: Any) -> Path:
    try:
        found = Path(path)
    except TypeError:
        raise ArtifactError(f"a path is a text, not a {type(path).__name__}") from None
    if "\0" in str(found) or not found.name:
        raise ArtifactError(f"{str(path)!r} is not the name of a file")
    return found


def _write(
    file: io.BufferedIOBase, manifest: Manifest, objects: Sequence[Any], weights: list[np.ndarray],
    threads: int | None,
) -> None:  # fmt: skip
    places, size = _layout(weights)
    archive = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)
    try:
        starts = {}
        for number, data in enumerate(objects):
            name = f"objects/{number}.o"
            starts[name] = _member(archive, name, len(data), iter([data]), 8), len(data)
        chunks = _padded(weights, places)
        starts[_WEIGHTS] = _member(archive, _WEIGHTS, size, chunks, PAGE), size
        sums = _sums(file, starts, threads)
        text = manifests.to_json(manifest) | {"members": sums, "weights": places}
        data = manifests.dumps(text)
        _member(archive, _MANIFEST, len(data), iter([data]), 8)
        archive.close()
    except BaseException:
        # A second error from writing the directory would only hide the first.
        archive.fp = None
        raise


def _layout(weights: list[np.ndarray]) -> tuple[list[tuple[int, int]], int]:
    """(offset, size) of each weight; large ones begin on a page, small ones on a cache line."""
    places, end = [], 0
    for weight in weights:
        to = PAGE if weight.nbytes >= 16 * PAGE else 64
        start = -(-end // to) * to
        places.append((start, weight.nbytes))
        end = start + weight.nbytes
    return places, end


def _padded(weights: list[np.ndarray], places: list[tuple[int, int]]) -> Iterator[Any]:
    end = 0
    for weight, (start, size) in zip(weights, places):
        yield bytes(start - end)
        yield weight
        end = start + size


def _member(
    archive: zipfile.ZipFile, name: str, size: int, chunks: Iterator[Any], align: int
) -> int:
    """Write one member, its data on a multiple of `align`; where that begins in the file."""
    info = zipfile.ZipInfo(name)  # dated 1980: equal programs give equal files
    info.file_size = info.compress_size = size
    info.CRC = 0  # put right once the data is written
    large = size * 1.05 > zipfile.ZIP64_LIMIT  # as zipfile itself decides
    header = len(info.FileHeader(large)) + 4
    padding = -(archive.fp.tell() + header) % align
    info.extra = struct.pack("<HH", _EXTRA, padding) + bytes(padding)
    with archive.open(info, "w", force_zip64=large) as out:
        start = archive.fp.tell()
        for chunk in chunks:
            out.write(chunk)
    return start


def _sums(
    file: io.BufferedIOBase, members: dict[str, tuple[int, int]], threads: int | None
) -> dict[str, str]:
    """Checksums of members, given by start and size, of a file that is being written."""
    file.flush()
    return {n: file_checksum(file.fileno(), *span, threads) for n, span in members.items()}


def read(
    path: str | os.PathLike, verify: bool = True
) -> tuple[Manifest, list[memoryview], list[memoryview]]:
    """Manifest, objects and weights of an artifact; the last two are views of the mapped file."""
    path = _path(path)
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise ArtifactError("the file is empty")
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            return _read(file, view, verify)
    except ArtifactError as error:
        raise ArtifactError(
            f"{path}: {error.message}", error.notes, error.help, error.location
        ) from error
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error


def _read(
    file: io.BufferedReader, view: memoryview, verify: bool
) -> tuple[Manifest, list[memoryview], list[memoryview]]:
    members = _members(file, view)
    if _MANIFEST not in members:
        raise ArtifactError("no manifest.json inside: not a Tensorwright artifact")
    document = _document(members.pop(_MANIFEST))
    manifest = manifests.from_json(document)
    for info in (*manifest.inputs, *manifest.outputs):
        if not known_dtype(info.dtype) and info.dtype not in manifest.data:
            raise ArtifactError(f"the manifest is damaged: there is no type {info.dtype!r}")
    sums = document.get("members")
    if not isinstance(sums, dict) or set(sums) != set(members):
        raise ArtifactError("its members are not those its manifest lists")
    names = [f"objects/{n}.o" for n in range(len(members) - 1)]
    if set(members) != {*names, _WEIGHTS}:
        raise ArtifactError("it has members which no Tensorwright artifact has")
    for name, data in members.items():
        if verify and checksum(data) != sums[name]:
            raise ArtifactError(
                f"checksum of {name} differs: the file is damaged",
                help="copy the file again, or compile the model again",
            )
    return manifest, [members[n] for n in names], _weights(members[_WEIGHTS], document)


def _members(file: io.BufferedReader, view: memoryview) -> dict[str, memoryview]:
    """Every member's data, once name, sizes and flags are as we write them."""
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError) as error:
        raise ArtifactError(f"not a readable artifact (truncated?): {error}") from error
    members: dict[str, memoryview] = {}
    for info in infos:
        if info.filename in members:
            raise ArtifactError(f"member {info.filename!r} occurs twice")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x2041:
            raise ArtifactError(f"member {info.filename!r} is compressed or encrypted")
        members[info.filename] = data = _data(view, info)
        if info.filename == _MANIFEST and zlib.crc32(data) != info.CRC:
            raise ArtifactError(
                f"checksum of {_MANIFEST} differs: the file is damaged",
                help="copy the file again, or compile the model again",
            )
    return members


def _data(view: memoryview, info: zipfile.ZipInfo) -> memoryview:
    offset, size = info.header_offset, info.file_size
    if size != info.compress_size or offset < 0 or offset + _LOCAL.size > len(view):
        raise ArtifactError(f"member {info.filename!r} has impossible sizes")
    magic, *_, name, extra = _LOCAL.unpack_from(view, offset)
    start = offset + _LOCAL.size + name + extra
    if magic != b"PK\x03\x04" or start + size > len(view):
        raise ArtifactError(f"member {info.filename!r} lies beyond the file's end (truncated?)")
    return view[start : start + size]


def _document(data: memoryview) -> dict[str, Any]:
    try:
        document = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"manifest.json is damaged: {error}") from error
    if not isinstance(document, dict):
        raise ArtifactError("manifest.json is damaged: not an object")
    return document


def _weights(data: memoryview, document: dict[str, Any]) -> list[memoryview]:
    try:
        places = [(int(start), int(size)) for start, size in document["weights"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"the table of weights is damaged: {error}") from error
    if any(start < 0 or size < 0 or start + size > len(data) for start, size in places):
        raise ArtifactError("the table of weights is damaged: a weight lies outside weights.bin")
    return [data[start : start + size] for start, size in places]
