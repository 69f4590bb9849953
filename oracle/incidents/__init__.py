"""Scenario files of real incidents, one TOML file each, named by their id."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contracts_abi.errors import UnknownNameError

_SUFFIX = ".toml"


def incident_ids() -> tuple[str, ...]:
    """Return the ids of the packaged scenarios, sorted."""
    names = (entry.name for entry in files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


def incident_path(incident_id: str) -> Traversable:
    """Return the scenario file of `incident_id`.

    Raises
    ------
    UnknownNameError
        With the nearest ids.
    """
    known = incident_ids()
    if incident_id not in known:
        raise UnknownNameError(
            "incident", incident_id, known, listed="`marginline oracle incidents` lists them"
        )
    return files(__package__) / f"{incident_id}{_SUFFIX}"
