"""Cross-protocol margin by hand: excess by venue, scenarios, links, paths, the command, the guide."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts_abi.errors import InputError, UnknownNameError
from simulation.book.load import load_book
from simulation.book.types import (
    Backing,
    BackingKind,
    EMode,
    LendingColumns,
    LendingVenue,
    OptionColumns,
    PerpColumns,
    PerpVenue,
    RateCurve,
    Reserve,
    SharedBook,
    Token,
)
from simulation.margin.cross.account import CrossAccount, cross_accounts, problem_of
from simulation.margin.cross.excess import excess_of, isolated, legs_of, venue_names
from simulation.margin.cross.links import (
    CLASSES,
    DEFAULT_LINKS,
    LinkClass,
    Links,
    links_of,
    parse_links,
)
from simulation.margin.cross.paths import (
    Course,
    Rule,
    _Run,
    clairvoyant,
    course_of,
    path_requirement,
    simulate,
)
from simulation.margin.cross.programme import Problem, least_capital, needs_alone
from simulation.margin.cross.scenarios import (
    HALTS,
    Kind,
    OwnScenario,
    ScenarioFile,
    Scenarios,
    parse_scenarios,
    roots,
    scenarios_of,
)
from simulation.margin.cross.stress import there_and_back
from tests.command_line import Inside

ROOT = Path(__file__).resolve().parents[2]
HEDGED = ROOT / "examples" / "hedged.toml"
GUIDE = ROOT / "docs" / "cross-margin.md"

CURVE = RateCurve(0.9, 0.0, 0.02, 0.5)


def reserve(token: str, ltv: int, threshold: int, **more: Any) -> Reserve:
    return Reserve(token, ltv, threshold, 500 if threshold else 0, CURVE, **more)


def lending(rows: list[tuple[int, int, int, int, float, int]]) -> LendingColumns:
    venue, wallet, side, token, amount, emode = (np.array(column) for column in zip(*rows, strict=True))
    i32 = np.int32
    return LendingColumns(
        wallet.astype(i32),
        venue.astype(i32),
        token.astype(i32),
        side.astype(np.int8),
        amount.astype(np.float64),
        emode.astype(i32),
    )


def perps(size: float = -10.0, margin: float = 10_000.0) -> PerpColumns:
    one, none = np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.int32)
    return PerpColumns(one, none, none, np.array([size]), np.array([2000.0]), one, none, np.array([margin]))


BOOK = SharedBook(
    tokens=(
        Token("ETH", 18, 2000.0),
        Token("stETH", 18, 2200.0, Backing(BackingKind.STAKED, "ETH", rate=1.1)),
        Token("USDC", 6, 1.0, Backing(BackingKind.STABLE, "USD")),
    ),
    lending=(
        LendingVenue(
            "aave",
            "aave-v3.6",
            (
                reserve("ETH", 8000, 8250),
                reserve("stETH", 7500, 8000, idle_supply=100.0),
                reserve("USDC", 7500, 7800, idle_supply=50_000.0),
            ),
            (EMode(1, ("ETH", "stETH"), 9300, 9500, 100),),
        ),
        LendingVenue("comet", "compound-v3", (reserve("ETH", 8250, 8950), reserve("USDC", 0, 0))),
        LendingVenue("morpho", "morpho-blue", (reserve("stETH", 9450, 9450), reserve("ETH", 0, 0))),
    ),
    wallets=("ann", "bob"),
    positions=lending(
        [
            (0, 0, 0, 0, 10.0, 0),
            (0, 0, 1, 2, 10_000.0, 0),
            (0, 1, 0, 1, 10.0, 1),
            (0, 1, 1, 0, 9.0, 1),
            (1, 0, 0, 0, 10.0, 0),
            (1, 0, 1, 2, 15_000.0, 0),
            (2, 1, 0, 1, 10.0, 0),
            (2, 1, 1, 0, 9.9, 0),
        ]
    ),
    perps=(PerpVenue("perps", "USDC", {"ETH": 0.03}, {"ETH": 0.05}, liquidation_fee=0.005),),
    perp_positions=perps(),
)
NAMES = ("aave", "comet", "morpho", "perps")


def linked(book: SharedBook = BOOK, **keys: Any) -> Links:
    return links_of(parse_links(keys, "links"), venue_names(book)) if keys else links_of(DEFAULT_LINKS, NAMES)


def own(*scenarios: dict[str, Any], book: SharedBook = BOOK) -> Scenarios:
    file = ScenarioFile(standard=False, scenario=tuple(OwnScenario(**one) for one in scenarios))
    return scenarios_of(file, book)


# ----------------------------------------------------------------------------------- the two-deficit example


@pytest.mark.parametrize(("reserve_open", "required"), [(True, 10.0), (False, 20.0)])
@pytest.mark.parametrize("closed_forms", [True, False])
def test_two_deficits_in_different_scenarios(reserve_open: bool, required: float, closed_forms: bool) -> None:
    zero = np.zeros((2, 2))
    opened = np.zeros((3, 2, 2), dtype=bool)
    opened[2] = reserve_open
    problem = Problem(
        excess=np.array([[-10.0, 0.0], [0.0, -10.0]]),
        withdrawable=zero,
        returned=zero,
        gas=zero,
        haircut=np.zeros((3, 2)),
        capacity=np.full((3, 2), np.inf),
        open=opened,
    )
    answer = least_capital(problem, closed_forms=closed_forms)
    assert (answer.netted, answer.gross) == (10.0, 20.0)
    assert answer.required == pytest.approx(required, abs=1e-12)
    assert answer.offset == pytest.approx(1.0 if reserve_open else 0.0)
    # The same without a reserve where one protocol can hand its capital on.
    between = np.ones((3, 2, 2), dtype=bool)
    between[2] = False
    handing = replace(problem, returned=np.ones((2, 2)), open=between)
    assert least_capital(handing, closed_forms=closed_forms).required == pytest.approx(10.0)


def test_gas_is_paid_once_by_a_protocol_that_is_sent_anything() -> None:
    problem = Problem(
        excess=np.array([[-10.0], [6.0], [6.0]]),
        withdrawable=np.array([[0.0], [6.0], [6.0]]),
        returned=np.zeros((3, 1)),
        gas=np.full((3, 1), 1.0),
        haircut=np.zeros((4, 3)),
        capacity=np.full((4, 3), np.inf),
        open=np.ones((4, 3, 1), dtype=bool),
    )
    # Twelve can come for a deficit of ten and one of gas: from two sources, gas once.
    assert least_capital(problem).required == pytest.approx(0.0, abs=1e-9)
    dear = replace(problem, gas=np.full((3, 1), 2.5))
    assert least_capital(dear).required == pytest.approx(0.5)
    # Where gas is more than all that could come, the deficit is met in place.
    assert least_capital(replace(problem, gas=np.full((3, 1), 50.0))).required == pytest.approx(10.0)


def test_what_no_account_is_is_refused() -> None:
    good = Problem(
        excess=np.array([[1.0]]),
        withdrawable=np.array([[1.0]]),
        returned=np.zeros((1, 1)),
        gas=np.zeros((1, 1)),
        haircut=np.zeros((2, 1)),
        capacity=np.ones((2, 1)),
        open=np.ones((2, 1, 1), dtype=bool),
    )
    wrong: dict[str, Any] = {
        "excess is no number": {"excess": np.array([[np.nan]])},
        "withdrawable above": {"withdrawable": np.array([[1.5]])},
        "withdrawable below": {"withdrawable": np.array([[-1.0]])},
        "haircut outside": {"haircut": np.full((2, 1), 1.5)},
        "returned outside": {"returned": np.full((1, 1), np.nan)},
        "gas below": {"gas": np.full((1, 1), -1.0)},
        "capacity below": {"capacity": np.full((2, 1), np.nan)},
        "open of shape": {"open": np.ones((1, 1, 1), dtype=bool)},
        "excess of shape": {"excess": np.ones(1)},
    }
    for text, change in wrong.items():
        with pytest.raises(InputError, match=text):
            replace(good, **change)


# ---------------------------------------------------------------------------------------------------- excess


def figures(scenarios: Scenarios, links: Links | None = None) -> tuple[Any, Any]:
    found = excess_of(legs_of(BOOK), scenarios.factors, scenarios.frozen, links or linked())
    return found.excess, found.withdrawable


def test_each_venue_by_its_own_rule() -> None:
    excess, withdrawable = figures(own({"name": "down", "prices": {"ETH": 0.9}}))
    ann, bob = excess
    assert ann[:, 0] == pytest.approx([6500.0, 2900.0, 0.0, 9400.0])
    assert ann[:, 1] == pytest.approx([4850.0, 1110.0, 0.0, 11_460.0])
    # The category's threshold at Aave, and stETH follows ETH so that both legs fall.
    assert bob[:, 0] == pytest.approx([22_000 * 0.95 - 18_000, 0.0, 22_000 * 0.945 - 19_800, 0.0])
    assert bob[:, 1] == pytest.approx(0.9 * bob[:, 0])
    # Aave has ten ETH of which nine are lent; Compound asks for the limit of a new loan; perpetuals for the
    # initial margin, and half of the profit of 2,000 may leave.
    assert withdrawable[0, :, 0] == pytest.approx([2000.0, 1500.0, 0.0, 9000.0])
    assert withdrawable[0, :, 1] == pytest.approx([1800.0, 0.0, 0.0, 11_000.0])
    assert withdrawable[1, :, 0] == pytest.approx([2900.0, 0.0, 990.0, 0.0])


def test_unpaid_profit_leaves_in_part_and_up_to_a_limit() -> None:
    down = own({"name": "down", "prices": {"ETH": 0.9}})
    assert figures(down, linked(gain_offset=0.0))[1][0, 3, 1] == pytest.approx(10_000.0)
    assert figures(down, linked(max_offsetable=300.0))[1][0, 3, 1] == pytest.approx(10_300.0)
    # All of it: then the initial margin is what limits.
    assert figures(down, linked(gain_offset=1.0))[1][0, 3, 1] == pytest.approx(12_000 - 900)


def test_an_empty_pool_keeps_collateral_that_is_lent_out() -> None:
    _, withdrawable = figures(own({"name": "empty", "frozen": NAMES}))
    assert withdrawable[0, :, 1] == pytest.approx([0.0, 1500.0, 0.0, 9000.0])
    assert withdrawable[1, :, 1] == pytest.approx([0.0, 0.0, 990.0, 0.0])


def test_some_wallets_are_the_rows_of_all() -> None:
    everybody = legs_of(BOOK)
    bob = legs_of(BOOK, np.array([1]))
    for name in ("counted", "owed", "initial", "held", "constant", "present"):
        assert (getattr(bob, name)[0] == getattr(everybody, name)[1]).all(), name


def test_options_are_said_not_to_count() -> None:
    one, i8 = np.array([1], dtype=np.int32), np.array([1], dtype=np.int8)
    none = np.zeros(1, dtype=np.int32)
    options = OptionColumns(one, none, np.ones(1), np.ones(1), np.ones(1), np.ones(1), i8)
    ann, bob = cross_accounts(replace(BOOK, options=options), linked(), own(), [0, 1])
    assert (ann.options, bob.options) == (False, True)
    assert bob.record()["options_not_counted"] is True


def test_positions_one_by_one_need_no_less_than_the_account() -> None:
    book = replace(
        BOOK,
        positions=lending(
            [
                (0, 0, 0, 0, 10.0, 0),
                (0, 0, 0, 1, 1.0, 0),
                (0, 0, 1, 0, 2.0, 0),
                (0, 0, 1, 2, 9000.0, 0),
                (0, 1, 0, 0, 1.0, 0),
            ]
        ),
    )
    shocks = scenarios_of(ScenarioFile(), book)
    chosen = np.array([0, 1])
    legs = legs_of(book, chosen)
    found = excess_of(legs, shocks.factors, shocks.frozen, linked())
    alone, parts = needs_alone(found.excess), isolated(book, legs, chosen, shocks.factors)
    assert (parts >= alone - 1e-9).all()
    # A debt of ETH is hedged by collateral of ETH; the debt of USDC alone is not.
    assert parts[0, 0] > alone[0, 0] + 1
    # Up 50 %: the debt of two ETH has its share, 4 of 13 parts, of collateral of 18,260; down 50 % the other.
    up = (4 / 13) * 1.5 * (16_500 + 1760) - 6000
    down = (9 / 13) * 0.5 * (16_500 + 1760) - 9000
    only = own({"name": "up", "prices": {"ETH": 1.5}}, {"name": "down", "prices": {"ETH": 0.5}}, book=book)
    assert isolated(book, legs, chosen, only.factors)[0, 0] == pytest.approx(max(0, -up) + max(0, -down))
    strict = replace(BOOK.perps[0], maintenance_margin={"ETH": 0.07}, initial_margin={"ETH": 0.1})
    book = replace(book, perps=(strict,))
    legs = legs_of(book, chosen)
    alone = needs_alone(excess_of(legs, shocks.factors, shocks.frozen, linked()).excess)
    assert alone[0, 3] == pytest.approx(10 * 1000 + 0.07 * 10 * 3000 - 10_000)
    # One perpetual is the account itself.
    assert isolated(book, legs, chosen, shocks.factors)[0, 3] == pytest.approx(alone[0, 3])


# ------------------------------------------------------------------------------------------------- scenarios


def test_the_five_stresses_are_there() -> None:
    shocks = scenarios_of(ScenarioFile(), BOOK)
    assert set(shocks.kinds) == set(Kind) - {Kind.OWN}
    assert len(set(shocks.names)) == len(shocks)
    assert (shocks.factors[:, 0] == 1).all()
    of = {kind: np.array([one is kind for one in shocks.kinds]) for kind in Kind}
    same = (shocks.factors == shocks.factors[:1]).all(axis=(0, 2))
    assert same[~of[Kind.ORACLE]].all()
    assert not same[of[Kind.ORACLE]].any()
    assert (shocks.frozen.all(axis=0) == of[Kind.UTILISATION]).all()
    assert (shocks.gas_factor[of[Kind.GAS]] == 20).all()
    assert (shocks.gas_factor[~of[Kind.GAS]] == 1).all()
    fallen = {
        (name, i): shocks.factors[0, s, i]
        for s, name in enumerate(shocks.names)
        if of[Kind.DEPEG][s]
        for i in range(3)
    }
    assert fallen["USDC -10% off its peg", 2] == pytest.approx(0.9)
    assert fallen["USDC -10% off its peg, all -30%", 0] == pytest.approx(0.7)
    assert fallen["stETH -10% off its peg, all -30%", 1] == pytest.approx(0.63)
    assert fallen["stETH -10% off its peg, all -30%", 2] == 1.0


def test_halts_and_time_close_links() -> None:
    shocks = scenarios_of(ScenarioFile(), BOOK)
    at = {name: i for i, name in enumerate(shocks.names)}
    kinds = {LinkClass.ATOMIC: 0, LinkClass.BRIDGE: 1, LinkClass.SAME_ACCOUNT: 2}
    entries = [{"from": "aave", "to": NAMES[1 + i], "class": kind} for kind, i in kinds.items()]
    links = linked(link=[*entries, {"from": "reserve", "to": "aave", "class": "wallet"}])
    opened = shocks.open_links(links)

    def open_in(name: str) -> list[bool]:
        return [bool(opened[0, 1 + i, at[name]]) for i in kinds.values()] + [bool(opened[4, 0, at[name]])]

    assert open_in("all -30%") == [True, True, True, True]
    assert open_in("bridge halted, all -30%") == [True, False, True, True]
    assert open_in("sequencer halted, all -30%") == [False, False, True, False]
    # A feed catches up within a block, which a bridge does not.
    assert open_in("ETH -15% but at aave") == [True, False, True, True]
    assert not opened[1, 0].any()
    assert not opened[[0, 1, 2, 3], [0, 1, 2, 3]].any()
    assert set(HALTS["bridge"]) < set(HALTS["sequencer"])


def test_prices_follow_what_backs_them() -> None:
    assert roots(BOOK) == ("ETH", "ETH", "USD")
    shocks = own(
        {"name": "a", "prices": {"ETH": 0.5, "stETH": 0.4}},
        {"name": "b", "every": 0.8, "seen": {"comet": {"ETH": 0.9}}},
    )
    assert shocks.factors[0, 1] == pytest.approx([0.5, 0.4, 1.0])
    assert shocks.factors[0, 2] == pytest.approx([0.8, 0.8, 1.0])
    assert shocks.factors[1, 2] == pytest.approx([0.9, 0.9, 1.0])
    circle = replace(
        BOOK,
        tokens=(
            replace(BOOK.tokens[0], backing=Backing(BackingKind.WRAPPED, "stETH")),
            *BOOK.tokens[1:],
        ),
    )
    with pytest.raises(InputError, match="backs itself"):
        roots(circle)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"scenario": [{"name": "x", "prices": {"ETHH": 1.0}}]}, "'ETHH'; did you mean 'ETH'"),
        ({"scenario": [{"name": "x", "frozen": ["aavee"]}]}, "'aavee'; did you mean 'aave'"),
        ({"scenario": [{"name": "x", "every": 0.0}]}, "scenario.0.every"),
        ({"moves": [-1.0]}, "moves"),
        ({"move": [-0.1]}, "unknown key 'move'; did you mean 'moves'"),
    ],
)
def test_bad_scenarios_are_one_line(table: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=re.escape(text)) as caught:
        scenarios_of(parse_scenarios(table, "s.toml"), BOOK)
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------------------------- links


def test_links_take_the_figures_of_their_class_unless_they_have_their_own() -> None:
    links = linked(
        link=[
            {"from": "*", "to": "perps", "class": "fast-bridge"},
            {"from": "aave", "to": "perps", "class": "cex", "haircut": 0.3, "capacity": 7.0},
            {"from": "reserve", "to": "*", "class": "wallet", "latency_s": 60},
        ]
    )
    bridge, cex = CLASSES[LinkClass.BRIDGE], CLASSES[LinkClass.CEX]
    assert (links.haircut[1, 3], links.latency_s[1, 3]) == (1 - bridge.recognition, bridge.latency_s)
    assert (links.haircut[0, 3], links.latency_s[0, 3], links.capacity[0, 3]) == (0.3, cex.latency_s, 7.0)
    assert (links.haircut[4] == 0).all()
    assert (links.latency_s[4] == 60).all()
    assert np.isinf(links.latency_s[3, :]).all()
    assert links.kind[0][3] is LinkClass.CEX
    assert links.of_class(LinkClass.BRIDGE).sum() == 2


@pytest.mark.parametrize(
    ("table", "error", "text"),
    [
        (
            {"link": [{"from": "avae", "to": "perps", "class": "cex"}]},
            UnknownNameError,
            "did you mean 'aave'",
        ),
        ({"link": [{"from": "aave", "to": "reserve", "class": "cex"}]}, InputError, "leads to the reserve"),
        ({"link": [{"from": "aave", "to": "perps", "class": "rope"}]}, InputError, "link.0.class"),
        ({"link": [{"from": "aave", "to": "perps"}]}, InputError, "class: is missing"),
        ({"link": [{"from": "aave", "to": "perps", "class": "cex", "haircut": 2}]}, InputError, "haircut"),
        ({"gass": 1}, InputError, "did you mean 'gas'"),
    ],
)
def test_bad_links_are_one_line(table: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        linked(**table)
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------- one account, in all


def account(scenarios: Scenarios, links: Links | None = None, book: SharedBook | None = None) -> CrossAccount:
    book = book or load_book(HEDGED)
    links = links or links_of(DEFAULT_LINKS, venue_names(book))
    (found,) = cross_accounts(book, links, scenarios, [0])
    return found


def test_requirements_are_in_order_for_every_wallet() -> None:
    shocks = scenarios_of(ScenarioFile(), BOOK)
    for one in cross_accounts(BOOK, linked(), shocks, [0, 1]):
        assert one.capital is not None
        record = one.record()
        c = record["requirement"]
        assert c["portfolio"] <= c["cross_protocol"] <= c["cross"] <= c["isolated"]
        assert record["freed_of_isolated"]["isolated"] == 0
        assert sum(record["placed"].values()) == pytest.approx(c["cross_protocol"])
        assert record["status"] == "healthy"
        json.dumps(record, allow_nan=False)


def test_capital_at_a_loan_stays_and_gas_is_the_scenarios() -> None:
    shocks = scenarios_of(ScenarioFile(), BOOK)
    found = excess_of(legs_of(BOOK), shocks.factors, shocks.frozen, linked())
    lends = legs_of(BOOK).lends
    problem = problem_of(found.excess[0], found.withdrawable[0], lends, linked(), shocks, (0, 1, 3))
    assert problem.returned[:, 0].tolist() == [0.0, 0.0, 1.0]
    assert problem.excess.shape == (3, len(shocks))
    spikes = np.array([kind is Kind.GAS for kind in shocks.kinds])
    assert (problem.gas[:, spikes] == 100.0).all()
    assert (problem.gas[:, ~spikes] == 5.0).all()
    assert problem.haircut[3].tolist() == [0.0, 0.0, 0.0]


def test_a_wallet_with_nothing_needs_nothing() -> None:
    book = replace(BOOK, wallets=(*BOOK.wallets, "nil"))
    (nil,) = cross_accounts(book, linked(), scenarios_of(ScenarioFile(), book), [2])
    assert nil.protocols == ()
    assert set(nil.record()["requirement"].values()) == {0.0}


def test_a_wallet_that_nobody_can_solve_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(problem: Problem) -> None:
        raise ArithmeticError("the programme has no answer")

    monkeypatch.setattr("simulation.margin.cross.account.least_capital", fails)
    one = account(own(book=load_book(HEDGED)))
    assert one.capital is None
    assert one.record()["status"] == "unknown"
    assert one.record()["reason"] == "the programme has no answer"


# ----------------------------------------------------------------------------------------------------- paths


def straight(values: list[float], late: list[float] | None = None, **rule: Any) -> tuple[Any, Course]:
    """Return hedged.toml's book and the hedger's course along one path of WETH; Aave's feed may be late."""
    book = load_book(HEDGED)
    prices = np.ones((1, len(values), 2))
    prices[0, :, 0] = values
    seen = np.stack([prices, prices]).copy()
    if late is not None:
        seen[0, 0, :, 0] = late
    links = links_of(DEFAULT_LINKS, venue_names(book))
    return book, course_of(book, 0, links, prices, 300.0, seen=seen, **rule)


