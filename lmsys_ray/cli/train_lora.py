"""The command train-classifier under its former name."""

from collections.abc import Sequence

from lmsys_ray.cli import train_classifier


def main(argv: Sequence[str] | None = None, prog: str = "train_lora.py") -> None:
    """Runs the command."""
    train_classifier.main(argv, prog)
