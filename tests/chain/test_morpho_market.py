"""Morpho Blue beside Aave on a local market: the same tokens and feeds, a book opened by its own calls."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from contracts_abi import aave_v3, feeds
from contracts_abi import morpho_blue as abi
from contracts_abi.errors import InputError
from simulation.chain import revm
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.deploy import AAVE_V3, AAVE_V3_6, deploy_market, on_version
from simulation.chain.evm import Evm, read
from simulation.chain.feeds import post
from simulation.chain.market import DEFAULT_MARKET, GENESIS, Deployment, with_morpho
from simulation.chain.parity.aave_cases import execute
from simulation.chain.rpc import hexed
from simulation.chain.seed import draw_morpho_book, load_or_build, open_book, open_morpho_book
from simulation.chain.solc import is_compiled
from simulation.chain.toolchain import node_modules
from simulation.protocols.aave_v3.layout import run_stages
from simulation.protocols.morpho_blue import IrmKind, MorphoBlue, discover_layout

pytestmark = pytest.mark.skipif(
    not is_compiled("morpho-blue") and shutil.which("node") is None,
    reason="Morpho Blue is not compiled, and Node.js is not on PATH",
)
needs_revm = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)

MARKET = with_morpho(DEFAULT_MARKET)


def adapters(evm: Evm, market: Deployment) -> dict[str, MorphoBlue]:
    """Return an adapter of each market by name."""
    assert market.morpho is not None
    address = market.morpho.address
    return {
        m.name: MorphoBlue(run_stages(discover_layout(address, m.id), lambda calls: execute(evm, calls)))
        for m in market.morpho.markets
    }


@needs_revm
def test_the_markets_are_found_by_their_ids_and_priced_by_the_pools_feeds() -> None:
    evm = revm.RevmEvm(timestamp=GENESIS)
    market = deploy_market(evm, MARKET)
    assert market.morpho is not None
    assert market.code_hashes["Morpho"].startswith("0x")
    found = adapters(evm, market)
    assert list(found) == ["WETH/USDC", "WBTC/USDC"]
    for name, adapter in found.items():
        deployed = market.morpho.market(name)
        layout = adapter.layout
        assert layout.irm_kind is IrmKind.ADAPTIVE_CURVE
        assert layout.params.lltv_wad == deployed.lltv_wad == 86 * 10**16
        collateral, loan = (market.asset(symbol) for symbol in (deployed.collateral, deployed.loan))
        assert (layout.collateral.address, layout.loan.address) == (collateral.address, loan.address)
        # Raw loan tokens for a raw unit of collateral, times 1e36, from the same answers as Aave's prices.
        for change in (100, 60):
            price_e8 = DEFAULT_MARKET.asset(deployed.collateral).price_e8 * change // 100
            post(evm, market.deployer, collateral.feed, price_e8)
            assert read(evm, aave_v3.GET_ASSET_PRICE.call(market.oracle, collateral.address)) == price_e8
            expected = price_e8 * 10 ** (36 + loan.decimals - collateral.decimals) // 10**8
            assert read(evm, abi.PRICE.call(layout.params.oracle)) == expected
        assert read(evm, feeds.LATEST_ROUND_DATA.call(loan.feed))[1] == 10**8


@needs_revm
def test_the_rest_of_the_market_stands_where_it_stood_without_morpho() -> None:
    with_it = deploy_market(revm.RevmEvm(timestamp=GENESIS), MARKET)
    without = deploy_market(revm.RevmEvm(timestamp=GENESIS))
    assert without.morpho is None
    assert (with_it.pool, with_it.uniswap, with_it.assets) == (without.pool, without.uniswap, without.assets)


@needs_revm
def test_a_book_needs_the_contract() -> None:
    evm = revm.RevmEvm(timestamp=GENESIS)
    market = deploy_market(evm)
    with pytest.raises(InputError, match="has no Morpho"):
        open_morpho_book(evm, market, draw_morpho_book(MARKET, 1, 0))


@needs_revm
@pytest.mark.parametrize("aave", [AAVE_V3, AAVE_V3_6])
def test_both_backends_open_the_same_positions_on_both_protocols(
    aave: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if aave == AAVE_V3_6 and not is_compiled(AAVE_V3_6) and shutil.which("node") is None:
        pytest.skip("Aave V3.6 is not compiled, and Node.js is not on PATH")
    installed = node_modules()
    (tmp_path / "npm").mkdir()
    (tmp_path / "npm" / "node_modules").symlink_to(installed)
    if (installed.parent.parent / "solc").is_dir():
        (tmp_path / "solc").symlink_to(installed.parent.parent / "solc")
    monkeypatch.setenv("MARGINLINE_CACHE", str(tmp_path))
    spec = on_version(MARKET, aave)
    state = load_or_build(12, 5, market=spec, morpho_accounts=24)
    assert state.built
    assert len(state.morpho_book) == 24
    again = load_or_build(12, 5, market=spec, morpho_accounts=24)
    assert (again.built, again.morpho_book, again.deployment) == (False, state.morpho_book, state.deployment)
    assert load_or_build(12, 5, market=spec).built, "a book without Morpho's accounts is another state"

    evm = revm.RevmEvm(timestamp=GENESIS + 1)
    market = deploy_market(evm, spec)
    open_book(evm, market, state.book)
    open_morpho_book(evm, market, state.morpho_book)
    assert market == state.deployment
    found = adapters(evm, market)
    with Anvil.start(AnvilOptions(load_state=state.path)) as node:
        on_anvil = node.evm()
        assert on_anvil.timestamp() == evm.timestamp()
        logs = node.rpc.call(
            "eth_getLogs",
            [{"address": _morpho(market), "topics": [hexed(abi.BORROW_EVENT.topic)], "fromBlock": "0x0"}],
        )
        discovered = {
            (name, adapter.discovered([bytes.fromhex(t[2:]) for t in log["topics"]], _data(log)))
            for log in logs
            for name, adapter in found.items()
        }
        assert {(a.market, a.address) for a in state.morpho_book} == {d for d in discovered if d[1]}
        for account in state.morpho_book:
            adapter = found[account.market]
            reads = adapter.account_reads([account.address])
            (raw,) = execute(evm, reads)
            assert execute(on_anvil, reads) == [raw]
            assert raw is not None
            assert abi.POSITION.decode(raw)[2] == account.collateral_raw
    for name, adapter in found.items():
        read_market = adapter.decode_market(
            execute(evm, adapter.market_reads()), block=1, timestamp=evm.timestamp()
        )
        borrowed = sum(a.debt_raw for a in state.morpho_book if a.market == name)
        assert borrowed <= read_market.state.total_borrow_assets_raw <= borrowed * 1.001
        assert read_market.state.total_supply_assets_raw >= 1.7 * borrowed


def _morpho(market: Deployment) -> str:
    assert market.morpho is not None
    return market.morpho.address


def _data(log: dict[str, str]) -> bytes:
    return bytes.fromhex(log["data"][2:])
