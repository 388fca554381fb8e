"""The protocol of a kind of ensemble member; `docs/adding-a-member.md` shows how to write one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar, get_args, runtime_checkable

import numpy as np
import pyarrow as pa
from pydantic import Field

from lmsys_ray.cluster.pool import Pool
from lmsys_ray.cluster.resources import Resources
from lmsys_ray.config.base import StrictModel
from lmsys_ray.data.conversations import CellForm
from lmsys_ray.engine.usage import Usage
from lmsys_ray.ensemble.links import LinkName

CONVERSATIONS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("prompt", pa.large_string(), nullable=False),
        pa.field("response_a", pa.large_string(), nullable=False),
        pa.field("response_b", pa.large_string(), nullable=False),
    ]
)
"""The columns that a member receives: the row's number in the run, its id, and the three cells as in the input."""

KEPT = pa.schema([pa.field(f"kept_{cell}", pa.float32(), nullable=False) for cell in ("prompt", "a", "b")])
"""Columns that an encoder may add to its table: the share of the prompt's, A's and B's characters that the model reads,
0 to 1. They are kept beside the scores."""

Lane = Literal["device", "cpu"]
LANES: tuple[Lane, ...] = get_args(Lane)
"""Passes of one lane run one after another, the lanes side by side."""


class LinkSettings(NamedTuple):
    """How two scores of a row become probabilities (see `lmsys_ray.ensemble.links`); None is found from the scores."""

    name: LinkName
    scale: float | None
    tie: float | None


class MemberSettings(StrictModel):
    """The settings that every kind has; a kind adds its own in a subclass, whose `kind` is a literal."""

    MUTABLE: ClassVar[frozenset[str]] = frozenset({"weight"})
    """Settings that may change between two starts of a run, since they change scores by rounding at most."""
    ARTIFACTS: ClassVar[tuple[str, ...]] = ()
    """Settings that name files or models, whose content is part of a run's fingerprint."""

    kind: str
    weight: float = Field(1.0, ge=0, description="share of the blend; weights are normalised to sum to 1")
    swap: bool = Field(
        False,
        description="score each row as A/B and as B/A and average both: no position bias, at up to twice the cost",
    )

    def mutable(self) -> frozenset[str]:
        """Returns which of these settings may change between two starts of a run."""
        return self.MUTABLE | MemberSettings.MUTABLE

    def link_settings(self) -> LinkSettings | None:
        """Returns how two scores become probabilities; None for a kind that gives probabilities."""
        return None

    def named_artifacts(self) -> dict[str, str]:
        """Returns the files and models that the settings name, by setting."""
        named = {key: getattr(self, key) for key in self.ARTIFACTS}
        return {key: value for key, value in named.items() if value}


@dataclass(frozen=True)
class Scores:
    """A member's scores of some rows, in their order."""

    probabilities: np.ndarray | None
    """float32 [rows, 3], in the order of `lmsys_ray.CLASSES`; None for a kind that scores each response by
    itself: `raw` then holds `score_a` and `score_b`, float32, and its settings are `TwoScoreSettings`."""
    raw: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Raw outputs, [rows] each, by the name of their column in the file of scores."""
    tokens: np.ndarray | None = None
    """int64 [rows]: the tokens of each row without padding; None for a kind without tokens."""
    usage: Usage = field(default_factory=Usage)
    """The tokens and slots that the device computed."""
    failed: Mapping[int, str] = field(default_factory=dict)
    """By place: why a row could not be scored, where the scorer knows that of each row; its values do not count."""


class Encoder(Protocol):
    """The part of a member that runs on CPU workers, ahead of the scorer."""

    def encode(self, conversations: pa.Table) -> pa.Table:
        """Returns the table for `Scorer.score` of a table with the columns of `CONVERSATIONS`.

        It has the same rows in the same order, with the column `row`.
        """
        ...


class Scorer(Protocol):
    """The part of a member that holds the model."""

    @property
    def notes(self) -> list[str]:
        """Sentences about the model as it was loaded that the user should read once."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest records of the model as it was loaded; values that JSON can hold."""
        ...

    def score(self, encoded: pa.Table) -> Scores:
        """Scores the rows of a table from the encoder, or of conversations if the kind has no encoder.

        Raises `UnscorableError` for rows that it cannot score, and is then called again with fewer of them, or names
        them in `Scores.failed`.
        """
        ...


S = TypeVar("S", bound=MemberSettings)


class MemberKind(Protocol, Generic[S]):
    """A kind of ensemble member; it imports its libraries within its methods, since every process looks it up."""

    @property
    def settings(self) -> type[S]:
        """The class of its settings."""
        ...

    @property
    def lane(self) -> Lane:
        """The lane of its passes: those of one lane run one after another, the two lanes side by side."""
        ...

    def preflight(self, settings: S, key: str) -> S:
        """Returns the settings, with models of the hub pinned to their present commit.

        `key` is the member's place in the settings, such as `members.NAME`, for error sentences. Raises `UsageError`
        for whatever can be known to fail before a run starts anything.
        """
        ...

    def placement(self, settings: S, shards: int, cluster: Resources) -> Pool:
        """Returns the actors of a pass over `shards` shards, of which there is at least one.

        Raises `RunError` where the cluster can't hold them.
        """
        ...

    def encoder(self, settings: S, cells: CellForm) -> Encoder | None:
        """Returns the encoder; None if the scorer takes conversations as they are."""
        ...

    def scorer(self, settings: S, cells: CellForm) -> Scorer:
        """Loads the model; `cells` says what cells hold, for a kind without an encoder."""
        ...


@runtime_checkable
class ChecksIds(Protocol):
    """A kind whose members find rows by their ids, and that can tell early that they do not."""

    def check_ids(self, settings: Any, key: str, ids: pa.Array) -> None:
        """Raises `UsageError` where the member has nothing for most of `ids`, the first of the input, as text.

        `settings` are those that `preflight` returned, and `key` is as there.
        """
        ...
