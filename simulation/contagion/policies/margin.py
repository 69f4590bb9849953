"""Policy of the margin method: thresholds give way to scenarios over the whole account."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from contracts_abi.errors import InputError
from simulation.contagion.engine import Run
from simulation.contagion.metrics import backed_by, is_dollar
from simulation.contagion.policies import Policy, policies
from simulation.contagion.world import World
from simulation.types import Float64


@policies.register("portfolio-margin")
class PortfolioMargin(Policy):
    """An account has to be solvent in every scenario, instead of holding a threshold on each collateral.

    The scenarios move all tokens that US dollars do not back together, and each of them alone, by every one
    of the moves; what they back moves along. Stables move alone by `depeg`, down. The health factor is the
    least ratio of collateral to debt over the scenarios, so collateral and debt in tokens that move together
    offset each other: it frees capital where correlations hold, and falls short where they do not.

    Attributes
    ----------
    moves
        Parts of the price, for example -0.2 and 0.2.
    depeg
        Part that a stable loses in its scenario; 0 without.
    """

    kind: ClassVar[Literal["portfolio-margin"]] = "portfolio-margin"

    moves: Annotated[tuple[float, ...], Field(min_length=1)] = (-0.2, 0.2)
    depeg: Annotated[float, Field(ge=0, lt=1)] = 0.03

    def apply(self, run: Run) -> Run:
        """Return the run under these scenarios.

        Raises
        ------
        InputError
            For a move of -1 or less.
        """
        if min(self.moves) <= -1.0:
            raise InputError(f"portfolio-margin: a move of {min(self.moves):g}", fix="above -1")
        world, at = run.world, self.picked(run.world)
        by_token = scenario_factors(world, self.moves, self.depeg)
        tokens = len(world.tokens)
        factors = np.ones((len(by_token), len(world.cash)))
        for v in np.flatnonzero(at):
            factors[:, v * tokens : (v + 1) * tokens] = by_token
        counted = at[world.row_venue][:, None] & (world.lt > 0.0)
        return replace(run, world=replace(world, shocks=factors, lt=np.where(counted, 1.0, world.lt)))


def scenario_factors(world: World, moves: tuple[float, ...], depeg: float) -> Float64:
    """Return the price factors of all scenarios, shape (S, A); the first one moves nothing."""
    count = len(world.tokens)
    risky = [a for a in range(count) if not is_dollar(world, a)]
    # What is backed by another risky token moves with it and has no scenario of its own.
    own = [a for a in risky if world.book.tokens[a].backing is None]
    rows = [np.ones(count)]
    for move in moves:
        together = np.ones(count)
        together[risky] = 1.0 + move
        rows.append(together)
        for a in own:
            alone = np.ones(count)
            alone[[b for b in risky if backed_by(world, b, a)]] = 1.0 + move
            rows.append(alone)
    if depeg > 0.0:
        for a in range(count):
            if is_dollar(world, a):
                alone = np.ones(count)
                alone[a] = 1.0 - depeg
                rows.append(alone)
    return np.unique(np.array(rows), axis=0)
