"""Morpho's oracle on chain, deployed with the token decimals that its deployer stated."""

from __future__ import annotations

from typing import ClassVar, Final, Literal, cast

from contracts_abi.calls import Function, function
from oracle.mechanisms.morpho_chainlink import MorphoChainlinkFeed
from oracle.sources.morpho_chainlink import ORACLE_DECIMALS
from simulation.chain.artifacts import own
from simulation.chain.plays.rigs import Quiet, Site, rigs

PRICE: Final = function("price()(uint256)")


@rigs.register("morpho_chainlink")
class MorphoChainlinkRig(Quiet):
    """Morpho's oracle over its feeds; nothing happens to it after it is deployed."""

    kind: ClassVar[Literal["morpho_chainlink"]] = "morpho_chainlink"
    answer: ClassVar[Function] = PRICE

    def __init__(self, site: Site) -> None:
        model = cast("MorphoChainlinkFeed", site.model)
        stated = (model.stated_base_decimals, model.stated_quote_decimals)
        base, quote = (
            real if said is None else said
            for said, real in zip(stated, (model.base_decimals, model.quote_decimals), strict=True)
        )
        self.decimals = ORACLE_DECIMALS + model.quote_decimals - model.base_decimals
        self.source = site.stage.create(
            own("MorphoOracle").creation_code(
                [site.sources[feed] for feed in model.base_feeds],
                [site.sources[feed] for feed in model.quote_feeds],
                base,
                quote,
            )
        )
