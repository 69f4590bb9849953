"""The report of a simulation: what the record says and nothing else, offline, the same bytes every time."""

from __future__ import annotations

import copy
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs
from rich.console import Console

from contracts_abi.errors import InputError
from keeper.commands.simulate import policy_files, show, write_run
from simulation.contagion.causes import columns, effects_of, matrix_of, shock_of_each
from simulation.contagion.metrics import sampling_of
from simulation.contagion.record import build_record, sampling_record, shares
from simulation.contagion.scenario import Scenario, build_scenario, load_scenario
from simulation.contagion.spread import range_ends
from simulation.contagion.wallets import wallets_record
from simulation.report import plotting
from simulation.report import simulation_figures as figures
from simulation.report import simulation_risk as risk
from simulation.report import simulation_view as view
from simulation.report.simulation_html import simulation_html
from tests.command_line import Inside

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SEED, PATHS = 5, 40
TABLE: dict[str, Any] = {
    "name": "ether falls",
    "description": "All at once & for good.",
    "book": "market.toml",
    "steps": 30,
    "step_s": 60,
    "prices": {"process": "gbm", "volatility": 2.0},
    "shocks": [{"token": "WETH", "step": 10, "move": -0.3}],
    "channels": {
        "gas": {"native": "WETH"},
        "impact": {"tokens": {"WETH": {"model": "linear", "per_dollar": 1e-7}}},
        "oracle": {"default": {"latency_steps": 3}},
    },
    "uncertain": [
        {"key": "channels.impact.tokens.WETH.per_dollar", "low": 5e-8, "high": 2e-7},
        {"key": "prices.volatility", "low": 1.5, "high": 2.5},
    ],
}
OTHER = [{"kind": "bonus", "bonus_bps": 0}]


def build(scenario: Scenario, **more: Any) -> dict[str, Any]:
    base = columns(scenario.run, SEED, PATHS)
    record = build_record(scenario, base, seed=SEED, version="1.2.3", result_sha256="ab" * 32, **more)
    plain: dict[str, Any] = json.loads(json.dumps(record, allow_nan=False))
    return plain


def under(**over: Any) -> dict[str, Any]:
    return columns(build_scenario(TABLE, EXAMPLES, over).run, SEED, PATHS)


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return build_scenario(TABLE, EXAMPLES)


@pytest.fixture(scope="module")
def full(scenario: Scenario) -> dict[str, Any]:
    base = columns(scenario.run, SEED, PATHS)
    without = {name: under(**{f"channels.{name}.on": False}) for name in ("oracle", "impact")}
    shocked = {name: under(**over) for name, over in shock_of_each(scenario).items()}
    return build(
        scenario,
        effects=effects_of(base, without),
        matrix=matrix_of(base, shocked, scenario.run.world.venues),
        matrix_shock={"kind": "threshold", "size": 0.05},
        policies={"no-bonus": under(policies=OTHER)},
        policy_tables={"no-bonus": OTHER},
        without=without,
        spread={name: under(**over) for name, over in range_ends(scenario, EXAMPLES).items()},
        wallets=wallets_record(scenario.run, SEED, PATHS),
    )


@pytest.fixture(scope="module")
def page(full: dict[str, Any]) -> str:
    return simulation_html(full)


@pytest.fixture(scope="module")
def calm(scenario: Scenario) -> dict[str, Any]:
    """Nothing happens: no shock, no noise."""
    table = TABLE | {"shocks": [], "prices": {"process": "gbm", "volatility": 1e-9}}
    return build(build_scenario(table, EXAMPLES))


def own_part(page: str) -> str:
    """The page without plotly.js."""
    return page.replace(get_plotlyjs(), "")


