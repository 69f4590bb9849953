"""A price that somebody wrote down, on chain: an aggregator to which nobody posts again."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from oracle.mechanisms.wrapping import raw
from simulation.chain.plays.rigs import Quiet, Site, rigs
from simulation.chain.plays.rigs.leaves import deploy_leaf


@rigs.register("constant")
class ConstantRig(Quiet):
    """A number, posted once."""

    kind: ClassVar[Literal["constant"]] = "constant"

    def __init__(self, site: Site) -> None:
        model: Any = site.model
        self.decimals = site.model.decimals
        self.source = deploy_leaf(
            site.stage, site.name, self.decimals, raw(model.value, self.decimals)
        ).source
