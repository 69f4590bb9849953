"""A feed's history pulled from a local chain, with Chainlink's own contracts on it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import threading
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from contracts_abi.errors import InputError, RpcUnavailable
from contracts_abi.feeds import CONFIRM_AGGREGATOR, PROPOSE_AGGREGATOR, join_round_id
from keeper.clock import ManualClock
from keeper.commands.oracle_pull import Files, Paced, exact_text, pull
from keeper.rpc import Node
from oracle.mechanisms import mechanisms
from oracle.sources import sources
from oracle.truth import TruthFile
from oracle.types import PriceObs
from simulation.chain.anvil import Anvil, AnvilEvm, AnvilOptions
from simulation.chain.artifacts import chainlink
from simulation.chain.evm import ZERO_ADDRESS, labelled_address, transact
from simulation.chain.market import GENESIS
from simulation.chain.parity.oracle_chainlink import CHANGE_ORACLES, SUBMIT, UPDATE_ROUND_DATA
from simulation.chain.rpc import JsonRpc
from tests.command_line import Inside, command, environment

OWNER = labelled_address("feed owner")
FIRST, SECOND = (labelled_address(f"feed oracle {i}") for i in range(2))
E8 = 10**8
TIMEOUT_S = 120

Told = tuple[int, int, int]
"""Round id, answer, time of update."""


@dataclass
class Live:
    """A chain with a proxy that went through three phases, and the rounds that it told, newest first."""

    node: Anvil
    evm: AnvilEvm
    proxy: str = ""
    told: list[Told] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)

    def flux(self, *oracles: str) -> str:
        code = chainlink("FluxAggregator").creation_code(
            *(ZERO_ADDRESS, 0, TIMEOUT_S, ZERO_ADDRESS, 1, 10**12, 8, "ETH / USD")
        )
        address = self.evm.create(OWNER, code)
        transact(
            self.evm, OWNER, address, CHANGE_ORACLES, [], oracles, oracles, len(oracles), len(oracles), 0
        )
        return address

    def later(self, seconds: int = 600) -> None:
        self.evm.warp(self.evm.timestamp() + seconds)

    def submit(self, flux: str, round_: int, answer: int, *oracles: str) -> int:
        self.later()
        for oracle in oracles:
            transact(self.evm, oracle, flux, SUBMIT, round_, answer)
        return self.mined_at()

    def mined_at(self) -> int:
        return Node.connect(self.node.url).head().timestamp

    def update(self, mock: str, round_: int, answer: int) -> int:
        self.later()
        time = self.evm.timestamp()
        transact(self.evm, OWNER, mock, UPDATE_ROUND_DATA, round_, answer, time, time)
        return time

    def tell(self, phase: int, round_: int, answer: int, time: int) -> None:
        self.told.insert(0, (join_round_id(phase, round_), answer, time))

    def take(self, aggregator: str) -> None:
        self.later()
        transact(self.evm, OWNER, self.proxy, PROPOSE_AGGREGATOR, aggregator)
        transact(self.evm, OWNER, self.proxy, CONFIRM_AGGREGATOR, aggregator)
        self.phases.append(aggregator)


@pytest.fixture(scope="module")
def node() -> Iterator[Anvil]:
    with Anvil.start(AnvilOptions(timestamp=GENESIS)) as running:
        yield running


@pytest.fixture(scope="module")
def live(node: Anvil) -> Live:
    chain = Live(node, node.evm())
    # Phase 1: a flux aggregator of two oracles, whose first round only one of them answers.
    flux = chain.flux(FIRST, SECOND)
    chain.submit(flux, 1, 200 * E8, FIRST)
    chain.later(TIMEOUT_S + 1)
    chain.proxy = chain.evm.create(OWNER, chainlink("EACAggregatorProxy").creation_code(flux, ZERO_ADDRESS))
    chain.phases.append(flux)
    for i in range(2, 30):
        answer = (200 + i) * E8 + i
        chain.tell(1, i, answer, chain.submit(flux, i, answer, FIRST, SECOND))
    # Phase 2: a mock that has told round 1 before it is taken, and leaves out rounds 5 and 6.
    mock = chain.evm.create(OWNER, chainlink("MockV3Aggregator").creation_code(8, 250 * E8))
    chain.tell(2, 1, 250 * E8, chain.mined_at())
    chain.take(mock)
    chain.submit(flux, 30, 333 * E8, FIRST, SECOND)
    for i in (2, 3, 4, 7, 8):
        chain.tell(2, i, (250 + i) * E8, chain.update(mock, i, (250 + i) * E8))
    # Phase 3: another flux aggregator, whose first rounds are from before; the mock goes on for one more.
    late = chain.flux(FIRST)
    for i in (1, 2):
        chain.submit(late, i, 300 * E8, FIRST)
    chain.tell(2, 9, 259 * E8, chain.update(mock, 9, 259 * E8))
    chain.take(late)
    chain.update(mock, 10, 444 * E8)
    for i in range(3, 12):
        chain.tell(3, i, (300 + i) * E8, chain.submit(late, i, (300 + i) * E8, FIRST))
    return chain


class Relay:
    """Passes requests on to a node, until it is told to stop after so many of them.

    Attributes
    ----------
    calls, requests
        JSON-RPC calls and HTTP requests that were passed on.
    limit
        HTTP requests that are passed on.
    hang
        Let later ones wait instead of failing; `stopped` is set when the first of them comes.
    forgets
        Know no state but that of the newest block.
    """

    def __init__(self, url: str) -> None:
        self.url, self.calls, self.requests = url, 0, 0
        self.limit: int | None = None
        self.hang = False
        self.forgets = False
        self.stopped, self.free = threading.Event(), threading.Event()
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = relay.answer(body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = False
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, body: bytes) -> tuple[int, bytes]:
        if self.limit is not None and self.requests >= self.limit:
            self.stopped.set()
            if self.hang:
                self.free.wait(60)
            return 503, b"busy"
        asked = json.loads(body)
        self.requests += 1
        self.calls += len(asked) if isinstance(asked, list) else 1
        if self.forgets and isinstance(asked, list) and asked[0]["method"] == "eth_call":
            head = JsonRpc(self.url).call("eth_getBlockByNumber", ["latest", False])["hash"]
            if asked[0]["params"][1]["blockHash"] != head:
                error = {"code": -32000, "message": "missing trie node"}
                return 200, json.dumps(
                    [{"jsonrpc": "2.0", "id": a["id"], "error": error} for a in asked]
                ).encode()
        return 200, requests.post(self.url, data=body, headers={"Content-Type": "application/json"}).content

    def close(self) -> None:
        self.free.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def relay(node: Anvil) -> Iterator[Relay]:
    found = Relay(node.url)
    yield found
    found.close()


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    monkeypatch.setenv("COLUMNS", "120")
    return Inside(monkeypatch, capsys)


def told(file: Path) -> list[Told]:
    with file.open(newline="") as lines:
        return [(int(r["round_id"]), int(r["answer"]), int(r["updated_at"])) for r in csv.DictReader(lines)]


def pulled(folder: Path, live: Live, url: str, **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "eth.csv"
    pull(live.proxy, rpc_url=url, out=file, **options)
    return file


def contents(file: Path) -> tuple[bytes, bytes]:
    assert sorted(p.name for p in file.parent.iterdir()) == ["eth.csv", "eth.csv.json"]
    return file.read_bytes(), Files(file).description.read_bytes()


def words(live: Live, file: Path, url: str, *more: str) -> list[str]:
    return ["oracle", "pull", live.proxy, "--rpc", url, "--out", str(file), *more]


# ---------------------------------------------------------------------------------------------- the history


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_all_rounds_that_were_told(
    live: Live, node: Anvil, inside: Inside, tmp_path: Path, batch: int
) -> None:
    file = tmp_path / "eth.csv"
    record = inside(*words(live, file, node.url, "--batch", str(batch), "--json")).json()
    assert told(file) == live.told
    assert record["counts"] == {
        "rows": len(live.told),
        "reverted": 1,
        "zeros": 2,
        "before": 2,
        "after": 2,
        "disordered": 0,
        "newer": 0,
    }
    assert [p["aggregator"] for p in record["phases"]] == live.phases
    assert (record["feed"], record["chain_id"], record["decimals"]) == (live.proxy, 31337, 8)
    assert json.loads(Files(file).description.read_text()).items() <= record.items()


def test_a_recorded_source_reads_the_file_back(live: Live, node: Anvil, tmp_path: Path) -> None:
    file = pulled(tmp_path, live, node.url)
    config = json.loads(Files(file).description.read_text())["recorded"]
    source = sources.build(config | {"path": str(file)}, where="pulled")
    assert (source.base, source.quote) == ("ETH", "USD")
    for round_id, answer, time in live.told:
        reading = source.at(time)
        assert isinstance(reading, PriceObs)
        assert (reading.mantissa, reading.decimals, reading.published_at) == (answer, 8, time)
        assert reading.round_key == reading.answered_key == (round_id >> 64, round_id % 2**64)


def test_the_tables_that_are_printed_read_the_file(
    live: Live, node: Anvil, inside: Inside, tmp_path: Path
) -> None:
    ran = inside(*words(live, tmp_path / "eth.csv", node.url))
    assert ran.code == 0
    assert "left out: 1 that revert, 2 that are zeros, 2 from before" in ran.err
    tables = tomllib.loads(ran.out)
    truth = TruthFile(**tables["truth"]["ETH/USD"]["file"]).read("ETH/USD", tmp_path, "truth")
    assert [(t, p * E8) for t, p in truth] == [(t, answer) for _, answer, t in reversed(live.told)]
    feed = mechanisms.build(tables["feeds"]["ETH/USD"], where="feeds")
    assert [(join_round_id(p, r), a, t) for p, r, a, t in feed.rounds] == live.told[::-1]


def test_a_part_of_the_time(live: Live, node: Anvil, inside: Inside, tmp_path: Path) -> None:
    first, last = live.told[-8][2], live.told[4][2]
    file = tmp_path / "part.csv"
    ran = inside(*words(live, file, node.url, "--since", str(first), "--until", str(last)))
    assert ran.code == 0, ran.err
    assert told(file) == live.told[4:-7]
    empty = tmp_path / "empty.csv"
    ran = inside(*words(live, empty, node.url, "--since", "2100-01-01T00:00:00Z"))
    assert (ran.code, ran.out, told(empty)) == (0, "# no rounds in the time asked for\n", [])


def test_a_node_that_forgets_does_not_tell_the_changes_of_phase(
    live: Live, relay: Relay, inside: Inside, tmp_path: Path
) -> None:
    relay.forgets = True
    ran = inside(*words(live, tmp_path / "eth.csv", relay.endpoint))
    assert "the node does not tell when phase 2, 3 began: counted from the first round" in ran.err
    found = told(tmp_path / "eth.csv")
    # The third aggregator counts from its first round, which the mock's round 9 came after.
    assert [i for i, _, _ in found[9:11]] == [join_round_id(3, 2), join_round_id(3, 1)]
    assert found[:9] + found[11:] == [t for t in live.told if t[0] != join_round_id(2, 9)]


# --------------------------------------------------------------------------------------------- interruptions


def test_an_endpoint_that_fails_loses_nothing(live: Live, relay: Relay, tmp_path: Path) -> None:
    whole = contents(pulled(tmp_path / "whole", live, relay.endpoint, batch=4))
    folder, stops, rows = tmp_path / "cut", 0, 0
    relay.limit = 2 * relay.requests - 10  # enough to find the changes of phase
    while stops < 20:
        try:
            file = pulled(folder, live, relay.endpoint, batch=4)
            break
        except RpcUnavailable as error:
            complaint = str(error)
        stops += 1
        relay.limit = relay.requests + 4
        if (folder / "eth.csv").exists():
            before, rows = rows, len(told(folder / "eth.csv"))
            assert f"{rows} rounds are in {folder / 'eth.csv'}: give the command again" in complaint
            assert rows >= before
    assert stops > 2
    assert contents(file) == whole


@pytest.mark.parametrize("batches", [0, 1, 4, 9])
def test_a_pull_that_is_killed_goes_on(
    live: Live, node: Anvil, relay: Relay, tmp_path: Path, capsys: pytest.CaptureFixture[str], batches: int
) -> None:
    whole = contents(pulled(tmp_path / "whole", live, relay.endpoint, batch=4))
    # Requests before the first batch: a pull asks for all rounds in the last of them.
    ahead = relay.requests - -(-sum(p["rounds"] for p in json.loads(whole[1])["phases"]) // 4) - 1
    relay.limit, relay.hang = relay.requests + ahead + batches, True
    folder = tmp_path / "killed"
    folder.mkdir()
    arguments = words(live, folder / "eth.csv", relay.endpoint, "--batch", "4")
    process = subprocess.Popen(
        command(*arguments), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        assert relay.stopped.wait(60)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
    relay.free.set()
    before = len(told(folder / "eth.csv"))
    live.evm.mine()  # the chain goes on: a pull is as of its own block
    capsys.readouterr()
    file = pulled(folder, live, node.url, batch=9)
    assert f"going on behind {before} rounds" in capsys.readouterr().err
    assert file.read_bytes() == whole[0]
    assert not Files(file).journal.exists()


@pytest.fixture
def cut(live: Live, relay: Relay, tmp_path: Path) -> Path:
    """Return the file of a pull that failed in its middle."""
    pulled(tmp_path / "probe", live, relay.endpoint, batch=4)
    relay.limit = 2 * relay.requests - 6
    with pytest.raises(RpcUnavailable, match="give the command again"):
        pulled(tmp_path / "cut", live, relay.endpoint, batch=4)
    return tmp_path / "cut" / "eth.csv"


@pytest.mark.parametrize("harm", ["torn row", "rows without a place", "shorter", "nothing", "torn place"])
def test_what_a_crash_may_leave_is_mended(
    live: Live, node: Anvil, cut: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: str
) -> None:
    journal = Files(cut).journal
    content, lines = cut.read_bytes(), journal.read_bytes().splitlines(keepends=True)
    assert len(lines) > 5
    if harm == "torn row":
        cut.write_bytes(content + b"5534023222112865")
    elif harm == "rows without a place":
        journal.write_bytes(b"".join(lines[:-2]))
    elif harm == "shorter":
        cut.write_bytes(content[:-40])
    elif harm == "nothing":
        cut.write_bytes(b"")
    else:
        journal.write_bytes(b"".join(lines)[:-9])
    capsys.readouterr()
    pull(live.proxy, rpc_url=node.url, out=cut)
    said = capsys.readouterr().err
    assert ("a torn line at its end" in said) == (harm in ("torn row", "shorter"))
    assert told(cut) == live.told
    assert contents(cut) == contents(pulled(tmp_path / "whole", live, node.url))


def test_a_whole_file_is_left_alone(live: Live, relay: Relay, inside: Inside, tmp_path: Path) -> None:
    arguments = words(live, tmp_path / "eth.csv", relay.endpoint)
    first = inside(*arguments)
    before, asked = contents(tmp_path / "eth.csv"), relay.requests
    second = inside(*arguments)
    assert (second.code, second.out) == (0, first.out)
    assert "is whole already" in second.err
    assert contents(tmp_path / "eth.csv") == before
    assert relay.requests == asked + 1, "which chain it is"


# -------------------------------------------------------------------------------------------------- bad input


BAD: dict[str, tuple[Sequence[str], str]] = {
    "since after until": (("--since", "9", "--until", "8"), "--since 9 is after --until 8"),
    "no time": (("--since", "noon"), "--since: 'noon' is no time"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_are_one_line(live: Live, node: Anvil, inside: Inside, tmp_path: Path, case: str) -> None:
    more, text = BAD[case]
    assert text in inside(*words(live, tmp_path / "x.csv", node.url, *more)).line()
    assert list(tmp_path.iterdir()) == []


def test_addresses_that_are_no_proxy_are_one_line(
    live: Live, node: Anvil, inside: Inside, tmp_path: Path
) -> None:
    def line(feed: str) -> str:
        return inside("oracle", "pull", feed, "--rpc", node.url, "--out", str(tmp_path / "x.csv")).line()

    assert line("0x12") == "'0x12' is not an address; give 0x and 40 hex digits"
    assert "no code at" in line(labelled_address("nobody"))
    assert "a feed without phases" in line(live.phases[0])
    controller = live.evm.create(OWNER, chainlink("SimpleWriteAccessController").creation_code())
    assert "no Chainlink feed" in line(controller)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_something_else_is_kept(
    live: Live, node: Anvil, cut: Path, inside: Inside, tmp_path: Path
) -> None:
    other = live.evm.create(
        OWNER, chainlink("EACAggregatorProxy").creation_code(live.phases[0], ZERO_ADDRESS)
    )
    whole = pulled(tmp_path / "done", live, node.url)
    for file in (cut, whole):
        before = file.read_bytes()
        arguments = words(live, file, node.url)
        arguments[2] = other
        assert f"is of feed {live.proxy}, not {other}" in inside(*arguments).line()
        assert (
            "is of --since without limit, not 5"
            in inside(*words(live, file, node.url, "--since", "5")).line()
        )
        with Anvil.start(AnvilOptions(timestamp=GENESIS, chain_id=5)) as foreign:
            assert "is of chain 31337, not 5" in inside(*words(live, file, foreign.url)).line()
        assert file.read_bytes() == before
    stranger = tmp_path / "prices.csv"
    stranger.write_text("time,price\n")
    assert "nothing says what it is of" in inside(*words(live, stranger, node.url)).line()
    assert stranger.read_text() == "time,price\n"
    whole.write_bytes(b"")
    assert "is not the file that eth.csv.json describes" in inside(*words(live, whole, node.url)).line()


def test_an_endpoint_that_is_not_there_is_one_line(live: Live, inside: Inside, tmp_path: Path) -> None:
    assert "no connection" in inside(*words(live, tmp_path / "x.csv", "http://127.0.0.1:9")).line()
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------- the rate


def test_no_more_calls_than_allowed(live: Live, relay: Relay, tmp_path: Path, monkeypatch: Any) -> None:
    clock, sent = ManualClock(), list[tuple[float, int]]()

    class Counted(Paced):
        def __init__(self, transport: Any, per_second: float | None, **_: Any) -> None:
            super().__init__(transport, per_second, clock=clock, sleep=self.pass_time)

        def pass_time(self, seconds: float) -> None:
            sent.append((clock.elapsed_s, relay.calls))
            clock.elapsed_s += seconds

    monkeypatch.setattr("keeper.commands.oracle_pull.Paced", Counted)
    pulled(tmp_path, live, relay.endpoint, rate=10, batch=5)
    assert len(sent) == relay.requests - 1
    assert clock.elapsed_s == pytest.approx(sent[-1][1] / 10)
    # What was sent until a moment is at most what the time allows, and one batch.
    assert all(calls <= elapsed * 10 + 5 + 1e-6 for elapsed, calls in sent)


# -------------------------------------------------------------------------------------------------- the text


@pytest.mark.parametrize(
    ("answer", "decimals", "text"),
    [(1, 8, "0.00000001"), (-5, 2, "-0.05"), (12, 0, "12"), (10**40 + 1, 18, f"1{'0' * 22}.{'0' * 17}1")],
)
def test_prices_are_exact(answer: int, decimals: int, text: str) -> None:
    assert exact_text(answer, decimals) == text


def test_two_pulls_do_not_write_one_file(
    live: Live, relay: Relay, node: Anvil, tmp_path: Path, inside: Inside
) -> None:
    relay.limit, relay.hang = 2, True
    file = tmp_path / "eth.csv"
    process = subprocess.Popen(
        command(*words(live, file, relay.endpoint)),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert relay.stopped.wait(60)
        assert "another pull is writing" in inside(*words(live, file, node.url)).line()
    finally:
        process.kill()
        process.wait(10)


def test_a_name_without_csv_is_refused(live: Live, node: Anvil, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no \.csv file"):
        pull(live.proxy, rpc_url=node.url, out=tmp_path / "eth.parquet")
