"""Aave V3.6 (`@aave-dao/aave-v3-origin` 3.6.0): what is new or has another signature than in revision 1.

All else that Marginline calls is as in `contracts_abi.aave_v3`.
"""

from __future__ import annotations

from typing import Final

from eth_utils.crypto import keccak

from contracts_abi.calls import event, function

# --- Pool: reads ------------------------------------------------------------------------------------------
GET_VIRTUAL_UNDERLYING_BALANCE = function("getVirtualUnderlyingBalance(address)(uint128)")
GET_RESERVE_DEFICIT = function("getReserveDeficit(address)(uint256)")
GET_LIQUIDATION_GRACE_PERIOD = function("getLiquidationGracePeriod(address)(uint40)")
# ltv, liquidationThreshold, liquidationBonus
GET_EMODE_CATEGORY_COLLATERAL_CONFIG = function(
    "getEModeCategoryCollateralConfig(uint8)((uint16,uint16,uint16))"
)
GET_EMODE_CATEGORY_LABEL = function("getEModeCategoryLabel(uint8)(string)")
GET_EMODE_CATEGORY_COLLATERAL_BITMAP = function("getEModeCategoryCollateralBitmap(uint8)(uint128)")
GET_EMODE_CATEGORY_BORROWABLE_BITMAP = function("getEModeCategoryBorrowableBitmap(uint8)(uint128)")
GET_EMODE_CATEGORY_LTVZERO_BITMAP = function("getEModeCategoryLtvzeroBitmap(uint8)(uint128)")

# --- Pool: events -----------------------------------------------------------------------------------------
DEFICIT_CREATED_EVENT = event(
    "DeficitCreated(address indexed user, address indexed debtAsset, uint256 amountCreated)"
)

# --- Pool: what only the configurator may call ------------------------------------------------------------
# id, (ltv, liquidationThreshold, liquidationBonus, label)
CONFIGURE_EMODE_CATEGORY = function("configureEModeCategory(uint8,(uint16,uint16,uint16,string))")
CONFIGURE_EMODE_CATEGORY_COLLATERAL_BITMAP = function("configureEModeCategoryCollateralBitmap(uint8,uint128)")
CONFIGURE_EMODE_CATEGORY_LTVZERO_BITMAP = function("configureEModeCategoryLtvzeroBitmap(uint8,uint128)")
SET_LIQUIDATION_GRACE_PERIOD = function("setLiquidationGracePeriod(address,uint40)")

# --- PoolConfigurator -------------------------------------------------------------------------------------
# One tuple a reserve: aTokenImpl, variableDebtTokenImpl, underlyingAsset, aTokenName, aTokenSymbol,
# variableDebtTokenName, variableDebtTokenSymbol, params, interestRateData
INIT_RESERVES = function("initReserves((address,address,address,string,string,string,string,bytes,bytes)[])")
# categoryId, ltv, liquidationThreshold, liquidationBonus, label
SET_EMODE_CATEGORY = function("setEModeCategory(uint8,uint16,uint16,uint16,string)")
SET_ASSET_COLLATERAL_IN_EMODE = function("setAssetCollateralInEMode(address,uint8,bool)")
SET_ASSET_BORROWABLE_IN_EMODE = function("setAssetBorrowableInEMode(address,uint8,bool)")
UPDATE_FLASHLOAN_PREMIUM = function("updateFlashloanPremium(uint128)")

INTEREST_RATE_DATA: Final = ("uint16", "uint32", "uint32", "uint32")
"""optimalUsageRatio, baseVariableBorrowRate, variableRateSlope1, variableRateSlope2, in basis points."""

# --- Errors that a liquidation or a read can end in -------------------------------------------------------
ERRORS: Final = {
    keccak(text=f"{name}()")[:4]: name
    for name in (
        "CollateralCannotBeLiquidated",
        "HealthFactorNotBelowThreshold",
        "InvalidBurnAmount",
        "LiquidationGraceSentinelCheckFailed",
        "MustNotLeaveDust",
        "PriceOracleSentinelCheckFailed",
        "ReserveInactive",
        "ReservePaused",
        "SelfLiquidation",
        "SpecifiedCurrencyNotBorrowedByUser",
    )
}
"""Selector to name (`Errors.sol`)."""
