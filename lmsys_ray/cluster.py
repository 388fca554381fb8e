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

import ray
from ray.data import DataContext


@dataclass(frozen=True)
class Resources:
    """What the cluster has, in whole devices."""

    cpus: int
    gpus: int


@contextmanager
def ray_cluster() -> Iterator[Resources]:
    """Connects to the cluster that `RAY_ADDRESS` names (a submitted job has it), else starts one here.

    A cluster that this process is connected to already is used as it is and left standing. The local one listens on
    127.0.0.1 alone and has no dashboard.
    """
    standing = ray.is_initialized()
    if not standing:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray 2.60 prints, at its level ERROR, a warning for every actor pool of Ray Data that no caller can avoid.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        submitted = "RAY_ADDRESS" in os.environ
        with _native_output_held(), _sigterm_kept():
            ray.init(
                address=None if submitted else "local",
                include_dashboard=None if submitted else False,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    _set_up_ray_data()
    found = ray.cluster_resources()
    yield Resources(cpus=max(1, int(found.get("CPU", 1))), gpus=int(found.get("GPU", 0)))
    # Not after an error: other threads may be waiting for Ray, whose core then ends the process without a word.
    if not standing:
        ray.shutdown()


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
    context.raise_original_map_exception = True  # so that a member's sentence reaches the user as it is
    logging.getLogger("ray").setLevel(logging.ERROR)
    for handler in logging.getLogger("ray.data").handlers:
        # Its own log file keeps everything; the terminal shows what this package makes of an error.
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)
