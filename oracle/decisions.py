"""What may be done with a price: the guarded adapter between a feed and a protocol that lends on it.

`adapt` turns judged readings into one price, or into none. `decide` says whether an action may use it, and at
which edge of what is known. `quote` converts an amount at that edge.

What raises risk is refused when in doubt (borrow, withdraw, mint), what lowers it is always allowed (repay).
Liquidation stands between the two: a price too low harms borrowers, a price too high harms lenders. It has
rules of its own and never happens at an old price unless its operator asks for that.

Nothing is remembered here: the last good price goes in as data and comes out as data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from contracts_abi.errors import InputError
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

_BPS = 10_000


class Purpose(StrEnum):
    """What a price is asked for."""

    BORROW = "borrow"
    WITHDRAW = "withdraw"
    LIQUIDATE = "liquidate"
    MINT = "mint"
    REPAY = "repay"


RAISES_RISK = frozenset({Purpose.BORROW, Purpose.WITHDRAW, Purpose.MINT})
"""Purposes that fail closed: without a price that stands they are refused."""


class Side(StrEnum):
    """On which side of an account the asset stands; each errs against the account."""

    COLLATERAL = "collateral"
    DEBT = "debt"


class Origin(StrEnum):
    """Where an adapted price comes from."""

    SOURCE = "source"
    FALLBACK = "fallback"
    LAST_KNOWN_GOOD = "last_known_good"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class LastGood:
    """The last price that stood, and the second at which it did."""

    obs: PriceObs
    at: int


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """What an operator decides about an adapter.

    Attributes
    ----------
    lkg_ttl_s
        Seconds for which the last good price may stand in; at exactly that age it still may. 900 by default,
        a quarter of the usual heartbeat of an hour: it bridges a missed update and no outage.
    agree_bps
        How far two standing prices may lie apart for a liquidation, relative to the larger. 200 by default:
        two honest feeds with a deviation threshold of 0.5 % may stand 1 % apart, and twice that is allowed
        when markets move between their updates.
    standing_to_liquidate
        How many sources have to stand for a liquidation.
    on_last_good
        Purposes that may use the last good price. Not liquidation: what cannot be seen now must not cost
        anybody his collateral.
    """

    lkg_ttl_s: int = 900
    agree_bps: int = 200
    standing_to_liquidate: int = 1
    on_last_good: frozenset[Purpose] = RAISES_RISK

    def __post_init__(self) -> None:
        if self.lkg_ttl_s < 0:
            raise InputError(f"lkg_ttl_s is {self.lkg_ttl_s}", fix="give seconds, at least 0")
        if not 0 <= self.agree_bps < _BPS:
            raise InputError(f"agree_bps is {self.agree_bps}", fix=f"give 0 to {_BPS - 1} basis points")
        if self.standing_to_liquidate < 1:
            raise InputError(
                f"standing_to_liquidate is {self.standing_to_liquidate}", fix="give a number of at least 1"
            )


@dataclass(frozen=True, slots=True)
class Adapted:
    """What the guarded adapter says of one feed at one time.

    Attributes
    ----------
    price
        The price to use; None when nothing stands. None is unknown, not zero.
    origin
        Where `price` comes from.
    paused
        `PAUSE` when no risk may be added, `PAUSE_LIQUIDATIONS` when nobody may be liquidated.
    chosen
        What was judged.
    last_good
        The last good price after this step.
    reasons
        Why `price` is not the source's own, and why anything is paused.
    counted
        The observations between whose edges the price lies: `price` first, then what else stands, and a
        reading that a guard asked to clamp. Empty when the price is unknown.
    standing
        How many sources stand, constants not counted unless the price is one.
    apart_bps
        How far the counted prices lie apart, relative to the larger, rounded up.
    settings
        With which it was made.
    """

    price: PriceObs | None
    origin: Origin
    paused: frozenset[GuardAction]
    chosen: GuardedPrice
    last_good: LastGood | None
    reasons: tuple[str, ...] = ()
    counted: tuple[PriceObs, ...] = ()
    standing: int = 0
    apart_bps: int = 0
    settings: AdapterSettings = field(default_factory=AdapterSettings)


def adapt(
    chosen: GuardedPrice, last_good: LastGood | None, *, now: int, settings: AdapterSettings | None = None
) -> Adapted:
    """Turn what the guards made of a feed and of its references into one price.

    The source's own price, if it stands; else the first of `chosen.others` that stands; else the last good
    price within its time to live; else none.

    A guard that asks for `PAUSE` pauses. One that asks for `FALLBACK` too pauses only while no other source
    stands; the last good price lifts nothing, since behind a stale feed it is the stale price. A reading
    whose violated guards all ask for `CLAMP` and none for `REJECT` is not used alone: it counts beside the
    price that stands in for it, so that collateral is worth the lower of both and debt the higher.

    Parameters
    ----------
    chosen
        The feed that the protocol reads, judged; `others` are the sources that may stand in for it, in order
        of preference. Only findings on the feed itself pause: a reference that is wrong is no reason to.
    last_good
        What the step before left, None at first.
    now
        Block time, unix seconds.
    settings
        Defaults when None.
    """
    settings = settings or AdapterSettings()
    pair = (chosen.reading.base, chosen.reading.quote)
    own = _standing(chosen)
    others = [obs for other in chosen.others if (obs := _standing(other)) and (obs.base, obs.quote) == pair]
    violated = _violated(chosen)
    price, origin = _pick(own, others, last_good, now, settings)
    stands = origin in (Origin.SOURCE, Origin.FALLBACK)
    counted: tuple[PriceObs, ...] = ()
    standing = 0
    if price is not None:
        # A constant agrees with nothing and contradicts nothing.
        beside = [obs for obs in others if obs is not price and obs.kind is not FeedKind.CONSTANT]
        standing = len(beside) + stands
        clamped = _clampable(chosen)
        counted = (price, *beside, *(() if own or clamped is None else (clamped,)))
    return Adapted(
        price=price,
        origin=origin,
        paused=_paused(violated, covered=stands),
        chosen=chosen,
        last_good=LastGood(price, now) if price is not None and stands else last_good,
        reasons=_reasons(chosen, violated, stands=own is not None),
        counted=counted,
        standing=standing,
        apart_bps=_spread_bps(counted),
        settings=settings,
    )


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether one action may be taken on one asset's price, and at which.

    Attributes
    ----------
    purpose
        What was asked.
    allowed
        Whether it may be done.
    price
        At which price: for what raises risk the edge that errs against the account (`Side`), for the rest
        the price itself. None when it is unknown; present though `allowed` is False when it is known and
        something else forbids the action.
    origin
        Where the price comes from.
    reason
        One line.
    findings
        The violated guards of the feed.
    """

    purpose: Purpose
    allowed: bool
    price: PriceObs | None
    origin: Origin
    reason: str
    findings: tuple[Finding, ...] = ()


