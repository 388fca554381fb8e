"""Fine-tune a classifier on labelled preferences: a LoRA adapter, or all weights; score.py reads the output."""

import argparse
from collections.abc import Sequence

from lmsys_ray.cli.parsing import command_parser
from lmsys_ray.cli.training_flags import add_training_flags, show_held_out
from lmsys_ray.config.command_options import parse_options
from lmsys_ray.members.classifier.training.options import TrainingOptions, TrainingSettings
from lmsys_ray.printable import say


def parser(prog: str) -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = command_parser(
        prog,
        "Fine-tune a decoder or an encoder, with a head of three labels, on conversations with one-hot "
        "labels: a LoRA adapter, or with --set lora=none all weights.",
        [
            "--input labelled.csv --model packaged:smollm2-135m --output adapter",
            "--input labelled.csv --model microsoft/deberta-v3-small --set lora=none --output deberta",
            "--input labelled.parquet --model /models/llama --fold -1 --set epochs=2 --output adapter",
        ],
        "The same command resumes a stopped training. Exit codes: 0 done, 1 failed, 2 wrong usage.",
    )
    add_training_flags(parser, "backbone: directory, GGUF file, hub id or packaged name", _listed_options())
    return parser


def _listed_options() -> str:
    return (
        f"any option; may be repeated: {', '.join(TrainingOptions.model_fields)}; docs/training-options.md says what "
        "each does"
    )


def main(argv: Sequence[str] | None = None, prog: str = "train_classifier.py") -> None:
    """Runs the command."""
    arguments = parser(prog).parse_args(argv)
    chosen = parse_options(TrainingOptions, arguments.sets)
    named = {"input": arguments.input, "model": arguments.model, "fold": arguments.fold}
    settings = TrainingSettings(output=str(arguments.output), **named, **chosen.model_dump())
    # Imported once the options are known to be right: torch and Ray take seconds to load.
    from lmsys_ray.members.classifier.training.train import train

    figures = train(settings, say=say)
    if settings.product in figures:
        show_held_out(figures, ("prior", settings.product))
    print(f"the {settings.product} lies in {settings.output}")
