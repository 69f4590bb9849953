"""Which single guard would have stopped it, at which threshold, and how often it cries on ordinary days."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from typing import Any, Final, Literal, TypeAlias, cast

from pydantic import ValidationError

from contracts_abi.errors import DataError
from oracle.guards import GuardModel, guards
from oracle.types import GuardStatus
from simulation.replay.economics import Economics, Step, play_accounts
from simulation.replay.market import Run, Setting, steps_of
from simulation.replay.record import AblationRow, AlarmPoint, MatrixRecord, SweepPoint
from simulation.replay.seams import Replay, Scenario, guards_of, replay
from simulation.replay.summary import summarise
from simulation.replay.text import money_text

Verdict: TypeAlias = Literal["stops", "reduces", "no effect", "worse", "not applicable", "detects", "silent"]

FACTORS: Final = (Fraction(1, 4), Fraction(1, 2), Fraction(1), Fraction(2), Fraction(4))
"""Thresholds of the sweep as multiples of the guard's own."""

PRESENCE: Final = ("no_data", "non_positive")
"""Guards that stand beside each single one: without a price there is nothing to judge."""

_STOPS: Final = Fraction(1, 100)
_CALIBRATION: Final = "calibration.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A replay with some guards, in the figures that decide.

    Attributes
    ----------
    applicable
        Whether a guard beside presence ever had its inputs.
    first_fired
        First violation of it on a feed that the protocol reads.
    delay_s
        From the first divergence of that feed.
    covered_bps
        Share of the mispriced seconds at which the feed was refused; None when none was mispriced.
    bad_debt, wrongly_seized
        Of the guarded run; None without a market.
    """

    applicable: bool
    first_fired: int | None
    delay_s: int | None
    covered_bps: int | None
    bad_debt: Fraction | None
    wrongly_seized: Fraction | None


def matrix_of(
    full: Replay,
    setting: Setting | None,
    runs: Mapping[Run, Economics],
    *,
    on_run: Callable[[int, int], None] | None = None,
) -> MatrixRecord:
    """Replay the scenario with each guard alone, and with its threshold moved.

    Parameters
    ----------
    full
        The replay with all guards; its guards are the ones that are tried.
    setting, runs
        The market, and its runs to compare with; None and empty without a market.
    on_run
        Called with the number of runs done and of all, for a progress bar.
    """
    scenario = full.scenario
    market = None if setting is None else _Market(setting)
    singles = [g for g in matrix_guards(scenario) if g.kind not in PRESENCE]
    swept = [(g, name, value, default) for g in singles for name, value, default in thresholds(g)]
    total, done = len(singles) + len(swept), 0

    def run(guard: GuardModel) -> Outcome:
        nonlocal done
        outcome = alone(scenario, guard, market)
        done += 1
        if on_run is not None:
            on_run(done, total)
        return outcome

    rows = []
    applicable = set()
    for guard in singles:
        outcome = run(guard)
        if outcome.applicable:
            applicable.add(guard.kind)
        rows.append(_row(guard, outcome, runs))
    points = [
        _point(guard, name, value, default, run(changed(guard, name, value)), runs)
        for guard, name, value, default in swept
        if guard.kind in applicable
    ]
    if on_run is not None:
        on_run(total, total)
    alarms, left_out = calibration()
    return MatrixRecord(alone=tuple(rows), sweep=tuple(points), false_alarms=alarms, left_out=left_out)


def matrix_guards(scenario: Scenario) -> tuple[GuardModel, ...]:
    """Return the guards that the replay holds feeds to, at the policy's thresholds."""
    held = cast("tuple[GuardModel, ...]", guards_of(scenario))
    return held if scenario.policy.guards is not None else tuple(sorted(held, key=lambda g: g.kind))


def thresholds(guard: GuardModel) -> list[tuple[str, int, bool]]:
    """Return what to try for each whole-number parameter: name, value, whether it is the guard's own."""
    out = []
    for name, own in guard:
        if isinstance(own, bool) or not isinstance(own, int):
            continue
        values = sorted({round(own * factor) for factor in FACTORS} | {own})
        out += [(name, value, value == own) for value in values if _fits(guard, name, value)]
    return out


def changed(guard: GuardModel, name: str, value: int) -> GuardModel:
    """Return the guard with one parameter changed, checked again."""
    return type(guard).model_validate({**dict(guard), name: value})


def _fits(guard: GuardModel, name: str, value: int) -> bool:
    try:
        changed(guard, name, value)
    except ValidationError:
        return False
    return True


