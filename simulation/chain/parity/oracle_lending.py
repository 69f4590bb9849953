"""Parity of the sources of caps, scales and products, against contracts of our own.

npm ships none of the originals. What is compared here are the contracts that plays on the local chain use
(``contracts_abi/vyper``), so that a replay and a play on chain say the same; that both say what Aave's and
Morpho's contracts say rests on reading those (``docs/oracle-sources.md``).
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal

import numpy as np
from eth_abi.abi import encode as abi_encode

from contracts_abi.calls import function
from contracts_abi.errors import CallReverted
from oracle.interfaces import CapFacts
from oracle.sources.capo import (
    MAX_STABLE_CAP,
    CapoSource,
    CapoStableSource,
    CapParameters,
    capped_price,
    refused_parameters,
    stable_price,
)
from oracle.sources.comet import MultiplicativeSource, ScalingSource, product_answer, scaled_answer
from oracle.sources.composite import compose
from oracle.sources.morpho_chainlink import MorphoChainlinkSource, morpho_price, scale_factor
from oracle.types import FeedKind, NoData, PriceObs, Reading
from simulation.chain.artifacts import chainlink, own
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

OWNER: Final = labelled_address("lending owner")

UPDATE_ROUND_DATA: Final = function("updateRoundData(uint80,int256,uint256,uint256)")
SET_CAP_PARAMETERS: Final = function("setCapParameters(uint104,uint48,uint16)")

_DAY: Final = 86_400


class _Draw(Draw):
    """Random figures of one case, and feeds that say them."""

    def __init__(self, evm: Evm, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self.evm = evm

    def answer(self, digits: int) -> int:
        """Return a price of at most so many digits; at times none, or less than nothing."""
        kind = self.below(12)
        size = int(10 ** self.below(digits)) * (1 + self.below(9)) // (1 + self.below(7))
        if kind == 0:
            self.tags.add("zero")
            return 0
        if kind == 1:
            self.tags.add("negative")
            return -size - 1
        return size

    def feed(self, decimals: int, answer: int) -> str:
        """Deploy a feed with one round, an hour old at most."""
        address = self.evm.create(OWNER, chainlink("MockV3Aggregator").creation_code(decimals, 1))
        at = self.evm.timestamp() - self.below(3_600)
        transact(self.evm, OWNER, address, UPDATE_ROUND_DATA, 1 + self.below(9), answer, at, at)
        return address

    def create(self, name: str, types: str, *arguments: Any) -> str | None:
        """Deploy one of our contracts; None when its constructor reverts."""
        artifact = own(name)
        try:
            return self.evm.create(OWNER, artifact.bytecode + abi_encode(types.split(" "), arguments))
        except CallReverted:
            return None


def _answered(evm: Evm, address: str, signature: str = "latestAnswer()") -> int | None:
    words = raw_words(evm, address, signature)
    return None if words is None else signed(words[0])


def _sure(evm: Evm, address: str, signature: str) -> int:
    value = _answered(evm, address, signature)
    assert value is not None, signature
    return value


@parity_adapters.register("oracle-capo")
class CapoParity(OracleParity):
    """`simulation.chain.parity.ParityAdapter` of a capped rate."""

    kind: ClassVar[Literal["oracle-capo"]] = "oracle-capo"

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared("oracle.sources.capo", "contracts_abi/vyper/CapoFeed.vy", ours=True)

    @property
    def tags(self) -> tuple[str, ...]:
        """What cases are counted as."""
        return ("zero", "negative", "capped", "free", "rewritten", "refused", "overflow")

    def prepare(self, evm: Evm) -> None:
        """Deploy nothing: every case has contracts of its own."""

    def run(self, evm: Evm, world: None, rng: np.random.Generator) -> CaseResult:
        """Deploy an adapter, let time pass, write new parameters, and compare at each point."""
        draw = _Draw(evm, rng)
        scale = 8 + draw.below(17)
        ratio = draw.answer(scale + 3)
        huge = draw.chance(0.08)
        base = draw.feed(draw.below(19), 2**254 if huge else draw.answer(14))
        provider = draw.feed(scale, ratio)
        now = evm.timestamp()
        parameters = CapParameters(
            min(abs(ratio) * (90 + draw.below(15)) // 100 + 1, 2**104 - 1),
            now - 8 * _DAY - draw.below(150 * _DAY),
            draw.below(2_000),
        )
        address = draw.create(
            "CapoFeed",
            "address address uint8 uint256 uint104 uint48 uint16",
            *(base, provider, scale, 7 * _DAY),
            *(parameters.snapshot_ratio, parameters.snapshot_at, parameters.growth_bps_year),
        )
        assert address is not None, "parameters are those of a snapshot in order"
        found = list(self._compare(draw, address, base, provider, parameters))
        evm.warp(evm.timestamp() + draw.below(30 * _DAY))
        parameters, mismatches = self._rewrite(draw, address, parameters)
        found += mismatches
        found += self._compare(draw, address, base, provider, parameters)
        answered = _answered(evm, address)
        verdict = Answer.NO_DATA if answered is None else Answer.READ
        if answered is None:
            draw.tags.add("overflow")
        return CaseResult(verdict, None, frozenset(draw.tags), tuple(found))

    def _compare(
        self, draw: _Draw, address: str, base: str, provider: str, parameters: CapParameters
    ) -> tuple[Mismatch, ...]:
        evm = draw.evm
        now, ratio = evm.timestamp(), _sure(evm, provider, "latestAnswer()")
        scale = _sure(evm, address, "RATIO_DECIMALS()")
        answer = _answered(evm, address)
        cap = parameters.max_ratio(now)
        assert cap is not None, "no snapshot lies in the future"
        capped = bool(_sure(evm, address, "isCapped()"))
        draw.tags.add("capped" if capped else "free")
        price = capped_price(_sure(evm, base, "latestAnswer()"), ratio, parameters, scale, now)
        source = CapoSource(base="A", quote="B", address=address, feed=base)
        words = raw_words(evm, base, "latestRoundData()")
        expected = (
            None
            if answer is None or words is None
            else {
                "mantissa": answer,
                "decimals": _sure(evm, base, "decimals()"),
                "published_at": words[3],
                "kind": FeedKind.COMPOSITE,
            }
        )
        return (
            *differ("capped_price", answer, price),
            *differ("isCapped", capped, ratio > cap),
            *compare(source, evm, expected, {"cap": CapFacts(cap, ratio), "rate.rate": ratio}),
        )

    def _rewrite(
        self, draw: _Draw, address: str, stored: CapParameters
    ) -> tuple[CapParameters, tuple[Mismatch, ...]]:
        """Write new parameters, some of which the contract refuses."""
        evm = draw.evm
        # The transaction is mined in the next block, whose time is asked for.
        now = evm.timestamp()
        written = CapParameters(
            0 if draw.chance(0.1) else stored.snapshot_ratio * (95 + draw.below(15)) // 100,
            now - draw.below(200) * _DAY,
            draw.below(2_000),
        )
        refused = refused_parameters(written, stored.snapshot_at, now=now, minimum_delay_s=7 * _DAY)
        data = SET_CAP_PARAMETERS.encode(written.snapshot_ratio, written.snapshot_at, written.growth_bps_year)
        taken = evm.send(OWNER, address, data).success
        draw.tags.add("rewritten" if taken else "refused")
        return written if taken else stored, differ("refused_parameters", not taken, bool(refused))


@parity_adapters.register("oracle-morpho")
class MorphoParity(OracleParity):
    """`simulation.chain.parity.ParityAdapter` of Morpho's oracle over feeds."""

    kind: ClassVar[Literal["oracle-morpho"]] = "oracle-morpho"

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared("oracle.sources.morpho_chainlink", "contracts_abi/vyper/MorphoOracle.vy", ours=True)

    @property
    def tags(self) -> tuple[str, ...]:
        """What cases are counted as."""
        return ("zero", "negative", "no_scale", "no_base_feed", "no_quote_feed", "one_feed", "two_feeds")

    def prepare(self, evm: Evm) -> None:
        """Deploy nothing: every case has contracts of its own."""

    def run(self, evm: Evm, world: None, rng: np.random.Generator) -> CaseResult:
        """Deploy an oracle over up to two feeds a side and compare scale and price."""
        draw = _Draw(evm, rng)
        sides = [[(draw.below(19), draw.answer(14)) for _ in range(draw.below(3))] for _ in range(2)]
        for side, tag in zip(sides, ("no_base_feed", "no_quote_feed"), strict=True):
            draw.tags.add(tag if not side else "two_feeds" if len(side) == 2 else "one_feed")
        base_decimals, quote_decimals = draw.below(25), draw.below(25)
        addresses = [[draw.feed(*feed) for feed in side] for side in sides]
        address = draw.create(
            "MorphoOracle",
            "address[] address[] uint256 uint256",
            *(*addresses, base_decimals, quote_decimals),
        )
        base, quote = ([decimals for decimals, _ in side] for side in sides)
        scale = scale_factor(base_decimals, quote_decimals, base, quote)
        stated = None if address is None else _sure(evm, address, "SCALE_FACTOR()")
        found = differ("scale_factor", stated, scale)
        if address is None or scale is None:
            draw.tags.add("no_scale")
            return CaseResult(Answer.NO_DATA, None, frozenset(draw.tags), found)
        said = raw_words(evm, address, "price()")
        answered = None if said is None else said[0]
        above, below = ([answer for _, answer in side] for side in sides)
        found += differ("morpho_price", answered, morpho_price(scale, above, below))
        source = MorphoChainlinkSource(
            base="A", quote="B", address=address, base_decimals=18, quote_decimals=6
        )
        # Without the feeds that the original names, the price has no time.
        expected = {"mantissa": answered, "decimals": 24, "published_at": None}
        found += compare(source, evm, None if answered is None else expected)
        verdict = Answer.NO_DATA if said is None else Answer.READ
        return CaseResult(verdict, None, frozenset(draw.tags), found)


