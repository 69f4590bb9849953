"""Aave's oracle, Morpho's, Compound's feeds, Euler's router: arithmetic by hand, and what sources read."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import pytest
from eth_abi.abi import encode

from contracts_abi.errors import InputError
from oracle.sources import sources
from oracle.sources.aave_oracle import AaveOracleSource, AssetSource, asset_price
from oracle.sources.comet import (
    MultiplicativeSource,
    ScalingSource,
    product_answer,
    ratio_answer,
    scaled_answer,
)
from oracle.sources.euler_router import (
    EulerRouterSource,
    Resolved,
    RouterConfig,
    chainlink_quote,
    resolve_oracle,
)
from oracle.sources.morpho_chainlink import (
    MorphoChainlinkSource,
    ScaleError,
    morpho_price,
    scale_error,
    scale_factor,
)
from oracle.types import FeedKind, NoData, PriceObs, Reading

NOW = 1_700_000_000
MAX = 2**255 - 1
ADDRESS, FEED_1, FEED_2, OTHER, TOKEN, UNIT = (f"0x{digit * 40}" for digit in "123456")


def word(kind: str, value: Any) -> bytes:
    return encode([kind], [value])


def round_words(answer: int, age_s: int, decimals: int = 8, round_id: int = 7) -> list[bytes | None]:
    at = 0 if age_s < 0 else NOW - age_s
    types = ["uint80", "int256", "uint256", "uint256", "uint80"]
    return [encode(types, [round_id, answer, at, at, round_id]), word("uint8", decimals)]


def price_of(reading: Reading) -> PriceObs:
    assert isinstance(reading, PriceObs)
    return reading


# --- Aave's oracle ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "fallback", "price"),
    [
        (AssetSource(5), 7, 5),
        (AssetSource(0), 7, 7),
        (AssetSource(-5), 7, 7),
        (AssetSource(0), None, None),
        (AssetSource(0), 0, 0),
        (AssetSource(None), 7, None),
        (None, 7, 7),
        (None, None, None),
    ],
)
def test_aave_takes_the_fallback_for_what_is_not_positive_and_never_for_a_revert(
    source: AssetSource | None, fallback: int | None, price: int | None
) -> None:
    assert asset_price(source, fallback) == price
    assert asset_price(source, fallback, base_currency_unit=10**8) == 10**8


AAVE = AaveOracleSource(base="WETH", quote="USD", address=ADDRESS, asset=TOKEN, feed=FEED_1, heartbeat_s=60)


def aave_results(price: int, *, unit: int = 10**8, feed: str = FEED_1, answer: int = 5) -> list[bytes | None]:
    return [word("uint256", price), word("uint256", unit), word("address", feed), *round_words(answer, 60)]


@pytest.mark.parametrize(
    ("results", "published_at"),
    [
        (aave_results(5), NOW - 60),
        (aave_results(7), None),
        (aave_results(5, feed=OTHER), None),
        (aave_results(5, unit=10**18), None),
    ],
)
def test_aave_s_price_has_the_feed_s_time_only_when_it_is_the_feed_s(
    results: list[bytes | None], published_at: int | None
) -> None:
    assert len(AAVE.reads()) == len(results)
    assert price_of(AAVE.decode(results, block=1, timestamp=NOW)).published_at == published_at


@pytest.mark.parametrize("unit", [0, 2, 11, 99])
def test_a_unit_that_is_no_power_of_ten_gives_no_scale(unit: int) -> None:
    reading = AAVE.decode(aave_results(5, unit=unit), block=1, timestamp=NOW)
    assert isinstance(reading, NoData)
    assert "no scale" in reading.reason


def test_aave_s_sources_have_names_of_their_own() -> None:
    assert AAVE.source_id != AAVE.model_copy(update={"asset": OTHER}).source_id
    assert AAVE.context(aave_results(5), timestamp=NOW).heartbeat_s == 60
    assert isinstance(AAVE.decode([None] * 5, block=1, timestamp=NOW), NoData)


# --- Morpho's oracle --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "quote", "base_feeds", "quote_feeds", "samples", "scale"),
    [
        (18, 6, (8,), (8,), (1, 1), 10**24),
        (6, 6, (), (), (1, 1), 10**36),
        (18, 6, (8, 18), (), (1, 1), None),
        (18, 18, (8,), (), (10**18, 1), 10**10),
        (18, 18, (8,), (), (3, 2), 2 * 10**28 // 3),
        (0, 60, (), (), (1, 1), None),
        (18, 6, (), (), (0, 1), None),
        (18, 6, (), (), (1, 0), None),
    ],
)
def test_scale_factor(
    base: int,
    quote: int,
    base_feeds: tuple[int, ...],
    quote_feeds: tuple[int, ...],
    samples: tuple[int, int],
    scale: int | None,
) -> None:
    assert scale_factor(base, quote, base_feeds, quote_feeds, *samples) == scale


def test_paxg_of_2024_10_13_stood_a_trillion_times_too_high() -> None:
    # PAXG has 18 decimals, USDC 6; the deployer stated them the other way round by 12.
    right, wrong = scale_factor(18, 6, (8,), (8,)), scale_factor(6, 6, (8,), (8,))
    assert right is not None
    assert wrong == right * 10**12
    answers = ((2_650 * 10**8,), (10**8,))
    good, bad = morpho_price(right, *answers), morpho_price(wrong, *answers)
    assert good == 2_650 * 10**24
    assert bad == 2_650 * 10**36
    assert scale_error(good, Fraction(2_650), 18, 6) == ScaleError(0, Fraction(1))
    assert scale_error(bad, Fraction(2_650), 18, 6) == ScaleError(12, Fraction(10**12))


@pytest.mark.parametrize(
    ("factor", "power"),
    [
        (Fraction(1), 0),
        (Fraction(316, 100), 0),
        (Fraction(317, 100), 1),
        (Fraction(1, 3), 0),
        (Fraction(316, 1_000), -1),
        (Fraction(1, 10**12), -12),
        (Fraction(2 * 10**10), 10),
    ],
)
def test_a_scale_is_wrong_by_the_nearest_power_of_ten(factor: Fraction, power: int) -> None:
    price = int(factor * 10**36)
    assert scale_error(price, Fraction(1), 18, 18).power == power


@pytest.mark.parametrize(("price", "expected"), [(0, Fraction(1)), (1, Fraction(0))])
def test_a_scale_is_judged_between_positive_prices(price: int, expected: Fraction) -> None:
    with pytest.raises(ValueError, match="between positive prices"):
        scale_error(price, expected, 18, 6)


@pytest.mark.parametrize(
    ("scale", "base", "quote", "assets", "price"),
    [
        (10, (7,), (3,), (1, 1), 23),
        (10, (7, 2), (), (5, 1), 700),
        # Zero passes as a price and does not as a divisor.
        (10, (0,), (3,), (1, 1), 0),
        (10, (7,), (0,), (1, 1), None),
        (10, (-7,), (3,), (1, 1), None),
        (10, (7,), (-3,), (1, 1), None),
        (10, (7,), (3,), (0, 1), 0),
        (10, (7,), (3,), (1, 0), None),
        (1, (MAX, 2), (), (1, 1), 2 * MAX),
        (1, (MAX, 3), (), (1, 1), None),
        # The product with the scale takes 512 bits, the result has to fit 256.
        (2**200, (2**100,), (2**44,), (1, 1), None),
        (2**200, (2**100,), (2**45,), (1, 1), 2**255),
    ],
)
def test_morpho_price(
    scale: int, base: tuple[int, ...], quote: tuple[int, ...], assets: tuple[int, int], price: int | None
) -> None:
    assert morpho_price(scale, base, quote, *assets) == price


MORPHO = MorphoChainlinkSource(
    base="PAXG",
    quote="USDC",
    address=ADDRESS,
    base_decimals=18,
    quote_decimals=6,
    feeds=(FEED_1, FEED_2),
)


def morpho_results(*named: str, ages: tuple[int, int] = (60, 90)) -> list[bytes | None]:
    zero = "0x" + "00" * 20
    getters = [word("address", feed) for feed in (*named, *[zero] * (4 - len(named)))]
    rounds = [part for age in ages for part in round_words(5, age)]
    return [word("uint256", 2_650 * 10**24), *getters, *rounds]


@pytest.mark.parametrize(
    ("results", "published_at"),
    [
        (morpho_results(FEED_1, FEED_2), NOW - 90),
        (morpho_results(FEED_2, FEED_1), NOW - 90),
        (morpho_results(FEED_1, FEED_2, ages=(60, -1)), None),
        (morpho_results(FEED_1, OTHER), None),
        (morpho_results(FEED_1), None),
        (morpho_results(FEED_1, FEED_2, OTHER), None),
    ],
)
def test_morpho_s_price_is_as_old_as_the_oldest_of_the_feeds_it_names(
    results: list[bytes | None], published_at: int | None
) -> None:
    assert len(MORPHO.reads()) == len(results)
    reading = price_of(MORPHO.decode(results, block=1, timestamp=NOW))
    assert (reading.mantissa, reading.decimals) == (2_650 * 10**24, 24)
    assert reading.published_at == published_at


def test_morpho_s_legs_are_the_feeds_it_names() -> None:
    assert MORPHO.context(morpho_results(FEED_1), timestamp=NOW).legs == (FeedKind.PUSH,)
    assert isinstance(MORPHO.decode([None] * 9, block=1, timestamp=NOW), NoData)


# --- Compound's feeds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "before", "after", "scaled"),
    [
        (19, 1, 0, 1),
        (-19, 1, 0, -1),
        (19, 0, 1, 190),
        (19, 8, 8, 19),
        (MAX, 8, 8, MAX),
        (MAX, 8, 9, None),
        (-MAX - 1, 9, 9, -MAX - 1),
        (-MAX - 1, 8, 9, None),
    ],
)
def test_scaling_cuts_towards_zero(answer: int, before: int, after: int, scaled: int | None) -> None:
    assert scaled_answer(answer, before, after) == scaled


@pytest.mark.parametrize(
    ("a", "b", "product", "ratio"),
    [
        (3, 2, 60, 15),
        (1, 3, 30, 3),
        (0, 2, 0, 0),
        (2, 0, 0, 0),
        (-3, -2, 0, 0),
        (MAX, 1, None, None),
    ],
)
def test_products_and_ratios(a: int, b: int, product: int | None, ratio: int | None) -> None:
    # One decimal in, two out: 0.3 times 0.2 is 0.06 and would be 6; at scale 3, 60.
    assert product_answer(a, b, 1, 1, 3) == product
    assert ratio_answer(a, b, 1, 1, 1) == ratio


def test_a_ratio_is_rounded_down_at_its_own_scale() -> None:
    assert ratio_answer(7, 3, 2, 1, 0) == 0
    assert ratio_answer(10**20, 3, 18, 8, 8) == 10**36 // 3 // 10**18


TWO = MultiplicativeSource(base="cbETH", quote="USD", address=ADDRESS, feeds=(FEED_1, FEED_2))


def product_results(a: str = FEED_1, ages: tuple[int, int] = (10**8, 30)) -> list[bytes | None]:
    head = [*round_words(2_464 * 10**8, ages[1]), encode(["string"], ["cbETH / USD"])]
    named = [word("address", a), word("address", FEED_2)]
    return [*head, *named, *round_words(112 * 10**16, ages[0], 18), *round_words(2_200 * 10**8, ages[1])]


def test_a_product_is_as_old_as_its_older_leg_whatever_the_contract_says() -> None:
    results = product_results()
    assert len(TWO.reads()) == len(results)
    reading = price_of(TWO.decode(results, block=1, timestamp=NOW))
    assert reading.published_at == NOW - 10**8
    assert (reading.kind, reading.round_key) == (FeedKind.COMPOSITE, None)
    assert TWO.hidden_age_s(results) == 10**8 - 30
    assert TWO.hidden_age_s(product_results(ages=(30, 90))) == 0
    assert TWO.context(results, timestamp=NOW).description == "cbETH / USD"


def test_a_product_of_unknown_legs_has_no_time() -> None:
    for results in (product_results(OTHER), product_results(ages=(-1, 30))):
        assert price_of(TWO.decode(results, block=1, timestamp=NOW)).published_at is None
        assert TWO.hidden_age_s(results) is None
    alone = TWO.model_copy(update={"feeds": None})
    results = product_results()[: len(alone.reads())]
    assert price_of(alone.decode(results, block=1, timestamp=NOW)).published_at is None


def test_a_scaled_feed_passes_times_and_rounds_on() -> None:
    source = ScalingSource(base="ETH", quote="USD", address=ADDRESS, heartbeat_s=3_600)
    id_ = (5 << 64) + 7
    results = [*round_words(2_000 * 10**8, 30, round_id=id_), encode(["string"], ["ETH / USD"])]
    assert len(source.reads()) == len(results)
    reading = price_of(source.decode(results, block=1, timestamp=NOW))
    assert (reading.published_at, reading.round_key, reading.kind) == (NOW - 30, (5, 7), FeedKind.PUSH)
    context = source.context(results, timestamp=NOW)
    assert (context.heartbeat_s, context.description) == (3_600, "ETH / USD")


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([None, word("uint8", 8), None], "no round"),
        ([round_words(1, 30)[0], None, None], "no scale"),
        ([*round_words(1, -1), None], "never written"),
    ],
)
def test_a_scaled_feed_without_a_round_is_no_data(results: list[bytes | None], reason: str) -> None:
    source = ScalingSource(base="ETH", quote="USD", address=ADDRESS)
    reading = source.decode(results, block=1, timestamp=NOW)
    assert isinstance(reading, NoData)
    assert reason in reading.reason


# --- Euler's router ---------------------------------------------------------------------------------------

PAIR, ETH_USD = frozenset(("vault", "usd")), frozenset(("usd", "eth"))


@pytest.mark.parametrize(
    ("config", "base", "found"),
    [
        (RouterConfig(), "usd", Resolved(10, "usd", "usd", None)),
        (RouterConfig(), "eth", None),
        (RouterConfig(fallback="f"), "eth", Resolved(10, "eth", "usd", "f")),
        (
            RouterConfig({frozenset(("usd", "eth")): "o"}, fallback="f"),
            "eth",
            Resolved(10, "eth", "usd", "o"),
        ),
        # A configured pair comes before the vault's own asset.
        (RouterConfig({PAIR: "o"}, {"vault": "eth"}), "vault", Resolved(10, "vault", "usd", "o")),
        (
            RouterConfig({ETH_USD: "o"}, {"vault": "eth"}),
            "vault",
            Resolved(20, "eth", "usd", "o"),
        ),
        (RouterConfig({}, {"outer": "vault", "vault": "usd"}), "outer", Resolved(40, "usd", "usd", None)),
        (RouterConfig({}, {"vault": "eth"}, "f"), "vault", Resolved(20, "eth", "usd", "f")),
        (RouterConfig({}, {"vault": "outer", "outer": "vault"}, "f"), "vault", None),
        (RouterConfig({}, {"dead": "usd"}, "f"), "dead", None),
    ],
)
def test_a_router_resolves_in_its_order(config: RouterConfig, base: str, found: Resolved | None) -> None:
    def convert(vault: str, shares: int) -> int | None:
        return None if vault == "dead" else shares * 2

    assert resolve_oracle(config, 10, base, "usd", convert) == found


@pytest.mark.parametrize(
    ("changes", "out"),
    [
        ({}, 2_000 * 10**6),
        ({"updated_at": NOW - 100}, 2_000 * 10**6),
        ({"updated_at": NOW - 101}, None),
        ({"updated_at": NOW + 1}, None),
        ({"answer": 0}, None),
        ({"answer": -1}, None),
        ({"amount": 2_000 * 10**6, "inverse": True}, 10**18),
        ({"amount": 1}, 0),
        ({"answer": 2**250, "amount": 2**100}, None),
        ({"base_decimals": 31}, None),
        ({"quote_decimals": 39}, None),
    ],
)
def test_a_quote_over_chainlink(changes: dict[str, Any], out: int | None) -> None:
    arguments: dict[str, Any] = {
        "amount": 10**18,
        "answer": 2_000 * 10**8,
        "updated_at": NOW,
        "base_decimals": 18,
        "quote_decimals": 6,
        "feed_decimals": 8,
        "max_staleness_s": 100,
        "now": NOW,
    }
    assert chainlink_quote(**(arguments | changes)) == out


ROUTER = EulerRouterSource(
    base="WETH",
    quote="USDC",
    address=ADDRESS,
    asset=TOKEN,
    unit_of_account=UNIT,
    base_decimals=18,
    quote_decimals=6,
)


def test_a_router_is_read_on_both_sides() -> None:
    quotes = encode(["uint256", "uint256"], [1_999, 2_001])
    through = encode(["uint256", "address", "address", "address"], [1, TOKEN, UNIT, OTHER])
    results: list[bytes | None] = [word("uint256", 2_000), quotes, through]
    assert len(ROUTER.reads()) == len(results)
    reading = price_of(ROUTER.decode(results, block=1, timestamp=NOW))
    assert (reading.mantissa, reading.bid, reading.ask, reading.decimals) == (2_000, 1_999, 2_001, 6)
    assert reading.published_at is None
    assert OTHER in str(ROUTER.context(results, timestamp=NOW).description)
    one_sided = price_of(ROUTER.decode([results[0], None, None], block=1, timestamp=NOW))
    assert (one_sided.bid, one_sided.ask) == (None, None)
    assert isinstance(ROUTER.decode([None, None, None], block=1, timestamp=NOW), NoData)


# --- constants, and bad configuration ---------------------------------------------------------------------


def test_a_constant_asks_nobody_and_has_no_time() -> None:
    source = sources.build({"kind": "constant", "base": "fUSD", "quote": "USD", "mantissa": 10**8})
    assert source.reads() == []
    reading = price_of(source.decode([], block=3, timestamp=NOW))
    assert (reading.mantissa, reading.published_at, reading.kind) == (10**8, None, FeedKind.CONSTANT)
    assert dataclasses.replace(reading, observed_at=NOW + 1) == source.decode([], block=3, timestamp=NOW + 1)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"kind": "constant", "base": "A", "quote": "B", "mantissa": 0}, "mantissa"),
        ({"kind": "capo", "base": "A", "quote": "B", "address": "0x12"}, "address: .*40 hex digits"),
        ({"kind": "morpho_chainlink", "base": "A", "quote": "B", "address": ADDRESS}, "base_decimals"),
        ({"kind": "aave_oracle", "base": "A", "quote": "B", "address": ADDRESS}, "asset: is missing"),
    ],
)
def test_bad_configuration_names_the_key(config: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        sources.build(config)
