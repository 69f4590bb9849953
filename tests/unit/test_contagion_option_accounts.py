"""Options accounts in the engine: auctioned below their maintenance margin, and every dollar has two ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from contracts_abi.errors import InputError
from simulation.book.types import OptionColumns, SharedBook, Token
from simulation.contagion.batch import Batch
from simulation.contagion.channels import option_accounts
from simulation.contagion.channels.option_accounts import OptionAccountsChannel, _market, delta
from simulation.contagion.engine import Run, run_paths
from simulation.contagion.world import build_world
from simulation.margin.derive_auction import DeriveAuction
from simulation.margin.derive_pmrm import DerivePmrm
from simulation.portfolio.instruments import Option, Portfolio, Position
from simulation.portfolio.market import Expiry, Market, Underlying
from simulation.protocols.options_account import OptionsAccount, screen_of
from simulation.types import MarginStatus
from tests.contagion_books import moving_run, one_pair_book, run_of

DAYS = 60
METHOD: dict[str, Any] = {"kind": "derive.auction", "parameters": "test"}
DT = 20.0


def puts(size: float, days: float = DAYS) -> SharedBook:
    """A book whose first wallet has `size` puts on ether at 2,000 dollars, and the second one none."""
    book = one_pair_book([1.0] * 2, [1.0] * 2, price=2_000.0)
    column = np.zeros(1)
    options = OptionColumns(
        wallet=column.astype(np.int32),
        token=column.astype(np.int32),
        expiry=np.array([days * 86_400.0]),
        strike=np.array([2_000.0]),
        size=np.array([size]),
        volatility=np.array([0.7]),
        is_call=column.astype(np.int8),
    )
    return replace(book, options=options)


def run(cash: float, fall: float, steps: int = 1, *, days: float = DAYS, **settings: Any) -> Run:
    table = {"cash_usd": {"w0": cash}, "method": METHOD, **settings}
    return run_of(
        puts(-10.0, days), {"option_accounts": table}, steps=steps, shock=float(np.log1p(-fall)), dt_s=DT
    )


def figures(run: Run) -> dict[str, float]:
    extra = run_paths(run, 1, 0, 1).extra
    out = {name.removeprefix("option_accounts."): float(values[0]) for name, values in extra.items()}
    assert out["imbalance"] < 1e-12
    assert out["unknown"] == 0.0
    return out


def worth(spot: float, elapsed_s: float) -> float:
    """Black-76 of ten puts sold, the forward at spot and no rates."""
    deviation = 0.7 * np.sqrt((DAYS * 86_400 - elapsed_s) / (365 * 86_400))
    d1 = np.log(spot / 2_000) / deviation + deviation / 2
    return float(-10 * (2_000 * norm.cdf(deviation - d1) - spot * norm.cdf(-d1)))


def test_who_has_his_margin_is_left_alone() -> None:
    found = figures(run(1e5, 0.1, steps=3))
    assert {k for k, v in found.items() if v} == set()


def test_a_bid_is_as_the_auction_says() -> None:
    # Short of the margin and still worth something: the same events by the model alone.
    cash = 1_500.0 - worth(1_800.0, DT)
    own = run(cash, 0.1, bidder_margin=0.0)
    (channel,) = own.channels
    assert isinstance(channel, OptionAccountsChannel)
    model, (account,) = channel.model(), channel.accounts(own.world)
    expiry = DAYS * 86_400
    now = Market(
        timestamp=int(DT),
        underlyings={"ETH": Underlying(spot=1_800.0, expiries={expiry: Expiry(forward=1_800.0)})},
    )
    assert model.method.margin(account, now).equity == pytest.approx(1_500.0)
    state, fee = model.start(now, account)
    view = model.view(now, state)
    _, sold = model.bid(now, state, view.fmax)
    found = figures(own)
    assert 0.0 < view.fmax < 1.0
    assert (found["auctions"], found["bids"], found["insolvent"]) == (1.0, 1.0, 0.0)
    assert found["fees_usd"] == pytest.approx(fee.flows[0].cash)
    assert found["bidder_gain_usd"] == pytest.approx((view.mtm - view.price) * sold.fraction)
    assert sold.positions[0].quantity == pytest.approx(-10.0 * view.fmax)
    # The bidder is short of puts, so long of ether, and sells that much.
    years = (expiry - DT) / (365 * 86_400)
    d1 = np.log(1_800 / 2_000) / (0.7 * np.sqrt(years)) + 0.7 * np.sqrt(years) / 2
    assert found["hedged_usd"] == pytest.approx(10 * view.fmax * norm.cdf(-d1) * 1_800)
    flow = run_paths(own, 1, 0, 1, record=True).series["order_flow"][0, 0, 0]
    assert flow == pytest.approx(-found["hedged_usd"])


def test_bidders_wait_for_the_discount_that_they_want() -> None:
    cash = 1_500.0 - worth(1_800.0, DT)
    # The discount falls from 2 % to 20 % within 100 seconds: five steps.
    early, late = (figures(run(cash, 0.1, steps=2, bidder_margin=m))["bids"] for m in (0.02, 0.1))
    assert (early > 0.0, late) == (True, 0.0)
    assert figures(run(cash, 0.1, steps=6, bidder_margin=0.1))["bids"] > 0.0


@pytest.mark.parametrize(("module", "by_module"), [(0.0, 0.0), (100.0, 100.0), (1e6, np.inf)])
def test_an_insolvent_account_is_paid_for_by_the_module_and_then_by_all(
    module: float, by_module: float
) -> None:
    cash = -1_000.0 - worth(1_400.0, DT)
    found = figures(run(cash, 0.3, steps=60, security_module_usd=module, bidder_margin=0.5))
    assert (found["insolvent"], found["bids"]) == (1.0, 1.0)
    paid = found["paid_by_module_usd"] + found["socialised_usd"]
    # Bidders want half of the hole on top of it, and the payout passes that within a step.
    assert 1_500.0 <= paid < 1_700.0
    assert found["paid_by_module_usd"] == pytest.approx(min(by_module, paid))
    assert found["shortfall_usd"] == 0.0
    waits = figures(run(cash, 0.3, steps=1, security_module_usd=module, bidder_margin=0.5))
    assert waits["shortfall_usd"] == pytest.approx(1_000.0)


def test_what_expires_is_settled_in_cash() -> None:
    found = figures(run(1e5, 0.1, steps=3, days=DT * 2 / 86_400))
    # Ten puts at 2,000 with ether at 1,800.
    assert found["settled_usd"] == pytest.approx(2_000.0)
    assert found["auctions"] == 0.0
    # Two looks come too late for the first step and see the expiry in the fourth.
    again = figures(run(1e5, 0.1, steps=4, days=DT * 3 / 86_400, every_steps=2))
    assert again["settled_usd"] == pytest.approx(2_000.0)
    # Nobody looks after the fourth step: what expires by the fifth is settled at the end.
    last = figures(run(1e5, 0.1, steps=5, days=DT * 4.5 / 86_400, every_steps=2))
    assert last["settled_usd"] == pytest.approx(2_000.0)


def test_paths_of_a_batch_do_not_know_each_other() -> None:
    cash = 1_500.0 - worth(1_800.0, DT)
    own = run(cash, 0.1, steps=8)
    whole = run_paths(own, 1, 0, 3).extra
    for path in range(3):
        alone = run_paths(own, 1, path, 1).extra
        assert all(alone[name][0] == whole[name][path] for name in whole)


def several(seed: int = 5) -> SharedBook:
    """Four wallets with six options each, on ether and on bitcoin in turns; some expire on the way."""
    rng = np.random.default_rng(seed)
    book = one_pair_book([1.0] * 4, [1.0] * 4, price=2_000.0)
    book = replace(book, tokens=(*book.tokens, Token("BTC", 8, 60_000.0)))
    wallet = np.repeat(np.arange(4, dtype=np.int32), 6)
    token = np.where(wallet % 2 == 1, 2, 0).astype(np.int32)
    price = np.where(token == 2, 60_000.0, 2_000.0)
    days = rng.choice([0.03, 7.0, 40.0], 24)
    options = OptionColumns(
        wallet=wallet,
        token=token,
        expiry=days * 86_400.0,
        strike=price * rng.choice([0.9, 1.0, 1.1], 24),
        size=rng.normal(-1.0, 4.0, 24) * np.where(token == 2, 0.05, 1.0),
        volatility=0.5 + 0.01 * days,
        is_call=rng.integers(0, 2, 24).astype(np.int8),
    )
    return replace(book, options=options)


def near_run(
    method: dict[str, Any], *, steps: int = 10, cushion: float = 0.002, bidder_margin: float = 0.1
) -> Run:
    """A run of random prices whose accounts begin with a little more than their maintenance margin."""
    book = several()
    names = [f"w{i}" for i in range(4)]
    bare = OptionAccountsChannel(cash_usd=dict.fromkeys(names, 0.0), method=method)
    world = build_world(book)
    cash = {}
    for held in bare.accounts(world):
        now = _market(world, world.price, 0, [held])
        notional = sum(abs(q.quantity) for q in held.positions) * next(iter(now.underlyings.values())).spot
        cash[held.account] = cushion * notional - bare.model().method.margin(held, now).maintenance
    table = {
        "cash_usd": cash,
        "method": method,
        "security_module_usd": 1e3,
        "bidder_margin": bidder_margin,
    }
    return moving_run(book, {"option_accounts": table}, steps=steps, volatility=1.2, fall=0.05)


@pytest.mark.parametrize(
    "method",
    [
        METHOD,
        {"kind": "derive.pmrm2"},
        {"kind": "derive.srm"},
        DeriveAuction(parameters="test", manager=DerivePmrm()).model_dump(mode="json")
        | {"kind": METHOD["kind"]},
    ],
    ids=["auction", "pmrm2", "srm", "auction of pmrm"],
)
def test_the_screen_changes_no_result(method: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run = near_run(method)
    asked: list[int] = []
    plain = OptionsAccount.status

    def counted(model: OptionsAccount, now: Market, account: Portfolio) -> MarginStatus:
        asked[-1] += 1
        return plain(model, now, account)

    monkeypatch.setattr(OptionsAccount, "status", counted)
    found = []
    for screen in (screen_of, lambda method, account: None):
        monkeypatch.setattr(option_accounts, "screen_of", screen)
        asked.append(0)
        found.append(run_paths(run, 1, 0, 6, record=True))
    for name, values in found[1].extra.items():
        assert np.array_equal(found[0].extra[name], values), name
    for name, values in found[1].series.items():
        assert np.array_equal(found[0].series[name], values), name
    auctions = found[0].extra["option_accounts.auctions"].sum()
    assert auctions > 0
    assert found[0].extra["option_accounts.settled_usd"].sum() > 0
    # Only who is not healthy is asked for; without the screen everybody who is in no auction.
    assert asked[0] == auctions
    assert asked[1] > 3 * asked[0]


def test_what_the_screen_reads_is_what_the_paths_hold() -> None:
    """Through auctions that wait for bidders, bids, and expiries amid an auction."""
    seen: set[tuple[bool, int]] = set()

    def check(batch: Batch) -> None:
        memo = batch.memos["option_accounts"]
        for i, held in enumerate(memo.held):
            accounts = [path.accounts[i] for path in memo.paths]
            assert held.cash.tolist() == [a.cash for a in accounts]
            assert held.amount.tolist() == [[q.quantity for q in a.positions] for a in accounts]
            assert held.busy.tolist() == [i in path.auctions for path in memo.paths]
            seen.update((bool(busy), held.amount.shape[1]) for busy in held.busy)

    for cushion, bidder_margin in ((0.002, 0.1), (-0.02, 0.99)):
        run_paths(near_run(METHOD, cushion=cushion, bidder_margin=bidder_margin), 1, 0, 6, watch=check)
    assert {busy for busy, _ in seen} == {True, False}
    assert len({count for busy, count in seen if busy}) > 1


def test_an_account_whose_options_are_settled_needs_no_underlying() -> None:
    """The method has one underlying; which, the others' options must not leave open."""
    book = several()
    soon = np.where(book.options.wallet == 0, 300.0, 40 * 86_400.0)
    book = replace(book, options=replace(book.options, expiry=soon, volatility=np.full(24, 0.7)))
    for cash, auctions in ((1e6, 0.0), (-1e6, 1.0)):
        table = {"cash_usd": {"w0": cash, "w1": 1e7, "w2": 1e7}, "method": {"kind": "derive.pmrm2"}}
        extra = run_paths(run_of(book, {"option_accounts": table}, steps=2, dt_s=300.0), 1, 0, 1).extra
        assert extra["option_accounts.settled_usd"] >= 0.0
        assert extra["option_accounts.auctions"] == auctions


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"cash_usd": {"w9": 1.0}}, "w9"),
        ({"cash_usd": {"w1": 1.0}}, "w1 holds no options"),
        ({"cash_usd": {}}, "cash_usd"),
        ({"method": {"kind": "derive.auctions"}}, "derive.auction"),
        ({"method": {"kind": "lending.health_factor"}}, "method|lending"),
        ({"bidder_margin": 1.0}, "bidder_margin"),
    ],
)
def test_what_cannot_be_margined_is_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises((InputError, KeyError), match=text):
        run(**{"cash": 1.0, "fall": 0.1, **settings})


def test_the_switch_leaves_accounts_alone() -> None:
    assert all(
        np.isnan(values).all() for values in run_paths(run(0.0, 0.5, on=False), 1, 0, 1).extra.values()
    )
    # Off, nothing is asked of the settings but their form.
    run(0.0, 0.5, on=False, cash_usd={"w9": 1.0})


def test_delta_is_the_slope_of_the_price() -> None:
    call = Position(
        instrument=Option(underlying="ETH", expiry=DAYS * 86_400, strike=2_000.0, call=True),
        quantity=1.0,
        volatility=0.7,
    )
    put = call.model_copy(update={"instrument": call.instrument.model_copy(update={"call": False})})
    slope = (worth(1_801.0, 0.0) - worth(1_799.0, 0.0)) / 2 / -10
    assert delta(put, 1_800.0, 0) == pytest.approx(slope, rel=1e-4)
    assert delta(call, 1_800.0, 0) - delta(put, 1_800.0, 0) == pytest.approx(1.0)
    assert delta(put, 1_800.0, DAYS * 86_400) == 0.0
    assert Portfolio(positions=(call, put)).positions
    assert build_world(puts(1.0)).rows == 2
