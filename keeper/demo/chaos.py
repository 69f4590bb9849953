"""Kills the keeper at random moments and counts on the chain what was done twice or lost.

The market falls a little with every kill, so that there is always something to do, and blocks go on being
mined while the keeper is down. What counts as executed comes from the contract's events; what counts as
intended, from the journal; each transaction of the keeper's key on the chain must stand in both.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from contracts_abi.errors import CheckFailed, RpcError
from contracts_abi.liquidator import LIQUIDATED
from keeper.demo.run import KeeperProcess, Stage, staged
from keeper.journal import Journal
from keeper.types import FINAL_STATES
from oracle.scenario import Scenario, parse_scenario
from simulation.chain.market import DEFAULT_MARKET, GENESIS
from simulation.chain.rpc import hexed, quantity
from simulation.chain.seed import SeededState

STEP_S = 900
"""Chain time between two falls; blocks in between take a second each, so this is also the most of them."""
PACE_S = 0.25
LONGEST_WAIT_S = 1.2
"""A kill comes at a random moment within this long after a fall of the market."""
SETTLE_TIMEOUT_S = 60.0
TRACED_STEPS = 4
TRACED_PATIENCE_S = 10.0
FALL = 0.45
"""Price at the end as a part of the price at the start."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class TraceResult:
    """What the system calls of the traced keeper say.

    Attributes
    ----------
    sends
        Requests that carried signed transactions.
    unsynced
        Of these, those before which the journal had been written and not synced to disk.
    """

    sends: int
    unsynced: int


@dataclass(frozen=True, slots=True)
class ChaosResult:
    """What a run came to.

    Attributes
    ----------
    kills, seed
        As asked for.
    intents, executed
        Intents in the journal, and those of them that the contract executed.
    duplicates
        Executions of an intent beyond its first, and attempts at one that was executed before.
    lost
        Intents without a final state after the last restart, and transactions of the key on the chain that
        the journal does not know.
    killed_in_flight
        Kills that found an intent written ahead and not mined.
    slowest_restart_s
        Longest time from a start to being ready.
    trace
        None when no tracer is installed.
    by_state
        Intents by state.
    by_protocol
        Executed intents by market.
    """

    kills: int
    seed: int
    intents: int
    executed: int
    duplicates: int
    lost: int
    killed_in_flight: int
    slowest_restart_s: float
    trace: TraceResult | None
    by_state: dict[str, int]
    by_protocol: dict[str, int]

    @property
    def passed(self) -> bool:
        """Whether nothing was done twice, nothing lost, and nothing sent before it was on disk."""
        return not (self.duplicates or self.lost or (self.trace and self.trace.unsynced))

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        trace = self.trace and {"sends": self.trace.sends, "unsynced": self.trace.unsynced}
        return {**{name: getattr(self, name) for name in self.__slots__}, "trace": trace}


def falling_market(steps: int) -> Scenario:
    """Return a made-up scenario in which everything but the dollars falls evenly over `steps`."""
    start = GENESIS + STEP_S
    first, last = (
        datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for t in (start, start + steps * STEP_S)
    )
    lines = [
        'schema = "oracle-scenario/1"',
        'id = "chaos"',
        'title = "An even fall, made up to keep a keeper busy"',
        "[chain]",
        "id = 1",
        'kind = "l1"',
        "block_time_s = 13",
        "[clock]",
        f"start = {first}",
        f"end = {last}",
        f"step_s = {STEP_S}",
        "[assets]",
    ]
    lines += [f"{a.symbol} = {{ decimals = {a.decimals} }}" for a in DEFAULT_MARKET.assets]
    for asset in DEFAULT_MARKET.assets:
        end_e8 = asset.price_e8 if asset.symbol in ("USDC", "DAI") else int(asset.price_e8 * FALL)
        points = ", ".join(
            f'{{ t = {t}, price = "{price / 1e8:.8f}", status = "stated", source = "made up" }}'
            for t, price in ((first, asset.price_e8), (last, end_e8))
        )
        pair = f"{asset.symbol}/USD"
        lines += [f'[truth."{pair}"]', f"points = [{points}]"]
        for role, name, bps in (("protocol", pair, 50), ("reference", f"{pair} reference", 10)):
            lines += [
                f'[feeds."{name}"]',
                'kind = "chainlink"',
                f'pair = "{pair}"',
                f'role = "{role}"',
                "decimals = 8",
                "heartbeat_s = 3600",
                f"deviation_bps = {bps}",
            ]
    fees = ", ".join(
        f'{{ t = {t}, base_fee_gwei = "10", status = "stated", source = "made up" }}' for t in (first, last)
    )
    lines += ["[gas]", f"points = [{fees}]"]
    return parse_scenario("\n".join(lines).encode(), "chaos scenario")


