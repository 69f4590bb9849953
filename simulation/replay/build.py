"""One function from a scenario to everything that is said of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Final

from oracle.scenario import feed_pair
from oracle.types import GuardStatus, NoData
from simulation.replay.economics import Economics, Event, Level, play_accounts
from simulation.replay.expectations import check_all
from simulation.replay.finding import draft
from simulation.replay.market import Run, Setting, setting_of, steps_of
from simulation.replay.matrix import matrix_of
from simulation.replay.record import (
    ActionRow,
    AdapterCell,
    ClaimRow,
    DataFile,
    EconomicsRecord,
    EconomicsRuns,
    FaultInfo,
    FeedCell,
    FeedInfo,
    FiredRow,
    GuardCount,
    MarketInfo,
    ReplayRecord,
    TimelineRow,
)
from simulation.replay.seams import Fault, FeedMoment, Moment, Replay, Scenario, replay
from simulation.replay.summary import summarise, violated
from simulation.replay.text import money_text, price_text, token_text

SETTING = "synthetic: the scenario's mechanisms play its truth, no chain was asked"


def run_replay(
    scenario: Scenario,
    *,
    tool_version: str,
    matrix: bool = True,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> ReplayRecord:
    """Replay a scenario and return the record of it.

    Parameters
    ----------
    tool_version
        Stands in the record.
    matrix
        Whether to replay it with each guard alone as well, which takes most of the time.
    on_progress
        Called with what is done, how much of it, and how much there is.

    Raises
    ------
    InputError
        If the scenario expects what cannot be answered.
    """

    def tell(what: str, done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(what, done, total)

    tell("prices and guards", 0, 1)
    played = replay(scenario)
    tell("prices and guards", 1, 1)
    setting = setting_of(scenario)
    runs: dict[Run, Economics] = {} if setting is None else play_market(played, setting, tell)
    summaries = summarise(played)
    checks = check_all(played, summaries, runs)
    grid = None
    if matrix:
        grid = matrix_of(played, setting, runs, on_run=lambda i, n: tell("each guard alone", i, n))
    fired = fired_rows(played)
    pair = None if setting is None else _pair(setting, runs)
    claims = tuple(
        ClaimRow(claim=c.claim, source=c.source, url=c.url, confidence=c.confidence)
        for c in scenario.provenance
    )
    rows = tuple(_row(moment) for moment in played.moments)
    worst = max(
        (s for s in summaries if s.max_deviation_bps is not None),
        key=lambda s: abs(int(s.max_deviation_bps or 0)),
        default=None,
    )
    cell = None
    if worst is not None:
        cell = next(r.feeds[worst.feed] for r in rows if r.t == worst.max_deviation_at)
    loss = None if scenario.loss_usd is None else price_text(Fraction(scenario.loss_usd))
    return ReplayRecord(
        tool_version=tool_version,
        scenario_id=scenario.id,
        scenario_sha256=scenario.sha256,
        data=data_files(scenario),
        seed=None,
        setting=SETTING,
        title=scenario.title,
        date=str(scenario.date),
        record=scenario.record,
        depth=scenario.depth,
        mechanism=scenario.mechanism,
        summary=" ".join(scenario.summary.split()),
        published_loss_usd=loss,
        chain_id=scenario.chain.id,
        chain_kind=scenario.chain.kind,
        block_time_s=scenario.chain.block_time_s,
        start=scenario.clock.start,
        end=scenario.clock.end,
        step_s=scenario.clock.step_s,
        quote="USD" if setting is None else setting.quote,
        feeds=tuple(
            FeedInfo(
                name=name,
                kind=feed.kind,
                role=feed.role,
                pair=feed_pair(scenario, name),
                decimals=feed.decimals,
            )
            for name, feed in scenario.feeds.items()
        ),
        faults=tuple(_fault(fault) for fault in scenario.faults),
        timeline=rows,
        fired=fired,
        guards=guard_counts(played),
        summaries=summaries,
        economics=pair,
        matrix=grid,
        checks=checks,
        finding=draft(
            title=scenario.title,
            mechanism=scenario.mechanism,
            worst=worst,
            cell=cell,
            economics=pair,
            fired=fired,
            alone=() if grid is None else grid.alone,
            provenance=claims,
            published_loss_usd=loss,
        ),
        provenance=claims,
    )


def data_files(scenario: Scenario) -> tuple[DataFile, ...]:
    """Return the files that truths and recorded feeds were read from, by their hashes."""
    named = [*scenario.truth.items(), *scenario.feeds.items()]
    files = [(what, getattr(spec, "file", None)) for what, spec in named]
    return tuple(DataFile(what=what, sha256=file.sha256) for what, file in files if file is not None)


def play_market(
    played: Replay, setting: Setting, tell: Callable[[str, int, int], None] | None = None
) -> dict[Run, Economics]:
    """Return the runs of one market: unguarded, guarded, and at the truth."""
    runs = {}
    total = len(played.moments)
    for run in Run:

        def done(i: int, name: str = run.value) -> None:
            if tell is not None:
                tell(f"accounts, {name}", i + 1, total)

        runs[run] = play_accounts(
            setting.model,
            steps_of(played, setting, run),
            setting.positions,
            setting.borrowers,
            setting.keepers,
            guarded=run is Run.GUARDED,
            on_step=done,
        )
    return runs


# --------------------------------------------------------------------------------------------------- timeline


def _row(moment: Moment) -> TimelineRow:
    return TimelineRow(
        t=moment.t,
        block=moment.block,
        feeds={name: _cell(cell) for name, cell in moment.feeds.items()},
        adapted={
            name: AdapterCell(
                price=None
                if adapted.price is None
                else price_text(Fraction(adapted.price.mantissa, 10**adapted.price.decimals)),
                origin=adapted.origin.value,
                paused=tuple(sorted(action.value for action in adapted.paused)),
            )
            for name, adapted in moment.adapted.items()
        },
    )


def _cell(cell: FeedMoment) -> FeedCell:
    reading = cell.reading
    silent = isinstance(reading, NoData)
    return FeedCell(
        truth=price_text(cell.truth),
        raw=None
        if isinstance(reading, NoData)
        else price_text(Fraction(reading.mantissa, 10**reading.decimals)),
        mantissa=None if isinstance(reading, NoData) else str(reading.mantissa),
        decimals=None if isinstance(reading, NoData) else reading.decimals,
        published_at=None if isinstance(reading, NoData) else reading.published_at,
        status=cell.guarded.status.value,
        deviation_bps=None if cell.deviation_bps is None else str(cell.deviation_bps),
        violated=violated(cell),
        reason=reading.reason if silent and isinstance(reading, NoData) else "",
    )


def fired_rows(played: Replay) -> tuple[FiredRow, ...]:
    """Return the first violations, in time order."""
    return tuple(
        FiredRow(
            t=f.t,
            feed=f.feed,
            guard=f.finding.guard,
            name=f.finding.name,
            observed=f.finding.observed,
            threshold=f.finding.threshold,
            actions=tuple(sorted(action.value for action in f.finding.actions)),
            message=f.finding.message,
            inputs=dict(sorted(f.finding.inputs.items())),
        )
        for f in sorted(played.fired, key=lambda f: (f.t, f.feed, f.finding.guard, f.finding.name))
    )


def guard_counts(played: Replay) -> tuple[GuardCount, ...]:
    """Return what each guard said of each feed over all steps."""
    counts: dict[tuple[str, str, str], dict[GuardStatus, int]] = {}
    lacks: dict[tuple[str, str, str], str] = {}
    for moment in played.moments:
        for name, cell in moment.feeds.items():
            for f in cell.guarded.findings:
                if f.source_id != cell.reading.source_id:
                    continue
                key = (name, f.guard, f.name)
                seen = counts.setdefault(key, dict.fromkeys(GuardStatus, 0))
                seen[f.status] += 1
                if f.status is GuardStatus.NOT_APPLICABLE:
                    lacks.setdefault(key, f.message)
    return tuple(
        GuardCount(
            feed=key[0],
            guard=key[1],
            name=key[2],
            ok=seen[GuardStatus.OK],
            violated=seen[GuardStatus.VIOLATED],
            not_applicable=seen[GuardStatus.NOT_APPLICABLE],
            message="" if seen[GuardStatus.OK] + seen[GuardStatus.VIOLATED] else lacks.get(key, ""),
        )
        for key, seen in sorted(counts.items())
    )


_FAULT_BASE: Final = frozenset({"op", "kind", "stage", "feed", "at", "until", "ours", "note"})


def _fault(fault: Fault) -> FaultInfo:
    return FaultInfo(
        feed=fault.feed,
        op=fault.kind,
        at=fault.at,
        until=fault.until,
        ours=fault.ours,
        note=fault.note,
        parameters={
            name: str(value) for name, value in fault if name not in _FAULT_BASE and value is not None
        },
    )


# -------------------------------------------------------------------------------------------------- economics


def _pair(setting: Setting, runs: Mapping[Run, Economics]) -> EconomicsRuns:
    at = _widest(runs[Run.UNGUARDED].levels)
    return EconomicsRuns(
        markets=tuple(
            MarketInfo(
                symbol=symbol,
                decimals=market.decimals,
                pair=setting.pricing[symbol].pair,
                feed=setting.pricing[symbol].feed,
                max_ltv_bps=market.max_ltv_bps,
                liquidation_threshold_bps=market.liquidation_threshold_bps,
                liquidation_bonus_bps=market.liquidation_bonus_bps,
                slippage_bps=market.slippage_bps,
                liquidity=None
                if market.liquidity_raw is None
                else token_text(market.liquidity_raw, market.decimals),
            )
            for symbol, market in setting.model.markets.items()
        ),
        model=setting.model.label,
        exact=setting.exact,
        notes=setting.notes,
        unguarded=_economics(runs[Run.UNGUARDED], setting, at),
        guarded=_economics(runs[Run.GUARDED], setting, at),
        truthful=_economics(runs[Run.TRUTHFUL], setting, at),
    )


def _economics(run: Economics, setting: Setting, at: int | None) -> EconomicsRecord:
    level = None if at is None else run.levels[at]
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
        borrowable_at=None if level is None else level.t,
        borrowable_reported_usd=None
        if level is None or level.borrowable is None
        else money_text(level.borrowable),
        borrowable_truth_usd=None if level is None else money_text(level.borrowable_truth),
        actions=tuple(_action(event, setting) for event in run.events),
        bad_debt_by_step=tuple(money_text(level.bad_debt) for level in run.levels),
    )


def _widest(levels: Sequence[Level]) -> int | None:
    """Return the step at which what may be borrowed differs most from what the truth allows."""
    gaps = [
        (abs(level.borrowable - level.borrowable_truth), -i)
        for i, level in enumerate(levels)
        if level.borrowable is not None
    ]
    return -max(gaps)[1] if gaps else None


def _action(event: Event, setting: Setting) -> ActionRow:
    markets = setting.model.markets

    def amount(asset: str, raw: int) -> str:
        return token_text(raw, markets[asset].decimals) if asset else "0"

    return ActionRow(
        t=event.t,
        block=event.block,
        deed=event.deed.value,
        account=event.account,
        by=event.by,
        debt=event.debt,
        debt_amount=amount(event.debt, event.debt_raw),
        debt_usd=money_text(event.debt_value),
        collateral=event.collateral,
        collateral_amount=amount(event.collateral, event.collateral_raw),
        collateral_usd=money_text(event.collateral_value),
        wrong=event.wrong,
        detail=event.detail,
    )
