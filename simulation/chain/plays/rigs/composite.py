"""A product of feeds and rates on chain, and what becomes of it when a leg is forgotten."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal, cast

from contracts_abi.calls import function
from contracts_abi.errors import InputError
from oracle.mechanisms.composite import CompositeFeed
from oracle.mechanisms.wrapping import raw
from simulation.chain.artifacts import own
from simulation.chain.plays.rigs import Quiet, Site, rigs
from simulation.chain.plays.rigs.leaves import deploy_leaf
from simulation.chain.plays.stage import OWNER

SET_LEGS: Final = function("set_legs(address[])")

_MISSING_LEG: Final = "missing_leg"
_RATE_DECIMALS: Final = 18


@rigs.register("composite")
class CompositeRig(Quiet):
    """A contract that multiplies its legs; its owner leaves one out while an act says so."""

    kind: ClassVar[Literal["composite"]] = "composite"

    def __init__(self, site: Site) -> None:
        model = cast("CompositeFeed", site.model)
        if model.derive_from is not None:
            raise InputError(f"feed {site.name} follows another at a ratio, and no rig does", fix="use legs")
        self._site = site
        self.decimals = model.decimals
        self._rates = {
            pair: [raw(rate, _RATE_DECIMALS) for rate in site.world.seen[pair]] for pair in model.rates
        }
        self._leaves = {
            pair: deploy_leaf(site.stage, pair, _RATE_DECIMALS, rates[0])
            for pair, rates in self._rates.items()
        }
        self._addresses = {feed: site.sources[feed] for feed in model.legs}
        self._addresses |= {pair: leaf.source for pair, leaf in self._leaves.items()}
        self._named = self._legs(site.stage.now)
        self.source = site.stage.create(own("ProductFeed").creation_code(self.decimals, self._named))

    def step(self, i: int) -> None:
        """Post the rates, and name other legs if they are others now."""
        for pair, leaf in self._leaves.items():
            leaf.post(self._rates[pair][i])
        legs = self._legs(self._site.world.steps[i])
        if legs != self._named:
            self._site.stage.act(OWNER, self.source, SET_LEGS, legs)
            self._named = legs

    def _legs(self, t: int) -> list[str]:
        acts: list[Any] = [act for act in self._site.world.acts if act.kind == _MISSING_LEG and act.active(t)]
        missing = {act.leg for act in acts}
        return [address for leg, address in self._addresses.items() if leg not in missing]