def decide(adapted: Adapted, purpose: Purpose, side: Side = Side.COLLATERAL) -> Decision:
    """Say whether `purpose` may use what `adapted` knows.

    ========================  ==================  =================  ============  =======
    state                     borrow, withdraw,   liquidate          repay         price
                              mint
    ========================  ==================  =================  ============  =======
    price unknown             refused             refused            allowed       none
    `PAUSE`                   refused             by its own rules   allowed       known
    `PAUSE_LIQUIDATIONS`      by their own rules  refused            allowed       known
    last known good           if `on_last_good`   if `on_last_good`  allowed       old
    standing prices apart     allowed, at edges   refused            allowed       known
    source or fallback alone  allowed             allowed            allowed       known
    ========================  ==================  =================  ============  =======

    Parameters
    ----------
    adapted
        From `adapt`.
    purpose
        What the price is for.
    side
        Where the asset stands in the account. Collateral counts at the lowest price known (least source, its
        bid or the lower edge of its confidence), debt at the highest. A liquidation and a repayment use the
        price itself: an edge there would shift value between borrower and liquidator.
    """
    price = _edge(adapted, side) if purpose in RAISES_RISK else adapted.price
    objection = None if purpose is Purpose.REPAY else _objection(adapted, purpose, price)
    reason = objection or (
        "a repayment lowers risk at any price"
        if purpose is Purpose.REPAY
        else f"price {_decimal(price)} of {price.source_id} ({adapted.origin})"
        if price is not None
        else ""
    )
    return Decision(purpose, objection is None, price, adapted.origin, reason, _violated(adapted.chosen))


@dataclass(frozen=True, slots=True)
class Token:
    """A token's symbol and its scale."""

    symbol: str
    decimals: int


