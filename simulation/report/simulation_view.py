"""The words and tables of a simulation's report, out of its record and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

Record: TypeAlias = Mapping[str, Any]
Table: TypeAlias = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Headings and rows; what stands behind a line break in a cell is set small."""

UNKNOWN: Final = "unknown"
EVENTS_LISTED: Final = 100
STILL: Final = 0.005
"""Part of its price that a token has to move to be shown."""

LOSS_NAMES: Final[Mapping[str, str]] = {
    "bad_debt_usd": "bad debt",
    "liquidated_usd": "liquidated",
    "keeper_profit_usd": "keepers' profit",
    "gas_usd": "gas paid",
    "unfilled_usd": "withdrawals not paid",
}
"""Columns with a whole distribution, in the order of the page."""

PAYERS: Final[tuple[tuple[str, str], ...]] = (
    ("from_reserves_usd", "the protocols' reserves"),
    ("absorbed_usd", "reserves, on absorbing"),
    ("from_backstop_usd", "backstops"),
    ("from_suppliers_usd", "suppliers"),
    ("deficit_usd", "nobody: written off, uncovered"),
    ("shortfall_usd", "nobody yet: debt that still stands"),
    ("revalued_usd", "price moves in between"),
)
"""Who pays for bad debt, in the order of the waterfall."""

_VENUE_COLUMNS: Final[tuple[tuple[str, str, str], ...]] = (
    ("liquidations", "liquidations", "count"),
    ("liquidated_usd", "liquidated", "usd"),
    ("seized_usd", "seized", "usd"),
    ("bad_debt_usd", "bad debt", "usd"),
    ("deficit_usd", "uncovered", "usd"),
    ("fees_usd", "protocol's fees", "usd"),
    ("keeper_profit_usd", "keepers' profit", "usd"),
    ("gas_usd", "gas", "usd"),
    ("toxic", "toxic", "count"),
    ("unprofitable", "did not pay", "count"),
    ("stuck", "stuck", "count"),
    ("failed_txs", "lost races", "count"),
    ("halted", "halted", "count"),
    ("deleveraged_usd", "repaid by owners", "usd"),
    ("withdrawn_usd", "withdrawn", "usd"),
    ("unfilled_usd", "not paid out", "usd"),
    ("frozen_steps", "steps frozen", "count"),
)


def number(value: float | None, digits: int = 0) -> str:
    """Return a number for people, with a minus sign; what is not known is said to be."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{value:,.{digits}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")
    return text.replace("-", "−")


def count(value: float | None) -> str:
    """Return a mean of counts: one decimal below a hundred, two below one."""
    if value is None or value == round(value) or abs(value) >= 100:
        return number(value)
    return number(value, 1 if abs(value) >= 1 else 2)


def usd(value: float | None) -> str:
    """Return an amount for people: cents below 100 dollars, millions from a million on."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    size, sign = abs(value), "−" if value < 0 else ""
    if size < 0.005:
        return "$0"
    for unit, name in ((1e9, " B"), (1e6, " M")):
        if size >= 0.9995 * unit:
            return f"{sign}${size / unit:,.2f}{name}"
    return f"{sign}${size:,.0f}" if size >= 100 else f"{sign}${size:,.2f}"


def signed(value: float | None) -> str:
    """Return an amount that is a change, with its sign."""
    text = usd(value)
    return text if value is None or value < 0.005 else f"+{text}"


