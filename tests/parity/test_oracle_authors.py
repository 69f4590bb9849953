"""Lending formulas against their authors' own contracts, where checkouts of them are at hand.

No package ships these contracts; `tests.authors_sources` says how they get here. Without them the tests skip,
and what was measured once stands in ``docs/oracle-sources.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import pytest
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
from simulation.chain import revm
from simulation.chain.artifacts import chainlink, openzeppelin, own
from simulation.chain.evm import ZERO_ADDRESS, Evm, labelled_address, transact
from simulation.chain.parity.harness import backend_evm
from simulation.chain.parity.oracle import raw_words, signed
from tests.authors_sources import compiled

pytestmark = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)

CASES = 500
DAY = 86_400
OWNER = labelled_address("owner")
UPDATE_ROUND_DATA = function("updateRoundData(uint80,int256,uint256,uint256)")

Units: TypeAlias = dict[str, dict[str, Artifact]]
Pairs: TypeAlias = Iterator[tuple[object, object]]
"""What the contract says, and what the formula says."""


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Units:
    return compiled(tmp_path_factory.mktemp("authors"))


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


def capped(case: Case) -> Pairs:
    evm, capo = case.evm, case.units["capo"]
    acl = case.made(capo["Admins"])
    scale, base_answer, ratio = 8 + case.below(17), case.answer(60), case.answer(40)
    base, provider = case.feed(case.below(20), base_answer), case.feed(scale, ratio)
    now, delay = evm.timestamp(), case.below(20 * DAY)
    snapshot = min(int(10 ** case.below(31)) * (1 + case.below(9)), 2**104 - 1)
    first = CapParameters(snapshot, now - case.below(181 * DAY), case.below(2**16))
    refused = refused_parameters(first, 0, now=now, minimum_delay_s=delay)
    address = case.create(capo["Capo"], acl, base, provider, delay, *_written(first))
    yield address is None, bool(refused)
    if address is None:
        return
    evm.warp(evm.timestamp() + case.below(400 * DAY))
    now = evm.timestamp()
    yield case.answered(address), capped_price(base_answer, ratio, first, scale, now)
    yield case.word(address, "getMaxRatioGrowthPerSecondScaled()"), first.growth_per_second_scaled
    cap = first.max_ratio(now)
    assert cap is not None
    yield bool(case.word(address, "isCapped()")), ratio > cap
    second = CapParameters(int(10 ** case.below(31)), now - case.below(190 * DAY), case.below(2**16))
    selector = keccak(text="setCapParameters((uint104,uint48,uint16))")[:4]
    sent = evm.send(OWNER, address, selector + encode(["(uint104,uint48,uint16)"], [_written(second)]))
    yield sent.success, not refused_parameters(second, first.snapshot_at, now=now, minimum_delay_s=delay)


def _written(parameters: CapParameters) -> tuple[int, int, int]:
    return parameters.snapshot_ratio, parameters.snapshot_at, parameters.growth_bps_year


def stable(case: Case) -> Pairs:
    capo = case.units["capo"]
    feed, cap = case.feed(8, 1), 1 + case.below(2 * 10**8)
    address = case.made(capo["Stable"], case.made(capo["Admins"]), feed, cap)
    price = case.answer(12)
    transact(case.evm, OWNER, feed, UPDATE_ROUND_DATA, 3, price, 1, 1)
    yield case.answered(address), stable_price(price, cap)


def compound(case: Case) -> Pairs:
    contracts = case.units["comet"]
    scales, decimals = (case.below(28), case.below(28)), case.below(20)
    a, b = case.answer(50), case.answer(50)
    feeds = case.feed(scales[0], a), case.feed(scales[1], b)
    scaling = case.made(contracts["ScalingPriceFeed"], feeds[0], decimals)
    yield case.answered(scaling, "latestRoundData()", 1), scaled_answer(a, scales[0], decimals)
    for name, formula in (
        ("MultiplicativePriceFeed", product_answer),
        ("ReverseMultiplicativePriceFeed", ratio_answer),
    ):
        address = case.create(contracts[name], *feeds, decimals, "")
        yield address is None, decimals > 18
        if address is not None:
            yield case.answered(address, "latestRoundData()", 1), formula(a, b, *scales, decimals)


def morpho(case: Case) -> Pairs:
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
    scale = scale_factor(*decimals, base_feeds, quote_feeds, sample, quote_sample)
    yield address and case.word(address, "SCALE_FACTOR()"), scale
    if address is not None and scale is not None:
        above, below = ([answer for _, answer in side] for side in sides)
        yield case.word(address, "price()"), morpho_price(scale, above, below, assets, quote_assets)


def _vault(case: Case) -> tuple[str, int, int]:
    """Return a vault that somebody gave to, a sample of its shares, and what they are worth."""
    token = case.made(openzeppelin("Token"), 18)
    vault, sample = case.made(openzeppelin("Vault"), token, 0), int(10 ** case.below(25))
    transact(case.evm, OWNER, token, function("mint(address,uint256)"), vault, 10 ** case.below(25))
    return vault, sample, case.word(vault, "convertToAssets(uint256)", sample) or 0


def euler_over_chainlink(case: Case) -> Pairs:
    scales = case.below(22), case.below(22)
    tokens = [case.made(case.units["vault"]["Vault"], each) for each in scales]
    now, decimals, answer = case.evm.timestamp(), case.below(20), case.answer(60)
    updated_at, oldest = now - case.below(9_000) + case.below(300), 60 + case.below(8_000)
    feed = case.feed(decimals, answer, updated_at)
    address = case.create(case.units["euler"]["ChainlinkOracle"], *tokens, feed, oldest)
    yield address is None, max(scales[1], decimals + scales[0]) > 38
    if address is None:
        return
    for inverse in (False, True):
        amount, pair = max(0, case.answer(60)), tokens[::-1] if inverse else tokens
        yield (
            case.word(address, "getQuote(uint256,address,address)", amount, *pair),
            chainlink_quote(
                amount,
                answer,
                updated_at,
                base_decimals=scales[0],
                quote_decimals=scales[1],
                feed_decimals=decimals,
                max_staleness_s=oldest,
                now=case.evm.timestamp(),
                inverse=inverse,
            ),
        )


def euler_router(case: Case) -> Pairs:
    evm = case.evm
    tokens = [case.made(case.units["vault"]["Vault"], case.below(9)) for _ in range(5)]
    router = case.made(case.units["euler"]["EulerRouter"], ZERO_ADDRESS, OWNER)
    oracles, vaults = {}, {}
    for _ in range(case.below(4)):
        i, j = case.below(5), case.below(5)
        if i != j:
            oracle = oracles[frozenset((tokens[i], tokens[j]))] = labelled_address(f"oracle {i} {j}")
            configure = function("govSetConfig(address,address,address)")
            transact(evm, OWNER, router, configure, tokens[i], tokens[j], oracle)
    for _ in range(case.below(5)):
        vault, asset = tokens[case.below(5)], tokens[case.below(5)]
        transact(evm, OWNER, vault, function("set(address)"), asset)
        transact(evm, OWNER, router, function("govSetResolvedVault(address,bool)"), vault, True)
        vaults[vault] = asset
    fallback = labelled_address("fallback") if case.chance(0.5) else None
    if fallback is not None:
        transact(evm, OWNER, router, function("govSetFallbackOracle(address)"), fallback)
    config = RouterConfig(oracles, vaults, fallback)
    for _ in range(4):
        amount, base, quote = case.below(10**9), tokens[case.below(5)], tokens[case.below(5)]
        found = resolve_oracle(
            config, amount, base, quote, lambda v, s: case.word(v, "convertToAssets(uint256)", s)
        )
        yield (
            raw_words(evm, router, "resolveOracle(uint256,address,address)", amount, base, quote),
            found and (found.amount, int(found.base, 16), int(found.quote, 16), int(found.oracle or "0", 16)),
        )


# Where the contract keeps them.
LAST_GOOD_SLOT, STATUS_SLOT = 5, 6
MOVES = (100, 100, 103, 105, 106, 94, 95, 150, 49, 50, 51, 200, 201)


def liquity(case: Case) -> Pairs:
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
        kind = case.below(10)
        if kind < 2:
            return (0, 2**190)[kind]
        moved = near * MOVES[case.below(len(MOVES))] // 100
        return moved // 10 ** (18 - digits) if digits <= 18 else moved * int(10 ** min(digits - 18, 30))

    def time() -> int:
        now, kind = evm.timestamp(), case.below(9)
        if kind < 3:
            return (0, now + 50, now - 14_400 - case.below(400) + 200)[kind]
        return now - case.below(3_000)

    last = 1 + case.below(4)
    for round_ in range(max(1, last - case.chance(0.85)), last + 1):
        at, sign = time(), -1 if case.chance(0.05) else 1
        transact(evm, OWNER, feed, SET_ROUND, round_, sign * price(decimals), at, at, round_)
    if case.chance(0.08):
        transact(evm, OWNER, feed, SET_READ_MODE, (READS_REVERT, READS_ZEROS)[case.below(2)])
    tell = function("set(bool,uint256,uint256)")
    transact(evm, OWNER, tellor, tell, case.chance(0.88), price(6), time())
    status = Status(case.below(5))
    evm.set_storage(address, LAST_GOOD_SLOT, near)
    evm.set_storage(address, STATUS_SLOT, status)
    assert (case.word(address, "lastGoodPrice()"), case.word(address, "status()")) == (near, status)

    chainlink_now = _round(case, feed, "latestRoundData()", decimals)
    before = (chainlink_now.round_id - 1) % 2**80
    previous = _round(case, feed, "getRoundData(uint80)", decimals, before)
    told = raw_words(evm, tellor, "getTellorCurrentValue(uint256)", 1)
    value = TellorResponse() if told is None else TellorResponse(told[1], told[2], success=True)
    try:
        after = fetch_price(LiquityState(status, near), chainlink_now, previous, value, evm.timestamp())
        computed: object = (after.last_good_price, after.status)
    except Reverted:
        computed = None
    sent = evm.send(OWNER, address, function("fetchPrice()").encode())
    stored = (case.word(address, "lastGoodPrice()"), case.word(address, "status()"))
    yield stored if sent.success else None, computed


def _round(case: Case, feed: str, signature: str, decimals: int, *arguments: int) -> ChainlinkResponse:
    words = raw_words(case.evm, feed, signature, *arguments)
    if words is None:
        return ChainlinkResponse()
    return ChainlinkResponse(words[0], signed(words[1]), words[3], success=True, decimals=decimals)


@pytest.mark.parametrize(
    "pairs", [capped, stable, compound, morpho, euler_over_chainlink, euler_router, liquity]
)
def test_formula_equals_the_authors_contract(units: Units, pairs: Callable[[Case], Pairs]) -> None:
    compared = 0
    with backend_evm("revm") as evm:
        for number in range(CASES):
            snapshot = evm.snapshot()
            for contract, formula in pairs(Case(evm, units, number)):
                assert contract == formula, f"case {number}"
                compared += 1
            evm.revert(snapshot)
    assert compared > CASES * 3 // 4