@parity_adapters.register("oracle-composite")
class CompositeParity(OracleParity):
    """`simulation.chain.parity.ParityAdapter` of a product of sources."""

    kind: ClassVar[Literal["oracle-composite"]] = "oracle-composite"

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared("oracle.sources.composite", "contracts_abi/vyper/ProductFeed.vy", ours=True)

    @property
    def tags(self) -> tuple[str, ...]:
        """What cases are counted as."""
        return ("zero", "negative", "one_leg", "many_legs")

    def prepare(self, evm: Evm) -> None:
        """Deploy nothing: every case has contracts of its own."""

    def run(self, evm: Evm, world: None, rng: np.random.Generator) -> CaseResult:
        """Deploy a product of up to four feeds and compare it with the product of their readings."""
        draw = _Draw(evm, rng)
        legs = [(draw.below(9), draw.answer(9)) for _ in range(1 + draw.below(4))]
        draw.tags.add("one_leg" if len(legs) == 1 else "many_legs")
        decimals = draw.below(19)
        address = draw.create(
            "ProductFeed", "uint8 address[]", decimals, [draw.feed(scale, answer) for scale, answer in legs]
        )
        assert address is not None, "a product is deployed over any legs"
        now = evm.timestamp()
        readings: list[Reading] = [
            PriceObs("A", "B", answer, scale, FeedKind.PUSH, "leg", now, now) for scale, answer in legs
        ]
        product = compose(
            readings, base="A", quote="B", decimals=decimals, source_id="product", observed_at=now
        )
        answered = _answered(evm, address)
        computed = None if isinstance(product, NoData) else product.mantissa
        verdict = Answer.NO_DATA if answered is None else Answer.READ
        return CaseResult(verdict, None, frozenset(draw.tags), differ("compose", answered, computed))


