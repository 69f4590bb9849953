"""``marginline simulate``: a scenario's paths, what they came to, why, and whether the bytecode agrees."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer
from rich.console import Console

from contracts_abi.errors import InputError
from keeper.commands.console import (
    counted,
    plain_table,
    print_whole,
    progress_bar,
    stderr_console,
    stdout_console,
)
from keeper.commands.packs import figure as plain_figure
from keeper.commands.scenario_file import scenario_of
from keeper.sweeps.run import Progress, sweep
from keeper.sweeps.versions import versions
from simulation.backtest.columns import gather
from simulation.backtest.plan import make_plan
from simulation.backtest.store import LOCK, PARTS, PLAN
from simulation.contagion import settle
from simulation.contagion.causes import (
    Columns,
    Over,
    ShockKind,
    effects_of,
    matrix_of,
    shock_of_each,
    without_each,
)
from simulation.contagion.left_out import left_out
from simulation.contagion.policies import build_policy
from simulation.contagion.record import SCHEMA, build_record
from simulation.contagion.scenario import Scenario, build_run, full_table, read_table
from simulation.contagion.spread import range_ends
from simulation.contagion.sweep import FOLDER, VARIANT, VARIANTS
from simulation.contagion.wallets import wallets_record
from simulation.report.simulation_view import duration, matrix_words, other_table

if TYPE_CHECKING:
    from simulation.chain.fidelity.keepers import ChainEvent
    from simulation.chain.fidelity.verify import Verification

TASK: Final = "simulation.contagion.sweep:sweep_task"
CHUNK: Final = 64
MATRIX_SHOCK: Final = 0.05
"""Size of the shocks of a contagion matrix unless told otherwise, a part of one."""
LEAST_SHOCK: Final = 1e-4
"""Policies count thresholds in basis points; less is meant in another unit."""
RECORD: Final = "record.json"
BYTECODE: Final = "bytecode.json"
BASE: Final = "base"
AT: Final = "at "
COMPILING: Final = "the first run compiles its kernels: up to a minute, once"


def run_simulate(
    file: Path,
    *,
    paths: int | None,
    seed: int | None,
    off: Sequence[str],
    effects: bool,
    matrix: str | None,
    shock: float | None,
    workers: int | None,
    out: Path | None,
    as_json: bool,
    html: bool = True,
    policies: Sequence[Path] = (),
    spread: bool = False,
    wallets: bool = False,
) -> None:
    """Run a scenario; write its record, its paths and its report; print the figures.

    Each file of `policies` is one more run under other policies than the scenario's own, on the same draws.

    Exit codes: 0 done; 2 bad input or no room; 130 interrupted. After the last two the same command goes on
    where it stopped.
    """
    if shock is not None and matrix is None:
        raise InputError(
            f"--shock {shock:g} without --matrix: nothing is shocked", fix="add --matrix threshold or oracle"
        )
    shock = MATRIX_SHOCK if shock is None else shock
    if 0.0 < shock < LEAST_SHOCK:
        raise InputError(
            f"--shock {shock:g}: less than a basis point", fix=f"a part of one, at least {LEAST_SHOCK:g}"
        )
    scenario = scenario_of(file, {f"channels.{name}.on": False for name in off})
    paths = scenario.file.paths if paths is None else paths
    seed = scenario.file.seed if seed is None else seed
    folder = out or Path(f"{file.stem}-run")
    require_own(folder)
    compared = policy_files(scenario, file.parent, policies)
    variants: dict[str, Over] = {BASE: {}}
    variants |= {f"policy {name}": {"policies": tables} for name, tables in compared.items()}
    if effects:
        variants |= {f"without {name}": over for name, over in without_each(scenario).items()}
    if matrix is not None:
        shocks = shock_of_each(scenario, shock=shock_kind(matrix), size=shock)
        variants |= {f"shock of {name}": over for name, over in shocks.items()}
    if spread:
        variants |= {f"{AT}{name}": over for name, over in range_ends(scenario, file.parent).items()}
    console = stderr_console()
    tables, digest = _columns(console, scenario, file, variants, folder, paths, seed, workers)
    base = tables[BASE]
    group = 2 if scenario.run.antithetic else 1
    record = build_record(
        scenario,
        base,
        seed=seed,
        version=version("marginline"),
        result_sha256=digest,
        effects=effects_of(base, _named(tables, "without "), group=group) if effects else (),
        matrix=None
        if matrix is None
        else matrix_of(base, _named(tables, "shock of "), scenario.run.world.venues, group=group),
        matrix_shock=None if matrix is None else {"kind": matrix, "size": shock},
        policies=_named(tables, "policy "),
        policy_tables=compared,
        without=_named(tables, "without "),
        wallets=wallets_record(scenario.run, seed, paths) if wallets else None,
        spread=_named(tables, AT),
    )
    written = (folder / "paths.parquet", *write_run(folder, record, html=html))
    if as_json:
        print(json.dumps(record))
        return
    show(stdout_console(), record)
    for path in written:
        console.print(str(path), highlight=False, soft_wrap=True)


def policy_files(scenario: Scenario, folder: Path, files: Sequence[Path]) -> dict[str, list[dict[str, Any]]]:
    """Return the policies of files, by the files' names; each set is tried on the scenario once.

    Parameters
    ----------
    scenario
        Whose own policies they replace.
    folder
        The scenario's.
    files
        TOML files of ``[[policies]]`` tables; none at all in a file stands for no policy.

    Raises
    ------
    InputError
        Naming the file: unreadable, another key than ``policies``, a policy that is none or does not fit the
        scenario, or a name twice.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        name = file.stem
        if name in found:
            raise InputError(f"--policy {file}: {name} is there already", fix="files of different names")
        if "," in name:
            raise InputError(f"--policy {file}: a comma in the name", fix="rename the file")
        tables = _policy_tables(file)
        try:
            for i, table in enumerate(tables):
                build_policy(table, where=f"policies.{i}")
            build_run(scenario.file.model_copy(update={"policies": tuple(tables)}), scenario.book, folder)
        except InputError as error:
            raise InputError(f"--policy {file}: {error.message}", fix=error.fix) from None
        found[name] = tables
    return found


