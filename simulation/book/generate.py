"""Books from a seed: wallets of the kinds that lending protocols have, calibrated to what is published.

Published is little. Heimbach and Huang, "DeFi leverage" (BIS Working Paper 1171), report that wallets hold
1.4 to 1.9 times their equity overall, the largest more: the mean leverage is solved for, and leverage rises
with size. All other shares are plain choices, and fields of `BookSpec`: who knows better changes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Final

import numpy as np

from contracts_abi.errors import InputError
from simulation.book.bounds import AAVE_V2, AAVE_V3, AAVE_V3_6, COMPOUND_V3, MORPHO_BLUE, check_book
from simulation.book.defaults import default_market
from simulation.book.health import token_prices
from simulation.book.types import (
    NO_PERPS,
    USD,
    BackingKind,
    LendingColumns,
    LendingVenue,
    PerpColumns,
    Reserve,
    SharedBook,
    Side,
)
from simulation.types import Bool, Float64, Int32

MAX_ACCOUNTS: Final = 2_000_000

DIGITS: Final = 7
"""Significant digits of amounts: enough for any figure, and short in a file."""

_WITHIN: Final = 0.995
"""Part of its borrow limit that an account uses at most."""


class Archetype(IntEnum):
    """What a wallet is about."""

    BORROWER = 0
    LOOPER = 1
    SHORT = 2
    HEDGER = 3
    TRADER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BookSpec:
    """What to generate.

    Attributes
    ----------
    accounts
        Wallets.
    market
        Tokens, venues and exits; positions in it are not looked at. `default_market` unless given.
    mean_leverage
        Mean over wallets that lend of assets over equity; solved for.
    size_rise
        What a wallet ten times as large has in leverage above 1, as a factor.
    spread
        Standard deviation of the logarithm of leverage above 1.
    median_usd, size_spread
        Assets of a wallet: median, and standard deviation of their logarithm.
    whales, whale_usd, whale_exponent, largest_usd
        Share of wallets with assets of a Pareto distribution instead: from where, how steep, cut off where.
    loopers, shorts, hedgers, traders
        Shares of wallets that loop a staked token; borrow what is volatile against stables; hold a spot loan
        and a short perpetual against it; hold a leveraged long perpetual only. The others borrow stables
        against what is volatile.
    looper_leverage
        Least and most leverage of a looper, evenly in between.
    near, near_health_factor
        Share of borrowing accounts that are put between 1 and this health factor on purpose.
    several_venues
        Share of wallets on two lending venues at the median size; it doubles with each factor of a hundred.
    popularity
        How often a token is chosen, by symbol; 0.1 where none is given.
    kinds
        How often a protocol is chosen, shared by its venues.
    utilisation
        Of a token that is lent, at least; others' supply fills up what is missing.
    """

    accounts: int = 10_000
    market: SharedBook = field(default_factory=default_market, repr=False)
    mean_leverage: float = 1.65
    size_rise: float = 1.3
    spread: float = 0.7
    median_usd: float = 12_000.0
    size_spread: float = 1.9
    whales: float = 0.005
    whale_usd: float = 2e6
    whale_exponent: float = 1.3
    largest_usd: float = 5e8
    loopers: float = 0.03
    shorts: float = 0.08
    hedgers: float = 0.03
    traders: float = 0.03
    looper_leverage: tuple[float, float] = (3.0, 9.0)
    near: float = 0.04
    near_health_factor: float = 1.1
    several_venues: float = 0.12
    popularity: Mapping[str, float] = field(
        default_factory=lambda: {
            "WETH": 0.4,
            "wstETH": 0.2,
            "WBTC": 0.25,
            "LINK": 0.08,
            "AAVE": 0.05,
            "USDC": 0.5,
            "USDT": 0.35,
            "DAI": 0.15,
        }
    )
    kinds: Mapping[str, float] = field(
        default_factory=lambda: {
            AAVE_V3_6: 0.6,
            AAVE_V3: 0.6,
            AAVE_V2: 0.2,
            MORPHO_BLUE: 0.25,
            COMPOUND_V3: 0.15,
        }
    )
    utilisation: float = 0.85

    def __post_init__(self) -> None:
        if not 1 <= self.accounts <= MAX_ACCOUNTS:
            raise InputError(
                f"accounts: {self.accounts} is not in 1 to {MAX_ACCOUNTS:,}", fix="give another number"
            )
        shares = ("whales", "loopers", "shorts", "hedgers", "traders", "near", "several_venues")
        for key in shares:
            if not 0 <= getattr(self, key) <= 1:
                raise InputError(f"{key}: {getattr(self, key)} is not in 0 to 1", fix="give a part of one")
        if self.loopers + self.shorts + self.hedgers + self.traders > 1:
            raise InputError("loopers, shorts, hedgers and traders are more than all", fix="lower one")
        for key in ("median_usd", "whale_usd", "largest_usd", "size_rise", "whale_exponent"):
            if not (math.isfinite(getattr(self, key)) and getattr(self, key) > 0):
                raise InputError(f"{key}: {getattr(self, key)} is not above 0", fix="give a larger number")
        for key in ("spread", "size_spread"):
            if not 0 <= getattr(self, key) <= 5:
                raise InputError(f"{key}: {getattr(self, key)} is not in 0 to 5", fix="say 1")
        if not 1.0 < self.mean_leverage < 5:
            raise InputError(f"mean_leverage: {self.mean_leverage} is not between 1 and 5", fix="say 1.65")
        low, high = self.looper_leverage
        if not 1 < low <= high:
            raise InputError(f"looper_leverage: {low} to {high} is no range above 1", fix="say 3 to 9")
        if not 1 < self.near_health_factor <= 2:
            raise InputError(
                f"near_health_factor: {self.near_health_factor} is not between 1 and 2", fix="say 1.1"
            )
        if not 0 < self.utilisation < 1:
            raise InputError(f"utilisation: {self.utilisation} is not inside 0 and 1", fix="say 0.85")


SHARES: Final = {
    Archetype.LOOPER: "loopers",
    Archetype.SHORT: "shorts",
    Archetype.HEDGER: "hedgers",
    Archetype.TRADER: "traders",
}
"""Field of `BookSpec` by archetype; borrowers are the rest."""


def fitted(spec: BookSpec) -> tuple[BookSpec, tuple[str, ...]]:
    """Return the specification without the archetypes that its market cannot hold, and their names."""
    dropped = tuple(
        name for kind, name in SHARES.items() if getattr(spec, name) and not _has_place(spec, kind)
    )
    changes: dict[str, Any] = dict.fromkeys(dropped, 0.0)
    return replace(spec, **changes), dropped


def _has_place(spec: BookSpec, archetype: Archetype) -> bool:
    if archetype in (Archetype.HEDGER, Archetype.TRADER) and not spec.market.perps:
        return False
    return archetype is Archetype.TRADER or bool(_routes(spec, archetype))


@dataclass(frozen=True, slots=True)
class _Route:
    """One way in which wallets of an archetype use a venue.

    `collateral` and `debt` are how often each token is chosen, shape (tokens,), 0 for never.
    """

    venue: int
    emode: int
    weight: float
    collateral: Float64
    debt: Float64
    ltv: Float64
    threshold: Float64


@dataclass(frozen=True, slots=True)
class _Legs:
    """What one wallet does in one venue, a row each; `held` and `owed` are parts of one by token."""

    wallet: Int32
    venue: Int32
    emode: Int32
    part: Float64
    held: Float64
    owed: Float64
    limit: Float64
    threshold: Float64


def generate(spec: BookSpec, seed: int) -> SharedBook:
    """Return a book, the same to the bit for the same specification, seed and version of NumPy.

    Every account is within what it may borrow; what others supply makes up for what is lent.

    Parameters
    ----------
    spec
        What to generate.
    seed
        Not negative.

    Raises
    ------
    InputError
        If no venue of the market can hold an archetype whose share is not 0.
    """
    if seed < 0:
        raise InputError(f"seed: {seed} is negative", fix="give 0 or more")
    market, rng = spec.market, np.random.default_rng(seed)
    prices = token_prices(market)
    shares = [0.0, spec.loopers, spec.shorts, spec.hedgers, spec.traders]
    shares[Archetype.BORROWER] = max(1.0 - sum(shares), 0.0)
    bounds = np.cumsum(shares)
    archetype = np.searchsorted(bounds[:-1], rng.random(spec.accounts), side="right")
    assets = _sizes(spec, rng)
    legs = _legs(spec, rng, archetype, assets)
    ltv = _borrowed(spec, rng, archetype, assets, legs)
    value = assets[legs.wallet] * legs.part
    held = _quantised(value[:, None] * legs.held / prices, np.ceil)
    owed = _quantised((value * ltv)[:, None] * legs.owed / prices, np.floor)
    positions = _columns(legs, held, owed)
    perps = _perps(spec, rng, archetype, assets, legs, held, prices)
    width = len(str(spec.accounts - 1))
    book = SharedBook(
        tokens=market.tokens,
        lending=tuple(_supplied(spec, market, v, positions) for v in range(len(market.lending))),
        wallets=tuple(f"w{i:0{width}d}" for i in range(spec.accounts)),
        positions=positions,
        perps=market.perps,
        perp_positions=perps,
        exits=market.exits,
        block=market.block,
        timestamp=market.timestamp,
        source=f"generated from seed {seed}, {spec.accounts} accounts, over: {_origin(market)}",
    )
    check_book(book, "generated book")
    return book


def _origin(market: SharedBook) -> str:
    """Return where the market comes from; its hash is not that of the book, and so no longer stands last."""
    return market.source.replace("; sha256 ", ", sha256 ") or "a market"


def _sizes(spec: BookSpec, rng: np.random.Generator) -> Float64:
    """Return the assets of each wallet in US dollars."""
    body = spec.median_usd * np.exp(spec.size_spread * rng.standard_normal(spec.accounts))
    # The largest of a Pareto has no mean to speak of: cut off by the inverse of its distribution function.
    cut = 1 - (spec.whale_usd / max(spec.largest_usd, spec.whale_usd)) ** spec.whale_exponent
    tail = spec.whale_usd * (1 - cut * rng.random(spec.accounts)) ** (-1 / spec.whale_exponent)
    is_whale = rng.random(spec.accounts) < spec.whales
    return np.clip(np.where(is_whale, tail, body), 100.0, spec.largest_usd)


# --------------------------------------------------------------------------------------------------- routes


def _is_stable(market: SharedBook) -> Bool:
    """Return which tokens stand for dollars, over however many steps."""
    tokens = {token.symbol: token for token in market.tokens}

    def stable(symbol: str) -> bool:
        while symbol != USD:
            backing = tokens[symbol].backing
            if backing is None or backing.kind is BackingKind.STAKED:
                return False
            symbol = backing.token
        return True

    return np.array([stable(token.symbol) for token in market.tokens])


def _routes(spec: BookSpec, archetype: Archetype) -> list[_Route]:
    """Return the ways in which an archetype can use the market's venues."""
    market = spec.market
    index, stable = market.token_index(), _is_stable(market)
    popular = np.array([spec.popularity.get(token.symbol, 0.1) for token in market.tokens])
    hedged = np.zeros(len(market.tokens), dtype=np.bool_)
    for perp in market.perps:
        hedged[[index[token] for token in perp.maintenance_margin]] = True
    kinds = [venue.kind for venue in market.lending]
    routes = []
    for v, venue in enumerate(market.lending):
        weight = spec.kinds.get(venue.kind, 0.1) / kinds.count(venue.kind)
        ltv, threshold, lent = _parameters(venue, index)
        collateral = popular * (ltv > 0)
        debt = popular * lent
        if archetype is Archetype.LOOPER:
            routes += _loops(market, v, weight, ltv, threshold, lent)
            continue
        if archetype is Archetype.SHORT:
            collateral, debt = collateral * stable, debt * ~stable
        else:
            collateral, debt = collateral * ~stable, debt * stable
        if archetype is Archetype.HEDGER:
            collateral = collateral * hedged
        if collateral.any() and debt.any():
            routes.append(_Route(v, 0, weight, collateral, debt, ltv, threshold))
    return routes


