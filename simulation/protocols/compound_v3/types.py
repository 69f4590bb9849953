"""The states that the Compound III model works on, and what it answers.

Token amounts are `_raw`, prices and values at 1e8 (`_e8`), rates a second and factors at 1e18 (`_wad`),
indices at 1e15. A principal counts base tokens as they were worth when both indices were 1e15; it is
positive for a lender and negative for a borrower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntFlag

from simulation.types import Asset

PRICE_DECIMALS = 8
"""Scale of every price feed that a Comet accepts."""


class Pause(IntFlag):
    """The bits of `CometTotals.pause_flags` (`CometCore`)."""

    SUPPLY = 1
    TRANSFER = 2
    WITHDRAW = 4
    ABSORB = 8
    BUY = 16


@dataclass(frozen=True, slots=True)
class AssetInfo:
    """One collateral of a market (`AssetInfo` of `CometCore.sol`); its offset is its place in the list.

    Attributes
    ----------
    asset
        The token.
    price_feed
        Prices a whole token in the market's currency.
    borrow_collateral_factor_wad, liquidate_collateral_factor_wad
        Part of the value that carries a new debt, and that keeps a debt from being absorbed.
    liquidation_factor_wad
        Part of the value that an absorbed account is credited with.
    supply_cap_raw
        Most that all accounts together may have in the market, in whole tokens' steps.
    """

    asset: Asset
    price_feed: str
    borrow_collateral_factor_wad: int
    liquidate_collateral_factor_wad: int
    liquidation_factor_wad: int
    supply_cap_raw: int

    @property
    def scale(self) -> int:
        """Raw units of a whole token."""
        return int(10**self.asset.decimals)


@dataclass(frozen=True, slots=True)
class RateCurve:
    """A rate a second that bends once (`getSupplyRate`, `getBorrowRate`).

    The constructor divides yearly figures by 31,536,000 and drops the rest: `per_second` does.

    Attributes
    ----------
    kink_wad
        Utilisation up to which the low slope applies.
    base_wad, slope_low_wad, slope_high_wad
        Rate a second at no utilisation, and what it gains over a utilisation of 1.
    """

    kink_wad: int
    base_wad: int
    slope_low_wad: int
    slope_high_wad: int


@dataclass(frozen=True, slots=True)
class CometParams:
    """What a Comet was built with; an upgrade of its implementation changes it.

    Attributes
    ----------
    base
        The token that is lent.
    base_price_feed
        Prices it.
    supply_curve, borrow_curve
        Rates of lenders and borrowers by utilisation; nothing ties one to the other.
    store_front_price_factor_wad
        Part of a collateral's penalty that its buyers get as a discount.
    base_borrow_min_raw
        Least debt that may be left after a withdrawal.
    target_reserves_raw
        Reserves from which on no collateral is sold.
    tracking_supply_speed, tracking_borrow_speed
        Rewards a second for all lenders and for all borrowers, in the contract's own scale.
    base_min_for_rewards_raw
        Least principal of all lenders, or borrowers, at which their rewards run.
    assets
        Collaterals in the contract's order.
    """

    base: Asset
    base_price_feed: str
    supply_curve: RateCurve
    borrow_curve: RateCurve
    store_front_price_factor_wad: int
    base_borrow_min_raw: int
    target_reserves_raw: int
    tracking_supply_speed: int
    tracking_borrow_speed: int
    base_min_for_rewards_raw: int
    assets: tuple[AssetInfo, ...]

    @property
    def base_scale(self) -> int:
        """Raw units of a whole base token."""
        return int(10**self.base.decimals)


@dataclass(frozen=True, slots=True)
class CometTotals:
    """What a market holds, as stored (`TotalsBasic` of `CometStorage.sol`).

    Attributes
    ----------
    base_supply_index, base_borrow_index
        What a unit of principal is worth at 1e15, up to `last_accrual_time`.
    tracking_supply_index, tracking_borrow_index
        Rewards that a unit of principal has had. They can end a market: where few lend and rewards are high,
        they leave 64 bits, and nothing goes through any more.
    total_supply_base, total_borrow_base
        Principals of all lenders, and of all borrowers.
    last_accrual_time
        Unix seconds.
    pause_flags
        Bits of `Pause`.
    """

    base_supply_index: int
    base_borrow_index: int
    tracking_supply_index: int
    tracking_borrow_index: int
    total_supply_base: int
    total_borrow_base: int
    last_accrual_time: int
    pause_flags: int = 0


@dataclass(frozen=True, slots=True)
class CometMarket:
    """One market at one block and one time.

    Attributes
    ----------
    params
        What it was built with.
    totals
        What it holds, as stored: interest since then is added by whatever happens next.
    total_collateral_raw
        What all accounts have of each collateral.
    collateral_held_raw
        What the contract has of each collateral; what is more than the above is the market's own.
    base_held_raw
        Base tokens in the contract.
    prices_e8
        What each collateral's feed answers: None when it reverts, and as it stands when it is not positive.
    base_price_e8
        What the base token's feed answers, likewise.
    block, timestamp
        The block read, and the unix time that the market is looked at.
    """

    params: CometParams
    totals: CometTotals
    total_collateral_raw: tuple[int, ...]
    collateral_held_raw: tuple[int, ...]
    base_held_raw: int
    prices_e8: tuple[int | None, ...]
    base_price_e8: int | None
    block: int
    timestamp: int

    @property
    def base_decimals(self) -> int:
        """Scale of prices and of base currency amounts."""
        return PRICE_DECIMALS

    @property
    def prices_base(self) -> dict[str, int]:
        """Prices of whole tokens by symbol; without those that the contract would refuse."""
        tokens = (self.params.base, *(info.asset for info in self.params.assets))
        answers = (self.base_price_e8, *self.prices_e8)
        return {t.symbol: p for t, p in zip(tokens, answers, strict=True) if p is not None and p > 0}

    def with_prices(self, prices_base: Mapping[str, int]) -> CometMarket:
        """Return the market at other prices at 1e8, keyed by symbol; one left out is unknown."""
        return replace(
            self,
            base_price_e8=prices_base.get(self.params.base.symbol),
            prices_e8=tuple(prices_base.get(info.asset.symbol) for info in self.params.assets),
        )


@dataclass(frozen=True, slots=True)
class CometAccount:
    """What one account has in one market (`UserBasic`, `UserCollateral`, without rewards).

    Attributes
    ----------
    account
        Checksummed address.
    principal
        Lent, or with a minus sign owed.
    assets_in
        Bit of each collateral that the contract looks at for this account.
    collateral_raw
        Balance of each collateral.
    """

    account: str
    principal: int
    assets_in: int
    collateral_raw: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call does, to the wei; states are unchanged when it reverts.

    Attributes
    ----------
    revert_code
        None when the call succeeds, else a custom error's name, for example ``NotCollateralized``, or
        ``Panic(0x11)``; `errors.MEANING` explains them.
    market_after
        The market afterwards.
    account_after
        The account that the call was about, afterwards.
    amount_raw
        Tokens moved.
    """

    revert_code: str | None
    market_after: CometMarket
    account_after: CometAccount
    amount_raw: int = 0

    @property
    def succeeds(self) -> bool:
        """Whether the call goes through."""
        return self.revert_code is None


