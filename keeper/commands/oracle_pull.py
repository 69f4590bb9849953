"""``marginline oracle pull``: the whole history of a Chainlink proxy in a file, over any endpoint.

Three files belong to a pull. ``FILE.csv`` has the rounds, newest first. While it grows, ``FILE.csv.pull``
keeps what the pull is of and, behind each batch of rows, how long the file is and where the walk stands. In
the end ``FILE.csv.json`` describes the file and takes the journal's place.

Rows reach the disk before the line of the journal that vouches for them. Whatever stops a pull, the next one
cuts the file back to the last line that is whole, and asks for the rest: the file that comes of it has the
same bytes as one that was never interrupted.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from eth_utils.address import is_address, to_checksum_address
from pydantic import TypeAdapter, ValidationError

from contracts_abi.bounded_json import bounded_json
from contracts_abi.calls import Call
from contracts_abi.errors import InputError, MarginlineError, RpcError, RpcUnavailable
from contracts_abi.feeds import PHASE_ID, split_round_id
from keeper.clock import Clock, SystemClock
from keeper.commands.console import progress_bar, require_writable, stderr_console
from keeper.commands.keeper_setup import endpoint_option
from keeper.rpc import Head, Node, Transport
from oracle.rounds import ProxyFeed, Round, Walk, decoded, drive, survey, switches, with_starts
from simulation.chain.rpc import JsonRpc

COLUMNS: Final = ("round_id", "answer", "price", "started_at", "updated_at", "answered_in_round")

SCHEMA: Final = "marginline-pull/1"

INLINE_ROUNDS: Final = 200
"""So many rounds are shown as a feed of a scenario, where they stand in the file itself."""

_HEAD_AGE_S: Final = 60.0
"""Nodes forget the state of a block after some minutes; what was written before it does not change."""

_FEED: Final = TypeAdapter(ProxyFeed)
_WALK: Final = TypeAdapter(Walk)
_BUSY: Final = ("rate limit", "limit exceeded", "too many request", "compute units", "quota")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a pull is of: nothing of it may change until the file is whole.

    Attributes
    ----------
    chain_id
        The chain.
    block, timestamp
        The block that the phases and their last rounds are of; later rounds are not part of the file.
    feed
        The proxy with its phases.
    since, until
        First and last second asked for; None for no limit.
    """

    chain_id: int
    block: int
    timestamp: int
    feed: ProxyFeed
    since: int | None
    until: int | None


_WANTED: Final = TypeAdapter(Wanted)


# ------------------------------------------------------------------------------------------------ requests


