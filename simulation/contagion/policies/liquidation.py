"""Policies of how a venue liquidates: close factor, bonus, halt, delay."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from contracts_abi.errors import InputError
from simulation.contagion.engine import Run
from simulation.contagion.policies import Policy, policies
from simulation.contagion.world import COMPOUND_V3


@policies.register("close-factor")
class CloseFactor(Policy):
    """Another part of the debt that one liquidation may repay.

    Attributes
    ----------
    close_factor
        Part of the debt that one liquidation may repay, in (0, 1].
    full_below
        Health factor at and below which all may be repaid; the venue's own when None.
    """

    kind: ClassVar[Literal["close-factor"]] = "close-factor"

    close_factor: Annotated[float, Field(gt=0, le=1)]
    full_below: Annotated[float, Field(ge=0, le=1)] | None = None

    def apply(self, run: Run) -> Run:
        """Return the run with this close factor.

        Raises
        ------
        InputError
            For a venue, called by its name, where all may be repaid at any health factor.
        """
        rules, at = run.world.rules, self.picked(run.world)
        whole = at & (rules.full_below == np.inf)
        if self.venues and self.full_below is None and whole.any():
            name = run.world.venues[int(np.flatnonzero(whole)[0])]
            raise InputError(
                f"close-factor: {name} lets all of a debt be repaid",
                fix="say full_below as well, for example 0.95",
            )
        below = (
            rules.full_below if self.full_below is None else np.where(at, self.full_below, rules.full_below)
        )
        changed = rules._replace(
            close_factor=np.where(at, self.close_factor, rules.close_factor), full_below=below
        )
        return replace(run, world=run.world.with_rules(changed))


@policies.register("bonus")
class Bonus(Policy):
    """Another liquidation bonus for all collateral of a venue.

    Attributes
    ----------
    bonus_bps
        What a liquidator gets above the debt repaid; in Compound III what an absorbed account loses above its
        debt, as in the book.
    """

    kind: ClassVar[Literal["bonus"]] = "bonus"

    bonus_bps: Annotated[float, Field(ge=0, le=5_000)]

    def apply(self, run: Run) -> Run:
        """Return the run with this bonus."""
        world, bonus = run.world, self.bonus_bps / 1e4
        by_venue = np.where(world.rules.kind == COMPOUND_V3, bonus / (1.0 + bonus), bonus)
        own = np.where(world.lt > 0.0, by_venue[world.row_venue][:, None], 0.0)
        at = self.picked(world)[world.row_venue]
        return replace(run, world=replace(world, bonus=np.where(at[:, None], own, world.bonus)))


@policies.register("bonus-curve")
class BonusCurve(Policy):
    """A bonus that grows with how far an account has fallen (a reverse Dutch auction, as Euler V2 has it).

    Attributes
    ----------
    slope
        Bonus per unit that the health factor is below 1.
    cap_bps
        Largest bonus; the reserve's own bounds it too.
    """

    kind: ClassVar[Literal["bonus-curve"]] = "bonus-curve"

    slope: Annotated[float, Field(gt=0)] = 1.0
    cap_bps: Annotated[float, Field(gt=0, le=5_000)] = 1_500.0

    def apply(self, run: Run) -> Run:
        """Return the run with this curve."""
        rules, at = run.world.rules, self.picked(run.world)
        changed = rules._replace(
            bonus_slope=np.where(at, self.slope, rules.bonus_slope),
            bonus_cap=np.where(at, self.cap_bps / 1e4, rules.bonus_cap),
        )
        return replace(run, world=run.world.with_rules(changed))


@policies.register("dynamic-bonus")
class DynamicBonus(Policy):
    """A bonus that never exceeds what the collateral has above the debt, so that no account is made worse.

    At a loan-to-value L the bonus is at most ``1 / L - 1``: a liquidation there leaves L where it is.

    Attributes
    ----------
    venues
        Names of the lending venues that it holds for; all when empty.
    """

    kind: ClassVar[Literal["dynamic-bonus"]] = "dynamic-bonus"

    def apply(self, run: Run) -> Run:
        """Return the run with this bonus."""
        rules, at = run.world.rules, self.picked(run.world)
        changed = rules._replace(solvent_bonus=np.where(at, 1, rules.solvent_bonus))
        return replace(run, world=run.world.with_rules(changed))


@policies.register("halt-toxic")
class HaltToxic(Policy):
    """Nobody is liquidated above the toxic threshold ``1 / (1 + bonus)`` of the loan-to-value.

    Attributes
    ----------
    venues
        Names of the lending venues that it holds for; all when empty.
    """

    kind: ClassVar[Literal["halt-toxic"]] = "halt-toxic"

    def apply(self, run: Run) -> Run:
        """Return the run with the halt."""
        rules, at = run.world.rules, self.picked(run.world)
        changed = rules._replace(halt_toxic=np.where(at, 1, rules.halt_toxic))
        return replace(run, world=run.world.with_rules(changed))


@policies.register("liquidation-delay")
class LiquidationDelay(Policy):
    """An account has to be below 1 for a while before anybody may liquidate it.

    Attributes
    ----------
    steps
        How long, in steps.
    """

    kind: ClassVar[Literal["liquidation-delay"]] = "liquidation-delay"

    steps: Annotated[int, Field(ge=0)]

    def apply(self, run: Run) -> Run:
        """Return the run with the delay."""
        rules, at = run.world.rules, self.picked(run.world)
        changed = rules._replace(delay_steps=np.where(at, self.steps, rules.delay_steps))
        return replace(run, world=run.world.with_rules(changed))
