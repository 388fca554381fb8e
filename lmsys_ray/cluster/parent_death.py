"""Ends a Ray worker with its raylet, even one that hangs; workers of a local Ray import it as they start.

A worker that is told to exit first stops checking whether its raylet lives. If it then hangs, the raylet kills it after
some seconds, but the raylet of a local Ray is gone by then. Measurements: docs/lab/local_ray.md
"""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
"""See prctl(2). The signal comes when the thread that started the worker ends: the raylet's main one."""


def die_with(parent: int) -> None:
    """Has the kernel kill this process when `parent` ends; does nothing where another process started it."""
    if os.getppid() != parent:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # It ended just before.
        os.kill(os.getpid(), signal.SIGKILL)


if "RAY_RAYLET_PID" in os.environ:
    die_with(int(os.environ["RAY_RAYLET_PID"]))
