"""Imported pickles and state dicts of the notebook become artefacts that give the same numbers, or a sentence."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file
from sklearn.feature_extraction.text import CountVectorizer

from lmsys_ray.checkpoints.loading import load_classifier
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.cli import import_artifacts
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.members.lightgbm.scorer import LightGBMScorer
from lmsys_ray.members.lightgbm.settings import LightGBMSettings
from tests.members.lightgbm.fitted import Fitted, fit
from tests.members.lightgbm.texts import conversations
from tests.tiny_llama import make_backbone, make_classifier

State = dict[str, torch.Tensor]


def run(*arguments: object) -> None:
    import_artifacts.main([*map(str, arguments)])


@pytest.fixture
def fitted() -> Fitted:
    return fit()


@pytest.fixture
def pickles(fitted: Fitted, tmp_path: Path) -> Path:
    directory = tmp_path / "pickles"
    directory.mkdir()
    objects = {"cvec": fitted.cvec, "ccvec": fitted.ccvec, "lgb_models": fitted.models}
    for name, value in objects.items():
        (directory / f"{name}.pkl").write_bytes(pickle.dumps(value))
    return directory


def test_pickles_become_a_member_with_the_same_scores(fitted: Fitted, pickles: Path, tmp_path: Path) -> None:
    run("--output", tmp_path / "new", "--pickles", pickles, "--trust-pickle")
    rows = conversations(40, seed=11)
    settings = LightGBMSettings(kind="lightgbm", artifacts=str(tmp_path / "new" / "lightgbm"))
    expected = fitted.probabilities(rows.to_pandas()).astype(np.float32)
    assert np.array_equal(LightGBMScorer(settings, "auto").score(rows).probabilities, expected)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["lightgbm"]


def test_pickles_are_not_opened_without_trust(pickles: Path, tmp_path: Path) -> None:
    (pickles / "cvec.pkl").write_bytes(b"cbuiltins\nexit\n(I77\ntR.")  # a pickle that ends the process
    with pytest.raises(UsageError, match=re.escape("runs whatever code its maker put in")):
        run("--output", tmp_path / "new", "--pickles", pickles)
    assert not (tmp_path / "new").exists()


def write(name: str, value: object) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_bytes(pickle.dumps(value))  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda d: (d / "ccvec.pkl").unlink(), "ccvec.pkl does not exist"),
        (lambda d: (d / "cvec.pkl").write_bytes(b"\x80\x04"), "cvec.pkl cannot be unpickled here"),
        (write("cvec.pkl", CountVectorizer(analyzer=str.split).fit(["a b"])), "its analyzer is a function"),
        (write("cvec.pkl", CountVectorizer().fit(["two words"])), "do not belong together"),
        (write("lgb_models.pkl", []), "holds no model"),
        (write("lgb_models.pkl", ["a model"]), "model 0 is a str"),
    ],
)
def test_pickles_that_do_not_hold_the_trio_are_refused(
    pickles: Path,
    tmp_path: Path,
    damage: Callable,
    sentence: str,
) -> None:
    damage(pickles)
    with pytest.raises(RunError, match=re.escape(sentence)):
        run("--output", tmp_path / "new", "--pickles", pickles, "--trust-pickle")
    assert not (tmp_path / "new").exists()


def peft_model(seed: int = 3) -> peft.PeftModel:
    config = peft.LoraConfig(
        task_type=peft.TaskType.SEQ_CLS, r=16, lora_alpha=32, target_modules=["o_proj", "v_proj"], lora_dropout=0.1
    )
    model = peft.get_peft_model(make_classifier(), config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.normal_(std=0.3)
    return model.eval()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_backbone(tmp_path / "base")


def import_state(tmp_path: Path, base: Path, state: object, *more: str) -> None:
    torch.save(state, tmp_path / "state.pth")
    arguments = ("--output", tmp_path / "new", "--state-dict", tmp_path / "state.pth", "--model", base, *more)
    run(*arguments)


def with_plain_head(state: State) -> State:
    head = state.pop("base_model.model.score.modules_to_save.default.weight")
    del state["base_model.model.score.original_module.weight"]
    return state | {"base_model.model.score.weight": head}


@pytest.mark.parametrize("change", [lambda state: state, with_plain_head], ids=["whole dict", "plain head"])
def test_a_state_dict_becomes_the_adapter_it_came_from(
    base: Path, tmp_path: Path, change: Callable[[State], State]
) -> None:
    model = peft_model()
    import_state(tmp_path, base, change(dict(model.state_dict())))
    saved = load_file(tmp_path / "new" / "adapter" / "adapter_model.safetensors")
    expected = peft.get_peft_model_state_dict(model)
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[key], expected[key]) for key in expected)
    settings = ClassifierSettings(
        kind="llama", model=str(base), adapter=str(tmp_path / "new" / "adapter"), max_length=64, quantization="none"
    )
    head = load_classifier(settings, Wanted.three_labels()).head
    assert torch.equal(head.weight, expected["base_model.model.score.weight"])


def without(*fragments: str) -> Callable[[State], State]:
    return lambda state: {key: value for key, value in state.items() if not any(f in key for f in fragments)}


def changed(fragment: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[State], State]:
    return lambda state: {key: change(value) if fragment in key else value for key, value in state.items()}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without(".lora_"), "holds no LoRA weights"),
        (without("layers.1.self_attn.v_proj.lora_A"), "lacks base_model.model.model.layers.1.self_attn.v_proj.lora_A"),
        (without("score"), "brings no head"),
        (changed("lora_B", torch.zeros_like), "every lora_B"),
        (changed("lora_A", lambda value: value[:8]), "has the shape [8, 32]"),
        (changed("lora_A", lambda value: value.to(torch.int8)), "holds torch.int8"),
        (lambda state: state | {"x.lora_A.default.weight": torch.ones(1)}, "has x.lora_A.weight beside"),
        (lambda state: {"model": state, "epoch": 3}, "not a mapping of names to tensors (it holds model, epoch)"),
        (lambda state: Path("code"), "is not a state dict that can be read safely"),
    ],
)
def test_a_state_dict_that_is_not_the_models_is_refused(
    base: Path,
    tmp_path: Path,
    change: Callable[[State], object],
    sentence: str,
) -> None:
    with pytest.raises(RunError, match=re.escape(sentence)):
        import_state(tmp_path, base, change(dict(peft_model().state_dict())))
    assert not (tmp_path / "new").exists()


def test_lora_settings_can_be_told(base: Path, tmp_path: Path) -> None:
    state = changed("lora_A", lambda v: v[:8])(changed("lora_B", lambda v: v[:, :8])(dict(peft_model().state_dict())))
    import_state(tmp_path, base, state, "--set", "lora.r=8", "--set", "lora.alpha=8")
    config = peft.PeftConfig.from_pretrained(str(tmp_path / "new" / "adapter"))
    assert (config.r, config.lora_alpha, config.lora_dropout) == (8, 8, 0.1)
    assert config.target_modules == {"o_proj", "v_proj"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "nothing to import"),
        (["--state-dict", "x.pth"], "--state-dict needs --model"),
        (["--state-dict", "x.pth", "--model", "m"], "x.pth does not exist"),
        (["--state-dict", "x.pth", "--model", "m", "--set", "lora.rank=8"], "lora.rank = 8 is not accepted"),
        (["--state-dict", "x.pth", "--model", "m", "--set", "lora.r=many"], "lora.r = 'many' is not accepted"),
        (["--state-dict", "x.pth", "--model", "m", "--set", "r"], "not of the form key.path=value"),
    ],
)
def test_wrong_commands_are_told_so(
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        run("--output", tmp_path, *arguments)


def test_what_is_there_is_not_overwritten(pickles: Path, tmp_path: Path) -> None:
    (tmp_path / "new" / "lightgbm").mkdir(parents=True)
    (tmp_path / "new" / "lightgbm" / "precious").touch()
    with pytest.raises(UsageError, match=re.escape("exists already")):
        run("--output", tmp_path / "new", "--pickles", pickles, "--trust-pickle")
