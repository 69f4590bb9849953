"""A replay's reports: the same record gives the same bytes, nothing is fetched, no foreign text is markup."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from html.parser import HTMLParser
from typing import Any

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from contracts_abi.errors import InputError
from simulation.replay.record import ReplayRecord, replay_record_from_json
from simulation.report import oracle_figures
from simulation.report.oracle_html import render_replay_html
from simulation.report.oracle_md import render_replay_md
from simulation.report.oracle_poc import MAX_STEPS, Poc, deviation_bps, poc_of, render_poc
from simulation.report.oracle_view import MAX_ROWS, timelines
from tests.replay_record import START, STEP_S, replay_record


@pytest.fixture(scope="module")
def record() -> ReplayRecord:
    return replay_record()


@pytest.fixture(scope="module")
def page(record: ReplayRecord) -> str:
    return render_replay_html(record)


@pytest.fixture(scope="module")
def text(record: ReplayRecord) -> str:
    return render_replay_md(record)


def own_part(page: str) -> str:
    """The page without plotly.js."""
    return page.replace(get_plotlyjs(), "")


def longer(record: ReplayRecord, steps: int) -> ReplayRecord:
    """The record with a price that changes its status at every step."""
    rows = []
    for i in range(steps):
        row = record.timeline[i % 2 * 3].model_copy(update={"t": START + i * STEP_S, "block": i})
        cells = {
            name: cell.model_copy(update={"mantissa": None if cell.mantissa is None else str(10**7 + i)})
            for name, cell in row.feeds.items()
        }
        rows.append(row.model_copy(update={"feeds": cells}))
    return record.model_copy(update={"timeline": tuple(rows), "economics": None})


# ---------------------------------------------------------------------------------------------------- record


def test_the_record_survives_its_json(record: ReplayRecord) -> None:
    assert replay_record_from_json(record.to_json()) == record


def test_json_has_sorted_keys_and_no_float(record: ReplayRecord) -> None:
    value = json.loads(record.to_json(), parse_float=lambda _: pytest.fail("a float"))
    assert list(value) == sorted(value)
    assert record.to_json().endswith("}\n")


def test_half_a_record_is_one_line(record: ReplayRecord) -> None:
    with pytest.raises(InputError, match=r"^replay record: .*scenario_id") as caught:
        replay_record_from_json(record.to_json().replace('"scenario_id"', '"scenario"'))
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------ page


def test_the_same_record_gives_the_same_bytes(record: ReplayRecord, page: str, text: str) -> None:
    again = replay_record_from_json(record.to_json())
    assert render_replay_html(again) == page
    assert render_replay_md(again) == text
    assert render_poc(again) == render_poc(record)


def test_the_page_fetches_nothing(page: str) -> None:
    own = own_part(page)
    assert get_plotlyjs() in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#)""", own)
    assert "@import" not in own
    assert "url(" not in own


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


def test_tags_nest_and_links_lead_somewhere(page: str) -> None:
    tags = _Tags()
    tags.feed(own_part(page))
    assert tags.open == []
    assert len(tags.ids) == len(set(tags.ids))
    for target in re.findall(r'href="#([\w-]+)"', page):
        assert target in tags.ids


def test_every_figure_is_valid_and_has_its_place(page: str) -> None:
    found: dict[str, Any] = {
        name: json.loads(spec)
        for name, spec in re.findall(
            r'<script type="application/json" id="spec-([\w-]+)">(.*?)</script>', page, re.S
        )
    }
    assert set(found) == {"price-0", "deviation-0", "bad-debt"}
    for name, spec in found.items():
        go.Figure(spec)  # refuses an unknown property or a value out of range
        assert page.count(f'<div class="figure" data-spec="spec-{name}"></div>') == 1


