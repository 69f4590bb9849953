"""What the commands refuse, and how: one line that names the field, the value and the way out; exit code 2.

Whatever is refused, the journal is left as it was, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from keeper.clock import ManualClock
from keeper.config import Secret
from keeper.journal import Identity, Journal
from keeper.signer import TOY_COST, create_keystore
from simulation.chain.evm import labelled_address
from tests.command_line import ETHER, Inside, Local, ready_config, sections, start_local
from tests.faults.proxy import FaultProxy, Spoil

NOBODY = labelled_address("nobody at all")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    found = start_local(tmp_path_factory.mktemp("local"))
    with found.node:
        yield found


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    return Inside(monkeypatch, capsys)


@pytest.fixture(scope="module")
def made(local: Local) -> str:
    return ready_config(local)


@pytest.fixture(autouse=True)
def end_what_should_not_run() -> Iterator[None]:
    """A keeper that ought to be refused and is not would run until it is told to stop."""
    timer = threading.Timer(60, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    yield
    timer.cancel()
    timer.join()


@dataclass
class Kept:
    """A configuration with a journal beside it."""

    config: Path
    text: str
    journal: Path
    identity: Identity

    def write(self, text: str) -> None:
        self.config.write_text(text, encoding="utf-8")

    def files(self) -> dict[str, str]:
        """Return the digests of the journal's files; an empty lock file beside it is not one of them."""
        found = self.journal.parent.glob(self.journal.name + "*")
        return {
            p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in found if not p.name.endswith(".lock")
        }


@pytest.fixture
def kept(local: Local, made: str, tmp_path: Path) -> Kept:
    """Return a configuration that would run live, and a journal with its own identity."""
    text = made.replace('mode = "observe"', 'mode = "live"')
    config = local.write(tmp_path / "keeper.toml", text)
    genesis = local.node.rpc.call("eth_getBlockByNumber", ["0x0", False])["hash"]
    identity = Identity(local.market.chain_id, genesis, local.owner)
    journal = tmp_path / "keeper-journal.sqlite"
    Journal.open(journal, identity, clock=ManualClock()).close()
    return Kept(config, text, journal, identity)


def refused(inside: Inside, kept: Kept, *arguments: str) -> str:
    """Run a command that must be refused, and return its line."""
    before = kept.files()
    line = inside(*arguments).line()
    assert kept.files() == before
    return line


# --------------------------------------------------------------------- what only a look at the chain can tell


def swap(old: Callable[[Local], str], new: Callable[[Local], str]) -> Callable[[Local, str], str]:
    """Return an edit of the configuration that must change something."""

    def edit(local: Local, text: str) -> str:
        assert old(local) in text
        return text.replace(old(local), new(local), 1)

    return edit


def keyed(section: str, key: str, value: Callable[[Local], str]) -> Callable[[Local, str], str]:
    """Return an edit that sets a key in place of what stands there."""

    def edit(local: Local, text: str) -> str:
        kept = [line for line in text.splitlines() if not line.startswith(f"{key} =")]
        return sections("\n".join(kept) + "\n", **{section: [f'{key} = "{value(local)}"']})

    return edit


def morpho_table(contract: str, market: str = "0x" + "11" * 32) -> str:
    return f'[[protocols]]\nkind = "morpho-blue"\ncontract = "{contract}"\nmarket = "{market}"\n'


