"""The figures that a demo record comes down to; the report and the terminal show the same ones."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from simulation.report.record import DemoRecord, FaultWindow, LeftRow, LiquidationRow, by_reason
from simulation.types import Reason


@dataclass(frozen=True, slots=True)
class Move:
    """How the market price of one token went. Prices are USD at 1e8."""

    symbol: str
    first_e8: int
    low_e8: int
    last_e8: int

    @property
    def drawdown(self) -> float:
        """Lowest price over first price, less one: -0.49 is a fall by 49 %."""
        return self.low_e8 / self.first_e8 - 1


@dataclass(frozen=True, slots=True)
class FaultFinding:
    """What one fault did, while it lasted.

    Attributes
    ----------
    window
        The fault.
    worst_gap_bps
        Largest gap of the protocol's price to the reference, signed, 1e-4 of the reference; None when no
        block in the window has both prices.
    liquidatable_max, liquidatable_at_reference_max
        Most accounts liquidatable in one block of the window, at either view; None without a reference.
    held, armed
        Accounts held back because the protocol's price was wrongly low, and accounts armed because it was
        stale above the reference, in the blocks of the window.
    """

    window: FaultWindow
    worst_gap_bps: int | None
    liquidatable_max: int
    liquidatable_at_reference_max: int | None
    held: int
    armed: int


@dataclass(frozen=True, slots=True)
class Summary:
    """A demo in figures. `_e8` is USD at 1e8.

    Attributes
    ----------
    liquidations, partial, accounts_liquidated, blocks_with_liquidations
        Counts.
    debt_repaid_e8, profit_e8, gas_e8, net_e8
        Sums over liquidations: profit before gas, gas, and what is left of it.
    slip_median_bps, slip_worst_bps
        Realised against simulated profit, 1e-4 of the simulated; None without a liquidation.
    resimulated, resimulated_equal
        Liquidations re-simulated in actual block order, and how many of them agree to the unit.
    left
        Accounts left alone by reason.
    moves
        Market prices by token, in the record's order.
    faults
        What each fault did.
    base_fee_max_wei
        Highest base fee.
    """

    liquidations: int
    partial: int
    accounts_liquidated: int
    blocks_with_liquidations: int
    debt_repaid_e8: int
    profit_e8: int
    gas_e8: int
    net_e8: int
    slip_median_bps: float | None
    slip_worst_bps: float | None
    resimulated: int
    resimulated_equal: int
    left: Mapping[Reason, int]
    moves: tuple[Move, ...]
    faults: tuple[FaultFinding, ...]
    base_fee_max_wei: int


def summarise(record: DemoRecord) -> Summary:
    """Return the figures of `record`."""
    rows = record.liquidations
    slips = [
        (r.profit_realised_raw / r.profit_simulated_raw - 1) * 10_000
        for r in rows
        if r.profit_simulated_raw > 0
    ]
    resimulated = [r for r in rows if r.profit_resimulated_raw is not None]
    return Summary(
        liquidations=len(rows),
        partial=sum(not r.full for r in rows),
        accounts_liquidated=len({(r.protocol, r.account) for r in rows}),
        blocks_with_liquidations=len({r.block for r in rows}),
        debt_repaid_e8=sum(r.debt_covered_usd_e8 for r in rows),
        profit_e8=sum(r.profit_usd_e8 for r in rows),
        gas_e8=sum(r.gas_usd_e8 for r in rows),
        net_e8=sum(r.net_usd_e8 for r in rows),
        slip_median_bps=median(slips) if slips else None,
        slip_worst_bps=min(slips) if slips else None,
        resimulated=len(resimulated),
        resimulated_equal=sum(r.profit_resimulated_raw == r.profit_realised_raw for r in resimulated),
        left=by_reason(record.accounts_left),
        moves=tuple(m for s in record.assets if (m := _move(record, s)) is not None),
        faults=tuple(_fault_finding(record, window) for window in record.faults),
        base_fee_max_wei=max((b.base_fee_wei for b in record.blocks), default=0),
    )


def _move(record: DemoRecord, symbol: str) -> Move | None:
    prices = [p for b in record.blocks if (p := b.market_e8.get(symbol)) is not None]
    return Move(symbol, prices[0], min(prices), prices[-1]) if prices else None


def _fault_finding(record: DemoRecord, window: FaultWindow) -> FaultFinding:
    blocks = [b for b in record.blocks if window.start <= b.timestamp < window.end]
    gaps = [
        (protocol - reference) * 10_000 // reference
        for b in blocks
        for symbol in window.assets
        if (protocol := b.protocol_e8.get(symbol)) is not None
        and (reference := b.reference_e8.get(symbol)) is not None
    ]
    numbers = range(blocks[0].number, blocks[-1].number + 1) if blocks else range(0)
    at_reference = [n for b in blocks if (n := b.liquidatable_at_reference) is not None]
    return FaultFinding(
        window=window,
        worst_gap_bps=max(gaps, key=abs) if gaps else None,
        liquidatable_max=max((b.liquidatable for b in blocks), default=0),
        liquidatable_at_reference_max=max(at_reference, default=None),
        held=_accounts_with(record.accounts_left, Reason.PROTOCOL_PRICE_LOW, numbers),
        armed=_accounts_with(record.accounts_left, Reason.PROTOCOL_PRICE_STALE_HIGH, numbers),
    )


def _accounts_with(rows: Sequence[LeftRow], reason: Reason, blocks: range) -> int:
    """Count the accounts that had `reason` in any of `blocks`."""
    if not blocks:
        return 0
    return len(
        {
            (r.protocol, r.account)
            for r in rows
            if r.reason is reason and r.first_block <= blocks[-1] and r.last_block >= blocks[0]
        }
    )


@dataclass(frozen=True, slots=True)
class Episode:
    """One chapter of an account's story: a liquidation, or a time of being left alone.

    Attributes
    ----------
    reason
        `Reason.LIQUIDATE`, or why it was left alone.
    first_block, last_block
        When.
    text
        One line for people.
    """

    reason: Reason
    first_block: int
    last_block: int
    text: str


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that happened to one account in one market, in order."""

    account: str
    episodes: tuple[Episode, ...]
    protocol: str = ""

    @property
    def outcome(self) -> Reason:
        """The episode that counts: a liquidation, else the least ordinary reason."""
        return min((e.reason for e in self.episodes), key=_rank)


