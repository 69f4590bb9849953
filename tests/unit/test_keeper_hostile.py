"""Two markets in one keeper, one of them not as one would have it: what it must not do to the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import pytest

from contracts_abi.errors import DataError, JournalError
from keeper.contained import contained
from keeper.decide import Decision, decide_all
from keeper.markets import LendingProtocol
from keeper.view import QUOTE, FundsOf, HeadView, Views
from oracle.snapshot import plain_snapshot
from simulation.fixed_point import MAX_UINT256
from simulation.liquidation import MarketBook, plan_markets, plan_pairs
from simulation.policy.three_price import ThreePricePolicy
from simulation.protocols.aave_v3.layout import told_apart
from simulation.protocols.morpho_blue import (
    IrmKind,
    MarketParams,
    MarketState,
    MorphoAccount,
    MorphoBlue,
    MorphoLayout,
    MorphoMarket,
)
from simulation.protocols.morpho_blue.book import book_of_accounts
from simulation.types import (
    Action,
    Asset,
    Book,
    LiquidationPlan,
    MarginReport,
    MarginStatus,
    Reason,
    Verdict,
)
from tests.aave_states import NOW
from tests.morpho_states import IRM, MORPHO, ORACLE
from tests.seeded_view import ADAPTER, BLOCK, FIRST_E8, SETTINGS, seeded_accounts, token, view_at

WAD = 10**18
CRASH = {**FIRST_E8, **{s: FIRST_E8[s] * 62 // 100 for s in ("WETH", "wstETH")}}
ACCOUNTS = seeded_accounts(20, 3)
LOAN, COLLATERAL = Asset("USDC", token("USDC"), 6), Asset("WETH", token("WETH"), 18)
PARAMS = MarketParams(
    LOAN.address, COLLATERAL.address, ORACLE, IRM, 62 * WAD // 100
)  # who liquidates gets 12.8 %, more than on Aave
ON_MORPHO = MorphoBlue(MorphoLayout(MORPHO, PARAMS, LOAN, COLLATERAL, IrmKind.NONE))
ADAPTERS: dict[str, LendingProtocol] = {ADAPTER.name: ADAPTER, ON_MORPHO.name: ON_MORPHO}
PRICE_E36 = CRASH["WETH"] * 10**24 // 10**8


def aave() -> HeadView:
    """Return Aave after a fall of Ether that reference and pools confirm."""
    return view_at(ACCOUNTS, CRASH, CRASH, pools_e8=CRASH)


def morpho(debts_usd: Collection[int], oracle_percent: int = 100) -> HeadView:
    """Return a market of Morpho under water at an oracle that says a part of the true price."""
    price_e36 = PRICE_E36 * oracle_percent // 100
    total = 10**16
    market = MorphoMarket(
        params=PARAMS,
        state=MarketState(2 * total, 2 * total * 10**6, total, total * 10**6, NOW),
        irm=None,
        price_e36=price_e36,
        block=BLOCK,
        timestamp=NOW,
        loan=LOAN,
        collateral=COLLATERAL,
    )
    exact = [
        MorphoAccount("0x" + f"{i + 1:040x}", 0, usd * 10**12, usd * 10**6 * 10**36 // PRICE_E36 * 110 // 100)
        for i, usd in enumerate(debts_usd)
    ]
    book = book_of_accounts(ON_MORPHO.name, market, [a.account for a in exact], exact)
    prices = ON_MORPHO.prices_base(market)
    protocol = plain_snapshot("protocol", "USDC", prices, market.base_decimals, block=BLOCK, timestamp=NOW)
    first = aave()
    return HeadView(first.head, market, book, protocol, first.reference, first.pools)


def decided(views: Mapping[str, HeadView], **changes: Any) -> Decision:
    head = next(iter(views.values())).head
    return decide_all(
        Views(head, views, {}), ADAPTERS, ThreePricePolicy(), SETTINGS, next_timestamp=NOW + 12, **changes
    )


def plans_of(decision: Decision) -> Counter[str]:
    return Counter(plan.protocol for plan in decision.plans)


@pytest.mark.parametrize("most", [None, 8])
def test_who_is_held_takes_no_place_in_the_pools_and_in_the_bundle(most: int | None) -> None:
    """A market whose oracle is wrong must not stop the liquidations of another."""
    alone = plans_of(decided({ADAPTER.name: aave()}, most=most))
    assert alone[ADAPTER.name] >= 3
    # Large enough to empty every pool, and more of them than there is room for; all of them held.
    held = morpho([10**6] * 12, oracle_percent=96)
    both = decided({ADAPTER.name: aave(), ON_MORPHO.name: held}, most=most)
    verdicts = [v for v in both.verdicts if v.protocol_margin.protocol == ON_MORPHO.name]
    assert {(v.action, v.reason) for v in verdicts} == {(Action.HOLD, Reason.PROTOCOL_PRICE_LOW)}
    assert all("bps more than at reference prices" in v.detail for v in verdicts)
    assert plans_of(both) == alone
    # With a right oracle they are acted on, so that it is the policy that kept them away.
    right = decided({ADAPTER.name: aave(), ON_MORPHO.name: morpho([10**6] * 12)})
    assert plans_of(right)[ON_MORPHO.name] > 0


def of(decision: Decision, name: str) -> dict[str, tuple[Action, Reason]]:
    return {v.account: (v.action, v.reason) for v in decision.verdicts if v.protocol_margin.protocol == name}


def test_who_is_kept_off_by_a_limit_takes_no_place_either() -> None:
    whales = morpho([10**6] * 12)
    views = {ADAPTER.name: aave(), ON_MORPHO.name: whales}
    alone = plans_of(decided({ADAPTER.name: aave()}, most=8))
    denied = set(whales.book.accounts)
    both = decided(
        views, most=8, barred=lambda key: "deny_accounts: on the list" if key[1] in denied else None
    )
    assert plans_of(both) == alone
    assert set(of(both, ON_MORPHO.name).values()) == {(Action.HOLD, Reason.LIMIT)}
    details = {v.detail for v in both.verdicts if v.account in denied}
    assert details == {"deny_accounts: on the list"}
    # It is asked for the market too: an account is kept off in one and not in the other.
    elsewhere = decided(views, barred=lambda key: "x" if key[0] != ON_MORPHO.name else None)
    assert set(plans_of(elsewhere)) == {ON_MORPHO.name}


def test_who_was_refused_is_planned_for_on_what_the_others_leave() -> None:
    """An account whose plan never holds, in a market that anybody opened, must not use up the pools."""
    whales = morpho([10**8] * 3)
    views = {ADAPTER.name: aave(), ON_MORPHO.name: whales}
    alone = plans_of(decided({ADAPTER.name: aave()}))
    first = decided(views)
    assert plans_of(first)[ADAPTER.name] < alone[ADAPTER.name]
    refused = {(ON_MORPHO.name, account) for account in whales.book.accounts}
    second = decided(views, behind=refused)
    assert plans_of(second)[ADAPTER.name] == alone[ADAPTER.name]
    # They are not forgotten, and come behind everybody.
    order = [plan.protocol for plan in second.plans]
    assert order[-1] == ON_MORPHO.name
    assert order == sorted(order)
    # Nor do they take one of the last places.
    count = alone[ADAPTER.name]
    assert plans_of(decided(views, behind=refused, most=count)) == alone
    left = decided(views, behind=refused, most=count)
    assert set(of(left, ON_MORPHO.name).values()) <= {
        (Action.LEAVE, Reason.LIMIT),
        (Action.LEAVE, Reason.UNPROFITABLE),
    }


# ------------------------------------------------------------------------------------------ others' tokens


def test_a_token_of_one_market_is_no_way_for_the_swaps_of_another() -> None:
    """Whatever it offers: what somebody else's market lists need not be what it says."""
    weth, usdc, wbtc = (token(symbol) for symbol in ("WETH", "USDC", "WBTC"))
    # All that is left of Ether to dollar leads through what only the other market lists.
    pools = {a: p for a, p in aave().pools.items() if {p.token0, p.token1} != {weth, usdc}}
    views = {
        ADAPTER.name: replace(aave(), pools=pools),
        ON_MORPHO.name: replace(morpho([9_000]), pools=pools),
    }

    def paths(tokens: frozenset[str] | None) -> dict[str, set[str]]:
        settings = replace(SETTINGS, swap_tokens=tokens)
        decision = decide_all(
            Views(aave().head, views, {}), ADAPTERS, ThreePricePolicy(), settings, next_timestamp=NOW + 12
        )
        found: dict[str, set[str]] = {name: set() for name in views}
        for plan in decision.plans:
            found[plan.protocol] |= {t for hop in plan.path for t in (hop.token_in, hop.token_out)}
        return found

    through = paths(frozenset({weth}))
    assert through[ON_MORPHO.name] == set()
    assert wbtc in through[ADAPTER.name]  # its own
    assert wbtc in paths(frozenset({weth, wbtc}))[ON_MORPHO.name]  # configured
    assert wbtc in paths(None)[ON_MORPHO.name]


