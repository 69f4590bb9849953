"""The proof of identity finds what was filled in, and any byte that was not."""

from __future__ import annotations

import dataclasses

import pytest

from simulation.chain import revm
from simulation.chain.artifacts import aave
from simulation.chain.deploy import AAVE_V3_6, deploy_market, on_version
from simulation.chain.evm import labelled_address
from simulation.chain.identity import PUSH32, code_identity
from simulation.chain.market import DEFAULT_MARKET, GENESIS
from simulation.chain.solc import ensure_protocol_toolchain
from tests.chain.conftest import Chain


def test_the_pool_is_the_packages(chain: Chain) -> None:
    identity = code_identity(chain.evm, chain.market)
    assert identity.runtime_equal
    assert identity.address == chain.market.pool_implementation
    assert identity.package == "@aave/core-v3@1.19.3"
    assert identity.code_hash == chain.market.code_hashes["Pool"]
    # One proxy and the seven libraries that the pool links.
    assert len(identity.parts) == 8
    assert all(part.runtime_equal for part in identity.parts)


def test_every_filled_place_was_empty_in_the_package_and_holds_what_belongs_there(chain: Chain) -> None:
    identity = code_identity(chain.evm, chain.market)
    artifact, runtime = aave("Pool").deployed_bytecode, chain.evm.code(identity.address)
    explained = bytearray(artifact)
    for place in identity.filled:
        end = place.offset + place.length
        kind, _, name = place.what.partition(" ")
        value = chain.market.provider if kind == "immutable" else chain.market.libraries[name]
        assert artifact[place.offset : end] == bytes(place.length)
        assert int.from_bytes(runtime[place.offset : end]) == int(value, 16)
        explained[place.offset : end] = runtime[place.offset : end]
    assert bytes(explained) == runtime
    offsets = [p.offset for p in identity.filled if p.what == "immutable ADDRESSES_PROVIDER"]
    assert offsets
    assert all(runtime[offset - 1] == PUSH32 for offset in offsets)


@pytest.mark.parametrize("offset", [0, 853, 2_467, 12_345, -1])
def test_one_changed_byte_of_the_pool_is_found(chain: Chain, offset: int) -> None:
    code = bytearray(chain.evm.code(chain.market.pool_implementation))
    code[offset] ^= 1
    chain.evm.set_code(chain.market.pool_implementation, bytes(code))
    identity = code_identity(chain.evm, chain.market)
    assert not identity.runtime_equal
    assert identity.first_difference is not None


def test_a_provider_that_stands_elsewhere_is_found(chain: Chain) -> None:
    identity = code_identity(chain.evm, chain.market)
    place = next(p for p in identity.filled if p.what == "immutable ADDRESSES_PROVIDER")
    code = bytearray(chain.evm.code(identity.address))
    code[place.offset : place.offset + 32] = bytes(32)
    chain.evm.set_code(identity.address, bytes(code))
    assert not code_identity(chain.evm, chain.market).runtime_equal


def test_code_behind_the_end_is_found(chain: Chain) -> None:
    size = len(chain.evm.code(chain.market.pool_implementation))
    code = chain.evm.code(chain.market.pool_implementation) + b"\x00"
    chain.evm.set_code(chain.market.pool_implementation, code)
    assert code_identity(chain.evm, chain.market).first_difference == size


def test_a_proxy_that_points_elsewhere_is_found(chain: Chain) -> None:
    from simulation.chain.aave_v3 import IMPLEMENTATION_SLOT

    chain.evm.set_storage(chain.market.pool, IMPLEMENTATION_SLOT, int(labelled_address("other"), 16))
    identity = code_identity(chain.evm, chain.market)
    assert (identity.runtime_equal, identity.size) == (False, 0)


def test_a_changed_library_is_found(chain: Chain) -> None:
    library = chain.market.libraries["LiquidationLogic"]
    code = bytearray(chain.evm.code(library))
    code[500] ^= 1
    chain.evm.set_code(library, bytes(code))
    identity = code_identity(chain.evm, chain.market)
    assert not identity.runtime_equal
    assert [part.contract for part in identity.parts if not part.runtime_equal] == ["LiquidationLogic"]


def test_a_deployment_that_names_another_provider_is_found(chain: Chain) -> None:
    other = dataclasses.replace(chain.market, provider=labelled_address("other"))
    assert not code_identity(chain.evm, other).runtime_equal


def test_the_pool_of_v3_6_is_the_packages_with_its_strategy() -> None:
    if not revm.available():
        pytest.skip("pyrevm has wheels for CPython 3.11 and 3.12 only")
    evm = revm.RevmEvm(timestamp=GENESIS)
    ensure_protocol_toolchain([AAVE_V3_6])
    market = deploy_market(evm, on_version(DEFAULT_MARKET, AAVE_V3_6))
    identity = code_identity(evm, market)
    assert identity.runtime_equal
    assert (identity.contract, identity.package) == ("PoolInstance", "@aave-dao/aave-v3-origin@3.6.0")
    assert identity.code_hash == market.code_hashes["Pool"]
    # One proxy, the five libraries that the pool links, and the strategy that it holds as a constant.
    assert len(identity.parts) == 7
    strategy = identity.parts[-1]
    code = bytearray(evm.code(strategy.address))
    code[100] ^= 1
    evm.set_code(strategy.address, bytes(code))
    assert not code_identity(evm, market).runtime_equal
