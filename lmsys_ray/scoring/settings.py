"""The settings of a run: one validated model, mirrored by the YAML files and by `--set key=value`."""

from __future__ import annotations

import warnings
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PlainValidator, SerializeAsAny, ValidationInfo, field_validator, model_validator

from lmsys_ray.config.base import PathName, PositiveInt, Probability, StrictModel
from lmsys_ray.config.messages import key_refused
from lmsys_ray.data.schemas.registry import SCHEMAS, SchemaName
from lmsys_ray.data.schemas.schema import PairsOfRanked
from lmsys_ray.ensemble.blend import normalise
from lmsys_ray.ensemble.blend_methods import Blend, Method
from lmsys_ray.ensemble.exports.settings import OutputSettings, ReportSettings
from lmsys_ray.ensemble.stacking import Stacking
from lmsys_ray.members.protocol import MemberSettings
from lmsys_ray.members.registry import class_named, validated

warnings.filterwarnings("ignore", 'Field name "schema" in "Settings" shadows')  # a method that pydantic has given up

Member = Annotated[SerializeAsAny[MemberSettings], PlainValidator(validated)]
"""The settings of a member, an instance of the settings class of its kind."""

MemberName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]

Coefficient = Annotated[float, Field(ge=-(10**6), le=10**6)]


class StackedMember(StrictModel):
    """The coefficients of one member of a stacked blend."""

    preference: Coefficient
    tie: Coefficient


class StackingSettings(StrictModel):
    """The coefficients of a stacked blend, as `lmsys_ray.ensemble.stacking.Stacking` uses them."""

    tie: Coefficient = Field(0.0, description="added to the logit of a tie")
    members: dict[MemberName, StackedMember] = Field(
        min_length=1,
        description="for each member of weight above 0: preference, the coefficient of log(P(a) / P(b)), and tie, that "
        "of log(P(tie) / sqrt(P(a) P(b)))",
    )

    @classmethod
    def class_of_item(cls, field: str, value: Any) -> type[BaseModel] | None:
        """Returns the class of a member's coefficients."""
        return StackedMember if field == "members" else None

    def coefficients(self) -> Stacking:
        """Returns the coefficients as a blend uses them."""
        return Stacking(self.tie, {name: (member.preference, member.tie) for name, member in self.members.items()})


