"""What config.json must say for three logits to be those of a, b and tie; each check raises one sentence.

transformers loads a regression, a classifier of many labels and weights of custom code as if they were such a model.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PreTrainedConfig

from lmsys_ray.errors import UsageError

ADAPTER_CONFIG = "adapter_config.json"

_SINGLE_LABEL = "single_label_classification"

_SIZES = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("intermediate_size", "vocab_size", "max_position_embeddings"),
)
_EPSILONS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps")


def read_json(directory: Path, model: str) -> dict[str, Any]:
    """Returns the content of config.json of the model named so.

    Raises `UsageError` where there is none, or it is no mapping, or an adapter lies beside it.
    """
    _check_no_adapter(directory, model)
    file = directory / "config.json"
    if not file.is_file():
        raise UsageError(f"model: {model} holds no config.json, so it is no model that transformers knows")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"model: config.json of {model} is no JSON ({error}); fetch it again") from None
    if not isinstance(content, dict):
        raise UsageError(f"model: config.json of {model} is no mapping of settings; fetch it again")
    return content


def _check_no_adapter(directory: Path, model: str) -> None:
    """transformers puts an adapter that lies beside the weights on them, and none of its checks are made."""
    file = directory / ADAPTER_CONFIG
    if not file.is_file():
        return
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        base = content.get("base_model_name_or_path") if isinstance(content, dict) else None
    except ValueError:
        base = None
    named = f", {base}" if isinstance(base, str) and base else ""
    if (directory / "config.json").is_file():
        remedy = f"move it to a directory of its own and set adapter to that, and model to its base{named}"
    else:
        remedy = f"set adapter: {model} and model to its base{named}"
    raise UsageError(f"model: {model} holds an adapter ({ADAPTER_CONFIG}), which is not applied from there; {remedy}")


def check_meaning(content: Mapping[str, Any], config: PreTrainedConfig, model: str) -> None:
    """Demands that the classifier of transformers for `config`, read from `content`, is what the weights were made for.

    Raises `UsageError` where config.json says otherwise.
    """
    problem = content.get("problem_type")
    if problem not in (None, _SINGLE_LABEL):
        raise UsageError(
            f"model: {model} was trained for the problem_type {problem}, whose outputs are no probabilities of a, b "
            f"and tie; name a classifier of the type {_SINGLE_LABEL}"
        )
    if _is_custom(content.get("auto_map"), config):
        raise UsageError(
            f"model: {model} is computed by custom code (auto_map of its config.json), which is not run; name a model "
            "that transformers knows, or take auto_map out if the weights are those of its own class"
        )
    _check_architectures(content.get("architectures"), config, model)
    _check_labels(content, model)
    _check_sizes(config.get_text_config(), model)


def is_causal(config: PreTrainedConfig) -> bool:
    """Returns whether no token of a decoder sees those that follow it."""
    text: Any = config.get_text_config()
    return getattr(text, "is_causal", True) and not getattr(text, "use_bidirectional_attention", False)


def long_beyond(config: Any) -> int:
    """Returns beyond how many tokens a model's rotary angles are those of long rows."""
    parameters = getattr(config, "rope_parameters", None) or {}
    kinds = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    long = [kind["original_max_position_embeddings"] for kind in kinds if kind.get("rope_type") == "longrope"]
    return min(long, default=sys.maxsize)


def is_classifier(config: PreTrainedConfig) -> bool:
    """Returns whether the weights come with a head of labels."""
    return any("SequenceClassification" in architecture for architecture in config.architectures or [])


def _check_architectures(names: Any, config: PreTrainedConfig, model: str) -> None:
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise UsageError(
            f"model: architectures of {model} is {names!r:.80} in its config.json; a list of names is needed"
        )
    built: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    classifier = built.__name__
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
    """Returns whether code beside the weights computes them: a classifier of its own, or classes of other names.

    Models that transformers took in later still name the code that they came with, whose classes it then has.
    """
    if not auto_map or not isinstance(auto_map, dict):
        return bool(auto_map)
    names = {str(value).rpartition(".")[2] for key, value in auto_map.items() if key.startswith("AutoModel")}
    known = [getattr(transformers, name, None) for name in names]
    own = all(getattr(model, "config_class", None) is type(config) for model in known)
    return "AutoModelForSequenceClassification" in auto_map or not own


def _check_labels(content: Mapping[str, Any], model: str) -> None:
    """Demands that label numbers count from 0, and that what says them twice says the same."""
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
    for key in _SIZES:
        value = getattr(text, key, None)
        if isinstance(value, int) and value <= 0:
            raise UsageError(f"model: {model} has {key} = {value} in its config.json where a positive number is needed")
    for key in _EPSILONS:
        value = getattr(text, key, None)
        if isinstance(value, (int, float)) and not 0 <= value < 1:
            raise UsageError(f"model: {model} has {key} = {value} in its config.json; from 0 to 1 is possible")


def _contradict(labels: dict[str, Any], numbers: Any) -> bool:
    """Default names on the side of `numbers` say nothing, and a name that only one side has says little."""
    if not isinstance(numbers, dict):
        return True
    if all(name == f"LABEL_{i}" for name, i in numbers.items()):
        return False
    if all(name == f"LABEL_{i}" for i, name in labels.items()):
        return True
    return any(name in labels.values() and labels.get(str(i)) != name for name, i in numbers.items())
