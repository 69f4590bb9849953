"""Decisions on a seeded book at random pairs of prices: nobody is overlooked, no reason lacks its grounds."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keeper.decide import Decision, decide, examined_rows, prices_of
from keeper.view import HeadView
from simulation.amm.uniswap_v3 import quote_exact_in
from simulation.fixed_point import WAD
from simulation.margin.lending_health_factor import LendingHealthFactor
from simulation.policy.three_price import ThreePricePolicy
from simulation.types import Action, MarginReport, MarginStatus, Reason, Verdict
from tests.aave_states import NOW
from tests.seeded_view import (
    ADAPTER,
    FIRST_E8,
    SETTINGS,
    SYMBOLS,
    seeded_accounts,
    token,
    view_at,
)

TOLERANCE_BPS = 100
POLICY = ThreePricePolicy(harm_tolerance_bps=TOLERANCE_BPS)
NO_PLAN = {Reason.UNPROFITABLE, Reason.NO_ROUTE, Reason.NO_COLLATERAL, Reason.SIMULATION_FAILED, Reason.LIMIT}
ACCOUNTS = 40

Prices = Mapping[str, int | None]


@dataclass(frozen=True)
class Case:
    """A view, as what it is made of, and what is asked of it."""

    seed: int
    protocol_e8: Prices
    reference_e8: Prices
    pools_e8: Mapping[str, int]
    unreadable: frozenset[str]
    policy: ThreePricePolicy
    watched: frozenset[str]
    in_flight: frozenset[str]

    @functools.cached_property
    def view(self) -> HeadView:
        """The view."""
        return view_at(
            seeded_accounts(ACCOUNTS, self.seed),
            self.protocol_e8,
            self.reference_e8,
            pools_e8=self.pools_e8,
            unreadable=self.unreadable,
        )


def moved(symbols: tuple[str, ...] = SYMBOLS) -> st.SearchStrategy[dict[str, int]]:
    """Draw prices between a third and three halves of the first ones, to the last unit."""
    return st.fixed_dictionaries({s: st.integers(FIRST_E8[s] // 3, FIRST_E8[s] * 3 // 2) for s in symbols})


@st.composite
def cases(draw: st.DrawFn) -> Case:
    seed = draw(st.integers(0, 7))
    names = [account.account for account in seeded_accounts(ACCOUNTS, seed)]
    truth = draw(moved())
    # Mostly the protocol is right, to some basis points, and sometimes one of its prices is far off.
    protocol: dict[str, int | None] = {
        s: p * draw(st.integers(9_950, 10_050)) // 10_000 for s, p in truth.items()
    }
    for symbol in draw(st.lists(st.sampled_from(SYMBOLS), max_size=2)):
        protocol[symbol] = draw(st.none() | st.integers(FIRST_E8[symbol] // 4, FIRST_E8[symbol] * 2))
    reference: dict[str, int | None] = dict(truth)
    for symbol in draw(st.lists(st.sampled_from(SYMBOLS), max_size=2)):
        reference[symbol] = None
    if draw(st.integers(0, 9)) == 0:
        reference = {}
    some = st.frozensets(st.sampled_from(names), max_size=8)
    policy = ThreePricePolicy(
        harm_tolerance_bps=draw(st.sampled_from([0, TOLERANCE_BPS, 2_000])),
        without_reference=draw(st.sampled_from(["hold", "act"])),
    )
    return Case(seed, protocol, reference, truth, draw(some), policy, draw(some), draw(some))


def margins(view: HeadView, row: int) -> tuple[MarginReport, MarginReport | None]:
    """Return the exact margins of a row at both views' prices."""
    method = LendingHealthFactor(ADAPTER, view.market)
    protocol = method.report(view.book, row, view.protocol)
    return protocol, method.report(view.book, row, view.reference) if view.reference.prices else None


def decided(case: Case, *, every: bool = False) -> Decision:
    return decide(
        case.view,
        ADAPTER,
        case.policy,
        SETTINGS,
        next_timestamp=NOW + 12,
        watched=case.watched,
        in_flight=case.in_flight,
        every=every,
    )


def remarkable(margin: MarginReport | None) -> bool:
    return margin is not None and margin.status in (MarginStatus.LIQUIDATABLE, MarginStatus.UNKNOWN)


def allowed(verdict: Verdict, policy: ThreePricePolicy, *, in_flight: bool) -> set[tuple[Action, Reason]]:
    """Return what the policy's table allows for the margins of a verdict, written down a second time."""
    protocol, reference = verdict.protocol_margin, verdict.reference_margin
    here = protocol.status
    there = MarginStatus.UNKNOWN if reference is None else reference.status
    blind = there is MarginStatus.UNKNOWN
    if here is MarginStatus.UNKNOWN:
        armed = there is MarginStatus.LIQUIDATABLE
        return {(Action.ARM if armed else Action.HOLD, Reason.PROTOCOL_UNKNOWN)}
    if here is MarginStatus.HEALTHY:
        return {
            MarginStatus.LIQUIDATABLE: {(Action.ARM, Reason.PROTOCOL_PRICE_STALE_HIGH)},
            MarginStatus.HEALTHY: {(Action.LEAVE, Reason.HEALTHY)},
            MarginStatus.UNKNOWN: {(Action.LEAVE, Reason.REFERENCE_UNKNOWN)},
        }[there]
    assert here is MarginStatus.LIQUIDATABLE
    if blind and policy.without_reference == "hold":
        return {(Action.HOLD, Reason.REFERENCE_UNKNOWN)}
    if not blind and reference is not None and there is MarginStatus.HEALTHY:
        assert reference.health_factor_wad is not None
        if (reference.health_factor_wad - WAD) * 10_000 > policy.harm_tolerance_bps * WAD:
            return {(Action.HOLD, Reason.PROTOCOL_PRICE_LOW)}
    if in_flight:
        return {(Action.LEAVE, Reason.DUPLICATE)}
    held = set() if blind else {(Action.HOLD, Reason.PROTOCOL_PRICE_LOW)}
    return {(Action.ACT, Reason.LIQUIDATE)} | {(Action.LEAVE, reason) for reason in NO_PLAN} | held


