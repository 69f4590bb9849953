"""``marginline margin methods`` and ``margin check``: what they print and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keeper.commands.margin import nesting
from simulation.margin import margin_methods
from simulation.margin.result import Grade
from simulation.margin.vectors import readers
from tests.command_line import Inside
from tests.unit.test_margin_vectors import VECTORS, needs_vectors, srm_case


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    monkeypatch.setenv("COLUMNS", "140")
    return Inside(monkeypatch, capsys)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"good": srm_case(), "bad": srm_case(im_perp=0.01)}), encoding="utf-8")
    return path


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_methods_are_listed(inside: Inside) -> None:
    rows = {row["id"]: row for row in inside("margin", "methods", "--json").json()}
    assert list(rows) == list(margin_methods)
    assert {kind for kind, row in rows.items() if row["check"]} == set(readers())
    assert {row["grade"] for row in rows.values()} <= {str(grade) for grade in Grade}
    assert rows["derive.pmrm2"]["parameter_sets"] == ["mainnet", "test"]
    assert rows["derive.srm"]["grade"] == "verified by the venue's published vectors"
    assert all(row["summary"].endswith(".") for row in rows.values())
    shown = inside("margin", "methods")
    assert shown.code == 0
    assert all(kind in shown.out for kind in rows)


def test_each_case_is_one_line(inside: Inside, file: Path) -> None:
    done = inside("margin", "check", "derive.srm", str(file), "--json")
    assert (done.code, done.err) == (0, "")
    good, bad = lines(done.out)
    assert good == {"case": "own:good", "im": 500 + 30 - 402.0, "mm": 500 + 30 - 201.0}
    assert bad == {"case": "own:bad", "refused": "im 0.01 is below mm 0.05; exchange them"}


def test_without_json_it_is_a_table(inside: Inside, file: Path) -> None:
    done = inside("margin", "check", "derive.srm", str(file), str(file))
    assert done.code == 0
    assert done.out.count("own:good") == 2
    assert "128.0000" in done.out
    assert "refused: im 0.01 is below mm 0.05" in done.out
    assert "4 cases, 2 refused" in done.out


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"[" * 100_000, "nested deeper than 32"),
        (b"[]", "list"),
        (b"{}", "holds no case"),
        (b'{"a": {}}', "no key 'params'"),
    ],
)
def test_a_bad_file_is_one_line_and_nothing_before_it(
    inside: Inside, file: Path, tmp_path: Path, content: bytes, reason: str
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_bytes(content)
    line = inside("margin", "check", "derive.srm", str(file), str(bad), "--json").line()
    assert "bad.json: " in line
    assert reason in line


def test_brackets_within_texts_do_not_nest() -> None:
    assert nesting(r'{"a[[[": ["\"[[", "[[') == 2
    assert nesting("3") == 0


def test_what_is_not_there_is_told(inside: Inside, file: Path, tmp_path: Path) -> None:
    assert "No such file" in inside("margin", "check", "derive.srm", str(tmp_path / "none.json")).line()
    assert "directory" in inside("margin", "check", "derive.srm", str(tmp_path)).line()
    assert "did you mean 'derive.srm'" in inside("margin", "check", "derive.srn", str(file)).line()
    assert "see: marginline margin check --help" in inside("margin", "check", "derive.srm").line()


@needs_vectors
def test_published_cases_have_every_figure(inside: Inside) -> None:
    some = sorted(VECTORS.glob("pmrm_2/test_6[67]_*.json"))
    done = inside("margin", "check", "derive.pmrm2", *map(str, some), "--json")
    assert done.code == 0
    settled, invalid = lines(done.out)
    assert list(settled) == ["case", "im", "mm", "mtm", "option_mtm", "collateral_mtm", "scenarios"]
    assert settled["case"] == some[0].stem
    assert len(settled["scenarios"]) == 31
    assert set(invalid) == {"case", "refused"}
    runs = VECTORS / "liquidation" / "liquidationTests.json"
    record, *_ = lines(inside("margin", "check", "derive.auction", str(runs), "--json").out)
    assert record["case"] == "liquidationTests:Test2"
    assert {"fee", "bids", "im", "mm", "mtm"} <= set(record)
    (bid,) = record["bids"]
    assert {f"{when}_{what}" for when in ("pre", "post") for what in ("mtm", "mm", "bm", "fmax")} <= set(bid)
    assert bid["fraction"] == 0.05
    table = inside("margin", "check", "derive.auction", str(runs))
    assert "1 bids" not in table.out
