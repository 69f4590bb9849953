"""Measure how long it takes until something happens: help, set-up, chains, and on request the demo.

Programs are started as a user starts them, each in a process of its own. Chains are built in a cache folder
that is thrown away, and loaded from there again; a node counts as up when it has answered.

With ``--demo`` the demo runs once as a whole on what is installed, with ``--cold`` once from a fresh clone
with an empty home, which needs PyPI and npm. ``--full`` builds 100,000 accounts too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from _common import ROOT, Headline, Report, Summary, parser, race, run, table

from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.seed import SeededState, load_or_build
from simulation.chain.toolchain import cache_dir

BASE_PYTHON = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
"""The Python that `scripts/dev.py` is run by; the one of the virtual environment is not it."""

PROGRAMS: Mapping[str, tuple[object, ...]] = {
    "python -c pass": (sys.executable, "-c", "pass"),
    "python -c 'import web3'": (sys.executable, "-c", "import web3"),
    "marginline --help": (sys.executable, "-P", "-m", "keeper", "--help"),
}
SET_UP = "scripts/dev.py, all prepared"


def program(*command: object, folder: Path = ROOT, **environment: str) -> None:
    """Run a program to its end; one that fails ends the benchmark with its last words."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise SystemExit(f"{command[0]} ended with {done.returncode}: {words[-1] if words else 'no output'}")


def is_prepared() -> bool:
    """Tell whether `scripts/dev.py` would start at once, so that measuring it installs nothing."""
    spec = importlib.util.spec_from_file_location("dev", ROOT / "scripts" / "dev.py")
    assert spec is not None
    assert spec.loader is not None
    dev = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dev)
    return BASE_PYTHON.exists() and bool(dev.is_prepared())


def programs(turns: int) -> dict[str, Summary]:
    """Return the seconds that each program takes to start and end."""
    commands = dict(PROGRAMS)
    if is_prepared():
        commands[SET_UP] = (BASE_PYTHON, ROOT / "scripts" / "dev.py", "setup")

    def starting(command: tuple[object, ...]) -> Callable[[], object]:
        return lambda: program(*command)

    taken, _ = race({name: starting(command) for name, command in commands.items()}, turns, 0.0)
    return {name: Summary.of(times) for name, times in taken.items()}


# ---------------------------------------------------------------------------------------------------- chains


@dataclass(frozen=True, slots=True)
class Chain:
    """A seeded chain.

    Attributes
    ----------
    accounts
        Borrowers on it.
    build_s
        Seconds from nothing to a state file.
    start_s
        Seconds from a state file to an answering node.
    megabytes
        Size of the state file.
    """

    accounts: int
    build_s: float
    start_s: Summary
    megabytes: float


