"""What a result depends on besides the plan's own numbers: the code that computes it, and the libraries."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

from keeper import __version__

PACKAGES: Final = ("contracts_abi", "oracle", "simulation")
"""Everything that a model stands on; the keeper only runs it."""

LIBRARIES: Final = ("numpy", "scipy", "numba")
"""Libraries whose release may change a last digit."""


def versions(task: str) -> dict[str, str]:
    """Return what else decides a result, by name, for `SweepPlan.versions`.

    Parameters
    ----------
    task
        ``module:function``; its file is part of the code where it is outside our packages.
    """
    return {
        "marginline": __version__,
        "code": code_sha256(task.partition(":")[0]),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "machine": platform.machine(),
        **{name: version(name) for name in LIBRARIES},
    }


def code_sha256(module: str) -> str:
    """Return the digest of our packages' files and of the module, where that is not one of them."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for folder in importlib.util.find_spec(package).submodule_search_locations or ():  # type: ignore[union-attr]
            for file in sorted(Path(folder).rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    _add(digest, f"{package}/{file.relative_to(folder).as_posix()}", file)
    if module.partition(".")[0] not in PACKAGES:
        try:
            spec = importlib.util.find_spec(module)
        except ImportError:
            spec = None  # the workers say what is wrong with it
        if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
            _add(digest, module, Path(spec.origin))
    return digest.hexdigest()


def _add(digest: hashlib._Hash, name: str, file: Path) -> None:
    data = file.read_bytes()
    digest.update(f"{len(name.encode())}:{name}:{len(data)}:".encode())
    digest.update(data)
