"""Who owes something: borrowers found from logs, pinned by block hash, filled back, never forgotten.

Deep history is read by ranges, everything above the confirmation depth block by block and by hash, so that a
node which does not know a block says so instead of answering with nothing. A reorganisation rewinds the
cursor to the common ancestor; borrowers found on the abandoned branch stay, since reading one account too
many costs a read and forgetting one costs a miss.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from contracts_abi.errors import RpcError, RpcUnavailable
from keeper.journal import RECENT_BLOCKS, ScanState
from keeper.rpc import Head, Log, Node
from simulation.interfaces import ProtocolAdapter

BY_HASH_DEPTH = 64
"""Blocks below the head that are read one by one and by hash; older ones by ranges."""

Progress = Callable[[int, int], None]
"""Told the blocks scanned and the blocks to scan."""

LogFilter: TypeAlias = tuple[tuple[bytes, ...], ...]
"""By position of a log's topics, the values that it may have there."""


@dataclass(frozen=True, slots=True)
class Synced:
    """What one advance did.

    Attributes
    ----------
    found
        Borrowers that were not known before.
    rewound_to
        Common ancestor when a reorganisation was followed, else None.
    """

    found: tuple[str, ...]
    rewound_to: int | None = None


class ScanStore(Protocol):
    """Where cursor and borrowers live: the journal, or memory for a single look."""

    def transaction(self) -> AbstractContextManager[None]:
        """Return a block in which all changes are committed as one."""
        ...

    def scan_state(self, protocol: str) -> ScanState:
        """Return how far discovery has come."""
        ...

    def save_scan(
        self, protocol: str, blocks: Sequence[tuple[int, str]], borrowers: Mapping[str, int]
    ) -> None:
        """Commit scanned blocks (number and hash, ascending) and the borrowers found, as one."""
        ...

    def rewind_scan(self, protocol: str, to_block: int) -> None:
        """Forget the scanned blocks above `to_block`."""
        ...

    def borrowers(self, protocol: str) -> list[str]:
        """Return the known borrowers in order of discovery."""
        ...


@dataclass(slots=True)
class MemoryScanStore:
    """A `ScanStore` for one look, started from what a journal knows or from nothing."""

    blocks: dict[int, str] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, store: ScanStore, protocol: str) -> MemoryScanStore:
        """Return a copy of what `store` knows of a protocol."""
        return cls(dict(store.scan_state(protocol).recent), dict.fromkeys(store.borrowers(protocol), 0))

    def transaction(self) -> AbstractContextManager[None]:
        """See `ScanStore`; nothing in memory is half done after an error that anybody would look at."""
        return contextlib.nullcontext()

    def scan_state(self, protocol: str) -> ScanState:
        """See `ScanStore`."""
        return ScanState(tuple(sorted(self.blocks.items(), reverse=True)))

    def save_scan(
        self, protocol: str, blocks: Sequence[tuple[int, str]], borrowers: Mapping[str, int]
    ) -> None:
        """See `ScanStore`."""
        self.blocks.update(blocks)
        self.found = {**self.found, **borrowers}

    def rewind_scan(self, protocol: str, to_block: int) -> None:
        """See `ScanStore`."""
        self.blocks = {number: h for number, h in self.blocks.items() if number <= to_block}

    def borrowers(self, protocol: str) -> list[str]:
        """See `ScanStore`."""
        return list(self.found)


