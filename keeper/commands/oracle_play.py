"""``marginline oracle play``."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table

from contracts_abi.errors import CheckFailed, InputError
from keeper.commands.console import stderr_console
from oracle.scenario import load_scenario
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.parity.harness import BACKENDS
from simulation.chain.plays.play import LEAD_S, ChainPlay
from simulation.chain.plays.scenario import play_on_chain
from simulation.chain.revm import RevmEvm
from simulation.chain.solc import ensure_oracle_toolchain
from simulation.chain.toolchain import ensure_toolchain, node_tools
from simulation.replay.text import money_text


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
        console.print(_table(record))
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


def _table(record: dict[str, Any]) -> Table:
    title = f"{record['id']} on {record['backend']}"
    table = Table("what", "value", title=title, title_justify="left")
    steps = record["steps"]
    for asset, source in record["sources"].items():
        first, last = (step["prices"][asset] for step in (steps[0], steps[-1]))
        table.add_row(f"{asset} at {source}", f"{first} -> {last}")
    for name in ("liquidations", "bad_debt_usd", "attacker_profit_usd"):
        table.add_row(name, str(record[name]))
    table.add_row("wrongly_liquidated", ", ".join(record["wrongly_liquidated"]) or "nobody")
    for line in record["costs"]:
        table.add_row("cost", line)
    table.add_row("values that part", str(len(record["parted"])))
    return table
