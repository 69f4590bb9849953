"""Measure the channel of options accounts: with its compiled screen, and with the margin method alone.

Both contestants run the same paths, and their results are compared bit by bit before anything is timed. A run
without the channel takes its turn too, and what it takes is subtracted: figures are of the channel alone, for
an account and a step.
"""

from __future__ import annotations

import os

# Before NumPy is imported: a second pool of threads would spoil the race.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from unittest.mock import patch

import numpy as np
from _common import Headline, Report, Summary, parser, race, run, table

from simulation.book.types import (
    LendingColumns,
    LendingVenue,
    OptionColumns,
    RateCurve,
    Reserve,
    SharedBook,
    Side,
    Token,
)
from simulation.contagion.channels import channels
from simulation.contagion.channels import option_accounts as channel
from simulation.contagion.engine import Run, run_paths
from simulation.contagion.prices import build as build_prices
from simulation.contagion.world import build_world

DAY_S = 86_400.0
PRICE = 2_000.0
STEP_S = 60.0
OFF, PLAIN, SCREEN = "without the channel", "method alone", "with the screen"
METHODS: dict[str, dict[str, Any]] = {
    "derive.auction": {"kind": "derive.auction"},
    "derive.srm": {"kind": "derive.srm"},
}


def made_book(accounts: int, options: int, rng: np.random.Generator) -> SharedBook:
    """Return wallets that hold options on ether of three expiries, short in net."""
    n = accounts * options
    days = rng.choice([7.0, 30.0, 180.0], n)
    strike = PRICE * rng.choice([0.8, 0.9, 1.0, 1.1, 1.2], n)
    flat = RateCurve(optimal=0.8, base=0.0, slope1=0.0, slope2=0.0)
    reserves = Reserve("ETH", 8_000, 8_000, 500, flat), Reserve("USD", 0, 0, 0, flat, idle_supply=1e6)
    zero = np.zeros(2, dtype=np.int32)
    return SharedBook(
        tokens=(Token("ETH", 18, PRICE), Token("USD", 6, 1.0)),
        # The engine wants a pool: one loan that nothing happens to.
        lending=(LendingVenue("market", "morpho-blue", reserves),),
        wallets=tuple(f"w{i}" for i in range(accounts)),
        positions=LendingColumns(
            wallet=zero,
            venue=zero,
            token=np.array([0, 1], dtype=np.int32),
            side=np.array([Side.COLLATERAL, Side.DEBT], dtype=np.int8),
            amount=np.array([1.0, 1.0]),
            emode=zero,
        ),
        options=OptionColumns(
            wallet=np.repeat(np.arange(accounts, dtype=np.int32), options),
            token=np.zeros(n, dtype=np.int32),
            expiry=days * DAY_S,
            strike=strike,
            size=rng.normal(-1.0, 3.0, n).round(2),
            # One volatility an expiry and strike: nobody's contracts contradict each other.
            volatility=0.6 + 0.1 * (days < 10.0) + 0.1 * (strike < PRICE),
            is_call=rng.integers(0, 2, n).astype(np.int8),
        ),
    )


def made_run(given: Any, method: str, cushion: float, *, on: bool = True) -> Run:
    """Return a run whose accounts have their margin, and `cushion` of their notional beside it."""
    book = made_book(given.accounts, given.options, np.random.default_rng(given.seed))
    world = build_world(book)
    table: dict[str, Any] = {"kind": "option_accounts", "method": METHODS[method]}
    bare = channels.build(table | {"cash_usd": dict.fromkeys(book.wallets, 0.0)})
    assert isinstance(bare, channel.OptionAccountsChannel)
    held = bare.accounts(world)
    now = channel._market(world, world.price, 0, held)
    cash = {
        a.account: cushion * PRICE * sum(abs(p.quantity) for p in a.positions)
        - bare.model().method.margin(a, now).maintenance
        for a in held
    }
    spec = {"process": "gbm", "volatility": {"ETH": 0.8, "USD": 0.0}}
    return Run(
        world=world,
        prices=build_prices(spec, [t.symbol for t in book.tokens], [t.price for t in book.tokens]),
        channels=(channels.build(table | {"cash_usd": cash, "on": on}),),
        steps=given.steps,
        dt_s=STEP_S,
    )


def extra_of(run: Run, paths: int) -> dict[str, Any]:
    """Return the channel's figures."""
    return dict(run_paths(run, 1, 0, paths).extra)


def plain_extra(run: Run, paths: int) -> dict[str, Any]:
    """Return the same without the screen."""
    with patch.object(channel, "screen_of", lambda method, account: None):
        return extra_of(run, paths)


def measure_one(given: Any, method: str, cushion: float) -> dict[str, Any]:
    """Race one case."""
    own, off = made_run(given, method, cushion), made_run(given, method, cushion, on=False)
    found, want = extra_of(own, given.paths), plain_extra(own, given.paths)
    for name, values in want.items():
        if not np.array_equal(values, found[name]):
            raise SystemExit(f"{name} differs with the screen")
    taken, _ = race(
        {
            OFF: lambda: extra_of(off, given.paths),
            PLAIN: lambda: plain_extra(own, given.paths),
            SCREEN: lambda: extra_of(own, given.paths),
        },
        given.turns,
        0.0,
    )
    each = given.paths * given.accounts * given.steps
    turns = list(zip(taken[OFF], taken[PLAIN], taken[SCREEN], strict=True))
    return {
        "ratio": Summary.of([(plain - none) / (screen - none) for none, plain, screen in turns]),
        "plain_us": Summary.of([(plain - none) / each * 1e6 for none, plain, _ in turns]),
        "screen_us": Summary.of([(screen - none) / each * 1e6 for none, _, screen in turns]),
        "auctions": float(found["option_accounts.auctions"].sum()) / (given.paths * given.accounts),
    }


def measure(given: Any) -> Report:
    """Race the usual case, and one in which many accounts come up for auction."""
    size = f"{given.accounts} accounts x {given.options} options, {given.paths} paths x {given.steps} steps"
    shown = table(size, "", "ratio", "method alone, us", "with the screen, us", "auctions an account")
    headlines, figures = [], {}
    for method, what, cushion in (
        ("derive.auction", "usual", 0.1),
        ("derive.auction", "near", 0.001),
        ("derive.srm", "usual", 0.1),
    ):
        one = measure_one(given, method, cushion)
        name = f"{method}, {what}"
        shown.add_row(
            name,
            one["ratio"].text(),
            one["plain_us"].text(),
            one["screen_us"].text(),
            f"{one['auctions']:.2f}",
        )
        figures[name] = {k: asdict(v) if isinstance(v, Summary) else v for k, v in one.items()}
        headlines.append(
            Headline(
                f"options accounts, {name} case, against the margin method alone",
                one["ratio"],
                "x",
                at_least=10 if what == "usual" else None,
                note=f"{one['screen_us'].text()} us an account and step, {one['auctions']:.0%} auctioned",
            )
        )
    return Report(tuple(headlines), figures, (shown,))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, report."""
    options = parser(__doc__)
    options.add_argument("--accounts", type=int, default=6)
    options.add_argument("--options", type=int, default=4, help="positions of an account")
    options.add_argument("--paths", type=int, default=64, help="as many as a sweep takes at once")
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args(arguments)
    if given.quick:
        given.accounts, given.paths, given.steps, given.turns = 2, 4, 3, 1
    run("option_accounts", lambda: measure(given), given.json)


if __name__ == "__main__":
    main()
