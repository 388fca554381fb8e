"""What config.json must say for three logits to be those of a, b and tie; each check raises one sentence.

transformers would load a regression, a classifier of many labels or weights for custom code as if they were such a
model.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import transformers
from transformers import PreTrainedConfig

from lmsys_ray.checkpoints.heads import Head
from lmsys_ray.checkpoints.json_files import read_mapping
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.engine.models.classes import classifier_class
from lmsys_ray.errors import UsageError

ADAPTER_CONFIG = "adapter_config.json"

_SINGLE_LABEL = "single_label_classification"

_SIZES = {
    "num_hidden_layers": 2_000,
    **dict.fromkeys(
        ("num_attention_heads", "num_key_value_heads", "head_dim", "num_local_experts", "num_experts"), 1 << 16
    ),
    **dict.fromkeys(("hidden_size", "intermediate_size"), 1 << 24),
    "vocab_size": 1 << 28,
    "max_position_embeddings": 1 << 32,
}
"""Upper bounds on the sizes of a model: building blocks takes time, even without weights."""
_IMPLEMENTATIONS = {
    *("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"),
    *("attn_implementation_internal", "_attn_implementation_internal", "_experts_implementation_internal"),
}
_EPSILONS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps")


def read_json(directory: Path, model: str) -> dict[str, Any]:
    """Returns the content of config.json of the model `model`.

    Raises `UsageError` where there is none, where it is not a mapping, or where an adapter lies beside it.
    """
    _check_no_adapter(directory, model)
    file = directory / "config.json"
    if not file.is_file():
        raise UsageError(f"model: {model} holds no config.json, so it is not a model that transformers knows")
    return read_mapping(file, f"model: config.json of {model}", "fetch it again")


def _check_no_adapter(directory: Path, model: str) -> None:
    """Refuses an adapter beside the weights, which transformers would apply without any of our checks."""
    file = directory / ADAPTER_CONFIG
    if not file.is_file():
        return
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        base = content.get("base_model_name_or_path") if isinstance(content, dict) else None
    except (OSError, ValueError, RecursionError):
        base = None
    named = f", {base}" if isinstance(base, str) and base else ""
    if (directory / "config.json").is_file():
        remedy = f"move it to a directory of its own and set adapter to that, and model to its base{named}"
    else:
        remedy = f"set adapter: {model} and model to its base{named}"
    raise UsageError(f"model: {model} holds an adapter ({ADAPTER_CONFIG}), which is not applied from there; {remedy}")


def check_meaning(content: Mapping[str, Any], config: PreTrainedConfig, model: str, wanted: Wanted, head: Head) -> None:
    """Raises `UsageError` where config.json says that the weights were made for another computation.

    `content` is config.json as it stands, `config` what transformers reads from it.
    """
    problem = content.get("problem_type")
    if wanted.is_labels and problem not in (None, _SINGLE_LABEL):
        raise UsageError(
            f"model: {model} was trained for the problem_type {problem}, whose outputs are not probabilities of a, b "
            f"and tie; name a classifier of the type {_SINGLE_LABEL}"
        )
    named = wanted.head not in ("auto", "token")
    if _is_custom(content.get("auto_map"), config) and not named:
        raise UsageError(
            f"model: {model} is computed by custom code (auto_map of its config.json), which is not run; name a model "
            "that transformers knows, or, where only its head is its own, say by the setting head which form that has"
        )
    check_nothing_else(content, model)
    if not named and not head.layers:
        _check_architectures(content.get("architectures"), config, model)
    if wanted.is_labels:
        _check_labels(content, model)
    _check_sizes(config.get_text_config(), model)


def check_nothing_else(content: Mapping[str, Any], model: str) -> None:
    """Raises `UsageError` where config.json names other files of weights, or code of the hub to compute with."""
    if content.get("transformers_weights") is not None:
        raise UsageError(
            f"model: {model} names a file of weights in its config.json (transformers_weights = "
            f"{content['transformers_weights']!r:.80}); call the file model.safetensors and take the key out"
        )
    for part in [content, *(value for value in content.values() if isinstance(value, dict))]:
        for key in _IMPLEMENTATIONS & part.keys():
            value = part[key]
            if value is not None and not (isinstance(value, str) and value.isidentifier()):
                raise UsageError(
                    f"model: {key} of {model} is {value!r:.80} in its config.json, which could be code of the hub; "
                    "take the key out"
                )


def is_causal(config: PreTrainedConfig) -> bool:
    """Returns whether a decoder is causal: no token sees those that follow it."""
    text: Any = config.get_text_config()
    return getattr(text, "is_causal", True) and not getattr(text, "use_bidirectional_attention", False)


def long_beyond(config: Any) -> int:
    """Returns the number of tokens beyond which a model uses the rotary angles of long rows (longrope)."""
    parameters = getattr(config, "rope_parameters", None) or {}
    kinds = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    long = [kind["original_max_position_embeddings"] for kind in kinds if kind.get("rope_type") == "longrope"]
    return min(long, default=sys.maxsize)


def is_classifier(config: PreTrainedConfig) -> bool:
    """Returns whether the weights include a classification head."""
    return any("SequenceClassification" in architecture for architecture in config.architectures or [])


def _check_architectures(names: Any, config: PreTrainedConfig, model: str) -> None:
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise UsageError(
            f"model: architectures of {model} is {names!r:.80} in its config.json; a list of names is needed"
        )
    classifier = cast(type, classifier_class(config)).__name__
    for name in names or []:
        known = getattr(transformers, name, None)
        if getattr(known, "config_class", None) is not type(config) or (
            "SequenceClassification" in name and name != classifier
        ):
            raise UsageError(
                f"model: the architecture of {model} is {name}, which transformers does not have for "
                f"{config.model_type}; {classifier}, or one without a head, is needed"
            )


def _is_custom(auto_map: Any, config: PreTrainedConfig) -> bool:
    """Returns whether the model is computed by code beside its weights.

    Models that transformers adopted later still name the code that they came with, but transformers has its classes.
    """
    if not auto_map or not isinstance(auto_map, dict):
        return bool(auto_map)
    names = {str(value).rpartition(".")[2] for key, value in auto_map.items() if key.startswith("AutoModel")}
    known = [getattr(transformers, name, None) for name in names]
    own = all(getattr(model, "config_class", None) is type(config) for model in known)
    return "AutoModelForSequenceClassification" in auto_map or not own


def _check_labels(content: Mapping[str, Any], model: str) -> None:
    """Checks that labels are numbered from 0, and that keys which repeat them agree."""
    labels, numbers, count = (content.get(key) for key in ("id2label", "label2id", "num_labels"))
    if labels is not None and not (isinstance(labels, dict) and set(labels) == {str(i) for i in range(len(labels))}):
        raise UsageError(f"model: id2label of {model} is {labels!r:.80} in its config.json; number its labels from 0")
    if count is not None and labels is not None and count != len(labels):
        raise UsageError(
            f"model: {model} has num_labels = {count!r:.80} but {len(labels)} labels in id2label; mend one"
        )
    if labels is not None and numbers is not None and _contradict(labels, numbers):
        raise UsageError(f"model: label2id and id2label of {model} contradict each other in its config.json; mend one")


def _check_sizes(text: Any, model: str) -> None:
    for key, most in _SIZES.items():
        value = getattr(text, key, None)
        if isinstance(value, int) and value <= 0 and "expert" not in key:
            raise UsageError(f"model: {model} has {key} = {value} in its config.json where a positive number is needed")
        if isinstance(value, int) and value > most:
            raise UsageError(f"model: {model} has {key} = {value:.6g} in its config.json; at most {most} is possible")
    for key in _EPSILONS:
        value = getattr(text, key, None)
        if isinstance(value, (int, float)) and not 0 <= value < 1:
            raise UsageError(f"model: {model} has {key} = {value} in its config.json; from 0 to 1 is possible")


def _contradict(labels: dict[str, Any], numbers: Any) -> bool:
    """Returns whether label2id contradicts id2label; default names, and names on one side only, do not count."""
    if not isinstance(numbers, dict):
        return True
    if all(name == f"LABEL_{i}" for name, i in numbers.items()):
        return False
    if all(name == f"LABEL_{i}" for i, name in labels.items()):
        return True
    return any(name in labels.values() and labels.get(str(i)) != name for name, i in numbers.items())
