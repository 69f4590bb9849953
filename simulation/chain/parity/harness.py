"""What runs any protocol's parity cases on any backend, and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np

from contracts_abi.errors import InputError
from oracle.registry import Registry
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.evm import Evm
from simulation.chain.revm import RevmEvm

BACKENDS: Final = ("revm", "anvil")
GENESIS: Final = 1_600_000_000
"""Time of the first block; any will do, as long as it is the same in every run."""

MAX_DETAILS: Final = 20
"""Mismatches written out in full; all are counted."""


class Verdict(StrEnum):
    """What the contract did with a case's liquidation."""

    LIQUIDATED = "liquidated"
    REJECTED = "rejected"
    HEALTHY = "healthy"


@dataclass(frozen=True, slots=True)
class Compared:
    """What is held equal.

    Attributes
    ----------
    model
        Our code, as an import path or a registry name.
    contract
        The contracts, with the package and version that they come from.
    ours
        Whether we wrote the contracts too; agreement then proves less.
    """

    model: str
    contract: str
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One value on which model and contract part."""

    field: str
    contract: str
    model: str


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case.

    Attributes
    ----------
    verdict
        What the contract did; one of the adapter's `verdicts`.
    code
        With which code it reverted; None when it did not.
    tags
        What the case was an instance of; counted under these names.
    mismatches
        Where the model said something else; empty when it agrees on everything compared.
    """

    verdict: str
    code: str | None
    tags: frozenset[str]
    mismatches: tuple[Mismatch, ...]


W = TypeVar("W")


