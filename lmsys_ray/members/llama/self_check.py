"""Whether a model, in the form in which it scores rows, computes what transformers computes.

A few short rows of random tokens go through transformers' own model one at a time, before anything of it is replaced,
and later through the form that scores. What is compared are logits. In 16 bits these differ by rounding as much as by
some faults; there it tells more that a row's logits stay the same, to the bit in most models, where others change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama.config_checks import long_beyond
from lmsys_ray.members.llama.gpu_memory import is_out_of_memory
from lmsys_ray.members.llama.linear import Form
from lmsys_ray.members.llama.reading import READING_ERRORS, reason

_LENGTHS = (7, 40, 44, 130)
"""Tokens of the rows; the last is long enough for the kernels of long rows (see `query_blocks`)."""

_DISTINCT = 16
"""Tokens that a row is drawn from: like a text's, they come again, so that what depends on equal ones shows."""

_BEYOND = 32
"""Tokens by which the last row exceeds what a model attends to at once, where rows may be so long."""

_SHARED = 24
"""Tokens with which the third row begins as the second does."""

_FLOORS = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
"""What logits may differ by, beside 1 plus the largest of them, whatever the model does with rounding errors."""

_CEILING = 4
"""Noise is believed up to so many times the floor: beyond, a model has ties that rounding breaks, or worse."""

_QUANTIZED_FLOOR = 0.1
"""The same where activations are rounded to 8 bits on the way."""

_INFLUENCE = 0.25
"""What other rows may move a logit by, in floors: nothing but how a library groups the tokens of its experts."""

_TIMES_NOISE = 16
"""Logits may differ by so many times what rounding the embeddings once more moves them by."""


@dataclass(frozen=True)
class Expected:
    """What transformers computes of the rows, each by itself."""

    flat: np.ndarray
    """Token ids of all rows."""
    starts: np.ndarray
    """Row i is `flat[starts[i]:starts[i + 1]]`."""
    logits: torch.Tensor
    """float32 [rows, labels], on the CPU."""
    allowed: float
    """By how much a logit may differ."""
    changed: tuple[tuple[np.ndarray, list[int]], ...]
    """Token ids of rows of the same lengths, and which of the rows are as before: their logits must be, too.

    Empty where that would tell nothing more.
    """
    allowed_influence: float
    """By how much the logit of such a row may move."""


def probe_rows(
    vocabulary: int, longest: int, left_out: set[int], window: int = 0, first_seed: int = 0
) -> list[np.ndarray]:
    """Returns rows of ids below `vocabulary` without those `left_out`, of `longest` tokens at most.

    They are the same at each call. The third begins as the second does; the last has more than `window` tokens.
    """
    ids = np.array([i for i in range(vocabulary) if i not in left_out], np.int32)
    lengths = [*_LENGTHS[:-1], max(_LENGTHS[-1], window + _BEYOND)]
    rows = []
    for seed, length in enumerate(lengths, first_seed):
        random = np.random.default_rng(seed)
        rows.append(random.choice(random.choice(ids, _DISTINCT), min(length, longest)))
    shared = min(_SHARED, longest - 1)
    rows[2][:shared] = rows[1][:shared]
    return rows


def _changed(rows: list[np.ndarray], others: list[np.ndarray]) -> tuple[tuple[np.ndarray, list[int]], ...]:
    """Returns two mixtures of `rows` and `others`, and which are of `rows`; the third begins as the second does."""
    shared = min(_SHARED, len(rows[1]) - 1)
    for other in others[1:3]:
        other[:shared] = rows[1][:shared]
    kept = ([0, 2], [1, 3])
    return tuple((np.concatenate([(rows if i in k else others)[i] for i in range(len(rows))]), k) for k in kept)


