"""Channels: each is one cause in the chain from a shock to a loss, in a file of its own, with a switch.

A channel that is off leaves the world as if it did not exist; what that means for each is in its docstring.
Channels run once a step in the order of their `order`; draws, prices and everything else of a path stay the
same when one is switched, so that the difference between two runs is what the channel did.
"""

from __future__ import annotations

from typing import Any

from oracle.registry import Registry

channels: Registry[type[Any]] = Registry("channel", "simulation.contagion.channels")
"""See `simulation.contagion.batch.Channel` for what an entry offers."""