def run(course: Course, placed: list[float], reserve: float = 0.0, **more: Any) -> Any:
    return simulate(course, np.array([placed]), np.array([reserve]), Rule(), **more)


def test_a_leg_that_is_lost_on_the_way_is_missing_at_the_end() -> None:
    # At 2,300 the short has 30,000 - 30,000 of equity: closed with a fee of 0.5 % of 230,000. At 2,000 the
    # loan stands as before and the short's loss is realised.
    _, course = straight([2000.0, 2300.0, 2000.0])
    gone = run(course, [0.0, 0.0], transfers=False)
    assert gone.breached[0, 0]
    assert gone.liquidations[0, 0] == 1
    assert gone.penalties[0, 0] == pytest.approx(1150.0)
    assert gone.hedge[0, 0] == pytest.approx(30_000.0)
    assert gone.gas[0, 0] == 20.0
    assert gone.loss[0, 0] == pytest.approx(31_170.0)
    assert gone.bad_debt[0, 0] == pytest.approx(1150.0)
    # Equity 6,900 above nothing is what the maintenance margin of 3 % asks for.
    assert not run(course, [0.0, 6900.0], transfers=False).breached[0, 0]
    assert run(course, [0.0, 6899.0], transfers=False).breached[0, 0]
    kept = run(course, [0.0, 6900.0], transfers=False)
    assert kept.loss[0, 0] == pytest.approx(0.0, abs=1e-6)


