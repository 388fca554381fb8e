"""What the commands under `jobs/` share: flags that become settings, errors that become one line and an exit code."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from lmsys_ray.config import Settings
from lmsys_ray.errors import RunError
from lmsys_ray.layers import checked, layered


class Stopped(BaseException):
    """SIGINT or SIGTERM asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


DONE_WITH_REJECTS = 3
"""The exit code of a `--strict` run that came to its end with rejects."""


def run_command(command: Callable[[], int | None]) -> int:
    """Runs `command` and returns the exit code that it gives, else 0, or ends the process with one line and a code.

    1 failed, 2 wrong usage, 130 stopped by SIGINT (Ctrl-C), 143 by SIGTERM (a spot instance is taken away).
    """
    for number in _STOP_SIGNALS:
        signal.signal(number, _stop)
    try:
        return command() or 0
    except RunError as error:
        _end(f"error: {error}", error.exit_code)
    except Stopped as stopped:
        _end(f"stopped; what is done is kept, go on with: {shlex.join(sys.orig_argv)}", stopped.exit_code)


def _end(line: str, exit_code: int) -> NoReturn:
    """Leaves at once: threads that still wait for Ray would hold the process. Ray's own processes end with it."""
    print(line, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _stop(number: int, frame: FrameType | None) -> None:
    """Unwinds the command once; the signal that an impatient user sends again must not cut the clean-up short."""
    for each in _STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


def score_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="score.py",
        description="Score conversations: P(A preferred), P(B preferred), P(tie) of each row, blended over members.",
        epilog="Settings are layered: preset, then config, then flags. Exit codes: 0 done; 1 failed; 2 wrong usage; "
        "3 done, but with rejects (with --strict); 130 stopped by Ctrl-C; 143 stopped by SIGTERM. "
        "After 1, 130 and 143 the same command goes on from what is done.",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings")
    parser.add_argument("--preset", metavar="NAME", help="packaged settings to start from: default, notebook")
    parser.add_argument("--input", metavar="PATH", nargs="+", help="files or globs: .csv .jsonl .parquet, .gz too")
    parser.add_argument("--output", metavar="RUN_DIR", help="run directory; one that exists goes on where it stopped")
    parser.add_argument("--limit", metavar="N", type=int, help="read only the first N rows")
    parser.add_argument("--strict", action="store_true", help="exit code 3 where any row was rejected")
    parser.add_argument(
        "--set", metavar="key.path=value", action="append", default=[], dest="sets", help="any setting; may be repeated"
    )
    return parser


def score_settings(arguments: argparse.Namespace) -> Settings:
    """Returns the settings that the flags of `score_parser` ask for; raises `UsageError` for what is not accepted.

    Prints a line for each member whose preset was chosen for another model than the one it now has.
    """
    flags = {"input": arguments.input, "output": arguments.output, "limit": arguments.limit}
    said: list[str] = []
    values = layered(arguments.preset, arguments.config, flags, arguments.sets, said.append)
    if values.get("output") is None and values.get("input"):
        values["output"] = _run_directory_for(values["input"])
    settings = checked(Settings, values)
    for line in said:
        print(line)
    return settings


def _run_directory_for(inputs: object) -> str:
    """Returns `runs/NAME` after the first input."""
    first = inputs if isinstance(inputs, str) else str(next(iter(inputs)))  # type: ignore[call-overload]
    return os.path.join("runs", Path(first.removeprefix("packaged:")).name.split(".")[0].strip("*") or "run")
