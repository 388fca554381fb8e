"""Fits a LightGBM member: folds by prompt, rounds chosen without the held-out fold, all boosters averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
from sklearn.feature_extraction.text import CountVectorizer

from lmsys_ray import CLASSES, SWAPPED
from lmsys_ray.data.folds import grouped_folds
from lmsys_ray.data.labelled_rows import LabelledRows, read_labelled
from lmsys_ray.data.trained_rows import write_digests
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.members.lightgbm.artifacts import Artifacts, save
from lmsys_ray.members.lightgbm.features import Features, make_features
from lmsys_ray.members.lightgbm.linear import LinearModel
from lmsys_ray.members.lightgbm.preference import PROMPT, PreferenceFeatures
from lmsys_ray.members.lightgbm.scorer import turn_scores
from lmsys_ray.members.lightgbm.training.held_out import HeldOut
from lmsys_ray.members.lightgbm.training.linear_fit import fit_linear
from lmsys_ray.members.lightgbm.training.matrices import Matrices, read_matrices, stacked
from lmsys_ray.members.lightgbm.training.options import LightGBMOptions, View
from lmsys_ray.members.lightgbm.training.output import figures, write_figures
from lmsys_ray.members.lightgbm.vectorizer import VectorizerSettings
from lmsys_ray.storage.directories import atomic_directory, check_free

WHOLE = -1
"""The fold that holds out nothing."""

_PARTS = 5
"""The rows to fit on are divided into this many parts; one of them chooses the rounds."""


def train_lightgbm(
    inputs: Sequence[str],
    output: Path,
    folds: int,
    fold: int | None,
    options: LightGBMOptions,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Fits boosters on labelled conversations and writes the artefacts, their figures and the probabilities held out.

    Boosters are fitted for each of the `folds`, or for `fold` only, on the rows outside it, in the number of rounds
    that is best on a part of those; `fold` -1 fits on all rows. Returns the figures. `output` is a new directory,
    written atomically. Raises `UsageError` or `RunError` for input, labels or folds that cannot be used, and where no
    booster finds a split.
    """
    check_free(output)
    rows = read_labelled(inputs, options.fold_column, options.cells)
    names, assigned = ([], np.zeros(len(rows.ids), np.int64)) if fold == WHOLE else rows.folds(folds, options.seed)
    wanted = _wanted(fold, len(names))
    say(f"{len(rows.ids):,} rows, {rows.rejected} left out; computing features")
    vocabularies = _vocabularies(rows.conversations, options)
    features = make_features(options.features, vocabularies, options.cells)
    matrices = read_matrices(features, rows.conversations, options.turns)
    boosters: list[lgb.Booster] = []
    linear: list[LinearModel] = []
    trained: list[np.ndarray] = []
    held_out = HeldOut.empty(rows, names, assigned)
    for number in wanted:
        inside = assigned == number
        training = rows.outside(inside)
        trained.append(training)
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
        member = Artifacts(
            options.features,
            vocabularies,
            fitted,
            _linear(matrices, rows.labels, training, features, options),
            options.shrinkage(rows.labels[training]),
        )
        linear += member.linear
        if number != WHOLE:
            turns = matrices.of(inside)
            scores = turn_scores(member, features, turns)
            held_out.judge(number, scores, turns, member, options.seed)
            say(held_out.line(number))
    if not any(map(_splits, boosters)):
        raise RunError(
            f"no booster found a split in {len(rows.ids)} rows with rows_per_leaf={options.rows_per_leaf}, so that all "
            "rows would get the class shares; label more rows or set rows_per_leaf lower"
        )
    result = figures(held_out, options)
    whole = Artifacts(options.features, vocabularies, boosters, linear, options.shrinkage(rows.labels))
    with atomic_directory(output) as aside:
        save(whole, aside)
        write_figures(aside, held_out, result)
        used = np.logical_or.reduce(trained)
        write_digests(aside, rows.conversations.filter(used), options.cells)
    return result


def _wanted(fold: int | None, folds: int) -> list[int]:
    if fold is None:
        return list(range(folds))
    if fold != WHOLE and not 0 <= fold < folds:
        raise UsageError(f"--fold: {fold} is not one of the {folds} folds; give -1 to {folds - 1}")
    return [fold]


def _vocabularies(conversations: pa.Table, options: LightGBMOptions) -> tuple[VectorizerSettings, ...]:
    """Fits the notebook's two vocabularies on the responses of all rows, since labels are not used."""
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


def _linear(
    matrices: Matrices, labels: np.ndarray, training: np.ndarray, features: Features, options: LightGBMOptions
) -> list[LinearModel]:
    """Returns the linear model of the rows where `training`, if the features have one and it is asked for."""
    if not isinstance(features, PreferenceFeatures) or not options.linear_share:
        return []
    chosen = matrices.turns_of(training)
    turns = matrices.straight
    differences = features.only_differences(turns.matrix[chosen])
    classes = labels[turns.rows[chosen]]
    return [fit_linear(differences, classes, matrices.weights[chosen], options.linear_penalty)]


def _check_classes(labels: np.ndarray, place: str) -> None:
    """Raises `RunError` where a class has no row to fit on."""
    if not len(labels):
        raise RunError(f"{place}it shares its prompts with every other row, so that none are left to fit on")
    for name, count in zip(CLASSES, np.bincount(labels, minlength=len(CLASSES)), strict=True):
        if not count:
            raise RunError(
                f"{place}no row to fit on is labelled {name}, so that P({name}) would always be 0; label some"
            )


def _splits(booster: lgb.Booster) -> bool:
    return bool(booster.feature_importance("split").any())


def _part(rows: LabelledRows, training: np.ndarray, place: str, options: LightGBMOptions) -> np.ndarray:
    """Returns the rows on which rounds are chosen, bool [rows]: a part, by prompt, of those where `training`."""
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

    Where `chosen_on` bool [rows] is a part of them, a booster is first fitted on the others and stopped early by that
    part; the booster on all of them takes as many rounds. No other rows are used.
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
    """Returns the turns of the rows where `chosen` bool [rows], in both orders where `swap`.

    Each turn has the label of its conversation, and all turns of one weigh as much as one row.
    """
    turns = matrices.turns_of(chosen)
    matrix, label = matrices.straight.matrix[turns], labels[matrices.straight.rows[turns]]
    weight = matrices.weights[turns]
    if swap:
        matrix = stacked([matrix, matrices.swapped[turns]])
        label = np.concatenate([label, np.array(SWAPPED)[label]])
        weight = np.tile(weight, 2)
    # Weights of 1 are left out, with which the sums would be other sums.
    weights = None if (weight == 1).all() else weight
    return lgb.Dataset(matrix, label, weight=weights, feature_name=features.names, reference=reference)