def test_a_loan_loses_by_close_factor_and_penalty() -> None:
    # 1,780: 147,740 against 150,000, health factor 0.985: half is repaid, and 5 % more is seized; then
    # 83 x (100 - 78,750 / 1,780) / 100 x 1,780 = 82,377 against 75,000 is sound.
    _, course = straight([2000.0, 1780.0, 1780.0])
    half = run(course, [0.0, 0.0], transfers=False)
    assert half.liquidations[0, 0] == 1
    assert half.penalties[0, 0] == pytest.approx(0.05 * 75_000)
    assert half.hedge[0, 0] == pytest.approx(0.0, abs=1e-6)
    # 1,700: 141,100 / 150,000 = 0.941: all of it.
    _, course = straight([2000.0, 1700.0, 1700.0])
    whole = run(course, [0.0, 0.0], transfers=False)
    assert whole.penalties[0, 0] == pytest.approx(0.05 * 150_000)
    # Collateral that is sold at 1,700 is missing at 2,000, the loan and the short closed by then alike.
    _, course = straight([2000.0, 1700.0, 2000.0])
    back = run(course, [0.0, 0.0], transfers=False)
    assert back.hedge[0, 0] == pytest.approx(157_500 / 1700 * 300)


def test_money_on_its_way_arrives_when_its_time_has_passed() -> None:
    _, course = straight([2000.0, 2150.0, 2300.0, 2300.0])
    # At 2,150 the short is at 1 + (15,000 - 6,450) / 215,000: it is topped up to 1.2, from the reserve.
    assert not run(course, [0.0, 0.0], 60_000.0).breached[0, 0]
    slow = replace(course, latency=np.where(course.latency >= 0, 2, course.latency))
    assert run(slow, [0.0, 0.0], 60_000.0).breached[0, 0]
    assert run(course, [0.0, 0.0], 60_000.0, transfers=False).breached[0, 0]
    # What is sent pays gas, and over a link its haircut; nothing else is lost.
    moved = run(course, [0.0, 0.0], 60_000.0)
    assert moved.loss[0, 0] == pytest.approx(moved.transfers[0, 0])
    assert moved.transfers[0, 0] > 0


