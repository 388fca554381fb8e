"""How much a member's scores depend on which response stands first, where it scored both orders; without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lmsys_ray import CLASSES


@dataclass
class PositionBias:
    """Sums over the rows that a member scored in both orders."""

    rows: int = 0
    first: float = 0.0
    """P(the response that stands first is preferred), summed over rows and both orders."""
    second: float = 0.0
    """The same of the one that stands second."""
    changed: int = 0
    """Rows whose likeliest class is another one in the other order."""

    def add(self, scores: pa.Table) -> None:
        """Adds a table of scores, with the columns of both orders, A and B exchanged back."""
        plain, swapped = (
            np.column_stack([scores[name + order].to_numpy() for name in CLASSES]) for order in ("_plain", "_swapped")
        )
        self.rows += len(plain)
        self.first += float(plain[:, 0].sum(dtype=np.float64) + swapped[:, 1].sum(dtype=np.float64))
        self.second += float(plain[:, 1].sum(dtype=np.float64) + swapped[:, 0].sum(dtype=np.float64))
        self.changed += int((plain.argmax(axis=1) != swapped.argmax(axis=1)).sum())

    def as_dict(self) -> dict[str, Any]:
        """Returns means over rows: the probabilities that the first and the second are preferred, and changed rows."""
        rows = max(self.rows, 1)
        means = {"first": self.first / 2 / rows, "second": self.second / 2 / rows, "changed": self.changed / rows}
        return {"rows": self.rows, **{name: round(value, 4) for name, value in means.items()}}

    def __str__(self) -> str:
        means = self.as_dict()
        return (
            f"position bias: the response that stands first is preferred with {means['first']:.1%}, the second with "
            f"{means['second']:.1%}; {means['changed']:.1%} of the verdicts change with the order"
        )
