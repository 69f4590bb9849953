"""Oracle contracts that no package ships, compiled from their authors' own checkouts where there are any.

`MARGINLINE_AUTHORS_SOURCES` names a folder with git checkouts, each under its repository's name. They are
compiled with the compilers that the toolchain pins, so the pragma is opened; what the checkouts take from
submodules (interfaces, a 512-bit division) is given below. Nothing of them is kept but compiled bytecode in
the cache.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from contracts_abi.artifacts import Artifact
from simulation.chain.solc import OPTIMIZED, compile_sources
from simulation.chain.toolchain import node_modules

VARIABLE = "MARGINLINE_AUTHORS_SOURCES"
PRAGMA = "pragma solidity >=0.5.0;"

# Repository, the commit that was read, the part that is needed, and where imports expect it.
CHECKOUTS = {
    "aave-capo": ("bgd-labs/aave-capo", "2c280ef9", "src", "capo"),
    "morpho-blue-oracles": ("morpho-org/morpho-blue-oracles", "e32d8902", "src", "morpho/src"),
    "comet": ("compound-finance/comet", "d5a30b0a", "contracts", "comet"),
    "euler-price-oracle": ("euler-xyz/euler-price-oracle", "18a3e34d", "src", "euler"),
    "dev": ("liquity/dev", "39f1f7f8", "packages/contracts/contracts", "liquity"),
}

INTERFACES = {
    "aave-address-book/AaveV3.sol": """
interface IACLManager {
  function isRiskAdmin(address account) external view returns (bool);
  function isPoolAdmin(address account) external view returns (bool);
}""",
    "cl-synchronicity-price-adapter/interfaces/ICLSynchronicityPriceAdapter.sol": """
interface ICLSynchronicityPriceAdapter {
  function latestAnswer() external view returns (int256);
  function description() external view returns (string memory);
  function decimals() external view returns (uint8);
}""",
    "cl-synchronicity-price-adapter/interfaces/IChainlinkAggregator.sol": """
interface IChainlinkAggregator {
  function latestAnswer() external view returns (int256);
  function decimals() external view returns (uint8);
}""",
    "morpho/lib/morpho-blue/src/interfaces/IOracle.sol": """
interface IOracle { function price() external view returns (uint256); }""",
    "forge-std/interfaces/IERC4626.sol": """
interface IERC4626 {
  function asset() external view returns (address);
  function convertToAssets(uint256 shares) external view returns (uint256);
}""",
    "forge-std/interfaces/IERC20.sol": """
interface IERC20 { function decimals() external view returns (uint8); }""",
    # Who may govern is not compared.
    "ethereum-vault-connector/utils/EVCUtil.sol": """
abstract contract EVCUtil {
  constructor(address) {}
  modifier onlyEVCAccountOwner() { _; }
  function _msgSender() internal view returns (address) { return msg.sender; }
}""",
    "@solady/utils/FixedPointMathLib.sol": """
import "morpho/lib/openzeppelin-contracts/contracts/utils/math/Math.sol";
library FixedPointMathLib {
  function fullMulDiv(uint256 a, uint256 b, uint256 c) internal pure returns (uint256) {
    return Math.mulDiv(a, b, c);
  }
}""",
}

OWN = {
    # Constructors without structs, and whoever asks is an administrator.
    "capo/own.sol": """
import "capo/contracts/CLRatePriceCapAdapter.sol";
import "capo/contracts/PriceCapAdapterStable.sol";
contract Admins is IACLManager {
  function isRiskAdmin(address) external view returns (bool) { return true; }
  function isPoolAdmin(address) external view returns (bool) { return true; }
}
contract Capo is CLRatePriceCapAdapter {
  constructor(address acl, address base, address ratio, uint48 delay, uint104 r, uint48 t, uint16 g)
    CLRatePriceCapAdapter(
      CapAdapterParams(IACLManager(acl), base, ratio, "", delay, PriceCapUpdateParams(r, t, g))) {}
}
contract Stable is PriceCapAdapterStable {
  constructor(address acl, address feed, int256 cap)
    PriceCapAdapterStable(CapAdapterStableParams(IACLManager(acl), IChainlinkAggregator(feed), "", cap)) {}
}""",
    "own/Tellor.sol": """
contract Tellor {
  bool private ok;
  uint256 private value;
  uint256 private time;
  function set(bool ok_, uint256 value_, uint256 time_) external { ok = ok_; value = value_; time = time_; }
  function getTellorCurrentValue(uint256) external view returns (bool, uint256, uint256) {
    require(ok);
    return (true, value, time);
  }
}""",
    "own/Vault.sol": """
contract Vault {
  uint8 public decimals;
  address public asset;
  constructor(uint8 decimals_) { decimals = decimals_; }
  function set(address asset_) external { asset = asset_; }
  function convertToAssets(uint256 shares) external view returns (uint256) {
    require(decimals != 7);
    return shares * decimals / 3;
  }
}""",
}

COMPILED = {
    "capo": ("0.8.19", ("capo/own.sol",)),
    "morpho": ("0.8.19", ("morpho/src/morpho-chainlink/MorphoChainlinkOracleV2.sol",)),
    "comet": (
        "0.8.19",
        tuple(
            f"comet/pricefeeds/{name}.sol"
            for name in ("ScalingPriceFeed", "MultiplicativePriceFeed", "ReverseMultiplicativePriceFeed")
        ),
    ),
    "euler": ("0.8.19", ("euler/EulerRouter.sol", "euler/adapter/chainlink/ChainlinkOracle.sol")),
    "liquity": ("0.6.6", ("liquity/PriceFeed.sol", "own/Tellor.sol")),
    "vault": ("0.8.19", ("own/Vault.sol",)),
}


def checkouts() -> Path:
    """Return the folder of the checkouts, or skip."""
    named = os.environ.get(VARIABLE)
    if not named:
        pytest.skip(f"{VARIABLE} names no folder with checkouts of {', '.join(CHECKOUTS)}")
    folder = Path(named)
    missing = [name for name in CHECKOUTS if not (folder / name).is_dir()]
    assert not missing, f"{VARIABLE}={named} has no {', '.join(missing)}"
    return folder


def laid_out(folder: Path) -> Path:
    """Copy the sources to `folder` as their imports expect them, with the pragma opened."""
    source = checkouts()
    for name, (_repository, _commit, part, place) in CHECKOUTS.items():
        for path in (source / name / part).rglob("*.sol"):
            _write(folder / place / path.relative_to(source / name / part), path.read_text(encoding="utf-8"))
    mul_div = "contracts/utils/math/Math.sol"
    text = (node_modules() / "@openzeppelin" / mul_div).read_text(encoding="utf-8")
    _write(folder / "morpho/lib/openzeppelin-contracts" / mul_div, text)
    for path_text, body in (INTERFACES | OWN).items():
        _write(folder / path_text, f"{PRAGMA}\n{body}\n")
    return folder


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(re.sub(r"(?m)^pragma solidity [^;]*;", PRAGMA, text), encoding="utf-8")


def compiled(folder: Path) -> dict[str, dict[str, Artifact]]:
    """Return the contracts of all units of `COMPILED`, or skip; `folder` is to work in."""
    base = laid_out(folder)
    found = {}
    for unit, (solc, names) in COMPILED.items():
        sources: dict[str, str | Path] = {name: base / name for name in names}
        found[unit] = compile_sources(sources, solc, OPTIMIZED, base=base)
    return found
