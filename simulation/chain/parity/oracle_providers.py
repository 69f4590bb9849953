"""Parity of the sources of Pyth and of Maker's delayed price.

Pyth is compared with the mock that its authors ship: it stores and answers as the contract does, and takes
prices without signatures. Maker's module is compared with ours (``contracts_abi/vyper/Osm.vy``), which plays
on the local chain use; npm ships none.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Final, Literal

import numpy as np
from eth_abi.abi import encode as abi_encode

from contracts_abi.calls import function
from oracle.interfaces import AuthorityFacts
from oracle.sources.maker import Delayed, OsmSource, may_poke, poke
from oracle.sources.pyth import MAX_EXPONENT, PythSource, recent
from oracle.types import NoData
from simulation.chain.artifacts import chainlink, own, pyth
from simulation.chain.evm import Evm, labelled_address, transact
from simulation.chain.parity.harness import CaseResult, Compared, Mismatch, parity_adapters
from simulation.chain.parity.oracle import (
    Answer,
    Draw,
    OracleParity,
    answers,
    compare,
    differ,
    raw_words,
    signed,
)

OWNER: Final = labelled_address("provider owner")

UPDATE_PRICE_FEEDS: Final = function("updatePriceFeeds(bytes[])")
PRICE_FEED: Final = ("bytes32", *("int64", "uint64", "int32", "uint256") * 2)
"""A price feed as the mock takes it: id, price and moving average."""

UPDATE_ANSWER: Final = function("updateAnswer(int256)")
OSM_CONSTRUCTOR: Final = ("address", "uint256", "uint128", "uint128", "uint256")
OSM_STOP: Final = function("stop()")
OSM_START: Final = function("start()")
OSM_VOID: Final = function("void()")
OSM_POKE: Final = function("poke()")


class _Draw(Draw):
    """Random figures of one case, and what it was an instance of."""

    def bits(self, count: int) -> int:
        """Return a number of up to so many bits, small ones as likely as large ones."""
        return int.from_bytes(self.rng.bytes(32), "big") >> (256 - self.below(count + 1))


@dataclass(frozen=True, slots=True)
class _Stated:
    """Price, confidence, exponent and time, as Pyth has them."""

    price: int
    conf: int
    expo: int
    publish_time: int

    @property
    def words(self) -> tuple[int, int, int, int]:
        return self.price, self.conf, self.expo, self.publish_time


@parity_adapters.register("oracle-pyth")
class PythParity(OracleParity):
    """`simulation.chain.parity.ParityAdapter` of Pyth's stored price."""

    kind: ClassVar[Literal["oracle-pyth"]] = "oracle-pyth"

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared("oracle.sources.pyth", "@pythnetwork/pyth-sdk-solidity 4.2.0: MockPyth")

    @property
    def tags(self) -> tuple[str, ...]:
        """What cases are counted as."""
        return (
            *("missing", "never_published", "negative", "zero", "positive_exponent", "beyond_exponent"),
            *("stale", "future", "average", "overtaken", "too_late"),
        )

    def prepare(self, evm: Evm) -> str:
        """Deploy the mock, which asks for no fee."""
        return evm.create(OWNER, pyth("MockPyth").creation_code(60, 0))

    def run(self, evm: Evm, world: str, rng: np.random.Generator) -> CaseResult:
        """Store up to three updates of one feed, read it or another one, and compare."""
        draw = _Draw(rng)
        feed_id = rng.bytes(31) + b"\x01"
        asked = feed_id if draw.chance(0.9) else rng.bytes(31) + b"\x02"
        draw.tag("missing", asked != feed_id)
        self._update(evm, world, draw, feed_id)
        average = draw.chance(0.3)
        draw.tag("average", average)
        part = "Ema" if average else ""
        words = raw_words(evm, world, f"get{part}PriceUnsafe(bytes32)", asked)
        source = PythSource(
            base="A",
            quote="B",
            address=world,
            feed_id="0x" + asked.hex(),
            average=average,
            heartbeat_s=60,
        )
        if words is None:
            return CaseResult(Answer.NO_DATA, None, frozenset(draw.tags), compare(source, evm, None))
        stated = _Stated(signed(words[0]), words[1], signed(words[2]), words[3])
        found = self._compare_age(evm, world, draw, asked, part, stated)
        expected = self._expected(evm, draw, stated)
        found += compare(source, evm, expected, {"heartbeat_s": 60, "grace_s": 0, "quorum": None})
        verdict = Answer.NO_DATA if expected is None else Answer.READ
        return CaseResult(verdict, None, frozenset(draw.tags), found)

    def _update(self, evm: Evm, world: str, draw: _Draw, feed_id: bytes) -> None:
        newest = 0
        for i in range(1 + draw.below(3)):
            price, average = self._stated(evm, draw), self._stated(evm, draw)
            draw.tag("overtaken", i > 0 and price.publish_time > newest)
            draw.tag("too_late", i > 0 and price.publish_time < newest)
            newest = max(newest, price.publish_time)
            update = abi_encode(PRICE_FEED, [feed_id, *price.words, *average.words])
            transact(evm, OWNER, world, UPDATE_PRICE_FEEDS, [update])
        draw.tag("never_published", newest == 0)

    def _stated(self, evm: Evm, draw: _Draw) -> _Stated:
        price = draw.bits(63) * (-1 if draw.chance(0.3) else 1)
        expo = (-8, -5, -draw.below(20), draw.below(13), draw.below(601) - 300, draw.bits(31))[draw.below(6)]
        now = evm.timestamp()
        at = (now - draw.below(120), now - draw.below(10**6), now + draw.below(120), 0, now)[draw.below(5)]
        return _Stated(price, draw.bits(64), -expo if draw.chance(0.1) else expo, at)

    def _compare_age(
        self, evm: Evm, world: str, draw: _Draw, feed_id: bytes, part: str, stated: _Stated
    ) -> tuple[Mismatch, ...]:
        now = evm.timestamp()
        # Half of the ages lie at the edge.
        age = abs(now - stated.publish_time) + draw.below(3) - 1 if draw.chance(0.5) else draw.below(120)
        age = max(age, 0)
        taken = raw_words(evm, world, f"get{part}PriceNoOlderThan(bytes32,uint256)", feed_id, age) is not None
        draw.tag("stale", not taken and stated.publish_time < now)
        draw.tag("future", stated.publish_time > now)
        return differ("recent", taken, recent(stated.publish_time, now, age))

    def _expected(self, evm: Evm, draw: _Draw, stated: _Stated) -> dict[str, Any] | None:
        """Return the reading that the contract's words amount to, by fractions."""
        draw.tag("negative", stated.price < 0)
        draw.tag("zero", stated.price == 0)
        draw.tag("positive_exponent", 0 < stated.expo <= MAX_EXPONENT)
        draw.tag("beyond_exponent", abs(stated.expo) > MAX_EXPONENT)
        # A moving average can be without a time though the price beside it has one.
        draw.tag("never_published", stated.publish_time == 0)
        if stated.publish_time == 0 or abs(stated.expo) > MAX_EXPONENT:
            return None
        decimals = max(0, -stated.expo)
        scale = Fraction(10) ** stated.expo * 10**decimals
        return {
            "mantissa": stated.price * scale,
            "conf_abs": stated.conf * scale,
            "decimals": decimals,
            "published_at": stated.publish_time,
            "observed_at": evm.timestamp(),
            "bid": None,
        }


