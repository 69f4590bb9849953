"""What the world may do to accounts of several protocols: prices by venue, pools, gas, links, time.

Beside a grid of price moves stand the five that make netting across protocols fail (reference of the margin
engines, section 5.3): feeds of the same asset that diverge, a stable coin that leaves its peg, pools at full
utilisation, gas at twenty times its price, and halted sequencers and bridges. Sizes are round [R].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

import numpy as np
from pydantic import Field, FiniteFloat, ValidationError

from contracts_abi.errors import InputError, UnknownNameError
from oracle.strict import StrictModel, input_error
from simulation.book.types import USD, BackingKind, SharedBook
from simulation.margin.cross.excess import venue_names
from simulation.margin.cross.links import BLOCK_S, LinkClass, Links, Seconds
from simulation.types import Bool, Float64


class Kind(StrEnum):
    """What a scenario is about."""

    PRICE = "price"
    ORACLE = "oracle divergence"
    DEPEG = "depeg"
    UTILISATION = "utilisation 100 %"
    GAS = "gas spike"
    HALT = "halt"
    OWN = "own"


Factor = Annotated[FiniteFloat, Field(gt=0)]
Move = Annotated[FiniteFloat, Field(gt=-1)]

HALTS: Final[Mapping[str, tuple[LinkClass, ...]]] = {
    "bridge": (LinkClass.BRIDGE, LinkClass.CEX),
    "sequencer": tuple(kind for kind in LinkClass if kind is not LinkClass.SAME_ACCOUNT),
}
"""What no longer moves; a halted sequencer starts again with the price elsewhere."""


class OwnScenario(StrictModel):
    """A scenario of a file.

    Attributes
    ----------
    name
        For reports.
    prices
        Symbol to multiplier; a token that is backed by a named one follows it.
    every
        Of all tokens that are no stables and follow no named one.
    seen
        Venue to symbol to multiplier, where a venue's feed says something else.
    frozen
        Venues whose pools are empty.
    gas
        Multiplier of the price of gas.
    closed
        Classes of links that do not move.
    t_liq_s
        Seconds to liquidation.
    """

    name: str = Field(min_length=1)
    prices: Mapping[str, Factor] = {}
    every: Factor = 1.0
    seen: Mapping[str, Mapping[str, Factor]] = {}
    frozen: tuple[str, ...] = ()
    gas: Factor = 1.0
    closed: tuple[LinkClass, ...] = ()
    t_liq_s: Seconds | None = None


class ScenarioFile(StrictModel):
    """Scenarios, as a TOML file has them.

    Attributes
    ----------
    moves
        Of prices: of all tokens together, and of each alone; -0.1 is 10 % down.
    stress_moves
        Of all tokens together, with which each other stress comes.
    divergence
        By how much feeds of a token differ, up and down.
    depeg
        Below its backing that a stable or a staked token falls.
    gas_spike
        Multiplier of gas.
    scenario
        Further ones.
    standard
        Whether the grid and the five stresses are there; false for `scenario` only.
    """

    moves: tuple[Move, ...] = (
        *(-0.5, -0.4, -0.3, -0.25, -0.2, -0.15, -0.1, -0.05),
        *(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5),
    )
    stress_moves: tuple[Move, ...] = (-0.3, -0.15, 0.15, 0.3)
    divergence: tuple[Move, ...] = (-0.15, 0.15)
    depeg: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.1
    gas_spike: Annotated[FiniteFloat, Field(ge=1)] = 20.0
    scenario: tuple[OwnScenario, ...] = ()
    standard: bool = True


@dataclass(frozen=True, slots=True)
class Scenarios:
    """S scenarios for the V venues and T tokens of a book.

    Attributes
    ----------
    names, kinds
        For reports, each of length S.
    factors
        What a venue's feeds multiply prices by, shape (V, S, T).
    frozen
        Whether the venue's pool is empty, shape (V, S).
    gas_factor
        Shape (S,).
    closed
        Whether a class of links, in the order of `LinkClass`, does not move, shape (classes, S).
    t_liq_s
        Seconds to liquidation, nan where the links' own figure holds, shape (V, S).
    """

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    factors: Float64
    frozen: Bool
    gas_factor: Float64
    closed: Bool
    t_liq_s: Float64

    def __len__(self) -> int:
        return len(self.names)

    def open_links(self, links: Links) -> Bool:
        """Return whether each link arrives before liquidation, shape (V + 1, V, S)."""
        t_liq = np.where(np.isnan(self.t_liq_s), links.t_liq_s, self.t_liq_s)
        opened: Bool = np.asarray(links.latency_s[:, :, None] <= t_liq[None], dtype=np.bool_)
        for i, kind in enumerate(LinkClass):
            opened &= ~(links.of_class(kind)[:, :, None] & self.closed[i][None, None])
        return opened


def roots(book: SharedBook) -> tuple[str, ...]:
    """Return for each token what its price follows: itself, or what backs it in the end; USD of stables.

    Raises
    ------
    InputError
        If tokens back each other in a circle.
    """
    by_symbol = {token.symbol: token for token in book.tokens}
    found = []
    for token in book.tokens:
        at, seen = token, {token.symbol}
        while at.backing is not None and at.backing.token in by_symbol:
            at = by_symbol[at.backing.token]
            if at.symbol in seen:
                raise InputError(f"{token.symbol} backs itself", fix="let the chain of backing end")
            seen.add(at.symbol)
        stable = at.backing is not None and at.backing.kind is BackingKind.STABLE
        found.append(USD if stable else at.symbol)
    return tuple(found)


class _Builder:
    """Collects scenarios of one book."""

    def __init__(self, book: SharedBook) -> None:
        self.venues = venue_names(book)
        self.symbols = tuple(token.symbol for token in book.tokens)
        self.roots = roots(book)
        self.backed = {token.symbol: token.backing.token for token in book.tokens if token.backing}
        self.rows: list[tuple[str, Kind, Float64, Bool, float, Bool, Float64]] = []

    def prices(self, named: Mapping[str, float], every: float = 1.0) -> Float64:
        """Return multipliers of tokens, shape (T,): their own, that of the nearest backing, or of all."""
        out = np.ones(len(self.symbols))
        for i, (symbol, root) in enumerate(zip(self.symbols, self.roots, strict=True)):
            at: str | None = symbol
            while at is not None and at not in named:
                at = self.backed.get(at)
            out[i] = named[at] if at is not None else 1.0 if root == USD else every
        return out

    def add(
        self,
        name: str,
        kind: Kind,
        seen: Float64,
        *,
        frozen: Iterable[str] = (),
        gas: float = 1.0,
        closed: Iterable[LinkClass] = (),
        t_liq_s: float | None = None,
    ) -> None:
        """Add one; `seen` of shape (T,) for all venues, or (V, T)."""
        count = len(self.venues)
        frozen, closed = set(frozen), set(closed)
        self.rows.append(
            (
                name,
                kind,
                np.broadcast_to(seen, (count, len(self.symbols))),
                np.array([venue in frozen for venue in self.venues], dtype=np.bool_),
                gas,
                np.array([kind_ in closed for kind_ in LinkClass], dtype=np.bool_),
                np.full(count, np.nan if t_liq_s is None else t_liq_s),
            )
        )

    def built(self) -> Scenarios:
        """Return all together."""
        names, kinds, factors, frozen, gas, closed, t_liq = zip(*self.rows, strict=True)
        return Scenarios(
            names=names,
            kinds=kinds,
            factors=np.stack(factors, axis=1),
            frozen=np.stack(frozen, axis=1),
            gas_factor=np.array(gas),
            closed=np.stack(closed, axis=1),
            t_liq_s=np.stack(t_liq, axis=1),
        )


def scenarios_of(file: ScenarioFile, book: SharedBook) -> Scenarios:
    """Return the scenarios of a file for a book; the first is the book's own state.

    Raises
    ------
    InputError
        If a scenario names a token or venue that the book has not, or tokens back each other.
    """
    build = _Builder(book)
    build.add("as it is", Kind.PRICE, np.ones(len(build.symbols)))
    if file.standard:
        _standard(build, file, book)
    for own in file.scenario:
        _own(build, own)
    return build.built()


def _standard(build: _Builder, file: ScenarioFile, book: SharedBook) -> None:
    risky = tuple(dict.fromkeys(root for root in build.roots if root != USD))
    for move in file.moves:
        build.add(f"all {move:+.0%}", Kind.PRICE, build.prices({}, 1 + move))
        if len(risky) > 1:
            for root in risky:
                build.add(f"{root} {move:+.0%}", Kind.PRICE, build.prices({root: 1 + move}))
    moves = [(f", all {move:+.0%}", build.prices({}, 1 + move)) for move in file.stress_moves]
    calm = [("", np.ones(len(build.symbols))), *moves]

    listed: list[set[str]] = [{reserve.token for reserve in venue.reserves} for venue in book.lending]
    listed += [{*venue.maintenance_margin, venue.margin_token} for venue in book.perps]
    root_of = dict(zip(build.symbols, build.roots, strict=True))
    for root in risky:
        has = [v for v, tokens in enumerate(listed) if any(root_of.get(token) == root for token in tokens)]
        for move in file.divergence if len(has) > 1 else ():
            moved = build.prices({root: 1 + move})
            for v in has:
                for lags in (True, False) if len(has) > 2 else (True,):
                    # The world moves and one feed lags, or one feed moves and the world does not.
                    seen = np.tile(moved if lags else np.ones_like(moved), (len(build.venues), 1))
                    seen[v] = np.ones_like(moved) if lags else moved
                    name = f"{root} {move:+.0%} {'but' if lags else 'only'} at {build.venues[v]}"
                    build.add(name, Kind.ORACLE, seen, t_liq_s=BLOCK_S)
    for token in book.tokens:
        if token.backing is not None and file.depeg > 0:
            for text, prices in calm:
                fallen = prices.copy()
                fallen[build.symbols.index(token.symbol)] *= 1 - file.depeg
                build.add(f"{token.symbol} {-file.depeg:+.0%} off its peg{text}", Kind.DEPEG, fallen)
    for text, prices in moves:
        build.add(f"pools empty{text}", Kind.UTILISATION, prices, frozen=build.venues)
        build.add(f"gas x{file.gas_spike:g}{text}", Kind.GAS, prices, gas=file.gas_spike)
        for what, closed in HALTS.items():
            build.add(f"{what} halted{text}", Kind.HALT, prices, closed=closed)


def _own(build: _Builder, own: OwnScenario) -> None:
    for symbol in (*own.prices, *(symbol for one in own.seen.values() for symbol in one)):
        if symbol not in build.symbols:
            raise UnknownNameError(f"token of scenario {own.name!r}", symbol, build.symbols)
    for venue in (*own.seen, *own.frozen):
        if venue not in build.venues:
            raise UnknownNameError(f"venue of scenario {own.name!r}", venue, build.venues)
    seen = np.tile(build.prices(own.prices, own.every), (len(build.venues), 1))
    for venue, named in own.seen.items():
        seen[build.venues.index(venue)] = build.prices({**own.prices, **named}, own.every)
    build.add(
        own.name,
        Kind.OWN,
        seen,
        frozen=own.frozen,
        gas=own.gas,
        closed=own.closed,
        t_liq_s=own.t_liq_s,
    )


def parse_scenarios(table: Mapping[str, Any], where: str) -> ScenarioFile:
    """Return the scenarios of a file that was read as TOML.

    Raises
    ------
    InputError
        Naming the file, the key and the value.
    """
    try:
        return ScenarioFile.model_validate(table)
    except ValidationError as error:
        raise input_error(error, where) from None
