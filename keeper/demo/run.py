"""Runs the demo: chain, world and the keeper's process; then the verifier's process and the record."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from contracts_abi.errors import CheckFailed, ToolError
from keeper import __version__
from keeper.commands.keeper_init import init
from keeper.config import Secret
from keeper.demo.facts import Place, named
from keeper.demo.verify import KeeperClaim, Verification, VerifyJob
from keeper.demo.world import World
from keeper.journal import DecisionEntry, Journal
from keeper.signer import TOY_COST, create_keystore
from oracle.scenario import Scenario
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.guarded import guarded, release, signal_group
from simulation.chain.identity import code_identity
from simulation.chain.market import Deployment
from simulation.chain.seed import SeededState
from simulation.report.record import (
    AssetInfo,
    BlockRow,
    DemoRecord,
    FilledRange,
    Identity,
    JournalCounts,
    LeftRow,
    LiquidationRow,
    WaitingRow,
    fault_windows,
    source_notes,
)
from simulation.types import Reason

KEEPER_BALANCE_WEI = 1_000 * 10**18
READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
TAIL_BLOCKS = 6
"""Blocks mined after the last step, so that what is under way is mined and confirmed."""
TAIL_STEP_S = 12
HARM_TOLERANCE_BPS = 100
MIN_PROFIT_USD = 1

Progress = Callable[[str, float], None]
"""Told what is being done and how much of it is done, 0 to 1."""

_SETTINGS = f"""
[policy]
kind = "three-price"
harm_tolerance_bps = {HARM_TOLERANCE_BPS}

[execution]
min_profit_usd = {MIN_PROFIT_USD}
confirmations = 2
deadline_blocks = 4

[fees]
max_priority_fee_gwei = 2
base_fee_headroom = 2

[limits]
clock = "block"
max_per_block = 64
max_in_flight = 128
max_gas_loss_per_day_eth = 20
max_reverts_per_hour = 64
revert_backoff_blocks = 0
max_reverts_per_account = 20
"""


@dataclass(slots=True)
class KeeperProcess:
    """The keeper in its own process, and what it said."""

    process: subprocess.Popen[str]
    events: list[Mapping[str, Any]] = field(default_factory=list)
    log: Path | None = None
    _ready: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def start(cls, config: Path, log: Path, *, under: Sequence[str] = ()) -> KeeperProcess:
        """Start ``marginline keeper run`` on a configuration; its own log goes to `log`.

        Parameters
        ----------
        under
            Command that the keeper runs under, for example a tracer with its options.
        """
        with log.open("a", encoding="utf-8") as errors:
            command = [sys.executable, "-m", "keeper", "keeper", "run", "--config", str(config), "--json"]
            process = subprocess.Popen(
                guarded([*under, *command]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                env=os.environ | {"NUMBA_NUM_THREADS": "1"},
            )
        keeper = cls(process, log=log)
        assert process.stdout is not None
        threading.Thread(target=keeper._listen, args=(process.stdout,), daemon=True).start()
        return keeper

    def _listen(self, lines: IO[str]) -> None:
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):
                event = json.loads(line)
                self.events.append(event)
                if event.get("event") == "ready":
                    self._ready.set()
        self._ended.set()
        self._ready.set()

    def wait_ready(self) -> None:
        """Wait until the keeper has filled back to the head.

        Raises
        ------
        ToolError
            With its last words, if it ends or does not get there.
        """
        self._ready.wait(READY_TIMEOUT_S)
        if self._ended.is_set() or not self._ready.is_set():
            self.kill()
            words = self.log.read_text(encoding="utf-8").strip().splitlines() if self.log else []
            raise ToolError(f"the keeper did not start: {words[-1] if words else 'no output'}")

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        if self.alive:
            signal_group(self.process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT_S)
        self.kill()
        return int(self.process.wait())

    def kill(self) -> None:
        """End it with -9, at once."""
        signal_group(self.process, signal.SIGKILL)
        self.process.wait()
        release(self.process)


@dataclass(frozen=True, slots=True)
class Stage:
    """A local chain made ready for a keeper.

    Attributes
    ----------
    node, deployment, world
        The chain, the market on it, and what moves it.
    config, owner, liquidator, journal
        The keeper's configuration, its key's address, its contract and its journal.
    """

    node: Anvil
    deployment: Deployment
    world: World
    config: Path
    owner: str
    liquidator: str
    journal: Path


@contextlib.contextmanager
def staged(state: SeededState, scenario: Scenario, folder: Path) -> Iterator[Stage]:
    """Start the chain, fund a fresh key, deploy the keeper's contract and write its configuration."""
    with Anvil.start(AnvilOptions(load_state=state.path)) as node:
        evm = node.evm()
        password = folder / "password"
        password.write_text("local chain only\n", encoding="utf-8")
        keystore = folder / "keystore.json"
        owner = create_keystore(keystore, Secret("local chain only"), cost=TOY_COST)
        evm.set_balance(owner, KEEPER_BALANCE_WEI)
        config = folder / "keeper.toml"
        morpho = state.deployment.morpho
        with contextlib.redirect_stdout(sys.stderr if os.environ.get("MARGINLINE_DEBUG") else _Null()):
            init(
                rpc_url=node.url,
                provider=state.deployment.provider,
                morpho=None if morpho is None else morpho.address,
                morpho_markets=() if morpho is None else tuple(market.id for market in morpho.markets),
                config_file=config,
                uniswap_factory=state.deployment.uniswap.factory,
                router=state.deployment.uniswap.router,
                reference=tuple(f"{s}={a.reference_feed}" for s, a in state.deployment.assets.items()),
                keystore=keystore,
                password_file=password,
                receiver=None,
                deploy=True,
                as_json=True,
            )
        text = config.read_text(encoding="utf-8")
        text = text.replace('mode = "observe"', 'mode = "live"', 1)
        text = text.replace("[rpc]\n", "[rpc]\npoll_interval_s = 0.02\n", 1)
        config.write_text(text + _SETTINGS, encoding="utf-8")
        liquidator = _liquidator_of(text)
        node.rpc.call("evm_setAutomine", [False])
        world = World(node.evm(), state.deployment, scenario)
        world.prepare()
        yield Stage(
            node, state.deployment, world, config, owner, liquidator, folder / "keeper-journal.sqlite"
        )


