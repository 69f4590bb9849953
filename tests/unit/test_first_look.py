"""What a newcomer reads first: no sign before a zero, no plural of one, and where to look next."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from keeper.commands.console import counted
from keeper.commands.keeper_look import _print_scan
from keeper.commands.simulate import money
from keeper.view import Views
from simulation.types import Reason, Verdict
from tests.command_line import Inside

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("value", "text"),
    [(-0.4, "0"), (0.4, "0"), (-0.6, "-1"), (-1_500.0, "-1.50 k"), (None, "unknown"), (0.0, "0")],
)
def test_money_has_no_sign_before_a_zero(value: float | None, text: str) -> None:
    assert money(value) == text


def test_one_is_no_plural() -> None:
    assert [counted(n, "path") for n in (0, 1, 2, 1_000)] == ["0 paths", "1 path", "2 paths", "1,000 paths"]


def test_a_wallet_in_one_place_has_no_offset(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = Inside(monkeypatch, capsys)("margin", "cross", str(ROOT / "examples" / "hedged.toml"))
    assert ran.code == 0, ran.err
    rows = [line.split() for line in ran.out.splitlines()]
    ends = {row[0]: row[-1] for row in rows if len(row) == 7 and row[0] in ("hedger", "unhedged")}
    assert ends == {"hedger": "51%", "unhedged": "-"}
    assert "recognised offset -, as no protocol offsets another" in ran.out


def test_a_scan_of_healthy_borrowers_says_how_to_see_them(capsys: pytest.CaptureFixture[str]) -> None:
    views = cast(Views, SimpleNamespace(head=SimpleNamespace(number=7), borrowers=1, markets={}))
    healthy = cast(Verdict, SimpleNamespace(reason=Reason.HEALTHY))
    _print_scan(Console(width=80), views, [healthy], [], [])
    assert capsys.readouterr().out.splitlines() == [
        "block 7, 1 borrower: 1 healthy",
        "nobody to act on or to hold; everybody: marginline keeper scan --all",
    ]
    nobody: list[Any] = []
    _print_scan(Console(width=80), views, nobody, nobody, nobody)
    assert "--all" not in capsys.readouterr().out
