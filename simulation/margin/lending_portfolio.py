"""The margin rule of lending markets over a portfolio of tokens held and owed: the health factor.

A token held is collateral and counts with its liquidation threshold; a token owed is debt, and counts in
full. ``health factor = sum(collateral * threshold) / debt``, and an account below 1 can be liquidated. The
same rule in the words of margin: what of the collateral does not count is the requirement, so that what is
left of the equity, ``sum(collateral * threshold) - debt``, is negative exactly where the factor is below 1.

This is the rule in floats, for portfolios, moves and comparisons. What a contract would answer to the last
digit says `simulation.margin.lending_health_factor`; here nothing is rounded where Aave cuts the weighted
threshold to whole 0.01 %. Source: reference of the margin engines, sections 5.1 and 7, and the rule that
`simulation.protocols.aave_v3` proves against the contract's bytecode.

Not here: Binance's uniMMR (section 2.4 gives its form, without the collateral rates and tiers that fill it)
and Gearbox's quotas (section 5.1 names them, without their formula). Gearbox without quotas and Arcadia's
values are this rule with thresholds of one's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

import numpy as np
from pydantic import Field, FiniteFloat, field_validator, model_validator

from contracts_abi.errors import InputError, UnknownNameError
from oracle.strict import StrictModel
from simulation.margin import margin_methods
from simulation.margin.derive_common import by_name
from simulation.margin.result import Grade, MarginResult, Parameters
from simulation.margin.scenario_grid import NEUTRAL, PriceMissing, cash_value, only, value_under
from simulation.portfolio.instruments import Portfolio, Spot
from simulation.portfolio.market import Market
from simulation.types import Float64, MarginStatus

Share = Annotated[FiniteFloat, Field(ge=0, le=1)]


class Reserve(StrictModel):
    """How a token counts as collateral.

    Attributes
    ----------
    max_ltv
        Share of its value that can be borrowed against.
    liquidation_threshold
        Share of its value that counts against the debt; 0 for a token that can only be owed.
    """

    max_ltv: Share
    liquidation_threshold: Share

    @model_validator(mode="after")
    def _not_crossed(self) -> Reserve:
        """Refuse a reserve that lends more than it would hold on to."""
        if self.max_ltv > self.liquidation_threshold:
            raise InputError(
                f"max_ltv {self.max_ltv:g} is above liquidation_threshold {self.liquidation_threshold:g}",
                fix="exchange them",
            )
        return self


class LendingParameters(Parameters):
    """What a lending market sets for its tokens.

    Attributes
    ----------
    reserves
        Symbol to how the token counts; a token that is not named is refused, held or owed.
    cash_reserve
        The token that a portfolio's cash is: held where it is positive, owed where it is negative. Its price
        is the market's settlement price.
    """

    reserves: Mapping[str, Reserve] = Field(min_length=1)
    cash_reserve: str = Field(min_length=1)

    @model_validator(mode="after")
    def _cash_is_a_reserve(self) -> LendingParameters:
        """Refuse cash that is no reserve."""
        if self.cash_reserve not in self.reserves:
            raise UnknownNameError("reserve", self.cash_reserve, self.reserves)
        return self


def _reserve(max_ltv: float, threshold: float) -> Reserve:
    return Reserve(max_ltv=max_ltv, liquidation_threshold=threshold)


AAVE_V3_ETHEREUM: Final = LendingParameters(
    reserves={
        # ETH goes in, and is taken out, as WETH.
        "ETH": _reserve(0.805, 0.83),
        "WETH": _reserve(0.805, 0.83),
        "wstETH": _reserve(0.785, 0.81),
        "WBTC": _reserve(0.73, 0.78),
        "LINK": _reserve(0.53, 0.68),
        "AAVE": _reserve(0.66, 0.73),
        "cbETH": _reserve(0.745, 0.77),
        "rETH": _reserve(0.745, 0.77),
        "USDC": _reserve(0.77, 0.80),
        "DAI": _reserve(0.77, 0.80),
        "USDT": _reserve(0.74, 0.76),
    },
    cash_reserve="USDC",
)
"""Core assets of Aave V3 on Ethereum as they were in January 2024, outside of eMode.

