"""What is done about an intent that is not mined, case by case."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from keeper.fees import FeePolicy, Fees
from keeper.journal import SendRecord
from keeper.rpc import FeeHistory, Head, SendOutcome, Tick
from keeper.submit import Pending, Replace, SendAgain, Step, Stuck, Wait, next_step
from keeper.types import Attempt, AttemptKind, Intent, IntentState

GWEI = 10**9
POLICY = FeePolicy(GWEI, 50 * GWEI, Fraction(2), 2, 10**18, 10**16)
INTENT = Intent(
    *("0x01", 1, "0xs", 4, "0xa", "p", "0xd", "0xc", 1, 1, 1, 100, IntentState.SENT, 108, "0xt"),
    data=b"",
    gas_limit=100_000,
    budget_wei=100_000 * 100 * GWEI,
)
GONE = replace(INTENT, cancel_requested=True)
ATTEMPT = Attempt("0x01", 4, AttemptKind.ACTION, "0xh", b"", 3 * GWEI, GWEI, 100)
CANCEL = replace(ATTEMPT, kind=AttemptKind.CANCEL, max_fee_wei=4 * GWEI, priority_fee_wei=2 * GWEI)


def tick(block: int, base_fee_wei: int = GWEI) -> Tick:
    return Tick(Head(block, "", "", 0, 0, 0, 0), FeeHistory(0, (base_fee_wei,), (), ()), None)


def pending(
    outcome: SendOutcome | None = SendOutcome.ACCEPTED,
    *,
    sent: int = 100,
    intent: Intent = INTENT,
    attempts: tuple[Attempt, ...] = (ATTEMPT,),
) -> Pending:
    record = None if outcome is None else SendRecord("0xh", sent, 0, outcome, "")
    return Pending(intent, attempts, record)


EIGHTH = Fees(3 * GWEI * 9 // 8, GWEI * 9 // 8)


@pytest.mark.parametrize(
    ("what", "at", "step"),
    [
        (pending(), tick(100), Wait()),
        (pending(), tick(101), Wait()),
        (pending(), tick(102), Replace(AttemptKind.ACTION, EIGHTH)),
        (pending(), tick(101, 4 * GWEI), Replace(AttemptKind.ACTION, Fees(9 * GWEI, GWEI * 9 // 8))),
        (pending(SendOutcome.UNDERPRICED), tick(100), Replace(AttemptKind.ACTION, EIGHTH)),
        (pending(None), tick(100), SendAgain()),
        (pending(SendOutcome.AMBIGUOUS), tick(101), SendAgain()),
        (pending(SendOutcome.INSUFFICIENT_FUNDS), tick(101), SendAgain()),
        (pending(SendOutcome.REFUSED), tick(101), Replace(AttemptKind.CANCEL, EIGHTH)),
        (pending(), tick(107), Replace(AttemptKind.ACTION, EIGHTH)),
        (pending(), tick(108), Replace(AttemptKind.CANCEL, EIGHTH)),
        (
            pending(intent=replace(INTENT, cancel_requested=True)),
            tick(100),
            Replace(AttemptKind.CANCEL, EIGHTH),
        ),
        (pending(), tick(102, 500 * GWEI), SendAgain()),
        (pending(sent=101), tick(102, 500 * GWEI), Wait()),
        (pending(), tick(108, 500 * GWEI), Stuck()),
    ],
)
def test_first_in_line(what: Pending, at: Tick, step: Step) -> None:
    assert next_step(what, at, POLICY) == step


@pytest.mark.parametrize("at", [tick(102), tick(101, 4 * GWEI)])
def test_behind_one_that_cannot_be_mined_no_price_is_raised(at: Tick) -> None:
    assert not isinstance(next_step(pending(), at, POLICY, first_in_line=False), Replace)


def test_waiting_behind_a_missing_nonce_says_nothing_about_the_price() -> None:
    assert next_step(pending(), tick(102), POLICY, reachable=False) == SendAgain()
    spiked = next_step(pending(), tick(102, 4 * GWEI), POLICY, reachable=False)
    assert isinstance(spiked, Replace)


def test_first_cancellation_does_not_wait_for_its_turn() -> None:
    step = next_step(pending(), tick(108), POLICY, first_in_line=False)
    assert step == Replace(AttemptKind.CANCEL, EIGHTH)


def test_cancellation_is_not_turned_back_into_the_action() -> None:
    what = pending(intent=GONE, attempts=(ATTEMPT, CANCEL), sent=100)
    step = next_step(what, tick(102), POLICY)
    assert isinstance(step, Replace)
    assert step.kind is AttemptKind.CANCEL
    assert step.fees.max_fee_wei * 8 >= CANCEL.max_fee_wei * 9


def test_replacement_beats_the_dearest_attempt_not_the_newest() -> None:
    dear = replace(ATTEMPT, max_fee_wei=50 * GWEI, priority_fee_wei=20 * GWEI)
    step = next_step(pending(attempts=(dear, ATTEMPT)), tick(102), POLICY)
    assert isinstance(step, Replace)
    assert step.fees.max_fee_wei * 8 >= dear.max_fee_wei * 9
    assert step.fees.priority_fee_wei * 8 >= dear.priority_fee_wei * 9


def test_after_a_start_everything_is_handed_over_again() -> None:
    assert next_step(pending(), tick(100), POLICY, resume=True) == SendAgain()
