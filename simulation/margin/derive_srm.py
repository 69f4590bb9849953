"""SRM, the standard manager of Derive: many underlyings, each expiry by itself, the better of two rules.

Source: reference of the margin engines, section 1.3 (Derive v2 core contracts), verified by the venue's
published cases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator, model_validator

from contracts_abi.errors import InputError
from oracle.strict import StrictModel
from simulation.margin import margin_methods
from simulation.margin.derive_common import (
    Legs,
    NotNegative,
    OptionBook,
    Share,
    answered,
    by_name,
    read_account,
    token_price,
    usable,
)
from simulation.margin.result import Grade, MarginResult, Parameters, status_of
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.market import Market
from simulation.types import Float64


class PerpRequirement(StrictModel):
    """What a perpetual needs, as a share of its notional.

    Attributes
    ----------
    mm, im
        Maintenance, and initial, which is not less.
    """

    mm: Share
    im: Share

    @model_validator(mode="after")
    def _initial_is_more(self) -> PerpRequirement:
        if self.im < self.mm:
            raise InputError(f"im {self.im} is below mm {self.mm}", fix="exchange them")
        return self


class Base(StrictModel):
    """What a token counts for.

    Attributes
    ----------
    margin_factor
        Share of its value in maintenance margin.
    im_scale
        Factor on that in initial margin.
    """

    margin_factor: Share
    im_scale: Share


class SrmParameters(Parameters):
    """Parameters of the standard manager.

    Attributes
    ----------
    perp
        Of every perpetual that `perps` does not name.
    perps
        Underlying to the requirement of its perpetual.
    max_spot_req, min_spot_req
        Bounds of a short option's initial requirement, shares of the index price.
    mm_call_spot_req, mm_put_spot_req
        Maintenance requirement of a short option, shares of the index price.
    mm_put_mtm_req
        Of a short put also as a share of its value; the larger requirement holds.
    unpaired_im_scale, unpaired_mm_scale
        Forwards per call that is short in net, where the maximal loss decides.
    mm_offset_scale
        A short put's initial requirement is at least this often its maintenance requirement.
    perp_confidence_threshold, option_confidence_threshold, base_confidence_threshold
        Confidence below which an oracle contingency counts.
    oracle_contingency_factor
        Share of the notional at no confidence.
    depeg_threshold, depeg_factor
        Settlement currency below the first: the shortfall times the second of perpetual and short notional.
    bases
        Token to what it counts for; any other is refused.
    """

    perp: PerpRequirement
    perps: Mapping[str, PerpRequirement] = Field(default_factory=dict)
    max_spot_req: NotNegative
    min_spot_req: NotNegative
    mm_call_spot_req: NotNegative
    mm_put_spot_req: NotNegative
    mm_put_mtm_req: NotNegative
    unpaired_im_scale: NotNegative
    unpaired_mm_scale: NotNegative
    mm_offset_scale: NotNegative
    perp_confidence_threshold: Share
    option_confidence_threshold: Share
    base_confidence_threshold: Share
    oracle_contingency_factor: NotNegative
    depeg_threshold: NotNegative
    depeg_factor: NotNegative
    bases: Mapping[str, Base] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _bounds_do_not_cross(self) -> SrmParameters:
        if self.min_spot_req > self.max_spot_req:
            raise InputError(
                f"min_spot_req {self.min_spot_req} is above max_spot_req {self.max_spot_req}",
                fix="exchange them",
            )
        return self


_MAINNET_BASES = {
    "ETH": (0.8, 0.9375),
    "BTC": (0.75, 0.93),
    "USDT": (0.98, 0.98),
    "wstETH": (0.8, 0.9375),
    "weETH": (0.65, 0.77),
    "rswETH": (0.65, 0.77),
    "DAI": (0.925, 0.92),
    "USDe": (0.8, 0.875),
    "cbBTC": (0.65, 0.77),
    "LBTC": (0.65, 0.77),
}

MAINNET = SrmParameters(
    perp=PerpRequirement(mm=0.067, im=0.1),
    perps={
        **dict.fromkeys(("ETH", "BTC"), PerpRequirement(mm=0.065, im=0.1)),
        **dict.fromkeys(("PEPE", "WIF"), PerpRequirement(mm=0.143, im=0.2)),
    },
    max_spot_req=0.15,
    min_spot_req=0.13,
    mm_call_spot_req=0.09,
    mm_put_spot_req=0.09,
    mm_put_mtm_req=0.09,
    unpaired_im_scale=1.2,
    unpaired_mm_scale=1.1,
    mm_offset_scale=1.05,
    perp_confidence_threshold=0.55,
    option_confidence_threshold=0.55,
    base_confidence_threshold=0.55,
    oracle_contingency_factor=1,
    depeg_threshold=0.99,
    depeg_factor=2,
    bases={token: Base(margin_factor=a, im_scale=b) for token, (a, b) in _MAINNET_BASES.items()},
)
"""The deployment script's set; of restaked ether only two tokens are named, with its common factors."""

