"""What a replay leaves behind: one record, from which every report is made.

Written as JSON with sorted keys, without a clock and without paths: the same scenario, data and version give
the same bytes. Prices and amounts are decimal text, because no float holds them; times are unix seconds.
Unknown is null, never zero.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, ValidationError

from oracle.strict import StrictModel, input_error

Number: TypeAlias = Annotated[str, Field(pattern=r"^-?\d+(\.\d+)?$")]
"""A decimal as text."""

Whole: TypeAlias = Annotated[str, Field(pattern=r"^-?\d+$")]
"""An integer as text: a price off by 1e12, in basis points, is too large a number for many JSON readers."""


class DataFile(StrictModel):
    """A file that the scenario's truth was read from."""

    what: str = Field(description="pair or feed that it holds")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of its bytes")


class FeedInfo(StrictModel):
    """A feed of the scenario."""

    name: str
    kind: str = Field(description="mechanism that made its answers")
    role: str = Field(description="protocol, reference or part")
    pair: str
    decimals: int


class FaultInfo(StrictModel):
    """A fault that was played."""

    feed: str
    op: str
    at: int = Field(description="first second, unix")
    until: int | None = Field(description="first second after it; null to the end")
    ours: bool = Field(description="true when we added it and history did not")
    note: str
    parameters: dict[str, str]


class FeedCell(StrictModel):
    """One feed at one step."""

    truth: Number = Field(description="true price")
    raw: Number | None = Field(description="what the feed said; null when it said nothing")
    mantissa: Whole | None = Field(description="the answer as the contract gives it, an integer")
    decimals: int | None = Field(description="scale of that integer")
    published_at: int | None = Field(description="unix seconds that the answer carries")
    status: str = Field(description="ok, refused or missing, by the guards")
    deviation_bps: Whole | None = Field(description="said against true, signed, away from zero")
    violated: tuple[str, ...] = Field(description="guards violated, by id")
    reason: str = Field(description="why there is no answer; empty when there is one")


class AdapterCell(StrictModel):
    """What the guarded adapter gives for one protocol feed at one step."""

    price: Number | None
    origin: str = Field(description="source, fallback, last_known_good or none")
    paused: tuple[str, ...] = Field(description="actions that are paused")


class TimelineRow(StrictModel):
    """One step."""

    t: int
    block: int
    feeds: dict[str, FeedCell]
    adapted: dict[str, AdapterCell]


class ActionRow(StrictModel):
    """One thing that happened at the protocol, or was refused."""

    t: int
    block: int
    deed: str
    account: str
    by: str
    debt: str
    debt_amount: Number
    debt_usd: Number
    collateral: str
    collateral_amount: Number
    collateral_usd: Number
    wrong: bool = Field(description="liquidated while healthy at the true price")
    detail: str


class EconomicsRecord(StrictModel):
    """One run of the accounts. Amounts are in the quote currency at true prices."""

    bad_debt_usd: Number
    bad_debt_peak_usd: Number
    wrongly_liquidated: tuple[str, ...]
    wrongly_seized_usd: Number
    wrongly_lost_usd: Number
    liquidations: int
    seized_usd: Number
    attacker_profit_usd: Number
    keeper_profit_usd: Number
    borrowable_at: int | None = Field(description="step at which what the two lines say differs most")
    borrowable_reported_usd: Number | None = Field(description="at the protocol's prices; null without one")
    borrowable_truth_usd: Number | None
    actions: tuple[ActionRow, ...]
    bad_debt_by_step: tuple[Number, ...]


class MarketInfo(StrictModel):
    """One asset of the lending market."""

    symbol: str
    decimals: int
    pair: str | None = Field(description="pair that prices it; null counts 1")
    feed: str | None = Field(description="feed that the protocol reads for it")
    max_ltv_bps: int
    liquidation_threshold_bps: int
    liquidation_bonus_bps: int
    slippage_bps: int
    liquidity: Number | None


class EconomicsRuns(StrictModel):
    """The same accounts three times: at what the feeds said, at the guarded decision, and at the truth."""

    markets: tuple[MarketInfo, ...]
    model: str = Field(description="what they were played in")
    exact: bool = Field(description="false for a generic model that stands in")
    notes: tuple[str, ...] = Field(description="what was assumed where the scenario is silent")
    unguarded: EconomicsRecord
    guarded: EconomicsRecord
    truthful: EconomicsRecord = Field(description="what is lost here was not the oracle's fault")


class FeedSummary(StrictModel):
    """What went wrong with one feed."""

    feed: str
    tolerance_bps: int = Field(description="deviation from which the feed counts as mispriced")
    first_divergence: int | None
    max_deviation_bps: Whole | None
    max_deviation_at: int | None
    mispriced_s: int
    missing_s: int = Field(description="seconds without an answer")
    detected_at: int | None = Field(description="first violation at or after the first divergence")
    detected_by: tuple[str, ...]
    detection_delay_s: int | None
    first_refused: int | None = Field(description="first step at which the guards refused the feed")
    accepted_mispriced_s: int = Field(description="seconds in which a mispriced answer stood all the same")


