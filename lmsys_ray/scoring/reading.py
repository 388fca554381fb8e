"""How the input of a run is read: recognised from its first file, and then the same for all."""

from __future__ import annotations

from collections.abc import Sequence

from lmsys_ray.data.readers import head
from lmsys_ray.data.schemas.recognise import Recognised, Wishes, recognise
from lmsys_ray.scoring.settings import Settings


def recognised(settings: Settings, files: Sequence[str]) -> Recognised:
    """Returns how the files of a run are read, and what to tell of it; raises `UsageError` where no schema fits."""
    return recognise(head(files[0]), Wishes(settings.schema, settings.columns, settings.id, settings.pairs))
