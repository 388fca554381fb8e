"""Loads a backbone, and makes of it the classifier that is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from lmsys_ray import CLASSES
from lmsys_ray.checkpoints.base_model import positions
from lmsys_ray.checkpoints.checks import check_base, check_tokenizer, head_keys
from lmsys_ray.checkpoints.config_checks import check_nothing_else, is_causal, read_json
from lmsys_ray.checkpoints.depth import check_kept, keep_first
from lmsys_ray.checkpoints.quantization import nf4_config
from lmsys_ray.checkpoints.sources import model_directory, read_tokenizer
from lmsys_ray.checkpoints.weight_files import tensors
from lmsys_ray.engine import devices
from lmsys_ray.errors import UsageError, first_line
from lmsys_ray.members.classifier.training.frozen_blocks import FrozenBlocks
from lmsys_ray.members.classifier.training.model import TrainedClassifier
from lmsys_ray.members.classifier.training.options import TrainingSettings
from lmsys_ray.quiet import quiet_libraries

_POOLER = ".pooler."
"""A part of BERT and its kin that a checkpoint of language modelling lacks."""


def compute_type(setting: str, device: torch.device) -> torch.dtype:
    """Returns the type of matrix products in training; it is noted beside the output, and scoring follows it.

    `auto` means bfloat16 on GPUs and CPUs that compute in it, float16 on other GPUs and float32 on other CPUs, where 16
    bits are emulated and several times slower.
    """
    if setting != "auto":
        return devices.DTYPES[setting]
    return devices.native_dtype("cuda" if device.type == "cuda" else "cpu")


def build_classifier(settings: TrainingSettings, device: torch.device) -> TrainedClassifier:
    """Loads the backbone and puts a head on it, and a fresh adapter where one is trained.

    Raises `UsageError` where the backbone is not found, is not a classifier in transformers, or lacks the layers.
    """
    compute = compute_type(settings.dtype, device)
    with quiet_libraries():
        directory = model_directory(settings.model, trust_pickle=settings.trust_pickle)
        model = _base(directory, settings, compute, device)
        _check_kind(model, settings)
        read = read_tokenizer(settings.model, append_eos=settings.append_eos)
        check_tokenizer(read.tokenizer, read.pad_id, model.config.get_text_config(), settings.model)
        pad = next((i for i in (read.pad_id, model.config.pad_token_id) if i is not None), None)
        model.config.pad_token_id = pad
        if settings.quantization == "nf4":
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=settings.checkpoint_activations)
        elif settings.checkpoint_activations:
            model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
        wrapped = _with_lora(model, settings) if settings.lora == "adapter" else model
    classifier = TrainedClassifier(wrapped, 0 if pad is None else pad, compute).to(device)
    if settings.lora == "none" and classifier.pools_last_token:
        torch.nn.init.zeros_(classifier.inner.score.weight)
    if settings.keep_frozen:
        classifier.frozen = _frozen_blocks(model, settings, compute)
    if settings.compile:
        _compile(model, settings.model)
    return classifier


def _check_kind(model: PreTrainedModel, settings: TrainingSettings) -> None:
    if hasattr(model, "score"):
        if not is_causal(model.config):
            raise UsageError(f"model: {settings.model} lets tokens see those that follow; name a causal decoder")
        if not isinstance(settings.template, str):
            raise UsageError(
                f"template: two texts are for encoders such as DeBERTa, and {settings.model} is none; give one text"
            )
    longest = positions(model)
    if settings.max_length > longest > 0:
        raise UsageError(
            f"max_length: {settings.max_length} exceeds the {longest} positions of {settings.model}; lower it"
        )


def _compile(model: PreTrainedModel, name: str) -> None:
    blocks = getattr(getattr(model, model.base_model_prefix), "layers", None)
    if blocks is None:
        raise UsageError(f"compile: {name} is a {type(model).__name__}, which is not compiled; set compile=false")
    for block in blocks:
        block.compile(dynamic=True)


def _frozen_blocks(model: PreTrainedModel, settings: TrainingSettings, compute: torch.dtype) -> FrozenBlocks:
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


def _base(directory: Path, settings: TrainingSettings, compute: torch.dtype, device: torch.device) -> PreTrainedModel:
    arguments: dict[str, Any] = {"dtype": torch.float32 if settings.lora == "none" else compute}
    if settings.quantization == "nf4":
        arguments["quantization_config"] = nf4_config(compute, ["score", "classifier", "pooler"])
        arguments["device_map"] = {"": device}
    stored = tensors(directory, settings.model)  # refuses files that are elsewhere
    # Refuses an adapter beside the weights, which transformers would apply.
    check_nothing_else(read_json(directory, settings.model), settings.model)
    arguments["use_safetensors"] = None if settings.trust_pickle else True
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        keep_first(settings.layers, config, settings.model)
        config.num_labels = len(CLASSES)
        config.id2label = dict(enumerate(CLASSES))
        config.label2id = {name: i for i, name in enumerate(CLASSES)}
        model, info = AutoModelForSequenceClassification.from_pretrained(
            directory, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
        )
    except (OSError, ValueError) as error:
        raise UsageError(f"model: {settings.model} cannot be loaded as a classifier ({first_line(error)})") from None
    check_kept(settings.layers, model, settings.model)
    _check_loaded(model, info, {name.partition(".")[0] for name in stored}, settings)
    return model


def _check_loaded(model: PreTrainedModel, info: dict[str, Any], outside: set[str], settings: TrainingSettings) -> None:
    """Checks that the backbone has all its weights; a head of other sizes, or none, is made anew."""
    heads = head_keys(model)
    absent = {key for key in info["missing_keys"] if key not in heads}
    if pooler := sorted(key for key in absent if _POOLER in f".{key}"):
        if settings.lora == "adapter":
            raise UsageError(
                f"model: {settings.model} lacks {pooler[0]}, which an adapter would leave random; set lora=none, which "
                "trains it, or name a model that has it"
            )
        absent -= set(pooler)
    misshapen = [key for key in info["mismatched_keys"] if key[0] not in heads]
    others = () if hasattr(model, "score") else tuple(f"{part}." for part in outside - {model.base_model_prefix})
    found = {**info, "missing_keys": absent, "mismatched_keys": misshapen}
    check_base(found, settings.model, heads, False, settings.layers, others)


def _with_lora(model: PreTrainedModel, settings: TrainingSettings) -> PeftModel:
    linear = _linear_names(model)
    if settings.head_only:  # PEFT saves a head only beside a LoRA: this is the smallest
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
        raise UsageError(
            f"targets: {settings.targets} do not fit {settings.model} ({first_line(error, 200)})"
        ) from None
    for name, weight in wrapped.named_parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
        if name.endswith("score.modules_to_save.default.weight"):
            torch.nn.init.zeros_(weight)  # start with equal probabilities, not random ones
    return wrapped


def _linear_names(model: PreTrainedModel) -> list[str]:
    """Returns the names of the linear layers of the backbone within their blocks."""
    backbone = getattr(model, model.base_model_prefix)
    linear = (name for name, module in backbone.named_modules() if isinstance(module, torch.nn.Linear))
    return sorted({name.rpartition(".")[2] for name in linear})
