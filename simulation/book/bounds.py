"""What a shared book may hold: names that exist, parameters that the protocol takes, debts that it gives.

The bounds are those of the contracts' own setters. Aave: `PoolConfigurator.configureReserveAsCollateral` and
`setEModeCategory`, `ReserveConfiguration`, `DefaultReserveInterestRateStrategyV2`. Morpho Blue: `enableLltv`,
`setFee`, and the incentive factor that follows from the LLTV. Compound III: the constructor of
`CometWithExtendedAssetList`. They were read in source (the reference's sections 3.1 to 3.3); of V2 and of the
rate strategy's bounds nothing was run here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np

from contracts_abi.errors import InputError, UnknownNameError
from simulation.book.health import lending_accounts, perp_accounts
from simulation.book.types import (
    USD,
    EMode,
    LendingVenue,
    PerpVenue,
    Reserve,
    SharedBook,
    Side,
    Token,
)
from simulation.fixed_point import BPS, WAD, percent_mul
from simulation.protocols.morpho_blue.morpho import liquidation_incentive_factor

AAVE_V2: Final = "aave-v2"
AAVE_V3: Final = "aave-v3"
AAVE_V3_6: Final = "aave-v3.6"
MORPHO_BLUE: Final = "morpho-blue"
COMPOUND_V3: Final = "compound-v3"
LENDING_KINDS: Final = (AAVE_V2, AAVE_V3, AAVE_V3_6, MORPHO_BLUE, COMPOUND_V3)

MAX_AAVE_CAP: Final = 2**36 - 1
"""Whole tokens: 36 bits of the configuration word (`ReserveConfiguration.MAX_VALID_SUPPLY_CAP`)."""
MAX_EMODE: Final = 255
MAX_MORPHO_FEE_BPS: Final = 2_500
"""`ConstantsLib.MAX_FEE` of Morpho Blue."""
MAX_RATE: Final = 10.0
"""1,000 % a year, the most that Aave's rate strategy takes."""

_WHOLE: Final = 1e-9
"""Relative; what sums of floats may miss."""


def check_book(book: SharedBook, where: str = "book", *, over_limit: bool = False) -> None:
    """Refuse a book that cannot be: the first problem, as one line.

    Parameters
    ----------
    book
        Its columns hold valid indices.
    where
        Stands at the head of messages.
    over_limit
        Whether accounts may owe more than they could borrow now, as after a price move.

    Raises
    ------
    InputError, UnknownNameError
        Naming the part, the value, the limit and the fix.
    """
    check_tokens(book.tokens, where)
    known = [token.symbol for token in book.tokens]
    names = [*(venue.name for venue in book.lending), *(venue.name for venue in book.perps)]
    _once(names, "venue", where)
    for venue in book.lending:
        check_lending_venue(venue, known, f"{where}: lending {venue.name}")
    for perp in book.perps:
        check_perp_venue(perp, known, f"{where}: perps {perp.name}")
    for i, exit_ in enumerate(book.exits):
        for key, token in (("token", exit_.token), ("quote", exit_.quote)):
            if token != USD or key == "token":
                require_known("token", token, known, f"{where}: exit.{i}.{key}")
    _check_positions(book, where, over_limit=over_limit)
    if not over_limit:
        check_limits(book, where)
    _check_liquidity(book, where)


def require_known(what: str, name: str, known: Iterable[str], where: str) -> None:
    """Refuse a name that is not in `known`, with the nearest that are."""
    known = tuple(known)
    if name not in known:
        unknown = UnknownNameError(what, name, known)
        raise InputError(f"{where}: {unknown.message}", fix=unknown.fix)


