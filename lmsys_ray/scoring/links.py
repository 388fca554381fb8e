"""The links of members that score each response by itself: as set, and the rest from the spread of a run's scores."""

from collections.abc import Iterator, Sequence

import numpy as np

from lmsys_ray.ensemble.links import Link, without_labels
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.score_checks import TWO_SCORES, scores_of
from lmsys_ray.run_directory.tables import prefetched
from lmsys_ray.scoring.settings import Settings

MOST_ROWS = 1_000_000
"""Rows from which a spread is estimated, about; of more, every so many shards are read."""


def links_of(
    run: RunDirectory, settings: Settings, members: Sequence[str], shards: int | Sequence[int], rows: int
) -> dict[str, Link]:
    """Returns the links of those of `members` whose scores are not probabilities.

    `shards` are those that they have scored: their numbers, or how many there are.

    `rows` is how many the run has. They depend on the scores alone, so that every start of a run finds the same.
    """
    step = max(1, rows // MOST_ROWS)
    numbers = range(shards) if isinstance(shards, int) else shards
    links = {}
    for name in members:
        asked = settings.members[name].link_settings()
        if not asked or not numbers or TWO_SCORES[0] not in run.read_scores(name, numbers[0]).column_names:
            continue
        differences = np.empty(0)
        if None in asked:
            differences = np.concatenate([*_differences(run, name, numbers[::step])])
        links[name] = without_labels(asked.name, differences, settings.prior[2], asked.scale, asked.tie)
    return links


def said(name: str, settings: Settings, link: Link) -> str | None:
    """Returns a sentence about what was not set of a member's link; None where all of it was."""
    asked, chosen = settings.members[name].link_settings(), []
    if asked and asked.scale is None:
        chosen.append(f"scale {link.scale:.4g} (the spread of its differences)")
    if asked and asked.tie is None:
        chosen.append(f"tie {link.tie:.4g} (ties as frequent as in the prior)")
    if not chosen:
        return None
    return f"members.{name}: without labels {' and '.join(chosen)}; calibrate.py fits them to labels"


def _differences(run: RunDirectory, name: str, shards: Sequence[int]) -> Iterator[np.ndarray]:
    for scores in prefetched(lambda number: run.read_scores(name, number), shards):
        whole = scores.filter(scores["reason"].is_null()) if "reason" in scores.column_names else scores
        a, b = scores_of(whole).T
        yield a - b
