"""Compiles Solidity that npm ships as source, with npm's own compilers, once per input.

The compiler is JavaScript and any Node.js runs it. Its output is kept in the cache folder under the hash of
all that went in, so that Node.js is needed when something new is compiled and never again:
`ensure_oracle_toolchain` compiles every unit of price sources while the toolchain is set up, and tests and
commands read what it left. Lending protocols take longer, and are compiled when one is first asked for:
`ensure_protocol_toolchain`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import posixpath
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from contracts_abi.artifacts import Artifact, parse_artifact, write_atomically
from contracts_abi.errors import DataError, InputError, ToolError, UnknownNameError
from simulation.chain.toolchain import (
    COMPILERS,
    ORACLE_PACKAGES,
    PROTOCOL_PACKAGES,
    NodeTools,
    NpmPackage,
    Progress,
    cache_dir,
    fetch_packages,
    node_modules,
    node_tools,
    run_tool,
)

OPTIMIZED: Final[Mapping[str, Any]] = {"optimizer": {"enabled": True, "runs": 200}}

_OUTPUT: Final = ("abi", "evm.bytecode", "evm.deployedBytecode")
# Paths come as arguments, the input as standard input: nothing of either is ever part of the program.
_DRIVER: Final = (
    "const solc = require(process.argv[1]);"
    "const compile = solc.cwrap('solidity_compile', 'string', ['string', 'number', 'number']);"
    "process.stdout.write(compile(require('fs').readFileSync(0, 'utf8'), 0, 0));"
)
# Forge asks a compiler for its version, then gives it standard JSON; both as solc itself takes them.
_PROGRAM: Final = (
    "const solc = require(process.argv[1]);"
    "if (process.argv.includes('--version')) {"
    "  console.log('solc, the solidity compiler commandline interface');"
    "  console.log('Version: ' + solc.cwrap('solidity_version', 'string', [])());"
    "} else {" + _DRIVER + "}"
)
_FIX: Final = "run: marginline setup"
_IMPORT = re.compile(r"""^\s*import\s+(?:[^"';]*\sfrom\s*)?["']([^"']+)["']""", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Unit:
    """A set of sources that is compiled in one go.

    Attributes
    ----------
    solc
        Version of the compiler, a key of `COMPILERS`.
    shipped
        Sources by their path below ``node_modules``.
    own
        Sources of ours by name; they make abstract contracts of the packages deployable.
    settings
        The compiler's settings, apart from what it shall output.
    """

    solc: str
    shipped: tuple[str, ...] = ()
    own: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=lambda: OPTIMIZED)


_CHAINLINK = "@chainlink/contracts/src/v0.6"

# OpenZeppelin's vault and token are abstract in what they are called and how many decimals they have.
_VAULT = """// SPDX-License-Identifier: MIT
pragma solidity 0.8.19;

import "@openzeppelin/contracts/token/ERC20/extensions/ERC4626.sol";

contract Token is ERC20 {
    uint8 private immutable _scale;

    constructor(uint8 scale) ERC20("Token", "TOK") {
        _scale = scale;
    }

    function decimals() public view override returns (uint8) {
        return _scale;
    }

    function mint(address account, uint256 amount) external {
        _mint(account, amount);
    }

    function burn(address account, uint256 amount) external {
        _burn(account, amount);
    }
}

contract Vault is ERC4626 {
    uint8 private immutable _offset;

    constructor(IERC20 asset, uint8 offset) ERC4626(asset) ERC20("Vault", "VLT") {
        _offset = offset;
    }

    function _decimalsOffset() internal view override returns (uint8) {
        return _offset;
    }
}
"""

