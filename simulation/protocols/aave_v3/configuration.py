"""The packed words of the pool (`ReserveConfiguration.sol`, `UserConfiguration.sol`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BORROWING_MASK: Final = int("5" * 64, 16)
COLLATERAL_MASK: Final = int("A" * 64, 16)
DEBT_CEILING_DECIMALS: Final = 2


@dataclass(frozen=True, slots=True)
class ReserveConfiguration:
    """One reserve's configuration word, unpacked.

    Attributes
    ----------
    ltv_bps, liquidation_threshold_bps, liquidation_bonus_bps
        Risk parameters outside eMode; a bonus of 10500 gives the liquidator 5 % on top.
    decimals
        Token decimals.
    active, frozen, borrowing_enabled, stable_borrowing_enabled, paused
        Flags. Liquidation needs `active` and not `paused`; `frozen` does not matter to it.
    borrowable_in_isolation, siloed_borrowing, flash_loan_enabled
        Flags.
    reserve_factor_bps
        Share of the interest that goes to the treasury.
    borrow_cap, supply_cap
        Caps in whole tokens, 0 for none.
    liquidation_protocol_fee_bps
        Share of the liquidation bonus that goes to the treasury.
    e_mode_category
        Category of the asset, 0 for none.
    unbacked_mint_cap
        In whole tokens, 0 for none allowed.
    debt_ceiling
        Isolation-mode debt ceiling with two decimals; non-zero makes the asset an isolated collateral.
    """

    ltv_bps: int
    liquidation_threshold_bps: int
    liquidation_bonus_bps: int
    decimals: int
    active: bool
    frozen: bool
    borrowing_enabled: bool
    stable_borrowing_enabled: bool
    paused: bool
    borrowable_in_isolation: bool
    siloed_borrowing: bool
    flash_loan_enabled: bool
    reserve_factor_bps: int
    borrow_cap: int
    supply_cap: int
    liquidation_protocol_fee_bps: int
    e_mode_category: int
    unbacked_mint_cap: int
    debt_ceiling: int

    @property
    def unit(self) -> int:
        """Raw units of one token."""
        return int(10**self.decimals)

    @classmethod
    def unpack(cls, word: int) -> ReserveConfiguration:
        """Unpack a `ReserveConfigurationMap` word."""

        def bits(start: int, length: int) -> int:
            return (word >> start) & ((1 << length) - 1)

        def flag(position: int) -> bool:
            return bool((word >> position) & 1)

        return cls(
            ltv_bps=bits(0, 16),
            liquidation_threshold_bps=bits(16, 16),
            liquidation_bonus_bps=bits(32, 16),
            decimals=bits(48, 8),
            active=flag(56),
            frozen=flag(57),
            borrowing_enabled=flag(58),
            stable_borrowing_enabled=flag(59),
            paused=flag(60),
            borrowable_in_isolation=flag(61),
            siloed_borrowing=flag(62),
            flash_loan_enabled=flag(63),
            reserve_factor_bps=bits(64, 16),
            borrow_cap=bits(80, 36),
            supply_cap=bits(116, 36),
            liquidation_protocol_fee_bps=bits(152, 16),
            e_mode_category=bits(168, 8),
            unbacked_mint_cap=bits(176, 36),
            debt_ceiling=bits(212, 40),
        )

    def pack(self) -> int:
        """Return the `ReserveConfigurationMap` word."""
        return (
            self.ltv_bps
            | self.liquidation_threshold_bps << 16
            | self.liquidation_bonus_bps << 32
            | self.decimals << 48
            | self.active << 56
            | self.frozen << 57
            | self.borrowing_enabled << 58
            | self.stable_borrowing_enabled << 59
            | self.paused << 60
            | self.borrowable_in_isolation << 61
            | self.siloed_borrowing << 62
            | self.flash_loan_enabled << 63
            | self.reserve_factor_bps << 64
            | self.borrow_cap << 80
            | self.supply_cap << 116
            | self.liquidation_protocol_fee_bps << 152
            | self.e_mode_category << 168
            | self.unbacked_mint_cap << 176
            | self.debt_ceiling << 212
        )


def is_borrowing(user_configuration: int, reserve_id: int) -> bool:
    """Return whether the borrow bit of the reserve is set (`isBorrowing`)."""
    return bool((user_configuration >> (2 * reserve_id)) & 1)


def is_using_as_collateral(user_configuration: int, reserve_id: int) -> bool:
    """Return whether the collateral bit of the reserve is set (`isUsingAsCollateral`)."""
    return bool((user_configuration >> (2 * reserve_id + 1)) & 1)


def is_using_as_collateral_one(user_configuration: int) -> bool:
    """Return whether exactly one collateral bit is set (`isUsingAsCollateralOne`)."""
    collateral = user_configuration & COLLATERAL_MASK
    return collateral != 0 and collateral & (collateral - 1) == 0


def is_using_as_collateral_any(user_configuration: int) -> bool:
    """Return whether any collateral bit is set (`isUsingAsCollateralAny`)."""
    return user_configuration & COLLATERAL_MASK != 0


def set_borrowing(user_configuration: int, reserve_id: int, borrowing: bool) -> int:
    """Return the word with the reserve's borrow bit set or cleared (`setBorrowing`)."""
    bit = 1 << (2 * reserve_id)
    return user_configuration | bit if borrowing else user_configuration & ~bit


def set_using_as_collateral(user_configuration: int, reserve_id: int, using: bool) -> int:
    """Return the word with the reserve's collateral bit set or cleared (`setUsingAsCollateral`)."""
    bit = 1 << (2 * reserve_id + 1)
    return user_configuration | bit if using else user_configuration & ~bit
