"""Scenarios on the protocols' own bytecode: every liquidation of the model is the contract's, or explained.

The comparison is made to fail as well: a model with a slightly other rule is found out.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulation.chain import revm
from simulation.chain.fidelity.keepers import run_on_chain
from simulation.chain.fidelity.verify import CAUSES, RELATIVE, UNITS, Verification, against, verify
from simulation.chain.solc import ensure_protocol_toolchain
from simulation.contagion.engine import PathResults, Run
from simulation.contagion.policies import apply_policies, build_policy
from simulation.contagion.scan import Scanner
from simulation.contagion.scenario import Scenario, load_scenario
from simulation.contagion.state import Total
from tests.command_line import Inside

pytestmark = [
    pytest.mark.chain,
    pytest.mark.skipif(not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"),
]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ("verify-aave-v3", "verify-aave-v3.6", "verify-morpho")


@functools.cache
def scenario(name: str) -> Scenario:
    return load_scenario(EXAMPLES / f"{name}.toml")


@functools.cache
def chain_run(name: str) -> tuple[PathResults, Any]:
    """Return what the contracts do, once for all tests."""
    loaded = scenario(name)
    ensure_protocol_toolchain(sorted({v.kind for v in loaded.book.lending}), lambda _: None)
    return run_on_chain(loaded.run, loaded.file.seed, 0, lambda t: revm.RevmEvm(timestamp=t))


def verified(name: str, run: Run | None = None) -> Verification:
    """Return the comparison of the contracts with the model, or with a changed one."""
    loaded = scenario(name)
    return against(run or loaded.run, loaded.file.seed, 0, *chain_run(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_liquidation_is_the_contracts_or_explained(name: str) -> None:
    found = verified(name)
    assert found.explained, [d for d in found.differences if d.cause == "unexplained"]
    assert len(found.differences) >= 20
    assert set(found.counts) == set(CAUSES)
    assert sum(found.counts.values()) == len(found.differences)
    for d in found.differences:
        assert d.gap <= d.bound, d
        assert not np.isnan([d.model_repaid_raw, d.chain_repaid_raw]).any(), d
    assert all(event.done.revert is None for event in chain_run(name)[1].chain_events)
    for totals in (found.model.totals, found.chain.totals):
        assert totals[0, :, Total.LIQUIDATIONS].sum() == len(found.differences)
    for what in (Total.REPAID, Total.WRITTEN_OFF, Total.FEES, Total.FROM_SUPPLIERS):
        mine, theirs = found.model.totals[0, :, what], found.chain.totals[0, :, what]
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=0.01, err_msg=what.name)
    np.testing.assert_allclose(found.model.price, found.chain.price, rtol=1e-8)


def test_what_happens_in_the_examples() -> None:
    old, new, blue = (verified(name) for name in NAMES)
    assert all(v.model.totals[0, :, Total.FEES].sum() > 0 for v in (old, new))
    for v in (new, blue):
        assert v.model.totals[0, :, Total.WRITTEN_OFF].sum() > 0
    assert new.model.deficit.sum() > 0
    assert blue.model.totals[0, :, Total.FROM_SUPPLIERS].sum() > 0
    assert len({d.venue for d in blue.differences}) == 2
    pairs = {(d.debt, d.collateral) for d in new.differences}
    assert len(pairs) > 5
    world = new.model.world
    emode = {
        int(w) for w, e in zip(world.book.positions.wallet, world.book.positions.emode, strict=True) if e
    }
    assert {d.account for d in new.differences} & {world.book.wallets[w] for w in emode}
    # Some accounts are liquidated several times.
    for v in (old, new):
        accounts = [d.account for d in v.differences]
        assert len(set(accounts)) < len(accounts)
    # Two keepers take turns: what does not pay the fast one is left to the patient one.
    assert {int(k) for e in new.model.events for k in e["keeper"]} == {0, 1}


def _other_fees(run: Run, factor: float) -> Run:
    reserves = run.world.reserves
    return replace(
        run, world=replace(run.world, reserves=replace(reserves, protocol_fee=reserves.protocol_fee * factor))
    )


def _other_bonus(run: Run, factor: float) -> Run:
    return replace(run, world=replace(run.world, bonus=run.world.bonus * factor))


def _policy(table: dict[str, Any]) -> Any:
    return lambda run: apply_policies(run, [build_policy(table)])


def _rule(**changes: Any) -> Any:
    def changed(run: Run) -> Run:
        rules = run.world.rules
        return replace(
            run,
            world=run.world.with_rules(
                rules._replace(**{k: np.full_like(getattr(rules, k), v) for k, v in changes.items()})
            ),
        )

    return changed


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param("verify-aave-v3", _rule(close_factor=0.5001), id="close factor"),
        pytest.param("verify-aave-v3", _rule(full_below=0.94), id="full below"),
        pytest.param("verify-aave-v3", lambda run: _other_bonus(run, 1.0001), id="bonus by a ten-thousandth"),
        pytest.param("verify-aave-v3", _policy({"kind": "threshold-shift", "shift_bps": 20}), id="threshold"),
        pytest.param("verify-aave-v3.6", _rule(whole_position=0), id="half of one debt only"),
        pytest.param("verify-aave-v3.6", _rule(min_full=0.0), id="no minimum for the close factor"),
        pytest.param("verify-aave-v3.6", _rule(min_leftover=1_100.0), id="another least leftover"),
        pytest.param("verify-aave-v3.6", lambda run: _other_fees(run, 1.5), id="protocol fee"),
        pytest.param(
            "verify-morpho", _rule(full_below=0.9, close_factor=0.5), id="morpho with a close factor"
        ),
        pytest.param(
            "verify-morpho", lambda run: _other_bonus(run, 1.0 + 1e-6), id="incentive by a millionth"
        ),
    ],
)
def test_a_model_with_another_rule_is_found_out(name: str, change: Any) -> None:
    found = verified(name, change(scenario(name).run))
    assert found.counts["unexplained"] > 0


def test_a_rounding_to_the_other_side_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Scanner.scan

    def without_rounding(self: Scanner, state: Any, threshold: float) -> None:
        self._further = 1.0
        plain(self, state, threshold)

    monkeypatch.setattr(Scanner, "scan", without_rounding)
    assert verified("verify-aave-v3").counts["unexplained"] > 0


def test_the_first_rounding_of_an_account_is_so_many_token_units() -> None:
    for name in NAMES:
        found = verified(name)
        tokens = {t.symbol: t for t in found.model.world.book.tokens}
        seen: set[str] = set()
        for d in found.differences:
            first = d.account not in seen
            seen.add(d.account)
            if d.cause != "rounding" or not first:
                continue
            # No price is more than a third above the book's.
            units = [
                4 / 3 * tokens[t].price / 10 ** tokens[t].decimals for t in (d.debt, d.collateral, "USDC")
            ]
            paid = d.chain_repaid_raw * tokens[d.debt].price / 10 ** tokens[d.debt].decimals
            assert d.gap <= d.bound <= 8 / 3 * (UNITS * max(units) / paid + RELATIVE), d
        assert len(seen) > 10


def test_the_command_prints_and_exits_by_what_it_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    inside = Inside(monkeypatch, capsys)
    words = ["simulate", str(EXAMPLES / "verify-morpho.toml"), "--verify", "--json", "--out", str(tmp_path)]
    ran = inside(*words)
    assert ran.code == 0, ran.err
    report = ran.json()
    assert report["explained"]
    assert report["liquidations"] == sum(report["causes"].values()) >= 20
    assert (tmp_path / "bytecode.json").is_file()


def test_the_same_seed_gives_the_same_comparison() -> None:
    loaded = scenario("verify-morpho")
    again = verify(loaded.run, loaded.file.seed, 0, lambda t: revm.RevmEvm(timestamp=t))
    assert again.differences == verified("verify-morpho").differences
