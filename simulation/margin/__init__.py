"""Margin methods, one module each, found by name."""

from __future__ import annotations

from typing import Any

from oracle.registry import Registry

margin_methods: Registry[type[Any]] = Registry("margin method", "simulation.margin")
"""Methods of portfolios, built from configuration; see `simulation.margin.result.PortfolioMethod`."""

lending_margin: Registry[type[Any]] = Registry("lending margin", "simulation.margin")
"""Margin rules of lending markets, exact, made of a protocol's adapter and its market."""
