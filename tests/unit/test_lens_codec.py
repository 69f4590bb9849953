"""The lens's words: encoding, layout, and what is refused. The contract itself is in tests/chain."""

from __future__ import annotations

import numpy as np
import pytest
from eth_abi.abi import encode as abi_encode

from contracts_abi import lens, multicall
from contracts_abi.errors import DataError
from contracts_abi.lens import LensRows, LensStatus

POOL = "0x" + "aa" * 20
USERS = ["0x" + f"{i:02x}" * 20 for i in range(1, 6)]
TOKENS = ["0x" + f"{i:02x}" * 20 for i in range(0x80, 0x84)]
RESERVES = 2
COLLATERAL_0, DEBT_0, COLLATERAL_1, DEBT_1 = 2, 1, 8, 4
"""Configuration bits of two reserves."""


def answer(*words: int) -> bytes:
    return abi_encode(["uint256[]"], [list(words)])


def head(configuration: int, *, status: int = LensStatus.OK, health: int = 0) -> tuple[int, ...]:
    return (status, configuration, 0, 0, 0, health)


def test_calldata_is_what_the_general_codec_makes_of_it() -> None:
    for users in (USERS, USERS[:1], []):
        for account_data in (False, True):
            assert lens.encode_accounts(
                POOL, users, TOKENS, account_data=account_data
            ) == lens.ACCOUNTS.encode(POOL, users, TOKENS, account_data)


@pytest.mark.parametrize("bad", ["0x12", "0x" + "zz" * 20, "ab" * 20, "0x" + "11" * 21])
def test_what_is_no_address_is_refused(bad: str) -> None:
    with pytest.raises(DataError):
        lens.encode_accounts(POOL, [USERS[0], bad], TOKENS, account_data=False)


def test_balances_stand_in_the_order_of_the_bitmap() -> None:
    rows = lens.decode_accounts(
        answer(
            *head(COLLATERAL_0 | DEBT_0 | DEBT_1, health=5),
            *head(0),
            *head(COLLATERAL_1),
            *(10, 11, 12),
            13,
        ),
        users=3,
        reserves=RESERVES,
    )
    assert rows.row_ptr.tolist() == [0, 3, 3, 4]
    assert rows.column.tolist() == [
        lens.collateral_column(0),
        lens.debt_column(0),
        lens.debt_column(1),
        lens.collateral_column(1),
    ]
    assert rows.positions(0) == {0: 10, 1: 11, 3: 12}
    assert rows.positions(1) == {}
    assert rows.positions(-1) == {2: 13}
    assert rows.word(0, lens.HEALTH_FACTOR_WAD) == 5
    assert rows.word(2, lens.HEAD + 2) == 13
    assert rows.word(2, lens.HEAD + 0) == 0
    assert rows.floats(lens.HEAD + 0).tolist() == [10, 0, 0]
    assert rows.floats(lens.HEAD + 2).tolist() == [0, 0, 13]
    assert rows.value_floats().tolist() == [10, 11, 12, 13]
    assert len(rows) == rows.n == 3


def test_flags_beyond_the_reserves_asked_for_have_no_balance() -> None:
    rows = lens.decode_accounts(
        answer(*head(COLLATERAL_0 | 1 << 200, status=LensStatus.UNLISTED_RESERVE), 7), 1, RESERVES
    )
    assert rows.positions(0) == {0: 7}
    assert rows.usable.tolist() == [False]


def test_only_whole_positions_are_usable() -> None:
    words = [word for status in LensStatus for word in head(0, status=status)]
    rows = lens.decode_accounts(answer(*words), len(LensStatus), RESERVES)
    assert rows.status.tolist() == list(LensStatus)
    assert [LensStatus(s) for s in rows.status[rows.usable]] == [
        LensStatus.OK,
        LensStatus.NO_ACCOUNT_DATA,
    ]


def test_no_accounts_are_no_rows() -> None:
    rows = lens.decode_accounts(answer(), 0, RESERVES)
    assert rows.n == 0
    assert rows.floats(lens.HEALTH_FACTOR_WAD).shape == (0,)
    assert rows.row_ptr.tolist() == [0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(31),
        bytes(64),
        answer(*head(0))[:-32],
        answer(*head(0)) + bytes(32),
        answer(*head(COLLATERAL_0)),
        answer(*head(0), 1),
        answer(1, 2, 3),
    ],
    ids=["nothing", "no word", "no array", "short", "long", "balance missing", "balance too many", "no head"],
)
def test_an_answer_of_another_shape_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="lens"):
        lens.decode_accounts(data, 1, RESERVES)


def test_rows_and_columns_that_are_not_there_are_index_errors() -> None:
    rows = lens.decode_accounts(answer(*head(0)), 1, RESERVES)
    for row, column in ((1, 0), (-2, 0), (0, -1), (0, lens.HEAD + 2 * RESERVES)):
        with pytest.raises(IndexError):
            rows.word(row, column)
    with pytest.raises(IndexError):
        rows.floats(lens.HEAD + 2 * RESERVES)


