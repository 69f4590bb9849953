"""The stand that a scenario is played on: an EVM whose every block is at the scenario's own time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from contracts_abi.calls import Call, Function
from simulation.chain.evm import Evm, TxResult, labelled_address, read, transact

T = TypeVar("T")

OWNER: Final = labelled_address("deployer")
"""Deploys and administers everything on the stand."""

PRICE_DECIMALS: Final = 8
"""Scale of the prices of Aave's oracle."""


class Stage:
    """An EVM at the time of one step.

    However many transactions a step takes, each is in a block with the step's time, and every read sees that
    time: averages, caps and delays depend on it to the second.

    Parameters
    ----------
    evm
        Where to play.
    now
        Unix seconds of the first step.
    """

    def __init__(self, evm: Evm, now: int) -> None:
        self.evm = evm
        self.now = now
        evm.warp(now)

    def move_to(self, now: int) -> None:
        """Go to a later time."""
        self.now = now
        self.evm.warp(now)

    def create(self, initcode: bytes) -> str:
        """Create a contract of ours."""
        self.evm.warp(self.now)
        created = self.evm.create(OWNER, initcode)
        self.evm.warp(self.now)
        return created

    def act(self, sender: str, to: str, fn: Function, *arguments: Any) -> TxResult:
        """Send a transaction that must succeed; raises `CallReverted`."""
        self.evm.warp(self.now)
        result = transact(self.evm, sender, to, fn, *arguments)
        self.evm.warp(self.now)
        return result

    def attempt(self, sender: str, to: str, fn: Function, *arguments: Any) -> TxResult:
        """Send a transaction that may revert."""
        self.evm.warp(self.now)
        result = self.evm.send(sender, to, fn.encode(*arguments))
        self.evm.warp(self.now)
        return result

    def read(self, call: Call[T]) -> T:
        """Execute a read at the step's time; raises `CallReverted`."""
        return read(self.evm, call)

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Undo at the end whatever is done inside."""
        snapshot, now = self.evm.snapshot(), self.now
        try:
            yield
        finally:
            self.evm.revert(snapshot)
            self.move_to(now)
