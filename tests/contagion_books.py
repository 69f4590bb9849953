"""Small books and runs for tests of the contagion engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from simulation.book.types import (
    Backing,
    BackingKind,
    EMode,
    LendingColumns,
    LendingVenue,
    OptionColumns,
    PerpColumns,
    PerpVenue,
    RateCurve,
    Reserve,
    SharedBook,
    Side,
    Token,
)
from simulation.contagion.channels import channels
from simulation.contagion.engine import Run
from simulation.contagion.prices import build as build_prices
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


KINKED = RateCurve(optimal=0.8, base=0.01, slope1=0.04, slope2=0.75)
PRICES = {"ETH": 2_000.0, "BTC": 60_000.0, "stETH": 2_300.0, "USDC": 1.0, "DAI": 1.0}
BACKINGS = {
    "stETH": Backing(BackingKind.STAKED, "ETH", rate=1.15),
    "USDC": Backing(BackingKind.STABLE, "USD"),
    "DAI": Backing(BackingKind.STABLE, "USDC"),
}
_AAVE = {"ETH": (8_300, 500), "BTC": (7_800, 600), "stETH": (8_000, 700), "USDC": (7_500, 450), "DAI": (0, 0)}
_COMET = {"ETH": (9_000, 500), "BTC": (8_500, 500), "USDC": (0, 0)}


def several_venues(accounts: int, seed: int, *, near: float = 0.15, idle: float = 0.1) -> SharedBook:
    """One book on all five lending protocols, with eMode, several tokens on either side, perps and options.

    Parameters
    ----------
    accounts
        In each venue.
    seed
        Of the accounts.
    near
        How far health factors are above 1 on average.
    idle
        What others supply, a part of what is borrowed.
    """
    rng = np.random.default_rng(seed)
    tokens = tuple(
        Token(s, 6 if s == "USDC" else 8 if s == "BTC" else 18, p, BACKINGS.get(s)) for s, p in PRICES.items()
    )
    index = {token.symbol: i for i, token in enumerate(tokens)}
    plans: list[tuple[str, str, dict[str, tuple[int, int]], tuple[EMode, ...]]] = [
        ("old", "aave-v2", _AAVE, ()),
        ("third", "aave-v3", _AAVE, (EMode(1, ("ETH", "stETH"), 9_000, 9_300, 100),)),
        ("core", "aave-v3.6", _AAVE, (EMode(2, ("ETH", "stETH"), 9_200, 9_400, 150),)),
        ("blue", "morpho-blue", {"ETH": (8_600, 438), "USDC": (0, 0)}, ()),
        ("comet", "compound-v3", _COMET, ()),
    ]
    rows: list[tuple[int, int, int, int, float, int]] = []
    venues = []
    for v, (name, kind, limits, modes) in enumerate(plans):
        owed = dict.fromkeys(limits, 0.0)
        lends = [t for t in limits if kind.startswith("aave") and t != "stETH"] or ["USDC"]
        held_by = [t for t, (lt, _) in limits.items() if lt and not (t == lends[-1] and len(lends) == 1)]
        for i in range(accounts):
            wallet, debt = v * accounts + i, float(rng.lognormal(8.5, 1.2))
            mode = modes[0] if modes and rng.random() < 0.3 else None
            chosen = (
                list(mode.tokens)
                if mode
                else list(rng.choice(held_by, rng.integers(1, min(3, len(held_by)) + 1), replace=False))
            )
            owing = (
                ["ETH"]
                if mode
                else list(rng.choice(lends, rng.integers(1, min(2, len(lends)) + 1), replace=False))
            )
            shares = rng.dirichlet(np.ones(len(chosen)))
            lts = [(mode.liquidation_threshold_bps if mode else limits[t][0]) / 1e4 for t in chosen]
            weighted = sum(s * lt for s, lt in zip(shares, lts, strict=True))
            value = debt * (1.0 + rng.gamma(2.0, near / 2.0)) / weighted
            code = mode.id if mode else 0
            for t, share in zip(chosen, shares, strict=True):
                rows.append((v, wallet, Side.COLLATERAL, index[t], value * share / PRICES[t], code))
            for t, share in zip(owing, rng.dirichlet(np.ones(len(owing))), strict=True):
                rows.append((v, wallet, Side.DEBT, index[t], debt * share / PRICES[t], code))
                owed[t] += debt * share / PRICES[t]
        venues.append(
            LendingVenue(
                name,
                kind,
                tuple(
                    Reserve(
                        t,
                        lt,
                        lt,
                        bonus,
                        KINKED,
                        protocol_fee_bps=1_000
                        if kind in ("aave-v3", "aave-v3.6", "compound-v3") and lt
                        else 0,
                        reserve_factor_bps=1_000,
                        idle_supply=owed[t] * (1.0 + idle),
                        reserves=owed[t] * 0.001,
                    )
                    for t, (lt, bonus) in limits.items()
                ),
                modes,
            )
        )
    rows.sort()
    at = np.array([row[:4] + row[5:] for row in rows])
    wallets = tuple(f"w{i}" for i in range(len(plans) * accounts))
    size = rng.normal(0.0, 3.0, accounts)
    who = np.arange(accounts, dtype=np.int32)
    zero = np.zeros(accounts, dtype=np.int32)
    return SharedBook(
        tokens=tokens,
        lending=tuple(venues),
        wallets=wallets,
        positions=LendingColumns(
            wallet=at[:, 1].astype(np.int32),
            venue=at[:, 0].astype(np.int32),
            token=at[:, 3].astype(np.int32),
            side=at[:, 2].astype(np.int8),
            amount=np.array([row[4] for row in rows]),
            emode=at[:, 4].astype(np.int32),
        ),
        perps=(PerpVenue("perp", "USDC", {"ETH": 0.03}, {"ETH": 0.05}, 0.01, 500.0, {"ETH": 1_000.0}),),
        perp_positions=PerpColumns(
            wallet=who,
            venue=zero,
            token=zero,
            size=size,
            entry=np.full(accounts, PRICES["ETH"]),
            margin_wallet=who,
            margin_venue=zero,
            margin=np.abs(size) * PRICES["ETH"] * rng.uniform(0.05, 0.4, accounts),
        ),
        options=OptionColumns(
            wallet=np.zeros(2, dtype=np.int32),
            token=np.zeros(2, dtype=np.int32),
            expiry=np.array([0.1, 0.5]) * 365.0 * 86_400.0,
            strike=np.array([1_800.0, 2_200.0]),
            size=np.array([-20.0, -5.0]),
            volatility=np.array([0.8, 0.7]),
            is_call=np.array([0, 1], dtype=np.int8),
        ),
    )


EVERYTHING: dict[str, dict[str, Any]] = {
    "pegs": {
        "tokens": {
            "stETH": {"step": 5, "discount": 0.03, "doubt_half_life_s": 600.0, "redeem_usd_day": 1e5},
            "USDC": {"reserve_loss_step": 10, "reserve_loss": 0.01},
        }
    },
    "oracle": {
        "default": {"miss": 0.1},
        "feeds": {
            "stETH": {"source": "redemption", "max_growth_yearly_bps": 900.0},
            "BTC": {"latency_steps": 3, "deviation_bps": 100.0},
        },
        "faults": [{"token": "ETH", "venue": "old", "op": "freeze", "from_step": 8, "until_step": 14}],
        "guards": {"max_age_s": 7_200, "max_deviation_bps": 3_000, "max_jump_bps": 3_000},
    },
    "breaker": {"move_bps": 2_500.0, "window_steps": 3, "pause_steps": 2, "venues": ["core"]},
    "interest": {},
    "gas": {"native": "ETH"},
    "borrowers": {"hazard": 20.0},
    "keepers": {
        "rounds": 3,
        "keepers": [
            {"name": "desk", "funding": "inventory", "capital_usd": 2e5, "bid": 0.6, "latency_steps": 1},
            {"name": "fast", "bid": 0.9, "min_profit_usd": 40.0},
            {"name": "patient", "bid": 0.1, "latency_steps": 2},
        ],
    },
    "losses": {"haircut": True, "backstop_usd": {"core": 1e3}},
    "perps": {"most_funding": 0.1},
    "options": {"hedge_bps": 20.0},
    "suppliers": {"calm": 4.0, "sells": 0.5},
    "impact": {
        "tokens": {
            "ETH": {"model": "linear", "per_dollar": 3e-8, "half_life_s": 1_800.0},
            "BTC": {"model": "square-root", "volatility": 0.03, "volume_tokens": 5_000.0},
            "stETH": {"model": "cpmm", "tokens": 1_000.0, "cash": 2_300_000.0},
            "USDC": {"model": "depth", "depth_tokens": 1e8, "half_life_s": 600.0},
        }
    },
}
"""Settings of every channel, for `several_venues`."""


def moving_run(
    book: SharedBook,
    settings: dict[str, dict[str, Any]],
    *,
    steps: int,
    volatility: float = 1.5,
    fall: float = 0.25,
) -> Run:
    """Return a run of random prices with these channels only, in five-minute steps; ETH falls at step 6."""
    world = build_world(book)
    own = [t for t in book.tokens if t.backing is None]
    spec = {"process": "gbm", "volatility": {t.symbol: volatility for t in own}, "correlation": 0.6}
    return Run(
        world=world,
        prices=build_prices(spec, [t.symbol for t in own], [t.price for t in own]),
        channels=tuple(channels.build({"kind": kind, **table}) for kind, table in settings.items()),
        steps=steps,
        dt_s=300.0,
        shocks=(("ETH", min(6, steps), float(np.log1p(-fall))),) if fall else (),
    )
