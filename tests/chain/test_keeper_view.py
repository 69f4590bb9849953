"""Views of a real node: one block, one round trip, and what is not known stays unknown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eth_utils.crypto import keccak

from contracts_abi import aave_v3, feeds, multicall, uniswap_v3
from contracts_abi.calls import Call, function
from contracts_abi.errors import ChainError, DataError, InputError, RpcError
from keeper.compose import LENS_ADDRESS, Connected
from keeper.rpc import Head
from keeper.view import LEAST_REACH_TICKS, REACH_TICKS, FundsOf, HeadView, Reader, check_symbols
from oracle.snapshot import Feed
from oracle.types import GuardStatus, PriceObs, PriceStatus
from simulation.amm import uniswap_v3 as amm
from simulation.chain.artifacts import own
from simulation.chain.evm import Tx, labelled_address
from simulation.protocols.aave_v3 import AaveV3
from simulation.types import SwapHop
from tests.keeper_bench import E8, Stage, staged

MINT = function("mint(address,uint256)")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as running:
        yield running


@pytest.fixture
def connected(stage: Stage) -> Connected:
    return stage.connected()


def accounts(stage: Stage) -> list[str]:
    return [account.address for account in stage.book]


def settled(connected: Connected, stage: Stage) -> Reader:
    """Return a reader that knows the pools' layouts."""
    reader = connected.reader()
    reader.read(connected.node.head(), accounts(stage))
    return reader


def same_book(left: HeadView, right: HeadView) -> bool:
    a, b = left.book, right.book
    arrays = ("row_ptr", "asset", "kind", "amount", "weight", "protocol", "known")
    return (
        (a.accounts, a.assets, a.block, a.timestamp) == (b.accounts, b.assets, b.block, b.timestamp)
        and list(a.exact) == list(b.exact)
        and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays)
    )


# -------------------------------------------------------------------------------------------- one round trip


def test_view_is_one_request_pinned_to_one_block_by_its_hash(stage: Stage, connected: Connected) -> None:
    reader = settled(connected, stage)
    stage.mine()
    head = connected.node.head()
    before = connected.node.round_trips
    stage.proxy.seen.clear()

    view = reader.read(head, accounts(stage))

    assert connected.node.round_trips - before == 1
    assert {method for method, _ in stage.proxy.seen} == {"eth_call"}
    blocks = [params[1] for _, params in stage.proxy.seen]
    assert blocks == [{"blockHash": head.block_hash, "requireCanonical": True}] * len(blocks)
    assert view.head == head
    assert (view.book.block, view.book.timestamp) == (head.number, head.timestamp)
    assert {s.block for s in (view.protocol, view.reference)} == {head.number}
    assert (view.market.block, view.market.timestamp) == (head.number, head.timestamp)
    assert all(exact is not None for exact in view.book.exact)
    assert len(view.pools) == len(stage.market.uniswap.pools)


def test_first_view_lays_all_pools_out_together(stage: Stage, connected: Connected) -> None:
    reader, head = connected.reader(), connected.node.head()
    before = connected.node.round_trips
    reader.read(head, accounts(stage))
    # Price, then bitmap words, then ticks, however many pools there are.
    assert connected.node.round_trips - before == 3


def test_view_is_of_its_block_also_when_newer_ones_exist(stage: Stage, connected: Connected) -> None:
    reader = settled(connected, stage)
    stage.mine()
    head = connected.node.head()
    prices = {symbol: stage.price_e8(symbol) for symbol in stage.market.assets}
    stage.fall(50)
    stage.trade_to(("WETH", "USDC"), Fraction(100))
    stage.borrow("later")
    view = reader.read(head, accounts(stage))
    assert {s: view.protocol.price_e8(s) for s in prices} == prices
    assert {s: view.reference.price_e8(s) for s in prices} == prices


def test_block_that_is_no_longer_canonical_is_an_error_and_no_view(
    stage: Stage, connected: Connected
) -> None:
    reader = settled(connected, stage)
    stage.mine()
    head = connected.node.head()
    stage.replace(1)
    with pytest.raises(RpcError):
        reader.read(head, accounts(stage))
    with pytest.raises(ChainError):
        reader.read(replace(head, block_hash="0x" + "ab" * 32), accounts(stage))


def test_protocol_view_is_what_the_oracle_says_and_margin_what_the_pool_says(
    stage: Stage, connected: Connected
) -> None:
    stage.fall(60, reference=False)
    head = connected.node.head()
    view = connected.reader().read(head, accounts(stage))
    for symbol in stage.market.assets:
        assert view.protocol.price_e8(symbol) == stage.price_e8(symbol)
    assert view.reference.price_e8("WETH") == stage.first_price_e8("WETH")
    adapter = connected.markets[0].adapter
    for account, exact in zip(view.book.accounts, view.book.exact, strict=True):
        assert exact is not None
        margin = adapter.margin(view.market, exact, view.market.prices_base)
        assert margin.health_factor_wad == stage.health_factor_wad(account)


