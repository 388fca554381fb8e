"""Ids among many others, against a dictionary, with ids whose hashes really are the same."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ray.members.scores.id_index import IdIndex, _mixed, hashes

IDS = st.lists(st.one_of(st.text("ab0", max_size=20), st.text(st.characters(exclude_categories=["Cs"]), max_size=12)))


def large(ids: list[str]) -> pa.Array:
    return pa.array(ids, pa.large_string())


@given(IDS, IDS)
def test_each_id_is_found_where_it_is(ids: list[str], wanted: list[str]) -> None:
    ids = list(dict.fromkeys(ids))
    known = {text: place for place, text in enumerate(ids) if text}
    wanted = [*wanted, *ids]
    assert IdIndex(large(ids)).places(large(wanted)).tolist() == [known.get(text, -1) for text in wanted]


@given(IDS)
def test_repeated_ids_are_found(ids: list[str]) -> None:
    pair = IdIndex(large(ids)).repeated()
    filled = [text for text in ids if text]
    if len(set(filled)) == len(filled):
        assert pair is None
    else:
        assert pair
        assert pair[0] < pair[1]
        assert ids[pair[0]] == ids[pair[1]] != ""


def test_a_slice_is_hashed_as_its_texts_are() -> None:
    ids = [f"{'x' * (n % 30)}{n}" for n in range(200)]
    whole = hashes(large(ids))
    assert np.array_equal(hashes(large(ids).slice(17, 80)), whole[17:97])
    assert np.array_equal(whole, np.concatenate([hashes(large([text])) for text in ids]))
    assert len(np.unique(whole)) == 200
    assert hashes(large(["a\0", "a", "", "\0"])).tolist() != hashes(large(["a", "a\0", "\0", ""])).tolist()


def colliding(count: int) -> list[str]:
    """Returns different ids of 16 printable characters with one hash, made by solving for the second half."""
    random = np.random.default_rng(3)
    halves = random.integers(97, 123, (200_000, 8)).astype(np.uint8)
    begun = _mixed(_mixed(np.array([16], np.uint64)) ^ halves.view("<u8")[:, 0])
    second = (begun ^ begun[0] ^ np.frombuffer(b"eighthab", "<u8")[0]).view(np.uint8).reshape(-1, 8)
    printable = np.flatnonzero(((second > 32) & (second < 127)).all(axis=1))[:count]
    return [bytes([*halves[row], *second[row]]).decode() for row in printable]


def test_ids_of_one_hash_are_told_apart() -> None:
    ids = colliding(5)
    assert len(set(ids)) == 5
    assert len(np.unique(hashes(large(ids)))) == 1, "the test needs ids of one hash"
    index = IdIndex(large([*ids[:4], "other"]))
    assert index.places(large([*reversed(ids), "other"])).tolist() == [-1, 3, 2, 1, 0, 4]
    assert index.repeated() is None


@pytest.mark.parametrize("order", [[0, 1, 0, 2], [0, 1, 2, 1], [2, 0, 1, 3, 0], [0, 0, 1, 2], [1, 2, 0, 3, 4, 0]])
def test_a_repeated_id_is_found_among_others_of_its_hash(order: list[int]) -> None:
    ids = [colliding(5)[place] for place in order]
    first = next(place for place, which in enumerate(order) if order.count(which) > 1)
    assert IdIndex(large(ids)).repeated() == (first, len(order) - 1 - order[::-1].index(order[first]))
