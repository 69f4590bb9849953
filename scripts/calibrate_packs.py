"""Find the fitted parameters of the event packs, and write them to each pack's ``calibrated.toml``.

::

    python scripts/calibrate_packs.py [NAME …] [--runs N] [--check]

Only targets whose role is ``calibrated`` are looked at. The search begins at the values in the pack's files,
makes no draw of its own, and so finds the same values each time; ``--check`` searches and writes nothing, and
exits with 1 where the values are others than those that are written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from simulation.contagion.packs import pack_folder, pack_names  # noqa: E402
from simulation.contagion.packs.files import load_pack  # noqa: E402
from simulation.contagion.packs.fit import MOST_RUNS, Fit, fit  # noqa: E402


def written(found: Fit) -> str:
    """Return what stands in a ``calibrated.toml``."""
    parts = ["# Written by scripts/calibrate_packs.py from the calibrated targets alone.", "[values]"]
    parts += _rows(found.values)
    for rival in found.rivals:
        parts += ["", "[[rivals]]", *_rows(rival)]
    return "\n".join(parts) + "\n"


def _rows(values: Mapping[str, float]) -> list[str]:
    return [f'"{name}" = {value!r}' for name, value in values.items()]


def main(arguments: list[str]) -> int:
    """Calibrate, and write or compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="packs; all without")
    parser.add_argument("--runs", type=int, default=MOST_RUNS, help="most runs of a search")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 where values differ")
    parser.add_argument("--verbose", action="store_true", help="show each run")
    asked = parser.parse_args(arguments)
    stale = []
    for name in asked.names or pack_names():
        folder = pack_folder(name)

        def tell(tried: Fit) -> None:
            if asked.verbose:
                print(f"  {tried.runs:3d} {tried.loss:.5f} {tried.values} {tried.figures}", flush=True)

        found = fit(load_pack(folder, calibrated=False), most_runs=asked.runs, on_run=tell)
        print(f"{name}: loss {found.loss:.2g} after {found.runs} runs")
        for parameter, value in found.values.items():
            print(f"  {parameter}: {value:,g}")
        print(f"  {len(found.rivals)} rivals")
        for target, figure in found.figures.items():
            print(f"  {target}: {figure:,g}")
        file = folder / "calibrated.toml"
        text = written(found)
        if asked.check:
            stale += [name] if not file.is_file() or file.read_text(encoding="utf-8") != text else []
        else:
            file.write_text(text, encoding="utf-8")
    if stale:
        print(f"out of date: {', '.join(stale)}", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
