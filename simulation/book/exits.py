"""What selling a token costs, as a table: read from a file, quoted in a pool's state, or from a model."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from contracts_abi.errors import DataError, InputError
from oracle.strict import StrictModel
from simulation.amm.uniswap_v3 import Q96, BeyondKnownTicks, PoolState, SwapReverted, swap
from simulation.book.types import ExitLiquidity, Token
from simulation.types import Float64

MAX_POINTS: Final = 10_000
_POSITIVE: Final = Field(strict=True, gt=0, le=1e30, allow_inf_nan=False)
_POOL_SIZES: Final = tuple(float(x) for x in np.geomspace(1e-4, 10.0, 21))
"""Of a pool's virtual reserve of the token sold: from a basis point of price move to nine tenths and more."""
_DEEPEST: Final = 0.95
"""Slippage beyond which nobody asks a pool."""


class ExitModel(StrictModel):
    """A table from a formula.

    ``sqrt`` is ``1 - exp(-coefficient volatility sqrt(size / volume))``, the square-root law of impact
    (Almgren et al., "Direct estimation of equity market impact", 2005, in the form that practice uses).
    ``depth`` is ``(1 - floor) (1 - exp(-size / ((1 - floor) depth)))``, of Cont and Schaanning, "Fire sales,
    indirect contagion and systemic stress testing" (Norges Bank Working Paper 2/2017). Both are recalled, and
    their constants those of the user.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    kind: Literal["sqrt", "depth"]
    """`sqrt` for the square-root law, `depth` for an exponential depth."""
    smallest: Annotated[float, _POSITIVE]
    """Least size in whole tokens."""
    largest: Annotated[float, _POSITIVE]
    """Greatest size in whole tokens."""
    points: Annotated[int, Field(strict=True, ge=2, le=MAX_POINTS)] = 25
    """Sizes, evenly spaced in their logarithm."""
    volume: Annotated[float, _POSITIVE] | None = None
    """Tokens traded a day, of `sqrt`."""
    volatility: Annotated[float, _POSITIVE] | None = None
    """A day's volatility, of `sqrt`."""
    coefficient: Annotated[float, _POSITIVE] = 1.0
    """Of `sqrt`; about 0.5 to 1."""
    depth: Annotated[float, _POSITIVE] | None = None
    """Tokens that would take all of the price if it fell on as it begins, of `depth`."""
    floor: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0
    """Part of the price that is never lost, of `depth`."""

    @model_validator(mode="after")
    def _parameters_fit(self) -> ExitModel:
        wanted = ("volume", "volatility") if self.kind == "sqrt" else ("depth",)
        for key in wanted:
            if getattr(self, key) is None:
                raise InputError(f"a model of kind {self.kind!r} has no {key}", fix=f"give {key}")
        if self.smallest >= self.largest:
            raise InputError(
                f"smallest {self.smallest:g} is not below largest {self.largest:g}", fix="swap the two"
            )
        return self

    def slippage(self, size: Float64) -> Float64:
        """Return the slippage of sales of `size` whole tokens."""
        if self.kind == "sqrt":
            assert self.volume is not None
            assert self.volatility is not None
            scaled = self.coefficient * self.volatility * np.sqrt(size / self.volume)
            return np.asarray(-np.expm1(-scaled), dtype=np.float64)
        assert self.depth is not None
        most = 1 - self.floor
        return np.asarray(-most * np.expm1(-size / (most * self.depth)), dtype=np.float64)

    def words(self) -> str:
        """Return the formula's name and its parameters, for a table's source."""
        if self.kind == "sqrt":
            given = f"coefficient {self.coefficient:g}, volatility {self.volatility:g} a day"
            return f"model: square-root law, {given}, volume {self.volume:g} a day"
        return f"model: exponential depth {self.depth:g}, floor {self.floor:g}"


def checked_exit(exit_: ExitLiquidity, where: str = "exit") -> ExitLiquidity:
    """Return `exit_`, or refuse it.

    Raises
    ------
    InputError
        If sizes do not rise above 0, slippage falls or leaves [0, 1), their numbers differ, or the date is
        none.
    """
    size, slippage = exit_.size, exit_.slippage
    if len(size) != len(slippage) or not len(size):
        raise InputError(
            f"{where}: {len(size)} sizes and {len(slippage)} slippages",
            fix="give one for each, and one at least",
        )
    if len(size) > MAX_POINTS:
        raise InputError(f"{where}: {len(size):,} sizes", fix=f"give {MAX_POINTS:,} at most")
    before = np.concatenate([[0.0], size[:-1]])
    for i in np.flatnonzero(~(np.isfinite(size) & (size > before)))[:1]:
        raise InputError(
            f"{where}: size.{i} {size[i]:g} is not above {before[i]:g}", fix="let sizes rise from above 0"
        )
    for i in np.flatnonzero(~((slippage >= 0) & (slippage < 1)))[:1]:
        raise InputError(f"{where}: slippage.{i} {slippage[i]:g} is not in [0, 1)", fix="write 2 % as 0.02")
    for i in np.flatnonzero(slippage[1:] < slippage[:-1])[:1]:
        raise InputError(
            f"{where}: slippage.{i + 1} {slippage[i + 1]:g} is below {slippage[i]:g} of a smaller sale",
            fix="a larger sale costs no less: correct the table",
        )
    if exit_.token == exit_.quote:
        raise InputError(f"{where}: {exit_.token} is sold for itself", fix="name another quote")
    try:
        date.fromisoformat(exit_.date[:10])
    except ValueError:
        raise InputError(f"{where}: date {exit_.date!r} is none", fix="write 2026-04-01") from None
    return exit_


