"""The installed command `lmsys-ray`: `lmsys-ray NAME …` runs the command of that name."""

import argparse
import difflib
import shutil
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from lmsys_ray import __version__
from lmsys_ray.cli.command import run_command
from lmsys_ray.errors import UsageError

PROG = "lmsys-ray"

COMMANDS = {
    "score": "score conversations with every member and write the blended submission",
    "plan": "tell what a run will read, need, take and cost, without starting it",
    "status": "tell how far a run is, from its directory alone",
    "report": "make the page about a run, finished or not: report.html",
    "evaluate": "judge a finished run against labels and fit its blend",
    "calibrate": "fit links, blend and temperature of a finished run to labels, as settings for score",
    "leaderboard": "make the leaderboard of a finished run anew: strengths of the models that it compared",
    "train-lightgbm": "fit a LightGBM member on labelled preferences",
    "train-classifier": "fine-tune a classifier, or a LoRA adapter of one, on labelled preferences",
    "train-lora": "the former name of train-classifier",
    "train-shared-encoder": "train an encoder for both responses on labelled preferences",
    "import-artifacts": "convert the artefacts of a notebook into those that score reads",
    "benchmark": "measure the members beside what else a user would run",
    "simulate": "show how well 2 to 128 replicas would be used",
}
"""What each command does. The module `lmsys_ray.cli.NAME` runs it, with `_` in its name for `-`."""


def main() -> int:
    """Runs the command."""
    return run_command(lambda: _run(sys.argv[1:]), [_typed_program(), *sys.argv[1:]])


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    width = max(map(len, COMMANDS))
    lines = (f"  {name:{width}}  {does}" for name, does in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog=PROG,
        usage=f"{PROG} [-h] [--version] COMMAND ...",
        description="A distributed batch scorer for pairwise human preference, on Ray.",
        epilog="\n".join(["commands:", *lines, "", f"{PROG} COMMAND --help lists the flags of a command."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _run(argv: Sequence[str]) -> int | None:
    """Runs the command that the first of `argv` names; raises `UsageError` where there is none of that name."""
    named = parser().parse_args(argv).command
    if not named:
        raise UsageError(f"a command is needed: {', '.join(COMMANDS)}; {PROG} --help says what each does")
    typed, *rest = named
    name = typed.replace("_", "-")
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        accepted = f"did you mean {near[0]}?" if near else f"accepted: {', '.join(COMMANDS)}"
        raise UsageError(f"{typed!r} is not a command of {PROG}; {accepted}")
    module = import_module(f"lmsys_ray.cli.{name.replace('-', '_')}")
    exit_code: int | None = module.main(rest, f"{PROG} {typed}")
    return exit_code


def _typed_program() -> str:
    """Returns `lmsys-ray` where a shell finds this program by that name, else its path."""
    found, path = shutil.which(PROG), Path(sys.argv[0])
    return PROG if found and path.exists() and path.samefile(found) else sys.argv[0]
