"""PMRM, the first portfolio-margin manager of Derive: one underlying, its base asset and its options.

Source: reference of the margin engines, section 1.2 (Derive v2 core contracts), verified by the venue's
published cases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, FiniteFloat, field_validator, model_validator

from contracts_abi.errors import InputError
from oracle.strict import StrictModel
from simulation.margin import margin_methods
from simulation.margin.derive_common import (
    BASIS,
    SKEWS,
    BasisShock,
    Direction,
    NotNegative,
    OptionBook,
    OracleContingency,
    PegLoss,
    Scenario,
    UnpricedError,
    VolShock,
    answered,
    basis_contingency,
    by_name,
    cash_only,
    no_legs,
    one_underlying,
    price_grid,
    read_account,
    scenario_at,
    underlying_feed,
    usable,
)
from simulation.margin.result import Grade, MarginResult, Parameters, ScenarioRow, status_of
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.market import Market
from simulation.types import Float64


class PmrmParameters(Parameters):
    """Parameters of PMRM.

    Attributes
    ----------
    scenarios
        Of price and volatility; no skews, no dampening.
    vol_shock, basis, peg, oracle
        See there.
    im_factor
        Factor on the worst loss in initial margin.
    base_static_discount, rate_mult, rate_add
        An expiry worth more than 0 counts ``base_static_discount *
        exp(-T (rate * rate_mult + rate_add))`` times.
    base_contingency, perp_contingency, option_contingency
        Share of the index price per unit of base asset, of perpetual, and of naked short option.
    """

    scenarios: tuple[Scenario, ...] = Field(min_length=1)
    vol_shock: VolShock
    basis: BasisShock
    peg: PegLoss
    oracle: OracleContingency
    im_factor: Annotated[FiniteFloat, Field(gt=0)]
    base_static_discount: NotNegative
    rate_mult: NotNegative
    rate_add: NotNegative
    base_contingency: NotNegative
    perp_contingency: NotNegative
    option_contingency: NotNegative

    @model_validator(mode="after")
    def _plain_scenarios(self) -> PmrmParameters:
        for scenario in self.scenarios:
            if scenario.direction in SKEWS or scenario.dampening != 1:
                raise InputError(f"PMRM has no scenario '{scenario.label}'", fix="use derive.pmrm2")
        return self


MAINNET = PmrmParameters(
    scenarios=price_grid(0.2, 4, ends=(Direction.UP,)),
    vol_shock=VolShock(range_up=0.6, range_down=0.3, short_power=0.3, long_power=0.13, dte_floor_s=86_400),
    basis=BasisShock(up=1.05, down=0.95, add_factor=1, mult_factor=1.2),
    peg=PegLoss(threshold=0.99, factor=4),
    oracle=OracleContingency(threshold=0.55, margin=1),
    im_factor=1.25,
    base_static_discount=0.95,
    rate_mult=1,
    rate_add=0.12,
    base_contingency=0.03,
    perp_contingency=0.03,
    option_contingency=0.02,
)
"""The deployment script's set."""

TEST = PmrmParameters(
    scenarios=price_grid(0.15, 3, ends=(Direction.UP, Direction.NONE, Direction.DOWN)),
    vol_shock=VolShock(range_up=0.45, range_down=0.3, short_power=0.3, long_power=0.13, dte_floor_s=86_400),
    basis=BasisShock(up=1.05, down=0.95, add_factor=0.25, mult_factor=0.01),
    peg=PegLoss(threshold=0.98, factor=2),
    oracle=OracleContingency(threshold=0.6, margin=0.5),
    im_factor=1.3,
    base_static_discount=0.95,
    rate_mult=4,
    rate_add=0.05,
    base_contingency=0.02,
    perp_contingency=0.02,
    option_contingency=0.01,
)
"""The set of the contracts' own test configuration."""


