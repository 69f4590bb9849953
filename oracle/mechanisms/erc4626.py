"""The rate of a vault, which a donation moves."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from oracle.fields import AnyAmount
from oracle.interfaces import FeedContext, RateFacts
from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.mechanisms.wrapping import names_of
from oracle.types import FeedKind, PriceObs

_SHARE = 10**18


@mechanisms.register("erc4626")
class VaultFeed(FeedModel):
    """What a share of a vault converts to: its assets over its shares.

    A vault that holds something earns as the truth says, and a donation raises what each share is worth. In
    an empty vault the first share is one of the smallest units, and a donation before it makes one whole
    share worth the donation times 1e18 (`convertToAssets`, rounded down).

    Attributes
    ----------
    role, pair, decimals
        As of every feed.
    assets, supply
        At the first step, whole tokens; both zero for an empty vault.
    inverse
        The consumer takes 1e36 over the rate, rounded down, as Resupply did.
    """

    kind: ClassVar[Literal["erc4626"]] = "erc4626"
    acts: ClassVar[frozenset[str]] = frozenset({"rate_donate"})

    assets: AnyAmount
    supply: AnyAmount
    inverse: bool = False

    @model_validator(mode="after")
    def _empty_or_not(self) -> VaultFeed:
        if bool(self.assets) != bool(self.supply):
            raise ValueError("assets and supply are both above zero, or both zero for an empty vault")
        return self

    def play(self, name: str, world: World) -> Played:
        """Return the rate at each step."""
        base, quote, source_id = names_of(self, name)
        unit = int(10**self.decimals)
        readings, contexts = [], []
        for i, (t, block) in enumerate(zip(world.steps, world.blocks, strict=True)):
            acts: list[Any] = [act for act in world.acts if act.active(t)]
            given = sum((Fraction(act.assets) for act in acts), Fraction(0))
            true = world.seen[self.pair or name][i]
            assets, supply = Fraction(self.assets), floor(Fraction(self.supply) * _SHARE)
            if supply:
                rate = true * (assets + given) / assets
            else:
                # One smallest share against all that was given.
                rate, supply = (given * _SHARE, 1) if given else (true, 0)
            converted = floor(rate * _SHARE)
            mantissa = floor(rate * unit)
            if self.inverse:
                mantissa = _SHARE**2 // converted * unit // _SHARE if converted else 0
            readings.append(
                PriceObs(base, quote, mantissa, self.decimals, FeedKind.RATE, source_id, t, t, block)
            )
            facts = RateFacts(converted, 18, floor((assets + given) * _SHARE), supply)
            contexts.append(FeedContext(now=t, heartbeat_s=1, rate=facts))
        return Played(name, tuple(readings), tuple(contexts))
