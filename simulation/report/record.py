"""What a demo run leaves behind: one record, from which the report, the tables and the JSON are made.

Everything is an exact integer with its unit in the name: `_raw` token units, `_base` the protocol's base
currency (US dollars at 1e8), `_e8` 1e8, `_wad` 1e18, `_wei`. Times are unix seconds. A price that is not
known is null, never zero.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, ValidationError, model_validator

from oracle.scenario import Scenario, assets_touched
from oracle.strict import StrictModel, input_error
from simulation.fixed_point import WAD
from simulation.types import Reason

# 0.70 to 2.00 in steps of 0.05: 1.00 is an edge, so "below 1" is a sum of whole bins.
HF_EDGES_WAD: tuple[int, ...] = tuple(n * WAD // 100 for n in range(70, 201, 5))

HexData: TypeAlias = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]*$")]
UsdE8: TypeAlias = int
PricesE8: TypeAlias = dict[str, int | None]


class AssetInfo(StrictModel):
    """A token of the market."""

    address: str = Field(description="token address")
    decimals: int = Field(ge=0, description="token decimals")
    pair: str = Field(description="pair that prices it, for example ETH/USD")


class FaultWindow(StrictModel):
    """A time during which a feed did not tell the truth, on purpose."""

    feed: str = Field(description="feed in the scenario")
    assets: tuple[str, ...] = Field(description="tokens whose protocol price it touches")
    op: str = Field(description="fault operator, for example freeze or scale")
    start: int = Field(description="first second, unix")
    end: int = Field(description="first second after it, unix")
    note: str = Field(default="", description="what it does, one line")


class FilledRange(StrictModel):
    """Bytes of a runtime code that deployment fills in."""

    what: str = Field(description="library or immutable that stands there")
    offset: int = Field(ge=0, description="first byte")
    length: int = Field(gt=0, description="number of bytes")


class Identity(StrictModel):
    """Whether the pool on the chain is the published one."""

    contract: str = Field(description="contract name in the package")
    package: str = Field(description="npm package and version it comes from")
    address: str = Field(description="where it is deployed")
    runtime_equal: bool = Field(description="runtime code equals the artifact with the ranges filled in")
    filled: tuple[FilledRange, ...] = Field(description="ranges that deployment filled in")


class BlockRow(StrictModel):
    """Market and book at the end of one block."""

    number: int = Field(ge=0, description="block number")
    timestamp: int = Field(ge=0, description="unix seconds")
    base_fee_wei: int = Field(ge=0, description="base fee, wei for one gas")
    market_e8: PricesE8 = Field(description="true price by token, USD at 1e8")
    protocol_e8: PricesE8 = Field(description="price that the protocol's oracle gives, USD at 1e8")
    reference_e8: PricesE8 = Field(description="price that the guarded reference gives, USD at 1e8")
    executable_e8: PricesE8 = Field(description="price that the pool pays for a small sale, USD at 1e8")
    hf_counts: tuple[int, ...] = Field(
        description="accounts with debt by health factor: one count below the first edge of hf_edges_wad, "
        "one between each two, one from the last edge up"
    )
    no_debt: int = Field(ge=0, description="accounts without debt")
    unknown: int = Field(default=0, ge=0, description="accounts that could not be read or priced")
    liquidatable: int = Field(ge=0, description="accounts that the protocol allows to liquidate")
    liquidatable_at_reference: int | None = Field(
        description="accounts with a health factor below 1 at reference prices; null without a reference"
    )
    collateral_base: UsdE8 = Field(ge=0, description="collateral of all accounts, USD at 1e8")
    debt_base: UsdE8 = Field(ge=0, description="debt of all accounts, USD at 1e8")
    bad_debt_base: UsdE8 = Field(ge=0, description="debt above collateral, summed over accounts, USD at 1e8")


class LiquidationRow(StrictModel):
    """One liquidation that was mined."""

    block: int = Field(description="block in which it was mined")
    timestamp: int = Field(description="unix seconds of that block")
    protocol: str = Field(default="", description="market in which")
    account: str = Field(description="who was liquidated")
    intent_id: HexData = Field(description="intent id in the contract's event")
    tx_hash: HexData = Field(description="transaction")
    collateral: str = Field(description="symbol of the collateral seized")
    debt: str = Field(description="symbol of the debt repaid")
    debt_covered_raw: int = Field(ge=0, description="debt repaid, debt token units")
    seized_raw: int = Field(ge=0, description="collateral received after the fee, collateral token units")
    full: bool = Field(description="whether the debt in that token was repaid whole")
    gas_used: int = Field(ge=0, description="gas")
    gas_price_wei: int = Field(ge=0, description="effective gas price, wei")
    profit_simulated_raw: int = Field(description="profit before gas in the simulation, debt token units")
    profit_realised_raw: int = Field(description="profit before gas on the chain, debt token units")
    profit_resimulated_raw: int | None = Field(
        description="profit of a re-simulation in the block's actual order, debt token units"
    )
    profit_decimals: int = Field(ge=0, description="decimals of the debt token")
    profit_usd_e8: UsdE8 = Field(description="realised profit before gas, USD at 1e8")
    gas_usd_e8: UsdE8 = Field(ge=0, description="gas paid, USD at 1e8")
    debt_covered_usd_e8: UsdE8 = Field(ge=0, description="debt repaid, USD at 1e8")
    impact_bps: int = Field(description="price impact and pool fees against the protocol's prices, 1e-4")

    @property
    def net_usd_e8(self) -> int:
        """Profit after gas, USD at 1e8."""
        return self.profit_usd_e8 - self.gas_usd_e8


class LeftRow(StrictModel):
    """An account that was left alone, for one reason over a range of blocks."""

    protocol: str = Field(default="", description="market in which")
    account: str = Field(description="who was left alone")
    reason: Reason = Field(description="why, as one code")
    first_block: int = Field(description="first block of this reason")
    last_block: int = Field(description="last block of this reason")
    detail: str = Field(default="", description="one line for people")

    @model_validator(mode="after")
    def _in_order(self) -> LeftRow:
        if self.last_block < self.first_block:
            raise ValueError(f"last_block {self.last_block} is before first_block {self.first_block}")
        return self


class WaitingRow(StrictModel):
    """An account that was due at the reference while the protocol's feed still said otherwise."""

    protocol: str = Field(default="", description="market in which")
    account: str = Field(description="who was due")
    asset: str = Field(description="token whose protocol price was stale")
    armed_block: int = Field(description="block in which the account was armed")
    allowed_block: int | None = Field(
        default=None, description="first block whose state let the protocol liquidate; null if it never did"
    )
    acted_block: int | None = Field(description="block of the liquidation; null if it never came")
    blocks_waited: int = Field(ge=0, description="blocks from due to liquidated, or to the end")
    cost_usd_e8: UsdE8 = Field(description="what the wait cost by cost_of_waiting_rule, USD at 1e8")
    detail: str = Field(default="", description="one line for people")


