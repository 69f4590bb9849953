"""Holds whole columns of observations against the guards, with the same answers as one reading at a time.

`judge_columns` walks the rows once in compiled code: what was accepted before, and so what the next price is
held against, depends on every judgement so far. `judge_readings` is the same walk in plain Python, by the
guards' own ``check``; tests hold the two against each other row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from contracts_abi.errors import InputError
from oracle.columns import LARGEST, UNKNOWN, Columns
from oracle.guards import GuardModel
from oracle.guards.confidence import ConfidenceGuard
from oracle.guards.magnitude import BoundGuard, JumpGuard
from oracle.guards.peers import (
    MARKET_KINDS,
    STATED_KINDS,
    CrossDeviationGuard,
    DepegGuard,
    HardcodedGuard,
    UnitGuard,
    named_pair,
    plain_symbol,
)
from oracle.guards.timing import WRITTEN_ONCE, FutureGuard, StaleGuard
from oracle.interfaces import FeedContext, Guard
from oracle.snapshot import HISTORY_LENGTH, REQUIRED, contradicted, judge, longer
from oracle.types import FeedKind, GuardedPrice, GuardStatus, PriceObs, PriceStatus, Reading

F = TypeVar("F", bound=Callable[..., Any])
Codes: TypeAlias = NDArray[np.int8]

_BPS: Final = 10_000
_INT64_MAX: Final = 2**63 - 1


class Code(IntEnum):
    """What a guard says of a row; the order of `oracle.types.GuardStatus`."""

    OK = 0
    VIOLATED = 1
    NOT_APPLICABLE = 2


STATUS: Final[Mapping[Code, GuardStatus]] = {
    Code.OK: GuardStatus.OK,
    Code.VIOLATED: GuardStatus.VIOLATED,
    Code.NOT_APPLICABLE: GuardStatus.NOT_APPLICABLE,
}

SERIES_GUARDS: Final = (
    "no_data",
    "non_positive",
    "stale",
    "future",
    "rollback",
    "bound",
    "jump",
    "cross_dev",
    "confidence",
    "unit",
    "wrong_feed",
    "hardcoded",
    "depeg",
)
"""Guards that need no more than a series of prices, what its feed promises, and a second series."""

LACKS: Final[Mapping[str, str]] = {
    "sequencer": "the answers of a sequencer uptime feed",
    "spot": "that the price is a pool's spot price",
    "thin_twap": "window, cardinality and liquidity of a pool",
    "rate_jump": "an exchange rate and its supply",
    "cap_misconfigured": "a cap and the live rate",
    "reentrancy": "a probe of the pool's lock",
    "authority": "who may set the price, and what changed since it was attested",
    "quorum": "the number of providers behind each answer",
    "venue": "volumes by venue, and what is lent against the asset",
    "latency": "when the action was ordered",
    "liquidators": "gas prices, inventories and bids of liquidators",
    "market_unreadable": "whether every market of the protocol can be read",
    "market_closed": "the hours of the asset's market",
}
"""What a series of prices does not tell, by the guard that needs it."""


class _Limits(NamedTuple):
    """What the guards hold against, as integers; see the guards for their meaning."""

    max_age_s: int
    max_ahead_s: int
    written_once: bool
    low_cut: int
    high_cut: int
    bounds_apply: bool
    floor_bps: int
    vol_bps_sqrt_hour: int
    cap_bps: int
    agree_bps: int
    memory_s: int
    cross_bps: int
    conf_bps: int
    unit_factor: int
    named: int
    hardcoded_bps: int
    repeats: int
    written: bool
    depeg_bps: int
    stated: bool


@dataclass(frozen=True, slots=True)
class JudgedColumns:
    """What the guards say of every row.

    Attributes
    ----------
    guards
        Names, in the order of the rows of `codes`.
    codes
        Shape (guards, rows), values of `Code`.
    accepted
        Rows that stand: a price, no guard violated, and every required one `OK`.
    only_jumped
        Rows against which nothing is held but a jump that nobody confirmed.
    history
        What was accepted last; give it to the call for the next part of the series.
    """

    guards: tuple[str, ...]
    codes: Codes
    accepted: NDArray[np.bool_]
    only_jumped: NDArray[np.bool_]
    history: NDArray[np.int64]

    def count(self, guard: str, code: Code) -> int:
        """Return in how many rows a guard said so."""
        return int(np.count_nonzero(self.codes[self.guards.index(guard)] == code))


@dataclass(frozen=True, slots=True)
class Second:
    """A second series of the same pair, row by row beside the first, and how far it may speak.

    Attributes
    ----------
    columns
        As long as the series that is judged, with the same times.
    standing
        Rows that were accepted when the second series was judged by itself: they confirm and contradict.
    doubtful
        Rows against which nothing is held but an unconfirmed jump: they may contradict only.
    """

    columns: Columns
    standing: NDArray[np.bool_]
    doubtful: NDArray[np.bool_]


_HEAD = 2
"""Before the entries: how many there are, and how many were ever written, modulo the length."""
_FIELDS = 5
"""Of an entry: mantissa, published_at, observed_at, phase, round."""


def no_history() -> NDArray[np.int64]:
    """Return the history of a feed of which nothing was accepted yet."""
    return np.zeros(_HEAD + HISTORY_LENGTH * _FIELDS, dtype=np.int64)


def judge_columns(
    columns: Columns,
    guards: Sequence[GuardModel],
    context: FeedContext,
    second: Second | None = None,
    history: NDArray[np.int64] | None = None,
) -> JudgedColumns:
    """Hold every row against the guards, oldest first; rows accepted on the way are what later ones follow.

    Parameters
    ----------
    columns
        The series, or the next part of it.
    guards
        Of `SERIES_GUARDS`, each at most once. Of those without whose `OK` no price is believed
        (`oracle.snapshot.REQUIRED`) the ones count that are among them.
    context
        What is known of the feed; its `now` is ignored, each row is judged at its `observed_at`.
    second
        Another source of the same pair.
    history
        Of the part before.

    Raises
    ------
    InputError
        If a guard needs more than a series tells, stands there twice, or a limit is too large for columns.
    """
    held = _held(guards)
    if context.known:
        raise InputError("prices of other pairs do not go with columns", fix="judge the readings one by one")
    limits = _limits(held, columns, context, second)
    names = tuple(held)
    slot = np.full(len(SERIES_GUARDS), -1, dtype=np.int64)
    for row, name in enumerate(names):
        slot[SERIES_GUARDS.index(name)] = row
    required = np.array([name in REQUIRED for name in names], dtype=np.bool_)
    own, other = _at_one_scale(columns, second)
    ear = np.zeros(len(columns), dtype=np.int8)
    if second is not None:
        _matches(columns, second.columns)
        usable = second.columns.has_data & (second.columns.mantissa > 0)
        if second.columns.kind is FeedKind.CONSTANT:
            usable = np.zeros_like(usable)
        ear = np.where(usable & second.standing, 1, np.where(usable & second.doubtful, 2, 0)).astype(np.int8)
    market = second is not None and second.columns.kind in MARKET_KINDS
    codes = np.empty((len(names), len(columns)), dtype=np.int8)
    accepted = np.empty(len(columns), dtype=np.bool_)
    only_jumped = np.empty(len(columns), dtype=np.bool_)
    memory = no_history() if history is None else history.copy()
    _walk(
        columns.mantissa,
        columns.has_data,
        columns.published_at,
        columns.observed_at,
        columns.phase,
        columns.round,
        columns.answered_phase,
        columns.answered_round,
        columns.conf_abs,
        own,
        other,
        ear,
        market,
        slot,
        required,
        limits,
        memory,
        codes,
        accepted,
        only_jumped,
    )
    return JudgedColumns(names, codes, accepted, only_jumped, memory)


def judge_readings(
    readings: Iterable[Reading],
    guards: Sequence[Guard],
    context: FeedContext,
    seconds: Sequence[tuple[Reading, bool, bool]] | None = None,
) -> list[GuardedPrice]:
    """Return the same judgements one reading at a time: the plain twin of `judge_columns`.

    Parameters
    ----------
    seconds
        The second source's reading at each row, whether it stands, and whether it is doubtful.
    """
    required = REQUIRED & {str(getattr(g, "kind", "")) for g in guards}
    past: tuple[PriceObs, ...] = ()
    out = []
    for i, reading in enumerate(readings):
        now = replace(context, now=reading.observed_at)
        peer, stands, doubtful = (None, False, False) if seconds is None else seconds[i]
        judged = judge(reading, past, [peer] if peer is not None and stands else [], now, guards, required)
        if peer is not None and doubtful and not stands:
            judged = contradicted(judged, judge(reading, past, [peer], now, guards, required))
        if judged.status is PriceStatus.OK and isinstance(reading, PriceObs):
            past = longer(past, reading)
        out.append(judged)
    return out


# ---------------------------------------------------------------------------------------------- what limits


def _held(guards: Sequence[GuardModel]) -> dict[str, GuardModel]:
    held: dict[str, GuardModel] = {}
    for guard in guards:
        if guard.kind not in SERIES_GUARDS:
            needs = LACKS.get(guard.kind, "more than a series tells")
            raise InputError(f"guard {guard.kind!r} needs {needs}", fix="leave it out for a series")
        if guard.kind in held:
            raise InputError(f"guard {guard.kind!r} stands there twice", fix="judge once for each")
        held[guard.kind] = guard
    return held


def _limits(
    held: Mapping[str, GuardModel], columns: Columns, context: FeedContext, second: Second | None
) -> _Limits:
    stale = _of(held, "stale", StaleGuard)
    future = _of(held, "future", FutureGuard)
    bound = _of(held, "bound", BoundGuard)
    jump = _of(held, "jump", JumpGuard)
    unit = _of(held, "unit", UnitGuard)
    hardcoded = _of(held, "hardcoded", HardcodedGuard)
    max_age_s = stale.max_age_s
    if max_age_s is None and context.heartbeat_s is not None:
        max_age_s = context.heartbeat_s + context.grace_s
    low, high = context.min_answer, context.max_answer
    edge = bound.epsilon_bps
    named = named_pair(context.description)
    pair = (plain_symbol(columns.base), plain_symbol(columns.quote))
    largest = {
        "jump.vol_bps_sqrt_hour": (jump.vol_bps_sqrt_hour, 10_000),
        "unit.factor": (unit.factor, 2**31),
        "jump.memory_s": (jump.memory_s, 2**40),
    }
    for name, (value, most) in largest.items():
        if value > most:
            raise InputError(f"{name} = {value} is above {most}", fix="judge the readings one by one")
    return _Limits(
        max_age_s=UNKNOWN if max_age_s is None else min(max_age_s, _INT64_MAX),
        max_ahead_s=min(future.max_ahead_s, _INT64_MAX),
        written_once=columns.kind in WRITTEN_ONCE,
        # The last answer that is still too near to a bound, from integers of any size.
        low_cut=-_INT64_MAX if low is None else _clip((low * _BPS + abs(low) * edge) // _BPS),
        high_cut=_INT64_MAX if high is None else _clip(-((abs(high) * edge - high * _BPS) // _BPS)),
        bounds_apply=low is not None and high is not None and not bound.vacuous(low, high),
        floor_bps=jump.floor_bps,
        vol_bps_sqrt_hour=jump.vol_bps_sqrt_hour,
        cap_bps=jump.cap_bps,
        agree_bps=jump.agree_bps,
        memory_s=jump.memory_s,
        cross_bps=_of(held, "cross_dev", CrossDeviationGuard).cap_bps,
        conf_bps=min(_of(held, "confidence", ConfidenceGuard).cap_bps, _INT64_MAX),
        unit_factor=unit.factor,
        named=UNKNOWN if named is None else int(named == pair),
        hardcoded_bps=hardcoded.cap_bps,
        repeats=hardcoded.repeats,
        written=columns.kind is FeedKind.CONSTANT or FeedKind.CONSTANT in context.legs,
        depeg_bps=_of(held, "depeg", DepegGuard).cap_bps,
        stated=bool(STATED_KINDS & {columns.kind, *context.legs}),
    )


G = TypeVar("G", bound=GuardModel)


def _of(held: Mapping[str, GuardModel], kind: str, model: type[G]) -> G:
    """Return the guard that is held, or one that nobody asks: the kernel leaves it out."""
    return cast("G", held.get(kind) or model())


def _clip(value: int) -> int:
    return max(-_INT64_MAX, min(_INT64_MAX, value))


def _matches(columns: Columns, other: Columns) -> None:
    if (columns.base, columns.quote) != (other.base, other.quote):
        raise InputError(
            f"{other.source_id} prices {other.base}/{other.quote}, not {columns.base}/{columns.quote}",
            fix="give a second source of the same pair",
        )
    if columns.source_id == other.source_id:
        raise InputError(f"{columns.source_id} cannot confirm itself", fix="give another source")
    if not np.array_equal(columns.observed_at, other.observed_at):
        raise InputError(
            f"{other.source_id} has other times than {columns.source_id}", fix="use Columns.seen_at"
        )


def _at_one_scale(columns: Columns, second: Second | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the prices of both series at the larger of their scales."""
    if second is None:
        return columns.mantissa, np.zeros(len(columns), dtype=np.int64)
    scale = max(columns.decimals, second.columns.decimals)
    return _scaled(columns, scale), _scaled(second.columns, scale)