class _Miner(threading.Thread):
    """Mines at a fixed pace and lets the market fall one step whenever it is told to."""

    def __init__(self, stage: Stage, scenario: Scenario) -> None:
        super().__init__(daemon=True)
        self._stage = stage
        self._steps = iter(scenario.steps())
        self._time = stage.node.evm().timestamp()
        self._fall = threading.Event()
        self._halt = threading.Event()
        self.fallen = threading.Event()
        self.error: BaseException | None = None

    def fall(self) -> None:
        """Let the market fall with the next block, and wait until it has."""
        self.fallen.clear()
        self._fall.set()
        self.fallen.wait()
        if self.error is not None:
            raise self.error

    def halt(self) -> None:
        """Stop mining."""
        self._halt.set()
        self.join()

    def run(self) -> None:
        """Mine until halted."""
        try:
            while not self._halt.wait(PACE_S):
                step = next(self._steps, None) if self._fall.is_set() else None
                if step is not None:
                    self._stage.world.step(step)
                    self._time = step
                else:
                    self._time += 1
                    self._stage.world.mine(self._time)
                if self._fall.is_set():
                    self._fall.clear()
                    self.fallen.set()
        except BaseException as error:  # handed to the thread that waits for it
            self.error = error
            self.fallen.set()
            raise


