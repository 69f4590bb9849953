"""What may be done with a price: every cell of the table, each limit at its edge, and amounts to the unit."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from contracts_abi.errors import InputError
from oracle.decisions import (
    RAISES_RISK,
    Adapted,
    AdapterSettings,
    LastGood,
    Origin,
    Purpose,
    Side,
    Token,
    adapt,
    decide,
    quote,
    scale_quote,
)
from oracle.types import (
    FeedKind,
    Finding,
    GuardAction,
    GuardedPrice,
    GuardStatus,
    NoData,
    PriceObs,
    PriceStatus,
    Reading,
)

NOW = 1_700_000_000
REJECT, FALLBACK, CLAMP = GuardAction.REJECT, GuardAction.FALLBACK, GuardAction.CLAMP
PAUSE, PAUSE_LIQUIDATIONS = GuardAction.PAUSE, GuardAction.PAUSE_LIQUIDATIONS
RISKY = sorted(RAISES_RISK)


def obs(mantissa: int = 2_000 * 10**8, source_id: str = "feed", **changes: Any) -> PriceObs:
    plain = PriceObs("ETH", "USD", mantissa, 8, FeedKind.PUSH, source_id, NOW, NOW)
    return dataclasses.replace(plain, **changes)


def finding(*actions: GuardAction, source_id: str = "feed", name: str = "stale") -> Finding:
    status = GuardStatus.VIOLATED if actions else GuardStatus.OK
    return Finding("G03", name, source_id, status, "9 s", "<= 3 s", frozenset(actions), "price is old")


def good(reading: Reading | None = None, *others: GuardedPrice) -> GuardedPrice:
    return GuardedPrice(reading or obs(), PriceStatus.OK, (finding(),), others=others)


def refused(*actions: GuardAction, others: tuple[GuardedPrice, ...] = (), **changes: Any) -> GuardedPrice:
    return GuardedPrice(obs(**changes), PriceStatus.REFUSED, (finding(*actions),), others=others)


def missing(*others: GuardedPrice) -> GuardedPrice:
    said = finding(REJECT, FALLBACK, name="no_data")
    return GuardedPrice(
        NoData("ETH", "USD", "feed", NOW, "it reverted"), PriceStatus.MISSING, (said,), others=others
    )


def at(chosen: GuardedPrice, age_s: int | None = None, **settings: Any) -> Adapted:
    """Adapt with a last good price of that age at 1,900, or with none."""
    last = None if age_s is None else LastGood(obs(1_900 * 10**8), NOW - age_s)
    return adapt(chosen, last, now=NOW, settings=AdapterSettings(**settings))


PEER = good(obs(1_990 * 10**8, "peer"))
FAR = good(obs(1_900 * 10**8, "peer"))


# --- which price ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "age_s", "origin", "mantissa"),
    [
        (good(), None, Origin.SOURCE, 2_000 * 10**8),
        (good(None, PEER), 0, Origin.SOURCE, 2_000 * 10**8),
        (refused(REJECT, others=(PEER,)), 0, Origin.FALLBACK, 1_990 * 10**8),
        (missing(PEER), 0, Origin.FALLBACK, 1_990 * 10**8),
        (missing(refused(REJECT), PEER), 0, Origin.FALLBACK, 1_990 * 10**8),
        (missing(FAR, PEER), 0, Origin.FALLBACK, 1_900 * 10**8),
        (missing(refused(REJECT)), 0, Origin.LAST_KNOWN_GOOD, 1_900 * 10**8),
        (missing(), 900, Origin.LAST_KNOWN_GOOD, 1_900 * 10**8),
        (missing(), 901, Origin.NONE, None),
        (missing(), -1, Origin.NONE, None),
        (missing(), None, Origin.NONE, None),
        (refused(REJECT), None, Origin.NONE, None),
    ],
)
def test_the_first_price_that_stands_is_taken(
    chosen: GuardedPrice, age_s: int | None, origin: Origin, mantissa: int | None
) -> None:
    adapted = at(chosen, age_s)
    assert adapted.origin is origin
    assert (adapted.price and adapted.price.mantissa) == mantissa
    assert bool(adapted.reasons) == (origin is not Origin.SOURCE)
    assert bool(adapted.counted) == (mantissa is not None)


@pytest.mark.parametrize(("ttl_s", "age_s", "known"), [(0, 0, True), (0, 1, False), (60, 60, True)])
def test_the_time_to_live_is_exact_at_the_second(ttl_s: int, age_s: int, known: bool) -> None:
    assert (at(missing(), age_s, lkg_ttl_s=ttl_s).price is not None) is known


def test_the_last_good_price_ages_from_when_it_stood_and_not_from_when_it_was_last_used() -> None:
    last = at(good()).last_good
    assert last == LastGood(obs(), NOW)
    for later in (300, 600, 900):
        step = adapt(missing(), last, now=NOW + later)
        assert step.origin is Origin.LAST_KNOWN_GOOD
        last = step.last_good
    assert adapt(missing(), last, now=NOW + 901).origin is Origin.NONE


def test_a_fallback_becomes_the_last_good_price() -> None:
    assert at(missing(PEER), 5).last_good == LastGood(obs(1_990 * 10**8, "peer"), NOW)


@pytest.mark.parametrize("mantissa", [0, -5])
def test_a_price_that_is_not_positive_never_stands_whatever_guards_say(mantissa: int) -> None:
    assert at(good(obs(mantissa))).origin is Origin.NONE
    assert at(missing(good(obs(mantissa, "peer")))).origin is Origin.NONE


def test_a_source_of_another_pair_is_no_fallback() -> None:
    assert at(missing(good(obs(source_id="peer", base="BTC")))).origin is Origin.NONE


def test_why_it_is_unknown_is_said_even_when_no_guard_said_so() -> None:
    silent = dataclasses.replace(missing(), findings=())
    assert at(silent).reasons == ("no data: it reverted",)
    unjudged = Finding("G03", "stale", "feed", GuardStatus.NOT_APPLICABLE, "", "", frozenset(), "no time")
    needed = GuardedPrice(obs(), PriceStatus.REFUSED, (unjudged,), frozenset({"stale"}))
    assert at(needed).reasons == ("G03 no time",)
    assert at(dataclasses.replace(needed, required=frozenset())).reasons == ("price of feed does not stand",)


# --- what may be done -------------------------------------------------------------------------------------

YES, NO = True, False


@pytest.mark.parametrize(
    ("adapted", "risky", "liquidate"),
    [
        pytest.param(at(good()), YES, YES, id="source"),
        pytest.param(at(good(None, PEER)), YES, YES, id="source-agrees"),
        pytest.param(at(good(None, FAR)), YES, NO, id="source-contradicted"),
        pytest.param(at(missing(PEER)), YES, YES, id="fallback"),
        pytest.param(at(missing(PEER, FAR)), YES, NO, id="fallbacks-contradict"),
        pytest.param(at(missing(), 0), YES, NO, id="last-good"),
        pytest.param(at(missing(), 901), NO, NO, id="last-good-expired"),
        pytest.param(at(missing()), NO, NO, id="unknown"),
        pytest.param(at(refused(REJECT)), NO, NO, id="refused"),
        pytest.param(at(refused(REJECT, PAUSE)), NO, NO, id="refused-and-paused"),
        pytest.param(at(refused(REJECT, PAUSE, others=(PEER,))), NO, YES, id="paused"),
        pytest.param(at(refused(REJECT, PAUSE_LIQUIDATIONS, others=(PEER,))), YES, NO, id="no-liquidations"),
        pytest.param(
            at(refused(REJECT, PAUSE, PAUSE_LIQUIDATIONS, others=(PEER,))), NO, NO, id="both-paused"
        ),
        pytest.param(at(refused(REJECT, FALLBACK, PAUSE, others=(PEER,))), YES, YES, id="fallback-lifts"),
        pytest.param(at(refused(REJECT, FALLBACK, PAUSE), 0), NO, NO, id="last-good-lifts-nothing"),
        pytest.param(
            at(refused(REJECT, FALLBACK, PAUSE_LIQUIDATIONS, others=(PEER,))),
            *(YES, NO),
            id="no-fallback-lifts-a-pause-of-liquidations",
        ),
        pytest.param(at(good(None, refused(PAUSE, source_id="peer"))), YES, YES, id="a-bad-reference"),
        pytest.param(at(good(), standing_to_liquidate=2), YES, NO, id="one-of-two"),
        pytest.param(at(good(None, PEER), standing_to_liquidate=2), YES, YES, id="two-of-two"),
        pytest.param(at(missing(PEER), standing_to_liquidate=2), YES, NO, id="fallback-alone"),
        pytest.param(at(missing(), 0, on_last_good=frozenset()), NO, NO, id="last-good-for-nothing"),
        pytest.param(
            at(missing(), 0, on_last_good=frozenset({Purpose.LIQUIDATE}), standing_to_liquidate=2),
            *(NO, YES),
            id="last-good-to-liquidate",
        ),
    ],
)
def test_table_of_decisions(adapted: Adapted, risky: bool, liquidate: bool) -> None:
    for purpose in RISKY:
        for side in Side:
            assert decide(adapted, purpose, side).allowed is risky
    assert decide(adapted, Purpose.LIQUIDATE).allowed is liquidate
    assert decide(adapted, Purpose.REPAY).allowed
    for purpose in Purpose:
        decision = decide(adapted, purpose)
        assert decision.purpose is purpose
        assert decision.reason
        assert "\n" not in decision.reason
        assert decision.origin is adapted.origin
        assert (decision.price is None) is (adapted.price is None)


def test_only_the_feed_s_own_violations_are_evidence_of_a_decision() -> None:
    own, foreign = finding(REJECT, PAUSE), finding(PAUSE, source_id="peer")
    chosen = GuardedPrice(obs(), PriceStatus.REFUSED, (own, foreign, finding()), others=(PEER,))
    assert decide(at(chosen), Purpose.BORROW).findings == (own,)


@pytest.mark.parametrize(("peer", "agree"), [(1_960, True), (1_959, False), (2_040, True), (2_041, False)])
def test_sources_agree_up_to_the_limit(peer: int, agree: bool) -> None:
    adapted = at(good(None, good(obs(peer * 10**8, "peer"))))
    assert decide(adapted, Purpose.LIQUIDATE).allowed is agree


def test_agreement_is_judged_across_scales() -> None:
    same = good(obs(2_000 * 10**18, "peer", decimals=18))
    assert at(good(None, same)).apart_bps == 0
    wrong = good(obs(2_000 * 10**8, "peer", decimals=18))
    assert at(good(None, wrong)).apart_bps == 10_000


def test_a_constant_beside_the_source_counts_for_nothing() -> None:
    adapted = at(good(None, good(obs(10**8, "one", kind=FeedKind.CONSTANT))))
    assert (adapted.standing, adapted.apart_bps, len(adapted.counted)) == (1, 0, 1)


def test_a_constant_may_be_the_fallback() -> None:
    adapted = at(missing(good(obs(10**8, "one", kind=FeedKind.CONSTANT))))
    assert (adapted.origin, adapted.standing) == (Origin.FALLBACK, 1)


# --- at which price ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reading", "collateral", "debt"),
    [
        (obs(100), 100, 100),
        (obs(100, conf_abs=7), 93, 107),
        (obs(100, bid=98, ask=103), 98, 103),
        (obs(100, conf_abs=7, bid=98, ask=110), 93, 110),
        (obs(100, bid=101, ask=99), 100, 100),
    ],
)
def test_the_edge_that_errs_against_the_account(reading: PriceObs, collateral: int, debt: int) -> None:
    for purpose in Purpose:
        edges = [decide(at(good(reading)), purpose, side).price for side in Side]
        wanted = [collateral, debt] if purpose in RAISES_RISK else [100, 100]
        assert [e and e.mantissa for e in edges] == wanted


def test_a_confidence_that_reaches_zero_is_an_unknown_price() -> None:
    # Pyth's BTC/USD of 2021-09-20: 5,402 with a confidence of 21,623.
    wide = at(good(obs(5_402 * 10**8, conf_abs=21_623 * 10**8)))
    for purpose in RISKY:
        decision = decide(wide, purpose)
        assert not decision.allowed
        assert decision.price is None
        assert "reaches zero" in decision.reason
    assert decide(wide, Purpose.BORROW, Side.DEBT).allowed


def test_of_two_sources_collateral_takes_the_lower_and_debt_the_higher_edge() -> None:
    wide = good(obs(1_995 * 10**8, "peer", conf_abs=20 * 10**8))
    adapted = at(good(None, PEER, wide))
    low, high = (decide(adapted, Purpose.BORROW, side).price for side in Side)
    assert low is not None
    assert high is not None
    assert (low.mantissa, low.source_id) == (1_975 * 10**8, "peer")
    assert (high.mantissa, high.source_id) == (2_015 * 10**8, "peer")


def test_a_clamp_counts_the_refused_price_beside_the_one_that_stands() -> None:
    # A rate of 1 by decree while the market pays 0.88: collateral at 0.88, debt at 1, nobody liquidated.
    market = good(obs(88, "market", decimals=2))
    decreed = refused(CLAMP, mantissa=100, decimals=2, others=(market,))
    adapted = at(decreed)
    assert adapted.origin is Origin.FALLBACK
    edges = [decide(adapted, Purpose.WITHDRAW, side).price for side in Side]
    assert [edge and edge.mantissa for edge in edges] == [88, 100]
    assert adapted.apart_bps == 1_200
    assert not decide(adapted, Purpose.LIQUIDATE).allowed


@pytest.mark.parametrize(
    "chosen",
    [
        refused(CLAMP, REJECT, others=(PEER,)),
        refused(REJECT, others=(PEER,)),
        refused(CLAMP, mantissa=0, others=(PEER,)),
        dataclasses.replace(refused(CLAMP, others=(PEER,)), required=frozenset({"no_data"})),
        GuardedPrice(obs(), PriceStatus.REFUSED, (finding(CLAMP), finding(PAUSE)), others=(PEER,)),
        missing(PEER),
    ],
)
def test_what_is_rejected_does_not_count(chosen: GuardedPrice) -> None:
    assert at(chosen).counted == (PEER.reading,)


def test_a_price_to_clamp_is_not_used_alone() -> None:
    assert at(refused(CLAMP)).price is None
    assert at(refused(CLAMP)).counted == ()
    assert [o.mantissa for o in at(refused(CLAMP), 0).counted] == [1_900 * 10**8, 2_000 * 10**8]


# --- amounts ----------------------------------------------------------------------------------------------

WETH, USDC = Token("ETH", 18), Token("USD", 6)


@pytest.mark.parametrize(
    ("amount", "purpose", "side", "out"),
    [
        (10**18, Purpose.LIQUIDATE, Side.COLLATERAL, 2_000 * 10**6),
        (10**18, Purpose.BORROW, Side.COLLATERAL, 1_999 * 10**6),
        (10**18, Purpose.BORROW, Side.DEBT, 2_002 * 10**6),
        (1, Purpose.BORROW, Side.DEBT, 0),
        (0, Purpose.REPAY, Side.DEBT, 0),
    ],
)
def test_quote_of_a_direct_feed(amount: int, purpose: Purpose, side: Side, out: int) -> None:
    adapted = at(good(obs(bid=1_999 * 10**8, ask=2_002 * 10**8)))
    quoted = quote(amount, WETH, USDC, purpose, adapted, side)
    assert (quoted.out_raw, quoted.vanished) == (out, amount == 1)
    assert quoted.decision.allowed


def test_quote_of_an_inverse_feed_takes_the_opposite_edge() -> None:
    adapted = at(good(obs(bid=1_999 * 10**8, ask=2_002 * 10**8)))
    held = quote(2_002 * 10**6, USDC, WETH, Purpose.BORROW, adapted, Side.COLLATERAL)
    owed = quote(1_999 * 10**6, USDC, WETH, Purpose.BORROW, adapted, Side.DEBT)
    assert held.out_raw == owed.out_raw == 10**18
    assert quote(2_000 * 10**6, USDC, WETH, Purpose.REPAY, adapted).out_raw == 10**18


def test_an_unknown_price_gives_no_amount_and_no_zero() -> None:
    quoted = quote(10**18, WETH, USDC, Purpose.REPAY, at(missing()))
    assert quoted.decision.allowed
    assert quoted.out_raw is None
    assert not quoted.vanished


@pytest.mark.parametrize(
    ("arguments", "inverse", "out"),
    [
        ((10**18, 2_000 * 10**8, 18, 6, 8), False, 2_000 * 10**6),
        ((10**6, 2_000 * 10**8, 6, 18, 8), True, 5 * 10**14),
        ((3, 1, 0, 0, 1), False, 0),
        ((19, 1, 0, 0, 1), False, 1),
        ((1, 3, 0, 0, 0), True, 0),
        # Resupply's vault said 2e36 for a share; a price of 1e36 divided by it is nothing.
        ((10**18, 2_000000000000000001998 * 10**15, 18, 18, 0), True, 0),
    ],
)
def test_scale_quote_rounds_down(arguments: tuple[int, int, int, int, int], inverse: bool, out: int) -> None:
    assert scale_quote(*arguments, inverse=inverse) == out


def test_bad_input_is_one_line() -> None:
    adapted = at(good())
    with pytest.raises(InputError, match=r"amount is -1; give an amount of at least 0"):
        quote(-1, WETH, USDC, Purpose.BORROW, adapted)
    with pytest.raises(InputError, match=r"feed feed prices ETH/USD, not ETH/EUR"):
        quote(1, WETH, Token("EUR", 2), Purpose.BORROW, adapted)
    with pytest.raises(InputError, match=r"price is 0"):
        scale_quote(1, 0, 1, 1, 1)
    for wrong, name in [({"lkg_ttl_s": -1}, "lkg_ttl_s"), ({"agree_bps": 10_000}, "agree_bps")]:
        with pytest.raises(InputError, match=f"{name} is"):
            AdapterSettings(**wrong)
    with pytest.raises(InputError, match="standing_to_liquidate is 0"):
        AdapterSettings(standing_to_liquidate=0)
