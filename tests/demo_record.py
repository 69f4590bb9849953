"""A made-up but plausible demo record, for the report's tests. Nothing here ran on a chain."""

from __future__ import annotations

import hashlib

import numpy as np

from oracle.scenario import base_fee_wei, feed_name, feed_rounds, load_scenario, truth_e8
from simulation.fixed_point import WAD
from simulation.report.record import (
    AssetInfo,
    BlockRow,
    DemoRecord,
    FilledRange,
    Identity,
    Invariant,
    JournalCounts,
    LeftRow,
    LiquidationRow,
    WaitingRow,
    fault_windows,
    hf_counts,
    source_notes,
)
from simulation.types import Reason

THRESHOLD = {"WETH": 0.825, "WBTC": 0.75, "wstETH": 0.80}
BONUS = {"WETH": 0.05, "WBTC": 0.10, "wstETH": 0.06}
GAS_UNITS = 620_000


def _hex(*parts: object, size: int = 32) -> str:
    return "0x" + hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[: 2 * size]


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Join ascending numbers into ranges without gaps."""
    out: list[tuple[int, int]] = []
    for n in numbers:
        if out and out[-1][1] == n - 1:
            out[-1] = (out[-1][0], n)
        else:
            out.append((n, n))
    return out


def synthetic_record(
    seed: int = 7, accounts: int = 200, scenario_id: str = "black-thursday-2020-03-12"
) -> DemoRecord:
    """Play the scenario over a crude book: one collateral and one stable debt for each account."""
    rng = np.random.default_rng(seed)
    scenario = load_scenario(scenario_id)
    symbols = list(scenario.assets)
    pairs = {s: spec.pair or "" for s, spec in scenario.assets.items()}
    rounds = {
        role: {
            s: {r.t: r.answer_e8 for r in feed_rounds(scenario, feed_name(scenario, pairs[s], role))}
            for s in symbols
        }
        for role in ("protocol", "reference")
    }

    names = [_hex("account", seed, i, size=20) for i in range(accounts)]
    collateral = rng.choice(["WETH", "WBTC", "wstETH"], size=accounts, p=[0.62, 0.22, 0.16])
    debt_symbol = rng.choice(["USDC", "DAI"], size=accounts, p=[0.7, 0.3])
    debt = np.exp(rng.normal(8.6, 1.5, size=accounts))
    debt[:4] = [22.0, 31.0, 45.0, 58.0]
    debt[4:9] = [160_000.0, 90_000.0, 240_000.0, 75_000.0, 120_000.0]
    debt[rng.random(accounts) < 0.06] = 0.0
    hf0 = 1.06 + rng.gamma(2.0, 0.33, size=accounts)
    hf0[4:9] = [1.18, 1.35, 1.52, 1.24, 1.75]
    hf0[:4] = [1.2, 1.3, 1.15, 1.4]
    price0 = {s: truth_e8(scenario, pairs[s], scenario.clock.start)[0] / 1e8 for s in symbols}
    lt = np.array([THRESHOLD[c] for c in collateral])
    units = np.where(debt > 0, debt, 5_000.0) * hf0 / lt / np.array([price0[c] for c in collateral])

    protocol = dict.fromkeys(symbols, 0)
    reference = dict.fromkeys(symbols, 0)
    pressure = dict.fromkeys(symbols, 0.0)
    blocks: list[BlockRow] = []
    liquidations: list[LiquidationRow] = []
    left: dict[tuple[str, Reason], list[int]] = {}
    armed: dict[int, int] = {}
    waiting: list[WaitingRow] = []

    for i, t in enumerate(scenario.steps()):
        number = 100 + i
        market = {s: truth_e8(scenario, pairs[s], t)[0] for s in symbols}
        for s in symbols:
            protocol[s] = rounds["protocol"][s].get(t, protocol[s])
            reference[s] = rounds["reference"][s].get(t, reference[s])
            pressure[s] *= 0.6
        executable = {s: round(market[s] * (1 - 0.0005 - pressure[s])) for s in symbols}
        fee = base_fee_wei(scenario, t)

        p = np.array([protocol[c] / 1e8 for c in collateral])
        r = np.array([reference[c] / 1e8 for c in collateral])
        with np.errstate(divide="ignore"):
            hf = np.where(debt > 0, units * p * lt / debt, np.inf)
            hf_reference = np.where(debt > 0, units * r * lt / debt, np.inf)
        gas_usd = GAS_UNITS * (fee + 2 * 10**9) / 1e18 * market["WETH"] / 1e8

        for k in np.flatnonzero((hf < 1) | (hf_reference < 1)):
            k = int(k)
            c, d = str(collateral[k]), str(debt_symbol[k])
            if hf[k] >= 1:
                armed.setdefault(k, number)
                left.setdefault((names[k], Reason.PROTOCOL_PRICE_STALE_HIGH), []).append(number)
                continue
            if hf_reference[k] >= 1.02:
                left.setdefault((names[k], Reason.PROTOCOL_PRICE_LOW), []).append(number)
                continue
            full = bool(hf[k] < 0.95)
            repaid = min(debt[k] if full else debt[k] / 2, units[k] * p[k] / (1 + BONUS[c]))
            impact = 0.0006 + repaid / 1.5e8
            profit = repaid * (BONUS[c] * 0.9 - impact - 0.0005) + repaid * (executable[c] / protocol[c] - 1)
            if profit < gas_usd:
                left.setdefault((names[k], Reason.UNPROFITABLE), []).append(number)
                continue
            decimals = scenario.assets[d].decimals
            seized = repaid * (1 + BONUS[c] * 0.9) / p[k]
            raw = round(profit * 10**decimals)
            liquidations.append(
                LiquidationRow(
                    block=number,
                    timestamp=t,
                    account=names[k],
                    intent_id=_hex("intent", number, k),
                    tx_hash=_hex("tx", number, k),
                    collateral=c,
                    debt=d,
                    debt_covered_raw=round(repaid * 10**decimals),
                    seized_raw=round(seized * 10 ** scenario.assets[c].decimals),
                    full=full,
                    gas_used=GAS_UNITS + int(rng.integers(-40_000, 40_000)),
                    gas_price_wei=fee + 2 * 10**9,
                    profit_simulated_raw=round(raw * (1 + abs(rng.normal(0, 0.004)))),
                    profit_realised_raw=raw,
                    profit_resimulated_raw=raw,
                    profit_decimals=decimals,
                    profit_usd_e8=round(profit * 1e8),
                    gas_usd_e8=round(gas_usd * 1e8),
                    debt_covered_usd_e8=round(repaid * 1e8),
                    impact_bps=round(impact * 1e4),
                )
            )
            if k in armed:
                since = armed.pop(k)
                waiting.append(
                    WaitingRow(
                        account=names[k],
                        asset=c,
                        armed_block=since,
                        acted_block=number,
                        blocks_waited=number - since,
                        cost_usd_e8=round(repaid * 0.004 * 1e8),
                        detail="acted in the first block in which the protocol allowed it",
                    )
                )
            debt[k] = 0.0 if full or debt[k] - repaid < 1 else debt[k] - repaid
            units[k] = max(0.0, units[k] - seized)
            pressure[c] += repaid / 6e7

        with_debt = debt > 0
        value = units * r
        blocks.append(
            BlockRow(
                number=number,
                timestamp=t,
                base_fee_wei=fee,
                market_e8=market,
                protocol_e8=dict(protocol),
                reference_e8={s: None if s == "DAI" and 30 <= i < 34 else v for s, v in reference.items()},
                executable_e8=executable,
                hf_counts=hf_counts(int(h * WAD) for h in hf[np.isfinite(hf)]),
                no_debt=int((~np.isfinite(hf)).sum()),
                liquidatable=int((hf < 1).sum()),
                liquidatable_at_reference=int((hf_reference < 1).sum()),
                collateral_base=int(value.sum() * 1e8),
                debt_base=int(debt.sum() * 1e8),
                bad_debt_base=int(np.maximum(0, debt - value)[with_debt].sum() * 1e8),
            )
        )

    acted = {row.account for row in liquidations}
    last = blocks[-1].number
    rows = [
        LeftRow(account=a, reason=reason, first_block=first, last_block=end, detail=DETAIL[reason])
        for (a, reason), numbers in left.items()
        for first, end in _runs(numbers)
    ]
    seen = acted | {row.account for row in rows}
    for k, name in enumerate(names):
        if name not in seen:
            reason = Reason.NO_DEBT if debt[k] == 0 else Reason.HEALTHY
            rows.append(
                LeftRow(account=name, reason=reason, first_block=100, last_block=last, detail=DETAIL[reason])
            )
    cost = sum(w.cost_usd_e8 for w in waiting)
    return DemoRecord(
        tool_version="0.1.0",
        seed=seed,
        scenario_id=scenario.id,
        scenario_title=scenario.title,
        scenario_sha256=scenario.sha256,
        provenance=source_notes(scenario),
        chain_id=31337,
        code_hashes={
            name: _hex(name) for name in ("Pool", "Liquidator", "PriceFeed", "AccountLens", "SwapRouter")
        },
        identity=Identity(
            contract="Pool",
            package="@aave/core-v3@1.19.3",
            address=_hex("pool", size=20),
            runtime_equal=True,
            filled=(
                FilledRange(what="BorrowLogic", offset=1203, length=20),
                FilledRange(what="LiquidationLogic", offset=4711, length=20),
                FilledRange(what="ADDRESSES_PROVIDER", offset=812, length=32),
            ),
        ),
        assets={
            s: AssetInfo(address=_hex(s, size=20), decimals=spec.decimals, pair=pairs[s])
            for s, spec in scenario.assets.items()
        },
        faults=fault_windows(scenario),
        accounts=accounts,
        blocks=tuple(blocks),
        liquidations=tuple(liquidations),
        accounts_left=tuple(rows),
        waiting=tuple(waiting),
        bad_debt_base=blocks[-1].bad_debt_base,
        cost_of_waiting_base=cost,
        cost_of_waiting_rule="The cost counted is four thousandths of the debt repaid, for show.",
        invariants={
            "no_profitable_account_left": Invariant(
                ok=True,
                checked=len(blocks) * accounts,
                description="no profitable account that the policy allows is left beyond two blocks",
            ),
            "once": Invariant(ok=True, checked=len(liquidations), description="no intent is executed twice"),
            "profit_resimulated": Invariant(
                ok=True,
                checked=len(liquidations),
                description="realised profit equals a re-simulation in the block's actual order",
            ),
            "policy_kept": Invariant(
                ok=True, checked=len(liquidations), description="no account is acted on against the policy"
            ),
        },
        journal=JournalCounts(
            intents=len(liquidations),
            attempts=len(liquidations) + 4,
            by_state={"confirmed": len(liquidations)},
        ),
        timings_s={"chain": 0.21, "seed": 0.4, "play": 36.5, "verify": 4.1, "report": 0.3},
    )


DETAIL = {
    Reason.PROTOCOL_PRICE_STALE_HIGH: "the protocol's feed is stale above the reference; armed",
    Reason.PROTOCOL_PRICE_LOW: "the protocol's price is 30 % below the reference; held, alerted",
    Reason.UNPROFITABLE: "best plan pays less than its gas",
    Reason.HEALTHY: "never below 1",
    Reason.NO_DEBT: "owes nothing",
}
