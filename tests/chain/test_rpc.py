"""One request per call, nothing repeated, and no secret in any error; against a server that misbehaves."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from contracts_abi.errors import InputError, RpcError, RpcUnavailable
from simulation.chain.rpc import JsonRpc

Answer = Callable[[Any], bytes | None]


class Server:
    """Answers each request with what `answer` makes of it; None hangs up."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.answer: Answer = lambda body: json.dumps({"id": body["id"], "result": "0x1"}).encode()
        self.status = 200
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.bodies.append(body)
                content = server.answer(body)
                if content is None:
                    self.close_connection = True
                    return
                self.send_response(server.status)
                self.send_header("Content-Length", str(len(content)))
                if server.status == 307:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://user:password@127.0.0.1:{self._http.server_port}/v2/key?token=secret"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def rpc(server: Server) -> Iterator[JsonRpc]:
    with JsonRpc(server.url, timeout_s=5) as rpc:
        yield rpc


def test_a_call_is_one_request(server: Server, rpc: JsonRpc) -> None:
    assert rpc.call("eth_chainId", [1, "a"]) == "0x1"
    (body,) = server.bodies
    assert (body["method"], body["params"], body["jsonrpc"]) == ("eth_chainId", [1, "a"], "2.0")


def test_a_null_result_is_a_result(server: Server, rpc: JsonRpc) -> None:
    server.answer = lambda body: json.dumps({"id": body["id"], "result": None}).encode()
    assert rpc.call("eth_getTransactionReceipt", ["0x0"]) is None


def test_a_batch_keeps_its_order_and_its_errors_in_place(server: Server, rpc: JsonRpc) -> None:
    def answer(body: Any) -> bytes:
        answers: list[Any] = [{"id": entry["id"], "result": entry["method"]} for entry in body]
        answers[1] = {"id": body[1]["id"], "error": {"code": 3, "message": "reverted", "data": "0x12"}}
        return json.dumps(answers[::-1]).encode()

    server.answer = answer
    first, second, third = rpc.batch([("a", []), ("b", []), ("c", [])])
    assert (first, third) == ("a", "c")
    assert isinstance(second, RpcError)
    assert (second.code, second.data) == (3, "0x12")
    assert len(server.bodies) == 1
    assert rpc.batch([]) == []
    assert len(server.bodies) == 1


def test_an_error_is_raised_with_code_and_data(server: Server, rpc: JsonRpc) -> None:
    error = {"code": -32000, "message": "nonce too low", "data": {"is": 7}}
    server.answer = lambda body: json.dumps({"id": body["id"], "error": error}).encode()
    with pytest.raises(RpcError, match="-32000: nonce too low") as raised:
        rpc.call("eth_sendRawTransaction", ["0x"])
    assert (raised.value.code, raised.value.data) == (-32000, {"is": 7})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"<html>502</html>", r"HTTP 200, 16 bytes that are not JSON"),
        (b"", r"0 bytes that are not JSON"),
        (b"[]", r"not JSON-RPC"),
        (b"{}", r"without a result"),
        (b'{"id": 999999, "result": 1}', r"not JSON-RPC"),
        (None, r"no connection"),
    ],
)
def test_what_is_no_answer_is_said_once_and_without_secrets(
    server: Server, rpc: JsonRpc, content: bytes | None, told: str
) -> None:
    server.answer = lambda _body: content
    with pytest.raises(RpcUnavailable, match=told) as raised:
        rpc.call("eth_sendRawTransaction", ["0x"])
    assert len(server.bodies) == 1  # never sent again
    assert "\n" not in str(raised.value)
    for secret in ("user", "password", "key", "secret"):
        assert secret not in str(raised.value)
        assert secret not in repr(rpc)


@pytest.mark.parametrize("content", [b'{"id": 1, "result": 1}', b"[]", b'[{"id": 1}]', b"[1]"])
def test_a_batch_with_missing_answers_is_no_answer(server: Server, rpc: JsonRpc, content: bytes) -> None:
    server.answer = lambda _body: content
    with pytest.raises(RpcUnavailable):
        rpc.batch([("a", [])])


def test_a_batch_refused_as_a_whole_is_an_error(server: Server, rpc: JsonRpc) -> None:
    server.answer = lambda _body: b'{"id": null, "error": {"code": -32600, "message": "too large"}}'
    with pytest.raises(RpcError, match="too large"):
        rpc.batch([("a", [])])


def test_a_redirection_is_not_followed(server: Server, rpc: JsonRpc) -> None:
    server.status = 307
    server.answer = lambda _body: b"moved"
    with pytest.raises(RpcUnavailable, match="HTTP 307"):
        rpc.call("eth_sendRawTransaction", ["0x"])
    assert len(server.bodies) == 1


def test_silence_ends_after_the_timeout(server: Server) -> None:
    release = threading.Event()
    server.answer = lambda _body: None if release.wait(10) else b""
    with JsonRpc(server.url, timeout_s=0.1) as rpc, pytest.raises(RpcUnavailable, match=r"within 0\.1 s"):
        rpc.call("eth_chainId")
    release.set()
    assert len(server.bodies) == 1


def test_an_answer_that_trickles_in_ends_too() -> None:
    """Each byte comes well within the time of one wait; all of them would take a minute."""
    gone = threading.Event()

    def trickle() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n")
            while not gone.wait(0.02):
                connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with (
                JsonRpc(url, timeout_s=0.3) as rpc,
                pytest.raises(RpcUnavailable, match=r"whole within 0\.3 s"),
            ):
                rpc.call("eth_chainId")
        finally:
            gone.set()
            thread.join()


def test_an_error_that_quotes_the_key_is_told_without_it(server: Server) -> None:
    message = "project 0123456789abcdef: token fedcba98 is over its limit"
    server.answer = lambda body: json.dumps(
        {"id": body["id"], "error": {"code": 429, "message": message}}
    ).encode()
    url = server.url.replace("key?token=secret", "0123456789abcdef?token=fedcba98")
    with JsonRpc(url, timeout_s=5) as rpc, pytest.raises(RpcError) as raised:
        rpc.call("eth_chainId")
    assert str(raised.value) == "RPC error 429: project ***: token *** is over its limit"


def test_a_connection_that_was_closed_meanwhile_is_opened_again(server: Server, rpc: JsonRpc) -> None:
    rpc.call("eth_chainId")
    rpc.close()
    assert rpc.call("eth_chainId") == "0x1"


@pytest.mark.parametrize("url", ["127.0.0.1:8545", "ws://127.0.0.1", "http://", "", "http://[bad"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="not an RPC URL"):
        JsonRpc(url)
