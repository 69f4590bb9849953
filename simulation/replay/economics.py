"""What an oracle's failure costs: accounts, an attacker and keepers on a lending market, step by step.

The same accounts are played twice. Unguarded, the protocol acts on whatever its feed says. Guarded, it acts
on the adapted decision: what raises risk is refused while the decision says no, and liquidations follow a
policy of their own. Everything is exact: token units are integers, values fractions of the common quote
currency. Losses are always counted at the true price, whatever the protocol believed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Final

from simulation.replay.lending import (
    BPS,
    NO_LIMIT,
    Account,
    LendingModel,
    Market,
    Quotes,
    Seizure,
    value,
)

MAX_ROUNDS: Final = 128
"""Liquidations of one account in one step; halving a debt of 2**128 units takes no more."""


@dataclass(frozen=True, slots=True)
class Step:
    """The market at one moment.

    Attributes
    ----------
    t, block
        Unix seconds and block number.
    truth
        Asset to its true price; all are known.
    borrowing, liquidating
        The prices that the protocol borrows and liquidates at; an asset that it refuses is None there.
    base_fee_wei
        Base fee; None when the scenario has no gas series.
    gas_price_usd
        What one unit of gas costs; None when the fee or the native token's price is not known.
    """

    t: int
    block: int
    truth: Mapping[str, Fraction]
    borrowing: Quotes
    liquidating: Quotes
    base_fee_wei: int | None = None
    gas_price_usd: Fraction | None = None


@dataclass(frozen=True, slots=True)
class Borrower:
    """Somebody who supplies collateral at what the protocol believes it is worth, and borrows against it.

    Attributes
    ----------
    id
        Its account.
    supplies
        Asset to token units.
    asset
        What it borrows.
    borrows_raw
        How much, token units; None is as much as it may.
    at
        When it first tries, unix seconds; None at the first step at which the trade pays.
    pays
        Whether it bought what it supplies, at the true price; otherwise it cost nothing (a free mint).
    cost
        What the attack costs beside that: loan fees, the loss of moving a price.
    """

    id: str
    supplies: Mapping[str, int]
    asset: str
    borrows_raw: int | None = None
    at: int | None = None
    pays: bool = True
    cost: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class Keeper:
    """Somebody who liquidates whatever pays, at true prices.

    Attributes
    ----------
    id
        Its name.
    gas_cap_wei
        Base fee above which it does nothing; None without a cap.
    gas_units
        Gas of one liquidation.
    inventory
        What it can spend in all, quote currency; what it seizes is not sold for more within the clock.
        None without a limit (flash loans).
    start, end
        First and last second at which it works; None is the clock's.
    """

    id: str
    gas_cap_wei: int | None = None
    gas_units: int = 0
    inventory: Fraction | None = None
    start: int | None = None
    end: int | None = None

    def works(self, step: Step) -> bool:
        """Return whether it is there at `step` and the base fee is not above its cap."""
        here = (self.start is None or self.start <= step.t) and (self.end is None or step.t <= self.end)
        cap, fee = self.gas_cap_wei, step.base_fee_wei
        return here and (cap is None or fee is None or fee <= cap)


UNLIMITED_KEEPER: Final = Keeper("keeper")
"""Stands in where a scenario names no keeper: always there, never short of money, pays no gas."""


class Deed(StrEnum):
    """What happened at the protocol."""

    BORROW = "borrow"
    BORROW_REFUSED = "borrow_refused"
    LIQUIDATE = "liquidate"
    LIQUIDATION_REFUSED = "liquidation_refused"
    KEEPER_IDLE = "keeper_idle"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened at the protocol, or was refused.

    A refusal is told once, when it begins, and again only after it has ended.

    Attributes
    ----------
    t, block
        When.
    deed
        What.
    account
        Whom it concerns.
    debt, debt_raw
        Asset borrowed or repaid, and how much in token units.
    collateral, collateral_raw
        Asset supplied for it or seized, and how much.
    debt_value, collateral_value
        Both at the true price.
    wrong
        Whether a liquidation hit an account that was healthy at the true price.
    by
        Who acted.
    detail
        One line for people.
    """

    t: int
    block: int
    deed: Deed
    account: str
    debt: str = ""
    debt_raw: int = 0
    collateral: str = ""
    collateral_raw: int = 0
    debt_value: Fraction = Fraction(0)
    collateral_value: Fraction = Fraction(0)
    wrong: bool = False
    by: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Level:
    """The book at the end of one step, values in quote currency.

    Attributes
    ----------
    bad_debt
        ``Σ max(0, debt − collateral · (1 − slippage))`` over accounts, at true prices.
    borrowable, borrowable_truth
        What all collateral allows to be borrowed at the protocol's prices (None when it has none), and at
        true ones.
    """

    t: int
    bad_debt: Fraction
    borrowable: Fraction | None
    borrowable_truth: Fraction


