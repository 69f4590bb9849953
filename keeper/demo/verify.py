"""The verifier: a process of its own that holds the chain against what the keeper should have done.

It shares with the keeper the ABI and nothing else: positions come from the contracts' views, profits from
calling the liquidator contract on past states, and what "should" means is written here a second time.

``python -m keeper.demo.verify JOB OUT`` reads a `VerifyJob` and writes a `Verification`, both JSON.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from contracts_abi.errors import CallReverted, MarginlineError, RpcError
from contracts_abi.liquidator import (
    LIQUIDATE_FLASH,
    LIQUIDATED,
    decode_liquidated,
    flash_calldata,
    morpho_flash_calldata,
)
from keeper.demo.facts import AccountFacts, BlockFacts, Facts, MinedLiquidation, Place, named
from simulation.chain.market import DeployedMorphoMarket, Deployment
from simulation.chain.rpc import JsonRpc, hexed, quantity, unhexed
from simulation.fixed_point import BPS, WAD
from simulation.report.record import BlockRow, Invariant, ProtocolCounts, hf_counts

GRACE_BLOCKS = 2
"""Blocks that the keeper has to clear an account after the block that made it liquidatable."""

SHARES = (Fraction(1), Fraction(1, 2), Fraction(1, 4), Fraction(1, 10))
"""Shares of the debt that the verifier tries to liquidate."""

MAX_HOPS = 3
CLEARLY_PROFITABLE = 2
"""An account must pay this many times its gas to count as wrongly left."""
TYPICAL_GAS = 700_000
TYPICAL_TIP_WEI = 2 * 10**9
WHOLE_BELOW_BASE = 2_000 * 10**8
"""From 3.3 on Aave lets a whole debt be repaid where either side is worth less than this."""
MOST_INCENTIVE, INCENTIVE_CURSOR = Fraction(115, 100), Fraction(3, 10)
"""Morpho's incentive is the smaller of the first and ``1 / (1 - cursor * (1 - LLTV))``."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KeeperClaim(_Model):
    """What the journal says of one intent.

    Attributes
    ----------
    simulated_profit_raw
        Profit before gas that the keeper expected, in debt token units.
    decided_block
        Block whose state it decided on.
    """

    intent_id: str
    protocol: str
    account: str
    simulated_profit_raw: int
    decided_block: int


class VerifyJob(_Model):
    """What to verify; blocks are inclusive."""

    rpc_url: str
    deployment: str
    liquidator: str
    owner: str
    first_block: int
    last_block: int
    tolerance_bps: int
    min_profit_usd: float
    claims: tuple[KeeperClaim, ...]


class VerifiedLiquidation(_Model):
    """One liquidation as the chain has it, and as a re-simulation of its block has it."""

    block: int
    timestamp: int
    intent_id: str
    tx_hash: str
    protocol: str
    account: str
    collateral: str
    debt: str
    debt_covered_raw: int
    seized_raw: int
    full: bool
    gas_used: int
    gas_price_wei: int
    profit_raw: int
    resimulated_profit_raw: int | None
    profit_usd_e8: int
    gas_usd_e8: int
    debt_covered_usd_e8: int
    impact_bps: int


class VerifiedWait(_Model):
    """A time in which an account was due at the reference and the protocol did not allow it."""

    protocol: str
    account: str
    armed_block: int
    allowed_block: int | None
    acted_block: int | None
    cost_usd_e8: int


