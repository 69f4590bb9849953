"""What must hold of the guarded adapter whatever sources and guards say."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.decisions import (
    RAISES_RISK,
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
)

NOW = 1_700_000_000

UNVIOLATED = (GuardStatus.OK, GuardStatus.NOT_APPLICABLE)
amounts = st.one_of(st.integers(0, 100), st.integers(0, 2**128))


@st.composite
def observations(draw: st.DrawFn, source_id: str) -> PriceObs:
    return PriceObs(
        "ETH",
        "USD",
        draw(st.one_of(st.integers(-2, 2), st.integers(-(2**255), 2**255 - 1), st.integers(1, 10**12))),
        draw(st.sampled_from([0, 8, 18])),
        draw(st.sampled_from(FeedKind)),
        source_id,
        NOW,
        NOW,
        conf_abs=draw(st.none() | st.integers(0, 10**12)),
        bid=draw(st.none() | st.integers(0, 10**12)),
        ask=draw(st.none() | st.integers(0, 10**12)),
    )


@st.composite
def findings(draw: st.DrawFn, source_id: str) -> Finding:
    actions = draw(st.frozensets(st.sampled_from(GuardAction), min_size=1))
    violated = draw(st.booleans())
    return Finding(
        "G00",
        draw(st.sampled_from(["no_data", "stale", "jump"])),
        source_id,
        GuardStatus.VIOLATED
        if violated
        else draw(st.sampled_from([GuardStatus.OK, GuardStatus.NOT_APPLICABLE])),
        "",
        "",
        actions if violated else frozenset(),
        "said",
    )


@st.composite
def judged(draw: st.DrawFn, source_id: str, *others: GuardedPrice) -> GuardedPrice:
    """Return a judged price, consistent as `oracle.snapshot.judge` makes it."""
    found = tuple(draw(st.lists(findings(source_id), max_size=3)))
    if draw(st.booleans()) and draw(st.booleans()):
        nothing = NoData("ETH", "USD", source_id, NOW, "reverted")
        return GuardedPrice(nothing, PriceStatus.MISSING, found, others=others)
    violated = any(f.status is GuardStatus.VIOLATED for f in found)
    status = PriceStatus.REFUSED if violated or draw(st.booleans()) else PriceStatus.OK
    return GuardedPrice(draw(observations(source_id)), status, found, others=others)


@st.composite
def steps(draw: st.DrawFn) -> tuple[GuardedPrice, LastGood | None, AdapterSettings]:
    others = [draw(judged(f"peer{i}")) for i in range(draw(st.integers(0, 2)))]
    chosen = draw(judged("feed", *others))
    # The last good price was accepted, so it is positive.
    past = draw(observations("feed").filter(lambda o: o.mantissa > 0))
    last = LastGood(past, NOW - draw(st.integers(-10, 2_000))) if draw(st.booleans()) else None
    limits = AdapterSettings(
        draw(st.integers(0, 2_000)), draw(st.integers(0, 9_999)), draw(st.integers(1, 3))
    )
    return chosen, last, limits


@settings(deadline=None, max_examples=300)
@given(steps())
def test_nothing_that_raises_risk_is_allowed_at_an_unknown_price_and_repaying_always_is(
    step: tuple[GuardedPrice, LastGood | None, AdapterSettings],
) -> None:
    chosen, last, limits = step
    adapted = adapt(chosen, last, now=NOW, settings=limits)
    assert (adapted.price is None) is (adapted.origin is Origin.NONE)
    for side in Side:
        assert decide(adapted, Purpose.REPAY, side).allowed
        liquidation = decide(adapted, Purpose.LIQUIDATE, side)
        if liquidation.allowed:
            assert adapted.origin in (Origin.SOURCE, Origin.FALLBACK)
            assert GuardAction.PAUSE_LIQUIDATIONS not in adapted.paused
            assert adapted.apart_bps <= limits.agree_bps
            assert adapted.standing >= limits.standing_to_liquidate
        for purpose in RAISES_RISK:
            decision = decide(adapted, purpose, side)
            if decision.allowed:
                assert decision.price is not None
                assert decision.price.mantissa > 0
                assert adapted.price is not None
                assert GuardAction.PAUSE not in adapted.paused


@settings(deadline=None, max_examples=300)
@given(steps())
def test_a_price_comes_from_a_reading_that_stood_and_pauses_from_the_feed_s_own_guards(
    step: tuple[GuardedPrice, LastGood | None, AdapterSettings],
) -> None:
    chosen, last, limits = step
    adapted = adapt(chosen, last, now=NOW, settings=limits)
    stood = [p.reading for p in (chosen, *chosen.others) if p.status is PriceStatus.OK]
    if adapted.origin in (Origin.SOURCE, Origin.FALLBACK):
        assert adapted.price in stood
        assert adapted.last_good == LastGood(adapted.price, NOW)
    else:
        assert adapted.last_good is last
    if adapted.origin is Origin.LAST_KNOWN_GOOD:
        assert last is not None
        assert 0 <= NOW - last.at <= limits.lkg_ttl_s
    asked = {action for f in chosen.findings for action in f.actions}
    assert adapted.paused <= asked
    if GuardAction.PAUSE_LIQUIDATIONS in asked:
        assert GuardAction.PAUSE_LIQUIDATIONS in adapted.paused
    if GuardAction.PAUSE in asked and adapted.price is None:
        assert GuardAction.PAUSE in adapted.paused


@settings(deadline=None, max_examples=300)
@given(steps())
def test_collateral_is_never_worth_more_than_debt(
    step: tuple[GuardedPrice, LastGood | None, AdapterSettings],
) -> None:
    chosen, last, limits = step
    adapted = adapt(chosen, last, now=NOW, settings=limits)
    low = decide(adapted, Purpose.BORROW, Side.COLLATERAL).price
    high = decide(adapted, Purpose.BORROW, Side.DEBT).price
    if adapted.price is not None and low is not None and high is not None:
        worth = [Fraction(p.mantissa, 10**p.decimals) for p in (low, adapted.price, high)]
        assert worth == sorted(worth)


@settings(deadline=None, max_examples=300)
@given(amounts, st.integers(1, 2**128), *(st.integers(0, 24) for _ in range(3)), st.booleans())
def test_an_amount_is_the_exact_one_rounded_down(
    amount: int, price: int, base: int, other: int, feed: int, inverse: bool
) -> None:
    rate = Fraction(price, 10**feed) * Fraction(10**other, 10**base)
    if inverse:
        rate = 1 / (Fraction(price, 10**feed) * Fraction(10**base, 10**other))
    out = scale_quote(amount, price, base, other, feed, inverse=inverse)
    assert out <= amount * rate < out + 1


@settings(deadline=None, max_examples=300)
@given(steps(), amounts)
def test_there_and_back_makes_nothing_out_of_nothing(
    step: tuple[GuardedPrice, LastGood | None, AdapterSettings], amount: int
) -> None:
    chosen, last, limits = step
    adapted = adapt(chosen, last, now=NOW, settings=limits)
    ether, dollar = Token("ETH", 18), Token("USD", 6)
    for side in Side:
        there = quote(amount, ether, dollar, Purpose.LIQUIDATE, adapted, side)
        if there.out_raw is None:
            assert adapted.price is None
            continue
        back = quote(there.out_raw, dollar, ether, Purpose.LIQUIDATE, adapted, side)
        assert back.out_raw is not None
        assert back.out_raw <= amount