def test_the_gas_of_one_market_is_not_valued_through_a_token_of_another() -> None:
    weth, usdc, wbtc = (token(symbol) for symbol in ("WETH", "USDC", "WBTC"))
    pools = {a: p for a, p in aave().pools.items() if {p.token0, p.token1} != {weth, usdc}}
    view = morpho([9_000])
    # The market lends Ether's dollar: without a way from Ether there it goes by the prices.
    settings = replace(SETTINGS, swap_tokens=frozenset({weth, usdc}), from_inventory=True)
    (result,) = plan_pairs(ON_MORPHO, view.market, view.book.exact[0], pools, view.protocol, settings)
    assert result.plan is None
    assert result.no_plan is not None
    assert result.no_plan.reason is Reason.NO_ROUTE
    wider = replace(settings, swap_tokens=frozenset({weth, usdc, wbtc}))
    (result,) = plan_pairs(ON_MORPHO, view.market, view.book.exact[0], pools, view.protocol, wider)
    assert result.plan is not None


# ------------------------------------------------------------------------------------------- states and names


def read_with(price_e36: int, borrow_shares: int, totals: tuple[int, int]) -> Book:
    """Return the book of one account that only a token of somebody's own can bring about."""
    first = morpho([1_000, 2_000])
    total_raw, shares = totals
    state = MarketState(total_raw, shares, total_raw, shares, NOW)
    market = replace(first.market, state=state, price_e36=price_e36)
    exact = [*first.book.exact[:1], MorphoAccount("0x" + "ff" * 20, 0, borrow_shares, 2**128 - 1)]
    return book_of_accounts(ON_MORPHO.name, market, [a.account for a in exact if a], exact)


