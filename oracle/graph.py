"""The tree behind an oracle's address: which contracts a price comes from, and what can be checked of each.

A protocol names one address. Behind it stand caps, products, scalings and proxies, and at the end the
contracts in which somebody writes a number. `explore` asks every address for the getters that the known
kinds of contract have, recognises the kind by those that answer (`oracle.graph_shapes`), and follows the ones
that name a leg. Nothing here opens a connection: `execute` answers lists of reads at one block.

What a contract says is never trusted to make sense: one that answers nothing, reverts, answers whatever it is
asked, names itself or stands on a circle becomes a node that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from eth_utils.address import is_address

from contracts_abi.calls import Call, Function, checksummed, function
from contracts_abi.errors import DataError, InputError
from oracle.graph_shapes import (
    ARGUMENTS,
    GET_QUOTE,
    GETTERS,
    LIST_LENGTH,
    NOBODY_HAS,
    QUOTED,
    ROLES,
    SHAPES,
    WRITERS,
    Shape,
)
from oracle.sources.capo import CapParameters
from oracle.types import FeedKind

ZERO_ADDRESS: Final = "0x" + "00" * 20
MAX_DEPTH: Final = 10
LONGEST_TEXT: Final = 200
"""Characters of a contract's own words that are shown; a description may be as long as it likes."""
_VACUOUS_MAX: Final = 2**90

Execute: TypeAlias = Callable[[Sequence[Call[Any]]], Sequence[bytes | None]]

UNKNOWN: Final = Shape("unknown contract", FeedKind.CONSTANT, ())


@dataclass(frozen=True, slots=True)
class Leg:
    """An edge of the tree: what the child is to its parent.

    Attributes
    ----------
    role
        For people, for example ``factor A``; the symbol of an asset that is priced apart from others.
    address
        The child.
    market
        Whether the child prices one asset of several.
    """

    role: str
    address: str
    market: bool = False


@dataclass(frozen=True, slots=True)
class OracleNode:
    """One contract of the tree.

    Attributes
    ----------
    address
        Checksummed.
    shape
        Kind of contract, for people.
    kind
        How its price comes to be; None for an unknown contract.
    description
        What the contract calls itself; empty when it does not.
    decimals
        Scale of its answer; None when it states none.
    answer
        What it says now at that scale; None when it says nothing.
    updated_at
        Unix seconds of that answer; None when it carries no time.
    min_answer, max_answer
        Bounds of an aggregator; None when it has none.
    writers
        Accounts that write the answers, where it names them.
    cap, live
        What it caps at, and what it would say uncapped, at one scale.
    supply
        Shares behind a rate.
    window_s
        Window of an average.
    locked
        Whether the pool is inside a call.
    apart
        Whether it prices each asset apart, and has no price of its own.
    round_id, answered_in
        Round of the answer, and the one in which it was made; None without rounds.
    heartbeat_s, deviation_bps
        Only where the contract states them: Chainlink publishes both off chain.
    roles
        Who may change something: name of the getter to account.
    facts
        What else it answered, as text.
    legs
        The contracts that its price is made of.
    problem
        What is wrong with it: why there is no answer, or why a leg is none.
    """

    address: str
    shape: str
    kind: FeedKind | None
    description: str = ""
    decimals: int | None = None
    answer: int | None = None
    updated_at: int | None = None
    min_answer: int | None = None
    max_answer: int | None = None
    heartbeat_s: int | None = None
    deviation_bps: int | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    legs: tuple[Leg, ...] = ()
    round_id: int | None = None
    answered_in: int | None = None
    writers: tuple[str, ...] = ()
    cap: int | None = None
    live: int | None = None
    supply: int | None = None
    window_s: int | None = None
    locked: bool | None = None
    apart: bool = False
    problem: str = ""

    @property
    def bounds_vacuous(self) -> bool:
        """Whether the bounds stand there and bind nothing."""
        low, high = self.min_answer, self.max_answer
        return low is not None and high is not None and low <= 1 and high >= _VACUOUS_MAX


@dataclass(frozen=True, slots=True)
class OracleGraph:
    """The tree of an oracle. Legs that are shared stand once, so that it is a graph without circles.

    Attributes
    ----------
    root
        Address that was asked for.
    nodes
        Address to contract, in the order in which they were found.
    block, timestamp
        Where and when it was read.
    """

    root: str
    nodes: Mapping[str, OracleNode]
    block: int
    timestamp: int

    def leaves(self) -> tuple[OracleNode, ...]:
        """Return the contracts that read no other."""
        return tuple(node for node in self.nodes.values() if not node.legs)


