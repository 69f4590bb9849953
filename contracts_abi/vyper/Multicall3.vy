# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title Many reads in one call, each allowed to fail
@notice The functions of Multicall3 that readers use, under the same signatures, for local chains that do not
        have the original. Bounded where the original is not, since memory is reserved at full size: more
        calls or longer calldata revert, and an answer that is too long counts as failed, never cut off.
"""

MAX_CALLS: constant(uint256) = 512
MAX_CALLDATA: constant(uint256) = 1_024
# One byte more than an answer may have, so that a longer one shows.
ANSWER_SIZE: constant(uint256) = 512 + 1

struct Call3:
    target: address
    allowFailure: bool
    callData: Bytes[MAX_CALLDATA]

struct Result:
    success: bool
    returnData: Bytes[ANSWER_SIZE]


@external
@payable
def aggregate3(calls: DynArray[Call3, MAX_CALLS]) -> DynArray[Result, MAX_CALLS]:
    """
    @notice Run calls in order; one that may not fail and does takes the others with it
    """
    results: DynArray[Result, MAX_CALLS] = []
    for call: Call3 in calls:
        result: Result = self._run(call)
        assert result.success or call.allowFailure, "Multicall3: call failed"
        results.append(result)
    return results


@external
@view
def getBlockNumber() -> uint256:
    return block.number


@external
@view
def getCurrentBlockTimestamp() -> uint256:
    return block.timestamp


@external
@view
def getBasefee() -> uint256:
    return block.basefee


@external
@view
def getChainId() -> uint256:
    return chain.id


@external
@view
def getEthBalance(addr: address) -> uint256:
    return addr.balance


@internal
def _run(call: Call3) -> Result:
    success: bool = False
    answer: Bytes[ANSWER_SIZE] = b""
    success, answer = raw_call(call.target, call.callData, max_outsize=ANSWER_SIZE, revert_on_failure=False)
    if len(answer) == ANSWER_SIZE:
        return Result(success=False, returnData=b"")
    return Result(success=success, returnData=answer)
