"""Morpho Blue without a chain: figures worked out by hand, margin at anybody's prices, plans, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from contracts_abi import morpho_blue as abi
from contracts_abi.calls import Call
from contracts_abi.errors import DataError, InputError
from contracts_abi.liquidator import LIQUIDATE_MORPHO_FLASH, LIQUIDATE_MORPHO_INVENTORY, Venue
from oracle.snapshot import plain_snapshot
from simulation.amm.uniswap_v3 import encode_path
from simulation.chain import revm
from simulation.fixed_point import MAX_UINT256, WAD
from simulation.interfaces import ProtocolAdapter
from simulation.liquidation import PlanSettings, plan_liquidation
from simulation.margin.lending_health_factor import LendingHealthFactor
from simulation.protocols.morpho_blue import (
    AdaptiveCurveIrm,
    FixedRateIrm,
    IrmKind,
    MorphoAccount,
    MorphoMarket,
    accrue,
    liquidate,
    liquidation_incentive_factor,
    liquidation_quote,
    repay,
    supply,
)
from simulation.protocols.morpho_blue.book import screen_rounding
from simulation.protocols.morpho_blue.errors import revert_code
from simulation.protocols.morpho_blue.irm import w_exp
from simulation.protocols.morpho_blue.types import MarketState
from simulation.screen import ScreenStatus, build_screen
from simulation.types import LiquidationPlan, MarginStatus, SwapHop
from tests.lending_model import pool, pools_of
from tests.morpho_irm_cases import KEPT, KEPT_CASES, Asked, Said, asked_of_authors, asked_of_ours, keep, kept
from tests.morpho_states import ACCOUNT, COLLATERAL, LOAN, MORPHO, NOW, PRICE_E36, adapter, market

ETHER = 10**18
USDC = 10**6
YEAR = 31_536_000

# --- factors and rates ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lltv_bps", "factor_wad"),
    [
        (3_850, 1_150_000_000_000_000_000),
        (6_250, 1_126_760_563_380_281_690),
        (7_700, 1_074_113_856_068_743_286),
        (8_600, 1_043_841_336_116_910_229),
        (9_150, 1_026_167_265_264_238_070),
        (9_450, 1_016_776_817_488_561_260),
        (9_650, 1_010_611_419_909_044_972),
        (9_800, 1_006_036_217_303_822_937),
        (0, 1_150_000_000_000_000_000),
    ],
)
def test_the_incentive_is_that_of_the_formula(lltv_bps: int, factor_wad: int) -> None:
    assert liquidation_incentive_factor(lltv_bps * WAD // 10_000) == factor_wad


def mean_and_end(asked: Asked) -> Said:
    start, supplied, borrowed, elapsed_s = asked
    state = MarketState(total_supply_assets_raw=supplied, total_borrow_assets_raw=borrowed)
    mean, after = AdaptiveCurveIrm(start).borrow_rate(state, elapsed_s)
    assert isinstance(after, AdaptiveCurveIrm)
    return mean, after.rate_at_target_wad


def test_the_adaptive_rate_is_what_the_authors_contract_said() -> None:
    cases = list(kept())
    assert len(cases) == KEPT_CASES
    for asked, said in cases:
        assert mean_and_end(asked) == said, asked


@pytest.mark.skipif(not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only")
def test_our_contract_for_local_chains_says_the_same() -> None:
    for asked, said in asked_of_ours(200, seed=2):
        assert mean_and_end(asked) == said, asked


@pytest.mark.skipif(not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only")
def test_the_adaptive_rate_is_what_the_authors_contract_says(tmp_path: Path) -> None:
    for asked, said in asked_of_authors(tmp_path / "new", 2_000, seed=3):
        assert mean_and_end(asked) == said, asked
    assert keep(tmp_path / "kept") == KEPT.read_text(encoding="ascii")


@pytest.mark.parametrize(("borrowed", "times"), [(0, 0.25), (45, 0.625), (90, 1.0), (95, 2.5), (100, 4.0)])
def test_the_curve_goes_from_a_quarter_to_four_times_the_rate_at_target(borrowed: int, times: float) -> None:
    start = 4 * WAD // 100 // YEAR
    mean, _ = mean_and_end((start, 100 * USDC, borrowed * USDC, 0))
    assert mean == pytest.approx(times * start, rel=1e-8)


def test_a_full_market_doubles_its_rate_at_target_in_about_five_days() -> None:
    start = 4 * WAD // 100 // YEAR
    _, end = mean_and_end((start, 100 * USDC, 100 * USDC, 5 * 86_400))
    assert end / start == pytest.approx(2 ** (5 * 50 / 365 / 0.693_147), rel=2e-3)


def test_the_exponential_is_zero_below_its_unit_and_clipped_above() -> None:
    assert w_exp(-42 * WAD) == 0
    assert w_exp(0) == WAD
    assert w_exp(94 * WAD) == w_exp(10**30)
    assert w_exp(WAD) / WAD == pytest.approx(2.718_281_8, rel=1e-2)


def test_interest_is_added_to_both_sides_and_the_fee_in_shares() -> None:
    before = market(1_000 * USDC, 500 * USDC, irm=FixedRateIrm(WAD // 10 // YEAR), timestamp=NOW + YEAR)
    before = replace(before, state=replace(before.state, fee_wad=WAD // 4), fee_recipient=ACCOUNT)
    added = accrue(before)
    # e^0.1 - 1 by three terms is 0.105166..., of 500.
    assert added.interest_raw == 52_583_333
    after = added.market.state
    assert after.total_borrow_assets_raw == 552_583_333
    assert after.total_supply_assets_raw == 1_052_583_333
    worth_raw = added.fee_shares * after.total_supply_assets_raw // after.total_supply_shares
    assert worth_raw == pytest.approx(52_583_333 // 4, abs=1)
    outcome = supply(before, MorphoAccount(ACCOUNT), assets_raw=USDC)
    assert outcome.account_after.supply_shares == outcome.shares + added.fee_shares


# --- liquidation ------------------------------------------------------------------------------------------


def indebted(price_e36: int = 1_000 * 10**24) -> tuple[MorphoMarket, MorphoAccount]:
    """Return a market of one borrower: 1 WETH for 1,000 USDC."""
    return (
        market(5_000 * USDC, 1_000 * USDC, price_e36=price_e36),
        MorphoAccount(ACCOUNT, 0, 1_000 * USDC * 10**6, ETHER),
    )


def test_a_liquidation_in_figures() -> None:
    state, account = indebted(1_100 * 10**24)
    taken = liquidate(state, account, seized_assets_raw=ETHER // 2)
    # 550 USDC less the incentive, which is 1 / 0.958 cut off: what is due comes to a trifle above 526.9.
    assert taken.repaid_assets_raw == 526_900_001
    assert taken.account_after.collateral_raw == ETHER // 2
    assert not taken.full
    assert taken.bad_debt_assets_raw == 0
    whole = liquidate(state, account, repaid_shares=account.borrow_shares)
    assert whole.repaid_assets_raw == 1_000 * USDC
    assert whole.full
    assert whole.seized_assets_raw / ETHER == pytest.approx(1_000 * 1.043_841_336 / 1_100)


def test_debt_without_collateral_is_borne_by_all_suppliers_at_once() -> None:
    state, account = indebted(500 * 10**24)
    taken = liquidate(state, account, seized_assets_raw=ETHER)
    assert taken.repaid_assets_raw == 479_000_001
    assert taken.bad_debt_assets_raw == 520_999_999
    after = taken.market_after.state
    assert (after.total_borrow_assets_raw, after.total_borrow_shares) == (0, 0)
    assert after.total_supply_assets_raw == 5_000 * USDC - 520_999_999
    assert after.total_supply_shares == state.state.total_supply_shares
    assert taken.account_after == MorphoAccount(ACCOUNT)
    assert not taken.full


def test_refusals_carry_the_contracts_words() -> None:
    state, account = indebted()
    assert liquidate(state, account).revert_code == "inconsistent input"
    assert liquidate(state, account, 1, 1).revert_code == "inconsistent input"
    assert liquidate(state, account, 2 * ETHER).revert_code == "Panic(0x11)"
    assert liquidate(replace(state, price_e36=None), account, 1).revert_code == "oracle"
    assert liquidate(replace(state, price_e36=PRICE_E36), account, 1).revert_code == "position is healthy"
    assert liquidate(replace(state, state=MarketState()), account, 1).revert_code == "market not created"
    assert liquidate(replace(state, price_e36=0), account, 0, 1).revert_code == "Panic(0x12)"
    assert supply(state, account, 2**128).revert_code == "max uint128 exceeded"
    assert repay(state, MorphoAccount("0x" + "00" * 20), 1).revert_code == "zero address"
    refused = liquidate(state, account)
    assert not refused.succeeds
    assert (refused.market_after, refused.account_after) == (state, account)


def test_revert_data_becomes_a_code() -> None:
    text = bytes.fromhex("08c379a0") + encode(["string"], ["insufficient liquidity"])
    assert revert_code(text) == "insufficient liquidity"
    assert revert_code(bytes.fromhex("4e487b71") + encode(["uint256"], [0x12])) == "Panic(0x12)"
    assert revert_code(b"") == ""
    assert revert_code(b"\x01\x02") == "0x0102"
    assert revert_code(bytes.fromhex("08c379a0") + b"\xff" * 40).startswith("0x08c379a0ff")


# --- the adapter ------------------------------------------------------------------------------------------


def test_the_id_is_the_hash_of_the_parameters() -> None:
    layout = adapter().layout
    words = b"".join(bytes.fromhex(address[2:]).rjust(32, b"\0") for address in layout.params.words()[:4])
    expected = keccak(words + layout.params.lltv_wad.to_bytes(32))
    assert layout.id_bytes == expected


def test_markets_of_one_contract_do_not_collide() -> None:
    one, other = adapter(), adapter(77 * WAD // 100)
    assert one.name != other.name
    assert one.name == f"morpho-blue:{one.layout.id[2:10]}"
    account = MorphoAccount(ACCOUNT, 0, 10**12, ETHER)
    reports = [a.margin(market(), account, market().prices_base) for a in (one, other)]
    assert {report.protocol for report in reports} == {one.name, other.name}
    assert isinstance(one, ProtocolAdapter)


def answers(calls: Sequence[Call[object]], price: int | None = PRICE_E36) -> list[bytes | None]:
    """Return what a chain would answer to `market_reads`."""
    words = [5_000 * USDC, 5_000 * USDC * 10**6, 1_000 * USDC, 1_000 * USDC * 10**6, NOW - 100, WAD // 10]
    found: list[bytes | None] = [
        encode(["uint128"] * 6, words),
        encode(["address"], [ACCOUNT]),
        None if price is None else encode(["uint256"], [price]),
        encode(["int256"], [10**9]),
    ]
    return found[: len(calls)]


def test_a_market_is_decoded_as_stored_and_brought_up_to_date_when_asked() -> None:
    reader = adapter()
    found = reader.decode_market(answers(reader.market_reads()), block=7, timestamp=NOW)
    assert found.state.last_update == NOW - 100
    assert found.irm == AdaptiveCurveIrm(10**9)
    assert (found.block, found.timestamp, found.fee_recipient.lower()) == (7, NOW, ACCOUNT.lower())
    assert reader.flash_loan_limit(found, LOAN.address.upper().replace("X", "x")) == MAX_UINT256
    assert reader.flash_loan_limit(found, COLLATERAL.address) == 0
    assert reader.flash_loan_premium(found, 10**9) == 0
    assert accrue(found).market.state.last_update == NOW
    # Interest for two stretches is not that for their sum: a projection leaves the stored state alone.
    assert reader.project(reader.project(found, NOW + 10), NOW + 500) == reader.project(found, NOW + 500)


def test_an_oracle_that_reverts_leaves_the_price_unknown() -> None:
    reader = adapter()
    found = reader.decode_market(answers(reader.market_reads(), None), block=7, timestamp=NOW)
    assert found.price_e36 is None
    assert found.prices_base == {"USDC": 10**24}
    report = reader.margin(found, MorphoAccount(ACCOUNT, 0, 10**12, ETHER), found.prices_base)
    assert report.status is MarginStatus.UNKNOWN
    assert report.reason == "no price for WETH"
    nothing = reader.margin(found, MorphoAccount(ACCOUNT), found.prices_base)
    assert nothing.status is MarginStatus.NO_DEBT


def test_answers_that_are_missing_are_one_line() -> None:
    reader = adapter()
    good = answers(reader.market_reads())
    for broken, says in (
        (good[:-1], "3 answers for 4 market reads"),
        ([None, *good[1:]], r"read morpho\.market failed"),
        ([*good[:3], None], r"read irm\.rateAtTarget failed"),
        ([encode(["uint128"] * 6, [0] * 6), *good[1:]], "was not created"),
    ):
        with pytest.raises(DataError, match=says):
            reader.decode_market(broken, block=1, timestamp=NOW)
    with pytest.raises(DataError, match="1 answers for 2 accounts"):
        reader.decode_accounts(market(), [ACCOUNT, MORPHO], [b""])
    assert len(adapter(kind=IrmKind.NONE).market_reads()) == 3


def test_margin_is_in_loan_tokens_at_the_oracles_scale() -> None:
    state, account = indebted(1_100 * 10**24)
    report = adapter().margin(state, account, state.prices_base)
    assert report.base_decimals == state.base_decimals == 24
    assert report.collateral_base == 1_100 * 10**24
    assert report.debt_base == 1_000 * 10**24
    assert report.maintenance_base == report.initial_base == 154 * 10**24
    assert report.health_factor_wad == 946 * WAD // 1_000
    assert report.status is MarginStatus.LIQUIDATABLE
    assert report.components["max_borrow_raw"] == 946 * USDC


def test_only_the_ratio_of_prices_counts() -> None:
    state, account = indebted(1_100 * 10**24)
    own = adapter().margin(state, account, state.prices_base)
    elsewhere = {"USDC": 10**8 * 10**16, "WETH": 1_100 * 10**8 * 10**16}
    assert adapter().margin(replace(state, price_e36=1), account, elsewhere) == own
    depegged = adapter().margin(state, account, elsewhere | {"USDC": 8 * 10**23})
    assert depegged.collateral_base == 1_375 * 10**24
    assert depegged.status is MarginStatus.HEALTHY
    for missing in ({"WETH": 1}, {"USDC": 1}, {"USDC": 0, "WETH": 1}):
        assert adapter().margin(state, account, missing).status is MarginStatus.UNKNOWN


def test_a_book_carries_the_market_and_what_counts() -> None:
    state, account = indebted()
    reader = adapter()
    words = encode(["uint256", "uint128", "uint128"], [0, account.borrow_shares, account.collateral_raw])
    lender = encode(["uint256", "uint128", "uint128"], [10**15, 0, 0])
    names = [ACCOUNT, MORPHO, LOAN.address]
    assert [c.to for c in reader.account_reads(names)] == [MORPHO] * 3
    book = reader.decode_accounts(state, names, [words, None, lender])
    assert book.protocols == (reader.name,)
    assert book.exact == (account, None, MorphoAccount(LOAN.address, 10**15))
    assert book.known.tolist() == [True, False, True]
    assert book.row_ptr.tolist() == [0, 2, 2, 2]
    assert book.amount.tolist() == [1.0, 1_000.0]
    assert book.weight.tolist() == [0.86, 1.0]
    method = LendingHealthFactor(reader, state)
    prices = plain_snapshot("protocol", "USDC", state.prices_base, 24, block=1, timestamp=NOW)
    assert method.report(book, 0, prices) == reader.margin(state, account, state.prices_base)
    assert method.report(book, 1, prices).status is MarginStatus.UNKNOWN
    assert method.report(book, 2, prices).status is MarginStatus.NO_DEBT


def test_only_borrow_logs_of_its_own_market_concern_it() -> None:
    reader = adapter()
    (borrow,) = reader.discovery_events()
    data = encode(["address", "uint256", "uint256"], [MORPHO, 1, 2])
    indexed = [bytes(12) + bytes.fromhex(address[2:]) for address in (ACCOUNT, MORPHO)]
    topics = [borrow.topic, reader.layout.id_bytes, *indexed]
    assert str(reader.discovered(topics, data)).lower() == ACCOUNT.lower()
    assert adapter(77 * WAD // 100).discovered(topics, data) is None
    assert reader.discovered([abi.LIQUIDATE_EVENT.topic, *topics[1:]], data) is None
    assert reader.discovered([], b"") is None


# --- plans ------------------------------------------------------------------------------------------------


def test_the_planner_finds_what_pays() -> None:
    # Its pools know a WETH at 100 USDC: ten of them carry 860, and 900 are owed.
    state = market(5_000 * USDC, 900 * USDC, price_e36=100 * 10**24)
    account = MorphoAccount(ACCOUNT, 0, 900 * USDC * 10**6, 10 * ETHER)
    prices = plain_snapshot("protocol", "USDC", state.prices_base, 24, block=1, timestamp=NOW)
    plan = plan_liquidation(
        adapter(),
        state,
        account,
        pools_of(pool(COLLATERAL.address, LOAN.address, depth_usd=20_000_000)),
        prices,
        PlanSettings(gas_price_wei=10**8, native_asset=COLLATERAL.address),
    )
    assert isinstance(plan, LiquidationPlan), plan
    assert plan.protocol == adapter().name
    assert plan.flash_premium_raw == 0
    # What our Liquidator needs on Morpho, and a pool; a setting of the operator's counts more.
    assert plan.gas_units == 240_000 + 100_000
    assert plan.seized_raw / ETHER == pytest.approx(9 * 1.043_841_336, rel=1e-6)
    assert 37 * USDC < plan.profit_raw < 40 * USDC


def test_a_quote_is_the_call_that_is_made() -> None:
    state, account = indebted(1_100 * 10**24)
    pair = LOAN.address, COLLATERAL.address
    assert adapter().liquidation_pairs(state, account) == (pair,)
    assert adapter().liquidation_pairs(state, MorphoAccount(ACCOUNT, 5, 0, 5)) == ()
    # All of the debt by its shares, less of it by the collateral that it gives.
    everything = adapter().liquidation_quote(state, account, *pair, MAX_UINT256)
    assert everything.debt_repaid_raw <= 1_000 * USDC
    assert everything == liquidate(state, account, repaid_shares=account.borrow_shares)
    assert everything.full
    one_less = adapter().liquidation_quote(state, account, *pair, everything.debt_repaid_raw - 1)
    assert one_less == liquidate(state, account, seized_assets_raw=one_less.to_liquidator_raw)
    assert not one_less.full
    half = adapter().liquidation_quote(state, account, *pair, 500 * USDC)
    assert 500 * USDC - 1 <= half.debt_repaid_raw <= 500 * USDC
    assert liquidation_quote(state, replace(account, borrow_shares=0), 1).revert_code == "inconsistent input"
    with pytest.raises(InputError, match=r"lends USDC for WETH, not 0x0+e0 for 0x0+50"):
        adapter().liquidation_quote(state, account, *reversed(pair), 1)


def test_a_call_takes_what_was_planned_or_repays_every_share() -> None:
    state, account = indebted(1_100 * 10**24)
    quote = adapter().liquidation_quote(state, account, LOAN.address, COLLATERAL.address, 500 * USDC)
    plan = LiquidationPlan(
        account=ACCOUNT,
        protocol=adapter().name,
        debt_asset=LOAN.address,
        collateral_asset=COLLATERAL.address,
        debt_to_cover_raw=quote.debt_repaid_raw,
        seized_raw=quote.to_liquidator_raw,
        full=False,
        path=(),
        flash_premium_raw=0,
        proceeds_raw=0,
        profit_raw=0,
        gas_units=0,
        gas_cost_raw=0,
        min_profit_raw=0,
        impact_bps=0,
    )
    call = adapter().liquidation_call(plan)
    _, borrower, seized_raw, shares, data = abi.LIQUIDATE.decode_inputs(call.data)
    assert (call.to, borrower.lower(), seized_raw, shares, data) == (
        MORPHO,
        ACCOUNT.lower(),
        quote.to_liquidator_raw,
        0,
        b"",
    )
    by_shares = adapter().liquidation_call(plan, repaid_shares=account.borrow_shares)
    assert abi.LIQUIDATE.decode_inputs(by_shares.data)[2:4] == (0, account.borrow_shares)
    with pytest.raises(InputError, match="must be positive"):
        adapter().liquidation_call(replace(plan, seized_raw=0))
    with pytest.raises(InputError, match="not 0x"):
        adapter().liquidation_call(replace(plan, debt_asset=COLLATERAL.address))


def test_our_liquidator_is_told_the_market_the_collateral_and_whether_it_is_all_of_the_debt() -> None:
    plan = LiquidationPlan(
        account=ACCOUNT,
        protocol=adapter().name,
        debt_asset=LOAN.address,
        collateral_asset=COLLATERAL.address,
        debt_to_cover_raw=1_000 * USDC + 1,
        seized_raw=10**18,
        full=True,
        path=(SwapHop("0x" + "f0" * 20, COLLATERAL.address, LOAN.address, 500),),
        flash_premium_raw=0,
        proceeds_raw=0,
        profit_raw=0,
        gas_units=0,
        gas_cost_raw=0,
        min_profit_raw=77,
        impact_bps=0,
    )
    intent = b"\7" * 32
    told = LIQUIDATE_MORPHO_FLASH.decode_inputs(
        adapter().liquidator_calldata(plan, intent_id=intent, deadline_block=9)
    )
    words = tuple(w.lower() if isinstance(w, str) else w for w in adapter().layout.params.words())
    assert (told[0], tuple(told[1]), told[2].lower()) == (intent, words, ACCOUNT.lower())
    assert told[3:] == (10**18, True, encode_path(plan.path), 77, 9)

    kept = replace(plan, from_inventory=True, path=())
    for full, most_raw in ((True, 1_000 * USDC + 1 + 100_001), (False, 1_000 * USDC + 1)):
        told = LIQUIDATE_MORPHO_INVENTORY.decode_inputs(
            adapter().liquidator_calldata(replace(kept, full=full), intent_id=intent, deadline_block=9)
        )
        # Interest until it runs, where the debt is asked for by its shares.
        assert told[3:] == (10**18, full, most_raw, 99 * 10**16, 9)
    other = replace(plan, debt_asset=COLLATERAL.address)
    with pytest.raises(InputError, match="not 0x"):
        adapter().liquidator_calldata(other, intent_id=intent, deadline_block=9)
    assert adapter().venue == Venue(MORPHO, adapter().layout.id_bytes)


def test_the_screen_never_says_otherwise_than_the_contract() -> None:
    state, account = indebted()
    threshold = 1_000 * USDC * 10**36 * WAD // (ETHER * 86 * WAD // 100) + 1
    rounding = screen_rounding(state)
    for offset in (-(10**22), -1, 0, 1, 10**22):
        priced = replace(state, price_e36=threshold + offset)
        words = encode(["uint256", "uint128", "uint128"], [0, account.borrow_shares, account.collateral_raw])
        book = adapter().decode_accounts(priced, [ACCOUNT], [words])
        prices = [1.0, (threshold + offset) / 10**24]
        said = ScreenStatus(build_screen(book, rounding).run(prices).by_row()[1][0])
        exact = adapter().margin(priced, account, priced.prices_base).status
        if said is not ScreenStatus.NEAR:
            assert said.name.lower() == exact.value
