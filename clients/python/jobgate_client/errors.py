"""The error of the kit, and what a response of the gateway, or of something before it, means for a retry."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from .jobs import JobProblem

#: Codes of errors that the same request may not have later.
_PASSING = {
    "TOO_MANY_OPERATIONS",
    "TOO_MANY_REQUESTS",
    "OVERLOADED",
    "DEADLINE_EXCEEDED",
    "REQUEST_TIMEOUT",
    "INTERNAL_SERVER_ERROR",
}


class JobgateError(Exception):
    """An error with a code: of the gateway, of a `JobProblem`, or of the kit (README.md)."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        status: int | None = None,
        retry_after: float | None = None,
        problem: JobProblem | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        #: Whether the same request can succeed later. Watches retry by themselves.
        self.retryable = retryable
        #: The HTTP status, if there was a response.
        self.status = status
        #: How long to wait before a retry, in seconds.
        self.retry_after = retry_after
        #: The problem, if there is no such job.
        self.problem = problem


class TransportBlocked(Exception):
    """A transport that does not work here, though another one may: a proxy refuses, buffers or alters it."""

    def __init__(self, message: str, *, is_foreign: bool = False) -> None:
        super().__init__(message)
        #: Whether something else than a gateway has answered.
        self.is_foreign = is_foreign


class CredentialRejected(Exception):
    """The gateway does not accept this credential, or no longer."""

    def __init__(self, token: str | None, message: str, *, later: bool = False) -> None:
        super().__init__(message)
        self.token = token
        #: Whether the same one may be accepted later.
        self.later = later


def from_errors(
    errors: Sequence[Mapping[str, Any]], token: str | None, status: int | None = None, retry_after: float | None = None
) -> Exception:
    """The error of a list of GraphQL errors."""
    first = errors[0]
    message = str(first.get("message") or "the gateway reports an error without a message")
    code = str((first.get("extensions") or {}).get("code") or "UNKNOWN")
    if code == "UNAUTHENTICATED":
        return CredentialRejected(token, message)
    return JobgateError(code, message, retryable=code in _PASSING, status=status, retry_after=retry_after)


def from_response(response: httpx.Response, token: str | None) -> Exception:
    """The error of a response without data, which has been read."""
    status = response.status_code
    seconds = response.headers.get("retry-after", "")
    retry_after = float(seconds) if seconds.isdigit() else None
    try:
        errors = json.loads(response.text)["errors"]
        if isinstance(errors, list) and errors:
            return from_errors(errors, token, status, retry_after)
    except (ValueError, TypeError, KeyError):
        pass  # an answer of a proxy
    if status == 401:
        return CredentialRejected(token, "the request has no valid credential (HTTP 401)")
    if status in (408, 429) or status >= 500:
        message = f"a proxy answers in place of the gateway: HTTP {status}"
        return JobgateError("UNREACHABLE", message, retryable=True, status=status, retry_after=retry_after)
    message = f"the answer does not come from a gateway: HTTP {status}; check the URL and the proxies before it"
    return TransportBlocked(message, is_foreign=True)


def unreachable(cause: Exception) -> JobgateError:
    """The error of a request that got no response."""
    return JobgateError("UNREACHABLE", f"the gateway cannot be reached: {cause!r}", retryable=True)
