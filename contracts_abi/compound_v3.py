"""Compound III (Comet, compound-finance/comet d5a30b0a): the functions and events that Marginline uses.

Names follow the contract. A market is one Comet with one base token that is lent, and a list of collaterals.
"""

from __future__ import annotations

from typing import Final

from contracts_abi.calls import event, function

# --- constructors -----------------------------------------------------------------------------------------
EXTENSION_CONFIGURATION: Final = "(bytes32,bytes32)"
"""name, symbol."""

# asset, priceFeed, decimals, borrowCollateralFactor, liquidateCollateralFactor, liquidationFactor, supplyCap
_ASSET: Final = "(address,address,uint8,uint64,uint64,uint64,uint128)"

CONFIGURATION: Final = (
    "(address,address,address,address,address,"
    "uint64,uint64,uint64,uint64,uint64,uint64,uint64,uint64,"
    f"uint64,uint64,uint64,uint64,uint104,uint104,uint104,{_ASSET}[])"
)
"""governor, pauseGuardian, baseToken, baseTokenPriceFeed, extensionDelegate; kink, low slope, high slope and
base of lenders and of borrowers; storeFrontPriceFactor, trackingIndexScale, speeds of rewards for lenders and
borrowers, baseMinForRewards, baseBorrowMin, targetReserves; the collaterals."""

# --- configuration, which an upgrade of the implementation changes ----------------------------------------
BASE_TOKEN = function("baseToken()(address)")
BASE_TOKEN_PRICE_FEED = function("baseTokenPriceFeed()(address)")
NUM_ASSETS = function("numAssets()(uint8)")
# offset, asset, priceFeed, scale, borrowCollateralFactor, liquidateCollateralFactor, liquidationFactor,
# supplyCap
GET_ASSET_INFO = function("getAssetInfo(uint8)(uint8,address,address,uint64,uint64,uint64,uint64,uint128)")
SUPPLY_KINK = function("supplyKink()(uint256)")
SUPPLY_BASE = function("supplyPerSecondInterestRateBase()(uint256)")
SUPPLY_SLOPE_LOW = function("supplyPerSecondInterestRateSlopeLow()(uint256)")
SUPPLY_SLOPE_HIGH = function("supplyPerSecondInterestRateSlopeHigh()(uint256)")
BORROW_KINK = function("borrowKink()(uint256)")
BORROW_BASE = function("borrowPerSecondInterestRateBase()(uint256)")
BORROW_SLOPE_LOW = function("borrowPerSecondInterestRateSlopeLow()(uint256)")
BORROW_SLOPE_HIGH = function("borrowPerSecondInterestRateSlopeHigh()(uint256)")
STORE_FRONT_PRICE_FACTOR = function("storeFrontPriceFactor()(uint256)")
BASE_BORROW_MIN = function("baseBorrowMin()(uint256)")
TARGET_RESERVES = function("targetReserves()(uint256)")
BASE_TRACKING_SUPPLY_SPEED = function("baseTrackingSupplySpeed()(uint256)")
BASE_TRACKING_BORROW_SPEED = function("baseTrackingBorrowSpeed()(uint256)")
BASE_MIN_FOR_REWARDS = function("baseMinForRewards()(uint256)")

# --- state ------------------------------------------------------------------------------------------------
# baseSupplyIndex, baseBorrowIndex, trackingSupplyIndex, trackingBorrowIndex, totalSupplyBase,
# totalBorrowBase, lastAccrualTime, pauseFlags
TOTALS_BASIC = function("totalsBasic()(uint64,uint64,uint64,uint64,uint104,uint104,uint40,uint8)")
# totalSupplyAsset, reserved
TOTALS_COLLATERAL = function("totalsCollateral(address)(uint128,uint128)")
# principal, baseTrackingIndex, baseTrackingAccrued, assetsIn, reserved (assets from the 17th on)
USER_BASIC = function("userBasic(address)(int104,uint64,uint64,uint16,uint8)")
# balance, reserved
USER_COLLATERAL = function("userCollateral(address,address)(uint128,uint128)")

# --- views ------------------------------------------------------------------------------------------------
GET_UTILIZATION = function("getUtilization()(uint256)")
GET_SUPPLY_RATE = function("getSupplyRate(uint256)(uint64)")
GET_BORROW_RATE = function("getBorrowRate(uint256)(uint64)")
GET_RESERVES = function("getReserves()(int256)")
GET_COLLATERAL_RESERVES = function("getCollateralReserves(address)(uint256)")
QUOTE_COLLATERAL = function("quoteCollateral(address,uint256)(uint256)")
IS_BORROW_COLLATERALIZED = function("isBorrowCollateralized(address)(bool)")
IS_LIQUIDATABLE = function("isLiquidatable(address)(bool)")
TOTAL_SUPPLY = function("totalSupply()(uint256)")
TOTAL_BORROW = function("totalBorrow()(uint256)")
COMET_BALANCE_OF = function("balanceOf(address)(uint256)")
BORROW_BALANCE_OF = function("borrowBalanceOf(address)(uint256)")

# --- actions ----------------------------------------------------------------------------------------------
INITIALIZE_STORAGE = function("initializeStorage()")
# supply, transfer, withdraw, absorb, buy
PAUSE = function("pause(bool,bool,bool,bool,bool)")
ACCRUE_ACCOUNT = function("accrueAccount(address)")
# dst, asset, amount
SUPPLY_TO = function("supplyTo(address,address,uint256)")
# asset, amount
WITHDRAW = function("withdraw(address,uint256)")
# src, to, asset, amount
WITHDRAW_FROM = function("withdrawFrom(address,address,address,uint256)")
# absorber, accounts
ABSORB = function("absorb(address,address[])")
# asset, minAmount, baseAmount, recipient
BUY_COLLATERAL = function("buyCollateral(address,uint256,uint256,address)")
# to, amount
WITHDRAW_RESERVES = function("withdrawReserves(address,uint256)")

# --- events -----------------------------------------------------------------------------------------------
SUPPLY_COLLATERAL_EVENT = event(
    "SupplyCollateral(address indexed from, address indexed dst, address indexed asset, uint256 amount)"
)
TRANSFER_COLLATERAL_EVENT = event(
    "TransferCollateral(address indexed from, address indexed to, address indexed asset, uint256 amount)"
)
ABSORB_DEBT_EVENT = event(
    "AbsorbDebt(address indexed absorber, address indexed borrower, uint256 basePaidOut, uint256 usdValue)"
)
ABSORB_COLLATERAL_EVENT = event(
    "AbsorbCollateral(address indexed absorber, address indexed borrower, address indexed asset, "
    "uint256 collateralAbsorbed, uint256 usdValue)"
)
BUY_COLLATERAL_EVENT = event(
    "BuyCollateral(address indexed buyer, address indexed asset, uint256 baseAmount, "
    "uint256 collateralAmount)"
)
