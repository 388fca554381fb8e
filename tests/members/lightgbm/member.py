"""Copies of the packaged member that tests may damage."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from lmsys_ray.members.lightgbm.artifacts import METADATA
from lmsys_ray.storage.packaged import DIRECTORY

PACKAGED = DIRECTORY / "lightgbm"


def copy_of_packaged(directory: Path) -> Path:
    """Returns `directory`, to which the files of the member are copied, with two of its boosters."""
    metadata = json.loads((PACKAGED / METADATA).read_text())
    names = [name for name in metadata["files"] if not name.startswith("booster") or name < "booster-02"]
    metadata["files"] = {name: metadata["files"][name] for name in names}
    directory.mkdir()
    for name in names:
        shutil.copy(PACKAGED / name, directory / name)
    (directory / METADATA).write_text(json.dumps(metadata))
    return directory


def rewrite(directory: Path, name: str, change: Callable[[str], str]) -> None:
    """Changes a file and its digest with it: what is then found wrong is the content."""
    text = change((directory / name).read_text())
    (directory / name).write_text(text)
    metadata = json.loads((directory / METADATA).read_text())
    metadata["files"][name] = hashlib.sha256(text.encode()).hexdigest()
    (directory / METADATA).write_text(json.dumps(metadata))