@given(cases())
@settings(deadline=None, max_examples=60)
def test_nobody_is_overlooked_and_every_reason_has_its_grounds(case: Case) -> None:
    view = case.view
    exact = [margins(view, row) for row in range(len(view.book))]
    examined = set(examined_rows(view, ADAPTER, case.watched))
    for row, pair in enumerate(exact):
        if any(remarkable(margin) for margin in pair) or view.book.accounts[row] in case.watched:
            assert row in examined

    decision = decided(case)
    assert (decision.screened, decision.examined) == (len(view.book), len(examined))
    assert [v.account for v in decision.verdicts] == [view.book.accounts[row] for row in sorted(examined)]
    for row, verdict in zip(sorted(examined), decision.verdicts, strict=True):
        assert (verdict.protocol_margin, verdict.reference_margin) == exact[row]
        grounds = allowed(verdict, case.policy, in_flight=verdict.account in case.in_flight)
        assert (verdict.action, verdict.reason) in grounds
        assert verdict.detail


@given(cases())
@settings(deadline=None, max_examples=30)
def test_plans_are_those_of_the_verdicts_that_act(case: Case) -> None:
    decision = decided(case)
    planned = [plan.account for plan in decision.plans]
    assert len(planned) == len(set(planned))
    assert set(planned) == {v.account for v in decision.verdicts if v.action is Action.ACT}
    assert not set(planned) & case.in_flight
    for plan in decision.plans:
        assert plan.net_profit_raw > 0
        assert plan.profit_raw >= plan.min_profit_raw
        assert plan.debt_to_cover_raw > 0


@given(cases())
@settings(deadline=None, max_examples=30)
def test_each_plan_sees_what_those_before_it_take_out_of_the_pools(case: Case) -> None:
    decision = decided(case)
    pools = dict(case.view.pools)
    held = any(v.reason is Reason.PROTOCOL_PRICE_LOW for v in decision.verdicts)
    for plan in decision.plans:
        if not plan.path:
            continue
        proceeds_raw, pools = quote_exact_in(pools, plan.path, plan.seized_raw)
        # One that the policy held after it was planned is in the planner's pools and not in these.
        assert held or proceeds_raw == plan.proceeds_raw


@given(cases())
@settings(deadline=None, max_examples=15)
def test_an_audit_changes_no_decision(case: Case) -> None:
    some, every = decided(case), decided(case, every=True)
    assert every.examined == len(case.view.book)
    assert some.plans == every.plans
    seen = {v.account for v in some.verdicts}
    assert [v for v in every.verdicts if v.account in seen] == list(some.verdicts)
    left = {(v.protocol_margin.status, v.reason) for v in every.verdicts if v.account not in seen}
    # Without any reference, who is healthy at the protocol's prices is unknown at better ones, and stays so.
    reason = Reason.HEALTHY if case.view.reference.prices else Reason.REFERENCE_UNKNOWN
    assert left <= {(MarginStatus.HEALTHY, reason), (MarginStatus.NO_DEBT, Reason.NO_DEBT)}


@given(st.integers(0, 7), st.integers(0, ACCOUNTS - 1), st.integers(-2, 2))
@settings(deadline=None, max_examples=60)
@example(seed=0, row=0, units=0)
def test_threshold_is_met_to_the_last_unit_of_the_price(seed: int, row: int, units: int) -> None:
    accounts = seeded_accounts(ACCOUNTS, seed)
    account = accounts[row]
    collateral = next(p.reserve_id for p in account.positions if p.scaled_a_token_raw)
    symbol = SYMBOLS[collateral]

    def liquidatable(price: int) -> bool:
        view = view_at([account], {symbol: price}, {})
        return margins(view, 0)[0].status is MarginStatus.LIQUIDATABLE

    low, high = 1, FIRST_E8[symbol] * 4
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if liquidatable(middle) else (low, middle)
    price = max(1, low + units)
    view = view_at(accounts, {symbol: price}, {})
    assert not liquidatable(price) or row in examined_rows(view, ADAPTER, ())
    # And when it is the reference that says so.
    view = view_at(accounts, {}, {**FIRST_E8, symbol: price})
    assert not liquidatable(price) or row in examined_rows(view, ADAPTER, ())


@given(st.dictionaries(st.sampled_from(SYMBOLS), st.none() | st.integers(1, 10**14), min_size=1))
@settings(deadline=None, max_examples=20)
def test_price_vector_has_a_hole_where_a_price_is_unknown(prices: dict[str, int | None]) -> None:
    view = view_at(seeded_accounts(ACCOUNTS, 0)[:2], prices, {})
    vector = prices_of(view, view.protocol)
    wanted = [{**FIRST_E8, **prices}[symbol] for symbol in SYMBOLS]
    assert [a.address for a in view.book.assets] == [token(s) for s in SYMBOLS]
    assert np.isnan(vector).tolist() == [price is None for price in wanted]
    assert all(v == p / 1e8 for v, p in zip(vector, wanted, strict=True) if p is not None)
