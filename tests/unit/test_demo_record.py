"""The demo record: a strict file format that survives JSON, and the counts made from it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contracts_abi.errors import InputError
from simulation.fixed_point import WAD
from simulation.report.record import HF_EDGES_WAD, DemoRecord, LeftRow, by_reason, hf_counts, record_from_json
from simulation.report.summary import (
    REASON_WORDS,
    FaultFinding,
    price,
    protocol_price_at,
    stories,
    summarise,
    usd,
)
from simulation.types import Reason
from tests.demo_record import synthetic_record


@pytest.fixture(scope="module")
def record() -> DemoRecord:
    return synthetic_record()


def test_json_brings_back_the_same_record(record: DemoRecord) -> None:
    text = record.to_json()
    assert record_from_json(text) == record
    assert json.loads(text)["schema"] == "marginline-demo/1"
    assert "schema_" not in json.loads(text)


def test_every_field_of_the_schema_is_described() -> None:
    schema = DemoRecord.model_json_schema(by_alias=True)
    exact = [d for d in schema["$defs"].values() if "properties" in d]
    for part in exact:
        for name, field in part["properties"].items():
            assert "description" in field, f"{part['title']}.{name}"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("sede",), 1, "unknown key 'sede'; did you mean 'seed'?"),
        (("blocks", 0, "hf_counts"), [1], "block 100: 1 hf_counts for 28 bins"),
        (("blocks", 1, "number"), 100, "block 100 follows block 100"),
        (("blocks", 0, "market_e8", "WETHH"), 1, "market_e8 names ['WETHH'], not in assets"),
        (("blocks", 0, "base_fee_wei"), -1, "blocks.0.base_fee_wei"),
        (("liquidations", 0, "collateral"), "LINK", "names LINK, not in assets"),
        (("liquidations", 0, "tx_hash"), "12", "liquidations.0.tx_hash"),
        (("accounts_left", 0, "reason"), "felt_like_it", "accounts_left.0.reason"),
        (("accounts_left", 0, "last_block"), 1, "last_block 1 is before first_block"),
        (("invariants", "once", "ok"), False, "ok is False with 0 broken cases"),
        (("invariants", "once", "broken"), ["x"], "ok is True with 1 broken cases"),
    ],
)
def test_a_wrong_record_is_refused_in_one_line(
    record: DemoRecord, path: tuple[str | int, ...], value: object, message: str
) -> None:
    raw: Any = json.loads(record.to_json())
    part = raw
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(InputError) as caught:
        record_from_json(json.dumps(raw), "demo.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("demo.json: ")
    assert "\n" not in str(caught.value)


def test_a_health_factor_of_exactly_one_is_not_below_one() -> None:
    counts = hf_counts([WAD - 1, WAD, 0, 10 * WAD])
    at_one = HF_EDGES_WAD.index(WAD)
    assert sum(counts[: at_one + 1]) == 2
    assert counts[at_one + 1] == 1
    assert counts[0] == counts[-1] == 1


def test_an_account_counts_once_for_each_reason() -> None:
    def row(account: str, reason: Reason) -> LeftRow:
        return LeftRow(account=account, reason=reason, first_block=1, last_block=1)

    rows = [
        row("a", Reason.UNPROFITABLE),
        row("a", Reason.UNPROFITABLE),
        row("a", Reason.HEALTHY),
        row("b", Reason.HEALTHY),
    ]
    assert dict(by_reason(rows)) == {Reason.HEALTHY: 2, Reason.UNPROFITABLE: 1}


def test_summary_adds_up(record: DemoRecord) -> None:
    summary = summarise(record)
    assert summary.liquidations == len(record.liquidations)
    assert 0 < summary.partial < summary.liquidations
    assert summary.net_e8 == sum(r.profit_usd_e8 - r.gas_usd_e8 for r in record.liquidations)
    assert summary.resimulated_equal == summary.resimulated == summary.liquidations
    weth = summary.moves[0]
    assert (weth.symbol, weth.first_e8, weth.low_e8) == ("WETH", 169_54000000, 86_00000000)
    assert weth.drawdown == pytest.approx(86 / 169.54 - 1)


def test_faults_show_their_gap_and_who_was_held(record: DemoRecord) -> None:
    frozen, wrong = summarise(record).faults
    assert isinstance(frozen, FaultFinding)
    # 168.36 stays while the reference falls to 125.
    assert frozen.worst_gap_bps == (168_36250000 - 125_00000000) * 10_000 // 125_00000000
    assert frozen.window.assets == ("WETH", "wstETH")
    assert frozen.armed > 0
    assert frozen.held == 0
    assert frozen.liquidatable_at_reference_max is not None
    assert frozen.liquidatable_at_reference_max > frozen.liquidatable_max
    assert wrong.worst_gap_bps is not None
    assert -3_010 <= wrong.worst_gap_bps <= -2_990
    assert wrong.held > 0


def test_an_unknown_reference_gives_no_gap(record: DemoRecord) -> None:
    blocks = tuple(b.model_copy(update={"reference_e8": {}}) for b in record.blocks)
    assert summarise(record.model_copy(update={"blocks": blocks})).faults[0].worst_gap_bps is None


def test_every_account_has_one_story_and_its_chapters_are_in_order(record: DemoRecord) -> None:
    every = stories(record)
    assert len({s.account for s in every}) == len(every) == record.accounts
    for story in every:
        assert [e.first_block for e in story.episodes] == sorted(e.first_block for e in story.episodes)
    liquidated = {r.account for r in record.liquidations}
    assert {s.account for s in every if s.outcome is Reason.LIQUIDATE} == liquidated


def test_every_reason_has_words() -> None:
    assert set(REASON_WORDS) == set(Reason)


def test_protocol_price_at_takes_the_last_block_before(record: DemoRecord) -> None:
    first, second = record.blocks[:2]
    assert protocol_price_at(record, "WETH", first.number) == first.protocol_e8["WETH"]
    assert protocol_price_at(record, "WETH", second.number + 10_000) == record.blocks[-1].protocol_e8["WETH"]
    assert protocol_price_at(record, "WETH", first.number - 1) is None


@pytest.mark.parametrize(
    ("value_e8", "text"),
    [
        (0, "$0"),
        (1_23000000, "$1.23"),
        (-45_60000000, "−$45.60"),
        (12_345_67000000, "$12,346"),
        (999_499_00000000, "$999,499"),
        (2_081_000_00000000, "$2.08 M"),
    ],
)
def test_amounts_for_people(value_e8: int, text: str) -> None:
    assert usd(value_e8) == text


def test_prices_for_people() -> None:
    assert price(169_54000000) == "$169.54"
    assert price(7_377_64000000) == "$7,378"