def _policy_tables(file: Path) -> list[dict[str, Any]]:
    try:
        table = read_table(file)
    except InputError as error:
        raise InputError(f"--policy: {error.message.removeprefix('scenario ')}", fix=error.fix) from None
    other = sorted(set(table) - {"policies"})
    if other:
        raise InputError(f"--policy {file}: {other[0]} is not known there", fix="only [[policies]] tables")
    tables = table.get("policies", [])
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise InputError(f"--policy {file}: policies are no tables", fix="[[policies]] and a kind in each")
    return tables


def shock_kind(text: str) -> ShockKind:
    """Return which shock a contagion matrix is made with.

    Raises
    ------
    InputError
        For any other text.
    """
    if text == "threshold":
        return "threshold"
    if text == "oracle":
        return "oracle"
    raise InputError(f"--matrix {text}", fix="threshold or oracle")


def _named(tables: Mapping[str, Columns], prefix: str) -> dict[str, Columns]:
    return {name.removeprefix(prefix): table for name, table in tables.items() if name.startswith(prefix)}


def _columns(
    console: Console,
    scenario: Scenario,
    file: Path,
    variants: Mapping[str, Over],
    folder: Path,
    paths: int,
    seed: int,
    workers: int | None,
) -> tuple[dict[str, Columns], str]:
    """Return the columns of every variant, computed in processes, and the digest of them all.

    They stay on disk: the base in ``paths.parquet``, others beside it by their numbers, since a name may be
    no name of a file.
    """
    plan = make_plan(
        {
            **full_table(scenario),
            FOLDER: str(file.resolve().parent),
            VARIANTS: dict(variants),
            VARIANT: BASE,
        },
        [f"{VARIANT}={','.join(variants)}"],
        task=TASK,
        paths=paths,
        seed=seed,
        chunk=CHUNK,
        data_sha256=data_digests(scenario),
        versions=versions(TASK),
    )
    with progress_bar(console) as bar:
        runs = "one run" if plan.points == 1 else f"{plan.points} runs"
        line = bar.add_task(f"{runs} of {counted(paths, 'path')}", total=plan.tasks)
        tell = left_out_once(console, scenario)

        def show_progress(progress: Progress) -> None:
            tell()
            bar.update(line, completed=progress.done)

        outcome = sweep(plan, folder=folder / "paths", workers=workers, on_progress=show_progress)
        tell()
    digest = outcome.require_whole().sha256
    out: dict[str, Columns] = {}
    for point, name in enumerate(variants):
        table = folder / ("paths.parquet" if name == BASE else f"variants/{point}.parquet")
        out[name] = gather(folder / "paths", point, table)
    return out, digest


