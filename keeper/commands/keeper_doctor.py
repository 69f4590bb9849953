"""``marginline keeper doctor``: everything that a run rests on, checked once and told in one table."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.markup import escape

from contracts_abi.errors import CheckFailed, DataError, MarginlineError
from contracts_abi.liquidator import RECEIVER
from contracts_abi.uniswap_v3 import QUOTE_EXACT_INPUT
from keeper.clock import SystemClock
from keeper.commands.console import plain_table, stdout_console
from keeper.commands.keeper_setup import ZERO_ADDRESS, configured, load_signer, sender_of
from keeper.compose import Connected, connect
from keeper.config import KeeperConfig, Mode, wei_of_eth
from keeper.journal import Identity, Journal, require_same
from keeper.rpc import TxCall
from keeper.view import Views
from simulation.amm.uniswap_v3 import amount_out_exact_in, encode_path
from simulation.types import SwapHop

_QUOTED_PART: Final = 10_000
"""A quoter is asked for a sale of the pool's holdings over this: far from the edge of what is known."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One check, whether it passed, and what was found or what to do."""

    check: str
    ok: bool
    detail: str


def doctor(*, config_file: Path, as_json: bool) -> None:
    """Check everything that a run rests on."""
    config = configured(config_file)
    results = run_checks(config, config_file)
    if as_json:
        print(json.dumps([asdict(result) for result in results]))
    else:
        table = plain_table("", "check", "detail")
        table.columns[2].no_wrap = False
        for result in results:
            table.add_row(
                "[green]ok[/]" if result.ok else "[red]fails[/]", result.check, escape(result.detail)
            )
        stdout_console().print(table)
    broken = [result.check for result in results if not result.ok]
    if broken:
        raise CheckFailed(f"doctor: {', '.join(broken)}")


def run_checks(config: KeeperConfig, config_file: Path) -> list[Checked]:
    """Return what each check found; a check that cannot run because of an earlier one is left out."""
    results: list[Checked] = []

    def check(name: str, probe: Callable[[], str]) -> None:
        try:
            results.append(Checked(name, True, probe()))
        except MarginlineError as error:
            results.append(Checked(name, False, str(error)))

    found: list[Connected] = []
    views: list[Views] = []

    def connection() -> str:
        found.append(connect(config))
        return f"chain {config.chain_id} at {config.rpc_shown}, block {found[0].head.number}"

    def market() -> str:
        # With one account, any one, so that the lens is asked too.
        reads = {market.name: [market.provider] for market in found[0].markets}
        views.append(found[0].reader().read_all(found[0].head, reads))
        return _markets(found[0], views[0])

    check("configuration", lambda: f"{config_file}, mode {config.mode}")
    check("journal file", lambda: _journal(config))
    check("chain and addresses", connection)
    if not found:
        return results
    connected = found[0]
    check("journal's owner", lambda: _journal_owner(connected))
    check("age of the head", lambda: _age(connected))
    check("simulation", lambda: _simulation(connected))
    check("markets" if len(connected.markets) > 1 else "market", market)
    if views:
        quoter = None if config.router is None else config.router.quoter
        check("reference prices", lambda: _references(views[0]))
        if quoter is not None:
            check("quoter", lambda: _quoter(connected, views[0], quoter))
    check("liquidator", lambda: _liquidator(connected))
    check("key", lambda: _key(connected))
    return results


def _age(connected: Connected) -> str:
    limits = connected.config.limits
    if limits.clock == "block":
        return 'not checked: limits.clock = "block"'
    seconds = SystemClock().now() - connected.head.timestamp
    if seconds > limits.max_head_age_s:
        raise CheckFailed(
            f"the newest block is {seconds} s old, limits.max_head_age_s is {limits.max_head_age_s:.0f}",
            fix='wait for the node, or set limits.clock = "block" for a local chain of another day',
        )
    return f"{seconds} s"


def _simulation(connected: Connected) -> str:
    connected.node.simulate([TxCall(ZERO_ADDRESS, ZERO_ADDRESS, b"", 50_000)], connected.head)
    if connected.node.simulate_v1:
        return "eth_simulateV1: a bundle is simulated as one"
    return "eth_call only: each liquidation is simulated alone, without gas"


