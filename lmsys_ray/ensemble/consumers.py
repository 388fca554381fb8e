"""What every output of a run is: a consumer of its joined shards; and files that are replaced together."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol, TextIO

from lmsys_ray.ensemble.join import JoinedShard
from lmsys_ray.storage.durable import sync_file
from lmsys_ray.storage.errors import storage_errors
from lmsys_ray.storage.files import AnyPath, atomic_file, remove


class Consumer(Protocol):
    """An output that is made in one pass over the joined shards."""

    @property
    def path(self) -> AnyPath:
        """The file that it becomes, which errors of the disk name."""
        ...

    @property
    def columns(self) -> Sequence[str]:
        """The columns of a shard that `add` reads beside `row`, `id` and `rejected`, as far as the run has them."""
        ...

    def add(self, joined: JoinedShard) -> None:
        """Takes the next shard, in order."""
        ...

    def finish(self) -> list[str]:
        """Writes what is left and checks it, once all shards were added; returns lines for the end of the command."""
        ...


class OutputFiles:
    """Temporary files whose names are taken on together, by `replaced_together`."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._written: dict[AnyPath, Path] = {}
        self._removed: list[AnyPath] = []

    def aside(self, path: AnyPath) -> Path:
        """Returns the local path of a file that becomes `path`."""
        self._written[path] = self._stack.enter_context(atomic_file(path))
        return self._written[path]

    def remove(self, path: AnyPath) -> None:
        """Has a file removed, if it exists, when the others take on their names."""
        self._removed.append(path)

    def clear(self) -> None:
        """Removes the earlier first file, by whose absence a set that is not whole is known, then all to be removed."""
        for path, aside in self._written.items():
            if isinstance(path, Path):  # a full disk must be found before anything is gone
                with storage_errors(path, "written"):
                    sync_file(aside)
        for path in [*list(self._written)[:1], *self._removed]:
            remove(path)

    def open(self, aside: Path) -> TextIO:
        """Opens such a path as UTF-8; to be closed before the block ends, and closed in any case."""
        return self._stack.enter_context(aside.open("w", encoding="utf-8", newline=""))


@contextmanager
def replaced_together() -> Iterator[OutputFiles]:
    """Gives files that all become those they are named after when the block ends without an error, the first one last.

    An earlier first file is removed before all else: after a kill at any point it is there only beside the others of
    its own set. Where the block raises, nothing is replaced or removed.
    """
    with ExitStack() as stack:
        files = OutputFiles(stack)
        yield files
        files.clear()
