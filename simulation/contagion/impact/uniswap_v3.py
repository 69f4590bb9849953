"""Concentrated liquidity in floats: the swaps of `simulation.amm.uniswap_v3` over many paths at once.

Between two bounds of the square-root price ``s`` a pool of liquidity ``L`` holds ``L (1/s - 1/upper)`` tokens
and ``L (s - lower)`` dollars. A sale puts in the sum of ``L d(1/s)`` over the bounds that it crosses, and
takes out the sum of ``L ds``. The fee is kept apart from the liquidity, as in the contract. The pool takes no
more than moves the price to the end of its liquidity. No rounding: tests hold it to the exact model.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from contracts_abi.errors import InputError
from contracts_abi.uniswap_v3 import MAX_TICK, MIN_TICK
from simulation.amm.uniswap_v3 import PIPS, Q96, PoolState
from simulation.contagion.impact import (
    Fill,
    Flow,
    ImpactModel,
    bisected_sale,
    impact_models,
    least_average,
    sizes,
)
from simulation.contagion.impact.book import checked_share
from simulation.contagion.impact.cpmm import check_fee
from simulation.types import Bool, Float64

ROOT, DEPTH, FEE_TOKENS, FEE_CASH = 0, 1, 2, 3
"""Columns of the state: square-root price, part of the liquidity that is left, fees kept."""


@impact_models.register("uniswap-v3")
@dataclass(frozen=True, slots=True)
class UniswapV3:
    """Concentrated-liquidity pool of the token and dollars, by its initialised ticks.

    Attributes
    ----------
    bounds
        Square roots of the price in dollars a token where liquidity changes, rising; one more than
        `liquidity`.
    liquidity
        Between each two bounds, in whole units: ``sqrt(tokens * dollars)``; 0 or more.
    root
        Square root of the price at the start, within the bounds.
    fee
        Part of the input, in [0, 1), in a scenario at most 0.1: 0.003 is 30 basis points.
    """

    kind: ClassVar[str] = "uniswap-v3"

    bounds: tuple[float, ...]
    liquidity: tuple[float, ...]
    root: float
    fee: float = 0.003

    def __post_init__(self) -> None:
        check_fee(self.fee)
        if len(self.bounds) != len(self.liquidity) + 1 or len(self.bounds) < 2:
            raise InputError(
                f"{len(self.bounds)} bounds for {len(self.liquidity)} of liquidity", fix="give one bound more"
            )
        if not (self.bounds[0] > 0 and (np.diff(self.bounds) > 0).all() and np.isfinite(self.bounds[-1])):
            raise InputError("bounds do not rise from above 0", fix="sort them")
        if not (np.isfinite(self.liquidity).all() and min(self.liquidity) >= 0 and max(self.liquidity) > 0):
            raise InputError(
                "liquidity has a value below 0, or none above", fix="check the signs of the ticks"
            )
        if not self.bounds[0] <= self.root <= self.bounds[-1]:
            raise InputError(
                f"root {self.root:g} is not within the bounds",
                fix=f"{self.bounds[0]:g} to {self.bounds[-1]:g}",
            )

    def start(self, paths: int) -> Float64:
        """Return the state of the pool as given, shape ``(paths, 4)``; see `ImpactModel.start`."""
        return np.tile([self.root, 1.0, 0.0, 0.0], (paths, 1))

    def price(self, state: Float64, price: Float64) -> Float64:
        """Return the pool's price; see `ImpactModel.price`."""
        return np.asarray(state[:, ROOT] ** 2)

    def sell(self, state: Float64, quantity: Float64, price: Float64) -> Fill:
        """Swap tokens for dollars; see `ImpactModel.sell`."""
        keep, s, depth = 1 - self.fee, state[:, ROOT], state[:, DEPTH]
        put = sizes(quantity) * keep / depth
        root, ended = self._after_tokens(s, put, down=True)
        put = np.where(ended, self._tokens_between(s, root), put)
        tokens = np.where(ended, put * depth / keep, quantity)
        cash = self._cash_between(root, s) * depth
        after = state.copy()
        after[:, ROOT] = root
        after[:, FEE_TOKENS] += tokens * self.fee
        return Fill(tokens, cash, np.asarray(2 * np.log(root / s)), after)

    def buy(self, state: Float64, quantity: Float64, price: Float64) -> Fill:
        """Swap dollars for tokens; see `ImpactModel.buy`."""
        s, depth = state[:, ROOT], state[:, DEPTH]
        root, ended = self._after_tokens(s, sizes(quantity) / depth, down=False)
        tokens = np.where(ended, self._tokens_between(root, s) * depth, quantity)
        cash = self._cash_between(s, root) * depth / (1 - self.fee)
        after = state.copy()
        after[:, ROOT] = root
        after[:, FEE_CASH] += cash * self.fee
        return Fill(tokens, cash, np.asarray(2 * np.log(root / s)), after)

    def recover(self, state: Float64, price: Float64, dt_s: float) -> Flow:
        """Let arbitrage take the pool to the edge of the band at once; see `ImpactModel.recover`."""
        keep, s, depth = 1 - self.fee, state[:, ROOT], state[:, DEPTH]
        edge = np.clip(s, np.sqrt(price * keep), np.sqrt(price / keep))
        root = np.clip(edge, self.bounds[0], self.bounds[-1])
        low, high = np.minimum(root, s), np.maximum(root, s)
        tokens, cash = self._tokens_between(high, low) * depth, self._cash_between(low, high) * depth
        falls = root < s
        after = state.copy()
        after[:, ROOT] = root
        after[:, FEE_TOKENS] += np.where(falls, tokens * self.fee / keep, 0.0)
        after[:, FEE_CASH] += np.where(falls, 0.0, cash * self.fee / keep)
        return Flow(np.where(falls, tokens / keep, -tokens), np.where(falls, -cash, cash / keep), after)

    def withdraw(self, state: Float64, share: Float64) -> Flow:
        """Take a part of all positions away, fees stay; see `ImpactModel.withdraw`."""
        tokens, cash = self._reserves(state)
        after = state.copy()
        after[:, DEPTH] *= 1 - checked_share(share)
        return Flow(-tokens * share, -cash * share, after)

    def holdings(self, state: Float64) -> tuple[Float64, Float64]:
        """Return the reserves and the fees; see `ImpactModel.holdings`."""
        tokens, cash = self._reserves(state)
        return tokens + state[:, FEE_TOKENS], cash + state[:, FEE_CASH]

    def _reserves(self, state: Float64) -> tuple[Float64, Float64]:
        s, depth = state[:, ROOT], state[:, DEPTH]
        top, bottom = np.full_like(s, self.bounds[-1]), np.full_like(s, self.bounds[0])
        return self._tokens_between(top, s) * depth, self._cash_between(bottom, s) * depth

    def quantity_to(self, state: Float64, price: Float64, level: Float64) -> Float64:
        """Return how far a sale goes to `level`; see `ImpactModel.quantity_to`."""
        keep, s = 1 - self.fee, state[:, ROOT]
        root = np.clip(np.sqrt(level / keep), self.bounds[0], s)
        return np.asarray(self._tokens_between(s, root) * state[:, DEPTH] / keep)

    def max_profitable_sale(
        self,
        state: Float64,
        price: Float64,
        bonus: Float64 | float,
        costs: Float64 | float = 0.0,
        seized_at: Float64 | None = None,
    ) -> Float64:
        """Return the most to seize and sell without a loss; see `ImpactModel.max_profitable_sale`."""
        model: ImpactModel = self
        return bisected_sale(model, state, price, least_average(price, bonus, costs, seized_at))

    # -------------------------------------------------------------------------------- sums over the bounds

    def _after_tokens(self, s: Float64, put: Float64, *, down: bool) -> tuple[Float64, Bool]:
        """Return the price after `put` tokens came into the liquidity, or went out, and where it ended."""
        bounds, liquidity, above, _ = _sums(self.bounds, self.liquidity)
        last = len(liquidity) - 1
        # At a bound itself, a fall is in the liquidity below it and a rise in that above.
        here = np.clip(np.searchsorted(bounds, s, side="left" if down else "right") - 1, 0, last)
        here_liquidity = liquidity[here]
        far = bounds[here] if down else bounds[here + 1]
        room = here_liquidity * np.abs(1 / far - 1 / s)
        sign = 1.0 if down else -1.0
        with np.errstate(divide="ignore", invalid="ignore"):
            within = 1 / (1 / s + sign * put / here_liquidity)
            # Tokens above the price, counted from the end of the liquidity that `s` is in.
            if down:
                wanted = above[here] + (put - room)
                ended = wanted >= above[0]
            else:
                wanted = above[here + 1] - (put - room)
                ended = wanted <= 0.0
            at = np.clip(np.searchsorted(-above, -wanted, side="left") - 1, 0, last)
            across = 1 / (1 / bounds[at + 1] + (wanted - above[at + 1]) / liquidity[at])
        # Where rounding ends a trade in a gap without liquidity, and no further back than where it left.
        across = np.where(liquidity[at] > 0, across, far)
        across = np.minimum(across, far) if down else np.maximum(across, far)
        stays = put <= room
        root = np.where(put == 0, s, np.where(stays, within, across))
        ended = ended & ~stays
        return np.where(ended, bounds[0] if down else bounds[-1], root), ended

    def _tokens_between(self, upper: Float64, lower: Float64) -> Float64:
        """Return the tokens that liquidity holds between two square-root prices."""
        bounds, liquidity, above, _ = _sums(self.bounds, self.liquidity)
        i, j = self._interval(upper), self._interval(lower)
        one = liquidity[i] * (1 / lower - 1 / upper)
        many = liquidity[j] * (1 / lower - 1 / bounds[j + 1]) + (above[j + 1] - above[i])
        many += liquidity[i] * (1 / bounds[i] - 1 / upper)
        return np.asarray(np.where(i == j, one, many))

    def _cash_between(self, lower: Float64, upper: Float64) -> Float64:
        """Return the dollars that liquidity holds between two square-root prices."""
        bounds, liquidity, _, below = _sums(self.bounds, self.liquidity)
        i, j = self._interval(upper), self._interval(lower)
        one = liquidity[i] * (upper - lower)
        many = liquidity[j] * (bounds[j + 1] - lower) + (below[i] - below[j + 1])
        many += liquidity[i] * (upper - bounds[i])
        return np.asarray(np.where(i == j, one, many))

    def _interval(self, s: Float64) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
        bounds = _sums(self.bounds, self.liquidity)[0]
        return np.asarray(np.clip(np.searchsorted(bounds, s, side="right") - 1, 0, len(bounds) - 2))