def _once(names: Iterable[str], what: str, where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if not name:
            raise InputError(f"{where}: a {what} has no name", fix="give it one")
        if name in seen:
            raise InputError(f"{where}: {what} {name!r} stands twice", fix="rename or remove one")
        seen.add(name)


# --------------------------------------------------------------------------------------------------- tokens


def check_tokens(tokens: Iterable[Token], where: str) -> None:
    """Refuse a token without a price, and backing that is not there or goes round in a circle."""
    tokens = tuple(tokens)
    _once((token.symbol for token in tokens), "token", where)
    backing: dict[str, str] = {}
    for token in tokens:
        at = f"{where}: tokens.{token.symbol}"
        if token.symbol == USD:
            raise InputError(f"{at}: {USD} is the unit of prices and no token", fix="rename it")
        if not (math.isfinite(token.price) and token.price > 0):
            raise InputError(f"{at}.price: {token.price} is no price", fix="give US dollars above 0")
        if not 0 <= token.decimals <= MAX_EMODE:
            raise InputError(f"{at}.decimals: {token.decimals} is not in 0 to 255", fix="mostly 18, 8 or 6")
        if token.backing is None:
            continue
        if token.backing.token != USD:
            require_known(
                "token", token.backing.token, [*(t.symbol for t in tokens), USD], f"{at}.backing.token"
            )
            backing[token.symbol] = token.backing.token
        for key, value, most in (
            ("rate", token.backing.rate, math.inf),
            ("reserve_ratio", token.backing.reserve_ratio, math.inf),
        ):
            if not 0 < value < most:
                raise InputError(f"{at}.backing.{key}: {value} is not above 0", fix="1 means one for one")
    for start in backing:
        path = [start]
        while path[-1] in backing:
            path.append(backing[path[-1]])
            if path[-1] in path[:-1]:
                circle = " -> ".join(path[path.index(path[-1]) :])
                raise InputError(
                    f"{where}: tokens.{path[-1]}.backing goes round in a circle: {circle}",
                    fix=f"let one of them stand for itself, or be backed by {USD}",
                )


# --------------------------------------------------------------------------------------------------- venues


def check_lending_venue(venue: LendingVenue, tokens: Iterable[str], where: str) -> None:
    """Refuse a lending venue whose parameters its protocol would not take."""
    require_known("kind", venue.kind, LENDING_KINDS, f"{where}: kind")
    _once((reserve.token for reserve in venue.reserves), "reserve", where)
    if not venue.reserves:
        raise InputError(f"{where}: has no reserves", fix="add one for each token")
    for reserve in venue.reserves:
        at = f"{where}: reserves.{reserve.token}"
        require_known("token", reserve.token, tokens, at)
        _check_reserve(reserve, at)
        _BY_KIND[venue.kind](venue, reserve, at)
    listed = [reserve.token for reserve in venue.reserves]
    if venue.emodes and venue.kind not in (AAVE_V3, AAVE_V3_6):
        raise InputError(f"{where}: {venue.kind} has no eMode categories", fix="remove them")
    if venue.target_reserves is not None and venue.kind != COMPOUND_V3:
        raise InputError(f"{where}: target_reserves: {venue.kind} has no store front", fix="leave it out")
    seen: set[int] = set()
    for category in venue.emodes:
        at = f"{where}: emode.{category.id}"
        if not 1 <= category.id <= MAX_EMODE:
            raise InputError(f"{at}: id {category.id} is not in 1 to {MAX_EMODE}", fix="0 is no category")
        if category.id in seen:
            raise InputError(f"{at}: id {category.id} stands twice", fix="give each category its own")
        seen.add(category.id)
        for token in category.tokens:
            require_known("reserve", token, listed, f"{at}.tokens")
        for token in category.borrowable or ():
            require_known("reserve", token, listed, f"{at}.borrowable")
        if category.ltv_bps == 0:
            raise InputError(f"{at}.ltv_bps: 0 is not in 1 to {BPS}", fix="remove the category")
        _check_collateral(category, at)


def _check_reserve(reserve: Reserve, at: str) -> None:
    for key in ("ltv_bps", "liquidation_threshold_bps", "protocol_fee_bps", "reserve_factor_bps"):
        value = getattr(reserve, key)
        if not 0 <= value <= BPS:
            raise InputError(f"{at}.{key}: {value} is not in 0 to {BPS}", fix="give basis points")
    for key in ("idle_supply", "reserves", "outside_debt"):
        value = getattr(reserve, key)
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{at}.{key}: {value} is not 0 or more", fix="give whole tokens")
    for key in ("supply_cap", "borrow_cap"):
        value = getattr(reserve, key)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"{at}.{key}: {value} is not above 0", fix="leave it out for no cap")
    _check_collateral(reserve, at)
    rate = reserve.rate
    if not 0 < rate.optimal < 1:
        raise InputError(f"{at}.rate.optimal: {rate.optimal} is not inside 0 and 1", fix="write 90 % as 0.9")
    for key in ("base", "slope1", "slope2"):
        value = getattr(rate, key)
        if not 0 <= value <= MAX_RATE:
            raise InputError(
                f"{at}.rate.{key}: {value} is not in 0 to {MAX_RATE:g} a year", fix="write 4 % as 0.04"
            )


