"""Score conversations with every member of the ensemble and write the blended submission."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmsys_ray.cli.parsing import command_parser
from lmsys_ray.config.output_root import is_submitted, output_path
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.printable import say

if TYPE_CHECKING:
    from lmsys_ray.run_directory.layout import RunDirectory
    from lmsys_ray.scoring.progress import Log
    from lmsys_ray.scoring.settings import Settings

DONE_WITH_REJECTS = 3
"""The exit code of a `--strict` run that came to its end with rejects or warnings."""

_STANDARD_INPUT = "-"


def parser(prog: str = "score.py") -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = command_parser(
        prog,
        "Score conversations: P(A preferred), P(B preferred), P(tie) of each row, blended over members.",
        [
            "--input test.csv",
            "--config run.yaml --input 'data/*.parquet' --output runs/today",
            "--input pairs.jsonl --set members.llama=null --set outputs.preferences.format=trl",
        ],
        "Settings are layered: preset, then configs, then flags. Exit codes: 0 done; 1 failed; 2 wrong usage; "
        "3 done, but with rejects or warnings (with --strict); 130 stopped by Ctrl-C; 143 stopped by SIGTERM; "
        "129 by SIGHUP. After 1, 129, 130 and 143 the same command resumes from what is done.",
    )
    add_run_flags(parser)
    return parser


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags by which a run's settings are said."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        action="append",
        default=[],
        dest="configs",
        help="YAML file of settings; may be repeated, and a later one wins",
    )
    parser.add_argument("--preset", metavar="NAME", help="packaged settings to start from: default, notebook")
    parser.add_argument(
        "--input",
        metavar="PATH",
        nargs="+",
        help="files, globs or folders: .csv .jsonl .json .parquet, .gz and .zst too; - is standard input",
    )
    parser.add_argument("--output", metavar="RUN_DIR", help="run directory; one that exists is resumed")
    parser.add_argument("--limit", metavar="N", type=int, help="read only the first N rows")
    parser.add_argument(
        "--trust-pickle", action="store_true", help="you trust who made weights in pickles: sets each trust_pickle"
    )
    parser.add_argument(
        "--log", choices=("text", "json"), default="text", help="json: each line of output is one JSON object"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="print warnings, rejects and where the submission is, nothing else"
    )
    parser.add_argument("--strict", action="store_true", help="exit code 3 where rows were rejected or warned of")
    parser.add_argument(
        "--set", metavar="key.path=value", action="append", default=[], dest="sets", help="any setting; may be repeated"
    )


def main(argv: Sequence[str] | None = None, prog: str = "score.py") -> int:
    """Runs the command."""
    arguments = parser(prog).parse_args(argv)
    from lmsys_ray.scoring.progress import Display

    log: Log = "quiet" if arguments.quiet else arguments.log
    with Display(log) as display, display.during("settings"):  # they may lie in a storage that hangs
        settings = score_settings(arguments, display.say)
    # Imported once the settings are known to be right: Ray takes seconds to load.
    from lmsys_ray.run_directory.layout import RunDirectory
    from lmsys_ray.scoring import preflight
    from lmsys_ray.scoring.job import score
    from lmsys_ray.scoring.summary import summary
    from lmsys_ray.storage.files import remove

    with Display(log) as display:
        with display.during("check of the input and the models"):
            settings = preflight.check(settings, display.say)
        report = score(settings, display)
    run = RunDirectory(settings.output)
    for line in summary(report, settings, run):
        display.say(line)
    if settings.report.enabled:
        _write_report(run, log)
    else:
        remove(run.report)  # one of an earlier start
    return DONE_WITH_REJECTS if arguments.strict and not report.clean else 0


def _write_report(run: RunDirectory, log: Log = "text") -> None:
    """Writes the page about a finished run; one that cannot be written costs nothing else."""
    from lmsys_ray.report.write import write_report
    from lmsys_ray.scoring.progress import Display

    with Display(log) as display, display.during("report"):
        try:
            display.say(f"report: {write_report(run)}")
        except RunError as error:
            display.say(f"warning: there is no new report: {error}")


def score_settings(arguments: argparse.Namespace, tell: Callable[[str], None] = say, starts: bool = True) -> Settings:
    """Returns the settings that the flags of `add_run_flags` ask for, their output an absolute path or a URL.

    Where nothing `starts`, nothing is written, so that standard input, which a run keeps, is refused.
    Raises `UsageError` for what is not accepted.
    Tells a line for each member whose preset was chosen for another model than the one it now has.
    """
    from lmsys_ray.config.layering import layer_settings
    from lmsys_ray.config.messages import validate_settings
    from lmsys_ray.scoring.settings import Settings  # the settings of all kinds of members

    flags = {"input": arguments.input, "output": arguments.output, "limit": arguments.limit}
    said: list[str] = []
    of_run = [] if arguments.configs else _settings_of_run(arguments, said)
    values = layer_settings(arguments.preset, arguments.configs or of_run, flags, arguments.sets, said.append)
    if of_run and values.get("limit") and not (arguments.limit or arguments.sets):
        said.append(f"limit: {values['limit']} rows, as before; --set limit=null goes on to all")
    if values.get("output") is None and values.get("input"):
        values["output"] = _run_directory_for(values["input"])
    if arguments.trust_pickle:
        _trust_pickle(values.get("members"))
    settings = validate_settings(Settings, values)
    output = output_path(settings.output, settings.output_root)
    settings = settings.model_copy(update={"input": _with_standard_input(settings.input, output, starts)})
    if is_submitted() and output != settings.output:
        said.append(f"output: {output}; a submitted job loses its working directory (output_root names another place)")
    for line in said:
        tell(line)
    return settings.model_copy(update={"output": output})


def _settings_of_run(arguments: argparse.Namespace, said: list[str]) -> list[str]:
    """Returns the settings file of the run that `--output` names, where no more is said than up to which row."""
    others = [text for text in arguments.sets if not text.startswith("limit=")]
    if arguments.output is None or arguments.preset or arguments.input or others:
        return []
    from lmsys_ray.storage.files import exists, path_of

    file = path_of(output_path(arguments.output)) / "settings.yaml"
    if not exists(file):
        return []
    said.append(f"settings: those of {file}, with which the run was last started")
    return [str(file)]


def _with_standard_input(inputs: list[str], output: str, starts: bool) -> list[str]:
    """Returns the names of an input with that of a file of the run in place of `-`."""
    if _STANDARD_INPUT not in inputs:
        return inputs
    if not starts:
        raise UsageError("input: - is standard input, which only a run keeps; name a file")
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("input: - is standard input, which is a terminal; pipe a file into the command, or name one")
    from lmsys_ray.data.readers import standard_input
    from lmsys_ray.storage.files import path_of

    path = standard_input.kept(sys.stdin.buffer, path_of(output))
    return [path if name == _STANDARD_INPUT else name for name in inputs]


def _trust_pickle(members: object) -> None:
    from lmsys_ray.members.registry import class_named

    for member in members.values() if isinstance(members, dict) else ():
        settings = class_named(member.get("kind")) if isinstance(member, dict) else None
        if settings and "trust_pickle" in settings.model_fields:
            member["trust_pickle"] = True


def _run_directory_for(inputs: object) -> str:
    """Returns `runs/NAME` after the first input."""
    first = inputs if isinstance(inputs, str) else str(next(iter(inputs)))  # type: ignore[call-overload]
    if first == _STANDARD_INPUT:
        return os.path.join("runs", "stdin")
    return os.path.join("runs", Path(first.removeprefix("packaged:")).name.split(".")[0].strip("*") or "run")