class Paced:
    """An endpoint that is asked at most so many calls per second, each one of a batch counted.

    Parameters
    ----------
    transport
        The endpoint.
    per_second
        Calls per second; None for no limit.
    """

    def __init__(
        self,
        transport: Transport,
        per_second: float | None,
        *,
        clock: Clock | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = transport
        self._per_second = per_second
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._free_at = 0.0

    def call(self, method: str, params: Sequence[Any], /) -> Any:
        """Return the result of one request."""
        self._wait(1)
        return self._transport.call(method, params)

    def batch(self, requests: Sequence[tuple[str, Sequence[Any]]], /) -> list[Any]:
        """Return one result or `RpcError` per request, in order."""
        self._wait(len(requests))
        return self._transport.batch(requests)

    def _wait(self, calls: int) -> None:
        if self._per_second is None:
            return
        now = self._clock.monotonic()
        if now < self._free_at:
            self._sleep(self._free_at - now)
            now = self._free_at
        self._free_at = now + calls / self._per_second


class _Chain:
    """Reads at a block that the node still knows, and never at one before the pull's own."""

    def __init__(self, node: Node, head: Head, clock: Clock) -> None:
        self._node = node
        self._first = head.number
        self._clock = clock
        self._turn_to(head)

    def _turn_to(self, head: Head) -> None:
        self._head, self._seen_at = head, self._clock.monotonic()

    def read(self, calls: Sequence[Call[Any]]) -> list[bytes | None]:
        if self._clock.monotonic() - self._seen_at > _HEAD_AGE_S:
            self._renew()
        try:
            return self._node.read(calls, self._head)
        except RpcError as error:
            if _is_busy(error):
                raise
            before = self._head
            self._renew()
            if self._head.block_hash == before.block_hash:
                raise
            return self._node.read(calls, self._head)

    def _renew(self) -> None:
        head = self._node.head()
        if head.number < self._first:
            # Rounds that this node has not seen would read like rounds that were never written.
            raise RpcUnavailable(f"the node is at block {head.number}, and the pull began at {self._first}")
        self._turn_to(head)


def _is_busy(error: RpcError) -> bool:
    text = error.message.lower()
    return error.code in (429, -32005) or any(word in text for word in _BUSY)


def _starts(node: Node, feed: ProxyFeed, head: Head) -> ProxyFeed:
    """Return the feed with the times of its changes of phase, where the node keeps old states."""
    if len(feed.phases) < 2:
        return feed
    search = switches(len(feed.phases), head.number)
    try:
        number = next(search)
        while True:
            number = search.send(_phase_at(node, feed.address, number))
    except StopIteration as done:
        blocks: dict[int, int] | None = done.value
    except RpcError as error:
        if _is_busy(error):
            raise
        return feed
    if blocks is None:
        return feed
    found = node.blocks(list(blocks.values()))
    return with_starts(feed, {p: b.timestamp for p, b in zip(blocks, found, strict=True) if b is not None})


def _phase_at(node: Node, proxy: str, number: int) -> int:
    block = node.block(number)
    if block is None:
        return 0
    (data,) = node.read([PHASE_ID.call(proxy)], block)
    phase = decoded(PHASE_ID, data)
    return 0 if phase is None else int(phase[0])


# --------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True, slots=True)
class Files:
    """The three files of a pull."""

    csv: Path

    @property
    def journal(self) -> Path:
        """What the pull is of and how far it came; there while it is not done."""
        return self.csv.with_name(self.csv.name + ".pull")

    @property
    def description(self) -> Path:
        """What the file holds; there once it is whole."""
        return self.csv.with_name(self.csv.name + ".json")


def header_line() -> str:
    """Return the first line of a file of rounds."""
    return ",".join(COLUMNS) + "\n"


def row_line(row: Round, decimals: int) -> str:
    """Return a round as a line; `price` is the answer as people write it, and exact."""
    price = exact_text(row.answer, decimals)
    return f"{row.round_id},{row.answer},{price},{row.started_at},{row.updated_at},{row.answered_in_round}\n"


def exact_text(answer: int, decimals: int) -> str:
    """Return ``answer / 10**decimals`` as decimal text, with every place."""
    sign, digits = ("-" if answer < 0 else ""), str(abs(answer)).rjust(decimals + 1, "0")
    return sign + digits if decimals == 0 else f"{sign}{digits[:-decimals]}.{digits[-decimals:]}"


class Growing:
    """A file of rounds while it grows, and its journal.

    Attributes
    ----------
    wanted, walk
        What is pulled, and where the walk stands behind the last row.
    repaired
        Bytes that the last pull left behind its last whole batch, and that were cut off.
    torn
        Whether they ended within a line.
    """

    def __init__(self, files: Files, wanted: Wanted, walk: Walk, size: int) -> None:
        self.files, self.wanted, self.walk = files, wanted, walk
        self.repaired, self.torn = 0, False
        self._size = size
        self._csv = files.csv.open("ab")
        self._journal = files.journal.open("ab")

    @classmethod
    def create(cls, files: Files, wanted: Wanted) -> Growing:
        """Begin both files; the journal is there first, so that no file is ever without one."""
        head = {"schema": SCHEMA, **_WANTED.dump_python(wanted)}
        _write_whole(files.journal, json.dumps(head).encode() + b"\n")
        os.truncate(files.csv, 0)
        walk = Walk.start(wanted.feed, since=wanted.since, until=wanted.until)
        growing = cls(files, wanted, walk, 0)
        growing._append(header_line().encode(), walk)
        return growing

    @classmethod
    def resume(cls, files: Files) -> Growing:
        """Take both files up behind the last batch of which both are whole.

        Raises
        ------
        InputError
            If the journal is none, or tells of more rows than there are at every place.
        """
        wanted, places = _read_journal(files.journal)
        there = files.csv.stat().st_size
        line, (size, record) = max(
            ((end, place) for end, place in places if place[0] <= there),
            key=lambda found: found[0],
            default=(0, (0, None)),
        )
        if record is None:  # stopped before the first line, or nothing of it is left
            return cls.create(files, wanted)
        walk = _WALK.validate_python(
            record | {"feed": _FEED.dump_python(wanted.feed), "since": wanted.since, "until": wanted.until}
        )
        with files.csv.open("r+b") as csv:
            torn = there > size and not _ends_line(csv, there)
            csv.truncate(size)
            os.fsync(csv.fileno())
        with files.journal.open("r+b") as journal:
            journal.truncate(line)
            os.fsync(journal.fileno())
        growing = cls(files, wanted, walk, size)
        growing.repaired, growing.torn = there - size, torn
        return growing

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *_: object) -> None:
        self._csv.close()
        self._journal.close()

    def step(self, answers: Sequence[bytes | None]) -> None:
        """Take the answers to the walk's next reads, and keep what they tell."""
        walk, rows = self.walk.step(answers)
        text = "".join(row_line(row, self._decimals(row)) for row in rows)
        self._append(text.encode(), walk)

    def _decimals(self, row: Round) -> int:
        told = self.wanted.feed.phases[split_round_id(row.round_id).phase - 1].decimals
        return self.wanted.feed.decimals if told is None else told

    def _append(self, text: bytes, walk: Walk) -> None:
        self._csv.write(text)
        self._csv.flush()
        os.fsync(self._csv.fileno())
        self._size += len(text)
        self.walk = walk
        place = {"size": self._size, "walk": _WALK.dump_python(walk, exclude={"feed", "since", "until"})}
        self._journal.write(json.dumps(place).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def finish(self) -> dict[str, Any]:
        """Describe the whole file, which takes the journal's place; return the description."""
        record = description(self.files.csv, self.wanted, self.walk)
        _write_whole(self.files.description, json.dumps(record, indent=2).encode() + b"\n")
        self.files.journal.unlink()
        _sync_folder(self.files.csv.parent)
        return record


def _ends_line(file: IO[bytes], size: int) -> bool:
    file.seek(size - 1)
    return file.read(1) == b"\n"


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_journal(path: Path) -> tuple[Wanted, list[tuple[int, tuple[int, dict[str, Any]]]]]:
    """Return what the pull is of, and behind which byte of the journal the file had which size."""
    first, *lines = path.read_bytes().splitlines(keepends=True) or [b""]
    try:
        head = bounded_json(first)
        if head.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        wanted = _WANTED.validate_python(head)
    except (ValueError, KeyError, AttributeError, ValidationError):
        raise InputError(f"{path} is no journal of a pull", fix="remove it and what it is of") from None
    places: list[tuple[int, tuple[int, dict[str, Any]]]] = []
    end = len(first)
    for line in lines:
        end += len(line)
        try:
            place = bounded_json(line)
            places.append((end, (int(place["size"]), dict(place["walk"]))))
        except (ValueError, KeyError, TypeError):
            break  # torn
        if not line.endswith(b"\n"):
            places.pop()
            break
    return wanted, places


@contextlib.contextmanager
def _alone(files: Files) -> Iterator[None]:
    """Keep a second pull off the file; one that was made for this and stayed empty is removed."""
    with files.csv.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"--out: another pull is writing {files.csv}", fix="wait for it") from None
        try:
            yield
        finally:
            if not held.tell() and not files.csv.stat().st_size and not files.journal.exists():
                files.csv.unlink()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def description(csv: Path, wanted: Wanted, walk: Walk) -> dict[str, Any]:
    """Return what a whole file holds; round ids and other integers that may be large are text.

    Parameters
    ----------
    csv
        The file.
    wanted, walk
        What it is of, and the walk at its end.
    """
    feed = wanted.feed
    base, quote = pair_of(feed.description)
    digest = _sha256(csv)
    first, last = _ends(csv)
    return {
        "schema": SCHEMA,
        "file": csv.name,
        "sha256": digest,
        "order": "descending",
        "columns": list(COLUMNS),
        "chain_id": wanted.chain_id,
        "block": wanted.block,
        "timestamp": wanted.timestamp,
        "feed": feed.address,
        "description": feed.description,
        "decimals": feed.decimals,
        "since": wanted.since,
        "until": wanted.until,
        "newest": first,
        "oldest": last,
        "counts": asdict(walk.counts),
        "phases": [
            {
                "phase": p.number,
                "aggregator": p.aggregator,
                "rounds": p.last,
                "rounds_searched": p.searched,
                "decimals": p.decimals,
                "starts_at": p.starts_at,
                "start_assumed": p.assumed,
            }
            for p in feed.phases
        ],
        "recorded": {
            "kind": "recorded",
            "base": base,
            "quote": quote,
            "path": csv.name,
            "time": "updated_at",
            "price": "answer",
            "price_is": "raw",
            "round": "round_id",
            "answered": "answered_in_round",
            "decimals": feed.decimals,
            "order": "descending",
            "allow_non_positive": True,
            "sha256": digest,
        },
    }


