"""A pack's files: targets with bands, free parameters with ranges, what is compared."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from contracts_abi.errors import InputError, UnknownNameError
from oracle.strict import StrictModel, input_error
from simulation.contagion.packs.ladder import LadderSpec
from simulation.contagion.packs.statistics import require_statistic

MAX_BYTES: Final = 1 << 20

M = TypeVar("M", bound=StrictModel)

Grade = Literal["P", "S", "R", "K", "M"]
"""Proven against the primary source; read in a source; recalled; known without a page; measured by us."""

Text = Annotated[str, Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Band(StrictModel):
    """How far from a published figure counts as the same: one of the two.

    Attributes
    ----------
    relative
        Part of the published figure on either side.
    absolute
        In the figure's own unit on either side.
    """

    relative: Annotated[float, Field(gt=0, lt=1)] | None = None
    absolute: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Band:
        if (self.relative is None) == (self.absolute is None):
            raise InputError("a band is relative or absolute", fix="give one of the two")
        return self


class Target(StrictModel):
    """A published figure, and what of a simulation is held against it.

    Attributes
    ----------
    name, meaning
        What it is called, and what it counts.
    statistic
        See `simulation.contagion.packs.statistics`.
    published
        Least and greatest figure that was published; twice the same where there is one.
    unit
        Of both.
    source, grade
        Where it was published, and how well that was checked, see `Grade`.
    role
        ``calibrated``: a parameter was fitted to it, so that meeting it proves nothing. ``held out``: nothing
        was.
    band
        How near counts.
    why
        Why so near and no nearer.
    """

    name: Text
    meaning: Text
    statistic: Text
    published: tuple[Finite, Finite]
    unit: str
    source: Text
    grade: Grade
    role: Literal["calibrated", "held out"]
    band: Band
    why: Text

    @model_validator(mode="after")
    def _fits(self) -> Target:
        if self.published[0] > self.published[1]:
            raise InputError(f"published of {self.name} falls", fix="the least figure first")
        require_statistic(self.statistic)
        return self

    @property
    def middle(self) -> float:
        """Half-way between the published figures."""
        return sum(self.published) / 2.0

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and greatest simulated figure that counts as the same."""
        low, high = self.published
        if self.band.absolute is not None:
            return low - self.band.absolute, high + self.band.absolute
        assert self.band.relative is not None
        return low - self.band.relative * abs(low), high + self.band.relative * abs(high)

    def met(self, value: float) -> bool:
        """Tell whether a figure is within the band; one that is not a number is not."""
        low, high = self.bounds
        return low <= value <= high


class TargetsFile(StrictModel):
    """What a ``targets.toml`` holds.

    Attributes
    ----------
    target
        The targets.
    """

    target: Annotated[tuple[Target, ...], Field(min_length=1)]


class Parameter(StrictModel):
    """Something that nobody published.

    Attributes
    ----------
    name
        What it is called.
    keys
        Where it stands: dotted keys that begin with ``scenario``, ``generate`` or ``ladder``; ``*`` stands
        for every entry of a list.
    low, high
        Range in which it may plausibly be.
    fitted
        Whether it is found from the calibrated targets; else the value in the files was chosen.
    whole
        Whether it counts something.
    starts
        Where searches begin, besides the value in the files: every combination with those of the others.
    unit, why
        For people: its unit, and where the range comes from.
    """

    name: Text
    keys: Annotated[tuple[Text, ...], Field(min_length=1)]
    low: Finite
    high: Finite
    fitted: bool
    whole: bool = False
    starts: tuple[Finite, ...] = ()
    unit: str = ""
    why: Text

    @model_validator(mode="after")
    def _a_range(self) -> Parameter:
        if not self.low < self.high:
            raise InputError(f"range of {self.name}: {self.low:g} to {self.high:g}", fix="low below high")
        if self.fitted and not self.low > 0:
            raise InputError(f"range of {self.name} begins at {self.low:g}", fix="what is fitted is positive")
        for key in self.keys:
            if key.partition(".")[0] not in ("scenario", "generate", "ladder"):
                raise InputError(f"key {key} of {self.name}", fix="begin with scenario, generate or ladder")
        return self

    def held(self, value: float) -> float | int:
        """Return a value inside the range, whole where it counts something."""
        inside = min(max(value, self.low), self.high)
        return round(inside) if self.whole else float(inside)