def test_what_is_on_its_way_is_not_sent_again_and_gas_eats_small_sums() -> None:
    _, course = straight([2000.0, 2150.0, 2150.0, 2150.0, 2150.0])
    slow = replace(course, latency=np.where(course.latency >= 0, 3, course.latency))
    assert run(slow, [0.0, 0.0], 60_000.0).transfers[0, 0] == pytest.approx(5.0)
    assert run(course, [0.0, 0.0], 4.0).transfers[0, 0] == 0.0


def test_what_a_protocol_can_send_keeps_it_sound() -> None:
    book = load_book(HEDGED)
    prices = np.ones((1, 2, 2))
    prices[0, :, 0] = 2000.0, 1600.0
    rule = Rule(trigger=1.0, target=1.0)

    def spare(target: Rule, **keys: Any) -> float:
        links = links_of(parse_links(keys, "links"), venue_names(book))
        course = course_of(book, 0, links, prices, 300.0)
        return float(_Run(course, np.zeros((1, 2)), np.zeros(1)).spare(1, 1, target)[0])

    # Equity 70,000, of which 40,000 are unpaid profit; notional 160,000, of it 3 % and 5 %.
    assert spare(Rule()) == pytest.approx(70_000 - 4800 - 0.2 * 160_000)
    assert spare(rule) == pytest.approx(30_000 + 20_000)
    assert spare(rule, gain_offset=1.0) == pytest.approx(70_000 - 8000)

    prices = np.ones((1, 2, 3))
    prices[0, :, 0], prices[0, :, 1] = 2000.0, 2200.0
    start = _Run(course_of(BOOK, 0, linked(), prices, 300.0), np.zeros((1, 3)), np.zeros(1))
    # Aave's pool has one ETH; Compound asks for the limit of a new loan.
    assert start.spare(0, 0, rule)[0] == pytest.approx(2000.0)
    assert start.spare(1, 0, rule)[0] == pytest.approx(1500.0)


