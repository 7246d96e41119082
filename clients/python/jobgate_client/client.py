"""The client: watches jobs across connections, over the first transport that works."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from .errors import CredentialRejected, JobgateError, TransportBlocked
from .jobs import Job, JobChange, JobProblem, keys_of, parse, result_of, signature_of
from .schema import JOB_FIELDS, PROBLEM_FIELDS, JobUpdateKind
from .token import Token, TokenSource
from .transports import Transports

Transport = Literal["websocket", "sse", "wait"]
TRANSPORTS: tuple[Transport, ...] = ("websocket", "sse", "wait")

#: The most jobs of one request.
_REFS_MAX = 200
#: The ceiling of the first pause, in seconds; each failure doubles it.
_BASE = 0.5
#: How long a transport that worked is used before those that are preferred to it are tried again.
_RETRY_PREFERRED = 300.0
#: Problems that end the updates of a job, as in `jobUpdates`.
_FINAL = {"NOT_FOUND", "INVALID_REF"}


@dataclass(frozen=True)
class ConnectionStatus:
    """The state of the connection behind a watch."""

    state: Literal["connecting", "live", "reconnecting"]
    transport: Transport | None = None
    #: Why the connection was lost, and the seconds until the next attempt.
    error: JobgateError | None = None
    retry_in: float | None = None


OnStatus = Callable[[ConnectionStatus], None]


class JobgateClient:
    """A client of one gateway.

    `url` is the gateway without `/graphql`. `token` is a client key, a JWT or a watch token, or a function that gets one
    (also a coroutine function), which is called again when the gateway rejects its last token.
    """

    def __init__(
        self,
        url: str,
        *,
        token: TokenSource = None,
        transports: Iterable[Transport] = TRANSPORTS,
        max_pause: float = 30.0,
    ) -> None:
        self._choices = tuple(transports)
        if not self._choices or any(name not in TRANSPORTS for name in self._choices):
            raise ValueError(f"transports must be some of {', '.join(TRANSPORTS)}")
        self._token = Token(token)
        self._transports = Transports(_endpoint(url), self._token)
        self._max_pause = max_pause
        self._preferred = 0
        self._retry_preferred_at = 0.0

    def watch_job(
        self, ref: str, *, fields: str = "", max_staleness: str | None = None, on_status: OnStatus | None = None
    ) -> AsyncGenerator[JobChange, None]:
        """Watches a job until its last update: a snapshot, then its changes, across reconnects."""
        return self.watch_jobs([ref], fields=fields, max_staleness=max_staleness, on_status=on_status)

    async def watch_jobs(
        self,
        refs: Iterable[str],
        *,
        fields: str = "",
        max_staleness: str | None = None,
        on_status: OnStatus | None = None,
    ) -> AsyncGenerator[JobChange, None]:
        """Watches any number of jobs until the last update of each.

        `fields` are further fields of a job, in GraphQL; `max_staleness` is the maximum age of a state that is not
        terminal, such as `"5s"`. Close the generator, for example with `contextlib.aclosing`, to end the watch early.
        """
        wanted = {ref: parse(ref) for ref in refs}
        parts = [dict(list(wanted.items())[at : at + _REFS_MAX]) for at in range(0, len(wanted), _REFS_MAX)]
        watches = [_Watch(self, part, fields, max_staleness, on_status) for part in parts]
        # one entry of each job: a slow reader gets its newest state
        changes: dict[str, JobChange] = {}
        wake = asyncio.Event()

        async def collect(watch: _Watch) -> None:
            async with aclosing(watch.changes()) as arriving:
                async for change in arriving:
                    changes.pop(change.ref, None)
                    changes[change.ref] = change
                    wake.set()

        tasks = [asyncio.create_task(collect(watch)) for watch in watches]
        for task in tasks:
            task.add_done_callback(lambda _: wake.set())
        try:
            while True:
                wake.clear()
                while changes:
                    yield changes.pop(next(iter(changes)))
                is_over = all(task.done() for task in tasks)
                for task in tasks:
                    if task.done():
                        task.result()
                if is_over and not changes:
                    return
                if not is_over and not changes:
                    await wake.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def await_job(
        self,
        ref: str,
        *,
        timeout: float | None = None,
        fields: str = "",
        max_staleness: str | None = None,
        on_status: OnStatus | None = None,
    ) -> Job:
        """Waits until a job is terminal, and returns it; a failed job is a result.

        Raises a `JobgateError` with the code of the problem if there is no such job, and with `TIMED_OUT` after
        `timeout` seconds.
        """

        async def last() -> JobChange:
            watch = self.watch_job(ref, fields=fields, max_staleness=max_staleness, on_status=on_status)
            async with aclosing(watch) as changes:
                async for change in changes:
                    if change.is_final:
                        return change
            raise JobgateError("INTERNAL", "the watch ended without the job")

        try:
            change = await asyncio.wait_for(last(), timeout)
        except asyncio.TimeoutError:
            raise JobgateError("TIMED_OUT", f"the job is not terminal after {timeout} s", retryable=True) from None
        if change.job:
            return change.job
        problem = change.problem
        assert problem
        raise JobgateError(
            problem.code, problem.message, retryable=problem.retryable, retry_after=problem.retry_after, problem=problem
        )

    async def jobs(
        self, refs: Iterable[str], *, fields: str = "", max_staleness: str | None = None
    ) -> list[Job | JobProblem]:
        """Reads jobs once: a job or a problem for each reference, in their order."""
        wanted = [parse(ref) for ref in refs]
        query = _LIST % _selection(fields)
        found: list[Job | JobProblem] = []
        for at in range(0, len(wanted), _REFS_MAX):
            variables = {"refs": wanted[at : at + _REFS_MAX], "maxStaleness": max_staleness}
            found.extend(result_of(one) for one in (await self.execute(query, variables))["jobs"])
        return found

    async def create_watch_token(self, refs: Iterable[str], *, ttl: str = "15m") -> str:
        """Creates a watch token for 1 to 50 jobs, to be passed to a browser."""
        query = "mutation($input: CreateWatchTokenInput!) { createWatchToken(input: $input) { token } }"
        data = await self.execute(query, {"input": {"refs": [parse(ref) for ref in refs], "ttl": ttl}})
        token: str = data["createWatchToken"]["token"]
        return token

    async def execute(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Runs a query or a mutation once, and returns its data. A rejected token is renewed."""
        pause = 0.0
        while True:
            try:
                return await self._transports.execute(query, variables or {})
            except TransportBlocked as error:
                raise JobgateError("NOT_A_GATEWAY", str(error)) from error
            except CredentialRejected as rejection:
                final = self._token.rejected(rejection)
                if not final.retryable:
                    raise final from rejection
                await asyncio.sleep(pause)
                pause = min(1.0, self._max_pause)

    def _is_due(self) -> bool:
        """Whether a preferred transport is to be tried again."""
        return self._preferred > 0 and time.monotonic() >= self._retry_preferred_at

    def _candidates(self) -> tuple[Transport, ...]:
        if self._is_due():
            self._preferred = 0
        return self._choices[self._preferred :]

    def _works(self, transport: Transport) -> None:
        index = self._choices.index(transport)
        if index != self._preferred:
            self._preferred, self._retry_preferred_at = index, time.monotonic() + _RETRY_PREFERRED


