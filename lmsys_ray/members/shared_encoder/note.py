"""How a shared encoder was trained to read rows: scoring.json beside its weights."""

from __future__ import annotations

from lmsys_ray.checkpoints.as_trained import check_as_trained
from lmsys_ray.checkpoints.sources import SCORING, read_scoring
from lmsys_ray.errors import UsageError
from lmsys_ray.members.shared_encoder.settings import SharedEncoderSettings


def check_note(settings: SharedEncoderSettings) -> None:
    """Raises `UsageError` where the note is damaged, or where the member reads rows otherwise than it says.

    The length of texts may differ, unless padding counts in the mean.
    """
    note = read_scoring(settings.model)
    check_as_trained(note, settings)
    for key in ("preset", "max_length") if note.get("preset") else ("preset",):
        if key in note and note[key] != getattr(settings, key):
            raise UsageError(
                f"model: {settings.model} was trained with {key} = {note[key]!r}, this member has "
                f"{getattr(settings, key)!r}; set {key} as in training (see {SCORING} in its directory)"
            )
