"""The tables of a ``shared-book/1`` file as a user writes them: strict, and each key described once.

The descriptions are those of the JSON Schema and of docs/book.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from contracts_abi.errors import InputError, UnknownNameError
from oracle.strict import StrictModel
from simulation.book.bounds import LENDING_KINDS
from simulation.book.exits import ExitModel
from simulation.book.types import BackingKind
from simulation.portfolio.load import unix_time

SCHEMA: Final = "shared-book/1"
MOST: Final = 1e30
"""Of any number of a book: products of two do not overflow, and no chain holds more."""

LATEST: Final = 253_402_300_799
"""The last second of the year 9999, the last that a date can say."""

SIDES: Final = ("collateral", "debt", "margin", "perp", "call", "put")
"""What a row of a table of positions can be."""

COLUMNS: Final[Mapping[str, str]] = {
    "wallet": "Who: an address or a name.",
    "venue": "Where, by the venue's name in the book; empty of options.",
    "token": "Symbol; of `margin` the venue's margin token.",
    "side": "`collateral`, `debt`, `margin`, `perp`, `call` or `put`.",
    "amount": "Whole tokens, above 0; of `perp`, `call` and `put` below 0 when short.",
    "emode": "Category of the account in its venue, the same in all of its rows; empty for none.",
    "entry": "US dollars, of `perp`.",
    "strike": "US dollars, of `call` and `put`.",
    "expiry": "Unix seconds or ISO 8601, of `call` and `put`.",
    "volatility": "A year's, 0.65 for 65 %, of `call` and `put`.",
}
"""Column of a table of positions to what it means."""

Amount = Annotated[float, Field(strict=True, gt=0, le=MOST, allow_inf_nan=False)]
"""Whole tokens or US dollars, above 0."""
Whole = Annotated[float, Field(strict=True, ge=0, le=MOST, allow_inf_nan=False)]
"""Likewise, 0 or more."""
Signed = Annotated[float, Field(strict=True, ge=-MOST, le=MOST, allow_inf_nan=False)]
Bps = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
Name = Annotated[str, Field(strict=True, min_length=1, max_length=200)]


class Table(StrictModel):
    """Base of the tables of a book."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class BackingTable(Table):
    """What a token redeems for."""

    kind: BackingKind
    """`staked`, `stable` or `wrapped`."""
    token: Name
    """Symbol of what it redeems for; `USD` for a stable that is backed off chain."""
    rate: Amount = 1.0
    """Units of that which one unit redeems for."""
    reserve_ratio: Amount = 1.0
    """Part of the tokens outstanding that the reserve covers; 1 when whole."""
    delay_s: Annotated[int, Field(strict=True, ge=0, le=10**9)] = 0
    """Seconds that redemption takes."""


class TokenTable(Table):
    """One token: its decimals, its price, what backs it."""

    price: Amount
    """US dollars at the book's time."""
    decimals: Annotated[int, Field(strict=True, ge=0, le=255)] = 18
    """Decimals of its smallest unit."""
    backing: BackingTable | None = None
    """What stands behind it; left out for an asset of its own."""


class RateTable(Table):
    """A kinked interest curve, in parts of one a year."""

    optimal: Amount
    """Utilisation at the kink, inside 0 and 1."""
    base: Whole = 0.0
    """Rate at no utilisation."""
    slope1: Whole
    """What is added up to the kink."""
    slope2: Whole
    """What is added from there to full utilisation."""


