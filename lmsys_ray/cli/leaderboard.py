"""Make the leaderboard of a finished run anew."""

import argparse
from collections.abc import Sequence

from lmsys_ray.cli.parsing import command_parser
from lmsys_ray.config.command_options import parse_options
from lmsys_ray.config.output_root import output_path
from lmsys_ray.ensemble.leaderboard.settings import LeaderboardSettings


def parser(prog: str) -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = command_parser(
        prog,
        "Make the leaderboard of a finished run anew: the strengths of the models whose responses it "
        "compared, with intervals.",
        [
            "--run runs/arena",
            "--run runs/arena --output boards/styled --set style=length",
            "--run runs/arena --set outcomes=labels",
        ],
        "Expected outcomes are the opinion of the run's members, not people's votes. Writes leaderboard.csv and "
        "leaderboard.json. Exit codes: 0 done, 1 failed, 2 wrong usage.",
    )
    score = prog.replace("leaderboard", "score")
    parser.add_run(f"run directory that {score} finished, whose input has model_a and model_b")
    parser.add_argument("--output", metavar="DIR", help="default: RUN_DIR")
    parser.add_argument("--set", metavar="key=value", action="append", default=[], dest="sets", help=_listed_options())
    return parser


def _listed_options() -> str:
    names = ", ".join(name for name in LeaderboardSettings.model_fields if name != "write")
    return f"any option, in place of that of the run; may be repeated: {names}"


def main(argv: Sequence[str] | None = None, prog: str = "leaderboard.py") -> None:
    """Runs the command."""
    arguments = parser(prog).parse_args(argv)
    changes = parse_options(LeaderboardSettings, arguments.sets)
    # Imported once the command is known to be right: these take a second to load.
    from lmsys_ray.evaluation.labelled_scores import settings_of
    from lmsys_ray.evaluation.leaderboard import make_leaderboard
    from lmsys_ray.evaluation.leaderboard_table import show
    from lmsys_ray.run_directory.layout import RunDirectory
    from lmsys_ray.storage.files import path_of

    run = RunDirectory(output_path(arguments.run))
    folder = path_of(output_path(arguments.output)) if arguments.output else run.path
    settings = settings_of(run)
    changed = {name: getattr(changes, name) for name in changes.model_fields_set}
    asked = settings.outputs.leaderboard.model_copy(update=changed)
    show(make_leaderboard(run, settings, asked, folder), folder)
