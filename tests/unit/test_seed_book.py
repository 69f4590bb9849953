"""A drawn book depends on its seed alone, and each account of it could have been opened by a borrower."""

from __future__ import annotations

from collections import Counter

import pytest

from contracts_abi.errors import InputError
from simulation.chain.market import DEFAULT_MARKET, with_morpho
from simulation.chain.seed import (
    MAX_ACCOUNTS,
    PROFILES,
    Holding,
    SeedAccount,
    draw_book,
    draw_morpho_book,
)

E8 = 10**8


def base_e8(holdings: tuple[Holding, ...]) -> int:
    assets = {asset.symbol: asset for asset in DEFAULT_MARKET.assets}
    return sum(h.amount_raw * assets[h.symbol].price_e8 // 10 ** assets[h.symbol].decimals for h in holdings)


def limits_bps(account: SeedAccount) -> tuple[float, float]:
    """Return loan-to-value and liquidation threshold of an account's collateral."""
    modes = {mode.category: mode for mode in DEFAULT_MARKET.emodes}
    total = base_e8(account.collateral)
    ltv = threshold = 0.0
    for holding in account.collateral:
        of = modes.get(account.emode) or DEFAULT_MARKET.asset(holding.symbol)
        part = base_e8((holding,)) / total
        ltv += part * of.ltv_bps
        threshold += part * of.liquidation_threshold_bps
    return ltv, threshold


def health_factor(account: SeedAccount) -> float:
    return base_e8(account.collateral) * limits_bps(account)[1] / 10_000 / base_e8(account.debt)


def test_the_same_seed_draws_the_same_book() -> None:
    assert draw_book(DEFAULT_MARKET, 50, 1) == draw_book(DEFAULT_MARKET, 50, 1)


def test_another_seed_draws_another_book() -> None:
    one, two = (draw_book(DEFAULT_MARKET, 50, seed) for seed in (1, 2))
    assert {a.address for a in one}.isdisjoint(a.address for a in two)
    assert [a.debt for a in one] != [a.debt for a in two]


@pytest.mark.parametrize("seed", range(5))
def test_every_account_is_within_what_the_protocol_lends(seed: int) -> None:
    book = draw_book(DEFAULT_MARKET, 400, seed)
    assert len({a.address for a in book}) == 400
    for account in book:
        ltv, _ = limits_bps(account)
        assert base_e8(account.debt) < base_e8(account.collateral) * ltv / 10_000
        assert health_factor(account) > 1.02
        assert all(holding.amount_raw > 0 for holding in account.collateral + account.debt)


@pytest.mark.parametrize("seed", range(5))
def test_a_book_of_200_has_all_that_a_demonstration_needs(seed: int) -> None:
    book = draw_book(DEFAULT_MARKET, 200, seed)
    debts = [base_e8(account.debt) / E8 for account in book]
    assert sum(debt < 61 for debt in debts) >= 4
    assert sum(debt > 49_999 for debt in debts) >= 4
    assert max(debts) < 300_001
    assert {account.profile for account in book} == set(PROFILES)
    assert any(len(account.collateral) > 1 for account in book)
    assert any(len(account.debt) > 1 for account in book)
    assert any(account.emode for account in book)
    longs = [a for a in book if a.profile in ("eth long", "eth and steth long")]
    assert sum(health_factor(account) < 2 for account in longs) >= 60


@pytest.mark.parametrize("accounts", [1, 2, 5])
def test_small_books_are_books_too(accounts: int) -> None:
    assert len(draw_book(DEFAULT_MARKET, accounts, 0)) == accounts


@pytest.mark.parametrize(("accounts", "seed"), [(0, 0), (MAX_ACCOUNTS + 1, 0), (1, -1)])
def test_numbers_out_of_range_are_refused(accounts: int, seed: int) -> None:
    with pytest.raises(InputError):
        draw_book(DEFAULT_MARKET, accounts, seed)


# --- Morpho Blue --------------------------------------------------------------------------------------------

MORPHO = with_morpho(DEFAULT_MARKET)


@pytest.mark.parametrize("seed", range(3))
def test_every_morpho_account_is_within_what_its_market_lends(seed: int) -> None:
    book = draw_morpho_book(MORPHO, 400, seed)
    assert book == draw_morpho_book(MORPHO, 400, seed)
    assert len({a.address for a in book}) == 400
    names = {market.name: market for market in MORPHO.morpho}
    seen = Counter(a.market for a in book)
    assert set(seen) == set(names)
    assert seen["WETH/USDC"] > seen["WBTC/USDC"] > 50
    near = 0
    for account in book:
        spec = names[account.market]
        collateral = base_e8((Holding(spec.collateral, account.collateral_raw),))
        debt = base_e8((Holding(spec.loan, account.debt_raw),))
        assert debt > 0
        health = collateral * spec.lltv_wad / 10**18 / debt
        assert health > 1.0099
        near += health < 1.1
    assert near > 80, "a fall by a tenth has something to liquidate"
    # Some are on Aave as well.
    aave = {a.address for a in draw_book(DEFAULT_MARKET, 400, seed)}
    assert sum(a.address in aave for a in book) == 100


def test_a_morpho_book_needs_a_market_and_a_number_in_range() -> None:
    assert draw_morpho_book(DEFAULT_MARKET, 0, 0) == ()
    for market, accounts, seed, words in (
        (DEFAULT_MARKET, 1, 0, "has no Morpho"),
        (MORPHO, -1, 0, "morpho_accounts"),
        (MORPHO, MAX_ACCOUNTS + 1, 0, "morpho_accounts"),
        (MORPHO, 1, -1, "seed"),
    ):
        with pytest.raises(InputError, match=words):
            draw_morpho_book(market, accounts, seed)
