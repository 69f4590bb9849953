"""What a contract is asked for, so that a plan made at one block still holds in the next.

A plan is exact for the head it was made on. Until it is mined the protocol's price moves, and two protocols
refuse a request that fitted the old one:

- Aave V3.6 leaves no dust. A debt that just takes all of the collateral leaves some when the price has risen
  since, and by rounding even when it has not; half of a small position does when it has fallen, since then
  the other half may be repaid too and must. Asked for more the pool takes no more than there is.
- Morpho Blue takes what it is told, by shares or by collateral, and panics where the other side is short: all
  of the debt when the collateral has fallen below it, all of the collateral when it has risen above the debt.

So the first is asked for more than it is to take. How much more is what prices did at the last heads: in a
calm market next to nothing, in a crash most of a step. Of the second our own contract asks, by what it finds
when it runs (``vyper/Liquidator.vy``, ``_request``), and the plan goes there as it was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from contracts_abi.liquidator import Venue
from keeper.markets import LendingProtocol
from simulation.fixed_point import BPS, MAX_UINT256
from simulation.liquidation import Outcome
from simulation.protocols.aave_v3_6 import AaveV36
from simulation.protocols.aave_v3_6.liquidation_logic import MIN_BASE_MAX_CLOSE_FACTOR_THRESHOLD
from simulation.protocols.morpho_blue import MorphoBlue
from simulation.types import Asset, LiquidationPlan

LEAST_ROOM_BPS: Final = 100
"""Room that is left for the price to move until the next block, in a calm market;"""
MOST_ROOM_BPS: Final = 1_500
"""and at most, since a flash loan's premium is paid on it."""
ROOM_HEADS: Final = 4
"""Heads that are remembered for it."""
_FURTHER_BPS: Final = 15_000
"""The next step may be half as large again as the largest of those."""

SHARED_GAS: Final = 120_000
"""Gas of adding a market's interest on Morpho. The first liquidation of a block in a market pays it, and a
simulation of several says nothing of who that will be when they are mined."""


_DUST: Final = "MustNotLeaveDust"
_LEAST_DEBT_RAW: Final = 10**6
_LARGEST_DEBT_RAW: Final = 2**128


