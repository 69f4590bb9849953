"""Whoever adds a protocol adds its parity test; whatever is registered offers what its interface asks."""

from __future__ import annotations

import inspect

import pytest

from simulation.chain.parity import ParityAdapter, parity_adapters
from simulation.interfaces import ProtocolAdapter
from simulation.protocols import protocols


def members(protocol: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(protocol) if not name.startswith("_")}


def test_every_protocol_has_a_parity_test() -> None:
    assert set(protocols) == set(parity_adapters) >= {"aave-v3"}


@pytest.mark.parametrize("kind", list(protocols))
def test_a_protocol_offers_its_interface(kind: str) -> None:
    cls = protocols.get(kind)
    assert cls.kind == kind
    assert members(ProtocolAdapter) <= members(cls)


@pytest.mark.parametrize("kind", list(parity_adapters))
def test_a_parity_adapter_offers_its_interface(kind: str) -> None:
    cls = parity_adapters.get(kind)
    assert cls.kind == kind
    assert members(ParityAdapter) <= members(cls)
    assert len(set(cls().tags)) == len(cls().tags)
