"""``marginline simulate``: what is wrong with a scenario is said in one line, before anything runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from contracts_abi.errors import InputError
from keeper.commands.simulate import require_own
from simulation.contagion.prices import price_processes, read_spec
from simulation.contagion.scenario import build_scenario, load_scenario, read_table
from tests.command_line import Inside

BOOK = """
schema = "shared-book/1"
timestamp = 2026-04-01T00:00:00Z

[tokens.WETH]
price = 2000.0
decimals = 18

[tokens.USDC]
price = 1.0
decimals = 6
backing = { kind = "stable", token = "USD" }

[[lending]]
name = "core"
kind = "aave-v3.6"

[lending.reserves.WETH]
ltv_bps = 8000
liquidation_threshold_bps = 8300
liquidation_bonus_bps = 500
rate = { optimal = 0.9, base = 0.0, slope1 = 0.03, slope2 = 0.8 }

[lending.reserves.USDC]
ltv_bps = 0
liquidation_threshold_bps = 0
liquidation_bonus_bps = 0
idle_supply = 10000.0
rate = { optimal = 0.9, base = 0.0, slope1 = 0.05, slope2 = 0.6 }

[[account]]
wallet = "a"
venue = "core"
collateral = { WETH = 1.0 }
debt = { USDC = 1500.0 }
"""
SCENARIO = """
name = "small"
book = "book.toml"
paths = 2
steps = 3
step_s = 60

[prices]
process = "gbm"
volatility = 1.0

[[shocks]]
token = "WETH"
step = 2
move = -0.2

