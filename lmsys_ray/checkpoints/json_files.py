"""Reads the JSON files of a model or an adapter."""

import json
from pathlib import Path
from typing import Any

from lmsys_ray.errors import UsageError, first_line


def read_mapping(file: Path, what: str, remedy: str) -> dict[str, Any]:
    """Returns the content of a JSON file; `what` names it, such as `model: config.json of NAME`.

    Raises `UsageError` where it cannot be read, or is not JSON, nested too deeply or not a mapping.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error, 160)
        raise UsageError(f"{what} cannot be read ({reason}); {remedy}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what} is not JSON ({first_line(error, 160)}); {remedy}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{what} is not a mapping of settings; {remedy}")
    return content
