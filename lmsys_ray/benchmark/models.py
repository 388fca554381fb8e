"""The checkpoint that all sides load: a 3-label classifier in one transformers directory, any adapter merged."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig, PreTrainedModel

from lmsys_ray import CLASSES
from lmsys_ray.benchmark.shape import RANDOM
from lmsys_ray.config import LlamaSettings
from lmsys_ray.members.llama.devices import choose_dtype
from lmsys_ray.members.llama.loading import load_model
from lmsys_ray.members.llama.quiet import quiet_libraries
from lmsys_ray.members.llama.sources import TOKENIZER_FILES, model_directory, read_tokenizer

_SEED = 0


def save_checkpoint(settings: LlamaSettings, shape: str | None, folder: Path) -> list[int]:
    """Writes the model that `settings` describe, or a random one of a `shape`, into `folder`.

    Returns the columns of its head that hold a, b and tie. The tokenizer is that of `settings.model` in either case.
    Raises `UsageError` where the model cannot be loaded.
    """
    if shape is None:
        loaded = load_model(settings.model_copy(update={"quantization": "none", "padding": "longest"}))
        model, columns = loaded.model, loaded.columns
        if model.config.pad_token_id is None:  # transformers refuses batches without one
            model.config.pad_token_id = loaded.pad_id
    else:
        pad_id = read_tokenizer(settings.model).pad_id
        model, columns = random_model(shape, pad_id or 0), list(range(len(CLASSES)))
    with quiet_libraries():
        model.save_pretrained(folder)
    for name in set(TOKENIZER_FILES) - {"config.json"}:
        if (source := model_directory(settings.model, TOKENIZER_FILES) / name).is_file():
            shutil.copy(source, folder)
    return columns


def random_model(shape: str, pad_id: int) -> PreTrainedModel:
    """Returns a Llama classifier of the sizes `RANDOM[shape]` with random weights, made on the GPU where there is one.

    The head's weights are such that logits differ by about 1 between rows, so that probabilities can differ too.
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
