"""The venues' published test cases as method, portfolio and market: what `marginline margin check` computes.

A reader turns one parsed file into cases. Which reader a method has stands in `readers`; another module of
this package adds its own with `reads`. A reader gets values, not paths: nothing here opens a file. Schemas:
reference of the margin engines, section 1.5, and the README of the vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeAlias

from pydantic import ValidationError

from contracts_abi.errors import InputError, UnknownNameError
from oracle.strict import input_error
from simulation.margin import margin_methods
from simulation.margin.derive_auction import TEST as AUCTION_TEST
from simulation.margin.derive_auction import Auction, DeriveAuction, View
from simulation.margin.derive_common import (
    BasisShock,
    Direction,
    OracleContingency,
    PegLoss,
    Scenario,
    VolShock,
    settlement_parts,
)
from simulation.margin.derive_pmrm import TEST as PMRM_TEST
from simulation.margin.derive_pmrm import DerivePmrm, PmrmParameters
from simulation.margin.derive_pmrm2 import (
    Collateral,
    DerivePmrm2,
    DerivePmrm21,
    Pmrm2Parameters,
    SkewShock,
    StaticDiscount,
)
from simulation.margin.derive_srm import Base, DeriveSrm, PerpRequirement, SrmParameters
from simulation.margin.result import MarginResult, PortfolioMethod
from simulation.portfolio.instruments import Option, Perpetual, Portfolio, Position, Spot
from simulation.portfolio.market import AssetPrice, Expiry, Market, Svi, Underlying
from simulation.types import MarginStatus

Json: TypeAlias = Any
Record: TypeAlias = dict[str, Any]
"""What is said of one case; plain data."""

INDEX = "INDEX"
"""Name of the underlying where a file gives it none."""
_DAY_S = 86_400
_WAD = 10**18
_DIRECTIONS = {direction.value.lower(): direction for direction in Direction}


class VectorCase(Protocol):
    """One case of a file."""

    @property
    def name(self) -> str:
        """The file's stem, with ``:key`` behind it where the file has several cases."""
        ...

    def record(self) -> Record:
        """Return what the method computes: ``case`` and figures, or ``case`` and ``refused``."""
        ...


Reader: TypeAlias = Callable[[str, Json], Iterator[VectorCase]]
"""From a file's stem and its value to its cases; raises what a missing key or a wrong type raises."""

_readers: dict[str, Reader] = {}


def reads(kind: str) -> Callable[[Reader], Reader]:
    """Return a decorator that enters a reader for the files of a method."""

    def enter(reader: Reader) -> Reader:
        _readers[kind] = reader
        return reader

    return enter


def readers() -> Mapping[str, Reader]:
    """Return the readers by method id, those of all modules of this package."""
    len(margin_methods)  # imports them
    return dict(sorted(_readers.items()))


def reader_of(kind: str) -> Reader:
    """Return the reader of a method's files.

    Raises
    ------
    InputError
        If there is no such method, or none of its cases are published.
    """
    known = readers()
    if kind in known:
        return known[kind]
    if kind in margin_methods:
        raise InputError(f"no venue publishes cases of {kind}", fix=f"known: {', '.join(known)}")
    raise UnknownNameError("margin method", kind, {*margin_methods, *known})


def cases_of(kind: str, stem: str, value: Json, *, where: str = "") -> tuple[VectorCase, ...]:
    """Return the cases of one file.

    Parameters
    ----------
    kind
        Id of the method that the file tests.
    stem
        Name of the file without folder and ending.
    value
        What the file holds, parsed.
    where
        How messages name the file; the stem by default.

    Raises
    ------
    InputError
        If there is no reader for the method, or the file has another schema.
    """
    reader = reader_of(kind)
    at = where or stem
    schema = f"give a vector file of {kind}"
    try:
        found = tuple(reader(stem, value))
    except KeyError as error:
        raise InputError(f"{at}: no key {error.args[0]!r}", fix=schema) from None
    except (AttributeError, IndexError, TypeError):
        # What Python says of a list in the place of an object tells nobody anything.
        found_type = "object" if isinstance(value, dict) else type(value).__name__
        raise InputError(f"{at}: its {found_type} holds no cases of {kind}", fix=schema) from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{at}: {error}", fix=schema) from None
    if not found:
        raise InputError(f"{at}: holds no case", fix=schema)
    return found


# ------------------------------------------------------------------------------------------------------ cases


