"""Scenario files, ``oracle-scenario/1``: what happened to prices and gas, and how the feeds told it.

A scenario holds the truth (points with their sources), the feeds that report it, and the faults that
bend the feeds. From these three everything else is computed: `truth_e8` interpolates, `feed_rounds`
plays the push rule of a feed on the scenario's time grid. Nothing is rounded before the end and nothing
reads a clock, so the same file gives the same rounds everywhere.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from contracts_abi.errors import InputError, UnknownNameError
from oracle.fields import Pair, PositiveDecimal, UnixSeconds
from oracle.incidents import incident_ids, incident_path
from oracle.strict import StrictModel, input_error

SCHEMA = "oracle-scenario/1"
PRICE_DECIMALS = 8
GWEI = 10**9


class PointStatus(StrEnum):
    """How well a figure is founded, best first."""

    DOCUMENTED = "documented"
    INTERPOLATED = "interpolated"
    STATED = "stated"


class Chain(StrictModel):
    """The chain that the incident happened on."""

    id: int = Field(ge=1, description="EIP-155 chain id of the incident's chain")
    kind: Literal["l1", "l2"] = "l1"
    block_time_s: int = Field(ge=1, description="typical seconds between blocks")


class Clock(StrictModel):
    """The time grid that the scenario is played on."""

    start: UnixSeconds
    end: UnixSeconds
    step_s: int = Field(ge=1, description="seconds between grid points")

    @model_validator(mode="after")
    def _whole_steps(self) -> Clock:
        if self.end <= self.start:
            raise ValueError("end must be after start")
        if (self.end - self.start) % self.step_s:
            raise ValueError(f"end - start = {self.end - self.start} s is not a multiple of step_s")
        return self


class AssetSpec(StrictModel):
    """A token of the scenario."""

    decimals: int = Field(ge=0, le=36, description="token decimals")
    pair: Pair | None = Field(default=None, description="the pair that prices this token, if any")


class Point(StrictModel):
    """One figure of one price, with where it comes from."""

    t: UnixSeconds
    price: PositiveDecimal
    status: PointStatus
    source: str = Field(min_length=1)
    note: str = ""


class Derived(StrictModel):
    """A price that follows another one at a fixed ratio."""

    of: Pair = Field(description="the pair that is followed")
    num: int = Field(ge=1)
    den: int = Field(ge=1)
    status: PointStatus
    source: str = Field(min_length=1)
    note: str = ""


class Truth(StrictModel):
    """What a price really was: points to interpolate between, or a ratio of another pair."""

    interp: Literal["linear"] = "linear"
    points: tuple[Point, ...] = ()
    derived: Derived | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Truth:
        if bool(self.points) == (self.derived is not None):
            raise ValueError("needs either points or derived")
        _require_ascending([p.t for p in self.points])
        return self


class DerivedFeed(StrictModel):
    """A feed composed of another feed's rounds at a fixed ratio; it inherits that feed's faults."""

    feed: str
    num: int = Field(ge=1)
    den: int = Field(ge=1)


class FeedSpec(StrictModel):
    """A feed and the rule by which it publishes."""

    kind: Literal["chainlink", "composite"]
    role: Literal["protocol", "reference"] = Field(
        default="protocol", description="whether the protocol reads it, or the keeper compares with it"
    )
    pair: Pair | None = Field(default=None, description="the pair reported; by default the feed's name")
    decimals: int = Field(default=PRICE_DECIMALS, ge=0, le=36)
    heartbeat_s: int | None = Field(default=None, ge=1, description="longest gap between rounds, seconds")
    deviation_bps: int | None = Field(default=None, ge=1, description="change that forces a round, 1e-4")
    min_answer: int | None = Field(default=None, description="lowest answer the aggregator transmits")
    max_answer: int | None = Field(default=None, description="highest answer the aggregator transmits")
    derive_from: Literal["truth"] | DerivedFeed = "truth"

    @model_validator(mode="after")
    def _complete(self) -> FeedSpec:
        if self.kind == "composite":
            if self.derive_from == "truth":
                raise ValueError("a composite feed needs derive_from = {feed, num, den}")
            for name in ("heartbeat_s", "deviation_bps", "min_answer", "max_answer"):
                if getattr(self, name) is not None:
                    raise ValueError(f"a composite feed has no {name}; it updates with its base feed")
        else:
            if self.derive_from != "truth":
                raise ValueError('only a composite feed derives from a feed; use kind = "composite"')
            if self.heartbeat_s is None or self.deviation_bps is None:
                raise ValueError("a chainlink feed needs heartbeat_s and deviation_bps")
        if self.min_answer is not None and self.max_answer is not None and self.min_answer >= self.max_answer:
            raise ValueError("min_answer must be below max_answer")
        return self


class _FaultBase(StrictModel):
    at: UnixSeconds
    until: UnixSeconds = Field(description="first second at which the fault no longer acts")
    feed: str
    ours: bool = Field(default=False, description="True when we added it and history did not")
    note: str = ""

    @model_validator(mode="after")
    def _ends_after_start(self) -> _FaultBase:
        if self.until <= self.at:
            raise ValueError("until must be after at")
        return self


class Freeze(_FaultBase):
    """The feed publishes nothing and keeps its last answer."""

    op: Literal["freeze"]


class Scale(_FaultBase):
    """The feed sees the price times ``num / den``."""

    op: Literal["scale"]
    num: int = Field(ge=1)
    den: int = Field(ge=1)


_PLAYABLE_OPS = ("freeze", "scale")
_KNOWN_OPS = (
    *_PLAYABLE_OPS,
    *("clamp", "shift_decimals", "drop", "revert", "delay", "future", "rollback", "phase_switch", "spike"),
    *("manip_twap", "set_liquidity", "swap_feeds", "missing_leg", "conf", "sequencer", "rate_donate"),
    *("cap_params", "gas", "constant"),
)


def _check_op(value: object) -> object:
    if isinstance(value, dict):
        op = value.get("op")
        if op in _KNOWN_OPS and op not in _PLAYABLE_OPS:
            raise InputError(
                f"fault op {op!r} is part of {SCHEMA} but not yet playable",
                fix=f"playable: {', '.join(_PLAYABLE_OPS)}",
            )
        if isinstance(op, str) and op not in _PLAYABLE_OPS:
            raise UnknownNameError("fault op", op, _PLAYABLE_OPS)
    return value


Fault: TypeAlias = Annotated[
    Annotated[Freeze | Scale, Field(discriminator="op")],
    BeforeValidator(_check_op),
]


class GasPoint(StrictModel):
    """One figure of the base fee."""

    t: UnixSeconds
    base_fee_gwei: PositiveDecimal
    status: PointStatus
    source: str = Field(min_length=1)
    note: str = ""


class Gas(StrictModel):
    """The base fee over time, linear between points."""

    points: tuple[GasPoint, ...] = Field(min_length=1)

    @field_validator("points")
    @classmethod
    def _ascending(cls, points: tuple[GasPoint, ...]) -> tuple[GasPoint, ...]:
        _require_ascending([p.t for p in points])
        return points


class ProtocolSpec(StrictModel):
    """The protocol whose accounts live through the scenario."""

    model: Literal["compound_v2", "aave_v3", "comet", "morpho", "maker_flip", "maker_clip"]
    params: dict[str, int | str] = Field(default_factory=dict, description="the model's own parameters")


class PolicySpec(StrictModel):
    """What an operator of this market would configure; each value is optional."""

    max_age_s: int | None = Field(default=None, ge=1)
    bound_eps_bps: int | None = Field(default=None, ge=0)
    cross_dev_bps: int | None = Field(default=None, ge=0)
    lkg_ttl_s: int | None = Field(default=None, ge=0)
    harm_tolerance_bps: int | None = Field(default=None, ge=0)
    without_reference: Literal["hold", "act"] | None = None


class Expectation(StrictModel):
    """What must come out of a replay."""

    assert_: str = Field(alias="assert", min_length=1)
    id: str | None = None
    by: UnixSeconds | None = None
    action: str | None = None
    op: Literal["<", "<=", "==", ">=", ">"] | None = None
    value: int | str | None = None
    with_: Literal["guarded", "unguarded"] | None = Field(default=None, alias="with")


class Claim(StrictModel):
    """A fact that the scenario rests on, and who says so."""

    claim: str = Field(min_length=1)
    source: str = Field(min_length=1)
    url: str | None = None
    confidence: Literal["documented", "recalled", "stated"]


class Scenario(StrictModel):
    """A scenario file, checked. Times are unix seconds."""

    schema_: Literal["oracle-scenario/1"] = Field(alias="schema")
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str = Field(min_length=1)
    chain: Chain
    clock: Clock
    assets: dict[str, AssetSpec]
    truth: dict[Pair, Truth]
    feeds: dict[str, FeedSpec]
    faults: tuple[Fault, ...] = ()
    gas: Gas | None = None
    protocol: ProtocolSpec | None = None
    policy: PolicySpec = PolicySpec()
    expect: tuple[Expectation, ...] = ()
    provenance: tuple[Claim, ...] = ()

    _sha256: str = PrivateAttr(default="")

    @property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes in hex; empty when the scenario was not read from bytes."""
        return self._sha256

    @model_validator(mode="after")
    def _references_hold(self) -> Scenario:
        clock = self.clock
        for pair, truth in self.truth.items():
            if truth.derived is not None:
                if truth.derived.of not in self.truth:
                    raise UnknownNameError(f"pair in truth.{pair}.derived.of:", truth.derived.of, self.truth)
                if self.truth[truth.derived.of].derived is not None:
                    raise ValueError(f"truth.{pair} derives from a derived pair; name the original")
            else:
                _require_cover(f"truth.{pair}", [p.t for p in truth.points], clock)
        for symbol, asset in self.assets.items():
            if asset.pair is not None and asset.pair not in self.truth:
                raise UnknownNameError(f"pair in assets.{symbol}.pair:", asset.pair, self.truth)
        for name, feed in self.feeds.items():
            if feed_pair(self, name) not in self.truth:
                raise UnknownNameError(f"pair of feeds.{name}:", feed_pair(self, name), self.truth)
            if isinstance(feed.derive_from, DerivedFeed):
                base = self.feeds.get(feed.derive_from.feed)
                if base is None:
                    raise UnknownNameError(f"feed in feeds.{name}:", feed.derive_from.feed, self.feeds)
                if base.kind == "composite":
                    raise ValueError(f"feeds.{name} derives from a composite feed; name the original")
        for i, fault in enumerate(self.faults):
            if fault.feed not in self.feeds:
                raise UnknownNameError(f"feed in faults.{i}:", fault.feed, self.feeds)
            if self.feeds[fault.feed].kind == "composite":
                raise ValueError(f"faults.{i}: {fault.feed} is composite; put the fault on its base feed")
            if fault.until <= clock.start or fault.at > clock.end:
                raise ValueError(f"faults.{i} lies outside the clock")
        if self.gas is not None:
            _require_cover("gas", [p.t for p in self.gas.points], clock)
        return self

    def steps(self) -> list[int]:
        """Return the grid points in unix seconds, from the clock's start to its end, both included."""
        return list(range(self.clock.start, self.clock.end + 1, self.clock.step_s))