TEST = SrmParameters(
    perp=PerpRequirement(mm=0.065, im=0.1),
    max_spot_req=0.15,
    min_spot_req=0.1,
    mm_call_spot_req=0.075,
    mm_put_spot_req=0.075,
    mm_put_mtm_req=0.075,
    unpaired_im_scale=1.2,
    unpaired_mm_scale=1.1,
    mm_offset_scale=1.05,
    perp_confidence_threshold=0.4,
    option_confidence_threshold=0.4,
    base_confidence_threshold=0.4,
    oracle_contingency_factor=0.4,
    depeg_threshold=0.98,
    depeg_factor=1.2,
    bases={token: Base(margin_factor=0.8, im_scale=1) for token in ("ETH", "BTC")},
)
"""The set of the contracts' own test configuration."""


@dataclass(frozen=True, slots=True)
class _Options:
    """What the options of one underlying are worth and need, net of their value: at most 0 but the mark."""

    mark: float = 0.0
    mm: float = 0.0
    im: float = 0.0
    doubt: float = 0.0
    shorts: float = 0.0


@margin_methods.register("derive.srm")
class DeriveSrm(StrictModel):
    """Derive's standard margin: each short option by itself or the maximal loss of its expiry, what is less.

    Long options secure nothing but shorts of their expiry.

    Attributes
    ----------
    parameters
        A set, or the name of one: ``mainnet`` or ``test``.
    """

    kind: ClassVar[str] = "derive.srm"
    grade: ClassVar[Grade] = Grade.VECTORS
    source: ClassVar[str] = "Derive v2 core contracts, StandardManager; reference of the margin engines 1.3"
    parameter_sets: ClassVar[Mapping[str, Parameters]] = {"mainnet": MAINNET, "test": TEST}

    parameters: SrmParameters = MAINNET

    @field_validator("parameters", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return by_name(value, cls.parameter_sets)

    def margin(self, portfolio: Portfolio, market: Market) -> MarginResult:
        """Return initial and maintenance margin; equity counts every mark, also of what secures nothing.

        Raises
        ------
        InputError
            For an instrument or a token that the manager does not have, an expired option, a strike or
            volatility that is not above zero. A price that is missing or no number makes the result unknown
            instead.

        Notes
        -----
        Reference of the margin engines, section 1.3. Options are marked without discount.
        """
        return answered(
            portfolio.account, self.kind, self.parameters, lambda: self._margin(portfolio, market)
        )

    def _margin(self, portfolio: Portfolio, market: Market) -> MarginResult:
        p = self.parameters
        account = read_account(portfolio, market, self.kind)
        stable = usable(market.stable_price, "price of the settlement currency")
        short_of_peg = max(0.0, p.depeg_threshold - stable) * p.depeg_factor
        parts = dict.fromkeys(
            (
                "option_mtm",
                "collateral_mtm",
                "perp_mtm",
                "mm_option_margin",
                "im_option_margin",
                "mm_perp_margin",
                "im_perp_margin",
                "mm_base_margin",
                "im_base_margin",
                "oracle_contingency",
                "depeg_contingency",
            ),
            0.0,
        )
        for symbol, legs in account.legs.items():
            feed, size = legs.feed, abs(legs.perpetual)
            options = _options(legs, p)
            rule = p.perps.get(symbol, p.perp)
            parts["option_mtm"] += options.mark
            parts["perp_mtm"] += legs.perpetual_value
            parts["mm_option_margin"] += options.mm
            parts["im_option_margin"] += options.im
            parts["mm_perp_margin"] += legs.perpetual_value - size * feed.perpetual_price * rule.mm
            parts["im_perp_margin"] += legs.perpetual_value - size * feed.perpetual_price * rule.im
            sure = min(feed.confidence, feed.perpetual_confidence)
            if sure < p.perp_confidence_threshold:
                parts["oracle_contingency"] += (1 - sure) * p.oracle_contingency_factor * feed.spot * size
            parts["oracle_contingency"] += options.doubt
            parts["depeg_contingency"] += (size + options.shorts) * feed.spot * short_of_peg
        for token, amount in account.spots.items():
            base = p.bases.get(token)
            if base is None:
                raise InputError(
                    f"{token} is no collateral of {self.kind}",
                    fix=f"known: {', '.join(p.bases) or 'none'}; add it to `bases`",
                )
            price, sure = token_price(market, token)
            worth = amount * price
            parts["collateral_mtm"] += worth / stable
            # The margin is not divided by the price of the settlement currency, the mark is.
            parts["mm_base_margin"] += worth * base.margin_factor
            parts["im_base_margin"] += worth * base.margin_factor * base.im_scale
            # The contract looks at the confidence only of a token that counts for something.
            if base.margin_factor * base.im_scale > 0 and sure < p.base_confidence_threshold:
                parts["oracle_contingency"] += (1 - sure) * p.oracle_contingency_factor * worth
        mm = account.cash + math.fsum(parts[f"mm_{what}_margin"] for what in ("option", "perp", "base"))
        im = account.cash + math.fsum(parts[f"im_{what}_margin"] for what in ("option", "perp", "base"))
        im -= parts["oracle_contingency"] + parts["depeg_contingency"]
        mark = parts["option_mtm"] + parts["collateral_mtm"] + parts["perp_mtm"]
        equity = account.cash + mark
        return MarginResult(
            account=portfolio.account,
            method=self.kind,
            parameters_hash=p.hash,
            status=status_of(mm, equity - mm),
            equity=equity,
            initial_requirement=equity - im,
            maintenance_requirement=equity - mm,
            mark_to_market=mark,
            components=parts,
        )


def _options(legs: Legs, p: SrmParameters) -> _Options:
    """Return what the options of one underlying are worth and need."""
    book, spot = legs.options, legs.feed.spot
    if not book.expiries:
        return _Options()
    no_discount = np.ones(len(book.expiries))
    single = book.each(np.ones(1), book.volatility[None, :], no_discount)[0]
    short = book.amount < 0
    away = np.where(book.call, book.strike - spot, spot - book.strike) / spot
    rate = np.maximum(p.max_spot_req - np.maximum(0.0, away), p.min_spot_req)
    mm_call = single + p.mm_call_spot_req * spot * book.amount
    mm_put = single + np.minimum(p.mm_put_spot_req * spot * book.amount, p.mm_put_mtm_req * single)
    plain = single + spot * book.amount * rate
    mm_each = np.where(short, np.where(book.call, mm_call, mm_put), 0.0)
    im_put = np.minimum(plain, mm_put * p.mm_offset_scale)
    im_each = np.where(short, np.where(book.call, plain, im_put), 0.0)
    short_calls = np.minimum(0.0, book.by_expiry(np.where(book.call, book.amount, 0.0))) * book.forward
    worst = _max_losses(book)
    mm = np.maximum(book.by_expiry(mm_each), worst + short_calls * p.unpaired_mm_scale)
    im = np.maximum(book.by_expiry(im_each), worst + short_calls * p.unpaired_im_scale)
    shorts = book.by_expiry(np.where(short, -book.amount, 0.0))
    sure = np.minimum(book.forward_vol_confidence, legs.feed.confidence)
    doubt = np.where(sure < p.option_confidence_threshold, 1 - sure, 0.0)
    return _Options(
        mark=float(single.sum()),
        mm=float(mm.sum()),
        im=float(im.sum()),
        doubt=float((doubt * shorts).sum() * p.oracle_contingency_factor * spot),
        shorts=float(shorts.sum()),
    )


def _max_losses(book: OptionBook) -> Float64:
    """Return the worst payoff of each expiry at 0 and at its strikes, at most 0, dollars, ``(e,)``."""
    losses = np.zeros(len(book.expiries))
    starts = np.append(np.searchsorted(book.at, np.arange(len(book.expiries))), len(book.at))
    for i, (first, end) in enumerate(pairwise(starts)):
        # Strikes ascend within an expiry: sums up to a strike instead of all pairs, for many strikes.
        strike, call = book.strike[first:end], book.call[first:end]
        calls = np.where(call, book.amount[first:end], 0.0)
        puts = book.amount[first:end] - calls
        from_calls = strike * np.cumsum(calls) - np.cumsum(calls * strike)
        above = np.cumsum((puts * strike)[::-1])[::-1], np.cumsum(puts[::-1])[::-1]
        from_puts = above[0] - strike * above[1]
        losses[i] = min(0.0, float(above[0][0]), float((from_calls + from_puts).min()))
    return losses
