"""Liquity's price feed in a scenario; the state machine is `oracle.sources.liquity.fetch_price`."""

from __future__ import annotations

from typing import ClassVar, Literal

from oracle.interfaces import FeedContext
from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.mechanisms.wrapping import names_of, wrapped
from oracle.sources.liquity import (
    TARGET_DIGITS,
    TELLOR_DIGITS,
    ChainlinkResponse,
    LiquityState,
    Reverted,
    Status,
    TellorResponse,
    fetch_price,
)
from oracle.types import FeedKind, NoData, PriceObs, Reading


@mechanisms.register("liquity")
class LiquityFeed(FeedModel):
    """Liquity's price feed: fetched at each step from Chainlink, from Tellor, or from memory.

    The first step deploys it: Chainlink has to work then. The round before the first is taken to be there
    and to say the same.

    Attributes
    ----------
    role, pair
        As of every feed.
    decimals
        Not used: the price has 18.
    chainlink_feed
        Feed with rounds.
    tellor_feed
        Feed that stands for Tellor's value, told at 6 digits; without one Tellor is broken.
    """

    kind: ClassVar[Literal["liquity"]] = "liquity"

    chainlink_feed: str
    tellor_feed: str | None = None

    def feeds(self) -> tuple[str, ...]:
        """Return Chainlink's and Tellor's feed."""
        return (self.chainlink_feed,) if self.tellor_feed is None else (self.chainlink_feed, self.tellor_feed)

    def pairs(self, name: str) -> tuple[str, ...]:
        """Return nothing: the feeds behind see the market."""
        return ()

    def play(self, name: str, world: World) -> Played:
        """Return what ``fetchPrice`` returns at each step."""
        names = names_of(self, name)
        chainlink = world.played[self.chainlink_feed]
        tellor = None if self.tellor_feed is None else world.played[self.tellor_feed]
        rounds: dict[tuple[int, ...], ChainlinkResponse] = {}
        state: LiquityState | None = None
        readings: list[Reading] = []
        contexts: list[FeedContext] = []
        for i, (t, block) in enumerate(zip(world.steps, world.blocks, strict=True)):
            under = chainlink.readings[i]
            now, before = _response(under), _previous(under, rounds)
            value = TellorResponse() if tellor is None else _value(tellor.readings[i])
            try:
                if state is None and not now.bad(t):
                    state = LiquityState(Status.CHAINLINK_WORKING, now.price)
                state = None if state is None else fetch_price(state, now, before, value, t)
            except Reverted as error:
                readings.append(NoData(*names, t, f"fetchPrice() reverts: {error}", block))
            else:
                readings.append(_fetched(names, state, now, value, t, block))
            note = None if state is None else f"Liquity: {state.status.name.lower()}"
            contexts.append(wrapped(chainlink.contexts[i], description=note))
        return Played(name, tuple(readings), tuple(contexts))


def _fetched(
    names: tuple[str, str, str],
    state: LiquityState | None,
    chainlink: ChainlinkResponse,
    tellor: TellorResponse,
    t: int,
    block: int,
) -> Reading:
    if state is None:
        return NoData(*names, t, "not set up: Chainlink has to work first", block)
    base, quote, source_id = names
    return PriceObs(
        base,
        quote,
        state.last_good_price,
        TARGET_DIGITS,
        FeedKind.PUSH,
        source_id,
        published_at=_time(state.last_good_price, chainlink, tellor),
        observed_at=t,
        block=block,
    )


def _response(reading: Reading) -> ChainlinkResponse:
    if isinstance(reading, NoData):
        return ChainlinkResponse()
    round_id = 1 if reading.round_key is None else reading.round_key[-1]
    return ChainlinkResponse(
        round_id, reading.mantissa, reading.published_at or 0, success=True, decimals=reading.decimals
    )


def _previous(reading: Reading, rounds: dict[tuple[int, ...], ChainlinkResponse]) -> ChainlinkResponse:
    """Return the round before, and remember this one. The first round of a later phase has none before it."""
    now = _response(reading)
    if isinstance(reading, NoData) or reading.round_key is None:
        return now
    key = reading.round_key
    rounds.setdefault(key, now)
    same_phase = [seen for seen in rounds if seen[:-1] == key[:-1] and seen < key]
    if same_phase:
        return rounds[max(same_phase)]
    deployed_on = next(iter(rounds))
    return now if key == deployed_on or key[-1] > 1 else ChainlinkResponse()


def _value(reading: Reading) -> TellorResponse:
    if isinstance(reading, NoData):
        return TellorResponse()
    value = max(0, reading.scaled(TELLOR_DIGITS))
    return TellorResponse(value, reading.published_at or 0, success=True)


def _time(price: int, chainlink: ChainlinkResponse, tellor: TellorResponse) -> int | None:
    """Return the time of the source whose price it is; the last good price has none that can be told."""
    if chainlink.success and chainlink.answer > 0 and chainlink.price == price:
        return chainlink.timestamp
    return tellor.timestamp if tellor.success and tellor.price == price else None
