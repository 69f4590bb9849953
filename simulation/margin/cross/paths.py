"""Over time: what a causal rule needs to keep every leg alive, and what it costs when one leg is lost.

Netting at the end of a path is wrong: each protocol liquidates alone, at the first passage of its own
requirement, and what is left is a broken hedge (reference of the margin engines, section 5.3). Two figures
bound the capital that a path set asks for:

- the clairvoyant programme: every path and moment is a scenario, and only the excess after all flows so far
  limits them. What a causal rule sent by then is such a flow: no rule without a breach needs less;
- the causal rule, simulated: it sees prices up to now. It is an upper bound of the best rule.

The causal rule (ours), at each step, in this order: transfers that are due arrive; accounts below their
requirement are liquidated; protocols whose health factor is below `trigger` are topped up to `target`, the
weakest first, from the reserve and then over links in order of what they lose. What is sent arrives when the
link's latency has passed, at the earliest before the next step's prices are judged.

More capital does not provably breach less: more of a reserve may be spent early and elsewhere. The least
capital is searched on a grid of which all that is above must hold as well, refined around its edge.

Liquidation: a lending account repays close factor x debt and loses collateral worth that and the penalty, as
often as it is below its requirement; a perpetual account closes whole and pays its fee. Each costs gas. A
hedge that lost one leg stays open in the other to the end of the path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from contracts_abi.errors import InputError
from simulation.book.types import SharedBook
from simulation.margin.cross.excess import Legs, legs_of
from simulation.margin.cross.links import Links
from simulation.margin.cross.programme import Problem, least_capital, needs_alone
from simulation.types import Bool, Float64, Int64

_GRID: Final = 17
_REFINEMENTS: Final = 4
_HELD_IN_PLACE: Final = (0.0, 0.5, 1.0)
"""Parts of the capital that stand at the protocols from the start; the rest is the reserve."""

WHOLE: Final = frozenset({"morpho-blue", "compound-v3"})
"""Protocols whose liquidations have no close factor."""
HALF_ONLY: Final = frozenset({"aave-v2"})
"""Protocols that never take more than half at once."""

CLOSE_FACTOR: Final = 0.5
CLOSE_FACTOR_THRESHOLD: Final = 0.95
"""Health factor at and below which Aave V3 lets all be repaid."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The causal rule and what a liquidation costs.

    Attributes
    ----------
    trigger, target
        Health factors: below the first a protocol is topped up to the second. Of a perpetual account it is
        1 + excess / notional, as of a loan it is 1 + excess / debt: both say how far a price may move, which
        equity over maintenance margin does not.
    liquidation_gas
        Dollars that each liquidation costs the account.
    """

    trigger: float = 1.10
    target: float = 1.20
    liquidation_gas: float = 20.0

    def __post_init__(self) -> None:
        if not 1.0 <= self.trigger <= self.target:
            raise InputError(
                f"trigger {self.trigger:g}, target {self.target:g}", fix="1 <= trigger <= target"
            )


@dataclass(frozen=True, slots=True)
class Course:
    """One wallet's P protocols over n paths of m + 1 moments, in dollars before any transfer.

    Attributes
    ----------
    names
        Of the protocols.
    lends
        Shape (P,).
    counted, owed
        What counts, and what it is held against, at the venue's own feed, shape (P, n, m + 1). Of perpetuals
        `counted` is the profit of positions.
    posted
        Margin of perpetuals, 0 of lending, shape (P, n, m + 1).
    collateral
        Whole, by the venue's feed, which a liquidation pays out; notional of perpetuals. (P, n, m + 1).
    leavable
        What may leave at most: collateral that is in the pool, or margin and the recognised profit.
    initial
        Of Compound, collateral by what can be borrowed; of perpetuals the initial margin. (P, n, m + 1).
    at_initial
        Whether withdrawals ask for it, shape (P,).
    true_held, true_owed, true_posted
        Worth at true prices at the end, shape (P, n): collateral or profit, debts, and margin.
    penalty
        Part of the debt repaid, or of the notional closed, shape (P,).
    close_factor
        Least part of a debt that a liquidation repays, and whether more may go, shape (P, 2).
    step_s
        Seconds between moments.
    haircut, latency, capacity
        Of the links between them, latency in steps and -1 without a link; shape (P + 1, P).
    gas
        Dollars of a transfer that is used.
    """

    names: tuple[str, ...]
    lends: Bool
    counted: Float64
    owed: Float64
    posted: Float64
    collateral: Float64
    leavable: Float64
    initial: Float64
    at_initial: Bool
    true_held: Float64
    true_owed: Float64
    true_posted: Float64
    penalty: Float64
    close_factor: Float64
    step_s: float
    haircut: Float64
    latency: Float64
    capacity: Float64
    gas: float

    @property
    def excess(self) -> Float64:
        """Dollars above the requirement before any transfer, shape (P, n, m + 1)."""
        found: Float64 = self.counted + self.posted - self.owed
        return found


def course_of(
    book: SharedBook,
    wallet: int,
    links: Links,
    prices: Float64,
    step_s: float,
    *,
    seen: Float64 | None = None,
) -> Course:
    """Return what happens to one wallet's protocols along paths.

    Parameters
    ----------
    book, wallet
        The book, and the wallet's index in it.
    links
        Of the book's venues.
    prices
        True prices, dollars, shape (paths, steps + 1, tokens).
    step_s
        Seconds a step.
    seen
        What the venues' feeds say, shape (venues, paths, steps + 1, tokens); the truth without.

    Raises
    ------
    InputError
        If prices do not fit the book, or are not above 0.
    """
    tokens = len(book.tokens)
    if prices.ndim != 3 or prices.shape[2] != tokens or prices.shape[1] < 2:
        raise InputError(f"prices of shape {prices.shape}", fix=f"give (paths, steps + 1, {tokens})")
    if not (np.isfinite(prices).all() and (prices > 0).all()):
        raise InputError("a price is not above 0", fix="mend the paths")
    if not step_s > 0:
        raise InputError(f"a step of {step_s:g} s", fix="give seconds above 0")
    legs = legs_of(book, np.array([wallet], dtype=np.int64))
    at = np.flatnonzero(legs.present[0])
    shape = (len(legs.names), *prices.shape)
    feeds = np.broadcast_to(prices, shape) if seen is None else seen
    if feeds.shape != shape:
        raise InputError(f"seen prices of shape {feeds.shape}", fix=f"give {shape}")
    feeds = feeds[at]
    return _course(book, legs, at, links, prices, feeds, step_s)


def _course(
    book: SharedBook, legs: Legs, at: Int64, links: Links, prices: Float64, feeds: Float64, step_s: float
) -> Course:
    lends = legs.lends[at]

    def sums(coefficients: Float64) -> Float64:
        found: Float64 = np.einsum("vt,vnmt->vnm", coefficients, feeds, optimize=True)
        return found

    only = lends[:, None, None]
    counted_tokens, owed_tokens, held = legs.counted[0, at], legs.owed[0, at], legs.held[0, at]
    entry = (legs.constant - legs.margin_usd)[0, at]
    posted = np.where(only, 0.0, sums(held) + legs.margin_usd[0, at][:, None, None])
    counted = sums(counted_tokens) + entry[:, None, None]
    lent = np.where(legs.lent_out[at][:, None], np.minimum(held, legs.cash[at]), held)
    gain = np.minimum(links.gain_offset * np.maximum(counted, 0.0), links.max_offsetable)
    last = prices[:, -1, :]
    tokens_worth = np.where(lends[:, None], held, counted_tokens)
    true_held = (last @ tokens_worth.T).T + entry[:, None]
    true_owed = np.where(lends[:, None], (last @ owed_tokens.T).T, 0.0)
    margin = np.where(lends[:, None], 0.0, held)
    true_posted = (last @ margin.T).T + legs.margin_usd[0, at][:, None]

    kinds = [venue.kind for venue in book.lending]
    penalty, close = np.zeros(len(at)), np.ones((len(at), 2))
    for i, v in enumerate(at):
        if v < len(kinds):
            value = held[i] * legs.prices
            bonus = {one.token: one.liquidation_bonus_bps / 1e4 for one in book.lending[v].reserves}
            each = np.array([bonus.get(token.symbol, 0.0) for token in book.tokens])
            penalty[i] = float(value @ each) / value.sum() if value.sum() > 0 else 0.0
            if kinds[v] not in WHOLE:
                close[i] = CLOSE_FACTOR, float(kinds[v] not in HALF_ONLY)
        else:
            penalty[i] = book.perps[v - len(kinds)].liquidation_fee
    rows = [*at, len(legs.names)]
    corner = np.ix_(rows, at)
    linked = np.isfinite(links.latency_s[corner]) & (links.haircut[corner] < 1)
    steps = np.ceil(np.where(linked, links.latency_s[corner], 0.0) / step_s)
    return Course(
        names=tuple(legs.names[int(v)] for v in at),
        lends=lends,
        counted=counted,
        owed=sums(owed_tokens),
        posted=posted,
        collateral=np.where(only, sums(held), sums(np.abs(counted_tokens))),
        leavable=np.where(only, sums(lent), posted + gain),
        initial=sums(legs.initial[0, at]),
        at_initial=legs.at_initial[at],
        true_held=true_held,
        true_owed=true_owed,
        true_posted=true_posted,
        penalty=penalty,
        close_factor=close,
        step_s=step_s,
        haircut=links.haircut[corner],
        latency=np.where(linked, steps, -1.0),
        capacity=links.capacity[corner],
        gas=links.gas,
    )


# ------------------------------------------------------------------------------------------------- simulation


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of K placements of capital on n paths, each of shape (K, n); dollars.

    Attributes
    ----------
    breached
        Whether any protocol was liquidated.
    liquidations
        How many liquidations.
    penalties, gas, transfers
        What liquidations, their gas, and transfers cost.
    hedge
        What the account is worth less at the end, beside those three, than had nothing been liquidated: the
        price of the broken hedge, negative where the loss of a leg was luck.
    bad_debt
        Sum of what accounts are below 0 at the end, which the protocols bear.
    """

    breached: Bool
    liquidations: Float64
    penalties: Float64
    gas: Float64
    transfers: Float64
    hedge: Float64
    bad_debt: Float64

    @property
    def loss(self) -> Float64:
        """All that was lost against the account that nobody liquidates, shape (K, n)."""
        total: Float64 = self.penalties + self.gas + self.transfers + self.hedge
        return total


