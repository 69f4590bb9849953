"""Liquidator: calldata of a liquidation on Aave V3 or Morpho Blue, what its event says, and why it refused.

The contract (``vyper/Liquidator.vy``) executes an intent at most once; the intent's id is its first argument
and stands in its event, so that the chain alone tells which intents were executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from contracts_abi.calls import event, function
from contracts_abi.errors import DataError
from contracts_abi.morpho_blue import MARKET_PARAMS

# intent_id, collateral, debt, user, debt_to_cover, path, min_profit, deadline_block -> profit
LIQUIDATE_FLASH = function(
    "liquidate_flash(bytes32,address,address,address,uint256,bytes,uint256,uint256)(uint256)"
)
# intent_id, collateral, debt, user, debt_to_cover, min_collateral, deadline_block -> collateral received
LIQUIDATE_INVENTORY = function(
    "liquidate_inventory(bytes32,address,address,address,uint256,uint256,uint256)(uint256)"
)
# intent_id, market, user, seized, whole_debt, path, min_profit, deadline_block -> profit
LIQUIDATE_MORPHO_FLASH = function(
    f"liquidate_morpho_flash(bytes32,{MARKET_PARAMS},address,uint256,bool,bytes,uint256,uint256)(uint256)"
)
# intent_id, market, user, seized, whole_debt, max_repaid, min_collateral, deadline_block -> collateral
LIQUIDATE_MORPHO_INVENTORY = function(
    f"liquidate_morpho_inventory(bytes32,{MARKET_PARAMS},address,uint256,bool,uint256,uint256,uint256)"
    "(uint256)"
)
EXECUTED_AT = function("executed_at(bytes32)(uint256)")
SWEEP = function("sweep(address)(uint256)")
# asset, amount, premium, initiator, params: IFlashLoanSimpleReceiver
EXECUTE_OPERATION = function("executeOperation(address,uint256,uint256,address,bytes)(bool)")
# repaid_assets, data: IMorphoLiquidateCallback
ON_MORPHO_LIQUIDATE = function("onMorphoLiquidate(uint256,bytes)")
OWNER = function("OWNER()(address)")
RECEIVER = function("RECEIVER()(address)")
POOL = function("POOL()(address)")
MORPHO = function("MORPHO()(address)")
ROUTER = function("ROUTER()(address)")
VERSION = function("VERSION()(uint256)")

LIQUIDATED = event(
    "Liquidated(bytes32 indexed intent_id, address indexed user, address indexed venue, bytes32 market, "
    "address collateral, address debt, uint256 debt_covered, uint256 collateral_seized, uint256 profit)"
)

MarketWords: TypeAlias = tuple[str, str, str, str, int]
"""A market of Morpho Blue: loan token, collateral token, oracle, rate model, liquidation LTV at 1e18."""

CONTRACT_VERSION: Final = 2
"""What `VERSION` answers on the contract that this code is for. From 2 on the contract itself asks Morpho for
no more than there is."""

MAX_HOPS: Final = 4
"""Most pools that a path may have."""

# Revert reasons that a caller acts on.
OWNER_ONLY: Final = "owner only"
NO_POOL: Final = "no pool"
NO_MORPHO: Final = "no Morpho"
DEADLINE_PASSED: Final = "deadline passed"
INTENT_EXECUTED: Final = "intent already executed"
PATH_MISMATCH: Final = "path does not fit the tokens"
PROFIT_BELOW_MINIMUM: Final = "profit below the minimum"
COLLATERAL_BELOW_MINIMUM: Final = "collateral below the minimum"
UNEXPECTED_CALLBACK: Final = "unexpected callback"
# Of the router, which is given the least amount that still leaves the minimum profit.
SWAP_BELOW_MINIMUM: Final = "Too little received"

NO_MARKET: Final = bytes(32)
"""The market of a venue that is one market, as an Aave pool is."""

_INTENT_ID_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class Venue:
    """Where the contract liquidates; adapters say theirs, and the event says which it was.

    Attributes
    ----------
    address
        The contract that liquidates: an Aave pool, or Morpho.
    market
        Morpho's id of the market, 32 bytes; `NO_MARKET` for a pool, which is one market.
    """

    address: str
    market: bytes = NO_MARKET


@dataclass(frozen=True, slots=True)
class Liquidated:
    """What one liquidation did, as the contract measured it.

    Attributes
    ----------
    intent_id
        Names the intent, 32 bytes.
    user
        Who was liquidated.
    venue
        Where, as `LIQUIDATED` says it.
    collateral, debt
        Token addresses.
    debt_covered_raw, collateral_seized_raw
        Debt repaid and collateral received, each in its token's units.
    profit_raw
        Sent to the receiver, in debt token units; 0 from inventory, where nothing is sold.
    """

    intent_id: bytes
    user: str
    venue: Venue
    collateral: str
    debt: str
    debt_covered_raw: int
    collateral_seized_raw: int
    profit_raw: int


def flash_calldata(
    *,
    intent_id: bytes,
    collateral: str,
    debt: str,
    user: str,
    debt_to_cover_raw: int,
    path: bytes,
    min_profit_raw: int,
    deadline_block: int,
) -> bytes:
    """Return calldata of a liquidation with a flash loan.

    Parameters
    ----------
    intent_id
        32 bytes that the contract executes at most once.
    collateral, debt, user
        Token to seize, token to repay, account.
    debt_to_cover_raw
        Debt to borrow and repay, in debt token units. No more than the pool will take, or the loan's premium
        is paid on an amount that nobody needed.
    path
        Swap path from collateral to debt (`uniswap_v3.encode_path`), empty when they are the same token.
    min_profit_raw
        Least profit after the premium, in debt token units.
    deadline_block
        Last block in which it may run.
    """
    return LIQUIDATE_FLASH.encode(
        _checked(intent_id), collateral, debt, user, debt_to_cover_raw, path, min_profit_raw, deadline_block
    )


def inventory_calldata(
    *,
    intent_id: bytes,
    collateral: str,
    debt: str,
    user: str,
    debt_to_cover_raw: int,
    min_collateral_raw: int,
    deadline_block: int,
) -> bytes:
    """Return calldata of a liquidation from inventory; the collateral is kept.

    Parameters
    ----------
    min_collateral_raw
        Least collateral to receive, in collateral token units; the others are as for `flash_calldata`.
    """
    return LIQUIDATE_INVENTORY.encode(
        _checked(intent_id), collateral, debt, user, debt_to_cover_raw, min_collateral_raw, deadline_block
    )


def morpho_flash_calldata(
    *,
    intent_id: bytes,
    market: MarketWords,
    user: str,
    seized_raw: int,
    whole_debt: bool,
    path: bytes,
    min_profit_raw: int,
    deadline_block: int,
) -> bytes:
    """Return calldata of a liquidation on Morpho Blue that sells the collateral before it pays.

    Parameters
    ----------
    market
        The market's five words.
    seized_raw
        The most collateral to take, in its token's units; what is to be repaid for it follows. The contract
        takes less where there is less of it when it runs, or less is owed.
    whole_debt
        Whether to take as much as there is then, whatever `seized_raw` says.
    path
        Swap path from collateral to loan token, empty when they are the same token.
    min_profit_raw
        Least profit, in loan token units; the others are as for `flash_calldata`.
    """
    return LIQUIDATE_MORPHO_FLASH.encode(
        _checked(intent_id), market, user, seized_raw, whole_debt, path, min_profit_raw, deadline_block
    )


def morpho_inventory_calldata(
    *,
    intent_id: bytes,
    market: MarketWords,
    user: str,
    seized_raw: int,
    whole_debt: bool,
    max_repaid_raw: int,
    min_collateral_raw: int,
    deadline_block: int,
) -> bytes:
    """Return calldata of a liquidation on Morpho Blue from inventory; the collateral is kept.

    Parameters
    ----------
    max_repaid_raw
        The most that is paid, in loan token units; where the owner has or allows less, that.
    min_collateral_raw
        Least collateral to receive, in its token's units; the others are as for `morpho_flash_calldata`.
    """
    return LIQUIDATE_MORPHO_INVENTORY.encode(
        _checked(intent_id),
        market,
        user,
        seized_raw,
        whole_debt,
        max_repaid_raw,
        min_collateral_raw,
        deadline_block,
    )


def decode_liquidated(topics: Sequence[bytes], data: bytes) -> Liquidated:
    """Turn a log of `LIQUIDATED` into a value; raises `DataError` on any other log."""
    fields = LIQUIDATED.decode(topics, data)
    return Liquidated(
        intent_id=bytes(fields["intent_id"]),
        user=fields["user"],
        venue=Venue(fields["venue"], bytes(fields["market"])),
        collateral=fields["collateral"],
        debt=fields["debt"],
        debt_covered_raw=fields["debt_covered"],
        collateral_seized_raw=fields["collateral_seized"],
        profit_raw=fields["profit"],
    )


def _checked(intent_id: bytes) -> bytes:
    if len(intent_id) != _INTENT_ID_SIZE:
        raise DataError(f"intent id of {len(intent_id)} bytes, {_INTENT_ID_SIZE} expected")
    return intent_id
