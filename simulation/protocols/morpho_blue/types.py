"""The states that the Morpho Blue model works on, and what it answers.

Assets are token units (`_raw`), shares count themselves and have no unit, rates and factors are at 1e18.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from eth_abi.abi import encode as abi_encode
from eth_utils.crypto import keccak

from simulation.protocols.morpho_blue.irm import InterestRateModel
from simulation.types import Asset

ZERO_ADDRESS = "0x" + "00" * 20


@dataclass(frozen=True, slots=True)
class MarketParams:
    """What a market is, for good (`MarketParams` of `IMorpho.sol`).

    Attributes
    ----------
    loan_token, collateral_token
        What is lent, and what stands for it.
    oracle
        Prices collateral in loan tokens.
    irm
        Interest rate model; the zero address for a market without interest.
    lltv_wad
        Liquidation loan-to-value: a position whose debt is above this part of its collateral is liquidated.
    """

    loan_token: str
    collateral_token: str
    oracle: str
    irm: str
    lltv_wad: int

    def words(self) -> tuple[str, str, str, str, int]:
        """Return the five words as the contract's functions take them."""
        return self.loan_token, self.collateral_token, self.oracle, self.irm, self.lltv_wad

    @property
    def id(self) -> str:
        """The market's id: Keccak-256 of the five words, 0x-prefixed (`MarketParamsLib.id`)."""
        types = ("address", "address", "address", "address", "uint256")
        return "0x" + keccak(abi_encode(types, self.words())).hex()


@dataclass(frozen=True, slots=True)
class MarketState:
    """What a market holds, as stored (`Market` of `IMorpho.sol`).

    Attributes
    ----------
    total_supply_assets_raw, total_supply_shares
        Lent, with interest up to `last_update`, and the shares in it.
    total_borrow_assets_raw, total_borrow_shares
        Owed, likewise.
    last_update
        Unix seconds that interest has been added up to; 0 for a market that was not created.
    fee_wad
        Part of the interest that the fee recipient gets as shares of the supply.
    """

    total_supply_assets_raw: int = 0
    total_supply_shares: int = 0
    total_borrow_assets_raw: int = 0
    total_borrow_shares: int = 0
    last_update: int = 0
    fee_wad: int = 0


@dataclass(frozen=True, slots=True)
class MorphoMarket:
    """One market at one block and one time.

    Attributes
    ----------
    params
        What it is.
    state
        What it holds, as stored: interest since `state.last_update` is added by whatever happens next.
    irm
        Its interest rate model with what that remembers; None without one.
    price_e36
        Smallest units of the loan token for one smallest unit of collateral at 1e36; None when the oracle
        reverts.
    block, timestamp
        The block read, and the unix time that the market is looked at; the two part when a market is
        projected to the next block's time.
    loan, collateral
        The tokens.
    fee_recipient
        Who gets the fee's shares; zero for nobody.
    """

    params: MarketParams
    state: MarketState
    irm: InterestRateModel | None
    price_e36: int | None
    block: int
    timestamp: int
    loan: Asset
    collateral: Asset
    fee_recipient: str = ZERO_ADDRESS

    @property
    def base_decimals(self) -> int:
        """Scale of prices and of base currency amounts, whose unit is one whole loan token.

        It is the oracle's own, ``36 + loan decimals - collateral decimals``, so that its price is a price in
        base currency as it stands, and an amount of raw loan tokens a whole number of base units.
        """
        return 36 + self.loan.decimals - self.collateral.decimals

    @property
    def prices_base(self) -> dict[str, int]:
        """Prices of whole tokens in base currency by symbol; without the collateral's when it is unknown."""
        prices = {self.loan.symbol: int(10**self.base_decimals)}
        if self.price_e36 is not None:
            prices[self.collateral.symbol] = self.price_e36
        return prices

    def with_prices(self, prices_base: Mapping[str, int]) -> MorphoMarket:
        """Return the market as an oracle would price it that follows other prices, keyed by symbol.

        Prices may be in any currency as long as it is the same one; what counts is their ratio, rounded down
        as a price at 1e36. A price left out, or a loan token worth nothing, makes it unknown.
        """
        of_loan, of_collateral = (prices_base.get(a.symbol) for a in (self.loan, self.collateral))
        known = bool(of_loan) and of_collateral is not None
        price_e36 = of_collateral * 10**self.base_decimals // of_loan if known else None
        return replace(self, price_e36=price_e36)


@dataclass(frozen=True, slots=True)
class MorphoAccount:
    """What one account has in one market (`Position` of `IMorpho.sol`).

    Attributes
    ----------
    account
        Checksummed address.
    supply_shares, borrow_shares
        Shares of the supply and of the debt.
    collateral_raw
        Collateral; it earns nothing.
    """

    account: str
    supply_shares: int = 0
    borrow_shares: int = 0
    collateral_raw: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call does, to the wei; all amounts 0 and all states unchanged when it reverts.

    Attributes
    ----------
    revert_code
        None when the call succeeds, else the contract's reason, for example ``insufficient collateral``, or
        ``Panic(0x11)``; `errors.MEANING` explains them.
    market_after
        The market afterwards, with interest added and its rate model moved on.
    account_after
        The account that the call was about, afterwards.
    assets_raw, shares
        What the call answers: loan tokens moved and the shares they are; collateral for calls about it.
    interest_raw, fee_shares
        What was added to debt and supply beforehand, and the fee recipient's shares for it.
    """

    revert_code: str | None
    market_after: MorphoMarket
    account_after: MorphoAccount
    assets_raw: int = 0
    shares: int = 0
    interest_raw: int = 0
    fee_shares: int = 0

    @property
    def succeeds(self) -> bool:
        """Whether the call goes through."""
        return self.revert_code is None


@dataclass(frozen=True, slots=True)
class LiquidationOutcome(Outcome):
    """What `Morpho.liquidate` does; `simulation.liquidation.Outcome` is the part that planning reads.

    Attributes
    ----------
    repaid_assets_raw, repaid_shares
        Loan tokens that the liquidator pays, and the shares that they redeem.
    seized_assets_raw
        Collateral that the liquidator gets; there is no protocol fee.
    bad_debt_assets_raw, bad_debt_shares
        Debt left without collateral, taken off what suppliers own.
    full
        Whether the account owes nothing afterwards because all was repaid.
    """

    repaid_assets_raw: int = 0
    repaid_shares: int = 0
    seized_assets_raw: int = 0
    bad_debt_assets_raw: int = 0
    bad_debt_shares: int = 0
    full: bool = False

    @property
    def debt_repaid_raw(self) -> int:
        """Debt token units that the liquidator pays."""
        return self.repaid_assets_raw

    @property
    def to_liquidator_raw(self) -> int:
        """Collateral token units that the liquidator gets."""
        return self.seized_assets_raw
