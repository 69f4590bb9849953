"""A replay's record made by hand: a feed that stops at its lower bound while the market falls on.

Small enough to read, and with everything that a report has a place for.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from simulation.replay.economics import Borrower, Economics, Step, play_accounts
from simulation.replay.lending import Account, LtvModel, Market, Quotes
from simulation.replay.record import (
    AblationRow,
    ActionRow,
    AdapterCell,
    AlarmPoint,
    CheckRow,
    ClaimRow,
    DataFile,
    EconomicsRecord,
    EconomicsRuns,
    FaultInfo,
    FeedCell,
    FeedInfo,
    FeedSummary,
    Finding,
    FiredRow,
    GuardCount,
    MarketInfo,
    MatrixRecord,
    ReplayRecord,
    SweepPoint,
    TimelineRow,
)
from simulation.replay.text import money_text, price_text, token_text

START = 1_652_342_400
STEP_S = 600
TRUTH = ("0.30", "0.20", "0.107", "0.09", "0.0758", "0.05", "0.02", "0.0113", "0.0113")
FLOOR = Fraction("0.107")

COIN = Market("COIN", 18, 5_500, 5_500, 1_000, slippage_bps=500)
USDC = Market("USDC", 6, liquidity_raw=1_000_000 * 10**6)
MARKETS = {"COIN": COIN, "USDC": USDC}


def _steps(run: str) -> list[Step]:
    out = []
    for i, text in enumerate(TRUTH):
        true = Fraction(text)
        said: Fraction | None = true if run == "truthful" else max(true, FLOOR)
        if run == "guarded" and true <= FLOOR:
            said = None
        prices = {"COIN": said, "USDC": Fraction(1)}
        why = {} if said is not None else {"COIN": "price unknown: G06 at its minimum"}
        quotes = Quotes(prices, prices, why)
        out.append(Step(_t(i), i, {"COIN": true, "USDC": Fraction(1)}, quotes, quotes))
    return out


def _t(i: int) -> int:
    return START + i * STEP_S


def _economics(run: Economics) -> EconomicsRecord:
    worst = run.levels[-1]
    return EconomicsRecord(
        bad_debt_usd=money_text(run.bad_debt),
        bad_debt_peak_usd=money_text(run.bad_debt_peak),
        wrongly_liquidated=run.wrongly_liquidated,
        wrongly_seized_usd=money_text(run.wrongly_seized),
        wrongly_lost_usd=money_text(run.wrongly_lost),
        liquidations=run.liquidated,
        seized_usd=money_text(run.seized),
        attacker_profit_usd=money_text(run.attacker_profit),
        keeper_profit_usd=money_text(run.keeper_profit),
        borrowable_at=worst.t,
        borrowable_reported_usd=None if worst.borrowable is None else money_text(worst.borrowable),
        borrowable_truth_usd=money_text(worst.borrowable_truth),
        actions=tuple(
            ActionRow(
                t=e.t,
                block=e.block,
                deed=e.deed.value,
                account=e.account,
                by=e.by,
                debt=e.debt,
                debt_amount=token_text(e.debt_raw, MARKETS[e.debt].decimals if e.debt else 0),
                debt_usd=money_text(e.debt_value),
                collateral=e.collateral,
                collateral_amount=token_text(
                    e.collateral_raw, MARKETS[e.collateral].decimals if e.collateral else 0
                ),
                collateral_usd=money_text(e.collateral_value),
                wrong=e.wrong,
                detail=e.detail,
            )
            for e in run.events
        ),
        bad_debt_by_step=tuple(money_text(level.bad_debt) for level in run.levels),
    )


def _bps(said: Fraction, true: Fraction) -> int:
    size = -(-abs(said - true) * 10_000 // true)
    return int(size) if said >= true else -int(size)


def _row(i: int, text: str) -> TimelineRow:
    true = Fraction(text)
    said = max(true, FLOOR)
    bad = true <= FLOOR
    cell = FeedCell(
        truth=price_text(true),
        raw=price_text(said),
        mantissa=str(int(said * 10**8)),
        decimals=8,
        published_at=_t(min(i, 2)),
        status="refused" if bad else "ok",
        deviation_bps=str(_bps(said, true)),
        violated=("G06",) if bad else (),
        reason="",
    )
    reference = cell.model_copy(
        update={
            "raw": price_text(true) if i != 1 else None,
            "mantissa": str(int(true * 10**8)) if i != 1 else None,
            "status": "ok" if i != 1 else "missing",
            "deviation_bps": "0" if i != 1 else None,
            "violated": (),
            "reason": "" if i != 1 else "reverted",
        }
    )
    adapter = AdapterCell(
        price=None if bad else price_text(said),
        origin="none" if bad else "source",
        paused=("pause",) if bad else (),
    )
    return TimelineRow(
        t=_t(i),
        block=i,
        feeds={"COIN/USD": cell, "COIN/USD reference": reference},
        adapted={"COIN/USD": adapter},
    )


def replay_record() -> ReplayRecord:
    """Return the record; the same at every call."""
    model = LtvModel(MARKETS)
    accounts = [Account("saver", {"COIN": 10**6 * 10**18}, {"USDC": 50_000 * 10**6})]
    thieves = [Borrower("attacker", {"COIN": 8 * 10**6 * 10**18}, "USDC")]
    runs = {
        run: play_accounts(model, _steps(run), accounts, thieves, guarded=run == "guarded")
        for run in ("unguarded", "guarded", "truthful")
    }
    return ReplayRecord(
        tool_version="0.0.0",
        scenario_id="coin-at-its-floor",
        scenario_sha256="ab" * 32,
        data=(DataFile(what="COIN/USD", sha256="cd" * 32),),
        seed=None,
        setting="synthetic: the scenario's mechanisms play its truth",
        title="COIN stands at its floor | while the market falls",
        date="2022-05-12",
        record="documented",
        depth="deep",
        mechanism="bound",
        summary="The aggregator refuses answers below its minimum.",
        published_loss_usd="11200000",
        chain_id=56,
        chain_kind="l1",
        block_time_s=3,
        start=START,
        end=_t(len(TRUTH) - 1),
        step_s=STEP_S,
        quote="USD",
        feeds=(
            FeedInfo(name="COIN/USD", kind="chainlink", role="protocol", pair="COIN/USD", decimals=8),
            FeedInfo(
                name="COIN/USD reference", kind="chainlink", role="reference", pair="COIN/USD", decimals=8
            ),
        ),
        faults=(
            FaultInfo(
                feed="COIN/USD",
                op="freeze",
                at=_t(3),
                until=None,
                ours=False,
                note="beyond <the> bound",
                parameters={"value": "0.107"},
            ),
        ),
        timeline=tuple(_row(i, text) for i, text in enumerate(TRUTH)),
        fired=(
            FiredRow(
                t=_t(2),
                feed="COIN/USD",
                guard="G06",
                name="bound",
                observed="10700000",
                threshold="> 10000000 + 1000 bps",
                actions=("pause", "reject"),
                message="answer 10700000 is within 1000 bps of the feed's minimum 10000000",
                inputs={"mantissa": "10700000"},
            ),
        ),
        guards=(
            GuardCount(
                feed="COIN/USD", guard="G06", name="bound", ok=2, violated=7, not_applicable=0, message=""
            ),
            GuardCount(
                feed="COIN/USD",
                guard="G10",
                name="sequencer",
                ok=0,
                violated=0,
                not_applicable=9,
                message="not applicable: no uptime feed",
            ),
        ),
        summaries=(
            FeedSummary(
                feed="COIN/USD",
                tolerance_bps=100,
                first_divergence=_t(3),
                max_deviation_bps=str(_bps(FLOOR, Fraction("0.0113"))),
                max_deviation_at=_t(7),
                mispriced_s=6 * STEP_S,
                missing_s=0,
                detected_at=_t(3),
                detected_by=("G06",),
                detection_delay_s=0,
                first_refused=_t(2),
                accepted_mispriced_s=0,
            ),
        ),
        economics=EconomicsRuns(
            model=model.label,
            exact=False,
            notes=("the scenario names no keeper: one without limits is assumed",),
            markets=(
                MarketInfo(
                    symbol="COIN",
                    decimals=18,
                    pair="COIN/USD",
                    feed="COIN/USD",
                    max_ltv_bps=5_500,
                    liquidation_threshold_bps=5_500,
                    liquidation_bonus_bps=1_000,
                    slippage_bps=500,
                    liquidity=None,
                ),
            ),
            unguarded=_economics(runs["unguarded"]),
            guarded=_economics(runs["guarded"]),
            truthful=_economics(runs["truthful"]),
        ),
        matrix=MatrixRecord(
            alone=(
                AblationRow(
                    guard="G06",
                    name="bound",
                    parameters={"epsilon_bps": "1000"},
                    applicable=True,
                    first_fired=_t(2),
                    delay_s=0,
                    covered_bps=10_000,
                    bad_debt_usd="0.00",
                    wrongly_seized_usd="0.00",
                    verdict="stops",
                ),
                AblationRow(
                    guard="G10",
                    name="sequencer",
                    parameters={},
                    applicable=False,
                    first_fired=None,
                    delay_s=None,
                    covered_bps=None,
                    bad_debt_usd=None,
                    wrongly_seized_usd=None,
                    verdict="not applicable",
                ),
            ),
            sweep=(
                SweepPoint(
                    guard="G06",
                    name="bound",
                    parameter="epsilon_bps",
                    value="500",
                    default=False,
                    first_fired=None,
                    covered_bps=0,
                    bad_debt_usd="430000.00",
                    wrongly_seized_usd="0.00",
                    verdict="no effect",
                ),
            ),
            false_alarms=(
                AlarmPoint(
                    guard="G06",
                    parameter="epsilon_bps",
                    threshold="1000",
                    default=True,
                    part="shown",
                    set="calm",
                    observations=12_000,
                    false_alarms=3,
                    faults=40,
                    misses=1,
                ),
            ),
            left_out={"G10": "no uptime feed"},
        ),
        checks=(
            CheckRow(text="bad debt, guarded", expected="<= 0", actual="0.00", ok=True),
            CheckRow(text="G06 on COIN/USD", expected="by 10:00", actual="<b>never</b>", ok=False),
        ),
        finding=Finding(
            title="A feed at its bound is taken for a price",
            severity="Medium",
            severity_reason="A loss needs a fall below the bound.",
            checklist_ids=("SOL-Defi-Oracle-14",),
            description="The feed stays at its minimum.",
            impact="$0.43 m of bad debt.",
            recommendation="Compare the answer with the aggregator's bounds.",
            references=("reference: oracles",),
        ),
        provenance=(
            ClaimRow(
                claim="the feed paused at 0.107",
                source="post-mortem",
                url="https://example.org/luna",
                confidence="documented",
            ),
        ),
    )


def with_answers(answers: Sequence[tuple[int | None, str]], decimals: int) -> ReplayRecord:
    """Return the record with other answers of the protocol's feed.

    Parameters
    ----------
    answers
        Answer (None: the feed reverts) and true price at each step; the last pair holds to the end.
    decimals
        Scale of the answers.
    """
    record = replay_record()
    rows = []
    for i, row in enumerate(record.timeline):
        answer, truth = answers[min(i, len(answers) - 1)]
        off = None if answer is None else _bps(Fraction(answer, 10**decimals), Fraction(truth))
        cell = row.feeds["COIN/USD"].model_copy(
            update={
                "truth": truth,
                "raw": None if answer is None else price_text(Fraction(answer, 10**decimals)),
                "mantissa": None if answer is None else str(answer),
                "decimals": None if answer is None else decimals,
                "published_at": None if answer is None else row.t,
                "deviation_bps": None if off is None else str(off),
            }
        )
        rows.append(row.model_copy(update={"feeds": {**row.feeds, "COIN/USD": cell}}))
    cells = [(row.t, row.feeds["COIN/USD"].deviation_bps) for row in rows]
    size, at, worst = max((abs(int(bps)), -t, bps) for t, bps in cells if bps is not None)
    summary = record.summaries[0].model_copy(
        update={"max_deviation_bps": worst if size else "0", "max_deviation_at": -at}
    )
    feeds = (record.feeds[0].model_copy(update={"decimals": decimals}), *record.feeds[1:])
    return record.model_copy(update={"timeline": tuple(rows), "summaries": (summary,), "feeds": feeds})
