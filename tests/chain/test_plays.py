"""Scripts made by hand: a rig answers what its mechanism computes, the pool what the exact model computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts_abi.errors import InputError
from oracle.faults import faults
from oracle.interfaces import FeedContext
from oracle.mechanisms import FeedModel, Played, World
from oracle.mechanisms.capo import CapoFeed, CapoStableFeed
from oracle.mechanisms.comet import MultiplicativeFeed, ScalingFeed
from oracle.mechanisms.composite import CompositeFeed
from oracle.mechanisms.morpho_chainlink import MorphoChainlinkFeed
from oracle.mechanisms.pools import ConcentratedAverage, ConstantProductAverage, ConstantProductSpot
from oracle.types import FeedKind, NoData, PriceObs, Reading
from simulation.chain import revm
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.evm import Evm
from simulation.chain.plays.play import LEAD_S, ChainPlay, Script, play_script
from simulation.replay.economics import Borrower, Deed, Keeper, Step
from simulation.replay.lending import Account, Market, Quotes

pytestmark = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)

START = 1_773_140_400  # on the hour
STEP_S = 600


class Push(FeedModel):
    """A push feed that posts at each step."""

    kind: ClassVar[Literal["chainlink"]] = "chainlink"

    heartbeat_s: int = 1
    deviation_bps: int = 1
    min_answer: int | None = None
    max_answer: int | None = None
    on_bound: str = "freeze"
    description: str = ""

    def play(self, name: str, world: World) -> Played:
        """Return the price at each step; out of bounds the last that was in them."""
        (pair,) = self.pairs(name)
        base, quote = pair.split("/")
        readings: list[Reading] = []
        last: int | None = None
        for t, block, price in zip(world.steps, world.blocks, world.seen[pair], strict=True):
            answer = round(price * 10**self.decimals)
            low, high = self.min_answer, self.max_answer
            if (low is None or answer >= low) and (high is None or answer <= high):
                last = answer
            readings.append(
                NoData(base, quote, name, t, "no round", block)
                if last is None
                else PriceObs(
                    *(base, quote, last, self.decimals, FeedKind.PUSH, name),
                    published_at=t,
                    observed_at=t,
                    block=block,
                )
            )
        return Played(name, tuple(readings), tuple(FeedContext(now=t) for t in world.steps))


def script(
    models: Mapping[str, FeedModel],
    truth: Mapping[str, list[str]],
    reads: Mapping[str, tuple[str, str | None]],
    markets: list[Market],
    acts: Mapping[str, tuple[Any, ...]] | None = None,
    **who: Any,
) -> Script:
    """Return a script whose feeds see the truth; `reads` maps an asset to its pair and feed."""
    exact = {pair: tuple(map(Fraction, prices)) for pair, prices in truth.items()}
    count = len(next(iter(exact.values())))
    times = tuple(START + i * STEP_S for i in range(count))
    played: dict[str, Played] = {}
    worlds: dict[str, World] = {}
    for name, model in models.items():
        worlds[name] = World(times, times, exact, exact, dict(played), (acts or {}).get(name, ()))
        played[name] = model.play(name, worlds[name])

    def said(symbol: str, i: int) -> Fraction | None:
        pair, feed = reads[symbol]
        if feed is None:
            return exact[pair][i]
        reading = played[feed].readings[i]
        return Fraction(reading.mantissa, 10**reading.decimals) if isinstance(reading, PriceObs) else None

    steps = []
    for i, t in enumerate(times):
        quotes = Quotes.same({symbol: said(symbol, i) for symbol in reads})
        steps.append(Step(t, t, {s: exact[pair][i] for s, (pair, _) in reads.items()}, quotes, quotes))
    return Script(
        id="by hand",
        models=models,
        worlds=worlds,
        played=played,
        reads={symbol: feed for symbol, (_, feed) in reads.items() if feed is not None},
        steps=steps,
        markets={market.symbol: market for market in markets},
        **who,
    )


def played(given: Script, evm: Evm | None = None) -> ChainPlay:
    play = play_script(given, evm or revm.RevmEvm(timestamp=START - LEAD_S))
    assert play.parted == ()
    assert len(play.said) == len(given.steps)
    return play


USDC = Market("USDC", 6, liquidity_raw=10_000_000 * 10**6)


def at_its_bound() -> Script:
    return script(
        {"LUNA/USD": Push(min_answer=10_700_000)},
        {"LUNA/USD": ["0.2", "0.107", "0.0758", "0.01"], "USDC/USD": ["1"] * 4},
        {"LUNA": ("LUNA/USD", "LUNA/USD"), "USDC": ("USDC/USD", None)},
        [Market("LUNA", 18, 5_500, 5_500, 1_000, 500), USDC],
        borrowers=(Borrower("attacker", {"LUNA": 10**8 * 10**18}, "USDC"),),
    )


def test_a_feed_that_stands_at_its_bound_lends_on_it() -> None:
    play = played(at_its_bound())
    assert [said.prices["LUNA"] for said in play.said] == [20_000_000, 10_700_000, 10_700_000, 10_700_000]
    assert play.economics.bad_debt > 4_000_000
    assert any(event.deed is Deed.BORROW for event in play.economics.events)


def test_both_backends_play_alike() -> None:
    given = at_its_bound()
    with Anvil.start(AnvilOptions(timestamp=START - LEAD_S)) as node:
        there = played(given, node.evm())
    here = played(given)
    assert there.backend == "anvil"
    assert replace(there, backend="revm", economics=here.economics) == here
    assert replace(there.economics, model=here.economics.model) == here.economics


def test_what_the_computation_gets_wrong_is_told() -> None:
    given = at_its_bound()
    (reading, *others) = given.played["LUNA/USD"].readings
    assert isinstance(reading, PriceObs)
    wrong = replace(given.played["LUNA/USD"], readings=(replace(reading, mantissa=1), *others))
    quotes = Quotes.same({"LUNA": Fraction("0.3"), "USDC": Fraction(1)})
    steps = (*given.steps[:2], replace(given.steps[2], borrowing=quotes, liquidating=quotes), given.steps[3])
    play = play_script(
        replace(given, played={"LUNA/USD": wrong}, steps=steps), revm.RevmEvm(timestamp=START - LEAD_S)
    )
    assert {(parted.t, parted.what) for parted in play.parted} >= {
        (START, "feed LUNA/USD"),
        (START + 2 * STEP_S, "price of LUNA"),
    }
    assert play.parted[0].chain == "20000000"


class Swap:
    """Two feeds that were exchanged when they were configured."""

    kind = "swap_feeds"

    def __init__(self, feed: str, other: str, at: int = START) -> None:
        self.feed, self.with_, self.at = feed, other, at

    def active(self, t: int) -> bool:
        """Return whether they are exchanged at `t`."""
        return t >= self.at


def test_exchanged_feeds_price_each_other() -> None:
    eth, btc = ["3400", "3410", "3405"], ["64000", "64100", "64050"]
    given = script(
        {"ETH/USD": Push(), "BTC/USD": Push()},
        {"ETH/USD": eth, "BTC/USD": btc, "USDC/USD": ["1"] * 3},
        {"WETH": ("ETH/USD", "ETH/USD"), "WBTC": ("BTC/USD", "BTC/USD"), "USDC": ("USDC/USD", None)},
        [Market("WETH", 18, 8_000, 8_250, 500), Market("WBTC", 8, 7_000, 7_500, 500), USDC],
        borrowers=(Borrower("bot", {"WETH": 100 * 10**18}, "USDC"),),
        positions=(Account("saver", {"WBTC": 10**8}, {"USDC": 30_000 * 10**6}),),
    )
    at = START + STEP_S
    swaps: Any = (Swap("ETH/USD", "BTC/USD", at), Swap("BTC/USD", "ETH/USD", at))
    readings = {name: given.played[name].readings for name in given.models}
    crossed = {
        name: replace(given.played[name], readings=(readings[name][0], *readings[swap.with_][1:]))
        for name, swap in zip(("ETH/USD", "BTC/USD"), swaps, strict=True)
    }
    steps = [given.steps[0]]
    for i, step in enumerate(given.steps[1:], start=1):
        prices = {"WETH": Fraction(btc[i]), "WBTC": Fraction(eth[i]), "USDC": Fraction(1)}
        steps.append(replace(step, borrowing=Quotes.same(prices), liquidating=Quotes.same(prices)))
    play = played(replace(given, played=crossed, steps=steps, faults=swaps))
    assert play.said[1].prices["WETH"] == 6_410_000_000_000
    assert play.economics.wrongly_liquidated == ("saver",)
    assert play.economics.attacker_profit > 4_000_000


def test_a_typed_number_is_no_play_on_chain() -> None:
    spike: Any = Swap("LUNA/USD", "LUNA/USD")
    spike.kind = "spike"
    with pytest.raises(InputError, match="'spike' of LUNA/USD is a typed number, which no contract shows"):
        played(replace(at_its_bound(), faults=(spike,)))


class MissingLeg(Swap):
    """A leg that a new configuration forgot."""

    kind = "missing_leg"

    @property
    def leg(self) -> str:
        """The leg."""
        return self.with_


def test_a_product_without_a_leg_prices_a_token_at_a_dollar() -> None:
    at = START + STEP_S
    play = played(
        script(
            {
                "cbETH/ETH": Push(decimals=18),
                "ETH/USD": Push(),
                "cbETH/USD": CompositeFeed(legs=("cbETH/ETH", "ETH/USD")),
            },
            {
                "cbETH/ETH": ["1.12", "1.121", "1.1205"],
                "ETH/USD": ["1960", "1962", "1961.5"],
                "cbETH/USD": ["2195.2", "2199.4", "2197.86"],
                "USDC/USD": ["1"] * 3,
            },
            {"cbETH": ("cbETH/USD", "cbETH/USD"), "USDC": ("USDC/USD", None)},
            [Market("cbETH", 18, 7_800, 8_100, 700), USDC],
            acts={"cbETH/USD": (MissingLeg("cbETH/USD", "ETH/USD", at),)},
            positions=(Account("saver", {"cbETH": 10 * 10**18}, {"USDC": 15_000 * 10**6}),),
        )
    )
    assert [said.prices["cbETH"] for said in play.said] == [219_520_000_000, 112_100_000, 112_050_000]
    assert play.economics.wrongly_liquidated == ("saver",)
    assert play.economics.bad_debt > 14_900


class Written(FeedModel):
    """A price that somebody wrote down."""

    kind: ClassVar[Literal["constant"]] = "constant"

    value: str

    def play(self, name: str, world: World) -> Played:
        """Return the number at each step."""
        mantissa = int(Fraction(self.value) * 10**self.decimals)
        readings = tuple(
            PriceObs(*("A", "B", mantissa, self.decimals), FeedKind.CONSTANT, name, None, t)
            for t in world.steps
        )
        return Played(name, readings, tuple(FeedContext(now=t) for t in world.steps))


def test_a_dollar_that_is_written_down_is_lent_on_while_it_falls() -> None:
    play = played(
        script(
            {"fUSD/USD": Written(value="1")},
            {"fUSD/USD": ["1", "0.9", "0.69"], "USDC/USD": ["1"] * 3},
            {"fUSD": ("fUSD/USD", "fUSD/USD"), "USDC": ("USDC/USD", None)},
            [Market("fUSD", 18, 7_500, 8_000, 500), USDC],
            borrowers=(Borrower("attacker", {"fUSD": 10**24}, "USDC"),),
            positions=(Account("saver", {"fUSD": 10**22}, {"USDC": 7_000 * 10**6}),),
        )
    )
    assert {said.prices["fUSD"] for said in play.said} == {10**8}
    assert play.economics.liquidated == 0
    assert play.economics.bad_debt == 60_100, "750,000 on 690,000, and 7,000 on 6,900"


class Delayed(FeedModel):
    """Maker's delay in front of a feed."""

    kind: ClassVar[Literal["osm"]] = "osm"

    source: str
    hop_s: int = 3_600

    def feeds(self) -> tuple[str, ...]:
        """Return the source."""
        return (self.source,)

    def play(self, name: str, world: World) -> Played:
        """Return the price that is in effect at each step, poked as soon as a turn has passed."""
        source = [obs.mantissa for obs in world.played[self.source].readings if isinstance(obs, PriceObs)]
        current = following = source[0]
        turn = world.steps[0] // self.hop_s * self.hop_s
        readings = []
        for t, price in zip(world.steps, source, strict=True):
            if t >= turn + self.hop_s:
                current, following, turn = following, price, t // self.hop_s * self.hop_s
            readings.append(PriceObs(*("A", "B", current, 18), FeedKind.PUSH, name, None, t))
        return Played(name, tuple(readings), tuple(FeedContext(now=t) for t in world.steps))


