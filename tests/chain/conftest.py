"""One market on each backend, deployed once; every test leaves it as it found it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from simulation.chain import revm
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.deploy import deploy_market
from simulation.chain.evm import Evm
from simulation.chain.market import GENESIS, Deployment


@dataclass(frozen=True)
class Chain:
    """An EVM with a market on it."""

    evm: Evm
    market: Deployment


@pytest.fixture(scope="session", params=["revm", "anvil"])
def deployed(request: pytest.FixtureRequest) -> Iterator[Chain]:
    """Deploy the default market on a backend, for all tests of this process."""
    if request.param == "revm":
        if not revm.available():
            pytest.skip("pyrevm has wheels for CPython 3.11 and 3.12 only")
        evm: Evm = revm.RevmEvm(timestamp=GENESIS)
        yield Chain(evm, deploy_market(evm))
    else:
        with Anvil.start(AnvilOptions(timestamp=GENESIS)) as node:
            evm = node.evm()
            yield Chain(evm, deploy_market(evm))


@pytest.fixture
def chain(deployed: Chain) -> Iterator[Chain]:
    """Return the market as it was deployed; what the test does to it is undone."""
    before = deployed.evm.snapshot()
    yield deployed
    deployed.evm.revert(before)
