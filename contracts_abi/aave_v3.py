"""Aave V3, first revision (`@aave/core-v3` 1.19.3): the functions and events that Marginline uses.

Names follow the contracts. A later revision that only adds functions needs nothing here; one that changes
a signature gets a module of its own.
"""

from __future__ import annotations

from typing import Final

from contracts_abi.calls import Call, event, function

# --- PoolAddressesProvider --------------------------------------------------------------------------------
GET_POOL = function("getPool()(address)")
GET_POOL_CONFIGURATOR = function("getPoolConfigurator()(address)")
GET_PRICE_ORACLE = function("getPriceOracle()(address)")
GET_PRICE_ORACLE_SENTINEL = function("getPriceOracleSentinel()(address)")
GET_POOL_DATA_PROVIDER = function("getPoolDataProvider()(address)")
GET_ACL_MANAGER = function("getACLManager()(address)")
GET_MARKET_ID = function("getMarketId()(string)")
SET_ACL_ADMIN = function("setACLAdmin(address)")
SET_ACL_MANAGER = function("setACLManager(address)")
SET_POOL_IMPL = function("setPoolImpl(address)")
SET_POOL_CONFIGURATOR_IMPL = function("setPoolConfiguratorImpl(address)")
SET_PRICE_ORACLE = function("setPriceOracle(address)")
SET_PRICE_ORACLE_SENTINEL = function("setPriceOracleSentinel(address)")
SET_POOL_DATA_PROVIDER = function("setPoolDataProvider(address)")

# --- Pool: reads ------------------------------------------------------------------------------------------
ADDRESSES_PROVIDER = function("ADDRESSES_PROVIDER()(address)")
POOL_REVISION = function("POOL_REVISION()(uint256)")
FLASHLOAN_PREMIUM_TOTAL = function("FLASHLOAN_PREMIUM_TOTAL()(uint128)")
FLASHLOAN_PREMIUM_TO_PROTOCOL = function("FLASHLOAN_PREMIUM_TO_PROTOCOL()(uint128)")
GET_RESERVES_LIST = function("getReservesList()(address[])")
GET_RESERVE_ADDRESS_BY_ID = function("getReserveAddressById(uint16)(address)")
# configuration, liquidityIndex, currentLiquidityRate, variableBorrowIndex, currentVariableBorrowRate,
# currentStableBorrowRate, lastUpdateTimestamp, id, aToken, stableDebtToken, variableDebtToken,
# interestRateStrategy, accruedToTreasury, unbacked, isolationModeTotalDebt
GET_RESERVE_DATA = function(
    "getReserveData(address)(((uint256),uint128,uint128,uint128,uint128,uint128,uint40,uint16,"
    "address,address,address,address,uint128,uint128,uint128))"
)
# A one-word struct, and so encoded as the word: ReserveConfigurationMap, and below UserConfigurationMap.
GET_CONFIGURATION = function("getConfiguration(address)(uint256)")
GET_RESERVE_NORMALIZED_INCOME = function("getReserveNormalizedIncome(address)(uint256)")
GET_RESERVE_NORMALIZED_VARIABLE_DEBT = function("getReserveNormalizedVariableDebt(address)(uint256)")
# ltv, liquidationThreshold, liquidationBonus, priceSource, label
GET_EMODE_CATEGORY_DATA = function("getEModeCategoryData(uint8)((uint16,uint16,uint16,address,string))")
GET_USER_EMODE = function("getUserEMode(address)(uint256)")
GET_USER_CONFIGURATION = function("getUserConfiguration(address)(uint256)")
# totalCollateralBase, totalDebtBase, availableBorrowsBase, currentLiquidationThreshold, ltv, healthFactor
GET_USER_ACCOUNT_DATA = function(
    "getUserAccountData(address)(uint256,uint256,uint256,uint256,uint256,uint256)"
)

