# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title One phase of a price feed: the rounds behind a PriceFeed proxy
@notice Reads like a Chainlink off-chain-reporting aggregator (AggregatorV2V3Interface, plus the answer
        bounds that live on the aggregator and not on its proxy). A transmitter posts answers; the owner
        can also write any round and choose how reads fail, so that each failure of a real feed can be
        played on a local chain. Not for production use.
"""

struct Round:
    answer: int256
    started_at: uint256
    updated_at: uint256
    answered_in_round: uint80

flag ReadMode:
    LIVE
    REVERTS
    ZEROS

event NewRound:
    roundId: indexed(uint256)
    startedBy: indexed(address)
    startedAt: uint256

event AnswerUpdated:
    current: indexed(int256)
    roundId: indexed(uint256)
    updatedAt: uint256

decimals: public(immutable(uint8))
version: public(constant(uint256)) = 4
# Off chain on the real network (published by the operator, on no contract); here the operator is a script
# and reads them from the contract that it feeds.
heartbeat: public(immutable(uint256))
deviation_bps: public(immutable(uint256))

owner: public(address)
transmitter: public(address)
description: public(String[64])
minAnswer: public(int192)
maxAnswer: public(int192)
clamps: public(bool)
missing_reverts: public(bool)
read_mode: ReadMode
latest: uint80
rounds: HashMap[uint80, Round]


@deploy
def __init__(
    _decimals: uint8,
    _description: String[64],
    _heartbeat: uint256,
    _deviation_bps: uint256,
    _min_answer: int192,
    _max_answer: int192,
):
    """
    @param _decimals Scale of all answers
    @param _description For example "ETH / USD"
    @param _heartbeat Seconds after which the operator posts although the price stood still
    @param _deviation_bps Move in basis points at which the operator posts before the heartbeat
    @param _min_answer Lowest answer that a transmission may carry
    @param _max_answer Highest answer that a transmission may carry
    """
    assert _min_answer <= _max_answer, "bounds"
    decimals = _decimals
    heartbeat = _heartbeat
    deviation_bps = _deviation_bps
    self.description = _description
    self.minAnswer = _min_answer
    self.maxAnswer = _max_answer
    self.owner = msg.sender
    self.transmitter = msg.sender
    self.read_mode = ReadMode.LIVE


# --- what the operator does -------------------------------------------------------------------------------


@external
@view
def due(_price: int256) -> bool:
    """
    @notice Whether the operator's published rule asks for a round at `_price`
    """
    last: Round = self.rounds[self.latest]
    if last.updated_at == 0 or block.timestamp >= last.updated_at + heartbeat:
        return True
    # A difference in basis points of the last answer, without division so that nothing is rounded away.
    return abs(_price - last.answer) * 10_000 >= abs(last.answer) * convert(deviation_bps, int256)


@external
def transmit(_answer: int256):
    """
    @notice Open the next round with `_answer` at the block's time
    @dev Outside the bounds it reverts, so that the feed freezes at its last answer; with `clamps` set it
         prints the bound instead. Real aggregators of different ages do the one or the other.
    """
    assert msg.sender == self.transmitter, "transmitter only"
    answer: int256 = _answer
    low: int256 = convert(self.minAnswer, int256)
    high: int256 = convert(self.maxAnswer, int256)
    if self.clamps:
        answer = min(max(answer, low), high)
    assert low <= answer and answer <= high, "median is out of min-max range"
    self._write(self.latest + 1, answer, block.timestamp, block.timestamp, self.latest + 1)


# --- what only a test bench can do ------------------------------------------------------------------------


@external
def set_round(
    _round: uint80, _answer: int256, _started_at: uint256, _updated_at: uint256, _answered_in_round: uint80
):
    """
    @notice Write any round as it is given and make it the latest
    """
    self._only_owner()
    assert _round <= convert(max_value(uint64), uint80), "round beyond 64 bits"
    self._write(_round, _answer, _started_at, _updated_at, _answered_in_round)


@external
def set_bounds(_min_answer: int192, _max_answer: int192, _clamps: bool):
    """
    @notice Move the bounds, and choose whether a transmission outside them is clamped or refused
    """
    self._only_owner()
    assert _min_answer <= _max_answer, "bounds"
    self.minAnswer = _min_answer
    self.maxAnswer = _max_answer
    self.clamps = _clamps


@external
def set_read_mode(_mode: uint8):
    """
    @notice Choose how reads answer: 0 as recorded, 1 revert, 2 zeros
    """
    self._only_owner()
    if _mode == 0:
        self.read_mode = ReadMode.LIVE
    elif _mode == 1:
        self.read_mode = ReadMode.REVERTS
    else:
        assert _mode == 2, "mode"
        self.read_mode = ReadMode.ZEROS


@external
def set_missing_reverts(_reverts: bool):
    """
    @notice Choose whether a round never written reverts (the older aggregators) or reads as zeros
    """
    self._only_owner()
    self.missing_reverts = _reverts


@external
def set_transmitter(_transmitter: address):
    """
    @notice Let another account post answers
    """
    self._only_owner()
    self.transmitter = _transmitter


# --- AggregatorInterface and AggregatorV3Interface --------------------------------------------------------


@external
@view
def latestRound() -> uint256:
    if self._read_mode() == ReadMode.ZEROS:
        return 0
    return convert(self.latest, uint256)


@external
@view
def latestAnswer() -> int256:
    return self._round(self.latest).answer


@external
@view
def latestTimestamp() -> uint256:
    return self._round(self.latest).updated_at


@external
@view
def getAnswer(_roundId: uint256) -> int256:
    if _roundId > convert(max_value(uint64), uint256):
        return 0
    return self._round(convert(_roundId, uint80)).answer


@external
@view
def getTimestamp(_roundId: uint256) -> uint256:
    if _roundId > convert(max_value(uint64), uint256):
        return 0
    return self._round(convert(_roundId, uint80)).updated_at


@external
@view
def latestRoundData() -> (uint80, int256, uint256, uint256, uint80):
    return self._round_data(self.latest)


@external
@view
def getRoundData(_roundId: uint80) -> (uint80, int256, uint256, uint256, uint80):
    return self._round_data(_roundId)


@internal
@view
def _only_owner():
    assert msg.sender == self.owner, "owner only"


@internal
@view
def _read_mode() -> ReadMode:
    assert self.read_mode != ReadMode.REVERTS, "reads are switched off"
    return self.read_mode


@internal
@view
def _round(_id: uint80) -> Round:
    if self._read_mode() == ReadMode.ZEROS:
        return empty(Round)
    return self.rounds[_id]


@internal
@view
def _round_data(_id: uint80) -> (uint80, int256, uint256, uint256, uint80):
    found: Round = self._round(_id)
    assert not (self.missing_reverts and found.updated_at == 0), "No data present"
    id: uint80 = _id
    if self.read_mode == ReadMode.ZEROS:
        id = 0
    return id, found.answer, found.started_at, found.updated_at, found.answered_in_round


@internal
def _write(_id: uint80, _answer: int256, _started_at: uint256, _updated_at: uint256, _answered_in: uint80):
    self.rounds[_id] = Round(
        answer=_answer, started_at=_started_at, updated_at=_updated_at, answered_in_round=_answered_in
    )
    self.latest = _id
    log NewRound(roundId=convert(_id, uint256), startedBy=msg.sender, startedAt=_started_at)
    log AnswerUpdated(current=_answer, roundId=convert(_id, uint256), updatedAt=_updated_at)
