"""The keeper's configuration: one TOML file, every unit in its key's name, no secret in it.

Unknown keys are refused with the nearest known one. Amounts of money are exact decimals. A secret is a
reference, ``env:NAME`` or ``file:PATH``, that is resolved when it is needed and never printed.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from eth_utils.address import is_address, is_checksum_address, to_checksum_address
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from contracts_abi.errors import InputError
from simulation.chain.rpc import masked

WEI_PER_ETH = 10**18
_MARKET_ID = re.compile(r"0x[0-9a-fA-F]{64}")
_LABEL = re.compile(r"[a-z0-9-]{1,24}")
WEI_PER_GWEI = 10**9


class Mode(StrEnum):
    """How far the keeper goes. Only `LIVE` ever signs, and only the signer asks."""

    OBSERVE = "observe"
    DRY_RUN = "dry-run"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that must not be printed. `reveal` is the only way to it."""

    _value: str = field(repr=False)

    def __str__(self) -> str:
        return "***"

    def __repr__(self) -> str:
        return "Secret(***)"

    def reveal(self) -> str:
        """Return the value; do not let it reach a log, an error or a file."""
        return self._value


def resolve_secret(reference: str, *, what: str, folder: Path = Path()) -> Secret:
    """Resolve ``env:NAME`` or ``file:PATH`` (one trailing line end is dropped).

    Parameters
    ----------
    what
        The configuration key, for the error.
    folder
        Folder that a relative path starts from.

    Raises
    ------
    InputError
        If the reference is not one, or leads nowhere. The reference is named, the value never is.
    """
    scheme, _, rest = reference.partition(":")
    if scheme == "env" and rest:
        value = os.environ.get(rest)
        if value is None:
            raise InputError(f"{what}: environment variable {rest} is not set", fix=f"set {rest}")
        return Secret(value)
    if scheme == "file" and rest:
        path = folder / Path(rest).expanduser()
        try:
            return Secret(path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{what}: cannot read {path}: {_reason(error)}", fix="check the path") from None
    # What stands here instead may be the secret itself, so it is not repeated.
    raise InputError(f"{what}: not a reference", fix="write env:NAME or file:PATH, never the secret itself")


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else "not UTF-8 text"


def _address(value: str) -> str:
    if not is_address(value):
        raise ValueError("not an address of 20 bytes in hex")
    checksummed = to_checksum_address(value)
    body = value[2:]
    if body != body.lower() and body != body.upper() and not is_checksum_address(value):
        raise ValueError(f"checksum does not match, a character is wrong; expected {checksummed}")
    return checksummed


def _exact(value: object) -> object:
    # TOML numbers are parsed as Decimal already; a float would come from code and be inexact.
    if isinstance(value, float):
        raise ValueError("write it as text or as a whole number, a float is not exact")
    return value


def _reference(value: str) -> str:
    scheme, _, rest = value.partition(":")
    if scheme not in ("env", "file") or not rest:
        raise ValueError("write env:NAME or file:PATH, never the secret itself")
    return value


def _market_id(value: str) -> str:
    if not _MARKET_ID.fullmatch(value):
        raise ValueError("not a market id of 32 bytes in hex")
    return value.lower()


def _label(value: str) -> str:
    if not _LABEL.fullmatch(value):
        raise ValueError("not a label: 1 to 24 lower-case letters, digits and hyphens")
    return value


SecretReference = Annotated[str, AfterValidator(_reference)]
Address = Annotated[str, AfterValidator(_address)]
MarketId = Annotated[str, AfterValidator(_market_id)]
Label = Annotated[str, AfterValidator(_label)]
Amount = Annotated[Decimal, BeforeValidator(_exact), Field(ge=0, allow_inf_nan=False)]
PositiveAmount = Annotated[Decimal, BeforeValidator(_exact), Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=86_400 * 7)]


class Section(BaseModel):
    """A table of the configuration: immutable, and without room for unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RpcSection(Section):
    """The node."""

    url: SecretStr
    """``http(s)://…``, or ``env:NAME`` / ``file:PATH`` when the URL holds an API key."""
    timeout_s: Seconds = 10.0
    """Time allowed for one request."""
    max_batch: Annotated[int, Field(ge=1, le=10_000)] = 500
    """Most requests in one JSON-RPC batch."""
    logs_range_blocks: Annotated[int, Field(ge=1)] = 2_000
    """Blocks per log query while filling back."""
    poll_interval_s: Annotated[float, Field(gt=0, le=60)] = 0.5
    """Time between two looks at the head; a fraction of the block time."""