class _Run:
    """Rows of a simulation: one placement of capital on one path each; arrays change as time goes on.

    Attributes
    ----------
    path
        The path of each row, shape (R,).
    added
        Dollars added to a protocol less taken, at face value: debt repaid, or margin. (P, R).
    wallet
        Dollars of the reserve, shape (R,).
    left, debt
        What is left of collateral or positions, and of debts, parts of one, shape (P, R).
    due
        Dollars that arrive, by moment modulo its length, shape (ring, P, R).
    count, penalty, moved
        Liquidations, and what they and transfers cost, shape (R,).
    """

    def __init__(self, course: Course, placed: Float64, reserve: Float64) -> None:
        protocols, paths, _ = course.counted.shape
        rows = placed.shape[0] * paths
        self.course = course
        self.path = np.tile(np.arange(paths), placed.shape[0])
        self.added = np.repeat(placed.T.astype(np.float64), paths, axis=1)
        self.wallet = np.repeat(reserve.astype(np.float64), paths)
        self.left, self.debt = np.ones((protocols, rows)), np.ones((protocols, rows))
        self.due = np.zeros((int(max(course.latency.max(initial=0.0), 1.0)) + 1, protocols, rows))
        self.count, self.penalty, self.moved = np.zeros(rows), np.zeros(rows), np.zeros(rows)

    def state(self, p: int, t: int) -> tuple[Float64, Float64]:
        """Return what counts for a protocol, and what it is held against, at moment t, shape (R,) each."""
        course, path = self.course, self.path
        counted = self.left[p] * course.counted[p, path, t]
        if course.lends[p]:
            return counted, self.debt[p] * course.owed[p, path, t] - self.added[p]
        counted = counted + course.posted[p, path, t] + self.added[p]
        return counted, self.left[p] * course.owed[p, path, t]

    def spare(self, p: int, t: int, rule: Rule) -> Float64:
        """Return what a protocol can send and stay at the target itself, shape (R,)."""
        course, path = self.course, self.path
        counted, owed = self.state(p, t)
        initial = self.left[p] * course.initial[p, path, t]
        leavable = course.leavable[p, path, t]
        if course.lends[p]:
            spare = counted / rule.target - owed
            if course.at_initial[p]:
                spare = np.minimum(spare, initial - owed)
            sends: Float64 = np.maximum(np.minimum(spare, self.left[p] * leavable), 0.0)
            return sends
        posted = course.posted[p, path, t]
        may_leave = posted + self.added[p] + self.left[p] * (leavable - posted)
        kept = (rule.target - 1) * self.left[p] * course.collateral[p, path, t]
        spare = np.minimum(counted - owed - kept, counted - initial)
        sends = np.maximum(np.minimum(spare, may_leave), 0.0)
        return np.asarray(sends, dtype=np.float64)

    def liquidate(self, p: int, t: int, tolerance: float) -> None:
        """Liquidate where a protocol is below its requirement and there is something to take."""
        course, path = self.course, self.path
        counted, owed = self.state(p, t)
        hit = (counted - owed < -tolerance) & (self.left[p] > 0) & (owed > 0)
        if not hit.any():
            return
        self.count += hit
        collateral = self.left[p] * course.collateral[p, path, t]
        if not course.lends[p]:
            # Profit is realised at the feed's price, and the fee is taken from the margin.
            fee = course.penalty[p] * collateral
            self.added[p] += np.where(hit, self.left[p] * course.counted[p, path, t] - fee, 0.0)
            self.penalty += np.where(hit, fee, 0.0)
            self.left[p] = np.where(hit, 0.0, self.left[p])
            return
        least, more = course.close_factor[p]
        factor = np.where((counted <= CLOSE_FACTOR_THRESHOLD * owed) & (more > 0), 1.0, least)
        seized = np.minimum(factor * owed * (1 + course.penalty[p]), collateral)
        repaid = seized / (1 + course.penalty[p])
        keeps = 1.0 - np.divide(seized, collateral, out=np.zeros_like(seized), where=hit & (collateral > 0))
        owes = 1.0 - np.divide(repaid, owed, out=np.zeros_like(repaid), where=hit)
        self.penalty += np.where(hit, seized - repaid, 0.0)
        self.left[p] *= np.where(keeps < 1e-12, 0.0, keeps)
        self.debt[p] *= owes
        self.added[p] *= owes

    def top_up(self, t: int, rule: Rule, order: Sequence[Sequence[int]]) -> None:
        """Send money to protocols below the trigger, the weakest first."""
        course, protocols = self.course, len(self.left)
        health = np.full_like(self.left, np.inf)
        for p in range(protocols):
            counted, owed = self.state(p, t)
            against = owed if course.lends[p] else self.left[p] * course.collateral[p, self.path, t]
            np.divide(counted - owed, against, out=health[p], where=against > 0)
        health += 1.0
        if not (health < rule.trigger).any():
            return
        rank = np.argsort(health, axis=0, kind="stable")
        for place, p in product(range(protocols), range(protocols)):
            weak = (rank[place] == p) & (health[p] < rule.trigger)
            if not weak.any():
                continue
            counted, owed = self.state(p, t)
            if course.lends[p]:
                lacks = owed - counted / rule.target
            else:
                wanted = (rule.target - 1) * self.left[p] * course.collateral[p, self.path, t]
                lacks = wanted - (counted - owed)
            lacks = np.where(weak, np.maximum(lacks - self.due[:, p].sum(axis=0), 0.0), 0.0)
            for q in order[p]:
                kept = 1.0 - course.haircut[q, p]
                has = self.wallet if q == protocols else self.spare(q, t, rule)
                most = np.minimum((lacks + course.gas) / kept, course.capacity[q, p])
                sent = np.where(lacks > 0, np.minimum(has, most), 0.0)
                # Nothing is sent that gas would eat.
                sent = np.where(kept * sent > course.gas, sent, 0.0)
                arrives = np.where(sent > 0, kept * sent - course.gas, 0.0)
                if q == protocols:
                    self.wallet = self.wallet - sent
                else:
                    self.added[q] -= sent
                # What needs no time counts before the next moment is judged, as what needs one step.
                steps = max(int(course.latency[q, p]), 1)
                self.due[(t + steps) % len(self.due), p] += arrives
                self.moved += sent - arrives
                lacks = np.maximum(lacks - arrives, 0.0)


