"""``marginline pack``: events with published figures, and how near a simulation comes to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from contracts_abi.errors import InputError
from keeper.commands.console import plain_table, print_whole, progress_bar, stderr_console, stdout_console
from simulation.contagion.packs import pack_folder, pack_names
from simulation.contagion.packs.build import pack_scenario, pack_table, value_at
from simulation.contagion.packs.files import Pack, load_pack
from simulation.contagion.packs.run import run_pack, runs_of, spread_of

COLOURS: Final[Mapping[str, str]] = {
    "hit": "green",
    "miss": "red",
    "calibrated": "default",
    "calibration off": "yellow",
}


def list_packs(*, as_json: bool) -> None:
    """Print the packaged events: what each has, and what it takes."""
    packs = [load_pack(pack_folder(name)) for name in pack_names()]
    if as_json:
        print(json.dumps([_summary(pack) for pack in packs]))
        return
    table = plain_table("pack", "event", "held out", "calibrated", "fitted", right=("held out", "calibrated"))
    for pack in packs:
        own = _summary(pack)
        table.add_row(
            pack.name, pack.file.title, str(own["held_out"]), str(own["calibrated"]), str(len(own["fitted"]))
        )
    print_whole(stdout_console(), table)


def _summary(pack: Pack) -> dict[str, Any]:
    return {
        "name": pack.name,
        "title": pack.file.title,
        "date": pack.file.date,
        "held_out": len(pack.role("held out")),
        "calibrated": len(pack.role("calibrated")),
        "fitted": [p.name for p in pack.fitted],
    }


def show_pack(name: str, *, as_json: bool) -> None:
    """Print a pack's targets with their sources and bands, and its parameters with their ranges."""
    pack = load_pack(pack_folder(name))
    table = pack_table(pack)
    # A pack that could not be run is refused here as well.
    accounts = pack_scenario(pack).run.world.rows
    if as_json:
        parameters = [
            {**p.model_dump(mode="json"), "value": value_at(table, p.keys[0])} for p in pack.file.parameter
        ]
        targets = [{**t.model_dump(mode="json"), "bounds": list(t.bounds)} for t in pack.targets]
        print(
            json.dumps(
                {
                    **_summary(pack),
                    "summary": pack.file.summary.strip(),
                    "accounts": accounts,
                    "targets_sha256": pack.file.targets_sha256,
                    "targets_commit": pack.file.targets_commit,
                    "targets": targets,
                    "parameters": parameters,
                    "left_out": list(pack.file.left_out),
                }
            )
        )
        return
    console = stdout_console()
    console.print(f"{pack.name}: {pack.file.title}, {accounts:,} accounts")
    console.print(" ".join(pack.file.summary.split()), soft_wrap=True)
    console.print(
        f"bands of commit {pack.file.targets_commit}, sha256 {pack.file.targets_sha256}", soft_wrap=True
    )
    rows = plain_table("target", "published", "band", "unit", "", "grade", "source")
    for t in pack.targets:
        low, high = t.bounds
        rows.add_row(
            t.name, _range(*t.published), _range(low, high), t.unit or "number", t.role, t.grade, t.source
        )
    print_whole(console, rows)
    free = plain_table("parameter", "value", "range", "unit", "", "why")
    for p in pack.file.parameter:
        value = value_at(table, p.keys[0])
        how = "fitted" if p.fitted else "chosen"
        free.add_row(p.name, figure(value), _range(p.low, p.high), p.unit or "number", how, p.why)
    print_whole(console, free)
    for sentence in pack.file.left_out:
        console.print(f"not modelled: {sentence}", soft_wrap=True)


def run_pack_command(
    name: str, *, paths: int | None, seed: int | None, spread: bool, out: Path | None, as_json: bool
) -> None:
    """Run a pack and print each target's verdict; write the record as JSON where a folder is given.

    Exit codes: 0 it ran, whatever the verdicts; 2 bad input.
    """
    pack = load_pack(pack_folder(name))
    file = None if out is None else _place(out, pack.name)
    scenario = pack_scenario(pack)
    count = scenario.file.paths if paths is None else paths
    with progress_bar(stderr_console()) as bar:
        total = runs_of(pack, spread=spread)
        line = bar.add_task(f"{total} runs of {count:,} paths", total=total * count)
        record = run_pack(
            pack,
            version=version("marginline"),
            paths=count,
            seed=seed,
            spread=spread,
            on_done=lambda done: bar.update(line, advance=done),
        )
    text = json.dumps(record, indent=1) + "\n"
    if file is not None:
        file.write_text(text, encoding="utf-8")
    if as_json:
        print(text, end="")
        return
    show_record(stdout_console(), record)
    if file is not None:
        stderr_console().print(str(file), highlight=False, soft_wrap=True)


def _place(out: Path, name: str) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}", fix="name a folder that can be made") from None
    return out / f"{name}.json"


def show_record(console: Console, record: Mapping[str, Any]) -> None:
    """Print what a pack came to."""
    console.print(
        f"{record['name']}: {record['title']}; {record['paths']:,} paths of {record['steps']:,} steps, "
        f"{record['accounts']:,} accounts, seed {record['seed']}"
    )
    columns = ["target", "published", "simulated", "95 % of the mean", "band", "unit"]
    if record["spread"] is not None:
        columns.append("over all ranges")
    table = plain_table(*columns, "", "verdict")
    for target in record["targets"]:
        mean = target["simulated"]
        row = [
            target["name"],
            _range(*target["published"]),
            figure(mean["value"]),
            _range(mean["low"], mean["high"]),
            _range(*target["band"]),
            target["unit"] or "number",
        ]
        if record["spread"] is not None:
            ends = spread_of(record, target["name"])
            row.append("" if ends is None else _range(*ends))
        verdict = Text(target["verdict"], style=COLOURS[target["verdict"]])
        table.add_row(*row, target["role"], verdict)
    print_whole(console, table)
    free = plain_table("parameter", "value", "range", "unit", "")
    for p in record["parameters"]:
        how = "fitted" if p["fitted"] else "chosen"
        free.add_row(p["name"], figure(p["value"]), _range(*p["range"]), p["unit"] or "number", how)
    print_whole(console, free)
    for other in record["compared"]:
        rows = plain_table(other["name"], "pack", "here", "difference", "95 %")
        for statistic, f in other["figures"].items():
            gap = f["difference"]
            rows.add_row(
                statistic,
                figure(f["pack"]["value"]),
                figure(f["here"]["value"]),
                figure(gap["value"]),
                _range(gap["low"], gap["high"]),
            )
        console.print(f"{other['name']}: {other['meaning']}", soft_wrap=True)
        print_whole(console, rows)
    if record["spread"]:
        names = list(record["spread"][0]["figures"])
        rows = plain_table("one parameter varied", "at", *names)
        for own in record["spread"]:
            for k, value in enumerate(own["at"]):
                found = [figure(own["figures"][n][k]) for n in names]
                rows.add_row(own["parameter"] if k == 0 else "", figure(value), *found)
        print_whole(console, rows, key=2)
    verdicts = [t["verdict"] for t in record["targets"]]
    told = ", ".join(f"{verdicts.count(v)} {v}" for v in COLOURS if v in verdicts)
    console.print(f"{told}; a calibrated figure is no hit")


def figure(value: float | None) -> str:
    """Return a number in four significant digits."""
    if value is None:
        return "unknown"
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= 10 * size:
            return f"{value / size:,.4g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:.4g}"


def _range(low: float | None, high: float | None) -> str:
    return figure(low) if low == high else f"{figure(low)} to {figure(high)}"
