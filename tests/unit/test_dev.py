"""scripts/dev.py: what it says before it writes anything, and when it sets up anew."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def dev(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script as a module, set up for an environment that does not exist."""
    monkeypatch.setenv("MARGINLINE_VENV", str(tmp_path / "venv"))
    spec = importlib.util.spec_from_file_location("dev", ROOT / "scripts" / "dev.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pretend_prepared(dev: ModuleType, cache: Path) -> None:
    """Put everything in place that a set-up leaves behind, without the set-up."""
    dev.PYTHON.parent.mkdir(parents=True)
    dev.PYTHON.touch()
    (dev.VENV / "pyvenv.cfg").write_text("version = 3.11.2\n")
    (cache / "npm").mkdir()
    dev.STAMP.write_text(dev.fingerprint())


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on stderr."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ((3, 10, 13, "final", 0), "is too old; run this with CPython 3.11 to 3.14"),
        (
            (3, 15, 0, "final", 0),
            "is too new (ckzg, needed to sign, has no wheel for it); run this with CPython",
        ),
    ],
)
def test_a_wrong_python_is_refused_with_the_range(
    dev: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    version: tuple[int, int, int, str, int],
    words: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", version)
        with pytest.raises(SystemExit) as stop:
            dev.check_machine()
    assert stop.value.code == 2
    assert words in said(capsys)


def test_this_python_is_accepted(dev: ModuleType) -> None:
    dev.check_machine()


def test_a_python_without_venv_is_told_the_package(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        dev.make_environment()
    assert "apt install python3-venv" in said(capsys)


def test_a_folder_that_is_no_environment_is_left_alone(
    dev: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    dev.VENV.mkdir()
    (dev.VENV / "thesis.txt").write_text("two years of work")
    with pytest.raises(SystemExit):
        dev.make_environment()
    assert "is not a virtual environment" in said(capsys)
    assert (dev.VENV / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("WARNING: Retrying ... NewConnectionError\nERROR: No matching distribution", "cannot be reached"),
        ("error: Failed to fetch\n  cause: error sending request for url", "cannot be reached"),
        ("error: x\n  cause: invalid peer certificate: UnknownIssuer", "SSL_CERT_FILE"),
        (
            "Using Python\nerror: No solution\n  cause: a has no wheels",
            "error: No solution cause: a has no wheels",
        ),
        ("one\nlast words", "last words"),
        ("", "no reason given"),
    ],
)
def test_a_failed_step_is_reduced_to_its_reason(dev: ModuleType, output: str, words: str) -> None:
    assert words in dev.why(output)


def test_an_unknown_command_names_the_known_ones(dev: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        dev.main(["tset"])
    assert stop.value.code == 2
    assert "known: demo, test, lint, bench, chaos, run, setup" in said(capsys)


def test_nothing_is_prepared_in_an_empty_folder(dev: ModuleType) -> None:
    assert not dev.is_prepared()
    assert dev.fingerprint() == ""


def test_what_is_prepared_starts_at_once(dev: ModuleType, cache: Path) -> None:
    pretend_prepared(dev, cache)
    assert dev.is_prepared()
    dev.prepare()  # a set-up would fail here: there is no network


@pytest.mark.parametrize("change", ["lock", "python", "cache", "stamp", "interpreter"])
def test_a_change_is_set_up_anew(
    dev: ModuleType, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    pretend_prepared(dev, cache)
    if change == "lock":
        other = tmp_path / "requirements.lock"
        other.write_text("uv==0\n")
        monkeypatch.setattr(dev, "PREPARED_FROM", (other,))
    elif change == "python":
        (dev.VENV / "pyvenv.cfg").write_text("version = 3.11.3\n")
    elif change == "cache":
        (cache / "npm").rmdir()
    elif change == "stamp":
        dev.STAMP.unlink()
    else:
        dev.PYTHON.unlink()
    assert not dev.is_prepared()


@pytest.mark.parametrize(
    ("arguments", "parallel"),
    [
        ([], True),
        (["tests/unit", "-k", "book"], True),
        (["-n0"], False),
        (["-n", "2"], False),
        (["--pdb"], False),
    ],
)
def test_tests_run_in_parallel_unless_told_otherwise(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, arguments: list[str], parallel: bool
) -> None:
    ran: list[tuple[object, ...]] = []
    monkeypatch.setattr(dev, "become", lambda *command: ran.append(command))
    monkeypatch.setattr(os, "chdir", lambda folder: None)
    dev.test(arguments)
    (command,) = ran
    assert command[:2] == ("-m", "pytest")
    assert command[len(command) - len(arguments) :] == tuple(arguments)
    assert ("--dist" in command) is parallel


def test_no_script_hides_a_package() -> None:
    """The folder of a script that runs comes first on the path: a `coverage.py` there broke numba."""
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    # Some packages leave a folder of documentation behind, which nobody imports.
    packages = packages_distributions().keys() - {"docs"}
    assert not scripts & (packages | sys.stdlib_module_names)