def test_an_account_that_overflows_is_unknown_and_takes_no_other_along() -> None:
    book = read_with(PRICE_E36, 2**128 - 1, (2**128 - 1, 2**128 - 1))
    assert book.known.tolist() == [True, False]
    assert book.exact[1] is None
    view = replace(morpho([1]), book=book)
    both = decided({ADAPTER.name: aave(), ON_MORPHO.name: view}, every=True)
    assert of(both, ON_MORPHO.name)["0x" + "ff" * 20] == (Action.HOLD, Reason.PROTOCOL_UNKNOWN)
    assert plans_of(both)[ADAPTER.name] == plans_of(decided({ADAPTER.name: aave()}))[ADAPTER.name]


@pytest.mark.parametrize("symbol", ["USD", " USD ", "US\u200bD"])
def test_a_token_that_calls_itself_dollar_is_no_dollar(symbol: str) -> None:
    """Anybody can write such a token, and a market that lends it prices in it."""
    (name, other) = told_apart([symbol, "WETH"], [LOAN.address, COLLATERAL.address])
    assert name == f"USD-{LOAN.address[2:10].lower()}"
    assert name != QUOTE
    assert other == "WETH"


# ------------------------------------------------------------------------------------------------- inventory

USDC = 10**6


def words(*values: int) -> list[bytes | None]:
    return [value.to_bytes(32, "big") for value in values]


def test_what_the_contract_holds_is_no_money_where_anybody_can_open_a_market() -> None:
    funds = FundsOf(ORACLE, IRM, (LOAN.address,), frozenset({ON_MORPHO.name}))
    answers = words(700, 500, 300)
    assert funds.decode(answers, ADAPTER.name) == {LOAN.address: 1_000}
    assert funds.decode(answers, ON_MORPHO.name) == {LOAN.address: 300}