def test_a_delayed_price_is_lent_on_for_two_hours() -> None:
    hourly = ["194.96", "190.28", "169.54", "132.91", "133.5", "125", "126"]
    prices = [price for price in hourly for _ in range(3_600 // STEP_S)]
    play = played(
        script(
            {
                "ETH/USD median": Push(pair="ETH/USD", decimals=18),
                "ETH/USD": Delayed(source="ETH/USD median"),
            },
            {"ETH/USD": prices, "USDC/USD": ["1"] * len(prices)},
            {"WETH": ("ETH/USD", "ETH/USD"), "USDC": ("USDC/USD", None)},
            [Market("WETH", 18, 6_600, 6_700, 1_300, 100), USDC],
            borrowers=(Borrower("late", {"WETH": 1_000 * 10**18}, "USDC", at=START + 3 * 3_600),),
            positions=(Account("saver", {"WETH": 100 * 10**18}, {"USDC": 10_000 * 10**6}),),
        )
    )
    in_effect = [said.prices["WETH"] for said in play.said]
    assert in_effect[0] == 19_496_000_000
    third_hour = 3 * 3_600 // STEP_S
    assert in_effect[third_hour] == 16_954_000_000, "taken an hour ago, while the market is at 132.91"
    assert in_effect[third_hour + 5] == 16_954_000_000
    assert in_effect[third_hour + 6] == 13_291_000_000
    assert play.economics.attacker_profit < 0, "66 % of 169.54 is less than 132.91"
    assert play.economics.liquidated > 0


class CapParams:
    """The act of an updater that writes a snapshot."""

    kind = "cap_params"

    def __init__(self, at: int, ratio: str, snapshot_at: int) -> None:
        self.at, self.snapshot_ratio, self.snapshot_at = at, Fraction(ratio), snapshot_at
        self.growth_bps_year = None

    def active(self, t: int) -> bool:
        """Return whether it was written by `t`."""
        return t >= self.at


def test_a_snapshot_with_an_old_time_liquidates_the_healthy() -> None:
    week = 7 * 86_400
    play = played(
        script(
            {
                "ETH/USD": Push(),
                "wstETH/USD": CapoFeed.model_validate(
                    {
                        "base_feed": "ETH/USD",
                        "ratio_pair": "wstETH/ETH",
                        "snapshot_ratio": "1.1572",
                        "snapshot_at": datetime.fromtimestamp(START - 300 * 86_400, UTC),
                        "growth_bps_year": 870,
                    }
                ),
            },
            {
                "ETH/USD": ["2000", "2001.5", "1999", "2000"],
                "wstETH/ETH": ["1.2288", "1.2288", "1.2289", "1.2289"],
                "wstETH/USD": ["2457.6", "2459.4", "2456.6", "2457.8"],
            },
            {"wstETH": ("wstETH/USD", "wstETH/USD"), "WETH": ("ETH/USD", "ETH/USD")},
            [Market("wstETH", 18, 9_300, 9_500, 100), Market("WETH", 18, 9_300, 9_500, 100)],
            acts={"wstETH/USD": (CapParams(START + STEP_S, "1.1919", START + STEP_S - week),)},
            positions=(Account("looper", {"wstETH": 10**21}, {"WETH": 1_150 * 10**18}),),
        )
    )
    assert play.said[0].prices["wstETH"] == 245_760_000_000
    capped = Fraction(play.said[2].prices["wstETH"] or 0, play.said[2].prices["WETH"] or 1)
    assert round(capped, 4) == Fraction("1.1939"), "1.1919 grown for a week at 8.7 % a year"
    assert play.economics.wrongly_liquidated == ("looper",)


def test_a_scale_off_by_a_trillion_is_borrowed_on() -> None:
    play = played(
        script(
            {
                "PAXG/USD": Push(),
                "PAXG/USDC": MorphoChainlinkFeed(
                    base_feeds=("PAXG/USD",), base_decimals=18, quote_decimals=6, stated_quote_decimals=18
                ),
            },
            {"PAXG/USD": ["2650", "2651"], "PAXG/USDC": ["2650", "2651"], "USDC/USD": ["1", "1"]},
            {"PAXG": ("PAXG/USDC", "PAXG/USDC"), "USDC": ("USDC/USD", None)},
            [Market("PAXG", 18, 8_600, 9_150, 500), USDC],
            borrowers=(Borrower("attacker", {"PAXG": 132 * 10**15}, "USDC", 230_000 * 10**6),),
        )
    )
    assert play.said[0].prices["PAXG"] == 2650 * 10**12 * 10**8
    assert play.economics.bad_debt > 229_000


def pooled(**keys: Any) -> ConcentratedAverage:
    """Return an average over a pool of a token and a dollar whose only liquidity is near one."""
    band = {"lower": -276_360, "upper": -276_300, "base": "1000000", "quote": "1000000"}
    scales = {"base_decimals": 18, "quote_decimals": 6, "decimals": 8, "window_s": 1_800}
    return ConcentratedAverage.model_validate({**scales, "liquidity": (band,), **keys})


def pool_fault(op: str, at: int, until: int | None = None, **keys: Any) -> Any:
    times = {
        name: datetime.fromtimestamp(t, UTC) for name, t in (("at", at), ("until", until)) if t is not None
    }
    return faults.get(op).model_validate({"feed": "VUSD/USD", **times, **keys})


def over(model: ConcentratedAverage, acts: tuple[Any, ...], steps: int = 5, **who: Any) -> Script:
    return script(
        {"VUSD/USD": model},
        {"VUSD/USD": ["1"] * steps, "USDC/USD": ["1"] * steps},
        {"VUSD": ("VUSD/USD", "VUSD/USD"), "USDC": ("USDC/USD", None)},
        [Market("VUSD", 18, 7_500, 8_000, 500), USDC],
        acts={"VUSD/USD": acts},
        **who,
    )


def test_a_pool_that_is_moved_for_one_step_is_borrowed_on() -> None:
    moved = pool_fault("manip_twap", START + STEP_S, START + 2 * STEP_S, tick=-262_000)
    borrower = Borrower("attacker", {"VUSD": 10**24}, "USDC", cost=Fraction(2_816))
    play = played(over(pooled(), (moved,), borrowers=(borrower,)))
    prices = [said.prices["VUSD"] or 0 for said in play.said]
    assert prices[0] == prices[1] == pytest.approx(10**8, rel=1e-3)
    assert prices[2] == pytest.approx(10**8 * 1.0001 ** (14_325 / 3), rel=1e-3)
    assert play.costs[1].endswith("2012.72 USD"), "above its only band the price moves for nothing"
    assert play.costs[3].endswith(", 2815.76 USD")
    assert play.economics.bad_debt > 100_000


def test_a_move_of_two_blocks_between_two_steps_counts_to_the_second() -> None:
    moved = pool_fault("manip_twap", START + STEP_S + 7, tick=-262_000, blocks=2)
    play = played(over(pooled(), (moved.on_chain(START, 0, 12),)))
    prices = [said.prices["VUSD"] or 0 for said in play.said]
    assert prices[1] == prices[0]
    # 24 of 1,800 seconds stood 14,325 ticks higher.
    assert prices[2] == pytest.approx(prices[0] * 1.0001 ** (14_325 * 24 / 1_800), rel=1e-3)
    assert "held the price for 24 s" in play.costs[0]


def lost(*acts: Any, liquidity: int = 1_000_000) -> Fraction:
    band = {"lower": -280_020, "upper": -270_000, "base": str(liquidity), "quote": str(liquidity)}
    play = played(over(pooled(liquidity=(band,)), acts))
    return Fraction(play.costs[3].split()[-2])


def test_what_a_move_costs_is_in_proportion_to_the_liquidity_that_it_finds() -> None:
    move = pool_fault("manip_twap", START + STEP_S, START + 2 * STEP_S, price="1.2")
    tenth = pool_fault("set_liquidity", START + STEP_S, times="0.1")
    double = pool_fault("set_liquidity", START + STEP_S, START + 3 * STEP_S, times="2")
    whole = lost(move)
    assert lost(tenth, move) == pytest.approx(whole / 10, rel=1e-4)
    assert lost(double, move) == pytest.approx(whole * 2, rel=1e-4)
    assert lost(double, tenth, move) == pytest.approx(whole / 5, rel=1e-4)
    assert lost(move, liquidity=100_000) == pytest.approx(whole / 10, rel=1e-4)
    ended = pool_fault("set_liquidity", START, START + STEP_S, times="0.1")
    assert lost(ended, move) == pytest.approx(whole, rel=1e-4)
    assert lost(move, ended) == pytest.approx(whole / 10, rel=1e-4)
    # In the order of the file: the trade comes first, at the liquidity that was there.
    assert lost(move, tenth) == whole


def test_a_pool_is_moved_on_where_there_is_no_liquidity() -> None:
    first = pool_fault("manip_twap", START + STEP_S, tick=0)
    second = pool_fault("manip_twap", START + 2 * STEP_S, tick=1)
    play = played(over(pooled(), (first, second)))
    assert "swaps: 2" in play.costs[0]


@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_any_moves_of_a_pool_average_to_what_is_computed(data: st.DataObject) -> None:
    acts = []
    for _ in range(data.draw(st.integers(1, 3))):
        at = START + data.draw(st.integers(0, 5 * STEP_S))
        until = data.draw(st.none() | st.integers(at + 1, at + 3 * STEP_S))
        to = data.draw(
            st.one_of(
                st.fixed_dictionaries({"tick": st.integers(-887_272, 887_271)}),
                st.fixed_dictionaries({"price": st.sampled_from(["0.000000000001", "0.5", "1", "3", "1e9"])}),
                st.fixed_dictionaries({"times": st.sampled_from(["0.1", "0.5", "3"])}),
            )
        )
        acts.append(pool_fault("set_liquidity" if "times" in to else "manip_twap", at, until, **to))
    window_s = data.draw(st.integers(1, 86_000))
    decimals = data.draw(st.integers(0, 20))
    played(over(pooled(window_s=window_s, decimals=decimals), tuple(acts), steps=6))


@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_any_trades_in_a_pair_price_what_is_computed(data: st.DataObject) -> None:
    scales = st.sampled_from([6, 8, 18])
    base, quote = data.draw(scales), data.draw(scales)
    keys = {
        "base_reserve": data.draw(st.sampled_from(["1000", "250000.5", "31.4159"])),
        "quote_reserve": data.draw(st.sampled_from(["1000", "777777.25"])),
        "base_decimals": base,
        "quote_decimals": quote,
        "decimals": data.draw(st.integers(0, 18)),
    }
    on_average = data.draw(st.booleans())
    model: FeedModel = (
        ConstantProductAverage.model_validate({**keys, "period_s": data.draw(st.integers(1, 4_000))})
        if on_average
        else ConstantProductSpot.model_validate(keys)
    )
    acts = []
    for _ in range(data.draw(st.integers(0, 3))):
        at = START + data.draw(st.integers(0, 4)) * STEP_S
        until = data.draw(st.none() | st.integers(at + 1, at + 3 * STEP_S))
        key = data.draw(st.sampled_from(["times", "quote_in", "base_in"] + ["base_out"] * (not on_average)))
        op = "set_liquidity" if key == "times" else "swap"
        value = data.draw(st.sampled_from(["0.3", "2"] if key == "times" else ["1", "12.345"]))
        acts.append(pool_fault(op, at, until, **{key: value}))
    prices = data.draw(st.lists(st.sampled_from(["1", "1.07", "0.4"]), min_size=5, max_size=5))
    given_ = script(
        {"VUSD/USD": model},
        {"VUSD/USD": prices, "USDC/USD": ["1"] * 5},
        {"VUSD": ("VUSD/USD", "VUSD/USD"), "USDC": ("USDC/USD", None)},
        [Market("VUSD", base, 7_500, 8_000, 500), USDC],
        acts={"VUSD/USD": tuple(acts)},
    )
    at_once = [[act for act in acts if act.active(START + i * STEP_S)] for i in range(5)]
    if any(getattr(act, "base_out", None) is not None for several in at_once for act in several[:-1]):
        with pytest.raises(InputError, match="in the middle of a flash swap"):
            played(given_)
    else:
        played(given_)


def test_what_a_pair_cannot_show_is_refused() -> None:
    keys = {"base_reserve": "10", "quote_reserve": "10"}
    average = ConstantProductAverage.model_validate({**keys, "period_s": 60})
    old = ConstantProductAverage.model_validate({**keys, "period_s": LEAD_S + 1})
    held = pool_fault("manip_twap", START, price="2")
    out = pool_fault("swap", START, base_out="1")
    for model, acts, message in (
        (ConstantProductSpot.model_validate(keys), (held,), "names no trade"),
        (average, (out,), "is in no sum of a pair"),
        (old, (), "s old at the first step"),
    ):
        given_ = script(
            {"VUSD/USD": model},
            {"VUSD/USD": ["1"], "USDC/USD": ["1"]},
            {"VUSD": ("VUSD/USD", "VUSD/USD"), "USDC": ("USDC/USD", None)},
            [Market("VUSD", 18, 7_500, 8_000, 500), USDC],
            acts={"VUSD/USD": acts},
        )
        with pytest.raises(InputError, match=message):
            played(given_)


def test_a_pool_that_cannot_be_built_is_refused() -> None:
    for model, message in (
        (pooled(liquidity=()), "says of no liquidity"),
        (pooled(window_s=LEAD_S + 1), "s old at the first step"),
        (pooled(liquidity=({"lower": -7, "upper": 60, "base": "1", "quote": "1"},)), "spacing 60"),
    ):
        with pytest.raises(InputError, match=message):
            played(over(model, ()))
    everywhere = pooled(liquidity=({"lower": -887_220, "upper": 887_220, "base": "1e6", "quote": "1e6"},))
    to_the_end = pool_fault("manip_twap", START + STEP_S, tick=887_271)
    with pytest.raises(InputError, match="cannot be moved to tick 887271"):
        played(over(everywhere, (to_the_end,)))


def test_compounds_feeds_and_a_capped_dollar_answer_as_computed() -> None:
    play = played(
        script(
            {
                "ETH/USD": Push(decimals=8),
                "rETH/ETH": Push(decimals=18),
                "rETH/USD": MultiplicativeFeed(feed_a="rETH/ETH", feed_b="ETH/USD"),
                "DAI/USD raw": Push(pair="DAI/USD", decimals=8),
                "DAI/USD": CapoStableFeed.model_validate({"base_feed": "DAI/USD raw", "cap": "1.04"}),
                "WETH/USD": ScalingFeed(base_feed="ETH/USD", decimals=18),
            },
            {
                "ETH/USD": ["2000", "2100", "1900"],
                "rETH/ETH": ["1.1", "1.1001", "1.1002"],
                "rETH/USD": ["2200", "2310.21", "2090.38"],
                "DAI/USD": ["1", "1.09", "1.02"],
                "WETH/USD": ["2000", "2100", "1900"],
            },
            {
                "rETH": ("rETH/USD", "rETH/USD"),
                "DAI": ("DAI/USD", "DAI/USD"),
                "WETH": ("WETH/USD", "WETH/USD"),
            },
            [
                Market("rETH", 18, 7_500, 7_900, 700),
                Market("DAI", 18, 7_500, 7_800, 500),
                Market("WETH", 18, 8_000, 8_250, 500),
            ],
            positions=(Account("saver", {"rETH": 10**19}, {"DAI": 16_900 * 10**18}),),
        )
    )
    assert [said.prices["DAI"] for said in play.said] == [10**8, 104_000_000, 102_000_000]
    assert play.economics.liquidated > 0


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_any_prices_and_accounts_give_the_same_on_chain(data: st.DataObject) -> None:
    """Two volatile assets at feeds of any scale, random accounts, a borrower and a keeper of some means."""
    count = data.draw(st.integers(2, 5), "steps")

    def path(low: int, high: int) -> list[str]:
        return [str(Fraction(data.draw(st.integers(low, high)), 1_000)) for _ in range(count)]

    raws = st.integers(1, 50 * 10**18)
    positions = [
        Account(f"account {i}", {"WETH": data.draw(raws)}, {"USDC": data.draw(st.integers(1, 10**11))})
        for i in range(data.draw(st.integers(0, 4), "positions"))
    ]
    limit = data.draw(st.none() | st.integers(0, 10**5), "inventory")
    given_script = script(
        {
            "ETH/USD": Push(decimals=data.draw(st.sampled_from([6, 8, 18]), "decimals")),
            "BTC/USD": Push(min_answer=data.draw(st.none() | st.integers(2 * 10**12, 5 * 10**12), "bound")),
        },
        {
            "ETH/USD": path(500_000, 4_000_000),
            "BTC/USD": path(9_000_000, 60_000_000),
            "USDC/USD": ["1"] * count,
        },
        {"WETH": ("ETH/USD", "ETH/USD"), "WBTC": ("BTC/USD", "BTC/USD"), "USDC": ("USDC/USD", None)},
        [
            Market("WETH", 18, 8_000, 8_250, 500, 100),
            Market("WBTC", 8, 7_000, 7_500, 1_000, 300),
            Market("USDC", 6, liquidity_raw=10**13),
        ],
        positions=tuple(positions),
        borrowers=(Borrower("borrower", {"WBTC": data.draw(st.integers(1, 10**10))}, "USDC"),),
        keepers=(Keeper("keeper", inventory=None if limit is None else Fraction(limit)),),
    )
    played(given_script)
