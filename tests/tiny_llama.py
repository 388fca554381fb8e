"""A tiny random judge: tokenizer, 3-label classifier and LoRA adapter, saved the way users save theirs."""

from pathlib import Path

import peft
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    PreTrainedModel,
    Qwen2Config,
)

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and then it sleeps beside the river until the morning.",
    "User prompt: why is the sky blue?\n\nModel A :\nAir scatters light.\n\n--------\n\nModel B:\nI do not know.",
    "def add(first, second):\n    return first + second  # the sum of both\n\n\nprint(add(1, 2))",
    "Eine kurze Antwort ist oft besser als eine lange. ¿Por qué? 因为它更容易读。 Parce que c'est plus clair.",
]

SIZES = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_labels": 3,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
ARCHITECTURES = {"llama": LlamaConfig, "qwen2": Qwen2Config}


def make_tokenizer(directory: Path) -> Tokenizer:
    """Trains a byte-level BPE tokenizer with a BOS, as Llama 3 has one, and saves it in `directory`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|pad|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin|>", "eos_token": "<|end|>", '
        '"pad_token": "<|pad|>", "padding_side": "right"}'
    )
    return tokenizer


def with_large_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Returns `model` with random matrices, large enough that outputs differ visibly between texts."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.2)
    return model.eval()


def save(model: PreTrainedModel, directory: Path) -> PreTrainedModel:
    """Saves a model of large random weights and its tokenizer in `directory`; returns the model."""
    with_large_weights(model).save_pretrained(directory)
    make_tokenizer(directory)
    return model


def make_classifier(architecture: str = "llama", seed: int = 0, **changes: object) -> PreTrainedModel:
    """Returns a random classifier whose probabilities differ visibly between texts."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(ARCHITECTURES[architecture](**{**SIZES, **changes}))
    return with_large_weights(model)


def make_model(directory: Path, architecture: str = "llama", seed: int = 0, **changes: object) -> Path:
    """Saves a random 3-label classifier and its tokenizer in `directory`."""
    make_classifier(architecture, seed, **changes).save_pretrained(directory)
    make_tokenizer(directory)
    return directory


def language_model(seed: int = 0, **changes: object) -> PreTrainedModel:
    """Returns a random causal language model."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(LlamaConfig(**{**SIZES, **changes}))
    return with_large_weights(model)


def make_language_model(directory: Path, seed: int = 0, **changes: object) -> Path:
    """Saves a random causal language model and its tokenizer in `directory`."""
    language_model(seed, **changes).save_pretrained(directory)
    make_tokenizer(directory)
    return directory


def make_language_adapter(directory: Path, seed: int = 1) -> Path:
    """Saves a LoRA adapter of the model of `make_language_model`."""
    config = peft.LoraConfig(task_type=peft.TaskType.CAUSAL_LM, r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"])
    model = peft.get_peft_model(language_model(), config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    model.save_pretrained(directory)
    return directory


def make_backbone(directory: Path, architecture: str = "llama", seed: int = 0) -> Path:
    """Saves the weights of `make_model` without the head, as base models come, and the tokenizer."""
    make_classifier(architecture, seed).model.save_pretrained(directory)
    make_tokenizer(directory)
    return directory


def make_adapter(directory: Path, architecture: str = "llama", seed: int = 1, **changes: object) -> Path:
    """Saves a LoRA adapter with a head for the model of `make_model` or `make_backbone`; its lora_B are not zero."""
    config = peft.LoraConfig(
        task_type=peft.TaskType.SEQ_CLS, r=4, lora_alpha=8, target_modules=["o_proj", "v_proj"], lora_dropout=0.1
    )
    model = peft.get_peft_model(make_classifier(architecture, **changes), config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.normal_(std=0.3)
    model.save_pretrained(directory)
    return directory