class Settings(StrictModel):
    """One run of the scorer."""

    input: list[PathName] = Field(
        min_length=1,
        description="path, URL, glob or folder, or a list of them: .csv .jsonl .json (.gz and .zst too) .parquet; "
        "the default preset names the packaged sample",
    )
    output: PathName = Field(description="the run directory; where none is named, runs/ and the first input's name")
    output_root: PathName | None = Field(
        None,
        description="where a relative output lies; none: LMSYS_RAY_OUTPUT_ROOT, else the working directory, "
        "for a submitted job ~/lmsys_ray",
    )
    shard_rows: PositiveInt | Literal["auto"] = Field(
        "auto",
        description="rows of a shard, the unit of work and of resume; auto: about 128 shards of 64 to 1,024 rows, "
        "by the size of the input",
    )
    limit: PositiveInt | None = Field(None, description="read only this many rows; none: all; may be raised")
    cells: Literal["auto", "json", "text"] = Field(
        "auto", description="whether cells are JSON lists of turns or plain text; auto: decided for each cell"
    )
    schema: Literal["auto"] | SchemaName = Field(  # type: ignore[assignment]
        "auto", description="the shape of the records; auto: recognised from the columns and the first records"
    )
    columns: dict[str, str] = Field({}, description="by a schema's column: the column of the files that stands for it")
    id: Literal["auto", "column", "row", "hash"] = Field(
        "auto",
        description="of a row: column: what the file says; row: FILE:ROW; hash: a digest of its texts; "
        "auto: column where there is one, else row",
    )
    pairs: PairsOfRanked = Field(
        "all",
        description="of ranked responses: every two, those of adjacent ranks, or the best and the worst",
    )
    on_bad_row: Literal["reject", "fail"] = Field(
        "reject", description="reject: name a row that cannot be read or scored and continue; fail: stop at the first"
    )
    max_error_rate: Probability = Field(
        0.01,
        description="share of rejects above which a run stops; ten or fewer never stop it, unless they are all rows",
    )
    max_deaths: PositiveInt = Field(
        3, description="processes that may die at one shard, then at one row, before it is taken for the cause"
    )
    shard_seconds: float = Field(
        7200,
        gt=0,
        description="seconds that a worker may take for one shard; one that takes longer hangs, and is started again",
    )
    prior: tuple[Probability, Probability, Probability] = Field(
        (0.349, 0.342, 0.309),
        description="P(a), P(b), P(tie) of a row that cannot be scored; default: shares in the LMSYS training data",
    )
    temperature: float = Field(1.0, gt=0, description="of the blend; above 1 makes it less sure, below 1 surer")
    blend: Method = Field(
        "linear",
        description="linear: weighted mean of the members' probabilities; geometric: that of their logarithms; "
        "stacked: logistic regression on their logarithms, by the coefficients in stacking",
    )
    prior_weight: float = Field(
        0.0, ge=0, lt=1, description="share of the prior in each scored row, after blend and temperature"
    )
    allow_unauthenticated: bool = Field(
        False,
        description="run on a cluster of several machines without authentication: it obeys whoever reaches its ports",
    )
    largest_cell: int = Field(
        64 << 20,
        ge=1 << 10,
        le=1 << 30,
        description="bytes that a cell may have (64 MiB); a row with a larger one is a reject, its text read past",
    )
    members: dict[MemberName, Member] = Field(
        min_length=1,
        description="any number under any names, each a mapping with its kind; weights are normalised to sum to 1",
    )
    stacking: StackingSettings | None = Field(
        None, validate_default=True, description="the coefficients of a stacked blend, which calibrate.py writes"
    )
    outputs: OutputSettings = Field(OutputSettings(), description="what a run writes")
    report: ReportSettings = Field(ReportSettings(), description="the page about the run")

    def blending(self) -> Blend:
        """Returns the blend of the members whose weight is not 0, their weights normalised to sum to 1."""
        return Blend(
            normalise({name: member.weight for name, member in self.members.items() if member.weight > 0}),
            self.temperature,
            self.blend,
            self.stacking.coefficients() if self.stacking and self.blend == "stacked" else None,
            self.prior_weight,
            self.prior,
        )

    @classmethod
    def class_of_item(cls, field: str, value: Any) -> type[BaseModel] | None:
        """Returns the settings class of a member's kind, where `value` names one."""
        return class_named(value.get("kind")) if field == "members" and isinstance(value, dict) else None

    @field_validator("input", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: dict[str, str]) -> dict[str, str]:
        known = {name for schema in SCHEMAS.values() for name in schema.reads()}
        if unknown := [name for name in value if name not in known]:
            raise ValueError(
                f"columns of a schema ({', '.join(sorted(known))}), of which {unknown[0]} is none, each with the name "
                "that stands for it in the files"
            )
        return value

    @field_validator("prior")
    @classmethod
    def _prior_sums_to_one(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(value) - 1) > 1e-6:
            raise ValueError("three probabilities that sum to 1")
        return value

    @field_validator("stacking")
    @classmethod
    def _stacking_has_the_members(cls, value: StackingSettings | None, info: ValidationInfo) -> StackingSettings | None:
        members = info.data.get("members", {})
        needed = {name for name, member in members.items() if member.weight > 0}
        if info.data.get("blend") == "stacked" and (value is None or (members and value.members.keys() != needed)):
            listed = ", ".join(sorted(needed))
            raise ValueError(
                f"for blend = stacked, coefficients of the members of weight above 0 ({listed}), "
                "which calibrate.py fits"
            )
        return value

    @model_validator(mode="after")
    def _some_weight(self) -> Settings:
        if not any(member.weight > 0 for member in self.members.values()):
            names = ", ".join(f"members.{name}.weight" for name in self.members)
            raise key_refused(names, 0, "a weight above 0 for at least one member")
        return self