def _ends(csv: Path) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the newest and the oldest round of a file, None without any."""

    def told(line: str) -> dict[str, Any]:
        cells = dict(zip(COLUMNS, line.rstrip("\n").split(","), strict=True))
        return {
            "round_id": cells["round_id"],
            "price": cells["price"],
            "updated_at": int(cells["updated_at"]),
        }

    first = last = None
    with csv.open(encoding="ascii") as file:
        next(file)
        for line in file:
            first = first or line
            last = line
    return (told(first), told(last)) if first and last else (None, None)


def pair_of(text: str) -> tuple[str, str]:
    """Return base and quote of a feed's description, such as ``ETH / USD``."""
    base, _, quote = text.partition("/")
    return (
        re.sub(r"[^A-Za-z0-9.+_-]+", "-", base.strip()).strip("-") or "BASE",
        re.sub(r"[^A-Za-z0-9.+_-]+", "-", quote.strip()).strip("-") or "QUOTE",
    )


# ------------------------------------------------------------------------------------------------- command


def pull(
    feed: str,
    *,
    rpc_url: str,
    out: Path,
    since: str | None = None,
    until: str | None = None,
    rate: float | None = None,
    batch: int = 100,
    as_json: bool = False,
) -> None:
    """Write the history of a proxy into a file, or go on with what an earlier pull left.

    Parameters
    ----------
    feed
        Address of the proxy.
    rpc_url
        The endpoint, or a reference to it.
    out
        A ``.csv`` file.
    since, until
        First and last time of update to take: unix seconds, or ISO 8601.
    rate
        Calls per second at most, each one of a batch counted; None for no limit.
    batch
        Calls per request.

    Raises
    ------
    InputError
        If there is no proxy at the address, or the file is of another pull.
    ChainError
        If the endpoint fails; the rounds so far are kept.
    """
    times = (moment("--since", since), moment("--until", until))
    if times[0] is not None and times[1] is not None and times[0] > times[1]:
        raise InputError(f"--since {since} is after --until {until}", fix="swap them")
    if not is_address(feed):
        raise InputError(f"{feed!r} is not an address", fix="give 0x and 40 hex digits")
    if not out.name.lower().endswith(".csv"):
        raise InputError(f"--out: {out} is no .csv file", fix="name it so")
    require_writable("--out", out)
    clock = SystemClock()
    _, endpoint = endpoint_option(rpc_url)
    node = Node(Paced(JsonRpc(endpoint.reveal()), rate, clock=clock), max_batch=batch, clock=clock)
    files = Files(out)
    with _alone(files):
        record = _pulled(node, clock, files, to_checksum_address(feed), times, batch)
    if as_json:
        print(json.dumps({**record, "requests": node.round_trips}))
        return
    for line in summary(record):
        stderr_console().print(line, soft_wrap=True, highlight=False, markup=False)
    print(snippet(out, record), end="")