@parity_adapters.register("oracle-capo-stable")
class CapoStableParity(OracleParity):
    """`simulation.chain.parity.ParityAdapter` of a capped stablecoin."""

    kind: ClassVar[Literal["oracle-capo-stable"]] = "oracle-capo-stable"

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared("oracle.sources.capo", "contracts_abi/vyper/StableCapFeed.vy", ours=True)

    @property
    def tags(self) -> tuple[str, ...]:
        """What cases are counted as."""
        return ("zero", "negative", "capped", "free", "refused")

    def prepare(self, evm: Evm) -> None:
        """Deploy nothing: every case has contracts of its own."""

    def run(self, evm: Evm, world: None, rng: np.random.Generator) -> CaseResult:
        """Deploy an adapter under a price, move the price, and compare; a cap below the price is refused."""
        draw = _Draw(evm, rng)
        first, cap = draw.below(2 * 10**8), draw.below(2 * 10**8 + 2)
        feed = draw.feed(8, first)
        address = draw.create("StableCapFeed", "address int256", feed, cap)
        found = differ("refused", address is None, not first <= cap <= MAX_STABLE_CAP)
        if address is None:
            draw.tags.add("refused")
            return CaseResult(Answer.NO_DATA, None, frozenset(draw.tags), found)
        price, at = draw.answer(12), evm.timestamp() - draw.below(3_600)
        transact(evm, OWNER, feed, UPDATE_ROUND_DATA, 20, price, at, at)
        draw.tags.add("capped" if price > cap else "free")
        answer = _answered(evm, address)
        source = CapoStableSource(base="A", quote="B", address=address, feed=feed)
        expected = {"mantissa": answer, "decimals": 8, "published_at": at}
        found += differ("stable_price", answer, stable_price(price, cap))
        found += compare(source, evm, expected, {"cap": CapFacts(cap, price)})
        return CaseResult(Answer.READ, None, frozenset(draw.tags), found)


