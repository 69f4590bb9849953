"""Netted, transfer-constrained and gross capital on random books, and against two other formulations."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import chain, combinations, product
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

import simulation.margin.cross.programme as programme
from simulation.margin.cross.programme import (
    Limit,
    Problem,
    gross,
    least_capital,
    netted,
    reliefs,
)

BOOKS = int(os.environ.get("MARGINLINE_BOOKS", "200"))
"""All of them: ``MARGINLINE_BOOKS=10000 pytest tests/property/test_margin_cross.py -n 4``."""

SLACK = 1e-8
"""Of figures of two solver runs, as a part of G; with gas the solver's gap of 1e-6 comes on top."""
GAS_SLACK = 3e-6


def random_problem(
    rng: np.random.Generator, *, gas: bool = False, protocols: int = 0, scenarios: int = 0
) -> Problem:
    """Return an account of two to four protocols; amounts from cents to millions, some links closed."""
    p = protocols or int(rng.integers(2, 5))
    s = scenarios or int(rng.integers(2, 13))
    size = 10.0 ** rng.uniform(-2, 6)
    excess = rng.normal(rng.uniform(-1, 3), 3, (p, s)) * size
    if rng.random() < 0.3:
        excess[-1] = -excess[0] * rng.uniform(0.5, 1.5)  # a hedge
    if rng.random() < 0.3:
        excess = np.round(excess / size) * size  # ties
    withdrawable = np.maximum(excess, 0.0) * np.where(rng.random((p, s)) < 0.3, 1.0, rng.random((p, s)))
    capacity = np.where(rng.random((p + 1, p)) < 0.3, rng.uniform(0, 5, (p + 1, p)) * size, np.inf)
    return Problem(
        excess=excess,
        withdrawable=withdrawable,
        returned=rng.integers(0, 2, (p, s)) * rng.choice([0.5, 1.0]),
        gas=rng.uniform(0, 0.3, (p, s)) * size if gas else np.zeros((p, s)),
        haircut=np.where(rng.random((p + 1, p)) < 0.1, 1.0, rng.uniform(0, 0.6, (p + 1, p))),
        capacity=capacity,
        open=rng.random((p + 1, p, s)) < rng.uniform(0.3, 1),
    )


def free(problem: Problem) -> Problem:
    """Return the same account where money moves at once and at no cost."""
    return replace(
        problem,
        withdrawable=np.maximum(problem.excess, 0.0),
        gas=np.zeros_like(problem.gas),
        haircut=np.zeros_like(problem.haircut),
        capacity=np.full_like(problem.capacity, np.inf),
        open=np.ones_like(problem.open),
    )


def permuted(problem: Problem, order: Any) -> Problem:
    """Return the same account with its protocols in another order."""
    p = len(order)
    rows = [*order, p]
    return Problem(
        problem.excess[order],
        problem.withdrawable[order],
        problem.returned[order],
        problem.gas[order],
        problem.haircut[np.ix_(rows, order)],
        problem.capacity[np.ix_(rows, order)],
        problem.open[np.ix_(rows, order)],
    )


def with_nothing_more(problem: Problem, rng: np.random.Generator) -> Problem:
    """Return the same account beside a protocol in which it has nothing, linked at no cost."""
    p, s = problem.excess.shape
    zero = np.zeros((1, s))

    def grown(matrix: Any, value: float) -> Any:
        out = np.full((p + 2, p + 1, *matrix.shape[2:]), value, dtype=matrix.dtype)
        out[:p, :p], out[p + 1, :p] = matrix[:p], matrix[p]
        return out

    return Problem(
        np.vstack([problem.excess, zero]),
        np.vstack([problem.withdrawable, zero]),
        np.vstack([problem.returned, zero + 1]),
        np.vstack([problem.gas, zero + rng.random()]),
        grown(problem.haircut, 0.0),
        grown(problem.capacity, np.inf),
        grown(problem.open, True),
    )


