"""The demo's parts: the world moves as the scenario says, and the verifier sees what it is there to see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from contracts_abi import aave_v3 as aave
from contracts_abi.liquidator import Liquidated, Venue, flash_calldata
from keeper.commands.chain import COMPILED, local_market
from keeper.demo.chaos import falling_market, read_trace
from keeper.demo.facts import AccountFacts, BlockFacts, MinedLiquidation
from keeper.demo.run import Stage, staged
from keeper.demo.verify import (
    KeeperClaim,
    Verification,
    Verifier,
    VerifyJob,
    _at_most_once,
    _doubted_prices,
    _waits,
)
from oracle.scenario import Scenario, load_scenario
from simulation.amm.uniswap_v3 import encode_path
from simulation.chain.evm import read
from simulation.chain.rpc import hexed, quantity
from simulation.chain.seed import SeededState, load_or_build
from simulation.chain.solc import ensure_protocol_toolchain
from simulation.fixed_point import WAD
from simulation.types import SwapHop

ACCOUNTS = 60
SEED = 4


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return load_scenario("black-thursday-2020-03-12")


@pytest.fixture(scope="module")
def seeded() -> SeededState:
    """Return what the demo itself starts from: Aave V3.6 and two markets of Morpho Blue."""
    ensure_protocol_toolchain(COMPILED)
    return load_or_build(ACCOUNTS, SEED, market=local_market(quick=False), morpho_accounts=ACCOUNTS // 3)


@pytest.fixture
def stage(seeded: SeededState, scenario: Scenario, tmp_path: Path) -> Iterator[Stage]:
    with staged(seeded, scenario, tmp_path) as ready:
        yield ready


def test_the_quick_choice_is_the_prebuilt_version_alone(scenario: Scenario, tmp_path: Path) -> None:
    quick = load_or_build(ACCOUNTS, SEED, market=local_market(quick=True))
    assert quick.deployment.morpho is None
    with staged(quick, scenario, tmp_path) as stage:
        (block,) = crash(stage, scenario, 1)
        verifier, found = verify(stage, block, block)
        assert verifier._facts.protocols == ("aave-v3",)
        assert found.protocols["aave-v3"].borrowers == len(quick.book)
        assert 'kind = "aave-v3"' in stage.config.read_text(encoding="utf-8")


def verify(
    stage: Stage, first: int, last: int, claims: tuple[KeeperClaim, ...] = ()
) -> tuple[Verifier, Verification]:
    verifier = Verifier(
        VerifyJob(
            rpc_url=stage.node.url,
            deployment=stage.deployment.to_json(),
            liquidator=stage.liquidator,
            owner=stage.owner,
            first_block=first,
            last_block=last,
            tolerance_bps=100,
            min_profit_usd=1,
            claims=claims,
        )
    )
    return verifier, verifier.run()


def crash(stage: Stage, scenario: Scenario, until: int) -> list[int]:
    """Play the first steps without a keeper; return their blocks."""
    return [stage.world.step(t).block for t in scenario.steps()[:until]]


def test_the_world_posts_by_the_feeds_rule_and_trades_every_pool_to_the_true_price(
    stage: Stage, scenario: Scenario
) -> None:
    blocks = crash(stage, scenario, 11)
    at = scenario.steps()[10]
    truth = stage.world.truth_e8(at)
    weth = stage.deployment.assets["WETH"].address
    evm = stage.node.evm()
    # 11:30: the frozen feed has just spoken again; its deviation threshold is half a per cent.
    posted = read(evm, aave.GET_ASSET_PRICE.call(stage.deployment.oracle, weth))
    assert abs(posted - truth["WETH"]) * 200 <= truth["WETH"]
    _, found = verify(stage, blocks[0], blocks[-1])
    last = found.blocks[-1]
    assert last.timestamp == at
    for symbol, price in truth.items():
        executable = last.executable_e8[symbol]
        assert executable is not None
        assert abs(executable - price) <= price // 10_000
    # While it was frozen the protocol stood still and the reference fell.
    frozen = [b for b in found.blocks if scenario.steps()[5] <= b.timestamp < at]
    assert len({b.protocol_e8["WETH"] for b in frozen}) == 1
    assert len({b.reference_e8["WETH"] for b in frozen}) > 1


def test_without_a_keeper_the_verifier_finds_the_accounts_that_stayed(
    stage: Stage, scenario: Scenario
) -> None:
    blocks = crash(stage, scenario, 14)
    _, found = verify(stage, blocks[0], blocks[-1])
    cleared = found.invariants["cleared_within_two_blocks"]
    assert cleared.broken
    assert not cleared.ok
    named = {case.partition(" at block ")[0] for case in cleared.broken}
    assert named <= set(found.liquidatable)
    # Accounts stayed in every market, and each says so of itself.
    assert {who.split()[0] for who in named} == set(found.protocols)
    by_market = [counts.invariants["cleared_within_two_blocks"] for counts in found.protocols.values()]
    assert sum(len(invariant.broken) for invariant in by_market) == len(cleared.broken)
    assert sum(invariant.checked for invariant in by_market) == cleared.checked
    # Nobody did anything, so nothing else can be wrong.
    assert all(i.ok for name, i in found.invariants.items() if name != "cleared_within_two_blocks")
    assert found.waits
    assert all(w.acted_block is None for w in found.waits)


def test_a_liquidation_that_is_in_no_journal_or_against_the_reference_breaks_the_policy(
    stage: Stage, scenario: Scenario
) -> None:
    blocks = crash(stage, scenario, 11)
    verifier, before = verify(stage, blocks[0], blocks[-1])
    due = [who for who, numbers in before.liquidatable.items() if blocks[-1] in numbers]
    protocol, account = next(who.split() for who in due if who.startswith("aave-v3.6 "))
    place = (protocol, account)
    facts = verifier._facts.block(blocks[-1], [place])
    best = max(
        verifier._trials(facts, place),
        key=lambda t: facts.accounts[place].debt_raw[t.debt] == t.amount_raw,
    )
    assets = stage.deployment.assets
    intent = b"by hand".ljust(32, b"\0")
    data = flash_calldata(
        intent_id=intent,
        collateral=assets[best.collateral].address,
        debt=assets[best.debt].address,
        user=account,
        debt_to_cover_raw=best.amount_raw,
        path=verifier._path(assets[best.collateral].address, assets[best.debt].address),
        min_profit_raw=0,
        deadline_block=2**63,
    )
    send = {"from": stage.owner, "to": stage.liquidator, "data": hexed(data), "gas": quantity(2_000_000)}
    stage.node.rpc.call("eth_sendTransaction", [send | {"maxFeePerGas": quantity(10**12)}])
    mined = stage.world.mine(scenario.steps()[10] + 60)

    _, without = verify(stage, blocks[0], mined)
    (row,) = without.liquidations
    assert (row.block, row.protocol, row.account) == (mined, protocol, account)
    assert row.profit_raw == row.resimulated_profit_raw
    assert without.invariants["profit_equals_resimulation"].ok
    assert without.invariants["policy_obeyed"].broken == (f"{hexed(intent)}: not in the journal",)

    claim = KeeperClaim(
        intent_id=hexed(intent),
        protocol=protocol,
        account=account,
        simulated_profit_raw=1,
        decided_block=blocks[-1],
    )
    _, known = verify(stage, blocks[0], mined, (claim,))
    assert known.invariants["policy_obeyed"].ok
    early = claim.model_copy(update={"decided_block": blocks[0]})
    _, against = verify(stage, blocks[0], mined, (early,))
    assert against.invariants["policy_obeyed"].broken == (
        f"{protocol} {account} decided on block {blocks[0]}",
    )
    elsewhere = claim.model_copy(update={"protocol": "morpho-blue:00000000"})
    _, other = verify(stage, blocks[0], mined, (elsewhere,))
    assert "the journal has morpho-blue:00000000" in other.invariants["policy_obeyed"].broken[0]
    # Decided on when it was so well that no reference was computed: nothing confirms that it was due.
    numbers = {b.number: b for b in [verifier._facts.block(n, [place]) for n in (*blocks, mined)]}
    well = replace(numbers[blocks[-1]].accounts[place], reference_hf=None)
    numbers[blocks[-1]] = replace(numbers[blocks[-1]], accounts={place: well})
    again = Verifier(verifier._job.model_copy(update={"claims": (claim,)}))
    obeyed = again._policy_obeyed(list(numbers.values()), numbers)
    assert obeyed.broken == (f"{protocol} {account} was well on block {blocks[-1]}",)


def test_a_liquidation_is_booked_on_the_market_that_it_was_in_and_on_no_other(
    stage: Stage, scenario: Scenario
) -> None:
    (block,) = crash(stage, scenario, 1)
    facts = verify(stage, block, block)[0]._facts
    deployment = stage.deployment
    assert deployment.morpho is not None
    venues = [Venue(deployment.pool)]
    venues += [Venue(deployment.morpho.address, bytes.fromhex(m.id[2:])) for m in deployment.morpho.markets]
    assert [facts.protocol_of(venue) for venue in venues] == list(facts.protocols)
    # Anybody can open a market on Morpho; one that nobody knows is not Aave.
    for foreign in (
        Venue(deployment.morpho.address, b"\1" * 32),
        Venue(deployment.morpho.address),
        Venue(deployment.pool, venues[1].market),
        Venue(stage.liquidator),
    ):
        assert facts.protocol_of(foreign) not in facts.protocols
        assert facts.protocol_of(foreign).startswith(foreign.address)


def test_a_liquidation_in_a_market_that_nobody_knows_breaks_the_policy_and_stops_no_other_check(
    stage: Stage, scenario: Scenario
) -> None:
    blocks = crash(stage, scenario, 11)
    verifier, before = verify(stage, blocks[0], blocks[-1])
    due = [who for who, numbers in before.liquidatable.items() if blocks[-1] in numbers]
    protocol, account = next(who.split() for who in due if who.startswith("morpho-blue:"))
    facts = verifier._facts.block(blocks[-1], [(protocol, account)])
    trial = next(t for t in verifier._trials(facts, (protocol, account)) if not t.whole)
    data = verifier._calldata(replace(trial, amount_raw=trial.amount_raw // 10))
    send = {"from": stage.owner, "to": stage.liquidator, "data": hexed(data), "gas": quantity(2_000_000)}
    stage.node.rpc.call("eth_sendTransaction", [send | {"maxFeePerGas": quantity(10**12)}])
    mined = stage.world.mine(scenario.steps()[10] + 60)

    deployment = stage.deployment
    assert deployment.morpho is not None
    known = tuple(m for m in deployment.morpho.markets if m.id[2:10] != protocol.partition(":")[2])
    fewer = replace(deployment, morpho=replace(deployment.morpho, markets=known))
    blind = Verifier(verifier._job.model_copy(update={"deployment": fewer.to_json(), "last_block": mined}))
    found = blind.run()
    obeyed = found.invariants["policy_obeyed"]
    assert not obeyed.ok
    (case,) = obeyed.broken
    assert account in case
    assert "which is no market here" in case
    assert found.invariants["each_intent_at_most_once"].checked == obeyed.checked == 1
    # The other checks went on, and it is booked on nobody.
    assert found.liquidations == ()
    assert set(found.protocols) == set(before.protocols) - {protocol}
    assert all(counts.invariants["policy_obeyed"].ok for counts in found.protocols.values())
    assert found.invariants["cleared_within_two_blocks"].checked > 0


# ----------------------------------------------------------------------------------------- without a chain


def facts_of(number: int, account: AccountFacts, *, price: int = 100, liquidated: bool = False) -> BlockFacts:
    event = Liquidated(b"\1" * 32, "0xA", Venue("0xB"), "0xC", "0xD", 1, 1, 1)
    mined = (MinedLiquidation("p", event, "0x00", 1, 1),) if liquidated else ()
    prices = {"WETH": price}
    return BlockFacts(number, number * 900, 0, prices, prices, prices, {("p", "0xA"): account}, mined)


HEALTHY = AccountFacts(200, 100, 2 * WAD, Fraction(2), 100)
DUE_AT_REFERENCE = AccountFacts(200, 100, 2 * WAD, Fraction(9, 10), 90)
LIQUIDATABLE = AccountFacts(110, 100, WAD - 1, Fraction(8, 10), 60)


def test_an_intent_that_was_executed_twice_is_found() -> None:
    once = [facts_of(1, HEALTHY, liquidated=True), facts_of(2, HEALTHY)]
    assert _at_most_once(once).ok
    twice = [*once, facts_of(3, HEALTHY, liquidated=True)]
    assert not _at_most_once(twice).ok


def test_a_wait_lasts_from_due_to_the_first_liquidation_after_it_was_allowed() -> None:
    blocks = [
        facts_of(1, HEALTHY),
        facts_of(2, DUE_AT_REFERENCE),
        facts_of(3, replace(DUE_AT_REFERENCE, reference_equity_base=80)),
        facts_of(4, LIQUIDATABLE),
        facts_of(5, HEALTHY, liquidated=True),
    ]
    (wait,) = _waits(blocks)
    assert (wait.armed_block, wait.allowed_block, wait.acted_block, wait.cost_usd_e8) == (2, 4, 5, 30)


def test_a_jump_is_doubted_until_time_explains_it() -> None:
    prices = [100, 86, 86, 97]
    blocks = [facts_of(i, HEALTHY, price=p) for i, p in enumerate(prices)]
    # 14 % in a quarter of an hour is more than 10 % and 6 % times the root of a quarter; in half an hour the
    # limit is 14.2 %. From 86 back to 97 is 11 %.
    assert [bool(_doubted_prices(blocks)[i]) for i in range(4)] == [False, True, False, False]


def test_a_send_that_overtakes_the_journal_is_seen_in_the_trace() -> None:
    write = '7 pwrite64(9</tmp/keeper-journal.sqlite-wal>, "\\0", 4096, 0) = 4096'
    sync = "7 fdatasync(9</tmp/keeper-journal.sqlite-wal>) = 0"
    send = '7 sendto(5<socket:[1]>, "POST / [{eth_sendRawTransaction", 200, 0) = 200'
    other = '7 sendto(5<socket:[1]>, "POST / [{eth_call", 200, 0) = 200'
    good = read_trace([write, sync, other, send, send, write, sync, send])
    assert (good.sends, good.unsynced) == (3, 0)
    assert read_trace([write, send]).unsynced == 1
    assert read_trace([write, sync, write, send, sync]).unsynced == 1
    # A journal that was never written cannot hold what is sent.
    assert read_trace([send]).unsynced == 1


def test_the_falling_market_falls_with_every_step() -> None:
    falling = falling_market(5)
    assert len(falling.steps()) == 6


def test_the_verifier_takes_the_direct_pool(stage: Stage, scenario: Scenario) -> None:
    (block,) = crash(stage, scenario, 1)
    verifier, _ = verify(stage, block, block)
    pool = stage.deployment.uniswap.pools[0]
    hop = SwapHop(pool.address, pool.token0, pool.token1, pool.fee_pips)
    assert verifier._path(pool.token0, pool.token1) == encode_path([hop])
