"""What the parity tests of every Aave have in common: who acts, how a case is drawn and compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from contracts_abi.aave_v3 import GET_USER_ACCOUNT_DATA, LIQUIDATION_CALL_EVENT
from contracts_abi.calls import Function, function
from contracts_abi.errors import CallReverted
from simulation.chain.evm import Evm, TxResult, find_log, labelled_address, transact
from simulation.chain.market import DEFAULT_MARKET
from simulation.chain.parity.harness import Mismatch, Verdict
from simulation.fixed_point import WAD
from simulation.protocols.aave_v2.errors import AaveV2Revert
from simulation.protocols.aave_v3.configuration import is_borrowing, is_using_as_collateral
from simulation.protocols.aave_v3.errors import AaveRevert
from simulation.protocols.aave_v3.layout import Answers, Reads

SET_CONFIGURATION: Final = function("setConfiguration(address,(uint256))")
SET_ANSWER: Final = function("setAnswer(bool,uint256)")

PRICE_SOURCE: Final = bytes.fromhex("5f545f5260205ff3")
"""SLOAD(0), returned: a price source that answers every call with its only storage word.

A price set in storage takes no block and no second, and may be what no feed would post.
"""

TRANSFER_REFUSED: Final = ("", "ERC20: transfer amount exceeds balance")
"""How the deployed tokens refuse a transfer beyond the balance: WETH without a word, the others with one."""

SENTINEL_GRACE_S: Final = 3_600
YEAR_S: Final = 31_536_000
FUNDS_RAW: Final = 10**36
LIQUIDITY_USD: Final = 1_000_000_000
CLOSE_FACTOR_WAD: Final = 95 * WAD // 100
THRESHOLDS_WAD: Final = (WAD, CLOSE_FACTOR_WAD)
NEAR_WAD: Final = 10**12
"""A health factor this close to 1 or 0.95 counts as near: one part in a million."""

DEPLOYER: Final = labelled_address("deployer")
PROVIDER: Final = labelled_address("liquidity provider")
WHALE: Final = labelled_address("whale")
BORROWER: Final = labelled_address("borrower")
LIQUIDATOR: Final = labelled_address("liquidator")
SINK: Final = labelled_address("sink")


@dataclass(frozen=True, slots=True)
class Attempt:
    """The liquidation that a case tries."""

    collateral: str
    debt: str
    debt_to_cover_raw: int
    receive_a_token: bool
    liquidator: str = LIQUIDATOR


# --- drawing ----------------------------------------------------------------------------------------------


def pick(rng: np.random.Generator, options: Sequence[Any], weights: Sequence[float] | None = None) -> Any:
    """Return one of the options."""
    return options[int(rng.choice(len(options), p=weights))]


def some(rng: np.random.Generator, options: Sequence[str], most: int) -> list[str]:
    """Return at least one and at most `most` of the options, in any order."""
    count = int(rng.integers(1, min(most, len(options)) + 1))
    return [options[i] for i in rng.permutation(len(options))[:count]]


def uniform(rng: np.random.Generator, low: int, high: int) -> int:
    """Return an integer of any size, ``low <= n <= high``."""
    return low + int.from_bytes(rng.bytes(40)) % (high - low + 1)


def maybe(rng: np.random.Generator, probability: float) -> bool:
    """Return true with a probability."""
    return bool(rng.random() < probability)


def raw_of(symbol: str, usd: float) -> int:
    """Return what so many dollars are at the first price, in token units."""
    asset = DEFAULT_MARKET.asset(symbol)
    return int(usd * 10**8 / asset.price_e8 * 10**asset.decimals)


def first_from(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Return the least ``low <= n <= high`` from which on `holds` holds, `high` when it never does."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def later(evm: Evm, rng: np.random.Generator) -> int:
    """Return the time of a case's liquidation: now, soon, or up to three months from now."""
    return evm.timestamp() + int(pick(rng, (0, 1, 12, 3_600, int(rng.integers(1, 90 * 86_400)))))


def odd_price(rng: np.random.Generator, prices: dict[str, int]) -> None:
    """Put one price where no market is, in few cases."""
    if maybe(rng, 0.03):  # no price: the oracle has no fallback and reverts
        prices[pick(rng, sorted(prices))] = pick(rng, (0, -1))
    elif maybe(rng, 0.03):  # products that leave 256 bits
        prices[pick(rng, sorted(prices))] = uniform(rng, 0, 2 ** int(rng.integers(60, 255)))
    elif maybe(rng, 0.03):
        prices[pick(rng, sorted(prices))] = 1


