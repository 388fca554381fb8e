"""Make the page about a run, finished or not: report.html."""

import argparse
from collections.abc import Sequence

from lmsys_ray.cli.parsing import command_parser
from lmsys_ray.config.output_root import output_path
from lmsys_ray.printable import say


def parser(prog: str) -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = command_parser(
        prog,
        "Make the page about a run, finished, stopped or at work: what was scored, with what, how fast, how sure and "
        "how right the scores are, and what to do next. One HTML file, which loads nothing.",
        ["runs/today", "runs/today --texts --output today.html", "s3://bucket/runs/today"],
        "Exit codes: 0 done, 1 failed, 2 wrong usage.",
    )
    parser.add_run(f"run directory of {prog.replace('report', 'score')}")
    parser.add_argument(
        "--texts", action="store_true", help="show the beginnings of the conversations of doubtful rows, too"
    )
    parser.add_argument("--output", metavar="FILE", help="HTML file to write; default: RUN_DIR/report.html")
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "report.py") -> None:
    """Runs the command."""
    arguments = parser(prog).parse_args(argv)
    # Imported once the command is known to be right: these take a second to load.
    from lmsys_ray.report.write import write_report
    from lmsys_ray.run_directory.layout import RunDirectory
    from lmsys_ray.storage.files import path_of

    file = path_of(output_path(arguments.output)) if arguments.output else None
    say(f"report: {write_report(RunDirectory(output_path(arguments.run)), arguments.texts, file)}")