class Discovery:
    """Keeps the borrowers of one market up to the head.

    Parameters
    ----------
    node
        Where logs come from.
    store
        Keeps cursor and borrowers; the journal keeps them over restarts.
    adapter
        Knows which logs bring a borrower into being.
    contract
        Address that emits them.
    from_block
        First block that can hold one.
    range_blocks
        Blocks per range query while filling back.
    log_filter
        What to ask the node for; the adapter's events when empty. A contract that holds many markets is asked
        for those of one of them.
    """

    def __init__(
        self,
        node: Node,
        store: ScanStore,
        adapter: ProtocolAdapter[Any, Any],
        contract: str,
        *,
        from_block: int = 0,
        range_blocks: int = 2_000,
        log_filter: LogFilter = (),
    ) -> None:
        self._node = node
        self._store = store
        self._adapter = adapter
        self._contract = contract
        self._from_block = from_block
        self._range_blocks = range_blocks
        self._topics = log_filter or (tuple(e.topic for e in adapter.discovery_events()),)
        self._known = dict.fromkeys(store.borrowers(adapter.name))
        self._state = store.scan_state(adapter.name)
        self._rewound_to: int | None = None

    @property
    def borrowers(self) -> tuple[str, ...]:
        """Every account that ever borrowed, in order of discovery."""
        return tuple(self._known)

    @property
    def block(self) -> int | None:
        """Newest block scanned."""
        return self._state.block

    def advance(self, head: Head, progress: Progress | None = None) -> Synced:
        """Scan up to `head` and commit what was found.

        Cursor and borrowers are committed together, and memory follows the commit: a failure half-way
        leaves both where the last commit left them, and the next head takes up from there. A rewind that was
        followed by a failure is told of by the next advance that succeeds.

        Raises
        ------
        RpcUnavailable
            If the node cannot show an unbroken chain of blocks up to `head`.
        """
        if self._state.recent and self._state.recent[0] == (head.number, head.block_hash):
            return self._synced([])
        self._follow_reorganisation(head)
        start = self._from_block if self._state.block is None else self._state.block + 1
        deep_end = head.number - BY_HASH_DEPTH
        total = max(head.number - start + 1, 1)
        found: list[str] = []
        for low in range(start, deep_end + 1, self._range_blocks):
            high = min(low + self._range_blocks - 1, deep_end)
            logs = self._logs(low, high)
            block = self._node.block(high)
            if block is None:
                raise RpcUnavailable(f"the node does not show block {high} below its head {head.number}")
            found += self._commit([(high, block.block_hash)], self._borrowers_of(logs))
            if progress is not None:
                progress(high - start + 1, total)
        chain = self._chain_to(head, max(start, deep_end + 1))
        late = self._node.logs_of(
            [block_hash for _, block_hash in chain], self._topics, addresses=[self._contract]
        )
        found += self._commit(chain, self._borrowers_of([log for logs in late for log in logs]))
        if progress is not None:
            progress(total, total)
        return self._synced(found)

    def _logs(self, low: int, high: int) -> list[Log]:
        """Return the logs of a range; one that the node refuses whole is asked for by half.

        Endpoints have limits of their own on blocks and logs, and one busy market must not keep a keeper from
        the head of all.
        """
        try:
            return list(
                self._node.logs(self._topics, addresses=[self._contract], from_block=low, to_block=high)
            )
        except RpcError:
            if low == high:
                raise
        middle = (low + high) // 2
        return [*self._logs(low, middle), *self._logs(middle + 1, high)]

    def _synced(self, found: Sequence[str]) -> Synced:
        rewound_to, self._rewound_to = self._rewound_to, None
        return Synced(tuple(found), rewound_to)

    def _borrowers_of(self, logs: Sequence[Log]) -> dict[str, int]:
        """Return the new accounts and the block in which each came first; `logs` are in chain order."""
        found: dict[str, int] = {}
        for log in logs:
            account = self._adapter.discovered(log.topics, log.data)
            if account is not None and account not in self._known:
                found.setdefault(account, log.block)
        return found

    def _chain_to(self, head: Head, start: int) -> list[tuple[int, str]]:
        """Return number and hash of the blocks from `start` to `head`, each the parent of the next."""
        if start > head.number:
            return []
        chain = [*self._node.blocks(range(start, head.number)), head]
        parent = self._state.recent[0][1] if self._state.block == start - 1 else None
        out: list[tuple[int, str]] = []
        for block in chain:
            if block is None or (parent is not None and block.parent_hash != parent):
                raise RpcUnavailable(f"the node shows no unbroken chain up to block {head.number}")
            parent = block.block_hash
            out.append((block.number, block.block_hash))
        return out

    def _follow_reorganisation(self, head: Head) -> None:
        """Rewind the cursor to the newest scanned block that is still canonical."""
        recent = self._state.recent
        if not recent:
            return
        newest, newest_hash = recent[0]
        if newest == head.number - 1 and head.parent_hash == newest_hash:
            return
        if newest < head.number:
            below = self._node.block(newest)
            if below is not None and below.block_hash == newest_hash:
                return
        candidates = [(number, block_hash) for number, block_hash in recent if number <= head.number]
        canonical = self._node.blocks([number for number, _ in candidates])
        ancestor = next(
            (
                number
                for (number, block_hash), block in zip(candidates, canonical, strict=True)
                if block is not None and block.block_hash == block_hash
            ),
            # Deeper than we remember, and nobody knows how deep: scan everything again.
            self._from_block - 1,
        )
        self._store.rewind_scan(self._adapter.name, ancestor)
        self._state = ScanState(tuple(entry for entry in recent if entry[0] <= ancestor))
        self._rewound_to = ancestor if self._rewound_to is None else min(self._rewound_to, ancestor)

    def _commit(self, blocks: Sequence[tuple[int, str]], found: Mapping[str, int]) -> tuple[str, ...]:
        self._store.save_scan(self._adapter.name, blocks, found)
        return self._remember(blocks, found)

    def _remember(self, blocks: Sequence[tuple[int, str]], found: Mapping[str, int]) -> tuple[str, ...]:
        newest_first = (*reversed(blocks), *self._state.recent)
        self._state = ScanState(newest_first[:RECENT_BLOCKS])
        self._known.update(dict.fromkeys(found))
        return tuple(found)

    def _next_is(self, head: Head) -> bool:
        """Whether the newest block scanned is the head's parent."""
        return bool(self._state.recent) and self._state.recent[0] == (head.number - 1, head.parent_hash)


def advance_all(discoveries: Mapping[str, Discovery], head: Head) -> dict[str, Synced]:
    """Scan up to `head` in every market and commit what was found.

    Markets that have come as far as the head's parent, which is all of them from one block to the next, are
    asked for together and committed together; each of the others catches up by itself.

    Parameters
    ----------
    discoveries
        By market name; all of one node and one store.

    Raises
    ------
    RpcUnavailable
        As `Discovery.advance`. What was committed before stays.
    """
    together = {name: d for name, d in discoveries.items() if d._next_is(head)}
    if len(together) < 2:
        return {name: d.advance(head) for name, d in discoveries.items()}
    several = list(together.values())
    node, store = several[0]._node, several[0]._store
    events = dict.fromkeys(topic for d in several for topic in d._topics[0])
    emitters = list(dict.fromkeys(d._contract for d in several))
    (logs,) = node.logs_of([head.block_hash], [list(events)], addresses=emitters)
    found = {
        name: d._borrowers_of([log for log in logs if log.address == d._contract])
        for name, d in together.items()
    }
    block = [(head.number, head.block_hash)]
    with store.transaction():
        for name, d in together.items():
            store.save_scan(d._adapter.name, block, found[name])
    synced = {name: d._synced(d._remember(block, found[name])) for name, d in together.items()}
    return {name: synced[name] if name in synced else d.advance(head) for name, d in discoveries.items()}
