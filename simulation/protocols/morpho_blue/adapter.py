"""A Morpho Blue market as the rest of the program sees it: reads as data, answers to states and margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from contracts_abi import morpho_blue as abi
from contracts_abi.calls import Call, Event
from contracts_abi.errors import DataError, InputError
from contracts_abi.liquidator import Venue, morpho_flash_calldata, morpho_inventory_calldata
from simulation.amm.uniswap_v3 import encode_path
from simulation.fixed_point import BPS, MAX_UINT256, WAD, ceil_div
from simulation.liquidation import least_collateral_raw
from simulation.protocols import protocols
from simulation.protocols.aave_v3.layout import Reads, answer_all
from simulation.protocols.morpho_blue import morpho
from simulation.protocols.morpho_blue.book import book_of_accounts
from simulation.protocols.morpho_blue.errors import MorphoRevert
from simulation.protocols.morpho_blue.layout import ID_PREFIX, MorphoLayout, irm_read, rate_model
from simulation.protocols.morpho_blue.types import (
    LiquidationOutcome,
    MarketState,
    MorphoAccount,
    MorphoMarket,
)
from simulation.types import Asset, Book, LiquidationPlan, MarginReport, MarginStatus

METHOD: Final = "morpho-blue.health_factor"

_NO_CALLBACK: Final = b""
_INTEREST_BPS = 1


@protocols.register("morpho-blue")
@dataclass(frozen=True, slots=True)
class MorphoBlue:
    """The adapter of one Morpho Blue market (`simulation.interfaces.ProtocolAdapter`).

    Markets of one contract share nothing: what somebody has in one counts in no other. So there is an adapter
    for each, an account in several markets is a row in each book, and reports and books carry the market in
    the protocol's name.

    Parameters
    ----------
    layout
        Where the market's parts are; see `discover_layout`.
    """

    kind: ClassVar[Literal["morpho-blue"]] = "morpho-blue"

    layout: MorphoLayout

    @property
    def name(self) -> str:
        """Registry kind and the beginning of the market's id, for example ``morpho-blue:b323495f``."""
        return f"{self.kind}:{self.layout.id[2 : 2 + ID_PREFIX]}"

    def discovery_events(self) -> tuple[Event, ...]:
        """Return the only event by which an account comes to owe something."""
        return (abi.BORROW_EVENT,)

    def discovered(self, topics: Sequence[bytes], data: bytes) -> str | None:
        """Return the account that owes after a `Borrow` log of this market, None for any other log."""
        if len(topics) < 2 or topics[0] != abi.BORROW_EVENT.topic or topics[1] != self.layout.id_bytes:
            return None
        return str(abi.BORROW_EVENT.decode(topics, data)["onBehalf"])

    def assets(self, market: MorphoMarket) -> tuple[Asset, ...]:
        """Return the loan token and the collateral token."""
        return market.loan, market.collateral

    def market_reads(self) -> Reads:
        """Return the reads of totals, fee, price and rate model."""
        layout = self.layout
        calls: Reads = [
            abi.MARKET.call(layout.morpho, layout.id_bytes, label="morpho.market"),
            abi.FEE_RECIPIENT.call(layout.morpho, label="morpho.feeRecipient"),
            abi.PRICE.call(layout.params.oracle, label="oracle.price"),
        ]
        remembered = irm_read(layout)
        return calls if remembered is None else [*calls, remembered]

    def decode_market(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> MorphoMarket:
        """Turn the answers into the market at `timestamp`.

        A price that the oracle refuses is unknown; any other missing answer is an error.

        Raises
        ------
        DataError
            If a read failed, or the market was not created.
        """
        calls = self.market_reads()
        if len(results) != len(calls):
            raise DataError(f"{len(results)} answers for {len(calls)} market reads")
        words, fee_recipient = answer_all(calls[:2], results[:2])
        stored = answer_all(calls[3:], results[3:])
        state = MarketState(*words)
        if state.last_update == 0:
            raise DataError(f"market {self.layout.id} was not created", fix="check the id and the chain")
        layout, price = self.layout, results[2]
        return MorphoMarket(
            params=layout.params,
            state=state,
            irm=rate_model(layout.irm_kind, stored[0] if stored else 0),
            price_e36=None if price is None else calls[2].decode(price),
            block=block,
            timestamp=timestamp,
            loan=layout.loan,
            collateral=layout.collateral,
            fee_recipient=fee_recipient,
        )

    def account_reads(self, accounts: Sequence[str]) -> Reads:
        """Return the read of each account's position, one word for each part of it."""
        layout = self.layout
        return [abi.POSITION.call(layout.morpho, layout.id_bytes, account) for account in accounts]

    def decode_accounts(
        self, market: MorphoMarket, accounts: Sequence[str], results: Sequence[bytes | None]
    ) -> Book:
        """Turn the answers into a book; an account whose read failed has ``exact`` None.

        Raises
        ------
        DataError
            If there are not as many answers as accounts.
        """
        if len(accounts) != len(results):
            raise DataError(f"{len(results)} answers for {len(accounts)} accounts")
        exact = [
            None if data is None else MorphoAccount(account, *abi.POSITION.decode(data))
            for account, data in zip(accounts, results, strict=True)
        ]
        return book_of_accounts(self.name, market, accounts, exact)

    def prices_base(self, market: MorphoMarket) -> Mapping[str, int]:
        """Return the protocol view: what a whole token of each is worth in loan tokens."""
        return market.prices_base

    def margin(
        self, market: MorphoMarket, account: MorphoAccount, prices_base: Mapping[str, int]
    ) -> MarginReport:
        """Return the account's margin at `prices_base`, as the contract compares it.

        The contract knows healthy or not; the health factor here is what the collateral carries over what is
        owed, rounded down, and is below 1 exactly where the contract says not healthy. `UNKNOWN` when the
        price is not in `prices_base` and the account has or owes something.
        """
        priced = market if prices_base == market.prices_base else market.with_prices(prices_base)
        try:
            accrued = morpho.accrue(priced).market
            owed_raw = morpho.borrowed_assets(accrued.state, account)
            value_raw = morpho.collateral_value(accrued, account) if account.collateral_raw else 0
            carried_raw = morpho.max_borrow(accrued, account) if account.collateral_raw else 0
        except MorphoRevert as reverted:
            return MarginReport.unknown(
                account.account,
                self.name,
                METHOD,
                block=market.block,
                timestamp=market.timestamp,
                base_decimals=market.base_decimals,
                reason=(
                    f"no price for {market.collateral.symbol}"
                    if priced.price_e36 is None
                    else reverted.message
                ),
            )
        if account.borrow_shares == 0:
            status, reason = MarginStatus.NO_DEBT, "owes nothing"
        elif carried_raw < owed_raw:
            status, reason = MarginStatus.LIQUIDATABLE, "owes more than the collateral carries"
        else:
            status, reason = MarginStatus.HEALTHY, "the collateral carries what is owed"
        # Base units of a raw loan token, which are whole ones.
        scale = 10 ** (market.base_decimals - market.loan.decimals)
        return MarginReport(
            account=account.account,
            protocol=self.name,
            method=METHOD,
            block=market.block,
            timestamp=market.timestamp,
            status=status,
            collateral_base=value_raw * scale,
            debt_base=owed_raw * scale,
            maintenance_base=(value_raw - carried_raw) * scale,
            initial_base=(value_raw - carried_raw) * scale,
            health_factor_wad=carried_raw * WAD // owed_raw if account.borrow_shares else MAX_UINT256,
            base_decimals=market.base_decimals,
            components={
                "borrowed_assets_raw": owed_raw,
                "max_borrow_raw": carried_raw,
                "lltv_wad": market.params.lltv_wad,
                "liquidation_incentive_factor_wad": morpho.liquidation_incentive_factor(
                    market.params.lltv_wad
                ),
            },
            reason=reason,
        )

    def project(self, market: MorphoMarket, timestamp: int) -> MorphoMarket:
        """Return the market at a later time, for example the next block's; the price stays."""
        return morpho.project(market, timestamp)

    def liquidation_quote(
        self,
        market: MorphoMarket,
        account: MorphoAccount,
        debt_asset: str,
        collateral_asset: str,
        debt_to_cover_raw: int,
    ) -> LiquidationOutcome:
        """See `morpho.liquidation_quote`: the very call that `liquidation_call` makes."""
        self._check_pair(debt_asset, collateral_asset)
        return morpho.liquidation_quote(market, account, debt_to_cover_raw)

    def _check_pair(self, debt_asset: str, collateral_asset: str) -> None:
        wanted = (debt_asset.lower(), collateral_asset.lower())
        if wanted != (self.layout.loan.address.lower(), self.layout.collateral.address.lower()):
            raise InputError(
                f"{self.name} lends {self.layout.loan.symbol} for {self.layout.collateral.symbol}, "
                f"not {debt_asset} for {collateral_asset}"
            )

    def liquidation_pairs(self, market: MorphoMarket, account: MorphoAccount) -> tuple[tuple[str, str], ...]:
        """Return the market's only pair of debt and collateral, if the account has both."""
        if not (account.borrow_shares and account.collateral_raw):
            return ()
        return ((market.loan.address, market.collateral.address),)

    def flash_loan_premium(self, market: MorphoMarket, amount_raw: int) -> int:
        """Return 0: nothing is borrowed, see `flash_loan_limit`."""
        return 0

    def flash_loan_limit(self, market: MorphoMarket, asset: str) -> int:
        """Return no limit for the loan token, 0 for any other.

        Morpho sends the collateral before it takes the debt, which our Liquidator pays from the sale. So it
        does not matter how much of the token Morpho has left.
        """
        return MAX_UINT256 if asset.lower() == self.layout.loan.address.lower() else 0

    def liquidation_call(self, plan: LiquidationPlan, *, repaid_shares: int | None = None) -> Call[Any]:
        """Return `Morpho.liquidate` for `plan`, paid by the caller, without a callback.

        Parameters
        ----------
        plan
            What to take: its ``seized_raw``. The contract works out what is to be repaid for it.
        repaid_shares
            Repay so many shares instead; all of an account's leave no debt at all.

        Raises
        ------
        InputError
            If it is another market's pair, or there is nothing to take or to repay.
        """
        self._check_pair(plan.debt_asset, plan.collateral_asset)
        seized_raw = plan.seized_raw if repaid_shares is None else 0
        if (seized_raw if repaid_shares is None else repaid_shares) <= 0:
            raise InputError(
                f"seized_raw is {plan.seized_raw}, repaid_shares {repaid_shares}: must be positive"
            )
        data = abi.LIQUIDATE.encode(
            self.layout.params.words(), plan.account, seized_raw, repaid_shares or 0, _NO_CALLBACK
        )
        return Call(self.layout.morpho, data, abi.LIQUIDATE.decode, f"liquidate {plan.account[:10]}")

    @property
    def liquidation_gas(self) -> int:
        """Gas units of our Liquidator's transaction without a swap.

        The upper end of what it used on a local node: with one pool, of which 100 thousand are the planner's
        for the hop, 294 to 335 thousand.
        """
        return 240_000

    @property
    def venue(self) -> Venue:
        """Where our Liquidator liquidates, as its event says it."""
        return Venue(self.layout.morpho, self.layout.id_bytes)

    def liquidator_calldata(self, plan: LiquidationPlan, *, intent_id: bytes, deadline_block: int) -> bytes:
        """Return our Liquidator's calldata for `plan`.

        A plan that repays the debt whole asks for as much as there is when it runs, any other for its
        collateral; where the price has moved to where that is more than there is, the contract takes what
        there is. From inventory no more is paid than planned, but for a basis point where a debt by its
        shares gains interest meanwhile, if the owner has that much.

        Raises
        ------
        InputError
            If it is another market's pair.
        """
        self._check_pair(plan.debt_asset, plan.collateral_asset)
        market = self.layout.params.words()
        if plan.from_inventory:
            return morpho_inventory_calldata(
                intent_id=intent_id,
                market=market,
                user=plan.account,
                seized_raw=plan.seized_raw,
                whole_debt=plan.full,
                max_repaid_raw=ceil_div(plan.debt_to_cover_raw * (BPS + _INTEREST_BPS * plan.full), BPS),
                min_collateral_raw=least_collateral_raw(plan),
                deadline_block=deadline_block,
            )
        return morpho_flash_calldata(
            intent_id=intent_id,
            market=market,
            user=plan.account,
            seized_raw=plan.seized_raw,
            whole_debt=plan.full,
            path=encode_path(plan.path) if plan.path else b"",
            min_profit_raw=plan.min_profit_raw,
            deadline_block=deadline_block,
        )
