"""The only module that touches a key, and the one place where something becomes a signed transaction.

`Signer.sign` refuses in every mode but ``live``, so no path through the keeper can leak a signature in
``observe`` or ``dry-run``. The key comes from a keystore file (Web3 Secret Storage, version 3) and never
leaves this module: not in a repr, an error, a log line or the journal.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from eth_account import Account
from eth_utils.address import to_checksum_address

from contracts_abi.errors import InputError, MarginlineError
from keeper.config import Mode, Secret

KEYSTORE_COST = 2**18
"""Scrypt cost of a keystore that guards a real key: about a second and 256 MiB to open."""

TOY_COST = 2
"""Scrypt cost for keys of local test chains, which are public anyway: opens at once."""


class SigningRefused(MarginlineError, PermissionError):
    """A signature was asked for where none may be given."""


@dataclass(frozen=True, slots=True)
class UnsignedTx:
    """An EIP-1559 transaction without its signature; amounts in wei, `to` None creates a contract."""

    chain_id: int
    nonce: int
    to: str | None
    data: bytes = field(repr=False)
    gas_limit: int
    max_fee_wei: int
    priority_fee_wei: int
    value_wei: int = 0


@dataclass(frozen=True, slots=True)
class SignedTx:
    """Signed bytes and their hash, which is known before anybody sees them."""

    raw: bytes = field(repr=False)
    tx_hash: str


class Signer:
    """A key that signs for one chain.

    Parameters
    ----------
    account
        Key holder of `eth_account`.
    chain_id
        The only chain that it signs for.

    Attributes
    ----------
    address
        Checksummed address of the key.
    """

    __slots__ = ("_account", "_chain_id", "_lock", "address")

    def __init__(self, account: Any, chain_id: int, lock: int | None = None) -> None:
        self._account = account
        self._chain_id = chain_id
        self._lock = lock
        self.address: str = to_checksum_address(account.address)

    def __repr__(self) -> str:
        return f"Signer({self.address})"

    @classmethod
    def load(cls, keystore_file: Path, password: Secret, *, chain_id: int, exclusive: bool = True) -> Signer:
        """Open a keystore.

        Parameters
        ----------
        exclusive
            Hold the file locked until this process ends, so that two keepers on one machine cannot hand out
            nonces of one key. Another machine is not kept out: the chain's nonce and the contract's record
            of intent ids are the fences there.

        Raises
        ------
        InputError
            If the file is not a keystore, the password is wrong, or another process holds it.
        """
        lock, text = _read(keystore_file, exclusive)
        try:
            account = Account.from_key(Account.decrypt(_keystore(keystore_file, text), password.reveal()))
        except (ValueError, KeyError, TypeError, NotImplementedError) as error:
            if lock is not None:
                os.close(lock)
            # Only the reason that the format itself gives is told; others might quote what was decrypted.
            if "MAC mismatch" in str(error):
                raise InputError(
                    f"wrong password for keystore {keystore_file}", fix="check signer.password"
                ) from None
            raise InputError(
                f"{keystore_file} is not a version 3 keystore", fix="check signer.keystore_file"
            ) from None
        return cls(account, chain_id, lock)

    def sign(self, transaction: UnsignedTx, mode: Mode) -> SignedTx:
        """Sign a transaction.

        Raises
        ------
        SigningRefused
            In every mode but ``live``, and for another chain.
        """
        if mode is not Mode.LIVE:
            raise SigningRefused(f"nothing is signed in mode {mode}", fix='set mode = "live" to send')
        if transaction.chain_id != self._chain_id:
            raise SigningRefused(
                f"transaction for chain {transaction.chain_id}, the key signs for {self._chain_id} only"
            )
        signed = self._account.sign_transaction(
            {
                "type": 2,
                "chainId": transaction.chain_id,
                "nonce": transaction.nonce,
                "to": b"" if transaction.to is None else bytes.fromhex(transaction.to.removeprefix("0x")),
                "value": transaction.value_wei,
                "gas": transaction.gas_limit,
                "maxFeePerGas": transaction.max_fee_wei,
                "maxPriorityFeePerGas": transaction.priority_fee_wei,
                "data": transaction.data,
            }
        )
        return SignedTx(bytes(signed.raw_transaction), "0x" + bytes(signed.hash).hex())

    def close(self) -> None:
        """Let go of the keystore file."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def create_keystore(
    path: Path, password: Secret, *, private_key: Secret | None = None, cost: int = KEYSTORE_COST
) -> str:
    """Write a keystore that only its owner can read, and return its address.

    Parameters
    ----------
    private_key
        Key in hex; a fresh one from the operating system's randomness without it.
    cost
        Scrypt cost N, a power of two; `TOY_COST` for local chains.

    Raises
    ------
    InputError
        If the file exists already or cannot be written, or the key is not one.
    """
    try:
        account = Account.create() if private_key is None else Account.from_key(private_key.reveal())
    except ValueError:
        raise InputError("not a private key", fix="it must be 32 bytes in hex") from None
    kdf: Literal["scrypt"] = "scrypt"
    keystore = Account.encrypt(account.key, password.reveal(), kdf=kdf, iterations=cost)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(keystore, file)
    except FileExistsError:
        raise InputError(f"keystore {path} exists already", fix="choose another path") from None
    except OSError as error:
        raise InputError(f"cannot write keystore {path}: {error.strerror}") from None
    return to_checksum_address(account.address)


def _read(path: Path, exclusive: bool) -> tuple[int | None, str]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(
            f"cannot read keystore {path}: {error.strerror}", fix="check signer.keystore_file"
        ) from None
    if exclusive:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise InputError(
                f"keystore {path} is in use by another keeper", fix="stop it, or use another key"
            ) from None
    try:
        with os.fdopen(os.dup(descriptor), encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError as error:
        os.close(descriptor)
        raise InputError(f"cannot read keystore {path}: {error.strerror}") from None
    if not exclusive:
        os.close(descriptor)
        return None, text
    return descriptor, text


def _keystore(path: Path, text: str) -> dict[str, Any]:
    keystore = json.loads(text)
    if not isinstance(keystore, dict):
        raise ValueError(f"{path}: not an object")
    return keystore
