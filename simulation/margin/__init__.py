"""Margin methods, one module each, found by name."""

from __future__ import annotations

from typing import Any

from oracle.registry import Registry

margin_methods: Registry[type[Any]] = Registry("margin method", "simulation.margin")
