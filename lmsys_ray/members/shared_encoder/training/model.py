"""The model that is trained: an encoder, averaged, and a head for A's and B's mean side by side."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from lmsys_ray import CLASSES
from lmsys_ray.checkpoints.averaged import HEAD_FILE, dim_of, load_encoder
from lmsys_ray.checkpoints.sources import TOKENIZER_FILES, model_directory
from lmsys_ray.engine.devices import DTYPES, native_dtype
from lmsys_ray.engine.models.averaged import AveragedEncoder
from lmsys_ray.errors import UsageError
from lmsys_ray.members.shared_encoder.training.examples import Examples, padded
from lmsys_ray.members.shared_encoder.training.options import TrainingSettings
from lmsys_ray.quiet import quiet_libraries


class SharedEncoderModel(nn.Module):
    """Returns float32 logits [2, rows, 3] of both orders of A and B, from the ids of all of A's texts and then B's."""

    def __init__(self, encoder: PreTrainedModel, pad_id: int, slots: int | None, compute: torch.dtype) -> None:
        super().__init__()
        self.averaged = AveragedEncoder(encoder, pad_id, slots)
        self.head = nn.Linear(2 * dim_of(encoder), len(CLASSES))
        nn.init.zeros_(self.head.weight)  # equal probabilities, not random ones
        nn.init.zeros_(self.head.bias)
        self.compute = compute
        for name, weight in encoder.named_parameters():
            weight.requires_grad = not name.startswith("pooler.")  # which is not read

    def means(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Returns the mean states of texts, float32 [texts, dim]."""
        with torch.autocast(ids.device.type, self.compute, enabled=self.compute != torch.float32):
            found: torch.Tensor = self.averaged(ids, mask).logits
        return found.float()

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Takes token ids [2 * rows, width], and a mask of the real ones."""
        a, b = self.means(ids, mask).chunk(2)
        orders = torch.stack([torch.cat([a, b], dim=1), torch.cat([b, a], dim=1)])
        logits: torch.Tensor = self.head(orders)
        return logits

    def collate(self, texts: Sequence[np.ndarray], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the arguments of `forward` and `means`."""
        ids, mask = (torch.from_numpy(array).to(device) for array in padded(texts, self.averaged.pad_id))
        return ids, mask

    def state(self) -> dict[str, torch.Tensor]:
        """Returns copies of all weights, on the CPU."""
        return {key: value.detach().cpu().clone() for key, value in self.state_dict().items()}

    def save(self, directory: Path, base: str) -> None:
        """Writes encoder, head and the tokenizer of the encoder named `base`, as a member loads them."""
        with quiet_libraries():
            self.averaged.encoder.save_pretrained(str(directory))
        head = {key: value.detach().cpu().float().contiguous() for key, value in self.head.state_dict().items()}
        save_file(head, directory / HEAD_FILE, metadata={"format": "pt"})
        source = model_directory(base, TOKENIZER_FILES)
        for name in TOKENIZER_FILES:
            if name != "config.json" and (source / name).is_file():
                shutil.copyfile(source / name, directory / name)


def build_model(settings: TrainingSettings, device: torch.device) -> SharedEncoderModel:
    """Loads the encoder that the settings name, with a head of zeros; raises `UsageError` where it cannot be used."""
    reading = settings.reading()
    encoder, pad_id = load_encoder(reading)
    native = native_dtype("cuda" if device.type == "cuda" else "cpu")
    compute = native if settings.dtype == "auto" else DTYPES[settings.dtype]
    return SharedEncoderModel(encoder, pad_id, reading.slots, compute).to(device)


def check_examples(model: SharedEncoderModel, examples: Examples, name: str) -> None:
    """Raises `UsageError` where a token of the examples has no embedding in the model `name`."""
    embedded = len(next(model.averaged.get_input_embeddings().parameters()))
    for side in (examples.a, examples.b):
        if side.flat.size and side.flat.max() >= embedded:
            raise UsageError(
                f"--model: {name} embeds {embedded} ids and a text holds the token {side.flat.max()}; leave it out"
            )
