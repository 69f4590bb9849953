"""Where each dollar of keepers goes: own funds, what the step has traded before, and the store front."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contracts_abi.errors import InputError
from simulation.book.dump import dump_book
from simulation.book.load import parse_book
from simulation.book.types import Backing, BackingKind, SharedBook
from simulation.contagion.batch import Batch
from simulation.contagion.channels.keepers import layout_of
from simulation.contagion.engine import Run, run_paths
from simulation.contagion.settle import affordable, loss, loss_after, outlay, seize, trade
from simulation.contagion.state import Total
from simulation.contagion.storefront import best_purchase
from simulation.contagion.world import build_world
from tests.contagion_books import EVERYTHING, PRICES, moving_run, one_pair_book, run_of, several_venues

LINEAR: dict[str, Any] = {"model": "linear", "half_life_s": 3_600.0}
GAS: dict[str, Any] = {"native": "ETH", "tip_gwei": 0.0, "panic": 0.0, "elasticity": 1e-3, "block_gas": 1e6}
"""Two liquidations a block, at a base fee that stays where it is."""
MORPHO_BONUS = 1.0 / (1.0 - 0.3 * 0.2) - 1.0


def desk(capital: float, **more: Any) -> dict[str, Any]:
    return {"name": "desk", "funding": "inventory", "capital_usd": capital, "bid": 0.0, **more}


def gas_at(gwei: float) -> dict[str, Any]:
    return {**GAS, "base_fee_gwei": gwei, "least_gwei": gwei}


# --- own funds ----------------------------------------------------------------------------------------------


def test_own_funds_pay_the_debt_gas_and_the_bid_and_no_dollar_more() -> None:
    # 500,000 gas of 20 gwei at 100 dollars cost one. Of r repaid a keeper gets r (1 + b), so it bids
    # (b r - 1) / 4, and r + 1 + (b r - 1) / 4 are its thousand dollars.
    book = one_pair_book([100.0], [8_500.0], price=100.0, kind="morpho-blue")
    settings = {"gas": gas_at(20.0), "keepers": {"keepers": [desk(1_000.0, bid=0.25)]}}
    seen: list[tuple[float, float]] = []

    def watch(batch: Batch) -> None:
        seen.append((float(batch.state.inventory[0, 0]), float(batch.gas_usd[0])))

    total = run_paths(run_of(book, settings, steps=1), 1, 0, 1, watch=watch).totals[0, 0]
    (left, gas), *_ = seen
    assert gas == pytest.approx(1.0, rel=1e-9)
    assert left == 0.0
    repaid = (1_000.0 - 0.75 * gas) / (1.0 + 0.25 * MORPHO_BONUS)
    assert total[Total.REPAID] == pytest.approx(repaid, rel=1e-12)
    assert total[Total.BIDS] == pytest.approx(0.25 * (MORPHO_BONUS * repaid - gas), rel=1e-9)
    assert total[Total.KEEPER_PROFIT] == pytest.approx(0.75 * (MORPHO_BONUS * repaid - gas), rel=1e-9)


def test_own_funds_pay_what_buying_the_debt_loses_to_depth() -> None:
    # A dollar bought moves the debt token by 1e-4: r dollars of it cost r + 1e-4 r^2 / 2 + …
    book = one_pair_book([1_000.0], [85_000.0], price=100.0, kind="morpho-blue")
    market = {"tokens": {"USD": {**LINEAR, "per_dollar": 1e-5}}}
    settings = {"keepers": {"keepers": [desk(2_000.0)]}, "impact": market}
    kept: list[float] = []
    run = run_of(book, settings, steps=1)
    result = run_paths(run, 1, 0, 1, watch=lambda batch: kept.append(float(batch.state.inventory[0, 0])))
    repaid = float(result.totals[0, 0, Total.REPAID])
    assert kept == [0.0]
    assert repaid + repaid - (1.0 - np.exp(-1e-5 * repaid)) / 1e-5 == pytest.approx(2_000.0, rel=2e-3)
    assert repaid < 1_985.0


def test_the_largest_offer_that_own_funds_pay_is_found_and_none_above_it() -> None:
    rng, market, bound = np.random.default_rng(8), np.array([100.0, 1.3]), 0
    size = np.sort(rng.uniform(10.0, 1e5, (2, 8)), axis=1)
    # Losses that rise with size, by less than the size does.
    lost = np.cumsum(
        np.diff(size, axis=1, prepend=0.0) * np.sort(rng.uniform(0.0, 0.9, (2, 8)), axis=1), axis=1
    )
    for _ in range(400):
        most, capital, gas_usd, bid = rng.uniform([1.0, 1.0, 0.0, 0.0], [5e4, 5e4, 40.0, 1.0])
        held, bonus, fee = rng.uniform([1.0, 0.0, 0.0], [1e3, 0.15, 0.5])
        sold, bought = rng.uniform(0.0, 1e4, (2, 2))
        net = sold - bought
        before = loss(abs(net[0]), size[0], lost[0]), loss(abs(net[1]), size[1], lost[1])
        book = market, *net, *before, size, lost
        given = most, 2.0 * most, held, 1.25, 97.0, bonus, fee, 0, 1, *book, capital, gas_usd, bid
        offer = affordable(*given)
        assert offer == pytest.approx(affordable.py_func(*given), rel=1e-12)
        repaid, taken = seize(offer, 2.0 * most, held, 1.25, 97.0, bonus, 0.0)
        got = taken - (taken - taken / (1.0 + bonus)) * fee
        spent = outlay(*trade(repaid, got, 0, 1, *book), gas_usd, bid)
        if offer == 0.0:
            assert capital <= gas_usd
        elif offer == most:
            assert spent <= capital
        else:
            bound += 1
            assert capital * (1.0 - 1e-12) <= spent <= capital
    assert 50 < bound < 350


def test_a_keeper_who_cannot_pay_gas_does_nothing() -> None:
    for kind in ("morpho-blue", "compound-v3"):
        book = one_pair_book([100.0], [8_500.0], price=100.0, kind=kind)
        settings = {"gas": gas_at(20.0), "keepers": {"keepers": [desk(0.99)]}}
        assert run_paths(run_of(book, settings, steps=1), 1, 0, 1).totals[0, 0, Total.LIQUIDATIONS] == 0


def desks_on_all(rounds: int = 3) -> Run:
    """Return a run of all channels on all protocols in which everybody liquidates out of own funds."""
    keepers = [
        desk(3e5, bid=0.6, sell_per_step=0.3),
        desk(1e6, name="large", bid=0.2, sell_per_step=0.05, latency_steps=1),
    ]
    settings = {**EVERYTHING, "keepers": {"rounds": rounds, "keepers": keepers}}
    return moving_run(several_venues(40, seed=3), settings, steps=20)


def test_funds_and_what_is_unsold_are_what_there_was_and_what_was_booked() -> None:
    run = desks_on_all()
    kept: list[Batch] = []

    def watch(batch: Batch) -> None:
        kept[:] = [batch]
        assert (batch.state.inventory >= 0.0).all()

    result = run_paths(run, 1, 0, 4, watch=watch)
    state = kept[0].state
    now = state.inventory.sum(axis=1) + (state.unsold.sum(axis=1) * result.price).sum(axis=1)
    booked = result.totals[:, :, Total.KEEPER_PROFIT].sum(axis=1) + result.extra["inventory_gain_usd"]
    assert now == pytest.approx(1.3e6 + booked, rel=1e-12)
    # All of it is there to go wrong: gas, bids, sales, purchases that lose, a rest that is unsold.
    for what in (Total.GAS, Total.BIDS, Total.LIQUIDATIONS):
        assert (result.totals[:, :, what].sum(axis=1) > 0.0).all()
    assert (state.unsold.sum(axis=(1, 2)) > 0.0).all()
    assert (np.abs(result.extra["inventory_gain_usd"]) > 10.0).all()
    assert result.totals[:, run.world.venue("comet"), Total.REPAID].min() > 0.0


# --- the market as the step has left it ---------------------------------------------------------------------


def test_going_round_in_a_market_costs_nothing_and_brings_nothing() -> None:
    size = np.array([10.0, 100.0, 1_000.0])
    lost = np.array([0.1, 10.0, 500.0])
    for net in (-300.0, -40.0, 0.0, 40.0, 300.0):
        for x in (-500.0, -30.0, 30.0, 500.0):
            there = loss_after(net, x, size, lost)
            assert there == loss_after.py_func(net, x, size, lost)
            assert there + loss_after(net + x, -x, size, lost) == pytest.approx(0.0, abs=1e-12)
    # The second seller pays for the first; a buyer after him gets some of that back.
    assert loss_after(40.0, 30.0, size, lost) > loss(30.0, size, lost)
    assert loss_after(40.0, -30.0, size, lost) < 0.0


def test_debt_and_collateral_of_one_token_are_traded_in_one_market() -> None:
    # Who pays out of own funds buys all of the debt; of both trades together the difference is left.
    size, lost = np.array([[10.0, 100.0, 1_000.0]]), np.array([[0.1, 10.0, 500.0]])
    for net in (-300.0, -40.0, 0.0, 40.0, 300.0, 800.0):
        before = loss(abs(net), size[0], lost[0])
        given = 250.0, 270.0, 0, 0, np.array([2.0]), net, net, before, before, size, lost
        revenue, cost = trade(*given)
        assert (revenue, cost) == pytest.approx(trade.py_func(*given), rel=1e-12)
        assert cost == pytest.approx(500.0 + loss_after(net, -500.0, size[0], lost[0]), rel=1e-12)
        assert revenue - cost == pytest.approx(40.0 - loss_after(net, 40.0, size[0], lost[0]), rel=1e-9)


def staked_book(price: float = 100.0) -> SharedBook:
    """Return a book whose collateral is staked ether, at a discount that redemptions work against."""
    book = one_pair_book([1_000.0], [95_000.0], price=price, kind="morpho-blue")
    staked = replace(book.tokens[0], backing=Backing(BackingKind.STAKED, "ether"))
    ether = replace(book.tokens[0], symbol="ether")
    return replace(book, tokens=(staked, book.tokens[1], ether))


def test_keepers_sell_into_what_arbitrageurs_redeem_in_the_same_step() -> None:
    earned, sold = [], 0.0
    for redeemed in (0.0, 2_000.0):
        peg = {"discount": 0.1, "redeem_usd_day": redeemed * 7_200.0}
        settings = {
            "pegs": {"tokens": {"ETH": peg}},
            "keepers": {},
            "impact": {"tokens": {"ETH": {**LINEAR, "per_dollar": 1e-6}}},
        }
        total = run_paths(run_of(staked_book(), settings, steps=1), 1, 0, 1).totals[0, 0]
        earned.append(total[Total.KEEPER_PROFIT] + total[Total.BIDS])
        sold = float(total[Total.SEIZED])
    # Bought before, 2,000 dollars move the price up by as many millionths, which every dollar sold gains.
    assert earned[1] - earned[0] == pytest.approx(1e-6 * 2_000.0 * sold, rel=0.02)


def test_keepers_sell_after_owners_who_sold_in_the_same_step() -> None:
    # The small account is liquidated; gas is too dear for its owner. The large one comes near, and its owner
    # sells: (1.25 - 1.05) / (1.25 - 0.8) of the debt.
    market = {"tokens": {"ETH": {**LINEAR, "per_dollar": 1e-6}}}
    settings = {
        "gas": gas_at(600.0),
        "borrowers": {"hazard": 1e9, "means": 0.0},
        "keepers": {},
        "impact": market,
    }
    earned, seized = [], 0.0
    for near in (1.05, 2.0):
        collateral = [20.0, 80_000.0 * near / 0.8 / 100.0]
        book = one_pair_book(collateral, [1_700.0, 80_000.0], price=100.0, kind="morpho-blue")
        total = run_paths(run_of(book, settings, steps=1), 1, 0, 1).totals[0, 0]
        assert total[Total.LIQUIDATIONS] == 1.0
        earned.append(total[Total.KEEPER_PROFIT] + total[Total.BIDS])
        seized = float(total[Total.SEIZED])
    owner_sold = 80_000.0 * 0.2 / 0.45
    assert earned[1] - earned[0] == pytest.approx(1e-6 * owner_sold * seized, rel=0.05)


def test_desks_sell_into_what_arbitrageurs_redeem_in_the_same_step() -> None:
    # In the second step all of what the first one's 20,000 dollars seized is sold.
    gains, held = [], 0.0
    for redeemed in (0.0, 2_000.0):
        peg = {"discount": 0.1, "redeem_usd_day": redeemed * 7_200.0}
        settings = {
            "pegs": {"tokens": {"ETH": peg}},
            "keepers": {"keepers": [desk(20_000.0, sell_per_step=1.0)]},
            "impact": {"tokens": {"ETH": {**LINEAR, "per_dollar": 1e-6}}},
        }
        kept: list[tuple[float, float]] = []

        def watch(batch: Batch, to: list[tuple[float, float]] = kept) -> None:
            state, memo = batch.state, batch.memos["keepers"]
            to.append((float(memo.gained[0]), float(state.unsold[0, 0, 0] * memo.seen[0, 0])))

        run_paths(run_of(staked_book(), settings, steps=2), 1, 0, 1, watch=watch)
        held = kept[0][1]
        gains.append(kept[1][0])
    # The first redemption has moved the price by 2e-3, and the second one as much is what the sale meets.
    # The table of losses has a few per cent of its own: it joins points of a curve by straight lines.
    assert gains[1] - gains[0] == pytest.approx(4e-3 * held, rel=0.06)


# --- the store front ----------------------------------------------------------------------------------------


def comet(reserves: float = 0.0, target: float | None = None) -> SharedBook:
    """Return three accounts that are absorbed, owing 950 against 1,000 each."""
    book = one_pair_book([10.0] * 3, [950.0] * 3, price=100.0, kind="compound-v3", bonus_bps=1_000)
    venue = book.lending[0]
    base = replace(venue.reserves[1], reserves=reserves)
    venue = replace(venue, reserves=(venue.reserves[0], base), target_reserves=target)
    return replace(book, lending=(venue,))


@pytest.mark.parametrize(("target", "sold"), [(None, True), (7_150.5, True), (7_150.0, False), (0.0, False)])
def test_a_store_front_is_closed_once_reserves_are_at_their_target(target: float | None, sold: bool) -> None:
    # 10,000 in reserves pay the three debts of 950: 7,150 are left before anything is sold.
    book = comet(10_000.0, target)
    total = run_paths(run_of(book, {"keepers": {}}, steps=1), 1, 0, 1).totals[0, 0]
    assert total[Total.LIQUIDATIONS] == 3.0
    # All of it is one sale, which takes reserves beyond the target: the contract asks before.
    assert total[Total.SEIZED] == pytest.approx(3_000.0 if sold else 0.0)
    assert total[Total.REPAID] == pytest.approx(3_000.0 / 1.1 if sold else 0.0)


@pytest.mark.parametrize(("limit_bps", "sold"), [(2_000.0, True), (500.0, False)])
def test_what_guards_do_not_believe_sells_nothing_at_a_store_front(limit_bps: float, sold: bool) -> None:
    # Absorbed in the first step; from the second on the venue believes nine tenths of the price.
    def watch(batch: Batch) -> None:
        seized.append(float(batch.state.totals[0, 0, Total.SEIZED]))

    seized: list[float] = []
    fault = {"token": "ETH", "venue": "market", "op": "scale", "value": 0.9, "from_step": 1, "until_step": 9}
    settings = {
        "oracle": {"faults": [fault], "guards": {"max_deviation_bps": limit_bps}},
        "gas": {**gas_at(1e-3), "block_gas": 1.5e6},
        "keepers": {},
    }
    run_paths(run_of(comet(), settings, steps=2), 1, 0, 1, watch=watch)
    assert seized[0] == 0.0
    assert (seized[1] > 0.0) is sold


def test_a_purchase_takes_a_place_in_the_block() -> None:
    for block, bought in ((1.5e6, [0.0, 3_000.0]), (2e6, [3_000.0, 3_000.0])):
        gas = {**gas_at(1e-3), "block_gas": block}
        seized: list[float] = []
        run = run_of(comet(), {"gas": gas, "keepers": {}}, steps=2)
        run_paths(
            run,
            1,
            0,
            1,
            watch=lambda batch, to=seized: to.append(float(batch.state.totals[0, 0, Total.SEIZED])),  # type: ignore[misc]
        )
        assert seized == pytest.approx(bought)


def test_purchases_share_the_block_and_the_most_profitable_comes_first() -> None:
    # Three places: two accounts are absorbed, and one store front finds a buyer. The next step has the other.
    book = one_pair_book([10.0, 20.0], [950.0, 1_900.0], price=100.0, kind="compound-v3", bonus_bps=1_000)
    venues = book.lending[0], replace(book.lending[0], name="second")
    positions = replace(book.positions, venue=np.array([0, 0, 1, 1], dtype=np.int32))
    book = replace(book, lending=venues, positions=positions)
    seized: list[list[float]] = []
    run = run_of(book, {"gas": {**gas_at(1e-3), "block_gas": 1.5e6}, "keepers": {}}, steps=2)
    run_paths(
        run, 1, 0, 1, watch=lambda batch: seized.append(batch.state.totals[0, :, Total.SEIZED].tolist())
    )
    assert seized == [pytest.approx([0.0, 2_000.0]), pytest.approx([1_000.0, 2_000.0])]


def test_the_best_purchase_is_the_same_compiled_and_plain() -> None:
    world = build_world(several_venues(5, seed=8))
    v = world.venue("comet")
    offset, layout, rng = v * len(world.tokens), layout_of(world), np.random.default_rng(6)
    base = offset + world.token("USDC")
    size = np.sort(rng.uniform(1.0, 1e5, (len(world.tokens), 6)), axis=1)
    lost = np.sort(rng.uniform(0.0, 500.0, size.shape), axis=1)
    oracle = np.tile(world.price, len(world.venues))
    found = 0
    for _ in range(100):
        a, held, gas_usd = world.token("BTC"), float(rng.uniform(0.01, 5.0)), float(rng.uniform(0.0, 50.0))
        traded = rng.uniform(0.0, 1e3, (2, len(world.tokens)))
        for capital in (np.inf, 10_000.0):
            given = (
                a,
                base,
                held,
                0.05,
                layout,
                oracle,
                world.price,
                *traded,
                size,
                lost,
                offset,
                capital,
                gas_usd,
            )
            got, pay, profit, cost = bought = best_purchase(*given)
            assert bought == pytest.approx(best_purchase.py_func(*given), rel=1e-12)
            # What is paid is the oracle's price of what is got, less the discount.
            assert pay == pytest.approx(got * PRICES["BTC"] * 0.95, rel=1e-9)
            assert cost + gas_usd <= capital
            if capital == np.inf:
                whole, b = held * PRICES["BTC"] * 0.95, base - offset
                net = traded[0] - traded[1]
                tried = []
                for x in 0.5 ** np.arange(5):
                    brings, pays = held * x * PRICES["BTC"], whole * x
                    brings -= loss_after(net[a], brings, size[a], lost[a])
                    pays += loss_after(net[b], -pays, size[b], lost[b])
                    tried.append(brings - pays)
                assert profit == pytest.approx(max(0.0, *tried), rel=1e-9)
            found += profit > 0.0
    assert found > 100


def test_who_buys_out_of_own_funds_pays_no_more_than_they_are_and_keeps_what_he_bought() -> None:
    settings = {"keepers": {"keepers": [desk(1_000.0, sell_per_step=1.0)]}}
    kept: list[tuple[float, float]] = []
    run = run_of(comet(), settings, steps=2)
    result = run_paths(
        run,
        1,
        0,
        1,
        watch=lambda batch: kept.append(
            (float(batch.state.inventory[0, 0]), float(batch.state.unsold[0, 0, 0]))
        ),
    )
    assert kept[0] == pytest.approx((0.0, 11.0))
    # The second purchase is of what the first one's sale brought.
    assert kept[1] == pytest.approx((0.0, 12.1))
    assert result.totals[0, 0, Total.KEEPER_PROFIT] == pytest.approx(210.0)
    picky = {"keepers": {"keepers": [{"min_profit_usd": 300.0}]}}
    assert run_paths(run_of(comet(), picky, steps=1), 1, 0, 1).totals[0, 0, Total.SEIZED] == 0.0


def written(target: float | None, kind: str = "compound-v3") -> SharedBook:
    """Return a book with a store front after it was written to a file and read again."""
    book = comet(target=target)
    collateral, base = book.lending[0].reserves
    reserves = replace(collateral, ltv_bps=7_000), replace(base, token="USDC")
    venue = replace(book.lending[0], kind=kind, reserves=reserves)
    tokens = book.tokens[0], replace(book.tokens[1], symbol="USDC")
    amount = np.array([10.0, 500.0] * 3)
    positions = replace(book.positions, amount=amount)
    book = replace(book, tokens=tokens, lending=(venue,), positions=positions)
    (data,) = dump_book(book, "book.toml").values()
    return parse_book(data)


def test_a_books_target_reserves_are_read_written_and_refused_where_there_is_no_store_front() -> None:
    assert written(5e6).lending[0].target_reserves == 5e6
    assert written(None).lending[0].target_reserves is None
    with pytest.raises(InputError, match=r"target_reserves: aave-v3 has no store front"):
        written(5e6, "aave-v3")
