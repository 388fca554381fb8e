"""Small boosters of every kind, a tree walker that owes nothing to LightGBM, and a fuzzer that runs in its own process.

`python -m tests.members.lightgbm.boosters SEED COUNT` gives LightGBM so many mutated texts that pass the checks, and
prints how many did; a crash, a hang or a wrong number ends it with another exit code than 0.
"""

import faulthandler
import re
import sys
from functools import cache

import lightgbm as lgb
import numpy as np

from lmsys_ray.members.lightgbm.booster_checks import split_columns, validated_booster

COLUMNS = 5
ROWS = np.random.default_rng(7).normal(size=(12, COLUMNS)).round(3)
ROWS[:, 4] = np.arange(12) % 8
ROWS[3, 1] = np.nan

KINDS: dict[str, dict[str, object]] = {
    "plain": {},
    "one leaf": {"min_data_in_leaf": 10_000},
    "categories": {"min_data_per_group": 1, "cat_smooth": 0, "max_cat_to_onehot": 1},
    "linear": {"linear_tree": True},
    "forest": {"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1},
    "zero as missing": {"zero_as_missing": True},
}


@cache
def booster(kind: str, objective: str = "multiclass", rounds: int = 2) -> lgb.Booster:
    """Returns a booster on `COLUMNS` columns, fitted on noise."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(400, COLUMNS))
    rows[:, 4] = generator.integers(0, 8, 400)
    classes = {} if objective == "regression" else {"num_class": 3}
    options = {"objective": objective, **classes, "num_leaves": 5, "verbosity": -1, "num_threads": 1, **KINDS[kind]}
    labels = (rows[:, 0] + rows[:, 4] / 4 > 1).astype(int) + (rows[:, 1] > 0)
    rows[::7, 1] = np.nan if kind != "linear" else 0.0
    data = lgb.Dataset(rows, labels, params=options, categorical_feature=[4] if kind == "categories" else [])
    return lgb.train(options, data, rounds)


def text(kind: str) -> str:
    return booster(kind).model_to_string()


def walked(content: str, rows: np.ndarray) -> np.ndarray:
    """Returns the raw scores [rows, 3] of a booster's text, walked node by node."""
    trees = [dict(line.split("=", 1) for line in tree.splitlines() if "=" in line) for tree in _trees(content)]
    scores = np.zeros((len(rows), 3))
    for number, tree in enumerate(trees):
        scores[:, number % 3] += [_leaf_value(tree, row) for row in rows]
    return scores


def _trees(content: str) -> list[str]:
    return content.split("\nend of trees", maxsplit=1)[0].split("\nTree=")[1:]


def _leaf_value(tree: dict[str, str], row: np.ndarray) -> float:
    def numbers(key: str) -> list[float]:
        return [float(word) for word in tree[key].split()]

    left, right, features, kinds, thresholds = map(
        numbers, ("left_child", "right_child", "split_feature", "decision_type", "threshold")
    )
    node = 0 if left else -1
    while node >= 0:
        value, kind = row[int(features[node])], int(kinds[node])
        if kind & 1:
            goes_left = _has_category(tree, value, int(thresholds[node]))
        else:
            missing = np.isnan(value) if (kind >> 2) & 3 == 2 else (kind >> 2) & 3 == 1 and (abs(value) <= 1e-35)
            value = 0.0 if np.isnan(value) and (kind >> 2) & 3 != 2 else value
            missing = missing or ((kind >> 2) & 3 == 1 and abs(value) <= 1e-35)
            goes_left = bool(kind & 2) if missing else value <= thresholds[node]
        node = int((left if goes_left else right)[node])
    return _of_leaf(tree, ~node, row)


def _has_category(tree: dict[str, str], value: float, number: int) -> bool:
    if np.isnan(value) or value <= -1:  # a number becomes a category without its fraction, -0.5 the category 0
        return False
    bounds = [int(word) for word in tree["cat_boundaries"].split()]
    words = [int(word) for word in tree["cat_threshold"].split()][bounds[number] : bounds[number + 1]]
    place, bit = divmod(int(value), 32)
    return place < len(words) and bool(words[place] >> bit & 1)


def _of_leaf(tree: dict[str, str], leaf: int, row: np.ndarray) -> float:
    value = float(tree["leaf_value"].split()[leaf])
    if tree.get("is_linear", "0") != "1":
        return value
    counts = [int(word) for word in tree["num_features"].split()]
    start = sum(counts[:leaf])
    features = [int(word) for word in tree["leaf_features"].split()][start : start + counts[leaf]]
    factors = [float(word) for word in tree["leaf_coeff"].split()][start : start + counts[leaf]]
    if any(np.isnan(row[feature]) for feature in features):
        return value
    constant = float(tree["leaf_const"].split()[leaf])
    return constant + sum(factor * row[feature] for factor, feature in zip(factors, features, strict=True))


def mutated(content: str, generator: np.random.Generator) -> str:
    """Returns a text with one to three things changed; half of the time its tree_sizes follow."""
    for _ in range(generator.integers(1, 4)):
        content = _CHANGES[generator.integers(len(_CHANGES))](content, generator)
    return resized(content) if generator.random() < 0.7 else content


def resized(content: str) -> str:
    """Returns a text whose tree_sizes are those of its trees."""
    sizes = [len(f"Tree={tree}\n".encode()) for tree in _trees(content)]
    return re.sub(r"\ntree_sizes=[^\n]*", f"\ntree_sizes={' '.join(map(str, sizes))}", content, count=1)


_WILD = [
    "-1",
    "0",
    "1",
    "2",
    "-2",
    "-9",
    "99999",
    "2147483647",
    "-2147483648",
    "4294967296",
    "1e300",
    "nan",
    "inf",
    "",
    "1e-400",
    "1e999",
    "1-2",
    "1.2.3",
    "-",
    "e",
    ".",
]


def _word(content: str, generator: np.random.Generator) -> str:
    words = list(re.finditer(r"(?<=[ =])-?[0-9][-+.e0-9]*", content.split("\nend of trees", maxsplit=1)[0]))
    found = words[generator.integers(len(words))]
    return content[: found.start()] + str(generator.choice(_WILD)) + content[found.end() :]


def _letter(content: str, generator: np.random.Generator) -> str:
    place = generator.integers(len(content.split("end of trees", maxsplit=1)[0]))
    return content[:place] + str(generator.choice(list("0123456789-. e=\n\0Tx"))) + content[place + 1 :]


def _line(content: str, generator: np.random.Generator) -> str:
    lines = content.split("\n")
    if "end of trees" not in lines:
        return content
    a, b = generator.integers(lines.index("end of trees"), size=2)
    way = generator.integers(3)
    if way == 0:
        del lines[a]
    elif way == 1:
        lines.insert(a, lines[b])
    else:
        lines[a], lines[b] = lines[b], lines[a]
    return "\n".join(lines)


def _child(content: str, generator: np.random.Generator) -> str:
    lines = list(re.finditer(r"(?:left|right)_child=(-?\d[^\n]*)", content))
    if not lines:
        return content
    found = lines[generator.integers(len(lines))]
    words = found[1].split(" ")
    words[generator.integers(len(words))] = str(generator.integers(-6, 6))
    return content[: found.start(1)] + " ".join(words) + content[found.end(1) :]


_CHANGES = [_word, _letter, _line, _child]


def fuzz(seed: int, count: int) -> int:
    """Gives LightGBM the mutated texts that pass the checks; returns how many did, and asserts their numbers."""
    generator, passed = np.random.default_rng(seed), 0
    texts = [text(kind) for kind in KINDS]
    for _ in range(count):
        content = mutated(texts[generator.integers(len(texts))], generator)
        try:
            kept, header = validated_booster(content.encode())
        except ValueError as error:
            sentence = str(error)
        else:
            sentence = ""
        assert len(sentence) < 300, sentence
        assert "\n" not in sentence, sentence
        if sentence:
            continue
        if header.columns != COLUMNS:
            continue  # refused by `artifacts.check`
        faulthandler.dump_traceback_later(20, exit=True)
        try:
            loaded = lgb.Booster(model_str=kept.decode())
        except lgb.basic.LightGBMError:
            continue
        passed += 1
        raw = loaded.predict(ROWS, raw_score=True, num_threads=1)
        np.testing.assert_allclose(raw, walked(kept.decode(), ROWS), rtol=1e-9, atol=1e-9)
        if np.abs(raw).max() < 500:
            np.testing.assert_allclose(loaded.predict(ROWS, num_threads=1).sum(axis=1), 1, atol=1e-6)
        assert set(split_columns(kept)) <= set(range(COLUMNS))
        faulthandler.cancel_dump_traceback_later()
    return passed


if __name__ == "__main__":
    print(fuzz(int(sys.argv[1]), int(sys.argv[2])))
