"""A draft of an auditor's finding, written from what a replay showed."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final, Literal, TypeAlias

from oracle.guards import guards
from simulation.replay.record import (
    AblationRow,
    ClaimRow,
    EconomicsRuns,
    FeedCell,
    FeedSummary,
    Finding,
    FiredRow,
)
from simulation.replay.text import duration_text, percent_text, stamp, usd_text

Severity: TypeAlias = Literal["High", "Medium", "Low"]

_OPEN: Final = frozenset({"scale", "formula", "trade", "swap", "missing-leg", "donation"})
"""Mechanisms that need nobody's privilege and nobody's misfortune: whoever comes first can use them."""


def severity(mechanism: str, *, loss: bool) -> tuple[Severity, str]:
    """Return a severity by rule, and the rule: high when anybody can cause a loss, low without one."""
    if not loss:
        return "Low", "The replay shows no loss: hygiene."
    if mechanism in _OPEN:
        return "High", "A loss that anybody can cause, without a privilege and without an outside event."
    return (
        "Medium",
        "A loss that needs an outside event: an outage, a depeg, a crash, a key or an upgrade.",
    )


def draft(
    *,
    title: str,
    mechanism: str,
    worst: FeedSummary | None,
    cell: FeedCell | None,
    economics: EconomicsRuns | None,
    fired: Sequence[FiredRow],
    alone: Sequence[AblationRow],
    provenance: Sequence[ClaimRow],
    published_loss_usd: str | None,
) -> Finding:
    """Return the finding that the replay supports.

    Parameters
    ----------
    worst, cell
        The feed that went furthest from the truth, and what it said then.
    alone
        The guard matrix; guards that stop the loss alone are recommended.
    """
    lost = economics is not None and any(
        Decimal(amount) > 0
        for amount in (
            economics.unguarded.bad_debt_usd,
            economics.unguarded.wrongly_seized_usd,
            economics.unguarded.attacker_profit_usd,
        )
    )
    # A scenario without a market shows no loss of its own; what was published is one.
    level, why = severity(mechanism, loss=lost or (economics is None and published_loss_usd is not None))
    answered = {guards.get(kind).id: guards.get(kind).checklist for kind in guards}
    ids = dict.fromkeys(i for f in fired for i in answered.get(f.guard, ()))
    return Finding(
        title=f"{title}: {_headline(worst)}",
        severity=level,
        severity_reason=why,
        checklist_ids=tuple(ids),
        description=_description(mechanism, worst, cell),
        impact=_impact(economics, published_loss_usd),
        recommendation=_recommendation(fired, alone),
        references=tuple(dict.fromkeys(c.source + (f", {c.url}" if c.url else "") for c in provenance)),
    )


def _headline(worst: FeedSummary | None) -> str:
    if worst is None or worst.max_deviation_bps is None:
        return "the feed gives no answer"
    return f"{worst.feed} is {percent_text(int(worst.max_deviation_bps))} off and is believed"


def _description(mechanism: str, worst: FeedSummary | None, cell: FeedCell | None) -> str:
    if worst is None or cell is None or worst.max_deviation_at is None:
        return "The feed that the protocol reads gives no answer, and it has no other way to a price."
    text = (
        f"At {stamp(worst.max_deviation_at)} {worst.feed} says {cell.raw} while the price is {cell.truth}. "
        f"It stands further than {worst.tolerance_bps} bps from the truth "
        f"for {duration_text(worst.mispriced_s)}"
    )
    if worst.first_divergence is not None:
        text += f", first at {stamp(worst.first_divergence)}"
    text += "."
    if mechanism:
        text += f" The wrong value comes out of the mechanism itself ({mechanism})."
    return text + " The protocol acts on the answer as it is."


def _impact(economics: EconomicsRuns | None, published_loss_usd: str | None) -> str:
    parts = []
    if economics is not None:
        run = economics.unguarded
        parts.append(
            f"In the {economics.model}: bad debt {usd_text(run.bad_debt_usd)}, "
            f"{usd_text(run.wrongly_seized_usd)} of collateral seized from {len(run.wrongly_liquidated)} "
            f"accounts that were healthy at true prices, attacker's profit "
            f"{usd_text(run.attacker_profit_usd)}."
        )
        held = economics.guarded
        parts.append(
            f"With all guards of the policy: bad debt {usd_text(held.bad_debt_usd)}, wrongly seized "
            f"{usd_text(held.wrongly_seized_usd)}, attacker's profit {usd_text(held.attacker_profit_usd)}."
        )
    if published_loss_usd is not None:
        parts.append(f"Published loss of the incident: {usd_text(published_loss_usd)}.")
    return " ".join(parts) or "Not played: the scenario names no lending market."


def _recommendation(fired: Sequence[FiredRow], alone: Sequence[AblationRow]) -> str:
    stopping = [f"{row.guard} ({row.name})" for row in alone if row.verdict in ("stops", "detects")]
    if stopping:
        return (
            f"Hold the answer against {', '.join(stopping)}: each of them alone would have stopped it here. "
            "Refuse what raises risk while one is violated, and give liquidations a rule of their own."
        )
    if fired:
        ids = ", ".join(dict.fromkeys(f"{f.guard} ({f.name})" for f in fired))
        return (
            f"No single guard stops it; {ids} are violated. Refuse what raises risk while one of them is, "
            "and bound what can be lent against the feed."
        )
    return "No guard notices it with what the feed shows: bound what can be lent against the feed."
