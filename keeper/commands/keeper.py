"""``marginline keeper scan|explain|run|journal|doctor``; `init` stands in `keeper_init`."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from contracts_abi.errors import CheckFailed, InputError, MarginlineError
from contracts_abi.liquidator import OWNER, POOL, RECEIVER
from keeper.clock import SystemClock
from keeper.commands.console import progress_bar, stderr_console
from keeper.commands.keeper_init import address_option, init
from keeper.compose import Connected, connect
from keeper.config import KeeperConfig, Mode, load_config
from keeper.decide import Decision, decide, margin_line
from keeper.fees import FeePolicy, market_fees
from keeper.jobs import Jobs
from keeper.journal import Identity, Journal
from keeper.loop import Emit, Keeper, plan_settings, realised_profit
from keeper.signer import Signer
from keeper.submit import Submitter
from keeper.sync import Discovery, MemoryScanStore
from keeper.view import HeadView
from simulation.types import Reason, Verdict

__all__ = ["doctor", "explain", "init", "journal", "run", "scan"]

ZERO_ADDRESS = "0x" + "00" * 20
_LADDER = (Mode.OBSERVE, Mode.DRY_RUN, Mode.LIVE)
_COLOURS = {"act": "green", "arm": "yellow", "hold": "red", "leave": "default"}


def _config(path: Path, mode: str | None = None) -> KeeperConfig:
    config = load_config(path)
    if mode is None:
        return config
    try:
        wanted = Mode(mode)
    except ValueError:
        raise InputError(f"--mode: {mode!r} is not a mode", fix="observe, dry-run or live") from None
    if _LADDER.index(wanted) > _LADDER.index(config.mode):
        raise InputError(
            f"--mode {wanted} goes beyond mode = {config.mode.value!r} in {path}", fix="change the file"
        )
    return config.model_copy(update={"mode": wanted})


def _sender(connected: Connected) -> str:
    """Return the owner of our contract, who is the sender of a simulation; nobody without a contract."""
    liquidator = connected.config.contracts.liquidator
    if liquidator is None:
        return ZERO_ADDRESS
    (answer,) = connected.node.read([OWNER.call(liquidator)], connected.head)
    if answer is None:
        raise InputError(f"contracts.liquidator: {liquidator} is not our Liquidator", fix="check the address")
    return str(OWNER.decode_one(answer))


def _signer(connected: Connected) -> Signer | None:
    section = connected.config.signer
    if connected.config.mode is not Mode.LIVE:
        return None
    if section is None or connected.config.contracts.liquidator is None:
        missing = "[signer]" if section is None else "contracts.liquidator"
        raise InputError(f"mode live needs {missing}", fix="marginline keeper init --deploy writes both")
    password = connected.config.secret(section.password, "signer.password")
    keystore = connected.config.path(section.keystore_file)
    signer = Signer.load(keystore, password, chain_id=connected.config.chain_id)
    owner = _sender(connected)
    if owner != signer.address:
        raise InputError(
            f"contracts.liquidator belongs to {owner}, the key is {signer.address}",
            fix="use its owner's key, or deploy one for this key",
        )
    return signer


# ------------------------------------------------------------------------------------------------------- run


def run(*, config_file: Path, mode: str | None, as_json: bool) -> None:
    """Run the loop until SIGINT or SIGTERM."""
    connected = connect(_config(config_file, mode))
    config = connected.config
    signer = _signer(connected)
    sender = _sender(connected) if signer is None else signer.address
    identity = Identity(config.chain_id, connected.node.genesis_hash(), sender)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    emit = _json_line if as_json else _log_line(stderr_console())
    with Journal.open(config.path(config.journal.path), identity) as journal:
        keeper = _keeper(connected, journal, signer, emit)
        _first_sync(keeper, connected, as_json)
        keeper.warm_up()
        emit("ready", {"mode": config.mode.value, "block": connected.head.number, "sender": sender})
        with _periodic_work(keeper, emit):
            keeper.run(stop)
        emit("stopped", {"mode": config.mode.value})
    if signer is not None:
        signer.close()


def _periodic_work(keeper: Keeper, emit: Emit) -> Jobs:
    """Return the periodic work: it only marks what the head-driven loop shall do, or reads the journal."""
    jobs = Jobs(
        keeper.clock, on_error=lambda name, error: emit("job_failed", {"job": name, "error": str(error)})
    )
    section = keeper.config.jobs

    def report() -> None:
        counts = {state.value: n for state, n in keeper.journal.counts().items() if n}
        emit("report", {"intents": counts, "borrowers": len(keeper.discovery.borrowers)})

    jobs.every("audit", section.audit_every_s, keeper.audit_due.set)
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
        adapter=connected.adapter,
        policy=connected.policy(),
        reader=connected.reader(),
        discovery=_discovery(connected, journal),
        submitter=submitter,
        journal=journal,
        clock=SystemClock(),
        emit=emit,
        assets=connected.assets,
    )


def _discovery(connected: Connected, store: Any) -> Discovery:
    return Discovery(
        connected.node,
        store,
        connected.adapter,
        connected.adapter.layout.pool,
        from_block=connected.protocol.from_block,
        range_blocks=connected.config.rpc.logs_range_blocks,
    )


def _first_sync(keeper: Keeper, connected: Connected, as_json: bool) -> None:
    """Fill back to the head, with a progress bar for people."""
    if as_json:
        keeper.discovery.advance(connected.head)
        return
    with progress_bar(stderr_console()) as bar:
        task = bar.add_task("borrowers", total=1)
        keeper.discovery.advance(
            connected.head, lambda done, total: bar.update(task, completed=done, total=total)
        )


def _json_line(event: str, fields: Mapping[str, Any]) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def _log_line(console: Console) -> Callable[[str, Mapping[str, Any]], None]:
    def emit(event: str, fields: Mapping[str, Any]) -> None:
        text = "  ".join(f"{key}={value}" for key, value in fields.items())
        console.log(f"[bold]{event:<12}[/] {text}", highlight=False)

    return emit


# ------------------------------------------------------------------------------------------------ one look


def _look(connected: Connected) -> tuple[HeadView, Decision]:
    """Read the head once and decide on every borrower, without writing anything."""
    config = connected.config
    store = MemoryScanStore()
    path = config.path(config.journal.path)
    if path.exists():
        with Journal.read_only(path) as known:
            store = MemoryScanStore.of(known, connected.adapter.name)
    discovery = _discovery(connected, store)
    discovery.advance(connected.head)
    view = connected.reader().read(connected.head, discovery.borrowers)
    tick = connected.node.tick()
    gas_price_wei = (
        tick.fees.next_base_fee_wei
        + market_fees(tick.fees, FeePolicy.from_config(config.fees)).priority_fee_wei
    )
    settings = plan_settings(config, connected.assets, gas_price_wei)
    decision = decide(
        view,
        connected.adapter,
        connected.policy(),
        settings,
        next_timestamp=view.head.timestamp,
        every=True,
    )
    return view, decision


def scan(*, config_file: Path, list_all: bool, as_json: bool) -> None:
    """List what the policy would do with every borrower."""
    connected = connect(_config(config_file))
    view, decision = _look(connected)
    healthy = {Reason.HEALTHY, Reason.NO_DEBT}
    shown = [v for v in decision.verdicts if list_all or v.reason not in healthy]
    if as_json:
        print(
            json.dumps(
                {
                    "block": view.head.number,
                    "borrowers": len(view.book),
                    "verdicts": [_verdict_json(v) for v in shown],
                    "plans": [_plan_json(p) for p in decision.plans],
                }
            )
        )
        return
    table = Table(
        title=f"block {view.head.number}: {len(view.book)} borrowers, {len(shown)} shown",
        title_justify="left",
    )
    for column in ("account", "action", "reason", "health (protocol)", "health (reference)", "detail"):
        table.add_column(column)
    for verdict in sorted(shown, key=lambda v: v.protocol_margin.health_factor_wad or 0):
        colour = _COLOURS[verdict.action.value]
        table.add_row(
            verdict.account,
            f"[{colour}]{verdict.action.value}[/]",
            verdict.reason.value,
            margin_line(verdict.protocol_margin),
            margin_line(verdict.reference_margin),
            verdict.detail,
        )
    Console().print(table)


def explain(account: str, *, config_file: Path, as_json: bool) -> None:
    """Explain one account."""
    connected = connect(_config(config_file))
    address = address_option(account, "ACCOUNT")
    view, decision = _look(connected)
    verdict = next((v for v in decision.verdicts if v.account == address), None)
    if verdict is None:
        raise InputError(
            f"{address} never borrowed from {connected.adapter.layout.pool} up to block {view.head.number}",
            fix="check the address, and protocols.from_block",
        )
    plan = next((p for p in decision.plans if p.account == address), None)
    positions = _positions(view, address)
    if as_json:
        record = {
            "block": view.head.number,
            **_verdict_json(verdict),
            "positions": positions,
            "prices": _prices_json(view),
            "plan": None if plan is None else _plan_json(plan),
        }
        print(json.dumps(record))
        return
    console = Console()
    console.print(
        f"[bold]{address}[/] at block {view.head.number}: "
        f"[bold]{verdict.action.value}[/], {verdict.reason.value}"
    )
    console.print(f"  {verdict.detail}")
    table = Table("position", "asset", "amount", "protocol price", "reference price")
    for position in positions:
        symbol = position["asset"]
        prices = _prices_json(view).get(symbol, {})
        table.add_row(
            position["kind"],
            symbol,
            f"{position['amount']:,.6f}",
            _dollars(prices.get("protocol_e8")),
            _dollars(prices.get("reference_e8")),
        )
    console.print(table)
    for asset, price in view.reference.prices.items():
        for reason in price.reasons:
            console.print(f"  reference {asset}: [red]{reason}[/]")
    if plan is not None:
        console.print(f"  plan: {json.dumps(_plan_json(plan))}", highlight=False)


def _dollars(price_e8: int | None) -> str:
    return "unknown" if price_e8 is None else f"{price_e8 / 1e8:,.4f}"


def _positions(view: HeadView, account: str) -> list[dict[str, Any]]:
    book = view.book
    row = list(book.accounts).index(account)
    return [
        {
            "kind": "debt" if book.kind[i] == 1 else "collateral",
            "asset": book.assets[book.asset[i]].symbol,
            "amount": float(book.amount[i]),
            "weight": float(book.weight[i]),
        }
        for i in range(int(book.row_ptr[row]), int(book.row_ptr[row + 1]))
    ]


def _prices_json(view: HeadView) -> dict[str, dict[str, int | None]]:
    return {
        asset.symbol: {
            "protocol_e8": view.protocol.price_e8(asset.symbol),
            "reference_e8": view.reference.price_e8(asset.symbol),
        }
        for asset in view.book.assets
    }


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    reference = verdict.reference_margin
    return {
        "account": verdict.account,
        "action": verdict.action.value,
        "reason": verdict.reason.value,
        "status": verdict.protocol_margin.status.value,
        "health_factor_wad": _text(verdict.protocol_margin.health_factor_wad),
        "reference_health_factor_wad": None if reference is None else _text(reference.health_factor_wad),
        "detail": verdict.detail,
    }


def _text(value: int | None) -> str | None:
    # JSON numbers lose digits beyond 2**53 in most readers.
    return None if value is None else str(value)


def _plan_json(plan: Any) -> dict[str, Any]:
    return {
        k: str(v) if isinstance(v, int) and not isinstance(v, bool) else v for k, v in asdict(plan).items()
    }


# ---------------------------------------------------------------------------------------- journal, doctor


def journal(*, config_file: Path, decisions: bool, account: str | None, as_json: bool) -> None:
    """List intents or decisions."""
    config = _config(config_file)
    only = None if account is None else address_option(account, "--account")
    with Journal.read_only(config.path(config.journal.path)) as opened:
        if decisions:
            _print_decisions(opened, only, as_json)
        else:
            _print_intents(opened, only, as_json)


def _print_decisions(opened: Journal, account: str | None, as_json: bool) -> None:
    entries = opened.decisions(account)
    if as_json:
        print(json.dumps([asdict(e) | {"health_factor_wad": _text(e.health_factor_wad)} for e in entries]))
        return
    table = Table("block", "account", "action", "reason", "detail", title="decisions", title_justify="left")
    for entry in entries:
        table.add_row(str(entry.block), entry.account, entry.action, entry.reason, entry.detail)
    Console().print(table)


def _print_intents(opened: Journal, account: str | None, as_json: bool) -> None:
    intents = [i for i in opened.intents() if account in (None, i.account)]
    attempts = opened.attempts([i.intent_id for i in intents])
    rows = []
    for intent in intents:
        receipt = opened.receipt(intent.intent_id)
        rows.append(
            {
                "intent": intent.intent_id,
                "state": intent.state.value,
                "account": intent.account,
                "nonce": intent.nonce,
                "decided_block": intent.decided_block,
                "attempts": len(attempts.get(intent.intent_id, [])),
                "mined_block": None if receipt is None else receipt.block,
                "simulated_profit_raw": str(intent.simulated_profit_raw),
                "realised_profit_raw": None if receipt is None else _text(receipt.realised_profit_raw),
                "note": intent.note,
            }
        )
    if as_json:
        counts = {state.value: n for state, n in opened.counts().items()}
        print(json.dumps({"counts": counts, "intents": rows}))
        return
    table = Table(*(rows[0] if rows else ("intents",)), title="intents", title_justify="left")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table)


def doctor(*, config_file: Path, as_json: bool) -> None:
    """Check everything that a run rests on."""
    results: list[dict[str, Any]] = []

    def check(name: str, probe: Callable[[], str]) -> None:
        try:
            results.append({"check": name, "ok": True, "detail": probe()})
        except MarginlineError as error:
            results.append({"check": name, "ok": False, "detail": str(error)})

    config = _config(config_file)
    connections: list[Connected] = []

    def probe_connection() -> str:
        connections.append(connect(config))
        return f"chain {config.chain_id}, block {connections[0].head.number}"

    check("configuration", lambda: f"{config_file}, mode {config.mode}")
    check("chain and addresses", probe_connection)
    if connections:
        _doctor_connected(connections[0], check)
    check("journal", lambda: _journal_state(config))
    if as_json:
        print(json.dumps(results))
    else:
        table = Table("", "check", "detail")
        for result in results:
            mark = "[green]ok[/]" if result["ok"] else "[red]fails[/]"
            table.add_row(mark, result["check"], result["detail"])
        Console().print(table)
    broken = [r["check"] for r in results if not r["ok"]]
    if broken:
        raise CheckFailed(f"doctor: {', '.join(broken)}")


def _doctor_connected(connected: Connected, check: Callable[[str, Callable[[], str]], None]) -> None:
    def age() -> str:
        seconds = SystemClock().now() - connected.head.timestamp
        limit = connected.config.limits.max_head_age_s
        if seconds > limit:
            raise CheckFailed(f"the newest block is {seconds} s old, limits.max_head_age_s is {limit:.0f}")
        return f"{seconds} s"

    def market() -> str:
        view = connected.reader().read(connected.head, ())
        unknown = view.protocol.unknown()
        if unknown:
            raise CheckFailed(f"the protocol's oracle has no price for {', '.join(unknown)}")
        return f"{len(view.protocol.prices)} assets priced, {len(view.pools)} pools"

    def reference() -> str:
        view = connected.reader().read(connected.head, ())
        reasons = [
            f"{asset}: {'; '.join(p.reasons)}" for asset, p in view.reference.prices.items() if p.reasons
        ]
        without = [s for s in view.protocol.prices if s not in view.reference.prices]
        if reasons or without:
            lacking = [f"no reference for {', '.join(without)}"] if without else []
            raise CheckFailed("; ".join([*reasons, *lacking]))
        return f"{len(view.reference.prices)} assets have a reference that stands"

    def key() -> str:
        live = connected.config.model_copy(update={"mode": Mode.LIVE})
        signer = _signer(Connected(live, connected.node, connected.head, connected.adapter, (), ()))
        assert signer is not None
        tick = connected.node.tick(signer.address)
        signer.close()
        assert tick.sender is not None
        return f"{signer.address}, {tick.sender.balance_wei / 1e18:.4f} of the chain's coin"

    def contract() -> str:
        liquidator = connected.config.contracts.liquidator
        if liquidator is None:
            raise CheckFailed("no contracts.liquidator: the keeper can only observe")
        pool, receiver = connected.node.read(
            [POOL.call(liquidator), RECEIVER.call(liquidator)], connected.head
        )
        if pool is None or receiver is None or POOL.decode_one(pool) != connected.adapter.layout.pool:
            raise CheckFailed(f"contracts.liquidator {liquidator} is not ours, or of another pool")
        return f"{liquidator}, profits go to {RECEIVER.decode_one(receiver)}"

    check("age of the head", age)
    check("market", market)
    check("reference prices", reference)
    check("liquidator", contract)
    check("key", key)


def _journal_state(config: KeeperConfig) -> str:
    path = config.path(config.journal.path)
    if not path.exists():
        return f"{path}: none yet"
    with Journal.read_only(path) as opened:
        counts = {state.value: n for state, n in opened.counts().items() if n}
        return f"{path}: {counts or 'empty'}"
