"""Converts the notebook's three pickles to the artefacts of a LightGBM member."""

import pickle
from pathlib import Path
from typing import Any

import lightgbm as lgb
from pydantic import ValidationError

from lmsys_ray.errors import RunError, UsageError, first_line
from lmsys_ray.members.lightgbm.artifacts import Artifacts, check, save
from lmsys_ray.members.lightgbm.booster_checks import validated_booster
from lmsys_ray.members.lightgbm.vectorizer import VectorizerSettings
from lmsys_ray.storage.directories import atomic_directory

WORDS, CHARACTERS, BOOSTERS = NAMES = ("cvec.pkl", "ccvec.pkl", "lgb_models.pkl")


def import_pickles(source: Path, target: Path, trusted: bool) -> Artifacts:
    """Writes the artefacts of the pickles in `source` to the new directory `target`, and returns them.

    Raises `UsageError` where they are missing or not trusted, `RunError` where one has unexpected content.
    """
    if not trusted:
        raise UsageError(
            f"--pickles: reading a pickle runs whatever code its maker put in; "
            f"add --trust-pickle if you trust who made those in {source}"
        )
    artifacts = read_pickles(source)
    with atomic_directory(target) as aside:
        save(artifacts, aside)
    return artifacts


def read_pickles(source: Path) -> Artifacts:
    """Reads `cvec.pkl`, `ccvec.pkl` and `lgb_models.pkl`; this runs whatever code they hold."""
    for name in NAMES:
        if not (source / name).is_file():
            raise UsageError(f"--pickles: {source / name} does not exist; needed are {', '.join(NAMES)}")
    vocabularies = tuple(_vectorizer(source / name) for name in (WORDS, CHARACTERS))
    artifacts = Artifacts("notebook", vocabularies, _boosters(source / BOOSTERS))
    check(artifacts, str(source))
    return artifacts


def _vectorizer(path: Path) -> VectorizerSettings:
    try:
        return VectorizerSettings.of(_unpickled(path))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise RunError(f"{path} cannot be converted: {place} is not accepted ({fault['msg']})") from None
    except ValueError as error:
        raise RunError(f"{path} cannot be converted: {error}") from None


def _boosters(path: Path) -> list[lgb.Booster]:
    models = _unpickled(path)
    models = list(models) if isinstance(models, list | tuple) else [models]
    if not models:
        raise RunError(f"{path} holds no model; it should be a list of LGBMClassifier")
    return [_checked(_booster(model, f"{path}, model {number}"), path) for number, model in enumerate(models)]


def _checked(booster: lgb.Booster, path: Path) -> lgb.Booster:
    """Returns the booster if it can be loaded after it is saved; raises `RunError` otherwise."""
    try:
        validated_booster(booster.model_to_string().encode())
    except ValueError as error:
        raise RunError(f"{path} holds a model that {error}; it should be a list of LGBMClassifier") from None
    return booster


def _booster(model: Any, origin: str) -> lgb.Booster:
    if isinstance(model, lgb.Booster):
        return model
    if not isinstance(model, lgb.LGBMClassifier):
        raise RunError(f"{origin} is a {type(model).__name__}; only LGBMClassifier and Booster can be converted")
    classes = [str(label) for label in getattr(model, "classes_", [])]
    if classes not in (["0", "1", "2"], ["a", "b", "tie"], ["winner_model_a", "winner_model_b", "winner_tie"]):
        raise RunError(f"{origin} has the classes {classes}; needed are 0, 1 and 2 for A, B and tie")
    return model.booster_


def _unpickled(path: Path) -> Any:
    try:
        return pickle.loads(path.read_bytes())  # noqa: S301 - the user vouched for it by --trust-pickle
    except Exception as error:  # noqa: BLE001 - whatever a foreign pickle raises
        raise RunError(f"{path} cannot be unpickled here ({type(error).__name__}: {first_line(error, 120)})") from None
