"""Feeds that we post to ourselves: rates, and whatever stands for a market that nobody manipulates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from contracts_abi import feeds
from contracts_abi.calls import Function
from simulation.chain.artifacts import own
from simulation.chain.plays.stage import OWNER, PRICE_DECIMALS, Stage

WIDEST: Final = (-(2**191), 2**191 - 1)
"""Bounds of an aggregator that has none."""


@dataclass(slots=True)
class Leaf:
    """An aggregator that tells the last number posted to it.

    Attributes
    ----------
    stage, source
        Where it is.
    last
        What it tells; None before the first post.
    """

    stage: Stage
    source: str
    last: int | None = None

    def post(self, answer: int) -> None:
        """Post a number, unless it tells that already."""
        if answer != self.last:
            self.stage.act(OWNER, self.source, feeds.TRANSMIT, answer)
            self.last = answer


def deploy_leaf(stage: Stage, description: str, decimals: int, answer: int) -> Leaf:
    """Deploy a leaf that tells `answer`."""
    code = own("PriceAggregator").creation_code(decimals, description[:64], 1, 1, *WIDEST)
    leaf = Leaf(stage, stage.create(code))
    leaf.post(answer)
    return leaf


def at_eight(stage: Stage, source: str, answer: Function, word: int, decimals: int) -> str:
    """Return a contract whose ``latestAnswer()`` has eight decimals; the source itself if it has."""
    if decimals == PRICE_DECIMALS and answer == feeds.LATEST_ANSWER:
        return source
    return stage.create(own("AnswerAdapter").creation_code(source, answer.selector, word, decimals))
