"""The preset `notebook` gives the notebook's submission, from the notebook's own artefacts, imported by the job."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import peft
import pytest
import torch
from transformers import LlamaForSequenceClassification, PreTrainedTokenizerFast

from lmsys_ray.cli.score import parser, score_settings
from lmsys_ray.members.classifier.import_state_dict import LoraSettings, import_state_dict
from lmsys_ray.members.lightgbm.import_pickles import import_pickles
from lmsys_ray.scoring.job import score
from lmsys_ray.scoring.progress import Display
from tests.members.lightgbm.fitted import fit
from tests.members.lightgbm.texts import conversations
from tests.notebook_reference import llama_probabilities, notebook_text
from tests.tiny_llama import make_backbone

MAX_LENGTH = 192
LORA = peft.LoraConfig(
    task_type=peft.TaskType.SEQ_CLS,
    r=16,
    lora_alpha=32,
    lora_dropout=0.1,
    bias="none",
    target_modules=["o_proj", "v_proj"],
)


def notebook_model(base: Path, state_file: Path) -> torch.nn.Module:
    """The notebook's way: a PEFT-wrapped classifier that takes a whole state dict, strict=False."""
    model = LlamaForSequenceClassification.from_pretrained(base, num_labels=3, dtype=torch.float32)
    model.config.pad_token_id = 1
    model = peft.get_peft_model(model, LORA)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.normal_(std=0.3)
    torch.save(model.state_dict(), state_file)
    model.load_state_dict(torch.load(state_file, weights_only=True), strict=False)
    return model.eval()


def made_input(path: Path) -> pd.DataFrame:
    """Conversations with every quirk, in a CSV with real newlines, nulls, empty cells and ids beyond 2^53."""
    frame = conversations(60, seed=11).to_pandas()
    frame["id"] = [2**62 + 17 * (n * 31 % 60) for n in range(60)]
    frame = frame.drop(columns="row")
    frame.to_csv(path, index=False)
    return frame


@pytest.mark.usefixtures("ray_session")
def test_preset_notebook_equals_the_notebook(tmp_path: Path) -> None:
    frame = made_input(tmp_path / "test.csv")
    base = make_backbone(tmp_path / "base")
    model = notebook_model(base, tmp_path / "state.pt")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(base / "tokenizer.json"), pad_token="<|pad|>", padding_side="right", truncation_side="right"
    )
    pickles = tmp_path / "pickles"
    pickles.mkdir()
    fitted = fit()
    for name, value in {"cvec": fitted.cvec, "ccvec": fitted.ccvec, "lgb_models": fitted.models}.items():
        (pickles / f"{name}.pkl").write_bytes(pickle.dumps(value))
    expected = 0.05 * fitted.probabilities(frame) + 0.95 * llama_probabilities(frame, model, tokenizer, MAX_LENGTH)

    import_pickles(pickles, tmp_path / "artifacts" / "lightgbm", trusted=True)
    import_state_dict(tmp_path / "state.pt", str(base), LoraSettings(), tmp_path / "artifacts" / "adapter")
    changes = {
        "members.llama.model": base,
        "members.llama.adapter": tmp_path / "artifacts" / "adapter",
        "members.llama.max_length": MAX_LENGTH,
        "members.lightgbm.artifacts": tmp_path / "artifacts" / "lightgbm",
    }
    sets = [argument for key, value in changes.items() for argument in ("--set", f"{key}={value}")]
    files = ["--input", str(tmp_path / "test.csv"), "--output", str(tmp_path / "run")]
    with Display() as display:
        score(score_settings(parser().parse_args(["--preset", "notebook", *files, *sets])), display)

    submission = pd.read_csv(tmp_path / "run" / "submission.csv")
    assert submission["id"].tolist() == frame["id"].tolist()
    difference = np.abs(submission.iloc[:, 1:].to_numpy() - expected).max()
    print(f"largest difference to the notebook: {difference:.2e}")
    assert difference < 1e-5
    lengths = [len(tokenizer(notebook_text(cell))["input_ids"]) for cell in frame["response_a"]]
    assert max(lengths) > MAX_LENGTH > min(lengths), "the input should have rows that are cut and rows that are padded"
