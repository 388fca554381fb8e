"""The head of a model, told by the names of its weights, so that no code of its makers is needed.

Public reward models and the classifiers of contests have one of a few heads: a linear layer, or two with an activation
between, under a handful of names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import nn

from lmsys_ray.checkpoints.reading import library_errors
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.checkpoints.weight_files import Tensor, file_of
from lmsys_ray.errors import UsageError

_GATED = ("regression_layer.weight", "gating.weight")


@dataclass(frozen=True)
class Head:
    """A head as it is stored: linear layers, with an activation between two."""

    form: Literal["linear", "mlp", "value_head", "token"]
    layers: tuple[str, ...] = ()
    """The names of its layers in the checkpoint; empty for those that transformers loads itself."""
    activation: Literal["relu", "gelu"] = "relu"

    @property
    def reads_last_token(self) -> bool:
        """Whether it reads the last token whatever that is; the others skip pad tokens, as transformers does."""
        return self.form in ("value_head", "token")

    @property
    def is_own(self) -> bool:
        """Whether transformers' classifier has no such head, so that it is put on here."""
        return self.form != "linear"


LINEAR = Head("linear")

_MLPS: tuple[Head, ...] = (
    Head("mlp", ("score.0", "score.2"), "relu"),
    Head("mlp", ("score.1", "score.4"), "gelu"),  # with dropout before either
)
_VALUE_HEADS = (Head("value_head", ("v_head.summary",)), Head("value_head", ("v_head.summary.0", "v_head.summary.2")))


def find_head(stored: Mapping[str, Tensor], content: Mapping[str, Any], wanted: Wanted, model: str) -> Head:
    """Returns the head of the model `model`, whose files hold the tensors `stored` and `content` as config.json.

    Raises `UsageError` where it is not the one that is wanted, has another number of outputs, or cannot be computed.
    """
    if wanted.head == "token":
        return Head("token")
    found = _found(stored, content)
    if found is None and any(key in stored for key in _GATED):
        raise UsageError(
            f"model: the head of {model} mixes several objectives (regression_layer, gating), which only its makers' "
            "code computes; name a reward model of one score"
        )
    head = found or LINEAR
    if wanted.head not in ("auto", head.form):
        raise UsageError(
            f"head: {wanted.head}, but the weights of {model} hold "
            f"{'a head of the form ' + head.form if found else 'no head'}; set head to auto, or name another model"
        )
    if head.layers:
        outputs = stored[f"{head.layers[-1]}.weight"].shape[0]
        if outputs != wanted.outputs:
            raise UsageError(f"model: {model} has {outputs} outputs where {_needed(wanted)}")
    return head


def put_on(model: Any, head: Head, directory: Path, name: str) -> None:
    """Replaces the linear layer `score` of `model` by the head that its files in `directory` hold, in float32.

    Raises `UsageError` where the weights cannot be read, or do not fit the model `name`.
    """
    parts: list[nn.Module] = []
    for number, layer in enumerate(head.layers):
        if number:
            parts.append(nn.ReLU() if head.activation == "relu" else nn.GELU())
        parts.append(_linear(directory, layer, name))
    first, hidden = parts[0], model.score.in_features
    if first.in_features != hidden:
        raise UsageError(
            f"model: {head.layers[0]} of {name} takes {first.in_features} numbers where the model has {hidden}; it "
            "does not fit its own config.json"
        )
    device = model.score.weight.device
    model.score = (nn.Sequential(*parts) if len(parts) > 1 else first).to(device).requires_grad_(False)


def read_tensor(directory: Path, name: str, model: str, rows: list[int] | None = None) -> torch.Tensor | None:
    """Returns a tensor of a model's safetensors files in float32, or some of its rows; None where there is none.

    Raises `UsageError` where it cannot be read.
    """
    with library_errors(f"model: {name} of {model} cannot be read", "fetch the weights again"):
        file = file_of(directory, name)
        if file is None:
            return None
        with safe_open(file, framework="pt") as opened:
            if rows is None:
                return opened.get_tensor(name).float()
            part = opened.get_slice(name)
            return torch.cat([part[row : row + 1] for row in rows]).float()


def _linear(directory: Path, layer: str, model: str) -> nn.Linear:
    weight, bias = (read_tensor(directory, f"{layer}.{part}", model) for part in ("weight", "bias"))
    if weight is None or weight.ndim != 2:
        raise UsageError(f"model: {layer} of {model} is not a linear layer; fetch its weights again")
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    return linear


def _found(stored: Mapping[str, Tensor], content: Mapping[str, Any]) -> Head | None:
    if "score.weight" in stored:
        return LINEAR
    named = content.get("value_head_prefix")  # of OpenRLHF
    candidates = [*_MLPS, *_VALUE_HEADS, *([Head("value_head", (named,))] if isinstance(named, str) else [])]
    return next((head for head in candidates if all(f"{layer}.weight" in stored for layer in head.layers)), None)


def _needed(wanted: Wanted) -> str:
    return "a, b and tie are needed" if wanted.is_labels else "one score is needed"
