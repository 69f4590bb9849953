"""Whether what a scenario expects of its replay came true, assertion by assertion.

``guard``
    The guard with `id` was violated on `feed` (any feed without one), at `by` the latest, and asked for
    `action`.
``reported``
    What `feed` said at `at` (or at the last step before it) compares with `value`.
``deviation_bps``
    The feed's deviation from the truth at `at`, signed; without `at` the largest one of the clock.
``minutes_mispriced``
    Minutes in which the feed stood further from the truth than its tolerance.
``bad_debt_usd``, ``wrongly_liquidated_usd``, ``attacker_profit_usd``
    At the end of the clock, `with` the guards or without them (the default). Wrongly liquidated is the
    collateral seized from accounts that were healthy at true prices.

``==`` allows `tolerance_bps` of the expected value on either side.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Final

from contracts_abi.errors import InputError
from oracle.types import NoData
from simulation.replay.economics import Economics
from simulation.replay.market import Run
from simulation.replay.record import CheckRow, FeedSummary
from simulation.replay.seams import Expectation, FeedMoment, Replay
from simulation.replay.text import decimal_of, money_text, price_text, stamp

_COMPARE: Final[Mapping[str, Callable[[Fraction, Fraction], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">=": operator.ge,
    ">": operator.gt,
}

ECONOMIC: Final[Mapping[str, Callable[[Economics], Fraction]]] = {
    "bad_debt_usd": lambda run: run.bad_debt,
    "wrongly_liquidated_usd": lambda run: run.wrongly_seized,
    "attacker_profit_usd": lambda run: run.attacker_profit,
}


def check_all(
    replay: Replay, summaries: Sequence[FeedSummary], runs: Mapping[Run, Economics]
) -> tuple[CheckRow, ...]:
    """Return one row for each expectation of the scenario, in the file's order.

    Parameters
    ----------
    summaries
        Of `simulation.replay.summary.summarise`.
    runs
        Of `simulation.replay.build.play_market`; empty when the scenario names no protocol.

    Raises
    ------
    InputError
        On an expectation that cannot be answered: figures of a market that the scenario does not have, a
        time outside the clock, a value missing.
    """
    return tuple(
        check(expectation, i, replay, summaries, runs) for i, expectation in enumerate(replay.scenario.expect)
    )


def check(
    expectation: Expectation,
    index: int,
    replay: Replay,
    summaries: Sequence[FeedSummary],
    runs: Mapping[Run, Economics],
) -> CheckRow:
    """Return what came of one expectation; `index` is its place in the file, for messages."""
    where = f"expect.{index} ({expectation.assert_})"
    kind = expectation.assert_
    if kind == "guard":
        return _guard(expectation, replay)
    if kind in ECONOMIC:
        run = runs.get(Run(expectation.with_ or "unguarded"))
        if run is None:
            raise InputError(
                f"{where}: the scenario has no lending market", fix="add [protocol] and [[positions]]"
            )
        actual = ECONOMIC[kind](run)
        text = f"{kind.removesuffix('_usd').replace('_', ' ')}, {expectation.with_ or 'unguarded'}"
        return _compared(expectation, where, text, actual, money_text(actual))
    feed = _feed(expectation, where, replay, summaries)
    if kind == "minutes_mispriced":
        minutes = Fraction(_of(summaries, feed, where).mispriced_s, 60)
        return _compared(expectation, where, f"minutes mispriced, {feed}", minutes, price_text(minutes))
    if kind == "deviation_bps" and expectation.at is None:
        worst = _of(summaries, feed, where).max_deviation_bps
        return _of_cell(
            expectation, where, f"largest deviation of {feed}, bps", None if worst is None else int(worst)
        )
    cell = _cell(expectation, where, replay, feed)
    at = stamp(expectation.at) if expectation.at is not None else ""
    if kind == "deviation_bps":
        return _of_cell(expectation, where, f"deviation of {feed} at {at}, bps", cell.deviation_bps)
    if kind == "reported":
        return _reported(expectation, where, f"{feed} at {at}", cell)
    raise InputError(f"{where}: no such assertion")


def _guard(expectation: Expectation, replay: Replay) -> CheckRow:
    on = expectation.feed
    first = min(
        (f for f in replay.fired if f.finding.guard == expectation.id and on in (None, f.feed)),
        key=lambda f: f.t,
        default=None,
    )
    expected = f"{expectation.id} violated"
    if expectation.by is not None:
        expected += f" by {stamp(expectation.by)}"
    if expectation.action is not None:
        expected += f", asking to {expectation.action.lower()}"
    text = f"guard {expectation.id} on {on or 'any feed'}"
    if first is None:
        return CheckRow(text=text, expected=expected, actual="never violated", ok=False)
    actions = sorted(a.value for a in first.finding.actions)
    in_time = expectation.by is None or first.t <= expectation.by
    asked = expectation.action is None or expectation.action.lower() in actions
    actual = f"violated at {stamp(first.t)}, asking to {' and '.join(actions) or 'do nothing'}"
    return CheckRow(text=text, expected=expected, actual=actual, ok=in_time and asked)


def _feed(expectation: Expectation, where: str, replay: Replay, summaries: Sequence[FeedSummary]) -> str:
    """Return the feed that an expectation is about: its own, or the only one that the protocol reads."""
    named: str | None = expectation.feed
    if named is not None:
        return named
    if len(summaries) == 1:
        return summaries[0].feed
    raise InputError(f"{where}: names no feed", fix=f"one of: {', '.join(replay.scenario.feeds)}")


def _of(summaries: Sequence[FeedSummary], feed: str, where: str) -> FeedSummary:
    for summary in summaries:
        if summary.feed == feed:
            return summary
    raise InputError(
        f"{where}: {feed} is no feed that the protocol reads",
        fix=f"one of: {', '.join(s.feed for s in summaries)}",
    )


def _cell(expectation: Expectation, where: str, replay: Replay, feed: str) -> FeedMoment:
    at = expectation.at
    if at is None:
        raise InputError(f"{where}: needs the time that it is about", fix="add at = …")
    past = [m for m in replay.moments if m.t <= at]
    if not past or at > replay.moments[-1].t:
        clock = replay.scenario.clock
        raise InputError(
            f"{where}: {stamp(at)} is outside the clock",
            fix=f"a time from {stamp(clock.start)} to {stamp(clock.end)}",
        )
    return past[-1].feeds[feed]


def _of_cell(expectation: Expectation, where: str, text: str, actual: int | None) -> CheckRow:
    if actual is None:
        return CheckRow(text=text, expected=_wanted(expectation, where)[1], actual="no answer", ok=False)
    return _compared(expectation, where, text, Fraction(actual), str(actual))


def _reported(expectation: Expectation, where: str, text: str, cell: FeedMoment) -> CheckRow:
    reading = cell.reading
    if isinstance(reading, NoData):
        expected = _wanted(expectation, where)[1]
        return CheckRow(text=text, expected=expected, actual=f"no answer: {reading.reason}", ok=False)
    price = Fraction(reading.mantissa, 10**reading.decimals)
    return _compared(expectation, where, text, price, price_text(price))


def _wanted(expectation: Expectation, where: str) -> tuple[Fraction, str]:
    """Return the expected value, and the comparison as text."""
    if expectation.value is None or expectation.op is None:
        raise InputError(f"{where}: needs op and value", fix='for example op = "<=", value = "0"')
    try:
        value = Fraction(str(expectation.value))
    except (ValueError, ZeroDivisionError):
        raise InputError(
            f"{where}: value {expectation.value!r} is not a number", fix="write it as a decimal"
        ) from None
    allowed = expectation.tolerance_bps
    text = f"{expectation.op} {price_text(value)}" + (f" within {allowed} bps" if allowed else "")
    return value, text


def _compared(expectation: Expectation, where: str, text: str, actual: Fraction, shown: str) -> CheckRow:
    value, expected = _wanted(expectation, where)
    if expectation.op == "==":
        room = abs(value) * (expectation.tolerance_bps or 0) / 10_000
        # Without a tolerance a figure is compared as exactly as it was written.
        places = 0 if room else -int(decimal_of(value).normalize().as_tuple().exponent)
        exact = actual if room else round(actual * 10 ** max(places, 0)) / Fraction(10 ** max(places, 0))
        ok = abs(exact - value) <= room
    else:
        ok = _COMPARE[expectation.op or ""](actual, value)
    return CheckRow(text=text, expected=expected, actual=shown, ok=ok)
