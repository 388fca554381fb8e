"""Loads a checked model from settings: base weights, quantization, adapter, head."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from lmsys_ray.checkpoints import base_model, checks
from lmsys_ray.checkpoints import quantization as quantizing
from lmsys_ray.checkpoints.adapter_config import Task
from lmsys_ray.checkpoints.adapters import adapter_rows, with_adapter
from lmsys_ray.checkpoints.as_trained import check_as_trained
from lmsys_ray.checkpoints.config_checks import is_causal, long_beyond
from lmsys_ray.checkpoints.heads import put_on
from lmsys_ray.checkpoints.self_check import expected
from lmsys_ray.checkpoints.settings import ModelSettings
from lmsys_ray.checkpoints.sources import (
    model_directory,
    pools_last_token,
    read_scoring,
    read_tokenizer,
    trained_dtype,
    trained_place,
)
from lmsys_ray.checkpoints.token_head import token_head
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.engine import batching, devices, gpu_memory
from lmsys_ray.engine.classifier import Classifier
from lmsys_ray.engine.linear.forms import keep_linear, linear_factory
from lmsys_ray.engine.models.encoder import TransformersEncoder
from lmsys_ray.engine.models.llama import PackedDecoder, fits
from lmsys_ray.engine.models.transformers import TransformersDecoder
from lmsys_ray.quiet import quiet_libraries


@dataclass(frozen=True)
class LoadedModel:
    """A checked transformers classifier, its adapter merged unless bitsandbytes or the like quantized the weights."""

    model: PreTrainedModel
    columns: list[int]
    """The columns of the head that hold the wanted outputs: of a classifier a, b and tie."""
    pad_id: int
    quantization: devices.Quantization
    """The quantization of the linear layers; one of this package's own has not been applied yet."""
    depends_on_batch: bool
    """Whether scores depend on the rest of the micro-batch by more than rounding."""
    last_token: bool
    """Whether the head reads the last token even where that is the pad token."""
    notes: tuple[str, ...]
    """What the user should know about how it was loaded."""

    @property
    def is_encoder(self) -> bool:
        """Whether it is computed whole; else a decoder, whose head is named score."""
        return not hasattr(self.model, "score")


def load_classifier(
    settings: ModelSettings, wanted: Wanted, padding: batching.Padding | None = None, plain: bool = False
) -> Classifier:
    """Loads the model that `settings` describe, in the form that is fastest on this device for such `padding`.

    `wanted` is what is read of it; `padding` defaults to that of the settings. Where `plain`, linear layers stay
    PyTorch's own, for models that access them. Raises `UsageError` for every reason not to believe the result; see
    `checks`.
    """
    padding = padding or settings.padding
    gpu_memory.limit_memory(settings.gpus_per_replica)
    loaded = load_model(settings, wanted)
    backbone: PreTrainedModel = getattr(loaded.model, loaded.model.base_model_prefix)
    config: Any = loaded.model.config.get_text_config()
    quantizes = loaded.quantization in ("int8_dynamic", "fp8")
    factory = keep_linear if plain and not quantizes else linear_factory(loaded.quantization)
    rounds = quantizes or loaded.quantization in ("int8", "stored")
    longest = min(settings.max_length, base_model.positions(loaded.model) or settings.max_length)
    probed = expected(loaded.model, settings.model, longest, factory if quantizes else None, rounds)
    embedding = next(backbone.get_input_embeddings().parameters())
    device, embedded = embedding.device, len(embedding)
    # Libraries may change what a quantized layer does without changing its class.
    taken_over = padding == "none" and loaded.quantization != "stored" and fits(backbone)
    decoder: PackedDecoder | TransformersDecoder | TransformersEncoder
    if loaded.is_encoder:
        decoder = TransformersEncoder(loaded.model, factory)
    else:
        decoder = PackedDecoder(backbone, factory) if taken_over else TransformersDecoder(backbone, factory)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # frees what held the weights in their first form
    return Classifier(
        decoder,
        head=torch.nn.Identity() if loaded.is_encoder else cast(torch.nn.Module, loaded.model.score),
        columns=loaded.columns,
        pad_id=loaded.pad_id,
        pooling_pad=None if loaded.last_token else config.pad_token_id,
        causal=not loaded.is_encoder and is_causal(config),
        long_beyond=long_beyond(config),
        device=device,
        embedded=embedded,
        expected=probed,
        depends_on_batch=loaded.depends_on_batch,
        notes=loaded.notes,
        plain=plain,
    )


def load_model(settings: ModelSettings, wanted: Wanted) -> LoadedModel:
    """Loads the model that `settings` describe, as transformers has it, for inference.

    It has a head for what is `wanted`. Raises `UsageError` for every reason not to believe the result; see `checks`.
    """
    with quiet_libraries(), base_model.in_memory(settings):
        directory = model_directory(settings.model, trust_pickle=settings.trust_pickle)
        if settings.adapter is None:
            check_as_trained(read_scoring(settings.model), settings)
        checkpoint = base_model.read_checkpoint(directory, settings, wanted)
        config, head = checkpoint.config, checkpoint.head
        read = read_tokenizer(settings.model, settings.adapter, settings.append_eos)
        brought = adapter_rows(settings.adapter, settings.trust_pickle) if settings.adapter is not None else None
        checks.check_tokenizer(read.tokenizer, read.pad_id, config.get_text_config(), settings.model, brought)
        columns = [*range(wanted.outputs)]
        if wanted.is_labels:
            columns = checks.class_columns(config.id2label or {}, settings.model, wanted.labels)
        choice = quantizing.choose(checkpoint, settings)
        arguments = quantizing.loading_arguments(choice.quantization, settings)
        model, info = base_model.load_base(checkpoint, arguments, settings)
        heads = checks.head_keys(model)
        head_found = not set(heads) & set(info["missing_keys"])
        needed = settings.adapter is None and not head.is_own
        others = base_model.other_heads(checkpoint, model, settings.model)
        checks.check_base(info, settings.model, heads, needed, settings.layers, others)
        gpu_memory.check_placed(model, settings.model)
        if not checkpoint.encoder:
            choice = quantizing.as_loaded(choice, model, settings)
        if head.layers:
            put_on(model, head, directory, settings.model)
        if settings.adapter is None and not head.is_own:
            checks.check_head(base_model.last_weight(model), settings.model)
        if settings.adapter is not None:
            model = _with_adapter(model, settings, wanted, head_found or head.is_own, choice.quantization)
        if head.form == "token":
            model.score = token_head(model, directory, wanted.tokens, settings.model)
        checks.check_finite(model, settings.model)
    model.eval()
    note = devices.other_dtype(model.dtype, trained_dtype(settings))
    place = trained_place(settings.model, settings.adapter)
    return LoadedModel(
        model,
        columns,
        read.pad_id if read.pad_id is not None else 0,
        choice.quantization,
        choice.depends_on_batch,
        last_token=head.reads_last_token or pools_last_token(settings.model, settings.adapter),
        notes=tuple(note for note in (choice.note, note and f"{place} was {note}") if note),
    )


def _with_adapter(
    model: PreTrainedModel, settings: ModelSettings, wanted: Wanted, head_found: bool, quantization: str
) -> PreTrainedModel:
    name = cast(str, settings.adapter)
    merge = quantization not in ("stored", "int8", "nf4")
    task: Task = "CAUSAL_LM" if wanted.head == "token" else "SEQ_CLS"
    return with_adapter(model, settings, name, task, head_found, merge)
