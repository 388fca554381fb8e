"""What must hold of a model before its probabilities are believed; each check raises one sentence.

transformers and PEFT load what fits and warn about the rest: an untrained head, an adapter that did not load and the
tokenizer of another model all give numbers that look like probabilities.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from lmsys_ray import CLASSES
from lmsys_ray.checkpoints.depth import is_dropped_block
from lmsys_ray.checkpoints.weight_files import Tensor
from lmsys_ray.errors import UnscorableError, UsageError

HEAD = "score.weight"

_LANGUAGE_HEADS = ("lm_head.", "embed_out.")
"""How the names of a language model's own head begin."""

HEAD_ONLY = "head_only"
"""Set in scoring.json where only the head was trained, so that a LoRA of zeros is intended."""

_FACTOR_B = re.compile(r"\.lora_(embedding_)?B(\.weight)?$")
_FEW = 16
"""How many added tokens of a tokenizer may lack an embedding."""
_FLOATING = frozenset({"F64", "F32", "F16", "BF16"})

_CLASS_NAMES = {
    "a": {"a", "model_a", "response_a", "winner_model_a", "winner_a", "a_wins"},
    "b": {"b", "model_b", "response_b", "winner_model_b", "winner_b", "b_wins"},
    "tie": {"tie", "winner_tie", "draw", "equal"},
}


def class_columns(id2label: Mapping[Any, str], model: str, labels: Sequence[str] | None = None) -> list[int]:
    """Returns which columns of the head hold a, b and tie.

    Labels without names (`LABEL_0`) are in that order, or in that of the setting `labels`, which also settles names
    that are not understood. Raises `UsageError` where names are not understood without it, or contradict it.
    """
    names = [str(id2label.get(i)).strip().lower().replace(" ", "_").replace("-", "_") for i in range(len(id2label))]
    if len(names) != len(CLASSES):
        scores = "; a model of one label is a reward model: set kind to reward" if len(names) == 1 else ""
        raise UsageError(
            f"model: {model} has {len(names)} labels where a, b and tie are needed; name a 3-label model{scores}"
        )
    found = [[i for i, name in enumerate(names) if name in _CLASS_NAMES[label]] for label in CLASSES]
    if labels is not None:
        columns = [list(labels).index(label) for label in CLASSES]
        if any(understood and understood != [column] for understood, column in zip(found, columns, strict=True)):
            raise UsageError(
                f"labels: {', '.join(labels)} contradicts the labels of {model}, {', '.join(names)}; leave labels out"
            )
        return columns
    if names == [f"label_{i}" for i in range(len(CLASSES))]:
        return list(range(len(CLASSES)))
    if any(len(columns) != 1 for columns in found):
        raise UsageError(
            f"model: the labels of {model} are {', '.join(names)}; name them a, b and tie in its id2label, "
            "or say in the setting labels which is which"
        )
    return [columns[0] for columns in found]


def check_stored(stored: Mapping[str, Tensor], model: torch.nn.Module, name: str) -> None:
    """Checks that weights are stored in a floating-point type and in the shapes of the built `model`.

    `stored` is what the headers of its files say. transformers converts integers to weights, which a damaged header may
    make of floating-point numbers, and allocates what config.json says before it compares shapes.
    """
    own, prefix = model.state_dict(), getattr(model, "base_model_prefix", "")
    misshapen = []
    for key, (kind, shape, _) in stored.items():
        weight = own.get(key, own.get(f"{prefix}.{key}"))
        if weight is None or not weight.is_floating_point():
            continue
        if kind not in _FLOATING:
            raise UsageError(
                f"model: {key} of {name} is stored as {kind}, not in a floating-point type; fetch it again"
            )
        if list(weight.shape) != list(shape):
            misshapen.append(key)
    if misshapen:
        raise UsageError(
            f"model: {name} has misshapen weights: {_some(misshapen)}; it does not fit its own config.json"
        )


def head_keys(model: Any) -> list[str]:
    """Returns the names of the weights of a classifier's head; an encoder's may include a pooling layer."""
    if hasattr(model, "score"):
        return [HEAD]
    return [key for key in model.state_dict() if not key.startswith(f"{model.base_model_prefix}.")]


def check_head(weight: torch.Tensor, name: str) -> None:
    """Checks that the last weight [labels, hidden] of a head distinguishes its labels."""
    weight = weight.float()
    if not weight.any():
        raise UsageError(f"model: the head of {name} is zero, so all rows would be equal; it was never trained")
    if len(torch.unique(weight, dim=0)) < len(weight):
        raise UsageError(f"model: the head of {name} is the same for two labels; it was never trained")


def check_base(
    info: Mapping[str, Any],
    model: str,
    heads: Collection[str],
    head_needed: bool,
    layers: int | None = None,
    others: tuple[str, ...] = (),
) -> None:
    """Checks that a checkpoint filled the whole model, or its first `layers` blocks.

    `info` is the loading info of transformers, `heads` the weights of the head. Weights whose names begin with one of
    `others` are of another head, and need no place.
    """
    missing = sorted(key for key in info["missing_keys"] if head_needed or key not in heads)
    if missing and set(missing) <= set(heads):
        raise UsageError(
            f"model: {model} has no head ({_some(missing)}), so its answers would be random; "
            "name a trained model, or the adapter that brings the head"
        )
    # A language model's own head is not needed here, the rest is.
    unwanted = (key for key in info["unexpected_keys"] if not key.startswith((*_LANGUAGE_HEADS, *others)))
    unexpected = sorted(key for key in unwanted if not is_dropped_block(key, layers))
    for keys, what in ((missing, "lacks"), (unexpected, "holds unknown"), (info["mismatched_keys"], "has misshapen")):
        if keys:
            raise UsageError(f"model: {model} {what} weights: {_some(keys)}; it does not fit its own config.json")