def _parameters(venue: LendingVenue, index: Mapping[str, int]) -> tuple[Float64, Float64, Float64]:
    """Return loan-to-value and threshold by token, and 1 for each that the venue lends."""
    ltv, threshold, lent = np.zeros(len(index)), np.zeros(len(index)), np.zeros(len(index))
    for reserve in venue.reserves:
        at = index[reserve.token]
        ltv[at], threshold[at] = reserve.ltv_bps / 1e4, reserve.liquidation_threshold_bps / 1e4
        alone = venue.kind in (MORPHO_BLUE, COMPOUND_V3)
        earns = reserve.rate.slope1 > 0 or reserve.rate.base > 0
        lent[at] = reserve is venue.reserves[-1] if alone else earns
    return ltv, threshold, lent


def _loops(
    market: SharedBook, v: int, weight: float, ltv: Float64, threshold: Float64, lent: Float64
) -> list[_Route]:
    """Return the loops of a venue: a staked token against what it redeems for, in a category or a market."""
    index, venue = market.token_index(), market.lending[v]
    found = []
    for token in market.tokens:
        if token.backing is None or token.backing.kind is not BackingKind.STAKED:
            continue
        staked, base = index[token.symbol], index.get(token.backing.token, -1)
        if base < 0 or not lent[base]:
            continue
        collateral, debt = np.zeros(len(index)), np.zeros(len(index))
        collateral[staked], debt[base] = 1.0, 1.0
        for category in venue.emodes:
            allowed = category.tokens if category.borrowable is None else category.borrowable
            if token.symbol in category.tokens and token.backing.token in allowed:
                limits = np.full(len(index), category.ltv_bps / 1e4)
                thresholds = np.full(len(index), category.liquidation_threshold_bps / 1e4)
                found.append(_Route(v, category.id, weight, collateral, debt, limits, thresholds))
        if venue.kind in (MORPHO_BLUE, COMPOUND_V3) and ltv[staked] > 0:
            found.append(_Route(v, 0, weight, collateral, debt, ltv, threshold))
    return found