def _scaled(columns: Columns, decimals: int) -> NDArray[np.int64]:
    factor = 10 ** (decimals - columns.decimals)
    largest = int(np.abs(columns.mantissa).max(initial=0)) * factor
    if largest > LARGEST:
        raise InputError(
            f"{columns.source_id}: a price is too large for columns of {decimals} decimals",
            fix="give the second source with fewer decimals",
        )
    return columns.mantissa * np.int64(factor)


# ------------------------------------------------------------------------------------------------- the kernel


def _kernel(function: F) -> F:
    return cast("F", numba.njit(cache=True, nogil=True, error_model="python")(function))


_OK, _BAD, _NA = int(Code.OK), int(Code.VIOLATED), int(Code.NOT_APPLICABLE)
(
    _NO_DATA,
    _NON_POSITIVE,
    _STALE,
    _FUTURE,
    _ROLLBACK,
    _BOUND,
    _JUMP,
    _CROSS,
    _CONFIDENCE,
    _UNIT,
    _WRONG,
    _HARDCODED,
    _DEPEG,
) = range(len(SERIES_GUARDS))
_ALONE, _STANDING, _DOUBTFUL = 0, 1, 2


@_kernel
def _apart(x: int, y: int) -> int:
    """Return `oracle.guards.magnitude.apart_bps` of two positive prices of one scale."""
    top = max(x, y)
    return (abs(x - y) * _BPS + top - 1) // top


