"""The feeds of a scenario on chain: built in the order in which they read each other, moved step by step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from contracts_abi.calls import Call
from contracts_abi.errors import CallReverted, InputError
from oracle.faults import FaultModel
from oracle.mechanisms import FeedModel, World
from simulation.chain.plays.rigs import Rig, Site, rigs
from simulation.chain.plays.rigs.leaves import at_eight
from simulation.chain.plays.stage import Stage


class Stand:
    """The rigs of some feeds, and of those that they read.

    Feeds that need a past are built at once; the others when the first step is due, so that what is written
    into them then has the time that the scenario gives it.

    Parameters
    ----------
    stage
        Where to build.
    models, worlds
        Feed name to its description, and to what its mechanism sees.
    names
        Feeds that are read from outside.
    tokens
        Asset to token.
    faults
        Faults that bend what a consumer of a feed reads, in the order of the file.

    Raises
    ------
    InputError
        If contracts cannot show one of the faults.
    """

    def __init__(
        self,
        stage: Stage,
        models: Mapping[str, FeedModel],
        worlds: Mapping[str, World],
        names: Iterable[str],
        tokens: Mapping[str, str],
        faults: Iterable[FaultModel] = (),
    ) -> None:
        self._stage = stage
        self._models = models
        self._worlds = worlds
        self._tokens = tokens
        self._faults = tuple(faults)
        _require_shown(self._faults)
        swapped: list[Any] = [fault for fault in self._faults if fault.kind == _SWAP]
        self._read = tuple(dict.fromkeys([*names, *(fault.with_ for fault in swapped)]))
        self._order = _in_order(models, self._read)
        self.rigs: dict[str, Rig] = {}
        self.at_eight: dict[str, str] = {}
        for name in self._order:
            if rigs.get(models[name].kind).early:
                self._build(name)

    def begin(self) -> None:
        """Build the rest, at the stage's time; each answers for the first step before the next is built."""
        for name in self._order:
            if name not in self.rigs:
                self._build(name)
            self._move(name, 0)
        for name in self._read:
            rig = self.rigs[name]
            self.at_eight[name] = at_eight(self._stage, rig.source, rig.answer, rig.word, rig.decimals)

    def step(self, i: int) -> None:
        """Bring all feeds to step `i`, those that others read first."""
        for name in self._order:
            self._move(name, i)

    def moments(self, after: int, before: int) -> list[int]:
        """Return the times between two steps at which something happens to a feed."""
        return sorted({t for rig in self.rigs.values() for t in rig.moments() if after < t < before})

    def at(self, t: int) -> None:
        """Bring all feeds to a time between two steps, which is the stage's."""
        for name in self._order:
            if not self._acting(name, _FREEZE):
                self.rigs[name].at(t)

    def _move(self, name: str, i: int) -> None:
        if not self._acting(name, _FREEZE):
            self.rigs[name].step(i)

    def sources(self, reads: Mapping[str, str]) -> dict[str, str]:
        """Return the contract that each asset's price is read from now; a swap names another feed's."""
        return {symbol: self.at_eight[self._stands_for(feed)] for symbol, feed in reads.items()}

    def _stands_for(self, name: str) -> str:
        swaps: list[Any] = self._acting(name, _SWAP)
        return str(swaps[-1].with_) if swaps else name

    def _acting(self, name: str, kind: str) -> list[Any]:
        now = self._stage.now
        return [f for f in self._faults if f.feed == name and f.kind == kind and f.active(now)]

    def costs(self) -> tuple[str, ...]:
        """Return what moving the feeds took, one line each."""
        return tuple(line for rig in self.rigs.values() for line in rig.costs())

    def answers(self) -> dict[str, int | None]:
        """Return each feed's answer at its own scale; None where it reverts."""
        return {name: self._answer(self.rigs[self._stands_for(name)]) for name in self.rigs}

    def _answer(self, rig: Rig) -> int | None:
        # Its word as it stands: prices are signed on some feeds and not on others.
        call = Call(rig.source, rig.answer.selector, bytes, f"{rig.answer.name} of {rig.source}")
        try:
            words = self._stage.read(call)
        except CallReverted:
            return None
        return int.from_bytes(words[32 * rig.word : 32 * rig.word + 32], signed=True)

    def _build(self, name: str) -> None:
        model = self._models[name]
        kind = rigs.get(model.kind)
        if kind.early and model.feeds():
            raise InputError(f"feed {name} needs a past and reads other feeds: it cannot be built on chain")
        sources = {read: self.rigs[read].source for read in model.feeds()}
        self.rigs[name] = kind(Site(self._stage, name, model, self._worlds[name], sources, self._tokens))


_FREEZE: Final = "freeze"
_SWAP: Final = "swap_feeds"
_GAS: Final = "gas"  # which keepers pay, and no contract here reads
_SHOWN: Final = frozenset({_FREEZE, _SWAP, _GAS})


def _require_shown(faults: Iterable[FaultModel]) -> None:
    for fault in faults:
        if fault.kind not in _SHOWN:
            raise InputError(
                f"the fault {fault.kind!r} of {fault.feed} is a typed number, which no contract shows",
                fix=f"play it without a chain; contracts show: {', '.join(sorted(_SHOWN))}",
            )


def _in_order(models: Mapping[str, FeedModel], names: Iterable[str]) -> list[str]:
    """Return the feeds and all that they read, each behind what it reads."""
    order: dict[str, None] = {}

    def add(name: str) -> None:
        for read in models[name].feeds():
            add(read)
        order[name] = None

    for name in names:
        add(name)
    return list(order)