def run(state: SeededState, *, kills: int, seed: int, trace: bool, progress: Progress) -> ChaosResult:
    """Run the kills, restart once more, let everything settle, and count.

    Raises
    ------
    CheckFailed
        If the keeper does not come up again.
    """
    rng = np.random.default_rng(seed)
    scenario = falling_market(kills + TRACED_STEPS + 1)
    with tempfile.TemporaryDirectory(prefix="marginline-chaos-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        stage = stack.enter_context(staged(state, scenario, folder))
        log = folder / "keeper.log"
        miner = _Miner(stage, scenario)
        miner.start()
        stack.callback(miner.halt)
        slowest, in_flight = 0.0, 0
        for kill in range(kills):
            slowest = max(slowest, _start_and_kill(stage, miner, log, float(rng.uniform(0, LONGEST_WAIT_S))))
            with Journal.read_only(stage.journal) as journal:
                in_flight += bool(journal.open_intents())
            progress("killing the keeper", (kill + 1) / kills)
        traced = None
        if trace:
            progress("tracing its system calls", 1.0)
            traced = _traced(stage, miner, folder)
        progress("letting it settle", 1.0)
        keeper = KeeperProcess.start(stage.config, log)
        stack.callback(keeper.kill)
        keeper.wait_ready()
        _settle(stage)
        keeper.stop()
        miner.halt()
        return _count(stage, kills=kills, seed=seed, slowest=slowest, in_flight=in_flight, trace=traced)


def _start_and_kill(stage: Stage, miner: _Miner, log: Path, wait_s: float) -> float:
    """Start the keeper, let the market fall, kill it `wait_s` later; return how long the start took."""
    started = time.monotonic()
    keeper = KeeperProcess.start(stage.config, log)
    try:
        keeper.wait_ready()
        ready = time.monotonic() - started
        miner.fall()
        time.sleep(wait_s)
        if not keeper.alive:
            words = log.read_text(encoding="utf-8").strip().splitlines()
            raise CheckFailed(f"chaos: the keeper ended by itself: {words[-1] if words else 'no output'}")
    finally:
        keeper.kill()
    return ready


def _settle(stage: Stage) -> None:
    """Wait until no intent is open, or the time is up; what is open then counts as lost."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    quiet_since: float | None = None
    while time.monotonic() < deadline:
        with Journal.read_only(stage.journal) as journal:
            opened = journal.open_intents()
        if opened:
            quiet_since = None
        elif quiet_since is None:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > 8 * PACE_S:
            return
        time.sleep(PACE_S)


def _count(
    stage: Stage, *, kills: int, seed: int, slowest: float, in_flight: int, trace: TraceResult | None
) -> ChaosResult:
    with Journal.read_only(stage.journal) as journal:
        intents = journal.intents()
        known = journal.tx_hashes()
        counts = {state.value: n for state, n in journal.counts().items() if n}
    executed = Counter(_executed(stage))
    sent = {tx["hash"]: tx for tx in _transactions(stage)}
    ids = {i.intent_id for i in intents}
    foreign = [h for h, tx in sent.items() if h not in known and tx["to"] is not None]
    unfinished = [i for i in intents if i.state not in FINAL_STATES]
    return ChaosResult(
        kills=kills,
        seed=seed,
        intents=len(intents),
        executed=len(executed),
        duplicates=sum(n - 1 for n in executed.values()),
        lost=len(unfinished) + len(foreign) + sum(1 for intent in executed if intent not in ids),
        killed_in_flight=in_flight,
        slowest_restart_s=round(slowest, 2),
        trace=trace,
        by_state=counts,
        by_protocol=dict(Counter(i.protocol for i in intents if i.intent_id in executed)),
    )


def _executed(stage: Stage) -> Iterator[str]:
    query = {
        "address": stage.liquidator,
        "topics": [hexed(LIQUIDATED.topic)],
        "fromBlock": "0x0",
        "toBlock": "latest",
    }
    for log in stage.node.rpc.call("eth_getLogs", [query]):
        yield str(log["topics"][1])


def _transactions(stage: Stage) -> Iterator[dict[str, Any]]:
    """Yield every mined transaction of the keeper's key."""
    head = int(stage.node.rpc.call("eth_blockNumber"), 16)
    owner = stage.owner.lower()
    for start in range(0, head + 1, 500):
        numbers = range(start, min(start + 500, head + 1))
        blocks = stage.node.rpc.batch([("eth_getBlockByNumber", [quantity(n), True]) for n in numbers])
        for block in blocks:
            if isinstance(block, RpcError):
                raise block
            yield from (tx for tx in block["transactions"] if tx["from"].lower() == owner)


# ------------------------------------------------------------------------------------------------- tracing

_CALL = re.compile(r"(?P<call>pwrite64|write|fsync|fdatasync|sendto|sendmsg|writev)\((?P<rest>.*)")


def _traced(stage: Stage, miner: _Miner, folder: Path) -> TraceResult | None:
    """Run the keeper under a tracer for a few falls of the market; None when there is no tracer."""
    strace = shutil.which("strace")
    if strace is None:
        return None
    out = folder / "trace"
    calls = "trace=pwrite64,write,writev,fsync,fdatasync,sendto,sendmsg"
    under = [strace, "-f", "-y", "-s", "200", "-e", calls, "-o", str(out)]
    keeper = KeeperProcess.start(stage.config, folder / "keeper.log", under=under)
    try:
        keeper.wait_ready()
        for _ in range(TRACED_STEPS):
            before = _intents(stage)
            miner.fall()
            # Under a tracer everything takes longer: give it the time to act on this fall.
            deadline = time.monotonic() + TRACED_PATIENCE_S
            while _intents(stage) == before and time.monotonic() < deadline:
                time.sleep(PACE_S)
    finally:
        keeper.stop()
    return read_trace(out.read_text(encoding="utf-8", errors="replace").splitlines())


def _intents(stage: Stage) -> int:
    with Journal.read_only(stage.journal) as journal:
        return sum(journal.counts().values())


def read_trace(lines: Sequence[str]) -> TraceResult:
    """Count the sends in a trace, and those that overtook a write to the journal.

    A send may only happen when everything written to the journal's write-ahead log before it was synced.
    """
    dirty = False
    written = False
    sends = unsynced = 0
    for line in lines:
        match = _CALL.search(line)
        if match is None:
            continue
        call, rest = match["call"], match["rest"]
        if "sqlite-wal>" in rest.partition(",")[0] or "sqlite-wal>)" in rest:
            if call in ("fsync", "fdatasync"):
                dirty = False
            else:
                dirty = written = True
        elif "eth_sendRawTransaction" in rest:
            sends += 1
            unsynced += dirty or not written
    return TraceResult(sends, unsynced)