@dataclass(frozen=True, slots=True)
class Economics:
    """One run, guarded or not. Values are in the quote currency, exact, at true prices.

    Attributes
    ----------
    model
        What the accounts were played in, one line.
    guarded
        Whether the protocol acted on the guarded decision.
    events
        In time order.
    levels
        One a step.
    accounts
        As they are at the end, attackers' included.
    bad_debt
        At the end; `bad_debt_peak` is the most that it was.
    wrongly_liquidated
        Accounts liquidated while they were healthy at true prices, sorted.
    wrongly_seized, wrongly_lost
        Collateral taken from them, and what they lost: collateral less the debt that was repaid for it.
    liquidated, seized
        Number of liquidations, and the collateral of all of them.
    attacker_profit
        Over all borrowers: what they borrowed, less what they paid, plus what is left to them of their
        collateral at the end. Walking away from a debt is part of it.
    keeper_profit
        Collateral seized, sold with slippage, less debt repaid, less gas.
    """

    model: str
    guarded: bool
    events: tuple[Event, ...]
    levels: tuple[Level, ...]
    accounts: tuple[Account, ...]
    bad_debt: Fraction
    bad_debt_peak: Fraction
    wrongly_liquidated: tuple[str, ...]
    wrongly_seized: Fraction
    wrongly_lost: Fraction
    liquidated: int
    seized: Fraction
    attacker_profit: Fraction
    keeper_profit: Fraction


def bad_debt(
    accounts: Iterable[Account], truth: Mapping[str, Fraction], markets: Mapping[str, Market]
) -> Fraction:
    """Return what is owed beyond what collateral fetches: ``Σ max(0, debt − collateral · (1 − slippage))``.

    Parameters
    ----------
    accounts
        Collateral of one account does not cover another's debt.
    truth
        Asset to true price.
    markets
        Slippage by asset.
    """
    fetched = {a: price * (BPS - markets[a].slippage_bps) / BPS for a, price in truth.items()}
    return sum(
        (
            max(Fraction(0), _known(a.debt, truth, markets) - _known(a.collateral, fetched, markets))
            for a in accounts
        ),
        Fraction(0),
    )


def _known(
    amounts: Mapping[str, int], prices: Mapping[str, Fraction], markets: Mapping[str, Market]
) -> Fraction:
    worth = value(amounts, prices, markets)
    assert worth is not None, f"no true price of one of {sorted(amounts)}"
    return worth


def play_accounts(
    model: LendingModel,
    steps: Sequence[Step],
    positions: Sequence[Account],
    borrowers: Sequence[Borrower] = (),
    keepers: Sequence[Keeper] = (UNLIMITED_KEEPER,),
    *,
    guarded: bool = False,
    on_step: Callable[[int], None] | None = None,
) -> Economics:
    """Play accounts, borrowers and keepers through `steps`.

    At each step borrowers act first, in their order, then keepers on each account by id. A keeper liquidates
    while it pays: what it seizes, sold with slippage at the true price, is worth more than the debt that it
    repays and its gas. It takes the pair that pays most.

    A borrower tries at its time whatever comes of it; when that is refused, and when it names no time, it
    tries at each step at which the trade pays.

    Parameters
    ----------
    positions
        Accounts that are there at the start; ids are unique over positions and borrowers.
    guarded
        Told on; the prices in `steps` make the difference.
    on_step
        Called with the index of each step done, for a progress bar.
    """
    game = _Game(model, {a.id: a for a in positions}, list(keepers))
    for i, step in enumerate(steps):
        for borrower in borrowers:
            game.borrow(borrower, step)
        game.liquidate(step)
        game.close(step, borrowers)
        if on_step is not None:
            on_step(i)
    return game.result(steps, borrowers, guarded=guarded)


