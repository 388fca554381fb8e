"""Digests of the input of a training, which resumes only with the files that it began with."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from lmsys_ray.errors import UsageError
from lmsys_ray.storage.files import open_binary, path_of

NOTED = "content of the input"
"""The key of `input_content` in the record of a training."""

_READ_BYTES = 1 << 20


def input_content(files: Sequence[str]) -> dict[str, str]:
    """Returns the SHA-256 of each file's whole content, by its path or URL.

    Size or date may not change when labels are edited in place.
    """
    content = {}
    for file in files:
        digest = hashlib.sha256()
        with open_binary(path_of(file)) as stream:
            while part := stream.read(_READ_BYTES):
                digest.update(part)
        content[file] = digest.hexdigest()
    return content


def check_content(before: dict[str, str] | None, now: dict[str, str], directory: Path) -> None:
    """Raises `UsageError` for the first file that differs between the start of a training and now.

    `before` is None for a training that was begun by an earlier version, which did not record it.
    """
    remedy = f"or remove {directory} to train anew"
    if before is None:
        raise UsageError(
            f"--output: {directory} holds a training that did not record the content of its input; continue with the "
            f"version of lmsys_ray that began it, {remedy}"
        )
    for file in [*before, *(file for file in now if file not in before)]:
        if before.get(file) != now.get(file):
            what = "has changed" if file in before and file in now else "was added" if file in now else "was left out"
            raise UsageError(f"--input: {file} {what} since the training in {directory} began; undo that, {remedy}")
