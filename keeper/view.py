"""Everything that one decision rests on, read at one block in one round trip.

The three prices of a view come from three places: the protocol's own oracle (inside the market's state), the
guarded reference sources, and the pools in which seized collateral would be sold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from contracts_abi.aave_v3 import ALLOWANCE, BALANCE_OF
from contracts_abi.calls import Call
from contracts_abi.errors import DataError, InputError, MarginlineError
from contracts_abi.multicall import MAX_CALLS, aggregate
from keeper.rpc import Head, Node
from oracle.snapshot import Feed, History, accept, plain_snapshot, rewind, snapshot, snapshot_reads
from oracle.sources.chainlink import ChainlinkSource, complete, resolve
from oracle.types import PriceSnapshot
from simulation.amm.uniswap_v3 import PoolKey, PoolLayout, PoolState, decode_pool, pool_reads
from simulation.interfaces import ProtocolAdapter
from simulation.types import Book

MAX_LAYOUT_ROUNDS = 4
"""Rounds of reads after which a pool whose ticks keep moving is left out of a view."""

LEAST_REACH_TICKS = 1_000
"""A pool's state must be known this far around its price, 1,000 ticks being a tenth of the price;"""
REACH_TICKS = 6_932
"""and is read this far, a halving or doubling, so that a moving price seldom asks for another round."""

QUOTE = "USD"
"""What reference prices are quoted in, and what the operator's amounts are in."""


@dataclass(frozen=True, slots=True)
class HeadView:
    """What is known at one block.

    Attributes
    ----------
    head
        The block.
    market
        The protocol's market state, of the adapter's own type.
    book
        Positions of all borrowers.
    protocol
        Prices as the protocol's oracle says.
    reference
        Prices as guarded sources say; empty of assets without a source.
    pools
        Pools by address; those that could not be read are missing.
    funds_raw
        Tokens that a liquidation from inventory in this market may use, by token address: the contract's own
        and what its owner allowed it to take, or only the latter. Empty unless the reader was told whose.
    """

    head: Head
    market: Any
    book: Book
    protocol: PriceSnapshot
    reference: PriceSnapshot
    pools: Mapping[str, PoolState]
    funds_raw: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Views:
    """What is known of all markets at one block.

    Attributes
    ----------
    head
        The block.
    markets
        Views by market name. They share reference prices and pools.
    unread
        Why a market could not be read, by its name: it is unknown, and nobody acts there.
    """

    head: Head
    markets: Mapping[str, HeadView]
    unread: Mapping[str, str]

    @property
    def borrowers(self) -> int:
        """Accounts in all books."""
        return sum(len(view.book) for view in self.markets.values())

    @property
    def funds_raw(self) -> Mapping[str, int]:
        """All funds, by token address: the most that any market may use."""
        funds: dict[str, int] = {}
        for view in self.markets.values():
            funds |= {token: max(raw, funds.get(token, 0)) for token, raw in view.funds_raw.items()}
        return funds


@dataclass(frozen=True, slots=True)
class FundsOf:
    """Reads what our contract can pay with from inventory: its own tokens, then its owner's where allowed.

    Attributes
    ----------
    liquidator, owner
        The contract, and who owns it.
    tokens
        Token addresses.
    owners_only
        Names of the markets in which the contract does not spend what it holds: those that anybody can open.
    """

    liquidator: str
    owner: str
    tokens: tuple[str, ...]
    owners_only: frozenset[str] = frozenset()

    def reads(self) -> list[list[Call[Any]]]:
        """Return for each token three reads: both balances, and the allowance."""
        return [
            [
                BALANCE_OF.call(token, self.liquidator),
                BALANCE_OF.call(token, self.owner),
                ALLOWANCE.call(token, self.owner, self.liquidator),
            ]
            for token in self.tokens
        ]

    def decode(self, answers: Sequence[bytes | None], market: str = "") -> dict[str, int]:
        """Return the funds in a market by token; a token that cannot be read has none."""
        funds: dict[str, int] = {}
        for i, token in enumerate(self.tokens):
            own, owners, allowed = (
                0 if data is None or len(data) != 32 else int.from_bytes(data)
                for data in answers[3 * i : 3 * i + 3]
            )
            funds[token] = min(owners, allowed) + (0 if market in self.owners_only else own)
        return funds