def test_paths_that_may_breach_are_left_out_of_the_bound() -> None:
    book = load_book(HEDGED)
    links = links_of(DEFAULT_LINKS, venue_names(book))
    prices = np.ones((4, 2, 2))
    prices[:, 0, 0], prices[:, 1, 0] = 2000.0, (1500.0, 1900.0, 1600.0, 1700.0)
    course = course_of(book, 1, links, prices, 300.0)  # the loan without the hedge
    needs = [150_000 - 83 * price for price in (1500, 1600, 1700)] + [0.0]
    for allowed, need in enumerate(needs):
        found = path_requirement(course, alpha=allowed / 4)
        assert found.clairvoyant == pytest.approx(need)
        assert found.netted == pytest.approx(need)
        assert need - 1e-6 <= found.causal <= need + found.resolution + 1e-6


def brownian(seed: int, paths: int = 40, steps: int = 24) -> Any:
    rng = np.random.default_rng(seed)
    out = np.ones((paths, steps + 1, 2))
    out[:, 0, 0] = 2000.0
    moves = rng.normal(0, 0.02, (paths, steps))
    out[:, 1:, 0] = 2000.0 * np.exp(np.cumsum(moves, axis=1))
    return out


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_the_causal_figure_lies_between_the_clairvoyant_and_the_gross(alpha: float) -> None:
    book = load_book(HEDGED)
    links = links_of(DEFAULT_LINKS, venue_names(book))
    saved = 0
    for seed in range(3):
        prices = brownian(seed)
        course = course_of(book, 0, links, prices, 600.0)
        found = path_requirement(course, alpha=alpha)
        assert found.netted <= found.clairvoyant + 1e-6 or alpha > 0
        assert found.clairvoyant <= found.causal <= found.gross
        placed = np.array([[found.placed[name] for name in course.names]])
        outcome = simulate(course, placed, np.array([found.reserve]), Rule(), transfers=found.transfers)
        assert outcome.breached.sum() <= int(alpha * len(prices))
        saved += found.causal < 0.9 * found.gross
    assert saved
    with pytest.raises(InputError, match="alpha"):
        path_requirement(course, alpha=1.0)


