# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title Collateral in loan tokens, scaled once and for good when it is deployed
@notice Answers as Morpho's MorphoChainlinkOracleV2 does without vaults: the product of the base feeds over
        that of the quote feeds, times a scale that follows from the token decimals as the deployer states
        them. Nobody checks those. For local chains; not for production use.
"""

interface Feed:
    def latestRoundData() -> (uint80, int256, uint256, uint256, uint80): view
    def decimals() -> uint8: view

MAX_FEEDS: constant(uint256) = 2
ORACLE_DECIMALS: constant(uint256) = 36

SCALE_FACTOR: public(immutable(uint256))

base_feeds: public(DynArray[address, MAX_FEEDS])
quote_feeds: public(DynArray[address, MAX_FEEDS])


@deploy
def __init__(
    _base_feeds: DynArray[address, MAX_FEEDS],
    _quote_feeds: DynArray[address, MAX_FEEDS],
    _base_decimals: uint256,
    _quote_decimals: uint256,
):
    """
    @param _base_feeds Feeds multiplied for the collateral; none is a price of 1
    @param _quote_feeds Feeds multiplied for the loan token
    @param _base_decimals Decimals of the collateral, as stated
    @param _quote_decimals Decimals of the loan token, as stated
    """
    self.base_feeds = _base_feeds
    self.quote_feeds = _quote_feeds
    up: uint256 = ORACLE_DECIMALS + _quote_decimals
    for feed: address in _quote_feeds:
        up += convert(staticcall Feed(feed).decimals(), uint256)
    down: uint256 = _base_decimals
    for feed: address in _base_feeds:
        down += convert(staticcall Feed(feed).decimals(), uint256)
    SCALE_FACTOR = 10 ** (up - down)


@external
@view
def price() -> uint256:
    """
    @notice Smallest units of the loan token for one smallest unit of collateral, times 1e36
    """
    above: uint256 = 1
    for feed: address in self.base_feeds:
        above *= self._answer(feed)
    below: uint256 = 1
    for feed: address in self.quote_feeds:
        below *= self._answer(feed)
    # The original multiplies in 512 bits; here the product has to fit 256.
    return SCALE_FACTOR * above // below


@internal
@view
def _answer(_feed: address) -> uint256:
    answer: int256 = (staticcall Feed(_feed).latestRoundData())[1]
    assert answer >= 0, "negative answer"
    return convert(answer, uint256)
