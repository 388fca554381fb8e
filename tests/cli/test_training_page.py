"""docs/training-options.md says what the options of the training commands say of themselves."""

import re

from lmsys_ray.cli.training_page import OPTIONS, PAGE, tables
from lmsys_ray.scoring.settings_page import page


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text, tables()), "run python -m lmsys_ray.cli.training_page"


def test_every_option_is_listed_and_described() -> None:
    for command, lines in tables().items():
        assert re.findall(r"^\| `(\w+)`", lines, re.MULTILINE) == [*OPTIONS[command].model_fields]
        assert [row for row in lines.splitlines() if row.endswith("|  |")] == [], command
