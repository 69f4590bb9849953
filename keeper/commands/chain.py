"""``marginline setup`` and ``marginline chain``."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from keeper import __version__
from keeper.commands.console import progress_bar, stderr_console
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.fork import fork as fork_chain
from simulation.chain.market import Deployment
from simulation.chain.seed import load_or_build
from simulation.chain.toolchain import cache_dir, ensure_toolchain


def setup_toolchain() -> None:
    """Install node and artifacts, or say that they are there."""
    console = stderr_console()
    with console.status("local chain and protocol artifacts"):
        ensure_toolchain(lambda text: console.log(text))
    console.print(f"ready: {cache_dir()}")


def seeded(console: Console, accounts: int, seed: int) -> Any:
    """Return a seeded state, with a progress bar while it is built."""
    with progress_bar(console) as bar:
        task = bar.add_task("seeded book", total=1.0)

        def report(what: str, part: float) -> None:
            bar.update(task, description=what, completed=part)

        return load_or_build(accounts, seed, progress=report)


def up(*, port: int, accounts: int, seed: int, block_time_s: int | None, as_json: bool) -> None:
    """Start a local chain and keep it until it is stopped."""
    console = stderr_console()
    ensure_toolchain(lambda text: console.log(text))
    state = seeded(console, accounts, seed)
    with Anvil.start(AnvilOptions(port=port, load_state=state.path)) as node:
        if block_time_s is not None:
            node.rpc.call("evm_setIntervalMining", [block_time_s])
        _announce(node, state.deployment, len(state.book), as_json, console)
        _wait_for_end()


def fork(*, rpc_url: str, block: int | None, port: int, as_json: bool) -> None:
    """Fork a chain and keep the fork until it is stopped."""
    console = stderr_console()
    ensure_toolchain(lambda text: console.log(text))
    with fork_chain(rpc_url, block, port=port) as node:
        number = int(node.rpc.call("eth_blockNumber"), 16)
        chain_id = int(node.rpc.call("eth_chainId"), 16)
        if as_json:
            print(json.dumps({"url": node.url, "chain_id": chain_id, "block": number}), flush=True)
        else:
            console.print(
                f"fork of chain {chain_id} at block {number}: [bold]{node.url}[/]  (Ctrl-C stops it)"
            )
        _wait_for_end()


def _announce(node: Anvil, deployment: Deployment, accounts: int, as_json: bool, console: Console) -> None:
    if as_json:
        record = {"url": node.url, "accounts": accounts, "deployment": json.loads(deployment.to_json())}
        print(json.dumps(record), flush=True)
        return
    table = Table(title=f"Marginline {__version__}: local chain at {node.url}", title_justify="left")
    table.add_column("contract")
    table.add_column("address")
    for name, address in (
        ("PoolAddressesProvider", deployment.provider),
        ("Pool", deployment.pool),
        ("AaveOracle", deployment.oracle),
        ("UniswapV3Factory", deployment.uniswap.factory),
        ("SwapRouter", deployment.uniswap.router),
        ("Multicall3", deployment.multicall),
    ):
        table.add_row(name, address)
    for symbol, asset in deployment.assets.items():
        table.add_row(f"{symbol} ({asset.decimals} decimals)", asset.address)
        table.add_row(f"{symbol} feed, second feed", f"{asset.feed}, {asset.reference_feed}")
    console.print(table)
    console.print(f"{accounts} seeded accounts; Ctrl-C stops it")


def _wait_for_end() -> None:
    """Wait for Ctrl-C or a termination signal."""
    stop: Callable[..., None] = lambda *_: sys.exit(0)  # noqa: E731 - a handler, not a function of ours
    signal.signal(signal.SIGTERM, stop)
    try:
        signal.pause()
    except KeyboardInterrupt:
        return
