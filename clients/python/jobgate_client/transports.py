"""The ways to the gateway: one request, and subscriptions over WebSocket (gql) or server-sent events (httpx)."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import httpx
from gql import Client, GraphQLRequest
from gql.transport.exceptions import TransportError, TransportQueryError
from gql.transport.websockets import WebsocketsTransport

from .errors import CredentialRejected, JobgateError, TransportBlocked, from_errors, from_response, unreachable
from .token import Token

#: The gateway sends a first byte at once, and a comment every 15 s.
_FIRST_BYTE = 10.0
_SILENCE = 40.0
#: Longer than the gateway waits in `jobAwait`.
_REQUEST = httpx.Timeout(40.0, connect=10.0)
#: Failed handshakes in a row after which WebSocket counts as blocked, if it has worked before.
_FAILURES_MAX = 3
#: Close codes after which the same would happen again (docs/streams.md).
_PERMANENT = {1002, 1007, 1009, 4400, 4406, 4409, 4429}
#: The token is missing or unknown; expired, revoked, or not verifiable yet.
_UNAUTHORIZED, _FORBIDDEN = 4401, 4403


_T = TypeVar("_T")


class Transports:
    """The transports of one gateway with one credential."""

    def __init__(self, url: str, token: Token) -> None:
        self._url = url
        self._token = token
        self._tls: ssl.SSLContext | None = None
        self._has_worked = False
        self._failures = 0

    async def _headers(self, accept: str) -> tuple[str | None, dict[str, str]]:
        token = await self._token.value()
        headers = {"accept": accept, "content-type": "application/json"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        return token, headers

    def _http(self, timeout: httpx.Timeout) -> httpx.AsyncClient:
        # the certificates are read once: it takes a tenth of a second
        self._tls = self._tls or httpx.create_ssl_context()
        return httpx.AsyncClient(timeout=timeout, verify=self._tls)

    async def execute(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Runs a query or a mutation, and returns its data."""
        token, headers = await self._headers("application/graphql-response+json, application/json;q=0.9")
        body = {"query": query, "variables": variables}
        try:
            # redirects are not followed: the credential goes to no other address
            async with self._http(_REQUEST) as http:
                response = await http.post(self._url, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise unreachable(error) from error
        if not response.is_success:
            raise from_response(response, token)
        try:
            answer = response.json()
        except ValueError as error:
            message = "the answer is not JSON: check the URL and the proxies before it"
            raise TransportBlocked(message, is_foreign=True) from error
        self._token.accepted()
        if answer.get("errors"):
            raise from_errors(answer["errors"], token, response.status_code)
        data: dict[str, Any] = answer["data"]
        return data

    async def websocket(self, query: str, variables: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Runs a subscription over a WebSocket of its own."""
        token = await self._token.value()
        payload = {} if token is None else {"authorization": f"Bearer {token}"}
        address = "ws" + self._url.removeprefix("http")
        transport = WebsocketsTransport(url=address, init_payload=payload)
        request = GraphQLRequest(query, variable_values=dict(variables))
        is_open = False
        try:
            async with Client(transport=transport) as session:
                async with aclosing(session.subscribe(request)) as answers:
                    is_open = self._has_worked = True
                    self._failures = 0
                    async for data in answers:
                        self._token.accepted()
                        yield data
        except TransportQueryError as error:
            raise from_errors(error.errors or [{"message": str(error)}], token) from error
        except (TransportError, OSError, asyncio.TimeoutError) as error:
            raise self._closed(error, token, is_open) from error

    def _closed(self, error: BaseException, token: str | None, is_open: bool) -> Exception:
        cause = error.__cause__ or error
        close = getattr(cause, "rcvd", None)
        code: int | None = getattr(close, "code", None)
        message: str = getattr(close, "reason", "") or f"{error}: {cause}"
        if code in (_UNAUTHORIZED, _FORBIDDEN):
            return CredentialRejected(token, message, later=code == _FORBIDDEN)
        if code in _PERMANENT:
            return JobgateError(f"CLOSED_{code}", message)
        if is_open or code is not None:
            return JobgateError("CONNECTION_LOST", message, retryable=True)
        self._failures += 1
        if self._has_worked and self._failures < _FAILURES_MAX:
            return JobgateError("UNREACHABLE", message, retryable=True)
        return TransportBlocked(message)

    async def sse(self, query: str, variables: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Runs a subscription as server-sent events."""
        token, headers = await self._headers("text/event-stream")
        body = {"query": query, "variables": variables}
        try:
            async with self._http(httpx.Timeout(None, connect=_FIRST_BYTE)) as http:
                request = http.build_request("POST", self._url, json=body, headers=headers)
                response = await _within(_FIRST_BYTE, http.send(request, stream=True), _HELD_BACK)
                async with aclosing(response):
                    if not response.is_success:
                        await response.aread()
                        raise from_response(response, token)
                    if not response.headers.get("content-type", "").startswith("text/event-stream"):
                        raise TransportBlocked("the answer is not an event stream")
                    async for name, data in _events(response):
                        self._token.accepted()
                        if name == "complete":
                            return
                        if name == "next":
                            answer = json.loads(data)
                            if answer.get("errors") and not answer.get("data"):
                                raise from_errors(answer["errors"], token)
                            yield answer["data"]
        except httpx.HTTPError as error:
            raise unreachable(error) from error
        raise JobgateError("CONNECTION_LOST", "the stream ended before the subscription", retryable=True)


_HELD_BACK = TransportBlocked("no event stream was opened in time; a proxy may hold it back")


async def _within(seconds: float, action: Awaitable[_T], error: Exception) -> _T:
    try:
        return await asyncio.wait_for(action, seconds)
    except asyncio.TimeoutError:
        raise error from None


async def _events(response: httpx.Response) -> AsyncGenerator[tuple[str, str], None]:
    """The name and the data of each event, by the rules of the HTML standard as far as GraphQL over SSE needs them."""
    name, data = "", list[str]()
    lines = response.aiter_lines()
    seconds: float = _FIRST_BYTE
    error: Exception = _HELD_BACK
    while True:
        try:
            line = await _within(seconds, anext(lines), error)
        except StopAsyncIteration:
            return
        seconds, error = _SILENCE, JobgateError("CONNECTION_LOST", "the stream is silent", retryable=True)
        if not line:
            if name or data:
                yield name, "\n".join(data)
            name, data = "", []
        elif line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
