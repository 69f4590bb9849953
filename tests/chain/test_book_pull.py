"""Books read from a node: every borrower to the wei, one block, whole or refused, what is unknown named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from contracts_abi import aave_v3, feeds
from contracts_abi import morpho_blue as morpho_abi
from contracts_abi.calls import Call
from contracts_abi.errors import CheckFailed, DataError, InputError, RpcError
from contracts_abi.multicall import MULTICALL3_ADDRESS
from keeper.commands.book_pull import pull
from keeper.rpc import Node
from simulation.book.from_chain import morpho_book
from simulation.book.health import lending_accounts
from simulation.book.load import equal_books, load_book
from simulation.book.types import SharedBook, Side
from simulation.chain.anvil import Anvil, AnvilEvm, AnvilOptions
from simulation.chain.deploy import AAVE_V3, AAVE_V3_6, on_version
from simulation.chain.evm import Tx
from simulation.chain.fork import fork
from simulation.chain.market import DEFAULT_MARKET, with_morpho
from simulation.chain.seed import SeededState, load_or_build
from simulation.chain.solc import is_compiled
from simulation.types import Asset

ACCOUNTS, SEED = 40, 3
needs_node = pytest.mark.skipif(
    not is_compiled("morpho-blue") and shutil.which("node") is None,
    reason="Morpho Blue is not compiled, and Node.js is not on PATH",
)


@dataclass
class Place:
    """A seeded chain."""

    node: Anvil
    evm: AnvilEvm
    state: SeededState

    def pulled(self, folder: Path, **options: Any) -> SharedBook:
        """Pull a book and load it."""
        given = {
            "protocol": "aave-v3",
            "rpc_url": self.node.url,
            "out": folder / "book.toml",
            "block": None,
            "provider": self.state.deployment.provider,
            "morpho": None,
            "market": None,
            "pools": (),
            "prices": (),
            "from_block": 0,
            "range_blocks": 2_000,
            "name": None,
            "form": None,
            "as_json": True,
        }
        pull(**{**given, **options})
        return load_book(folder / "book.toml")

    def read(self, call: Call[Any]) -> Any:
        """Read at the newest block, and not as the next one would find it."""
        node = Node.connect(self.node.url)
        (answer,) = node.read([call], node.head())
        assert answer is not None
        return call.decode(answer)

    def head(self) -> int:
        """Return the number of the newest block."""
        return int(self.node.rpc.call("eth_blockNumber"), 16)


@pytest.fixture
def place() -> Iterator[Place]:
    state = load_or_build(ACCOUNTS, SEED)
    with Anvil.start(AnvilOptions(load_state=state.path)) as node:
        yield Place(node, node.evm(), state)


def check_every_position(place: Place, book: SharedBook) -> None:
    """Hold each row against the balance that the contract itself answers for."""
    assets = place.state.deployment.assets
    rows = book.positions
    for i in range(len(rows)):
        asset = assets[book.tokens[rows.token[i]].symbol]
        token = asset.v_token if rows.side[i] == Side.DEBT else asset.a_token
        raw = place.read(aave_v3.BALANCE_OF.call(token, book.wallets[rows.wallet[i]]))
        assert rows.amount[i] == raw / 10**asset.decimals
    health = lending_accounts(book)
    for i, wallet in enumerate(book.wallets):
        data = place.read(aave_v3.GET_USER_ACCOUNT_DATA.call(place.state.deployment.pool, wallet))
        assert health.collateral[i] == pytest.approx(data[0] / 1e8, rel=1e-9, abs=1e-7)
        assert health.debt[i] == pytest.approx(data[1] / 1e8, rel=1e-9, abs=1e-7)
        # Thresholds of revision 1 are averages cut to a basis point.
        assert health.health_factor[i] == pytest.approx(data[5] / 1e18, rel=2e-4)


def check_totals(place: Place, book: SharedBook) -> None:
    """Hold supply and debt of each reserve against the contract's own."""
    assets, rows, index = place.state.deployment.assets, book.positions, book.token_index()
    for reserve in book.lending[0].reserves:
        asset = assets[reserve.token]
        here = rows.token == index[reserve.token]
        held = rows.amount[here & (rows.side == Side.COLLATERAL)].sum()
        owed = rows.amount[here & (rows.side == Side.DEBT)].sum()
        supply = place.read(aave_v3.TOTAL_SUPPLY.call(asset.a_token)) / 10**asset.decimals
        debt = place.read(aave_v3.TOTAL_SUPPLY.call(asset.v_token)) / 10**asset.decimals
        assert held + reserve.idle_supply == pytest.approx(supply, rel=1e-9)
        assert owed + reserve.outside_debt == pytest.approx(debt, rel=1e-9, abs=1e-4)
        assert reserve.outside_debt == 0


