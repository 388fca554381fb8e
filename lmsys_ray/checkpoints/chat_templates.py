"""The chat templates that the files of a tokenizer bring: Jinja texts by their names."""

from pathlib import Path
from typing import Any

from lmsys_ray.checkpoints.json_files import read_mapping
from lmsys_ray.checkpoints.tokenizer_files import read_config
from lmsys_ray.errors import UsageError, first_line

CHAT_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja")

DEFAULT = "default"
"""The name of a template that has none."""


def read_chat_templates(directory: Path, place: str) -> dict[str, str]:
    """Returns the chat templates in a directory; none are an empty mapping.

    As in transformers, files of their own take the place of all that tokenizer_config.json holds. chat_template.json,
    which processors of several media write, counts where there is nothing else. Raises `UsageError` for damaged files;
    `place` begins the sentence.
    """
    named = {path.stem: path for path in sorted((directory / "additional_chat_templates").glob("*.jinja"))}
    if (file := directory / "chat_template.jinja").is_file():
        named[DEFAULT] = file
    if named:
        return {name: _read(path, place) for name, path in named.items()}
    found = read_config(directory, place).get("chat_template")
    if found is None and (file := directory / "chat_template.json").is_file():
        found = read_mapping(file, f"{place}: {file.name}", "restore it").get("chat_template")
    return _by_name(found, place)


def _by_name(found: Any, place: str) -> dict[str, str]:
    if found is None:
        return {}
    if isinstance(found, str):
        return {DEFAULT: found}
    entries = found if isinstance(found, list) else []
    pairs = [(entry.get("name"), entry.get("template")) for entry in entries if isinstance(entry, dict)]
    texts = {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
    if not texts or len(texts) < len(entries):
        raise UsageError(f"{place}: its chat_template is neither a text nor a list of named texts; restore the file")
    return texts


def _read(file: Path, place: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{place}: {file.name} cannot be read ({first_line(error, 160)}); restore it") from None
