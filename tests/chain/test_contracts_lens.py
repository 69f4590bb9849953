"""AccountLens against the contracts' own answers, one by one; and what one bad account may not do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from contracts_abi import aave_v3, feeds, lens, multicall
from contracts_abi.calls import Call
from contracts_abi.errors import CallReverted
from contracts_abi.lens import LensRows, LensStatus
from simulation.chain.anvil import AnvilEvm
from simulation.chain.artifacts import own
from simulation.chain.evm import ZERO_ADDRESS, labelled_address, read, transact
from simulation.chain.rpc import hexed, quantity, unhexed
from tests.chain.bench import Bench
from tests.chain.conftest import Chain

SYMBOLS = ("WETH", "WBTC", "wstETH", "USDC", "DAI")
MAX_UINT256 = 2**256 - 1


class Book(Bench):
    """Accounts of every shape that the lens must read."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain.evm, chain.market)
        self.one = self.account("one collateral, one debt", {"WETH": 9_000}, {"USDC": 4_000})
        self.many = self.account(
            "three collaterals, two debts",
            {"WETH": 9_000, "WBTC": 5_000, "DAI": 3_000},
            {"USDC": 4_000, "WBTC": 900},
        )
        self.same = self.account("collateral and debt of one asset", {"DAI": 8_000}, {"DAI": 2_000})
        self.saver = self.account("no debt", {"wstETH": 1_000}, {})
        self.nobody = labelled_address("nobody")
        self.correlated = self.account("eMode", {"wstETH": 9_000}, {"WETH": 7_000}, category=1)
        self.unused = self.account("supply not used", {"WETH": 9_000, "USDC": 500}, {"DAI": 4_000})
        usdc = self.market.asset("USDC").address
        self.pool(self.unused, aave_v3.SET_USER_USE_RESERVE_AS_COLLATERAL, usdc, False)
        self.evm.warp(self.evm.timestamp() + 40 * 86_400)

    @property
    def accounts(self) -> tuple[str, ...]:
        return (self.one, self.many, self.same, self.saver, self.nobody, self.correlated, self.unused)

    @property
    def tokens(self) -> list[str]:
        return [token for asset in self.assets for token in (asset.a_token, asset.v_token)]

    def expected(self, account: str) -> tuple[list[int], dict[int, int]]:
        """Read an account's head and positions with calls of their own."""
        evm, pool = self.evm, self.market.pool
        configuration = read(evm, aave_v3.GET_USER_CONFIGURATION.call(pool, account))
        data = read(evm, aave_v3.GET_USER_ACCOUNT_DATA.call(pool, account))
        head = [
            configuration,
            read(evm, aave_v3.GET_USER_EMODE.call(pool, account)),
            *(data[0], data[1], data[5]),
        ]
        positions = {}
        for reserve in range(len(SYMBOLS)):
            a_token, v_token = self.tokens[2 * reserve : 2 * reserve + 2]
            if configuration >> (2 * reserve + 1) & 1:
                positions[lens.collateral_column(reserve)] = read(
                    evm, aave_v3.SCALED_BALANCE_OF.call(a_token, account)
                )
            if configuration >> 2 * reserve & 1:
                positions[lens.debt_column(reserve)] = read(
                    evm, aave_v3.SCALED_BALANCE_OF.call(v_token, account)
                )
        return head, positions


@pytest.fixture
def book(chain: Chain) -> Book:
    # Where a state override would put it: runtime code at an address, no constructor run.
    chain.evm.set_code(lens.LENS_ADDRESS, own("AccountLens").deployed_bytecode)
    return Book(chain)


def through_lens(book: Book, accounts: Sequence[str], tokens: Sequence[str] | None = None) -> LensRows:
    call = lens.accounts_call(
        lens.LENS_ADDRESS, book.market.pool, accounts, tokens or book.tokens, account_data=True
    )
    return read(book.evm, call)


def through_multicall(book: Book, accounts: Sequence[str], tokens: Sequence[str] | None = None) -> LensRows:
    call = lens.multicall_accounts_call(
        book.market.multicall, book.market.pool, accounts, tokens or book.tokens, account_data=True
    )
    return read(book.evm, call)


