"""Deploys Compound III's Comet from a checkout that its owner has built; no package ships it.

Nothing of the checkout is kept. What was deployed is named by the hash of its creation code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eth_abi.abi import encode

from contracts_abi import compound_v3 as abi
from contracts_abi.artifacts import Artifact, read_artifact
from contracts_abi.errors import InputError
from simulation.chain.evm import Evm, transact

REPOSITORY: Final = "github.com/compound-finance/comet"
COMMIT: Final = "d5a30b0a"
"""The commit that the model was written from."""

TRACKING_INDEX_SCALE: Final = 10**15
"""Of rewards, as the authors' own markets have it."""

_ARTIFACTS: Final = "artifacts/contracts"
"""Where a build of the checkout leaves its contracts."""


@dataclass(frozen=True, slots=True)
class CometArtifacts:
    """The contracts of a checkout.

    Attributes
    ----------
    comet, extension
        `Comet` and what it delegates to, `CometExt`.
    """

    comet: Artifact
    extension: Artifact

    @property
    def digest(self) -> str:
        """SHA-256 of both creation codes, its first 16 digits."""
        return hashlib.sha256(self.comet.bytecode + self.extension.bytecode).hexdigest()[:16]


def comet_artifacts(source: Path) -> CometArtifacts:
    """Read the contracts of a built checkout.

    Raises
    ------
    InputError
        If there is no such folder, or it is not built.
    DataError
        If a file in it is no contract.
    """
    if not source.is_dir():
        raise InputError(
            f"--source {source}: no such folder", fix=f"give a checkout of {REPOSITORY} at {COMMIT}"
        )
    paths = [source / _ARTIFACTS / f"{name}.sol" / f"{name}.json" for name in ("Comet", "CometExt")]
    for path in paths:
        if not path.is_file():
            raise InputError(
                f"--source {source}: there is no {path.relative_to(source)}",
                fix=f"build the checkout of {REPOSITORY} as its README says",
            )
    return CometArtifacts(*(read_artifact(path) for path in paths))


def deploy_extension(evm: Evm, owner: str, artifacts: CometArtifacts) -> str:
    """Deploy what Comets delegate to; returns its address."""
    name = b"Compound".ljust(32, b"\0")
    return evm.create(
        owner, artifacts.extension.bytecode + encode([abi.EXTENSION_CONFIGURATION], [(name, name)])
    )


def deploy_comet(
    evm: Evm, owner: str, artifacts: CometArtifacts, extension: str, config: Mapping[str, Any]
) -> str:
    """Deploy a Comet without a proxy, governed and guarded by `owner`; returns its address.

    Parameters
    ----------
    config
        ``base`` and ``base_feed``: addresses. ``rates``: for lenders, then for borrowers, the kink and the
        yearly low slope, high slope and base at 1e18. ``store_front``, ``borrow_min``, ``target``: as the
        constructor takes them. ``assets``: of each collateral its token, feed, decimals, the three factors at
        1e18 and the supply cap. ``rewards``: speeds for lenders and borrowers, and the
        least principal that they run at.

    Raises
    ------
    CallReverted
        If the constructor refuses.
    """
    configuration = (
        *(owner, owner, config["base"], config["base_feed"], extension),
        *config["rates"],
        *(config["store_front"], TRACKING_INDEX_SCALE, *config["rewards"]),
        *(config["borrow_min"], config["target"]),
        [tuple(asset) for asset in config["assets"]],
    )
    comet = evm.create(owner, artifacts.comet.bytecode + encode([abi.CONFIGURATION], [configuration]))
    transact(evm, owner, comet, abi.INITIALIZE_STORAGE)
    return comet
