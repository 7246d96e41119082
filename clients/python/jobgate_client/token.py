"""The credential of a client: a text, or a function that gets one, which is called again when it is rejected."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Union

from .errors import CredentialRejected, JobgateError

TokenSource = Union[str, Callable[[], Union[str, Awaitable[str]]], None]

#: New tokens that are rejected in a row before the client gives up. The first may only be too new for the gateway.
_REJECTIONS_MAX = 3


class Token:
    """A credential that is renewed."""

    def __init__(self, source: TokenSource) -> None:
        if source == "" or not (source is None or isinstance(source, str) or callable(source)):
            raise TypeError("token must be a text, or a function that returns one")
        self._source = source
        self._current: str | None = None
        self._rejections = 0
        self._lock: asyncio.Lock | None = None

    async def value(self) -> str | None:
        """The token, None without one. The function is called once for all that wait."""
        source = self._source
        if source is None or isinstance(source, str):
            return source
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            if self._current is None:
                try:
                    token = source()
                    if inspect.isawaitable(token):
                        token = await token
                except JobgateError:
                    raise
                except Exception as error:
                    message = f"the function token failed: {error!r}"
                    raise JobgateError("TOKEN_UNAVAILABLE", message, retryable=True) from error
                if not isinstance(token, str) or not token:
                    raise JobgateError("TOKEN_UNAVAILABLE", "the function token must return a text")
                self._current = token
            return self._current

    def accepted(self) -> None:
        """The gateway accepted the token."""
        self._rejections = 0

    def rejected(self, rejection: CredentialRejected) -> JobgateError:
        """What follows from a rejection: the error is retryable if the next attempt can succeed."""
        is_text = not callable(self._source)
        if is_text or rejection.token == self._current:
            self._current = None
            self._rejections += 1
        can_retry = self._rejections <= _REJECTIONS_MAX and (not is_text or rejection.later)
        return JobgateError("UNAUTHENTICATED", str(rejection), retryable=can_retry, status=401)
