"""Signals that stop a command: they unwind it, and other threads know of them before the main thread does."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from lmsys_ray.errors import Stopped
from lmsys_ray.output import end

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Stopping:
    """What this process knows of a stop: the words to resume with, the pipe that Python writes signals to."""

    typed: Sequence[str] = ()
    pipe: int | None = None
    number: int | None = None
    lock = threading.Lock()


def stop_on_signals(typed: Sequence[str] | None = None) -> None:
    """Makes SIGINT, SIGTERM and SIGHUP raise `Stopped`, the last unless it is ignored, as under nohup.

    `typed` is what a user types to resume; by default, this process's own command line.
    """
    _Stopping.typed = typed or sys.orig_argv
    for number in _STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    if _Stopping.pipe is None:
        _Stopping.pipe, written = os.pipe()
        os.set_blocking(_Stopping.pipe, False)
        os.set_blocking(written, False)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)


def asked_to_stop() -> int | None:
    """Returns the signal that this command was sent, also if the main thread waits and has not been told yet."""
    with _Stopping.lock:
        if _Stopping.pipe is None or _Stopping.number is not None:
            return _Stopping.number
        try:
            came = list(os.read(_Stopping.pipe, 64))
        except BlockingIOError:
            came = _pending()
        _Stopping.number = next((number for number in came if number in _STOP_SIGNALS), None)
        return _Stopping.number


def say_stopped(number: int) -> NoReturn:
    """Ends the process as one that the signal has stopped, with the command that resumes."""
    end(f"stopped; what is done is kept, resume with: {shlex.join(_Stopping.typed)}", Stopped(number).exit_code)


def _pending() -> list[int]:
    """Returns the signals that the kernel has for this process and no thread has taken, see proc(5)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    mask = int(fields["ShdPnd"], 16)
    return [number for number in _STOP_SIGNALS if mask >> (number - 1) & 1]


def _stop(number: int, frame: FrameType | None) -> None:
    """Unwinds the command once; the signal that an impatient user sends again must not cut the clean-up short."""
    for each in _STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)
