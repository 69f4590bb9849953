# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title Feed A times feed B, with the times of feed B
@notice Answers as Compound's MultiplicativePriceFeed does, the trap included: round id and times are those of
        feed B, however old feed A is. A factor that is not positive makes the answer 0. For local chains; not
        for production use.
"""

interface Feed:
    def latestRoundData() -> (uint80, int256, uint256, uint256, uint80): view
    def decimals() -> uint8: view

version: public(constant(uint256)) = 1
MAX_DECIMALS: constant(uint8) = 18

priceFeedA: public(immutable(address))
priceFeedB: public(immutable(address))
combinedScale: public(immutable(int256))
priceFeedScale: public(immutable(int256))
decimals: public(immutable(uint8))
description: public(String[64])


@deploy
def __init__(_feed_a: address, _feed_b: address, _decimals: uint8, _description: String[64]):
    """
    @param _feed_a First factor, whose times are dropped
    @param _feed_b Second factor, whose times are told
    @param _decimals Scale of the product, at most 18
    @param _description What the product calls itself
    """
    assert _decimals <= MAX_DECIMALS, "decimals"
    priceFeedA = _feed_a
    priceFeedB = _feed_b
    of_a: uint256 = convert(staticcall Feed(_feed_a).decimals(), uint256)
    of_b: uint256 = convert(staticcall Feed(_feed_b).decimals(), uint256)
    combinedScale = convert(10 ** (of_a + of_b), int256)
    priceFeedScale = convert(10 ** convert(_decimals, uint256), int256)
    decimals = _decimals
    self.description = _description


@external
@view
def latestRoundData() -> (uint80, int256, uint256, uint256, uint80):
    a: int256 = (staticcall Feed(priceFeedA).latestRoundData())[1]
    round_id: uint80 = 0
    b: int256 = 0
    started_at: uint256 = 0
    updated_at: uint256 = 0
    answered_in: uint80 = 0
    round_id, b, started_at, updated_at, answered_in = staticcall Feed(priceFeedB).latestRoundData()
    if a <= 0 or b <= 0:
        return round_id, 0, started_at, updated_at, answered_in
    return round_id, a * b * priceFeedScale // combinedScale, started_at, updated_at, answered_in