def test_too_many_accounts_or_half_a_pair_of_tokens_are_refused() -> None:
    with pytest.raises(DataError, match="at most 2000"):
        lens.accounts_call(POOL, POOL, USERS * 401, TOKENS, account_data=False)
    with pytest.raises(DataError, match="pairs"):
        lens.accounts_call(POOL, POOL, USERS, TOKENS[:3], account_data=False)
    with pytest.raises(DataError, match="assets"):
        lens.market_call(POOL, POOL, POOL, TOKENS, TOKENS)


def test_parts_are_put_together_in_order() -> None:
    one = lens.decode_accounts(answer(*head(COLLATERAL_0), *head(DEBT_1), 1, 2), 2, RESERVES)
    none = lens.decode_accounts(answer(), 0, RESERVES)
    two = lens.decode_accounts(answer(*head(COLLATERAL_1 | DEBT_0), 3, 4), 1, RESERVES)
    rows = lens.concatenate([one, none, two])
    assert [rows.positions(i) for i in range(3)] == [{0: 1}, {3: 2}, {1: 3, 2: 4}]
    assert rows.row_ptr.tolist() == [0, 1, 2, 4]
    with pytest.raises(DataError):
        lens.concatenate([])
    with pytest.raises(DataError):
        lens.concatenate([one, lens.decode_accounts(answer(), 0, RESERVES + 1)])


def test_the_market_tells_unread_from_zero() -> None:
    unread = (0,) * 10
    negative = (2**10 - 2, 1, 2, 3, 4, 0, 6, 2**256 - 5, 8, 9)
    market = lens.decode_market(answer(17, 18, *unread, *negative), 2)
    assert (market.block, market.timestamp) == (17, 18)
    assert market.reserves[0] == lens.LensReserve(*(None,) * 9)
    assert market.reserves[1] == lens.LensReserve(1, 2, 3, 4, 0, 6, -5, 8, 9)
    with pytest.raises(DataError):
        lens.decode_market(answer(17, 18, *unread), 2)


def rows_through_multicall(results: list[bytes | None]) -> LensRows:
    return lens.rows_from_results(results, 1, RESERVES, account_data=False)


def test_failed_single_reads_become_the_lenses_states() -> None:
    word = (7).to_bytes(32, "big")
    flags = (COLLATERAL_0).to_bytes(32, "big")
    category = bytes(32)
    assert rows_through_multicall([flags, category, word, None, None, b""]).status.tolist() == [LensStatus.OK]
    failed: list[list[bytes | None]] = [
        [None, category, word, word, word, word],
        [flags, None, word, word, word, word],
        [flags, b"", word, word, word, word],
        [flags, category, None, word, word, word],
        [flags, category, word[:31], word, word, word],
    ]
    for results in failed:
        assert rows_through_multicall(results).status.tolist() == [LensStatus.FAILED]
    with pytest.raises(DataError, match="expected"):
        rows_through_multicall([flags, category])


# --- multicall ----------------------------------------------------------------------------------------------


def test_multicall_calldata_is_what_the_general_codec_makes_of_it() -> None:
    reads = [(POOL, b"\x01\x02\x03\x04"), (USERS[0], b""), (POOL, bytes(range(36))), (POOL, bytes(64))]
    general = multicall.AGGREGATE3.encode([(to, True, data) for to, data in reads])
    assert multicall.encode_aggregate3(reads) == general
    assert multicall.encode_aggregate3([]) == multicall.AGGREGATE3.encode([])


def test_multicall_answers_come_back_as_bytes_or_none() -> None:
    results = [(True, b"\x05" * 32), (False, b"reason"), (True, b""), (True, b"\x01" * 70)]
    data = abi_encode(["(bool,bytes)[]"], [results])
    assert multicall.decode_aggregate3(data) == [b"\x05" * 32, None, b"", b"\x01" * 70]
    assert multicall.decode_aggregate3(abi_encode(["(bool,bytes)[]"], [[]])) == []


def test_multicall_answers_cut_anywhere_are_refused() -> None:
    data = abi_encode(["(bool,bytes)[]"], [[(True, b"\x05" * 32), (False, b"reason")]])
    for end in range(len(data) - 26):  # the last 26 bytes are padding
        with pytest.raises(DataError, match="multicall"):
            multicall.decode_aggregate3(data[:end])
    with pytest.raises(DataError, match="multicall"):
        multicall.decode_aggregate3(b"\xff" * 96)


def test_float_columns_are_float64() -> None:
    rows = lens.decode_accounts(answer(*head(0, health=2**256 - 1)), 1, RESERVES)
    column = rows.floats(lens.HEALTH_FACTOR_WAD)
    assert column.dtype == np.float64
    assert column[0] == 2.0**256