def check(problem: Problem, rng: np.random.Generator, slack: float) -> None:
    """Assert what must hold of every account."""
    answer = least_capital(problem, closed_forms=False)
    g, n, c = answer.gross, answer.netted, answer.required
    scale = max(g, 1e-300)
    # The order of the three is exact: the function cuts off what the solver leaves, and refuses more.
    assert 0 <= n <= c <= g
    assert answer.placed.sum() + answer.reserve == pytest.approx(c, abs=1e-9 * scale)
    assert 0 <= answer.offset <= 1 + 1e-9
    assert least_capital(problem).required == pytest.approx(c, abs=slack * scale)

    closed = replace(problem, open=np.zeros_like(problem.open))
    assert least_capital(closed, closed_forms=False).required == pytest.approx(g, abs=1e-9 * scale)
    assert least_capital(closed).required == g
    assert least_capital(free(problem), closed_forms=False).required == pytest.approx(n, abs=1e-9 * scale)
    assert least_capital(free(problem)).required == n

    nothing_lost = free(problem)
    for name in ("withdrawable", "haircut", "capacity", "open"):
        nearly = replace(nothing_lost, **{name: getattr(problem, name)})
        solved = least_capital(nearly, closed_forms=False).required
        assert least_capital(nearly).required == pytest.approx(solved, abs=slack * scale), name

    p = problem.excess.shape[0]
    worse = {
        "haircut": replace(problem, haircut=problem.haircut + (1 - problem.haircut) * rng.random((p + 1, p))),
        "latency": replace(problem, open=problem.open & (rng.random(problem.open.shape) < 0.7)),
        "capacity": replace(problem, capacity=problem.capacity * rng.random()),
        "withdrawable": replace(problem, withdrawable=problem.withdrawable * rng.random()),
    }
    for name, harder in worse.items():
        assert least_capital(harder, closed_forms=False).required >= c - slack * scale, name

    order = rng.permutation(p)
    assert least_capital(permuted(problem, order)).required == pytest.approx(c, abs=slack * scale)
    more = with_nothing_more(problem, rng)
    assert least_capital(more, closed_forms=False).required == pytest.approx(c, abs=slack * scale)

    other = rng.normal(0, 1, problem.excess.shape) * scale
    both = problem.excess + other
    assert gross(both) <= (g + gross(other)) * (1 + 1e-12)
    assert netted(both) <= (n + netted(other)) + 1e-12 * scale


def check_gas(problem: Problem, rng: np.random.Generator) -> None:
    """Assert what must hold where transfers cost gas."""
    answer = least_capital(problem, closed_forms=False)
    scale = max(answer.gross, 1e-300)
    assert 0 <= answer.netted <= answer.required <= answer.gross
    cheaper = replace(problem, gas=problem.gas * rng.random())
    assert least_capital(cheaper).required <= answer.required + GAS_SLACK * scale
    none = replace(problem, gas=np.zeros_like(problem.gas))
    assert least_capital(none).required <= answer.required + GAS_SLACK * scale