# Uniswap's oracle library has internal functions only.
_TWAP = """// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.7.6;

import "@uniswap/v3-core/contracts/interfaces/IERC20Minimal.sol";
import "@uniswap/v3-periphery/contracts/libraries/OracleLibrary.sol";

// Uniswap's router refuses a swap that meets no liquidity at all; the pool does not.
contract PoolSwapper {
    function swap(address pool, bool down, int256 amount, uint160 limit) external {
        IUniswapV3Pool(pool).swap(msg.sender, down, amount, limit, abi.encode(msg.sender));
    }

    function uniswapV3SwapCallback(int256 amount0, int256 amount1, bytes calldata data) external {
        address payer = abi.decode(data, (address));
        if (amount0 > 0) pay(IUniswapV3Pool(msg.sender).token0(), payer, uint256(amount0));
        if (amount1 > 0) pay(IUniswapV3Pool(msg.sender).token1(), payer, uint256(amount1));
    }

    function pay(address token, address payer, uint256 amount) private {
        require(IERC20Minimal(token).transferFrom(payer, msg.sender, amount));
    }
}

// What protocols did that priced a token by what a pair holds.
contract SpotFeed {
    address public immutable pair;
    address public immutable base;
    address public immutable quote;
    uint256 public immutable times;
    uint256 public immutable over;
    uint8 public immutable decimals;

    constructor(
        address pair_, address base_, address quote_, uint256 times_, uint256 over_, uint8 decimals_
    ) {
        pair = pair_;
        base = base_;
        quote = quote_;
        times = times_;
        over = over_;
        decimals = decimals_;
    }

    function latestAnswer() external view returns (int256) {
        uint256 held = IERC20Minimal(quote).balanceOf(pair) * times;
        return int256(held / (IERC20Minimal(base).balanceOf(pair) * over));
    }
}

interface IPair {
    function getReserves() external view returns (uint112, uint112, uint32);
    function price0CumulativeLast() external view returns (uint256);
    function price1CumulativeLast() external view returns (uint256);
}

// The mean price of a pair over a period: its sum now, less what it was then. Somebody has to keep the sums.
contract MeanFeed {
    address public immutable pair;
    bool public immutable first;
    uint256 public immutable period;
    uint256 public immutable times;
    uint256 public immutable over;
    uint8 public immutable decimals;
    uint256[] public at;
    uint256[] public sums;

    constructor(
        address pair_, bool first_, uint256 period_, uint256 times_, uint256 over_, uint8 decimals_
    ) {
        pair = pair_;
        first = first_;
        period = period_;
        times = times_;
        over = over_;
        decimals = decimals_;
    }

    function poke() external {
        at.push(block.timestamp);
        sums.push(current());
    }

    function current() public view returns (uint256) {
        (uint112 held0, uint112 held1, uint32 last) = IPair(pair).getReserves();
        (uint256 base, uint256 quote) = first ? (held0, held1) : (held1, held0);
        uint256 sum = first ? IPair(pair).price0CumulativeLast() : IPair(pair).price1CumulativeLast();
        return sum + (quote << 112) / base * (block.timestamp - last);
    }

    function latestAnswer() external view returns (int256) {
        uint256 start = block.timestamp - period;
        uint256 i = at.length - 1;
        while (at[i] > start) i--;
        uint256 then = sums[i];
        if (at[i] < start) {
            bool newest = i + 1 == at.length;
            uint256 next = newest ? block.timestamp : at[i + 1];
            // The price stood still between two pokes, so that nothing is lost to the division.
            then += ((newest ? current() : sums[i + 1]) - then) / (next - at[i]) * (start - at[i]);
        }
        return int256(((current() - then) / period * times / over) >> 112);
    }
}

contract OracleLibraryCaller {
    function consult(address pool, uint32 secondsAgo) external view returns (int24, uint128) {
        return OracleLibrary.consult(pool, secondsAgo);
    }

    function getQuoteAtTick(int24 tick, uint128 baseAmount, address base, address quote)
        external
        pure
        returns (uint256)
    {
        return OracleLibrary.getQuoteAtTick(tick, baseAmount, base, quote);
    }

    function getOldestObservationSecondsAgo(address pool) external view returns (uint32) {
        return OracleLibrary.getOldestObservationSecondsAgo(pool);
    }
}

contract TwapFeed {
    address public immutable pool;
    address public immutable base;
    address public immutable quote;
    uint128 public immutable baseAmount;
    uint32 public immutable window;
    uint8 public immutable decimals;

    constructor(
        address pool_, address base_, address quote_, uint128 amount_, uint32 window_, uint8 decimals_
    ) {
        pool = pool_;
        base = base_;
        quote = quote_;
        baseAmount = amount_;
        window = window_;
        decimals = decimals_;
    }

    function latestAnswer() external view returns (int256) {
        (int24 tick, ) = OracleLibrary.consult(pool, window);
        return int256(OracleLibrary.getQuoteAtTick(tick, baseAmount, base, quote));
    }
}
"""

# As Morpho's authors build what they deploy.
_MORPHO: Final[Mapping[str, Any]] = {
    "optimizer": {"enabled": True, "runs": 999_999},
    "viaIR": True,
    "evmVersion": "paris",
}

