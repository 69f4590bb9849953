"""Policies of what a venue takes in and whom it believes: caps, thresholds, guards, circuit breaker."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from contracts_abi.errors import InputError
from simulation.contagion.channels.breaker import BreakerChannel
from simulation.contagion.channels.oracle import OracleGuards
from simulation.contagion.engine import Run
from simulation.contagion.policies import Policy, policies, replace_channel


@policies.register("supply-cap")
class SupplyCap(Policy):
    """A cap on a collateral, as if it had held from the beginning: accounts that use it are scaled down.

    All accounts of the venue that have the token as collateral keep their shape and shrink, collateral and
    debt alike, until the token's sum is at the cap.

    Attributes
    ----------
    token
        The collateral.
    cap
        Whole tokens.
    """

    kind: ClassVar[Literal["supply-cap"]] = "supply-cap"

    token: str
    cap: Annotated[float, Field(ge=0)]

    def apply(self, run: Run) -> Run:
        """Return the run with the smaller book."""
        world = run.world
        a, tokens = world.token(self.token), len(world.tokens)
        coll, debt, cash = world.coll.copy(), world.debt.copy(), world.cash.copy()
        for v in np.flatnonzero(self.picked(world)):
            at = v * tokens + a
            rows = ((world.coll_at == at) & (world.coll > 0.0)).any(axis=1)
            total = float(world.coll[world.coll_at == at].sum())
            if total <= self.cap:
                continue
            part = self.cap / total
            np.add.at(cash, world.coll_at[rows].ravel(), -(1.0 - part) * coll[rows].ravel())
            np.add.at(cash, world.debt_at[rows].ravel(), (1.0 - part) * debt[rows].ravel())
            coll[rows] *= part
            debt[rows] *= part
        if (cash < -1e-9 * (1.0 + world.cash)).any():
            raise InputError(
                f"supply-cap of {self.token}: others have borrowed what would be withdrawn",
                fix="a higher cap, or more idle_supply in the book",
            )
        return replace(run, world=replace(world, coll=coll, debt=debt, cash=np.maximum(cash, 0.0)))


@policies.register("threshold-shift")
class ThresholdShift(Policy):
    """Other liquidation thresholds: all collateral of a venue, or one token.

    Attributes
    ----------
    shift_bps
        Added to each threshold; it stays within [0, 10000].
    token
        One collateral only; all when None.
    """

    kind: ClassVar[Literal["threshold-shift"]] = "threshold-shift"

    shift_bps: float
    token: str | None = None

    def apply(self, run: Run) -> Run:
        """Return the run with these thresholds."""
        world = run.world
        at = self.picked(world)[world.row_venue][:, None] & (world.lt > 0.0)
        if self.token is not None:
            at = at & (world.coll_at % len(world.tokens) == world.token(self.token))
        moved = np.clip(world.lt + self.shift_bps / 1e4, 0.0, 1.0)
        return replace(run, world=replace(world, lt=np.where(at, moved, world.lt)))


@policies.register("oracle-guards")
class Guards(Policy):
    """Guards of the oracle channel: a price that they refuse is not liquidated on.

    Attributes
    ----------
    guards
        What they ask, keys below; without any, all guards are off.
    """

    kind: ClassVar[Literal["oracle-guards"]] = "oracle-guards"

    guards: OracleGuards = OracleGuards()

    def apply(self, run: Run) -> Run:
        """Return the run with these guards."""
        if self.venues:
            raise InputError("oracle-guards hold for all venues", fix="leave venues out")
        changed = replace_channel(run, "oracle", lambda c: c.model_copy(update={"guards": self.guards}))
        return replace(run, channels=changed)


@policies.register("circuit-breaker")
class CircuitBreaker(Policy):
    """Liquidations of a venue pause after a price has moved too far too fast.

    Attributes
    ----------
    move_bps
        Move of any listed token's price within the window that trips it.
    window_steps
        The window.
    pause_steps
        How long liquidations pause.
    """

    kind: ClassVar[Literal["circuit-breaker"]] = "circuit-breaker"

    move_bps: Annotated[float, Field(gt=0)]
    window_steps: Annotated[int, Field(ge=1)] = 5
    pause_steps: Annotated[int, Field(ge=1)] = 30

    def apply(self, run: Run) -> Run:
        """Return the run with the breaker."""
        self.picked(run.world)
        breaker = BreakerChannel(
            move_bps=self.move_bps,
            window_steps=self.window_steps,
            pause_steps=self.pause_steps,
            venues=self.venues,
        )
        others = tuple(channel for channel in run.channels if channel.kind != breaker.kind)
        return replace(run, channels=(*others, breaker))
