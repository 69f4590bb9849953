"""Price feeds as contracts: the AggregatorV2V3 functions, and how round ids carry their phase.

`PriceFeed` and `PriceAggregator` (``vyper/``) answer the same functions; their own controls, with which a
test or a scenario plays a failure, stand at the end.
"""

from __future__ import annotations

from typing import NamedTuple

from contracts_abi.calls import event, function

# roundId, answer, startedAt, updatedAt, answeredInRound
LATEST_ROUND_DATA = function("latestRoundData()(uint80,int256,uint256,uint256,uint80)")
GET_ROUND_DATA = function("getRoundData(uint80)(uint80,int256,uint256,uint256,uint80)")
DECIMALS = function("decimals()(uint8)")
DESCRIPTION = function("description()(string)")
VERSION = function("version()(uint256)")

LATEST_ANSWER = function("latestAnswer()(int256)")
LATEST_TIMESTAMP = function("latestTimestamp()(uint256)")
LATEST_ROUND = function("latestRound()(uint256)")
GET_ANSWER = function("getAnswer(uint256)(int256)")
GET_TIMESTAMP = function("getTimestamp(uint256)(uint256)")

OWNER = function("owner()(address)")

# On the proxy only.
AGGREGATOR = function("aggregator()(address)")
PHASE_ID = function("phaseId()(uint16)")
PHASE_AGGREGATORS = function("phaseAggregators(uint16)(address)")
PROPOSED_AGGREGATOR = function("proposedAggregator()(address)")
PROPOSE_AGGREGATOR = function("proposeAggregator(address)")
CONFIRM_AGGREGATOR = function("confirmAggregator(address)")

# On the aggregator only.
MIN_ANSWER = function("minAnswer()(int192)")
MAX_ANSWER = function("maxAnswer()(int192)")

ANSWER_UPDATED = event("AnswerUpdated(int256 indexed current, uint256 indexed roundId, uint256 updatedAt)")
NEW_ROUND = event("NewRound(uint256 indexed roundId, address indexed startedBy, uint256 startedAt)")
AGGREGATOR_PROPOSED = event("AggregatorProposed(address indexed current, address indexed proposed)")
AGGREGATOR_CONFIRMED = event("AggregatorConfirmed(address indexed previous, address indexed latest)")

# Our PriceAggregator's own: the operator's published rule, posting, and the failures that can be played.
# Constructor of PriceAggregator: decimals, description, heartbeat in seconds, deviation in basis points,
# least and greatest answer. Constructor of PriceFeed: its first aggregator.
AGGREGATOR_CONSTRUCTOR = ("uint8", "string", "uint256", "uint256", "int192", "int192")
FEED_CONSTRUCTOR = ("address",)
HEARTBEAT = function("heartbeat()(uint256)")
DEVIATION_BPS = function("deviation_bps()(uint256)")
DUE = function("due(int256)(bool)")
TRANSMIT = function("transmit(int256)")
SET_ROUND = function("set_round(uint80,int256,uint256,uint256,uint80)")
SET_BOUNDS = function("set_bounds(int192,int192,bool)")
SET_READ_MODE = function("set_read_mode(uint8)")
SET_MISSING_REVERTS = function("set_missing_reverts(bool)")
SET_TRANSMITTER = function("set_transmitter(address)")

READS_LIVE, READS_REVERT, READS_ZEROS = 0, 1, 2

_PHASE_OFFSET = 64
_ROUND_MASK = (1 << _PHASE_OFFSET) - 1


class RoundId(NamedTuple):
    """A proxy's round id, taken apart.

    Attributes
    ----------
    phase
        Counts the aggregators behind the proxy from 1; 0 when the id comes from an aggregator itself.
    round
        The aggregator's own round.
    """

    phase: int
    round: int


def split_round_id(round_id: int) -> RoundId:
    """Return phase and round of a proxy's uint80 round id (``AggregatorProxy.parseIds``)."""
    return RoundId(round_id >> _PHASE_OFFSET, round_id & _ROUND_MASK)


def join_round_id(phase: int, round_: int) -> int:
    """Return the proxy's round id of a round (``AggregatorProxy.addPhase``)."""
    return phase << _PHASE_OFFSET | round_
