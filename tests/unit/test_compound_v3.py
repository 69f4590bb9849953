"""Compound III worked by hand, and what its adapter reads and refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from eth_abi.abi import encode

from contracts_abi import compound_v3 as abi
from contracts_abi.errors import DataError, InputError
from simulation.fixed_point import MAX_UINT256, WAD
from simulation.protocols import protocols
from simulation.protocols.compound_v3 import (
    CometAccount,
    CometLayout,
    CometMarket,
    CompoundV3,
    Pause,
    absorb,
    accrue,
    buy_collateral,
    get_collateral_reserves,
    get_reserves,
    get_utilization,
    is_borrow_collateralized,
    is_liquidatable,
    project,
    quote_collateral,
    supply,
    withdraw,
)
from simulation.protocols.compound_v3.comet import get_borrow_rate, get_supply_rate
from simulation.protocols.compound_v3.errors import CometRevert, revert_code
from simulation.types import MarginStatus, PositionKind
from tests.command_line import Inside
from tests.compound_v3_states import (
    ACCOUNT,
    ASSETS,
    COMET,
    E8,
    FEEDS,
    NOW,
    OTHER,
    PARAMS,
    USDC,
    WBTC,
    WETH,
    account,
    market,
)

USD_RAW = 10**6
ETHER = 10**18
ADAPTER = CompoundV3(CometLayout(COMET, USDC, FEEDS[0], (WETH, WBTC), FEEDS[1:]))


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    monkeypatch.setenv("COLUMNS", "110")
    return Inside(monkeypatch, capsys)


# --- interest ---------------------------------------------------------------------------------------------


def test_rates_bend_at_the_kink() -> None:
    # 15, 35 and 250 thousandths a year, by the second and rounded down: 475646879, 1109842719, 7927447995.
    assert get_borrow_rate(PARAMS, 0) == 475_646_879
    assert get_borrow_rate(PARAMS, 8 * WAD // 10) == 475_646_879 + 887_874_175
    assert get_borrow_rate(PARAMS, 9 * WAD // 10) == 475_646_879 + 887_874_175 + 792_744_799
    assert get_supply_rate(PARAMS, 0) == 0


def test_interest_is_simple_at_the_rate_after_the_last_accrual() -> None:
    state = market(account(500_000 * USD_RAW))
    assert get_utilization(state) == WAD // 2
    later = accrue(project(state, NOW + 1_000))
    rate = 475_646_879 + 1_109_842_719 // 2
    assert later.totals.base_borrow_index == 10**15 + 10**15 * (rate * 1_000) // WAD
    assert later.totals.last_accrual_time == NOW + 1_000
    assert accrue(later) == later


def test_reserves_are_held_and_owed_less_lent() -> None:
    state = market(account(500_000 * USD_RAW), base_held_raw=600_000 * USD_RAW)
    assert get_reserves(state) == 100_000 * USD_RAW
    # Borrowers pay more than lenders get at this utilisation.
    assert get_reserves(project(state, NOW + 86_400)) > 100_000 * USD_RAW


# --- health -----------------------------------------------------------------------------------------------


def test_an_account_may_be_absorbed_strictly_below_its_limit() -> None:
    # A WETH of 2,000 USD carries 1,790 USD, and a new debt of 1,650.
    for owed_usd, liquidatable, borrows in ((1_650, False, True), (1_790, False, False)):
        debtor = account(owed_usd * USD_RAW, ETHER)
        assert is_liquidatable(market(debtor), debtor) is liquidatable
        assert is_borrow_collateralized(market(debtor), debtor) is borrows
    debtor = account(1_790 * USD_RAW + 1, ETHER)
    assert is_liquidatable(market(debtor), debtor)


def test_a_broken_feed_behind_what_is_enough_is_never_asked() -> None:
    debtor = account(1_000 * USD_RAW, ETHER, 10**8)
    for answer in (None, 0, -5):
        enough = market(debtor, prices_e8=(2_000 * E8, answer))
        assert not is_liquidatable(enough, debtor)
        with pytest.raises(CometRevert):
            is_liquidatable(market(debtor, prices_e8=(1_000 * E8, answer)), debtor)
        # What the contract does not ask, nobody vouches for either.
        report = ADAPTER.margin(enough, debtor, enough.prices_base)
        assert (report.status, report.reason) == (MarginStatus.UNKNOWN, "no price for WBTC")


def test_the_view_leaves_out_interest_that_absorb_adds() -> None:
    debtor = account(1_790 * USD_RAW, ETHER)
    state = market(debtor, timestamp=NOW + 3_600)
    assert not is_liquidatable(state, debtor)
    assert absorb(state, [debtor]).succeeds
    assert ADAPTER.margin(state, debtor, state.prices_base).status is MarginStatus.LIQUIDATABLE


# --- absorbing --------------------------------------------------------------------------------------------


def test_what_an_account_is_credited_beyond_its_debt_stays_its_own() -> None:
    # 2,000 USD seized, 1,900 credited.
    debtor = account(1_800 * USD_RAW, ETHER)
    outcome = absorb(market(debtor), [debtor])
    (done,) = outcome.absorptions
    assert outcome.accounts_after == (CometAccount(ACCOUNT, 100 * USD_RAW, 0, (0, 0)),)
    assert (done.base_paid_out_raw, done.shortfall_raw, done.bad_debt_e8) == (1_900 * USD_RAW, 0, 0)
    totals = outcome.market_after.totals
    assert (totals.total_borrow_base, totals.total_supply_base) == (0, 10**12 + 100 * USD_RAW)
    assert get_collateral_reserves(outcome.market_after, WETH.address) == ETHER
    assert get_reserves(outcome.market_after) == -1_900 * USD_RAW


def test_reserves_bear_what_the_credit_does_not_cover() -> None:
    debtor = account(2_300 * USD_RAW, ETHER)
    outcome = absorb(market(debtor), [debtor])
    (done,) = outcome.absorptions
    assert outcome.accounts_after[0].principal == 0
    assert (done.seized_raw, done.seized_e8, done.credit_e8) == ((ETHER, 0), (2_000 * E8, 0), 1_900 * E8)
    assert (done.shortfall_raw, done.bad_debt_e8) == (400 * USD_RAW, 300 * E8)
    assert get_reserves(outcome.market_after) == -2_300 * USD_RAW


def test_one_healthy_account_spares_all() -> None:
    bad, good = account(1_800 * USD_RAW, ETHER), account(1_000 * USD_RAW, ETHER, name=OTHER)
    state = market(bad, good)
    outcome = absorb(state, [bad, good])
    assert (outcome.revert_code, outcome.market_after, outcome.absorptions) == ("NotLiquidatable", state, ())
    assert absorb(state, [bad], order=[ACCOUNT, ACCOUNT]).revert_code == "NotLiquidatable"
    worse = account(1_900 * USD_RAW, ETHER, name=OTHER)
    both = absorb(market(bad, worse), [bad, worse])
    assert [done.account for done in both.absorptions] == [ACCOUNT, OTHER]


def test_what_is_paused_reverts() -> None:
    debtor = account(1_800 * USD_RAW, ETHER)
    state = market(debtor)
    stopped = replace(state, totals=replace(state.totals, pause_flags=int(Pause.ABSORB | Pause.BUY)))
    assert absorb(stopped, [debtor]).revert_code == "Paused"
    assert buy_collateral(stopped, WETH.address, 1).revert_code == "Paused"
    assert supply(stopped, debtor, USDC.address, 1).succeeds


# --- selling ----------------------------------------------------------------------------------------------


def test_buyers_get_half_of_the_penalty() -> None:
    # 2,000 USD less 2.5%: a WETH for 1,950 USDC.
    state = market(collateral_held_raw=(ETHER, 0))
    assert quote_collateral(state, WETH.address, 1_950 * USD_RAW) == ETHER
    bought = buy_collateral(state, WETH.address, 1_950 * USD_RAW, min_amount_raw=ETHER)
    assert (bought.revert_code, bought.collateral_amount_raw) == (None, ETHER)
    assert get_collateral_reserves(bought.market_after, WETH.address) == 0
    assert get_reserves(bought.market_after) == 1_950 * USD_RAW
    for amount_raw, least_raw, code in (
        (1_950 * USD_RAW, ETHER + 1, "TooMuchSlippage"),
        (1_951 * USD_RAW, 0, "InsufficientReserves"),
    ):
        refused = buy_collateral(state, WETH.address, amount_raw, min_amount_raw=least_raw)
        assert (refused.revert_code, refused.market_after) == (code, state)
    assert buy_collateral(state, USDC.address, 1).revert_code == "BadAsset"


def test_nothing_is_sold_from_the_target_on() -> None:
    held = {"collateral_held_raw": (ETHER, 0)}
    target = PARAMS.target_reserves_raw
    assert buy_collateral(market(base_held_raw=10**12 + target, **held), WETH.address, 1).revert_code == (
        "NotForSale"
    )
    assert buy_collateral(market(base_held_raw=10**12 + target - 1, **held), WETH.address, 1).succeeds


# --- paying in and out ------------------------------------------------------------------------------------


def test_withdrawing_borrows_within_the_rules() -> None:
    owner = account(0, ETHER)
    state = market(owner)
    for amount_raw, code in (
        (1_650 * USD_RAW, None),
        (1_650 * USD_RAW + 1, "NotCollateralized"),
        (100 * USD_RAW - 1, "BorrowTooSmall"),
        (10**12 + 1, "NotCollateralized"),
        (2**255, "InvalidInt256"),
    ):
        assert withdraw(state, owner, USDC.address, amount_raw).revert_code == code, amount_raw
    assert withdraw(state, owner, USDC.address, 200 * USD_RAW, authorized=False).revert_code == "Unauthorized"
    assert withdraw(state, owner, WETH.address, ETHER + 1).revert_code == "Panic(0x11)"
    assert supply(state, owner, WETH.address, 10**24).revert_code == "SupplyCapExceeded"


def test_all_that_is_owed_is_paid_with_the_greatest_number() -> None:
    debtor = account(1_000 * USD_RAW, ETHER)
    state = market(debtor, timestamp=NOW + 86_400)
    paid = supply(state, debtor, USDC.address, MAX_UINT256)
    assert paid.succeeds
    assert paid.amount_raw > 1_000 * USD_RAW
    assert paid.account_after.principal == 0


# --- errors -----------------------------------------------------------------------------------------------


def test_revert_data_is_told_by_name() -> None:
    for name in ("NotLiquidatable", "NotForSale", "TooMuchSlippage"):
        assert revert_code(abi_selector(name)) == name
    assert revert_code(bytes.fromhex("4e487b71") + encode(["uint256"], [0x11])) == "Panic(0x11)"
    assert revert_code(bytes.fromhex("08c379a0") + encode(["string"], ["no"])) == "token"
    assert revert_code(b"") == ""
    assert revert_code(b"\x01\x02") == "0x0102"


def abi_selector(name: str) -> bytes:
    from contracts_abi.calls import function

    return function(f"{name}()").encode()[:4]


# --- the adapter ------------------------------------------------------------------------------------------


def answers(state: CometMarket) -> list[bytes | None]:
    """Return what a node would answer to the adapter's reads of a market."""
    params, totals = state.params, state.totals
    words = []
    for bent in (params.supply_curve, params.borrow_curve):
        words += [bent.kink_wad, bent.base_wad, bent.slope_low_wad, bent.slope_high_wad]
    words += [params.store_front_price_factor_wad, params.base_borrow_min_raw, params.target_reserves_raw]
    words += [params.tracking_supply_speed, params.tracking_borrow_speed, params.base_min_for_rewards_raw]
    words.append(len(params.assets))
    said: list[bytes | None] = [encode(["uint256"], [word]) for word in words]
    said.append(
        encode(
            ["uint64"] * 4 + ["uint104"] * 2 + ["uint40", "uint8"],
            [
                *(totals.base_supply_index, totals.base_borrow_index),
                *(totals.tracking_supply_index, totals.tracking_borrow_index),
                *(totals.total_supply_base, totals.total_borrow_base),
                *(totals.last_accrual_time, totals.pause_flags),
            ],
        )
    )
    said += [encode(["uint256"], [state.base_held_raw]), round_of(state.base_price_e8)]
    for i, info in enumerate(params.assets):
        factors = (
            info.borrow_collateral_factor_wad,
            info.liquidate_collateral_factor_wad,
            info.liquidation_factor_wad,
        )
        said += [
            encode(
                ["uint8", "address", "address", *["uint64"] * 4, "uint128"],
                [i, info.asset.address, info.price_feed, info.scale, *factors, info.supply_cap_raw],
            ),
            encode(["uint128"] * 2, [state.total_collateral_raw[i], 0]),
            encode(["uint256"], [state.collateral_held_raw[i]]),
            round_of(state.prices_e8[i]),
        ]
    return said


