"""Several markets in one keeper, and what goes wrong in one of them: the others must not notice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from contracts_abi import aave_v3
from contracts_abi.calls import function
from keeper.clock import ManualClock
from keeper.commands.chain import COMPILED, local_market
from keeper.config import Mode
from keeper.journal import Loss
from keeper.loop import HeadResult
from keeper.types import AttemptKind
from simulation.chain.evm import Tx, labelled_address
from simulation.chain.seed import SeededState, load_or_build
from simulation.chain.solc import ensure_protocol_toolchain
from simulation.types import Action, LiquidationPlan, Reason
from tests.keeper_bench import Running, Stage, running, staged

ACCOUNTS, ON_MORPHO, SEED = 24, 16, 5
AAVE = "aave-v3.6"
MINT = function("mint(address,uint256)")


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


def sent(result: HeadResult) -> set[str]:
    """Return the markets that something was sent to."""
    return {intent.protocol for intent in result.submission.intents} if result.submission else set()


def lose(keeper: Running, monkeypatch: pytest.MonkeyPatch, losses: Sequence[Loss]) -> None:
    """Let the journal tell of losses."""
    monkeypatch.setattr(keeper.journal, "losses", lambda since_timestamp: list(losses))


def reverts(keeper: Running, name: str, count: int) -> list[Loss]:
    """Return reverts in a market within the last minute, each of somebody who borrows nothing now."""
    head = keeper.tick().head
    return [
        Loss(f"0x{i:040x}", name, AttemptKind.ACTION, head.number, head.timestamp, 10**12)
        for i in range(count)
    ]


def test_races_lost_in_one_market_stop_nobody_in_another(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, *others = names(stage)[1], names(stage)[0], names(stage)[2]
    with running(stage, Mode.LIVE) as keeper:
        step(keeper)
        stage.fall(45)
        lose(keeper, monkeypatch, reverts(keeper, bad, 100))
        result = step(keeper)
        assert sent(result) == set(others)
        stopped = {
            (v.action, v.reason)
            for v in result.verdicts
            if v.protocol_margin.protocol == bad and v.detail.startswith("max_reverts_per_hour: 100 reverts")
        }
        assert stopped == {(Action.HOLD, Reason.LIMIT)}
        # Told of once a head, and by the market's name.
        (told,) = keeper.events("limit")
        assert (told["limit"], told["protocol"]) == ("max_reverts_per_hour", bad)


def test_a_ceiling_over_all_markets_stops_a_keeper_that_fails_everywhere(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(stage, Mode.LIVE, limits={"max_reverts_per_hour_in_all": 150}) as keeper:
        step(keeper)
        stage.fall(45)
        lose(keeper, monkeypatch, [loss for name in names(stage)[:2] for loss in reverts(keeper, name, 75)])
        assert sent(step(keeper)) == set()
        (told,) = keeper.events("limit")
        assert told["limit"] == "max_reverts_per_hour_in_all"
        assert "protocol" not in told


def test_a_market_that_stays_unknown_is_told_of_again(stage: Stage) -> None:
    with running(stage) as keeper:
        clock = keeper.keeper.clock = ManualClock()
        step(keeper)
        code = "0x" + stage.evm.code(stage.market.pool).hex()
        stage.anvil.rpc.call("anvil_setCode", [stage.market.pool, "0xfe"])
        told: list[int] = []
        for _ in range(2):
            stage.mine()
            step(keeper)
            stage.mine()
            step(keeper)
            told.append(len(keeper.events("market_unknown")))
            clock.advance(keeper.keeper.config.alerts.repeat_after_s)
        assert told == [1, 2]
        stage.anvil.rpc.call("anvil_setCode", [stage.market.pool, code])
        stage.mine()
        step(keeper)
        assert len(keeper.events("market_known")) == 1
        # When it comes back it is told at once.
        stage.anvil.rpc.call("anvil_setCode", [stage.market.pool, "0xfe"])
        stage.mine()
        step(keeper)
        assert len(keeper.events("market_unknown")) == 3


# ----------------------------------------------------------------------------- what moved before it was mined


def test_a_price_that_falls_on_before_it_is_mined_fails_no_liquidation_on_morpho(stage: Stage) -> None:
    """Debts that were planned to be repaid whole have outgrown their collateral when it is their turn."""
    with running(stage, Mode.LIVE) as keeper:
        step(keeper)
        stage.fall(86)
        planned = {(p.protocol, p.account): p for p in step(keeper).decision.plans}
        stage.anvil.rpc.call("anvil_dropAllTransactions")
        # By Ether alone, and further than any room that was left for it before.
        stage.post({"WETH": stage.price_e8("WETH") * 90 // 100})
        stage.anvil.rpc.batch([("eth_sendRawTransaction", [raw]) for raw in stage.proxy.sent()])
        stage.mine()
        first = keeper.journal.intents()
        step(keeper)
        on_morpho = [i for i in first if i.protocol != AAVE]
        receipts = {i.account: keeper.journal.receipt(i.intent_id) for i in on_morpho}
        assert {receipt is not None and receipt.success for receipt in receipts.values()} == {True}
        whole = [i.account for i in on_morpho if planned[i.protocol, i.account].full]
        ended = {
            event.user: event for event in stage.liquidations() if event.venue.address != stage.market.pool
        }
        more = [a for a in whole if ended[a].collateral_seized_raw > planned_of(planned, a).seized_raw]
        assert len(whole) >= 2
        assert more


def planned_of(planned: Mapping[tuple[str, str], LiquidationPlan], account: str) -> LiquidationPlan:
    (plan,) = (p for (name, who), p in planned.items() if who == account and name != AAVE)
    return plan


def test_from_inventory_exactly_what_is_owed_is_enough(stage: Stage) -> None:
    """Interest and rounding make it a unit more by the time that it is mined."""
    with running(stage, Mode.OBSERVE, execution={"funding": "inventory"}, journal="look.sqlite") as looking:
        step(looking)
        stage.fall(86)
        for token in {a.address for m in looking.keeper.markets.values() for a in m.assets}:
            fund(stage, token, 10**30)
        plans = step(looking).decision.plans
        plan = next(p for p in plans if p.protocol != AAVE and p.full)
        for token in {a.address for m in looking.keeper.markets.values() for a in m.assets}:
            fund(stage, token, plan.debt_to_cover_raw if token == plan.debt_asset else 0)
    only = {"allow_accounts": [plan.account]}
    with running(stage, Mode.LIVE, execution={"funding": "inventory"}, limits=only) as keeper:
        result = step(keeper)
        assert sent(result) == {plan.protocol}
        stage.mine()
        step(keeper)
        (intent,) = keeper.journal.intents()
        receipt = keeper.journal.receipt(intent.intent_id)
        assert receipt is not None
        assert receipt.success
        (done,) = stage.liquidations()
        assert done.user == plan.account
        assert 0 <= plan.debt_to_cover_raw - done.debt_covered_raw <= plan.debt_to_cover_raw // 10**6


def fund(stage: Stage, token: str, amount: int) -> None:
    """Let the owner have an amount of a token, and allow the contract so much."""
    held = int(stage.read(aave_v3.BALANCE_OF.call(token, stage.owner)))
    if held > amount:
        away = aave_v3.TRANSFER.encode(labelled_address("elsewhere"), held - amount)
        stage.send(Tx(stage.owner, token, away))
    elif held < amount:
        stage.send(Tx(stage.market.deployer, token, MINT.encode(stage.owner, amount - held)))
    stage.send(Tx(stage.owner, token, aave_v3.APPROVE.encode(stage.liquidator, amount)))
