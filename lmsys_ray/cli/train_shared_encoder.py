"""Train a shared encoder on labelled preferences; the output is a directory that score.py loads."""

import argparse
from collections.abc import Sequence

from lmsys_ray.cli.parsing import command_parser
from lmsys_ray.cli.training_flags import add_training_flags, show_held_out
from lmsys_ray.config.command_options import parse_options
from lmsys_ray.members.shared_encoder.training.options import SharedEncoderOptions, TrainingSettings
from lmsys_ray.printable import say


def parser(prog: str) -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = command_parser(
        prog,
        "Train one encoder for both responses, and a head of three labels, on one-hot labels.",
        [
            "--input labelled.csv --model packaged:minilm --output starter",
            "--input labelled.csv --model microsoft/deberta-v3-xsmall --set epochs=2 --output starter",
            "--input labelled.parquet --model packaged:minilm --fold -1 --output starter",
        ],
        "The same command resumes a stopped training. Exit codes: 0 done, 1 failed, 2 wrong usage.",
    )
    add_training_flags(parser, "encoder: directory, hub id or packaged name (packaged:minilm)", _listed_options())
    return parser


def _listed_options() -> str:
    return f"any option; may be repeated: {', '.join(SharedEncoderOptions.model_fields)}"


def main(argv: Sequence[str] | None = None, prog: str = "train_shared_encoder.py") -> None:
    """Runs the command."""
    arguments = parser(prog).parse_args(argv)
    chosen = parse_options(SharedEncoderOptions, arguments.sets)
    named = {"input": arguments.input, "model": arguments.model, "fold": arguments.fold}
    settings = TrainingSettings(output=str(arguments.output), **named, **chosen.model_dump())
    # Imported once the options are known to be right: torch and Ray take seconds to load.
    from lmsys_ray.members.shared_encoder.training.output import PRODUCT
    from lmsys_ray.members.shared_encoder.training.train import train_shared_encoder

    figures = train_shared_encoder(settings, say=say)
    if PRODUCT in figures:
        show_held_out(figures, ("prior", PRODUCT))
    print(f"the shared encoder lies in {settings.output}")
