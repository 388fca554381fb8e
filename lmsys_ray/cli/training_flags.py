"""The flags and the last lines that the commands which train a model share."""

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

from lmsys_ray.config.output_root import local_output


def add_training_flags(parser: argparse.ArgumentParser, model: str, options: str) -> None:
    """Adds the flags of a training; `model` and `options` are the help of `--model` and `--set`."""
    parser.add_argument("--input", metavar="PATH", nargs="+", required=True, help="labelled .csv .jsonl .parquet")
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=local_output,
        required=True,
        help="a directory that is not there yet",
    )
    parser.add_argument("--model", required=True, help=model)
    parser.add_argument("--fold", metavar="K", type=int, default=0, help="fold held out; -1 trains on all rows")
    parser.add_argument("--set", metavar="key=value", action="append", default=[], dest="sets", help=options)


def show_held_out(figures: Mapping[str, Any], names: Iterable[str]) -> None:
    """Prints the log loss on the held-out rows, with its interval, of each of `names`."""
    for name in names:
        loss, low, high = figures[name]["log_loss"].values()
        print(f"{name}: log loss {loss:.4f} ({low:.4f} to {high:.4f}) on the held-out rows")
