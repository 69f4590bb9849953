"""Scenario files: a book, prices, channels, policies and how much of it to run."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from contracts_abi.errors import InputError
from oracle.strict import StrictModel, input_error
from simulation.book.load import load_book
from simulation.book.types import SharedBook
from simulation.contagion.batch import market_prices, own_prices
from simulation.contagion.channels import channels
from simulation.contagion.channels.impact import ImpactChannel
from simulation.contagion.engine import Run
from simulation.contagion.impact import require_market
from simulation.contagion.policies import Policy, apply_policies, build_policy
from simulation.contagion.prices import AnyPriceSpec
from simulation.contagion.units import require_units
from simulation.contagion.world import build_world

MAX_FILE_BYTES: Final = 1 << 20

MOST_MOVE: Final = 10.0
"""Part of the price that a shock adds at most: more is meant in per cent."""


class Shock(StrictModel):
    """A move of a token's price that comes from outside and stays.

    Attributes
    ----------
    token
        Whose price.
    step
        When; 1 is the first step.
    move
        Part of the price: -0.2 is a fall by a fifth; above -1, at most 10.
    """

    token: str
    step: Annotated[int, Field(ge=1)] = 1
    move: float

    @field_validator("move")
    @classmethod
    def _is_a_part(cls, value: float) -> float:
        if not -1.0 < value <= MOST_MOVE:
            raise InputError(
                f"{value:g} is not above -1 and at most {MOST_MOVE:g}",
                fix="a part of the price: -0.2 for a fall by a fifth",
            )
        return value


class Uncertain(StrictModel):
    """A number of the scenario that is not known well, and the range in which it plausibly lies.

    Attributes
    ----------
    key
        Dotted key of the scenario, for example ``channels.impact.tokens.WETH.per_dollar``.
    low, high
        Ends of the range; the scenario's own value is between them.
    """

    key: Annotated[str, Field(min_length=1, pattern=r"^[^,:\s]+$")]
    low: int | float
    high: int | float

    @model_validator(mode="after")
    def _rises(self) -> Uncertain:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low is {self.low:g} and high {self.high:g}: give low < high")
        return self


class ScenarioFile(StrictModel):
    """A scenario as it stands in a TOML file."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: Annotated[str, Field(min_length=1, max_length=80)]
    """What it is called in reports."""
    description: str = ""
    """What it is about, one paragraph."""
    book: str
    """The shared book: a file beside the scenario."""
    prices: AnyPriceSpec
    """Process of the prices; ``process`` names it."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Of all draws."""
    paths: Annotated[int, Field(ge=1, le=10_000_000)] = 100
    """How many paths."""
    steps: Annotated[int, Field(ge=1, le=10_000_000)] = 288
    """How many steps a path has."""
    step_s: Annotated[float, Field(gt=0, le=86_400)] = 300
    """Seconds a step: 12 is a block of Ethereum, 60 a minute."""
    antithetic: bool = False
    """Whether prices are drawn in pairs of which one mirrors the other: less sampling error."""
    shocks: tuple[Shock, ...] = ()
    """Moves from outside."""
    channels: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings of channels by their names; oracle, interest, keepers and losses act without being listed."""
    policies: tuple[dict[str, Any], ...] = ()
    """Policies, applied in this order."""
    uncertain: tuple[Uncertain, ...] = ()
    """Numbers that are not known well; ``marginline simulate --spread`` runs the ends of their ranges."""

    @field_validator("channels")
    @classmethod
    def _known_channels(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in value:
            channels.get(name)
        return value


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario that can be run.

    Attributes
    ----------
    file
        As it was read.
    book
        The shared book.
    run
        Everything but the seed and the paths.
    """

    file: ScenarioFile
    book: SharedBook
    run: Run

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies that `run` is under."""
        return tuple(build_policy(t, f"policies.{i}") for i, t in enumerate(self.file.policies))


def load_scenario(path: Path, over: Mapping[str, Any] | None = None) -> Scenario:
    """Read a scenario file and everything that it names.

    Parameters
    ----------
    path
        TOML file.
    over
        Dotted keys and values that replace the file's, for example ``{"steps": 10}``.

    Raises
    ------
    InputError
        Naming the key, the value and the fix.
    """
    return build_scenario(read_table(path), path.parent, over, where=path.name)


def read_table(path: Path) -> dict[str, Any]:
    """Return the content of a scenario file as a table.

    Raises
    ------
    InputError
        When it is missing, too large, or not TOML.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise InputError(
            f"scenario {path}: {error.strerror}", fix="name a TOML file, see docs/contagion"
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"scenario {path}: larger than {MAX_FILE_BYTES} bytes", fix="put the book beside it")
    try:
        return tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"scenario {path}: not TOML: {error}", fix="correct the line") from None


