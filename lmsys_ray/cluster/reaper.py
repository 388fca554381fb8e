"""A small process beside a local Ray that removes what Ray leaves behind, however the command ends.

Some of Ray's processes hang at their exit, and Ray never removes its temporary folder. A command that is killed cannot
do that itself, nor say why it ended. Measurements: docs/lab/local_ray.md
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lmsys_ray.errors import RunError
from lmsys_ray.processes import Process

_REAP_SECONDS = 20.0
_LOOK_SECONDS = 0.1
_QUIET_LOOKS = 3
"""Searches in a row that must find nothing, since a process may be starting another."""

_EXPLAINED, _KEEP = "explained", "keep"
"""Words that the command writes to the reaper: it says itself why it ends, and the logs must be kept."""


def sessions(root: Path, driver: int) -> list[Path]:
    """Returns the session folders of Rays that the process `driver` started."""
    return sorted(path for path in root.glob(f"session_*_{driver}") if path.is_dir())


def session_processes(folders: Iterable[Path]) -> list[Process]:
    """Returns Ray's processes of the sessions in `folders`, without the driver.

    They run this Python or a program of Ray. Their command line names the folder, or is `ray::...` once they have
    started, and then they have a file in the folder open.
    """
    inside = tuple(f"{folder}/" for folder in folders)
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        with suppress(OSError):  # It may have ended, or belong to another user.
            program = os.readlink(f"/proc/{pid}/exe")
            if program != os.readlink("/proc/self/exe") and Path(program).name not in ("gcs_server", "raylet"):
                continue
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            if any(path in command for path in inside) or (command.startswith("ray::") and _holds(pid, inside)):
                found.append(Process.of(pid))
    return [process for process in found if process is not None and process.pid != os.getpid()]


def _holds(pid: int, inside: tuple[str, ...]) -> bool:
    files = Path(f"/proc/{pid}/fd")
    for file in os.listdir(files):
        with suppress(OSError):
            if os.readlink(files / file).startswith(inside):
                return True
    return False


def reap(folders: list[Path]) -> None:
    """Kills the processes of some sessions until none is left."""
    deadline, quiet = time.monotonic() + _REAP_SECONDS, 0
    while quiet < _QUIET_LOOKS and time.monotonic() < deadline:
        left = session_processes(folders)
        for process in left:
            process.kill()
        quiet = 0 if left else quiet + 1
        time.sleep(_LOOK_SECONDS)


def remove_stale(root: Path, seconds: float) -> None:
    """Removes sessions whose command is dead and whose logs were not written for so many seconds.

    Logs are kept for that time. A driver in another container cannot be seen from here, but writes its logs.
    """
    for folder in (path for path in root.glob("session_*_*") if path.is_dir() and not path.is_symlink()):
        driver = folder.name.rpartition("_")[2]
        with suppress(OSError):
            written = max(path.stat().st_mtime for path in (folder, *(folder / "logs").glob("*")))
            if time.time() - written > seconds and driver.isdigit() and Process.of(int(driver)) is None:
                reap([folder])
                shutil.rmtree(folder, ignore_errors=True)


class Reaper:
    """The reaper process of this command; it is started before Ray."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, "-m", "lmsys_ray.cluster.reaper", str(root), str(os.getpid())]
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # a signal to the command's process group must not end the reaper
                env={**os.environ, "PYTHONPATH": path},
                text=True,
            )
        except OSError as error:
            raise RunError(
                f"{sys.executable} cannot be started as a process of its own ({error.strerror}); mend that (who may "
                "run it, `ulimit -u`), and start the same command again"
            ) from None

    def notify(self, keep_logs: bool = False) -> None:
        """Tells the reaper that the command says itself why it ends, and whether Ray's logs must be kept."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(f"{_KEEP if keep_logs else _EXPLAINED}\n")
            self._process.stdin.flush()

    def finish(self) -> None:
        """Waits until nothing is left of a Ray that has been shut down."""
        self.notify()
        with suppress(OSError, subprocess.TimeoutExpired):
            self._process.communicate(timeout=2 * _REAP_SECONDS)


def main(root: Path, driver: int) -> None:
    """Waits for the end of standard input, which ends with the command, and cleans up."""
    words = set(sys.stdin.read().split())
    if not words:
        print(
            f"error: process {driver} was ended, by a signal or by Ray's core, before it could say why; what is done "
            "is kept, the same command resumes from there",
            file=sys.stderr,
            flush=True,
        )
    folders = sessions(root, driver)
    reap(folders)
    for folder in folders if _KEEP not in words else ():
        shutil.rmtree(folder, ignore_errors=True)
    latest = root / "session_latest"
    if latest.is_symlink() and not latest.exists():
        latest.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