class SignerSection(Section):
    """The key, as a keystore file (Web3 Secret Storage v3) and a reference to its password."""

    keystore_file: Path
    """Keystore; relative to the configuration file."""
    password: SecretReference
    """``env:NAME`` or ``file:PATH``."""


class ContractsSection(Section):
    """Our own contracts; `keeper init` deploys them and fills these in."""

    liquidator: Address | None = None
    """Liquidator; without it the keeper only observes."""
    account_lens: Address | None = None
    """AccountLens; without it its code travels with each call as a state override."""
    multicall: Address | None = None
    """Multicall3-compatible contract, for nodes without state overrides."""


class ProtocolSection(Section):
    """A lending market to watch; one table each. Keys besides these belong to the protocol's adapter."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    kind: str
    """Registry name: ``aave-v3.6``, ``aave-v3`` or ``morpho-blue``."""
    provider: Address | None = None
    """Aave: the PoolAddressesProvider, from which everything else is discovered."""
    contract: Address | None = None
    """Morpho Blue: the contract that holds all of its markets."""
    market: MarketId | None = None
    """Morpho Blue: the market's id, 0x and 64 hexadecimal digits."""
    label: Label | None = None
    """Aave: tells two markets of one version apart; one with a label is called ``aave-v3.6:label``. The name
    stands in the journal, so a label is given once and kept."""
    from_block: Annotated[int, Field(ge=0)] = 0
    """First block that can hold a borrower's log: the block of the pool's deployment."""

    @property
    def options(self) -> Mapping[str, Any]:
        """The adapter's own keys."""
        return dict(self.model_extra or {})


class RouterSection(Section):
    """Where collateral is sold."""

    kind: Literal["uniswap-v3"] = "uniswap-v3"
    """Kind of the exchange; so far there is one."""
    factory: Address
    """Its factory, which knows the pools."""
    router: Address
    """Its swap router."""
    quoter: Address | None = None
    """Its quoter, for the doctor's cross-check."""
    fees_pips: tuple[int, ...] = (100, 500, 3_000, 10_000)
    """Fee tiers to look for pools in."""
    intermediates: tuple[Address, ...] = ()
    """Addresses of tokens that a swap may pass through, besides the market's own and
    ``execution.native_asset``. What another market lists is not among them unless it stands here: anybody's
    token may be listed somewhere."""


class FeesSection(Section):
    """EIP-1559 fees and replacement."""

    priority_fee_gwei: Amount = Decimal("0.1")
    """Least tip offered."""
    max_priority_fee_gwei: PositiveAmount = Decimal(50)
    """Most tip offered at first. A replacement has to raise it by an eighth, within the budget."""
    tip_percentile: Annotated[float, Field(ge=0, le=100)] = 60.0
    """Percentile of recent tips to offer, within the two limits above."""
    base_fee_headroom: Annotated[PositiveAmount, Field(ge=Decimal("1.125"))] = Decimal("1.6")
    """First maximum fee as a multiple of the next base fee; each full block takes an eighth, so 1.6 outlasts
    three of them and less than 1.125 not even one."""
    replace_after_blocks: Annotated[int, Field(ge=1)] = 2
    """Blocks without inclusion before the same nonce is sent again with higher fees."""
    max_gas_cost_eth: PositiveAmount = Decimal("0.5")
    """Most paid for gas per liquidation; the simulated profit is the other limit."""
    max_cancel_cost_eth: PositiveAmount = Decimal("0.02")
    """Most paid for freeing a nonce by a cancellation."""