def moment(option: str, text: str | None) -> int | None:
    """Return unix seconds of a time given as such or as ISO 8601, which is UTC without an offset.

    Raises
    ------
    InputError
        If it is neither.
    """
    if text is None:
        return None
    if re.fullmatch(r"\d{1,11}", text, re.ASCII):
        return int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{option}: {text!r} is no time", fix="give unix seconds or ISO 8601, as 2023-03-11T04:00:00Z"
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def _pulled(
    node: Node,
    clock: Clock,
    files: Files,
    feed: str,
    times: tuple[int | None, int | None],
    batch: int,
) -> dict[str, Any]:
    """Return the description of the file, after fetching what is missing of it."""
    chain_id = node.chain_id()
    asked = (chain_id, feed, *times)
    if files.description.exists():
        record = _read_description(files)
        _same(files.csv, (record["chain_id"], record["feed"], record["since"], record["until"]), asked)
        files.journal.unlink(missing_ok=True)
        _say(f"{files.csv} is whole already, as of block {record['block']}; remove it to pull anew")
        return record
    if files.journal.exists():
        wanted, _ = _read_journal(files.journal)
        _same(files.csv, (wanted.chain_id, wanted.feed.address, wanted.since, wanted.until), asked)
        head = node.head()
        if head.number < wanted.block:
            raise InputError(
                f"--rpc: the chain is at block {head.number}, and the pull began at {wanted.block}",
                fix="use a node of the same chain",
            )
        growing = Growing.resume(files)
        _say(_resumed(growing))
    elif files.csv.stat().st_size:
        raise InputError(
            f"--out: {files.csv} exists, and nothing says what it is of", fix="choose another name"
        )
    else:
        head = node.head()
        growing = Growing.create(files, _survey(node, head, chain_id, feed, times))
    with growing:
        try:
            _fetch(growing, _Chain(node, head, clock), batch)
        except MarginlineError as error:
            error.fix = (
                f"{growing.walk.counts.rows} rounds are in {files.csv}: give the command again to go on"
            )
            raise
        return growing.finish()


