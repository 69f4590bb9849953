"""The registry: entries by name, and errors with the nearest one. The entries are in test_registries.py."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from contracts_abi.errors import InputError, UnknownNameError
from oracle.registry import Registry
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


def test_two_classes_of_one_name_in_two_modules_are_two(registry: Registry[type[Any]]) -> None:
    twin = type("Entry", (), {"__module__": "elsewhere", "kind": "entry"})
    with pytest.raises(ValueError, match="'entry' is registered twice"):
        registry.register("entry")(twin)
    assert registry.get("entry") is Entry


def test_an_entry_is_registered_under_its_own_kind(registry: Registry[type[Any]]) -> None:
    with pytest.raises(ValueError, match="registered as thing 'other' and has another kind"):
        registry.register("other")(Entry)
    assert "other" not in registry


def test_a_module_that_does_not_import_is_not_passed_over_at_the_second_look() -> None:
    broken: Registry[type[Any]] = Registry("thing", "oracle.there_is_no_such_package")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            list(broken)


def test_an_entry_that_is_no_model_is_not_built_from_configuration(registry: Registry[type[Any]]) -> None:
    class Parts:
        kind: ClassVar[str] = "parts"

    registry.register("parts")(Parts)
    with pytest.raises(TypeError, match="thing 'parts' is not built from configuration"):
        registry.build({"kind": "parts", "size": 1})
