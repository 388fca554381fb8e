"""The files of a LightGBM member: a directory of JSON and text, in which nothing can run code when it is read.

metadata.json           the kind of features, the order of classes, the SHA-256 of every other file
words.json              settings and vocabulary of the word counts, where the features are the notebook's
characters.json         those of the character counts
booster-00.txt, ...     LightGBM's own text format
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
from lmsys_ray.conversations import CellForm
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.members.lightgbm.features import FeatureKind, Features, make_features
from lmsys_ray.members.lightgbm.vectorizer import VectorizerSettings

METADATA = "metadata.json"
VOCABULARIES: dict[FeatureKind, tuple[str, ...]] = {"notebook": ("words.json", "characters.json"), "preference": ()}
"""The files of vocabularies that each kind of features has."""

Model = TypeVar("Model", bound=BaseModel)

FORMAT: Literal[2] = 2
"""In format 1 the features named `preference` were computed in another way; the notebook's are the same in both."""

_REMEDY = "import or train the artefacts again"


class Metadata(BaseModel):
    """What `metadata.json` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1, 2] = 1
    features: FeatureKind
    classes: tuple[Literal["a"], Literal["b"], Literal["tie"]] = ("a", "b", "tie")
    files: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]


@dataclass(frozen=True)
class Artifacts:
    """A LightGBM member, loaded: its boosters are averaged."""

    kind: FeatureKind
    vocabularies: tuple[VectorizerSettings, ...]
    """In the order of `VOCABULARIES`."""
    boosters: Sequence[lgb.Booster]

    def features(self, cells: CellForm) -> Features:
        """Returns the features that the boosters were fitted on; `cells` says what the raw cells hold."""
        return make_features(self.kind, self.vocabularies, cells)


def save(artifacts: Artifacts, directory: Path) -> None:
    """Writes the files of a member into an existing directory."""
    names = VOCABULARIES[artifacts.kind]
    texts = {name: _json(settings) for name, settings in zip(names, artifacts.vocabularies, strict=True)}
    for number, booster in enumerate(artifacts.boosters):
        texts[f"booster-{number:02}.txt"] = booster.model_to_string()
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    texts[METADATA] = _json(Metadata(format=FORMAT, features=artifacts.kind, files=digests))
    for name, text in texts.items():
        (directory / name).write_bytes(text.encode())


def load(directory: str | Path) -> Artifacts:
    """Reads and checks the files of a member.

    Raises `UsageError` where the directory is none of a LightGBM member, `RunError` where a file of it is missing,
    was changed or cut short, or does not fit the others.
    """
    directory = Path(directory)
    path = directory / METADATA
    if not path.is_file():
        raise UsageError(f"{directory} has no {METADATA}; give what import_artifacts or train_lightgbm wrote")
    metadata = _parsed(Metadata, path, path.read_bytes())
    if metadata.features == "preference" and metadata.format < FORMAT:
        raise RunError(f"{directory} was fitted on features that this version computes in another way; train it again")
    if outside := [name for name in metadata.files if name != PurePath(name).name]:
        raise RunError(f"{path} lists {outside[0]}, which is no plain file name; {_REMEDY}")
    texts = {name: _checked(directory / name, digest) for name, digest in metadata.files.items()}
    boosters = sorted(name for name in texts if name.startswith("booster-"))
    for name in boosters if metadata.features == "preference" else ():
        # Their scores are the softmax of what the boosters sum up (see `lmsys_ray.members.lightgbm.scorer.predict`).
        if b"\nobjective=multiclass " not in texts[name] or b"\naverage_output" in texts[name]:
            raise RunError(f"{directory / name} was not fitted with the objective multiclass; {_REMEDY}")
    for name in VOCABULARIES[metadata.features]:
        if name not in texts:
            raise RunError(f"{path} does not list {name}; {_REMEDY}")
    if not boosters:
        raise RunError(f"{path} lists no booster; {_REMEDY}")
    artifacts = Artifacts(
        metadata.features,
        tuple(_parsed(VectorizerSettings, directory / n, texts[n]) for n in VOCABULARIES[metadata.features]),
        [_booster(directory / name, texts[name]) for name in boosters],
    )
    check(artifacts, str(directory))
    return artifacts


def check(artifacts: Artifacts, origin: str) -> None:
    """Raises `RunError` where a booster has not three classes, or not the number of columns its features have."""
    features = artifacts.features("auto")  # whose columns are the same for every form
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


def _json(model: BaseModel) -> str:
    # ASCII alone: a vocabulary may hold lone surrogates, which UTF-8 cannot.
    return json.dumps(model.model_dump(mode="python"), indent=0) + "\n"


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
        raise RunError(f"{path} is no JSON ({str(error)[:80]}); {_REMEDY}") from None


def _booster(path: Path, text: bytes) -> lgb.Booster:
    if not text.startswith(b"tree"):
        raise RunError(f"{path} is no LightGBM model; {_REMEDY}")
    if b"\nend of trees\n" not in text:
        raise RunError(f"{path} is cut short; {_REMEDY}")
    try:
        return lgb.Booster(model_str=text.decode())
    except (lgb.basic.LightGBMError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is no LightGBM model ({error}); {_REMEDY}") from None
