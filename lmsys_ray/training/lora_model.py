"""The classifier that is trained: a frozen backbone, LoRA on its layers, a head of three labels."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from bitsandbytes.nn.modules import Linear4bit
from peft import (
    LoraConfig,
    PeftModel,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    prepare_model_for_kbit_training,
    set_peft_model_state_dict,
)
from transformers import AutoConfig, AutoModelForSequenceClassification, BitsAndBytesConfig, PreTrainedModel

from lmsys_ray import CLASSES
from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama import devices
from lmsys_ray.members.llama.checks import check_embedded, check_tokenizer
from lmsys_ray.members.llama.config_checks import is_causal, read_json
from lmsys_ray.members.llama.depth import keep_first
from lmsys_ray.members.llama.quiet import quiet_libraries
from lmsys_ray.members.llama.sources import model_directory, read_tokenizer
from lmsys_ray.training.frozen_blocks import FrozenBlocks
from lmsys_ray.training.lora_settings import LoraSettings


class LoraClassifier(torch.nn.Module):
    """Gives float32 logits [rows, 3] of rows of token ids.

    A decoder is pooled at the last real token, as scoring does: transformers' own pooling looks for the pad token,
    which may stand in the text. Another architecture (DeBERTa) pools as its own head does.
    """

    def __init__(self, model: PeftModel, pad_id: int, compute: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.pad_id = pad_id
        self.compute = compute
        self.frozen: FrozenBlocks | None = None

    @property
    def pools_last_token(self) -> bool:
        """Whether this is a decoder, whose head is one linear layer over the last token."""
        return hasattr(self.model.get_base_model(), "score")

    def check_embedded(self, ids: np.ndarray, base: str) -> None:
        """Raises `UnscorableError` where one of the token `ids` has no embedding in the model named `base`."""
        check_embedded(ids, len(next(self.model.get_input_embeddings().parameters())), base)

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Takes token ids [rows, tokens], padded on the right, and how many tokens of each row are real [rows].

        In place of ids it takes the hidden states [rows, tokens, hidden] that `frozen` gives.
        """
        inner: Any = self.model.get_base_model()
        if self.pools_last_token:
            return inner.score(self.features(ids, lengths)).float()
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        with self._mixed(ids.device):
            return inner(input_ids=ids, attention_mask=mask.long()).logits.float()

    def features(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Returns what the head of a decoder reads, float32 [rows, hidden]; takes what `forward` takes."""
        inner: Any = self.model.get_base_model()
        with self._mixed(ids.device):  # padding stands on the right, and no token sees what follows it: no mask
            if self.frozen is not None and ids.is_floating_point():
                hidden = self.frozen.upper(inputs_embeds=ids, use_cache=False).last_hidden_state
            else:
                hidden = getattr(inner, inner.base_model_prefix)(input_ids=ids, use_cache=False).last_hidden_state
        return hidden[torch.arange(len(ids), device=ids.device), lengths - 1].float()

    def how_computed(self) -> dict[str, str]:
        """Returns what scoring must know of how the logits came about, as scoring.json has it."""
        noted = {"dtype": str(self.compute).removeprefix("torch.")}
        return noted | ({"pooling": "last_token"} if self.pools_last_token else {})

    def start_head(self, weight: torch.Tensor) -> None:
        """Sets the weight [3, hidden] of a decoder's linear head."""
        head: Any = self.model.get_base_model().score
        with torch.no_grad():
            head.modules_to_save["default"].weight.copy_(weight)

    def _mixed(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, self.compute, enabled=self.compute != torch.float32)

    def train(self, mode: bool = True) -> LoraClassifier:
        """Switches between training and evaluation, but for 4-bit layers: they stay in training.

        In evaluation bitsandbytes rewrites their weights on some CPUs, for good, into a form without gradients.
        """
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, Linear4bit):
                layer.training = True
        return self

    def collate(
        self, rows: list[np.ndarray], keys: Sequence[Hashable], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pads rows of token ids, which `keys` name, to the longest; returns the two arguments of `forward`."""
        if self.frozen is not None:
            return self.frozen.collate(keys, rows)
        lengths = np.array([len(row) for row in rows], np.int64)
        ids = np.full((len(rows), int(lengths.max())), self.pad_id, np.int64)
        for target, row in zip(ids, rows, strict=True):
            target[: len(row)] = row
        return torch.from_numpy(ids).to(device), torch.from_numpy(lengths).to(device)

    def adapter_state(self) -> dict[str, torch.Tensor]:
        """Returns copies of the trained weights, on the CPU, by their names in a PEFT file."""
        return {key: value.detach().cpu().clone() for key, value in get_peft_model_state_dict(self.model).items()}

    def load_adapter_state(self, state: dict[str, torch.Tensor]) -> None:
        set_peft_model_state_dict(self.model, state)

    def save(self, directory: Path, base: str) -> None:
        """Saves adapter and head as a PEFT directory whose base model is named `base`."""
        self.model.peft_config["default"].base_model_name_or_path = base
        self.model.save_pretrained(str(directory), save_embedding_layers=False)


def compute_type(setting: str, device: torch.device) -> torch.dtype:
    """Returns the type that matrix products are computed in.

    `auto`: bfloat16 on GPUs and CPUs that multiply in it, float16 on other GPUs, float32 on other CPUs, where 16 bits
    are emulated and several times slower. It is noted beside the adapter, and scoring follows it.
    """
    if setting != "auto":
        return devices.DTYPES[setting]
    kind: Literal["cuda", "cpu"] = "cuda" if device.type == "cuda" else "cpu"
    if devices.computes_in("bfloat16", kind):
        return torch.bfloat16
    return torch.float16 if kind == "cuda" else torch.float32


def build_classifier(settings: LoraSettings, device: torch.device) -> LoraClassifier:
    """Loads the backbone and puts a fresh adapter and head on it.

    Raises `UsageError` where the backbone cannot be had, is no classifier for transformers, or has no such layers.
    """
    compute = compute_type(settings.dtype, device)
    with quiet_libraries():
        directory = model_directory(settings.model)
        model = _base(directory, settings, compute, device)
        if hasattr(model, "score") and not is_causal(model.config):
            raise UsageError(f"model: {settings.model} lets tokens see those that follow; name a causal decoder")
        read = read_tokenizer(settings.model, append_eos=settings.append_eos)
        check_tokenizer(read.tokenizer, read.pad_id, model.config.get_text_config(), settings.model)
        pad = next(i for i in (read.pad_id, model.config.pad_token_id, 0) if i is not None)
        model.config.pad_token_id = pad
        if settings.quantization == "nf4":
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=settings.checkpoint_activations)
        elif settings.checkpoint_activations:
            model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
        wrapped = _with_lora(model, settings)
    classifier = LoraClassifier(wrapped, pad, compute).to(device)
    if settings.keep_frozen:
        classifier.frozen = _frozen_blocks(model, settings, compute)
    if settings.compile:
        for block in getattr(model, model.base_model_prefix).layers:
            block.compile(dynamic=True)
    return classifier


def _frozen_blocks(model: PreTrainedModel, settings: LoraSettings, compute: torch.dtype) -> FrozenBlocks:
    backbone = getattr(model, model.base_model_prefix)
    blocks = len(getattr(backbone, "layers", ()))
    if settings.top_layers is None or settings.top_layers >= blocks or not hasattr(model, "score"):
        raise UsageError(
            f"keep_frozen: there is nothing to keep of {settings.model} with top_layers = {settings.top_layers}; "
            f"set top_layers below the {blocks} blocks of a decoder, or keep_frozen=false"
        )
    frozen = FrozenBlocks(backbone, settings.top_layers, compute)
    frozen.check(backbone, settings.model)
    return frozen


def _base(directory: Path, settings: LoraSettings, compute: torch.dtype, device: torch.device) -> PreTrainedModel:
    arguments: dict[str, Any] = {}
    if settings.quantization == "nf4":
        arguments["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=compute,
            llm_int8_skip_modules=["score", "classifier", "pooler"],
        )
        arguments["device_map"] = {"": device}
    read_json(directory, settings.model)  # which refuses an adapter that transformers would put on the weights
    try:
        config = AutoConfig.from_pretrained(directory)
        keep_first(settings.layers, config, settings.model)
        config.num_labels = len(CLASSES)
        config.id2label = dict(enumerate(CLASSES))
        config.label2id = {name: i for i, name in enumerate(CLASSES)}
        return AutoModelForSequenceClassification.from_pretrained(directory, config=config, dtype=compute, **arguments)
    except (OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise UsageError(f"model: {settings.model} cannot be loaded as a classifier ({first})") from None


def _with_lora(model: PreTrainedModel, settings: LoraSettings) -> PeftModel:
    linear = _linear_names(model)
    if settings.head_only:  # PEFT saves a head only beside a LoRA: the smallest there is
        settings = settings.model_copy(update={"rank": 1, "top_layers": 1, "targets": linear[:1]})
    layers = model.config.num_hidden_layers
    top = None if settings.top_layers is None else list(range(max(0, layers - settings.top_layers), layers))
    heads = [name for name, _ in model.named_children() if name != model.base_model_prefix]
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=linear if settings.targets == "all-linear" else settings.targets,
        exclude_modules=rf"({'|'.join(heads)})(\..*)?",
        layers_to_transform=top,
        modules_to_save=[name for name in heads if any(True for _ in model.get_submodule(name).parameters())],
        bias="none",
    )
    try:
        wrapped = get_peft_model(model, config)
    except ValueError as error:
        raise UsageError(f"targets: {settings.targets} do not fit {settings.model} ({str(error)[:200]})") from None
    for name, weight in wrapped.named_parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
        if name.endswith("score.modules_to_save.default.weight"):
            torch.nn.init.zeros_(weight)  # begins at equal shares, not at random ones
    return wrapped


def _linear_names(model: PreTrainedModel) -> list[str]:
    """Returns the names that the linear layers of the backbone have within their blocks."""
    backbone = getattr(model, model.base_model_prefix)
    linear = (name for name, module in backbone.named_modules() if isinstance(module, torch.nn.Linear))
    return sorted({name.rpartition(".")[2] for name in linear})
