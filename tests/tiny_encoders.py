"""Tiny random encoders of several architectures, with a tokenizer, and a head beside them."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel

from tests.tiny_llama import make_tokenizer

DIM = 32
_SIZES = {
    **{"vocab_size": 400, "hidden_size": DIM, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "max_position_embeddings": 128, "pad_token_id": 1},
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": {"type_vocab_size": 2},
    "roberta": {"type_vocab_size": 1, "max_position_embeddings": 130},
    "electra": {"embedding_size": 16},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16,
                   "share_att_key": True, "norm_rel_ebd": "layer_norm", "type_vocab_size": 0,
                   "position_biased_input": False},
    "modernbert": {"local_attention": 16, "global_attn_every_n_layers": 2, "cls_token_id": 0, "sep_token_id": 2,
                   "bos_token_id": 0, "eos_token_id": 2},
    "distilbert": {"dim": DIM, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
}  # fmt: skip


def make_encoder(folder: Path, kind: str = "bert") -> Any:
    """Saves a random encoder without a head, and its tokenizer; returns the model."""
    torch.manual_seed(4)
    config = AutoConfig.for_model(kind, **{**_SIZES, **ARCHITECTURES[kind]})
    model = AutoModel.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2) if parameter.ndim == 2 else parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    make_tokenizer(folder)
    return model


def make_shared_encoder(folder: Path, kind: str = "bert") -> Path:
    """Saves a random encoder, its tokenizer and a random head of three."""
    make_encoder(folder, kind)
    torch.manual_seed(5)
    head = {"weight": torch.randn(3, 2 * DIM) * 0.3, "bias": torch.randn(3) * 0.3}
    save_file(head, folder / "head.safetensors")
    return folder