def _legs(spec: BookSpec, rng: np.random.Generator, archetype: Any, assets: Float64) -> _Legs:
    """Return where each wallet is, with what, split over two venues where it is on two."""
    n, tokens = spec.accounts, len(spec.market.tokens)
    pick, second = rng.random(n), rng.random(n)
    split = rng.uniform(0.3, 0.7, n)
    log_size = np.log10(assets / spec.median_usd)
    two = rng.random(n) < np.minimum(spec.several_venues * 2 ** (log_size / 2), 0.9)
    count_held, count_owed = rng.random(2 * n), rng.random(2 * n)
    keys_held, keys_owed = rng.random((2 * n, tokens)), rng.random((2 * n, tokens))
    parts_held, parts_owed = rng.standard_exponential((2, 2 * n, tokens))

    places: list[tuple[_Route, Any]] = []
    part = np.ones(2 * n)
    for kind in Archetype:
        mine = np.flatnonzero(archetype == kind)
        if kind is Archetype.TRADER or not len(mine):
            continue
        routes = _routes(spec, kind)
        if not routes:
            raise InputError(
                f"no venue of the market can hold a {kind.name.lower()}",
                fix=f"set the share of {kind.name.lower()}s to 0, or add a venue",
            )
        weights = np.cumsum([route.weight for route in routes])
        first = np.searchsorted(weights[:-1] / weights[-1], pick[mine], side="right")
        # The venue after the first one, by a step that is never a whole round.
        step = 1 + np.floor(second[mine] * max(len(routes) - 1, 1)).astype(np.int64)
        other = (first + step) % len(routes)
        venues = np.array([route.venue for route in routes])
        splits = two[mine] & (venues[first] != venues[other]) & (kind is not Archetype.LOOPER)
        part[mine] = np.where(splits, split[mine], 1.0)
        part[mine + n] = 1 - split[mine]
        for r, route in enumerate(routes):
            places.append((route, np.concatenate([mine[first == r], mine[splits & (other == r)] + n])))
    rows = [at for _, at in places]
    empty = np.zeros((0, tokens))
    held = [
        _mix(route.collateral, at, count_held, (0.7, 0.92), keys_held, parts_held) for route, at in places
    ]
    owed = [_mix(route.debt, at, count_owed, (0.85,), keys_owed, parts_owed) for route, at in places]
    at = np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)

    def each(values: Sequence[int]) -> Int32:
        return np.repeat(np.array(values, dtype=np.int32), [len(found) for found in rows])

    return _Legs(
        wallet=(at % n).astype(np.int32),
        venue=each([route.venue for route, _ in places]),
        emode=each([route.emode for route, _ in places]),
        part=part[at],
        held=np.concatenate([*held, empty]),
        owed=np.concatenate([*owed, empty]),
        limit=np.concatenate([*(h @ p.ltv for h, (p, _) in zip(held, places, strict=True)), empty[:, 0]]),
        threshold=np.concatenate(
            [*(h @ p.threshold for h, (p, _) in zip(held, places, strict=True)), empty[:, 0]]
        ),
    )


