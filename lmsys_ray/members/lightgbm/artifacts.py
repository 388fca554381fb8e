"""The files of a LightGBM member: a directory of JSON and text, so that nothing can run code when it is read.

metadata.json has the kind of features, the order of classes, what is done with the boosters' probabilities, and the
SHA-256 of every other file; words.json and characters.json the vocabularies of the notebook's features; linear.json the
linear model of the winner; booster-00.txt, ... the boosters in LightGBM's text format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Literal, TypeVar

import lightgbm as lgb
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmsys_ray import CLASSES
from lmsys_ray.data.conversations import CellForm
from lmsys_ray.errors import RunError, UsageError, first_line
from lmsys_ray.members.lightgbm import booster_checks
from lmsys_ray.members.lightgbm.features import FeatureKind, Features, make_features
from lmsys_ray.members.lightgbm.linear import LinearModel, LinearModels
from lmsys_ray.members.lightgbm.preference import PreferenceFeatures
from lmsys_ray.members.lightgbm.shrinkage import Shrinkage
from lmsys_ray.members.lightgbm.vectorizer import VectorizerSettings

METADATA = "metadata.json"
LINEAR = "linear.json"
VOCABULARIES: dict[FeatureKind, tuple[str, ...]] = {"notebook": ("words.json", "characters.json"), "preference": ()}
"""The vocabulary files of each kind of features."""

Model = TypeVar("Model", bound=BaseModel)

FORMAT: Literal[3] = 3
"""In format 1 the features `preference` were computed differently; since format 3 there is `shrinkage`.

Where there is none, format 2 is written, which earlier versions read too.
"""

_OLDEST: dict[FeatureKind, int] = {"notebook": 1, "preference": 2}

_REMEDY = "import or train the artefacts again"


class Metadata(BaseModel):
    """What `metadata.json` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1, 2, 3] = 1
    features: FeatureKind
    classes: tuple[Literal["a"], Literal["b"], Literal["tie"]] = ("a", "b", "tie")
    shrinkage: Shrinkage | None = None
    files: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]


@dataclass(frozen=True)
class Artifacts:
    """A LightGBM member, loaded: its boosters are averaged."""

    kind: FeatureKind
    vocabularies: tuple[VectorizerSettings, ...]
    """In the order of `VOCABULARIES`."""
    boosters: Sequence[lgb.Booster]
    linear: Sequence[LinearModel] = ()
    """Averaged too; none where `shrinkage` has no share for them."""
    shrinkage: Shrinkage | None = None
    """None: the boosters' probabilities as they are, all turns read as one text."""

    def features(self, cells: CellForm) -> Features:
        """Returns the features that the boosters were fitted on; `cells` is the form of the raw cells."""
        return make_features(self.kind, self.vocabularies, cells)


def save(artifacts: Artifacts, directory: Path) -> None:
    """Writes the files of a member into an existing directory."""
    names = VOCABULARIES[artifacts.kind]
    texts = {name: _json(settings) for name, settings in zip(names, artifacts.vocabularies, strict=True)}
    for number, booster in enumerate(artifacts.boosters):
        texts[f"booster-{number:02}.txt"] = booster.model_to_string()
    if artifacts.linear:
        columns = PreferenceFeatures("auto").differences
        texts[LINEAR] = _json(LinearModels(columns=columns, models=list(artifacts.linear)))
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    metadata = Metadata(
        format=FORMAT if artifacts.shrinkage else 2,
        features=artifacts.kind,
        files=digests,
        shrinkage=artifacts.shrinkage,
    )
    texts[METADATA] = _json(metadata, exclude_none=True)
    for name, text in texts.items():
        (directory / name).write_bytes(text.encode())


