"""The loop on a real node: what it does at a head in each mode, and what it must never do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from keeper import loop
from keeper.config import Mode
from keeper.journal import Journal
from keeper.loop import HeadResult
from keeper.types import IntentState
from simulation.types import Action, MarginStatus, Reason, Verdict
from tests.keeper_bench import Running, Stage, running, staged

SLOT0_UNLOCKED_BIT = 240
"""Of slot 0 in UniswapV3Pool: price, tick, three oracle counters, fee protocol, then the lock."""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as chain:
        yield chain


def step(keeper: Running) -> HeadResult:
    """Work on the newest head."""
    return keeper.keeper.work(keeper.tick())


def settled(keeper: Running) -> Running:
    """Let a keeper work on a head at which nothing happens, as it does when it starts."""
    step(keeper)
    return keeper


def by_account(result: HeadResult) -> dict[str, Verdict]:
    return {verdict.account: verdict for verdict in result.verdicts}


def reasons(result: HeadResult) -> set[Reason]:
    return {verdict.reason for verdict in result.verdicts}


def sends(stage: Stage) -> list[str]:
    """Return every request that could have changed the chain."""
    return [method for method, _ in stage.proxy.seen if method.startswith(("eth_send", "anvil_", "evm_"))]


def asked_to_simulate(stage: Stage) -> bool:
    return any(method == "eth_simulateV1" for method, _ in stage.proxy.seen)


def cleared(stage: Stage, keeper: Running, heads: int = 6) -> list[HeadResult]:
    """Work and mine until nothing is left to do."""
    results = []
    for _ in range(heads):
        results.append(step(keeper))
        stage.mine()
        if not results[-1].decision.plans and not keeper.journal.open_intents():
            return results
    return results


def sent(result: HeadResult) -> list[str]:
    return [intent.account for intent in result.submission.intents] if result.submission else []


# ----------------------------------------------------------------------------------------------------- modes


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.DRY_RUN])
def test_without_live_nothing_is_ever_sent(stage: Stage, mode: Mode) -> None:
    with running(stage, mode) as keeper:
        settled(keeper)
        stage.fall(60)
        found = []
        for _ in range(3):
            found.append(step(keeper))
            stage.mine()
        assert sends(stage) == []
        assert asked_to_simulate(stage) is (mode is Mode.DRY_RUN)
        assert stage.liquidations() == []
        for result in found:
            assert len(result.decision.plans) >= 8
            assert result.submission is None
            verdicts = by_account(result)
            flagged = {verdicts[plan.account].reason for plan in result.decision.plans}
            assert flagged == {Reason.OBSERVE_ONLY}
        assert keeper.journal.intents() == []
        assert {d.reason for d in keeper.journal.decisions()} >= {Reason.OBSERVE_ONLY.value}
        keeper.keeper.warm_up()
        assert sends(stage) == []


def test_observing_needs_no_contract(stage: Stage) -> None:
    with running(stage, Mode.OBSERVE, contracts={"liquidator": None}) as keeper:
        stage.fall(60)
        assert Reason.OBSERVE_ONLY in reasons(step(keeper))


def test_live_liquidates_what_it_wrote_ahead_and_books_what_it_earned(stage: Stage) -> None:
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        stage.fall(60)
        before = stage.liquidatable()
        assert len(before) >= 10
        on_disk: list[tuple[set[str], set[str]]] = []

        def look(methods: tuple[str, ...]) -> None:
            if "eth_sendRawTransaction" in methods:
                with Journal.read_only(keeper.journal.path) as reader:
                    intents = reader.intents([IntentState.PREPARED])
                    on_disk.append(({i.account for i in intents}, set(reader.tx_hashes())))

        stage.proxy.before = look
        first = step(keeper)
        stage.proxy.before = lambda methods: None

        # All of a head in one batch, behind one commit.
        assert len(on_disk) == 1
        assert on_disk[0][0] == set(sent(first))
        assert len(on_disk[0][1]) == len(stage.proxy.sent()) == len(sent(first)) >= 8
        results = [first, *cleared(stage, keeper)]

        done = stage.liquidations()
        intents = {i.intent_id: i for i in keeper.journal.intents()}
        assert sorted("0x" + e.intent_id.hex() for e in done) == sorted(intents)
        assert {i.state for i in intents.values()} == {IntentState.CONFIRMED}
        for event in done:
            intent = intents["0x" + event.intent_id.hex()]
            receipt = keeper.journal.receipt(intent.intent_id)
            assert receipt is not None
            assert (intent.account, intent.debt_asset) == (event.user, event.debt)
            assert receipt.realised_profit_raw == event.profit_raw
            # Mined in the block behind the head, as simulated.
            assert event.profit_raw == intent.simulated_profit_raw
            assert receipt.block == intent.decided_block + 1
        assert [i.nonce for i in intents.values()] == list(range(len(intents)))
        assert {i.account for i in intents.values()} <= before
        left = stage.liquidatable() & before
        last = by_account(results[-1])
        assert {last[account].reason for account in left} <= {
            Reason.NO_COLLATERAL,
            Reason.UNPROFITABLE,
            Reason.SIMULATION_FAILED,
            Reason.NO_ROUTE,
        }
        told = [e["kind"] for e in keeper.events("transaction")]
        assert told.count("mined") == told.count("confirmed") == len(intents)
        assert {e["account"] for e in keeper.events("sent")} == {i.account for i in intents.values()}


def test_partial_liquidation_is_followed_by_the_next(stage: Stage) -> None:
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        stage.fall(72)
        results = cleared(stage, keeper)
        partly = {p.account for r in results[:1] for p in r.decision.plans if not p.full}
        again = {p.account for r in results[1:] for p in r.decision.plans}
        assert partly & again


def test_what_is_simulated_behind_a_transaction_under_way_is_what_it_earns(stage: Stage) -> None:
    with running(stage, Mode.LIVE, limits={"max_per_block": 1}) as keeper:
        settled(keeper)
        stage.fall(60)
        (whale,) = sent(step(keeper))
        # A block that did not take it; the pools are where they were, and will not be when ours is mined.
        stage.anvil.rpc.call("anvil_dropAllTransactions")
        stage.mine()
        stage.anvil.rpc.call("eth_sendRawTransaction", stage.proxy.sent())
        (behind,) = sent(step(keeper))
        stage.mine()
        done = {event.user: event.profit_raw for event in stage.liquidations()}
        assert set(done) == {whale, behind}
        (intent,) = (i for i in keeper.journal.intents() if i.account == behind)
        assert done[behind] == intent.simulated_profit_raw


def test_borrower_who_came_after_the_start_is_liquidated_too(stage: Stage) -> None:
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        account, txs = stage.borrowing("came late", usd=3_000)
        stage.send(*txs)
        stage.fall(55)
        assert stage.health_factor_wad(account) < 10**18
        result = step(keeper)
        assert account in sent(result)
        assert keeper.events("borrowers")[-1]["found"] == 1


# ----------------------------------------------------------------------------------------------- round trips


def test_new_head_to_signed_transactions_takes_three_round_trips(stage: Stage) -> None:
    with running(stage, Mode.LIVE) as keeper:
        keeper.keeper.warm_up()
        settled(keeper)
        stage.fall(60)
        for _ in range(3):
            stage.proxy.posts.clear()
            result = step(keeper)
            assert result.submission is not None
            assert result.submission.intents
            assert result.round_trips <= 3
            kinds = [set(methods) for methods in stage.proxy.posts]
            # The look at the head is what finds it; the rest is from there.
            assert "eth_feeHistory" in kinds[0]
            assert kinds[1:] == [
                {"eth_getLogs"},
                {"eth_call"},
                {"eth_simulateV1"},
                {"eth_sendRawTransaction"},
            ]
            assert keeper.events("head")[-1]["round_trips"] == result.round_trips
            assert 0 < result.own_s < 5
            stage.mine()


# ---------------------------------------------------------------------------------------------- three prices


def test_wrongly_low_protocol_price_is_held_and_nothing_is_sent(stage: Stage) -> None:
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        prices = {s: stage.price_e8(s) for s in ("WETH", "wstETH", "WBTC")}
        stage.fall(60, reference=False)
        wronged = stage.liquidatable()
        assert len(wronged) >= 10
        for _ in range(3):
            result = step(keeper)
            verdicts = by_account(result)
            for account in wronged:
                assert (verdicts[account].action, verdicts[account].reason) == (
                    Action.HOLD,
                    Reason.PROTOCOL_PRICE_LOW,
                )
            stage.mine()
        assert sends(stage) == []
        assert not asked_to_simulate(stage)
        held = {d.account for d in keeper.journal.decisions() if d.reason == Reason.PROTOCOL_PRICE_LOW}
        assert held == wronged

        stage.post(prices, reference=False)
        result = step(keeper)
        assert {by_account(result)[account].reason for account in wronged} == {Reason.HEALTHY}
        assert sends(stage) == []
        assert stage.liquidations() == []


def test_stale_high_feed_arms_and_the_block_of_its_update_is_acted_on(stage: Stage) -> None:
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        prices = stage.fall(60, protocol=False)
        assert stage.liquidatable() == set()
        for _ in range(2):
            result = step(keeper)
            armed = {v.account for v in result.verdicts if v.action is Action.ARM}
            assert len(armed) >= 10
            assert {by_account(result)[a].reason for a in armed} == {Reason.PROTOCOL_PRICE_STALE_HIGH}
            stage.mine()
        assert sends(stage) == []

        stage.post(prices, reference=False)
        update = stage.head()
        result = step(keeper)
        assert len(sent(result)) >= 8
        assert set(sent(result)) <= armed
        waits = {e["account"]: e for e in keeper.events("waited")}
        assert set(waits) == set(sent(result))
        assert {(e["armed_block"], e["block"]) for e in waits.values()} == {(update - 3, update)}
        stage.mine()
        step(keeper)
        receipts = keeper.journal.receipts()
        assert len(receipts) == len(sent(result))
        assert {r.block for r in receipts} == {update + 1}
        assert all(r.success for r in receipts)


def test_without_a_reference_everybody_liquidatable_is_held(stage: Stage) -> None:
    with running(stage, Mode.LIVE, references={}) as keeper:
        settled(keeper)
        stage.fall(60)
        result = step(keeper)
        assert {by_account(result)[a].reason for a in stage.liquidatable()} == {Reason.REFERENCE_UNKNOWN}
        assert sends(stage) == []


def test_without_a_reference_the_policy_may_act(stage: Stage) -> None:
    policy = {"kind": "three-price", "without_reference": "act"}
    with running(stage, Mode.LIVE, references={}, policy=policy) as keeper:
        settled(keeper)
        stage.fall(60)
        assert len(sent(step(keeper))) >= 8


def test_native_asset_without_a_price_stops_nobody_who_does_not_hold_it(stage: Stage) -> None:
    """Gas is bought in the pools: what the protocol says of Ether is nobody's business here."""
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        stage.post({"WBTC": stage.price_e8("WBTC") * 55 // 100})
        stage.break_feed(stage.market.asset("WETH").feed)
        bitcoin = {a.address for a in stage.book if a.profile == "btc long"}
        result = step(keeper)
        verdicts = by_account(result)
        others = {a.address for a in stage.book if a.profile == "eth long"}
        assert {verdicts[account].reason for account in others} == {Reason.PROTOCOL_UNKNOWN}
        assert sent(result)
        assert set(sent(result)) <= bitcoin


# ----------------------------------------------------------------------------------------------------- heads


def test_loop_works_on_each_new_head_once_and_ignores_older_ones(stage: Stage) -> None:
    with running(stage) as keeper:
        keeper.run_until(lambda: bool(keeper.events("head")))
        older = stage.head()
        stage.mine(2)
        keeper.run_until(lambda: keeper.events("head")[-1]["block"] == older + 2)
        blocks = [e["block"] for e in keeper.events("head")]
        assert blocks == [older, older + 2]  # the newest wins, and none is worked on twice

        known = keeper.borrowers
        stage.anvil.rpc.call("anvil_rollback", [1])
        stage.proxy.posts.clear()
        assert not keeper.run_for(lambda: True, timeout_s=1.0)
        assert len(stage.proxy.posts) > 3  # it did look
        assert [e["block"] for e in keeper.events("head")] == blocks
        # Another block of the same height is news.
        stage.mine(step_s=17)
        keeper.run_until(lambda: len(keeper.events("head")) > len(blocks))
        assert keeper.events("head")[-1]["block"] == older + 2
        assert keeper.events("reorganisation")[-1]["common_ancestor"] == older + 1
        assert set(known) <= set(keeper.borrowers)


def test_loop_runs_from_crash_to_confirmation(stage: Stage) -> None:
    with running(stage, Mode.LIVE) as keeper:
        keeper.run_until(lambda: bool(keeper.events("head")))
        stage.fall(60)
        keeper.run_until(lambda: bool(keeper.events("sent")) and keeper.events("head")[-1]["sent"] > 0)
        stage.mine(2)
        keeper.run_until(lambda: any(e["kind"] == "confirmed" for e in keeper.events("transaction")))
        assert keeper.journal.counts()[IntentState.CONFIRMED] >= 8
        assert keeper.events("trouble") == []


@pytest.mark.parametrize("depth", [1, 2])
def test_liquidations_that_a_reorganisation_removes_are_executed_once_all_the_same(
    stage: Stage, depth: int
) -> None:
    with running(stage, Mode.LIVE, execution={"confirmations": 4}) as keeper:
        settled(keeper)
        stage.fall(60)
        count = len(sent(step(keeper)))
        stage.mine(depth)
        step(keeper)
        assert len(stage.liquidations()) == count
        stage.replace(depth)
        assert len(stage.liquidations()) in (0, count)
        cleared(stage, keeper, heads=12)
        done = ["0x" + e.intent_id.hex() for e in stage.liquidations()]
        assert len(done) == len(set(done)) >= count
        assert sorted(done) == sorted(i.intent_id for i in keeper.journal.intents())
        assert {i.state for i in keeper.journal.intents()} == {IntentState.CONFIRMED}


@pytest.mark.parametrize("mined", [True, False])
def test_restart_follows_what_the_process_before_it_sent(stage: Stage, mined: bool) -> None:
    with running(stage, Mode.LIVE) as keeper:
        settled(keeper)
        stage.fall(60)
        first = step(keeper)
        whole = {plan.account for plan in first.decision.plans if plan.full}
        raw = stage.proxy.sent()
        assert len(raw) == len(sent(first))
    if mined:
        stage.mine()
    with running(stage, Mode.LIVE) as keeper:
        result = step(keeper)
        again = stage.proxy.sent()[len(raw) :]
        if mined:
            states = {i.state for i in keeper.journal.intents() if i.account in sent(first)}
            assert IntentState.MINED in states
            assert not set(again) & set(raw)
            assert not set(sent(result)) & whole
        else:
            # The very same bytes, and nothing new for an account that is under way.
            assert set(again) == set(raw)
            assert sent(result) == []
        cleared(stage, keeper)
        done = [e.intent_id for e in stage.liquidations()]
        assert len(done) == len(set(done)) == len(keeper.journal.intents())


# ----------------------------------------------------------------------------------------------------- audit


def test_audit_finds_that_the_screen_missed_nobody(stage: Stage) -> None:
    with running(stage) as keeper:
        settled(keeper)
        for percent in (90, 80, 75):
            stage.fall(percent)
            keeper.keeper.audit_due.set()
            result = step(keeper)
            audit = keeper.events("audit")[-1]
            counts = {"protocol": "aave-v3", "accounts": len(stage.book), "missed": []}
            assert audit == {"block": stage.head(), **counts}
            assert len(result.verdicts) == len(stage.book)
            found = {
                v.account for v in result.verdicts if v.protocol_margin.status is MarginStatus.LIQUIDATABLE
            }
            assert found == stage.liquidatable()
        assert keeper.keeper.screen_misses == 0
        assert not keeper.keeper.audit_due.is_set()
        stage.mine()
        step(keeper)
        assert len(keeper.events("audit")) == 3


def test_audit_tells_what_a_broken_screen_misses(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(stage) as keeper:
        settled(keeper)
        stage.fall(60)
        missed = stage.liquidatable()
        monkeypatch.setattr(loop, "examined_rows", lambda view, adapter, watched: [])
        keeper.keeper.audit_due.set()
        step(keeper)
        assert set(keeper.events("audit")[-1]["missed"]) == missed
        assert keeper.keeper.screen_misses == len(missed)


def test_audit_stays_due_while_heads_cannot_be_read(stage: Stage) -> None:
    with running(stage) as keeper:
        settled(keeper)
        keeper.keeper.audit_due.set()
        code = stage.evm.code(stage.market.provider)
        stage.evm.set_code(stage.market.provider, bytes.fromhex("60006000fd"))
        stage.mine()
        keeper.run_until(lambda: bool(keeper.events("trouble")))
        assert keeper.events("audit") == []
        stage.evm.set_code(stage.market.provider, code)
        stage.mine()
        keeper.run_until(lambda: bool(keeper.events("audit")))


def test_audit_without_references_does_not_make_every_account_a_suspect(stage: Stage) -> None:
    with running(stage, references={}) as keeper:
        settled(keeper)
        keeper.keeper.audit_due.set()
        stage.mine()
        assert step(keeper).decision.examined == len(stage.book)
        stage.mine()
        assert step(keeper).decision.examined == 0
        assert keeper.events("verdict") == []


def test_account_that_was_not_healthy_is_looked_at_until_it_is(stage: Stage) -> None:
    with running(stage) as keeper:
        settled(keeper)
        prices = {s: stage.price_e8(s) for s in ("WETH", "wstETH", "WBTC")}
        stage.fall(80)
        flagged = {v.account for v in step(keeper).verdicts}
        assert flagged
        stage.post(prices)
        assert {v.account: v.reason for v in step(keeper).verdicts} == dict.fromkeys(flagged, Reason.HEALTHY)
        stage.mine()
        assert step(keeper).verdicts == ()
        histories = {a: [d.reason for d in keeper.journal.decisions(a)] for a in flagged}
        assert {h[-1] for h in histories.values()} == {Reason.HEALTHY.value}


# ---------------------------------------------------------------------------------------------------- limits


def test_no_more_new_intents_in_a_block_than_allowed(stage: Stage) -> None:
    with running(stage, Mode.LIVE, limits={"max_per_block": 3}) as keeper:
        settled(keeper)
        stage.fall(60)
        first = step(keeper)
        assert sent(first) == [plan.account for plan in first.decision.plans[:3]]
        rest = {plan.account for plan in first.decision.plans[3:]}
        assert {by_account(first)[a].reason for a in rest} == {Reason.LIMIT}
        assert {by_account(first)[a].action for a in rest} == {Action.HOLD}
        stage.mine()
        second = step(keeper)
        assert len(sent(second)) == 3
        assert set(sent(second)) & rest


def test_no_more_under_way_than_allowed(stage: Stage) -> None:
    with running(stage, Mode.LIVE, limits={"max_in_flight": 4}) as keeper:
        settled(keeper)
        stage.fall(60)
        assert len(sent(step(keeper))) == 4
        # A block that none of them got into.
        stage.anvil.rpc.call("anvil_dropAllTransactions")
        stage.mine()
        result = step(keeper)
        assert sent(result) == []
        assert keeper.events("limit")[-1]["limit"] == "max_in_flight"
        under_way = {i.account for i in keeper.journal.intents()}
        assert {by_account(result)[a].reason for a in under_way} == {Reason.DUPLICATE}
        assert {v.reason for v in result.verdicts if v.account not in under_way} >= {Reason.LIMIT}


def test_denied_account_is_left_and_only_allowed_ones_are_touched(stage: Stage) -> None:
    with running(stage, Mode.DRY_RUN) as keeper:
        settled(keeper)
        stage.fall(60)
        first, second, *_ = (plan.account for plan in step(keeper).decision.plans)
    with running(stage, Mode.LIVE, limits={"deny_accounts": [first]}) as keeper:
        result = step(keeper)
        assert by_account(result)[first].reason is Reason.LIMIT
        assert first not in sent(result)
        assert second in sent(result)
    stage.anvil.rpc.call("anvil_dropAllTransactions")
    with running(stage, Mode.LIVE, journal="other.sqlite", limits={"allow_accounts": [first]}) as keeper:
        assert sent(step(keeper)) == [first]


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"clock": "wall"}, "max_head_age_s"),  # the chain's day is long past
        ({"min_balance_eth": 2_000}, "min_balance_eth"),
    ],
)
def test_breaker_stops_everything_new(stage: Stage, limits: dict[str, object], named: str) -> None:
    with running(stage, Mode.LIVE, limits=limits) as keeper:
        settled(keeper)
        stage.fall(60)
        result = step(keeper)
        assert sends(stage) == []
        assert not asked_to_simulate(stage)
        assert keeper.events("limit")[-1]["limit"] == named
        verdicts = by_account(result)
        assert {verdicts[p.account].reason for p in result.decision.plans} == {Reason.LIMIT}
        assert all(named in verdicts[p.account].detail for p in result.decision.plans)


