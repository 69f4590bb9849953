"""Liquity's state machine: every row of its table, each limit at its edge, and what a phase change does."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode

from oracle.sources.liquity import (
    TIMEOUT_S,
    ChainlinkResponse,
    LiquitySource,
    LiquityState,
    Reverted,
    Status,
    TellorResponse,
    fetch_price,
)
from oracle.types import NoData, PriceObs

NOW = 1_700_000_000
LAST = 1_990 * 10**18
PHASE = 1 << 64
C = ChainlinkResponse(5 * PHASE + 9, 2_000 * 10**8, NOW - 60, success=True, decimals=8)
P = ChainlinkResponse(5 * PHASE + 8, 1_995 * 10**8, NOW - 3_600, success=True, decimals=8)
T = TellorResponse(2_001 * 10**6, NOW - 600, success=True)
FROZEN = NOW - TIMEOUT_S - 1

CHAINLINK = {
    "fine": (C, P),
    "broken": (ChainlinkResponse(), P),
    "no_predecessor": (C, ChainlinkResponse()),
    "frozen": (ChainlinkResponse(C.round_id, C.answer, FROZEN, success=True, decimals=8), P),
    "jumped": (C, ChainlinkResponse(P.round_id, 999 * 10**8, P.timestamp, success=True, decimals=8)),
    # Twice as much is half of the larger, which is not more than half.
    "doubled": (C, ChainlinkResponse(P.round_id, 1_000 * 10**8, P.timestamp, success=True, decimals=8)),
}
TELLOR = {
    "fine": T,
    "broken": TellorResponse(),
    "frozen": TellorResponse(T.value, FROZEN, success=True),
    "far": TellorResponse(2_101 * 10**6, T.timestamp, success=True),
    "near": TellorResponse(2_100 * 10**6, T.timestamp, success=True),
}
BY_C, BY_LAST = 2_000 * 10**18, LAST


def by_t(tellor: str) -> int:
    return TELLOR[tellor].value * 10**12


# Trusted before, Chainlink, Tellor: trusted after, and the price.
TABLE = [
    (0, "fine", "fine", 0, "C"),
    (0, "fine", "frozen", 0, "C"),
    (0, "fine", "broken", 4, "C"),
    (0, "fine", "far", 0, "C"),
    (0, "doubled", "far", 0, "C"),
    (0, "broken", "fine", 1, "T"),
    (0, "broken", "frozen", 1, "last"),
    (0, "broken", "broken", 2, "last"),
    (0, "no_predecessor", "fine", 1, "T"),
    (0, "frozen", "fine", 3, "T"),
    (0, "frozen", "frozen", 3, "last"),
    (0, "frozen", "broken", 4, "last"),
    (0, "jumped", "fine", 0, "C"),
    (0, "jumped", "near", 0, "C"),
    (0, "jumped", "far", 1, "T"),
    (0, "jumped", "frozen", 1, "last"),
    (0, "jumped", "broken", 2, "last"),
    (1, "fine", "fine", 0, "C"),
    (1, "jumped", "fine", 0, "C"),
    (1, "fine", "near", 0, "C"),
    (1, "fine", "far", 1, "T"),
    (1, "broken", "fine", 1, "T"),
    (1, "frozen", "fine", 1, "T"),
    (1, "fine", "frozen", 1, "last"),
    (1, "fine", "broken", 2, "last"),
    (2, "fine", "fine", 0, "C"),
    (2, "fine", "far", 2, "last"),
    (2, "broken", "fine", 2, "last"),
    (2, "fine", "broken", 2, "last"),
    (3, "fine", "fine", 0, "C"),
    (3, "fine", "far", 1, "T"),
    (3, "fine", "frozen", 3, "last"),
    (3, "fine", "broken", 4, "C"),
    (3, "broken", "fine", 1, "T"),
    (3, "broken", "frozen", 1, "last"),
    (3, "broken", "broken", 2, "last"),
    (3, "frozen", "fine", 3, "T"),
    (3, "frozen", "frozen", 3, "last"),
    (3, "frozen", "broken", 4, "last"),
    (4, "fine", "fine", 0, "C"),
    (4, "jumped", "fine", 0, "C"),
    (4, "fine", "broken", 4, "C"),
    (4, "fine", "far", 4, "C"),
    (4, "jumped", "broken", 2, "last"),
    (4, "jumped", "far", 2, "last"),
    (4, "frozen", "fine", 4, "last"),
    (4, "broken", "fine", 2, "last"),
]


@pytest.mark.parametrize(("before", "chainlink", "tellor", "after", "whose"), TABLE)
def test_table(before: int, chainlink: str, tellor: str, after: int, whose: str) -> None:
    now, previous = CHAINLINK[chainlink]
    state = fetch_price(LiquityState(Status(before), LAST), now, previous, TELLOR[tellor], NOW)
    price = {"C": BY_C, "T": by_t(tellor), "last": BY_LAST}[whose]
    assert state == LiquityState(Status(after), price)


@pytest.mark.parametrize(
    ("response", "bad"),
    [
        (C, False),
        (ChainlinkResponse(0, 1, NOW, success=True), True),
        (ChainlinkResponse(1, 0, NOW, success=True), True),
        (ChainlinkResponse(1, -1, NOW, success=True), True),
        (ChainlinkResponse(1, 1, 0, success=True), True),
        (ChainlinkResponse(1, 1, NOW, success=True), False),
        (ChainlinkResponse(1, 1, NOW + 1, success=True), True),
        (ChainlinkResponse(1, 1, NOW, success=False), True),
    ],
)
def test_what_a_bad_round_is(response: ChainlinkResponse, bad: bool) -> None:
    assert response.bad(NOW) is bad


@pytest.mark.parametrize(("age_s", "status"), [(TIMEOUT_S, 0), (TIMEOUT_S + 1, 3)])
def test_four_hours_are_not_frozen_and_a_second_more_is(age_s: int, status: int) -> None:
    old = ChainlinkResponse(C.round_id, C.answer, NOW - age_s, success=True, decimals=8)
    assert fetch_price(LiquityState(Status(0), LAST), old, P, T, NOW).status == status


def test_the_first_round_of_a_phase_makes_liquity_leave_chainlink() -> None:
    # Round 1 of phase 6; its id less one is round 0 of that phase, which no aggregator has.
    first = ChainlinkResponse(6 * PHASE + 1, C.answer, C.timestamp, success=True, decimals=8)
    nothing = ChainlinkResponse(6 * PHASE, 0, 0, success=True, decimals=8)
    for missing in (nothing, ChainlinkResponse()):
        left = fetch_price(LiquityState(Status(0), LAST), first, missing, T, NOW)
        assert left == LiquityState(Status.USING_TELLOR_CHAINLINK_UNTRUSTED, by_t("fine"))
    # A round later both agree again.
    second = ChainlinkResponse(6 * PHASE + 2, C.answer, NOW - 1, success=True, decimals=8)
    assert fetch_price(left, second, first, T, NOW).status is Status.CHAINLINK_WORKING


@pytest.mark.parametrize(
    ("answer", "decimals", "price"),
    [(2, 18, 2), (2, 8, 2 * 10**10), (2, 0, 2 * 10**18), (29, 19, 2), (9, 19, 0)],
)
def test_answers_are_brought_to_18_digits(answer: int, decimals: int, price: int) -> None:
    assert ChainlinkResponse(1, answer, 1, success=True, decimals=decimals).price == price


def test_arithmetic_that_the_contract_checks_reverts() -> None:
    state = LiquityState(Status(0), LAST)
    huge = ChainlinkResponse(2, 2**254, NOW, success=True, decimals=0)
    nothing = ChainlinkResponse(2, 9, NOW, success=True, decimals=30)
    for odd in (huge, nothing):
        with pytest.raises(Reverted):
            fetch_price(state, odd, odd, T, NOW)


# --- what the source reads --------------------------------------------------------------------------------

ADDRESS, FEED = (f"0x{digit * 40}" for digit in "12")
SOURCE = LiquitySource(base="ETH", quote="USD", address=ADDRESS, feed=FEED, heartbeat_s=3_600)


def results(price: int, answer: int, status: int = 0) -> list[bytes | None]:
    return [
        encode(["uint256"], [price]),
        encode(["uint8"], [status]),
        encode(["uint256"], [LAST]),
        encode(["uint80", "int256", "uint256", "uint256", "uint80"], [9, answer, 0, NOW - 60, 9]),
        encode(["uint8"], [8]),
    ]


@pytest.mark.parametrize(
    ("price", "answer", "published_at"),
    [(BY_C, C.answer, NOW - 60), (LAST, C.answer, None), (BY_C, -1, None), (BY_C, 2**255 - 1, None)],
)
def test_a_price_has_chainlink_s_time_only_when_it_is_chainlink_s(
    price: int, answer: int, published_at: int | None
) -> None:
    read = results(price, answer)
    assert len(SOURCE.reads()) == len(read)
    reading = SOURCE.decode(read, block=1, timestamp=NOW)
    assert isinstance(reading, PriceObs)
    assert (reading.mantissa, reading.decimals, reading.published_at) == (price, 18, published_at)


def test_whom_it_trusts_is_told() -> None:
    context = SOURCE.context(results(BY_C, C.answer, status=3), timestamp=NOW)
    assert context.description == "Liquity: using_tellor_chainlink_frozen"
    assert context.heartbeat_s == 3_600
    assert SOURCE.context(results(BY_C, C.answer, status=9), timestamp=NOW).description is None


def test_no_price_is_no_data() -> None:
    plain = SOURCE.model_copy(update={"feed": None})
    assert len(plain.reads()) == 3
    assert isinstance(plain.decode([None, None, None], block=1, timestamp=NOW), NoData)
