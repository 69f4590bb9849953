"""Prices of pools and rates of vaults: figures worked out by hand, wrong scales, bytes at random."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from oracle.sources.erc4626 import Erc4626Source, convert_to_assets
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


# --- any bytes at all -------------------------------------------------------------------------------------

SOURCES = [VAULT, VAULT.model_copy(update={"asset": None})]
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