def _mix(
    weights: Float64, at: Any, count: Float64, several: tuple[float, ...], keys: Float64, parts: Float64
) -> Float64:
    """Return parts of one by token: as many tokens as `count` says, the popular more often, for rows `at`."""
    possible = int((weights > 0).sum())
    number = np.minimum(1 + np.searchsorted(np.array(several), count[at], side="right"), possible)
    # Exponential clocks: the first to ring is a token with probability by weight, and so on without it.
    with np.errstate(divide="ignore"):
        rings = np.where(weights > 0, -np.log1p(-keys[at]) / weights, np.inf)
    rank = np.argsort(np.argsort(rings, axis=1, kind="stable"), axis=1, kind="stable")
    chosen = np.where(rank < number[:, None], 0.1 + parts[at], 0.0)
    return np.asarray(chosen / chosen.sum(axis=1, keepdims=True), dtype=np.float64)


# ------------------------------------------------------------------------------------------------- leverage


def _borrowed(
    spec: BookSpec, rng: np.random.Generator, archetype: Any, assets: Float64, legs: _Legs
) -> Float64:
    """Return debt over collateral of each leg, so that the mean leverage of wallets is what is asked for."""
    noise = np.exp(spec.spread * rng.standard_normal(spec.accounts))
    rise = spec.size_rise ** np.log10(assets / spec.median_usd)
    low, high = spec.looper_leverage
    loops = rng.uniform(low, high, spec.accounts)
    is_looper = archetype == Archetype.LOOPER
    most = _WITHIN * legs.limit
    is_near = (rng.random(len(legs.wallet)) < spec.near) & ~is_looper[legs.wallet]
    health = rng.uniform(1.0, spec.near_health_factor, len(legs.wallet))
    close = np.where(is_near, np.minimum(legs.threshold / health, most), 0.0)
    lends = np.bincount(legs.wallet, minlength=spec.accounts) > 0

    def ltv(scale: float) -> Float64:
        leverage = np.where(is_looper, loops, 1 + scale * noise * rise)
        wanted: Float64 = np.minimum(1 - 1 / leverage[legs.wallet], most)
        return np.maximum(wanted, close)

    def mean(scale: float) -> float:
        debt = np.bincount(legs.wallet, legs.part * ltv(scale), minlength=spec.accounts)
        return float((1 / (1 - debt[lends])).mean()) if lends.any() else 0.0

    # The mean rises with the scale until every limit binds; halving finds where it is the one asked for.
    lower, upper = 0.0, 50.0
    for _ in range(50):
        middle = (lower + upper) / 2
        lower, upper = (lower, middle) if mean(middle) > spec.mean_leverage else (middle, upper)
    return ltv(lower)