CASES: dict[str, tuple[Callable[[Local, str], str], tuple[str, ...]]] = {
    "chain id": (
        swap(lambda s: f"chain_id = {s.market.chain_id}", lambda _: "chain_id = 1"),
        ("rpc.url http://127.0.0.1:", "answers for chain 31337", "chain_id = 1", "correct one of the two"),
    ),
    "no code at the provider": (
        swap(lambda s: s.market.provider, lambda _: NOBODY),
        ("protocols.0.provider", f"no code at {NOBODY}", "check the address and the chain"),
    ),
    "no code at the liquidator": (
        keyed("contracts", "liquidator", lambda _: NOBODY),
        ("contracts.liquidator", f"no code at {NOBODY}", "check the address"),
    ),
    "no code at the multicall": (
        keyed("contracts", "multicall", lambda _: NOBODY),
        ("contracts.multicall", f"no code at {NOBODY}", "check the address"),
    ),
    "no code at the lens": (
        keyed("contracts", "account_lens", lambda _: NOBODY),
        ("contracts.account_lens", f"no code at {NOBODY}", "check the address"),
    ),
    "no code at the router": (
        keyed("router", "router", lambda _: NOBODY),
        ("router.router", f"no code at {NOBODY}", "check the address"),
    ),
    "no code at the factory": (
        keyed("router", "factory", lambda _: NOBODY),
        ("router.factory", f"no code at {NOBODY}", "check the address"),
    ),
    "provider of nothing": (
        swap(lambda s: s.market.provider, lambda s: s.market.pool),
        ("protocols.0.provider", "does not lead to an Aave V3 market", "PoolAddressesProvider"),
    ),
    "token as provider": (
        swap(lambda s: s.market.provider, lambda s: s.market.asset("WETH").address),
        ("protocols.0.provider", "does not lead to an Aave V3 market", "PoolAddressesProvider"),
    ),
    "another contract as liquidator": (
        keyed("contracts", "liquidator", lambda s: s.market.pool),
        ("contracts.liquidator", "is not our Liquidator", "check the address"),
    ),
    "another contract as multicall": (
        keyed("contracts", "multicall", lambda s: s.market.pool),
        ("contracts.multicall", "is not a Multicall3", "remove the key"),
    ),
    "another contract as lens": (
        keyed("contracts", "account_lens", lambda s: s.market.multicall),
        ("contracts.account_lens", "is not the AccountLens", "remove the key"),
    ),
    "another contract as factory": (
        keyed("router", "factory", lambda s: s.market.pool),
        ("router.", "factory", "check"),
    ),
    "another contract as router": (
        keyed("router", "router", lambda s: s.market.multicall),
        ("router.router", "does not belong to the factory", "check both addresses"),
    ),
    "another contract as quoter": (
        keyed("router", "quoter", lambda s: s.market.multicall),
        ("router.quoter", "does not belong to the factory", "check both addresses"),
    ),
    "no feed at a reference": (
        swap(lambda s: s.market.asset("WETH").reference_feed, lambda s: s.market.pool),
        ("references.WETH.0.address", "is not a price feed", "check the address and the chain"),
    ),
    "reference of no asset": (
        swap(lambda _: '[[references."DAI"]]', lambda _: "[[references.DAII]]"),
        ("references.DAII", "no such asset", "DAI"),
    ),
    "native asset of no market": (
        keyed("execution", "native_asset", lambda _: "WETHH"),
        ("execution.native_asset", "'WETHH'", "did you mean 'WETH' or"),
    ),
    "unknown protocol": (
        swap(lambda _: '"aave-v3"', lambda _: '"aave-v4"'),
        ("protocols.0.kind", "'aave-v4'", "did you mean 'aave-v3'"),
    ),
    "unknown key of a protocol": (
        swap(lambda _: "from_block = ", lambda _: "from_blok = "),
        ("protocols.0", "from_blok", "did you mean 'from_block'?"),
    ),
    "unknown policy": (
        lambda _, t: t + '[policy]\nkind = "two-price"\n',
        ("policy.kind", "'two-price'", "did you mean 'three-price'?"),
    ),
    "unknown key of the policy": (
        lambda _, t: t + '[policy]\nkind = "three-price"\nharm_tolerance = 3\n',
        ("policy", "'harm_tolerance'", "harm_tolerance_bps"),
    ),
    "unknown guard": (
        lambda _, t: t + "[guards.stael]\n",
        ("guards.stael", "'stael'", "did you mean 'stale'?"),
    ),
    "unknown key of a guard": (
        lambda _, t: t + "[guards.stale]\nmax_age = 3\n",
        ("guards.stale", "'max_age'", "max_age_s"),
    ),
    "guard that is no table": (
        lambda _, t: t + "[guards]\nstale = 5\n",
        ("guards.stale = 5", "must be"),
    ),
    "unknown source": (
        swap(lambda _: 'kind = "chainlink"', lambda _: 'kind = "chainlnk"'),
        ("references.WETH.0", "'chainlnk'", "did you mean 'chainlink'"),
    ),
    "unknown key of a source": (
        swap(lambda _: "heartbeat_s = 3600", lambda _: "heartbeat = 3600"),
        ("references.WETH.0", "'heartbeat'", "heartbeat_s"),
    ),
    "unknown key": (
        swap(lambda _: "[rpc]\n", lambda _: "[rpc]\ntimeout = 3\n"),
        ("rpc.timeout", "did you mean 'rpc.timeout_s'?"),
    ),
    "wrong type": (
        swap(lambda _: "[rpc]\n", lambda _: '[rpc]\nmax_batch = "many"\n'),
        ("rpc.max_batch = 'many'", "must be a valid integer"),
    ),
    "two markets": (
        lambda s, t: t + f'[[protocols]]\nkind = "aave-v3"\nprovider = "{s.market.provider}"\n',
        ("protocols.1: the same market as protocols.0, aave-v3", "remove one of them"),
    ),
    "the same market under another label": (
        lambda s, t: t + f'[[protocols]]\nkind = "aave-v3"\nlabel = "b"\nprovider = "{s.market.provider}"\n',
        ("protocols.1: the same market as protocols.0, aave-v3", "remove one of them"),
    ),
    "another version than the pool's": (
        swap(lambda _: 'kind = "aave-v3"', lambda _: 'kind = "aave-v3.6"'),
        ("protocols.0.kind: the pool of 0x", "is aave-v3, not aave-v3.6", 'write kind = "aave-v3"'),
    ),
    "no contract at Morpho's address": (
        lambda s, t: t + morpho_table(NOBODY),
        ("protocols.1.contract (morpho-blue)", f"no code at {NOBODY}", "check the address"),
    ),
    "another contract than Morpho": (
        lambda s, t: t + morpho_table(s.market.pool),
        ("protocols.1.market: read market parameters failed", "check"),
    ),
    "keystore that is not there": (
        keyed("signer", "keystore_file", lambda _: "nowhere.json"),
        ("cannot read keystore", "nowhere.json", "signer.keystore_file"),
    ),
    "keystore that is none": (
        keyed("signer", "keystore_file", lambda _: "keeper.toml"),
        ("keeper.toml is not a version 3 keystore", "signer.keystore_file"),
    ),
    "password file that is not there": (
        keyed("signer", "password", lambda _: "file:nowhere"),
        ("signer.password", "nowhere", "No such file", "check the path"),
    ),
    "password variable that is not set": (
        keyed("signer", "password", lambda _: "env:MARGINLINE_TEST_UNSET"),
        ("signer.password", "MARGINLINE_TEST_UNSET is not set", "set MARGINLINE_TEST_UNSET"),
    ),
    "live without a key": (
        lambda _, t: re.sub(r"(?s)\[signer\].*?\n\n", "", t),
        ("mode live needs [signer]", "keeper init --deploy"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_configuration_that_does_not_fit_the_chain(
    local: Local, inside: Inside, kept: Kept, name: str
) -> None:
    edit, says = CASES[name]
    kept.write(edit(local, kept.text))
    line = refused(inside, kept, "keeper", "run", "--config", str(kept.config))
    for words in says:
        assert words in line, line


def test_the_same_line_from_every_command(local: Local, inside: Inside, kept: Kept) -> None:
    kept.write(kept.text.replace(local.market.provider, NOBODY))
    lines = {
        refused(inside, kept, "keeper", *words, "--config", str(kept.config))
        for words in (["run"], ["scan"], ["scan", "--json"], ["explain", NOBODY])
    }
    assert len(lines) == 1
    doctor = inside("keeper", "doctor", "--config", str(kept.config))
    assert doctor.code == 1
    assert doctor.err == "error: doctor: chain and addresses\n"


def test_another_key_than_the_contracts_owner(local: Local, inside: Inside, kept: Kept) -> None:
    other = create_keystore(kept.config.parent / "other.json", Secret("pw"), cost=TOY_COST)
    (kept.config.parent / "pw").write_text("pw\n")
    text = keyed("signer", "keystore_file", lambda _: "other.json")(local, kept.text)
    kept.write(keyed("signer", "password", lambda _: "file:pw")(local, text))
    line = refused(inside, kept, "keeper", "run", "--config", str(kept.config))
    assert line.startswith(f"contracts.liquidator belongs to {local.owner}, the key is {other}; ")


def test_wrong_password(local: Local, inside: Inside, kept: Kept) -> None:
    (kept.config.parent / "wrong").write_text("not it\n")
    kept.write(keyed("signer", "password", lambda _: "file:wrong")(local, kept.text))
    line = refused(inside, kept, "keeper", "run", "--config", str(kept.config))
    assert line == f"wrong password for keystore {local.folder / 'keystore.json'}; check signer.password"


# ------------------------------------------------------------------------------------------------- the node


def test_node_that_is_down(local: Local, inside: Inside, kept: Kept) -> None:
    with FaultProxy(local.node.url) as proxy:
        gone = proxy.url
    kept.write(kept.text.replace(local.node.url, gone))
    line = refused(inside, kept, "keeper", "run", "--config", str(kept.config))
    assert line.startswith(f"rpc.url {gone}: no connection")
    assert line.endswith("; is the node running and the URL right?")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (Spoil.HTML, "bytes that are not JSON"),
        (Spoil.HTTP_500, "HTTP 500"),
        (Spoil.LOSE_REPLY, "no connection"),
        (Spoil.NULL, ""),
        (Spoil.WRONG_ID, ""),
    ],
)
def test_endpoint_that_is_no_node(local: Local, inside: Inside, kept: Kept, spoil: Spoil, says: str) -> None:
    with FaultProxy(local.node.url) as proxy:
        proxy.spoil(spoil, "eth_chainId", times=1_000)
        kept.write(kept.text.replace(local.node.url, proxy.url))
        line = refused(inside, kept, "keeper", "run", "--config", str(kept.config))
    assert line.startswith(f"rpc.url {proxy.url}"), line
    assert says in line
    assert "; " in line, "what to do about it"


# ---------------------------------------------------------------------------------------------- the journal


def run_with(inside: Inside, kept: Kept) -> str:
    return refused(inside, kept, "keeper", "run", "--config", str(kept.config))


def test_journal_that_is_damaged(inside: Inside, kept: Kept) -> None:
    content = bytearray(kept.journal.read_bytes())
    content[200:6_000] = os.urandom(5_800)
    kept.journal.write_bytes(content)
    line = run_with(inside, kept)
    assert f"journal {kept.journal} is damaged" in line
    assert line.endswith("restore it from a backup, or move it away to start anew")
    assert inside("keeper", "journal", "--config", str(kept.config)).line() == line


def test_journal_that_is_cut_off(inside: Inside, kept: Kept) -> None:
    kept.journal.write_bytes(kept.journal.read_bytes()[:5_000])
    assert "is damaged" in run_with(inside, kept)


def test_journal_that_is_none(inside: Inside, kept: Kept) -> None:
    kept.journal.write_text("dear diary\n")
    assert f"{kept.journal} is not a journal" in run_with(inside, kept)


def test_database_of_another_program(inside: Inside, kept: Kept) -> None:
    kept.journal.unlink()
    with sqlite3.connect(kept.journal) as other:
        other.execute("CREATE TABLE cake (slices INTEGER)")
    other.close()
    assert "is a SQLite file of another program; choose another path" in run_with(inside, kept)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"chain_id": 1}, "its chain id is 1, not 31337"),
        ({"sender": NOBODY}, f"its sender is {NOBODY}, not "),
        ({"genesis_hash": "0x" + "ab" * 32}, "its genesis hash is 0xabab"),
    ],
)
def test_journal_of_somebody_else(
    inside: Inside, kept: Kept, change: dict[str, int | str], says: str
) -> None:
    kept.journal.unlink()
    of = {"chain_id": kept.identity.chain_id, "genesis_hash": kept.identity.genesis_hash}
    other = Identity(**{**of, "sender": kept.identity.sender, **change})  # type: ignore[arg-type]
    Journal.open(kept.journal, other, clock=ManualClock()).close()
    line = run_with(inside, kept)
    assert f"journal {kept.journal} is foreign: {says}" in line
    assert "choose another path" in line
    doctor = inside("keeper", "doctor", "--config", str(kept.config))
    assert (doctor.code, doctor.err) == (1, "error: doctor: journal's owner\n")


