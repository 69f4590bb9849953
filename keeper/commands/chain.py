"""``marginline setup`` and ``marginline chain``."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Final

from rich.console import Console

from contracts_abi.errors import ChainError, RpcUnavailable
from keeper import __version__
from keeper.commands.console import plain_table, stderr_console, told_progress
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.deploy import AAVE_V3, AAVE_V3_6, on_version
from simulation.chain.fork import fork as fork_chain
from simulation.chain.market import DEFAULT_MARKET, Deployment, MarketSpec, with_morpho
from simulation.chain.seed import SeededState, load_or_build
from simulation.chain.solc import ensure_oracle_toolchain, ensure_protocol_toolchain, fetch_protocol_sources
from simulation.chain.toolchain import Progress, cache_dir, ensure_forge, ensure_toolchain, node_tools

COMPILED: Final = (AAVE_V3_6, "morpho-blue")
"""Protocols of the local market that npm has as source only."""

MORPHO_PART: Final = 3
"""One borrower on Morpho for so many on Aave; at least one where there are any."""

NODE_CHECK_S: Final = 0.5
"""How often a waiting command looks whether its node still runs."""


def set_up_everything(progress: Progress, *, forge: bool) -> Path | None:
    """Fetch all that any command or test needs, and compile it; what is there already takes no time.

    Lending protocols that npm ships as source are compiled when one is first asked for. Returns Foundry's
    forge where it was asked for.
    """
    with node_tools(progress) as tools:
        ensure_toolchain(progress, tools)
        ensure_oracle_toolchain(progress, tools)
        fetch_protocol_sources(progress, tools)
        return ensure_forge(progress, tools) if forge else None


def setup_toolchain(*, forge: bool) -> None:
    """Install node and artifacts, or say that they are there."""
    console = stderr_console()
    with console.status("local chain and protocol artifacts"):
        program = set_up_everything(lambda text: console.log(text), forge=forge)
    console.print(f"ready: {cache_dir()}", soft_wrap=True)
    if program is not None:
        console.print(f"forge: {program}", soft_wrap=True)


def local_market(*, quick: bool) -> MarketSpec:
    """Return what a local chain has: Aave V3.6 and Morpho Blue, or quickly the prebuilt Aave V3 alone."""
    if quick:
        return on_version(DEFAULT_MARKET, AAVE_V3)
    return on_version(with_morpho(DEFAULT_MARKET), AAVE_V3_6)


def ensure_local(console: Console, *, quick: bool) -> None:
    """Have everything that a local market is deployed from, and say what takes time."""
    with console.status("local chain and protocol artifacts"), node_tools(console.log) as tools:
        ensure_toolchain(lambda text: console.log(text), tools)
        if not quick:
            ensure_protocol_toolchain(COMPILED, lambda text: console.log(text), tools)


def seeded(console: Console, accounts: int, seed: int, *, quick: bool) -> SeededState:
    """Return a seeded state, and say how far it is while it is built.

    Parameters
    ----------
    accounts
        Borrowers on Aave; a third as many borrow on Morpho.
    quick
        See `local_market`.
    """
    morpho_accounts = 0 if quick else -(-accounts // MORPHO_PART)
    with told_progress(console, "seeded book") as tell:
        return load_or_build(
            accounts,
            seed,
            market=local_market(quick=quick),
            morpho_accounts=morpho_accounts,
            progress=tell,
        )


def up(
    *, port: int, accounts: int, seed: int, block_time_s: int | None, as_json: bool, quick: bool = False
) -> None:
    """Start a local chain and keep it until it is stopped."""
    console = stderr_console()
    ensure_local(console, quick=quick)
    state = seeded(console, accounts, seed, quick=quick)
    with Anvil.start(AnvilOptions(port=port, load_state=state.path)) as node:
        if block_time_s is not None:
            node.rpc.call("evm_setIntervalMining", [block_time_s])
        stop = _stop_on_signals()
        _announce(node, state, as_json, console)
        _wait_for_end(node, stop)


def fork(*, rpc_url: str, block: int | None, port: int, as_json: bool) -> None:
    """Fork a chain and keep the fork until it is stopped."""
    console = stderr_console()
    ensure_toolchain(lambda text: console.log(text))
    with _forked(rpc_url, block, port) as node:
        stop = _stop_on_signals()
        number = int(node.rpc.call("eth_blockNumber"), 16)
        chain_id = int(node.rpc.call("eth_chainId"), 16)
        if as_json:
            print(json.dumps({"url": node.url, "chain_id": chain_id, "block": number}), flush=True)
        else:
            console.print(
                f"fork of chain {chain_id} at block {number}: [bold]{node.url}[/]  (Ctrl-C stops it)"
            )
        _wait_for_end(node, stop)


def _forked(rpc_url: str, block: int | None, port: int) -> Anvil:
    """Fork, and say by which option the endpoint or block was given when it is not right."""
    try:
        return fork_chain(rpc_url, block, port=port)
    except RpcUnavailable as error:
        raise RpcUnavailable(f"--rpc {error.message}", fix=error.fix or "check the URL") from None


def _announce(node: Anvil, state: SeededState, as_json: bool, console: Console) -> None:
    deployment, accounts = state.deployment, len(state.book) + len(state.morpho_book)
    if as_json:
        record = {
            "url": node.url,
            "accounts": len(state.book),
            "morpho_accounts": len(state.morpho_book),
            "deployment": json.loads(deployment.to_json()),
        }
        print(json.dumps(record), flush=True)
        return
    table = plain_table("contract", "address")
    for name, address in (
        ("PoolAddressesProvider", deployment.provider),
        ("Pool", deployment.pool),
        ("AaveOracle", deployment.oracle),
        ("UniswapV3Factory", deployment.uniswap.factory),
        ("SwapRouter", deployment.uniswap.router),
        ("Multicall3", deployment.multicall),
    ):
        table.add_row(name, address)
    if deployment.morpho is not None:
        table.add_row("Morpho", deployment.morpho.address)
        for market in deployment.morpho.markets:
            table.add_row(f"Morpho market {market.name}", market.id)
    for symbol, asset in deployment.assets.items():
        table.add_row(f"{symbol}, {asset.decimals} decimals", asset.address)
        table.add_row(f"{symbol}, the protocol's feed", asset.feed)
        table.add_row(f"{symbol}, reference feed", asset.reference_feed)
    console.print(f"Marginline {__version__}: local chain at [bold]{node.url}[/], {accounts} borrowers")
    console.print(table)
    console.print("to watch it (Ctrl-C stops the chain):\n")
    print(init_command(node.url, deployment), flush=True)


def init_command(url: str, deployment: Deployment) -> str:
    """Return the command that writes a keeper's configuration for a local chain, ready to paste."""
    morpho = deployment.morpho
    parts = [
        f"marginline keeper init --rpc {url} --provider {deployment.provider}",
        *([] if morpho is None else [f"--morpho {morpho.address}"]),
        *([] if morpho is None else [f"--morpho-market {market.id}" for market in morpho.markets]),
        f"--uniswap-factory {deployment.uniswap.factory} --router {deployment.uniswap.router}",
        *(f"--reference {symbol}={asset.reference_feed}" for symbol, asset in deployment.assets.items()),
    ]
    return " \\\n  ".join(parts)


def _stop_on_signals() -> threading.Event:
    """Return what Ctrl-C and a termination signal set from now on, so that the node is ended in order."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _wait_for_end(node: Anvil, stop: threading.Event) -> None:
    """Wait for `stop`.

    Raises
    ------
    ChainError
        If the node ends by itself.
    """
    while not stop.wait(NODE_CHECK_S):
        if not node.alive():
            raise ChainError(f"the local node at {node.url} ended by itself")
