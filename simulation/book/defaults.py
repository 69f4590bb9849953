"""A market to generate books over: tokens, venues and exits, to be edited (write it out, change it, read it).

What is known of the parameters, by grade: read in a repository's deployment file (Compound III's first
mainnet USDC market, comet at d5a30b0a); governance forum (Aave's Ethereum Core market: eMode of ether, WETH's
curve of April 2026, WBTC's threshold of 2024); recalled and not checked against the chain (all other figures
of Aave, the LLTVs of Morpho Blue's markets); chosen round for an example (prices, perpetuals, volumes of the
exits). None is the state of a chain at any block: `marginline book pull` reads that.
"""

from __future__ import annotations

from typing import Final

from simulation.book.bounds import AAVE_V3_6, COMPOUND_V3, MORPHO_BLUE, morpho_bonus_bps
from simulation.book.exits import ExitModel, table_of_model
from simulation.book.rows import NO_POSITIONS
from simulation.book.types import (
    USD,
    Backing,
    BackingKind,
    EMode,
    LendingVenue,
    PerpVenue,
    RateCurve,
    Reserve,
    SharedBook,
    Token,
)

DATE: Final = "2026-04-01"
"""When the figures were put together."""
TIMESTAMP: Final = 1_775_001_600
"""2026-04-01T00:00:00Z."""

_STABLE: Final = Backing(BackingKind.STABLE, USD)
_QUEUE_S: Final = 5 * 86_400
"""Order of magnitude of the staking exit queue."""

TOKENS: Final = (
    Token("WETH", 18, 2_500.0),
    Token("wstETH", 18, 3_050.0, Backing(BackingKind.STAKED, "WETH", rate=1.22, delay_s=_QUEUE_S)),
    Token("WBTC", 8, 80_000.0),
    Token("USDC", 6, 1.0, _STABLE),
    Token("USDT", 6, 1.0, _STABLE),
    Token("DAI", 18, 1.0, _STABLE),
    Token("LINK", 18, 15.0),
    Token("AAVE", 18, 150.0),
)

_NONE: Final = RateCurve(0.8, 0.0, 0.0, 0.0)
"""Of what is not lent."""


def _aave(
    token: str, ltv: int, threshold: int, bonus: int, rate: RateCurve, factor: int, fee: int = 1_000
) -> Reserve:
    return Reserve(token, ltv, threshold, bonus, rate, protocol_fee_bps=fee, reserve_factor_bps=factor)


AAVE: Final = LendingVenue(
    name="aave",
    kind=AAVE_V3_6,
    reserves=(
        _aave("WETH", 8_050, 8_300, 500, RateCurve(0.92, 0.0, 0.022, 0.06), 1_500),
        _aave("wstETH", 7_850, 8_100, 600, RateCurve(0.45, 0.0, 0.045, 0.8), 1_500),
        _aave("WBTC", 7_300, 7_800, 500, RateCurve(0.8, 0.0, 0.04, 0.6), 2_000),
        _aave("USDC", 7_500, 7_800, 450, RateCurve(0.92, 0.0, 0.055, 0.4), 1_000),
        _aave("USDT", 7_500, 7_800, 450, RateCurve(0.92, 0.0, 0.055, 0.4), 1_000),
        _aave("DAI", 6_300, 7_700, 500, RateCurve(0.92, 0.0, 0.055, 0.4), 1_000),
        _aave("LINK", 6_600, 7_100, 700, RateCurve(0.45, 0.0, 0.07, 3.0), 2_000),
        _aave("AAVE", 6_600, 7_300, 750, _NONE, 0),
    ),
    emodes=(EMode(1, ("WETH", "wstETH"), 9_300, 9_500, 100),),
)

_ADAPTIVE: Final = RateCurve(0.9, 0.01, 0.03, 0.12)
"""`AdaptiveCurveIrm` at its first rate of 4 % at target: a quarter of it when idle, four times when full."""


def _morpho(collateral: str, loan: str, lltv: int) -> LendingVenue:
    return LendingVenue(
        name=f"morpho-{collateral.lower()}-{loan.lower()}",
        kind=MORPHO_BLUE,
        reserves=(
            Reserve(collateral, lltv, lltv, morpho_bonus_bps(lltv), _NONE),
            Reserve(loan, 0, 0, 0, _ADAPTIVE),
        ),
    )


def _comet(token: str, borrow: int, liquidate: int, liquidation_factor: float) -> Reserve:
    bonus = int(10_000 / liquidation_factor - 10_000)
    return Reserve(token, borrow, liquidate, bonus, _NONE, protocol_fee_bps=5_000)


COMPOUND: Final = LendingVenue(
    name="compound-usdc",
    kind=COMPOUND_V3,
    reserves=(
        _comet("WETH", 8_250, 8_950, 0.95),
        _comet("WBTC", 7_000, 7_700, 0.95),
        _comet("LINK", 7_900, 8_500, 0.93),
        # Slopes of the contract are over utilisation: 0.035 a year up to 0.8, 0.25 from there.
        Reserve("USDC", 0, 0, 0, RateCurve(0.8, 0.015, 0.028, 0.05)),
    ),
)

PERPS: Final = PerpVenue(
    name="perps",
    margin_token="USDC",
    maintenance_margin={"WETH": 0.02, "WBTC": 0.02, "LINK": 0.03},
    initial_margin={"WETH": 0.04, "WBTC": 0.04, "LINK": 0.06},
    liquidation_fee=0.005,
    insurance=5_000_000.0,
    skew_scale={"WETH": 1_000_000.0, "WBTC": 60_000.0, "LINK": 50_000_000.0},
)

_VOLUMES: Final = {
    # Sold for, tokens a day, a day's volatility, largest sale: orders of magnitude.
    "WETH": ("USDC", 1_500_000.0, 0.035, 300_000.0),
    "wstETH": ("WETH", 40_000.0, 0.002, 60_000.0),
    "WBTC": ("USDC", 30_000.0, 0.025, 8_000.0),
    "USDC": ("USDT", 2e9, 0.001, 4e8),
    "USDT": ("USDC", 2e9, 0.001, 4e8),
    "DAI": ("USDC", 2e8, 0.001, 1e8),
    "LINK": ("WETH", 20_000_000.0, 0.05, 8_000_000.0),
    "AAVE": ("WETH", 1_500_000.0, 0.055, 400_000.0),
}


def default_market() -> SharedBook:
    """Return tokens, venues and exits of a market like Ethereum's, without accounts; see the module."""
    return SharedBook(
        tokens=TOKENS,
        lending=(
            AAVE,
            _morpho("wstETH", "WETH", 9_450),
            _morpho("wstETH", "USDC", 8_600),
            _morpho("WBTC", "USDC", 8_600),
            COMPOUND,
        ),
        wallets=(),
        positions=NO_POSITIONS,
        perps=(PERPS,),
        exits=tuple(
            table_of_model(
                token,
                quote,
                "model",
                DATE,
                ExitModel(
                    kind="sqrt",
                    smallest=largest / 1e4,
                    largest=largest,
                    volume=volume,
                    volatility=volatility,
                    points=17,
                ),
            )
            for token, (quote, volume, volatility, largest) in _VOLUMES.items()
        ),
        timestamp=TIMESTAMP,
        source=f"default parameters of {DATE}",
    )