# --- Pool: actions ----------------------------------------------------------------------------------------
SUPPLY = function("supply(address,uint256,address,uint16)")
WITHDRAW = function("withdraw(address,uint256,address)(uint256)")
BORROW = function("borrow(address,uint256,uint256,uint16,address)")
REPAY = function("repay(address,uint256,uint256,address)(uint256)")
SET_USER_EMODE = function("setUserEMode(uint8)")
SET_USER_USE_RESERVE_AS_COLLATERAL = function("setUserUseReserveAsCollateral(address,bool)")
# collateralAsset, debtAsset, user, debtToCover, receiveAToken
LIQUIDATION_CALL = function("liquidationCall(address,address,address,uint256,bool)")
# receiverAddress, asset, amount, params, referralCode
FLASH_LOAN_SIMPLE = function("flashLoanSimple(address,address,uint256,bytes,uint16)")

STABLE_RATE_MODE: Final = 1
VARIABLE_RATE_MODE: Final = 2

# --- Pool: events -----------------------------------------------------------------------------------------
SUPPLY_EVENT = event(
    "Supply(address indexed reserve, address user, address indexed onBehalfOf, uint256 amount, "
    "uint16 indexed referralCode)"
)
WITHDRAW_EVENT = event(
    "Withdraw(address indexed reserve, address indexed user, address indexed to, uint256 amount)"
)
BORROW_EVENT = event(
    "Borrow(address indexed reserve, address user, address indexed onBehalfOf, uint256 amount, "
    "uint8 interestRateMode, uint256 borrowRate, uint16 indexed referralCode)"
)
REPAY_EVENT = event(
    "Repay(address indexed reserve, address indexed user, address indexed repayer, uint256 amount, "
    "bool useATokens)"
)
LIQUIDATION_CALL_EVENT = event(
    "LiquidationCall(address indexed collateralAsset, address indexed debtAsset, address indexed user, "
    "uint256 debtToCover, uint256 liquidatedCollateralAmount, address liquidator, bool receiveAToken)"
)
FLASH_LOAN_EVENT = event(
    "FlashLoan(address indexed target, address initiator, address indexed asset, uint256 amount, "
    "uint8 interestRateMode, uint256 premium, uint16 indexed referralCode)"
)
USER_EMODE_SET_EVENT = event("UserEModeSet(address indexed user, uint8 categoryId)")
RESERVE_USED_AS_COLLATERAL_ENABLED_EVENT = event(
    "ReserveUsedAsCollateralEnabled(address indexed reserve, address indexed user)"
)
RESERVE_USED_AS_COLLATERAL_DISABLED_EVENT = event(
    "ReserveUsedAsCollateralDisabled(address indexed reserve, address indexed user)"
)
RESERVE_DATA_UPDATED_EVENT = event(
    "ReserveDataUpdated(address indexed reserve, uint256 liquidityRate, uint256 stableBorrowRate, "
    "uint256 variableBorrowRate, uint256 liquidityIndex, uint256 variableBorrowIndex)"
)

# --- PoolConfigurator -------------------------------------------------------------------------------------
# One tuple a reserve: aTokenImpl, stableDebtTokenImpl, variableDebtTokenImpl, underlyingAssetDecimals,
# interestRateStrategyAddress, underlyingAsset, treasury, incentivesController, aTokenName, aTokenSymbol,
# variableDebtTokenName, variableDebtTokenSymbol, stableDebtTokenName, stableDebtTokenSymbol, params
INIT_RESERVES = function(
    "initReserves((address,address,address,uint8,address,address,address,address,"
    "string,string,string,string,string,string,bytes)[])"
)
# asset, ltv, liquidationThreshold, liquidationBonus
CONFIGURE_RESERVE_AS_COLLATERAL = function("configureReserveAsCollateral(address,uint256,uint256,uint256)")
SET_RESERVE_BORROWING = function("setReserveBorrowing(address,bool)")
SET_RESERVE_STABLE_RATE_BORROWING = function("setReserveStableRateBorrowing(address,bool)")
SET_RESERVE_FLASH_LOANING = function("setReserveFlashLoaning(address,bool)")
SET_RESERVE_FACTOR = function("setReserveFactor(address,uint256)")
SET_LIQUIDATION_PROTOCOL_FEE = function("setLiquidationProtocolFee(address,uint256)")
SET_RESERVE_ACTIVE = function("setReserveActive(address,bool)")
SET_RESERVE_FREEZE = function("setReserveFreeze(address,bool)")
SET_RESERVE_PAUSE = function("setReservePause(address,bool)")
SET_POOL_PAUSE = function("setPoolPause(bool)")
# categoryId, ltv, liquidationThreshold, liquidationBonus, oracle, label
SET_EMODE_CATEGORY = function("setEModeCategory(uint8,uint16,uint16,uint16,address,string)")
SET_ASSET_EMODE_CATEGORY = function("setAssetEModeCategory(address,uint8)")
UPDATE_FLASHLOAN_PREMIUM_TOTAL = function("updateFlashloanPremiumTotal(uint128)")
UPDATE_FLASHLOAN_PREMIUM_TO_PROTOCOL = function("updateFlashloanPremiumToProtocol(uint128)")