def simulate(
    course: Course, placed: Float64, reserve: Float64, rule: Rule, *, transfers: bool = True
) -> Outcome:
    """Run the causal rule with several placements of capital.

    Parameters
    ----------
    course
        The account along its paths.
    placed
        Dollars at each protocol, shape (K, P).
    reserve
        Dollars in the wallet, shape (K,).
    rule
        When to top up.
    transfers
        Whether anything is moved at all.
    """
    protocols, paths, moments = course.counted.shape
    run = _Run(course, placed, reserve)
    tolerance = 1e-9 * max(float(needs_alone(course.excess.reshape(protocols, -1)).sum()), 1.0)
    order = []
    for p in range(protocols):
        linked = [q for q in range(protocols + 1) if course.latency[q, p] >= 0 and q != p]
        # The reserve first, then what loses least.
        order.append(sorted(linked, key=lambda q, p=p: (q != protocols, course.haircut[q, p], q)))  # type: ignore[misc]
    for t in range(moments):
        slot = t % len(run.due)
        run.added += run.due[slot]
        run.due[slot] = 0.0
        for p in range(protocols):
            run.liquidate(p, t, tolerance)
        if transfers and t + 1 < moments:
            run.top_up(t, rule, order)

    path = run.path
    end = run.wallet + run.due.sum(axis=(0, 1))
    intact = np.repeat(reserve + placed.sum(axis=1), paths)
    bad = np.zeros_like(end)
    for p in range(protocols):
        # Of perpetuals `true_held` is profit; margin is there whether or not positions are.
        held, owes = course.true_held[p, path], course.true_owed[p, path]
        posted = course.true_posted[p, path]
        equity = run.left[p] * held - run.debt[p] * owes + posted + run.added[p]
        bad += np.maximum(-equity, 0.0)
        end = end + equity
        intact = intact + held - owes + posted
    shape = placed.shape[0], paths
    return Outcome(
        breached=(run.count > 0).reshape(shape),
        liquidations=run.count.reshape(shape),
        penalties=run.penalty.reshape(shape),
        gas=(rule.liquidation_gas * run.count).reshape(shape),
        transfers=run.moved.reshape(shape),
        hedge=(intact - end - run.penalty - run.moved).reshape(shape),
        bad_debt=bad.reshape(shape),
    )