UNITS: Final[Mapping[str, Unit]] = {
    "chainlink": Unit(
        "0.6.6",
        tuple(
            f"{_CHAINLINK}/{name}.sol"
            for name in (
                *("EACAggregatorProxy", "AggregatorProxy", "FluxAggregator", "SimpleWriteAccessController"),
                "tests/MockV3Aggregator",
            )
        ),
    ),
    "openzeppelin": Unit("0.8.19", own={"Vault.sol": _VAULT}),
    "uniswap-twap": Unit("0.7.6", own={"Twap.sol": _TWAP}),
    "pyth": Unit("0.8.19", ("@pythnetwork/pyth-sdk-solidity/MockPyth.sol",)),
}
"""What `ensure_oracle_toolchain` compiles, by name."""

_AAVE_V3_6: Final = "@aave-dao/aave-v3-origin/src/contracts"

PROTOCOL_UNITS: Final[Mapping[str, Unit]] = {
    "aave-v3.6": Unit(
        "0.8.27",
        tuple(
            f"{_AAVE_V3_6}/{path}.sol"
            for path in (
                "helpers/AaveProtocolDataProvider",
                *(
                    f"instances/{name}Instance"
                    for name in ("AToken", "Pool", "PoolConfigurator", "VariableDebtToken")
                ),
                *(
                    f"misc/{name}"
                    for name in ("AaveOracle", "DefaultReserveInterestRateStrategyV2", "PriceOracleSentinel")
                ),
                "misc/aave-upgradeability/InitializableImmutableAdminUpgradeabilityProxy",
                "mocks/oracle/SequencerOracle",
                *(f"protocol/configuration/{name}" for name in ("ACLManager", "PoolAddressesProvider")),
                *(
                    f"protocol/libraries/logic/{name}Logic"
                    for name in ("Borrow", "Configurator", "FlashLoan", "Liquidation", "Pool", "Supply")
                ),
            )
        ),
        settings={**OPTIMIZED, "evmVersion": "shanghai", "metadata": {"bytecodeHash": "none"}},
    ),
    "morpho-blue": Unit(
        "0.8.19",
        tuple(f"@morpho-org/morpho-blue/src/{name}.sol" for name in ("Morpho", "mocks/IrmMock")),
        settings=_MORPHO,
    ),
}
"""What `ensure_protocol_toolchain` compiles, by the protocol's name."""


def compile_unit(name: str) -> dict[str, Artifact]:
    """Return the contracts of one of `UNITS` or `PROTOCOL_UNITS` by their names; see `compile_sources`."""
    units = {**UNITS, **PROTOCOL_UNITS}
    try:
        unit = units[name]
    except KeyError:
        raise UnknownNameError("unit of contracts", name, units) from None
    return _compile(unit, None)


def is_compiled(name: str) -> bool:
    """Return whether one of `PROTOCOL_UNITS` is there, so that `compile_unit` only reads it."""
    packages = (COMPILERS[PROTOCOL_UNITS[name].solc], *PROTOCOL_PACKAGES[name])
    return all(package.installed() for package in packages) and _is_compiled(PROTOCOL_UNITS[name])


def compile_sources(
    sources: Mapping[str, str | Path],
    solc: str = "0.6.6",
    settings: Mapping[str, Any] = OPTIMIZED,
    *,
    base: Path | None = None,
) -> dict[str, Artifact]:
    """Compile Solidity, or read what an earlier run made of the same input.

    Parameters
    ----------
    sources
        Source name to its text, or to the file with it. Imports are resolved against the importing source's
        name, then below `base`.
    solc
        Version of the compiler, a key of `COMPILERS`.
    settings
        The compiler's settings (optimizer, EVM version), apart from what it shall output.
    base
        Folder that imports are looked for in; the toolchain's ``node_modules`` by default.

    Returns
    -------
    dict
        Contract name to artifact, of the deployable contracts in `sources`. What they import is compiled
        into them and not returned.

    Raises
    ------
    ToolError
        If the compiler is not installed, or there is something to compile and no Node.js on PATH.
    InputError
        If there is no such compiler.
    DataError
        If an import is not there, or the sources do not compile; the line is the compiler's first error.
    """
    texts = {
        name: source.read_text(encoding="utf-8") if isinstance(source, Path) else source
        for name, source in sources.items()
    }
    return _compile_texts(texts, solc, settings, base or node_modules(), None)


