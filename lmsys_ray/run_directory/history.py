"""The history of a run: a record of each start in the manifest."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from lmsys_ray import __version__
from lmsys_ray.errors import RunError
from lmsys_ray.moments import as_text
from lmsys_ray.processes import Process
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.manifest import Manifest

_MOST = 1000
"""Starts that are kept; the earliest are dropped first."""


class History:
    """The record of one start.

    It holds `began` (UTC), `lmsys_ray` (the version), `host`, `pid` and `exit` (None while the start runs, and after it
    was killed); at its end also `seconds` of each stage, `ingested` and `scored` rows, shards by `nodes`, what each
    of a member's `replicas` did, `deaths` of workers and when each was noticed (`died_at`), and the `error` that ended
    it.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        here = Process.current()
        self._record: dict[str, Any] = {
            "began": as_text(),
            "lmsys_ray": __version__,
            "host": here.host,
            "pid": here.pid,
            "exit": None,
        }

    def begin(self, manifest: Manifest) -> None:
        """Adds this start to `manifest`, which the caller writes."""
        manifest.starts = [*manifest.starts, self._record][-_MOST:]

    def end(self, results: Mapping[str, Any], code: int, error: str | None = None) -> None:
        """Adds the exit code and the results of the start to its record."""
        self._record |= {"exit": code, **results, **({"error": error} if error else {})}

    @contextmanager
    def recording_failure(self, results: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
        """Writes the error or signal that ends the block, and the `results` by then, into the manifest."""
        try:
            yield
        except BaseException as error:
            code = getattr(error, "exit_code", 1)
            with suppress(RunError):  # The first error is the one to report.
                self._write_failure(
                    results(), code, str(error) if isinstance(error, RunError) else type(error).__name__
                )
            raise

    def _write_failure(self, results: Mapping[str, Any], code: int, error: str) -> None:
        manifest = self._run.read_manifest()
        own = ("began", "host", "pid")
        if manifest and manifest.starts and all(manifest.starts[-1].get(key) == self._record[key] for key in own):
            self.end(results, code, error)
            manifest.starts[-1] = self._record
            self._run.write_manifest(manifest)
