"""A feed's whole history against the guards, from a description and from what was pulled."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from contracts_abi.errors import InputError
from oracle.series import Episode, judge_series, load_series
from tests.command_line import Inside

T0 = 1_700_000_040  # a whole minute


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    return Inside(monkeypatch, capsys)


def write(folder: Path, rows: list[tuple[int, str]], name: str = "feed.csv") -> None:
    (folder / name).write_text("t,p\n" + "".join(f"{t},{p}\n" for t, p in rows), encoding="utf-8")


def describe(folder: Path, more: str = "", feed: str = "", second: str = "") -> Path:
    table = 'base = "ETH"\nquote = "USD"\npath = "{}"\ntime = "t"\nprice = "p"\ndecimals = 2\n'
    text = f"{more}\n[feed]\n{table.format('feed.csv')}{feed}\n"
    if second:
        text += f"[second]\n{table.format('second.csv')}{second}\n"
    path = folder / "series.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_stillness_is_counted_look_by_look(tmp_path: Path) -> None:
    # An hour of heartbeat and five minutes of grace, and nothing for two hours: 55 minutes too long.
    write(tmp_path, [(T0, "2000"), (T0 + 7_200, "2001"), (T0 + 7_260, "2002")])
    found = judge_series(load_series(describe(tmp_path, feed="heartbeat_s = 3600")))
    assert (found.rounds, found.looks) == (3, 122)
    (stale,) = (g for g in found.guards if g.name == "stale")
    assert (stale.ok, stale.violated, stale.not_applicable, stale.episodes) == (68, 54, 0, 1)
    assert stale.shown == (Episode(T0 + 3_960, T0 + 7_140, 54),)
    assert found.believed == 68
    assert set(found.left_out) == {
        "authority", "cap_misconfigured", "latency", "liquidators", "market_closed", "market_unreadable",
        "quorum", "rate_jump", "reentrancy", "sequencer", "spot", "thin_twap", "venue",
    }  # fmt: skip


def test_a_second_source_contradicts_and_bounds_are_prices(tmp_path: Path) -> None:
    write(tmp_path, [(T0, "2000"), (T0 + 60, "2000"), (T0 + 120, "2000")])
    write(tmp_path, [(T0, "2000"), (T0 + 60, "2105.27"), (T0 + 120, "2105.26")], "second.csv")
    series = load_series(
        describe(
            tmp_path,
            'min_answer = "0.01"\nmax_answer = "2222.23"\ndescription = "BTC / USD"',
            "heartbeat_s = 60",
            'name = "other"\nheartbeat_s = 60',
        )
    )
    said = {g.name: (g.ok, g.violated, g.not_applicable) for g in judge_series(series).guards}
    assert said["cross_dev"] == (2, 1, 0)  # 2105.27 is a hundredth of a basis point too far
    assert said["bound"] == (3, 0, 0)
    assert said["wrong_feed"] == (0, 3, 0)
    assert said["depeg"] == (0, 0, 3)
    lower = series.model_copy(update={"max_answer": Decimal("2222.22")})
    assert {g.name: g.violated for g in judge_series(lower).guards}["bound"] == 3


def test_guards_are_chosen_and_set(tmp_path: Path) -> None:
    write(tmp_path, [(T0, "2000"), (T0 + 60, "2101")])
    series = load_series(
        describe(tmp_path, "guards = [{ kind = 'jump', floor_bps = 400, vol_bps_sqrt_hour = 0 }]")
    )
    found = judge_series(series)
    assert [(g.guard, g.violated) for g in found.guards] == [("G07", 1)]
    assert found.left_out == {}


def test_what_was_pulled_needs_no_description(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "feed.csv").write_text(
        f"round_id,answer,updated_at\n{(1 << 64) + 2},200100,{T0 + 60}\n{(1 << 64) + 1},200000,{T0}\n"
    )
    recorded = {
        "kind": "recorded", "base": "ETH", "quote": "USD", "path": "feed.csv", "time": "updated_at",
        "price": "answer", "price_is": "raw", "round": "round_id", "decimals": 2, "order": "descending",
    }  # fmt: skip
    (tmp_path / "feed.csv.json").write_text(json.dumps({"recorded": recorded, "description": "ETH / USD"}))
    found = judge_series(load_series(tmp_path / "feed.csv"))
    assert (found.rounds, found.looks, found.believed) == (2, 2, 0)  # nobody said how old it may be
    assert "give --heartbeat" in inside("oracle", "judge", str(tmp_path / "feed.csv")).out
    record = inside("oracle", "judge", str(tmp_path / "feed.csv"), "--heartbeat", "60", "--json").json()
    assert record["believed"] == 2
    said = {g["name"]: (g["ok"], g["violated"], g["not_applicable"]) for g in record["guards"]}
    assert said["rollback"] == (1, 0, 1)
    assert said["wrong_feed"] == (2, 0, 0)


BAD: dict[str, tuple[str, tuple[str, ...]]] = {
    "unknown key": ("evry_s = 60", ("unknown key 'evry_s'", "every_s")),
    "no second": ("every_s = 0", ("every_s", "greater than or equal to 1")),
    "unknown guard": ("guards = [{ kind = 'jmp' }]", ("unknown guard 'jmp'", "jump")),
    "guard without inputs": ("guards = [{ kind = 'sequencer' }]", ("'sequencer' needs", "leave it out")),
    "bound with too many places": ('min_answer = "0.001"', ("min_answer", "2 decimals")),
    "bound with a place beyond 28 digits": (
        'min_answer = "12345678901234567890123456789.001"',
        ("min_answer has more than 2 decimals",),
    ),
    "bound of a gigabyte": ('min_answer = "1e999999999"', ("min_answer", "80 places")),
    "bound of many places": ('min_answer = "1e-999999999"', ("min_answer", "80 places")),
    "nested without end": ("guards = " + "[" * 100_000, ("does not describe a series",)),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_description_is_told_in_one_line(tmp_path: Path, name: str, inside: Inside) -> None:
    more, says = BAD[name]
    write(tmp_path, [(T0, "2000"), (T0 + 60, "2101")])
    line = inside("oracle", "judge", str(describe(tmp_path, more))).line()
    for words in says:
        assert words in line


def test_times_that_cannot_be_are_told_in_one_line(tmp_path: Path, inside: Inside) -> None:
    write(tmp_path, [(T0, "2000"), (99_999_999_999, "2101")])
    assert "no row for" in inside("oracle", "judge", str(describe(tmp_path))).line()
    for offset, says in ((2**63 - 1, "time_offset_s"), (10**30, "time_offset_s")):
        path = str(describe(tmp_path, feed=f"time_offset_s = {offset}"))
        assert says in inside("oracle", "judge", path).line()
    write(tmp_path, [(60, "2000"), (120, "2101")])
    path = str(describe(tmp_path, feed="time_offset_s = -61"))
    assert "line 2: time '60' is before 1970 with its offset" in inside("oracle", "judge", path).line()
    skipping = load_series(describe(tmp_path, feed="time_offset_s = -61\nskip_bad_rows = true"))
    with pytest.raises(InputError, match="1 rows and no look"):
        judge_series(skipping)


def test_files_that_describe_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        load_series(tmp_path / "feed.csv")
    (tmp_path / "feed.csv.json").write_text("[]")
    with pytest.raises(InputError, match="does not describe a series"):
        load_series(tmp_path / "feed.csv")
    write(tmp_path, [(T0 + 1, "2000")])
    with pytest.raises(InputError, match="1 rows and no look at them every 60 s; set every_s lower"):
        judge_series(load_series(describe(tmp_path)))


def test_the_command_shows_a_table_or_json(tmp_path: Path, inside: Inside) -> None:
    write(tmp_path, [(T0, "2000"), (T0 + 60, "3000")])
    path = str(describe(tmp_path, feed="heartbeat_s = 60"))
    assert "G07" in inside("oracle", "judge", path).out
    ran = inside("oracle", "judge", path, "--json", "--strict", "--every", "30")
    assert ran.code == 1
    assert (ran.json()["looks"], ran.json()["believed"]) == (3, 2)
    assert "violated: G07" in ran.err
