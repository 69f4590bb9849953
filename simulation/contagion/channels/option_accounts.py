"""Options accounts under a margin method: below their maintenance margin they are auctioned, as on Derive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from pydantic import Field, FiniteFloat, field_validator
from scipy.special import ndtr

from contracts_abi.errors import InputError, UnknownNameError
from simulation.contagion.batch import YEAR_S, Batch, Channel
from simulation.contagion.channels import channels
from simulation.contagion.world import World
from simulation.margin import margin_methods
from simulation.margin.derive_auction import Auction
from simulation.margin.result import PortfolioMethod
from simulation.portfolio.instruments import Option, Portfolio, Position
from simulation.portfolio.market import Expiry, Market, Underlying
from simulation.protocols.options_account import (
    Booked,
    Margins,
    OptionsAccount,
    Party,
    Screen,
    screen_of,
)
from simulation.types import Bool, Float64, MarginStatus

FIGURES: Final = (
    "auctions",
    "insolvent",
    "bids",
    "fees_usd",
    "paid_by_module_usd",
    "socialised_usd",
    "bidder_gain_usd",
    "hedged_usd",
    "settled_usd",
    "unknown",
)
"""Figures that are added up over a path."""


@dataclass(slots=True)
class _Path:
    """The accounts of one path, the auctions under way by account, and everybody else's cash."""

    accounts: list[Portfolio]
    cash: dict[Party, float]
    outside: float = 0.0
    auctions: dict[int, Auction] = field(default_factory=dict)


@dataclass(slots=True)
class _Held:
    """One account over all paths: what its screen reads, and where it is in an auction.

    The contracts are the same on every path, for time is; amounts and cash are not once there was an auction.
    """

    screen: Screen | None
    cash: Float64
    amount: Float64
    busy: Bool

    @classmethod
    def of(cls, model: OptionsAccount, paths: Sequence[_Path], i: int) -> _Held:
        accounts = [path.accounts[i] for path in paths]
        amounts = [[position.quantity for position in account.positions] for account in accounts]
        return cls(
            screen=screen_of(model.method, accounts[0]),
            cash=np.array([account.cash for account in accounts], dtype=np.float64),
            amount=np.array(amounts, dtype=np.float64).reshape(len(accounts), -1),
            busy=np.array([i in path.auctions for path in paths], dtype=np.bool_),
        )

    def keep(self, p: int, account: Portfolio, *, busy: bool) -> None:
        self.cash[p], self.busy[p] = account.cash, busy
        self.amount[p] = [position.quantity for position in account.positions]


@dataclass(slots=True)
class _Memo:
    model: OptionsAccount
    paths: list[_Path]
    held: list[_Held]
    put_in: float
    figures: dict[str, Float64]


