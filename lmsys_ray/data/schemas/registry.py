"""The schemas that are known, by name."""

from __future__ import annotations

from typing import Literal, get_args

from lmsys_ray.data.schemas.chosen_rejected import HH_RLHF, LLAMA_FACTORY, REWARDBENCH, TRL, ULTRAFEEDBACK
from lmsys_ray.data.schemas.conversations import ARENA, MT_BENCH
from lmsys_ray.data.schemas.responses import ALPACA_EVAL, CONTEST, HELPSTEER, RANKED, SAFE_RLHF, WSDM
from lmsys_ray.data.schemas.schema import Schema

SchemaName = Literal[
    "contest",
    "wsdm",
    "arena",
    "mt_bench",
    "hh_rlhf",
    "trl",
    "ultrafeedback",
    "helpsteer",
    "rewardbench",
    "safe_rlhf",
    "alpaca_eval",
    "ranked",
    "llama_factory",
]

SCHEMAS: dict[str, Schema] = {
    schema.name: schema
    for schema in (
        *(CONTEST, WSDM, ARENA, MT_BENCH, HH_RLHF, TRL, ULTRAFEEDBACK, HELPSTEER, REWARDBENCH),
        *(SAFE_RLHF, ALPACA_EVAL, RANKED, LLAMA_FACTORY),
    )
}
"""In the order in which one is preferred to those after it, where a file fits several equally well."""

assert tuple(SCHEMAS) == get_args(SchemaName)