@dataclass(frozen=True, slots=True)
class MarginCase:
    """A method, an account and a market.

    Attributes
    ----------
    name
        See `VectorCase`.
    method, portfolio, market
        What is computed.
    figures
        From the result to the figures that the file has, beside ``im`` and ``mm``.
    """

    name: str
    method: PortfolioMethod
    portfolio: Portfolio
    market: Market
    figures: Callable[[MarginResult], Record]

    def record(self) -> Record:
        """Return the figures, or why there are none."""
        try:
            result = self.method.margin(self.portfolio, self.market)
        except InputError as error:
            return {"case": self.name, "refused": str(error)}
        if result.status is MarginStatus.UNKNOWN:
            return {"case": self.name, "refused": f"unknown: {result.reason}"}
        return {
            "case": self.name,
            "im": result.initial,
            "mm": result.maintenance,
            **self.figures(result),
        }


@dataclass(frozen=True, slots=True)
class RefusedCase:
    """A case with parameters or inputs that the method does not take.

    Attributes
    ----------
    name
        See `VectorCase`.
    reason
        One line.
    """

    name: str
    reason: str

    def record(self) -> Record:
        """Return the reason."""
        return {"case": self.name, "refused": self.reason}


@dataclass(frozen=True, slots=True)
class AuctionCase:
    """An account, and what is bid for it at which market.

    Attributes
    ----------
    name
        See `VectorCase`.
    method, portfolio, market
        The auction's rules, the account and its market at the start.
    bids
        Market, volatility by option and wanted part of each bid.
    """

    name: str
    method: DeriveAuction
    portfolio: Portfolio
    market: Market
    bids: tuple[tuple[Market, Mapping[Option, float], float], ...]

    def record(self) -> Record:
        """Return the margins at the start, the fee and each bid, or why there are none."""
        try:
            auction = self.method.start(self.portfolio, self.market)
            at_start = self.method.margin(self.portfolio, self.market)
            bids = []
            for market, volatilities, want in self.bids:
                auction = replace(auction, portfolio=_revalued(auction.portfolio, volatilities))
                auction, said = _bid(auction, market, want)
                bids.append(said)
        except InputError as error:
            return {"case": self.name, "refused": str(error)}
        return {
            "case": self.name,
            "im": self.method.manager.margin(self.portfolio, self.market).initial,
            "mm": at_start.maintenance,
            "mtm": at_start.equity,
            "fee": auction.fee,
            "insolvent": auction.insolvent,
            "bids": bids,
        }


def _revalued(portfolio: Portfolio, volatilities: Mapping[Option, float]) -> Portfolio:
    """Return a portfolio whose options have the volatilities of another moment."""

    def moved(position: Position) -> Position:
        held = position.instrument
        now = volatilities.get(held) if isinstance(held, Option) else None
        return position if now is None else position.model_copy(update={"volatility": now})

    return portfolio.model_copy(update={"positions": tuple(map(moved, portfolio.positions))})


def _bid(auction: Auction, market: Market, want: float) -> tuple[Auction, Record]:
    after, bid = auction.bid(market, want)

    def shown(when: str, view: View) -> Record:
        return {
            f"{when}_mtm": view.mtm,
            f"{when}_mm": view.mm,
            f"{when}_bm": view.bm,
            f"{when}_fmax": view.fmax,
        }

    said = {
        "time": market.timestamp,
        **shown("pre", bid.before),
        "price": bid.paid,
        "fraction": bid.fraction,
        "of_original": bid.of_original,
        **shown("post", bid.after),
    }
    return after, said


def _built(name: str, build: Callable[[], VectorCase]) -> VectorCase:
    """Return a case, refused where its numbers are not allowed."""
    try:
        return build()
    except ValidationError as error:
        return RefusedCase(name, str(input_error(error, "")))
    except InputError as error:
        return RefusedCase(name, str(error))


def _number(value: Json) -> float:
    """Return a number of a file, some of which are text.

    Raises
    ------
    TypeError, ValueError
        If it is none.
    """
    if isinstance(value, bool) or value is None:
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _seconds(value: Json) -> int:
    found = _number(value)
    if not found.is_integer():
        raise InputError(f"{value!r} is no whole number of seconds", fix="round it")
    return int(found)


def _scenario(shock: Json, direction: Json, dampening: Json = 1) -> Scenario:
    known = _DIRECTIONS.get(str(direction).lower())
    if known is None:
        raise UnknownNameError("direction", str(direction), _DIRECTIONS)
    return Scenario(spot_shock=_number(shock), direction=known, dampening=_number(dampening))


