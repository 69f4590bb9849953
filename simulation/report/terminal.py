"""The demo in the terminal: the report's headline figures as a few tables."""

from __future__ import annotations

from datetime import UTC, datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simulation.report.record import DemoRecord
from simulation.report.summary import (
    FAULT_WORDS,
    REASON_WORDS,
    FaultFinding,
    Summary,
    in_order,
    minus,
    price,
    summarise,
    usd,
)


def print_demo(record: DemoRecord, console: Console) -> None:
    """Print `record` as tables: headline, faults, accounts left alone, checks; the verdict comes last."""
    summary = summarise(record)
    console.print(Text(record.scenario_title, style="bold"))
    console.print(_headline(record, summary))
    tables = [_left(summary), _checks(record)]
    if len(record.protocols) > 1:
        tables.insert(0, _markets(record))
    if summary.faults:
        tables.insert(0, _faults(summary.faults))
    for table in tables:
        console.print()
        console.print(table)
    for name, invariant in record.invariants.items():
        for case in invariant.broken[:5]:
            console.print(Text(f"  {name}: {case}", style="red"))
    console.print()
    console.print(_verdict(record))


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def _headline(record: DemoRecord, summary: Summary) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for move in summary.moves:
        if move.drawdown < -0.05:
            fall = f"{price(move.first_e8)} to {price(move.low_e8)} ({move.drawdown:.0%})"
            table.add_row(f"market, {move.symbol}", minus(fall))
    table.add_row("accounts, blocks", f"{record.accounts:,}, {len(record.blocks)}")
    table.add_row(
        "liquidations",
        f"{summary.liquidations} ({summary.partial} partial) of {summary.accounts_liquidated} accounts "
        f"in {summary.blocks_with_liquidations} blocks, {usd(summary.debt_repaid_e8)} repaid",
    )
    table.add_row(
        "keeper's profit",
        f"{usd(summary.net_e8)} = {usd(summary.profit_e8)} less {usd(summary.gas_e8)} gas "
        f"(base fee up to {summary.base_fee_max_wei / 1e9:.0f} gwei)",
    )
    if summary.slip_median_bps is not None and summary.slip_worst_bps is not None:
        slip = f"{summary.slip_median_bps:+.1f} bps in the median, {summary.slip_worst_bps:+.1f} bps at worst"
        table.add_row("against simulated", minus(slip))
    table.add_row("bad debt left", usd(record.bad_debt_base))
    table.add_row("cost of waiting", f"{usd(record.cost_of_waiting_base)}, {len(record.waiting)} accounts")
    states = ", ".join(f"{n} {state}" for state, n in record.journal.by_state.items())
    journal = f"{record.journal.intents} intents, {record.journal.attempts} signed transactions"
    table.add_row("journal", f"{journal}; {states}" if states else journal)
    return table


def _faults(findings: tuple[FaultFinding, ...]) -> Table:
    table = _table("Feeds at fault, on purpose")
    for name in ("feed", "when"):
        table.add_column(name, overflow="fold")
    # Figures stay whole: where a line has no room for all, words are broken.
    for name in ("gap", "due by\nprotocol", "due by\nreference", "held", "armed"):
        table.add_column(name, justify="right", no_wrap=True)
    for f in findings:
        table.add_row(
            f"{f.window.feed} {FAULT_WORDS.get(f.window.op, f.window.op)}",
            f"{_hour(f.window.start)} to {_hour(f.window.end)}",
            "unknown" if f.worst_gap_bps is None else minus(f"{f.worst_gap_bps / 100:+.1f} %"),
            str(f.liquidatable_max),
            "unknown" if f.liquidatable_at_reference_max is None else str(f.liquidatable_at_reference_max),
            str(f.held),
            str(f.armed),
        )
    return table


def _markets(record: DemoRecord) -> Table:
    table = _table("By market")
    table.add_column("market", no_wrap=True)
    for name in ("borrow", "liquidated", "repaid", "net", "bad debt"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for name, of in record.protocols.items():
        table.add_row(
            name,
            str(of.borrowers),
            f"{of.liquidations} of {of.accounts_liquidated}",
            usd(of.debt_covered_usd_e8),
            usd(of.profit_usd_e8 - of.gas_usd_e8),
            usd(of.bad_debt_base),
            _sign(all(invariant.ok for invariant in of.invariants.values())),
        )
    return table


def _left(summary: Summary) -> Table:
    table = _table("Accounts left alone, at some time, by reason")
    table.add_column("reason")
    table.add_column("code", style="dim", overflow="fold")
    table.add_column("accounts", justify="right", no_wrap=True)
    for reason in in_order(summary.left):
        table.add_row(REASON_WORDS[reason], reason.value, str(summary.left[reason]))
    return table


def _checks(record: DemoRecord) -> Table:
    table = _table("Checks of the verifier")
    table.add_column("")
    table.add_column("check")
    table.add_column("checked", justify="right", no_wrap=True)
    for invariant in record.invariants.values():
        table.add_row(_sign(invariant.ok), invariant.description, f"{invariant.checked:,}")
    identity = record.identity
    table.add_row(
        _sign(identity.runtime_equal),
        f"{identity.contract} is the artifact of {identity.package}, byte for byte",
        f"{len(identity.filled)} filled",
    )
    return table


def _sign(ok: bool) -> Text:
    return Text("✓", style="green") if ok else Text("✗", style="bold red")


def _verdict(record: DemoRecord) -> Text:
    if record.passed:
        return Text(f"all {len(record.invariants) + 1} checks hold", style="bold green")
    return Text(f"{record.checks_broken} of {len(record.invariants) + 1} checks broken", style="bold red")


def _hour(t: int) -> str:
    return datetime.fromtimestamp(t, UTC).strftime("%H:%M")
