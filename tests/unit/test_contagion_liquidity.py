"""Liquidity that leaves: at a given step, and with realised volatility."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contracts_abi.errors import InputError
from simulation.contagion.batch import YEAR_S, Batch
from simulation.contagion.channels.impact import DAY_S, Flight, ImpactChannel
from simulation.contagion.engine import Run, run_paths
from simulation.contagion.impact import build
from simulation.contagion.metrics import path_columns
from simulation.types import Float64
from tests.contagion_books import EVERYTHING, moving_run, one_pair_book, run_of, several_venues

MARKETS: dict[str, dict[str, Any]] = {
    "linear": {"per_dollar": 1e-6},
    "square-root": {"volatility": 0.03, "volume_tokens": 1e5},
    "depth": {"depth_tokens": 1e6},
    "cont-schaanning": {"depth_usd": 1e6, "floor_price": 0.1},
    "cpmm": {"tokens": 1e6, "cash": 1e6},
    "table": {"size": (100.0, 1_000.0, 1e6), "slippage": (0.001, 0.02, 0.3)},
}
DT = 600.0


def crash(settings: dict[str, Any], *, steps: int = 4, market: dict[str, Any] | None = None) -> Run:
    """The price falls by a fifth at once, and one account of 100,000 is sold into the market."""
    table = {"model": "linear", "per_dollar": 1e-6} if market is None else market
    channels = {"keepers": {}, "impact": {"tokens": {"ETH": table}, **settings}}
    book = one_pair_book([1e5], [7e4], kind="aave-v3")
    return run_of(book, channels, steps=steps, shock=float(np.log(0.8)), dt_s=DT)


def left(run: Run) -> float:
    return float(run_paths(run, 1, 0, 1).extra["impact.liquidity_left.ETH"][0])


def moved(run: Run) -> Float64:
    """Return by what our sales moved the logarithm of the price in each step."""
    series = run_paths(run, 1, 0, 1, record=True).series["market"][0, :, 0]
    return np.asarray(np.log(series / 0.8))


def test_what_leaves_before_a_sale_makes_the_sale_move_more() -> None:
    deep = {"model": "linear", "per_dollar": 1e-8}
    whole = moved(crash({}, market=deep))
    gone = moved(crash({"withdrawals": [{"token": "ETH", "step": 1, "share": 0.5}]}, market=deep))
    # As much is sold in the first step: into half of the depth, which moves the price twice as far.
    assert whole[0] < -1e-4
    assert gone[0] == pytest.approx(2 * whole[0], rel=1e-6)
    late = moved(crash({"withdrawals": [{"token": "ETH", "step": 2, "share": 0.5}]}, market=deep))
    assert late[0] == whole[0]


def test_parts_are_of_what_is_there_by_then() -> None:
    both = [{"token": "ETH", "step": 2, "share": 0.5}, {"token": "ETH", "step": 3, "share": 0.2}]
    assert left(crash({"withdrawals": both})) == pytest.approx(0.4)
    # Step 9 is never reached.
    assert left(crash({"withdrawals": [{"token": "ETH", "step": 9, "share": 0.5}]})) == 1.0


def test_nothing_leaves_without_being_asked() -> None:
    assert not [name for name in run_paths(crash({}), 1, 0, 1).extra if name.startswith("impact")]


def test_volatility_drives_liquidity_away_by_the_formula() -> None:
    flight = {"rate": 3.0, "calm": 0.5, "half_life_s": 1_200.0}
    run = crash({"flight": flight}, steps=3, market={"model": "depth", "depth_tokens": 1e12})
    keep = 0.5 ** (600 / 1200)
    first = keep * 0.25 + (1 - keep) * np.log(0.8) ** 2 * YEAR_S / 600
    variances = [first, keep * first, keep**2 * first]
    days = 600 / 86_400
    expected = np.exp(-sum(3.0 * (np.sqrt(v) - 0.5) * days for v in variances))
    assert left(run) == pytest.approx(expected, rel=1e-6)
    # In a calm market nobody leaves, and never more than all.
    assert left(crash({"flight": {**flight, "calm": 1e3}})) == 1.0
    variance, whole = np.array([4.0]), np.ones(1)
    assert Flight(rate=1.0, calm=1.0).share(variance, whole, DAY_S) == pytest.approx([1 - np.exp(-1.0)])
    assert Flight(rate=1e9, stays=0.1).share(variance, 0.4 * whole, DAY_S) == pytest.approx([0.75])
    assert Flight(rate=1e9, stays=0.5).share(variance, 0.4 * whole, DAY_S) == pytest.approx([0.0])


@pytest.mark.parametrize("kind", ["linear", "square-root", "depth", "cont-schaanning", "cpmm", "table"])
def test_what_leaves_takes_its_tokens_along_and_no_price_moves(kind: str) -> None:
    table = {"model": kind, **MARKETS[kind]}
    run = crash({"withdrawals": [{"token": "ETH", "step": 3, "share": 0.25}]}, market=table)
    stays = crash({}, market=table)
    (channel,) = (c for c in run.channels if isinstance(c, ImpactChannel))
    held: list[tuple[float, float]] = []

    def watch(batch: Batch) -> None:
        memo = batch.memos["impact"]
        tokens, cash = memo.models[0].holdings(memo.states[0])
        held.append((float(tokens[0]), float(cash[0])))

    after = run_paths(run, 1, 0, 1, record=True, watch=watch)
    before = run_paths(stays, 1, 0, 1, record=True)
    # It is gone at the end of step 2: pools hold three quarters of both, books hold nothing.
    model = build(table)
    start = model.holdings(model.start(1))[0][0]
    assert (held[0][0] > 0.0) == (start > 0.0)
    for name in range(2):
        assert held[1][name] == pytest.approx(0.75 * held[0][name], rel=1e-2)
    assert after.imbalance.max() <= 1e-12
    assert after.series["market"][0, 1] == pytest.approx(before.series["market"][0, 1], rel=1e-12)
    assert channel.withdrawals[0].share == 0.25


def test_tokens_are_conserved_with_all_that_acts_and_batches_change_nothing() -> None:
    settings = {
        **EVERYTHING,
        "impact": {
            **EVERYTHING["impact"],
            "withdrawals": [{"token": "stETH", "step": 4, "share": 0.6}],
            "flight": {"rate": 0.3, "calm": 2.0},
        },
    }
    run = moving_run(several_venues(40, seed=3), settings, steps=16)
    whole = path_columns(run_paths(run, 2, 0, 5), run.dt_s)
    parts = [path_columns(run_paths(run, 2, first, 1), run.dt_s) for first in range(5)]
    assert all((np.concatenate([p[name] for p in parts]) == whole[name]).all() for name in whole)
    gone = whole["impact.liquidity_left.stETH"]
    assert ((gone > 0.05) & (gone < 0.4)).all()
    assert len(set(gone)) == 5
    assert run_paths(run, 2, 0, 5).imbalance.max() <= 1e-9


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"withdrawals": [{"token": "USD", "step": 1, "share": 0.5}]}, "USD"),
        ({"withdrawals": [{"token": "ETH", "step": 0, "share": 0.5}]}, "step"),
        ({"withdrawals": [{"token": "ETH", "step": 1, "share": 1.0}]}, "share"),
        ({"flight": {"rate": -1.0}}, "rate"),
        ({"flight": {"pace": 1.0}}, "pace"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        replace(crash(settings), steps=2)
