# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title A price feed's fixed address: the phases of its aggregators behind one proxy
@notice Reads like a Chainlink aggregator proxy. Round ids carry the phase: id = phase << 64 | round.
        Prices are posted to the aggregator (`aggregator()`), never here; a new phase may have other
        decimals, other bounds, and rounds older than the last round of the phase before it.
"""

interface Aggregator:
    def decimals() -> uint8: view
    def description() -> String[64]: view
    def version() -> uint256: view
    def latestRound() -> uint256: view
    def latestAnswer() -> int256: view
    def latestTimestamp() -> uint256: view
    def getAnswer(_roundId: uint256) -> int256: view
    def getTimestamp(_roundId: uint256) -> uint256: view
    def latestRoundData() -> (uint80, int256, uint256, uint256, uint80): view
    def getRoundData(_roundId: uint80) -> (uint80, int256, uint256, uint256, uint80): view

event AggregatorProposed:
    current: indexed(address)
    proposed: indexed(address)

event AggregatorConfirmed:
    previous: indexed(address)
    latest: indexed(address)

PHASE_OFFSET: constant(uint256) = 64
ROUND_MASK: constant(uint256) = 2**64 - 1

owner: public(address)
phaseId: public(uint16)
phaseAggregators: public(HashMap[uint16, address])
proposedAggregator: public(address)


@deploy
def __init__(_aggregator: address):
    """
    @param _aggregator The aggregator of phase 1
    """
    self.owner = msg.sender
    self._set_aggregator(_aggregator)


@external
def proposeAggregator(_aggregator: address):
    """
    @notice Name the aggregator of the next phase; reads do not change yet
    """
    self._only_owner()
    self.proposedAggregator = _aggregator
    log AggregatorProposed(current=self.phaseAggregators[self.phaseId], proposed=_aggregator)


@external
def confirmAggregator(_aggregator: address):
    """
    @notice Switch to the proposed aggregator and open the next phase
    """
    self._only_owner()
    assert _aggregator != empty(address) and _aggregator == self.proposedAggregator, "not the proposed one"
    self.proposedAggregator = empty(address)
    self._set_aggregator(_aggregator)


@external
def transferOwnership(_owner: address):
    """
    @notice Hand the proxy to another owner
    """
    self._only_owner()
    self.owner = _owner


@external
@view
def aggregator() -> address:
    return self.phaseAggregators[self.phaseId]


@external
@view
def decimals() -> uint8:
    return staticcall self._current().decimals()


@external
@view
def description() -> String[64]:
    return staticcall self._current().description()


@external
@view
def version() -> uint256:
    return staticcall self._current().version()


@external
@view
def latestRound() -> uint256:
    return self._with_phase(self.phaseId, staticcall self._current().latestRound())


@external
@view
def latestAnswer() -> int256:
    return staticcall self._current().latestAnswer()


@external
@view
def latestTimestamp() -> uint256:
    return staticcall self._current().latestTimestamp()


@external
@view
def getAnswer(_roundId: uint256) -> int256:
    source: address = self._of_round(_roundId)
    if source == empty(address):
        return 0
    return staticcall Aggregator(source).getAnswer(_roundId & ROUND_MASK)


@external
@view
def getTimestamp(_roundId: uint256) -> uint256:
    source: address = self._of_round(_roundId)
    if source == empty(address):
        return 0
    return staticcall Aggregator(source).getTimestamp(_roundId & ROUND_MASK)


@external
@view
def latestRoundData() -> (uint80, int256, uint256, uint256, uint80):
    id: uint80 = 0
    answer: int256 = 0
    started_at: uint256 = 0
    updated_at: uint256 = 0
    answered_in: uint80 = 0
    id, answer, started_at, updated_at, answered_in = staticcall self._current().latestRoundData()
    return (
        self._phased(self.phaseId, id), answer, started_at, updated_at, self._phased(self.phaseId, answered_in)
    )


@external
@view
def getRoundData(_roundId: uint80) -> (uint80, int256, uint256, uint256, uint80):
    """
    @dev Reverts for a phase that never was: there is no code at the zero address to ask
    """
    full: uint256 = convert(_roundId, uint256)
    phase: uint16 = convert(full >> PHASE_OFFSET, uint16)
    source: Aggregator = Aggregator(self.phaseAggregators[phase])
    id: uint80 = 0
    answer: int256 = 0
    started_at: uint256 = 0
    updated_at: uint256 = 0
    answered_in: uint80 = 0
    id, answer, started_at, updated_at, answered_in = staticcall source.getRoundData(
        convert(full & ROUND_MASK, uint80)
    )
    return self._phased(phase, id), answer, started_at, updated_at, self._phased(phase, answered_in)


@internal
@view
def _only_owner():
    assert msg.sender == self.owner, "Only callable by owner"


@internal
def _set_aggregator(_aggregator: address):
    phase: uint16 = self.phaseId
    log AggregatorConfirmed(previous=self.phaseAggregators[phase], latest=_aggregator)
    self.phaseId = phase + 1
    self.phaseAggregators[phase + 1] = _aggregator


@internal
@view
def _current() -> Aggregator:
    return Aggregator(self.phaseAggregators[self.phaseId])


@internal
@view
def _of_round(_id: uint256) -> address:
    if _id > convert(max_value(uint80), uint256):
        return empty(address)
    return self.phaseAggregators[convert(_id >> PHASE_OFFSET, uint16)]


@internal
@pure
def _with_phase(_phase: uint16, _round: uint256) -> uint256:
    return convert(_phase, uint256) << PHASE_OFFSET | _round


@internal
@pure
def _phased(_phase: uint16, _round: uint80) -> uint80:
    return convert(self._with_phase(_phase, convert(_round, uint256)), uint80)