def load(directory: str | Path) -> Artifacts:
    """Reads and checks the files of a member.

    Raises `UsageError` where the directory is not that of a LightGBM member, `RunError` where a file is missing, was
    changed or truncated, or does not fit the others.
    """
    directory = Path(directory)
    path = directory / METADATA
    if not path.is_file():
        raise UsageError(f"{directory} has no {METADATA}; give what import_artifacts or train_lightgbm wrote")
    metadata = _parsed(Metadata, path, path.read_bytes())
    if metadata.format < _OLDEST[metadata.features]:
        raise RunError(f"{directory} was fitted on features that this version computes differently; train it again")
    if outside := [name for name in metadata.files if name != PurePath(name).name]:
        raise RunError(f"{path} lists {outside[0]}, which is not a plain file name; {_REMEDY}")
    texts = {name: _checked(directory / name, digest) for name, digest in metadata.files.items()}
    boosters = sorted(name for name in texts if name.startswith("booster-"))
    for name in VOCABULARIES[metadata.features]:
        if name not in texts:
            raise RunError(f"{path} does not list {name}; {_REMEDY}")
    if not boosters:
        raise RunError(f"{path} lists no booster; {_REMEDY}")
    artifacts = Artifacts(
        metadata.features,
        tuple(_parsed(VectorizerSettings, directory / n, texts[n]) for n in VOCABULARIES[metadata.features]),
        [_booster(directory / name, texts[name], metadata.features) for name in boosters],
        _linear(directory, texts, metadata),
        metadata.shrinkage,
    )
    check(artifacts, str(directory))
    return artifacts


def check(artifacts: Artifacts, origin: str) -> None:
    """Raises `RunError` where a booster does not have three classes and the columns of its features."""
    features = artifacts.features("auto")  # the columns are the same for every form
    for number, booster in enumerate(artifacts.boosters):
        if booster.num_model_per_iteration() != len(CLASSES):
            classes = booster.num_model_per_iteration()
            raise RunError(f"{origin}: booster {number} predicts {classes} values a row where 3 classes are needed")
        if booster.num_feature() != features.columns:
            raise RunError(
                f"{origin}: booster {number} was fitted on {booster.num_feature()} columns "
                f"but its features have {features.columns}; they do not belong together"
            )
        if artifacts.kind != "notebook" and booster.feature_name() != features.names:
            raise RunError(f"{origin}: booster {number} names other columns than this version computes; {_REMEDY}")


def _linear(directory: Path, texts: dict[str, bytes], metadata: Metadata) -> list[LinearModel]:
    """Returns the linear models that `metadata` gives a share, none where it gives none."""
    path = directory / METADATA
    if metadata.shrinkage is None:
        return []
    if metadata.features != "preference":
        raise RunError(f"{path}: shrinkage is not offered for features {metadata.features}; {_REMEDY}")
    if not metadata.shrinkage.linear_share:
        return []
    if LINEAR not in texts:
        raise RunError(f"{path} does not list {LINEAR}; {_REMEDY}")
    found = _parsed(LinearModels, directory / LINEAR, texts[LINEAR])
    if found.columns != PreferenceFeatures("auto").differences:
        raise RunError(f"{directory / LINEAR} names other columns than this version computes; {_REMEDY}")
    return found.models


def _json(model: BaseModel, exclude_none: bool = False) -> str:
    # ASCII only: a vocabulary may have lone surrogates, which UTF-8 cannot encode.
    return json.dumps(model.model_dump(mode="python", exclude_none=exclude_none), indent=0) + "\n"


def _checked(path: Path, digest: str) -> bytes:
    if not path.is_file():
        raise RunError(f"{path} is missing; {_REMEDY}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise RunError(f"{path} was changed or cut short (its SHA-256 is not that in {METADATA}); {_REMEDY}")
    return content


def _parsed(model: type[Model], path: Path, content: bytes) -> Model:
    try:
        return model.model_validate(json.loads(content))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "its content"
        raise RunError(f"{path}: {place} is wrong ({first['msg']}); {_REMEDY}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is not JSON ({first_line(error, 80)}); {_REMEDY}") from None


def _booster(path: Path, content: bytes, kind: FeatureKind) -> lgb.Booster:
    try:
        text, header = booster_checks.validated_booster(content)
        if header.averages and kind == "preference":
            # Scores are the softmax of summed trees (see `lmsys_ray.members.lightgbm.scorer.predict`).
            raise ValueError("averages its trees, as no booster on these features does")
        return lgb.Booster(model_str=text.decode())
    except lgb.basic.LightGBMError as error:
        raise RunError(f"{path} is not a LightGBM model ({error}); {_REMEDY}") from None
    except UnicodeDecodeError:
        raise RunError(f"{path} is damaged: it is not UTF-8; {_REMEDY}") from None
    except ValueError as error:
        raise RunError(f"{path} {error}; {_REMEDY}") from None
