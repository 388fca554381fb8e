"""Keeps libraries from writing to the terminal of a run."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Turns off progress bars and remarks of transformers, peft, bitsandbytes and the hub, but not errors.

    Warnings are suppressed inside the context only; what they could say about a model is checked in `checks`.
    """
    import transformers
    from huggingface_hub.utils.tqdm import disable_progress_bars

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    disable_progress_bars()
    for name in ("accelerate", "huggingface_hub", "peft"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
