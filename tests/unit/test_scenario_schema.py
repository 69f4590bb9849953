"""The JSON Schema of scenario files: the committed document is the code's, and packaged files keep to it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from keeper.commands.oracle_replay import schema
from oracle.faults import faults
from oracle.guards import guards
from oracle.incidents import incident_ids, incident_path
from oracle.mechanisms import mechanisms

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "oracle-scenario.schema.json"
SCHEMA: dict[str, Any] = json.loads(DOCUMENT.read_text(encoding="utf-8"))


def test_the_document_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    schema()
    told = capsys.readouterr().out
    assert DOCUMENT.read_text(encoding="utf-8") == told, (
        "run: marginline oracle schema > docs/oracle-scenario.schema.json"
    )


def test_it_has_a_table_for_every_feed_fault_and_guard() -> None:
    for base, key, registry in (
        ("FeedModel", "kind", mechanisms),
        ("FaultModel", "op", faults),
        ("GuardModel", "kind", guards),
    ):
        told = [entry["properties"][key]["const"] for entry in SCHEMA["$defs"][base]["oneOf"]]
        assert told == list(registry)


def test_every_reference_leads_somewhere() -> None:
    def references(node: Any) -> Iterator[str]:
        if isinstance(node, Mapping):
            if "$ref" in node:
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    assert {name.removeprefix("#/$defs/") for name in references(SCHEMA)} <= set(SCHEMA["$defs"])


TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": (str, date),
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": Mapping,
    "null": type(None),
}


def problems(value: Any, rule: Mapping[str, Any], where: str) -> list[str]:
    """Return what a value has that the schema's structure does not allow; patterns and bounds aside."""
    if "$ref" in rule:
        return problems(value, SCHEMA["$defs"][rule["$ref"].removeprefix("#/$defs/")], where)
    for some in ("anyOf", "oneOf"):
        if some in rule:
            each = [problems(value, one, where) for one in rule[some]]
            fitting = sum(not found for found in each)
            if fitting == 0 or (some == "oneOf" and fitting != 1):
                return [f"{where} fits {fitting} of {some}", *min(each, key=len)]
            return []
    if "const" in rule and value != rule["const"]:
        return [f"{where} is not {rule['const']!r}"]
    if "enum" in rule and value not in rule["enum"]:
        return [f"{where} is none of {rule['enum']}"]
    if "type" in rule and not isinstance(value, TYPES[rule["type"]]):
        return [f"{where} is no {rule['type']}"]
    found: list[str] = []
    if isinstance(value, list):
        for i, one in enumerate(value):
            found += problems(one, rule.get("items", {}), f"{where}.{i}")
    elif isinstance(value, Mapping) and rule.get("type") == "object":
        known = rule.get("properties", {})
        found += [f"{where}.{key} is missing" for key in rule.get("required", ()) if key not in value]
        for key, one in value.items():
            others = rule.get("additionalProperties", {})
            if key in known:
                found += problems(one, known[key], f"{where}.{key}")
            elif others is False:
                found.append(f"{where}.{key} is unknown")
            elif isinstance(others, Mapping):
                found += problems(one, others, f"{where}.{key}")
    return found


def raw(incident: str) -> dict[str, Any]:
    return tomllib.loads(incident_path(incident).read_text(encoding="utf-8"))


@pytest.mark.parametrize("incident", incident_ids())
def test_a_packaged_scenario_keeps_to_it(incident: str) -> None:
    assert problems(raw(incident), SCHEMA, incident) == []


def test_what_does_not_keep_to_it_is_noticed() -> None:
    file = raw("venus-luna-2022-05-12")
    assert problems(file | {"titel": ""}, SCHEMA, "f") == ["f.titel is unknown"]
    assert problems({k: v for k, v in file.items() if k != "clock"}, SCHEMA, "f") == ["f.clock is missing"]
    assert problems(file | {"faults": [{"op": "frezze", "feed": "LUNA/USD"}]}, SCHEMA, "f")
