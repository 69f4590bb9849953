"""Faults of series: applied in order, and the order counts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from math import floor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts_abi.errors import InputError
from oracle.faults import FaultModel, bend, faults
from oracle.faults.gas import GasPrice
from oracle.interfaces import FeedContext, LivenessFacts
from oracle.mechanisms import World
from oracle.mechanisms.pools import (
    ConcentratedAverage,
    ConstantProductAverage,
    ConstantProductSpot,
    floor_means,
    traded,
)
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
    of_series = {op for op in faults if faults.get(op).stage != "mechanism"} - {"swap_feeds", "gas"}
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


# ----------------------------------------------------------------------------------- blocks in place of times

KEYS_OF_THE_MACHINE: dict[str, dict[str, object]] = {
    "missing_leg": {"leg": "ETH/USD"},
    "cap_params": {"snapshot_ratio": "1", "snapshot_at": datetime.fromtimestamp(START, UTC)},
    "swap": {"quote_in": "1"},
    "manip_twap": {"price": "1"},
    "set_liquidity": {"times": "0.5"},
    "rate_donate": {"assets": "1"},
    "swap_feeds": {"with": "BTC/USD"},
    "gas": {"gwei": "500"},
}


def when(t: int) -> datetime:
    return datetime.fromtimestamp(t, UTC)


@settings(deadline=None)
@given(st.data(), st.integers(0, 2**40), st.integers(1, 60), st.integers(0, 2**20))
def test_every_fault_begins_at_a_block_as_at_its_time(
    data: st.DataObject, block0: int, block_time_s: int, blocks: int
) -> None:
    op = data.draw(st.sampled_from(sorted(faults)))
    keys = KEYS_OF_THE_MACHINE[op] if op in KEYS_OF_THE_MACHINE else ARGUMENTS[op](data)
    by_block = built(op, at_block=block0 + blocks, **keys).on_chain(START, block0, block_time_s)
    by_time = built(op, at=when(START + blocks * block_time_s), **keys)
    assert by_block == by_time
    assert by_time.on_chain(START, block0, block_time_s) == by_time
    if block0:
        with pytest.raises(ValueError, match="before the clock's start"):
            built(op, at_block=block0 - 1, **keys).on_chain(START, block0, block_time_s)


@pytest.mark.parametrize("keys", [{}, {"at": when(START), "at_block": 5}])
@pytest.mark.parametrize("op", sorted(faults))
def test_a_fault_has_exactly_one_start(op: str, keys: dict[str, object]) -> None:
    known = KEYS_OF_THE_MACHINE.get(op, {"s": 1, "by": 1, "value": "1", "num": 1, "den": 1, "down_s": 1})
    own = {
        k: v for k, v in known.items() if k in {f.alias or n for n, f in faults.get(op).model_fields.items()}
    }
    with pytest.raises(ValueError, match="exactly one of at and at_block"):
        built(op, **own, **keys)


def test_a_fault_that_begins_at_a_block_may_not_end_before() -> None:
    late = built("freeze", at_block=10, until=when(START + 9))
    with pytest.raises(ValueError, match="until must be after at_block 10"):
        late.on_chain(START, 9, 9)


# ------------------------------------------------------------------------------------------------------ pools

reserves = st.integers(10**15, 10**27)


def test_reserves_change_in_the_order_of_the_file() -> None:
    half = built("set_liquidity", at=when(START), times="0.5")
    buy = built("swap", at=when(START), quote_in="100")
    before = 10**21, 10**21
    units = 10**18, 10**18
    thin_then_traded = traded(*traded(*before, half, units), buy, units)
    traded_then_thin = traded(*traded(*before, buy, units), half, units)
    assert Fraction(*thin_then_traded) < Fraction(*traded_then_thin)


@given(reserves, reserves, st.sampled_from(["0.001", "0.5", "7"]))
def test_liquidity_moves_no_price(base: int, quote: int, times: str) -> None:
    less, more = traded(base, quote, built("set_liquidity", at=when(START), times=times))
    assert (less, more) == (floor(base * Fraction(times)), floor(quote * Fraction(times)))
    assert float(Fraction(more, less)) == pytest.approx(quote / base, rel=1e-9)


@given(reserves, reserves, st.integers(1, 10**9), st.booleans())
def test_a_trade_leaves_what_a_pair_asks_for_and_no_unit_less(
    base: int, quote: int, tokens: int, selling: bool
) -> None:
    trade = built("swap", at=when(START), **{"base_in" if selling else "quote_in": str(tokens)})
    try:
        after = traded(base, quote, trade)
    except InputError:
        return
    fee = 3 * tokens

    def invariant(left: tuple[int, int]) -> bool:
        held = (
            (left[0] * 1_000 - fee, left[1] * 1_000) if selling else (left[0] * 1_000, left[1] * 1_000 - fee)
        )
        return held[0] * held[1] >= base * quote * 10**6

    assert invariant(after)
    assert not invariant((after[0], after[1] - 1) if selling else (after[0] - 1, after[1]))


@given(reserves, reserves, st.sampled_from(["0.001", "1", "1000"]))
def test_a_pool_that_is_held_at_a_price_stands_there(base: int, quote: int, price: str) -> None:
    less, more = traded(base, quote, built("manip_twap", at=when(START), price=price))
    assert float(Fraction(more, less)) == pytest.approx(float(price), rel=1e-6)
    assert base * quote - less < less * more <= base * quote


def test_a_pool_without_one_of_its_tokens_is_refused() -> None:
    for keys in ({"base_out": "10"}, {"base_out": "11"}):
        with pytest.raises(InputError, match="leaves a pool without one of its tokens"):
            traded(10, 10, built("swap", at=when(START), **keys))


def world(pair: str, acts: tuple[FaultModel, ...], prices: list[Fraction] | None = None) -> World:
    seen = {pair: tuple(prices or [Fraction(1)] * len(STEPS))}
    return World(STEPS, STEPS, seen, seen, {}, acts)


def pool(**keys: Any) -> ConcentratedAverage:
    return ConcentratedAverage.model_validate(
        {"window_s": 180, "base_decimals": 18, "quote_decimals": 18, "decimals": 18, **keys}
    )


@settings(deadline=None)
@given(
    st.lists(st.integers(-887_272, 887_271), min_size=len(STEPS), max_size=len(STEPS)),
    st.integers(1, 2_000),
    st.integers(0, len(STEPS) - 1),
)
def test_a_mean_tick_is_the_floor_of_the_exact_mean(ticks: list[int], window_s: int, i: int) -> None:
    (mean,) = floor_means(STEPS, ticks, window_s, [STEPS[i]])
    seconds = range(STEPS[i] - window_s, STEPS[i])
    exact = sum(ticks[max(0, (t - START) // STEP_S)] for t in seconds)
    assert mean == floor(Fraction(exact, window_s))


@settings(deadline=None)
@given(st.integers(-887_272, 887_271), st.integers(0, 600), st.integers(1, 30), st.integers(1, 20))
def test_so_many_blocks_are_so_many_seconds(tick: int, after: int, blocks: int, block_time_s: int) -> None:
    counted = built("manip_twap", at=when(START + after), tick=tick, blocks=blocks)
    placed = counted.on_chain(START, 0, block_time_s)
    timed = built(
        "manip_twap", at=when(START + after), tick=tick, until=when(START + after + blocks * block_time_s)
    )
    assert placed == timed
    assert pool().play("A/B", world("A/B", (placed,))) == pool().play("A/B", world("A/B", (timed,)))


@settings(deadline=None)
@given(st.integers(-500_000, 500_000))
def test_a_tick_is_the_price_that_it_stands_for(tick: int) -> None:
    model = pool(window_s=1)
    at_tick = built("manip_twap", at=when(STEPS[1]), tick=tick)
    last = model.play("A/B", world("A/B", (at_tick,))).readings[-1]
    at_root = model.course("A/B", world("A/B", (at_tick,)))[-1].root
    assert isinstance(last, PriceObs)
    # The library squares the root at 128 bits where it is long, and a raw unit is lost to rounding down.
    exact = Fraction(at_root - 1, 2**96) ** 2 * 10**18
    assert abs(last.mantissa - exact) <= 1 + exact / 2**60


def test_what_a_move_may_not_be() -> None:
    at = when(START)
    for keys, message in (
        ({}, "exactly one of price and tick"),
        ({"price": "1", "tick": 1}, "exactly one of price and tick"),
        ({"tick": 1, "blocks": 1, "until": when(START + 1)}, "only one of until and blocks"),
        ({"tick": 887_272}, "less than 887272"),
        ({"tick": 1, "blocks": 0}, "greater than or equal to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            built("manip_twap", at=at, **keys)


@pytest.mark.parametrize(
    "model",
    [
        ConstantProductSpot.model_validate({"base_reserve": "9", "quote_reserve": "9"}),
        ConstantProductAverage.model_validate({"base_reserve": "9", "quote_reserve": "9", "period_s": 60}),
        pool(),
    ],
)
def test_every_pool_takes_liquidity_and_says_the_same_price(model: Any) -> None:
    assert "set_liquidity" in model.acts
    change = built("set_liquidity", at=when(STEPS[2]), times="0.1")
    assert model.play("A/B", world("A/B", (change,))) == model.play("A/B", world("A/B", ()))


# -------------------------------------------------------------------------------------------------------- gas


def gas(at: int = 0, **keys: Any) -> GasPrice:
    fault = built("gas", at=when(START + at), **keys)
    assert isinstance(fault, GasPrice)
    return fault


def fee_of(several: list[GasPrice], before: Fraction | None, t: int) -> Fraction | None:
    for fault in several:
        before = fault.fee_wei(before, t)
    return before


def test_base_fees_compose_in_the_order_of_the_file() -> None:
    set_to, doubled = gas(gwei="100"), gas(times="2")
    assert fee_of([set_to, doubled], Fraction(5), START) == 200 * 10**9
    assert fee_of([doubled, set_to], Fraction(5), START) == 100 * 10**9
    assert fee_of([doubled], None, START) is None
    assert fee_of([gas(60, gwei="100")], Fraction(5), START + 59) == 5


@given(st.integers(-100, 700))
def test_a_base_fee_over_time_is_linear_between_its_figures_and_holds_beyond(after: int) -> None:
    figures = [{"t": when(START + 60), "gwei": "10"}, {"t": when(START + 160), "gwei": "210"}]
    fault = gas(-1_000, points=figures)
    expected = 10 + 2 * (max(60, min(160, after)) - 60)
    assert fault.fee_wei(None, START + after) == expected * 10**9


def test_liquidators_are_priced_out_while_it_lasts_and_what_was_known_stays() -> None:
    fault = gas(60, gwei="300", cap_gwei="200", bidders=1, until=when(START + 180))
    known = LivenessFacts(inventory_usd=7)
    contexts = [FeedContext(now=t, liveness=known) for t in STEPS]
    out = fault.priced_out(contexts, [300 * 10**9] * len(STEPS), None)
    assert out[0] == contexts[0]
    assert out[3:] == contexts[3:]
    assert out[1].liveness == LivenessFacts(300 * 10**9, 200 * 10**9, inventory_usd=7, bidders=1)
    again = gas(0, gwei="300").priced_out(out, [9] * len(STEPS), None)[1].liveness
    assert again == LivenessFacts(9, 200 * 10**9, inventory_usd=7, bidders=1)
    values: list[int | None] = [1] * len(STEPS)
    assert fault.apply(STEPS, series(values)) == series(values)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "exactly one of gwei, times and points"),
        ({"gwei": "1", "times": "1"}, "exactly one of gwei, times and points"),
        (
            {"points": [{"t": when(START), "gwei": "1"}, {"t": when(START), "gwei": "2"}]},
            "points must ascend in time",
        ),
    ],
)
def test_a_base_fee_is_stated_in_one_way(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gas(**keys)
