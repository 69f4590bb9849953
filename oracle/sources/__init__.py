"""Price sources: one file each, sans I/O. Each says which reads it needs and makes sense of the answers."""

from __future__ import annotations

from typing import Any

from oracle.registry import Registry

sources: Registry[type[Any]] = Registry("oracle source", "oracle.sources")
