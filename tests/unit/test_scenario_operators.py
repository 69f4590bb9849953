"""Fault operators inside a scenario: blocks, gas, pools; and what a scenario may not say or expect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import pytest

from contracts_abi.errors import InputError
from keeper.cli import main
from oracle.faults import faults
from oracle.guards import guards
from oracle.incidents import incident_path
from oracle.replay import play, replay
from oracle.scenario import Scenario, assets_touched, base_fee_at, base_fee_wei, parse_scenario
from oracle.types import GuardStatus, PriceObs
from simulation.replay.build import run_replay
from simulation.replay.market import Run, setting_of, steps_of

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "oracle.md"
GWEI = 10**9

BASE = """
schema = "oracle-scenario/1"
id = "base"
title = "A coin and a pool"

[chain]
id = 1
block_time_s = 12
block0 = 1000

[clock]
start = 2024-01-01T00:00:00Z
end = 2024-01-01T00:10:00Z
step_s = 60

[assets]
COIN = { decimals = 18, pair = "COIN/USD" }
USDC = { decimals = 6 }
ETH = { decimals = 18, pair = "ETH/USD" }

[truth."COIN/USD"]
constant = "1"

[truth."ETH/USD"]
constant = "2000"

[feeds."COIN/USD"]
kind = "univ3_twap"
window_s = 120
base_decimals = 18
quote_decimals = 18

[feeds.spot]
kind = "univ2_spot"
pair = "COIN/USD"
role = "reference"
base_reserve = "1000"
quote_reserve = "1000"

[feeds.leg]
kind = "constant"
role = "part"
pair = "LEG/USD"
value = "1"

[protocol]
model = "ltv"

[protocol.markets.COIN]
max_ltv_bps = 7000
liquidation_threshold_bps = 8000
liquidation_bonus_bps = 500

[protocol.markets.USDC]
liquidity = "1000"

