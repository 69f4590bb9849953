"""What a Comet did, as plain data, and the model held against it.

A record is one market's life: how it was built, and steps, each with its time, its prices, what was asked
and what the contract made of it. `judge` lets the model go through the same and says where the two part. So
records made on a chain are compared at once (`compound_v3`), and kept ones where there is no Comet at hand.

Tokens are numbered: `BASE` is the base token, the collaterals count from 0, `UNLISTED` is another address.
Accounts count from 0. A price is None where the feed reverts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from simulation.chain.evm import labelled_address
from simulation.chain.parity.harness import Mismatch
from simulation.protocols.compound_v3 import comet, errors
from simulation.protocols.compound_v3.adapter import CompoundV3
from simulation.protocols.compound_v3.comet_math import kept_cap, kept_factor, per_second
from simulation.protocols.compound_v3.layout import CometLayout
from simulation.protocols.compound_v3.types import (
    AbsorbOutcome,
    AssetInfo,
    CometAccount,
    CometMarket,
    CometParams,
    CometTotals,
    Outcome,
    RateCurve,
)
from simulation.types import Asset, MarginStatus

ACCOUNTS: Final = 4
BASE: Final = -1
UNLISTED: Final = 99

_WORDS: Final = 9
"""Of a state before those of its assets: eight of `CometTotals`, and the base tokens held."""


def account_address(number: int) -> str:
    """Return the address of an account of a record."""
    return labelled_address(f"comet account {number}")


def token_address(number: int) -> str:
    """Return an address that stands for a token of a record where there is no chain."""
    return labelled_address(f"comet token {number}")


# --- states as lists of numbers ---------------------------------------------------------------------------


def built(config: Mapping[str, Any]) -> CometParams:
    """Return the parameters that a constructor's arguments give, rounded as it rounds."""
    rates = config["rates"]

    def curve(kink: int, low: int, high: int, base: int) -> RateCurve:
        return RateCurve(kink, per_second(base), per_second(low), per_second(high))

    return CometParams(
        base=Asset("BASE", token_address(BASE), config["decimals"]),
        base_price_feed=labelled_address("comet base feed"),
        supply_curve=curve(*rates[:4]),
        borrow_curve=curve(*rates[4:]),
        store_front_price_factor_wad=config["store_front"],
        base_borrow_min_raw=config["borrow_min"],
        target_reserves_raw=config["target"],
        tracking_supply_speed=config["rewards"][0],
        tracking_borrow_speed=config["rewards"][1],
        base_min_for_rewards_raw=config["rewards"][2],
        assets=tuple(
            AssetInfo(
                asset=Asset(f"C{i}", token_address(i), decimals),
                price_feed=labelled_address(f"comet feed {i}"),
                borrow_collateral_factor_wad=kept_factor(borrow_wad),
                liquidate_collateral_factor_wad=kept_factor(liquidate_wad),
                liquidation_factor_wad=kept_factor(liquidation_wad),
                supply_cap_raw=kept_cap(cap_raw, 10**decimals),
            )
            for i, (decimals, borrow_wad, liquidate_wad, liquidation_wad, cap_raw) in enumerate(
                config["assets"]
            )
        ),
    )


def parameter_words(params: CometParams) -> list[int]:
    """Return the parameters as a list, as a record keeps what the contract says of itself."""
    words = []
    for curve in (params.supply_curve, params.borrow_curve):
        words += [curve.kink_wad, curve.base_wad, curve.slope_low_wad, curve.slope_high_wad]
    words += [params.store_front_price_factor_wad, params.base_borrow_min_raw, params.target_reserves_raw]
    words += [params.tracking_supply_speed, params.tracking_borrow_speed, params.base_min_for_rewards_raw]
    for info in params.assets:
        words += [
            info.borrow_collateral_factor_wad,
            info.liquidate_collateral_factor_wad,
            info.liquidation_factor_wad,
            info.supply_cap_raw,
        ]
    return words


def state_words(market: CometMarket, accounts: Sequence[CometAccount]) -> list[int]:
    """Return a state as a list of numbers, without time and prices."""
    totals = market.totals
    words = [
        totals.base_supply_index,
        totals.base_borrow_index,
        totals.tracking_supply_index,
        totals.tracking_borrow_index,
        totals.total_supply_base,
        totals.total_borrow_base,
        totals.last_accrual_time,
        totals.pause_flags,
        market.base_held_raw,
        *market.total_collateral_raw,
        *market.collateral_held_raw,
    ]
    for account in accounts:
        words += [account.principal, account.assets_in, *account.collateral_raw]
    return words