def check_adapter(
    found: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    adapter: str,
    head_optional: bool,
    head_only: bool = False,
    heads: Sequence[str] = (HEAD,),
) -> None:
    """Checks that an adapter has exactly the weights of the wrapped model, and that they have an effect.

    Where `head_optional`, the model has a head already; where `head_only`, only the head needs to have an effect.
    `heads` are the names of the head's weights.
    """
    optional = {key for key in expected if key.endswith(tuple(heads))} if head_optional else set()
    missing, unexpected = sorted(set(expected) - set(found) - optional), sorted(set(found) - set(expected))
    if missing and all(key.endswith(tuple(heads)) for key in missing):
        named = ", ".join(heads)
        raise UsageError(
            f"adapter: {adapter} brings no head ({named}) and the model has none; save it with the adapter"
        )
    if missing or unexpected:
        what = f"lacks {_some(missing)}" if missing else f"has {_some(unexpected)} beside what its config says"
        raise UsageError(
            f"adapter: {adapter} {what}; it was made for another model or is incomplete: "
            "name the model that it was trained on, or copy it again"
        )
    for key, weight in found.items():
        if weight.shape != expected[key].shape:
            raise UsageError(
                f"adapter: {key} of {adapter} has the shape {list(weight.shape)} where the model needs "
                f"{list(expected[key].shape)}; it was made for another model, name the one that it was trained on"
            )
        if not weight.is_floating_point():
            raise UsageError(f"adapter: {key} of {adapter} holds {weight.dtype}; save it in a floating-point type")
        if not torch.isfinite(weight.float()).all():  # 8-bit types do not support isfinite
            raise UsageError(f"adapter: {key} of {adapter} holds NaN or infinity; train it again")
    if not head_only:
        _check_trained(found, adapter)
    brought = [weight for key, weight in found.items() if key.endswith(tuple(heads))]
    if brought and not any(weight.any() for weight in brought):
        raise UsageError(f"adapter: the head of {adapter} is zero, so all rows would be equal; train it first")


def _check_trained(found: Mapping[str, torch.Tensor], adapter: str) -> None:
    """Checks that one LoRA product is not zero: training starts with a zero B, or with some methods a zero A."""
    pairs = [(key, _FACTOR_B.sub(r".lora_\1A\2", key)) for key in found if _FACTOR_B.search(key)]
    if pairs and not any(found[b].any() and found[a].any() for b, a in pairs if a in found):
        raise UsageError(
            f"adapter: every lora_B of {adapter}, or its lora_A, is zero, so it changes nothing; "
            "it was never trained, name one that was"
        )


def check_finite(model: torch.nn.Module, name: str) -> None:
    """Checks that no weight is NaN or infinite; tensors of classes of other libraries are skipped."""
    for key, weight in model.named_parameters():
        if type(weight.data) is not torch.Tensor or not weight.is_floating_point():
            continue
        wide = weight if weight.element_size() > 1 else weight.float()  # 8-bit types do not support isfinite
        if not torch.isfinite(wide).all():
            raise UsageError(f"model: {key} of {name} holds NaN or infinity; use other weights or another dtype")


def check_rotations(model: torch.nn.Module, name: str) -> None:
    """Checks that the frequencies of the rotary embedding are finite and positive."""
    for key, buffer in model.named_buffers():
        if key.endswith("inv_freq") and not (torch.isfinite(buffer) & (buffer > 0)).all():
            raise UsageError(f"model: the rope parameters of {name} give no frequencies; mend them in its config.json")


def check_tokenizer(
    tokenizer: Tokenizer, tokenizer_pad: int | None, config: Any, model: str, brought: int | None = None
) -> None:
    """Checks that the tokenizer's ids have embeddings, and that model and tokenizer name the same pad token.

    `brought` is how many embeddings the adapter has to replace the model's, or None. A few added tokens may lack one,
    as Gemma 3's image token in a text model, unless every row holds them; `check_embedded` finds rows that do.
    """
    embedded = config.vocab_size if brought is None else brought
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    beyond = {token: id_ for token, id_ in vocabulary.items() if id_ >= embedded}
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    always = {tokenizer_pad, *tokenizer.encode("").ids}
    if len(beyond) > _FEW or not beyond.keys() <= added or not always.isdisjoint(beyond.values()):
        owner = f"the model embeds {embedded}; they do not belong together"
        if brought is not None:
            owner = f"the adapter brings {embedded} embeddings; name a model with the tokenizer of its training"
        raise UsageError(f"model: the tokenizer of {model} has ids up to {max(beyond.values())} but {owner}")
    model_pad = config.pad_token_id
    if None not in (tokenizer_pad, model_pad) and tokenizer_pad != model_pad:
        raise UsageError(
            f"model: the pad token of {model} is {model_pad} in config.json but {tokenizer_pad} in the tokenizer; "
            "set pad_token_id of config.json to the tokenizer's"
        )


def check_embedded(ids: np.ndarray, embedded: int, model: str) -> None:
    """Raises `UnscorableError` where a token id is not among the first `embedded`."""
    if ids.size and (largest := int(ids.max())) >= embedded:
        raise UnscorableError(
            f"a text holds the token of the id {largest}, where {model} embeds {embedded} ids; leave that token out"
        )


def _some(keys: Any) -> str:
    names = [str(key[0] if isinstance(key, tuple) else key) for key in keys]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
