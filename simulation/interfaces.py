"""What a protocol, a margin method and a policy must offer. All are pure: bytes and data in, data out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from contracts_abi.calls import Call, Event
from oracle.types import PriceSnapshot
from simulation.types import Asset, Book, LiquidationPlan, MarginReport, Reason, Verdict

M = TypeVar("M")
S = TypeVar("S", contravariant=True)


@runtime_checkable
class ProtocolAdapter(Protocol[M, S]):
    """One lending protocol, sans I/O. `M` is its market state, `S` an account's exact state."""

    @property
    def name(self) -> str:
        """Registry kind, for example ``aave-v3``."""
        ...

    def discovery_events(self) -> tuple[Event, ...]:
        """Return the events that can bring a borrower into being."""
        ...

    def discovered(self, topics: Sequence[bytes], data: bytes) -> str | None:
        """Return the account that a discovery log concerns, or None."""
        ...

    def market_reads(self) -> list[Call[Any]]:
        """Return the reads for the market's state (indices, configuration, prices) at one block."""
        ...

    def decode_market(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> M:
        """Turn the answers into the market's state; raises `DataError` when one is missing."""
        ...

    def account_reads(self, accounts: Sequence[str]) -> list[Call[Any]]:
        """Return the reads for the positions of `accounts` at one block."""
        ...

    def decode_accounts(self, market: M, accounts: Sequence[str], results: Sequence[bytes | None]) -> Book:
        """Turn the answers into a book; an account whose read failed has ``exact`` None."""
        ...

    def prices_base(self, market: M) -> Mapping[str, int]:
        """Return the protocol view: asset symbol to price in base currency, as the contract's oracle says."""
        ...

    def margin(self, market: M, account: S, prices_base: Mapping[str, int]) -> MarginReport:
        """Return the account's margin at `prices_base`, exactly as the contract computes it."""
        ...

    def liquidation_call(self, plan: LiquidationPlan) -> Call[Any]:
        """Return the protocol's own liquidation call for `plan`."""
        ...

    def assets(self, market: M) -> tuple[Asset, ...]:
        """Return the market's assets in reserve order."""
        ...


@runtime_checkable
class MarginMethod(Protocol):
    """A way to compute a margin requirement, for one row of a book, exactly."""

    @property
    def id(self) -> str:
        """Versioned id, for example ``aave-v3.health_factor``."""
        ...

    def report(self, book: Book, row: int, prices: PriceSnapshot) -> MarginReport:
        """Return the margin of `row` at `prices`; `UNKNOWN` when a price it needs is unknown."""
        ...


@runtime_checkable
class Policy(Protocol):
    """Decides what to do with an account from the protocol view, the reference view and the plan."""

    def decide(
        self,
        protocol_margin: MarginReport,
        reference_margin: MarginReport | None,
        plan: LiquidationPlan | None,
        *,
        excess_seizure_bps: int | None,
        no_plan: Reason = Reason.UNPROFITABLE,
    ) -> Verdict:
        """Return the verdict; `simulation.policy.three_price` is the default.

        Parameters
        ----------
        protocol_margin, reference_margin
            The same positions at both views' prices; the latter None without a reference.
        plan
            The best liquidation at executable prices, None when there is none.
        excess_seizure_bps
            What `plan` seizes beyond what the reference prices justify
            (`simulation.policy.excess_seizure_bps`); None when unknown.
        no_plan
            Why `plan` is None.
        """
        ...
