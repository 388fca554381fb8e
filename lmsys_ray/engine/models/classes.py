"""The class by which transformers computes a sequence classifier of an architecture."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_layers import GenericForSequenceClassification


def classifier_class(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """Returns the sequence classifier for a config; None where transformers has neither one nor a language model.

    For language models without a classifier of their own, such as Cohere and Granite, it is made of the classifier that
    most decoders share.
    """
    kind = type(config)
    if kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return cast(type[PreTrainedModel], MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[kind])
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING:
        return _made(MODEL_FOR_CAUSAL_LM_MAPPING[kind])
    return None


def has_own_classifier(config: PreTrainedConfig) -> bool:
    """Returns whether transformers has a sequence classifier for a config."""
    return type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING


def without_weights(config: PreTrainedConfig) -> PreTrainedModel:
    """Returns the classifier of a config that has a class, on the meta device."""
    made = cast(type[PreTrainedModel], classifier_class(config))
    with torch.device("meta"):
        return made(config)


@cache
def _made(causal: Any) -> type[PreTrainedModel]:
    base = next(parent for parent in causal.__mro__ if PreTrainedModel in parent.__bases__)
    name = causal.__name__.partition("For")[0] + "ForSequenceClassification"
    values = {"base_model_prefix": causal.base_model_prefix, "config_class": causal.config_class}
    return type(name, (GenericForSequenceClassification, base), values)
