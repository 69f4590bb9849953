"""G10, G23, G24 and G26: whether chain, market and liquidators can do their part now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from oracle.guards import GuardModel, guards
from oracle.interfaces import FeedContext, MarketStatus
from oracle.types import Finding, GuardAction, NoData, PriceObs, Reading


@guards.register("sequencer")
class SequencerGuard(GuardModel):
    """G10: the sequencer of a layer 2 is down, or not long enough up again.

    Needs the uptime feed: answer 0 is up, and the time is that of the last change; a time of zero is a feed
    that was never set (`ArbitrumSequencerUptimeFeed`, `PriceOracleSentinel` of Aave).

    Attributes
    ----------
    grace_s
        How long after an outage prices and accounts are given; 3600, Chainlink's example, so that borrowers
        can act before they are acted on.
    """

    kind: ClassVar[Literal["sequencer"]] = "sequencer"
    id: ClassVar[str] = "G10"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-Defi-Oracle-4",)
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.PAUSE, GuardAction.PAUSE_LIQUIDATIONS})

    grace_s: int = Field(default=3_600, ge=0)

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge by `context.sequencer`, also without a reading."""
        facts = context.sequencer
        if facts is None:
            return self._not_applicable(reading, "no uptime feed known")
        up_s = context.now - facts.started_at
        inputs = {"answer": facts.answer, "started_at": facts.started_at, "now": context.now}
        if facts.answer != 0 or facts.started_at == 0:
            said = "the sequencer is down" if facts.answer != 0 else "the uptime feed was never set"
            return self._verdict(reading, True, said, f"answer {facts.answer}", "answer 0", inputs)
        return self._verdict(
            reading,
            up_s <= self.grace_s,
            f"up for {up_s} s, grace {self.grace_s} s",
            f"{up_s} s",
            f"> {self.grace_s} s",
            inputs,
        )


@guards.register("latency")
class LatencyGuard(GuardModel):
    """G23: the price could be picked, or is used before it can be disputed.

    Needs the price's time, and when the action was ordered or how old a price must be. A price that was made
    before the order can be chosen among several; one that is younger than its dispute window can be a lie.
    """

    kind: ClassVar[Literal["latency"]] = "latency"
    id: ClassVar[str] = "G23"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-Defi-Oracle-10",)
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.REJECT})

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by `context.execution` and `context.now`."""
        if isinstance(reading, NoData):
            return self._not_applicable(reading, "no price")
        facts = context.execution
        if facts is None or (facts.ordered_at is None and facts.min_delay_s is None):
            return self._not_applicable(reading, "time of the order and dispute window unknown")
        if reading.published_at is None:
            return self._not_applicable(reading, "the source carries no time")
        age_s = context.now - reading.published_at
        wrong = []
        if facts.ordered_at is not None and reading.published_at < facts.ordered_at:
            wrong.append(f"made {facts.ordered_at - reading.published_at} s before the order")
        if facts.min_delay_s is not None and age_s < facts.min_delay_s:
            wrong.append(f"{age_s} s old, may be disputed for {facts.min_delay_s} s")
        inputs = {
            "published_at": reading.published_at,
            "ordered_at": facts.ordered_at,
            "min_delay_s": facts.min_delay_s,
            "now": context.now,
        }
        said = "; ".join(wrong) or "made after the order and past its dispute window"
        limit = f">= {facts.min_delay_s} s, ordered at {facts.ordered_at}"
        return self._verdict(reading, bool(wrong), said, f"{age_s} s", limit, inputs)


@guards.register("liquidators")
class LiquidatorsGuard(GuardModel):
    """G24: nobody can liquidate: gas costs too much, inventory is short, or nobody else bids.

    Needs, for an `OK`, the base fee and the cap on it, the inventory and the need, and the number of bidders.

    Attributes
    ----------
    min_bidders
        Least number of bidders; 2, since a single one bids zero.
    """

    kind: ClassVar[Literal["liquidators"]] = "liquidators"
    id: ClassVar[str] = "G24"
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.PAUSE})

    min_bidders: int = Field(default=2, ge=1)

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge by `context.liveness`, also without a reading."""
        facts = context.liveness
        if facts is None:
            return self._not_applicable(reading, "liquidators unknown")
        wrong = []
        fee, cap = facts.base_fee_wei, facts.fee_cap_wei
        if fee is not None and cap is not None and fee > cap:
            wrong.append(f"base fee {fee} wei above the cap {cap}")
        stock, need = facts.inventory_usd, facts.needed_usd
        if stock is not None and need is not None and stock < need:
            wrong.append(f"inventory {stock} USD of {need} needed")
        if facts.bidders is not None and facts.bidders < self.min_bidders:
            wrong.append(f"{facts.bidders} bidders")
        if not wrong and None in (fee, cap, stock, need, facts.bidders):
            return self._not_applicable(reading, "fees, inventory or bidders unknown")
        inputs = {
            "base_fee_wei": fee,
            "fee_cap_wei": cap,
            "inventory_usd": stock,
            "needed_usd": need,
            "bidders": facts.bidders,
        }
        said = "; ".join(wrong) or "liquidators can act"
        return self._verdict(
            reading, bool(wrong), said, facts.bidders, f">= {self.min_bidders} bidders", inputs
        )


@guards.register("market_closed")
class MarketClosedGuard(GuardModel):
    """G26: the market of a real-world asset is closed, and its last price is not one to trade at.

    Needs the market's status as the report states it; an unknown one is not open. No threshold.
    """

    kind: ClassVar[Literal["market_closed"]] = "market_closed"
    id: ClassVar[str] = "G26"
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.REJECT, GuardAction.PAUSE})

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by `context.market_status`."""
        if isinstance(reading, NoData):
            return self._not_applicable(reading, "no price")
        status = context.market_status
        if status is None:
            return self._not_applicable(reading, "the source states no market status")
        said = f"the market is {status}"
        return self._verdict(
            reading, status is not MarketStatus.OPEN, said, status, "open", {"market_status": status}
        )
