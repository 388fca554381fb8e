#!/usr/bin/env python3
"""Fit a LightGBM member on labelled preferences; the output is a directory of artefacts that score.py reads."""

import argparse
import sys
from pathlib import Path

from lmsys_ray.commands import run_command


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train_lightgbm.py",
        description="Fit gradient-boosted trees on conversations with one-hot labels, one set a fold, all averaged.",
        epilog="Writes artefacts, metrics.json and out_of_fold.csv. Exit codes: 0 done, 1 failed, 2 wrong usage.",
    )
    parser.add_argument("--input", metavar="PATH", nargs="+", required=True, help="labelled .csv .jsonl .parquet")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="must not be there yet")
    parser.add_argument("--folds", metavar="N", type=int, default=5, help="folds, cut by prompt; default: 5")
    parser.add_argument("--fold", metavar="K", type=int, help="fit this fold's booster alone; -1 fits on all rows")
    parser.add_argument("--set", metavar="key=value", action="append", default=[], dest="sets", help="any option")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    # Imported once the command is known to be right: these take seconds to load.
    from lmsys_ray.training.lightgbm import train_lightgbm
    from lmsys_ray.training.lightgbm_settings import LightGBMOptions
    from lmsys_ray.training.options import options

    chosen = options(LightGBMOptions, arguments.sets)
    figures = train_lightgbm(
        arguments.input,
        arguments.output,
        arguments.folds,
        arguments.fold,
        chosen,
        say=lambda line: print(line, flush=True),
    )
    for name, metrics in figures.get("held_out", {}).items():
        loss = metrics["log_loss"]
        print(f"{name}: log loss {loss['value']:.4f} ({loss['low']:.4f} to {loss['high']:.4f}) on the rows held out")
    print(f"the artefacts lie in {arguments.output}")


if __name__ == "__main__":
    sys.exit(run_command(main))
