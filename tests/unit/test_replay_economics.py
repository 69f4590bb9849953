"""What an oracle's failure costs, on cases small enough to work out by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest

from simulation.replay.economics import (
    Borrower,
    Deed,
    Economics,
    Keeper,
    Step,
    bad_debt,
    play_accounts,
)
from simulation.replay.lending import NO_LIMIT, AaveModel, Account, LendingModel, LtvModel, Market, Quotes

ETH = Market("ETH", 18, 8_000, 8_500, 500, slippage_bps=0)
USD = Market("USD", 6, 0, 0, 0)
MARKETS = {"ETH": ETH, "USD": USD}
MODELS: tuple[LendingModel, ...] = (LtvModel(MARKETS), AaveModel(MARKETS))
E18, E6 = 10**18, 10**6


def step(
    t: int, truth: str, reported: str | None = "", *, base_fee_gwei: int | None = None, guard: str = ""
) -> Step:
    """A moment with one moving price; the dollar is a dollar."""
    true = Fraction(truth)
    said = true if reported == "" else None if reported is None else Fraction(reported)
    prices = {"ETH": said, "USD": Fraction(1)}
    quotes = Quotes(prices, prices, {"ETH": guard} if guard else {})
    return Step(
        t=t,
        block=t,
        truth={"ETH": true, "USD": Fraction(1)},
        borrowing=quotes,
        liquidating=quotes,
        base_fee_wei=None if base_fee_gwei is None else base_fee_gwei * 10**9,
        gas_price_usd=None if base_fee_gwei is None else Fraction(base_fee_gwei, 10**9) * true,
    )


def account(eth: int, usd: int, name: str = "a") -> Account:
    return Account(name, {"ETH": eth * E18}, {"USD": usd * E6})


def deeds(run: Economics) -> list[tuple[int, Deed]]:
    return [(e.t, e.deed) for e in run.events]


# -------------------------------------------------------------------------------------------------- bad debt


def test_bad_debt_is_counted_account_by_account_and_after_slippage() -> None:
    markets = {"ETH": Market("ETH", 18, slippage_bps=1_000), "USD": USD}
    truth = {"ETH": Fraction(100), "USD": Fraction(1)}
    accounts = [account(1, 95), account(1, 80, "b"), account(2, 181, "c")]
    # 100 of collateral fetch 90: a lacks 5, b nothing, and c (180 fetched) lacks 1; b's surplus helps nobody.
    assert bad_debt(accounts, truth, markets) == 6


# ---------------------------------------------------------------------------------------------- liquidation


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_a_right_price_liquidates_in_time_and_leaves_no_bad_debt(model: LendingModel) -> None:
    run = play_accounts(model, [step(1, "100"), step(2, "94"), step(3, "90")], [account(1, 80)])
    assert {d for _, d in deeds(run)} == {Deed.LIQUIDATE}
    assert run.events[0].t == 2
    assert (run.bad_debt, run.wrongly_liquidated, run.wrongly_seized) == (0, (), 0)
    assert run.keeper_profit > 0


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_a_price_that_is_held_too_high_leaves_bad_debt(model: LendingModel) -> None:
    run = play_accounts(model, [step(1, "100"), step(2, "50", "100")], [account(1, 80)])
    assert deeds(run) == []
    assert run.bad_debt == run.bad_debt_peak == 30


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_a_price_that_is_wrongly_low_liquidates_who_was_healthy(model: LendingModel) -> None:
    run = play_accounts(
        model, [step(1, "100"), step(2, "100", "90")], [account(1, 80), account(1, 10, "safe")]
    )
    assert run.wrongly_liquidated == ("a",)
    seized = run.wrongly_seized
    # 40 repaid take 42 at the price of 90, that is 46.67 at the true one; the model may then go on.
    assert seized >= Fraction(42 * 100, 90) - Fraction(1, 10**6)
    assert run.keeper_profit == run.wrongly_lost > 0
    assert all(e.wrong for e in run.events if e.deed is Deed.LIQUIDATE)


def test_one_liquidation_of_the_generic_model_by_hand() -> None:
    model = LtvModel(MARKETS, close_factor_bps=5_000)
    quotes = Quotes.same({"ETH": Fraction(90), "USD": Fraction(1)})
    seizure = model.liquidate(account(1, 80), quotes, collateral="ETH", debt="USD", most_raw=NO_LIMIT)
    assert seizure is not None
    assert seizure.repaid_raw == 40 * E6
    assert seizure.seized_raw == 40 * 105 * E18 // (100 * 90)
    assert seizure.after.debt == {"USD": 40 * E6}


def test_a_liquidation_never_takes_more_than_there_is() -> None:
    model = LtvModel(MARKETS, close_factor_bps=10_000)
    quotes = Quotes.same({"ETH": Fraction(21), "USD": Fraction(1)})
    seizure = model.liquidate(account(1, 80), quotes, collateral="ETH", debt="USD", most_raw=NO_LIMIT)
    assert seizure is not None
    assert (seizure.seized_raw, seizure.repaid_raw) == (E18, 20 * E6)
    assert seizure.after.collateral == {}


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_an_unknown_price_is_never_healthy_and_never_liquidated(model: LendingModel) -> None:
    unknown = Quotes.same({"ETH": None, "USD": Fraction(1)})
    assert model.due(account(1, 80), unknown) is None
    assert model.liquidate(account(1, 80), unknown, collateral="ETH", debt="USD", most_raw=1) is None
    assert model.borrowable(account(1, 0), "USD", unknown, None) == 0
    run = play_accounts(model, [step(1, "100"), step(2, "50", None, guard="G03 stale")], [account(1, 80)])
    assert deeds(run) == [(2, Deed.LIQUIDATION_REFUSED)]
    assert run.events[0].detail == "ETH: G03 stale"


def test_a_refusal_is_told_when_it_begins_and_not_at_every_step() -> None:
    steps = [step(t, "100", None) for t in (1, 2, 3)] + [step(4, "100"), step(5, "100", None)]
    run = play_accounts(LtvModel(MARKETS), steps, [account(1, 10)])
    assert deeds(run) == [(1, Deed.LIQUIDATION_REFUSED), (5, Deed.LIQUIDATION_REFUSED)]


# --------------------------------------------------------------------------------------------------- keepers


def test_a_keeper_does_nothing_above_its_gas_cap() -> None:
    keeper = Keeper("k", gas_cap_wei=200 * 10**9, gas_units=500_000)
    steps = [step(1, "90", base_fee_gwei=300), step(2, "90", base_fee_gwei=100)]
    run = play_accounts(LtvModel(MARKETS), steps, [account(100, 8_000)], keepers=[keeper])
    assert deeds(run)[0] == (1, Deed.KEEPER_IDLE)
    assert "300.0 gwei" in run.events[0].detail
    assert (2, Deed.LIQUIDATE) in deeds(run)


def test_gas_that_costs_more_than_the_bonus_stops_a_keeper_and_is_paid_otherwise() -> None:
    keeper = Keeper("k", gas_units=500_000)
    run = play_accounts(
        LtvModel(MARKETS), [step(1, "90", base_fee_gwei=100)], [account(1, 80)], keepers=[keeper]
    )
    # 0.05 ETH of gas are worth 4.50, the bonus on 40 is 2.
    assert deeds(run) == [(1, Deed.KEEPER_IDLE)]
    assert run.events[0].detail == "due, and no keeper finds that it pays"
    model = LtvModel(MARKETS, close_factor_bps=10_000)
    run = play_accounts(model, [step(1, "90", base_fee_gwei=10)], [account(1, 80)], keepers=[keeper])
    assert run.keeper_profit == pytest.approx(4 - 0.45)


def test_inventory_is_spent_once_and_hours_are_kept() -> None:
    keeper = Keeper("k", inventory=Fraction(10), start=2, end=3)
    steps = [step(t, "90") for t in (1, 2, 3, 4)]
    run = play_accounts(LtvModel(MARKETS), steps, [account(1, 80)], keepers=[keeper])
    repaid = sum(e.debt_value for e in run.events)
    assert repaid == 10
    assert {t for t, d in deeds(run) if d is Deed.LIQUIDATE} == {2}


def test_a_loss_is_nobodys_business() -> None:
    # Reported and true prices differ the other way: what is seized is worth less than the debt repaid.
    run = play_accounts(LtvModel(MARKETS), [step(1, "50", "90")], [account(1, 80)])
    assert run.liquidated == 0
    assert run.bad_debt == 30


# ------------------------------------------------------------------------------------------------- borrowers


ATTACKER = Borrower("attacker", {"ETH": 10 * E18}, "USD")


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_an_attacker_comes_when_it_pays_and_not_before(model: LendingModel) -> None:
    steps = [step(1, "100"), step(2, "85", "100"), step(3, "50", "100")]
    run = play_accounts(model, steps, [], [ATTACKER])
    assert deeds(run) == [(3, Deed.BORROW)]
    # 800 borrowed on 500 of collateral.
    assert run.attacker_profit == run.bad_debt == 300


def test_costs_and_free_mints_count() -> None:
    steps = [step(3, "50", "100")]
    dear = Borrower("attacker", {"ETH": 10 * E18}, "USD", cost=Fraction(299))
    assert play_accounts(LtvModel(MARKETS), steps, [], [dear]).attacker_profit == 1
    minted = Borrower("attacker", {"ETH": 10 * E18}, "USD", pays=False)
    # 800 taken, and the 500 that were minted are left behind with the debt.
    assert play_accounts(LtvModel(MARKETS), steps, [], [minted]).attacker_profit == 800


def test_an_honest_loan_earns_nothing() -> None:
    borrower = Borrower("a", {"ETH": 10 * E18}, "USD", at=1)
    run = play_accounts(LtvModel(MARKETS), [step(1, "100"), step(2, "100")], [], [borrower])
    assert deeds(run) == [(1, Deed.BORROW)]
    assert run.attacker_profit == 0


def test_liquidity_bounds_what_all_borrow_together() -> None:
    markets = {"ETH": ETH, "USD": Market("USD", 6, liquidity_raw=1_000 * E6)}
    two = [Borrower(name, {"ETH": 10 * E18}, "USD", at=1) for name in ("x", "y")]
    run = play_accounts(LtvModel(markets), [step(1, "10", "100")], [], two)
    assert [e.debt_raw for e in run.events] == [800 * E6, 200 * E6]


def test_a_refused_borrower_waits_for_a_moment_that_pays() -> None:
    steps = [step(1, "50", None, guard="G06 at bound"), step(2, "100"), step(3, "50", "100")]
    borrower = Borrower("attacker", {"ETH": 10 * E18}, "USD", at=1)
    run = play_accounts(LtvModel(MARKETS), steps, [], [borrower])
    assert deeds(run) == [(1, Deed.BORROW_REFUSED), (3, Deed.BORROW)]
    assert run.events[0].detail == "ETH: G06 at bound"


def test_a_named_amount_is_borrowed_whole_or_not_at_all() -> None:
    for wanted, got in ((800 * E6, 800 * E6), (800 * E6 + 1, 0)):
        borrower = Borrower("a", {"ETH": 10 * E18}, "USD", borrows_raw=wanted, at=1)
        run = play_accounts(LtvModel(MARKETS), [step(1, "100")], [], [borrower])
        assert sum(e.debt_raw for e in run.events) == got


def test_a_debt_priced_at_nothing_is_lent_to_the_last_unit() -> None:
    markets = {"ETH": ETH, "USD": Market("USD", 6, liquidity_raw=10**7 * E6)}
    quotes = Quotes.same({"ETH": Fraction(100), "USD": Fraction(0)})
    assert LtvModel(markets).borrowable(account(1, 0), "USD", quotes, 10**13) == 10**13
    # Aave's oracle reverts at a price of zero.
    assert AaveModel(markets).borrowable(account(1, 0), "USD", quotes, 10**13) == 0


def test_the_levels_show_what_could_be_borrowed_before_anybody_does() -> None:
    run = play_accounts(LtvModel(MARKETS), [step(1, "50", "60"), step(2, "50", None)], [], [ATTACKER])
    first, second = run.levels
    assert (first.borrowable, first.borrowable_truth) == (480, 400)
    assert (second.borrowable, second.borrowable_truth) == (None, 400)


# --------------------------------------------------------------------------------------------- exact model


@pytest.mark.parametrize(
    ("eth", "usd", "price", "close_bps"),
    [
        (E18, 80 * E6, "94", 5_000),
        (3 * 10**17, 22 * E6, "80.12345678", 10_000),  # a health factor of 0.93
        (E18 + 7, 84 * E6 + 1, "97.999999999", 5_000),  # beyond the oracle's eight decimals
    ],
)
def test_the_exact_model_rounds_like_the_contract(eth: int, usd: int, price: str, close_bps: int) -> None:
    quotes = Quotes.same({"ETH": Fraction(price), "USD": Fraction(1)})
    who = Account("a", {"ETH": eth}, {"USD": usd})
    seizure = AaveModel(MARKETS).liquidate(who, quotes, collateral="ETH", debt="USD", most_raw=NO_LIMIT)
    assert seizure is not None
    repaid = (usd * close_bps + 5_000) // 10_000
    price_e8 = int(Fraction(price) * 10**8)
    base = 10**8 * repaid * 10**18 // (price_e8 * 10**6)
    assert (seizure.repaid_raw, seizure.seized_raw) == (repaid, (base * 10_500 + 5_000) // 10_000)


def test_an_account_cannot_lose_what_it_does_not_have() -> None:
    with pytest.raises(ValueError, match="-2 of ETH on 1"):
        Account("a", {"ETH": 1}, {}).moved({"ETH": -2})