def left_out_once(console: Console, scenario: Scenario) -> Callable[[], None]:
    """Return what says, the first time that it is called, what the scenario leaves out of its book.

    Before a first run it also says why nothing moves for a while.

    It is called when a run has begun: until then it may be refused, and that is one line.
    """
    names = left_out(scenario.run)
    waiting = [f"left out: {'; '.join(names)}"] if names else []
    if not is_compiled():
        waiting.append(COMPILING)

    def tell() -> None:
        for line in waiting:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        waiting.clear()

    return tell


def is_compiled() -> bool:
    """Return whether the engine's largest kernel was compiled on this machine, as its source now stands.

    Numba keeps an index of what it compiled beside the source, or in a folder of its own.
    """
    stats = getattr(settle.settle_paths, "stats", None)
    if stats is None or stats.cache_path is None:
        return True  # nothing is compiled, or nothing kept
    source = Path(settle.__file__)
    since = source.stat().st_mtime
    found = Path(stats.cache_path).glob(f"{source.stem}.settle_paths-*.nbi")
    return any(index.stat().st_mtime >= since for index in found)


def data_digests(scenario: Scenario) -> dict[str, str]:
    """Return the sha256 of what a scenario reads, by its name."""
    return {scenario.file.book: scenario.book.source.rpartition("sha256 ")[2]}


def write_run(folder: Path, record: Mapping[str, Any], *, html: bool) -> tuple[Path, ...]:
    """Write record and report beside each other; return the files."""
    written = [folder / RECORD]
    written[0].write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if html:
        # The page takes plotly along: whoever wants JSON only need not wait for it.
        from simulation.report.simulation_html import simulation_html

        written.append(folder / "report.html")
        written[-1].write_text(simulation_html(record), encoding="utf-8")
    return tuple(written)


def show(console: Console, record: Mapping[str, Any]) -> None:
    """Print the figures of a record."""
    console.print(
        f"{record['name']}: {counted(record['paths'], 'path')} of {counted(record['steps'], 'step')}, "
        f"{counted(record['accounts'], 'account')} in {counted(len(record['venues']), 'venue')}, "
        f"seed {record['seed']}"
    )
    losses = plain_table(
        "US dollars", "mean", "± 95 %", "VaR 95 %", "ES 95 %", "VaR 99 %", "ES 99 %", "largest"
    )
    for name, tails in record["tails"].items():
        low, high = tails["0.95"], tails["0.99"]
        losses.add_row(
            name.removesuffix("_usd").replace("_", " "),
            money(low["mean"]["value"]),
            half_width(low["mean"]),
            money(low["var"]["value"]),
            money(low["es"]["value"]),
            money(high["var"]["value"]),
            money(high["es"]["value"]),
            money(low["largest"]),
        )
    print_whole(console, losses)
    venues = plain_table("venue", "liquidations", "liquidated", "bad debt", "± 95 %", "gas", "toxic")
    for name, own in record["by_venue"].items():
        venues.add_row(
            name,
            f"{own['liquidations']['mean']['value']:,.1f}",
            money(own["liquidated_usd"]["mean"]["value"]),
            money(own["bad_debt_usd"]["mean"]["value"]),
            half_width(own["bad_debt_usd"]["mean"]),
            money(own["gas_usd"]["mean"]["value"]),
            f"{own['toxic']['mean']['value']:,.1f}",
        )
    print_whole(console, venues)
    show_system(console, record)
    heads, own = other_table(record)
    if own:
        table = plain_table(*heads)
        for row in own:
            table.add_row(*row)
        print_whole(console, table)
    if record["spread"]:
        show_spread(console, record["spread"])
    if record["wallets"]:
        show_wallets(console, record["wallets"])
    if record["effects"]:
        causes = plain_table("channel", "bad debt with it", "without it", "adds", "± 95 %")
        for effect in record["effects"]:
            causes.add_row(
                effect["channel"],
                money(effect["on"]),
                money(effect["off"]),
                money(effect["effect"]["value"]),
                half_width(effect["effect"]),
            )
        print_whole(console, causes)
    if record["policies_compared"]:
        under = plain_table("policies", "bad debt", "ES 99 %", "changes by", "± 95 %")
        own = record["tails"]["bad_debt_usd"]["0.99"]
        under.add_row("the scenario's", money(own["mean"]["value"]), money(own["es"]["value"]), "", "")
        for name, tails in record["policies_compared"].items():
            change = record["policy_effects"][name]["bad_debt_usd"]["change"]
            mean, es = tails["0.99"]["mean"]["value"], tails["0.99"]["es"]["value"]
            under.add_row(name, money(mean), money(es), money(change["value"]), half_width(change))
        print_whole(console, under)
    if record["matrix"]:
        matrix = record["matrix"]
        shocked = plain_table("shock of", *(f"{name} loses more" for name in matrix["venues"]))
        for name, row in zip(matrix["venues"], matrix["matrix"], strict=True):
            shocked.add_row(name, *(f"{money(x['value'])} ± {half_width(x)}" for x in row))
        print_whole(console, shocked)
        console.print(matrix_words(record), soft_wrap=True)