class Invariant(StrictModel):
    """A statement that must hold, and whether it did."""

    ok: bool = Field(description="whether it held everywhere")
    checked: int = Field(ge=0, description="cases checked")
    broken: tuple[str, ...] = Field(default=(), description="each case in which it did not hold")
    description: str = Field(description="the statement, one line")

    @model_validator(mode="after")
    def _consistent(self) -> Invariant:
        if self.ok == bool(self.broken):
            raise ValueError(f"ok is {self.ok} with {len(self.broken)} broken cases")
        return self


class ProtocolCounts(StrictModel):
    """What happened in one market, and whether the statements held there."""

    borrowers: int = Field(ge=0, description="accounts that borrow in it")
    liquidations: int = Field(ge=0, description="liquidations that were mined")
    accounts_liquidated: int = Field(ge=0, description="accounts that they were of")
    liquidatable: int = Field(ge=0, description="accounts that it allowed to liquidate at some block")
    held_rightly: int = Field(ge=0, description="accounts that only its own price made liquidatable")
    debt_covered_usd_e8: UsdE8 = Field(ge=0, description="debt repaid, USD at 1e8")
    profit_usd_e8: UsdE8 = Field(description="realised profit before gas, USD at 1e8")
    gas_usd_e8: UsdE8 = Field(ge=0, description="gas paid, USD at 1e8")
    bad_debt_base: UsdE8 = Field(ge=0, description="debt above collateral at the end, USD at 1e8")
    invariants: dict[str, Invariant] = Field(description="statements, each for this market alone")


class JournalCounts(StrictModel):
    """What the keeper's journal holds at the end."""

    intents: int = Field(ge=0, description="intents")
    attempts: int = Field(ge=0, description="signed transactions")
    by_state: dict[str, int] = Field(description="intents by state")


class SourceNote(StrictModel):
    """A fact that the scenario rests on, and who says so."""

    claim: str = Field(description="the fact")
    source: str = Field(description="who says so")
    confidence: str = Field(description="documented, recalled or stated")


