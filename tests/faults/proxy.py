"""A JSON-RPC endpoint that passes everything on to a real node, except what it is told to spoil."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import requests


class Spoil(StrEnum):
    """What is done to a request or to its answer."""

    LOSE_REQUEST = "lose request"
    LOSE_REPLY = "lose reply"
    HANG = "hang"
    HTTP_500 = "http 500"
    HTTP_429 = "http 429"
    HTML = "html"
    TRUNCATED = "truncated"
    WRONG_ID = "wrong id"
    NULL = "null"
    BAD_HEX = "bad hex"
    TWICE = "twice"


@dataclass
class Fault:
    """Spoil the next `times` requests that contain `method`."""

    spoil: Spoil
    method: str
    times: int = 1


class FaultProxy:
    """A proxy in threads of this process.

    Attributes
    ----------
    url
        Where it listens.
    faults
        What it will spoil; used up from the front.
    seen
        Every (method, params) that reached it, in order.
    posts
        The methods of each HTTP request, in order.
    before
        Called with the methods of a request before it is passed on.
    target
        Where requests are passed on to.
    """

    def __init__(self, target: str) -> None:
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, list[Any]]] = []
        self.posts: list[tuple[str, ...]] = []
        self.before: Callable[[tuple[str, ...]], None] = lambda methods: None
        self.target = target
        self._mutex = threading.Lock()
        self._closing = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = proxy._answer(body)
                if answer is None:
                    return  # HTTP/1.0: returning without a word closes the connection
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that hung up is what these tests are about

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def spoil(self, spoil: Spoil, method: str = "eth_sendRawTransaction", times: int = 1) -> None:
        """Spoil the next requests that contain `method`."""
        with self._mutex:
            self.faults.append(Fault(spoil, method, times))

    def sent(self) -> list[str]:
        """Return the signed transactions that reached the proxy, as hex, in order."""
        return [params[0] for method, params in self.seen if method == "eth_sendRawTransaction"]

    def _next_fault(self, methods: tuple[str, ...]) -> Spoil | None:
        for fault in self.faults:
            if fault.method in methods:
                fault.times -= 1
                if fault.times == 0:
                    self.faults.remove(fault)
                return fault.spoil
        return None

    def _answer(self, body: bytes) -> tuple[int, bytes | None]:
        parsed = json.loads(body)
        entries = parsed if isinstance(parsed, list) else [parsed]
        methods = tuple(str(entry["method"]) for entry in entries)
        self.before(methods)
        with self._mutex:
            self.posts.append(methods)
            self.seen += [(entry["method"], entry["params"]) for entry in entries]
            spoil = self._next_fault(methods)
        match spoil:
            case Spoil.LOSE_REQUEST:
                return 0, None
            case Spoil.HTTP_500:
                return 500, b"upstream is on fire"
            case Spoil.HTTP_429:
                return 429, b'{"error": "too many requests"}'
            case Spoil.HTML:
                return 200, b"<!DOCTYPE html><html>sign in to continue</html>"
        answer = self._forward(body)
        match spoil:
            case Spoil.LOSE_REPLY:
                return 0, None
            case Spoil.HANG:
                self._closing.wait(30)
                return 0, None
            case Spoil.TRUNCATED:
                return 200, answer[: len(answer) // 2]
            case Spoil.TWICE:
                return 200, self._forward(body)
            case Spoil.WRONG_ID | Spoil.NULL | Spoil.BAD_HEX:
                return 200, _rewritten(answer, spoil)
        return 200, answer

    def _forward(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        return requests.post(self.target, data=body, headers=headers, timeout=30).content


def _rewritten(answer: bytes, spoil: Spoil) -> bytes:
    parsed = json.loads(answer)
    for entry in parsed if isinstance(parsed, list) else [parsed]:
        if spoil is Spoil.WRONG_ID:
            entry["id"] += 1000
        else:
            entry.pop("error", None)
            entry["result"] = None if spoil is Spoil.NULL else "0x12zz"
    return json.dumps(parsed).encode()
