"""The manifest of a run: what it was made from and what its starts did; a typed model with a checksum."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmsys_ray.run_directory.formats import FORMAT, check_format, upgraded
from lmsys_ray.run_directory.shard_sizes import Cut, ShardSizes
from lmsys_ray.validation import first_fault

_WITHOUT_CHECKSUM = 2
"""The format whose manifests have none."""


class ManifestError(ValueError):
    """A manifest that is not as it was written; the text says how."""


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
    extensions: tuple[tuple[int, str], ...] = ()
    """Of a run that was extended: the first shard of each extension, ascending, and the digest from there on."""

    def shard(self, number: int) -> str:
        """Returns the label of a shard of conversations."""
        return f"{self._ingest(number)} shard {number}" if self.ingest else ""

    def score(self, member: str, number: int) -> str:
        """Returns the label of a member's scores of a shard."""
        return f"{self._ingest(number)} {self.members[member]} scores {number}" if self.ingest else ""

    def _ingest(self, number: int) -> str:
        return next((digest for first, digest in reversed(self.extensions) if first <= number), self.ingest)


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
    largest_cell: int = Field(64 << 20, gt=0)
    reading: dict[str, Any] = {}
    """How records became rows, as by `lmsys_ray.data.schemas.reading.Reading.as_dict`."""
    names: list[str] = []
    """Where ids are FILE:ROW: the name of each file in them."""
    partitions: list[dict[str, str | None]] = []
    """Where folders of files are named after values of columns: those values, file by file."""


class Span(_Model):
    """The shards of a run that were ingested from one input, up to one limit; an extension begins another span."""

    shards: int = Field(ge=0)
    """The shards before it."""
    lines: int = Field(ge=0)
    """The rows in them."""
    shard_rows: int = Field(gt=0)
    limit: int | None = None
    files: int = Field(gt=0)
    """How many files the input had."""
    last_file: InputFile
    """The last of them as it was, since it may have grown."""
    digest: str
    """In the labels of its shards and of their scores; empty in a run whose files have none."""


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
    spans: list[Span] = []
    """Of a run that was extended: what it held at its beginning and after each extension; else empty."""
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
        extensions = tuple((span.shards, span.digest) for span in self.spans[1:])
        return Binding(self.digests.ingest, self.digests.members, extensions) if self.digests else Binding()

    @property
    def shard_sizes(self) -> ShardSizes:
        """How many rows the shards have."""
        cuts = tuple(Cut(span.shards, span.lines, span.shard_rows) for span in self.spans)
        return ShardSizes(cuts) if cuts else ShardSizes.even(self.ingest.shard_rows)

    def fingerprint(self) -> dict[str, Any]:
        """Returns the fingerprint (`lmsys_ray.scoring.fingerprint`) of the run."""
        return self.model_dump(include={"ingest", "members"}, exclude_unset=True)

    def to_bytes(self) -> bytes:
        """Returns the manifest as the bytes of its file, in the present format and with a checksum."""
        values = self.model_dump(mode="json", exclude_none=True) | {"format": FORMAT}
        values["ingest"] = self.ingest.model_dump(mode="json")  # where a null limit means that there is none
        if not self.spans:
            del values["spans"]
        return _checked(values)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Returns the manifest in the bytes of a file, as one of the present format.

        Raises `ManifestError` where it is not as it was written, and `FormatError` as `check_format` does.
        """
        try:
            values = json.loads(data)
        except ValueError as error:
            raise ManifestError(str(error) if data else "it is empty") from None
        except RecursionError:
            raise ManifestError("it is nested too deeply") from None
        if not isinstance(values, dict) or type(values.get("format")) is not int:
            raise ManifestError("it names no format")
        check_format(values)
        found = values.pop("checksum", None)
        if found != (_checksum(values) if values["format"] > _WITHOUT_CHECKSUM else None):
            raise ManifestError("its checksum does not match")
        try:
            return cls.model_validate_json(json.dumps(upgraded(values)))
        except ValidationError as error:
            fault = first_fault(error)
            raise ManifestError(f"{fault.key}: {fault.accepted}") from None


def spans_to_bytes(spans: Sequence[Span]) -> bytes:
    """Returns spans as the bytes of a file of their own, with a checksum."""
    return _checked({"spans": [span.model_dump(mode="json") for span in spans]})


def spans_from_bytes(data: bytes) -> list[Span]:
    """Returns the spans in the bytes of a file; none where it is damaged."""
    try:
        values = json.loads(data)
        whole = values.pop("checksum") == _checksum(values)
        spans = [Span.model_validate(span) for span in values["spans"]] if whole else []
        return spans if len(spans) > 1 else []
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return []


def _checked(values: Mapping[str, Any]) -> bytes:
    kept = {key: value for key, value in values.items() if key != "checksum"}
    return (json.dumps({**kept, "checksum": _checksum(kept)}, indent=2) + "\n").encode()


def _checksum(values: Mapping[str, Any]) -> str:
    """Returns a digest of the values, whatever the layout of the file."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
