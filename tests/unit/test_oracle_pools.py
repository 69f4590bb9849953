"""Prices of pools and rates of vaults: figures worked out by hand, wrong scales, bytes at random."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from oracle.interfaces import AuthorityFacts
from oracle.sources.balancer import BalancerRateSource
from oracle.sources.curve import SHAPES, CurveEmaSource, average_time, inverted
from oracle.sources.erc4626 import Erc4626Source, convert_to_assets
from oracle.sources.staked_ether import CbEthSource, REthSource, WstEthSource
from oracle.types import FeedKind, NoData, PriceObs, Reading

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


# --- any bytes at all -------------------------------------------------------------------------------------

SOURCES = [
    VAULT,
    VAULT.model_copy(update={"asset": None}),
    *STAKED.values(),
    BALANCER,
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