class LimitsSection(Section):
    """Breakers. A breaker that trips stops new liquidations; what is in flight is still looked after."""

    max_in_flight: Annotated[int, Field(ge=1)] = 64
    """Open intents at a time."""
    max_per_block: Annotated[int, Field(ge=1)] = 32
    """New intents per block."""
    max_gas_loss_per_day_eth: PositiveAmount = Decimal("0.5")
    """Gas paid for reverts and cancellations, and by successes beyond what they earned, in 24 hours of block
    time. Of all markets together: it is the one balance that all of them are paid from."""
    max_reverts_per_account: Annotated[int, Field(ge=1)] = 6
    """Reverts of one account in 24 hours, then it is left alone until the oldest is that old."""
    max_reverts_per_hour: Annotated[int, Field(ge=1)] = 100
    """Reverts in one market in an hour, then nothing new is sent there until the oldest is that old; the
    other markets go on. Lost races are part of a crash; this stops where every attempt fails."""
    max_reverts_per_hour_in_all: Annotated[int, Field(ge=1)] = 300
    """Reverts in all markets together in an hour, beyond which nothing new is sent anywhere: what fails in
    several is more likely the keeper's own than a market's."""
    revert_backoff_blocks: Annotated[int, Field(ge=0)] = 1
    """Blocks before an account whose liquidation reverted is tried again; doubles with each revert."""
    min_balance_eth: Amount = Decimal("0.05")
    """Balance of the sender below which nothing new is sent."""
    max_head_age_s: Seconds = 60.0
    """Age of the newest block beyond which nothing new is sent."""
    clock: Literal["wall", "block"] = "wall"
    """What the age of a block is measured against: ``wall``, or ``block`` for a local chain that replays
    another day and whose newest block is therefore always new."""
    deny_accounts: tuple[Address, ...] = ()
    """Borrowers that are never touched."""
    allow_accounts: tuple[Address, ...] = ()
    """When not empty, the only borrowers that are touched."""


class ExecutionSection(Section):
    """How a liquidation is executed."""

    funding: Literal["flash", "inventory"] = "flash"
    """Whether a flash loan repays the debt, or own tokens: what the contract holds, then its owner's as far
    as it is allowed to take them. On Morpho Blue, where anybody can open a market, only the owner's."""
    native_asset: str = "WETH"
    """Symbol of the asset whose price is that of the chain's own coin, in which gas is paid."""
    min_profit_usd: Amount = Decimal(1)
    """Least simulated profit after gas worth sending for."""
    deadline_blocks: Annotated[int, Field(ge=1)] = 8
    """Blocks after the decision in which the contract still accepts the liquidation."""
    gas_margin_bps: Annotated[int, Field(ge=0, le=30_000)] = 3_000
    """Gas limit above the simulated gas."""
    confirmations: Annotated[int, Field(ge=0)] = 5
    """Blocks on top of a receipt before it is final."""


class JournalSection(Section):
    """The write-ahead journal."""

    path: Path = Path("keeper-journal.sqlite")
    """SQLite file; relative to the configuration file. Keep it on a local disk."""


class JobsSection(Section):
    """Periodic work, apart from the head-driven loop."""

    audit_every_s: Seconds = 300.0
    """Full sweep over all known borrowers, which must find nothing that the scan missed."""
    balance_every_s: Seconds = 60.0
    """Check of the sender's balance against ``limits.min_balance_eth``."""
    report_every_s: Seconds = 3_600.0
    """A line with the counts of intents and borrowers."""


class AlertsSection(Section):
    """Where alerts go besides the log. No sink ever slows the keeper down."""

    file: Path | None = None
    """JSON lines are appended here."""
    webhook: SecretReference | None = None
    """``env:NAME`` or ``file:PATH`` of a URL that takes ``{"text": …}`` by POST."""
    repeat_after_s: Seconds = 600.0
    """An alert with the same key is repeated only after this long, with a count."""


