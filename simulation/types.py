"""The values that margin, planning and liquidation pass on, with their units.

Names with a unit suffix are exact integers (`_raw` token units, `_base` the protocol's base currency at its
own scale, `_wad` 1e18, `_ray` 1e27, `_bps` 1e4, `_e8` 1e8). Floats have no suffix and screen only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float64: TypeAlias = NDArray[np.float64]
Int64: TypeAlias = NDArray[np.int64]
Int32: TypeAlias = NDArray[np.int32]
Int8: TypeAlias = NDArray[np.int8]
Bool: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Asset:
    """A token of a market.

    Attributes
    ----------
    symbol
        Name used in snapshots, configuration and reports.
    address
        Checksummed token address; empty off chain.
    decimals
        Token decimals: 1 token = 10**decimals raw.
    """

    symbol: str
    address: str
    decimals: int


class PositionKind(IntEnum):
    """What a position is. Lending has the first two; later margin methods add theirs."""

    COLLATERAL = 0
    DEBT = 1
    SPOT = 2


Position: TypeAlias = tuple[int, int, float, float]
"""One position in a book: index of the asset, value of `PositionKind`, amount in whole tokens and weight."""


@dataclass(frozen=True, slots=True)
class Book:
    """Positions of many accounts over all protocols, as flat arrays in compressed-row form.

    A row is one account in one protocol. Row ``i`` owns the positions ``row_ptr[i]:row_ptr[i + 1]``.

    Attributes
    ----------
    accounts
        Account of each row, checksummed, length n.
    protocols
        Names of the protocols that occur; `protocol` indexes them.
    assets
        Assets that occur; `asset` indexes them.
    protocol
        int32, shape (n,).
    row_ptr
        int64, shape (n + 1,).
    asset
        int32, shape (nnz,).
    kind
        int8, shape (nnz,), values of `PositionKind`.
    amount
        float64, shape (nnz,), whole tokens, never negative.
    weight
        float64, shape (nnz,): liquidation threshold of a collateral (0 when it does not count), 1 of a debt.
    block, timestamp
        The block that the book was read at, and its time in unix seconds.
    exact
        The exact integer state of each row, decoded on demand by the protocol's adapter; ``exact[i]``
        is None for a row that could not be decoded, and that row is unknown.
    known
        bool, shape (n,): whether ``exact[i]`` is not None, so that nobody has to decode all to find out.
    """

    accounts: Sequence[str]
    protocols: tuple[str, ...]
    assets: tuple[Asset, ...]
    protocol: Int32
    row_ptr: Int64
    asset: Int32
    kind: Int8
    amount: Float64
    weight: Float64
    block: int
    timestamp: int
    exact: Sequence[Any] = field(repr=False)
    known: Bool

    def __len__(self) -> int:
        return len(self.accounts)

    @classmethod
    def of_positions(
        cls,
        protocol: str,
        assets: tuple[Asset, ...],
        accounts: Sequence[str],
        exact: Sequence[Any],
        positions: Sequence[Sequence[Position] | None],
        *,
        block: int,
        timestamp: int,
    ) -> Book:
        """Return the book of one protocol's accounts from each one's positions.

        Parameters
        ----------
        exact
            Exact state of each account; kept where the account is known.
        positions
            Of each account, in any order; None for one that is unknown: it has no positions in the book.
        """
        columns = [position for row in positions for position in row or ()]
        asset, kind, amount, weight = zip(*columns, strict=True) if columns else ((), (), (), ())
        row_ptr = np.zeros(len(accounts) + 1, dtype=np.int64)
        np.cumsum([len(row or ()) for row in positions], out=row_ptr[1:])
        return cls(
            accounts=tuple(accounts),
            protocols=(protocol,),
            assets=assets,
            protocol=np.zeros(len(accounts), dtype=np.int32),
            row_ptr=row_ptr,
            asset=np.array(asset, dtype=np.int32),
            kind=np.array(kind, dtype=np.int8),
            amount=np.array(amount, dtype=np.float64),
            weight=np.array(weight, dtype=np.float64),
            block=block,
            timestamp=timestamp,
            exact=tuple(
                state if row is not None else None for state, row in zip(exact, positions, strict=True)
            ),
            known=np.array([row is not None for row in positions], dtype=np.bool_),
        )


class MarginStatus(StrEnum):
    """The state of an account. `UNKNOWN` is a state of its own and never healthy."""

    HEALTHY = "healthy"
    LIQUIDATABLE = "liquidatable"
    NO_DEBT = "no_debt"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class MarginReport:
    """What a margin method says of one account, exactly.

    Attributes
    ----------
    account, protocol, method
        Whose margin, where, and by which method id.
    block, timestamp
        The block and unix time of positions and prices.
    status
        See `MarginStatus`.
    collateral_base, debt_base
        Value of all collateral and all debt in the protocol's base currency.
    maintenance_base
        Maintenance requirement in base currency: the account is liquidatable when its equity is below it.
        For a lending account: collateral value not counted by the liquidation threshold.
    initial_base
        Initial requirement in base currency: what a new borrow is held against.
    health_factor_wad
        Health factor at 1e18, 2**256 - 1 without debt; None for methods without one or when unknown.
    base_decimals
        Scale of the `_base` fields.
    components
        The method's own parts under its venue's names; the unit is the suffix of the name.
    reason
        Why the status is what it is, one line.
    """

    account: str
    protocol: str
    method: str
    block: int
    timestamp: int
    status: MarginStatus
    collateral_base: int | None
    debt_base: int | None
    maintenance_base: int | None
    initial_base: int | None
    health_factor_wad: int | None
    base_decimals: int
    components: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""

    @classmethod
    def unknown(
        cls,
        account: str,
        protocol: str,
        method: str,
        *,
        block: int,
        timestamp: int,
        base_decimals: int,
        reason: str,
    ) -> MarginReport:
        """Return the report of an account of which nothing can be said, and why."""
        return cls(
            account=account,
            protocol=protocol,
            method=method,
            block=block,
            timestamp=timestamp,
            status=MarginStatus.UNKNOWN,
            collateral_base=None,
            debt_base=None,
            maintenance_base=None,
            initial_base=None,
            health_factor_wad=None,
            base_decimals=base_decimals,
            reason=reason,
        )

    @property
    def equity_base(self) -> int | None:
        """Collateral less debt in base currency, None when unknown."""
        if self.collateral_base is None or self.debt_base is None:
            return None
        return self.collateral_base - self.debt_base


@dataclass(frozen=True, slots=True)
class SwapHop:
    """One pool of a swap path, in the direction of the swap."""

    pool: str
    token_in: str
    token_out: str
    fee_pips: int


@dataclass(frozen=True, slots=True)
class LiquidationPlan:
    """One liquidation that pays, worked out before anybody is asked to sign it.

    Attributes
    ----------
    account, protocol
        Whom to liquidate, and where.
    debt_asset, collateral_asset
        Token addresses.
    debt_to_cover_raw
        The amount passed to the contract and borrowed for it, in debt token units: the most debt that is
        repaid. A contract may repay a little less, where all of the collateral goes.
    seized_raw
        Collateral that the liquidator receives after the protocol's fee, in collateral token units.
    full
        Whether the debt in that asset is repaid whole.
    path
        Swap of the seized collateral into the debt asset; empty when they are the same, or from inventory.
    flash_premium_raw
        Flash-loan fee in debt token units; 0 from inventory.
    proceeds_raw
        What the swap is expected to pay, in debt token units; from inventory, what it would pay.
    profit_raw
        Proceeds less debt repaid less premium, before gas, in debt token units.
    gas_units
        Gas that the transaction is expected to use.
    gas_cost_raw
        Gas cost in debt token units at the fee assumed.
    min_profit_raw
        Least profit that the contract enforces, in debt token units.
    impact_bps
        Price impact and pool fees of the swap against the protocol's prices, in basis points.
    from_inventory
        Whether own funds repay the debt and the collateral is kept.
    """

    account: str
    protocol: str
    debt_asset: str
    collateral_asset: str
    debt_to_cover_raw: int
    seized_raw: int
    full: bool
    path: tuple[SwapHop, ...]
    flash_premium_raw: int
    proceeds_raw: int
    profit_raw: int
    gas_units: int
    gas_cost_raw: int
    min_profit_raw: int
    impact_bps: int
    from_inventory: bool = False

    @property
    def net_profit_raw(self) -> int:
        """Profit after gas, in debt token units."""
        return self.profit_raw - self.gas_cost_raw


class Action(StrEnum):
    """What a policy wants done with an account now."""

    ACT = "act"
    ARM = "arm"
    HOLD = "hold"
    LEAVE = "leave"


class Reason(StrEnum):
    """Why an account was or was not acted on. One code per decision, the same in journal and report."""

    LIQUIDATE = "liquidate"
    HEALTHY = "healthy"
    NO_DEBT = "no_debt"
    UNPROFITABLE = "unprofitable"
    PROTOCOL_PRICE_LOW = "protocol_price_wrongly_low"
    PROTOCOL_PRICE_STALE_HIGH = "protocol_price_stale_high"
    REFERENCE_UNKNOWN = "reference_unknown"
    PROTOCOL_UNKNOWN = "protocol_unknown"
    ACCOUNT_UNKNOWN = "account_unknown"
    NO_COLLATERAL = "no_collateral"
    NO_ROUTE = "no_route"
    SIMULATION_FAILED = "simulation_failed"
    PAUSED = "paused"
    LIMIT = "limit"
    DUPLICATE = "already_in_flight"
    OBSERVE_ONLY = "observe_only"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A policy's decision on one account, with what it was based on.

    Attributes
    ----------
    account
        Whom it concerns.
    action, reason
        What to do, and the one code that says why.
    protocol_margin, reference_margin
        The same account at the protocol's prices and at the reference prices; the latter None without one.
    detail
        One line for people.
    """

    account: str
    action: Action
    reason: Reason
    protocol_margin: MarginReport
    reference_margin: MarginReport | None
    detail: str