def _require_ascending(times: Sequence[int]) -> None:
    for before, after in itertools.pairwise(times):
        if after <= before:
            raise ValueError(f"points must ascend in time, but {_iso(after)} follows {_iso(before)}")


def _require_cover(what: str, times: Sequence[int], clock: Clock) -> None:
    if times[0] > clock.start or times[-1] < clock.end:
        raise ValueError(
            f"{what} covers {_iso(times[0])} to {_iso(times[-1])}, "
            f"the clock runs from {_iso(clock.start)} to {_iso(clock.end)}"
        )


def _iso(t: int) -> str:
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_scenario(data: bytes, where: str = "scenario") -> Scenario:
    """Return the scenario that `data` holds as TOML.

    Parameters
    ----------
    data
        Bytes of the file, UTF-8.
    where
        Name of the file, for messages.

    Raises
    ------
    InputError
        On anything that is not a complete, consistent scenario; the line names the key and the value.
    """
    try:
        raw: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 text at byte {error.start}", fix="save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: not valid TOML: {error}") from None
    except (RecursionError, ValueError) as error:
        raise InputError(f"{where}: not readable TOML: {error}") from None
    try:
        scenario = Scenario.model_validate(raw)
    except ValidationError as error:
        raise input_error(error, where) from None
    scenario._sha256 = hashlib.sha256(data).hexdigest()
    return scenario


