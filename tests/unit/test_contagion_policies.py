"""Each policy: what it changes, and that it changes nothing else."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from contracts_abi.errors import InputError, UnknownNameError
from simulation.contagion.channels.oracle import OracleGuards
from simulation.contagion.engine import Run, run_paths
from simulation.contagion.policies import apply_policies, build_policy, policies
from simulation.contagion.state import Total
from simulation.contagion.world import VenueRules
from tests.contagion_books import EVERYTHING, moving_run, one_pair_book, run_of, several_venues

RUN = moving_run(several_venues(20, seed=4), EVERYTHING, steps=8)
VENUES = RUN.world.venues


def under(table: dict[str, Any], run: Run = RUN) -> Run:
    return apply_policies(run, [build_policy(table)])


def changed(before: Run, after: Run) -> set[str]:
    """Return what is not the same any more: of the run, of its world, of the venues' rules."""
    out = {
        f.name for f in fields(Run) if f.name != "world" and getattr(before, f.name) != getattr(after, f.name)
    }
    for field in fields(type(before.world)):
        a, b = getattr(before.world, field.name), getattr(after.world, field.name)
        if field.name == "rules":
            out |= {
                f"rules.{k}" for k in VenueRules._fields if not np.array_equal(getattr(a, k), getattr(b, k))
            }
        elif isinstance(a, np.ndarray):
            if not np.array_equal(a, b):
                out.add(field.name)
        elif a is not b and a != b:
            out.add(field.name)
    return out


CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "close-factor": ({"close_factor": 0.3}, {"rules.close_factor"}),
    "bonus": ({"bonus_bps": 333}, {"bonus"}),
    "bonus-curve": ({"slope": 0.5}, {"rules.bonus_slope", "rules.bonus_cap"}),
    "dynamic-bonus": ({}, {"rules.solvent_bonus"}),
    "halt-toxic": ({}, {"rules.halt_toxic"}),
    "liquidation-delay": ({"steps": 3}, {"rules.delay_steps"}),
    "supply-cap": ({"token": "stETH", "cap": 1.0}, {"coll", "debt", "cash"}),
    "threshold-shift": ({"shift_bps": -100}, {"lt"}),
    "oracle-guards": ({"guards": {"max_age_s": 60}}, {"channels"}),
    "circuit-breaker": ({"move_bps": 500}, {"channels"}),
    "portfolio-margin": ({}, {"lt", "shocks"}),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_policy_changes_what_it_says_and_nothing_else(kind: str) -> None:
    table, expected = CASES[kind]
    assert changed(RUN, under({"kind": kind, **table})) == expected
    assert changed(RUN, RUN) == set()


def test_every_policy_is_here() -> None:
    assert set(CASES) == set(policies)


@pytest.mark.parametrize("kind", [k for k in CASES if k not in ("oracle-guards", "circuit-breaker")])
def test_a_policy_of_one_venue_leaves_the_others_alone(kind: str) -> None:
    table, _ = CASES[kind]
    world, after = RUN.world, under({"kind": kind, **table, "venues": ["core"]}).world
    v = VENUES.index("core")
    elsewhere = np.arange(len(VENUES)) != v
    rows = world.row_venue != v
    for name in VenueRules._fields:
        a, b = getattr(world.rules, name), getattr(after.rules, name)
        np.testing.assert_array_equal(a[elsewhere], b[elsewhere])
    for name in ("coll", "debt", "lt", "ltv", "bonus"):
        np.testing.assert_array_equal(getattr(world, name)[rows], getattr(after, name)[rows])
    reserves = np.repeat(elsewhere, len(world.tokens))
    np.testing.assert_array_equal(world.cash[reserves], after.cash[reserves])
    if len(after.shocks):
        assert (after.shocks[:, reserves] == 1.0).all()


@pytest.mark.parametrize("kind", CASES)
def test_an_unknown_venue_is_refused_with_the_one_meant(kind: str) -> None:
    table, _ = CASES[kind]
    with pytest.raises(InputError) as refused:
        under({"kind": kind, **table, "venues": ["cor"]})
    if kind != "oracle-guards":  # it holds for all venues, and says so
        assert isinstance(refused.value, UnknownNameError)
        assert "did you mean 'core'" in str(refused.value)


def test_the_books_own_bonus_as_a_policy_changes_nothing() -> None:
    for kind in ("aave-v3", "compound-v3"):
        run = run_of(one_pair_book([1.0], [0.79], kind=kind, bonus_bps=800), {"keepers": {}}, steps=1)
        after = under({"kind": "bonus", "bonus_bps": 800}, run)
        np.testing.assert_allclose(after.world.bonus, run.world.bonus, rtol=1e-15)


def test_the_store_front_of_compound_sells_at_the_policys_penalty() -> None:
    run = run_of(
        one_pair_book([10.0], [900.0], price=100.0, kind="compound-v3", bonus_bps=800),
        {"keepers": {}},
        steps=1,
    )
    sold = []
    for tables in ([], [{"kind": "bonus", "bonus_bps": 2_500}]):
        result = run_paths(apply_policies(run, [build_policy(t) for t in tables]), 1, 0, 1)
        assert result.totals[0, 0, Total.LIQUIDATIONS] == 1.0
        sold.append(result.totals[0, 0, Total.REPAID])
    # 1,000 dollars of collateral, all of the penalty for the buyer.
    assert sold == pytest.approx([1_000.0 / 1.08, 1_000.0 / 1.25], rel=1e-12)


