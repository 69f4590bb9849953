"""Incidents of the oracle layer over a simulation: the same error, at any price level."""

from __future__ import annotations

import numpy as np
import pytest

from contracts_abi.errors import InputError
from oracle.replay import replay
from oracle.scenario import load_scenario
from simulation.contagion.engine import run_paths
from simulation.contagion.state import Total
from simulation.contagion.told import told
from tests.contagion_books import one_pair_book, run_of

INCIDENT = "aave-capo-2026-03-10"


def feed_of_incident() -> str:
    moments = replay(load_scenario(INCIDENT)).moments
    worst = {name: min(m.feeds[name].deviation_bps or 0 for m in moments) for name in moments[0].feeds}
    return min(worst, key=lambda name: worst[name])


def test_an_incident_bends_prices_as_much_as_it_did_there() -> None:
    feed = feed_of_incident()
    said = told(INCIDENT, feed, steps=2_000, dt_s=60.0)
    # The published misconfiguration: 1.1939 against 1.2288.
    assert np.nanmin(said.ratio) == pytest.approx(1.1939 / 1.2288, abs=2e-4)
    lied = np.nanmin(said.ratio)
    book = one_pair_book([100.0, 100.0], [80.0 * lied * 1.001, 80.0 * lied * 0.999], kind="aave-v3")
    incident = {"token": "ETH", "source": INCIDENT, "feed": feed}
    settings = {"oracle": {"incidents": [incident]}, "keepers": {}}
    result = run_paths(run_of(book, settings, steps=2_000, dt_s=60.0), 1, 0, 1)
    # Only the account whose threshold lies between the truth and the lie is liquidated.
    assert result.totals[0, 0, Total.LIQUIDATIONS] >= 1
    assert result.totals[0, 0, Total.REPAID] <= 80.0 * lied * 1.001


def test_guarded_nobody_acts_on_the_lie() -> None:
    feed = feed_of_incident()
    said = told(INCIDENT, feed, steps=2_000, dt_s=60.0)
    lies = said.ratio < 0.98
    assert lies.any()
    if said.allowed[lies].any():
        pytest.skip("the guards of this incident let liquidations through in some moments")
    book = one_pair_book([100.0], [79.0], kind="aave-v3")
    incident = {"token": "ETH", "source": INCIDENT, "feed": feed, "guarded": True}
    settings = {"oracle": {"incidents": [incident]}, "keepers": {}}
    result = run_paths(run_of(book, settings, steps=2_000, dt_s=60.0), 1, 0, 1)
    assert result.totals[0, 0, Total.LIQUIDATIONS] == 0


def test_an_unknown_feed_or_incident_is_named() -> None:
    with pytest.raises(InputError, match="no-such"):
        told(INCIDENT, "no-such-feed", 1, 1.0)
    with pytest.raises(InputError, match="no-such"):
        told("no-such-incident", "feed", 1, 1.0)


def test_a_run_with_an_unknown_feed_is_refused_before_it_begins() -> None:
    incident = {"token": "ETH", "source": INCIDENT, "feed": "ETH"}
    with pytest.raises(InputError, match="ETH/USD"):
        run_of(one_pair_book([1.0], [0.1]), {"oracle": {"incidents": [incident]}}, steps=1)
