"""Breakers: what trips them, what does not, and that time is block time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from eth_utils.address import to_checksum_address

from keeper.config import LimitsSection
from keeper.journal import Loss
from keeper.limits import (
    DAY_S,
    HOUR_S,
    Limit,
    account_breach,
    global_breach,
    market_breach,
    measure,
    room,
)
from keeper.rpc import FeeHistory, Head, SenderState, Tick
from keeper.types import AttemptKind

ETHER = 10**18
NOW = 1_600_000_000
ALICE, BOB = to_checksum_address("0x" + "aa" * 20), to_checksum_address("0x" + "b0" * 20)
HEAD = Head(1_000, "0x", "0x", NOW, 1, 1, 1)
TICK = Tick(HEAD, FeeHistory(1, (1,), (), ()), SenderState(0, 0, ETHER))


def limits(**changes: Any) -> LimitsSection:
    return LimitsSection.model_validate(changes)


def loss(
    account: str = ALICE, *, block: int = 1_000, age_s: int = 0, kind: AttemptKind = AttemptKind.ACTION
) -> Loss:
    return Loss(account, "p", kind, block, NOW - age_s, ETHER // 100)


def elsewhere() -> Loss:
    return replace(loss(BOB), protocol="q")


def usage(*losses: Loss, in_flight: int = 0, block: int = 1_000) -> Any:
    return measure(losses, in_flight=in_flight, block=block, timestamp=NOW)


def test_nothing_trips_without_a_reason() -> None:
    assert global_breach(limits(), usage(), TICK, now=NOW) is None
    assert account_breach(limits(), usage(), ALICE, "p") is None
    assert room(limits(max_per_block=5), usage()) == 5


@pytest.mark.parametrize(
    ("changes", "tick", "use", "now", "limit"),
    [
        ({"max_head_age_s": 30}, TICK, usage(), NOW + 31, Limit.HEAD_AGE),
        ({"max_head_age_s": 30}, TICK, usage(), NOW - 31, Limit.HEAD_AGE),
        (*({"min_balance_eth": 2}, TICK, usage(), NOW, Limit.BALANCE),),
        ({"max_gas_loss_per_day_eth": "0.02"}, TICK, usage(loss(), loss(BOB)), NOW, Limit.GAS_LOSS),
        ({"max_reverts_per_hour_in_all": 2}, TICK, usage(loss(), elsewhere()), NOW, Limit.REVERTS),
        ({"max_in_flight": 3}, TICK, usage(in_flight=3), NOW, Limit.IN_FLIGHT),
    ],
)
def test_global_breakers(changes: Any, tick: Tick, use: Any, now: int, limit: Limit) -> None:
    breach = global_breach(limits(**changes), use, tick, now=now)
    assert breach is not None
    assert breach.limit is limit
    eased = dict.fromkeys(changes, 1000) | ({"min_balance_eth": 0} if limit is Limit.BALANCE else {})
    assert global_breach(limits(**eased), use, tick, now=now) is None


def test_without_a_sender_there_is_no_balance_to_judge() -> None:
    assert global_breach(limits(), usage(), replace(TICK, sender=None), now=NOW) is None


def test_losses_age_out_by_block_time() -> None:
    old = usage(loss(age_s=DAY_S), loss(age_s=HOUR_S), loss(age_s=HOUR_S - 1))
    assert old.gas_loss_day_wei == 2 * ETHER // 100
    assert old.reverts_hour == {"p": 1}
    assert len(old.reverts["p", ALICE]) == 2


def test_cancellations_cost_but_are_no_reverts() -> None:
    use = usage(loss(kind=AttemptKind.CANCEL))
    assert (use.gas_loss_day_wei, use.reverts_hour, dict(use.reverts)) == (ETHER // 100, {}, {})


def test_a_success_that_cost_more_than_it_earned_is_a_loss_and_no_revert() -> None:
    use = usage(replace(loss(), reverted=False))
    assert (use.gas_loss_day_wei, use.reverts_hour, dict(use.reverts)) == (ETHER // 100, {}, {})
    breach = global_breach(limits(max_gas_loss_per_day_eth="0.01"), use, TICK, now=NOW)
    assert breach is not None
    assert breach.limit is Limit.GAS_LOSS


def test_reverts_in_one_market_keep_nobody_off_another() -> None:
    use = usage(*[loss(block=999)] * 6)
    assert account_breach(limits(), use, ALICE, "p") is not None
    assert account_breach(limits(), use, ALICE, "q") is None
    assert account_breach(limits(deny_accounts=[ALICE]), use, ALICE, "q") is not None


def test_races_lost_in_one_market_stop_that_market_and_no_other() -> None:
    some = limits(max_reverts_per_hour=3, max_reverts_per_hour_in_all=4)
    lost = [loss(to_checksum_address(f"0x{i:040x}")) for i in range(1, 4)]
    breach = market_breach(some, usage(*lost), "p")
    assert breach is not None
    assert breach.limit is Limit.MARKET_REVERTS
    assert market_breach(some, usage(*lost), "q") is None
    assert market_breach(some, usage(*lost[:2]), "p") is None
    assert global_breach(some, usage(*lost), TICK, now=NOW) is None
    # Where it goes wrong in several markets it may be the keeper.
    everywhere = global_breach(some, usage(*lost, elsewhere()), TICK, now=NOW)
    assert everywhere is not None
    assert everywhere.limit is Limit.REVERTS


def test_account_lists() -> None:
    assert account_breach(limits(deny_accounts=[ALICE]), usage(), ALICE, "p") is not None
    assert account_breach(limits(deny_accounts=[ALICE]), usage(), BOB, "p") is None
    assert account_breach(limits(allow_accounts=[ALICE]), usage(), ALICE, "p") is None
    breach = account_breach(limits(allow_accounts=[ALICE]), usage(), BOB, "p")
    assert breach is not None
    assert breach.limit is Limit.NOT_ALLOWED


@pytest.mark.parametrize(("reverts", "waits"), [(1, 1), (2, 2), (3, 4), (5, 16)])
def test_loser_backs_off_by_blocks_that_double(reverts: int, waits: int) -> None:
    some = limits(revert_backoff_blocks=1, max_reverts_per_account=10)
    losses = [loss(block=1_000 - i) for i in range(reverts)]
    before = account_breach(some, usage(*losses, block=1_000 + waits - 1), ALICE, "p")
    assert before is not None
    assert before.limit is Limit.BACKOFF
    assert account_breach(some, usage(*losses, block=1_000 + waits), ALICE, "p") is None


def test_account_that_keeps_reverting_is_left_alone_and_the_others_are_not() -> None:
    losses = [loss(block=10 + i) for i in range(6)]
    breach = account_breach(limits(), usage(*losses), ALICE, "p")
    assert breach is not None
    assert breach.limit is Limit.ACCOUNT_REVERTS
    assert account_breach(limits(), usage(*losses), BOB, "p") is None


def test_room_is_what_both_limits_leave() -> None:
    assert room(limits(max_per_block=5, max_in_flight=7), usage(in_flight=4)) == 3
    assert room(limits(max_per_block=5, max_in_flight=7), usage(in_flight=9)) == 0


def test_every_breaker_is_a_configuration_key() -> None:
    assert {limit.value for limit in Limit} <= LimitsSection.model_fields.keys()
