"""Parity of the sources of pools and vaults, against contracts that we did not write.

A real Uniswap V3 pool is traded in, remembers and forgets, and Uniswap's own oracle library says what it
makes of that. A real Uniswap V2 pair is traded in and touched, and its own sums are what ours have to be. A
vault of OpenZeppelin takes deposits, gifts and losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np

from contracts_abi.aave_v3 import APPROVE
from contracts_abi.calls import Function, function
from contracts_abi.uniswap_v3 import MAX_TICK
from oracle.sources.erc4626 import Erc4626Source, convert_to_assets
from oracle.sources.uniswap_v2 import Earlier, Sum, UniswapV2Source, average, current_sum
from oracle.sources.uniswap_v3 import UniswapV3Source, harmonic_liquidity, mean_tick
from oracle.ticks import TickOutOfRange, quote_at_tick, sqrt_ratio_at_tick
from oracle.types import FeedKind
from simulation.chain.aave_v3 import MINT
from simulation.chain.artifacts import openzeppelin, uniswap_twap, uniswap_v2
from simulation.chain.evm import Evm, labelled_address, transact
from simulation.chain.parity.harness import CaseResult, Compared, Mismatch, parity_adapters
from simulation.chain.parity.oracle import (
    Answer,
    Draw,
    OracleParity,
    answers,
    compare,
    differ,
    raw_words,
    signed,
)
from simulation.chain.plays.stage import Stage
from simulation.chain.plays.v3pool import V3Pool, deploy_pool

OWNER: Final = labelled_address("pools' owner")
TRADER: Final = labelled_address("pools' trader")

_UINT32: Final = 2**32
_UINT256: Final = 2**256


class _Draw(Draw):
    """Random figures of one case, and what the case was an instance of."""

    def around(self, reach: int) -> int:
        """Return a whole number from ``-reach`` to `reach`."""
        return self.below(2 * reach + 1) - reach

    def size(self, digits: int) -> int:
        """Return an amount of at most so many digits, small ones as likely as large."""
        return int(10 ** self.below(digits)) * (1 + self.below(9_999)) // 1_000 + 1

    def scales(self, digits: int) -> tuple[int, int, int]:
        """Return scales of base, quote and price of which the price needs at most 1e`digits` base tokens."""
        while True:
            base, quote, price = self.below(25), self.below(25), self.below(25)
            if 0 <= base + price - quote <= digits:
                return base, quote, price


def _words(evm: Evm, to: str, signature: str, *arguments: Any) -> tuple[int, ...]:
    found = raw_words(evm, to, signature, *arguments)
    assert found is not None, signature
    return found


def _first(words: Sequence[int] | None) -> int | None:
    return None if words is None else words[0]


def _token_pair(evm: Evm) -> tuple[str, str]:
    """Deploy two tokens; returns them in the order of their addresses, which is a pool's."""
    tokens = [evm.create(OWNER, openzeppelin("Token").creation_code(18)) for _ in range(2)]
    lower, higher = sorted(tokens, key=lambda token: int(token, 16))
    return lower, higher


# --- Uniswap V3 -------------------------------------------------------------------------------------------

_FEES: Final = (500, 3_000, 10_000)
_LIQUIDITY: Final = 2**60
_LARGE_TICK: Final = 443_637
"""From here on the square root of a price has more than 128 bits."""


@dataclass(frozen=True, slots=True)
class V3World:
    """The library behind functions to call, and two tokens in a pool's order."""

    library: str
    tokens: tuple[str, str]


