"""The notebook once more, plainly: pandas, dense matrices, padded batches. Tests compare the package with it."""

import numpy as np
import pandas as pd
import torch
from sklearn.feature_extraction.text import CountVectorizer
from transformers import PreTrainedTokenizerBase


def symlog(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.log1p(np.abs(values))


def lightgbm_features(frame: pd.DataFrame, cvec: CountVectorizer, ccvec: CountVectorizer) -> np.ndarray:
    """Returns float64 [rows, 2 * terms + 34] of a frame with the raw cells prompt, response_a and response_b."""

    def dense(column: str) -> np.ndarray:
        blocks = [vectorizer.transform(frame[column]) for vectorizer in (cvec, ccvec)]
        return np.hstack([symlog(np.asarray(block.astype(np.float32).todense())) for block in blocks])

    a, b = dense("response_a"), dense("response_b")
    v = np.hstack([a - b, np.abs(a - b)])
    columns = ["prompt", "response_a", "response_b"]
    extras = [frame[column].str.count(pattern) for pattern in ["\n", "\n\n", ".", " ", '","'] for column in columns]
    extras.append(frame["response_b"].str.len())
    extras.append(frame["response_b"].str.split().apply(len))
    e = np.stack([extra.to_numpy() for extra in extras], axis=1)
    return np.hstack([v, np.sqrt(e), np.log1p(e)])


def notebook_text(cell: object) -> str:
    """The notebook's reading of a cell; a cell that is no string is the empty text."""
    if not isinstance(cell, str):
        return ""
    return " ".join(piece.strip('"') for piece in cell.strip("[]").split('","'))


def llama_probabilities(
    frame: pd.DataFrame, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> np.ndarray:
    """Returns float32 [rows, 3]: rows in file order, four at a time, padded to the maximum, pooled by transformers."""
    texts = [
        "User prompt: " + notebook_text(p)
        + "\n\nModel A :\n" + notebook_text(a)
        + "\n\n--------\n\nModel B:\n" + notebook_text(b)
        for p, a, b in zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True)
    ]  # fmt: skip
    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=max_length, return_tensors="pt")
    batches = []
    for start in range(0, len(texts), 4):
        batch = {key: encoded[key][start : start + 4] for key in ("input_ids", "attention_mask")}
        with torch.no_grad():
            batches.append(model(**batch).logits.softmax(-1).numpy())
    return np.concatenate(batches)
