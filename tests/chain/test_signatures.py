"""Every function and event that is written down by hand is one that the contracts' own ABIs have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import pytest

from contracts_abi import aave_v3, feeds, lens, liquidator, multicall, uniswap_v3
from contracts_abi.artifacts import Artifact
from contracts_abi.calls import Event, Function
from simulation.chain.artifacts import aave, own, uniswap_core, uniswap_periphery


def type_of(parameter: Mapping[str, Any]) -> str:
    kind = str(parameter["type"])
    if not kind.startswith("tuple"):
        return kind
    fields = ",".join(type_of(field) for field in parameter["components"])
    return f"({fields}){kind[len('tuple') :]}"


def encoded(kinds: Iterable[str]) -> tuple[str, ...]:
    """A struct of one word is encoded as the word, and may be written down as one."""
    return tuple(kind.replace("(uint256)", "uint256") for kind in kinds)


def functions(artifacts: Iterable[Artifact]) -> set[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return {
        (entry["name"], tuple(map(type_of, entry["inputs"])), encoded(map(type_of, entry["outputs"])))
        for artifact in artifacts
        for entry in artifact.abi
        if entry["type"] == "function"
    }


def events(artifacts: Iterable[Artifact]) -> set[tuple[str, tuple[tuple[str, str, bool], ...]]]:
    return {
        (entry["name"], tuple((p["name"], type_of(p), p["indexed"]) for p in entry["inputs"]))
        for artifact in artifacts
        for entry in artifact.abi
        if entry["type"] == "event"
    }


def artifacts_of(module: ModuleType) -> list[Artifact]:
    if module is aave_v3:
        names = ("PoolAddressesProvider", "Pool", "PoolConfigurator", "ACLManager", "AaveOracle")
        tokens = ("AaveProtocolDataProvider", "AToken", "VariableDebtToken", "MintableERC20")
        return [aave(name) for name in names + tokens]
    if module is uniswap_v3:
        core = [uniswap_core(name) for name in ("UniswapV3Factory", "UniswapV3Pool")]
        periphery = ("SwapRouter", "QuoterV2", "NonfungiblePositionManager")
        return core + [uniswap_periphery(name) for name in periphery]
    ours = {
        feeds: ("PriceFeed", "PriceAggregator"),
        lens: ("AccountLens",),
        liquidator: ("Liquidator",),
        multicall: ("Multicall3",),
    }
    return [own(name) for name in ours[module]]


@pytest.mark.parametrize(
    "module", [aave_v3, uniswap_v3, feeds, lens, liquidator, multicall], ids=lambda m: m.__name__
)
def test_signatures_are_the_contracts_own(module: ModuleType) -> None:
    artifacts = artifacts_of(module)
    known_functions, known_events = functions(artifacts), events(artifacts)
    written = [value for value in vars(module).values() if isinstance(value, Function | Event)]
    assert written
    for value in written:
        if isinstance(value, Event):
            fields = tuple((name, kind, name in value.indexed) for name, kind in value.fields)
            assert (value.name, fields) in known_events
        else:
            assert (value.name, value.inputs, encoded(value.outputs)) in known_functions


def test_ours_need_no_constructor_where_a_state_override_puts_them() -> None:
    for name in ("AccountLens", "Multicall3"):
        contract = own(name)
        assert not [entry for entry in contract.abi if entry["type"] == "constructor"]
        # Creation code is the runtime code behind a loader: nothing is written into it.
        assert contract.deployed_bytecode in contract.bytecode