class Text(HTMLParser):
    """What a reader sees, and the ids of the sections."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self._hidden = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._hidden += tag in ("script", "style")
        if tag == "section":
            self.sections.append(str(given["id"]))
        self.links += [str(v) for k, v in attrs if k in ("href", "src", "srcset", "data", "action")]

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def specs(page: str) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json" id="spec-([^"]+)">(.*?)</script>', page)
    return {name: json.loads(spec) for name, spec in found}


# ---------------------------------------------------------------------------------------------------- record
def test_the_scenario_of_these_tests_loses_something(full: dict[str, Any]) -> None:
    assert full["figures"]["bad_debt_usd"]["value"] > 1_000
    assert len(full["histograms"]["bad_debt_usd"]["counts"]) > 1
    assert full["worst_path"]["events_in_all"] >= 3


def test_what_each_bears_adds_up_to_the_bad_debt(full: dict[str, Any]) -> None:
    parts = [full["waterfall"][key] for key, _ in view.PAYERS]
    assert sum(parts) == pytest.approx(full["figures"]["bad_debt_usd"]["value"], rel=1e-12)
    # Compound III stands for what it absorbs; the rest is price moves alone, so it is small.
    compound = full["by_venue"]["compound-usdc"]["written_off_usd"]["mean"]["value"]
    assert full["waterfall"]["absorbed_usd"] == pytest.approx(compound)
    assert compound > 0
    assert abs(full["waterfall"]["revalued_usd"]) < 0.05 * sum(parts)


def test_shares_of_paths_by_hand() -> None:
    base = {name: np.array([0.0, 0.0, 0.0, 1.0]) for name in ("bad_debt_usd", "liquidations", "frozen_steps")}
    share = shares(base)["bad_debt_usd"]
    # Wilson's interval of 1 of 4, z = 1.96: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).
    assert share["value"] == 0.25
    assert share["low"] == pytest.approx(0.04558727, abs=1e-6)
    assert share["high"] == pytest.approx(0.69935816, abs=1e-6)


def test_a_policy_is_compared_path_by_path(full: dict[str, Any]) -> None:
    own = full["policy_effects"]["no-bonus"]["bad_debt_usd"]
    assert own["change"]["value"] == pytest.approx(
        own["mean"]["value"] - full["figures"]["bad_debt_usd"]["value"]
    )
    assert own["change"]["value"] != 0
    assert full["policies_compared"]["no-bonus"]["0.99"]["mean"] == own["mean"]


# ------------------------------------------------------------------------------------------------------ page
def test_the_same_record_gives_the_same_bytes(full: dict[str, Any], page: str) -> None:
    assert simulation_html(copy.deepcopy(full)) == page


def test_nothing_is_fetched(page: str) -> None:
    seen = Text(own_part(page))
    assert seen.links
    assert all(link.startswith("#") for link in seen.links)
    assert {link.removeprefix("#") for link in seen.links} <= set(seen.sections)
    assert "://" not in own_part(page)
    assert get_plotlyjs() in page
    assert not re.search(r"@import|url\(", own_part(page))


def test_every_section_is_there_when_its_data_is(page: str) -> None:
    assert Text(own_part(page)).sections == [
        "worst",
        "losses",
        "distributions",
        "system",
        "effects",
        "matrix",
        "policies",
        "spread",
        "static",
        "venues",
        "wallets",
        "events",
        "notes",
        "provenance",
    ]
    assert set(specs(page)) == {
        "cascade",
        "price-0",
        "waterfall",
        "distribution-bad_debt_usd",
        "distribution-liquidated_usd",
        "distribution-keeper_profit_usd",
        "static-debt",
        "static-bad-debt",
        "effects",
        "matrix",
        "policies",
        "tornado-bad_debt_usd",
        "tornado-liquidated_usd",
    }
    # Each figure has its place, and each place its figure.
    assert sorted(re.findall(r'data-spec="spec-([^"]+)"', page)) == sorted(specs(page))


def test_sections_without_data_are_left_out(calm: dict[str, Any]) -> None:
    page = simulation_html(calm)
    seen = Text(own_part(page))
    assert seen.sections == ["worst", "distributions", "system", "static", "venues", "notes", "provenance"]
    assert set(specs(page)) == {"cascade", "static-debt", "static-bad-debt"}
    assert "Nothing was liquidated, lost or earned on any path." in seen.text
    words = ("Contagion matrix", "Policies", "Effects of channels", "Plausible ranges", "Risk score")
    for word in (*words, "Do not take"):
        assert word not in seen.text


@pytest.mark.parametrize("paths", [1, 2])
def test_few_paths_have_unknown_intervals_and_a_page(scenario: Scenario, paths: int) -> None:
    base = columns(scenario.run, SEED, paths)
    record = build_record(scenario, base, seed=SEED, version="1.2.3", result_sha256="ab" * 32)
    seen = Text(own_part(simulation_html(json.loads(json.dumps(record, allow_nan=False)))))
    assert record["tails"]["bad_debt_usd"]["0.99"]["var"]["high"] is None
    assert "to unknown" in seen.text
    assert ("± unknown" in seen.text) is (paths == 1)
    assert "nan" not in seen.text.lower().split()


def test_a_path_of_one_step_has_a_page() -> None:
    record = build(build_scenario(TABLE | {"shocks": []}, EXAMPLES, {"steps": 1}))
    assert "one with the most" in simulation_html(record)


def test_a_book_without_lending_venues_has_a_page(calm: dict[str, Any]) -> None:
    record = copy.deepcopy(calm) | {"venues": [], "solvency": {}, "by_venue": {}}
    for name in ("oracle", "liquidated_usd", "written_off_usd", "liquidations"):
        record["worst_path"][name] = {}
    assert "in 0 lending venues" in simulation_html(record)


def test_how_paths_were_drawn_is_said(calm: dict[str, Any]) -> None:
    plain = {"antithetic": False, "mean_weight": None, "effective_paths": 40.0}
    assert view.lead(calm | {"sampling": plain}) == view.lead({**calm, "sampling": None})
    weight = {"value": 1.0, "low": 0.9, "high": 1.1}
    said = view.lead(
        calm | {"sampling": {"antithetic": True, "mean_weight": weight, "effective_paths": 12.5}}
    )
    assert "pairs that mirror each other" in said
    assert "worth 12.5 equal ones" in said


def test_weights_that_do_not_carry_the_figures_are_warned_of_at_the_top(
    full: dict[str, Any],
) -> None:
    # Weights as a process with a drift_shift says them; one path has nearly all of it.
    loss = np.arange(float(PATHS))
    base = {"bad_debt_usd": loss, "log_weight": np.where(loss == 3.0, 5.0, -5.0)}
    own = sampling_record(sampling_of(base, antithetic=False), loss)
    record = copy.deepcopy(full) | {"sampling": json.loads(json.dumps(own))}
    text = Text(own_part(simulation_html(record))).text
    assert own["warning"]
    assert "Do not take these figures as they stand." in text
    assert text.index(own["warning"]) < text.index("bad debt, mean")
    assert "importance weights, not divided by their sum" in text
    assert f"Effective paths {view.count(own['effective_paths'])} of {PATHS}" in text
    weight = own["mean_weight"]
    assert (
        f"Mean weight {weight['value']:.3f} ({weight['low']:.3f} to {weight['high']:.3f})".replace("-", "−")
        in text
    )


def test_paths_that_count_alike_have_no_warning(full: dict[str, Any], page: str) -> None:
    assert full["sampling"]["warning"] is None
    text = Text(own_part(page)).text
    assert "Do not take" not in text
    assert "Mean weight" not in text
    assert f"Estimator plain mean Effective paths {PATHS} of {PATHS}" in text


def test_the_page_has_the_systems_figures(full: dict[str, Any], page: str) -> None:
    own = full["system"]
    heads, cells = risk.system_table(full) or ((), ())
    rows = {row[0]: row[1:] for row in cells}
    assert all(len(row) == len(heads) for row in cells)
    spiral, pressed = own["spiral_multiplier"], own["price_multipliers"]["WETH"]
    assert rows["spiral multiplier"][0] == f"{spiral['value']:.3f}"
    assert rows["spiral multiplier"][1] == f"{spiral['low']:.3f} to {spiral['high']:.3f}"
    assert rows["price multiplier of WETH"][0] == f"{pressed['value']:.3f}"
    assert f"median {pressed['median']:.3f}, {pressed['paths']} paths" in rows["price multiplier of WETH"][2]
    keepers = own["keepers"]
    for name, figure in {
        "keepers' profit": keepers["profit_after_gas_and_bids_usd"],
        "gas paid by keepers": keepers["gas_usd"],
        "leaked by bids": keepers["oev_leakage_usd"],
        "frozen withdrawals": own["frozen_withdrawals_usd"],
    }.items():
        assert rows[name][:2] == (view.usd(figure["value"]), view.between(figure))
    assert rows["toxic liquidations"][0] == view.part(own["share_toxic"]["value"])
    assert rows["unprofitable backlog"][0] == view.count(own["unprofitable_backlog"]["value"])
    assert rows["stuck backlog"][0] == view.count(own["stuck_backlog"]["value"])
    clear = own["time_to_clear_s"]
    assert rows["time to clear"][0] == view.duration(clear["mean"]["value"])
    assert view.duration(clear["quantile_95"]["value"]) in rows["time to clear"][2]
    text = Text(own_part(page)).text
    for row in cells:
        for cell in row:
            assert cell in text


def test_what_nobody_can_say_of_the_system_has_its_reason(calm: dict[str, Any], full: dict[str, Any]) -> None:
    text = Text(own_part(simulation_html(calm))).text
    own = calm["system"]
    unknown = [own["spiral_multiplier"], own["share_toxic"], *own["price_multipliers"].values()]
    unknown += own["covar"]
    for figure in unknown:
        assert figure["value"] is None
        assert figure["why"] in text
    assert f"spiral multiplier unknown {own['spiral_multiplier']['why']}" in text
    assert f"Unknown: {own['debtrank']['why']}." in text
    # A number that is none of JSON's came through as null, without a reason.
    record = copy.deepcopy(full)
    record["system"]["share_toxic"] = {"value": None, "low": None, "high": None}
    assert "toxic liquidations unknown not a finite number" in Text(own_part(simulation_html(record))).text


def test_covar_and_debtrank_by_hand(full: dict[str, Any]) -> None:
    record = copy.deepcopy(full)
    assert record["venues"] == ["aave", "compound-usdc"]
    record["system"]["covar"] = [
        {"of": "compound-usdc", "given": "aave", "paths": 70, "value": 900.0, "low": 800.0, "high": None}
        | {"delta": 300.0},
        {"of": "aave", "given": "compound-usdc", "paths": 7, "value": None, "low": None, "high": None}
        | {"delta": None, "why": "too few"},
    ]
    record["system"]["debtrank"] = {
        "equity_usd": {"aave": 3e6, "compound-usdc": 1e6},
        "rank": {"aave": 0.00126, "compound-usdc": 0.0},
        "distress": {"aave": [1.0, 0.005], "compound-usdc": [0.0, 1.0]},
    }
    heads, cells = risk.covar_table(record) or ((), ())
    assert list(heads[2:4]) == ["aave", "compound-usdc"]
    assert list(cells) == [
        ("aave", "70", "", "$900\n$800 to unknown\n+$300 against its own", ""),
        ("compound-usdc", "7", "unknown", "", "too few"),
    ]
    _, ranks = risk.debtrank_table(record) or ((), ())
    assert list(ranks) == [
        ("aave", "$3.00 M", "0.13 %", "compound-usdc, 0.5 %"),
        ("compound-usdc", "$1.00 M", "0 %", "none"),
    ]
    assert "against its own" in Text(own_part(simulation_html(record))).text


def test_the_tornado_has_what_each_end_changes(full: dict[str, Any]) -> None:
    ends = full["spread"]["ends"]
    keys = [own["key"] for own in full["spread"]["ranges"]]
    for name in risk.TORNADO:
        low, high = figures.tornado(full, name)["data"]
        order = [label.split("<br>")[0] for label in low["y"]]
        assert sorted(order[:2]) == sorted(keys)
        assert order[2] == "all together"
        assert high["y"] == low["y"]
        for bar, end in ((low, "low"), (high, "high")):
            changes = [ends[f"{end} {key}"][name]["change"] for key in order[:2]]
            changes.append(ends[f"all {end}"][name]["change"])
            assert bar["x"] == [change["value"] for change in changes]
            halves = [(change["high"] - change["low"]) / 2 for change in changes]
            assert bar["error_x"]["array"] == pytest.approx(halves)
        sizes = [max(abs(a), abs(b)) for a, b in zip(low["x"][:2], high["x"][:2], strict=True)]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] > 0


def test_the_page_has_the_ranges_figures(full: dict[str, Any], page: str) -> None:
    text = Text(own_part(page)).text
    for name, own in full["spread"]["figures"].items():
        words = {"liquidations": view.count, "time_to_clear_s": view.duration}.get(name, view.usd)
        said = f"{words(own['least'])} {own['least_at']} {words(own['most'])} {own['most_at']}"
        assert f"{risk.SPREAD_NAMES[name]} {words(own['value'])} {said}" in text
    for end, own in full["spread"]["ends"].items():
        for name in risk.TORNADO:
            assert f"{view.usd(own[name]['value'])} {view.plus_minus(own[name])} " in text
            change = own[name]["change"]
            assert f"{view.signed(change['value'])} {view.plus_minus(change)}" in text
        assert end in text


def test_ranges_that_change_nothing_have_no_bars(full: dict[str, Any]) -> None:
    record = copy.deepcopy(full)
    for own in record["spread"]["ends"].values():
        own["bad_debt_usd"]["change"] = {"value": 0.0, "low": 0.0, "high": 0.0}
    assert risk.tornado_figures(record) == ["liquidated_usd"]
    # One range alone is all ranges.
    record["spread"]["ranges"] = record["spread"]["ranges"][:1]
    assert len(risk.tornado_rows(record, "liquidated_usd")) == 1


def test_the_page_has_the_wallets(full: dict[str, Any], page: str) -> None:
    own = full["wallets"]
    assert own["top"]
    text = Text(own_part(page)).text
    assert f"of {own['cross_margin']:,} wallet" in text
    for wallet in own["top"]:
        assert f"{wallet['wallet']} {wallet['score']:,.1f} {wallet['legs']} " in text
        share = wallet["broken"]
        assert f"{view.part(share['value'])} {view.part(share['low'])} to {view.part(share['high'])}" in text


def test_wallets_without_a_figure_say_why(full: dict[str, Any]) -> None:
    record = copy.deepcopy(full)
    record["wallets"]["top"] = [
        record["wallets"]["top"][0] | {"leverage": None, "assets_usd": 5.0, "distance": None},
        record["wallets"]["top"][0] | {"leverage": None, "assets_usd": 0.0, "distance": 0.25},
    ]
    record["wallets"]["missed"] = 3
    _, (first, second) = risk.wallets_table(record) or ((), ((), ()))
    assert first[4:6] == ("debt beyond assets", "nothing to liquidate")
    shown = {"wallet": "w", "score": 61.26, "legs": 3, "assets_usd": 5e6, "leverage": 2.5, "distance": 0.1}
    shown |= {"concentration": 0.75, "liquidated": 0.5, "broken": {"value": 0.2, "low": 0.15, "high": 0.3}}
    alone = {"wallets": full["wallets"] | {"top": [shown]}}
    cells = ("w", "61.3", "3", "$5.00 M", "2.50", "10 %", "0.75", "50 %", "20 %\n15 % to 30 %")
    _, (only,) = risk.wallets_table(alone) or ((), ((),))
    assert only == cells
    assert second[4:6] == ("no assets", "25 %")
    assert "3 liquidations could not be noted" in str(risk.wallets_words(record))
    record["wallets"] = {"cross_margin": 0, "weights": {}, "paths": 0, "top": []}
    page = simulation_html(record)
    assert "No wallet has positions in two places or more." in page
    assert "Risk score" not in Text(own_part(page)).text


def test_a_record_of_an_earlier_version_has_a_page(full: dict[str, Any]) -> None:
    gone = ("sampling", "system", "spread", "wallets")
    seen = Text(own_part(simulation_html({k: v for k, v in full.items() if k not in gone})))
    assert not {"system", "spread", "wallets"} & set(seen.sections)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (2e-6, "below 0.001 %"),
        (0.000455, "0.045 %"),
        (0.0029, "0.29 %"),
        (0.25, "25 %"),
        (None, "unknown"),
    ],
)
def test_small_parts_for_people(value: float | None, text: str) -> None:
    assert risk.small_part(value) == text


def test_names_that_look_like_numbers_are_names(full: dict[str, Any]) -> None:
    record = renamed(full, {"no-bonus": "200", "aave": "2024-08-05"})
    drawn = (figures.policies(record), figures.matrix(record), figures.effects(record))
    for spec in (*drawn, figures.tornado(record, "liquidated_usd")):
        assert spec["layout"]["yaxis"]["type"] == "category"
    assert figures.matrix(record)["layout"]["xaxis"]["type"] == "category"


def test_the_page_has_the_records_numbers(full: dict[str, Any], page: str) -> None:
    text = Text(own_part(page)).text
    bad = full["tails"]["bad_debt_usd"]
    for value in (bad["0.99"]["mean"]["value"], bad["0.95"]["var"]["value"], bad["0.99"]["es"]["value"]):
        assert value > 1_000
        assert f"${value:,.0f}" in text
    mean = bad["0.99"]["mean"]
    assert f"± ${(mean['high'] - mean['low']) / 2:,.0f}" in text
    for fact in (
        "ether falls",
        "All at once & for good.",
        "Marginline 1.2.3",
        full["scenario_sha256"],
        "ab" * 32,
    ):
        assert fact in text
    assert f"Seed {SEED}" in text
    assert full["book_source"] in text
    own = full["policies_compared"]["no-bonus"]["0.99"]["es"]["value"]
    assert f"${own:,.0f}" in text
    assert "bonus (bonus_bps = 0)" in text
    assert "500 bps lower" in text
    event = full["worst_path"]["events"][0]
    assert event["wallet"] in text
    assert f"{event['health_factor']:,.4f}" in text


def test_the_figures_have_the_records_numbers(full: dict[str, Any], page: str) -> None:
    drawn = specs(page)
    own = full["worst_path"]
    market, *feeds = (t for t in drawn["cascade"]["data"] if t["yaxis"] == "y")
    assert market["y"] == own["market"]["wstETH"] or market["y"] == own["market"]["WETH"]
    assert feeds
    bars = [t for t in drawn["cascade"]["data"] if t["type"] == "bar"]
    assert sum(sum(b["y"]) for b in bars) == pytest.approx(sum(v[-1] for v in own["liquidated_usd"].values()))
    assert drawn["waterfall"]["data"][0]["x"][0] == full["figures"]["bad_debt_usd"]["value"]
    histogram, _ = drawn["distribution-bad_debt_usd"]["data"]
    assert histogram["y"] == full["histograms"]["bad_debt_usd"]["counts"]
    matrix = drawn["matrix"]["data"][0]
    assert matrix["z"] == [[f["value"] for f in row] for row in full["matrix"]["matrix"]]
    by_channel = {e["channel"]: e["effect"]["value"] for e in full["effects"]}
    effects = drawn["effects"]["data"][0]
    assert dict(zip(effects["y"], effects["x"], strict=True)) == by_channel
    static = {t["name"]: t["y"] for t in drawn["static-debt"]["data"]}
    assert static["WETH"] == full["static"]["WETH"]["debt_usd"]


def test_mean_var_and_es_are_marked_under_their_names(full: dict[str, Any]) -> None:
    record = copy.deepcopy(full)
    low, high = (record["tails"]["bad_debt_usd"][q] for q in ("0.95", "0.99"))
    for k, figure in enumerate((low["mean"], low["var"], low["es"], high["var"], high["es"])):
        figure |= {"value": 10.0 * k, "low": 10.0 * k - 1, "high": 10.0 * k + 2}
    high["var"]["high"] = None
    marks = figures.distribution(record, "bad_debt_usd")["data"][1]
    at = dict(zip(marks["y"], marks["x"], strict=True))
    assert at == {"mean": 0.0, "VaR 95 %": 10.0, "ES 95 %": 20.0, "VaR 99 %": 30.0, "ES 99 %": 40.0}
    assert marks["error_x"]["arrayminus"] == [1.0] * 5
    # A limit that is unknown reaches to the largest that was seen.
    largest = full["histograms"]["bad_debt_usd"]["edges"][-1]
    up = dict(zip(marks["y"], marks["error_x"]["array"], strict=True))
    assert up.pop("VaR 99 %") == largest - 30.0
    assert set(up.values()) == {2.0}


@pytest.mark.parametrize("steps", [3, 160, 161, 1_500])
def test_no_liquidation_is_lost_between_bars(full: dict[str, Any], steps: int) -> None:
    record = copy.deepcopy(full)
    own = record["worst_path"]
    record["steps"] = steps
    own["t_s"] = [60.0 * (k + 1) for k in range(steps)]
    own["liquidated_usd"] = {"aave": [2.0 * (k + 1) for k in range(steps)], "compound-usdc": [7.0] * steps}
    own["written_off_usd"] = {"aave": [0.0] * steps, "compound-usdc": [0.0] * steps}
    for name in ("market", "oracle"):
        own[name] = stretched(own[name], steps)
    own["base_fee_gwei"] = [0.0] * steps
    spec = figures.cascade(record)
    first, second = (t for t in spec["data"] if t["type"] == "bar")
    assert len(first["y"]) <= figures.BARS
    assert sum(first["y"]) == 2.0 * steps
    assert second["y"][0] == 7.0
    assert sum(second["y"]) == 7.0
    # No write-off and no base fee: neither has a row.
    assert [k for k in spec["layout"] if k.startswith("yaxis")] == ["yaxis", "yaxis2", "yaxis3"]


def stretched(value: Any, steps: int) -> Any:
    if isinstance(value, dict):
        return {k: stretched(v, steps) for k, v in value.items()}
    return [value[0]] * steps


def test_the_largest_change_is_first_whatever_its_sign() -> None:
    rows = [("a", 1.0), ("b", -9.0), ("c", 5.0)]
    spec = figures.changes([(n, {"value": v, "low": v - 2, "high": v + 2}) for n, v in rows], "x")
    bar = spec["data"][0]
    assert bar["y"] == ["b", "c", "a"]
    assert bar["x"] == [-9.0, 5.0, 1.0]
    assert bar["error_x"]["array"] == [2.0, 2.0, 2.0]
    assert bar["marker"]["color"] == [plotting.PROTOCOL, plotting.HARM, plotting.MARKET]


def test_the_waterfall_ends_at_nothing(full: dict[str, Any]) -> None:
    bars = figures.waterfall(full)["data"][0]
    whole, *parts = list(zip(bars["base"], bars["x"], strict=True))
    assert whole[0] == 0
    tops = [base + size for base, size in parts]
    assert tops[0] == pytest.approx(whole[1])
    assert min(map(abs, (parts[-1][0], tops[-1]))) < 1e-9 * whole[1]


def test_plotly_takes_every_figure(full: dict[str, Any], page: str) -> None:
    for name, spec in specs(page).items():
        assert go.Figure(spec).data, name


def test_feeds_that_part_from_the_market_are_marked(full: dict[str, Any], calm: dict[str, Any]) -> None:
    spec = figures.cascade(full)
    (mark,) = [a for a in spec["layout"]["annotations"] if "the market" in a["text"]]
    # Three steps of latency behind a fall of 30 %: the feed is about 1 / 0.7 - 1 above for a while.
    assert float(re.findall(r"feed ([\d.]+) % above", mark["text"])[0]) > 40
    assert spec["layout"]["shapes"]
    assert figures.cascade(calm)["layout"]["shapes"] == []


def test_colours_say_what_is_certain() -> None:
    assert figures.change_colour({"value": 5.0, "low": 1.0, "high": 9.0}) == plotting.HARM
    assert figures.change_colour({"value": -5.0, "low": -9.0, "high": -1.0}) == plotting.PROTOCOL
    assert figures.change_colour({"value": 5.0, "low": -1.0, "high": 11.0}) == plotting.MARKET
    assert figures.change_colour({"value": 5.0, "low": None, "high": None}) == plotting.MARKET


def renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {names.get(k, k): renamed(v, names) for k, v in value.items()}
    if isinstance(value, list):
        return [renamed(v, names) for v in value]
    return names.get(value, value) if isinstance(value, str) else value


def test_names_are_never_markup(full: dict[str, Any]) -> None:
    evil = "<img src=x onerror=alert(1)>"
    names = {
        "ether falls": f"</title>{evil}",
        "aave": f"aave{evil}",
        "WETH": f"W{evil}",
        "no-bonus": f"p{evil}",
        "whale": f"w{evil}",
        "All at once & for good.": f"</script>{evil}",
        "prices.volatility": f"k{evil}",
        "low prices.volatility": f"low k{evil}",
        "high prices.volatility": f"high k{evil}",
    }
    assert full["wallets"]["top"]
    names[full["wallets"]["top"][0]["wallet"]] = f"top{evil}"
    page = own_part(simulation_html(renamed(full, names)))
    assert "<img" not in page
    assert "</title></title>" not in page
    assert page.count("</script>") == len(specs(page)) + 2
    for name in ("aave", "top", "low k"):
        assert html.escape(f"{name}{evil}") in page
    for spec in specs(page).values():  # plotly would make tags and links of these
        shown = json.dumps([spec["data"], spec["layout"]])
        assert "<img" not in shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unknown"),
        (float("inf"), "unknown"),
        (0.0, "$0"),
        (-0.001, "$0"),
        (12.3456, "$12.35"),
        (-1234.4, "−$1,234"),
        (999_400.0, "$999,400"),
        (999_600.0, "$1.00 M"),
        (2.5e9, "$2.50 B"),
    ],
)
def test_dollars_for_people(value: float | None, text: str) -> None:
    assert view.usd(value) == text


def test_other_words_for_people() -> None:
    assert view.signed(5.0) == "+$5.00"
    assert view.signed(-5.0) == "−$5.00"
    assert view.signed(0.0) == "$0"
    assert view.count(0.034) == "0.03"
    assert view.count(12.34) == "12.3"
    assert view.count(12.0) == "12"
    assert view.part(0.005) == "0.5 %"
    assert view.part(0.25) == "25 %"
    assert view.part(None) == "unknown"
    assert view.duration(12) == "12 s"
    assert view.duration(60) == "60 s"
    assert view.duration(5400) == "90 min"
    assert view.duration(14_400) == "4 h"
    assert view.duration(216_000) == "2.5 d"
    assert view.between({"low": 1_000.0, "high": None}) == "$1,000 to unknown"


# -------------------------------------------------------------------------------------------------- commands
def test_a_run_writes_record_paths_and_page(full: dict[str, Any], tmp_path: Path, page: str) -> None:
    written = write_run(tmp_path, full, html=True)
    assert [file.name for file in written] == ["record.json", "report.html"]
    assert written[1].read_text(encoding="utf-8") == page
    assert simulation_html(json.loads(written[0].read_text(encoding="utf-8"))) == page
    assert len(write_run(tmp_path, full, html=False)) == 1


def test_policy_files_are_read_by_their_names(scenario: Scenario) -> None:
    files = sorted((EXAMPLES / "policies").glob("*.toml"))
    found = policy_files(load_scenario(EXAMPLES / "crash.toml"), EXAMPLES, files)
    assert list(found) == ["lower-bonus", "small-steps", "stricter"]
    assert [table["kind"] for table in found["stricter"]] == ["threshold-shift", "halt-toxic"]
    assert policy_files(scenario, EXAMPLES, ()) == {}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.toml", '[[policies]]\nkind = "bonsu"\nbonus_bps = 1\n', "'bonus'"),
        ("a.toml", '[[policies]]\nkind = "bonus"\nbonus_bps = -1\n', "bonus_bps"),
        ("a.toml", '[[policies]]\nkind = "halt-toxic"\nvenues = ["aaev"]\n', "'aave'"),
        ("a.toml", '[policies]\nkind = "bonus"\n', "[[policies]]"),
        ("a.toml", "policies = [1]\n", "[[policies]]"),
        ("a.toml", "steps = 3\n", "steps is not known there"),
        ("a.toml", "[[", "not TOML"),
        ("a,b.toml", "", "rename"),
        ("absent.toml", None, "absent.toml"),
    ],
)
def test_a_bad_policy_file_is_one_line(
    scenario: Scenario, tmp_path: Path, name: str, text: str | None, says: str
) -> None:
    file = tmp_path / name
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        policy_files(scenario, EXAMPLES, [file])
    assert name.split(",")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_policies_of_one_name_are_refused(scenario: Scenario, tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.toml").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="a is there already"):
        policy_files(scenario, EXAMPLES, [tmp_path / "x" / "a.toml", tmp_path / "y" / "a.toml"])


def test_the_matrix_says_what_its_numbers_mean(full: dict[str, Any]) -> None:
    said = view.matrix_words(full)
    assert "Below zero" in said
    assert "lower thresholds liquidate earlier" in said
    assert html.escape(said) in simulation_html(full)
    console = Console(record=True, width=400)
    show(console, full)
    printed = console.export_text()
    assert printed.index("shock of") < printed.index(said)
    other = view.matrix_words({**full, "matrix_shock": {"kind": "oracle", "size": 0.05}})
    assert "prices believed too low" in other
    show(console, {**full, "matrix": None})
    assert said not in console.export_text()


def test_simulate_compares_policies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    scenario, policy = tmp_path / "s.toml", tmp_path / "no-bonus.toml"
    scenario.write_text(
        f'name = "s"\nbook = "{EXAMPLES / "market.toml"}"\nsteps = 12\nstep_s = 60\n'
        '[prices]\nprocess = "gbm"\nvolatility = 1.0\n'
        '[[shocks]]\ntoken = "WETH"\nmove = -0.35\n',
        encoding="utf-8",
    )
    policy.write_text('[[policies]]\nkind = "bonus"\nbonus_bps = 0\n', encoding="utf-8")
    inside = Inside(monkeypatch, capsys)
    words = ["simulate", str(scenario), "--paths", "4", "--workers", "1", "--out", str(tmp_path / "out")]
    ran = inside(*words, "--policy", str(policy), "--json")
    assert ran.code == 0, ran.err
    record = json.loads(ran.out)
    assert set(record["policies_compared"]) == {"no-bonus"}
    assert record["policy_tables"] == {"no-bonus": [{"kind": "bonus", "bonus_bps": 0}]}
    assert record["policy_effects"]["no-bonus"]["liquidated_usd"]["change"]["value"] != 0
    assert (tmp_path / "out" / "report.html").read_text(encoding="utf-8") == simulation_html(record)