def test_no_rule_needs_less_than_the_clairvoyant() -> None:
    book = load_book(HEDGED)
    rng = np.random.default_rng(5)
    tried = 0
    for seed in range(4):
        for haircut in (0.0, 0.5):
            links = links_of(
                parse_links(
                    {
                        "gas": 0.0,
                        "link": [
                            {"from": "*", "to": "*", "class": "same-chain-atomic", "haircut": haircut},
                            {"from": "reserve", "to": "*", "class": "wallet", "haircut": haircut / 2},
                        ],
                    },
                    "links",
                ),
                venue_names(book),
            )
            course = course_of(book, 0, links, brownian(seed, 20), 600.0)
            bound = clairvoyant(course)
            many = 60
            capital = rng.uniform(0, 1.5 * bound + 1, many)
            split = rng.dirichlet(np.ones(3), many)
            placed, kept = capital[:, None] * split[:, :2], capital * split[:, 2]
            trigger = float(rng.uniform(1.0, 1.3))
            rule = Rule(trigger=trigger, target=trigger + 0.1)
            safe = ~simulate(course, placed, kept, rule).breached.any(axis=1)
            tried += int(safe.sum())
            assert (capital[safe] >= bound - 1e-6).all()
    assert tried > 5


def test_bad_paths_are_refused() -> None:
    book = load_book(HEDGED)
    links = links_of(DEFAULT_LINKS, venue_names(book))
    good = brownian(0, 2)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"prices": good[:, :, :1]}, "prices of shape"),
        ({"prices": np.where(good > 1, np.nan, good)}, "above 0"),
        ({"step_s": 0.0}, "a step of 0 s"),
        ({"seen": good}, "seen prices of shape"),
    ]
    for change, text in wrong:
        arguments: dict[str, Any] = {"prices": good, "step_s": 60.0} | change
        with pytest.raises(InputError, match=text):
            course_of(book, 0, links, arguments.pop("prices"), arguments.pop("step_s"), **arguments)
    with pytest.raises(InputError, match="trigger"):
        Rule(trigger=1.3, target=1.2)


