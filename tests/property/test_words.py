"""256-bit words: float64 within the stated bound, integers exactly; swap paths there and back."""

from __future__ import annotations

import numpy as np
import pytest
from eth_utils.address import to_checksum_address
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts_abi import uniswap_v3
from contracts_abi.errors import DataError
from contracts_abi.lens import word_to_int, words_to_float64

# Uniform in the number of bits, so that small and large words come equally often; and near powers of two.
words = st.one_of(
    st.integers(0, 256).flatmap(lambda bits: st.integers(0, (1 << bits) - 1)),
    st.tuples(st.integers(0, 255), st.integers(-3, 3)).map(
        lambda t: min(max((1 << t[0]) + t[1], 0), 2**256 - 1)
    ),
)
addresses = st.binary(min_size=20, max_size=20).map(to_checksum_address)


@settings(deadline=None)
@given(st.lists(words, max_size=8))
def test_words_become_floats_within_the_bound_and_integers_exactly(values: list[int]) -> None:
    raw = b"".join(value.to_bytes(32, "big") for value in values)
    array = np.frombuffer(raw, dtype=">u8").reshape(-1, 4)
    for value, word, approximate in zip(values, array, words_to_float64(array).tolist(), strict=True):
        assert word_to_int(word) == value
        assert abs(int(approximate) - value) << 51 <= value
        if value < 2**53:
            assert approximate == value


@settings(deadline=None)
@given(st.data())
def test_swap_paths_there_and_back(data: st.DataObject) -> None:
    tokens = data.draw(st.lists(addresses, min_size=2, max_size=5))
    hops = len(tokens) - 1
    fees = data.draw(st.lists(st.integers(0, 2**24 - 1), min_size=hops, max_size=hops))
    path = uniswap_v3.encode_path(tokens, fees)
    assert len(path) == 20 + 23 * hops
    assert uniswap_v3.decode_path(path) == (tuple(tokens), tuple(fees))


@settings(deadline=None)
@given(st.binary(max_size=120).filter(lambda b: len(b) < 43 or (len(b) - 20) % 23))
def test_bytes_of_another_length_are_no_path(data: bytes) -> None:
    with pytest.raises(DataError):
        uniswap_v3.decode_path(data)


def test_tokens_and_fees_that_do_not_fit_are_refused() -> None:
    token = "0x" + "11" * 20
    for tokens, fees in (([token], []), ([token, token], []), ([token, token], [1, 2]), ([], [])):
        with pytest.raises(DataError):
            uniswap_v3.encode_path(tokens, fees)
