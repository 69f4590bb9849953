"""The ratio of what a real Uniswap V2 pair holds, moved by real swaps."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, ClassVar, Final, Literal, cast

from contracts_abi.aave_v3 import BALANCE_OF
from contracts_abi.calls import function
from contracts_abi.errors import InputError
from oracle.mechanisms.pools import ConstantProductSpot, amount_out, traded
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

_WORD: Final = 2**256


@rigs.register("univ2_spot")
class SpotRig(Quiet):
    """A pair, and a contract that prices its base token by what it holds.

    The market moves the pair by deposits and withdrawals; trades of the scenario are swaps.
    """

    kind: ClassVar[Literal["univ2_spot"]] = "univ2_spot"

    def __init__(self, site: Site) -> None:
        self._site, self._stage = site, site.stage
        self._model = model = cast("ConstantProductSpot", site.model)
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
        times, over = 10 ** max(0, digits), 10 ** max(0, -digits)
        if max(max(held) for held in self._market) * max(times, over) >= _WORD >> 8:
            raise InputError(f"a price of {site.name} with {model.decimals} decimals does not fit 256 bits")
        self.source = site.stage.create(
            uniswap_twap("SpotFeed").creation_code(
                self._pair, self._base, self._quote, times, over, model.decimals
            )
        )
        self._standing: object = None
        self._costs: list[str] = []

    def step(self, i: int) -> None:
        """Let the market arbitrage the pair, and do the trades of the step."""
        acts = tuple(act for act in self._site.world.acts if act.active(self._site.world.steps[i]))
        if (standing := (self._market[i], acts)) == self._standing:
            return
        begun: Any = self._standing
        before = () if begun is None else begun[1]
        self._standing = standing
        self._hold(*self._market[i])
        for act in acts:
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