class ReserveTable(Table):
    """One token of a lending venue."""

    ltv_bps: Bps = 0
    """What may be borrowed against it; 0 when it is no collateral."""
    liquidation_threshold_bps: Bps = 0
    """Where liquidation begins; 0 when it is no collateral."""
    liquidation_bonus_bps: Bps | None = None
    """What a liquidator gets above the debt repaid; of Morpho Blue it follows from the LLTV."""
    rate: RateTable
    """Interest curve; of what is not lent, zeros."""
    protocol_fee_bps: Bps = 0
    """Part of the bonus that the protocol takes."""
    reserve_factor_bps: Bps = 0
    """Part of the interest that the protocol takes."""
    idle_supply: Whole = 0.0
    """Tokens supplied by others than the book's accounts, lent out or not."""
    reserves: Whole = 0.0
    """Tokens that the protocol holds against losses."""
    outside_debt: Whole = 0.0
    """Tokens owed by others than the book's accounts."""
    supply_cap: Amount | None = None
    """Whole tokens; left out for no cap."""
    borrow_cap: Amount | None = None
    """Whole tokens; left out for no cap."""


class EModeTable(Table):
    """A category of an Aave V3 venue, with limits of its own."""

    id: Annotated[int, Field(strict=True)]
    """Its number on the chain, 1 to 255."""
    tokens: tuple[Name, ...]
    """What counts with its limits as collateral."""
    ltv_bps: Bps
    """What may be borrowed, in place of the reserves' own."""
    liquidation_threshold_bps: Bps
    """Where liquidation begins, likewise."""
    liquidation_bonus_bps: Bps
    """What a liquidator gets, likewise."""
    borrowable: tuple[Name, ...] | None = None
    """What accounts in it may borrow; its tokens unless given."""


class LendingTable(Table):
    """A lending pool, or one isolated market."""

    name: Name
    """Its name in the book."""
    kind: Name
    """Whose rules hold: `aave-v2`, `aave-v3`, `aave-v3.6`, `morpho-blue` or `compound-v3`."""
    reserves: dict[str, ReserveTable]
    """Its tokens in order; of Morpho Blue and Compound III the token that is lent comes last."""
    emode: tuple[EModeTable, ...] = ()
    """Categories, of Aave V3 alone."""
    target_reserves: Whole | None = None
    """Of Compound III: reserves in the token lent from which on it sells nothing; left out for no limit."""

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in LENDING_KINDS:
            raise UnknownNameError("kind", kind, LENDING_KINDS)
        return kind


class PerpMarketTable(Table):
    """One perpetual future of a venue."""

    maintenance_margin: Amount
    """Part of the notional below which an account's equity is liquidated."""
    initial_margin: Amount
    """Part of the notional that opening asks for."""
    skew_scale: Amount | None = None
    """Size in tokens at which the premium is one."""


class PerpVenueTable(Table):
    """A venue of perpetual futures."""

    name: Name
    """Its name in the book."""
    margin_token: Name
    """What margin is posted in."""
    markets: dict[str, PerpMarketTable]
    """Its futures by token."""
    liquidation_fee: Whole = 0.0
    """Part of the notional that goes to the insurance fund."""
    insurance: Whole = 0.0
    """The fund, in margin tokens."""


class PerpPositionTable(Table):
    """A position in a perpetual future."""

    size: Signed
    """Tokens, below 0 when short."""
    entry: Amount
    """US dollars that it was opened at."""


class AccountTable(Table):
    """What a wallet has in one venue: collateral and debt, or margin and positions of perpetuals."""

    wallet: Name
    """Who: an address or a name. A wallet is one owner over all venues."""
    venue: Name
    """Where, by the venue's name."""
    emode: Annotated[int, Field(strict=True, ge=0, le=255)] = 0
    """Category of the account; 0 for none."""
    collateral: dict[str, Amount] = Field(default_factory=dict)
    """Whole tokens by symbol."""
    debt: dict[str, Amount] = Field(default_factory=dict)
    """Whole tokens by symbol."""
    margin: Amount | None = None
    """Margin tokens, of a venue of perpetuals."""
    perp: dict[str, PerpPositionTable] = Field(default_factory=dict)
    """Positions by token, of a venue of perpetuals."""


