"""A small market, and a scan of price moves that can be checked by hand, for tests of what stands on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from contracts_abi.errors import InputError
from simulation.margin.result import Grade, MarginResult, Parameters, status_of
from simulation.margin.scenario_grid import (
    PriceMissing,
    VolRule,
    VolShock,
    cash_value,
    equity,
    grid,
    profit_under,
    rows_of,
    worst_label,
    worst_loss,
)
from simulation.portfolio.instruments import Future, Instrument, Option, Perpetual, Portfolio, Position, Spot
from simulation.portfolio.market import Expiry, Market, Underlying

NOW = 1_800_000_000
MONTH = NOW + 30 * 86_400
QUARTER = NOW + 90 * 86_400


class ScanParameters(Parameters):
    """What a scan moves.

    Attributes
    ----------
    moves
        Relative, of all prices together.
    volatility
        Relative shock, up and down.
    maintenance_share
        Of the initial requirement.
    """

    moves: tuple[float, ...] = (-0.16, -0.08, 0.0, 0.08, 0.16)
    volatility: float = 0.25
    maintenance_share: float = 1.0


DEFAULTS = ScanParameters()


@dataclass(frozen=True)
class Scan:
    """The worst loss of the whole account over a grid: nothing else.

    Attributes
    ----------
    parameters
        The grid.
    """

    kind: ClassVar[str] = "scan"
    grade: ClassVar[Grade] = Grade.CHECKED
    source: ClassVar[str] = "these tests"

    parameters: ScanParameters = DEFAULTS

    def margin(self, portfolio: Portfolio, market: Market) -> MarginResult:
        """Return the worst loss as the requirement."""
        p = self.parameters
        shocks: Mapping[str, VolShock] = {
            "same": VolShock(),
            "up": VolShock(rule=VolRule.PARALLEL, size=p.volatility),
            "down": VolShock(rule=VolRule.PARALLEL, size=-p.volatility),
        }
        scenarios = grid(p.moves, shocks)
        try:
            profits = profit_under(portfolio, market, scenarios).sum(axis=1)
            total, cash = equity(portfolio, market), cash_value(portfolio, market)
        except PriceMissing as missing:
            return MarginResult.unknown(portfolio.account, self.kind, p.hash, str(missing))
        rows, loss = rows_of(scenarios.labels, profits), worst_loss(profits)
        kept = p.maintenance_share * loss
        return MarginResult(
            portfolio.account, self.kind, p.hash, status_of(total - kept, kept), total, loss, kept,
            total - cash, worst_label(rows), rows, {"scan_risk": loss},
        )  # fmt: skip


@dataclass(frozen=True)
class Refusing:
    """A method that knows no instrument.

    Attributes
    ----------
    parameters
        None.
    """

    kind: ClassVar[str] = "refusing"
    grade: ClassVar[Grade] = Grade.CHECKED
    source: ClassVar[str] = "these tests"

    parameters: ScanParameters = DEFAULTS

    def margin(self, portfolio: Portfolio, market: Market) -> MarginResult:
        """Refuse."""
        raise InputError("refusing knows nothing", fix="use another method")


def market(spot: float = 3000.0, volatility: float = 0.6) -> Market:
    """Return one with ether and bitcoin, forwards at the spot price, no rates."""
    expiries = {time: Expiry(forward=spot, volatility=volatility) for time in (MONTH, QUARTER)}
    coins = {time: Expiry(forward=90_000.0, volatility=0.5) for time in (MONTH, QUARTER)}
    return Market(
        timestamp=NOW,
        underlyings={
            "ETH": Underlying(spot=spot, expiries=expiries),
            "BTC": Underlying(spot=90_000.0, expiries=coins),
        },
    )


def perpetual(quantity: float, symbol: str = "ETH", *, unrealised: float = 0.0, at: str = "") -> Position:
    """Return a position in a perpetual."""
    instrument = Perpetual(underlying=symbol)
    return Position(instrument=instrument, quantity=quantity, unrealised=unrealised, protocol=at)


def token(quantity: float, symbol: str = "ETH") -> Position:
    """Return tokens."""
    return Position(instrument=Spot(asset=symbol), quantity=quantity)


def future(quantity: float, expiry: int = MONTH) -> Position:
    """Return a position in a future on ether."""
    return Position(instrument=Future(underlying="ETH", expiry=expiry), quantity=quantity)


def option(quantity: float, strike: float, *, call: bool, expiry: int = MONTH) -> Position:
    """Return a position in an option on ether."""
    return Position(instrument=named(strike, call=call, expiry=expiry), quantity=quantity)


def named(strike: float, *, call: bool, expiry: int = MONTH) -> Instrument:
    """Return an option on ether."""
    return Option(underlying="ETH", expiry=expiry, strike=strike, call=call)


def account(*positions: Position, cash: float = 0.0, name: str = "a") -> Portfolio:
    """Return an account."""
    return Portfolio(account=name, cash=cash, positions=positions)
