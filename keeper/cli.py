"""The command line: one composition root, thin, with every heavy import inside the command that needs it.

Exit codes: 0 done; 1 a check or an invariant failed; 2 usage or bad input, on one line; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from contracts_abi.errors import InputError, MarginlineError

app = typer.Typer(
    name="marginline",
    help="On-chain margin: simulate it, check its oracles, and keep it. Start with `marginline demo`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
chain_app = typer.Typer(no_args_is_help=True, help="A local chain: Aave V3.6, Morpho Blue, Uniswap V3.")
keeper_app = typer.Typer(no_args_is_help=True, help="The keeper: find, explain and clear unsafe accounts.")
oracle_app = typer.Typer(no_args_is_help=True, help="Price oracles: how they failed, and how one is now.")
margin_app = typer.Typer(no_args_is_help=True, help="Margin of portfolio files, and venues' own test cases.")
book_app = typer.Typer(
    no_args_is_help=True, help="Shared books: who holds and owes what on all protocols; see docs/book.md."
)
pack_app = typer.Typer(
    no_args_is_help=True, help="Events with published figures that a simulation is held against."
)
app.add_typer(chain_app, name="chain")
app.add_typer(keeper_app, name="keeper")
app.add_typer(oracle_app, name="oracle")
app.add_typer(margin_app, name="margin")
app.add_typer(book_app, name="book")
app.add_typer(pack_app, name="pack")

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Market = Annotated[
    Path | None, typer.Option(help="JSON of the market; else BOOK's own, or the one beside it.")
]
Accounts = Annotated[list[str] | None, typer.Option("--account", help="Only this account; may be repeated.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="Only the prebuilt Aave V3, first revision: nothing is compiled.")
]
OneProtocol = Annotated[
    str | None, typer.Option("--protocol", help="Only this market, by its name; morpho-blue:b323495f.")
]
BookOut = Annotated[Path, typer.Option(help="The .toml file; a table of positions goes beside it.")]
Positions = Annotated[
    str | None,
    typer.Option(help="inline, csv or parquet; without it inline up to 500 rows, and parquet beyond."),
]
BookPath = Annotated[Path, typer.Argument(help="A book: .toml, see docs/book.md.")]
PackName = Annotated[str, typer.Argument(help="Name of a pack, or a folder with a pack.toml.")]
Config = Annotated[Path, typer.Option("--config", "-c", help="The keeper's TOML configuration.")]


@app.command()
def version() -> None:
    """Print the version."""
    from keeper import __version__

    typer.echo(f"marginline {__version__}")


@app.command()
def setup(
    forge: Annotated[
        bool, typer.Option("--forge", help="Also Foundry's forge, which runs a replay's proof of concept.")
    ] = False,
) -> None:
    """Install the local chain and the protocol artifacts from npm into the cache folder."""
    from keeper.commands.chain import setup_toolchain

    setup_toolchain(forge=forge)


@app.command()
def demo(
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the run's record here as JSON.")
    ] = None,
    report: Annotated[Path, typer.Option(help="Where the HTML report goes.")] = Path("marginline-demo.html"),
    accounts: Annotated[
        int, typer.Option(min=20, help="Borrowers on Aave; a third as many on Morpho.")
    ] = 200,
    seed: Seed = 1,
    pace: Annotated[float, typer.Option(min=0.1, help="Seconds between blocks; never waits.")] = 0.5,
    quick: Quick = False,
) -> None:
    """Take a real Aave V3.6 and Morpho Blue through a historic crash while one keeper clears both."""
    from keeper.commands.demo import run_demo

    run_demo(json_file=json_file, report=report, accounts=accounts, seed=seed, pace_s=pace, quick=quick)


@app.command()
def parity(
    protocol: Annotated[str, typer.Argument(help="For example aave-v3; oracle for all price sources.")],
    backend: Annotated[str, typer.Option(help="revm or anvil.")] = "anvil",
    cases: Annotated[int, typer.Option(min=1, help="Random states to compare.")] = 60,
    seed: Seed = 1,
    source: Annotated[
        Path | None,
        typer.Option(help="Built checkout of contracts that no package ships, for compound-v3."),
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Compare a model or a price source with the real bytecode, to the wei. Exit 1 on any mismatch."""
    from keeper.commands.parity import run_parity_command

    run_parity_command(protocol, backend=backend, cases=cases, seed=seed, as_json=json_, source=source)