class OptionTable(Table):
    """A European option of a wallet."""

    wallet: Name
    """Who: an address or a name."""
    token: Name
    """Symbol of the underlying."""
    expiry: float
    """Unix seconds or a TOML date-time."""
    strike: Amount
    """US dollars of the strike."""
    size: Signed
    """Contracts of one token, below 0 when written."""
    volatility: Amount
    """A year's implied volatility, 0.65 for 65 %."""
    call: Annotated[bool, Field(strict=True)]
    """`true` for a call, `false` for a put."""

    @field_validator("expiry", mode="before")
    @classmethod
    def _seconds(cls, value: object) -> object:
        return moment(value)


class ExitTable(Table):
    """What selling a token costs: `size` and `slippage`, or a `table`, or a `model`."""

    token: Name
    """What is sold."""
    quote: Name
    """For what it is sold; a token or `USD`."""
    venue: Name
    """Where, for reports."""
    date: str
    """Date of the measurement: 2026-04-01."""
    source: str = ""
    """Where the figures come from."""
    size: tuple[Amount, ...] | None = None
    """Whole tokens sold at once, rising."""
    slippage: tuple[Whole, ...] | None = None
    """Loss against the price before, as a part of one below 1, not falling."""
    table: Name | None = None
    """A CSV beside this file with the columns `size` and `slippage`."""
    model: ExitModel | None = None
    """A formula; see below."""

    @field_validator("date", mode="before")
    @classmethod
    def _iso(cls, value: object) -> object:
        return value.isoformat() if isinstance(value, date) else value

    @model_validator(mode="after")
    def _one_of_three(self) -> ExitTable:
        given = [self.size is not None or self.slippage is not None, bool(self.table), self.model is not None]
        if sum(given) != 1 or (given[0] and (self.size is None or self.slippage is None)):
            raise InputError(
                f"the exit of {self.token} at {self.venue} gives no table, or more than one",
                fix="give size and slippage, or table, or model",
            )
        return self


class BookFile(Table):
    """What a ``shared-book/1`` file holds."""

    schema_: Literal["shared-book/1"] = Field(default="shared-book/1", alias="schema")
    """`shared-book/1`, the version of this format."""
    timestamp: Annotated[int, Field(ge=0, le=LATEST)]
    """When: unix seconds or a TOML date-time, UTC without a zone."""
    block: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    """Block of the chain; 0 off chain."""
    origin: str = ""
    """Where the figures come from, for reports."""
    over_limit: Literal["refuse", "allow"] = "refuse"
    """`allow` where accounts may owe more than they could borrow at these prices."""
    positions: Name | None = None
    """A CSV or Parquet of positions beside this file."""
    wallets: tuple[Name, ...] = ()
    """Their order, where it is not that of their first use."""
    unknown: tuple[Name, ...] = ()
    """Accounts that could not be read when the book was pulled, as `venue:wallet`."""
    tokens: dict[str, TokenTable]
    """All tokens by symbol."""
    lending: tuple[LendingTable, ...] = ()
    """Lending venues in order."""
    perps: tuple[PerpVenueTable, ...] = ()
    """Venues of perpetual futures in order."""
    exit: tuple[ExitTable, ...] = ()
    """What sales cost, one table each."""
    account: tuple[AccountTable, ...] = ()
    """Accounts written in this file."""
    option: tuple[OptionTable, ...] = ()
    """Options written in this file."""

    @field_validator("timestamp", mode="before")
    @classmethod
    def _seconds(cls, value: object) -> object:
        return moment(value)


def moment(value: object) -> object:
    """Return a TOML date-time, or text with one, as unix seconds; numbers as they are."""
    if isinstance(value, bool):
        raise InputError("is no time", fix="write 2026-12-25T08:00:00Z or unix seconds")
    if isinstance(value, datetime):
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    if isinstance(value, date):
        return int(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp())
    return unix_time(value) if isinstance(value, str) else value


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a book file, for editors and for checks of one's own."""
    return BookFile.model_json_schema(by_alias=True)
