"""How money moves between protocols: classes of links with what they lose and how long they take.

The five classes are those of the reference of the margin engines, section 5.2; recognition and latency are
starting points in its ranges that nobody calibrated [R]. The link from the wallet's own money is ours: one
block, and nothing lost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Final

import numpy as np
from pydantic import Field, FiniteFloat, ValidationError, model_validator

from contracts_abi.errors import InputError, UnknownNameError
from oracle.strict import StrictModel, input_error
from simulation.types import Float64

RESERVE: Final = "reserve"
"""The wallet's own money, as a source of links."""

BLOCK_S: Final = 12.0


class LinkClass(StrEnum):
    """How two protocols are connected."""

    SAME_ACCOUNT = "same-account"
    ATOMIC = "same-chain-atomic"
    SLOW = "same-chain-slow"
    BRIDGE = "fast-bridge"
    CEX = "cex"
    WALLET = "wallet"


@dataclass(frozen=True, slots=True)
class ClassDefaults:
    """What a class of links stands for, until somebody measures it.

    Attributes
    ----------
    recognition
        Part of what leaves that counts on arrival; 1 less the haircut.
    latency_s
        Seconds until it counts.
    meaning
        Which links these are.
    """

    recognition: float
    latency_s: float
    meaning: str


CLASSES: Final[Mapping[LinkClass, ClassDefaults]] = MappingProxyType(
    {
        LinkClass.SAME_ACCOUNT: ClassDefaults(1.0, 0.0, "one account under one controller"),
        LinkClass.ATOMIC: ClassDefaults(0.8, BLOCK_S, "same chain, in one transaction, a keeper watches"),
        LinkClass.SLOW: ClassDefaults(
            0.25, 3_600.0, "same chain, not in one transaction, or with a cooldown"
        ),
        LinkClass.BRIDGE: ClassDefaults(0.15, 900.0, "another chain by a fast bridge"),
        LinkClass.CEX: ClassDefaults(0.125, 14_400.0, "from or to a central exchange"),
        LinkClass.WALLET: ClassDefaults(1.0, BLOCK_S, "the wallet's own money on the same chain"),
    }
)
"""Reference ranges: 100 %, 0; 70 to 90 %, a block; 0 to 50 %, minutes to days; 0 to 30 %, minutes; 0 to 25 %,
hours. Middles of the ranges [R]; the wallet's is ours."""

Part = Annotated[FiniteFloat, Field(ge=0, le=1)]
Dollars = Annotated[FiniteFloat, Field(ge=0)]
Seconds = Annotated[FiniteFloat, Field(ge=0)]


class Link(StrictModel):
    """One link of a file.

    Attributes
    ----------
    source, target
        Names of venues; `source` may be ``reserve``. ``*`` stands for every venue.
    kind
        Class, whose figures hold where none is given.
    haircut
        Part that does not arrive: slippage, utilisation, bridge fee, oracle mismatch, hedge-break reserve.
    latency_s
        Seconds.
    capacity
        Most dollars at once; none without a limit.
    """

    source: str = Field(alias="from")
    target: str = Field(alias="to")
    kind: LinkClass = Field(alias="class")
    haircut: Part | None = None
    latency_s: Seconds | None = None
    capacity: Dollars | None = None


class LinkFile(StrictModel):
    """Links and what belongs to them, as a TOML file has them.

    Attributes
    ----------
    link
        In order: a later one stands in the place of an earlier one of the same ends. Without any entry every
        venue is linked to every other as ``same-chain-atomic`` and the reserve to all as ``wallet``.
    gas
        Dollars of a transfer that is used, before any spike.
    t_liq_s
        Seconds between a deficit and the liquidation, where a scenario says nothing.
    gain_offset
        Part of a perpetual account's unpaid profit that can leave it.
    max_offsetable
        Most dollars of such profit; none without a limit.
    """

    link: tuple[Link, ...] | None = None
    gas: Dollars = 5.0
    t_liq_s: Seconds = 1_800.0
    gain_offset: Part = 0.5
    max_offsetable: Dollars | None = None

    @model_validator(mode="after")
    def _reserve_only_sends(self) -> LinkFile:
        for one in self.link or ():
            if one.target == RESERVE:
                raise InputError("a link leads to the reserve", fix="name a venue, or *")
        return self


@dataclass(frozen=True, slots=True)
class Links:
    """All links of a book's V venues, as matrices; the last row is the reserve.

    Attributes
    ----------
    names
        Venues, lending first.
    haircut, latency_s, capacity
        Shape (V + 1, V); latency inf where there is no link.
    kind
        Class of each link, None where there is none.
    gas, t_liq_s, gain_offset, max_offsetable
        As of `LinkFile`; inf without a limit.
    """

    names: tuple[str, ...]
    haircut: Float64
    latency_s: Float64
    capacity: Float64
    kind: tuple[tuple[LinkClass | None, ...], ...]
    gas: float
    t_liq_s: float
    gain_offset: float
    max_offsetable: float

    def of_class(self, kind: LinkClass) -> Any:
        """Return which links are of a class, bool, shape (V + 1, V)."""
        return np.array([[one is kind for one in row] for row in self.kind], dtype=np.bool_).reshape(
            self.haircut.shape
        )


DEFAULT_LINKS: Final = LinkFile()


def links_of(file: LinkFile, names: Sequence[str]) -> Links:
    """Return the links between venues.

    Parameters
    ----------
    file
        What was read, or `DEFAULT_LINKS`.
    names
        Venues of the book.

    Raises
    ------
    UnknownNameError
        If a link names none of them.
    """
    count = len(names)
    haircut, latency = np.ones((count + 1, count)), np.full((count + 1, count), np.inf)
    capacity = np.zeros((count + 1, count))
    kind: list[list[LinkClass | None]] = [[None] * count for _ in range(count + 1)]
    entries = file.link
    if entries is None:
        every = {"from": "*", "to": "*", "class": LinkClass.ATOMIC}
        wallet = {"from": RESERVE, "to": "*", "class": LinkClass.WALLET}
        entries = (Link.model_validate(every), Link.model_validate(wallet))
    for one in entries:
        for end in (one.source, one.target):
            if end not in (*names, "*") and not (end == RESERVE and end is one.source):
                raise UnknownNameError("venue of a link", end, (*names, RESERVE, "*"))
        sources = range(count) if one.source == "*" else [[*names, RESERVE].index(one.source)]
        targets = range(count) if one.target == "*" else [list(names).index(one.target)]
        default = CLASSES[one.kind]
        for q in sources:
            for p in targets:
                if q == p:
                    continue
                haircut[q, p] = 1.0 - default.recognition if one.haircut is None else one.haircut
                latency[q, p] = default.latency_s if one.latency_s is None else one.latency_s
                capacity[q, p] = math.inf if one.capacity is None else one.capacity
                kind[q][p] = one.kind
    return Links(
        names=tuple(names),
        haircut=haircut,
        latency_s=latency,
        capacity=capacity,
        kind=tuple(tuple(row) for row in kind),
        gas=file.gas,
        t_liq_s=file.t_liq_s,
        gain_offset=file.gain_offset,
        max_offsetable=math.inf if file.max_offsetable is None else file.max_offsetable,
    )


def parse_links(table: Mapping[str, Any], where: str) -> LinkFile:
    """Return the links of a file that was read as TOML.

    Raises
    ------
    InputError
        Naming the file, the key and the value.
    """
    try:
        return LinkFile.model_validate(table)
    except ValidationError as error:
        raise input_error(error, where) from None
