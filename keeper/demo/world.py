"""What happens around the keeper in a demo: feeds are posted, the market moves, blocks are mined.

Nothing here knows the keeper. Every step posts the rounds that the feeds' own rules call for, trades every
pool to the true price, and mines one block at the scenario's time and base fee with whatever the pool of
transactions holds by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import Any, Literal

from contracts_abi import feeds
from contracts_abi import uniswap_v3 as uniswap
from contracts_abi.aave_v3 import APPROVE
from contracts_abi.calls import function
from contracts_abi.errors import ChainError, RpcError
from oracle.scenario import Scenario, base_fee_wei, feed_name, feed_rounds, truth_e8
from simulation.chain.anvil import AnvilEvm
from simulation.chain.evm import Tx, labelled_address, read
from simulation.chain.market import DeployedPool, Deployment
from simulation.chain.rpc import hexed, quantity
from simulation.chain.uniswap_v3 import sqrt_price_x96

MAX_FEE_WEI = 10**13
"""Pays any base fee of the scenario."""
FEED_TIP_WEI = 2 * 10**12
"""Posts of the feeds are mined first in a block,"""
MAKER_TIP_WEI = 10**12
"""then the trades of the market, then whoever offers less."""
TX_GAS = 2_000_000
RICH_WEI = 10**27

_MINT = function("mint(address,uint256)")
_UNLIMITED = 2**256 - 1
_NO_DEADLINE = 2**64


@dataclass(frozen=True, slots=True)
class StepResult:
    """One block of the scenario.

    Attributes
    ----------
    block, timestamp
        Where and when.
    posts
        Feeds posted to.
    trades
        Pools traded to the true price.
    """

    block: int
    timestamp: int
    posts: int
    trades: int


class World:
    """Drives a local chain through a scenario.

    Parameters
    ----------
    evm
        The node; mining must be off.
    deployment
        The market on it.
    scenario
        What happens.
    """

    def __init__(self, evm: AnvilEvm, deployment: Deployment, scenario: Scenario) -> None:
        self._evm = evm
        self._deployment = deployment
        self._scenario = scenario
        self._maker = labelled_address("market maker")
        self._pairs = {s: scenario.assets[s].pair or f"{s}/USD" for s in deployment.assets}
        self._posts = self._schedule()

    def _schedule(self) -> Mapping[int, Sequence[tuple[str, int]]]:
        """Return, by time, the aggregators to post to and their answers."""
        schedule: dict[int, list[tuple[str, int]]] = {}
        for symbol, asset in self._deployment.assets.items():
            roles: dict[Literal["protocol", "reference"], str] = {
                "protocol": asset.feed,
                "reference": asset.reference_feed,
            }
            for role, feed in roles.items():
                name = feed_name(self._scenario, self._pairs[symbol], role)
                aggregator = read(self._evm, feeds.AGGREGATOR.call(feed))
                for published in feed_rounds(self._scenario, name):
                    schedule.setdefault(published.t, []).append((aggregator, published.answer))
        return schedule

    def truth_e8(self, timestamp: int) -> dict[str, int]:
        """Return the true price of every asset, USD at 1e8."""
        return {s: truth_e8(self._scenario, pair, timestamp)[0] for s, pair in self._pairs.items()}

    def prepare(self) -> None:
        """Give the market maker what it trades with, in a block of its own."""
        for address in (self._maker, self._deployment.deployer):
            self._evm.set_balance(address, RICH_WEI)
        txs = []
        for asset in self._deployment.assets.values():
            amount = 10 ** (12 + asset.decimals)
            txs.append(Tx(self._maker, asset.address, _MINT.encode(self._maker, amount)))
            approve = APPROVE.encode(self._deployment.uniswap.router, _UNLIMITED)
            txs.append(Tx(self._maker, asset.address, approve))
        self._send([(tx, MAKER_TIP_WEI) for tx in txs])
        self._evm.sync()
        self._evm.mine(base_fee=0)

    def step(self, timestamp: int) -> StepResult:
        """Post, trade and mine one block at `timestamp`."""
        deployer = self._deployment.deployer
        posts = [
            (Tx(deployer, aggregator, feeds.TRANSMIT.encode(answer)), FEED_TIP_WEI)
            for aggregator, answer in self._posts.get(timestamp, ())
        ]
        trades = [(tx, MAKER_TIP_WEI) for tx in self._trades(self.truth_e8(timestamp))]
        self._send([*posts, *trades])
        return StepResult(self.mine(timestamp), timestamp, len(posts), len(trades))

    def mine(self, timestamp: int) -> int:
        """Mine one block at `timestamp` with what is in the pool; return its number.

        Before the scenario's start and after its end the base fee is that of its first and last step.
        """
        self._evm.sync()
        self._evm.warp(timestamp)
        steps = self._scenario.steps()
        priced_at = min(max(timestamp, steps[0]), steps[-1])
        return self._evm.mine(base_fee=base_fee_wei(self._scenario, priced_at))

    def _trades(self, prices_e8: Mapping[str, int]) -> list[Tx]:
        pools = self._deployment.uniswap.pools
        by_address = {asset.address: asset for asset in self._deployment.assets.values()}
        slots = self._batch(
            [("eth_call", [_call(pool.address, uniswap.SLOT0.encode()), "latest"]) for pool in pools]
        )
        txs = []
        for pool, slot in zip(pools, slots, strict=True):
            token0, token1 = by_address[pool.token0], by_address[pool.token1]
            price = Fraction(
                prices_e8[token0.symbol] * 10**token1.decimals, prices_e8[token1.symbol] * 10**token0.decimals
            )
            now = int(uniswap.SLOT0.decode(bytes.fromhex(slot[2:]))[0])
            target = sqrt_price_x96(price)
            if target != now:
                txs.append(self._trade(pool, zero_for_one=target < now, limit_x96=target))
        return txs

    def _trade(self, pool: DeployedPool, *, zero_for_one: bool, limit_x96: int) -> Tx:
        """Return the swap that moves a pool exactly to a price; the router takes no more than that needs."""
        sold, bought = (pool.token0, pool.token1) if zero_for_one else (pool.token1, pool.token0)
        decimals = next(a.decimals for a in self._deployment.assets.values() if a.address == sold)
        swap = (
            *(sold, bought, pool.fee_pips, self._maker, _NO_DEADLINE),
            *(10 ** (11 + decimals), 0, limit_x96),
        )
        return Tx(self._maker, self._deployment.uniswap.router, uniswap.EXACT_INPUT_SINGLE.encode(swap))

    def _send(self, txs: Sequence[tuple[Tx, int]]) -> None:
        # The node may work through a batch in any order, so the order is written into the nonces.
        senders = sorted({tx.sender for tx, _ in txs})
        counts = self._batch([("eth_getTransactionCount", [sender, "pending"]) for sender in senders])
        nonces = {sender: count(int(n, 16)) for sender, n in zip(senders, counts, strict=True)}
        self._batch(
            [
                (
                    "eth_sendTransaction",
                    [
                        {
                            **_call(str(tx.to), tx.data),
                            "from": tx.sender,
                            "nonce": quantity(next(nonces[tx.sender])),
                            "gas": quantity(TX_GAS),
                            "maxFeePerGas": quantity(MAX_FEE_WEI),
                            "maxPriorityFeePerGas": quantity(tip),
                        }
                    ],
                )
                for tx, tip in txs
            ]
        )

    def _batch(self, requests: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        answers = self._evm.rpc.batch(requests) if requests else []
        for (method, _), answer in zip(requests, answers, strict=True):
            if isinstance(answer, RpcError):
                raise ChainError(f"the local chain refused {method}: {answer}")
        return answers


def _call(to: str, data: bytes) -> dict[str, str]:
    return {"to": to, "data": hexed(data)}