_LIST = "query($refs: [JobRef!]!, $maxStaleness: Duration) { jobs(refs: $refs, maxStaleness: $maxStaleness) { %s } }"
_WAIT = "query($ref: JobRef!, $timeout: Duration!) { jobAwait(ref: $ref, timeout: $timeout) { %s } }"
_UPDATES = """subscription($refs: [JobRef!]!, $maxStaleness: Duration) {
  jobUpdates(refs: $refs, maxStaleness: $maxStaleness) { kind isFinal result { %s } } }"""


def _selection(fields: str) -> str:
    further = f"... on Job {{ {fields} }}" if fields else ""
    return f"{JOB_FIELDS} {further} ... on JobProblem {{ {PROBLEM_FIELDS} }}"


class _Watch:
    """The watch of up to 200 jobs."""

    def __init__(
        self,
        client: JobgateClient,
        wanted: dict[str, dict[str, Any]],
        fields: str,
        max_staleness: str | None,
        on_status: OnStatus | None,
    ) -> None:
        self._client = client
        self._pending = wanted
        self._selection = _selection(fields)
        self._max_staleness = max_staleness
        self._on_status = on_status or (lambda status: None)
        #: What was reported of each job.
        self._reported: dict[str, object] = {}

    async def changes(self) -> AsyncGenerator[JobChange, None]:
        failures, is_renewed = 0, False
        self._on_status(ConnectionStatus("connecting"))
        while self._pending:
            try:
                async with aclosing(self._answers()) as answers:
                    async for is_final, result in answers:
                        failures, is_renewed = 0, False
                        for change in self._unreported(is_final, result):
                            yield change
                if self._pending and not self._client._is_due():
                    raise JobgateError("CONNECTION_LOST", "the subscription ended before all jobs did", retryable=True)
            except (JobgateError, CredentialRejected, TransportBlocked) as thrown:
                error = self._meaning(thrown)
                if not error.retryable:
                    raise error from thrown
                # an expired token is renewed at once, and then like any other failure
                if isinstance(thrown, CredentialRejected) and not is_renewed:
                    is_renewed, pause = True, 0.0
                else:
                    ceiling = min(self._client._max_pause, _BASE * 2 ** min(failures, 20))
                    pause, failures = (error.retry_after or 0.0) + random.random() * ceiling, failures + 1
                self._on_status(ConnectionStatus("reconnecting", error=error, retry_in=pause))
                await asyncio.sleep(pause)

    def _meaning(self, thrown: Exception) -> JobgateError:
        if isinstance(thrown, CredentialRejected):
            return self._client._token.rejected(thrown)
        if isinstance(thrown, TransportBlocked):
            code = "NOT_A_GATEWAY" if thrown.is_foreign else "UNREACHABLE"
            return JobgateError(code, str(thrown), retryable=not thrown.is_foreign)
        assert isinstance(thrown, JobgateError)
        return thrown

    def _unreported(self, is_final: bool, data: Mapping[str, Any]) -> list[JobChange]:
        """The changes of an update that were not reported before: after a reconnect the gateway repeats the state."""
        found = []
        for key in keys_of(data):
            if key not in self._pending:
                continue
            signature = signature_of(is_final, data)
            kind: JobUpdateKind = "SNAPSHOT" if key not in self._reported else "ENDED" if is_final else "CHANGED"
            is_known = self._reported.get(key) == signature
            self._reported[key] = signature
            if is_final:
                del self._pending[key]
            if not is_known:
                result = result_of(data)
                job = result if isinstance(result, Job) else None
                found.append(JobChange(key, kind, is_final, job, None if isinstance(result, Job) else result))
        return found

    async def _answers(self) -> AsyncGenerator[tuple[bool, dict[str, Any]], None]:
        """The updates over the first transport that works."""
        blocked = TransportBlocked("there is no transport")
        for transport in self._client._candidates():
            is_live = False
            try:
                async with aclosing(self._over(transport)) as answers:
                    async for answer in answers:
                        if not is_live:
                            is_live = True
                            self._client._works(transport)
                            self._on_status(ConnectionStatus("live", transport))
                        yield answer
                return
            except TransportBlocked as error:
                blocked = error
        raise blocked

    async def _over(self, transport: Transport) -> AsyncGenerator[tuple[bool, dict[str, Any]], None]:
        if transport == "wait":
            async with aclosing(self._waiting()) as waiting:
                async for result in waiting:
                    is_problem = result["__typename"] == "JobProblem"
                    is_over = result["code"] in _FINAL and not result["retryable"] if is_problem else result["isTerminal"]
                    yield is_over, result
            return
        variables = {"refs": list(self._pending.values()), "maxStaleness": self._max_staleness}
        transports = self._client._transports
        subscribe = transports.websocket if transport == "websocket" else transports.sse
        async with aclosing(subscribe(_UPDATES % self._selection, variables)) as answers:
            async for data in answers:
                update = data["jobUpdates"]
                yield update["isFinal"], update["result"]

    async def _waiting(self) -> AsyncGenerator[dict[str, Any], None]:
        """Results by requests that wait: a snapshot of all jobs, then `jobAwait` of one at a time."""
        execute = self._client._transports.execute
        turn, is_first = 0, True
        # requests that wait have no end of their own
        while self._pending and (is_first or not self._client._is_due()):
            if is_first or len(self._pending) > 1:
                snapshot = {"refs": list(self._pending.values()), "maxStaleness": self._max_staleness}
                for result in (await execute(_LIST % self._selection, snapshot))["jobs"]:
                    yield result
                is_first = False
            waiting = list(self._pending.values())
            if not waiting:
                return
            variables = {"ref": waiting[turn % len(waiting)], "timeout": "20s" if len(waiting) == 1 else "5s"}
            turn += 1
            yield (await execute(_WAIT % self._selection, variables))["jobAwait"]


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"url {url!r} is not a URL of a gateway: write https://HOST")
    if parts.username or parts.password or parts.query:
        raise ValueError("url must not contain a credential or a query: use the argument token")
    path = parts.path.rstrip("/").removesuffix("/graphql")
    return urlunsplit((parts.scheme, parts.netloc, f"{path}/graphql", "", ""))