@channels.register("option_accounts")
class OptionAccountsChannel(Channel):
    """A few accounts that hold options of the book under a margin method, and Derive's Dutch auction of them.

    An account below its maintenance margin is put up for auction; who bids takes as large a part as he may as
    soon as it is offered for less than it is worth by `bidder_margin`. Bids are paid to the account; of an
    insolvent account the security module pays the bidder, and what it has not got is taken from all holders
    of cash. Rules: `simulation.protocols.options_account`, read in Derive's contracts and not executed.

    The venue's feeds are the market's prices of this engine, without lag; forwards are at spot, and each
    option keeps the volatility that it has in the book, so an account loses by the price alone. Options that
    expire are settled in cash at the market's price of the first step at or after their expiry, and the other
    side of all of them is one outside counterparty.

    Under Derive's methods a compiled screen tells which accounts surely have their margin, on all paths at
    once; all others, and those in an auction, are worked out one by one by the method itself, as every
    account is under any other method. Measured (``scripts/bench/bench_option_accounts.py``): an account of
    four options costs some 6 us a step by the screen and 1 ms by the method, and an auction 5 ms in all.

    Off, accounts stand still. The channel ``options`` hedges all options of the book as a dealer's, those of
    these accounts too.

    Attributes
    ----------
    on
        The switch.
    cash_usd
        The accounts: wallets that hold options in the book, and the cash of each, US dollars.
    method
        Table of the margin method, ``kind`` names it; with ``derive.auction`` its parameters are the
        auction's, with any other Derive's on mainnet.
    security_module_usd
        What the security module holds at the start.
    bidder_margin
        Part of its value that a portfolio is offered below it when bidders take it, in [0, 1).
    hedge
        Part of the delta of what they took over that bidders hedge at once in the market, in [0, 1].
    every_steps
        Steps between two looks at accounts and auctions.
    """

    kind: ClassVar[Literal["option_accounts"]] = "option_accounts"
    order: ClassVar[int] = 78

    cash_usd: Annotated[dict[str, FiniteFloat], Field(min_length=1)]
    method: dict[str, Any] = Field(default_factory=lambda: {"kind": "derive.auction"})
    security_module_usd: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    bidder_margin: Annotated[float, Field(ge=0, lt=1)] = 0.1
    hedge: Annotated[float, Field(ge=0, le=1)] = 1.0
    every_steps: Annotated[int, Field(ge=1)] = 1

    @field_validator("method")
    @classmethod
    def _builds(cls, value: dict[str, Any]) -> dict[str, Any]:
        margin_methods.build(value, where="method")
        return value

    def model(self) -> OptionsAccount:
        """Return the rules of the accounts.

        Raises
        ------
        InputError
            If the method margins no portfolios.
        """
        method = margin_methods.build(self.method, where="channels.option_accounts.method")
        if not isinstance(method, PortfolioMethod):
            raise InputError(
                f"channels.option_accounts: {self.method['kind']} margins no portfolios", fix="derive.auction"
            )
        return OptionsAccount(method)

    def check(self, world: World) -> None:
        """Refuse wallets that are none or hold no options, and a method that cannot margin them."""
        if not self.on:
            return
        model, accounts = self.model(), self.accounts(world)
        now = _market(world, world.price, int(world.book.timestamp), accounts)
        for account in accounts:
            result = model.method.margin(account, now)
            if result.status is MarginStatus.UNKNOWN:
                raise InputError(
                    f"channels.option_accounts: {account.account} cannot be margined: {result.reason}",
                    fix="another method, or leave the account out",
                )

    def accounts(self, world: World) -> list[Portfolio]:
        """Return the accounts at the start, in the order of the settings."""
        options, wallets = world.book.options, world.book.wallets
        out = []
        for name, cash in self.cash_usd.items():
            if name not in wallets:
                raise UnknownNameError("wallet of channels.option_accounts", name, wallets)
            own = np.flatnonzero(options.wallet == wallets.index(name))
            if not len(own):
                raise InputError(
                    f"channels.option_accounts: {name} holds no options in the book", fix="leave it out"
                )
            positions = tuple(
                Position(
                    instrument=Option(
                        underlying=world.tokens[options.token[k]],
                        expiry=round(float(options.expiry[k])),
                        strike=float(options.strike[k]),
                        call=bool(options.is_call[k]),
                    ),
                    quantity=float(options.size[k]),
                    volatility=float(options.volatility[k]),
                )
                for k in own
            )
            out.append(Portfolio(account=name, cash=cash, positions=positions))
        return out

    def prepare(self, batch: Batch) -> _Memo:
        """Open the accounts on every path."""
        accounts = self.accounts(batch.world)
        others = {Party.BIDDER: 0.0, Party.SECURITY_MODULE: self.security_module_usd, Party.CASH_HOLDERS: 0.0}
        model, count = self.model(), batch.state.paths
        paths = [_Path(list(accounts), dict(others)) for _ in range(count)]
        return _Memo(
            model=model,
            paths=paths,
            held=[_Held.of(model, paths, i) for i in range(len(accounts))],
            put_in=sum(a.cash for a in accounts) + self.security_module_usd,
            figures={name: np.zeros(count) for name in FIGURES},
        )

    def act(self, batch: Batch, memo: _Memo) -> None:
        """Settle what expires, start auctions, bid, and end them."""
        if batch.step % self.every_steps:
            return
        time = _now(batch)
        look = np.empty((len(memo.paths), len(memo.held)), dtype=np.bool_)
        for i in range(len(memo.held)):
            self._settle(batch, memo, i, time)
            said = self._screened(batch, memo, i, time)
            look[:, i] = True if said is None else memo.held[i].busy | ~said.healthy
        for p, i in np.argwhere(look).tolist():
            now = _market(batch.world, batch.state.market[p], time, memo.paths[p].accounts[i : i + 1])
            self._auction(batch, memo, p, i, now)

    def _screened(self, batch: Batch, memo: _Memo, i: int, time: int) -> Margins | None:
        """Return what the screen says of one account on all paths; None where there is no screen."""
        held = memo.held[i]
        if held.screen is None:
            return None
        tokens = [batch.world.token(symbol) for symbol in held.screen.contracts.symbols]
        return held.screen.margins(time, batch.state.market[:, tokens], held.cash, held.amount)

    def _settle(self, batch: Batch, memo: _Memo, i: int, time: int) -> None:
        """Pay out on every path what one account holds of expired options."""
        if all(_option(q).expiry > time for q in memo.paths[0].accounts[i].positions):
            return
        for p, path in enumerate(memo.paths):
            account = path.accounts[i]
            paid = 0.0
            for position in account.positions:
                option = _option(position)
                if option.expiry <= time:
                    spot = float(batch.state.market[p, batch.world.token(option.underlying)])
                    gap = spot - option.strike if option.call else option.strike - spot
                    paid += position.quantity * max(gap, 0.0)
            path.outside -= paid
            memo.figures["settled_usd"][p] += abs(paid)
            stays = tuple(q for q in account.positions if _option(q).expiry > time)
            after = account.model_copy(update={"cash": account.cash + paid, "positions": stays})
            path.accounts[i] = after
            if i in path.auctions:
                path.auctions[i] = replace(path.auctions[i], portfolio=after)
        memo.held[i] = _Held.of(memo.model, memo.paths, i)

    def _auction(self, batch: Batch, memo: _Memo, p: int, i: int, now: Market) -> None:
        """Take one account a step further: into an auction, through it, and out of it."""
        path, model, figures = memo.paths[p], memo.model, memo.figures
        if i not in path.auctions:
            status = model.status(now, path.accounts[i])
            if status is MarginStatus.UNKNOWN:
                figures["unknown"][p] += 1.0
            if status is not MarginStatus.LIQUIDATABLE:
                return
            state, booked = model.start(now, path.accounts[i])
            figures["auctions"][p] += 1.0
            figures["insolvent"][p] += state.insolvent
            figures["fees_usd"][p] += booked.net(Party.SECURITY_MODULE)
            self._book(memo, p, i, state, booked)
        view = model.view(now, path.auctions[i])
        if view.may_turn_insolvent:
            figures["insolvent"][p] += 1.0
            self._book(memo, p, i, model.turn_insolvent(now, path.auctions[i]), Booked(()))
            view = model.view(now, path.auctions[i])
        if view.may_end:
            self._book(memo, p, i, model.end(now, path.auctions[i]), Booked(()))
            return
        worth = view.mtm - path.auctions[i].reserved
        gain = worth - view.price
        if view.fmax <= 0.0 or gain < self.bidder_margin * abs(worth):
            return
        module = path.cash[Party.SECURITY_MODULE]
        state, booked = model.bid(now, path.auctions[i], view.fmax, security_module=module)
        figures["bids"][p] += 1.0
        figures["bidder_gain_usd"][p] += gain * booked.fraction
        figures["paid_by_module_usd"][p] -= min(booked.net(Party.SECURITY_MODULE), 0.0)
        figures["socialised_usd"][p] -= booked.net(Party.CASH_HOLDERS)
        self._book(memo, p, i, state, booked)
        self._hedge(batch, memo, p, booked.positions)

    def _book(self, memo: _Memo, p: int, i: int, state: Auction, booked: Booked) -> None:
        """Keep the account and everybody's cash after a step of its auction."""
        path = memo.paths[p]
        path.accounts[i] = state.portfolio
        for party in path.cash:
            path.cash[party] += booked.net(party)
        if state.live:
            path.auctions[i] = state
        else:
            path.auctions.pop(i, None)
        memo.held[i].keep(p, state.portfolio, busy=state.live)

    def _hedge(self, batch: Batch, memo: _Memo, p: int, positions: Sequence[Position]) -> None:
        """Trade against the delta of what a bidder took over."""
        for position in positions:
            a = batch.world.token(_option(position).underlying)
            spot = float(batch.state.market[p, a])
            usd = -self.hedge * position.quantity * delta(position, spot, _now(batch)) * spot
            batch.state.order_flow[p, a] += usd
            memo.figures["hedged_usd"][p] += abs(usd)

    def columns(self, batch: Batch, memo: _Memo) -> dict[str, Float64]:
        """Return what was auctioned and who paid, by path.

        ``option_accounts.shortfall_usd``: what accounts are worth below nothing at the end, NaN where one of
        them cannot be valued. ``option_accounts.imbalance``: what everybody's cash is off by, as a part of
        what was put in; a fault of ours when it is not tiny.
        """
        out = {f"option_accounts.{name}": values for name, values in memo.figures.items()}
        short, off = np.zeros(len(memo.paths)), np.zeros(len(memo.paths))
        time = _now(batch)
        for i in range(len(memo.held)):
            # What expired since the last look is worth what it pays.
            self._settle(batch, memo, i, time)
            said = self._screened(batch, memo, i, time)
            # Where the screen is sure that an account is worth something, it lacks nothing.
            for p in range(len(memo.paths)) if said is None else np.flatnonzero(~said.whole).tolist():
                account = memo.paths[p].accounts[i]
                now = _market(batch.world, batch.state.market[p], time, [account])
                equity = memo.model.method.margin(account, now).equity
                short[p] += max(-float(equity), 0.0) if np.isfinite(equity) else np.nan
        for p, path in enumerate(memo.paths):
            total = sum(a.cash for a in path.accounts) + sum(path.cash.values()) + path.outside
            off[p] = abs(total - memo.put_in) / max(abs(memo.put_in), 1.0)
        out["option_accounts.shortfall_usd"] = short
        out["option_accounts.imbalance"] = off
        return out

    def column_names(self, world: World) -> tuple[str, ...]:
        """See `Channel.column_names`."""
        return tuple(f"option_accounts.{name}" for name in (*FIGURES, "shortfall_usd", "imbalance"))


