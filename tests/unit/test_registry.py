"""The registry: entries by name, errors with the nearest one, and what each registered source must offer."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from contracts_abi.errors import InputError, UnknownNameError
from oracle.guards import guards
from oracle.registry import Registry
from oracle.sources import sources
from oracle.strict import StrictModel


class Entry(StrictModel):
    kind: ClassVar[str] = "entry"
    size: int = 1


@pytest.fixture
def registry() -> Registry[type[Any]]:
    made: Registry[type[Any]] = Registry("thing", "oracle.types")
    made.register("entry")(Entry)
    return made


def test_entries_are_found_by_name_and_built_from_a_mapping(registry: Registry[type[Any]]) -> None:
    assert registry.get("entry") is Entry
    assert registry.build({"kind": "entry", "size": 3}) == Entry(size=3)
    assert list(registry) == ["entry"]
    assert "entry" in registry
    assert "other" not in registry
    assert len(registry) == 1


def test_a_name_is_taken_once(registry: Registry[type[Any]]) -> None:
    class Other(StrictModel):
        pass

    registry.register("entry")(Entry)
    with pytest.raises(ValueError, match="'entry' is registered twice"):
        registry.register("entry")(Other)


@pytest.mark.parametrize(
    ("config", "where", "message"),
    [
        ({"kind": "entri"}, None, "unknown thing 'entri'; did you mean 'entry'?"),
        ({"size": 3}, None, "thing without 'kind'; known: entry"),
        ({"size": 3}, "things.0", "things.0: thing without 'kind'; known: entry"),
        ({"kind": "entry", "sice": 3}, None, "thing 'entry': unknown key 'sice'; did you mean 'size'?"),
        ({"kind": "entry", "sice": 3}, "things.0", "things.0: unknown key 'sice'; did you mean 'size'?"),
    ],
)
def test_errors_are_one_line_with_the_fix(
    registry: Registry[type[Any]], config: dict[str, Any], where: str | None, message: str
) -> None:
    with pytest.raises(InputError) as refused:
        registry.build(config, where=where)
    assert str(refused.value) == message


def test_an_unknown_name_knows_the_known_ones(registry: Registry[type[Any]]) -> None:
    with pytest.raises(UnknownNameError) as refused:
        registry.get("x")
    assert (refused.value.name, refused.value.known) == ("x", ("entry",))


@pytest.mark.parametrize("registry", [sources, guards])
def test_an_entry_carries_the_name_it_is_known_by(registry: Registry[type[Any]]) -> None:
    for kind in registry:
        assert registry.get(kind).kind == kind


@pytest.mark.parametrize("kind", list(sources))
def test_a_source_has_the_interface(kind: str) -> None:
    entry = sources.get(kind)
    assert all(hasattr(entry, name) for name in ("source_id", "reads", "decode", "context"))
    assert {"base", "quote", "name", "heartbeat_s", "grace_s"} <= set(entry.model_fields)