class Reader:
    """Reads views. Keeps the guards' history and the pools' layouts from one block to the next.

    Parameters
    ----------
    node
        Where to read.
    adapters
        The markets, with names that differ; at least one.
    feeds
        Reference feeds.
    pools
        Pools to sell in.
    multicall
        Multicall3-compatible contract that bundles the small reads; without it each is its own call.
    quotes
        What a market's own prices are quoted in, by its name; in `QUOTE` without an entry.
    small_accounts
        Names of the markets whose reads of accounts are one word each and want to be bundled.
    code
        Runtime code to pretend at addresses, for a lens that is not deployed.
    funds
        Whose tokens count as inventory, and which tokens; None when nothing is paid from inventory.
    """

    def __init__(
        self,
        node: Node,
        *adapters: ProtocolAdapter[Any, Any],
        feeds: Sequence[Feed] = (),
        pools: Sequence[PoolKey] = (),
        multicall: str | None = None,
        code: Mapping[str, bytes] | None = None,
        funds: FundsOf | None = None,
        quotes: Mapping[str, str] | None = None,
        small_accounts: Collection[str] = (),
    ) -> None:
        self._node = node
        self._adapters = {adapter.name: adapter for adapter in adapters}
        if not adapters or len(self._adapters) != len(adapters):
            raise ValueError(f"markets need names that differ: {[adapter.name for adapter in adapters]}")
        self._quotes = quotes or {}
        self._small_accounts = frozenset(small_accounts)
        self._feeds = tuple(feeds)
        self._layouts = {key.address: PoolLayout(key) for key in pools}
        self._multicall = multicall
        self._code = code
        self._funds = funds
        self._history: History = {}

    def rewind(self, block: int) -> None:
        """Forget what was read above `block`, which a reorganisation removed."""
        self._history = rewind(self._history, block)

    def read(self, head: Head, accounts: Sequence[str]) -> HeadView:
        """Read everything at `head` by a reader of one market; see `read_all`.

        Raises
        ------
        DataError
            If the market itself could not be read.
        """
        (name,) = self._adapters
        return self.read_all(head, {name: accounts}).markets[name]

    def read_all(self, head: Head, accounts: Mapping[str, Sequence[str]]) -> Views:
        """Read every market at `head`, all in one round trip.

        A market that could not be read is told apart from the others and takes none of them along. An
        account, a reference price or a pool that could not is unknown.

        Parameters
        ----------
        accounts
            By market name; a market without an entry is read without any.

        Raises
        ------
        DataError
            If no market could be read, with the first one's reason.
        RpcError, RpcUnavailable
            If the node does not answer for this block.
        """
        price_reads = snapshot_reads(self._feeds)
        fund_reads = [] if self._funds is None else self._funds.reads()
        layouts = list(self._layouts.values())
        shared = [*price_reads, *_reads_of(layouts)]
        names = list(self._adapters)
        states = [self._adapters[name].market_reads() for name in names]
        positions = [self._adapters[name].account_reads(accounts.get(name, ())) for name in names]
        # A bundle each: a call that burns all of its gas, as one oracle may, takes its bundle along. So may a
        # token that one market lists: what there is of the others has to be known all the same.
        small = [
            [*state, *(position if name in self._small_accounts else ())]
            for name, state, position in zip(names, states, positions, strict=True)
        ]
        large = [
            [] if name in self._small_accounts else position
            for name, position in zip(names, positions, strict=True)
        ]
        none: list[Call[Any]] = []
        first, *answers = self._execute(
            [shared, *small, *fund_reads], [*large, *(none for _ in fund_reads)], head
        )
        if isinstance(first, DataError):
            raise first
        of_funds = [
            word
            for answer in answers[len(names) :]
            for word in ([None] * 3 if isinstance(answer, DataError) else answer)
        ]
        del answers[len(names) :]
        of_prices = first[: len(price_reads)]

        reference = snapshot(
            "reference",
            QUOTE,
            self._feeds,
            of_prices,
            self._history,
            block=head.number,
            timestamp=head.timestamp,
        )
        self._history = accept(self._history, reference)
        self._feeds = self._renewed(of_prices, head)
        pools = self._pools(layouts, first[len(price_reads) :], head)
        self._layouts |= {address: _next_layout(state) for address, state in pools.items()}

        views: dict[str, HeadView] = {}
        unread: dict[str, MarginlineError] = {}
        for name, state, answer in zip(names, states, answers, strict=True):
            adapter = self._adapters[name]
            try:
                if isinstance(answer, DataError):
                    raise answer
                market = adapter.decode_market(
                    answer[: len(state)], block=head.number, timestamp=head.timestamp
                )
                book = adapter.decode_accounts(market, accounts.get(name, ()), answer[len(state) :])
                protocol = self._protocol_view(adapter, market, head)
            except MarginlineError as error:
                # Nothing is asked of the node in there: it says something of this market alone.
                unread[name] = error
            else:
                funds = {} if self._funds is None else self._funds.decode(of_funds, name)
                views[name] = HeadView(head, market, book, protocol, reference, pools, funds)
        if not views:
            first_error = next(iter(unread.values()))
            raise DataError(first_error.message, fix=first_error.fix)
        return Views(head, views, {name: str(error) for name, error in unread.items()})

    def _renewed(self, answers: Sequence[bytes | None], head: Head) -> tuple[Feed, ...]:
        """Return the feeds, with those resolved again whose proxy took another aggregator.

        In the head of the change itself the bounds are unknown, and no worse than that.
        """
        at, feeds = 0, []
        for feed in self._feeds:
            sources = []
            for source in feed.sources:
                own = answers[at : at + len(source.reads())]
                at += len(own)
                if isinstance(source, ChainlinkSource) and source.changes(own):
                    source = self._resolved(source, head)
                sources.append(source)
            feeds.append(replace(feed, sources=tuple(sources)))
        return tuple(feeds)

    def _resolved(self, source: ChainlinkSource, head: Head) -> ChainlinkSource:
        try:
            return source.resolved(
                complete(resolve(source.address), lambda calls: self._node.read(list(calls), head))
            )
        except InputError:
            # Half-way through a change it may be no feed at all; the next head asks again.
            return source

    def _execute(
        self, groups: Sequence[Sequence[Call[Any]]], large: Sequence[Sequence[Call[Any]]], head: Head
    ) -> list[list[bytes | None] | DataError]:
        """Execute groups of small reads and the large ones of each group but the first, in one round trip.

        Returns
        -------
        list
            Answers of each group, small ones first; for a group whose bundle was refused, why.
        """
        calls: list[Call[Any]] = []
        spans: list[tuple[list[Call[Any]], range, range]] = []
        for i, group in enumerate(groups):
            size = MAX_CALLS if self._multicall is not None else 1
            parts = [group[k : k + size] for k in range(0, len(group), size)]
            bundles = [p[0] if self._multicall is None else aggregate(self._multicall, p) for p in parts]
            rest = large[i - 1] if i else ()
            start = len(calls)
            calls += [*bundles, *rest]
            spans.append(
                (bundles, range(start, start + len(bundles)), range(start + len(bundles), len(calls)))
            )
        answers = self._node.read(calls, head, code=self._code)
        return [
            self._opened(bundles, [answers[i] for i in small], [answers[i] for i in rest])
            for bundles, small, rest in spans
        ]

    def _opened(
        self, bundles: Sequence[Call[Any]], answers: Sequence[bytes | None], rest: Sequence[bytes | None]
    ) -> list[bytes | None] | DataError:
        if self._multicall is None:
            return [*answers, *rest]
        opened: list[bytes | None] = []
        for bundle, data in zip(bundles, answers, strict=True):
            if data is None:
                return DataError(
                    f"the multicall at {self._multicall} refused a bundle of reads",
                    fix="check contracts.multicall, or remove it to read one by one",
                )
            try:
                opened += bundle.decode(data)
            except DataError as error:
                return error
        return [*opened, *rest]

    def _pools(
        self, layouts: Sequence[PoolLayout], answers: Sequence[bytes | None], head: Head
    ) -> dict[str, PoolState]:
        """Return the pools' states. Those whose ticks are not known yet are asked again, all together."""
        found: dict[str, PoolState] = {}
        wanted = list(layouts)
        for _ in range(MAX_LAYOUT_ROUNDS):
            at, unfinished = 0, []
            for layout in wanted:
                count = len(pool_reads(layout))
                state = _decoded(layout, answers[at : at + count])
                at += count
                if isinstance(state, PoolState):
                    found[state.address] = state
                elif state is not None:
                    unfinished.append(state)
            if not unfinished:
                break
            wanted = unfinished
            (again,) = self._execute([_reads_of(wanted)], (), head)
            if isinstance(again, DataError):
                raise again
            answers = again
        return {key.address: found[key.address] for key in (p.key for p in layouts) if key.address in found}

    def _protocol_view(self, adapter: ProtocolAdapter[Any, Any], market: Any, head: Head) -> PriceSnapshot:
        known = adapter.prices_base(market)
        symbols = [asset.symbol for asset in adapter.assets(market)]
        return plain_snapshot(
            "protocol",
            self._quotes.get(adapter.name, QUOTE),
            {**dict.fromkeys(symbols), **known},
            market.base_decimals,
            block=head.number,
            timestamp=head.timestamp,
        )