# ---------------------------------------------------------------------------------------------- ways to read


def test_lens_pretended_or_deployed_multicall_and_single_reads_give_one_book(
    stage: Stage, connected: Connected
) -> None:
    deployed = stage.evm.create(stage.market.deployer, own("AccountLens").creation_code())
    empty, stranger = labelled_address("nobody"), labelled_address("no debt")
    names = [*accounts(stage), empty, stranger]
    head = connected.node.head()
    layout = connected.markets[0].adapter.layout
    assert layout.lens == LENS_ADDRESS
    assert connected.node.code([LENS_ADDRESS]) == [b""]
    code: Mapping[str, bytes] = {str(LENS_ADDRESS): own("AccountLens").deployed_bytecode}

    def view(multicall_: str | None, code: Mapping[str, bytes] | None, **changes: Any) -> HeadView:
        adapter = AaveV3(replace(layout, **changes), accounts_per_call=15)
        return Reader(connected.node, adapter, multicall=multicall_, code=code).read(head, names)

    pretended = view(stage.market.multicall, code)
    assert all(exact is not None for exact in pretended.book.exact)
    assert same_book(pretended, view(None, None, lens=deployed))
    assert same_book(pretended, view(None, None, lens=""))
    assert same_book(pretended, view(stage.market.multicall, None, lens=""))
    assert same_book(pretended, view(None, None, lens="", multicall=""))


def test_more_small_reads_than_one_multicall_takes(stage: Stage, connected: Connected) -> None:
    # As with many pools of fine tick spacing: each has dozens of bitmap words.
    narrow = next(p for p in connected.pools if p.tick_spacing == 1)
    copies = [replace(narrow, address=labelled_address(f"copy {i}")) for i in range(10)]
    code = connected.node.code([narrow.address])[0]
    for copy in copies:
        stage.evm.set_code(copy.address, code)
        # slot0 and liquidity, so that they look like a pool with a price.
        for slot in (0, 4):
            stage.evm.set_storage(copy.address, slot, stage.evm.storage(narrow.address, slot))
    stage.mine()
    reader = Reader(
        connected.node,
        connected.markets[0].adapter,
        pools=[narrow, *copies],
        multicall=stage.market.multicall,
        code={LENS_ADDRESS: own("AccountLens").deployed_bytecode},
    )
    head = connected.node.head()
    view = reader.read(head, accounts(stage)[:1])
    reads = sum(len(amm.pool_reads(layout)) for layout in reader._layouts.values())
    assert reads > multicall.MAX_CALLS
    assert len(view.pools) == 11
    before = connected.node.round_trips
    assert reader.read(head, accounts(stage)[:1]).pools == view.pools
    assert connected.node.round_trips - before == 1


def test_address_that_is_no_multicall_is_named(stage: Stage, connected: Connected) -> None:
    reader = Reader(connected.node, connected.markets[0].adapter, multicall=stage.market.pool)
    with pytest.raises(DataError, match=r"multicall at 0x\w+ refused .* contracts\.multicall"):
        reader.read(connected.node.head(), ())


# --------------------------------------------------------------------------------------------- unknown stays


def test_account_that_cannot_be_read_is_unknown_and_takes_nobody_along(
    stage: Stage, connected: Connected
) -> None:
    # Two words of a configuration bitmap in a reserve that the layout does not know.
    victim = next(a.address for a in stage.book if a.profile == "eth long")
    others = [name for name in accounts(stage) if name != victim]
    slot = int.from_bytes(_mapping_slot(victim, 53), "big")
    known = stage.evm.storage(stage.market.pool, slot)
    assert known == stage.read(Call(*_configuration_of(stage, victim)))
    stage.evm.set_storage(stage.market.pool, slot, known | 1 << 40)
    stage.mine()
    view = connected.reader().read(connected.node.head(), [victim, *others])
    assert view.book.exact[0] is None
    assert view.book.row_ptr[1] == view.book.row_ptr[0]
    assert all(exact is not None for exact in view.book.exact[1:])


def test_price_that_the_protocols_oracle_refuses_is_unknown(stage: Stage, connected: Connected) -> None:
    stage.break_feed(stage.market.asset("WBTC").feed)
    view = connected.reader().read(connected.node.head(), accounts(stage))
    assert view.protocol.unknown() == ("WBTC",)
    assert view.protocol.prices["WBTC"].status is PriceStatus.MISSING
    assert view.reference.unknown() == ()