@parity_adapters.register("oracle-comet")
class CometParity(OracleParity):
    """`simulation.chain.parity.ParityAdapter` of feeds that scale and multiply."""

    kind: ClassVar[Literal["oracle-comet"]] = "oracle-comet"

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared(
            "oracle.sources.comet",
            "contracts_abi/vyper/ScalingFeed.vy, MultiplicativeFeed.vy",
            ours=True,
        )

    @property
    def tags(self) -> tuple[str, ...]:
        """What cases are counted as."""
        return ("zero", "negative", "up", "down", "hidden_age", "overflow", "no_legs")

    def prepare(self, evm: Evm) -> None:
        """Deploy nothing: every case has contracts of its own."""

    def run(self, evm: Evm, world: None, rng: np.random.Generator) -> CaseResult:
        """Deploy a scaling and a multiplicative feed over two random ones and compare both."""
        draw = _Draw(evm, rng)
        scales = draw.below(19), draw.below(19)
        said = draw.answer(14), 2**254 if draw.chance(0.1) else draw.answer(14)
        feeds = draw.feed(scales[0], said[0]), draw.feed(scales[1], said[1])
        decimals = draw.below(19)
        draw.tags.add("up" if scales[1] < decimals else "down")
        scaling = draw.create("ScalingFeed", "address uint8", feeds[1], decimals)
        product = draw.create(
            "MultiplicativeFeed", "address address uint8 string", *feeds, decimals, "A times B"
        )
        assert scaling is not None
        assert product is not None
        found = self._scaling(draw, scaling, said[1], scales[1], decimals)
        found += self._product(draw, product, feeds, said, scales, decimals)
        reverts = raw_words(evm, product, "latestRoundData()") is None
        if reverts:
            draw.tags.add("overflow")
        verdict = Answer.NO_DATA if reverts else Answer.READ
        return CaseResult(verdict, None, frozenset(draw.tags), found)

    def _scaling(
        self, draw: _Draw, address: str, answer: int, before: int, after: int
    ) -> tuple[Mismatch, ...]:
        words = raw_words(draw.evm, address, "latestRoundData()")
        scaled = scaled_answer(answer, before, after)
        found = differ("scaled_answer", None if words is None else signed(words[1]), scaled)
        source = ScalingSource(base="A", quote="B", address=address)
        expected = words and {
            "mantissa": signed(words[1]),
            "decimals": after,
            "published_at": words[3],
            "round_key": (words[0] >> 64, words[0] % 2**64),
        }
        return found + compare(source, draw.evm, expected or None)

    def _product(
        self,
        draw: _Draw,
        address: str,
        feeds: tuple[str, str],
        said: tuple[int, int],
        scales: tuple[int, int],
        decimals: int,
    ) -> tuple[Mismatch, ...]:
        evm = draw.evm
        words = raw_words(evm, address, "latestRoundData()")
        computed = product_answer(*said, *scales, decimals)
        found = differ("product_answer", None if words is None else signed(words[1]), computed)
        times = [_sure(evm, feed, "latestTimestamp()") for feed in feeds]
        known = not draw.chance(0.2)
        if not known:
            draw.tags.add("no_legs")
        source = MultiplicativeSource(
            base="A", quote="B", address=address, feeds=feeds if known else (feeds[1], feeds[0])
        )
        if words is None:
            return found + compare(source, evm, None)
        # The contract tells the time of B, the source that of the older.
        found += differ("time of B", words[3], times[1])
        hidden = source.hidden_age_s(answers(evm, source.reads()))
        found += differ("hidden_age_s", max(0, times[1] - times[0]) if known else None, hidden)
        if hidden:
            draw.tags.add("hidden_age")
        expected = {
            "mantissa": signed(words[1]),
            "decimals": decimals,
            "published_at": min(times) if known else None,
            "round_key": None,
        }
        return found + compare(source, evm, expected, {"description": "A times B"})