@_kernel
def _root(value: int) -> int:
    """Return the whole square root, exact: the float is off by one at most below 2**62."""
    root = int(np.sqrt(np.float64(value)))
    while root * root > value:
        root -= 1
    while (root + 1) * (root + 1) <= value:
        root += 1
    return root


@_kernel
def _alone(code: int, with_second: int, ear: int) -> int:
    """Return the code with what a doubtful second source has against the price, and nothing for it."""
    return _BAD if ear == _DOUBTFUL and with_second == _BAD else code


@_kernel
def _at(memory: NDArray[np.int64], back: int) -> int:
    """Return where the history's entry stands that is `back` entries before the last."""
    at: int = _HEAD + (memory[1] - 1 - back) % HISTORY_LENGTH * _FIELDS
    return at


@_kernel
def _of_round(memory: NDArray[np.int64], at: int, published: int, phase: int, number: int) -> bool:
    """Return whether the history's entry is of that round: of its key and its time."""
    same_key: bool = memory[at + 3] == phase and memory[at + 4] == number
    return same_key and memory[at + 1] == published


@_kernel
def _remember(
    memory: NDArray[np.int64], mantissa: int, published: int, observed: int, phase: int, number: int
) -> None:
    """Append to the history as `oracle.snapshot.longer` does."""
    again = (number != UNKNOWN or published != UNKNOWN) and memory[0] >= 2
    for back in range(2):
        if again:
            again = _of_round(memory, _at(memory, back), published, phase, number)
    if not again:
        memory[0] = min(memory[0] + 1, HISTORY_LENGTH)
        memory[1] = (memory[1] + 1) % HISTORY_LENGTH
    at = _at(memory, 0)
    memory[at] = mantissa
    memory[at + 1] = published
    memory[at + 2] = observed
    memory[at + 3] = phase
    memory[at + 4] = number