def room_bps(heads: Sequence[Mapping[str, int]]) -> int:
    """Return how much room the last heads call for.

    Parameters
    ----------
    heads
        Prices of a market by symbol at consecutive heads, oldest first.
    """
    largest = 0
    for before, after in pairwise(heads):
        for symbol in before.keys() & after.keys():
            if before[symbol]:
                largest = max(largest, abs(after[symbol] - before[symbol]) * BPS // before[symbol])
    return min(max(largest * _FURTHER_BPS // BPS, LEAST_ROOM_BPS), MOST_ROOM_BPS)


def gas_room(adapter: LendingProtocol) -> int:
    """Return gas that a transaction may need beyond its simulation, for work that another did there."""
    return SHARED_GAS if isinstance(adapter, MorphoBlue) else 0


@dataclass(frozen=True, slots=True)
class Planned:
    """A market as it is planned in: a size that just takes all of the collateral is one that can be had.

    Parameters
    ----------
    adapter
        The market.
    room_bps
        How far the price may move; see `room_bps`.
    """

    adapter: LendingProtocol
    room_bps: int = LEAST_ROOM_BPS

    @property
    def name(self) -> str:
        """The market's name."""
        return self.adapter.name

    @property
    def venue(self) -> Venue:
        """See `simulation.liquidation.Executable`."""
        return self.adapter.venue

    @property
    def liquidation_gas(self) -> int:
        """See `simulation.liquidation.Executable`."""
        return self.adapter.liquidation_gas

    def liquidator_calldata(self, plan: LiquidationPlan, *, intent_id: bytes, deadline_block: int) -> bytes:
        """See `simulation.liquidation.Executable`."""
        return self.adapter.liquidator_calldata(plan, intent_id=intent_id, deadline_block=deadline_block)

    def assets(self, market: Any) -> tuple[Asset, ...]:
        """Return the market's assets."""
        return self.adapter.assets(market)

    def liquidation_pairs(self, market: Any, account: Any) -> Sequence[tuple[str, str]]:
        """Return pairs of debt and collateral token that `account` can be liquidated in."""
        return self.adapter.liquidation_pairs(market, account)

    def liquidation_quote(
        self, market: Any, account: Any, debt_asset: str, collateral_asset: str, debt_to_cover_raw: int
    ) -> Outcome:
        """Return what the call does; asked for with room where the exact amount is refused.

        That is for what it leaves. Only where the pool then takes no more than the amount. Where the pool
        refuses to take as much as it may, since that leaves dust, the most is what leaves enough.
        """
        pair = (debt_asset, collateral_asset)
        outcome = self.adapter.liquidation_quote(market, account, *pair, debt_to_cover_raw)
        if outcome.revert_code is None:
            return outcome
        if debt_to_cover_raw >= MAX_UINT256:
            return self._part(market, account, *pair) if outcome.revert_code == _DUST else outcome
        again = self.adapter.liquidation_quote(
            market, account, *pair, with_room(debt_to_cover_raw, LEAST_ROOM_BPS)
        )
        taken = again.revert_code is None and again.debt_repaid_raw <= debt_to_cover_raw
        return again if taken else outcome

    def _part(self, market: Any, account: Any, debt_asset: str, collateral_asset: str) -> Outcome:
        """Return the most that leaves enough on both sides, also when the collateral's price has fallen."""
        symbol = next(a.symbol for a in self.adapter.assets(market) if a.address == collateral_asset)
        prices = dict(self.adapter.prices_base(market))
        if symbol in prices:
            prices[symbol] = prices[symbol] * (BPS - self.room_bps) // BPS
        fallen = market.with_prices(prices)

        def takes(amount_raw: int) -> bool:
            pair = (account, debt_asset, collateral_asset, amount_raw)
            outcomes = [self.adapter.liquidation_quote(state, *pair) for state in (market, fallen)]
            return all(o.revert_code is None and o.debt_repaid_raw == amount_raw for o in outcomes)

        # Of less than the least rounding may make nothing at all.
        accepted, refused = 0, _LEAST_DEBT_RAW
        # From below: what leaves enough with more repaid does with less, so both ends close in on the edge.
        while refused <= _LARGEST_DEBT_RAW and takes(refused):
            accepted, refused = refused, 2 * refused
        while refused - accepted > max(accepted // BPS, 1):
            middle = (accepted + refused) // 2
            accepted, refused = (middle, refused) if takes(middle) else (accepted, middle)
        amount_raw = accepted * (BPS - LEAST_ROOM_BPS) // BPS
        return self.adapter.liquidation_quote(market, account, debt_asset, collateral_asset, amount_raw)

    def flash_loan_premium(self, market: Any, amount_raw: int) -> int:
        """Return the premium of a flash loan, in token units."""
        return self.adapter.flash_loan_premium(market, amount_raw)

    def flash_loan_limit(self, market: Any, asset: str) -> int:
        """Return the most that can be borrowed in a flash loan, in token units."""
        return self.adapter.flash_loan_limit(market, asset)


@dataclass(frozen=True, slots=True)
class Asked:
    """One account's liquidation as it is asked for (`simulation.liquidation.Executable`).

    Parameters
    ----------
    adapter
        The market.
    market, account
        The states that the plan was made on.
    room_bps
        How far the price may move; see `room_bps`.
    funds_raw
        What there is to pay with from inventory, in debt token units, which is the most that is asked for;
        None for no limit.
    """

    adapter: LendingProtocol
    market: Any
    account: Any
    room_bps: int = LEAST_ROOM_BPS
    funds_raw: int | None = None

    @property
    def venue(self) -> Venue:
        """See `simulation.liquidation.Executable`."""
        return self.adapter.venue

    @property
    def liquidation_gas(self) -> int:
        """See `simulation.liquidation.Executable`."""
        return self.adapter.liquidation_gas

    def liquidator_calldata(self, plan: LiquidationPlan, *, intent_id: bytes, deadline_block: int) -> bytes:
        """Return our Liquidator's calldata for what is asked for in place of `plan`."""
        return self.adapter.liquidator_calldata(
            self.asked(plan), intent_id=intent_id, deadline_block=deadline_block
        )

    def asked(self, plan: LiquidationPlan) -> LiquidationPlan:
        """Return the plan with the amounts that the contract is asked for."""
        return self._of_aave(plan) if isinstance(self.adapter, AaveV36) else plan

    def _of_aave(self, plan: LiquidationPlan) -> LiquidationPlan:
        assert isinstance(self.adapter, AaveV36)
        most = self.adapter.liquidation_quote(
            self.market, self.account, plan.debt_asset, plan.collateral_asset, MAX_UINT256
        )
        if most.revert_code is not None or most.debt_repaid_raw != plan.debt_to_cover_raw or most.full:
            # A part on purpose, or the whole debt, of which there cannot be more.
            return plan
        if most.collateral_exhausted:
            asked_raw = with_room(plan.debt_to_cover_raw, self.room_bps)
        elif self._nearly_whole():
            asked_raw = 2 * plan.debt_to_cover_raw + 1
        else:
            return plan
        if not plan.from_inventory:
            asked_raw = min(asked_raw, self.adapter.flash_loan_limit(self.market, plan.debt_asset))
        elif self.funds_raw is not None:
            asked_raw = min(asked_raw, self.funds_raw)
        return replace(plan, debt_to_cover_raw=max(asked_raw, plan.debt_to_cover_raw))

    def _nearly_whole(self) -> bool:
        """Whether a price that moves takes the position to where all may be repaid, and half leaves dust."""
        report = self.adapter.margin(self.market, self.account, self.market.prices_base)
        if report.debt_base is None:
            return False
        return report.debt_base * (BPS - self.room_bps) < MIN_BASE_MAX_CLOSE_FACTOR_THRESHOLD * BPS


def with_room(amount_raw: int, room: int) -> int:
    """Return an amount with `room` basis points on top, a unit more at least."""
    return amount_raw + amount_raw * room // BPS + 1
