"""Starts Ray for one command on this machine, closed to everybody else, and removes all traces of it afterwards.

It has a random token, listens on 127.0.0.1 only, and keeps its files in a private folder of the user, where a `Reaper`
cleans up. Measurements: docs/lab/local_ray.md
"""

import atexit
import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import ray
from ray import _raylet
from ray._private import ray_constants
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker

from lmsys_ray.cluster import process_limits, ray_messages
from lmsys_ray.cluster.reaper import Reaper, remove_stale, sessions
from lmsys_ray.errors import RunError, Stopped, UsageError
from lmsys_ray.output import end
from lmsys_ray.stopping import asked_to_stop, say_stopped

_LOOPBACK = "127.0.0.1"

_QUIET = {
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "3600",
    "REPORTER_UPDATE_INTERVAL_MS": "3600000",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_worker_niceness": "0",
}
"""Turns off the forwarding of logs, reports on memory and the history of tasks, which nobody reads without a dashboard,
and gives workers the priority of any other process. Variables of the environment take precedence."""

_CLOSED = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_preload_python_modules": "lmsys_ray.cluster.parent_death",
}
"""Closes a local Ray, whatever the environment says: a token, the loopback address for each process (a switch that Ray
has for systems whose firewall asks), no exporter of metrics, and workers that end with their raylet."""

_IN_VAIN = "Timed out waiting for file"

_SHARED_MEMORY = "/dev/shm"

_SOCKET_BYTES = 107
"""The longest path of a socket, see unix(7)."""

_SESSION_BYTES = len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")

_KEEP_LOGS_SECONDS = 24 * 3600.0

_EXPLAINED = (RunError, Stopped)
"""Errors with a sentence of their own, to which Ray's logs add nothing."""


@contextmanager
def local_ray() -> Iterator[None]:
    """Starts Ray and shuts it down; after an error the `Reaper` ends it, together with the command.

    If one of Ray's own processes ends, the command ends at once with a sentence and exit code 1. Raises `UsageError`
    for a temporary folder or a limit of the shell that does not do, `RunError` where Ray does not start.
    """
    process_limits.check_limits()
    root = temporary_root()
    remove_stale(root, _KEEP_LOGS_SECONDS)
    reaper = Reaper(root)
    try:
        with ExitStack() as stack:
            stack.enter_context(_environment())
            _start(root, reaper)
            watch = _Watch(root, reaper)
            yield
            watch.stop()
            # Not after an error: other threads may wait for Ray, whose core would then end the process without a word.
            ray.shutdown()
    except BaseException as error:
        explained = isinstance(error, _EXPLAINED)
        if not explained:
            error.add_note(f"Ray: {_logs(root)}")
        reaper.notify(keep_logs=not explained)
        raise
    reaper.finish()


def temporary_root() -> Path:
    """Returns the user's folder for the sessions of local Rays, in RAY_TMPDIR or the temporary folder.

    Raises `UsageError` where it cannot be written, belongs to another user, or is too long for paths of sockets.
    """
    parent = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()).absolute() / f"lmsys_ray_{os.getuid()}"
    root = parent / "r"  # Ray opens it to everybody, but its parent stays closed.
    remedy = "set RAY_TMPDIR to a short path of a folder of yours"
    longest = len(os.fsencode(root)) + _SESSION_BYTES
    if longest > _SOCKET_BYTES:
        raise UsageError(
            f"Ray's temporary folder {root} is too long: a socket below it would have a path of {longest} bytes, "
            f"{_SOCKET_BYTES} are allowed; {remedy}"
        )
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if parent.lstat().st_uid != os.getuid():
            raise UsageError(f"Ray's temporary folder {parent} belongs to somebody else; {remedy}")
        parent.chmod(0o700)
        root.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise UsageError(f"Ray's temporary folder {root} cannot be written ({error.strerror}); {remedy}") from None
    return root


@contextmanager
def _environment() -> Iterator[None]:
    """Sets the environment of Ray's processes, and restores it after Ray is shut down."""
    before = dict(os.environ)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    os.environ |= _CLOSED | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    _reload_environment(cluster=False)
    yield
    # Not after an error, when Ray is still running.
    for name in {*_QUIET, *_CLOSED, "RAY_AUTH_TOKEN"}:
        os.environ.pop(name, None)
        if name in before:
            os.environ[name] = before[name]
    _reload_environment(cluster=True)