@_kernel
def _jump(
    mantissa: int,
    published: int,
    observed: int,
    own: int,
    other: int,
    heard: bool,
    memory: NDArray[np.int64],
    limits: _Limits,
) -> int:
    """Return what G07 says, with or without the second source."""
    if memory[0] == 0:
        return _NA
    last = _at(memory, 0)
    if memory[last] <= 0 or mantissa <= 0 or observed - memory[last + 2] > limits.memory_s:
        return _NA
    if memory[last + 1] != UNKNOWN and published != UNKNOWN:
        elapsed = max(0, published - memory[last + 1])
    else:
        elapsed = max(0, observed - memory[last + 2])
    # Two thousand years; the product stays within 64 bits.
    elapsed = min(elapsed, 2**36)
    allowed = limits.floor_bps + _root(limits.vol_bps_sqrt_hour**2 * elapsed // 3_600)
    if _apart(mantissa, memory[last]) <= min(limits.cap_bps, allowed):
        return _OK
    return _OK if heard and _apart(own, other) <= limits.agree_bps else _BAD


@_kernel
def _rollback(
    mantissa: int, published: int, phase: int, number: int, memory: NDArray[np.int64], limits: _Limits
) -> int:
    """Return what G05 says."""
    if memory[0] == 0:
        return _NA
    last = _at(memory, 0)
    by_round = number != UNKNOWN and memory[last + 4] != UNKNOWN
    by_time = published != UNKNOWN and memory[last + 1] != UNKNOWN
    if by_round:
        if phase < memory[last + 3] or (phase == memory[last + 3] and number < memory[last + 4]):
            return _BAD
        by_time = by_time and phase == memory[last + 3]
    if not by_round and not by_time:
        return _NA
    if by_time:
        if published < memory[last + 1]:
            return _BAD
        same = phase == memory[last + 3] and number == memory[last + 4] and published == memory[last + 1]
        once = number != UNKNOWN or limits.written_once
        if same and once and mantissa != memory[last]:
            return _BAD
    return _OK


@_kernel
def _stale(
    published: int, observed: int, phase: int, number: int, from_phase: int, from_round: int, limit_s: int
) -> int:
    """Return what G03 says."""
    carried = from_phase < phase or (from_phase == phase and from_round < number)
    if number != UNKNOWN and from_round != UNKNOWN and carried:
        return _BAD
    if published == UNKNOWN or limit_s == UNKNOWN:
        return _NA
    return _BAD if observed - published > limit_s else _OK


@_kernel
def _still(mantissa: int, memory: NDArray[np.int64], repeats: int) -> bool:
    """Return whether so many rounds in a row, up to the last accepted one, said the same as this one."""
    rounds = 0
    for back in range(memory[0]):
        at = _at(memory, back)
        if memory[at] != mantissa:
            break
        after = _at(memory, back - 1)
        if back == 0 or not _of_round(memory, at, memory[after + 1], memory[after + 3], memory[after + 4]):
            rounds += 1
        if rounds == repeats:
            return True
    return False


@_kernel
def _walk(
    mantissa: NDArray[np.int64],
    has_data: NDArray[np.bool_],
    published: NDArray[np.int64],
    observed: NDArray[np.int64],
    phase: NDArray[np.int64],
    number: NDArray[np.int64],
    from_phase: NDArray[np.int64],
    from_round: NDArray[np.int64],
    conf: NDArray[np.int64],
    own: NDArray[np.int64],
    other: NDArray[np.int64],
    ear: NDArray[np.int8],
    market: bool,
    slot: NDArray[np.int64],
    required: NDArray[np.bool_],
    limits: _Limits,
    memory: NDArray[np.int64],
    codes: Codes,
    accepted: NDArray[np.bool_],
    only_jumped: NDArray[np.bool_],
) -> None:
    said = np.empty(len(slot), dtype=np.int8)
    for i in range(len(mantissa)):
        said[:] = _NA
        price, there = mantissa[i], has_data[i]
        said[_NO_DATA] = _OK if there else _BAD
        if there:
            said[_NON_POSITIVE] = _OK if price > 0 else _BAD
            said[_STALE] = _stale(
                published[i],
                observed[i],
                phase[i],
                number[i],
                from_phase[i],
                from_round[i],
                limits.max_age_s,
            )
            if published[i] != UNKNOWN:
                said[_FUTURE] = _BAD if published[i] - observed[i] > limits.max_ahead_s else _OK
            said[_ROLLBACK] = _rollback(price, published[i], phase[i], number[i], memory, limits)
            if price <= limits.low_cut or price >= limits.high_cut:
                said[_BOUND] = _BAD
            elif limits.bounds_apply:
                said[_BOUND] = _OK
            if slot[_JUMP] >= 0:
                heard = ear[i] == _STANDING and price > 0
                said[_JUMP] = _jump(price, published[i], observed[i], own[i], other[i], heard, memory, limits)
        if there and price > 0:
            if conf[i] != UNKNOWN:
                wide = (2 * conf[i] * _BPS + 2 * price - 1) // (2 * price)
                said[_CONFIDENCE] = _BAD if wide > limits.conf_bps else _OK
            if limits.named != UNKNOWN:
                said[_WRONG] = _OK if limits.named == 1 else _BAD
            if ear[i] != _ALONE:
                low, high = min(own[i], other[i]), max(own[i], other[i])
                apart = _apart(own[i], other[i])
                cross = _BAD if apart > limits.cross_bps else _OK
                said[_CROSS] = cross if ear[i] == _STANDING else _alone(_NA, cross, ear[i])
                unit = _BAD if (high - 1) // limits.unit_factor >= low else _OK
                said[_UNIT] = unit if ear[i] == _STANDING else _alone(_NA, unit, ear[i])
                if market:
                    fixed = limits.written
                    if not fixed and slot[_HARDCODED] >= 0:
                        fixed = _still(price, memory, limits.repeats)
                    hard = _BAD if fixed and apart > limits.hardcoded_bps else _OK
                    said[_HARDCODED] = hard if ear[i] == _STANDING else _alone(_NA, hard, ear[i])
                    if limits.stated:
                        depeg = _BAD if apart > limits.depeg_bps else _OK
                        said[_DEPEG] = depeg if ear[i] == _STANDING else _alone(_NA, depeg, ear[i])
        stands, jumped_only, any_bad = there, True, False
        for kind in range(len(slot)):
            row = slot[kind]
            if row < 0:
                continue
            codes[row, i] = said[kind]
            if said[kind] == _BAD:
                stands, any_bad = False, True
                if kind != _JUMP:
                    jumped_only = False
            elif required[row] and said[kind] != _OK:
                stands = jumped_only = False
        accepted[i] = stands
        only_jumped[i] = there and any_bad and jumped_only
        if stands:
            _remember(memory, price, published[i], observed[i], phase[i], number[i])