# ----------------------------------------------------------------------------------------------- derive.pmrm2


@reads("derive.pmrm2")
def read_pmrm2(stem: str, value: Json) -> Iterator[VectorCase]:
    """Yield the one case of a PMRM 2 portfolio file."""
    yield _built(stem, lambda: _pmrm2_case(stem, value, DerivePmrm2))


@reads("derive.pmrm2.1")
def read_pmrm21(stem: str, value: Json) -> Iterator[VectorCase]:
    """Yield the one case of a PMRM 2 portfolio file, computed by 2.1 as an override of its account."""

    def with_override(parameters: Pmrm2Parameters) -> DerivePmrm21:
        return DerivePmrm21(overrides={"account": parameters})

    yield _built(stem, lambda: _pmrm2_case(stem, value, lambda parameters: with_override(parameters)))


def _pmrm2_case(stem: str, value: Json, method: Callable[..., DerivePmrm2]) -> VectorCase:
    scenario = value["Scenario"]
    tokens = _distinct([token["Name"] for token in scenario["Collaterals"]])
    parameters = _pmrm2_parameters(
        value["Parameters"], dict(zip(tokens, scenario["Collaterals"], strict=True))
    )
    perpetual = _number(scenario["NumPerps"])
    unrealised = _number(scenario["UnrealisedPerpPNL"]) + _number(scenario["UnrealisedFunding"])
    positions = [
        Position(instrument=Spot(asset=name), quantity=_number(token["Amount"]))
        for name, token in zip(tokens, scenario["Collaterals"], strict=True)
    ]
    if perpetual:
        positions.append(
            Position(instrument=Perpetual(underlying=INDEX), quantity=perpetual, unrealised=unrealised)
        )
    positions += [
        Position(
            instrument=Option(
                underlying=INDEX,
                expiry=_seconds(option["Expiry"]),
                strike=_number(option["Strike"]),
                call=bool(option["IsCall"]),
            ),
            quantity=_number(option["Amount"]),
        )
        for option in scenario["Options"]
    ]
    market = Market(
        underlyings={
            INDEX: Underlying(
                spot=_number(scenario["SpotPrice"]),
                perpetual=_number(scenario["PerpPrice"]) if perpetual else None,
                confidence=_number(scenario["SpotConfidence"]),
                perpetual_confidence=_number(scenario["PerpConfidence"]) if perpetual else 1.0,
                expiries={
                    _seconds(feed["FeedExpiry"]): _pmrm2_expiry(feed) for feed in scenario["OptionFeeds"]
                },
            )
        },
        assets={
            name: AssetPrice(price=_number(token["Price"]), confidence=_number(token["Confidence"]))
            for name, token in zip(tokens, scenario["Collaterals"], strict=True)
        },
        stable_price=_number(scenario["StablePrice"]),
        stable_confidence=_number(scenario["StableConfidence"]),
    )
    portfolio = Portfolio(cash=_number(scenario["Cash"]), positions=tuple(positions))
    chosen = method(parameters) if method is not DerivePmrm2 else DerivePmrm2(parameters=parameters)
    return MarginCase(stem, chosen, portfolio, market, _pmrm2_figures)


def _pmrm2_figures(result: MarginResult) -> Record:
    return {
        "mtm": result.equity,
        "option_mtm": result.components["option_mtm"],
        "collateral_mtm": result.components["collateral_mtm"],
        "scenarios": [row.profit for row in result.scenarios],
    }


def _distinct(names: list[str]) -> list[str]:
    """Return names with a number behind those that came before: one token may stand in a file twice."""
    return [name if name not in names[:i] else f"{name}#{i}" for i, name in enumerate(names)]


def _pmrm2_expiry(feed: Mapping[str, Json]) -> Expiry:
    """Return a feed; the forward of the last half hour is taken apart, for a part of it is settled."""
    seconds, forward = _seconds(feed["FeedExpiry"]), _number(feed["Forward"])
    a, b, rho, m, sigma, svi_forward, tau = (_number(each) for each in feed["SVIparam"])
    variable, fixed = settlement_parts(forward, seconds)
    return Expiry(
        forward=variable,
        fixed=fixed,
        rate=_number(feed["Rate"]),
        # Not MarkVol: it agrees but where the feed carries another time than the expiry's.
        surface=Svi(a=a, b=b, rho=rho, m=m, sigma=sigma, forward=svi_forward, tau=tau),
        forward_confidence=_number(feed["ForwardConfidence"]),
        rate_confidence=_number(feed["RateConfidence"]),
        vol_confidence=_number(feed["OptionVolConfidences"]),
    )


