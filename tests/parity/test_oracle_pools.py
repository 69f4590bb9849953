"""The parity tests of pools and vaults find wrong formulas; right ones agree in test_oracle_parity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from oracle.sources import uniswap_v2, uniswap_v3
from oracle.sources.erc4626 import Erc4626Source
from oracle.sources.uniswap_v2 import Sum, UniswapV2Source, elapsed
from oracle.sources.uniswap_v3 import Slot
from oracle.ticks import sqrt_ratio_at_tick
from simulation.chain import revm
from simulation.chain.parity import oracle_pools, run_parity

pytestmark = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)

CASES = 100


def towards_zero(start: int, end: int, window_s: int) -> int:
    return int((end - start) / window_s)


def shifted_not_multiplied(start: int, end: int, window_s: int) -> int | None:
    # 2**160 instead of one less is off by one where the division comes out even, and overflows at the top.
    grown = (end - start) % 2**160
    return (window_s << 128) // grown + 1 if grown else None


def arithmetic_liquidity(start: int, end: int, window_s: int) -> int | None:
    return (end - start) // window_s


def whole_square(tick: int, amount: int, *, base_is_token0: bool) -> int:
    square = sqrt_ratio_at_tick(tick) ** 2
    return square * amount >> 192 if base_is_token0 else (amount << 192) // square


def other_side(tick: int, amount: int, *, base_is_token0: bool) -> int:
    return whole_square(tick, amount, base_is_token0=not base_is_token0)


def not_looked_ahead(last: Sum, base: int, quote: int, now: int) -> Sum | None:
    return last


def summed_without_wrapping(last: Sum, base: int, quote: int, now: int) -> Sum | None:
    at = now % 2**32
    return Sum(last.cumulative + (quote << 112) // base * elapsed(last.at, at), at) if base else None


def divided_late(last: Sum, base: int, quote: int, now: int) -> Sum | None:
    at = now % 2**32
    grown = (quote * elapsed(last.at, at) << 112) // base if base else 0
    return Sum((last.cumulative + grown) % 2**256, at)


def full_clock(start: Sum, end: Sum) -> int | None:
    return (end.cumulative - start.cumulative) % 2**256 // max(1, abs(end.at - start.at))


def without_the_first_share(shares: int, assets: int, supply: int, offset: int) -> int | None:
    return shares * assets // supply if supply else shares


def unbounded(shares: int, assets: int, supply: int, offset: int) -> int | None:
    return int(shares * (assets + 1) // (supply + 10**offset))


def without_the_offset(shares: int, assets: int, supply: int, offset: int) -> int | None:
    return shares * (assets + 1) // (supply + 1)


@pytest.mark.parametrize(
    ("name", "formula", "wrong"),
    [
        ("oracle-uniswap-v3-twap", "mean_tick", towards_zero),
        ("oracle-uniswap-v3-twap", "harmonic_liquidity", shifted_not_multiplied),
        ("oracle-uniswap-v3-twap", "harmonic_liquidity", arithmetic_liquidity),
        ("oracle-uniswap-v3-twap", "quote_at_tick", whole_square),
        ("oracle-uniswap-v3-twap", "quote_at_tick", other_side),
        ("oracle-uniswap-v2", "current_sum", not_looked_ahead),
        ("oracle-uniswap-v2", "current_sum", summed_without_wrapping),
        ("oracle-uniswap-v2", "current_sum", divided_late),
        ("oracle-uniswap-v2", "average", full_clock),
        ("oracle-erc4626", "convert_to_assets", without_the_first_share),
        ("oracle-erc4626", "convert_to_assets", without_the_offset),
        ("oracle-erc4626", "convert_to_assets", unbounded),
    ],
)
def test_a_wrong_formula_is_found(
    monkeypatch: pytest.MonkeyPatch, name: str, formula: str, wrong: Callable[..., Any]
) -> None:
    monkeypatch.setattr(oracle_pools, formula, wrong)
    result = run_parity(name, "revm", cases=CASES, seed=3)
    assert formula in {mismatch.field for _case, mismatch in result.details}


def first_place(slot: Slot) -> int:
    return 0


def last_written(slot: Slot) -> int:
    return slot.index


@pytest.mark.parametrize(
    ("name", "module", "function", "wrong", "field"),
    [
        ("oracle-uniswap-v3-twap", uniswap_v3, "mean_tick", towards_zero, "mantissa"),
        ("oracle-uniswap-v3-twap", uniswap_v3, "oldest_position", first_place, "amm.oldest_s"),
        ("oracle-uniswap-v3-twap", uniswap_v3, "oldest_position", last_written, "amm.oldest_s"),
        ("oracle-uniswap-v2", uniswap_v2, "current_sum", not_looked_ahead, "mantissa"),
        ("oracle-uniswap-v2", uniswap_v2, "amount_out", lambda price, amount: price * amount, "mantissa"),
    ],
)
def test_a_source_that_computes_otherwise_is_found(
    monkeypatch: pytest.MonkeyPatch, name: str, module: Any, function: str, wrong: Any, field: str
) -> None:
    monkeypatch.setattr(module, function, wrong)
    result = run_parity(name, "revm", cases=CASES, seed=3)
    assert field in {mismatch.field for _case, mismatch in result.details}


def test_a_pair_that_is_read_on_its_other_side_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def higher(source: UniswapV2Source) -> bool:
        return int(source.base_token, 16) > int(source.quote_token, 16)

    monkeypatch.setattr(UniswapV2Source, "_base_is_token0", property(higher))
    result = run_parity("oracle-uniswap-v2", "revm", cases=30, seed=3)
    assert {"mantissa", "amm.spot_mantissa"} <= {mismatch.field for _case, mismatch in result.details}


def test_a_price_too_close_to_its_sum_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uniswap_v2, "elapsed", lambda start, end: max(1, (end - start) % 2**32) + 2)
    result = run_parity("oracle-uniswap-v2", "revm", cases=CASES, seed=3)
    assert "reading" in {mismatch.field for _case, mismatch in result.details}


def test_a_vault_whose_scale_is_believed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Erc4626Source, "_wrong_scale", lambda source, results: None)
    result = run_parity("oracle-erc4626", "revm", cases=30, seed=3)
    assert "reading" in {mismatch.field for _case, mismatch in result.details}
