"""Guards: whether to believe a reading. One file a group of failures; ids are those of the failure taxonomy.

A guard says `OK` only when it had every input that it needs and found nothing. Without one it says
`NOT_APPLICABLE`, unless what it has is already enough to convict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from oracle.interfaces import FeedContext, Guard
from oracle.registry import Registry
from oracle.strict import StrictModel
from oracle.types import Finding, GuardAction, GuardStatus, PriceObs, Reading

guards: Registry[type[Any]] = Registry("guard", "oracle.guards")

BASIC = ("no_data", "non_positive", "stale", "future", "rollback", "bound", "jump")


def basic_guards() -> tuple[Guard, ...]:
    """Return the seven guards that any feed can be held to, at their default thresholds."""
    return tuple(guards.build({"kind": kind}) for kind in BASIC)


def all_guards() -> tuple[Guard, ...]:
    """Return every registered guard at its default thresholds, in the order of their ids."""
    several = [guards.build({"kind": kind}) for kind in guards]
    return tuple(sorted(several, key=lambda guard: guard.id))


class GuardModel(StrictModel):
    """What all guards share: an id, the actions they ask for, and how a finding is written."""

    kind: ClassVar[str]
    id: ClassVar[str]
    actions: ClassVar[frozenset[GuardAction]]
    checklist: ClassVar[tuple[str, ...]] = ()
    """Items of the Solodit checklist that the guard answers (Cyfrin/audit-checklist, checklist.json)."""

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading`; see `oracle.interfaces.Guard`."""
        raise NotImplementedError

    def _finding(
        self,
        reading: Reading,
        status: GuardStatus,
        message: str,
        observed: str = "",
        threshold: str = "",
        inputs: Mapping[str, object] | None = None,
        actions: Iterable[GuardAction] | None = None,
    ) -> Finding:
        asked = self.actions if actions is None else frozenset(actions)
        return Finding(
            guard=self.id,
            name=self.kind,
            source_id=reading.source_id,
            status=status,
            observed=observed,
            threshold=threshold,
            actions=asked if status is GuardStatus.VIOLATED else frozenset(),
            message=message,
            inputs={k: str(v) for k, v in (inputs or {}).items()},
        )

    def _verdict(
        self,
        reading: Reading,
        bad: bool,
        message: str,
        observed: object,
        threshold: object,
        inputs: Mapping[str, object],
        actions: Iterable[GuardAction] | None = None,
    ) -> Finding:
        """Return a finding of a guard that had all its inputs, or enough of them to convict."""
        status = GuardStatus.VIOLATED if bad else GuardStatus.OK
        return self._finding(reading, status, message, str(observed), str(threshold), inputs, actions)

    def _not_applicable(self, reading: Reading, missing: str) -> Finding:
        return self._finding(reading, GuardStatus.NOT_APPLICABLE, f"not applicable: {missing}")
