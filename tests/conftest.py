"""What every test stands on: no network, few threads, no clutter.

A test may open loopback sockets only when it carries the marker `chain` or `faults`, which tests under
`tests/chain` and `tests/faults` get from their folder. All others may not even resolve a name. Unix sockets
stay open: asyncio and process pools need them, and they leave the machine to nobody.
"""

from __future__ import annotations

import os

# Before numpy and numba load: the workers of pytest-xdist already fill the cores. Two numba threads, so that
# a parallel kernel still runs as one. What the caller's environment says goes first.
os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "VECLIB_MAXIMUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "2",
    }
    | os.environ
)

import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_socket

TESTS = Path(__file__).resolve().parent
LOOPBACK = ("127.0.0.1", "::1", "localhost")
NETWORK_MARKERS = ("chain", "faults")
OFFLINE_FOLDERS = ("unit", "property")

_resolve = socket.getaddrinfo


def _resolve_loopback(host: Any, *arguments: Any, **options: Any) -> Any:
    """Stand in for `socket.getaddrinfo` where only loopback is allowed; a look-up is network traffic too."""
    name = host.decode() if isinstance(host, bytes) else host
    if name is not None and name not in LOOPBACK:
        raise pytest_socket.SocketConnectBlockedError(list(LOOPBACK), name)
    return _resolve(host, *arguments, **options)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder, and refuse a network marker where no test may have one."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        if folder in NETWORK_MARKERS:
            item.add_marker(folder)
        elif folder in OFFLINE_FOLDERS and any(item.get_closest_marker(name) for name in NETWORK_MARKERS):
            raise pytest.UsageError(f"{item.nodeid}: a test that needs a node belongs in tests/chain")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Close the network before any fixture of the test runs; pytest-socket opens it again afterwards."""
    if any(item.get_closest_marker(name) for name in NETWORK_MARKERS):
        # "localhost" stays out of the list: pytest-socket would resolve it, and a name is no address.
        pytest_socket.socket_allow_hosts(list(LOOPBACK[:2]), allow_unix_socket=True)
        socket.getaddrinfo = _resolve_loopback
    else:
        pytest_socket.disable_socket(allow_unix_socket=True)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Give name resolution back; pytest-socket only knows of its own guards."""
    socket.getaddrinfo = _resolve


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache folder of this test's own, which `MARGINLINE_CACHE` names."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("MARGINLINE_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of reference data beside the repository, or skip: it is not part of the project."""
    folder = TESTS.parent.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}")
    return folder
