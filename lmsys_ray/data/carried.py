"""What travels with a row beside its conversation, so that its label and its models need no second file."""

import pyarrow as pa

CARRIED = pa.schema(
    [
        pa.field("label", pa.int8()),
        pa.field("model_a", pa.string()),
        pa.field("model_b", pa.string()),
        pa.field("language", pa.string()),
        pa.field("source", pa.string()),
        pa.field("tags", pa.list_(pa.string())),
    ]
)
"""Columns that a shard has after those of `SHARD`, as far as the input has them.

They are which class people chose, as its place in `lmsys_ray.CLASSES`; the models that responded; the conversation's
language; the collection that it is from; any tags. Each is null where a row has none.
"""