def ensure_oracle_toolchain(progress: Progress | None = None, tools: NodeTools | None = None) -> bool:
    """Make the contracts that price sources are compared with be there, fetched and compiled.

    Parameters
    ----------
    progress
        Called with one line before each step that takes time.
    tools
        Node.js and npm, where the caller has more to do with them.

    Returns
    -------
    bool
        Whether anything had to be done.

    Raises
    ------
    ToolError
        If it cannot be done; see `simulation.chain.toolchain.ensure_toolchain`.
    """
    report = progress or (lambda _line: None)
    missing = [package for package in _packages() if not package.installed()]
    todo = [] if missing else [name for name, unit in UNITS.items() if not _is_compiled(unit)]
    if not (missing or todo):
        return False
    with node_tools(report) as own_tools:
        at_hand = tools or own_tools
        if missing:
            fetch_packages(missing, report, at_hand)
        report(f"solc: {', '.join(UNITS)}")
        for unit in UNITS.values():
            _compile(unit, at_hand.node)
    return True


def fetch_protocol_sources(progress: Progress | None = None, tools: NodeTools | None = None) -> bool:
    """Fetch the sources and compilers of all `PROTOCOL_UNITS` and compile nothing.

    Parameters are as for `ensure_oracle_toolchain`, and so are what it returns and raises.
    """
    return _fetch_missing(_protocol_packages(PROTOCOL_UNITS), progress or (lambda _line: None), tools)


def ensure_protocol_toolchain(
    names: Sequence[str], progress: Progress | None = None, tools: NodeTools | None = None
) -> bool:
    """Make contracts of lending protocols be there, fetched and compiled; up to half a minute for each.

    Parameters
    ----------
    names
        Which of `PROTOCOL_UNITS`; other names stand for protocols that need nothing compiled.
    progress, tools
        As for `ensure_oracle_toolchain`, and so are what it returns and raises.
    """
    report = progress or (lambda _line: None)
    wanted = [name for name in names if name in PROTOCOL_UNITS]
    fetched = _fetch_missing(_protocol_packages(wanted), report, tools)
    todo = [name for name in wanted if not _is_compiled(PROTOCOL_UNITS[name])]
    if todo:
        with node_tools(report) as own_tools:
            for name in todo:
                report(f"solc: {name} (up to half a minute, once)")
                _compile(PROTOCOL_UNITS[name], (tools or own_tools).node)
    return bool(fetched or todo)


def _protocol_packages(names: Iterable[str]) -> tuple[NpmPackage, ...]:
    packages = [p for name in names for p in (COMPILERS[PROTOCOL_UNITS[name].solc], *PROTOCOL_PACKAGES[name])]
    return tuple(dict.fromkeys(packages))


def _fetch_missing(packages: Iterable[NpmPackage], report: Progress, tools: NodeTools | None) -> bool:
    missing = [package for package in packages if not package.installed()]
    if missing:
        fetch_packages(missing, report, tools)
    return bool(missing)


