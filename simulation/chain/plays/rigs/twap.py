"""An average over a real Uniswap V3 pool, whose spot price is moved by real swaps."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Final, Literal, cast

from contracts_abi.errors import InputError
from oracle.mechanisms.pools import ConcentratedAverage, Placed
from simulation.chain.artifacts import openzeppelin, uniswap_twap
from simulation.chain.evm import labelled_address
from simulation.chain.plays.rigs import Quiet, Site, rigs
from simulation.chain.plays.stage import Stage
from simulation.chain.plays.v3pool import Trade, V3Pool, deploy_pool
from simulation.replay.text import money_text, token_text

ARBITRAGEUR: Final = labelled_address("arbitrageur")
ATTACKER: Final = labelled_address("attacker of the pool")

_OBSERVATIONS: Final = 500
_TRIES: Final = 64
_UINT128: Final = 2**128
_PIPS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Band:
    """Liquidity of a pool between two ticks: at most so much of each token, whole tokens."""

    lower: int
    upper: int
    base: Fraction
    quote: Fraction


@dataclass(frozen=True, slots=True)
class TwapPlan:
    """What becomes of a pool.

    Attributes
    ----------
    base_decimals, quote_decimals
        Of the tokens; the pool prices the first in the second.
    decimals
        Scale of the feed's answer.
    window_s
        What the average is over.
    fee_pips
        Fee tier of the pool.
    bands
        Its liquidity.
    course
        Where the spot price is put, and how much of the liquidity is there, in the order of time. It is the
        attacker who puts it there where it is attacked; an arbitrageur otherwise.
    worth
        True price of the base token in the quote token at each of them, to value what was spent.
    """

    base_decimals: int
    quote_decimals: int
    decimals: int
    window_s: int
    fee_pips: int
    bands: Sequence[Band]
    course: Sequence[Placed]
    worth: Sequence[Fraction]


@dataclass(frozen=True, slots=True)
class Bill:
    """What the attacker's swaps came to.

    Attributes
    ----------
    swaps
        How many there were.
    paid, got
        Raw base and quote tokens that went into the pool and came out of it, the fee in what went in.
    fee
        What of that was the fee, raw base and quote tokens.
    lost
        What the swaps lost against the true price.
    lost_to_fees
        What of that was the fee; the rest is price impact.
    """

    swaps: int
    paid: tuple[int, int]
    got: tuple[int, int]
    fee: tuple[int, int]
    lost: Fraction
    lost_to_fees: Fraction

    @property
    def impact(self) -> Fraction:
        """What was lost to the price that the swaps themselves moved."""
        return self.lost - self.lost_to_fees


class TwapStage:
    """The pool of a plan, and the contract that answers its average."""

    def __init__(self, stage: Stage, plan: TwapPlan) -> None:
        self._plan = plan
        base, quote = _tokens(stage, plan)
        first = plan.course[0]
        self.pool: V3Pool = deploy_pool(stage, base, quote, plan.fee_pips, 0, root=first.root)
        for band in plan.bands:
            self.pool.provide(
                band.lower,
                band.upper,
                int(band.base * 10**plan.base_decimals),
                int(band.quote * 10**plan.quote_decimals),
            )
        self._liquidity = Fraction(1)
        self._resize(first.liquidity)
        self.pool.remember(_OBSERVATIONS)
        amount = 10 ** (plan.base_decimals + plan.decimals - plan.quote_decimals)
        if not 1 <= amount < _UINT128:
            raise InputError(f"a TWAP with {plan.decimals} decimals does not fit Uniswap's library")
        self.source = stage.create(
            uniswap_twap("TwapFeed").creation_code(
                self.pool.pool, base, quote, amount, plan.window_s, plan.decimals
            )
        )
        self._spent: list[tuple[int, Trade]] = []

    def step(self, i: int) -> None:
        """Put price and liquidity to where they are at the `i`-th place of the course."""
        placed = self._plan.course[i]
        if placed.liquidity_first:
            self._resize(placed.liquidity)
        trader = ATTACKER if placed.attacked else ARBITRAGEUR
        trade = self.pool.move_to_root(placed.root, trader)
        if trade is not None and placed.attacked:
            self._spent.append((i, trade))
        self._resize(placed.liquidity)

    def _resize(self, times: Fraction) -> None:
        if times != self._liquidity:
            self.pool.resize(times)
            self._liquidity = times

    def bill(self, dollars: Sequence[Fraction] | None = None) -> Bill:
        """Return what the attacker's swaps came to so far, in quote tokens.

        Parameters
        ----------
        dollars
            What the quote token is worth at each place of the course, to count losses in dollars.
        """
        plan = self._plan
        units = (10**plan.base_decimals, 10**plan.quote_decimals)
        paid, got, fee = [0, 0], [0, 0], [0, 0]
        lost = lost_to_fees = Fraction(0)
        for i, trade in self._spent:
            unit = Fraction(1) if dollars is None else dollars[i]
            worth = (plan.worth[i] * unit / units[0], unit / units[1])
            for token, amount in enumerate((trade.amount0, trade.amount1)):
                lost += worth[token] * amount
                if amount < 0:
                    got[token] -= amount
                    continue
                # Rounded up to a raw unit in each range of liquidity that a swap goes through; here once.
                taken = -(-amount * plan.fee_pips // _PIPS)
                paid[token] += amount
                fee[token] += taken
                lost_to_fees += worth[token] * taken
        return Bill(
            len(self._spent), (paid[0], paid[1]), (got[0], got[1]), (fee[0], fee[1]), lost, lost_to_fees
        )

    def cost(self) -> Fraction:
        """Return what the attacker's swaps lost against the true price, in quote tokens."""
        return self.bill().lost

    def paid_in(self) -> Fraction:
        """Return what the attacker had to have at hand: quote tokens paid into the pool."""
        return Fraction(self.bill().paid[1], 10**self._plan.quote_decimals)


