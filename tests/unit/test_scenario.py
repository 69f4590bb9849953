"""Scenario files: what is refused, and how truth, gas and rounds come out of a small one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from contracts_abi.errors import InputError, UnknownNameError
from oracle.incidents import incident_ids
from oracle.mechanisms.chainlink import ChainlinkFeed
from oracle.replay import play
from oracle.scenario import (
    RoundReason,
    Scenario,
    assets_touched,
    base_fee_wei,
    feed_name,
    feed_rounds,
    json_schema,
    load_scenario,
    parse_scenario,
    truth_e8,
)

T0 = 1_583_971_200  # 2020-03-12T00:00:00Z

SMALL = """
schema = "oracle-scenario/1"
id = "small"
title = "Six steps of a minute"

[chain]
id = 1
block_time_s = 12

[clock]
start = 2020-03-12T00:00:00Z
end = 2020-03-12T00:06:00Z
step_s = 60

[assets]
WETH = { decimals = 18, pair = "ETH/USD" }
USD = { decimals = 8 }

[truth."ETH/USD"]
points = [
  { t = 2020-03-12T00:00:00Z, price = "100", status = "documented", source = "a" },
  { t = 2020-03-12T00:03:00Z, price = "103", status = "documented", source = "a" },
  { t = 2020-03-12T00:06:00Z, price = "103", status = "stated", source = "b" },
]

[truth."stETH/USD".derived]
of = "ETH/USD"
num = 9
den = 10
status = "stated"
source = "ours"

[feeds."ETH/USD"]
kind = "chainlink"
heartbeat_s = 120
deviation_bps = 150

[feeds."stETH/USD"]
kind = "composite"
derive_from = { feed = "ETH/USD", num = 9, den = 10 }

[feeds.second]
kind = "chainlink"
role = "reference"
pair = "ETH/USD"
heartbeat_s = 600
deviation_bps = 1

