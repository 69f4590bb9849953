"""The commands at work on a local chain, as their users run them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from simulation.chain import feeds
from simulation.chain.rpc import JsonRpc
from simulation.chain.seed import load_or_build
from tests.command_line import (
    Inside,
    Local,
    Ran,
    assert_exact,
    command,
    environment,
    ready_config,
    run,
    sections,
    start_local,
)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    found = start_local(tmp_path_factory.mktemp("local"))
    with found.node:
        yield found


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    monkeypatch.setenv("COLUMNS", "120")
    return Inside(monkeypatch, capsys)


@pytest.fixture(scope="module")
def made(local: Local) -> str:
    """Return a configuration with a deployed contract that observes."""
    return ready_config(local)


@pytest.fixture
def config(local: Local, made: str, tmp_path: Path) -> Path:
    return local.write(tmp_path / "keeper.toml", made)


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


# ----------------------------------------------------------------------------------------------------- init


def test_init_and_first_look_as_processes(local: Local, tmp_path: Path) -> None:
    config = tmp_path / "keeper.toml"
    written = run(*local.init_arguments(config))
    assert written.code == 0, written.err
    assert f"marginline keeper doctor --config {config}" in written.out
    assert "this keeper observes" in written.out
    looked = run("keeper", "scan", "--config", str(config), "--all", "--json")
    assert looked.code == 0, looked.err
    found = looked.json()
    assert found["borrowers"] == len(found["verdicts"]) == 20
    assert sum(found["reasons"].values()) == 20


def test_init_tells_what_it_found(local: Local, inside: Inside, tmp_path: Path) -> None:
    config = tmp_path / "keeper.toml"
    found = inside(*local.init_arguments(config, references=False), "--json").json()
    assert found["config"] == str(config)
    assert found["pool"] == local.market.pool
    assert set(found["assets"]) == set(local.market.assets)
    assert found["pools"] == len(local.market.uniswap.pools)
    assert (found["references"], found["liquidator"]) == ([], None)
    text = config.read_text()
    assert 'mode = "observe"' in text
    assert "[signer]" not in text


def test_init_deploys_a_contract_that_only_the_key_may_use(
    local: Local, inside: Inside, tmp_path: Path
) -> None:
    config = tmp_path / "keeper.toml"
    receiver = local.market.deployer
    arguments = local.init_arguments(config, deploy=True)
    found = inside(*arguments, "--receiver", receiver, "--json").json()
    assert local.node.evm().code(found["liquidator"])
    text = config.read_text()
    assert found["liquidator"] in text
    assert 'mode = "observe"' in text, "nothing is live unless somebody writes so"
    config.write_text(text + '\n[limits]\nclock = "block"\n')
    checks = {c["check"]: c for c in inside("keeper", "doctor", "-c", str(config), "--json").json()}
    assert all(c["ok"] for c in checks.values()), checks
    assert checks["liquidator"]["detail"] == f"{found['liquidator']}, profits go to {receiver}"
    assert checks["key"]["detail"].startswith(local.owner)


@pytest.mark.parametrize("kind", ["env", "file"])
def test_init_keeps_an_endpoint_with_a_key_in_it_to_its_owner(
    kind: str, local: Local, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, secret = tmp_path / "keeper.toml", tmp_path / "endpoint"
    url = local.node.url + "/?key=0123456789abcdef"
    secret.write_text(url + "\n")
    monkeypatch.setenv("ENDPOINT_OF_A_TEST", url)
    reference = {"env": "env:ENDPOINT_OF_A_TEST", "file": f"file:{secret}"}[kind]
    arguments = [reference if word == local.node.url else word for word in local.init_arguments(config)]
    ran = inside(*arguments, "--json")
    assert ran.code == 0, ran.err
    assert f'url = "{reference}"' in config.read_text()
    assert "0123456789abcdef" not in config.read_text() + ran.out + ran.err
    assert config.stat().st_mode & 0o777 == 0o600
    assert inside("keeper", "scan", "--config", str(config), "--json").code == 0


def test_init_takes_several_references_for_an_asset(local: Local, inside: Inside, tmp_path: Path) -> None:
    config = tmp_path / "keeper.toml"
    other = local.market.asset("WETH").feed
    ran = inside(*local.init_arguments(config), "--reference", f"WETH={other}")
    assert ran.code == 0, ran.err
    assert config.read_text().count('[[references."WETH"]]') == 2


def test_doctor_of_an_observer_without_a_key(local: Local, inside: Inside, tmp_path: Path) -> None:
    config = tmp_path / "keeper.toml"
    inside(*local.init_arguments(config))
    config.write_text(config.read_text() + '\n[limits]\nclock = "block"\n')
    ran = inside("keeper", "doctor", "-c", str(config))
    assert ran.code == 0, ran.err
    assert "mode observe needs none" in ran.out


def test_doctor_fails_on_what_a_run_could_not_stand_on(
    local: Local, inside: Inside, made: str, tmp_path: Path
) -> None:
    changed = made.replace('clock = "block"', "min_balance_eth = 1_000_000").replace(
        '[[references."DAI"]]', '[[references."USDC"]]'
    )
    config = local.write(tmp_path / "keeper.toml", changed)
    ran = inside("keeper", "doctor", "-c", str(config), "--json")
    assert ran.code == 1
    assert ran.err == "error: doctor: age of the head, reference prices, key\n"
    failed = {c["check"]: c["detail"] for c in ran.json() if not c["ok"]}
    assert 'limits.clock = "block"' in failed["age of the head"]
    assert "no reference for DAI" in failed["reference prices"]
    assert "limits.min_balance_eth" in failed["key"]


def test_doctor_compares_the_quoter_with_our_arithmetic(
    local: Local, inside: Inside, made: str, tmp_path: Path
) -> None:
    text = sections(made, router=[f'quoter = "{local.market.uniswap.quoter}"'])
    config = local.write(tmp_path / "keeper.toml", text)
    checks = {c["check"]: c for c in inside("keeper", "doctor", "-c", str(config), "--json").json()}
    assert checks["quoter"] == {"check": "quoter", "ok": True, "detail": "5 pools quoted alike"}


# ------------------------------------------------------------------------------------------------------ look


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_no_table_is_wider_than_the_terminal(
    inside: Inside, config: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    ran = inside("keeper", "scan", "-c", str(config), "--all")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= columns
    rows = [line for line in lines if line.startswith("0x")]
    assert len(rows) == 20, "one line an account"
    health = [float(row.split()[3]) for row in rows]
    assert health == sorted(health), "the least healthy first"
    assert len(rows[0].split()[0]) == (42 if columns >= 170 else 11)
    ran = inside("keeper", "doctor", "-c", str(config))
    assert max(map(len, ran.out.splitlines())) <= columns


def test_borrowers_of_a_chain_are_held_against_a_margin_method(inside: Inside, config: Path) -> None:
    known = inside("keeper", "scan", "-c", str(config), "--all", "--json").json()
    scanned = inside(
        "keeper", "scan", "-c", str(config), "--method", "lending.health_factor", "--all", "--json"
    ).json()
    assert scanned["accounts"] == known["borrowers"] == 20
    assert {row["account"] for row in scanned["rows"]} == {v["account"] for v in known["verdicts"]}
    assert {row["standing"] for row in scanned["rows"]} <= {"above", "under"}
    # Held to a fall of a third, what is safe today is not.
    stressed = inside("keeper", "scan", "-c", str(config), "--method", "stress", "--json").json()
    assert stressed["under"] > 0
    assert all(row["worst"] and row["shortfall"] > 0 for row in stressed["rows"])


def test_explain_says_the_same_as_the_contract(local: Local, inside: Inside, config: Path) -> None:
    account = load_or_build(20, 1).book[0].address
    found = inside("keeper", "explain", account.lower(), "-c", str(config), "--json").json()
    assert found["account"] == account
    assert found["action"] == "leave"
    assert int(found["health_factor_wad"]) > 10**18
    prices = {symbol: int(p["protocol_e8"]) for symbol, p in found["prices"].items()}
    assert prices == {symbol: int(p["reference_e8"]) for symbol, p in found["prices"].items()}
    debts = [p for p in found["positions"] if p["kind"] == "debt"]
    assert debts
    assert all(p["weight"] == 1 for p in debts)
    told = inside("keeper", "explain", account, "-c", str(config))
    assert told.code == 0, told.err
    assert account in told.out
    assert "liquidatable at" in told.out


def test_the_trigger_price_is_where_the_contract_agrees(
    local: Local, inside: Inside, made: str, tmp_path: Path
) -> None:
    """Post the price that `explain` names, a little more and a little less, and ask again."""
    config = local.write(tmp_path / "keeper.toml", made)
    evm, market = local.node.evm(), local.market
    before = evm.snapshot()
    try:
        scanned = inside("keeper", "scan", "-c", str(config), "--all", "--json").json()
        for verdict in scanned["verdicts"]:
            found = inside("keeper", "explain", verdict["account"], "-c", str(config), "--json").json()
            held = {p["asset"] for p in found["positions"] if p["kind"] == "collateral"}
            if held == {"WETH"}:
                break
        trigger = found["liquidatable_at"]["WETH"]
        for part, status in ((1.001, "healthy"), (0.999, "liquidatable")):
            feeds.post(evm, market.deployer, market.asset("WETH").feed, int(trigger * part * 1e8))
            asked = inside("keeper", "explain", verdict["account"], "-c", str(config), "--json").json()
            assert asked["status"] == status, (part, asked)
    finally:
        evm.revert(before)


# ------------------------------------------------------------------------------------------- run and journal


class RunningKeeper:
    """``marginline keeper run`` as a process."""

    def __init__(self, config: Path, *arguments: str) -> None:
        self.out = config.with_suffix(".out")
        self.err = config.with_suffix(".err")
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                command("keeper", "run", "--config", str(config), *arguments),
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def events(self, event: str, **fields: str) -> list[dict[str, Any]]:
        # The last line may be half written.
        lines = self.out.read_text().split("\n")[:-1]
        wanted = {"event": event, **fields}
        return [e for e in map(json.loads, lines) if wanted.items() <= e.items()]

    def wait_event(self, event: str, **fields: str) -> dict[str, Any]:
        wait_for(lambda: bool(self.events(event, **fields)) or self.process.poll() is not None, f"no {event}")
        found = self.events(event, **fields)
        assert found, self.err.read_text()
        return found[-1]

    def stop(self, number: int = signal.SIGTERM) -> Ran:
        started = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(10)
        assert time.monotonic() - started < 3
        return Ran(code, self.out.read_text(), self.err.read_text())


def test_a_run_from_crash_to_journal(local: Local, inside: Inside, made: str, tmp_path: Path) -> None:
    live = made.replace('mode = "observe"', 'mode = "live"')
    text = sections(live, rpc=["poll_interval_s = 0.02"], execution=["confirmations = 1"])
    text = sections(text, **{"guards.jump": ["floor_bps = 9_000", "cap_bps = 9_900"]})
    config = local.write(tmp_path / "keeper.toml", text)
    evm, market = local.node.evm(), local.market
    keeper = RunningKeeper(config, "--json")
    try:
        ready = keeper.wait_event("ready")
        assert (ready["mode"], ready["sender"]) == ("live", local.owner)
        for part in (80, 70, 62):
            for feed in (market.asset("WETH").feed, market.asset("WETH").reference_feed):
                feeds.post(evm, market.deployer, feed, 194_50000000 * part // 100)
        keeper.wait_event("transaction", kind="mined")
        evm.mine()
        confirmed = keeper.wait_event("transaction", kind="confirmed")
        assert int(confirmed["realised_profit_raw"]) > 0
        # A second keeper on the same journal is kept off.
        other = inside("keeper", "run", "--config", str(config))
        assert f"{local.folder / 'keystore.json'} is in use by another keeper" in other.line()
        observing = inside("keeper", "run", "--config", str(config), "--mode", "observe")
        assert f"in use by process {keeper.process.pid}" in observing.line()
        # Looking is allowed while it runs, and so is the doctor.
        assert inside("keeper", "doctor", "-c", str(config)).code in (0, 1)
        assert inside("keeper", "journal", "-c", str(config)).code == 0
    finally:
        ended = keeper.stop()
    assert ended.code == 0, ended.err
    # Beside JSON events standard error has the alerts, and nothing else.
    levels = ("INFO ", "WARNING ", "CRITICAL ")
    assert all(line.startswith(levels) for line in ended.err.splitlines()), ended.err
    assert json.loads(ended.out.splitlines()[-1]) == {"event": "stopped", "mode": "live"}
    for line in ended.out.splitlines():
        assert_exact(json.loads(line))

    listed = inside("keeper", "journal", "-c", str(config), "--json").json()
    assert listed["counts"]["confirmed"] >= 1
    sent = {e["account"] for e in keeper.events("sent")}
    assert {i["account"] for i in listed["intents"]} == sent
    first = listed["intents"][0]
    assert isinstance(first["simulated_profit_raw"], str)
    only = inside("keeper", "journal", "-c", str(config), "--account", first["account"], "--json").json()
    assert {i["account"] for i in only["intents"]} == {first["account"]}
    told = inside("keeper", "journal", "-c", str(config))
    assert told.out.startswith(f"{len(listed['intents'])} intents: ")
    assert max(map(len, told.out.splitlines())) <= 120
    decided = inside("keeper", "journal", "-c", str(config), "--decisions", "--json").json()
    assert {"block", "account", "action", "reason", "detail"} <= decided[0].keys()
    told = inside("keeper", "journal", "-c", str(config), "--decisions")
    assert told.out.startswith(f"{len(decided)} decisions")


def test_a_run_for_people_is_one_line_a_matter(local: Local, made: str, tmp_path: Path) -> None:
    config = local.write(tmp_path / "keeper.toml", made)
    keeper = RunningKeeper(config)
    try:
        wait_for(lambda: "block" in keeper.err.read_text().partition("ready")[2], "no first head")
    finally:
        ended = keeper.stop(signal.SIGINT)
    assert ended.code == 0
    assert ended.out == ""
    lines = ended.err.splitlines()
    assert "ready  mode observe" in lines[0]
    assert lines[-1].endswith("stopped")
    assert all(line[2] == ":" and line[5] == ":" for line in lines), lines


# ---------------------------------------------------------------------------------------------- chain, parity


def listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def children(pid: int) -> list[int]:
    """Return the children of a process, where the system tells them."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_chain_up_goes_with_everything_it_started(number: int, tmp_path: Path) -> None:
    with (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(
            command("chain", "up", "--port", "0", "--accounts", "20", "--seed", "1", "--json"),
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
    assert process.stdout is not None
    with process.stdout as out:
        record = json.loads(out.readline())
    port = int(record["url"].rpartition(":")[2])
    nodes = children(process.pid)
    try:
        assert (record["accounts"], record["morpho_accounts"]) == (20, 7)
        with JsonRpc(record["url"]) as rpc:
            provider = record["deployment"]["provider"]
            assert rpc.call("eth_getCode", [provider, "latest"]) != "0x"
            morpho = record["deployment"]["morpho"]
            assert rpc.call("eth_getCode", [morpho["address"], "latest"]) != "0x"
            assert len(morpho["markets"]) == 2
    finally:
        process.send_signal(number)
        assert process.wait(20) == 0
    wait_for(lambda: not listening(port), "the node still listens")
    wait_for(lambda: not any(map(alive, nodes)), "the node still runs")
    # How far it was, where no state was kept from before; and nothing of the end.
    said = {line.partition(":")[0] for line in (tmp_path / "err").read_text().splitlines()}
    assert said <= {
        "deploying",
        "supplying",
        "entering efficiency modes",
        "borrowing",
        "opening Morpho accounts",
    }


def test_chain_up_hands_over_the_command_that_watches_it(inside: Inside, tmp_path: Path) -> None:
    with (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(
            command("chain", "up", "--port", "0", "--accounts", "20"),
            env=environment(COLUMNS="80"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
    assert process.stdout is not None
    try:
        words: list[str] = []
        with process.stdout as out:
            while not words or words[-1] == "\\":
                words = [w for w in words if w != "\\"] + out.readline().split()
        assert words[:3] == ["marginline", "keeper", "init"]
        config = tmp_path / "keeper.toml"
        ran = inside(*words[1:], "--config", str(config))
        assert ran.code == 0, ran.err
        assert inside("keeper", "scan", "-c", str(config)).code == 0
    finally:
        process.terminate()
        assert process.wait(20) == 0
    assert max(map(len, (tmp_path / "err").read_text().splitlines())) <= 80


def test_chain_fork_of_another_local_node(local: Local, tmp_path: Path) -> None:
    evm = local.node.evm()
    at = evm.mine()
    evm.mine()
    with (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(
            command("chain", "fork", "--rpc", local.node.url, "--block", str(at), "--port", "0", "--json"),
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
    assert process.stdout is not None
    try:
        with process.stdout as out:
            record = json.loads(out.readline())
        with JsonRpc(record["url"]) as rpc, JsonRpc(local.node.url) as original:
            assert int(rpc.call("eth_chainId"), 16) == record["chain_id"]
            same = "eth_getBlockByNumber", [hex(at), False]
            assert rpc.call(*same)["hash"] == original.call(*same)["hash"]
            assert rpc.call("eth_getCode", [local.market.pool, "latest"]) != "0x"
            assert record["block"] == at
    finally:
        process.terminate()
        assert process.wait(20) == 0
    assert not listening(int(record["url"].rpartition(":")[2]))


def test_parity_as_a_process() -> None:
    ran = run("parity", "aave-v3", "--backend", "anvil", "--cases", "5", "--seed", "7", "--json")
    assert ran.code == 0, ran.err
    found = ran.json()
    assert (found["protocol"], found["backend"], found["seed"], found["cases"]) == ("aave-v3", "anvil", 7, 5)
    assert found["mismatches"] == 0
    assert found["liquidated"] + found["rejected"] + found["healthy"] == 5
