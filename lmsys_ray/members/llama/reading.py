"""What goes wrong in libraries that read a user's files becomes one sentence."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from lmsys_ray.errors import UsageError

READING_ERRORS = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError),
    *(RuntimeError, ImportError, RecursionError, SafetensorError, StrictDataclassError),
)
"""What transformers, safetensors and gguf raise for files that are damaged or that they do not know."""

_LONGEST = 300

_PIP_INSTALL = re.compile(r"pip3? install (?:-U |--upgrade )?[`'\"]?([A-Za-z0-9_.-]+)")
_REQUIRES = re.compile(r"(?:requires|using) (?:the )?`?([A-Za-z0-9_.-]+)`?(?: library)?", re.IGNORECASE)


@contextmanager
def reading(what: str, remedy: str = "") -> Iterator[None]:
    """Turns the errors of libraries into a `UsageError`: `what` cannot be done, why, and the remedy.

    Only calls of libraries that read the user's files belong within. Running out of a GPU's memory comes through.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except READING_ERRORS as error:
        if isinstance(error, ImportError):
            remedy = f"install {package} and start again" if (package := _package(error)) else remedy
        raise UsageError(f"{what} ({reason(error)})" + (f"; {remedy}" if remedy else "")) from None


def reason(error: Exception) -> str:
    """Returns what an error says, in one line that a sentence can quote."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if text.endswith(":") and len(lines) > 1:  # the first line only says where
        text = f"{text} {lines[1]}"
    if isinstance(error, KeyError):
        text = f"unknown: {text}"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _package(error: ImportError) -> str | None:
    """Returns the name of the package whose absence is the error, where that says so."""
    for pattern in (_PIP_INSTALL, _REQUIRES):
        if found := pattern.search(str(error)):
            return found[1].rstrip(".")
    return error.name.partition(".")[0] if error.name else None
