"""The least capital that keeps every protocol whole in every scenario: gross, netted, transfer-constrained.

With x_p(s) the excess of protocol p above its own maintenance requirement in scenario s, and D_p(s) the
deficit max(0, -x_p(s)):

- gross G = sum over p of max(0, max over s of -x_p(s)): each protocol is an island;
- netted N = max(0, max over s of -sum over p of x_p(s)): one party controls all legs, liquidation is joint;
- transfer-constrained C = the least sum of capital k_p at the protocols and k_0 in a wallet, placed before s
  is known, such that in every s flows f_qp exist with

      x_p + k_p + sum over q of (1 - h_qp) f_qp - gas_p y_p - sum over r of f_pr >= 0
      sum over p of f_qp <= W_q + returned_q k_q,      sum over p of f_0p <= k_0
      sum over q of (1 - h_qp) f_qp <= (D_p + gas_p) y_p,      y_p in {0, 1}
      f_qp <= capacity_qp, and 0 where the link is closed in s;      k_p <= max over s of D_p(s).

Adding the first line over p gives N <= C; no flow and k_p = max D_p is allowed, hence C <= G. A protocol
takes no more capital than it needs alone: what is above that would be a wallet by another name, and a
protocol in which the account has nothing would lower C. A useful inflow is never more than D_p + gas_p, as
what leaves p is at most k_p, so the third line excludes nothing.

The programme is ours; that netting is lost between several venues is from Duffie and Zhu (2011) and Cont and
Kokholm (2014). Reference of the margin engines, section 5.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_array

from contracts_abi.errors import InputError
from simulation.types import Bool, Float64

TOLERANCE: Final = 1e-9
"""Of N <= C <= G, as a part of G. What the solver leaves within it is cut off; more is an error."""

_WHOLE_UP_TO: Final = 40
"""Scenarios that are solved at once; with more, those that bind are found one after another."""

_ADDED_AT_ONCE: Final = 8
_EXACT: Final[Any] = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


@dataclass(frozen=True, slots=True)
class Problem:
    """One account: P protocols, S scenarios, and links from each protocol and from the wallet's reserve.

    Attributes
    ----------
    excess
        Dollars above the protocol's own maintenance requirement, negative for a deficit, shape (P, S).
    withdrawable
        Dollars that can leave, in [0, max(0, excess)], shape (P, S); inf where only the excess after all
        flows limits it, which is the relaxation that bounds paths from below.
    returned
        Part of capital placed at the protocol that can leave it again, in [0, 1], shape (P, S).
    gas
        Dollars that any use of inflows costs at the protocol, shape (P, S).
    haircut
        Part of a flow that does not arrive, in [0, 1], shape (P + 1, P); the last row is the reserve's.
    capacity
        Most dollars of a flow, inf without a limit, shape (P + 1, P).
    open
        Whether a flow can arrive before its target is liquidated, shape (P + 1, P, S).
    """

    excess: Float64
    withdrawable: Float64
    returned: Float64
    gas: Float64
    haircut: Float64
    capacity: Float64
    open: Bool

    def __post_init__(self) -> None:
        if self.excess.ndim != 2:
            raise InputError(f"excess of shape {self.excess.shape}", fix="give protocols by scenarios")
        p, s = self.excess.shape
        shapes = {
            "withdrawable": (p, s),
            "returned": (p, s),
            "gas": (p, s),
            "haircut": (p + 1, p),
            "capacity": (p + 1, p),
            "open": (p + 1, p, s),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise InputError(f"{name} of shape {getattr(self, name).shape}", fix=f"give {shape}")
        if not np.isfinite(self.excess).all():
            raise InputError("an excess is no number", fix="leave an account out whose excess is unknown")
        if not (self.withdrawable >= 0).all():
            raise InputError("withdrawable below 0 or no number", fix="give dollars from 0 on")
        limited = np.isfinite(self.withdrawable)
        if (self.withdrawable > np.maximum(self.excess, 0.0))[limited].any():
            raise InputError("withdrawable above the excess", fix="take the lesser of the two")
        for name in ("returned", "haircut"):
            value = getattr(self, name)
            if not ((value >= 0) & (value <= 1)).all():
                raise InputError(f"{name} outside [0, 1]", fix="give a part of one")
        if not (np.isfinite(self.gas) & (self.gas >= 0)).all():
            raise InputError("gas below 0 or no number", fix="give dollars from 0 on")
        if not (self.capacity >= 0).all():
            raise InputError(
                "capacity below 0 or no number", fix="give dollars from 0 on, inf without a limit"
            )

    @property
    def deficit(self) -> Float64:
        """Dollars missing, shape (P, S)."""
        return np.maximum(-self.excess, 0.0)


@dataclass(frozen=True, slots=True)
class Capital:
    """The least capital and where it stands.

    Attributes
    ----------
    required
        C, dollars.
    gross, netted
        G and N, dollars.
    placed
        Dollars at each protocol, shape (P,).
    reserve
        Dollars in the wallet.
    programme
        Scenarios in the last programme that was solved; 0 where a closed form answered.
    """

    required: float
    gross: float
    netted: float
    placed: Float64
    reserve: float
    programme: int

    @property
    def offset(self) -> float:
        """The recognised offset (G - C) / (G - N), 1 when there is nothing to net."""
        room = self.gross - self.netted
        return 1.0 if room <= TOLERANCE * self.gross else (self.gross - self.required) / room


def needs_alone(excess: Float64) -> Float64:
    """Return what each protocol needs alone, dollars, shape (..., P), of an excess of shape (..., P, S)."""
    alone: Float64 = (-excess).max(axis=-1, initial=0.0)
    return alone


def gross(excess: Float64) -> Float64:
    """Return G, dollars, shape (...), of an excess of shape (..., P, S)."""
    total: Float64 = needs_alone(excess).sum(axis=-1)
    return total


def netted(excess: Float64) -> Float64:
    """Return N, dollars, shape (...), of an excess of shape (..., P, S)."""
    joint: Float64 = (-excess.sum(axis=-2)).max(axis=-1, initial=0.0)
    return joint


def least_capital(problem: Problem, *, closed_forms: bool = True) -> Capital:
    """Return the transfer-constrained requirement.

    Parameters
    ----------
    problem
        The account.
    closed_forms
        Whether to answer without a programme where the answer is known: no link is open, all are free, or
        gross and netted are equal. Off in tests, which hold both against each other.

    Raises
    ------
    ArithmeticError
        If the solver fails or leaves N <= C <= G by more than `TOLERANCE`: a defect, never a state of an
        account.

    Notes
    -----
    Without gas the answer is the vertex of a linear programme. With gas it is within 1e-6 of G of the least,
    which is the solver's absolute gap, and always enough capital: the choice of flows is fixed and what it
    needs is solved again linearly.
    """
    alone = needs_alone(problem.excess)
    g, n = float(alone.sum()), float(netted(problem.excess))
    if g == 0.0:
        return Capital(0.0, 0.0, 0.0, alone, 0.0, 0)
    if closed_forms:
        if g - n <= 1e-15 * g or not _useful(problem).any():
            return Capital(g, g, n, alone, 0.0, 0)
        if _all_free(problem):
            return Capital(n, g, n, np.zeros_like(alone), n, 0)
    placed, reserve, count = _solved(problem, alone, g)
    c = float(placed.sum()) + reserve
    if not n - TOLERANCE * g <= c <= g * (1 + TOLERANCE):
        raise ArithmeticError(f"netted {n!r}, transfer-constrained {c!r}, gross {g!r} are out of order")
    return Capital(min(max(c, n), g), g, n, placed, reserve, count)


def _useful(problem: Problem) -> Bool:
    """Return which links can carry something that is missing, shape (P + 1, P, S)."""
    p = problem.excess.shape[0]
    carries: Bool = np.logical_and(problem.haircut < 1, problem.capacity > 0)
    carries &= ~np.eye(p + 1, p, dtype=bool)
    useful: Bool = np.logical_and(problem.open, carries[:, :, None])
    if np.isfinite(problem.withdrawable).all():
        useful &= problem.deficit[None] > 0
        returns = problem.returned * needs_alone(problem.excess)[:, None]
        sends: Bool = np.logical_or(problem.withdrawable > 0, returns > 0)
        useful[:-1] &= sends[:, None, :]
    else:
        # Money may pass through a protocol, but only where somebody misses some.
        missed: Bool = np.any(problem.deficit > 0, axis=0, keepdims=True)
        useful &= missed[None]
    return useful


def _all_free(problem: Problem) -> bool:
    """Return whether nothing is lost or late anywhere, the reserve included."""
    p = problem.excess.shape[0]
    other = ~np.eye(p + 1, p, dtype=bool)
    wanted = other[:, :, None] & (problem.deficit > 0)[None]
    return bool(
        problem.open[wanted].all()
        and (problem.haircut[other] == 0).all()
        and np.isinf(problem.capacity[other]).all()
        and (problem.gas[problem.deficit > 0] == 0).all()
        and (problem.withdrawable >= np.maximum(problem.excess, 0.0)).all()
    )


class Limit(StrEnum):
    """What keeps an account from being netted."""

    LINK = "link"
    WITHDRAWAL = "withdrawal"
    GAS = "gas"


@dataclass(frozen=True, slots=True)
class Relief:
    """What one limit costs: how much less capital would do without it.

    Attributes
    ----------
    limit
        A link (its haircut, latency and capacity together), what may be withdrawn from a protocol, or gas.
    source, target
        Protocols by their place, of a link both, P for the reserve; -1 where there is none.
    saved
        Dollars by which C falls when only this limit goes.
    """

    limit: Limit
    source: int
    target: int
    saved: float


def reliefs(problem: Problem, capital: Capital) -> tuple[Relief, ...]:
    """Return what each limit alone costs, the most costly first; those that cost nothing are left out.

    By solving again without the limit, and not by the programme's duals: those are slopes, of which a closed
    link has none, and at a vertex where several limits meet they are not unique.

    Parameters
    ----------
    problem, capital
        The account, and what `least_capital` says of it.

    Returns
    -------
    tuple of Relief
        Empty where C is N, and where only several limits together cost something.
    """
    if capital.required - capital.netted <= TOLERANCE * capital.gross:
        return ()
    p = problem.excess.shape[0]
    trials: list[tuple[Limit, int, int, Problem]] = []
    needy = np.flatnonzero(problem.deficit.any(axis=1))
    for q in range(p + 1):
        for r in needy:
            if q != r:
                haircut, capacity, opened = (
                    problem.haircut.copy(),
                    problem.capacity.copy(),
                    problem.open.copy(),
                )
                haircut[q, r], capacity[q, r], opened[q, r] = 0.0, np.inf, True
                free = replace(problem, haircut=haircut, capacity=capacity, open=opened)
                trials.append((Limit.LINK, q, int(r), free))
    for q in range(p):
        excess = np.maximum(problem.excess[q], 0.0)
        if (problem.withdrawable[q] < excess).any():
            withdrawable = problem.withdrawable.copy()
            withdrawable[q] = excess
            trials.append((Limit.WITHDRAWAL, q, -1, replace(problem, withdrawable=withdrawable)))
    for r in needy:
        if problem.gas[r].any():
            gas = problem.gas.copy()
            gas[r] = 0.0
            trials.append((Limit.GAS, -1, int(r), replace(problem, gas=gas)))
    found = []
    for limit, source, target, trial in trials:
        saved = capital.required - least_capital(trial).required
        if saved > 1e-6 * capital.gross:
            found.append(Relief(limit, source, target, saved))
    return tuple(sorted(found, key=lambda one: (-one.saved, one.limit, one.source, one.target)))


# ---------------------------------------------------------------------------------------------- the programme


def _solved(problem: Problem, alone: Float64, unit: float) -> tuple[Float64, float, int]:
    """Return the capital at each protocol and in the reserve, and the scenarios of the last programme.

    Scenarios without a deficit bind nothing. Of many, the worst are solved first; the others are then tried
    with that capital by flows in order of cost. Those that fail come into the programme, whether or not
    better flows had done: the programme only grows, and its answer holds for all when none fails.
    """
    scaled = replace(
        problem,
        excess=problem.excess / unit,
        withdrawable=problem.withdrawable / unit,
        gas=problem.gas / unit,
        capacity=problem.capacity / unit,
    )
    cap = alone / unit
    useful = _useful(scaled)
    deficit = scaled.deficit
    bad = np.flatnonzero(deficit.any(axis=0))
    if len(bad) <= _WHOLE_UP_TO:
        placed, reserve = _programme(scaled, useful, cap, bad)
        return placed * unit, reserve * unit, len(bad)
    chosen = {int(deficit[p].argmax()) for p in range(len(cap)) if cap[p] > 0}
    chosen |= {int(deficit.sum(axis=0).argmax()), int((-scaled.excess.sum(axis=0)).argmax())}
    while True:
        at = np.array(sorted(chosen))
        placed, reserve = _programme(scaled, useful, cap, at)
        left = _left_by_greedy(scaled, useful, placed, reserve)
        left[at] = 0.0
        order = np.argsort(-left, kind="stable")[:_ADDED_AT_ONCE]
        more = [int(s) for s in order if left[s] > 1e-12]
        if not more:
            return placed * unit, reserve * unit, len(at)
        chosen |= set(more)


def _left_by_greedy(problem: Problem, useful: Bool, placed: Float64, reserve: float) -> Float64:
    """Return what flows in order of cost leave uncovered in each scenario, shape (S,); 0 is feasible."""
    need = np.maximum(problem.deficit - placed[:, None], 0.0)
    need = np.where(need > 0, need + problem.gas, 0.0)
    after = np.maximum(problem.excess + placed[:, None], 0.0)
    sendable = np.minimum(problem.withdrawable + problem.returned * placed[:, None], after)
    sendable = np.vstack([sendable, np.full(problem.excess.shape[1], reserve)])
    for q, p in _by_cost(problem.haircut):
        kept = 1.0 - problem.haircut[q, p]
        if kept <= 0:
            continue
        flow = np.minimum(np.minimum(sendable[q], need[p] / kept), problem.capacity[q, p])
        flow = np.where(useful[q, p], flow, 0.0)
        sendable[q] -= flow
        need[p] = np.maximum(need[p] - kept * flow, 0.0)
    left: Float64 = need.sum(axis=0)
    return left


def _by_cost(haircut: Float64) -> Iterator[tuple[int, int]]:
    """Yield the links, the cheapest first and the reserve's last of equals."""
    for flat in np.argsort(haircut, axis=None, kind="stable"):
        yield divmod(int(flat), haircut.shape[1])