def test_stress_paths_go_out_and_through_to_the_other_side() -> None:
    book = load_book(HEDGED)
    shocks = scenarios_of(ScenarioFile(moves=(-0.2, 0.2)), book)
    stress = there_and_back(book, shocks, out=2, hold=1, back=4, lag=2)
    assert stress.names[:3] == (
        "all -20% and back",
        "all -20% and back, aave late",
        "all -20% and back, perps late",
    )
    assert stress.prices[0, :, 0] == pytest.approx([2000, 1800, 1600, 1600, 1800, 2000, 2200, 2400])
    assert (stress.prices[:, :, 1] == 1).all()
    assert stress.seen[0, 1, :, 0] == pytest.approx([2000, 2000, 2000, 1800, 1600, 1600, 1800, 2000])
    assert (stress.seen[1, 1] == stress.prices[1]).all()
    assert (stress.seen[0, 2] == stress.prices[2]).all()


# ------------------------------------------------------------------------------------ the command, the guide


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    monkeypatch.setenv("COLUMNS", "100")
    return Inside(monkeypatch, capsys)


def test_the_command_says_it_side_by_side(inside: Inside) -> None:
    done = inside("margin", "cross", str(HEDGED))
    assert done.code == 0, done.err
    for text in (
        "isolated",
        "cross (G)",
        "cross-protocol (C)",
        "portfolio (N)",
        "recognised offset",
        "binding:",
    ):
        assert text in done.out
    assert "same-chain-atomic" in done.out
    record = inside("margin", "cross", str(HEDGED), "--wallet", "hedger", "--json").json()
    (one,) = record["accounts"]
    assert one["wallet"] == "hedger"
    assert one["binding"][0]["limit"] == "link"
    assert {row["class"] for row in record["links"]} == {"same-chain-atomic", "wallet"}
    assert {row["kind"] for row in record["scenarios"]} == {
        str(kind) for kind in Kind if kind is not Kind.OWN
    }
    by_name = {row["requirement"]: row for row in one["hidden"]}
    assert by_name["cross"]["breached"] == 0
    assert by_name["portfolio"]["breached"] > 0
    assert by_name["portfolio"]["unseen"] > 0
    over = one["over_paths"]
    assert over["clairvoyant"] <= over["causal"] <= over["gross"]


def test_many_wallets_are_a_table_without_what_takes_time(inside: Inside, tmp_path: Path) -> None:
    entry = '[[account]]\nwallet = "w{}"\nvenue = "aave"\ncollateral = {{ WETH = 1.0 }}\n'
    many = "".join(entry.format(i) for i in range(25))
    path = tmp_path / "many.toml"
    path.write_text(HEDGED.read_text(encoding="utf-8") + many, encoding="utf-8")
    accounts = inside("margin", "cross", str(path), "--json").json()["accounts"]
    assert len(accounts) == 27
    assert all(one["binding"] is None and one["over_paths"] is None for one in accounts)
    shown = inside("margin", "cross", str(path)).out
    assert "w24" in shown
    assert "recognised offset" not in shown