def test_journal_that_another_keeper_holds(inside: Inside, kept: Kept) -> None:
    with Journal.open(kept.journal, kept.identity):
        before = kept.files()
        line = inside("keeper", "run", "--config", str(kept.config)).line()
        assert kept.files() == before
    assert f"journal {kept.journal} is in use by process {os.getpid()}; stop that keeper" in line


def test_journal_in_no_folder(local: Local, inside: Inside, kept: Kept) -> None:
    kept.write(sections(kept.text, journal=['path = "nowhere/journal.sqlite"']))
    line = run_with(inside, kept)
    assert "cannot open a journal at" in line
    assert "nowhere/journal.sqlite" in line


# -------------------------------------------------------------------------------------------- recorded prices


@pytest.mark.parametrize("content", ["", "time,price\n"])
def test_price_file_without_prices(local: Local, inside: Inside, kept: Kept, content: str) -> None:
    file = kept.config.parent / "dai.csv"
    file.write_text(content)
    table = ['kind = "recorded"', 'path = "dai.csv"', 'time = "time"', 'price = "price"', "decimals = 8"]
    kept.write(kept.text + '[[references."DAI"]]\n' + "\n".join(table) + "\n")
    line = run_with(inside, kept)
    assert line.startswith("references.DAI.1: ")
    assert str(file) in line, "relative to the configuration"


