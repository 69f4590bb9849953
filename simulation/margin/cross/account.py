"""Per wallet, side by side: isolated, cross, portfolio and cross-protocol requirement, and what binds.

- isolated: every debt, and every perpetual, with its own share of the collateral carries itself;
- cross: each protocol carries its own account (G);
- portfolio: one margin over all protocols, netted scenario by scenario under joint control (N);
- cross-protocol: the least capital that transfers can make do with (C).

isolated >= cross >= cross-protocol >= portfolio, always. The first needs no assumption that a venue does not
make by itself, and hides nothing; each further one frees capital, and is silent about a risk: see
`simulation.margin.cross.paths`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from simulation.book.types import SharedBook
from simulation.margin.cross.excess import Legs, excess_of, isolated, legs_of
from simulation.margin.cross.links import RESERVE, LinkClass, Links
from simulation.margin.cross.programme import (
    Capital,
    Limit,
    Problem,
    Relief,
    least_capital,
    needs_alone,
    reliefs,
)
from simulation.margin.cross.scenarios import Scenarios
from simulation.types import Float64

_AT_ONCE: Final = 500
"""Wallets whose scenarios are in memory together."""


@dataclass(frozen=True, slots=True)
class CrossAccount:
    """One wallet over all of its protocols.

    Attributes
    ----------
    wallet
        Its name in the book.
    protocols
        Where it has something, in the book's order.
    places
        The same as indices into the book's venues.
    now
        Excess of each protocol at the book's prices, dollars.
    alone, worst
        What each protocol needs alone, dollars, and the scenario where it is worst; empty where nothing.
    isolated
        Of all positions one by one, dollars.
    isolated_at
        The same for each protocol.
    capital
        G, N, C and where C stands; None where the solver failed: the wallet is unknown then.
    binding
        What keeps C above N, the most costly first; None where nobody asked.
    options
        Whether the wallet has options, which no figure here counts.
    reason
        Why it is unknown; empty when it is not.
    """

    wallet: str
    protocols: tuple[str, ...]
    places: tuple[int, ...]
    now: tuple[float, ...]
    alone: tuple[float, ...]
    worst: tuple[str, ...]
    isolated: float
    isolated_at: tuple[float, ...]
    capital: Capital | None
    binding: tuple[tuple[str, Relief], ...] | None
    options: bool
    reason: str = ""

    def record(self) -> dict[str, Any]:
        """Return it for JSON; dollars, and parts of one for `recognised_offset`."""
        out: dict[str, Any] = {
            "wallet": self.wallet,
            "protocols": [
                {"name": name, "excess_now": now, "needs_alone": alone, "worst_scenario": worst or None}
                for name, now, alone, worst in zip(
                    self.protocols, self.now, self.alone, self.worst, strict=True
                )
            ],
            "options_not_counted": self.options,
        }
        if self.capital is None:
            return out | {"status": "unknown", "reason": self.reason}
        c = self.capital
        required = {
            "isolated": self.isolated,
            "cross": c.gross,
            "portfolio": c.netted,
            "cross_protocol": c.required,
        }
        freed = {name: self.isolated - value for name, value in required.items()}
        placed = dict(zip(self.protocols, c.placed.tolist(), strict=True))
        return out | {
            "status": "liquidatable" if min(self.now, default=0.0) < 0 else "healthy",
            "requirement": required,
            "freed_of_isolated": freed,
            "gross": c.gross,
            "netted": c.netted,
            "transfer_constrained": c.required,
            "recognised_offset": c.offset,
            "placed": {**placed, RESERVE: c.reserve},
            "binding": None
            if self.binding is None
            else [{"limit": str(one.limit), "name": name, "saves": one.saved} for name, one in self.binding],
        }


def problem_of(
    excess: Float64, withdrawable: Float64, lends: Any, links: Links, scenarios: Scenarios, at: Sequence[int]
) -> Problem:
    """Return the programme's account of one wallet.

    Parameters
    ----------
    excess, withdrawable
        Of all venues of the book, shape (V, S).
    lends
        Which of them lend, shape (V,).
    links, scenarios
        Of the book.
    at
        The venues where the wallet has something.
    """
    rows = [*at, len(links.names)]
    corner = np.ix_(rows, at)
    shape = len(at), len(scenarios)
    returned = np.where(np.asarray(lends)[list(at), None], 0.0, np.ones(shape))
    return Problem(
        excess=excess[list(at)],
        withdrawable=withdrawable[list(at)],
        returned=returned,
        gas=np.broadcast_to(links.gas * scenarios.gas_factor, shape).copy(),
        haircut=links.haircut[corner],
        capacity=links.capacity[corner],
        open=scenarios.open_links(links)[corner],
    )


def cross_accounts(
    book: SharedBook,
    links: Links,
    scenarios: Scenarios,
    wallets: Sequence[int],
    *,
    name_binding: bool = True,
    progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None,
) -> Iterator[CrossAccount]:
    """Yield what is required of each wallet.

    Parameters
    ----------
    book
        The shared book.
    links, scenarios
        Of the book's venues.
    wallets
        Indices.
    name_binding
        Whether to solve again without each limit; a few programmes a wallet.
    progress
        Told of every wallet: its name, how many are done, how many there are.
    """
    for first in range(0, len(wallets), _AT_ONCE):
        chosen = np.asarray(wallets[first : first + _AT_ONCE], dtype=np.int64)
        legs = legs_of(book, chosen)
        found = excess_of(legs, scenarios.factors, scenarios.frozen, links)
        alone_by_position = isolated(book, legs, chosen, scenarios.factors)
        for i, w in enumerate(chosen):
            progress(book.wallets[w], first + i, len(wallets))
            yield _account(
                book.wallets[w],
                legs,
                i,
                (found.excess[i], found.withdrawable[i]),
                alone_by_position[i],
                links,
                scenarios,
                name_binding,
            )


def _account(
    wallet: str,
    legs: Legs,
    i: int,
    figures: tuple[Float64, Float64],
    by_position: Float64,
    links: Links,
    scenarios: Scenarios,
    name_binding: bool,
) -> CrossAccount:
    at = tuple(int(v) for v in np.flatnonzero(legs.present[i]))
    names = tuple(legs.names[v] for v in at)
    problem = problem_of(*figures, legs.lends, links, scenarios, at)
    alone = needs_alone(problem.excess)
    worst = [scenarios.names[int(s)] for s in problem.excess.argmin(axis=1)] if at else []
    capital: Capital | None = None
    binding: tuple[Relief, ...] | None = None
    reason = ""
    try:
        capital = least_capital(problem)
        binding = reliefs(problem, capital) if name_binding else None
    except ArithmeticError as error:
        reason = str(error)
    # Parts of an account sum to it but for rounding.
    isolated_at = np.maximum(by_position[list(at)], alone)
    return CrossAccount(
        wallet=wallet,
        protocols=names,
        places=at,
        now=tuple(float(x) for x in problem.excess[:, 0]),
        alone=tuple(float(x) for x in alone),
        worst=tuple(name if need > 0 else "" for name, need in zip(worst, alone, strict=True)),
        isolated=float(isolated_at.sum()),
        isolated_at=tuple(float(x) for x in isolated_at),
        capital=capital,
        binding=None
        if binding is None
        else tuple((limit_name(one, names, at, links), one) for one in binding),
        options=bool(legs.has_options[i]),
        reason=reason,
    )


def limit_name(relief: Relief, names: Sequence[str], at: Sequence[int], links: Links) -> str:
    """Return a limit in words: ends and class of a link, or the protocol."""
    if relief.limit is Limit.WITHDRAWAL:
        return f"withdrawal from {names[relief.source]}"
    if relief.limit is Limit.GAS:
        return f"gas at {names[relief.target]}"
    source = RESERVE if relief.source == len(names) else names[relief.source]
    row = len(links.names) if relief.source == len(names) else at[relief.source]
    kind: LinkClass | None = links.kind[row][at[relief.target]]
    return f"{source} -> {names[relief.target]} ({kind or 'no link'})"