def from_inventory(own_usd: int, owners_usd: int) -> dict[str, list[LiquidationPlan]]:
    """Return the plans by market, of what the contract holds and what its owner lets it take."""
    funds = {token(s): 0 for s in FIRST_E8} | {LOAN.address: (own_usd + owners_usd) * USDC}
    views = {
        ON_MORPHO.name: replace(
            morpho([100_000, 90_000]), funds_raw={**funds, LOAN.address: owners_usd * USDC}
        ),
        ADAPTER.name: replace(aave(), funds_raw=funds),
    }
    whole = Views(aave().head, views, {})
    assert whole.funds_raw == funds
    settings = replace(SETTINGS, from_inventory=True, inventory_raw=whole.funds_raw)
    decision = decide_all(whole, ADAPTERS, ThreePricePolicy(), settings, next_timestamp=NOW + 12)
    return {name: [p for p in decision.plans if p.protocol == name] for name in views}


def test_each_market_plans_with_the_money_that_it_can_get() -> None:
    spent = {
        name: sum(plan.debt_to_cover_raw for plan in plans)
        for name, plans in from_inventory(own_usd=10**6, owners_usd=0).items()
    }
    assert spent[ON_MORPHO.name] == 0
    assert spent[ADAPTER.name] > 0
    some = from_inventory(own_usd=0, owners_usd=50_000)
    for plans in some.values():
        assert all(plan.debt_to_cover_raw <= 50_000 * USDC for plan in plans)
    # One purse: what the first takes is gone for the others, whichever market they are in.
    assert 0 < sum(p.debt_to_cover_raw for plans in some.values() for p in plans) <= 50_000 * USDC
    assert some[ON_MORPHO.name]


# -------------------------------------------------------------------------------------- one account's defect


def broken(
    monkeypatch: pytest.MonkeyPatch, adapter: Any, method: str, account: str, error: Exception
) -> None:
    """Put a defect of ours into one method of an adapter, for one account.

    Behind a colon: only for what takes Ether, or only once a size is asked for.
    """
    method, _, when = method.partition(":")
    found = getattr(adapter, method)

    def fails(_: Any, market: Any, about: Any, *rest: Any) -> Any:
        odd = when != "size" or rest[-1] != MAX_UINT256
        if about.account == account and odd and (when != "pair" or rest[1] == token("WETH")):
            raise error
        return found(market, about, *rest)

    monkeypatch.setattr(type(adapter), method, fails)


METHODS = [
    "margin",
    "liquidation_pairs",
    "liquidation_quote",
    "liquidation_quote:size",
    "liquidation_quote:pair",
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "error", [ZeroDivisionError("division by zero"), DataError("odd bytes"), KeyError("x")]
)
@pytest.mark.parametrize("most", [None, 2])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_what_breaks_planning_for_one_account_holds_that_account_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch, method: str, error: Exception, most: int | None, place: int
) -> None:
    views = {ADAPTER.name: aave(), ON_MORPHO.name: morpho([9_000, 8_000, 7_000, 6_000])}
    whole = decided(views)
    for name, adapter in ADAPTERS.items():
        own = [plan.account for plan in whole.plans if plan.protocol == name]
        # Of Morpho's, who are kin, also those for whom there is no room.
        account = own[min(place, len(own) - 1)]
        with monkeypatch.context() as patch:
            broken(patch, adapter, method, account, error)
            decision = decided(views, most=most)
        assert decision.undecided == {}
        (verdict,) = (
            v for v in decision.verdicts if (v.protocol_margin.protocol, v.account) == (name, account)
        )
        unknown = [v.account for v in decision.verdicts if v.reason is Reason.ACCOUNT_UNKNOWN]
        if most is not None and method.endswith(":size") and unknown == []:
            # It never came to its turn, and nobody asked.
            assert verdict.reason is Reason.LIMIT
            continue
        assert unknown == [account]
        assert verdict.action is Action.HOLD
        assert type(error).__name__ in verdict.detail or "odd bytes" in verdict.detail
        # Unknown is never healthy.
        known = method != "margin"
        status = MarginStatus.LIQUIDATABLE if known else MarginStatus.UNKNOWN
        assert verdict.protocol_margin.status is status
        planned = {(plan.protocol, plan.account) for plan in decision.plans}
        if most is None:
            # What it would have taken from the pools is there for others.
            assert planned >= {(p.protocol, p.account) for p in whole.plans} - {(name, account)}
            assert len(decision.verdicts) == len(whole.verdicts)
        else:
            assert len(planned) == most
        assert (name, account) not in planned


