"""GGUF files, converted once into transformers directories that load at once afterwards."""

import hashlib
from pathlib import Path

from lmsys_ray.errors import UsageError
from lmsys_ray.local_copies import cache_directory, made_once
from lmsys_ray.members.llama.quiet import quiet_libraries

_SAMPLE = 1 << 20


def converted(file: Path) -> Path:
    """Returns a directory with the safetensors weights and the tokenizer that `file` holds, made where there is none.

    The weights are those of the backbone, dequantized to float32 and so exactly what the file says; a head is never
    stored, since GGUF has none. The directory lies in the user's cache (`LMSYS_RAY_CACHE` overrides where), appears
    whole or not at all, and is made by one process however many ask.

    Raises `UsageError` where the file cannot be read or written anew.
    """
    target = cache_directory() / "gguf" / f"{file.stem}-{_fingerprint(file)}"
    return made_once(target, lambda aside: _convert(file, aside))


def _convert(file: Path, target: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer, GgufConfig

    try:
        with quiet_libraries():
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
            tokenizer.save_pretrained(target)
            model = AutoModel.from_pretrained(
                file.parent,
                gguf_file=file.name,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
            )
            model.save_pretrained(target)
    except (OSError, ValueError, KeyError, IndexError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"model: {file} cannot be converted ({reason}); fetch the file again, or another") from None


def _fingerprint(file: Path) -> str:
    """Tells files apart by their size, beginning and end: reading all of one would take longer than loading it."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as source:
        digest.update(source.read(_SAMPLE))
        source.seek(max(0, size - _SAMPLE))
        digest.update(source.read())
    return digest.hexdigest()[:16]