@pytest.mark.parametrize("seed", range(10))
def test_random_books(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    for i in range(BOOKS // 10):
        check(random_problem(rng), rng, SLACK)
        if i % 5 == 0:
            check_gas(random_problem(rng, gas=True), rng)


# ----------------------------------------------------------------------------------------- other formulations


def subsets(items: Any) -> Any:
    items = list(items)
    return chain.from_iterable(combinations(items, k) for k in range(1, len(items) + 1))


def by_cuts(problem: Problem) -> float:
    """Return C without flows: by the theorem of Hall and Gale, for whole links and capital that stays.

    Deficits of a scenario can be covered when no set of them misses more than what is linked to the set can
    send. One row for each set and scenario, and capital as the only unknown.
    """
    p, scenarios = problem.excess.shape
    deficit = problem.deficit
    rows, limits = [], []
    for s in range(scenarios):
        for chosen in subsets(np.flatnonzero(deficit[:, s])):
            row = np.zeros(p + 1)
            row[list(chosen)] = -1.0
            linked = [q for q in range(p + 1) if any(problem.open[q, r, s] and q != r for r in chosen)]
            limit = -sum(deficit[r, s] for r in chosen)
            for q in linked:
                if q == p:
                    row[p] = -1.0
                else:
                    limit += problem.withdrawable[q, s]
            rows.append(row)
            limits.append(limit)
    if not rows:
        return 0.0
    answer = linprog(np.ones(p + 1), A_ub=np.array(rows), b_ub=np.array(limits), method="highs-ipm")
    return float(answer.fun)


def test_flows_agree_with_cuts() -> None:
    rng = np.random.default_rng(21)
    between = 0
    for _ in range(120):
        base = random_problem(rng)
        problem = replace(
            base,
            returned=np.zeros_like(base.returned),
            haircut=np.zeros_like(base.haircut),
            capacity=np.full_like(base.capacity, np.inf),
        )
        answer = least_capital(problem, closed_forms=False)
        assert answer.required == pytest.approx(by_cuts(problem), abs=1e-6 * answer.gross)
        between += answer.netted * 1.001 < answer.required < answer.gross * 0.999
    assert between > 20


def written_out(problem: Problem) -> float:
    """Return C by trying every choice of inflows that pay gas, each with a programme written row by row.

    A row for every protocol and scenario and a flow for every pair, whether they matter or not.
    """
    p, scenarios = problem.excess.shape
    g = problem.deficit.max(axis=1, initial=0.0)
    best = np.inf
    flow = {key: p + 1 + i for i, key in enumerate(product(range(p + 1), range(p), range(scenarios)))}
    width = p + 1 + len(flow)
    for choice in product((0, 1), repeat=p * scenarios):
        used = np.array(choice).reshape(p, scenarios)
        if (used & (problem.deficit == 0)).any():
            continue  # pays for nothing
        rows, limits = [], []
        for s in range(scenarios):
            spent = np.zeros(width)
            spent[p] = -1.0
            for q in range(p):
                whole, leaves = np.zeros(width), np.zeros(width)
                whole[q] = -1.0
                leaves[q] = -problem.returned[q, s]
                for r in range(p + 1):
                    if r != q:
                        whole[flow[r, q, s]] -= 1 - problem.haircut[r, q]
                for r in range(p):
                    if r != q:
                        whole[flow[q, r, s]] += 1
                        leaves[flow[q, r, s]] += 1
                rows += [whole, leaves]
                limits += [problem.excess[q, s] - problem.gas[q, s] * used[q, s], problem.withdrawable[q, s]]
                spent[flow[p, q, s]] = 1.0
            rows.append(spent)
            limits.append(0.0)
        bounds = [(0.0, top) for top in g] + [(0.0, None)]
        for q, r, s in flow:
            shut = q == r or not problem.open[q, r, s] or not used[r, s]
            bounds.append((0.0, 0.0 if shut else problem.capacity[q, r]))
        cost = np.zeros(width)
        cost[: p + 1] = 1.0
        answer = linprog(cost, A_ub=np.array(rows), b_ub=np.array(limits), bounds=bounds, method="highs-ds")
        if answer.status == 0:
            best = min(best, float(answer.fun))
    return best


def test_gas_agrees_with_every_choice_tried() -> None:
    rng = np.random.default_rng(22)
    strict = 0
    for i in range(30):
        problem = random_problem(rng, gas=True, protocols=2 if i % 3 else 3, scenarios=3 if i % 3 else 2)
        answer = least_capital(problem, closed_forms=False)
        assert answer.required == pytest.approx(written_out(problem), abs=2e-6 * max(answer.gross, 1e-300))
        lighter = least_capital(replace(problem, gas=np.zeros_like(problem.gas))).required
        strict += lighter < answer.required * 0.999
    assert strict > 5


def test_scenarios_found_one_after_another_agree_with_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(23)
    for i in range(16):
        problem = random_problem(rng, protocols=3, scenarios=120, gas=i % 2 == 0)
        few = least_capital(problem, closed_forms=False)
        monkeypatch.setattr(programme, "_WHOLE_UP_TO", 10_000)
        whole = least_capital(problem, closed_forms=False)
        monkeypatch.undo()
        slack = GAS_SLACK if problem.gas.any() else SLACK
        assert few.required == pytest.approx(whole.required, abs=slack * whole.gross)
        assert few.programme < whole.programme


def test_a_scenario_that_binds_by_its_gas_alone_is_found() -> None:
    # Of sixty scenarios the two worst cost no gas: ten in the wallet do. A third, a little less bad, does.
    excess = np.full((2, 60), -0.1)
    excess[:, 0], excess[:, 1], excess[:, 2] = (-10.0, 0.0), (0.0, -10.0), (-9.9, 0.0)
    gas = np.zeros((2, 60))
    gas[0, 2] = 5.0
    opened = np.zeros((3, 2, 60), dtype=bool)
    opened[2] = True
    zero, links = np.zeros((2, 60)), np.zeros((3, 2))
    problem = Problem(excess, zero, zero, gas, links, np.full((3, 2), np.inf), opened)
    answer = least_capital(problem)
    assert answer.required == pytest.approx(14.9, abs=1e-4)
    assert answer.programme < 20


def test_a_protocol_is_no_wallet_by_another_name() -> None:
    # The third lacks next to nothing, reaches both others, and gives back what it was given.
    zero, ones = np.zeros((3, 2)), np.ones((3, 2))
    opened = np.zeros((4, 3, 2), dtype=bool)
    opened[2] = True
    problem = Problem(
        excess=np.array([[-10.0, 0.0], [0.0, -10.0], [-0.5, 0.0]]),
        withdrawable=zero,
        returned=ones,
        gas=zero,
        haircut=np.zeros((4, 3)),
        capacity=np.full((4, 3), np.inf),
        open=opened,
    )
    assert least_capital(problem).required == pytest.approx(20.0)


def test_a_relief_is_what_the_limit_costs() -> None:
    rng = np.random.default_rng(24)
    seen = set()
    for _ in range(25):
        problem = random_problem(rng, protocols=2, scenarios=4)
        answer = least_capital(problem)
        found = reliefs(problem, answer)
        assert [one.saved for one in found] == sorted((one.saved for one in found), reverse=True)
        for one in found:
            seen.add(one.limit)
            if one.limit is Limit.LINK:
                haircut, capacity, opened = (
                    np.array(a) for a in (problem.haircut, problem.capacity, problem.open)
                )
                haircut[one.source, one.target], capacity[one.source, one.target] = 0, np.inf
                opened[one.source, one.target] = True
                without = replace(problem, haircut=haircut, capacity=capacity, open=opened)
                assert answer.required - least_capital(without).required == pytest.approx(one.saved)
    assert {Limit.LINK, Limit.WITHDRAWAL} <= seen
