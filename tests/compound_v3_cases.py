"""Lives of real Comets, kept as numbers: what was asked, and what the contract answered and stored.

No package ships the contract, so that without a checkout of it the model is held against these
(`simulation.chain.parity.compound_v3_record` says what a record is). They are drawn again with:

    MARGINLINE_COMET_SOURCE=<built checkout> python -m tests.compound_v3_cases
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from simulation.chain.compound_v3 import comet_artifacts
from simulation.chain.parity import compound_v3_record
from simulation.chain.parity.compound_v3 import Case, CompoundV3Parity
from simulation.chain.parity.compound_v3_record import judge
from simulation.chain.parity.harness import backend_evm
from simulation.protocols.compound_v3 import adapter, comet, comet_math

VARIABLE = "MARGINLINE_COMET_SOURCE"
KEPT = Path(__file__).parent / "golden" / "compound-v3.jsonl"
SEED = 11
DRAWN = 600
TIMES = 3
"""How often each thing that cases are counted as occurs at least in what is kept."""

MODULES: Mapping[str, ModuleType] = {"comet": comet, "comet_math": comet_math}

SLIPS: Mapping[str, tuple[str, str, str]] = {
    "a factor's product rounded up": (
        "comet_math",
        "return uint256(n * factor_wad) // FACTOR_SCALE",
        "return -(-uint256(n * factor_wad) // FACTOR_SCALE)",
    ),
    "a value rounded up": (
        "comet_math",
        "return uint256(n_raw * price_e8) // from_scale",
        "return -(-uint256(n_raw * price_e8) // from_scale)",
    ),
    "a debt's value rounded away from zero": (
        "comet_math",
        "return product // from_scale if product >= 0 else -(-product // from_scale)",
        "return product // from_scale",
    ),
    "a credit in base tokens rounded up": (
        "comet_math",
        "return div(uint256(value_e8 * to_scale), price_e8)",
        "return div(uint256(value_e8 * to_scale) + price_e8 - 1, price_e8)",
    ),
    "a yearly rate's second rounded up": (
        "comet_math",
        "return per_year_wad // SECONDS_PER_YEAR",
        "return -(-per_year_wad // SECONDS_PER_YEAR)",
    ),
    "a factor kept whole": (
        "comet_math",
        "return factor_wad // FACTOR_STEP * FACTOR_STEP",
        "return factor_wad",
    ),
    "a cap kept whole": ("comet_math", "return cap_raw // scale * scale", "return cap_raw"),
    "what is lent rounded up": (
        "comet",
        '''`presentValueSupply`)."""
    return uint256(principal * index) // BASE_INDEX_SCALE''',
        '''`presentValueSupply`)."""
    return -(-uint256(principal * index) // BASE_INDEX_SCALE)''',
    ),
    "what is owed rounded up": (
        "comet",
        '''`presentValueBorrow`)."""
    return uint256(principal * index) // BASE_INDEX_SCALE''',
        '''`presentValueBorrow`)."""
    return -(-uint256(principal * index) // BASE_INDEX_SCALE)''',
    ),
    "a principal lent rounded up": (
        "comet",
        "return safe104(div(uint256(value_raw * BASE_INDEX_SCALE), index))",
        "return safe104(div(uint256(value_raw * BASE_INDEX_SCALE) + index - 1, index))",
    ),
    "a principal owed rounded down": (
        "comet",
        "div(unsigned(uint256(value_raw * BASE_INDEX_SCALE) + index) - 1, index)",
        "div(uint256(value_raw * BASE_INDEX_SCALE), index)",
    ),
    "an index one more": (
        "comet",
        "index + safe64(mul_factor(index, rate_wad * elapsed_s))",
        "index + 1 + safe64(mul_factor(index, rate_wad * elapsed_s))",
    ),
    "interest by the second after": ("comet", "rate_wad * elapsed_s))", "rate_wad * (elapsed_s + 1)))"),
    "rewards rounded up": (
        "comet",
        "index + safe64(div(rewards, principal))",
        "index + safe64(div(rewards + principal - 1, principal))",
    ),
    "rewards above their least principal only": (
        "comet",
        "principal < params.base_min_for_rewards_raw",
        "principal <= params.base_min_for_rewards_raw * 2",
    ),
    "utilisation rounded up": (
        "comet",
        "uint256(borrowed_raw * FACTOR_SCALE) // supplied_raw",
        "-(-uint256(borrowed_raw * FACTOR_SCALE) // supplied_raw)",
    ),
    "a rate without its kink": (
        "comet",
        "min(utilization_wad, curve.kink_wad)",
        "utilization_wad",
    ),
    "lenders at the borrowers' rate": (
        "comet",
        "return rate_at(params.supply_curve, utilization_wad)",
        "return rate_at(params.borrow_curve, utilization_wad)",
    ),
    "reserves without what is owed": (
        "comet",
        "- signed256(lent_raw) + signed256(owed_raw)",
        "- signed256(lent_raw)",
    ),
    "reserves by stored indices": (
        "comet",
        "lent_raw, owed_raw = total_supply(market), total_borrow(market)",
        "lent_raw = present_value_supply(market.totals.base_supply_index, market.totals.total_supply_base);"
        " owed_raw = present_value_borrow(market.totals.base_borrow_index, market.totals.total_borrow_base)",
    ),
    "no early return": ("comet", "        if liquidity_e8 >= 0:\n            return liquidity_e8\n", ""),
    "an early return above zero only": (
        "comet",
        "        if liquidity_e8 >= 0:",
        "        if liquidity_e8 > 0:",
    ),
    "liquidatable at the limit": (
        "comet",
        "info.liquidate_collateral_factor_wad) < 0",
        "info.liquidate_collateral_factor_wad) <= 0",
    ),
    "not collateralised at the limit": (
        "comet",
        "info.borrow_collateral_factor_wad) >= 0",
        "info.borrow_collateral_factor_wad) > 0",
    ),
    "liquidatable by the factor of a new debt": (
        "comet",
        "info.liquidate_collateral_factor_wad) < 0",
        "info.borrow_collateral_factor_wad) < 0",
    ),
    "absorbed without interest": ("comet", "after, done = accrue(market), []", "after, done = market, []"),
    "credit by the liquidation threshold": (
        "comet",
        "mul_factor(seized_e8[offset], info.liquidation_factor_wad)",
        "mul_factor(seized_e8[offset], info.liquidate_collateral_factor_wad)",
    ),
    "a debt that outlives its absorption": ("comet", "max(0, covered_raw)", "covered_raw"),
    "a credit that is not given": ("comet", "max(0, covered_raw)", "0"),
    "borrowed principal that stays": (
        "comet",
        "after = _with_totals(market, supplied=supplied, borrowed=-repaid)",
        "after = _with_totals(market, supplied=supplied)",
    ),
    "lent principal that is forgotten": (
        "comet",
        "after = _with_totals(market, supplied=supplied, borrowed=-repaid)",
        "after = _with_totals(market, borrowed=-repaid)",
    ),
    "seized collateral that stays the accounts'": (
        "comet",
        "totals_raw[offset] = unsigned(totals_raw[offset] - seized_raw[offset], 128)",
        "totals_raw[offset] = unsigned(totals_raw[offset], 128)",
    ),
    "bits that outlive an absorption": (
        "comet",
        "replace(account, principal=principal, assets_in=0, collateral_raw=left_raw)",
        "replace(account, principal=principal, collateral_raw=left_raw)",
    ),
    "sold at the target": (
        "comet",
        "get_reserves(market) < market.params.target_reserves_raw",
        "get_reserves(market) <= market.params.target_reserves_raw",
    ),
    "sold by the size of reserves": (
        "comet",
        "require(get_reserves(market) <",
        "require(abs(get_reserves(market)) <",
    ),
    "slippage at the limit": ("comet", "amount_raw >= min_amount_raw", "amount_raw > min_amount_raw"),
    "reserves that are never sold out": (
        "comet",
        "amount_raw <= get_collateral_reserves(market, asset)",
        "amount_raw < get_collateral_reserves(market, asset)",
    ),
    "the whole penalty as a discount": (
        "comet",
        "discount_wad = mul_factor(params.store_front_price_factor_wad, penalty_wad)",
        "discount_wad = penalty_wad",
    ),
    "a buyer's amount rounded up": (
        "comet",
        "return div(value, discounted_e8) // params.base_scale",
        "return -(-div(value, discounted_e8) // params.base_scale)",
    ),
    "buying that adds interest": (
        "comet",
        "market,\n            base_held_raw=market.base_held_raw + base",
        "accrue(market),\n            base_held_raw=market.base_held_raw + base",
    ),
    "a debt above the least only": (
        "comet",
        "-balance_raw >= market.params.base_borrow_min_raw",
        "-balance_raw > market.params.base_borrow_min_raw",
    ),
    "a cap that is never reached": (
        "comet",
        "total_raw <= market.params.assets[offset].supply_cap_raw",
        "total_raw <= 10 * market.params.assets[offset].supply_cap_raw",
    ),
    "a bit that stays when all is taken out": (
        "comet",
        "if balance_raw else account.assets_in & ~bit",
        "if balance_raw else account.assets_in",
    ),
    "released collateral checked after interest": (
        "comet",
        "require(is_borrow_collateralized(after, owner), NOT_COLLATERALIZED)",
        "require(is_borrow_collateralized(accrue(after), owner), NOT_COLLATERALIZED)",
    ),
    "withdrawn principal not taken off": (
        "comet",
        "_with_totals(accrued, supplied=-withdrawn, borrowed=borrowed)",
        "_with_totals(accrued, borrowed=borrowed)",
    ),
    "a price of zero": ("comet", "require(answer_e8 > 0, BAD_PRICE)", "require(answer_e8 >= 0, BAD_PRICE)"),
}
"""What is done wrong: where, what stands there, and what to put there."""


