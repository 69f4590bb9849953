"""What the chain itself says, block by block, read without any of the keeper's code for positions and plans.

The verifier rests on these facts. They come from the contracts' own views (`getUserAccountData`,
`getAssetsPrices`, `latestRoundData`, `slot0`, balances), at each block's number, and are computed on in exact
fractions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from contracts_abi import aave_v3 as aave
from contracts_abi import feeds
from contracts_abi import uniswap_v3 as uniswap
from contracts_abi.calls import Call
from contracts_abi.errors import ChainError, RpcError
from contracts_abi.liquidator import LIQUIDATED, Liquidated, decode_liquidated
from contracts_abi.multicall import aggregate
from simulation.chain.market import Deployment
from simulation.chain.rpc import JsonRpc, hexed, quantity, unhexed
from simulation.fixed_point import BPS, WAD

WATCH_BELOW_WAD = 2 * WAD
"""Accounts above this health factor are not valued at reference prices: no single step halves a price."""

CHUNK = 500
"""Reads per bundle; our multicall takes 512."""


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """One account at one block, as the pool's own view and the token balances say.

    Attributes
    ----------
    collateral_base, debt_base
        Values at the protocol's prices.
    health_factor_wad
        The contract's health factor.
    reference_hf
        Health factor at reference prices; None when not watched.
    reference_equity_base
        Collateral less debt at reference prices, in base currency; None when not watched.
    collateral_raw, debt_raw
        Balances by symbol, of watched accounts.
    """

    collateral_base: int
    debt_base: int
    health_factor_wad: int
    reference_hf: Fraction | None = None
    reference_equity_base: int | None = None
    collateral_raw: Mapping[str, int] = field(default_factory=dict)
    debt_raw: Mapping[str, int] = field(default_factory=dict)

    @property
    def liquidatable(self) -> bool:
        """Whether the protocol allows a liquidation."""
        return self.debt_base > 0 and self.health_factor_wad < WAD


@dataclass(frozen=True, slots=True)
class MinedLiquidation:
    """A `Liquidated` event and the transaction it is in."""

    event: Liquidated
    tx_hash: str
    gas_used: int
    gas_price_wei: int


@dataclass(frozen=True, slots=True)
class BlockFacts:
    """One block; prices are USD at 1e8 by symbol."""

    number: int
    timestamp: int
    base_fee_wei: int
    protocol_e8: Mapping[str, int]
    reference_e8: Mapping[str, int]
    executable_e8: Mapping[str, int]
    accounts: Mapping[str, AccountFacts]
    liquidations: tuple[MinedLiquidation, ...]


class Facts:
    """Reads facts of a local market.

    Parameters
    ----------
    rpc
        The node, which must keep the states of past blocks.
    deployment
        The market.
    liquidator
        The contract whose events count.
    """

    def __init__(self, rpc: JsonRpc, deployment: Deployment, liquidator: str) -> None:
        self._rpc = rpc
        self._deployment = deployment
        self._liquidator = liquidator
        self._symbols = list(deployment.assets)
        self._thresholds, self._emodes = self._risk_parameters()

    def _risk_parameters(self) -> tuple[dict[str, tuple[int, int]], dict[int, int]]:
        """Return liquidation threshold and eMode category by symbol, and threshold by eMode category."""
        pool = self._deployment.pool
        words = self.many(
            [aave.GET_CONFIGURATION.call(pool, a.address) for a in self._deployment.assets.values()], "latest"
        )
        # Bits 16-31 and 168-175 of ReserveConfigurationMap.
        parameters = {
            symbol: (word >> 16 & 0xFFFF, word >> 168 & 0xFF)
            for symbol, word in zip(self._symbols, words, strict=True)
        }
        categories = sorted({category for _, category in parameters.values() if category})
        data = self.many([aave.GET_EMODE_CATEGORY_DATA.call(pool, c) for c in categories], "latest")
        return parameters, {c: d[1] for c, d in zip(categories, data, strict=True)}

    def batch(self, requests: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Return the results of a batch, every one of which must succeed."""
        answers = self._rpc.batch(requests) if requests else []
        for (method, _), answer in zip(requests, answers, strict=True):
            if isinstance(answer, RpcError):
                raise ChainError(f"verifier: {method}: {answer}")
        return answers

    def many(self, calls: Sequence[Call[Any]], block: int | str) -> list[Any]:
        """Execute reads at a block, bundled; every one must succeed."""
        at = block if isinstance(block, str) else quantity(block)
        bundles = [
            aggregate(self._deployment.multicall, calls[i : i + CHUNK]) for i in range(0, len(calls), CHUNK)
        ]
        answers = self.batch([("eth_call", [{"to": b.to, "data": hexed(b.data)}, at]) for b in bundles])
        raw = [data for b, a in zip(bundles, answers, strict=True) for data in b.decode(unhexed(a))]
        values = []
        for call, data in zip(calls, raw, strict=True):
            if data is None:
                raise ChainError(f"verifier: {call.label} failed at block {block}")
            values.append(call.decode(data))
        return values

    def borrowers(self, last_block: int) -> tuple[str, ...]:
        """Return every account that ever borrowed up to `last_block`, from the pool's events."""
        logs = self._rpc.call(
            "eth_getLogs",
            [
                {
                    "address": self._deployment.pool,
                    "topics": [hexed(aave.BORROW_EVENT.topic)],
                    "fromBlock": "0x0",
                    "toBlock": quantity(last_block),
                }
            ],
        )
        decoded = (
            aave.BORROW_EVENT.decode([unhexed(t) for t in log["topics"]], unhexed(log["data"]))
            for log in logs
        )
        return tuple(dict.fromkeys(fields["onBehalfOf"] for fields in decoded))

    def block(self, number: int, borrowers: Sequence[str]) -> BlockFacts:
        """Return the facts of one block."""
        deployment = self._deployment
        (header,) = self.batch([("eth_getBlockByNumber", [quantity(number), False])])
        assets = list(deployment.assets.values())
        pools = deployment.uniswap.pools
        protocol, *rest = self.many(
            [
                aave.GET_ASSETS_PRICES.call(deployment.oracle, [a.address for a in assets]),
                *(feeds.LATEST_ROUND_DATA.call(a.reference_feed) for a in assets),
                *(uniswap.SLOT0.call(p.address) for p in pools),
                *(aave.GET_USER_ACCOUNT_DATA.call(deployment.pool, account) for account in borrowers),
            ],
            number,
        )
        reference = {s: int(rest[i][1]) for i, s in enumerate(self._symbols)}
        slots = {p.address: int(rest[len(assets) + i][0]) for i, p in enumerate(pools)}
        views = rest[len(assets) + len(pools) :]
        accounts = self._accounts(number, borrowers, views, reference)
        return BlockFacts(
            number=number,
            timestamp=int(header["timestamp"], 16),
            base_fee_wei=int(header["baseFeePerGas"], 16),
            protocol_e8=dict(zip(self._symbols, protocol, strict=True)),
            reference_e8=reference,
            executable_e8=self._executable(slots),
            accounts=accounts,
            liquidations=self._liquidations(number),
        )

    def _accounts(
        self,
        number: int,
        borrowers: Sequence[str],
        views: Sequence[Sequence[int]],
        reference_e8: Mapping[str, int],
    ) -> dict[str, AccountFacts]:
        facts = {
            account: AccountFacts(view[0], view[1], view[5])
            for account, view in zip(borrowers, views, strict=True)
        }
        watched = [a for a, f in facts.items() if f.debt_base and f.health_factor_wad < WATCH_BELOW_WAD]
        for account, positions in zip(watched, self._positions(number, watched), strict=True):
            facts[account] = self._valued(facts[account], *positions, reference_e8)
        return facts

    def _positions(
        self, number: int, accounts: Iterable[str]
    ) -> list[tuple[int, int, dict[str, int], dict[str, int]]]:
        """Return eMode, configuration bitmap, collateral and debt balances of each account."""
        pool, assets = self._deployment.pool, list(self._deployment.assets.values())
        calls: list[Call[Any]] = []
        for account in accounts:
            calls += [
                aave.GET_USER_EMODE.call(pool, account),
                aave.GET_USER_CONFIGURATION.call(pool, account),
            ]
            calls += [aave.BALANCE_OF.call(a.a_token, account) for a in assets]
            calls += [aave.BALANCE_OF.call(a.v_token, account) for a in assets]
        values = self.many(calls, number)
        width = 2 + 2 * len(assets)
        out = []
        for i in range(0, len(values), width):
            emode, bitmap, *balances = values[i : i + width]
            collateral = dict(zip(self._symbols, balances[: len(assets)], strict=True))
            debt = dict(zip(self._symbols, balances[len(assets) :], strict=True))
            out.append((emode, bitmap, collateral, debt))
        return out

    def _valued(
        self,
        facts: AccountFacts,
        emode: int,
        bitmap: int,
        collateral: Mapping[str, int],
        debt: Mapping[str, int],
        reference_e8: Mapping[str, int],
    ) -> AccountFacts:
        counted = owed = owned = Fraction(0)
        used: dict[str, int] = {}
        for i, symbol in enumerate(self._symbols):
            unit_price = Fraction(reference_e8[symbol], 10 ** self._deployment.assets[symbol].decimals)
            # The odd bit of each pair says that the reserve is used as collateral.
            if bitmap >> (2 * i + 1) & 1 and collateral[symbol]:
                threshold, category = self._thresholds[symbol]
                if emode and category == emode:
                    threshold = self._emodes[emode]
                used[symbol] = collateral[symbol]
                owned += collateral[symbol] * unit_price
                counted += collateral[symbol] * unit_price * threshold / BPS
            owed += debt[symbol] * unit_price
        return AccountFacts(
            facts.collateral_base,
            facts.debt_base,
            facts.health_factor_wad,
            counted / owed if owed else None,
            int(owned - owed),
            used,
            {s: amount for s, amount in debt.items() if amount},
        )

    def _executable(self, sqrt_x96: Mapping[str, int]) -> dict[str, int]:
        """Return what the pools pay for a small sale, walking from USDC outwards."""
        assets = {a.address: a for a in self._deployment.assets.values()}
        usdc = self._deployment.assets["USDC"]
        prices: dict[str, Fraction] = {usdc.address: Fraction(10**8, 10**usdc.decimals)}
        for _ in assets:
            for pool in self._deployment.uniswap.pools:
                # Raw token1 per raw token0.
                rate = Fraction(sqrt_x96[pool.address] ** 2, 2**192)
                if pool.token1 in prices and pool.token0 not in prices:
                    prices[pool.token0] = prices[pool.token1] * rate
                elif pool.token0 in prices and pool.token1 not in prices:
                    prices[pool.token1] = prices[pool.token0] / rate
        return {assets[a].symbol: round(p * 10 ** assets[a].decimals) for a, p in prices.items()}

    def _liquidations(self, number: int) -> tuple[MinedLiquidation, ...]:
        at = quantity(number)
        (logs,) = self.batch(
            [
                (
                    "eth_getLogs",
                    [
                        {
                            "address": self._liquidator,
                            "topics": [hexed(LIQUIDATED.topic)],
                            "fromBlock": at,
                            "toBlock": at,
                        }
                    ],
                )
            ]
        )
        receipts = self.batch([("eth_getTransactionReceipt", [log["transactionHash"]]) for log in logs])
        return tuple(
            MinedLiquidation(
                decode_liquidated([unhexed(t) for t in log["topics"]], unhexed(log["data"])),
                log["transactionHash"],
                int(receipt["gasUsed"], 16),
                int(receipt["effectiveGasPrice"], 16),
            )
            for log, receipt in zip(logs, receipts, strict=True)
        )
