"""One keeper on Aave V3.6 and two markets of Morpho Blue: on one chain, in one process, with one key."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from eth_abi.abi import decode as abi_decode

from contracts_abi import morpho_blue as abi
from contracts_abi.artifacts import compile_vyper
from contracts_abi.errors import InputError
from contracts_abi.liquidator import LIQUIDATE_FLASH, LIQUIDATE_MORPHO_FLASH
from keeper.commands.chain import COMPILED, local_market
from keeper.commands.keeper_init import init
from keeper.compose import connect
from keeper.config import Mode, load_config
from keeper.loop import HeadResult, plan_settings
from keeper.types import IntentState
from simulation.chain.evm import ZERO_ADDRESS, Tx, read
from simulation.chain.seed import SeededState, load_or_build
from simulation.chain.solc import ensure_protocol_toolchain
from simulation.types import Action, MarginStatus, Reason
from tests.keeper_bench import Running, Stage, running, staged

ACCOUNTS, ON_MORPHO, SEED = 24, 16, 5
# What the first version answered, and no more.
EARLIER = """
# pragma version 0.4.3
OWNER: public(immutable(address))
POOL: public(immutable(address))
MORPHO: public(immutable(address))
VERSION: public(constant(uint256)) = 1

@deploy
def __init__(pool: address):
    OWNER = msg.sender
    POOL = pool
    MORPHO = empty(address)