class _Market:
    """Plays a market at guarded decisions, each different course of prices once: most guards change none."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._played: list[tuple[tuple[Step, ...], Economics]] = []

    def play(self, played: Replay) -> Economics:
        """Return the guarded run of a replay."""
        setting = self._setting
        steps = steps_of(played, setting, Run.GUARDED)
        for known, run in self._played:
            if known == steps:
                return run
        run = play_accounts(
            setting.model, steps, setting.positions, setting.borrowers, setting.keepers, guarded=True
        )
        self._played.append((steps, run))
        return run


def alone(scenario: Scenario, guard: GuardModel, market: _Market | None) -> Outcome:
    """Replay with one guard beside presence."""
    held = [*(guards.build({"kind": kind}) for kind in PRESENCE), guard]
    # Without a second price to fall back on: that would bound what is lent by itself, with any guard.
    played = replay(scenario, guards=held, fallback=False)
    names = [name for name, feed in scenario.feeds.items() if feed.role == "protocol"]
    fired = [f for f in played.fired if f.finding.name == guard.kind and f.feed in names]
    summaries = {s.feed: s for s in summarise(played)}
    first = min((f.t for f in fired), default=None)
    delays = [max(0, f.t - start) for f in fired if (start := summaries[f.feed].first_divergence) is not None]
    off = sum(s.mispriced_s for s in summaries.values())
    let_through = sum(s.accepted_mispriced_s for s in summaries.values())
    run = None if market is None else market.play(played)
    return Outcome(
        applicable=any(
            f.name == guard.kind and f.status is not GuardStatus.NOT_APPLICABLE
            for m in played.moments
            for name in names
            for f in m.feeds[name].guarded.findings
        ),
        first_fired=first,
        delay_s=min(delays, default=None),
        covered_bps=(off - let_through) * 10_000 // off if off else None,
        bad_debt=None if run is None else run.bad_debt,
        wrongly_seized=None if run is None else run.wrongly_seized,
    )


def verdict(outcome: Outcome, runs: Mapping[Run, Economics]) -> Verdict:
    """Return what a guard alone makes of it.

    With a market: ``stops`` when at most a hundredth of the harm is left, ``reduces`` when less is left than
    without it, ``worse`` when more. The harm is the bad debt and the collateral wrongly seized, beyond what
    is lost when the feeds tell the truth. Without a market, or without harm, it ``detects`` or is
    ``silent``.
    """
    if not outcome.applicable:
        return "not applicable"
    seen: Verdict = "silent" if outcome.first_fired is None else "detects"
    if not runs or outcome.bad_debt is None or outcome.wrongly_seized is None:
        return seen
    before, unavoidable = _harm(runs[Run.UNGUARDED]), _harm(runs[Run.TRUTHFUL])
    after = outcome.bad_debt + outcome.wrongly_seized
    if after == before:
        return "no effect" if before > unavoidable else seen
    if after > before:
        return "worse"
    return "stops" if after - unavoidable <= (before - unavoidable) * _STOPS else "reduces"


def _harm(run: Economics) -> Fraction:
    return run.bad_debt + run.wrongly_seized


def _row(guard: GuardModel, outcome: Outcome, runs: Mapping[Run, Economics]) -> AblationRow:
    known = outcome.applicable
    return AblationRow(
        guard=guard.id,
        name=guard.kind,
        parameters={name: str(value) for name, value in guard if value is not None},
        applicable=known,
        first_fired=outcome.first_fired,
        delay_s=outcome.delay_s,
        covered_bps=outcome.covered_bps if known else None,
        bad_debt_usd=_money(outcome.bad_debt) if known else None,
        wrongly_seized_usd=_money(outcome.wrongly_seized) if known else None,
        verdict=verdict(outcome, runs),
    )


def _point(
    guard: GuardModel, name: str, value: int, default: bool, outcome: Outcome, runs: Mapping[Run, Economics]
) -> SweepPoint:
    return SweepPoint(
        guard=guard.id,
        name=guard.kind,
        parameter=name,
        value=str(value),
        default=default,
        first_fired=outcome.first_fired,
        covered_bps=outcome.covered_bps,
        bad_debt_usd=_money(outcome.bad_debt),
        wrongly_seized_usd=_money(outcome.wrongly_seized),
        verdict=verdict(outcome, runs),
    )


def _money(value: Fraction | None) -> str | None:
    return None if value is None else money_text(value)


def calibration(text: str | None = None) -> tuple[tuple[AlarmPoint, ...], dict[str, str]]:
    """Return false alarms and misses on real rounds, and the guards without a calibration.

    Parameters
    ----------
    text
        The calibration's JSON; by default the one packaged with `oracle`, nothing where there is none.

    Raises
    ------
    DataError
        If it is not a calibration.
    """
    if text is None:
        file = files("oracle") / _CALIBRATION
        if not file.is_file():
            return (), {}
        text = file.read_text(encoding="utf-8")
    try:
        raw: dict[str, Any] = json.loads(text)
        left_out = {str(k): str(v) for k, v in raw.pop("left_out", {}).items()}
        points = [point for kind, entry in sorted(raw.items()) for point in _alarms(kind, entry)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"oracle calibration: not in its format: {error!r}") from None
    return tuple(points), dict(sorted(left_out.items()))


def _alarms(kind: str, entry: Mapping[str, Any]) -> Iterable[AlarmPoint]:
    default = str(entry["default"])
    for p in entry["points"]:
        yield AlarmPoint(
            guard=kind,
            parameter=str(entry["parameter"]),
            threshold=str(p["threshold"]),
            default=str(p["threshold"]) == default,
            part=str(p["part"]),
            set=str(p["set"]),
            observations=int(p["observations"]),
            false_alarms=int(p["false_alarms"]),
            faults=int(p["faults"]),
            misses=int(p["misses"]),
        )