class KeeperConfig(Section):
    """Everything that the operator decides."""

    mode: Mode = Mode.OBSERVE
    """``observe`` flags, ``dry-run`` also plans and simulates, ``live`` signs and sends."""
    chain_id: Annotated[int, Field(gt=0)]
    """Chain id that the node must report."""
    rpc: RpcSection
    protocols: Annotated[tuple[ProtocolSection, ...], Field(min_length=1)]
    signer: SignerSection | None = None
    contracts: ContractsSection = ContractsSection()
    router: RouterSection | None = None
    references: Mapping[str, tuple[Mapping[str, Any], ...]] = Field(default_factory=dict)
    """Asset symbol to its reference sources, each a table with ``kind`` from the oracle registry."""
    guards: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """Guard name to its thresholds, from the guard registry."""
    policy: Mapping[str, Any] = Field(default_factory=lambda: {"kind": "three-price"})
    """A table with ``kind`` from the policy registry, and the policy's own keys."""
    execution: ExecutionSection = ExecutionSection()
    fees: FeesSection = FeesSection()
    limits: LimitsSection = LimitsSection()
    journal: JournalSection = JournalSection()
    jobs: JobsSection = JobsSection()
    alerts: AlertsSection = AlertsSection()
    folder: Annotated[Path, Field(exclude=True, repr=False)] = Path()

    def path(self, relative: Path) -> Path:
        """Return a path of the configuration, which is relative to its file."""
        return self.folder / relative.expanduser()

    def secret(self, reference: str, what: str) -> Secret:
        """Resolve a secret of this configuration."""
        return resolve_secret(reference, what=what, folder=self.folder)

    @property
    def rpc_url(self) -> Secret:
        """The node's URL, resolved."""
        url = self.rpc.url.get_secret_value()
        return self.secret(url, "rpc.url") if url.startswith(("env:", "file:")) else Secret(url)

    @property
    def rpc_shown(self) -> str:
        """The node's URL as it may be printed."""
        return masked(self.rpc_url.reveal())


def wei_of_eth(amount: Decimal) -> int:
    """Return an amount in ether as wei, rounded down."""
    return int(amount * WEI_PER_ETH)


def wei_of_gwei(amount: Decimal) -> int:
    """Return an amount in gwei as wei, rounded down."""
    return int(amount * WEI_PER_GWEI)


def load_config(path: Path) -> KeeperConfig:
    """Read and check a configuration file.

    Raises
    ------
    InputError
        With the file, the key, the value and what would be right; secrets are not repeated.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read configuration {path}: {_reason(error)}",
            fix="create one with: marginline keeper init",
        ) from None
    return parse_config(text, name=str(path), folder=path.parent)


def parse_config(text: str, *, name: str = "configuration", folder: Path = Path()) -> KeeperConfig:
    """Check a configuration that is at hand as text; see `load_config`."""
    try:
        # Through Decimal a TOML float keeps the digits that the operator wrote.
        raw = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name}: not TOML: {error}") from None
    if "folder" in raw:
        raise InputError(f"{name}: unknown key 'folder'", fix="remove it")
    for dotted, known in _unknown_keys(KeeperConfig, raw, ""):
        prefix, _, key = dotted.rpartition(".")
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        full = f"{prefix}.{near[0]}" if prefix and near else (near or [""])[0]
        fix = f"did you mean {full!r}?" if near else f"known here: {', '.join(sorted(known))}"
        raise InputError(f"{name}: unknown key {dotted!r}", fix=fix)
    try:
        return KeeperConfig.model_validate(raw | {"folder": folder})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        dotted = ".".join(str(part) for part in first["loc"])
        shown = "" if _is_secret(dotted) or first["type"] == "missing" else f" = {_short(first['input'])}"
        reason = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        need = "is missing" if first["type"] == "missing" else f"must be {reason}"
        if first["msg"].startswith("Value error, "):
            need = reason
        raise InputError(f"{name}: {dotted}{shown}: {need}") from None


def _is_secret(dotted: str) -> bool:
    return dotted in ("rpc.url", "signer.password", "alerts.webhook")


def _short(value: object) -> str:
    text = f"{value!r}" if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _section_of(annotation: object) -> tuple[type[BaseModel], bool] | None:
    """Return the section that a field's type holds, and whether it holds many."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    origin = get_origin(annotation)
    for inner in get_args(annotation):
        found = _section_of(inner)
        if found is not None:
            many = found[1] or (origin is tuple)
            return found[0], many
        if origin not in (tuple, Union, UnionType, Annotated):
            break
    return None


def _unknown_keys(
    section: type[BaseModel], raw: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, list[str]]]:
    known = [name for name in section.model_fields if name != "folder"]
    for key, value in raw.items():
        dotted = f"{prefix}{key}"
        if key not in known:
            if section.model_config.get("extra") != "allow":
                yield dotted, known
            continue
        inner = _section_of(section.model_fields[key].annotation)
        if inner is None:
            continue
        tables = value if inner[1] and isinstance(value, list) else [value]
        for index, table in enumerate(tables):
            if isinstance(table, Mapping):
                at = f"{dotted}.{index}." if inner[1] else f"{dotted}."
                yield from _unknown_keys(inner[0], table, at)
