"""What all commands share: signals and errors become one line and an exit code."""

import sys
from collections.abc import Callable, Sequence

from lmsys_ray.errors import RunError, Stopped
from lmsys_ray.output import end, guard_output
from lmsys_ray.stopping import say_stopped, stop_on_signals


def run_command(command: Callable[[], int | None], typed: Sequence[str] | None = None) -> int:
    """Runs `command` and returns its exit code, or 0; after an error, ends the process with one line and a code.

    1 failed, 2 wrong usage, 130 stopped by SIGINT (Ctrl-C), 143 by SIGTERM (a spot instance is taken away), 129 by
    SIGHUP (its terminal is gone) unless that is ignored, as under nohup. `typed` is what a user types to resume; by
    default, this process's own command line.
    """
    guard_output()
    stop_on_signals(typed)
    try:
        exit_code = command() or 0
        sys.stdout.flush()
    except RunError as error:
        end(f"error: {error}", error.exit_code)
    except Stopped as stopped:
        say_stopped(stopped.number)
    return exit_code