@parity_adapters.register("oracle-uniswap-v3-twap")
class UniswapV3Parity(OracleParity):
    """`simulation.chain.parity.ParityAdapter` of the mean price of a Uniswap V3 pool."""

    kind: ClassVar[Literal["oracle-uniswap-v3-twap"]] = "oracle-uniswap-v3-twap"

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared(
            "oracle.sources.uniswap_v3, oracle.ticks",
            "@uniswap/v3-core 1.0.1: UniswapV3Pool, as its authors compiled it; "
            "@uniswap/v3-periphery 1.4.4: OracleLibrary",
        )

    @property
    def tags(self) -> tuple[str, ...]:
        """What cases are counted as."""
        return (
            *("base_is_token0", "base_is_token1", "negative_tick", "rounded_down", "large_price"),
            *("no_reach", "one_observation", "ring_growing", "ring_turned", "unfollowed", "out_of_range"),
        )

    def prepare(self, evm: Evm) -> V3World:
        """Deploy the library and two tokens; every case has a pool of its own."""
        library = evm.create(OWNER, uniswap_twap("OracleLibraryCaller").creation_code())
        return V3World(library, _token_pair(evm))

    def run(self, evm: Evm, world: V3World, rng: np.random.Generator) -> CaseResult:
        """Trade in a pool, let time pass, and compare mean, liquidity, age, spot price and quotes."""
        draw = _Draw(rng)
        pool = _traded_pool(evm, world, draw)
        window_s = _window(draw, _oldest(evm, world, pool))
        base, quote = world.tokens if draw.chance(0.5) else world.tokens[::-1]
        draw.tag("base_is_token0" if base == world.tokens[0] else "base_is_token1", applies=True)
        base_decimals, quote_decimals, decimals = draw.scales(38)
        source = UniswapV3Source(
            base="A",
            quote="B",
            address=pool.pool,
            base_token=base,
            quote_token=quote,
            base_decimals=base_decimals,
            quote_decimals=quote_decimals,
            decimals=decimals,
            window_s=window_s,
        )
        consulted = raw_words(evm, world.library, "consult(address,uint32)", pool.pool, window_s)
        found = (
            *_compare_sums(evm, draw, pool.pool, window_s, consulted),
            *_compare_source(evm, draw, world, source, consulted),
            *_compare_quotes(evm, draw, world),
        )
        verdict = Answer.NO_DATA if consulted is None else Answer.READ
        draw.tag("no_reach", consulted is None)
        return CaseResult(verdict, None, frozenset(draw.tags), found)