@dataclass(frozen=True, slots=True)
class Absorption:
    """What absorbing one account did (`absorbInternal`).

    Attributes
    ----------
    account
        Whose.
    base_paid_out_raw
        Debt that the market took over, and what it credited beyond the debt.
    base_paid_out_e8
        The same in the market's currency.
    seized_raw, seized_e8
        Collateral taken and its value, by asset; all of it.
    credit_e8
        Value that the account was credited with: the seized value after each asset's liquidation factor.
    shortfall_raw
        Debt that the credit does not cover; the market's reserves bear it.
    """

    account: str
    base_paid_out_raw: int
    base_paid_out_e8: int
    seized_raw: tuple[int, ...]
    seized_e8: tuple[int, ...]
    credit_e8: int
    shortfall_raw: int

    @property
    def bad_debt_e8(self) -> int:
        """What the market paid out beyond the value of all that it seized, at the feeds' prices."""
        return max(0, self.base_paid_out_e8 - sum(self.seized_e8))


@dataclass(frozen=True, slots=True)
class AbsorbOutcome:
    """What `absorb` does; nothing at all when one account of the list is not liquidatable.

    Attributes
    ----------
    revert_code
        None when the call succeeds.
    market_after
        The market afterwards.
    accounts_after
        The accounts as they were named, each one once.
    absorptions
        What was done, in order; empty when it reverts.
    """

    revert_code: str | None
    market_after: CometMarket
    accounts_after: tuple[CometAccount, ...]
    absorptions: tuple[Absorption, ...] = field(default=())

    @property
    def succeeds(self) -> bool:
        """Whether the call goes through."""
        return self.revert_code is None

    @property
    def debt_repaid_raw(self) -> int:
        """What whoever absorbs pays: nothing, the market does."""
        return 0

    @property
    def to_liquidator_raw(self) -> int:
        """What whoever absorbs gets: nothing, the market keeps what it seizes."""
        return 0

    @property
    def full(self) -> bool:
        """Whether nothing is owed afterwards, which is so of every account absorbed."""
        return self.succeeds


@dataclass(frozen=True, slots=True)
class BuyOutcome:
    """What `buyCollateral` does.

    Attributes
    ----------
    revert_code
        None when the call succeeds.
    market_after
        The market afterwards; buying adds no interest.
    base_amount_raw
        Base tokens that the buyer pays.
    collateral_amount_raw
        Collateral that the buyer gets.
    """

    revert_code: str | None
    market_after: CometMarket
    base_amount_raw: int = 0
    collateral_amount_raw: int = 0

    @property
    def succeeds(self) -> bool:
        """Whether the call goes through."""
        return self.revert_code is None