def check_parameters(book: SharedBook) -> None:
    """Hold what was read against the specification that the market was deployed from."""
    for reserve, spec in zip(book.lending[0].reserves, DEFAULT_MARKET.assets, strict=True):
        assert reserve.token == spec.symbol
        assert reserve.ltv_bps == spec.ltv_bps
        assert reserve.liquidation_threshold_bps == spec.liquidation_threshold_bps
        assert reserve.liquidation_bonus_bps == spec.liquidation_bonus_bps - 10_000
        assert reserve.protocol_fee_bps == spec.liquidation_protocol_fee_bps
        assert reserve.reserve_factor_bps == spec.reserve_factor_bps
        curve = (reserve.rate.optimal, reserve.rate.base, reserve.rate.slope1, reserve.rate.slope2)
        rate = spec.rate
        wanted = (rate.optimal_bps, rate.base_bps, rate.slope1_bps, rate.slope2_bps)
        assert curve == pytest.approx([bps / 1e4 for bps in wanted])
        assert book.tokens[book.token_index()[spec.symbol]].price == spec.price_e8 / 1e8
    (category,) = book.lending[0].emodes
    assert set(category.tokens) == {"WETH", "wstETH"}
    assert (category.ltv_bps, category.liquidation_threshold_bps, category.liquidation_bonus_bps) == (
        *(9_300, 9_500),
        100,
    )
    backing = {token.symbol: token.backing for token in book.tokens}
    assert backing["wstETH"] is not None
    assert (backing["wstETH"].token, backing["wstETH"].rate) == ("WETH", pytest.approx(1.02))
    assert backing["USDC"] is not None
    assert backing["WBTC"] is None


def test_aave_v3_is_read_whole(place: Place, tmp_path: Path) -> None:
    book = place.pulled(tmp_path)
    assert set(book.wallets) == {account.address for account in place.state.book}
    assert book.block == place.head()
    assert book.lending[0].kind == "aave-v3"
    assert book.unknown == ()
    check_every_position(place, book)
    check_totals(place, book)
    check_parameters(book)
    loops = {account.address for account in place.state.book if account.emode}
    assert {book.wallets[w] for w in book.positions.wallet[book.positions.emode == 1]} == loops


def test_aave_v3_6_is_read_whole(tmp_path: Path) -> None:
    if not is_compiled("aave-v3.6") and shutil.which("node") is None:
        pytest.skip("Aave V3.6 is not compiled, and Node.js is not on PATH")
    state = load_or_build(ACCOUNTS, SEED, market=on_version(DEFAULT_MARKET, AAVE_V3_6))
    with Anvil.start(AnvilOptions(load_state=state.path)) as node:
        there = Place(node, node.evm(), state)
        book = there.pulled(tmp_path, protocol="aave-v3.6")
        assert book.lending[0].kind == "aave-v3.6"
        check_every_position(there, book)
        check_totals(there, book)
        check_parameters(book)
        with pytest.raises(InputError, match=r"is of revision 10; give --protocol aave-v3\.6"):
            there.pulled(tmp_path, protocol="aave-v3")