[channels.keepers]
keepers = [{ name = "one" }]
"""


NEEDED: dict[str, dict[str, Any]] = {
    "bridge": {"points": {"WETH": [[0, 2000.0], [60, 1900.0]]}},
    "garch-t": {"volatility": 0.9, "alpha": 0.1, "beta": 0.8, "degrees": 5.0},
    "gbm": {},
    "merton": {"volatility": 0.9, "jump_mean": -0.03, "jump_deviation": 0.03},
    "ou": {"half_life_days": 1.0},
    "t-copula": {"degrees": 4.0},
}
"""What each process with a volatility needs beside it."""


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    return Inside(monkeypatch, capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "book.toml").write_text(BOOK, encoding="utf-8")
    (tmp_path / "small.toml").write_text(SCENARIO, encoding="utf-8")
    return tmp_path


def refused(inside: Inside, folder: Path, *words: str, scenario: str = SCENARIO, book: str = BOOK) -> str:
    """Return the one line that a command ends with."""
    (folder / "book.toml").write_text(book, encoding="utf-8")
    (folder / "small.toml").write_text(scenario, encoding="utf-8")
    out = () if "--out" in words else ("--out", str(folder / "out"))
    one = () if {"--verify", "--fidelity"} & set(words) else ("--workers", "1")
    line = inside("simulate", str(folder / "small.toml"), *one, *out, *words).line()
    assert not (folder / "out").exists(), "nothing was begun"
    return line


def swapped(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


SCENARIOS: list[Any] = [
    pytest.param(
        [('[prices]\nprocess = "gbm"\nvolatility = 1.0\n', "")], "prices: is missing", id="no prices"
    ),
    pytest.param([('process = "gbm"', 'process = "gmb"')], "did you mean 'gbm'", id="process"),
    pytest.param([('process = "gbm"\n', "")], "process is missing", id="process missing"),
    pytest.param(
        [("volatility = 1.0", "volatility = { WBTC = 1.0 }")], "WBTC|WETH", id="process lacks token"
    ),
    pytest.param([("volatility = 1.0", "volatility = nan")], "volatility", id="nan volatility"),
    pytest.param(
        [("volatility = 1.0", "volatility = 90")],
        "volatility: 90 is beyond 20.*0.9 for 90 %",
        id="volatility in per cent",
    ),
    pytest.param([("move = -0.2", "move = -20")], "-20 is not above -1.*a part", id="fall in per cent"),
    pytest.param([("move = -0.2", "move = 20")], "20 is not above -1.*a part", id="rise in per cent"),
    pytest.param([("volatility = 1.0", "volatilty = 1.0")], "did you mean 'volatility'", id="key of process"),
    pytest.param([("steps = 3", "stepz = 3")], "did you mean 'steps'", id="key"),
    pytest.param([("steps = 3", "steps = 0")], "steps", id="no steps"),
    pytest.param([("paths = 2", "paths = 0")], "paths", id="no paths"),
    pytest.param([("step_s = 60", "step_s = nan")], "step_s", id="nan"),
    pytest.param([("step_s = 60", "step_s = inf")], "step_s", id="infinite"),
    pytest.param([("step = 2", "step = 4")], r"step 4.*\[1, 3\]", id="shock beyond the end"),
    pytest.param([("move = -0.2", "move = -1.0")], "move", id="shock to zero"),
    pytest.param([("move = -0.2", "move = nan")], "move", id="nan shock"),
    pytest.param([('token = "WETH"', 'token = "WETHH"')], "did you mean 'WETH'", id="token of a shock"),
    pytest.param([("[channels.keepers]", "[channels.keeper]")], "did you mean 'keepers'", id="channel"),
    pytest.param([("keepers = [", "keeprs = [")], "did you mean 'keepers'", id="key of a channel"),
    pytest.param([('name = "one"', 'nam = "one"')], "did you mean 'name'", id="key of a keeper"),
    pytest.param([('name = "one"', "bid = 1.5")], "bid", id="outside bounds"),
    pytest.param([('name = "one"', 'funding = "inventory"')], "capital", id="no funds"),
    pytest.param([('name = "one"', "min_profit_usd = nan")], "min_profit_usd", id="nan profit"),
    pytest.param([('book = "book.toml"', 'book = "bok.toml"')], "bok.toml", id="no book"),
    pytest.param([('book = "book.toml"', 'book = "."')], "book|directory", id="book is a folder"),
    pytest.param([('book = "book.toml"', "book = 3")], "book", id="book is a number"),
    pytest.param([('name = "small"', 'name = "small')], "not TOML", id="no TOML"),
]
ADDED: list[Any] = [
    ("[channels.impact.tokens.WETHH]\nmodel = 'linear'\nper_dollar = 1e-8", "did you mean 'WETH'"),
    ("[channels.impact.tokens.WETH]\nmodel = 'liner'\nper_dollar = 1e-8", "did you mean 'linear'"),
    ("[channels.impact.tokens.WETH]\nmodel = 'linear'", "per_dollar"),
    ("[channels.impact.tokens.WETH]\nmodel = 'linear'\nper_dollar = -1.0", "per_dollar"),
    ("[channels.impact.tokens.WETH]\nmodel = 'linear'\nper_dollar = 0.0", "WETH|per_dollar"),
    ("[channels.gas]\nnative = 'ETH'", "did you mean 'WETH'"),
    ("[channels.gas]\nbase_fee_gwei = 8e18", r"channels\.gas\.base_fee_gwei is 8e\+18; gwei"),
    ("[channels.gas]\ntip_gwei = 1e9", r"tip_gwei is 1e\+09; gwei"),
    ("[channels.oracle.default]\ndeviation_bps = 0.005", "deviation_bps is 0.005; basis points"),
    ("[channels.breaker]\nmove_bps = 1e6", r"move_bps is 1e\+06; basis points"),
    ("[[policies]]\nkind = 'bonus'\nbonus_bps = 0.05", r"policies\.0\.bonus_bps is 0.05; basis points"),
    ("[channels.losses]\nbackstop_usd = { core = 1e24 }", r"backstop_usd\.core is 1e\+24; US dollars"),
    (
        "[channels.impact.tokens.WETH]\nmodel='linear'\nper_dollar = 6.0",
        "per_dollar is 6; a part of the price",
    ),
    ("[channels.impact.tokens.WETH]\nmodel='depth'\ndepth_tokens = 1e21", "whole tokens, at most 1e17"),
    (
        "[channels.impact.tokens.WETH]\nmodel='square-root'\nvolatility = 4.0\nvolume_tokens = 1e6",
        "volatility is 4; a part of one a day",
    ),
    (
        "[channels.impact.tokens.WETH]\nmodel='cpmm'\ntokens = 100.0\ncash = 2e5\nfee = 0.3",
        "fee is 0.3; a part of what is traded, at most 0.1: 0.003 for 30 basis points",
    ),
    (
        "[channels.impact.tokens.WETH]\nmodel='cpmm'\ntokens = 100.0\ncash = 1.95e5",
        r"tokens\.WETH: the pool's price is 1950 US dollars a token, and the book's 2000; prices within 2% "
        r"of each other; cash = 200000 has the book's",
    ),
    (
        "[channels.impact.tokens.WETH]\nmodel='uniswap-v3'\nbounds = [30, 60]\nliquidity = [1e6]\nroot = 50",
        "the pool's price is 2500 US dollars a token, and the book's 2000; .* root = 44.7214 has the book's",
    ),
    ("[channels.oracle.feeds.WETHH]\nlatency_steps = 1", "did you mean 'WETH'"),
    ("[channels.oracle.feeds.WETH]\nsource = 'redemption'", "nothing backs WETH"),
    ("[channels.oracle.default]\ndeviation_bps = -1", "deviation_bps"),
    ("[[channels.oracle.faults]]\ntoken = 'WETH'\nop = 'halt'\nfrom_step = 1\nuntil_step = 2", "op"),
    (
        "[[channels.oracle.faults]]\ntoken = 'WETH'\nop = 'fix'\nfrom_step = 2\nuntil_step = 1",
        "after it begins",
    ),
    (
        "[[channels.oracle.faults]]\nvenue = 'cor'\ntoken = 'WETH'\nop = 'fix'\nfrom_step=1\nuntil_step=2",
        "did you mean 'core'",
    ),
    ("[channels.losses]\nbackstop_usd = { cor = 1.0 }", "did you mean 'core'"),
    ("[channels.breaker]\nvenues = ['cor']", "did you mean 'core'"),
    ("[channels.pegs.tokens.WETH]\ndiscount = 0.1", "nothing backs"),
    ("[channels.pegs.tokens.USDC]\ndiscount = 1.0", "discount"),
    ("[channels.perps]", "no venue of perpetual futures"),
    ("[channels.options]", "no options"),
    ("[channels.borrowers]\nwarning = 1.3\ntarget = 1.2", "target"),
    ("[channels.suppliers]\ncalm = -1.0", "calm"),
    ("[[policies]]\nkind = 'close-facto'\nclose_factor = 0.5", "did you mean 'close-factor'"),
    ("[[policies]]\nkind = 'close-factor'\nclose_factor = 1.5", "close_factor"),
    ("[[policies]]\nkind = 'close-factor'", "close_factor.* missing"),
    ("[[policies]]\nkind = 'close-factor'\nclose_factr = 0.5", "did you mean 'close_factor'"),
    ("[[policies]]\nkind = 'bonus'\nvenues = ['cor']\nbonus_bps = 400", "did you mean 'core'"),
    ("[[policies]]\nkind = 'threshold-shift'\nshift_bps = nan", "shift_bps"),
    ("[[policies]]\nkind = 'threshold-shift'\nshift_bps = 1\ntoken = 'WTH'", "did you mean 'WETH'"),
    ("[[policies]]\nkind = 'supply-cap'\ntoken = 'WTH'\ncap = 1", "did you mean 'WETH'"),
    ("[[policies]]\nclose_factor = 0.5", "kind"),
    ("[[policies]]\nkind = 'oracle-guards'\nvenues = ['core']", "venues"),
]
BOOKS: list[Any] = [
    pytest.param(
        [("debt = { USDC = 1500.0 }", "debt = { USDC = 1700.0 }")], "may borrow", id="borrows too much"
    ),
    pytest.param([("debt = { USDC = 1500.0 }", "debt = { USDC = nan }")], "USDC", id="nan debt"),
    pytest.param([("debt = { USDC = 1500.0 }", "debt = { DAI = 1500.0 }")], "DAI", id="unknown debt"),
    pytest.param([("liquidation_bonus_bps = 500", "liquidation_bonus_bps = 9000")], "bonus", id="bonus"),
    pytest.param([("price = 2000.0", "price = 0.0")], "price", id="price"),
    pytest.param(
        [("idle_supply = 10000.0", "idle_supply = 100.0")], "lent out|supplied", id="lent out too much"
    ),
]


@pytest.mark.parametrize(("pairs", "said"), SCENARIOS)
def test_a_bad_scenario_is_one_line(
    inside: Inside, folder: Path, pairs: list[tuple[str, str]], said: str
) -> None:
    assert_said(said, refused(inside, folder, scenario=swapped(SCENARIO, *pairs)))


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([('token = "WETH"', 'token = "ETH"')], "small.toml: shocks.0.token: unknown token 'ETH'"),
        (
            [("volatility = 1.0", "volatility = { WBTC = 1.0, WETH = 1.0 }")],
            "small.toml: prices.volatility.WBTC: unknown asset of volatility 'WBTC'",
        ),
        # In two places: which one is not known, and the wrong one would mislead.
        ([('token = "WETH"', 'token = "ETH"'), ('"small"', '"ETH"')], "small.toml: unknown token 'ETH'"),
        (
            [("[[shocks]]", "[shocks]")],
            "small.toml: shocks: one table where a list is meant; write [[shocks]]",
        ),
        ([("book.toml", "bok.toml")], "bok.toml: No such file"),
        ([('name = "small"', 'schema = "shared-book/1"')], "small.toml: is a book, and no scenario; name a"),
    ],
)
@pytest.mark.parametrize("command", ["simulate", "sweep"])
def test_what_is_wrong_is_said_with_its_file_and_place(
    inside: Inside, folder: Path, command: str, pairs: list[tuple[str, str]], said: str
) -> None:
    (folder / "small.toml").write_text(swapped(SCENARIO, *pairs), encoding="utf-8")
    line = inside(command, str(folder / "small.toml"), "--out", str(folder / "out")).line()
    assert said in line
    assert not (folder / "out").exists()


def test_a_policy_file_that_is_not_there_is_named_by_its_option(inside: Inside, folder: Path) -> None:
    line = refused(inside, folder, "--policy", "absent.toml")
    assert_said(r"--policy: absent\.toml: No such file", line)


@pytest.mark.parametrize(("added", "said"), ADDED)
def test_a_bad_channel_or_policy_is_one_line(inside: Inside, folder: Path, added: str, said: str) -> None:
    assert_said(said, refused(inside, folder, scenario=f"{SCENARIO}\n{added}\n"))


@pytest.mark.parametrize(
    "added",
    [
        "[channels.gas]\nbase_fee_gwei = 8_000\ntip_gwei = 0",
        "[channels.oracle.default]\ndeviation_bps = 0\n[channels.breaker]\nmove_bps = 5_000",
        "[channels.impact.tokens.WETH]\nmodel='cpmm'\ntokens = 100.0\ncash = 1.97e5",
        "[channels.impact.tokens.WETH]\nmodel='linear'\nper_dollar = 1e-4",
        "[channels.impact]\non = false\n[channels.impact.tokens.WETH]\nmodel='cpmm'\ntokens=1.0\ncash = 1.0",
    ],
)
def test_what_may_be_meant_is_not_refused(folder: Path, added: str) -> None:
    (folder / "small.toml").write_text(
        SCENARIO.replace("volatility = 1.0", "volatility = 12.0") + added, encoding="utf-8"
    )
    load_scenario(folder / "small.toml")


@pytest.mark.parametrize("process", sorted(price_processes))
def test_a_volatility_in_per_cent_is_refused_of_every_process(process: str) -> None:
    fields = price_processes.get(process).model_fields
    named = [name for name in fields if name in ("volatility", "start_volatility")]
    for name in named:
        with pytest.raises(InputError, match=f"{name}: 65 is beyond 20"):
            read_spec({**NEEDED[process], "process": process, name: 65.0})
    assert bool(named) == (process in NEEDED)


@pytest.mark.parametrize(("key", "value"), [("jump_mean", -10.0), ("jump_deviation", 3.0)])
def test_a_jump_in_per_cent_is_refused(key: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{key}: {value:g} is beyond .*the logarithm of a factor"):
        read_spec({**NEEDED["merton"], "process": "merton", key: value})


def test_a_pool_of_a_backed_token_has_the_price_that_its_backing_makes() -> None:
    examples = Path(__file__).resolve().parents[2] / "examples"
    table = read_table(examples / "market.toml")
    rate, ether = table["tokens"]["wstETH"]["backing"]["rate"], table["tokens"]["WETH"]["price"]
    pool = {"model": "cpmm", "tokens": 100.0, "cash": 100.0 * rate * ether}
    scenario = {
        "name": "x",
        "book": "market.toml",
        "prices": {"process": "gbm", "volatility": 1.0},
        "channels": {"impact": {"tokens": {"wstETH": pool}}},
    }
    build_scenario(scenario, examples)
    with pytest.raises(InputError, match=r"tokens\.wstETH: the pool's price"):
        build_scenario(scenario, examples, {"channels.impact.tokens.wstETH.cash": 95.0 * rate * ether})


@pytest.mark.parametrize(("pairs", "said"), BOOKS)
def test_a_bad_book_is_one_line(
    inside: Inside, folder: Path, pairs: list[tuple[str, str]], said: str
) -> None:
    assert_said(said, refused(inside, folder, book=swapped(BOOK, *pairs)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--off", "keeper"], "did you mean 'keepers'"),
        (["--matrix", "nonsense"], "threshold or oracle"),
        (["--matrix", "oracle", "--off", "oracle"], "oracle channel"),
        (["--matrix", "threshold", "--shock", "1.5"], "shock"),
        (["--matrix", "threshold", "--shock", "nan"], "shock"),
        (["--matrix", "threshold", "--shock", "5e-5"], "--shock 5e-05: less than a basis point"),
        (["--fidelity", "nonsense"], "model or revm"),
        (["--shock", "0.1"], "--shock 0.1 without --matrix: nothing is shocked; add --matrix threshold"),
        (
            ["--path", "0"],
            "--path 0: a run over many paths has no use for it; leave it out, or give --verify",
        ),
        (["--paths", "0"], "paths"),
        (["--seed", "-1"], "seed"),
        (["--verify", "--off", "keepers"], "nobody liquidates"),
    ],
)
def test_a_bad_option_is_one_line(inside: Inside, folder: Path, words: list[str], said: str) -> None:
    assert_said(said, refused(inside, folder, *words))


@pytest.mark.parametrize("one", [("--verify",), ("--fidelity", "revm")])
@pytest.mark.parametrize(
    "many",
    [
        ("--paths", "4"),
        ("--effects",),
        ("--matrix", "threshold"),
        ("--shock", "0.1"),
        ("--policy", "absent.toml"),
        ("--workers", "2"),
        ("--spread",),
        ("--wallets",),
    ],
)
def test_what_one_path_has_no_use_for_is_refused(
    inside: Inside, folder: Path, one: tuple[str, ...], many: tuple[str, ...]
) -> None:
    said = refused(inside, folder, *one, *many)
    assert_said(f"{many[0]} beside {' '.join(one)}: that runs one path", said)


def test_all_that_one_path_has_no_use_for_is_named_at_once(inside: Inside, folder: Path) -> None:
    said = refused(inside, folder, "--verify", "--wallets", "--paths", "2")
    assert_said("--paths, --wallets beside --verify", said)


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("[channels.suppliers]", "suppliers"),
        ("[channels.borrowers]", "borrowers"),
    ],
)
def test_what_bytecode_cannot_follow_is_refused(inside: Inside, folder: Path, added: str, said: str) -> None:
    assert_said(said, refused(inside, folder, "--verify", scenario=f"{SCENARIO}\n{added}\n"))


def test_venues_without_bytecode_are_refused(inside: Inside, folder: Path) -> None:
    other = swapped(BOOK, ('kind = "aave-v3.6"', 'kind = "aave-v2"'))
    assert_said(
        "core is aave-v2, whose bytecode is not built here", refused(inside, folder, "--verify", book=other)
    )


@pytest.mark.parametrize("words", [(), ("--verify",)])
def test_an_out_folder_that_is_none_is_refused(inside: Inside, folder: Path, words: tuple[str, ...]) -> None:
    file = folder / "taken"
    file.write_text("mine", encoding="utf-8")
    for out in (file, file / "below", Path("/proc/none")):
        line = refused(inside, folder, "--out", str(out), *words)
        assert_said("taken|/proc", line)
    assert file.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("words", [(), ("--verify",)])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", "mine"),
        ("record.json", '{"schema": "another/1"}'),
        ("record.json", "[]"),
        ("paths/a", ""),
    ],
)
def test_a_folder_with_files_of_somebody_else_is_refused(
    inside: Inside, folder: Path, words: tuple[str, ...], name: str, content: str
) -> None:
    theirs = folder / "theirs"
    (theirs / name).parent.mkdir(parents=True)
    (theirs / name).write_text(content, encoding="utf-8")
    said = refused(inside, folder, "--out", str(theirs), *words)
    first = name.partition("/")[0]
    assert said == (f"--out {theirs}: has {first}, and no simulation of ours; name a new or an empty folder")
    assert [file.name for file in theirs.rglob("*") if file.is_file()] == [Path(name).name]
    assert (theirs / name).read_text(encoding="utf-8") == content


def test_an_empty_folder_and_ones_of_ours_are_taken(tmp_path: Path) -> None:
    require_own(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    require_own(tmp_path / "empty")
    for name, content in (
        ("record.json", '{"schema": "marginline-simulation/1"}'),
        ("bytecode.json", '{"fidelity": "both"}'),
        ("paths/plan.json", "{}"),
        ("paths/lock", ""),
    ):
        own = tmp_path / name.replace("/", "-")
        (own / name).parent.mkdir(parents=True)
        (own / name).write_text(content, encoding="utf-8")
        require_own(own)


def test_the_folder_of_another_run_is_refused_and_kept(inside: Inside, folder: Path) -> None:
    words = ("simulate", str(folder / "small.toml"), "--workers", "1", "--out", str(folder / "out"), "--json")
    first = inside(*words)
    assert first.code == 0, first.err
    kept = (folder / "out" / "record.json").read_bytes()
    assert_said("other|another|differ", inside(*words, "--seed", "9").line())
    (folder / "small.toml").write_text(SCENARIO.replace("-0.2", "-0.3"), encoding="utf-8")
    assert_said("other|another|differ", inside(*words).line())
    (folder / "small.toml").write_text(SCENARIO, encoding="utf-8")
    (folder / "book.toml").write_text(BOOK.replace("1500.0", "1400.0"), encoding="utf-8")
    assert_said("other|another|differ", inside(*words).line())
    assert (folder / "out" / "record.json").read_bytes() == kept
    (folder / "book.toml").write_text(BOOK, encoding="utf-8")
    again = inside(*words)
    assert again.code == 0
    assert again.json() == first.json()


def assert_said(said: str, line: str) -> None:
    assert re.search(said, line), line
    assert "Traceback" not in line
    assert len(line) < 600, line


@pytest.mark.parametrize("key", ["paths", "seed"])
def test_a_sweep_over_what_it_does_not_take_from_the_scenario_is_refused(
    inside: Inside, folder: Path, key: str
) -> None:
    out = folder / "out"
    words = ("sweep", str(folder / "small.toml"), "--over", f"{key}=1,2", "--out", str(out))
    assert inside(*words).line() == (
        f"--over {key}: no point would differ, all points of a sweep have the same {key}; "
        f"leave it out, and give --{key} to the sweep"
    )
    assert not out.exists()
