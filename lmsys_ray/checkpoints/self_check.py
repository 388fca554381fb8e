"""Whether a model, in the form that scores rows, computes what transformers computes.

A few short rows of random tokens run through transformers' own model, one at a time, before anything of it is replaced,
and later through the form that scores. Logits are compared. In 16 bits rounding can hide a fault, so that it is also
checked that a row's logits stay the same, to the bit in most models, when other rows change.

bitsandbytes' int8 rounds inputs in a way that depends on the whole micro-batch, and moves logits by tenths. Such models
are compared with inputs that are not rounded, as tightly as others, and then as they score, loosely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from lmsys_ray.checkpoints.config_checks import long_beyond
from lmsys_ray.checkpoints.reading import READING_ERRORS, reason
from lmsys_ray.checkpoints.substitutes import computing_as, int8_layers, unrounded
from lmsys_ray.engine.classifier import Expected
from lmsys_ray.engine.gpu_memory import is_out_of_memory
from lmsys_ray.engine.linear.forms import LinearFactory
from lmsys_ray.errors import UsageError

_LENGTHS = (7, 40, 44, 130)
"""Tokens of the rows; the last is long enough for the kernels of long rows (see `cpu_blocked`)."""

_DISTINCT = 16
"""How many distinct tokens a row has: as in a text they repeat, so that effects of equal tokens show."""

_BEYOND = 32
"""By how many tokens the last row exceeds a model's attention window, where rows may be so long."""

_SHARED = 24
"""How many first tokens the second and the third row share."""

_FLOORS = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
"""The difference of logits that is always allowed, relative to 1 plus the largest of them."""

_CEILING = 4
"""Noise may raise what is allowed to this multiple of the floor; beyond, rounding breaks ties in the model, or
worse."""

_QUANTIZED_FLOOR = 0.1
"""The floor where activations are rounded to 8 bits."""

_TIMES_ROUNDING = 4
"""Rounded to int8 with other rows, logits may be off by this multiple of what rounding does to each row by itself."""

_INFLUENCE = 0.25
"""How far other rows may move a logit, in floors; it covers only how a library groups the tokens of experts."""

_TIMES_NOISE = 16
"""Logits may differ by this multiple of what one more rounding of the embeddings changes."""


def probe_rows(
    vocabulary: int, longest: int, left_out: set[int], window: int = 0, first_seed: int = 0
) -> list[np.ndarray]:
    """Returns rows of ids below `vocabulary`, except those `left_out`, of at most `longest` tokens.

    They are the same at each call. The third begins like the second; the last has more than `window` tokens.
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
    """Returns two mixtures of `rows` and `others`, each with the indices of those from `rows`."""
    shared = min(_SHARED, len(rows[1]) - 1)
    for other in others[1:3]:
        other[:shared] = rows[1][:shared]
    kept = ([0, 2], [1, 3])
    return tuple((np.concatenate([(rows if i in k else others)[i] for i in range(len(rows))]), k) for k in kept)


def expected(model: PreTrainedModel, name: str, longest: int, factory: LinearFactory | None, rounds: bool) -> Expected:
    """Returns what `model`, as transformers has it, computes for the probe rows.

    `factory` makes the linear layers that will replace its own, where these change the results; they are used here too.
    `rounds` says whether activations are rounded to 8 bits, by them or by the model itself. Raises `UsageError` where
    transformers cannot run the model `name`.
    """
    int8 = int8_layers(model)
    rounds = rounds and not int8
    config = model.config.get_text_config()
    window = max((size for size in _windows(config) if size < longest), default=0)
    rows, others = (probe_rows(config.vocab_size, longest, _special_ids(config), window, seed) for seed in (0, 100))
    try:
        with torch.inference_mode(), computing_as(model.base_model, factory) if factory else nullcontext():
            with unrounded(int8):
                logits = torch.cat([_logits(model, row) for row in rows])
                with _perturbed_embeddings(model):
                    moved = torch.cat([_logits(model, row) for row in rows[1:3]])
            rounded = torch.cat([_logits(model, row) for row in rows]) if int8 else None
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
    allowed_rounded = None if rounded is None else _allowed_rounded(rounded, logits, name)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    # In float32 every fault exceeds what is allowed.
    changed = () if rounds or model.dtype == torch.float32 else _changed(rows, others)
    return Expected(np.concatenate(rows), starts, logits, allowed, allowed_rounded, changed, least * _INFLUENCE)


def _allowed_rounded(rounded: torch.Tensor, logits: torch.Tensor, name: str) -> float:
    """Returns how far logits with inputs rounded to int8 may be off; `rounded` are those of each row by itself."""
    off = difference(rounded, logits)
    if not off < float("inf"):
        raise UsageError(f"model: {name} gives logits that are not finite in int8; set quantization to nf4 or none")
    largest = logits[logits.isfinite().all(dim=1)].abs().max().item()
    return max(_QUANTIZED_FLOOR * (1 + largest), _TIMES_ROUNDING * off)


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Returns the largest difference of logits [rows, labels]; infinity where one of `found` is NaN.

    Rows without finite `wanted` logits are skipped: such rows are reported when they are scored.
    """
    finite = wanted.isfinite().all(dim=1)
    if not finite.any():
        return 0.0
    return float(torch.nan_to_num((found - wanted)[finite].abs().max(), nan=float("inf")))


def influence(run: Callable[[np.ndarray, np.ndarray], torch.Tensor], found: torch.Tensor, wanted: Expected) -> float:
    """Returns the largest change of a logit in a row when other rows change.

    `found` [rows, labels] are the logits of the unchanged rows; `run` returns the logits for ids and starts.
    """
    moves = (difference(run(flat, wanted.starts)[kept], found[kept]) for flat, kept in wanted.changed)
    return max(moves, default=0.0)


def _logits(model: PreTrainedModel, row: np.ndarray) -> torch.Tensor:
    """Returns float32 logits [1, labels] of one row of token ids; the head computes in float32, as in scoring."""
    device = next(model.get_input_embeddings().parameters()).device
    ids = torch.from_numpy(row[None].astype(np.int64)).to(device)
    if not hasattr(model, "score"):  # an encoder, whose head computes as its backbone does
        whole: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return whole.float().cpu()
    head: Any = model.score
    in_float32 = head.register_forward_pre_hook(lambda module, inputs: tuple(states.float() for states in inputs))
    try:
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    finally:
        in_float32.remove()
    return logits.float().cpu()


def _special_ids(config: Any) -> set[int]:
    """Returns the ids to which `config` gives a special meaning, such as padding or an image."""
    named = [value for key, value in config.to_dict().items() if key.endswith(("_token_id", "_token_index"))]
    return {i for value in named for i in (value if isinstance(value, Sequence) else [value]) if isinstance(i, int)}


def _windows(config: Any) -> list[int]:
    """Returns the lengths beyond which a model may compute differently, such as attention windows."""
    named = config.to_dict().items()
    windows = [value for key, value in named if "window" in key or "chunk" in key or key == "block_size"]
    windows.append(long_beyond(config))
    return [value for value in windows if type(value) is int]


@contextmanager
def _perturbed_embeddings(model: PreTrainedModel) -> Iterator[None]:
    """Perturbs the output of the embeddings by one rounding error of their type."""

    def moved(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, output.shape, generator=generator, dtype=torch.int8).to(output.device) * 2 - 1
        return output * (1 + signs.to(output.dtype) * torch.finfo(output.dtype).eps)

    handle = model.get_input_embeddings().register_forward_hook(moved)
    try:
        yield
    finally:
        handle.remove()