def round_of(price_e8: int | None) -> bytes | None:
    if price_e8 is None:
        return None
    return encode(["uint80", "int256", "uint256", "uint256", "uint80"], [1, price_e8, 0, 0, 1])


@pytest.mark.parametrize("prices_e8", [(2_000 * E8, 40_000 * E8), (None, 40_000 * E8), (-3, 0)])
def test_a_market_is_read_as_it_stands(prices_e8: tuple[int | None, ...]) -> None:
    state = market(account(10**9, ETHER, 7), prices_e8=prices_e8)
    assert ADAPTER.decode_market(answers(state), block=1, timestamp=NOW) == state


def test_a_market_that_an_upgrade_changed_is_refused() -> None:
    said = answers(market())
    with pytest.raises(DataError, match=r"read comet\.supplyKink failed"):
        ADAPTER.decode_market([None, *said[1:]], block=1, timestamp=NOW)
    with pytest.raises(DataError, match="answers for"):
        ADAPTER.decode_market(said[1:], block=1, timestamp=NOW)
    swapped = replace(PARAMS, assets=(replace(ASSETS[0], price_feed=FEEDS[0]), ASSETS[1]))
    with pytest.raises(DataError, match="has changed its asset 0, WETH; lay it out again"):
        ADAPTER.decode_market(answers(market(params=swapped)), block=1, timestamp=NOW)
    fewer = [*said[:14], encode(["uint256"], [1]), *said[15:]]
    with pytest.raises(DataError, match="lists 1 assets, not 2; lay it out again"):
        ADAPTER.decode_market(fewer, block=1, timestamp=NOW)