WETH, WBTC, LINK: governance proposal of 2023-05-29 (aave/aip, CHAOS-LABS-RISK-PARAMS-ETH-20230529). AAVE:
proposal of 2023-05-16 (bgd-labs/aave-proposals, AaveV3RiskParams_20230516). wstETH, cbETH, rETH: proposal
of 2023-08-28 (bgd-labs/aave-proposals). USDC, DAI, USDT: third-party, a table that somebody read from a fork
of the chain, dated by the prices beside it; it agrees with the proposals on the seven others. Governance has
changed several of them since: read the chain before you trust them.
"""


@margin_methods.register("lending.health_factor")
class LendingPortfolio(StrictModel):
    """A lending market's health factor over tokens held and owed, as margin: negative below a factor of 1.

    What is held and what is owed of one token both count: they are not netted, as no lending market nets
    them. Everything held counts as enabled collateral; positions in two protocols are two accounts.

    Attributes
    ----------
    parameters
        A set, or the name of one: ``aave-v3-ethereum``.
    """

    kind: ClassVar[str] = "lending.health_factor"
    grade: ClassVar[Grade] = Grade.CHECKED
    source: ClassVar[str] = (
        "Aave V3's rule, as the model that is compared with the contract's bytecode has it; thresholds from"
        " governance proposals, three of them from third parties; reference of the margin engines 5.1"
    )
    parameter_sets: ClassVar[Mapping[str, Parameters]] = {"aave-v3-ethereum": AAVE_V3_ETHEREUM}

    parameters: LendingParameters = AAVE_V3_ETHEREUM

    @field_validator("parameters", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return by_name(value, cls.parameter_sets)

    def margin(self, portfolio: Portfolio, market: Market) -> MarginResult:
        """Return what of the collateral does not count, against the equity, dollars.

        `components` are dollars but for three shares: ``weighted_threshold`` and ``weighted_ltv``, by the
        collateral's value, and ``health_factor``; the first two are left out without collateral, the last
        without debt.

        Raises
        ------
        InputError
            For an instrument that is no token, a token that is no reserve, tokens in two protocols. A price
            that is missing or no number makes the result unknown instead.
        """
        only(portfolio, self.kind, Spot)
        self._one_account(portfolio)
        try:
            return self._answer(portfolio, market)
        except PriceMissing as missing:
            return MarginResult.unknown(portfolio.account, self.kind, self.parameters.hash, str(missing))

    def _one_account(self, portfolio: Portfolio) -> None:
        """Refuse what one account of one market cannot hold."""
        reserves = self.parameters.reserves
        for position in portfolio.positions:
            token = position.instrument.underlying
            if token not in reserves:
                raise InputError(
                    f"{token} is no reserve of {self.kind}",
                    fix=f"name it in reserves beside {', '.join(reserves)}",
                )
        places = sorted({position.protocol for position in portfolio.positions})
        if len(places) > 1:
            named = ", ".join(place or "no protocol" for place in places)
            raise InputError(f"{portfolio.account} is at {named}", fix="give a portfolio for each protocol")

    def _answer(self, portfolio: Portfolio, market: Market) -> MarginResult:
        p = self.parameters
        # What overflows becomes infinite and is told as no number.
        with np.errstate(over="ignore"):
            cash = cash_value(portfolio, market)
            values = np.append(value_under(portfolio, market, NEUTRAL)[0], cash)
        symbols = [position.instrument.underlying for position in portfolio.positions]
        counted = [p.reserves[symbol] for symbol in (*symbols, p.cash_reserve)]
        held = np.maximum(values, 0.0)
        collateral, debt = _total(held), _total(np.maximum(-values, 0.0))
        weighted = _total(held * np.array([reserve.liquidation_threshold for reserve in counted]))
        power = _total(held * np.array([reserve.max_ltv for reserve in counted]))
        equity, required = collateral - debt, _required(collateral - debt, weighted - debt)
        maintenance = equity - required
        components = {
            "collateral": collateral,
            "debt": debt,
            "weighted_collateral": weighted,
            "borrowing_power": power,
        }
        if collateral > 0:
            components |= {"weighted_threshold": weighted / collateral, "weighted_ltv": power / collateral}
        if debt > 0:
            components["health_factor"] = weighted / debt
        return MarginResult(
            account=portfolio.account,
            method=self.kind,
            parameters_hash=p.hash,
            status=_status(maintenance, debt),
            equity=equity,
            initial_requirement=_required(equity, power - debt),
            maintenance_requirement=required,
            mark_to_market=equity - cash,
            components=components,
            reason="health factor below 1" if maintenance < 0 else "" if debt > 0 else "owes nothing",
        )


def _total(values: Float64) -> float:
    """Return a sum rounded once: splitting a position then moves nothing that its values do not."""
    try:
        return math.fsum(values)
    except OverflowError:
        raise PriceMissing("the portfolio is worth no number") from None


def _required(equity: float, left: float) -> float:
    """Return what must be there so that `left` is left of the equity, negative exactly where `left` is.

    Equity less requirement is rounded again; where a shortfall is too small beside the equity to survive
    that, the requirement is the next float.
    """
    required = equity - left
    return math.nextafter(equity, math.inf) if left < 0 and required <= equity else required


def _status(maintenance: float, debt: float) -> MarginStatus:
    if maintenance < 0:
        return MarginStatus.LIQUIDATABLE
    return MarginStatus.HEALTHY if debt > 0 else MarginStatus.NO_DEBT
