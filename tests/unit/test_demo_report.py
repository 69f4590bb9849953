"""The demo's report: one offline file, deterministic, escaped, and drawn from valid figures."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs
from rich.console import Console

from contracts_abi.errors import InputError
from simulation.report import figures
from simulation.report.demo import MAX_ACCOUNT_ROWS, render_demo
from simulation.report.record import DemoRecord, Invariant, LeftRow, ProtocolCounts, record_from_json
from simulation.report.summary import stories
from simulation.report.terminal import print_demo
from simulation.types import Reason
from tests.demo_record import synthetic_record


@pytest.fixture(scope="module")
def record() -> DemoRecord:
    return synthetic_record()


@pytest.fixture(scope="module")
def page(record: DemoRecord) -> str:
    return render_demo(record)


def own_part(page: str) -> str:
    """The page without plotly.js."""
    return page.replace(get_plotlyjs(), "")


def specs(page: str) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json" id="spec-([\w-]+)">(.*?)</script>', page, re.S)
    return {name: json.loads(text) for name, text in found}


def bare(record: DemoRecord) -> DemoRecord:
    """A run in which nothing happened."""
    empty = ("blocks", "liquidations", "accounts_left", "waiting", "faults", "provenance")
    return record.model_copy(update=dict.fromkeys(empty, ()))


def test_the_same_record_gives_the_same_bytes(record: DemoRecord, page: str) -> None:
    assert render_demo(record_from_json(record.to_json())) == page


def test_it_fetches_nothing(page: str) -> None:
    assert get_plotlyjs() in page
    own = own_part(page)
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#)""", own)
    assert "@import" not in own
    assert "url(" not in own
    assert "http" not in own.replace("https://", "http://").split("<footer>")[0]