def load_scenario(source: str | Path) -> Scenario:
    """Return the scenario in a file, or the packaged one with that id.

    Parameters
    ----------
    source
        A path, or the id of an incident in `oracle.incidents`. A name with a folder or the ending
        ``.toml`` is a path.

    Raises
    ------
    InputError
        If the file cannot be read or is not a scenario; `UnknownNameError` for an unknown id.
    """
    text = str(source)
    if isinstance(source, str) and not text.endswith(".toml") and "/" not in text and "\\" not in text:
        return parse_scenario(incident_path(text).read_bytes(), text)
    try:
        data = Path(source).read_bytes()
    except OSError as error:
        raise InputError(
            f"scenario file {text!r}: {error.strerror or error}",
            fix=f"give a file, or one of: {', '.join(incident_ids())}",
        ) from None
    return parse_scenario(data, text)


def _interpolate(times: Sequence[int], values: Sequence[Decimal], t: int) -> tuple[Fraction, int, int]:
    """Return the value at `t` and the indices of the points it lies between (equal on a point)."""
    if not times[0] <= t <= times[-1]:
        raise InputError(f"no figure at {_iso(t)}: the points cover {_iso(times[0])} to {_iso(times[-1])}")
    right = bisect.bisect_left(times, t)
    if times[right] == t:
        return Fraction(values[right]), right, right
    left = right - 1
    share = Fraction(t - times[left], times[right] - times[left])
    low, high = Fraction(values[left]), Fraction(values[right])
    return low + (high - low) * share, left, right


