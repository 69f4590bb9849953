"""Plays feeds and accounts on a real chain: the feeds' own contracts before the real Aave V3, step by step.

What the mechanisms in Python answer, and what the exact model in Python makes of it, comes with the script.
The contracts then do the same from the same prices and acts, and both are compared at every step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Final, overload

from oracle.faults import FaultModel
from oracle.mechanisms import FeedModel, Played, World
from oracle.types import PriceObs, Reading
from simulation.chain.evm import Evm
from simulation.chain.plays.pool import ChainPool
from simulation.chain.plays.rigs.leaves import Leaf, deploy_leaf
from simulation.chain.plays.stage import PRICE_DECIMALS, Stage
from simulation.chain.plays.stand import Stand
from simulation.replay.economics import UNLIMITED_KEEPER, Borrower, Economics, Keeper, Step, play_accounts
from simulation.replay.lending import AaveModel, Account, Market, Quotes

LEAD_S: Final = 86_400
"""How long before the first step the stand is built: averages and delays reach back."""


@dataclass(frozen=True, slots=True)
class Script:
    """What is to be played, and what the computation says of it.

    Attributes
    ----------
    id
        Names the scenario.
    models, worlds
        Feed name to its description, and to what its mechanism sees.
    played
        Feed name to what its mechanism answers.
    reads
        Asset to the feed that the protocol reads; the truth is posted for the others.
    faults
        Faults that bend what a consumer reads; contracts show only some.
    steps
        The market step by step, at the prices that the feeds report.
    markets
        Assets by symbol.
    positions, borrowers, keepers
        Who is there; see `simulation.replay.economics`.
    """

    id: str
    models: Mapping[str, FeedModel]
    worlds: Mapping[str, World]
    played: Mapping[str, Played]
    reads: Mapping[str, str]
    steps: Sequence[Step]
    markets: Mapping[str, Market]
    faults: Sequence[FaultModel] = ()
    positions: Sequence[Account] = ()
    borrowers: Sequence[Borrower] = ()
    keepers: Sequence[Keeper] = (UNLIMITED_KEEPER,)


@dataclass(frozen=True, slots=True)
class Parted:
    """One value on which the chain and the computation part.

    Attributes
    ----------
    t
        Unix seconds of the step; None for a figure of the whole run.
    what
        Which value, for example ``feed LUNA/USD``.
    chain, computed
        Both.
    """

    t: int | None
    what: str
    chain: str
    computed: str


@dataclass(frozen=True, slots=True)
class Said:
    """What the oracle said at one step.

    Attributes
    ----------
    t, block
        Unix seconds of the step, and the last block on the local chain.
    prices
        Asset to ``AaveOracle.getAssetPrice``, 8 decimals; None where it reverts.
    answers
        Feed to its contract's own answer at its own scale; None where it reverts.
    """

    t: int
    block: int
    prices: Mapping[str, int | None]
    answers: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class ChainPlay:
    """A script as it went on chain.

    Attributes
    ----------
    id
        The script's.
    backend
        ``revm`` or ``anvil``.
    oracle
        Address of Aave's oracle.
    sources
        Asset to the contract that it reads at the end.
    said
        One a step.
    economics
        Of the accounts on the real pool.
    parted
        Where contracts and computation part; empty when they agree in everything.
    costs
        What moving a feed took, one line each.
    """

    id: str
    backend: str
    oracle: str
    sources: Mapping[str, str]
    said: tuple[Said, ...]
    economics: Economics
    parted: tuple[Parted, ...]
    costs: tuple[str, ...]


def play_script(script: Script, evm: Evm) -> ChainPlay:
    """Play a script on an EVM whose time is at least `LEAD_S` before the first step.

    Raises
    ------
    UnknownNameError
        If a feed is of a kind that no rig brings about.
    InputError
        If the EVM's time is too late, or an account cannot be played on Aave.
    CallReverted
        If the contracts refuse what the script needs, such as parameters of a market.
    """
    first = script.steps[0].t
    stage = Stage(evm, max(evm.timestamp(), first - LEAD_S))
    pool = ChainPool(stage, script.markets)
    stand = Stand(
        stage,
        script.models,
        script.worlds,
        sorted(set(script.reads.values())),
        pool.at.tokens,
        script.faults,
    )
    for position in script.positions:
        pool.open(position)
    stage.move_to(first)
    stand.begin()
    leaves = {
        symbol: deploy_leaf(stage, f"{symbol} true", PRICE_DECIMALS, _true_e8(script.steps[0], symbol))
        for symbol in script.markets
        if symbol not in script.reads
    }
    pool.read_from({symbol: leaf.source for symbol, leaf in leaves.items()})
    game = _Game(script, pool, stand, leaves)
    economics = play_accounts(pool, game, script.positions, script.borrowers, script.keepers)
    game.close(economics)
    return ChainPlay(
        id=script.id,
        backend=evm.name,
        oracle=pool.at.aave.oracle,
        sources=stand.sources(script.reads) | {symbol: leaf.source for symbol, leaf in leaves.items()},
        said=tuple(game.said),
        economics=economics,
        parted=tuple(game.parted),
        costs=stand.costs(),
    )


class _Game(Sequence[Step]):
    """The steps of a play, at the prices that the oracle says when each of them is reached.

    Going through them once moves the chain. What the oracle said stays, and where that was not what was
    computed.
    """

    def __init__(self, script: Script, pool: ChainPool, stand: Stand, leaves: Mapping[str, Leaf]) -> None:
        self._script = script
        self._pool = pool
        self._stand = stand
        self._leaves = leaves
        self.said: list[Said] = []
        self.parted: list[Parted] = []

    def __len__(self) -> int:
        return len(self._script.steps)

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Step]: ...
    def __getitem__(self, index: int | slice) -> Step | Sequence[Step]:
        return self._script.steps[index]

    def __iter__(self) -> Iterator[Step]:
        for i, step in enumerate(self._script.steps):
            if i:
                for t in self._stand.moments(self._script.steps[i - 1].t, step.t):
                    self._pool.stage.move_to(t)
                    self._stand.at(t)
                self._pool.stage.move_to(step.t)
                self._stand.step(i)
                for symbol, leaf in self._leaves.items():
                    leaf.post(_true_e8(step, symbol))
            self._pool.read_from(self._stand.sources(self._script.reads))
            yield _at_prices(step, self._look(i, step))

    def _look(self, i: int, step: Step) -> Mapping[str, int | None]:
        """Return all prices at step `i`, held against the computed ones."""
        prices, answers = self._pool.prices(), self._stand.answers()
        block = self._pool.stage.evm.block_number() - 1
        self.said.append(Said(step.t, block, prices, answers))
        for name, answer in answers.items():
            computed = _mantissa(self._script.played[name].readings[i])
            self._differ(step.t, f"feed {name}", answer or None, computed)
        for symbol, price in prices.items():
            self._differ(step.t, f"price of {symbol}", price, _price_e8(step.borrowing.collateral[symbol]))
        return prices

    def close(self, economics: Economics) -> None:
        """Hold the run against the exact model, and the accounts against the pool's own tokens."""
        script = self._script
        steps = [
            _at_prices(step, {s: _price_e8(price) for s, price in step.borrowing.collateral.items()})
            for step in script.steps
        ]
        model = AaveModel(script.markets)
        computed = play_accounts(model, steps, script.positions, script.borrowers, script.keepers)
        for item in fields(Economics):
            if item.name != "model":
                self._differ(None, item.name, getattr(economics, item.name), getattr(computed, item.name))
        for account in economics.accounts:
            self._pool.settle(account)
            self._differ(None, f"account {account.id}", self._pool.account(account.id), account)

    def _differ(self, t: int | None, what: str, chain: object, computed: object) -> None:
        if chain != computed:
            self.parted.append(Parted(t, what, str(chain), str(computed)))


def _mantissa(reading: Reading) -> int | None:
    """Return what a feed answers; zero is no price, and an aggregator that never had a round says it."""
    return (reading.mantissa or None) if isinstance(reading, PriceObs) else None


def _price_e8(price: Fraction | None) -> int | None:
    """Return a price as Aave's oracle tells it: rounded down, and none where it is not positive."""
    if price is None:
        return None
    scaled = math.floor(price * 10**PRICE_DECIMALS)
    return scaled if scaled > 0 else None


def _at_prices(step: Step, prices: Mapping[str, int | None]) -> Step:
    """Return a step at which the protocol acts on prices with 8 decimals."""
    quotes = Quotes.same(
        {s: None if price is None else Fraction(price, 10**PRICE_DECIMALS) for s, price in prices.items()}
    )
    return replace(step, borrowing=quotes, liquidating=quotes)


def _true_e8(step: Step, symbol: str) -> int:
    return math.floor(step.truth[symbol] * 10**PRICE_DECIMALS)