def show_system(console: Console, record: Mapping[str, Any]) -> None:
    """Print the figures of the whole system, and how paths were drawn where that was not plainly."""
    sampling, system = record["sampling"], record["system"]
    if sampling["antithetic"] or sampling["mean_weight"] is not None:
        drawn = "in mirrored pairs" if sampling["antithetic"] else "independently"
        console.print(
            f"drawn {drawn}; estimator: {sampling['estimator']}; {sampling['effective_paths']:,.0f} "
            f"effective paths of {record['paths']:,}"
        )
        if sampling["warning"]:
            console.print(f"[bold]beware:[/] {sampling['warning']}")
    table = plain_table("system", "", "± 95 %")
    rows = {
        "spiral multiplier": (system["spiral_multiplier"], 2),
        **_spiral_parts(system["spiral_multiplier"]),
        "share of toxic liquidations": (system["share_toxic"], 3),
        "accounts that wait for a profit, a step": (system["unprofitable_backlog"], 2),
        "part of keepers' profit that is bid away": (system["keepers"]["oev_leakage_share"], 3),
    }
    for token, own in system["price_multipliers"].items():
        if own["value"] is not None:
            rows[f"price multiplier of {token}"] = (own, 3)
    for name, (figure, digits) in rows.items():
        table.add_row(name, *_with_error(figure, digits))
    print_whole(console, table)
    for name, (figure, _) in rows.items():
        if figure.get("why"):
            console.print(f"{name}: {figure['why']}", soft_wrap=True)
    for row in system["covar"]:
        if row["value"] is not None:
            console.print(
                f"CoVaR {system['covar_level']:.0%} of {row['of']} given {row['given']}: "
                f"{money(row['value'])}, {money(row['delta'])} above its own"
            )


def _spiral_parts(spiral: Mapping[str, Any]) -> dict[str, tuple[Any, int]]:
    """Return the two factors of the spiral multiplier where they are known; the multiplier says why not."""
    parts = {
        "by feedback on prices": spiral["price_feedback"],
        "by keepers' willingness": spiral["willingness"],
    }
    return {f"… {name}": (part, 2) for name, part in parts.items() if part["value"] is not None}


def _with_error(figure: Mapping[str, Any], digits: int) -> tuple[str, str]:
    if figure["value"] is None:
        return "unknown", ""
    if figure["low"] is None or figure["high"] is None:
        return f"{figure['value']:.{digits}f}", "unknown"
    return f"{figure['value']:.{digits}f}", f"{(figure['high'] - figure['low']) / 2:.{digits}f}"


def show_spread(console: Console, spread: Mapping[str, Any]) -> None:
    """Print how far key figures go over the ends of the uncertain ranges."""
    table = plain_table("over the plausible ranges", "own", "least", "at", "most", "at")
    for name, own in spread["figures"].items():
        table.add_row(
            column_text(name),
            figure_text(name, own["value"]),
            figure_text(name, own["least"]),
            own["least_at"],
            figure_text(name, own["most"]),
            own["most_at"],
        )
    print_whole(console, table)