def assert_same(one: LensRows, other: LensRows) -> None:
    assert one.reserves == other.reserves
    for name in ("head", "row_ptr", "column", "values"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_rows_equal_the_contracts_own_answers(book: Book) -> None:
    rows = through_lens(book, book.accounts)
    assert rows.n == len(book.accounts)
    assert set(rows.status.tolist()) == {LensStatus.OK}
    assert rows.usable.all()
    for i, account in enumerate(book.accounts):
        head, positions = book.expected(account)
        assert [rows.word(i, column) for column in range(1, lens.HEAD)] == head
        assert rows.positions(i) == positions
        for column in range(2 * len(SYMBOLS)):
            assert rows.word(i, lens.HEAD + column) == positions.get(column, 0)
    # The book is what it says: debts, categories, and an account without any.
    health = rows.floats(lens.HEALTH_FACTOR_WAD)
    assert health[book.accounts.index(book.nobody)] == pytest.approx(float(MAX_UINT256))
    assert 1e18 < health[book.accounts.index(book.correlated)] < 1.3e18
    assert rows.word(book.accounts.index(book.correlated), lens.EMODE_CATEGORY) == 1
    assert len(rows.positions(book.accounts.index(book.many))) == 5
    usdc = lens.HEAD + lens.collateral_column(SYMBOLS.index("USDC"))
    assert rows.word(book.accounts.index(book.unused), usdc) == 0


def test_float_columns_are_the_words_rounded_once(book: Book) -> None:
    rows = through_lens(book, book.accounts)
    for column in range(lens.HEAD + 2 * len(SYMBOLS)):
        exact = [rows.word(i, column) for i in range(rows.n)]
        for word, approximate in zip(exact, rows.floats(column).tolist(), strict=True):
            assert abs(int(approximate) - word) * 2**51 <= word
    assert rows.value_floats().shape == rows.column.shape


def test_multicall_gives_the_same_rows(book: Book) -> None:
    assert_same(through_lens(book, book.accounts), through_multicall(book, book.accounts))


def test_without_account_data_only_the_totals_are_missing(book: Book) -> None:
    full = through_lens(book, book.accounts)
    bare = read(
        book.evm,
        lens.accounts_call(
            lens.LENS_ADDRESS, book.market.pool, book.accounts, book.tokens, account_data=False
        ),
    )
    np.testing.assert_array_equal(bare.head[:, : lens.COLLATERAL_BASE], full.head[:, : lens.COLLATERAL_BASE])
    assert not bare.head[:, lens.COLLATERAL_BASE :].any()
    np.testing.assert_array_equal(bare.values, full.values)


def test_a_state_override_reads_the_same_and_leaves_nothing(book: Book) -> None:
    evm = book.evm
    if not isinstance(evm, AnvilEvm):
        pytest.skip("state overrides are a node's")
    expected = through_lens(book, book.accounts)
    evm.set_code(lens.LENS_ADDRESS, b"")
    call = lens.accounts_call(
        lens.LENS_ADDRESS, book.market.pool, book.accounts, book.tokens, account_data=True
    )
    override = {lens.LENS_ADDRESS: {"code": hexed(own("AccountLens").deployed_bytecode)}}
    block = {"time": quantity(evm.timestamp()), "number": quantity(evm.block_number())}
    transaction = {"to": call.to, "data": hexed(call.data)}
    answer = evm.rpc.call("eth_call", [transaction, "latest", override, block])
    assert_same(call.decode(unhexed(answer)), expected)
    assert evm.code(lens.LENS_ADDRESS) == b""


def test_chunks_put_together_are_the_whole(book: Book) -> None:
    parts = [through_lens(book, book.accounts[i : i + 3]) for i in range(0, len(book.accounts), 3)]
    assert_same(lens.concatenate(parts), through_lens(book, book.accounts))


def test_a_price_that_reverts_costs_only_its_accounts_their_totals(book: Book) -> None:
    before = through_lens(book, book.accounts)
    aggregator = read(book.evm, feeds.AGGREGATOR.call(book.market.asset("WBTC").feed))
    transact(book.evm, book.market.deployer, aggregator, feeds.SET_READ_MODE, feeds.READS_REVERT)
    after = through_lens(book, book.accounts)
    hit = book.accounts.index(book.many)
    assert after.status.tolist() == [
        LensStatus.NO_ACCOUNT_DATA if i == hit else LensStatus.OK for i in range(after.n)
    ]
    assert after.usable.all(), "positions do not need a price"
    np.testing.assert_array_equal(after.values, before.values)
    assert not after.head[hit, lens.COLLATERAL_BASE :].any()
    assert_same(after, through_multicall(book, book.accounts))


def test_garbage_among_the_accounts_stays_with_itself(book: Book) -> None:
    garbage = [ZERO_ADDRESS, "0x" + "00" * 19 + "01", book.market.pool, book.tokens[0], "0x" + "ff" * 20]
    mixed = [garbage[0], book.one, *garbage[1:], book.many]
    rows = through_lens(book, mixed)
    for account in (book.one, book.many):
        head, positions = book.expected(account)
        assert [rows.word(mixed.index(account), column) for column in range(1, lens.HEAD)] == head
        assert rows.positions(mixed.index(account)) == positions
    for i in range(len(mixed)):
        if mixed[i] in garbage:
            assert rows.positions(i) == {}
            assert rows.word(i, lens.DEBT_BASE) == 0
    assert_same(rows, through_multicall(book, mixed))


@pytest.mark.parametrize("side", ["collateral", "debt"])
@pytest.mark.parametrize("broken", ["no code", "reverts", "answers too little", "burns all gas"])
def test_a_token_that_fails_makes_its_holders_unknown_and_nobody_else(
    book: Book, broken: str, side: str
) -> None:
    code = {
        "no code": b"",
        "reverts": bytes.fromhex("5f5ffd"),
        "answers too little": bytes.fromhex("601f5ff3"),
        "burns all gas": bytes.fromhex("fe"),
    }[broken]
    token = labelled_address(f"broken token: {broken}")
    book.evm.set_code(token, code)
    tokens = list(book.tokens)
    usdc, weth = SYMBOLS.index("USDC"), SYMBOLS.index("WETH")
    tokens[lens.debt_column(usdc) if side == "debt" else lens.collateral_column(weth)] = token
    holders = (book.one, book.many) if side == "debt" else (book.one, book.many, book.unused)
    rows = through_lens(book, book.accounts, tokens)
    whole = through_lens(book, book.accounts)
    for i, account in enumerate(book.accounts):
        hit = account in holders
        assert rows.status[i] == (LensStatus.FAILED if hit else LensStatus.OK)
        assert rows.usable[i] != hit
        if not hit:
            assert rows.positions(i) == whole.positions(i)
    if broken != "burns all gas":  # Multicall3 gives each read all that there is
        assert_same(rows, through_multicall(book, book.accounts, tokens))


def test_a_reserve_that_the_caller_does_not_know_of_is_never_left_out_in_silence(book: Book) -> None:
    tokens = book.tokens[: 2 * SYMBOLS.index("DAI")]
    rows = through_lens(book, book.accounts, tokens)
    for i, account in enumerate(book.accounts):
        in_dai = account in (book.many, book.same, book.unused)
        assert rows.status[i] == (LensStatus.UNLISTED_RESERVE if in_dai else LensStatus.OK)
        assert rows.usable[i] != in_dai
    assert_same(rows, through_multicall(book, book.accounts, tokens))


def test_a_pool_that_is_none_makes_everybody_unknown(book: Book) -> None:
    call = lens.accounts_call(
        lens.LENS_ADDRESS, labelled_address("no pool"), book.accounts, book.tokens, account_data=True
    )
    rows = read(book.evm, call)
    assert set(rows.status.tolist()) == {LensStatus.FAILED}
    assert not rows.usable.any()


@pytest.mark.parametrize("account_data", [False, True])
def test_want_of_gas_reverts_instead_of_making_accounts_unknown(book: Book, account_data: bool) -> None:
    accounts = book.accounts * 20
    call = lens.accounts_call(
        lens.LENS_ADDRESS, book.market.pool, accounts, book.tokens, account_data=account_data
    )
    enough = 20_000_000
    assert set(call.decode(book.evm.call(call.to, call.data, gas=enough)).status.tolist()) == {1}
    reasons = []
    for gas in range(1_500_000, 8_000_000, 650_000):
        try:
            rows = call.decode(book.evm.call(call.to, call.data, gas=gas))
        except CallReverted as error:
            reasons.append(str(error))
        else:
            assert set(rows.status.tolist()) == {LensStatus.OK}
    assert any("ask for fewer accounts" in reason for reason in reasons)


# --- the market ---------------------------------------------------------------------------------------------


def market_call(book: Book) -> Call[lens.LensMarket]:
    assets = [book.market.asset(symbol).address for symbol in SYMBOLS]
    return lens.market_call(lens.LENS_ADDRESS, book.market.pool, book.market.oracle, assets, book.tokens)


def test_the_market_equals_the_contracts_own_answers(book: Book) -> None:
    evm, market = book.evm, book.market
    seen = read(evm, market_call(book))
    assert (seen.block, seen.timestamp) == (evm.block_number(), evm.timestamp())
    for symbol, reserve in zip(SYMBOLS, seen.reserves, strict=True):
        asset = market.asset(symbol)
        round_id, answer, _, updated_at, _ = read(evm, feeds.LATEST_ROUND_DATA.call(asset.feed))
        assert reserve == lens.LensReserve(
            configuration=read(evm, aave_v3.GET_CONFIGURATION.call(market.pool, asset.address)),
            normalized_income_ray=read(
                evm, aave_v3.GET_RESERVE_NORMALIZED_INCOME.call(market.pool, asset.address)
            ),
            normalized_variable_debt_ray=read(
                evm, aave_v3.GET_RESERVE_NORMALIZED_VARIABLE_DEBT.call(market.pool, asset.address)
            ),
            price_base=book.price_e8(symbol),
            liquidity_raw=read(evm, aave_v3.BALANCE_OF.call(asset.address, asset.a_token)),
            source=int(asset.feed, 16),
            answer=answer,
            updated_at=updated_at,
            round_id=round_id,
        )


def test_a_feed_that_reverts_is_unknown_and_leaves_the_other_reserves_alone(book: Book) -> None:
    evm, deployer = book.evm, book.market.deployer
    before = read(evm, market_call(book))
    aggregator = read(evm, feeds.AGGREGATOR.call(book.market.asset("WBTC").feed))
    transact(evm, deployer, aggregator, feeds.SET_READ_MODE, feeds.READS_REVERT)
    after = read(evm, market_call(book))
    wbtc = after.reserves[SYMBOLS.index("WBTC")]
    assert (wbtc.price_base, wbtc.answer, wbtc.updated_at, wbtc.round_id) == (None,) * 4
    assert wbtc.configuration == before.reserves[SYMBOLS.index("WBTC")].configuration
    for symbol, was, now in zip(SYMBOLS, before.reserves, after.reserves, strict=True):
        assert symbol == "WBTC" or now.price_base == was.price_base


def test_a_negative_answer_is_read_as_one_and_priced_as_unknown(book: Book) -> None:
    evm, deployer = book.evm, book.market.deployer
    aggregator = read(evm, feeds.AGGREGATOR.call(book.market.asset("DAI").feed))
    transact(evm, deployer, aggregator, feeds.SET_ROUND, 2, -5, 1, 1, 2)
    dai = read(evm, market_call(book)).reserves[SYMBOLS.index("DAI")]
    assert dai.answer == -5
    assert dai.price_base is None, "the oracle has no fallback to ask"


# --- Multicall3 ---------------------------------------------------------------------------------------------


def test_multicall_keeps_order_and_marks_what_failed(book: Book) -> None:
    evm, market = book.evm, book.market
    calls: list[Call[Any]] = [
        aave_v3.GET_USER_EMODE.call(market.pool, book.correlated),
        aave_v3.GET_ASSET_PRICE.call(market.oracle, labelled_address("no asset")),
        aave_v3.SYMBOL.call(market.asset("WBTC").address),
        aave_v3.GET_RESERVE_DATA.call(market.pool, market.asset("DAI").address),
    ]
    answers = read(evm, multicall.aggregate(market.multicall, calls))
    values = [None if data is None else call.decode(data) for call, data in zip(calls, answers, strict=True)]
    assert values == [1, None, "WBTC", read(evm, calls[3])]


def test_multicall_that_may_not_fail_reverts(book: Book) -> None:
    market = book.market
    reads = [(market.oracle, False, aave_v3.GET_ASSET_PRICE.encode(labelled_address("no asset")))]
    with pytest.raises(CallReverted, match="call failed"):
        book.evm.call(market.multicall, multicall.AGGREGATE3.encode(reads))


def test_multicall_reports_an_answer_too_long_as_failed(book: Book) -> None:
    contract = labelled_address("long answer")
    for size, answered in ((512, bytes(512)), (513, None), (100_000, None)):
        book.evm.set_code(contract, bytes.fromhex(f"62{size:06x}5ff3"))
        data = book.evm.call(
            book.market.multicall, multicall.encode_aggregate3([(contract, b""), (book.market.pool, b"")])
        )
        assert multicall.decode_aggregate3(data)[0] == answered
