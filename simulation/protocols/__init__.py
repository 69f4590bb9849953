"""Lending protocols, one module or package each, found by name."""

from __future__ import annotations

from typing import Any

from oracle.registry import Registry

protocols: Registry[type[Any]] = Registry("protocol", "simulation.protocols")