class Verification(_Model):
    """Everything the verifier found."""

    borrowers: tuple[Place, ...]
    """Market and account of everybody who borrows; one who does in two markets counts twice."""
    protocols: dict[str, ProtocolCounts]
    """By market: what happened there, and the invariants held against that market alone."""
    blocks: tuple[BlockRow, ...]
    liquidations: tuple[VerifiedLiquidation, ...]
    waits: tuple[VerifiedWait, ...]
    invariants: dict[str, Invariant]
    bad_debt_base: int
    liquidatable: dict[str, tuple[int, ...]]
    """Market and account to the blocks in which the protocol allowed a liquidation."""
    held_rightly: dict[str, tuple[int, ...]]
    """Market and account to the blocks in which only the protocol's price made it liquidatable."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """A liquidation to be tried; the amount is debt to repay, on Morpho collateral to take."""

    place: Place
    debt: str
    collateral: str
    amount_raw: int
    whole: bool = False


class Verifier:
    """Reads the chain block by block and judges it.

    Parameters
    ----------
    job
        What to verify.
    progress
        Told the blocks done and the blocks to do.
    """

    def __init__(self, job: VerifyJob, progress: Callable[[int, int], None] | None = None) -> None:
        self._job = job
        self._progress = progress or (lambda _done, _all: None)
        self._rpc = JsonRpc(job.rpc_url, timeout_s=120.0)
        self._deployment = Deployment.from_json(job.deployment)
        self._facts = Facts(self._rpc, self._deployment, job.liquidator)
        self._symbol_of = {a.address: s for s, a in self._deployment.assets.items()}
        self._claims = {claim.intent_id: claim for claim in job.claims}
        self._doubted: Mapping[int, frozenset[str]] = {}

    def run(self) -> Verification:
        """Verify all blocks."""
        job = self._job
        borrowers = self._facts.borrowers(job.last_block)
        blocks: list[BlockFacts] = []
        for number in range(job.first_block, job.last_block + 1):
            blocks.append(self._facts.block(number, borrowers))
            self._progress(len(blocks), job.last_block - job.first_block + 1)
        by_number = {b.number: b for b in blocks}
        self._doubted = _doubted_prices(blocks)
        liquidations = [row for b in blocks for row in self._liquidations(b)]
        protocols = {
            name: self._of_protocol(name, blocks, by_number, liquidations) for name in self._facts.protocols
        }
        invariants = _all_together([counts.invariants for counts in protocols.values()])
        # An intent may be executed once over all markets together, not once in each.
        invariants["each_intent_at_most_once"] = _at_most_once(blocks)
        invariants["policy_obeyed"] = _nowhere_else(invariants["policy_obeyed"], blocks)
        return Verification(
            borrowers=borrowers,
            protocols=protocols,
            blocks=tuple(_row(b) for b in blocks),
            liquidations=tuple(liquidations),
            waits=tuple(_waits(blocks)),
            invariants=invariants,
            bad_debt_base=_bad_debt(blocks[-1]),
            liquidatable=_blocks_where(blocks, lambda a: a.liquidatable),
            held_rightly=_blocks_where(blocks, lambda a: a.liquidatable and self._contradicted(a)),
        )

    def _of_protocol(
        self,
        name: str,
        blocks: Sequence[BlockFacts],
        by_number: Mapping[int, BlockFacts],
        liquidations: Sequence[VerifiedLiquidation],
    ) -> ProtocolCounts:
        """Hold the blocks of one market against the invariants, and count what happened there."""
        own = [block.of(name) for block in blocks]
        rows = [row for row in liquidations if row.protocol == name]
        return ProtocolCounts(
            borrowers=len(own[0].accounts),
            liquidations=len(rows),
            accounts_liquidated=len({row.account for row in rows}),
            liquidatable=len(_blocks_where(own, lambda a: a.liquidatable)),
            held_rightly=len(_blocks_where(own, lambda a: a.liquidatable and self._contradicted(a))),
            debt_covered_usd_e8=sum(row.debt_covered_usd_e8 for row in rows),
            profit_usd_e8=sum(row.profit_usd_e8 for row in rows),
            gas_usd_e8=sum(row.gas_usd_e8 for row in rows),
            bad_debt_base=_bad_debt(own[-1]),
            invariants={
                "cleared_within_two_blocks": self._cleared(own),
                "each_intent_at_most_once": _at_most_once(own),
                "profit_equals_resimulation": _profits_equal(rows),
                "policy_obeyed": self._policy_obeyed(own, by_number),
            },
        )

    def _contradicted(self, account: AccountFacts) -> bool:
        """Whether the reference says that the account is healthy, beyond the tolerance."""
        limit = 1 + Fraction(self._job.tolerance_bps, BPS)
        return account.reference_hf is not None and account.reference_hf > limit

    # ------------------------------------------------------------------------------------- liquidations

    def _liquidations(self, block: BlockFacts) -> Iterator[VerifiedLiquidation]:
        if not block.liquidations:
            return
        again = self._resimulated(block)
        for mined in block.liquidations:
            yield self._liquidation(block, mined, again.get(hexed(mined.event.intent_id)))

    def _liquidation(
        self,
        block: BlockFacts,
        mined: MinedLiquidation,
        resimulated_raw: int | None,
    ) -> VerifiedLiquidation:
        event = mined.event
        debt, collateral = self._symbol_of[event.debt], self._symbol_of[event.collateral]
        left_raw = block.accounts[mined.place].debt_raw.get(debt, 0)
        covered_usd = self._usd_e8(block, debt, event.debt_covered_raw)
        seized_usd = self._usd_e8(block, collateral, event.collateral_seized_raw)
        profit_usd = self._usd_e8(block, debt, event.profit_raw)
        gas_usd = mined.gas_used * mined.gas_price_wei * block.reference_e8["WETH"] // WAD
        # What the seized collateral was worth at the protocol's prices and did not arrive as debt repaid,
        # profit or flash-loan premium was lost to the pools.
        lost = seized_usd - covered_usd - profit_usd
        return VerifiedLiquidation(
            block=block.number,
            timestamp=block.timestamp,
            intent_id=hexed(event.intent_id),
            tx_hash=mined.tx_hash,
            protocol=mined.protocol,
            account=event.user,
            collateral=collateral,
            debt=debt,
            debt_covered_raw=event.debt_covered_raw,
            seized_raw=event.collateral_seized_raw,
            # Interest of a block or two may be left of a debt that was repaid whole.
            full=left_raw * 1_000 < event.debt_covered_raw,
            gas_used=mined.gas_used,
            gas_price_wei=mined.gas_price_wei,
            profit_raw=event.profit_raw,
            resimulated_profit_raw=resimulated_raw,
            profit_usd_e8=profit_usd,
            gas_usd_e8=gas_usd,
            debt_covered_usd_e8=covered_usd,
            impact_bps=lost * BPS // seized_usd if seized_usd else 0,
        )

    def _usd_e8(self, block: BlockFacts, symbol: str, amount_raw: int) -> int:
        price = block.protocol_e8[symbol]
        return amount_raw * price // int(10 ** self._deployment.assets[symbol].decimals)

    def _resimulated(self, block: BlockFacts) -> dict[str, int]:
        """Run the block's transactions once more, in its order, on its parent's state; profit by intent."""
        (full,) = self._facts.batch([("eth_getBlockByNumber", [quantity(block.number), True])])
        calls = [
            {
                "from": tx["from"],
                "to": tx["to"],
                "gas": tx["gas"],
                "value": tx["value"],
                "input": tx["input"],
            }
            for tx in full["transactions"]
        ]
        overrides = {"time": full["timestamp"], "baseFeePerGas": "0x0", "number": full["number"]}
        (simulated,) = self._rpc.call(
            "eth_simulateV1",
            [
                {"blockStateCalls": [{"calls": calls, "blockOverrides": overrides}], "validation": False},
                quantity(block.number - 1),
            ],
        )
        logs = [log for call in simulated["calls"] for log in call["logs"]]
        events = [
            decode_liquidated([unhexed(t) for t in log["topics"]], unhexed(log["data"]))
            for log in logs
            if log["topics"] and unhexed(log["topics"][0]) == LIQUIDATED.topic
        ]
        return {hexed(event.intent_id): event.profit_raw for event in events}

    # --------------------------------------------------------------------------------------- invariants

    def _cleared(self, blocks: Sequence[BlockFacts]) -> Invariant:
        """No account stays clearly profitable and allowed for more than two blocks."""
        broken: list[str] = []
        checked = 0
        for window in (blocks[i : i + GRACE_BLOCKS + 1] for i in range(len(blocks) - GRACE_BLOCKS)):
            touched = {m.place for b in window[1:] for m in b.liquidations}
            due = [
                place
                for place in window[0].accounts
                if place not in touched and all(self._due(b, b.accounts[place]) for b in window)
            ]
            checked += len(due)
            for place in due:
                if all(self._profit_usd(b, place, window[-1]) > 0 for b in window):
                    broken.append(f"{named(place)} at block {window[0].number}")
        return Invariant(
            ok=not broken,
            checked=checked,
            broken=tuple(broken),
            description="No account that paid and that the policy allows stayed beyond two blocks",
        )

    def _due(self, block: BlockFacts, account: AccountFacts) -> bool:
        return (
            account.liquidatable
            and account.reference_hf is not None
            and account.reference_hf < 1
            and not self._doubted[block.number] & {*account.collateral_raw, *account.debt_raw}
            and account.debt_base > 3 * self._gas_usd_e8(block)
            and any(
                not self._seizes_too_much(block, debt, collateral)
                for debt in account.debt_raw
                for collateral in account.collateral_raw
            )
        )

    def _seizes_too_much(self, block: BlockFacts, debt: str, collateral: str) -> bool:
        """Whether the protocol's prices take more of a collateral than the reference's, beyond the tolerance.

        The policy holds such a liquidation even where the reference calls the account due too.
        """
        limit = 1 + Fraction(self._job.tolerance_bps, BPS)
        protocol, reference = block.protocol_e8, block.reference_e8
        return (
            debt != collateral
            and protocol[debt] * reference[collateral] > limit * protocol[collateral] * reference[debt]
        )

    def _gas_usd_e8(self, block: BlockFacts) -> int:
        return TYPICAL_GAS * (block.base_fee_wei + TYPICAL_TIP_WEI) * block.reference_e8["WETH"] // WAD

    def _profit_usd(self, block: BlockFacts, place: Place, last: BlockFacts) -> float:
        """Return by how much the best trial beats the threshold for "clearly profitable", in USD."""
        trials = list(self._trials(block, place))
        requests = [
            (
                "eth_call",
                [
                    {"from": self._job.owner, "to": self._job.liquidator, "data": hexed(self._calldata(t))},
                    quantity(block.number),
                ],
            )
            for t in trials
        ]
        best = 0
        for trial, answer in zip(trials, self._rpc.batch(requests) if requests else [], strict=True):
            if isinstance(answer, RpcError):
                continue
            # Both ways to liquidate answer with the profit.
            profit_raw = LIQUIDATE_FLASH.decode_one(unhexed(answer))
            best = max(best, self._usd_e8(block, trial.debt, profit_raw))
        gas = max(self._gas_usd_e8(block), self._gas_usd_e8(last))
        return (best - CLEARLY_PROFITABLE * gas) / 1e8 - self._job.min_profit_usd

    def _trials(self, block: BlockFacts, place: Place) -> Iterator[_Trial]:
        facts = block.accounts[place]
        market = self._facts.morpho.get(place[0])
        if market is not None:
            yield from self._morpho_trials(block, place, facts, market)
            return
        # Above 0.95 the contract repays at most half, or more of small ones from 3.3 on; asking for more than
        # it takes only wastes a flash-loan premium.
        most = Fraction(1, 2) if facts.health_factor_wad > WAD * 95 // 100 else Fraction(1)
        if self._facts.v3_6 and min(facts.collateral_base, facts.debt_base) < WHOLE_BELOW_BASE:
            most = Fraction(1)
        for debt, amount_raw in facts.debt_raw.items():
            for collateral in facts.collateral_raw:
                if self._seizes_too_much(block, debt, collateral):
                    continue
                for share in SHARES:
                    yield _Trial(place, debt, collateral, int(amount_raw * most * share))

    def _morpho_trials(
        self, block: BlockFacts, place: Place, facts: AccountFacts, market: DeployedMorphoMarket
    ) -> Iterator[_Trial]:
        """Yield parts of the collateral that the debt stands for, and the whole debt where that is enough."""
        owed_raw = facts.debt_raw.get(market.loan, 0)
        held_raw = facts.collateral_raw.get(market.collateral, 0)
        if not owed_raw or not held_raw:
            return
        incentive = min(MOST_INCENTIVE, 1 / (1 - INCENTIVE_CURSOR * (1 - Fraction(market.lltv_wad, WAD))))
        loan, collateral = (self._deployment.assets[s] for s in (market.loan, market.collateral))
        worth = Fraction(
            block.protocol_e8[market.loan] * 10**collateral.decimals,
            block.protocol_e8[market.collateral] * 10**loan.decimals,
        )
        whole_raw = int(owed_raw * incentive * worth)
        for share in SHARES:
            whole = share == 1 and whole_raw <= held_raw
            taken_raw = min(int(whole_raw * share), held_raw)
            yield _Trial(place, market.loan, market.collateral, taken_raw, whole=whole)

    def _calldata(self, trial: _Trial) -> bytes:
        assets = self._deployment.assets
        protocol, account = trial.place
        path = self._path(assets[trial.collateral].address, assets[trial.debt].address)
        intent_id, never = b"verifier".ljust(32, b"\0"), 2**63
        market = self._facts.morpho.get(protocol)
        if market is not None:
            return morpho_flash_calldata(
                intent_id=intent_id,
                market=self._facts.morpho_words(market),
                user=account,
                seized_raw=trial.amount_raw,
                whole_debt=trial.whole,
                path=path,
                min_profit_raw=0,
                deadline_block=never,
            )
        return flash_calldata(
            intent_id=intent_id,
            collateral=assets[trial.collateral].address,
            debt=assets[trial.debt].address,
            user=account,
            debt_to_cover_raw=trial.amount_raw,
            path=path,
            min_profit_raw=0,
            deadline_block=never,
        )

    def _path(self, sold: str, bought: str) -> bytes:
        """Return the shortest path, packed; the first in the order of pools where several are as short."""
        if sold == bought:
            return b""
        paths: list[tuple[str, bytes]] = [(sold, unhexed(sold))]
        for _ in range(MAX_HOPS):
            longer: list[tuple[str, bytes]] = []
            for token, packed in paths:
                for pool in self._deployment.uniswap.pools:
                    if token not in (pool.token0, pool.token1):
                        continue
                    other = pool.token1 if token == pool.token0 else pool.token0
                    extended = packed + pool.fee_pips.to_bytes(3, "big") + unhexed(other)
                    if other == bought:
                        return extended
                    longer.append((other, extended))
            paths = longer
        raise CallReverted(f"no path from {sold} to {bought}")

    def _policy_obeyed(self, blocks: Sequence[BlockFacts], by_number: Mapping[int, BlockFacts]) -> Invariant:
        """Nobody was liquidated whom the reference called healthy in the block that was decided on."""
        broken: list[str] = []
        checked = 0
        for block in blocks:
            for mined in block.liquidations:
                checked += 1
                intent = hexed(mined.event.intent_id)
                claim = self._claims.get(intent)
                if claim is None:
                    broken.append(f"{intent}: not in the journal")
                    continue
                if (claim.protocol, claim.account) != mined.place:
                    broken.append(
                        f"{intent}: the journal has {claim.protocol} {claim.account}, "
                        f"the chain {named(mined.place)}"
                    )
                    continue
                decided = by_number.get(claim.decided_block)
                if decided is None or not claim.decided_block < block.number:
                    broken.append(
                        f"{intent}: decided on block {claim.decided_block}, mined in {block.number}"
                    )
                elif decided.accounts[mined.place].reference_hf is None:
                    # Of those far from liquidation no reference is computed; none of them is to be acted on.
                    broken.append(f"{named(mined.place)} was well on block {claim.decided_block}")
                elif self._contradicted(decided.accounts[mined.place]):
                    broken.append(f"{named(mined.place)} decided on block {claim.decided_block}")
        return Invariant(
            ok=not broken,
            checked=checked,
            broken=tuple(broken),
            description="No position was acted on that the reference called healthy, and each was journalled",
        )


def _doubted_prices(blocks: Sequence[BlockFacts]) -> dict[int, frozenset[str]]:
    """Return, by block, the assets whose one reference jumped: nobody has to act on a price like that.

    The limit is the jump guard's default, written here a second time: 10 % and 6 % times the square root of
    the hours since the last price that was believed, at most 50 %, of the larger of the two prices.
    """
    believed: dict[str, tuple[int, int]] = {}
    doubted: dict[int, frozenset[str]] = {}
    for block in blocks:
        jumped = set()
        for symbol, price in block.reference_e8.items():
            last, then = believed.get(symbol, (price, block.timestamp))
            hours = (block.timestamp - then) / 3_600
            if abs(price - last) > min(0.10 + 0.06 * hours**0.5, 0.50) * max(price, last):
                jumped.add(symbol)
            else:
                believed[symbol] = (price, block.timestamp)
        doubted[block.number] = frozenset(jumped)
    return doubted


def _all_together(several: Sequence[Mapping[str, Invariant]]) -> dict[str, Invariant]:
    """Return each invariant over all markets: it holds where it holds in every one."""
    return {
        name: Invariant(
            ok=all(of[name].ok for of in several),
            checked=sum(of[name].checked for of in several),
            broken=tuple(case for of in several for case in of[name].broken),
            description=first.description,
        )
        for name, first in several[0].items()
    }


def _nowhere_else(obeyed: Invariant, blocks: Sequence[BlockFacts]) -> Invariant:
    """Return the invariant with the liquidations in markets that nobody asked the keeper to watch.

    Nothing is known there that could speak for them.
    """
    stray = [mined for block in blocks for mined in block.elsewhere]
    broken = [
        f"{hexed(m.event.intent_id)}: {m.event.user} in {m.protocol}, which is no market here" for m in stray
    ]
    return obeyed.model_copy(
        update={
            "ok": obeyed.ok and not stray,
            "checked": obeyed.checked + len(stray),
            "broken": (*obeyed.broken, *broken),
        }
    )


def _at_most_once(blocks: Sequence[BlockFacts]) -> Invariant:
    counts = Counter(hexed(m.event.intent_id) for b in blocks for m in (*b.liquidations, *b.elsewhere))
    broken = tuple(f"{intent}: {n} times" for intent, n in counts.items() if n > 1)
    return Invariant(
        ok=not broken,
        checked=len(counts),
        broken=broken,
        description="No intent was executed twice on the chain",
    )


def _profits_equal(rows: Sequence[VerifiedLiquidation]) -> Invariant:
    broken = tuple(
        f"{row.intent_id}: {row.profit_raw} mined, {row.resimulated_profit_raw} re-simulated"
        for row in rows
        if row.profit_raw != row.resimulated_profit_raw
    )
    return Invariant(
        ok=not broken,
        checked=len(rows),
        broken=broken,
        description="Realised profit equals a re-simulation in the block's actual order, to the unit",
    )


def _waits(blocks: Sequence[BlockFacts]) -> Iterator[VerifiedWait]:
    """Yield each time that an account was due at the reference while the protocol called it healthy."""
    acted: dict[Place, list[int]] = defaultdict(list)
    for block in blocks:
        for mined in block.liquidations:
            acted[mined.place].append(block.number)
    for place in blocks[0].accounts:
        armed: BlockFacts | None = None
        for block in blocks:
            facts = block.accounts[place]
            due = facts.reference_hf is not None and facts.reference_hf < 1 and facts.debt_base > 0
            if armed is None:
                if due and not facts.liquidatable:
                    armed = block
                continue
            if facts.liquidatable or not due:
                allowed = block.number if facts.liquidatable else None
                later = [n for n in acted[place] if allowed is not None and n > allowed]
                before = armed.accounts[place].reference_equity_base or 0
                now = facts.reference_equity_base
                lost = 0 if now is None else max(0, before - now)
                yield VerifiedWait(
                    protocol=place[0],
                    account=place[1],
                    armed_block=armed.number,
                    allowed_block=allowed,
                    acted_block=later[0] if later else None,
                    cost_usd_e8=lost,
                )
                armed = None


def _blocks_where(
    blocks: Sequence[BlockFacts], holds: Callable[[AccountFacts], bool]
) -> dict[str, tuple[int, ...]]:
    found: dict[str, list[int]] = defaultdict(list)
    for block in blocks:
        for place, facts in block.accounts.items():
            if holds(facts):
                found[named(place)].append(block.number)
    return {who: tuple(numbers) for who, numbers in found.items()}


def _bad_debt(block: BlockFacts) -> int:
    return sum(max(0, a.debt_base - a.collateral_base) for a in block.accounts.values())


def _row(block: BlockFacts) -> BlockRow:
    accounts = block.accounts.values()
    indebted = [a for a in accounts if a.debt_base]
    return BlockRow(
        number=block.number,
        timestamp=block.timestamp,
        base_fee_wei=block.base_fee_wei,
        market_e8={},
        protocol_e8=dict(block.protocol_e8),
        reference_e8=dict(block.reference_e8),
        executable_e8=dict(block.executable_e8),
        hf_counts=hf_counts([a.health_factor_wad for a in indebted]),
        no_debt=len(block.accounts) - len(indebted),
        liquidatable=sum(a.liquidatable for a in accounts),
        liquidatable_at_reference=sum(
            1 for a in accounts if a.debt_base and a.reference_hf is not None and a.reference_hf < 1
        ),
        collateral_base=sum(a.collateral_base for a in accounts),
        debt_base=sum(a.debt_base for a in accounts),
        bad_debt_base=_bad_debt(block),
    )


def main(argv: Sequence[str]) -> int:
    """Run the verifier on a job file; exit 1 when an invariant broke."""
    if len(argv) != 2:
        print("usage: python -m keeper.demo.verify JOB OUT", file=sys.stderr)
        return 2
    job = VerifyJob.model_validate_json(Path(argv[0]).read_text(encoding="utf-8"))
    try:
        found = Verifier(job, lambda done, total: print(f"{done}/{total}", flush=True)).run()
    except MarginlineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    Path(argv[1]).write_text(found.model_dump_json(), encoding="utf-8")
    return 0 if all(i.ok for i in found.invariants.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
