"""AnswerAdapter: any word of any answer, at eight decimals, and never a number where there is none."""

from __future__ import annotations

import pytest

from contracts_abi import feeds
from contracts_abi.errors import CallReverted
from simulation.chain.artifacts import own
from simulation.chain.evm import Evm, labelled_address, read, transact
from tests.chain.conftest import Chain

OWNER = labelled_address("feed owner")


def aggregator(evm: Evm, decimals: int, answer: int) -> str:
    code = own("PriceAggregator").creation_code(decimals, "A / B", 3600, 50, -(2**191), 2**191 - 1)
    address = evm.create(OWNER, code)
    transact(evm, OWNER, address, feeds.TRANSMIT, answer)
    return address


def adapted(evm: Evm, target: str, selector: bytes, word: int, decimals: int) -> int:
    address = evm.create(OWNER, own("AnswerAdapter").creation_code(target, selector, word, decimals))
    return int(read(evm, feeds.LATEST_ANSWER.call(address)))


@pytest.mark.parametrize(
    ("decimals", "answer", "at_eight"),
    [
        (8, 123, 123),
        (18, 1_234_567_890_123_456_789, 123_456_789),
        (18, 9_999_999_999, 0),
        (6, 1_000_001, 100_000_100),
        (0, 7, 700_000_000),
        (36, 26 * 10**38, 260_000_000_000),
        (18, -(10**10) - 1, -1),
        (18, -(10**10) + 1, 0),
    ],
)
def test_answers_are_scaled_and_cut_towards_zero(
    chain: Chain, decimals: int, answer: int, at_eight: int
) -> None:
    target = aggregator(chain.evm, decimals, answer)
    assert adapted(chain.evm, target, feeds.LATEST_ANSWER.selector, 0, decimals) == at_eight


def test_any_word_of_an_answer_can_be_the_price(chain: Chain) -> None:
    target = aggregator(chain.evm, 8, 4242)
    assert adapted(chain.evm, target, feeds.LATEST_ROUND_DATA.selector, 1, 8) == 4242
    assert adapted(chain.evm, target, feeds.LATEST_ROUND_DATA.selector, 0, 8) == 1


def test_no_price_is_a_revert(chain: Chain) -> None:
    target = aggregator(chain.evm, 8, 4242)
    with pytest.raises(CallReverted, match="short answer"):
        adapted(chain.evm, target, feeds.LATEST_ANSWER.selector, 1, 8)
    with pytest.raises(CallReverted, match="short answer"):
        adapted(chain.evm, OWNER, feeds.LATEST_ANSWER.selector, 0, 8)
    transact(chain.evm, OWNER, target, feeds.SET_READ_MODE, feeds.READS_REVERT)
    with pytest.raises(CallReverted, match="switched off"):
        adapted(chain.evm, target, feeds.LATEST_ANSWER.selector, 0, 8)