class _Tags(HTMLParser):
    VOID = frozenset({"meta", "input", "br", "link", "img", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"


def test_tags_nest_and_ids_are_unique(page: str) -> None:
    tags = _Tags()
    tags.feed(own_part(page))
    assert tags.open == []
    assert len(tags.ids) == len(set(tags.ids))
    for target in re.findall(r'href="#([\w-]+)"', page):
        assert target in tags.ids


def test_every_figure_is_valid_and_has_its_place(record: DemoRecord, page: str) -> None:
    found = specs(page)
    assert set(found) == {
        *(f"price-{i}" for i in range(len(record.assets))),
        *("health", "bad_debt", "liquidations", "profit", "earnings"),
    }
    for name, spec in found.items():
        go.Figure(spec)  # refuses an unknown property or a value out of range
        assert page.count(f'<div class="figure" data-spec="spec-{name}"></div>') == 1


def test_a_price_panel_shows_the_four_prices_and_the_faults_of_its_token(record: DemoRecord) -> None:
    weth = figures.price_panel(record, "WETH", 300)
    names = [t["name"] for t in weth["data"]]
    assert names == ["market", "executable", "reference", "protocol", "liquidations"]
    protocol = weth["data"][names.index("protocol")]
    assert protocol["y"][0] == 169.54
    assert protocol["line"]["shape"] == "hv"
    assert [s["x0"] for s in weth["layout"]["shapes"]] == ["2020-03-12T10:15:00"]
    usdc = figures.price_panel(record, "USDC", 300)
    assert usdc["layout"]["shapes"] == []
    low, high = usdc["layout"]["yaxis"]["range"]
    assert high - low > 0.03


def test_an_unknown_price_is_a_gap_and_not_zero(record: DemoRecord) -> None:
    dai = figures.price_panel(record, "DAI", 300)
    reference = next(t for t in dai["data"] if t["name"] == "reference")
    assert reference["y"][30:34] == [None] * 4
    assert min(p for p in reference["y"] if p is not None) > 0.9


def test_the_heat_map_counts_every_account_with_debt(record: DemoRecord) -> None:
    heat = figures.health(record)["data"][0]
    assert len(heat["z"]) == len(heat["y"]) - 1
    for column, block in enumerate(record.blocks):
        assert sum(row[column] for row in heat["z"]) == record.accounts - block.no_debt


def test_liquidations_of_one_block_stand_in_its_order(record: DemoRecord) -> None:
    marks = [t for t in figures.liquidations(record)["data"] if "legendgroup" in t]
    assert sum(len(t["x"]) for t in marks) == len(record.liquidations)
    assert {t["name"] for t in marks if t["showlegend"]} == {r.collateral for r in record.liquidations}
    block = record.blocks[58].number
    order = [r.account[:6] for r in record.liquidations if r.block == block]
    drawn = sorted(
        (x, text[:6])
        for t in marks
        for x, text in zip(t["x"], t["text"], strict=True)
        if f"block {block}<" in text
    )
    assert len(order) > 5
    assert [account for _, account in drawn] == order


def test_text_of_others_is_escaped(record: DemoRecord) -> None:
    evil = '</script><script>alert("x")</script>'
    changed = record.model_copy(
        update={
            "scenario_title": evil,
            "accounts_left": (
                LeftRow(account=evil, reason=Reason.HEALTHY, first_block=1, last_block=2, detail=evil),
            ),
            "faults": tuple(f.model_copy(update={"note": evil, "feed": evil}) for f in record.faults),
        }
    )
    assert "alert(&#34;x&#34;)" in (page := render_demo(changed))
    assert evil not in page
    assert "<script>alert" not in page


def test_broken_checks_are_said_first_and_in_full(record: DemoRecord) -> None:
    broken = Invariant(ok=False, checked=3, broken=("intent 0xab ran twice",), description="once only")
    page = own_part(render_demo(record.model_copy(update={"invariants": {"once": broken}})))
    assert "1 of 2 checks broken" in page
    assert "intent 0xab ran twice" in page
    assert "checks hold" not in page


def test_a_foreign_pool_breaks_the_verdict(record: DemoRecord) -> None:
    foreign = record.model_copy(
        update={"identity": record.identity.model_copy(update={"runtime_equal": False})}
    )
    assert not foreign.passed
    assert "1 of 5 checks broken" in own_part(render_demo(foreign))


def test_a_run_in_which_nothing_happened_still_renders(record: DemoRecord) -> None:
    page = own_part(render_demo(bare(record)))
    assert "No liquidation was mined." in page
    assert "No account had to wait for a feed." in page
    assert set(specs(page)) == {"health", "bad_debt"}
    for spec in specs(page).values():
        go.Figure(spec)


def test_the_table_shows_the_eventful_and_says_how_many_it_leaves_out(record: DemoRecord) -> None:
    crowd = tuple(
        LeftRow(account=f"0x{i:040x}", reason=Reason.HEALTHY, first_block=1, last_block=2)
        for i in range(MAX_ACCOUNT_ROWS + 500)
    )
    page = own_part(render_demo(record.model_copy(update={"accounts_left": record.accounts_left + crowd})))
    assert page.count("data-reasons=") == MAX_ACCOUNT_ROWS
    assert "The 700 least eventful accounts are left out here" in page
    for row in record.liquidations:
        assert f'title="{row.account}"' in page


def terminal(record: DemoRecord) -> str:
    out = io.StringIO()
    print_demo(record, Console(file=out, width=100, color_system=None))
    return out.getvalue()


def test_the_terminal_shows_the_same_figures(record: DemoRecord) -> None:
    text = terminal(record)
    assert f"{len(record.liquidations)} (" in text
    assert "$169.54 to $86.00 (−49%)" in text
    assert "protocol_price_wrongly_low" in text
    assert text.rstrip().endswith("all 5 checks hold")
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("width", [60, 80])
def test_nothing_is_cut_in_a_narrow_terminal(record: DemoRecord, width: int) -> None:
    out = io.StringIO()
    print_demo(record, Console(file=out, width=width, color_system=None))
    text = out.getvalue()
    assert "…" not in text
    faults = text.partition("Feeds at fault")[2].partition("Accounts left")[0]
    for whole in ("protocol", "reference", "held", "armed", "+34.7 %", "−30.0 %"):
        assert whole in faults
    assert max(map(len, text.splitlines())) <= width
    if width == 80:
        assert "ETH/USD frozen" in faults
        assert "10:15 to 11:30" in faults


def test_the_terminal_names_what_broke(record: DemoRecord) -> None:
    broken = Invariant(ok=False, checked=3, broken=("intent 0xab ran twice",), description="once only")
    text = terminal(record.model_copy(update={"invariants": {"once": broken}}))
    assert "once: intent 0xab ran twice" in text
    assert text.rstrip().endswith("1 of 2 checks broken")


def test_the_terminal_takes_a_run_in_which_nothing_happened(record: DemoRecord) -> None:
    assert "0 (0 partial)" in terminal(bare(record))


# ------------------------------------------------------------------------------------------------- by market


def two_markets(record: DemoRecord) -> DemoRecord:
    """The same run with its accounts shared out over two markets, the same address in both."""

    def counts(name: str, ok: bool) -> ProtocolCounts:
        invariant = Invariant(ok=ok, checked=7, broken=() if ok else ("0xA",), description="a statement")
        own = [row for i, row in enumerate(record.liquidations) if (i % 2 == 0) is (name == "a")]
        return ProtocolCounts(
            borrowers=3,
            liquidations=len(own),
            accounts_liquidated=len({row.account for row in own}),
            liquidatable=2,
            held_rightly=1,
            debt_covered_usd_e8=12_345 * 10**8,
            profit_usd_e8=10**8,
            gas_usd_e8=10**7,
            bad_debt_base=0,
            invariants={"statement": invariant},
        )

    rows = tuple(
        row.model_copy(update={"protocol": "a" if i % 2 == 0 else "morpho-blue:0123abcd"})
        for i, row in enumerate(record.liquidations)
    )
    protocols = {"a": counts("a", True), "morpho-blue:0123abcd": counts("morpho-blue:0123abcd", False)}
    return record.model_copy(update={"protocols": protocols, "liquidations": rows})


def test_every_market_has_its_counts_and_checks(record: DemoRecord) -> None:
    several = two_markets(record)
    own = own_part(render_demo(several))
    table = own.partition('<table id="markets">')[2].partition("</table>")[0]
    assert "morpho-blue:0123abcd" in table
    assert "$12,345" in table
    assert (table.count("✓"), table.count("✗")) == (1, 1)
    assert '<table id="markets">' not in own_part(render_demo(record))

    shown = io.StringIO()
    print_demo(several, Console(file=shown, width=80))
    line = next(x for x in shown.getvalue().splitlines() if x.startswith("morpho-blue:0123abcd"))
    assert f"{several.protocols['morpho-blue:0123abcd'].liquidations} of" in line
    assert "✗" in line


def test_an_account_in_two_markets_has_two_stories(record: DemoRecord) -> None:
    several = two_markets(record)
    named = [(s.protocol, s.account) for s in stories(several)]
    assert len(set(named)) == len(named)
    both = {a for p, a in named if p == "a"} & {a for p, a in named if p == "morpho-blue:0123abcd"}
    assert both, "somebody was liquidated in both"


def test_a_liquidation_in_a_market_that_is_not_there_is_refused(record: DemoRecord) -> None:
    text = two_markets(record).to_json().replace('"protocol": "a"', '"protocol": "b"')
    with pytest.raises(InputError, match="is in 'b', not in protocols"):
        record_from_json(text)