def _reload_environment(cluster: bool) -> None:
    """Makes Ray read the environment again, which it read at its import."""
    ray_constants.ENABLE_RAY_CLUSTER = cluster
    _raylet.Config.initialize("")  # type: ignore[attr-defined]
    _raylet.AuthenticationTokenLoader.instance().reset_cache()  # type: ignore[attr-defined]


def _start(root: Path, reaper: Reaper) -> None:
    with native_output_held() as held, sigterm_kept():
        try:
            _init(root)
        except Exception as error:  # Ray raises plain `Exception`, too, if one of its processes does not start.
            reaper.notify(keep_logs=True)
            held.seek(0)
            for folder in sessions(root, os.getpid()):
                (folder / "logs" / "driver.err").write_bytes(held.read())
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            raise RunError(f"Ray did not start ({reason}){process_limits.hint()}; {_logs(root)}") from error


def _init(root: Path) -> None:
    """Starts Ray; once again where a busy machine was slower than Ray waits for its own processes."""
    ray_messages.to_logging()
    options: dict[str, Any] = {
        "address": "local",
        "include_dashboard": False,
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "_temp_dir": str(root),
        "_plasma_directory": _object_store(root),
        "_node_ip_address": _LOOPBACK,
    }
    try:
        ray.init(**options)
    except Exception:  # as in `_start`
        if not any(_waited_in_vain(folder) for folder in sessions(root, os.getpid())):
            raise
        ray.shutdown()
        ray.init(**options)


def _waited_in_vain(session: Path) -> bool:
    """Returns whether a raylet ended since its agent did not answer in the 15 s that Ray gives it."""
    log = session / "logs" / "raylet.err"
    return log.is_file() and _IN_VAIN in log.read_text(errors="replace")


def _object_store(root: Path) -> str | None:
    """Returns where Ray shall keep its objects: None, for its own choice, unless shared memory cannot be written."""
    try:
        with tempfile.TemporaryFile(dir=_SHARED_MEMORY):
            return None
    except OSError:
        return str(root)


def _logs(root: Path) -> str:
    folders = " ".join(str(folder / "logs") for folder in sessions(root, os.getpid()))
    return f"its logs are in {folders or root} for a day; the same command resumes from what is done"


class _Watch:
    """Ends the command with a sentence when a process that Ray needs ends before it."""

    def __init__(self, root: Path, reaper: Reaper) -> None:
        self._root = root
        self._reaper = reaper
        self._over = False
        node = ray_worker._global_node
        assert node is not None
        for kind in (ray_constants.PROCESS_TYPE_GCS_SERVER, ray_constants.PROCESS_TYPE_RAYLET):
            for started in node.all_processes[kind]:
                arguments = (kind, started.process.pid)
                threading.Thread(target=self._watch, args=arguments, name=f"watch over {kind}", daemon=True).start()
        atexit.register(self.stop)  # runs before Ray's own exit handler, which was registered earlier

    def stop(self) -> None:
        """Lets the processes end from now on."""
        self._over = True

    def _watch(self, kind: str, pid: int) -> None:
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # leaves the process for Ray to reap
        if self._over:
            return
        if number := asked_to_stop():  # sent to all processes, as when a terminal closes or a supervisor ends a job
            self._reaper.notify(keep_logs=False)
            say_stopped(number)
        else:
            self._reaper.notify(keep_logs=True)
            limits = process_limits.hint()
            end(f"error: Ray's {kind} (process {pid}) ended before the command{limits}; {_logs(self._root)}", 1)


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Keeps the handler of SIGTERM, which both Ray and its core would replace by their own."""
    handler, setter = signal.getsignal(signal.SIGTERM), ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda _: None
    try:
        yield
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
    finally:
        ray_utils.set_sigterm_handler = setter


@contextmanager
def native_output_held() -> Iterator[IO[bytes]]:
    """Yields a file that receives what Ray's C++ core writes to stderr while it starts.

    What Python writes to stderr, such as the last sentence of a command, still reaches the terminal.
    """
    sys.stderr.flush()
    stream = sys.stderr
    with tempfile.TemporaryFile() as held, os.fdopen(os.dup(2), "w", errors="replace") as terminal:
        os.dup2(held.fileno(), 2)
        sys.stderr = terminal
        try:
            yield held
        finally:
            sys.stderr = stream
            os.dup2(terminal.fileno(), 2)
