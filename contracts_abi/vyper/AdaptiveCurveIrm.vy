# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title An interest rate that moves until nine tenths of a market are borrowed
@notice Answers as Morpho's AdaptiveCurveIrm does: a curve through the rate at target utilisation, a quarter of
        it for an empty market and four times it for a full one. The rate at target itself grows or shrinks
        exponentially with the time spent off target. For local chains; not for production use.
"""

struct MarketParams:
    loanToken: address
    collateralToken: address
    oracle: address
    irm: address
    lltv: uint256

struct Market:
    totalSupplyAssets: uint128
    totalSupplyShares: uint128
    totalBorrowAssets: uint128
    totalBorrowShares: uint128
    lastUpdate: uint128
    fee: uint128

WAD: constant(int256) = 10**18
YEAR: constant(int256) = 31_536_000
STEEPNESS: constant(int256) = 4 * 10**18
SPEED: constant(int256) = 50 * 10**18 // 31_536_000
TARGET: constant(int256) = 9 * 10**17
FIRST_RATE: constant(int256) = 4 * 10**16 // 31_536_000
LEAST_RATE: constant(int256) = 10**15 // 31_536_000
MOST_RATE: constant(int256) = 2 * 10**18 // 31_536_000

LN_2: constant(int256) = 693147180559945309
LEAST_EXPONENT: constant(int256) = -41446531673892822312
MOST_EXPONENT: constant(int256) = 93859467695000404319
MOST_EXPONENTIAL: constant(int256) = 57716089161558943949701069502944508345128422502756744429568

MORPHO: public(immutable(address))

rateAtTarget: public(HashMap[bytes32, int256])


@deploy
def __init__(_morpho: address):
    """
    @param _morpho Whose markets ask, and nobody else
    """
    assert _morpho != empty(address), "zero address"
    MORPHO = _morpho


@external
@view
def borrowRateView(_params: MarketParams, _market: Market) -> uint256:
    """
    @notice The rate a second, at 1e18, that the market would be given now
    """
    return self._rate(keccak256(abi_encode(_params)), _market)[0]


@external
def borrowRate(_params: MarketParams, _market: Market) -> uint256:
    """
    @notice The mean rate a second, at 1e18, since the market was last brought up to date; remembers the new
            rate at target
    """
    assert msg.sender == MORPHO, "not Morpho"
    id: bytes32 = keccak256(abi_encode(_params))
    mean: uint256 = 0
    end: int256 = 0
    mean, end = self._rate(id, _market)
    self.rateAtTarget[id] = end
    return mean


@internal
@view
def _rate(_id: bytes32, _market: Market) -> (uint256, int256):
    utilization: int256 = 0
    if _market.totalSupplyAssets > 0:
        supplied: int256 = convert(_market.totalSupplyAssets, int256)
        utilization = convert(_market.totalBorrowAssets, int256) * WAD // supplied
    room: int256 = TARGET
    if utilization > TARGET:
        room = WAD - TARGET
    error: int256 = (utilization - TARGET) * WAD // room

    start: int256 = self.rateAtTarget[_id]
    if start == 0:
        return self._curve(FIRST_RATE, error), FIRST_RATE
    elapsed: int256 = convert(block.timestamp - convert(_market.lastUpdate, uint256), int256)
    adaptation: int256 = (SPEED * error // WAD) * elapsed
    if adaptation == 0:
        return self._curve(start, error), start
    end: int256 = self._moved(start, adaptation)
    middle: int256 = self._moved(start, adaptation // 2)
    return self._curve((start + end + 2 * middle) // 4, error), end


@internal
@pure
def _curve(_rate: int256, _error: int256) -> uint256:
    slope: int256 = STEEPNESS - WAD
    if _error < 0:
        slope = WAD - WAD * WAD // STEEPNESS
    return convert((slope * _error // WAD + WAD) * _rate // WAD, uint256)


@internal
@pure
def _moved(_rate: int256, _adaptation: int256) -> int256:
    return max(min(_rate * self._exp(_adaptation) // WAD, MOST_RATE), LEAST_RATE)


@internal
@pure
def _exp(_x: int256) -> int256:
    if _x < LEAST_EXPONENT:
        return 0
    if _x >= MOST_EXPONENT:
        return MOST_EXPONENTIAL
    half: int256 = LN_2 // 2
    if _x < 0:
        half = -half
    q: int256 = (_x + half) // LN_2
    r: int256 = _x - q * LN_2
    power: int256 = WAD + r + r * r // WAD // 2
    if q >= 0:
        return power << convert(q, uint256)
    return power >> convert(-q, uint256)
