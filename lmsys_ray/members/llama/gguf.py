"""GGUF files, converted once into transformers directories that load at once afterwards."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama.quiet import quiet_libraries

CACHE_VARIABLE = "LMSYS_RAY_CACHE"
_SAMPLE = 1 << 20


def converted(file: Path) -> Path:
    """Returns a directory with the safetensors weights and the tokenizer that `file` holds, made where there is none.

    The weights are those of the backbone, dequantized to float32 and so exactly what the file says; a head is never
    stored, since GGUF has none. The directory lies in the user's cache (`LMSYS_RAY_CACHE` overrides where), appears
    whole or not at all, and is made by one process however many ask.

    Raises `UsageError` where the file cannot be read or written anew.
    """
    target = cache_directory() / "gguf" / f"{file.stem}-{_fingerprint(file)}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):
            if not target.is_dir():
                _convert(file, target)
    return target


def cache_directory() -> Path:
    """Returns where converted weights are kept."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else user_cache_path("lmsys_ray", appauthor=False)


def _convert(file: Path, target: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer, GgufConfig

    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with quiet_libraries():
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
            tokenizer.save_pretrained(aside)
            model = AutoModel.from_pretrained(
                file.parent,
                gguf_file=file.name,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
            )
            model.save_pretrained(aside)
        aside.rename(target)
    except (OSError, ValueError, KeyError, IndexError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"model: {file} cannot be converted ({reason}); fetch the file again, or another") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _fingerprint(file: Path) -> str:
    """Tells files apart by their size, beginning and end: reading all of one would take longer than loading it."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as source:
        digest.update(source.read(_SAMPLE))
        source.seek(max(0, size - _SAMPLE))
        digest.update(source.read())
    return digest.hexdigest()[:16]
