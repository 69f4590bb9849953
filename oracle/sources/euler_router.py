"""Euler's router: which oracle answers for a pair, and through which vaults.

Contracts: ``EulerRouter.sol``, ``CrossAdapter.sol``, ``ChainlinkOracle.sol``, ``ScaleUtils.sol`` of
euler-xyz/euler-price-oracle (18a3e34d). A pair is looked up in this order: base and quote are one; an oracle
is configured for the pair, either way round; the base is a vault that is resolved, then again with what its
shares are worth; the fallback oracle.

What the fallback is not: it is asked for pairs that nobody configured, and never when a configured oracle
reverts or is stale. A vault's shares are priced by ``convertToAssets``, which a donation moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import Field

from contracts_abi.calls import Call, function
from oracle.decisions import scale_quote
from oracle.fields import Address
from oracle.interfaces import FeedContext
from oracle.sources import sources
from oracle.sources.answers import UINT256_MAX, ContractSource, output, outputs
from oracle.types import FeedKind, PriceObs, Reading

MAX_STALENESS_RANGE = range(60, 72 * 3_600 + 1)
"""Seconds that ``ChainlinkOracle`` takes as its greatest age."""

MAX_EXPONENT = 38

GET_QUOTE = function("getQuote(uint256,address,address)(uint256)")
GET_QUOTES = function("getQuotes(uint256,address,address)(uint256,uint256)")
RESOLVE_ORACLE = function("resolveOracle(uint256,address,address)(uint256,address,address,address)")
CONFIGURED_ORACLE = function("getConfiguredOracle(address,address)(address)")


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a quote ends up.

    Attributes
    ----------
    amount
        Amount of `base` that is left to price, after the vaults on the way.
    base, quote
        The pair to price.
    oracle
        Who prices it; None when nothing is left to price because base and quote are one.
    """

    amount: int
    base: str
    quote: str
    oracle: str | None


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """What the governor of a router has set.

    Attributes
    ----------
    oracles
        Pair of assets, in any order, to the oracle's address.
    vaults
        Vault to its asset, of those that are resolved.
    fallback
        Oracle for pairs that are not configured.
    """

    oracles: Mapping[frozenset[str], str] = field(default_factory=dict)
    vaults: Mapping[str, str] = field(default_factory=dict)
    fallback: str | None = None


def resolve_oracle(
    config: RouterConfig,
    amount: int,
    base: str,
    quote: str,
    convert: Callable[[str, int], int | None],
) -> Resolved | None:
    """Return ``EulerRouter.resolveOracle``; None where it reverts.

    Parameters
    ----------
    config
        The router's configuration.
    amount
        Amount of `base`, in its smallest unit.
    base, quote
        Addresses of the assets.
    convert
        Vault and shares to assets (``convertToAssets``); None when that reverts.
    """
    seen: set[str] = set()
    while True:
        if base == quote:
            return Resolved(amount, base, quote, None)
        oracle = config.oracles.get(frozenset((base, quote)))
        if oracle is not None:
            return Resolved(amount, base, quote, oracle)
        asset = config.vaults.get(base)
        if asset is None:
            return None if config.fallback is None else Resolved(amount, base, quote, config.fallback)
        # Vaults in a circle run the contract out of gas.
        assets = None if base in seen else convert(base, amount)
        if assets is None:
            return None
        seen.add(base)
        amount, base = assets, asset


def chainlink_quote(
    amount: int,
    answer: int,
    updated_at: int,
    *,
    base_decimals: int,
    quote_decimals: int,
    feed_decimals: int,
    max_staleness_s: int,
    now: int,
    inverse: bool = False,
) -> int | None:
    """Return ``ChainlinkOracle.getQuote``, rounded down; None where it reverts.

    It reverts on an answer that is not positive, on one older than `max_staleness_s`, on one from the
    future (the age is an unsigned difference), and where the result does not fit 256 bits.

    Parameters
    ----------
    amount
        Amount of the base token; with `inverse`, of the quote token.
    answer, updated_at, feed_decimals
        The feed's latest round.
    base_decimals, quote_decimals
        Of the tokens that the adapter was deployed for.
    """
    if max(quote_decimals, feed_decimals + base_decimals) > MAX_EXPONENT:
        return None
    if answer <= 0 or updated_at > now or now - updated_at > max_staleness_s:
        return None
    if answer * 10**quote_decimals > UINT256_MAX:
        return None
    # The feed prices base in quote; asked the other way round, the amount is in the quote token.
    bases = (quote_decimals, base_decimals) if inverse else (base_decimals, quote_decimals)
    out = scale_quote(amount, answer, *bases, feed_decimals, inverse=inverse)
    return None if out > UINT256_MAX else out


@sources.register("euler_router")
class EulerRouterSource(ContractSource):
    """Euler's router for one pair, two-sided as vaults read it.

    Its oracles revert when they are stale, and state no time when they are not: the age of a price is
    unknown beyond what each adapter allows.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    address
        The router contract to read.
    name
        Source id; ``euler_router:<address>:<asset>`` by default.
    asset, unit_of_account
        Addresses of base and quote.
    base_decimals, quote_decimals
        Decimals of the two.
    """

    kind: ClassVar[Literal["euler_router"]] = "euler_router"

    asset: Address
    unit_of_account: Address
    base_decimals: int = Field(ge=0, le=36)
    quote_decimals: int = Field(ge=0, le=36)

    @property
    def source_id(self) -> str:
        """Unique name within a configuration: one router prices many pairs."""
        return self.name or f"{self.kind}:{self.address}:{self.asset}"

    def reads(self) -> list[Call[Any]]:
        """Return the quotes of one whole token, and which oracle gives them."""
        arguments = (10**self.base_decimals, self.asset, self.unit_of_account)
        return [f.call(self.address, *arguments) for f in (GET_QUOTE, GET_QUOTES, RESOLVE_ORACLE)]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the price of one token, with bid and ask where the router has two sides."""
        price, sides = output(GET_QUOTE, results[0]), outputs(GET_QUOTES, results[1])
        if price is None:
            return self._no_data("getQuote() gave no price", results[0], block, timestamp)
        bid, ask = sides or (None, None)
        return PriceObs(
            self.base,
            self.quote,
            price,
            self.quote_decimals,
            FeedKind.COMPOSITE,
            self.source_id,
            published_at=None,
            observed_at=timestamp,
            block=block,
            bid=bid,
            ask=ask,
            raw=results[0] or b"",
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return that the price is composed, and through which oracle."""
        resolved = outputs(RESOLVE_ORACLE, results[2])
        return FeedContext(
            now=timestamp,
            description=None if resolved is None else f"EulerRouter through {resolved[3]}",
        )
