"""What a ``[[protocols]]`` table is refused for before any node is asked."""

from __future__ import annotations

import pytest

from contracts_abi.errors import InputError
from keeper import markets
from keeper.config import ProtocolSection
from keeper.markets import KINDS, checked_options
from simulation.protocols.compound_v3 import CompoundV3


def test_a_protocol_that_no_keeper_can_run_on_says_why() -> None:
    with pytest.raises(InputError) as refused:
        checked_options(ProtocolSection(kind="compound-v3"), "protocols.0")
    line = str(refused.value)
    assert "protocols.0.kind" in line
    assert CompoundV3.no_keeper in line
    assert all(kind in (refused.value.fix or "") for kind in KINDS)


def test_any_other_without_a_keeper_is_refused_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markets, "KINDS", {k: v for k, v in KINDS.items() if k != "morpho-blue"})
    with pytest.raises(InputError, match="a model of morpho-blue, and no keeper for it yet"):
        checked_options(ProtocolSection(kind="morpho-blue"), "protocols.0")
