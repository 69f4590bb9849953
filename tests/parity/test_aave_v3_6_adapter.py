"""The adapter of Aave V3.6 on a seeded book: three ways of reading, one answer, and that the contract's."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from contracts_abi import aave_v3 as abi
from contracts_abi.calls import function
from contracts_abi.errors import DataError
from simulation.chain import revm
from simulation.chain.artifacts import own
from simulation.chain.evm import read, transact
from simulation.chain.solc import is_compiled
from simulation.fixed_point import WAD
from simulation.protocols.aave_v3_6 import AaveV36
from simulation.types import MarginStatus
from tests.parity.crash import OWNER, V3_6, Crash

pytestmark = [
    pytest.mark.chain,
    pytest.mark.skipif(not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"),
    pytest.mark.skipif(
        not is_compiled("aave-v3.6") and shutil.which("node") is None,
        reason="Aave V3.6 is not compiled, and Node.js is not on PATH",
    ),
]

SET_RESERVE_FLASH_LOANING = function("setReserveFlashLoaning(address,bool)")


@pytest.fixture(scope="module")
def crash() -> Crash:
    return Crash(accounts=80, seed=4, version=V3_6)


def test_lens_multicall_and_single_reads_agree(crash: Crash) -> None:
    layout = crash.adapter.layout
    lens = crash.evm.create(OWNER, own("AccountLens").creation_code())
    market, names = crash.read_market(), [account.address for account in crash.book]
    books = []
    for changed in (
        layout,
        replace(layout, lens=lens),
        replace(layout, multicall=crash.deployment.multicall),
    ):
        adapter = AaveV36(changed, account_data=True, accounts_per_call=33)
        answers = crash.ask(adapter.account_reads(names))
        books.append(adapter.decode_accounts(market, names, answers))
    first = books[0]
    assert first.known.all()
    for book in books[1:]:
        assert list(book.exact) == list(first.exact)
        for column in ("row_ptr", "asset", "kind", "amount", "weight", "known"):
            np.testing.assert_array_equal(getattr(book, column), getattr(first, column))


def test_margin_is_what_the_contract_answers(crash: Crash) -> None:
    market = crash.adapter.project(crash.read_market(), crash.evm.timestamp())
    book = crash.read_book(market)
    statuses = set()
    for account in book.exact:
        assert account is not None
        words = read(crash.evm, abi.GET_USER_ACCOUNT_DATA.call(crash.deployment.pool, account.account))
        assert crash.adapter.user_account_data(market, account).words() == words
        report = crash.adapter.margin(market, account, market.prices_base)
        assert (report.collateral_base, report.debt_base, report.health_factor_wad) == (
            words[0],
            words[1],
            words[5],
        )
        assert (report.status is MarginStatus.LIQUIDATABLE) is (words[5] < WAD)
        assert report.method == "aave-v3.6.health_factor"
        statuses.add(report.status)
    assert {MarginStatus.LIQUIDATABLE, MarginStatus.HEALTHY} <= statuses

    account = book.exact[0]
    assert account is not None
    unknown = crash.adapter.margin(market, account, {})
    assert unknown.status is MarginStatus.UNKNOWN
    assert unknown.reason is not None
    assert "no price for" in unknown.reason


def test_flash_loans_are_limited_to_what_the_pool_accounts_for(crash: Crash) -> None:
    snapshot = crash.evm.snapshot()
    usdc = crash.deployment.asset("USDC")
    market = crash.read_market()
    limit = crash.adapter.flash_loan_limit(market, usdc.address)
    assert 0 < limit == read(crash.evm, abi.BALANCE_OF.call(usdc.address, usdc.a_token))
    # Tokens sent to the aToken are not lent.
    transact(crash.evm, OWNER, usdc.address, function("mint(address,uint256)(bool)"), usdc.a_token, 10**12)
    assert crash.adapter.flash_loan_limit(crash.read_market(), usdc.address) == limit
    assert crash.adapter.flash_loan_premium(market, 1) == 1
    assert crash.adapter.flash_loan_limit(market, "0x" + "11" * 20) == 0
    deployed = crash.deployment
    transact(
        crash.evm,
        deployed.deployer,
        deployed.configurator,
        SET_RESERVE_FLASH_LOANING,
        usdc.address,
        False,
    )
    assert crash.adapter.flash_loan_limit(crash.read_market(), usdc.address) == 0
    crash.evm.revert(snapshot)


def test_a_market_that_was_changed_is_not_decoded(crash: Crash) -> None:
    layout = crash.adapter.layout
    answers = crash.ask(crash.adapter.market_reads())
    for changed, says in (
        (replace(layout, oracle=layout.pool), "oracle is"),
        (replace(layout, reserves=layout.reserves[::-1]), "other tokens"),
        (replace(layout, reserves=layout.reserves[:-1]), "answers for"),
    ):
        with pytest.raises(DataError, match=says):
            AaveV36(changed).decode_market(answers, block=1, timestamp=crash.timestamp)
    answers[-1] = None
    with pytest.raises(DataError, match="eMode 1"):
        crash.adapter.decode_market(answers, block=1, timestamp=crash.timestamp)


def test_an_account_that_was_not_read_is_unknown(crash: Crash) -> None:
    market = crash.read_market()
    names = [account.address for account in crash.book[:3]]
    answers = crash.ask(crash.adapter.account_reads(names))
    answers[len(answers) // 3 + 2] = None  # of the second account
    book = crash.adapter.decode_accounts(market, names, answers)
    assert book.known.tolist() == [state is not None for state in book.exact]
    assert book.known[[0, 2]].all()
    other_market = replace(market, e_mode_categories={})
    answers = crash.ask(crash.adapter.account_reads([a.address for a in crash.book]))
    book = crash.adapter.decode_accounts(other_market, [a.address for a in crash.book], answers)
    assert book.known.tolist() == [not account.emode for account in crash.book]
