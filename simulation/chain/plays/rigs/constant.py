"""A price that somebody wrote down, on chain: an aggregator to which nobody posts again."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from contracts_abi.calls import Function
from contracts_abi.feeds import LATEST_ANSWER
from oracle.mechanisms.wrapping import raw
from simulation.chain.plays.rigs import Site, rigs
from simulation.chain.plays.rigs.leaves import deploy_leaf


@rigs.register("constant")
class ConstantRig:
    """A number, posted once."""

    kind: ClassVar[Literal["constant"]] = "constant"
    early: ClassVar[bool] = False
    answer: ClassVar[Function] = LATEST_ANSWER

    def __init__(self, site: Site) -> None:
        model: Any = site.model
        self.decimals = site.model.decimals
        self.source = deploy_leaf(
            site.stage, site.name, self.decimals, raw(model.value, self.decimals)
        ).source

    def step(self, i: int) -> None:
        """Do nothing."""

    def costs(self) -> tuple[str, ...]:
        """Return nothing: nobody trades against it."""
        return ()
