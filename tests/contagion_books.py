"""Small books and runs for tests of the contagion engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from simulation.book.types import LendingColumns, LendingVenue, RateCurve, Reserve, SharedBook, Side, Token
from simulation.contagion.channels import channels
from simulation.contagion.engine import Run
from simulation.contagion.world import build_world
from simulation.types import Float64

FLAT = RateCurve(optimal=0.8, base=0.0, slope1=0.0, slope2=0.0)


class Still:
    """Prices that do not move by themselves."""

    def __init__(self, assets: Sequence[str], start: Sequence[float]) -> None:
        self.assets = tuple(assets)
        self.start = np.array(start, dtype=np.float64)

    def paths(self, seeds: Sequence[Any], steps: int, dt_s: float) -> Float64:
        return np.tile(self.start, (len(seeds), steps + 1, 1))


def one_pair_book(
    collateral: Sequence[float],
    debt: Sequence[float],
    *,
    kind: str = "morpho-blue",
    threshold_bps: int = 8_000,
    bonus_bps: int = 500,
    price: float = 1.0,
    idle: float = 1e12,
) -> SharedBook:
    """Accounts that hold ETH and owe USD, both with still prices."""
    n = len(collateral)
    wallet = np.repeat(np.arange(n, dtype=np.int32), 2)
    amount = np.stack([collateral, debt], axis=1).ravel()
    venue = LendingVenue(
        "market",
        kind,
        (
            Reserve("ETH", threshold_bps, threshold_bps, bonus_bps, FLAT),
            Reserve("USD", 0, 0, 0, FLAT, idle_supply=idle),
        ),
    )
    return SharedBook(
        tokens=(Token("ETH", 18, price), Token("USD", 6, 1.0)),
        lending=(venue,),
        wallets=tuple(f"w{i}" for i in range(n)),
        positions=LendingColumns(
            wallet=wallet,
            venue=np.zeros(2 * n, dtype=np.int32),
            token=np.tile(np.array([0, 1], dtype=np.int32), n),
            side=np.tile(np.array([Side.COLLATERAL, Side.DEBT], dtype=np.int8), n),
            amount=amount,
            emode=np.zeros(2 * n, dtype=np.int32),
        ),
    )


def run_of(
    book: SharedBook,
    settings: dict[str, dict[str, Any]],
    *,
    steps: int,
    shock: float = 0.0,
    dt_s: float = 12.0,
) -> Run:
    """Return a run of still prices with these channels only; `shock` moves ETH's log price at step 1."""
    return Run(
        world=build_world(book),
        prices=Still([t.symbol for t in book.tokens], [t.price for t in book.tokens]),
        channels=tuple(channels.build({"kind": kind, **table}) for kind, table in settings.items()),
        steps=steps,
        dt_s=dt_s,
        shocks=(("ETH", 1, shock),) if shock else (),
    )
