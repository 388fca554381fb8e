"""Checks a booster in LightGBM's text format before LightGBM reads it, which trusts every number in it.

An index beyond its array makes LightGBM read foreign memory, a tree with a cycle never ends, and another objective
gives numbers that are not probabilities. So LightGBM gets exactly the format that it writes itself (version 4), with
valid indices only.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lmsys_ray import CLASSES

_LAST = b"1234567"
"""Appended to numbers before they are read, to see that the last one was reached."""

_END = b"\nend of trees\n"
_MOST_LEAVES = 131072
"""The most leaves that LightGBM itself grows on a tree."""

_HEADER = re.compile(
    rb"tree\nversion=v[34]\nnum_class=(\d{1,9})\nnum_tree_per_iteration=(\d{1,9})\nlabel_index=\d{1,9}\n"
    rb"max_feature_idx=(\d{1,9})\nobjective=([^\n]*)\n(average_output\n)?feature_names=([^\n]+)\n"
    rb"(?:monotone_constraints=([-01 ]+)\n)?feature_infos=([^\n]+)\ntree_sizes=((?:\d{1,9} )*\d{1,9})\n\n"
)
_OBJECTIVE = b"multiclass num_class:%d" % len(CLASSES)

_WHOLE, _REAL = rb"[-0-9 ]*", rb"[-+.e0-9 ]*"
_LINES = (
    *(("split_feature", _WHOLE), ("split_gain", _REAL), ("threshold", _REAL), ("decision_type", _WHOLE)),
    *(("left_child", _WHOLE), ("right_child", _WHOLE), ("leaf_value", _REAL), ("leaf_weight", _REAL)),
    *(("leaf_count", _WHOLE), ("internal_value", _REAL), ("internal_weight", _REAL), ("internal_count", _WHOLE)),
)
_CATEGORIES = {"cat_boundaries": _WHOLE, "cat_threshold": _WHOLE}
_LINEAR = {"num_features": _WHOLE, "leaf_features": _WHOLE, "leaf_const": _REAL, "leaf_coeff": _REAL}
_PATTERNS = {**dict(_LINES), **_CATEGORIES, **_LINEAR}


def _line(key: str) -> bytes:
    return rb"%s=(?P<%s>%s)\n" % (key.encode(), key.encode(), _PATTERNS[key])


_TREE = re.compile(
    rb"Tree=(?P<number>\d{1,9})\nnum_leaves=(?P<leaves>\d{1,6})\nnum_cat=(?P<categories>\d{1,6})\n"
    + b"".join(_line(key) for key, _ in _LINES)
    + b"(?:%s)?" % b"".join(_line(key) for key in _CATEGORIES)
    + rb"is_linear=(?P<linear>[01])\n"
    + b"(?:%s)?" % b"".join(_line(key) for key in ("leaf_const", "num_features", "leaf_features", "leaf_coeff"))
    + rb"shrinkage=-?\d{1,20}(?:\.\d{1,20})?(?:e[-+]?\d{1,2})?\n\n\n"
)

_OF_LEAVES = ("leaf_value", "leaf_weight", "leaf_count")
_OF_SPLITS = tuple(key for key, _ in _LINES if key not in _OF_LEAVES)


class Header(NamedTuple):
    """The part before the trees."""

    averages: bool
    """Whether trees are averaged, as in a random forest, instead of summed."""
    columns: int
    sizes: list[int]
    """The bytes of each tree."""
    end: int
    """Where the first tree begins."""


class Lines(NamedTuple):
    """The lines of one key in all trees that have it, laid end to end."""

    key: str
    trees: np.ndarray
    """The tree of each value [values]."""
    text: bytes
    """The values as written, separated by white space."""
    values: np.ndarray
    """The numbers: finite float64, or int64 [values]."""

    def wrong(self, where: np.ndarray, why: str) -> ValueError:
        """Returns the error for the first value at which `where` bool [values] is true."""
        first = int(np.argmax(where))
        shown = self.text.split()[first][:24].decode()
        return ValueError(f"is damaged: {self.key} of tree {self.trees[first]} holds {shown}, {why}")


def validated_booster(content: bytes) -> tuple[bytes, Header]:
    """Returns the part of a booster's text that LightGBM needs, and what its header says.

    Raises `ValueError` with what is wrong, as the end of a sentence that begins with the file.
    """
    if not content.startswith(b"tree\n"):
        raise ValueError("is not a LightGBM model")
    end = content.find(_END)
    if end < 0:
        raise ValueError("is cut short")
    text = content[: end + len(_END)]
    header = _header(text)
    place, trees = header.end, []
    for number, size in enumerate(header.sizes):
        tree = _TREE.fullmatch(text, place, place + size)
        if tree is None or int(tree["number"]) != number:
            raise ValueError(f"is damaged: tree {number} is not where tree_sizes says, or not as LightGBM writes it")
        trees.append(tree)
        place += size
    if text[place:] != _END[1:]:
        raise ValueError("is damaged: it holds more than tree_sizes says")
    _check_trees(trees, header.columns)
    return text, header


def split_columns(text: bytes) -> np.ndarray:
    """Returns the columns on which a validated booster splits, int64 [splits]; columns may repeat."""
    lines = b" ".join(re.findall(rb"\nsplit_feature=([0-9 ]*)", text))
    return np.array(lines.split(), np.bytes_).astype(np.int64)


def _header(text: bytes) -> Header:
    found = _HEADER.match(text)
    if found is None or re.search(rb"[\x00-\x09\x0b-\x1f]", text[: found.end()]):
        raise ValueError("is damaged: it does not begin as LightGBM writes a model")
    classes, an_iteration, last, objective, averages, names, monotone, infos, sizes = found.groups()
    if objective != _OBJECTIVE:
        raise ValueError(
            "was not fitted with the objective multiclass but with "
            f"{objective.decode(errors='replace')[:60]}, so its scores are not probabilities of {len(CLASSES)} classes"
        )
    if not int(classes) == int(an_iteration) == len(CLASSES):
        raise ValueError(
            f"has {int(classes)} classes and {int(an_iteration)} trees an iteration where {len(CLASSES)} are needed"
        )
    columns = int(last) + 1
    for key, listed in (("feature_names", names), ("feature_infos", infos), ("monotone_constraints", monotone)):
        if listed is not None and len(listed.split(b" ")) != columns:
            raise ValueError(f"is damaged: {key} has {len(listed.split(b' '))} entries for {columns} columns")
    trees = [int(size) for size in sizes.split()]
    if len(trees) % len(CLASSES):
        raise ValueError(f"is damaged: its {len(trees)} trees are not as many for each class")
    return Header(averages is not None, columns, trees, found.end())


def _check_trees(trees: Sequence[re.Match[bytes]], columns: int) -> None:
    leaves = np.array([int(tree["leaves"]) for tree in trees])
    categories = np.array([int(tree["categories"]) for tree in trees])
    if (beyond := (leaves < 1) | (leaves > _MOST_LEAVES)).any():
        raise ValueError(f"is damaged: tree {np.argmax(beyond)} has {leaves[beyond][0]} leaves")
    lines = {key: _lines(trees, key, leaves - 1) for key in _OF_SPLITS}
    lines["leaf_value"] = _lines(trees, "leaf_value", leaves)
    for key in _OF_LEAVES[1:]:  # a tree with one leaf may omit these
        lines[key] = _lines(trees, key, leaves, or_none=leaves == 1)
    _check_range(lines["split_feature"], np.full(len(trees), columns))
    _check_categories(trees, lines["threshold"], lines["decision_type"], categories)
    _check_linear(trees, leaves, columns)
    _check_children(lines["left_child"], lines["right_child"], leaves - 1)


def _lines(trees: Sequence[re.Match[bytes]], key: str, counts: np.ndarray, or_none: np.ndarray | None = None) -> Lines:
    """Returns the values of a key, of which there must be `counts` int [trees], or none where `or_none`."""
    lines = [tree[key] or b"" for tree in trees]
    joined = b"\n".join([*lines, b""])
    found = np.array([line.count(b" ") + 1 if line else 0 for line in lines])
    wrong = (found != counts) & ~((found == 0) & (False if or_none is None else or_none))
    if wrong.any() or b"  " in joined or b"\n " in joined or b" \n" in joined or joined.startswith(b" "):
        tree = int(np.argmax(wrong))
        raise ValueError(f"is damaged: {key} of tree {tree} has {found[tree]} values where {counts[tree]} are needed")
    return _read(key, np.repeat(np.arange(len(trees)), found), joined)


def _check_categories(
    trees: Sequence[re.Match[bytes]], thresholds: Lines, kinds: Lines, categories: np.ndarray
) -> None:
    """Checks that splits by category, the odd `kinds`, use sets of categories that exist."""
    _check_range(kinds, np.full(len(trees), 16))
    numbers, by_category = thresholds.values, kinds.values % 2 == 1
    known = (numbers == np.floor(numbers)) & (numbers >= 0) & (numbers < categories[thresholds.trees])
    if (wrong := by_category & ~known).any():
        raise thresholds.wrong(wrong, "which is not a set of its categories")
    for number, tree in enumerate(trees):
        count = int(categories[number])
        if (count > 0) != (tree["cat_boundaries"] is not None):
            raise ValueError(f"is damaged: tree {number} has num_cat = {count} and other sets of categories")
        if count:
            bounds, sets = (_alone(tree, key, number).values for key in ("cat_boundaries", "cat_threshold"))
            whole = bounds.size == count + 1 and bounds[0] == 0 and bounds[-1] == sets.size
            if not whole or (np.diff(bounds) < 1).any() or (sets < 0).any() or (sets >= 1 << 32).any():
                raise ValueError(f"is damaged: cat_boundaries of tree {number} do not divide its cat_threshold")


def _check_linear(trees: Sequence[re.Match[bytes]], leaves: np.ndarray, columns: int) -> None:
    """Checks that the linear models of leaves, if a tree has any, have a coefficient for each of their columns."""
    for number, tree in enumerate(trees):
        if (tree["linear"] == b"1") != (tree["leaf_const"] is not None):
            raise ValueError(f"is damaged: is_linear of tree {number} and its linear models contradict each other")
        if tree["linear"] == b"0":
            continue
        counts, features, constants, factors = (_alone(tree, key, number) for key in _LINEAR)
        _check_range(features, np.full(len(trees), columns))
        _check_range(counts, np.full(len(trees), columns + 1))
        for lines in (constants, factors):  # LightGBM aborts at numbers this small, unless they are 0
            zero = np.array([word in (b"0", b"-0") for word in lines.text.split()], bool)
            if (wrong := (np.abs(lines.values) < 1e-300) & ~zero).any():
                raise lines.wrong(wrong, "which is too small")
        a_leaf = counts.values.size == constants.values.size == leaves[number]
        if not a_leaf or not features.values.size == factors.values.size == counts.values.sum():
            raise ValueError(f"is damaged: the linear models of tree {number} are not as many as num_features says")


def _alone(tree: re.Match[bytes], key: str, number: int) -> Lines:
    """Returns the values of one tree, which may be separated by several spaces."""
    return _read(key, np.full(len(tree[key].split()), number), tree[key] + b" ")


def _check_children(left: Lines, right: Lines, splits: np.ndarray) -> None:
    """Checks that the first of each tree's `splits` int [trees] leads to every other one and to every leaf, once.

    The nodes of all trees are numbered consecutively: a tree's splits, then its leaves, whose children are -1, -2, ...
    """
    nodes = 2 * splits + 1
    first = np.cumsum(nodes) - nodes
    within = np.arange(splits.sum()) - np.repeat(np.cumsum(splits) - splits, splits)
    parent = np.arange(nodes.sum())
    for side in (left, right):
        own, children = side.trees, side.values
        if (wrong := (children < -splits[own] - 1) | (children >= splits[own]) | (children == 0)).any():
            raise side.wrong(wrong, "where no node of it can be")
        places = first[own] + np.where(children < 0, splits[own] - 1 - children, children)
        counts = np.bincount(places, minlength=parent.size)
        if (wrong := (counts[places] > 1) | (parent[places] != places)).any():
            raise side.wrong(wrong, "where another split of it leads too")
        parent[places] = first[own] + within
    for _ in range(int(nodes.max()).bit_length()):  # each round doubles the distance
        parent = parent[parent]
    if (lost := parent != np.repeat(first, nodes)).any():
        tree = int(np.searchsorted(first, int(np.argmax(lost)), side="right")) - 1
        raise ValueError(f"is damaged: tree {tree} has nodes that its first split does not lead to")


def _check_range(lines: Lines, ends: np.ndarray) -> None:
    """Checks that values are from 0 to below `ends` int [trees] of their tree."""
    if (wrong := (lines.values < 0) | (lines.values >= ends[lines.trees])).any():
        raise lines.wrong(wrong, f"beyond the {ends[lines.trees][wrong][0]} that there are")


def _read(key: str, trees: np.ndarray, text: bytes) -> Lines:
    """Reads `text` as numbers, one for each of `trees`: LightGBM aborts where one is not a number.

    Raises `ValueError` for that, and where one is not finite.
    """
    kind = np.float64 if _PATTERNS[key] == _REAL else np.int64
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # text that stops numpy is found below
            values = np.fromstring(text + _LAST, kind, sep=" ")
    except ValueError:
        values = np.empty(0, kind)
    # If the appended number is found, numpy reached the end; the right count then means that each value is one number.
    if values[-1:].tolist() != [int(_LAST)] or len(values) != trees.size + 1:
        raise ValueError(f"is damaged: {key} holds what is not a number")
    lines = Lines(key, trees, text, values[:-1])
    if not (finite := np.isfinite(lines.values)).all():
        raise lines.wrong(~finite, "which is not finite")
    return lines