def _pmrm2_parameters(value: Json, tokens: Mapping[str, Json]) -> Pmrm2Parameters:
    skew, vol, margin = value["SkewShock"], value["VolShock"], value["Margin"]
    basis, other = value["BasisContingency"], value["OtherContingency"]
    return Pmrm2Parameters(
        scenarios=tuple(
            _scenario(each["SpotShock"], each["VolShockDirection"], each["DampeningFactor"])
            for each in value["Scenarios"]
        ),
        vol_shock=VolShock(
            range_up=_number(vol["VOLRANGEUP"]),
            range_down=_number(vol["VOLRANGEDOWN"]),
            short_power=_number(vol["SHORTTERMPOWER"]),
            long_power=_number(vol["LONGTERMPOWER"]),
            dte_floor_s=_number(vol["DTE_FLOOR"]) * _DAY_S,
            min_vol_up=_number(vol["MIN_VOL_EVAL_SHOCKED"]),
        ),
        skew=SkewShock(
            linear_cap=_number(skew["LINEAR_SCALE_CAP"]),
            abs_cap=_number(skew["ABS_SCALE_CAP"]),
            linear_cap_slope=_number(skew["LINEAR_CBASE"]),
            abs_cap_slope=_number(skew["ABS_CBASE"]),
            min_k_star=_number(skew["MIN_K_STAR"]),
            width_scale=_number(skew["MIN_WIDTH_SCALE"]),
            vol_static=_number(skew["VOL_PARAM_STATIC"]),
            vol_scale=_number(skew["VOL_PARAM_SCALE"]),
        ),
        discount=StaticDiscount(
            long_base=_number(margin["BASE_STATIC_DISCOUNT"]),
            short_base=_number(margin["BASE_STATIC_DISCOUNT_NEG"]),
            long_rate_mult=_number(margin["LONG_RATE_MULTSCALE"]),
            short_rate_mult=_number(margin["SHORT_RATE_MULTSCALE"]),
            long_rate_add=_number(margin["LONG_RATE_ADDSCALE"]),
            short_rate_add=_number(margin["SHORT_RATE_ADDSCALE"]),
        ),
        basis=BasisShock(
            up=_number(basis["SCENARIO_SPOT_UP"]),
            down=_number(basis["SCENARIO_SPOT_DOWN"]),
            add_factor=_number(basis["BASIS_CONT_ADD_FACTOR"]),
            mult_factor=_number(basis["BASIS_CONT_MULT_FACTOR"]),
        ),
        peg=PegLoss(threshold=_number(other["PEG_LOSS_THRESHOLD"]), factor=_number(other["PEG_LOSS_FACTOR"])),
        oracle=OracleContingency(
            threshold=_number(other["CONF_THRESHOLD"]), margin=_number(other["CONF_MARGIN"])
        ),
        im_factor=_number(margin["IM_LOSS_FACTOR"]),
        mm_factor=_number(margin["MM_LOSS_FACTOR"]),
        mm_perp=_number(other["MM_PERP_PERCENT"]),
        im_perp=_number(other["IM_PERP_PERCENT"]),
        mm_option=_number(other["MM_OPTION_PERCENT"]),
        im_option=_number(other["IM_OPTION_PERCENT"]),
        collaterals={
            name: Collateral(
                mm_haircut=_number(token["MMHaircut"]),
                im_haircut=_number(token["IMHaircut"]),
                risk_cancelling=bool(token["IsRiskCancelling"]),
            )
            for name, token in tokens.items()
        },
    )


# ------------------------------------------------------------------------------------------------ derive.pmrm


@reads("derive.pmrm")
def read_pmrm(stem: str, value: Json) -> Iterator[VectorCase]:
    """Yield the cases of a PMRM file, which writes out every input."""
    for key, case in value.items():
        name = f"{stem}:{key}"
        yield _built(name, partial(_pmrm_case, name, case))


