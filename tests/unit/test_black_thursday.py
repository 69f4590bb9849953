"""The packaged Black Thursday scenario: its shape, and its figures against the archives they come from."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from oracle.scenario import PointStatus, Scenario, base_fee_wei, feed_rounds, load_scenario, truth_e8

DATA = Path(__file__).parents[3] / "shared" / "data"
ID = "black-thursday-2020-03-12"


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return load_scenario(ID)


def at(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp())


def test_the_clock_has_72_steps(scenario: Scenario) -> None:
    assert len(scenario.steps()) == 73
    assert scenario.steps()[0] == at("2020-03-12T09:00")
    assert scenario.steps()[-1] == at("2020-03-13T03:00")


def test_the_eth_feed_goes_stale_above_the_market(scenario: Scenario) -> None:
    rounds = feed_rounds(scenario, "ETH/USD")
    frozen_from, frozen_to = at("2020-03-12T10:15"), at("2020-03-12T11:30")
    assert not [r for r in rounds if frozen_from <= r.t < frozen_to]
    before = max((r for r in rounds if r.t < frozen_from), key=lambda r: r.t)
    low, _ = truth_e8(scenario, "ETH/USD", at("2020-03-12T10:45"))
    assert low == 125_00000000
    assert before.answer_e8 > low * 13 // 10
    assert rounds[rounds.index(before) + 1].t == frozen_to


def test_the_btc_feed_prints_low_for_two_steps(scenario: Scenario) -> None:
    wrong = [r for r in feed_rounds(scenario, "BTC/USD") if r.reason == "fault"]
    assert wrong[0].t == at("2020-03-12T19:00")
    assert all(r.t < at("2020-03-12T19:30") for r in wrong)
    assert all(abs(r.answer_e8 * 10 - r.truth_e8 * 7) <= 10 for r in wrong)


def test_the_staked_token_goes_stale_with_ether(scenario: Scenario) -> None:
    assert [r.t for r in feed_rounds(scenario, "wstETH/USD")] == [
        r.t for r in feed_rounds(scenario, "ETH/USD")
    ]


@pytest.mark.parametrize("asset", ["WETH", "WBTC", "wstETH", "USDC", "DAI"])
def test_references_stay_within_ten_basis_points(scenario: Scenario, asset: str) -> None:
    pair = scenario.assets[asset].pair
    assert pair is not None
    answers = {r.t: r.answer_e8 for r in feed_rounds(scenario, f"{pair} reference")}
    last = 0
    for t in scenario.steps():
        last = answers.get(t, last)
        true, _ = truth_e8(scenario, pair, t)
        assert abs(true - last) * 10_000 <= 10 * last


def test_only_eth_and_btc_claim_to_be_documented(scenario: Scenario) -> None:
    for pair, truth in scenario.truth.items():
        documented = all(p.status is PointStatus.DOCUMENTED for p in truth.points) and bool(truth.points)
        assert documented == (pair in ("ETH/USD", "BTC/USD")), pair


def test_both_faults_are_marked_as_ours(scenario: Scenario) -> None:
    assert [f.op for f in scenario.faults] == ["freeze", "scale"]
    assert all(f.ours for f in scenario.faults)


@pytest.mark.parametrize("coin", ["ETH", "BTC"])
def test_prices_are_those_of_the_hourly_archive(scenario: Scenario, coin: str) -> None:
    path = DATA / "hourly" / f"{coin}USDT_1h_2017-08_2021-06.csv.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    candles = {}
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            if row["date"].startswith("2020-03-1"):
                stamp = datetime.strptime(row["date"], "%Y-%m-%d %I-%p").replace(tzinfo=UTC)
                candles[int(stamp.timestamp())] = row
    for point in scenario.truth[f"{coin}/USD"].points:
        if point.note.startswith("low"):
            hour = point.t - point.t % 3600
            assert float(candles[hour]["low"]) == float(point.price), point
        else:
            assert float(candles[point.t - 3600]["close"]) == float(point.price), point


def test_gas_is_that_of_the_ten_minute_archive(scenario: Scenario) -> None:
    path = DATA / "maker_2020_03" / "gas_03-12-2020.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    means = {
        int(datetime.fromisoformat(row["timestamp"]).timestamp()): row["avgGasDay"]
        for row in json.loads(path.read_text())["data"]
    }
    assert scenario.gas is not None
    for point in scenario.gas.points:
        if point.status is PointStatus.DOCUMENTED:
            assert round(means[point.t] / 1e9, 1) == float(point.base_fee_gwei)
    assert max(means.values()) == pytest.approx(base_fee_wei(scenario, at("2020-03-12T17:50")), rel=1e-3)
