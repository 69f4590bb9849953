# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title A price that is a product of others
@notice Multiplies the answers of its legs and states the product at its own scale, rounded down. Its owner
        may name other legs, and forget one: nothing checks that they lead from the asset to the currency.
        For local chains; not for production use.
"""

interface Feed:
    def latestAnswer() -> int256: view
    def decimals() -> uint8: view

MAX_LEGS: constant(uint256) = 8

decimals: public(immutable(uint8))

owner: public(address)
legs: public(DynArray[address, MAX_LEGS])


@deploy
def __init__(_decimals: uint8, _legs: DynArray[address, MAX_LEGS]):
    """
    @param _decimals Scale of the product
    @param _legs Feeds whose answers are multiplied
    """
    decimals = _decimals
    self.owner = msg.sender
    self.legs = _legs


@external
def set_legs(_legs: DynArray[address, MAX_LEGS]):
    """
    @notice Multiply these from now on
    """
    assert msg.sender == self.owner, "owner only"
    self.legs = _legs


@external
@view
def latestAnswer() -> int256:
    product: uint256 = 1
    scale: uint256 = 0
    for leg: address in self.legs:
        answer: int256 = staticcall Feed(leg).latestAnswer()
        assert answer > 0, "a leg is not positive"
        product *= convert(answer, uint256)
        scale += convert(staticcall Feed(leg).decimals(), uint256)
    return convert(product * 10 ** convert(decimals, uint256) // 10**scale, int256)