@pytest.mark.parametrize("mode", [feeds.READS_REVERT, feeds.READS_ZEROS])
def test_reference_that_does_not_answer_is_unknown(stage: Stage, connected: Connected, mode: int) -> None:
    stage.break_feed(stage.market.asset("WETH").reference_feed, mode)
    view = connected.reader().read(connected.node.head(), accounts(stage))
    assert view.reference.unknown() == ("WETH",)
    assert view.reference.prices["WETH"].reasons
    assert view.protocol.unknown() == ()


def test_reference_that_stopped_is_unknown(stage: Stage, connected: Connected) -> None:
    stage.mine(step_s=3_600 + 300 + 1)
    view = connected.reader().read(connected.node.head(), accounts(stage))
    assert set(view.reference.unknown()) == set(stage.market.assets)
    assert view.protocol.unknown() == ()  # the protocol does not look at ages


def test_reference_that_took_another_aggregator_is_known_again_from_the_next_head_on(
    stage: Stage, connected: Connected
) -> None:
    feed = stage.market.asset("WETH").reference_feed
    owner = stage.read(feeds.OWNER.call(feed))
    answer = stage.first_price_e8("WETH")
    stage.evm.sync()
    # A lower bound so near that the answer counts as standing at it.
    created = stage.evm.create(
        owner, own("PriceAggregator").creation_code(8, "WETH / USD", 3_600, 50, answer - 1, 10**15)
    )
    reader = settled(connected, stage)
    stage.send(
        Tx(owner, created, feeds.TRANSMIT.encode(answer)),
        Tx(owner, feed, feeds.PROPOSE_AGGREGATOR.encode(created)),
        Tx(owner, feed, feeds.CONFIRM_AGGREGATOR.encode(created)),
    )

    def bound(view: HeadView) -> GuardStatus:
        return next(f for f in view.reference.prices["WETH"].findings if f.guard == "G06").status

    assert bound(reader.read(connected.node.head(), accounts(stage))) is not GuardStatus.VIOLATED
    stage.mine()
    assert bound(reader.read(connected.node.head(), accounts(stage))) is GuardStatus.VIOLATED


def test_pool_that_cannot_be_read_is_missing_and_the_others_are_there(
    stage: Stage, connected: Connected
) -> None:
    gone = connected.pools[0]
    reader = settled(connected, stage)
    code = stage.evm.code(gone.address)
    stage.evm.set_code(gone.address, bytes.fromhex("60006000fd"))
    stage.mine()
    view = reader.read(connected.node.head(), accounts(stage))
    assert gone.address not in view.pools
    assert len(view.pools) == len(connected.pools) - 1
    stage.evm.set_code(gone.address, code)
    stage.mine()
    assert gone.address in reader.read(connected.node.head(), accounts(stage)).pools


def test_token_that_burns_all_gas_when_asked_takes_no_other_tokens_funds_along(stage: Stage) -> None:
    """It is enough that one market lists it, which anybody can open."""
    evil, usdc, weth = (
        labelled_address("evil token"),
        *(stage.market.asset(s).address for s in ("USDC", "WETH")),
    )
    stage.evm.set_code(evil, bytes.fromhex("fe"))
    for token, amount in ((usdc, 7), (weth, 9)):
        stage.send(
            Tx(stage.market.deployer, token, MINT.encode(stage.owner, amount)),
            Tx(stage.owner, token, aave_v3.APPROVE.encode(stage.liquidator, amount)),
        )
    connected = stage.connected()
    reader = Reader(
        connected.node,
        *(market.adapter for market in connected.markets),
        feeds=connected.feeds,
        pools=connected.pools,
        multicall=stage.market.multicall,
        code={LENS_ADDRESS: own("AccountLens").deployed_bytecode},
        funds=FundsOf(stage.liquidator, stage.owner, (usdc, evil, weth)),
    )
    view = reader.read(connected.node.head(), accounts(stage))
    assert view.funds_raw == {usdc: 7, evil: 0, weth: 9}
    assert len(view.pools) == len(connected.pools)
    assert all(price.status is PriceStatus.OK for price in view.reference.prices.values())
    assert view.book.known.all()


def test_market_that_was_changed_is_refused(stage: Stage, connected: Connected) -> None:
    reader = settled(connected, stage)
    stage.evm.set_code(stage.market.provider, bytes.fromhex("60006000fd"))
    stage.mine()
    with pytest.raises(DataError):
        reader.read(connected.node.head(), accounts(stage))


def test_reference_for_an_asset_that_is_not_there_is_refused(connected: Connected) -> None:
    feed = connected.feeds[0]
    check_symbols([feed], [feed.asset])
    with pytest.raises(InputError, match=r"references\.DOGE: the market has no such asset; it has A, B"):
        check_symbols([Feed("DOGE", feed.sources)], ["B", "A"])


