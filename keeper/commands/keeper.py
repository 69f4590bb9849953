"""``marginline keeper run``: the loop in its process, with what starts, stops and surrounds it."""

from __future__ import annotations

import contextlib
import functools
import gc
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress, TaskID

from keeper.alerts import Alerts
from keeper.clock import SystemClock
from keeper.commands.console import progress_bar, stderr_console
from keeper.commands.keeper_alerts import AlertListener
from keeper.commands.keeper_log import RunLog, json_line
from keeper.commands.keeper_setup import configured, discoveries_of, load_signer, sender_of
from keeper.compose import Connected, connect
from keeper.config import Mode
from keeper.fees import FeePolicy
from keeper.jobs import Jobs
from keeper.journal import Identity, Journal
from keeper.loop import Emit, Keeper, realised_profit
from keeper.signer import Signer
from keeper.submit import Submitter
from keeper.sync import advance_all

STOP_GRACE_S: Final = 1.5
"""Time that the work in hand has to end in after a request to stop. What is cut off then is what a kill would
cut off at that moment, which the journal is made for."""


class _Overdue(BaseException):
    """The work in hand did not end in time after a request to stop."""


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set.

    The block is left by force at a second signal, or `STOP_GRACE_S` after the first.
    """
    stop = threading.Event()

    def overdue(*_: object) -> None:
        raise _Overdue

    def ask(*_: object) -> None:
        if stop.is_set():
            raise _Overdue
        stop.set()
        signal.setitimer(signal.ITIMER_REAL, STOP_GRACE_S)

    handlers = {signal.SIGINT: ask, signal.SIGTERM: ask, signal.SIGALRM: overdue}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        with contextlib.suppress(_Overdue):
            yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def run(*, config_file: Path, mode: str | None, as_json: bool) -> None:
    """Run the loop until SIGINT or SIGTERM."""
    config = configured(config_file, mode)
    with stop_on_signals() as stop, contextlib.ExitStack() as stack:
        connected = connect(config)
        signer = load_signer(connected) if config.mode is Mode.LIVE else None
        if signer is not None:
            stack.callback(signer.close)
        sender = sender_of(connected)
        identity = Identity(config.chain_id, connected.node.genesis_hash(), sender)
        alerts = stack.enter_context(Alerts.from_config(config, SystemClock(), stream=as_json))
        emit = _listeners(json_line if as_json else _log(connected), AlertListener(alerts))
        journal = stack.enter_context(Journal.open(config.path(config.journal.path), identity))
        keeper = _keeper(connected, journal, signer, emit)
        _first_sync(keeper, connected, as_json)
        keeper.warm_up()
        # What is alive now stays alive. Otherwise the collector looks through all of it from time to time,
        # which takes a tenth of a second, in the middle of a head.
        gc.collect()
        gc.freeze()
        emit("ready", {"mode": config.mode.value, "block": connected.head.number, "sender": sender})
        stack.callback(emit, "stopped", {"mode": config.mode.value})
        stack.enter_context(_periodic_work(keeper, emit))
        keeper.run(stop)


def _listeners(*several: Emit) -> Emit:
    def emit(event: str, fields: Mapping[str, Any]) -> None:
        for listener in several:
            listener(event, fields)

    return emit


def _log(connected: Connected) -> Emit:
    return RunLog(
        stderr_console(),
        SystemClock(),
        {asset.address: asset for asset in connected.tokens},
        base_decimals={market.name: market.base_decimals for market in connected.markets},
    )


def _periodic_work(keeper: Keeper, emit: Emit) -> Jobs:
    """Return the periodic work: it only marks what the head-driven loop shall do, or reads the journal."""
    jobs = Jobs(
        keeper.clock, on_error=lambda name, error: emit("job_failed", {"job": name, "error": str(error)})
    )
    section = keeper.config.jobs

    def report() -> None:
        counts = {state.value: n for state, n in keeper.journal.counts().items() if n}
        borrowers = {name: len(d.borrowers) for name, d in keeper.discoveries.items()}
        emit("report", {"intents": counts, "borrowers": sum(borrowers.values()), "protocols": borrowers})

    jobs.every("audit", section.audit_every_s, keeper.audit_due.set)
    jobs.every("balance", section.balance_every_s, keeper.balance_due.set)
    jobs.every("report", section.report_every_s, report)
    return jobs


def _keeper(
    connected: Connected,
    journal: Journal,
    signer: Signer | None,
    emit: Callable[[str, Mapping[str, Any]], None],
) -> Keeper:
    config = connected.config
    submitter = Submitter(
        journal=journal,
        node=connected.node,
        signer=signer,
        mode=config.mode,
        policy=FeePolicy.from_config(config.fees),
        confirmations=config.execution.confirmations,
        profit_of=realised_profit(config.contracts.liquidator),
    )
    return Keeper(
        config=config,
        node=connected.node,
        markets={market.name: market for market in connected.markets},
        policy=connected.policy(),
        reader=connected.reader(),
        discoveries=discoveries_of(connected, journal),
        submitter=submitter,
        journal=journal,
        clock=SystemClock(),
        emit=emit,
        assets=connected.assets,
    )


def _show(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _first_sync(keeper: Keeper, connected: Connected, as_json: bool) -> None:
    """Fill back to the head, with a progress bar for people."""
    if as_json:
        advance_all(keeper.discoveries, connected.head)
        return
    with progress_bar(stderr_console()) as bar:
        for name, discovery in keeper.discoveries.items():
            task = bar.add_task(f"borrowers of {name}", total=1)
            discovery.advance(connected.head, functools.partial(_show, bar, task))