def explore(
    address: str, execute: Execute, *, block: int, timestamp: int, depth: int = MAX_DEPTH
) -> OracleGraph:
    """Return the tree behind `address`.

    Parameters
    ----------
    address
        The contract that a protocol reads.
    execute
        Answers reads at `block`; None for each that failed.
    block, timestamp
        The block read.
    depth
        How many contracts deep to look.

    Raises
    ------
    InputError
        If `address` is none, or answers nothing that a price feed answers.
    """
    if not is_address(address):
        raise InputError(f"{address!r} is not an address", fix="give 0x and 40 hex digits")
    root = checksummed(address)
    nodes: dict[str, OracleNode] = {}
    frontier = [root]
    for _ in range(depth):
        if not frontier:
            break
        found = _read(frontier, execute, timestamp)
        nodes.update(found)
        legs = [leg.address for node in found.values() for leg in node.legs]
        frontier = [at for at in dict.fromkeys(legs) if at not in nodes]
    # What lies deeper is named and not looked into: an edge must not lead nowhere.
    deeper = f"not read: deeper than {depth}"
    nodes.update({at: OracleNode(at, deeper, None, problem=deeper) for at in frontier})
    if nodes[root].kind is None:
        raise InputError(
            f"{root} answers nothing that a price feed answers: {nodes[root].problem}",
            fix="check the address and the chain",
        )
    return OracleGraph(root, _finished(nodes), block, timestamp)


def _read(addresses: Sequence[str], execute: Execute, timestamp: int) -> dict[str, OracleNode]:
    """Return the contracts at `addresses`; one list of reads for all, and a second for what follows of it."""
    calls = [GETTERS[name].call(at, *ARGUMENTS.get(name, ())) for at in addresses for name in GETTERS]
    results = _executed(execute, calls)
    first = {
        at: dict(zip(GETTERS, results[i * len(GETTERS) : (i + 1) * len(GETTERS)], strict=True))
        for i, at in enumerate(addresses)
    }
    answers = {at: _all_decoded(raw) for at, raw in first.items()}
    shapes = {at: _shape(answers[at], first[at]) for at in addresses}
    more = [
        (at, name, getter, call)
        for at in addresses
        for name, getter, call in _second_reads(at, shapes[at], answers[at])
    ]
    for (at, name, getter, _), data in zip(more, _executed(execute, [m[3] for m in more]), strict=True):
        if (value := _decoded(getter, data)) is not None:
            answers[at][name] = value
    found = {}
    for at in addresses:
        shape = shapes[at]
        node = (
            _unknown(at, answers[at], first[at])
            if shape is None
            else _node(at, shape, answers[at], first[at], timestamp)
        )
        if node.shape == "Aave oracle":
            node = _with_reserves(node, str(answers[at]["ADDRESSES_PROVIDER"]), execute)
        found[at] = node
    return found


def _executed(execute: Execute, calls: Sequence[Call[Any]]) -> Sequence[bytes | None]:
    if not calls:
        return ()
    results = execute(calls)
    if len(results) != len(calls):
        raise ValueError(f"{len(results)} results for {len(calls)} reads")
    return results


def _second_reads(
    at: str, shape: Shape | None, answers: Mapping[str, Any]
) -> Iterator[tuple[str, Function, Call[Any]]]:
    """Yield what is asked once the kind is known: the rest of its lists, and the quote of its pair."""
    if shape is None:
        return
    for name in shape.lists:
        if f"{name}[0]" in answers:
            getter = GETTERS[f"{name}[0]"]
            for i in range(1, LIST_LENGTH):
                yield f"{name}[{i}]", getter, getter.call(at, i)
    if shape.pair is not None and all(_present(answers.get(token)) for token in shape.pair):
        base, quote = (answers[token] for token in shape.pair)
        yield "getQuote", GET_QUOTE, GET_QUOTE.call(at, QUOTED, base, quote)


def _decoded(getter: Function, data: bytes | None) -> Any:
    """Return the output, all outputs of a getter with several, None where it failed or does not decode."""
    if not data:
        return None
    try:
        values = getter.decode(data)
    except DataError:
        return None
    return values[0] if len(values) == 1 else values


def _all_decoded(raw: Mapping[str, bytes | None]) -> dict[str, Any]:
    return {name: value for name, data in raw.items() if (value := _decoded(GETTERS[name], data)) is not None}


def _present(value: Any) -> bool:
    return value is not None and value not in (ZERO_ADDRESS, 0, b"", "", ()) and not _zeros(value)


def _zeros(value: Any) -> bool:
    return isinstance(value, bytes) and not any(value)


