"""The battles of a leaderboard: which two models responded, and how the comparison of their responses came out."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Battles:
    """Battles between different models, in the order of their rows."""

    models: list[str]
    """Names, sorted."""
    first: np.ndarray
    """The place in `models` of the model that wrote response A, int32 [battles]."""
    second: np.ndarray
    """That of response B."""
    outcomes: np.ndarray
    """P(A preferred), P(B preferred), P(tie), float64 [battles, 3]; of a label 1 and two zeros."""
    style: np.ndarray | None = None
    """Differences of style, float64 [battles, covariates]."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows that are no battle, by reason."""


class BattleCollector:
    """Collects battles from one shard after another, in some 50 bytes each."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._first: list[np.ndarray] = []
        self._second: list[np.ndarray] = []
        self._outcomes: list[np.ndarray] = []
        self._style: list[np.ndarray] = []
        self._left_out = {"unnamed": 0, "same_model": 0}

    def add(
        self,
        model_a: pa.ChunkedArray,
        model_b: pa.ChunkedArray,
        outcomes: np.ndarray,
        unusable: dict[str, np.ndarray] | None = None,
        style: np.ndarray | None = None,
    ) -> None:
        """Adds rows: names with nulls, outcomes [rows, 3] and differences of style [rows, covariates].

        `unusable` has for each further reason which rows to leave out, bool [rows]. A row counts for its first reason:
        a missing name, a model against itself, then those.
        """
        first, second = self._numbers(model_a), self._numbers(model_b)
        unnamed = (first < 0) | (second < 0)
        kept = np.ones(len(first), dtype=bool)
        for reason, rows in {"unnamed": unnamed, "same_model": first == second, **(unusable or {})}.items():
            self._left_out[reason] = self._left_out.get(reason, 0) + int((kept & rows).sum())
            kept &= ~rows
        self._first.append(first[kept])
        self._second.append(second[kept])
        self._outcomes.append(np.asarray(outcomes, np.float64)[kept])
        if style is not None:
            self._style.append(style[kept])

    def _numbers(self, names: pa.ChunkedArray) -> np.ndarray:
        """Returns a number for each name, int32 [rows]; -1 for none."""
        encoded = pc.dictionary_encode(pc.if_else(pc.equal(names, ""), None, names)).combine_chunks()
        if isinstance(encoded, pa.ChunkedArray):  # of no chunks
            return np.empty(0, np.int32)
        known = [self._places.setdefault(name, len(self._places)) for name in encoded.dictionary.to_pylist()]
        return np.array([*known, -1], np.int32)[encoded.indices.fill_null(-1).to_numpy()]

    def battles(self) -> Battles:
        """Returns what was added, with models numbered in the order of their names."""
        first, second = (np.concatenate([np.empty(0, np.int32), *parts]) for parts in (self._first, self._second))
        met = np.unique(np.concatenate([first, second]))
        names = list(self._places)
        models = sorted(names[number] for number in met)
        place = {name: number for number, name in enumerate(models)}
        renumbered = np.array([place.get(name, -1) for name in names], np.int32)
        return Battles(
            models,
            renumbered[first],
            renumbered[second],
            np.concatenate([np.empty((0, 3)), *self._outcomes]),
            np.concatenate(self._style) if self._style else None,
            dict(self._left_out),
        )
