"""Event packs: what happened on a day, as a scenario with published figures that it is held against.

A pack is a folder:

``targets.toml``
    Published figures with source and band, committed before anything was calibrated; `pack.toml` has its
    digest, and a pack whose bands were changed since is refused.
``pack.toml``
    Title, free parameters with their plausible ranges, what is compared, how the book is generated.
``scenario.toml``, ``book.toml``
    What is run, see `simulation.contagion.scenario` and docs/book.md.
``calibrated.toml``
    Values of the fitted parameters, as scripts/calibrate_packs.py has found them.

`files` reads a pack, `build` makes a scenario of it, `statistics` says what is counted, `run` compares,
`fit` calibrates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from contracts_abi.errors import UnknownNameError

_FOLDER: Final = Path(__file__).parent


def pack_names() -> tuple[str, ...]:
    """Return the names of the packaged events, sorted."""
    return tuple(sorted(p.parent.name for p in _FOLDER.glob("*/pack.toml")))


def pack_folder(name: str) -> Path:
    """Return the folder of a packaged event, or `name` itself where it is a folder with a ``pack.toml``.

    Raises
    ------
    UnknownNameError
        With the nearest name.
    """
    own = Path(name)
    if (own / "pack.toml").is_file():
        return own
    known = pack_names()
    if name not in known:
        raise UnknownNameError("event pack", name, known, listed="`marginline pack list` lists them")
    return _FOLDER / name
