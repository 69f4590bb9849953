"""From a scenario to its script, and the command that plays it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from contracts_abi.errors import CheckFailed, InputError
from keeper.commands import oracle_play
from simulation.chain import revm
from simulation.chain.plays import scenario as seam
from simulation.chain.plays.play import LEAD_S
from simulation.replay.lending import AaveModel
from simulation.replay.market import Pricing, Setting
from tests.chain.test_plays import START, Script, at_its_bound

pytestmark = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)


def setting(given: Script, via: str | None = None) -> Setting:
    return Setting(
        model=AaveModel(given.markets),
        positions=tuple(given.positions),
        borrowers=tuple(given.borrowers),
        keepers=tuple(given.keepers),
        pricing={
            "LUNA": Pricing("LUNA/USD", "LUNA/USD", via),
            "USDC": Pricing("USDC/USD", None, None),
        },
        quote="USD",
        exact=True,
        notes=(),
    )


@pytest.fixture
def luna(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a scenario, with its replay and its market as they come from their own modules."""
    given = at_its_bound()
    world = given.worlds["LUNA/USD"]
    monkeypatch.setattr(seam, "setting_of", lambda _scenario: setting(given))
    monkeypatch.setattr(seam, "steps_of", lambda *_: given.steps)
    monkeypatch.setattr(seam, "replay", lambda _scenario: None)
    monkeypatch.setattr(seam, "truth_at", lambda _s, pair, t: world.truth[pair][world.steps.index(t)])
    monkeypatch.setattr(
        seam, "import_module", lambda _name: SimpleNamespace(play=lambda _scenario: given.played)
    )
    return SimpleNamespace(
        id="luna-by-hand",
        feeds=given.models,
        faults=(),
        truth=world.truth,
        steps=lambda: world.steps,
        chain=SimpleNamespace(block_time_s=3),
        clock=SimpleNamespace(start=START),
    )


def test_a_scenario_is_played(luna: Any) -> None:
    played = seam.play_on_chain(luna, revm.RevmEvm(timestamp=START - LEAD_S))
    assert played.parted == ()
    assert played.id == "luna-by-hand"
    assert played.said[-1].prices["LUNA"] == 10_700_000
    assert played.economics.bad_debt > 4_000_000


def test_acts_go_to_their_feed_and_faults_of_readers_to_the_stand(luna: Any) -> None:
    act, bend = (SimpleNamespace(kind="k", feed="LUNA/USD", stage=stage) for stage in ("mechanism", "output"))
    luna.faults = (act, bend)
    script = seam.script_of(luna)
    assert script.worlds["LUNA/USD"].acts == (act,)
    assert script.faults == [bend]
    assert script.reads == {"LUNA": "LUNA/USD"}
    luna.faults = (SimpleNamespace(kind="scale", feed="LUNA/USD", stage="input"),)
    with pytest.raises(InputError, match="'scale' bends what the providers of LUNA/USD see"):
        seam.script_of(luna)


def test_what_has_no_market_is_refused(luna: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "setting_of", lambda _scenario: None)
    with pytest.raises(InputError, match="luna-by-hand names no protocol"):
        seam.script_of(luna)
    monkeypatch.setattr(seam, "setting_of", lambda _scenario: setting(at_its_bound(), via="ETH/USD"))
    with pytest.raises(InputError, match="LUNA is valued through a second pair"):
        seam.script_of(luna)


def test_the_command_tells_what_the_contracts_said(
    luna: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(oracle_play, "load_scenario", lambda _source: luna)
    oracle_play.play("luna-by-hand", backend="revm", as_json=True)
    record = json.loads(capsys.readouterr().out)
    assert [step["prices"]["LUNA"] for step in record["steps"]][-2:] == [10_700_000] * 2
    assert record["parted"] == []
    assert float(record["bad_debt_usd"]) > 4_000_000
    oracle_play.play("luna-by-hand", backend="anvil", as_json=False)
    assert "bad_debt_usd" in capsys.readouterr().err
    with pytest.raises(InputError, match="unknown backend 'geth'"):
        oracle_play.play("luna-by-hand", backend="geth", as_json=True)


def test_the_command_fails_where_chain_and_computation_part(
    luna: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oracle_play, "load_scenario", lambda _source: luna)
    wrong = at_its_bound().played["LUNA/USD"]
    less = type(wrong)(wrong.feed, (*wrong.readings[1:], wrong.readings[-1]), wrong.contexts)
    module = SimpleNamespace(play=lambda _scenario: {"LUNA/USD": less})
    monkeypatch.setattr(seam, "import_module", lambda _name: module)
    with pytest.raises(CheckFailed, match="1 values part, first feed LUNA/USD: chain 20000000, computed 107"):
        oracle_play.play("luna-by-hand", backend="revm", as_json=True)