@parity_adapters.register("oracle-osm")
class OsmParity(OracleParity):
    """`simulation.chain.parity.ParityAdapter` of Maker's delayed price."""

    kind: ClassVar[Literal["oracle-osm"]] = "oracle-osm"

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared("oracle.sources.maker", "contracts_abi/vyper/Osm.vy", ours=True)

    @property
    def tags(self) -> tuple[str, ...]:
        """What cases are counted as."""
        return ("turned", "too_soon", "dumb_source", "stopped", "voided", "no_price", "nothing_to_come")

    def prepare(self, evm: Evm) -> None:
        """Deploy nothing: every case has contracts of its own."""

    def run(self, evm: Evm, world: None, rng: np.random.Generator) -> CaseResult:
        """Deploy a module over a feed, call it at random times, and compare after each."""
        case = _OsmCase(evm, _Draw(rng))
        found = tuple(m for _ in range(4) for m in case.step())
        return CaseResult(case.verdict, None, frozenset(case.draw.tags), found)


class _OsmCase:
    """One module, and what it should hold."""

    def __init__(self, evm: Evm, draw: _Draw) -> None:
        self.evm = evm
        self.draw = draw
        self.hop_s = (3_600, 900, 60, 7)[draw.below(4)]
        self.stopped = False
        now = evm.timestamp()
        current, upcoming = (0 if draw.chance(0.2) else 1 + draw.bits(100) for _ in range(2))
        self.state = Delayed(current or None, upcoming or None, now - now % self.hop_s)
        self.feed = evm.create(OWNER, chainlink("MockV3Aggregator").creation_code(18, 1))
        arguments = (self.feed, self.hop_s, current, upcoming, self.state.turn)
        self.address = evm.create(OWNER, own("Osm").bytecode + abi_encode(OSM_CONSTRUCTOR, arguments))
        self.source = OsmSource(base="A", quote="B", address=self.address, source=self.feed, grace_s=60)

    @property
    def verdict(self) -> Answer:
        """What was read in the end."""
        return Answer.NO_DATA if self.state.current is None else Answer.READ

    def step(self) -> tuple[Mismatch, ...]:
        """Let time pass, let the market move, call the module, and compare what it holds."""
        self._control()
        said = self._market()
        self.evm.warp(self.evm.timestamp() + 1 + self.draw.below(2 * self.hop_s))
        at = self.evm.timestamp()
        free = may_poke(self.state.turn, self.hop_s, at) and not self.stopped
        success = self.evm.send(OWNER, self.address, OSM_POKE.encode()).success
        self.draw.tag("turned" if free else "too_soon", not self.stopped)
        if free:
            self.state = poke(self.state, said, self.hop_s, at)
        return (*differ("may_poke", success, free), *self._compare())

    def _control(self) -> None:
        if self.draw.chance(0.1):
            self.draw.tags.add("voided")
            transact(self.evm, OWNER, self.address, OSM_VOID)
            self.state, self.stopped = Delayed(None, None, self.state.turn), True
        elif self.draw.chance(0.2):
            transact(self.evm, OWNER, self.address, OSM_START if self.stopped else OSM_STOP)
            self.stopped = not self.stopped
        self.draw.tag("stopped", self.stopped)

    def _market(self) -> int | None:
        """Let the feed say something; the module takes nothing that is not positive."""
        answer = 1 + self.draw.bits(100)
        if self.draw.chance(0.25):
            self.draw.tags.add("dumb_source")
            answer = -answer if self.draw.chance(0.5) else 0
        transact(self.evm, OWNER, self.feed, UPDATE_ANSWER, answer)
        return answer if answer > 0 else None

    def _compare(self) -> tuple[Mismatch, ...]:
        held = Delayed(self._held("peek()"), self._held("peep()"), self._words("zzz()")[0])
        self.draw.tag("no_price", held.current is None)
        self.draw.tag("nothing_to_come", held.upcoming is None)
        changes = ("the module is stopped",) if self.stopped else ()
        facts = {"heartbeat_s": self.hop_s, "authority": AuthorityFacts(changes)}
        expected = {
            "mantissa": held.current,
            "decimals": 18,
            "published_at": held.turn,
            "observed_at": self.evm.timestamp(),
        }
        return (
            *differ("poke", held, self.state),
            *compare(self.source, self.evm, None if held.current is None else expected, facts),
            *differ("upcoming", held.upcoming, self._upcoming()),
        )

    def _upcoming(self) -> int | None:
        results = answers(self.evm, self.source.reads())
        reading = self.source.upcoming(results, block=1, timestamp=self.evm.timestamp())
        return None if isinstance(reading, NoData) else reading.mantissa

    def _held(self, getter: str) -> int | None:
        price, has = self._words(getter)
        return price if has else None

    def _words(self, getter: str) -> tuple[int, ...]:
        words = raw_words(self.evm, self.address, getter)
        assert words is not None, getter
        return words
