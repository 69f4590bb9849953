"""A product of feeds on chain, and what becomes of it when a leg is forgotten."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal

from contracts_abi.calls import Function, function
from contracts_abi.feeds import LATEST_ANSWER
from simulation.chain.artifacts import own
from simulation.chain.plays.rigs import Site, rigs
from simulation.chain.plays.stage import OWNER

SET_LEGS: Final = function("set_legs(address[])")

_MISSING_LEG: Final = "missing_leg"


@rigs.register("composite")
class CompositeRig:
    """A contract that multiplies its legs; its owner leaves one out while an act says so."""

    kind: ClassVar[Literal["composite"]] = "composite"
    early: ClassVar[bool] = False
    answer: ClassVar[Function] = LATEST_ANSWER

    def __init__(self, site: Site) -> None:
        self._site = site
        self.decimals = site.model.decimals
        self._named = self._legs(site.stage.now)
        addresses = [site.sources[leg] for leg in self._named]
        self.source = site.stage.create(own("ProductFeed").creation_code(self.decimals, addresses))

    def step(self, i: int) -> None:
        """Name other legs, if they are others now."""
        legs = self._legs(self._site.world.steps[i])
        if legs != self._named:
            addresses = [self._site.sources[leg] for leg in legs]
            self._site.stage.act(OWNER, self.source, SET_LEGS, addresses)
            self._named = legs

    def costs(self) -> tuple[str, ...]:
        """Return nothing: nobody trades against it."""
        return ()

    def _legs(self, t: int) -> tuple[str, ...]:
        acts: list[Any] = [act for act in self._site.world.acts if act.kind == _MISSING_LEG and act.active(t)]
        missing = {act.leg for act in acts}
        return tuple(leg for leg in self._site.model.feeds() if leg not in missing)