# -------------------------------------------------------------------------------------------------- columns


def _quantised(amounts: Float64, rounding: Any) -> Float64:
    """Return amounts with `DIGITS` significant digits, each the float nearest to its decimals."""
    positive = amounts > 0
    exponent = np.zeros(amounts.shape)
    np.log10(amounts, out=exponent, where=positive)
    places = DIGITS - 1 - np.floor(exponent)
    # Multiplying by a power of ten below one would round twice.
    scale = 10.0 ** np.abs(places)
    whole = rounding(np.where(places >= 0, amounts * scale, amounts / scale))
    return np.where(positive, np.where(places >= 0, whole / scale, whole * scale), 0.0)


def _columns(legs: _Legs, held: Float64, owed: Float64) -> LendingColumns:
    parts = []
    for side, amounts in ((Side.COLLATERAL, held), (Side.DEBT, owed)):
        leg, token = np.nonzero(amounts)
        parts.append((leg, token, np.full(len(leg), side, dtype=np.int8), amounts[leg, token]))
    leg, token, sides, amount = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((token, sides, legs.wallet[leg], legs.venue[leg]))
    leg = leg[order]
    return LendingColumns(
        wallet=legs.wallet[leg],
        venue=legs.venue[leg],
        token=token[order].astype(np.int32),
        side=sides[order],
        amount=amount[order],
        emode=legs.emode[leg],
    )