@needs_node
def test_morpho_blue_is_read_whole(tmp_path: Path) -> None:
    market = with_morpho(on_version(DEFAULT_MARKET, AAVE_V3))
    state = load_or_build(20, 1, market=market, morpho_accounts=20)
    with Anvil.start(AnvilOptions(load_state=state.path)) as node:
        there = Place(node, node.evm(), state)
        morpho = state.deployment.morpho
        assert morpho is not None
        deployed = morpho.market("WETH/USDC")
        options = {"protocol": "morpho-blue", "provider": None, "morpho": morpho.address}
        book = there.pulled(tmp_path, **options, market=deployed.id)
        mine = [a for a in state.morpho_book if a.market == "WETH/USDC"]
        assert set(book.wallets) == {account.address for account in mine}
        assert [reserve.token for reserve in book.lending[0].reserves] == ["WETH", "USDC"]
        assert book.lending[0].reserves[0].ltv_bps == 8_600
        assert book.lending[0].name == "morpho-weth-usdc"
        price = DEFAULT_MARKET.asset("WETH").price_e8 / 1e8
        assert [token.price for token in book.tokens] == pytest.approx([price, 1.0])
        rows = book.positions
        for account in mine:
            words = there.read(
                morpho_abi.POSITION.call(morpho.address, bytes.fromhex(deployed.id[2:]), account.address)
            )
            held = rows.amount[
                (rows.wallet == book.wallets.index(account.address)) & (rows.side == Side.COLLATERAL)
            ]
            assert held.tolist() == [words[2] / 10**18]
        state_words = there.read(morpho_abi.MARKET.call(morpho.address, bytes.fromhex(deployed.id[2:])))
        owed = rows.amount[rows.side == Side.DEBT].sum()
        # Interest since the market was touched last is in the debts, and not yet in what it stores.
        assert owed == pytest.approx(state_words[2] / 1e6, rel=1e-4)
        assert owed >= state_words[2] / 1e6
        twice = there.pulled(tmp_path, **options, market=deployed.id, prices=("USDC=2",), name="m")
        assert [token.price for token in twice.tokens] == pytest.approx([2 * price, 2.0])
        assert twice.lending[0].name == "m"
        with pytest.raises(InputError, match="--market: not a market id"):
            there.pulled(tmp_path, **options, market="0x12")
        with pytest.raises(InputError, match="the market lends USDC"):
            there.pulled(tmp_path, **options, market=deployed.id, prices=("DAI=1",))
        node.rpc.call("evm_mine")
        with pytest.raises(DataError, match=r"owe 0 of \d+ shares: the read is partial"):
            there.pulled(tmp_path, **options, market=deployed.id, from_block=there.head())


def test_an_older_block_is_read_as_it_was(place: Place, tmp_path: Path) -> None:
    before = place.pulled(tmp_path)
    weth = place.state.deployment.asset("WETH")
    aggregator = place.read(feeds.AGGREGATOR.call(weth.feed))
    price = DEFAULT_MARKET.asset("WETH").price_e8 // 2
    post = Tx(place.state.deployment.deployer, aggregator, feeds.TRANSMIT.encode(price), gas=500_000)
    place.evm.send_many([post])[0].expect("a price")
    after = place.pulled(tmp_path)
    at = after.token_index()["WETH"]
    assert after.tokens[at].price == price / 1e8
    assert lending_accounts(after).health_factor.min() < 1
    again = place.pulled(tmp_path, block=before.block)
    assert again.tokens == before.tokens
    assert np.array_equal(again.positions.amount, before.positions.amount)
    with pytest.raises(InputError, match="--block: the chain has no block"):
        place.pulled(tmp_path, block=before.block + 100)


def test_a_fork_gives_the_same_book(place: Place, tmp_path: Path) -> None:
    here = place.pulled(tmp_path)
    with fork(place.node.url, place.head()) as copy:
        there = Place(copy, place.evm, place.state).pulled(tmp_path, block=here.block)
    assert there.tokens == here.tokens
    assert there.wallets == here.wallets
    assert np.array_equal(there.positions.amount, here.positions.amount)


def test_exits_are_what_the_pools_pay(place: Place, tmp_path: Path) -> None:
    deployed = place.state.deployment.uniswap.pools[:2]
    book = place.pulled(tmp_path, pools=[pool.address for pool in deployed])
    assert len(book.exits) == 4
    for exit_ in book.exits:
        assert f"chain 31337 block {book.block}" in exit_.source
        assert exit_.slippage[0] < 0.01
        assert (np.diff(exit_.size) > 0).all()
    symbols = {a.address: s for s, a in place.state.deployment.assets.items()}
    assert {(e.token, e.quote) for e in book.exits[:2]} == {
        (symbols[deployed[0].token0], symbols[deployed[0].token1]),
        (symbols[deployed[0].token1], symbols[deployed[0].token0]),
    }
    with pytest.raises(InputError, match="is no Uniswap V3 pool"):
        place.pulled(tmp_path, pools=[place.state.deployment.pool])


@pytest.mark.parametrize("multicall", [True, False])
def test_a_node_without_overrides_gives_the_same_book(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, multicall: bool
) -> None:
    whole = place.pulled(tmp_path)
    plain, asked = Node.read, Node.code

    def refusing(self: Node, calls: Any, at: Any, *, code: Any = None, gas: Any = None) -> Any:
        if code:
            raise RpcError(-32602, "too many arguments, want at most 2")
        return plain(self, calls, at, gas=gas)

    monkeypatch.setattr(Node, "read", refusing)
    if not multicall:
        monkeypatch.setattr(
            Node,
            "code",
            lambda node, names: [b"" if n == MULTICALL3_ADDRESS else asked(node, [n])[0] for n in names],
        )
    assert equal_books(place.pulled(tmp_path), whole)