# ------------------------------------------------------------------------------------------------ requirement


@dataclass(frozen=True, slots=True)
class PathRequirement:
    """What paths ask for, dollars.

    Attributes
    ----------
    gross, netted
        G and N with every path and moment as a scenario; with `alpha`, of the paths that may not breach.
    clairvoyant
        Lower bound of what any rule needs.
    causal
        The least capital found with which the rule breaches on no more than `alpha` of the paths, and all
        larger capital of the last grid does not either.
    resolution
        Spacing of the last grid: the causal figure is at most this much above its grid's edge.
    in_place
        Part of it that stands at the protocols, in proportion to what each needs alone; the rest is reserve.
    transfers
        Whether the rule moves money at all.
    placed, reserve
        Where it stands.
    alpha
        Part of the paths that may breach.
    """

    gross: float
    netted: float
    clairvoyant: float
    causal: float
    resolution: float
    in_place: float
    transfers: bool
    placed: dict[str, float]
    reserve: float
    alpha: float


def clairvoyant(course: Course, *, alpha: float = 0.0) -> float:
    """Return capital below which no causal rule avoids liquidations, dollars.

    With `alpha` the paths that may breach are unknown: then it is the order statistic of what each path needs
    under joint control, which bounds less tightly.
    """
    protocols, paths, moments = course.excess.shape
    if alpha > 0:
        joint = np.maximum((-course.excess.sum(axis=0)).max(axis=1), 0.0)
        return float(np.sort(joint)[paths - 1 - int(alpha * paths)])
    flat = course.excess.reshape(protocols, -1)
    arrived = course.latency[:, :, None] <= np.tile(np.arange(moments), paths)[None, None]
    problem = Problem(
        excess=flat,
        withdrawable=np.full_like(flat, np.inf),
        returned=np.ones_like(flat),
        gas=np.zeros_like(flat),
        haircut=course.haircut,
        capacity=np.full_like(course.haircut, np.inf),
        open=arrived & (course.latency >= 0)[:, :, None],
    )
    return least_capital(problem).required


