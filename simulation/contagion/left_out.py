"""What a book has and a run leaves alone, as no channel for it is switched on."""

from __future__ import annotations

from collections.abc import Sequence

from simulation.contagion.channels.option_accounts import OptionAccountsChannel
from simulation.contagion.engine import Run

_NAMED = 5
"""How many names a sentence has."""


def left_out(run: Run) -> tuple[str, ...]:
    """Return what of the book stands still or is not there in a run, each in a few words.

    Perpetuals without ``perps``, options without ``options`` and ``option_accounts``, backed tokens without
    ``pegs``, exits without ``impact``, and accounts that the book could not read.
    """
    book, on = run.world.book, {channel.kind for channel in run.on()}
    said = []
    if len(book.perp_positions) and "perps" not in on:
        venues = _names([venue.name for venue in book.perps])
        said.append(f"{_count(len(book.perp_positions), 'perpetual')} in {venues} (no [channels.perps])")
    if len(book.options):
        said += _options(run, on)
    backed = [token.symbol for token in book.tokens if token.backing is not None]
    if backed and "pegs" not in on:
        said.append(f"what may befall the pegs of {_names(backed)} (no [channels.pegs])")
    if book.exits and "impact" not in on:
        sold = _names(list(dict.fromkeys(exit_.token for exit_ in book.exits)))
        said.append(f"exits of {sold} (no [channels.impact]: sales move no price)")
    if book.unknown:
        said.append(f"{_count(len(book.unknown), 'account')} that the book could not read")
    return tuple(said)


def _options(run: Run, on: set[str]) -> list[str]:
    """Return which options, or whose margin, is left out."""
    book = run.world.book
    if not on & {"options", "option_accounts"}:
        return [
            f"{_count(len(book.options), 'option')} (neither [channels.options] nor "
            "[channels.option_accounts])"
        ]
    margined: set[str] = set()
    for channel in run.on():
        if isinstance(channel, OptionAccountsChannel):
            margined |= set(channel.cash_usd)
    holders = {book.wallets[w] for w in book.options.wallet}
    others = sorted(holders - margined)
    if not others:
        return []
    return [f"margin of the options of {_names(others)} (not in [channels.option_accounts])"]


def _count(number: int, of: str) -> str:
    return f"{number:,} {of}{'s' * (number != 1)}"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
