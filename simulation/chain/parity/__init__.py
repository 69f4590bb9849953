"""Model against bytecode: random states of a real deployment, computed by both, compared to the wei.

One harness for all protocols and price sources. Each adds a module here with a `ParityAdapter`: it deploys
the real contracts, brings about one random case at a time, and reports where model and contracts part.
"""

from __future__ import annotations

from simulation.chain.parity.harness import (
    ORACLE,
    CaseResult,
    Compared,
    Mismatch,
    ParityAdapter,
    ParityResult,
    Verdict,
    parity_adapter,
    parity_adapters,
    parity_names,
    run_cases,
    run_parity,
)

__all__ = [
    "ORACLE",
    "CaseResult",
    "Compared",
    "Mismatch",
    "ParityAdapter",
    "ParityResult",
    "Verdict",
    "parity_adapter",
    "parity_adapters",
    "parity_names",
    "run_cases",
    "run_parity",
]
