"""A test with the marker `chain` reaches loopback and nothing else."""

from __future__ import annotations

import socket

import pytest

BLOCKED = (RuntimeError, UserWarning)


def test_loopback_is_open() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5) as client,
        server.accept()[0] as peer,
    ):
        client.sendall(b"ping")
        assert peer.recv(4) == b"ping"


def test_another_address_is_closed() -> None:
    # 192.0.2.0/24 is reserved for documentation: nobody answers there.
    with pytest.raises(BLOCKED, match=r"192\.0\.2\.1"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_no_other_name_is_resolved() -> None:
    with pytest.raises(BLOCKED, match=r"marginline\.invalid"):
        socket.create_connection(("marginline.invalid", 80), timeout=1)
