"""The node goes away while a keeper runs: it says so, goes on asking, and works on when the node is back."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from simulation.chain import feeds
from simulation.chain.anvil import Anvil, AnvilOptions
from tests.command_line import Local, command, environment, ready_config, sections, start_local
from tests.faults.proxy import FaultProxy, Spoil

POLL_S = 0.02


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    found = start_local(tmp_path_factory.mktemp("local"))
    with found.node:
        yield found


class Watched:
    """A keeper's process and its events."""

    def __init__(self, config: Path) -> None:
        self._out, self._err = config.with_suffix(".out"), config.with_suffix(".err")
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                command("keeper", "run", "--config", str(config), "--json"),
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        lines = self._out.read_text().split("\n")[:-1]
        return [e for e in map(json.loads, lines) if not kinds or e["event"] in kinds]

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, self.errors()
            assert time.monotonic() < deadline, f"{what}: {self.events()[-5:]}"
            time.sleep(0.01)

    def wait_event(self, *kinds: str, more_than: int = 0) -> dict[str, Any]:
        self.wait(lambda: len(self.events(*kinds)) > more_than, f"no {kinds}")
        return self.events(*kinds)[-1]

    def errors(self) -> str:
        return self._err.read_text()

    def stop(self) -> float:
        """Ask it to end, which must go well; return how long that took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(15) == 0, self.errors()
        assert self.events()[-1]["event"] == "stopped"
        return time.monotonic() - started


@pytest.fixture
def watch() -> Iterator[Callable[[Path], Watched]]:
    started: list[Watched] = []

    def start(config: Path) -> Watched:
        started.append(Watched(config))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def config(local: Local, tmp_path: Path) -> Callable[[str], Path]:
    def write(url: str) -> Path:
        text = sections(ready_config(local), rpc=[f"poll_interval_s = {POLL_S}", "timeout_s = 20"])
        return local.write(tmp_path / "keeper.toml", text.replace(local.node.url, url))

    return write


def post(local: Local, price_e8: int) -> None:
    feeds.post(local.node.evm(), local.market.deployer, local.market.asset("DAI").feed, price_e8)


@pytest.mark.parametrize("spoil", [Spoil.LOSE_REQUEST, Spoil.HTTP_500, Spoil.HTML])
def test_an_outage_is_two_lines_and_the_next_head_is_worked_on(
    local: Local, config: Callable[[str], Path], watch: Callable[[Path], Watched], spoil: Spoil
) -> None:
    with FaultProxy(local.node.url) as proxy:
        keeper = watch(config(proxy.url))
        keeper.wait_event("head")
        proxy.spoil(spoil, "eth_getBlockByNumber", times=10**9)
        proxy.spoil(spoil, "eth_chainId", times=10**9)
        trouble = keeper.wait_event("trouble")
        assert trouble["failures"] == 1
        assert proxy.url in trouble["error"]
        failing = len(proxy.posts)
        keeper.wait(lambda: len(proxy.posts) > failing + 20, "it stopped asking")
        post(local, 99_900_000)
        heads = len(keeper.events("head"))
        proxy.faults.clear()
        recovered = keeper.wait_event("recovered")
        assert recovered["failures"] >= 20
        assert recovered["seconds"] > 0
        head = keeper.wait_event("head", more_than=heads)
        assert head["block"] == int(local.node.rpc.call("eth_blockNumber"), 16)
        assert len(keeper.events("trouble")) == 1
        assert keeper.stop() < 2
    alerts = keeper.errors().splitlines()
    assert len([line for line in alerts if "trouble" in line]) == 1
    assert len([line for line in alerts if "recovered" in line]) == 1
    assert "Traceback" not in keeper.errors()


def test_a_stop_during_an_outage_is_as_quick(
    local: Local, config: Callable[[str], Path], watch: Callable[[Path], Watched]
) -> None:
    with FaultProxy(local.node.url) as proxy:
        keeper = watch(config(proxy.url))
        keeper.wait_event("head")
    keeper.wait_event("trouble")
    assert keeper.stop() < 2


def test_a_stop_does_not_wait_for_a_node_that_hangs(
    local: Local, config: Callable[[str], Path], watch: Callable[[Path], Watched]
) -> None:
    with FaultProxy(local.node.url) as proxy:
        keeper = watch(config(proxy.url))
        keeper.wait_event("head")
        proxy.spoil(Spoil.HANG, "eth_getBlockByNumber", times=10**9)
        keeper.wait(lambda: proxy.faults[0].times < 10**9, "no request hangs")
        posts = len(proxy.posts)
        assert keeper.stop() < 2.5
        assert len(proxy.posts) == posts, "it asked again after the request to stop"
    assert keeper.errors() == ""


def test_a_node_that_comes_back_with_another_chain_is_refused(
    watch: Callable[[Path], Watched], tmp_path: Path
) -> None:
    first = start_local(tmp_path)
    with first.node:
        text = sections(ready_config(first), rpc=[f"poll_interval_s = {POLL_S}"])
        keeper = watch(first.write(tmp_path / "keeper.toml", text))
        keeper.wait_event("head")
    keeper.wait_event("trouble")
    with Anvil.start(AnvilOptions(port=first.node.port, chain_id=1_234)) as other:
        assert keeper.process.wait(20) == 2
    line = keeper.errors().splitlines()[-1]
    assert line.startswith(f"error: rpc.url {other.url} came back with chain 1234, genesis 0x")
    assert "this keeper runs on chain 31337" in line