"""
AAVE = "aave-v3.6"


@pytest.fixture(scope="module")
def seeded() -> SeededState:
    ensure_protocol_toolchain(COMPILED)
    return load_or_build(ACCOUNTS, SEED, market=local_market(quick=False), morpho_accounts=ON_MORPHO)


@pytest.fixture
def stage(seeded: SeededState, tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path, state=seeded, kind=AAVE) as chain:
        yield chain


def names(stage: Stage) -> list[str]:
    """Return the names of the markets, as they follow from the chain."""
    assert stage.market.morpho is not None
    return [AAVE, *(f"morpho-blue:{market.id[2:10]}" for market in stage.market.morpho.markets)]


def step(keeper: Running) -> HeadResult:
    return keeper.keeper.work(keeper.tick())


def of(result: HeadResult, name: str) -> dict[str, tuple[Action, Reason]]:
    return {v.account: (v.action, v.reason) for v in result.verdicts if v.protocol_margin.protocol == name}


def sent(result: HeadResult) -> list[tuple[str, str]]:
    intents = result.submission.intents if result.submission else ()
    return [(intent.protocol, intent.account) for intent in intents]


def shared_borrower(stage: Stage) -> str:
    """Return somebody who borrows on Aave and in the first market of Morpho."""
    on_aave = {a.address for a in stage.book}
    return next(a.address for a in stage.morpho_book if a.address in on_aave)


# ---------------------------------------------------------------------------------------- what it is called


def test_every_market_is_read_under_its_own_name_at_one_block(stage: Stage) -> None:
    with running(stage) as keeper:
        result = step(keeper)
        assert list(keeper.keeper.markets) == names(stage)
        assert list(result.views.markets) == names(stage)
        assert {view.head for view in result.views.markets.values()} == {result.views.head}
        for name, view in result.views.markets.items():
            assert view.book.protocols == (name,)
            assert view.book.block == result.views.head.number
            expected = [a.address for a in stage.book]
            if name != AAVE:
                at = names(stage).index(name) - 1
                assert stage.market.morpho is not None
                market = stage.market.morpho.markets[at]
                expected = [a.address for a in stage.morpho_book if a.market == market.name]
                assert view.protocol.quote == market.loan
            assert sorted(view.book.accounts) == sorted(expected)
            assert sorted(keeper.journal.borrowers(name)) == sorted(expected)
        head = keeper.events("head")[-1]
        assert {n: c["borrowers"] for n, c in head["protocols"].items()} == {
            n: len(v.book) for n, v in result.views.markets.items()
        }
        assert head["borrowers"] == ACCOUNTS + ON_MORPHO


def test_margins_are_what_each_contract_says(stage: Stage) -> None:
    """Morpho compares collateral and debt in its loan token, whatever a dollar is."""
    with running(stage) as keeper:
        stage.fall(75, reference=False)
        keeper.keeper.audit_due.set()
        result = step(keeper)
        assert {e["protocol"]: e["missed"] for e in keeper.events("audit")} == {
            name: [] for name in names(stage)
        }
        morpho = stage.market.morpho
        assert morpho is not None
        seen = Counter(v.protocol_margin.status for v in result.verdicts)
        assert seen[MarginStatus.LIQUIDATABLE]
        assert seen[MarginStatus.HEALTHY]
        for name, market in zip(names(stage)[1:], morpho.markets, strict=True):
            price = read(stage.evm, abi.PRICE.call(market.oracle))
            for verdict in result.verdicts:
                margin = verdict.protocol_margin
                if margin.protocol != name:
                    continue
                position = abi.POSITION.call(morpho.address, bytes.fromhex(market.id[2:]), verdict.account)
                _, _, collateral_raw = read(stage.evm, position)
                carried = collateral_raw * price // 10**36 * market.lltv_wad // 10**18
                healthy = carried >= margin.components["borrowed_assets_raw"]
                assert healthy is (margin.status is MarginStatus.HEALTHY)


# --------------------------------------------------------------------------------------------------- acting


def test_it_liquidates_in_all_of_them_with_one_key_and_books_what_each_earned(stage: Stage) -> None:
    with running(stage, Mode.LIVE) as keeper:
        step(keeper)
        stage.fall(45)
        first = step(keeper)
        assert {name for name, _ in sent(first)} == set(names(stage))
        # One batch, one commit, nonces in a row, whichever market.
        assert len(stage.proxy.sent()) == len(sent(first))
        for _ in range(5):
            stage.mine()
            step(keeper)
        done = stage.liquidations()
        intents = {i.intent_id: i for i in keeper.journal.intents()}
        assert sorted("0x" + e.intent_id.hex() for e in done) == sorted(intents)
        assert {i.state for i in intents.values()} == {IntentState.CONFIRMED}
        assert [i.nonce for i in intents.values()] == list(range(len(intents)))
        for event in done:
            intent = intents["0x" + event.intent_id.hex()]
            market = keeper.keeper.markets[intent.protocol]
            assert market.adapter.venue == event.venue
            assert (intent.account, intent.debt_asset) == (event.user, event.debt)
            receipt = keeper.journal.receipt(intent.intent_id)
            assert receipt is not None
            assert receipt.realised_profit_raw == event.profit_raw > 0
        by_market = Counter(i.protocol for i in intents.values())
        assert set(by_market) == set(names(stage))
        assert {e["protocol"] for e in keeper.events("sent")} == set(names(stage))
        told = keeper.events("transaction")
        assert {(e["protocol"], e["account"]) for e in told} == {
            (i.protocol, i.account) for i in intents.values()
        }


@pytest.mark.parametrize("percent", [90, 88, 86, 45])
def test_the_journal_has_the_least_profit_that_the_contract_is_told(stage: Stage, percent: int) -> None:
    with running(stage, Mode.LIVE) as keeper:
        step(keeper)
        stage.fall(percent)
        result = step(keeper)
        assert sent(result)
        planned = {(p.protocol, p.account): p.min_profit_raw for p in result.decision.plans}
        for intent in keeper.journal.intents():
            function = LIQUIDATE_FLASH if intent.protocol == AAVE else LIQUIDATE_MORPHO_FLASH
            assert intent.data[:4] == function.selector
            *_, told, _ = abi_decode(function.inputs, intent.data[4:])
            assert intent.min_profit_raw == told == planned[intent.protocol, intent.account] > 0


def test_plans_of_all_markets_are_one_bundle_the_most_profitable_first(stage: Stage) -> None:
    with running(stage, Mode.OBSERVE) as keeper:
        step(keeper)
        stage.fall(45)
        plans = step(keeper).decision.plans
        assert len({plan.protocol for plan in plans}) == 3
        usd = {a.address: stage.price_e8(s) / 10**a.decimals for s, a in stage.market.assets.items()}
        values = [plan.net_profit_raw * usd[plan.debt_asset] for plan in plans]
        assert values == sorted(values, reverse=True)
        # Not market after market.
        order = [plan.protocol for plan in plans]
        assert order != sorted(order, key=names(stage).index)


def test_an_account_in_two_markets_is_two(stage: Stage) -> None:
    who = shared_borrower(stage)
    with running(stage, Mode.LIVE, limits={"allow_accounts": [who]}) as keeper:
        step(keeper)
        stage.fall(40)
        result = step(keeper)
        assert len(sent(result)) == len({name for name, _ in sent(result)}) == 2
        assert {account for _, account in sent(result)} == {who}
        # Under way in both; neither is planned for again, and each says so of itself.
        stage.anvil.rpc.call("anvil_dropAllTransactions")
        stage.mine()
        again = step(keeper)
        assert sent(again) == []
        for name, _ in sent(result):
            assert of(again, name)[who] == (Action.LEAVE, Reason.DUPLICATE)
        decided = {(d.protocol, d.account) for d in keeper.journal.decisions(who)}
        assert decided >= set(sent(result))


def test_prices_of_the_reference_hold_in_every_market(stage: Stage) -> None:
    with running(stage, Mode.LIVE) as keeper:
        step(keeper)
        stage.fall(45, reference=False)
        result = step(keeper)
        assert sent(result) == []
        for name in names(stage):
            held = [why for why in of(result, name).values() if why[0] is Action.HOLD]
            assert held
            assert set(held) == {(Action.HOLD, Reason.PROTOCOL_PRICE_LOW)}


def test_new_head_to_signed_transactions_is_three_round_trips_for_three_markets(stage: Stage) -> None:
    with running(stage, Mode.LIVE) as keeper:
        keeper.keeper.warm_up()
        step(keeper)
        stage.fall(45)
        stage.proxy.posts.clear()
        result = step(keeper)
        assert sent(result)
        assert result.round_trips <= 3
        kinds = [set(methods) for methods in stage.proxy.posts]
        assert kinds[1:] == [{"eth_getLogs"}, {"eth_call"}, {"eth_simulateV1"}, {"eth_sendRawTransaction"}]
        assert [len(methods) for methods in stage.proxy.posts if "eth_getLogs" in methods] == [1]


# -------------------------------------------------------------------------------------------------- unknown


def test_a_market_that_cannot_be_read_is_unknown_and_stops_no_other(stage: Stage) -> None:
    assert stage.market.morpho is not None
    broken = names(stage)[1]
    code = "0x" + stage.evm.code(stage.market.pool).hex()
    with running(stage, Mode.LIVE) as keeper:
        step(keeper)
        stage.fall(45)
        # The pool answers nothing any more.
        stage.anvil.rpc.call("anvil_setCode", [stage.market.pool, "0xfe"])
        stage.mine()
        result = step(keeper)
        assert list(result.views.unread) == [AAVE]
        assert {name for name, _ in sent(result)} == set(names(stage)[1:])
        (event,) = keeper.events("market_unknown")
        assert (event["protocol"], event["block"]) == (AAVE, stage.head())
        head = keeper.events("head")[-1]
        assert set(head["protocols"][AAVE]) == {"unknown"}
        assert head["protocols"][broken]["sent"] > 0

        stage.mine()
        step(keeper)
        assert len(keeper.events("market_unknown")) == 1  # said once
        stage.anvil.rpc.call("anvil_setCode", [stage.market.pool, code])
        stage.mine()
        result = step(keeper)
        assert [e["protocol"] for e in keeper.events("market_known")] == [AAVE]
        assert {name for name, _ in sent(result)} >= {AAVE}


def test_an_oracle_that_reverts_makes_only_its_own_market_unknown(stage: Stage) -> None:
    morpho = stage.market.morpho
    assert morpho is not None
    with running(stage, Mode.LIVE) as keeper:
        step(keeper)
        stage.fall(45)
        stage.anvil.rpc.call("anvil_setCode", [morpho.markets[0].oracle, "0xfe"])
        stage.mine()
        result = step(keeper)
        reasons = {reason for _, reason in of(result, names(stage)[1]).values()}
        assert reasons <= {Reason.PROTOCOL_UNKNOWN}
        assert reasons
        assert {name for name, _ in sent(result)} == {AAVE, names(stage)[2]}


# --------------------------------------------------------------------------------------------- others' tokens


def test_swaps_keep_to_the_markets_own_tokens_and_what_is_configured(stage: Stage) -> None:
    assert stage.market.morpho is not None
    weth, wbtc = (stage.market.asset(symbol).address for symbol in ("WETH", "WBTC"))
    alone = stage.protocols()[1:2]
    (market,) = (m for m in stage.market.morpho.markets if m.id == alone[0]["market"])
    assert "WBTC" not in (market.loan, market.collateral)
    with running(stage, Mode.LIVE) as keeper:
        step(keeper)
        stage.fall(45)
        for plan in step(keeper).decision.plans:
            if plan.protocol == AAVE:
                continue
            own = {asset.address for asset in keeper.keeper.markets[plan.protocol].assets}
            assert {t for hop in plan.path for t in (hop.token_in, hop.token_out)} <= own | {weth}
    references = {"references": {}, "protocols": alone}
    for through in ([], [wbtc]):
        router = {
            "factory": stage.market.uniswap.factory,
            "router": stage.market.uniswap.router,
            "intermediates": through,
        }
        connected = stage.connected(router=router, **references)
        tokens = {token for pool in connected.pools for token in (pool.token0, pool.token1)}
        assert (wbtc in tokens) is bool(through)
        settings = plan_settings(connected.config, connected.assets, 1, {})
        assert settings.swap_tokens == {weth, *through}
    with pytest.raises(InputError, match=r"router\.intermediates\.0: no code at"):
        stage.connected(router=router | {"intermediates": ["0x" + "11" * 20]}, **references)


# ----------------------------------------------------------------------------------------- later, and twice


def test_a_market_that_joins_later_is_filled_back_by_itself(stage: Stage) -> None:
    tables = stage.protocols()
    with running(stage, protocols=tables[:1]) as keeper:
        step(keeper)
    stage.mine(3)
    with running(stage, protocols=tables) as keeper:
        result = step(keeper)
        assert result.views.borrowers == ACCOUNTS + ON_MORPHO
        stage.mine()
        stage.proxy.posts.clear()
        step(keeper)
        assert sum(methods.count("eth_getLogs") for methods in stage.proxy.posts) == 1


def test_a_reorganisation_rewinds_every_market(stage: Stage) -> None:
    with running(stage) as keeper:
        step(keeper)
        stage.mine(2)
        step(keeper)
        stage.replace(2)
        result = step(keeper)
        (event,) = keeper.events("reorganisation")
        assert event["common_ancestor"] < result.views.head.number
        for name in names(stage):
            assert keeper.journal.scan_state(name).block == result.views.head.number


def test_two_markets_of_one_version_need_a_label_and_keep_apart(stage: Stage) -> None:
    tables = stage.protocols()
    config = stage.config(protocols=[tables[1], {**tables[1]}])
    with pytest.raises(InputError, match=r"protocols\.1: the same market as protocols\.0, morpho-blue:"):
        connect(config)
    labelled = stage.config(protocols=[{**tables[0], "label": "main"}])
    (market,) = connect(labelled).markets
    assert market.name == "aave-v3.6:main"
    view = connect(labelled).reader().read(connect(labelled).head, [stage.book[0].address])
    assert view.book.protocols == ("aave-v3.6:main",)


def test_a_liquidator_that_does_not_serve_a_market_is_refused(stage: Stage) -> None:
    code = stage.evm.code(stage.liquidator)
    morpho = stage.market.morpho
    assert morpho is not None
    patched = code.replace(bytes.fromhex(morpho.address[2:]), bytes.fromhex(ZERO_ADDRESS[2:]))
    assert patched != code
    stage.evm.set_code(stage.liquidator, patched)
    stage.mine()
    with pytest.raises(InputError, match=r"liquidates in 0x\w+; the market of protocols\.1, morpho-blue:"):
        stage.connected()


def test_a_liquidator_of_another_version_is_refused(stage: Stage) -> None:
    """What this keeper leaves to the contract, an earlier one does not do."""
    earlier = compile_vyper("Earlier", EARLIER).creation_code(stage.market.pool)
    for liquidator in (stage.evm.create(stage.market.deployer, earlier), stage.market.pool):
        with pytest.raises(InputError, match="not our Liquidator, or is one of another version than 2"):
            stage.connected(contracts={"liquidator": liquidator})


def test_a_symbol_that_names_two_tokens_is_no_reference(stage: Stage) -> None:
    from keeper.compose import _one_token, _symbols

    markets = stage.connected().markets
    other = replace(markets[1].assets[0], address="0x" + "11" * 20)
    symbols = _symbols([markets[0], replace(markets[1], assets=(other,))])
    with pytest.raises(InputError, match=r"references\.USDC: the markets have different tokens of that name"):
        _one_token("references.USDC", "USDC", symbols)
    _one_token("references.WETH", "WETH", symbols)


# ----------------------------------------------------------------------------------------------------- init


def test_init_finds_both_and_what_it_writes_connects(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    morpho = stage.market.morpho
    assert morpho is not None
    config = tmp_path / "written.toml"
    init(
        rpc_url=stage.proxy.url,
        provider=stage.market.provider,
        config_file=config,
        uniswap_factory=stage.market.uniswap.factory,
        router=stage.market.uniswap.router,
        reference=tuple(f"{s}={a.reference_feed}" for s, a in stage.market.assets.items()),
        keystore=None,
        password_file=None,
        receiver=None,
        deploy=False,
        as_json=True,
        morpho=morpho.address,
        morpho_markets=tuple(market.id for market in morpho.markets),
    )
    told = json.loads(capsys.readouterr().out)
    assert told["protocols"] == [AAVE, "morpho-blue", "morpho-blue"]
    assert [market.name for market in connect(load_config(config)).markets] == names(stage)
    with pytest.raises(InputError, match="--morpho and --morpho-market go together"):
        init_with(stage, tmp_path / "a.toml", morpho=morpho.address, morpho_markets=())
    with pytest.raises(InputError, match=r"--morpho-market: .* has no market"):
        init_with(stage, tmp_path / "b.toml", morpho=morpho.address, morpho_markets=("0x" + "11" * 32,))
    with pytest.raises(InputError, match="--morpho-market: not a market id"):
        init_with(stage, tmp_path / "c.toml", morpho=morpho.address, morpho_markets=("0x12",))


def init_with(stage: Stage, config: Path, *, morpho: str, morpho_markets: tuple[str, ...]) -> None:
    init(
        rpc_url=stage.proxy.url,
        provider=None,
        config_file=config,
        uniswap_factory=None,
        router=None,
        reference=(),
        keystore=None,
        password_file=None,
        receiver=None,
        deploy=False,
        as_json=True,
        morpho=morpho,
        morpho_markets=morpho_markets,
    )


def test_unrelated_logs_of_morpho_bring_nobody(stage: Stage) -> None:
    """A market that is not watched has borrowers too."""
    morpho = stage.market.morpho
    assert morpho is not None
    with running(stage, protocols=stage.protocols()[:2]) as keeper:
        step(keeper)
        second = morpho.markets[1]
        borrower = next(a for a in stage.morpho_book if a.market == second.name)
        words = (
            stage.market.asset(second.loan).address,
            stage.market.asset(second.collateral).address,
            second.oracle,
            second.irm,
            second.lltv_wad,
        )
        who = borrower.address
        stage.send(Tx(who, morpho.address, abi.BORROW.encode(words, 1_000, 0, who, who)))
        before = keeper.journal.borrowers(names(stage)[1])
        step(keeper)
        assert keeper.journal.borrowers(names(stage)[1]) == before
        assert keeper.journal.borrowers(names(stage)[2]) == []
