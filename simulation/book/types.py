"""The shared book: tokens, venues and the positions of all wallets, as columns.

Amounts are whole tokens in float64 and values US dollars: the book feeds kernels and simulations. Where
integers are needed (real bytecode), an amount becomes token units by `raw_units`, the same way everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from fractions import Fraction

import numpy as np

from simulation.types import Float64, Int8, Int32

USD = "USD"


class BackingKind(StrEnum):
    """What stands behind a token that is not its own asset."""

    STAKED = "staked"
    STABLE = "stable"
    WRAPPED = "wrapped"


@dataclass(frozen=True, slots=True)
class Backing:
    """What a staked, stable or wrapped token can be redeemed for.

    Attributes
    ----------
    kind
        See `BackingKind`.
    token
        Symbol of what it redeems for; `USD` for a stable that is backed off chain.
    rate
        Units of `token` that one unit redeems for, positive.
    reserve_ratio
        Part of the outstanding tokens that the reserve covers, 1 when whole.
    delay_s
        Seconds that redemption takes (an exit queue); 0 when at once.
    """

    kind: BackingKind
    token: str
    rate: float = 1.0
    reserve_ratio: float = 1.0
    delay_s: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the book.

    Attributes
    ----------
    symbol, decimals
        Its name here, and the decimals of its units.
    price
        US dollars at the book's time, positive.
    backing
        What stands behind it; None for an asset of its own.
    """

    symbol: str
    decimals: int
    price: float
    backing: Backing | None = None


@dataclass(frozen=True, slots=True)
class RateCurve:
    """A kinked interest curve: parts of one a year, at a utilisation in [0, 1].

    Attributes
    ----------
    optimal
        Utilisation at the kink, inside (0, 1).
    base, slope1, slope2
        Rate at zero utilisation, what is added up to the kink, and from there to full utilisation.
    """

    optimal: float
    base: float
    slope1: float
    slope2: float


@dataclass(frozen=True, slots=True)
class Reserve:
    """One token of one lending venue.

    Attributes
    ----------
    token
        Symbol.
    ltv_bps, liquidation_threshold_bps
        What may be borrowed against it, and where liquidation begins; 0 when it is no collateral.
    liquidation_bonus_bps
        What a liquidator gets above the debt repaid: 500 is five per cent.
    protocol_fee_bps
        Part of the bonus that the protocol takes.
    reserve_factor_bps
        Part of the interest that the protocol takes.
    rate
        Interest curve.
    idle_supply
        Tokens supplied by others than the book's accounts, lent out or not: who may run.
    reserves
        Tokens that the protocol holds against losses.
    outside_debt
        Tokens owed by others than the book's accounts; they count in utilisation and never default.
    supply_cap, borrow_cap
        Whole tokens; None without a cap.
    """

    token: str
    ltv_bps: int
    liquidation_threshold_bps: int
    liquidation_bonus_bps: int
    rate: RateCurve
    protocol_fee_bps: int = 0
    reserve_factor_bps: int = 0
    idle_supply: float = 0.0
    reserves: float = 0.0
    outside_debt: float = 0.0
    supply_cap: float | None = None
    borrow_cap: float | None = None


@dataclass(frozen=True, slots=True)
class EMode:
    """A category of tokens that move together, with limits of its own (Aave V3).

    Attributes
    ----------
    id
        Positive; 0 is no category.
    tokens
        Its members: what counts with its limits as collateral.
    ltv_bps, liquidation_threshold_bps, liquidation_bonus_bps
        Instead of those of the reserves.
    borrowable
        What accounts in it may borrow (V3.2 and later keep a list of its own); None for its members.
    """

    id: int
    tokens: tuple[str, ...]
    ltv_bps: int
    liquidation_threshold_bps: int
    liquidation_bonus_bps: int
    borrowable: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class LendingVenue:
    """A lending pool whose accounts are judged on all they have in it, or one isolated market.

    Attributes
    ----------
    name
        Its name in the book, for example ``aave`` or ``morpho-weth-usdc``.
    kind
        Whose rules hold: ``aave-v2``, ``aave-v3``, ``aave-v3.6``, ``morpho-blue``, ``compound-v3``.
    reserves
        Its tokens. A Morpho Blue market has two, the loan token last; its threshold is the LLTV. Of Compound
        III the token that it lends is the last and no collateral; of the others the bonus is what an absorbed
        account loses above its debt, 1 / liquidationFactor - 1, and the protocol's fee on it 1 less the store
        front's price factor: what the buyer of the collateral does not get.
    emodes
        Categories; empty for protocols without.
    target_reserves
        Of Compound III: tokens that it lends which its own reserves have to reach before it sells no more of
        what it has absorbed (`targetReserves`); None sells whatever they are.
    """

    name: str
    kind: str
    reserves: tuple[Reserve, ...]
    emodes: tuple[EMode, ...] = ()
    target_reserves: float | None = None

    def reserve(self, token: str) -> Reserve:
        """Return the reserve of `token`; KeyError when it is not listed."""
        for reserve in self.reserves:
            if reserve.token == token:
                return reserve
        raise KeyError(token)


