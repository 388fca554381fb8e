"""Writes a leaderboard as CSV and as JSON."""

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict, astuple, fields
from typing import Any

import numpy as np
import pyarrow as pa

from lmsys_ray import __version__
from lmsys_ray.ensemble.consumers import OutputFiles
from lmsys_ray.ensemble.leaderboard.board import Leaderboard, Standing
from lmsys_ray.ensemble.leaderboard.style import FEATURES
from lmsys_ray.ensemble.leaderboard.ties import TIES
from lmsys_ray.ensemble.submission import escaped
from lmsys_ray.metrics import LEVEL
from lmsys_ray.storage.files import AnyPath

CSV, JSON = "leaderboard.csv", "leaderboard.json"

_COLUMNS = [field.name for field in fields(Standing) if field.name != "reason"]
_DIGITS = 4
"""Decimal places of all figures: far below their intervals, far above rounding."""


def write_leaderboard(board: Leaderboard, files: OutputFiles, folder: AnyPath, escape_formulas: bool = False) -> None:
    """Writes both files of `folder`, among others that are replaced together.

    With `escape_formulas`, names in the CSV that a spreadsheet would run are `escaped`.
    """
    table = files.aside(folder / CSV)
    files.aside(folder / JSON).write_text(as_json(board), encoding="utf-8")
    with table.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(_COLUMNS)
        for standing in board.standings:
            values = dict(zip(_COLUMNS, map(_rounded, astuple(standing)), strict=False))
            if escape_formulas:
                values["model"] = escaped(pa.chunked_array([[standing.model]]))[0].as_py()
            lines.writerow(["" if value is None else value for value in values.values()])


def remove_leaderboard(files: OutputFiles, folder: AnyPath) -> None:
    """Has both files removed, if there are any: an earlier leaderboard is not that of the scores as they are now."""
    files.remove(folder / CSV)
    files.remove(folder / JSON)


def as_json(board: Leaderboard) -> str:
    """Returns the text of the JSON file: the standings, how they were made, and matrices in the standings' order."""
    found = board.strengths
    settings = board.settings
    parameter = TIES[settings.ties].parameter
    style = zip(FEATURES[settings.style], found.coefficients.T, found.spreads, strict=True)
    values = {
        "lmsys_ray": __version__,
        "settings": settings.model_dump(mode="json", exclude={"write"}),
        "models": [{name: _rounded(value) for name, value in asdict(s).items()} for s in board.standings],
        "tie_parameter": {"name": parameter, **_estimate(found.tie)} if parameter else None,
        "style": [{"name": name, **_estimate(value), "spread": _rounded(spread)} for name, value, spread in style],
        "intervals": {
            "level": LEVEL,
            "method": "sandwich covariance; percentiles of a bootstrap over battles",
            "resamples": settings.bootstrap,
            "resamples_with_finite_strengths": found.resamples,
        },
        "counts": {
            "battles": int(board.battles.sum() / 2),
            "estimated_from": found.battles,
            "left_out": board.left_out,
        },
        "win_rates": _rows(board.win_rates),
        "battles": _rows(board.battles.astype(int)),
    }
    lines = (f"  {json.dumps(key)}: {_text(value)}" for key, value in values.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _text(value: Any) -> str:
    """Returns a value as JSON, a list with a line for each item."""
    if not isinstance(value, list) or not value:
        return json.dumps(value, ensure_ascii=False)
    return "[\n" + ",\n".join(f"    {json.dumps(item, ensure_ascii=False)}" for item in value) + "\n  ]"


def _estimate(values: Iterable[float]) -> dict[str, Any]:
    return dict(zip(("value", "lower", "upper"), map(_rounded, values), strict=True))


def _rows(matrix: np.ndarray) -> list[list[Any]]:
    return [[_rounded(value) for value in row] for row in matrix.tolist()]


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return None if np.isnan(value) else round(float(value), _DIGITS) + 0.0
