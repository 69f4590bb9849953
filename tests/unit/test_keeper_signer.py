"""The one choke point: it signs in one mode, for one chain, and keeps its key to itself."""

from __future__ import annotations

import ast
import json
import stat
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
from eth_account.account import Account
from eth_keys.backends import CoinCurveECCBackend, get_backend_class
from eth_utils.crypto import keccak

from contracts_abi.errors import InputError
from keeper.config import Mode, Secret
from keeper.signer import TOY_COST, Signer, SigningRefused, UnsignedTx, create_keystore

ROOT = Path(__file__).parents[2]
KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
PASSWORD = "canary-password"
WRONG_PASSWORD = Secret("canary-of-another-kind")
NO_KEY = Secret("0xcanary")
TX = UnsignedTx(
    chain_id=5,
    nonce=3,
    to="0x" + "ab" * 20,
    data=b"\x01\x02",
    gas_limit=100_000,
    max_fee_wei=30,
    priority_fee_wei=2,
    value_wei=1,
)


@pytest.fixture
def keystore(tmp_path: Path) -> Path:
    path = tmp_path / "key.json"
    assert create_keystore(path, Secret(PASSWORD), private_key=Secret(KEY), cost=TOY_COST) == ADDRESS
    return path


@pytest.fixture
def signer(keystore: Path) -> Signer:
    return Signer.load(keystore, Secret(PASSWORD), chain_id=5, exclusive=False)


def test_signs_what_it_was_given(signer: Signer) -> None:
    signed = signer.sign(TX, Mode.LIVE)
    assert signed.raw[0] == 2
    assert signed.tx_hash == "0x" + keccak(signed.raw).hex()
    assert Account.recover_transaction(signed.raw) == ADDRESS == signer.address
    assert signed == signer.sign(TX, Mode.LIVE)  # RFC 6979: after a crash the same bytes come out


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="coincurve has no wheel for CPython 3.14")
def test_the_fast_library_is_in_use_and_signs_the_same_bytes(signer: Signer) -> None:
    assert get_backend_class() is CoinCurveECCBackend
    slow = Account()
    slow.set_key_backend("eth_keys.backends.NativeECCBackend")
    other = Signer(slow.from_key(KEY), chain_id=5)
    transactions = [replace(TX, nonce=n, data=bytes([n]) * n) for n in range(40)]
    signed = [signer.sign(transaction, Mode.LIVE) for transaction in transactions]
    assert signed == [other.sign(transaction, Mode.LIVE) for transaction in transactions]


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.LIVE])
def test_refuses_in_every_mode_but_live(signer: Signer, mode: Mode) -> None:
    with pytest.raises(SigningRefused, match=f"mode {mode}"):
        signer.sign(TX, mode)


def test_refuses_another_chain(keystore: Path) -> None:
    signer = Signer.load(keystore, Secret(PASSWORD), chain_id=1, exclusive=False)
    with pytest.raises(SigningRefused, match="chain 5"):
        signer.sign(TX, Mode.LIVE)


def test_wrong_password_is_one_line_without_either_password(keystore: Path) -> None:
    with pytest.raises(InputError, match="wrong password for keystore") as caught:
        Signer.load(keystore, WRONG_PASSWORD, chain_id=5)
    text = "".join(traceback.format_exception(caught.value))
    assert "canary" not in text
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "null", '{"version": 3}', '{"version": 1, "crypto": {}}', "\x00\xff"]
)
def test_file_that_is_no_keystore_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key.json"
    path.write_text(content)
    with pytest.raises(InputError, match="not a version 3 keystore"):
        Signer.load(path, Secret(PASSWORD), chain_id=5)


def test_damaged_keystore_is_refused(keystore: Path) -> None:
    content = json.loads(keystore.read_text())
    content["crypto"]["ciphertext"] = "00" * 32
    keystore.write_text(json.dumps(content))
    with pytest.raises(InputError, match="wrong password"):
        Signer.load(keystore, Secret(PASSWORD), chain_id=5)


def test_missing_keystore_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        Signer.load(tmp_path / "nowhere.json", Secret(PASSWORD), chain_id=5)


def test_two_keepers_cannot_hold_one_key(keystore: Path) -> None:
    first = Signer.load(keystore, Secret(PASSWORD), chain_id=5)
    with pytest.raises(InputError, match="in use by another keeper"):
        Signer.load(keystore, Secret(PASSWORD), chain_id=5)
    first.close()
    Signer.load(keystore, Secret(PASSWORD), chain_id=5).close()


def test_keystore_is_for_its_owner_only_and_never_overwritten(keystore: Path) -> None:
    assert stat.S_IMODE(keystore.stat().st_mode) == 0o600
    before = keystore.read_bytes()
    assert KEY[2:].encode() not in before
    with pytest.raises(InputError, match="exists already"):
        create_keystore(keystore, Secret(PASSWORD), cost=TOY_COST)
    assert keystore.read_bytes() == before


def test_what_is_no_key_is_refused_without_repeating_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a private key") as caught:
        create_keystore(tmp_path / "k", Secret(PASSWORD), private_key=NO_KEY, cost=TOY_COST)
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    assert not (tmp_path / "k").exists()


def test_key_is_in_no_repr(signer: Signer) -> None:
    shown = f"{signer!r} {signer} {TX!r} {signer.sign(TX, Mode.LIVE)!r}"
    assert KEY[2:] not in shown
    assert ADDRESS in shown


def test_only_the_signer_imports_the_key_library() -> None:
    importing = set()
    for package in ("contracts_abi", "oracle", "simulation", "keeper"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if any(name.split(".")[0] in ("eth_account", "eth_keys", "eth_keyfile") for name in names):
                    importing.add(path.relative_to(ROOT).as_posix())
    assert importing == {"keeper/signer.py"}