def test_a_loan_in_ether_needs_its_price() -> None:
    layout = SimpleNamespace(loan=Asset("WETH", "", 18), collateral=Asset("wstETH", "", 18))
    adapter: Any = SimpleNamespace(layout=layout)
    staged = morpho_book(adapter, (), block=1, timestamp=1, source="", loan_price=None)
    with pytest.raises(
        InputError, match="prices wstETH in WETH, and that in nothing; give --price WETH=DOLLARS"
    ):
        next(staged)


def test_a_partial_read_is_refused(place: Place, tmp_path: Path) -> None:
    place.node.rpc.call("evm_mine")
    with pytest.raises(DataError, match=r"the read is partial; .* --from-block"):
        place.pulled(tmp_path, from_block=place.head())
    assert list(tmp_path.iterdir()) == []


def test_an_oracle_without_a_price_is_refused(place: Place, tmp_path: Path) -> None:
    aggregator = place.read(feeds.AGGREGATOR.call(place.state.deployment.asset("WBTC").feed))
    mode = Tx(
        place.state.deployment.deployer,
        aggregator,
        feeds.SET_READ_MODE.encode(feeds.READS_REVERT),
        gas=500_000,
    )
    place.evm.send_many([mode])[0].expect("a broken feed")
    with pytest.raises(DataError, match="no price for WBTC"):
        place.pulled(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_account_that_does_not_decode_is_listed(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from simulation.book import from_chain

    victim = next(a for a in place.state.book if a.profile == "eth long").address
    decode = from_chain.aave_v3.AaveV3.decode_accounts

    def broken(self: Any, market: Any, accounts: Any, results: Any) -> Any:
        found = decode(self, market, accounts, results)
        at = list(accounts).index(victim)
        known = found.known.copy()
        known[at] = False
        keep = np.ones(len(found.asset), dtype=np.bool_)
        keep[found.row_ptr[at] : found.row_ptr[at + 1]] = False
        row_ptr = found.row_ptr.copy()
        row_ptr[at + 1 :] -= found.row_ptr[at + 1] - found.row_ptr[at]
        columns = {name: getattr(found, name)[keep] for name in ("asset", "kind", "amount", "weight")}
        states = [None if i == at else state for i, state in enumerate(found.exact)]
        return replace(found, known=known, row_ptr=row_ptr, exact=states, **columns)

    monkeypatch.setattr(from_chain.aave_v3.AaveV3, "decode_accounts", broken)
    with pytest.raises(CheckFailed, match=f"1 accounts could not be read and are unknown: aave:{victim}"):
        place.pulled(tmp_path)
    book = load_book(tmp_path / "book.toml")
    assert book.unknown == (f"aave:{victim}",)
    assert victim not in book.wallets
    usdc = book.lending[0].reserve("USDC")
    owed = place.read(aave_v3.BALANCE_OF.call(place.state.deployment.asset("USDC").v_token, victim))
    assert usdc.outside_debt == pytest.approx(owed / 1e6, rel=1e-3)
    assert json.loads(capsys.readouterr().out)["unknown"] == [f"aave:{victim}"]


def test_the_command_reads_what_the_function_reads(place: Place, tmp_path: Path) -> None:
    from keeper.cli import app

    out = tmp_path / "b.toml"
    pools = ",".join(pool.address for pool in place.state.deployment.uniswap.pools[:2])
    words = ["book", "pull", "--protocol", "aave-v3", "--rpc", place.node.url, "--out", str(out)]
    ran = CliRunner().invoke(app, [*words, "--provider", place.state.deployment.provider, "--pools", pools])
    assert ran.exit_code == 0, ran.output
    assert "40 wallets" in ran.stdout.replace("\n", " ")
    book = load_book(out)
    assert len(book.exits) == 4
    assert book.source.startswith(f"chain 31337 block {book.block} hash 0x")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"protocol": "aave-v36"}, "did you mean 'aave-v3.6'"),
        ({"provider": None}, "--protocol aave-v3 goes with --provider"),
        ({"provider": "0x12"}, "--provider: '0x12' is not an address"),
        ({"provider": "0x" + "11" * 20}, "no code at"),
        ({"morpho": "0x" + "11" * 20}, "--morpho does not go with"),
        ({"prices": ("WETH=1",)}, "has an oracle of its own"),
        ({"form": "xml"}, "unknown form"),
        ({"out": Path("/nowhere/b.toml")}, "--out: no folder"),
    ],
)
def test_options_are_checked(place: Place, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        place.pulled(tmp_path, **options)


def test_an_address_that_is_no_provider_is_told(place: Place, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not lead to an Aave V3 market"):
        place.pulled(tmp_path, provider=place.state.deployment.pool)
