"""Options accounts: healthy or not under any margin method, and sold in Derive's Dutch auction."""

from __future__ import annotations

from simulation.protocols.options_account.auction import (
    AuctionRules,
    Booked,
    Flow,
    Party,
    WholeMethod,
    withdrawals_blocked,
)
from simulation.protocols.options_account.columns import Columns, columns_of
from simulation.protocols.options_account.model import OptionsAccount
from simulation.protocols.options_account.screen import Margins, Screen, screen_of

__all__ = [
    "AuctionRules",
    "Booked",
    "Columns",
    "Flow",
    "Margins",
    "OptionsAccount",
    "Party",
    "Screen",
    "WholeMethod",
    "columns_of",
    "screen_of",
    "withdrawals_blocked",
]