def _survey(
    node: Node, head: Head, chain_id: int, address: str, times: tuple[int | None, int | None]
) -> Wanted:
    if not node.code([address])[0]:
        raise InputError(f"no code at {address} on chain {chain_id}", fix="check the address and the chain")
    found = drive(survey(address), lambda calls: node.read(list(calls), head))
    return Wanted(chain_id, head.number, head.timestamp, _starts(node, found, head), *times)


def _fetch(growing: Growing, chain: _Chain, batch: int) -> None:
    with progress_bar(stderr_console()) as bar:
        feed = growing.wanted.feed
        task = bar.add_task(feed.description or feed.address, total=feed.rounds)
        while not growing.walk.done:
            bar.update(task, completed=growing.walk.asked)
            growing.step(chain.read(growing.walk.reads(batch)))
        bar.update(task, completed=feed.rounds)


def _say(text: str) -> None:
    stderr_console().print(text, soft_wrap=True, highlight=False, markup=False)


def _resumed(growing: Growing) -> str:
    cut = ""
    if growing.repaired:
        torn = ", a torn line at its end" if growing.torn else ""
        cut = f"; {growing.repaired} bytes behind its last whole batch were cut off{torn}"
    return f"going on behind {growing.walk.counts.rows} rounds in {growing.files.csv}{cut}"


def _read_description(files: Files) -> dict[str, Any]:
    try:
        record = bounded_json(files.description.read_bytes())
        known = record["schema"] == SCHEMA
        digest = record["sha256"]
    except (ValueError, KeyError, TypeError):
        known, digest, record = False, None, {}
    if not known:
        raise InputError(f"--out: {files.description} describes no pull", fix="choose another name")
    if digest != _sha256(files.csv):
        raise InputError(
            f"--out: {files.csv} is not the file that {files.description.name} describes",
            fix="remove both to pull anew",
        )
    return dict(record)


def _same(csv: Path, there: tuple[Any, ...], asked: tuple[Any, ...]) -> None:
    """Refuse to go on with a file that is of something else."""
    names = ("chain", "feed", "--since", "--until")
    for name, had, has in zip(names, there, asked, strict=True):
        if had != has:
            raise InputError(
                f"--out: {csv} is of {name} {_shown(had)}, not {_shown(has)}", fix="choose another name"
            )