def _programme(problem: Problem, useful: Bool, cap: Float64, at: Any) -> tuple[Float64, float]:
    """Return the least capital for the scenarios `at`; all figures are parts of G.

    Columns: capital at each protocol, the reserve, one for each flow, one for each use of gas.
    """
    count, ns = len(cap), len(at)
    excess, deficit, gas = problem.excess[:, at], problem.deficit[:, at], problem.gas[:, at]
    q, p, s = np.nonzero(useful[:, :, at])
    arcs = len(q)
    flow = count + 1 + np.arange(arcs)
    kept = 1.0 - problem.haircut[q, p]
    from_protocol = q < count
    sends = np.zeros((count, ns), dtype=bool)
    sends[q[from_protocol], s[from_protocol]] = True
    gets = np.zeros((count, ns), dtype=bool)
    gets[p, s] = True
    limited = np.isfinite(problem.withdrawable[:, at])

    rows: list[Any] = []
    columns: list[Any] = []
    values: list[Any] = []
    bounds: list[Any] = []
    used = 0

    def numbered(mask: Bool) -> Any:
        """Return numbers of further rows, one where `mask` holds."""
        nonlocal used
        numbers = np.full(mask.shape, -1)
        numbers[mask] = used + np.arange(int(mask.sum()))
        used += int(mask.sum())
        return numbers

    def put(row: Any, column: Any, value: Any) -> None:
        rows.append(row)
        columns.append(np.broadcast_to(column, np.shape(row)))
        values.append(np.broadcast_to(value, np.shape(row)))

    # A protocol is whole after all flows; implied where less leaves than is in excess.
    whole = (deficit > 0) | (sends & ~limited)
    row = numbered(whole)
    at_p = np.nonzero(whole)[0]
    put(row[whole], at_p, -1.0)
    bounds.append(excess[whole])
    into = whole[p, s]
    put(row[p[into], s[into]], flow[into], -kept[into])
    out = from_protocol.copy()
    out[from_protocol] = whole[q[from_protocol], s[from_protocol]]
    put(row[q[out], s[out]], flow[out], 1.0)
    # What leaves is withdrawable.
    pays = (gas > 0) & gets
    uses = int(pays.sum())
    use = count + 1 + arcs + np.arange(uses)
    put(row[pays], use, gas[pays])
    held = sends & limited
    row = numbered(held)
    bounds.append(problem.withdrawable[:, at][held])
    put(row[held], np.nonzero(held)[0], -problem.returned[:, at][held])
    out = from_protocol.copy()
    out[from_protocol] = held[q[from_protocol], s[from_protocol]]
    put(row[q[out], s[out]], flow[out], 1.0)
    # The reserve is spent once.
    spends = np.zeros(ns, dtype=bool)
    spends[s[~from_protocol]] = True
    row = numbered(spends)
    bounds.append(np.zeros(int(spends.sum())))
    put(row[spends], count, -1.0)
    put(row[s[~from_protocol]], flow[~from_protocol], 1.0)
    # Inflows that are used cost gas.
    row = numbered(pays)
    bounds.append(np.zeros(uses))
    put(row[pays], use, -(deficit + gas)[pays])
    into = pays[p, s]
    put(row[p[into], s[into]], flow[into], kept[into])

    width = count + 1 + arcs + uses
    matrix = csr_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(used, width)
    )
    limits = np.concatenate(bounds)
    cost = np.zeros(width)
    cost[: count + 1] = 1.0
    upper = np.concatenate([cap, [np.inf], problem.capacity[q, p], np.ones(uses)])
    lower = np.zeros(width)
    if uses:
        choice = _choice(cost, matrix, limits, upper, uses)
        lower[-uses:] = upper[-uses:] = choice
    # The stubs know neither a sparse matrix nor bounds as an array here; the function does.
    sparse: Any = matrix
    between: Any = np.column_stack([lower, upper])
    answer = linprog(cost, A_ub=sparse, b_ub=limits, bounds=between, method="highs", options=_EXACT)
    if answer.status != 0 or answer.x is None:
        raise ArithmeticError(f"the programme has no answer: {answer.message}")
    found = np.maximum(answer.x[: count + 1], 0.0)
    return found[:count], float(found[count])


def _choice(cost: Float64, matrix: Any, limits: Float64, upper: Float64, uses: int) -> Float64:
    """Return which inflows are used, 0 or 1 each, in the best answer of the mixed-integer programme."""
    integral = np.zeros(len(cost), dtype=np.int64)
    integral[-uses:] = 1
    # Rarely an answer is lost on the way back from the presolved programme; without presolving none is.
    for presolve in (True, False):
        answer = milp(
            cost,
            constraints=LinearConstraint(matrix, ub=limits),
            bounds=Bounds(np.zeros(len(cost)), upper),
            integrality=integral,
            options={"mip_rel_gap": 0.0, "presolve": presolve},
        )
        if answer.status == 0:
            chosen: Float64 = np.round(answer.x[-uses:])
            return chosen
    raise ArithmeticError(f"the mixed-integer programme has no answer: {answer.message}")