class DemoRecord(StrictModel):
    """One run of the demo, complete: the same record gives the same report, byte for byte."""

    schema_: Literal["marginline-demo/1"] = Field(default="marginline-demo/1", alias="schema")
    tool_version: str = Field(description="version of Marginline")
    seed: int = Field(description="seed of accounts and books")
    scenario_id: str = Field(description="id of the scenario")
    scenario_title: str = Field(description="title of the scenario")
    scenario_sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the scenario file")
    provenance: tuple[SourceNote, ...] = Field(default=(), description="the scenario's sources")
    chain_id: int = Field(ge=1, description="EIP-155 chain id of the local chain")
    code_hashes: dict[str, HexData] = Field(description="Keccak-256 of the runtime code by contract")
    identity: Identity
    assets: dict[str, AssetInfo] = Field(description="tokens of the market by symbol")
    faults: tuple[FaultWindow, ...] = Field(default=(), description="when a feed lied on purpose")
    accounts: int = Field(ge=0, description="borrowers seeded, one in two markets counting twice")
    protocols: dict[str, ProtocolCounts] = Field(
        default_factory=dict, description="counts and invariants by market"
    )
    hf_edges_wad: tuple[int, ...] = Field(default=HF_EDGES_WAD, description="edges of hf_counts at 1e18")
    blocks: tuple[BlockRow, ...]
    liquidations: tuple[LiquidationRow, ...] = ()
    accounts_left: tuple[LeftRow, ...] = ()
    waiting: tuple[WaitingRow, ...] = ()
    bad_debt_base: UsdE8 = Field(ge=0, description="debt above collateral at the end, USD at 1e8")
    cost_of_waiting_base: UsdE8 = Field(description="cost of all waits, USD at 1e8")
    cost_of_waiting_rule: str = Field(default="", description="what the cost of a wait counts, one sentence")
    invariants: dict[str, Invariant]
    journal: JournalCounts
    timings_s: dict[str, float] = Field(default_factory=dict, description="seconds by phase, wall clock")

    @model_validator(mode="after")
    def _shapes_agree(self) -> DemoRecord:
        if any(low >= high for low, high in pairwise(self.hf_edges_wad)):
            raise ValueError("hf_edges_wad must ascend")
        bins = len(self.hf_edges_wad) + 1
        previous = -1
        for block in self.blocks:
            if len(block.hf_counts) != bins:
                raise ValueError(f"block {block.number}: {len(block.hf_counts)} hf_counts for {bins} bins")
            if block.number <= previous:
                raise ValueError(f"block {block.number} follows block {previous}")
            previous = block.number
            for name in ("market_e8", "protocol_e8", "reference_e8", "executable_e8"):
                extra = set(getattr(block, name)) - set(self.assets)
                if extra:
                    raise ValueError(f"block {block.number}: {name} names {sorted(extra)}, not in assets")
        for row in self.liquidations:
            if self.protocols and row.protocol not in self.protocols:
                raise ValueError(f"liquidation {row.intent_id} is in {row.protocol!r}, not in protocols")
            for symbol in (row.collateral, row.debt):
                if symbol not in self.assets:
                    raise ValueError(f"liquidation {row.intent_id} names {symbol}, not in assets")
        return self

    @property
    def passed(self) -> bool:
        """Whether every invariant held and the pool is the published one."""
        return self.checks_broken == 0

    @property
    def checks_broken(self) -> int:
        """How many checks broke, the pool's identity among them."""
        return sum(not i.ok for i in self.invariants.values()) + (not self.identity.runtime_equal)

    def to_json(self) -> str:
        """Return the record as indented JSON with the names of the schema."""
        return self.model_dump_json(by_alias=True, indent=1)


def record_from_json(text: str | bytes, where: str = "demo record") -> DemoRecord:
    """Return the record that `text` holds.

    Raises
    ------
    InputError
        If it is not a complete record.
    """
    try:
        return DemoRecord.model_validate_json(text)
    except ValidationError as error:
        raise input_error(error, where) from None


def fault_windows(scenario: Scenario) -> tuple[FaultWindow, ...]:
    """Return the scenario's faults as the record keeps them."""
    return tuple(
        FaultWindow(
            feed=fault.feed,
            assets=assets_touched(scenario, fault),
            op=fault.op,
            start=fault.at,
            end=fault.until,
            note=fault.note,
        )
        for fault in scenario.faults
    )


def source_notes(scenario: Scenario) -> tuple[SourceNote, ...]:
    """Return the scenario's provenance as the record keeps it."""
    return tuple(
        SourceNote(claim=c.claim, source=c.source, confidence=c.confidence) for c in scenario.provenance
    )


def hf_counts(health_factors_wad: Iterable[int], edges_wad: Sequence[int] = HF_EDGES_WAD) -> tuple[int, ...]:
    """Count health factors by bin.

    Parameters
    ----------
    health_factors_wad
        Health factors of accounts with debt, at 1e18.
    edges_wad
        Ascending edges; an edge belongs to the bin above it, so 1.0 exactly is not below 1.

    Returns
    -------
    tuple of int
        ``len(edges_wad) + 1`` counts.
    """
    counts = [0] * (len(edges_wad) + 1)
    for value in health_factors_wad:
        counts[bisect.bisect_right(edges_wad, value)] += 1
    return tuple(counts)


def by_reason(rows: Iterable[LeftRow]) -> Mapping[Reason, int]:
    """Count the accounts left alone by reason, most frequent first; one counts once a reason and market."""
    seen: dict[Reason, set[tuple[str, str]]] = {}
    for row in rows:
        seen.setdefault(row.reason, set()).add((row.protocol, row.account))
    ordered = sorted(seen.items(), key=lambda item: (-len(item[1]), item[0].value))
    return {reason: len(accounts) for reason, accounts in ordered}