@margin_methods.register("derive.pmrm")
class DerivePmrm(StrictModel):
    """Derive's portfolio margin PMRM: price and volatility scenarios over one underlying and its base asset.

    Attributes
    ----------
    parameters
        A set, or the name of one: ``mainnet`` or ``test``.
    underlying
        Symbol of the manager's underlying, which is also its base asset; empty takes it from the account's
        derivatives.
    """

    kind: ClassVar[str] = "derive.pmrm"
    grade: ClassVar[Grade] = Grade.VECTORS
    source: ClassVar[str] = "Derive v2 core contracts, PMRM; reference of the margin engines 1.2"
    parameter_sets: ClassVar[Mapping[str, Parameters]] = {"mainnet": MAINNET, "test": TEST}

    parameters: PmrmParameters = MAINNET
    underlying: str = ""

    @field_validator("parameters", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return by_name(value, cls.parameter_sets)

    def only_scenario(self, index: int, account: str = "") -> DerivePmrm:
        """Return this manager with one scenario of its list, as an auction values an account.

        Raises
        ------
        InputError
            If there is no such scenario.
        """
        one = self.parameters.model_copy(
            update={"scenarios": (scenario_at(self.parameters.scenarios, index),)}
        )
        return self.model_copy(update={"parameters": one})

    def margin(self, portfolio: Portfolio, market: Market) -> MarginResult:
        """Return initial and maintenance margin with the risk array of all scenarios.

        Raises
        ------
        InputError
            For an instrument, a second underlying or a token beside the base asset, an expired option, a
            strike or volatility that is not above zero. A price that is missing or no number makes the
            result unknown instead.

        Notes
        -----
        Reference of the margin engines, section 1.2: marks and reprices are not discounted.
        """
        return answered(
            portfolio.account, self.kind, self.parameters, lambda: self._margin(portfolio, market)
        )

    def _margin(self, portfolio: Portfolio, market: Market) -> MarginResult:
        p = self.parameters
        account = read_account(portfolio, market, self.kind)
        symbol = one_underlying(account, market, self.underlying, self.kind)
        stable = usable(market.stable_price, "price of the settlement currency")
        if not account.legs and not account.spots:
            return cash_only(portfolio, self.kind, p, p.scenarios)
        for token in account.spots:
            if token != symbol:
                raise InputError(
                    f"{token} is not the base asset of {self.kind}", fix=f"it takes {symbol or 'none here'}"
                )
        feed = underlying_feed(market, symbol)
        legs = account.legs.get(symbol) or no_legs(feed, market)
        book, base = legs.options, account.spots.get(symbol, 0.0)
        base_value = base * feed.spot / stable
        marks = book.marks(np.ones(len(book.expiries)))
        profit, static_cost = _profits(book, p, marks, legs.perpetual * feed.perpetual_price + base_value)
        basis = basis_contingency(book, p.basis, marks, np.ones(len(book.expiries)))
        if not np.isfinite(profit).all():
            raise UnpricedError("an input is no number, or overflows")
        worst = int(np.argmin(profit))
        by_basis = basis <= float(profit[worst])
        parts = {
            "perp_contingency": abs(legs.perpetual) * p.perp_contingency * feed.spot,
            "base_contingency": base * p.base_contingency * feed.spot,
            "option_contingency": book.naked_shorts * p.option_contingency * feed.spot,
        }
        loss = min(basis, float(profit[worst])) - math.fsum(parts.values())

        confidence = min(feed.confidence, feed.perpetual_confidence) if legs.perpetual else feed.confidence
        gross = book.by_expiry(np.abs(book.amount)) * feed.spot
        doubt = p.oracle.of(confidence, (abs(legs.perpetual) + base) * feed.spot) + math.fsum(
            p.oracle.of(min(float(sure), confidence), float(size))
            for sure, size in zip(book.confidence, gross, strict=True)
        )
        peg = p.peg.extra(stable)
        option_mtm = float(marks.sum())
        equity = account.cash + legs.perpetual_value + option_mtm + base_value
        return MarginResult(
            account=portfolio.account,
            method=self.kind,
            parameters_hash=p.hash,
            status=status_of(equity + loss, -loss),
            equity=equity,
            initial_requirement=doubt - (p.im_factor + peg) * loss,
            maintenance_requirement=-loss,
            mark_to_market=equity - account.cash,
            worst=BASIS if by_basis else p.scenarios[worst].label,
            scenarios=tuple(
                ScenarioRow(scenario.label, float(value))
                for scenario, value in zip(p.scenarios, profit, strict=True)
            ),
            components={
                "option_mtm": option_mtm,
                "collateral_mtm": base_value,
                "perp_mtm": legs.perpetual_value,
                "scan_risk": -float(profit[worst]),
                "basis_contingency": -basis,
                "static_discount": 0.0 if by_basis else float(static_cost[worst]),
                **parts,
                "oracle_contingency": doubt,
                "peg_loss": -peg * loss,
            },
        )


def _profits(book: OptionBook, p: PmrmParameters, marks: Float64, linear: float) -> tuple[Float64, Float64]:
    """Return profit and cost of the static discount in each scenario, ``(s,)`` each, dollars.

    `linear` is the value that moves with the price one to one: perpetual and base asset.
    """
    up, down = p.vol_shock.factors(book.seconds)
    by_direction = {
        Direction.UP: np.maximum(p.vol_shock.min_vol_up, book.volatility * up[book.at]),
        Direction.NONE: book.volatility,
        Direction.DOWN: book.volatility * down[book.at],
    }
    shock = np.array([scenario.spot_shock for scenario in p.scenarios])
    volatility = np.stack([by_direction[scenario.direction] for scenario in p.scenarios])
    values = book.values(shock, volatility, np.ones(len(book.expiries)))
    exponent = -book.years * (np.maximum(book.rate, 0.0) * p.rate_mult + p.rate_add)
    counted = values * np.where(values > 0, p.base_static_discount * np.exp(exponent), 1.0)
    return (counted - marks).sum(axis=1) + linear * (shock - 1), (values - counted).sum(axis=1)
