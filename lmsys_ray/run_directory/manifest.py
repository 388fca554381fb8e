"""The manifest of a run: what it was made from and what its starts did; a typed model with a checksum."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmsys_ray.validation import first_fault

FORMAT = 3
"""Version of the run directory's layout."""

_READABLE = (2, FORMAT)
"""Files of format 2 have no labels, and its manifest no checksum."""


class ManifestError(ValueError):
    """A manifest that is not as it was written; the text says how."""


class LaterFormatError(ValueError):
    """A manifest that a later version wrote."""


@dataclass
class Ingested:
    """The results of an ingest, in numbers of rows."""

    rows: int = 0
    """Input rows read."""
    lines: int = 0
    """Distinct ids: the rows of the shards and the lines of the submission."""
    rejects: int = 0
    """Input rows that cannot be scored."""
    unscored: int = 0
    """Distinct ids among the rejects; these get the class prior."""
    shards: int = 0
    warnings: int = 0
    """Input rows that were accepted with a warning."""
    warned: list[str] = field(default_factory=list)
    """The first of these warnings, each with file and row."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the counts by name."""
        return asdict(self)


@dataclass(frozen=True)
class Binding:
    """The labels of a run's sealed files, so that a file of another run or shard is not taken for the right one.

    The digests are those of `Digests`; empty for a run whose files have no labels.
    """

    ingest: str = ""
    members: Mapping[str, str] = field(default_factory=dict)

    def shard(self, number: int) -> str:
        """Returns the label of a shard of conversations."""
        return f"{self.ingest} shard {number}" if self.ingest else ""

    def score(self, member: str, number: int) -> str:
        """Returns the label of a member's scores of a shard."""
        return f"{self.ingest} {self.members[member]} scores {number}" if self.ingest else ""


UNBOUND = Binding()


class _Model(BaseModel):
    """Refuses values of other types, and keeps keys of other versions."""

    model_config = ConfigDict(extra="allow", strict=True)


class InputFile(_Model):
    """A file of the input, as it was when the run began."""

    path: str
    bytes: int = Field(ge=0)
    digest: str


class IngestFingerprint(_Model):
    """What the shards depend on."""

    input: list[InputFile]
    limit: int | None
    cells: str
    shard_rows: int = Field(gt=0)
    reading: dict[str, Any] = {}
    """How records became rows, as by `lmsys_ray.data.schemas.reading.Reading.as_dict`."""
    names: list[str] = []
    """Where ids are FILE:ROW: the name of each file in them."""
    partitions: list[dict[str, str | None]] = []
    """Where folders of files are named after values of columns: those values, file by file."""


class Digests(_Model):
    """The digests in labels, kept from the beginning of the run, so that later versions continue with them."""

    ingest: str
    members: dict[str, str]


class Manifest(_Model):
    """What a run was made from, and what its starts did."""

    format: int = FORMAT
    lmsys_ray: str = ""
    """The version of the last start."""
    ingest: IngestFingerprint
    members: dict[str, dict[str, Any]]
    """The settings on which each member's scores depend, with digests of its model."""
    digests: Digests | None = None
    """None in a run that an earlier version began, whose files have no labels."""
    ingested: Ingested | None = None
    models: dict[str, dict[str, Any]] = {}
    """Facts about each member's model as it was loaded."""
    links: dict[str, dict[str, Any]] = {}
    """Of members that score each response by itself: how scores became probabilities in the last submission."""
    last_start: dict[str, Any] | None = None
    """The results of the last start that succeeded, as in `starts`, with padding."""
    starts: list[dict[str, Any]] = []
    """A record of each start, see `lmsys_ray.run_directory.history`."""

    @property
    def binding(self) -> Binding:
        """The labels of the run's files."""
        return Binding(self.digests.ingest, self.digests.members) if self.digests else Binding()

    def fingerprint(self) -> dict[str, Any]:
        """Returns the fingerprint (`lmsys_ray.scoring.fingerprint`) of the run."""
        return self.model_dump(include={"ingest", "members"}, exclude_unset=True)

    def to_bytes(self) -> bytes:
        """Returns the manifest as the bytes of its file, in the present format and with a checksum."""
        values = self.model_dump(mode="json", exclude_none=True) | {"format": FORMAT}
        values["ingest"] = self.ingest.model_dump(mode="json")  # where a null limit means that there is none
        values.pop("checksum", None)
        return (json.dumps({**values, "checksum": _checksum(values)}, indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Returns the manifest in the bytes of a file.

        Raises `ManifestError` where it is not as it was written, `LaterFormatError` for another format.
        """
        try:
            values = json.loads(data)
        except ValueError as error:
            raise ManifestError(str(error) if data else "it is empty") from None
        except RecursionError:
            raise ManifestError("it is nested too deeply") from None
        if not isinstance(values, dict) or type(values.get("format")) is not int:
            raise ManifestError("it names no format")
        if values["format"] not in _READABLE:
            raise LaterFormatError(f"its format is {values['format']}")
        if values["format"] == FORMAT and values.pop("checksum", None) != _checksum(values):
            raise ManifestError("its checksum does not match")
        try:
            return cls.model_validate_json(json.dumps(values))
        except ValidationError as error:
            fault = first_fault(error)
            raise ManifestError(f"{fault.key}: {fault.accepted}") from None


def _checksum(values: Mapping[str, Any]) -> str:
    """Returns a digest of the values, whatever the layout of the file."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