# ----------------------------------------------------------------------------------------------------- pools


def quote(stage: Stage, path: tuple[SwapHop, ...], amount: int) -> int:
    """Ask the chain's own quoter."""
    answer = stage.read(
        uniswap_v3.QUOTE_EXACT_INPUT.call(stage.market.uniswap.quoter, amm.encode_path(path), amount)
    )
    return int(answer[0])


def hop(stage: Stage, view: HeadView, sold: str, bought: str) -> SwapHop:
    first, second = stage.market.asset(sold).address, stage.market.asset(bought).address
    pool = next(p for p in view.pools.values() if {p.token0, p.token1} == {first, second})
    return SwapHop(pool.address, first, second, pool.fee_pips)


@pytest.mark.parametrize("to", [0.93, 0.5, 0.2, 1.9, 4.0])
def test_layouts_survive_price_moves(stage: Stage, connected: Connected, to: float) -> None:
    reader = settled(connected, stage)
    start = Fraction(stage.price_e8("WETH"), E8)
    stage.trade_to(("WETH", "USDC"), start * Fraction(to))
    head, before = connected.node.head(), connected.node.round_trips
    view = reader.read(head, accounts(stage))
    moved_far = abs(np.log(to) / np.log(1.0001)) > REACH_TICKS - LEAST_REACH_TICKS
    assert connected.node.round_trips - before <= (3 if moved_far else 1)

    path = (hop(stage, view, "WETH", "USDC"),)
    for amount in (10**15, 300 * 10**18):
        assert amm.amount_out_exact_in(view.pools, path, amount) == quote(stage, path, amount)

    # Wherever it is now, blocks cost one round trip again; a word that came into reach may cost one more.
    for percent, most in ((97, 2), (98, 1)):
        start *= Fraction(percent, 100)
        stage.trade_to(("WETH", "USDC"), start * Fraction(to))
        head, before = connected.node.head(), connected.node.round_trips
        view = reader.read(head, accounts(stage))
        assert connected.node.round_trips - before <= most
        assert amm.amount_out_exact_in(view.pools, path, 10**18) == quote(stage, path, 10**18)


# --------------------------------------------------------------------------------------------------- history


def test_rewind_lets_the_new_branch_repeat_a_round(stage: Stage, connected: Connected) -> None:
    reader = settled(connected, stage)
    ancestor = stage.mine(2)
    stage.post({"WETH": 150 * E8}, protocol=False)
    stage.post({"WETH": 151 * E8}, protocol=False)
    assert reader.read(connected.node.head(), ()).reference.price_e8("WETH") == 151 * E8

    stage.anvil.rpc.call("anvil_rollback", [2])
    stage.post({"WETH": 149 * E8}, protocol=False)
    stage.mine(2)
    head = connected.node.head()
    # Unaware of the reorganisation it is a rollback; aware of it, the new branch's own first round.
    assert reader.read(head, ()).reference.price_e8("WETH") is None
    reader.rewind(ancestor)
    assert reader.read(head, ()).reference.price_e8("WETH") == 149 * E8


def test_jump_beyond_what_the_time_explains_is_refused_by_default(stage: Stage) -> None:
    connected = stage.connected(guards={})
    reader = settled(connected, stage)
    stage.fall(60)
    view = reader.read(connected.node.head(), accounts(stage))
    assert set(view.reference.unknown()) == {"WETH", "WBTC", "wstETH"}
    assert any(reason.startswith("G07") for reason in view.reference.prices["WETH"].reasons)


def test_reading_one_head_twice_gives_one_view(stage: Stage, connected: Connected) -> None:
    reader = settled(connected, stage)
    stage.fall(95)
    head: Head = connected.node.head()
    first, second = reader.read(head, accounts(stage)), reader.read(head, accounts(stage))
    assert same_book(first, second)
    assert first.pools == second.pools
    readings = [p.reading for p in second.reference.prices.values()]
    assert readings == [p.reading for p in first.reference.prices.values()]
    assert all(isinstance(r, PriceObs) for r in readings)


def _configuration_of(stage: Stage, account: str) -> tuple[str, bytes, Any, str]:
    call = aave_v3.GET_USER_CONFIGURATION.call(stage.market.pool, account)

    def first_word(data: bytes) -> int:
        return int.from_bytes(data[:32], "big")

    return call.to, call.data, first_word, call.label


def _mapping_slot(account: str, slot: int) -> bytes:
    return keccak(bytes(12) + bytes.fromhex(account[2:]) + slot.to_bytes(32, "big"))
