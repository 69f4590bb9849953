"""The pool as a lending model: the same economics as the exact model in Python, integer by integer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts_abi import feeds
from simulation.chain import revm
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.artifacts import own
from simulation.chain.evm import Evm
from simulation.chain.market import GENESIS
from simulation.chain.plays.pool import ChainPool, last_that_passes
from simulation.chain.plays.stage import OWNER, Stage
from simulation.replay.economics import Borrower, Deed, Economics, Keeper, Step, play_accounts
from simulation.replay.lending import AaveModel, Account, LendingModel, Market, Quotes

MARKETS = {
    "ETH": Market("ETH", 18, 8_000, 8_250, 500, 100, 10**24),
    "WBTC": Market("WBTC", 8, 7_000, 7_500, 1_000, 100, 10**12),
    "USDC": Market("USDC", 6, 7_500, 7_800, 450, 0, 50_000_000 * 10**6),
}
TRUTH = {"ETH": Fraction(2_000), "WBTC": Fraction(30_000), "USDC": Fraction(1)}
POSITIONS = (
    Account("close", {"ETH": 10 * 10**18}, {"USDC": 16_400 * 10**6}),
    Account("far", {"ETH": 10**18, "WBTC": 10**8}, {"USDC": 5_000 * 10**6}),
    Account("mixed", {"ETH": 5 * 10**18 + 7, "WBTC": 12_345_678}, {"ETH": 10**17, "USDC": 9_100 * 10**6 + 1}),
    Account("under", {"WBTC": 10**8}, {"USDC": 27_000 * 10**6}),
    Account("idle", {"USDC": 10**6}, {}),
)


@pytest.fixture(scope="module", params=["revm", "anvil"])
def evm(request: pytest.FixtureRequest) -> Iterator[Evm]:
    if request.param == "revm":
        if not revm.available():
            pytest.skip("pyrevm has wheels for CPython 3.11 and 3.12 only")
        yield revm.RevmEvm(timestamp=GENESIS)
    else:
        with Anvil.start(AnvilOptions(timestamp=GENESIS)) as node:
            yield node.evm()


@pytest.fixture
def pool(evm: Evm) -> Iterator[ChainPool]:
    before = evm.snapshot()
    yield ChainPool(Stage(evm, evm.timestamp()), MARKETS)
    evm.revert(before)


def step(t: int, **reported: str | None) -> Step:
    """Return a step at which the protocol reads other prices than the true ones for some assets."""
    prices: dict[str, Fraction | None] = dict(TRUTH)
    prices |= {asset: None if price is None else Fraction(price) for asset, price in reported.items()}
    quotes = Quotes.same(prices)
    return Step(t, t, TRUTH, quotes, quotes)


def own_feeds(pool: ChainPool) -> Callable[[Step], None]:
    """Let the pool read feeds that tell each step's reported prices; returns what posts them."""
    code = own("PriceAggregator").creation_code(8, "reported", 1, 1, -(2**191), 2**191 - 1)
    reported = {symbol: pool.stage.create(code) for symbol in MARKETS}
    pool.read_from(reported)

    def tell(step: Step) -> None:
        for symbol, feed in reported.items():
            price = step.borrowing.collateral[symbol]
            mode = feeds.READS_REVERT if price is None else feeds.READS_LIVE
            pool.stage.act(OWNER, feed, feeds.SET_READ_MODE, mode)
            if price is not None:
                pool.stage.act(OWNER, feed, feeds.TRANSMIT, int(price * 10**8))

    return tell


def figures(economics: Economics) -> Economics:
    return replace(economics, model="")


def both(
    pool: ChainPool,
    steps: list[Step],
    borrowers: tuple[Borrower, ...] = (),
    keepers: tuple[Keeper, ...] = (Keeper("keeper"),),
) -> Economics:
    """Play on the exact model and on the pool, which must agree; returns what both say."""

    def run(model: LendingModel, on_step: Callable[[int], None] | None = None) -> Economics:
        return figures(play_accounts(model, steps, POSITIONS, borrowers, keepers, on_step=on_step))

    tell = own_feeds(pool)
    for position in POSITIONS:
        pool.open(position)
    tell(steps[0])
    on_chain = run(pool, lambda i: tell(steps[i + 1]) if i + 1 < len(steps) else None)
    assert on_chain == run(AaveModel(MARKETS))
    for account in on_chain.accounts:
        pool.settle(account)
        assert pool.account(account.id) == account
    return on_chain


def test_what_is_due_is_liquidated_by_both_alike(pool: ChainPool) -> None:
    steps = [step(1), step(2, ETH="1900.12345678"), step(3, ETH="1200", WBTC="31000.1"), step(4)]
    economics = both(pool, steps)
    assert economics.liquidated >= 3
    assert economics.wrongly_liquidated == ("close", "mixed")
    assert economics.bad_debt > 0, "at the true price the collateral taken was worth more"


def test_a_borrower_gets_the_last_unit_that_the_pool_gives(pool: ChainPool) -> None:
    steps = [step(1), step(2, WBTC="123456.7"), step(3)]
    economics = both(
        pool,
        steps,
        borrowers=(
            Borrower("attacker", {"WBTC": 3 * 10**8 + 1}, "USDC"),
            Borrower("whale", {"WBTC": 10**12, "ETH": 1}, "USDC", at=2),
            Borrower("modest", {"ETH": 10**18}, "USDC", 7 * 10**6, at=3),
        ),
    )
    borrowed = {e.account: e.debt_raw for e in economics.events if e.deed is Deed.BORROW}
    assert set(borrowed) == {"attacker", "whale"}
    assert sum(borrowed.values()) == MARKETS["USDC"].liquidity_raw, "nothing is left for the third"
    assert economics.bad_debt > 0
    assert economics.attacker_profit > 0


def test_an_asset_without_a_price_stands_still(pool: ChainPool) -> None:
    steps = [step(1, ETH=None), step(2, ETH="0"), step(3, ETH="1200")]
    economics = both(pool, steps, borrowers=(Borrower("late", {"ETH": 10**18}, "USDC", at=1),))
    assert [e.deed for e in economics.events if e.account == "close"][:1] == [Deed.LIQUIDATION_REFUSED]


def test_a_keeper_with_little_money_takes_little(pool: ChainPool) -> None:
    keeper = Keeper("poor", inventory=Fraction(1_000))
    economics = both(pool, [step(1), step(2, ETH="1300")], keepers=(keeper,))
    assert sum(e.debt_value for e in economics.events if e.deed is Deed.LIQUIDATE) <= 1_000
    assert economics.liquidated


@given(limit=st.integers(0, 300), near=st.integers(0, 300), most=st.integers(0, 300))
def test_the_search_finds_the_last_that_passes(limit: int, near: int, most: int) -> None:
    found = last_that_passes(lambda n: n <= limit, min(near, most), most)
    assert found == min(limit, most)