def test_plans_that_never_hold_do_not_keep_others_from_their_turn(stage: Stage) -> None:
    with running(stage, Mode.LIVE, limits={"max_per_block": 2}) as keeper:
        settled(keeper)
        prices = {s: stage.price_e8(s) for s in ("WETH", "wstETH", "WBTC")}
        stage.post({s: p * 55 // 100 for s, p in prices.items()})
        # The pool that most collateral would be sold in reads as ever, and refuses every swap.
        weth, usdc = (stage.market.asset(s).address for s in ("WETH", "USDC"))
        pool = next(p for p in stage.market.uniswap.pools if {p.token0, p.token1} == {weth, usdc})
        slot0 = stage.evm.storage(pool.address, 0)
        assert slot0 >> SLOT0_UNLOCKED_BIT & 1
        stage.evm.set_storage(pool.address, 0, slot0 ^ 1 << SLOT0_UNLOCKED_BIT)
        stage.mine()

        tried: list[set[str]] = []
        acted: set[str] = set()
        for _ in range(12):
            result = step(keeper)
            refused = {v.account for v in result.verdicts if v.detail.startswith("simulation: ")}
            tried.append(refused | set(sent(result)))
            acted |= set(sent(result))
            assert len(tried[-1]) <= 2
            assert all("LOK" in by_account(result)[account].detail for account in refused)
            stage.mine()
        assert acted
        assert len(set().union(*tried)) > 4
        assert all(before != after for before, after in pairwise(tried[:4]))


# ----------------------------------------------------------------------------------------------- bookkeeping


def test_one_reason_code_for_each_decision_and_only_changes_are_written(stage: Stage) -> None:
    with running(stage) as keeper:
        settled(keeper)
        stage.fall(60)
        result = step(keeper)
        written = keeper.journal.decisions()
        assert {d.account for d in written} == {v.account for v in result.verdicts}
        assert {(d.account, d.action, d.reason) for d in written} == {
            (v.account, v.action.value, v.reason.value) for v in result.verdicts
        }
        stage.mine()
        step(keeper)
        assert len(keeper.journal.decisions()) == len(written)
        head = keeper.events("head")[-1]
        assert sum(head["reasons"].values()) == len(result.verdicts)
        assert head["borrowers"] == len(stage.book)