def test_a_policy_that_breaks_on_one_account_holds_it() -> None:
    first = decided({ADAPTER.name: aave()}).plans[0].account

    class Fragile(ThreePricePolicy):
        def decide(self, protocol_margin: MarginReport, *rest: Any, **options: Any) -> Verdict:
            if protocol_margin.account == first and rest[1] is not None and rest[1].gas_units:
                raise ArithmeticError("a plan of its own")
            return super().decide(protocol_margin, *rest, **options)

    view = aave()
    decision = decide_all(
        Views(view.head, {ADAPTER.name: view}, {}), ADAPTERS, Fragile(), SETTINGS, next_timestamp=NOW + 12
    )
    assert of(decision, ADAPTER.name)[first] == (Action.HOLD, Reason.ACCOUNT_UNKNOWN)
    assert decision.plans
    assert first not in {plan.account for plan in decision.plans}


def test_what_breaks_on_every_account_makes_the_market_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise ZeroDivisionError("everywhere")

    views = {ADAPTER.name: aave(), ON_MORPHO.name: morpho([9_000, 8_000])}
    monkeypatch.setattr(type(ON_MORPHO), "margin", fails)
    decision = decided(views)
    assert set(decision.undecided) == {ON_MORPHO.name}
    assert "none of the 2 accounts" in decision.undecided[ON_MORPHO.name]
    assert "ZeroDivisionError: everywhere" in decision.undecided[ON_MORPHO.name]
    assert decision.plans
    assert {plan.protocol for plan in decision.plans} == {ADAPTER.name}


def test_a_defect_that_is_no_accounts_is_not_contained(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise ZeroDivisionError("of the market")

    monkeypatch.setattr(type(ADAPTER), "project", fails)
    with pytest.raises(ZeroDivisionError, match="of the market"):
        decided({ADAPTER.name: aave()})
    with pytest.raises(MemoryError), contained(lambda why: None):
        raise MemoryError


def test_without_anybody_to_tell_what_planning_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    view = morpho([9_000])
    broken(monkeypatch, ON_MORPHO, "liquidation_quote", view.book.accounts[0], ZeroDivisionError("x"))
    book = MarketBook(ON_MORPHO, view.market, {0: view.book.exact[0]}, view.protocol, SETTINGS)
    with pytest.raises(ZeroDivisionError):
        plan_markets([book], view.pools)
    told: list[tuple[Any, Exception]] = []
    planned = plan_markets([book], view.pools, failed=lambda key, error: told.append((key, error)))
    assert planned == {0: Reason.ACCOUNT_UNKNOWN}
    assert [(key, type(error)) for key, error in told] == [(0, ZeroDivisionError)]


def test_an_account_that_one_pair_breaks_has_no_plan_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    view = aave()
    accounts = {
        exact.account: exact
        for exact in view.book.exact
        if exact is not None and len(ADAPTER.liquidation_pairs(view.market, exact)) > 1
    }
    book = MarketBook(ADAPTER, view.market, accounts, view.protocol, SETTINGS)
    planned = plan_markets([book], view.pools)
    who = next(account for account, plan in planned.items() if not isinstance(plan, Reason))
    last = ADAPTER.liquidation_pairs(view.market, accounts[who])[-1]
    quote = ADAPTER.liquidation_quote

    def fails(_: Any, market: Any, account: Any, *rest: Any) -> Any:
        if account.account == who and rest[:2] == last:
            raise ZeroDivisionError
        return quote(market, account, *rest)

    monkeypatch.setattr(type(ADAPTER), "liquidation_quote", fails)
    assert plan_markets([book], view.pools, failed=lambda key, error: None)[who] is Reason.ACCOUNT_UNKNOWN


def test_a_journal_that_does_not_say_who_is_kept_off_is_no_matter_of_one_market() -> None:
    def barred(key: tuple[str, str]) -> str | None:
        raise JournalError("the journal cannot be read")

    with pytest.raises(JournalError):
        decided({ADAPTER.name: aave()}, barred=barred)
