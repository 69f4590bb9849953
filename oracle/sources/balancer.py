"""A rate that a Balancer pool or rate provider states, and whether its vault is inside a call.

Contracts: ``IRateProvider.getRate`` and ``VaultReentrancyLib`` of balancer/balancer-v2-monorepo.

The rate of a pool is worked out from balances that the vault writes in the middle of a join or an exit, while
it hands control to a token or to the caller. Read at that moment it fits no state of the pool (read-only
reentrancy), and what consumes it has to ask the vault's lock first. Here it is asked with a call of the same
function, ``manageUserBalance`` without operations: it changes nothing, and reverts while the lock is set.

Trap: between transactions no lock is ever set. The probe tells something only where it is asked inside one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from contracts_abi.calls import Call, function
from oracle.fields import Address
from oracle.interfaces import FeedContext, RateFacts
from oracle.sources import sources
from oracle.sources.answers import ContractSource, output
from oracle.sources.erc4626 import TOTAL_SUPPLY
from oracle.types import FeedKind, PriceObs, Reading

DECIMALS = 18
GET_RATE = function("getRate()(uint256)")
# kind, asset, amount, sender, recipient
MANAGE_USER_BALANCE = function("manageUserBalance((uint8,address,uint256,address,address)[])")
GET_PROTOCOL_FEES_COLLECTOR = function("getProtocolFeesCollector()(address)")


@sources.register("balancer_rate")
class BalancerRateSource(ContractSource):
    """A rate with 18 decimals (``getRate``); with `vault`, whether the vault is inside a call.

    A rate of zero is no rate.

    Attributes
    ----------
    base, quote
        Symbols of the token and of what it is worth.
    address
        The pool or rate provider to read.
    name
        Source id; ``balancer_rate:<address>`` by default.
    vault
        Balancer's vault (V2), for pools whose rate depends on balances.
    shares
        The token whose supply stands behind the rate; the pool itself where it is one.
    max_growth_bps_year
        Growth that is plausible, linear, basis points a year.
    """

    kind: ClassVar[Literal["balancer_rate"]] = "balancer_rate"

    vault: Address | None = None
    shares: Address | None = None
    max_growth_bps_year: int | None = Field(default=None, ge=0)

    def reads(self) -> list[Call[Any]]:
        """Return the rate, the supply of the shares, and the probe of the vault with a read beside it."""
        calls = [GET_RATE.call(self.address), TOTAL_SUPPLY.call(self.shares or self.address)]
        if self.vault is not None:
            calls += [MANAGE_USER_BALANCE.call(self.vault, []), GET_PROTOCOL_FEES_COLLECTOR.call(self.vault)]
        return calls

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the rate; it carries no time."""
        rate = output(GET_RATE, results[0])
        if not rate:
            reason = "getRate() gave no rate" if rate is None else "getRate() is zero"
            return self._no_data(reason, results[0], block, timestamp)
        return PriceObs(
            self.base,
            self.quote,
            rate,
            DECIMALS,
            FeedKind.RATE,
            self.source_id,
            published_at=None,
            observed_at=timestamp,
            block=block,
            raw=results[0] or b"",
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the rate with the supply behind it, and whether the vault is inside a call."""
        rate = output(GET_RATE, results[0])
        facts = rate and RateFacts(
            rate,
            DECIMALS,
            total_supply_raw=output(TOTAL_SUPPLY, results[1]),
            max_growth_bps_year=self.max_growth_bps_year,
        )
        return FeedContext(now=timestamp, rate=facts or None, locked=self._locked(results))

    def _locked(self, results: Sequence[bytes | None]) -> bool | None:
        """Return whether the probe reverted; None where no vault answered that it is one.

        An address without code refuses nothing and answers nothing, so that the probe alone would call it
        at rest.
        """
        if self.vault is None or output(GET_PROTOCOL_FEES_COLLECTOR, results[3]) is None:
            return None
        return results[2] is None