def show_wallets(console: Console, wallets: Mapping[str, Any]) -> None:
    """Print the riskiest wallets with positions in several places."""
    table = plain_table("wallet", "score", "legs", "leverage", "distance", "liquidated", "hedge broken")
    for own in wallets["top"]:
        table.add_row(
            own["wallet"],
            f"{own['score']:.0f}",
            f"{own['legs']}",
            "unknown" if own["leverage"] is None else f"{own['leverage']:.2f}",
            "none" if own["distance"] is None else f"{own['distance']:.1%}",
            f"{own['liquidated']:.0%}",
            f"{own['broken']['value']:.0%}",
        )
    console.print(
        f"{wallets['cross_margin']:,} wallets in several places, {wallets['paths']:,} paths looked at"
    )
    if wallets["top"]:
        print_whole(console, table)


def money(value: float | None) -> str:
    """Return US dollars in three figures with their thousands."""
    if value is None:
        return "unknown"
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:,.2f} {unit}"
    text = f"{value:,.0f}"
    # A sign before a zero would say that a loss fell, by nothing.
    return "0" if text == "-0" else text


def column_text(column: str) -> str:
    """Return a column's name for people, with its unit where `figure_text` does not write that."""
    words = column.removesuffix("_usd").removesuffix("_s").replace("_", " ")
    return f"{words}, US dollars" if column.endswith("_usd") else words


def figure_text(column: str, value: float | None) -> str:
    """Return a figure of a column in the unit that its name ends with, as other tables have it.

    ``_usd`` in thousands, millions or billions of dollars, ``_s`` in seconds to days, and whatever else in
    four significant digits.
    """
    if value is None or not math.isfinite(value):
        return "unknown"
    if column.endswith("_usd"):
        return money(value)
    if column.endswith("_s"):
        return duration(value)
    return plain_figure(value)


def half_width(figure: Mapping[str, Any]) -> str:
    """Return half of an interval; unknown where there are too few paths for one."""
    if figure["low"] is None or figure["high"] is None:
        return "unknown"
    return money((figure["high"] - figure["low"]) / 2)


def run_on_bytecode(
    file: Path,
    *,
    fidelity: str,
    verify: bool,
    seed: int | None,
    path: int,
    off: Sequence[str],
    out: Path | None,
    as_json: bool,
    unused: Sequence[str] = (),
) -> None:
    """Run one path on the protocols' own bytecode; with `verify`, and with the model, and compare.

    Options in `unused` are of a run over many paths and are refused: nothing would come of them.

    Exit codes: 0 done, and every difference explained; 1 a difference that no cause explains; 2 bad input.
    """
    if fidelity not in ("model", "revm"):
        raise InputError(f"--fidelity {fidelity}", fix="model or revm")
    if unused:
        with_ = "--verify" if verify else f"--fidelity {fidelity}"
        raise InputError(
            f"{', '.join(unused)} beside {with_}: that runs one path, and nothing would come of it",
            fix=f"leave out one or the other; --path says which path {with_} runs",
        )
    from simulation.chain.fidelity.keepers import on_chain, run_on_chain
    from simulation.chain.fidelity.verify import verify as compare
    from simulation.chain.revm import RevmEvm
    from simulation.chain.solc import ensure_protocol_toolchain

    scenario = scenario_of(file, {f"channels.{name}.on": False for name in off})
    seed = scenario.file.seed if seed is None else seed

    def make_evm(timestamp: int) -> RevmEvm:
        return RevmEvm(timestamp=timestamp)

    # Both are refused before anybody waits for a compiler.
    on_chain(scenario.run, make_evm)
    if out is not None:
        require_own(out)
        require_folder(out)
    console = stderr_console()
    ensure_protocol_toolchain(
        sorted({venue.kind for venue in scenario.book.lending}),
        lambda line: console.print(line, highlight=False, soft_wrap=True),
    )
    left_out_once(console, scenario)()
    if not verify:
        results, chain = run_on_chain(scenario.run, seed, path, make_evm)
        report = chain_record(scenario, seed, path, chain.chain_events)
        del results
    else:
        report = verification_record(scenario, seed, path, compare(scenario.run, seed, path, make_evm))
    if out is not None:
        try:
            (out / BYTECODE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"--out {out}: {error.strerror}", fix="name a folder to write to") from None
    if as_json:
        print(json.dumps(report))
    else:
        show_bytecode(stdout_console(), report)
    if verify and not report["explained"]:
        raise typer.Exit(1)