class _Null:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        return None


def _liquidator_of(text: str) -> str:
    line = next(line for line in text.splitlines() if line.startswith("liquidator = "))
    return str(json.loads(line.partition("=")[2].strip()))


@dataclass(frozen=True, slots=True)
class Played:
    """What the run left behind.

    Attributes
    ----------
    first_block, last_block
        Blocks that belong to the scenario, tail included.
    times
        Block to scenario time.
    late
        Blocks that were mined later than their turn, because the machine was busy.
    """

    first_block: int
    last_block: int
    late: int


def play(stage: Stage, scenario: Scenario, pace_s: float, progress: Progress) -> Played:
    """Mine the scenario at a fixed pace that waits for nobody."""
    steps = scenario.steps()
    started = time.monotonic()
    first = last = late = 0
    for i, t in enumerate(steps):
        last = stage.world.step(t).block
        first = first or last
        progress("mining the crash", (i + 1) / len(steps))
        late += not _sleep_until(started + (i + 1) * pace_s)
    for i in range(TAIL_BLOCKS):
        last = stage.world.mine(steps[-1] + (i + 1) * TAIL_STEP_S)
        _sleep_until(time.monotonic() + pace_s)
    return Played(first, last, late)


def _sleep_until(moment: float) -> bool:
    """Sleep until a moment of the monotonic clock; return whether it was still to come."""
    left = moment - time.monotonic()
    if left > 0:
        time.sleep(left)
    return left > 0


