"""Which keys adapter_config.json may have: those computed as PEFT does, and those that matter to training only.

PEFT drops keys that it does not know, and loads adapters that do not load the same way twice; both give numbers that
look like probabilities. Measurements: docs/lab/adapters.md.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from peft import LoraConfig
from peft.tuners.lora.config import BdLoraConfig, KasaConfig, MontecloraConfig, VeloraConfig
from pydantic import AfterValidator, BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from lmsys_ray.errors import UsageError, first_line

FILE = "adapter_config.json"

VARIANTS = {
    "kasa_config": KasaConfig,
    "monteclora_config": MontecloraConfig,
    "use_bdlora": BdLoraConfig,
    "velora_config": VeloraConfig,
}
"""Kinds of LoRA that PEFT computes over plain weights only; over those of bitsandbytes it ignores or refuses them."""

WITHOUT_EFFECT = {
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "runtime_config"),
    *("lora_dropout", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    *("megatron_core", "qalora_group_size"),
}
"""Keys that are hints, that matter in training only, or that belong to methods which other keys would turn on."""

REFUSED = {
    "alora_invocation_tokens": "PEFT has activated LoRA for language models only",
    "arrow_config": "it routes between adapters that are not here",
    "layer_replication": "blocks that share their weights take no adapters of their own",
    "megatron_config": "it needs Megatron's layers",
    "use_qalora": "it needs a base quantized by GPTQ",
}
"""Keys that must be off, and why."""

_INITIAL_ONLY = {"gaussian", "orthogonal", "eva", "mica"}
"""Initializations that leave the base model unchanged, so that the saved weights are complete."""

_REPEATABLE = {"pissa", "olora"}
"""Initializations that subtract a part of the base model, the same part at each load."""

_OTHER_BASE = re.compile(r"pissa_niter_\d+|corda|loftq|lora_ga")


_LONGEST_PATTERN = 10_000


def _pattern(text: str) -> str:
    if len(text) > _LONGEST_PATTERN:
        raise ValueError(f"a regular expression of {len(text)} characters")
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]


Task = Literal["SEQ_CLS", "CAUSAL_LM"]
"""What an adapter was trained for, as PEFT calls it: classification, or a language model's next token."""

_PURPOSES: dict[Task, tuple[str, str]] = {
    "SEQ_CLS": ("classification", "train it with a head of three labels"),
    "CAUSAL_LM": ("a language model", "name an adapter of a language model, or the kind classifier"),
}
_LANGUAGE_HEADS = ("lm_head", "embed_out", "output_layer")


class AdapterConfig(BaseModel):
    """The keys of PEFT's `LoraConfig` that have an effect here, with their types."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    task_type: Task
    r: PositiveInt = 8
    lora_alpha: float = 8
    target_modules: list[str] | Pattern | None = None
    exclude_modules: list[str] | Pattern | None = None
    target_parameters: list[str] | None = None
    modules_to_save: list[str] | None = None
    layers_to_transform: list[NonNegativeInt] | NonNegativeInt | None = None
    layers_pattern: list[Pattern] | Pattern | None = None
    rank_pattern: dict[Pattern, PositiveInt] | None = None
    alpha_pattern: dict[Pattern, float] | None = None
    trainable_token_indices: list[NonNegativeInt] | dict[str, list[NonNegativeInt]] | None = None
    init_lora_weights: bool | str = True
    bias: Literal["none", "all", "lora_only"] = "none"
    fan_in_fan_out: bool = False
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    ensure_weight_tying: bool = False
    kasa_config: dict[str, Any] | None = None
    monteclora_config: dict[str, Any] | None = None
    use_bdlora: dict[str, Any] | None = None
    velora_config: dict[str, Any] | None = None


def lora_config(content: Mapping[str, Any], name: str, task: Task = "SEQ_CLS") -> LoraConfig:
    """Returns the config of the adapter `name`, trained for `task`, without what matters in training only.

    Unknown keys, as later releases of PEFT write them, are accepted if they are null, false or empty. Raises
    `UsageError` for every key that would make it another adapter than the one that was trained.
    """
    _check_kind(content, name, task)
    for key, reason in REFUSED.items():
        if not _off(content.get(key)):
            raise UsageError(f"adapter: {_said(content, key)} of {name} is not supported ({reason}); train without it")
    _check_known(content, name)
    try:
        checked = AdapterConfig.model_validate(dict(content))
    except ValidationError as error:
        fault = error.errors()[0]
        said = _said(content, str(fault["loc"][0]))
        raise UsageError(f"adapter: {said} in {FILE} of {name} is wrong ({fault['msg']}); restore the file") from None
    kept = {key: value for key, value in checked.model_dump(exclude=WITHOUT_EFFECT).items() if value is not None}
    if task == "CAUSAL_LM":
        del kept["task_type"]  # by which PEFT would generate text
    kept |= {"init_lora_weights": _start(checked.init_lora_weights, name), "inference_mode": True}
    try:
        return LoraConfig(**kept)
    except (ValueError, TypeError) as error:
        raise UsageError(f"adapter: {FILE} of {name} is wrong ({first_line(error, 200)}); restore the file") from None


def _check_kind(content: Mapping[str, Any], name: str, task: Task) -> None:
    if content.get("peft_type") != "LORA":
        raise UsageError(f"adapter: {_said(content, 'peft_type')} of {name}; only LoRA is supported: train it as LoRA")
    if content.get("task_type") != task:
        purpose, remedy = _PURPOSES[task]
        raise UsageError(f"adapter: {_said(content, 'task_type')} of {name}, not for {purpose} ({task}); {remedy}")
    if task == "CAUSAL_LM":
        named = [*(content.get("modules_to_save") or []), *_listed(content.get("target_modules"))]
        if head := next((module for module in named if module in _LANGUAGE_HEADS), None):
            raise UsageError(
                f"adapter: {name} trains {head}, the head of the language model; merge it into its model (PEFT's "
                "merge_and_unload) and name that"
            )


def _listed(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _check_known(content: Mapping[str, Any], name: str) -> None:
    parts = {"": (content, AdapterConfig.model_fields.keys() | WITHOUT_EFFECT | REFUSED.keys() | {"peft_type"})}
    for key, kind in VARIANTS.items():
        if isinstance(content.get(key), Mapping):
            parts[f"{key}."] = content[key], {field.name for field in dataclasses.fields(kind)}
    for prefix, (part, known) in parts.items():
        unknown = [key for key, value in part.items() if key not in known and not _off(value)]
        if unknown:
            raise UsageError(
                f"adapter: {prefix}{_said(part, unknown[0])} of {name} is a key that this version does not know, "
                "so its effect would be missing; train without it"
            )


def _start(value: bool | str, name: str) -> bool | str:
    """Returns how PEFT should initialize weights before they are loaded; True where the base does not change."""
    if isinstance(value, bool):
        return True
    way = value.lower()
    if way in _REPEATABLE:
        return way
    if way in _INITIAL_ONLY:
        return True
    if _OTHER_BASE.fullmatch(way):
        raise UsageError(
            f"adapter: init_lora_weights = {value!r} of {name} changed the base model in a way that no load repeats; "
            "merge it where it was trained (PEFT's merge_and_unload) and name the saved model without an adapter"
        )
    raise UsageError(f"adapter: init_lora_weights = {value!r} of {name} is unknown; train it with another one")


def _off(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _said(content: Mapping[str, Any], key: str) -> str:
    shown = repr(content[key]) if key in content else "nothing"
    named = key if key.isidentifier() else repr(key)[:80]
    return f"{named} = {shown if len(shown) <= 80 else shown[:77] + '...'}"
