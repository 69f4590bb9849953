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
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from datetime import date as Date
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from contracts_abi.errors import InputError, UnknownNameError
from oracle.faults import FaultModel, faults
from oracle.faults.gas import GasPrice
from oracle.faults.pool import MovePool
from oracle.faults.series import Freeze, Scale, SwapFeeds
from oracle.fields import AnyAmount, Pair, PositiveDecimal, UnixSeconds, bounded_number
from oracle.guards import guards
from oracle.incidents import incident_path
from oracle.mechanisms import FeedModel, mechanisms
from oracle.mechanisms.chainlink import ChainlinkFeed, RoundReason
from oracle.mechanisms.composite import CompositeFeed, DerivedFeed
from oracle.mechanisms.pools import ConcentratedAverage
from oracle.registry import Registry
from oracle.strict import StrictModel, input_error
from oracle.truth import TruthFile

SCHEMA = "oracle-scenario/1"
PRICE_DECIMALS = 8
PAIR = re.compile(r"[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+")
GWEI = 10**9


class PointStatus(StrEnum):
    """How well a figure is founded, best first."""

    DOCUMENTED = "documented"
    RECALLED = "recalled"
    INTERPOLATED = "interpolated"
    STATED = "stated"


class Chain(StrictModel):
    """The chain that the incident happened on."""

    id: int = Field(ge=1, description="EIP-155 chain id of the incident's chain")
    kind: Literal["l1", "l2", "other"] = "l1"
    block_time_s: int = Field(ge=1, description="typical seconds between blocks")
    block0: int = Field(default=0, ge=0, description="block number at the clock's start")


