"""Policies: what a protocol team may change, each a small function from a run to a run, chosen by name.

Two runs with the same seed and another policy share every price and every draw: what differs is the policy's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from contracts_abi.errors import InputError
from oracle.registry import Registry
from oracle.strict import StrictModel
from simulation.contagion.engine import Run
from simulation.contagion.world import World
from simulation.types import Bool

policies: Registry[type[Any]] = Registry("policy", "simulation.contagion.policies")


class Policy(StrictModel):
    """The base of all policies.

    Attributes
    ----------
    venues
        Names of the lending venues that it holds for; all when empty.
    """

    kind: ClassVar[str]

    venues: Annotated[tuple[str, ...], Field()] = ()

    def apply(self, run: Run) -> Run:
        """Return the run under this policy."""
        raise NotImplementedError

    def picked(self, world: World) -> Bool:
        """Return which venues it holds for, shape (V,).

        Raises
        ------
        UnknownNameError
            When one is not in the book.
        """
        if not self.venues:
            return np.ones(len(world.venues), dtype=np.bool_)
        chosen = {world.venue(name) for name in self.venues}
        return np.array([v in chosen for v in range(len(world.venues))])


def build_policy(table: Mapping[str, Any], where: str = "policy") -> Policy:
    """Return a policy from its table.

    Raises
    ------
    InputError
        For an unknown kind or key, or a value outside its bounds.
    """
    built: Policy = policies.build(table, where=where)
    return built


def apply_policies(run: Run, chosen: Sequence[Policy]) -> Run:
    """Return a run under several policies, one after another."""
    for policy in chosen:
        run = policy.apply(run)
    return run


def replace_channel(run: Run, kind: str, build: Any) -> tuple[Any, ...]:
    """Return a run's channels with the one of a kind replaced by ``build(channel)``.

    Raises
    ------
    InputError
        When the run has no such channel.
    """
    if all(channel.kind != kind for channel in run.channels):
        raise InputError(f"policy: the scenario has no channel {kind}", fix=f"add [channels.{kind}]")
    return tuple(build(channel) if channel.kind == kind else channel for channel in run.channels)
