"""Every protocol model that no keeper runs on: named, documented, of its interface, refused by a keeper."""

from __future__ import annotations

import inspect
import re

import pytest

from contracts_abi.errors import UnknownNameError
from simulation.protocols import protocols
from simulation.protocols.models import Founded, protocol_models

KINDS = list(protocol_models)


def test_the_models_of_this_package_are_found() -> None:
    assert {"aave-v2", "options-account", "synthetix-perps"} <= set(KINDS)


def test_no_name_is_both_a_model_and_an_adapter() -> None:
    assert not set(KINDS) & set(protocols)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_says_what_it_is_and_how_well_founded(kind: str) -> None:
    entry = protocol_models.get(kind)
    assert entry.kind == kind
    assert re.fullmatch(r"[a-z][a-z0-9]*([._-][a-z0-9]+)*", kind)
    text = inspect.cleandoc(entry.__dict__["__doc__"])
    assert re.fullmatch(r"\S.{20,}\.", text.splitlines()[0])
    assert "Attributes\n-----" in text
    assert isinstance(entry.founded, Founded)
    assert len(entry.source) > 20
    for name in ("status", "columns"):
        assert inspect.getdoc(getattr(entry, name))
    assert [*inspect.signature(entry.status).parameters] == ["self", "market", "account"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_frozen(kind: str) -> None:
    assert protocol_models.get(kind).__dataclass_params__.frozen


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_only_a_model_has_is_refused_where_adapters_are_looked_up(kind: str) -> None:
    with pytest.raises(UnknownNameError) as refused:
        protocols.get(kind)
    assert "\n" not in str(refused.value)
    assert kind in str(refused.value)
