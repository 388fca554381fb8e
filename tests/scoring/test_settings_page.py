"""docs/settings.md says what the settings say of themselves."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from lmsys_ray.config.base import PathName, PositiveInt
from lmsys_ray.ensemble.exports.settings import OutputSettings, PreferenceSettings, ReportSettings
from lmsys_ray.ensemble.leaderboard.settings import LeaderboardSettings
from lmsys_ray.members.registry import kind_named
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.scoring.settings_page import PAGE, page, table, tables


class Inner(BaseModel):
    flag: Annotated[bool, Field(description="a | b")] = False


class Optional(BaseModel):
    below: float = Field(0.0, ge=0, lt=1, description="less")


class Outer(BaseModel):
    kind: Literal["outer"]
    path: PathName | None = Field(None, description="where")
    count: PositiveInt | Literal["auto"] = Field("auto", description="how many")
    share: float = Field(0.5, gt=0, le=1, description="how much")
    names: list[Literal["a", "b"]] = Field(description="which")
    inner: Inner = Inner()
    optional: Optional | None = None


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text, tables()), "run python -m lmsys_ray.scoring.settings_page"


def test_every_setting_is_described() -> None:
    for name, lines in tables().items():
        rows = [line for line in lines.splitlines() if line.startswith("| `")]
        assert [row for row in rows if row.endswith("|  |")] == [], name


def test_tables_hold_every_setting() -> None:
    for name in ("classifier", "lightgbm"):
        listed = re.findall(r"^\| `(\w+)`", tables()[name], re.MULTILINE)
        assert listed == [field for field in kind_named(name).settings.model_fields if field != "kind"]
    assert set(re.findall(r"^\| `([\w.]+)`", tables()["run"], re.MULTILINE)) == {
        *(name for name in Settings.model_fields if name not in ("outputs", "report", "stacking")),
        *(f"outputs.{name}" for name in OutputSettings.model_fields if name not in ("preferences", "leaderboard")),
        *(f"outputs.preferences.{name}" for name in PreferenceSettings.model_fields),
        *(f"outputs.leaderboard.{name}" for name in LeaderboardSettings.model_fields),
        *(f"report.{name}" for name in ReportSettings.model_fields),
        *("stacking.tie", "stacking.members"),
    }


def test_a_table_words_types_bounds_and_defaults() -> None:
    assert table(Outer).splitlines()[2:] == [
        "| `path` | path or name | none | where |",
        "| `count` | whole number above 0 or `auto` | `auto` | how many |",
        "| `share` | number above 0 up to 1 | `0.5` | how much |",
        "| `names` | list: `a`, `b` | required | which |",
        "| `inner.flag` | `true`, `false` | `false` | a \\| b |",
        "| `optional.below` | number from 0 to below 1 | `0.0` | less |",
    ]


def test_text_around_the_tables_is_kept() -> None:
    text = "# Mine\n<!-- begin run -->\nold\n<!-- end run -->\nmore\n"
    once = page(text, {"run": "new", "other": "second"})
    assert once.startswith("# Mine\n<!-- begin run -->\nnew\n<!-- end run -->\nmore\n")
    assert "## A member of kind `other`\n\n<!-- begin other -->\nsecond\n<!-- end other -->\n" in once
    assert page(once, {"run": "new", "other": "second"}) == once
