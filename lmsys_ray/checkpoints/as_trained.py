"""Whether a member reads rows as its adapter or its model was trained to."""

from collections.abc import Mapping
from typing import Any

from lmsys_ray.checkpoints.settings import ModelSettings
from lmsys_ray.checkpoints.sources import AS_NOTED, AS_TRAINED, trained_place
from lmsys_ray.errors import UsageError

_BEFORE = {"turns": "all"}
"""What adapters were trained with whose notes are older than the setting."""


def check_as_trained(trained: Mapping[str, Any], settings: ModelSettings) -> None:
    """Checks that a member reads rows as it was trained to.

    `trained` is the content of the scoring.json of its adapter, or where it has none of its model.
    The length of rows may differ. Another text or depth would give numbers that look like probabilities.
    """
    noted = {**_BEFORE, **trained} if trained else {}
    place = trained_place(settings.model, settings.adapter)
    what = "model" if settings.adapter is None else "adapter"
    for key in (*AS_TRAINED, *AS_NOTED):
        if key not in noted:
            continue
        if not hasattr(settings, key):
            raise UsageError(
                f"{place} is a classifier's, trained with {key} = {noted[key]!r}, which no member "
                f"of this kind has; set kind to classifier, or name another {what}"
            )
        value = getattr(settings, key)
        if value not in (noted[key], "auto"):
            raise UsageError(
                f"{place} was trained with {key} = {noted[key]!r}, this member has {value!r}; "
                f"set {key} as in training (see scoring.json in the {what}'s directory)"
            )
