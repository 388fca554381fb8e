"""Keeps what standard input brings as a file of the run, since a run reads its input more than once."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from lmsys_ray.data.readers.files import GZIP_MAGIC, PARQUET_MAGIC, ZSTD_MAGIC
from lmsys_ray.errors import UsageError
from lmsys_ray.storage.files import AnyPath, atomic_file, exists, open_binary

_STEM = "stdin"
_BLOCK = 1 << 20


def kept(stream: BinaryIO, run: AnyPath) -> str:
    """Returns the path of the file in the directory `run` that holds what `stream` brings, which is written there.

    Its format is told by its content. Where the stream is empty, the file of an earlier start is used. Raises
    `UsageError` where there is nothing, and where an earlier start read something else.
    """
    head = stream.read(_BLOCK)
    earlier = next((run / name for name in _names() if exists(run / name)), None)
    if not head.strip():
        if earlier is None:
            raise UsageError("input: standard input is empty; pipe a file into the command, or name one")
        return str(earlier)
    path = run / f"{_STEM}{_ending(head)}"
    with atomic_file(path) as aside:
        digest = _copied(head, stream, aside)
        if earlier is not None and _digest(earlier) != digest:
            raise UsageError(
                f"input: standard input is not what {earlier} holds, with which the run began; choose another --output"
            )
    return str(path)


def _names() -> list[str]:
    return [f"{_STEM}{ending}{packed}" for ending in (".csv", ".jsonl") for packed in ("", ".gz", ".zst")] + [
        f"{_STEM}.parquet"
    ]


def _ending(head: bytes) -> str:
    """Returns the ending of the name of a file that begins with `head`."""
    if head.startswith(PARQUET_MAGIC):
        return ".parquet"
    packed = ".gz" if head.startswith(GZIP_MAGIC) else ".zst" if head.startswith(ZSTD_MAGIC) else ""
    text = _unpacked(head, packed).removeprefix(b"\xef\xbb\xbf").lstrip()
    return (".jsonl" if text[:1] in (b"{", b"[") else ".csv") + packed


def _unpacked(head: bytes, packed: str) -> bytes:
    """Returns the beginning of what a compressed text begins with; empty where it cannot be unpacked."""
    try:
        if packed == ".gz":
            return zlib.decompressobj(31).decompress(head, 4096)
        if packed == ".zst":
            return bytes(pa.CompressedInputStream(pa.BufferReader(head), "zstd").read(1))
    except (zlib.error, gzip.BadGzipFile, OSError):
        return b""
    return head[:4096]


def _copied(head: bytes, stream: BinaryIO, path: Path) -> str:
    """Writes `head` and the rest of a stream; returns their digest."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        while head:
            digest.update(head)
            file.write(head)
            head = stream.read(_BLOCK)
    return digest.hexdigest()


def _digest(path: AnyPath) -> str:
    digest = hashlib.sha256()
    with open_binary(path) as file:
        while data := file.read(_BLOCK):
            digest.update(data)
    return digest.hexdigest()
