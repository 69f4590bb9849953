# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title Positions and health of many Aave V3 accounts, and the market's state, in one call
@notice Without storage, constructor and immutables, so that its runtime code works at any address under
        the state override of an eth_call, undeployed. Each read is a call of its own with bounded gas and
        bounded return data: what one account, token or price does wrong stays in that account's words.
@dev Answers are flat 256-bit words; `contracts_abi/lens.py` has their layout and reads them with numpy.
     Balances that the account's configuration bitmap does not flag are neither read nor returned.
"""

# Enough for any number of accounts that an ordinary node's gas limit can pay for, and no more: the memory
# of the answer is reserved at this size.
MAX_USERS: constant(uint256) = 2_000
MAX_WORDS: constant(uint256) = 20_000
MAX_RESERVES: constant(uint256) = 128
MAX_TOKENS: constant(uint256) = 256
HEAD_WORDS: constant(uint256) = 6
MAX_MARKET_WORDS: constant(uint256) = 2 + 10 * MAX_RESERVES

# An honest read takes a tenth of it. Where less is left, the whole call reverts: a read must not fail, and
# an account become unknown, for want of gas.
READ_GAS: constant(uint256) = 1_500_000
GAS_FLOOR: constant(uint256) = 1_600_000

FAILED: constant(uint256) = 0
OK: constant(uint256) = 1
NO_ACCOUNT_DATA: constant(uint256) = 2
UNLISTED_RESERVE: constant(uint256) = 3


@external
@view
def accounts(
    pool: address, users: DynArray[address, MAX_USERS], tokens: DynArray[address, MAX_TOKENS], account_data: bool
) -> DynArray[uint256, MAX_WORDS]:
    """
    @notice Read the positions of `users`, and with `account_data` the contract's own totals and health factor
    @param pool Aave V3 pool
    @param users Accounts to read
    @param tokens aToken and variable debt token of each reserve by reserve id: token 2i and 2i + 1 of
           reserve i; zero where an id is unused
    @param account_data Whether to call getUserAccountData too, which costs more than all other reads
    @return Six words for each user: status, configuration bitmap, eMode category, collateral, debt and health
            factor (the last three zero without `account_data`). Then, a user after the other and by reserve
            id, the scaled aToken balance of each reserve used as collateral and the scaled variable debt of
            each reserve borrowed
    """
    # Two bits a reserve, borrowed and used as collateral. A flag beyond the tokens given is a reserve that the
    # caller does not know of: the positions are not whole, and must not look so.
    known: uint256 = max_value(uint256)
    if len(tokens) < MAX_TOKENS:
        known = (1 << len(tokens)) - 1

    words: DynArray[uint256, MAX_WORDS] = []
    for user: address in users:
        status: uint256 = OK
        done: bool = False
        config: uint256 = 0
        done, config = self._word(pool, abi_encode(user, method_id=method_id("getUserConfiguration(address)")))
        if not done:
            status = FAILED
        category: uint256 = 0
        done, category = self._word(pool, abi_encode(user, method_id=method_id("getUserEMode(address)")))
        if not done:
            status = FAILED
        totals: uint256[3] = [0, 0, 0]
        if account_data:
            done, totals = self._account_data(pool, user)
            if not done and status == OK:
                status = NO_ACCOUNT_DATA
        if config & ~known != 0:
            status = UNLISTED_RESERVE
        words.append(status)
        words.append(config)
        words.append(category)
        words.append(totals[0])
        words.append(totals[1])
        words.append(totals[2])

    at: uint256 = 0
    for user: address in users:
        flags: uint256 = words[at + 1] & known
        for i: uint256 in range(MAX_RESERVES):
            if flags == 0:
                break
            done: bool = False
            balance: uint256 = 0
            if flags & 2 != 0:
                done, balance = self._scaled_balance(tokens[2 * i], user)
                words.append(balance)
                if not done:
                    words[at] = FAILED
            if flags & 1 != 0:
                done, balance = self._scaled_balance(tokens[2 * i + 1], user)
                words.append(balance)
                if not done:
                    words[at] = FAILED
            flags >>= 2
        at += HEAD_WORDS
    return words


@external
@view
def market(
    pool: address, oracle: address, assets: DynArray[address, MAX_RESERVES], tokens: DynArray[address, MAX_TOKENS]
) -> DynArray[uint256, MAX_MARKET_WORDS]:
    """
    @notice Read the state of all reserves, their prices and what their price sources say of themselves
    @param pool Aave V3 pool
    @param oracle Its price oracle
    @param assets Underlying asset of each reserve by reserve id
    @param tokens As for `accounts`
    @return Block number and time; then for each reserve: a bitmap of the words below that could be read,
            configuration bitmap, normalized income, normalized variable debt, price, underlying held by the
            aToken, price source, the source's latest answer (two's complement), time and id of its round
    """
    words: DynArray[uint256, MAX_MARKET_WORDS] = [block.number, block.timestamp]
    for i: uint256 in range(len(assets), bound=MAX_RESERVES):
        asset: address = assets[i]
        read: uint256[10] = empty(uint256[10])
        done: bool = False

        done, read[1] = self._word(pool, abi_encode(asset, method_id=method_id("getConfiguration(address)")))
        read[0] |= convert(done, uint256) << 1
        done, read[2] = self._word(
            pool, abi_encode(asset, method_id=method_id("getReserveNormalizedIncome(address)"))
        )
        read[0] |= convert(done, uint256) << 2
        done, read[3] = self._word(
            pool, abi_encode(asset, method_id=method_id("getReserveNormalizedVariableDebt(address)"))
        )
        read[0] |= convert(done, uint256) << 3
        done, read[4] = self._word(oracle, abi_encode(asset, method_id=method_id("getAssetPrice(address)")))
        read[0] |= convert(done, uint256) << 4
        done, read[5] = self._word(asset, abi_encode(tokens[2 * i], method_id=method_id("balanceOf(address)")))
        read[0] |= convert(done, uint256) << 5
        done, read[6] = self._word(oracle, abi_encode(asset, method_id=method_id("getSourceOfAsset(address)")))
        read[0] |= convert(done, uint256) << 6
        if done and read[6] < 2**160:
            source: address = convert(read[6], address)
            done, read[7] = self._word(source, method_id("latestAnswer()"))
            read[0] |= convert(done, uint256) << 7
            done, read[8], read[9] = self._round(source)
            read[0] |= convert(done, uint256) << 8 | convert(done, uint256) << 9
        for word: uint256 in read:
            words.append(word)
    return words


@internal
@view
def _word(target: address, data: Bytes[36]) -> (bool, uint256):
    assert msg.gas > GAS_FLOOR, "lens: ask for fewer accounts or give more gas"
    done: bool = False
    answer: Bytes[32] = b""
    done, answer = raw_call(
        target, data, max_outsize=32, gas=READ_GAS, is_static_call=True, revert_on_failure=False
    )
    # An account without code answers with success and nothing.
    if not done or len(answer) != 32:
        return False, 0
    return True, extract32(answer, 0, output_type=uint256)


@internal
@view
def _scaled_balance(token: address, user: address) -> (bool, uint256):
    return self._word(token, abi_encode(user, method_id=method_id("scaledBalanceOf(address)")))


@internal
@view
def _account_data(pool: address, user: address) -> (bool, uint256[3]):
    assert msg.gas > GAS_FLOOR, "lens: ask for fewer accounts or give more gas"
    done: bool = False
    answer: Bytes[192] = b""
    done, answer = raw_call(
        pool,
        abi_encode(user, method_id=method_id("getUserAccountData(address)")),
        max_outsize=192,
        gas=READ_GAS,
        is_static_call=True,
        revert_on_failure=False,
    )
    if not done or len(answer) != 192:
        return False, [0, 0, 0]
    return True, [
        extract32(answer, 0, output_type=uint256),
        extract32(answer, 32, output_type=uint256),
        extract32(answer, 160, output_type=uint256),
    ]


@internal
@view
def _round(source: address) -> (bool, uint256, uint256):
    assert msg.gas > GAS_FLOOR, "lens: ask for fewer accounts or give more gas"
    done: bool = False
    answer: Bytes[160] = b""
    done, answer = raw_call(
        source,
        method_id("latestRoundData()"),
        max_outsize=160,
        gas=READ_GAS,
        is_static_call=True,
        revert_on_failure=False,
    )
    if not done or len(answer) != 160:
        return False, 0, 0
    return True, extract32(answer, 96, output_type=uint256), extract32(answer, 0, output_type=uint256)
