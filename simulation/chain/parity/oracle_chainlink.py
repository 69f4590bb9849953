"""Parity of the Chainlink source: proxies and aggregators as Chainlink wrote them, in random states.

A case deploys an access-controlled proxy and walks it through one to three phases. Aggregators are
FluxAggregator, whose rounds come about by submissions that may be too few, too late or out of bounds, and
MockV3Aggregator, which tells any round that it is told. Then every round of every phase is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np

from contracts_abi.calls import Function, checksummed, function
from contracts_abi.feeds import (
    CONFIRM_AGGREGATOR,
    GET_ROUND_DATA,
    PROPOSE_AGGREGATOR,
    join_round_id,
    split_round_id,
)
from oracle.sources.chainlink import ChainlinkFeed, ChainlinkSource, FeedShape, complete, resolve
from simulation.chain.artifacts import chainlink
from simulation.chain.evm import ZERO_ADDRESS, Evm, labelled_address, transact
from simulation.chain.parity.harness import CaseResult, Compared, Mismatch, parity_adapters
from simulation.chain.parity.oracle import (
    Answer,
    OracleParity,
    answers,
    compare,
    differ,
    differ_reading,
    raw_words,
    signed,
)

OWNER: Final = labelled_address("feed owner")
READER: Final = labelled_address("feed reader")
ORACLES: Final = tuple(labelled_address(f"feed oracle {i}") for i in range(5))

SUBMIT: Final = function("submit(uint256,int256)")
CHANGE_ORACLES: Final = function("changeOracles(address[],address[],address[],uint32,uint32,uint32)")
UPDATE_ROUND_DATA: Final = function("updateRoundData(uint80,int256,uint256,uint256)")
SET_CONTROLLER: Final = function("setController(address)")
ADD_ACCESS: Final = function("addAccess(address)")

_FLUX_TIMEOUT_S: Final = 120
_LAST_ROUND: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Aggregator:
    """An aggregator of a case; `rounds` are those worth reading, written or not."""

    address: str
    flux: bool
    bounds: tuple[int, int] | None
    rounds: tuple[int, ...]


@parity_adapters.register("oracle-chainlink")
class ChainlinkParity(OracleParity):
    """`simulation.chain.parity.ParityAdapter` of the Chainlink source."""

    kind: ClassVar[Literal["oracle-chainlink"]] = "oracle-chainlink"

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared(
            "oracle.sources.chainlink",
            "@chainlink/contracts 0.8.0: EACAggregatorProxy, FluxAggregator, MockV3Aggregator (solc 0.6.6)",
        )

    @property
    def tags(self) -> tuple[str, ...]:
        """What cases are counted as."""
        return (
            *("flux", "mock", "phases", "bounds", "out_of_bounds", "missing_round", "carried_round"),
            *("gated", "denied", "proposed", "switched", "negative"),
        )

    def prepare(self, evm: Evm) -> None:
        """Deploy nothing: every case has contracts of its own."""

    def run(self, evm: Evm, world: None, rng: np.random.Generator) -> CaseResult:
        """Bring about one case and compare; see the module."""
        case = _Case(evm, rng)
        case.build()
        mismatches = (*case.compare_latest(), *case.compare_rounds(), *case.compare_resolution())
        return CaseResult(case.verdict, None, frozenset(case.tags), mismatches)


class _Case:
    """One proxy with its aggregators, and what was seen of it."""

    def __init__(self, evm: Evm, rng: np.random.Generator) -> None:
        self.evm = evm
        self.rng = rng
        self.tags: set[str] = set()
        self.aggregators: list[Aggregator] = []
        self.proxy = ""
        self.verdict = Answer.NO_DATA

    def build(self) -> None:
        """Deploy the proxy, walk it through its phases, and let some gate it."""
        first = self._aggregator()
        self.aggregators = [first]
        self.proxy = self.evm.create(
            OWNER, chainlink("EACAggregatorProxy").creation_code(first.address, ZERO_ADDRESS)
        )
        for _ in range(self._below(3)):
            self.tags.add("phases")
            self._switch()
        if self._chance(0.2):  # what is only proposed changes nothing
            self.tags.add("proposed")
            self._send(self.proxy, PROPOSE_AGGREGATOR, self._aggregator().address)
        if self._chance(0.25):
            self.tags.add("gated")
            self._gate()

    def _gate(self) -> None:
        """Put a list of readers before the proxy, with our reader on it or not."""
        controller = self.evm.create(OWNER, chainlink("SimpleWriteAccessController").creation_code())
        self._send(self.proxy, SET_CONTROLLER, controller)
        if self._chance(0.5):
            self._send(controller, ADD_ACCESS, READER)
        else:
            self.tags.add("denied")

    def _switch(self) -> None:
        """Let the proxy take another aggregator, which begins a phase."""
        aggregator = self._aggregator()
        self._send(self.proxy, PROPOSE_AGGREGATOR, aggregator.address)
        self._send(self.proxy, CONFIRM_AGGREGATOR, aggregator.address)
        self.aggregators.append(aggregator)

    def _aggregator(self) -> Aggregator:
        return self._flux() if self._chance(0.6) else self._mock()

    def _flux(self) -> Aggregator:
        """Deploy a FluxAggregator and let its oracles submit, some of them too few or out of bounds."""
        self.tags |= {"flux", "bounds"}
        price = 10 ** self._between(2, 20)
        low, high = price // 2, price * 2
        if self._chance(0.1):  # as wide as the contract allows
            low, high = -(2**255), 2**255 - 1
        code = chainlink("FluxAggregator").creation_code(
            *(ZERO_ADDRESS, 0, _FLUX_TIMEOUT_S, ZERO_ADDRESS, low, high),
            *(self._between(0, 18), f"flux {self._below(10**6)}"),
        )
        address = self.evm.create(OWNER, code)
        oracles = ORACLES[: self._between(1, len(ORACLES))]
        least = self._between(1, len(oracles))
        self._send(address, CHANGE_ORACLES, [], oracles, oracles, least, len(oracles), 0)
        rounds = self._between(0, 4)
        for round_ in range(1, rounds + 1):
            for oracle in oracles[: self._between(0, len(oracles))]:
                answer = price * self._between(60, 190) // 100
                if self._chance(0.05):
                    self.tags.add("out_of_bounds")
                    answer = price * 3
                self.evm.send(oracle, address, SUBMIT.encode(round_, answer))
            if self._chance(0.6):  # else the next round may not start
                self.evm.warp(self.evm.timestamp() + _FLUX_TIMEOUT_S + 1)
        return Aggregator(address, True, (low, high), tuple(range(rounds + 2)))

    def _mock(self) -> Aggregator:
        """Deploy a MockV3Aggregator and tell it rounds, among them impossible ones."""
        self.tags.add("mock")
        code = chainlink("MockV3Aggregator").creation_code(self._between(0, 18), self._answer())
        address = self.evm.create(OWNER, code)
        rounds = [0, 1, 2]
        for _ in range(self._below(4)):
            round_ = (2, 3, self._below(2**40), _LAST_ROUND)[self._below(4)]
            time = self.evm.timestamp() + self._between(-7200, 7200)
            written = 0 if self._chance(0.1) else time
            self._send(address, UPDATE_ROUND_DATA, round_, self._answer(), written, time)
            rounds.append(round_)
        return Aggregator(address, False, None, tuple(dict.fromkeys(rounds)))

    def _answer(self) -> int:
        answer: int = 10 ** self._between(0, 40) * self._between(-1, 9)
        if answer < 0:
            self.tags.add("negative")
        return answer

    def compare_latest(self) -> tuple[Mismatch, ...]:
        """Compare the reading of an unresolved source with the proxy's latest round."""
        words = raw_words(self.evm, self.proxy, "latestRoundData()", sender=READER)
        expected = self._expected(words, self._phase())
        self.verdict = Answer.NO_DATA if expected is None else Answer.READ
        return compare(self._source(), self.evm, expected, sender=READER)

    def compare_rounds(self) -> tuple[Mismatch, ...]:
        """Compare every round of every phase: what the source makes of it, and what the ids mean.

        The contract that answers is the aggregator itself, so that phase and round are known apart.
        """
        found: list[Mismatch] = []
        source = self._source()
        denied = "denied" in self.tags
        for phase, aggregator in enumerate(self.aggregators, start=1):
            for round_ in aggregator.rounds:
                words = raw_words(self.evm, aggregator.address, "getRoundData(uint80)", round_)
                expected = None if denied else self._expected(words, phase)
                if words is None or words[3] == 0:
                    self.tags.add("missing_round")
                elif words[4] != words[0]:
                    self.tags.add("carried_round")
                joined = join_round_id(phase, round_)
                found += differ("split_round_id", (phase, round_), tuple(split_round_id(joined)))
                calls = [GET_ROUND_DATA.call(self.proxy, joined), *source.reads()[1:]]
                results = answers(self.evm, calls, READER)
                reading = source.decode(
                    results, block=self.evm.block_number(), timestamp=self.evm.timestamp()
                )
                found += differ_reading(expected, reading)
        return tuple(found)

    def compare_resolution(self) -> tuple[Mismatch, ...]:
        """Compare what resolving says with what was deployed, before and after one more phase."""
        before = self._resolve()
        source = self._source().resolved(before)
        current = self.aggregators[-1]
        found = [*self._differ_feed(before, current), *self._compare_bounds(source, current)]
        if self._chance(0.3):
            self.tags.add("switched")
            self._switch()
            results = answers(self.evm, source.reads(), READER)
            changes = source.changes(results)
            found += differ("phase changed", True, any(line.startswith("phase") for line in changes))
            found += differ("aggregator changed", True, any(line.startswith("aggr") for line in changes))
            # The bounds belonged to the aggregator before: unknown until resolved again.
            found += self._compare_bounds(source, None)
            found += self._differ_feed(self._resolve(), self.aggregators[-1])
        return tuple(found)

    def _compare_bounds(self, source: ChainlinkSource, aggregator: Aggregator | None) -> tuple[Mismatch, ...]:
        """Compare the bounds that a resolved source reads; its price must be that of the proxy as before."""
        low, high = (aggregator.bounds if aggregator else None) or (None, None)
        words = raw_words(self.evm, self.proxy, "latestRoundData()", sender=READER)
        return compare(
            source,
            self.evm,
            self._expected(words, self._phase()),
            {"min_answer": low, "max_answer": high},
            sender=READER,
        )

    def _differ_feed(self, feed: ChainlinkFeed, aggregator: Aggregator) -> tuple[Mismatch, ...]:
        low, high = aggregator.bounds or (None, None)
        decimals = raw_words(self.evm, aggregator.address, "decimals()")
        expected: dict[str, Any] = {
            "address": self.proxy,
            "shape": FeedShape.PROXY,
            "decimals": decimals and decimals[0],
            "phase": self._phase(),
            "aggregator": checksummed(aggregator.address),
            "min_answer": low,
            "max_answer": high,
            "flux_bounds": aggregator.flux,
        }
        return tuple(
            m for name, value in expected.items() for m in differ(f"feed.{name}", value, getattr(feed, name))
        )

    def _expected(self, words: tuple[int, ...] | None, phase: int) -> dict[str, Any] | None:
        """Return the reading that a round stands for; a revert and a round without a time stand for none."""
        if words is None or words[3] == 0:
            return None
        round_id, answer, _started_at, updated_at, answered_in = words
        decimals = raw_words(self.evm, self.proxy, "decimals()")
        return {
            "mantissa": signed(answer),
            "decimals": decimals and decimals[0],
            "published_at": updated_at,
            "observed_at": self.evm.timestamp(),
            "block": self.evm.block_number(),
            # The aggregator tells a round, the proxy one with the phase before it.
            "round_key": (phase, round_id % 2**64),
            "answered_key": (phase, answered_in % 2**64),
        }

    def _phase(self) -> int:
        words = raw_words(self.evm, self.proxy, "phaseId()")
        assert words is not None, "nobody is refused the phase"
        return words[0]

    def _source(self) -> ChainlinkSource:
        return ChainlinkSource(base="A", quote="B", address=self.proxy)

    def _resolve(self) -> ChainlinkFeed:
        return complete(resolve(self.proxy), lambda calls: answers(self.evm, calls, READER))

    def _send(self, to: str, fn: Function, *arguments: Any) -> None:
        transact(self.evm, OWNER, to, fn, *arguments)

    def _below(self, end: int) -> int:
        return int(self.rng.integers(end))

    def _between(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def _chance(self, part: float) -> bool:
        return bool(self.rng.random() < part)