def _supplied(spec: BookSpec, market: SharedBook, v: int, rows: LendingColumns) -> LendingVenue:
    """Return a venue whose others supply so much that each token is lent no further than asked for."""
    venue, index = market.lending[v], market.token_index()
    lends_collateral = venue.kind not in (MORPHO_BLUE, COMPOUND_V3)

    def supplied(reserve: Reserve) -> Reserve:
        here = (rows.venue == v) & (rows.token == index[reserve.token])
        owed = rows.amount[here & (rows.side == Side.DEBT)].sum() + reserve.outside_debt
        held = rows.amount[here & (rows.side == Side.COLLATERAL)].sum() if lends_collateral else 0.0
        missing = owed / spec.utilisation - held - reserve.reserves
        needed = float(_quantised(np.array([max(missing, 0.0)]), np.ceil)[0])
        return replace(reserve, idle_supply=max(reserve.idle_supply, needed))

    return replace(venue, reserves=tuple(supplied(reserve) for reserve in venue.reserves))


def _perps(
    spec: BookSpec,
    rng: np.random.Generator,
    archetype: Any,
    assets: Float64,
    legs: _Legs,
    held: Float64,
    prices: Float64,
) -> PerpColumns:
    """Return hedgers' shorts of what they hold, and traders' longs, scaled to take the other side."""
    market, index = spec.market, spec.market.token_index()
    n, tokens = spec.accounts, len(spec.market.tokens)
    uniform = rng.random((4, n, tokens))
    gain = 0.02 * rng.standard_normal((n, tokens))
    if not market.perps:
        for share, name in ((spec.hedgers, "hedgers"), (spec.traders, "traders")):
            if share:
                raise InputError(f"{name}: {share} without a venue of perpetuals", fix="set it to 0")
        return NO_PERPS
    # Perpetuals are of the first venue: one market for both sides of them.
    venue = market.perps[0]
    listed = np.zeros(tokens, dtype=np.bool_)
    initial = np.zeros(tokens)
    for symbol, part in venue.initial_margin.items():
        listed[index[symbol]], initial[index[symbol]] = True, part
    hedger, trader = archetype == Archetype.HEDGER, archetype == Archetype.TRADER
    long = np.zeros((n, tokens))
    np.add.at(long, legs.wallet, held)
    short = np.where(hedger[:, None] & listed, long * (0.8 + 0.2 * uniform[0]), 0.0)
    first = np.argmax(np.where(listed, uniform[1], -1.0), axis=1)
    wanted = np.zeros((n, tokens))
    wanted[np.arange(n), first] = np.where(trader, assets, 0.0)
    wanted *= listed
    total = wanted.sum(axis=0)
    factor = np.divide(short.sum(axis=0), total, out=np.zeros(tokens), where=total > 0)
    size = _quantised(short, np.floor) * -1.0 + _quantised(wanted * factor, np.floor)
    wallet, token = np.nonzero(size)
    amount, price = size[wallet, token], prices[token]
    entry = _quantised(price * (1 + np.clip(gain[wallet, token], -0.05, 0.05)), np.round)
    asked = np.abs(amount) * price * (initial[token] + 0.01 + 0.2 * uniform[3][wallet, token])
    needed = asked + np.maximum(-amount * (price - entry), 0.0)
    margin_price = 1.0 if venue.margin_token == USD else prices[index[venue.margin_token]]
    margin = np.bincount(wallet, needed / margin_price, minlength=n)
    accounts = np.flatnonzero(margin > 0)
    zeros = np.zeros(len(wallet), dtype=np.int32)
    return PerpColumns(
        wallet=wallet.astype(np.int32),
        venue=zeros,
        token=token.astype(np.int32),
        size=amount,
        entry=entry,
        margin_wallet=accounts.astype(np.int32),
        margin_venue=np.zeros(len(accounts), dtype=np.int32),
        margin=_quantised(margin[accounts].astype(np.float64), np.ceil),
    )
