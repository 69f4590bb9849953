# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title A price of at most a cap
@notice Answers as Aave's PriceCapAdapterStable does: the lesser of price and cap, and 0 for less than
        nothing. For local chains; not for production use.
"""

interface Feed:
    def latestAnswer() -> int256: view
    def decimals() -> uint8: view

MAX_STABLE_CAP_VALUE: constant(int256) = 2 * 10**8

ASSET_TO_USD_AGGREGATOR: public(immutable(address))
decimals: public(immutable(uint8))

owner: public(address)
getPriceCap: public(int256)


@deploy
def __init__(_feed: address, _cap: int256):
    """
    @param _feed Feed that is capped, whose scale the answer has
    @param _cap The greatest answer; not below the price of the moment
    """
    ASSET_TO_USD_AGGREGATOR = _feed
    decimals = staticcall Feed(_feed).decimals()
    self.owner = msg.sender
    self._set(_cap)


@external
def setPriceCap(_cap: int256):
    """
    @notice Cap at this from now on
    """
    assert msg.sender == self.owner, "owner only"
    self._set(_cap)


@external
@view
def latestAnswer() -> int256:
    return max(min(staticcall Feed(ASSET_TO_USD_AGGREGATOR).latestAnswer(), self.getPriceCap), 0)


@external
@view
def isCapped() -> bool:
    return staticcall Feed(ASSET_TO_USD_AGGREGATOR).latestAnswer() > self.getPriceCap


@internal
def _set(_cap: int256):
    assert 0 <= _cap and _cap <= MAX_STABLE_CAP_VALUE, "cap"
    assert _cap >= staticcall Feed(ASSET_TO_USD_AGGREGATOR).latestAnswer(), "below the price"
    self.getPriceCap = _cap