def test_a_supply_cap_keeps_shapes_and_balances() -> None:
    after = under({"kind": "supply-cap", "token": "stETH", "cap": 1.0, "venues": ["core"]}).world
    v, a = VENUES.index("core"), after.token("stETH")
    at = v * len(after.tokens) + a
    assert after.coll[after.coll_at == at].sum() == pytest.approx(1.0, rel=1e-12)
    world = RUN.world
    with np.errstate(divide="ignore", invalid="ignore"):
        before, now = (
            world.coll.sum(axis=1) / world.debt.sum(axis=1),
            after.coll.sum(axis=1) / after.debt.sum(axis=1),
        )
    np.testing.assert_allclose(before, now, rtol=1e-12)
    claims = after.reserves.idle + after.reserves.reserves
    debts = after.reserves.outside_debt.copy()
    np.add.at(claims, after.coll_at.ravel(), after.coll.ravel())
    np.add.at(debts, after.debt_at.ravel(), after.debt.ravel())
    np.testing.assert_allclose(after.cash, claims - debts, rtol=1e-9, atol=1e-6)
    run = replace(RUN, world=after)
    assert run_paths(run, 1, 0, 2).imbalance.max() < 1e-9


def test_guards_and_breakers_are_the_channels_with_these_settings() -> None:
    guards = next(
        c
        for c in under({"kind": "oracle-guards", "guards": {"max_age_s": 60}}).channels
        if c.kind == "oracle"
    )
    assert guards.guards == OracleGuards(max_age_s=60)
    own = next(c for c in RUN.channels if c.kind == "oracle")
    assert guards.model_copy(update={"guards": own.guards}) == own
    table = {
        "kind": "circuit-breaker",
        "move_bps": 700,
        "window_steps": 4,
        "pause_steps": 9,
        "venues": ["core"],
    }
    found = [c for c in under(table).channels if c.kind == "breaker"]
    assert [(c.move_bps, c.window_steps, c.pause_steps, c.venues) for c in found] == [(700, 4, 9, ("core",))]


def test_guards_without_an_oracle_channel_are_refused() -> None:
    run = run_of(one_pair_book([1.0], [0.5]), {"keepers": {}}, steps=1)
    with pytest.raises(InputError, match="no channel oracle"):
        under({"kind": "oracle-guards"}, run)


@pytest.mark.parametrize(
    ("table", "repaid"),
    [
        # An account at a health factor of 80 / 84 = 0.952 on Aave V3: half of 84, unless a policy says else.
        ({"kind": "close-factor", "close_factor": 0.25}, 21.0),
        ({"kind": "close-factor", "close_factor": 0.25, "full_below": 0.96}, 84.0),
        ({"kind": "liquidation-delay", "steps": 1}, 0.0),
        ({"kind": "threshold-shift", "shift_bps": 500}, 0.0),
        ({"kind": "halt-toxic"}, 42.0),
    ],
)
def test_what_policies_do_to_one_account(table: dict[str, Any], repaid: float) -> None:
    run = run_of(one_pair_book([1.0], [84.0], price=100.0, kind="aave-v3"), {"keepers": {}}, steps=1)
    assert run_paths(under(table, run), 1, 0, 1).totals[0, 0, Total.REPAID] == pytest.approx(
        repaid, rel=1e-12
    )


@pytest.mark.parametrize(
    ("table", "bonus"),
    [
        ({"kind": "bonus-curve", "slope": 0.5, "cap_bps": 1_500}, 0.5 * (1.0 - 80.0 / 84.0)),
        ({"kind": "bonus-curve", "slope": 50.0, "cap_bps": 200}, 0.02),
        ({"kind": "bonus-curve", "slope": 50.0, "cap_bps": 1_500}, 0.05),
        ({"kind": "bonus", "bonus_bps": 1_000}, 0.1),
        ({"kind": "dynamic-bonus"}, 0.05),
    ],
)
def test_bonuses_that_policies_pay(table: dict[str, Any], bonus: float) -> None:
    run = run_of(one_pair_book([1.0], [84.0], price=100.0, kind="aave-v3"), {"keepers": {}}, steps=1)
    totals = run_paths(under(table, run), 1, 0, 1).totals[0, 0]
    assert totals[Total.BONUS] / totals[Total.REPAID] == pytest.approx(bonus, rel=1e-10)


def test_a_dynamic_bonus_makes_no_account_worse() -> None:
    run = run_of(one_pair_book([1.0], [98.0], price=100.0, kind="aave-v2"), {"keepers": {}}, steps=1)
    plain, kind = run_paths(run, 1, 0, 1), run_paths(under({"kind": "dynamic-bonus"}, run), 1, 0, 1)
    assert plain.totals[0, 0, Total.TOXIC] == 1.0
    assert kind.totals[0, 0, Total.TOXIC] == 0.0
    totals = kind.totals[0, 0]
    assert totals[Total.BONUS] / totals[Total.REPAID] == pytest.approx(100.0 / 98.0 - 1.0, rel=1e-10)


def test_a_close_factor_that_would_change_nothing_is_refused() -> None:
    table = {"kind": "close-factor", "close_factor": 0.5}
    for venue in ("blue", "comet"):
        with pytest.raises(InputError, match=f"{venue} lets all of a debt be repaid"):
            under({**table, "venues": [venue]})
        under({**table, "venues": [venue], "full_below": 0.95})