@rigs.register("univ3_twap")
class TwapRig(Quiet):
    """A pool of the feed's two tokens, moved by swaps, and Uniswap's own library that reads its average."""

    kind: ClassVar[Literal["univ3_twap"]] = "univ3_twap"
    early: ClassVar[bool] = True

    def __init__(self, site: Site) -> None:
        model = cast("ConcentratedAverage", site.model)
        if not model.liquidity:
            raise InputError(
                f"feed {site.name} says of no liquidity where it stands, and a pool needs some",
                fix="add liquidity = [{ lower = …, upper = …, base = …, quote = … }]",
            )
        (pair,) = model.pairs(site.name)
        steps, truth = site.world.steps, site.world.truth
        course = model.course(site.name, site.world)
        if model.window_s > (past := steps[0] - site.stage.now):
            raise InputError(
                f"feed {site.name} averages over {model.window_s} s, and the pool is {past} s old at the "
                "first step"
            )
        if _kept(course, model.window_s) > _OBSERVATIONS:
            raise InputError(
                f"feed {site.name} needs more than the {_OBSERVATIONS} observations that the pool keeps",
                fix="a shorter window, or a longer step",
            )
        self._name, self._model, self._steps, self._course = site.name, model, steps, course
        self._base, self._quote = pair.split("/")
        self._at = {placed.t: i for i, placed in enumerate(course)}
        before = [bisect.bisect_right(steps, placed.t) - 1 for placed in course]
        dollars = truth.get(f"{self._quote}/USD")
        self._dollars = None if dollars is None else [dollars[i] for i in before]
        self.decimals = model.decimals
        self._pool = TwapStage(
            site.stage,
            TwapPlan(
                model.base_decimals,
                model.quote_decimals,
                model.decimals,
                model.window_s,
                model.fee_pips,
                [Band(r.lower, r.upper, Fraction(r.base), Fraction(r.quote)) for r in model.liquidity],
                course,
                [truth[pair][i] for i in before],
            ),
        )
        self.source = self._pool.source

    def moments(self) -> tuple[int, ...]:
        """Return the times at which somebody trades; an attack begins and ends at its own second."""
        return tuple(self._at)

    def at(self, t: int) -> None:
        """Trade as of one of these times."""
        if t in self._at:
            self._pool.step(self._at[t])

    def step(self, i: int) -> None:
        """Trade as of step `i`."""
        self.at(self._steps[i])

    def _held_s(self) -> int:
        pairs = itertools.pairwise(self._course)
        return sum(after.t - placed.t for placed, after in pairs if placed.attacked)

    def costs(self) -> tuple[str, ...]:
        """Return what the attacker paid, got and lost; nothing while he has not traded."""
        bill, valued = self._pool.bill(), self._pool.bill(self._dollars)
        if not bill.swaps:
            return ()
        scales = (self._model.base_decimals, self._model.quote_decimals)

        def amounts(raw: tuple[int, int]) -> str:
            told = [
                f"{token_text(n, scale)} {symbol} ({n} raw)"
                for n, scale, symbol in zip(raw, scales, (self._base, self._quote), strict=True)
                if n
            ]
            return " and ".join(told) or "nothing"

        def loss(tokens: Fraction, dollars: Fraction) -> str:
            return f"{amounts((0, round(tokens * 10 ** scales[1])))}, {money_text(dollars)} USD"

        counted = self._dollars is None and self._quote != "USD"
        return (
            f"{self._name}: the attacker held the price for {self._held_s()} s, swaps: {bill.swaps}, paid "
            f"{amounts(bill.paid)}, got {amounts(bill.got)}",
            f"{self._name}: fees {amounts(bill.fee)}, {money_text(valued.lost_to_fees)} USD",
            f"{self._name}: price impact {loss(bill.impact, valued.impact)}",
            f"{self._name}: lost against the true price {loss(bill.lost, valued.lost)}"
            + (f", {self._quote} counted as 1 USD" if counted else ""),
        )


def _kept(course: Sequence[Placed], window_s: int) -> int:
    """Return how many observations the longest window can need: one for each move, and the one before."""
    times = [placed.t for placed in course]
    return 2 + max(i - bisect.bisect_left(times, t - window_s) for i, t in enumerate(times))


def _tokens(stage: Stage, plan: TwapPlan) -> tuple[str, str]:
    """Return base and quote token in the pool's order, which is by address."""
    base = stage.create(openzeppelin("Token").creation_code(plan.base_decimals))
    for _ in range(_TRIES):
        quote = stage.create(openzeppelin("Token").creation_code(plan.quote_decimals))
        if int(base, 16) < int(quote, 16):
            return base, quote
        base = stage.create(openzeppelin("Token").creation_code(plan.base_decimals))
    raise InputError("no address of a quote token lies above that of the base token")