def test_the_price_figure_shows_truth_reported_adapted_and_the_guard(record: ReplayRecord) -> None:
    spec = oracle_figures.prices(record, "COIN/USD")
    lines = {trace["name"]: trace for trace in spec["data"]}
    assert list(lines) == ["truth", "COIN/USD reference", "reported", "adapted", "guard violated"]
    assert lines["reported"]["y"][-1] == 0.107
    assert lines["truth"]["y"][-1] == 0.0113
    assert lines["COIN/USD reference"]["y"][1] is None, "no answer is a gap, not zero"
    assert lines["adapted"]["y"][:3] == [0.3, 0.2, None]
    assert lines["guard violated"]["text"] == ["G06"]
    assert [band["x0"] for band in spec["layout"]["shapes"]] == ["2022-05-12T08:30:00"]


def test_labels_of_marks_that_are_near_stand_apart() -> None:
    positions = oracle_figures._positions
    assert positions([], 100) == []
    assert positions([0, 50], 100) == ["top center", "top center"]
    assert positions([0, 2, 50], 100) == ["top left", "bottom center", "top center"]
    assert positions([0, 2, 4, 6], 100) == ["top left", "bottom center", "top right", "top left"]


def test_a_price_off_by_powers_of_ten_gets_a_logarithmic_axis(record: ReplayRecord) -> None:
    def shifted(row: Any) -> Any:
        cell = row.feeds["COIN/USD"].model_copy(
            update={"raw": "107000000000", "deviation_bps": str(10**16), "status": "ok"}
        )
        return row.model_copy(update={"feeds": row.feeds | {"COIN/USD": cell}})

    wild = record.model_copy(update={"timeline": (*record.timeline[:-1], shifted(record.timeline[-1]))})
    assert oracle_figures.prices(wild, "COIN/USD")["layout"]["yaxis"]["type"] == "log"
    assert oracle_figures.deviation(wild, "COIN/USD")["layout"]["yaxis"]["type"] == "log"
    assert "type" not in oracle_figures.deviation(record, "COIN/USD")["layout"]["yaxis"]


def test_what_others_wrote_is_text_and_not_markup(record: ReplayRecord, page: str, text: str) -> None:
    assert "beyond &lt;the&gt; bound" in page
    assert "<b>never" not in own_part(page)
    assert "<b>never" not in text
    evil = '</script><script>alert("x")</script>'
    changed = record.model_copy(update={"title": evil, "summary": evil, "mechanism": evil})
    own = own_part(render_replay_html(changed))
    assert own.count("<script>alert") == 0


def test_a_replay_without_lending_has_its_report_too(record: ReplayRecord) -> None:
    bare = record.model_copy(
        update={
            "economics": None,
            "matrix": None,
            "checks": (),
            "fired": (),
            "faults": (),
            "provenance": (),
            "published_loss_usd": None,
            "scenario_sha256": "",
        }
    )
    page, text = render_replay_html(bare), render_replay_md(bare)
    for shown in (page, text):
        assert "names no protocol" in shown
        assert "states no expectation" in shown
    assert "bad-debt" not in page


# -------------------------------------------------------------------------------------------------- markdown


def test_every_row_of_a_table_has_its_columns(text: str) -> None:
    width = 0
    for line in text.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line))
        if line.startswith("|---"):
            width = cells
        elif line.startswith("| ") and width:
            assert cells == width, line
        elif not line.startswith("|"):
            width = 0


@pytest.mark.parametrize(
    "says",
    [
        "| 5 | 0.05 | 0.107 | 0.05 | none, pause | refused | G06 | unguarded: attacker borrows 470800 USDC",
        "**Standing: documented",
        "Published loss: $11.20 m",
        "| G06 bound | epsilon_bps = 1000 | stops |",
        "| G06 | epsilon_bps = 1000 (default) | calm | shown | 3 of 12,000 | 1 of 40 |",
        "84691 bps (+846.91 %) at 2022-05-12T09:10:00Z",
        "nothing (reverted)",
        "- G10 sequencer: not applicable: no uptime feed",
        "SOL-Defi-Oracle-14",
        "| scenario sha256 | " + "ab" * 32,
    ],
)
def test_the_text_says(text: str, says: str) -> None:
    assert says in text


# -------------------------------------------------------------------------------------------------- timeline