def basic(principal: int, assets_in: int) -> bytes:
    return encode(["int104", "uint64", "uint64", "uint16", "uint8"], [principal, 0, 0, assets_in, 0])


def balance(raw: int) -> bytes:
    return encode(["uint128"] * 2, [raw, 0])


def test_an_account_of_which_a_read_failed_is_unknown() -> None:
    said = [basic(-(10**9), 1), balance(ETHER), balance(0), basic(5, 2), balance(0), None]
    book = ADAPTER.decode_accounts(market(account(10**9, ETHER)), [ACCOUNT, OTHER], said)
    assert book.exact == (account(10**9, ETHER), None)
    assert book.known.tolist() == [True, False]
    assert book.row_ptr.tolist() == [0, 2, 2]
    assert book.kind.tolist() == [PositionKind.COLLATERAL, PositionKind.DEBT]
    assert book.amount.tolist() == [1.0, 1_000.0]
    assert np.allclose(book.weight, [0.895, 1.0])
    assert [a.symbol for a in book.assets] == ["USDC", "WETH", "WBTC"]
    with pytest.raises(DataError, match="5 answers for 2 accounts of 3 reads"):
        ADAPTER.decode_accounts(market(), [ACCOUNT, OTHER], said[:5])


def test_a_margin_has_the_contracts_figures() -> None:
    debtor = account(1_790 * USD_RAW, ETHER)
    report = ADAPTER.margin(market(debtor), debtor, market(debtor).prices_base)
    assert (report.collateral_base, report.debt_base) == (2_000 * E8, 1_790 * E8)
    assert (report.maintenance_base, report.initial_base) == (210 * E8, 350 * E8)
    assert (report.status, report.health_factor_wad) == (MarginStatus.HEALTHY, WAD)
    assert report.components["borrow_liquidity_e8"] == -140 * E8
    lower = ADAPTER.margin(market(debtor), debtor, {"USDC": E8, "WETH": 1_999 * E8})
    assert lower.status is MarginStatus.LIQUIDATABLE
    assert lower.health_factor_wad is not None
    assert lower.health_factor_wad < WAD
    assert ADAPTER.margin(market(), account(0, ETHER), {"WETH": E8}).status is MarginStatus.NO_DEBT
    assert ADAPTER.margin(market(debtor), debtor, {"WETH": E8}).reason == "no price for USDC"


