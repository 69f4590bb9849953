"""``marginline keeper init``: from one address to a configuration, and our contract by command."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_utils.address import is_address, to_checksum_address

from contracts_abi.calls import Call
from contracts_abi.errors import ChainError, DataError, InputError, RpcError, UnknownNameError
from contracts_abi.multicall import MULTICALL3_ADDRESS
from keeper.commands.keeper_setup import ZERO_ADDRESS, endpoint_option
from keeper.compose import chain_id_of, check_code, check_router, find_pools
from keeper.config import FeesSection, Mode, RouterSection, Secret, resolve_secret
from keeper.fees import FeePolicy, market_fees
from keeper.markets import aave_kind, read_layout
from keeper.rpc import Head, Node
from keeper.signer import Signer, UnsignedTx
from oracle.sources.chainlink import complete, resolve
from simulation.chain.artifacts import own
from simulation.chain.rpc import masked
from simulation.protocols.aave_v3 import AaveLayout, run_stages
from simulation.protocols.morpho_blue import MorphoBlue, discover_layout
from simulation.protocols.morpho_blue.layout import market_id
from simulation.types import Asset

RECEIPT_WAIT_S = 180.0
DEPLOY_GAS_MARGIN = 12  # tenths


def address_option(text: str, option: str) -> str:
    """Return a checksummed address given on the command line.

    Raises
    ------
    InputError
        Naming the option and the value.
    """
    if not is_address(text):
        raise InputError(f"{option}: {text!r} is not an address", fix="give 0x and 40 hex digits")
    return str(to_checksum_address(text))


def init(
    *,
    rpc_url: str,
    provider: str | None,
    config_file: Path,
    uniswap_factory: str | None,
    router: str | None,
    reference: tuple[str, ...],
    keystore: Path | None,
    password_file: Path | None,
    receiver: str | None,
    deploy: bool,
    as_json: bool,
    morpho: str | None = None,
    morpho_markets: tuple[str, ...] = (),
) -> None:
    """Discover a deployment and write the keeper's configuration; see the command's help."""
    _check_options(config_file, keystore, password_file, receiver, deploy)
    provider = None if provider is None else address_option(provider, "--provider")
    morpho = None if morpho is None else address_option(morpho, "--morpho")
    _check_morpho_options(provider, morpho, morpho_markets)
    references = [_reference(text) for text in reference]
    swaps = _router(uniswap_factory, router)
    rpc_url, endpoint = endpoint_option(rpc_url)
    node = Node.connect(endpoint.reveal())
    chain_id = chain_id_of(node, "--rpc", masked(endpoint.reveal()))
    head = node.head()
    named = {"--provider": provider, "--morpho": morpho}
    check_code(node, {option: address for option, address in named.items() if address is not None})
    found = _discovered(node, head, provider, morpho, morpho_markets)
    symbols = list(dict.fromkeys(asset.symbol for asset in found.assets))
    _check_references(references, symbols, node, head)
    if swaps is not None:
        check_code(node, {"--uniswap-factory": swaps.factory, "--router": swaps.router})
        check_router(swaps, node, head, "--")
    tokens = list(dict.fromkeys(asset.address for asset in found.assets))
    pools = find_pools(swaps, tokens, node, head, "--uniswap-factory")
    multicall = MULTICALL3_ADDRESS if node.code([MULTICALL3_ADDRESS])[0] else None
    liquidator = None
    if deploy:
        with contextlib.closing(_signer(keystore, password_file, chain_id)) as signer:
            liquidator = _deploy(node, signer, found, swaps, receiver)
    text = render_config(
        rpc_url=rpc_url,
        chain_id=chain_id,
        tables=found.tables,
        swaps=swaps,
        multicall=multicall,
        liquidator=liquidator,
        references=references,
        keystore=keystore,
        password_file=password_file,
    )
    try:
        # An endpoint's key stands in its URL: for nobody else to read.
        descriptor = os.open(config_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        deployed = "" if liquidator is None else f"; the Liquidator stands at {liquidator}"
        raise InputError(f"--config: cannot write {config_file}: {error.strerror}{deployed}") from None
    with_reference = {symbol for symbol, _ in references}
    told = {
        "config": str(config_file),
        "rpc": masked(endpoint.reveal()),
        "chain_id": chain_id,
        "protocols": [table["kind"] for table in found.tables],
        "pool": None if found.layout is None else found.layout.pool,
        "oracle": None if found.layout is None else found.layout.oracle,
        "morpho": morpho,
        "assets": symbols,
        "pools": len(pools),
        "references": sorted(with_reference),
        "liquidator": liquidator,
    }
    if as_json:
        print(json.dumps(told))
        return
    where = f"pool {found.layout.pool}" if found.layout is not None else f"Morpho {morpho}"
    print(f"{config_file}: chain {chain_id}, {where}, {len(symbols)} assets, {len(pools)} swap pools")
    if morpho_markets:
        print(f"{len(morpho_markets)} markets of Morpho Blue at {morpho}")
    without = [s for s in symbols if s not in with_reference]
    if without:
        print(f"no reference for {', '.join(without)}: accounts that need one are unknown, and are held")
    if liquidator is None:
        print("no Liquidator: this keeper observes; --deploy with a key makes it able to act")
    print(f"next: marginline keeper doctor --config {config_file}")


def _check_options(
    config_file: Path, keystore: Path | None, password_file: Path | None, receiver: str | None, deploy: bool
) -> None:
    """Refuse what needs no node to be seen wrong; nothing may be deployed before this."""
    if config_file.exists():
        raise InputError(f"--config: {config_file} exists already", fix="choose another path or remove it")
    folder = config_file.absolute().parent
    if not folder.is_dir():
        raise InputError(f"--config: no folder {folder}", fix="create it first")
    if (keystore is None) != (password_file is None):
        raise InputError("--keystore and --password-file go together", fix="give both, or none")
    for option, path in (("--keystore", keystore), ("--password-file", password_file)):
        if path is not None and not path.is_file():
            raise InputError(f"{option}: no file {path}", fix="check the path")
    if deploy and keystore is None:
        raise InputError("--deploy needs a key", fix="give --keystore and --password-file")
    if receiver is not None:
        if not deploy:
            raise InputError(
                f"--receiver {receiver} is for a new Liquidator", fix="add --deploy, or leave it out"
            )
        address_option(receiver, "--receiver")


def _check_morpho_options(provider: str | None, morpho: str | None, markets: Sequence[str]) -> None:
    """Refuse options that name no market, or half of one."""
    if provider is None and morpho is None:
        raise InputError("--provider: is missing", fix="give it, or --morpho with --morpho-market, or both")
    if (morpho is None) != (not markets):
        raise InputError("--morpho and --morpho-market go together", fix="give both, or none")
    for i, text in enumerate(markets):
        try:
            market_id(text)
        except InputError as error:
            raise InputError(f"--morpho-market: {error.message}", fix=error.fix) from None
        if market_id(text) in [market_id(other) for other in markets[:i]]:
            raise InputError(f"--morpho-market: {text} is given twice", fix="give each market once")


@dataclass(frozen=True, slots=True)
class _Found:
    """What the options led to.

    Attributes
    ----------
    layout
        Aave's market; None without one.
    morpho
        The contract of Morpho Blue; None without one.
    assets
        Those of all markets.
    tables
        The configuration's ``[[protocols]]``, one for each market.
    """

    layout: AaveLayout | None
    morpho: str | None
    assets: tuple[Asset, ...]
    tables: tuple[Mapping[str, str | int], ...]


def _discovered(
    node: Node, head: Head, provider: str | None, morpho: str | None, markets: Sequence[str]
) -> _Found:
    """Find every market that the options name.

    Raises
    ------
    InputError
        Naming the option that leads to none.
    """

    def execute(calls: Sequence[Call[Any]]) -> list[bytes | None]:
        return node.read(list(calls), head)

    layout: AaveLayout | None = None
    assets: list[Asset] = []
    tables: list[Mapping[str, str | int]] = []
    if provider is not None:
        layout = read_layout(execute, provider, "--provider")
        assets += [reserve.asset for reserve in layout.reserves]
        from_block = deployment_block(node, layout.pool, head)
        kind = aave_kind(execute, layout)
        tables.append({"kind": kind, "provider": layout.provider, "from_block": from_block})
    if morpho is not None:
        from_block = deployment_block(node, morpho, head)
        for text in markets:
            try:
                found = run_stages(discover_layout(morpho, text), execute)
            except DataError as error:
                raise InputError(f"--morpho-market: {error.message}", fix=error.fix) from None
            assets += [found.loan, found.collateral]
            tables.append(
                {"kind": MorphoBlue.kind, "contract": morpho, "market": found.id, "from_block": from_block}
            )
    return _Found(layout, morpho, tuple(assets), tuple(tables))


def _check_references(
    references: Sequence[tuple[str, str]], symbols: Sequence[str], node: Node, head: Head
) -> None:
    for symbol, address in references:
        if symbol not in symbols:
            raise UnknownNameError("asset in --reference", symbol, symbols)
        check_code(node, {f"--reference {symbol}": address})
        try:
            complete(resolve(address), lambda calls: node.read(list(calls), head))
        except InputError as error:
            raise InputError(f"--reference {symbol}: {error.message}", fix=error.fix) from None


def _reference(text: str) -> tuple[str, str]:
    symbol, _, address = text.partition("=")
    if not symbol or not address:
        raise InputError(f"--reference: {text!r} is not SYMBOL=ADDRESS", fix="for example WETH=0x5f4e…")
    return symbol, address_option(address, f"--reference {symbol}")


def _router(factory: str | None, router: str | None) -> RouterSection | None:
    if factory is None and router is None:
        return None
    if factory is None or router is None:
        raise InputError("--uniswap-factory and --router go together", fix="give both, or none")
    return RouterSection(
        factory=address_option(factory, "--uniswap-factory"), router=address_option(router, "--router")
    )


def _signer(keystore: Path | None, password_file: Path | None, chain_id: int) -> Signer:
    assert keystore is not None
    assert password_file is not None
    password: Secret = resolve_secret(f"file:{password_file}", what="--password-file")
    try:
        return Signer.load(keystore, password, chain_id=chain_id)
    except InputError as error:
        # It speaks of configuration keys, and there is no configuration yet.
        raise InputError(f"--keystore: {error.message}", fix="check --keystore and --password-file") from None


def _deploy(
    node: Node,
    signer: Signer,
    found: _Found,
    swaps: RouterSection | None,
    receiver: str | None,
) -> str:
    """Deploy the Liquidator from the keeper's key and return its address."""
    target = signer.address if receiver is None else address_option(receiver, "--receiver")
    pool = ZERO_ADDRESS if found.layout is None else found.layout.pool
    morpho = found.morpho or ZERO_ADDRESS
    # Without a router only liquidations from inventory run; a venue stands in, and swaps nothing.
    stand_in = morpho if found.layout is None else pool
    router = stand_in if swaps is None else swaps.router
    code = own("Liquidator").creation_code(signer.address, target, pool, morpho, router)
    tick = node.tick(signer.address)
    assert tick.sender is not None
    fees = market_fees(tick.fees, FeePolicy.from_config(FeesSection()))
    try:
        estimate = int(node.call("eth_estimateGas", {"from": signer.address, "data": "0x" + code.hex()}), 16)
    except RpcError as error:
        raise ChainError(f"--deploy: the node refuses the deployment: {error.message}") from None
    gas_limit = estimate * DEPLOY_GAS_MARGIN // 10
    cost_wei = gas_limit * fees.max_fee_wei
    if cost_wei > tick.sender.balance_wei:
        raise InputError(
            f"--deploy: {signer.address} has {tick.sender.balance_wei} wei, it may cost {cost_wei}",
            fix="fund the key",
        )
    signed = signer.sign(
        UnsignedTx(
            chain_id=node.chain_id(),
            nonce=tick.sender.nonce_pending,
            to=None,
            data=code,
            gas_limit=gas_limit,
            max_fee_wei=fees.max_fee_wei,
            priority_fee_wei=fees.priority_fee_wei,
        ),
        Mode.LIVE,
    )
    (sent,) = node.send_raw([signed.raw])
    deadline = time.monotonic() + RECEIPT_WAIT_S
    while time.monotonic() < deadline:
        receipt = node.call("eth_getTransactionReceipt", sent.tx_hash)
        if receipt is not None and receipt.get("blockHash"):
            if int(receipt["status"], 16) != 1:
                raise ChainError(f"--deploy: transaction {sent.tx_hash} failed")
            return str(to_checksum_address(receipt["contractAddress"]))
        time.sleep(0.05)
    raise ChainError(
        f"--deploy: transaction {sent.tx_hash} ({sent.outcome}) is not mined after {RECEIPT_WAIT_S:.0f} s",
        fix="look it up, then put its contract into contracts.liquidator",
    )


