"""G20 and G25: who sets the price, and whether every market can still be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from oracle.guards import GuardModel, guards
from oracle.interfaces import FeedContext
from oracle.types import Finding, GuardAction, NoData, PriceObs, Reading


@guards.register("authority")
class AuthorityGuard(GuardModel):
    """G20: somebody can set the price who was not attested, or the feed is no longer the one that was.

    Needs what changed since the feed was attested, or who can set the price and who may. No threshold.
    """

    kind: ClassVar[Literal["authority"]] = "authority"
    id: ClassVar[str] = "G20"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-Defi-Oracle-9",)
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.PAUSE})

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by `context.authority`."""
        if isinstance(reading, NoData):
            return self._not_applicable(reading, "no price")
        facts = context.authority
        if facts is None:
            return self._not_applicable(reading, "who sets the price is unknown")
        strangers = sorted((facts.setters or frozenset()) - (facts.attested or frozenset()))
        known = facts.setters is not None and facts.attested is not None
        wrong = [*facts.changes, *(f"{who} was not attested" for who in strangers if known)]
        if not wrong and not known:
            return self._not_applicable(reading, "who sets the price, or who may, is unknown")
        inputs = {"changes": len(facts.changes), "setters": ", ".join(sorted(facts.setters or ()))}
        said = "; ".join(wrong) or "set by those who may"
        return self._verdict(reading, bool(wrong), said, len(wrong), 0, inputs)


@guards.register("market_unreadable")
class MarketUnreadableGuard(GuardModel):
    """G25: the oracle reverts for one market of the protocol, which stops whoever holds a position in it.

    Needs which markets could be read. No threshold: one that reverts freezes its accounts.
    """

    kind: ClassVar[Literal["market_unreadable"]] = "market_unreadable"
    id: ClassVar[str] = "G25"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-Defi-Oracle-11",)
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.PAUSE})

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge by `context.markets`, also without a reading."""
        if not context.markets:
            return self._not_applicable(reading, "which markets can be read is unknown")
        broken = sorted(name for name, readable in context.markets.items() if not readable)
        said = f"no price for {', '.join(broken)}" if broken else "every market can be read"
        return self._verdict(reading, bool(broken), said, len(broken), 0, {"markets": len(context.markets)})
