"""From a scenario file to a script that is played on chain."""

from __future__ import annotations

from collections.abc import Mapping

from contracts_abi.errors import InputError
from oracle.mechanisms import Played, World
from oracle.replay import play, world_of
from simulation.chain.evm import Evm
from simulation.chain.plays.play import ChainPlay, Script, play_script
from simulation.replay.market import Run, setting_of, steps_of
from simulation.replay.seams import Scenario, replay


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
    played = play(scenario)
    return Script(
        id=scenario.id,
        models=scenario.feeds,
        worlds=_worlds(scenario, played),
        played=played,
        reads={symbol: how.feed for symbol, how in setting.pricing.items() if how.feed is not None},
        steps=steps_of(replay(scenario), setting, Run.UNGUARDED),
        markets=setting.model.markets,
        faults=[fault for fault in scenario.faults if fault.acts_in() == "output"],
        positions=setting.positions,
        borrowers=setting.borrowers,
        keepers=setting.keepers,
    )


def _worlds(scenario: Scenario, played: Mapping[str, Played]) -> dict[str, World]:
    """Return what each feed's mechanism sees, and so its rig."""
    return {name: world_of(scenario, name, played) for name in scenario.feeds}