def _between(left: PointStatus, right: PointStatus) -> PointStatus:
    """Return the status of a value between two points: never better than the worse of them."""
    return PointStatus.STATED if PointStatus.STATED in (left, right) else PointStatus.INTERPOLATED


def _truth(scenario: Scenario, pair: str, t: int) -> tuple[Fraction, PointStatus]:
    try:
        truth = scenario.truth[pair]
    except KeyError:
        raise UnknownNameError("pair", pair, scenario.truth) from None
    if truth.derived is not None:
        base, _ = _truth(scenario, truth.derived.of, t)
        return base * truth.derived.num / truth.derived.den, truth.derived.status
    points = truth.points
    value, left, right = _interpolate([p.t for p in points], [p.price for p in points], t)
    if left == right:
        return value, points[left].status
    return value, _between(points[left].status, points[right].status)


def truth_e8(scenario: Scenario, pair: str, t: int) -> tuple[int, PointStatus]:
    """Return the true price of `pair` at `t` and how well it is founded.

    Parameters
    ----------
    pair
        For example ``ETH/USD``.
    t
        Unix seconds within the clock.

    Returns
    -------
    price_e8
        Price at 1e8, linear between points in exact arithmetic, rounded half to even at the end.
    status
        Status of the point at `t`. Between points: ``stated`` when either of them is, else ``interpolated``.

    Raises
    ------
    InputError
        If the scenario has no such pair, or no figure at that time.
    """
    value, status = _truth(scenario, pair, t)
    return round(value * 10**PRICE_DECIMALS), status


def base_fee_wei(scenario: Scenario, t: int) -> int:
    """Return the base fee at `t` in wei, linear between points, rounded half to even.

    Raises
    ------
    InputError
        If the scenario has no gas series, or no figure at that time.
    """
    if scenario.gas is None:
        raise InputError(f"scenario {scenario.id} has no gas series", fix="add [[gas.points]]")
    points = scenario.gas.points
    value, _, _ = _interpolate([p.t for p in points], [p.base_fee_gwei for p in points], t)
    return round(value * GWEI)


class RoundReason(StrEnum):
    """Why a feed published a round."""

    FIRST = "first"
    DEVIATION = "deviation"
    HEARTBEAT = "heartbeat"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class PublishedRound:
    """One round of a feed.

    Attributes
    ----------
    t
        Unix seconds at which it is published.
    answer_e8
        The feed's answer as a price at 1e8; what the feed says, not what is true.
    reason
        The rule that made it; `FAULT` when a fault altered the value.
    truth_e8
        The true price at the same second, at 1e8.
    answer
        The answer at the feed's own decimals.
    """

    t: int
    answer_e8: int
    reason: RoundReason
    truth_e8: int
    answer: int


def feed_pair(scenario: Scenario, feed: str) -> str:
    """Return the pair that `feed` reports: its ``pair`` key, else its own name."""
    return scenario.feeds[feed].pair or feed


def feed_name(scenario: Scenario, pair: str, role: Literal["protocol", "reference"]) -> str:
    """Return the name of the one feed with this pair and role.

    Raises
    ------
    InputError
        If there is none, or more than one.
    """
    names = [n for n, f in scenario.feeds.items() if f.role == role and feed_pair(scenario, n) == pair]
    if len(names) != 1:
        raise InputError(
            f"scenario {scenario.id} has {len(names)} {role} feeds for {pair}", fix="give it exactly one"
        )
    return names[0]


