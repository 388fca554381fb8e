"""The files that every node of a run must see as the driver does: the run directory, local inputs and local models.

A node with another disk would miss shards that others have written, or read another file of the same name.
"""

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.lock import Holder
from lmsys_ray.storage.files import AnyPath
from lmsys_ray.storage.packaged import local

_TRIES, _PAUSE = 3, 1.0
"""A network file system may show a replaced file only a moment later."""

Sizes = tuple[tuple[str, int], ...]
"""Names of files below a path, and their sizes in bytes."""


@dataclass(frozen=True)
class SharedFiles:
    """The files as the driver sees them."""

    run: str
    start: str
    """The token in the run's lock, which no other start has."""
    local: tuple[tuple[str, Sizes], ...]
    """Local paths as in the settings, with the sizes of their files."""

    @classmethod
    def of(cls, run: RunDirectory, start: str, names: Iterable[str]) -> "SharedFiles":
        """Returns the files of `names` as this process sees them, without URLs and hub ids."""
        found = {name: _sizes(name) for name in names}
        return cls(str(run.path), start, tuple((name, sizes) for name, sizes in found.items() if sizes))

    def fault(self) -> str | None:
        """Returns, as a phrase, what this process does not see as the driver does; None if it sees everything."""
        for tries_left in reversed(range(_TRIES)):
            fault = self._run_fault() or self._file_fault()
            if fault is None or not tries_left:
                return fault
            time.sleep(_PAUSE)
        return None

    def _run_fault(self) -> str | None:
        run = RunDirectory(self.run)
        try:
            with _written_into(run.path):
                text = run.read_lock()
        except RunError as error:
            return str(error)
        except OSError as error:
            return f"{self.run} cannot be written there ({error.strerror})"
        if not text:
            return f"{self.run} is not the run directory there"
        holder = Holder.parse(text)
        return None if holder and holder.token == self.start else f"{self.run} is another run directory there"

    def _file_fault(self) -> str | None:
        for name, sizes in self.local:
            try:
                found = _sizes(name)
            except OSError as error:
                return f"{name} cannot be read there ({error.strerror})"
            except UsageError as error:
                return str(error)
            if found != sizes:
                advice = "" if Path(name).is_absolute() else "; it is relative, give its absolute path"
                return f"{name} is {'not the same' if found else 'missing'} there{advice}"
        return None


@lru_cache(maxsize=4)
def fault_here(expected: SharedFiles) -> str | None:
    """Returns the `fault` of this process, which checks once, since it stays on its node."""
    return expected.fault()


def _sizes(name: str) -> Sizes:
    path = local(name)
    if not isinstance(path, Path):
        return ()
    if path.is_dir():
        return tuple((str(f.relative_to(path)), f.stat().st_size) for f in sorted(path.rglob("*")) if f.is_file())
    return ((path.name, path.stat().st_size),) if path.is_file() else ()


@contextmanager
def _written_into(folder: AnyPath) -> Iterator[None]:
    """Keeps a file in a local folder, which makes a network file system refresh what it cached of the others there."""
    if not isinstance(folder, Path) or not folder.is_dir():
        yield
        return
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".look-", suffix=".tmp"):
        yield
