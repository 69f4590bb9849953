"""Prices of pools and rates of vaults: figures worked out by hand, wrong scales, bytes at random."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from oracle.interfaces import AuthorityFacts
from oracle.sources.balancer import BalancerRateSource
from oracle.sources.curve import SHAPES, CurveEmaSource, average_time, inverted
from oracle.sources.erc4626 import Erc4626Source, convert_to_assets
from oracle.sources.staked_ether import CbEthSource, REthSource, WstEthSource
from oracle.sources.uniswap_v2 import (
    Sum,
    UniswapV2Source,
    amount_out,
    average,
    current_sum,
    price_of_reserves,
)
from oracle.sources.uniswap_v3 import (
    Slot,
    UniswapV3Source,
    age,
    harmonic_liquidity,
    mean_tick,
    oldest_position,
)
from oracle.ticks import TickOutOfRange, quote_at_tick, sqrt_ratio_at_tick
from oracle.types import FeedKind, NoData, PriceObs, Reading
from simulation.amm.uniswap_v3 import get_sqrt_ratio_at_tick

NOW = 1_700_000_000
POOL, TOKEN, OTHER, HOLDER = (f"0x{digit * 40}" for digit in "1234")
MAX = 2**256 - 1


def word(kind: str, value: Any) -> bytes:
    return encode([kind], [value])


def price_of(reading: Reading) -> PriceObs:
    assert isinstance(reading, PriceObs), reading
    return reading


def read(source: Any, results: list[bytes | None]) -> Reading:
    assert len(results) == len(source.reads())
    reading: Reading = source.decode(results, block=1, timestamp=NOW)
    return reading


def refused(source: Any, results: list[bytes | None]) -> str:
    reading = read(source, results)
    assert isinstance(reading, NoData), reading
    return reading.reason


# --- a vault ----------------------------------------------------------------------------------------------

VAULT = Erc4626Source(base="vUSD", quote="USD", address=POOL, asset_decimals=6, asset=TOKEN)


@pytest.mark.parametrize(
    ("assets", "supply", "offset", "worth"),
    [
        # Nothing in it: a share of 18 digits in an asset of 18, and of 6.
        (0, 0, 0, 10**18),
        (0, 0, 12, 10**6),
        # Three assets for two shares, with one of each added: 4/3, rounded down.
        (3, 2, 0, 4 * 10**18 // 3),
        # A donation of 1e21 to one share: (1e21 + 1) / 2 each.
        (10**21, 1, 0, 10**18 * (10**21 + 1) // 2),
        # The same with 6 digits of offset loses its force: 1,000,001 shares share it.
        (10**21, 1, 6, 10**18 * (10**21 + 1) // (10**6 + 1)),
        # 2**256 assets or shares are one more than there can be.
        (MAX, 1, 0, None),
        (1, MAX, 0, None),
        (MAX - 1, 1, 0, None),
        (MAX - 1, 10**18 - 1, 0, MAX),
    ],
)
def test_a_share_is_worth_its_part_of_the_assets(
    assets: int, supply: int, offset: int, worth: int | None
) -> None:
    assert convert_to_assets(10**18, assets, supply, offset) == worth


def vault_words(**changed: bytes | None) -> list[bytes | None]:
    said: dict[str, bytes | None] = {
        "worth": word("uint256", 1_050_000),
        "decimals": word("uint8", 18),
        "assets": word("uint256", 2_100_000),
        "supply": word("uint256", 2 * 10**18),
        "asset": word("address", TOKEN),
        "scale": word("uint8", 6),
    }
    return list({**said, **changed}.values())


def test_a_vault_s_rate_is_at_the_asset_s_scale_and_has_no_time() -> None:
    price = price_of(read(VAULT, vault_words()))
    assert (price.mantissa, price.decimals, price.kind) == (1_050_000, 6, FeedKind.RATE)
    assert (price.published_at, price.observed_at) == (None, NOW)
    facts = VAULT.context(vault_words(), timestamp=NOW).rate
    assert facts is not None
    assert (facts.rate, facts.decimals) == (1_050_000, 6)
    assert (facts.total_assets_raw, facts.total_supply_raw) == (2_100_000, 2 * 10**18)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"worth": None}, "convertToAssets() gave no rate"),
        ({"worth": b"\x01"}, "convertToAssets() gave no rate"),
        ({"decimals": None}, "decimals() gave no scale"),
        ({"decimals": word("uint8", 6)}, "shares have 6 decimals, not 18"),
        ({"asset": word("address", OTHER)}, f"the vault's asset is {OTHER}, not {TOKEN}"),
        ({"scale": word("uint8", 18)}, "the asset has 18 decimals, not 6"),
        ({"scale": None}, "the asset has None decimals, not 6"),
    ],
)
def test_a_vault_that_is_not_as_configured_has_no_price(
    changed: dict[str, bytes | None], reason: str
) -> None:
    assert refused(VAULT, vault_words(**changed)) == reason


def test_what_a_vault_does_not_say_is_unknown() -> None:
    facts = VAULT.context(vault_words(assets=None, supply=b""), timestamp=NOW).rate
    assert facts is not None
    assert (facts.total_assets_raw, facts.total_supply_raw) == (None, None)
    assert VAULT.context(vault_words(worth=None), timestamp=NOW).rate is None


# --- staked ether, and rates of Balancer ------------------------------------------------------------------

RATE = 1_158_000_000_000_000_000
STAKED: dict[str, Any] = {
    source.kind: source(base="T", quote="ETH", address=POOL, max_growth_bps_year=900)
    for source in (WstEthSource, REthSource, CbEthSource)
}


@pytest.mark.parametrize(
    ("kind", "selector"), [("wsteth", "035faf82"), ("reth", "e6aa216c"), ("cbeth", "3ba0b9a9")]
)
def test_rates_of_staked_ether(kind: str, selector: str) -> None:
    source = STAKED[kind]
    assert source.reads()[0].data.hex() == selector
    results: list[bytes | None] = [word("uint256", RATE), word("uint256", 5 * 10**18)]
    results += [word("address", HOLDER)] * (kind == "cbeth")
    price = price_of(read(source, results))
    assert (price.mantissa, price.decimals, price.kind) == (RATE, 18, FeedKind.RATE)
    assert price.published_at is None
    context = source.context(results, timestamp=NOW)
    assert context.rate is not None
    assert (context.rate.rate, context.rate.total_supply_raw) == (RATE, 5 * 10**18)
    assert context.rate.max_growth_bps_year == 900
    # Of cbETH one account says what it is worth.
    one = AuthorityFacts(setters=frozenset({HOLDER})) if kind == "cbeth" else None
    assert context.authority == one
    results[0] = b""
    assert refused(source, results).endswith("() gave no rate")
    assert source.context(results, timestamp=NOW).rate is None


BALANCER = BalancerRateSource(base="BPT", quote="ETH", address=POOL, vault=OTHER)


@pytest.mark.parametrize(
    ("probe", "collector", "locked"),
    [
        (b"", word("address", HOLDER), False),
        (None, word("address", HOLDER), True),
        # Nobody is at home: nothing was refused, and nothing answered.
        (b"", b"", None),
        (None, None, None),
    ],
)
def test_a_vault_that_refuses_a_call_of_nothing_is_inside_one(
    probe: bytes | None, collector: bytes | None, locked: bool | None
) -> None:
    results = [word("uint256", RATE), word("uint256", 10**18), probe, collector]
    assert price_of(read(BALANCER, results)).mantissa == RATE
    context = BALANCER.context(results, timestamp=NOW)
    assert context.locked is locked
    assert context.rate is not None
    assert context.rate.total_supply_raw == 10**18


def test_balancer_s_probe_has_no_operations() -> None:
    probe = BALANCER.reads()[2]
    # The selector of manageUserBalance, the array's place, and its length of nothing.
    assert probe.data == bytes.fromhex("0e8e3e84") + word("uint256", 32) + word("uint256", 0)
    unprobed = BALANCER.model_copy(update={"vault": None, "shares": TOKEN})
    assert [call.to for call in unprobed.reads()] == [POOL, TOKEN]
    assert unprobed.context([word("uint256", 1), None], timestamp=NOW).locked is None


@pytest.mark.parametrize(
    ("answer", "reason"), [(None, "getRate() gave no rate"), (word("uint256", 0), "getRate() is zero")]
)
def test_no_rate_and_a_rate_of_zero_are_no_data(answer: bytes | None, reason: str) -> None:
    results = [answer, None, b"", word("address", HOLDER)]
    assert refused(BALANCER, results) == reason
    assert BALANCER.context(results, timestamp=NOW).rate is None


# --- Curve's averages -------------------------------------------------------------------------------------


def curve(pool: str, **changed: Any) -> CurveEmaSource:
    return CurveEmaSource.model_validate(
        {"base": "A", "quote": "B", "address": POOL, "pool": pool, **changed}
    )


def curve_words(pool: str = "stable", **changed: bytes | None) -> list[bytes | None]:
    said: dict[str, bytes | None] = {
        "average": word("uint256", 2 * 10**18),
        "spot": word("uint256", 21 * 10**17),
        "time": word("uint256", 600),
        "balance": word("uint256", 10**24),
    }
    if SHAPES[pool].stored:
        said["traded_at"] = word("uint256", NOW - 900)
    return list({**said, **changed}.values())


@pytest.mark.parametrize(
    ("pool", "window_s", "published_at", "locked"),
    [
        # What is stated is the time constant, or the half-life: 600 / ln 2 is 865.6.
        ("stable_ng", 600, NOW, False),
        ("stable", 600, NOW, None),
        ("tricrypto_ng", 864, NOW, False),
        ("twocrypto_ng", 864, NOW, None),
        ("tricrypto", 865, NOW - 900, None),
        ("twocrypto", 865, NOW - 900, None),
    ],
)
def test_what_generations_of_pools_say(
    pool: str, window_s: int, published_at: int, locked: bool | None
) -> None:
    source = curve(pool)
    price = price_of(read(source, curve_words(pool)))
    assert (price.mantissa, price.decimals, price.kind) == (2 * 10**18, 18, FeedKind.AMM_EMA)
    assert price.published_at == published_at
    context = source.context(curve_words(pool), timestamp=NOW)
    assert context.amm is not None
    assert (context.amm.window_s, context.amm.spot_mantissa) == (window_s, 21 * 10**17)
    assert context.amm.oldest_s is None
    assert context.locked is locked


def test_all_generations_are_offered() -> None:
    assert all(curve(pool).pool == pool for pool in SHAPES)


def test_a_coin_s_price_is_numbered_from_the_first_after_coin_0() -> None:
    average, spot, *_rest = curve("stable_ng", coin=3).reads()
    assert average.data[4:] == spot.data[4:] == word("uint256", 2)
    assert len(curve("stable").reads()[0].data) == 4


def test_the_price_the_other_way_round() -> None:
    source = curve("stable", inverse=True)
    assert price_of(read(source, curve_words())).mantissa == 5 * 10**17
    facts = source.context(curve_words(), timestamp=NOW).amm
    assert facts is not None
    # 1 / 2.1, rounded down.
    assert facts.spot_mantissa == inverted(21 * 10**17) == 476_190_476_190_476_190
    zero = word("uint256", 0)
    assert refused(source, curve_words(average=zero)) == "price_oracle() is zero"
    facts = source.context(curve_words(spot=zero), timestamp=NOW).amm
    assert facts is not None
    assert facts.spot_mantissa is None


@pytest.mark.parametrize(
    ("answer", "balance", "locked"),
    [
        (b"", word("uint256", 1), False),
        (word("uint256", 10**18), word("uint256", 1), False),
        (None, word("uint256", 1), True),
        (None, word("uint256", 0), None),
        (b"", b"", None),
    ],
)
@pytest.mark.parametrize("probe", ["get_virtual_price", "claim_admin_fees", "remove_liquidity"])
def test_a_pool_that_refuses_the_probe_is_inside_a_call(
    probe: str, answer: bytes | None, balance: bytes, locked: bool | None
) -> None:
    source = curve("stable", probe=probe)
    results = [*curve_words(balance=balance), answer]
    assert len(source.reads()) == len(results)
    assert source.context(results, timestamp=NOW).locked is locked


def test_what_a_pool_does_not_say_is_unknown() -> None:
    source = curve("stable_ng")
    assert refused(source, curve_words(average=None)) == "price_oracle() gave no price"
    context = source.context(curve_words(average=None, time=b""), timestamp=NOW)
    assert (context.amm, context.locked) == (None, None)
    assert price_of(read(curve("tricrypto"), curve_words("tricrypto", traded_at=None))).published_at is None


def test_ten_minutes_of_half_life_are_866_seconds_of_decay() -> None:
    assert average_time(866, None) == 866
    # A parameter of 866 is stated as 601, and comes back as 865: the getter rounds down.
    assert average_time(866 * 694 // 1000, SHAPES["twocrypto_ng"].half_life) in (865, 866)


# --- Uniswap V3 -------------------------------------------------------------------------------------------

Q128 = 2**128


@given(tick=st.integers(-887_272, 887_272))
def test_prices_at_ticks_are_those_of_the_pool_s_model(tick: int) -> None:
    assert sqrt_ratio_at_tick(tick) == get_sqrt_ratio_at_tick(tick)


def test_the_ends_of_the_ticks() -> None:
    # The contract's own constants, and 1 at tick 0.
    assert sqrt_ratio_at_tick(-887_272) == 4_295_128_739
    assert sqrt_ratio_at_tick(887_272) == 1_461_446_703_485_210_103_287_273_052_203_988_822_378_723_970_342
    assert sqrt_ratio_at_tick(0) == 2**96
    for tick in (-887_273, 887_273):
        with pytest.raises(TickOutOfRange):
            sqrt_ratio_at_tick(tick)


@pytest.mark.parametrize(
    ("tick", "amount", "lower", "worth"),
    [
        (0, 10**18, True, 10**18),
        (0, 10**18, False, 10**18),
        # 1.0001**69,081 is 999.99933904, and one over it 0.00100000066.
        (69_081, 10**6, True, 999_999_339),
        (69_081, 10**6, False, 1_000),
        (69_081, 0, True, 0),
        # 1.0001**-276,324 is 1.0000026e-12: what is left is below one unit.
        (-276_324, 10**11, True, 0),
    ],
)
def test_what_an_amount_is_worth_at_a_tick(tick: int, amount: int, lower: bool, worth: int) -> None:
    assert quote_at_tick(tick, amount, base_is_token0=lower) == worth


def test_large_prices_are_cut_to_128_bits_before_they_are_used() -> None:
    # 64 / log2(1.0001), twice 32 bits over 96, is 443,636.4.
    assert sqrt_ratio_at_tick(443_636) < Q128 < sqrt_ratio_at_tick(443_637)
    root = sqrt_ratio_at_tick(600_001)
    kept = root * root // 2**64
    assert quote_at_tick(600_001, 10**30 + 1, base_is_token0=True) == kept * (10**30 + 1) // Q128
    assert quote_at_tick(600_001, 10**38, base_is_token0=False) == Q128 * 10**38 // kept
    # No price of any tick and amount has more than 256 bits.
    assert quote_at_tick(887_272, Q128 - 1, base_is_token0=True) <= MAX
    assert quote_at_tick(-887_272, Q128 - 1, base_is_token0=False) <= MAX
    assert quote_at_tick(887_272, 10**38, base_is_token0=False) == 0


@pytest.mark.parametrize(
    ("start", "end", "window_s", "tick"),
    [
        (0, 600, 60, 10),
        (0, 659, 60, 10),
        (0, -600, 60, -10),
        # Towards minus infinity, not towards zero.
        (0, -601, 60, -11),
        (0, -1, 60, -1),
        (0, 1, 60, 0),
        # Sums of 56 bits wrap.
        (2**55 - 1, -(2**55) + 59, 60, 1),
    ],
)
def test_mean_ticks(start: int, end: int, window_s: int, tick: int) -> None:
    assert mean_tick(start, end, window_s) == tick


def test_harmonic_liquidity() -> None:
    # A minute at 1e18: 60 * 2**128 / 1e18 seconds over liquidity, rounded down by the pool.
    grown = 60 * Q128 // 10**18
    assert harmonic_liquidity(7, 7 + grown, 60) == 60 * (2**160 - 1) // (grown * 2**32)
    # A minute at 1e18 and two at 4e18: three over the sum of 1 and 2/4 is 2e18.
    grown += 120 * Q128 // (4 * 10**18)
    assert harmonic_liquidity(0, grown, 180) in (2 * 10**18, 2 * 10**18 - 1)
    # Sums of 160 bits wrap; no growth is a division by zero.
    assert harmonic_liquidity(2**160 - 1, grown - 1, 180) == harmonic_liquidity(0, grown, 180)
    assert harmonic_liquidity(5, 5, 60) is None
    # No liquidity at all counts as one unit of it: the minute grows by 60 * 2**128.
    assert harmonic_liquidity(0, 60 * Q128, 60) == 0
    assert harmonic_liquidity(0, 60 * Q128 - 1, 60) == 1


def test_the_ring_of_observations() -> None:
    assert oldest_position(Slot(0, index=0, cardinality=1)) == 0
    assert oldest_position(Slot(0, index=3, cardinality=5)) == 4
    assert oldest_position(Slot(0, index=4, cardinality=5)) == 0
    # Times have 32 bits.
    assert age(2**32 - 10, 2**32 + 5) == 15


USD, WETH = f"0x{'1' * 40}", f"0x{'2' * 40}"
UNISWAP = UniswapV3Source(
    base="ETH",
    quote="USD",
    address=POOL,
    base_token=WETH,
    quote_token=USD,
    base_decimals=18,
    quote_decimals=6,
    decimals=8,
    window_s=60,
    observation=3,
)


def v3_words(**changed: bytes | None) -> list[bytes | None]:
    seconds = (0, 60 * Q128 // 10**18)
    observed = encode(["int56[]", "uint160[]"], [(0, 60 * 200_000 + 59), seconds])
    slot = ["uint160", "int24", "uint16", "uint16", "uint16", "uint8", "bool"]
    kept = ["uint32", "int56", "uint160", "bool"]
    said: dict[str, bytes | None] = {
        "sums": observed,
        "slot": encode(slot, [2**96, 200_100, 2, 5, 8, 0, True]),
        "first": encode(kept, [NOW - 900, 0, 0, True]),
        "oldest": encode(kept, [NOW - 1_000, 0, 0, True]),
        "token0": word("address", USD),
        "token1": word("address", WETH),
    }
    return list({**said, **changed}.values())


def test_a_pool_s_mean_price() -> None:
    price = price_of(read(UNISWAP, v3_words()))
    # 1e18 / 1.0001**200,000 is 2,063,215,669.444, which are 2,063.2 dollars; with two digits more.
    assert price.mantissa == 206_321_566_944
    assert (price.decimals, price.kind, price.published_at) == (8, FeedKind.AMM_TWAP, NOW)
    facts = UNISWAP.context(v3_words(), timestamp=NOW).amm
    assert facts is not None
    assert (facts.window_s, facts.oldest_s, facts.cardinality) == (60, 1_000, 5)
    assert facts.harmonic_liquidity == 10**18
    assert UNISWAP.context(v3_words(), timestamp=NOW).locked is False
    slot = ["uint160", "int24", "uint16", "uint16", "uint16", "uint8", "bool"]
    inside = v3_words(slot=encode(slot, [2**96, 200_100, 2, 5, 8, 0, False]))
    assert UNISWAP.context(inside, timestamp=NOW).locked is True
    assert UNISWAP.context(v3_words(slot=None), timestamp=NOW).locked is None
    # A hundred ticks more of token0 for token1 are one per cent less of it the other way round.
    assert facts.spot_mantissa == quote_at_tick(200_100, 10**20, base_is_token0=False)
    assert 9_899 < facts.spot_mantissa * 10_000 // price.mantissa < 9_902


def test_the_oldest_observation_is_followed_around_the_ring() -> None:
    kept = ["uint32", "int56", "uint160", "bool"]
    empty = encode(kept, [0, 0, 0, False])

    def oldest(source: UniswapV3Source, **changed: bytes | None) -> int | None:
        facts = source.context(v3_words(**changed), timestamp=NOW).amm
        assert facts is not None
        return facts.oldest_s

    # The place was paid for and not reached yet: the ring begins at its first place.
    assert oldest(UNISWAP, oldest=empty) == 900
    # The ring has turned since the place was told: at least the window, since the pool answered for that.
    moved = UNISWAP.model_copy(update={"observation": 4})
    assert oldest(moved) == 60
    assert oldest(moved, sums=None) is None
    assert moved.following(v3_words()) == UNISWAP
    assert moved.following(v3_words(slot=None)) is moved
    slot = ["uint160", "int24", "uint16", "uint16", "uint16", "uint8", "bool"]
    turned = encode(slot, [2**96, 0, 4, 5, 5, 0, True])
    assert oldest(moved, slot=turned) == 900
    # A pool without a price has no ring.
    assert oldest(moved, slot=encode(slot, [0, 0, 0, 0, 0, 0, False]), sums=None) is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"sums": None}, "observe() does not reach back 60 s, or gave no sums"),
        ({"sums": encode(["int56[]", "uint160[]"], [(0,), (0, 1)])}, "observe() does not reach back 60 s"),
        ({"sums": encode(["int56[]", "uint160[]"], [(0, 1), (1, 1)])}, "observe() does not reach back 60 s"),
        ({"token1": word("address", OTHER)}, f"the pool is of {USD} and {OTHER}"),
        ({"token0": None}, f"the pool is of None and {WETH}"),
        (
            {"sums": encode(["int56[]", "uint160[]"], [(0, 60 * 900_000), (0, 1)])},
            "no price at tick 900000",
        ),
    ],
)
def test_a_pool_without_a_mean_is_no_data(changed: dict[str, bytes | None], reason: str) -> None:
    assert refused(UNISWAP, v3_words(**changed)).startswith(reason)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"decimals": 36, "quote_decimals": 0}, "1e54 raw base tokens"),
        ({"base_decimals": 0, "quote_decimals": 18, "decimals": 8}, "1e-10 raw base tokens"),
        ({"base_token": USD}, "both base and quote token"),
    ],
)
def test_scales_that_the_library_cannot_take_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        UniswapV3Source.model_validate({**UNISWAP.model_dump(), **changed})


# --- Uniswap V2 -------------------------------------------------------------------------------------------

Q112 = 2**112


def test_the_time_since_the_last_touch_counts_at_the_reserves_that_stand() -> None:
    # 3 for 2 is 1.5, for ten seconds.
    assert current_sum(Sum(7, 100), 2, 3, 110) == Sum(7 + 15 * Q112, 110)
    assert current_sum(Sum(7, 100), 2, 3, 100) == Sum(7, 100)
    # A third rounds down before it is summed.
    assert current_sum(Sum(0, 0), 3, 1, 3) == Sum(3 * (Q112 // 3), 3)
    # Sums wrap at 2**256, times at 2**32.
    assert current_sum(Sum(MAX, 100), 1, 1, 101) == Sum(Q112 - 1, 101)
    assert current_sum(Sum(0, 2**32 - 5), 1, 1, 2**32 + 5) == Sum(10 * Q112, 5)
    # Empty: a division by zero, unless no time has passed.
    assert current_sum(Sum(7, 100), 0, 0, 101) is None
    assert current_sum(Sum(7, 100), 0, 0, 100) == Sum(7, 100)
    assert price_of_reserves(2**112 - 1, 1) == 1
    assert price_of_reserves(1, 2**112 - 1) == (2**112 - 1) * Q112


def test_mean_prices_between_sums() -> None:
    # Ten seconds at 1.5 and thirty at 2.5 are 2.25 in the mean.
    end = current_sum(Sum(15 * Q112, 110), 2, 5, 140)
    assert end is not None
    assert average(Sum(0, 100), end) == 9 * Q112 // 4
    assert amount_out(9 * Q112 // 4, 1_001) == 2_252
    # Across both wraps.
    assert average(Sum(MAX - Q112 + 1, 2**32 - 1), Sum(Q112, 1)) == Q112
    assert average(Sum(0, 100), Sum(5, 100)) is None
    # 224 bits of price, 256 of product, 144 of result.
    assert amount_out(2**224 - 1, 2**32) == (2**224 - 1) * 2**32 // Q112
    assert amount_out(2**224 - 1, 2**32 + 1) is None
    assert amount_out(Q112, 2**144 - 1) == 2**144 - 1
    assert amount_out(Q112, 2**144) is None


PAIR = UniswapV2Source.model_validate(
    {
        "base": "ETH",
        "quote": "USD",
        "address": POOL,
        "base_token": WETH,
        "quote_token": USD,
        "base_decimals": 18,
        "quote_decimals": 6,
        "decimals": 8,
        "period_s": 600,
        "earlier": {"cumulative": 5, "at": NOW - 600},
    }
)
STORED = UniswapV2Source.model_validate({**PAIR.model_dump(), "earlier": None, "store": HOLDER})


def v2_words(source: UniswapV2Source = PAIR, **changed: bytes | None) -> list[bytes | None]:
    # WETH is token1. 600 s: 400 of them at 1,000 dollars, and the last 200 at 4,000 for 2.
    reserves = (4_000 * 10**6, 2 * 10**18)
    said: dict[str, bytes | None] = {
        "sum": word("uint256", 5 + 400 * (1_000 * 10**6 * Q112 // 10**18)),
        "reserves": encode(["uint112", "uint112", "uint32"], [*reserves, NOW - 200]),
        "token0": word("address", USD),
        "token1": word("address", WETH),
    }
    if source.store is not None:
        said |= {"kept": word("uint256", 5), "kept_at": word("uint32", NOW - 600)}
    return list({**said, **changed}.values())


@pytest.mark.parametrize("source", [PAIR, STORED])
def test_a_pair_s_mean_price(source: UniswapV2Source) -> None:
    price = price_of(read(source, v2_words(source)))
    # (400 * 1,000 + 200 * 2,000) / 600 dollars, with 8 digits, rounded down twice.
    assert price.mantissa == 133_333_333_333
    assert (price.decimals, price.kind, price.published_at) == (8, FeedKind.AMM_TWAP, NOW)
    facts = source.context(v2_words(source), timestamp=NOW).amm
    assert facts is not None
    assert (facts.window_s, facts.oldest_s) == (600, 600)
    assert facts.spot_mantissa == 199_999_999_999
    # The sum of the other side is another: its mean is not one over this.
    assert source.reads()[0].data.hex() == "5a3d5493"


@pytest.mark.parametrize(
    ("source", "changed", "reason"),
    [
        (PAIR, {"sum": None}, "the pair gave no sum, or is empty"),
        (PAIR, {"reserves": b""}, "the pair gave no sum, or is empty"),
        (PAIR, {"reserves": word("uint256", 0) * 3}, "the pair gave no sum, or is empty"),
        (PAIR, {"token0": word("address", OTHER)}, f"the pair is of {OTHER} and {WETH}"),
        (STORED, {"kept_at": None}, f"{HOLDER} keeps no earlier sum"),
        (STORED, {"kept_at": word("uint32", 0)}, f"{HOLDER} keeps no earlier sum"),
        (STORED, {"kept": None}, f"{HOLDER} keeps no earlier sum"),
        # Inverse's bug: what lies between two sums of one moment is a spot price.
        (STORED, {"kept_at": word("uint32", NOW - 599)}, "the earlier sum is 599 s old, not 600 s"),
        (STORED, {"kept_at": word("uint32", NOW)}, "the earlier sum is 0 s old, not 600 s"),
        (
            PAIR.model_copy(update={"base_decimals": 36, "decimals": 36}),
            {},
            "the price has more than 256 bits",
        ),
    ],
)
def test_a_pair_without_a_mean_is_no_data(
    source: UniswapV2Source, changed: dict[str, bytes | None], reason: str
) -> None:
    assert refused(source, v2_words(source, **changed)) == reason


@pytest.mark.parametrize("now", [NOW - 601, NOW - 600 + 2**32])
def test_an_earlier_sum_farther_off_than_its_clock_can_tell_is_none(now: int) -> None:
    reading = PAIR.decode(v2_words(), block=1, timestamp=now)
    assert isinstance(reading, NoData)
    assert reading.reason == f"the earlier sum is not of the 2**32 s before {now}"
    assert PAIR.context(v2_words(), timestamp=now).amm is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"earlier": None}, "needs an earlier sum"),
        ({"store": HOLDER}, "needs an earlier sum"),
        ({"base_decimals": 0, "quote_decimals": 18}, "less than one"),
        ({"base_token": USD}, "both base and quote token"),
    ],
)
def test_pairs_that_make_no_price_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        UniswapV2Source.model_validate({**PAIR.model_dump(), **changed})


# --- any bytes at all -------------------------------------------------------------------------------------

SOURCES = [
    VAULT,
    VAULT.model_copy(update={"asset": None}),
    *STAKED.values(),
    BALANCER,
    UNISWAP,
    PAIR,
    STORED,
    *(curve(pool, inverse=True, probe="get_virtual_price") for pool in SHAPES),
]
WORDS = st.lists(
    st.one_of(st.just(0), st.just(1), st.just(MAX), st.integers(0, 2**16), st.integers(0, MAX)).map(
        lambda n: n.to_bytes(32)
    ),
    max_size=10,
).map(b"".join)
ANSWERS = st.one_of(st.none(), st.binary(max_size=100), WORDS)


@given(data=st.data())
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.kind)
def test_no_bytes_make_a_source_raise(source: Any, data: st.DataObject) -> None:
    count = len(source.reads())
    results = data.draw(st.lists(ANSWERS, min_size=count, max_size=count))
    assert isinstance(read(source, results), PriceObs | NoData)
    source.context(results, timestamp=NOW)
