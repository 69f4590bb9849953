"""The push rule against any truth: what a feed may and may not say."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts_abi.errors import InputError
from oracle.scenario import Scenario, feed_rounds, parse_scenario, truth_e8

T0 = 1_583_971_200
STEP = 60

prices_e8 = st.integers(min_value=1, max_value=10**14)


def iso(t: int) -> str:
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def decimal(price_e8: int) -> str:
    return f"{price_e8 // 10**8}.{price_e8 % 10**8:08d}"


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """A feed with any points and any playable faults; points need not lie on the grid."""
    steps = draw(st.integers(2, 40))
    end = T0 + steps * STEP
    inner = draw(st.lists(st.integers(T0 + 1, end - 1), unique=True, max_size=8))
    points = [(t, draw(prices_e8)) for t in sorted({T0, end, *inner})]
    lines = [
        'schema = "oracle-scenario/1"\nid = "any"\ntitle = "any"\n[chain]\nid = 1\nblock_time_s = 12',
        f"[clock]\nstart = {iso(T0)}\nend = {iso(end)}\nstep_s = {STEP}\n[assets]",
        '[truth."A/B"]\npoints = [',
        *(
            f'{{ t = {iso(t)}, price = "{decimal(p)}", status = "documented", source = "s" }},'
            for t, p in points
        ),
        ']\n[feeds."A/B"]\nkind = "chainlink"',
        f"heartbeat_s = {draw(st.integers(1, 20 * STEP))}",
        f"deviation_bps = {draw(st.integers(1, 20_000))}",
    ]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, steps - 1))
        until = draw(st.integers(at + 1, steps))
        op = draw(
            st.sampled_from(
                ['op = "freeze"', 'op = "scale"\nnum = 7\nden = 10', 'op = "scale"\nnum = 3\nden = 1']
            )
        )
        lines.append(
            f'[[faults]]\n{op}\nfeed = "A/B"\nat = {iso(T0 + at * STEP)}\nuntil = {iso(T0 + until * STEP)}'
        )
    return parse_scenario("\n".join(lines).encode())


@settings(deadline=None)
@given(scenarios())
def test_rounds_ascend_on_the_grid_and_never_fall_into_a_freeze(scenario: Scenario) -> None:
    rounds = feed_rounds(scenario, "A/B")
    times = [r.t for r in rounds]
    assert times == sorted(set(times))
    assert set(times) <= set(scenario.steps())
    for fault in scenario.faults:
        if fault.op == "freeze":
            assert not [t for t in times if fault.at <= t < fault.until]


@settings(deadline=None)
@given(scenarios())
def test_a_feed_without_faults_is_never_off_by_the_threshold_nor_older_than_its_heartbeat(
    scenario: Scenario,
) -> None:
    healthy = scenario.model_copy(update={"faults": ()})
    spec = healthy.feeds["A/B"]
    assert spec.deviation_bps is not None
    assert spec.heartbeat_s is not None
    rounds = {r.t: r for r in feed_rounds(healthy, "A/B")}
    last = rounds[healthy.clock.start]
    for t in healthy.steps():
        last = rounds.get(t, last)
        true, _ = truth_e8(healthy, "A/B", t)
        if true != last.answer_e8:
            assert abs(true - last.answer_e8) * 10_000 < spec.deviation_bps * last.answer_e8
        assert t - last.t < max(spec.heartbeat_s, 1) or t == last.t
        assert last.reason != "fault"


@settings(deadline=None)
@given(scenarios())
def test_every_round_has_its_reason(scenario: Scenario) -> None:
    spec = scenario.feeds["A/B"]
    assert spec.deviation_bps is not None
    assert spec.heartbeat_s is not None
    previous = None
    for r in feed_rounds(scenario, "A/B"):
        assert r.truth_e8 == truth_e8(scenario, "A/B", r.t)[0]
        factor = Fraction(1)
        for fault in scenario.faults:
            if fault.op == "scale" and fault.at <= r.t < fault.until:
                factor *= Fraction(fault.num, fault.den)
        assert (r.reason == "fault") == (factor != 1)
        assert abs(r.answer_e8 - r.truth_e8 * factor) <= 1 + factor
        if previous is None:
            assert r.reason in ("first", "fault")
        elif r.reason == "deviation":
            change = abs(r.answer_e8 - previous.answer_e8)
            assert change * 10_000 >= spec.deviation_bps * previous.answer_e8
        elif r.reason == "heartbeat":
            assert r.t - previous.t >= spec.heartbeat_s
        previous = r


@settings(deadline=None)
@given(scenarios(), st.data())
def test_truth_stays_between_its_neighbours(scenario: Scenario, data: st.DataObject) -> None:
    points = scenario.truth["A/B"].points
    i = data.draw(st.integers(0, len(points) - 2))
    t = data.draw(st.integers(points[i].t, points[i + 1].t))
    low, high = sorted(int(p.price * 10**8) for p in points[i : i + 2])
    assert low <= truth_e8(scenario, "A/B", t)[0] <= high


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(InputError):
        parse_scenario(data)
