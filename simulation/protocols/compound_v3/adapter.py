"""A Comet as the rest of the program sees it: reads as data, answers to states and margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from contracts_abi import compound_v3 as abi
from contracts_abi.aave_v3 import BALANCE_OF
from contracts_abi.calls import Call, Event
from contracts_abi.errors import DataError, InputError
from contracts_abi.feeds import LATEST_ROUND_DATA
from simulation.fixed_point import MAX_UINT256, WAD
from simulation.protocols import protocols
from simulation.protocols.aave_v3.layout import ZERO_ADDRESS, Reads, answer_all
from simulation.protocols.compound_v3 import comet
from simulation.protocols.compound_v3.book import book_of_accounts
from simulation.protocols.compound_v3.comet_math import mul_factor, mul_price
from simulation.protocols.compound_v3.errors import CometRevert
from simulation.protocols.compound_v3.layout import CometLayout
from simulation.protocols.compound_v3.types import (
    AbsorbOutcome,
    AssetInfo,
    CometAccount,
    CometMarket,
    CometParams,
    CometTotals,
    RateCurve,
)
from simulation.types import Asset, Book, LiquidationPlan, MarginReport, MarginStatus

METHOD: Final = "compound-v3.liquidity"

_PARAMETERS: Final = (
    abi.SUPPLY_KINK,
    abi.SUPPLY_BASE,
    abi.SUPPLY_SLOPE_LOW,
    abi.SUPPLY_SLOPE_HIGH,
    abi.BORROW_KINK,
    abi.BORROW_BASE,
    abi.BORROW_SLOPE_LOW,
    abi.BORROW_SLOPE_HIGH,
    abi.STORE_FRONT_PRICE_FACTOR,
    abi.BASE_BORROW_MIN,
    abi.TARGET_RESERVES,
    abi.BASE_TRACKING_SUPPLY_SPEED,
    abi.BASE_TRACKING_BORROW_SPEED,
    abi.BASE_MIN_FOR_REWARDS,
)
_LATER_ASSETS: Final = 16
"""From this offset on an account's bits are in the next field of its word."""