def _traded_pool(evm: Evm, world: V3World, draw: _Draw) -> V3Pool:
    """Return a pool at any price, with liquidity in two ranges, after some trades."""
    stage = Stage(evm, evm.timestamp())
    middle = (0, 500_000, -500_000)[draw.below(3)] + draw.around(100_000)
    fee = _FEES[draw.below(len(_FEES))]
    pool = deploy_pool(stage, *world.tokens, fee, middle)
    spacing = fee // 50
    root = sqrt_ratio_at_tick(middle)
    amounts = (_LIQUIDITY << 96) // root, _LIQUIDITY * root >> 96
    for reach in (MAX_TICK, 40 * spacing):
        lower, upper = (max(-MAX_TICK, middle - reach), min(MAX_TICK, middle + reach))
        pool.provide(-(-lower // spacing) * spacing, upper // spacing * spacing, *amounts)
    for _ in range(draw.below(8)):
        if draw.chance(0.5):
            pool.remember(1 + draw.below(6))
        # Trades of one block write one observation.
        stage.move_to(stage.now + draw.below(3) * (1 + draw.below(900)))
        pool.move_to(middle + draw.around(3_000), TRADER)
    stage.move_to(stage.now + draw.below(3) * draw.below(900))
    return pool


def _oldest(evm: Evm, world: V3World, pool: V3Pool) -> int:
    return _words(evm, world.library, "getOldestObservationSecondsAgo(address)", pool.pool)[0]


def _window(draw: _Draw, oldest_s: int) -> int:
    """Return a window that reaches as far as the pool remembers, a second farther, or less, or anywhere."""
    inside = draw.below(oldest_s + 1)
    return max(1, (oldest_s, oldest_s + 1, inside, inside, draw.below(4_000))[draw.below(5)])


def _compare_sums(
    evm: Evm, draw: _Draw, pool: str, window_s: int, consulted: Sequence[int] | None
) -> tuple[Mismatch, ...]:
    """Compare mean tick and liquidity with the library's, from the pool's own sums."""
    observed = raw_words(evm, pool, "observe(uint32[])", [window_s, 0])
    if observed is None or consulted is None:
        return differ("reach", consulted is None, observed is None)
    # Two places, then the arrays, each behind its length.
    start, end = (signed(word) for word in observed[3:5])
    tick = signed(consulted[0])
    draw.tag("negative_tick", tick < 0)
    draw.tag("rounded_down", end < start and (end - start) % window_s != 0)
    return (
        *differ("mean_tick", tick, mean_tick(start, end, window_s)),
        *differ("harmonic_liquidity", consulted[1], harmonic_liquidity(observed[6], observed[7], window_s)),
    )


def _compare_source(
    evm: Evm, draw: _Draw, world: V3World, source: UniswapV3Source, consulted: Sequence[int] | None
) -> tuple[Mismatch, ...]:
    """Compare the source before and after it was told where the oldest observation stands."""
    amount = int(10 ** (source.base_decimals + source.decimals - source.quote_decimals))

    def worth(tick: int) -> int:
        signature = "getQuoteAtTick(int24,uint128,address,address)"
        return _words(evm, world.library, signature, tick, amount, source.base_token, source.quote_token)[0]

    slot = _words(evm, source.address, "slot0()")
    cardinality = slot[3]
    place = (slot[2] + 1) % cardinality
    written = bool(_words(evm, source.address, "observations(uint256)", place)[3])
    draw.tag("one_observation", cardinality == 1)
    draw.tag("ring_growing", not written)
    draw.tag("ring_turned", written and place > 0)
    oldest_s = _words(evm, world.library, "getOldestObservationSecondsAgo(address)", source.address)[0]
    expected = consulted and {
        "mantissa": worth(signed(consulted[0])),
        "decimals": source.decimals,
        "kind": FeedKind.AMM_TWAP,
        "published_at": evm.timestamp(),
    }
    draw.tag("large_price", consulted is not None and signed(consulted[0]) >= _LARGE_TICK)
    facts = {
        "amm.window_s": source.window_s,
        "amm.cardinality": cardinality,
        "amm.harmonic_liquidity": None if consulted is None else consulted[1],
        "amm.spot_mantissa": worth(signed(slot[1])),
        "locked": not slot[6],
    }
    followed = source.following(answers(evm, source.reads()))
    found = compare(followed, evm, expected or None, {**facts, "amm.oldest_s": oldest_s})
    if place == 0:
        return found
    # The source takes the ring's first place for the oldest: it knows only that the pool reached back.
    draw.tag("unfollowed", applies=True)
    at_least = None if consulted is None else source.window_s
    return found + compare(source, evm, expected or None, {**facts, "amm.oldest_s": at_least})


def _compare_quotes(evm: Evm, draw: _Draw, world: V3World) -> tuple[Mismatch, ...]:
    """Compare what any amount is worth at any tick, both ways round."""
    found: tuple[Mismatch, ...] = ()
    for lower in (True, False):
        base, quote = world.tokens if lower else world.tokens[::-1]
        tick = draw.around(MAX_TICK + (40_000 if draw.chance(0.2) else 0))
        # Bits that are cut off large prices show in the largest amounts only.
        amount = 2**128 - draw.size(37) if draw.chance(0.4) else draw.size(37)
        signature = "getQuoteAtTick(int24,uint128,address,address)"
        said = _first(raw_words(evm, world.library, signature, tick, amount, base, quote))
        draw.tag("out_of_range", said is None)
        try:
            computed: int | None = quote_at_tick(tick, amount, base_is_token0=lower)
        except TickOutOfRange:
            computed = None
        found += differ("quote_at_tick", said, computed)
    return found


# --- Uniswap V2 -------------------------------------------------------------------------------------------

CREATE_PAIR: Final = function("createPair(address,address)(address)")
MINT_SHARES: Final = function("mint(address)(uint256)")
BURN: Final = function("burn(address,uint256)")
SWAP: Final = function("swap(uint256,uint256,address,bytes)")
SYNC: Final = function("sync()")

_SUM_SLOTS: Final = (9, 10)
"""Where ``UniswapV2Pair`` stores its sums of prices and seconds."""


@dataclass(frozen=True, slots=True)
class V2World:
    """A pair, and its tokens in its order."""

    pair: str
    tokens: tuple[str, str]


@parity_adapters.register("oracle-uniswap-v2")
class UniswapV2Parity(OracleParity):
    """`simulation.chain.parity.ParityAdapter` of the mean price of a Uniswap V2 pair."""

    kind: ClassVar[Literal["oracle-uniswap-v2"]] = "oracle-uniswap-v2"

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared(
            "oracle.sources.uniswap_v2",
            "@uniswap/v2-core 1.0.1: UniswapV2Factory, UniswapV2Pair, as their authors compiled them",
        )

    @property
    def tags(self) -> tuple[str, ...]:
        """What cases are counted as."""
        return (
            *("base_is_token0", "base_is_token1", "swapped", "reserves_written", "just_touched"),
            *("sum_wraps", "clock_wraps", "empty", "too_early"),
        )

    def prepare(self, evm: Evm) -> V2World:
        """Deploy a factory and a pair of two tokens."""
        tokens = _token_pair(evm)
        factory = evm.create(OWNER, uniswap_v2("UniswapV2Factory").creation_code(OWNER))
        transact(evm, OWNER, factory, CREATE_PAIR, *tokens)
        (pair,) = _words(evm, factory, "getPair(address,address)", *tokens)
        return V2World(f"0x{pair:040x}", tokens)

    def run(self, evm: Evm, world: V2World, rng: np.random.Generator) -> CaseResult:
        """Let a pair stand at some prices for some time; compare its sums with ours and what follows."""
        case = _PairCase(evm, world, _Draw(rng))
        case.start()
        for _ in range(case.draw.below(5)):
            case.step()
        case.wait()
        return case.result()


class _PairCase:
    """A pair from the moment on at which somebody kept its sums."""

    def __init__(self, evm: Evm, world: V2World, draw: _Draw) -> None:
        self.evm = evm
        self.world = world
        self.draw = draw
        self.side = draw.below(2)
        draw.tag(f"base_is_token{self.side}", applies=True)

    def start(self) -> None:
        """Bring about reserves, sums near their end, and a time near its; keep the sums."""
        evm, draw, pair = self.evm, self.draw, self.world.pair
        if draw.chance(0.2):
            evm.warp(_UINT32 - draw.below(9_000))
        self._pay(self.draw.size(28) + 1_000, self.draw.size(28) + 1_000)
        self._send(MINT_SHARES, OWNER)
        for slot in _SUM_SLOTS:
            near = draw.chance(0.3)
            evm.set_storage(pair, slot, _UINT256 - 1 - draw.below(10**15) if near else draw.below(10**15))
        self.began_at = self.evm.timestamp() - 1
        self.kept = Sum(self._sum(), self._reserves()[2])

    def step(self) -> None:
        """Wait, then trade, or write the reserves by gifts and losses."""
        self.wait()
        reserves = self._reserves()
        if self.draw.chance(0.6) and min(reserves[:2]) > 10_000:
            self.draw.tags.add("swapped")
            # A tenth of one side for at most a twentieth of the other leaves the product larger.
            side = self.draw.below(2)
            paid = [0, 0]
            paid[side] = reserves[side] // 10
            out = [0, 0]
            out[1 - side] = reserves[1 - side] // (20 + self.draw.below(1_000))
            self._pay(*paid)
            self._send(SWAP, *out, TRADER, b"")
            return
        self.draw.tags.add("reserves_written")
        for token, held in zip(self.world.tokens, reserves[:2], strict=True):
            gone = held if self.draw.chance(0.3) else held * self.draw.below(100) // 100
            transact(self.evm, OWNER, token, BURN, self.world.pair, gone)
        if self.draw.chance(0.6):
            self._pay(self.draw.size(12), self.draw.size(12))
        self._send(SYNC)

    def wait(self) -> None:
        """Let time pass; now and then none at all, in the block of the last transaction."""
        seconds = self.draw.below(4) * self.draw.below(2_000)
        self.evm.warp(self.evm.timestamp() + (seconds or -1))

    def result(self) -> CaseResult:
        """Compare sum, mean and source with what the pair itself says when it is touched now."""
        evm, draw = self.evm, self.draw
        now = evm.timestamp()
        *reserves, touched_at = self._reserves()
        base, quote = reserves if self.side == 0 else reserves[::-1]
        ours = current_sum(Sum(self._sum(), touched_at), base, quote, now)
        elapsed_s = now - self.began_at
        period_s = max(1, elapsed_s + draw.around(3)) if draw.chance(0.5) else 1 + draw.below(2_000)
        source = self._source(period_s)
        draw.tag("just_touched", touched_at == now % _UINT32)
        draw.tag("clock_wraps", self.kept.at + elapsed_s >= _UINT32)
        draw.tag("too_early", elapsed_s < period_s)
        # A pair without reserves sums nothing; the library that looks ahead divides by them.
        empty = base == 0 and touched_at != now % _UINT32
        draw.tag("empty", empty)

        before = evm.snapshot()
        self._send(SYNC)
        theirs = self._sum()
        stated_at = self._reserves()[2]
        evm.revert(before)

        draw.tag("sum_wraps", theirs < self.kept.cumulative)
        mean = (theirs - self.kept.cumulative) % _UINT256 // elapsed_s if elapsed_s else None
        found = differ("current_sum", None if empty else Sum(theirs, stated_at), ours)
        if ours is not None:
            found += differ("average", mean, average(self.kept, ours))
        amount = int(10 ** (source.base_decimals + source.decimals - source.quote_decimals))
        expected = {
            "mantissa": None if mean is None else mean * amount >> 112,
            "decimals": source.decimals,
            "kind": FeedKind.AMM_TWAP,
            "published_at": now,
        }
        facts: dict[str, Any] = {"amm.window_s": elapsed_s, "amm.oldest_s": elapsed_s}
        facts["amm.spot_mantissa"] = ((quote << 112) // base * amount) >> 112 if base else None
        refused = empty or elapsed_s < period_s
        found += compare(source, evm, None if refused else expected, facts)
        verdict = Answer.NO_DATA if refused else Answer.READ
        return CaseResult(verdict, None, frozenset(draw.tags), found)

    def _source(self, period_s: int) -> UniswapV2Source:
        # Reserves have at most 29 digits, and the product of price and amount at most 77.
        base_decimals, quote_decimals, decimals = self.draw.scales(12)
        tokens = self.world.tokens if self.side == 0 else self.world.tokens[::-1]
        return UniswapV2Source(
            base="A",
            quote="B",
            address=self.world.pair,
            base_token=tokens[0],
            quote_token=tokens[1],
            base_decimals=base_decimals,
            quote_decimals=quote_decimals,
            decimals=decimals,
            period_s=period_s,
            earlier=Earlier(cumulative=self.kept.cumulative, at=self.began_at),
        )

    def _sum(self) -> int:
        return _words(self.evm, self.world.pair, f"price{self.side}CumulativeLast()")[0]

    def _reserves(self) -> tuple[int, int, int]:
        reserve0, reserve1, at = _words(self.evm, self.world.pair, "getReserves()")
        return reserve0, reserve1, at

    def _pay(self, *amounts: int) -> None:
        for token, amount in zip(self.world.tokens, amounts, strict=True):
            transact(self.evm, OWNER, token, MINT, self.world.pair, amount)

    def _send(self, fn: Function, *arguments: Any) -> None:
        transact(self.evm, OWNER, self.world.pair, fn, *arguments)


# --- vaults -----------------------------------------------------------------------------------------------

DEPOSIT: Final = function("deposit(uint256,address)(uint256)")
REDEEM: Final = function("redeem(uint256,address,address)(uint256)")


@parity_adapters.register("oracle-erc4626")
class Erc4626Parity(OracleParity):
    """`simulation.chain.parity.ParityAdapter` of a vault's rate."""

    kind: ClassVar[Literal["oracle-erc4626"]] = "oracle-erc4626"

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared("oracle.sources.erc4626", "@openzeppelin/contracts 4.9.6: ERC4626, ERC20")

    @property
    def tags(self) -> tuple[str, ...]:
        """What cases are counted as."""
        return (
            *("empty", "deposited", "donated", "lost", "redeemed", "offset", "overflow"),
            *("wrong_scale", "wrong_asset"),
        )

    def prepare(self, evm: Evm) -> None:
        """Deploy nothing: every case has a vault of its own."""

    def run(self, evm: Evm, world: None, rng: np.random.Generator) -> CaseResult:
        """Do to a vault what vaults go through and compare its rate."""
        draw = _Draw(rng)
        asset_decimals, offset = draw.below(19), draw.below(19) if draw.chance(0.5) else 0
        asset = evm.create(OWNER, openzeppelin("Token").creation_code(asset_decimals))
        vault = evm.create(OWNER, openzeppelin("Vault").creation_code(asset, offset))
        draw.tag("offset", offset > 0)
        for _ in range(draw.below(6)):
            _live(evm, draw, vault, asset)
        if draw.chance(0.08):
            # With all the tokens that there can be, the vault has no room for the one that it adds.
            free = _UINT256 - 1 - _words(evm, asset, "totalSupply()")[0]
            held = _words(evm, vault, "totalAssets()")[0]
            transact(evm, OWNER, asset, MINT, vault, free)
            draw.tag("overflow", held + free == _UINT256 - 1)
        return _compare_vault(evm, draw, vault, asset, asset_decimals, offset)


def _live(evm: Evm, draw: _Draw, vault: str, asset: str) -> None:
    """Let a vault take a deposit, a gift or a loss, or pay out."""
    what = draw.below(4)
    if what == 0:
        amount = draw.size(30)
        transact(evm, OWNER, asset, MINT, TRADER, amount)
        transact(evm, TRADER, asset, APPROVE, vault, amount)
        # A vault that lost everything but has shares may refuse: its shares have no price.
        draw.tag("deposited", evm.send(TRADER, vault, DEPOSIT.encode(amount, TRADER)).success)
    elif what == 1:
        transact(evm, OWNER, asset, MINT, vault, draw.size(30))
        draw.tags.add("donated")
    elif what == 2:
        held = _words(evm, vault, "totalAssets()")[0]
        transact(evm, OWNER, asset, BURN, vault, held * (1 + draw.below(100)) // 100)
        draw.tag("lost", held > 0)
    else:
        shares = _words(evm, vault, "balanceOf(address)", TRADER)[0]
        part = shares * draw.below(101) // 100
        redeemed = evm.send(TRADER, vault, REDEEM.encode(part, TRADER, TRADER)).success
        draw.tag("redeemed", redeemed and part > 0)


def _compare_vault(
    evm: Evm, draw: _Draw, vault: str, asset: str, asset_decimals: int, offset: int
) -> CaseResult:
    share_decimals = asset_decimals + offset
    worth = _first(raw_words(evm, vault, "convertToAssets(uint256)", 10**share_decimals))
    assets = _words(evm, vault, "totalAssets()")[0]
    supply = _words(evm, vault, "totalSupply()")[0]
    draw.tag("empty", supply == 0)
    source = Erc4626Source(
        base="A",
        quote="B",
        address=vault,
        share_decimals=share_decimals,
        asset_decimals=asset_decimals,
        asset=asset,
    )
    expected = {
        "mantissa": worth,
        "decimals": asset_decimals,
        "kind": FeedKind.RATE,
        "published_at": None,
    }
    facts: dict[str, Any] = {"rate": None}
    if worth is not None:
        facts = {"rate.rate": worth, "rate.total_assets_raw": assets, "rate.total_supply_raw": supply}
    found = (
        *differ("convert_to_assets", worth, convert_to_assets(10**share_decimals, assets, supply, offset)),
        *compare(source, evm, None if worth is None else expected, facts),
    )
    for tag, slip in (
        ("wrong_scale", {"asset_decimals": asset_decimals + 1}),
        ("wrong_asset", {"asset": vault}),
    ):
        if draw.chance(0.3):
            draw.tags.add(tag)
            found += compare(source.model_copy(update=slip), evm, None)
    verdict = Answer.NO_DATA if worth is None else Answer.READ
    return CaseResult(verdict, None, frozenset(draw.tags), found)