def _pmrm_case(name: str, case: Json) -> VectorCase:
    p = case["params"]
    parameters = PmrmParameters(
        scenarios=tuple(_scenario(*each) for each in p["scenarios"]),
        vol_shock=VolShock(
            range_up=_number(p["vol_range_up"]),
            range_down=_number(p["vol_range_down"]),
            short_power=_number(p["short_term_power"]),
            long_power=_number(p["long_term_power"]),
            dte_floor_s=_number(p["dte_floor_seconds"]),
        ),
        basis=BasisShock(
            up=_number(p["basis_up"]),
            down=_number(p["basis_down"]),
            add_factor=_number(p["basis_add"]),
            mult_factor=_number(p["basis_mult"]),
        ),
        peg=PegLoss(threshold=_number(p["peg_threshold"]), factor=_number(p["peg_factor"])),
        oracle=OracleContingency(
            threshold=_number(p["confidence_threshold"]), margin=_number(p["confidence_margin"])
        ),
        im_factor=_number(p["im_factor"]),
        base_static_discount=_number(p["base_static_discount"]),
        rate_mult=_number(p["rate_mult"]),
        rate_add=_number(p["rate_add"]),
        base_contingency=_number(p["base_contingency"]),
        perp_contingency=_number(p["perp_contingency"]),
        option_contingency=_number(p["option_contingency"]),
    )
    positions, feed = _written_out(INDEX, case, "value")
    market = Market(underlyings={INDEX: feed}, stable_price=_number(case["stable_price"]))
    portfolio = Portfolio(cash=_number(case["cash"]), positions=positions)
    method = DerivePmrm(parameters=parameters, underlying=INDEX)
    return MarginCase(name, method, portfolio, market, _expected_figures(case))


def _expected_figures(case: Json) -> Callable[[MarginResult], Record]:
    """Return which figures a written-out case has beside the two margins."""
    return (lambda result: {"mtm": result.equity}) if "mtm" in case.get("expected", {}) else (lambda _: {})


def _written_out(symbol: str, case: Json, unrealised: str) -> tuple[tuple[Position, ...], Underlying]:
    """Return positions and feeds of one underlying of a written-out case.

    `unrealised` is the key of the perpetual's profit. A confidence there is the least of all that enter.
    """
    perpetual, base = case["perp"], _number(case["base_qty"])
    size = _number(perpetual["qty"])
    positions = [Position(instrument=Spot(asset=symbol), quantity=base)] if base else []
    if size:
        positions.append(
            Position(
                instrument=Perpetual(underlying=symbol),
                quantity=size,
                unrealised=_number(perpetual[unrealised]),
            )
        )
    expiries = {}
    for each in case["expiries"]:
        seconds = _seconds(each["seconds"])
        if seconds in expiries:
            raise InputError(f"two expiries in {seconds} seconds", fix="make them one")
        expiries[seconds] = Expiry(
            forward=_number(each["forward_variable"] if "forward_variable" in each else each["forward"]),
            fixed=_number(each.get("forward_fixed", 0)),
            rate=_number(each.get("rate", 0)),
            forward_confidence=_number(each["confidence"]),
        )
        positions += [
            Position(
                instrument=Option(
                    underlying=symbol,
                    expiry=seconds,
                    strike=_number(option["strike"]),
                    call=bool(option["is_call"]),
                ),
                quantity=_number(option["amount"]),
                volatility=_number(option["vol"]),
            )
            for option in each["options"]
        ]
    feed = Underlying(
        spot=_number(case["spot"]),
        perpetual=_number(perpetual["price"]) if size else None,
        confidence=_number(case["spot_confidence"]),
        perpetual_confidence=_number(perpetual["confidence"]) if size else 1.0,
        expiries=expiries,
    )
    return tuple(positions), feed


# ------------------------------------------------------------------------------------------------- derive.srm


@reads("derive.srm")
def read_srm(stem: str, value: Json) -> Iterator[VectorCase]:
    """Yield the cases of a standard manager's file, which writes out every input."""
    for key, case in value.items():
        name = f"{stem}:{key}"
        yield _built(name, partial(_srm_case, name, case))


_SRM_PLAIN = (
    "max_spot_req",
    "min_spot_req",
    "mm_call_spot_req",
    "mm_put_spot_req",
    "mm_put_mtm_req",
    "unpaired_im_scale",
    "unpaired_mm_scale",
    "mm_offset_scale",
    "perp_confidence_threshold",
    "option_confidence_threshold",
    "base_confidence_threshold",
    "oracle_contingency_factor",
    "depeg_threshold",
    "depeg_factor",
)


