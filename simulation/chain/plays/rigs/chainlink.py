"""Chainlink's push feeds on chain: an aggregator that keeps its operator's rule, behind a proxy."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from contracts_abi import feeds
from simulation.chain.artifacts import own
from simulation.chain.plays.rigs import Quiet, Site, rigs
from simulation.chain.plays.rigs.leaves import WIDEST
from simulation.chain.plays.stage import OWNER


@rigs.register("chainlink")
class ChainlinkRig(Quiet):
    """An aggregator behind a proxy: it says when a round is due, and refuses or clamps at its bounds."""

    kind: ClassVar[Literal["chainlink"]] = "chainlink"

    def __init__(self, site: Site) -> None:
        model: Any = site.model
        self._stage = site.stage
        self.decimals = model.decimals
        (pair,) = model.pairs(site.name)
        self._answers = [round(price * 10**model.decimals) for price in site.world.seen[pair]]
        low = WIDEST[0] if model.min_answer is None else model.min_answer
        high = WIDEST[1] if model.max_answer is None else model.max_answer
        description = (model.description or site.name)[:64]
        self._aggregator = site.stage.create(
            own("PriceAggregator").creation_code(
                model.decimals, description, model.heartbeat_s, model.deviation_bps, low, high
            )
        )
        if model.on_bound == "clamp":
            site.stage.act(OWNER, self._aggregator, feeds.SET_BOUNDS, low, high, True)
        self.source = site.stage.create(own("PriceFeed").creation_code(self._aggregator))

    def step(self, i: int) -> None:
        """Post what the providers see, if the aggregator calls for a round; it may refuse it."""
        answer = self._answers[i]
        if self._stage.read(feeds.DUE.call(self._aggregator, answer)):
            self._stage.attempt(OWNER, self._aggregator, feeds.TRANSMIT, answer)