def part(value: float | None) -> str:
    """Return a part of one in per cent."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    percent = 100.0 * value
    return number(percent, 0 if percent == round(percent) or abs(percent) >= 10 else 1) + " %"


def half_width(figure: Mapping[str, Any]) -> float | None:
    """Return half of an interval; None where there are too few paths for one."""
    low, high = figure["low"], figure["high"]
    return None if low is None or high is None else (high - low) / 2


def plus_minus(figure: Mapping[str, Any]) -> str:
    """Return half of an interval in dollars."""
    half = half_width(figure)
    return "± " + (UNKNOWN if half is None else usd(half))


def between(figure: Mapping[str, Any]) -> str:
    """Return an interval in dollars."""
    return f"{usd(figure['low'])} to {usd(figure['high'])}"


def is_significant(figure: Mapping[str, Any]) -> bool:
    """Return whether an interval is known and leaves zero out."""
    low, high = figure["low"], figure["high"]
    return low is not None and high is not None and (low > 0 or high < 0)


def moves(prices: Sequence[float]) -> bool:
    """Return whether a price moves enough to be shown."""
    return max(prices) - min(prices) > STILL * max(prices)


def duration(seconds: float) -> str:
    """Return a duration for people: ``45 s``, ``12 min``, ``4 h``, ``2.5 d``."""
    for size, unit in ((172_800.0, "d"), (7_200.0, "h"), (120.0, "min")):
        if seconds >= size:
            own = {"d": 86_400.0, "h": 3_600.0, "min": 60.0}[unit]
            return f"{seconds / own:,.1f}".removesuffix(".0") + f" {unit}"
    return f"{seconds:,.1f}".removesuffix(".0") + " s"


def lead(record: Record) -> str:
    """Return what was run, in one sentence."""
    venues = len(record["venues"])
    return (
        f"{record['paths']:,} path{'s' * (record['paths'] != 1)} of {record['steps']:,} steps of "
        f"{duration(record['step_s'])} ({duration(record['steps'] * record['step_s'])} each); "
        f"{record['accounts']:,} account{'s' * (record['accounts'] != 1)} in {venues} lending "
        f"venue{'s' * (venues != 1)}.{_drawn(record.get('sampling') or {})}"
    )


def _drawn(sampling: Mapping[str, Any]) -> str:
    """Return what is special about how paths were drawn; nothing for independent ones that count alike."""
    said = " Prices are drawn in pairs that mirror each other." if sampling.get("antithetic") else ""
    if sampling.get("mean_weight"):
        said += (
            f" Paths have importance weights and are worth {count(sampling['effective_paths'])} equal ones."
        )
    return said


def headline(record: Record) -> list[tuple[str, str, str]]:
    """Return the key figures: value, name, and what qualifies it."""
    bad, sold = record["tails"]["bad_debt_usd"], record["tails"]["liquidated_usd"]
    profit, share = record["tails"]["keeper_profit_usd"]["0.99"]["mean"], record["shares"]["bad_debt_usd"]
    debt = sum(own["debt_usd"] for own in record["solvency"].values())
    of_all = f", {part(sold['0.99']['mean']['value'] / debt)} of all debt" if debt > 0 else ""
    return [
        (usd(bad["0.99"]["mean"]["value"]), "bad debt, mean", plus_minus(bad["0.99"]["mean"])),
        (usd(bad["0.99"]["es"]["value"]), "bad debt, ES 99 %", between(bad["0.99"]["es"])),
        (part(share["value"]), "of paths have bad debt", f"{part(share['low'])} to {part(share['high'])}"),
        (
            usd(sold["0.99"]["mean"]["value"]),
            "liquidated, mean",
            plus_minus(sold["0.99"]["mean"]) + of_all,
        ),
        (usd(sold["0.95"]["var"]["value"]), "liquidations at risk, 95 %", between(sold["0.95"]["var"])),
        (usd(profit["value"]), "keepers' profit, mean", plus_minus(profit)),
    ]


def worst_words(record: Record) -> str:
    """Return what became of the worst path."""
    own = record["worst_path"]
    sold = sum(values[-1] for values in own["liquidated_usd"].values())
    gone = sum(values[-1] for values in own["written_off_usd"].values())
    events = own["events_in_all"]
    return (
        f"Path {own['path']:,} of {record['paths']:,}, the one with the most "
        f"{'bad debt' if record['tails']['bad_debt_usd']['0.99']['largest'] > 0 else 'liquidated'}: "
        f"{events:,} liquidation{'s' * (events != 1)}, {usd(sold)} repaid, {usd(gone)} written off."
    )


def tails_table(record: Record) -> Table:
    """Return mean, value at risk and expected shortfall of each figure with their intervals."""
    rows = []
    for name, label in LOSS_NAMES.items():
        tails = record["tails"].get(name)
        if tails is None or (tails["0.99"]["largest"] == 0 and tails["0.99"]["mean"]["value"] == 0):
            continue
        low, high = tails["0.95"], tails["0.99"]
        cells = [_beside(usd(low["mean"]["value"]), plus_minus(low["mean"]))]
        cells += [
            _beside(usd(f["value"]), between(f)) for f in (low["var"], low["es"], high["var"], high["es"])
        ]
        rows.append((label, *cells, usd(low["largest"])))
    return ("US dollars a path", "mean", "VaR 95 %", "ES 95 %", "VaR 99 %", "ES 99 %", "largest"), rows


def venues_table(record: Record) -> Table:
    """Return what happened in each venue on average; columns that are zero everywhere are left out."""
    own = record["by_venue"]
    shown = [
        (key, label, unit)
        for key, label, unit in _VENUE_COLUMNS
        if any(venue[key]["mean"]["value"] for venue in own.values() if key in venue)
    ]
    rows = []
    for name, venue in own.items():
        cells = []
        for key, _, unit in shown:
            mean = venue[key]["mean"]
            text = usd(mean["value"]) if unit == "usd" else count(mean["value"])
            cells.append(_beside(text, plus_minus(mean)) if key == "bad_debt_usd" else text)
        rows.append((_beside(name, record["venue_kinds"].get(name, UNKNOWN)), *cells))
    return ("venue", *(label for _, label, _ in shown)), rows


def solvency_table(record: Record) -> Table:
    """Return what stands behind each venue's debts before anything happens."""
    heads = ("venue", "accounts", "health factor below 1.05", "collateral", "debt", "collateral / debt")
    rows = [
        (
            name,
            count(own["accounts"]),
            count(own["near"]),
            usd(own["collateral_usd"]),
            usd(own["debt_usd"]),
            "no debt" if own["overcollateralisation"] is None else number(own["overcollateralisation"], 2),
            part(own["utilisation"]),
            usd(own["liquidatable_at_minus_20"]),
        )
        for name, own in record["solvency"].items()
    ]
    return (*heads, "most used reserve", "debt below 1 after −20 %"), rows


