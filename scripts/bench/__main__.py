"""Run all benchmarks, one after another so that they do not slow each other, and put them into one table.

Each runs in a process of its own. ``--json FILE`` writes one document with what every benchmark wrote.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _common import console, headline_from, headline_table, machine_line

HERE = Path(__file__).resolve().parent
NAMES = tuple(sorted(file.stem.removeprefix("bench_") for file in HERE.glob("bench_*.py")))


def document_of(name: str, options: Sequence[str]) -> dict[str, Any] | None:
    """Run one benchmark; returns what it wrote, None when it failed."""
    with tempfile.TemporaryDirectory(prefix="marginline-bench-") as folder:
        target = Path(folder) / "document.json"
        command = [sys.executable, str(HERE / f"bench_{name}.py"), "--json", str(target), *options]
        if subprocess.run(command, check=False).returncode:
            return None
        document: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
        return document


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, run, report; exit 1 if a benchmark failed."""
    options = argparse.ArgumentParser(
        prog="bench", description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    options.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all without it")
    options.add_argument("--turns", type=int, help="how often each contestant has its turn")
    options.add_argument(
        "--quick", action="store_true", help="seconds only: shows that it runs, not how fast"
    )
    options.add_argument("--full", action="store_true", help="also what takes minutes")
    options.add_argument("--demo", action="store_true", help="also the demo as a whole, which takes a minute")
    options.add_argument("--cold", action="store_true", help="also from a fresh clone; needs a network")
    options.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    given = options.parse_args(arguments)
    unknown = [name for name in given.names if name not in NAMES]
    if unknown:
        options.error(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    common = [f"--{name}" for name in ("quick", "full") if getattr(given, name)]
    common += [] if given.turns is None else ["--turns", str(given.turns)]
    only_start = [f"--{name}" for name in ("demo", "cold") if getattr(given, name)]

    documents, failed = [], []
    for name in given.names or NAMES:
        print(f"== {name}", flush=True)
        document = document_of(name, [*common, *(only_start if name == "start" else ())])
        if document is None:
            failed.append(name)
        else:
            documents.append(document)
    out = console()
    lines = [headline_from(entry) for document in documents for entry in document["headlines"]]
    if lines:
        out.print(headline_table(lines))
        out.print(machine_line(documents[0]["machine"]), highlight=False)
    if given.json is not None:
        given.json.write_text(json.dumps({"benches": documents, "failed": failed}, indent=2) + "\n", "utf-8")
    if failed:
        print(f"error: failed: {', '.join(failed)}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
