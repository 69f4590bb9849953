"""The parity tests of lending sources find wrong formulas; that right ones agree is in test_oracle_parity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from oracle.sources.capo import CapParameters, capped_price, refused_parameters
from oracle.sources.comet import MultiplicativeSource, product_answer, scaled_answer
from oracle.sources.composite import compose
from oracle.sources.morpho_chainlink import morpho_price, scale_factor
from oracle.types import PriceObs
from simulation.chain import revm
from simulation.chain.parity import oracle_lending, run_parity

pytestmark = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)


def uncapped(base: int, ratio: int, parameters: CapParameters, decimals: int, now: int) -> int | None:
    loose = CapParameters(2**104, parameters.snapshot_at, 0)
    return capped_price(base, ratio, loose, decimals, now)


def rounded_up(base: int, ratio: int, parameters: CapParameters, decimals: int, now: int) -> int | None:
    # A growth that is rounded once, not twice.
    late = parameters.snapshot_ratio * parameters.growth_bps_year * (now - parameters.snapshot_at)
    cap = parameters.snapshot_ratio + -(-late // (10_000 * 31_536_000))
    return capped_price(base, ratio, CapParameters(cap, now, 0), decimals, now)


def any_time(new: CapParameters, stored_at: int, **limits: int) -> tuple[str, ...]:
    return refused_parameters(new, 0, **limits)


def floored(answer: int, before: int, after: int) -> int | None:
    return scaled_answer(answer, before, after) if before < after else answer // 10 ** (before - after)


def zero_reverts(a: int, b: int, *scales: int) -> int | None:
    return product_answer(a, b, *scales) or None


def second_feed_forgotten(base: int, quote: int, base_feeds: Any, quote_feeds: Any) -> int | None:
    return scale_factor(base, quote, base_feeds[:1], quote_feeds)


def zero_is_refused(scale: int, base: Any, quote: Any) -> int | None:
    return morpho_price(scale, base, quote) or None


def rounded_at_each_leg(legs: Any, **names: Any) -> Any:
    whole = compose(legs, **names)
    if not isinstance(whole, PriceObs):
        return whole
    value = 10 ** names["decimals"]
    for leg in legs:
        value = value * leg.mantissa // 10**leg.decimals
    return PriceObs("A", "B", value, whole.decimals, whole.kind, whole.source_id, None, 0)


@pytest.mark.parametrize(
    ("name", "formula", "wrong"),
    [
        ("oracle-capo", "capped_price", uncapped),
        ("oracle-capo", "capped_price", rounded_up),
        ("oracle-capo", "refused_parameters", any_time),
        ("oracle-capo-stable", "stable_price", lambda price, cap: min(price, cap)),
        ("oracle-capo-stable", "stable_price", lambda price, cap: max(price, 0)),
        ("oracle-comet", "scaled_answer", floored),
        ("oracle-comet", "product_answer", zero_reverts),
        ("oracle-morpho", "scale_factor", second_feed_forgotten),
        ("oracle-morpho", "morpho_price", zero_is_refused),
        ("oracle-composite", "compose", rounded_at_each_leg),
    ],
)
def test_a_wrong_formula_is_found(
    monkeypatch: pytest.MonkeyPatch, name: str, formula: str, wrong: Callable[..., Any]
) -> None:
    monkeypatch.setattr(oracle_lending, formula, wrong)
    result = run_parity(name, "revm", cases=100, seed=3)
    assert formula in {mismatch.field for _case, mismatch in result.details}


def test_a_source_that_believes_the_contract_s_time_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    legs = MultiplicativeSource._legs

    def newest(source: Any, results: Any) -> Any:
        found = legs(source, results)
        return found and (found[1], found[1])

    monkeypatch.setattr(MultiplicativeSource, "_legs", newest)
    result = run_parity("oracle-comet", "revm", cases=60, seed=3)
    assert {"published_at", "hidden_age_s"} <= {mismatch.field for _case, mismatch in result.details}
