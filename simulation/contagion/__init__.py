"""Contagion: many accounts over several protocols in one state, with causes that can be switched off."""

from __future__ import annotations
