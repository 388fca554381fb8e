"""Where relative outputs are put: in the working directory, except for submitted jobs.

Ray unpacks the working directory of `ray job submit --working-dir` into a cache, where it may delete it at any time.
"""

import os
from pathlib import Path

from lmsys_ray.errors import UsageError
from lmsys_ray.storage.files import path_of

ROOT_VARIABLE = "LMSYS_RAY_OUTPUT_ROOT"

_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it for the driver of a submitted job, and for no other process."""

_JOB_ROOT = "lmsys_ray"
"""In the home directory of the node that runs the driver, which is the head unless the job asked for another."""


def is_submitted() -> bool:
    """Returns whether this process was started by `ray job submit`."""
    return _JOB_VARIABLE in os.environ


def output_path(name: str, root: str | None = None) -> str:
    """Returns the absolute path, or the URL, of an output that a setting or a flag names.

    A relative name is put under `root`, else under `LMSYS_RAY_OUTPUT_ROOT`, else into the working directory or, in a
    submitted job, under `~/lmsys_ray`. Raises `UsageError` for a relative root, and for `~` without a home directory.
    """
    if _is_whole(name):
        return _expanded(name)
    key = "output_root" if root else ROOT_VARIABLE
    root = root or os.environ.get(ROOT_VARIABLE) or None
    if root is None:
        root = _expanded(f"~/{_JOB_ROOT}") if is_submitted() else os.getcwd()
    elif not _is_whole(root):
        raise UsageError(f"{key} = {root} is relative; give an absolute path or a URL")
    return str(path_of(_expanded(root)) / os.path.normpath(name))


def local_output(name: str) -> Path:
    """Returns the absolute path of an output that must be local; raises `UsageError` for a URL."""
    path = path_of(output_path(name))
    if not isinstance(path, Path):
        raise UsageError(f"--output: {path} is not a local path; give one, and copy what was written there")
    return path


def _is_whole(name: str) -> bool:
    return not isinstance(path_of(name), Path) or name.startswith("~") or Path(name).is_absolute()


def _expanded(name: str) -> str:
    if not name.startswith("~"):
        return name
    try:
        return str(Path(name).expanduser())
    except RuntimeError:
        raise UsageError(f"{name} leads nowhere, since this user has no home; set {ROOT_VARIABLE} or HOME") from None
