"""The classifier that is trained: a backbone with a head of three labels, LoRA on its layers or not."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bitsandbytes.nn.modules import Linear4bit
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PreTrainedModel

from lmsys_ray.checkpoints.chat_templates import CHAT_TEMPLATE_FILES
from lmsys_ray.checkpoints.checks import check_embedded
from lmsys_ray.checkpoints.sources import TOKENIZER_FILES, model_directory
from lmsys_ray.members.classifier.training.frozen_blocks import FrozenBlocks
from lmsys_ray.quiet import quiet_libraries

_CONFIG, *_OF_TOKENIZER = (*TOKENIZER_FILES, *CHAT_TEMPLATE_FILES)


class TrainedClassifier(torch.nn.Module):
    """Returns float32 logits [rows, 3] for rows of token ids.

    A decoder is pooled at the last real token, as in scoring: transformers' own pooling looks for the pad token, which
    may occur in the text. An encoder (BERT, DeBERTa) pools as its own head does. Of a `PeftModel` the adapter and the
    head are trained, of another model all weights.
    """

    def __init__(self, model: PeftModel | PreTrainedModel, pad_id: int, compute: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.pad_id = pad_id
        self.compute = compute
        self.frozen: FrozenBlocks | None = None
        takes_types = "token_type_ids" in inspect.signature(self.inner.forward).parameters
        self.reads_types = takes_types and getattr(self.inner.config, "type_vocab_size", 0) > 1
        """Whether it tells the two texts of a pair apart."""

    @property
    def inner(self) -> Any:
        """The model of transformers."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @property
    def pools_last_token(self) -> bool:
        """Whether this is a decoder, whose head is one linear layer over the last token."""
        return hasattr(self.inner, "score")

    def is_head(self, parameter: str) -> bool:
        """Returns whether a trained parameter belongs to the head, by its name in this module."""
        if isinstance(self.model, PeftModel):
            return ".lora_" not in parameter
        return not parameter.startswith(f"model.{self.inner.base_model_prefix}.")

    def check_embedded(self, ids: np.ndarray, base: str) -> None:
        """Raises `UnscorableError` where one of the token `ids` has no embedding in the model named `base`."""
        check_embedded(ids, len(next(self.model.get_input_embeddings().parameters())), base)

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor, second: torch.Tensor | None = None) -> torch.Tensor:
        """Takes token ids [rows, tokens], padded on the right, and the number of real tokens of each row [rows].

        `second` [rows] says where the second text of a pair begins (0: there is none). Also takes the hidden states
        [rows, tokens, hidden] that `frozen` returns instead of ids.
        """
        if self.pools_last_token:
            return self.inner.score(self.features(ids, lengths)).float()
        place = torch.arange(ids.shape[1], device=ids.device)
        given = {"attention_mask": (place < lengths[:, None]).long()}
        if second is not None and self.reads_types:
            given["token_type_ids"] = ((place >= second[:, None]) & (second[:, None] > 0)).long()
        with self._mixed(ids.device):
            return self.inner(input_ids=ids, **given).logits.float()

    def features(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Returns what the head of a decoder reads, float32 [rows, hidden]; takes what `forward` takes."""
        with self._mixed(ids.device):  # padding is on the right of causal rows: no mask
            if self.frozen is not None and ids.is_floating_point():
                hidden = self.frozen.upper(inputs_embeds=ids, use_cache=False).last_hidden_state
            else:
                backbone = getattr(self.inner, self.inner.base_model_prefix)
                hidden = backbone(input_ids=ids, use_cache=False).last_hidden_state
        return hidden[torch.arange(len(ids), device=ids.device), lengths - 1].float()

    def how_computed(self) -> dict[str, str]:
        """Returns what scoring must know about how logits are computed, as in scoring.json."""
        noted = {"dtype": str(self.compute).removeprefix("torch.")}
        return noted | ({"pooling": "last_token"} if self.pools_last_token else {})

    def start_head(self, weight: torch.Tensor) -> None:
        """Sets the weight [3, hidden] of a decoder's linear head."""
        head: Any = self.inner.score
        with torch.no_grad():
            (head.modules_to_save["default"] if isinstance(self.model, PeftModel) else head).weight.copy_(weight)

    def _mixed(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, self.compute, enabled=self.compute != torch.float32)

    def train(self, mode: bool = True) -> TrainedClassifier:
        """Switches between training and evaluation, except for 4-bit layers, which stay in training mode.

        In evaluation mode bitsandbytes rewrites their weights on some CPUs, permanently, into a form without gradients.
        """
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, Linear4bit):
                layer.training = True
        return self

    def collate(
        self,
        rows: list[np.ndarray],
        keys: Sequence[Hashable],
        device: torch.device,
        second: np.ndarray | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Pads rows of token ids, identified by `keys`, to the longest; returns the arguments of `forward`."""
        if self.frozen is not None:
            return self.frozen.collate(keys, rows)
        lengths = np.array([len(row) for row in rows], np.int64)
        ids = np.full((len(rows), int(lengths.max())), self.pad_id, np.int64)
        for target, row in zip(ids, rows, strict=True):
            target[: len(row)] = row
        given = (ids, lengths) if second is None else (ids, lengths, second)
        return tuple(torch.from_numpy(values).to(device) for values in given)

    def weights(self) -> dict[str, torch.Tensor]:
        """Returns copies of the trained weights, on the CPU: an adapter's by their names in a PEFT file."""
        if isinstance(self.model, PeftModel):
            state = get_peft_model_state_dict(self.model)
        else:
            state = dict(self.model.named_parameters())
        return {key: value.detach().cpu().clone() for key, value in state.items()}

    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Sets the trained weights."""
        if isinstance(self.model, PeftModel):
            set_peft_model_state_dict(self.model, weights)
            return
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(weights[name])

    def save(self, directory: Path, base: str) -> None:
        """Saves adapter and head as a PEFT directory whose base model is named `base`, or all weights.

        The latter are saved in float32, as a transformers directory with the tokenizer of `base`.
        """
        if isinstance(self.model, PeftModel):
            self.model.peft_config["default"].base_model_name_or_path = base
            self.model.save_pretrained(str(directory), save_embedding_layers=False)
            return
        with quiet_libraries():
            self.model.save_pretrained(str(directory))
        source = model_directory(base, (_CONFIG, *_OF_TOKENIZER))
        for name in _OF_TOKENIZER:
            if (source / name).is_file():
                shutil.copyfile(source / name, directory / name)
