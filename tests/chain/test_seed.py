"""A seeded book is opened through the real pool, is the same on both backends, and survives a reload."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts_abi import aave_v3
from contracts_abi.calls import function
from contracts_abi.errors import DataError
from simulation.chain import feeds, revm, seed
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.deploy import deploy_market
from simulation.chain.evm import Evm, read
from simulation.chain.market import DEFAULT_MARKET, GENESIS, Deployment
from simulation.chain.rpc import hexed
from simulation.chain.seed import (
    SeedAccount,
    SeededState,
    draw_book,
    drop_traces,
    load_or_build,
    open_book,
)
from simulation.chain.toolchain import node_modules
from tests.chain.conftest import Chain

WAD = 10**18
BORROW_ALLOWANCE = function("borrowAllowance(address,address)(uint256)")


def account_data(evm: Evm, market: Deployment, account: SeedAccount) -> tuple[int, ...]:
    values: tuple[int, ...] = read(evm, aave_v3.GET_USER_ACCOUNT_DATA.call(market.pool, account.address))
    return values


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use an empty cache that borrows what is installed in the real one."""
    installed = node_modules()
    (folder / "npm").mkdir()
    (folder / "npm" / "node_modules").symlink_to(installed)
    monkeypatch.setenv("MARGINLINE_CACHE", str(folder))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> SeededState:
    """Build a state in a cache of this test's own."""
    with pytest.MonkeyPatch.context() as patch:
        use_cache(tmp_path_factory.mktemp("cache"), patch)
        built = load_or_build(60, seed=7)
        assert built.built
        again = load_or_build(60, seed=7)
        assert not again.built
        assert (again.path, again.deployment, again.book) == (built.path, built.deployment, built.book)
        assert sorted(path.name for path in built.path.parent.iterdir()) == sorted(
            [built.path.name, built.path.with_suffix(".deployment.json").name]
        )
    return built


def test_every_account_is_opened_as_drawn(chain: Chain) -> None:
    book = draw_book(DEFAULT_MARKET, 40, seed=3)
    open_book(chain.evm, chain.market, book)
    prices_e8 = {spec.symbol: spec.price_e8 for spec in DEFAULT_MARKET.assets}
    for account in book:
        base = [
            sum(
                h.amount_raw * prices_e8[h.symbol] // 10 ** chain.market.asset(h.symbol).decimals
                for h in side
            )
            for side in (account.collateral, account.debt)
        ]
        collateral, debt, *_, health_factor = account_data(chain.evm, chain.market, account)
        # A few seconds of interest, and what rounding costs.
        assert collateral == pytest.approx(base[0], rel=1e-6)
        assert debt == pytest.approx(base[1], rel=1e-6)
        assert health_factor > WAD
        assert (
            read(chain.evm, aave_v3.GET_USER_EMODE.call(chain.market.pool, account.address)) == account.emode
        )


def test_nothing_of_the_credit_delegation_is_left(chain: Chain) -> None:
    book = draw_book(DEFAULT_MARKET, 10, seed=3)
    seeder = open_book(chain.evm, chain.market, book)
    for account in book:
        for holding in account.debt:
            v_token = chain.market.asset(holding.symbol).v_token
            assert read(chain.evm, BORROW_ALLOWANCE.call(v_token, account.address, seeder)) == 0


@pytest.mark.skipif(not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only")
def test_both_backends_open_the_same_positions(state: SeededState) -> None:
    evm = revm.RevmEvm(timestamp=GENESIS + 1)
    market = deploy_market(evm)
    open_book(evm, market, state.book)
    assert market == state.deployment
    with Anvil.start(AnvilOptions(load_state=state.path)) as node:
        on_anvil = node.evm()
        assert on_anvil.block_number() == evm.block_number()
        assert on_anvil.timestamp() == evm.timestamp()
        for account in state.book:
            assert account_data(on_anvil, market, account) == account_data(evm, market, account)


def test_the_same_seed_builds_the_same_chain(
    state: SeededState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_cache(tmp_path, monkeypatch)
    again = load_or_build(len(state.book), seed=7)
    assert again.built
    heads = []
    for path in (state.path, again.path):
        with Anvil.start(AnvilOptions(load_state=path)) as node:
            heads.append(node.rpc.call("eth_getBlockByNumber", ["latest", False])["hash"])
    assert heads[0] == heads[1]


def test_a_large_book_is_built_in_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cache(tmp_path, monkeypatch)
    monkeypatch.setattr(seed, "_ACCOUNTS_PER_SESSION", 7)
    (tmp_path / "state").mkdir()
    left_behind = tmp_path / "state" / f".20-3-0123456789abcdef.{2**22 + 1}.json"
    left_behind.touch()
    built = load_or_build(20, seed=3)
    assert not left_behind.exists()
    with Anvil.start(AnvilOptions(load_state=built.path)) as node:
        evm = node.evm()
        query = {"topics": [hexed(aave_v3.BORROW_EVENT.topic)], "fromBlock": "0x0"}
        logs = node.rpc.call("eth_getLogs", [query])
        assert len({log["topics"][2] for log in logs}) == 20
        assert all(account_data(evm, built.deployment, account)[1] > 0 for account in built.book)


def test_borrowers_are_found_in_the_logs_of_a_reloaded_state(state: SeededState) -> None:
    query = {
        "address": state.deployment.pool,
        "topics": [hexed(aave_v3.BORROW_EVENT.topic)],
        "fromBlock": "0x0",
        "toBlock": "latest",
    }
    with Anvil.start(AnvilOptions(load_state=state.path)) as node:
        logs = node.rpc.call("eth_getLogs", [query])
    borrowers = {"0x" + log["topics"][2][-40:] for log in logs}
    assert borrowers == {account.address.lower() for account in state.book}


def test_a_fall_by_half_liquidates_at_least_three_of_ten(state: SeededState) -> None:
    market = state.deployment
    with Anvil.start(AnvilOptions(load_state=state.path)) as node:
        evm = node.evm()
        for symbol in ("WETH", "wstETH"):
            price = DEFAULT_MARKET.asset(symbol).price_e8 // 2
            feeds.post(evm, market.deployer, market.asset(symbol).feed, price)
        below = [a for a in state.book if account_data(evm, market, a)[5] < WAD]
    assert 0.3 * len(state.book) <= len(below) < len(state.book)
    # Loops stand still while their two prices fall together; shorts gain.
    assert {a.profile for a in below}.isdisjoint({"staked eth loop", "eth short", "btc long"})


def test_traces_are_cut_out_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(b'{"a":[{"traces":[{"x":[1,2]},{"y":"0x"}],"exit":"Stop"},{"traces":[],"exit":"Stop"}]}')
    drop_traces(file)
    assert file.read_bytes() == b'{"a":[{"traces":[],"exit":"Stop"},{"traces":[],"exit":"Stop"}]}'
    file.write_bytes(b'{"traces":[1')
    with pytest.raises(DataError, match="not a state file"):
        drop_traces(file)
