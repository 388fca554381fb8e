"""Guards tasks that read the input, against replaced files and files that kill processes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from lmsys_ray.cluster.excluded_nodes import check_here
from lmsys_ray.cluster.shared_files import SharedFiles
from lmsys_ray.fault_tolerance.watchdog import Reporter
from lmsys_ray.storage.unchanged import Original


@dataclass(frozen=True)
class Guard:
    """Is sent along with the tasks."""

    originals: Sequence[Original]
    """The files of the input, in order."""
    shared: SharedFiles
    """The files that a node must see to read."""
    ledger: Any
    max_deaths: int

    def from_file(self, place: int) -> "Guard":
        """Returns the guard of the files from `place` on."""
        return replace(self, originals=self.originals[place:])

    @contextmanager
    def reading(self, number: int, part: int) -> Iterator[None]:
        """Surrounds reading one of the files, or the part of it that begins at `part`.

        Raises `ExcludedNodeError` on a node that does not see the run's files, `RunError` where too many processes died
        at the file, `ReplacedError` where it was replaced.
        """
        check_here(self.shared)
        file = self.originals[number]
        reporter = Reporter(self.ledger, "input", "read", self.max_deaths)
        with reporter.reading(file.path, file.place, part), file.unchanged():
            yield
