"""Turns the errors of libraries that read a user's files into one sentence."""

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from lmsys_ray.errors import UsageError

READING_ERRORS = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError),
    *(RuntimeError, ImportError, SafetensorError, StrictDataclassError, pickle.UnpicklingError, EOFError, MemoryError),
)
"""What transformers, safetensors and gguf raise for damaged or unknown files."""

_LONGEST = 300

_PIP_INSTALL = re.compile(r"pip3? install (?:-U |--upgrade )?[`'\"]?([A-Za-z0-9_.-]+)")
_REQUIRES = re.compile(r"(?:requires|using) (?:the )?`?([A-Za-z0-9_.-]+)`?(?: library)?", re.IGNORECASE)


@contextmanager
def library_errors(what: str, remedy: str = "") -> Iterator[None]:
    """Turns the errors of libraries into a `UsageError`: `what` failed, why, and the remedy.

    Only calls of libraries that read the user's files belong inside. Running out of GPU memory is raised as it is.
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
    """Returns what an error says, in one line for a sentence that quotes it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if text.endswith(":") and len(lines) > 1:  # the first line only says where it happened
        text = f"{text} {lines[1]}"
    if isinstance(error, KeyError):
        text = f"unknown: {text}"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _package(error: ImportError) -> str | None:
    """Returns the name of the missing package, if the error names one."""
    for pattern in (_PIP_INSTALL, _REQUIRES):
        if found := pattern.search(str(error)):
            return found[1].rstrip(".")
    return error.name.partition(".")[0] if error.name else None
