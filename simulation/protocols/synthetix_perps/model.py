"""Synthetix's perpetuals as the rest of the program finds them by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from simulation.protocols.models import Founded, protocol_models
from simulation.protocols.synthetix_perps.columns import Columns, columns_of
from simulation.protocols.synthetix_perps.perps_account import liquidation_test, margin_liquidation_test
from simulation.protocols.synthetix_perps.types import PerpsAccount, PerpsVenue, PriceUnknown
from simulation.types import MarginStatus


@protocol_models.register("synthetix-perps")
@dataclass(frozen=True, slots=True)
class SynthetixPerps:
    """Synthetix V3's perpetuals: funding, fill prices, margin and liquidation in windows.

    Attributes
    ----------
    kind, founded, source
        Its name, what it was held against, and where the rules were read.
    """

    kind: ClassVar[Literal["synthetix-perps"]] = "synthetix-perps"
    founded: ClassVar[Founded] = Founded.READ
    source: ClassVar[str] = "Synthetixio/synthetix-v3 at 23585f73c, markets/perps-market/contracts (MIT)"

    def status(self, market: PerpsVenue, account: PerpsAccount) -> MarginStatus:
        """Return whether the account may be liquidated; one that is flagged stays liquidatable."""
        if account.flagged:
            return MarginStatus.LIQUIDATABLE
        if not account.positions and account.debt_wad == 0:
            return MarginStatus.NO_DEBT
        try:
            if account.positions:
                below = liquidation_test(market, account).eligible
            else:
                below = margin_liquidation_test(market, account)[0]
        except PriceUnknown:
            return MarginStatus.UNKNOWN
        return MarginStatus.LIQUIDATABLE if below else MarginStatus.HEALTHY

    def columns(self, market: PerpsVenue, accounts: Sequence[PerpsAccount]) -> Columns:
        """Return the accounts and markets as float columns; see `columns.Columns`."""
        return columns_of(market, accounts)
