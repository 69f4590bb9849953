"""One price out of several: the median with a quorum, the first that answers, a price held by an anchor.

Pure functions over readings of one pair. What they are given they believe: whether a reading is stale or
absurd is for guards to say before (`oracle.guards`) or after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

from contracts_abi.errors import InputError
from oracle.interfaces import QuorumFacts
from oracle.types import NoData, PriceObs, Reading

_BPS = 10_000


class Beyond(StrEnum):
    """What becomes of a price that its anchor does not hold."""

    REFUSE = "refuse"
    CLAMP = "clamp"


def usable(readings: Sequence[Reading]) -> list[PriceObs]:
    """Return the readings that are positive prices.

    Raises
    ------
    InputError
        If they are not all of one pair.
    """
    pairs = sorted({f"{r.base}/{r.quote}" for r in readings})
    if len(pairs) > 1:
        raise InputError(f"prices of {' and '.join(pairs)} cannot be put together", fix="give one pair")
    return [r for r in readings if isinstance(r, PriceObs) and r.mantissa > 0]


def quorum_of(readings: Sequence[Reading], minimum: int) -> QuorumFacts:
    """Return how many readings count, and how many have to."""
    return QuorumFacts(len(usable(readings)), minimum)


def median(readings: Sequence[Reading], *, quorum: int, source_id: str) -> Reading:
    """Return the median of the prices there are.

    Of an even number it is the mean of the two in the middle, rounded down at the finest scale, and as old as
    the older of both. With two sources that is their average: one liar moves it half his way. Ask for three.

    Parameters
    ----------
    readings
        Of one pair, at least one.
    quorum
        Least number of prices.
    source_id
        Names the result.

    Returns
    -------
    PriceObs or NoData
        `NoData` when fewer answer than `quorum`, with the reasons of those that do not.

    Raises
    ------
    InputError
        If the pairs differ, or the quorum is less than one.
    """
    if quorum < 1:
        raise InputError(f"quorum is {quorum}", fix="ask for at least one price")
    prices = usable(readings)
    if len(prices) < quorum:
        return _lost(readings, source_id, f"{len(prices)} of {quorum} sources answer")
    decimals = max(p.decimals for p in prices)
    ordered = sorted(prices, key=lambda p: (p.scaled(decimals), p.source_id))
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    mantissa = (low.scaled(decimals) + high.scaled(decimals)) // 2
    return _plain(low, source_id, mantissa, decimals, _older(low, high))


def first_standing(readings: Sequence[Reading], *, source_id: str) -> Reading:
    """Return the first reading that is a price: the primary, or the next behind it.

    It keeps time, confidence and sides of the one it is; only its rounds are left out, since those of two
    sources have no order. `NoData` with all reasons when none is.
    """
    prices = usable(readings)
    if not prices:
        return _lost(readings, source_id, "no source answers")
    return replace(prices[0], source_id=source_id, round_key=None, answered_key=None)


def anchored(
    price: Reading, anchor: Reading, *, tolerance_bps: int, source_id: str, beyond: Beyond = Beyond.REFUSE
) -> Reading:
    """Return a price that an anchor holds: within the tolerance as it is, beyond it refused or clamped.

    Parameters
    ----------
    price, anchor
        Of one pair. Without either there is no price: an anchor that is lost holds nothing.
    tolerance_bps
        How far the price may lie from the anchor, relative to the anchor; at exactly that it still may.
    source_id
        Names the result.
    beyond
        `CLAMP` gives the edge of the tolerance, rounded towards the anchor.

    Raises
    ------
    InputError
        If the pairs differ, or the tolerance is negative.
    """
    if tolerance_bps < 0:
        raise InputError(f"tolerance_bps is {tolerance_bps}", fix="give at least 0")
    both = usable((price, anchor))
    if len(both) < 2:
        return _lost((price, anchor), source_id, "price or anchor is missing")
    found, held = both
    decimals = max(found.decimals, held.decimals)
    at, middle = found.scaled(decimals), held.scaled(decimals)
    reach = middle * tolerance_bps
    if abs(at - middle) * _BPS <= reach:
        return replace(found, source_id=source_id, round_key=None, answered_key=None)
    if beyond is Beyond.REFUSE:
        apart = -(-abs(at - middle) * _BPS // middle)
        return _lost((price, anchor), source_id, f"{apart} bps from its anchor, {tolerance_bps} allowed")
    edge = middle + reach // _BPS if at > middle else middle - reach // _BPS
    return _plain(found, source_id, edge, decimals, _older(found, held))


def _plain(of: PriceObs, source_id: str, mantissa: int, decimals: int, published_at: int | None) -> PriceObs:
    """Return a price that no source said: no rounds, no sides, no confidence."""
    return replace(
        of,
        source_id=source_id,
        mantissa=mantissa,
        decimals=decimals,
        published_at=published_at,
        round_key=None,
        answered_key=None,
        conf_abs=None,
        bid=None,
        ask=None,
        raw=b"",
    )


def _older(a: PriceObs, b: PriceObs) -> int | None:
    """Return the older time; unknown when either is."""
    if a.published_at is None or b.published_at is None:
        return None
    return min(a.published_at, b.published_at)


def _lost(readings: Sequence[Reading], source_id: str, reason: str) -> NoData:
    if not readings:
        raise InputError(f"{source_id} has no sources", fix="name at least one")
    why = [
        f"{r.source_id}: {r.reason if isinstance(r, NoData) else f'is {r.mantissa}'}"
        for r in readings
        if isinstance(r, NoData) or r.mantissa <= 0
    ]
    first = readings[0]
    text = "; ".join([reason, *why])
    return NoData(first.base, first.quote, source_id, first.observed_at, text, first.block)
