"""Fits the LightGBM member: folds by prompt, rounds chosen without the fold held out, all boosters averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from lmsys_ray import CLASSES
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.importing.directories import check_free, written_aside
from lmsys_ray.members.base import CONVERSATIONS
from lmsys_ray.members.lightgbm.artifacts import Artifacts, save
from lmsys_ray.members.lightgbm.features import Features, make_features
from lmsys_ray.members.lightgbm.preference import PROMPT
from lmsys_ray.members.lightgbm.scorer import SWAPPED, batches, predict
from lmsys_ray.members.lightgbm.vectorizer import VectorizerSettings
from lmsys_ray.metrics import log_loss
from lmsys_ray.training.folds import grouped_folds
from lmsys_ray.training.labelled_rows import LabelledRows, read_labelled
from lmsys_ray.training.lightgbm_output import figures, write_figures
from lmsys_ray.training.lightgbm_settings import LightGBMOptions, View

WHOLE = -1
"""The fold that holds out nothing."""

_PARTS = 5
"""Into so many parts the rows to fit on are cut; one of them chooses the rounds."""


@dataclass(frozen=True)
class Matrices:
    """The features of all rows, as given and with A and B swapped: CSR or dense, float64 [rows, columns]."""

    straight: Any
    swapped: Any


def train_lightgbm(
    inputs: Sequence[str],
    output: Path,
    folds: int,
    fold: int | None,
    options: LightGBMOptions,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Fits boosters on labelled conversations and writes the artefacts, their figures and the probabilities held out.

    Boosters are fitted for each of the `folds` on the rows outside it, or for `fold` alone, in as many rounds as serve
    a part of those rows best; `fold` -1 fits on all rows. Returns the figures. `output` is a new directory, there whole
    or not at all. Raises `UsageError` or `RunError` for input, labels or folds that cannot be used, and where no
    booster finds a split.
    """
    check_free(output)
    rows = read_labelled(inputs, options.fold_column, options.cells)
    names, assigned = ([], np.zeros(len(rows.ids), np.int64)) if fold == WHOLE else rows.folds(folds, options.seed)
    wanted = _wanted(fold, len(names))
    say(f"{len(rows.ids):,} rows, {rows.rejected} left out; computing features")
    vocabularies = _vocabularies(rows.conversations, options)
    features = make_features(options.features, vocabularies, options.cells)
    matrices = _matrices(features, rows.conversations)
    boosters: list[lgb.Booster] = []
    held_out = np.full((len(rows.ids), 3), np.nan)
    rounds: dict[str, list[int]] = {}
    for number in wanted:
        inside = assigned == number
        training = rows.outside(inside)
        place = "" if number == WHOLE else f"fold {names[number]}: "
        _check_classes(rows.labels[training], place)
        chosen_on = _part(rows, training, place, options) if place and options.patience else None
        fitted = [
            _fit(matrices, rows.labels, training, chosen_on, features, view, seed, options)
            for view in options.fitted_views()
            for seed in range(options.seed, options.seed + options.boosters)
        ]
        boosters += fitted
        if (split := sum(map(_splits, fitted))) < len(fitted):
            say(f"{place}{len(fitted) - split} of {len(fitted)} boosters never split: they give class shares alone")
        if number != WHOLE:
            held_out[inside] = predict(fitted, features, matrices.straight[inside])
            rounds[names[number]] = [booster.current_iteration() for booster in fitted]
            loss = log_loss(held_out[inside], rows.labels[inside])
            say(f"{place}log loss {loss:.4f} on {inside.sum():,} rows, rounds {rounds[names[number]]}")
    if not any(map(_splits, boosters)):
        raise RunError(
            f"no booster found a split in {len(rows.ids)} rows with rows_per_leaf={options.rows_per_leaf}, so that all "
            "rows would get the class shares; label more rows or set rows_per_leaf lower"
        )
    result = figures(rows, names, assigned, held_out, rounds, options)
    with written_aside(output) as aside:
        save(Artifacts(options.features, vocabularies, boosters), aside)
        write_figures(aside, rows, names, assigned, held_out, result)
    return result


def _wanted(fold: int | None, folds: int) -> list[int]:
    if fold is None:
        return list(range(folds))
    if fold != WHOLE and not 0 <= fold < folds:
        raise UsageError(f"--fold: {fold} is none of the {folds} folds; give -1 to {folds - 1}")
    return [fold]


