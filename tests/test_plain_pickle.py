"""Pickles that are taken apart: arrays as NumPy means them, and what is damaged or foreign."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from poisons import plain_pickle


def read(value, protocol: int, most: int = 100) -> np.ndarray:
    return plain_pickle.numbers(plain_pickle.load(pickle.dumps(value, protocol)), most)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_are_read_in_their_order_and_bytes(protocol):
    values = np.arange(24).reshape(2, 3, 4)
    for array in (
        values, np.asfortranarray(values), values.T, values[:, ::2], values.astype(">f8"), values.astype(np.float32),
        values > 5, np.float64(3.5), values.astype(np.uint8),
    ):  # fmt: skip
        found = read(array, protocol)
        assert np.array_equal(found, array) and found.shape == np.shape(array)
    nested = [[1, 2.5, True], (values[0, 0, 1], np.float32(0.5), np.int64(7))]
    assert np.array_equal(read(nested, protocol), np.array(nested, float))
    assert read([[[[1]]]], protocol).shape == (1, 1, 1, 1)


@pytest.mark.parametrize("value", [{"a": 1}, {1: 2}, None, "12", b"12", [None], [[1], [1, 2]], [[[[[1]]]]], [1, "2"]])
def test_what_is_no_array_is_refused(value):
    for protocol in range(6):
        with pytest.raises(plain_pickle.Foreign, match="where numbers are due|unequal lengths"):
            read(value, protocol)


def test_no_more_numbers_are_read_than_are_asked_for():
    assert read([[1, 2], [3, 4]], 4, 4).size == 4 and read(np.ones(4), 4, 4).size == 4
    for value in ([[1, 2], [3, 4]], np.ones(4), [np.ones(2), np.ones(2)]):
        with pytest.raises(plain_pickle.Foreign, match="more numbers than are read"):
            read(value, 4, 3)
    with pytest.raises(plain_pickle.Foreign, match="more than 64 bits"):
        read([2**63], 4)
    assert read([-(2**63) + 1, 2**63 - 1], 4).tolist() == [-(2**63) + 1, 2**63 - 1]


def test_a_dict_is_made_of_pairs():
    """The opcode that makes one at once, which pickle itself does not write; of one, two and three values."""
    assert plain_pickle.load(b"(d.") == {}
    assert plain_pickle.load(b"(I1\nI2\nd.") == {1: 2}
    assert plain_pickle.load(b"(I1\nI2\nI3\nI4\nI5\nI6\nd.") == {1: 2, 3: 4, 5: 6}
    for content in (b"(I1\nd.", b"(I1\nI2\nI3\nd."):
        with pytest.raises(plain_pickle.Foreign, match="odd number of items"):
            plain_pickle.load(content)
    for content in (b"(d(I1\nu.", b"(d(I1\nI2\nI3\nu.", b"(l(I1\nI2\nu."):
        with pytest.raises(plain_pickle.Foreign, match="sets items of something else than a dict"):
            plain_pickle.load(content)


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"I1\n", "damaged"), (b"t.", "damaged"), (b"I1\nt.", "no mark"), (b"(\x85.", "a mark among"),
     (b"I1\nI2\na.", "appends to something else"), (b"cos\nsystem\n.", "asks for os.system"), (b".", "damaged")],
)  # fmt: skip
def test_damaged_ones_are_refused(content, why):
    with pytest.raises(plain_pickle.Foreign, match=why):
        plain_pickle.load(content)