@dataclass(slots=True)
class _Game:
    """The state of one run."""

    model: LendingModel
    accounts: dict[str, Account]
    keepers: list[Keeper]
    events: list[Event] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    borrowed: dict[str, tuple[Fraction, Fraction]] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    lent: dict[str, int] = field(default_factory=dict)
    spent: dict[str, Fraction] = field(default_factory=dict)
    refused: set[tuple[Deed, str]] = field(default_factory=set)
    gas_paid: Fraction = Fraction(0)

    # ------------------------------------------------------------------------------------------ borrowers

    def borrow(self, who: Borrower, step: Step) -> None:
        """Let a borrower try once at `step`, unless it is done or its time has not come."""
        if who.id in self.borrowed or (who.at is not None and step.t < who.at):
            return
        markets = self.model.markets
        supplied = Account(who.id, {a: n for a, n in sorted(who.supplies.items()) if n}, {})
        paid = (_known(supplied.collateral, step.truth, markets) if who.pays else Fraction(0)) + who.cost
        amount = self._amount(who, supplied, step)
        got = step.truth[who.asset] * amount / markets[who.asset].unit
        first = who.at is not None and who.id not in self.tried
        self.tried.add(who.id)
        if amount and (first or got > paid):
            self.accounts[who.id] = supplied.moved(debt={who.asset: amount})
            self.borrowed[who.id] = (got, paid)
            self.lent[who.asset] = self.lent.get(who.asset, 0) + amount
            self.refused.discard((Deed.BORROW_REFUSED, who.id))
            collateral, held = _largest(supplied.collateral, step.truth, markets)
            self.events.append(
                Event(
                    step.t,
                    step.block,
                    Deed.BORROW,
                    who.id,
                    debt=who.asset,
                    debt_raw=amount,
                    debt_value=got,
                    collateral=collateral,
                    collateral_raw=held,
                    collateral_value=_known(supplied.collateral, step.truth, markets),
                    by=who.id,
                )
            )
            return
        why = _why(step.borrowing, supplied.assets(), who.asset)
        if why:
            self._tell_once(step, Deed.BORROW_REFUSED, who.id, why)
        elif first:
            self._tell_once(step, Deed.BORROW_REFUSED, who.id, f"{who.id} may borrow no {who.asset}")

    def _amount(self, who: Borrower, supplied: Account, step: Step) -> int:
        liquidity = self.model.markets[who.asset].liquidity_raw
        left = None if liquidity is None else liquidity - self.lent.get(who.asset, 0)
        most = self.model.borrowable(supplied, who.asset, step.borrowing, left)
        if who.borrows_raw is None:
            return most
        return who.borrows_raw if who.borrows_raw <= most else 0

    # -------------------------------------------------------------------------------------------- keepers

    def liquidate(self, step: Step) -> None:
        """Let the keepers liquidate what is due and pays."""
        working = [k for k in self.keepers if k.works(step)]
        for account_id in sorted(self.accounts):
            account = self.accounts[account_id]
            if not account.debt:
                continue
            due = self.model.due(account, step.liquidating)
            if due is None:
                why = _why(step.liquidating, account.assets())
                self._tell_once(step, Deed.LIQUIDATION_REFUSED, account_id, why or "no price")
                continue
            self.refused.discard((Deed.LIQUIDATION_REFUSED, account_id))
            if not due:
                self.refused.discard((Deed.KEEPER_IDLE, account_id))
                continue
            for keeper in working:
                self._clear(keeper, account_id, step)
            if self.model.due(self.accounts[account_id], step.liquidating):
                self._tell_once(step, Deed.KEEPER_IDLE, account_id, _idle(working, step))

    def _clear(self, keeper: Keeper, account_id: str, step: Step) -> None:
        gas = keeper.gas_units * (step.gas_price_usd or Fraction(0))
        for _ in range(MAX_ROUNDS):
            account = self.accounts[account_id]
            if not self.model.due(account, step.liquidating):
                return
            wrong = self.model.due(account, Quotes.same(step.truth)) is False
            paying = [
                (profit, seizure)
                for seizure in self._offers(keeper, account, step)
                if (profit := self._profit(seizure, step) - gas) > 0
            ]
            if not paying:
                return
            _, seizure = max(paying, key=lambda offer: offer[0])
            self._seize(keeper, account, seizure, step, wrong=wrong)
            self.gas_paid += gas

    def _offers(self, keeper: Keeper, account: Account, step: Step) -> Iterator[Seizure]:
        for debt in account.debt:
            most = NO_LIMIT
            if keeper.inventory is not None:
                left = keeper.inventory - self.spent.get(keeper.id, Fraction(0))
                most = max(0, int(left * self.model.markets[debt].unit / step.truth[debt]))
            for collateral in account.collateral:
                seizure = self.model.liquidate(
                    account, step.liquidating, collateral=collateral, debt=debt, most_raw=most
                )
                if seizure is not None:
                    yield seizure

    def _profit(self, seizure: Seizure, step: Step) -> Fraction:
        markets = self.model.markets
        sold = _worth(seizure.collateral, seizure.seized_raw, step.truth, markets)
        sold *= Fraction(BPS - markets[seizure.collateral].slippage_bps, BPS)
        return sold - _worth(seizure.debt, seizure.repaid_raw, step.truth, markets)

    def _seize(self, keeper: Keeper, account: Account, seizure: Seizure, step: Step, *, wrong: bool) -> None:
        markets = self.model.markets
        repaid = _worth(seizure.debt, seizure.repaid_raw, step.truth, markets)
        self.accounts[account.id] = seizure.after
        self.spent[keeper.id] = self.spent.get(keeper.id, Fraction(0)) + repaid
        self.events.append(
            Event(
                step.t,
                step.block,
                Deed.LIQUIDATE,
                account.id,
                debt=seizure.debt,
                debt_raw=seizure.repaid_raw,
                debt_value=repaid,
                collateral=seizure.collateral,
                collateral_raw=seizure.seized_raw,
                collateral_value=_worth(seizure.collateral, seizure.seized_raw, step.truth, markets),
                wrong=wrong,
                by=keeper.id,
            )
        )

    # --------------------------------------------------------------------------------------------- telling

    def _tell_once(self, step: Step, deed: Deed, account: str, detail: str) -> None:
        if (deed, account) not in self.refused:
            self.refused.add((deed, account))
            self.events.append(Event(step.t, step.block, deed, account, detail=detail))

    def close(self, step: Step, borrowers: Sequence[Borrower]) -> None:
        """Take the step's levels; borrowers' collateral counts before they act as well."""
        markets = self.model.markets
        waiting = [Account(b.id, b.supplies, {}) for b in borrowers if b.id not in self.borrowed]
        everybody = [*self.accounts.values(), *waiting]
        self.levels.append(
            Level(
                step.t,
                bad_debt(self.accounts.values(), step.truth, markets),
                _capacity(everybody, step.borrowing.collateral, markets),
                _capacity(everybody, step.truth, markets) or Fraction(0),
            )
        )

    def result(self, steps: Sequence[Step], borrowers: Sequence[Borrower], *, guarded: bool) -> Economics:
        """Return the run's figures."""
        seizures = [e for e in self.events if e.deed is Deed.LIQUIDATE]
        wrong = [e for e in seizures if e.wrong]
        markets = self.model.markets
        sold = sum(
            (e.collateral_value * (BPS - markets[e.collateral].slippage_bps) / BPS for e in seizures),
            Fraction(0),
        )
        profit = Fraction(0)
        for borrower in borrowers:
            if borrower.id in self.borrowed:
                got, paid = self.borrowed[borrower.id]
                account, truth = self.accounts[borrower.id], steps[-1].truth
                left = _known(account.collateral, truth, markets) - _known(account.debt, truth, markets)
                profit += got - paid + max(Fraction(0), left)
        return Economics(
            model=self.model.label,
            guarded=guarded,
            events=tuple(self.events),
            levels=tuple(self.levels),
            accounts=tuple(self.accounts[i] for i in sorted(self.accounts)),
            bad_debt=self.levels[-1].bad_debt if self.levels else Fraction(0),
            bad_debt_peak=max((level.bad_debt for level in self.levels), default=Fraction(0)),
            wrongly_liquidated=tuple(sorted({e.account for e in wrong})),
            wrongly_seized=_sum(e.collateral_value for e in wrong),
            wrongly_lost=_sum(e.collateral_value - e.debt_value for e in wrong),
            liquidated=len(seizures),
            seized=_sum(e.collateral_value for e in seizures),
            attacker_profit=profit,
            keeper_profit=sold - _sum(e.debt_value for e in seizures) - self.gas_paid,
        )


