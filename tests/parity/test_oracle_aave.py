"""The parity test of Aave's oracle finds wrong models; that the right one agrees is in test_oracle_parity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from oracle.sources.aave_oracle import AaveOracleSource, asset_price
from simulation.chain import revm
from simulation.chain.parity import oracle_aave, run_parity

pytestmark = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)

Formula = Callable[..., int | None]


def zero_passes(source: Any, fallback: int | None, **unit: Any) -> int | None:
    return 0 if source is not None and source.answer == 0 else asset_price(source, fallback, **unit)


def reverts_are_caught(source: Any, fallback: int | None, **unit: Any) -> int | None:
    reverted = source is not None and source.answer is None
    return asset_price(None if reverted else source, fallback, **unit)


def no_base_currency(source: Any, fallback: int | None, **unit: Any) -> int | None:
    return asset_price(source, fallback)


@pytest.mark.parametrize("wrong", [zero_passes, reverts_are_caught, no_base_currency])
def test_a_wrong_formula_is_found(monkeypatch: pytest.MonkeyPatch, wrong: Formula) -> None:
    monkeypatch.setattr(oracle_aave, "asset_price", wrong)
    result = run_parity("oracle-aave", "revm", cases=40, seed=3)
    assert "asset_price" in {mismatch.field for _case, mismatch in result.details}


def test_a_source_that_takes_any_time_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AaveOracleSource, "_published_at", lambda *_: 1)
    result = run_parity("oracle-aave", "revm", cases=40, seed=3)
    assert "published_at" in {mismatch.field for _case, mismatch in result.details}
