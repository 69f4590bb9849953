"""Generated books: the figures they are calibrated to, their limits, and a seed that repeats to the bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contracts_abi.errors import InputError
from simulation.book.bounds import check_book
from simulation.book.defaults import default_market
from simulation.book.dump import dump_book
from simulation.book.generate import BookSpec, generate
from simulation.book.health import lending_accounts, perp_accounts, wallet_leverage
from simulation.book.load import equal_books, parse_book
from simulation.book.types import SharedBook, Side

BOOK = generate(BookSpec(accounts=10_000), 1)


def leverage_by_size(book: SharedBook) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the leverage of wallets that lend, the smallest first."""
    assets, leverage = wallet_leverage(book)
    return leverage[np.argsort(np.where(np.isnan(leverage), -1.0, assets))][int(np.isnan(leverage).sum()) :]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_leverage_is_what_is_published(seed: int) -> None:
    book = BOOK if seed == 1 else generate(BookSpec(accounts=10_000), seed)
    leverage = leverage_by_size(book)
    # Heimbach and Huang: 1.4 to 1.9 overall, more for the largest.
    assert leverage.mean() == pytest.approx(1.65, abs=0.005)
    accounts = lending_accounts(book)
    assets, debt = accounts.collateral.sum(), accounts.debt.sum()
    assert 1.4 < assets / (assets - debt) < 1.9
    fifths = [part.mean() for part in np.array_split(leverage, 5)]
    assert fifths[-1] == max(fifths) > fifths[0] + 0.15
    assert leverage[-1_000:].mean() > leverage.mean() + 0.05
    assert np.median(leverage[-500:]) > np.median(leverage[:500]) + 0.1


def test_every_account_is_within_its_limits_and_some_are_close() -> None:
    accounts = lending_accounts(BOOK)
    assert (accounts.debt <= accounts.borrow_limit).all()
    health = accounts.health_factor
    assert health.min() >= 1.0
    # 4 % are put below 1.1 on purpose; loopers come close by themselves.
    assert 0.03 < (health < 1.1).mean() < 0.07
    assert (health < 1.02).any()
    perps = perp_accounts(BOOK)
    assert (perps.equity >= perps.initial).all()


def test_there_is_every_kind_of_wallet() -> None:
    accounts = lending_accounts(BOOK)
    assert set(np.unique(accounts.venue)) == set(range(len(BOOK.lending)))
    loopers = accounts.emode > 0
    assert 0.01 < loopers.mean() < 0.05
    assert (accounts.debt / accounts.collateral)[loopers].min() > 0.6
    several = np.bincount(accounts.wallet) > 1
    assert 0.05 < several.mean() < 0.2
    whales = np.bincount(accounts.wallet, accounts.collateral) > 2e6
    assert several[whales].mean() > several.mean()
    assert 20 < whales.sum() < 200
    # Short perpetuals of hedgers, long ones of traders, as much of one as of the other.
    perps = BOOK.perp_positions
    shorts, lends = set(perps.wallet[perps.size < 0].tolist()), set(accounts.wallet.tolist())
    assert shorts <= lends
    assert len(shorts) > 100
    assert lends.isdisjoint(perps.wallet[perps.size > 0].tolist())
    for token in np.unique(perps.token):
        size = perps.size[perps.token == token]
        assert size.sum() == pytest.approx(0, abs=np.abs(size).sum() * 1e-6)


def test_a_seed_repeats_to_the_bit() -> None:
    assert equal_books(generate(BookSpec(accounts=10_000), 1), BOOK)
    assert not equal_books(generate(BookSpec(accounts=10_000), 2), BOOK, source=False)


def test_a_generated_book_is_written_and_read_to_the_bit(tmp_path: Any) -> None:
    book = generate(BookSpec(accounts=300), 7)
    (text,) = dump_book(book, "b.toml", "inline").values()
    assert equal_books(parse_book(text), book, source=False)
    for name, content in dump_book(book, "b.toml").items():
        (tmp_path / name).write_bytes(content)
    again = parse_book((tmp_path / "b.toml").read_bytes(), folder=tmp_path)
    assert equal_books(again, book, source=False)


def test_what_is_lent_is_supplied() -> None:
    rows, index = BOOK.positions, BOOK.token_index()
    aave = BOOK.lending[0]
    owed = (rows.venue == 0) & (rows.side == Side.DEBT) & (rows.token == index["USDC"])
    held = (rows.venue == 0) & (rows.side == Side.COLLATERAL) & (rows.token == index["USDC"])
    supplied = rows.amount[held].sum() + aave.reserve("USDC").idle_supply
    assert rows.amount[owed].sum() / supplied == pytest.approx(0.85, abs=1e-4)


def test_another_market_and_other_shares() -> None:
    market = default_market()
    small = replace(market, lending=market.lending[3:4], perps=())
    none = {"loopers": 0.0, "shorts": 0.0, "hedgers": 0.0, "traders": 0.0}
    book = generate(BookSpec(accounts=500, market=small, mean_leverage=2.0, **none), 1)
    check_book(book)
    assert leverage_by_size(book).mean() == pytest.approx(2.0, abs=0.01)
    assert len(book.perp_positions) == 0
    with pytest.raises(InputError, match="can hold a looper"):
        generate(BookSpec(accounts=500, market=small, **{**none, "loopers": 0.5}), 1)
    with pytest.raises(InputError, match=r"traders: .* without a venue of perpetuals"):
        generate(BookSpec(accounts=500, market=small, **{**none, "traders": 0.5}), 1)


def test_one_account_is_a_book() -> None:
    for seed in range(20):
        assert len(generate(BookSpec(accounts=1), seed).wallets) == 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"accounts": 0}, "accounts: 0"),
        ({"whales": 1.5}, "whales: 1.5"),
        ({"loopers": 0.6, "shorts": 0.6}, "more than all"),
        ({"mean_leverage": 0.9}, "mean_leverage: 0.9"),
        ({"looper_leverage": (4.0, 3.0)}, "looper_leverage"),
        ({"near_health_factor": 0.9}, "near_health_factor"),
        ({"utilisation": 1.0}, "utilisation"),
        ({"median_usd": 0.0}, "median_usd"),
    ],
)
def test_specifications_are_checked(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        BookSpec(**changed)
    with pytest.raises(InputError, match="seed: -1"):
        generate(BookSpec(accounts=1), -1)