def test_borrowers_are_found_by_their_collateral() -> None:
    def topics(event: Any, *addresses: str) -> list[bytes]:
        return [event.topic, *(bytes(12) + bytes.fromhex(a[2:]) for a in addresses)]

    amount = encode(["uint256"], [1])
    for event in ADAPTER.discovery_events():
        found = ADAPTER.discovered(topics(event, OTHER, ACCOUNT, WETH.address), amount)
        assert found is not None
        assert found.lower() == ACCOUNT.lower()
    assert ADAPTER.discovered(topics(abi.BUY_COLLATERAL_EVENT, OTHER, WETH.address), amount) is None
    assert ADAPTER.discovered([], b"") is None


def test_the_call_absorbs_whom_it_names() -> None:
    call = ADAPTER.absorb_call([ACCOUNT, OTHER])
    assert call.to == COMET
    assert call.data == abi.ABSORB.encode("0x" + "00" * 20, [ACCOUNT, OTHER])
    with pytest.raises(InputError, match="absorb of no accounts; name at least one"):
        ADAPTER.absorb_call([])
    assert (
        ADAPTER.buy_call(WETH.address, 1, 2, OTHER).data[:4]
        == abi.BUY_COLLATERAL.encode(WETH.address, 1, 2, OTHER)[:4]
    )


