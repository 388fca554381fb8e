"""The member blocks of docs/judges.md are settings that are accepted, each of the kind that it names."""

import re
from pathlib import Path

import pytest
import yaml

from lmsys_ray.members.registry import names, validated
from lmsys_ray.prompts.judging import judging_template

TEXT = (Path(__file__).parents[2] / "docs" / "judges.md").read_text(encoding="utf-8")
BLOCKS = dict(
    each for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) for each in yaml.safe_load(block).items()
)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_a_member(name: str) -> None:
    settings = validated(BLOCKS[name])
    assert settings.kind == BLOCKS[name]["kind"]
    if "prompt" in BLOCKS[name]:
        judging_template(settings.prompt, settings.verdicts)  # type: ignore[attr-defined]


def test_every_kind_is_listed_and_eight_models_have_blocks() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)) == set(names())
    assert len(BLOCKS) >= 8
    assert {values["kind"] for values in BLOCKS.values()} == {"reward", "judge", "classifier"}
