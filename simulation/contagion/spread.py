"""How far a result hangs on parameters that nobody knows well: their plausible ranges, end by end.

A scenario names what is uncertain in ``[[uncertain]]`` tables. Each end of each range is one more run on the
same draws, and so are all low ends together and all high ends together. That is a spread over corners, not a
distribution: nothing is said of what lies between, and two parameters may do worse in another combination.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from contracts_abi.errors import InputError, UnknownNameError
from simulation.contagion.causes import Columns, Over, difference
from simulation.contagion.metrics import sampling_of, tail_of
from simulation.contagion.scenario import Scenario, build_scenario, full_table

KEY_FIGURES: Final = (
    "bad_debt_usd",
    "liquidated_usd",
    "liquidations",
    "keeper_profit_usd",
    "unfilled_usd",
    "time_to_clear_s",
)
"""Columns whose spread is reported."""
TAIL: Final = 0.99
"""Level of the value at risk and the expected shortfall of bad debt whose spread is reported."""
ENDS: Final = ("low", "high")


def range_ends(scenario: Scenario, folder: Path) -> dict[str, Over]:
    """Return the variants at the ends of the ranges: ``low KEY``, ``high KEY``, ``all low`` and ``all high``.

    Parameters
    ----------
    scenario
        Whose ranges.
    folder
        Where its files are.

    Raises
    ------
    InputError
        If the scenario names no range, a key twice, a key that is none, a range that its own value is not in,
        or an end that makes no scenario.
    """
    uncertain = scenario.file.uncertain
    if not uncertain:
        raise InputError(
            "the scenario names no range",
            fix="[[uncertain]] tables with key, low and high, see docs/contagion",
        )
    table = full_table(scenario)
    found: dict[str, Over] = {}
    for k, entry in enumerate(uncertain):
        where = f"uncertain.{k}"
        own = _value(table, entry.key, where)
        if not entry.low <= own <= entry.high:
            raise InputError(
                f"{where}: {entry.key} is {own:g} in the scenario, not in [{entry.low:g}, {entry.high:g}]",
                fix="a range that holds it",
            )
        if f"low {entry.key}" in found:
            raise InputError(f"{where}: {entry.key} has a range already", fix="one range a key")
        for end in ENDS:
            found[f"{end} {entry.key}"] = {entry.key: getattr(entry, end)}
    for end in ENDS:
        found[f"all {end}"] = {entry.key: getattr(entry, end) for entry in uncertain}
    for name, over in found.items():
        try:
            build_scenario(table, folder, over)
        except InputError as error:
            raise InputError(f"uncertain, {name}: {error.message}", fix=error.fix) from None
    return found


def _value(table: Mapping[str, Any], key: str, where: str) -> float:
    """Return the number at a dotted key."""
    at: Any = table
    for part in key.split("."):
        if isinstance(at, list):
            at = {str(i): entry for i, entry in enumerate(at)}
        names = list(at) if isinstance(at, dict) else []
        if part not in names:
            raise UnknownNameError(f"key of {where} ({key})", part, names)
        at = at[part]
    if isinstance(at, bool) or not isinstance(at, int | float):
        raise InputError(f"{where}: {key} is {at!r}", fix="the key of a number")
    return at


def spread_record(scenario: Scenario, base: Columns, at_ends: Mapping[str, Columns]) -> dict[str, Any]:
    """Return the spread of the key figures over the ends of all ranges.

    Parameters
    ----------
    scenario
        Whose ranges.
    base
        Columns of the scenario itself.
    at_ends
        Columns of the variants of `range_ends`, by their names.

    Returns
    -------
    dict
        ``ranges``; ``figures``: for each, what it is at the scenario's own values, and the least and the most
        over all ends, the own values among them, and at which ends; ``ends``: all figures of each end, with
        sampling errors, and what they change path by path.
    """
    group = 2 if scenario.run.antithetic else 1
    own = _figures(base, group)
    ends = {name: _figures(table, group) for name, table in at_ends.items()}
    figures = {}
    for name, value in own.items():
        each = {"the scenario": value["value"], **{end: ends[end][name]["value"] for end in ends}}
        least, most = min(each, key=lambda k: each[k]), max(each, key=lambda k: each[k])
        figures[name] = {
            "value": value["value"],
            "least": each[least],
            "least_at": least,
            "most": each[most],
            "most_at": most,
        }
    for end, table in at_ends.items():
        for name in KEY_FIGURES:
            ends[end][name]["change"] = asdict(difference(table, base, name, group))
    return {
        "ranges": [entry.model_dump(mode="json") for entry in scenario.file.uncertain],
        "figures": figures,
        "ends": ends,
    }


def _figures(table: Columns, group: int) -> dict[str, dict[str, Any]]:
    sampling = sampling_of(table, antithetic=group == 2)
    out: dict[str, dict[str, Any]] = {name: asdict(sampling.mean(table[name])) for name in KEY_FIGURES}
    tail = tail_of(table["bad_debt_usd"], TAIL, sampling=sampling, resamples=100)
    out["bad_debt_var_99_usd"], out["bad_debt_es_99_usd"] = asdict(tail.var), asdict(tail.es)
    return out