@dataclass(frozen=True, slots=True)
class Quote:
    """An amount of one token in another.

    Attributes
    ----------
    amount_raw
        What was asked for, in the base token's smallest unit.
    out_raw
        Its worth in the quote token's smallest unit, rounded down; None when the price is unknown.
    decision
        Whether the purpose may use it.
    """

    amount_raw: int
    out_raw: int | None
    decision: Decision

    @property
    def vanished(self) -> bool:
        """Whether something was rounded to nothing: a worth that the quote token cannot say is no zero."""
        return self.amount_raw > 0 and self.out_raw == 0


def quote(
    amount_raw: int,
    base: Token,
    quote: Token,
    purpose: Purpose,
    adapted: Adapted,
    side: Side = Side.COLLATERAL,
) -> Quote:
    """Return what an amount of `base` is worth in `quote`, for a purpose.

    Parameters
    ----------
    amount_raw
        Amount in the smallest unit of `base`.
    base, quote
        The tokens; the adapted feed may price the pair either way round.
    purpose, side
        As in `decide`. Of a feed that prices the pair the other way round the opposite edge is taken, so that
        collateral is still worth less and debt more.
    adapted
        From `adapt`.

    Raises
    ------
    InputError
        If the amount is negative, or the feed prices another pair.
    """
    if amount_raw < 0:
        raise InputError(f"amount is {amount_raw}", fix="give an amount of at least 0")
    reading = adapted.chosen.reading
    direct = (reading.base, reading.quote) == (base.symbol, quote.symbol)
    if not direct and (reading.base, reading.quote) != (quote.symbol, base.symbol):
        raise InputError(
            f"feed {reading.source_id} prices {reading.base}/{reading.quote}, "
            f"not {base.symbol}/{quote.symbol}",
            fix="give the feed of that pair",
        )
    opposite = Side.DEBT if side is Side.COLLATERAL else Side.COLLATERAL
    decision = decide(adapted, purpose, side if direct else opposite)
    obs = decision.price
    if obs is None:
        return Quote(amount_raw, None, decision)
    out = scale_quote(
        amount_raw, obs.mantissa, base.decimals, quote.decimals, obs.decimals, inverse=not direct
    )
    return Quote(amount_raw, out, decision)


def scale_quote(
    amount_raw: int,
    price: int,
    base_decimals: int,
    quote_decimals: int,
    feed_decimals: int,
    *,
    inverse: bool = False,
) -> int:
    """Convert an amount at a price, rounded down (Euler's ``ScaleUtils.calcOutAmount``).

    ``amount * price * 10**quote_decimals / 10**(feed_decimals + base_decimals)``; `inverse` for a feed that
    prices the quote token in the base token: ``amount * 10**(feed_decimals + quote_decimals) /
    (price * 10**base_decimals)``.

    Raises
    ------
    InputError
        If the price is not positive.
    """
    if price <= 0:
        raise InputError(f"price is {price}", fix="convert at positive prices only")
    if inverse:
        over: int = price * 10**base_decimals
        scaled: int = amount_raw * 10 ** (feed_decimals + quote_decimals)
        return scaled // over
    worth: int = amount_raw * price * 10**quote_decimals
    return worth // int(10 ** (feed_decimals + base_decimals))


def _standing(price: GuardedPrice) -> PriceObs | None:
    """Return the reading if it may be used; a price of zero never may, whatever the guards said."""
    reading = price.reading
    if price.status is not PriceStatus.OK or isinstance(reading, NoData) or reading.mantissa <= 0:
        return None
    return reading


def _violated(price: GuardedPrice) -> tuple[Finding, ...]:
    source = price.reading.source_id
    return tuple(f for f in price.findings if f.status is GuardStatus.VIOLATED and f.source_id == source)


def _clampable(price: GuardedPrice) -> PriceObs | None:
    """Return a refused reading that still says something: all its guards ask to clamp it, none to reject."""
    reading, violated = price.reading, _violated(price)
    if isinstance(reading, NoData) or reading.mantissa <= 0 or not violated:
        return None
    if any(GuardAction.CLAMP not in f.actions or GuardAction.REJECT in f.actions for f in violated):
        return None
    passed = {f.name for f in price.findings if f.status is GuardStatus.OK}
    violating = {f.name for f in violated}
    return reading if price.required <= passed | violating else None


def _pick(
    own: PriceObs | None,
    others: list[PriceObs],
    last_good: LastGood | None,
    now: int,
    settings: AdapterSettings,
) -> tuple[PriceObs | None, Origin]:
    if own is not None:
        return own, Origin.SOURCE
    if others:
        return others[0], Origin.FALLBACK
    # A last good price from after now belongs to a block that was abandoned.
    if last_good is not None and 0 <= now - last_good.at <= settings.lkg_ttl_s:
        return last_good.obs, Origin.LAST_KNOWN_GOOD
    return None, Origin.NONE


