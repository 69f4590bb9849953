"""Every entry of every registry: named, documented, of its interface, and built from configuration.

A new source, guard, protocol, margin method, policy or parity adapter is a new file; it is held to all of
this without a line here.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, NamedTuple

import pytest
from pydantic import ValidationError

from contracts_abi.errors import InputError, UnknownNameError
from oracle.guards import BASIC, guards
from oracle.interfaces import FeedContext, Guard, Source
from oracle.registry import Registry
from oracle.sources import sources
from oracle.strict import StrictModel
from oracle.types import GuardStatus, NoData
from simulation.chain.parity import ORACLE, ParityAdapter, parity_adapters
from simulation.chain.plays.rigs import rigs
from simulation.contagion.batch import Channel
from simulation.contagion.channels import channels
from simulation.contagion.impact import ImpactModel, impact_models
from simulation.contagion.policies import Policy as ContagionPolicy
from simulation.contagion.policies import policies as contagion_policies
from simulation.contagion.prices import PriceSpec, price_processes
from simulation.interfaces import MarginMethod, Policy, ProtocolAdapter
from simulation.liquidation import LiquidationModel
from simulation.margin import lending_margin, margin_methods
from simulation.margin.result import PortfolioMethod
from simulation.policy import policies
from simulation.protocols import protocols
from simulation.protocols.models import Founded, protocol_models

NOW = 1_600_000_000


class Kept(NamedTuple):
    """A registry, and what its entries promise to be."""

    registry: Registry[type[Any]]
    interfaces: tuple[type[Any], ...]
    from_config: bool


REGISTRIES = {
    "sources": Kept(sources, (Source,), True),
    "guards": Kept(guards, (Guard,), True),
    "policies": Kept(policies, (Policy,), True),
    "protocols": Kept(protocols, (ProtocolAdapter, LiquidationModel), False),
    "lending margin": Kept(lending_margin, (MarginMethod,), False),
    "margin methods": Kept(margin_methods, (PortfolioMethod,), True),
    "parity adapters": Kept(parity_adapters, (ParityAdapter,), False),
    "rigs": Kept(rigs, (), False),
    "channels": Kept(channels, (Channel,), True),
    "contagion policies": Kept(contagion_policies, (ContagionPolicy,), True),
    "price processes": Kept(price_processes, (PriceSpec,), True),
    "impact models": Kept(impact_models, (ImpactModel,), False),
}
ENTRIES = [
    pytest.param(kept, kind, id=f"{what}-{kind}")
    for what, kept in REGISTRIES.items()
    for kind in kept.registry
]
MODELS = [
    pytest.param(kept, kind, id=f"{what}-{kind}")
    for what, kept in REGISTRIES.items()
    if kept.from_config
    for kind in kept.registry
]


ONE_OF_TWO = {"garch-t"}
"""Kinds that need one of two fields, so that neither is required by itself."""


def built_by_name(kept: Kept) -> list[str]:
    """Return the kinds that need no more configuration than their name."""
    fields = {kind: kept.registry.get(kind).model_fields.values() for kind in kept.registry}
    plain = {kind for kind, of_kind in fields.items() if not any(f.is_required() for f in of_kind)}
    return sorted(plain - ONE_OF_TWO)


PLAIN = [
    pytest.param(kept, kind, id=f"{what}-{kind}")
    for what, kept in REGISTRIES.items()
    if kept.from_config
    for kind in built_by_name(kept)
]


@pytest.mark.parametrize("what", REGISTRIES)
def test_no_registry_is_empty(what: str) -> None:
    assert len(REGISTRIES[what].registry) > 0


@pytest.mark.parametrize(("kept", "kind"), ENTRIES)
def test_an_entry_carries_the_name_it_is_known_by(kept: Kept, kind: str) -> None:
    assert kept.registry.get(kind).kind == kind
    assert re.fullmatch(r"[a-z][a-z0-9]*([._-][a-z0-9]+)*", kind)


@pytest.mark.parametrize(("kept", "kind"), ENTRIES)
@pytest.mark.parametrize(
    "slip",
    [
        pytest.param(lambda kind: kind[:-1], id="cut"),
        pytest.param(lambda kind: kind + "x", id="longer"),
        pytest.param(str.upper, id="capitals"),
    ],
)
def test_a_slip_in_a_name_is_told_with_the_name_meant(kept: Kept, kind: str, slip: Any) -> None:
    if slip(kind) in kept.registry:
        pytest.skip(f"{slip(kind)} is a name too")
    with pytest.raises(UnknownNameError) as refused:
        kept.registry.get(slip(kind))
    # A cut name may be as near to another: then both are offered.
    assert re.search(rf"did you mean .*'{re.escape(kind)}'", str(refused.value))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("kept", "kind"), ENTRIES)
def test_an_entry_says_in_one_line_what_it_is(kept: Kept, kind: str) -> None:
    text = kept.registry.get(kind).__dict__.get("__doc__")
    assert text, "a docstring of its own, not an inherited one"
    summary = text.splitlines()[0]
    assert re.fullmatch(r"\S.{20,}\.", summary), summary


@pytest.mark.parametrize(("kept", "kind"), MODELS)
def test_every_setting_is_documented(kept: Kept, kind: str) -> None:
    entry = kept.registry.get(kind)
    # A field that a base brings is documented there.
    texts = (inspect.cleandoc(cls.__doc__ or "") for cls in entry.__mro__)
    listed = "\n".join(text.partition("Attributes\n")[2] for text in texts)
    for field in entry.model_fields:
        assert re.search(rf"^(\w+, )*{field}(, \w+)*$", listed, flags=re.MULTILINE), field


def offered(interface: type[Any]) -> dict[str, Any]:
    """Return the public members of an interface."""
    return {name: member for name, member in inspect.getmembers(interface) if not name.startswith("_")}


@pytest.mark.parametrize(("kept", "kind"), ENTRIES)
def test_an_entry_can_be_called_as_its_interface_says(kept: Kept, kind: str) -> None:
    entry = kept.registry.get(kind)
    for interface in kept.interfaces:
        for name, member in offered(interface).items():
            if name in getattr(entry, "model_fields", {}):
                continue
            own = getattr(entry, name, None)
            assert own is not None, f"{interface.__name__}.{name}"
            if not inspect.isfunction(member):
                continue
            wanted = list(inspect.signature(member).parameters.values())
            if isinstance(inspect.getattr_static(entry, name), staticmethod):
                wanted = wanted[1:]  # called on an entry, it is not given the entry
            given = list(inspect.signature(own).parameters.values())
            assert [(p.name, p.kind) for p in given[: len(wanted)]] == [(p.name, p.kind) for p in wanted], (
                name
            )
            assert all(p.default is not p.empty for p in given[len(wanted) :]), name


@pytest.mark.parametrize(("kept", "kind"), MODELS)
def test_a_model_refuses_keys_that_it_does_not_know(kept: Kept, kind: str) -> None:
    entry = kept.registry.get(kind)
    assert issubclass(entry, StrictModel)
    for key in entry.model_fields:
        with pytest.raises(InputError, match=f"unknown key '{key}_'; did you mean '{key}'"):
            kept.registry.build({"kind": kind, f"{key}_": 1})
    with pytest.raises(InputError, match=r"here: unknown key 'qqqq'"):
        kept.registry.build({"kind": kind, "qqqq": 1}, where="here")


@pytest.mark.parametrize(("kept", "kind"), MODELS)
def test_what_a_model_needs_is_named(kept: Kept, kind: str) -> None:
    entry = kept.registry.get(kind)
    required = [name for name, field in entry.model_fields.items() if field.is_required()]
    if required:
        with pytest.raises(InputError, match=rf"{kind}'?: {required[0]}: is missing"):
            kept.registry.build({"kind": kind})


@pytest.mark.parametrize("kind", sorted(ONE_OF_TWO))
def test_what_needs_one_of_two_fields_says_so(kind: str) -> None:
    with pytest.raises(InputError, match=r"\w+ is missing; give it, or "):
        price_processes.build({"kind": kind})


@pytest.mark.parametrize(("kept", "kind"), PLAIN)
def test_a_model_is_frozen_and_rebuilt_from_what_it_says_of_itself(kept: Kept, kind: str) -> None:
    model = kept.registry.build({"kind": kind})
    for interface in kept.interfaces:
        assert isinstance(model, interface)
    assert kept.registry.build({"kind": kind, **model.model_dump(mode="json")}) == model
    for field in type(model).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, field, getattr(model, field))


@pytest.mark.parametrize(("kept", "kind"), [e for e in ENTRIES if e not in MODELS])
def test_what_is_made_of_parts_is_not_built_from_configuration(kept: Kept, kind: str) -> None:
    with pytest.raises(TypeError, match="not built from configuration"):
        kept.registry.build({"kind": kind})


@pytest.mark.parametrize("kind", list(guards))
def test_no_guard_finds_anything_in_order_with_no_data(kind: str) -> None:
    finding = guards.build({"kind": kind}).check(
        NoData("ETH", "USD", "feed", NOW, "reverted"), (), (), FeedContext(NOW)
    )
    assert finding.status is not GuardStatus.OK
    assert finding.name == kind
    assert bool(finding.actions) == (finding.status is GuardStatus.VIOLATED)


def test_guards_have_ids_of_their_own() -> None:
    ids = [guards.get(kind).id for kind in guards]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"G\d\d", guard_id) for guard_id in ids)
    assert set(BASIC) <= set(guards)


def test_every_protocol_has_a_parity_test() -> None:
    compared = {name for name in parity_adapters if not name.startswith(f"{ORACLE}-")}
    executed = {k for k in protocol_models if protocol_models.get(k).founded is Founded.EXECUTED}
    assert set(protocols) | executed == compared
