"""Chooses the form in which a model scores rows: the fastest whose results are those of transformers."""

from dataclasses import dataclass, replace

from lmsys_ray.config import LlamaSettings
from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama import devices
from lmsys_ray.members.llama.decoder import TransformersDecoder
from lmsys_ray.members.llama.loading import Classifier, load_classifier
from lmsys_ray.members.llama.packing import Padding
from lmsys_ray.members.llama.reading import READING_ERRORS, reason
from lmsys_ray.members.llama.runner import Runner
from lmsys_ray.members.llama.self_check import difference, influence
from lmsys_ray.members.usage import Usage

_QUOTED = 120
"""Characters of another library's error that a sentence quotes."""


@dataclass(frozen=True)
class RowForm:
    """How rows are put together, and what the model's linear layers are."""

    padding: Padding
    masked: bool = False
    """Whether the model is told which slots are padding."""
    plain: bool = False
    """Whether linear layers stay PyTorch's own."""


@dataclass(frozen=True)
class Tried:
    """A form that was tried, and what came of it."""

    form: RowForm
    difference: float | None
    """Of a logit from what transformers computes, at most; none where the model does not run so."""
    failure: str = ""
    """What keeps the form from being used; empty where nothing does."""

    def __str__(self) -> str:
        masked = " and a mask" if self.form.masked else ""
        plain = " and plain linear layers" if self.form.plain else ""
        return f"padding {self.form.padding}{masked}{plain} {self.failure}"


def checked_runner(settings: LlamaSettings) -> tuple[Runner, list[Tried]]:
    """Loads the model that `settings` describe; returns what runs it, and the forms that were tried, the used one last.

    Raises `UsageError` where the model cannot be loaded or believed, or gives in no form what transformers gives.
    """
    tried: list[Tried] = []
    classifier = None
    for form in _forms(settings.padding):
        if form.plain and any(earlier.difference is not None for earlier in tried if not earlier.form.plain):
            break  # It runs, so its linear layers are not what is wrong.
        if classifier is None or not _serves(classifier, form):
            classifier = load_classifier(settings, form.padding, form.plain)
        runner = _runner(classifier, form, settings)
        tried.append(_compared(runner, form))
        if not tried[-1].failure:
            return runner, tried
    raise UsageError(
        f"model: {settings.model} does not give here what it gives in transformers ({'; '.join(map(str, tried))}); "
        "use another model"
    )


def _forms(padding: Padding) -> list[RowForm]:
    """Returns the forms to try for a setting.

    What cannot be packed often needs a mask; where padding is asked for, most models do without, which is faster.
    """
    masked, unmasked = (RowForm("longest" if padding == "none" else padding, masked) for masked in (True, False))
    forms = [RowForm("none"), masked, unmasked] if padding == "none" else [unmasked, masked]
    return [*forms, *(replace(form, plain=True) for form in forms)]


def _serves(classifier: Classifier, form: RowForm) -> bool:
    """Returns whether a loaded classifier can take a form; one for packed rows alone has used its weights up."""
    return isinstance(classifier.backbone, TransformersDecoder) and classifier.plain == form.plain


def _runner(classifier: Classifier, form: RowForm, settings: LlamaSettings) -> Runner:
    batch_tokens = devices.CPU_BATCH_TOKENS if settings.batch_tokens == "auto" else settings.batch_tokens
    return Runner(classifier, form.padding, settings.max_length, batch_tokens, form.masked)


def _compared(runner: Runner, form: RowForm) -> Tried:
    """Runs the probe rows in one micro-batch and compares."""
    classifier, wanted = runner.classifier, runner.classifier.expected
    if not classifier.causal and not form.masked:
        return Tried(form, None, "would let tokens see those of other rows, or padding")
    budget, runner.batch_tokens = runner.batch_tokens, max(runner.batch_tokens, len(wanted.flat))
    try:
        if isinstance(classifier.backbone, TransformersDecoder):
            classifier.backbone.prepare(form.padding == "none", form.masked)
        logits = runner.logits(wanted.flat, wanted.starts)
        found, moved = difference(logits, wanted.logits), influence(runner.logits, logits, wanted)
    except READING_ERRORS as error:
        return Tried(form, None, f"does not run ({type(error).__name__}: {reason(error)[:_QUOTED]})")
    runner.batch_tokens, runner.usage = budget, Usage()
    if not found <= wanted.allowed:
        return Tried(form, found, f"moves a logit by {found:.2g}")
    within = moved <= wanted.allowed_influence
    return Tried(form, found, "" if within else f"lets other rows move a logit by {moved:.2g}")
