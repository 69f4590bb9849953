"""``marginline oracle play``."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from contracts_abi.errors import CheckFailed, InputError
from keeper.commands.console import plain_table, stderr_console, stdout_console
from oracle.scenario import load_scenario
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.parity.harness import BACKENDS
from simulation.chain.plays.play import LEAD_S, ChainPlay
from simulation.chain.plays.scenario import play_on_chain
from simulation.chain.revm import RevmEvm
from simulation.chain.solc import ensure_oracle_toolchain
from simulation.chain.toolchain import ensure_toolchain, node_tools
from simulation.replay.text import money_text, usd_text

_BASE_DECIMALS: Final = 8
"""In which AaveOracle gives prices here."""


def play(source: str, *, backend: str, as_json: bool) -> None:
    """Play a scenario on a local chain, print what the contracts said, fail where computation says else."""
    if backend not in BACKENDS:
        raise InputError(f"unknown backend {backend!r}", fix=f"choose one of {', '.join(BACKENDS)}")
    scenario = load_scenario(source)
    console = stderr_console()
    with node_tools(console.log) as tools:
        ensure_toolchain(console.log, tools)
        ensure_oracle_toolchain(console.log, tools)
    start = scenario.clock.start - LEAD_S
    with console.status(f"{scenario.id} on {backend}"):
        if backend == "revm":
            played = play_on_chain(scenario, RevmEvm(timestamp=start))
        else:
            with Anvil.start(AnvilOptions(timestamp=start)) as node:
                played = play_on_chain(scenario, node.evm())
    record = record_of(played)
    if as_json:
        print(json.dumps(record))
    else:
        _show(stdout_console(), record)
    if played.parted:
        first = played.parted[0]
        raise CheckFailed(
            f"{len(played.parted)} values part, first {first.what}: chain {first.chain}, "
            f"computed {first.computed}"
        )


def record_of(played: ChainPlay) -> dict[str, Any]:
    """Return a play as plain data; amounts are decimal text."""
    economics = played.economics
    return {
        "id": played.id,
        "backend": played.backend,
        "oracle": played.oracle,
        "sources": dict(played.sources),
        "steps": [
            {"t": said.t, "block": said.block, "prices": dict(said.prices), "answers": dict(said.answers)}
            for said in played.said
        ],
        "liquidations": economics.liquidated,
        "wrongly_liquidated": list(economics.wrongly_liquidated),
        "bad_debt_usd": money_text(economics.bad_debt),
        "attacker_profit_usd": money_text(economics.attacker_profit),
        "costs": list(played.costs),
        "parted": [
            {"t": parted.t, "what": parted.what, "chain": parted.chain, "computed": parted.computed}
            for parted in played.parted
        ],
    }


def _show(console: Console, record: dict[str, Any]) -> None:
    first, last = record["steps"][0], record["steps"][-1]
    console.print(
        f"[bold]{escape(record['id'])}[/] on {record['backend']}: {len(record['steps'])} steps, "
        f"AaveOracle at {record['oracle']}",
        soft_wrap=True,
    )
    prices = plain_table(
        "asset", "first price", "last price", "its feed", right=("first price", "last price")
    )
    for asset, source in record["sources"].items():
        prices.add_row(escape(asset), _price(first["prices"][asset]), _price(last["prices"][asset]), source)
    console.print(prices)
    wrong = ", ".join(record["wrongly_liquidated"]) or "nobody"
    console.print(
        f"liquidations {record['liquidations']}; wrongly liquidated: {escape(wrong)}", soft_wrap=True
    )
    console.print(
        f"bad debt {usd_text(record['bad_debt_usd'])}, "
        f"attacker's profit {usd_text(record['attacker_profit_usd'])}",
        soft_wrap=True,
    )
    for line in record["costs"]:
        console.print(escape(line), soft_wrap=True)
    if not record["parted"]:
        console.print("[green]every value is as computed[/]")


def _price(raw: int) -> str:
    return f"{Decimal(raw).scaleb(-_BASE_DECIMALS):,f}"
