"""GGUF files, converted once into transformers directories."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from lmsys_ray.errors import UsageError
from lmsys_ray.quiet import quiet_libraries
from lmsys_ray.storage.cache import built_once, cache_directory

_VERSION = 3
"""The version of the conversion: directories made by an older one are not used."""

Stamp = tuple[int, int, int, int]


def converted(file: Path) -> Path:
    """Returns a directory with the weights and the tokenizer of `file`, converted if it is not there yet.

    The weights are those in the file, dequantized to float32: the backbone's and, where it is not the embedding, the
    head of the language model. The directory is in the cache of this machine (`LMSYS_RAY_CACHE`), is written as a
    whole, and by one process only.
    Raises `UsageError` where the file cannot be read, or converted without changing what it computes.
    """
    stamp = _stamp(file)
    target = cache_directory() / "gguf" / f"{file.stem}-{_fingerprint(file, stamp)}"
    return built_once(target, lambda aside: _convert(file, stamp, aside))


def _convert(file: Path, stamp: Stamp, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, GgufConfig

    from lmsys_ray.checkpoints.gguf_config import config_of
    from lmsys_ray.checkpoints.gguf_header import read_header
    from lmsys_ray.checkpoints.reading import library_errors

    refused = library_errors(f"model: {file} cannot be converted", "fetch the file again, or another")
    with quiet_libraries(), _no_bar(), refused:
        header = read_header(file)
        config = config_of(header)
        has_head = "output.weight" in header.shapes
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        tokenizer.save_pretrained(target)
        # The package gguf knows some weights, such as those of Phi-3, only by their names within a whole model.
        whole: Any = AutoModelForCausalLM if has_head else AutoModelForSequenceClassification
        model, info = whole.from_pretrained(
            file.parent,
            config=config,
            gguf_file=file.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
    if missing := sorted(set(info["missing_keys"]) - {"score.weight"}):
        raise UsageError(f"model: {file} lacks weights such as {missing[0]}; fetch the file again")
    (model if has_head else getattr(model, model.base_model_prefix)).save_pretrained(target)
    if _stamp(file) != stamp:
        raise UsageError(f"model: {file} changed while it was read; start again once it is whole")


@contextmanager
def _no_bar() -> Iterator[None]:
    """Hides the bar of transformers' conversion, which is tqdm's own and heeds none of transformers' settings."""
    from transformers import modeling_gguf_pytorch_utils

    conversion: Any = modeling_gguf_pytorch_utils
    bar = conversion.tqdm
    conversion.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        conversion.tqdm = bar


def _stamp(file: Path) -> Stamp:
    """Returns what changes with the content while a process runs: no user can set a file's ctime."""
    stat = file.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@lru_cache(maxsize=64)
def _fingerprint(file: Path, stamp: Stamp) -> str:
    """Returns a digest of the whole file, since nothing less distinguishes fine-tuned copies of a model."""
    with file.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    return hashlib.sha256(f"{_VERSION} {digest}".encode()).hexdigest()[:16]
