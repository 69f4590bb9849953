"""Model against bytecode: random states of a real deployment, computed by both, compared to the wei.

One harness for all protocols. A protocol adds a module here with a `ParityAdapter`: it deploys the real
contracts, brings about one random case at a time, and reports where its model and the contracts part.
"""

from __future__ import annotations

from simulation.chain.parity.harness import (
    CaseResult,
    Mismatch,
    ParityAdapter,
    ParityResult,
    Verdict,
    parity_adapters,
    run_cases,
    run_parity,
)

__all__ = [
    "CaseResult",
    "Mismatch",
    "ParityAdapter",
    "ParityResult",
    "Verdict",
    "parity_adapters",
    "run_cases",
    "run_parity",
]