def _shape(answers: Mapping[str, Any], raw: Mapping[str, bytes | None]) -> Shape | None:
    if raw[NOBODY_HAS]:
        return None
    return next(
        (
            shape
            for shape in SHAPES
            if all(_present(answers.get(mark)) for mark in shape.marks)
            and all(name in answers for name in shape.answers)
            and (not shape.lists or any(f"{name}[0]" in answers for name in shape.lists))
        ),
        None,
    )


def _unknown(at: str, answers: Mapping[str, Any], raw: Mapping[str, bytes | None]) -> OracleNode:
    """Return a contract of no known kind, with the reason and what it answered."""
    told: dict[str, str] = {}
    if raw[NOBODY_HAS]:
        problem = "it answers whatever it is asked"
    elif not any(raw.values()):
        silent = any(data is not None for data in raw.values())
        problem = "no contract stands here, or one that answers nothing" if silent else "every read reverts"
    else:
        told = {name: _text(value) for name, value in answers.items() if _present(value)}
        garbled = [name for name, data in raw.items() if data and name not in answers]
        problem = "none of its answers is a price's" + (
            f"; {', '.join(garbled[:3])} made no sense" if garbled else ""
        )
    name = "" if raw[NOBODY_HAS] else _text(answers.get("name", ""))
    return OracleNode(at, UNKNOWN.name, None, name, facts=told, problem=problem)


def _node(
    at: str, shape: Shape, answers: Mapping[str, Any], raw: Mapping[str, bytes | None], timestamp: int
) -> OracleNode:
    low, high = (
        answers.get(ocr, answers.get(flux))
        for ocr, flux in (("minAnswer", "minSubmissionValue"), ("maxAnswer", "maxSubmissionValue"))
    )
    said = _said(shape, answers, raw)
    legs = [
        *((getter, role, answers.get(getter)) for getter, role in shape.legs.items()),
        *(
            (name, f"{role} {i + 1}", answers.get(f"{name}[{i}]"))
            for name, role in shape.lists.items()
            for i in range(LIST_LENGTH)
        ),
    ]
    itself = [getter for getter, _, leg in legs if leg == at]
    problems = [said.problem, *(f"{getter}() names the contract itself" for getter in itself)]
    slot0 = answers.get("slot0")
    cap, live = _cap(shape, answers, timestamp)
    return OracleNode(
        at,
        shape.name,
        shape.kind,
        _text(answers.get("description", answers.get("name", ""))),
        answers.get("decimals") if shape.scale is None else shape.scale,
        said.answer,
        said.time,
        low,
        high,
        answers.get("heartbeat"),
        answers.get("deviation_bps"),
        {name: str(answers[name]) for name in ROLES if _present(answers.get(name))},
        {name: _text(answers[name]) for name in shape.facts if name in answers},
        tuple(Leg(role, str(leg)) for _, role, leg in legs if _present(leg) and leg != at),
        said.round_id,
        said.answered_in,
        next((tuple(map(checksummed, answers[name])) for name in WRITERS if answers.get(name)), ()),
        cap,
        live,
        answers.get("totalSupply") if shape.kind is FeedKind.RATE else None,
        answers.get("twapWindow", answers.get("window")) if shape.kind is FeedKind.AMM_TWAP else None,
        None if slot0 is None or shape.kind is not FeedKind.AMM_SPOT else not slot0[6],
        shape.apart,
        "; ".join(problem for problem in problems if problem),
    )


@dataclass(frozen=True, slots=True)
class _Said:
    """What a contract says its price is, or why it says none."""

    answer: int | None = None
    time: int | None = None
    round_id: int | None = None
    answered_in: int | None = None
    problem: str = ""


def _said(shape: Shape, answers: Mapping[str, Any], raw: Mapping[str, bytes | None]) -> _Said:
    """Return the price by the first of the kind's getters that answers."""
    if shape.apart:
        return _Said(problem="it prices each asset apart")
    if "getQuote" in answers:
        return _Said(answers["getQuote"])
    for name in shape.price:
        if name in answers:
            return _price(name, answers[name], answers)
    asked = (*shape.price, *(("getQuote",) if shape.pair else ()))
    garbled = [name for name in asked if raw.get(name)]
    if garbled:
        return _Said(problem=f"{garbled[0]}() answers what is no price: {len(raw[garbled[0]] or b'')} bytes")
    return _Said(problem=f"{' and '.join(f'{name}()' for name in asked)} give no answer")


