"""Words and tables of a simulation's report about how paths were drawn, the whole system, ranges and wallets.

Out of the record and nothing else, as `simulation.report.simulation_view`. What nobody can say is shown as
unknown, with the record's reason. Records of earlier versions lack these parts; then nothing is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from simulation.report.simulation_view import (
    UNKNOWN,
    Record,
    Table,
    between,
    count,
    duration,
    number,
    part,
    plus_minus,
    signed,
    usd,
)

SPREAD_NAMES: Final[Mapping[str, str]] = {
    "bad_debt_usd": "bad debt, mean",
    "bad_debt_var_99_usd": "bad debt, VaR 99 %",
    "bad_debt_es_99_usd": "bad debt, ES 99 %",
    "liquidated_usd": "liquidated, mean",
    "liquidations": "liquidations, mean",
    "keeper_profit_usd": "keepers' profit, mean",
    "unfilled_usd": "withdrawals not paid, mean",
    "time_to_clear_s": "from the first liquidation to the last, mean",
}
"""Figures whose spread is shown, in the order of the page."""
TORNADO: Final = ("bad_debt_usd", "liquidated_usd")
"""Figures whose ranges are drawn."""
_ENDS: Final = ("low", "high")
_LEAST_SHOWN: Final = 1e-5
"""Part of all equity below which a DebtRank is shown as smaller than that."""

Words = Callable[[float | None], str]


# ------------------------------------------------------------------------------------------------ drawing
def warning(record: Record) -> str | None:
    """Return what a reader must know before the figures; None where weights carry them, or there are none."""
    said = (record.get("sampling") or {}).get("warning")
    if not said:
        return None
    return f"Do not take these figures as they stand. Paths were drawn with importance weights, and {said}."


def sampling_facts(record: Record) -> list[tuple[str, str]]:
    """Return how paths were drawn and what the figures are estimated by, a line each."""
    own = record.get("sampling")
    if not own:
        return []
    facts = [
        ("Drawn", "in pairs whose prices mirror each other" if own["antithetic"] else "independently"),
        ("Estimator", own["estimator"]),
        ("Effective paths", f"{count(own['effective_paths'])} of {record['paths']:,}"),
    ]
    if own["mean_weight"] is not None:
        weight = own["mean_weight"]
        limits = " to ".join(number(weight[end], 3) for end in _ENDS)
        facts += [
            ("Effective in the tail", f"{count(own['effective_in_tail'])} from the 99 % of bad debt on"),
            ("Mean weight", f"{number(weight['value'], 3)} ({limits}), 1 in expectation"),
        ]
    return facts


# ------------------------------------------------------------------------------------------------- system
def system_table(record: Record) -> Table | None:
    """Return the figures of the whole system with intervals, and what they say or why they are unknown."""
    own = record.get("system")
    if not own:
        return None
    rows = [
        _row(
            "spiral multiplier",
            own["spiral_multiplier"],
            _times,
            "liquidated with everything on over liquidated without price impact",
        ),
        *_spiral_parts(own["spiral_multiplier"]),
    ]
    for token, figure in own["price_multipliers"].items():
        said = f"log moves over those from outside; median {_times(figure['median'])}"
        paths = f"{figure['paths']:,} path{'s' * (figure['paths'] != 1)} with a fall"
        rows.append(_row(f"price multiplier of {token}", figure, _times, f"{said}, {paths}"))
    clear, keepers = own["time_to_clear_s"], own["keepers"]
    late = clear["quantile_95"]
    said = f"95 % quantile {_length(late['value'])}, {_limits(late, _length)}"
    rows += [
        _row("time to clear", clear["mean"], _length, f"from the first liquidation to the last; {said}"),
        _row(
            "unprofitable backlog",
            own["unprofitable_backlog"],
            count,
            "accounts below 1 in a step that earned nobody anything, or found the block full",
        ),
        _row(
            "stuck backlog",
            own["stuck_backlog"],
            count,
            "accounts below 1 in a step of which rules or an empty pool refused every size",
        ),
        _row("toxic liquidations", own["share_toxic"], part, "of all: they raised the loan-to-value"),
        _row(
            "frozen withdrawals",
            own["frozen_withdrawals_usd"],
            usd,
            "asked for and not paid, each time that it was asked",
        ),
        *_perps_rows(own),
        _row("keepers' profit", keepers["profit_after_gas_and_bids_usd"], usd, "after gas and bids"),
        *_inventory_rows(keepers),
        _row("gas paid by keepers", keepers["gas_usd"], usd, ""),
        _row("leaked by bids", keepers["oev_leakage_usd"], usd, "bid away for a place in the block"),
        _row(
            "share leaked by bids",
            keepers["oev_leakage_share"],
            part,
            "of what keepers earn before they bid",
        ),
    ]
    return ("figure", "value", "95 % interval", "what it is, or why it is unknown"), rows


def _spiral_parts(spiral: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the two factors of the spiral multiplier; none of a record from before they were kept."""
    said = {
        "price_feedback": ("by prices", "over liquidated where trades lose to depth and move no price"),
        "willingness": ("by depth alone", "liquidated there over liquidated without price impact"),
    }
    return [
        _row(f"spiral {name}", spiral[key], _times, says)
        for key, (name, says) in said.items()
        if key in spiral
    ]


