"""Protocols that are modelled and on no chain that we read: found by name, but not by a keeper.

A registry of its own. An entry of `simulation.protocols.protocols` is an adapter: it says which reads it
needs, decodes their answers and builds the call that liquidates, and a keeper asks it for all three. A model
here has states put together by a scenario or a file, so none of that would have a meaning. A keeper that is
configured with one of these names is refused in one line, as with any name that is no adapter's.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from oracle.registry import Registry
from simulation.types import MarginStatus

M = TypeVar("M", contravariant=True)
A = TypeVar("A", contravariant=True)


class Founded(StrEnum):
    """What a model was held against."""

    EXECUTED = "executed: compared with the contracts' own bytecode"
    READ = "read, not executed: formulas of the published sources, checked by hand and by properties"


@runtime_checkable
class ProtocolModel(Protocol[M, A]):
    """One protocol's rules. `M` is its market state with prices, `A` the exact state of one account."""

    kind: ClassVar[str]
    founded: ClassVar[Founded]
    source: ClassVar[str]

    def status(self, market: M, account: A) -> MarginStatus:
        """Return whether the account may be liquidated; `UNKNOWN` where a price that it needs is missing."""
        ...


protocol_models: Registry[type[Any]] = Registry("protocol model", "simulation.protocols")
"""Models by name; see `ProtocolModel`."""
