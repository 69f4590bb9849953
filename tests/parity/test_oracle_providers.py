"""The parity tests of providers find wrong formulas; that right ones agree is in test_oracle_parity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from oracle.sources import pyth
from oracle.sources.maker import Delayed, OsmSource, poke
from oracle.sources.pyth import PythSource, exact
from simulation.chain import revm
from simulation.chain.parity import oracle_providers, run_parity

pytestmark = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)


def wrong_in(name: str) -> set[str]:
    result = run_parity(name, "revm", cases=60, seed=3)
    return {mismatch.field for _case, mismatch in result.details}


@pytest.mark.parametrize("name", ["oracle-pyth", "oracle-osm"])
def test_sources_and_contracts_agree_on_another_seed(name: str) -> None:
    result = run_parity(name, "revm", cases=300, seed=11)
    assert result.mismatches == 0, result.details
    assert min(result.tags.values()) > 0, result.tags


@pytest.mark.parametrize(
    "wrong",
    [
        lambda at, now, age: 0 <= now - at <= age,
        lambda at, now, age: abs(now - at) < age,
        lambda at, now, age: now - at <= age,
    ],
)
def test_a_wrong_age_of_pyth_is_found(monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., bool]) -> None:
    monkeypatch.setattr(oracle_providers, "recent", wrong)
    assert wrong_in("oracle-pyth") == {"recent"}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (lambda price, conf, expo: exact(abs(price), conf, expo), "mantissa"),
        (lambda price, conf, expo: (price, conf, abs(expo)), "decimals"),
        (lambda price, conf, expo: (*(exact(price, 0, expo) or (0,))[:1], conf, max(0, -expo)), "conf_abs"),
        (lambda price, conf, expo: (price, conf, max(0, -expo)), "mantissa"),
        (lambda price, conf, expo: (price, conf, 8), "decimals"),
        (lambda price, conf, expo: None if expo > 0 else exact(price, conf, expo), "reading"),
    ],
)
def test_a_wrong_scale_of_pyth_is_found(
    monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., Any], field: str
) -> None:
    monkeypatch.setattr(pyth, "exact", wrong)
    assert field in wrong_in("oracle-pyth")


def test_a_source_of_pyth_that_reads_the_other_price_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PythSource, "_getter", lambda _source: pyth.GET_PRICE)
    assert "mantissa" in wrong_in("oracle-pyth")


def at_the_call(state: Delayed, said: int | None, hop_s: int, now: int) -> Delayed:
    after = poke(state, said, hop_s, now)
    return after if after is state else replace(after, turn=now)


def at_once(state: Delayed, said: int | None, hop_s: int, now: int) -> Delayed:
    return poke(replace(state, upcoming=said), said, hop_s, now)


def forgetful(state: Delayed, said: int | None, hop_s: int, now: int) -> Delayed:
    return Delayed(state.upcoming, said, now - now % hop_s)


@pytest.mark.parametrize("wrong", [at_the_call, at_once, forgetful])
def test_a_wrong_turn_of_the_module_is_found(monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    monkeypatch.setattr(oracle_providers, "poke", wrong)
    assert "poke" in wrong_in("oracle-osm")


def test_a_module_that_turns_a_second_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle_providers, "may_poke", lambda turn, hop_s, now: now > turn + hop_s)
    assert "may_poke" in wrong_in("oracle-osm")


def test_a_source_that_takes_the_price_to_come_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = OsmSource.decode

    def too_soon(source: OsmSource, results: Any, **at: int) -> Any:
        return decode(source, [results[1], *results[1:]], **at)

    monkeypatch.setattr(OsmSource, "decode", too_soon)
    assert wrong_in("oracle-osm") & {"mantissa", "reading"}
