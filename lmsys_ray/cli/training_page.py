"""The tables of `docs/training-options.md`, made from the options of the training commands.

`python -m lmsys_ray.cli.training_page` replaces them between their marks and keeps the text around them.
"""

from pathlib import Path

from pydantic import BaseModel

from lmsys_ray.members.classifier.training.options import TrainingOptions
from lmsys_ray.members.lightgbm.training.options import LightGBMOptions
from lmsys_ray.members.shared_encoder.training.options import SharedEncoderOptions
from lmsys_ray.scoring.settings_page import page, table

PAGE = Path(__file__).parents[2] / "docs" / "training-options.md"

OPTIONS: dict[str, type[BaseModel]] = {
    "train-classifier": TrainingOptions,
    "train-shared-encoder": SharedEncoderOptions,
    "train-lightgbm": LightGBMOptions,
}
"""The options by the names of the commands, which are those of the marks."""


def tables() -> dict[str, str]:
    """Returns the tables by the names of their marks."""
    return {command: table(options) for command, options in OPTIONS.items()}


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), tables()), encoding="utf-8")
