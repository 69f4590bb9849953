"""What the guards can and cannot check of a contract, asked through the guards themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oracle.graph import Leg, OracleGraph, OracleNode
from oracle.graph_guards import (
    Answerable,
    GuardView,
    graph_guards,
    leaf_kinds,
    node_context,
    node_guards,
    node_reading,
    over_tree,
)
from oracle.guards import all_guards
from oracle.types import FeedKind, GuardStatus, NoData, PriceObs
from simulation.report.oracle_graph import graph_svg, guard_lines

NOW = 1_700_000_000
A, B, C = ("0x" + digit * 40 for digit in "abc")
FEED = OracleNode(
    A,
    "price feed",
    FeedKind.PUSH,
    "ETH / USD",
    8,
    200 * 10**8,
    NOW - 60,
    10**8,
    10**12,
    round_id=5,
    answered_in=5,
)


def views(node: OracleNode = FEED, heartbeat_s: int | None = None) -> dict[str, GuardView]:
    return {view.guard: view for view in node_guards(node, now=NOW, heartbeat_s=heartbeat_s)}


def test_every_registered_guard_is_asked_once() -> None:
    assert [view.guard for view in node_guards(FEED, now=NOW)] == [guard.id for guard in all_guards()]


@pytest.mark.parametrize(
    "node",
    [
        FEED,
        replace(FEED, answer=None, problem="it reverts"),
        replace(FEED, kind=FeedKind.RATE, updated_at=None, answer=-1),
    ],
)
def test_what_stands_there_is_what_the_guards_said(node: OracleNode) -> None:
    for guard, view in zip(all_guards(), node_guards(node, now=NOW), strict=True):
        found = guard.check(node_reading(node, NOW), (), (), node_context(node, NOW))
        assert view.status is found.status
        assert found.message.endswith(view.reason)
        assert (view.answer is Answerable.CAN) is (found.status is not GuardStatus.NOT_APPLICABLE)
        assert bool(view.needs) is (view.answer is Answerable.NEEDS)


def test_a_heartbeat_that_is_not_on_chain_is_asked_for_and_taken() -> None:
    assert views()["G03"].answer is Answerable.NEEDS
    assert "--heartbeat" in views()["G03"].needs
    assert views(heartbeat_s=3_600)["G03"].answer is Answerable.CAN
    stated = replace(FEED, heartbeat_s=30, updated_at=NOW - 1_000)
    # What the contract states is not overruled from outside.
    assert views(stated, heartbeat_s=3_600)["G03"].status is GuardStatus.VIOLATED


def test_without_a_time_no_heartbeat_helps() -> None:
    timeless = views(replace(FEED, updated_at=None), heartbeat_s=3_600)
    assert (timeless["G03"].answer, timeless["G03"].reason) == (
        Answerable.CANNOT,
        "the source carries no time",
    )
    assert timeless["G04"].answer is Answerable.CANNOT


def test_bounds() -> None:
    assert views()["G06"].answer is Answerable.CAN
    vacuous = views(replace(FEED, min_answer=1, max_answer=2**95))["G06"]
    assert vacuous.answer is Answerable.CANNOT
    assert vacuous.reason.startswith("bounds vacuous")
    assert views(replace(FEED, min_answer=None))["G06"].reason == "bounds unknown"
    assert views(replace(FEED, answer=10**8))["G06"].status is GuardStatus.VIOLATED


def test_an_answer_that_was_carried_over_convicts() -> None:
    assert views(replace(FEED, answered_in=4))["G03"].status is GuardStatus.VIOLATED


def test_guards_of_other_sources_name_the_second_source_and_those_of_time_an_earlier_reading() -> None:
    asked = views()
    assert {asked[guard].needs for guard in ("G08", "G11", "G17")} == {"a second source"}
    assert {asked[guard].needs for guard in ("G05", "G07")} == {"an earlier reading"}


def test_a_guard_of_another_kind_of_price_is_told_from_one_that_lacks_something() -> None:
    push, rate, average = (
        views(replace(FEED, kind=kind)) for kind in (FeedKind.PUSH, FeedKind.RATE, FeedKind.AMM_TWAP)
    )
    assert {push[g].answer for g in ("G14", "G15", "G18")} == {Answerable.OTHER_KIND}
    assert rate["G15"].answer is Answerable.NEEDS
    assert rate["G18"].needs == "a second source"
    assert average["G14"].answer is Answerable.NEEDS
    assert views(replace(FEED, kind=FeedKind.AMM_SPOT))["G13"].status is GuardStatus.VIOLATED


def test_a_contract_that_answers_nothing_has_no_data_and_its_reason() -> None:
    dead = replace(FEED, answer=None, problem="no contract stands here")
    reading = node_reading(dead, NOW)
    assert isinstance(reading, NoData)
    assert "no contract stands here" in views(dead)["G01"].reason
    assert isinstance(node_reading(FEED, NOW), PriceObs)


def tree(*leaves: OracleNode) -> OracleGraph:
    root = OracleNode(
        C, "product", FeedKind.COMPOSITE, answer=1, legs=tuple(Leg("leg", leaf.address) for leaf in leaves)
    )
    return OracleGraph(C, {node.address: node for node in (root, *leaves)}, 1, NOW)


def test_the_leaf_that_blinds_a_guard_is_named() -> None:
    found = tree(FEED, replace(FEED, address=B, updated_at=None))
    rows = {row.guard: row for row in over_tree(found, graph_guards(found, heartbeat_s=3_600))}
    assert rows["G03"].seeing == (A,)
    assert [(leaf.address, leaf.reason) for leaf in rows["G03"].blind] == [(B, "the source carries no time")]
    assert not rows["G03"].answerable
    assert rows["G02"].answerable
    # Nobody is concerned: neither seen nor blind.
    assert (rows["G15"].seeing, rows["G15"].blind) == ((), ())
    assert not rows["G15"].answerable


def test_kinds_of_leaves_go_up_and_an_unknown_one_leaves_all_unknown() -> None:
    found = tree(FEED, replace(FEED, address=B, kind=FeedKind.AMM_SPOT))
    assert leaf_kinds(found, C) == (FeedKind.AMM_SPOT, FeedKind.PUSH)
    assert leaf_kinds(found, A) == ()
    assert {v.guard: v for v in graph_guards(found)[C]}["G13"].status is GuardStatus.VIOLATED
    dark = tree(FEED, OracleNode(B, "unknown contract", None))
    assert leaf_kinds(dark, C) == ()
    assert {v.guard: v for v in graph_guards(dark)[C]}["G13"].needs == "the kinds of its legs"


def test_a_circle_of_contracts_has_no_leaves_and_no_end() -> None:
    nodes = {
        at: OracleNode(at, "adapter", FeedKind.COMPOSITE, legs=(Leg("price", to),))
        for at, to in ((A, B), (B, A))
    }
    found = OracleGraph(A, nodes, 1, NOW)
    assert leaf_kinds(found, A) == ()
    assert over_tree(found, graph_guards(found)) == ()


def test_lines_are_compact_and_stand_in_the_picture() -> None:
    lines = guard_lines(node_guards(FEED, now=NOW))
    assert [line.partition(":")[0] for line in lines] == ["can", "needs more", "cannot", "for other kinds"]
    assert "G05 G07 (an earlier reading)" in lines[1]
    found = tree(FEED)
    picture = graph_svg(found, graph_guards(found))
    assert "<g><title>" in picture
    assert "G05 G07 (an earlier reading)" in picture
    assert "<g>" not in graph_svg(found)


def test_a_description_is_not_held_against_itself() -> None:
    asked = views()["G12"]
    assert (asked.answer, asked.needs) == (Answerable.NEEDS, "which pair it is to be of")
    # Without one nothing but other prices tells a feed of another pair.
    assert views(replace(FEED, description=""))["G12"].needs == "a second source and another pair"