# ----------------------------------------------------------------------------------------------------- init


INIT: dict[str, tuple[Callable[[Local, list[str]], list[str]], tuple[str, ...]]] = {
    "no code at the provider": (
        lambda s, w: [NOBODY if x == s.market.provider else x for x in w],
        ("--provider", f"no code at {NOBODY}"),
    ),
    "provider that is none": (
        lambda s, w: [s.market.pool if x == s.market.provider else x for x in w],
        ("--provider", "does not lead to an Aave V3 market", "PoolAddressesProvider"),
    ),
    "no address": (
        lambda s, w: ["0x12" if x == s.market.provider else x for x in w],
        ("--provider: '0x12' is not an address", "40 hex digits"),
    ),
    "no code at the factory": (
        lambda s, w: [NOBODY if x == s.market.uniswap.factory else x for x in w],
        ("--uniswap-factory", f"no code at {NOBODY}"),
    ),
    "no code at the router": (
        lambda s, w: [NOBODY if x == s.market.uniswap.router else x for x in w],
        ("--router", f"no code at {NOBODY}"),
    ),
    "router of another factory": (
        lambda s, w: [s.market.multicall if x == s.market.uniswap.router else x for x in w],
        ("--router", "does not belong to the factory", "check both addresses"),
    ),
    "router alone": (
        lambda s, w: w[: w.index("--uniswap-factory")] + w[w.index("--router") :],
        ("--uniswap-factory and --router go together", "give both, or none"),
    ),
    "reference of no asset": (
        lambda s, w: [*w, "--reference", f"WETHH={s.market.asset('WETH').feed}"],
        ("--reference", "'WETHH'", "did you mean 'WETH' or"),
    ),
    "reference that is no feed": (
        lambda s, w: [*w, "--reference", f"WETH={s.market.pool}"],
        ("--reference WETH", "is not a price feed", "check the address"),
    ),
    "reference without a name": (
        lambda s, w: [*w, "--reference", s.market.pool],
        ("--reference", "is not SYMBOL=ADDRESS", "for example"),
    ),
    "deploy without a key": (
        lambda _, w: [*w, "--deploy"],
        ("--deploy needs a key", "--keystore and --password-file"),
    ),
    "keystore without a password": (
        lambda s, w: [*w, "--keystore", str(s.folder / "keystore.json")],
        ("--keystore and --password-file go together",),
    ),
    "password file that is not there": (
        lambda s, w: [*w, "--keystore", str(s.folder / "keystore.json"), "--password-file", "/nowhere"],
        ("--password-file: no file /nowhere", "check the path"),
    ),
    "wrong password": (
        lambda s, w: [
            *(*w, "--deploy", "--keystore", str(s.folder / "keystore.json")),
            *("--password-file", str(s.folder / "keystore.json")),
        ],
        ("--keystore: wrong password for keystore", "check --keystore and --password-file"),
    ),
    "receiver for nothing": (
        lambda _, w: [*w, "--receiver", NOBODY],
        ("--receiver", NOBODY, "add --deploy"),
    ),
}


