"""Several markets in one keeper, and what goes wrong in one of them: the others must not notice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from keeper.commands.chain import COMPILED, local_market
from keeper.config import Mode
from keeper.journal import Loss
from keeper.loop import HeadResult
from keeper.types import AttemptKind
from simulation.chain.seed import SeededState, load_or_build
from simulation.chain.solc import ensure_protocol_toolchain
from simulation.types import Action, Reason
from tests.keeper_bench import Running, Stage, running, staged

ACCOUNTS, ON_MORPHO, SEED = 24, 16, 5
AAVE = "aave-v3.6"


@pytest.fixture(scope="module")
def seeded() -> SeededState:
    ensure_protocol_toolchain(COMPILED)
    return load_or_build(ACCOUNTS, SEED, market=local_market(quick=False), morpho_accounts=ON_MORPHO)


@pytest.fixture
def stage(seeded: SeededState, tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path, state=seeded, kind=AAVE) as chain:
        yield chain


def names(stage: Stage) -> list[str]:
    """Return the names of the markets, as they follow from the chain."""
    assert stage.market.morpho is not None
    return [AAVE, *(f"morpho-blue:{market.id[2:10]}" for market in stage.market.morpho.markets)]


def step(keeper: Running) -> HeadResult:
    return keeper.keeper.work(keeper.tick())


def sent(result: HeadResult) -> set[str]:
    """Return the markets that something was sent to."""
    return {intent.protocol for intent in result.submission.intents} if result.submission else set()


def lose(keeper: Running, monkeypatch: pytest.MonkeyPatch, losses: Sequence[Loss]) -> None:
    """Let the journal tell of losses."""
    monkeypatch.setattr(keeper.journal, "losses", lambda since_timestamp: list(losses))


def reverts(keeper: Running, name: str, count: int) -> list[Loss]:
    """Return reverts in a market within the last minute, each of somebody who borrows nothing now."""
    head = keeper.tick().head
    return [
        Loss(f"0x{i:040x}", name, AttemptKind.ACTION, head.number, head.timestamp, 10**12)
        for i in range(count)
    ]


def test_races_lost_in_one_market_stop_nobody_in_another(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, *others = names(stage)[1], names(stage)[0], names(stage)[2]
    with running(stage, Mode.LIVE) as keeper:
        step(keeper)
        stage.fall(45)
        lose(keeper, monkeypatch, reverts(keeper, bad, 100))
        result = step(keeper)
        assert sent(result) == set(others)
        stopped = {
            (v.action, v.reason)
            for v in result.verdicts
            if v.protocol_margin.protocol == bad and v.detail.startswith("max_reverts_per_hour: 100 reverts")
        }
        assert stopped == {(Action.HOLD, Reason.LIMIT)}
        # Told of once a head, and by the market's name.
        (told,) = keeper.events("limit")
        assert (told["limit"], told["protocol"]) == ("max_reverts_per_hour", bad)


def test_a_ceiling_over_all_markets_stops_a_keeper_that_fails_everywhere(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(stage, Mode.LIVE, limits={"max_reverts_per_hour_in_all": 150}) as keeper:
        step(keeper)
        stage.fall(45)
        lose(keeper, monkeypatch, [loss for name in names(stage)[:2] for loss in reverts(keeper, name, 75)])
        assert sent(step(keeper)) == set()
        (told,) = keeper.events("limit")
        assert told["limit"] == "max_reverts_per_hour_in_all"
        assert "protocol" not in told
