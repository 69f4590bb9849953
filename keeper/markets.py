"""The kinds of markets that a keeper watches: what a ``[[protocols]]`` table says, and what is found from it.

Every market has a name of its own, which stands in its books, reports, plans, intents and events, and in the
journal: the registry kind, with what tells it from others of its kind behind a colon. Nothing here acts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Protocol

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from pydantic import ConfigDict, Field, ValidationError

from contracts_abi import aave_v3 as aave
from contracts_abi import morpho_blue as morpho
from contracts_abi.calls import Call
from contracts_abi.errors import DataError, InputError, UnknownNameError
from keeper.config import ContractsSection, ProtocolSection
from keeper.rpc import Head, Node
from keeper.sync import LogFilter
from keeper.view import QUOTE
from oracle.strict import StrictModel, input_error
from simulation.interfaces import ProtocolAdapter
from simulation.liquidation import Executable, LiquidationModel
from simulation.protocols import protocols
from simulation.protocols.aave_v3 import AaveLayout, AaveV3, discover_layout, run_stages
from simulation.protocols.aave_v3_6 import AaveV36
from simulation.protocols.morpho_blue import MorphoBlue, MorphoMarket
from simulation.protocols.morpho_blue import discover_layout as discover_morpho
from simulation.protocols.morpho_blue.book import screen_rounding
from simulation.screen import Rounding
from simulation.types import Asset

LENS_ADDRESS: Final = to_checksum_address(keccak(text="marginline: AccountLens")[12:])
"""Where the lens is pretended to be when it is not deployed."""

FIRST_REVISION_OF_V3_6: Final = 10
"""Of Aave's pool contract; lower ones keep other rules."""


class LendingProtocol(ProtocolAdapter[Any, Any], LiquidationModel[Any, Any], Executable, Protocol):
    """A protocol that can be read, judged and liquidated."""

    def project(self, market: Any, timestamp: int) -> Any:
        """Return the market at a later time; prices stay."""
        ...


@dataclass(frozen=True, slots=True)
class Market:
    """One market that is watched.

    Attributes
    ----------
    adapter
        The market, laid out.
    provider
        The address that its table names.
    emitter
        The contract whose logs bring borrowers into being.
    log_filter
        Which of its logs are this market's.
    from_block
        First block that can hold one.
    assets
        Its assets.
    base_decimals
        Scale of its base currency.
    quote
        What its own prices are quoted in: `keeper.view.QUOTE`, or the symbol of a token.
    one_by_one
        Whether an account's positions are a read of one word, so that many are to be bundled.
    """

    adapter: LendingProtocol
    provider: str
    emitter: str
    log_filter: LogFilter
    from_block: int
    assets: tuple[Asset, ...]
    base_decimals: int
    quote: str = QUOTE
    one_by_one: bool = False

    @property
    def name(self) -> str:
        """The adapter's name, which no other market of the keeper has."""
        return self.adapter.name


# ------------------------------------------------------------------------------------------------- the screen


def rounding_of(adapter: LendingProtocol, market: Any) -> Rounding:
    """Return how far the contract's health factor in a market may be from that of the screen."""
    if isinstance(market, MorphoMarket):
        return screen_rounding(market)
    assert isinstance(adapter, AaveV3 | AaveV36)
    return adapter.screen_rounding(market)


# -------------------------------------------------------------------------------------------------- the kinds


