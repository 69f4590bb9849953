"""Risk scores of wallets with positions in several places."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulation.book.types import LendingColumns, PerpColumns, PerpVenue, SharedBook, Side
from simulation.contagion.batch import Batch
from simulation.contagion.engine import Run, run_paths
from simulation.contagion.state import Total
from simulation.contagion.wallets import (
    concentration_of,
    count_broken,
    distance_of,
    legs_of,
    scores,
    wallets_record,
)
from tests.contagion_books import EVERYTHING, moving_run, one_pair_book, run_of, several_venues


def two_venue_book(debts: list[tuple[float, float]]) -> SharedBook:
    """Each wallet holds 1 ETH in either of two venues, and owes there what is said; 0 for no account."""
    book = one_pair_book([1.0], [0.5], kind="aave-v2")
    first = replace(book.lending[0], name="a")
    rows = [
        (v, w, side, token, amount)
        for v in range(2)
        for w, owed in enumerate(debts)
        for side, token, amount in ((Side.COLLATERAL, 0, 1.0), (Side.DEBT, 1, owed[v]))
        if owed[v] > 0.0
    ]
    venue, wallet, side, token = (np.array([row[k] for row in rows]) for k in range(4))
    return replace(
        book,
        lending=(first, replace(first, name="b")),
        wallets=tuple(f"w{i}" for i in range(len(debts))),
        positions=LendingColumns(
            wallet=wallet.astype(np.int32),
            venue=venue.astype(np.int32),
            token=token.astype(np.int32),
            side=side.astype(np.int8),
            amount=np.array([row[4] for row in rows]),
            emode=np.zeros(len(rows), dtype=np.int32),
        ),
    )


DEBTS = [(0.7, 0.1), (0.7, 0.7), (0.1, 0.1), (0.7, 0.0)]
"""Only one leg falls, both fall, none falls, and there is only one leg, when the price falls by a fifth."""


def falling(book: SharedBook) -> Run:
    return run_of(book, {"keepers": {}}, steps=3, shock=float(np.log(0.8)))


def test_a_hedge_is_broken_where_one_leg_is_lost_and_another_left() -> None:
    found = count_broken(falling(two_venue_book(DEBTS)), 1, 20)
    assert found.liquidated == pytest.approx([1.0, 1.0, 0.0, 1.0])
    assert found.broken == pytest.approx([1.0, 0.0, 0.0, 0.0])
    assert (found.paths, found.missed, found.weighted) == (20, 0, False)


@pytest.mark.parametrize("with_perps", [True, False])
def test_a_short_that_stays_is_a_leg_that_is_left(with_perps: bool) -> None:
    book = two_venue_book([(0.7, 0.0), (0.7, 0.0), (0.1, 0.0)])
    perps = PerpColumns(
        wallet=np.array([0, 1, 2], dtype=np.int32),
        venue=np.zeros(3, dtype=np.int32),
        token=np.zeros(3, dtype=np.int32),
        size=np.array([-1.0, 1.0, 1.0]),
        entry=np.ones(3),
        margin_wallet=np.array([0, 1, 2], dtype=np.int32),
        margin_venue=np.zeros(3, dtype=np.int32),
        margin=np.full(3, 0.15),
    )
    venue = PerpVenue("perp", "USD", {"ETH": 0.05}, {"ETH": 0.1}, 0.01, insurance=5.0)
    book = replace(book, perps=(venue,), perp_positions=perps)
    assert legs_of(book) == pytest.approx([2.0, 2.0, 2.0])
    # The short of the first has 0.15 - 0.05 to go; its loan stands at a health factor of 0.8 / 0.7.
    assert distance_of(book) == pytest.approx([0.1, 0.1, 0.1])
    settings: dict[str, dict[str, Any]] = {"keepers": {}, **({"perps": {}} if with_perps else {})}
    found = count_broken(run_of(book, settings, steps=3, shock=float(np.log(0.8))), 1, 2)
    # With the venue on, both longs are closed: the second has lost all, the third keeps its loan.
    assert found.broken == pytest.approx([1.0, 0.0, 1.0] if with_perps else [1.0, 1.0, 0.0])


def test_the_parts_of_a_score_by_hand() -> None:
    book = two_venue_book(DEBTS)
    assert distance_of(book) == pytest.approx([1 / 8, 1 / 8, 7 / 8, 1 / 8])
    assert legs_of(book) == pytest.approx([2.0, 2.0, 2.0, 1.0])
    assert concentration_of(book) == pytest.approx(np.ones(4))
    half, one, none = np.array([0.5]), np.ones(1), np.zeros(1)
    assert scores(half, half, one, none) == pytest.approx(15 + 10 + 10)
    assert scores(one, one, one, one) == pytest.approx(100.0)
    assert scores(2 * one, -one, none, none) == pytest.approx(30.0)


def test_the_record_ranks_wallets_of_several_legs() -> None:
    found = wallets_record(falling(two_venue_book(DEBTS)), 1, 1_000)
    assert [row["wallet"] for row in found["top"]] == ["w0", "w1", "w2"]
    assert (found["cross_margin"], found["paths"], found["missed"]) == (3, 256, 0)
    top = found["top"][0]
    # Broken always; near 1 - (1 / 8) / 0.5; debt 0.8 of 2; all of it in one token.
    assert top["score"] == pytest.approx(100 * (0.4 + 0.3 * 0.75 + 0.2 * 0.4 + 0.1))
    assert top["broken"]["value"] == 1.0
    assert 0.97 < top["broken"]["low"] < 1.0
    alone = wallets_record(falling(two_venue_book([(0.7, 0.0)])), 1, 10)
    assert (alone["cross_margin"], alone["top"]) == (0, [])


def test_every_liquidation_of_a_crash_is_seen_in_batches_of_any_number() -> None:
    run = moving_run(several_venues(40, seed=3), EVERYTHING, steps=20)
    found = count_broken(run, 1, 18)
    assert found.missed == 0
    seen = np.zeros(len(run.world.book.wallets))
    for path in range(18):
        rows: set[int] = set()

        def watch(batch: Batch, rows: set[int] = rows) -> None:
            for event in batch.events:
                rows.update(int(row) for row in event["row"])

        results = run_paths(run, 1, path, 1, record=True, watch=watch)
        assert results.totals[:, :, Total.LIQUIDATIONS].sum() > 0.0
        who = {int(run.world.row_wallet[row]) for row in rows}
        seen[list(who)] += 1.0
    # Perpetual legs add to what lending alone shows.
    assert (found.liquidated * 18 >= seen - 1e-9).all()
    assert (found.broken <= found.liquidated).all()