class ParityAdapter(Protocol[W]):
    """One protocol's or price source's side of the harness. `W` is what it deployed."""

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        ...

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What the contract can do with a case; the counts of a run add up to its cases."""
        ...

    @property
    def tags(self) -> tuple[str, ...]:
        """Names that the cases are counted under, so that a count of 0 is shown too."""
        ...

    def prepare(self, evm: Evm) -> W:
        """Deploy the real contracts and fund everybody; called once."""
        ...

    def run(self, evm: Evm, world: W, rng: np.random.Generator) -> CaseResult:
        """Bring about one case, compute it and compare. The state is put back afterwards."""
        ...


parity_adapters: Registry[type[Any]] = Registry("parity test", "simulation.chain.parity")

ORACLE: Final = "oracle"
"""Stands for all parity tests of price sources; their names begin with it."""


@dataclass(frozen=True, slots=True)
class ParityResult:
    """The outcome of a run.

    Attributes
    ----------
    protocol, backend, seed, cases
        What was run. Case i depends on the seed and i only.
    compared
        What was held equal with what.
    mismatches
        Cases in which model and contract part in anything.
    verdicts
        Cases by what the contract did; they add up to `cases`.
    codes
        Cases by the contract's revert code.
    tags
        Cases by what they were instances of.
    details
        Case number and mismatch, of the first ones.
    """

    protocol: str
    backend: str
    seed: int
    cases: int
    compared: Compared
    mismatches: int
    verdicts: dict[str, int]
    codes: dict[str, int]
    tags: dict[str, int]
    details: tuple[tuple[int, Mismatch], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "protocol": self.protocol,
            "backend": self.backend,
            "seed": self.seed,
            "cases": self.cases,
            "model": self.compared.model,
            "contract": self.compared.contract,
            "ours": self.compared.ours,
            "mismatches": self.mismatches,
            **{str(verdict): count for verdict, count in self.verdicts.items()},
            **self.tags,
            "revert_codes": dict(sorted(self.codes.items())),
            "details": [
                {"case": case, "field": m.field, "contract": m.contract, "model": m.model}
                for case, m in self.details
            ],
        }


@contextmanager
def backend_evm(backend: str) -> Iterator[Evm]:
    """Start a backend by name and end it.

    Raises
    ------
    InputError
        If there is no such backend.
    ToolError
        If it is not installed.
    """
    if backend == "revm":
        yield RevmEvm(timestamp=GENESIS)
    elif backend == "anvil":
        with Anvil.start(AnvilOptions(timestamp=GENESIS)) as node:
            yield node.evm()
    else:
        raise InputError(f"unknown backend {backend!r}", fix=f"choose one of {', '.join(BACKENDS)}")


def run_parity(
    protocol: str,
    backend: str = "revm",
    *,
    cases: int,
    seed: int,
    first: int = 0,
    source: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> ParityResult:
    """Compare a protocol's model, or a price source, with its bytecode.

    Parameters
    ----------
    protocol
        Registry name, for example ``aave-v3``.
    backend
        One of `BACKENDS`.
    cases, seed, first
        Runs the cases ``first … first + cases - 1`` of the seed's endless sequence; `first` serves to
        repeat one that parted.
    source
        Built checkout of contracts that no package ships; see `parity_adapter`.
    progress
        Called with the number of cases done.

    Raises
    ------
    UnknownNameError
        If no such protocol has a parity test.
    InputError
        If the backend is unknown, or a number is out of range.
    ToolError
        If the backend or the protocol's artifacts are not installed.
    """
    adapter = parity_adapter(protocol, source)
    results = run_cases(adapter, backend, cases=cases, seed=seed, first=first)
    verdicts: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    tags: Counter[str] = Counter(dict.fromkeys(adapter.tags, 0))
    details: list[tuple[int, Mismatch]] = []
    parted = 0
    for case, result in enumerate(results, start=first):
        verdicts[result.verdict] += 1
        if result.code is not None:
            codes[result.code] += 1
        tags.update(result.tags)
        parted += bool(result.mismatches)
        details += [(case, mismatch) for mismatch in result.mismatches]
        if progress is not None:
            progress(case - first + 1)
    return ParityResult(
        protocol=protocol,
        backend=backend,
        seed=seed,
        cases=cases,
        compared=adapter.compared,
        mismatches=parted,
        verdicts={verdict: verdicts[verdict] for verdict in adapter.verdicts},
        codes=dict(codes),
        tags=dict(tags),
        details=tuple(details[:MAX_DETAILS]),
    )


def parity_adapter(protocol: str, source: Path | None = None) -> ParityAdapter[Any]:
    """Return a protocol's side of the harness.

    Parameters
    ----------
    source
        Checkout with the contracts that are compared, for the protocols whose adapter has a `from_source`.

    Raises
    ------
    UnknownNameError
        If no such protocol has a parity test.
    InputError
        If it needs a checkout and there is none, or takes none.
    """
    entry = parity_adapters.get(protocol)
    if hasattr(entry, "from_source"):
        adapter: ParityAdapter[Any] = entry.from_source(source)
        return adapter
    if source is not None:
        raise InputError(f"--source {source}: {protocol} is compared with what npm ships", fix="leave it out")
    return entry()  # type: ignore[no-any-return]


def parity_names(wanted: str) -> tuple[str, ...]:
    """Return the parity tests that a name stands for: `ORACLE` for all of price sources, else itself.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    if wanted == ORACLE:
        return tuple(name for name in sorted(parity_adapters) if name.startswith(f"{ORACLE}-"))
    parity_adapters.get(wanted)
    return (wanted,)


def run_cases(
    adapter: ParityAdapter[Any], backend: str, *, cases: int, seed: int, first: int = 0
) -> Iterator[CaseResult]:
    """Yield the results of `run_parity` one by one; who has seen enough may stop."""
    if cases < 1:
        raise InputError(f"cases is {cases}", fix="ask for at least 1")
    if seed < 0 or first < 0:
        raise InputError(f"seed is {seed}, first case {first}", fix="neither may be negative")
    with backend_evm(backend) as evm:
        world = adapter.prepare(evm)
        for case in range(first, first + cases):
            snapshot = evm.snapshot()
            yield adapter.run(evm, world, np.random.default_rng([seed, case]))
            evm.revert(snapshot)