def _srm_case(name: str, case: Json) -> VectorCase:
    p, markets = case["params"], case["markets"]
    symbols = [market["underlying"] for market in markets]
    base = Base(margin_factor=_number(p["base_margin_factor"]), im_scale=_number(p["base_im_scale"]))
    parameters = SrmParameters(
        perp=PerpRequirement(mm=_number(p["mm_perp"]), im=_number(p["im_perp"])),
        bases=dict.fromkeys(symbols, base),
        **{key: _number(p[key]) for key in _SRM_PLAIN},
    )
    read = [
        _written_out(symbol, market, "unrealised") for symbol, market in zip(symbols, markets, strict=True)
    ]
    portfolio = Portfolio(
        cash=_number(case["cash"]),
        positions=tuple(position for positions, _ in read for position in positions),
    )
    market = Market(
        underlyings={symbol: feed for symbol, (_, feed) in zip(symbols, read, strict=True)},
        stable_price=_number(case["stable_price"]),
    )
    return MarginCase(name, DeriveSrm(parameters=parameters), portfolio, market, _expected_figures(case))


# --------------------------------------------------------------------------------------------- derive.auction


@reads("derive.auction")
def read_auction(stem: str, value: Json) -> Iterator[VectorCase]:
    """Yield the runs of an auction file: PMRM and the auction, both with their test parameters."""
    for key, run in value.items():
        name = f"{stem}:{key}"
        yield _built(name, partial(_auction_case, name, run))


def _auction_case(name: str, run: Json) -> VectorCase:
    method = DeriveAuction(
        parameters=AUCTION_TEST, manager=DerivePmrm(parameters=PMRM_TEST, underlying=INDEX)
    )
    start = _seconds(run["StartTime"])
    portfolio, market = _auction_state(run["InitialPortfolio"], start)
    bids = []
    for action in run["Actions"]:
        time = start + _seconds(action["Time"])
        # Only the prices: what the account holds by then, the auction knows.
        stated, priced = _auction_state(action["PortfolioAndFeeds"], time)
        volatilities = {
            position.instrument: position.volatility
            for position in stated.positions
            if isinstance(position.instrument, Option) and position.volatility is not None
        }
        bids.append((priced, volatilities, _wad(action["Liquidator"]["PercentWant"])))
    return AuctionCase(name, method, portfolio, market, tuple(bids))


def _wad(value: Json) -> float:
    return int(value) / _WAD


def _auction_state(state: Json, time: int) -> tuple[Portfolio, Market]:
    """Return account and market of a run at a time; expiries count from the start."""
    columns = ("OptionExpiries", "OptionStrikes", "OptionIsCall", "OptionAmounts", "OptionVols")
    positions = [
        Position(
            instrument=Option(
                underlying=INDEX, expiry=_seconds(expiry), strike=_wad(strike), call=bool(call)
            ),
            quantity=_wad(amount),
            volatility=_wad(volatility),
        )
        for expiry, strike, call, amount, volatility in zip(*(state[c] for c in columns), strict=True)
    ]
    size, base = _wad(state["Perps"]), _wad(state["Base"])
    if base:
        positions.append(Position(instrument=Spot(asset=INDEX), quantity=base))
    if size:
        unrealised = _wad(state["UnrealisedPerpPNL"]) + _wad(state["UnrealisedFunding"])
        positions.append(
            Position(instrument=Perpetual(underlying=INDEX), quantity=size, unrealised=unrealised)
        )
    columns = ("FeedExpiries", "ForwardsVariable", "ForwardsFixed", "Rates", "ForwardConfidences")
    feeds = zip(*(state[c] for c in columns), state["RateConfidences"], strict=True)
    # One for each option in the file, one for each expiry on chain: the last one written holds.
    sure_vols = dict(zip(state["OptionExpiries"], map(_wad, state["OptionVolConfidences"]), strict=True))
    market = Market(
        timestamp=time,
        underlyings={
            INDEX: Underlying(
                spot=_wad(state["SpotPrice"]),
                perpetual=_wad(state["PerpPrice"]) if size else None,
                confidence=_wad(state["SpotConfidence"]),
                perpetual_confidence=_wad(state["PerpConfidence"]) if size else 1.0,
                expiries={
                    _seconds(expiry): Expiry(
                        forward=_wad(variable),
                        fixed=_wad(fixed),
                        rate=_wad(rate),
                        forward_confidence=_wad(sure),
                        rate_confidence=_wad(rate_sure),
                        vol_confidence=sure_vols.get(expiry, 1.0),
                    )
                    for expiry, variable, fixed, rate, sure, rate_sure in feeds
                },
            )
        },
        stable_price=_wad(state["StablePrice"]),
        stable_confidence=_wad(state["StableConfidence"]),
    )
    return Portfolio(cash=_wad(state["Cash"]), positions=tuple(positions)), market