def state_of(params: CometParams, words: Sequence[int]) -> tuple[CometMarket, list[CometAccount]]:
    """Return the state that such a list stands for, without prices, at its last accrual."""
    n = len(params.assets)
    market = CometMarket(
        params=params,
        totals=CometTotals(*words[:8]),
        total_collateral_raw=tuple(words[_WORDS : _WORDS + n]),
        collateral_held_raw=tuple(words[_WORDS + n : _WORDS + 2 * n]),
        base_held_raw=words[8],
        prices_e8=(None,) * n,
        base_price_e8=None,
        block=0,
        timestamp=words[6],
    )
    accounts = []
    for i in range(ACCOUNTS):
        at = _WORDS + 2 * n + i * (2 + n)
        accounts.append(
            CometAccount(account_address(i), words[at], words[at + 1], tuple(words[at + 2 : at + 2 + n]))
        )
    return market, accounts


def changes(before: Sequence[int], after: Sequence[int]) -> dict[str, int]:
    """Return what differs between two states, by place."""
    return {str(i): b for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}


# --- the model on a record --------------------------------------------------------------------------------


def at_step(market: CometMarket, step: Mapping[str, Any]) -> CometMarket:
    """Return the market at a step's time and prices."""
    base_price_e8, *prices_e8 = step["prices"]
    return replace(market, timestamp=step["time"], base_price_e8=base_price_e8, prices_e8=tuple(prices_e8))


def token_of(params: CometParams, number: int) -> str:
    """Return a token's address in the model."""
    if number == BASE:
        return params.base.address
    return params.assets[number].asset.address if number != UNLISTED else token_address(UNLISTED)


def perform(
    market: CometMarket, accounts: Sequence[CometAccount], do: Sequence[Any]
) -> tuple[str | None, CometMarket, list[CometAccount], list[Any]]:
    """Let the model do what a step asks for; returns code, market, accounts and what is answered."""
    name, *arguments = do
    after = list(accounts)
    if name in ("supply", "withdraw", "withdraw_as_stranger", "accrue"):
        number = arguments[0]
        outcome = _single(name, market, accounts[number], arguments[1:])
        after[number] = outcome.account_after
        return outcome.revert_code, outcome.market_after, after, []
    if name == "absorb":
        named = sorted(set(arguments[0]))
        absorbed = comet.absorb(
            market, [accounts[i] for i in named], order=[account_address(i) for i in arguments[0]]
        )
        for number, account in zip(named, absorbed.accounts_after, strict=True):
            after[number] = account
        return absorbed.revert_code, absorbed.market_after, after, absorb_words(absorbed, accounts)
    if name == "buy":
        asset, min_raw, base_raw = arguments
        bought = comet.buy_collateral(
            market, token_of(market.params, asset), base_raw, min_amount_raw=min_raw
        )
        words = [bought.base_amount_raw, bought.collateral_amount_raw] if bought.succeeds else []
        return bought.revert_code, bought.market_after, after, words
    if name == "take_reserves":
        taken = comet.withdraw_reserves(market, arguments[0])
        return taken.revert_code, taken.market_after, after, []
    if name == "pause":
        paused = replace(market, totals=replace(market.totals, pause_flags=arguments[0]))
        return None, paused, after, []
    if name == "give":
        return None, _given(market, *arguments), after, []
    raise ValueError(f"a record asks for {name!r}")


def _single(name: str, market: CometMarket, account: CometAccount, arguments: Sequence[int]) -> Outcome:
    if name == "accrue":
        return comet.accrue_account(market, account)
    token, amount_raw = token_of(market.params, arguments[0]), arguments[1]
    if name == "supply":
        return comet.supply(market, account, token, amount_raw)
    return comet.withdraw(market, account, token, amount_raw, authorized=name == "withdraw")


def _given(market: CometMarket, token: int, amount_raw: int) -> CometMarket:
    """Return the market after somebody has sent it tokens, which are its reserves."""
    if token == BASE:
        return replace(market, base_held_raw=market.base_held_raw + amount_raw)
    held_raw = list(market.collateral_held_raw)
    held_raw[token] += amount_raw
    return replace(market, collateral_held_raw=tuple(held_raw))


def absorb_words(outcome: AbsorbOutcome, accounts: Sequence[CometAccount]) -> list[Any]:
    """Return what the contract's events tell of it: by account, what was seized, and what was paid out."""
    states = {account.account: account for account in accounts}
    words: list[Any] = []
    for absorption in outcome.absorptions:
        account = states[absorption.account]
        words += [
            [offset, raw, absorption.seized_e8[offset]]
            for offset, raw in enumerate(absorption.seized_raw)
            if comet.is_in_asset(account, offset)
        ]
        words.append([absorption.base_paid_out_raw, absorption.base_paid_out_e8])
    return words


