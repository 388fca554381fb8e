"""Which columns a shard and a member's scores have; a sealed file of another form counts as damaged."""

from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa
import pyarrow.types as types

from lmsys_ray import CLASSES
from lmsys_ray.data.carried import CARRIED
from lmsys_ray.data.conversations import SHARD
from lmsys_ray.run_directory.score_checks import TWO_SCORES

Form = Callable[[pa.Schema], str | None]
"""Returns why a table with this schema is not of the form; None where it is."""

_SHARD: Mapping[str, Callable[[pa.DataType], bool]] = {field.name: field.type.equals for field in [*SHARD, *CARRIED]}
_SCORES: Mapping[str, Callable[[pa.DataType], bool]] = {
    "row": types.is_int64,
    "tokens": types.is_integer,
    "reason": types.is_string,
    **dict.fromkeys((*CLASSES, *TWO_SCORES), types.is_floating),
}


def shard_form(schema: pa.Schema) -> str | None:
    """The form of shards of conversations."""
    return _fault(schema, SHARD.names, _SHARD)


def score_form(schema: pa.Schema) -> str | None:
    """The form of scores: probabilities, or two scores."""
    return _fault(schema, ("row", *(TWO_SCORES if TWO_SCORES[0] in schema.names else CLASSES)), _SCORES)


def _fault(
    schema: pa.Schema, needed: Iterable[str], accepted: Mapping[str, Callable[[pa.DataType], bool]]
) -> str | None:
    for name in needed:
        if schema.names.count(name) != 1:
            return f"it has no column {name}, or several"
    for field in schema:
        if field.name in accepted and not accepted[field.name](field.type):
            return f"its column {field.name} is of type {field.type}"
    return None
