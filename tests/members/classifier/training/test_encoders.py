"""Encoders, and models of which all weights are trained: this package scores them as their training judged them."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

from lmsys_ray.checkpoints.loading import load_classifier
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.data.labelled_rows import LabelledRows
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.encoder import ClassifierEncoder
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.members.classifier.training.building import build_classifier
from lmsys_ray.members.classifier.training.loop import TrainingLoop
from lmsys_ray.members.classifier.training.options import TrainingSettings
from lmsys_ray.members.classifier.training.output import finish
from tests.members.classifier.training import test_loop
from tests.members.classifier.training.test_loop import CPU, conversations, ignore, make_loop
from tests.tiny_llama import make_backbone, make_tokenizer

TOLERANCE = 1e-5
HELD_OUT = 24

_SIZES = {
    **{"vocab_size": 400, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "max_position_embeddings": 160, "pad_token_id": 1},
}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {"type_vocab_size": 2},
    "roberta": {"type_vocab_size": 1, "max_position_embeddings": 162},
    "xlm-roberta": {"type_vocab_size": 1, "max_position_embeddings": 162},
    "electra": {"embedding_size": 16},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16,
                   "share_att_key": True, "norm_rel_ebd": "layer_norm", "type_vocab_size": 0},
    "modernbert": {"local_attention": 16, "global_attn_every_n_layers": 2, "cls_token_id": 0, "sep_token_id": 2,
                   "bos_token_id": 0, "eos_token_id": 2},
}  # fmt: skip

PAIR = ["{prompt}", "A: {response_a}\nB: {response_b}"]


def settings(base: Path, **changes: Any) -> TrainingSettings:
    """Returns the options of a short training, gentle enough that rows keep different probabilities."""
    short = {"rank": 16, "learning_rate": 1e-3, "head_learning_rate": 0.01}
    return test_loop.settings(base, **{**short, **changes})


def make_encoder(folder: Path, kind: str, made: Any = AutoModel, pairs: bool = False, **changes: Any) -> Path:
    """Saves a random encoder without a head of three labels, and a tokenizer, which may join pairs as BERT's does."""
    torch.manual_seed(4)
    model = made.from_config(AutoConfig.for_model(kind, **{**_SIZES, **ENCODERS[kind], **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.2)  # or all rows would get the same probabilities
    model.save_pretrained(folder)
    tokenizer = make_tokenizer(folder)
    if pairs:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A <|end|>",
            pair="<|begin|> $A <|end|> $B:1 <|end|>:1",
            special_tokens=[("<|begin|>", 0), ("<|end|>", 2)],
        )
        tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def trained(chosen: TrainingSettings, directory: Path) -> TrainingLoop:
    """Trains, and completes the output as the command does."""
    loop = make_loop(chosen, directory, HELD_OUT)
    loop.run(ignore)
    loop.finish()
    table, labels = conversations(48)
    rows = LabelledRows([str(n) for n in range(48)], table, labels, np.arange(48), 0)
    finish(chosen, loop.files, rows, np.arange(48), np.arange(HELD_OUT))
    return loop


def member_of(chosen: TrainingSettings, loop: TrainingLoop) -> ClassifierSettings:
    """Returns the member that a user would write, by the output's own scoring.json."""
    noted = json.loads((loop.files.result / "scoring.json").read_text())
    own = {key: noted[key] for key in ("layers", "text", "template", "max_length", "truncation", "special_tokens")}
    result = str(loop.files.result)
    named = {"model": chosen.model, "adapter": result} if chosen.lora == "adapter" else {"model": result}
    return ClassifierSettings(kind="classifier", threads=1, device="cpu", **named, **own)


def check_scored_as_judged(chosen: TrainingSettings, loop: TrainingLoop) -> ClassifierScorer:
    member = member_of(chosen, loop)
    scorer = ClassifierScorer(member, threads=1)
    scored = scorer.score(ClassifierEncoder(member).encode(conversations(HELD_OUT)[0])).probabilities
    judged = loop.files.load_probabilities(HELD_OUT)
    assert np.ptp(judged, axis=0).min() > 20 * TOLERANCE
    np.testing.assert_allclose(scored, judged, atol=TOLERANCE)
    with (loop.files.result / "out_of_fold.csv").open() as file:
        written = [[float(row[name]) for name in ("a", "b", "tie")] for row in csv.DictReader(file)]
    np.testing.assert_allclose(written, judged, atol=1e-6)
    return scorer


@pytest.mark.parametrize("lora", ["adapter", "none"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_are_scored_as_their_training_judged_them(kind: str, lora: str, tmp_path: Path) -> None:
    chosen = settings(make_encoder(tmp_path / "base", kind), lora=lora, epochs=1)
    loop = trained(chosen, tmp_path / "run")
    check_scored_as_judged(chosen, loop)
    names = {path.name for path in loop.files.result.iterdir()}
    weights = {"adapter_model.safetensors", "adapter_config.json"} if lora == "adapter" else {"model.safetensors"}
    assert weights <= names
    assert ("adapter_config.json" in names) == (lora == "adapter")


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_decoders_of_which_all_weights_are_trained_too(architecture: str, tmp_path: Path) -> None:
    base = make_backbone(tmp_path / "base", architecture)
    chosen = settings(base, lora="none", layers=1, learning_rate=0.003)
    loop = trained(chosen, tmp_path / "run")
    lines = loop.files.read_metrics()
    assert loop.progress.best_loss < lines[0]["validation_loss"]
    check_scored_as_judged(chosen, loop)
    assert json.loads((loop.files.result / "config.json").read_text())["num_hidden_layers"] == 1
    assert (loop.files.result / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    reloaded = AutoModelForSequenceClassification.from_pretrained(loop.files.result)
    assert reloaded.config.id2label == {0: "a", 1: "b", 2: "tie"}


def test_a_model_that_notes_its_pooling_is_pooled_at_the_last_token(base: Path, tmp_path: Path) -> None:
    chosen = settings(base, lora="none", epochs=1)
    loop = trained(chosen, tmp_path)
    member = member_of(chosen, loop)
    assert load_classifier(member, Wanted.three_labels()).pooling_pad is None
    file = loop.files.result / "scoring.json"
    noted = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in noted.items() if key != "pooling"}))
    assert load_classifier(member, Wanted.three_labels()).pooling_pad == 1


@pytest.mark.parametrize(
    ("key", "value"), [("layers", 1), ("text", "notebook"), ("template", "notebook"), ("truncation", "right")]
)
def test_a_model_that_is_read_otherwise_than_in_training_is_refused(
    key: str, value: object, base: Path, tmp_path: Path
) -> None:
    chosen = settings(base, lora="none", epochs=0.5)
    member = member_of(chosen, trained(chosen, tmp_path)).model_copy(update={key: value})
    with pytest.raises(UsageError, match=f"^model: .* was trained with {key} = .*set {key} as in training") as refused:
        load_classifier(member, Wanted.three_labels())
    assert "\n" not in str(refused.value)


def test_a_model_in_16_bits_notes_its_type(base: Path, tmp_path: Path) -> None:
    chosen = settings(base, lora="none", epochs=1, dtype="bfloat16")
    loop = trained(chosen, tmp_path)
    member = member_of(chosen, loop).model_copy(update={"dtype": "bfloat16"})
    scorer = ClassifierScorer(member, threads=1)
    scored = scorer.score(ClassifierEncoder(member).encode(conversations(HELD_OUT)[0])).probabilities
    np.testing.assert_allclose(scored, loop.files.load_probabilities(HELD_OUT), atol=2e-2)
    assert scorer.notes == []
    (note,) = ClassifierScorer(member.model_copy(update={"dtype": "float32"}), threads=1).notes
    assert note.startswith(f"model: {loop.files.result} was trained in bfloat16")


@pytest.mark.parametrize("lora", ["adapter", "none"])
def test_a_pair_is_trained_and_scored_with_the_types_of_its_texts(lora: str, tmp_path: Path) -> None:
    base = make_encoder(tmp_path / "base", "bert", pairs=True)
    chosen = settings(base, lora=lora, epochs=1, template=PAIR)
    loop = trained(chosen, tmp_path / "run")
    second = loop.training.second(np.arange(48), np.zeros(48, bool))
    assert second is not None
    assert (second > 1).all()
    check_scored_as_judged(chosen, loop)
    row = loop.validation.straight[0] if loop.validation else np.empty(0)
    tokenizer, table = PreTrainedTokenizerFast.from_pretrained(base), conversations(1)[0]
    cells = {name: "\n\n".join(json.loads(table[name][0].as_py())) for name in table.column_names[1:]}
    pair = tokenizer(*(text.format(**cells) for text in PAIR), return_token_type_ids=True)
    assert row.tolist() == pair["input_ids"]
    types = (np.arange(len(row)) >= second[0]).astype(int)
    assert types.tolist() == pair["token_type_ids"]


def test_a_killed_training_of_all_weights_goes_on_to_the_same_weights_despite_dropout(tmp_path: Path) -> None:
    chosen = settings(make_encoder(tmp_path / "base", "bert"), lora="none", epochs=2)
    assert AutoConfig.from_pretrained(chosen.model).hidden_dropout_prob > 0
    whole = make_loop(chosen, tmp_path / "whole")
    whole.run(ignore)

    def die_at_step_8(line: dict[str, Any]) -> None:
        if line["step"] == 8:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        make_loop(chosen, tmp_path / "killed").run(die_at_step_8)
    resumed = make_loop(chosen, tmp_path / "killed")
    resumed.run(ignore)
    after = resumed.classifier.weights()
    for key, weight in whole.classifier.weights().items():
        torch.testing.assert_close(after[key], weight, atol=1e-6, rtol=1e-5)


def test_every_weight_learns_and_norms_and_biases_do_not_decay(tmp_path: Path) -> None:
    chosen = settings(make_encoder(tmp_path / "base", "bert"), lora="none", weight_decay=0.1, learning_rate=None)
    loop = make_loop(chosen, tmp_path / "run")
    named: dict[str, torch.nn.Parameter] = dict(loop.classifier.named_parameters())
    places = {id(weight): group for group in loop.optimizer.param_groups for weight in group["params"]}
    assert places.keys() == {id(weight) for weight in named.values()}
    for name, weight in named.items():
        group = places[id(weight)]
        assert group["weight_decay"] == (0.1 if weight.ndim > 1 else 0), name
        assert group["initial_lr"] == (0.01 if "classifier" in name else 2e-5), name
    before = loop.classifier.weights()
    loop._step(0)
    loop._step(1)
    moved = loop.classifier.weights()
    still = {name for name in before if torch.equal(before[name], moved[name])}
    assert still <= {name for name in before if "attention.self.key.bias" in name}  # which cancels in a softmax


def test_a_pooling_layer_that_the_base_lacks_is_trained_or_refused(tmp_path: Path) -> None:
    base = make_encoder(tmp_path / "base", "bert", made=AutoModelForMaskedLM)
    with pytest.raises(UsageError, match=r"lacks bert\.pooler.*, which an adapter would leave random; set lora=none"):
        build_classifier(settings(base), CPU)
    chosen = settings(base, lora="none", epochs=1)
    check_scored_as_judged(chosen, trained(chosen, tmp_path / "run"))


def test_a_head_of_one_score_is_replaced(tmp_path: Path) -> None:
    base = make_encoder(tmp_path / "base", "electra", AutoModelForSequenceClassification, num_labels=1)
    chosen = settings(base, lora="none", epochs=1)
    check_scored_as_judged(chosen, trained(chosen, tmp_path / "run"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_length": 161}, "max_length: 161 exceeds the 160 positions"),
        ({"compile": True}, "compile: .* is a BertForSequenceClassification, which is not compiled"),
        ({"layers": 1}, "layers: .* is a BertForSequenceClassification, which is not cut to 1"),
        ({"keep_frozen": True, "top_layers": 1}, "keep_frozen: there is nothing to keep"),
    ],
)
def test_what_an_encoder_cannot_do_is_one_sentence(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    base = make_encoder(tmp_path / "base", "bert")
    with pytest.raises(UsageError, match=said) as refused:
        build_classifier(settings(base, **change), CPU)
    assert "\n" not in str(refused.value)


def test_a_pair_for_a_decoder_is_one_sentence(base: Path) -> None:
    with pytest.raises(UsageError, match=r"^template: two texts are for encoders such as DeBERTa, and .* give one"):
        build_classifier(settings(base, template=PAIR), CPU)


@pytest.mark.parametrize(
    "change", [{"rank": 8}, {"quantization": "nf4"}, {"top_layers": 1}, {"dropout": 0.1}, {"targets": ["query"]}]
)
def test_options_of_adapters_are_refused_where_all_weights_train(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))} is of adapters: leave it out, or lora=adapter"):
        settings(Path("base"), lora="none", **change)