def viewed(market: CometMarket, accounts: Sequence[CometAccount], asked: Sequence[int]) -> dict[str, Any]:
    """Return what the model says to everything that a record asks the contract's views.

    `asked` is a utilisation, and an amount of base tokens for which a quote of each collateral is wanted.
    """
    utilization_wad, base_raw = asked
    params = market.params
    tokens = [info.asset.address for info in params.assets]
    return {
        "reserves": said(comet.get_reserves, market),
        "utilization": said(comet.get_utilization, market),
        "supply_rate": said(comet.get_supply_rate, params, utilization_wad),
        "borrow_rate": said(comet.get_borrow_rate, params, utilization_wad),
        "total_supply": said(comet.total_supply, market),
        "total_borrow": said(comet.total_borrow, market),
        "collateral_reserves": [said(comet.get_collateral_reserves, market, token) for token in tokens],
        "quotes": [said(comet.quote_collateral, market, token, base_raw) for token in tokens],
        "liquidatable": [said(comet.is_liquidatable, market, account) for account in accounts],
        "collateralized": [said(comet.is_borrow_collateralized, market, account) for account in accounts],
        "balances": [said(comet.balance_of, market, account) for account in accounts],
        "owed": [said(comet.borrow_balance_of, market, account) for account in accounts],
        "absorbable": [comet.absorb(market, [account]).revert_code for account in accounts],
    }


def said(view: Callable[..., int], *arguments: Any) -> int | str:
    """Return a view's number, or the code that it reverts with."""
    try:
        return int(view(*arguments))
    except errors.CometRevert as reverted:
        return reverted.code


def judge(record: Mapping[str, Any]) -> list[Mismatch]:
    """Return where the model parts from a record; it goes on by itself from the first state."""
    found: list[Mismatch] = []

    def check(field: str, contract: Any, model: Any) -> None:
        if contract != model:
            found.append(Mismatch(field, str(contract), str(model)))

    params = built(record["config"])
    check("parameters", record["built"], parameter_words(params))
    words = list(record["start"])
    market, accounts = state_of(params, words)
    for number, step in enumerate(record["steps"]):
        if found:
            break
        where = f"step {number} {step['do'][0]}"
        market = at_step(market, step)
        if "views" in step:
            mine = viewed(market, accounts, step["asked"])
            for view, contract in step["views"].items():
                check(f"{where}: {view}", contract, mine[view])
            _check_margins(check, where, market, accounts, step["views"]["absorbable"])
        code, market, accounts, answered = perform(market, accounts, step["do"])
        check(f"{where}: code", step["code"], code)
        check(f"{where}: answer", step["out"], answered)
        for place, word in step["changes"].items():
            words[int(place)] = word
        check(f"{where}: state", words, state_words(market, accounts))
    return found


def adapter_of(params: CometParams, comet_address: str) -> CompoundV3:
    """Return the adapter of a market of these parameters."""
    return CompoundV3(
        CometLayout(
            comet=comet_address,
            base=params.base,
            base_price_feed=params.base_price_feed,
            collaterals=tuple(info.asset for info in params.assets),
            price_feeds=tuple(info.price_feed for info in params.assets),
        )
    )


def _check_margins(
    check: Callable[[str, Any, Any], None],
    where: str,
    market: CometMarket,
    accounts: Sequence[CometAccount],
    absorbable: Sequence[str | None],
) -> None:
    """Hold the margin of each account against whether the contract would absorb it."""
    if any(code == errors.PAUSED for code in absorbable):
        return
    adapter = adapter_of(market.params, labelled_address("comet"))
    for account, code in zip(accounts, absorbable, strict=True):
        report = adapter.margin(market, account, market.prices_base)
        if report.status is MarginStatus.LIQUIDATABLE:
            check(f"{where}: margin says liquidatable", code is None, True)
        elif report.status is not MarginStatus.UNKNOWN:
            check(f"{where}: margin says not liquidatable", code, errors.NOT_LIQUIDATABLE)
        if report.health_factor_wad is not None:
            below = report.health_factor_wad < 10**18
            check(f"{where}: health factor", code is None, below)


# --- what a record is an instance of ----------------------------------------------------------------------


def returns_early(market: CometMarket, account: CometAccount) -> tuple[bool, bool]:
    """Return whether the contract stops before an account's last collateral, and before a broken feed."""
    try:
        if account.principal >= 0 or comet.is_liquidatable(market, account):
            return False, False
    except errors.CometRevert:
        return False, False
    held = [i for i in range(len(market.params.assets)) if comet.is_in_asset(account, i)]
    for count, last in enumerate(held):
        cut = replace(account, assets_in=account.assets_in & ((1 << last) - 1))
        if not comet.is_liquidatable(market, cut):
            rest = held[count:]
            return True, any((market.prices_e8[i] or 0) <= 0 for i in rest)
    return False, False


def is_bad_debt(outcome: AbsorbOutcome) -> bool:
    """Return whether a market paid out more than what it seized was worth."""
    return any(absorption.bad_debt_e8 for absorption in outcome.absorptions)