def _markets(connected: Connected, views: Views) -> str:
    """Say what is there of each market, or what is wrong with any of them."""
    broken = [f"{name}: {why}" for name, why in views.unread.items()]
    for name, view in views.markets.items():
        scale = connected.market(name).base_decimals
        unknown = [asset for asset in view.protocol.prices if view.protocol.price_at(asset, scale) is None]
        if unknown:
            broken.append(f"{name}: the protocol's oracle has no price for {', '.join(unknown)}")
        if not view.book.known[0]:
            broken.append(f"{name}: positions cannot be read")
    if broken:
        raise CheckFailed("; ".join(broken), fix=_UNREAD if "cannot be read" in "".join(broken) else None)
    told = [f"{name}: {len(view.protocol.prices)} assets priced" for name, view in views.markets.items()]
    pools = max(len(view.pools) for view in views.markets.values())
    return f"{'; '.join(told)}; {pools} pools"


_UNREAD: Final = "set contracts.multicall, or use a node with state overrides"


def _references(views: Views) -> str:
    reference = next(iter(views.markets.values())).reference
    doubts = [f"{asset}: {'; '.join(p.reasons)}" for asset, p in reference.prices.items() if p.reasons]
    symbols = dict.fromkeys(symbol for view in views.markets.values() for symbol in view.protocol.prices)
    without = [symbol for symbol in symbols if symbol not in reference.prices]
    if without:
        doubts.append(f"no reference for {', '.join(without)}: accounts that need one are unknown")
    if doubts:
        raise CheckFailed("; ".join(doubts))
    return f"{len(reference.prices)} assets have a reference that stands"


def _quoter(connected: Connected, views: Views, quoter: str) -> str:
    """Compare our own arithmetic of one sale in each pool with the quoter's."""
    pools = next(iter(views.markets.values())).pools
    for pool in pools.values():
        key = pool.key
        if not pool.liquidity:
            continue
        hop = SwapHop(key.address, key.token0, key.token1, key.fee_pips)
        amount = max(pool.liquidity * 2**96 // pool.sqrt_price_x96 // _QUOTED_PART, 1)
        ours = amount_out_exact_in(pools, (hop,), amount)
        call = QUOTE_EXACT_INPUT.call(quoter, encode_path((hop,)), amount)
        (answer,) = connected.node.read([call], views.head)
        if answer is None:
            raise CheckFailed(f"router.quoter: {quoter} refuses a quote in pool {key.address}")
        theirs = call.decode(answer)[0]
        if theirs != ours:
            raise CheckFailed(f"pool {key.address}: the quoter says {theirs}, we say {ours}")
    return f"{len(pools)} pools quoted alike"


def _liquidator(connected: Connected) -> str:
    liquidator = connected.config.contracts.liquidator
    if liquidator is None:
        return _not_needed(connected.config, "contracts.liquidator", (Mode.OBSERVE,))
    (answer,) = connected.node.read([RECEIVER.call(liquidator)], connected.head)
    if answer is None:
        raise DataError(f"contracts.liquidator: {liquidator} does not tell its receiver")
    return f"{liquidator}, profits go to {RECEIVER.decode_one(answer)}"


def _key(connected: Connected) -> str:
    config = connected.config
    if config.signer is None:
        return _not_needed(config, "[signer]", (Mode.OBSERVE, Mode.DRY_RUN))
    # Shared: the keeper that this is about may be running.
    signer = load_signer(connected, exclusive=False)
    address = signer.address
    signer.close()
    sender = connected.node.tick(address).sender
    balance_wei = 0 if sender is None else sender.balance_wei
    text = f"{address} has {balance_wei / 1e18:.4f} of the chain's coin"
    if balance_wei < wei_of_eth(config.limits.min_balance_eth):
        raise CheckFailed(f"{text}, limits.min_balance_eth is {config.limits.min_balance_eth}", fix="fund it")
    return text


def _not_needed(config: KeeperConfig, what: str, without: Sequence[Mode]) -> str:
    """Say that something is not configured, which only the modes `without` it can do."""
    if config.mode not in without:
        raise CheckFailed(f"mode {config.mode} needs {what}", fix="marginline keeper init --deploy writes it")
    return f"no {what}; mode {config.mode} needs none"


def _journal(config: KeeperConfig) -> str:
    path = config.path(config.journal.path)
    if not path.exists():
        return f"{path}: none yet, the first run creates it"
    with Journal.read_only(path) as opened:
        counts = ", ".join(f"{n} {state}" for state, n in opened.counts().items() if n)
        return f"{path}: {counts or 'no intents'}"


def _journal_owner(connected: Connected) -> str:
    path = connected.config.path(connected.config.journal.path)
    if not path.exists():
        return "no journal yet"
    mine = Identity(connected.config.chain_id, connected.node.genesis_hash(), sender_of(connected))
    with Journal.read_only(path) as opened:
        require_same(path, opened.identity, mine)
    return f"this chain, sender {mine.sender}"