def assets_touched(scenario: Scenario, fault: Freeze | Scale) -> tuple[str, ...]:
    """Return the tokens whose protocol price `fault` bends, directly or through a composite feed."""
    feeds = {
        name
        for name, spec in scenario.feeds.items()
        if spec.role == scenario.feeds[fault.feed].role == "protocol"
        and (name == fault.feed or (isinstance(d := spec.derive_from, DerivedFeed) and d.feed == fault.feed))
    }
    pairs = {feed_pair(scenario, name) for name in feeds}
    return tuple(symbol for symbol, asset in scenario.assets.items() if asset.pair in pairs)


def feed_rounds(scenario: Scenario, feed: str) -> list[PublishedRound]:
    """Play the push rule of `feed` on the scenario's grid, with its faults.

    At each grid point the feed sees the true price, bent by the scale faults that act then, in the
    file's order. It publishes the first point; after that when the price seen differs from its last
    answer by the deviation threshold or more, or when the heartbeat has passed. While frozen it publishes
    nothing; a value outside its bounds is not transmitted, as in Chainlink's
    `OffchainAggregator.transmit`, which reverts.
    A composite feed publishes with its base feed, at the ratio.

    Parameters
    ----------
    feed
        Name of the feed in the file, for example ``ETH/USD``.

    Returns
    -------
    list of PublishedRound
        In time order, at most one for each grid point.

    Raises
    ------
    UnknownNameError
        If the scenario has no such feed.
    """
    try:
        spec = scenario.feeds[feed]
    except KeyError:
        raise UnknownNameError("feed", feed, scenario.feeds) from None
    if isinstance(spec.derive_from, DerivedFeed):
        return _composite_rounds(scenario, feed, spec.decimals, spec.derive_from)

    assert spec.deviation_bps is not None
    assert spec.heartbeat_s is not None
    pair = feed_pair(scenario, feed)
    unit = 10**spec.decimals
    faults = [f for f in scenario.faults if f.feed == feed]
    rounds: list[PublishedRound] = []
    for t in scenario.steps():
        active = [f for f in faults if f.at <= t < f.until]
        if any(isinstance(f, Freeze) for f in active):
            continue
        true, _ = _truth(scenario, pair, t)
        seen = true
        for fault in active:
            if isinstance(fault, Scale):
                seen = seen * fault.num / fault.den
        answer = round(seen * unit)
        if spec.min_answer is not None and answer < spec.min_answer:
            continue
        if spec.max_answer is not None and answer > spec.max_answer:
            continue
        rule = _due(rounds[-1] if rounds else None, t, answer, spec.deviation_bps, spec.heartbeat_s)
        if rule is not None:
            reason = RoundReason.FAULT if seen != true else rule
            price_e8 = round(seen * 10**PRICE_DECIMALS)
            rounds.append(PublishedRound(t, price_e8, reason, round(true * 10**PRICE_DECIMALS), answer))
    return rounds


def _due(
    last: PublishedRound | None, t: int, answer: int, deviation_bps: int, heartbeat_s: int
) -> RoundReason | None:
    """Return the rule that calls for a round now, or None."""
    if last is None:
        return RoundReason.FIRST
    change = abs(answer - last.answer)
    if change and change * 10_000 >= deviation_bps * last.answer:
        return RoundReason.DEVIATION
    if t - last.t >= heartbeat_s:
        return RoundReason.HEARTBEAT
    return None


def _composite_rounds(
    scenario: Scenario, feed: str, decimals: int, derive: DerivedFeed
) -> list[PublishedRound]:
    pair = feed_pair(scenario, feed)
    base_unit = 10 ** scenario.feeds[derive.feed].decimals
    ratio = Fraction(derive.num, derive.den)
    out: list[PublishedRound] = []
    for base in feed_rounds(scenario, derive.feed):
        # The composite multiplies the answer that the base feed published, rounding included.
        price = Fraction(base.answer, base_unit) * ratio
        true, _ = truth_e8(scenario, pair, base.t)
        out.append(
            PublishedRound(
                base.t, round(price * 10**PRICE_DECIMALS), base.reason, true, round(price * 10**decimals)
            )
        )
    return out