def test_the_command_takes_links_scenarios_and_a_price_process(inside: Inside, tmp_path: Path) -> None:
    links, shocks, prices = (tmp_path / name for name in ("l.toml", "s.toml", "p.toml"))
    links.write_text("link = []\n", encoding="utf-8")
    shocks.write_text("moves = [-0.2, 0.2]\nstress_moves = [-0.2, 0.2]\n", encoding="utf-8")
    prices.write_text('process = "gbm"\nvolatility = { WETH = 0.8, USDC = 0.0 }\n', encoding="utf-8")
    words = ["margin", "cross", str(HEDGED), "--wallet", "hedger", "--links", str(links)]
    words += ["--scenarios", str(shocks), "--prices", str(prices), "--paths", "20", "--steps", "12", "--json"]
    (one,) = inside(*words).json()["accounts"]
    assert one["requirement"]["cross_protocol"] == one["requirement"]["cross"]
    assert one["recognised_offset"] == 0
    again = inside(*words).json()["accounts"]
    assert again == [one]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--wallet", "hedgr"], "unknown wallet 'hedgr'; did you mean 'hedger'"),
        (["--links", "absent.toml"], "absent.toml: No such file"),
        (["--scenarios", str(HEDGED)], "unknown key 'schema'"),
        (["--prices", str(HEDGED)], "process is missing"),
    ],
)
def test_the_command_refuses_in_one_line(inside: Inside, words: list[str], text: str) -> None:
    done = inside("margin", "cross", str(HEDGED), *words)
    assert done.code == 2
    assert done.out == ""
    assert text in done.err
    assert done.err.count("\n") == 1


# The worked example: scenarios that grow, and a path on which Aave's feed stands still on the way up.
PRICES = ({"name": "all -20%", "every": 0.8}, {"name": "all +20%", "every": 1.2})
FEEDS = (
    {"name": "up, aave late", "every": 1.2, "seen": {"aave": {"WETH": 1.0}}, "t_liq_s": 12},
    {"name": "down, perps late", "every": 0.8, "seen": {"perps": {"WETH": 1.0}}, "t_liq_s": 12},
)
HALTED = tuple(
    {**one, "name": f"{one['name']}, halted", "closed": list(HALTS["sequencer"])} for one in PRICES
)
DOWN = np.linspace(2400, 1600, 25)[1:]
TRUE = [*np.linspace(2000, 2400, 13), 2400.0, 2400.0, *DOWN]
LATE = [*np.full(15, 2000.0), *DOWN]


def test_the_figures_of_the_guide() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    book = load_book(HEDGED)
    before: dict[str, CrossAccount] = {}
    for name, scenarios in (
        ("price moves", PRICES),
        ("and feeds apart", PRICES + FEEDS),
        ("and a halt", PRICES + FEEDS + HALTED),
    ):
        one = account(own(*scenarios, book=book))
        assert one.capital is not None
        before[name] = one
        c = one.capital
        cells = [f"{x:,.0f}" for x in (one.isolated, c.gross, c.required, c.netted)]
        row = f"| {name} | {' | '.join(cells)} | {c.offset:.0%} |"
        assert row in guide, row
    binding = before["and feeds apart"].binding
    assert binding is not None
    assert binding[0][0] == "aave -> perps (same-chain-atomic)"
    assert f"{binding[0][1].saved:,.0f} less" in guide

    _, course = straight(TRUE, LATE)
    _, prompt = straight(TRUE)
    feeds = before["and feeds apart"].capital
    assert feeds is not None
    alone = list(before["price moves"].alone)
    part = feeds.netted / feeds.gross
    for name, placed, kept, moves in (
        ("isolated", list(before["price moves"].isolated_at), 0.0, False),
        ("cross", alone, 0.0, False),
        ("cross-protocol, feeds apart", feeds.placed.tolist(), feeds.reserve, True),
        ("cross-protocol, price moves", [0.0, 0.0], 0.0, True),
        ("portfolio", [part * x for x in alone], 0.0, False),
    ):
        out = run(course, placed, kept, transfers=moves)
        spent = [sum(placed) + kept, out.liquidations[0, 0], out.penalties[0, 0], out.transfers[0, 0]]
        spent += [out.hedge[0, 0], out.loss[0, 0]]
        row = f"| {name} | {' | '.join(f'{x if abs(x) > 0.5 else 0.0:,.0f}' for x in spent)} |"
        assert row in guide, row
    for name, one_course in (("late", course), ("prompt", prompt)):
        found = path_requirement(one_course)
        row = f"| {name} | {found.clairvoyant:,.0f} | {found.causal:,.0f} | {found.gross:,.0f} |"
        assert row in guide, row


def test_the_guide_names_every_class_and_default() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    for kind, default in CLASSES.items():
        assert f"| `{kind}` | {default.recognition:.1%} | {default.latency_s:,.0f} |" in guide, kind
    for kind in Kind:
        assert f"`{kind}`" in guide, kind


@pytest.mark.parametrize("option", ["--paths", "--steps", "--step", "--seed"])
def test_options_of_random_paths_want_a_process(inside: Inside, option: str) -> None:
    done = inside("margin", "cross", str(HEDGED), option, "5")
    assert done.code == 2
    assert f"{option}: of random paths, and there are none; give --prices" in done.err