[gas]
points = [
  { t = 2020-03-12T00:00:00Z, base_fee_gwei = "10", status = "documented", source = "a" },
  { t = 2020-03-12T00:06:00Z, base_fee_gwei = "16.000000001", status = "stated", source = "b" },
]
"""


def with_faults(*faults: str) -> Scenario:
    return parse_scenario((SMALL + "".join(f"\n[[faults]]\n{f}\n" for f in faults)).encode())


def small() -> Scenario:
    return with_faults()


def minutes(rounds: list) -> list[tuple[int, int, str]]:
    return [((r.t - T0) // 60, r.answer_e8, r.reason.value) for r in rounds]


def test_the_grid_has_both_ends() -> None:
    assert small().steps() == [T0 + 60 * i for i in range(7)]


def test_truth_between_points_is_exact_and_says_so() -> None:
    scenario = small()
    assert truth_e8(scenario, "ETH/USD", T0) == (100_00000000, "documented")
    assert truth_e8(scenario, "ETH/USD", T0 + 60) == (101_00000000, "interpolated")
    assert truth_e8(scenario, "ETH/USD", T0 + 1) == (100_01666667, "interpolated")
    assert truth_e8(scenario, "ETH/USD", T0 + 240) == (103_00000000, "stated")
    assert truth_e8(scenario, "stETH/USD", T0 + 60) == (90_90000000, "stated")


def test_truth_is_not_extrapolated() -> None:
    for t in (T0 - 1, T0 + 361):
        with pytest.raises(InputError, match="no figure at 2020-03-1"):
            truth_e8(small(), "ETH/USD", t)
    with pytest.raises(UnknownNameError, match="did you mean 'ETH/USD'"):
        truth_e8(small(), "ETH/USDT", T0)


def test_base_fee_is_interpolated_to_the_wei() -> None:
    assert base_fee_wei(small(), T0) == 10 * 10**9
    assert base_fee_wei(small(), T0 + 180) == 13_000_000_000  # 13.0000000005 gwei, half to even
    assert base_fee_wei(small(), T0 + 360) == 16_000_000_001


def test_without_gas_there_is_no_base_fee() -> None:
    text = SMALL[: SMALL.index("[gas]")]
    with pytest.raises(InputError, match="has no gas series"):
        base_fee_wei(parse_scenario(text.encode()), T0)


def test_push_rule_first_deviation_heartbeat() -> None:
    # +1 % a minute is below 150 bps; from 100 to 102 it is above, and 103 waits for the heartbeat.
    assert minutes(feed_rounds(small(), "ETH/USD")) == [
        (0, 100_00000000, "first"),
        (2, 102_00000000, "deviation"),
        (4, 103_00000000, "heartbeat"),
        (6, 103_00000000, "heartbeat"),
    ]


def test_a_frozen_feed_is_silent_until_the_fault_ends() -> None:
    scenario = with_faults(
        'op = "freeze"\nfeed = "ETH/USD"\nat = 2020-03-12T00:01:00Z\nuntil = 2020-03-12T00:05:00Z'
    )
    assert minutes(feed_rounds(scenario, "ETH/USD")) == [
        (0, 100_00000000, "first"),
        (5, 103_00000000, "deviation"),
    ]


def test_a_scaled_feed_prints_the_wrong_value_and_comes_back() -> None:
    scenario = with_faults(
        'op = "scale"\nfeed = "ETH/USD"\nnum = 7\nden = 10\n'
        "at = 2020-03-12T00:01:00Z\nuntil = 2020-03-12T00:02:00Z"
    )
    assert minutes(feed_rounds(scenario, "ETH/USD"))[:3] == [
        (0, 100_00000000, "first"),
        (1, 70_70000000, "fault"),
        (2, 102_00000000, "deviation"),
    ]
    assert [r.truth_e8 for r in feed_rounds(scenario, "ETH/USD")][1] == 101_00000000


def test_faults_compose_and_leave_other_feeds_alone() -> None:
    half = 'op = "scale"\nfeed = "ETH/USD"\nnum = 1\nden = 2\nat = 2020-03-12T00:00:00Z\n'
    scenario = with_faults(*[half + "until = 2020-03-12T00:01:00Z"] * 2)
    assert feed_rounds(scenario, "ETH/USD")[0].answer_e8 == 25_00000000
    assert feed_rounds(scenario, "second")[0].answer_e8 == 100_00000000


def test_an_answer_out_of_bounds_is_not_transmitted() -> None:
    text = SMALL.replace("deviation_bps = 150", "deviation_bps = 150\nmax_answer = 10150000000")
    assert minutes(feed_rounds(parse_scenario(text.encode()), "ETH/USD")) == [(0, 100_00000000, "first")]


@pytest.mark.parametrize("bound", ["max_answer = 10300000000", "min_answer = 10000000000"])
def test_an_answer_at_a_bound_is_transmitted(bound: str) -> None:
    text = SMALL.replace("deviation_bps = 150", f"deviation_bps = 150\n{bound}")
    assert feed_rounds(parse_scenario(text.encode()), "ETH/USD") == feed_rounds(small(), "ETH/USD")


def test_a_change_by_exactly_the_threshold_calls_for_a_round() -> None:
    text = SMALL.replace("deviation_bps = 150", "deviation_bps = 100").replace(
        "heartbeat_s = 120", "heartbeat_s = 86400"
    )
    rounds = feed_rounds(parse_scenario(text.encode()), "ETH/USD")
    assert minutes(rounds)[:2] == [(0, 100_00000000, "first"), (1, 101_00000000, "deviation")]


def test_a_composite_feed_multiplies_what_its_base_published_at_its_scale() -> None:
    text = SMALL.replace(
        'kind = "chainlink"\nheartbeat_s = 120', 'kind = "chainlink"\ndecimals = 0\nheartbeat_s = 120'
    ).replace('price = "100"', 'price = "100.4"')
    first = feed_rounds(parse_scenario(text.encode()), "stETH/USD")[0]
    assert (first.answer_e8, first.truth_e8) == (90_00000000, 90_36000000)


def test_a_composite_feed_updates_with_its_base_and_inherits_its_fault() -> None:
    scenario = with_faults(
        'op = "freeze"\nfeed = "ETH/USD"\nat = 2020-03-12T00:01:00Z\nuntil = 2020-03-12T00:06:00Z'
    )
    assert minutes(feed_rounds(scenario, "stETH/USD")) == [
        (0, 90_00000000, "first"),
        (6, 92_70000000, "deviation"),
    ]


def test_a_fault_touches_the_tokens_of_its_feed_and_of_feeds_composed_from_it() -> None:
    scenario = load_scenario("black-thursday-2020-03-12")
    assert [assets_touched(scenario, f) for f in scenario.faults] == [("WETH", "wstETH"), ("WBTC",)]


def test_answers_come_at_the_feed_s_own_decimals() -> None:
    text = SMALL.replace(
        'kind = "chainlink"\nheartbeat_s = 120', 'kind = "chainlink"\ndecimals = 18\nheartbeat_s = 120'
    )
    first = feed_rounds(parse_scenario(text.encode()), "ETH/USD")[0]
    assert (first.answer, first.answer_e8) == (100 * 10**18, 100 * 10**8)


def test_feed_name_finds_the_feed_by_pair_and_role() -> None:
    assert feed_name(small(), "ETH/USD", "protocol") == "ETH/USD"
    assert feed_name(small(), "ETH/USD", "reference") == "second"
    with pytest.raises(InputError, match="has 0 reference feeds for stETH/USD"):
        feed_name(small(), "stETH/USD", "reference")


def test_the_hash_is_the_file_s() -> None:
    assert small().sha256 == hashlib.sha256(SMALL.encode()).hexdigest()


FREEZE = (
    '[[faults]]\nop = "freeze"\nfeed = "ETH/USD"\nat = 2020-03-12T00:01:00Z\nuntil = 2020-03-12T00:02:00Z\n'
)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "', 'titel = "', "f.toml: unknown key 'titel'; did you mean 'title'?"),
        (
            "heartbeat_s = 120",
            "heartbeat = 120",
            "f.toml: feeds.ETH/USD: unknown key 'heartbeat'; did you mean",
        ),
        ("step_s = 60", "", "f.toml: clock.step_s: is missing; add the key"),
        ("step_s = 60", "step_s = 7", "f.toml: clock: end - start = 360 s is not a multiple of step_s"),
        (
            "step_s = 60",
            "step_s = 0",
            "f.toml: clock.step_s: Input should be greater than or equal to 1, got 0",
        ),
        ('price = "103"', "price = 103.0", 'must be a quoted decimal, such as "169.54", got 103.0'),
        ('price = "103"', 'price = "-1"', "points.1.price: must be finite and above zero, got '-1'"),
        ('price = "103"', 'price = "NaN"', "must be finite and above zero, got 'NaN'"),
        ("t = 2020-03-12T00:03:00Z", "t = 2020-03-12T00:03:00", "has no time zone"),
        ("t = 2020-03-12T00:03:00Z", "t = 2020-03-12T00:09:00Z", "points must ascend in time"),
        (
            "t = 2020-03-12T00:06:00Z, price",
            "t = 2020-03-12T00:05:00Z, price",
            "truth.ETH/USD covers 2020-03-12T00:00:00Z to 2020-03-12T00:05:00Z",
        ),
        ("t = 2020-03-12T00:06:00Z, base", "t = 2020-03-12T00:05:00Z, base", "gas covers"),
        (
            'pair = "ETH/USD" }',
            'pair = "ETH/USDC" }',
            "unknown pair in assets.WETH.pair: 'ETH/USDC'; did you mean",
        ),
        ('status = "documented"', 'status = "known"', "points.0.status"),
        (
            "[gas]",
            FREEZE.replace("freeze", "delay") + "[gas]",
            "faults.0: s: is missing; add the key",
        ),
        (
            "[gas]",
            FREEZE.replace("freeze", "frezze") + "[gas]",
            "unknown fault op 'frezze'; did you mean 'freeze'",
        ),
        (
            "[gas]",
            FREEZE.replace('"ETH/USD"', '"ETH/USDT"') + "[gas]",
            "unknown feed in faults.0: 'ETH/USDT'; did you mean",
        ),
        ("[gas]", FREEZE.replace("00:02:00", "00:01:00") + "[gas]", "until must be after at"),
        ("[gas]", FREEZE.replace("T00:0", "T01:0") + "[gas]", "faults.0 lies outside the clock"),
        (
            'derive_from = { feed = "ETH/USD"',
            'derive_from = { feed = "BTC/USD"',
            "unknown feed in feeds.stETH/USD: 'BTC/USD'",
        ),
        (
            "deviation_bps = 150",
            "deviation_bps = 150\nmin_answer = 5\nmax_answer = 5",
            "min_answer must be below max_answer",
        ),
        (
            'schema = "oracle-scenario/1"',
            'schema = "oracle-scenario/2"',
            "schema: Input should be 'oracle-scenario/1', got 'oracle-scenario/2'",
        ),
    ],
)
def test_bad_input_is_one_line_that_names_the_key(old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(InputError) as caught:
        parse_scenario(SMALL.replace(old, new, 1).encode(), "f.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("data", [b"\xff\xfe", b"a = ", b"", b"[[[[", b"x = " + b"[" * 5000])
def test_bytes_that_are_no_scenario_are_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_scenario(data)


def test_load_by_path_and_by_id(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SMALL)
    assert load_scenario(path) == load_scenario(str(path)) == small()
    with pytest.raises(InputError, match="No such file"):
        load_scenario(tmp_path / "absent.toml")
    with pytest.raises(UnknownNameError, match="did you mean 'black-thursday-2020-03-12'"):
        load_scenario("black-thursday")
    with pytest.raises(UnknownNameError, match=r"'blizz-luna-2022-05-12' or 'venus-luna-2022-05-12'\?$"):
        load_scenario("luna")
    with pytest.raises(UnknownNameError, match=r"'zzzz'; `marginline oracle incidents` lists them$"):
        load_scenario("zzzz")


@pytest.mark.parametrize("incident", incident_ids())
def test_every_packaged_scenario_loads_and_plays(incident: str) -> None:
    scenario = load_scenario(incident)
    assert scenario.id == incident
    played = play(scenario)
    assert set(played) == set(scenario.feeds)
    for name, feed in scenario.feeds.items():
        assert len(played[name].readings) == len(played[name].contexts) == len(scenario.steps())
        if isinstance(feed, ChainlinkFeed):
            assert feed_rounds(scenario, name)[0].reason in (RoundReason.FIRST, RoundReason.FAULT)


def test_the_schema_exports_as_json_schema() -> None:
    schema = json.dumps(json_schema())
    assert "heartbeat_s" in schema
    assert '"date-time"' in schema
