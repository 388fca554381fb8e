"""Connects to the cluster of a submitted job, or starts Ray on this machine alone."""

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
import yaml
from ray.data import DataContext

_LAUNCHED = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves the cluster file on the head, on which submitted jobs run their drivers."""


_ALONE = {
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "3600",
    "REPORTER_UPDATE_INTERVAL_MS": "3600000",
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_worker_niceness": "0",
}
"""For Ray on this machine alone. It does not look for new log files ten times a second, to send on what they say, nor
gather processes' memory, metrics and the history of tasks: that took 2 % of a core, and has no reader where there is no
dashboard and no other node. Workers, which compute, have the claim of any process, not a thirtieth (see `priorities`).
"""


@dataclass(frozen=True)
class Resources:
    """What the cluster has, in whole devices, and what it may come to have."""

    cpus: int
    gpus: int
    grows: bool = False
    """Whether nodes may join: not where Ray runs on this machine alone."""
    starts_gpus: bool = False
    """Whether its autoscaler is known to start nodes with GPUs."""

    def now(self) -> "Resources":
        """Returns the same cluster as it is now."""
        return _resources(self.grows)


@contextmanager
def ray_cluster() -> Iterator[Resources]:
    """Connects to the cluster that `RAY_ADDRESS` names (a submitted job has it), else starts one here.

    A cluster that this process is connected to already is used as it is and left standing. The local one listens on
    127.0.0.1 alone and has no dashboard.
    """
    standing = ray.is_initialized()
    submitted = "RAY_ADDRESS" in os.environ
    if not standing:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray 2.60 prints, at its level ERROR, a warning for every actor pool of Ray Data that no caller can avoid.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        if not submitted:
            for name, value in _ALONE.items():
                os.environ.setdefault(name, value)
        with _native_output_held(), _sigterm_kept():
            ray.init(
                address=None if submitted else "local",
                include_dashboard=None if submitted else False,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    _set_up_ray_data()
    yield _resources(grows=standing or submitted)
    # Not after an error: other threads may be waiting for Ray, whose core then ends the process without a word.
    if not standing:
        ray.shutdown()


def _resources(grows: bool) -> Resources:
    found = ray.cluster_resources()
    cpus, gpus = max(1, int(found.get("CPU", 1))), int(found.get("GPU", 0))
    return Resources(cpus, gpus, grows, grows and launched_with_gpus())


def launched_with_gpus() -> bool:
    """Returns whether this node is the head of a cluster of `ray up` that has a type of workers with GPUs.

    Ray itself does not tell: what its autoscaler may start is written down nowhere but in the file it was given.
    """
    path = _LAUNCHED.expanduser()
    if not path.is_file():
        return False
    types = yaml.safe_load(path.read_text(encoding="utf-8")).get("available_node_types", {}).values()
    return any(node.get("resources", {}).get("GPU", 0) > 0 < node.get("max_workers", 0) for node in types)


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Puts back the handler of SIGTERM, in whose place Ray sets one that leaves with the exit code 15."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _native_output_held() -> Iterator[None]:
    """Keeps what Ray's C++ core says on stderr while it starts (its log level, once more) unless the start fails."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _set_up_ray_data() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.memory_usage_poll_interval_s = None  # each actor would walk its own memory map once a second
    context.raise_original_map_exception = True  # so that a member's sentence reaches the user as it is
    logging.getLogger("ray").setLevel(logging.ERROR)
    for handler in logging.getLogger("ray.data").handlers:
        # Its own log file keeps everything; the terminal shows what this package makes of an error.
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)
