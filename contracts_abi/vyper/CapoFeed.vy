# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title A rate under a cap that grows linearly, in front of a base price
@notice Answers as Aave's PriceCapAdapterBase does: base price times the lesser of the live rate and the cap,
        with its storage types, its order of divisions and its checks of new parameters. The rate is the
        answer of a feed of its own. For local chains; not for production use.
"""

interface Feed:
    def latestAnswer() -> int256: view
    def decimals() -> uint8: view

PERCENTAGE_FACTOR: constant(uint256) = 10_000
SCALING_FACTOR: constant(uint256) = 10**6
SECONDS_PER_YEAR: constant(uint256) = 365 * 86_400
MAXIMUM_SNAPSHOT_TERM: constant(uint256) = 180 * 86_400

BASE_TO_USD_AGGREGATOR: public(immutable(address))
RATIO_PROVIDER: public(immutable(address))
RATIO_DECIMALS: public(immutable(uint8))
MINIMUM_SNAPSHOT_DELAY: public(immutable(uint256))
decimals: public(immutable(uint8))

owner: public(address)
snapshot_ratio: uint104
snapshot_timestamp: uint48
growth_per_second_scaled: uint104
yearly_growth_bps: uint16


@deploy
def __init__(
    _base: address,
    _ratio_provider: address,
    _ratio_decimals: uint8,
    _minimum_snapshot_delay: uint256,
    _snapshot_ratio: uint104,
    _snapshot_timestamp: uint48,
    _yearly_growth_bps: uint16,
):
    """
    @param _base Feed of the base price, whose scale the answer has
    @param _ratio_provider Feed whose answer is the live rate
    @param _ratio_decimals Scale of rates
    @param _minimum_snapshot_delay Seconds that a snapshot must be old when it is written
    @param _snapshot_ratio Rate at the snapshot
    @param _snapshot_timestamp Time of the snapshot; it may be older here than `setCapParameters` lets it be,
           since a scenario may begin long after a snapshot was written
    @param _yearly_growth_bps Growth of the cap, basis points of the snapshot ratio a year
    """
    BASE_TO_USD_AGGREGATOR = _base
    RATIO_PROVIDER = _ratio_provider
    RATIO_DECIMALS = _ratio_decimals
    MINIMUM_SNAPSHOT_DELAY = _minimum_snapshot_delay
    decimals = staticcall Feed(_base).decimals()
    self.owner = msg.sender
    assert convert(_snapshot_timestamp, uint256) <= block.timestamp, "snapshot timestamp"
    self._store(_snapshot_ratio, _snapshot_timestamp, _yearly_growth_bps)


@external
def setCapParameters(_snapshot_ratio: uint104, _snapshot_timestamp: uint48, _yearly_growth_bps: uint16):
    """
    @notice Write a new snapshot. Nothing compares it with the rate of the moment.
    """
    assert msg.sender == self.owner, "owner only"
    at: uint256 = convert(_snapshot_timestamp, uint256)
    assert (
        at > convert(self.snapshot_timestamp, uint256)
        and at <= block.timestamp - MINIMUM_SNAPSHOT_DELAY
        and at >= block.timestamp - MAXIMUM_SNAPSHOT_TERM
    ), "snapshot timestamp"
    self._store(_snapshot_ratio, _snapshot_timestamp, _yearly_growth_bps)


@external
@view
def latestAnswer() -> int256:
    base: int256 = staticcall Feed(BASE_TO_USD_AGGREGATOR).latestAnswer()
    ratio: int256 = self._ratio()
    if base <= 0 or ratio <= 0:
        return 0
    most: int256 = convert(self._max_ratio(), int256)
    return base * min(ratio, most) // convert(10 ** convert(RATIO_DECIMALS, uint256), int256)


@external
@view
def getRatio() -> int256:
    return self._ratio()


@external
@view
def isCapped() -> bool:
    return self._ratio() > convert(self._max_ratio(), int256)


@external
@view
def getSnapshotRatio() -> uint256:
    return convert(self.snapshot_ratio, uint256)


@external
@view
def getSnapshotTimestamp() -> uint256:
    return convert(self.snapshot_timestamp, uint256)


@external
@view
def getMaxYearlyGrowthRatePercent() -> uint256:
    return convert(self.yearly_growth_bps, uint256)


@external
@view
def getMaxRatioGrowthPerSecondScaled() -> uint256:
    return convert(self.growth_per_second_scaled, uint256)


@internal
@view
def _ratio() -> int256:
    return staticcall Feed(RATIO_PROVIDER).latestAnswer()


@internal
@view
def _max_ratio() -> uint256:
    passed: uint256 = block.timestamp - convert(self.snapshot_timestamp, uint256)
    grown: uint256 = convert(self.growth_per_second_scaled, uint256) * passed // SCALING_FACTOR
    return convert(self.snapshot_ratio, uint256) + grown


@internal
def _store(_ratio: uint104, _timestamp: uint48, _growth_bps: uint16):
    assert _ratio != 0, "snapshot ratio is zero"
    yearly: uint256 = convert(_ratio, uint256) * convert(_growth_bps, uint256) * SCALING_FACTOR
    self.snapshot_ratio = _ratio
    self.snapshot_timestamp = _timestamp
    self.yearly_growth_bps = _growth_bps
    self.growth_per_second_scaled = convert(yearly // PERCENTAGE_FACTOR // SECONDS_PER_YEAR, uint104)
