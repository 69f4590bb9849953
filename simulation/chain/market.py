"""What a local market consists of, as data: the specification it is deployed from, the addresses it gets.

The default parameters are those of Aave's main Ethereum market as far as they are public, and are meant to be
edited: `dataclasses.replace` on a specification, or `MarketSpec.with_prices`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from contracts_abi.errors import DataError, InputError, UnknownNameError

M = TypeVar("M", bound="MarketSpec")

RAY = 10**27
E8 = 10**8

GENESIS = 1_584_002_700
"""2020-03-12T08:45:00Z, a quarter of an hour before the default prices."""


@dataclass(frozen=True, slots=True)
class RateSpec:
    """Interest-rate curve of a reserve (`DefaultReserveInterestRateStrategy.sol`), in basis points.

    Attributes
    ----------
    optimal_bps
        Utilisation at the kink.
    base_bps
        Variable rate at zero utilisation.
    slope1_bps, slope2_bps
        Added up to the kink, and from there to full utilisation.
    """

    optimal_bps: int
    base_bps: int
    slope1_bps: int
    slope2_bps: int


@dataclass(frozen=True, slots=True)
class FeedSpec:
    """Rule and bounds of a price feed in USD with 8 decimals.

    Attributes
    ----------
    heartbeat_s
        Longest time between rounds that the operator promises.
    deviation_bps
        Move that makes it post before that.
    min_answer_e8, max_answer_e8
        Bounds that the aggregator does not answer beyond.
    """

    heartbeat_s: int = 3_600
    deviation_bps: int = 50
    min_answer_e8: int = 1
    max_answer_e8: int = 10**15


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetSpec:
    """A reserve of the market.

    Attributes
    ----------
    symbol, name, decimals
        Of the token.
    price_e8
        First answer of its feeds: USD per whole token, 8 decimals.
    ltv_bps, liquidation_threshold_bps
        Collateral parameters.
    liquidation_bonus_bps
        10500 gives the liquidator 5% on top.
    liquidation_protocol_fee_bps
        Share of the bonus that the treasury takes.
    reserve_factor_bps
        Share of the interest that the treasury takes.
    rate
        Interest-rate curve.
    emode_category
        Category id, 0 for none.
    feed, reference_feed
        The feed that the protocol reads, and the second provider that a keeper compares it with.
    """

    symbol: str
    name: str
    decimals: int
    price_e8: int
    ltv_bps: int
    liquidation_threshold_bps: int
    liquidation_bonus_bps: int
    liquidation_protocol_fee_bps: int
    reserve_factor_bps: int
    rate: RateSpec
    emode_category: int = 0
    feed: FeedSpec = FeedSpec()
    reference_feed: FeedSpec = FeedSpec(deviation_bps=10)


@dataclass(frozen=True, slots=True)
class EModeSpec:
    """An efficiency-mode category; see `AssetSpec` for the units."""

    category: int
    label: str
    ltv_bps: int
    liquidation_threshold_bps: int
    liquidation_bonus_bps: int


@dataclass(frozen=True, slots=True)
class RangeSpec:
    """Liquidity of a pool around its first price.

    Attributes
    ----------
    width_bps
        The range reaches from price / (1 + width) to price * (1 + width); 0 means the full range.
    depth_usd
        What the position is worth when it is opened, in whole USD.
    """

    width_bps: int
    depth_usd: int


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A Uniswap pool for a traded pair, in either token order.

    Attributes
    ----------
    symbols
        The pair.
    fee_pips
        Fee tier in hundredths of a basis point.
    ranges
        Its liquidity.
    """

    symbols: tuple[str, str]
    fee_pips: int
    ranges: tuple[RangeSpec, ...]