def _check_collateral(part: Reserve | EMode, at: str) -> None:
    """Check what Aave's configurator checks, and what holds of every protocol here."""
    ltv, threshold, bonus = part.ltv_bps, part.liquidation_threshold_bps, part.liquidation_bonus_bps
    if threshold < ltv:
        raise InputError(
            f"{at}: liquidation_threshold_bps {threshold} is below ltv_bps {ltv}",
            fix="whoever borrowed the most would be liquidated at once: raise the one or lower the other",
        )
    if threshold > BPS or ltv < 0:
        raise InputError(
            f"{at}.liquidation_threshold_bps: {threshold} is not in 0 to {BPS}", fix="give basis points"
        )
    if bonus < 0 or (bonus and not threshold):
        raise InputError(
            f"{at}.liquidation_bonus_bps: {bonus} of what is no collateral", fix="set it to 0, or a threshold"
        )
    if percent_mul(threshold, BPS + bonus) > BPS:
        most = next(b for b in range(bonus, -1, -1) if percent_mul(threshold, BPS + b) <= BPS)
        raise InputError(
            f"{at}: liquidation_threshold_bps {threshold} with liquidation_bonus_bps {bonus} is "
            f"{threshold * (BPS + bonus) / BPS**2:.2%} of the collateral",
            fix=f"a liquidation could not be paid from it: lower the bonus to {most} or the threshold to "
            f"{BPS * BPS // (BPS + bonus)}",
        )


def _check_aave(venue: LendingVenue, reserve: Reserve, at: str) -> None:
    if reserve.liquidation_threshold_bps and not reserve.liquidation_bonus_bps:
        raise InputError(f"{at}.liquidation_bonus_bps: a collateral of {venue.kind} has one", fix="say 500")
    for key in ("supply_cap", "borrow_cap"):
        value = getattr(reserve, key)
        if value is not None and venue.kind == AAVE_V2:
            raise InputError(f"{at}.{key}: {AAVE_V2} has no caps", fix="leave it out")
        if value is not None and value > MAX_AAVE_CAP:
            raise InputError(f"{at}.{key}: {value} is above {MAX_AAVE_CAP}", fix="leave it out for no cap")
    if venue.kind == AAVE_V2 and reserve.protocol_fee_bps:
        raise InputError(f"{at}.protocol_fee_bps: {AAVE_V2} takes no part of the bonus", fix="set it to 0")
    rate = reserve.rate
    if venue.kind == AAVE_V3_6:
        if not 0.01 <= rate.optimal <= 0.99:
            raise InputError(f"{at}.rate.optimal: {rate.optimal} is not in 0.01 to 0.99", fix="move the kink")
        if rate.base + rate.slope1 + rate.slope2 > MAX_RATE:
            raise InputError(f"{at}.rate: base and slopes are above {MAX_RATE:.0%} a year", fix="lower them")
        if rate.slope2 < rate.slope1:
            raise InputError(
                f"{at}.rate: slope2 {rate.slope2} is below slope1 {rate.slope1}",
                fix="above the kink it rises no slower",
            )


