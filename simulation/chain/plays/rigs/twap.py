"""An average over a real Uniswap V3 pool, whose spot price is moved by real swaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from contracts_abi.errors import InputError
from simulation.chain.artifacts import openzeppelin, uniswap_twap
from simulation.chain.evm import labelled_address
from simulation.chain.plays.stage import Stage
from simulation.chain.plays.v3pool import Trade, V3Pool, deploy_pool

ARBITRAGEUR: Final = labelled_address("arbitrageur")
ATTACKER: Final = labelled_address("attacker of the pool")

_OBSERVATIONS: Final = 500
_TRIES: Final = 64
_UINT128: Final = 2**128


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
    ticks
        Where the spot price stands at each step, after the step's trade.
    attacked
        Whether it is the attacker who puts it there; an arbitrageur otherwise.
    worth
        True price of the base token in the quote token at each step, to value what was spent.
    """

    base_decimals: int
    quote_decimals: int
    decimals: int
    window_s: int
    fee_pips: int
    bands: Sequence[Band]
    ticks: Sequence[int]
    attacked: Sequence[bool]
    worth: Sequence[Fraction]


class TwapStage:
    """The pool of a plan, and the contract that answers its average."""

    def __init__(self, stage: Stage, plan: TwapPlan) -> None:
        self._plan = plan
        base, quote = _tokens(stage, plan)
        self.pool: V3Pool = deploy_pool(stage, base, quote, plan.fee_pips, plan.ticks[0])
        for band in plan.bands:
            self.pool.provide(
                band.lower,
                band.upper,
                int(band.base * 10**plan.base_decimals),
                int(band.quote * 10**plan.quote_decimals),
            )
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
        """Swap to where the spot price stands at step `i`."""
        trader = ATTACKER if self._plan.attacked[i] else ARBITRAGEUR
        trade = self.pool.move_to(self._plan.ticks[i], trader)
        if trade is not None and trader == ATTACKER:
            self._spent.append((i, trade))

    def cost(self) -> Fraction:
        """Return what the attacker's swaps lost against the true price, in quote tokens."""
        plan = self._plan
        return sum(
            (
                plan.worth[i] * trade.amount0 / 10**plan.base_decimals
                + Fraction(trade.amount1, 10**plan.quote_decimals)
                for i, trade in self._spent
            ),
            Fraction(0),
        )

    def paid_in(self) -> Fraction:
        """Return what the attacker had to have at hand: quote tokens paid into the pool."""
        unit = 10**self._plan.quote_decimals
        return sum((Fraction(max(0, trade.amount1), unit) for _, trade in self._spent), Fraction(0))


def _tokens(stage: Stage, plan: TwapPlan) -> tuple[str, str]:
    """Return base and quote token in the pool's order, which is by address."""
    base = stage.create(openzeppelin("Token").creation_code(plan.base_decimals))
    for _ in range(_TRIES):
        quote = stage.create(openzeppelin("Token").creation_code(plan.quote_decimals))
        if int(base, 16) < int(quote, 16):
            return base, quote
        base = stage.create(openzeppelin("Token").creation_code(plan.base_decimals))
    raise InputError("no address of a quote token lies above that of the base token")
