"""Tries the regular expressions of an adapter in a process of its own, since some take practically for ever."""

import json
import re
import subprocess
import sys

from peft import LoraConfig
from torch import nn

from lmsys_ray.errors import UsageError

_SECONDS = 10.0

_PLAIN = re.compile(r"[A-Za-z0-9_.-]*")

_TRY = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    for form in (f"{pattern}", rf"(.*\\.)?({pattern})$", rf".*\\.{pattern}\\.(\\d+)\\."):
        try:
            form = re.compile(form)
        except re.error:
            continue
        for name in names:
            form.match(name)
            form.fullmatch(name)
"""
"""Matches as PEFT does: target_modules as a whole, keys of rank_pattern at the end, layers_pattern in between."""


def check_patterns(config: LoraConfig, model: nn.Module, name: str, seconds: float = _SECONDS) -> None:
    """Raises `UsageError` where matching the adapter's patterns with all module names takes more than `seconds`."""
    given = {
        "target_modules": config.target_modules,
        "exclude_modules": config.exclude_modules,
        "layers_pattern": config.layers_pattern,
        "rank_pattern": list(config.rank_pattern or {}),
        "alpha_pattern": list(config.alpha_pattern or {}),
    }
    listed = {key: [value] if isinstance(value, str) else list(value or []) for key, value in given.items()}
    wild = {key: [text for text in texts if not _PLAIN.fullmatch(text)] for key, texts in listed.items()}
    wild = {key: texts for key, texts in wild.items() if texts}
    if not wild:
        return
    names = [module for module, _ in model.named_modules()]
    tried = json.dumps([[text for texts in wild.values() for text in texts], names])
    try:
        # -I: isolated from the environment.
        subprocess.run(
            [sys.executable, "-I", "-c", _TRY], input=tried, text=True, capture_output=True, timeout=seconds, check=True
        )
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"adapter: comparing {' or '.join(wild)} of {name} with the names of the model's modules takes longer than "
            f"{seconds:.0f} s; list the names in place of a regular expression"
        ) from None
