"""From a scenario to its script, and the command that plays it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from contracts_abi.errors import CheckFailed, InputError
from keeper.commands import oracle_play
from oracle.incidents import incident_path
from oracle.replay import play
from oracle.scenario import Scenario, load_scenario, parse_scenario
from simulation.chain import revm
from simulation.chain.plays import scenario as seam
from simulation.chain.plays.play import LEAD_S

pytestmark = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)

LUNA = "venus-luna-2022-05-12"


@pytest.fixture
def luna() -> Scenario:
    return load_scenario(LUNA)


def test_the_script_has_the_feeds_and_accounts_of_the_scenario(luna: Scenario) -> None:
    script = seam.script_of(luna)
    assert script.id == LUNA
    assert script.reads == {"LUNA": "LUNA/USD"}
    assert set(script.worlds) == set(luna.feeds)
    assert len(script.positions) == len(luna.positions)


def test_faults_of_readers_go_to_the_stand_and_those_of_providers_to_the_mechanism() -> None:
    text = incident_path(LUNA).read_text()
    bend = (
        '[[faults]]\nop = "scale"\nfeed = "LUNA/USD"\nat = 2022-05-12T13:00:00Z\n'
        'num = 2\nden = 1\nstage = "{}"\n'
    )
    script = seam.script_of(parse_scenario(f"{text}\n{bend.format('output')}".encode()))
    assert [fault.kind for fault in script.faults] == ["scale"]
    script = seam.script_of(parse_scenario(f"{text}\n{bend.format('input')}".encode()))
    world = script.worlds["LUNA/USD"]
    assert world.seen["LUNA/USD"][-1] == 2 * world.truth["LUNA/USD"][-1]
    assert script.faults == []


def test_what_has_no_market_is_refused() -> None:
    with pytest.raises(InputError, match="names no protocol"):
        seam.script_of(load_scenario("black-thursday-2020-03-12"))


def test_the_command_tells_what_the_contracts_said(capsys: pytest.CaptureFixture[str]) -> None:
    oracle_play.play(LUNA, backend="revm", as_json=True)
    record = json.loads(capsys.readouterr().out)
    assert record["steps"][-1]["prices"]["LUNA"] == 10_700_000
    assert record["parted"] == []
    assert float(record["bad_debt_usd"]) > 1_000_000
    oracle_play.play(LUNA, backend="anvil", as_json=False)
    told = capsys.readouterr().out
    assert "every value is as computed" in told
    assert "0.10700000" in told
    assert "bad debt $9." in told
    with pytest.raises(InputError, match="unknown backend 'geth'"):
        oracle_play.play(LUNA, backend="geth", as_json=True)


def test_the_command_fails_where_chain_and_computation_part(
    luna: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = dict(play(luna))
    name = next(iter(played))
    feed = played[name]
    readings = (*feed.readings[:-1], feed.readings[0])
    wrong = played | {name: dataclasses.replace(feed, readings=readings)}
    monkeypatch.setattr(seam, "play", lambda _scenario: wrong)
    with pytest.raises(CheckFailed, match=r"values part, first feed"):
        oracle_play.play(LUNA, backend="revm", as_json=True)


RARI = "rari-vesper-vusd-2021-11-02"


def test_ticks_blocks_liquidity_and_gas_play_on_chain() -> None:
    text = incident_path(RARI).read_text(encoding="utf-8")
    head, _, rest = text.partition("[[faults]]")
    _, _, tail = rest.partition("[protocol]")
    faults = """
[[faults]]
op = "set_liquidity"
feed = "VUSD/USDC"
at = 2021-11-02T21:00:00Z
until = 2021-11-02T21:30:00Z
times = "0.5"

[[faults]]
op = "manip_twap"
feed = "VUSD/USDC"
at_block = 302
tick = 200000
blocks = 24

[[faults]]
op = "gas"
feed = "VUSD/USDC"
at = 2021-11-02T21:05:00Z
gwei = "900"
cap_gwei = "500"

[protocol]"""
    scenario = parse_scenario(f"{head}{faults}{tail}".encode())
    started = scenario.clock.start + 302 * 13
    assert [(f.at, f.until) for f in scenario.faults[1:2]] == [(started, started + 24 * 13)]
    played = seam.play_on_chain(scenario, revm.RevmEvm(timestamp=scenario.clock.start - LEAD_S))
    assert played.parted == ()
    paid, fees, *_ = played.costs
    assert "held the price for 312 s, swaps: 1, paid 115958.1" in paid, "half of the liquidity was there"
    assert fees.endswith("57.98 USD")


def test_a_pool_of_which_nothing_is_known_is_refused_in_one_line() -> None:
    text = incident_path(RARI).read_text(encoding="utf-8")
    bare = "\n".join(line for line in text.splitlines() if not line.startswith("liquidity = ["))
    scenario = parse_scenario(bare.encode())
    with pytest.raises(InputError, match="says of no liquidity where it stands") as caught:
        seam.play_on_chain(scenario, revm.RevmEvm(timestamp=scenario.clock.start - LEAD_S))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("incident", "message"),
    [
        ("cream-yusd-2021-10-27", "unknown rig of a feed kind 'erc4626'"),
        ("cheese-bank-2020-11-06", "names no protocol"),
    ],
)
def test_what_has_no_rig_or_no_market_is_refused_in_one_line(incident: str, message: str) -> None:
    scenario = load_scenario(incident)
    with pytest.raises(InputError, match=message) as caught:
        seam.play_on_chain(scenario, revm.RevmEvm(timestamp=scenario.clock.start - LEAD_S))
    assert "\n" not in str(caught.value)
