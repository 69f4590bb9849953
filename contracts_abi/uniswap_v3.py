"""Uniswap V3 (core 1.0.1, periphery 1.4.4): the functions and events that Marginline uses, and swap paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from eth_utils.address import to_canonical_address, to_checksum_address

from contracts_abi.calls import event, function
from contracts_abi.errors import DataError

# --- factory ----------------------------------------------------------------------------------------------
CREATE_POOL = function("createPool(address,address,uint24)(address)")
GET_POOL = function("getPool(address,address,uint24)(address)")
ENABLE_FEE_AMOUNT = function("enableFeeAmount(uint24,int24)")
FEE_AMOUNT_TICK_SPACING = function("feeAmountTickSpacing(uint24)(int24)")
POOL_CREATED_EVENT = event(
    "PoolCreated(address indexed token0, address indexed token1, uint24 indexed fee, int24 tickSpacing, "
    "address pool)"
)

# --- pool -------------------------------------------------------------------------------------------------
# sqrtPriceX96, tick, observationIndex, observationCardinality, observationCardinalityNext, feeProtocol,
# unlocked
SLOT0 = function("slot0()(uint160,int24,uint16,uint16,uint16,uint8,bool)")
LIQUIDITY = function("liquidity()(uint128)")
TICK_BITMAP = function("tickBitmap(int16)(uint256)")
# liquidityGross, liquidityNet, feeGrowthOutside0X128, feeGrowthOutside1X128, tickCumulativeOutside,
# secondsPerLiquidityOutsideX128, secondsOutside, initialized
TICKS = function("ticks(int24)(uint128,int128,uint256,uint256,int56,uint160,uint32,bool)")
TICK_SPACING = function("tickSpacing()(int24)")
FEE = function("fee()(uint24)")
TOKEN0 = function("token0()(address)")
TOKEN1 = function("token1()(address)")
INITIALIZE = function("initialize(uint160)")
# tickCumulatives, secondsPerLiquidityCumulativeX128s
OBSERVE = function("observe(uint32[])(int56[],uint160[])")
INCREASE_OBSERVATION_CARDINALITY_NEXT = function("increaseObservationCardinalityNext(uint16)")
# recipient, zeroForOne, amountSpecified, sqrtPriceLimitX96, data -> amount0, amount1
SWAP = function("swap(address,bool,int256,uint160,bytes)(int256,int256)")
SWAP_EVENT = event(
    "Swap(address indexed sender, address indexed recipient, int256 amount0, int256 amount1, "
    "uint160 sqrtPriceX96, uint128 liquidity, int24 tick)"
)
MINT_EVENT = event(
    "Mint(address sender, address indexed owner, int24 indexed tickLower, int24 indexed tickUpper, "
    "uint128 amount, uint256 amount0, uint256 amount1)"
)
BURN_EVENT = event(
    "Burn(address indexed owner, int24 indexed tickLower, int24 indexed tickUpper, uint128 amount, "
    "uint256 amount0, uint256 amount1)"
)

# --- SwapRouter and QuoterV2 know the factory that they belong to -----------------------------------------
FACTORY = function("factory()(address)")

# --- SwapRouter -------------------------------------------------------------------------------------------
# path, recipient, deadline, amountIn, amountOutMinimum -> amountOut
EXACT_INPUT = function("exactInput((bytes,address,uint256,uint256,uint256))(uint256)")
# tokenIn, tokenOut, fee, recipient, deadline, amountIn, amountOutMinimum, sqrtPriceLimitX96 -> amountOut
EXACT_INPUT_SINGLE = function(
    "exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))(uint256)"
)

# --- QuoterV2 ---------------------------------------------------------------------------------------------
# path, amountIn -> amountOut, sqrtPriceX96AfterList, initializedTicksCrossedList, gasEstimate
QUOTE_EXACT_INPUT = function("quoteExactInput(bytes,uint256)(uint256,uint160[],uint32[],uint256)")
# (tokenIn, tokenOut, amountIn, fee, sqrtPriceLimitX96) -> amountOut, sqrtPriceX96After,
# initializedTicksCrossed, gasEstimate
QUOTE_EXACT_INPUT_SINGLE = function(
    "quoteExactInputSingle((address,address,uint256,uint24,uint160))(uint256,uint160,uint32,uint256)"
)

# --- NonfungiblePositionManager ---------------------------------------------------------------------------
# token0, token1, fee, sqrtPriceX96 -> pool
CREATE_AND_INITIALIZE_POOL_IF_NECESSARY = function(
    "createAndInitializePoolIfNecessary(address,address,uint24,uint160)(address)"
)
# (token0, token1, fee, tickLower, tickUpper, amount0Desired, amount1Desired, amount0Min, amount1Min,
# recipient, deadline) -> tokenId, liquidity, amount0, amount1
MINT = function(
    "mint((address,address,uint24,int24,int24,uint256,uint256,uint256,uint256,address,uint256))"
    "(uint256,uint128,uint256,uint256)"
)

MIN_TICK: Final = -887_272
MAX_TICK: Final = 887_272
MIN_SQRT_RATIO: Final = 4_295_128_739
MAX_SQRT_RATIO: Final = 1_461_446_703_485_210_103_287_273_052_203_988_822_378_723_970_342

_ADDRESS, _FEE = 20, 3


def encode_path(tokens: Sequence[str], fees_pips: Sequence[int]) -> bytes:
    """Return a swap path as the router reads it (``Path.sol``): token, fee, token, fee, …, token.

    Parameters
    ----------
    tokens
        Addresses from the token paid in to the token received, at least two.
    fees_pips
        Fee of the pool between each token and the next, in hundredths of a basis point.

    Raises
    ------
    DataError
        If the numbers of tokens and fees do not fit.
    """
    if len(tokens) < 2 or len(fees_pips) != len(tokens) - 1:
        raise DataError(f"a swap path of {len(tokens)} tokens cannot have {len(fees_pips)} fees")
    parts: list[bytes] = [to_canonical_address(tokens[0])]
    for fee, token in zip(fees_pips, tokens[1:], strict=True):
        parts += [fee.to_bytes(_FEE, "big"), to_canonical_address(token)]
    return b"".join(parts)


def decode_path(path: bytes) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return tokens and fees of an encoded swap path; the inverse of `encode_path`."""
    hop = _ADDRESS + _FEE
    if len(path) < _ADDRESS + hop or (len(path) - _ADDRESS) % hop:
        raise DataError(f"{len(path)} bytes are not a swap path")
    tokens = tuple(to_checksum_address(path[i : i + _ADDRESS]) for i in range(0, len(path), hop))
    fees = tuple(
        int.from_bytes(path[i : i + _FEE], "big") for i in range(_ADDRESS, len(path) - _ADDRESS, hop)
    )
    return tokens, fees
