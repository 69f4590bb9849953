"""From a scenario and its replay to the market that the accounts are played in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Final

from contracts_abi.errors import InputError, UnknownNameError
from oracle.decisions import Purpose, Side, decide
from oracle.scenario import base_fee_at, feed_pair
from oracle.types import NoData, PriceObs
from simulation.replay.economics import UNLIMITED_KEEPER, Borrower, Keeper, Step
from simulation.replay.lending import AaveModel, Account, LendingModel, LtvModel, Market, Quotes
from simulation.replay.seams import Actor, Moment, Replay, Scenario, truth_at

USD: Final = "USD"
GWEI: Final = 10**9

NATIVE: Final[Mapping[int, str]] = {1: "ETH", 10: "ETH", 56: "BNB", 137: "MATIC", 250: "FTM", 43_114: "AVAX"}
"""Chain id to the token that gas is paid in; ETH on all others (most layer 2 chains)."""


@dataclass(frozen=True, slots=True)
class Pricing:
    """How one asset gets its price.

    Attributes
    ----------
    pair
        Pair whose truth it has; None counts 1.
    feed
        Feed that the protocol reads; None when the protocol is taken to know the truth.
    via
        Pair that turns the quote into dollars; None when it is dollars already.
    """

    pair: str | None
    feed: str | None
    via: str | None


@dataclass(frozen=True, slots=True)
class Setting:
    """Who is played, and in what.

    Attributes
    ----------
    model
        The lending model.
    positions, borrowers, keepers
        Who is there.
    pricing
        Asset to how it is priced.
    quote
        Currency of all values.
    exact
        False where a generic model stands in for the protocol.
    notes
        What was assumed where the scenario is silent, one line each.
    """

    model: LendingModel
    positions: tuple[Account, ...]
    borrowers: tuple[Borrower, ...]
    keepers: tuple[Keeper, ...]
    pricing: Mapping[str, Pricing]
    quote: str
    exact: bool
    notes: tuple[str, ...]


def setting_of(scenario: Scenario) -> Setting | None:
    """Return what a scenario's accounts are played in; None when it names no protocol.

    Raises
    ------
    InputError
        If an asset is used that has no market, or cannot be valued with the others.
    """
    spec = scenario.protocol
    if spec is None or not spec.markets:
        return None
    markets = {symbol: _market(scenario, symbol) for symbol in spec.markets}
    pricing, quote = _pricing(scenario)
    _require_markets(scenario, markets)
    notes = [
        f"no feed of the protocol prices {symbol}: it is taken to know the truth"
        for symbol, how in pricing.items()
        if how.feed is None and how.pair is not None
    ]
    notes += [f"{symbol} has no pair and counts 1 {quote}" for symbol, how in pricing.items() if not how.pair]
    model: LendingModel
    if spec.model == "aave_v3":
        model = AaveModel(markets)
    else:
        stands_for = "" if spec.model == "ltv" else spec.model.replace("_", " ")
        model = LtvModel(markets, spec.close_factor_bps, stands_for)
    keepers = tuple(_keeper(actor) for actor in scenario.actors if actor.role == "keeper")
    if not keepers:
        keepers = (UNLIMITED_KEEPER,)
        notes.append("the scenario names no keeper: one without limits is assumed")
    if any(k.gas_units for k in keepers) and _gas_pair(scenario) is None:
        notes.append("gas costs nothing: the scenario has no gas series, or no price of the native token")
    return Setting(
        model=model,
        positions=tuple(
            Account(p.id, _raw(markets, p.collateral), _raw(markets, p.debt)) for p in scenario.positions
        ),
        borrowers=tuple(_borrower(markets, actor) for actor in scenario.actors if actor.role == "borrower"),
        keepers=keepers,
        pricing=pricing,
        quote=quote,
        exact=spec.model == "aave_v3",
        notes=tuple(notes),
    )


def _market(scenario: Scenario, symbol: str) -> Market:
    assert scenario.protocol is not None
    spec = scenario.protocol.markets[symbol]
    asset = scenario.assets.get(symbol)
    if asset is None:
        raise InputError(
            f"protocol.markets.{symbol}: no such asset", fix=f"one of: {', '.join(scenario.assets)}"
        )
    return Market(
        symbol=symbol,
        decimals=asset.decimals,
        max_ltv_bps=spec.max_ltv_bps,
        liquidation_threshold_bps=spec.liquidation_threshold_bps,
        liquidation_bonus_bps=spec.liquidation_bonus_bps,
        slippage_bps=spec.slippage_bps,
        liquidity_raw=None if spec.liquidity is None else _units(spec.liquidity, asset.decimals),
    )


def _units(amount: Decimal, decimals: int) -> int:
    """Return whole tokens as token units, rounded down."""
    return int(Fraction(amount) * 10**decimals)


def _raw(markets: Mapping[str, Market], amounts: Mapping[str, Decimal]) -> dict[str, int]:
    raw = {asset: _units(amount, markets[asset].decimals) for asset, amount in sorted(amounts.items())}
    return {asset: amount for asset, amount in raw.items() if amount}


def _require_markets(scenario: Scenario, markets: Mapping[str, Market]) -> None:
    used = {a for p in scenario.positions for a in (*p.collateral, *p.debt)}
    used |= {a for actor in scenario.actors if actor.role == "borrower" for a in actor.supplies}
    used |= {a.asset for a in scenario.actors if a.role == "borrower" and a.asset is not None}
    for asset in sorted(used - set(markets)):
        raise InputError(
            f"{asset} is lent or supplied without a market", fix=f"add [protocol.markets.{asset}]"
        )
    ids = [p.id for p in scenario.positions] + [a.id for a in scenario.actors if a.role == "borrower"]
    twice = {i for i in ids if ids.count(i) > 1}
    if twice:
        raise InputError(f"two accounts are called {min(twice)!r}", fix="give each an id of its own")


def _pricing(scenario: Scenario) -> tuple[dict[str, Pricing], str]:
    """Return how each asset is priced, and the currency of all values."""
    assert scenario.protocol is not None
    found: dict[str, tuple[str | None, str | None]] = {}
    for symbol, spec in scenario.protocol.markets.items():
        pair = spec.pair or scenario.assets[symbol].pair
        feed = spec.feed
        if feed is not None:
            _require_read(scenario, f"protocol.markets.{symbol}", feed)
            pair = spec.pair or feed_pair(scenario, feed)
        elif pair is not None:
            readers = [
                n
                for n, f in scenario.feeds.items()
                if f.role == "protocol" and feed_pair(scenario, n) == pair
            ]
            if len(readers) > 1:
                raise InputError(
                    f"protocol.markets.{symbol}: {len(readers)} protocol feeds tell {pair}",
                    fix=f"name one: feed = {readers[0]!r}",
                )
            feed = readers[0] if readers else None
        found[symbol] = (pair, feed)
    quotes = {pair.split("/")[1] for pair, _ in found.values() if pair is not None}
    quote = quotes.pop() if len(quotes) == 1 else USD
    pricing = {}
    for symbol, (pair, feed) in found.items():
        own = quote if pair is None else pair.split("/")[1]
        via = None if own == quote else f"{own}/{quote}"
        if via is not None and via not in scenario.truth:
            raise InputError(
                f"protocol.markets.{symbol}: {pair} cannot be valued in {quote}", fix=f"add [truth.{via!r}]"
            )
        pricing[symbol] = Pricing(pair, feed, via)
    return pricing, quote


def _require_read(scenario: Scenario, where: str, feed: str) -> None:
    """Refuse a feed that is not there, or that no protocol reads."""
    if feed not in scenario.feeds:
        raise UnknownNameError(f"feed in {where}:", feed, scenario.feeds)
    role = scenario.feeds[feed].role
    if role == "reference" or (role == "part" and feed_pair(scenario, feed) not in scenario.truth):
        raise InputError(f"{where}: {feed} is a {role}, which no protocol reads", fix="name another feed")


def _borrower(markets: Mapping[str, Market], actor: Actor) -> Borrower:
    if actor.asset is None:
        raise InputError(f"actor {actor.id} borrows nothing", fix="name the asset")
    amount = None if actor.borrows == "max" else _units(Decimal(actor.borrows), markets[actor.asset].decimals)
    return Borrower(
        id=actor.id,
        supplies=_raw(markets, actor.supplies),
        asset=actor.asset,
        borrows_raw=amount,
        at=actor.at,
        pays=actor.buys_at == "truth",
        cost=Fraction(actor.cost_usd or 0),
    )


def _keeper(actor: Actor) -> Keeper:
    cap = actor.gas_cap_gwei
    return Keeper(
        id=actor.id,
        gas_cap_wei=None if cap is None else int(Fraction(cap) * GWEI),
        gas_units=actor.gas_units or 0,
        inventory=None if actor.inventory_usd is None else Fraction(actor.inventory_usd),
        start=actor.from_,
        end=actor.until,
    )


def _gas_pair(scenario: Scenario) -> str | None:
    """Return the pair that gas is valued with; None when gas cannot be valued."""
    pair = f"{NATIVE.get(scenario.chain.id, 'ETH')}/{USD}"
    known = scenario.gas is not None or any(fault.op == "gas" for fault in scenario.faults)
    return pair if known and pair in scenario.truth else None


class Run(StrEnum):
    """What the protocol acts on."""

    UNGUARDED = "unguarded"
    GUARDED = "guarded"
    TRUTHFUL = "truthful"


def steps_of(replay: Replay, setting: Setting, run: Run) -> tuple[Step, ...]:
    """Return the market step by step.

    Unguarded the protocol acts on what the feeds say, guarded on what the adapter decides, truthful on the
    truth.
    """
    return tuple(_step(replay.scenario, moment, setting, run) for moment in replay.moments)


def _step(scenario: Scenario, moment: Moment, setting: Setting, run: Run) -> Step:
    truth: dict[str, Fraction] = {}
    worth: dict[str, Fraction] = {}
    for symbol, how in setting.pricing.items():
        worth[symbol] = Fraction(1) if how.via is None else truth_at(scenario, how.via, moment.t)
        own = Fraction(1) if how.pair is None else truth_at(scenario, how.pair, moment.t)
        truth[symbol] = own * worth[symbol]
    if run is Run.GUARDED:
        borrowing = _decided(moment, setting, truth, worth, Purpose.BORROW)
        liquidating = _decided(moment, setting, truth, worth, Purpose.LIQUIDATE)
    elif run is Run.UNGUARDED:
        borrowing = liquidating = _said(moment, setting, truth, worth)
    else:
        borrowing = liquidating = Quotes.same(truth)
    fee = base_fee_at(scenario, moment.t)
    pair = _gas_pair(scenario)
    gas = None
    if fee is not None and pair is not None:
        gas = Fraction(fee, 10**18) * truth_at(scenario, pair, moment.t)
    return Step(moment.t, moment.block, truth, borrowing, liquidating, fee, gas)


def _said(
    moment: Moment, setting: Setting, truth: Mapping[str, Fraction], worth: Mapping[str, Fraction]
) -> Quotes:
    """Return what the feeds say; no answer reverts in any protocol, and so does one below zero."""
    prices: dict[str, Fraction | None] = {}
    why: dict[str, str] = {}
    for symbol, how in setting.pricing.items():
        if how.feed is None:
            prices[symbol] = truth[symbol]
            continue
        reading = moment.feeds[how.feed].reading
        if isinstance(reading, NoData):
            prices[symbol], why[symbol] = None, f"no data: {reading.reason}"
        elif reading.mantissa < 0:
            prices[symbol], why[symbol] = None, "the price is negative"
        else:
            prices[symbol] = _price(reading) * worth[symbol]
    return Quotes(prices, prices, why)


def _decided(
    moment: Moment,
    setting: Setting,
    truth: Mapping[str, Fraction],
    worth: Mapping[str, Fraction],
    purpose: Purpose,
) -> Quotes:
    """Return the prices that the guarded decision allows for `purpose`, on either side of an account."""
    sides: dict[Side, dict[str, Fraction | None]] = {Side.COLLATERAL: {}, Side.DEBT: {}}
    why: dict[str, str] = {}
    for symbol, how in setting.pricing.items():
        for side, prices in sides.items():
            if how.feed is None:
                prices[symbol] = truth[symbol]
                continue
            decision = decide(moment.adapted[how.feed], purpose, side)
            if decision.allowed and decision.price is not None:
                prices[symbol] = _price(decision.price) * worth[symbol]
            else:
                prices[symbol] = None
                why.setdefault(symbol, decision.reason)
    return Quotes(sides[Side.COLLATERAL], sides[Side.DEBT], why)


def _price(obs: PriceObs) -> Fraction:
    return Fraction(obs.mantissa, 10**obs.decimals)
