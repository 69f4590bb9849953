"""What is fetched is checked before it is unpacked, and what is there is not fetched again."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from pathlib import Path

import pytest

from contracts_abi.errors import ToolError
from simulation.chain import toolchain
from simulation.chain.toolchain import (
    COMPILERS,
    ORACLE_PACKAGES,
    PACKAGES,
    NpmPackage,
    anvil_version,
    cache_dir,
    ensure_toolchain,
    integrity_of,
    locate_anvil,
    node_modules,
    unpack,
)

FILES = {
    "package/package.json": b"{}",
    "package/artifacts/contracts/A.sol/A.json": b"{}",
    "package/artifacts/contracts/A.sol/A.dbg.json": b"{}",
    "package/artifacts/build-info/1.json": b"{}",
    "package/../../outside.json": b"{}",
    "package/bin/anvil": b"#!/bin/sh\necho anvil Version: 1.7.1\n",
}


def tarball(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755 if "/bin/" in name else 0o644
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("package/artifacts/contracts/Link.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that is all of PATH, besides what a shell script needs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "cp", "cat", "echo"):
        (folder / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("ANVIL_BIN", raising=False)
    return folder


@pytest.fixture
def packages(
    tmp_path: Path, cache: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[NpmPackage, ...]:
    """Replace the packages by a small one with a node in it, and npm by a script that delivers it."""
    source = tarball(tmp_path / "thing-1.0.0.tgz")
    integrity = integrity_of(source)
    thing = NpmPackage("@test/thing", "1.0.0", integrity, r"(package\.json|artifacts/contracts/.*\.json)")
    node = NpmPackage("@test/node", "1.0.0", integrity, r"bin/anvil")
    monkeypatch.setattr(toolchain, "PACKAGES", (thing,))
    monkeypatch.setattr(toolchain, "anvil_package", lambda: node)
    monkeypatch.setattr(toolchain, "vyper_names", tuple)
    program(programs / "npm", f'echo "$@" >> {tmp_path}/calls; cp {source} .')
    return thing, node


def test_unpacking_keeps_what_matches_and_nothing_outside(tmp_path: Path) -> None:
    unpack(tarball(tmp_path / "thing.tgz"), tmp_path / "out", r".*(?<!\.dbg)\.json|bin/anvil")
    found = {str(p.relative_to(tmp_path / "out")): p for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert set(found) == {
        "package.json",
        "artifacts/contracts/A.sol/A.json",
        "artifacts/build-info/1.json",
        "bin/anvil",
    }
    assert os.access(found["bin/anvil"], os.X_OK)
    assert not os.access(found["package.json"], os.X_OK)
    assert not (tmp_path / "outside.json").exists()


def test_a_second_run_fetches_nothing(packages: tuple[NpmPackage, ...], tmp_path: Path) -> None:
    lines: list[str] = []
    assert ensure_toolchain(lines.append)
    assert lines == ["npm: @test/thing@1.0.0, @test/node@1.0.0"]
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.startswith("pack --ignore-scripts")
    assert call.endswith("@test/thing@1.0.0 @test/node@1.0.0")
    assert (node_modules() / "@test/thing/artifacts/contracts/A.sol/A.json").is_file()
    assert not ensure_toolchain(lines.append)
    assert len((tmp_path / "calls").read_text().splitlines()) == 1
    assert not [path for path in cache_dir().iterdir() if path.name.startswith(".")]


def test_a_package_of_which_other_files_were_kept_is_replaced(packages: tuple[NpmPackage, ...]) -> None:
    folder = node_modules() / "@test/thing"
    folder.mkdir(parents=True)
    (folder / "old").touch()
    (folder / ".integrity").write_text(packages[0].integrity, encoding="ascii")  # as kept files once were
    ensure_toolchain()
    assert not (folder / "old").exists()
    assert packages[0].installed()


def test_other_bytes_than_pinned_are_refused(packages: tuple[NpmPackage, ...], programs: Path) -> None:
    program(programs / "npm", "echo tampered > thing-1.0.0.tgz")
    with pytest.raises(ToolError, match=r"@test/thing@1\.0\.0 with other bytes than were pinned"):
        ensure_toolchain()
    assert not packages[0].installed()


@pytest.mark.parametrize(
    ("stderr", "told"),
    [
        ("npm error code ENOTFOUND\nnpm error network request failed", r"cannot reach its registry"),
        ("npm ERR! code ETIMEDOUT", r"cannot reach its registry \(ETIMEDOUT\); connect to the network"),
        ("npm error code E404\nnpm error 404 Not Found - thing", r"npm failed: 404 Not Found - thing$"),
        ("", r"npm failed: no reason given$"),
    ],
)
def test_what_npm_says_becomes_one_line(
    packages: tuple[NpmPackage, ...], programs: Path, stderr: str, told: str
) -> None:
    program(programs / "npm", f"cat >&2 <<'END'\n{stderr}\nEND\nexit 1")
    with pytest.raises(ToolError, match=told) as raised:
        ensure_toolchain()
    assert "\n" not in str(raised.value)


def test_without_npm_and_without_pypi_is_one_line(
    packages: tuple[NpmPackage, ...], programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (programs / "npm").unlink()
    python = program(tmp_path / "python", "echo ERROR: No matching distribution found for node >&2; exit 1")
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ToolError, match="no npm on PATH, and none from PyPI: ERROR: No matching") as raised:
        ensure_toolchain()
    assert str(raised.value).endswith("connect to the network, or install Node.js")


def test_a_node_that_does_not_run_is_one_line(
    packages: tuple[NpmPackage, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FILES, "package/bin/anvil", b"")
    monkeypatch.setattr(toolchain, "anvil_version", lambda _path: None)
    with pytest.raises(ToolError, match="does not run on this machine"):
        ensure_toolchain()


def test_a_platform_without_a_pinned_node_needs_one_by_hand(
    packages: tuple[NpmPackage, ...], programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "anvil_package", lambda: None)
    with pytest.raises(ToolError, match=r"anvil\) was not found; install Foundry's anvil 1\.7\.1 and put it"):
        ensure_toolchain()
    program(programs / "anvil", "echo anvil Version: 1.8.0")
    assert not ensure_toolchain()


def test_a_program_of_the_same_name_is_passed_over(cache: Path, programs: Path) -> None:
    program(programs / "anvil", "echo Anvil 0.3, forge your cloud")
    with pytest.raises(ToolError, match="was not found"):
        locate_anvil()
    program(programs / "anvil", "echo anvil Version: 0.2.0")
    with pytest.raises(ToolError, match="was not found"):
        locate_anvil()


def test_the_named_node_comes_first_and_must_be_one(
    cache: Path, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path = program(programs / "anvil", "echo anvil Version: 1.7.1")
    assert locate_anvil() == on_path
    named = program(tmp_path / "my anvil", "echo anvil Version: 1.9.0")
    monkeypatch.setenv("ANVIL_BIN", str(named))
    assert locate_anvil() == named
    monkeypatch.setenv("ANVIL_BIN", str(tmp_path / "missing"))
    with pytest.raises(ToolError, match=r"^ANVIL_BIN=\S+missing is not Foundry's anvil"):
        locate_anvil()


def test_the_version_is_read_from_the_program(tmp_path: Path) -> None:
    assert anvil_version(program(tmp_path / "a", "echo anvil Version: 1.7.1-stable")) == "1.7.1"
    assert anvil_version(program(tmp_path / "b", "exit 3")) is None
    assert anvil_version(tmp_path / "missing") is None


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MARGINLINE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_dir() == tmp_path / ".cache" / "marginline"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cache_dir() == tmp_path / "caches" / "marginline"
    monkeypatch.setenv("MARGINLINE_CACHE", "~/here")
    assert cache_dir() == tmp_path / "here"


def test_every_pin_is_a_sha512() -> None:
    import base64

    pins = [
        *(*PACKAGES, *ORACLE_PACKAGES, *COMPILERS.values()),
        *(*toolchain._ANVIL_PACKAGES.values(), *toolchain._FORGE_PACKAGES.values()),
    ]
    assert all(len(base64.b64decode(package.integrity, validate=True)) == 64 for package in pins)
    assert len({package.folder for package in pins}) == len(pins)
