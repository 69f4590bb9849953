"""Where the in-process EVM has no wheel, it says so and what to use instead."""

from __future__ import annotations

import sys

import pytest

from contracts_abi.errors import ToolError
from simulation.chain import revm


def test_its_absence_is_one_line_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyrevm", None)
    assert not revm.available()
    with pytest.raises(ToolError, match=r"CPython 3\.11 and 3\.12 only; use .* the anvil backend"):
        revm.RevmEvm()
