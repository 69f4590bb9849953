"""A run without a channel has the columns of a run with it, so that both stand in one table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulation.book.types import NO_PERPS, LendingColumns, SharedBook
from simulation.contagion.engine import Run, run_paths
from simulation.contagion.metrics import path_columns
from simulation.contagion.systemic import acted
from tests.command_line import Inside
from tests.contagion_books import run_of, several_venues

EVERY: dict[str, dict[str, Any]] = {
    "oracle": {},
    "interest": {},
    "borrowers": {},
    "gas": {"native": "ETH"},
    "keepers": {},
    "losses": {},
    "perps": {},
    "options": {},
    "option_accounts": {},
    "suppliers": {},
    "pegs": {},
    "breaker": {"move_bps": 5_000},
    "impact": {
        "tokens": {"ETH": {"model": "linear", "per_dollar": 1e-9}},
        "withdrawals": [{"token": "ETH", "step": 1, "share": 0.5}],
    },
}


def book() -> SharedBook:
    return several_venues(8, seed=3)


def run(**changed: dict[str, Any]) -> Run:
    whole = book()
    holder = whole.wallets[int(whole.options.wallet[0])]
    tables = {kind: {**table, **changed.get(kind, {})} for kind, table in EVERY.items()}
    tables["option_accounts"]["cash_usd"] = {holder: 1e6}
    return run_of(whole, tables, steps=2)


def names(settings: Run) -> list[str]:
    return list(path_columns(run_paths(settings, 1, 0, 2), settings.dt_s))


@pytest.mark.parametrize("kind", EVERY)
def test_columns_do_not_depend_on_what_is_switched_off(kind: str) -> None:
    assert names(run(**{kind: {"on": False}})) == names(run())


def test_of_a_channel_that_is_off_nothing_is_known() -> None:
    settings = run(perps={"on": False})
    columns = path_columns(run_paths(settings, 1, 0, 2), settings.dt_s)
    assert np.isnan(columns["perps_deficit_usd"]).all()
    assert not acted(columns, "perps_deficit_usd")
    assert acted(columns, "inventory_gain_usd")


def test_a_book_without_lending_runs() -> None:
    none = np.zeros(0, dtype=np.int32)
    whole = book()
    alone = replace(
        whole,
        lending=(),
        positions=LendingColumns(none, none, none, none.astype(np.int8), np.zeros(0), none),
        perps=(),
        perp_positions=NO_PERPS,
    )
    settings = run_of(alone, {"options": {"hedge_bps": 0.5}}, steps=2, shock=-0.2)
    columns = path_columns(run_paths(settings, 1, 0, 2), settings.dt_s)
    assert (columns["options.hedged_usd"] > 0.0).all()
    assert (columns["bad_debt_usd"] == 0.0).all()


OPTIONS_ONLY = """
timestamp = 2024-08-05T00:00:00Z
[tokens.WETH]
price = 3000.0

[[option]]
wallet = "alice"
token = "WETH"
strike = 3000.0
expiry = 2024-09-01T00:00:00Z
call = true
size = -10.0
volatility = 0.7
"""
AUCTIONED = """
name = "a short call"
book = "book.toml"
paths = 4
steps = 3
step_s = 3600
shocks = [{ token = "WETH", step = 1, move = 0.2 }]
prices = { process = "gbm", volatility = { WETH = 0.5 } }
channels.option_accounts = { cash_usd = { alice = 9000.0 } }
"""


def test_options_alone_are_auctioned_shown_and_attributed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "book.toml").write_text(OPTIONS_ONLY, encoding="utf-8")
    (tmp_path / "scenario.toml").write_text(AUCTIONED, encoding="utf-8")
    out = tmp_path / "out"
    done = Inside(monkeypatch, capsys)(
        "simulate", str(tmp_path / "scenario.toml"), "--effects", "--workers", "1", "--out", str(out)
    )
    assert done.code == 0, done.err
    assert "option_accounts: auctions" in done.out
    record = json.loads((out / "record.json").read_text(encoding="utf-8"))
    assert record["figures"]["option_accounts.auctions"]["value"] >= 1.0
    assert [row["channel"] for row in record["effects"]][-1] == "option_accounts"
