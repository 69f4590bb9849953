"""JSON-RPC over HTTP, as thin as it can be: one request per call, no hidden second one.

Nothing is retried here. Whether a request may be repeated depends on what it does, and only the caller
knows that (a transaction that was sent may have been accepted although its answer was lost).
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import requests
from requests.utils import get_environ_proxies
from urllib3.exceptions import HTTPError, ReadTimeoutError

from contracts_abi.bounded_json import bounded_json
from contracts_abi.errors import InputError, RpcError, RpcUnavailable

_PIECE: Final = 1 << 20
_LEAST_SECRET: Final = 8
"""Shorter parts of a URL are names like ``v3``, and words of ordinary messages."""

Json = Any
Request = tuple[str, Sequence[Json]]


def masked(url: str) -> str:
    """Return `url` without what may be a secret: user, password, path and query.

    Node providers put the API key into the path, so only scheme, host and port are shown.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "?", parts.port
    except ValueError:
        return "<url>"
    host = f"[{host}]" if ":" in host else host
    shown = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    secret = parts.username or parts.password or parts.query or parts.path.strip("/")
    return f"{shown}/***" if secret else shown


def _secrets(url: str) -> tuple[str, ...]:
    """Return the parts of `url` that an error of the node must not repeat, longest first."""
    parts = urlsplit(url)
    words = [parts.username, parts.password, parts.query, *parts.path.split("/")]
    words += [value for _, value in parse_qsl(parts.query)]
    return tuple(sorted({w for w in words if w and len(w) >= _LEAST_SECRET}, key=len, reverse=True))


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def quantity(value: int) -> str:
    """Encode an integer as JSON-RPC does."""
    return hex(value)


def hexed(data: bytes) -> str:
    """Encode bytes as JSON-RPC does."""
    return "0x" + data.hex()


def unhexed(text: str) -> bytes:
    """Decode JSON-RPC data."""
    return bytes.fromhex(text.removeprefix("0x"))


class JsonRpc:
    """A JSON-RPC endpoint with one kept-alive connection.

    Parameters
    ----------
    url
        ``http://`` or ``https://``; credentials in it never appear in errors.
    timeout_s
        Time allowed for connecting, again for each wait on the answer, and for all of its body.
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0) -> None:
        if not _is_http(url):
            raise InputError(f"not an RPC URL: {masked(url)}", fix="it must start with http:// or https://")
        self.url = url
        self.shown_url = masked(url)
        self._secrets = _secrets(url)
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._session = requests.Session()
        # requests would look up proxies and certificate bundles in the environment for each request,
        # which costs more than a local call; the environment of a process does not change.
        self._session.trust_env = False
        self._session.proxies.update(get_environ_proxies(url))
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        self._session.verify = bundle or True
        self._session.headers.update({"Content-Type": "application/json", "User-Agent": "marginline"})
        try:
            # Prepared once: doing it for each request takes as long as sending it.
            self._prepared = self._session.prepare_request(requests.Request("POST", url))
        except requests.RequestException:
            raise InputError(f"not an RPC URL: {masked(url)}", fix="check host and port") from None

    def __repr__(self) -> str:
        return f"JsonRpc({self.shown_url!r})"

    def __enter__(self) -> JsonRpc:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        self._session.close()

    def call(self, method: str, params: Sequence[Json] = ()) -> Json:
        """Send one request and return its result.

        Raises
        ------
        RpcUnavailable
            No answer in time, or an answer that is not JSON-RPC. Whether the node acted is unknown.
        RpcError
            The node answered with an error.
        """
        request_id = next(self._ids)
        reply = self._post({"jsonrpc": "2.0", "id": request_id, "method": method, "params": list(params)})
        if not isinstance(reply, dict) or reply.get("id") not in (request_id, None):
            raise RpcUnavailable(f"{self.shown_url}: {method} got an answer that is not JSON-RPC")
        if reply.get("error") is not None:
            raise self._error(reply["error"])
        if "result" not in reply:
            raise RpcUnavailable(f"{self.shown_url}: {method} got an answer without a result")
        return reply["result"]

    def batch(self, requests_: Sequence[Request]) -> list[Json | RpcError]:
        """Send several requests in one HTTP request.

        Returns
        -------
        list
            One entry per request, in order: its result, or the `RpcError` that the node answered with
            (not raised, since its neighbours may have succeeded).

        Raises
        ------
        RpcUnavailable
            As for `call`, and when an answer is missing.
        RpcError
            The node refused the batch as a whole.
        """
        if not requests_:
            return []
        first = next(self._ids)
        ids = [first, *itertools.islice(self._ids, len(requests_) - 1)]
        reply = self._post(
            [
                {"jsonrpc": "2.0", "id": i, "method": method, "params": list(params)}
                for i, (method, params) in zip(ids, requests_, strict=True)
            ]
        )
        if isinstance(reply, dict) and reply.get("error") is not None:
            raise self._error(reply["error"])
        if not isinstance(reply, list):
            raise RpcUnavailable(f"{self.shown_url}: a batch got an answer that is not a batch")
        answers = {entry.get("id"): entry for entry in reply if isinstance(entry, dict)}
        results: list[Json | RpcError] = []
        for i, (method, _) in zip(ids, requests_, strict=True):
            answer = answers.get(i)
            if answer is None or ("result" not in answer and answer.get("error") is None):
                raise RpcUnavailable(f"{self.shown_url}: no answer to {method} in a batch")
            error = answer.get("error")
            results.append(answer["result"] if error is None else self._error(error))
        return results

    def _post(self, body: Json) -> Json:
        request = self._prepared.copy()
        request.prepare_body(json.dumps(body).encode(), None)
        try:
            response = self._session.send(
                request, timeout=self._timeout_s, allow_redirects=False, stream=True
            )
            content = self._content(response)
        except (requests.Timeout, ReadTimeoutError):
            raise RpcUnavailable(f"{self.shown_url}: no answer within {self._timeout_s:g} s") from None
        except (requests.RequestException, HTTPError) as error:
            # The library's text repeats the URL with its secrets, so only its kind is shown.
            raise RpcUnavailable(
                f"{self.shown_url}: no connection ({type(error).__name__})",
                fix="is the node running and the URL right?",
            ) from None
        try:
            return bounded_json(content)
        except ValueError:
            raise RpcUnavailable(
                f"{self.shown_url}: HTTP {response.status_code}, {len(content)} bytes that are not JSON"
            ) from None

    def _error(self, raw: Json) -> RpcError:
        """Return a node's error. Some quote the key in it that they were asked with."""
        if not isinstance(raw, dict):
            return RpcError(-32603, self._without_secrets(str(raw)))
        code = raw.get("code")
        return RpcError(
            code if isinstance(code, int) else -32603,
            self._without_secrets(str(raw.get("message", "no message"))),
            raw.get("data"),
        )

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _content(self, response: requests.Response) -> bytes:
        """Return the body, which must be here whole in the time that one wait is allowed.

        Read as it comes in: waiting for pieces of a fixed size, as `requests` does, each byte of an answer
        that trickles would start the wait anew.
        """
        deadline = time.monotonic() + self._timeout_s
        pieces: list[bytes] = []
        while piece := response.raw.read1(_PIECE, decode_content=True):
            pieces.append(piece)
            if time.monotonic() > deadline:
                response.close()
                raise RpcUnavailable(
                    f"{self.shown_url}: the answer is not whole within {self._timeout_s:g} s"
                )
        return b"".join(pieces)
