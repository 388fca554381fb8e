"""What all commands share: signals and errors become one line and an exit code."""

import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from lmsys_ray.errors import RunError, Stopped
from lmsys_ray.output import end, guard_output


def run_command(command: Callable[[], int | None], typed: Sequence[str] | None = None) -> int:
    """Runs `command` and returns its exit code, or 0; after an error, ends the process with one line and a code.

    1 failed, 2 wrong usage, 130 stopped by SIGINT (Ctrl-C), 143 by SIGTERM (a spot instance is taken away), 129 by
    SIGHUP (its terminal is gone) unless that is ignored, as under nohup. `typed` is what a user types to resume; by
    default, this process's own command line.
    """
    guard_output()
    for number in _STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        exit_code = command() or 0
        sys.stdout.flush()
    except RunError as error:
        end(f"error: {error}", error.exit_code)
    except Stopped as stopped:
        again = shlex.join(typed or sys.orig_argv)
        end(f"stopped; what is done is kept, resume with: {again}", stopped.exit_code)
    return exit_code


_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _stop(number: int, frame: FrameType | None) -> None:
    """Unwinds the command once; the signal that an impatient user sends again must not cut the clean-up short."""
    for each in _STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)