def tokens_table(record: Record) -> Table:
    """Return where prices went on average; tokens that do not move are left out."""
    rows = []
    for token in record["tokens"]:
        low, end, multiplier = (
            record["figures"].get(f"{kind}.{token}") for kind in ("lowest", "price", "price_multiplier")
        )
        if low is None or end is None or not moves(record["worst_path"]["market"][token]):
            continue
        # A backed token has no move of its own from outside that could be multiplied.
        own = token in record["static"]
        times = number(multiplier["value"], 3) if own and multiplier is not None else "follows what backs it"
        rows.append((token, number(low["value"], 2), number(end["value"], 2), times))
    return ("token", "lowest price, mean", "price at the end, mean", "ratio of log moves, mean"), rows


def other_table(record: Record) -> Table:
    """Return the figures that channels add of their own, for example of perpetuals."""
    rows = []
    for name, figure in record["figures"].items():
        channel, _, own = name.partition(".")
        if not figure["value"] or not own or channel not in record["channels"]:
            continue
        text = _unit(name)
        if own != "imbalance":
            rows.append(
                (
                    f"{channel}: {_words(own)}",
                    text(figure["value"]),
                    f"{text(figure['low'])} to {text(figure['high'])}",
                )
            )
    return ("mean of a path", "value", "95 % interval"), rows


def _unit(name: str) -> Callable[[float | None], str]:
    if name.endswith("_usd"):
        return usd
    if name.endswith("_s"):
        return lambda seconds: UNKNOWN if seconds is None else duration(seconds)
    return count


def _words(name: str) -> str:
    return name.removesuffix("_usd").removesuffix("_s").replace("_", " ")


def policies_table(record: Record) -> Table:
    """Return bad debt under each policy, and what it changes path by path."""
    rows = [("as in the scenario", *_tail_cells(record["tails"]["bad_debt_usd"]), "", "", "")]
    for name, tails in record["policies_compared"].items():
        changes = record["policy_effects"][name]
        cells = [
            _beside(signed(changes[key]["change"]["value"]), plus_minus(changes[key]["change"]))
            for key in ("bad_debt_usd", "liquidated_usd", "keeper_profit_usd")
        ]
        rows.append((name, *_tail_cells(tails), *cells))
    heads = ("policies", "bad debt, mean", "VaR 95 %", "ES 99 %", "bad debt changes by", "liquidated by")
    return (*heads, "keepers' profit by"), rows


def _tail_cells(tails: Mapping[str, Any]) -> tuple[str, str, str]:
    mean = tails["0.95"]["mean"]
    return (
        _beside(usd(mean["value"]), plus_minus(mean)),
        _beside(usd(tails["0.95"]["var"]["value"]), between(tails["0.95"]["var"])),
        _beside(usd(tails["0.99"]["es"]["value"]), between(tails["0.99"]["es"])),
    )


def _beside(value: str, error: str) -> str:
    """Return a cell of two lines."""
    return f"{value}\n{error}"