# --- ACLManager -------------------------------------------------------------------------------------------
ADD_POOL_ADMIN = function("addPoolAdmin(address)")
ADD_RISK_ADMIN = function("addRiskAdmin(address)")
ADD_ASSET_LISTING_ADMIN = function("addAssetListingAdmin(address)")
ADD_EMERGENCY_ADMIN = function("addEmergencyAdmin(address)")

# --- AaveOracle -------------------------------------------------------------------------------------------
GET_ASSET_PRICE = function("getAssetPrice(address)(uint256)")
GET_ASSETS_PRICES = function("getAssetsPrices(address[])(uint256[])")
GET_SOURCE_OF_ASSET = function("getSourceOfAsset(address)(address)")
GET_FALLBACK_ORACLE = function("getFallbackOracle()(address)")
BASE_CURRENCY = function("BASE_CURRENCY()(address)")
BASE_CURRENCY_UNIT = function("BASE_CURRENCY_UNIT()(uint256)")
SET_ASSET_SOURCES = function("setAssetSources(address[],address[])")

# --- AaveProtocolDataProvider -----------------------------------------------------------------------------
# aTokenAddress, stableDebtTokenAddress, variableDebtTokenAddress
GET_RESERVE_TOKENS_ADDRESSES = function("getReserveTokensAddresses(address)(address,address,address)")
GET_ALL_RESERVES_TOKENS = function("getAllReservesTokens()((string,address)[])")

# --- AToken and VariableDebtToken -------------------------------------------------------------------------
SCALED_BALANCE_OF = function("scaledBalanceOf(address)(uint256)")
SCALED_TOTAL_SUPPLY = function("scaledTotalSupply()(uint256)")
UNDERLYING_ASSET_ADDRESS = function("UNDERLYING_ASSET_ADDRESS()(address)")
RESERVE_TREASURY_ADDRESS = function("RESERVE_TREASURY_ADDRESS()(address)")
APPROVE_DELEGATION = function("approveDelegation(address,uint256)")

# --- ERC-20 -----------------------------------------------------------------------------------------------
BALANCE_OF = function("balanceOf(address)(uint256)")
TOTAL_SUPPLY = function("totalSupply()(uint256)")
ALLOWANCE = function("allowance(address,address)(uint256)")
TRANSFER = function("transfer(address,uint256)(bool)")
TRANSFER_FROM = function("transferFrom(address,address,uint256)(bool)")
APPROVE = function("approve(address,uint256)(bool)")
ERC20_DECIMALS = function("decimals()(uint8)")
SYMBOL = function("symbol()(string)")


def symbol_call(token: str) -> Call[str]:
    """Return the read of a token's symbol; tokens from before the standard (MKR) answer a bytes32."""

    def decode(data: bytes) -> str:
        if len(data) == 32:
            return data.rstrip(b"\0").decode("utf-8", "replace")
        return str(SYMBOL.decode_one(data))

    return Call(token, SYMBOL.encode(), decode, f"symbol of {token}")
