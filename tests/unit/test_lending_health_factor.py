"""The health factor at anybody's prices, through the margin method's interface."""

from __future__ import annotations

from dataclasses import replace

from oracle.snapshot import plain_snapshot
from oracle.types import FeedKind, GuardedPrice, NoData, PriceObs, PriceSnapshot, PriceStatus
from simulation.fixed_point import WAD
from simulation.interfaces import MarginMethod
from simulation.margin import lending_margin
from simulation.margin.lending_health_factor import LendingHealthFactor, prices_base
from simulation.protocols.aave_v3 import AaveLayout, AaveV3, calculate_user_account_data
from simulation.protocols.aave_v3.book import book_of_accounts
from simulation.types import MarginStatus
from tests.aave_states import ACCOUNT, NOW, account, eth_and_usd

SIX = 10**6


def guarded(base: str, price_e8: int, status: PriceStatus = PriceStatus.OK) -> GuardedPrice:
    return GuardedPrice(PriceObs(base, "USD", price_e8, 8, FeedKind.PUSH, "test", NOW, NOW), status)


def view(**prices: GuardedPrice) -> PriceSnapshot:
    return PriceSnapshot("reference", 1, NOW, "USD", prices)


def method() -> LendingHealthFactor:
    layout = AaveLayout("0x1", "0x2", "0x3", "", (), (), 8)
    return LendingHealthFactor(AaveV3(layout), eth_and_usd())


def test_it_is_a_registered_margin_method() -> None:
    assert lending_margin.get("lending-health-factor") is LendingHealthFactor
    assert isinstance(method(), MarginMethod)
    assert method().id == "aave-v3.health_factor"


def test_one_account_at_two_views() -> None:
    state = eth_and_usd()
    holder = account({0: 10 * WAD}, {1: 1_500 * SIX})
    book = book_of_accounts("aave-v3", state, [ACCOUNT], [holder])
    usd = guarded("USD", 10**8)
    fair = method().report(book, 0, view(ETH=guarded("ETH", 200 * 10**8), USD=usd))
    assert (fair.status, fair.method) == (MarginStatus.HEALTHY, "aave-v3.health_factor")
    assert (fair.collateral_base, fair.debt_base, fair.equity_base) == (
        2_000 * 10**8,
        1_500 * 10**8,
        500 * 10**8,
    )
    # 15 % of the collateral does not count, 20 % may not be borrowed against.
    assert (fair.maintenance_base, fair.initial_base) == (300 * 10**8, 400 * 10**8)
    low = method().report(book, 0, view(ETH=guarded("ETH", 170 * 10**8), USD=usd))
    assert low.status is MarginStatus.LIQUIDATABLE
    assert low.health_factor_wad == 963_333_333_333_333_333


def test_what_is_unknown_stays_unknown() -> None:
    state = eth_and_usd()
    book = book_of_accounts("aave-v3", state, [ACCOUNT, "0xdead"], [account({0: 10 * WAD}, {1: SIX}), None])
    usd = guarded("USD", 10**8)
    refused = view(ETH=guarded("ETH", 200 * 10**8, PriceStatus.REFUSED), USD=usd)
    report = method().report(book, 0, refused)
    assert (report.status, report.health_factor_wad) == (MarginStatus.UNKNOWN, None)
    assert report.reason == "no price for ETH"
    missing = GuardedPrice(NoData("ETH", "USD", "test", NOW, "reverted"), PriceStatus.MISSING)
    assert method().report(book, 0, view(ETH=missing, USD=usd)).status is MarginStatus.UNKNOWN
    unread = method().report(book, 1, view(ETH=guarded("ETH", 200 * 10**8), USD=usd))
    assert (unread.status, unread.account) == (MarginStatus.UNKNOWN, "0xdead")


def test_an_account_without_debt_says_so() -> None:
    book = book_of_accounts("aave-v3", eth_and_usd(), [ACCOUNT], [account({0: WAD}, {})])
    report = method().report(book, 0, view(ETH=guarded("ETH", 1)))
    assert (report.status, report.health_factor_wad) == (MarginStatus.NO_DEBT, 2**256 - 1)


def test_prices_at_the_protocols_scale() -> None:
    snapshot = view(ETH=guarded("ETH", 123_456_789), USD=guarded("USD", 1, PriceStatus.REFUSED))
    assert prices_base(snapshot, 18) == {"ETH": 1_234_567_890_000_000_000}
    assert prices_base(snapshot, 6) == {"ETH": 1_234_567}
    fine = GuardedPrice(PriceObs("ETH", "USD", 3, 18, FeedKind.PUSH, "test", NOW, NOW), PriceStatus.OK)
    assert prices_base(view(ETH=fine), 18) == {"ETH": 3}
    assert fine.reading.decimals == 18
    assert prices_base(view(ETH=fine), 8) == {}, "what rounds to nothing is unknown, not worth nothing"


def test_a_market_in_another_base_currency_is_computed_at_its_own_scale() -> None:
    """Prices in ETH with 18 decimals: nothing of them is lost on the way to the contract's own arithmetic."""
    state = replace(eth_and_usd(), base_decimals=18)
    prices = {"ETH": 10**18, "USD": 5 * 10**15 + 1}
    state = state.with_prices(prices)
    holder = account({0: WAD}, {1: 160 * SIX})
    book = book_of_accounts("aave-v3", state, [ACCOUNT], [holder])
    layout = AaveLayout("0x1", "0x2", "0x3", "", (), (), 18)
    snapshot = plain_snapshot("protocol", "ETH", prices, 18, block=1, timestamp=NOW)
    report = LendingHealthFactor(AaveV3(layout), state).report(book, 0, snapshot)
    contract = calculate_user_account_data(state, holder)
    assert (report.debt_base, report.health_factor_wad) == (
        contract.total_debt_base,
        contract.health_factor_wad,
    )
    assert (report.debt_base, report.base_decimals) == (800_000_000_000_000_160, 18)