def test_nobody_earns_by_absorbing() -> None:
    debtor = account(1_800 * USD_RAW, ETHER)
    assert ADAPTER.liquidation_pairs(market(debtor), debtor) == ()
    quote = ADAPTER.liquidation_quote(market(debtor), debtor, USDC.address, WETH.address, 1)
    assert (quote.succeeds, quote.to_liquidator_raw, quote.debt_repaid_raw) == (True, 0, 0)
    assert ADAPTER.flash_loan_limit(market(debtor), USDC.address) == 0
    assert "base tokens" in CompoundV3.no_keeper


def test_the_kind_is_registered() -> None:
    assert protocols.get("compound-v3") is CompoundV3
    assert ADAPTER.name == "compound-v3:c0c0c0c0"


def test_a_keeper_of_it_is_refused_in_one_line(inside: Inside, tmp_path: Any) -> None:
    config = tmp_path / "keeper.toml"
    config.write_text(
        'chain_id = 31337\n[rpc]\nurl = "http://127.0.0.1:9"\n'
        f'[[protocols]]\nkind = "compound-v3"\nprovider = "{COMET.lower()}"\n',
        encoding="utf-8",
    )
    line = inside("keeper", "run", "--config", str(config)).line()
    assert line.startswith("protocols.0")
    assert "compound-v3" in line
    assert "no keeper" in line
