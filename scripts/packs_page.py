"""Write what the event packs come to into docs/contagion/packs.md.

::

    python scripts/packs_page.py           run all packs, write the generated parts
    python scripts/packs_page.py --check   exit 1 when they are out of date

A test holds the verdicts to a run of its own; the ranges take minutes and are written by this alone.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from keeper.commands.packs import figure  # noqa: E402
from simulation.contagion.packs import pack_folder, pack_names  # noqa: E402
from simulation.contagion.packs.files import load_pack  # noqa: E402
from simulation.contagion.packs.run import run_pack, spread_of  # noqa: E402

PAGE: Final = ROOT / "docs" / "contagion" / "packs.md"


def ends(low: float | None, high: float | None) -> str:
    """Return a range, or the one figure that both ends are."""
    return figure(low) if figure(low) == figure(high) else f"{figure(low)} to {figure(high)}"


def target_rows(record: Mapping[str, Any]) -> list[str]:
    """Return the table of targets: published, simulated, band, verdict."""
    rows = [
        "| target | published | simulated, 95 % | band | unit | | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for t in record["targets"]:
        mean = t["simulated"]
        rows.append(
            f"| {t['name']} | {ends(*t['published'])} | {figure(mean['value'])} "
            f"({ends(mean['low'], mean['high'])}) | {ends(*t['band'])} | {t['unit']} | {t['role']} "
            f"| {t['verdict']} |"
        )
    return rows


def parameter_rows(record: Mapping[str, Any]) -> list[str]:
    """Return the table of parameters, with the held-out figures over each one's range."""
    held = [t["name"] for t in record["targets"] if t["role"] == "held out"]
    rows = [
        f"| parameter | value | range | | {' | '.join(held)} |",
        "|---|---|---|---|" + "---|" * len(held),
    ]
    for p, own in zip(record["parameters"], record["spread"], strict=True):
        over = [ends(min(own["figures"][name]), max(own["figures"][name])) for name in held]
        how = "fitted" if p["fitted"] else "chosen"
        unit = f" {p['unit']}" if p["unit"] else ""
        rows.append(
            f"| {p['name']} | {figure(p['value'])}{unit} | {ends(*p['range'])} | {how} | {' | '.join(over)} |"
        )
    if record["rivals"]:
        found = [[r["figures"][name][0] for r in record["rivals"]] for name in held]
        over = [ends(min(values), max(values)) for values in found]
        count = len(record["rivals"])
        rows.append(f"| {count} other calibrations | | | | {' | '.join(over)} |")
    totals = [ends(*spread_of(record, name)) for name in held]  # type: ignore[misc]
    rows.append(f"| all of them | | | | {' | '.join(totals)} |")
    return rows


def compared_rows(record: Mapping[str, Any]) -> list[str]:
    """Return the table of what is compared with the pack."""
    rows = ["| compared with | figure | pack | here | difference, 95 % |", "|---|---|---|---|---|"]
    for other in record["compared"]:
        for name, f in other["figures"].items():
            gap = f["difference"]
            rows.append(
                f"| {other['name']} | `{name}` | {figure(f['pack']['value'])} | {figure(f['here']['value'])} "
                f"| {figure(gap['value'])} ({ends(gap['low'], gap['high'])}) |"
            )
    return rows


def head(record: Mapping[str, Any]) -> str:
    """Return the sentence that says what was run."""
    accounts = "1 account" if record["accounts"] == 1 else f"{record['accounts']:,} accounts"
    return (
        f"{record['paths']} paths of {record['steps']} steps of {record['step_s']:g} s, "
        f"{accounts}, seed {record['seed']}; bands of commit "
        f"`{record['targets_commit']}`, sha256 `{record['targets_sha256'][:16]}…`."
    )


def rendered(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the generated parts of a pack by their names."""
    name = record["name"]
    return {
        f"targets of {name}": [head(record), "", *target_rows(record)],
        f"comparisons of {name}": compared_rows(record),
        **({} if record["spread"] is None else {f"ranges of {name}": parameter_rows(record)}),
    }


def put(text: str, parts: Mapping[str, list[str]]) -> str:
    """Return a page with its generated parts written anew.

    Raises
    ------
    ValueError
        If a part has no place in it.
    """
    for name, rows in parts.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"no place for {name}: it needs {begin} and {end}")
        body = "\n".join(rows)
        text = f"{before}{begin}\n\n{body}\n\n{end}{after}"
    return text


def main(arguments: list[str]) -> int:
    """Run the packs; write the page, or check it."""
    old = PAGE.read_text(encoding="utf-8")
    text = old
    for name in pack_names():
        record = run_pack(load_pack(pack_folder(name)), version="")
        text = put(text, rendered(record))
    if arguments == ["--check"]:
        if text != old:
            print(f"{PAGE.name} out of date: run python scripts/packs_page.py", file=sys.stderr)
        return int(text != old)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
