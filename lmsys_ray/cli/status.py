"""Tell how far a run is, from its directory alone."""

import argparse
import json
import time
from collections.abc import Sequence

from lmsys_ray.cli.parsing import command_parser
from lmsys_ray.config.output_root import output_path
from lmsys_ray.printable import say

_SECONDS = 5.0


def parser(prog: str) -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = command_parser(
        prog,
        "Tell how far a run is that goes on elsewhere, was stopped, or died: from the run directory alone, "
        "local or in object storage, without Ray.",
        [
            "runs/today",
            "s3://bucket/runs/today --follow",
            "runs/today --json",
        ],
        "Exit codes: 0 told, 1 failed, 2 wrong usage.",
    )
    parser.add_run(f"run directory of {prog.replace('status', 'score')}")
    parser.add_argument("--follow", action="store_true", help=f"tell it again every {_SECONDS:g} s while it runs")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "status.py") -> None:
    """Runs the command."""
    arguments = parser(prog).parse_args(argv)
    from lmsys_ray.report.status import read_status
    from lmsys_ray.report.status_lines import lines
    from lmsys_ray.run_directory.layout import RunDirectory

    run = RunDirectory(output_path(arguments.run))
    told: list[str] = []
    while True:
        status = read_status(run, time.time())
        found = [json.dumps(status.as_dict())] if arguments.json else lines(status)
        if found != told:
            for line in found:
                say(line)
        told = found
        if not arguments.follow or status.state != "running":
            return
        time.sleep(_SECONDS)
