"""What the chain itself says, block by block, read without any of the keeper's code for positions and plans.

The verifier rests on these facts. They come from the contracts' own views (`getUserAccountData`,
`getAssetsPrices`, `latestRoundData`, `slot0`, balances; of Morpho `market` and `position` behind
`accrueInterest` in one and the same call), at each block's number, and are computed on in exact fractions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, TypeAlias

from contracts_abi import aave_v3 as aave
from contracts_abi import aave_v3_6 as aave_3_6
from contracts_abi import feeds
from contracts_abi import morpho_blue as morpho
from contracts_abi import uniswap_v3 as uniswap
from contracts_abi.calls import Call
from contracts_abi.errors import ChainError, RpcError
from contracts_abi.liquidator import LIQUIDATED, Liquidated, Venue, decode_liquidated
from contracts_abi.multicall import aggregate
from simulation.chain.market import DeployedMorphoMarket, Deployment
from simulation.chain.rpc import JsonRpc, hexed, quantity, unhexed
from simulation.fixed_point import BPS, WAD

WATCH_BELOW_WAD = 2 * WAD
"""Accounts above this health factor are not valued at reference prices: no single step halves a price."""

CHUNK = 500
"""Reads per bundle; our multicall takes 512."""

Place: TypeAlias = tuple[str, str]
"""Name of a market and account: an account in two markets is two."""

FIRST_REVISION_OF_V3_6 = 10
E_MODES = range(1, 33)
"""Efficiency modes that are looked for; a local market has one."""
VIRTUAL_SHARES = 10**6
"""Shares and one asset that Morpho counts on top of what there is (`SharesMathLib`)."""


def account_of(place: Place) -> str:
    """Return the account of a place."""
    return place[1]


def named(place: Place) -> str:
    """Return a place as text: market and account."""
    return f"{place[0]} {place[1]}"


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """One account in one market at one block, as the contract's own view and the balances say.

    Attributes
    ----------
    collateral_base, debt_base
        Values at the protocol's prices, USD at 1e8.
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
    """A `Liquidated` event, the market that its venue is, and the transaction it is in."""

    protocol: str
    event: Liquidated
    tx_hash: str
    gas_used: int
    gas_price_wei: int

    @property
    def place(self) -> Place:
        """Who was liquidated, and where."""
        return self.protocol, self.event.user


