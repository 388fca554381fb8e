"""Values that a file's folders name, as in `language=en/part-0.parquet`: the layout of Hive, Spark and pandas."""

from __future__ import annotations

from urllib.parse import unquote

_NULL = "__HIVE_DEFAULT_PARTITION__"


def partition_values(path: str) -> dict[str, str | None]:
    """Returns what the folders of a path are named after, by column, percent-decoded; of two alike the first counts."""
    values: dict[str, str | None] = {}
    for folder in path.split("/")[:-1]:
        name, equals, value = folder.partition("=")
        if name and equals:
            values.setdefault(_text(name), None if value == _NULL else _text(value))
    return values


def _text(part: str) -> str:
    return unquote(part).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
