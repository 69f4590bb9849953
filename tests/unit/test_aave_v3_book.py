"""Which accounts of an Aave market are known, by the lens's words; and what its flash loans lend."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from contracts_abi.lens import rows_from_results
from simulation.fixed_point import WAD
from simulation.protocols.aave_v3 import AaveLayout, AaveMarket, AaveV3
from simulation.protocols.aave_v3.book import book_of_rows, covered, uncovered_flags
from simulation.types import Book
from tests.aave_states import ACCOUNT, account, address, eth_and_usd

BORROWS_0, HOLDS_0, BORROWS_1, HOLDS_1, BORROWS_2, HOLDS_2 = (1 << bit for bit in range(6))
ADAPTER = AaveV3(AaveLayout("0x1", "0x2", "0x3", "", (), (), 8))


def with_reserve(market: AaveMarket, reserve_id: int, **changes: Any) -> AaveMarket:
    reserves = list(market.reserves)
    found = reserves[reserve_id]
    assert found is not None
    reserves[reserve_id] = replace(found, **changes)
    return replace(market, reserves=tuple(reserves))


def book_of(market: AaveMarket, flags: int, e_mode: int = 0) -> Book:
    """Return the book of one account with a balance of 1 wherever it is flagged, as a lens answers."""
    words = [word.to_bytes(32, "big") for word in (flags, e_mode, *([WAD] * 4))]
    return book_of_rows(
        "aave-v3", market, [ACCOUNT], rows_from_results(words, 1, 2, account_data=False), account_data=False
    )


@pytest.mark.parametrize(
    ("flags", "e_mode", "known"),
    [
        (HOLDS_0 | BORROWS_1, 0, True),
        (HOLDS_1 | BORROWS_0, 0, True),
        (0, 0, True),
        (HOLDS_0 | BORROWS_1, 7, False),  # a category that the market does not have
        (HOLDS_0 | BORROWS_1 | HOLDS_2, 0, False),  # a reserve that was not asked for
        (HOLDS_0 | BORROWS_1 | BORROWS_2, 0, False),
    ],
)
def test_an_account_is_known_when_the_market_says_all_of_it(flags: int, e_mode: int, known: bool) -> None:
    book = book_of(eth_and_usd(), flags, e_mode)
    assert (book.exact[0] is not None) is known
    assert book.known.tolist() == [known]
    assert len(book.amount) == (flags.bit_count() if known else 0)


def test_a_debt_where_somebody_owes_at_a_stable_rate_is_unknown() -> None:
    """Stable debts are not read one by one: whoever borrowed there may owe more than the lens said."""
    market = with_reserve(eth_and_usd(), 1, total_stable_debt_raw=1)
    borrower = book_of(market, HOLDS_0 | BORROWS_1)
    assert borrower.known.tolist() == [False]
    assert borrower.exact[0] is None
    for flags in (HOLDS_0 | HOLDS_1, HOLDS_1 | BORROWS_0):
        assert book_of(market, flags).known.tolist() == [True]
        assert book_of(market, flags).exact[0] is not None
    assert not covered(market, uncovered_flags(market), account({0: WAD}, {1: 10**6}))


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"flash_loan_enabled": True}, 700),
        ({"flash_loan_enabled": False}, 0),
        ({"flash_loan_enabled": True, "paused": True}, 0),
        ({"flash_loan_enabled": True, "active": False}, 0),
        ({"flash_loan_enabled": True, "frozen": True}, 700),
    ],
)
def test_a_flash_loan_lends_what_is_there_unless_it_is_switched_off(
    changes: dict[str, bool], limit: int
) -> None:
    plain = eth_and_usd().reserves[1]
    assert plain is not None
    market = with_reserve(
        eth_and_usd(),
        1,
        available_liquidity_raw=700,
        configuration=replace(plain.configuration, **changes),
    )
    assert ADAPTER.flash_loan_limit(market, address(1)) == limit
    assert ADAPTER.flash_loan_limit(market, address(9)) == 0
