"""Breakers: how much the keeper may have in the air, lose, and try again. Pure, over what the journal says.

All periods are in block time and all counts come from the journal, so a restart forgets nothing and a step of
the clock changes nothing. A breaker only stops what is new; what is in flight is still followed, replaced
and cancelled.

What goes wrong in one market stops that market: races that are lost there say nothing of the others. What
all markets share is counted over all of them. That is the balance, and so the gas that may be lost in a day,
which is what the operator can afford and no property of a market (a share for each would either be lost
several times over, or leave most of it unused); the nonces, and so what may be in flight; and the keeper
itself, which a ceiling on all reverts stops when it is at fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from keeper.config import LimitsSection, wei_of_eth
from keeper.journal import Journal, Loss
from keeper.rpc import Tick
from keeper.types import AttemptKind

HOUR_S: Final = 3_600
DAY_S: Final = 24 * HOUR_S
LONGEST_BACKOFF_DOUBLINGS: Final = 16


class Limit(StrEnum):
    """The breakers, by their configuration keys."""

    HEAD_AGE = "max_head_age_s"
    BALANCE = "min_balance_eth"
    GAS_LOSS = "max_gas_loss_per_day_eth"
    MARKET_REVERTS = "max_reverts_per_hour"
    REVERTS = "max_reverts_per_hour_in_all"
    IN_FLIGHT = "max_in_flight"
    PER_BLOCK = "max_per_block"
    DENIED = "deny_accounts"
    NOT_ALLOWED = "allow_accounts"
    ACCOUNT_REVERTS = "max_reverts_per_account"
    BACKOFF = "revert_backoff_blocks"


@dataclass(frozen=True, slots=True)
class Breach:
    """A breaker that tripped, with the figures."""

    limit: Limit
    detail: str


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of the limits is used up.

    Attributes
    ----------
    timestamp, block
        The head that it was measured at.
    in_flight
        Intents that are not mined.
    gas_loss_day_wei
        Gas paid in the last 24 hours for reverts, cancellations, and successes beyond what they earned.
    reverts_hour
        Market name to its reverts in the last hour.
    reverts
        Market name and account to the blocks of its reverts there in the last 24 hours, ascending.
    """

    timestamp: int
    block: int
    in_flight: int
    gas_loss_day_wei: int
    reverts_hour: Mapping[str, int]
    reverts: Mapping[tuple[str, str], tuple[int, ...]]


def measure(losses: Sequence[Loss], *, in_flight: int, block: int, timestamp: int) -> Usage:
    """Return the usage at a head.

    Parameters
    ----------
    losses
        In chain order, at least those of the last 24 hours.
    """
    day = [loss for loss in losses if loss.timestamp > timestamp - DAY_S]
    reverts = [loss for loss in day if loss.reverted and loss.kind is AttemptKind.ACTION]
    by_account: dict[tuple[str, str], list[int]] = {}
    for loss in reverts:
        by_account.setdefault((loss.protocol, loss.account), []).append(loss.block)
    return Usage(
        timestamp=timestamp,
        block=block,
        in_flight=in_flight,
        gas_loss_day_wei=sum(loss.gas_cost_wei for loss in day),
        reverts_hour=Counter(loss.protocol for loss in reverts if loss.timestamp > timestamp - HOUR_S),
        reverts={account: tuple(sorted(blocks)) for account, blocks in by_account.items()},
    )


def read_usage(journal: Journal, tick: Tick) -> Usage:
    """Return the usage at a tick, from the journal."""
    head = tick.head
    losses = journal.losses(since_timestamp=head.timestamp - DAY_S)
    return measure(losses, in_flight=len(journal.in_flight()), block=head.number, timestamp=head.timestamp)


def global_breach(limits: LimitsSection, usage: Usage, tick: Tick, *, now: int) -> Breach | None:
    """Return the breaker that stops every new liquidation, if one does.

    Parameters
    ----------
    now
        Unix seconds of the wall clock, which the age of the head is measured against.
    """
    age = now - tick.head.timestamp
    if age > limits.max_head_age_s:
        return Breach(Limit.HEAD_AGE, f"block {tick.head.number} is {age} s old")
    if -age > limits.max_head_age_s:
        # One of the two clocks is wrong, and then an old block may look like a new one.
        return Breach(Limit.HEAD_AGE, f"block {tick.head.number} is {-age} s ahead of this machine's clock")
    balance = None if tick.sender is None else tick.sender.balance_wei
    if balance is not None and balance < wei_of_eth(limits.min_balance_eth):
        return Breach(Limit.BALANCE, f"the sender has {balance} wei left")
    if usage.gas_loss_day_wei >= wei_of_eth(limits.max_gas_loss_per_day_eth):
        return Breach(Limit.GAS_LOSS, f"{usage.gas_loss_day_wei} wei of gas earned nothing in 24 hours")
    reverts = sum(usage.reverts_hour.values())
    if reverts >= limits.max_reverts_per_hour_in_all:
        return Breach(Limit.REVERTS, f"{reverts} reverts within an hour in all markets")
    if usage.in_flight >= limits.max_in_flight:
        return Breach(Limit.IN_FLIGHT, f"{usage.in_flight} intents are under way")
    return None


def market_breach(limits: LimitsSection, usage: Usage, protocol: str) -> Breach | None:
    """Return the breaker that stops every new liquidation in one market, if one does."""
    reverts = usage.reverts_hour.get(protocol, 0)
    if reverts >= limits.max_reverts_per_hour:
        return Breach(Limit.MARKET_REVERTS, f"{reverts} reverts within an hour in {protocol}")
    return None


def account_breach(limits: LimitsSection, usage: Usage, account: str, protocol: str) -> Breach | None:
    """Return the breaker that keeps the keeper off one account in one market, if one does.

    The lists are of accounts wherever they borrow; reverts count where they happened.
    """
    if account in limits.deny_accounts:
        return Breach(Limit.DENIED, "on the list of accounts to leave alone")
    if limits.allow_accounts and account not in limits.allow_accounts:
        return Breach(Limit.NOT_ALLOWED, "not on the list of accounts to act on")
    blocks = usage.reverts.get((protocol, account), ())
    if not blocks:
        return None
    if len(blocks) >= limits.max_reverts_per_account:
        return Breach(Limit.ACCOUNT_REVERTS, f"{len(blocks)} reverts in 24 hours")
    doublings = min(len(blocks) - 1, LONGEST_BACKOFF_DOUBLINGS)
    again = blocks[-1] + limits.revert_backoff_blocks * 2**doublings
    if usage.block < again:
        return Breach(Limit.BACKOFF, f"reverted in block {blocks[-1]}, next try from block {again}")
    return None


def room(limits: LimitsSection, usage: Usage) -> int:
    """Return how many new intents the next block may have."""
    return max(0, min(limits.max_per_block, limits.max_in_flight - usage.in_flight))