@functools.lru_cache(maxsize=256)
def _sums(
    bounds: tuple[float, ...], liquidity: tuple[float, ...]
) -> tuple[Float64, Float64, Float64, Float64]:
    """Return bounds, liquidity, and at each bound the tokens above it and the dollars below it."""
    b, each = np.array(bounds), np.array(liquidity)
    tokens = each * (1 / b[:-1] - 1 / b[1:])
    cash = each * np.diff(b)
    above = np.concatenate([np.cumsum(tokens[::-1])[::-1], [0.0]])
    return b, each, above, np.concatenate([[0.0], np.cumsum(cash)])


def of_pool(pool: PoolState, token: str, decimals: int, quote_decimals: int) -> UniswapV3:
    """Return the float model of a pool's exact state, for sales of `token`.

    Liquidity is known within the words that the state was read for; there it ends.

    Parameters
    ----------
    token
        Address of the token sold; the other one counts as dollars.
    decimals, quote_decimals
        Of the token and of the other one.

    Raises
    ------
    InputError
        If the pool does not have the token.
    """
    if token not in (pool.token0, pool.token1):
        raise InputError(f"token {token} is not in pool {pool.address}", fix="name one of its two")
    spacing = pool.key.tick_spacing
    low = max(MIN_TICK, pool.words.start * 256 * spacing)
    high = min(MAX_TICK, pool.words.stop * 256 * spacing)
    nets = dict(pool.ticks)
    ticks = sorted({low, high, *nets})
    after = sum(1 for tick in ticks if tick <= pool.tick) - 1
    each = [0] * (len(ticks) - 1)
    running = pool.liquidity
    for i in range(after, len(each)):
        each[i] = running
        running += nets.get(ticks[i + 1], 0)
    running = pool.liquidity
    for i in range(after - 1, -1, -1):
        running -= nets.get(ticks[i + 1], 0)
        each[i] = running
    first = token == pool.token0
    zero, one = (decimals, quote_decimals) if first else (quote_decimals, decimals)
    to_whole = 10.0 ** ((zero - one) / 2)
    bounds = [1.0001 ** (tick / 2) * to_whole for tick in ticks]
    root = pool.sqrt_price_x96 / Q96 * to_whole
    liquidity = [v / 10.0 ** ((zero + one) / 2) for v in each]
    if not first:
        bounds, liquidity, root = [1 / b for b in bounds[::-1]], liquidity[::-1], 1 / root
    root = min(max(root, bounds[0]), bounds[-1])
    return UniswapV3(tuple(bounds), tuple(liquidity), root, pool.fee_pips / PIPS)
