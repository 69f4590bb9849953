"""The loop against a node that fails: what cannot be read is not acted on, and a later look mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from contracts_abi.errors import JournalError, RpcUnavailable
from keeper.asked import Asked
from keeper.commands.keeper_alerts import alert_of
from keeper.config import Mode
from keeper.execute import PricedPlan
from keeper.loop import MOST_REFUSED, HeadResult
from keeper.types import IntentState
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.protocols.aave_v3 import AaveV3
from simulation.types import Reason
from tests.faults.proxy import Spoil
from tests.keeper_bench import E8, Running, Stage, running, seeded, staged

READS = ("eth_feeHistory", "eth_getLogs", "eth_call", "eth_simulateV1")
"""One method of each round trip at a head: the look at it, discovery, the view, the simulation."""

SLOT0_UNLOCKED_BIT = 240
"""Of slot 0 in UniswapV3Pool: price, tick, three oracle counters, fee protocol, then the lock."""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as chain:
        yield chain


def settled(keeper: Running) -> Running:
    keeper.keeper.work(keeper.tick())
    return keeper


def borrowers(stage: Stage) -> set[str]:
    return {account.address for account in stage.book}


def finish(stage: Stage, keeper: Running) -> None:
    """Mine and work until nothing is under way, then check that the chain has each intent once."""
    for _ in range(15):
        stage.mine()
        result = keeper.keeper.work(keeper.tick())
        if not keeper.journal.open_intents() and not result.decision.plans:
            break
    assert not keeper.journal.open_intents()
    done = sorted("0x" + event.intent_id.hex() for event in stage.liquidations())
    confirmed = keeper.journal.intents([IntentState.CONFIRMED])
    assert done == sorted(intent.intent_id for intent in confirmed)
    assert len(done) >= 8


# ------------------------------------------------------------------------------------------ unreadable heads


@pytest.mark.parametrize("method", READS)
@pytest.mark.parametrize(
    "spoil",
    [Spoil.LOSE_REQUEST, Spoil.LOSE_REPLY, Spoil.HTTP_429, Spoil.TRUNCATED, Spoil.NULL, Spoil.BAD_HEX],
)
def test_head_that_cannot_be_read_is_trouble_and_the_next_look_makes_it_good(
    stage: Stage, method: str, spoil: Spoil
) -> None:
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        stage.fall(60)
        head = stage.head()
        known = keeper.borrowers
        stage.proxy.spoil(spoil, method)
        keeper.run_until(lambda: bool(keeper.events("trouble")))
        assert stage.proxy.sent() == []
        assert keeper.journal.intents() == []
        assert keeper.borrowers == known
        assert set(known) == borrowers(stage)

        keeper.run_until(lambda: bool(keeper.events("sent")))
        assert len(keeper.events("trouble")) == 1
        # The same head, which nobody had worked on yet.
        assert {e["block"] for e in keeper.events("sent")} == {head}
        assert keeper.borrowers == known
        finish(stage, keeper)


def test_node_that_is_down_for_a_while_is_told_once_and_nobody_is_forgotten(stage: Stage) -> None:
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        new = stage.borrow("while down")[0]
        stage.fall(60)
        stage.proxy.spoil(Spoil.HTTP_500, "eth_feeHistory", times=6)
        keeper.run_until(lambda: bool(keeper.events("recovered")))
        assert len(keeper.events("trouble")) == 1
        assert keeper.events("recovered")[0]["failures"] == 6
        assert set(keeper.borrowers) == {*borrowers(stage), new}
        assert keeper.events("sent")
        finish(stage, keeper)


def test_answer_that_never_comes_holds_nothing_up_for_long(stage: Stage) -> None:
    with running(stage, Mode.LIVE, rpc={"timeout_s": 0.3}) as keeper:
        settled(keeper)
        stage.fall(60)
        stage.proxy.spoil(Spoil.HANG, "eth_simulateV1")
        keeper.run_until(lambda: bool(keeper.events("sent")), timeout_s=5)
        assert len(keeper.events("trouble")) == 1
        assert "no answer within 0.3 s" in keeper.events("trouble")[0]["error"]


def test_trouble_in_observe_mode_sends_nothing_either(stage: Stage) -> None:
    with running(stage) as keeper:
        settled(keeper)
        stage.fall(60)
        for method in READS[:3]:
            stage.proxy.spoil(Spoil.LOSE_REPLY, method)
        keeper.run_until(lambda: bool(keeper.events("head")[1:]))
        assert not [method for method, _ in stage.proxy.seen if method.startswith("eth_send")]
        assert Reason.OBSERVE_ONLY.value in keeper.events("head")[-1]["reasons"]


def test_node_behind_the_one_that_named_the_head_is_refused(stage: Stage) -> None:
    """Two nodes behind one address, one of them some blocks behind."""
    with (
        running(stage, Mode.LIVE) as keeper,
        Anvil.start(AnvilOptions(load_state=seeded().path, mining=False)) as behind,
    ):
        settled(keeper)
        stage.fall(60)
        ahead = stage.proxy.target
        behind_for: tuple[str, ...] = ("eth_getLogs", "eth_call")
        stage.proxy.before = lambda methods: setattr(
            stage.proxy, "target", behind.url if methods[0] in behind_for else ahead
        )
        keeper.run_until(lambda: bool(keeper.events("trouble")))
        assert stage.proxy.sent() == []
        # It knows the block by now, and only the view comes from the other.
        behind_for = ("eth_call",)
        assert not keeper.run_for(lambda: bool(keeper.events("sent")), timeout_s=0.5)
        assert stage.proxy.sent() == []
        behind_for = ()
        keeper.run_until(lambda: bool(keeper.events("sent")))
        assert set(keeper.borrowers) == borrowers(stage)


# ------------------------------------------------------------------------------------------- lost on the way


@pytest.mark.parametrize("spoil", [Spoil.LOSE_REQUEST, Spoil.LOSE_REPLY, Spoil.HTTP_500, Spoil.TWICE])
def test_send_without_an_answer_is_executed_once(stage: Stage, spoil: Spoil) -> None:
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        stage.fall(60)
        stage.proxy.spoil(spoil, "eth_sendRawTransaction")
        first = keeper.keeper.work(keeper.tick())
        assert first.submission is not None
        finish(stage, keeper)
        # Whatever was handed over again were the same bytes.
        raw = stage.proxy.sent()
        assert len(set(raw)) == len(keeper.journal.intents())


def test_what_is_under_way_is_looked_after_although_no_head_can_be_read(stage: Stage) -> None:
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        stage.fall(60)
        keeper.keeper.work(keeper.tick())
        count = len(stage.proxy.sent())
        stage.anvil.rpc.call("anvil_dropAllTransactions")
        stage.mine(3)
        stage.proxy.spoil(Spoil.HTTP_500, "eth_getLogs", times=10**6)
        keeper.run_until(lambda: bool(keeper.events("transaction")))
        assert {e["kind"] for e in keeper.events("transaction")} <= {"replaced", "sent_again"}
        assert not keeper.run_for(lambda: False, timeout_s=0.3)
        handed_over = len(stage.proxy.sent())
        assert 2 * count <= handed_over <= 3 * count
        # And then no more, however often the head is tried again.
        assert not keeper.run_for(lambda: False, timeout_s=0.3)
        assert len(stage.proxy.sent()) == handed_over
        stage.proxy.faults.clear()
        finish(stage, keeper)


def test_journal_that_refuses_stops_the_loop_with_nothing_sent(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        stage.fall(60)

        def full(*_: object) -> None:
            raise JournalError("disk full")

        monkeypatch.setattr(keeper.journal, "write_ahead", full)
        with pytest.raises(JournalError, match="disk full"):
            keeper.run_until(lambda: False)
        assert stage.proxy.sent() == []


# ------------------------------------------------------------------------------------------- reorganisations


def test_reference_stands_after_a_reorganisation_whose_first_head_failed(stage: Stage) -> None:
    """The guards remember rounds of the branch that is gone; unless told they refuse those of the new one."""
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        stage.mine(2)
        ancestor = stage.head()
        settled(keeper)
        for price in (160, 161):
            stage.post({"WETH": price * E8})
            settled(keeper)
        stage.anvil.rpc.call("anvil_rollback", [2])
        stage.fall(60)
        stage.mine(2, step_s=17)
        stage.proxy.spoil(Spoil.HTTP_500, "eth_getLogs")
        keeper.run_until(lambda: bool(keeper.events("sent")))
        assert keeper.events("trouble")
        assert [e["common_ancestor"] for e in keeper.events("reorganisation")] == [ancestor]
        assert Reason.REFERENCE_UNKNOWN.value not in keeper.events("head")[-1]["reasons"]


@pytest.mark.parametrize("method", ["eth_getLogs", "eth_call"])
def test_reorganisation_in_the_middle_of_a_head_is_trouble_and_no_mixture(stage: Stage, method: str) -> None:
    """The head that was looked at is gone when it is read: by its hash there is nothing to read."""
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        stage.mine(2)
        settled(keeper)
        stage.fall(60)

        def reorganise(methods: tuple[str, ...]) -> None:
            if method in methods:
                stage.proxy.before = lambda methods: None
                stage.replace(1)

        stage.proxy.before = reorganise
        keeper.run_until(lambda: bool(keeper.events("trouble")))
        assert stage.proxy.sent() == []
        # The block with the crash is gone, and its successor has none.
        keeper.run_until(lambda: keeper.events("head")[-1]["block"] == stage.head())
        assert stage.proxy.sent() == []
        assert keeper.events("head")[-1]["reasons"] == {}
        assert set(keeper.borrowers) == borrowers(stage)


# ---------------------------------------------------------------------------------------- nobody is forgotten


def reasons_of(result: HeadResult) -> dict[str, Reason]:
    return {verdict.account: verdict.reason for verdict in result.verdicts}


def lock(stage: Stage, *symbols: str) -> None:
    """Let a pool read as ever and refuse every swap, or end that."""
    wanted = {stage.market.asset(symbol).address for symbol in symbols}
    pool = next(p for p in stage.market.uniswap.pools if {p.token0, p.token1} == wanted)
    stage.evm.set_storage(pool.address, 0, stage.evm.storage(pool.address, 0) ^ 1 << SLOT0_UNLOCKED_BIT)


def test_who_was_refused_and_has_no_plan_for_a_while_keeps_its_place_and_its_verdict(stage: Stage) -> None:
    with running(stage, Mode.LIVE, limits={"max_per_block": 2}) as keeper:
        settled(keeper)
        stage.fall(55)
        lock(stage, "WETH", "USDC")
        stage.mine()
        first = keeper.keeper.work(keeper.tick())
        refused = {a for a, why in reasons_of(first).items() if why is Reason.SIMULATION_FAILED}
        assert len(refused) == 2
        # For two heads nothing pays, so that nobody has a plan.
        config = keeper.keeper.config
        dear = config.execution.model_copy(update={"min_profit_usd": Decimal(10**12)})
        keeper.keeper.config = config.model_copy(update={"execution": dear})
        for _ in range(2):
            stage.mine()
            idle = keeper.keeper.work(keeper.tick())
            assert idle.decision.plans == ()
            assert {reasons_of(idle)[account] for account in refused} == {Reason.UNPROFITABLE}
        keeper.keeper.config = config
        stage.mine()
        second = keeper.keeper.work(keeper.tick())
        # Others have their turn before them, and they are still told of.
        assert {reasons_of(second)[account] for account in refused} == {Reason.LIMIT}
        lock(stage, "WETH", "USDC")
        done: set[str] = set()
        for _ in range(25):
            stage.mine()
            result = keeper.keeper.work(keeper.tick())
            done |= {event.user for event in stage.liquidations()}
            assert refused - done <= reasons_of(result).keys()
        assert refused <= done


def test_however_many_are_refused_a_head_plans_for_no_more_than_it_has_time_for(stage: Stage) -> None:
    with running(stage, Mode.LIVE) as keeper:
        before = keeper.keeper._most_plans()
        assert before is not None
        keeper.keeper._refused_at.update({("p", f"0x{i}"): 1 for i in range(10)})
        assert keeper.keeper._most_plans() == before + 10
        keeper.keeper._refused_at.update({("p", f"0x{i}"): 1 for i in range(100_000)})
        assert keeper.keeper._most_plans() == before + MOST_REFUSED


def test_who_was_refused_and_is_well_again_waits_for_nobody(stage: Stage) -> None:
    with running(stage, Mode.LIVE, limits={"max_per_block": 2}) as keeper:
        settled(keeper)
        prices = {s: stage.price_e8(s) for s in ("WETH", "wstETH", "WBTC")}
        low = stage.fall(55)
        lock(stage, "WETH", "USDC")
        stage.mine()
        first = keeper.keeper.work(keeper.tick())
        refused = {a for a, why in reasons_of(first).items() if why is Reason.SIMULATION_FAILED}
        stage.post(prices)
        lock(stage, "WETH", "USDC")
        stage.mine()
        well = keeper.keeper.work(keeper.tick())
        assert {reasons_of(well)[account] for account in refused} == {Reason.HEALTHY}
        stage.post(low)
        again = keeper.keeper.work(keeper.tick())
        assert again.submission is not None
        assert {intent.account for intent in again.submission.intents} == refused


# ----------------------------------------------------------------------------------------------- our defects


def defect(
    patch: pytest.MonkeyPatch, owner: type, method: str, account_of: Callable[..., str], who: str
) -> None:
    """Have a method of ours raise what no node and no contract can, for one account."""
    found = getattr(owner, method)

    def fails(*arguments: Any, **options: Any) -> Any:
        if account_of(*arguments) == who:
            raise ZeroDivisionError("division by zero")
        return found(*arguments, **options)

    patch.setattr(owner, method, fails)


@pytest.mark.parametrize(
    ("owner", "method", "account_of"),
    [
        (AaveV3, "margin", lambda adapter, market, account, *rest: account.account),
        (AaveV3, "liquidation_pairs", lambda adapter, market, account: account.account),
        (Asked, "asked", lambda asked, plan: plan.account),
        (AaveV3, "liquidator_calldata", lambda adapter, plan: plan.account),
        (PricedPlan, "in_wei", lambda priced, amount: priced.plan.account),
    ],
)
def test_a_defect_on_the_way_to_one_liquidation_holds_that_account_until_it_is_gone(
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    method: str,
    account_of: Callable[..., str],
) -> None:
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        stage.fall(60)
        with running(stage, Mode.OBSERVE, journal="look.sqlite") as looking:
            who = looking.keeper.work(looking.tick()).decision.plans[0].account
        with monkeypatch.context() as patch:
            defect(patch, owner, method, account_of, who)
            keeper.run_until(lambda: bool(keeper.events("head")[1:]))
            assert keeper.events("trouble") == []
            others = {e["account"] for e in keeper.events("sent")}
            assert len(others) >= 5
            assert who not in others
            stage.mine()
            keeper.run_until(lambda: keeper.events("head")[-1]["block"] == stage.head())
        # Said once, with its cause, and that is an alert.
        (told,) = (e for e in keeper.events("verdict") if e["account"] == who)
        assert (told["action"], told["reason"]) == ("hold", "account_unknown")
        assert "ZeroDivisionError: division by zero" in told["detail"]
        assert alert_of("verdict", told) is not None
        (written,) = keeper.journal.decisions(who)
        assert written.reason == "account_unknown"
        stage.mine()
        keeper.run_until(lambda: who in {e["account"] for e in keeper.events("sent")})


def test_a_defect_that_is_nobodys_ends_the_run_loudly(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        stage.fall(60)
        defect(monkeypatch, type(keeper.keeper.reader), "read_all", lambda *_: "all", "all")
        with pytest.raises(ZeroDivisionError):
            keeper.run_until(lambda: False)
        assert stage.proxy.sent() == []


# ------------------------------------------------------------------------------------- answers that straddle


@pytest.mark.parametrize("node_behind", [False, True])
def test_receipt_of_a_block_behind_the_head_does_not_make_it_act_a_second_time(
    stage: Stage, node_behind: bool
) -> None:
    """A block comes between the answers of one look: the head is from before it, the receipts from behind.

    At the head the liquidation has not happened yet, and everybody is still due. So it is where the newest
    head could be looked at and not be read, and the next answer is of a node that does not have it yet.
    """
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        stage.fall(60)
        first = keeper.keeper.work(keeper.tick())
        assert first.submission is not None
        acted = {intent.account for intent in first.submission.intents}
        # One more block without them, so that the head is a new one.
        stage.anvil.rpc.call("anvil_dropAllTransactions")
        stage.mine()
        stage.anvil.rpc.batch([("eth_sendRawTransaction", [raw]) for raw in stage.proxy.sent()])
        before = keeper.tick()
        stage.mine()
        behind = keeper.tick()
        assert any(r is not None and r.block > before.head.number for r in behind.receipts.values())
        straddling = replace(behind, head=before.head, fees=before.fees)
        if node_behind:
            stage.proxy.spoil(Spoil.HTTP_500, "eth_getLogs")
            with pytest.raises(RpcUnavailable):
                keeper.keeper.work(behind)
            straddling = before
        second = keeper.keeper.work(straddling)
        sent = second.submission.intents if second.submission else ()
        assert acted & {intent.account for intent in sent} == set()
        assert {reasons_of(second)[account] for account in acted} == {Reason.DUPLICATE}
        # The next look has both from one block.
        third = keeper.keeper.work(keeper.tick())
        assert {i.state for i in keeper.journal.intents() if i.account in acted} >= {IntentState.MINED}
        assert {reasons_of(third)[a] for a in acted if a in reasons_of(third)} <= {
            Reason.HEALTHY,
            Reason.NO_DEBT,
            Reason.LIQUIDATE,
            Reason.UNPROFITABLE,
            Reason.NO_COLLATERAL,
            Reason.SIMULATION_FAILED,
        }


# -------------------------------------------------------------------------------------------- no silent stop


def test_a_chain_that_stands_still_is_told_of_again_and_again(stage: Stage) -> None:
    """The first alert may have been lost, by the same cause even."""
    limits = {"clock": "wall", "max_head_age_s": 0.05}
    with running(stage, limits=limits, alerts={"repeat_after_s": 0.2}) as keeper:
        keeper.run_until(lambda: len(keeper.events("stalled")) == 3)
        seconds = [e["seconds"] for e in keeper.events("stalled")]
        assert seconds[1] - seconds[0] >= 0.1
        assert all(alert_of("stalled", e) is not None for e in keeper.events("stalled"))
        stage.mine()
        keeper.run_until(lambda: keeper.events("head")[-1]["block"] == stage.head())
        count = len(keeper.events("stalled"))
        keeper.run_until(lambda: len(keeper.events("stalled")) == count + 1)


def test_a_run_that_ends_for_what_nobody_foresaw_says_so(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        stage.mine()
        defect(monkeypatch, type(keeper.keeper.reader), "read_all", lambda *_: "all", "all")
        with pytest.raises(ZeroDivisionError):
            keeper.run_until(lambda: False)
        (event,) = keeper.events("failed")
        assert event["error"] == "ZeroDivisionError: division by zero"
        alert = alert_of("failed", event)
        assert alert is not None
        assert "the keeper ends" in alert.text
