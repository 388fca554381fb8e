"""What adapter_config.json may say: keys that are computed as PEFT does, keys that matter to training only, no others.

PEFT drops keys that it does not know, and loads adapters that cannot be loaded twice alike; both give numbers that look
like probabilities.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from peft import LoraConfig, TaskType
from peft.tuners.lora.config import BdLoraConfig, KasaConfig, MontecloraConfig, VeloraConfig
from pydantic import AfterValidator, BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama.quiet import first_line

FILE = "adapter_config.json"

VARIANTS = {
    "kasa_config": KasaConfig,
    "monteclora_config": MontecloraConfig,
    "use_bdlora": BdLoraConfig,
    "velora_config": VeloraConfig,
}
"""Kinds of LoRA that PEFT computes beside plain weights alone; over bitsandbytes' it ignores or refuses them."""

WITHOUT_EFFECT = {
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "runtime_config"),
    *("lora_dropout", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    *("megatron_core", "qalora_group_size"),
}
"""Keys of hints, of training, and of methods that other keys would have to turn on."""

REFUSED = {
    "alora_invocation_tokens": "PEFT has activated LoRA for language models only",
    "arrow_config": "it routes between adapters that are not here",
    "layer_replication": "blocks that share their weights take no adapters of their own",
    "megatron_config": "it needs Megatron's layers",
    "use_qalora": "it needs a base quantized by GPTQ",
}
"""Keys that must be off, and why."""

_INITIAL_ONLY = {"gaussian", "orthogonal", "eva", "mica"}
"""Ways to start that leave the base model as it is: what was saved says all."""

_REPEATABLE = {"pissa", "olora"}
"""Ways to start that take a part of the base model out, the same part at each load."""

_OTHER_BASE = re.compile(r"pissa_niter_\d+|corda|loftq|lora_ga")


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]


class AdapterConfig(BaseModel):
    """The keys of PEFT's `LoraConfig` that have an effect here, with the types that they must have."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    task_type: Literal["SEQ_CLS"]
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


def lora_config(content: Mapping[str, Any], name: str) -> LoraConfig:
    """Returns what adapter_config.json of the adapter `name` says, without what has an effect in training only.

    Unknown keys, as a later PEFT writes them, pass if they are null, false or empty.
    Raises `UsageError` for every key that would make the adapter another one than was trained.
    """
    _check_kind(content, name)
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
    kept |= {"init_lora_weights": _start(checked.init_lora_weights, name), "inference_mode": True}
    try:
        return LoraConfig(**kept)
    except (ValueError, TypeError) as error:
        raise UsageError(f"adapter: {FILE} of {name} is wrong ({first_line(error)[:200]}); restore the file") from None


def _check_kind(content: Mapping[str, Any], name: str) -> None:
    if content.get("peft_type") != "LORA":
        raise UsageError(f"adapter: {_said(content, 'peft_type')} of {name}; only LoRA is supported: train it as LoRA")
    if content.get("task_type") != TaskType.SEQ_CLS.value:
        raise UsageError(
            f"adapter: {_said(content, 'task_type')} of {name}, not for classification (SEQ_CLS); "
            "train it with a head of three labels"
        )


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
    """Returns how PEFT is to start the weights that are then loaded; what leaves the base as it is becomes True."""
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
    raise UsageError(f"adapter: init_lora_weights = {value!r} of {name} is unknown; train it with another start")


def _off(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _said(content: Mapping[str, Any], key: str) -> str:
    shown = repr(content[key]) if key in content else "nothing"
    named = key if key.isidentifier() else repr(key)[:80]
    return f"{named} = {shown if len(shown) <= 80 else shown[:77] + '...'}"