# What people call each reason, from what a reader looks for first to what needs no look.
REASON_WORDS: dict[Reason, str] = {
    Reason.LIQUIDATE: "liquidated",
    Reason.PROTOCOL_PRICE_LOW: "held: price wrongly low",
    Reason.PROTOCOL_PRICE_STALE_HIGH: "armed: price stale high",
    Reason.UNPROFITABLE: "unprofitable",
    Reason.NO_COLLATERAL: "nothing left to take",
    Reason.NO_ROUTE: "no route",
    Reason.SIMULATION_FAILED: "simulation failed",
    Reason.REFERENCE_UNKNOWN: "no reference",
    Reason.PROTOCOL_UNKNOWN: "protocol price unknown",
    Reason.ACCOUNT_UNKNOWN: "account unknown",
    Reason.LIMIT: "limit reached",
    Reason.DUPLICATE: "already in flight",
    Reason.PAUSED: "paused",
    Reason.OBSERVE_ONLY: "observe only",
    Reason.HEALTHY: "healthy",
    Reason.NO_DEBT: "no debt",
}
FAULT_WORDS = {"freeze": "frozen", "scale": "misprints"}
_RANK = {reason: i for i, reason in enumerate(REASON_WORDS)}


def _rank(reason: Reason) -> int:
    return _RANK[reason]


def in_order(reasons: Iterable[Reason]) -> list[Reason]:
    """Return the distinct `reasons`, from what a reader looks for first to what needs no look."""
    return sorted(set(reasons), key=_rank)


def stories(record: DemoRecord) -> tuple[Story, ...]:
    """Return one story for each account and market that the record names, the least ordinary first."""
    episodes: dict[tuple[str, str], list[Episode]] = {}
    for row in record.liquidations:
        episode = Episode(Reason.LIQUIDATE, row.block, row.block, _liquidation_text(record, row))
        episodes.setdefault((row.protocol, row.account), []).append(episode)
    for left in record.accounts_left:
        episode = Episode(left.reason, left.first_block, left.last_block, left.detail)
        episodes.setdefault((left.protocol, left.account), []).append(episode)
    out = [
        Story(account, tuple(sorted(parts, key=lambda e: (e.first_block, _rank(e.reason)))), protocol)
        for (protocol, account), parts in episodes.items()
    ]
    return tuple(sorted(out, key=lambda s: (_rank(s.outcome), s.episodes[0].first_block, s.account)))


def _liquidation_text(record: DemoRecord, row: LiquidationRow) -> str:
    repaid = row.debt_covered_raw / 10 ** record.assets[row.debt].decimals
    seized = row.seized_raw / 10 ** record.assets[row.collateral].decimals
    extent = "all" if row.full else "part"
    return (
        f"{extent} of the debt: {repaid:,.2f} {row.debt} repaid, {seized:,.4f} {row.collateral} taken, "
        f"{usd(row.net_usd_e8)} after gas"
    )


def protocol_price_at(record: DemoRecord, symbol: str, block: int) -> int | None:
    """Return the protocol's price at `block`, or at the last recorded block before it, USD at 1e8."""
    numbers = [b.number for b in record.blocks]
    i = bisect.bisect_right(numbers, block) - 1
    return record.blocks[i].protocol_e8.get(symbol) if i >= 0 else None


def price(value_e8: int) -> str:
    """Return a price for people: cents below 1,000 dollars."""
    value = value_e8 / 1e8
    return f"${value:,.2f}" if value < 1_000 else f"${value:,.0f}"


def usd(value_e8: int) -> str:
    """Return an amount for people: cents below 100 dollars, millions from a million on."""
    if value_e8 == 0:
        return "$0"
    value = value_e8 / 1e8
    size, sign = abs(value), "−" if value < 0 else ""
    if size >= 999_500:
        return f"{sign}${size / 1e6:,.2f} M"
    return f"{sign}${size:,.0f}" if size >= 100 else f"{sign}${size:,.2f}"


def minus(text: str) -> str:
    """Set a minus sign where a number has a hyphen."""
    return text.replace("-", "−")