@app.command()
def chaos(
    kills: Annotated[int, typer.Option(min=1, help="How often the keeper is killed with -9.")] = 50,
    seed: Seed = 1,
    accounts: Annotated[
        int, typer.Option(min=20, help="Borrowers on Aave; a third as many on Morpho.")
    ] = 200,
    trace: Annotated[
        bool, typer.Option(help="Also check by strace that the journal is synced before each send.")
    ] = True,
    quick: Quick = False,
    json_: JsonFlag = False,
) -> None:
    """Kill the keeper at random moments and count on chain what was done twice or lost."""
    from keeper.commands.chaos import run_chaos

    run_chaos(kills=kills, seed=seed, accounts=accounts, trace=trace, as_json=json_, quick=quick)


@app.command()
def simulate(
    scenario: Annotated[Path, typer.Argument(help="TOML of the scenario; see docs/contagion.")],
    paths: Annotated[int | None, typer.Option(min=1, help="Paths; the scenario's own without it.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed; the scenario's own without it.")] = None,
    off: Annotated[
        list[str] | None, typer.Option("--off", help="Channel to switch off; may be repeated.")
    ] = None,
    effects: Annotated[
        bool, typer.Option("--effects", help="Run again without each channel: what does each add?")
    ] = False,
    matrix: Annotated[
        str | None, typer.Option(help="Contagion matrix by a shock of each venue: threshold or oracle.")
    ] = None,
    shock: Annotated[
        float | None, typer.Option(help="Size of that shock, a part of one; 0.05 without it.")
    ] = None,
    policy: Annotated[
        list[Path] | None,
        typer.Option("--policy", help="TOML of policies to compare with; may be repeated."),
    ] = None,
    spread: Annotated[
        bool,
        typer.Option("--spread", help="Run the ends of each uncertain range: what do they change?"),
    ] = False,
    wallets: Annotated[
        bool,
        typer.Option("--wallets", help="Risk scores of wallets in several venues, by 256 paths at most."),
    ] = False,
    fidelity: Annotated[
        str, typer.Option(help="model, or revm: the protocols' own bytecode, one path.")
    ] = "model",
    verify: Annotated[
        bool, typer.Option("--verify", help="Run both and compare every liquidation; exit 1 if they differ.")
    ] = False,
    path: Annotated[int | None, typer.Option(min=0, help="Which path bytecode runs; 0 without it.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; as many as cores without it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder; one with the same run is taken up. SCENARIO-run without it.")
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Run a scenario over many paths: bad debt, liquidations, contagion, and what caused them."""
    from keeper.commands.simulate import run_on_bytecode, run_simulate

    if verify or fidelity != "model":
        many = {
            "--paths": paths,
            "--effects": effects,
            "--matrix": matrix is not None,
            "--shock": shock is not None,
            "--policy": policy,
            "--spread": spread,
            "--wallets": wallets,
            "--workers": workers,
        }
        run_on_bytecode(
            scenario,
            fidelity=fidelity,
            verify=verify,
            seed=seed,
            path=path or 0,
            off=off or (),
            out=out,
            as_json=json_,
            unused=[name for name, given in many.items() if given],
        )
        return
    if path is not None:
        raise InputError(
            f"--path {path}: a run over many paths has no use for it",
            fix="leave it out, or give --verify or --fidelity revm, which run one path",
        )
    run_simulate(
        scenario,
        paths=paths,
        seed=seed,
        off=off or (),
        effects=effects,
        matrix=matrix,
        shock=shock,
        workers=workers,
        out=out,
        as_json=json_,
        policies=policy or (),
        spread=spread,
        wallets=wallets,
    )


@app.command()
def sweep(
    scenario: Annotated[Path, typer.Argument(help="TOML of the scenario.")],
    over: Annotated[
        list[str] | None,
        typer.Option("--over", help="KEY=A,B,C or KEY=START:STOP:COUNT; may be repeated."),
    ] = None,
    zip_: Annotated[
        bool, typer.Option("--zip", help="Advance all keys together, instead of every combination.")
    ] = False,
    paths: Annotated[
        int | None, typer.Option(min=1, help="Paths at each point; the scenario's own without it.")
    ] = None,
    chunk: Annotated[int, typer.Option(min=1, help="Paths per task and file; no result depends on it.")] = 64,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed; the scenario's own without it.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; as many as cores without it.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; one with the same sweep is taken up. SCENARIO-sweep without it."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="MODULE:FUNCTION that computes the paths; the contagion engine without it."),
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Simulate a scenario over parameters and paths. Exit 1 when tasks failed; run it again to resume."""
    from keeper.commands.sweep import run_sweep

    run_sweep(
        scenario,
        over=over or (),
        zipped=zip_,
        paths=paths,
        chunk=chunk,
        seed=seed,
        workers=workers,
        out=out,
        task=task,
        as_json=json_,
    )


@pack_app.command("list")
def pack_list(json_: JsonFlag = False) -> None:
    """List the event packs."""
    from keeper.commands.packs import list_packs

    list_packs(as_json=json_)


@pack_app.command("show")
def pack_show(name: PackName, json_: JsonFlag = False) -> None:
    """Show a pack's targets with sources and bands, and its free parameters."""
    from keeper.commands.packs import show_pack

    show_pack(name, as_json=json_)


@pack_app.command("run")
def pack_run(
    name: PackName,
    paths: Annotated[int | None, typer.Option(min=1, help="Paths; the pack's own without it.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed; the pack's own without it.")] = None,
    spread: Annotated[
        bool, typer.Option(help="Run each parameter over its range: how far do held-out figures go?")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="Folder for NAME.json.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Run a pack: published, simulated, band and verdict of each target. Exit 0 when it ran."""
    from keeper.commands.packs import run_pack_command

    run_pack_command(name, paths=paths, seed=seed, spread=spread, out=out, as_json=json_)


@chain_app.command("up")
def chain_up(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8545,
    accounts: Annotated[
        int, typer.Option(min=0, max=100_000, help="Borrowers on Aave; a third as many on Morpho.")
    ] = 200,
    seed: Seed = 1,
    block_time: Annotated[
        int | None, typer.Option(min=1, help="Seconds between blocks; a block per transaction without it.")
    ] = None,
    quick: Quick = False,
    json_: JsonFlag = False,
) -> None:
    """Start a local chain with Aave V3.6, Morpho Blue, Uniswap V3 and a seeded book; stop with Ctrl-C."""
    from keeper.commands.chain import up

    up(port=port, accounts=accounts, seed=seed, block_time_s=block_time, as_json=json_, quick=quick)


@chain_app.command("fork")
def chain_fork(
    rpc: Annotated[str, typer.Option(help="Endpoint to fork from.")],
    block: Annotated[int | None, typer.Option(min=0, help="Block to fork at; the latest without it.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8545,
    json_: JsonFlag = False,
) -> None:
    """Fork a chain of yours into a local node; stop with Ctrl-C."""
    from keeper.commands.chain import fork

    fork(rpc_url=rpc, block=block, port=port, as_json=json_)


@keeper_app.command("init")
def keeper_init(
    rpc: Annotated[str, typer.Option(help="Endpoint of the chain: a URL, or env:NAME or file:PATH of one.")],
    provider: Annotated[
        str | None, typer.Option(help="Address of Aave's PoolAddressesProvider, of V3 or V3.6.")
    ] = None,
    morpho: Annotated[str | None, typer.Option(help="Address of Morpho Blue.")] = None,
    morpho_market: Annotated[
        list[str] | None, typer.Option(help="Id of a market of Morpho Blue to watch; may be repeated.")
    ] = None,
    config: Annotated[Path, typer.Option("--config", "-c", help="File to write.")] = Path("keeper.toml"),
    uniswap_factory: Annotated[
        str | None, typer.Option(help="Uniswap V3 factory, to find pools to sell in.")
    ] = None,
    router: Annotated[str | None, typer.Option(help="Uniswap V3 SwapRouter.")] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(help="SYMBOL=ADDRESS of an independent Chainlink-like feed; repeat per asset."),
    ] = None,
    keystore: Annotated[Path | None, typer.Option(help="Keystore file of the keeper's key.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="File with the keystore's password.")] = None,
    receiver: Annotated[str | None, typer.Option(help="Address that profits go to, for good.")] = None,
    deploy: Annotated[bool, typer.Option(help="Deploy our Liquidator with the keystore's key.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Discover markets of Aave V3 and Morpho Blue and write the keeper's configuration."""
    from keeper.commands.keeper_init import init

    init(
        rpc_url=rpc,
        provider=provider,
        config_file=config,
        uniswap_factory=uniswap_factory,
        router=router,
        reference=tuple(reference or ()),
        keystore=keystore,
        password_file=password_file,
        receiver=receiver,
        deploy=deploy,
        as_json=json_,
        morpho=morpho,
        morpho_markets=tuple(morpho_market or ()),
    )


@keeper_app.command("scan")
def keeper_scan(
    config: Config = Path("keeper.toml"),
    book: Annotated[
        Path | None, typer.Argument(help="A portfolio file to scan instead of a chain; with --method.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Margin method, for BOOK or the chain's borrowers: an id, ID@SET, or a file with its keys."
        ),
    ] = None,
    market: Market = None,
    protocol: OneProtocol = None,
    all_: Annotated[bool, typer.Option("--all", help="List healthy accounts too.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Read every borrower at the head, or every account of a file, once and say which is unsafe, and why."""
    if book is not None or method is not None or market is not None:
        from keeper.commands.keeper_scan import scan_book, scan_chain

        if method is None or (market is not None and book is None):
            raise InputError("a portfolio file goes with --method", fix="name a method, or leave both out")
        if book is None:
            scan_chain(method, config, list_all=all_, as_json=json_, protocol=protocol)
        else:
            scan_book(method, book, market=market, list_all=all_, as_json=json_)
        return
    from keeper.commands.keeper_look import scan

    scan(config_file=config, list_all=all_, as_json=json_, protocol=protocol)


@keeper_app.command("explain")
def keeper_explain(
    account: Annotated[str, typer.Argument(help="The borrower's address.")],
    config: Config = Path("keeper.toml"),
    protocol: OneProtocol = None,
    json_: JsonFlag = False,
) -> None:
    """Say why one account is or is not liquidated: positions, three prices, verdict, plan."""
    from keeper.commands.keeper_look import explain

    explain(account, config_file=config, as_json=json_, protocol=protocol)


@keeper_app.command("run")
def keeper_run(
    config: Config = Path("keeper.toml"),
    mode: Annotated[
        str | None, typer.Option(help="observe, dry-run or live; overrides the file, never beyond it.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON line per event on stdout.")] = False,
) -> None:
    """Run the head-driven loop until stopped. Observes unless the configuration says otherwise."""
    from keeper.commands.keeper import run

    run(config_file=config, mode=mode, as_json=json_)


@keeper_app.command("journal")
def keeper_journal(
    config: Config = Path("keeper.toml"),
    decisions: Annotated[bool, typer.Option(help="List decisions instead of intents.")] = False,
    account: Annotated[str | None, typer.Option(help="Only this account.")] = None,
    json_: JsonFlag = False,
) -> None:
    """List what the keeper intended, sent and earned, and what it decided to leave alone."""
    from keeper.commands.keeper_journal import journal

    journal(config_file=config, decisions=decisions, account=account, as_json=json_)


@keeper_app.command("doctor")
def keeper_doctor(config: Config = Path("keeper.toml"), json_: JsonFlag = False) -> None:
    """Check the chain, the addresses, the key, the feeds and the journal; exit 1 when one fails."""
    from keeper.commands.keeper_doctor import doctor

    doctor(config_file=config, as_json=json_)


@oracle_app.command("incidents")
def oracle_incidents(json_: JsonFlag = False) -> None:
    """List the real oracle failures that come with Marginline, each one to be replayed."""
    from keeper.commands.oracle_replay import incidents

    incidents(as_json=json_)


@oracle_app.command("replay")
def oracle_replay(
    scenario: Annotated[str, typer.Argument(help="Id of an incident, or a scenario file of your own.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.md, report.html, report.json and poc/.")
    ] = None,
    html: Annotated[bool, typer.Option(help="Write report.html too; it has plotly inside, 5 MB.")] = True,
    matrix: Annotated[
        bool, typer.Option(help="Replay with each guard alone as well, which takes most of the time.")
    ] = True,
    json_: JsonFlag = False,
) -> None:
    """Replay an oracle's failure: what the feeds said, which guard fired, what it cost, with and without."""
    from keeper.commands.oracle_replay import replay_command

    replay_command(scenario, as_json=json_, out=out, html=html, matrix=matrix)


@oracle_app.command("play")
def oracle_play(
    scenario: Annotated[str, typer.Argument(help="Id of an incident, or a scenario file of your own.")],
    backend: Annotated[str, typer.Option(help="revm or anvil.")] = "revm",
    json_: JsonFlag = False,
) -> None:
    """Play an oracle's failure on a local chain: its feeds' contracts before the real Aave V3."""
    from keeper.commands.oracle_play import play

    play(scenario, backend=backend, as_json=json_)


@oracle_app.command("schema")
def oracle_schema() -> None:
    """Print the JSON Schema of scenario files, for editors and for checks of your own."""
    from keeper.commands.oracle_replay import schema

    schema()


@oracle_app.command("graph")
def oracle_graph(
    address: Annotated[str, typer.Argument(help="The oracle, adapter or feed that a protocol reads.")],
    rpc: Annotated[str, typer.Option(help="Endpoint of the chain: a URL, or env:NAME or file:PATH of one.")],
    block: Annotated[int | None, typer.Option(min=0, help="Block to read at; the latest without it.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Write the tree as a picture here.")] = None,
    guards: Annotated[
        bool, typer.Option("--guards", help="Show what each guard can and cannot check, and why.")
    ] = False,
    heartbeat: Annotated[
        int | None, typer.Option(min=1, help="Seconds, for contracts that state none, as most do.")
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Show the contracts that a price comes from, down to those in which somebody writes a number."""
    from keeper.commands.oracle_look import graph

    graph(
        address,
        rpc_url=rpc,
        block=block,
        svg=svg,
        as_json=json_,
        guards=guards,
        heartbeat_s=heartbeat,
    )


@oracle_app.command("check")
def oracle_check(
    feed: Annotated[str, typer.Argument(help="Address of a Chainlink-like feed.")],
    rpc: Annotated[str, typer.Option(help="Endpoint of the chain: a URL, or env:NAME or file:PATH of one.")],
    heartbeat: Annotated[
        int | None, typer.Option(min=1, help="Seconds, as its operator publishes it; it is not on chain.")
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option("--reference", "--against", help="Another feed of the same pair; may be repeated."),
    ] = None,
    pair: Annotated[
        str | None, typer.Option(help="What it is to be a feed of, BASE/QUOTE; else it is not doubted.")
    ] = None,
    sequencer: Annotated[str | None, typer.Option(help="Uptime feed of a layer 2.")] = None,
    rounds: Annotated[int, typer.Option(min=0, max=5_000, help="How many rounds to look back.")] = 48,
    json_: JsonFlag = False,
) -> None:
    """Tell whether a live feed is to be believed now. Exit 1 when it is not."""
    from keeper.commands.oracle_look import check

    check(
        feed,
        rpc_url=rpc,
        heartbeat_s=heartbeat,
        references=reference or (),
        pair=pair,
        sequencer=sequencer,
        rounds=rounds,
        as_json=json_,
    )


@oracle_app.command("judge")
def oracle_judge(
    series: Annotated[
        Path, typer.Argument(help="A TOML that describes a series, or a CSV of `oracle pull`.")
    ],
    every: Annotated[
        int | None,
        typer.Option(min=1, max=86_400, help="Seconds between two looks; 60 unless the file says."),
    ] = None,
    heartbeat: Annotated[
        int | None,
        typer.Option(min=1, help="Seconds, where the file does not say; unknown is never believed."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 when a guard was violated.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Hold a feed's whole recorded history against the guards."""
    from keeper.commands.oracle_judge import judge

    judge(series, every_s=every, heartbeat_s=heartbeat, strict=strict, as_json=json_)


@oracle_app.command("pull")
def oracle_pull(
    feed: Annotated[str, typer.Argument(help="Address of a Chainlink proxy.")],
    rpc: Annotated[str, typer.Option(help="Endpoint of the chain: a URL, or env:NAME or file:PATH of one.")],
    out: Annotated[Path, typer.Option(help="The .csv file; one that was cut short is taken up again.")],
    since: Annotated[str | None, typer.Option(help="First time: unix seconds or ISO 8601, in UTC.")] = None,
    until: Annotated[str | None, typer.Option(help="Last time, likewise.")] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Calls per second, each in a batch counted; else no limit.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=1_000, help="Calls per request.")] = 100,
    json_: JsonFlag = False,
) -> None:
    """Write the whole history of a feed into a file, and print how a scenario reads it."""
    from keeper.commands.oracle_pull import pull

    pull(feed, rpc_url=rpc, out=out, since=since, until=until, rate=rate, batch=batch, as_json=json_)


@margin_app.command("methods")
def margin_methods_(json_: JsonFlag = False) -> None:
    """List the margin methods: what each is founded on, its parameter sets, and whether it can be checked."""
    from keeper.commands.margin import methods

    methods(as_json=json_)


@margin_app.command("check")
def margin_check(
    method: Annotated[str, typer.Argument(help="Id of a margin method; see `margin methods`.")],
    files: Annotated[list[Path], typer.Argument(help="Vector files as the venue publishes them.")],
    json_: Annotated[bool, typer.Option("--json", help="One JSON line per case.")] = False,
) -> None:
    """Compute a venue's own test cases. Prints what comes out; the comparison is yours."""
    from keeper.commands.margin import check

    check(method, files, as_json=json_)


@margin_app.command("run")
def margin_run(
    method: Annotated[str, typer.Argument(help="An id, ID@SET of parameters, or a file with its keys.")],
    book: Annotated[Path, typer.Argument(help="Accounts: .json, .csv or .parquet; see docs/margin-book.md.")],
    market: Market = None,
    account: Accounts = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Tell of each position of accounts with more than 100, too.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Margin accounts by one method: requirement, worst scenario, Greeks, contributions, distances."""
    from keeper.commands.margin_run import run

    run(method, book, market=market, accounts=account or (), as_json=json_, every=all_)


@margin_app.command("compare")
def margin_compare(
    book: Annotated[Path, typer.Argument(help="Accounts: .json, .csv or .parquet; see docs/margin-book.md.")],
    html: Annotated[Path | None, typer.Option(help="Write tables and plots as a page here.")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Only this one: an id, ID@SET, or a file with its keys; may be repeated."),
    ] = None,
    market: Market = None,
    account: Accounts = None,
    json_: JsonFlag = False,
) -> None:
    """Margin the same accounts by every method; one that does not apply says why."""
    from keeper.commands.margin_compare import compare

    compare(book, market=market, accounts=account or (), named=method or (), html=html, as_json=json_)


@margin_app.command("cross")
def margin_cross(
    book: Annotated[Path, typer.Argument(help="A shared book, .toml; see docs/book.md.")],
    wallet: Annotated[list[str] | None, typer.Option(help="Only this wallet; may be repeated.")] = None,
    links: Annotated[
        Path | None, typer.Option(help="TOML of the links between venues; see docs/cross-margin.md.")
    ] = None,
    scenarios: Annotated[
        Path | None, typer.Option(help="TOML of scenarios; the standard ones without.")
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(help="TOML of a price process for random paths; else out and back.")
    ] = None,
    paths: Annotated[int | None, typer.Option(min=1, help="How many random paths; 200 without it.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of a random path; 144 without it.")] = None,
    step: Annotated[float | None, typer.Option(min=1, help="Seconds of such a step; 600 without it.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the random paths; 1 without it.")] = None,
    alpha: Annotated[float, typer.Option(min=0, max=0.99, help="Part of the paths that may breach.")] = 0.0,
    json_: JsonFlag = False,
) -> None:
    """Margin wallets over their protocols: isolated, cross, cross-protocol, netted, and what each hides."""
    from keeper.commands.margin_cross import cross

    drawn = {"--paths": paths, "--steps": steps, "--step": step, "--seed": seed}
    idle = [name for name, value in drawn.items() if value is not None]
    if prices is None and idle:
        raise InputError(
            f"{', '.join(idle)}: of random paths, and there are none",
            fix="give --prices, or leave it out",
        )
    cross(
        book,
        wallets=wallet or (),
        links=links,
        scenarios=scenarios,
        prices=prices,
        paths=paths or 200,
        steps=steps or 144,
        step_s=step or 600.0,
        seed=1 if seed is None else seed,
        alpha=alpha,
        as_json=json_,
    )


@book_app.command("pull")
def book_pull(
    protocol: Annotated[str, typer.Option(help="aave-v3, aave-v3.6 or morpho-blue.")],
    rpc: Annotated[str, typer.Option(help="Endpoint of the chain: a URL, or env:NAME or file:PATH of one.")],
    out: BookOut,
    block: Annotated[int | None, typer.Option(min=0, help="Block to read at; the latest without it.")] = None,
    provider: Annotated[str | None, typer.Option(help="Address of Aave's PoolAddressesProvider.")] = None,
    morpho: Annotated[str | None, typer.Option(help="Address of Morpho Blue.")] = None,
    market: Annotated[
        str | None, typer.Option(help="Id of the Morpho Blue market, 0x and 64 digits.")
    ] = None,
    pools: Annotated[
        list[str] | None,
        typer.Option(help="Uniswap V3 pool to quote exits in; addresses with commas, or repeated."),
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(help="SYMBOL=DOLLARS of a Morpho market's loan token, which it has no price of."),
    ] = None,
    from_block: Annotated[
        int | None, typer.Option(min=0, help="First block that can hold a borrower; else found out.")
    ] = None,
    range_blocks: Annotated[int, typer.Option(min=1, help="Blocks per query of logs.")] = 2_000,
    name: Annotated[str | None, typer.Option(help="The venue's name in the book.")] = None,
    positions: Positions = None,
    json_: JsonFlag = False,
) -> None:
    """Read a market and all of its borrowers at one block. Exit 1 when accounts are unknown: they are named.

    A read that is not whole (a price or a reserve that is missing, borrowers that do not owe what the
    protocol counts) is refused with exit 2, and nothing is written.
    """
    from keeper.commands.book_pull import pull

    pull(
        protocol=protocol,
        rpc_url=rpc,
        out=out,
        block=block,
        provider=provider,
        morpho=morpho,
        market=market,
        pools=[part.strip() for text in pools or () for part in text.split(",") if part.strip()],
        prices=price or (),
        from_block=from_block,
        range_blocks=range_blocks,
        name=name,
        form=positions,
        as_json=json_,
    )


@book_app.command("generate")
def book_generate(
    out: BookOut,
    accounts: Annotated[int, typer.Option(min=1, max=2_000_000, help="Wallets in the book.")] = 10_000,
    seed: Seed = 1,
    market: Annotated[
        Path | None, typer.Option(help="A book whose tokens, venues and exits to use; its accounts are not.")
    ] = None,
    leverage: Annotated[
        float | None, typer.Option(help="Mean of assets over equity; 1.65 without it.")
    ] = None,
    positions: Positions = None,
    json_: JsonFlag = False,
) -> None:
    """Generate a book from a seed: borrowers, loopers, whales, hedgers, calibrated to published leverage."""
    from keeper.commands.book import generate_book

    generate_book(
        accounts=accounts,
        seed=seed,
        out=out,
        market=market,
        leverage=leverage,
        form=positions,
        as_json=json_,
    )


@book_app.command("merge")
def book_merge(
    books: Annotated[
        list[Path], typer.Argument(help="Books to put together, two or more; see docs/book.md.")
    ],
    out: BookOut,
    positions: Positions = None,
    json_: JsonFlag = False,
) -> None:
    """Put books together: markets pulled one by one become one book in which a wallet is one owner."""
    from keeper.commands.book import merge

    merge(books, out=out, form=positions, as_json=json_)


@book_app.command("show")
def book_show(book: BookPath, json_: JsonFlag = False) -> None:
    """Show a book: venues, tokens, totals, leverage, health factors. Exit 1 when it has unknown accounts."""
    from keeper.commands.book import show

    show(book, as_json=json_)


@book_app.command("check")
def book_check(book: BookPath, json_: JsonFlag = False) -> None:
    """Check a book: names, bounds, limits, liquidity. Exit 2 with what is wrong, 1 with unknown accounts."""
    from keeper.commands.book import check

    check(book, as_json=json_)


@book_app.command("schema")
def book_schema() -> None:
    """Print the JSON Schema of book files, for editors and for checks of your own."""
    from keeper.commands.book import schema

    schema()


def main() -> None:
    """Run the command line; whatever the user can mend is one line on stderr."""
    try:
        status = app(prog_name="marginline", standalone_mode=False)
    except TyperException as error:
        # Without a message the help was shown instead: a group without a command.
        if text := _usage_line(error):
            print(f"error: {text}", file=sys.stderr)
        sys.exit(2)
    except MarginlineError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader went away (`| head`); Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except RuntimeError as error:
        # Numba's, of the first function that it is asked to keep; it names no setting.
        if not str(error).startswith("cannot cache function"):
            raise
        print(
            "error: compiled code can be kept neither beside the program nor in the home folder; "
            "set NUMBA_CACHE_DIR to a folder that can be written",
            file=sys.stderr,
        )
        sys.exit(2)
    if status == 130:
        print("interrupted", file=sys.stderr)
    sys.exit(status)


def _usage_line(error: TyperException) -> str:
    """Return a usage error as one line: what is wrong, the value, and where the help is."""
    from pydantic import ValidationError  # most of what `--help` would take

    text = error.format_message().rstrip(".?")
    if isinstance(error.__cause__, ValidationError):
        text += f", got {error.__cause__.errors()[0]['input']!r}"
    context = getattr(error, "ctx", None)
    return f"{text}; see: {context.command_path} --help" if text and context is not None else text


if __name__ == "__main__":
    main()