def _reads_of(layouts: Sequence[PoolLayout]) -> list[Call[Any]]:
    return [call for layout in layouts for call in pool_reads(layout)]


def _decoded(layout: PoolLayout, answers: Sequence[bytes | None]) -> PoolState | PoolLayout | None:
    """Return the pool's state, what to ask for next, or None when it cannot be read."""
    try:
        state = decode_pool(layout, answers, reach_ticks=LEAST_REACH_TICKS)
        if isinstance(state, PoolLayout) and state.words != layout.words:
            # The words are asked for anyway: far enough for the next blocks too.
            state = decode_pool(layout, answers, reach_ticks=REACH_TICKS)
    except DataError:
        return None
    return state


def _next_layout(state: PoolState) -> PoolLayout:
    """Return what to read of a pool at the next block."""
    key = state.key
    every = key.all_words()
    words = range(
        max(every.start, key.word_of(state.tick - REACH_TICKS)),
        min(every.stop, key.word_of(state.tick + REACH_TICKS) + 1),
    )
    return PoolLayout(key, words, tuple(t for t, _ in state.ticks if key.word_of(t) in words))


def check_symbols(feeds: Sequence[Feed], symbols: Sequence[str]) -> None:
    """Refuse a reference for an asset that the market does not have.

    Raises
    ------
    InputError
        Naming the asset and the known ones.
    """
    for feed in feeds:
        if feed.asset not in symbols:
            raise InputError(
                f"references.{feed.asset}: the market has no such asset",
                fix=f"it has {', '.join(sorted(symbols))}",
            )
