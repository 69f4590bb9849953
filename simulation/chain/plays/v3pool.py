"""A real Uniswap V3 pool whose spot price is moved by real swaps, and what those swaps cost.

Core and periphery are npm's; the price goes exactly where it is wanted, since a swap stops at the limit price
that it is given, and what it took and gave is what the pool says in its event.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from contracts_abi import uniswap_v3 as abi
from contracts_abi.aave_v3 import APPROVE
from contracts_abi.calls import function
from contracts_abi.errors import InputError
from simulation.amm.uniswap_v3 import (
    get_amount0_delta,
    get_amount1_delta,
    get_sqrt_ratio_at_tick,
    get_tick_at_sqrt_ratio,
)
from simulation.chain.aave_v3 import MINT
from simulation.chain.artifacts import aave, uniswap_core, uniswap_periphery, uniswap_twap
from simulation.chain.evm import ZERO_ADDRESS, find_log, labelled_address
from simulation.chain.plays.stage import OWNER, Stage

# nonce, operator, token0, token1, fee, tickLower, tickUpper, liquidity, and what is owed
_POSITIONS: Final = function(
    "positions(uint256)(uint96,address,address,address,uint24,int24,int24,uint128,uint256,uint256,uint128,"
    "uint128)"
)
# tokenId, amount0Desired, amount1Desired, amount0Min, amount1Min, deadline
_INCREASE_LIQUIDITY: Final = function(
    "increaseLiquidity((uint256,uint256,uint256,uint256,uint256,uint256))(uint128,uint256,uint256)"
)
# tokenId, liquidity, amount0Min, amount1Min, deadline
_DECREASE_LIQUIDITY: Final = function(
    "decreaseLiquidity((uint256,uint128,uint256,uint256,uint256))(uint256,uint256)"
)

# pool, whether token0 goes in, most of what goes in, limit of the square root
_SWAP: Final = function("swap(address,bool,int256,uint160)")

PROVIDER: Final = labelled_address("liquidity provider")

_FOREVER: Final = 2**64
_PLENTY: Final = 2**120
"""More of a token than any swap here takes; what it does not take stays where it was."""


@dataclass(frozen=True, slots=True)
class Trade:
    """One swap.

    Attributes
    ----------
    trader
        Who made it.
    amount0, amount1
        What the pool received of each token, raw; negative is what it paid out.
    tick
        Where it left the price.
    """

    trader: str
    amount0: int
    amount1: int
    tick: int


@dataclass(slots=True)
class V3Pool:
    """A pool on a stage.

    Attributes
    ----------
    stage
        Where it is.
    pool, token0, token1
        Addresses.
    fee_pips
        Fee tier, hundredths of a basis point.
    swapper
        Swaps for a trader.
    position_manager
        The periphery's contract.
    trades
        Every swap so far.
    positions
        The provider's positions, and the liquidity that each began with.
    """

    stage: Stage
    pool: str
    token0: str
    token1: str
    fee_pips: int
    swapper: str
    position_manager: str
    trades: list[Trade] = field(default_factory=list)
    positions: dict[int, int] = field(default_factory=dict)

    def root(self) -> int:
        """Return the square root of the spot price, Q64.96."""
        return int(self.stage.read(abi.SLOT0.call(self.pool))[0])

    def tick(self) -> int:
        """Return the tick of the spot price."""
        return int(self.stage.read(abi.SLOT0.call(self.pool))[1])

    def provide(self, lower: int, upper: int, amount0: int, amount1: int) -> int:
        """Add liquidity between two ticks with at most these amounts; returns the liquidity."""
        for token, amount in ((self.token0, amount0), (self.token1, amount1)):
            self._fund(PROVIDER, token, amount, self.position_manager)
        spacing = self.stage.read(abi.TICK_SPACING.call(self.pool))
        if lower % spacing or upper % spacing:
            raise InputError(f"ticks {lower} and {upper} are not multiples of the pool's spacing {spacing}")
        order = (
            *(self.token0, self.token1, self.fee_pips, lower, upper, amount0, amount1),
            *(0, 0, PROVIDER, _FOREVER),
        )
        result = self.stage.act(PROVIDER, self.position_manager, abi.MINT, order)
        liquidity = int(find_log(result, abi.MINT_EVENT, self.pool)["amount"])
        # The manager numbers positions from 1, and nobody else has any.
        self.positions[len(self.positions) + 1] = liquidity
        return liquidity

    def resize(self, times: Fraction) -> None:
        """Bring every position to a multiple of what it began with, rounded down."""
        for token in (self.token0, self.token1):
            self._fund(PROVIDER, token, _PLENTY, self.position_manager)
        for position, began in self.positions.items():
            there = int(self.stage.read(_POSITIONS.call(self.position_manager, position))[7])
            wanted = int(began * times)
            if wanted < there:
                order = (position, there - wanted, 0, 0, _FOREVER)
                self.stage.act(PROVIDER, self.position_manager, _DECREASE_LIQUIDITY, order)
            elif wanted > there:
                self._add(position, wanted - there)

    def _add(self, position: int, liquidity: int) -> None:
        """Add to a position; the manager makes of amounts the most liquidity that they are enough for."""
        lower, upper = self.stage.read(_POSITIONS.call(self.position_manager, position))[5:7]
        low, high = get_sqrt_ratio_at_tick(lower), get_sqrt_ratio_at_tick(upper)
        now = max(low, min(high, self.root()))
        amounts = [
            get_amount0_delta(now, high, liquidity, round_up=True),
            get_amount1_delta(low, now, liquidity, round_up=True),
        ]
        order = (position, *amounts, 0, 0, _FOREVER)
        self.stage.act(PROVIDER, self.position_manager, _INCREASE_LIQUIDITY, order)

    def remember(self, observations: int) -> None:
        """Let the pool keep so many observations; until then its averages do not reach back."""
        self.stage.act(OWNER, self.pool, abi.INCREASE_OBSERVATION_CARDINALITY_NEXT, observations)

    def move_to(self, tick: int, trader: str) -> Trade | None:
        """Swap until the spot price stands in `tick`; returns the swap, None when it stands there already.

        Where there is no liquidity the price moves for nothing, as it did in the pools that were attacked so.
        """
        if self.tick() == tick:
            return None
        # One unit above the tick's own price: at that price itself a pool that came from above is one lower.
        return self.move_to_root(get_sqrt_ratio_at_tick(tick) + 1, trader)

    def move_to_root(self, root: int, trader: str) -> Trade | None:
        """Swap until the square root of the spot price is `root`; see `move_to`.

        Raises
        ------
        InputError
            If more tokens would be needed than a trader can have here.
        """
        now = self.root()
        if now == root:
            return None
        down = root < now
        token_in = self.token0 if down else self.token1
        self._fund(trader, token_in, _PLENTY, self.swapper)
        result = self.stage.act(trader, self.swapper, _SWAP, self.pool, down, _PLENTY, root)
        swap = find_log(result, abi.SWAP_EVENT, self.pool)
        if swap["sqrtPriceX96"] != root:
            raise InputError(
                f"the pool cannot be moved to tick {get_tick_at_sqrt_ratio(root)}: that takes more than "
                f"{_PLENTY} raw tokens",
                fix="let its liquidity end before that tick",
            )
        trade = Trade(trader, swap["amount0"], swap["amount1"], swap["tick"])
        self.trades.append(trade)
        return trade

    def spent(self, trader: str) -> tuple[int, int]:
        """Return what a trader has put into the pool of each token, on balance, raw."""
        own = [trade for trade in self.trades if trade.trader == trader]
        return sum(trade.amount0 for trade in own), sum(trade.amount1 for trade in own)

    def _fund(self, account: str, token: str, amount: int, spender: str) -> None:
        self.stage.act(OWNER, token, MINT, account, amount)
        self.stage.act(account, token, APPROVE, spender, amount)


def deploy_pool(
    stage: Stage, token0: str, token1: str, fee_pips: int, tick: int, *, root: int | None = None
) -> V3Pool:
    """Deploy Uniswap V3 and a pool without liquidity at `tick`, or at the square root of a price.

    Raises
    ------
    InputError
        If the tokens are not in the pool's order, which is by address.
    """
    if int(token0, 16) >= int(token1, 16):
        raise InputError(f"token0 {token0} is not below token1 {token1}")
    weth = stage.create(aave("WETH9Mocked").creation_code())
    factory = stage.create(uniswap_core("UniswapV3Factory").creation_code())
    swapper = stage.create(uniswap_twap("PoolSwapper").creation_code())
    manager = stage.create(
        uniswap_periphery("NonfungiblePositionManager").creation_code(factory, weth, ZERO_ADDRESS)
    )
    if not stage.read(abi.FEE_AMOUNT_TICK_SPACING.call(factory, fee_pips)):
        # Core 1.0.1 knows three fee tiers; governance enabled the fourth, 100 with a spacing of 1.
        stage.act(OWNER, factory, abi.ENABLE_FEE_AMOUNT, fee_pips, max(1, fee_pips // 50))
    stage.act(OWNER, factory, abi.CREATE_POOL, token0, token1, fee_pips)
    pool = stage.read(abi.GET_POOL.call(factory, token0, token1, fee_pips))
    stage.act(OWNER, pool, abi.INITIALIZE, get_sqrt_ratio_at_tick(tick) + 1 if root is None else root)
    return V3Pool(stage, pool, token0, token1, fee_pips, swapper, manager)
