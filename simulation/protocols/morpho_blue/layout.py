"""Where the parts of one Morpho Blue market are, found from its id."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from contracts_abi import aave_v3 as erc20
from contracts_abi import morpho_blue as abi
from contracts_abi.calls import Call
from contracts_abi.errors import DataError, InputError
from simulation.protocols.aave_v3.layout import Reads, Staged, answer_all, told_apart
from simulation.protocols.morpho_blue.irm import (
    AdaptiveCurveIrm,
    FixedRateIrm,
    InterestRateModel,
    UtilizationIrm,
)
from simulation.protocols.morpho_blue.types import ZERO_ADDRESS, MarketParams
from simulation.types import Asset

MAX_DECIMALS: Final = 36
"""Of a collateral: with more, raw loan tokens would not be whole units of the market's base currency."""

ID_PREFIX: Final = 8
"""Digits of a market's id that its name shows."""


class IrmKind(StrEnum):
    """The interest rate models that there is a formula for."""

    NONE = "none"
    ADAPTIVE_CURVE = "adaptive-curve"
    FIXED_RATE = "fixed-rate"
    UTILIZATION = "utilization"


@dataclass(frozen=True, slots=True)
class MorphoLayout:
    """Addresses of one market, enough to read it in one round of calls.

    Attributes
    ----------
    morpho
        The contract that holds all markets.
    params
        What the market is; its id is their hash.
    loan, collateral
        The tokens, with symbols that differ.
    irm_kind
        Which formula its interest follows.
    """

    morpho: str
    params: MarketParams
    loan: Asset
    collateral: Asset
    irm_kind: IrmKind

    @property
    def id(self) -> str:
        """The market's id, 0x-prefixed."""
        return self.params.id

    @property
    def id_bytes(self) -> bytes:
        """The market's id as the contract takes it."""
        return bytes.fromhex(self.params.id[2:])


def irm_read(layout: MorphoLayout) -> Call[Any] | None:
    """Return the read of what the rate model remembers, None where it remembers nothing."""
    irm, market = layout.params.irm, layout.id_bytes
    if layout.irm_kind is IrmKind.ADAPTIVE_CURVE:
        return abi.RATE_AT_TARGET.call(irm, market, label="irm.rateAtTarget")
    if layout.irm_kind is IrmKind.FIXED_RATE:
        return abi.BORROW_RATE_STORED.call(irm, market, label="irm.borrowRateStored")
    return None


_MODELS: Final[Mapping[IrmKind, Callable[[int], InterestRateModel | None]]] = {
    IrmKind.NONE: lambda _stored: None,
    IrmKind.ADAPTIVE_CURVE: AdaptiveCurveIrm,
    IrmKind.FIXED_RATE: FixedRateIrm,
    IrmKind.UTILIZATION: lambda _stored: UtilizationIrm(),
}


def rate_model(kind: IrmKind, stored: int) -> InterestRateModel | None:
    """Return the rate model of a kind with what it remembers; None for a market without interest."""
    return _MODELS[kind](stored)


def market_id(text: str) -> str:
    """Return a market's id in lower case; raises `InputError` for anything else than 32 bytes in hex."""
    try:
        raw = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise InputError(f"not a market id: {text!r}", fix="it is 0x and 64 hexadecimal digits")
    return "0x" + raw.hex()


def discover_layout(morpho: str, market: str) -> Staged[MorphoLayout]:
    """Find a market's parts, in stages; `aave_v3.layout.run_stages` drives it.

    Parameters
    ----------
    morpho
        The contract's address.
    market
        The market's id.

    Raises
    ------
    InputError
        If `market` is no id.
    DataError
        If a read fails, there is no such market, or its interest follows a model that is not known here.
    """
    wanted = market_id(market)
    calls: Reads = [
        abi.ID_TO_MARKET_PARAMS.call(morpho, bytes.fromhex(wanted[2:]), label="market parameters")
    ]
    ((loan, collateral, oracle, irm, lltv_wad),) = answer_all(calls, (yield calls))
    params = MarketParams(loan, collateral, oracle, irm, lltv_wad)
    if params.id != wanted:
        raise DataError(f"Morpho at {morpho} has no market {wanted}", fix="check the id and the chain")

    calls = []
    for token in (loan, collateral):
        calls += [erc20.symbol_call(token), erc20.ERC20_DECIMALS.call(token, label=f"decimals of {token}")]
    known: Reads = [
        abi.RATE_AT_TARGET.call(irm, bytes.fromhex(wanted[2:])),
        abi.BORROW_RATE_STORED.call(irm, bytes.fromhex(wanted[2:])),
    ]
    answers = yield [*calls, *known]
    of_loan, loan_decimals, of_collateral, decimals = answer_all(calls, answers[: len(calls)])
    if decimals > MAX_DECIMALS or 36 + loan_decimals < decimals:
        raise DataError(
            f"collateral {collateral} has {decimals} decimals, at most {MAX_DECIMALS} are supported"
        )
    if loan == collateral:
        raise DataError(f"market {wanted} lends its own collateral {loan}")
    symbols = told_apart([of_loan, of_collateral], [loan, collateral])
    return MorphoLayout(
        morpho=morpho,
        params=params,
        loan=Asset(symbols[0], loan, loan_decimals),
        collateral=Asset(symbols[1], collateral, decimals),
        irm_kind=_kind_of(irm, answers[len(calls)], answers[len(calls) + 1]),
    )


def _kind_of(irm: str, rate_at_target: bytes | None, rate_stored: bytes | None) -> IrmKind:
    if irm == ZERO_ADDRESS:
        return IrmKind.NONE
    if rate_at_target:
        return IrmKind.ADAPTIVE_CURVE
    if rate_stored:
        return IrmKind.FIXED_RATE
    raise DataError(
        f"the interest rate model at {irm} is none that is known here",
        fix="the markets of AdaptiveCurveIrm and FixedRateIrm are, and those without interest",
    )
