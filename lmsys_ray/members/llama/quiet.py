"""Keeps the libraries below from writing to the terminal of a run."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Turns off progress bars and remarks of transformers, peft, bitsandbytes and the hub; errors still come through.

    Warnings are held back within the context only; what they could say about a model is checked and raised by `checks`.
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


def first_line(error: Exception) -> str:
    """Returns the first line of an error's text, which is what a sentence can quote of it."""
    return str(error).strip().partition("\n")[0]