@dataclass(frozen=True, slots=True)
class PerpVenue:
    """A venue of perpetual futures with one margin token and an insurance fund.

    Attributes
    ----------
    name
        Its name in the book.
    margin_token
        What margin is posted in.
    maintenance_margin
        By token: part of the notional below which an account's equity is liquidated.
    initial_margin
        By token: part of the notional that opening asks for.
    liquidation_fee
        Part of the notional that goes to the insurance fund.
    insurance
        The fund, in margin tokens.
    skew_scale
        By token: size in tokens at which the premium is one; empty without.
    """

    name: str
    margin_token: str
    maintenance_margin: Mapping[str, float]
    initial_margin: Mapping[str, float]
    liquidation_fee: float = 0.0
    insurance: float = 0.0
    skew_scale: Mapping[str, float] = field(default_factory=dict)


class Side(IntEnum):
    """Of a lending position."""

    COLLATERAL = 0
    DEBT = 1


@dataclass(frozen=True, slots=True)
class LendingColumns:
    """Lending positions, one row each, sorted by venue, wallet, side and token.

    Attributes
    ----------
    wallet, venue, token
        int32 indices into the book's wallets, lending venues and tokens, shape (n,).
    side
        int8, values of `Side`.
    amount
        float64, whole tokens, positive.
    emode
        int32, the account's category in that venue, the same on all of its rows; 0 without.
    """

    wallet: Int32
    venue: Int32
    token: Int32
    side: Int8
    amount: Float64
    emode: Int32

    def __len__(self) -> int:
        return len(self.wallet)


@dataclass(frozen=True, slots=True)
class PerpColumns:
    """Positions in perpetual futures, one row each, and the margin of their accounts.

    Attributes
    ----------
    wallet, venue, token
        int32 indices into the book's wallets, perp venues and tokens, shape (n,).
    size
        float64, tokens, negative when short.
    entry
        float64, US dollars.
    margin_wallet, margin_venue
        int32, shape (m,): the accounts; every position's account is among them.
    margin
        float64, margin tokens, shape (m,).
    """

    wallet: Int32
    venue: Int32
    token: Int32
    size: Float64
    entry: Float64
    margin_wallet: Int32
    margin_venue: Int32
    margin: Float64

    def __len__(self) -> int:
        return len(self.wallet)


@dataclass(frozen=True, slots=True)
class OptionColumns:
    """European options, one row each; a dealer's book counts by its net gamma.

    Attributes
    ----------
    wallet, token
        int32 indices into the book's wallets and tokens, shape (n,).
    expiry
        float64, unix seconds.
    strike, size, volatility
        float64: US dollars, contracts of one token (negative when written), yearly implied volatility.
    is_call
        int8, 1 for a call.
    """

    wallet: Int32
    token: Int32
    expiry: Float64
    strike: Float64
    size: Float64
    volatility: Float64
    is_call: Int8

    def __len__(self) -> int:
        return len(self.wallet)


@dataclass(frozen=True, slots=True)
class ExitLiquidity:
    """What a sale of a token costs, as a table with a date.

    Attributes
    ----------
    token, quote
        What is sold, and for what; symbols.
    venue
        Where, for reports.
    date
        ISO date of the measurement.
    source
        Where the figures come from: a file, a chain at a block, a model.
    size
        Whole tokens sold at once, rising, positive, shape (k,).
    slippage
        Loss against the price before, as a part of one in [0, 1), not falling, shape (k,).
    """

    token: str
    quote: str
    venue: str
    date: str
    source: str
    size: Float64
    slippage: Float64


_I32 = np.empty(0, dtype=np.int32)
_I8 = np.empty(0, dtype=np.int8)
_F64 = np.empty(0, dtype=np.float64)

NO_PERPS = PerpColumns(_I32, _I32, _I32, _F64, _F64, _I32, _I32, _F64)
NO_OPTIONS = OptionColumns(_I32, _I32, _F64, _F64, _F64, _F64, _I8)


@dataclass(frozen=True, slots=True)
class SharedBook:
    """Accounts over all protocols at one moment.

    Attributes
    ----------
    tokens
        All tokens that occur.
    lending, perps
        Venues.
    wallets
        Who holds positions: addresses, or names in a generated book. A wallet is one owner over all venues.
    positions
        Lending positions.
    perp_positions, options
        Likewise; empty without.
    exits
        What sales cost.
    block, timestamp
        When; block 0 off chain.
    source
        Where the book comes from: a file's sha256, a chain at a block, or a generator with its seed.
    unknown
        Accounts that were found on a chain and could not be read, as ``venue:wallet``. Their positions are in
        none of the columns, and nobody knows whether they are healthy.
    """

    tokens: tuple[Token, ...]
    lending: tuple[LendingVenue, ...]
    wallets: tuple[str, ...]
    positions: LendingColumns
    perps: tuple[PerpVenue, ...] = ()
    perp_positions: PerpColumns = NO_PERPS
    options: OptionColumns = NO_OPTIONS
    exits: tuple[ExitLiquidity, ...] = ()
    block: int = 0
    timestamp: int = 0
    source: str = ""
    unknown: tuple[str, ...] = ()

    def token_index(self) -> dict[str, int]:
        """Return the index of every token by its symbol."""
        return {token.symbol: i for i, token in enumerate(self.tokens)}


def raw_units(amount: float, decimals: int) -> int:
    """Return whole tokens as token units, rounded down, from the exact value of the float."""
    return int(Fraction(amount) * 10**decimals)