def _price(name: str, value: Any, answers: Mapping[str, Any]) -> _Said:
    """Return a getter's answer as a price, with the time where it has one."""
    if name == "latestRoundData":
        round_id, answer, _, updated_at, answered_in = value
        # A round whose time is zero was never written: its answer of zero is none.
        if updated_at == 0:
            return _Said(problem="its latest round was never written")
        return _Said(answer, updated_at, round_id, answered_in)
    if name == "api3_read":
        return _Said(value[0], value[1]) if value[1] else _Said(problem="its feed was never written")
    if name == "peek":
        word, has = value
        return _Said(word, answers.get("age")) if has else _Said(problem="it has no price in effect")
    if name == "slot0":
        # Smallest units of token1 for one of token0.
        return _Said(value[0] ** 2 * 10**36 >> 192)
    if name == "getReserves":
        reserve0, reserve1, at = value
        return _Said(reserve1 * 10**36 // reserve0, at or None) if reserve0 else _Said(problem="it is empty")
    return _Said(value)


def _cap(shape: Shape, answers: Mapping[str, Any], timestamp: int) -> tuple[int | None, int | None]:
    """Return what a contract caps at now, and the rate that it caps where it tells both."""
    if "getPriceCap" in shape.marks:
        return answers["getPriceCap"], None
    names = ("getSnapshotRatio", "getSnapshotTimestamp", "getMaxYearlyGrowthRatePercent")
    if "getSnapshotRatio" not in shape.marks or any(name not in answers for name in names):
        return None, None
    return CapParameters(*(answers[name] for name in names)).max_ratio(timestamp), answers.get("getRatio")


def _text(value: Any) -> str:
    """Return an answer as text that is safe to show: contracts write what they like into their names."""
    text = "0x" + value.hex() if isinstance(value, bytes) else str(value)
    shown = "".join(char if char.isprintable() else "\ufffd" for char in text[:LONGEST_TEXT])
    return shown + ("\u2026" if len(text) > LONGEST_TEXT else "")


def _finished(nodes: Mapping[str, OracleNode]) -> dict[str, OracleNode]:
    """Return the nodes with what only the whole tree tells: what a cap is over, and circles."""
    done = {}
    for at, node in nodes.items():
        if node.cap is not None and node.live is None and len(node.legs) == 1:
            below = nodes[node.legs[0].address]
            if below.decimals == node.decimals:
                node = replace(node, live=below.answer)
        circle = _circle(nodes, at)
        if circle:
            told = f"its price comes from itself, through {' and '.join(circle)}"
            node = replace(node, problem="; ".join(p for p in (node.problem, told) if p))
        done[at] = node
    return done


def _circle(nodes: Mapping[str, OracleNode], start: str) -> tuple[str, ...]:
    """Return the legs of a contract through which its own price comes back to it."""

    def leads_back(at: str) -> bool:
        seen, pending = {at}, [at]
        while pending:
            for leg in nodes[pending.pop()].legs:
                if leg.address == start:
                    return True
                if leg.address not in seen:
                    seen.add(leg.address)
                    pending.append(leg.address)
        return False

    return tuple(leg.role for leg in nodes[start].legs if leads_back(leg.address))


_GET_POOL = function("getPool()(address)")
_GET_RESERVES_LIST = function("getReservesList()(address[])")
_GET_SOURCE = function("getSourceOfAsset(address)(address)")


def _with_reserves(node: OracleNode, provider: str, execute: Execute) -> OracleNode:
    """Return an Aave oracle with the source of each of its market's reserves as a leg.

    The oracle keeps its sources in a mapping; the reserves stand in the pool (`Pool.getReservesList`).
    """
    (data,) = execute([_GET_POOL.call(provider)])
    pool = _decoded(_GET_POOL, data)
    if not _present(pool):
        return node
    (data,) = execute([_GET_RESERVES_LIST.call(pool)])
    reserves: list[str] = [checksummed(at) for at in _decoded(_GET_RESERVES_LIST, data) or ()]
    answers = execute(
        [
            *(_GET_SOURCE.call(node.address, reserve) for reserve in reserves),
            *(GETTERS["symbol"].call(reserve) for reserve in reserves),
        ]
    )
    sources = [_decoded(_GET_SOURCE, data) for data in answers[: len(reserves)]]
    symbols = [_decoded(GETTERS["symbol"], data) for data in answers[len(reserves) :]]
    legs = tuple(
        Leg(_text(symbol or reserve), source, market=True)
        for reserve, symbol, source in zip(reserves, symbols, sources, strict=True)
        if _present(source)
    )
    missing = [
        _text(symbol or reserve)
        for reserve, symbol, source in zip(reserves, symbols, sources, strict=True)
        if not _present(source)
    ]
    facts = {**node.facts, **({"without a source": ", ".join(missing)} if missing else {})}
    return replace(node, facts=facts, legs=(*legs, *node.legs))
