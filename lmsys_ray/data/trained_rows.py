"""Which conversations a member was trained on: digests of their texts, kept beside its weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from lmsys_ray.data.conversations import CELLS, CellForm, decode_cell
from lmsys_ray.errors import DamagedError
from lmsys_ray.storage.files import AnyPath, exists, read_bytes

FILE = "trained_rows.csv"

_HEADER = "digest"


def row_digests(conversations: pa.Table, cells: CellForm) -> np.ndarray:
    """Returns a digest of each row with the columns of `CELLS`, uint64 [rows].

    It is that of the texts, white space apart, with the responses in either order.
    """
    columns = [conversations[name].to_pylist() for name in CELLS]
    return np.array([_digest(row, cells) for row in zip(*columns, strict=True)], np.uint64)


def _digest(row: tuple[str, ...], cells: CellForm) -> int:
    texts = [" ".join("\n".join(decode_cell(cell, cells)).split()) for cell in row]
    text = "\0".join([texts[0], *sorted(texts[1:])])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def write_digests(folder: Path, conversations: pa.Table, cells: CellForm) -> None:
    """Writes the digests of training rows into the folder of a member."""
    found = np.unique(row_digests(conversations, cells)).tolist()
    lines = [_HEADER, *(f"{digest:016x}" for digest in found)]
    (folder / FILE).write_text("\n".join(lines) + "\n", encoding="ascii")


def read_digests(folder: AnyPath) -> np.ndarray:
    """Returns the digests that lie in a folder, uint64 [rows]; empty where there are none.

    Raises `DamagedError` for a file of another form.
    """
    path = folder / FILE
    if not exists(path):
        return np.empty(0, np.uint64)
    header, *lines = read_bytes(path).decode(errors="replace").split()
    try:
        found = np.array([int(line, 16) for line in lines], np.uint64)
    except (ValueError, OverflowError):
        header = ""
    if header != _HEADER:
        raise DamagedError(f"{path} does not hold digests of rows; remove it, or put the one of the training back")
    return found
