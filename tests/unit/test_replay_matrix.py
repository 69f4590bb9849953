"""Each guard alone is the one that the scenario holds its feeds to; a market reads feeds that are there."""

from __future__ import annotations

import re
import tomllib

import pytest

from contracts_abi.errors import InputError
from oracle.incidents import incident_ids
from oracle.scenario import load_scenario
from simulation.replay.build import run_replay
from simulation.replay.matrix import matrix_guards, matrix_of
from simulation.replay.seams import guards_of, replay
from tests.replay_scenario import BOUND, scenario


@pytest.mark.parametrize("incident", incident_ids())
def test_the_guards_that_are_tried_alone_are_those_of_the_replay(incident: str) -> None:
    played = load_scenario(incident)
    assert sorted(map(repr, matrix_guards(played))) == sorted(map(repr, guards_of(played)))


def test_a_threshold_of_the_policy_is_the_one_that_is_tried() -> None:
    set_so = scenario(policy={"max_age_s": 1_234, "bound_eps_bps": 77, "cross_dev_bps": 88})
    grid = matrix_of(replay(set_so), None, {})
    alone = {row.name: row.parameters for row in grid.alone}
    assert alone["stale"] == {"max_age_s": "1234"}
    assert alone["bound"] == {"epsilon_bps": "77"}
    assert alone["cross_dev"] == {"cap_bps": "88"}
    own = {(p.name, p.value) for p in grid.sweep if p.default}
    assert {("stale", "1234"), ("bound", "77")} <= own


def test_a_policy_without_guards_tries_none() -> None:
    assert matrix_guards(scenario(policy={"guards": []}, expect=[])) == ()


REFERENCE = {"kind": "chainlink", "role": "reference", "pair": "COIN/USD", "heartbeat_s": 3_600}


@pytest.mark.parametrize(
    ("feed", "says"),
    [
        ("COIN/USDD", "feed in protocol.markets.COIN: 'COIN/USDD'"),
        ("second", "protocol.markets.COIN: second is a reference, which no protocol reads"),
    ],
)
def test_a_market_reads_a_feed_that_is_there_and_is_its_own(feed: str, says: str) -> None:
    raw = tomllib.loads(BOUND)
    raw["feeds"]["second"] = REFERENCE | {"deviation_bps": 50}
    raw["protocol"]["markets"]["COIN"]["feed"] = feed
    wrong = scenario(feeds=raw["feeds"], protocol=raw["protocol"])
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        run_replay(wrong, tool_version="test", matrix=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("price", ["1e400", "1e999999999", "1e-400", "0." + "0" * 80 + "1"])
def test_a_figure_that_no_contract_could_hold_is_refused_before_it_is_a_number(price: str) -> None:
    raw = tomllib.loads(BOUND)
    raw["positions"][0]["collateral"]["COIN"] = price
    with pytest.raises(InputError, match="80 places before or after the point"):
        scenario(positions=raw["positions"])
