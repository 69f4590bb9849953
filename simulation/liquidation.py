"""Which debt to repay, which collateral to take, how much of it: the plan that leaves most after all costs.

Everything is exact and pure: the protocol's model says what a liquidation seizes, the pools' states say what
the seized collateral sells for, and the plan is the best of what both were asked. Prices of the protocol's
oracle decide nothing here; they only convert the operator's least profit and name the price impact.

For one pair of debt and collateral the profit is a concave function of the size along one path: collateral
is seized in proportion to the debt repaid while a pool pays ever less for it. So the largest size is best
when the slope there is not negative, and otherwise a golden-section search finds the size. The search takes
the proportion for granted; the size found is then put to the protocol's model, and only that counts.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

from contracts_abi.errors import InputError
from contracts_abi.liquidator import Venue
from oracle.types import PriceSnapshot
from simulation.amm.uniswap_v3 import (
    BeyondKnownTicks,
    PoolState,
    SwapReverted,
    amount_out_exact_in,
    quote_exact_in,
    quote_exact_out,
)
from simulation.fixed_point import BPS, MAX_UINT256, WAD, ceil_div
from simulation.types import Asset, LiquidationPlan, Reason, SwapHop

K = TypeVar("K", bound=Hashable)
M = TypeVar("M")
S = TypeVar("S")
M_contra = TypeVar("M_contra", contravariant=True)
S_contra = TypeVar("S_contra", contravariant=True)

Path: TypeAlias = tuple[SwapHop, ...]
Pools: TypeAlias = Mapping[str, PoolState]

GAS_UNITS: Final = 540_000
"""Gas of a liquidation without a swap where nothing is known of it."""

_E8_DECIMALS = 8
_LEAST_COLLATERAL_BPS = 9_900
_SLOPE_STEP_BITS = 7
"""The slope at the largest size is taken over its 128th part."""
_TOLERANCE_BITS = 8
"""A size is found to about a 256th of itself; profit is flat there, so it is off by the square of that."""
_PROBE_BITS = 24
"""Where a function is asked whether it rises from the start: this power of two below the largest size."""
_EXHAUSTIVE_POOLS = 12
"""Up to this many pools every path is asked; the number of paths grows with the cube of the pools."""
_PATHS_PER_LENGTH = 4
"""Paths kept of each length where not every one is asked."""
_SIZE_BITS = 4
"""Sizes within this power of two of each other share their paths."""
_BONUS_STEPS = 10**6
"""Collateral for debt is the same for two accounts when it differs by less than a part in this many."""
_LEAST_DIVISIBLE = 1_000
"""Sizes of which small parts are taken seriously: below, rounding to raw units is all that one sees."""


# --- what a protocol offers --------------------------------------------------------------------------------


class Outcome(Protocol):
    """What a liquidation does, as far as planning needs it; `aave_v3.LiquidationOutcome` is one."""

    @property
    def revert_code(self) -> str | None:
        """The contract's code when the call reverts, None when it succeeds."""
        ...

    @property
    def debt_repaid_raw(self) -> int:
        """Debt token units that the liquidator pays."""
        ...

    @property
    def to_liquidator_raw(self) -> int:
        """Collateral token units that the liquidator gets, after the protocol's fee."""
        ...

    @property
    def full(self) -> bool:
        """Whether the debt in this asset is repaid whole."""
        ...


class LiquidationModel(Protocol[M_contra, S_contra]):
    """A protocol's exact model of its liquidations; the adapters offer it."""

    @property
    def name(self) -> str:
        """Registry kind."""
        ...

    def assets(self, market: M_contra) -> tuple[Asset, ...]:
        """Return the market's assets."""
        ...

    def liquidation_pairs(self, market: M_contra, account: S_contra) -> Sequence[tuple[str, str]]:
        """Return pairs of debt and collateral token that `account` can be liquidated in."""
        ...

    def liquidation_quote(
        self,
        market: M_contra,
        account: S_contra,
        debt_asset: str,
        collateral_asset: str,
        debt_to_cover_raw: int,
    ) -> Outcome:
        """Return what the call does; 2**256 - 1 asks for as much as allowed."""
        ...

    def flash_loan_premium(self, market: M_contra, amount_raw: int) -> int:
        """Return the premium of a flash loan, in token units."""
        ...

    def flash_loan_limit(self, market: M_contra, asset: str) -> int:
        """Return the most that can be borrowed in a flash loan, in token units."""
        ...


@runtime_checkable
class Executable(Protocol):
    """A market that our Liquidator can liquidate in; the adapters say what it is to be told."""

    @property
    def liquidation_gas(self) -> int:
        """Gas units of our Liquidator's transaction without a swap."""
        ...

    @property
    def venue(self) -> Venue:
        """Where our Liquidator liquidates, as its event says it."""
        ...

    def liquidator_calldata(self, plan: LiquidationPlan, *, intent_id: bytes, deadline_block: int) -> bytes:
        """Return our Liquidator's calldata for a plan in this market.

        Parameters
        ----------
        plan
            What to do.
        intent_id
            32 bytes that the contract executes at most once.
        deadline_block
            Last block in which it may run.
        """
        ...