def deployment_block(node: Node, address: str, head: Head) -> int:
    """Return the first block with code at `address`; 0 where the node keeps no old states."""

    def there(block: int) -> bool:
        return str(node.call("eth_getCode", address, hex(block))) != "0x"

    low, high = 0, head.number
    try:
        if there(0):
            return 0
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if there(middle) else (middle, high)
    except RpcError:
        return 0
    return high


def render_config(
    *,
    rpc_url: str,
    chain_id: int,
    tables: Sequence[Mapping[str, str | int]],
    swaps: RouterSection | None,
    multicall: str | None,
    liquidator: str | None,
    references: Sequence[tuple[str, str]],
    keystore: Path | None,
    password_file: Path | None,
) -> str:
    """Return the configuration as TOML; every key left out has the default that `docs/keeper.md` lists."""
    lines = [
        "# Written by `marginline keeper init`; every key is described in docs/keeper.md.",
        'mode = "observe"  # observe: flag only; dry-run: also plan and simulate; live: sign and send',
        f"chain_id = {chain_id}",
        "",
        "[rpc]",
        f"url = {_text(rpc_url)}",
    ]
    for table in tables:
        lines += ["", "[[protocols]]"]
        lines += [f"{key} = {v if isinstance(v, int) else _text(v)}" for key, v in table.items()]
    if keystore is not None and password_file is not None:
        lines += [
            "",
            "[signer]",
            f"keystore_file = {_text(str(keystore.absolute()))}",
            f"password = {_text(f'file:{password_file.absolute()}')}",
        ]
    contracts = {"liquidator": liquidator, "multicall": multicall}
    if any(contracts.values()):
        lines += ["", "[contracts]"]
        lines += [f"{key} = {_text(value)}" for key, value in contracts.items() if value is not None]
    if swaps is not None:
        lines += ["", "[router]", f"factory = {_text(swaps.factory)}", f"router = {_text(swaps.router)}"]
    for symbol, address in references:
        lines += ["", f"[[references.{_text(symbol)}]]", 'kind = "chainlink"', f"address = {_text(address)}"]
        lines += ["heartbeat_s = 3600  # as the feed's operator publishes it; not on chain"]
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    # A JSON string is a TOML basic string.
    return json.dumps(value, ensure_ascii=False)
