"""Aave's capped rate on chain."""

from __future__ import annotations

from typing import ClassVar, Final, Literal, cast

from contracts_abi.calls import function
from oracle.mechanisms.capo import CapoFeed, CapoStableFeed
from oracle.mechanisms.wrapping import raw
from simulation.chain.artifacts import own
from simulation.chain.plays.rigs import Quiet, Site, rigs
from simulation.chain.plays.rigs.leaves import deploy_leaf
from simulation.chain.plays.stage import OWNER

SET_CAP_PARAMETERS: Final = function("setCapParameters(uint104,uint48,uint16)")


@rigs.register("capo")
class CapoRig(Quiet):
    """A capped rate over its base feed: the rate is posted live, the cap is the contract's."""

    kind: ClassVar[Literal["capo"]] = "capo"

    def __init__(self, site: Site) -> None:
        self._site = site
        self._model = model = cast("CapoFeed", site.model)
        self.decimals = model.decimals
        (pair,) = model.pairs(site.name)
        self._rates = [raw(rate, model.ratio_decimals) for rate in site.world.seen[pair]]
        self._rate = deploy_leaf(site.stage, f"{pair} rate", model.ratio_decimals, self._rates[0])
        base = (
            deploy_leaf(site.stage, "1", model.decimals, 10**model.decimals).source
            if model.base_feed is None
            else site.sources[model.base_feed]
        )
        self._written = model.parameters(site.world, site.stage.now)
        self.source = site.stage.create(
            own("CapoFeed").creation_code(
                *(base, self._rate.source, model.ratio_decimals, 0),
                self._written.snapshot_ratio,
                self._written.snapshot_at,
                self._written.growth_bps_year,
            )
        )

    def step(self, i: int) -> None:
        """Post the rate of the moment, and write the cap's parameters when an updater does."""
        self._rate.post(self._rates[i])
        wanted = self._model.parameters(self._site.world, self._site.world.steps[i])
        if wanted != self._written:
            self._site.stage.act(
                OWNER,
                self.source,
                SET_CAP_PARAMETERS,
                wanted.snapshot_ratio,
                wanted.snapshot_at,
                wanted.growth_bps_year,
            )
            self._written = wanted


@rigs.register("capo_stable")
class CapoStableRig(Quiet):
    """A stablecoin's price under a cap that was written when it was deployed."""

    kind: ClassVar[Literal["capo_stable"]] = "capo_stable"

    def __init__(self, site: Site) -> None:
        model = cast("CapoStableFeed", site.model)
        self.decimals = model.decimals
        code = own("StableCapFeed").creation_code(
            site.sources[model.base_feed], raw(model.cap, model.decimals)
        )
        self.source = site.stage.create(code)