def _vocabularies(conversations: pa.Table, options: LightGBMOptions) -> tuple[VectorizerSettings, ...]:
    """Fits the notebook's two vocabularies on the responses; labels play no part, so all rows may."""
    if options.features != "notebook":
        return ()
    texts = [*conversations["response_a"].to_pylist(), *conversations["response_b"].to_pylist()]
    try:
        words = CountVectorizer(max_features=options.words).fit(texts)
        characters = CountVectorizer(
            analyzer="char", ngram_range=options.character_ngrams, max_features=options.characters
        ).fit(texts)
    except ValueError as error:
        raise RunError(f"no vocabulary can be made of the responses ({error}); see that they hold words") from None
    return VectorizerSettings.of(words), VectorizerSettings.of(characters)


def _matrices(features: Features, conversations: pa.Table) -> Matrices:
    straight = _stacked([features.matrix(batch) for batch in batches(conversations)])
    swapped = features.mirrored(straight)
    if swapped is None:
        turned = conversations.select(["row", "prompt", "response_b", "response_a"]).rename_columns(CONVERSATIONS.names)
        swapped = _stacked([features.matrix(batch) for batch in batches(turned)])
    return Matrices(straight, swapped)


def _stacked(parts: list[Any]) -> Any:
    return sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts)


def _check_classes(labels: np.ndarray, place: str) -> None:
    """Raises `RunError` where a class has no row to fit on."""
    if not len(labels):
        raise RunError(f"{place}it shares its prompts with every other row, so that none is left to fit on")
    for name, count in zip(CLASSES, np.bincount(labels, minlength=len(CLASSES)), strict=True):
        if not count:
            raise RunError(
                f"{place}no row to fit on is labelled {name}, so that P({name}) would always be 0; label some"
            )


def _splits(booster: lgb.Booster) -> bool:
    return bool(booster.feature_importance("split").any())


def _part(rows: LabelledRows, training: np.ndarray, place: str, options: LightGBMOptions) -> np.ndarray:
    """Returns which rows the rounds are chosen on, bool [rows]: a part of those where `training`, by prompt."""
    chosen_on = np.zeros(len(training), bool)
    try:
        folds = grouped_folds(rows.labels[training], rows.groups[training], _PARTS, options.seed)
    except RunError as error:
        raise RunError(
            f"{place}its rounds cannot be chosen on a part of the others ({error}), or set patience=0"
        ) from None
    chosen_on[training] = folds == 0
    return chosen_on


def _fit(
    matrices: Matrices,
    labels: np.ndarray,
    training: np.ndarray,
    chosen_on: np.ndarray | None,
    features: Features,
    view: View,
    seed: int,
    options: LightGBMOptions,
) -> lgb.Booster:
    """Fits one booster on the rows where `training` bool [rows].

    Where `chosen_on` bool [rows] is a part of them, a booster is first fitted on the others and stopped by that part;
    its rounds are then those of the booster on all of them. No other row is looked at.
    """
    parameters = options.parameters(seed)
    if view == "responses":
        parameters["feature_contri"] = [float(not name.startswith(PROMPT)) for name in features.names]
    rounds = options.rounds
    if chosen_on is not None:
        fitted_on = _dataset(matrices, labels, training & ~chosen_on, features, options.swap)
        judged_on = _dataset(matrices, labels, chosen_on, features, options.swap, reference=fitted_on)
        stop = lgb.early_stopping(options.patience, verbose=False)
        stopped = lgb.train(parameters, fitted_on, rounds, valid_sets=[judged_on], callbacks=[stop])
        rounds = stopped.best_iteration
    return lgb.train(parameters, _dataset(matrices, labels, training, features, options.swap), rounds)


def _dataset(
    matrices: Matrices,
    labels: np.ndarray,
    chosen: np.ndarray,
    features: Features,
    swap: bool,
    reference: lgb.Dataset | None = None,
) -> lgb.Dataset:
    """Returns the rows where `chosen` bool [rows], in both orders where `swap`."""
    matrix, label = matrices.straight[chosen], labels[chosen]
    if swap:
        matrix = _stacked([matrix, matrices.swapped[chosen]])
        label = np.concatenate([label, np.array(SWAPPED)[label]])
    return lgb.Dataset(matrix, label, feature_name=features.names, reference=reference)
