"""What must hold of every lending market that a replay plays, whatever the prices are."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from simulation.replay.economics import Borrower, Deed, Step, play_accounts
from simulation.replay.lending import AaveModel, Account, LendingModel, LtvModel, Market, Quotes, value

COIN = Market("COIN", 18, 7_000, 7_500, 500, slippage_bps=300)
USD = Market("USD", 6)
MARKETS = {"COIN": COIN, "USD": USD}
MODELS: tuple[LendingModel, ...] = (LtvModel(MARKETS), AaveModel(MARKETS))
DUST = Fraction(1, 1_000)

models = st.sampled_from(MODELS)
prices_e8 = st.integers(10**6, 10**13)
coins = st.integers(10**15, 10**24)
shares_bps = st.integers(0, 7_500)


def step(t: int, true: Fraction, said: Fraction | None) -> Step:
    quotes = Quotes.same({"COIN": said, "USD": Fraction(1)})
    return Step(t, t, {"COIN": true, "USD": Fraction(1)}, quotes, quotes)


def account(coin: int, price: Fraction, share_bps: int, name: str = "a") -> Account:
    """An account that owes a share of its collateral's value."""
    owed = int(price * coin * share_bps / (10**18 * 10_000) * 10**6)
    return Account(name, {"COIN": coin}, {"USD": owed} if owed else {})


@st.composite
def falls(draw: st.DrawFn) -> list[Fraction]:
    """A price path whose steps are too small to jump from healthy to insolvent."""
    price = Fraction(draw(st.integers(10**8, 10**12)), 10**8)
    path = [price]
    for move in draw(st.lists(st.integers(-1_500, 1_500), min_size=1, max_size=12)):
        path.append(path[-1] * (10_000 + move) / 10_000)
    return path


@settings(deadline=None, max_examples=120)
@given(models, falls(), st.lists(st.tuples(coins, shares_bps), min_size=1, max_size=4))
def test_true_prices_and_keepers_without_limits_leave_no_bad_debt(
    model: LendingModel, path: Sequence[Fraction], owners: Sequence[tuple[int, int]]
) -> None:
    # A step falls by at most 15 %, the threshold is 75 % and the bonus 5 %: 0.75 * 1.05 / 0.85 < 0.97.
    accounts = [account(n, path[0], share, f"a{i}") for i, (n, share) in enumerate(owners)]
    run = play_accounts(model, [step(t, p, p) for t, p in enumerate(path)], accounts)
    assert run.bad_debt_peak <= DUST
    assert run.wrongly_liquidated == ()
    assert run.keeper_profit >= 0


@settings(deadline=None, max_examples=150)
@given(models, coins, prices_e8, prices_e8)
def test_an_attacker_gains_what_the_protocol_loses(
    model: LendingModel, coin: int, true_e8: int, said_e8: int
) -> None:
    markets = {"COIN": Market("COIN", 18, 7_000, 7_500, 500), "USD": USD}
    same = type(model)(markets)  # without slippage
    true, said = Fraction(true_e8, 10**8), Fraction(said_e8, 10**8)
    run = play_accounts(same, [step(0, true, said)], [], [Borrower("x", {"COIN": coin}, "USD")], keepers=[])
    assert run.attacker_profit == run.bad_debt
    assert (run.bad_debt > 0) == any(e.deed is Deed.BORROW for e in run.events)
    if said <= true:
        assert run.bad_debt == 0


@settings(deadline=None, max_examples=150)
@given(models, coins, prices_e8, shares_bps, prices_e8)
def test_what_may_be_borrowed_leaves_the_account_healthy_and_no_room(
    model: LendingModel, coin: int, price_e8: int, share_bps: int, limit: int
) -> None:
    price = Fraction(price_e8, 10**8)
    quotes = Quotes.same({"COIN": price, "USD": Fraction(1)})
    before = account(coin, price, share_bps)
    amount = model.borrowable(before, "USD", quotes, limit)
    assert 0 <= amount <= limit
    if amount:
        after = before.moved(debt={"USD": amount})
        assert model.due(after, quotes) is False
        owed = value(after.debt, quotes.debt, MARKETS)
        held = value(after.collateral, quotes.collateral, MARKETS)
        assert owed is not None
        assert held is not None
        assert owed <= held * COIN.max_ltv_bps / 10_000 + DUST
        if amount < limit:
            assert model.borrowable(after, "USD", quotes, None) <= 10**4


@settings(deadline=None, max_examples=200)
@given(models, coins, prices_e8, shares_bps, st.integers(1, 20_000), st.integers(0, 10**20))
def test_a_liquidation_keeps_within_the_account_the_bonus_and_the_means(
    model: LendingModel, coin: int, price_e8: int, share_bps: int, move_bps: int, most: int
) -> None:
    start = Fraction(price_e8, 10**8)
    price = Fraction(int(start * move_bps / 10_000 * 10**8), 10**8)
    quotes = Quotes.same({"COIN": price, "USD": Fraction(1)})
    before = account(coin, start, share_bps)
    seizure = model.liquidate(before, quotes, collateral="COIN", debt="USD", most_raw=most)
    if seizure is None:
        return
    assert model.due(before, quotes)
    assert 0 < seizure.repaid_raw <= min(most, before.debt["USD"])
    assert 0 < seizure.seized_raw <= coin
    repaid, seized = Fraction(seizure.repaid_raw, 10**6), price * seizure.seized_raw / 10**18
    # One unit of either token may be rounded in the liquidator's favour, half of one on Aave.
    slack = Fraction(2, 10**6) + price / 10**18
    assert seized <= repaid * Fraction(105, 100) + slack * 2


@settings(deadline=None, max_examples=100)
@given(models, falls(), st.integers(0, 12), coins, shares_bps)
def test_a_refused_price_harms_nobody_by_a_wrong_liquidation_and_lends_nothing(
    model: LendingModel, path: Sequence[Fraction], shut: int, coin: int, share_bps: int
) -> None:
    steps = [step(t, p, None if t >= shut else p) for t, p in enumerate(path)]
    run = play_accounts(
        model, steps, [account(coin, path[0], share_bps)], [Borrower("x", {"COIN": coin}, "USD")]
    )
    assert run.wrongly_liquidated == ()
    assert all(e.t < shut for e in run.events if e.deed in (Deed.BORROW, Deed.LIQUIDATE))
    assert run.attacker_profit <= 0
