"""A LoRA adapter of PEFT: read, checked, and put on a base model."""

from collections.abc import Sequence
from itertools import chain
from typing import cast

import torch
from peft import LoraConfig, LoraModel, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from lmsys_ray.checkpoints import checks
from lmsys_ray.checkpoints.adapter_config import VARIANTS, Task, lora_config
from lmsys_ray.checkpoints.adapter_files import (
    embedding_key,
    embedding_rows,
    read_config,
    read_weights,
    weights_directory,
)
from lmsys_ray.checkpoints.as_trained import check_as_trained
from lmsys_ray.checkpoints.patterns import check_patterns
from lmsys_ray.checkpoints.settings import ModelSettings
from lmsys_ray.checkpoints.sources import read_scoring
from lmsys_ray.errors import UsageError, first_line

Weights = dict[str, torch.Tensor]

_UNUSED_RANK = 256
"""The largest rank that no module needs to have; rank_pattern may give each module another one."""


def with_adapter(
    model: PreTrainedModel, settings: ModelSettings, name: str, task: Task, head_found: bool, merge: bool
) -> PreTrainedModel:
    """Applies the LoRA adapter `name` to `model` and merges it where `merge`, which takes unquantized weights.

    `task` is what it must have been trained for.
    Token embeddings in the adapter replace those of the model, which is resized. Raises `UsageError` for every adapter
    that would not compute what it did in training.
    """
    directory = weights_directory(name, settings.trust_pickle)
    noted = read_scoring(settings.model, name)
    check_as_trained(noted, settings)
    config = lora_config(read_config(directory, name), name, task)
    weights = read_weights(directory, name)
    _check_ranks(config, weights, name)
    check_patterns(config, model, name)
    if not merge:
        _check_beside_quantized(config, model, name)
    _resize_embedding(model, config, weights, name)
    wrapped = _wrapped(model, config, name, merge)
    own = _own_weights(wrapped, weights)
    head_only = noted.get(checks.HEAD_ONLY) is True
    heads = checks.head_keys(model) if task == "SEQ_CLS" else ()
    checks.check_adapter(weights, own, name, head_found, head_only, heads)
    layers = [layer for layer in wrapped.modules() if isinstance(layer, LoraLayer)]
    if not head_only:
        _check_scaled(layers, name)
    set_peft_model_state_dict(wrapped, {**own, **weights})
    tuner = cast(LoraModel, wrapped.base_model)
    if not merge:
        return cast(PreTrainedModel, tuner.model)
    _add_biases(layers)
    return cast(PreTrainedModel, tuner.merge_and_unload())


def adapter_rows(name: str, trust_pickle: bool = False) -> int | None:
    """Returns how many token embeddings the adapter `name` has to replace those of the model, or None.

    Raises `UsageError` where the adapter is not found or cannot be read.
    """
    return embedding_rows(weights_directory(name, trust_pickle), name)


def _check_ranks(config: LoraConfig, weights: Weights, name: str) -> None:
    """Checks that the ranks are those of the config, before memory is allocated for them."""
    said = {config.r, *(config.rank_pattern or {}).values()}
    found = {len(weight) for key, weight in weights.items() if ".lora_A." in key and weight.ndim == 2}
    if not config.target_parameters and not found <= said:  # else experts lie side by side in one matrix
        raise UsageError(
            f"adapter: the weights of {name} have the rank {min(found - said)} where adapter_config.json says "
            f"{' or '.join(map(str, sorted(said)))}; restore the file that was saved with them"
        )
    largest = max((max(weight.shape, default=0) for key, weight in weights.items() if ".lora_" in key), default=0)
    if max(said) > max(_UNUSED_RANK, largest):
        raise UsageError(
            f"adapter: {name} has the rank {max(said)} in its adapter_config.json, which none of its weights has; "
            "restore the file that was saved with them"
        )


def _check_beside_quantized(config: LoraConfig, model: PreTrainedModel, name: str) -> None:
    """Checks that PEFT can compute the adapter beside the weights of `model`, which a library quantized."""
    keys = [key for key in VARIANTS if getattr(config, key) is not None]
    if config.init_lora_weights == "pissa":
        keys.append("init_lora_weights = pissa")
    # PEFT 0.21 loses the scales of int8 weights on a CPU after the first use.
    if config.use_dora and getattr(model, "is_loaded_in_8bit", False) and model.device.type == "cpu":
        keys.append("use_dora")
    for key, module in model.named_modules():
        trained = key.endswith(tuple(config.modules_to_save or ()))
        if trained and not all(parameter.is_floating_point() for parameter in module.parameters()):
            keys.append(f"modules_to_save = {key}")
    if keys:
        raise UsageError(
            f"adapter: {keys[0]} of {name} does not go with weights quantized by a library on this device; "
            "set quantization to none and name a model that is not stored quantized"
        )


def _resize_embedding(model: PreTrainedModel, config: LoraConfig, weights: Weights, name: str) -> None:
    embedding = cast(nn.Embedding, model.get_input_embeddings())
    key = embedding_key(weights)
    if key is not None and weights[key].ndim == 2 and len(weights[key]) != embedding.num_embeddings:
        model.resize_token_embeddings(len(weights[key]), mean_resizing=False)
        embedding = cast(nn.Embedding, model.get_input_embeddings())
    tokens = config.trainable_token_indices or []
    for index in chain(*tokens.values()) if isinstance(tokens, dict) else tokens:
        if index >= embedding.num_embeddings:
            raise UsageError(
                f"adapter: trainable_token_indices of {name} has {index} where the model embeds "
                f"{embedding.num_embeddings} tokens; name the model that it was trained on"
            )


def _wrapped(model: PreTrainedModel, config: LoraConfig, name: str, merge: bool) -> PeftModel:
    try:
        # Merged in float32; beside a quantized base the adapter computes in the base's own type.
        return get_peft_model(model, config, autocast_adapter_dtype=merge)
    except (ValueError, TypeError, ImportError) as error:
        reason = first_line(error, 200)
        raise UsageError(
            f"adapter: {name} does not fit the model, it was made for another ({reason}); "
            "name the model that it was trained on"
        ) from None


def _own_weights(wrapped: PeftModel, weights: Weights) -> Weights:
    """Returns the weights of the wrapped model by their names in a saved adapter, with the embedding if it has one."""
    own = dict(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    key, state = embedding_key(weights), wrapped.state_dict()
    if key is not None and key in state:
        own[key] = state[key]
    return own


def _check_scaled(layers: Sequence[LoraLayer], name: str) -> None:
    if layers and not any(scaling for layer in layers for scaling in layer.scaling.values()):
        raise UsageError(
            f"adapter: lora_alpha of {name} is 0, so it changes nothing; restore the adapter_config.json saved with it"
        )


def _add_biases(layers: Sequence[LoraLayer]) -> None:
    """Gives base layers without a bias one of zeros, to which that of the adapter (lora_bias) is added."""
    for layer in layers:
        base = layer.get_base_layer()
        if any(layer.lora_bias.values()) and base.bias is None:
            base.bias = nn.Parameter(base.weight.new_zeros(layer.out_features), requires_grad=False)