def path_requirement(course: Course, rule: Rule | None = None, *, alpha: float = 0.0) -> PathRequirement:
    """Return the clairvoyant bound and the least capital of the causal rule.

    Parameters
    ----------
    course
        The account along its paths.
    rule
        When to top up.
    alpha
        Part of the paths that may breach, in [0, 1).

    Raises
    ------
    InputError
        If `alpha` is no such part.
    """
    if not 0 <= alpha < 1:
        raise InputError(f"alpha {alpha:g}", fix="give a part of one, 0 for no breach")
    rule = rule or Rule()
    protocols, paths, _ = course.excess.shape
    allowed = int(alpha * paths)
    alone = needs_alone(course.excess.reshape(protocols, -1))
    whole = float(alone.sum())
    joint = np.sort(np.maximum((-course.excess.sum(axis=0)).max(axis=1), 0.0))
    bound = clairvoyant(course, alpha=alpha)
    # Every protocol its own need and no transfer: never a breach, and the figure of last resort.
    best = (whole, 0.0, 1.0, False)
    if whole > 0:
        for in_place, moves in product(_HELD_IN_PLACE, (True, False)):
            if not moves and in_place < 1:
                continue
            found = _least(course, rule, alone, in_place, moves, bound, allowed)
            if found is not None and found[0] < best[0]:
                best = (*found, in_place, moves)
    capital, resolution, in_place, moves = best
    placed = in_place * capital * alone / whole if whole > 0 else np.zeros(protocols)
    return PathRequirement(
        gross=whole,
        netted=float(joint[paths - 1 - allowed]),
        clairvoyant=bound,
        causal=capital,
        resolution=resolution,
        in_place=in_place,
        transfers=moves,
        placed=dict(zip(course.names, placed.tolist(), strict=True)),
        reserve=(1 - in_place) * capital,
        alpha=alpha,
    )