def _perps_rows(own: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return what venues of perpetual futures lost that nobody paid, where any act."""
    figure = own.get("perps_deficit_usd")
    if figure is None or figure["value"] is None:
        return []
    worst = usd(figure["es_99"]["value"])
    says = f"of perpetual futures beyond fund and winners, not in bad debt; ES 99 % {worst}"
    return [_row("perps deficit", figure, usd, says)]


def _inventory_rows(keepers: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return what keepers gain on what they seized and keep, where that is known."""
    figure = keepers.get("inventory_gain_usd")
    if figure is None or figure["value"] is None:
        return []
    return [_row("keepers' gain on inventory", figure, usd, "since the liquidation, until sold or the end")]


def _row(name: str, figure: Mapping[str, Any], words: Words, says: str) -> tuple[str, str, str, str]:
    if figure["value"] is None:
        return name, UNKNOWN, "", figure.get("why") or "not a finite number"
    return name, words(figure["value"]), _limits(figure, words), says


def _limits(figure: Mapping[str, Any], words: Words) -> str:
    return f"{words(figure['low'])} to {words(figure['high'])}"


def _times(value: float | None) -> str:
    return number(value, 3)


def _length(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else duration(seconds)


def covar_table(record: Record) -> Table | None:
    """Return CoVaR of each venue's bad debt (columns) given another's (rows); None with a single venue."""
    own = record.get("system")
    if not own or not own["covar"]:
        return None
    venues = record["venues"]
    pairs = {(row["given"], row["of"]): row for row in own["covar"]}
    rows = []
    for given in venues:
        row = [pairs[given, of] for of in venues if of != given]
        cells = ["" if of == given else _covar_cell(pairs[given, of]) for of in venues]
        why = dict.fromkeys(entry["why"] for entry in row if entry["value"] is None)
        rows.append((given, count(row[0]["paths"]), *cells, "; ".join(why)))
    return ("given a bad loss of", "paths", *venues, "why unknown"), rows


def _covar_cell(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return UNKNOWN
    return f"{usd(row['value'])}\n{between(row)}\n{signed(row['delta'])} against its own"


def debtrank_table(record: Record) -> Table | None:
    """Return the DebtRank of each venue; None where it is unknown, see `debtrank_unknown`."""
    own = (record.get("system") or {}).get("debtrank")
    if not own or own["rank"] is None:
        return None
    venues = list(own["rank"])
    rows = []
    for name, rank in own["rank"].items():
        others = [(h, v) for v, h in zip(venues, own["distress"][name], strict=True) if v != name]
        most = max(others, default=(0.0, ""), key=lambda pair: pair[0])
        worst = f"{most[1]}, {small_part(most[0])}" if most[0] > 0.0 else "none"
        rows.append((name, usd(own["equity_usd"][name]), small_part(rank), worst))
    return ("venue shocked", "its own equity", "all equity lost elsewhere", "most distressed by it"), rows


def debtrank_unknown(record: Record) -> str | None:
    """Return why there is no DebtRank; None where there is one."""
    own = (record.get("system") or {}).get("debtrank")
    return own["why"] if own and own["rank"] is None else None


def small_part(value: float | None) -> str:
    """Return a part of one in per cent: two figures, however small, down to a thousandth of a per cent."""
    if value is None or value == 0.0 or abs(value) >= 0.01:
        return part(value)
    return f"{float(f'{100 * value:.2g}'):.6g} %" if value >= _LEAST_SHOWN else "below 0.001 %"


# ------------------------------------------------------------------------------------------------- ranges
def tornado_rows(record: Record, figure: str) -> list[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]:
    """Return each uncertain parameter: key, range, and the change of a figure at its low and its high end.

    The parameter that moves the figure the most is first; all together, with two or more, are the last.
    """
    spread = record["spread"]
    ends = {name: own[figure]["change"] for name, own in spread["ends"].items()}
    rows = [
        (own["key"], f"{own['low']:g} to {own['high']:g}", *(ends[f"{end} {own['key']}"] for end in _ENDS))
        for own in spread["ranges"]
    ]
    rows.sort(key=lambda row: -max(abs(change["value"]) for change in row[2:]))
    if len(rows) > 1:
        rows.append(("all together", "all low, all high", *(ends[f"all {end}"] for end in _ENDS)))
    return rows


def tornado_figures(record: Record) -> list[str]:
    """Return the figures that any end of a range changes."""
    if not record.get("spread"):
        return []
    return [
        figure
        for figure in TORNADO
        if any(change["value"] for row in tornado_rows(record, figure) for change in row[2:])
    ]


def spread_table(record: Record) -> Table | None:
    """Return the least and the most of each key figure over all ends, and at which end."""
    spread = record.get("spread")
    if not spread:
        return None
    rows = []
    for name, label in SPREAD_NAMES.items():
        own = spread["figures"].get(name)
        if own is not None:
            words = _unit(name)
            least, most = (f"{words(own[end])}\n{own[f'{end}_at']}" for end in ("least", "most"))
            rows.append((label, words(own["value"]), least, most))
    return ("", "as in the scenario", "least", "most"), rows


def ends_table(record: Record) -> Table | None:
    """Return bad debt and what is liquidated at each end of each range, and what the end changes."""
    spread = record.get("spread")
    if not spread:
        return None
    heads = ["end"]
    for name in TORNADO:
        heads += [SPREAD_NAMES[name], "changes by"]
    rows = []
    for end, own in spread["ends"].items():
        cells = []
        for name in TORNADO:
            figure, change = own[name], own[name]["change"]
            cells.append(f"{usd(figure['value'])}\n{plus_minus(figure)}")
            cells.append(f"{signed(change['value'])}\n{plus_minus(change)}")
        rows.append((end, *cells))
    return heads, rows


def _unit(name: str) -> Words:
    if name.endswith("_usd"):
        return usd
    return _length if name.endswith("_s") else count


# ------------------------------------------------------------------------------------------------ wallets
def wallets_words(record: Record) -> str | None:
    """Return what was looked at; None when nobody asked for wallets."""
    own = record.get("wallets")
    if own is None:
        return None
    if not own["cross_margin"]:
        return "No wallet has positions in two places or more."
    parts = ", ".join(f"{number(weight, 1)} {name}" for name, weight in own["weights"].items())
    said = (
        f"The {len(own['top']):,} highest scores of {own['cross_margin']:,} "
        f"wallet{'s' * (own['cross_margin'] != 1)} in two places or more, by {own['paths']:,} "
        f"path{'s' * (own['paths'] != 1)}. A score is 100 times {parts}, and ranks wallets of one run."
    )
    if own.get("missed"):
        said += (
            f" {own['missed']:,} liquidation{'s' * (own['missed'] != 1)} could not be noted for lack of "
            "room: shares of paths are lower bounds."
        )
    return said


def wallets_table(record: Record) -> Table | None:
    """Return the riskiest wallets; None without any."""
    own = record.get("wallets")
    if own is None or not own["top"]:
        return None
    rows = [
        (
            wallet["wallet"],
            number(wallet["score"], 1),
            count(wallet["legs"]),
            usd(wallet["assets_usd"]),
            _leverage(wallet),
            "nothing to liquidate" if wallet["distance"] is None else part(wallet["distance"]),
            number(wallet["concentration"], 2),
            part(wallet["liquidated"]),
            f"{part(wallet['broken']['value'])}\n{_limits(wallet['broken'], part)}",
        )
        for wallet in own["top"]
    ]
    heads: Sequence[str] = ("wallet", "score", "legs", "assets", "leverage", "distance", "concentration")
    return (*heads, "liquidated", "hedge broken"), rows


def _leverage(wallet: Mapping[str, Any]) -> str:
    if wallet["leverage"] is not None:
        return number(wallet["leverage"], 2)
    return "debt beyond assets" if wallet["assets_usd"] > 0 else "no assets"


# -------------------------------------------------------------------------------------------------- notes
def notes(record: Record) -> list[tuple[str, str]]:
    """Return what these figures mean and where they end, a line each; only of what the page shows."""
    said = []
    if record.get("system"):
        said.append(
            (
                "Price multiplier",
                "the slope through the origin of the log move of a price on its log move from outside, over "
                "paths that fell by 1 % or more: 1 where our trades moved nothing.",
            )
        )
    if covar_table(record):
        level = part(record["system"]["covar_level"])
        said.append(
            (
                "CoVaR",
                f"the {level} quantile of a venue's bad debt on the paths where that of another one is at or "
                f"beyond its own {level} quantile, taken as known. Recalled from the literature, unchecked.",
            )
        )
    if debtrank_table(record):
        said.append(
            (
                "DebtRank",
                "what is lost in others over all equity, over the contagion matrix, links of links included. "
                "Full distress stands for the matrix's shock of a venue and not for its failure. Recalled "
                "from the literature, not verified.",
            )
        )
    if record.get("spread"):
        said.append(
            (
                "Plausible ranges",
                "ends of ranges on the same draws: corners and no distribution, and a figure may be more or "
                "less between them.",
            )
        )
    if wallets_table(record):
        said.append(
            (
                "Risk score",
                "broken: share of paths on which one leg was liquidated and another one is still open; near: "
                "1 less twice the distance of the nearest leg to liquidation; debt over assets; "
                "concentration: squared shares of tokens in the collateral. Weights are set, not estimated.",
            )
        )
    return said