def pick_pair(rng: np.random.Generator, reserves: Sequence[Any], user_configuration: int) -> tuple[Any, Any]:
    """Return a collateral and a debt, in few cases one that the account does not have."""
    collaterals = [r for r in reserves if is_using_as_collateral(user_configuration, r.id)]
    debts = [r for r in reserves if is_borrowing(user_configuration, r.id)]
    return (
        pick(rng, collaterals if collaterals and maybe(rng, 0.95) else reserves),
        pick(rng, debts if debts and maybe(rng, 0.95) else reserves),
    )


# --- acting and comparing ---------------------------------------------------------------------------------


def act_as(evm: Evm, contract: str, to: str, fn: Function, *args: Any) -> None:
    """Send a transaction in a contract's name: without its code meanwhile, since code may not send any."""
    code = evm.code(contract)
    evm.set_code(contract, b"")
    transact(evm, contract, to, fn, *args)
    evm.set_code(contract, code)


def price_sources(evm: Evm, prices: Mapping[str, int]) -> dict[str, str]:
    """Place a `PRICE_SOURCE` for each key; returns key to address."""
    sources = {key: labelled_address(f"price source of {key}") for key in prices}
    for key, price in prices.items():
        evm.set_code(sources[key], PRICE_SOURCE)
        evm.set_storage(sources[key], 0, price)
    return sources


def pass_time(evm: Evm, rng: np.random.Generator, touch: Callable[[], object]) -> None:
    """Let time pass, with reserves touched now and then, so that each has indices of another time."""
    for _ in range(int(rng.integers(0, 3))):
        gap_s = pick(rng, (1, 3_600, int(rng.integers(1, 30 * 86_400)), int(rng.integers(1, 2 * YEAR_S))))
        evm.warp(evm.timestamp() + gap_s)
        touch()


def execute(evm: Evm, calls: Reads) -> Answers:
    """Run reads one by one; None for one that reverts."""
    answers: list[bytes | None] = []
    for call in calls:
        try:
            answers.append(evm.call(call.to, call.data))
        except CallReverted:
            answers.append(None)
    return answers


class Comparison:
    """Collects the fields on which contract and model part."""

    def __init__(self) -> None:
        self.mismatches: list[Mismatch] = []

    def check(self, field: str, contract: Any, model: Any) -> None:
        """Note the field when the two are not equal."""
        if contract != model:
            self.mismatches.append(Mismatch(field, str(contract), str(model)))

    def account_data(
        self, evm: Evm, pool: str, revert_code: Callable[[bytes], str], model: Callable[[], Any]
    ) -> int | None:
        """Compare `getUserAccountData` of the borrower; returns the contract's health factor."""
        call = GET_USER_ACCOUNT_DATA.call(pool, BORROWER)
        try:
            contract: Any = call.decode(evm.call(call.to, call.data))
        except CallReverted as error:
            contract = revert_code(error.data)
        try:
            expected: Any = model().words()
        except (AaveRevert, AaveV2Revert) as reverted:
            expected = reverted.code
        self.check("account data", contract, expected)
        return contract[5] if isinstance(contract, tuple) else None

    def event(self, result: TxResult, repaid_raw: int, seized_raw: int) -> None:
        """Compare `LiquidationCall`."""
        emitted = find_log(result, LIQUIDATION_CALL_EVENT)
        self.check("event debtToCover", emitted["debtToCover"], repaid_raw)
        self.check("event liquidatedCollateralAmount", emitted["liquidatedCollateralAmount"], seized_raw)

    def changes(self, before: Mapping[str, int], after: Mapping[str, int], model: Mapping[str, int]) -> None:
        """Compare by how much each figure changed; what `model` does not name must not have."""
        for name, amount in after.items():
            self.check(name, amount - before[name], model.get(name, 0))

    def account(self, contract: Any, model: Any) -> None:
        """Compare an account's word and positions."""
        self.check("configuration", contract.user_configuration, model.user_configuration)
        for position in contract.positions:
            expected = model.position(position.reserve_id)
            self.check(f"position {position.reserve_id}", position, expected)


def paid(*, repaid_raw: int, paid_out_raw: int, same: bool) -> dict[str, int]:
    """Return by how much the liquidator's tokens change; `same` when the debt is in the collateral."""
    return {
        "liquidator's collateral": paid_out_raw - (repaid_raw if same else 0),
        "liquidator's debt token": (paid_out_raw if same else 0) - repaid_raw,
    }


def verdict(code: str | None, healthy: str) -> Verdict:
    """Return what a revert code means; `healthy` is the one of an account with a health factor of 1."""
    if code is None:
        return Verdict.LIQUIDATED
    return Verdict.HEALTHY if code == healthy else Verdict.REJECTED


def holding(named: Mapping[str, bool]) -> frozenset[str]:
    """Return the names of what holds."""
    return frozenset(name for name, holds in named.items() if holds)
