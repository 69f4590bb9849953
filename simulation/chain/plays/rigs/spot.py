"""Prices of a real Uniswap V2 pair, of the moment and on average, moved by real swaps."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, ClassVar, Final, Literal, cast

from contracts_abi.aave_v3 import BALANCE_OF
from contracts_abi.calls import function
from contracts_abi.errors import InputError
from oracle.mechanisms.pools import ConstantProductAverage, ConstantProductSpot, amount_out, traded
from simulation.chain.aave_v3 import MINT
from simulation.chain.artifacts import openzeppelin, uniswap_twap, uniswap_v2
from simulation.chain.evm import labelled_address
from simulation.chain.plays.rigs import Quiet, Site, rigs
from simulation.chain.plays.stage import OWNER
from simulation.replay.text import money_text, token_text

TRADER: Final = labelled_address("attacker of the pair")

CREATE_PAIR: Final = function("createPair(address,address)(address)")
GET_PAIR: Final = function("getPair(address,address)(address)")
TOKEN0: Final = function("token0()(address)")
BURN: Final = function("burn(address,uint256)")
SWAP: Final = function("swap(uint256,uint256,address,bytes)")
SYNC: Final = function("sync()")
POKE: Final = function("poke()")

_WORD: Final = 2**256


class _PairRig(Quiet):
    """A pair of the feed's two tokens.

    The market moves it by deposits and withdrawals; trades of the scenario are swaps.
    """

    def __init__(self, site: Site) -> None:
        self._site, self._stage = site, site.stage
        self._model = model = cast("ConstantProductSpot | ConstantProductAverage", site.model)
        for act in site.world.acts:
            if act.kind == "manip_twap":
                raise InputError(
                    f"{act.kind} on {site.name} names no trade, and a pair is moved by trades",
                    fix="give a swap",
                )
        self.decimals = model.decimals
        self._market = model.market(site.name, site.world)
        self._base, self._quote = (
            site.stage.create(openzeppelin("Token").creation_code(decimals))
            for decimals in (model.base_decimals, model.quote_decimals)
        )
        factory = site.stage.create(uniswap_v2("UniswapV2Factory").creation_code(OWNER))
        site.stage.act(OWNER, factory, CREATE_PAIR, self._base, self._quote)
        self._pair = site.stage.read(GET_PAIR.call(factory, self._base, self._quote))
        self._first = site.stage.read(TOKEN0.call(self._pair)) == self._base
        digits = model.base_decimals + model.decimals - model.quote_decimals
        self._scale = 10 ** max(0, digits), 10 ** max(0, -digits)
        if max(max(held) for held in self._market) * max(self._scale) >= _WORD >> 8:
            raise InputError(f"a price of {site.name} with {model.decimals} decimals does not fit 256 bits")
        self.source = self._feed()
        self._standing: object = None
        self._costs: list[str] = []

    def _feed(self) -> str:
        """Return the contract that answers the price."""
        raise NotImplementedError

    def step(self, i: int) -> None:
        """Let the market arbitrage the pair, and do the trades of the step."""
        acts = tuple(act for act in self._site.world.acts if act.active(self._site.world.steps[i]))
        if (standing := (self._market[i], acts)) == self._standing:
            return
        begun: Any = self._standing
        before = () if begun is None else begun[1]
        self._standing = standing
        self._hold(*self._market[i])
        out = False
        for act in acts:
            if out:
                raise InputError(
                    f"{act.kind} on {self._site.name} is in the middle of a flash swap, which locks a pair",
                    fix="put it before the swap, or at another time",
                )
            out = getattr(act, "base_out", None) is not None
            if act.kind == "set_liquidity":
                self._hold(*traded(*self._held(), act, self._model.units))
                continue
            told = self._trade(act, i)
            if act not in before:
                self._costs.append(told)

    def costs(self) -> tuple[str, ...]:
        """Return what each trade took, when it was made first."""
        return tuple(self._costs)

    def _held(self) -> tuple[int, int]:
        base, quote = (
            int(self._stage.read(BALANCE_OF.call(token, self._pair))) for token in (self._base, self._quote)
        )
        return base, quote

    def _hold(self, base: int, quote: int) -> None:
        """Bring the pair to these reserves."""
        for token, held, wanted in zip((self._base, self._quote), self._held(), (base, quote), strict=True):
            self._change(token, wanted - held)
        self._stage.act(OWNER, self._pair, SYNC)

    def _change(self, token: str, by: int) -> None:
        if by > 0:
            self._stage.act(OWNER, token, MINT, self._pair, by)
        elif by < 0:
            self._stage.act(OWNER, token, BURN, self._pair, -by)

    def _trade(self, act: Any, i: int) -> str:
        """Trade, and return what that took."""
        units = self._model.units
        base, quote = self._held()
        if act.base_out is not None:
            # In the middle of a flash swap: out of the pair, and its reserves not written yet.
            taken = int(act.base_out * units[0])
            self._change(self._base, -taken)
            back = -(-taken * 1_000 // 997) - taken
            return (
                f"{self._site.name}: {self._amount(0, taken)} out by a flash swap; giving it back takes "
                f"{self._amount(0, back)} more"
            )
        selling = act.base_in is not None
        given = int((act.base_in if selling else act.quote_in) * units[0 if selling else 1])
        reserves = (base, quote) if selling else (quote, base)
        got = amount_out(given, *reserves)
        self._stage.act(OWNER, self._base if selling else self._quote, MINT, self._pair, given)
        # The first output is token0's.
        outs = (0, got) if selling == self._first else (got, 0)
        self._stage.act(TRADER, self._pair, SWAP, *outs, TRADER, b"")
        return self._bill(selling, given, got, i)

    def _bill(self, selling: bool, given: int, got: int, i: int) -> str:
        world, units = self._site.world, self._model.units
        (pair,) = self._model.pairs(self._site.name)
        symbol = pair.split("/")[1]
        dollars = world.truth.get(f"{symbol}/USD")
        unit = Fraction(1) if dollars is None else dollars[i]
        worth = (world.truth[pair][i] * unit / units[0], unit / units[1])
        paid, out = worth if selling else worth[::-1]
        fee, lost = paid * given * Fraction(3, 1_000), paid * given - out * got
        token = 0 if selling else 1
        return (
            f"{self._site.name}: paid {self._amount(token, given)}, got {self._amount(1 - token, got)}; fee "
            f"{money_text(fee)} USD, price impact {money_text(lost - fee)} USD, lost {money_text(lost)} USD"
            + ("" if dollars is not None or symbol == "USD" else f", {symbol} counted as 1 USD")
        )

    def _amount(self, token: int, raw: int) -> str:
        decimals = (self._model.base_decimals, self._model.quote_decimals)[token]
        (pair,) = self._model.pairs(self._site.name)
        return f"{token_text(raw, decimals)} {pair.split('/')[token]} ({raw} raw)"


@rigs.register("univ2_spot")
class SpotRig(_PairRig):
    """A pair, and a contract that prices its base token by what it holds."""

    kind: ClassVar[Literal["univ2_spot"]] = "univ2_spot"

    def _feed(self) -> str:
        return self._stage.create(
            uniswap_twap("SpotFeed").creation_code(
                *(self._pair, self._base, self._quote, *self._scale, self._model.decimals)
            )
        )


@rigs.register("univ2_twap")
class MeanRig(_PairRig):
    """A pair, and a contract that keeps its sums at every step and answers the mean over a period."""

    kind: ClassVar[Literal["univ2_twap"]] = "univ2_twap"
    early: ClassVar[bool] = True

    def __init__(self, site: Site) -> None:
        period_s = cast("ConstantProductAverage", site.model).period_s
        if period_s > (past := site.world.steps[0] - site.stage.now):
            raise InputError(
                f"feed {site.name} averages over {period_s} s, and the pair is {past} s old at the first step"
            )
        if any(getattr(act, "base_out", None) is not None for act in site.world.acts):
            raise InputError(
                f"a flash swap in {site.name} that is not paid back is in no sum of a pair",
                fix="give what is sold to it",
            )
        super().__init__(site)
        super().step(0)
        self._stage.act(OWNER, self.source, POKE)

    def _feed(self) -> str:
        model = cast("ConstantProductAverage", self._model)
        return self._stage.create(
            uniswap_twap("MeanFeed").creation_code(
                *(self._pair, self._first, model.period_s, *self._scale, model.decimals)
            )
        )

    def step(self, i: int) -> None:
        """Keep the sum of the moment, then trade as of the step."""
        self._stage.act(OWNER, self.source, POKE)
        super().step(i)
