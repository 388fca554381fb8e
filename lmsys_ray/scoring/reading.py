"""How the input of a run is read: recognised from its first file, and then the same for all."""

from __future__ import annotations

from collections.abc import Sequence

from lmsys_ray.data.readers import head
from lmsys_ray.data.schemas.recognise import Recognised, Wishes, recognise
from lmsys_ray.scoring.settings import Settings


def recognised(settings: Settings, files: Sequence[str]) -> Recognised:
    """Returns how the files of a run are read, and what to tell of it; raises `UsageError` where no schema fits."""
    return recognise(head(files[0]), Wishes(settings.schema, settings.columns, settings.id, settings.pairs))


def row_names(files: Sequence[str]) -> list[str]:
    """Returns the names with which ids of rows begin: those of the files, with folders as far as they tell them apart.

    They stay the same where all files move together.
    """
    parts = [file.rstrip("/").split("/") for file in files]
    if len({names[-1] for names in parts}) == len(files):
        return [names[-1] for names in parts]
    common = 0
    while len({tuple(names[: common + 1]) for names in parts}) == 1:
        common += 1
    return ["/".join(names[common:]) for names in parts]
