"""Deploys price feeds and posts to them."""

from __future__ import annotations

from contracts_abi import feeds as abi
from simulation.chain.artifacts import own
from simulation.chain.evm import Evm, TxResult, read, transact
from simulation.chain.market import FeedSpec

DECIMALS = 8


def deploy_feed(evm: Evm, deployer: str, description: str, spec: FeedSpec, answer_e8: int) -> str:
    """Deploy a feed with one round in it, posted at the EVM's time; returns the proxy's address.

    `deployer` owns the proxy and its first aggregator, and is the one who may post to it.
    """
    aggregator = evm.create(
        deployer,
        own("PriceAggregator").creation_code(
            DECIMALS,
            description,
            spec.heartbeat_s,
            spec.deviation_bps,
            spec.min_answer_e8,
            spec.max_answer_e8,
        ),
    )
    transact(evm, deployer, aggregator, abi.TRANSMIT, answer_e8)
    return evm.create(deployer, own("PriceFeed").creation_code(aggregator))


def post(evm: Evm, transmitter: str, feed: str, answer_e8: int) -> TxResult:
    """Post an answer to the aggregator behind `feed`, in a block of its own."""
    return transact(evm, transmitter, read(evm, abi.AGGREGATOR.call(feed)), abi.TRANSMIT, answer_e8)
