# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title Any price as an answer with eight decimals, which is what Aave's oracle reads
@notice Calls one function of the target and takes one word of what it returns. Reverts when the target
        does: a price that is not there is not zero. Checks nothing else.
"""

MAX_RETURN: constant(uint256) = 256

target: public(immutable(address))
selector: public(immutable(bytes4))
word: public(immutable(uint256))
from_decimals: public(immutable(uint8))
decimals: public(constant(uint8)) = 8


@deploy
def __init__(_target: address, _selector: bytes4, _word: uint256, _from_decimals: uint8):
    """
    @param _target The contract that knows the price
    @param _selector Its function without arguments
    @param _word Which word of the answer is the price, the first being 0
    @param _from_decimals Scale of that word
    """
    assert _word < MAX_RETURN // 32, "word"
    assert _from_decimals <= 36, "decimals"
    target = _target
    selector = _selector
    word = _word
    from_decimals = _from_decimals


@external
@view
def latestAnswer() -> int256:
    """
    @notice The price with eight decimals, cut towards zero
    """
    answer: Bytes[MAX_RETURN] = raw_call(
        target, slice(convert(selector, bytes32), 0, 4), max_outsize=MAX_RETURN, is_static_call=True
    )
    assert len(answer) >= 32 * (word + 1), "short answer"
    price: int256 = extract32(answer, 32 * word, output_type=int256)
    if from_decimals >= decimals:
        return price // convert(10 ** convert(from_decimals - decimals, uint256), int256)
    return price * convert(10 ** convert(decimals - from_decimals, uint256), int256)
