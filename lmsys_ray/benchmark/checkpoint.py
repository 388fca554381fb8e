"""The checkpoint that all sides load: a 3-label classifier in one transformers directory, any adapter merged."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, BertConfig, LlamaConfig, PreTrainedModel

from lmsys_ray import CLASSES
from lmsys_ray.benchmark.shape import RANDOM
from lmsys_ray.checkpoints.loading import load_model
from lmsys_ray.checkpoints.sources import TOKENIZER_FILES, model_directory, read_tokenizer
from lmsys_ray.engine.devices import choose_dtype
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.quiet import quiet_libraries

_SEED = 0

ENCODER_LENGTH = 512
"""The most tokens of a row of the encoder, whose positions these are."""

_MINILM = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 12}
"""The sizes of all-MiniLM-L6-v2."""


def save_checkpoint(settings: ClassifierSettings, shape: str | None, folder: Path) -> list[int]:
    """Writes the model that `settings` describe, or a random one of a `shape`, to `folder`.

    Returns the columns of its head that hold a, b and tie. The tokenizer is always that of `settings.model`.
    Raises `UsageError` where the model cannot be loaded.
    """
    if shape is None:
        loaded = load_model(settings.model_copy(update={"quantization": "none", "padding": "longest"}), settings.wanted)
        model, columns = loaded.model, loaded.columns
        if model.config.pad_token_id is None:  # transformers refuses batches without one
            model.config.pad_token_id = loaded.pad_id
    else:
        pad_id = read_tokenizer(settings.model).pad_id
        model, columns = random_model(shape, pad_id or 0), list(range(len(CLASSES)))
    with quiet_libraries():
        model.save_pretrained(folder)
    _copy_tokenizer(settings.model, folder)
    return columns


def save_encoder(tokenizer: str, folder: Path) -> None:
    """Writes a 3-label BERT of MiniLM's sizes with random weights, and the tokenizer of the setting `tokenizer`."""
    read = read_tokenizer(tokenizer)
    ids = read.tokenizer.get_vocab(with_added_tokens=True).values()
    sizes = {**_MINILM, "vocab_size": max(ids) + 1, "max_position_embeddings": ENCODER_LENGTH}
    config = BertConfig.from_dict({**sizes, "pad_token_id": read.pad_id or 0, "num_labels": len(CLASSES)})
    config.initializer_range = _MINILM["hidden_size"] ** -0.5  # such that states, and so probabilities, differ
    torch.manual_seed(_SEED)
    model = AutoModelForSequenceClassification.from_config(config, dtype=choose_dtype("auto"))
    with quiet_libraries():
        model.save_pretrained(folder)
    _copy_tokenizer(tokenizer, folder)


def _copy_tokenizer(model: str, folder: Path) -> None:
    for name in set(TOKENIZER_FILES) - {"config.json"}:
        if (source := model_directory(model, TOKENIZER_FILES) / name).is_file():
            shutil.copy(source, folder)


def random_model(shape: str, pad_id: int) -> PreTrainedModel:
    """Returns a Llama classifier of the sizes `RANDOM[shape]` with random weights, on the GPU if there is one.

    The head is scaled so that logits differ by about 1 between rows, and probabilities differ too.
    """
    sizes = RANDOM[shape]
    special = {"pad_token_id": pad_id, "bos_token_id": 1, "eos_token_id": 2}
    config = LlamaConfig.from_dict({**sizes, **special, "num_labels": len(CLASSES)})
    torch.manual_seed(_SEED)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForSequenceClassification.from_config(config, dtype=choose_dtype("auto"))
    with torch.no_grad():
        model.score.weight.normal_(std=sizes["hidden_size"] ** -0.5)
    return model
