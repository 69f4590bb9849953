"""Each guard on the boundary of its threshold, and what every guard must do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from contracts_abi.errors import InputError, UnknownNameError
from oracle.guards import BASIC, basic_guards, guards
from oracle.interfaces import FeedContext, Guard
from oracle.types import FeedKind, Finding, GuardAction, GuardStatus, NoData, PriceObs, Reading

OK, VIOLATED, NOT_APPLICABLE = GuardStatus.OK, GuardStatus.VIOLATED, GuardStatus.NOT_APPLICABLE

NOW = 1_700_000_000
CONTEXT = FeedContext(now=NOW, heartbeat_s=3_600)
NO_DATA = NoData("ETH", "USD", "feed", NOW, "latestRoundData() gave no round")


def obs(mantissa: int = 2_000 * 10**8, age_s: int | None = 0, **changes: Any) -> PriceObs:
    reading = PriceObs(
        "ETH",
        "USD",
        mantissa,
        8,
        FeedKind.PUSH,
        "feed",
        published_at=None if age_s is None else NOW - age_s,
        observed_at=NOW,
        block=1,
        round_key=(6, 100),
        answered_key=(6, 100),
    )
    return dataclasses.replace(reading, **changes)


def check(
    kind: str,
    reading: Reading,
    history: tuple[PriceObs, ...] = (),
    peers: tuple[Reading, ...] = (),
    context: FeedContext = CONTEXT,
    **config: Any,
) -> Finding:
    finding: Finding = guards.build({"kind": kind, **config}).check(reading, history, peers, context)
    return finding


# --- what every guard must do -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(guards))
def test_a_guard_has_the_interface_an_id_and_a_reason_for_its_threshold(kind: str) -> None:
    guard = guards.build({"kind": kind})
    assert isinstance(guard, Guard)
    assert guard.kind == kind
    assert guard.id[0] == "G"
    assert guard.id[1:].isdigit()
    assert guard.actions
    assert type(guard).__doc__.startswith(f"{guard.id}: ")


@pytest.mark.parametrize("kind", list(guards))
def test_no_guard_says_ok_of_no_data(kind: str) -> None:
    finding = check(kind, NO_DATA, history=(obs(),), peers=(obs(source_id="peer"),))
    assert finding.status is (VIOLATED if kind == "no_data" else NOT_APPLICABLE)


@pytest.mark.parametrize("kind", list(guards))
@pytest.mark.parametrize("reading", [NO_DATA, obs(-1), obs(10**30, age_s=10**7), obs(age_s=-(10**7)), obs()])
def test_a_finding_is_evidence(kind: str, reading: Reading) -> None:
    finding = check(kind, reading, history=(obs(round_key=(7, 1)),))
    assert finding.guard == guards.get(kind).id
    assert finding.name == kind
    assert finding.source_id == "feed"
    assert finding.message
    assert "\n" not in finding.message
    assert bool(finding.actions) == (finding.status is VIOLATED)
    if finding.status is NOT_APPLICABLE:
        assert finding.observed == finding.threshold == ""
    else:
        assert finding.observed
        assert finding.threshold
        assert finding.inputs


def test_ids_are_unique() -> None:
    assert len({guards.get(kind).id for kind in guards}) == len(guards)


def test_basic_guards_are_the_first_seven() -> None:
    assert [type(g).kind for g in basic_guards()] == list(BASIC)
    assert [guards.get(kind).id for kind in BASIC] == [f"G0{i}" for i in range(1, 8)]


def test_configuration_errors_name_the_key() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown guard 'stal'; did you mean 'stale'"):
        guards.build({"kind": "stal"})
    with pytest.raises(InputError, match=r"guard 'stale': .*did you mean 'max_age_s'"):
        guards.build({"kind": "stale", "max_age": 3})
    with pytest.raises(InputError, match=r"guard 'stale': max_age_s: .*greater than 0, got 0"):
        guards.build({"kind": "stale", "max_age_s": 0})
    with pytest.raises(InputError, match=r"guard without 'kind'"):
        guards.build({})


# --- each guard -------------------------------------------------------------------------------------------


def test_no_data_passes_any_price_on() -> None:
    assert check("no_data", obs(-5)).status is OK


@pytest.mark.parametrize(("mantissa", "status"), [(1, OK), (0, VIOLATED), (-1, VIOLATED)])
def test_non_positive(mantissa: int, status: GuardStatus) -> None:
    assert check("non_positive", obs(mantissa)).status is status


@pytest.mark.parametrize(
    ("age_s", "status"), [(0, OK), (3_900, OK), (3_901, VIOLATED), (None, NOT_APPLICABLE)]
)
def test_stale_is_heartbeat_plus_grace(age_s: int | None, status: GuardStatus) -> None:
    finding = check("stale", obs(age_s=age_s))
    assert finding.status is status
    if status is VIOLATED:
        assert finding.observed == "3901 s"
        assert finding.threshold == "<= 3900 s"
        assert finding.actions >= {GuardAction.REJECT, GuardAction.FALLBACK}


def test_stale_by_a_limit_of_its_own_or_not_at_all() -> None:
    unknown = FeedContext(now=NOW)
    assert check("stale", obs(age_s=10**6), context=unknown).status is NOT_APPLICABLE
    assert check("stale", obs(age_s=61), context=unknown, max_age_s=60).status is VIOLATED
    assert check("stale", obs(age_s=60), context=unknown, max_age_s=60).status is OK
    assert check("stale", obs(age_s=3_601), context=FeedContext(NOW, 3_600, grace_s=0)).status is VIOLATED


def test_an_answer_carried_over_is_stale_whatever_its_time_says() -> None:
    carried = obs(age_s=0, answered_key=(6, 99))
    assert check("stale", carried).status is VIOLATED
    assert check("stale", carried, context=FeedContext(now=NOW)).status is VIOLATED


@pytest.mark.parametrize(("ahead_s", "status"), [(-1, OK), (60, OK), (61, VIOLATED), (None, NOT_APPLICABLE)])
def test_future(ahead_s: int | None, status: GuardStatus) -> None:
    assert check("future", obs(age_s=None if ahead_s is None else -ahead_s)).status is status


@pytest.mark.parametrize(
    ("reading", "last", "status"),
    [
        (obs(), None, NOT_APPLICABLE),
        (obs(), obs(), OK),
        (obs(round_key=(6, 101)), obs(age_s=10), OK),
        (obs(round_key=(6, 99)), obs(), VIOLATED),
        (obs(round_key=(5, 999)), obs(), VIOLATED),
        # A new phase: its first round may be older than the last of the phase before it.
        (obs(round_key=(7, 1), age_s=50), obs(), OK),
        # Within a phase it may not.
        (obs(round_key=(6, 101), age_s=50), obs(), VIOLATED),
        # A constant round id, as push feeds without rounds answer: the time decides.
        (obs(round_key=(0, 1), age_s=5), obs(round_key=(0, 1)), VIOLATED),
        (obs(round_key=(0, 1)), obs(round_key=(0, 1), age_s=5), OK),
        # No rounds: the time decides; no times: the rounds do; neither: nobody knows.
        (obs(round_key=None, age_s=5), obs(round_key=None), VIOLATED),
        (obs(age_s=None), obs(age_s=None), OK),
        (obs(round_key=None, age_s=None), obs(round_key=None, age_s=None), NOT_APPLICABLE),
        (obs(round_key=None), obs(age_s=None), NOT_APPLICABLE),
        # The same round with another answer was rewritten.
        (obs(1_999 * 10**8), obs(), VIOLATED),
        (obs(decimals=18), obs(), VIOLATED),
        (obs(1_999 * 10**8, round_key=(6, 101)), obs(), OK),
        # So was what a provider without rounds said of one second ...
        (obs(1_999 * 10**8, round_key=None), obs(round_key=None), VIOLATED),
        (obs(1_999 * 10**8, round_key=None, kind=FeedKind.PULL), obs(round_key=None), VIOLATED),
        # ... but a product is as old as its oldest part, and moves with the others; so does a pool.
        (obs(1_999 * 10**8, round_key=None, kind=FeedKind.COMPOSITE), obs(round_key=None), OK),
        (obs(1_999 * 10**8, round_key=None, kind=FeedKind.AMM_SPOT), obs(round_key=None), OK),
        (obs(1_999 * 10**8, round_key=None, kind=FeedKind.COMPOSITE, age_s=5), obs(round_key=None), VIOLATED),
        (obs(1_999 * 10**8, kind=FeedKind.COMPOSITE), obs(), VIOLATED),
    ],
)
def test_rollback(reading: PriceObs, last: PriceObs | None, status: GuardStatus) -> None:
    assert check("rollback", reading, history=() if last is None else (last,)).status is status


def bounds(low: int | None, high: int | None) -> FeedContext:
    return FeedContext(now=NOW, min_answer=low, max_answer=high)


@pytest.mark.parametrize(
    ("mantissa", "low", "high", "status"),
    [
        # LUNA/USD stood at 0.107 over a minimum of 0.10.
        (10_700_000, 10_000_000, 10**15, VIOLATED),
        (11_000_000, 10_000_000, 10**15, VIOLATED),
        (11_000_001, 10_000_000, 10**15, OK),
        (9 * 10**14 - 1, 10_000_000, 10**15, OK),
        (9 * 10**14, 10_000_000, 10**15, VIOLATED),
        (2 * 10**15, 10_000_000, 10**15, VIOLATED),
        (10**9, None, None, NOT_APPLICABLE),
        (10**9, 10_000_000, None, NOT_APPLICABLE),
        (10_000_000, 10_000_000, None, VIOLATED),
        (10**15, None, 10**15, VIOLATED),
        (10**9, 1, 2**95 - 1, NOT_APPLICABLE),
        (1, 1, 2**95 - 1, VIOLATED),
        (10**9, 10_000_000, 2**95 - 1, OK),
        # A negative minimum is approached from above, too.
        (-950, -1_000, 1_000, VIOLATED),
        (-899, -1_000, 1_000, OK),
    ],
)
def test_bound(mantissa: int, low: int | None, high: int | None, status: GuardStatus) -> None:
    assert check("bound", obs(mantissa), context=bounds(low, high)).status is status


def test_half_the_default_distance_would_have_missed_luna() -> None:
    assert check("bound", obs(10_700_000), context=bounds(10_000_000, 10**15), epsilon_bps=500).status is OK


def test_bounds_that_bind_nothing_are_said_to_be_vacuous() -> None:
    assert "vacuous" in check("bound", obs(), context=bounds(1, 2**95 - 1)).message


def after(seconds: int, ratio_bps: int, **changes: Any) -> tuple[PriceObs, PriceObs]:
    """Return an accepted price and a reading `seconds` later at `ratio_bps` of it."""
    last = obs(age_s=seconds, round_key=(6, 99), observed_at=NOW - seconds)
    return last, obs(last.mantissa * ratio_bps // 10_000, **changes)


@pytest.mark.parametrize(
    ("seconds", "ratio_bps", "status"),
    [
        (0, 9_000, OK),  # the floor: 10 %
        (0, 8_999, VIOLATED),
        (3_600, 8_400, OK),  # 10 % + 6 % an hour
        (3_600, 8_399, VIOLATED),
        (4 * 3_600, 7_800, OK),  # the root of time: 10 % + 2 * 6 %
        (4 * 3_600, 7_799, VIOLATED),
        (86_400, 6_062, OK),  # 10 % + 6 % * sqrt(24) = 39.39 %
        (86_400, 6_060, VIOLATED),
        (0, 11_111, OK),  # upwards the same, against the larger price
        (0, 11_112, VIOLATED),
        (0, 10_000, OK),
    ],
)
def test_jump_grows_with_the_root_of_time(seconds: int, ratio_bps: int, status: GuardStatus) -> None:
    last, reading = after(seconds, ratio_bps)
    assert check("jump", reading, history=(last,)).status is status


def test_jump_has_a_cap() -> None:
    last, halved = after(86_400, 5_000)
    assert check("jump", halved, history=(last,), vol_bps_sqrt_hour=9_999).status is OK
    last, below = after(86_400, 4_999)
    assert check("jump", below, history=(last,), vol_bps_sqrt_hour=9_999).status is VIOLATED


def test_jump_without_something_to_compare_with_is_not_applicable() -> None:
    last, reading = after(86_401, 5_000)
    assert check("jump", reading).status is NOT_APPLICABLE
    assert check("jump", reading, history=(last,)).status is NOT_APPLICABLE
    assert check("jump", obs(0), history=(obs(),)).status is NOT_APPLICABLE
    assert check("jump", obs(), history=(obs(0),)).status is NOT_APPLICABLE


def test_a_jump_stands_when_an_independent_peer_confirms_it() -> None:
    last, reading = after(60, 5_000)
    near = dataclasses.replace(reading, source_id="peer", mantissa=reading.mantissa * 102 // 100)
    assert check("jump", reading, history=(last,), peers=(near,)).status is OK
    for not_a_witness in (
        dataclasses.replace(near, source_id="feed"),
        dataclasses.replace(near, kind=FeedKind.CONSTANT),
        dataclasses.replace(near, base="BTC"),
        dataclasses.replace(near, mantissa=0),
        NO_DATA,
    ):
        finding = check("jump", reading, history=(last,), peers=(not_a_witness,))
        assert finding.status is VIOLATED
        assert finding.actions == {GuardAction.PAUSE}
        assert "no second source" in finding.message


def test_a_jump_that_peers_contradict_is_rejected() -> None:
    last, reading = after(60, 5_000)
    elsewhere = dataclasses.replace(last, source_id="peer")
    finding = check("jump", reading, history=(last,), peers=(elsewhere,))
    assert finding.status is VIOLATED
    assert GuardAction.REJECT in finding.actions
    assert "contradicted" in finding.message


def test_a_jump_is_measured_across_scales() -> None:
    last, reading = after(60, 9_500)
    wide = dataclasses.replace(reading, mantissa=reading.mantissa * 10**10, decimals=18)
    assert check("jump", wide, history=(last,)).observed == "500 bps in 60 s"