def _paused(violated: Iterable[Finding], *, covered: bool) -> frozenset[GuardAction]:
    paused: set[GuardAction] = set()
    for finding in violated:
        lifted = covered and GuardAction.FALLBACK in finding.actions
        if GuardAction.PAUSE in finding.actions and not lifted:
            paused.add(GuardAction.PAUSE)
        if GuardAction.PAUSE_LIQUIDATIONS in finding.actions:
            paused.add(GuardAction.PAUSE_LIQUIDATIONS)
    return frozenset(paused)


def _reasons(chosen: GuardedPrice, violated: Iterable[Finding], *, stands: bool) -> tuple[str, ...]:
    reading = chosen.reading
    told = tuple(f"{f.guard} {f.message}" for f in violated)
    if stands:
        return told
    unjudged = tuple(
        f"{f.guard} {f.message}"
        for f in chosen.findings
        if f.status is GuardStatus.NOT_APPLICABLE
        and f.name in chosen.required
        and f.source_id == reading.source_id
    )
    if told or unjudged:
        return told + unjudged
    if isinstance(reading, NoData):
        return (f"no data: {reading.reason}",)
    return (f"price of {reading.source_id} does not stand",)


def _spread_bps(prices: Sequence[PriceObs]) -> int:
    """Return how far the outermost prices lie apart, relative to the larger, rounded up."""
    if len(prices) < 2:
        return 0
    # At the finest scale none of them is rounded.
    finest = max(p.decimals for p in prices)
    scaled = [p.scaled(finest) for p in prices]
    return -(-(max(scaled) - min(scaled)) * _BPS // max(scaled))


def _edge(adapted: Adapted, side: Side) -> PriceObs | None:
    """Return the price that errs against the account: the least lower edge, or the greatest upper one.

    A lower edge that reaches zero is unknown.
    """
    if not adapted.counted:
        return None
    finest = max(p.decimals for p in adapted.counted)
    if side is Side.COLLATERAL:
        edge = min((_lower(p) for p in adapted.counted), key=lambda p: p.scaled(finest))
    else:
        edge = max((_upper(p) for p in adapted.counted), key=lambda p: p.scaled(finest))
    return edge if edge.mantissa > 0 else None


def _lower(obs: PriceObs) -> PriceObs:
    least = obs.mantissa - (obs.conf_abs or 0)
    return replace(obs, mantissa=least if obs.bid is None else min(least, obs.bid))


def _upper(obs: PriceObs) -> PriceObs:
    most = obs.mantissa + (obs.conf_abs or 0)
    return replace(obs, mantissa=most if obs.ask is None else max(most, obs.ask))


def _objection(adapted: Adapted, purpose: Purpose, price: PriceObs | None) -> str | None:
    """Return why an action that is not a repayment may not be taken; None when it may."""
    known = adapted.price
    why = "; ".join(adapted.reasons)
    if known is None:
        return f"price unknown: {why}"
    if price is None:
        return f"price unknown: the uncertainty of {known.source_id} reaches zero"
    pause = GuardAction.PAUSE_LIQUIDATIONS if purpose is Purpose.LIQUIDATE else GuardAction.PAUSE
    if pause in adapted.paused:
        return f"paused: {why}"
    if adapted.origin is Origin.LAST_KNOWN_GOOD and purpose not in adapted.settings.on_last_good:
        return f"only the last good price is known: {why}"
    if purpose is not Purpose.LIQUIDATE:
        return None
    settings = adapted.settings
    if adapted.apart_bps > settings.agree_bps:
        return f"sources stand {adapted.apart_bps} bps apart, {settings.agree_bps} allowed"
    if adapted.origin is not Origin.LAST_KNOWN_GOOD and adapted.standing < settings.standing_to_liquidate:
        return f"{adapted.standing} sources stand, {settings.standing_to_liquidate} needed"
    return None


def _decimal(price: PriceObs) -> str:
    """Return the price in full, without an exponent."""
    whole, part = divmod(abs(price.mantissa), int(10**price.decimals))
    sign = "-" if price.mantissa < 0 else ""
    return f"{sign}{whole}.{part:0{price.decimals}d}" if price.decimals else f"{sign}{whole}"