def policy_words(tables: Sequence[Mapping[str, Any]]) -> str:
    """Return what policies are, as they stand in their file."""
    if not tables:
        return "none"
    said = []
    for table in tables:
        keys = ", ".join(f"{key} = {_value(value)}" for key, value in table.items() if key != "kind")
        said.append(f"{table.get('kind', UNKNOWN)}{f' ({keys})' if keys else ''}")
    return "; ".join(said)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_value(v)}" for k, v in value.items()) or "none"
    return str(value)


def events_table(record: Record) -> Table:
    """Return the first liquidations of the worst path."""
    rows = []
    for event in record["worst_path"]["events"][:EVENTS_LISTED]:
        absorbed = event["debt"] is None
        repaid = "absorbed whole" if absorbed else f"{number(event['repaid'], 2)} {event['debt']}"
        seized = "all" if absorbed else f"{number(event['seized'], 4)} {event['collateral']}"
        rows.append(
            (
                event["wallet"],
                event["venue"],
                duration(event["step"] * record["step_s"]),
                number(event["health_factor"], 4),
                repaid,
                seized,
                usd(event["profit_usd"]),
                usd(event["written_off_usd"]) if event["written_off_usd"] else "",
            )
        )
    heads = ("account", "venue", "at", "health factor", "repaid", "seized", "keeper's profit")
    return (*heads, "written off"), rows


def shock_words(record: Record) -> str:
    """Return what one row of the contagion matrix is shocked by."""
    shock = record.get("matrix_shock")
    if not shock:
        return "one venue is shocked"
    size = part(shock["size"])
    if shock["kind"] == "threshold":
        return f"all liquidation thresholds of one venue are {number(1e4 * shock['size'])} bps lower"
    return f"one venue alone believes prices that are {size} too low"


def matrix_words(record: Record) -> str:
    """Return what the numbers of the contagion matrix mean, and how one below zero arises."""
    kind = (record.get("matrix_shock") or {}).get("kind")
    earlier = {
        "threshold": "lower thresholds liquidate earlier, while collateral still covers the debt",
        "oracle": "prices believed too low liquidate earlier, while collateral still covers the debt",
    }.get(str(kind), "who is liquidated earlier may leave less debt uncovered")
    return (
        "Mean bad debt with the venue of the row shocked less that without, on the same draws. Below zero "
        f"the venue of the column loses less, on the diagonal as well: {earlier}, and what is sold early no "
        "longer presses the price at the bottom."
    )


def notes(record: Record) -> list[tuple[str, str]]:
    """Return what each figure means and where it ends, a line each; only of what the page shows."""
    said = [
        (
            "Bad debt",
            "debt written off on the way, plus what debts exceed collateral by at the end, at market prices.",
        ),
        (
            "VaR, ES",
            "the loss that this part of the paths does not exceed, and the mean of the paths at or beyond "
            "it. Liquidations at risk is the VaR of what was liquidated.",
        ),
        (
            "Intervals",
            "hold the true figure of this model with 95 %: sampling error only, not the error of the model "
            "or of its parameters. Means by batches of paths, VaR by order statistics, ES by resampling; "
            "with few paths beyond the level the ES interval is too narrow. Unknown where paths are too few.",
        ),
        (
            "Keepers' profit",
            "after gas and what they bid for their place, with sales valued at the depth that they saw.",
        ),
        (
            "Toxic",
            "liquidations at a loan-to-value above 1 / (1 + bonus), where each one leaves the account worse.",
        ),
        (
            "Did not pay, stuck",
            "how often an account below 1 was passed over in a step: no profit in it, or nothing to seize.",
        ),
        (
            "Static curves",
            "one price falls at once and nothing else happens: no keeper, no impact, no feed. They bound "
            "nothing; the paths say what follows.",
        ),
    ]
    if record["effects"]:
        said.append(
            (
                "Effects of channels",
                "the same draws with one channel off. Channels work through each other, so effects do not "
                "add up.",
            )
        )
    if record["matrix"]:
        said.append(
            ("Contagion matrix", "the same draws with one venue shocked; below zero, a venue loses less.")
        )
    if record["policies_compared"]:
        said.append(("Policies", "run on the same draws, so changes are path by path and their error small."))
    multipliers = tokens_table(record)[1]
    if multipliers:
        said.append(
            (
                "Ratio of log moves",
                "the log move of a price over the move from outside, path by path: 1 where our trades moved "
                "nothing.",
            )
        )
    return said
