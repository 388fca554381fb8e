"""Chooses how a model scores rows: the fastest batch layout whose results are those of transformers."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from lmsys_ray.checkpoints.loading import load_classifier
from lmsys_ray.checkpoints.reading import READING_ERRORS, reason
from lmsys_ray.checkpoints.self_check import difference, influence
from lmsys_ray.checkpoints.settings import ModelSettings
from lmsys_ray.checkpoints.substitutes import int8_layers, unrounded
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.engine import devices
from lmsys_ray.engine.batching import Padding
from lmsys_ray.engine.classifier import Classifier, Expected
from lmsys_ray.engine.models.encoder import TransformersEncoder
from lmsys_ray.engine.models.transformers import TransformersDecoder
from lmsys_ray.engine.runner import Runner
from lmsys_ray.errors import UsageError

_QUOTED = 120
"""How many characters of another library's error a sentence quotes."""


@dataclass(frozen=True)
class BatchLayout:
    """How rows are put into batches, and whether linear layers are replaced."""

    padding: Padding
    masked: bool = False
    """Whether the model gets a mask of padded slots."""
    plain: bool = False
    """Whether linear layers stay PyTorch's own."""


@dataclass(frozen=True)
class Trial:
    """A layout that was tried, with the result."""

    layout: BatchLayout
    difference: float | None
    """The largest difference of a logit from what transformers computes; none where the model does not run so."""
    failure: str = ""
    """Why the layout cannot be used; empty where it can."""

    def __str__(self) -> str:
        masked = " and a mask" if self.layout.masked else ""
        plain = " and plain linear layers" if self.layout.plain else ""
        return f"padding {self.layout.padding}{masked}{plain} {self.failure}"


Load = Callable[[Padding, bool], Classifier]
"""Loads a model in the form for a padding; the second argument says whether its linear layers stay PyTorch's own."""


def checked_runner(settings: ModelSettings, wanted: Wanted) -> tuple[Runner, list[Trial]]:
    """Loads the classifier that `settings` describe, of which `wanted` is read, as `checked` does."""
    return checked(settings, lambda padding, plain: load_classifier(settings, wanted, padding, plain))


def checked(settings: ModelSettings, load: Load) -> tuple[Runner, list[Trial]]:
    """Loads the model that `settings` describe; returns its runner and the layouts tried, the used one last.

    Raises `UsageError` where the model cannot be loaded or trusted, or matches transformers in no layout.
    """
    tried: list[Trial] = []
    classifier = None
    for layout in _layouts(settings.padding):
        if layout.plain and any(earlier.difference is not None for earlier in tried if not earlier.layout.plain):
            break  # It runs, so its linear layers are not the problem.
        if classifier is None or not _can_use(classifier, layout):
            classifier = load(layout.padding, layout.plain)
        if isinstance(classifier.backbone, TransformersEncoder) and not layout.masked:
            continue
        runner = _runner(classifier, layout, settings)
        tried.append(_compared(runner, layout))
        if not tried[-1].failure:
            return runner, tried
    raise UsageError(
        f"model: {settings.model} does not give here what it gives in transformers ({'; '.join(map(str, tried))}); "
        "use another model"
    )


def _layouts(padding: Padding) -> list[BatchLayout]:
    """Returns the layouts to try for a setting.

    Models that cannot be packed often need a mask; where padding is asked for, most do without, which is faster.
    """
    masked, unmasked = (BatchLayout("longest" if padding == "none" else padding, masked) for masked in (True, False))
    layouts = [BatchLayout("none"), masked, unmasked] if padding == "none" else [unmasked, masked]
    return [*layouts, *(replace(layout, plain=True) for layout in layouts)]


def _can_use(classifier: Classifier, layout: BatchLayout) -> bool:
    """Returns whether a loaded classifier can be used for a layout; `PackedDecoder` takes packed rows only."""
    anyhow = isinstance(classifier.backbone, TransformersDecoder | TransformersEncoder)
    return anyhow and classifier.plain == layout.plain


def _runner(classifier: Classifier, layout: BatchLayout, settings: ModelSettings) -> Runner:
    batch_tokens = devices.CPU_BATCH_TOKENS if settings.batch_tokens == "auto" else settings.batch_tokens
    return Runner(classifier, layout.padding, settings.max_length, batch_tokens, layout.masked)


def _compared(runner: Runner, layout: BatchLayout) -> Trial:
    """Runs the probe rows in one micro-batch and compares the logits."""
    classifier, wanted = runner.classifier, runner.classifier.expected
    if not classifier.causal and not layout.masked:
        return Trial(layout, None, "would let tokens see those of other rows, or padding")
    budget, runner.batch_tokens = runner.batch_tokens, max(runner.batch_tokens, len(wanted.flat))
    try:
        if isinstance(classifier.backbone, TransformersDecoder):
            classifier.backbone.prepare(layout.padding == "none", layout.masked)
        with unrounded(int8_layers(classifier.backbone)):
            logits, _ = runner.logits(wanted.flat, wanted.starts)
            found, moved = (
                difference(logits, wanted.logits),
                influence(lambda flat, starts: runner.logits(flat, starts)[0], logits, wanted),
            )
        rounded = _rounding(runner, wanted)
    except READING_ERRORS as error:
        return Trial(layout, None, f"does not run ({type(error).__name__}: {reason(error)[:_QUOTED]})")
    runner.batch_tokens = budget
    if not found <= wanted.allowed:
        return Trial(layout, found, f"moves a logit by {found:.2g}")
    if not moved <= wanted.allowed_influence:
        return Trial(layout, found, f"lets other rows move a logit by {moved:.2g}")
    if not rounded <= (wanted.allowed_rounded or 0.0):
        return Trial(layout, found, f"moves a logit by {rounded:.2g} by rounding to int8")
    return Trial(layout, found)


def _rounding(runner: Runner, wanted: Expected) -> float:
    """Returns how far a logit is off in scoring where bitsandbytes rounds inputs to int8; 0 where it does not."""
    if wanted.allowed_rounded is None:
        return 0.0
    return difference(runner.logits(wanted.flat, wanted.starts)[0], wanted.logits)