def _shown(value: object) -> object:
    return "without limit" if value is None else value


# ------------------------------------------------------------------------------------------- what is shown


def summary(record: Mapping[str, Any]) -> list[str]:
    """Return what became of a pull, in lines for people."""
    counts, phases = record["counts"], record["phases"]
    lines = [
        f"{record['description'] or record['feed']}: {counts['rows']:,} rounds of {len(phases)} phases, "
        f"newest first, as of block {record['block']}"
    ]
    missing = [f"{counts[k]:,} {words}" for k, words in _MISSING.items() if counts[k]]
    if missing:
        lines.append("left out: " + ", ".join(missing))
    unknown = [str(p["phase"]) for p in phases[1:] if p["rounds"] and p["starts_at"] is None]
    if unknown:
        lines.append(
            f"the node does not tell when phase {', '.join(unknown)} began: counted from the first round"
        )
    assumed = [str(p["phase"]) for p in phases if p["start_assumed"]]
    if assumed:
        lines.append(
            f"phase {', '.join(assumed)} has an aggregator that came back: "
            "counted from the last round of the one before"
        )
    searched = [str(p["phase"]) for p in phases if p["rounds_searched"]]
    if searched:
        lines.append(f"the aggregator of phase {', '.join(searched)} does not tell its last round: searched")
    scales = [f"phase {p['phase']} has {p['decimals']}" for p in phases if _other_scale(p, record)]
    if scales:
        lines.append(
            f"decimals: the proxy has {record['decimals']}, {', '.join(scales)}; `answer` is as it was told, "
            "`price` is right in all rows"
        )
    return lines


_MISSING: Final[Mapping[str, str]] = {
    "reverted": "that revert",
    "zeros": "that are zeros",
    "before": "from before their aggregator was the proxy's",
    "after": "from after it was replaced",
    "disordered": "out of order in time",
    "newer": "after --until",
}


def _other_scale(phase: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    return bool(phase["rounds"]) and phase["decimals"] not in (None, record["decimals"])


def snippet(csv: Path, record: Mapping[str, Any]) -> str:
    """Return the tables of a scenario that read the file: its truth, and few rounds as a feed too.

    Parameters
    ----------
    csv
        The file.
    record
        Its description.
    """
    newest, oldest = record["newest"], record["oldest"]
    if newest is None:
        return "# no rounds in the time asked for\n"
    pair = f"{record['recorded']['base']}/{record['recorded']['quote']}"
    origin = (
        f"{record['description']} ({record['feed']}), chain {record['chain_id']}, block {record['block']}"
    )
    file = {
        "path": record["file"],
        "sha256": record["sha256"],
        "time": "updated_at",
        "time_unit": "s",
        "price": "price",
        "order": "descending",
        "duplicates": "first",
        "source": origin,
    }
    inner = ", ".join(f"{key} = {json.dumps(value)}" for key, value in file.items())
    lines = [
        f"# {_iso(oldest['updated_at'])} to {_iso(newest['updated_at'])}",
        f'[truth."{pair}"]',
        'interp = "step"',
        f"file = {{ {inner} }}",
    ]
    mixed = any(_other_scale(p, record) for p in record["phases"])
    if record["counts"]["rows"] <= INLINE_ROUNDS and not mixed:
        lines += ["", *_feed_table(csv, pair, record)]
    return "\n".join(lines) + "\n"


def _feed_table(csv: Path, pair: str, record: Mapping[str, Any]) -> Iterator[str]:
    yield f'[feeds."{pair}"]'
    yield 'kind = "recorded"'
    yield f"decimals = {record['decimals']}"
    yield f"description = {json.dumps(record['description'])}"
    yield "rounds = [  # phase, round, answer, updated_at"
    with csv.open(encoding="ascii") as file:
        next(file)
        for line in reversed(file.readlines()):
            cells = dict(zip(COLUMNS, line.split(","), strict=True))
            phase, number = split_round_id(int(cells["round_id"]))
            yield f"  [{phase}, {number}, {cells['answer']}, {cells['updated_at']}],"
    yield "]"


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