@protocols.register("compound-v3")
@dataclass(frozen=True, slots=True)
class CompoundV3:
    """The adapter of one Comet (`simulation.interfaces.ProtocolAdapter`).

    Comets share nothing, so there is an adapter for each, and reports and books carry its address in the
    protocol's name. Whoever absorbs an account gets nothing for it: a liquidator earns by buying what was
    seized at a discount, with base tokens, while the market's reserves are below their target.

    Parameters
    ----------
    layout
        Where the market's parts are; see `discover_layout`.

    Attributes
    ----------
    no_keeper
        Why no keeper runs on it yet, for a message.
    """

    kind: ClassVar[Literal["compound-v3"]] = "compound-v3"
    no_keeper: ClassVar[str] = (
        "absorb pays no bonus, and buying what it seizes needs base tokens in hand (buyCollateral)"
    )

    layout: CometLayout

    @property
    def name(self) -> str:
        """Registry kind and the beginning of the contract's address, for example ``compound-v3:c3d688b6``."""
        return f"{self.kind}:{self.layout.comet[2:10].lower()}"

    def discovery_events(self) -> tuple[Event, ...]:
        """Return the events by which an account comes to have collateral.

        Nobody can owe without: a debt is refused where collateral does not carry it. Borrowing itself is not
        to be told from withdrawing what one lent, and by a transfer it leaves no log of the borrower.
        """
        return abi.SUPPLY_COLLATERAL_EVENT, abi.TRANSFER_COLLATERAL_EVENT

    def discovered(self, topics: Sequence[bytes], data: bytes) -> str | None:
        """Return the account that has collateral after a log, None for any other log."""
        if not topics:
            return None
        if topics[0] == abi.SUPPLY_COLLATERAL_EVENT.topic:
            return str(abi.SUPPLY_COLLATERAL_EVENT.decode(topics, data)["dst"])
        if topics[0] == abi.TRANSFER_COLLATERAL_EVENT.topic:
            return str(abi.TRANSFER_COLLATERAL_EVENT.decode(topics, data)["to"])
        return None

    def assets(self, market: CometMarket) -> tuple[Asset, ...]:
        """Return the base token, then the collaterals in order."""
        return (market.params.base, *(info.asset for info in market.params.assets))

    def market_reads(self) -> Reads:
        """Return the reads of parameters, totals, prices and tokens held."""
        layout = self.layout
        at = layout.comet
        calls: Reads = [
            *(fn.call(at, label=f"comet.{fn.name}") for fn in _PARAMETERS),
            abi.NUM_ASSETS.call(at, label="comet.numAssets"),
            abi.TOTALS_BASIC.call(at, label="comet.totalsBasic"),
            BALANCE_OF.call(layout.base.address, at, label=f"{layout.base.symbol} held"),
            LATEST_ROUND_DATA.call(layout.base_price_feed, label=f"price of {layout.base.symbol}"),
        ]
        for i, (asset, feed) in enumerate(zip(layout.collaterals, layout.price_feeds, strict=True)):
            calls += [
                abi.GET_ASSET_INFO.call(at, i, label=f"comet.getAssetInfo({i})"),
                abi.TOTALS_COLLATERAL.call(at, asset.address, label=f"{asset.symbol} of accounts"),
                BALANCE_OF.call(asset.address, at, label=f"{asset.symbol} held"),
                LATEST_ROUND_DATA.call(feed, label=f"price of {asset.symbol}"),
            ]
        return calls

    def decode_market(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> CometMarket:
        """Turn the answers into the market at `timestamp`.

        A price whose feed reverts is unknown; any other missing answer is an error.

        Raises
        ------
        DataError
            If a read failed, or an upgrade has changed the market's assets or feeds.
        """
        calls = self.market_reads()
        if len(results) != len(calls):
            raise DataError(f"{len(results)} answers for {len(calls)} market reads")
        head = len(_PARAMETERS) + 3
        parameters, (count, totals, base_held_raw) = (
            answer_all(calls[: head - 3], results[: head - 3]),
            answer_all(calls[head - 3 : head], results[head - 3 : head]),
        )
        if count != len(self.layout.collaterals):
            raise DataError(
                f"Comet {self.layout.comet} lists {count} assets, not {len(self.layout.collaterals)}",
                fix="lay it out again",
            )
        infos, of_accounts_raw, held_raw, prices_e8 = [], [], [], []
        for offset in range(count):
            at = head + 1 + 4 * offset
            info, of_accounts, held = answer_all(calls[at : at + 3], results[at : at + 3])
            infos.append(self._asset_info(offset, info))
            of_accounts_raw.append(of_accounts[0])
            held_raw.append(held)
            prices_e8.append(_answer(results[at + 3]))
        return CometMarket(
            params=self._params(parameters, infos),
            totals=CometTotals(*totals),
            total_collateral_raw=tuple(of_accounts_raw),
            collateral_held_raw=tuple(held_raw),
            base_held_raw=base_held_raw,
            prices_e8=tuple(prices_e8),
            base_price_e8=_answer(results[head]),
            block=block,
            timestamp=timestamp,
        )

    def _asset_info(self, offset: int, info: Sequence[Any]) -> AssetInfo:
        asset, feed = self.layout.collaterals[offset], self.layout.price_feeds[offset]
        if [str(a).lower() for a in info[1:3]] != [asset.address.lower(), feed.lower()]:
            raise DataError(
                f"Comet {self.layout.comet} has changed its asset {offset}, {asset.symbol}",
                fix="lay it out again",
            )
        return AssetInfo(asset, feed, *info[4:])

    def _params(self, words: Sequence[int], infos: Sequence[AssetInfo]) -> CometParams:
        return CometParams(
            base=self.layout.base,
            base_price_feed=self.layout.base_price_feed,
            supply_curve=RateCurve(*words[:4]),
            borrow_curve=RateCurve(*words[4:8]),
            store_front_price_factor_wad=words[8],
            base_borrow_min_raw=words[9],
            target_reserves_raw=words[10],
            tracking_supply_speed=words[11],
            tracking_borrow_speed=words[12],
            base_min_for_rewards_raw=words[13],
            assets=tuple(infos),
        )

    def account_reads(self, accounts: Sequence[str]) -> Reads:
        """Return the reads of each account: its principal and bits, then each collateral."""
        calls: Reads = []
        for account in accounts:
            calls.append(abi.USER_BASIC.call(self.layout.comet, account))
            calls += [
                abi.USER_COLLATERAL.call(self.layout.comet, account, asset.address)
                for asset in self.layout.collaterals
            ]
        return calls

    def decode_accounts(
        self, market: CometMarket, accounts: Sequence[str], results: Sequence[bytes | None]
    ) -> Book:
        """Turn the answers into a book; an account of which a read failed has ``exact`` None.

        Raises
        ------
        DataError
            If the answers are not those of `account_reads`.
        """
        width = 1 + len(self.layout.collaterals)
        if len(accounts) * width != len(results):
            raise DataError(f"{len(results)} answers for {len(accounts)} accounts of {width} reads")
        exact = [
            _account(account, results[i * width : (i + 1) * width]) for i, account in enumerate(accounts)
        ]
        return book_of_accounts(self.name, market, accounts, exact)

    def prices_base(self, market: CometMarket) -> Mapping[str, int]:
        """Return the protocol view: what the market's feeds say at 1e8."""
        return market.prices_base

    def margin(
        self, market: CometMarket, account: CometAccount, prices_base: Mapping[str, int]
    ) -> MarginReport:
        """Return the account's margin at `prices_base`, as `absorb` would find it.

        Interest up to the market's timestamp is added first, which the contract's own `isLiquidatable`
        leaves out. The contract knows liquidatable or not; the health factor here is what the collateral
        carries over what is owed, rounded down, and below 1 exactly where it may be absorbed. `UNKNOWN` when
        a price of something that the account has or owes is not in `prices_base`, although the contract
        itself stops at the collateral that is enough.
        """
        priced = market if prices_base == market.prices_base else market.with_prices(prices_base)
        try:
            accrued = comet.accrue(priced)
            value_e8, carried_e8, new_e8 = _values(accrued, account)
            debt_e8 = 0
            if account.principal < 0:
                owed_raw = -comet.present_value(accrued.totals, account.principal)
                price_e8 = comet.get_price(accrued.base_price_e8)
                debt_e8 = mul_price(owed_raw, price_e8, accrued.params.base_scale)
            liquidatable = comet.is_liquidatable(accrued, account)
        except CometRevert as reverted:
            return MarginReport.unknown(
                account.account,
                self.name,
                METHOD,
                block=market.block,
                timestamp=market.timestamp,
                base_decimals=market.base_decimals,
                reason=_unpriced(priced, account) or reverted.message,
            )
        if account.principal >= 0:
            status, reason = MarginStatus.NO_DEBT, "owes nothing"
        elif liquidatable:
            status, reason = MarginStatus.LIQUIDATABLE, "owes more than the collateral carries"
        else:
            status, reason = MarginStatus.HEALTHY, "the collateral carries what is owed"
        return MarginReport(
            account=account.account,
            protocol=self.name,
            method=METHOD,
            block=market.block,
            timestamp=market.timestamp,
            status=status,
            collateral_base=value_e8,
            debt_base=debt_e8,
            maintenance_base=value_e8 - carried_e8,
            initial_base=value_e8 - new_e8,
            health_factor_wad=carried_e8 * WAD // debt_e8 if debt_e8 else MAX_UINT256,
            base_decimals=market.base_decimals,
            components={
                "principal": account.principal,
                "borrow_balance_raw": max(0, -comet.present_value(accrued.totals, account.principal)),
                "liquidation_liquidity_e8": carried_e8 - debt_e8,
                "borrow_liquidity_e8": new_e8 - debt_e8,
            },
            reason=reason,
        )

    def project(self, market: CometMarket, timestamp: int) -> CometMarket:
        """Return the market at a later time, for example the next block's; prices stay."""
        return comet.project(market, timestamp)

    def liquidation_pairs(self, market: CometMarket, account: CometAccount) -> tuple[tuple[str, str], ...]:
        """Return no pair at all: nobody repays a debt here to take collateral for it."""
        return ()

    def liquidation_quote(
        self,
        market: CometMarket,
        account: CometAccount,
        debt_asset: str,
        collateral_asset: str,
        debt_to_cover_raw: int,
    ) -> AbsorbOutcome:
        """Return what absorbing the account does, all of it, whatever assets and amount are asked for."""
        return comet.absorb(market, [account])

    def flash_loan_premium(self, market: CometMarket, amount_raw: int) -> int:
        """Return 0: there are no flash loans."""
        return 0

    def flash_loan_limit(self, market: CometMarket, asset: str) -> int:
        """Return 0: there are no flash loans."""
        return 0

    def absorb(self, market: CometMarket, accounts: Sequence[CometAccount]) -> AbsorbOutcome:
        """See `comet.absorb`: the very call that `absorb_call` makes."""
        return comet.absorb(market, accounts)

    def absorb_call(self, accounts: Sequence[str], *, absorber: str = ZERO_ADDRESS) -> Call[Any]:
        """Return the call that absorbs accounts together, or none of them where one is healthy.

        Raises
        ------
        InputError
            If there is no account.
        """
        if not accounts:
            raise InputError("absorb of no accounts", fix="name at least one")
        data = abi.ABSORB.encode(absorber, list(accounts))
        return Call(self.layout.comet, data, abi.ABSORB.decode, f"absorb {accounts[0][:10]}")

    def liquidation_call(self, plan: LiquidationPlan) -> Call[Any]:
        """Return `absorb` of the plan's account, which takes all of it whatever the plan's amounts are."""
        return self.absorb_call([plan.account])

    def buy_call(self, asset: str, min_amount_raw: int, base_amount_raw: int, recipient: str) -> Call[Any]:
        """Return the call that buys seized collateral for base tokens of the caller's."""
        data = abi.BUY_COLLATERAL.encode(asset, min_amount_raw, base_amount_raw, recipient)
        return Call(self.layout.comet, data, abi.BUY_COLLATERAL.decode, f"buyCollateral {asset[:10]}")


def _answer(data: bytes | None) -> int | None:
    """Return a feed's answer as it stands, None where it reverts."""
    return None if data is None else int(LATEST_ROUND_DATA.decode(data)[1])


def _account(account: str, results: Sequence[bytes | None]) -> CometAccount | None:
    basic, *balances = results
    if basic is None or None in balances:
        return None
    principal, _, _, assets_in, later = abi.USER_BASIC.decode(basic)
    collateral_raw = tuple(abi.USER_COLLATERAL.decode(data)[0] for data in balances if data is not None)
    return CometAccount(account, principal, assets_in | later << _LATER_ASSETS, collateral_raw)


def _values(market: CometMarket, account: CometAccount) -> tuple[int, int, int]:
    """Return the collateral's value, and what of it keeps a debt and carries a new one; may raise."""
    value_e8 = carried_e8 = new_e8 = 0
    for offset, info in enumerate(market.params.assets):
        if comet.is_in_asset(account, offset):
            price_e8 = comet.get_price(market.prices_e8[offset])
            worth_e8 = mul_price(account.collateral_raw[offset], price_e8, info.scale)
            value_e8 += worth_e8
            carried_e8 += mul_factor(worth_e8, info.liquidate_collateral_factor_wad)
            new_e8 += mul_factor(worth_e8, info.borrow_collateral_factor_wad)
    return value_e8, carried_e8, new_e8


def _unpriced(market: CometMarket, account: CometAccount) -> str:
    """Return which price is missing, empty if none is."""
    known = market.prices_base
    needed = [
        info.asset.symbol for i, info in enumerate(market.params.assets) if comet.is_in_asset(account, i)
    ]
    if account.principal < 0:
        needed.insert(0, market.params.base.symbol)
    missing = [symbol for symbol in needed if symbol not in known]
    return f"no price for {', '.join(missing)}" if missing else ""
