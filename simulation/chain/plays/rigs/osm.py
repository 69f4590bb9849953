"""Maker's delayed price on chain: poked at every step at which a turn has passed."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal

from contracts_abi.calls import Function, function
from contracts_abi.feeds import LATEST_ANSWER
from simulation.chain.artifacts import own
from simulation.chain.plays.rigs import Quiet, Site, rigs
from simulation.chain.plays.stage import OWNER

READ: Final = function("read()(bytes32)")
PASSED: Final = function("passed()(bool)")
POKE: Final = function("poke()")

DECIMALS: Final = 18


@rigs.register("osm")
class OsmRig(Quiet):
    """The delay in front of its source; whoever wants to may poke, and somebody always does."""

    kind: ClassVar[Literal["osm"]] = "osm"
    answer: ClassVar[Function] = READ

    def __init__(self, site: Site) -> None:
        model: Any = site.model
        self._stage = site.stage
        self.decimals = DECIMALS
        (source,) = (site.sources[feed] for feed in model.feeds())
        # History had poked it before: both prices are what the source says now.
        price = site.stage.read(LATEST_ANSWER.call(source))
        turn = site.stage.now - site.stage.now % model.hop_s
        code = own("Osm").creation_code(source, model.hop_s, price, price, turn)
        self.source = site.stage.create(code)

    def step(self, i: int) -> None:
        """Poke, if a turn has passed."""
        if self._stage.read(PASSED.call(self.source)):
            self._stage.act(OWNER, self.source, POKE)
