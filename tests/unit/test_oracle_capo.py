"""Aave's caps: the incident of 2026-03-10 to its digits, each rounding and refusal, what a source reads."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from eth_abi.abi import encode

from oracle.interfaces import CapFacts, RateFacts
from oracle.sources import sources
from oracle.sources.capo import (
    SECONDS_PER_YEAR,
    CapoSource,
    CapoStableSource,
    CapParameters,
    capped_price,
    refused_parameters,
    stable_price,
)
from oracle.types import FeedKind, NoData, PriceObs

NOW = 1_773_143_160  # 2026-03-10 11:46 UTC
WEEK = 7 * 86_400
RAY = 10**18
ADDRESS, FEED, OTHER = (f"0x{digit * 40}" for digit in "123")


@pytest.mark.parametrize(
    ("growth_bps", "told", "short_bps"), [(870, "1.1939", 284), (880, "1.1939", 284), (968, "1.1941", 282)]
)
def test_the_cap_of_2026_03_10(growth_bps: int, told: str, short_bps: int) -> None:
    # The updater raised 1.1572 by the 3 % that it might, and wrote the time of seven days before.
    parameters = CapParameters(11_572 * 103 * 10**12, NOW - WEEK, growth_bps)
    cap = parameters.max_ratio(NOW)
    assert cap is not None
    assert parameters.snapshot_ratio == 1_191_916 * 10**12
    assert f"{cap / RAY:.4f}" == told
    assert round((1 - Fraction(cap, 12_288 * 10**14)) * 10_000) == short_bps


def test_the_price_of_2026_03_10() -> None:
    parameters = CapParameters(11_572 * 103 * 10**12, NOW - WEEK, 880)
    price = capped_price(2_000 * 10**8, 12_288 * 10**14, parameters, 18, NOW)
    assert price == 2_000 * 10**8 * 1_193_927_562_345_205_479 // RAY == 238_785_512_469


@pytest.mark.parametrize(
    ("snapshot", "growth_bps", "scaled"),
    [
        (10**18, 1_000, 10**18 * 1_000 * 10**6 // 10**4 // SECONDS_PER_YEAR),
        (10**18, 0, 0),
        # The least growth that is not nothing, at the least scale of ratios.
        (10**8, 1, 317),
        (10**8, 65_535, 20_781_012),
        (31, 1, 0),
    ],
)
def test_growth_is_stored_in_millionths_a_second(snapshot: int, growth_bps: int, scaled: int) -> None:
    assert CapParameters(snapshot, 0, growth_bps).growth_per_second_scaled == scaled


def test_a_cap_grows_linearly_and_is_rounded_twice() -> None:
    parameters = CapParameters(10**18, NOW, 1_000)
    assert parameters.max_ratio(NOW) == 10**18
    assert parameters.max_ratio(NOW - 1) is None
    assert parameters.max_ratio(NOW + SECONDS_PER_YEAR) == 1_099_999_999_999_999_979
    # Two years are twice one year: nothing compounds. The second rounding may give one back.
    assert parameters.max_ratio(NOW + 2 * SECONDS_PER_YEAR) == 1_199_999_999_999_999_958


@pytest.mark.parametrize(
    ("base", "ratio", "price"),
    [
        (2_000 * 10**8, 10**18, 2_000 * 10**8),
        (2_000 * 10**8, 2 * 10**18, 2_000 * 10**8),
        (3, 10**18 - 1, 2),
        (0, 10**18, 0),
        (-1, 10**18, 0),
        (1, 0, 0),
        (1, -5, 0),
        (2**255 - 1, 10**18, None),
        ((2**255 - 1) // 10**18, 10**18, (2**255 - 1) // 10**18),
    ],
)
def test_capped_price(base: int, ratio: int, price: int | None) -> None:
    assert capped_price(base, ratio, CapParameters(10**18, NOW, 0), 18, NOW) == price


def test_a_price_before_the_snapshot_reverts() -> None:
    assert capped_price(1, 1, CapParameters(1, NOW, 0), 8, NOW - 1) is None


@pytest.mark.parametrize(
    ("price", "told"), [(99, 99), (104, 104), (105, 104), (0, 0), (-1, 0), (10**20, 104), (1, 1)]
)
def test_stable_price(price: int, told: int) -> None:
    assert stable_price(price, 104) == told


@pytest.mark.parametrize(
    ("ratio", "at", "stored_at", "reason"),
    [
        (1, NOW - WEEK, 0, None),
        (0, NOW - WEEK, 0, "zero"),
        (1, NOW - WEEK, NOW - WEEK, "not after"),
        (1, NOW - 86_400, NOW - WEEK, None),
        (1, NOW - 86_399, NOW - WEEK, "younger"),
        (1, NOW - 180 * 86_400, 0, None),
        (1, NOW - 180 * 86_400 - 1, 0, "older"),
    ],
)
def test_parameters_that_the_contract_refuses(
    ratio: int, at: int, stored_at: int, reason: str | None
) -> None:
    refused = refused_parameters(CapParameters(ratio, at, 0), stored_at, now=NOW, minimum_delay_s=86_400)
    assert len(refused) == (reason is not None)
    assert reason is None or reason in refused[0]


# --- what the sources read --------------------------------------------------------------------------------


def word(kind: str, value: Any) -> bytes:
    return encode([kind], [value])


def round_words(answer: int, updated_at: int, decimals: int = 8) -> list[bytes | None]:
    return [
        encode(["uint80", "int256", "uint256", "uint256", "uint80"], [7, answer, 0, updated_at, 7]),
        word("uint8", decimals),
    ]


def capo_results(**changes: Any) -> list[bytes | None]:
    said = {
        "answer": word("int256", 2_387 * 10**8),
        "decimals": word("uint8", 8),
        "base": word("address", FEED),
        "ratio": word("int256", 12_288 * 10**14),
        "ratio_decimals": word("uint8", 18),
        "snapshot": word("uint256", 1_191_916 * 10**12),
        "at": word("uint256", NOW - WEEK),
        "growth": word("uint256", 880),
    }
    return [*(said | changes).values(), *round_words(2_000 * 10**8, NOW - 60)]


SOURCE = CapoSource(base="wstETH", quote="USD", address=ADDRESS, feed=FEED)


def test_a_source_reads_the_adapter_and_the_feed_behind_it() -> None:
    reads = SOURCE.reads()
    assert len(reads) == len(capo_results())
    assert [r.to for r in reads] == [ADDRESS] * 8 + [FEED] * 2
    assert len(SOURCE.model_copy(update={"feed": None}).reads()) == 8


def test_a_source_tells_price_cap_and_rate() -> None:
    reading = SOURCE.decode(capo_results(), block=5, timestamp=NOW)
    assert reading == PriceObs(
        *("wstETH", "USD", 2_387 * 10**8, 8, FeedKind.COMPOSITE, f"capo:{ADDRESS}"),
        published_at=NOW - 60,
        observed_at=NOW,
        block=5,
        raw=word("int256", 2_387 * 10**8),
    )
    context = SOURCE.context(capo_results(), timestamp=NOW)
    assert context.cap == CapFacts(1_193_927_562_345_205_479, 12_288 * 10**14)
    assert context.rate == RateFacts(12_288 * 10**14, 18, max_growth_bps_year=880)


@pytest.mark.parametrize("changes", [{"base": word("address", OTHER)}, {"base": None}])
def test_a_price_whose_base_feed_is_another_one_has_no_time(changes: dict[str, Any]) -> None:
    reading = SOURCE.decode(capo_results(**changes), block=5, timestamp=NOW)
    assert isinstance(reading, PriceObs)
    assert reading.published_at is None


@pytest.mark.parametrize("lost", ["ratio", "ratio_decimals", "snapshot", "at", "growth"])
def test_a_cap_with_a_part_missing_is_unknown(lost: str) -> None:
    context = SOURCE.context(capo_results(**{lost: None}), timestamp=NOW)
    assert context.cap is None
    assert context.rate is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answer": None}, "no answer"),
        ({"answer": b""}, "no answer"),
        ({"answer": b"\1" * 31}, "no answer"),
        ({"decimals": None}, "no scale"),
    ],
)
def test_no_answer_is_no_data(changes: dict[str, Any], reason: str) -> None:
    reading = SOURCE.decode(capo_results(**changes), block=5, timestamp=NOW)
    assert isinstance(reading, NoData)
    assert reason in reading.reason


def test_a_stablecoin_s_cap_is_told_with_the_price_under_it() -> None:
    source = sources.build(
        {"kind": "capo_stable", "base": "USDC", "quote": "USD", "address": ADDRESS, "feed": FEED}
    )
    assert isinstance(source, CapoStableSource)
    results = [
        word("int256", 104),
        word("uint8", 2),
        word("address", FEED),
        word("int256", 104),
        *round_words(130, NOW - 60, 2),
    ]
    assert len(source.reads()) == len(results)
    reading = source.decode(results, block=1, timestamp=NOW)
    assert isinstance(reading, PriceObs)
    assert (reading.mantissa, reading.published_at) == (104, NOW - 60)
    assert source.context(results, timestamp=NOW).cap == CapFacts(104, 130)
    results[2] = word("address", OTHER)
    assert source.context(results, timestamp=NOW).cap is None