@pytest.mark.parametrize("name", INIT)
def test_init_refuses_before_it_deploys_or_writes(
    local: Local, inside: Inside, tmp_path: Path, name: str
) -> None:
    edit, says = INIT[name]
    config = tmp_path / "keeper.toml"
    nonce = local.node.rpc.call("eth_getTransactionCount", [local.owner, "pending"])
    line = inside(*edit(local, local.init_arguments(config))).line()
    for words in says:
        assert words in line, line
    assert not config.exists()
    assert local.node.rpc.call("eth_getTransactionCount", [local.owner, "pending"]) == nonce


def test_init_with_a_key_that_cannot_pay(local: Local, inside: Inside, tmp_path: Path) -> None:
    evm = local.node.evm()
    evm.set_balance(local.owner, 1)
    try:
        line = inside(*local.init_arguments(tmp_path / "keeper.toml", deploy=True)).line()
    finally:
        evm.set_balance(local.owner, 100 * ETHER)
    assert line.startswith("--deploy: "), line
    assert local.owner in line or "funds" in line


def test_init_leaves_a_configuration_alone(local: Local, inside: Inside, kept: Kept) -> None:
    line = refused(inside, kept, *local.init_arguments(kept.config, deploy=True))
    assert line == f"--config: {kept.config} exists already; choose another path or remove it"
    assert kept.config.read_text() == kept.text
    nowhere = kept.config.parent / "nowhere"
    line = inside(*local.init_arguments(nowhere / "keeper.toml", deploy=True)).line()
    assert line == f"--config: no folder {nowhere}; create it first"