# --- what the operator says --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """What a plan assumes of gas and what it has to earn.

    Attributes
    ----------
    gas_price_wei
        Expected price of a unit of gas, tip included.
    native_asset
        Token that wraps the currency that gas is paid in; its pools say what gas costs in other tokens.
    gas_units, gas_units_per_hop
        Gas of the transaction without a swap, and of each pool on the path. None for what our Liquidator
        needs for the protocol (`Executable.liquidation_gas`), or `GAS_UNITS` for one that it does not know.
    min_net_profit_e8
        Least profit after gas, in the quote currency of the protocol's prices, at 1e8.
    slippage_bps
        How far proceeds may fall behind the plan before the contract refuses, as far as the minimum profit
        allows it.
    max_hops
        Most pools on a path.
    from_inventory
        Whether own funds repay the debt and the collateral is kept; what the pools pay is then its value.
    inventory_raw
        Own funds by token address, without an entry none; None when they are not to limit a plan.
    swap_tokens
        Addresses of the tokens that a path may touch, None for all that there are pools of. A token that some
        other market lists need not be what it says, nor let itself be sold; a path through it would hold in
        the pools' states and fail when it is mined.
    """

    gas_price_wei: int
    native_asset: str
    gas_units: int | None = None
    gas_units_per_hop: int = 100_000
    min_net_profit_e8: int = 0
    slippage_bps: int = 100
    max_hops: int = 3
    from_inventory: bool = False
    inventory_raw: Mapping[str, int] | None = None
    swap_tokens: frozenset[str] | None = None

    def __post_init__(self) -> None:
        for name in ("gas_price_wei", "gas_units", "gas_units_per_hop", "min_net_profit_e8"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"{name} is {getattr(self, name)}, must not be negative")
        if not 0 <= self.slippage_bps <= BPS:
            raise InputError(f"slippage_bps is {self.slippage_bps}, not in [0, {BPS}]")
        if self.max_hops < 1:
            raise InputError(f"max_hops is {self.max_hops}, must be at least 1")


@dataclass(frozen=True, slots=True)
class NoPlan:
    """Why there is no plan.

    Attributes
    ----------
    reason
        One code.
    detail
        One line for people.
    """

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class PairResult:
    """What planning came to for one pair of debt and collateral.

    Attributes
    ----------
    debt_asset, collateral_asset
        Token addresses.
    plan
        The best plan of the pair when there is one, whether or not it pays.
    no_plan
        Why there is none, or why it does not pay.
    """

    debt_asset: str
    collateral_asset: str
    plan: LiquidationPlan | None
    no_plan: NoPlan | None


def least_collateral_raw(plan: LiquidationPlan) -> int:
    """Return the least collateral to accept for a plan from inventory: a per cent less than planned.

    What a seizure comes to moves with the protocol's price between plan and block.
    """
    return plan.seized_raw * _LEAST_COLLATERAL_BPS // BPS


# --- paths -------------------------------------------------------------------------------------------------


def find_paths(pools: Pools, token_in: str, token_out: str, max_hops: int) -> tuple[Path, ...]:
    """Return all paths from one token to another that visit no token twice, the shortest first."""

    def extended(path: Path, token: str, visited: frozenset[str]) -> Iterator[Path]:
        for pool in pools.values():
            if token not in (pool.token0, pool.token1):
                continue
            to = pool.other(token)
            if to in visited:
                continue
            longer = (*path, SwapHop(pool.address, token, to, pool.fee_pips))
            if to == token_out:
                yield longer
            elif len(longer) < max_hops:
                yield from extended(longer, to, visited | {to})

    return tuple(sorted(extended((), token_in, frozenset((token_in,))), key=len))


def best_paths(
    pools: Pools, token_in: str, token_out: str, max_hops: int, amount_raw: int
) -> tuple[Path, ...]:
    """Return the few paths that pay most for an amount, without asking every one.

    Hop by hop, the most that can be had of each token is kept, with the way to it: more of a token never
    sells for less. The cost is one quote a pool and hop, where the number of paths grows with the cube of the
    pools and anybody can open one.
    """
    around: dict[str, list[PoolState]] = {}
    for pool in pools.values():
        around.setdefault(pool.token0, []).append(pool)
        around.setdefault(pool.token1, []).append(pool)
    reached: dict[str, tuple[int, Path]] = {token_in: (amount_raw, ())}
    found: list[Path] = []
    for hops in range(1, max_hops + 1):
        arrived: list[tuple[int, Path]] = []
        further: dict[str, tuple[int, Path]] = {}
        for token, (amount, path) in reached.items():
            visited = {token_in, *(hop.token_out for hop in path)}
            for pool in around.get(token, ()):
                to = pool.other(token)
                if to in visited or (hops == max_hops and to != token_out):
                    continue
                hop = SwapHop(pool.address, token, to, pool.fee_pips)
                got = _proceeds(pools, (hop,), amount)
                if got is None:
                    continue
                if to == token_out:
                    arrived.append((got, (*path, hop)))
                elif to not in further or got > further[to][0]:
                    further[to] = got, (*path, hop)
        arrived.sort(key=lambda way: -way[0])
        found += [path for _, path in arrived[:_PATHS_PER_LENGTH]]
        reached = further
    return tuple(found)


def _reversed(path: Path) -> Path:
    return tuple(SwapHop(hop.pool, hop.token_out, hop.token_in, hop.fee_pips) for hop in reversed(path))


def _proceeds(pools: Pools, path: Path, amount_raw: int) -> int | None:
    """Return what the path pays, None when it does not take the whole amount or leaves what is known."""
    if amount_raw == 0:
        return None
    try:
        return amount_out_exact_in(pools, path, amount_raw)
    except (SwapReverted, BeyondKnownTicks):
        return None


def _bought(pools: Pools, path: Path, amount_raw: int) -> int | None:
    """Return what the path asks for an amount of its last token, None when it does not have it."""
    try:
        return quote_exact_out(pools, path, amount_raw)[0]
    except (SwapReverted, BeyondKnownTicks):
        return None


def maximise(profit: Callable[[int], int | None], largest: int) -> tuple[int, int] | None:
    """Find the size in [1, largest] at which a concave function is greatest, to about a 256th of that size.

    Parameters
    ----------
    profit
        Starts at or below 0; may be None above some size, where it counts as worse than anything.

    Returns
    -------
    tuple or None
        Size and value; None when the function is None wherever it was asked. A function that falls from the
        start is answered with a small size.
    """
    seen: dict[int, int | None] = {}

    def value(size: int) -> int | None:
        if size not in seen:
            seen[size] = profit(size)
        return seen[size]

    top = value(largest)
    if top is not None and largest > 1:
        below = value(largest - max(1, largest >> _SLOPE_STEP_BITS))
        if below is not None and top >= below:
            return largest, top
    small = max(1, largest >> _TOLERANCE_BITS)
    if small >= _LEAST_DIVISIBLE:
        first = value(small)
        if first is not None and first <= 0:
            probe = value(max(_LEAST_DIVISIBLE, largest >> _PROBE_BITS))
            if probe is not None and probe <= 0:
                return small, first
    low, high = 0, largest
    while high - low > max(2, high >> _TOLERANCE_BITS):
        step = (high - low) * 618_034 // 1_000_000
        left, right = value(max(1, high - step)), value(low + step)
        # Nothing to the right of a size that cannot be sold can be sold either.
        if right is None or (left is not None and left >= right):
            high = low + step
        else:
            low = high - step
    value(max(1, (low + high) // 2))
    known = [(size, amount) for size, amount in seen.items() if amount is not None]
    return max(known, key=lambda point: point[1]) if known else None


# --- planning ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Means:
    """What a plan uses up, and the next one finds changed.

    Attributes
    ----------
    pools
        Where collateral is sold.
    inventory_raw
        Own funds by token address, None for no limit.
    """

    pools: Pools
    inventory_raw: Mapping[str, int] | None

    def after(self, plan: LiquidationPlan) -> _Means:
        """Return what is left when `plan` was executed."""
        if not plan.from_inventory:
            return _Means(quote_exact_in(self.pools, plan.path, plan.seized_raw)[1], self.inventory_raw)
        if self.inventory_raw is None:
            return self
        left_raw = self.inventory_raw[plan.debt_asset] - plan.debt_to_cover_raw
        return _Means(self.pools, {**self.inventory_raw, plan.debt_asset: left_raw})


@dataclass(frozen=True, slots=True)
class _Found:
    """What planning one pair came to, and what it stands on.

    Attributes
    ----------
    result
        As `plan_pairs` answers it.
    proportional
        Whether nothing but the size of the account decided: one of the same pair with less to liquidate and
        as much collateral for it does no better. Not so where the protocol refused a size.
    paths
        Paths that were asked.
    """

    result: PairResult
    proportional: bool = False
    paths: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class _Planner(Generic[M, S]):
    """What all plans of one head share. The two dictionaries remember what does not change within it.

    Attributes
    ----------
    usable
        Addresses of the pools that a path may take.
    """

    model: LiquidationModel[M, S]
    market: M
    prices: PriceSnapshot
    settings: PlanSettings
    assets: Mapping[str, Asset]
    gas_units: int
    usable: frozenset[str]
    paths: dict[tuple[str, str, int], tuple[Path, ...]] = field(default_factory=dict)
    token_per_wei: dict[str, Fraction | None] = field(default_factory=dict)

    def pairs(self, account: S, means: _Means) -> list[PairResult]:
        """Return the best of every pair, in the protocol's order."""
        return [
            self.pair(account, debt, collateral, self.allowed(account, debt, collateral), means).result
            for debt, collateral in self.model.liquidation_pairs(self.market, account)
        ]

    def best(self, account: S, means: _Means) -> LiquidationPlan | NoPlan:
        """Return the plan of highest net value over all pairs."""
        results = self.pairs(account, means)
        paying = [r.plan for r in results if r.plan is not None and r.no_plan is None]
        if paying:
            return max(paying, key=self.value)
        return _furthest([r.no_plan for r in results if r.no_plan is not None])

    def allowed(self, account: S, debt: str, collateral: str) -> Outcome:
        """Return the most that the protocol lets be liquidated; pools have no part in it."""
        return self.model.liquidation_quote(self.market, account, debt, collateral, MAX_UINT256)

    def value(self, plan: LiquidationPlan) -> Fraction:
        """Return the net profit in the quote currency of the protocol's prices."""
        asset = self.assets[plan.debt_asset]
        price_e8 = self.prices.price_e8(asset.symbol) or 0
        return Fraction(plan.net_profit_raw * price_e8, 10 ** (asset.decimals + _E8_DECIMALS))

    def pair(self, account: S, debt: str, collateral: str, allowed: Outcome, means: _Means) -> _Found:
        """Return the best of one pair, of which `allowed` may be liquidated."""

        def none(reason: Reason, detail: str) -> _Found:
            why = NoPlan(reason, f"{self._pair_name(debt, collateral)}: {detail}")
            return _Found(PairResult(debt, collateral, None, why))

        settings, pools = self.settings, means.pools
        if allowed.revert_code is not None:
            return none(
                Reason.SIMULATION_FAILED, f"the protocol refuses with {allowed.revert_code or 'no code'}"
            )
        largest = min(allowed.debt_repaid_raw, self._funds_raw(debt, means))
        if largest <= 0:
            source = "inventory" if settings.from_inventory else "flash loan"
            return none(Reason.LIMIT, f"no {source} for a debt of {allowed.debt_repaid_raw} raw")
        prices_e8 = [self.prices.price_e8(self.assets[token].symbol) for token in (debt, collateral)]
        if not all(prices_e8):
            return none(Reason.PROTOCOL_UNKNOWN, "the protocol has no price")
        seized_raw = allowed.to_liquidator_raw * largest // allowed.debt_repaid_raw
        paths = self._paths(pools, collateral, debt, seized_raw)
        if not paths:
            return none(Reason.NO_ROUTE, f"no path of at most {settings.max_hops} pools")
        per_wei = self._token_per_wei(pools, debt)
        if per_wei is None:
            return none(Reason.NO_ROUTE, "gas cannot be valued in the debt token")

        sale = self._best_sale(pools, paths, allowed, largest, per_wei)
        if sale is None:
            return none(Reason.NO_ROUTE, f"no size can be sold whole over {len(paths)} paths")
        size, path = sale
        plan = self._plan(account, debt, collateral, size, path, pools, per_wei)
        proportional = plan is not None
        if plan is None:
            # A protocol may refuse a size that it does not refuse in full, for what would be left over.
            plan = self._plan(account, debt, collateral, largest, path, pools, per_wei)
        if plan is None:
            return none(
                Reason.SIMULATION_FAILED, f"the protocol refuses {size} raw, and {largest} do not sell"
            )
        least = self._least_net_raw(debt)
        if plan.net_profit_raw < max(1, least):
            detail = (
                f"{self._pair_name(debt, collateral)}: profit {plan.profit_raw} less gas {plan.gas_cost_raw} "
                f"is below {max(1, least)} raw"
            )
            unprofitable = NoPlan(Reason.UNPROFITABLE, detail)
            return _Found(PairResult(debt, collateral, plan, unprofitable), proportional, paths)
        return _Found(PairResult(debt, collateral, plan, None), proportional, paths)

    def _best_sale(
        self, pools: Pools, paths: Sequence[Path], allowed: Outcome, largest: int, per_wei: Fraction
    ) -> tuple[int, Path] | None:
        """Return the size and path of highest profit after gas, None when nothing sells.

        Takes the collateral as proportional to the debt repaid, up to the outcome `allowed` at most.
        """

        def profit_over(path: Path) -> Callable[[int], int | None]:
            def profit(size: int) -> int | None:
                seized_raw = allowed.to_liquidator_raw * size // allowed.debt_repaid_raw
                proceeds_raw = _proceeds(pools, path, seized_raw)
                return None if proceeds_raw is None else proceeds_raw - size - self._premium(size)

            return profit

        sales: list[tuple[int, int, Path]] = []
        for path in paths:
            found = maximise(profit_over(path), largest)
            if found is not None:
                size, profit_raw = found
                sales.append((profit_raw - self._gas_cost_raw(per_wei, path), size, path))
        if not sales:
            return None
        _, size, path = max(sales, key=lambda sale: sale[0])
        return size, path

    def _plan(
        self,
        account: Any,
        debt: str,
        collateral: str,
        size: int,
        path: Path,
        pools: Pools,
        per_wei: Fraction,
    ) -> LiquidationPlan | None:
        """Return the plan of one size exactly, None when the protocol refuses it or it does not sell."""
        settings = self.settings
        outcome = self.model.liquidation_quote(self.market, account, debt, collateral, size)
        seized_raw = outcome.to_liquidator_raw
        proceeds_raw = None if outcome.revert_code is not None else _proceeds(pools, path, seized_raw)
        if proceeds_raw is None:
            return None
        premium_raw = self._premium(size)
        profit_raw = proceeds_raw - outcome.debt_repaid_raw - premium_raw
        gas_cost_raw = self._gas_cost_raw(per_wei, path)
        slippage_raw = ceil_div(proceeds_raw * settings.slippage_bps, BPS)
        return LiquidationPlan(
            account=account.account,
            protocol=self.model.name,
            debt_asset=debt,
            collateral_asset=collateral,
            debt_to_cover_raw=size,
            seized_raw=seized_raw,
            full=outcome.full,
            path=() if settings.from_inventory else path,
            flash_premium_raw=premium_raw,
            proceeds_raw=proceeds_raw,
            profit_raw=profit_raw,
            gas_units=self._gas_units(path),
            gas_cost_raw=gas_cost_raw,
            min_profit_raw=max(gas_cost_raw + self._least_net_raw(debt), profit_raw - slippage_raw),
            impact_bps=self._impact_bps(debt, collateral, seized_raw, proceeds_raw),
            from_inventory=settings.from_inventory,
        )

    def _gas_units(self, path: Path) -> int:
        hops = 0 if self.settings.from_inventory else len(path)
        return self.gas_units + self.settings.gas_units_per_hop * hops

    def _gas_cost_raw(self, per_wei: Fraction, path: Path) -> int:
        return _ceil(per_wei * (self._gas_units(path) * self.settings.gas_price_wei))

    def _funds_raw(self, debt: str, means: _Means) -> int:
        """Return how much of a debt can be paid for."""
        if not self.settings.from_inventory:
            return self.model.flash_loan_limit(self.market, debt)
        purses = [purse for purse in (means.inventory_raw, self.settings.inventory_raw) if purse is not None]
        return min((purse.get(debt, 0) for purse in purses), default=MAX_UINT256)

    def _premium(self, amount_raw: int) -> int:
        return 0 if self.settings.from_inventory else self.model.flash_loan_premium(self.market, amount_raw)

    def _least_net_raw(self, debt: str) -> int:
        """Return the least net profit in debt token units, rounded up."""
        asset = self.assets[debt]
        price_e8 = self.prices.price_e8(asset.symbol)
        assert price_e8  # checked for the pair
        return ceil_div(self.settings.min_net_profit_e8 * int(10**asset.decimals), price_e8)

    def _impact_bps(self, debt: str, collateral: str, seized_raw: int, proceeds_raw: int) -> int:
        """Return how much less than the protocol's prices say the swap pays, rounded up."""
        values = []
        for token, amount_raw in ((collateral, seized_raw), (debt, proceeds_raw)):
            asset = self.assets[token]
            price_e8 = self.prices.price_e8(asset.symbol)
            assert price_e8  # checked for the pair
            values.append(Fraction(amount_raw * price_e8, 10**asset.decimals))
        return _ceil((1 - values[1] / values[0]) * BPS)

    def _paths(self, pools: Pools, token_in: str, token_out: str, amount_raw: int) -> tuple[Path, ...]:
        """Return the paths to sell up to an amount over; the empty one when the tokens are the same."""
        if token_in == token_out:
            return ((),)
        hops = self.settings.max_hops
        if len(self.usable) <= _EXHAUSTIVE_POOLS:
            key = (token_in, token_out, 0)
            if key not in self.paths:
                self.paths[key] = find_paths(self._usable(pools), token_in, token_out, hops)
            return self.paths[key]
        found: dict[Path, None] = {}
        for size in (amount_raw, amount_raw >> _SIZE_BITS, amount_raw >> 2 * _SIZE_BITS):
            key = (token_in, token_out, size.bit_length() // _SIZE_BITS)
            if key not in self.paths:
                self.paths[key] = best_paths(self._usable(pools), token_in, token_out, hops, size)
            found |= dict.fromkeys(self.paths[key])
        return tuple(sorted(found, key=len))

    def _usable(self, pools: Pools) -> Pools:
        return {address: pool for address, pool in pools.items() if address in self.usable}

    def _token_per_wei(self, pools: Pools, token: str) -> Fraction | None:
        """Return raw units of `token` that one wei of gas is worth in the pools, else by the prices."""
        if token not in self.token_per_wei:
            self.token_per_wei[token] = self._value_of_wei(pools, token)
        return self.token_per_wei[token]

    def _value_of_wei(self, pools: Pools, token: str) -> Fraction | None:
        settings = self.settings
        native = settings.native_asset
        wei = settings.gas_price_wei * (self.gas_units + settings.gas_units_per_hop)
        if token == native or wei == 0:
            return Fraction(1)
        paths = self._paths(pools, native, token, wei)
        costs = [_bought(pools, _reversed(path), wei) for path in paths]
        bought = [cost for cost in costs if cost is not None]
        if bought:
            # What is spent on gas could be sold instead. Without that, one small pool that offers it far
            # below its price would make gas look free, and the least profit worth any of it.
            sales = [_proceeds(pools, path, wei) for path in paths]
            return Fraction(max([min(bought), *(got for got in sales if got is not None)]), wei)
        if native not in self.assets:
            return None
        native_e8 = self.prices.price_e8(self.assets[native].symbol)
        token_e8 = self.prices.price_e8(self.assets[token].symbol)
        if not native_e8 or not token_e8:
            return None
        return Fraction(native_e8 * 10 ** self.assets[token].decimals, token_e8 * WAD)

    def _pair_name(self, debt: str, collateral: str) -> str:
        return f"{self.assets[collateral].symbol} for {self.assets[debt].symbol}"


_CAME_FURTHEST = (
    Reason.UNPROFITABLE,
    Reason.NO_ROUTE,
    Reason.LIMIT,
    Reason.PROTOCOL_UNKNOWN,
    Reason.SIMULATION_FAILED,
)


def _furthest(refused: Sequence[NoPlan]) -> NoPlan:
    """Return why an account is not liquidated: the pair that came furthest says most."""
    if not refused:
        return NoPlan(Reason.NO_COLLATERAL, "bad debt: nothing is left to take")
    return min(refused, key=lambda n: _CAME_FURTHEST.index(n.reason))


def _ceil(value: Fraction) -> int:
    return ceil_div(value.numerator, value.denominator)


def _planner(
    model: LiquidationModel[M, S],
    market: M,
    prices: PriceSnapshot,
    settings: PlanSettings,
    pools: Pools,
) -> _Planner[M, S]:
    assets = {asset.address: asset for asset in model.assets(market)}
    gas_units = settings.gas_units
    if gas_units is None:
        gas_units = model.liquidation_gas if isinstance(model, Executable) else GAS_UNITS
    tokens = settings.swap_tokens
    usable = frozenset(a for a, p in pools.items() if tokens is None or {p.token0, p.token1} <= tokens)
    return _Planner(model, market, prices, settings, assets, gas_units, usable)


def plan_pairs(
    model: LiquidationModel[M, S],
    market: M,
    account: S,
    pools: Pools,
    prices: PriceSnapshot,
    settings: PlanSettings,
) -> list[PairResult]:
    """Return the best of every pair of debt and collateral, or why there is none; for explaining."""
    return _planner(model, market, prices, settings, pools).pairs(
        account, _Means(pools, settings.inventory_raw)
    )


def plan_liquidation(
    model: LiquidationModel[M, S],
    market: M,
    account: S,
    pools: Pools,
    prices: PriceSnapshot,
    settings: PlanSettings,
) -> LiquidationPlan | NoPlan:
    """Return the liquidation of one account that leaves most, or why there is none.

    Parameters
    ----------
    model
        The protocol's adapter.
    market
        Its market, projected to the time of the block that the liquidation is meant for.
    account
        Exact state of the account.
    pools
        Pools by address, at the same block.
    prices
        The protocol view.
    settings
        Gas, least profit, funding.
    """
    return _planner(model, market, prices, settings, pools).best(
        account, _Means(pools, settings.inventory_raw)
    )


# --- bundles -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MarketBook:
    """The accounts of one market that a bundle is made from.

    Attributes
    ----------
    model, market
        The protocol's adapter, and its market at the time of the block that the bundle is meant for.
    accounts
        Key to exact state.
    prices
        Prices of the market's tokens, in the currency that all markets of the bundle are compared in.
    settings
        Gas, least profit and funding in this market. Own funds are one purse: of each token there is as much
        as the market with most of it has, and a market's plan takes no more than that market's own.
    """

    model: LiquidationModel[Any, Any]
    market: Any
    accounts: Mapping[Any, Any]
    prices: PriceSnapshot
    settings: PlanSettings


def plan_bundle(
    model: LiquidationModel[M, S],
    market: M,
    accounts: Mapping[K, S],
    pools: Pools,
    prices: PriceSnapshot,
    settings: PlanSettings,
) -> dict[K, LiquidationPlan | Reason]:
    """Plan for many accounts of one market; see `plan_markets`.

    Returns
    -------
    dict
        Key of `accounts` to plan or reason. Other parameters are as for `plan_liquidation`.
    """
    return plan_markets([MarketBook(model, market, accounts, prices, settings)], pools)


def plan_markets(
    books: Sequence[MarketBook],
    pools: Pools,
    *,
    most: int | None = None,
    behind: Collection[Any] = (),
    failed: Callable[[Any, Exception], None] | None = None,
) -> dict[Any, LiquidationPlan | Reason]:
    """Plan for many accounts of several markets against one set of pools, the most profitable first.

    Each plan sees the pools, and own funds, as the plans before it leave them. A plan is made again only when
    its turn comes and something that it stands on was used since; it goes back in line when that costs it its
    place, and is dropped when it no longer pays.

    Of the accounts that can be liquidated in the same pair at the same bonus only the one with most to
    liquidate is in line: none behind it can do better, and when it does not pay, neither does any of them.

    Parameters
    ----------
    books
        Accounts by market; keys must differ over all of them.
    pools
        Pools by address, all at one block.
    most
        Plans to make at most; the accounts behind them that would pay too get `Reason.LIMIT`.
    behind
        Keys of accounts that are planned for on what all others leave, whatever they are worth: those whose
        plans did not hold before, which would otherwise take from the pools what nobody then gets.
    failed
        Told the key of an account whose planning raised, and the error; the account then gets
        `Reason.ACCOUNT_UNKNOWN`, and no plan in any pair. Without it the error is raised.

    Returns
    -------
    dict
        Key to plan or reason: plans in the order in which they are to be executed, then those without one in
        the order given.
    """
    keys = [key for book in books for key in book.accounts]
    if len(set(keys)) < len(keys):
        raise InputError("two accounts of a bundle have the same key", fix="name the market in it")
    planners = [_planner(book.model, book.market, book.prices, book.settings, pools) for book in books]
    means = _Means(pools, _purse([book.settings.inventory_raw for book in books]))
    plans: dict[Any, LiquidationPlan | Reason] = {}
    refusals: dict[Any, Reason] = {}
    for last in (False, True):
        places: list[Any] = []
        line = _Line(means, None if failed is None else partial(_of_place, failed, places))
        for number, (book, planner) in enumerate(zip(books, planners, strict=True)):
            for key, account in book.accounts.items():
                if (key in behind) is last:
                    places.append(key)
                    line.add(number, len(places) - 1, planner, account)
        for place, plan in line.plans(None if most is None else most - len(plans)):
            plans[places[place]] = plan
        refusals |= {key: line.refusal(i) for i, key in enumerate(places) if key not in plans}
        means = line.means
    return plans | {key: refusals[key] for key in keys if key not in plans}


def _of_place(
    failed: Callable[[Any, Exception], None], places: Sequence[Any], place: int, error: Exception
) -> None:
    failed(places[place], error)


def _purse(several: Sequence[Mapping[str, int] | None]) -> Mapping[str, int] | None:
    """Return what there is of each token, None where nothing limits a market."""
    purse: dict[str, int] = {}
    for funds in several:
        if funds is None:
            return None
        purse |= {token: max(raw, purse.get(token, 0)) for token, raw in funds.items()}
    return purse


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An account and one of the pairs that it can be liquidated in.

    Attributes
    ----------
    place, number
        Of the account among all, and of the pair among the account's.
    """

    place: int
    number: int
    planner: _Planner[Any, Any]
    account: Any
    debt: str
    collateral: str
    allowed: Outcome

    def found(self, means: _Means) -> _Found:
        """Plan it on what there is."""
        return self.planner.pair(self.account, self.debt, self.collateral, self.allowed, means)


@dataclass(frozen=True, slots=True)
class _Sight:
    """What planning a pair looked at: the means, and the part of them that it can touch."""

    means: _Means
    debt: str
    touched: frozenset[str]

    def holds(self, means: _Means) -> bool:
        """Return whether nothing of it was used since."""
        funds = {(m.inventory_raw or {}).get(self.debt) for m in (self.means, means)}
        return len(funds) == 1 and all(means.pools[p] is self.means.pools[p] for p in self.touched)


@dataclass(slots=True)
class _Kin:
    """Candidates of one pair at one bonus, those with most to liquidate first.

    Attributes
    ----------
    members, next
        The candidates, and how many were called.
    sight
        What the last one that was planned saw.
    """

    members: list[_Candidate] = field(default_factory=list)
    next: int = 0
    sight: _Sight | None = None

    def rest(self) -> list[_Candidate]:
        """Return those that were not called, and count them as if they had been."""
        rest, self.next = self.members[self.next :], len(self.members)
        return rest


@dataclass(frozen=True, slots=True)
class _Turn:
    """A candidate in line, with its plan and what that stands on."""

    candidate: _Candidate
    kin: _Kin
    plan: LiquidationPlan
    sight: _Sight


class _Line:
    """Candidates waiting for their turn, worth most first.

    Parameters
    ----------
    means
        What there is at first.
    failed
        Told the place of an account whose planning raised; None to have the error raised.
    """

    def __init__(self, means: _Means, failed: Callable[[int, Exception], None] | None = None) -> None:
        self._means = means
        self._tell = failed
        self._failed: set[int] = set()
        self._kin: dict[tuple[int, str, str, int], _Kin] = {}
        self._pairs: dict[int, list[tuple[_Candidate, _Kin]]] = {}
        self._refused: dict[int, NoPlan] = {}
        self._limited: set[int] = set()
        self._planned: set[int] = set()
        # Value negated (a heap gives the least first), place and number of the pair.
        self._heap: list[tuple[Fraction, int, int, _Turn]] = []

    @property
    def means(self) -> _Means:
        """What the plans so far leave."""
        return self._means

    def add(self, book: int, place: int, planner: _Planner[Any, Any], account: Any) -> None:
        """Put an account among its kin, once for each pair."""
        self._pairs[place] = []
        with self._contained(place):
            self._add(book, place, planner, account)

    def _add(self, book: int, place: int, planner: _Planner[Any, Any], account: Any) -> None:
        pairs = planner.model.liquidation_pairs(planner.market, account)
        for number, (debt, collateral) in enumerate(pairs):
            allowed = planner.allowed(account, debt, collateral)
            candidate = _Candidate(place, number, planner, account, debt, collateral, allowed)
            least_raw = min(allowed.debt_repaid_raw, allowed.to_liquidator_raw)
            if allowed.revert_code is not None or least_raw <= 0:
                why = candidate.found(self._means).result.no_plan
                if why is not None:
                    self._refuse(place, why)
                continue
            bonus = round(math.log(allowed.to_liquidator_raw / allowed.debt_repaid_raw) * _BONUS_STEPS)
            kin = self._kin.setdefault((book, debt, collateral, bonus), _Kin())
            kin.members.append(candidate)
            self._pairs[place].append((candidate, kin))

    def plans(self, most: int | None) -> Iterator[tuple[int, LiquidationPlan]]:
        """Yield places and plans in order, each on the means that those before it leave."""
        for kin in self._kin.values():
            kin.members.sort(key=lambda c: (-c.allowed.debt_repaid_raw, c.place))
            self._call(kin)
        while self._heap or self._called_again():
            if most is not None and len(self._planned) >= most:
                self._stop()
                return
            _, place, _, turn = heapq.heappop(self._heap)
            if self._is_done(place):
                self._call(turn.kin)
            elif not turn.sight.holds(self._means):
                if not self._line_up(turn.candidate, turn.kin):
                    self._call(turn.kin)
            else:
                plan = self._taken(turn)
                if plan is not None:
                    yield place, plan
                self._call(turn.kin)

    def refusal(self, place: int) -> Reason:
        """Return why an account has no plan."""
        if place in self._failed:
            return Reason.ACCOUNT_UNKNOWN
        if place in self._limited:
            return Reason.LIMIT
        return self._refused.get(place, _furthest([])).reason

    @contextmanager
    def _contained(self, place: int) -> Iterator[None]:
        """Keep what is raised inside to the account of `place`, where somebody wants to be told."""
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:
            if self._tell is None:
                raise
            self._failed.add(place)
            self._tell(place, error)

    def _is_done(self, place: int) -> bool:
        """Whether an account has its plan, or will not have one for what was raised on the way."""
        return place in self._planned or place in self._failed

    def _taken(self, turn: _Turn) -> LiquidationPlan | None:
        """Return the plan of the account whose turn it is, used up; None where that was not to be had."""
        with self._contained(turn.candidate.place):
            plan = self._best_now(turn)
            self._means = self._means.after(plan)
            self._planned.add(turn.candidate.place)
            return plan
        return None

    def _called_again(self) -> bool:
        """Call those once more who were refused before others sold the other way; return whether one came."""
        for kin in self._kin.values():
            if kin.sight is not None and not kin.sight.holds(self._means):
                kin.next = 0
                self._call(kin)
        return bool(self._heap)

    def _best_now(self, turn: _Turn) -> LiquidationPlan:
        """Return the best of all pairs of the account whose turn it is.

        Another pair than the one in line can only be better where others sold the other way since.
        """
        value, plans = turn.candidate.planner.value, [turn.plan]
        for candidate, kin in self._pairs[turn.candidate.place]:
            if candidate is not turn.candidate and not (kin.sight and kin.sight.holds(self._means)):
                result = candidate.found(self._means).result
                plans += [result.plan] if result.plan is not None and result.no_plan is None else []
        return max(plans, key=value)

    def _call(self, kin: _Kin) -> None:
        """Have the next of its kin line up, and those behind it until one stands for the rest."""
        while kin.next < len(kin.members):
            candidate = kin.members[kin.next]
            kin.next += 1
            if not self._is_done(candidate.place) and self._line_up(candidate, kin):
                return

    def _line_up(self, candidate: _Candidate, kin: _Kin) -> bool:
        """Plan a candidate and put it in line, or refuse it, and with it those that cannot do better.

        Returns
        -------
        bool
            Whether it stands for the rest of its kin, which do no better.
        """
        with self._contained(candidate.place):
            return self._lined_up(candidate, kin)
        return False

    def _lined_up(self, candidate: _Candidate, kin: _Kin) -> bool:
        found = candidate.found(self._means)
        kin.sight = self._sight(found)
        if (why := found.result.no_plan) is None:
            self._push(candidate, kin, found)
            return found.proportional
        alike = kin.rest() if found.proportional or why.reason is Reason.LIMIT else []
        for refused in (candidate, *alike):
            self._refuse(refused.place, why)
        return found.proportional

    def _refuse(self, place: int, why: NoPlan) -> None:
        """Remember why an account is not liquidated: the pair that came furthest says most."""
        self._refused[place] = _furthest([why, *([self._refused[place]] if place in self._refused else [])])

    def _sight(self, found: _Found) -> _Sight:
        touched = frozenset(hop.pool for path in found.paths for hop in path)
        return _Sight(self._means, found.result.debt_asset, touched)

    def _push(self, candidate: _Candidate, kin: _Kin, found: _Found) -> None:
        plan = found.result.plan
        assert plan is not None
        worth = candidate.planner.value(plan)
        turn = _Turn(candidate, kin, plan, self._sight(found))
        heapq.heappush(self._heap, (-worth, candidate.place, candidate.number, turn))

    def _stop(self) -> None:
        """Tell those that would still pay from those that would not, without planning for each."""
        waiting = [turn.candidate for *_, turn in self._heap]
        for kin in self._kin.values():
            rest = kin.rest()
            pays = bisect.bisect_left(rest, True, key=self._is_refused)
            waiting += rest[:pays]
            if pays < len(rest) and (why := self._no_plan(rest[pays])) is not None:
                for candidate in rest[pays:]:
                    self._refuse(candidate.place, why)
        self._limited = {candidate.place for candidate in waiting}

    def _is_refused(self, candidate: _Candidate) -> bool:
        return self._no_plan(candidate) is not None

    def _no_plan(self, candidate: _Candidate) -> NoPlan | None:
        """Return why a candidate has no plan that pays; None where it has, or where nobody can tell."""
        with self._contained(candidate.place):
            return candidate.found(self._means).result.no_plan
        return None