def table_of_model(
    token: str, quote: str, venue: str, when: str, model: ExitModel, *, source: str = "", where: str = "exit"
) -> ExitLiquidity:
    """Return the table of a formula; its source says which, and with which parameters."""
    size = np.geomspace(model.smallest, model.largest, model.points)
    told = f"{source}; {model.words()}" if source else model.words()
    return checked_exit(ExitLiquidity(token, quote, venue, when, told, size, model.slippage(size)), where)


def table_of_csv(
    token: str, quote: str, venue: str, when: str, content: bytes, *, source: str, where: str = "exit"
) -> ExitLiquidity:
    """Return the table of a CSV with the columns ``size`` (whole tokens) and ``slippage`` (part of one).

    Raises
    ------
    InputError
        Naming row, column and value.
    """
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig")), strict=True))
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: no UTF-8 at byte {error.start}", fix="save it as UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{where}: {error}", fix="mend the CSV") from None
    if not rows or [name.strip().lower() for name in rows[0]] != ["size", "slippage"]:
        raise InputError(f"{where}: no header size,slippage", fix="write it as the first line")
    values = []
    for number, cells in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        try:
            size, slippage = (float(cell) for cell in cells)
        except ValueError:
            raise InputError(
                f"{where}: line {number}: {','.join(cells)[:60]!r} is not size,slippage",
                fix="write two plain decimals",
            ) from None
        values.append((size, slippage))
    table = np.array(values, dtype=np.float64).reshape(-1, 2)
    made = ExitLiquidity(token, quote, venue, when, source, table[:, 0].copy(), table[:, 1].copy())
    return checked_exit(made, where)


def table_of_pool(
    state: PoolState,
    sold: Token,
    quote: Token,
    *,
    sold_is_token0: bool,
    when: str,
    source: str,
    venue: str = "",
    sizes: Sequence[float] | None = None,
) -> ExitLiquidity:
    """Return what sales in a Uniswap V3 pool cost, quoted exactly, its fee included.

    Parameters
    ----------
    state
        The pool at one block.
    sold, quote
        Its tokens: what is sold, and for what.
    sold_is_token0
        Which of the pool's tokens is sold.
    when, source
        Date, and where the state comes from: ``chain 1 block 20000000 pool 0x…``.
    venue
        For reports; the pool by its fee without it.
    sizes
        Whole tokens, rising; by default from a small part of the pool's virtual reserve to ten times it.
        Those that leave the ticks that were read, or that the pool cannot take, are left out.

    Raises
    ------
    DataError
        If none of them can be quoted.
    """
    root = state.sqrt_price_x96
    if sizes is None:
        reserve_raw = state.liquidity * Q96 // root if sold_is_token0 else state.liquidity * root // Q96
        sizes = [reserve_raw / 10**sold.decimals * part for part in _POOL_SIZES]
    found: list[tuple[float, float]] = []
    for size in sizes:
        amount_raw = math.floor(size * 10**sold.decimals)
        if amount_raw <= 0:
            continue
        try:
            done = swap(state, sold_is_token0, amount_raw)
        except (BeyondKnownTicks, SwapReverted):
            break
        if not done.filled:
            break
        # What the sale would bring at the price before it, without a fee: amount * price.
        numerator, denominator = root * root, Q96 * Q96
        if not sold_is_token0:
            numerator, denominator = denominator, numerator
        kept = done.amount_out * denominator / (amount_raw * numerator)
        if 1 - kept > _DEEPEST:
            break
        found.append((amount_raw / 10**sold.decimals, max(1 - kept, 0.0)))
    if not found:
        raise DataError(f"pool {state.address}: no sale of {sold.symbol} can be quoted in what was read")
    table = np.array(found, dtype=np.float64)
    # The pool rounds each sale down by a unit, which may make a tiny one look dearer than a larger one.
    return checked_exit(
        ExitLiquidity(
            token=sold.symbol,
            quote=quote.symbol,
            venue=venue or f"uniswap-v3 {state.fee_pips / 1e4:g}%",
            date=when,
            source=source,
            size=table[:, 0].copy(),
            slippage=np.maximum.accumulate(table[:, 1]),
        ),
        f"pool {state.address}",
    )
