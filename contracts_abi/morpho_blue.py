"""Morpho Blue (`@morpho-org/morpho-blue` 1.0.0): the functions and events that Marginline uses.

Names follow the contract. One contract holds all markets; a market is the five words of its parameters, and
its id is their Keccak-256.
"""

from __future__ import annotations

from typing import Final

from contracts_abi.calls import event, function

MARKET_PARAMS: Final = "(address,address,address,address,uint256)"
"""loanToken, collateralToken, oracle, irm, lltv."""

# --- Morpho: administration -------------------------------------------------------------------------------
ENABLE_IRM = function("enableIrm(address)")
ENABLE_LLTV = function("enableLltv(uint256)")
SET_FEE = function(f"setFee({MARKET_PARAMS},uint256)")
SET_FEE_RECIPIENT = function("setFeeRecipient(address)")
CREATE_MARKET = function(f"createMarket({MARKET_PARAMS})")

# --- Morpho: reads ----------------------------------------------------------------------------------------
FEE_RECIPIENT = function("feeRecipient()(address)")
# loanToken, collateralToken, oracle, irm, lltv
ID_TO_MARKET_PARAMS = function("idToMarketParams(bytes32)(address,address,address,address,uint256)")
# totalSupplyAssets, totalSupplyShares, totalBorrowAssets, totalBorrowShares, lastUpdate, fee
MARKET = function("market(bytes32)(uint128,uint128,uint128,uint128,uint128,uint128)")
# supplyShares, borrowShares, collateral
POSITION = function("position(bytes32,address)(uint256,uint128,uint128)")

# --- Morpho: actions --------------------------------------------------------------------------------------
# marketParams, assets, shares, onBehalf, data -> assets, shares
SUPPLY = function(f"supply({MARKET_PARAMS},uint256,uint256,address,bytes)(uint256,uint256)")
REPAY = function(f"repay({MARKET_PARAMS},uint256,uint256,address,bytes)(uint256,uint256)")
# marketParams, assets, shares, onBehalf, receiver -> assets, shares
WITHDRAW = function(f"withdraw({MARKET_PARAMS},uint256,uint256,address,address)(uint256,uint256)")
BORROW = function(f"borrow({MARKET_PARAMS},uint256,uint256,address,address)(uint256,uint256)")
# marketParams, assets, onBehalf, data
SUPPLY_COLLATERAL = function(f"supplyCollateral({MARKET_PARAMS},uint256,address,bytes)")
# marketParams, assets, onBehalf, receiver
WITHDRAW_COLLATERAL = function(f"withdrawCollateral({MARKET_PARAMS},uint256,address,address)")
# marketParams, borrower, seizedAssets, repaidShares, data -> seizedAssets, repaidAssets
LIQUIDATE = function(f"liquidate({MARKET_PARAMS},address,uint256,uint256,bytes)(uint256,uint256)")
ACCRUE_INTEREST = function(f"accrueInterest({MARKET_PARAMS})")
SET_AUTHORIZATION = function("setAuthorization(address,bool)")

# --- Morpho: events ---------------------------------------------------------------------------------------
BORROW_EVENT = event(
    "Borrow(bytes32 indexed id, address caller, address indexed onBehalf, address indexed receiver, "
    "uint256 assets, uint256 shares)"
)
LIQUIDATE_EVENT = event(
    "Liquidate(bytes32 indexed id, address indexed caller, address indexed borrower, uint256 repaidAssets, "
    "uint256 repaidShares, uint256 seizedAssets, uint256 badDebtAssets, uint256 badDebtShares)"
)
ACCRUE_INTEREST_EVENT = event(
    "AccrueInterest(bytes32 indexed id, uint256 prevBorrowRate, uint256 interest, uint256 feeShares)"
)

# --- what a market stands on ------------------------------------------------------------------------------
# Smallest units of the loan token for one smallest unit of collateral, times 1e36.
PRICE = function("price()(uint256)")
# AdaptiveCurveIrm: the rate at target utilisation, a second, at 1e18; 0 before the first use.
RATE_AT_TARGET = function("rateAtTarget(bytes32)(int256)")
# FixedRateIrm: the rate a second, at 1e18.
BORROW_RATE_STORED = function("borrowRateStored(bytes32)(uint256)")
