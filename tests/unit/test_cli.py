"""The command line without a chain: help, usage, what is refused before anything is asked, how it loads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from keeper import __version__
from keeper.cli import app
from simulation.chain import revm
from simulation.chain.toolchain import ensure_toolchain
from tests.command_line import ROOT, Inside, command, environment, run

CONFIG = """
chain_id = 31337
[rpc]
url = "http://127.0.0.1:9"
[[protocols]]
kind = "aave-v3"
provider = "0x5fbdb2315678afecb367f032d93f642f64180aa3"
"""


def commands() -> dict[str, list[str]]:
    """Return every command and group, with the options that its help must show."""

    def walk(node: object, words: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
        options = [p.opts[0] for p in getattr(node, "params", ()) if p.opts[0].startswith("--")]
        yield " ".join(words), options
        if isinstance(node, TyperGroup):
            for name, inner in node.commands.items():
                yield from walk(inner, (*words, name))

    return dict(walk(typer.main.get_command(app), ()))


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    monkeypatch.setenv("COLUMNS", "110")
    return Inside(monkeypatch, capsys)


# --------------------------------------------------------------------------------------------- help and usage


@pytest.mark.parametrize("name", commands())
def test_every_command_has_help(name: str) -> None:
    shown = run(*name.split(), "--help")
    assert (shown.code, shown.err) == (0, "")
    assert f"Usage: marginline {name}".rstrip() in shown.out
    for option in commands()[name]:
        assert option in shown.out


def test_version_and_bare_groups(inside: Inside) -> None:
    assert inside("version").out == f"marginline {__version__}\n"
    for group in ([], ["keeper"], ["chain"]):
        bare = inside(*group)
        assert bare.code == 2
        assert "Commands" in bare.out + bare.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("parity", "Missing argument 'protocol'; see: marginline parity --help"),
        ("chain fork", "Missing option '--rpc'; see: marginline chain fork --help"),
        ("keeper scna", "No such command 'scna'. Did you mean 'scan'; see: marginline keeper --help"),
        (
            "parity aave-v3 --casse 3",
            "No such option: --casse (Possible options: --cases, --seed); see: marginline parity --help",
        ),
        (
            "parity aave-v3 --cases 0",
            "Invalid value for '--cases': Input should be greater than or equal to 1, got '0'; "
            "see: marginline parity --help",
        ),
        (
            "parity aave-v3 --seed x",
            "Invalid value for '--seed': Input should be a valid integer, unable to parse string as an "
            "integer, got 'x'; see: marginline parity --help",
        ),
        ("keeper scan -c", "Option '-c' requires an argument"),
    ],
)
def test_usage_error_is_one_line(inside: Inside, words: str, says: str) -> None:
    assert inside(*words.split()).line() == says


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    with subprocess.Popen(
        command("keeper", "--help"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


# --------------------------------------------------------------------------- refused before anything is asked


def refused_config(inside: Inside, folder: Path, text: str, *arguments: str) -> str:
    config = folder / "keeper.toml"
    config.write_text(text, encoding="utf-8")
    return inside("keeper", *(arguments or ("run",)), "--config", str(config)).line()


def test_configuration_that_is_not_there(inside: Inside, tmp_path: Path) -> None:
    missing = tmp_path / "keeper.toml"
    says = f"cannot read configuration {missing}: No such file or directory; create one with: "
    for words in (["run"], ["scan"], ["explain", "0x" + "11" * 20], ["journal"], ["doctor"]):
        line = inside("keeper", *words, "--config", str(missing)).line()
        assert line == says + "marginline keeper init"
    assert inside("keeper", "run", "--config", str(tmp_path)).line().startswith("cannot read configuration")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[rpc]", "[limits]\nmax_inflight = 3\n[rpc]", "did you mean 'limits.max_in_flight'?"),
        ("chain_id = 31337", 'chain_id = "main"', "chain_id = 'main': must be a valid integer"),
        (
            'kind = "aave-v3"',
            'kind = "aave-v2"',
            "protocols.0.kind: unknown protocol 'aave-v2'; did you mean",
        ),
        (
            'kind = "aave-v3"',
            'kind = "morpho-blue"',
            "protocols.0.provider: means nothing for morpho-blue; it knows kind, contract, market",
        ),
        (
            'kind = "aave-v3"\nprovider = "0x5fbdb2315678afecb367f032d93f642f64180aa3"',
            'kind = "aave-v3.6"',
            "protocols.0.provider: is missing; aave-v3.6 is found from Aave's PoolAddressesProvider",
        ),
        (
            'kind = "aave-v3"\nprovider =',
            'kind = "morpho-blue"\ncontract =',
            "protocols.0.market: is missing; morpho-blue is found from the market's id",
        ),
        (
            'kind = "aave-v3"\nprovider = ',
            'kind = "morpho-blue"\nlabel = "x"\ncontract = ',
            "protocols.0.label: means nothing for morpho-blue",
        ),
        (
            "[[protocols]]",
            '[[protocols]]\nmarket = "0x12"',
            "protocols.0.market = '0x12': not a market id of 32 bytes in hex",
        ),
        (
            "[[protocols]]",
            '[[protocols]]\nlabel = "Prime Market"',
            "protocols.0.label = 'Prime Market': not a",
        ),
        ("[rpc]", '[policy]\nkind = "x"\n[rpc]', "policy.kind: unknown policy 'x'; known: three-price"),
        ("[rpc]", "[guards.jmup]\n[rpc]", "guards.jmup: unknown guard 'jmup'; did you mean 'jump'"),
        ("chain_id", "chain_id = 3\nchain_id", "not TOML"),
        ('"http:', '"ftp:', "not an RPC URL: ftp://127.0.0.1:9; it must start with http"),
    ],
)
def test_configuration_that_is_wrong(inside: Inside, tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in CONFIG
    assert says in refused_config(inside, tmp_path, CONFIG.replace(old, new, 1))


def test_mode_beyond_the_file(inside: Inside, tmp_path: Path) -> None:
    line = refused_config(inside, tmp_path, CONFIG, "run", "--mode", "live")
    assert line.startswith("--mode live goes beyond mode = 'observe' in ")
    assert line.endswith("keeper.toml; change the file")
    line = refused_config(inside, tmp_path, CONFIG, "run", "--mode", "lvie")
    assert line == "--mode: 'lvie' is not a mode; choose observe, dry-run or live"


def test_journal_of_a_keeper_that_never_ran(inside: Inside, tmp_path: Path) -> None:
    line = refused_config(inside, tmp_path, CONFIG, "journal")
    path = tmp_path / "keeper-journal.sqlite"
    assert line == f"no journal at {path}; the first marginline keeper run creates it"
    assert list(tmp_path.iterdir()) == [tmp_path / "keeper.toml"]
    line = refused_config(inside, tmp_path, CONFIG, "journal", "--account", "vitalik")
    assert line == "--account: 'vitalik' is not an address; give 0x and 40 hex digits"


@pytest.mark.parametrize("option", ["--json", "--report"])
def test_demo_looks_first_whether_it_can_write(
    inside: Inside, tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = tmp_path / "nowhere"
    line = inside("demo", option, str(nowhere / "file")).line()
    assert line == f"{option}: no folder {nowhere}; create it first"
    line = inside("demo", option, str(tmp_path)).line()
    assert line == f"{option}: {tmp_path} is a folder; give the name of a file"
    file = tmp_path / "file"
    # Asked of the system, since tests may run as root, whom no mode keeps out.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    assert (
        inside("demo", option, str(file)).line()
        == f"{option}: {file} cannot be written; choose another place"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["aave-v4"], "'aave-v4'; did you mean 'aave-v3'"),
        (["aave-v3", "--backend", "geth"], "backend 'geth'"),
    ],
)
def test_parity_by_a_wrong_name(inside: Inside, words: list[str], says: str) -> None:
    ensure_toolchain()
    assert says in inside("parity", *words).line()


def test_parity_on_a_python_without_the_fast_evm(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_toolchain()
    monkeypatch.setitem(sys.modules, "pyrevm", None)  # what an import finds where there is no wheel
    assert not revm.available()
    line = inside("parity", "aave-v3", "--backend", "revm", "--cases", "1").line()
    assert "pyrevm" in line
    assert "anvil" in line, "what to use instead"


# --------------------------------------------------------------------------------------------- how it loads

SLOW = (
    "numpy",
    "numba",
    "pandas",
    "pydantic",
    "requests",
    "sqlalchemy",
    "web3",
    "eth_account",
    "vyper",
    "plotly",
)


def test_help_loads_nothing_that_takes_time() -> None:
    show = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr));"
        "sys.argv = ['marginline', '--help']; from keeper.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", show],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stderr.split())
    assert "typer" in loaded
    assert loaded.isdisjoint(SLOW), loaded & set(SLOW)
    ours = {m for m in loaded if m.split(".")[0] in ("keeper", "simulation", "oracle", "contracts_abi")}
    assert ours == {"keeper", "keeper.cli", "contracts_abi", "contracts_abi.errors"}


def test_compiled_code_without_a_place_is_one_line(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*, as_json: bool) -> None:
        raise RuntimeError(f"cannot cache function 'mix': no locator available for file 'x.py', {as_json}")

    monkeypatch.setattr("keeper.commands.packs.list_packs", nowhere)
    assert "set NUMBA_CACHE_DIR to a folder that can be written" in inside("pack", "list").line()
