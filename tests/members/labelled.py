"""Labelled files for the tests: preferences that a tiny model can learn."""

import csv
import json
import random
from pathlib import Path

COLUMNS = ["id", "prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"]


def labelled_rows(count: int, prompts: int | None = None) -> list[list[object]]:
    """Returns rows in which the good answer wins and two bad ones tie; `prompts` are shared among them."""
    generator = random.Random(0)
    rows: list[list[object]] = []
    for number in range(count):
        chosen = generator.randrange(3)
        a, b = (("good answer indeed", "bad"), ("bad", "good answer indeed"), ("bad", "bad"))[chosen]
        prompt = f"question {number % (prompts or count)}"
        cells = [json.dumps([text]) for text in (prompt, a, b)]
        rows.append([number, *cells, *(int(chosen == place) for place in range(3))])
    return rows


def write_rows(path: Path, rows: list[list[object]], columns: list[str] = COLUMNS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path
