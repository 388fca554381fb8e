"""What plain transformers and PEFT give for an adapter, one row at a time, beside what this package gives."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pyarrow as pa
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig, PreTrainedModel

from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from lmsys_ray.members.classifier.settings import ClassifierSettings

Rows = Sequence[np.ndarray]

ROWS: Rows = [np.random.default_rng(0).integers(3, 390, size, np.int32) for size in (5, 17, 40)]
PLAIN: dict[str, Any] = {
    **{"task_type": "SEQ_CLS", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1},
    "target_modules": ["q_proj", "v_proj", "down_proj"],
}


def by_transformers(base: str, quantization: str | None = None, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    arguments: dict[str, Any] = {}
    if quantization is not None:
        kind = (
            {"load_in_8bit": True} if quantization == "int8" else {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
        )
        skipped = BitsAndBytesConfig(**kind, bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=["score"])
        arguments = {"quantization_config": skipped, "device_map": {"": "cpu"}}
    return without_packing(AutoModelForSequenceClassification.from_pretrained(base, dtype=dtype, **arguments))


def without_packing(model: torch.nn.Module) -> Any:
    """Returns a model whose 4-bit layers keep their weights as they are, which on some CPUs fails for so small ones."""
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False
    return model


@torch.inference_mode()
def probabilities(model: torch.nn.Module, rows: Rows = ROWS) -> np.ndarray:
    """Returns [rows, 3], one forward pass each."""
    model.eval()
    logits = [model(input_ids=torch.from_numpy(row)[None].long()).logits[0].float() for row in rows]
    return torch.softmax(torch.stack(logits), dim=-1).numpy()


def by_peft(base: PreTrainedModel, adapter: Path, rows: Rows = ROWS) -> np.ndarray:
    return probabilities(peft.PeftModel.from_pretrained(base, adapter), rows)


def settings_of(base: str | Path, adapter: Path | None, **changes: Any) -> ClassifierSettings:
    named = {"kind": "llama", "model": str(base), "adapter": str(adapter) if adapter else None}
    return ClassifierSettings(**{**named, **changes})


def by_us(base: str | Path, adapter: Path | None, rows: Rows = ROWS, **changes: Any) -> np.ndarray:
    scorer = ClassifierScorer(settings_of(base, adapter, **changes), threads=1)
    # Row by row, since int8 picks its outliers over all rows of a batch.
    tables = [pa.table({"row": [0], "input_ids": pa.array([row], pa.list_(pa.int32()))}) for row in rows]
    return np.concatenate([scorer.score(table).probabilities for table in tables])


def trained(base: PreTrainedModel, **changes: Any) -> peft.PeftModel:
    """Returns a model whose adapter's weights moved at random, as if by training."""
    torch.manual_seed(1)
    model = peft.get_peft_model(base, peft.LoraConfig(**{**PLAIN, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model.eval()


def saved(base: PreTrainedModel, target: Path, embeddings: str | bool = "auto", **changes: Any) -> peft.PeftModel:
    """Returns `trained` and saves its adapter in `target`."""
    model = trained(base, **changes)
    model.save_pretrained(target, save_embedding_layers=embeddings)
    return model


def change_config(adapter: Path, **changes: Any) -> None:
    """Changes entries of an adapter's config where it lies."""
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refused(call: Callable[[], object]) -> str:
    """Returns the sentence of a refusal: one line that names the adapter and ends with what to do."""
    with pytest.raises(UsageError) as error:
        call()
    sentence = str(error.value)
    assert sentence.startswith("adapter: ")
    assert "\n" not in sentence
    assert "; " in sentence
    return sentence
