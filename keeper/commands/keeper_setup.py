"""What several keeper commands start with: the configuration in its mode, the key, the discovery."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from contracts_abi.errors import InputError
from keeper.compose import Connected
from keeper.config import KeeperConfig, Mode, Secret, load_config, resolve_secret
from keeper.signer import Signer
from keeper.sync import Discovery, ScanStore

ZERO_ADDRESS: Final = "0x" + "00" * 20
"""Sender of a keeper without a contract, which can only observe."""

LADDER: Final = (Mode.OBSERVE, Mode.DRY_RUN, Mode.LIVE)


def configured(path: Path, mode: str | None = None) -> KeeperConfig:
    """Return the configuration, in a lower mode where the command line asks for one.

    Raises
    ------
    InputError
        If `mode` is none, or goes beyond the file's.
    """
    config = load_config(path)
    if mode is None:
        return config
    try:
        wanted = Mode(mode)
    except ValueError:
        raise InputError(
            f"--mode: {mode!r} is not a mode", fix=f"choose {', '.join(LADDER[:-1])} or {LADDER[-1]}"
        ) from None
    if LADDER.index(wanted) > LADDER.index(config.mode):
        raise InputError(
            f"--mode {wanted} goes beyond mode = {config.mode.value!r} in {path}", fix="change the file"
        )
    return config.model_copy(update={"mode": wanted})


def endpoint_option(given: str) -> tuple[str, Secret]:
    """Return what a configuration is to say of an endpoint given as ``--rpc``, and the URL itself.

    A reference stays one: a key in the URL is then neither an argument, which every process can read, nor
    text in the configuration.
    """
    scheme, _, rest = given.partition(":")
    if scheme not in ("env", "file"):
        return given, Secret(given)
    reference = f"file:{Path(rest).expanduser().absolute()}" if scheme == "file" and rest else given
    return reference, resolve_secret(reference, what="--rpc")


def sender_of(connected: Connected) -> str:
    """Return the owner of our contract, who is the sender of a simulation; nobody without a contract."""
    return connected.owner or ZERO_ADDRESS


def load_signer(connected: Connected, *, exclusive: bool = True) -> Signer:
    """Open the configured key, which must be the owner of our contract.

    Parameters
    ----------
    exclusive
        Keep other keepers off the key until it is closed.

    Raises
    ------
    InputError
        If key or contract are not configured, do not belong together, or the key cannot be opened.
    """
    config = connected.config
    if config.signer is None or connected.owner is None:
        missing = "[signer]" if config.signer is None else "contracts.liquidator"
        raise InputError(f"mode live needs {missing}", fix="marginline keeper init --deploy writes both")
    password = config.secret(config.signer.password, "signer.password")
    keystore = config.path(config.signer.keystore_file)
    signer = Signer.load(keystore, password, chain_id=config.chain_id, exclusive=exclusive)
    if connected.owner != signer.address:
        signer.close()
        raise InputError(
            f"contracts.liquidator belongs to {connected.owner}, the key is {signer.address}",
            fix="use its owner's key, or deploy one for this key",
        )
    return signer


def discoveries_of(connected: Connected, store: ScanStore) -> dict[str, Discovery]:
    """Return the discovery of each market's borrowers by its name; they keep their cursors in `store`."""
    return {
        market.name: Discovery(
            connected.node,
            store,
            market.adapter,
            market.emitter,
            from_block=market.from_block,
            range_blocks=connected.config.rpc.logs_range_blocks,
            log_filter=market.log_filter,
        )
        for market in connected.markets
    }
