"""Incidents of the library before the real Aave V3: every price and every loss is what was computed."""

from __future__ import annotations

import pytest

from oracle.scenario import load_scenario
from simulation.chain import revm
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.plays.play import LEAD_S
from simulation.chain.plays.scenario import play_on_chain

PLAYED = {
    "venus-luna-2022-05-12": "a feed at its lower bound",
    "morpho-paxg-2024-10-13": "a scale off by 1e12",
    "rho-2024-07-19": "feeds changed over",
    "moonwell-cbeth-2026-02-15": "a leg left out",
    "aave-capo-2026-03-10": "a cap set wrong",
    "scream-fusd-dei-2022-05-16": "a dollar written down",
    "stream-xusd-2025-11-03": "a book value written down",
    "maker-black-thursday-2020-03-12": "a delayed price",
    "polter-2024-11-17": "a pair in the middle of a flash swap",
    "inverse-inv-2022-04-02": "a pair's mean of fifteen seconds",
    "bzx-2020-02-18": "a pair's price of the moment",
    "rari-vesper-vusd-2021-11-02": "an average over a pool that is emptied",
}


@pytest.mark.parametrize("incident", PLAYED)
def test_the_chain_says_what_the_model_says(incident: str) -> None:
    if not revm.available():
        pytest.skip("pyrevm has wheels for CPython 3.11 and 3.12 only")
    scenario = load_scenario(incident)
    evm = revm.RevmEvm(timestamp=scenario.clock.start - LEAD_S)
    played = play_on_chain(scenario, evm)
    assert played.parted == ()
    assert len(played.said) == len(scenario.steps())


@pytest.mark.parametrize("backend", ["revm", "anvil"])
def test_emptying_a_pool_costs_what_it_cost(backend: str) -> None:
    scenario = load_scenario("rari-vesper-vusd-2021-11-02")
    start = scenario.clock.start - LEAD_S
    if backend == "anvil":
        with Anvil.start(AnvilOptions(timestamp=start)) as node:
            played = play_on_chain(scenario, node.evm())
    elif revm.available():
        played = play_on_chain(scenario, revm.RevmEvm(timestamp=start))
    else:
        pytest.skip("pyrevm has wheels for CPython 3.11 and 3.12 only")
    assert played.parted == ()
    paid, fees, impact, lost = played.costs
    # 232,000 USDC for the 222,000 VUSD of the pool is what was published.
    assert "paid 231916.332067 USDC (231916332067 raw)" in paid
    assert "got 221999.99" in paid
    assert fees.endswith("fees 115.958167 USDC (115958167 raw), 115.96 USD")
    assert impact.endswith("price impact 9800.3739 USDC (9800373900 raw), 9800.37 USD")
    assert lost.endswith("9916.332067 USDC (9916332067 raw), 9916.33 USD, USDC counted as 1 USD")
