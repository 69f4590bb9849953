"""The float rules of the engine against the exact integer models, one liquidation at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

from simulation.book.types import EMode, LendingColumns, LendingVenue, Reserve, SharedBook, Side, Token
from simulation.contagion.channels.keepers import layout_of
from simulation.contagion.engine import PathResults, run_paths
from simulation.contagion.settle import best_liquidation, bonus_now, loss, repay_limit, seize
from simulation.contagion.state import Total
from simulation.contagion.world import build_world
from simulation.fixed_point import MAX_UINT256, RAY, WAD
from simulation.protocols import aave_v2, aave_v3, aave_v3_6, morpho_blue
from simulation.protocols.aave_v3.configuration import set_borrowing, set_using_as_collateral
from simulation.protocols.compound_v3 import comet
from simulation.protocols.compound_v3 import types as comet_types
from simulation.types import Asset
from tests import aave_states, compound_v3_states, morpho_states
from tests.aave_states import NOW, address, configuration
from tests.contagion_books import FLAT, run_of, several_venues

E8, UNIT = 10**8, 10**18
PRICES = {"A": 2_000.0, "B": 60_123.45678901, "C": 1.0, "D": 0.99981234}
LIMITS = {"A": (8_300, 500), "B": (7_800, 625), "C": (7_500, 450), "D": (7_700, 400)}
FEE_BPS = 1_000
MODE = EMode(1, ("C", "D"), 9_300, 9_500, 150)
CLOSE = 1e-9
"""Largest relative difference of the float rules from the exact ones."""


class Quote(NamedTuple):
    """What the exact model does."""

    revert: str | None
    repaid_raw: int
    taken_raw: int
    fee_raw: int
    deficit: bool


def raw(amount: float) -> int:
    return round(amount * UNIT)


def holdings(
    seed: int, accounts: int, *, modes: bool
) -> Iterator[tuple[dict[str, float], dict[str, float], int]]:
    """Yield collateral, debt and category of accounts at 1 and below, small and large, one or two of each."""
    rng = np.random.default_rng(seed)
    for k in range(accounts):
        debt = float(rng.lognormal(np.log(3_000.0), 2.0))
        mode = modes and k % 4 == 0
        held = ["D"] if mode else list(rng.choice(["A", "B"], rng.integers(1, 3), replace=False))
        owed = ["C"] if mode else list(rng.choice(["C", "D"], rng.integers(1, 3), replace=False))
        hf = float(
            rng.choice(
                [
                    rng.uniform(0.3, 0.95),
                    rng.uniform(0.9501, 0.9999),
                    rng.uniform(1.0, 1.0002),
                    0.949999,
                    0.950001,
                ]
            )
        )
        shares = rng.dirichlet(np.ones(len(held)))
        lts = [(9_500 if mode else LIMITS[t][0]) / 1e4 for t in held]
        value = hf * debt / sum(s * lt for s, lt in zip(shares, lts, strict=True))
        yield (
            {t: value * s / PRICES[t] for t, s in zip(held, shares, strict=True)},
            {t: debt * s / PRICES[t] for t, s in zip(owed, rng.dirichlet(np.ones(len(owed))), strict=True)},
            int(mode),
        )


def book_of(kind: str, accounts: list[tuple[dict[str, float], dict[str, float], int]]) -> SharedBook:
    index = {t: i for i, t in enumerate(PRICES)}
    rows = []
    for w, (held, owed, mode) in enumerate(accounts):
        rows += [(w, int(Side.COLLATERAL), index[t], x, mode) for t, x in held.items()]
        rows += [(w, int(Side.DEBT), index[t], x, mode) for t, x in owed.items()]
    rows.sort()
    fee = FEE_BPS if kind in ("aave-v3", "aave-v3.6") else 0
    venue = LendingVenue(
        "pool",
        kind,
        tuple(Reserve(t, lt, lt, b, FLAT, fee, idle_supply=1e15) for t, (lt, b) in LIMITS.items()),
        (MODE,) if fee else (),
    )
    return SharedBook(
        tokens=tuple(Token(t, 18, p) for t, p in PRICES.items()),
        lending=(venue,),
        wallets=tuple(f"w{i}" for i in range(len(accounts))),
        positions=LendingColumns(
            wallet=np.array([r[0] for r in rows], dtype=np.int32),
            venue=np.zeros(len(rows), dtype=np.int32),
            token=np.array([r[2] for r in rows], dtype=np.int32),
            side=np.array([r[1] for r in rows], dtype=np.int8),
            amount=np.array([r[3] for r in rows]),
            emode=np.array([r[4] for r in rows], dtype=np.int32),
        ),
    )


# --- exact states -------------------------------------------------------------------------------------------


def configured(kind: str, token: str) -> Any:
    lt, bonus = LIMITS[token]
    return configuration(
        18,
        ltv_bps=lt,
        liquidation_threshold_bps=lt,
        liquidation_bonus_bps=10_000 + bonus,
        liquidation_protocol_fee_bps=0 if kind == "aave-v2" else FEE_BPS,
        **({"e_mode_category": 1} if kind == "aave-v3" and token in MODE.tokens else {}),
    )


def v2_market() -> aave_v2.AaveV2Market:
    return aave_v2.AaveV2Market(
        NOW,
        tuple(
            aave_v2.AaveV2Reserve(
                asset=Asset(t, address(i), 18),
                id=i,
                configuration=configured("aave-v2", t),
                liquidity_index_ray=RAY,
                variable_borrow_index_ray=RAY,
                current_liquidity_rate_ray=0,
                current_variable_borrow_rate_ray=0,
                last_update_timestamp=NOW,
                scaled_variable_debt_raw=10**40,
                available_liquidity_raw=10**40,
                price_wei=round(p * E8) * 10**10,
            )
            for i, (t, p) in enumerate(PRICES.items())
        ),
    )


def v3_market() -> aave_v3.AaveMarket:
    category = aave_v3.EModeCategory(1, MODE.ltv_bps, MODE.liquidation_threshold_bps, 10_150)
    return aave_states.market(
        *(
            aave_states.reserve(
                i, t, round(p * E8), configured("aave-v3", t), scaled_variable_debt_raw=10**40
            )
            for i, (t, p) in enumerate(PRICES.items())
        ),
        e_modes=(category,),
    )


def v3_6_market() -> aave_v3_6.AaveMarket:
    bitmap = sum(1 << i for i, t in enumerate(PRICES) if t in MODE.tokens)
    category = aave_v3_6.EModeCategory(
        1, MODE.ltv_bps, MODE.liquidation_threshold_bps, 10_150, bitmap, bitmap
    )
    plain = {"scaled_a_token_supply_raw", "virtual_underlying_balance_raw", "token_balance_raw"}
    reserves = tuple(
        aave_v3_6.ReserveData(
            asset=Asset(t, address(i), 18),
            id=i,
            configuration=configured("aave-v3.6", t),
            a_token=f"0xa{i:039x}",
            variable_debt_token=f"0xc{i:039x}",
            liquidity_index_ray=RAY,
            variable_borrow_index_ray=RAY,
            current_liquidity_rate_ray=0,
            current_variable_borrow_rate_ray=0,
            last_update_timestamp=NOW,
            normalized_income_ray=RAY,
            normalized_variable_debt_ray=RAY,
            deficit_raw=0,
            liquidation_grace_period_until=0,
            isolation_mode_total_debt=0,
            price_base=round(p * E8),
            **dict.fromkeys(plain, 10**40),
        )
        for i, (t, p) in enumerate(PRICES.items())
    )
    return aave_v3_6.AaveMarket(1, NOW, reserves, {1: category})


def exact_aave(
    kind: str,
) -> Callable[[dict[str, float], dict[str, float], int, str, str, int], Quote]:
    """Return the exact quote of an Aave version for an account, a pair and a size."""
    id_of = {t: i for i, t in enumerate(PRICES)}
    market: Any = {"aave-v2": v2_market, "aave-v3": v3_market, "aave-v3.6": v3_6_market}[kind]()
    module: Any = {"aave-v2": aave_v2, "aave-v3": aave_v3, "aave-v3.6": aave_v3_6}[kind]

    def quote(
        held: dict[str, float], owed: dict[str, float], mode: int, debt: str, collateral: str, cover: int
    ) -> Quote:
        who: Any
        if kind == "aave-v2":
            word = 0
            for t in held:
                word = set_using_as_collateral(word, id_of[t], True)
            for t in owed:
                word = set_borrowing(word, id_of[t], True)
            who = aave_v2.AaveV2Account(
                "w",
                word,
                tuple(
                    aave_v2.AaveV2Position(i, raw(held.get(t, 0.0)), raw(owed.get(t, 0.0)))
                    for t, i in id_of.items()
                ),
            )
        else:
            who = aave_states.account(
                {id_of[t]: raw(x) for t, x in held.items()},
                {id_of[t]: raw(x) for t, x in owed.items()},
                e_mode_category=mode,
            )
        found = module.liquidation_quote(market, who, address(id_of[debt]), address(id_of[collateral]), cover)
        return Quote(
            found.revert_code,
            found.debt_repaid_raw,
            found.collateral_seized_raw,
            getattr(found, "protocol_fee_raw", 0),
            bool(getattr(found, "deficits_raw", ())),
        )

    return quote


def liquidations(results: PathResults) -> Iterator[Mapping[str, Any]]:
    """Yield each liquidation of the first path in names."""
    world = results.world
    for entry in results.events:
        for k, row in enumerate(entry["row"]):
            yield {name: values[k] for name, values in entry.items() if name not in ("step", "path")} | {
                "wallet": int(world.row_wallet[int(row)]),
                "debt": world.tokens[int(entry["debt_reserve"][k])],
                "collateral": world.tokens[int(entry["collateral_reserve"][k])],
            }


@pytest.mark.parametrize("kind", ["aave-v2", "aave-v3", "aave-v3.6"])
def test_aave_moves_what_the_exact_model_moves(kind: str) -> None:
    accounts = list(holdings(4, 400, modes=kind != "aave-v2"))
    book = book_of(kind, accounts)
    results = run_paths(run_of(book, {"keepers": {}}, steps=1), 1, 0, 1, record=True)
    quote = exact_aave(kind)
    seen = {"whole debt": 0, "all collateral": 0, "half": 0, "dust": 0, "deficit": 0, "mode": 0}
    done = set()
    for event in liquidations(results):
        held, owed, mode = accounts[event["wallet"]]
        pair = (event["debt"], event["collateral"])
        done.add(event["wallet"])
        found = quote(held, owed, mode, *pair, MAX_UINT256)
        if found.revert is not None:
            # The largest size leaves dust; what was chosen instead is allowed.
            assert found.revert == "MustNotLeaveDust"
            seen["dust"] += 1
            found = quote(held, owed, mode, *pair, raw(event["repaid"]))
        assert found.revert is None, (found, event)
        assert event["repaid"] == pytest.approx(found.repaid_raw / UNIT, rel=CLOSE)
        assert event["seized"] == pytest.approx(found.taken_raw / UNIT, rel=CLOSE)
        assert event["fee"] == pytest.approx(found.fee_raw / UNIT, rel=CLOSE)
        assert (event["written_off_usd"] > 0.0 and kind == "aave-v3.6") == found.deficit
        all_of_it = found.taken_raw >= raw(held[pair[1]]) * (1 - CLOSE)
        seen["all collateral"] += all_of_it
        seen["whole debt"] += found.repaid_raw >= raw(owed[pair[0]]) * (1 - CLOSE)
        seen["half"] += abs(found.repaid_raw / raw(owed[pair[0]]) - 0.5) < 1e-9
        seen["deficit"] += found.deficit
        seen["mode"] += mode
        # No pair that the contract allows whole would have paid more.
        mine = gain(event["seized"] - event["fee"], event["repaid"], pair)
        for debt in owed:
            for collateral in held:
                other = quote(held, owed, mode, debt, collateral, MAX_UINT256)
                if other.revert is None:
                    most = gain(
                        (other.taken_raw - other.fee_raw) / UNIT, other.repaid_raw / UNIT, (debt, collateral)
                    )
                    assert mine >= most - 1e-6 * abs(most), (event, other)
    assert all(seen[what] > 5 for what in ("all collateral", "half")), seen
    # Who was left alone is healthy by the contract, or every size leaves dust.
    spared = [k for k in range(len(accounts)) if k not in done]
    assert len(spared) > 20
    for k in spared:
        held, owed, mode = accounts[k]
        for debt in owed:
            for collateral in held:
                assert quote(held, owed, mode, debt, collateral, MAX_UINT256).revert is not None, (k, mode)
    if kind == "aave-v3.6":
        assert min(seen.values()) > 2, seen
    if kind != "aave-v2":
        assert seen["whole debt"] > 0, seen


def gain(received: float, repaid: float, pair: tuple[str, str]) -> float:
    return received * PRICES[pair[1]] - repaid * PRICES[pair[0]]


@pytest.mark.parametrize("kind", ["aave-v3", "aave-v3.6"])
@pytest.mark.parametrize(("hf", "full"), [(0.95, True), (np.nextafter(0.95, 1.0), False), (0.94, True)])
def test_the_close_factor_changes_at_exactly_095(kind: str, hf: float, full: bool) -> None:
    whole = int(kind == "aave-v3.6")
    args = (100.0, 1e5, 1e5, 1e5, hf, 0.5, 0.95, whole, 2_000.0 * whole)
    assert repay_limit(*args) == repay_limit.py_func(*args) == (100.0 if full else 50.0)


@pytest.mark.parametrize(
    ("debt_usd", "coll_usd", "total", "part"),
    [
        (2_000.0, 2_000.0, 2_000.0, 0.5),
        (1_999.99, 2_000.0, 1_999.99, 1.0),
        (2_000.0, 1_999.99, 2_000.0, 1.0),
        (3_000.0, 9_000.0, 10_000.0, 1.0),  # half of the position is more than this debt
        (8_000.0, 9_000.0, 10_000.0, 0.625),
    ],
)
def test_half_of_the_position_where_both_sides_are_large(
    debt_usd: float, coll_usd: float, total: float, part: float
) -> None:
    args = (10.0, debt_usd, coll_usd, total, 0.97, 0.5, 0.95, 1, 2_000.0)
    assert repay_limit(*args) == repay_limit.py_func(*args) == pytest.approx(10.0 * part, rel=1e-15)


def test_a_partial_liquidation_leaves_a_thousand_on_both_sides_or_is_refused() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        debt, coll = rng.uniform(1.0, 5.0, 2)
        repay = rng.uniform(0.0, debt)
        args = (repay, debt, coll, 1_000.0, 1_000.0, 0.05, 1_000.0)
        repaid, taken = seize(*args)
        assert (repaid, taken) == seize.py_func(*args)
        assert taken <= coll
        if repaid:
            assert taken == pytest.approx(repaid * 1.05, rel=1e-12)
            partial = repaid < debt and taken < coll
            assert not partial or min(debt - repaid, coll - taken) >= 1.0
        else:
            assert min(debt - repay, coll - repay * 1.05) < 1.0


# --- Morpho Blue --------------------------------------------------------------------------------------------


def morpho_book(accounts: list[tuple[float, float]]) -> SharedBook:
    book = book_of("morpho-blue", [({"A": c}, {"C": d}, 0) for c, d in accounts])
    venue = LendingVenue(
        "pool",
        "morpho-blue",
        (Reserve("A", 8_600, 8_600, 438, FLAT), Reserve("C", 0, 0, 0, FLAT, idle_supply=5e6)),
    )
    return replace(book, lending=(venue,))


def test_morpho_moves_and_socialises_what_the_exact_model_does() -> None:
    rng = np.random.default_rng(8)
    debts = rng.lognormal(np.log(5_000.0), 1.5, 150)
    accounts = [
        (float(hf * d / 0.86 / 2_000.0), float(d))
        for d, hf in zip(debts, rng.uniform(0.5, 1.0, 150), strict=True)
    ]
    results = run_paths(run_of(morpho_book(accounts), {"keepers": {}}, steps=1), 1, 0, 1, record=True)
    borrowed = sum(raw(d) for _, d in accounts)
    coins = (Asset("C", address(2), 18), Asset("A", address(0), 18))
    supplied = raw(5e6)
    market = morpho_states.market(
        supplied, borrowed, loan=coins[0], collateral=coins[1], price_e36=2_000 * 10**36
    )
    bad = 0
    for event in liquidations(results):
        collateral, debt = accounts[event["wallet"]]
        who = morpho_blue.MorphoAccount("w", 0, raw(debt) * 10**6, raw(collateral))
        found = morpho_blue.liquidation_quote(market, who, MAX_UINT256)
        assert found.succeeds
        assert event["repaid"] == pytest.approx(found.debt_repaid_raw / UNIT, rel=CLOSE)
        assert event["seized"] == pytest.approx(found.to_liquidator_raw / UNIT, rel=CLOSE)
        assert event["fee"] == 0.0
        assert event["written_off_usd"] == pytest.approx(
            found.bad_debt_assets_raw / UNIT, rel=CLOSE, abs=CLOSE * debt
        )
        bad += found.bad_debt_assets_raw > 0
        market = found.market_after
    assert 20 < bad < 140
    assert results.totals[0, 0, Total.LIQUIDATIONS] == len(accounts)
    taken = 1.0 - market.state.total_supply_assets_raw / supplied
    assert results.totals[0, 0, Total.FROM_SUPPLIERS] / 5e6 == pytest.approx(taken, rel=CLOSE)


# --- Compound III -------------------------------------------------------------------------------------------


def test_compound_absorbs_and_sells_what_the_exact_model_does() -> None:
    rng = np.random.default_rng(9)
    count = 60
    accounts = []
    for _ in range(count):
        debt, hf, share = float(rng.lognormal(np.log(2e4), 1.0)), rng.uniform(0.6, 0.999), rng.uniform()
        value = hf * debt / (share * 0.9 + (1.0 - share) * 0.8)
        accounts.append(
            ({"A": value * share / 2_000.0, "B": value * (1.0 - share) / PRICES["B"]}, {"C": debt}, 0)
        )
    book = book_of("compound-v3", accounts)
    # Factors of 0.95 and 0.93; the store front gives half of the penalty away.
    limits = {"A": (9_000, 0.95), "B": (8_000, 0.93)}
    exact_bonus = {t: 1e4 * (1.0 / f - 1.0) for t, (_, f) in limits.items()}
    venue = LendingVenue(
        "pool",
        "compound-v3",
        (
            *(
                Reserve(t, lt, lt, exact_bonus[t], FLAT, 5_000)  # type: ignore[arg-type]
                for t, (lt, _) in limits.items()
            ),
            Reserve("C", 0, 0, 0, FLAT, idle_supply=1e9),
        ),
    )
    run = run_of(replace(book, lending=(venue,)), {"keepers": {}}, steps=1)
    results = run_paths(run, 1, 0, 1, record=True)
    assert results.totals[0, 0, Total.LIQUIDATIONS] == count
    assets = tuple(
        comet_types.AssetInfo(
            Asset(t, address(i), 18),
            f"0x{i + 9:040x}",
            lt * WAD // 10_000 - 1,
            lt * WAD // 10_000,
            round(f * 100) * WAD // 100,
            10**40,
        )
        for i, (t, (lt, f)) in enumerate(limits.items())
    )
    params = replace(
        compound_v3_states.PARAMS, base=Asset("C", address(2), 18), assets=assets, base_borrow_min_raw=0
    )
    people = [
        comet_types.CometAccount(f"0x{k + 1:040x}", -raw(owed["C"]), 3, (raw(held["A"]), raw(held["B"])))
        for k, (held, owed, _) in enumerate(accounts)
    ]
    market = compound_v3_states.market(
        *people, lent_raw=raw(1e9), params=params, prices_e8=(2_000 * E8, round(PRICES["B"] * E8))
    )
    after = comet.absorb(market, people)
    assert after.succeeds
    left = comet.get_reserves(after.market_after) / UNIT
    # Nothing moves cash when an account is absorbed; what is sold afterwards brings it in.
    sold = {t: comet.quote_collateral(after.market_after, address(i), UNIT) for i, t in enumerate(limits)}
    brought = sum(sum(h[t] for h, _, _ in accounts) / (sold[t] / UNIT) for t in limits)
    assert results.reserve_loss[0, 0] == pytest.approx(max(-(brought + left), 0.0), rel=1e-8)
    assert results.reserve_loss[0, 0] > 0.0
    shortfall = sum(
        max(owed["C"] - sum(held[t] * PRICES[t] for t in limits), 0.0) for held, owed, _ in accounts
    )
    assert results.totals[0, 0, Total.WRITTEN_OFF] == pytest.approx(shortfall, rel=1e-9)
    assert results.totals[0, 0, Total.WRITTEN_OFF] == pytest.approx(
        sum(a.bad_debt_e8 for a in after.absorptions) / E8, rel=1e-6
    )
    assert results.totals[0, 0, Total.REPAID] == pytest.approx(brought, rel=1e-8)


# --- kernels and their twins --------------------------------------------------------------------------------


def test_the_best_liquidation_is_the_same_compiled_and_plain() -> None:
    world = build_world(several_venues(25, seed=8, near=0.02))
    layout, tokens = layout_of(world), len(world.tokens)
    rng = np.random.default_rng(3)
    reserves = len(world.cash)
    one, found = np.ones(reserves), 0
    oracle = np.tile(world.price, len(world.venues)) * rng.uniform(0.85, 1.0, reserves)
    market = world.price * rng.uniform(0.95, 1.05, tokens)
    size = np.sort(rng.uniform(1.0, 1e5, (tokens, 6)), axis=1)
    lost = np.sort(rng.uniform(0.0, 1e4, (tokens, 6)), axis=1)
    traded = rng.uniform(0.0, 1e3, (2, tokens))
    for i in range(world.rows):
        for capital in (np.inf, 500.0):
            args = (
                *(i, float(rng.uniform(0.8, 1.0)), layout, world.rules, world.coll, world.debt, one, one),
                *(oracle, market, world.cash, traded[0], traded[1], size, lost, capital, 7.0, 0.5),
            )
            compiled, plain = best_liquidation(*args), best_liquidation.py_func(*args)
            assert compiled == pytest.approx(plain, rel=1e-12), i
            found += compiled.debt_slot >= 0
            if compiled.debt_slot >= 0 and capital < np.inf:
                bid = 0.5 * max(compiled.profit - 7.0, 0.0)
                assert compiled.cost + 7.0 + bid <= capital * (1.0 + 1e-12)
    assert found > world.rows


def test_losses_are_interpolated_and_beyond_the_table_all_is_lost() -> None:
    size, lost = np.array([10.0, 20.0, 50.0]), np.array([0.1, 0.5, 4.0])
    for x in (0.0, 3.0, 10.0, 15.0, 49.9, 50.0):
        expected = np.interp(x, [0.0, *size], [0.0, *lost])
        assert loss(x, size, lost) == loss.py_func(x, size, lost) == pytest.approx(expected, rel=1e-14)
    assert loss(60.0, size, lost) == pytest.approx(14.0, rel=1e-14)


def test_bonuses_by_policy_are_bounded_by_each_rule() -> None:
    for own, hf, ltv, cap, slope, solvent, expected in (
        (0.05, 0.9, 0.9, np.inf, 0.0, 0, 0.05),
        (0.05, 0.98, 0.9, np.inf, 1.0, 0, 0.02),
        (0.05, 0.5, 0.9, np.inf, 1.0, 0, 0.05),
        (0.05, 0.5, 0.9, 0.03, 1.0, 0, 0.03),
        (0.05, 0.9, 0.98, np.inf, 0.0, 1, 1.0 / 0.98 - 1.0),
        (0.05, 0.9, 1.2, np.inf, 0.0, 1, 0.0),
    ):
        args = (own, hf, ltv, cap, slope, solvent)
        assert bonus_now(*args) == bonus_now.py_func(*args) == pytest.approx(expected, rel=1e-12)