def test_the_timeline_shows_what_changed_and_the_ends(record: ReplayRecord) -> None:
    (table,) = timelines(record)
    shown = [line.time[11:16] for line in table.lines]
    assert shown == ["08:00", "08:10", "08:20", "08:30", "08:50", "09:10", "09:20"]
    assert table.feeds == ("COIN/USD", "COIN/USD reference")


@pytest.mark.parametrize("steps", [2, MAX_ROWS, MAX_ROWS + 1, 5_000])
def test_a_long_timeline_is_thinned_and_keeps_the_landmarks(record: ReplayRecord, steps: int) -> None:
    (table,) = timelines(longer(record, steps))
    assert len(table.lines) <= MAX_ROWS
    times = [line.time for line in table.lines]
    assert times == sorted(set(times))
    assert times[0] == "2022-05-12T08:00:00Z"
    if steps > 8:
        assert {"2022-05-12T08:20:00Z", "2022-05-12T08:30:00Z", "2022-05-12T09:10:00Z"} <= set(times)
    assert (table.steps, table.changes) == (steps, steps)


# ------------------------------------------------------------------------------------------ proof of concept


@pytest.fixture(scope="module")
def poc(record: ReplayRecord) -> Poc:
    found = poc_of(record)
    assert found is not None
    return found


def test_the_proof_has_the_worst_step_and_the_naive_lenders_loss(poc: Poc) -> None:
    worst = poc.steps[poc.worst]
    assert (worst.answer, worst.truth, worst.deviation_bps) == (10_700_000, 113 * 10**14, 84_691)
    assert poc.ltv_bps == 5_500
    assert poc.lent == 10_700_000 * 10**10 * 55 // 100
    assert poc.bad_debt == poc.lent - worst.truth > 0


def test_a_proof_stays_short(record: ReplayRecord) -> None:
    found = poc_of(longer(record, 2_000))
    assert found is not None
    assert len(found.steps) <= MAX_STEPS


def test_deviation_rounds_away_from_zero() -> None:
    one = 10**18
    assert [deviation_bps(answer, 8, one) for answer in (10**8, 10**8 + 1, 10**8 - 1, 0)] == [
        0,
        1,
        -1,
        -10_000,
    ]


def test_the_files_are_what_they_claim(record: ReplayRecord) -> None:
    files = render_poc(record)
    assert set(files) == {"README.md", "Replay.t.sol", "foundry.toml", "replay.py"}
    ast.parse(files["replay.py"])
    tomllib.loads(files["foundry.toml"])
    assert "import " not in re.sub(r"//.*", "", files["Replay.t.sol"])
    assert "84691" in files["Replay.t.sol"]
    assert "84691" in files["replay.py"]


def test_the_proof_names_the_scenario_as_the_command_line_knows_it(record: ReplayRecord) -> None:
    own = render_poc(record.model_copy(update={"scenario_id": "my-depeg"}))
    assert "replay ./scenario.toml --out again" in own["README.md"]
    assert "give the scenario's file" in own["replay.py"]
    packaged = render_poc(record.model_copy(update={"scenario_id": "venus-luna-2022-05-12"}))
    assert "replay venus-luna-2022-05-12 --out again" in packaged["README.md"]
    assert "scenario.toml" not in packaged["replay.py"] + packaged["README.md"]
    for files in (own, packaged):
        ast.parse(files["replay.py"])


def test_a_title_cannot_leave_its_comment(record: ReplayRecord) -> None:
    evil = 'x"""\nimport os\n*/ contract Evil {}\n'
    files = render_poc(record.model_copy(update={"title": evil}))
    tree = ast.parse(files["replay.py"])
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert "os" not in imported
    assert not any(line.lstrip().startswith("contract Evil") for line in files["Replay.t.sol"].splitlines())


def test_without_an_answer_there_is_nothing_to_prove(record: ReplayRecord) -> None:
    silent = record.summaries[0].model_copy(update={"max_deviation_bps": None})
    assert render_poc(record.model_copy(update={"summaries": (silent,)})) == {}
