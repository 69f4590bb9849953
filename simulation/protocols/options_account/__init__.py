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

__all__ = [
    "AuctionRules",
    "Booked",
    "Columns",
    "Flow",
    "OptionsAccount",
    "Party",
    "WholeMethod",
    "columns_of",
    "withdrawals_blocked",
]