@contextmanager
def slipped(name: str) -> Iterator[None]:
    """Let the model do something wrong for a while."""
    where, right, wrong = SLIPS[name]
    module = MODULES[where]
    text = Path(str(module.__file__)).read_text(encoding="utf-8")
    assert text.count(right) == 1, f"{name}: {where}.py has it {text.count(right)} times"
    try:
        _run(module, text.replace(right, wrong))
        _rebind()
        yield
    finally:
        _run(module, text)
        _rebind()


def _run(module: ModuleType, text: str) -> None:
    exec(compile(text, str(module.__file__), "exec"), module.__dict__)


def _rebind() -> None:
    """Let those who took a function by its name take it anew."""
    for user in (comet, compound_v3_record, adapter):
        for name, value in vars(comet_math).items():
            if callable(value) and hasattr(user, name):
                setattr(user, name, value)


def checkout() -> Path:
    """Return the built checkout, or skip."""
    named = os.environ.get(VARIABLE)
    if not named:
        pytest.skip(f"{VARIABLE} names no built checkout of Compound III")
    return Path(named)


def kept() -> list[dict[str, Any]]:
    """Return the kept records."""
    return [json.loads(line) for line in KEPT.read_text(encoding="ascii").splitlines()]


def drawn(source: Path, cases: int) -> Iterator[tuple[dict[str, Any], set[str]]]:
    """Yield records of Comets of a checkout, and what each is counted as, its reverts among it."""
    parity = CompoundV3Parity(comet_artifacts(source))
    with backend_evm("revm") as evm:
        world = parity.prepare(evm)
        for number in range(cases):
            snapshot = evm.snapshot()
            case = Case(evm, world, np.random.default_rng([SEED, number]))
            life = case.run()
            codes = {f"reverts with {step['code']}" for step in life["steps"] if step["code"] is not None}
            yield life, case.tags | codes | {case.verdict}
            evm.revert(snapshot)


def chosen(source: Path) -> list[dict[str, Any]]:
    """Return records such that everything occurs a few times, and every slip of `SLIPS` is found."""
    pool = list(drawn(source, DRAWN))
    seen: Counter[str] = Counter()
    picked, rest = [], []
    for life, tags in pool:
        wanted = any(seen[tag] < TIMES for tag in tags)
        (picked if wanted else rest).append(life)
        seen.update(tags if wanted else ())
    rest.sort(key=lambda life: len(json.dumps(life)))
    missed = []
    for name in SLIPS:
        with slipped(name):
            if not any(judge(life) for life in picked):
                found = next((life for life in rest if judge(life)), None)
                if found is None:
                    missed.append(name)
                else:
                    picked.append(found)
    assert not missed, f"not found in {DRAWN} cases: {missed}"
    return picked


def main() -> None:
    """Draw the records anew and keep them."""
    lives = chosen(Path(os.environ[VARIABLE]))
    lines = [json.dumps(life, separators=(",", ":")) for life in lives]
    KEPT.write_text("\n".join(lines) + "\n", encoding="ascii")
    print(f"{len(lives)} lives, {KEPT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