def build_scenario(
    table: Mapping[str, Any], folder: Path, over: Mapping[str, Any] | None = None, *, where: str = "scenario"
) -> Scenario:
    """Return the scenario of a table; see `load_scenario`."""
    changed = with_values(table, over or {})
    try:
        file = ScenarioFile.model_validate(changed)
    except ValidationError as error:
        raise input_error(error, where) from None
    book = load_book(folder / file.book)
    return Scenario(file, book, build_run(file, book, folder))


def with_values(table: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with the values of dotted keys replaced; a number steps into a list."""
    out: Any = _copied(table)
    for key, value in over.items():
        at, parts = out, key.split(".")
        for part in parts[:-1]:
            at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
        if isinstance(at, list):
            at[int(parts[-1])] = value
        else:
            at[parts[-1]] = value
    return dict(out)


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, list) else value


def build_run(file: ScenarioFile, book: SharedBook, folder: Path) -> Run:
    """Return what a scenario runs: the book laid out, the process, channels, policies.

    Raises
    ------
    InputError
        If anything does not fit the book, a number is beyond what its unit allows, or a market has no
        depth or another price than the book.
    """
    require_units(file.channels, "channels")
    require_units(file.policies, "policies")
    world = build_world(book)
    own = own_prices(world)
    start = [float(world.price[world.token(symbol)]) for symbol in own]
    names = [kind for kind in channels if kind in file.channels or channels.get(kind).always]
    run = Run(
        world=world,
        prices=file.prices.build(own, start, folder),
        channels=tuple(
            channels.build({"kind": kind, **file.channels.get(kind, {})}, where=f"channels.{kind}")
            for kind in names
        ),
        steps=file.steps,
        dt_s=file.step_s,
        shocks=tuple((s.token, s.step, float(np.log1p(s.move))) for s in file.shocks),
        antithetic=file.antithetic,
    )
    _require_markets(run)
    return apply_policies(run, [build_policy(t, f"policies.{i}") for i, t in enumerate(file.policies)])


def _require_markets(run: Run) -> None:
    """Refuse a market without depth, and a pool that is not at the book's price or its backing's."""
    world = run.world
    still = np.zeros((1, len(world.tokens)))
    price = market_prices(world, world.price[None], still, np.ones_like(still))[0]
    for channel in run.on():
        if isinstance(channel, ImpactChannel):
            for a, model in channel.models(world).items():
                require_market(model, float(price[a]), f"channels.impact.tokens.{world.tokens[a]}")


def full_table(scenario: Scenario) -> dict[str, Any]:
    """Return a scenario as a table with every key that may be varied, defaults too."""
    table = scenario.file.model_dump(mode="json")
    prices = scenario.file.prices
    table["prices"] = {"process": prices.kind, **prices.model_dump(mode="json")}
    table["channels"] = {c.kind: c.model_dump(mode="json") for c in _listed(scenario)}
    table["policies"] = [
        {"kind": policy.kind, **policy.model_dump(mode="json")} for policy in scenario.policies
    ]
    plain: dict[str, Any] = _without_none(table)
    return plain


def _listed(scenario: Scenario) -> list[Any]:
    """Return the channels before any policy touched them."""
    own = scenario.file.channels
    kinds = [kind for kind in channels if kind in own or channels.get(kind).always]
    return [channels.build({"kind": kind, **own.get(kind, {})}) for kind in kinds]


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value