def morpho_bonus_bps(lltv_bps: int) -> int:
    """Return what a liquidator gets above the debt repaid in a market of this LLTV, rounded down.

    Morpho Blue's `liquidationIncentiveFactor`: 438 for 8600, since the factor is 1.043841….
    """
    return (liquidation_incentive_factor(lltv_bps * WAD // BPS) - WAD) * BPS // WAD


def _check_morpho(venue: LendingVenue, reserve: Reserve, at: str) -> None:
    if len(venue.reserves) != 2:
        raise InputError(
            f"{at}: a {MORPHO_BLUE} market has two tokens, {venue.name} {len(venue.reserves)}",
            fix="first the collateral, then the loan token; write a venue for each market",
        )
    if reserve is venue.reserves[-1]:
        _no_collateral(venue, reserve, at)
    elif reserve.ltv_bps != reserve.liquidation_threshold_bps:
        raise InputError(
            f"{at}: ltv_bps {reserve.ltv_bps} is not liquidation_threshold_bps "
            f"{reserve.liquidation_threshold_bps}",
            fix="a Morpho Blue market has one figure for both, its LLTV",
        )
    elif not 0 < reserve.ltv_bps < BPS:
        raise InputError(f"{at}.ltv_bps: {reserve.ltv_bps} is not inside 0 and {BPS}", fix="say 8600")
    elif reserve.liquidation_bonus_bps != morpho_bonus_bps(reserve.ltv_bps):
        raise InputError(
            f"{at}.liquidation_bonus_bps: {reserve.liquidation_bonus_bps} is not what follows from the LLTV",
            fix=f"leave it out, or write {morpho_bonus_bps(reserve.ltv_bps)}",
        )
    if reserve.protocol_fee_bps:
        raise InputError(
            f"{at}.protocol_fee_bps: {MORPHO_BLUE} takes no part of the bonus", fix="set it to 0"
        )
    if reserve.reserve_factor_bps > MAX_MORPHO_FEE_BPS:
        raise InputError(
            f"{at}.reserve_factor_bps: {reserve.reserve_factor_bps} is above {MAX_MORPHO_FEE_BPS}",
            fix="Morpho Blue's fee is a quarter of the interest at most",
        )


def _check_compound(venue: LendingVenue, reserve: Reserve, at: str) -> None:
    if reserve is venue.reserves[-1]:
        _no_collateral(venue, reserve, at)
    elif not reserve.ltv_bps < reserve.liquidation_threshold_bps:
        raise InputError(
            f"{at}: ltv_bps {reserve.ltv_bps} is not below liquidation_threshold_bps "
            f"{reserve.liquidation_threshold_bps}",
            fix="Compound III's borrow factor is below its liquidation factor",
        )


def _no_collateral(venue: LendingVenue, reserve: Reserve, at: str) -> None:
    if reserve.liquidation_threshold_bps:
        raise InputError(
            f"{at}.liquidation_threshold_bps: {reserve.liquidation_threshold_bps} of the token that "
            f"{venue.name} lends",
            fix=f"the last reserve of a {venue.kind} venue is lent and no collateral: put it last, with 0",
        )


_BY_KIND: Final[Mapping[str, Callable[[LendingVenue, Reserve, str], None]]] = {
    AAVE_V2: _check_aave,
    AAVE_V3: _check_aave,
    AAVE_V3_6: _check_aave,
    MORPHO_BLUE: _check_morpho,
    COMPOUND_V3: _check_compound,
}


def check_perp_venue(venue: PerpVenue, tokens: Iterable[str], where: str) -> None:
    """Refuse a perpetuals venue whose margins are none."""
    tokens = tuple(tokens)
    if venue.margin_token != USD:
        require_known("token", venue.margin_token, [*tokens, USD], f"{where}: margin_token")
    if venue.maintenance_margin.keys() != venue.initial_margin.keys():
        raise InputError(f"{where}: initial and maintenance margin are of other tokens", fix="give both")
    for token, maintenance in venue.maintenance_margin.items():
        at = f"{where}: markets.{token}"
        require_known("token", token, tokens, at)
        initial = venue.initial_margin[token]
        if not 0 < maintenance < 1:
            raise InputError(f"{at}.maintenance_margin: {maintenance} is not inside 0 and 1", fix="say 0.03")
        if not maintenance <= initial <= 1:
            raise InputError(
                f"{at}.initial_margin: {initial} is not in the maintenance margin {maintenance} to 1",
                fix="opening asks for no less than staying",
            )
    for token, scale in venue.skew_scale.items():
        require_known("market", token, venue.maintenance_margin, f"{where}: skew_scale")
        if not (math.isfinite(scale) and scale > 0):
            raise InputError(
                f"{where}: markets.{token}.skew_scale: {scale} is not above 0", fix="give tokens"
            )
    if not 0 <= venue.liquidation_fee < 1:
        raise InputError(
            f"{where}: liquidation_fee {venue.liquidation_fee} is not a part of one", fix="0.005"
        )
    if not (math.isfinite(venue.insurance) and venue.insurance >= 0):
        raise InputError(f"{where}: insurance {venue.insurance} is not 0 or more", fix="give margin tokens")


# ------------------------------------------------------------------------------------------------- accounts


def _check_positions(book: SharedBook, where: str, *, over_limit: bool) -> None:
    """Refuse a position in what a venue does not list, or that its rules do not know."""
    rows, names = book.positions, [token.symbol for token in book.tokens]
    for i in np.flatnonzero(~(np.isfinite(rows.amount) & (rows.amount > 0)))[:1]:
        raise InputError(
            f"{_account(book, where, rows.venue[i], rows.wallet[i])}: amount {rows.amount[i]} of "
            f"{names[rows.token[i]]} is not above 0",
            fix="leave it out, or give whole tokens",
        )
    for v, venue in enumerate(book.lending):
        mine = rows.venue == v
        listed = {reserve.token for reserve in venue.reserves}
        for t in np.unique(rows.token[mine]):
            i = np.flatnonzero(mine & (rows.token == t))[0]
            require_known("reserve", names[t], listed, _account(book, where, v, rows.wallet[i]))
        if venue.kind in (MORPHO_BLUE, COMPOUND_V3):
            lent = names.index(venue.reserves[-1].token)
            wrong = mine & ((rows.token == lent) != (rows.side == Side.DEBT))
            for i in np.flatnonzero(wrong)[:1]:
                doing = "owes" if rows.side[i] == Side.DEBT else "has as collateral"
                raise InputError(
                    f"{_account(book, where, v, rows.wallet[i])}: {doing} {names[rows.token[i]]}",
                    fix=f"{venue.kind} lends {names[lent]} only, and takes the others as collateral",
                )
        _check_emodes(book, v, venue, where, over_limit=over_limit)


def _check_emodes(book: SharedBook, v: int, venue: LendingVenue, where: str, *, over_limit: bool) -> None:
    rows, names = book.positions, [token.symbol for token in book.tokens]
    mine = rows.venue == v
    categories = {category.id: category for category in venue.emodes}
    for emode in np.unique(rows.emode[mine]):
        if emode == 0:
            continue
        inside = mine & (rows.emode == emode)
        i = np.flatnonzero(inside)[0]
        at = _account(book, where, v, rows.wallet[i])
        if int(emode) not in categories:
            known = ", ".join(map(str, categories)) or "none"
            raise InputError(f"{at}: {venue.name} has no eMode category {emode}", fix=f"known: {known}")
        category = categories[int(emode)]
        allowed = category.tokens if category.borrowable is None else category.borrowable
        if over_limit:
            continue  # what a category may borrow is changed by governance too
        members = [names.index(token) for token in allowed]
        for i in np.flatnonzero(inside & (rows.side == Side.DEBT) & ~np.isin(rows.token, members))[:1]:
            raise InputError(
                f"{_account(book, where, v, rows.wallet[i])}: owes {names[rows.token[i]]}, which is not in "
                f"its eMode category {emode}",
                fix="an account in a category borrows its tokens only: leave `emode` out",
            )


def within_limits(book: SharedBook) -> bool:
    """Return whether every account could be opened as it is: what `check_book` asks without `over_limit`."""
    try:
        _check_positions(book, "book", over_limit=False)
        check_limits(book)
    except InputError:
        return False
    return True


def check_limits(book: SharedBook, where: str = "book") -> None:
    """Refuse an account that owes more than it may borrow, or has less than its initial margin.

    Raises
    ------
    InputError
        Naming account, venue, value and limit at the book's prices.
    """
    accounts = lending_accounts(book)
    over = accounts.debt > accounts.borrow_limit * (1 + _WHOLE)
    for i in np.flatnonzero(over)[:1]:
        raise InputError(
            f"{_account(book, where, accounts.venue[i], accounts.wallet[i])}: owes "
            f"{accounts.debt[i]:,.2f} USD and may borrow {accounts.borrow_limit[i]:,.2f} USD at the book's "
            f"prices{_others(over)}",
            fix='lower its debt or add collateral; where prices moved since, write over_limit = "allow"',
        )
    perps = perp_accounts(book)
    under = perps.equity < perps.initial * (1 - _WHOLE)
    for i in np.flatnonzero(under)[:1]:
        venue = book.perps[perps.venue[i]].name
        raise InputError(
            f"{where}: account {book.wallets[perps.wallet[i]]} on {venue}: has {perps.equity[i]:,.2f} USD, "
            f"needs {perps.initial[i]:,.2f} USD of initial margin at the book's prices{_others(under)}",
            fix='add margin or lower its size; where prices moved since, write over_limit = "allow"',
        )


def _check_liquidity(book: SharedBook, where: str) -> None:
    """Refuse a venue that lends more of a token than was supplied."""
    rows, index = book.positions, book.token_index()
    for v, venue in enumerate(book.lending):
        mine = rows.venue == v
        lends_collateral = venue.kind not in (MORPHO_BLUE, COMPOUND_V3)
        for reserve in venue.reserves:
            here = mine & (rows.token == index[reserve.token])
            owed = float(rows.amount[here & (rows.side == Side.DEBT)].sum()) + reserve.outside_debt
            held = (
                float(rows.amount[here & (rows.side == Side.COLLATERAL)].sum()) if lends_collateral else 0.0
            )
            supplied = held + reserve.idle_supply + reserve.reserves
            if owed > supplied * (1 + _WHOLE):
                raise InputError(
                    f"{where}: lending {venue.name}: {owed:,.6g} {reserve.token} are lent and "
                    f"{supplied:,.6g} supplied",
                    fix=f"raise reserves.{reserve.token}.idle_supply by {owed - supplied:,.6g} or more",
                )


def _account(book: SharedBook, where: str, venue: int, wallet: int) -> str:
    return f"{where}: account {book.wallets[wallet]} on {book.lending[venue].name}"


def _others(bad: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> str:
    count = int(bad.sum()) - 1
    return f" (and {count} more account{'s' * (count > 1)})" if count else ""
