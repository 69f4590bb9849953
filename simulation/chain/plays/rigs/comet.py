"""Compound's feeds over feeds on chain."""

from __future__ import annotations

from typing import ClassVar, Literal, cast

from contracts_abi.calls import Function
from contracts_abi.errors import InputError
from contracts_abi.feeds import LATEST_ROUND_DATA
from oracle.mechanisms.comet import MultiplicativeFeed, ScalingFeed
from simulation.chain.artifacts import own
from simulation.chain.plays.rigs import Quiet, Site, rigs


class _Rounds(Quiet):
    """What answers whole rounds only."""

    answer: ClassVar[Function] = LATEST_ROUND_DATA
    word: ClassVar[int] = 1


@rigs.register("comet_scaling")
class ScalingRig(_Rounds):
    """A contract that tells another feed's rounds at its own scale."""

    kind: ClassVar[Literal["comet_scaling"]] = "comet_scaling"

    def __init__(self, site: Site) -> None:
        model = cast("ScalingFeed", site.model)
        self.decimals = model.decimals
        code = own("ScalingFeed").creation_code(site.sources[model.base_feed], model.decimals)
        self.source = site.stage.create(code)


@rigs.register("comet_multiplicative")
class MultiplicativeRig(_Rounds):
    """A contract that multiplies two feeds and tells the time of the second."""

    kind: ClassVar[Literal["comet_multiplicative"]] = "comet_multiplicative"

    def __init__(self, site: Site) -> None:
        model = cast("MultiplicativeFeed", site.model)
        if model.reverse:
            raise InputError(f"feed {site.name} divides, and no rig does")
        self.decimals = model.decimals
        a, b = (site.sources[feed] for feed in (model.feed_a, model.feed_b))
        code = own("MultiplicativeFeed").creation_code(a, b, model.decimals, site.name[:64])
        self.source = site.stage.create(code)