[[positions]]
id = "somebody"
collateral = { COIN = "10" }
debt = { USDC = "5" }
"""

GAS = """[gas]
points = [
  { t = 2024-01-01T00:00:00Z, base_fee_gwei = "10", status = "stated", source = "a" },
  { t = 2024-01-01T00:10:00Z, base_fee_gwei = "10", status = "stated", source = "a" },
]
"""
KEEPERS = '[[actors]]\nid = "k"\nrole = "keeper"\ngas_cap_gwei = "200"\n\
[[actors]]\nid = "l"\nrole = "keeper"\ngas_cap_gwei = "150"\n'
BORROWER = '[[actors]]\nid = "b"\nrole = "borrower"\nsupplies = { COIN = "1" }\nasset = "USDC"\n'


def fault(op: str, feed: str = "COIN/USD", **keys: str) -> str:
    told = "\n".join(f"{key} = {value}" for key, value in keys.items())
    return f'[[faults]]\nop = "{op}"\nfeed = "{feed}"\n{told}\n'


def expect(what: str, **keys: str) -> str:
    told = "\n".join(f"{key} = {value}" for key, value in keys.items())
    return f'[[expect]]\nassert = "{what}"\n{told}\n'


def scenario(*more: str) -> Scenario:
    return parse_scenario("\n".join((BASE, *more)).encode(), "f.toml")


def refused(*more: str) -> str:
    with pytest.raises(InputError) as caught:
        scenario(*more)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("f.toml: ")
    assert len(line) < 300
    return line


# ------------------------------------------------------------------------------------------------- blocks


def test_a_fault_at_a_block_acts_from_its_time_on() -> None:
    by_block = scenario(fault("manip_twap", at_block="1010", price='"3"'))
    by_time = scenario(fault("manip_twap", at="2024-01-01T00:02:00Z", price='"3"'))
    assert by_block.faults == by_time.faults
    assert play(by_block) == play(by_time)


def test_a_block_is_counted_from_the_first() -> None:
    assert "fault 0: at_block 999 is before the clock's start, block 1000" in refused(
        fault("freeze", at_block="999")
    )
    assert "faults.0 lies outside the clock" in refused(fault("freeze", at_block="1051"))
    assert scenario(fault("freeze", at_block="1050")).faults[0].at == scenario().clock.end
    both = fault("freeze", at="2024-01-01T00:00:00Z", at_block="1000")
    assert "needs exactly one of at and at_block" in refused(both)
    assert "needs exactly one of at and at_block" in refused(fault("freeze"))
    early = fault("freeze", at_block="1010", until="2024-01-01T00:02:00Z")
    assert "fault 0: until must be after at_block 1010" in refused(early)


# -------------------------------------------------------------------------------------------------- pools


def test_two_blocks_between_two_steps_weigh_what_they_last() -> None:
    held = scenario(fault("manip_twap", at_block="1001", tick="6000", blocks="2"))
    readings = play(held)["COIN/USD"].readings
    said = [r.mantissa for r in readings if isinstance(r, PriceObs)]
    # 24 of 120 seconds at 6000: a mean tick of 1200, for as long as they lie in the window.
    assert said[1] == said[2] == pytest.approx(10**8 * 1.0001**1200, rel=1e-6)
    assert said[3:] == said[:1] * (len(said) - 3)


def test_what_a_pool_cannot_show_is_refused() -> None:
    tick = fault("manip_twap", feed="spot", at_block="1000", tick="5")
    assert "faults.0: a feed of kind univ2_spot has no ticks" in refused(tick)
    short = fault("manip_twap", feed="spot", at_block="1001", price='"2"', blocks="2")
    assert "faults.0 acts between two steps of the clock only" in refused(short)
    leg = fault("set_liquidity", feed="leg", at_block="1001", times='"2"')
    assert "a feed of kind constant knows no set_liquidity" in refused(leg)
    scale = BASE.replace("quote_decimals = 18", "quote_decimals = 36")
    with pytest.raises(InputError, match="a price of 8 decimals is that of 1e-10 raw base tokens"):
        parse_scenario(scale.encode())


def test_a_trade_meets_the_liquidity_that_stands_before_it_in_the_file() -> None:
    def price(*several: str) -> int:
        reading = play(scenario(*several))["spot"].readings[-1]
        assert isinstance(reading, PriceObs)
        return reading.mantissa

    thin = fault("set_liquidity", feed="spot", at_block="1000", times='"0.1"')
    buy = fault("swap", feed="spot", at_block="1000", quote_in='"100"')
    assert price(thin) == price()
    assert price(thin, buy) > 3 * price(buy)
    assert price(buy, thin) == pytest.approx(price(buy), abs=1)


# ---------------------------------------------------------------------------------------------------- gas


def test_a_base_fee_that_is_raised_prices_keepers_out_and_the_guard_knows() -> None:
    raised = fault("gas", at_block="1010", until="2024-01-01T00:04:00Z", gwei='"201"')
    given = scenario(GAS, KEEPERS, raised)
    start = given.clock.start
    assert [base_fee_at(given, start + 60 * i) for i in range(6)] == [
        fee * GWEI for fee in (10, 10, 201, 201, 10, 10)
    ]
    moments = replay(given).moments
    fired = [
        f.status is GuardStatus.VIOLATED
        for m in moments
        for f in m.feeds["COIN/USD"].guarded.findings
        if f.guard == "G24"
    ]
    assert fired == [False, False, True, True] + [False] * 7
    assert moments[2].feeds["spot"].context.liveness is None, "the fault stands on the other feed"
    setting = setting_of(given)
    assert setting is not None
    steps = steps_of(replay(given), setting, Run.UNGUARDED)
    working = [[keeper.works(step) for keeper in setting.keepers] for step in steps]
    assert working == [[True] * 2] * 2 + [[False] * 2] * 2 + [[True] * 2] * 7
    assert steps[2].gas_price_usd == Fraction(201 * GWEI * 2_000, 10**18)
    assert assets_touched(given, given.faults[0]) == (), "no price is bent"


def test_base_fees_follow_each_other_whichever_feed_they_stand_on() -> None:
    several = (fault("gas", at_block="1000", times='"3"'), fault("gas", "spot", at_block="1000", times='"2"'))
    assert base_fee_wei(scenario(GAS, *several), scenario().clock.start) == 60 * GWEI
    assert "faults.0: times needs [gas]" in refused(several[0])
    alone = scenario(fault("gas", at_block="1010", gwei='"50"'))
    assert base_fee_at(alone, alone.clock.start) is None
    assert base_fee_wei(alone, alone.clock.end) == 50 * GWEI
    with pytest.raises(InputError, match="has no gas series"):
        base_fee_wei(alone, alone.clock.start)


# ------------------------------------------------------------------------------------------- expectations

IMPOSSIBLE: Mapping[str, tuple[tuple[str, ...], str]] = {
    "a feed that is not there": (
        (expect("guard", id='"G07"', feed='"COIN/USDT"'),),
        "unknown feed in expect.0: 'COIN/USDT'",
    ),
    "a feed that no guard judges": (
        (expect("guard", id='"G07"', feed='"leg"'),),
        "leg is a part whose own price is not known, and no guard judges it",
    ),
    "a figure of a feed without a truth": (
        (expect("reported", feed='"leg"', at="2024-01-01T00:01:00Z", op='"=="', value='"1"'),),
        "leg is a part",
    ),
    "a guard without an id": ((expect("guard", feed='"COIN/USD"'),), "a guard is expected without its id"),
    "a guard that the policy leaves out": (
        ('[policy]\nguards = [{ kind = "jump" }]\n', expect("guard", id='"G03"')),
        "G03 is not among the guards of the policy",
    ),
    "a guard of a policy without any": (
        ("[policy]\nguards = []\n", expect("guard", id='"G07"')),
        "G07 is not among the guards of the policy",
    ),
    "a guard at a time": (
        (expect("guard", id='"G07"', at="2024-01-01T00:01:00Z"),),
        "a guard is expected by a time; write by in place of at",
    ),
    "an action that the guard never asks for": (
        (expect("guard", id='"G14"', action='"CLAMP"'),),
        "G14 never asks to clamp, only to pause or reject",
    ),
    "a time before the clock": (
        (expect("guard", id='"G07"', by="2023-12-31T23:59:59Z"),),
        "expect.0: 2023-12-31T23:59:59Z lies outside the clock",
    ),
    "a time behind the clock": (
        (expect("reported", feed='"spot"', at="2024-01-01T00:10:01Z", op='"=="', value='"1"'),),
        "expect.0: 2024-01-01T00:10:01Z lies outside the clock",
    ),
    "a reading at no time": (
        (expect("reported", feed='"spot"', op='"=="', value='"1"'),),
        "reported needs the time that it is about",
    ),
    "nothing to compare with": ((expect("bad_debt_usd", op='"<="'),), "bad_debt_usd needs op and value"),
    "no number": ((expect("bad_debt_usd", op='"<="', value='"much"'),), "value 'much' is not a number"),
    "a debt below zero": (
        (expect("bad_debt_usd", op='"<"', value='"0"'),),
        "bad_debt_usd is never below zero, so < 0 cannot be",
    ),
    "a time below zero": (
        (expect("minutes_mispriced", op='"=="', value="-1"),),
        "minutes_mispriced is never below zero",
    ),
    "the profit of nobody": (
        (expect("attacker_profit_usd", op='">"', value='"1"'),),
        "attacker_profit_usd needs an actor who borrows",
    ),
    "the minutes of a reference": (
        (expect("minutes_mispriced", feed='"spot"', op='">"', value="1"),),
        "spot is no feed that the protocol reads",
    ),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_cannot_happen_may_not_be_expected(what: str) -> None:
    more, message = IMPOSSIBLE[what]
    assert message in refused(*more)


def test_a_loss_needs_a_protocol_a_market_and_accounts() -> None:
    expected = expect("bad_debt_usd", op='"<="', value='"0"')
    head, _, rest = BASE.partition("[protocol]")
    _, _, accounts = rest.partition("[[positions]]")
    markets = rest.partition("[[positions]]")[0].partition("[protocol.markets.COIN]")[1:]
    without = {
        "protocol": head,
        "markets": f'{head}[protocol]\nmodel = "ltv"\n[[positions]]{accounts}',
        "accounts": f'{head}[protocol]\nmodel = "ltv"\n{"".join(markets)}'.partition("[[positions]]")[0],
    }
    for text in without.values():
        with pytest.raises(InputError, match="bad_debt_usd needs a protocol with markets, and accounts"):
            parse_scenario(f"{text}\n{expected}".encode())


def test_a_figure_without_a_feed_needs_exactly_one_that_the_protocol_reads() -> None:
    second = '[feeds.other]\nkind = "constant"\npair = "ETH/USD"\nvalue = "2000"\n'
    figure = expect("deviation_bps", op='"<="', value="0")
    assert scenario(figure).expect
    assert "deviation_bps names no feed, and the protocol reads 2" in refused(second, figure)


def test_what_can_happen_may_be_expected() -> None:
    can = scenario(
        BORROWER,
        expect("guard", id='"G14"', feed='"COIN/USD"', by="2024-01-01T00:10:00Z", action='"pause"'),
        expect("guard", id='"G24"'),
        expect("bad_debt_usd", op='"=="', value="0"),
        expect("attacker_profit_usd", op='"<"', value="0"),
        expect("deviation_bps", feed='"COIN/USD"', op='"<"', value="0"),
        expect("reported", feed='"spot"', at="2024-01-01T00:10:00Z", op='"=="', value='"1"'),
    )
    assert len(run_replay(can, tool_version="test", matrix=False).checks) == 6


@pytest.mark.parametrize("command", ["replay", "play"])
def test_the_commands_refuse_it_with_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = incident_path("rari-vesper-vusd-2021-11-02").read_text(encoding="utf-8")
    file = tmp_path / "impossible.toml"
    file.write_text(text + expect("guard", id='"G14"', by="2021-11-02T22:00:01Z"), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.argv", ["marginline", "oracle", command, str(file)])
        with pytest.raises(SystemExit) as caught:
            main()
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert "2021-11-02T22:00:01Z lies outside the clock" in captured.err


# -------------------------------------------------------------------------------------------------- guide


def test_the_guide_has_every_operator_with_its_keys() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    table = text.partition("### What can go wrong in a scenario")[2].partition("\n### ")[0]
    rows = {row.split("|")[1].strip(" `"): row for row in table.splitlines() if row.startswith("| `")}
    rows.pop("op")
    assert set(rows) == set(faults)
    shared = {"at", "at_block", "until", "feed", "ours", "note", "stage"}
    for op, row in rows.items():
        fields = faults.get(op).model_fields
        keys = {field.alias or name for name, field in fields.items()} - shared
        told = set(re.findall(r"`(\w+)`", row.split("|")[2])) - {"until"}
        assert told == keys, op
        assert faults.get(op).stage == row.split("|")[3].split(",")[0].strip(), op


def test_every_guard_has_an_id_that_can_be_expected() -> None:
    for kind in guards:
        scenario(expect("guard", id=f'"{guards.get(kind).id}"'))


def test_a_clock_of_too_many_steps_is_refused() -> None:
    text = incident_path("venus-luna-2022-05-12").read_text()
    text = text.replace("start = 2022-05-12T07:00:00Z", "start = 2012-05-12T07:00:00Z")
    with pytest.raises(InputError, match=r"clock: 5259300 steps are more than 200000: set step_s higher"):
        parse_scenario(text.encode())


def test_an_expectation_of_a_gigabyte_is_refused() -> None:
    text = incident_path("venus-luna-2022-05-12").read_text()
    with pytest.raises(InputError, match="places before or after the point"):
        parse_scenario(text.replace('value = "8000000"', 'value = "1e999999999"', 1).encode())
