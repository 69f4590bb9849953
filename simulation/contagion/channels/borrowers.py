"""Borrowers: some of those who come near to liquidation act before keepers do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numba
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from contracts_abi.errors import InputError
from simulation.contagion.batch import Batch, Channel
from simulation.contagion.channels import channels
from simulation.contagion.channels.keepers import layout_of
from simulation.contagion.draws import uniform
from simulation.contagion.scan import Scanner, touch
from simulation.contagion.settle import Layout, account_values
from simulation.contagion.state import Total
from simulation.contagion.world import World
from simulation.types import Bool, Float64, Int32, Int64

_CHANNEL, _CHANNEL_MEANS = 2, 3
_DELEVERAGED = int(Total.DELEVERAGED)


@dataclass(slots=True)
class _Memo:
    scanner: Scanner
    layout: Layout


@channels.register("borrowers")
class BorrowersChannel(Channel):
    """Reactions with a hazard that grows as the health factor falls below a warning.

    An account at health factor h reacts within a step of dt seconds with probability
    ``1 - exp(-hazard * (warning - h) * dt / 3600)``. With probability `means` its owner has money elsewhere
    and repays out of it; the others sell collateral and repay with the proceeds. Both aim at `target`:
    repaying needs ``debt - have / target``, selling ``(target * debt - have) / (target - threshold)``, where
    ``have`` is the weighted collateral. Whether an owner has means is drawn once for the whole path.

    Off, nobody reacts.

    Attributes
    ----------
    on
        The switch.
    warning
        Health factor below which owners begin to react.
    target
        Health factor that they aim at.
    hazard
        Reactions an hour per unit of distance from the warning.
    means
        Part of the owners with money elsewhere.
    most_gas
        Part of what is moved that gas may cost; owners for whom it would cost more do nothing.
    """

    kind: ClassVar[Literal["borrowers"]] = "borrowers"
    order: ClassVar[int] = 55

    warning: Annotated[float, Field(gt=1)] = 1.1
    target: Annotated[float, Field(gt=1)] = 1.25
    hazard: Annotated[float, Field(gt=0)] = 5.0
    means: Annotated[float, Field(ge=0, le=1)] = 0.5
    most_gas: Annotated[float, Field(gt=0)] = 0.02

    def check(self, world: World) -> None:
        """Refuse a target below the warning."""
        if self.target < self.warning:
            raise InputError(
                f"channels.borrowers: target {self.target:g} is below warning {self.warning:g}",
                fix="aim at least at the warning",
            )

    def prepare(self, batch: Batch) -> _Memo:
        """Return buffers."""
        return _Memo(Scanner(batch.world, batch.state.paths), layout_of(batch.world))

    def act(self, batch: Batch, memo: _Memo) -> None:
        """Let owners react."""
        state = batch.state
        memo.scanner.scan(state, self.warning)
        if not memo.scanner.count.any():
            return
        _react(
            batch.step,
            batch.dt_s / 3_600.0,
            self.warning,
            self.target,
            self.hazard,
            self.means,
            self.most_gas,
            state.keys,
            memo.scanner.found,
            memo.scanner.health,
            memo.scanner.count,
            memo.layout,
            batch.world.lt,
            batch.gas_usd,
            state.coll,
            state.debt,
            state.supply_index,
            state.borrow_index,
            state.oracle,
            state.market,
            state.cash,
            state.supplied,
            state.borrowed,
            state.order_flow,
            state.sold,
            state.bought,
            state.totals,
            state.anchor.dirty,
            state.anchor.dirty_list,
            state.anchor.dirty_count,
        )


@numba.njit(cache=True)
def _react(
    step: int,
    hours: float,
    warning: float,
    target: float,
    hazard: float,
    means: float,
    most_gas: float,
    keys: NDArray[np.uint64],
    found: Int32,
    health: Float64,
    count: Int64,
    layout: Layout,
    lt: Float64,
    gas_usd: Float64,
    coll: Float64,
    debt: Float64,
    supply_index: Float64,
    borrow_index: Float64,
    oracle: Float64,
    market: Float64,
    cash: Float64,
    supplied: Float64,
    borrowed: Float64,
    order_flow: Float64,
    sold: Float64,
    bought: Float64,
    totals: Float64,
    dirty: Bool,
    dirty_list: Int32,
    dirty_count: Int64,
) -> None:
    for p in range(coll.shape[0]):
        for k in range(count[p]):
            i, h = found[p, k], health[p, k]
            chance = -np.expm1(-hazard * (warning - h) * hours)
            if uniform(keys[p], _CHANNEL, step, i) >= chance:
                continue
            v = layout.row_venue[i]
            offset = v * layout.tokens
            have, owe = account_values(
                i, layout, coll[p], debt[p], supply_index[p], borrow_index[p], oracle[p]
            )
            if have <= 0.0 or owe <= 0.0:
                continue
            weighted = h * owe
            threshold = weighted / have
            if uniform(keys[p], _CHANNEL_MEANS, 0, i) < means:
                repaid_part, sold_part = (owe - weighted / target) / owe, 0.0
            else:
                usd = (target * owe - weighted) / (target - threshold)
                if usd <= 0.0 or usd > min(have, owe):
                    continue
                repaid_part, sold_part = usd / owe, usd / have
            if repaid_part <= 0.0 or gas_usd[p] > most_gas * repaid_part * owe:
                continue
            enough = True
            for c in range(coll.shape[2]):
                r = layout.coll_at[i, c]
                enough &= coll[p, i, c] * supply_index[p, r] * sold_part <= cash[p, r]
            if not enough:
                continue
            for c in range(coll.shape[2]):
                r = layout.coll_at[i, c]
                out = coll[p, i, c] * sold_part
                tokens = out * supply_index[p, r]
                coll[p, i, c] -= out
                supplied[p, r] -= out
                cash[p, r] -= tokens
                sold[p, r - offset] += tokens
                order_flow[p, r - offset] -= tokens * market[p, r - offset]
            for d in range(debt.shape[2]):
                r = layout.debt_at[i, d]
                back = debt[p, i, d] * repaid_part
                tokens = back * borrow_index[p, r]
                debt[p, i, d] -= back
                borrowed[p, r] -= back
                cash[p, r] += tokens
                bought[p, r - offset] += tokens
                if sold_part > 0.0:
                    # What comes from elsewhere is there; what was sold buys the debt back on the market.
                    order_flow[p, r - offset] += tokens * market[p, r - offset]
            totals[p, v, _DELEVERAGED] += repaid_part * owe
            touch(p, v, i, layout.venue_ptr[v], dirty, dirty_list, dirty_count)
