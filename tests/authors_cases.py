"""Random cases of lending oracles, answered by their authors' contracts, and our formulas by name.

A case is plain data: the formula's name, its arguments, and what the contract said. So it can be compared at
once where the contracts are at hand (`tests.authors_sources`), and kept for where they are not:

    MARGINLINE_AUTHORS_SOURCES=<folder> python -m tests.authors_cases
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from contracts_abi.artifacts import Artifact
from contracts_abi.calls import function
from contracts_abi.errors import CallReverted
from contracts_abi.feeds import READS_REVERT, READS_ZEROS, SET_MISSING_REVERTS, SET_READ_MODE, SET_ROUND
from oracle.sources.capo import CapParameters, capped_price, refused_parameters, stable_price
from oracle.sources.comet import product_answer, ratio_answer, scaled_answer
from oracle.sources.euler_router import RouterConfig, chainlink_quote, resolve_oracle
from oracle.sources.liquity import (
    ChainlinkResponse,
    LiquityState,
    Reverted,
    Status,
    TellorResponse,
    fetch_price,
)
from oracle.sources.morpho_chainlink import morpho_price, scale_factor
from simulation.chain.artifacts import chainlink, openzeppelin, own
from simulation.chain.evm import ZERO_ADDRESS, Evm, labelled_address, transact
from simulation.chain.parity.harness import backend_evm
from simulation.chain.parity.oracle import raw_words, signed
from tests.authors_sources import compiled

DAY = 86_400
OWNER = labelled_address("owner")
UPDATE_ROUND_DATA = function("updateRoundData(uint80,int256,uint256,uint256)")
KEPT = Path(__file__).parent / "golden" / "lending-oracles.jsonl"
KEPT_CASES = 200

Units: TypeAlias = dict[str, dict[str, Artifact]]
Answers: TypeAlias = Iterator[tuple[str, list[Any], Any]]
"""Formula, arguments, and what the contract said; None for a revert."""


def _resolved(
    oracles: dict[str, str],
    vaults: dict[str, str],
    fallback: str | None,
    rates: list[int],
    amount: int,
    base: str,
    quote: str,
) -> list[Any] | None:
    config = RouterConfig({frozenset(pair.split()): o for pair, o in oracles.items()}, vaults, fallback)

    def convert(vault: str, shares: int) -> int | None:
        rate = rates[int(vault)]
        return None if rate == 7 else shares * rate // 3

    found = resolve_oracle(config, amount, base, quote, convert)
    return found and [found.amount, found.base, found.quote, found.oracle]


def _quoted(
    amount: int, answer: int, at: int, base: int, quote: int, feed: int, oldest: int, now: int, inverse: bool
) -> int | None:
    return chainlink_quote(
        amount,
        answer,
        at,
        base_decimals=base,
        quote_decimals=quote,
        feed_decimals=feed,
        max_staleness_s=oldest,
        now=now,
        inverse=inverse,
    )


def _fetched(
    status: int, last: int, current: list[Any], before: list[Any], told: list[Any], now: int
) -> list[int] | None:
    responses = (ChainlinkResponse(*current), ChainlinkResponse(*before), TellorResponse(*told))
    try:
        after = fetch_price(LiquityState(Status(status), last), *responses, now)
    except Reverted:
        return None
    return [after.last_good_price, int(after.status)]


def _is_capped(ratio: int, parameters: list[int], now: int) -> bool:
    cap = CapParameters(*parameters).max_ratio(now)
    return cap is not None and ratio > cap


FORMULAS: Mapping[str, Callable[..., Any]] = {
    "capped_price": lambda base, ratio, p, scale, now: capped_price(
        base, ratio, CapParameters(*p), scale, now
    ),
    "growth": lambda p: CapParameters(*p).growth_per_second_scaled,
    "is_capped": _is_capped,
    "refused": lambda p, stored, now, delay: bool(
        refused_parameters(CapParameters(*p), stored, now=now, minimum_delay_s=delay)
    ),
    "stable_price": stable_price,
    "scaled_answer": scaled_answer,
    "product_answer": product_answer,
    "ratio_answer": ratio_answer,
    "scale_factor": scale_factor,
    "morpho_price": morpho_price,
    "chainlink_quote": _quoted,
    "resolve_oracle": _resolved,
    "fetch_price": _fetched,
}


class Case:
    """Random figures of one case, and contracts that say them."""

    def __init__(self, evm: Evm, units: Units, number: int) -> None:
        self.evm = evm
        self.units = units
        self.rng = np.random.default_rng([20_260_310, number])

    def below(self, end: int) -> int:
        return int(self.rng.integers(end))

    def chance(self, part: float) -> bool:
        return bool(self.rng.random() < part)

    def answer(self, digits: int) -> int:
        kind = self.below(12)
        if kind == 0:
            return 0
        if kind == 1:
            return -int(10 ** self.below(30)) * (1 + self.below(9))
        if kind == 2:
            return 2**255 - 1 - self.below(5)
        return int(10 ** self.below(digits)) * (1 + self.below(9)) // (1 + self.below(7))

    def create(self, artifact: Artifact, *arguments: Any) -> str | None:
        try:
            return self.evm.create(OWNER, artifact.creation_code(*arguments))
        except CallReverted:
            return None

    def made(self, artifact: Artifact, *arguments: Any) -> str:
        return self.evm.create(OWNER, artifact.creation_code(*arguments))

    def feed(self, decimals: int, answer: int, at: int | None = None) -> str:
        address = self.made(chainlink("MockV3Aggregator"), decimals, 1)
        time = self.evm.timestamp() if at is None else at
        transact(self.evm, OWNER, address, UPDATE_ROUND_DATA, 2, answer, time, time)
        return address

    def word(self, address: str, signature: str, *arguments: Any) -> int | None:
        words = raw_words(self.evm, address, signature, *arguments)
        return None if words is None else words[0]

    def answered(self, address: str, signature: str = "latestAnswer()", place: int = 0) -> int | None:
        words = raw_words(self.evm, address, signature)
        return None if words is None else signed(words[place])


def capped(case: Case) -> Answers:
    evm, capo = case.evm, case.units["capo"]
    acl = case.made(capo["Admins"])
    scale, base_answer, ratio = 8 + case.below(17), case.answer(60), case.answer(40)
    base, provider = case.feed(case.below(20), base_answer), case.feed(scale, ratio)
    now, delay = evm.timestamp(), case.below(20 * DAY)
    snapshot = min(int(10 ** case.below(31)) * (1 + case.below(9)), 2**104 - 1)
    first = CapParameters(snapshot, now - case.below(181 * DAY), case.below(2**16))
    address = case.create(capo["Capo"], acl, base, provider, delay, *_written(first))
    yield "refused", [_written(first), 0, now, delay], address is None
    if address is None:
        return
    evm.warp(evm.timestamp() + case.below(400 * DAY))
    now = evm.timestamp()
    said = [base_answer, ratio, _written(first), scale, now]
    yield "capped_price", said, case.answered(address)
    yield "growth", [_written(first)], case.word(address, "getMaxRatioGrowthPerSecondScaled()")
    yield "is_capped", [ratio, _written(first), now], bool(case.word(address, "isCapped()"))
    second = CapParameters(int(10 ** case.below(31)), now - case.below(190 * DAY), case.below(2**16))
    selector = keccak(text="setCapParameters((uint104,uint48,uint16))")[:4]
    sent = evm.send(OWNER, address, selector + encode(["(uint104,uint48,uint16)"], [tuple(_written(second))]))
    yield "refused", [_written(second), first.snapshot_at, now, delay], not sent.success


def _written(parameters: CapParameters) -> list[int]:
    return [parameters.snapshot_ratio, parameters.snapshot_at, parameters.growth_bps_year]


def stable(case: Case) -> Answers:
    capo = case.units["capo"]
    feed, cap = case.feed(8, 1), 1 + case.below(2 * 10**8)
    address = case.made(capo["Stable"], case.made(capo["Admins"]), feed, cap)
    price = case.answer(12)
    transact(case.evm, OWNER, feed, UPDATE_ROUND_DATA, 3, price, 1, 1)
    yield "stable_price", [price, cap], case.answered(address)


def compound(case: Case) -> Answers:
    contracts = case.units["comet"]
    scales, decimals = (case.below(28), case.below(28)), case.below(20)
    a, b = case.answer(50), case.answer(50)
    feeds = case.feed(scales[0], a), case.feed(scales[1], b)
    scaling = case.made(contracts["ScalingPriceFeed"], feeds[0], decimals)
    yield "scaled_answer", [a, scales[0], decimals], case.answered(scaling, "latestRoundData()", 1)
    for contract, formula in (
        ("MultiplicativePriceFeed", "product_answer"),
        ("ReverseMultiplicativePriceFeed", "ratio_answer"),
    ):
        address = case.create(contracts[contract], *feeds, decimals, "")
        assert (address is None) == (decimals > 18)
        if address is not None:
            yield formula, [a, b, *scales, decimals], case.answered(address, "latestRoundData()", 1)


def morpho(case: Case) -> Answers:
    sides = [[(case.below(20), case.answer(45)) for _ in range(case.below(3))] for _ in range(2)]
    addresses = [[case.feed(*feed) for feed in side] + [ZERO_ADDRESS] * (2 - len(side)) for side in sides]
    decimals = case.below(30), case.below(30)
    vaults = [_vault(case) if case.chance(0.4) else (ZERO_ADDRESS, 1, 1) for _ in range(2)]
    (vault, sample, assets), (quote_vault, quote_sample, quote_assets) = vaults
    address = case.create(
        case.units["morpho"]["MorphoChainlinkOracleV2"],
        *(vault, sample, *addresses[0], decimals[0]),
        *(quote_vault, quote_sample, *addresses[1], decimals[1]),
    )
    base_feeds, quote_feeds = ([scale for scale, _ in side] for side in sides)
    scale = address and case.word(address, "SCALE_FACTOR()")
    yield "scale_factor", [*decimals, base_feeds, quote_feeds, sample, quote_sample], scale
    if address is not None:
        above, below = ([answer for _, answer in side] for side in sides)
        yield "morpho_price", [scale, above, below, assets, quote_assets], case.word(address, "price()")


def _vault(case: Case) -> tuple[str, int, int]:
    """Return a vault that somebody gave to, a sample of its shares, and what they are worth."""
    token = case.made(openzeppelin("Token"), 18)
    vault, sample = case.made(openzeppelin("Vault"), token, 0), int(10 ** case.below(25))
    transact(case.evm, OWNER, token, function("mint(address,uint256)"), vault, 10 ** case.below(25))
    return vault, sample, case.word(vault, "convertToAssets(uint256)", sample) or 0


def euler_over_chainlink(case: Case) -> Answers:
    scales = case.below(22), case.below(22)
    tokens = [case.made(case.units["vault"]["Vault"], each) for each in scales]
    now, decimals, answer = case.evm.timestamp(), case.below(20), case.answer(60)
    updated_at, oldest = now - case.below(9_000) + case.below(300), 60 + case.below(8_000)
    feed = case.feed(decimals, answer, updated_at)
    address = case.create(case.units["euler"]["ChainlinkOracle"], *tokens, feed, oldest)
    assert (address is None) == (max(scales[1], decimals + scales[0]) > 38)
    if address is None:
        return
    for inverse in (False, True):
        amount, pair = max(0, case.answer(60)), tokens[::-1] if inverse else tokens
        said = [amount, answer, updated_at, *scales, decimals, oldest, case.evm.timestamp(), inverse]
        yield (
            "chainlink_quote",
            said,
            case.word(address, "getQuote(uint256,address,address)", amount, *pair),
        )


def euler_router(case: Case) -> Answers:
    evm = case.evm
    rates = [case.below(9) for _ in range(5)]
    tokens = [case.made(case.units["vault"]["Vault"], rate) for rate in rates]
    router = case.made(case.units["euler"]["EulerRouter"], ZERO_ADDRESS, OWNER)
    named = {int(token, 16): str(i) for i, token in enumerate(tokens)} | {0: None}
    oracles: dict[str, str] = {}
    vaults: dict[str, str] = {}
    for _ in range(case.below(4)):
        i, j = sorted((case.below(5), case.below(5)))
        if i != j:
            oracles[f"{i} {j}"] = name = f"oracle {i} {j}"
            named[int(labelled_address(name), 16)] = name
            configure = function("govSetConfig(address,address,address)")
            pair = (tokens[j], tokens[i]) if case.chance(0.5) else (tokens[i], tokens[j])
            transact(evm, OWNER, router, configure, *pair, labelled_address(name))
    for _ in range(case.below(5)):
        i, j = case.below(5), case.below(5)
        transact(evm, OWNER, tokens[i], function("set(address)"), tokens[j])
        transact(evm, OWNER, router, function("govSetResolvedVault(address,bool)"), tokens[i], True)
        vaults[str(i)] = str(j)
    fallback = "fallback" if case.chance(0.5) else None
    if fallback is not None:
        named[int(labelled_address(fallback), 16)] = fallback
        configure = function("govSetFallbackOracle(address)")
        transact(evm, OWNER, router, configure, labelled_address(fallback))
    for _ in range(4):
        amount, i, j = case.below(10**9), case.below(5), case.below(5)
        signature = "resolveOracle(uint256,address,address)"
        words = raw_words(evm, router, signature, amount, tokens[i], tokens[j])
        found = words and [words[0], *(named[word] for word in words[1:])]
        yield "resolve_oracle", [oracles, vaults, fallback, rates, amount, str(i), str(j)], found


# Where the contract keeps them.
LAST_GOOD_SLOT, STATUS_SLOT = 5, 6
MOVES = (100, 100, 101, 102, 103, 104, 105, 106, 94, 95, 96, 49, 50, 51, 200, 201)


def liquity(case: Case) -> Answers:
    evm, contracts = case.evm, case.units["liquity"]
    decimals = (8, 18, 0, 20, 30, 6, 100)[case.below(7)]
    feed = case.made(own("PriceAggregator"), decimals, "", 3_600, 50, -(2**191), 2**191 - 1)
    tellor = case.made(contracts["Tellor"])
    transact(evm, OWNER, feed, SET_MISSING_REVERTS, case.chance(0.5))
    for round_ in (1, 2):
        start = 2_000 * 10 ** min(decimals, 45)
        transact(evm, OWNER, feed, SET_ROUND, round_, start, evm.timestamp(), evm.timestamp(), round_)
    address = case.made(contracts["PriceFeed"])
    set_up = function("setAddresses(address,address)").encode(feed, tellor)
    if not evm.send(OWNER, address, set_up).success:
        return  # 100 decimals leave nothing of a price
    near = 10**18 * (1 + case.below(4_000))

    def price(digits: int) -> int:
        kind = case.below(30)
        if kind < 2:
            return (0, 2**190)[kind]
        moved = near * MOVES[case.below(len(MOVES))] // 100
        return moved // 10 ** (18 - digits) if digits <= 18 else moved * int(10 ** min(digits - 18, 30))

    def time() -> int:
        now, kind = evm.timestamp(), case.below(24)
        if kind < 3:
            return (0, now + 50, now - 14_400 - case.below(400) + 200)[kind]
        return now - case.below(3_000)

    last = 1 + case.below(12)
    for round_ in range(max(1, last - case.chance(0.93)), last + 1):
        at, sign = time(), -1 if case.chance(0.02) else 1
        transact(evm, OWNER, feed, SET_ROUND, round_, sign * price(decimals), at, at, round_)
    if case.chance(0.08):
        transact(evm, OWNER, feed, SET_READ_MODE, (READS_REVERT, READS_ZEROS)[case.below(2)])
    tell = function("set(bool,uint256,uint256)")
    transact(evm, OWNER, tellor, tell, case.chance(0.93), price(6), time())
    status = Status(case.below(5))
    evm.set_storage(address, LAST_GOOD_SLOT, near)
    evm.set_storage(address, STATUS_SLOT, status)
    assert (case.word(address, "lastGoodPrice()"), case.word(address, "status()")) == (near, status)

    current = _round(case, feed, "latestRoundData()", decimals)
    before = _round(case, feed, "getRoundData(uint80)", decimals, (current[0] - 1) % 2**80)
    words = raw_words(evm, tellor, "getTellorCurrentValue(uint256)", 1)
    told: list[Any] = [0, 0, False] if words is None else [words[1], words[2], True]
    now = evm.timestamp()
    sent = evm.send(OWNER, address, function("fetchPrice()").encode())
    stored = [case.word(address, "lastGoodPrice()"), case.word(address, "status()")]
    said = [int(status), near, current, before, told, now]
    yield "fetch_price", said, stored if sent.success else None


def _round(case: Case, feed: str, signature: str, decimals: int, *arguments: int) -> list[Any]:
    words = raw_words(case.evm, feed, signature, *arguments)
    return [0, 0, 0, False, 0] if words is None else [words[0], signed(words[1]), words[3], True, decimals]


GENERATORS = (capped, stable, compound, morpho, euler_over_chainlink, euler_router, liquity)


def answered(units: Units, generate: Callable[[Case], Answers], cases: int) -> Answers:
    """Yield what the contracts say in the first cases of a generator."""
    with backend_evm("revm") as evm:
        for number in range(cases):
            snapshot = evm.snapshot()
            yield from generate(Case(evm, units, number))
            evm.revert(snapshot)


def kept() -> Iterator[tuple[str, list[Any], Any]]:
    """Yield the cases that were kept."""
    for line in KEPT.read_text(encoding="ascii").splitlines():
        formula, arguments, said = json.loads(line)
        yield formula, arguments, said


def keep(units: Units) -> str:
    """Return the cases to keep: `KEPT_CASES` of each formula, one a line."""
    lines: list[str] = []
    for generate in GENERATORS:
        counts: dict[str, int] = {}
        for case in answered(units, generate, KEPT_CASES):
            counts[case[0]] = counts.get(case[0], 0) + 1
            if counts[case[0]] <= KEPT_CASES:
                lines.append(json.dumps(case, separators=(",", ":")))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        KEPT.write_text(keep(compiled(Path(folder))), encoding="ascii")