class FiredRow(StrictModel):
    """The first violation of a guard on a feed."""

    t: int
    feed: str
    guard: str
    name: str
    observed: str
    threshold: str
    actions: tuple[str, ...]
    message: str
    inputs: dict[str, str]


class GuardCount(StrictModel):
    """What a guard said of a feed over all steps."""

    feed: str
    guard: str
    name: str
    ok: int
    violated: int
    not_applicable: int
    message: str = Field(description="why it was not applicable, where it never was")


class AblationRow(StrictModel):
    """The replay with one guard alone, beside the one that asks whether there is a price at all."""

    guard: str
    name: str
    parameters: dict[str, str]
    applicable: bool
    first_fired: int | None
    delay_s: int | None
    covered_bps: int | None = Field(description="share of the mispriced steps that it refuses, 1e-4")
    bad_debt_usd: Number | None
    wrongly_seized_usd: Number | None
    verdict: Literal["stops", "reduces", "no effect", "worse", "not applicable", "detects", "silent"]


class SweepPoint(StrictModel):
    """One threshold of one guard, alone."""

    guard: str
    name: str
    parameter: str
    value: str
    default: bool
    first_fired: int | None
    covered_bps: int | None
    bad_debt_usd: Number | None
    wrongly_seized_usd: Number | None
    verdict: str


class AlarmPoint(StrictModel):
    """How often a guard cries on real rounds, from the calibration."""

    guard: str
    parameter: str
    threshold: str
    default: bool
    part: str
    set: str
    observations: int
    false_alarms: int
    faults: int
    misses: int


class MatrixRecord(StrictModel):
    """Which single guard would have stopped it."""

    alone: tuple[AblationRow, ...]
    sweep: tuple[SweepPoint, ...]
    false_alarms: tuple[AlarmPoint, ...]
    left_out: dict[str, str] = Field(description="guards without a calibration, and what they lack")


class CheckRow(StrictModel):
    """One expectation, and what came of it."""

    text: str
    expected: str
    actual: str
    ok: bool


class ClaimRow(StrictModel):
    """A fact that the scenario rests on, and who says so."""

    claim: str
    source: str
    url: str | None
    confidence: str


class Finding(StrictModel):
    """A draft of an auditor's finding."""

    title: str
    severity: Literal["High", "Medium", "Low"]
    severity_reason: str
    checklist_ids: tuple[str, ...]
    description: str
    impact: str
    recommendation: str
    references: tuple[str, ...]


class ReplayRecord(StrictModel):
    """One replay, complete."""

    schema_: Literal["marginline-replay/1"] = Field(default="marginline-replay/1", alias="schema")
    tool_version: str
    scenario_id: str
    scenario_sha256: str = Field(description="SHA-256 of the scenario file")
    data: tuple[DataFile, ...] = Field(description="files that the truth was read from")
    seed: int | None = Field(description="null when nothing in the replay is random")
    setting: str = Field(description="what was played: synthetic, or a fork and its block")
    title: str
    date: str
    record: str = Field(description="documented, recalled or stated")
    depth: str
    mechanism: str
    summary: str
    published_loss_usd: Number | None
    chain_id: int
    chain_kind: str
    block_time_s: int
    start: int
    end: int
    step_s: int
    quote: str = Field(description="currency of all amounts")
    feeds: tuple[FeedInfo, ...]
    faults: tuple[FaultInfo, ...]
    timeline: tuple[TimelineRow, ...]
    fired: tuple[FiredRow, ...]
    guards: tuple[GuardCount, ...]
    summaries: tuple[FeedSummary, ...]
    economics: EconomicsRuns | None
    matrix: MatrixRecord | None
    checks: tuple[CheckRow, ...]
    finding: Finding
    provenance: tuple[ClaimRow, ...]

    @property
    def passed(self) -> bool:
        """Whether every expectation of the scenario came true."""
        return all(check.ok for check in self.checks)

    @property
    def worst(self) -> FeedSummary | None:
        """The protocol feed that went furthest from the truth; None when none has a deviation."""
        known = [s for s in self.summaries if s.max_deviation_bps is not None]
        return max(known, key=lambda s: abs(int(s.max_deviation_bps or 0)), default=None)

    def to_json(self) -> str:
        """Return the record as indented JSON with sorted keys and a final newline."""
        return (
            json.dumps(
                self.model_dump(mode="json", by_alias=True), indent=1, sort_keys=True, ensure_ascii=False
            )
            + "\n"
        )


def replay_record_from_json(text: str | bytes, where: str = "replay record") -> ReplayRecord:
    """Return the record that `text` holds.

    Raises
    ------
    InputError
        If it is not a complete record.
    """
    try:
        return ReplayRecord.model_validate_json(text)
    except ValidationError as error:
        raise input_error(error, where) from None
