# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title Another feed's rounds, with the answer at another scale
@notice Answers as Compound's ScalingPriceFeed does: times and round ids are passed on, the answer is
        multiplied, or divided and cut towards zero. For local chains; not for production use.
"""

interface Feed:
    def latestRoundData() -> (uint80, int256, uint256, uint256, uint80): view
    def decimals() -> uint8: view
    def description() -> String[64]: view

version: public(constant(uint256)) = 1

underlyingPriceFeed: public(immutable(address))
decimals: public(immutable(uint8))
description: public(String[64])

UP: immutable(bool)
FACTOR: immutable(int256)


@deploy
def __init__(_feed: address, _decimals: uint8):
    """
    @param _feed Feed that is scaled
    @param _decimals Scale of the answer
    """
    underlyingPriceFeed = _feed
    decimals = _decimals
    self.description = staticcall Feed(_feed).description()
    before: uint256 = convert(staticcall Feed(_feed).decimals(), uint256)
    after: uint256 = convert(_decimals, uint256)
    UP = before < after
    FACTOR = convert(10 ** (max(before, after) - min(before, after)), int256)


@external
@view
def latestRoundData() -> (uint80, int256, uint256, uint256, uint80):
    round_id: uint80 = 0
    answer: int256 = 0
    started_at: uint256 = 0
    updated_at: uint256 = 0
    answered_in: uint80 = 0
    round_id, answer, started_at, updated_at, answered_in = staticcall Feed(
        underlyingPriceFeed
    ).latestRoundData()
    scaled: int256 = answer * FACTOR if UP else answer // FACTOR
    return round_id, scaled, started_at, updated_at, answered_in