def _least(
    course: Course, rule: Rule, alone: Float64, in_place: float, moves: bool, low: float, allowed: int
) -> tuple[float, float] | None:
    """Return the least capital of a grid above which all holds, and the spacing; None where none does."""
    whole = float(alone.sum())
    high = whole
    for _ in range(_REFINEMENTS):
        grid = np.linspace(low, high, _GRID)
        placed = in_place * grid[:, None] * alone[None] / whole
        outcome = simulate(course, placed, (1 - in_place) * grid, rule, transfers=moves)
        holds = outcome.breached.sum(axis=1) <= allowed
        if not holds[-1]:
            return None
        failing = np.flatnonzero(~holds)
        if not len(failing):
            return float(grid[0]), 0.0
        edge = int(failing[-1]) + 1
        low, high = float(grid[edge - 1]), float(grid[edge])
    return high, high - low


@dataclass(frozen=True, slots=True)
class Hidden:
    """What a requirement is silent about.

    Attributes
    ----------
    requirement
        ``isolated``, ``cross``, ``portfolio`` or ``cross_protocol``.
    capital
        Dollars that it asks for.
    breached
        Part of the paths on which a leg was liquidated all the same.
    mean_loss, worst_loss
        Dollars against the account that nobody liquidates.
    worst_hedge
        The part of the worst loss that the broken hedge is.
    unseen
        Worst loss above the capital asked for.
    """

    requirement: str
    capital: float
    breached: float
    mean_loss: float
    worst_loss: float
    worst_hedge: float
    unseen: float


def hidden_by(
    course: Course,
    placements: Sequence[tuple[str, Float64, float, bool]],
    rule: Rule | None = None,
) -> tuple[Hidden, ...]:
    """Return what each requirement's capital meets on the paths.

    Parameters
    ----------
    course
        The account along its paths.
    placements
        Requirement, dollars at each protocol, dollars in the wallet, and whether money moves.
    rule
        When to top up.
    """
    out = []
    for name, placed, reserve, moves in placements:
        outcome = simulate(course, placed[None], np.array([reserve]), rule or Rule(), transfers=moves)
        loss = outcome.loss[0]
        worst = int(loss.argmax())
        capital = float(placed.sum()) + reserve
        out.append(
            Hidden(
                requirement=name,
                capital=capital,
                breached=float(outcome.breached[0].mean()),
                mean_loss=float(loss.mean()),
                worst_loss=float(loss[worst]),
                worst_hedge=float(outcome.hedge[0, worst]),
                unseen=max(0.0, float(loss[worst]) - capital),
            )
        )
    return tuple(out)