# ---------------------------------------------------------------------------------------------- the others


def test_account_that_has_no_position(local: Local, inside: Inside, kept: Kept) -> None:
    line = refused(inside, kept, "keeper", "explain", NOBODY, "--config", str(kept.config))
    assert line.startswith(f"ACCOUNT: {NOBODY} has no position in {local.market.pool} at block ")
    line = refused(inside, kept, "keeper", "explain", "0xabc", "--config", str(kept.config))
    assert line == "ACCOUNT: '0xabc' is not an address; give 0x and 40 hex digits"


def test_port_that_is_taken(local: Local, inside: Inside) -> None:
    port = str(local.node.port)
    says = f"port {port} is taken; choose another one, or 0 for any"
    assert inside("chain", "up", "--accounts", "20", "--seed", "1", "--port", port).line() == says
    assert inside("chain", "fork", "--rpc", local.node.url, "--port", port).line() == says


def test_fork_of_what_is_not_there(local: Local, inside: Inside) -> None:
    head = int(local.node.rpc.call("eth_blockNumber"), 16)
    line = inside("chain", "fork", "--rpc", local.node.url, "--block", str(head + 5), "--port", "0").line()
    assert line == f"the chain has no block {head + 5} yet; its head is at {head}"
    with FaultProxy(local.node.url) as proxy:
        gone = proxy.url
    line = inside("chain", "fork", "--rpc", gone, "--port", "0").line()
    assert line.startswith(f"--rpc {gone}: no connection")
