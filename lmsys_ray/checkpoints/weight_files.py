"""The files that hold a model's weights: which they are, and what the headers of safetensors files say.

No weights are read here. A pickle could run code, so that one is read only if the user says so.
"""

import json
from collections.abc import Iterable
from math import prod
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from lmsys_ray.checkpoints.reading import library_errors
from lmsys_ray.errors import UsageError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model*.bin", "pytorch_model*.bin.index.json")
"""Patterns of the files in which weights were kept before safetensors."""

_OTHER_PICKLES = ("*.pt", "*.pth", "*.pkl", "*.ckpt")

_LONGEST_HEADER = 100_000_000
"""In bytes, as in the library."""

_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


class Tensor(NamedTuple):
    """What the header of a safetensors file says of one tensor."""

    dtype: str
    shape: list[int]
    bytes: int


def has_safetensors(directory: Path) -> bool:
    """Returns whether a directory holds weights as safetensors."""
    return (directory / WEIGHTS).is_file() or (directory / INDEX).is_file()


def check_no_pickle(directory: Path, model: str, trusted: bool) -> None:
    """Raises `UsageError` where a directory holds weights only in pickles, unless they are `trusted`."""
    if trusted or has_safetensors(directory):
        return
    found = sorted({file.name for pattern in (*PICKLES, *_OTHER_PICKLES) for file in directory.glob(pattern)})
    if found:
        raise UsageError(
            f"model: {model} holds its weights in a pickle ({found[0]}), which could run code, and no {WEIGHTS}; where "
            "you trust its maker, convert it once (AutoModelForSequenceClassification.from_pretrained(OLD)"
            ".save_pretrained(NEW) of transformers, and copy the tokenizer's files), or add --trust-pickle"
        )


def tensors(directory: Path, model: str) -> dict[str, Tensor]:
    """Returns the tensors in the safetensors files of a model, by name, as their headers say.

    Raises `UsageError` for a damaged file, and for an index that names files elsewhere.
    """
    with library_errors(f"model: the weights of {model} cannot be read", "fetch them again"):
        found: dict[str, Tensor] = {}
        for name in _files(directory):
            found.update(header(directory / name))
        return found


def file_of(directory: Path, tensor: str) -> Path | None:
    """Returns the safetensors file of a model that holds `tensor`; None where none does. Raises as `header` does."""
    return next((directory / name for name in _files(directory) if tensor in header(directory / name)), None)


def _files(directory: Path) -> list[str]:
    if (directory / WEIGHTS).is_file():
        return [WEIGHTS]
    if not (directory / INDEX).is_file():
        return []
    content = json.loads((directory / INDEX).read_text(encoding="utf-8"))
    names = sorted(set(content["weight_map"].values()))
    for name in names:
        if name != PurePath(name).name or not name.endswith(".safetensors"):
            raise ValueError(f"{INDEX} names {name[:80]!r}, which is not a safetensors file of this directory")
        if not (directory / name).is_file():
            raise FileNotFoundError(f"{name} is missing")
    return names


def header(file: Path) -> dict[str, Tensor]:
    """Returns the tensors in a safetensors file, by name, as its header says.

    Raises `ValueError` or `OSError` where it cannot be read, or contradicts itself or the size of the file.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
            raise ValueError(f"{file.name} of {size} bytes says that its header has {length}")
        content = json.loads(stream.read(length), object_pairs_hook=_each_once)
    if not isinstance(content, dict):
        raise ValueError(f"the header of {file.name} is not a mapping")
    content.pop("__metadata__", None)
    found = {name: _tensor(entry, f"{name[:80]} of {file.name}") for name, entry in content.items()}
    _check_spans(sorted(entry["data_offsets"] for entry in content.values()), size - 8 - length, file.name)
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name occurs twice in a header")
    return content


def _tensor(entry: Any, place: str) -> Tensor:
    if not isinstance(entry, dict):
        raise ValueError(f"the header gives no type and shape for {place}")
    dtype: Any
    shape: Any
    offsets: Any
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise ValueError(f"{place} has the unknown type {dtype!r:.40}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{place} has the shape {shape!r:.40} at {offsets!r:.40}")
    if offsets[1] - offsets[0] != (wanted := -(-prod(shape) * _BITS[dtype] // 8)):
        raise ValueError(f"{place} lies at {offsets!r:.60} where its type and shape take {wanted} bytes")
    return Tensor(dtype, shape, wanted)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 63 for value in values)


def _check_spans(spans: Iterable[list[int]], end: int, name: str) -> None:
    """Checks that tensors lie end to end, from the first byte after the header to the last of the file."""
    place = 0
    for start, stop in spans:
        if start != place:
            raise ValueError(f"tensors of {name} overlap or leave a gap at byte {place}")
        place = stop
    if place != end:
        raise ValueError(f"{name} holds {end} bytes of weights where its header says {place}")
