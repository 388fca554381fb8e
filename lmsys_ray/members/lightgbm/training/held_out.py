"""The probabilities of held-out conversations, as they are, joined to several turns, and of the class shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from lmsys_ray import CLASSES
from lmsys_ray.data.labelled_rows import LabelledRows
from lmsys_ray.members.lightgbm.artifacts import Artifacts
from lmsys_ray.members.lightgbm.scorer import conversation_scores
from lmsys_ray.members.lightgbm.shrinkage import averaged, shrunk
from lmsys_ray.members.lightgbm.training.joined import join
from lmsys_ray.members.lightgbm.turns import TurnMatrix
from lmsys_ray.metrics import class_shares, log_loss


@dataclass(frozen=True)
class Judged:
    """Predictions of some conversations beside their labels."""

    member: np.ndarray
    """[rows, 3]"""
    prior: np.ndarray
    """The class shares of the rows that the member learnt from [rows, 3]."""
    own: np.ndarray
    """The class shares of these rows themselves, or of their fold, which nobody knows beforehand [rows, 3]."""
    labels: np.ndarray
    groups: np.ndarray
    """The prompt of each row, or the first of its prompts, int64 [rows]."""

    @classmethod
    def all_of(cls, parts: list[Judged]) -> Judged:
        """Returns the rows of all parts."""
        names = ("member", "prior", "own", "labels", "groups")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass
class HeldOut:
    """What was held out, by fold."""

    rows: LabelledRows
    names: list[str]
    """The folds."""
    assigned: np.ndarray
    """The fold of each row, int64 [rows]."""
    probabilities: np.ndarray
    """By a member that did not see the row [rows, 3]; NaN where there is none."""
    rounds: dict[str, list[int]] = field(default_factory=dict)
    """Rounds of each booster, by fold."""
    single: dict[str, Judged] = field(default_factory=dict)
    joined: dict[str, Judged] = field(default_factory=dict)
    """Conversations of 2 to 5 others of the fold, for members that judge turns apart."""

    @classmethod
    def empty(cls, rows: LabelledRows, names: list[str], assigned: np.ndarray) -> Self:
        """Returns one without probabilities."""
        return cls(rows, names, assigned, np.full((len(rows.ids), len(CLASSES)), np.nan))

    def judge(self, number: int, scores: np.ndarray, turns: TurnMatrix, member: Artifacts, seed: int) -> None:
        """Keeps what `member` says of the conversations of fold `number`, from the `scores` [all turns, 3] of turns."""
        name = self.names[number]
        inside = self.assigned == number
        labels, groups = self.rows.labels[inside], self.rows.groups[inside]
        others = class_shares(self.rows.labels[self.rows.outside(inside)])
        self.rounds[name] = [booster.current_iteration() for booster in member.boosters]
        self.probabilities[inside] = conversation_scores(scores, turns, member)
        self.single[name] = _judged(self.probabilities[inside], labels, groups, others)
        if member.shrinkage is None or member.shrinkage.turns != "apart" or len(labels) < 4:
            return
        made = join(np.arange(len(labels)), seed)
        means = made.means(averaged(scores, turns), np.bincount(turns.rows))
        probabilities = shrunk(means, np.ones(len(means), bool), member.shrinkage)
        first = np.array([parts[0] for parts in made.parts])
        self.joined[name] = _judged(probabilities, made.labels(labels), groups[first], others)

    def line(self, number: int) -> str:
        """Returns a line about a fold."""
        name = self.names[number]
        found = self.single[name]
        loss = log_loss(found.member, found.labels)
        return f"fold {name}: log loss {loss:.4f} on {len(found.labels):,} rows, rounds {self.rounds[name]}"


def _judged(probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray, others: np.ndarray) -> Judged:
    prior, own = (np.tile(shares, (len(labels), 1)) for shares in (others, class_shares(labels)))
    return Judged(probabilities, prior, own, labels, groups)
