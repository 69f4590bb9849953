"""Accounts drawn at random over the instruments of the example book, for tools that take many at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from simulation.portfolio.instruments import Future, Option, Perpetual, Portfolio, Position, Spot
from simulation.portfolio.load import load_book

BOOK = Path(__file__).resolve().parents[1] / "examples" / "book.json"
MARKET = load_book(BOOK).market
EXPIRY = 1_798_185_600
INSTRUMENTS: list[Any] = [
    Spot(asset="ETH"),
    Perpetual(underlying="ETH"),
    Perpetual(underlying="ETH", inverse=True),
    Perpetual(underlying="BTC"),
    Future(underlying="BTC", expiry=EXPIRY),
    *(
        Option(underlying="ETH", expiry=EXPIRY, strike=k, call=c)
        for k in (2_500.0, 3_000.0, 3_600.0)
        for c in (True, False)
    ),
]


def drawn(count: int, unpaid: tuple[str, ...] = ("perpetual", "future", "option")) -> list[Portfolio]:
    """Return accounts of some positions each, about half of which have their margin.

    An option's unpaid profit means nothing, and a file with one is refused.
    """
    rng = np.random.default_rng(7)
    out = []
    for i in range(count):
        held = rng.integers(0, len(INSTRUMENTS), rng.integers(0, 6))
        positions = tuple(
            Position(
                instrument=INSTRUMENTS[k],
                quantity=float(rng.normal() * (3_000 if getattr(INSTRUMENTS[k], "inverse", False) else 2)),
                unrealised=float(rng.normal() * (0.1 if k == 2 else 200))
                if INSTRUMENTS[k].type in unpaid
                else 0.0,
                protocol="a" if rng.random() < 0.3 else "",
            )
            for k in held
        )
        out.append(Portfolio(account=f"a{i}", cash=float(rng.normal() * 3_000), positions=positions))
    return out