_MOST_STEPS = 200_000
"""Of a clock: every feed and account is played at each of them."""


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
        if (steps := (self.end - self.start) // self.step_s) > _MOST_STEPS:
            raise ValueError(f"{steps} steps are more than {_MOST_STEPS}: set step_s higher")
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
    """What a price really was: points, rows of a file, a ratio of another pair, or one price."""

    interp: Literal["linear", "step"] = "linear"
    points: tuple[Point, ...] = ()
    derived: Derived | None = None
    file: TruthFile | None = None
    constant: PositiveDecimal | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Truth:
        origins = (bool(self.points), *(o is not None for o in (self.derived, self.file, self.constant)))
        if sum(origins) != 1:
            raise ValueError("needs exactly one of points, derived, file and constant")
        _require_ascending([p.t for p in self.points])
        return self


def _built(registry: Registry[type[Any]], key: str) -> Callable[[object], object]:
    """Return a validator that builds a table by the entry that its `key` names."""

    def build(value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        if key not in value:
            raise InputError(f"{key} is missing", fix=f"known: {', '.join(registry)}")
        entry = registry.get(str(value[key]))
        try:
            return entry.model_validate({k: v for k, v in value.items() if k != key})
        except ValidationError as error:
            raise input_error(error, "") from None

    return build


AnyFeed: TypeAlias = Annotated[FeedModel, BeforeValidator(_built(mechanisms, "kind"))]
AnyFault: TypeAlias = Annotated[FaultModel, BeforeValidator(_built(faults, "op"))]
AnyGuard: TypeAlias = Annotated[Any, BeforeValidator(_built(guards, "kind"))]


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


class MarketSpec(StrictModel):
    """One asset of the protocol."""

    pair: Pair | None = Field(default=None, description="its price; by default the asset's pair")
    feed: str | None = Field(default=None, description="the feed read; by default the protocol's of the pair")
    max_ltv_bps: int = Field(default=0, ge=0, le=10_000)
    liquidation_threshold_bps: int = Field(default=0, ge=0, le=10_000)
    liquidation_bonus_bps: int = Field(default=0, ge=0)
    liquidity: PositiveDecimal | None = Field(default=None, description="tokens that can be borrowed")
    slippage_bps: int = Field(default=0, ge=0, le=10_000, description="lost when seized collateral is sold")

    @model_validator(mode="after")
    def _threshold_covers_ltv(self) -> MarketSpec:
        if self.liquidation_threshold_bps < self.max_ltv_bps:
            raise ValueError("liquidation_threshold_bps must not be below max_ltv_bps")
        return self


class ProtocolSpec(StrictModel):
    """The protocol whose accounts live through the scenario."""

    model: Literal["ltv", "aave_v3", "compound_v2", "comet", "morpho", "maker_flip", "maker_clip"]
    params: dict[str, int | str] = Field(default_factory=dict, description="the model's own parameters")
    close_factor_bps: int = Field(default=5_000, ge=1, le=10_000)
    markets: dict[str, MarketSpec] = Field(default_factory=dict)


class PositionSpec(StrictModel):
    """An account that is there from the start; amounts in whole tokens."""

    id: str = Field(min_length=1)
    collateral: dict[str, AnyAmount] = Field(default_factory=dict)
    debt: dict[str, AnyAmount] = Field(default_factory=dict)


class ActorSpec(StrictModel):
    """Somebody who acts: a borrower who takes what a price lets him, or a keeper who liquidates."""

    id: str = Field(min_length=1)
    role: Literal["borrower", "keeper"]
    at: UnixSeconds | None = Field(default=None, description="when a borrower comes; at the first chance")
    supplies: dict[str, AnyAmount] = Field(default_factory=dict)
    buys_at: Literal["truth", "nothing"] = Field(default="truth", description="what the collateral cost him")
    borrows: PositiveDecimal | Literal["max"] = "max"
    asset: str | None = Field(default=None, description="what a borrower borrows")
    cost_usd: PositiveDecimal | None = Field(default=None, description="what the attack costs besides")
    gas_cap_gwei: PositiveDecimal | None = Field(
        default=None, description="base fee above which a keeper waits"
    )
    gas_units: int | None = Field(default=None, ge=0)
    inventory_usd: PositiveDecimal | None = None
    from_: UnixSeconds | None = Field(default=None, alias="from")
    until: UnixSeconds | None = None

    @model_validator(mode="after")
    def _borrows_something(self) -> ActorSpec:
        if self.role == "borrower" and (self.asset is None or not self.supplies):
            raise ValueError("a borrower needs supplies and the asset that it borrows")
        return self


class PolicySpec(StrictModel):
    """What an operator of this market would configure; each value is optional."""

    max_age_s: int | None = Field(default=None, ge=1)
    bound_eps_bps: int | None = Field(default=None, ge=0)
    cross_dev_bps: int | None = Field(default=None, ge=0)
    lkg_ttl_s: int | None = Field(default=None, ge=0)
    harm_tolerance_bps: int | None = Field(default=None, ge=0)
    without_reference: Literal["hold", "act"] | None = None
    guards: tuple[AnyGuard, ...] | None = Field(default=None, description="all at their defaults without it")


ASSERTIONS = (
    *("guard", "reported", "deviation_bps", "minutes_mispriced"),
    *("bad_debt_usd", "wrongly_liquidated_usd", "attacker_profit_usd"),
)

ECONOMIC = frozenset({"bad_debt_usd", "wrongly_liquidated_usd", "attacker_profit_usd"})
_NEVER_NEGATIVE = frozenset({"bad_debt_usd", "wrongly_liquidated_usd", "minutes_mispriced"})


class Expectation(StrictModel):
    """What must come out of a replay."""

    assert_: str = Field(alias="assert")
    id: str | None = Field(default=None, pattern=r"^G(0[1-9]|1[0-9]|2[0-6])$")
    feed: str | None = None
    at: UnixSeconds | None = None
    by: UnixSeconds | None = None
    action: str | None = None
    op: Literal["<", "<=", "==", ">=", ">"] | None = None
    value: int | str | None = None
    tolerance_bps: int | None = Field(default=None, ge=0)
    with_: Literal["guarded", "unguarded"] | None = Field(default=None, alias="with")

    @field_validator("value")
    @classmethod
    def _bounded(cls, value: int | str | None) -> int | str | None:
        if value is not None:
            bounded_number(str(value))
        return value

    @field_validator("assert_")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ASSERTIONS:
            raise UnknownNameError("assertion", value, ASSERTIONS)
        return value


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
    date: Date | None = Field(default=None, description="day of the incident")
    record: Literal["documented", "recalled", "stated"] = "stated"
    depth: Literal["deep", "series"] = "series"
    mechanism: str = ""
    loss_usd: PositiveDecimal | None = Field(default=None, description="published loss")
    summary: str = ""
    chain: Chain
    clock: Clock
    assets: dict[str, AssetSpec]
    truth: dict[Pair, Truth]
    feeds: dict[str, AnyFeed]
    faults: tuple[AnyFault, ...] = ()
    gas: Gas | None = None
    protocol: ProtocolSpec | None = None
    positions: tuple[PositionSpec, ...] = ()
    actors: tuple[ActorSpec, ...] = ()
    policy: PolicySpec = PolicySpec()
    expect: tuple[Expectation, ...] = ()
    provenance: tuple[Claim, ...] = ()

    _sha256: str = PrivateAttr(default="")
    _rows: dict[str, tuple[tuple[int, Fraction], ...]] = PrivateAttr(default_factory=dict)
    _columns: dict[str, tuple[tuple[int, ...], tuple[Fraction, ...]]] = PrivateAttr(default_factory=dict)

    @property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes in hex; empty when the scenario was not read from bytes."""
        return self._sha256

    @field_validator("faults")
    @classmethod
    def _blocks_are_times(
        cls, several: tuple[FaultModel, ...], info: ValidationInfo
    ) -> tuple[FaultModel, ...]:
        chain, clock = info.data.get("chain"), info.data.get("clock")
        if chain is None or clock is None:
            return several  # which is refused for that
        placed = []
        for i, fault in enumerate(several):
            try:
                placed.append(fault.on_chain(clock.start, chain.block0, chain.block_time_s))
            except ValueError as error:
                raise ValueError(f"fault {i}: {error}") from None
        return tuple(placed)

    @model_validator(mode="after")
    def _references_hold(self) -> Scenario:
        clock = self.clock
        for pair, truth in self.truth.items():
            if truth.derived is not None:
                if truth.derived.of not in self.truth:
                    raise UnknownNameError(f"pair in truth.{pair}.derived.of:", truth.derived.of, self.truth)
                if self.truth[truth.derived.of].derived is not None:
                    raise ValueError(f"truth.{pair} derives from a derived pair; name the original")
            elif truth.points:
                _require_cover(f"truth.{pair}", [p.t for p in truth.points], clock)
        for symbol, asset in self.assets.items():
            if asset.pair is not None and asset.pair not in self.truth:
                raise UnknownNameError(f"pair in assets.{symbol}.pair:", asset.pair, self.truth)
        for name, feed in self.feeds.items():
            told = feed_pair(self, name)
            if PAIR.fullmatch(told) is None:
                raise ValueError(f"feeds.{name} needs pair: its name is not one")
            for pair in (*feed.pairs(name), *([] if feed.role == "part" else [told])):
                if pair not in self.truth:
                    raise UnknownNameError(f"pair of feeds.{name}:", pair, self.truth)
            for behind in feed.feeds():
                if behind not in self.feeds:
                    raise UnknownNameError(f"feed in feeds.{name}:", behind, self.feeds)
            _require_no_circle(self, name)
        for i, fault in enumerate(self.faults):
            self._fault_fits(i, fault)
        self._expectations_can_be()
        if self.gas is not None:
            _require_cover("gas", [p.t for p in self.gas.points], clock)
        return self

    def _fault_fits(self, i: int, fault: FaultModel) -> None:
        if fault.feed not in self.feeds:
            raise UnknownNameError(f"feed in faults.{i}:", fault.feed, self.feeds)
        feed = self.feeds[fault.feed]
        if fault.acts_in() == "mechanism" and fault.op not in feed.acts:
            can = ", ".join(sorted(feed.acts)) or "none"
            raise ValueError(f"faults.{i}: a feed of kind {feed.kind} knows no {fault.op} (it knows: {can})")
        if (
            isinstance(fault, MovePool)
            and fault.tick is not None
            and not isinstance(feed, ConcentratedAverage)
        ):
            raise ValueError(f"faults.{i}: a feed of kind {feed.kind} has no ticks; give a price")
        if isinstance(fault, GasPrice) and fault.times is not None and self.gas is None:
            raise ValueError(f"faults.{i}: times needs [gas], whose base fee it multiplies")
        if isinstance(fault, SwapFeeds) and fault.with_ not in self.feeds:
            raise UnknownNameError(f"feed in faults.{i}.with:", fault.with_, self.feeds)
        ended = fault.until is not None and fault.until <= self.clock.start
        if ended or fault.at > self.clock.end:
            raise ValueError(f"faults.{i} lies outside the clock")
        to_the_second = isinstance(feed, ConcentratedAverage)
        changed = fault.acts_in() == "mechanism" and not to_the_second
        if changed and not any(fault.active(t) for t in self.steps()):
            raise ValueError(
                f"faults.{i} acts between two steps of the clock only, and a feed of kind {feed.kind} is "
                "played on steps"
            )

    def _expectations_can_be(self) -> None:
        """Refuse what no replay of this scenario could answer, or could answer in one way only."""
        for i, expected in enumerate(self.expect):
            at = f"expect.{i}"
            self._expected_feed_is_judged(at, expected)
            for moment in (expected.at, expected.by):
                if moment is not None and not self.clock.start <= moment <= self.clock.end:
                    raise ValueError(f"{at}: {_iso(moment)} lies outside the clock")
            if expected.assert_ == "guard":
                self._guard_can_fire(at, expected)
            else:
                self._figure_can_be(at, expected)

    def _expected_feed_is_judged(self, at: str, expected: Expectation) -> None:
        name = expected.feed
        if name is None:
            return
        if name not in self.feeds:
            raise UnknownNameError(f"feed in {at}:", name, self.feeds)
        if self.feeds[name].role == "part" and feed_pair(self, name) not in self.truth:
            raise ValueError(f"{at}: {name} is a part whose own price is not known, and no guard judges it")

    def _guard_can_fire(self, at: str, expected: Expectation) -> None:
        if expected.id is None:
            raise ValueError(f"{at}: a guard is expected without its id")
        asked = self.policy.guards
        held = [guards.get(kind) for kind in guards] if asked is None else list(asked)
        those = [guard for guard in held if guard.id == expected.id]
        if not those:
            raise ValueError(f"{at}: {expected.id} is not among the guards of the policy")
        if expected.at is not None:
            raise ValueError(f"{at}: a guard is expected by a time; write by in place of at")
        can = {str(action) for guard in those for action in guard.actions}
        if expected.action is not None and expected.action.lower() not in can:
            asks = " or ".join(sorted(can))
            raise ValueError(f"{at}: {expected.id} never asks to {expected.action.lower()}, only to {asks}")

    def _figure_can_be(self, at: str, expected: Expectation) -> None:
        what, op = expected.assert_, expected.op
        if op is None or expected.value is None:
            raise ValueError(f"{at}: {what} needs op and value")
        try:
            value = Fraction(str(expected.value))
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{at}: value {expected.value!r} is not a number") from None
        if what == "reported" and expected.at is None:
            raise ValueError(f"{at}: reported needs the time that it is about; add at")
        below = (op == "<" and value <= 0) or (op in ("<=", "==") and value < 0)
        if what in _NEVER_NEGATIVE and below:
            raise ValueError(f"{at}: {what} is never below zero, so {op} {expected.value} cannot be")
        if what in ECONOMIC:
            if self.protocol is None or not self.protocol.markets or not (self.positions or self.actors):
                raise ValueError(f"{at}: {what} needs a protocol with markets, and accounts")
            if what == "attacker_profit_usd" and not any(a.role == "borrower" for a in self.actors):
                raise ValueError(f"{at}: {what} needs an actor who borrows")
            return
        read = [name for name, feed in self.feeds.items() if feed.role == "protocol"]
        if expected.feed is None and len(read) != 1:
            raise ValueError(f"{at}: {what} names no feed, and the protocol reads {len(read)}")
        # The time that a price was wrong, and by how much at most, is counted for what the protocol reads.
        counted = what == "minutes_mispriced" or (what == "deviation_bps" and expected.at is None)
        if counted and expected.feed is not None and expected.feed not in read:
            raise ValueError(
                f"{at}: {expected.feed} is no feed that the protocol reads, and {what} is of those"
            )

    def steps(self) -> list[int]:
        """Return the grid points in unix seconds, from the clock's start to its end, both included."""
        return list(range(self.clock.start, self.clock.end + 1, self.clock.step_s))


def _require_no_circle(scenario: Scenario, name: str) -> None:
    seen, behind = {name}, list(scenario.feeds[name].feeds())
    while behind:
        at = behind.pop()
        if at == name:
            raise ValueError(f"feeds.{name} is made of itself")
        if at not in seen and at in scenario.feeds:
            seen.add(at)
            behind += scenario.feeds[at].feeds()


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


def parse_scenario(data: bytes, where: str = "scenario", *, folder: Path | None = None) -> Scenario:
    """Return the scenario that `data` holds as TOML.

    Parameters
    ----------
    data
        Bytes of the file, UTF-8.
    where
        Name of the file, for messages.
    folder
        Where the files that it names are looked for; the working folder by default.

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
    for pair, truth in scenario.truth.items():
        if truth.file is not None:
            rows = truth.file.read(pair, folder or Path(), f"{where}: truth.{pair}")
            _covered(f"{where}: truth.{pair}", [t for t, _ in rows], scenario.clock)
            scenario._rows[pair] = rows
    return scenario


def _covered(what: str, times: Sequence[int], clock: Clock) -> None:
    try:
        _require_cover(what, times, clock)
    except ValueError as error:
        raise InputError(str(error), fix="move the clock, or give a longer file") from None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a scenario file, with a table for every kind of feed, fault and guard."""
    schema = Scenario.model_json_schema()
    definitions = schema["$defs"]
    several, _nothing = definitions["PolicySpec"]["properties"]["guards"]["anyOf"]
    several["items"] = {"$ref": "#/$defs/GuardModel"}
    for registry, key, base in (
        (mechanisms, "kind", "FeedModel"),
        (faults, "op", "FaultModel"),
        (guards, "kind", "GuardModel"),
    ):
        entries = []
        for name in registry:
            entry = registry.get(name).model_json_schema()
            definitions |= entry.pop("$defs", {})
            entry["properties"] = {key: {"const": name}} | entry["properties"]
            entry["required"] = [key, *entry.get("required", [])]
            entries.append(entry)
        definitions[base] = {"oneOf": entries}
    return schema


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
            fix="give a file, or the id of an incident; `marginline oracle incidents` lists them",
        ) from None
    return parse_scenario(data, text, folder=Path(source).parent)


def _interpolate(
    times: Sequence[int], values: Sequence[Fraction], t: int, *, step: bool = False
) -> tuple[Fraction, int, int]:
    """Return the value at `t` and the indices of the points it lies between (equal on a point)."""
    if not times[0] <= t <= times[-1]:
        raise InputError(f"no figure at {_iso(t)}: the points cover {_iso(times[0])} to {_iso(times[-1])}")
    right = bisect.bisect_left(times, t)
    if times[right] == t:
        return values[right], right, right
    left = right - 1
    if step:
        return values[left], left, left
    share = Fraction(t - times[left], times[right] - times[left])
    return values[left] + (values[right] - values[left]) * share, left, right


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
    if truth.constant is not None:
        return Fraction(truth.constant), PointStatus.STATED
    times, prices = _columns_of(scenario, pair, truth)
    value, left, right = _interpolate(times, prices, t, step=truth.interp == "step")
    if truth.file is not None:
        return value, PointStatus.DOCUMENTED if left == right else PointStatus.INTERPOLATED
    points = truth.points
    if left == right:
        return value, points[left].status
    return value, _between(points[left].status, points[right].status)


def _columns_of(scenario: Scenario, pair: str, truth: Truth) -> tuple[tuple[int, ...], tuple[Fraction, ...]]:
    """Return times and prices of a truth, made once: a replay asks for them at every step."""
    if pair not in scenario._columns:
        rows = scenario._rows[pair] if truth.file is not None else _point_rows(truth)
        scenario._columns[pair] = (tuple(t for t, _ in rows), tuple(price for _, price in rows))
    return scenario._columns[pair]


def _point_rows(truth: Truth) -> tuple[tuple[int, Fraction], ...]:
    return tuple((p.t, Fraction(p.price)) for p in truth.points)


def truth_at(scenario: Scenario, pair: str, t: int) -> Fraction:
    """Return the true price of `pair` at `t`, exact.

    Raises
    ------
    InputError
        If the scenario has no such pair, or no figure at that time.
    """
    return _truth(scenario, pair, t)[0]


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


def base_fee_at(scenario: Scenario, t: int) -> int | None:
    """Return the base fee at `t` in wei, as gas faults leave it, rounded half to even; None where unknown.

    The scenario's gas is linear between its points. Faults of op ``gas`` follow in the order of the file,
    whichever feed they stand on: there is one base fee.

    Raises
    ------
    InputError
        If the scenario's gas has no figure at that time.
    """
    fee: Fraction | None = None
    if scenario.gas is not None:
        points = scenario.gas.points
        gwei, _, _ = _interpolate([p.t for p in points], [Fraction(p.base_fee_gwei) for p in points], t)
        fee = gwei * GWEI
    for fault in scenario.faults:
        if isinstance(fault, GasPrice):
            fee = fault.fee_wei(fee, t)
    return None if fee is None else round(fee)


def base_fee_wei(scenario: Scenario, t: int) -> int:
    """Return the base fee at `t` in wei; see `base_fee_at`.

    Raises
    ------
    InputError
        If the scenario has no gas series, or no figure at that time.
    """
    fee = base_fee_at(scenario, t)
    if fee is None:
        raise InputError(f"scenario {scenario.id} has no gas series", fix="add [[gas.points]]")
    return fee


def keepers_cap_wei(scenario: Scenario) -> int | None:
    """Return the base fee above which every keeper of the scenario waits; None without such a fee."""
    caps = [actor.gas_cap_gwei for actor in scenario.actors if actor.role == "keeper"]
    known = [cap for cap in caps if cap is not None]
    return int(Fraction(max(known)) * GWEI) if known and len(known) == len(caps) else None


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


def assets_touched(scenario: Scenario, fault: FaultModel) -> tuple[str, ...]:
    """Return the tokens whose protocol price `fault` bends, directly or through a composite feed."""
    if isinstance(fault, GasPrice):
        return ()
    feeds = {
        name
        for name, spec in scenario.feeds.items()
        if spec.role == scenario.feeds[fault.feed].role == "protocol"
        and (name == fault.feed or fault.feed in spec.feeds())
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
    if isinstance(spec, CompositeFeed) and spec.derive_from is not None:
        if any(f.feed == feed for f in scenario.faults):
            raise InputError(f"a fault on {feed} has no rounds to bend", fix="put the fault on its base feed")
        return _composite_rounds(scenario, feed, spec.decimals, spec.derive_from)
    if not isinstance(spec, ChainlinkFeed):
        raise InputError(f"feeds.{feed} of kind {spec.kind} publishes no rounds", fix="name a chainlink feed")

    pair = feed_pair(scenario, feed)
    bent = [f for f in scenario.faults if f.feed == feed]
    steps = scenario.steps()
    true = [truth_at(scenario, pair, t) for t in steps]
    seen: list[Fraction | None] = []
    for t, price in zip(steps, true, strict=True):
        active = [f for f in bent if f.active(t)]
        value = price
        for fault in active:
            if isinstance(fault, Scale):
                value = value * fault.num / fault.den
        seen.append(None if any(isinstance(f, Freeze) for f in active) else value)
    rounds: list[PublishedRound] = []
    for pushed in spec.push(steps, seen):
        i = pushed.step
        price = seen[i] or Fraction(0)
        reason = RoundReason.FAULT if price != true[i] else pushed.reason
        unit = 10**PRICE_DECIMALS
        rounds.append(
            PublishedRound(steps[i], round(price * unit), reason, round(true[i] * unit), pushed.answer)
        )
    return rounds


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
