"""Faults of series: applied in order, and the order counts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.faults import FaultModel, bend, faults
from oracle.types import FeedKind, NoData, PriceObs, Reading

START, STEP_S = 1_700_000_000, 60
STEPS = tuple(START + i * STEP_S for i in range(12))

prices = st.lists(st.none() | st.integers(1, 10**12), min_size=len(STEPS), max_size=len(STEPS))

ARGUMENTS: dict[str, Callable[[st.DataObject], dict[str, object]]] = {
    "freeze": lambda d: {},
    "drop": lambda d: {},
    "revert": lambda d: {},
    "delay": lambda d: {"s": d.draw(st.integers(1, 300))},
    "future": lambda d: {"s": d.draw(st.integers(1, 300))},
    "rollback": lambda d: {"rounds": d.draw(st.integers(1, 3))},
    "phase_switch": lambda d: {"decimals": d.draw(st.sampled_from([None, 6, 18]))},
    "shift_decimals": lambda d: {"by": d.draw(st.integers(-12, 12))},
    "clamp": lambda d: {"max": "1000"},
    "scale": lambda d: {"num": d.draw(st.integers(1, 9)), "den": d.draw(st.integers(1, 9))},
    "spike": lambda d: {"value": "5", "dur": d.draw(st.integers(1, 300))},
    "constant": lambda d: {"value": "3"},
    "conf": lambda d: {"bps": d.draw(st.integers(0, 9_999))},
    "sequencer": lambda d: {"down_s": d.draw(st.integers(1, 300))},
}


def series(values: list[int | None]) -> list[Reading]:
    return [
        NoData("ETH", "USD", "feed", t, "nothing", i)
        if value is None
        else PriceObs("ETH", "USD", value, 8, FeedKind.PUSH, "feed", t, t, i, round_key=(1, i + 1))
        for i, (t, value) in enumerate(zip(STEPS, values, strict=True))
    ]


def built(op: str, **keys: object) -> FaultModel:
    model: FaultModel = faults.get(op).model_validate({"feed": "ETH/USD", **keys})
    return model


@st.composite
def several(draw: st.DrawFn, count: int = 1) -> list[FaultModel]:
    data = draw(st.data())
    found = []
    for _ in range(count):
        op = draw(st.sampled_from(sorted(ARGUMENTS)))
        at = START + draw(st.integers(0, 600))
        keys = ARGUMENTS[op](data) | {"at": datetime.fromtimestamp(at, UTC)}
        if op not in ("spike", "sequencer"):
            keys["until"] = datetime.fromtimestamp(at + draw(st.integers(1, 600)), UTC)
        found.append(built(op, **keys))
    return found


def test_every_fault_of_a_series_is_tried_here() -> None:
    of_series = {op for op in faults if faults.get(op).stage != "mechanism"} - {"swap_feeds"}
    assert of_series == set(ARGUMENTS)


@settings(deadline=None)
@given(prices, several(count=2))
def test_two_faults_are_the_second_upon_the_first(values: list[int | None], two: list[FaultModel]) -> None:
    first, second = two
    assert bend(STEPS, series(values), two) == second.apply(STEPS, first.apply(STEPS, series(values)))


@settings(deadline=None)
@given(prices, several())
def test_a_fault_changes_nothing_before_it_begins(values: list[int | None], one: list[FaultModel]) -> None:
    before = series(values)
    after = bend(STEPS, before, one)
    assert len(after) == len(before)
    assert [a for a, t in zip(after, STEPS, strict=True) if t < one[0].at] == [
        b for b, t in zip(before, STEPS, strict=True) if t < one[0].at
    ]


def test_order_counts() -> None:
    at = datetime.fromtimestamp(STEPS[3], UTC)
    scale = built("scale", at=at, num=2, den=1)
    freeze = built("freeze", at=at)
    values: list[int | None] = [100 + i for i in range(len(STEPS))]
    scaled_then_frozen = bend(STEPS, series(values), [scale, freeze])[-1]
    frozen_then_scaled = bend(STEPS, series(values), [freeze, scale])[-1]
    assert isinstance(scaled_then_frozen, PriceObs)
    assert isinstance(frozen_then_scaled, PriceObs)
    assert (scaled_then_frozen.mantissa, frozen_then_scaled.mantissa) == (102, 204)


@pytest.mark.parametrize(
    ("op", "keys", "expected"),
    [
        ("revert", {}, None),
        ("constant", {"value": "3"}, 3 * 10**8),
        ("clamp", {"max": "0.000001"}, 100),
        ("shift_decimals", {"by": 2}, 11_100),
        ("delay", {"s": 120}, 109),
    ],
)
def test_what_a_fault_leaves_at_the_end(op: str, keys: dict[str, object], expected: int | None) -> None:
    values: list[int | None] = [100 + i for i in range(len(STEPS))]
    fault = built(op, at=datetime.fromtimestamp(STEPS[5], UTC), **keys)
    last = bend(STEPS, series(values), [fault])[-1]
    assert (None if isinstance(last, NoData) else last.mantissa) == expected