def solc_program(version: str) -> Path:
    """Return a program that takes ``--version`` and ``--standard-json`` as solc does, for ``forge --use``.

    Raises
    ------
    InputError
        If there is no such compiler.
    ToolError
        If the compiler is not installed, or there is no Node.js on PATH.
    """
    command = [_node_on_path(), "-e", _PROGRAM, str(_script(_compiler(version)))]
    path = cache_dir() / "solc" / f"solc-{version}"
    write_atomically(path, f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n'.encode())
    path.chmod(0o755)
    return path


def _packages() -> tuple[NpmPackage, ...]:
    return (*ORACLE_PACKAGES, *COMPILERS.values())


def _compile(unit: Unit, node: Callable[[], str] | None) -> dict[str, Artifact]:
    base = node_modules()
    return _compile_texts(_texts(unit, base), unit.solc, unit.settings, base, node)


def _texts(unit: Unit, base: Path) -> dict[str, str]:
    return {name: _shipped(base, name) for name in unit.shipped} | dict(unit.own)


def _is_compiled(unit: Unit) -> bool:
    base = node_modules()
    given = standard_json(_texts(unit, base), unit.settings, base)
    return _cached(given, _compiler(unit.solc)).is_file()


def _compile_texts(
    texts: Mapping[str, str],
    solc: str,
    settings: Mapping[str, Any],
    base: Path,
    node: Callable[[], str] | None,
) -> dict[str, Artifact]:
    compiler = _compiler(solc)
    given = standard_json(texts, settings, base)
    cached = _cached(given, compiler)
    output = _read_output(cached)
    if output is None:
        with _alone(cached):
            output = _read_output(cached)  # of whoever we waited for
            if output is None:
                output = _run_solc(compiler, given, node)
                write_atomically(cached, json.dumps(output).encode())
    return {name: parse_artifact(raw, name) for name, raw in output.items()}


def _read_output(cached: Path) -> dict[str, Any] | None:
    """Return what an earlier run left, None when that is absent or not what we wrote."""
    try:
        output: dict[str, Any] = json.loads(cached.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return output


@contextmanager
def _alone(cached: Path) -> Iterator[None]:
    """Keep other processes from compiling the same: the second waits, and reads what the first wrote."""
    cached.parent.mkdir(parents=True, exist_ok=True)
    lock = cached.with_suffix(".lock")
    with lock.open("a", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
        lock.unlink(missing_ok=True)


def _compiler(version: str) -> NpmPackage:
    try:
        return COMPILERS[version]
    except KeyError:
        raise InputError(
            f"no Solidity compiler {version!r} is pinned", fix=f"choose one of: {', '.join(COMPILERS)}"
        ) from None


def _cached(given: str, compiler: NpmPackage) -> Path:
    key = hashlib.sha256(f"{compiler.integrity}\0{given}".encode()).hexdigest()
    return cache_dir() / "solc" / f"{key[:32]}.json"


def standard_json(texts: Mapping[str, str], settings: Mapping[str, Any], base: Path) -> str:
    """Return the compiler's input: the sources, all that they import, and what to output for the sources.

    The same sources give the same text, whatever folder they lie in.
    """
    everything = dict(sorted(_with_imports(texts, base).items()))
    selection = {name: {"*": _OUTPUT} for name in sorted(texts)}
    return json.dumps(
        {
            "language": "Solidity",
            "sources": {name: {"content": text} for name, text in everything.items()},
            "settings": {**settings, "outputSelection": selection},
        }
    )


def _with_imports(texts: Mapping[str, str], base: Path) -> dict[str, str]:
    """Return the sources and all that they import, directly or not."""
    found = dict(texts)
    todo = list(texts.items())
    while todo:
        name, text = todo.pop()
        for imported in imports(name, text):
            if imported not in found:
                found[imported] = _shipped(base, imported)
                todo.append((imported, found[imported]))
    return found


def imports(name: str, text: str) -> Iterable[str]:
    """Yield the source names that a source imports; relative ones are resolved against its own name."""
    for match in _IMPORT.finditer(text):
        path = match[1]
        if path.startswith("."):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
        yield path


def _shipped(base: Path, name: str) -> str:
    if name.startswith(("/", "..")):
        raise DataError(f"the import {name!r} leads out of its package")
    try:
        return (base / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ToolError(f"the Solidity source {name} is not there", fix=_FIX) from None


def _run_solc(compiler: NpmPackage, given: str, node: Callable[[], str] | None) -> dict[str, Any]:
    """Run the compiler; returns contract name to its output, of the contracts that have code."""
    script = str(_script(compiler))
    done = run_tool([(node or _node_on_path)(), "-e", _DRIVER, script], compiler.folder, given)
    try:
        output = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise ToolError(f"solc {compiler.version} failed in Node.js: {last[0]}") from None
    for error in output.get("errors", ()):
        if error["severity"] == "error":
            raise DataError(f"solc {compiler.version}: {error['formattedMessage']}")
    return {
        name: {"abi": contract["abi"], "evm": _codes(contract["evm"])}
        for contracts in output["contracts"].values()
        for name, contract in contracts.items()
        if contract["evm"]["bytecode"]["object"]
    }


def _script(compiler: NpmPackage) -> Path:
    script = compiler.folder / "soljson.js"
    if not script.is_file():
        raise ToolError(f"the Solidity compiler {compiler.version} is not there", fix=_FIX)
    return script


def _node_on_path() -> str:
    """Return Node.js; unlike the set-up, what merely reads a contract fetches nothing."""
    if (found := shutil.which("node")) is None:
        raise ToolError("a contract is to be compiled and Node.js is not on PATH", fix=_FIX)
    return found


def _codes(evm: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of both codes what an artifact has; solc adds source maps and opcodes as text."""
    return {
        kind: {key: evm[kind][key] for key in ("object", "linkReferences")}
        for kind in ("bytecode", "deployedBytecode")
    }
