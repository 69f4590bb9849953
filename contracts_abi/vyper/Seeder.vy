# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title Opens many Aave positions in one transaction
@notice Supplies and borrows on behalf of accounts, so that a local chain gets a large book in seconds and the
        pool emits the same events as if each account had come by itself. It must hold the tokens that it
        supplies, and each account's credit delegation for what it borrows. For local chains only.
"""

interface Pool:
    def supply(_asset: address, _amount: uint256, _on_behalf_of: address, _referral: uint16): nonpayable
    def borrow(
        _asset: address, _amount: uint256, _mode: uint256, _referral: uint16, _on_behalf_of: address
    ): nonpayable

interface Token:
    def approve(_spender: address, _amount: uint256) -> bool: nonpayable

struct Entry:
    asset: address
    account: address
    amount: uint256

MAX_ENTRIES: constant(uint256) = 256
VARIABLE_RATE: constant(uint256) = 2

pool: immutable(Pool)


@deploy
def __init__(_pool: address, _assets: DynArray[address, 128]):
    """
    @param _pool The Aave pool
    @param _assets Its assets; the pool may take all that this contract will hold
    """
    pool = Pool(_pool)
    for asset: address in _assets:
        assert extcall Token(asset).approve(_pool, max_value(uint256), default_return_value=True)


@external
def supply(_entries: DynArray[Entry, MAX_ENTRIES]):
    """
    @notice Supply for each entry's account
    """
    for entry: Entry in _entries:
        extcall pool.supply(entry.asset, entry.amount, entry.account, 0)


@external
def borrow(_entries: DynArray[Entry, MAX_ENTRIES]):
    """
    @notice Borrow on each entry's account at the variable rate; the tokens stay here
    """
    for entry: Entry in _entries:
        extcall pool.borrow(entry.asset, entry.amount, VARIABLE_RATE, 0, entry.account)
