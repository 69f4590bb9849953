"""Brackets without end are refused, wherever they come from, before the process ends over them."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import py_ecc
import pytest
import requests

from contracts_abi.bounded_json import MAX_DEPTH, bounded_json
from contracts_abi.errors import RpcUnavailable
from simulation.chain.rpc import JsonRpc


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, b"[" * 200_000, '[{"a":' * 100_000])
def test_brackets_without_end_are_refused(text: str | bytes) -> None:
    # Brought in by what signs transactions: with it the parser's own guard comes too late.
    assert sys.getrecursionlimit() >= 100_000, py_ecc.__name__
    with pytest.raises(ValueError, match=f"nests deeper than {MAX_DEPTH}"):
        bounded_json(text)


def test_depth_is_counted_as_the_parser_nests() -> None:
    assert bounded_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(ValueError, match="nests deeper"):
        bounded_json("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    wide = [{"text": '[[{"\\"[' * 3, "more": [i]} for i in range(MAX_DEPTH)]
    assert bounded_json(json.dumps(wide)) == wide
    assert bounded_json("[[0]]", 2) == [[0]]
    with pytest.raises(ValueError, match="nests deeper than 1"):
        bounded_json("[[0]]", 1)


@pytest.mark.parametrize("text", ["", "nonsense", b"\xff\xfe", '"no end'])
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the kind is all that is promised
        bounded_json(text)


def test_a_node_cannot_end_the_process_that_asks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests.Session, "send", lambda *_, **__: SimpleNamespace(status_code=200))
    monkeypatch.setattr(JsonRpc, "_content", lambda *_: b"[" * 200_000)
    with JsonRpc("http://127.0.0.1:1") as rpc, pytest.raises(RpcUnavailable, match="bytes that are not JSON"):
        rpc.call("eth_chainId")