def require_folder(out: Path) -> None:
    """Make a folder to write to.

    Raises
    ------
    InputError
        Where none can be.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}", fix="name a folder to write to") from None


def require_own(folder: Path) -> None:
    """Refuse a folder with files of somebody else: a run writes over what has its files' names.

    A folder is ours where a simulation, or one on bytecode, has left its record or was interrupted.

    Raises
    ------
    InputError
        Naming the folder, and one of the files.
    """
    if not folder.is_dir():
        return
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise InputError(f"--out {folder}: {error.strerror}", fix="name a folder to write to") from None
    begun = folder / "paths"
    if not names or (begun / PLAN).is_file() or _is_ours(folder):
        return
    if names == ["paths"] and begun.is_dir() and {entry.name for entry in begun.iterdir()} <= {LOCK, PARTS}:
        return  # killed before it had written its plan
    raise InputError(
        f"--out {folder}: has {names[0]}, and no simulation of ours", fix="name a new or an empty folder"
    )


def _is_ours(folder: Path) -> bool:
    """Return whether a simulation has left its record in a folder."""
    for name, key, known in ((RECORD, "schema", (SCHEMA,)), (BYTECODE, "fidelity", ("revm", "both"))):
        try:
            found = json.loads((folder / name).read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and found.get(key) in known:
            return True
    return False


def chain_record(scenario: Scenario, seed: int, path: int, events: Sequence[ChainEvent]) -> dict[str, Any]:
    """Return what the contracts did, as JSON types."""
    world = scenario.run.world
    tokens = len(world.tokens)
    return {
        "name": scenario.file.name,
        "fidelity": "revm",
        "seed": seed,
        "path": path,
        "liquidations": sum(e.done.revert is None for e in events),
        "reverted": sum(e.done.revert is not None for e in events),
        "events": [
            {
                "step": e.step,
                "wallet": world.book.wallets[int(world.row_wallet[e.row])],
                "venue": world.venues[int(world.row_venue[e.row])],
                "debt": world.tokens[e.debt_reserve % tokens],
                "collateral": world.tokens[e.collateral_reserve % tokens],
                "repaid_raw": str(e.done.repaid_raw),
                "taken_raw": str(e.done.taken_raw),
                "received_raw": str(e.done.received_raw),
                "revert": e.done.revert,
            }
            for e in events
        ],
    }


def verification_record(scenario: Scenario, seed: int, path: int, found: Verification) -> dict[str, Any]:
    """Return a comparison of model and bytecode, as JSON types."""
    return {
        "name": scenario.file.name,
        "fidelity": "both",
        "seed": seed,
        "path": path,
        "liquidations": len(found.differences),
        "causes": dict(found.counts),
        "largest": {c: {"gap": gap, "bound": bound} for c, (gap, bound) in found.largest.items()},
        "explained": found.explained,
        "events": [
            {k: None if v != v or v in (float("inf"),) else v for k, v in asdict(d).items()}
            for d in found.differences
        ],
    }


def show_bytecode(console: Console, report: Mapping[str, Any]) -> None:
    """Print what the contracts did, or where model and contracts differ and why."""
    if report["fidelity"] == "revm":
        console.print(
            f"{report['name']}: path {report['path']} on bytecode, {report['liquidations']:,} liquidations, "
            f"{report['reverted']:,} reverted"
        )
        return
    console.print(
        f"{report['name']}: path {report['path']}, {report['liquidations']:,} liquidations both ways"
    )
    table = plain_table("cause", "liquidations", "largest gap", "its bound", right=("liquidations",))
    for cause, count in report["causes"].items():
        worst = report["largest"].get(cause)
        gaps = ("", "") if worst is None else (f"{worst['gap']:.1e}", f"{worst['bound']:.1e}")
        table.add_row(cause, f"{count:,}", *gaps)
    print_whole(console, table)
    for event in [e for e in report["events"] if e["cause"] == "unexplained"][:20]:
        console.print(
            f"step {event['step']} {event['venue']} {event['account']}: repaid "
            f"{event['model_repaid_raw']} by the model, {event['chain_repaid_raw']} by the contract",
            soft_wrap=True,
        )
