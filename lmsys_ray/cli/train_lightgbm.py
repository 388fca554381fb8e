"""Fit a LightGBM member on labelled preferences; the output is a directory of artefacts that score.py reads."""

import argparse
from collections.abc import Sequence

from lmsys_ray.cli.parsing import command_parser
from lmsys_ray.config.output_root import local_output


def parser(prog: str) -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = command_parser(
        prog,
        "Fit gradient-boosted trees on conversations with one-hot labels, one set a fold, all averaged.",
        [
            "--input labelled.csv --output trees",
            "--input part1.csv part2.csv --folds 10 --output trees",
            "--input labelled.csv --fold -1 --output trees",
        ],
        "Writes artefacts, metrics.json and out_of_fold.csv. Exit codes: 0 done, 1 failed, 2 wrong usage.",
    )
    parser.add_argument("--input", metavar="PATH", nargs="+", required=True, help="labelled .csv .jsonl .parquet")
    parser.add_argument("--output", metavar="DIR", type=local_output, required=True, help="must not be there yet")
    parser.add_argument("--folds", metavar="N", type=int, default=5, help="folds, cut by prompt; default: 5")
    parser.add_argument("--fold", metavar="K", type=int, help="fit this fold's booster alone; -1 fits on all rows")
    parser.add_argument("--set", metavar="key=value", action="append", default=[], dest="sets", help="any option")
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "train_lightgbm.py") -> None:
    """Runs the command."""
    arguments = parser(prog).parse_args(argv)
    # Imported once the command is known to be right: these take seconds to load.
    from lmsys_ray.config.command_options import parse_options
    from lmsys_ray.members.lightgbm.training.options import LightGBMOptions
    from lmsys_ray.members.lightgbm.training.train import train_lightgbm
    from lmsys_ray.scoring.progress import Display

    chosen = parse_options(LightGBMOptions, arguments.sets)
    with Display() as display, display.during("features and boosters"):
        figures = train_lightgbm(
            arguments.input,
            arguments.output,
            arguments.folds,
            arguments.fold,
            chosen,
            say=display.say,
        )
    for name, metrics in figures.get("held_out", {}).items():
        loss = metrics["log_loss"]
        print(f"{name}: log loss {loss['value']:.4f} ({loss['low']:.4f} to {loss['high']:.4f}) on the rows held out")
    print(f"the artefacts lie in {arguments.output}")