@dataclass(frozen=True, slots=True)
class BlockFacts:
    """One block; prices are USD at 1e8 by symbol.

    `elsewhere` are liquidations in markets that are none of the deployment's; their `protocol` says where.
    """

    number: int
    timestamp: int
    base_fee_wei: int
    protocol_e8: Mapping[str, int]
    reference_e8: Mapping[str, int]
    executable_e8: Mapping[str, int]
    accounts: Mapping[Place, AccountFacts]
    liquidations: tuple[MinedLiquidation, ...]
    elsewhere: tuple[MinedLiquidation, ...] = ()

    def of(self, protocol: str) -> BlockFacts:
        """Return what there is of one market."""
        return replace(
            self,
            accounts={place: facts for place, facts in self.accounts.items() if place[0] == protocol},
            liquidations=tuple(mined for mined in self.liquidations if mined.protocol == protocol),
            elsewhere=(),
        )


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
        revision = self.many([aave.POOL_REVISION.call(deployment.pool)], "latest")[0]
        self.v3_6 = bool(revision >= FIRST_REVISION_OF_V3_6)
        self.aave = "aave-v3.6" if self.v3_6 else "aave-v3"
        markets = () if deployment.morpho is None else deployment.morpho.markets
        self.morpho = {f"morpho-blue:{market.id[2:10]}": market for market in markets}
        self._thresholds, self._emodes = self._risk_parameters()

    @property
    def protocols(self) -> tuple[str, ...]:
        """The names of all markets, Aave's first."""
        return (self.aave, *self.morpho)

    def protocol_of(self, venue: Venue) -> str:
        """Return the market that a venue is.

        One that is none of the deployment's is called by its address: what was done there is not to be booked
        on another, and no reason to look at nothing else.
        """
        if venue == Venue(self._deployment.pool):
            return self.aave
        for name, market in self.morpho.items():
            assert self._deployment.morpho is not None
            if venue == Venue(self._deployment.morpho.address, unhexed(market.id)):
                return name
        return f"{venue.address} {hexed(venue.market)}"

    def morpho_words(self, market: DeployedMorphoMarket) -> tuple[str, str, str, str, int]:
        """Return the five words of a market of Morpho."""
        loan, collateral = (self._deployment.assets[s].address for s in (market.loan, market.collateral))
        return loan, collateral, market.oracle, market.irm, market.lltv_wad

    def _risk_parameters(self) -> tuple[dict[str, int], dict[int, tuple[int, frozenset[str]]]]:
        """Return liquidation threshold by symbol; by eMode category its threshold and collaterals."""
        pool = self._deployment.pool
        words = self.many(
            [aave.GET_CONFIGURATION.call(pool, a.address) for a in self._deployment.assets.values()], "latest"
        )
        # Bits 16-31 and 168-175 of ReserveConfigurationMap; the latter mean nothing from 3.2 on.
        thresholds = {s: word >> 16 & 0xFFFF for s, word in zip(self._symbols, words, strict=True)}
        data = self.many([aave.GET_EMODE_CATEGORY_DATA.call(pool, c) for c in E_MODES], "latest")
        configured = {c: d[1] for c, d in zip(E_MODES, data, strict=True) if d[1]}
        if self.v3_6:
            reads = [aave_3_6.GET_EMODE_CATEGORY_COLLATERAL_BITMAP.call(pool, c) for c in configured]
            bitmaps = dict(zip(configured, self.many(reads, "latest"), strict=True))
            return thresholds, {
                c: (bps, frozenset(s for i, s in enumerate(self._symbols) if bitmaps[c] >> i & 1))
                for c, bps in configured.items()
            }
        own = {s: word >> 168 & 0xFF for s, word in zip(self._symbols, words, strict=True)}
        return thresholds, {
            c: (bps, frozenset(s for s in self._symbols if own[s] == c)) for c, bps in configured.items()
        }

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

    def borrowers(self, last_block: int) -> tuple[Place, ...]:
        """Return everybody who ever borrowed up to `last_block`, from the contracts' events."""
        logs = self._logs(self._deployment.pool, [hexed(aave.BORROW_EVENT.topic)], last_block)
        decoded = (aave.BORROW_EVENT.decode(*log) for log in logs)
        found = [(self.aave, str(fields["onBehalfOf"])) for fields in decoded]
        for name, market in self.morpho.items():
            assert self._deployment.morpho is not None
            topics = [hexed(morpho.BORROW_EVENT.topic), market.id]
            logs = self._logs(self._deployment.morpho.address, topics, last_block)
            found += [(name, str(morpho.BORROW_EVENT.decode(*log)["onBehalf"])) for log in logs]
        return tuple(dict.fromkeys(found))

    def _logs(self, contract: str, topics: Sequence[str], last_block: int) -> list[tuple[list[bytes], bytes]]:
        """Return topics and data of a contract's logs up to a block."""
        query = {"address": contract, "topics": topics, "fromBlock": "0x0", "toBlock": quantity(last_block)}
        logs = self._rpc.call("eth_getLogs", [query])
        return [([unhexed(t) for t in log["topics"]], unhexed(log["data"])) for log in logs]

    def block(self, number: int, borrowers: Sequence[Place]) -> BlockFacts:
        """Return the facts of one block."""
        on_aave = [account for protocol, account in borrowers if protocol == self.aave]
        deployment = self._deployment
        (header,) = self.batch([("eth_getBlockByNumber", [quantity(number), False])])
        assets = list(deployment.assets.values())
        pools = deployment.uniswap.pools
        protocol, *rest = self.many(
            [
                aave.GET_ASSETS_PRICES.call(deployment.oracle, [a.address for a in assets]),
                *(feeds.LATEST_ROUND_DATA.call(a.reference_feed) for a in assets),
                *(uniswap.SLOT0.call(p.address) for p in pools),
                *(aave.GET_USER_ACCOUNT_DATA.call(deployment.pool, account) for account in on_aave),
            ],
            number,
        )
        reference = {s: int(rest[i][1]) for i, s in enumerate(self._symbols)}
        slots = {p.address: int(rest[len(assets) + i][0]) for i, p in enumerate(pools)}
        views = rest[len(assets) + len(pools) :]
        prices = dict(zip(self._symbols, protocol, strict=True))
        accounts = {
            (self.aave, account): facts
            for account, facts in self._accounts(number, on_aave, views, reference).items()
        }
        for name, market in self.morpho.items():
            there = [account for of, account in borrowers if of == name]
            found = self._on_morpho(number, market, there, prices, reference)
            accounts |= {(name, account): facts for account, facts in found.items()}
        mined = self._liquidations(number)
        return BlockFacts(
            number=number,
            timestamp=int(header["timestamp"], 16),
            base_fee_wei=int(header["baseFeePerGas"], 16),
            protocol_e8=prices,
            reference_e8=reference,
            executable_e8=self._executable(slots),
            accounts=accounts,
            liquidations=tuple(m for m in mined if m.protocol in self.protocols),
            elsewhere=tuple(m for m in mined if m.protocol not in self.protocols),
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
                threshold = self._thresholds[symbol]
                if emode and symbol in self._emodes[emode][1]:
                    threshold = self._emodes[emode][0]
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

    def _on_morpho(
        self,
        number: int,
        market: DeployedMorphoMarket,
        accounts: Sequence[str],
        protocol_e8: Mapping[str, int],
        reference_e8: Mapping[str, int],
    ) -> dict[str, AccountFacts]:
        """Return what is there of a market of Morpho, interest of the block included.

        Amounts, and whether an account is liquidatable, are from the contract and its oracle; the values in
        USD are at the prices of the feeds that the oracle divides.
        """
        assert self._deployment.morpho is not None
        contract, key = self._deployment.morpho.address, unhexed(market.id)
        first = [
            morpho.ACCRUE_INTEREST.call(contract, self.morpho_words(market)),
            morpho.MARKET.call(contract, key),
            morpho.PRICE.call(market.oracle),
        ]
        positions: list[tuple[int, int, int]] = []
        state, price_e36 = (0,) * 6, 0
        size = CHUNK - len(first)
        for start in range(0, max(len(accounts), 1), size):
            # Interest is added in the very call, so that what is read behind it has it.
            part = [morpho.POSITION.call(contract, key, a) for a in accounts[start : start + size]]
            _, state, price_e36, *more = self.many([*first, *part], number)
            positions += more
        _, _, borrowed_raw, borrowed_shares = state[:4]
        loan, collateral = (self._deployment.assets[s] for s in (market.loan, market.collateral))
        loan_unit, collateral_unit = 10**loan.decimals, 10**collateral.decimals
        lltv = Fraction(market.lltv_wad, WAD)
        found = {}
        for account, (_, shares, held_raw) in zip(accounts, positions, strict=True):
            # Rounded up, as the contract does for what is owed.
            owed_raw = -(-shares * (borrowed_raw + 1) // (borrowed_shares + VIRTUAL_SHARES))
            carried_raw = held_raw * price_e36 // 10**36 * market.lltv_wad // WAD
            held_usd = Fraction(held_raw * reference_e8[market.collateral], collateral_unit)
            owed_usd = Fraction(owed_raw * reference_e8[market.loan], loan_unit)
            found[account] = AccountFacts(
                collateral_base=held_raw * protocol_e8[market.collateral] // collateral_unit,
                debt_base=owed_raw * protocol_e8[market.loan] // loan_unit,
                health_factor_wad=carried_raw * WAD // owed_raw if shares else 2**256 - 1,
                reference_hf=held_usd * lltv / owed_usd if shares else None,
                reference_equity_base=int(held_usd - owed_usd),
                collateral_raw={market.collateral: held_raw} if held_raw else {},
                debt_raw={market.loan: owed_raw} if owed_raw else {},
            )
        return found

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
        events = [
            decode_liquidated([unhexed(t) for t in log["topics"]], unhexed(log["data"])) for log in logs
        ]
        return tuple(
            MinedLiquidation(
                self.protocol_of(event.venue),
                event,
                log["transactionHash"],
                int(receipt["gasUsed"], 16),
                int(receipt["effectiveGasPrice"], 16),
            )
            for event, log, receipt in zip(events, logs, receipts, strict=True)
        )
