"""Settings files of any content: settings, or one sentence, and nothing else."""

import random
from pathlib import Path

import pytest
import yaml

from lmsys_ray.cli.score import parser, score_settings
from lmsys_ray.errors import UsageError
from lmsys_ray.scoring.settings import Settings

BASE = """
input: {input}
output: {output}
shard_rows: 8
cells: auto
max_error_rate: 0.5
columns: {{response_a: a, response_b: b}}
members:
  llama: {{kind: classifier, model: packaged:llama, quantization: none, weight: 0.7, max_length: 64}}
  trees: {{kind: lightgbm, artifacts: packaged:lightgbm, weight: 0.2}}
  asked: {{kind: judge, model: packaged:llama, prompt: pairwise, weight: 0.1}}
  others: {{kind: scores, path: others.csv, weight: 0.5}}
  reward: {{kind: reward, model: packaged:llama, weight: 1, link: davidson}}
outputs:
  preferences: {{format: trl}}
"""

WILD = [
    *(None, True, -1, 0, 3, 10**400, -0.0, 1e308, float("inf"), float("nan"), "", " ", "0", "null", "\x00", "\ud800"),
    *(
        "${x}",
        "${oc.env:HOME}",
        "${members}",
        "${output}",
        "s3://",
        "hf://x",
        "packaged:",
        "../..",
        "a/*/[",
        "~",
        "1e5",
    ),
    *([], [[]], [None], {}, {"": {}}, {"a": {"b": None}}, {"kind": "lightgbm"}, {1: 2}, "2026-13-45", b"\xff", "judge"),
    *("1e5", "x" * 5000, "ß" * 9, "-"),
]
INSERTED = [b"{", b"[", b": ", b"\n  ", b"&a ", b"*a", b"!!python/name:os ", b"'", b"%"]


def wild(base: object, chance: random.Random) -> object:
    """Returns settings with a value replaced, left out, added, or put elsewhere."""
    if not isinstance(base, dict) or chance.random() < 0.1:
        return chance.choice(WILD)
    changed = dict(base)
    key = chance.choice([*changed, "new"])
    match chance.randrange(5):
        case 0:
            changed.pop(key, None)
        case 1:
            changed[chance.choice(["", "kind", "turns", 5, None, "a.b", "members"])] = chance.choice(WILD)
        case 2:
            changed[key] = chance.choice([*base.values(), *WILD])
        case _:
            changed[key] = wild(changed.get(key), chance)
    return changed


def outcome(config: Path) -> str:
    """Returns what becomes of a settings file: settings, or a sentence of one line."""
    arguments = parser().parse_args(["--config", str(config)])
    try:
        settings = score_settings(arguments, lambda line: None)
    except UsageError as error:
        sentence = str(error)
        assert sentence.strip()
        assert "\n" not in sentence.strip(), sentence
        assert "Traceback" not in sentence
        return sentence
    assert isinstance(settings, Settings)
    Settings.model_validate_json(settings.model_dump_json())  # as the run directory keeps them
    return "settings"


@pytest.fixture
def base(tmp_path: Path) -> str:
    (tmp_path / "in.csv").write_text("id,prompt,a,b\n1,p,a,b\n", encoding="utf-8")
    return BASE.format(input=tmp_path / "in.csv", output=tmp_path / "run")


def test_the_settings_that_are_changed_are_right(base: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(base, encoding="utf-8")
    assert outcome(tmp_path / "run.yaml") == "settings"


@pytest.mark.parametrize("text", ["0", "'0'", "true", "1.5", "- a", "'a: 1'", "2026-11-27", "!!binary AA=="])
def test_what_is_no_mapping_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    assert outcome(tmp_path / "run.yaml").endswith("run.yaml is not a mapping of settings; write key: value lines")


@pytest.mark.parametrize("seed", range(4))
def test_wild_values_are_settings_or_a_sentence(base: str, tmp_path: Path, seed: int) -> None:
    chance, found = random.Random(seed), []
    for _ in range(60):
        values = yaml.safe_load(base)
        for _ in range(chance.randint(1, 3)):
            values = wild(values, chance)
        (tmp_path / "run.yaml").write_bytes(yaml.dump(values, allow_unicode=False).encode("utf-8", "replace"))
        found.append(outcome(tmp_path / "run.yaml"))
    assert len(set(found)) > 10


@pytest.mark.parametrize("seed", range(4))
def test_damaged_texts_are_settings_or_a_sentence(base: str, tmp_path: Path, seed: int) -> None:
    chance, found = random.Random(seed), []
    for _ in range(60):
        text = bytearray(base.encode())
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(text))
            match chance.randrange(3):
                case 0:
                    del text[place : place + chance.randint(1, 9)]
                case 1:
                    text[place] = chance.randrange(256)
                case _:
                    text[place:place] = chance.choice(INSERTED)
        (tmp_path / "run.yaml").write_bytes(text)
        found.append(outcome(tmp_path / "run.yaml"))
    assert len(set(found)) > 10