def _option(position: Position) -> Option:
    assert isinstance(position.instrument, Option)
    return position.instrument


def _now(batch: Batch) -> int:
    return int(batch.world.book.timestamp + batch.step * batch.dt_s)


def _market(world: World, prices: Float64, timestamp: int, accounts: Sequence[Portfolio]) -> Market:
    """Return what the venue's feeds say at prices of all tokens, shape (A,): forwards at spot, no rates."""
    expiries: dict[str, dict[int, Expiry]] = {}
    for account in accounts:
        for position in account.positions:
            option = _option(position)
            spot = float(prices[world.token(option.underlying)])
            expiries.setdefault(option.underlying, {})[option.expiry] = Expiry(forward=spot)
    underlyings: Mapping[str, Underlying] = {
        symbol: Underlying(spot=next(iter(own.values())).forward, expiries=own)
        for symbol, own in expiries.items()
    }
    return Market(timestamp=timestamp, underlyings=underlyings)


def delta(position: Position, spot: float, timestamp: int) -> float:
    """Return Black-76's delta of one option with the forward at spot: ``N(d1)``, of a put 1 less.

    Expired ones have none.
    """
    option = _option(position)
    years = (option.expiry - timestamp) / YEAR_S
    if years <= 0.0 or position.volatility is None:
        return 0.0
    deviation = position.volatility * np.sqrt(years)
    call = float(ndtr(np.log(spot / option.strike) / deviation + deviation / 2.0))
    return call if option.call else call - 1.0
