"""Policies: what to do with an account, given what each of the three prices says of it. One file a policy.

`three_price.ThreePricePolicy` is the default; the reasons stand in ``docs/decisions/0002-three-prices.md``.
"""

from __future__ import annotations

from typing import Any

from oracle.registry import Registry
from oracle.types import GuardedPrice, NoData, PriceSnapshot, PriceStatus

policies: Registry[type[Any]] = Registry("policy", "simulation.policy")


def _ratio(price: GuardedPrice | None) -> tuple[int, int] | None:
    """Return a usable positive price as numerator and denominator."""
    if price is None or price.status is not PriceStatus.OK or isinstance(price.reading, NoData):
        return None
    if price.reading.mantissa <= 0:
        return None
    return price.reading.mantissa, int(10**price.reading.decimals)


def excess_seizure_bps(
    collateral: str, debt: str, protocol: PriceSnapshot, reference: PriceSnapshot
) -> int | None:
    """How much more collateral the protocol's prices seize than the reference prices would, in basis points.

    A lending protocol seizes ``debt * price_debt / price_collateral * (1 + bonus)``, so for one and the same
    debt the amounts seized stand as the ratios ``price_debt / price_collateral``: a collateral priced 5 %
    too low takes 5.26 % too much from the borrower, and so does a debt priced 5.26 % too high.

    Parameters
    ----------
    collateral, debt
        Symbols of the asset seized and the asset repaid.
    protocol, reference
        The two views, at the same block.

    Returns
    -------
    int or None
        Positive when the borrower loses, negative when the protocol seizes less than the reference would;
        rounded towards the borrower's harm. None when one of the four prices is unknown. The same asset on
        both sides is always 0: its price cancels.
    """
    if collateral == debt:
        return 0
    sides = [_ratio(view.prices.get(asset)) for view in (protocol, reference) for asset in (collateral, debt)]
    known = [side for side in sides if side is not None]
    if len(known) != len(sides):
        return None
    (pc, pc_den), (pd, pd_den), (rc, rc_den), (rd, rd_den) = known
    numerator = pd * pc_den * rc * rd_den
    denominator = pc * pd_den * rd * rc_den
    return -((denominator - numerator) * 10_000 // denominator)
