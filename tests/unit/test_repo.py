"""What holds for every file of the repository, whatever it is about."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("contracts_abi", "oracle", "simulation", "keeper")

# In pieces, so that this file names none of them either.
REGISTRY_HOSTS = tuple(
    ".".join(labels)
    for labels in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("crates", "io"),
        ("anaconda", "org"),
        ("golang", "org"),
        ("deb", "debian", "org"),
    )
)


def committed_files() -> tuple[Path, ...]:
    """Return what git tracks and is there; nothing where the sources came without git."""
    if not (ROOT / ".git").exists():
        return ()
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]  # whoever owns the checkout
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    files = (ROOT / name.decode() for name in listed.split(b"\0") if name)
    return tuple(file for file in files if file.is_file())


FILES = committed_files()


def named(files: Iterable[Path]) -> list[str]:
    """Return paths as a failed test should show them."""
    return [file.relative_to(ROOT).as_posix() for file in files]


def text_of(file: Path) -> str:
    """Return a file as text; a byte that is no UTF-8 becomes a mark."""
    return file.read_text(encoding="utf-8", errors="replace")


def project() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads(text_of(ROOT / "pyproject.toml"))


def script(name: str) -> ModuleType:
    """Load a file of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not FILES, reason="not a git checkout")
def test_git_lists_the_sources() -> None:
    assert {"pyproject.toml", "requirements.lock", "contracts_abi/errors.py"} <= set(named(FILES))


def test_no_file_names_a_package_registry() -> None:
    host = re.compile("|".join(map(re.escape, REGISTRY_HOSTS)), re.IGNORECASE)
    naming = [file for file in FILES if host.search(text_of(file))]
    assert not named(naming), "say PyPI, npm, Debian; the host is the machine's own setting"


def test_no_third_party_artifact_is_committed() -> None:
    folders = {"node_modules", ".venv", "site-packages"}
    vendored = [file for file in FILES if folders & set(file.relative_to(ROOT).parts)]
    assert not named(vendored)
    bytecode = re.compile(r"[0-9a-fA-F]{1500}")  # 750 bytes: more than a proof, less than a contract
    dumps = [file for file in FILES if bytecode.search(text_of(file))]
    assert not named(dumps), "bytecode comes from npm or the compiler, into the cache folder"
    sources = [file for file in FILES if file.suffix in {".sol", ".abi", ".bin"}]
    assert not named(sources), "third-party sources and ABI dumps are read from npm"


def test_every_module_says_what_it_is() -> None:
    modules = [file for file in FILES if file.suffix == ".py"]
    silent = [file for file in modules if not ast.get_docstring(ast.parse(text_of(file)))]
    assert not named(silent), "a module starts with a docstring"


def test_the_readme_names_both_commands() -> None:
    readme = text_of(ROOT / "README.md")
    assert "python3 scripts/dev.py demo" in readme
    assert "python3 scripts/dev.py test" in readme


def test_ci_runs_the_readmes_test_command() -> None:
    assert re.search(
        r"^\s*(run |step )?.*python3 scripts/dev\.py test\b", text_of(ROOT / ".ci" / "run"), re.M
    )


def test_the_wheel_holds_the_four_packages() -> None:
    wheel = project()["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert sorted(wheel["packages"]) == sorted(PACKAGES)
    assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES)


def test_the_python_range_is_said_once() -> None:
    dev, lock = script("dev"), script("lock")
    oldest, newest = dev.OLDEST, dev.NEWEST
    assert project()["project"]["requires-python"] == (
        f">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"
    )
    assert list(lock.PYTHONS) == [f"3.{minor}" for minor in range(oldest[1], newest[1] + 1)]


def locked() -> dict[str, list[tuple[str, Marker | None]]]:
    """Return the lock file's versions by name, each with the marker it is for."""
    pins: dict[str, list[tuple[str, Marker | None]]] = {}
    for line in text_of(ROOT / "requirements.lock").splitlines():
        if line[:1].isalnum():
            pin = Requirement(line.removesuffix("\\"))
            (version,) = pin.specifier
            assert version.operator == "=="
            pins.setdefault(pin.name, []).append((version.version, pin.marker))
    return pins


def declared() -> list[str]:
    """Return every requirement of pyproject.toml."""
    settings = project()
    return [
        *settings["project"]["dependencies"],
        *settings["dependency-groups"]["dev"],
        *settings["build-system"]["requires"],
    ]


@pytest.mark.parametrize("requirement", declared())
def test_the_lock_fits_the_project(requirement: str) -> None:
    wanted = Requirement(requirement)
    pins = locked().get(wanted.name, [])
    assert pins, "run .venv/bin/python scripts/lock.py"
    assert all(wanted.specifier.contains(version) for version, _ in pins), (
        "run .venv/bin/python scripts/lock.py"
    )


def test_every_pin_has_a_hash() -> None:
    entries = re.findall(r"^\w.*(?:\n[ \t].*)*", text_of(ROOT / "requirements.lock"), re.MULTILINE)
    assert len(entries) > 50
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_each_python_gets_one_version_of_each_package(python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    for name, pins in locked().items():
        fitting = [version for version, marker in pins if marker is None or marker.evaluate(environment)]
        assert len(fitting) <= 1, f"{name}: {fitting}"


def test_dev_finds_uv_in_the_lock() -> None:
    entry = script("dev").pinned_uv()
    assert entry.startswith("uv==")
    assert entry.count("--hash=sha256:") > 5
    assert entry.count("==") == 1, "one entry only"
