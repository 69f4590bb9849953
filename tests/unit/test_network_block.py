"""The network is closed in tests: what `tests/conftest.py` promises."""

from __future__ import annotations

import asyncio
import socket

import pytest
import requests

# pytest-socket warns before it raises, and here a warning is an error.
BLOCKED = (RuntimeError, UserWarning)


def test_no_socket_in_a_unit_test() -> None:
    with pytest.raises(BLOCKED, match=r"tried to use socket\.socket"):
        socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def test_not_even_loopback_in_a_unit_test() -> None:
    with pytest.raises(BLOCKED, match="tried to use"):
        socket.create_connection(("127.0.0.1", 9), timeout=1)


def test_no_name_is_resolved_in_a_unit_test() -> None:
    with pytest.raises(BLOCKED, match="getaddrinfo"):
        requests.get("http://marginline.invalid", timeout=1)


def test_asyncio_still_runs() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    assert asyncio.run(answer()) == 42
