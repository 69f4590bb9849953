"""EIP-1559 fees: the first offer, and what it takes to replace one. Pure integers, no node, no clock.

A node's pool replaces a transaction only by one with the same nonce whose maximum fee and tip are both
higher by its threshold: 10 % in geth, reth and erigon, 12.5 % where an older rule lives on. An eighth more,
rounded up, satisfies all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from keeper.config import FeesSection, wei_of_eth, wei_of_gwei
from keeper.rpc import FeeHistory

TRANSFER_GAS = 21_000
"""Gas of a plain transfer, which is what a cancellation is."""


@dataclass(frozen=True, slots=True)
class Fees:
    """Maximum fee and tip per gas, in wei."""

    max_fee_wei: int
    priority_fee_wei: int


@dataclass(frozen=True, slots=True)
class FeePolicy:
    """What the operator is willing to pay.

    Attributes
    ----------
    min_tip_wei, max_tip_wei
        Bounds of the first tip. A replacement has to raise it by an eighth, whatever the bound.
    headroom
        First maximum fee as a multiple of the next base fee.
    replace_after_blocks
        Blocks without inclusion before a replacement.
    max_action_cost_wei, max_cancel_cost_wei
        Most paid for gas per liquidation and per cancellation.
    tip_percentile
        Percentile of each block's tips to look at.
    """

    min_tip_wei: int
    max_tip_wei: int
    headroom: Fraction
    replace_after_blocks: int
    max_action_cost_wei: int
    max_cancel_cost_wei: int
    tip_percentile: float = 60.0

    @classmethod
    def from_config(cls, section: FeesSection) -> FeePolicy:
        """Return the policy that a configuration describes."""
        return cls(
            min_tip_wei=wei_of_gwei(section.priority_fee_gwei),
            max_tip_wei=wei_of_gwei(section.max_priority_fee_gwei),
            headroom=Fraction(section.base_fee_headroom),
            replace_after_blocks=section.replace_after_blocks,
            max_action_cost_wei=wei_of_eth(section.max_gas_cost_eth),
            max_cancel_cost_wei=wei_of_eth(section.max_cancel_cost_eth),
            tip_percentile=section.tip_percentile,
        )


def eighth_more(wei: int) -> int:
    """Return the least amount that is an eighth above `wei`, and above it in any case."""
    return max(-(-wei * 9 // 8), wei + 1)


def market_fees(history: FeeHistory, policy: FeePolicy) -> Fees:
    """Return what the market asks for now, before any budget.

    The tip is the median over recent blocks of the percentile that the history was asked for, within the
    policy's bounds; blocks without transactions say nothing about tips and do not count.
    """
    used = history.gas_used_ratio or (1.0,) * len(history.reward_wei)
    tips = sorted(tip for tip, ratio in zip(history.reward_wei, used, strict=False) if ratio > 0)
    seen = tips[len(tips) // 2] if tips else 0
    tip = min(max(seen, policy.min_tip_wei), max(policy.max_tip_wei, policy.min_tip_wei))
    base = history.next_base_fee_wei
    # A full block raises the base fee by 1 wei at least: also from 0, where chains without one stand.
    ceiling = max(-(-base * policy.headroom.numerator // policy.headroom.denominator), base + 1)
    return Fees(ceiling + tip, tip)


def first_fees(history: FeeHistory, policy: FeePolicy, *, gas_limit: int, budget_wei: int) -> Fees | None:
    """Return the first offer within a budget; None when the budget does not outlast one full block.

    A full block raises the base fee by an eighth. An offer that the very next block may price out would wait
    at the head of the nonce queue and hold up everything behind it.

    Parameters
    ----------
    budget_wei
        The most that `gas_limit` gas may cost, whatever the base fee does until inclusion.
    """
    market = market_fees(history, policy)
    max_fee = min(market.max_fee_wei, budget_wei // gas_limit)
    if max_fee < eighth_more(history.next_base_fee_wei) + policy.min_tip_wei:
        return None
    return Fees(max_fee, min(market.priority_fee_wei, max_fee))


def replacement_fees(
    earlier: Iterable[Fees], history: FeeHistory, policy: FeePolicy, *, gas_limit: int, budget_wei: int
) -> Fees | None:
    """Return fees that replace any of `earlier`, within a budget; None when that cannot be paid.

    Parameters
    ----------
    earlier
        All offers made at this nonce: which of them a pool holds is not known.
    """
    offers = list(earlier)
    market = market_fees(history, policy)
    least_max = eighth_more(max(f.max_fee_wei for f in offers))
    tip = max(market.priority_fee_wei, eighth_more(max(f.priority_fee_wei for f in offers)))
    max_fee = min(max(market.max_fee_wei, least_max, tip), budget_wei // gas_limit)
    if max_fee < max(least_max, tip) or max_fee < history.next_base_fee_wei:
        return None
    return Fees(max_fee, tip)
