"""Where the third-party programs and artifacts live on this machine, and how they come there."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder for everything that can be made or fetched again.

    ``$MARGINLINE_CACHE``, else ``$XDG_CACHE_HOME/marginline``, else ``~/.cache/marginline``.
    """
    if named := os.environ.get("MARGINLINE_CACHE"):
        return Path(named).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "marginline"
    return Path.home() / ".cache" / "marginline"


def node_modules() -> Path:
    """Return the folder of the installed npm packages, whether or not it is there."""
    return cache_dir() / "npm" / "node_modules"


def vyper_cache() -> Path:
    """Return the folder for compiled contracts of our own."""
    return cache_dir() / "vyper"


def anvil_package() -> str | None:
    """Return the npm package with the node for this platform, None where there is none."""
    system = {"linux": "linux", "darwin": "darwin", "win32": "win32"}.get(sys.platform)
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(
        platform.machine().lower()
    )
    return f"@foundry-rs/anvil-{system}-{machine}" if system and machine else None


def installed_anvil() -> Path | None:
    """Return where the toolchain puts the node on this platform, whether or not it is there."""
    package = anvil_package()
    if package is None:
        return None
    return node_modules() / package / "bin" / ("anvil.exe" if sys.platform == "win32" else "anvil")
