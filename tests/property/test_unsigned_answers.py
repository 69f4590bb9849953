"""Answers of unsigned integers are decoded by words: what the general decoder says, values and refusals."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import decode as abi_decode
from eth_abi.abi import encode as abi_encode
from hypothesis import given
from hypothesis import strategies as st

from contracts_abi.calls import function
from contracts_abi.errors import DataError

widths = st.lists(st.sampled_from([8, 16, 128, 256]), min_size=1, max_size=6)
answers = widths.flatmap(
    lambda bits: st.tuples(st.just(bits), st.tuples(*(st.integers(0, 2**b - 1) for b in bits)))
)


def decoder(bits: list[int]) -> Any:
    return function(f"f()({','.join(f'uint{b}' for b in bits)})")


@given(answers, st.binary(max_size=40))
def test_every_answer_comes_back_whatever_follows_it(
    given_: tuple[list[int], tuple[int, ...]], rest: bytes
) -> None:
    bits, values = given_
    types = [f"uint{b}" for b in bits]
    data = abi_encode(types, values) + rest
    assert decoder(bits).decode(data) == values == tuple(abi_decode(types, data))


@given(widths, st.data())
def test_what_is_too_short_is_refused(bits: list[int], data: st.DataObject) -> None:
    short = data.draw(st.binary(max_size=32 * len(bits) - 1))
    with pytest.raises(DataError, match="do not decode"):
        decoder(bits).decode(short)


@pytest.mark.parametrize("bits", [8, 128])
def test_what_is_too_large_for_its_type_is_refused(bits: int) -> None:
    with pytest.raises(DataError, match="do not decode"):
        decoder([256, bits]).decode(abi_encode(["uint256", "uint256"], [1, 2**bits]))