class Comparison(StrictModel):
    """The same paths once more with something else.

    Attributes
    ----------
    name, meaning
        What it is called, and what it shows.
    over
        Dotted keys and values, as in `Parameter`.
    statistics
        What is shown of it, beside the same of the pack itself.
    """

    name: Text
    meaning: Text
    over: Annotated[dict[str, Any], Field(min_length=1)]
    statistics: Annotated[tuple[Text, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _known(self) -> Comparison:
        for statistic in self.statistics:
            require_statistic(statistic)
        return self


class PackFile(StrictModel):
    """What a ``pack.toml`` holds.

    Attributes
    ----------
    title, date, summary
        Of the event.
    targets_sha256, targets_commit
        Digest of the ``targets.toml`` that was committed before calibration, and that commit.
    generate
        Fields of `BookSpec`, its ``seed`` and ``scale`` (which multiplies all sizes), over the market in
        ``book.toml``; None for no generated wallets.
    ladder
        Groups of accounts, see `LadderSpec`, on top of the market; none without.
    ladder_seed
        Of their order.
    parameter
        Free parameters.
    compare
        What is run besides.
    left_out
        What the pack does not model, one sentence each.
    """

    title: Text
    date: Text
    summary: Text
    targets_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    targets_commit: Annotated[str, Field(pattern="^[0-9a-f]{7,40}$")]
    generate: dict[str, Any] | None = None
    ladder: tuple[LadderSpec, ...] = ()
    ladder_seed: int = 1
    parameter: tuple[Parameter, ...]
    compare: tuple[Comparison, ...] = ()
    left_out: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _one_book(self) -> PackFile:
        if self.generate is not None and self.ladder:
            raise InputError("both generate and ladder", fix="leave one out")
        return self


class CalibratedFile(StrictModel):
    """What a ``calibrated.toml`` holds.

    Attributes
    ----------
    values
        Fitted parameters by name.
    rivals
        Other values at which all calibrated figures are met as well, found from other starts.
    """

    values: dict[str, Finite]
    rivals: tuple[dict[str, Finite], ...] = ()


@dataclass(frozen=True, slots=True)
class Pack:
    """An event pack as it was read.

    Attributes
    ----------
    name, folder
        Its folder's name, and the folder.
    file, targets
        See the classes.
    values, rivals
        See `CalibratedFile`.
    """

    name: str
    folder: Path
    file: PackFile
    targets: tuple[Target, ...]
    values: Mapping[str, float]
    rivals: tuple[Mapping[str, float], ...] = ()

    def role(self, role: str) -> tuple[Target, ...]:
        """Return the targets of a role."""
        return tuple(t for t in self.targets if t.role == role)

    @property
    def fitted(self) -> tuple[Parameter, ...]:
        """The parameters that calibration finds."""
        return tuple(p for p in self.file.parameter if p.fitted)


def load_pack(folder: Path, *, calibrated: bool = True) -> Pack:
    """Read a pack.

    Parameters
    ----------
    folder
        See `pack_folder`.
    calibrated
        Whether ``calibrated.toml`` is needed; without it the files' own values stand.

    Raises
    ------
    InputError
        Naming file, key and value; also where the bands are not those that were committed, and where the
        values do not belong to the fitted parameters.
    """
    file = _model(PackFile, folder / "pack.toml")
    data = _bytes(folder / "targets.toml")
    found = hashlib.sha256(data).hexdigest()
    if found != file.targets_sha256:
        raise InputError(
            f"{folder.name}/targets.toml has the sha256 {found[:12]}…, the bands that were committed before "
            f"calibration {file.targets_sha256[:12]}…",
            fix=f"take the file of commit {file.targets_commit}; bands do not move afterwards",
        )
    targets = _model(TargetsFile, folder / "targets.toml").target
    _require_once("target", [t.name for t in targets])
    _require_once("parameter", [p.name for p in file.parameter])
    _require_once("comparison", [c.name for c in file.compare])
    if not calibrated:
        return Pack(folder.name, folder, file, targets, {})
    found_values = _model(CalibratedFile, folder / "calibrated.toml")
    pack = Pack(folder.name, folder, file, targets, found_values.values, found_values.rivals)
    for values in (pack.values, *pack.rivals):
        _require_values(pack, values)
    return pack


def _require_values(pack: Pack, values: Mapping[str, float]) -> None:
    names = [p.name for p in pack.fitted]
    for name in values:
        if name not in names:
            raise UnknownNameError(f"fitted parameter of {pack.name}", name, names)
    for parameter in pack.fitted:
        value = values.get(parameter.name)
        if value is None:
            raise InputError(
                f"{pack.name}/calibrated.toml: {parameter.name} is missing",
                fix="run python scripts/calibrate_packs.py",
            )
        if parameter.held(value) != value:
            raise InputError(
                f"{pack.name}/calibrated.toml: {parameter.name} is {value:g}",
                fix=f"a value in [{parameter.low:g}, {parameter.high:g}]",
            )


def _require_once(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{what} {name} is there twice", fix="leave one out")


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"event pack {path}: {error.strerror}", fix="see docs/contagion/packs.md") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"event pack {path}: larger than {MAX_BYTES} bytes", fix="it is a short file")
    return data


def _model(model: type[M], path: Path) -> M:
    where = f"{path.parent.name}/{path.name}"
    try:
        return model.model_validate(tomllib.loads(_bytes(path).decode()))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{where}: not TOML: {error}", fix="correct the line") from None
    except ValidationError as error:
        raise input_error(error, where) from None
