"""The output of a command: text that every terminal and file can take, and a last line before the exit code."""

import logging
import os
import sys
import threading
from contextlib import suppress
from typing import Any, NoReturn, TextIO

from lmsys_ray.errors import RunError
from lmsys_ray.printable import printable

_SHOW_CURSOR = "\x1b[?25h"


class _Output:
    """A stream that raises `RunError` when it cannot be written, as on a full disk or to a closed pipe."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise _unwritable(error) from None

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise _unwritable(error) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _unwritable(error: OSError) -> RunError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return RunError(f"standard output cannot be written ({reason}); mend that and start the same command again")


def guard_output() -> None:
    """Prepares the process's standard streams for a command.

    Characters that their encoding lacks become `?`. A standard output that cannot be written raises `RunError`, except
    in threads that nobody joins, since the main thread meets it too. Logs that cannot be written are ignored.
    """
    logging.raiseExceptions = False
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    sys.stdout = _Output(sys.stdout)
    threading.excepthook = _drop_run_errors


def _drop_run_errors(arguments: threading.ExceptHookArgs) -> None:
    if not isinstance(arguments.exc_value, RunError):
        threading.__excepthook__(arguments)


def end(line: str, exit_code: int) -> NoReturn:
    """Prints a last line and exits at once, from any thread: others that wait for Ray would keep the process alive."""
    with suppress(OSError, RunError):
        if sys.stdout.isatty():  # progress bars hide it
            sys.stdout.write(_SHOW_CURSOR)
        sys.stdout.flush()
    with suppress(OSError):
        print(printable(line), file=sys.stderr, flush=True)
    os._exit(exit_code)