def run(
    state: SeededState, scenario: Scenario, *, seed: int, pace_s: float, progress: Progress, log: Path | None
) -> DemoRecord:
    """Run the whole demo and return its record.

    Raises
    ------
    CheckFailed
        If the keeper ended on its own during the run.
    """
    timings: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(phase: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        timings[phase] = round(time.monotonic() - started, 3)

    with tempfile.TemporaryDirectory(prefix="marginline-demo-") as name:
        folder = Path(name)
        with contextlib.ExitStack() as stack:
            with timed("chain"):
                progress("starting the chain", 0.0)
                stage = stack.enter_context(staged(state, scenario, folder))
            keeper_log = log or folder / "keeper.log"
            with timed("keeper_start"):
                progress("starting the keeper", 0.0)
                keeper = KeeperProcess.start(stage.config, keeper_log)
                stack.callback(keeper.kill)
                keeper.wait_ready()
            with timed("mining"):
                played = play(stage, scenario, pace_s, progress)
            died = not keeper.alive
            keeper.stop()
            if died:
                words = keeper_log.read_text(encoding="utf-8").strip().splitlines()
                raise CheckFailed(f"the keeper ended during the run: {words[-1] if words else 'no output'}")
            with timed("verification"):
                found = verify(stage, played, folder, progress)
            timings["keeper_head_p50_ms"] = _median(
                [e["own_ms"] for e in keeper.events if e["event"] == "head"]
            )
            timings["late_blocks"] = played.late
            return _record(stage, scenario, seed, found, timings)


def verify(stage: Stage, played: Played, folder: Path, progress: Progress) -> Verification:
    """Run the verifier in its own process."""
    with Journal.read_only(stage.journal) as journal:
        claims = tuple(
            KeeperClaim(
                intent_id=i.intent_id,
                protocol=i.protocol,
                account=i.account,
                simulated_profit_raw=i.simulated_profit_raw,
                decided_block=i.decided_block,
            )
            for i in journal.intents()
        )
    job = VerifyJob(
        rpc_url=stage.node.url,
        deployment=stage.deployment.to_json(),
        liquidator=stage.liquidator,
        owner=stage.owner,
        first_block=played.first_block,
        last_block=played.last_block,
        tolerance_bps=HARM_TOLERANCE_BPS,
        min_profit_usd=MIN_PROFIT_USD,
        claims=claims,
    )
    wanted, out = folder / "verify-job.json", folder / "verification.json"
    wanted.write_text(job.model_dump_json(), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "keeper.demo.verify", str(wanted), str(out)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stdout:
        done, _, total = line.partition("/")
        progress("verifying block by block", int(done) / int(total))
    words = process.stderr.read()
    if process.wait() not in (0, 1) or not out.exists():
        raise CheckFailed(f"the verifier failed: {words.strip().splitlines()[-1] if words else 'no output'}")
    return Verification.model_validate_json(out.read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------- the record


def _record(
    stage: Stage,
    scenario: Scenario,
    seed: int,
    found: Verification,
    timings: Mapping[str, float],
) -> DemoRecord:
    with Journal.read_only(stage.journal) as journal:
        decisions = journal.decisions()
        intents = journal.intents()
        claims = {i.intent_id: i for i in intents}
        counts = JournalCounts(
            intents=len(intents),
            attempts=sum(len(a) for a in journal.attempts(list(claims)).values()),
            by_state={s.value: n for s, n in journal.counts().items()},
        )
    blocks = tuple(
        row.model_copy(update={"market_e8": stage.world.truth_e8(min(row.timestamp, scenario.steps()[-1]))})
        for row in found.blocks
    )
    waits = [w for w in found.waits if w.allowed_block is None or w.allowed_block > w.armed_block + 1]
    identity = code_identity(stage.node.evm(), stage.deployment)
    return DemoRecord(
        tool_version=__version__,
        seed=seed,
        scenario_id=scenario.id,
        scenario_title=scenario.title,
        scenario_sha256=scenario.sha256,
        provenance=source_notes(scenario),
        chain_id=stage.deployment.chain_id,
        code_hashes=dict(stage.deployment.code_hashes),
        identity=Identity(
            contract=identity.contract,
            package=identity.package,
            address=identity.address,
            runtime_equal=identity.runtime_equal,
            filled=tuple(FilledRange(what=f.what, offset=f.offset, length=f.length) for f in identity.filled),
        ),
        assets={
            symbol: AssetInfo(
                address=a.address, decimals=a.decimals, pair=scenario.assets[symbol].pair or f"{symbol}/USD"
            )
            for symbol, a in stage.deployment.assets.items()
        },
        faults=fault_windows(scenario),
        accounts=len(found.borrowers),
        protocols=found.protocols,
        blocks=blocks,
        liquidations=tuple(
            LiquidationRow(
                block=row.block,
                timestamp=row.timestamp,
                protocol=row.protocol,
                account=row.account,
                intent_id=row.intent_id,
                tx_hash=row.tx_hash,
                collateral=row.collateral,
                debt=row.debt,
                debt_covered_raw=row.debt_covered_raw,
                seized_raw=row.seized_raw,
                full=row.full,
                gas_used=row.gas_used,
                gas_price_wei=row.gas_price_wei,
                profit_simulated_raw=claims[row.intent_id].simulated_profit_raw,
                profit_realised_raw=row.profit_raw,
                profit_resimulated_raw=row.resimulated_profit_raw,
                profit_decimals=stage.deployment.assets[row.debt].decimals,
                profit_usd_e8=row.profit_usd_e8,
                gas_usd_e8=row.gas_usd_e8,
                debt_covered_usd_e8=row.debt_covered_usd_e8,
                impact_bps=row.impact_bps,
            )
            for row in found.liquidations
        ),
        accounts_left=tuple(_left(decisions, found, blocks)),
        waiting=tuple(
            WaitingRow(
                protocol=w.protocol,
                account=w.account,
                asset=_stale_asset(next(b for b in blocks if b.number == w.armed_block)),
                armed_block=w.armed_block,
                allowed_block=w.allowed_block,
                acted_block=w.acted_block,
                blocks_waited=(w.acted_block or blocks[-1].number) - w.armed_block,
                cost_usd_e8=w.cost_usd_e8,
            )
            for w in waits
        ),
        bad_debt_base=found.bad_debt_base,
        cost_of_waiting_base=sum(w.cost_usd_e8 for w in waits),
        cost_of_waiting_rule=(
            "equity at reference prices that an account lost between the block in which it was due and the "
            "first block in which the protocol allowed a liquidation"
        ),
        invariants=found.invariants,
        journal=counts,
        timings_s=dict(timings),
    )


_NOT_LEFT = frozenset({Reason.LIQUIDATE, Reason.DUPLICATE})


def _left(
    decisions: Sequence[DecisionEntry],
    found: Verification,
    blocks: Sequence[BlockRow],
) -> Iterator[LeftRow]:
    """Yield, by market and account, the ranges of blocks in which it was left alone for one reason."""
    first, last = blocks[0].number, blocks[-1].number
    by_place: dict[Place, list[DecisionEntry]] = {place: [] for place in found.borrowers}
    for entry in decisions:
        by_place.setdefault((entry.protocol, entry.account), []).append(entry)
    for (protocol, account), entries in by_place.items():
        if not entries:
            # The keeper writes a decision when it changes; here, says the verifier, nothing did.
            if named((protocol, account)) not in found.liquidatable:
                yield LeftRow(
                    protocol=protocol,
                    account=account,
                    reason=Reason.HEALTHY,
                    first_block=first,
                    last_block=last,
                )
            continue
        ends = [after.block - 1 for _, after in pairwise(entries)] + [last]
        for entry, end in zip(entries, ends, strict=True):
            begin = max(entry.block, first)
            if Reason(entry.reason) not in _NOT_LEFT and begin <= end:
                yield LeftRow(
                    protocol=protocol,
                    account=account,
                    reason=Reason(entry.reason),
                    first_block=begin,
                    last_block=end,
                    detail=entry.detail,
                )


def _stale_asset(block: BlockRow) -> str:
    """Return the token whose protocol price stands highest above its reference."""

    def gap(symbol: str) -> float:
        protocol, reference = block.protocol_e8[symbol], block.reference_e8[symbol]
        return protocol / reference if protocol and reference else 0.0

    return max(block.protocol_e8, key=gap)


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0