class AaveOptions(StrictModel):
    """Keys of a ``[[protocols]]`` table that belong to the adapters of Aave V3."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    account_data: bool = False
    """Also read the contract's own account data with the positions; it makes up most of a bulk read's gas."""
    accounts_per_call: Annotated[int, Field(ge=1, le=10_000)] = 500
    """Accounts in one call of the lens or of Multicall3."""


class NoOptions(StrictModel):
    """A protocol whose adapter has no keys of its own."""


@dataclass(frozen=True, slots=True)
class MarketKind:
    """One kind of market: how its table reads, and how it is found.

    Attributes
    ----------
    needs
        Keys of `ProtocolSection` that it is found from, and the words for what each is.
    may
        Further keys of `ProtocolSection` that mean something for it.
    options
        Keys of its adapter.
    find
        Lays the market out, given its table, what the options say, the contracts section, a reader of calls
        and the key's name for errors.
    """

    needs: Mapping[str, str]
    may: tuple[str, ...]
    options: type[StrictModel]
    find: Callable[[ProtocolSection, Any, ContractsSection, Execute, str], Market]


class Execute(Protocol):
    """Executes reads at one block; None for one that failed."""

    def __call__(self, calls: Sequence[Call[Any]]) -> list[bytes | None]:
        """Execute them."""
        ...


@contextmanager
def named(where: str) -> Iterator[None]:
    """Put the configuration key in front of an error about a name that is in no registry."""
    try:
        yield
    except UnknownNameError as error:
        raise InputError(f"{where}: {error.message}", fix=error.fix) from None


def read_layout(execute: Execute, provider: str, where: str) -> AaveLayout:
    """Find an Aave V3 market from its PoolAddressesProvider, which was named by `where`.

    Raises
    ------
    InputError
        If it is none.
    """
    try:
        return run_stages(discover_layout(provider), execute)
    except DataError as error:
        raise InputError(
            f"{where}: {provider} does not lead to an Aave V3 market: {error.message}",
            fix="give the address of its PoolAddressesProvider",
        ) from None


def aave_kind(execute: Execute, layout: AaveLayout) -> str:
    """Return which version a pool says that it is, by its revision.

    Raises
    ------
    DataError
        If it does not say.
    """
    call = aave.POOL_REVISION.call(layout.pool, label="pool.POOL_REVISION")
    (answer,) = execute([call])
    if answer is None:
        raise DataError(f"the pool {layout.pool} does not tell its revision")
    return AaveV36.kind if int(call.decode(answer)) >= FIRST_REVISION_OF_V3_6 else AaveV3.kind


def _aave(
    section: ProtocolSection, options: AaveOptions, contracts: ContractsSection, execute: Execute, where: str
) -> Market:
    assert section.provider is not None
    layout = read_layout(execute, section.provider, f"{where}.provider")
    found = aave_kind(execute, layout)
    if found != section.kind:
        raise InputError(
            f"{where}.kind: the pool of {section.provider} is {found}, not {section.kind}",
            fix=f'write kind = "{found}"',
        )
    adapter_of = AaveV36 if found == AaveV36.kind else AaveV3
    adapter = adapter_of(
        replace(
            layout,
            lens=contracts.account_lens or LENS_ADDRESS,
            multicall=contracts.multicall or "",
        ),
        account_data=options.account_data,
        accounts_per_call=options.accounts_per_call,
        label=section.label or "",
    )
    return Market(
        adapter=adapter,
        provider=section.provider,
        emitter=layout.pool,
        log_filter=(tuple(event.topic for event in adapter.discovery_events()),),
        from_block=section.from_block,
        assets=tuple(reserve.asset for reserve in layout.reserves),
        base_decimals=layout.base_decimals,
        quote=_base_currency(execute, layout),
    )


def _base_currency(execute: Execute, layout: AaveLayout) -> str:
    """Return what the oracle's prices are quoted in: `QUOTE`, which it writes as no token, or a symbol.

    Raises
    ------
    DataError
        If the oracle does not say, or names a token that the market does not list.
    """
    call = aave.BASE_CURRENCY.call(layout.oracle, label="oracle.BASE_CURRENCY")
    (answer,) = execute([call])
    if answer is None:
        raise DataError(f"the oracle {layout.oracle} does not tell its base currency")
    token = str(call.decode(answer))
    if int(token, 16) == 0:
        return QUOTE
    for reserve in layout.reserves:
        if reserve.asset.address.lower() == token.lower():
            return reserve.asset.symbol
    raise DataError(f"the oracle {layout.oracle} quotes in {token}, which the market does not list")


def _morpho(
    section: ProtocolSection, options: NoOptions, contracts: ContractsSection, execute: Execute, where: str
) -> Market:
    assert section.contract is not None
    assert section.market is not None
    try:
        layout = run_stages(discover_morpho(section.contract, section.market), execute)
    except DataError as error:
        raise InputError(
            f"{where}.market: {error.message}", fix=error.fix or "check the contract's address and the id"
        ) from None
    adapter = MorphoBlue(layout)
    return Market(
        adapter=adapter,
        provider=section.contract,
        emitter=layout.morpho,
        log_filter=((morpho.BORROW_EVENT.topic,), (layout.id_bytes,)),
        from_block=section.from_block,
        assets=(layout.loan, layout.collateral),
        base_decimals=36 + layout.loan.decimals - layout.collateral.decimals,
        quote=layout.loan.symbol,
        one_by_one=True,
    )


_AAVE: Final = MarketKind(
    {"provider": "Aave's PoolAddressesProvider"}, ("from_block", "label"), AaveOptions, _aave
)
KINDS: Final[Mapping[str, MarketKind]] = {
    AaveV3.kind: _AAVE,
    AaveV36.kind: _AAVE,
    MorphoBlue.kind: MarketKind(
        {"contract": "the address of Morpho", "market": "the market's id"},
        ("from_block",),
        NoOptions,
        _morpho,
    ),
}
"""The kinds that a keeper runs on, by their registry names."""


def checked_options(section: ProtocolSection, where: str) -> Any:
    """Return the adapter's keys of a table; everything that needs no node to be seen wrong is refused.

    Raises
    ------
    InputError
        Naming the key.
    """
    if section.kind not in protocols:
        with named(f"{where}.kind"):
            raise UnknownNameError("protocol", section.kind, protocols)
    kind = KINDS.get(section.kind)
    if kind is None:
        # A protocol that knows why says so: a keeper is not missing everywhere for want of time.
        why = getattr(protocols.get(section.kind), "no_keeper", None)
        because = f": {why}" if why else " yet"
        raise InputError(
            f"{where}.kind: there is a model of {section.kind}, and no keeper for it{because}",
            fix=f"a keeper runs on {', '.join(KINDS)}",
        )
    allowed = ("kind", *kind.needs, *kind.may)
    known = [*allowed, *kind.options.model_fields]
    given = [name for name in ProtocolSection.model_fields if getattr(section, name) not in (None, 0)]
    for key in (*given, *section.options):
        if key in ProtocolSection.model_fields and key not in allowed:
            raise InputError(
                f"{where}.{key}: means nothing for {section.kind}", fix=f"it knows {', '.join(known)}"
            )
        if key not in known:
            with named(where):
                raise UnknownNameError("key", key, known)
    for key, what in kind.needs.items():
        if getattr(section, key) is None:
            raise InputError(f"{where}.{key}: is missing", fix=f"{section.kind} is found from {what}")
    try:
        return kind.options(**section.options)
    except ValidationError as error:
        raise input_error(error, where) from None


def find_markets(
    sections: Sequence[ProtocolSection], contracts: ContractsSection, node: Node, head: Head
) -> tuple[Market, ...]:
    """Lay out every market of a configuration, in its order.

    Raises
    ------
    InputError
        If a table leads to no market, or two to the same, or to two of one name.
    """

    def execute(calls: Sequence[Call[Any]]) -> list[bytes | None]:
        return node.read(list(calls), head)

    found: list[Market] = []
    for i, section in enumerate(sections):
        where = f"protocols.{i}"
        options = checked_options(section, where)
        try:
            market = KINDS[section.kind].find(section, options, contracts, execute, where)
        except DataError as error:
            raise InputError(f"{where}: {error.message}", fix=error.fix) from None
        for j, other in enumerate(found):
            if market.adapter.venue == other.adapter.venue:
                raise InputError(
                    f"{where}: the same market as protocols.{j}, {other.name}", fix="remove one of them"
                )
            if market.name == other.name:
                raise InputError(
                    f"{where}: another market is called {other.name} already, protocols.{j}",
                    fix='give this one a label = "…"' if "label" in KINDS[section.kind].may else None,
                )
        found.append(market)
    return tuple(found)
