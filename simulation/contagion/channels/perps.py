"""Perpetual futures: accounts below maintenance are closed, the insurance fund pays, then winners do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from pydantic import Field
from scipy.sparse import csr_array

from contracts_abi.errors import InputError
from simulation.contagion.batch import Batch, Channel
from simulation.contagion.channels import channels
from simulation.contagion.world import World
from simulation.protocols.perps_loss import adl_pro_rata, adl_queue, adl_score, insurance_waterfall
from simulation.types import Float64, Int64

DAY_S = 86_400.0


FIGURES: Final = (
    "liquidations",
    "closed_usd",
    "beyond_margin_usd",
    "insurance_paid_usd",
    "adl_usd",
    "fees_usd",
)
"""Figures that are added up over a path."""


@dataclass(slots=True)
class _Memo:
    """Positions M, accounts C and venues U of a batch of P paths.

    `given` is what deleveraging has taken of each account's open profit, shape (P, C); `uncovered` what
    neither the fund nor a winner has paid of deficits, shape (P,).
    """

    token: Int64
    owner: Int64
    venue: Int64
    account_venue: Int64
    entry: Float64
    maintenance: Float64
    fee: Float64
    skew_scale: Float64
    sums: Any
    venues: Any
    size: Float64
    margin: Float64
    insurance: Float64
    outside: Float64
    given: Float64
    put_in: Float64
    uncovered: Float64
    figures: dict[str, Float64]


@channels.register("perps")
class PerpsChannel(Channel):
    """Venues of perpetual futures that mark positions at the market's price.

    An account's equity is its margin plus ``size * (mark - entry)``; below ``maintenance * |size| * mark`` it
    is closed whole at the mark. What closing trades goes to the market (see impact). The liquidation fee goes
    to the insurance fund as far as there is equity; a deficit is paid by the fund, and what it lacks is taken
    from winners of the same venue: by queue (profit as a part of margin times leverage, the highest first)
    or pro rata. Whoever is on the other side of the book's accounts is one outside counterparty, so that no
    dollar appears or goes.

    Deleveraging takes dollars of winners' profits and leaves their positions open, as a venue does that
    shares losses out. One that closes winners' positions against the bankrupt one at its bankruptcy price
    would trade less on the market; that is not modelled.

    Funding is paid by the larger side: ``rate = most * clip(skew / skew_scale, -1, 1)`` a day of each
    position's notional, where the skew is the sum of the venue's sizes in the token.

    Off, positions stand still.

    Attributes
    ----------
    on
        The switch.
    adl
        ``queue``, ``pro-rata``, or ``none``: the outside counterparty bears what the fund cannot.
    most_funding
        Funding a day at full skew, a part of the notional; 0 without funding.
    """

    kind: ClassVar[Literal["perps"]] = "perps"
    order: ClassVar[int] = 75

    adl: Literal["queue", "pro-rata", "none"] = "queue"
    most_funding: Annotated[float, Field(ge=0)] = 0.0

    def check(self, world: World) -> None:
        """Refuse a book without perpetual futures."""
        if self.on and not world.book.perps:
            raise InputError(
                "channels.perps: the book has no venue of perpetual futures", fix="leave the channel out"
            )

    def prepare(self, batch: Batch) -> _Memo:
        """Lay positions and accounts out."""
        book, p = batch.world.book, batch.world.book.perp_positions
        paths, tokens = batch.state.paths, batch.world.tokens
        key = {
            (int(w), int(v)): i for i, (w, v) in enumerate(zip(p.margin_wallet, p.margin_venue, strict=True))
        }
        owner = np.array(
            [key[(int(w), int(v))] for w, v in zip(p.wallet, p.venue, strict=True)], dtype=np.int64
        )
        maintenance = np.array(
            [book.perps[v].maintenance_margin[tokens[t]] for v, t in zip(p.venue, p.token, strict=True)]
        )
        scale = np.array(
            [book.perps[v].skew_scale.get(tokens[t], np.inf) for v, t in zip(p.venue, p.token, strict=True)]
        )
        accounts, n = len(p.margin), len(p.size)
        return _Memo(
            token=p.token.astype(np.int64),
            owner=owner,
            venue=p.venue.astype(np.int64),
            account_venue=p.margin_venue.astype(np.int64),
            entry=np.repeat(p.entry[None], paths, axis=0),
            maintenance=maintenance,
            fee=np.array([book.perps[v].liquidation_fee for v in p.venue]),
            skew_scale=scale,
            sums=csr_array((np.ones(n), (np.arange(n), owner)), shape=(n, accounts)),
            venues=csr_array((np.ones(n), (np.arange(n), p.venue)), shape=(n, len(book.perps))),
            size=np.repeat(p.size[None], paths, axis=0),
            margin=np.repeat(p.margin[None], paths, axis=0),
            insurance=np.repeat(np.array([[v.insurance for v in book.perps]]), paths, axis=0),
            outside=np.zeros((paths, len(book.perps))),
            given=np.zeros((paths, accounts)),
            put_in=np.full(paths, float(p.margin.sum() + sum(v.insurance for v in book.perps))),
            uncovered=np.zeros(paths),
            figures={name: np.zeros(paths) for name in FIGURES},
        )

    def act(self, batch: Batch, memo: _Memo) -> None:
        """Pay funding, then close who is below maintenance."""
        mark = batch.state.market[:, memo.token]
        if self.most_funding:
            self._fund(batch, memo, mark)
        equity = memo.margin + (memo.size * (mark - memo.entry)) @ memo.sums
        needed = (np.abs(memo.size) * mark * memo.maintenance) @ memo.sums
        below = (equity < needed) & (needed > 0.0)
        for p, c in zip(*np.nonzero(below), strict=True):
            self._close(batch, memo, int(p), int(c), mark[p])

    def _fund(self, batch: Batch, memo: _Memo, mark: Float64) -> None:
        """Charge the larger side; what accounts pay, the outside counterparty gets."""
        group = memo.venue * len(batch.world.tokens) + memo.token
        of = csr_array((np.ones(len(group)), (np.arange(len(group)), group)))
        skew = np.asarray(memo.size @ of)[:, group]
        rate = self.most_funding * np.clip(skew / memo.skew_scale, -1.0, 1.0) * batch.dt_s / DAY_S
        paid = memo.size * mark * rate
        memo.margin -= paid @ memo.sums
        memo.outside += paid @ memo.venues

    def _close(self, batch: Batch, memo: _Memo, p: int, c: int, mark: Float64) -> None:
        """Close all positions of account `c` on path `p`, and let the waterfall pay what is missing."""
        own = np.flatnonzero((memo.owner == c) & (memo.size[p] != 0.0))
        v = int(memo.account_venue[c])
        size, price = memo.size[p, own], mark[own]
        profit = float((size * (price - memo.entry[p, own])).sum())
        notional = float((np.abs(size) * price).sum())
        np.add.at(batch.state.order_flow[p], memo.token[own], -size * price)
        memo.size[p, own] = 0.0
        memo.outside[p, v] -= profit
        left = float(memo.margin[p, c]) + profit
        fee = min(max(left, 0.0), float((np.abs(size) * price * memo.fee[own]).sum()))
        memo.insurance[p, v] += fee
        figures = memo.figures
        figures["liquidations"][p] += 1.0
        figures["closed_usd"][p] += notional
        figures["fees_usd"][p] += fee
        memo.margin[p, c] = max(left - fee, 0.0)
        if left >= 0.0:
            return
        loss = insurance_waterfall(-left, float(memo.insurance[p, v]))
        figures["beyond_margin_usd"][p] += loss.deficit
        figures["insurance_paid_usd"][p] += loss.insurance
        memo.insurance[p, v] = loss.fund_after
        taken = self._deleverage(batch, memo, p, v, mark, loss.left)
        figures["adl_usd"][p] += taken
        # What nobody pays, the outside counterparty does not get.
        memo.outside[p, v] -= loss.left - taken
        memo.uncovered[p] += loss.left - taken

    def _deleverage(self, batch: Batch, memo: _Memo, p: int, v: int, mark: Float64, deficit: float) -> float:
        """Take profits of the venue's winners for a deficit; return how much of it they bore."""
        if self.adl == "none" or deficit <= 0.0:
            return 0.0
        open_profit = memo.size[p] * (mark - memo.entry[p])
        # What was taken of a profit is no profit any more, and a loss of margin is made up for first.
        unrealised = open_profit @ memo.sums
        profit = np.maximum(np.minimum(unrealised - memo.given[p], unrealised + memo.margin[p]), 0.0)
        profit[memo.account_venue != v] = 0.0
        if self.adl == "queue":
            notional = (np.abs(memo.size[p]) * mark) @ memo.sums
            scored = adl_score(profit, np.maximum(memo.margin[p], 1e-9), notional)
            haircut = adl_queue(deficit, profit, scored).haircut
        else:
            haircut = adl_pro_rata(deficit, profit).haircut
        memo.margin[p] -= haircut
        memo.given[p] += haircut
        return float(haircut.sum())

    def columns(self, batch: Batch, memo: _Memo) -> dict[str, Float64]:
        """Return what was closed, what was missing and who paid, by path.

        ``perps.beyond_margin_usd`` is what closed accounts lost beyond their margin, and paid in turn by
        ``perps.insurance_paid_usd`` of the funds and ``perps.adl_usd`` of winners; ``perps_deficit_usd`` is
        the rest, which nobody pays: what the outside counterparty does not get.
        ``perps.imbalance``: what margins, fund and the outside side are off by, as a part of what was put in;
        a fault of ours when it is not tiny.
        """
        total = memo.margin.sum(axis=1) + memo.insurance.sum(axis=1) + memo.outside.sum(axis=1)
        out = {f"perps.{name}": values for name, values in memo.figures.items()}
        out["perps_deficit_usd"] = memo.uncovered
        out["perps.imbalance"] = np.abs(total - memo.put_in) / np.maximum(memo.put_in, 1.0)
        return out

    def column_names(self, world: World) -> tuple[str, ...]:
        """See `Channel.column_names`."""
        return (*(f"perps.{name}" for name in FIGURES), "perps_deficit_usd", "perps.imbalance")