def expected(model: PreTrainedModel, name: str, longest: int, form: Form | None, rounds: bool) -> Expected:
    """Returns what `model`, as transformers has it, computes of the probe rows.

    `form` is what linear layers will be replaced by where that changes numbers: like is compared with like. `rounds`
    says whether activations are rounded to 8 bits, by that or by the model itself. Raises `UsageError` where
    transformers cannot run the model named `name`.
    """
    config = model.config.get_text_config()
    window = max((size for size in _windows(config) if size < longest), default=0)
    rows, others = (probe_rows(config.vocab_size, longest, _special_ids(config), window, seed) for seed in (0, 100))
    try:
        with torch.inference_mode(), _computing_as(model.base_model, form) if form else nullcontext():
            logits = torch.cat([_logits(model, row) for row in rows])
            with _perturbed_embeddings(model):
                moved = torch.cat([_logits(model, row) for row in rows[1:3]])
    except READING_ERRORS as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise UsageError(
                f"model: {name} leaves no memory on the device for {sum(map(len, rows))} tokens; set quantization to "
                "int8 or nf4, or give a replica more GPUs"
            ) from None
        why = f"{type(error).__name__}: {reason(error)}"
        raise UsageError(f"model: transformers cannot run {name} here ({why}); use another model") from None
    finite = logits.isfinite().all(dim=1)
    if not finite.any():
        raise UsageError(f"model: {name} gives logits that are not finite; set dtype to bfloat16 or float32")
    noise = (moved - logits[1:3])[finite[1:3]].nan_to_num().abs().amax().item() if finite[1:3].any() else 0.0
    floor = max(_FLOORS[model.dtype], _QUANTIZED_FLOOR if rounds else 0.0)
    least = floor * (1 + logits[finite].abs().max().item())
    allowed = min(max(least, _TIMES_NOISE * noise), _CEILING * least)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    # In float32 every fault is larger than what is allowed, and 8 bits of bitsandbytes depend on the whole micro-batch.
    changed = () if rounds or model.dtype == torch.float32 else _changed(rows, others)
    return Expected(np.concatenate(rows), starts, logits, allowed, changed, least * _INFLUENCE)


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Returns by how much logits [rows, labels] differ at most; infinity where one that is found is not a number.

    Rows of which nothing finite is wanted are not looked at: each such row is told when it is scored.
    """
    finite = wanted.isfinite().all(dim=1)
    if not finite.any():
        return 0.0
    return float(torch.nan_to_num((found - wanted)[finite].abs().max(), nan=float("inf")))


def influence(run: Callable[[np.ndarray, np.ndarray], torch.Tensor], found: torch.Tensor, wanted: Expected) -> float:
    """Returns by how much a logit of a row moves at most where others change.

    `found` [rows, labels] are the logits of the rows as they were, and `run` returns those of ids and starts.
    """
    moves = (difference(run(flat, wanted.starts)[kept], found[kept]) for flat, kept in wanted.changed)
    return max(moves, default=0.0)


def _logits(model: PreTrainedModel, row: np.ndarray) -> torch.Tensor:
    """Returns float32 logits [1, labels] of one row of token ids; the head is one of float32, as in scoring."""
    device = next(model.get_input_embeddings().parameters()).device
    ids = torch.from_numpy(row[None].astype(np.int64)).to(device)
    head: Any = model.score
    in_float32 = head.register_forward_pre_hook(lambda module, inputs: tuple(states.float() for states in inputs))
    try:
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    finally:
        in_float32.remove()
    return logits.float().cpu()


def _special_ids(config: Any) -> set[int]:
    """Returns the ids that `config` gives a meaning of their own, such as padding or an image."""
    named = [value for key, value in config.to_dict().items() if key.endswith(("_token_id", "_token_index"))]
    return {i for value in named for i in (value if isinstance(value, Sequence) else [value]) if isinstance(i, int)}


def _windows(config: Any) -> list[int]:
    """Returns numbers of tokens at which a model may begin to compute otherwise: what it attends to at once, say."""
    named = config.to_dict().items()
    windows = [value for key, value in named if "window" in key or "chunk" in key or key == "block_size"]
    windows.append(long_beyond(config))
    return [value for value in windows if type(value) is int]


@contextmanager
def _perturbed_embeddings(model: PreTrainedModel) -> Iterator[None]:
    """Moves what the embeddings give by one rounding error of their type."""

    def moved(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, output.shape, generator=generator, dtype=torch.int8).to(output.device) * 2 - 1
        return output * (1 + signs.to(output.dtype) * torch.finfo(output.dtype).eps)

    handle = model.get_input_embeddings().register_forward_hook(moved)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _computing_as(backbone: nn.Module, form: Form) -> Iterator[None]:
    """Lets plain linear layers compute as `form` of them does, made anew for each call so that no memory is held."""
    linears = [module for module in backbone.modules() if type(module) is nn.Linear]
    for linear in linears:
        linear.forward = partial(_through, form, linear)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for linear in linears:
            del linear.forward


def _through(form: Form, linear: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    made = form(linear)
    return nn.functional.linear(inputs, linear.weight, linear.bias) if made is linear else made(inputs)