@dataclass(frozen=True, slots=True)
class MorphoMarketSpec:
    """A market of Morpho Blue over two of the assets, priced by the feeds that Aave reads.

    Attributes
    ----------
    collateral, loan
        Symbols.
    lltv_wad
        Liquidation loan-to-value, at 1e18.
    """

    collateral: str
    loan: str
    lltv_wad: int

    @property
    def name(self) -> str:
        """Collateral and loan token, for example ``WETH/USDC``."""
        return f"{self.collateral}/{self.loan}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketSpec:
    """Everything that a local market is deployed from.

    Attributes
    ----------
    market_id
        Text kept by the addresses provider.
    assets
        Reserves in order of their reserve id.
    emodes
        Efficiency-mode categories.
    pools
        Uniswap pools.
    flash_premium_bps
        Flash-loan premium.
    morpho
        Markets of Morpho Blue beside the pool, on the same tokens and feeds; without any it is not deployed.
    """

    market_id: str = "Marginline local market"
    assets: tuple[AssetSpec, ...]
    emodes: tuple[EModeSpec, ...] = ()
    pools: tuple[PoolSpec, ...] = ()
    flash_premium_bps: int = 5
    morpho: tuple[MorphoMarketSpec, ...] = ()

    def asset(self, symbol: str) -> AssetSpec:
        """Return an asset by symbol; raises `UnknownNameError`."""
        for asset in self.assets:
            if asset.symbol == symbol:
                return asset
        raise UnknownNameError("asset", symbol, [asset.symbol for asset in self.assets])

    def with_prices(self, prices_e8: Mapping[str, int]) -> MarketSpec:
        """Return the market with other first prices; symbols not named keep theirs."""
        for symbol, price in prices_e8.items():
            self.asset(symbol)
            if price <= 0:
                raise InputError(f"price of {symbol} must be positive, got {price}")
        return dataclasses.replace(
            self,
            assets=tuple(
                dataclasses.replace(asset, price_e8=prices_e8.get(asset.symbol, asset.price_e8))
                for asset in self.assets
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain data, the same for equal specifications."""
        return dataclasses.asdict(self)


# Around the first price a sale of a million loses about half a per cent, after a fall by half about two.
_DEEP = (RangeSpec(0, 20_000_000), RangeSpec(15_000, 40_000_000), RangeSpec(2_500, 20_000_000))
_PEGGED = (RangeSpec(0, 2_000_000), RangeSpec(200, 20_000_000))
# In a crash a dollar is not a dollar: DAI traded up to about 1.10 in March 2020.
_LOOSELY_PEGGED = (RangeSpec(0, 8_000_000), RangeSpec(1_500, 30_000_000))

DEFAULT_MARKET = MarketSpec(
    assets=(
        AssetSpec(
            symbol="WETH",
            name="Wrapped Ether",
            decimals=18,
            price_e8=16_954_000_000,
            ltv_bps=8_050,
            liquidation_threshold_bps=8_300,
            liquidation_bonus_bps=10_500,
            liquidation_protocol_fee_bps=1_000,
            reserve_factor_bps=1_500,
            rate=RateSpec(optimal_bps=8_000, base_bps=0, slope1_bps=330, slope2_bps=8_000),
            emode_category=1,
        ),
        AssetSpec(
            symbol="WBTC",
            name="Wrapped BTC",
            decimals=8,
            price_e8=737_764_000_000,
            ltv_bps=7_300,
            liquidation_threshold_bps=7_800,
            liquidation_bonus_bps=10_500,
            liquidation_protocol_fee_bps=1_000,
            reserve_factor_bps=2_000,
            rate=RateSpec(optimal_bps=4_500, base_bps=0, slope1_bps=400, slope2_bps=30_000),
        ),
        AssetSpec(
            symbol="wstETH",
            name="Wrapped liquid staked Ether 2.0",
            decimals=18,
            price_e8=17_293_080_000,
            ltv_bps=7_850,
            liquidation_threshold_bps=8_100,
            liquidation_bonus_bps=10_600,
            liquidation_protocol_fee_bps=1_000,
            reserve_factor_bps=1_500,
            rate=RateSpec(optimal_bps=4_500, base_bps=25, slope1_bps=450, slope2_bps=8_000),
            emode_category=1,
        ),
        AssetSpec(
            symbol="USDC",
            name="USD Coin",
            decimals=6,
            price_e8=E8,
            ltv_bps=7_500,
            liquidation_threshold_bps=7_800,
            liquidation_bonus_bps=10_450,
            liquidation_protocol_fee_bps=1_000,
            reserve_factor_bps=1_000,
            rate=RateSpec(optimal_bps=9_200, base_bps=0, slope1_bps=550, slope2_bps=6_000),
        ),
        AssetSpec(
            symbol="DAI",
            name="Dai Stablecoin",
            decimals=18,
            price_e8=E8,
            ltv_bps=6_300,
            liquidation_threshold_bps=7_700,
            liquidation_bonus_bps=10_500,
            liquidation_protocol_fee_bps=1_000,
            reserve_factor_bps=1_000,
            rate=RateSpec(optimal_bps=9_200, base_bps=0, slope1_bps=550, slope2_bps=7_500),
        ),
    ),
    emodes=(EModeSpec(1, "ETH correlated", 9_300, 9_500, 10_100),),
    pools=(
        PoolSpec(("WETH", "USDC"), 500, _DEEP),
        PoolSpec(("WBTC", "WETH"), 500, _DEEP),
        PoolSpec(("WBTC", "USDC"), 3_000, _DEEP),
        PoolSpec(("wstETH", "WETH"), 100, _PEGGED),
        PoolSpec(("DAI", "USDC"), 100, _LOOSELY_PEGGED),
    ),
)


MORPHO_MARKETS = (
    MorphoMarketSpec("WETH", "USDC", 860_000_000_000_000_000),
    MorphoMarketSpec("WBTC", "USDC", 860_000_000_000_000_000),
)
"""Markets of Morpho Blue for `with_morpho`: the two largest kinds of collateral, at the usual LLTV."""


def with_morpho(market: M, markets: tuple[MorphoMarketSpec, ...] = MORPHO_MARKETS) -> M:
    """Return a market with Morpho Blue beside its pool.

    Raises
    ------
    UnknownNameError
        If a market is of an asset that is not there.
    InputError
        If two are the same, or one lends its own collateral.
    """
    for spec in markets:
        market.asset(spec.collateral)
        market.asset(spec.loan)
        if spec.collateral == spec.loan:
            raise InputError(f"Morpho market {spec.name} lends its own collateral", fix="name two assets")
    names = [spec.name for spec in markets]
    if len(set(names)) < len(names):
        raise InputError(f"Morpho markets {', '.join(names)}: each pair at most once", fix="leave one out")
    return dataclasses.replace(market, morpho=markets)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedAsset:
    """Addresses of a reserve.

    Attributes
    ----------
    symbol, address, decimals
        Of the token.
    a_token, v_token
        Its supply and variable-debt tokens.
    feed, reference_feed
        `PriceFeed` proxies: what the protocol reads, and the second provider.
    """

    symbol: str
    address: str
    decimals: int
    a_token: str
    v_token: str
    feed: str
    reference_feed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedPool:
    """A Uniswap pool; the tokens are sorted by address as the pool has them."""

    address: str
    token0: str
    token1: str
    fee_pips: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedUniswap:
    """Uniswap V3 contracts."""

    factory: str
    router: str
    quoter: str
    position_manager: str
    pools: tuple[DeployedPool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedMorphoMarket:
    """A market of Morpho Blue.

    Attributes
    ----------
    id
        Hash of its parameters, 0x-prefixed.
    collateral, loan
        Symbols.
    oracle, irm
        Addresses of its price source and its rate model.
    lltv_wad
        Liquidation loan-to-value, at 1e18.
    """

    id: str
    collateral: str
    loan: str
    oracle: str
    irm: str
    lltv_wad: int

    @property
    def name(self) -> str:
        """Collateral and loan token, for example ``WETH/USDC``."""
        return f"{self.collateral}/{self.loan}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedMorpho:
    """Morpho Blue: the contract, and its markets in the order of the specification."""

    address: str
    markets: tuple[DeployedMorphoMarket, ...]

    def market(self, name: str) -> DeployedMorphoMarket:
        """Return a market by name, for example ``WETH/USDC``; raises `UnknownNameError`."""
        for market in self.markets:
            if market.name == name:
                return market
        raise UnknownNameError("Morpho market", name, [market.name for market in self.markets])


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A market on a chain.

    Attributes
    ----------
    chain_id
        The chain that it is on.
    deployer
        Owns and administers everything, and posts to the feeds. Nobody has its key.
    provider, pool, configurator, oracle, data_provider, acl_manager
        Aave V3.
    pool_implementation
        The contract behind the pool's proxy.
    libraries
        Library name to address, as linked into the pool.
    treasury
        Receives the protocol's fees.
    assets
        Symbol to reserve, in order of reserve id.
    uniswap
        Uniswap V3.
    multicall
        Multicall3's usual address.
    code_hashes
        Contract name to Keccak-256 of its runtime code, 0x-prefixed.
    morpho
        Morpho Blue; None where there is none.
    """

    chain_id: int
    deployer: str
    provider: str
    pool: str
    configurator: str
    oracle: str
    data_provider: str
    acl_manager: str
    pool_implementation: str
    libraries: Mapping[str, str]
    treasury: str
    assets: Mapping[str, DeployedAsset]
    uniswap: DeployedUniswap
    multicall: str
    code_hashes: Mapping[str, str] = field(default_factory=dict)
    morpho: DeployedMorpho | None = None

    def asset(self, symbol: str) -> DeployedAsset:
        """Return a reserve by symbol; raises `UnknownNameError`."""
        try:
            return self.assets[symbol]
        except KeyError:
            raise UnknownNameError("asset", symbol, self.assets) from None

    def to_json(self) -> str:
        """Return the deployment as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Deployment:
        """Read what `to_json` wrote; raises `DataError` on anything else."""
        try:
            raw = json.loads(text)
            uniswap = raw.pop("uniswap")
            pools = tuple(DeployedPool(**pool) for pool in uniswap.pop("pools"))
            assets = {symbol: DeployedAsset(**asset) for symbol, asset in raw.pop("assets").items()}
            morpho = _morpho_of(raw.pop("morpho", None))
            uniswap = DeployedUniswap(**uniswap, pools=pools)
            return cls(**raw, assets=assets, uniswap=uniswap, morpho=morpho)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"not a deployment: {error}") from None


def _morpho_of(raw: dict[str, Any] | None) -> DeployedMorpho | None:
    if raw is None:
        return None
    markets = tuple(DeployedMorphoMarket(**market) for market in raw.pop("markets"))
    return DeployedMorpho(**raw, markets=markets)
