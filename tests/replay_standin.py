"""A replay of prices small enough to see through: one feed that stops at its bound, judged by real guards.

It stands in for `oracle.replay` where a test is about what is made of a replay: summary, expectations,
market, matrix and record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from oracle.decisions import adapt
from oracle.guards import basic_guards
from oracle.interfaces import FeedContext
from oracle.snapshot import REQUIRED, judge
from oracle.types import FeedKind, GuardStatus, NoData, PriceObs, PriceStatus, Reading

START, STEP_S = 1_652_342_400, 600
TRUTH = tuple(map(Fraction, ("0.30", "0.20", "0.107", "0.09", "0.0758", "0.05", "0.02", "0.0113", "0.0113")))
END = START + STEP_S * (len(TRUTH) - 1)
FLOOR = Fraction("0.107")
FEED = "COIN/USD"


@dataclass(frozen=True, slots=True)
class Expect:
    """An expectation as a scenario file states one."""

    assert_: str
    id: str | None = None
    feed: str | None = None
    by: int | None = None
    at: int | None = None
    action: str | None = None
    op: str | None = None
    value: str | int | None = None
    with_: str | None = None
    tolerance_bps: int | None = None


def _market(**terms: Any) -> SimpleNamespace:
    empty = {"pair": None, "feed": None, "liquidity": None}
    zeros = ("max_ltv_bps", "liquidation_threshold_bps", "liquidation_bonus_bps", "slippage_bps")
    return SimpleNamespace(**(empty | dict.fromkeys(zeros, 0) | terms))


def scenario(*expect: Expect, **changes: Any) -> Any:
    """Return a scenario whose feed cannot follow the market below its minimum."""
    fields = {
        "id": "coin-at-its-floor",
        "sha256": "ab" * 32,
        "title": "COIN stands at its floor",
        "date": "2022-05-12",
        "record": "stated",
        "depth": "deep",
        "mechanism": "bound",
        "summary": "It stays\n where it was.",
        "loss_usd": Decimal(11_200_000),
        "chain": SimpleNamespace(id=56, kind="l1", block_time_s=3),
        "clock": SimpleNamespace(start=START, end=END, step_s=STEP_S),
        "assets": {
            "COIN": SimpleNamespace(decimals=18, pair=FEED),
            "USDC": SimpleNamespace(decimals=6, pair=None),
        },
        "truth": {FEED: TRUTH},
        "feeds": {FEED: SimpleNamespace(kind="chainlink", role="protocol", pair=FEED, decimals=8)},
        "faults": (),
        "gas": None,
        "protocol": SimpleNamespace(
            model="compound_v2",
            close_factor_bps=5_000,
            markets={
                "COIN": _market(
                    max_ltv_bps=5_500,
                    liquidation_threshold_bps=5_500,
                    liquidation_bonus_bps=1_000,
                    slippage_bps=500,
                ),
                "USDC": _market(liquidity=Decimal(10**6)),
            },
        ),
        "positions": (
            SimpleNamespace(id="saver", collateral={"COIN": Decimal(10**6)}, debt={"USDC": Decimal(50_000)}),
        ),
        "actors": (
            SimpleNamespace(
                id="attacker",
                role="borrower",
                supplies={"COIN": Decimal(8 * 10**6)},
                asset="USDC",
                borrows="max",
                at=None,
                buys_at="truth",
                cost_usd=None,
            ),
        ),
        "policy": SimpleNamespace(harm_tolerance_bps=None, guards=basic_guards()),
        "expect": expect,
        "provenance": (
            SimpleNamespace(claim="it stopped", source="post-mortem", url=None, confidence="stated"),
        ),
    }
    return SimpleNamespace(**(fields | changes))


def replay(played: Any, *, guards: Sequence[Any] | None = None, fallback: bool = True) -> Any:
    """Return what `oracle.replay.replay` returns, for `scenario`."""
    used = tuple(played.policy.guards if guards is None else guards)
    required = REQUIRED & {g.kind for g in used}
    history: list[PriceObs] = []
    fired: dict[tuple[str, str], SimpleNamespace] = {}
    moments, last_good = [], None
    for i, true in enumerate(TRUTH):
        t = START + i * STEP_S
        said = getattr(played, "says", lambda i, true: max(true, FLOOR))(i, true)
        reading: Reading
        if said is None:
            reading = NoData("COIN", "USD", "chainlink:coin", t, "reverted", i)
        else:
            answer = int(said * 10**8)
            reading = PriceObs(
                "COIN", "USD", answer, 8, FeedKind.PUSH, "chainlink:coin", t, t, i, round_key=(1, i + 1)
            )
        context = FeedContext(t, heartbeat_s=3_600, deviation_bps=50, min_answer=10**7, max_answer=10**12)
        guarded = judge(reading, tuple(history), (), context, used, required)
        if guarded.status is PriceStatus.OK and isinstance(reading, PriceObs):
            history.append(reading)
        for finding in guarded.findings:
            if finding.status is GuardStatus.VIOLATED:
                fired.setdefault((FEED, finding.name), SimpleNamespace(t=t, feed=FEED, finding=finding))
        adapted = adapt(guarded, last_good, now=t)
        last_good = adapted.last_good
        cell = SimpleNamespace(
            reading=reading, context=context, guarded=guarded, truth=true, deviation_bps=_bps(said, true)
        )
        moments.append(SimpleNamespace(t=t, block=i, feeds={FEED: cell}, adapted={FEED: adapted}))
    return SimpleNamespace(scenario=played, moments=tuple(moments), fired=tuple(fired.values()))


def _bps(said: Fraction | None, true: Fraction) -> int | None:
    if said is None:
        return None
    size = int(-(-abs(said - true) * 10_000 // true))
    return size if said >= true else -size


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """Let what asks `oracle` for a replay get this one."""
    patch.setattr("oracle.replay.replay", replay)
    patch.setattr("oracle.scenario.truth_at", lambda s, pair, t: s.truth[pair][(t - START) // STEP_S])
