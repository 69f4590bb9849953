"""From a scenario file to a script that is played on chain."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from importlib import import_module

from contracts_abi.errors import InputError
from oracle.faults import FaultModel
from oracle.mechanisms import FeedModel, Played, World
from simulation.chain.evm import Evm
from simulation.chain.plays.play import ChainPlay, Script, play_script
from simulation.replay.market import Run, setting_of, steps_of
from simulation.replay.seams import Scenario, replay, truth_at


def play_on_chain(scenario: Scenario, evm: Evm) -> ChainPlay:
    """Play a scenario on an EVM whose time is at least `LEAD_S` before its first step; see `play_script`.

    Raises
    ------
    InputError
        If the scenario has no protocol, or something that contracts cannot show.
    """
    return play_script(script_of(scenario), evm)


def script_of(scenario: Scenario) -> Script:
    """Return what a scenario's feeds and accounts are to do on chain, and what is computed of them.

    The market is Aave's whatever protocol the scenario names: what is compared is the pool with the exact
    model of the pool.

    Raises
    ------
    InputError
        As `play_on_chain`.
    """
    setting = setting_of(scenario)
    if setting is None:
        raise InputError(f"scenario {scenario.id} names no protocol", fix="add [protocol] with its markets")
    if valued := [symbol for symbol, how in setting.pricing.items() if how.via is not None]:
        raise InputError(
            f"{valued[0]} is valued through a second pair, and Aave's oracle reads one contract",
            fix="give it a composite feed",
        )
    played: Mapping[str, Played] = import_module("oracle.replay").play(scenario)
    return Script(
        id=scenario.id,
        models=scenario.feeds,
        worlds=_worlds(scenario, played),
        played=played,
        reads={symbol: how.feed for symbol, how in setting.pricing.items() if how.feed is not None},
        steps=steps_of(replay(scenario), setting, Run.UNGUARDED),
        markets=setting.model.markets,
        faults=[fault for fault in scenario.faults if fault.stage == "output"],
        positions=setting.positions,
        borrowers=setting.borrowers,
        keepers=setting.keepers,
    )


def _worlds(scenario: Scenario, played: Mapping[str, Played]) -> dict[str, World]:
    """Return what each feed's mechanism sees, and so its rig."""
    feeds: Mapping[str, FeedModel] = scenario.feeds
    faults: tuple[FaultModel, ...] = scenario.faults
    if bent := [fault for fault in faults if fault.stage == "input"]:
        raise InputError(
            f"the fault {bent[0].kind!r} bends what the providers of {bent[0].feed} see: not played on chain",
            fix="put what they see into the truth of a pair of its own",
        )
    steps = tuple(scenario.steps())
    blocks = tuple((t - steps[0]) // scenario.chain.block_time_s for t in steps)
    truth: dict[str, tuple[Fraction, ...]] = {
        pair: tuple(truth_at(scenario, pair, t) for t in steps) for pair in scenario.truth
    }
    return {
        name: World(
            steps, blocks, truth, truth, played, tuple(f for f in faults if f.feed == name and _is_act(f))
        )
        for name in feeds
    }


def _is_act(fault: FaultModel) -> bool:
    return fault.stage == "mechanism"