def _sum(values: Iterable[Fraction]) -> Fraction:
    return sum(values, Fraction(0))


def _worth(asset: str, raw: int, prices: Mapping[str, Fraction], markets: Mapping[str, Market]) -> Fraction:
    return prices[asset] * raw / markets[asset].unit


def _largest(
    amounts: Mapping[str, int], prices: Mapping[str, Fraction], markets: Mapping[str, Market]
) -> tuple[str, int]:
    """Return the asset with the most value, and its amount."""
    asset = max(amounts, key=lambda a: (_worth(a, amounts[a], prices, markets), a))
    return asset, amounts[asset]


def _why(quotes: Quotes, held: Iterable[str], borrowed: str = "") -> str:
    """Return why the protocol has no price of an asset that it needs; empty when it has all."""
    shut = [a for a in held if quotes.collateral.get(a) is None or quotes.debt.get(a) is None]
    if borrowed and quotes.debt.get(borrowed) is None:
        shut.append(borrowed)
    return "; ".join(f"{a}: {quotes.why.get(a, 'no price')}" for a in dict.fromkeys(shut))


def _idle(working: Sequence[Keeper], step: Step) -> str:
    """Return why an account that is due stays as it is."""
    if working:
        return "due, and no keeper finds that it pays"
    if step.base_fee_wei is None:
        return "due, and no keeper is there"
    return f"due, and no keeper acts at a base fee of {step.base_fee_wei / 10**9:.1f} gwei"


def _capacity(
    accounts: Iterable[Account], prices: Mapping[str, Fraction | None], markets: Mapping[str, Market]
) -> Fraction | None:
    total = Fraction(0)
    for account in accounts:
        for asset, raw in account.collateral.items():
            price = prices.get(asset)
            if price is None:
                return None
            total += price * raw * markets[asset].max_ltv_bps / (markets[asset].unit * BPS)
    return total