@contextlib.contextmanager
def empty_states() -> Iterator[None]:
    """Use a cache folder without a state, but with all that is installed."""
    installed = cache_dir()
    before = os.environ.get("MARGINLINE_CACHE")
    with tempfile.TemporaryDirectory(prefix="marginline-bench-") as folder:
        for part in installed.iterdir():
            if part.name != "state":
                (Path(folder) / part.name).symlink_to(part)
        os.environ["MARGINLINE_CACHE"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["MARGINLINE_CACHE"]
            else:
                os.environ["MARGINLINE_CACHE"] = before


def chains(sizes: Sequence[int], seed: int, turns: int) -> list[Chain]:
    """Build and load chains of all sizes."""
    with empty_states():
        states: dict[int, SeededState] = {}
        build_s = {}
        for size in sizes:
            started = time.perf_counter()
            states[size] = load_or_build(size, seed)
            build_s[size] = time.perf_counter() - started

        def starting(size: int) -> Callable[[], object]:
            return lambda: Anvil.start(AnvilOptions(load_state=states[size].path)).close()

        taken, _ = race({str(size): starting(size) for size in sizes}, turns, 0.0)
        return [
            Chain(size, build_s[size], Summary.of(taken[str(size)]), states[size].path.stat().st_size / 1e6)
            for size in sizes
        ]


# ------------------------------------------------------------------------------------------------------ demo


def warm_demo() -> tuple[float, Mapping[str, Any]]:
    """Run the demo as a user does; returns its seconds and what it says of its own phases."""
    with tempfile.TemporaryDirectory(prefix="marginline-bench-") as folder:
        record = Path(folder) / "demo.json"
        started = time.perf_counter()
        program(sys.executable, "-P", "-m", "keeper", "demo", "--json", record, folder=Path(folder))
        elapsed = time.perf_counter() - started
        return elapsed, json.loads(record.read_text(encoding="utf-8"))["timings_s"]


def cold_demo() -> float:
    """Run the demo from a fresh clone with an empty home; returns its seconds."""
    with tempfile.TemporaryDirectory(prefix="marginline-bench-") as folder:
        clone, home = Path(folder) / "clone", Path(folder) / "home"
        home.mkdir()
        program("git", "clone", "--quiet", ROOT, clone)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MARGINLINE_", "XDG_", "UV_C"))}
        started = time.perf_counter()
        program(
            *(
                shutil.which("env") or "env",
                "-i",
                *(f"{k}={v}" for k, v in inherited.items()),
                f"HOME={home}",
            ),
            *(BASE_PYTHON, clone / "scripts" / "dev.py", "demo"),
            folder=clone,
        )
        return time.perf_counter() - started


# --------------------------------------------------------------------------------------------------- report


def measure(sizes: Sequence[int], seed: int, turns: int, *, demo: bool, cold: bool) -> Report:
    """Measure all that is asked for."""
    started = programs(turns)
    built = chains(sizes, seed, turns)
    headlines = [
        Headline(
            "marginline --help",
            started["marginline --help"],
            "s",
            at_most=0.5,
            note="; ".join(f"{name}: {started[name].text(2)} s" for name in list(PROGRAMS)[:2]),
        )
    ]
    if SET_UP in started:
        headlines.append(Headline(f"set-up by {SET_UP}", started[SET_UP], "s", at_most=1))
    headlines += [
        Headline(
            f"local chain with {chain.accounts:,} accounts, from its state file",
            chain.start_s,
            "s",
            at_most=0.1 if chain.accounts == 200 else None,
            note=f"built once in {chain.build_s:.1f} s; {chain.megabytes:,.0f} MB",
        )
        for chain in built
    ]
    figures: dict[str, Any] = {
        "seconds": {name: asdict(summary) for name, summary in started.items()},
        "chains": [asdict(chain) for chain in built],
        "turns": turns,
    }
    if demo:
        elapsed, phases = warm_demo()
        figures["demo"] = {"warm_s": elapsed, "phases": phases}
        headlines.append(Headline("demo, warm", Summary.of([elapsed]), "s", at_most=60))
    if cold:
        elapsed = cold_demo()
        figures["demo_cold_s"] = elapsed
        headlines.append(
            Headline("demo, from a fresh clone with an empty home", Summary.of([elapsed]), "s", at_most=180)
        )
    shown = table("programs, start to end", "", "s")
    for name, summary in started.items():
        shown.add_row(name, summary.text(2))
    return Report(tuple(headlines), figures, (shown,))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, report."""
    options = parser(__doc__)
    options.add_argument("--accounts", type=int, nargs="+", default=[200, 10_000], help="chains to build")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--demo", action="store_true", help="also run the demo, which takes a minute")
    options.add_argument(
        "--cold", action="store_true", help="also run it from a fresh clone; needs a network"
    )
    given = options.parse_args(arguments)
    if given.quick:
        given.accounts, given.turns = [20], 1
    if given.full:
        given.accounts = [*given.accounts, 100_000]
    run(
        "start",
        lambda: measure(given.accounts, given.seed, given.turns, demo=given.demo, cold=given.cold),
        given.json,
    )


if __name__ == "__main__":
    main()
